//! a and b: the same request, made to the next service. The handler says nothing about sessions.

use std::{error::Error, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, Uri},
    routing::get,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use ryw_client::RywClientLayer;
use ryw_core::Keyring;
use tokio::time::timeout;
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_ryw::{Level, RywLayer};

use crate::Forwarding;

/// For the next service to answer, retries included.
const DEADLINE: Duration = Duration::from_secs(10);
const MAX_NOTE: usize = 64 * 1024;

type Next = BoxCloneSyncService<http::Request<Full<Bytes>>, http::Response<Body>, Box<dyn Error + Send + Sync>>;

#[derive(Clone)]
struct App {
    next: Next,
    url: String,
}

pub(crate) fn routes(keys: &Keyring, next: &str, options: &Forwarding) -> Result<Router, Box<dyn Error>> {
    let host = next.parse::<Uri>()?.authority().ok_or("--next needs a host")?.to_string();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let next_service = if options.carry_nothing {
        BoxCloneSyncService::new(client.map_response(|response| response.map(Body::new)).map_err(Into::into))
    } else {
        // What the request that is being served must see goes along, and what comes back joins it.
        let client = RywClientLayer::within_request([host])?.layer(client);
        BoxCloneSyncService::new(client.map_response(|response| response.map(Body::new)).map_err(Into::into))
    };
    let layer = RywLayer::builder().signing_keys(keys.clone()).default_level(Level::Causal).build()?;
    let app = App { next: next_service, url: next.trim_end_matches('/').to_owned() };
    Ok(Router::new().route("/{note}", get(forward).put(forward)).layer(layer).with_state(app))
}

async fn forward(State(app): State<App>, request: Request) -> Result<(StatusCode, Bytes), StatusCode> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_NOTE).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    let asking = http::Request::builder().method(parts.method).uri(format!("{}{}", app.url, parts.uri.path()));
    let asking = asking.body(Full::new(body)).map_err(|_| StatusCode::BAD_REQUEST)?;
    let answered = async {
        let answer = app.next.oneshot(asking).await.map_err(|error| eprintln!("the next service: {error}"))?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| eprintln!("the next service: {error}"))?;
        Ok::<_, ()>((parts.status, body.to_bytes()))
    };
    timeout(DEADLINE, answered).await.map_err(|_| StatusCode::GATEWAY_TIMEOUT)?.map_err(|()| StatusCode::BAD_GATEWAY)
}
