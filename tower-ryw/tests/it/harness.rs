//! One small service, and the questions that all tests ask it.

use std::{convert::Infallible, time::Duration};

use axum::{Router, body::Body, extract::Path, http::Request, response::Response, routing::get};
use http::StatusCode;
use http_body_util::BodyExt;
use ryw_testing::lagging::LaggingStore;
use tower::ServiceExt;
use tower_ryw::{CookiePolicy, Ladder, RywContext, RywLayer, RywLayerBuilder};

/// A store with one replica that is 1 s late (time is paused in tests), and a service over it.
pub(crate) struct Fixture {
    pub(crate) store: LaggingStore,
    pub(crate) app: Router,
}

/// What a test looks at.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

pub(crate) const LAG: Duration = Duration::from_secs(1);

/// Positions, and no waiting.
pub(crate) fn with_positions(configure: impl FnOnce(RywLayerBuilder) -> RywLayerBuilder) -> Fixture {
    fixture(|builder, store| {
        let ladder = Ladder::new().wait(Duration::ZERO);
        configure(builder.positions(store.topology().clone()).ladder(ladder))
    })
}

/// The layer as it comes: no positions.
pub(crate) fn with_window(configure: impl FnOnce(RywLayerBuilder) -> RywLayerBuilder) -> Fixture {
    fixture(|builder, _| configure(builder))
}

fn fixture(configure: impl FnOnce(RywLayerBuilder, &LaggingStore) -> RywLayerBuilder) -> Fixture {
    let store = LaggingStore::builder().replicas(1).lag(LAG).start();
    let builder = RywLayer::builder().cookie(CookiePolicy::InsecureForDevelopment);
    let layer = configure(builder, &store).build().unwrap();
    let app = values(store.clone()).layer(layer);
    Fixture { store, app }
}

/// `PUT /v/{key}` stores its body and `GET /v/{key}` reads it, wherever the request was routed to.
pub(crate) fn values(store: LaggingStore) -> Router {
    let (read, write) = (store.clone(), store);
    let read = move |Path(key): Path<String>| async move {
        let route = RywContext::current().map_or(tower_ryw::Route::Primary, |context| context.route());
        read.get(&route, "t", &key).map_or_else(|| "nothing".to_owned(), |value| String::from_utf8_lossy(&value).into())
    };
    let write = move |Path(key): Path<String>, body: String| async move {
        write.put("t", &key, Some(body.into())).unwrap();
        StatusCode::NO_CONTENT
    };
    Router::new()
        .route("/v/{key}", get(read).put(write.clone()).post(write))
        .route("/static", get(|| async { "the same for all" }))
}

impl Fixture {
    /// A new fixture knows that it knows nothing; one read of a session settles that.
    pub(crate) async fn settled(self) -> Self {
        for n in 0..2000 {
            self.get("/v/x", &[("x-session-id", &format!("settle{n}"))]).await;
        }
        self
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, "").await
    }

    pub(crate) async fn put(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send("PUT", path, headers, body).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        answer(self.app.clone().oneshot(request(method, path, headers, body)).await).await
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

pub(crate) async fn answer(response: Result<Response, Infallible>) -> Answer {
    let (parts, body) = response.unwrap().into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
    Answer { status: parts.status, headers: parts.headers, body }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn route(&self) -> &str {
        self.header("ryw-route").unwrap_or("none")
    }

    /// The cookie, as a browser would send it back.
    pub(crate) fn cookie(&self) -> Option<String> {
        Some(self.header("set-cookie")?.split(';').next().unwrap().to_owned())
    }
}

/// The session's header.
pub(crate) const fn session(name: &str) -> (&str, &str) {
    ("x-session-id", name)
}

pub(crate) const fn level(name: &str) -> (&str, &str) {
    ("x-consistency-level", name)
}
