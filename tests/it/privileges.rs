//! What the role of the pool needs, and nothing else: written out here so that the documentation can be checked.

use axum::Router;
use ryw_postgres::{
    HELPERS, RywPool,
    tokio_postgres::{NoTls, connect},
};
use ryw_testing::servers::postgres::{Cluster, ClusterBuilder, Standby};
use tower_ryw::{Position, topology::NodeState};

use crate::world::{World, launch, shown, until, until_shown};

/// What the application itself needs.
const WORKS: &str = "create role app login; grant select, insert, update on notes to app";

/// `pg_read_all_stats`, of all that `pg_monitor` stands for: without it, a standby's timeline is the one of its last
/// checkpoint, and commits that wait for standbys are not seen. The functions of the control file are everybody's.
const WATCHES: &str = "
    create role app login;
    grant pg_read_all_stats to app;
    grant select, insert, update on notes to app";

/// To tell losses, which is to know where timelines have forked: one of these.
const READS_HISTORY: [&str; 2] = [
    "grant usage on schema ryw to app; grant execute on function ryw.timeline_history(text) to app",
    "grant execute on function pg_read_file(text, bigint, bigint, boolean) to app",
];

/// A pool of that role, over a cluster whose standbys have the role too.
async fn start(cluster: Cluster) -> World {
    let url = |url: String| url.replace("//ryw@", "//app@");
    let primary = RywPool::builder().primary(url(cluster.primary().url()));
    let pool = cluster.standbys().iter().fold(primary, |pool, one| pool.replica_named(one.name(), url(one.url())));
    for standby in cluster.standbys() {
        let there = async || standby.psql("select count(*) from pg_roles where rolname = 'app'").unwrap() == "1";
        until("the role is there", there).await;
    }
    let world = World::over(cluster, pool, Router::new(), |layer| layer).await;
    world.caught_up().await;
    let user = world.pool.get().await.unwrap().query_one("select current_user::text", &[]).await.unwrap();
    assert_eq!(user.get::<_, String>(0), "app");
    world
}

/// The first standby takes over, and like these others has not got the last write of the session `me`.
async fn lose_a_write(world: &mut World, others: &[&str]) {
    world.service.read("me", "none").await;
    world.service.put("me", "note", 1).await;
    until_shown(world.standby(), "note", 1).await;
    until("the replica serves", async || world.service.read("me", "note").await.node() == Some("r1")).await;
    for name in others.iter().chain(&["r1"]) {
        world.cluster.server_mut(name).unwrap().stop_fast().unwrap();
    }
    world.service.put("me", "note", 2).await;
    if let Some(ahead) = world.cluster.server("r3") {
        until_shown(ahead, "note", 2).await;
    }
    world.cluster.primary_mut().kill().unwrap();
    for name in others.iter().chain(&["r1"]) {
        world.cluster.server_mut(name).unwrap().start().unwrap();
    }
    world.standby().promote().unwrap();
    let leads = |world: &World| {
        let view = world.pool.topology().view();
        view.primary().is_some_and(|node| node.name().as_str() == "r1")
    };
    until("it leads", async || leads(world)).await;
}

#[tokio::test]
async fn the_documented_grants_are_enough_to_tell_a_loss() {
    for reads_history in READS_HISTORY {
        let cluster = launch(Cluster::builder().standby(Standby::named("r1"))).await;
        let primary = cluster.primary();
        if reads_history.contains("ryw.") {
            primary.psql(HELPERS).unwrap();
        }
        primary.psql(&format!("{WATCHES}; {reads_history}")).unwrap();
        let mut world = start(cluster).await;
        lose_a_write(&mut world, &[]).await;
        until("the loss is told", async || {
            let read = world.service.read("me", "note").await;
            read.headers.contains_key("ryw-lost") && read.value() == Some(1)
        })
        .await;
        world.service.put("other", "other", 1).await;
        assert_eq!(world.service.read("other", "other").await.value(), Some(1));
    }
}

#[tokio::test]
async fn the_helper_reads_nothing_but_histories() {
    let cluster = launch(Cluster::builder()).await;
    let primary = cluster.primary();
    primary.psql(&format!("{HELPERS}; {WATCHES}; {}", READS_HISTORY[0])).unwrap();
    let (client, connection) = connect(&primary.url().replace("//ryw@", "//app@"), NoTls).await.unwrap();
    tokio::spawn(connection);
    let row = client.query_one("select current_setting('data_directory')", &[]).await;
    assert!(row.is_err(), "not what it has to be: a role that may do all");
    for name in ["00000001", "../PG_VERSION", "0000000G", "", "00000002\n", "../../../etc/passwd\0"] {
        let read = client.query_one("select ryw.timeline_history($1)", &[&name]).await;
        let file = read.map(|row| row.get::<_, Option<String>>(0));
        assert!(!matches!(file, Ok(Some(_))), "{name:?}: {file:?}");
    }
    assert!(client.query_one("select pg_read_file('PG_VERSION')", &[]).await.is_err());
    // Nobody else.
    primary.psql("create role other login").unwrap();
    let (other, connection) = connect(&primary.url().replace("//ryw@", "//other@"), NoTls).await.unwrap();
    tokio::spawn(connection);
    assert!(other.query_one("select ryw.timeline_history('00000001')", &[]).await.is_err());
}

#[tokio::test]
async fn without_the_history_nothing_older_is_served_by_replicas() {
    let standbys = ["r1", "r2", "r3"].map(Standby::named);
    let cluster = launch(standbys.into_iter().fold(Cluster::builder(), ClusterBuilder::standby)).await;
    cluster.primary().psql(WATCHES).unwrap();
    let mut world = start(cluster).await;
    lose_a_write(&mut world, &["r2"]).await;
    world.cluster.follow("r2", "r1").unwrap();
    // The third has left the history, and nobody can tell.
    let anybody = async || {
        let read = world.service.get("anybody", "/notes/note", "EVENTUAL").await;
        assert!(read.value() == Some(1) && read.node() != Some("r3"), "{read:?}");
        read.node() == Some("r2")
    };
    until("the other one serves", anybody).await;
    for _ in 0..20 {
        anybody().await;
        let read = world.service.read("me", "note").await;
        assert_eq!((read.value(), read.served().0), (Some(1), "primary"), "{read:?}");
    }
    assert_eq!(shown(world.cluster.server("r3").unwrap(), "note"), Some(2), "a chance to show what is lost");
    // Marks from after it are as good as ever.
    world.service.put("me-too", "note", 3).await;
    until("it serves whoever came later", async || {
        let read = world.service.read("me-too", "note").await;
        assert_eq!(read.value(), Some(3), "{read:?}");
        read.node() == Some("r2")
    })
    .await;
}

#[tokio::test]
async fn waiting_commits_are_seen_without_a_superuser() {
    let cluster = launch(Cluster::builder().standby(Standby::named("r1"))).await;
    cluster.primary().psql(WATCHES).unwrap();
    let world = start(cluster).await;
    let visible = || {
        let view = world.pool.topology().view();
        let primary = view.primary().unwrap();
        (primary.visible().map(Position::offset), primary.applied().map(Position::offset))
    };
    world.cluster.synchronous("zzz").unwrap();
    let (url, service) = (world.cluster.primary().url(), world.service.clone());
    // By another role than the pool's.
    let (client, connection) = connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let writing = tokio::spawn(async move { client.batch_execute("insert into notes values ('note', 1)").await });
    until_shown(world.standby(), "note", 1).await;
    until("the wait is seen", async || {
        let (visible, applied) = visible();
        visible.is_some() && visible < applied
    })
    .await;
    world.cluster.synchronous("").unwrap();
    writing.await.unwrap().unwrap();
    until("it is over", async || visible().0 == visible().1).await;
    assert_eq!(service.read("me", "note").await.value(), Some(1));
}

#[tokio::test]
async fn what_was_seen_does_not_vanish_where_waiting_commits_are_hidden() {
    let cluster = launch(Cluster::builder().standby(Standby::named("r1"))).await;
    cluster.primary().psql(WORKS).unwrap();
    let mut world = start(cluster).await;
    let monotonic = async |world: &World| world.service.get("me", "/notes/note", "MONOTONIC").await;
    world.service.read("me", "none").await;
    world.service.put("writer", "note", 1).await;
    until_shown(world.standby(), "note", 1).await;
    world.cluster.synchronous("zzz").unwrap();
    // Another service, whose waits the pool's role does not see.
    let (client, connection) = connect(&world.cluster.primary().url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let writing = tokio::spawn(async move { client.batch_execute("update notes set value = 2").await });
    until_shown(world.standby(), "note", 2).await;
    assert_eq!(shown(world.cluster.primary(), "note"), Some(1), "a chance to go back in time");
    until("the session has seen it", async || monotonic(&world).await.value() == Some(2)).await;
    world.cluster.server_mut("r1").unwrap().kill().unwrap();
    let is_down = || world.pool.topology().view().nodes()[1].state() == NodeState::Down;
    until("nobody has it but the primary", async || is_down()).await;
    for _ in 0..10 {
        let read = monotonic(&world).await;
        assert!(read.status.is_server_error() || read.value() == Some(2), "{read:?}");
    }
    world.cluster.synchronous("").unwrap();
    writing.await.unwrap().unwrap();
    until("the primary shows it", async || monotonic(&world).await.status.is_success()).await;
    assert_eq!(monotonic(&world).await.value(), Some(2));
}

#[tokio::test]
async fn a_history_that_is_not_there_is_looked_for_again() {
    let cluster = launch(Cluster::builder().standby(Standby::named("r1"))).await;
    let primary = cluster.primary();
    primary.psql(&format!("{HELPERS}; {WATCHES}; {}", READS_HISTORY[0])).unwrap();
    let helper = "create or replace function ryw.timeline_history(timeline text) returns text language sql as";
    primary.psql(&format!("{helper} 'select null::text'")).unwrap();
    let mut world = start(cluster).await;
    lose_a_write(&mut world, &[]).await;
    for _ in 0..20 {
        let read = world.service.read("me", "note").await;
        assert_eq!((read.value(), read.served().0, read.lost()), (Some(1), "primary", None), "{read:?}");
    }
    world.standby().psql(HELPERS).unwrap();
    until("the loss is told", async || world.service.read("me", "note").await.lost().is_some()).await;
}
