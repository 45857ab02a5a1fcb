//! The values: handlers that know nothing about replicas.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{DefaultBodyLimit, Path, Request, State, rejection::PathRejection},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use tower_ryw::{RequestHead, RywContext, Tenant};

use super::wrong_method;
use crate::{
    backend::{Backend, BackendError, Via},
    problem::Problem,
};

const MAX_VALUE: usize = 1 << 20;
const MAX_KEY: usize = 512;
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// What the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) backend: Backend,
    pub(crate) via: Via,
}

/// The values, to be wrapped in a layer.
pub(crate) fn memory(app: App) -> Router {
    Router::new()
        .route("/v1/memory/{tenant}/{key}", get(read).put(write).delete(remove))
        .route("/v1/memory/{tenant}/{key}/link", get(link))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing here: try /v1/memory/{tenant}/{key}"))
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// The tenant is part of the path here; a real service would take it from its authentication.
pub(crate) fn tenant_of(head: RequestHead<'_>) -> Option<Tenant> {
    let tenant = head.uri.path().strip_prefix("/v1/memory/")?.split('/').next()?;
    // As the handlers see it: a tenant in another spelling is the same tenant.
    percent_decode_str(tenant).decode_utf8().ok()?.parse().ok()
}

async fn read(State(app): State<App>, place: Place) -> Result<Response, Problem> {
    let (tenant, key) = checked(place)?;
    match app.backend.get(app.via, tenant.as_str(), &key).await? {
        Some(value) => Ok(([(header::CONTENT_TYPE, "application/octet-stream")], value).into_response()),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "this tenant has no value under this key")),
    }
}

/// The value's address for somebody else, who sees there what this session sees, for as long as links say something.
async fn link(place: Place, context: Option<RywContext>, uri: Uri) -> Result<String, Problem> {
    checked(place)?;
    let value = uri.path().strip_suffix("/link").unwrap_or(uri.path());
    Ok(context.map_or_else(|| value.to_owned(), |context| context.share_link(value)))
}

async fn write(State(app): State<App>, place: Place, request: Request) -> Result<StatusCode, Problem> {
    let (tenant, key) = checked(place)?;
    let value = body(request.into_body(), MAX_VALUE).await?;
    app.backend.put(tenant.as_str(), &key, Some(value)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(State(app): State<App>, place: Place) -> Result<StatusCode, Problem> {
    let (tenant, key) = checked(place)?;
    app.backend.put(tenant.as_str(), &key, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tenant and key, if the path is text at all.
type Place = Result<Path<(String, String)>, PathRejection>;

fn checked(place: Place) -> Result<(Tenant, String), Problem> {
    let Path((tenant, key)) = place.map_err(|error| {
        let accepted = format!("a tenant is 1 to 128 of A-Z a-z 0-9 . _ ~ - and a key 1 to {MAX_KEY} bytes of UTF-8");
        Problem::bad_request(format!("the path can't be read: {}; {accepted}", error.body_text()))
    })?;
    let tenant = tenant.parse().map_err(|error| Problem::bad_request(format!("{error}")))?;
    // PostgreSQL's text can't hold a NUL.
    if key.len() > MAX_KEY || key.contains('\0') {
        return Err(Problem::bad_request(format!("malformed key: accepted are 1 to {MAX_KEY} bytes without NUL")));
    }
    Ok((tenant, key))
}

pub(super) async fn body(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let detail = format!("the body is too large: at most {limit} bytes are accepted");
    let too_large = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail);
    // Announced, so that it need not be read to be refused. What is hardly too large is read all the same: a client that
    // is cut off while it sends may not see the answer.
    if body.size_hint().lower() > 2 * limit as u64 {
        return Err(too_large);
    }
    match timeout(BODY_DEADLINE, Limited::new(body, limit).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(error)) => Err(Problem::bad_request(format!("the body could not be read: {error}"))),
        Err(_) => {
            // The layer takes this status for a write that was given up; here nothing has been written yet.
            RywContext::current().iter().for_each(RywContext::mark_not_written);
            let detail = format!("the body did not arrive within {} s", BODY_DEADLINE.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

impl From<BackendError> for Problem {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Full(error) => Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
            error => {
                tracing::error!(%error, "the store failed");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the store can't be reached; try again later")
            }
        }
    }
}
