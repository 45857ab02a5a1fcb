//! Waiting for a replica is bounded, holds nothing, and never ends on one that is behind.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header::RETRY_AFTER},
    routing::get,
};
use ryw_postgres::{Builder, RywPool, tokio_postgres};
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::task::JoinSet;
use tower_ryw::{
    Ladder, RouteRule,
    topology::{NodeState, NodeView, WaitLimits},
};

use crate::world::{World, at_once, launch, read, shown, until, until_shown};

fn pool(cluster: &Cluster) -> Builder {
    RywPool::builder().primary(cluster.primary().url()).replica_named("r1", cluster.standbys()[0].url())
}

#[tokio::test]
async fn f26_a_timeout_never_falls_through_to_the_replica() {
    let cluster = launch(Cluster::builder().standby(Standby::named("r1"))).await;
    let pool = pool(&cluster);
    let routes = Router::new().route("/strict/{key}", get(read));
    let world = World::over(cluster, pool, routes, |layer| {
        let ladder = Ladder::new().wait(Duration::from_millis(30));
        layer.ladder(ladder).route(RouteRule::new("/strict/*").ladder(ladder.primary(false)))
    })
    .await;
    let (mut value, mut waited, mut refused) = (0, 0, 0);
    for _ in 0..5 {
        world.pause_replay().await;
        let stale = shown(world.standby(), "note");
        for _ in 0..4 {
            value += 1;
            world.service.put("me", "note", value).await;
            let read = world.service.read("me", "note").await;
            assert_eq!((read.value(), read.served()), (Some(value), ("primary", "behind")), "{read:?}");
            waited += usize::from(read.has_waited());
            let strict = world.service.get("me", "/strict/note", "RYW").await;
            assert_eq!(strict.status, StatusCode::SERVICE_UNAVAILABLE, "{strict:?}");
            refused += usize::from(strict.headers.contains_key(RETRY_AFTER));
        }
        assert_eq!(shown(world.standby(), "note"), stale, "chances to be stale");
        world.resume_replay();
        until_shown(world.standby(), "note", value).await;
    }
    assert!(waited >= 5 && refused == 20, "{waited} waited, {refused} refused");
}

#[tokio::test]
async fn one_session_does_not_take_all_the_places() {
    const READS: usize = 150;
    const PLACES: usize = 8;
    let cluster = launch(Cluster::builder().standby(Standby::named("r1"))).await;
    let pool = pool(&cluster).wait_limits(WaitLimits::new().per_session(PLACES));
    let ladder = Ladder::new().wait(Duration::from_secs(2));
    let world = World::over(cluster, pool, Router::new(), |layer| layer.ladder(ladder)).await;
    let waiting = || world.pool.topology().waiting();
    world.pause_replay().await;
    for session in ["me", "other"] {
        world.service.put(session, session, 1).await;
    }
    let mut reads = JoinSet::new();
    for _ in 0..READS {
        reads.spawn(world.service.reading("me", "me", "RYW"));
    }
    for _ in PLACES..READS {
        let read = reads.join_next().await.unwrap().unwrap();
        assert_eq!((read.value(), read.served()), (Some(1), ("primary", "behind")), "{read:?}");
        assert!(!read.has_waited(), "{read:?}");
    }
    assert_eq!(waiting(), PLACES);
    reads.spawn(world.service.reading("other", "other", "RYW"));
    until("another session waits as well", async || waiting() == PLACES + 1).await;
    world.resume_replay();
    for read in reads.join_all().await {
        assert_eq!((read.value(), read.served()), (Some(1), ("replica", "waited")), "{read:?}");
    }
    assert_eq!(waiting(), 0);
}

/// On its own connection, until it is dropped.
async fn open_snapshot(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("begin isolation level repeatable read; select count(*) from notes").await.unwrap();
    client
}

#[tokio::test]
async fn f19_waiters_hold_nothing_that_blocks_replay() {
    const READS: usize = 30;
    const HELD: &str = "select count(*) from pg_stat_activity
        where backend_type = 'client backend' and application_name <> 'tower-ryw watcher' and pid <> pg_backend_pid()
          and (backend_xmin is not null or state <> 'idle')";
    let standby =
        Standby::named("r1").setting("max_standby_streaming_delay", "-1").setting("hot_standby_feedback", "off");
    let cluster = launch(Cluster::builder().standby(standby)).await;
    let pool = pool(&cluster);
    // Nobody but the replica may serve, so that none of the waiting gets away.
    let ladder = Ladder::new().wait(Duration::from_secs(2)).primary(false);
    let world = World::over(cluster, pool, Router::new(), |layer| layer.ladder(ladder)).await;
    let primary = world.cluster.primary();
    let topology = world.pool.topology();
    world.service.put("me", "note", 0).await;
    until_shown(world.standby(), "note", 0).await;
    let served = at_once(8, || world.service.reading("me", "note", "RYW")).await;
    assert!(served.iter().all(|read| read.node() == Some("r1")), "the pool has connections: {served:?}");

    // The second time somebody else holds a snapshot, which shows that one would stop the replay.
    for (value, blocked) in [(1, false), (2, true)] {
        primary.psql(&format!("create table dead{value} as select generate_series(1, 1000) as n")).unwrap();
        world.pause_replay().await;
        let snapshot = if blocked { Some(open_snapshot(&world.standby().url()).await) } else { None };
        primary.psql(&format!("delete from dead{value}")).unwrap();
        primary.psql(&format!("vacuum dead{value}")).unwrap();
        world.service.put("me", "note", value).await;
        let mut reads = JoinSet::new();
        for _ in 0..READS {
            reads.spawn(world.service.reading("me", "note", "RYW"));
        }
        until("all of them wait", async || topology.waiting() == READS).await;
        assert_eq!(world.standby().psql(HELD).unwrap(), usize::from(blocked).to_string());
        assert!(topology.view().nodes().iter().all(|node: &NodeView| node.load() == 0), "no connection is held");
        world.resume_replay();
        for read in reads.join_all().await {
            if blocked {
                assert_eq!(read.status, StatusCode::SERVICE_UNAVAILABLE, "{read:?}");
            } else {
                assert_eq!((read.value(), read.served()), (Some(value), ("replica", "waited")), "{read:?}");
            }
        }
        if let Some(snapshot) = snapshot {
            assert_eq!(shown(world.standby(), "note"), Some(value - 1), "replay stands still");
            drop(snapshot);
            until_shown(world.standby(), "note", value).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ladder_holds_for_anonymous_reads_too() {
    let cluster = Cluster::builder().standby(Standby::named("r1"));
    let never = Ladder::new().primary(false);
    let mut world =
        World::start_with(cluster, Router::new(), |_, pool| pool, |layer| layer.ladder(never).primary_budget(0)).await;
    world.service.put("other", "note", 1).await;
    world.caught_up().await;
    world.kill("r1");
    world.until_state("r1", NodeState::Down).await;
    let named = world.service.read("me", "note").await;
    let anonymous = world.service.send(Request::get("/notes/note").body(Body::empty()).unwrap()).await;
    assert_eq!(named.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(anonymous.status, StatusCode::BAD_GATEWAY, "the handler has no connection: {anonymous:?}");
}
