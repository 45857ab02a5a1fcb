//! Writes that all instances know of before they are made.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::routing::{MethodRouter, any};
use ryw_core::Keyring;
use tokio::time::{Instant, sleep, timeout};
use tower_ryw::{LocalStore, RouteRule, RywLayerBuilder};

use crate::{
    away::Way,
    cluster::{Client, Cluster, primary, replica},
    harness::{level, session},
};

const ME: (&str, &str) = session("me");
const WINDOW: Duration = Duration::from_secs(2);

/// One instance that is strict with what it does at `/it`, and another one, with a way each to one store.
async fn two_instances(
    cluster: &Cluster,
    strict: impl Fn(RywLayerBuilder) -> RywLayerBuilder,
    handler: impl FnOnce(Arc<Client>) -> MethodRouter,
) -> (Way, Arc<Client>, Arc<Client>) {
    let (keys, store) = (Keyring::random().unwrap(), LocalStore::new());
    let builder = |way: &Way| cluster.layer().store(way.clone()).signing_keys(keys.clone());
    let other = Arc::new(Client::of(&builder(&Way::to(&store)).build().unwrap()));
    other.get(&[ME]).await;
    for name in ["r1", "r2"] {
        cluster.set(name, replica(1, 100)).await;
    }
    let way = Way::to(&store);
    let layer = strict(builder(&way)).build().unwrap();
    let one = Arc::new(Client::with(&layer, handler(Arc::clone(&other))));
    (way, one, other)
}

fn everywhere(builder: RywLayerBuilder) -> RywLayerBuilder {
    builder.strict_writes(true)
}

#[tokio::test(start_paused = true)]
async fn others_know_before_the_service_is_called() {
    for strict in [true, false] {
        let cluster = Cluster::start().await;
        let ask = |other: Arc<Client>| any(move || async move { other.get(&[ME]).await.route().to_owned() });
        let (_, one, other) = two_instances(&cluster, |builder| builder.strict_writes(strict), ask).await;
        assert!(other.get(&[ME]).await.route().starts_with("replica"));
        let written = one.send("POST", "/it", &[ME]).await;
        assert_eq!(written.header("x-consistency-enforced"), Some("true"));
        assert_eq!(written.body.starts_with("primary;reason=pending-write"), strict, "{}", written.body);
        assert_eq!(written.body.starts_with("replica"), !strict, "{}", written.body);
        // The write itself takes the announcement's place, once nothing can be on its way any more.
        sleep(WINDOW + Duration::from_millis(200)).await;
        let read = other.get(&[ME]).await;
        assert!(read.route().starts_with("replica") && read.route().contains("caught-up"), "{}", read.route());
        let read = one.send("GET", "/it", &[session("reader")]).await;
        assert_eq!(read.status, 200, "reads announce nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_can_not_be_announced_is_not_made() {
    let cluster = Cluster::start().await;
    let called = Arc::new(AtomicUsize::new(0));
    let count = {
        let called = Arc::clone(&called);
        |_| any(move || async move { called.fetch_add(1, SeqCst).to_string() })
    };
    let (way, one, other) = two_instances(&cluster, everywhere, count).await;
    way.cut();
    // One that has to follow what its session has written before asks the store for that first.
    let ordered = one.send("POST", "/it", &[ME, level("SESSION")]).await;
    assert!(ordered.status == 503 && ordered.body.contains("it was not made"), "{}", ordered.body);
    way.mend();
    sleep(Duration::from_secs(2)).await;
    way.cut();
    for tries in 0..3 {
        let started = Instant::now();
        let refused = one.send("POST", "/it", &[ME]).await;
        assert_eq!(refused.status, 503);
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert!(refused.body.contains("store-unavailable"), "{}", refused.body);
        let waited = started.elapsed().as_millis() / 100;
        assert_eq!(waited, u128::from(tries == 0), "the deadline, once");
    }
    let grpc = one.send("POST", "/it", &[ME, ("content-type", "application/grpc")]).await;
    assert_eq!((grpc.status.as_u16(), grpc.header("grpc-status")), (200, Some("14")));
    // Nor one of a session that is new.
    assert_eq!(one.send("POST", "/it", &[]).await.status, 503);
    assert_eq!(called.load(SeqCst), 0);
    assert_eq!(one.send("GET", "/it", &[ME]).await.status, 200, "reads are served");

    way.mend();
    sleep(Duration::from_secs(2)).await;
    assert!(other.get(&[ME]).await.route().starts_with("replica"), "nothing was left behind");
    assert_eq!(one.send("POST", "/it", &[ME]).await.status, 200);
    assert!(one.send("POST", "/it", &[]).await.header("ryw-token").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_route_may_be_strict_alone_or_not_at_all() {
    for (layer, route) in [(false, true), (true, false)] {
        let cluster = Cluster::start().await;
        let strict =
            |builder: RywLayerBuilder| builder.strict_writes(layer).route(RouteRule::new("/it").strict_writes(route));
        let (way, one, _) = two_instances(&cluster, strict, |_| any(|| async { "served" })).await;
        way.cut();
        let status = |strict| if strict { 503 } else { 200 };
        assert_eq!(one.send("POST", "/it", &[ME]).await.status, status(route));
        assert_eq!(one.post(&[ME]).await.status, status(layer));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_while_it_is_announced_has_written_nothing() {
    let cluster = Cluster::start().await;
    let called = Arc::new(AtomicUsize::new(0));
    let count = {
        let called = Arc::clone(&called);
        |_| any(move || async move { called.fetch_add(1, SeqCst).to_string() })
    };
    let (way, one, other) = two_instances(&cluster, everywhere, count).await;
    way.cut();
    timeout(Duration::from_millis(50), one.send("POST", "/it", &[ME])).await.unwrap_err();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(called.load(SeqCst), 0);
    way.mend();
    sleep(Duration::from_secs(2)).await;
    assert!(other.get(&[ME]).await.route().starts_with("replica"));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_nobody_hears_of_again_is_waited_for() {
    let cluster = Cluster::start().await;
    let (way, one, other) = two_instances(&cluster, everywhere, |_| any(pending::<()>)).await;
    // It commits, and the process goes without a word.
    let hanging = tokio::spawn({
        let one = Arc::clone(&one);
        async move { one.send("POST", "/it", &[ME]).await }
    });
    sleep(Duration::from_millis(100)).await;
    way.cut();
    hanging.abort();
    drop((hanging.await, one));
    cluster.set("p", primary(1, 150)).await;
    assert!(other.get(&[ME]).await.route().starts_with("primary;reason=pending-write"));
    sleep(WINDOW + Duration::from_millis(200)).await;
    let read = other.get(&[ME]).await;
    assert!(read.route().starts_with("primary;reason=unknown-marks"), "a sample stands for it: {}", read.route());
    cluster.set("r1", replica(1, 150)).await;
    assert!(other.get(&[ME]).await.route().contains("caught-up"));
}

#[tokio::test(start_paused = true)]
async fn a_long_write_stays_announced() {
    let cluster = Cluster::start().await;
    let slow = |_| any(|| async { sleep(Duration::from_secs(20)).await });
    let (_, one, other) = two_instances(&cluster, everywhere, slow).await;
    let headers = [ME];
    let mut writing = Box::pin(one.send("POST", "/it", &headers));
    for _ in 0..19 {
        timeout(Duration::from_secs(1), &mut writing).await.unwrap_err();
        let read = other.get(&[ME]).await;
        assert!(read.route().starts_with("primary;reason=pending-write"), "{}", read.route());
    }
    assert_eq!(writing.await.header("x-consistency-enforced"), Some("true"), "everybody knew of it all the time");
    sleep(2 * WINDOW).await;
    let read = other.get(&[ME]).await;
    assert!(read.route().starts_with("replica"), "and is over when it has ended: {}", read.route());
}

/// A write that takes `length`, and whose store is cut off as soon as it has been announced. The answer, and where a read of
/// the other instance was served after it.
async fn cut_off(length: Duration, heals: bool) -> (Option<String>, String) {
    let cluster = Cluster::start().await;
    let directory = tempfile::tempdir().unwrap();
    let slot = Arc::new(std::sync::OnceLock::<Way>::new());
    let (cut, remote) = (Arc::clone(&slot), Arc::new(cluster.remote()));
    let handler = move |other: Arc<Client>| {
        any(move || {
            let (cut, other, remote) = (Arc::clone(&cut), Arc::clone(&other), Arc::clone(&remote));
            async move {
                let way = cut.get().unwrap();
                way.cut();
                sleep(length).await;
                other.get(&[ME]).await;
                // It commits now.
                remote.put("p", Some(primary(1, 150)));
                if heals {
                    way.mend();
                    sleep(Duration::from_secs(2)).await;
                }
            }
        })
    };
    let strict = |builder: RywLayerBuilder| builder.strict_writes(true).outbox(directory.path());
    let (way, one, other) = two_instances(&cluster, strict, handler).await;
    assert!(slot.set(way).is_ok());
    let written = one.send("POST", "/it", &[ME]).await;
    let enforced = written.header("x-consistency-enforced").map(str::to_owned);
    (enforced, other.get(&[ME]).await.route().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_write_that_outlasts_its_announcement_says_so() {
    let long = WINDOW + Duration::from_millis(700);
    let (enforced, read) = cut_off(long, false).await;
    assert!(read.starts_with("replica"), "another instance can't know of it: {read}");
    assert_eq!(enforced.as_deref(), Some("false"), "an outbox is too late");
    let (enforced, _) = cut_off(long, true).await;
    assert_eq!(enforced.as_deref(), Some("false"), "it may have been missed before the store was back");
}

#[tokio::test(start_paused = true)]
async fn a_strict_write_whose_mark_did_not_reach_the_store_says_so() {
    let (enforced, read) = cut_off(WINDOW / 10, false).await;
    assert!(read.starts_with("primary;reason=pending-write"), "it is announced still: {read}");
    assert_eq!(enforced.as_deref(), Some("false"));
}
