//! The service itself: handlers that know nothing about replicas.

use std::time::Duration;

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use ryw_core::wire;
use serde::{Deserialize, Serialize};
use tower_ryw::{
    Level, LocalStore, RequestHead, RywContext, RywLayer, SessionId, Subject, Tenant, topology::NodeState,
};

use crate::{
    backend::{Backend, BackendError, Via},
    problem::Problem,
};

const MAX_VALUE: usize = 1 << 20;
const MAX_QUESTION: usize = 64 << 10;
const MAX_KEY: usize = 512;
/// Seconds of lag from which a node is degraded, or critical.
const LAG_DEGRADED: f64 = 10.0;
const LAG_CRITICAL: f64 = 30.0;

/// What the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) backend: Backend,
    pub(crate) via: Via,
}

/// What the operators' routes show.
#[derive(Clone, Debug)]
pub(crate) struct Insight {
    pub(crate) backend: Backend,
    pub(crate) layer: RywLayer,
}

/// The values, to be wrapped in a layer.
pub(crate) fn memory(app: App) -> Router {
    Router::new()
        .route("/v1/memory/{tenant}/{key}", get(read).put(write).delete(remove))
        .route("/v1/ask", post(ask))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing here: try /v1/memory/{tenant}/{key}"))
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// For operators: not wrapped, because it is about this instance and not about anybody's data.
pub(crate) fn operators(insight: Insight) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/metrics", get(metrics))
        .route("/api/admin/read-after-write/stats", get(stats))
        .method_not_allowed_fallback(wrong_method)
        .with_state(insight)
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

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let accepted = match uri.path() {
        "/v1/ask" => "POST",
        path if path.starts_with("/v1/memory/") => "GET, HEAD, PUT and DELETE",
        _ => "GET and HEAD",
    };
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not possible here: accepted are {accepted}"))
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

async fn body(body: Body, limit: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is too large: at most {limit} bytes are accepted");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Err(error) => Err(Problem::bad_request(format!("the body could not be read: {error}"))),
    }
}

/// A question, as the seeds' clients send it.
#[derive(Debug, Deserialize)]
struct Question {
    prompt: String,
    tenant: String,
    session_id: Option<String>,
    conversation_id: Option<String>,
    consistency_level: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    answer: String,
    sources: Vec<String>,
    session_id: Option<String>,
    recorded_as: String,
}

/// Answers from the tenant's memory, and remembers the exchange: a write, made for the session that the body names.
async fn ask(
    State(app): State<App>,
    context: Option<RywContext>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Answer>, Problem> {
    let body = body(request.into_body(), MAX_QUESTION).await?;
    let question: Question = serde_json::from_slice(&body).map_err(|error| {
        let accepted = "{prompt, tenant} and optionally {session_id, conversation_id, consistency_level}";
        Problem::bad_request(format!("the body is not a question: {error}; accepted is JSON of {accepted}"))
    })?;
    let tenant: Tenant = question.tenant.parse().map_err(|error| Problem::bad_request(format!("{error}")))?;
    if let Some(level) = &question.consistency_level {
        // The primary answers, so every level is achieved; a word that is none is a mistake all the same.
        level.parse::<Level>().map_err(|error| Problem::bad_request(format!("consistency_level: {error}")))?;
    }
    let session = session(&question, &headers)?;
    if let (Some(context), Some(session)) = (&context, &session) {
        let subject = Subject::session(session);
        context.on_behalf_of_in(&tenant, &subject).map_err(|error| Problem::bad_request(error.to_string()))?;
    }

    let (mut sources, mut lines) = (Vec::new(), Vec::new());
    let prompt = question.prompt.to_lowercase();
    for (key, value) in app.backend.list(app.via, tenant.as_str(), 1000).await? {
        if !key.starts_with("ask.") && prompt.contains(&key.to_lowercase()) {
            lines.push(format!("{key}: {}", String::from_utf8_lossy(&value)));
            sources.push(key);
        }
    }
    let answer = if lines.is_empty() { "nothing is remembered about that".to_owned() } else { lines.join("\n") };
    let recorded_as = format!("ask.{}", session.as_ref().map_or("anonymous", SessionId::as_str));
    let exchange = serde_json::json!({ "prompt": question.prompt, "answer": answer });
    app.backend.put(tenant.as_str(), &recorded_as, Some(exchange.to_string().into())).await?;
    let session_id = session.map(|session| session.to_string());
    Ok(Json(Answer { answer, sources, session_id, recorded_as }))
}

/// The session from the body or the header; both may name it, but not differently.
fn session(question: &Question, headers: &HeaderMap) -> Result<Option<SessionId>, Problem> {
    let named = question.session_id.as_ref().or(question.conversation_id.as_ref());
    let named = named.map(|name| name.parse::<SessionId>()).transpose();
    let named = named.map_err(|error| Problem::bad_request(format!("session_id or conversation_id: {error}")))?;
    let header = headers.get(&wire::SESSION_ID).and_then(|value| SessionId::try_from(value).ok());
    match (named, header) {
        (Some(body), Some(header)) if body != header => Err(Problem::bad_request(
            "the body and X-Session-ID name two different sessions: a request belongs to one session",
        )),
        (body, header) => Ok(body.or(header)),
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

impl Insight {
    fn marks(&self) -> usize {
        self.layer.local_store().map_or(0, LocalStore::len)
    }
}

async fn health(State(insight): State<Insight>) -> Response {
    let view = insight.backend.topology().view();
    let end = view.primary().and_then(|primary| primary.applied());
    let mut worst = if view.primary().is_none() { 2 } else { 0 };
    let mut nodes = Vec::new();
    for node in view.nodes() {
        let lag = node.fresh_as_of().map(|since| since.elapsed().as_secs_f64());
        let behind = node.applied().zip(end).map(|(applied, end)| end.offset().saturating_sub(applied.offset()));
        let grade = match (node.state(), lag) {
            (NodeState::Primary, _) => 0,
            (NodeState::Replica, Some(lag)) if lag < LAG_DEGRADED => 0,
            (NodeState::Replica, Some(lag)) if lag < LAG_CRITICAL => 1,
            (NodeState::Replica, _) => 2,
            _ => 1,
        };
        worst = worst.max(grade);
        nodes.push(serde_json::json!({
            "name": node.name().as_str(),
            "state": format!("{:?}", node.state()).to_lowercase(),
            "epoch": node.applied().map(|position| position.epoch().get()),
            "position": node.applied().map(|position| position.offset()),
            "lag": behind,
            "lag_seconds": lag,
            "last_seen_ms": node.read_at().map(|at| at.elapsed().as_millis()),
        }));
    }
    let status = ["ok", "degraded", "critical"][worst];
    let code = if worst == 2 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let store = serde_json::json!({ "kind": "local", "marks": insight.marks() });
    (code, Json(serde_json::json!({ "status": status, "nodes": nodes, "store": store }))).into_response()
}

/// Prometheus text format.
async fn metrics(State(insight): State<Insight>) -> Response {
    let stats = insight.layer.stats().snapshot();
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: Vec<(String, u64)>| {
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        values.into_iter().for_each(|(labels, value)| text += &format!("{name}{labels} {value}\n"));
    };
    let one = |value: u64| vec![(String::new(), value)];
    let sessions = u64::try_from(insight.marks()).unwrap_or(u64::MAX);
    let routed = stats.routed.iter();
    let routed: Vec<_> =
        routed.map(|(route, reason, n)| (format!("{{route=\"{route}\",reason=\"{reason}\"}}"), *n)).collect();
    let decisions = routed.iter().map(|(_, n)| n).sum();
    metric("ryw_sessions_active", "gauge", "Subjects with a mark.", one(sessions));
    metric("ryw_enforcement_count", "counter", "Requests that were given a route.", one(decisions));
    metric("ryw_requests_total", "counter", "Requests by route and reason.", routed);
    metric("ryw_marked_total", "counter", "Requests whose position was recorded.", one(stats.marked));
    metric("ryw_unknown_outcomes_total", "counter", "Requests that may have written.", one(stats.unknown_outcomes));
    metric(
        "ryw_degraded_marks_total",
        "counter",
        "Marks without a position, or not stored.",
        one(stats.degraded_marks),
    );
    metric("ryw_tokens_refused_total", "counter", "Tokens that were not believed.", one(stats.tokens_refused));
    metric("ryw_refused_total", "counter", "Requests refused by the layer.", one(stats.refused));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn stats(State(insight): State<Insight>) -> Json<serde_json::Value> {
    let stats = insight.layer.stats().snapshot();
    let seconds = |age: Duration| age.as_secs_f64();
    let ages = insight.layer.local_store().and_then(LocalStore::ages);
    let reads: Vec<_> = stats
        .routed
        .iter()
        .map(|(route, reason, count)| serde_json::json!({ "route": route, "reason": reason.word(), "count": count }))
        .collect();
    Json(serde_json::json!({
        "readAfterWriteStats": {
            "totalEntries": insight.marks(),
            "entriesBySource": { "recorded": stats.marked, "unknownOutcome": stats.unknown_outcomes },
            "oldestEntryAge": ages.map(|(oldest, _)| seconds(oldest)),
            "averageAge": ages.map(|(_, mean)| seconds(mean)),
        },
        "requests": reads,
    }))
}
