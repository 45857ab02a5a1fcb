//! `PUT /notes/{note}` writes and starts a job, `GET /notes/{note}` reads, `GET /index/{note}` tells what the job has read.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use bytes::Bytes;
use ryw_client::Envelope;
use ryw_testing::lagging::LaggingStore;
use tower_ryw::{Level, RywContext, RywLayer};

use crate::{queue::Queue, worker::Index};

#[derive(Clone)]
struct App {
    store: LaggingStore,
    queue: Arc<Queue>,
}

pub(crate) fn routes(lag: Duration, queue: Arc<Queue>, index: Index) -> Result<Router, Box<dyn Error>> {
    let store = LaggingStore::builder().lag(lag).start();
    let layer = RywLayer::builder().positions(store.topology().clone()).default_level(Level::ReadYourWrites).build()?;
    let notes = Router::new().route("/notes/{note}", get(read).put(write)).layer(layer);
    let app = App { store, queue };
    Ok(notes.with_state(app).merge(Router::new().route("/index/{note}", get(indexed)).with_state(index)))
}

async fn read(State(app): State<App>, context: RywContext, Path(note): Path<String>) -> Result<Bytes, StatusCode> {
    app.store.get(&context.route(), "notes", &note).ok_or(StatusCode::NOT_FOUND)
}

async fn write(
    State(app): State<App>,
    context: RywContext,
    Path(note): Path<String>,
    text: Bytes,
) -> Result<StatusCode, (StatusCode, String)> {
    let busy = |what: &str| (StatusCode::INSUFFICIENT_STORAGE, what.to_owned());
    if context.session().is_none() {
        return Err((StatusCode::BAD_REQUEST, "name a session: X-Session-ID".into()));
    }
    let position = app.store.put("notes", &note, Some(text)).map_err(|error| busy(&error.to_string()))?;
    // From here on the request's token says where the write is.
    context.mark_written_at(position);
    app.queue.push(&note, &envelope(&context)).map_err(|_| busy("too many jobs wait"))?;
    Ok(StatusCode::ACCEPTED)
}

async fn indexed(State(index): State<Index>, Path(note): Path<String>) -> Result<String, StatusCode> {
    index.get(&note).ok_or(StatusCode::NOT_FOUND)
}

/// What the request that is being served must see: an envelope without a name, and with its token.
fn envelope(context: &RywContext) -> Envelope {
    let text = context.token().map(|token| format!("ryw1;;{token}"));
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
