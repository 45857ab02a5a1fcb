//! A PostgreSQL with standbys, and a service in front of it whose handlers know nothing about replicas.

use std::{future::Future, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{HeaderMap, Request, StatusCode},
    routing::get,
};
use ryw_core::{Key, Keyring};
use ryw_postgres::{Builder, RywPool, tokio_postgres::Client};
use ryw_testing::{
    proxy::Proxy,
    servers::postgres::{Cluster, ClusterBuilder, Server, Standby},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::ServiceExt;
use tower_ryw::{Level, RywLayer, RywLayerBuilder};

/// For whatever must come: far beyond what it takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const UPSERT: &str =
    "insert into notes values ($1, $2) on conflict (key) do update set value = excluded.value";

/// Servers and service.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) service: Service,
    pub(crate) pool: RywPool,
    pub(crate) layer: RywLayer,
    pub(crate) keys: Keyring,
    // Dropped last: the pool still talks to it.
    pub(crate) cluster: Cluster,
}

/// `PUT` and `GET /notes/{key}`, and what a test adds to them.
#[derive(Clone, Debug)]
pub(crate) struct Service(Router);

/// A response, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl World {
    /// A primary and as many standbys, `r1`, `r2` and so on.
    pub(crate) async fn with_standbys(count: usize) -> Self {
        let standbys = (1..=count).map(|number| Standby::named(format!("r{number}")));
        Self::start(standbys.fold(Cluster::builder(), ClusterBuilder::standby), Router::new(), 10).await
    }

    /// A service with these routes as well, and so many connections to each node.
    pub(crate) async fn start(cluster: ClusterBuilder, routes: Router<RywPool>, connections: u32) -> Self {
        Self::start_with(cluster, routes, |_, pool| pool.max_connections(connections), |layer| layer).await
    }

    /// The same, with other settings of the pool, which may need the servers, and of the layer.
    pub(crate) async fn start_with(
        cluster: ClusterBuilder,
        routes: Router<RywPool>,
        pool: impl FnOnce(&Cluster, Builder) -> Builder,
        layer: impl FnOnce(RywLayerBuilder) -> RywLayerBuilder,
    ) -> Self {
        let cluster = launch(cluster).await;
        let builder = RywPool::builder().primary(cluster.primary().url());
        let replicas = cluster.standbys().iter();
        let builder = replicas.fold(builder, |builder, node| builder.replica_named(node.name(), node.url()));
        let builder = pool(&cluster, builder);
        let world = Self::over(cluster, builder, routes, layer).await;
        world.caught_up().await;
        world
    }

    /// A service over this pool, whose nodes are the cluster's servers in some way.
    pub(crate) async fn over(
        cluster: Cluster,
        pool: Builder,
        routes: Router<RywPool>,
        set: impl FnOnce(RywLayerBuilder) -> RywLayerBuilder,
    ) -> Self {
        let pool = pool.connect().await.unwrap();
        let keys = Keyring::new(Key::random().unwrap());
        let layer = set(settings(&pool, &keys)).build().unwrap();
        let service = Service::new(routes, &layer, &pool);
        Self { service, pool, layer, keys, cluster }
    }

    /// Another process of the same service, which knows no session and no mark.
    pub(crate) fn another_instance(&self) -> Service {
        let layer = settings(&self.pool, &self.keys).build().unwrap();
        Service::new(Router::new(), &layer, &self.pool)
    }

    pub(crate) fn standby(&self) -> &Server {
        &self.cluster.standbys()[0]
    }

    /// Waits until all replicas have applied what the primary has now.
    pub(crate) async fn caught_up(&self) {
        let topology = self.pool.topology();
        let end = topology.sample_primary().await.expect("the primary answers").offset();
        let applied = |node: &tower_ryw::topology::NodeView| node.applied().is_some_and(|at| at.offset() >= end);
        until("replicas have caught up", async || topology.view().nodes().iter().all(applied)).await;
    }

    /// From its return on, the first standby applies nothing.
    pub(crate) async fn pause_replay(&self) {
        self.caught_up().await;
        pause(self.standby()).await;
    }

    pub(crate) fn resume_replay(&self) {
        resume(self.standby());
    }
}

fn settings(pool: &RywPool, keys: &Keyring) -> RywLayerBuilder {
    RywLayer::builder()
        .positions(pool.topology().clone())
        .signing_keys(keys.clone())
        .level(Level::Eventual)
        .default_level(Level::ReadYourWrites)
}

impl Service {
    fn new(routes: Router<RywPool>, layer: &RywLayer, pool: &RywPool) -> Self {
        let routes = routes.route("/notes/{key}", get(read).put(write));
        Self(routes.layer(layer.clone()).with_state(pool.clone()))
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Writes, which must succeed.
    pub(crate) async fn put(&self, session: &str, key: &str, value: i64) -> Reply {
        let request = Request::put(format!("/notes/{key}")).header("x-session-id", session);
        let reply = self.send(request.body(value.to_string().into()).unwrap()).await;
        assert_eq!(reply.status, StatusCode::NO_CONTENT, "{reply:?}");
        reply
    }

    /// Reads, as [`read`](Self::read), in a task of its own.
    pub(crate) fn reading(
        &self,
        session: &'static str,
        key: &'static str,
        level: &'static str,
    ) -> impl Future<Output = Reply> + Send + 'static {
        let service = self.clone();
        async move { service.get(session, &format!("/notes/{key}"), level).await }
    }

    pub(crate) async fn get(&self, session: &str, path: &str, level: &str) -> Reply {
        let request = Request::get(path).header("x-session-id", session).header("x-consistency-level", level);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Reads a note as the session that may have written it.
    pub(crate) async fn read(&self, session: &str, key: &str) -> Reply {
        self.get(session, &format!("/notes/{key}"), "RYW").await
    }
}

impl Reply {
    /// Who served, and why.
    pub(crate) fn served(&self) -> (&str, &str) {
        let (by, reason) = (self.route().split(';').next(), self.parameter("reason="));
        (by.unwrap(), reason.unwrap_or_else(|| panic!("{self:?}")))
    }

    /// The replica that served.
    pub(crate) fn node(&self) -> Option<&str> {
        self.parameter("node=").map(|node| node.trim_matches('"'))
    }

    /// What the client is told about work that did not survive.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.headers.get("ryw-lost").map(|told| told.to_str().unwrap())
    }

    /// Whether it was held back until a replica was fresh enough, or in vain.
    pub(crate) fn has_waited(&self) -> bool {
        self.parameter("waited=").is_some()
    }

    /// The note; `None` when there is none.
    pub(crate) fn value(&self) -> Option<i64> {
        match self.status {
            StatusCode::OK => Some(self.body.parse().unwrap()),
            StatusCode::NOT_FOUND => None,
            _ => panic!("{self:?}"),
        }
    }

    fn route(&self) -> &str {
        self.headers.get("ryw-route").unwrap_or_else(|| panic!("no Ryw-Route: {self:?}")).to_str().unwrap()
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.route().split(';').find_map(|part| part.strip_prefix(name))
    }
}

/// Servers that have the table.
pub(crate) async fn launch(cluster: ClusterBuilder) -> Cluster {
    let start = || {
        let cluster = cluster.start().unwrap();
        cluster.primary().psql("create table notes (key text primary key, value bigint not null)").unwrap();
        cluster
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

/// The address of what is reached through a proxy.
pub(crate) fn behind(proxy: &Proxy) -> String {
    format!("postgres://ryw@{}/postgres", proxy.address())
}

/// Where a proxy finds a server.
pub(crate) fn address(server: &Server) -> (&'static str, u16) {
    ("127.0.0.1", server.port())
}

/// From its return on, this standby applies nothing.
pub(crate) async fn pause(standby: &Server) {
    standby.psql("select pg_wal_replay_pause()").unwrap();
    let state = async || standby.psql("select pg_get_wal_replay_pause_state()").unwrap() == "paused";
    until("replay is paused", state).await;
}

pub(crate) fn resume(standby: &Server) {
    standby.psql("select pg_wal_replay_resume()").unwrap();
}

/// What a server itself shows.
pub(crate) fn shown(server: &Server, key: &str) -> Option<i64> {
    let value = server.psql(&format!("select value from notes where key = '{key}'")).unwrap();
    (!value.is_empty()).then(|| value.parse().unwrap())
}

pub(crate) async fn until_shown(server: &Server, key: &str, value: i64) {
    until(&format!("{} shows {value}", server.name()), async || shown(server, key) == Some(value)).await;
}

/// So many of them at a time.
pub(crate) async fn at_once<F>(count: usize, one: impl Fn() -> F) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    (0..count).map(|_| one()).collect::<JoinSet<_>>().join_all().await
}

/// Waits for what must come.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn upsert(client: &Client, key: &str, value: i64) {
    try_upsert(client, key, value).await.unwrap();
}

pub(crate) async fn try_upsert(client: &Client, key: &str, value: i64) -> Result<(), StatusCode> {
    client.execute(UPSERT, &[&key, &value]).await.map(drop).map_err(|_| StatusCode::BAD_GATEWAY)
}

pub(crate) async fn select(client: &Client, key: &str) -> Result<Option<i64>, StatusCode> {
    let row = client.query_opt("select value from notes where key = $1", &[&key]).await;
    let row = row.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(row.map(|row| row.get(0)))
}

async fn write(State(pool): State<RywPool>, Path(key): Path<String>, value: String) -> Result<StatusCode, StatusCode> {
    let client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    try_upsert(&client, &key, value.parse().unwrap()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn read(State(pool): State<RywPool>, Path(key): Path<String>) -> Result<String, StatusCode> {
    let client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let value = select(&client, &key).await?;
    value.map(|value| value.to_string()).ok_or(StatusCode::NOT_FOUND)
}
