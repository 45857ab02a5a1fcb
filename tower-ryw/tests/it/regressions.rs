//! Mistakes that were made once.

use std::time::Duration;

use axum::{
    Router,
    routing::{get, post},
};
use ryw_core::{ClusterId, Epoch, Keyring, Level, Position, Tenant, Token};
use ryw_testing::lagging::LaggingStore;
use tower::ServiceExt;
use tower_ryw::{
    CookiePolicy, Ladder, LocalStore, Reason, Route, RywContext, RywLayer,
    topology::{Reading, Role, Topology, Watch},
};

use crate::harness::{Fixture, answer, level, request, session, values, with_positions, with_window};

fn at(epoch: u32, offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(epoch), offset)
}

/// A primary at 100 and replicas `r1`, `r2`, … where they are told to be.
fn nodes(replicas: &[u64]) -> (Topology, Watch, Vec<Watch>) {
    let topology = Topology::new();
    let mut primary = topology.add("p");
    primary.begin().report(Reading::new(Role::Primary, at(1, 100)));
    let replica = |(number, offset): (usize, &u64)| {
        let mut watch = topology.add(format!("r{}", number + 1));
        watch.begin().report(Reading::new(Role::Replica, at(1, *offset)));
        watch
    };
    let replicas = replicas.iter().enumerate().map(replica).collect();
    (topology, primary, replicas)
}

/// Answers whoever asks the node, until the test ends.
fn keep(mut watch: Watch, role: Role, position: Position) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            watch.next().await.report(Reading::new(role, position));
        }
    })
}

fn empty() -> LaggingStore {
    LaggingStore::builder().replicas(0).start()
}

fn eager(topology: &Topology) -> tower_ryw::RywLayerBuilder {
    RywLayer::builder().positions(topology.clone()).ladder(Ladder::new().wait(Duration::ZERO))
}

#[tokio::test(start_paused = true)]
async fn our_cookie_is_found_beside_one_that_is_no_text() {
    let fixture = with_positions(|b| b).settled().await;
    let cookie = fixture.put("/v/a", &[], "1").await.cookie().unwrap();
    let mut request = request("GET", "/v/a", &[], "");
    let both = [b"lang=fran\xe7ais; ".as_slice(), cookie.as_bytes()].concat();
    request.headers_mut().insert("cookie", http::HeaderValue::from_bytes(&both).unwrap());
    assert_eq!(answer(fixture.app.clone().oneshot(request).await).await.body, "1");
}

#[tokio::test(start_paused = true)]
async fn a_write_told_while_the_response_is_held_back_is_marked() {
    let (topology, mut primary, mut replicas) = nodes(&[100]);
    let handler = |context: RywContext| async move {
        let task = context.clone();
        context.spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            task.mark_written();
        });
    };
    let app = values(empty()).route("/write", post(handler)).layer(eager(&topology).build().unwrap());
    let fixture = Fixture { app, store: empty() };
    // A reading takes 20 ms, and sees what was there before the task's write.
    let slow = tokio::spawn(async move {
        loop {
            let turn = primary.next().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            turn.report(Reading::new(Role::Primary, at(1, 101)));
        }
    });
    fixture.send("POST", "/write", &[session("me")], "").await;
    replicas[0].begin().report(Reading::new(Role::Replica, at(1, 101)));
    let read = fixture.get("/v/a", &[session("me")]).await;
    slow.abort();
    assert!(read.route().starts_with("primary;reason=pending-write"), "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn not_found_is_something_a_session_has_seen() {
    let (topology, primary, mut replicas) = nodes(&[100, 50]);
    let lagging = replicas.pop().unwrap();
    let _tasks = [
        keep(primary, Role::Primary, at(1, 100)),
        keep(replicas.pop().unwrap(), Role::Replica, at(1, 100)),
        keep(lagging, Role::Replica, at(1, 50)),
    ];
    // Deleted at 80.
    let handler = |context: RywContext| async move {
        match context.route() {
            Route::Replica { node: Some(node) } if node.as_str() == "r2" => (http::StatusCode::OK, "old"),
            _ => (http::StatusCode::NOT_FOUND, "gone"),
        }
    };
    let layer = eager(&topology).level(Level::MonotonicReads).build().unwrap();
    let fixture = Fixture { app: Router::new().route("/", get(handler)).layer(layer), store: empty() };
    let mut gone = 0;
    for number in 0..200 {
        let name = format!("s{number}");
        let first = fixture.get("/", &[session(&name)]).await;
        if first.body == "gone" {
            gone += 1;
            assert_eq!(fixture.get("/", &[session(&name)]).await.body, "gone");
        }
    }
    assert!(gone > 20, "chances to step back: {gone}");
}

#[tokio::test(start_paused = true)]
async fn asking_for_more_keeps_what_the_route_demands() {
    let fixture = with_positions(|b| b.level(Level::BoundedStaleness(Duration::from_millis(100)))).settled().await;
    fixture.store.put("t", "a", Some("1".into())).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for headers in [&[][..], &[level("RYW")], &[session("me"), level("RYW")]] {
        assert_eq!(fixture.get("/v/a", headers).await.body, "1", "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_service_says_about_caching_stays() {
    let store = LaggingStore::builder().replicas(1).start();
    let layer = RywLayer::builder().positions(store.topology().clone()).build().unwrap();
    for (said, expected) in [
        ("no-cache, max-age=0, must-revalidate", "no-cache, max-age=0, must-revalidate, private"),
        ("public, max-age=60, s-maxage=600", "max-age=60, private"),
        ("no-store", "no-store"),
        ("Private", "Private"),
    ] {
        let app =
            Router::new().route("/", post(move || async move { ([("cache-control", said)], "") })).layer(layer.clone());
        let written = Fixture { app, store: store.clone() }.send("POST", "/", &[session("me")], "").await;
        assert_eq!(written.header("cache-control"), Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_made_inside_of_a_write_covers_what_came_before() {
    let keys = Keyring::random().unwrap();
    let store = LaggingStore::builder().replicas(1).lag(Duration::from_secs(1)).start();
    let layer = eager(store.topology()).signing_keys(keys.clone()).build().unwrap();
    let job = |context: RywContext| async move { context.token().unwrap() };
    let fixture = Fixture { app: values(store.clone()).route("/job", post(job)).layer(layer), store }.settled().await;
    fixture.put("/v/a", &[session("me")], "1").await;
    let job = fixture.send("POST", "/job", &[session("me")], "").await.body;
    assert!(!Token::open(&keys, &Tenant::default(), &job).unwrap().marks.is_none());
    assert_eq!(fixture.get("/v/a", &[("ryw-token", &job)]).await.body, "1");
}

#[tokio::test(start_paused = true)]
async fn a_standby_does_not_answer_for_the_primary() {
    let (topology, mut primary, _replicas) = nodes(&[]);
    let sample = topology.sample_primary();
    primary.begin().report(Reading::new(Role::Replica, at(1, 60)));
    assert_eq!(sample.await, None);
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_went_back_is_not_fresh_any_more() {
    let (topology, _primary, mut replicas) = nodes(&[100]);
    assert!(topology.view().nodes()[1].fresh_as_of().is_some());
    drop(replicas[0].begin());
    replicas[0].begin().report(Reading::new(Role::Replica, at(1, 50)));
    assert_eq!(topology.view().nodes()[1].fresh_as_of(), None);
}

#[tokio::test(start_paused = true)]
async fn a_replica_in_a_newer_epoch_ends_the_old_primarys_reign() {
    let (topology, mut primary, mut replicas) = nodes(&[100]);
    replicas[0].begin().report(Reading::new(Role::Replica, at(2, 110)).fork(Epoch::new(2), Epoch::new(1), 100));
    primary.begin().report(Reading::new(Role::Primary, at(1, 120)));
    assert!(topology.view().primary().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_ends_although_its_session_keeps_asking() {
    let store = LaggingStore::builder().replicas(1).lag(Duration::from_millis(100)).start();
    let layer = eager(store.topology()).level(Level::Session).build().unwrap();
    let fail = post(|| async { http::StatusCode::INTERNAL_SERVER_ERROR });
    let fixture = Fixture { app: values(store.clone()).route("/fail", fail).layer(layer), store }.settled().await;
    let failed = fixture.send("POST", "/fail", &[session("me")], "").await;
    let mut token = failed.header("ryw-token").unwrap().to_owned();
    let mut routes = Vec::new();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Somebody else's traffic, so that each read raises the marks and with them the token.
        fixture.store.put("t", "b", Some("x".into())).unwrap();
        let read = fixture.get("/v/a", &[session("me"), ("ryw-token", &token)]).await;
        token = read.header("ryw-token").unwrap_or(&token).to_owned();
        routes.push(read.route().to_owned());
    }
    assert!(routes[0].contains("pending-write") && !routes[9].contains("pending-write"), "{routes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_of_ones_own_without_positions_settles_by_time() {
    let fixture = with_window(|b| b.store(LocalStore::builder().capacity(1000).build()));
    assert!(fixture.get("/v/a", &[session("me")]).await.route().contains("unknown-marks"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let read = fixture.get("/v/a", &[session("me")]).await;
    assert!(read.route().starts_with("replica;reason=no-marks"), "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn a_failover_does_not_tell_those_who_lost_nothing() {
    let (topology, primary, mut replicas) = nodes(&[90, 90]);
    let layer = eager(&topology).primary_budget(1).build().unwrap();
    let fixture = Fixture { app: values(empty()).layer(layer), store: empty() };
    let old = keep(primary, Role::Primary, at(1, 100));
    let fixture = fixture.settled().await;
    old.abort();
    let _ = old.await;
    // r1 is promoted at 90; the floor, 100, is not part of its history.
    let promoted = |role| Reading::new(role, at(2, 200)).fork(Epoch::new(2), Epoch::new(1), 90);
    replicas[0].begin().report(promoted(Role::Primary));
    replicas[1].begin().report(promoted(Role::Replica));
    let _new = keep(replicas.swap_remove(0), Role::Primary, at(2, 200));
    for number in 0..100 {
        let read = fixture.get("/v/a", &[session(&format!("new-{number}"))]).await;
        assert!(read.header("ryw-lost").is_none() && read.route().starts_with("replica"), "{}", read.route());
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_who_served_counts() {
    let (topology, primary, replicas) = nodes(&[50]);
    let _primary = keep(primary, Role::Primary, at(1, 100));
    let _replicas: Vec<_> = replicas.into_iter().map(|watch| keep(watch, Role::Replica, at(1, 50))).collect();
    let keys = Keyring::random().unwrap();
    let layer = eager(&topology).level(Level::MonotonicReads).signing_keys(keys.clone()).build().unwrap();
    // As a pool does for a handler that takes two connections, the first of which falls back.
    let handler = |context: RywContext| async move {
        context.served_by(Route::Primary, Reason::NoReplica, None);
        context.served_by(Route::Replica { node: Some("r1".into()) }, Reason::NoMarks, None);
    };
    let read = Fixture { app: Router::new().route("/", get(handler)).layer(layer), store: empty() }.get("/", &[]).await;
    assert!(read.route().starts_with("primary;reason=no-replica"), "{}", read.route());
    let token = Token::open(&keys, &Tenant::default(), read.header("ryw-token").unwrap()).unwrap();
    assert_eq!(token.marks.positions(), [at(1, 100)]);
}

#[tokio::test(start_paused = true)]
async fn reads_with_dead_cookies_do_not_fill_the_store() {
    let store = LaggingStore::builder().replicas(1).start();
    let layer =
        eager(store.topology()).cookie(CookiePolicy::InsecureForDevelopment).unproven_reads(100).build().unwrap();
    let marks = layer.local_store().clone();
    let fixture = Fixture { app: values(store.clone()).layer(layer), store };
    for _ in 0..100 {
        assert!(fixture.get("/v/a", &[("cookie", "ryw=x")]).await.cookie().is_some());
    }
    assert_eq!(marks.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_environment_leaves_alone_what_it_does_not_name() {
    let store = LaggingStore::builder().replicas(1).start();
    let own_store = RywLayer::builder().store(LocalStore::new()).from_env().unwrap().build();
    assert!(own_store.is_ok());
    let layer = eager(store.topology()).level(Level::Strong).from_env().unwrap().build().unwrap();
    let read = Fixture { app: values(store.clone()).layer(layer), store }.get("/v/a", &[session("me")]).await;
    assert!(read.route().contains("level=strong"), "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn strong_reads_are_refused_while_there_is_no_primary() {
    let (topology, mut old, mut replicas) = nodes(&[100]);
    replicas[0].begin().report(Reading::new(Role::Primary, at(2, 110)).fork(Epoch::new(2), Epoch::new(1), 100));
    old.begin().report(Reading::new(Role::Replica, at(2, 105)));
    drop(replicas[0].begin());
    let app = values(empty()).layer(eager(&topology).build().unwrap());
    let read = Fixture { app, store: empty() }.get("/v/a", &[level("STRONG")]).await;
    assert_eq!(read.status, 503);
}

#[test]
fn durations_that_make_no_sense_are_refused() {
    for builder in [
        RywLayer::builder().window(Duration::MAX),
        RywLayer::builder().session_ttl(Duration::MAX),
        RywLayer::builder().token_max_age(Duration::MAX),
    ] {
        assert!(builder.build().unwrap_err().to_string().contains("at most"));
    }
}
