//! Nodes that are silent, half there, or not there yet: reads go elsewhere, and come back.

use std::time::Duration;

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use ryw_postgres::{Builder, RywPool, tokio_postgres};
use ryw_testing::{
    proxy::{Direction, Proxy},
    servers::postgres::{Cluster, Standby},
};
use tokio::{task::JoinSet, time::timeout};
use tower_ryw::topology::NodeState;

use crate::world::{DEADLINE, Reply, World, address, at_once, behind, launch, select, until, until_shown};

/// An application's own: the pool does not interrupt what a handler asks over a connection.
const PATIENCE: Duration = Duration::from_secs(3);

async fn patient(State(pool): State<RywPool>, Path(key): Path<String>) -> Result<String, StatusCode> {
    let reading = async {
        let client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
        select(&client, &key).await?.ok_or(StatusCode::NOT_FOUND)
    };
    let value = timeout(PATIENCE, reading).await.map_err(|_| StatusCode::GATEWAY_TIMEOUT)??;
    Ok(value.to_string())
}

async fn statement(State(pool): State<RywPool>, Path(key): Path<String>) -> Result<String, StatusCode> {
    let rows = pool.query("select value from notes where key = $1", &[&key]).await;
    let rows = rows.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(rows.first().ok_or(StatusCode::NOT_FOUND)?.get::<_, i64>(0).to_string())
}

fn pair() -> impl Future<Output = Cluster> {
    launch(Cluster::builder().standby(Standby::named("r1")).standby(Standby::named("r2")))
}

fn primary(cluster: &Cluster) -> Builder {
    RywPool::builder().primary(cluster.primary().url())
}

fn state(world: &World, name: &str) -> NodeState {
    let view = world.pool.topology().view();
    view.nodes().iter().find(|node| node.name().as_str() == name).unwrap().state()
}

async fn until_served_by(world: &World, node: &str, value: i64) {
    until(&format!("{node} serves"), async || {
        let read = world.service.get("me", "/patient/note", "RYW").await;
        assert!(read.status == StatusCode::GATEWAY_TIMEOUT || read.value() == Some(value), "{read:?}");
        read.node() == Some(node) && read.status == StatusCode::OK
    })
    .await;
}

fn is_right(read: &Reply, value: i64) -> bool {
    read.status == StatusCode::OK && read.value() == Some(value)
}

#[derive(Clone, Copy, Debug)]
enum Silence {
    BlackHole(Direction),
    Frozen,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_falls_silent_is_left_and_comes_back() {
    let cluster = pair().await;
    let [r1, r2] = cluster.standbys() else { panic!("two standbys") };
    let proxy = Proxy::start([address(r1)]).await.unwrap();
    let pool = primary(&cluster).replica_named("r1", behind(&proxy)).replica_named("r2", r2.url());
    let routes = Router::new().route("/patient/{key}", get(patient)).route("/statement/{key}", get(statement));
    let world = World::over(cluster, pool, routes, |layer| layer).await;
    let r1 = world.standby();
    let mut value = 0;
    for silence in [Silence::BlackHole(Direction::Both), Silence::BlackHole(Direction::ToClient), Silence::Frozen] {
        value += 1;
        world.service.put("me", "note", value).await;
        until_served_by(&world, "r1", value).await;
        at_once(8, || world.service.reading("me", "note", "RYW")).await;
        match silence {
            Silence::BlackHole(direction) => proxy.black_hole(direction),
            Silence::Frozen => r1.freeze().unwrap(),
        }
        // Before anybody knows: the marks are such that both replicas may serve.
        let mut patient = JoinSet::new();
        let mut statements = JoinSet::new();
        for _ in 0..8 {
            let (one, other) = (world.service.clone(), world.service.clone());
            patient.spawn(async move { one.get("me", "/patient/note", "RYW").await });
            statements.spawn(async move { other.get("me", "/statement/note", "RYW").await });
        }
        until("the watcher has noticed", async || state(&world, "r1") == NodeState::Down).await;
        for _ in 0..30 {
            let read = world.service.read("me", "note").await;
            assert!(is_right(&read, value) && read.node() != Some("r1"), "{silence:?} {read:?}");
        }
        for read in statements.join_all().await {
            assert!(is_right(&read, value) && read.node() != Some("r1"), "{silence:?} {read:?}");
        }
        for read in patient.join_all().await {
            assert!(is_right(&read, value) || read.status == StatusCode::GATEWAY_TIMEOUT, "{silence:?} {read:?}");
        }
        // What was written meanwhile is there when it is back.
        value += 1;
        world.service.put("me", "note", value).await;
        match silence {
            Silence::BlackHole(_) => proxy.heal(),
            Silence::Frozen => r1.thaw().unwrap(),
        }
        until_served_by(&world, "r1", value).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_only_its_watcher_reaches_is_ejected_and_returns() {
    let cluster = pair().await;
    let [r1, r2] = cluster.standbys() else { panic!("two standbys") };
    let proxy = Proxy::start([address(r1)]).await.unwrap();
    let pool = primary(&cluster).replica_named("r1", behind(&proxy)).replica_named("r2", r2.url());
    let pool = pool.connect_deadline(Duration::from_secs(1));
    let world = World::over(cluster, pool, Router::new(), |layer| layer).await;
    // The watcher's connection is there, the pool's are not.
    proxy.refuse();
    world.service.put("me", "note", 1).await;
    for standby in world.cluster.standbys() {
        until_shown(standby, "note", 1).await;
    }
    let read = async || {
        let read = world.service.read("me", "note").await;
        assert!(is_right(&read, 1) && read.node() != Some("r1"), "{read:?}");
    };
    until("it is ejected", async || {
        read().await;
        state(&world, "r1") == NodeState::Ejected
    })
    .await;
    until("it gets another chance", async || {
        read().await;
        state(&world, "r1") == NodeState::Replica
    })
    .await;
    until("it fails again", async || {
        read().await;
        state(&world, "r1") == NodeState::Ejected
    })
    .await;
    proxy.heal();
    until("it serves", async || {
        let read = world.service.read("me", "note").await;
        assert!(is_right(&read, 1), "{read:?}");
        read.node() == Some("r1")
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_gives_no_more_connections_is_not_waited_for() {
    let cluster = launch(Cluster::builder().standby(Standby::named("r1"))).await;
    let pool = primary(&cluster).replica_named("r1", cluster.standbys()[0].url());
    // It would be waited for until long after this test has been given up.
    let pool = pool.connect_deadline(Duration::from_secs(3600));
    let world = World::over(cluster, pool, Router::new(), |layer| layer).await;
    world.service.put("me", "note", 1).await;
    world.caught_up().await;
    let mut others = Vec::new();
    let url = world.standby().url();
    let full = loop {
        match tokio_postgres::connect(&url, tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                others.push(client);
            }
            Err(error) => break error,
        }
    };
    assert!(full.code().is_some(), "it has run out of connections: {full:?}");
    let read = timeout(DEADLINE, world.service.read("me", "note")).await.expect("somebody else serves");
    assert_eq!((read.value(), read.served().0), (Some(1), "primary"), "{read:?}");
}

#[tokio::test]
async fn a_pool_can_be_built_without_one_of_its_replicas() {
    let mut cluster = pair().await;
    cluster.server_mut("r2").unwrap().kill().unwrap();
    let [r1, r2] = cluster.standbys() else { panic!("two standbys") };
    let pool = primary(&cluster).replica_named("r1", r1.url()).replica_named("r2", r2.url());
    let mut world = World::over(cluster, pool, Router::new(), |layer| layer).await;
    world.service.put("me", "note", 1).await;
    let read = async |world: &World| {
        let read = world.service.read("me", "note").await;
        assert!(is_right(&read, 1), "{read:?}");
        read.node().map(str::to_owned)
    };
    until("the other one serves", async || read(&world).await.as_deref() == Some("r1")).await;
    assert_eq!(state(&world, "r2"), NodeState::Down);
    world.cluster.server_mut("r2").unwrap().start().unwrap();
    until("it serves once it is there", async || read(&world).await.as_deref() == Some("r2")).await;
}

#[tokio::test]
async fn roles_are_what_the_nodes_say_they_are() {
    let mut cluster = launch(Cluster::builder().standby(Standby::named("r1"))).await;
    cluster.primary_mut().kill().unwrap();
    cluster.standbys()[0].promote().unwrap();
    cluster.rewind("primary", "r1").unwrap();
    // As it was before the failover.
    let pool = primary(&cluster).replica_named("r1", cluster.standbys()[0].url());
    let world = World::over(cluster, pool, Router::new(), |layer| layer).await;
    assert_eq!((state(&world, "primary"), state(&world, "r1")), (NodeState::Replica, NodeState::Primary));
    for value in 1..=20 {
        world.service.put("me", "note", value).await;
        let read = world.service.read("me", "note").await;
        assert_eq!(read.value(), Some(value), "{read:?}");
    }
    until("the old primary serves", async || world.service.read("me", "note").await.node() == Some("primary")).await;
}
