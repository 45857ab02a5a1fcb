//! `POST /{note}`: writes through the other service, and reads back what it has written.

use std::error::Error;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Method, StatusCode},
    routing::post,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use ryw_client::RywClientLayer;
use ryw_core::Keyring;
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_ryw::RywLayer;
use tracing::Instrument;

use crate::propagation::inject;

type Notes = BoxCloneSyncService<http::Request<Full<Bytes>>, http::Response<Body>, Box<dyn Error + Send + Sync>>;

#[derive(Clone)]
struct App {
    notes: Notes,
    url: String,
}

pub(crate) fn routes(keys: &Keyring, notes: &str) -> Result<Router, Box<dyn Error>> {
    let host = notes.parse::<http::Uri>()?.host().ok_or("--notes needs a host")?.to_owned();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    // What the request that is being served must see goes along, and what comes back joins it.
    let client = RywClientLayer::within_request([host])?.layer(client.map_request(inject));
    let client = client.map_response(|response| response.map(Body::new)).map_err(Into::into);
    let layer = RywLayer::builder().signing_keys(keys.clone()).build()?;
    let app = App { notes: BoxCloneSyncService::new(client), url: notes.trim_end_matches('/').to_owned() };
    Ok(Router::new().route("/{note}", post(write_and_read)).layer(layer).with_state(app))
}

async fn write_and_read(State(app): State<App>, Path(note): Path<String>, text: Bytes) -> Result<Bytes, StatusCode> {
    app.call(Method::PUT, &note, text).await?;
    app.call(Method::GET, &note, Bytes::new()).await
}

impl App {
    async fn call(&self, method: Method, note: &str, text: Bytes) -> Result<Bytes, StatusCode> {
        let span = tracing::info_span!("call", otel.name = %method, otel.kind = "client");
        let calling = async {
            let request = http::Request::builder().method(method).uri(format!("{}/{note}", self.url));
            let request = request.body(Full::new(text)).map_err(|_| StatusCode::BAD_REQUEST)?;
            let response = self.notes.clone().oneshot(request).await.map_err(|error| {
                tracing::warn!(error, "the notes can't be reached");
                StatusCode::BAD_GATEWAY
            })?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|_| StatusCode::BAD_GATEWAY)?.to_bytes();
            if parts.status.is_success() { Ok(body) } else { Err(parts.status) }
        };
        calling.instrument(span).await
    }
}
