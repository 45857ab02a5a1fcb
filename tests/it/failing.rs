//! How servers fail in these tests, handlers that are stopped halfway, and clients that live through it.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{Method, Request, StatusCode},
    routing::put,
};
use ryw_postgres::RywPool;
use ryw_testing::{
    proxy::{Direction, Proxy},
    servers::postgres::Server,
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, block_in_place},
};
use tower_ryw::{
    RywContext,
    topology::{NodeState, NodeView},
};

use crate::world::{Reply, Service, World, select, try_upsert, until};

/// Between the primary and its standbys.
#[derive(Debug)]
pub(crate) struct Replication(Proxy);

impl Replication {
    /// Lets these standbys reach the primary through a proxy of their own.
    pub(crate) async fn of(world: &World, standbys: &[&str]) -> Self {
        let proxy = Proxy::start([("127.0.0.1", world.cluster.primary().port())]).await.unwrap();
        for standby in standbys {
            block_in_place(|| world.cluster.reconnect(standby, proxy.port())).unwrap();
        }
        world.caught_up().await;
        Self(proxy)
    }

    /// Both ways, from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        self.0.delay(Direction::Both, delay);
    }

    /// From its return on, nothing that the primary writes gets to them.
    pub(crate) fn cut(&self) {
        self.0.black_hole(Direction::Both);
    }

    /// The same for good: what is on its way is lost.
    pub(crate) fn destroy(&self) {
        self.0.refuse();
        self.0.reset_all();
    }
}

impl World {
    pub(crate) fn server(&self, name: &str) -> &Server {
        self.cluster.server(name).unwrap()
    }

    /// From now on nothing of it answers, as when its machine dies: of a server that is killed only, a connection may answer once more.
    pub(crate) fn kill(&mut self, name: &str) {
        let server = self.cluster.server_mut(name).unwrap();
        block_in_place(|| server.freeze().and_then(|()| server.kill())).unwrap();
    }

    pub(crate) fn restart(&mut self, name: &str) {
        block_in_place(|| self.cluster.server_mut(name).unwrap().start()).unwrap();
    }

    /// The primary crashes, what it had not sent is lost, and the first standby leads.
    pub(crate) async fn lose_the_primary(&mut self, replication: &Replication) {
        self.kill("primary");
        replication.destroy();
        self.promote("r1");
        self.until_state("r1", NodeState::Primary).await;
    }

    pub(crate) fn promote(&self, name: &str) {
        block_in_place(|| self.server(name).promote()).unwrap();
    }

    pub(crate) fn follow(&self, standby: &str, upstream: &str) {
        block_in_place(|| self.cluster.follow(standby, upstream)).unwrap();
    }

    pub(crate) fn psql(&self, server: &str, sql: &str) -> String {
        block_in_place(|| self.server(server).psql(sql)).unwrap()
    }

    pub(crate) fn state(&self, name: &str) -> NodeState {
        let view = self.pool.topology().view();
        let node = view.nodes().iter().find(|node| node.name().as_str() == name).unwrap();
        node.state()
    }

    /// Waits until those replicas that serve have applied what the primary has now.
    pub(crate) async fn replicas_caught_up(&self) {
        let topology = self.pool.topology();
        let end = topology.sample_primary().await.expect("the primary answers").offset();
        let applied =
            |node: &NodeView| node.state() != NodeState::Replica || node.applied().is_some_and(|at| at.offset() >= end);
        until("replicas have caught up", async || topology.view().nodes().iter().all(applied)).await;
    }

    pub(crate) async fn until_state(&self, name: &str, state: NodeState) {
        until(&format!("{name} is {state:?}"), async || self.state(name) == state).await;
    }
}

/// Where a handler stops until the test lets it go on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<[Notify; 2]>);

impl Gate {
    async fn pass(&self) {
        let [arrived, go] = &*self.0;
        arrived.notify_one();
        go.notified().await;
    }

    pub(crate) async fn reached(&self) {
        self.0[0].notified().await;
    }

    pub(crate) fn open(&self) {
        self.0[1].notify_one();
    }

    /// `PUT /before/{key}` and so on: writes 2, and stops there on the way. `GET /after/{key}` stops when it has read.
    pub(crate) fn routes(&self) -> Router<RywPool> {
        Router::new()
            .route("/early/{key}", put(stop_early))
            .route("/before/{key}", put(stop_before))
            .route("/within/{key}", put(stop_within))
            .route("/after/{key}", put(stop_after).get(read_and_stop))
            .route("/later/{key}", put(stop_later))
            .layer(Extension(self.clone()))
    }

    /// Returns when the session's request has got to the gate.
    pub(crate) async fn send(&self, world: &World, stop: &str, session: &str) -> JoinHandle<Reply> {
        self.send_at("RYW", world, stop, session).await
    }

    /// The same, at another level.
    pub(crate) async fn send_at(&self, level: &str, world: &World, stop: &str, session: &str) -> JoinHandle<Reply> {
        let request = Request::put(format!("/{stop}/{session}")).header("x-session-id", session);
        let request = request.header("x-consistency-level", level);
        let (service, request) = (world.service.clone(), request.body(Body::empty()).unwrap());
        let request = tokio::spawn(async move { service.send(request).await });
        self.reached().await;
        request
    }
}

type Stopped = (State<RywPool>, Extension<Gate>, Path<String>);

/// Before it asks for a connection.
async fn stop_early((State(pool), Extension(gate), Path(key)): Stopped) -> Result<StatusCode, StatusCode> {
    gate.pass().await;
    let client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    try_upsert(&client, &key, 2).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop_before((State(pool), Extension(gate), Path(key)): Stopped) -> Result<StatusCode, StatusCode> {
    let client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    gate.pass().await;
    try_upsert(&client, &key, 2).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop_within((State(pool), Extension(gate), Path(key)): Stopped) -> Result<StatusCode, StatusCode> {
    let mut client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let transaction = client.transaction().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    try_upsert(transaction.client(), &key, 2).await?;
    gate.pass().await;
    transaction.commit().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop_after((State(pool), Extension(gate), Path(key)): Stopped) -> Result<StatusCode, StatusCode> {
    let client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    try_upsert(&client, &key, 2).await?;
    gate.pass().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn read_and_stop((State(pool), Extension(gate), Path(key)): Stopped) -> Result<String, StatusCode> {
    let client = pool.get().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let value = select(&client, &key).await?;
    gate.pass().await;
    value.map(|value| value.to_string()).ok_or(StatusCode::NOT_FOUND)
}

/// Answers, and writes when it may. Stops once more when it has written.
async fn stop_later(context: RywContext, (State(pool), Extension(gate), Path(key)): Stopped) -> StatusCode {
    context.spawn(async move {
        gate.pass().await;
        let client = pool.primary().await.unwrap();
        try_upsert(&client, &key, 2).await.unwrap();
        RywContext::current().unwrap().mark_written();
        gate.pass().await;
    });
    StatusCode::NO_CONTENT
}

/// A session, as its client keeps it: by name, or by nothing but the token it was last given.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    service: Service,
    pub(crate) key: String,
    level: &'static str,
    named: bool,
    pub(crate) token: Option<String>,
}

impl Client {
    pub(crate) fn named(service: &Service, key: impl Into<String>, level: &'static str) -> Self {
        Self { service: service.clone(), key: key.into(), level, named: true, token: None }
    }

    pub(crate) fn with_token_only(service: &Service, key: impl Into<String>, level: &'static str) -> Self {
        Self { named: false, ..Self::named(service, key, level) }
    }

    /// The same client, whose next requests another process answers.
    pub(crate) fn moves_to(&self, service: &Service) -> Self {
        Self { service: service.clone(), ..self.clone() }
    }

    pub(crate) fn level(&self) -> &'static str {
        self.level
    }

    pub(crate) async fn send(&mut self, method: Method, value: Option<i64>, acknowledges: bool) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("/notes/{}", self.key));
        request = request.header("x-consistency-level", self.level);
        if self.named {
            request = request.header("x-session-id", &self.key);
        } else if let Some(token) = &self.token {
            request = request.header("ryw-token", token);
        }
        if acknowledges {
            request = request.header("ryw-lost", "ack");
        }
        let body = value.map_or_else(Body::empty, |value| value.to_string().into());
        let reply = self.service.send(request.body(body).unwrap()).await;
        if let Some(token) = reply.headers.get("ryw-token") {
            self.token = Some(token.to_str().unwrap().to_owned());
        }
        reply
    }

    pub(crate) async fn try_put(&mut self, value: i64) -> Reply {
        self.send(Method::PUT, Some(value), false).await
    }

    /// Writes, which must succeed.
    pub(crate) async fn put(&mut self, value: i64) -> Reply {
        let reply = self.try_put(value).await;
        assert_eq!(reply.status, StatusCode::NO_CONTENT, "{reply:?}");
        reply
    }

    pub(crate) async fn read(&mut self) -> Reply {
        self.send(Method::GET, None, false).await
    }

    /// Reads, and says that it knows what was lost.
    pub(crate) async fn acknowledge(&mut self) -> Reply {
        self.send(Method::GET, None, true).await
    }
}
