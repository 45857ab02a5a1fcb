//! Review.
use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    routing::{get, put},
};
use ryw_postgres::RywPool;
use ryw_testing::{
    proxy::Proxy,
    servers::postgres::{Cluster, Standby},
};
use tokio::sync::Notify;
use tower_ryw::{Ladder, topology::NodeState};

use crate::{
    failing::{Client, Replication},
    world::{World, address, at_once, behind, launch, pause, shown, try_upsert, until, until_shown},
};

/// A read-only endpoint that is balanced over standby and primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rev_balanced_endpoint_with_the_primary_in_it() {
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
    until("seen", async || world.service.get("monotonic", "/notes/note", "MONOTONIC").await.value() == Some(2)).await;
    // New connections lead to the primary.
    proxy.retarget([address(world.cluster.primary())]);
    let mut bad = Vec::new();
    for _ in 0..5 {
        for read in at_once(8, || world.service.reading("monotonic", "note", "MONOTONIC")).await {
            if !read.status.is_server_error() && read.value() != Some(2) {
                bad.push(read);
            }
        }
    }
    world.cluster.synchronous("").unwrap();
    writing.await.unwrap();
    assert!(bad.is_empty(), "{} stale: {:?}", bad.len(), bad[0]);
}

#[derive(Debug, Default)]
struct Barrier {
    there: Notify,
    go: Notify,
}

async fn late_write(
    State(pool): State<RywPool>,
    Extension(barrier): Extension<Arc<Barrier>>,
    Path(key): Path<String>,
) -> Result<StatusCode, StatusCode> {
    // Such as a body that takes its time.
    barrier.there.notify_one();
    barrier.go.notified().await;
    let client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    try_upsert(&client, &key, 3).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rev_failover_between_decision_and_gate_of_a_write() {
    let barrier = Arc::new(Barrier::default());
    let routes = Router::new().route("/late/{key}", put(late_write)).layer(Extension(Arc::clone(&barrier)));
    let mut world = World::start(Cluster::builder().standby(Standby::named("r1")), routes, 10).await;
    let mut client = Client::named(&world.service, "me", "SESSION");
    client.put(1).await;
    world.caught_up().await;
    let replication = Replication::of(&world, &["r1"]).await;
    replication.cut();
    client.put(2).await;
    let service = world.service.clone();
    let slow = tokio::spawn(async move {
        let request = Request::put("/late/me").header("x-session-id", "me").header("x-consistency-level", "SESSION");
        service.send(request.body(Body::empty()).unwrap()).await
    });
    barrier.there.notified().await;
    world.kill("primary");
    replication.destroy();
    world.promote("r1");
    world.until_state("r1", NodeState::Primary).await;
    barrier.go.notify_one();
    let slow = slow.await.unwrap();
    let now = world.psql("r1", "select value from notes where key = 'me'");
    assert!(slow.status.is_client_error() || slow.status.is_server_error(), "accepted after the loss, value {now}: {slow:?}");
}

async fn count_and_read(State(pool): State<RywPool>, Path(key): Path<String>) -> Result<String, StatusCode> {
    pool.execute("update notes set value = value + 1 where key = $1", &[&key]).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let rows = pool.query("select value from notes where key = $1", &[&key]).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(rows[0].get::<_, i64>(0).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rev_a_get_that_writes_reads_its_own_write() {
    let routes = Router::new().route("/count/{key}", get(count_and_read));
    let world = World::start(Cluster::builder().standby(Standby::named("r1")), routes, 10).await;
    world.service.put("other", "note", 1).await;
    world.caught_up().await;
    world.service.read("me", "none").await;
    world.pause_replay().await;
    let read = world.service.get("me", "/count/note", "RYW").await;
    assert_eq!(read.value(), Some(2), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rev_anonymous_reads_pass_by_the_ladder_and_the_budget() {
    let cluster = Cluster::builder().standby(Standby::named("r1"));
    let never = Ladder::new().primary(false);
    let mut world = World::start_with(cluster, Router::new(), |_, pool| pool, |layer| layer.ladder(never).primary_budget(0)).await;
    world.service.put("other", "note", 1).await;
    world.caught_up().await;
    world.kill("r1");
    world.until_state("r1", NodeState::Down).await;
    let named = world.service.read("me", "note").await;
    let anonymous = world.service.send(Request::get("/notes/note").body(Body::empty()).unwrap()).await;
    eprintln!("named {named:?}\nanonymous {anonymous:?}");
    assert_eq!(named.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(anonymous.status.is_server_error(), "{anonymous:?}");
}

#[allow(dead_code)]
fn unused() { let _ = (pause,); }

mod third {
    use axum::Router;
    use ryw_testing::servers::postgres::{Cluster, Standby};
    use tower_ryw::topology::NodeState;

    use crate::{failing::Client, world::{World, until}};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rev_the_second_failover_gives_the_same_timeline() {
        let cluster = Cluster::builder().standby(Standby::named("r1")).standby(Standby::named("r2"));
        let mut world = World::start(cluster, Router::new(), 10).await;
        let mut client = Client::named(&world.service, "me", "SESSION");
        client.put(1).await;
        world.caught_up().await;
        world.kill("primary");
        world.promote("r1");
        world.until_state("r1", NodeState::Primary).await;
        client.put(2).await;
        world.kill("r1");
        world.promote("r2");
        world.until_state("r2", NodeState::Primary).await;
        let line = |world: &World, n: &str| world.psql(n, "select left(pg_walfile_name(pg_current_wal_lsn()), 8) || ' ' || pg_current_wal_lsn()");
        eprintln!("{}", line(&world, "r2"));
        for n in 0..20 { world.service.put("other", "other", n).await; }
        eprintln!("{} {:?}", line(&world, "r2"), world.pool.topology().view().nodes().iter().map(|n| (n.state(), n.applied())).collect::<Vec<_>>());
        let read = client.read().await;
        let write = client.try_put(3).await;
        eprintln!("{read:?}\n{write:?}");
        assert!(read.lost().is_some(), "value 2 was acknowledged: {read:?}");
        until("", async || true).await;
    }
}
