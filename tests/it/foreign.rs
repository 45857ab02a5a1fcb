//! Positions that are none of this cluster's, servers that are none of its nodes, and positions that look alike.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use ryw_core::{ClusterId, Epoch, Marks, Position, SessionId, Tenant, Token};
use ryw_postgres::{ConnectErrorKind, RywPool};
use ryw_testing::{
    proxy::Proxy,
    servers::postgres::{Cluster, ClusterBuilder, Standby},
};
use tower_ryw::{
    Ladder,
    topology::{NodeState, Topology},
};

use crate::world::{World, until};

fn one_standby() -> ClusterBuilder {
    Cluster::builder().standby(Standby::named("r1"))
}

#[tokio::test]
async fn f04_a_mark_of_another_cluster_is_not_waited_for() {
    let patient = Ladder::new().wait(Duration::from_secs(2));
    let world = World::start_with(one_standby(), Router::new(), |_, pool| pool, |layer| layer.ladder(patient)).await;
    world.service.put("me", "note", 7).await;
    world.caught_up().await;
    let own = world.pool.topology().sample_primary().await.unwrap();
    let (cluster, epoch, offset) = (own.cluster(), own.epoch(), own.offset());
    let foreign = ClusterId::new(cluster.get() + 1);
    let reading = |position, level| {
        let session = world.keys.newest().session(&Tenant::default(), &SessionId::random().unwrap());
        let issued_at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let token = Token { session, issued_at: u32::try_from(issued_at).unwrap(), marks: Marks::at(position) };
        let token = token.seal(&world.keys, &Tenant::default());
        let request = Request::get("/notes/note").header("ryw-token", &token).header("x-consistency-level", level);
        request.body(Body::empty()).unwrap()
    };
    // What this cluster has of another one's it has had since before it was first served from, and the replica has that.
    for (position, served, what) in [
        (
            Position::new(foreign, epoch, 1),
            ("replica", "caught-up"),
            "another cluster's, which would be reached by number",
        ),
        (Position::new(foreign, epoch, offset + 100), ("replica", "caught-up"), "another cluster's, which would not"),
        (Position::new(cluster, epoch, u64::MAX / 2), ("primary", "behind"), "ahead of everything"),
    ] {
        for level in ["RYW", "SESSION"] {
            let read = world.service.send(reading(position, level)).await;
            assert_eq!((read.value(), read.lost()), (Some(7), None), "{what}: {read:?}");
            assert_eq!(read.served(), served, "{what}: {read:?}");
            assert!(!read.headers["ryw-route"].to_str().unwrap().contains("waited="), "{what}: {read:?}");
            assert!(!read.headers.contains_key(header::RETRY_AFTER), "{what}: {read:?}");
        }
    }
    // Of an epoch that nobody here has heard of: the primary that is known may be none.
    let unheard = Position::new(cluster, Epoch::new(99), offset);
    for level in ["RYW", "SESSION", "STRONG"] {
        let read = world.service.send(reading(unheard, level)).await;
        assert_eq!(read.status, StatusCode::SERVICE_UNAVAILABLE, "{read:?}");
        assert!(read.headers.contains_key(header::RETRY_AFTER), "{read:?}");
    }
}

#[tokio::test]
async fn f30_positions_are_numbers_and_not_texts() {
    let world = World::start(one_standby(), Router::new(), 10).await;
    world.service.put("me", "note", 1).await;
    until("the replica serves", async || world.service.read("me", "note").await.served().0 == "replica").await;
    let at = |node: &str| {
        let function = if node == "r1" { "pg_last_wal_replay_lsn()" } else { "pg_current_wal_flush_lsn()" };
        world.server(node).psql(&format!("select {function}")).unwrap()
    };
    // To the last segment before positions get a digit more. Each switch needs something to switch after.
    while !at("primary").starts_with("0/F") {
        let next = "select pg_logical_emit_message(false, 'p', 'x'); select pg_switch_wal()";
        world.server("primary").psql(next).unwrap();
    }
    world.pause_replay().await;
    while at("primary").len() < "0/10000000".len() {
        let next = "select pg_logical_emit_message(false, 'p', 'x'); select pg_switch_wal()";
        world.server("primary").psql(next).unwrap();
        // Some switches are over before the position moves on.
        world.service.put("other", "other", 1).await;
    }
    world.service.put("me", "note", 2).await;
    let (written, applied) = (at("primary"), at("r1"));
    assert!(written < applied, "{written} is no smaller text than {applied}");
    for _ in 0..10 {
        let read = world.service.read("me", "note").await;
        assert_eq!((read.value(), read.served()), (Some(2), ("primary", "behind")), "{read:?}");
    }
    world.resume_replay();
    until("the replica serves", async || {
        let read = world.service.read("me", "note").await;
        assert_eq!(read.value(), Some(2), "{read:?}");
        read.served().0 == "replica"
    })
    .await;
}

/// A publisher, and a subscriber that has the same rows and nothing else in common with it.
async fn subscribed() -> (Cluster, Cluster) {
    let start = |cluster: ClusterBuilder| tokio::task::spawn_blocking(|| cluster.start().unwrap());
    let publisher = start(Cluster::builder().setting("wal_level", "logical"));
    let subscriber = start(Cluster::builder().setting("wal_level", "logical"));
    let (publisher, subscriber) = (publisher.await.unwrap(), subscriber.await.unwrap());
    let table = "create table notes (key text primary key, value bigint not null)";
    publisher.primary().psql(table).unwrap();
    subscriber.primary().psql(table).unwrap();
    publisher.primary().psql("create publication notes for table notes").unwrap();
    let port = publisher.primary().port();
    let connection = format!("host=127.0.0.1 port={port} user=ryw dbname=postgres");
    let subscribe = format!("create subscription notes connection '{connection}' publication notes");
    subscriber.primary().psql(&subscribe).unwrap();
    publisher.primary().psql("insert into notes values ('note', 1)").unwrap();
    until("it is replicated", async || subscriber.primary().psql("select value from notes").unwrap() == "1").await;
    (publisher, subscriber)
}

fn state(topology: &Topology, name: &str) -> NodeState {
    let view = topology.view();
    view.nodes().iter().find(|node| node.name().as_str() == name).unwrap().state()
}

#[tokio::test]
async fn f31_a_logical_subscriber_is_no_replica() {
    let (publisher, subscriber) = subscribed().await;
    let (primary, other) = (publisher.primary(), subscriber.primary());
    let pool = RywPool::builder().primary(primary.url());
    let error = pool.replica_named("logical", other.url()).connect().await.unwrap_err();
    assert!(
        matches!(error.kind(), ConnectErrorKind::OtherCluster { primary, replica } if primary != replica),
        "{error}"
    );
    assert_eq!(error.node(), "logical");

    // One that is not there yet is found out when it comes.
    let proxy = Proxy::start([("127.0.0.1", other.port())]).await.unwrap();
    proxy.refuse();
    let through_proxy = format!("postgres://ryw@{}/postgres", proxy.address());
    let pool = RywPool::builder().primary(primary.url()).replica_named("logical", through_proxy);
    let pool = pool.connect().await.unwrap();
    proxy.heal();
    until("it is fenced", async || state(pool.topology(), "logical") == NodeState::Fenced).await;
    assert_eq!(state(pool.topology(), "primary"), NodeState::Primary);
    assert!(pool.replica().await.is_err(), "nobody else is there");
    assert_eq!(pool.get().await.unwrap().node().as_str(), "primary");

    // It accepts writes, and so could pass for a standby that was promoted.
    let proxy = Proxy::start([("127.0.0.1", primary.port())]).await.unwrap();
    proxy.refuse();
    let through_proxy = format!("postgres://ryw@{}/postgres", proxy.address());
    let pool = RywPool::builder().primary(through_proxy).replica_named("logical", other.url());
    let error = pool.connect().await.expect_err("it is no node of the primary's cluster");
    assert_eq!((error.kind(), error.node()), (ConnectErrorKind::NotAReplica, "logical"), "{error}");
}
