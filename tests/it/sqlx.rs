//! Code that was written for sqlx's own pool follows its request, and never reads what is stale.

use std::{future::Future, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use ryw_postgres::{
    RywSqlxPool, SqlxOptions, note_sqlx_error,
    sqlx::{
        self, Acquire, Error, Executor, PgConnection, Postgres, Row,
        postgres::{PgPoolOptions, PgRow},
    },
};
use ryw_testing::{
    proxy::Proxy,
    servers::postgres::{Cluster, ClusterBuilder, Server, Standby},
};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;
use tower_ryw::{Level, ReplayLayer, RywContext, RywLayer, topology::NodeView};

use crate::world::{DEADLINE, Reply, until};

const UPSERT: &str = "insert into notes values ($1, $2) on conflict (key) do update set value = excluded.value";
const SELECT: &str = "select value from notes where key = $1";
const IS_STANDBY: &str = "select pg_is_in_recovery()";

/// Servers, and a service whose handlers think that they have a `PgPool`.
struct World {
    app: Router,
    pool: RywSqlxPool,
    cluster: Cluster,
}

impl World {
    async fn start(standbys: usize, routes: Router<RywSqlxPool>) -> Self {
        let cluster = start(standbys).await;
        let replicas = cluster.standbys().iter().map(|node| (node.name().to_owned(), node.url())).collect();
        Self::over(cluster, replicas, routes).await
    }

    async fn over(cluster: Cluster, replicas: Vec<(String, String)>, routes: Router<RywSqlxPool>) -> Self {
        let builder = RywSqlxPool::builder().primary(cluster.primary().url());
        let builder = replicas.into_iter().fold(builder, |builder, (name, url)| builder.replica_named(name, url));
        let pool = builder.connect_sqlx(PgPoolOptions::new().max_connections(5)).await.unwrap();
        pool.execute("create table notes (key text primary key, value bigint not null)").await.unwrap();
        let layer = RywLayer::builder()
            .positions(pool.topology().clone())
            .level(Level::Eventual)
            .default_level(Level::ReadYourWrites)
            .build()
            .unwrap();
        let routes = routes.route("/notes/{key}", get(read).put(write));
        let app = routes.layer(ReplayLayer::new()).layer(layer).with_state(pool.clone());
        let world = Self { app, pool, cluster };
        world.caught_up().await;
        world
    }

    fn standby(&self) -> &Server {
        &self.cluster.standbys()[0]
    }

    /// Waits until the watchers have seen that all replicas have applied what the primary has now.
    async fn caught_up(&self) {
        let topology = self.pool.topology();
        let end = topology.sample_primary().await.expect("the primary answers").offset();
        let applied = |node: &NodeView| node.applied().is_some_and(|at| at.offset() >= end);
        until("replicas have caught up", async || topology.view().nodes().iter().all(applied)).await;
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let (parts, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn put(&self, session: &str, key: &str, value: i64) {
        let request = Request::put(format!("/notes/{key}")).header("x-session-id", session);
        let reply = self.send(request.body(value.to_string().into()).unwrap()).await;
        assert_eq!((reply.status, reply.served().0), (StatusCode::NO_CONTENT, "primary"), "{reply:?}");
    }

    async fn get(&self, session: &str, path: &str, level: &str) -> Reply {
        let request = Request::get(path).header("x-session-id", session).header("x-consistency-level", level);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn read(&self, session: &str, key: &str) -> Reply {
        self.get(session, &format!("/notes/{key}"), "RYW").await
    }
}

async fn start(standbys: usize) -> Cluster {
    let standbys = (1..=standbys).map(|number| Standby::named(format!("r{number}")));
    let builder = standbys.fold(Cluster::builder(), ClusterBuilder::standby);
    tokio::task::spawn_blocking(|| builder.start()).await.unwrap().unwrap()
}

async fn pause_replay(standby: &Server) {
    standby.psql("select pg_wal_replay_pause()").unwrap();
    let state = async || standby.psql("select pg_get_wal_replay_pause_state()").unwrap() == "paused";
    until("replay is paused", state).await;
}

/// What an application makes of errors.
struct Failed(Error);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        note_sqlx_error(&error);
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}

async fn write(State(pool): State<RywSqlxPool>, Path(key): Path<String>, value: String) -> Result<StatusCode, Failed> {
    let value: i64 = value.parse().unwrap();
    sqlx::query(UPSERT).bind(key).bind(value).execute(&pool).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn read(State(pool): State<RywSqlxPool>, Path(key): Path<String>) -> Result<Response, Failed> {
    let value: Option<(i64,)> = sqlx::query_as(SELECT).bind(key).fetch_optional(&pool).await?;
    Ok(value.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |(value,)| value.to_string().into_response()))
}

/// The first row of a stream, without a crate for streams.
async fn first(pool: &RywSqlxPool) -> Result<PgRow, Error> {
    let mut rows = pool.fetch(IS_STANDBY);
    let row = std::future::poll_fn(|cx| rows.as_mut().poll_next(cx)).await;
    row.unwrap()
}

async fn with_acquire<'a>(from: impl Acquire<'a, Database = Postgres>) -> Result<(bool, bool), Error> {
    let mut connection = from.acquire().await?;
    let first = sqlx::query_scalar(IS_STANDBY).fetch_one(&mut *connection).await?;
    let mut nested = sqlx::Connection::begin(&mut *connection).await?;
    Ok((first, sqlx::query_scalar(IS_STANDBY).fetch_one(&mut *nested).await?))
}

async fn with_executor(on: impl Executor<'_, Database = Postgres>) -> Result<bool, Error> {
    sqlx::query_scalar(IS_STANDBY).fetch_one(on).await
}

/// Whether it was a standby, in every way in which sqlx is used.
async fn every_way(pool: &RywSqlxPool) -> Result<Vec<bool>, Error> {
    let scalar: bool = sqlx::query_scalar(IS_STANDBY).fetch_one(pool).await?;
    let query = sqlx::query(IS_STANDBY).fetch_one(pool).await?.try_get(0)?;
    let all: Vec<(bool, i32)> = sqlx::query_as("select pg_is_in_recovery(), n from generate_series(1, $1) as n")
        .bind(100)
        .fetch_all(pool)
        .await?;
    assert_eq!(all.iter().map(|(_, n)| *n).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    let raw = sqlx::raw_sql("select 1; select pg_is_in_recovery()").fetch_all(pool).await?[1].try_get(0)?;
    let streamed = first(pool).await?.try_get(0)?;
    let prepared = pool.prepare(IS_STANDBY).await?;
    let prepared = sqlx::Statement::query_scalar::<bool>(&prepared).fetch_one(pool).await?;
    let mut transaction = pool.begin().await?;
    let first = sqlx::query_scalar(IS_STANDBY).fetch_one(&mut *transaction).await?;
    let second = sqlx::query_scalar(IS_STANDBY).fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    let acquired = with_acquire(pool).await?;
    let mut own = pool.acquire().await?;
    let own = with_executor(&mut *own).await?;
    Ok(vec![
        scalar,
        query,
        all[0].0,
        raw,
        streamed,
        prepared,
        first,
        second,
        acquired.0,
        acquired.1,
        own,
        with_executor(pool).await?,
    ])
}

/// `standby`, `primary`, or a mixture.
async fn who(State(pool): State<RywSqlxPool>) -> Result<String, Failed> {
    let ways = every_way(&pool).await?;
    Ok(match (ways.contains(&true), ways.contains(&false)) {
        (true, false) => "standby".into(),
        (false, true) => "primary".into(),
        _ => format!("{ways:?}"),
    })
}

async fn named(State(pool): State<RywSqlxPool>) -> Result<String, Failed> {
    Ok(format!("{} {}", with_executor(&pool.primary()).await?, with_executor(&pool.replica()).await?))
}

#[tokio::test]
async fn outside_of_any_request_it_is_the_primary() {
    let world = World::start(1, Router::new()).await;
    assert!(!every_way(&world.pool).await.unwrap().contains(&true));
    assert!(!every_way(&world.pool.primary()).await.unwrap().contains(&true));
    assert!(!every_way(&world.pool.replica()).await.unwrap().contains(&false));
    world.pool.close().await;
    assert!(matches!(every_way(&world.pool).await, Err(Error::PoolClosed)));
}

#[tokio::test]
async fn existing_code_follows_the_route() {
    let world = World::start(1, Router::new().route("/who", get(who)).route("/named", get(named))).await;
    until("the replica serves", async || {
        let reply = world.get("me", "/who", "RYW").await;
        let by_replica = reply.served().0 == "replica";
        assert_eq!(reply.body, if by_replica { "standby" } else { "primary" }, "{reply:?}");
        by_replica
    })
    .await;
    let reply = world.get("me", "/who", "STRONG").await;
    assert_eq!((reply.body.as_str(), reply.served().0), ("primary", "primary"), "{reply:?}");
    let reply = world.get("me", "/named", "RYW").await;
    assert_eq!((reply.body.as_str(), reply.served()), ("false true", ("primary", "write")), "{reply:?}");
}

async fn read_in_transaction(State(pool): State<RywSqlxPool>, Path(key): Path<String>) -> Result<String, Failed> {
    let mut transaction = pool.begin().await?;
    let value: i64 = sqlx::query_scalar(SELECT).bind(key).fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(value.to_string())
}

#[tokio::test]
async fn nothing_stale_beside_a_paused_replica() {
    const ROUNDS: i64 = 200;
    let world = World::start(2, Router::new().route("/tx/{key}", get(read_in_transaction))).await;
    world.put("me", "note", 0).await;
    world.caught_up().await;
    pause_replay(world.standby()).await;
    let mut by_replica = 0;
    for value in 1..=ROUNDS {
        world.put("me", "note", value).await;
        if value % 2 == 0 {
            // The other replica can serve as well.
            let r2 = &world.cluster.standbys()[1];
            let sees = async || r2.psql("select value from notes where key = 'note'").unwrap() == value.to_string();
            if value % 20 == 0 {
                until("the other replica has it", sees).await
            }
        }
        for path in ["/notes/note", "/tx/note"] {
            let read = world.get("me", path, "RYW").await;
            assert_eq!(read.value(), Some(value), "{read:?}");
            assert_ne!(read.node(), Some("r1"), "{read:?}");
            by_replica += usize::from(read.node() == Some("r2"));
        }
    }
    assert!(by_replica > 0, "the other replica serves");
    let stale = world.standby().psql("select value from notes where key = 'note'").unwrap();
    assert_eq!(stale, "0", "each of the {} reads could have been stale", 2 * ROUNDS);
}

/// Counts views, on a route that reads.
async fn visit(State(pool): State<RywSqlxPool>, Path(key): Path<String>) -> Result<String, Failed> {
    let value: i64 =
        sqlx::query_scalar(&format!("{UPSERT} returning value")).bind(key).bind(1_i64).fetch_one(&pool).await?;
    Ok(value.to_string())
}

async fn visit_in_transaction(State(pool): State<RywSqlxPool>, Path(key): Path<String>) -> Result<String, Failed> {
    let mut transaction = pool.begin().await?;
    sqlx::query(UPSERT).bind(key).bind(1_i64).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok("1".into())
}

#[tokio::test]
async fn reads_that_write_are_run_on_the_primary_and_marked() {
    let routes = Router::new().route("/visit/{key}", get(visit)).route("/visit-tx/{key}", get(visit_in_transaction));
    let world = World::start(1, routes).await;
    for key in ["visit", "visit-tx"] {
        // Seen before, and caught up since: the replica may serve.
        world.put(key, "other", 1).await;
        until("the replica serves", async || world.read(key, "other").await.served().0 == "replica").await;
        pause_replay(world.standby()).await;
        let visited = world.get(key, &format!("/{key}/{key}"), "RYW").await;
        assert_eq!((visited.value(), visited.served()), (Some(1), ("primary", "replayed")), "{visited:?}");
        assert!(visited.headers.contains_key("ryw-token"), "{visited:?}");
        let read = world.read(key, key).await;
        assert_eq!((read.value(), read.served()), (Some(1), ("primary", "behind")), "{read:?}");
        world.standby().psql("select pg_wal_replay_resume()").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_serves_when_a_replica_dies_and_it_comes_back() {
    let mut world = World::start(2, Router::new()).await;
    world.put("me", "note", 1).await;
    let serves = async |world: &World, node: &str| {
        let read = world.read("me", "note").await;
        assert_eq!(read.value(), Some(1), "{read:?}");
        read.node() == Some(node)
    };
    for node in ["r1", "r2"] {
        until("each replica serves", async || serves(&world, node).await).await;
    }
    block_in_place(|| world.cluster.server_mut("r1").unwrap().kill()).unwrap();
    // Also those that find it out.
    for _ in 0..100 {
        assert!(!serves(&world, "r1").await, "the dead can't serve");
    }
    until("the other serves", async || serves(&world, "r2").await).await;
    block_in_place(|| world.cluster.server_mut("r1").unwrap().start()).unwrap();
    until("it serves again", async || serves(&world, "r1").await).await;
}

/// Some rows, and the wait at the end of them.
async fn slow(State(pool): State<RywSqlxPool>, Path(key): Path<String>) -> Result<String, Failed> {
    const SLOW: &str = "select value from notes
        where key = $1 and case current_setting('cluster_name') when 'r1' then pg_sleep(4) is not null else true end";
    let value: i64 = sqlx::query_scalar(SLOW).bind(key).fetch_one(&pool).await?;
    Ok(value.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_on_a_replica_that_falls_silent_goes_on_elsewhere() {
    let world = World::start(2, Router::new().route("/slow/{key}", get(slow))).await;
    world.put("me", "note", 1).await;
    world.caught_up().await;
    let r1 = world.standby();
    let sleeps = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    let mut reading = Box::pin(world.get("me", "/slow/note", "RYW"));
    until("one is on the first standby", async || {
        if let Ok(read) = timeout(Duration::from_millis(50), &mut reading).await {
            assert_eq!(read.value(), Some(1), "{read:?}");
            reading = Box::pin(world.get("me", "/slow/note", "RYW"));
        }
        r1.psql(sleeps).unwrap() == "1"
    })
    .await;
    block_in_place(|| r1.freeze()).unwrap();
    let read = reading.await;
    assert_eq!((read.value(), read.node()), (Some(1), Some("r2")), "{read:?}");
    block_in_place(|| r1.thaw()).unwrap();
    until("it serves again", async || world.read("me", "note").await.node() == Some("r1")).await;
}

#[tokio::test]
async fn a_connection_to_another_server_than_was_watched_is_asked() {
    const ROUNDS: i64 = 50;
    let cluster = start(2).await;
    let proxy = Proxy::start([("127.0.0.1", cluster.standbys()[0].port())]).await.unwrap();
    let url = format!("postgres://ryw@127.0.0.1:{}/postgres", proxy.port());
    let world = World::over(cluster, vec![("r1".into(), url)], Router::new()).await;
    world.put("me", "note", 0).await;
    world.caught_up().await;
    // The watcher stays where it is, new connections get to a server that applies nothing.
    let other = &world.cluster.standbys()[1];
    until("the other has the note", async || other.psql("select count(*) from notes").unwrap() == "1").await;
    pause_replay(other).await;
    proxy.retarget([("127.0.0.1", other.port())]);
    for value in 1..=ROUNDS {
        world.put("me", "note", value).await;
        world.caught_up().await;
        let read = world.read("me", "note").await;
        assert_eq!((read.value(), read.served()), (Some(value), ("primary", "no-replica")), "{read:?}");
    }
    let stale = world.get("me", "/notes/note", "EVENTUAL").await;
    assert_eq!((stale.value(), stale.node()), (Some(0), Some("r1")), "{ROUNDS} chances: {stale:?}");

    other.psql("select pg_wal_replay_resume()").unwrap();
    until("what is asked serves", async || {
        let read = world.read("me", "note").await;
        assert_eq!(read.value(), Some(ROUNDS), "{read:?}");
        read.node() == Some("r1")
    })
    .await;
}

/// Longer than the window in which a request that was cut short is held to the primary in any case.
async fn write_slowly(State(pool): State<RywSqlxPool>, Path(key): Path<String>) -> Result<StatusCode, Failed> {
    sqlx::query("insert into notes select $1, 1 from pg_sleep(5)").bind(key).execute(&pool).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[tokio::test]
async fn a_write_that_outlives_its_request_is_seen() {
    let world = World::start(1, Router::new().route("/slow/{key}", axum::routing::put(write_slowly))).await;
    world.read("me", "note").await;
    let started = Instant::now();
    let request = Request::put("/slow/note").header("x-session-id", "me").body(Body::empty()).unwrap();
    assert!(timeout(Duration::from_millis(500), world.send(request)).await.is_err(), "it is cut short");
    sleep(Duration::from_secs(4).saturating_sub(started.elapsed())).await;
    world.caught_up().await;
    pause_replay(world.standby()).await;
    assert_eq!(world.cluster.primary().psql("select count(*) from notes").unwrap(), "0", "it is still running");
    until("it commits", async || world.cluster.primary().psql("select count(*) from notes").unwrap() == "1").await;
    for _ in 0..200 {
        let read = world.read("me", "note").await;
        assert_eq!((read.value(), read.served().0), (Some(1), "primary"), "{read:?}");
        sleep(Duration::from_millis(10)).await;
    }
    let stale = world.get("me", "/notes/note", "EVENTUAL").await;
    assert_eq!(stale.status, StatusCode::NOT_FOUND, "the replica has not got it: {stale:?}");
    // The hold is over, the mark stays.
    until("the hold is over", async || world.read("me", "note").await.served().1 == "behind").await;
}

fn hook<'c>(
    connection: &'c mut PgConnection,
) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'c>> {
    Box::pin(async move { connection.execute("set search_path = mine").await.map(drop) })
}

#[tokio::test]
async fn settings_and_errors() {
    let cluster = start(0).await;
    let options = SqlxOptions::new(PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_millis(300)))
        .connect(|options| options.application_name("mine"))
        .after_connect(hook);
    let pool = RywSqlxPool::builder().primary(cluster.primary().url()).connect_sqlx(options).await.unwrap();
    let set: (String, String) =
        sqlx::query_as("select current_setting('search_path'), current_setting('application_name')")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(set, ("mine".into(), "mine".into()));
    let held = pool.acquire().await.unwrap();
    assert!(matches!(pool.acquire().await, Err(Error::PoolTimedOut)), "sqlx's own errors stay what they are");
    drop(held);
    let error = with_executor(&pool.replica()).await.unwrap_err();
    let Error::Io(io) = error else { panic!("{error:?}") };
    assert!(io.get_ref().unwrap().is::<ryw_postgres::PoolError>(), "{io:?}");

    // A request that is not there to be told.
    assert!(RywContext::current().is_none());
    note_sqlx_error(&Error::PoolTimedOut);

    let pairs = format!("host=127.0.0.1 port={} user=ryw password=secret", cluster.primary().port());
    let error = RywSqlxPool::builder().primary(pairs).connect_sqlx(PgPoolOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ryw_postgres::ConnectErrorKind::NotAUrl);
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    timeout(DEADLINE, pool.close()).await.unwrap();
}
