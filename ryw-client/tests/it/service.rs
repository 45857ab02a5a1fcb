//! A service over a store whose replicas lag, behind the layer, on a port of its own.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::Redirect,
    routing::{get, post},
};
use ryw_testing::lagging::LaggingStore;
use tokio::net::TcpListener;
use tower_ryw::{Key, RywContext, RywLayer, RywLayerBuilder};

/// Replicas see nothing before the test is over.
pub(crate) fn store() -> LaggingStore {
    lagging(Duration::from_secs(600))
}

/// Replicas see what was written after half to one and a half times as long.
pub(crate) fn lagging(lag: Duration) -> LaggingStore {
    LaggingStore::builder().replicas(2).lag(lag).start()
}

pub(crate) fn layer(store: &LaggingStore) -> RywLayerBuilder {
    RywLayer::builder().positions(store.topology().clone()).signing_key(Key::new(1, &[7; 32]).unwrap())
}

pub(crate) async fn put(State(store): State<LaggingStore>, Path(key): Path<String>, value: Bytes) -> StatusCode {
    store.put("notes", &key, Some(value)).unwrap();
    StatusCode::NO_CONTENT
}

pub(crate) async fn read(State(store): State<LaggingStore>, Path(key): Path<String>) -> Result<Bytes, StatusCode> {
    let route = RywContext::current().unwrap().route();
    store.get(&route, "notes", &key).ok_or(StatusCode::NOT_FOUND)
}

async fn submit(State(store): State<LaggingStore>, Path(key): Path<String>, value: Bytes) -> Redirect {
    store.put("notes", &key, Some(value)).unwrap();
    Redirect::to(&format!("/notes/{key}"))
}

pub(crate) fn notes(store: &LaggingStore) -> Router {
    Router::new()
        .route("/notes/{key}", get(read).put(put))
        .route("/submit/{key}", post(submit))
        .with_state(store.clone())
}

/// Serves until the test's runtime ends.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}
