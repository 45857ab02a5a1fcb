//! `PUT /{note}` and `GET /{note}`: the handlers ask the request's context where to read.

use std::{error::Error, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use bytes::Bytes;
use ryw_core::Keyring;
use ryw_testing::lagging::LaggingStore;
use tower_ryw::{Level, Route, RywContext, RywLayer};

const LAG: Duration = Duration::from_millis(200);

pub(crate) fn routes(keys: &Keyring) -> Result<Router, Box<dyn Error>> {
    let store = LaggingStore::builder().replicas(2).lag(LAG).start();
    let layer = RywLayer::builder()
        .positions(store.topology().clone())
        .signing_keys(keys.clone())
        .default_level(Level::ReadYourWrites)
        .build()?;
    Ok(Router::new().route("/{note}", get(read).put(write)).layer(layer).with_state(store))
}

async fn read(State(store): State<LaggingStore>, Path(note): Path<String>) -> Result<Bytes, StatusCode> {
    let route = RywContext::current().map_or(Route::Primary, |context| context.route());
    tracing::info_span!("query").in_scope(|| store.get(&route, "notes", &note)).ok_or(StatusCode::NOT_FOUND)
}

async fn write(State(store): State<LaggingStore>, Path(note): Path<String>, text: Bytes) -> StatusCode {
    match tracing::info_span!("query").in_scope(|| store.put("notes", &note, Some(text))) {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::INSUFFICIENT_STORAGE,
    }
}
