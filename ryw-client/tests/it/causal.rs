//! Through a service that calls another: what was written anywhere on the way is seen everywhere on the way.

use std::net::SocketAddr;

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use ryw_client::{RywClientLayer, RywClientService, Session};
use ryw_core::Token;
use ryw_testing::lagging::LaggingStore;
use tower::{Layer, Service};
use tower_ryw::{
    Key, Loaded, MarkStore, Marks, Position, RywContext, StoreError, StoreErrorKind, StoreFuture, SubjectKey,
    Unsettled, Update,
};

use crate::service::{layer, notes, read, serve, store};

type Http = RywClientService<Client<HttpConnector, Full<Bytes>>>;

/// The service in front: it knows nothing of sessions but the layer that its client was built with.
#[derive(Clone)]
struct Front {
    store: LaggingStore,
    back: SocketAddr,
    /// Another instance of the service behind.
    twin: SocketAddr,
    client: Http,
}

impl Front {
    async fn call(&self, method: &str, key: &str) -> (StatusCode, Bytes) {
        self.call_at(self.back, method, key).await
    }

    async fn call_at(&self, to: SocketAddr, method: &str, key: &str) -> (StatusCode, Bytes) {
        let uri = format!("http://{to}/notes/{key}");
        let request = Request::builder().method(method).uri(uri).body(Full::from(Bytes::from_static(b"text"))).unwrap();
        let response = self.client.clone().call(request).await.unwrap();
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    }
}

/// A GET, so that what it causes to be written is nothing that its own layer would mark.
async fn touch(State(front): State<Front>, Path(key): Path<String>) -> StatusCode {
    front.call("PUT", &key).await.0
}

async fn look(State(front): State<Front>, Path(key): Path<String>) -> (StatusCode, Bytes) {
    front.call("GET", &key).await
}

async fn touch_and_look(State(front): State<Front>, Path(key): Path<String>) -> (StatusCode, Bytes) {
    front.call("PUT", &key).await;
    front.call_at(front.twin, "GET", &key).await
}

async fn touch_and_read(State(front): State<Front>, Path(key): Path<String>) -> Result<Bytes, StatusCode> {
    front.call("PUT", &key).await;
    read(State(front.store), Path(key)).await
}

fn http(layer: &RywClientLayer) -> Http {
    layer.layer(Client::builder(TokioExecutor::new()).build_http())
}

struct World {
    front: SocketAddr,
    back: SocketAddr,
    /// Another instance of the service behind, with marks of its own.
    twin: SocketAddr,
}

impl World {
    /// `passes`: whether the front service has the layer on its client. `key`: what the one behind signs with.
    async fn start(passes: bool, key: u8) -> Self {
        let store = store();
        let key = Key::new(key, &[key + 6; 32]).unwrap();
        let back = serve(notes(&store).layer(layer(&store).signing_key(key.clone()).build().unwrap())).await;
        let twin = serve(notes(&store).layer(layer(&store).signing_key(key).build().unwrap())).await;
        let hosts = if passes { vec!["127.0.0.1"] } else { Vec::new() };
        let client = http(&RywClientLayer::within_request(hosts).unwrap());
        let front = Front { store: store.clone(), back, twin, client };
        let app = Router::new()
            .route("/touch/{key}", get(touch))
            .route("/look/{key}", get(look))
            .route("/touch-and-look/{key}", get(touch_and_look))
            .route("/touch-and-read/{key}", get(touch_and_read))
            .with_state(front)
            .merge(notes(&store));
        Self { front: serve(app.layer(layer(&store).build().unwrap())).await, back, twin }
    }

    /// Lets the twin find out that it has forgotten nothing of this session: from then on it knows of no write but those
    /// that it is told.
    async fn settle_twin(&self, session: &[(&str, &str)]) {
        assert_eq!(ask(&plain(), "GET", self.twin, "notes/k", session).await.status(), StatusCode::NOT_FOUND);
    }
}

async fn ask<S, B>(client: &S, method: &str, to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response<()>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: std::fmt::Debug> + Clone,
{
    let request = Request::builder().method(method).uri(format!("http://{to}/{path}"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = client.clone().call(request.body(Full::from(Bytes::from_static(b"text"))).unwrap()).await.unwrap();
    response.map(drop)
}

fn caller() -> Http {
    http(&RywClientLayer::new(Session::builder().send_to("127.0.0.1").build().unwrap()))
}

/// A client that carries nothing by itself.
fn plain() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

#[tokio::test]
async fn what_a_called_service_writes_is_in_the_callers_response() {
    for (passes, status) in [(true, StatusCode::OK), (false, StatusCode::NOT_FOUND)] {
        let world = World::start(passes, 1).await;
        let (client, name) = (caller(), [("x-session-id", "me")]);
        world.settle_twin(&name).await;
        ask(&client, "GET", world.front, "touch/k", &name).await;
        let read = ask(&client, "GET", world.twin, "notes/k", &name).await;
        assert_eq!(read.status(), status, "{passes}");
    }
}

#[tokio::test]
async fn what_one_called_service_writes_the_next_one_sees() {
    for (passes, status) in [(true, StatusCode::OK), (false, StatusCode::NOT_FOUND)] {
        let world = World::start(passes, 1).await;
        let name = [("x-session-id", "me")];
        world.settle_twin(&name).await;
        let looked = ask(&plain(), "GET", world.front, "touch-and-look/k", &name).await;
        assert_eq!(looked.status(), status, "{passes}");
    }
}

#[tokio::test]
async fn what_a_session_has_written_is_seen_by_the_called_service() {
    for (passes, status) in [(true, StatusCode::OK), (false, StatusCode::NOT_FOUND)] {
        let World { front, .. } = World::start(passes, 1).await;
        let client = caller();
        ask(&client, "PUT", front, "notes/k", &[]).await;
        assert_eq!(ask(&client, "GET", front, "look/k", &[]).await.status(), status, "{passes}");
    }
}

#[tokio::test]
async fn the_handler_itself_reads_what_it_has_caused() {
    for (passes, status) in [(true, StatusCode::OK), (false, StatusCode::NOT_FOUND)] {
        let World { front, .. } = World::start(passes, 1).await;
        let read = ask(&caller(), "GET", front, "touch-and-read/k", &[]).await;
        assert_eq!(read.status(), status, "{passes}");
        let route = read.headers()["ryw-route"].to_str().unwrap();
        assert_eq!(route.starts_with("primary"), passes, "{route}");
    }
}

#[tokio::test]
async fn a_client_that_carries_only_its_name_is_covered_by_the_mark_store() {
    let World { front, .. } = World::start(true, 1).await;
    let forgetful = plain();
    let name = [("x-session-id", "me")];
    // From here on the store knows that it has forgotten nothing.
    let other = [("x-session-id", "other")];
    ask(&forgetful, "GET", front, "notes/k", &name).await;
    ask(&forgetful, "GET", front, "notes/k", &other).await;
    ask(&forgetful, "GET", front, "touch/k", &name).await;
    assert_eq!(ask(&forgetful, "GET", front, "notes/k", &name).await.status(), StatusCode::OK);
    let other = ask(&forgetful, "GET", front, "notes/k", &other).await;
    assert_eq!(other.status(), StatusCode::NOT_FOUND, "the test needs a replica that is behind");
}

#[tokio::test]
async fn tokens_of_a_service_with_other_keys_are_handed_through_in_both_directions() {
    let World { front, back, .. } = World::start(true, 2).await;
    let client = caller();
    let touched = ask(&client, "GET", front, "touch/k", &[]).await;
    assert!(touched.headers().contains_key("ryw-token"));
    assert_eq!(touched.headers()["cache-control"], "private");
    let direct = ask(&client, "GET", back, "notes/k", &[]).await;
    assert_eq!(direct.status(), StatusCode::OK);

    // Written behind, read through the service in front, which can't check the token that it passes on.
    ask(&client, "PUT", back, "notes/j", &[]).await;
    assert_eq!(ask(&client, "GET", front, "look/j", &[]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn baggage_is_understood() {
    let World { front, .. } = World::start(true, 1).await;
    let plain = plain();
    let written = ask(&plain, "PUT", front, "notes/k", &[]).await;
    let token = written.headers()["ryw-token"].to_str().unwrap();
    let baggage = format!("other=1,ryw={token};p=1 , more=2");
    assert_eq!(ask(&plain, "GET", front, "notes/k", &[("baggage", &baggage)]).await.status(), StatusCode::OK);
    let other = ask(&plain, "GET", front, "notes/k", &[("baggage", "other=1")]).await;
    assert_eq!(other.status(), StatusCode::NOT_FOUND, "the test needs a replica that is behind");
}

#[tokio::test]
async fn nothing_is_left_over_for_the_next_request_and_the_level_goes_along() {
    let echo = async |headers: HeaderMap| {
        let count = headers.get_all("ryw-token").iter().count();
        let level = headers.get("x-consistency-level").map_or("none", |level| level.to_str().unwrap());
        format!("{count} {level}")
    };
    let back = serve(Router::new().route("/notes/{key}", get(echo))).await;
    let store = store();
    let client = http(&RywClientLayer::within_request(["127.0.0.1"]).unwrap());
    let front = Front { store: store.clone(), back, twin: back, client };
    let said = async |State(front): State<Front>| {
        let inside = front.call("GET", "k").await.1;
        // A task of its own is no part of the request, unless it keeps the context.
        let (spawned, kept) = (front.clone(), front.clone());
        let outside = tokio::spawn(async move { spawned.call("GET", "k").await.1 }).await.unwrap();
        let kept = RywContext::current().unwrap().spawn(async move { kept.call("GET", "k").await.1 }).await.unwrap();
        [inside, outside, kept].map(|text| String::from_utf8(text.to_vec()).unwrap()).join(", ")
    };
    let app = Router::new().route("/said", get(said)).with_state(front).merge(notes(&store));
    let front = serve(app.layer(layer(&store).build().unwrap())).await;
    let plain = plain();
    let written = ask(&plain, "PUT", front, "notes/k", &[]).await;
    let token = written.headers()["ryw-token"].to_str().unwrap().to_owned();
    let ask = async |headers: &[(&str, &str)]| {
        let request = Request::get(format!("http://{front}/said"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = plain.clone().call(request.body(Full::default()).unwrap()).await.unwrap();
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    let carrying = [("baggage", &*format!("ryw={token}")), ("x-consistency-level", "CAUSAL")];
    assert_eq!(ask(&carrying).await, "1 CAUSAL, 0 none, 1 CAUSAL");
    assert_eq!(ask(&[]).await, "0 none, 0 none, 0 none");
}

/// Takes nothing.
#[derive(Debug)]
struct Broken;

impl MarkStore for Broken {
    fn load(&self, _: &[SubjectKey]) -> StoreFuture<Loaded> {
        StoreFuture::ready(Loaded::default())
    }

    fn join(&self, _: &[SubjectKey], _: &Update) -> StoreFuture<()> {
        StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable))
    }

    fn settle(&self, _: &[Unsettled], _: Option<Position>) -> StoreFuture<()> {
        StoreFuture::ready(())
    }

    fn acknowledge(&self, _: &[SubjectKey], _: &Marks) -> StoreFuture<()> {
        StoreFuture::ready(())
    }
}

#[tokio::test]
async fn what_could_not_be_stored_is_not_called_enforced() {
    let store = store();
    let back = serve(notes(&store).layer(layer(&store).build().unwrap())).await;
    let client = http(&RywClientLayer::within_request(["127.0.0.1"]).unwrap());
    let front = Front { store: store.clone(), back, twin: back, client };
    let app = Router::new().route("/touch/{key}", get(touch)).with_state(front);
    let front = serve(app.layer(layer(&store).store(Broken).build().unwrap())).await;
    let touched = ask(&plain(), "GET", front, "touch/k", &[("x-session-id", "me")]).await;
    assert_eq!(touched.headers()["x-consistency-enforced"], "false");
    assert!(touched.headers().contains_key("ryw-token"), "the client that carries it is safe");
}

/// Commits, and is never heard of again.
async fn silent_put(State(store): State<LaggingStore>, Path(key): Path<String>, value: Bytes) -> StatusCode {
    store.put("notes", &key, Some(value)).unwrap();
    std::future::pending().await
}

/// Commits, and the proxy before it gives up.
async fn failing_put(State(store): State<LaggingStore>, Path(key): Path<String>, value: Bytes) -> StatusCode {
    store.put("notes", &key, Some(value)).unwrap();
    StatusCode::GATEWAY_TIMEOUT
}

async fn give_up(State(front): State<Front>, Path(key): Path<String>) -> StatusCode {
    let call = tokio::time::timeout(std::time::Duration::from_millis(200), front.call("PUT", &key));
    assert!(call.await.is_err());
    StatusCode::ACCEPTED
}

/// Writes through a service that breaks the connection, or of which nobody knows whether it has got that far.
async fn fail(State(front): State<Front>, Path(key): Path<String>) -> StatusCode {
    front.store.put("notes", &key, Some(Bytes::from_static(b"text"))).unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let request = Request::put(format!("http://{nobody}/notes/{key}")).body(Full::default()).unwrap();
    assert!(front.client.clone().call(request).await.is_err());
    StatusCode::ACCEPTED
}

async fn doubtful(given: Option<Broken>) -> World {
    let store = store();
    let key = || Key::new(1, &[7; 32]).unwrap();
    let silent = Router::new()
        .route("/notes/{key}", axum::routing::put(silent_put))
        .with_state(store.clone())
        .layer(layer(&store).signing_key(key()).build().unwrap());
    let failing = Router::new().route("/notes/{key}", axum::routing::put(failing_put)).with_state(store.clone());
    let (silent, failing) = (serve(silent).await, serve(failing).await);
    let twin = serve(notes(&store).layer(layer(&store).signing_key(key()).build().unwrap())).await;
    let client = http(&RywClientLayer::within_request(["127.0.0.1"]).unwrap());
    let front = |back| Front { store: store.clone(), back, twin, client: client.clone() };
    let app = Router::new()
        .route("/give-up/{key}", get(give_up))
        .route("/fail/{key}", get(fail))
        .with_state(front(silent))
        .route("/touch/{key}", get(touch))
        .with_state(front(failing))
        .merge(notes(&store));
    let front = match given {
        Some(broken) => app.layer(layer(&store).store(broken).build().unwrap()),
        None => app.layer(layer(&store).build().unwrap()),
    };
    World { front: serve(front).await, back: failing, twin }
}

#[tokio::test]
async fn a_called_service_that_does_not_answer_makes_the_callers_session_unknown() {
    // The last one is a failure of its own, which promises nothing.
    for (path, enforced) in [("give-up/k", "true"), ("fail/k", "true"), ("touch/k", "false")] {
        let world = doubtful(None).await;
        let (client, name) = (caller(), [("x-session-id", "me")]);
        world.settle_twin(&name).await;
        ask(&plain(), "GET", world.front, "notes/k", &name).await;
        let answer = ask(&client, "GET", world.front, path, &name).await;
        assert!(answer.headers().contains_key("ryw-token"), "{path} {:?}", answer.headers());
        assert_eq!(answer.headers()["x-consistency-enforced"], enforced, "{path}");
        assert_eq!(answer.status().is_server_error(), enforced == "false", "{path}");
        let read = ask(&client, "GET", world.twin, "notes/k", &name).await;
        assert_eq!(read.status(), StatusCode::OK, "{path} {:?}", read.headers());
        let read = ask(&plain(), "GET", world.front, "notes/k", &name).await;
        assert_eq!(read.status(), StatusCode::OK, "the store knows: {path} {:?}", read.headers());
    }
}

#[tokio::test]
async fn a_doubt_that_could_not_be_stored_is_not_called_enforced() {
    for path in ["give-up/k", "fail/k", "touch/k"] {
        let world = doubtful(Some(Broken)).await;
        let answer = ask(&plain(), "GET", world.front, path, &[("x-session-id", "me")]).await;
        assert_eq!(answer.headers()["x-consistency-enforced"], "false", "{path}");
        assert!(answer.headers().contains_key("ryw-token"), "the client that carries it is safe");
    }
}

#[tokio::test]
async fn what_a_call_has_brought_takes_a_place_in_the_primarys_budget() {
    for (budget, route, enforced) in [(1, "primary", "true"), (0, "replica", "false")] {
        let store = store();
        let back = serve(notes(&store).layer(layer(&store).build().unwrap())).await;
        let client = http(&RywClientLayer::within_request(["127.0.0.1"]).unwrap());
        let front = Front { store: store.clone(), back, twin: back, client };
        let app = Router::new().route("/touch-and-read/{key}", get(touch_and_read)).with_state(front);
        let front = serve(app.layer(layer(&store).primary_budget(budget).build().unwrap())).await;
        let read = ask(&caller(), "GET", front, "touch-and-read/k", &[]).await;
        let headers = read.headers();
        assert!(headers["ryw-route"].to_str().unwrap().starts_with(route), "{headers:?}");
        assert_eq!(headers["x-consistency-enforced"], enforced, "{headers:?}");
    }
}

#[tokio::test]
async fn what_a_cookie_says_and_nobody_here_can_check_goes_nowhere_else() {
    let tokens = async |headers: HeaderMap| {
        headers.get_all("ryw-token").iter().map(|token| token.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    };
    let back = serve(Router::new().route("/notes/{key}", get(tokens))).await;
    let store = store();
    let client = http(&RywClientLayer::within_request(["127.0.0.1"]).unwrap());
    let front = Front { store: store.clone(), back, twin: back, client };
    let app = Router::new().route("/look/{key}", get(look)).with_state(front);
    let front = serve(app.layer(layer(&store).build().unwrap())).await;
    let token = crate::fake::token_of(2, 1, 7);
    let ask = async |name: &str, value: String| {
        let request = Request::get(format!("http://{front}/look/k")).header(name, value);
        let response = plain().call(request.body(Full::default()).unwrap()).await.unwrap();
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    assert_eq!(ask("ryw-token", token.clone()).await, token);
    assert_eq!(ask("cookie", format!("__Host-ryw={token}")).await, "unknown");
}

#[tokio::test]
async fn what_the_primary_has_shown_after_a_call_is_not_unseen_later() {
    let busy = async |State(front): State<Front>, Path(key): Path<String>| {
        front.call("PUT", &key).await;
        let position = front.store.put("notes", "somebody-elses", Some(Bytes::new())).unwrap();
        let shown = read(State(front.store), Path("somebody-elses".to_owned())).await;
        assert!(shown.is_ok(), "the primary has it");
        position.offset().to_string()
    };
    let store = store();
    let back = serve(notes(&store).layer(layer(&store).build().unwrap())).await;
    let client = http(&RywClientLayer::within_request(["127.0.0.1"]).unwrap());
    let front = Front { store: store.clone(), back, twin: back, client };
    let front =
        serve(Router::new().route("/busy/{key}", get(busy)).with_state(front).layer(layer(&store).build().unwrap()))
            .await;
    let request = Request::get(format!("http://{front}/busy/k")).header("x-consistency-level", "SESSION");
    let response = plain().call(request.body(Full::default()).unwrap()).await.unwrap();
    let told = Token::peek(response.headers()["ryw-token"].to_str().unwrap()).unwrap().token.marks;
    let shown = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let offset = told.positions().iter().map(|position| position.offset()).max();
    assert!(offset >= shown.parse().ok(), "{told:?} {shown}");
}
