//! What a connection shows contains what its request must see, whatever is behind its address.

use std::{process::Command, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode, header::CACHE_CONTROL},
    routing::{get, put},
};
use ryw_postgres::{
    Builder, RywPool,
    tokio_postgres::{IsolationLevel, types::PgLsn},
};
use ryw_testing::{
    proxy::{Balance, Proxy},
    servers::postgres::{Cluster, ClusterBuilder, Standby},
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep},
};
use tower::ServiceExt;
use tower_ryw::{Position, RywContext, RywLayer, topology::NodeState};

use crate::world::{World, address, at_once, behind, launch, pause, resume, select, shown, until, until_shown, upsert};

fn standbys(count: usize) -> ClusterBuilder {
    let standbys = (1..=count).map(|number| Standby::named(format!("r{number}")));
    standbys.fold(Cluster::builder(), ClusterBuilder::standby)
}

/// A primary, and one replica behind a proxy.
async fn behind_a_proxy(cluster: Cluster, name: &str, proxy: &Proxy) -> World {
    let pool = RywPool::builder().primary(cluster.primary().url()).replica_named(name, behind(proxy));
    let world = World::over(cluster, pool, Router::new(), |layer| layer).await;
    world.caught_up().await;
    world
}

/// Reads that a router which does not ask the connection would have served stale, and those that a replica served.
#[derive(Debug, Default)]
struct Chances {
    stale: usize,
    offloaded: usize,
}

impl Chances {
    /// Many reads at once, so that many connections are used.
    async fn read(&mut self, world: &World, value: i64) {
        for read in at_once(8, || world.service.reading("me", "note", "RYW")).await {
            assert_eq!(read.value(), Some(value), "{read:?}");
            self.offloaded += usize::from(read.node().is_some());
        }
        for read in at_once(8, || world.service.reading("me", "note", "EVENTUAL")).await {
            self.stale += usize::from(read.value() != Some(value));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_probe_a_read_b() {
    let cluster = launch(standbys(2)).await;
    let proxy = Proxy::start(cluster.standbys().iter().map(address)).await.unwrap();
    proxy.balance(Balance::RoundRobin);
    let world = behind_a_proxy(cluster, "both", &proxy).await;
    let [r1, r2] = world.cluster.standbys() else { panic!("two standbys") };

    // The watcher reads one of them; both ways, so that in one of them it is the one that goes on.
    let mut value = 0;
    let mut chances = Chances::default();
    for (paused, fresh) in [(r1, r2), (r2, r1)] {
        value += 1;
        world.service.put("me", "note", value).await;
        until_shown(paused, "note", value).await;
        pause(paused).await;
        for _ in 0..10 {
            value += 1;
            world.service.put("me", "note", value).await;
            until_shown(fresh, "note", value).await;
            chances.read(&world, value).await;
        }
        resume(paused);
        until_shown(paused, "note", value).await;
    }
    assert!(chances.stale >= 20 && chances.offloaded >= 20, "{chances:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_another_server_behind_the_name() {
    let cluster = launch(standbys(2)).await;
    let proxy = Proxy::start([address(&cluster.standbys()[0])]).await.unwrap();
    let world = behind_a_proxy(cluster, "r", &proxy).await;
    let [fresh, late] = world.cluster.standbys() else { panic!("two standbys") };
    world.service.put("me", "note", 1).await;
    until_shown(late, "note", 1).await;
    until("a connection is there to be kept", async || world.service.read("me", "note").await.node().is_some()).await;
    pause(late).await;

    // Connections that are there, the watcher's among them, stay with the first server; new ones lead to the other.
    proxy.retarget([address(late)]);
    let mut chances = Chances::default();
    for value in 2..=11 {
        world.service.put("me", "note", value).await;
        until_shown(fresh, "note", value).await;
        chances.read(&world, value).await;
    }
    assert!(chances.stale >= 10 && chances.offloaded >= 5, "{chances:?}");

    // All lead to the other, at first without the watcher's knowledge.
    proxy.reset_all();
    for value in 12..=21 {
        world.service.put("me", "note", value).await;
        chances.read(&world, value).await;
    }
    let of_late = async || world.service.get("me", "/notes/note", "EVENTUAL").await.value() == Some(1);
    until("the other server is used", of_late).await;
    assert_eq!(world.service.read("me", "note").await.served(), ("primary", "behind"));
    resume(late);
    until("it serves once it has caught up", async || world.service.read("me", "note").await.node().is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_old_copy_on_the_same_port() {
    let mut cluster = launch(standbys(1)).await;
    let upstream = Proxy::start([address(cluster.primary())]).await.unwrap();
    cluster.reconnect("r1", upstream.port()).unwrap();
    let old = cluster.server_mut("r1").unwrap().save().unwrap();
    let pool = RywPool::builder().primary(cluster.primary().url()).replica_named("r1", cluster.standbys()[0].url());
    let mut world = World::over(cluster, pool, Router::new(), |layer| layer).await;
    for value in 1..=5 {
        world.service.put("me", "note", value).await;
    }
    until("the replica has served this very mark", async || {
        world.service.read("me", "note").await.node() == Some("r1")
    })
    .await;

    // It is read all the time while the server is replaced.
    let stop = Arc::new(Semaphore::new(0));
    let reads = {
        let (service, stop) = (world.service.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut count = 0;
            while stop.available_permits() == 0 {
                let read = service.get("me", "/notes/note", "RYW").await;
                // Whoever is on the server when it stops gets an error.
                assert!(read.status.is_server_error() || read.value() == Some(5), "{read:?}");
                count += 1;
            }
            count
        })
    };
    upstream.refuse();
    upstream.reset_all();
    world.cluster.server_mut("r1").unwrap().restore(&old).unwrap();
    let stale = async || {
        let read = world.service.get("me", "/notes/note", "EVENTUAL").await;
        read.node() == Some("r1") && read.status != StatusCode::OK
    };
    until("the old copy serves those who don't mind", stale).await;
    for _ in 0..50 {
        let read = world.service.read("me", "note").await;
        assert_eq!((read.value(), read.served()), (Some(5), ("primary", "behind")), "{read:?}");
    }
    upstream.heal();
    until("it serves once it has caught up", async || world.service.read("me", "note").await.node().is_some()).await;
    stop.add_permits(1);
    assert!(reads.await.unwrap() > 20);
}

/// One of a standby's processes crashes, and all others are started again: what was read before says nothing about what it
/// shows while it recovers. The postmaster lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_a_standby_that_has_crashed_and_recovers() {
    let cluster = Cluster::builder()
        .primary_setting("max_wal_size", "20GB")
        .primary_setting("checkpoint_timeout", "1h")
        .standby(Standby::named("r1"));
    // The watcher is not soon to notice.
    let rarely = |_: &Cluster, pool: Builder| pool.poll_interval(Duration::from_secs(4));
    let world = World::start_with(cluster, Router::new(), rarely, |layer| layer).await;
    world.service.put("me", "note", 1).await;
    until_shown(world.standby(), "note", 1).await;
    world.psql("primary", "checkpoint");
    world.psql("r1", "checkpoint");
    // Something to recover from.
    let much = "select count(pg_logical_emit_message(false, 'x', repeat('x', 10000000))) from generate_series(1, 100)";
    world.psql("primary", much);
    world.service.put("me", "note", 2).await;
    until_shown(world.standby(), "note", 2).await;
    let topology = world.pool.topology();
    let run = || topology.view().nodes()[1].incarnation();
    let postmaster = || world.psql("r1", "select pg_postmaster_start_time()");
    for sample in [topology.sample_node(&"r1".into()), topology.sample_primary()] {
        sample.await.unwrap();
    }
    until("it serves", async || world.service.read("me", "note").await.node() == Some("r1")).await;

    let before = (run(), postmaster());
    let victim = world.psql("r1", "select pid from pg_stat_activity where backend_type = 'background writer'");
    assert!(Command::new("kill").args(["-9", &victim]).status().unwrap().success());
    let (since, mut served) = (Instant::now(), 0);
    while since.elapsed() < Duration::from_secs(6) {
        let read = world.service.read("me", "note").await;
        assert!(read.status.is_server_error() || read.value() == Some(2), "after {:?}: {read:?}", since.elapsed());
        served += usize::from(read.status.is_success());
        sleep(Duration::from_millis(2)).await;
    }
    assert!(served > 0);
    until("it has been read again", async || world.state("r1") == NodeState::Replica && run() != before.0).await;
    assert_eq!(postmaster(), before.1, "the whole server was started again");
}

#[tokio::test]
async fn f16_received_is_not_replayed() {
    let world = World::with_standbys(1).await;
    world.service.put("me", "note", 0).await;
    world.pause_replay().await;
    let received = |at: &str| {
        let query = format!("select pg_last_wal_receive_lsn() >= '{at}'");
        world.standby().psql(&query).unwrap() == "t"
    };
    for value in 1..=10 {
        world.service.put("me", "note", value).await;
        let at = world.cluster.primary().psql("select pg_current_wal_flush_lsn()").unwrap();
        until("the standby has received it", async || received(&at)).await;
        // Newer than what was received, so that the watcher has met it.
        let topology = world.pool.topology();
        topology.sample_node(&"r1".into()).await.unwrap();
        let read = world.service.read("me", "note").await;
        assert_eq!((read.value(), read.served().0), (Some(value), "primary"), "{read:?}");
        assert_eq!(shown(world.standby(), "note"), Some(0), "a chance to be stale");
    }
}

#[tokio::test]
async fn f29_the_one_ahead_serves() {
    let world = World::with_standbys(2).await;
    let [r1, r2] = world.cluster.standbys() else { panic!("two standbys") };
    let mut value = 0;
    for (behind, ahead) in [(r1, r2), (r2, r1), (r1, r2)] {
        value += 1;
        world.service.put("me", "note", value).await;
        until_shown(behind, "note", value).await;
        pause(behind).await;
        value += 1;
        world.service.put("me", "note", value).await;
        // Further ahead than what is asked for, so that the two comparisons differ.
        world.service.put("other", "other", value).await;
        until_shown(ahead, "other", value).await;
        until("the one ahead serves", async || world.service.read("me", "note").await.node() == Some(ahead.name()))
            .await;
        for _ in 0..20 {
            let read = world.service.read("me", "note").await;
            assert_eq!((read.value(), read.node()), (Some(value), Some(ahead.name())), "{read:?}");
        }
        resume(behind);
    }
}

#[tokio::test]
async fn f33_a_read_is_never_older_than_the_last() {
    let world = World::with_standbys(2).await;
    let [r1, r2] = world.cluster.standbys() else { panic!("two standbys") };
    for session in ["me", "writer", "anybody"] {
        world.service.read(session, "none").await;
    }
    world.service.put("writer", "note", 0).await;
    let (mut value, mut tempted) = (0, 0);
    for _ in 0..3 {
        for (late, fresh) in [(r1, r2), (r2, r1)] {
            until_shown(late, "note", value).await;
            until_shown(fresh, "note", value).await;
            world.caught_up().await;
            pause(late).await;
            value += 1;
            world.service.put("writer", "note", value).await;
            until_shown(fresh, "note", value).await;
            let mut last = value - 1;
            for _ in 0..20 {
                let read = world.service.get("me", "/notes/note", "MONOTONIC").await;
                assert!(read.value() >= Some(last), "{last} was seen before {read:?}");
                last = read.value().unwrap();
                let anybody = world.service.get("anybody", "/notes/note", "EVENTUAL").await;
                tempted += usize::from(anybody.value() < Some(last));
            }
            assert_eq!(last, value, "20 reads, and none on the fresh one");
            resume(late);
        }
    }
    assert!(tempted >= 20, "{tempted}");
}

/// Holds a request between its connection and its query.
#[derive(Debug, Default)]
struct Barrier {
    there: Notify,
    go: Notify,
}

async fn late_read(
    State(pool): State<RywPool>,
    Extension(barrier): Extension<Arc<Barrier>>,
    Path((node, key)): Path<(String, String)>,
) -> Result<String, StatusCode> {
    let client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    if client.node().as_str() != node {
        return Err(StatusCode::NOT_FOUND);
    }
    barrier.there.notify_one();
    barrier.go.notified().await;
    let value = select(&client, &key).await?;
    value.map(|value| value.to_string()).ok_or(StatusCode::NOT_FOUND)
}

#[tokio::test]
async fn f34_the_read_mark_is_sampled_after_the_snapshot() {
    let barrier = Arc::new(Barrier::default());
    let routes = Router::new().route("/late/{node}/{key}", get(late_read)).layer(Extension(Arc::clone(&barrier)));
    let world = World::start(standbys(2), routes, 10).await;
    let [r1, r2] = world.cluster.standbys() else { panic!("two standbys") };
    for session in ["me", "writer", "anybody"] {
        world.service.read(session, "none").await;
    }
    let mut tempted = 0;
    for value in 1..=5 {
        world.caught_up().await;
        pause(r2).await;
        // Its connection is there, and admitted, before the write.
        let reading = loop {
            let service = world.service.clone();
            let mut reading = tokio::spawn(async move { service.get("me", "/late/r1/note", "MONOTONIC").await });
            tokio::select! {
                () = barrier.there.notified() => break reading,
                reply = &mut reading => assert_ne!(reply.unwrap().node(), Some("r1")),
            }
        };
        world.service.put("writer", "note", value).await;
        until_shown(r1, "note", value).await;
        barrier.go.notify_one();
        let read = reading.await.unwrap();
        assert_eq!((read.value(), read.node()), (Some(value), Some("r1")), "{read:?}");
        for _ in 0..20 {
            let read = world.service.get("me", "/notes/note", "MONOTONIC").await;
            assert_eq!(read.value(), Some(value), "seen before, and gone: {read:?}");
            let anybody = world.service.get("anybody", "/notes/note", "EVENTUAL").await;
            tempted += usize::from(anybody.value() != Some(value));
        }
        resume(r2);
    }
    assert!(tempted >= 20, "{tempted}");
}

/// Tells the position of its write itself, and is held before its response.
async fn write_and_tell(
    State(pool): State<RywPool>,
    context: RywContext,
    Extension(barrier): Extension<Arc<Barrier>>,
    Path(key): Path<String>,
) -> StatusCode {
    let client = pool.get().await.unwrap();
    upsert(&client, &key, 1).await;
    let flushed: PgLsn = client.query_one("select pg_current_wal_flush_lsn()", &[]).await.unwrap().get(0);
    let place = pool.topology().view().primary().unwrap().applied().unwrap();
    context.mark_written_at(Position::new(place.cluster(), place.epoch(), flushed.into()));
    if key == "first" {
        barrier.there.notify_one();
        barrier.go.notified().await;
    }
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn f15_two_tabs_write_at_once() {
    let barrier = Arc::new(Barrier::default());
    let routes = Router::new().route("/tell/{key}", put(write_and_tell)).layer(Extension(Arc::clone(&barrier)));
    let world = World::start(standbys(1), routes, 10).await;
    world.service.read("me", "none").await;
    let write = |key: &str| {
        let request = Request::put(format!("/tell/{key}")).header("x-session-id", "me").body(Body::empty()).unwrap();
        let service = world.service.clone();
        tokio::spawn(async move { service.send(request).await })
    };
    let first = write("first");
    barrier.there.notified().await;
    until_shown(world.standby(), "first", 1).await;
    world.pause_replay().await;
    // Commits after the first, and its mark is there before the first's.
    assert_eq!(write("second").await.unwrap().status, StatusCode::NO_CONTENT);
    barrier.go.notify_one();
    assert_eq!(first.await.unwrap().status, StatusCode::NO_CONTENT);
    assert_eq!(shown(world.standby(), "second"), None, "a chance to be stale");
    for key in ["first", "second"] {
        let read = world.service.read("me", key).await;
        assert_eq!((read.value(), read.served()), (Some(1), ("primary", "behind")), "{read:?}");
    }
}

/// Takes a snapshot that stays, and is dropped with it.
async fn hold_a_snapshot(State(pool): State<RywPool>, Extension(barrier): Extension<Arc<Barrier>>) {
    let mut client = pool.get().await.unwrap();
    let transaction = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = transaction.start().await.unwrap();
    transaction.query_one("select count(*) from notes", &[]).await.unwrap();
    barrier.there.notify_one();
    barrier.go.notified().await;
}

async fn read_in_a_transaction(State(pool): State<RywPool>, Path(key): Path<String>) -> Result<String, StatusCode> {
    let mut client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let transaction = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = transaction.start().await.unwrap();
    let row = transaction.query_opt("select value from notes where key = $1", &[&key]).await.unwrap();
    row.map(|row| row.get::<_, i64>(0).to_string()).ok_or(StatusCode::NOT_FOUND)
}

#[tokio::test]
async fn f18_no_snapshot_is_older_than_the_gate() {
    let barrier = Arc::new(Barrier::default());
    let routes = Router::new()
        .route("/hold", get(hold_a_snapshot))
        .route("/transaction/{key}", get(read_in_a_transaction))
        .layer(Extension(Arc::clone(&barrier)));
    // One connection: whoever comes next gets the same.
    let world = World::start(standbys(1), routes, 1).await;
    world.service.put("me", "note", 0).await;
    let mut by_replica = 0;
    for value in 1..=20 {
        let service = world.service.clone();
        let holding = tokio::spawn(async move { service.get("other", "/hold", "EVENTUAL").await });
        barrier.there.notified().await;
        world.service.put("me", "note", value).await;
        until_shown(world.standby(), "note", value).await;
        world.caught_up().await;
        if value % 2 == 0 {
            // It ends without a commit; otherwise it is cut short.
            barrier.go.notify_one();
            assert_eq!(holding.await.unwrap().node(), Some("r1"));
        } else {
            holding.abort();
            assert!(holding.await.unwrap_err().is_cancelled());
        }
        for path in ["/notes/note", "/transaction/note"] {
            let read = world.service.get("me", path, "RYW").await;
            assert_eq!(read.value(), Some(value), "{path} {read:?}");
            by_replica += usize::from(read.node().is_some());
        }
    }
    assert!(by_replica >= 30, "{by_replica}");

    world.pause_replay().await;
    for value in 21..=30 {
        world.service.put("me", "note", value).await;
        let read = world.service.get("me", "/transaction/note", "RYW").await;
        assert_eq!((read.value(), read.served()), (Some(value), ("primary", "behind")), "{read:?}");
    }
}

#[tokio::test]
async fn f32_what_carries_a_token_is_private() {
    let cached = async || [(CACHE_CONTROL, "public, max-age=60, s-maxage=600")];
    let routes: Router = Router::new().route("/", put(cached));
    let reply = routes.layer(RywLayer::new()).oneshot(Request::put("/").body(Body::empty()).unwrap()).await.unwrap();
    assert!(reply.headers().contains_key("ryw-token"), "{reply:?}");
    assert_eq!(reply.headers()[CACHE_CONTROL], "max-age=60, private", "{reply:?}");
}
