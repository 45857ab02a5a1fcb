//! `POST /v1/ask`: a question whose body says who asks. The layer goes by the head of a request, so what the body says of session,
//! tenant and level is written there first.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::post,
};
use ryw_core::wire;
use serde::{Deserialize, Serialize};
use tower_ryw::{Level, RywContext, SessionId, Subject, Tenant};

use super::{
    memory::{App, body},
    wrong_method,
};
use crate::problem::Problem;

const MAX_QUESTION: usize = 64 << 10;

/// A question, as the seeds' clients send it.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
struct Asked {
    prompt: String,
    tenant: String,
    session_id: Option<String>,
    conversation_id: Option<String>,
    consistency_level: Option<String>,
}

/// The same, once it is known to make sense.
#[derive(Clone, Debug)]
struct Question {
    prompt: Arc<str>,
    tenant: Tenant,
    session: Option<SessionId>,
    /// Beside the session: whoever reads as this conversation sees the exchange as well.
    conversation: Option<SessionId>,
    level: Option<Level>,
}

#[derive(Debug, Serialize)]
struct Answer {
    answer: String,
    sources: Vec<String>,
    session_id: Option<String>,
    conversation_id: Option<String>,
    recorded_as: String,
}

/// Questions, to be wrapped in a layer and then in [`questions`].
pub(crate) fn asking(app: App) -> Router {
    Router::new().route("/v1/ask", post(ask)).method_not_allowed_fallback(wrong_method).with_state(app)
}

/// Outside of the layer: reads a question, and says in its head what its body says.
pub(crate) async fn questions(request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    match read(request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn read(request: Request) -> Result<Request, Problem> {
    let (mut head, content) = request.into_parts();
    let question = Question::read(&body(content, MAX_QUESTION).await?, &head.headers)?;
    if let Some(session) = &question.session {
        head.headers.insert(&wire::SESSION_ID, session.header_value().clone());
    }
    // Two that differ are for the layer to refuse.
    if let Some(level) = question.level.and_then(|level| HeaderValue::try_from(level.to_string()).ok()) {
        head.headers.append(&wire::CONSISTENCY_LEVEL, level);
    }
    head.extensions.insert(question.tenant.clone());
    head.extensions.insert(question);
    Ok(Request::from_parts(head, Body::empty()))
}

impl Question {
    fn read(body: &[u8], headers: &HeaderMap) -> Result<Self, Problem> {
        let asked: Asked = serde_json::from_slice(body).map_err(|error| {
            let accepted = "{prompt, tenant} and optionally {session_id, conversation_id, consistency_level}";
            Problem::bad_request(format!("the body is not a question: {error}; accepted is JSON of {accepted}"))
        })?;
        let tenant = asked.tenant.parse().map_err(|error| Problem::bad_request(format!("{error}")))?;
        let level = asked.consistency_level.map(|level| level.parse()).transpose();
        let level = level.map_err(|error| Problem::bad_request(format!("consistency_level: {error}")))?;
        let named = name("session_id", asked.session_id)?;
        let conversation = name("conversation_id", asked.conversation_id)?;
        let mut told = headers.get_all(&wire::SESSION_ID).iter();
        // One that can't be read is for the layer to refuse.
        let header = told.next().and_then(|value| SessionId::try_from(value).ok()).filter(|_| told.next().is_none());
        let session = match (named, header) {
            (Some(body), Some(header)) if body != header => {
                return Err(Problem::bad_request(
                    "the body and X-Session-ID name two different sessions: a request belongs to one session",
                ));
            }
            (body, header) => body.or(header),
        };
        // A conversation that has no session besides is one.
        let (session, conversation) = match session {
            Some(session) => (Some(session), conversation),
            None if headers.contains_key(&wire::SESSION_ID) => (None, None),
            None => (conversation, None),
        };
        Ok(Self { prompt: asked.prompt.into(), tenant, session, conversation, level })
    }
}

fn name(field: &str, name: Option<String>) -> Result<Option<SessionId>, Problem> {
    let name = name.map(|name| name.parse()).transpose();
    name.map_err(|error| Problem::bad_request(format!("{field}: {error}")))
}

/// Answers from the tenant's memory, and remembers the exchange: a write of the session, and of the conversation.
async fn ask(
    State(app): State<App>,
    context: Option<RywContext>,
    Extension(question): Extension<Question>,
) -> Result<Json<Answer>, Problem> {
    let Question { prompt, tenant, session, conversation, .. } = question;
    if let (Some(context), Some(conversation)) = (&context, &conversation) {
        let marked = context.on_behalf_of(&Subject::session(conversation));
        marked.map_err(|error| Problem::bad_request(error.to_string()))?;
    }

    let (mut sources, mut lines) = (Vec::new(), Vec::new());
    let asked = prompt.to_lowercase();
    for (key, value) in app.backend.list(app.via, tenant.as_str(), 1000).await? {
        if !key.starts_with("ask.") && asked.contains(&key.to_lowercase()) {
            lines.push(format!("{key}: {}", String::from_utf8_lossy(&value)));
            sources.push(key);
        }
    }
    let answer = if lines.is_empty() { "nothing is remembered about that".to_owned() } else { lines.join("\n") };
    let whose = conversation.as_ref().or(session.as_ref());
    let recorded_as = format!("ask.{}", whose.map_or("anonymous", SessionId::as_str));
    let exchange = serde_json::json!({ "prompt": &*prompt, "answer": answer });
    app.backend.put(tenant.as_str(), &recorded_as, Some(exchange.to_string().into())).await?;
    let [session_id, conversation_id] = [session, conversation].map(|name| name.map(|name| name.to_string()));
    Ok(Json(Answer { answer, sources, session_id, conversation_id, recorded_as }))
}
