//! What was acknowledged and did not survive a failover is told, until the client says that it knows.

use ryw_core::{Keyring, Marks, Tenant, Token};
use tower_ryw::{LocalStore, RywLayer, topology::Incarnation};

use crate::{
    cluster::{Client, Cluster, at, forked, primary},
    cookies::Jar,
    harness::{Answer, level, session},
};

const ME: (&str, &str) = session("me");
const ACK: (&str, &str) = ("ryw-lost", "ack");
const TOLD: Option<&str> = Some("?1;epoch=2;was=1");

fn told(answer: &Answer) -> Option<&str> {
    answer.header("ryw-lost")
}

fn keys() -> Keyring {
    Keyring::random().unwrap()
}

fn marks(keys: &Keyring, answer: &Answer) -> Option<Marks> {
    Some(Token::open(keys, &Tenant::default(), answer.header("ryw-token")?).unwrap().marks)
}

/// A session `me` that has written at 100, which the failover at 90 has lost, and one that has not.
async fn after_a_loss(cluster: &Cluster, layer: &RywLayer) -> (Client, String) {
    let client = Client::of(layer);
    // A new store knows that it knows nothing; the first read settles that.
    client.get(&[ME]).await;
    let written = client.post(&[ME]).await;
    assert_eq!((written.status.as_u16(), told(&written)), (200, None));
    let token = written.header("ryw-token").unwrap().to_owned();
    cluster.fail_over().await;
    (client, token)
}

#[tokio::test(start_paused = true)]
async fn it_is_told_with_every_answer_at_every_level() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let (client, _) = after_a_loss(&cluster, &layer).await;
    let mut answers = 0;
    for _ in 0..3 {
        for name in ["EVENTUAL", "BOUNDED;max=250", "MONOTONIC", "RYW", "SESSION", "CAUSAL", "STRONG"] {
            let read = client.get(&[ME, level(name)]).await;
            assert_eq!((told(&read), &*read.body), (TOLD, "Some(1)"), "{name}");
            answers += 1;
            let follows_marks = ["MONOTONIC", "RYW", "SESSION", "CAUSAL"].contains(&name);
            assert_eq!(read.route().contains("reason=lost"), follows_marks, "{name}: {}", read.route());
            let enforced = if follows_marks { "false" } else { "true" };
            assert_eq!(read.header("x-consistency-enforced"), Some(enforced), "{name}");
        }
        for name in ["EVENTUAL", "RYW"] {
            let written = client.post(&[ME, level(name)]).await;
            assert_eq!((written.status.as_u16(), told(&written), &*written.body), (200, TOLD, "Some(1)"), "{name}");
            answers += 1;
        }
    }
    assert_eq!(layer.stats().snapshot().lost_told, answers);
    assert_eq!(told(&client.get(&[session("other")]).await), None, "who lost nothing is told nothing");
    assert_eq!(told(&client.get(&[]).await), None);
    assert_eq!(layer.stats().snapshot().lost_told, answers);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_has_to_follow_it_is_refused() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let (client, _) = after_a_loss(&cluster, &layer).await;
    for name in ["SESSION", "CAUSAL", "STRONG"] {
        let refused = client.post(&[ME, level(name)]).await;
        assert_eq!((refused.status.as_u16(), told(&refused)), (409, TOLD), "{name}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert!(
            refused.body.contains("\"status\":409") && refused.body.contains("Ryw-Lost: ack;epoch=2"),
            "{}",
            refused.body
        );

        let grpc = client.post(&[ME, level(name), ("content-type", "application/grpc")]).await;
        assert_eq!((grpc.status.as_u16(), grpc.header("grpc-status"), told(&grpc)), (200, Some("9"), TOLD));
        assert!(grpc.body.is_empty());
    }
    let stats = layer.stats().snapshot();
    assert_eq!((stats.refused, stats.lost_told), (6, 6));
    let other = client.post(&[session("other"), level("SESSION")]).await;
    assert_eq!((other.status.as_u16(), told(&other)), (200, None));
    let acknowledged = client.post(&[ME, level("SESSION"), ACK]).await;
    assert_eq!((acknowledged.status.as_u16(), told(&acknowledged)), (200, None), "the client knows, and goes on");
    assert_eq!(told(&client.get(&[ME]).await), None);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_forgets_the_loss_and_starts_from_now() {
    let cluster = Cluster::start().await;
    let keys = keys();
    let layer = cluster.layer().signing_keys(keys.clone()).build().unwrap();
    let (client, old_token) = after_a_loss(&cluster, &layer).await;
    let read = client.get(&[ME, ("ryw-token", &old_token), ACK]).await;
    assert_eq!((told(&read), &*read.body), (None, "None"));
    assert_eq!(marks(&keys, &read), Some(Marks::at(at(2, 200))), "a new token, with what the primary has now");
    assert!(read.route().starts_with("replica;node=\"r2\";reason=caught-up"), "{}", read.route());
    let new_token = read.header("ryw-token").unwrap().to_owned();
    for headers in [&[ME][..], &[ME, ("ryw-token", &new_token)], &[("ryw-token", &new_token)]] {
        let next = client.get(headers).await;
        assert_eq!(told(&next), None);
        assert!(next.route().starts_with("replica"), "{}", next.route());
    }
    // The client went on with its old token: it is told again, and nobody is harmed.
    assert_eq!(told(&client.get(&[ME, ("ryw-token", &old_token)]).await), TOLD);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_since_is_not_forgotten_with_it() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let (client, _) = after_a_loss(&cluster, &layer).await;
    cluster.set("r1", forked(primary(2, 300))).await;
    assert_eq!(told(&client.post(&[ME, level("RYW")]).await), TOLD);
    cluster.set("r1", forked(primary(2, 310))).await;
    client.get(&[ME, ACK]).await;
    let read = client.get(&[ME]).await;
    assert_eq!(told(&read), None);
    assert!(read.route().starts_with("primary;reason=behind"), "r2 is at 200 and has not the write: {}", read.route());
}

#[tokio::test(start_paused = true)]
async fn a_client_with_nothing_but_its_token_is_told_and_can_acknowledge() {
    let cluster = Cluster::start().await;
    let keys = keys();
    let layer = cluster.layer().signing_keys(keys.clone()).build().unwrap();
    let (_, token) = after_a_loss(&cluster, &layer).await;
    // Another instance, whose store has never heard of the session.
    let layer = cluster.layer().signing_keys(keys.clone()).build().unwrap();
    let client = Client::of(&layer);
    let headers = [("ryw-token", &*token)];
    for _ in 0..2 {
        assert_eq!(told(&client.get(&headers).await), TOLD);
        assert_eq!(client.post(&[headers[0], level("SESSION")]).await.status, 409);
        assert_eq!(told(&client.post(&headers).await), TOLD);
    }
    let acknowledged = client.get(&[headers[0], ACK]).await;
    assert_eq!(told(&acknowledged), None);
    let token = acknowledged.header("ryw-token").unwrap();
    assert!(!marks(&keys, &acknowledged).unwrap().positions().contains(&at(1, 100)));
    for name in ["RYW", "SESSION"] {
        assert_eq!(told(&client.get(&[("ryw-token", token), level(name)]).await), None);
        assert_eq!(client.post(&[("ryw-token", token), level(name)]).await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_token_is_told_by_the_store() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let (client, _) = after_a_loss(&cluster, &layer).await;
    for _ in 0..3 {
        assert_eq!(told(&client.get(&[ME]).await), TOLD);
    }
    client.post(&[ME, ACK]).await;
    assert_eq!(told(&client.get(&[ME]).await), None);
    assert_eq!(told(&client.post(&[ME]).await), None);
}

#[tokio::test(start_paused = true)]
async fn acknowledging_nothing_changes_nothing() {
    let cluster = Cluster::start().await;
    let keys = keys();
    let layer = cluster.layer().signing_keys(keys.clone()).build().unwrap();
    let client = Client::of(&layer);
    client.post(&[ME]).await;
    for _ in 0..2 {
        let read = client.get(&[ME, ACK]).await;
        assert!(read.route().starts_with("primary;reason=behind"), "the mark is there still: {}", read.route());
        assert_eq!((told(&read), marks(&keys, &read)), (None, None));
    }
    let nobody = client.get(&[ACK]).await;
    assert_eq!((nobody.status.as_u16(), told(&nobody), marks(&keys, &nobody)), (200, None, None));
}

#[tokio::test(start_paused = true)]
async fn nobody_acknowledges_for_others() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let client = Client::of(&layer);
    client.post(&[session("other")]).await;
    let (client, _) = after_a_loss(&cluster, &layer).await;
    assert_eq!(told(&client.get(&[session("other"), ACK]).await), None);
    assert_eq!(told(&client.get(&[session("other")]).await), None);
    assert_eq!(told(&client.get(&[ME]).await), TOLD);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_after_an_acknowledgement_is_told_again() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let (client, _) = after_a_loss(&cluster, &layer).await;
    client.get(&[ME, ACK]).await;
    assert_eq!(told(&client.post(&[ME]).await), None);
    // r2 is promoted at 150; the write was at 200.
    let third = |reading| forked(reading).fork(ryw_core::Epoch::new(3), ryw_core::Epoch::new(2), 150);
    cluster.down("r1").await;
    cluster.set("r2", third(primary(3, 400))).await;
    assert_eq!(told(&client.get(&[ME]).await), Some("?1;epoch=3;was=2"));
}

/// What was written between two failovers, of which the second one has lost it, and what an acknowledgement of the first leaves.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_one_loss_does_not_silence_the_next() {
    for (said, carries_token) in [("ack;epoch=2", false), ("ack;epoch=2", true), ("ack", false), ("ack", true)] {
        let cluster = Cluster::start().await;
        let layer = cluster.layer().build().unwrap();
        let (client, _) = after_a_loss(&cluster, &layer).await;
        assert_eq!(told(&client.get(&[ME]).await), TOLD);
        // While the acknowledgement is on its way, another tab writes at 200, and r2 is promoted at 150.
        let written = client.post(&[ME]).await;
        assert_eq!((told(&written), written.status.as_u16()), (TOLD, 200));
        let token = written.header("ryw-token").unwrap().to_owned();
        let third = |reading| forked(reading).fork(ryw_core::Epoch::new(3), ryw_core::Epoch::new(2), 150);
        cluster.down("r1").await;
        cluster.set("r2", third(primary(3, 400))).await;
        let me = if carries_token { vec![ME, ("ryw-token", &token)] } else { vec![ME] };
        let next = client.get(&[&me[..], &[("ryw-lost", said)]].concat()).await;
        let second = Some("?1;epoch=3;was=2");
        assert_eq!(
            (told(&next), next.header("x-consistency-enforced")),
            (second, Some("false")),
            "{said} {carries_token}"
        );
        // The same once more, late.
        let again = client.get(&[ME, ("ryw-lost", "ack;epoch=2")]).await;
        assert_eq!(told(&again), second, "{said} {carries_token}");
        assert_eq!(told(&client.get(&[ME, ("ryw-lost", "ack;epoch=3")]).await), None);
        assert_eq!(told(&client.get(&[ME]).await), None);
    }
}

/// Nor is it about what was written after the epoch that it names, and lost later still.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_comes_late_is_about_what_was_lost_by_then() {
    for said in ["ack;epoch=1", "ack;epoch=2", "ack;epoch=3"] {
        let cluster = Cluster::start().await;
        let layer = cluster.layer().build().unwrap();
        let (client, _) = after_a_loss(&cluster, &layer).await;
        assert_eq!(told(&client.get(&[ME]).await), TOLD);
        // r2 is promoted at 150, where nothing is lost; what the session writes there, at 400, the next promotion at 300 loses.
        let epoch = ryw_core::Epoch::new;
        let third = |reading| forked(reading).fork(epoch(3), epoch(2), 150);
        cluster.down("r1").await;
        cluster.set("r2", third(primary(3, 400))).await;
        assert_eq!(told(&client.post(&[ME]).await), Some("?1;epoch=3;was=1"), "{said}");
        cluster.down("r2").await;
        cluster.set("p", third(primary(4, 500)).fork(epoch(4), epoch(3), 300).incarnation(Incarnation(2))).await;
        for level in [level("RYW"), level("SESSION")] {
            let read = client.get(&[ME, level, ("ryw-lost", said)]).await;
            assert!(told(&read).is_some_and(|told| told.starts_with("?1;epoch=4")), "{said}: {read:?}");
            assert_eq!(read.header("x-consistency-enforced"), Some("false"), "{said}");
        }
        assert_ne!(told(&client.get(&[ME]).await), None, "{said}");
        assert_eq!(told(&client.get(&[ME, ("ryw-lost", "ack;epoch=4")]).await), None);
        assert_eq!(told(&client.get(&[ME]).await), None);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_word_acknowledges_and_a_copy_of_the_answer_is_no_answer() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let (client, _) = after_a_loss(&cluster, &layer).await;
    for said in ["?1;epoch=2;was=1", "?1", "", "ack;epoch=x", "ack;epoch=1", "ack;epoch=9", "acknowledged", "?0"] {
        assert_eq!(told(&client.get(&[ME, ("ryw-lost", said)]).await), TOLD, "{said:?}");
        assert_eq!(told(&client.get(&[session("other"), ("ryw-lost", said)]).await), None, "{said:?} is not repeated");
        assert_eq!(told(&client.post(&[("ryw-lost", said)]).await), None, "{said:?}");
    }
    assert_eq!(told(&client.get(&[ME, ("ryw-lost", "ACK")]).await), None, "in any case");
}

#[tokio::test(start_paused = true)]
async fn who_begins_after_the_failover_has_lost_nothing() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let client = Client::of(&layer);
    // Enough sessions that every part of the store has met the primary at 100.
    for n in 0..2000 {
        client.get(&[session(&format!("old{n}"))]).await;
    }
    cluster.fail_over().await;
    for n in 0..100 {
        let name = format!("new{n}");
        assert_eq!(told(&client.post(&[session(&name)]).await), None, "{name}");
        assert_eq!(told(&client.get(&[session(&name)]).await), None, "{name}");
        assert_eq!(client.post(&[session(&name), level("SESSION")]).await.status, 200, "{name}");
    }
    for _ in 0..100 {
        let born = client.post(&[]).await;
        let name = born.header("x-session-id").unwrap();
        assert_eq!(told(&client.get(&[session(name)]).await), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_follows_an_epoch_nobody_here_has_heard_of_is_refused() {
    let keys = keys();
    let elsewhere = Cluster::start().await;
    elsewhere.fail_over().await;
    let there = Client::of(&elsewhere.layer().signing_keys(keys.clone()).build().unwrap());
    let token = there.post(&[ME]).await.header("ryw-token").unwrap().to_owned();

    // This process still takes `p` for the primary.
    let cluster = Cluster::start().await;
    let layer = cluster.layer().signing_keys(keys).build().unwrap();
    let client = Client::of(&layer);
    let headers = |name| [("ryw-token", &*token), level(name)];
    for name in ["SESSION", "CAUSAL", "STRONG"] {
        let refused = client.post(&headers(name)).await;
        assert_eq!((refused.status.as_u16(), refused.header("retry-after"), told(&refused)), (503, Some("1"), None));
        let grpc = client.post(&[headers(name)[0], headers(name)[1], ("content-type", "application/grpc")]).await;
        assert_eq!(grpc.header("grpc-status"), Some("14"));
    }
    let other = Client::of(&cluster.layer().build().unwrap());
    assert_eq!(other.post(&headers("RYW")).await.status, 200, "in no particular order");
    cluster.fail_over().await;
    let accepted = client.post(&headers("SESSION")).await;
    assert_eq!((accepted.status.as_u16(), told(&accepted)), (200, None), "once it has heard of the failover");
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_not_called_enforced_where_there_is_no_replica() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let client = Client::of(&layer);
    client.get(&[ME]).await;
    client.post(&[ME]).await;
    cluster.fail_over().await;
    cluster.down("r2").await;
    let read = client.get(&[ME]).await;
    assert_eq!(told(&read), TOLD);
    assert_eq!(read.header("x-consistency-enforced"), Some("false"));
}

/// Marks whose joins or acknowledgements fail, or are never answered.
mod broken_store {
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
    };

    use ryw_core::{
        Loaded, MarkStore, Position, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled, Update,
    };

    use super::*;
    use crate::cluster::replica;

    #[derive(Clone, Debug)]
    struct Remote {
        local: LocalStore,
        joins_hang: Arc<AtomicBool>,
        acknowledgements_fail: Arc<AtomicBool>,
    }

    impl MarkStore for Remote {
        fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
            self.local.load(keys)
        }

        fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
            match self.joins_hang.load(SeqCst) {
                true => StoreFuture::boxed(pending()),
                false => self.local.join(keys, update),
            }
        }

        fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
            self.local.settle(unsettled, at)
        }

        fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
            match self.acknowledgements_fail.load(SeqCst) {
                true => StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable)),
                false => self.local.acknowledge(keys, told),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_survived_of_a_forgotten_mark_is_required_at_every_moment() {
        let cluster = Cluster::start().await;
        let (joins_hang, acknowledgements_fail) = Default::default();
        let store = Remote { local: LocalStore::new(), joins_hang, acknowledgements_fail };
        let layer = cluster.layer().store(store.clone()).build().unwrap();
        let (client, _) = after_a_loss(&cluster, &layer).await;
        // r2 is late: it lacks what the session wrote before 90, and what survived.
        cluster.set("r2", replica(1, 50)).await;
        store.joins_hang.store(true, SeqCst);
        client.get(&[ME, ACK]).await;
        let read = client.get(&[ME]).await;
        assert!(read.route().starts_with("primary"), "{}", read.route());
    }

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_that_was_not_stored_is_asked_for_again() {
        let cluster = Cluster::start().await;
        let (joins_hang, acknowledgements_fail) = Default::default();
        let store = Remote { local: LocalStore::new(), joins_hang, acknowledgements_fail };
        let layer = cluster.layer().store(store.clone()).build().unwrap();
        let (client, _) = after_a_loss(&cluster, &layer).await;
        assert_eq!(client.post(&[ME, level("SESSION")]).await.status, 409, "such a store is asked before a write, too");
        store.acknowledgements_fail.store(true, SeqCst);
        assert_eq!(told(&client.get(&[ME, ACK]).await), None);
        // The store answers again.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(told(&client.get(&[ME]).await), TOLD);
        store.acknowledgements_fail.store(false, SeqCst);
        client.get(&[ME, ACK]).await;
        assert_eq!(told(&client.get(&[ME]).await), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_only_the_store_knows_is_told_while_a_write_of_this_process_is_on_its_way() {
    let cluster = Cluster::start().await;
    let (keys, store) = (keys(), LocalStore::new());
    let build = || cluster.layer().signing_keys(keys.clone()).store(store.clone()).build().unwrap();
    let (one, two) = (build(), build());
    let (first, second) = (Client::of(&one), Client::of(&two));
    first.get(&[ME]).await;
    second.get(&[ME]).await;
    assert_eq!(first.post(&[ME]).await.status, 200);
    cluster.fail_over().await;
    assert_eq!(told(&second.get(&[ME]).await), TOLD);
    assert_eq!(second.post(&[ME, level("SESSION")]).await.status, 409);
    // Another request of the session ends in an error: what it did may be on its way.
    let fails = axum::routing::any(|| async { axum::http::StatusCode::INTERNAL_SERVER_ERROR });
    let failing = Client { app: axum::Router::new().route("/", fails).layer(two.clone()) };
    assert_eq!(failing.post(&[ME]).await.status, 500);
    let read = second.get(&[ME]).await;
    assert_eq!(told(&read), TOLD, "{}", read.route());
    assert_eq!(second.post(&[ME, level("SESSION")]).await.status, 409);
}

#[tokio::test(start_paused = true)]
async fn what_a_browser_has_acknowledged_none_of_its_cookies_brings_back() {
    let cluster = Cluster::start().await;
    let client = Client::of(&cluster.layer().build().unwrap());
    client.get(&[ME]).await;
    let mut jar = Jar::default();
    jar.take(&client.post(&[]).await);
    assert_eq!(jar.0.len(), 2, "{jar:?}");
    cluster.fail_over().await;
    let read = client.get(&[("cookie", &jar.header())]).await;
    assert_eq!(told(&read), TOLD);
    jar.take(&read);
    let acknowledged = client.get(&[("cookie", &jar.header()), ACK]).await;
    assert_eq!(told(&acknowledged), None);
    jar.take(&acknowledged);
    let cookies = jar.header();
    assert_eq!(told(&client.get(&[("cookie", &cookies)]).await), None, "{acknowledged:?}");
    assert_eq!(client.post(&[("cookie", &cookies), level("SESSION")]).await.status, 200);
}
