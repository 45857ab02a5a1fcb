//! Nodes that are wherever a test puts them, and a service that tells them what it was asked.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::Request,
    routing::{MethodRouter, any, get},
};
use parking_lot::Mutex;
use ryw_core::{ClusterId, Epoch, Position};
use tokio::{task::JoinHandle, time::sleep};
use tower::ServiceExt;
use tower_ryw::{
    Ladder, Level, Run, RywContext, RywLayer, RywLayerBuilder,
    topology::{Incarnation, NodeName, Reading, Role, Topology, WaitLimits},
};

use crate::harness::{Answer, answer, request};

pub(crate) fn at(epoch: u32, offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(epoch), offset)
}

pub(crate) fn primary(epoch: u32, offset: u64) -> Reading {
    Reading::new(Role::Primary, at(epoch, offset)).incarnation(Incarnation(1))
}

pub(crate) fn replica(epoch: u32, offset: u64) -> Reading {
    Reading::new(Role::Replica, at(epoch, offset)).incarnation(Incarnation(1))
}

/// Epoch 2 has left epoch 1 at 90.
pub(crate) fn forked(reading: Reading) -> Reading {
    reading.fork(Epoch::new(2), Epoch::new(1), 90)
}

type Nodes = HashMap<&'static str, Arc<Mutex<Option<Reading>>>>;

/// Moves nodes from wherever it is called.
pub(crate) struct Remote(Nodes);

impl Remote {
    pub(crate) fn put(&self, node: &str, reading: Option<Reading>) {
        *self.0[node].lock() = reading;
    }

    /// `p` is gone, `r1` was promoted at 90 and went on to 200, `r2` follows it.
    pub(crate) fn fail_over(&self) {
        self.put("p", None);
        self.put("r1", Some(forked(primary(2, 200))));
        self.put("r2", Some(forked(replica(2, 200))));
    }

    pub(crate) fn down(&self) {
        self.0.keys().for_each(|node| self.put(node, None));
    }
}

/// A primary `p` at 100 and replicas `r1` and `r2` at 80, in epoch 1, each in its first run.
pub(crate) struct Cluster {
    pub(crate) topology: Topology,
    nodes: Nodes,
    tasks: Vec<JoinHandle<()>>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with_limits(WaitLimits::new()).await
    }

    pub(crate) async fn with_limits(limits: WaitLimits) -> Self {
        let mut cluster = Self { topology: Topology::with_limits(limits), nodes: HashMap::new(), tasks: Vec::new() };
        for (name, reading) in [("p", primary(1, 100)), ("r1", replica(1, 80)), ("r2", replica(1, 80))] {
            let reading = Arc::new(Mutex::new(Some(reading)));
            cluster.nodes.insert(name, Arc::clone(&reading));
            let mut watch = cluster.topology.add(name);
            cluster.tasks.push(tokio::spawn(async move {
                loop {
                    let turn = watch.next().await;
                    let reading = reading.lock().clone();
                    match reading {
                        Some(reading) => turn.report(reading),
                        None => drop(turn),
                    }
                }
            }));
        }
        // A replica is used once a primary was seen.
        cluster.seen().await;
        cluster.seen().await;
        cluster
    }

    pub(crate) fn remote(&self) -> Remote {
        Remote(self.nodes.clone())
    }

    /// What a node answers from now on, without waiting until it was read.
    pub(crate) fn put(&self, node: &str, reading: Option<Reading>) {
        self.remote().put(node, reading);
    }

    /// Moves a node, and waits until all have been read.
    pub(crate) async fn set(&self, node: &str, reading: Reading) {
        self.put(node, Some(reading));
        self.seen().await;
    }

    pub(crate) async fn down(&self, node: &str) {
        self.put(node, None);
        self.seen().await;
    }

    pub(crate) async fn seen(&self) {
        sleep(Duration::from_millis(25)).await;
    }

    pub(crate) async fn fail_over(&self) {
        self.remote().fail_over();
        self.seen().await;
        self.seen().await;
    }

    /// RYW unless asked for more or less, no waiting.
    pub(crate) fn layer(&self) -> RywLayerBuilder {
        RywLayer::builder()
            .positions(self.topology.clone())
            .level(Level::Eventual)
            .default_level(Level::ReadYourWrites)
            .ladder(Ladder::new().wait(Duration::ZERO))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// One client's side: its service, and what it sends along.
pub(crate) struct Client {
    pub(crate) app: Router,
}

impl Client {
    /// `/` answers any method with what the handler knows to be lost.
    pub(crate) fn of(layer: &RywLayer) -> Self {
        let lost = |context: RywContext| async move { format!("{:?}", context.lost().map(|lost| lost.was.get())) };
        Self::with(layer, any(lost))
    }

    /// As `of`, with `/it` on top.
    pub(crate) fn with(layer: &RywLayer, handler: MethodRouter) -> Self {
        let lost = |context: RywContext| async move { format!("{:?}", context.lost().map(|lost| lost.was.get())) };
        Self { app: Router::new().route("/", get(lost).post(lost)).route("/it", handler).layer(layer.clone()) }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send_request(request(method, path, headers, "")).await
    }

    pub(crate) async fn send_request(&self, request: Request<Body>) -> Answer {
        answer(self.app.clone().oneshot(request).await).await
    }

    pub(crate) async fn get(&self, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", "/", headers).await
    }

    pub(crate) async fn post(&self, headers: &[(&str, &str)]) -> Answer {
        self.send("POST", "/", headers).await
    }
}

/// A run of `node`'s server, as a data layer reports it.
pub(crate) fn run(node: &str, incarnation: u64, position: Position) -> Run {
    Run::new(NodeName::from(node), Incarnation(incarnation), position)
}
