//! Signing keys are replaced while requests go on: first everybody accepts the new one, then everybody signs with it, then
//! the old one goes.

use std::time::Duration;

use futures_util::future::join_all;
use ryw_core::{Key, Keyring, Tenant, Token};
use ryw_testing::lagging::LaggingStore;
use tower_ryw::{CookiePolicy, Ladder, RywLayer};

use crate::harness::{Fixture, values};

const CLIENTS: usize = 40;
const ROUNDS: usize = 6;

fn key(id: u8) -> Key {
    Key::new(id, &[id; 32]).unwrap()
}

/// Newest first.
fn ring(ids: &[u8]) -> Keyring {
    let newest = Keyring::new(key(ids[0]));
    ids[1..].iter().fold(newest, |ring, id| ring.and_accept(key(*id)).unwrap())
}

struct Instance {
    fixture: Fixture,
    layer: RywLayer,
}

impl Instance {
    fn start(store: &LaggingStore, ids: &[u8]) -> Self {
        let layer = RywLayer::builder()
            .cookie(CookiePolicy::InsecureForDevelopment)
            .positions(store.topology().clone())
            .signing_keys(ring(ids))
            .ladder(Ladder::new().wait(Duration::ZERO))
            .build()
            .unwrap();
        Self { fixture: Fixture { app: values(store.clone()).layer(layer.clone()), store: store.clone() }, layer }
    }

    fn disbelieved(&self) -> u64 {
        self.layer.stats().snapshot().tokens_refused
    }
}

/// Each client writes and reads, at any of the instances, with what it was given last. Returns the tokens.
async fn load(instances: &[&Instance], tokens: Vec<Option<String>>, stale: &mut usize) -> Vec<Option<String>> {
    let clients = tokens.into_iter().enumerate().map(|(client, mut token)| async move {
        let mut stale = 0;
        for round in 0..ROUNDS {
            let (path, value) = (format!("/v/{client}"), fastrand::u64(..).to_string());
            for (writes, instance) in [(true, client + round), (false, client + round + 1)] {
                let fixture = &instances[instance % instances.len()].fixture;
                let carried: Vec<_> = token.iter().map(|token| ("ryw-token", token.as_str())).collect();
                let answer = match writes {
                    true => fixture.put(&path, &carried, &value).await,
                    false => fixture.get(&path, &carried).await,
                };
                stale += usize::from(!writes && answer.body != value);
                token = answer.header("ryw-token").map(str::to_owned).or(token);
            }
        }
        (token, stale)
    });
    let mut after = Vec::new();
    for (token, missed) in join_all(clients).await {
        after.push(token);
        *stale += missed;
    }
    after
}

#[tokio::test(start_paused = true)]
async fn nobodys_token_is_refused_while_keys_are_replaced_and_the_old_key_ends() {
    let store = LaggingStore::builder().replicas(1).lag(Duration::from_secs(3600)).start();
    let phases: [&[u8]; 4] = [&[1], &[1, 2], &[2, 1], &[2]];
    let (mut tokens, mut stale) = (vec![None; CLIENTS], 0);
    let mut first = Instance::start(&store, phases[0]);
    for phase in phases {
        // One instance is replaced after the other; meanwhile both serve.
        let next = Instance::start(&store, phase);
        tokens = load(&[&first, &next], tokens, &mut stale).await;
        assert_eq!((first.disbelieved(), next.disbelieved()), (0, 0), "{phase:?}");
        let last = Instance::start(&store, phase);
        tokens = load(&[&next, &last], tokens, &mut stale).await;
        assert_eq!((next.disbelieved(), last.disbelieved()), (0, 0), "{phase:?}");
        first = last;
    }
    assert_eq!(stale, 0);
    for token in tokens.iter().flatten() {
        assert_eq!(Token::peek(token).unwrap().key, 2);
    }
    // What the old key has signed is over with it.
    let old = Instance::start(&store, phases[0]).fixture.put("/v/old", &[], "1").await;
    let old = old.header("ryw-token").unwrap().to_owned();
    assert!(Token::open(&ring(phases[2]), &Tenant::default(), &old).is_ok());
    first.fixture.get("/v/old", &[("ryw-token", &old)]).await;
    assert_eq!(first.disbelieved(), 1);
}
