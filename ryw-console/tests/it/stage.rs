//! A layer with nodes, requests through it, and its console.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, Response, StatusCode},
};
use http_body_util::BodyExt;
use ryw_console::{Console, Recorder};
use serde_json::Value;
use tower::{Layer, ServiceExt, service_fn};
use tower_ryw::{
    ClusterId, Epoch, Level, Position, RywLayer, RywLayerBuilder,
    topology::{Reading, Role, Topology, Watch},
};

pub(crate) struct Stage {
    pub(crate) layer: RywLayer,
    pub(crate) recorder: Recorder,
    pub(crate) primary: Watch,
    pub(crate) replica: Watch,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(settings: impl FnOnce(RywLayerBuilder) -> RywLayerBuilder) -> Self {
        let topology = Topology::new();
        let (mut primary, mut replica) = (topology.add("p"), topology.add("r1"));
        report(&mut primary, Role::Primary, 100);
        report(&mut replica, Role::Replica, 100);
        let recorder = Recorder::new();
        let layer =
            RywLayer::builder().positions(topology).level(Level::Eventual).sample_deadline(Duration::from_millis(1));
        let layer = layer.observer(recorder.clone());
        Self { layer: settings(layer).build().unwrap(), recorder, primary, replica }
    }

    pub(crate) fn console(&self) -> Console {
        Console::new(&self.layer, &self.recorder)
    }

    /// A write of nobody in particular; returns the session that begins with it.
    pub(crate) async fn begin(&self) -> String {
        let service = self.layer.layer(service_fn(async |_| Ok::<_, Infallible>(Response::new(Body::empty()))));
        let written = service.oneshot(Request::put("/").body(Body::empty()).unwrap()).await.unwrap();
        written.headers()["x-session-id"].to_str().unwrap().to_owned()
    }

    /// A read of nobody in particular, with this token.
    pub(crate) async fn read_with(&self, token: &str) -> HeaderMap {
        let service = self.layer.layer(service_fn(async |_| Ok::<_, Infallible>(Response::new(Body::empty()))));
        let request = Request::get("/").header("ryw-token", token).header("x-consistency-level", "RYW");
        service.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().headers().clone()
    }

    /// A request of the session through the layer.
    pub(crate) async fn request(&self, method: &str, session: &str, level: &str) -> StatusCode {
        let service = self.layer.layer(service_fn(async |_| Ok::<_, Infallible>(Response::new(Body::empty()))));
        let request = Request::builder().method(method).header("x-session-id", session);
        let request = request.header("x-consistency-level", level).body(Body::empty()).unwrap();
        service.oneshot(request).await.unwrap().status()
    }
}

pub(crate) fn report(watch: &mut Watch, role: Role, offset: u64) {
    watch.begin().report(Reading::new(role, Position::new(ClusterId::new(1), Epoch::new(1), offset)));
}

/// Asks as a browser on the same machine would.
pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    ask(router, path, &[("host", "localhost:9090")]).await
}

pub(crate) async fn ask(router: &Router, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, body) = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

pub(crate) async fn json(router: &Router, path: &str) -> Value {
    let answer = get(router, path).await;
    serde_json::from_str(&answer.text).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.text))
}
