//! With synchronous standbys the primary can be the one that shows less.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header::RETRY_AFTER},
};
use ryw_core::Position;
use ryw_postgres::{
    RywPool,
    tokio_postgres::{NoTls, connect},
};
use ryw_testing::{
    proxy::Proxy,
    servers::postgres::{Cluster, Standby},
};
use tokio::time::sleep;
use tower_ryw::topology::{NodeState, NodeView};

use crate::world::{World, address, at_once, behind, launch, pause, shown, until, until_shown, upsert};

const SESSIONS: [(&str, &str); 2] = [("monotonic", "MONOTONIC"), ("session", "SESSION")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f27_what_was_seen_on_a_standby_does_not_vanish_on_the_primary() {
    let cluster = launch(Cluster::builder().standby(Standby::named("r1")).standby(Standby::named("r2"))).await;
    let [r1, r2] = cluster.standbys() else { panic!("two standbys") };
    let proxy = Proxy::start([address(r1)]).await.unwrap();
    let pool = RywPool::builder().primary(cluster.primary().url());
    let pool = pool.replica_named("r1", behind(&proxy)).replica_named("r2", r2.url());
    let mut world = World::over(cluster, pool, Router::new(), |layer| layer).await;
    for session in ["monotonic", "session", "other", "writer"] {
        world.service.read(session, "none").await;
    }
    world.service.put("writer", "note", 1).await;
    for standby in world.cluster.standbys() {
        until_shown(standby, "note", 1).await;
    }
    world.caught_up().await;
    pause(&world.cluster.standbys()[1]).await;

    world.cluster.synchronous("zzz").unwrap();
    let service = world.service.clone();
    let writing = tokio::spawn(async move { service.put("writer", "note", 2).await });
    until_shown(world.standby(), "note", 2).await;
    assert_eq!(shown(world.cluster.primary(), "note"), Some(1), "a chance to go back in time");
    let read = async |(session, level): (&str, &str)| world.service.get(session, "/notes/note", level).await;
    for session in SESSIONS {
        until("the session has seen it", async || read(session).await.value() == Some(2)).await;
        for _ in 0..20 {
            let read = read(session).await;
            assert_eq!((read.value(), read.node()), (Some(2), Some("r1")), "{read:?}");
        }
    }

    // New connections find the late one behind the same address: nor is the primary a way out then.
    proxy.retarget([address(&world.cluster.standbys()[1])]);
    let mut turned_away = 0;
    for _ in 0..5 {
        for read in at_once(8, || world.service.reading("monotonic", "note", "MONOTONIC")).await {
            assert!(read.status.is_server_error() || read.value() == Some(2), "{read:?}");
            turned_away += usize::from(read.status.is_server_error());
        }
    }
    assert!(turned_away > 0, "all had a connection to the first one");

    world.cluster.server_mut("r1").unwrap().kill().unwrap();
    let view = || world.pool.topology().view().clone();
    let has_it = |node: &NodeView| {
        let old = view().nodes()[2].applied().unwrap().offset();
        node.state() == NodeState::Replica && node.applied().unwrap().offset() > old
    };
    until("nobody has it but the primary", async || !view().nodes().iter().any(has_it)).await;
    let read = async |(session, level): (&str, &str)| world.service.get(session, "/notes/note", level).await;
    for _ in 0..10 {
        for session in SESSIONS {
            let read = read(session).await;
            assert_eq!(read.status, StatusCode::SERVICE_UNAVAILABLE, "{read:?}");
            assert!(read.headers.contains_key(RETRY_AFTER), "{read:?}");
        }
        // Who has not seen it may see what was before.
        assert_eq!(read(("other", "MONOTONIC")).await.value(), Some(1));
        assert_eq!(world.service.get("other", "/notes/note", "STRONG").await.value(), Some(1));
    }

    world.cluster.synchronous("").unwrap();
    assert_eq!(writing.await.unwrap().status, StatusCode::NO_CONTENT);
    for session in SESSIONS {
        until("the primary shows it", async || read(session).await.status == StatusCode::OK).await;
        let read = read(session).await;
        assert_eq!((read.value(), read.served()), (Some(2), ("primary", "behind")), "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_a_read_only_address_that_leads_to_the_primary_does_not_go_back_in_time() {
    let cluster = launch(Cluster::builder().standby(Standby::named("r1"))).await;
    let proxy = Proxy::start([address(&cluster.standbys()[0])]).await.unwrap();
    let pool = RywPool::builder().primary(cluster.primary().url()).replica_named("r1", behind(&proxy));
    let world = World::over(cluster, pool, Router::new(), |layer| layer).await;
    for session in ["monotonic", "writer"] {
        world.service.read(session, "none").await;
    }
    world.service.put("writer", "note", 1).await;
    until_shown(world.standby(), "note", 1).await;
    world.caught_up().await;
    world.cluster.synchronous("zzz").unwrap();
    let service = world.service.clone();
    let writing = tokio::spawn(async move { service.put("writer", "note", 2).await });
    until_shown(world.standby(), "note", 2).await;
    assert_eq!(shown(world.cluster.primary(), "note"), Some(1), "a chance to go back in time");
    until("it is seen", async || world.service.get("monotonic", "/notes/note", "MONOTONIC").await.value() == Some(2))
        .await;
    // New connections lead to the primary.
    proxy.retarget([address(world.cluster.primary())]);
    for _ in 0..5 {
        for read in at_once(8, || world.service.reading("monotonic", "note", "MONOTONIC")).await {
            assert!(read.status.is_server_error() || read.value() == Some(2), "{read:?}");
        }
    }
    world.cluster.synchronous("").unwrap();
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_commit_that_waits_is_not_visible() {
    let cluster = Cluster::builder().standby(Standby::named("r1")).setting("max_prepared_transactions", "5");
    let mut world = World::start(cluster, Router::new(), 10).await;
    world.service.read("monotonic", "none").await;
    world.service.put("writer", "note", 1).await;
    until_shown(world.standby(), "note", 1).await;
    let (writer, connection) = connect(&world.cluster.primary().url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    writer.batch_execute("begin; update notes set value = 2; prepare transaction 'two'").await.unwrap();
    world.cluster.synchronous("zzz").unwrap();
    let writing = tokio::spawn(async move { writer.batch_execute("commit prepared 'two'").await });
    until_shown(world.standby(), "note", 2).await;
    assert_eq!(shown(world.cluster.primary(), "note"), Some(1), "a chance to go back in time");
    let service = world.service.clone();
    let read = async || service.get("monotonic", "/notes/note", "MONOTONIC").await;
    until("the session has seen it", async || read().await.value() == Some(2)).await;
    // Nobody who is at work counts for longer than a second.
    sleep(Duration::from_millis(2500)).await;
    world.cluster.server_mut("r1").unwrap().kill().unwrap();
    for _ in 0..20 {
        let read = read().await;
        assert!(read.status.is_server_error() || read.value() == Some(2), "{read:?}");
        sleep(Duration::from_millis(50)).await;
    }
    world.cluster.synchronous("").unwrap();
    writing.await.unwrap().unwrap();
}

/// A commit is written before it is seen to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_to_be_visible_is_visible() {
    let world = World::with_standbys(1).await;
    let (pool, primary) = (&world.pool, world.cluster.primary());
    let observer = pool.primary().await.unwrap();
    let (writer, connection) = connect(&primary.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let writer = Arc::new(writer);
    let pid: i32 = writer.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    world.cluster.synchronous("zzz").unwrap();
    for number in 0..300_i64 {
        let writing = tokio::spawn({
            let (writer, key) = (Arc::clone(&writer), number.to_string());
            async move { upsert(&writer, &key, number).await }
        });
        let (mut said, mut waits) = (None, false);
        let written = loop {
            pool.topology().sample_primary().await.unwrap();
            let visible = pool.topology().view().primary().unwrap().visible();
            let states = "select exists(select from notes where key = $1),
                                 exists(select from pg_stat_activity where pid = $2 and wait_event = 'SyncRep')";
            let states = observer.query_one(states, &[&number.to_string(), &pid]).await.unwrap();
            assert!(!states.get::<_, bool>(0), "nothing else lets it go");
            said = said.max(visible.map(Position::offset));
            if waits {
                break pool.topology().sample_primary().await.unwrap().offset();
            }
            waits = states.get(1);
        };
        assert!(said.is_none_or(|said| said < written), "{number}: {said:?}, and {written} is not visible");
        observer.execute("select pg_cancel_backend($1)", &[&pid]).await.unwrap();
        writing.await.unwrap();
    }
}
