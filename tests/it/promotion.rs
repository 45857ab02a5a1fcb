//! Failovers while a request waits for a replica, and standbys of standbys: a wait ends, and never in stale data.

use std::time::Duration;

use axum::{Router, http::StatusCode};
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower_ryw::{Ladder, topology::NodeState};

use crate::{
    failing::{Client, Gate, Replication},
    world::{DEADLINE, Reply, World, until, until_shown},
};

const TOLD: Option<&str> = Some("?1;epoch=2;was=1");

async fn patient_world() -> World {
    let patient = Ladder::new().wait(Duration::from_secs(2));
    let cluster = Cluster::builder().standby(Standby::named("r1"));
    World::start_with(cluster, Router::new(), |_, pool| pool, |layer| layer.ladder(patient)).await
}

/// Returns when the read waits for the replica.
async fn waiting_read(world: &World, client: &Client) -> JoinHandle<Reply> {
    let mut client = client.clone();
    let read = tokio::spawn(async move { client.read().await });
    until("the read waits", async || world.pool.topology().waiting() == 1 || read.is_finished()).await;
    assert!(!read.is_finished(), "it did not wait: {:?}", read.await);
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f21_a_wait_ends_when_the_standby_becomes_the_primary() {
    let world = patient_world().await;
    let mut client = Client::named(&world.service, "me", "RYW");
    client.put(1).await;
    world.caught_up().await;
    world.psql("r1", "select pg_wal_replay_pause()");
    until("replay is paused", async || world.psql("r1", "select pg_get_wal_replay_pause_state()") == "paused").await;
    client.put(2).await;
    let end = world.psql("primary", "select pg_current_wal_flush_lsn()");
    let received = format!("select pg_last_wal_receive_lsn() >= '{end}'");
    until("the write has got to the standby", async || world.psql("r1", &received) == "t").await;

    let read = waiting_read(&world, &client).await;
    // It applies what it has received, and from then on no position of a standby is to be had from it.
    world.promote("r1");
    let read = timeout(DEADLINE, read).await.expect("the wait ends").unwrap();
    assert_eq!((read.value(), read.lost()), (Some(2), None), "{read:?}");
    world.until_state("r1", NodeState::Primary).await;
    world.until_state("primary", NodeState::Fenced).await;
    let read = client.read().await;
    assert_eq!((read.value(), read.lost(), read.served().0), (Some(2), None, "primary"), "{read:?}");
    assert_eq!(world.pool.topology().waiting(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f24_a_wait_for_what_is_lost_meanwhile_ends_and_tells() {
    let world = patient_world().await;
    let mut client = Client::named(&world.service, "me", "RYW");
    client.put(1).await;
    let replication = Replication::of(&world, &["r1"]).await;
    replication.cut();
    client.put(2).await;
    let read = waiting_read(&world, &client).await;
    // The old primary lives, so that the wait has no other reason to end.
    world.promote("r1");
    let read = timeout(DEADLINE, read).await.expect("the wait ends").unwrap();
    assert_eq!((read.value(), read.lost()), (Some(1), TOLD), "{read:?}");
    assert_eq!(world.pool.topology().waiting(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f25_a_standby_of_a_standby_serves_when_it_has_applied_the_write() {
    let cluster = Cluster::builder().standby(Standby::named("r1")).standby(Standby::named("r2").upstream("r1"));
    let mut world = World::start(cluster, Router::new(), 10).await;
    let mut before = Client::named(&world.service, "before", "RYW");
    let mut after = Client::named(&world.service, "after", "RYW");
    for client in [&mut before, &mut after] {
        client.put(1).await;
    }
    world.caught_up().await;
    let shown = |world: &World, node: &str, key: &str| {
        world.psql(node, &format!("select value from notes where key = '{key}'")).parse::<i64>().ok()
    };
    let paused = "select pg_get_wal_replay_pause_state()";
    world.psql("r2", "select pg_wal_replay_pause()");
    until("replay is paused", async || world.psql("r2", paused) == "paused").await;
    before.put(2).await;
    until("r1 has the write", async || shown(&world, "r1", "before") == Some(2)).await;
    world.kill("primary");
    world.promote("r1");
    world.until_state("r1", NodeState::Primary).await;
    after.put(2).await;

    // It follows the new primary, as it did before, and shows neither write.
    for _ in 0..50 {
        assert_eq!((shown(&world, "r2", "before"), shown(&world, "r2", "after")), (Some(1), Some(1)));
        for client in [&mut before, &mut after] {
            let read = client.read().await;
            assert_eq!((read.value(), read.lost(), read.served().0), (Some(2), None, "primary"), "{read:?}");
        }
    }
    // It passes the fork, and receives the new timeline before it applies what is on it.
    world.psql("r2", "select pg_wal_replay_resume()");
    let (mut by_replica, mut value) = (0, 2);
    until("it serves on the new timeline", async || {
        value += 1;
        after.put(value).await;
        for (client, value) in [(&mut before, 2), (&mut after, value)] {
            let read = client.read().await;
            assert_eq!((read.value(), read.lost()), (Some(value), None), "{read:?}");
            by_replica += usize::from(value > 2 && read.node() == Some("r2"));
        }
        by_replica > 10
    })
    .await;
}

/// After a failover that has lost nothing, a standby's connection to the new primary breaks off while it serves. Until it
/// is back, the standby itself says no more about its timeline than where its last checkpoint was: before the failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f25_a_standby_without_upstream_makes_nobody_lose_anything() {
    let gate = Gate::default();
    let cluster = Cluster::builder().standby(Standby::named("r1")).standby(Standby::named("r2").upstream("r1"));
    let mut world = World::start(cluster, gate.routes(), 10).await;
    world.service.put("writer", "note", 1).await;
    world.caught_up().await;
    world.kill("primary");
    world.promote("r1");
    world.until_state("r1", NodeState::Primary).await;
    world.service.put("writer", "note", 2).await;
    until_shown(world.server("r2"), "note", 2).await;
    world.replicas_caught_up().await;
    world.until_state("r2", NodeState::Replica).await;

    let service = world.service.clone();
    let read = tokio::spawn(async move { service.get("me", "/after/note", "MONOTONIC").await });
    gate.reached().await;
    world.kill("r1");
    until("no receiver", async || world.psql("r2", "select count(*) from pg_stat_wal_receiver") == "0").await;
    assert_eq!(world.psql("r2", "select timeline_id from pg_control_checkpoint()"), "1", "a chance to be misled");
    sleep(Duration::from_millis(100)).await;
    gate.open();
    let read = read.await.unwrap();
    assert_eq!((read.value(), read.node(), read.lost()), (Some(2), Some("r2"), None), "{read:?}");
    world.restart("r1");
    world.until_state("r1", NodeState::Primary).await;
    let mut client = Client::named(&world.service, "me", "MONOTONIC");
    for reply in [client.read().await, client.try_put(3).await] {
        assert!(reply.status.is_success() || reply.status == StatusCode::NOT_FOUND, "{reply:?}");
        assert_eq!(reply.lost(), None, "{reply:?}");
    }
}
