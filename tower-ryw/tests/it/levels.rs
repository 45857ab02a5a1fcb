//! What each level promises, on replicas that lag differently.

use std::time::Duration;

use axum::{Router, extract::Path, routing::get};
use ryw_testing::lagging::LaggingStore;
use tower_ryw::{Ladder, Level, RywContext, RywLayer};

use crate::harness::{Fixture, level, session, values};

/// Many replicas, whose lag differs by jitter alone.
fn jittery() -> Fixture {
    let store = LaggingStore::builder().replicas(8).lag(Duration::from_millis(500)).start();
    let ladder = Ladder::new().wait(Duration::ZERO);
    let layer =
        RywLayer::builder().level(tower_ryw::Level::Eventual).positions(store.topology().clone()).ladder(ladder);
    Fixture { app: values(store.clone()).layer(layer.build().unwrap()), store }
}

/// Somebody writes numbers that only grow; a session reads them. Returns how often a number was smaller than one that
/// the session had seen before.
async fn steps_back(fixture: &Fixture, asked: &str) -> usize {
    let (mut seen, mut back) = (0, 0);
    for number in 1..400_u64 {
        fixture.store.put("t", "a", Some(number.to_string().into())).unwrap();
        tokio::time::sleep(Duration::from_millis(7)).await;
        let read = fixture.get("/v/a", &[session("reader"), level(asked)]).await;
        let found: u64 = read.body.parse().unwrap_or(0);
        back += usize::from(found < seen);
        seen = seen.max(found);
    }
    back
}

#[tokio::test(start_paused = true)]
async fn monotonic_reads_never_step_back() {
    assert!(steps_back(&jittery(), "EVENTUAL").await > 20, "replicas differ enough to step back between them");
    for asked in ["MONOTONIC", "SESSION", "CAUSAL"] {
        assert_eq!(steps_back(&jittery(), asked).await, 0, "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn bounded_staleness_is_bounded() {
    let fixture = jittery();
    // The primary's position is known now and then: the bound is kept from the first reading on.
    let mut stale = 0;
    for number in 1..200_u64 {
        fixture.store.put("t", "a", Some(number.to_string().into())).unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        let read = fixture.get("/v/a", &[session("reader"), level("BOUNDED;max=600")]).await;
        let found: u64 = read.body.parse().unwrap_or(0);
        // Written 10 ms apart: what is missing is younger than the bound.
        assert!((number - found) * 10 <= 600 + 10, "{number} written, {found} found: {}", read.route());
        stale += usize::from(read.route().starts_with("replica"));
    }
    assert!(stale > 50, "replicas serve within the bound: {stale}");
}

#[tokio::test(start_paused = true)]
async fn strong_reads_see_everybodys_writes() {
    let fixture = jittery();
    fixture.put("/v/a", &[session("writer")], "1").await;
    for headers in [&[level("STRONG")][..], &[session("reader"), level("STRONG")]] {
        let read = fixture.get("/v/a", headers).await;
        assert_eq!(read.body, "1");
        assert!(read.route().starts_with("primary;reason=strong;level=strong"), "{}", read.route());
    }
}

#[tokio::test(start_paused = true)]
async fn a_resource_is_seen_by_everybody_who_names_it() {
    let store = LaggingStore::builder().replicas(1).start();
    let by_path = |head: tower_ryw::RequestHead<'_>| {
        let name = head.uri.path().trim_start_matches('/');
        tower_ryw::Subject::resource(name).into_iter().collect()
    };
    let layer = RywLayer::builder().positions(store.topology().clone()).subjects(by_path).build().unwrap();
    let fixture = Fixture { app: values(store.clone()).layer(layer), store };
    fixture.put("/v/a", &[session("writer")], "1").await;
    fixture.put("/v/b", &[session("other")], "2").await;
    assert_eq!(fixture.get("/v/a", &[]).await.body, "1", "an anonymous reader of the resource");
    assert_eq!(fixture.get("/v/a", &[session("reader")]).await.body, "1");
}

#[tokio::test(start_paused = true)]
async fn a_write_for_somebody_else_is_seen_by_them() {
    let store = LaggingStore::builder().replicas(1).start();
    let writes = store.clone();
    let grant = move |context: RywContext, Path(user): Path<String>| async move {
        writes.put("t", "a", Some("granted".into())).unwrap();
        context.on_behalf_of(&tower_ryw::Subject::session(&user.parse().unwrap())).unwrap();
    };
    let layer = RywLayer::builder().positions(store.topology().clone()).build().unwrap();
    let app =
        values(store.clone()).merge(Router::new().route("/grant/{user}", get(|| async {}).post(grant))).layer(layer);
    let fixture = Fixture { app, store }.settled().await;
    fixture.send("POST", "/grant/bob", &[session("alice")], "").await;
    assert_eq!(fixture.get("/v/a", &[session("bob")]).await.body, "granted");
    assert_eq!(fixture.get("/v/a", &[session("carol")]).await.body, "nothing");
}

/// Whatever a client sends, it gets no less than its route demands, and no more than it may ask for.
#[tokio::test(start_paused = true)]
async fn nothing_lowers_what_a_route_demands() {
    const WORDS: [&str; 7] = ["EVENTUAL", "BOUNDED;max=250", "MONOTONIC", "RYW", "SESSION", "CAUSAL", "STRONG"];
    let parsed = WORDS.map(|word| word.parse::<Level>().unwrap());
    let store = LaggingStore::builder().replicas(1).start();
    let mut tried = 0;
    for (route, minimum) in parsed.into_iter().enumerate() {
        for maximum in parsed.into_iter().skip(route) {
            let layer = RywLayer::builder().positions(store.topology().clone());
            let layer = layer.level(minimum).max_level(maximum).build().unwrap();
            let fixture = Fixture { app: values(store.clone()).layer(layer), store: store.clone() };
            for (asked, word) in parsed.into_iter().zip(WORDS) {
                let expected = asked.min(maximum).max(minimum).token();
                for headers in [
                    &[session("me"), level(word)][..],
                    &[session("me"), level(word), level(word)],
                    &[session("me"), level(word), ("x-consistency-enforced", "true"), ("ryw-route", "replica")],
                    &[session("me"), level(word), ("x_consistency_level", "EVENTUAL")],
                ] {
                    let read = fixture.get("/v/a", headers).await;
                    let route = read.route();
                    assert!(route.contains(&format!("level={expected}")), "{minimum} to {maximum}, {word}: {route}");
                    tried += 1;
                }
            }
            // Two that differ are no way to be served at the weaker one.
            let both = [session("me"), level("EVENTUAL"), level("STRONG")];
            assert_eq!(fixture.get("/v/a", &both).await.status, 400);
        }
    }
    assert_eq!(tried, 28 * 7 * 4);
}
