//! c: `PUT /{note}` and `GET /{note}`, from wherever the request's route says.

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
use tower_ryw::{Level, RywContext, RywLayer};

pub(crate) fn routes(keys: &Keyring, lag: Duration) -> Result<Router, Box<dyn Error>> {
    let store = LaggingStore::builder().lag(lag).start();
    let layer = RywLayer::builder()
        .positions(store.topology().clone())
        .signing_keys(keys.clone())
        .default_level(Level::Causal)
        .build()?;
    Ok(Router::new().route("/{note}", get(read).put(write)).layer(layer).with_state(store))
}

async fn read(
    State(store): State<LaggingStore>,
    context: RywContext,
    Path(note): Path<String>,
) -> Result<Bytes, StatusCode> {
    store.get(&context.route(), "notes", &note).ok_or(StatusCode::NOT_FOUND)
}

async fn write(State(store): State<LaggingStore>, Path(note): Path<String>, text: Bytes) -> StatusCode {
    match store.put("notes", &note, Some(text)) {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::INSUFFICIENT_STORAGE,
    }
}
