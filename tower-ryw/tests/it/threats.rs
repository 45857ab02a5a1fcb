//! Threats that are neither a malformed byte (`hostile`) nor a missing header (`bad_input`): neighbours, floods, and
//! permissions that were taken back.
//!
//! `RYW_THREAT_ROUNDS` is how often each is tried (default 20 000; the promise is about a million, and a tenth of it for
//! permissions), `RYW_FUZZ_SEED` repeats a run.

use std::{collections::BTreeSet, time::Duration};

use fastrand::Rng;
use ryw_testing::lagging::LaggingStore;
use tower_ryw::{
    ClusterId, Epoch, Key, Ladder, LocalStore, MarkStore, Marks, Position, RequestHead, RywLayer, Subject, Tenant,
    Update,
};

use crate::{
    cluster::{Client, Cluster, primary, replica},
    harness::{Answer, Fixture, level, session, values},
    hostile::{rng, setting},
};

fn rounds() -> u64 {
    setting("RYW_THREAT_ROUNDS", 20_000)
}

fn at(cluster: u64, offset: u64) -> Position {
    Position::new(ClusterId::new(cluster), Epoch::new(1), offset)
}

/// What `store` answers at once.
fn now<T>(answer: tower_ryw::StoreFuture<T>) -> T {
    answer.now().ok().unwrap().unwrap()
}

fn wrote(position: Position) -> Update {
    Update { marks: Marks::at(position), hold: None }
}

/// Names that run into each other if they are put together without care.
fn name(rng: &mut Rng) -> String {
    (0..rng.usize(1..5)).map(|_| rng.choice(['a', 'b', '.', '-']).unwrap()).collect()
}

#[test]
fn tenants_never_meet_whatever_their_sessions_are_called() {
    let (mut rng, key, store) = (rng(), Key::new(1, &[7; 32]).unwrap(), LocalStore::new());
    // A tenant's writes are in a cluster of its own, so that a mark tells whose it is.
    let tenants: Vec<Tenant> = ["a", "ab", "b", "a.b", "a-b"].iter().map(|name| name.parse().unwrap()).collect();
    let mut found = 0;
    for offset in 1..=rounds() {
        let whose = rng.usize(..tenants.len());
        let name = name(&mut rng);
        let subject = if rng.bool() { Subject::user(&name) } else { Subject::resource(&name) }.unwrap();
        let subject = [key.subject(&tenants[whose], &subject)];
        if rng.bool() {
            now(store.join(&subject, &wrote(at(whose as u64, offset))));
        }
        let marks = now(store.load(&subject)).marks;
        for position in marks.positions() {
            assert_eq!(position.cluster(), ClusterId::new(whose as u64), "{name} of {}", tenants[whose]);
        }
        found += u64::from(!marks.positions().is_empty());
    }
    assert!(found > rounds() / 2, "{found} loads found marks");
}

#[test]
fn a_flood_of_sessions_lowers_nobodys_demand_and_takes_no_more_room() {
    const CAPACITY: usize = 1_024;
    let (key, store) = (Key::new(1, &[7; 32]).unwrap(), LocalStore::builder().capacity(CAPACITY).build());
    let of = |name: String| [key.subject(&Tenant::default(), &Subject::user(&name).unwrap())];
    let victims: Vec<_> = (0..100).map(|n| (of(format!("victim{n}")), at(1, 1_000_000 + n))).collect();
    for (victim, position) in &victims {
        now(store.join(victim, &wrote(*position)));
    }
    let own = |store: &LocalStore| victims.iter().filter(|(victim, _)| now(store.load(victim)).has_entry).count();
    assert_eq!(own(&store), victims.len());
    for n in 0..rounds() {
        now(store.join(&of(format!("flood{n}")), &wrote(at(1, n % 1_000))));
        assert!(n % 1_000 > 0 || store.len() <= CAPACITY, "{} of {CAPACITY}", store.len());
    }
    assert_eq!(own(&store), 0, "the flood has driven everybody out");
    for (victim, position) in &victims {
        let loaded = now(store.load(victim));
        let mut demanded = loaded.marks;
        demanded.join(&loaded.floor);
        assert!(demanded.covers(&Marks::at(*position)), "{position:?} is not demanded any more: {demanded:?}");
    }
}

/// Permissions, whose readers share their marks with those who change them, or don't.
fn permissions(shared: bool) -> Fixture {
    let store = LaggingStore::builder().replicas(2).lag(Duration::from_millis(500)).start();
    let ladder = Ladder::new().wait(Duration::ZERO);
    let mut layer = RywLayer::builder().positions(store.topology().clone()).ladder(ladder);
    if shared {
        layer = layer.subjects(|_: RequestHead<'_>| Subject::resource("permissions").into_iter().collect());
    }
    Fixture { app: values(store.clone()).layer(layer.build().unwrap()), store }
}

/// How often somebody was let in after that had been forbidden, and how often a replica was asked.
async fn let_in(fixture: &Fixture, rounds: u64) -> (u64, u64) {
    let (mut rng, mut let_in, mut by_replicas) = (rng(), 0, 0);
    for _ in 0..rounds {
        for word in ["allowed", "forbidden"] {
            fixture.put("/v/alice", &[session("admin")], word).await;
            tokio::time::sleep(Duration::from_millis(rng.u64(0..800))).await;
            // Less than RYW is not to be had, whoever asks for it.
            let read = fixture.get("/v/alice", &[session("alice"), level("EVENTUAL")]).await;
            let_in += u64::from(word == "forbidden" && read.body == "allowed");
            by_replicas += u64::from(read.route().starts_with("replica"));
        }
    }
    (let_in, by_replicas)
}

#[tokio::test(start_paused = true)]
async fn who_was_forbidden_is_never_let_in() {
    let rounds = rounds() / 10;
    let (stale, _) = let_in(&permissions(false), 200).await;
    assert!(stale > 50, "with marks of their own, readers are let in: {stale}");
    let (stale, by_replicas) = let_in(&permissions(true), rounds).await;
    assert_eq!(stale, 0, "of {rounds}");
    assert!(by_replicas > rounds / 4, "replicas answer when they know: {by_replicas} of {}", 2 * rounds);
}

/// Where everybody is, such that it would be recognised.
const OFFSET: u64 = 7_654_321_098_765;

/// What an answer says apart from the token, which is for the client to carry and not to read.
fn said(answer: &Answer) -> String {
    let headers = answer.headers.iter().filter(|(name, _)| !["ryw-token", "set-cookie"].contains(&name.as_str()));
    let mut said = headers.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect::<String>();
    said.push_str(&answer.body);
    said.to_lowercase()
}

#[tokio::test(start_paused = true)]
async fn no_answer_tells_how_much_is_written() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().ladder(Ladder::new().wait(Duration::from_millis(30)).primary(false)).build().unwrap();
    let client = Client::of(&layer);
    let mut answers = Vec::new();
    let ask = async |answers: &mut Vec<Answer>| {
        for name in ["EVENTUAL", "BOUNDED;max=250", "MONOTONIC", "RYW", "SESSION", "CAUSAL", "STRONG", "none such"] {
            answers.push(client.get(&[session("me"), level(name)]).await);
            answers.push(client.post(&[session("me"), level(name)]).await);
        }
    };
    for n in 0..3 {
        cluster.set("p", primary(1, OFFSET + n)).await;
        cluster.set("r1", replica(1, OFFSET + n - n % 2)).await;
        ask(&mut answers).await;
    }
    cluster.put("p", None);
    cluster.put("r2", Some(primary(2, OFFSET).fork(Epoch::new(2), Epoch::new(1), OFFSET - 1)));
    cluster.seen().await;
    cluster.seen().await;
    ask(&mut answers).await;
    answers.push(client.get(&[session("me"), ("ryw-lost", "ack")]).await);
    let statuses: BTreeSet<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses, BTreeSet::from([200, 400, 409, 503]), "served, not understood, lost and behind");
    let (decimal, hex) = (OFFSET.to_string(), format!("{OFFSET:x}"));
    for answer in &answers {
        let said = said(answer);
        // The last digits differ from write to write.
        assert!(!said.contains(&decimal[..10]) && !said.contains(&hex[..8]), "{said}");
    }
}
