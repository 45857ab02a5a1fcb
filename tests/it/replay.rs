//! What a replica refuses or breaks off is done again elsewhere, once, and seen by its session.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    routing::get,
};
use ryw_postgres::{RywConnection, RywPool, note_error};
use ryw_testing::servers::postgres::{Cluster, Server, Standby};
use tower_ryw::ReplayLayer;

use crate::world::{Reply, UPSERT, World, pause, resume, shown, until, until_shown};

/// How often a handler was called.
type Calls = Arc<AtomicUsize>;

/// One statement: the pool runs it again by itself.
async fn statement(State(pool): State<RywPool>, Path(key): Path<String>) -> StatusCode {
    assert_eq!(pool.execute(UPSERT, &[&key, &1_i64]).await.unwrap(), 1);
    StatusCode::OK
}

/// Errors are told as an application would.
async fn whole(State(pool): State<RywPool>, Extension(calls): Extension<Calls>, Path(key): Path<String>) -> StatusCode {
    calls.fetch_add(1, Relaxed);
    let client = pool.get().await.unwrap();
    match client.execute(UPSERT, &[&key, &1_i64]).await {
        Ok(_) => StatusCode::OK,
        Err(error) => {
            note_error(&error);
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// It makes do without the write.
async fn content(pool: State<RywPool>, calls: Extension<Calls>, key: Path<String>) -> StatusCode {
    whole(pool, calls, key).await;
    StatusCode::OK
}

struct Fixture {
    world: World,
    calls: Calls,
}

impl Fixture {
    async fn start() -> Self {
        let calls = Calls::default();
        let routes = Router::new()
            .route("/statement/{key}", get(statement))
            .route("/whole/{key}", get(whole))
            .route("/content/{key}", get(content))
            .layer(Extension(Arc::clone(&calls)))
            .layer(ReplayLayer::new());
        let world = World::start(Cluster::builder().standby(Standby::named("r1")), routes, 10).await;
        // Seen before, so that a replica may serve it.
        world.service.read("me", "none").await;
        world.pause_replay().await;
        Self { world, calls }
    }

    async fn send(&self, path: &str, body: &'static str) -> Reply {
        let request = Request::get(path).header("x-session-id", "me").body(Body::from(body)).unwrap();
        self.world.service.send(request).await
    }
}

#[tokio::test]
async fn a_read_that_writes_is_made_again_on_the_primary_and_marked() {
    for (path, calls) in [("/statement/note", 0), ("/whole/note", 2)] {
        let test = Fixture::start().await;
        let world = &test.world;
        let reply = test.send(path, "").await;
        assert_eq!((reply.status, reply.served()), (StatusCode::OK, ("primary", "replayed")), "{path} {reply:?}");
        assert!(reply.headers.contains_key("ryw-token"), "{path} {reply:?}");
        assert_eq!(test.calls.load(Relaxed), calls, "{path}");
        assert_eq!(shown(world.cluster.primary(), "note"), Some(1));
        assert_eq!(shown(world.standby(), "note"), None, "a chance to be stale");
        let read = world.service.read("me", "note").await;
        assert_eq!((read.value(), read.served()), (Some(1), ("primary", "behind")), "{path} {read:?}");
    }
}

#[tokio::test]
async fn what_has_a_body_or_was_answered_is_not_made_again() {
    let test = Fixture::start().await;
    let body = test.send("/whole/note", "a body, which is gone").await;
    assert_eq!((body.status, body.node()), (StatusCode::INTERNAL_SERVER_ERROR, Some("r1")), "{body:?}");
    assert_eq!(test.calls.swap(0, Relaxed), 1);
    let answered = test.send("/content/note", "").await;
    assert_eq!((answered.status, answered.node()), (StatusCode::OK, Some("r1")), "{answered:?}");
    assert_eq!(test.calls.load(Relaxed), 1);
    assert_eq!(shown(test.world.cluster.primary(), "note"), None);
    assert_eq!(test.world.service.read("me", "note").await.served().0, "replica", "nothing was written");
}

/// Takes long on the first standby, and no time elsewhere.
const SLOW: &str = "select value from notes
    where key = $1 and case current_setting('cluster_name') when 'r1' then pg_sleep(30) is not null else true end";

async fn slow_statement(State(pool): State<RywPool>, Path(key): Path<String>) -> String {
    let rows = pool.query(SLOW, &[&key]).await.unwrap();
    rows[0].get::<_, i64>(0).to_string()
}

async fn slow_whole(State(pool): State<RywPool>, Path(key): Path<String>) -> Result<String, StatusCode> {
    let client: RywConnection = pool.get().await.unwrap();
    let row = client.query_one(SLOW, &[&key]).await.map_err(|error| {
        client.note_error(&error);
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    Ok(row.get::<_, i64>(0).to_string())
}

fn count(server: &Server, query: &str) -> usize {
    server.psql(&format!("select count(*) from {query}")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn f28_a_recovery_conflict_passes_the_gate_again() {
    let routes = Router::new()
        .route("/slow-statement/{key}", get(slow_statement))
        .route("/slow-whole/{key}", get(slow_whole))
        .layer(ReplayLayer::new());
    let impatient = Standby::named("r1").setting("max_standby_streaming_delay", "0");
    let cluster = Cluster::builder().standby(impatient).standby(Standby::named("r2"));
    let world = World::start(cluster, routes, 10).await;
    let (primary, [r1, r2]) = (world.cluster.primary(), world.cluster.standbys()) else { panic!("two standbys") };
    primary.psql("create table dead (n int)").unwrap();
    let mut value = 0;
    for (other_is_late, path) in [
        (true, "/slow-statement/note"),
        (true, "/slow-whole/note"),
        (false, "/slow-statement/note"),
        (false, "/slow-whole/note"),
    ] {
        value += 1;
        world.service.put("me", "note", value).await;
        until_shown(r2, "note", value).await;
        if other_is_late {
            pause(r2).await;
        }
        value += 1;
        world.service.put("me", "note", value).await;
        until_shown(r1, "note", value).await;
        if !other_is_late {
            until_shown(r2, "note", value).await;
        }
        primary.psql("insert into dead select generate_series(1, 1000)").unwrap();
        world.service.read("me", "note").await;
        let reading = loop {
            let service = world.service.clone();
            let reading = tokio::spawn(async move { service.get("me", path, "RYW").await });
            let sleeps = || count(r1, "pg_stat_activity where wait_event = 'PgSleep'") == 1;
            until("it is on the first standby, or done", async || sleeps() || reading.is_finished()).await;
            if !reading.is_finished() {
                break reading;
            }
        };
        primary.psql("delete from dead").unwrap();
        primary.psql("vacuum dead").unwrap();
        let read = reading.await.unwrap();
        assert_eq!(read.value(), Some(value), "{path} {read:?}");
        if other_is_late {
            assert_eq!(read.served().0, "primary", "{path} {read:?}");
            assert_eq!(shown(r2, "note"), Some(value - 1), "a chance to be stale");
            resume(r2);
        } else {
            assert_eq!(read.node(), Some("r2"), "{path} {read:?}");
        }
    }
    // In the words of the server, which writes them down before its client hears of it.
    let log = r1.log();
    let cancelled = log.split("ERROR:  canceling statement due to conflict with recovery").skip(1);
    let sleeping = cancelled.filter(|after| after.split("LOG:  ").next().is_some_and(|said| said.contains("pg_sleep")));
    assert_eq!(sleeping.count(), 4, "{log}");
}

async fn count_and_read(State(pool): State<RywPool>, Path(key): Path<String>) -> Result<String, StatusCode> {
    pool.execute("update notes set value = value + 1 where key = $1", &[&key])
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    let rows =
        pool.query("select value from notes where key = $1", &[&key]).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(rows[0].get::<_, i64>(0).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_read_has_written_it_sees_itself() {
    let routes = Router::new().route("/count/{key}", get(count_and_read));
    let world = World::start(Cluster::builder().standby(Standby::named("r1")), routes, 10).await;
    world.service.put("other", "note", 1).await;
    world.caught_up().await;
    world.service.read("me", "none").await;
    world.pause_replay().await;
    let read = world.service.get("me", "/count/note", "RYW").await;
    assert_eq!(read.value(), Some(2), "{read:?}");
}
