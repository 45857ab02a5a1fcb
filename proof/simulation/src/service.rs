//! The service under test: lists, registers and snapshots, and calls of a second service.

use std::time::Duration;

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, Request, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use ryw_client::{Retry, RywClientLayer, RywClientService};
use ryw_core::{Key as SigningKey, Level};
use serde_json::{Map, Value, json};
use tower::{Layer, ServiceExt};
use tower_ryw::{Ladder, LocalStore, RywContext, RywLayer};

use crate::{
    database::{FIRST_REGISTER, Key, Shown},
    net::{self, HttpClient},
    plan::Plan,
    pool::{Answer, Failed, Pool},
    store::RemoteStore,
    world::{World, at_wall_clock, now},
};

/// The instances of the service that clients ask, and the service that these call.
pub(crate) const HOSTS: [&str; 3] = ["a1", "a2", "b"];
pub(crate) const CALLED: usize = 2;

/// What became of a write, said by the handler: a refusal of the layer has no such header.
pub(crate) const EFFECT: &str = "x-test-effect";
/// What is to go wrong after a write.
pub(crate) const TROUBLE: &str = "x-test-trouble";
pub(crate) const NODE: &str = "x-test-node";
pub(crate) const EPOCH: &str = "x-test-epoch";

#[derive(Clone)]
struct App {
    world: World,
    pool: Pool,
    others: RywClientService<HttpClient>,
}

/// One instance, until it crashes.
pub(crate) async fn run(world: World, plan: Plan, service: usize) -> turmoil::Result {
    let pool = Pool::start(&world, plan.busy, service);
    let skew = world.with(|inner| inner.skew[service]);
    let layer = at_wall_clock(skew, || layer(&world, &plan, service, &pool))?;
    let calls = RywClientLayer::within_request([HOSTS[CALLED]])?.retry(Retry::never());
    let app = App { world, pool, others: calls.layer(net::client()) };
    let guarded = Router::new()
        .route("/list/{key}", get(read))
        .route("/list/{key}/{value}", post(write))
        .route("/reg/{key}", get(read))
        .route("/reg/{key}/{value}", post(write))
        .route("/snap", get(snap))
        .route("/relay/list/{key}", get(relay_read))
        .route("/relay/list/{key}/{value}", post(relay_write))
        .layer(layer)
        .with_state(app.clone());
    let control = Router::new().route("/raw/{key}", get(raw_read)).route("/raw/{key}/{value}", post(raw_write));
    net::serve(guarded.merge(control.with_state(app))).await
}

fn layer(world: &World, plan: &Plan, service: usize, pool: &Pool) -> Result<RywLayer, Box<dyn std::error::Error>> {
    let layer = RywLayer::builder()
        .positions(pool.topology().clone())
        .signing_key(SigningKey::new(1, b"the same secret for all services")?)
        // Only CAUSAL is asked of a called service: it gives that to everybody.
        .level(if service == CALLED { Level::Causal } else { Level::Eventual })
        .window(plan.window)
        .store_deadline(Duration::from_millis(25))
        .sample_deadline(Duration::from_millis(40))
        .ladder(Ladder::new().wait(plan.wait));
    let layer = if service == CALLED {
        layer.store(LocalStore::new())
    } else {
        layer.store(RemoteStore::new(world, plan.twice))
    };
    Ok(layer.build()?)
}

fn name_of(key: Key) -> String {
    if key < FIRST_REGISTER { format!("k{key}") } else { format!("r{key}") }
}

/// The key with that name.
fn key_of(name: &str) -> Option<Key> {
    name.get(1..)?.parse().ok()
}

pub(crate) fn shown(shown: &Shown) -> Value {
    match shown {
        Shown::List(values) => json!(values),
        Shown::Register(value) => json!(value.map(|(value, _)| value)),
    }
}

fn refused() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(EFFECT, "none")]).into_response()
}

fn served<T>(answer: &Answer<T>, body: Value, effect: &'static str) -> Response {
    let mut response = Json(body).into_response();
    let headers = response.headers_mut();
    headers.insert(EFFECT, HeaderValue::from_static(effect));
    headers.insert(NODE, HeaderValue::from(answer.node));
    headers.insert(EPOCH, HeaderValue::from(answer.epoch));
    response
}

async fn read(State(app): State<App>, context: RywContext, Path(key): Path<String>) -> Response {
    let Some(key) = key_of(&key) else { return refused() };
    let Some(answer) = app.pool.read(&context, &[key]).await else { return refused() };
    let version = match &answer.what[0] {
        Shown::Register(value) => value.map(|(_, version)| version),
        Shown::List(_) => None,
    };
    served(&answer, json!({ "val": shown(&answer.what[0]), "ver": version }), "none")
}

async fn snap(State(app): State<App>, context: RywContext, Query(query): Query<Vec<(String, String)>>) -> Response {
    let keys: Vec<Key> = query.iter().filter_map(|(_, key)| key_of(key)).collect();
    let Some(answer) = app.pool.read(&context, &keys).await else { return refused() };
    let values: Map<String, Value> =
        keys.iter().zip(&answer.what).map(|(key, value)| (name_of(*key), shown(value))).collect();
    served(&answer, json!({ "val": values, "ver": null }), "none")
}

async fn write(
    State(app): State<App>,
    context: RywContext,
    Path((key, value)): Path<(String, u64)>,
    headers: HeaderMap,
) -> Response {
    let Some(key) = key_of(&key) else { return refused() };
    match app.pool.write(&context, key, value).await {
        Ok(answer) => match headers.get(TROUBLE).map(HeaderValue::as_bytes) {
            Some(b"error") => (StatusCode::INTERNAL_SERVER_ERROR, [(EFFECT, "done")]).into_response(),
            Some(b"panic") => std::panic::panic_any(Simulated),
            _ => served(&answer, json!({ "ver": answer.what }), "done"),
        },
        Err(Failed::Nothing) => refused(),
        Err(Failed::Lost) => (StatusCode::CONFLICT, [(EFFECT, "none")]).into_response(),
        Err(Failed::Unknown) => (StatusCode::INTERNAL_SERVER_ERROR, [(EFFECT, "unknown")]).into_response(),
    }
}

/// The payload of a panic that is part of a simulation.
pub(crate) struct Simulated;

async fn relay_read(State(app): State<App>, Path(key): Path<String>) -> Response {
    relay(app, "GET", format!("http://{}/list/{key}", HOSTS[CALLED])).await
}

async fn relay_write(State(app): State<App>, context: RywContext, Path((key, value)): Path<(String, u64)>) -> Response {
    // Its own service writes nothing: the called one does, and says so.
    context.mark_not_written();
    relay(app, "POST", format!("http://{}/list/{key}/{value}", HOSTS[CALLED])).await
}

/// Calls the other service, and hands its answer on.
async fn relay(app: App, method: &str, uri: String) -> Response {
    let unknown = || (StatusCode::BAD_GATEWAY, [(EFFECT, "unknown")]).into_response();
    let Ok(request) = Request::builder().method(method).uri(uri).body(net::Body::default()) else { return unknown() };
    let Ok(response) = app.others.oneshot(request).await else { return unknown() };
    let (parts, body) = response.into_parts();
    let Ok(body) = axum::body::to_bytes(Body::new(body), 1 << 20).await else { return unknown() };
    let mut answer = (parts.status, body).into_response();
    for name in [EFFECT, NODE, EPOCH, "content-type"] {
        if let Some(value) = parts.headers.get(name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    // What the other service did not enforce, or says is lost, this one can't promise.
    for name in ["x-consistency-enforced", "ryw-lost"] {
        if let Some(value) = parts.headers.get(name) {
            answer.headers_mut().insert(
                format!("x-relayed-{name}").parse::<http::HeaderName>().unwrap_or(http::header::VIA),
                value.clone(),
            );
        }
    }
    answer
}

/// Without the layer: any replica.
async fn raw_read(State(app): State<App>, Path(key): Path<String>) -> Response {
    let Some(key) = key_of(&key) else { return refused() };
    let shown_by_replica = app.world.with(|inner| {
        let nodes = inner.cluster.nodes.len();
        let node = inner.rng.usize(1..nodes);
        let run = inner.cluster.nodes[node].run;
        inner.cluster.snapshot(node, run, &[key], now()).ok().map(|what| Answer { what, node, epoch: 1 })
    });
    let Some(answer) = shown_by_replica else { return refused() };
    served(&answer, json!({ "val": shown(&answer.what[0]), "ver": null }), "none")
}

async fn raw_write(State(app): State<App>, Path((key, value)): Path<(String, u64)>) -> Response {
    let written = app.world.with(|inner| {
        let node = inner.cluster.primary()?;
        let run = inner.cluster.nodes[node].run;
        let end = inner.cluster.write(node, run, key_of(&key)?, value, now()).ok()?;
        Some(Answer { what: end, node, epoch: 1 })
    });
    match written {
        Some(answer) => served(&answer, json!({ "ver": null }), "done"),
        None => refused(),
    }
}
