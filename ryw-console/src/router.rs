//! The routes.

use std::{error::Error, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use serde::Deserialize;
use tower_ryw::RywLayer;

use crate::{
    Recorder, TokenTooShort,
    access::{self, Access, guard},
    decisions::Decision,
    health::{Node, Status, Thresholds, health},
    live::{self, Live, Routing},
    problem::problem,
};

const PAGE: &str = include_str!("../assets/console.html");
const STYLE: &str = include_str!("../assets/console.css");
const SCRIPT: &str = include_str!("../assets/console.js");

const DECISIONS: usize = 100;
const MAX_DECISIONS: usize = 500;
/// The longest name of a session.
const MAX_NAME: usize = 128;

/// The page and its routes, see the [crate's documentation](crate).
#[derive(Clone, Debug)]
#[must_use]
pub struct Console {
    shown: Shown,
    access: Access,
}

#[derive(Clone, Debug)]
struct Shown {
    layer: RywLayer,
    recorder: Recorder,
    thresholds: Thresholds,
}

impl Console {
    /// Shows this layer. `recorder` has to be the layer's observer, or one of them; otherwise no decisions are shown.
    pub fn new(layer: &RywLayer, recorder: &Recorder) -> Self {
        let shown = Shown { layer: layer.clone(), recorder: recorder.clone(), thresholds: Thresholds::default() };
        Self { shown, access: Access::default() }
    }

    /// From where on something is degraded or critical. Default: [`Thresholds::default`].
    pub fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.shown.thresholds = thresholds;
        self
    }

    /// Another name that the page may be asked for by, without a port: that of a proxy which knows who may look. Default:
    /// `localhost`, `127.0.0.1` and `::1`.
    pub fn allow_host(mut self, name: impl Into<String>) -> Self {
        self.access.hosts.push(name.into());
        self
    }

    /// Callers have to give this secret, as a bearer token or as the password of whatever user; the name that they ask by
    /// does not matter then. Compared in constant time. It crosses the network as it is: put TLS in front. Default: none.
    ///
    /// # Errors
    /// [`TokenTooShort`] when it has less than 16 bytes.
    pub fn token(mut self, token: &str) -> Result<Self, TokenTooShort> {
        self.access.set_token(token)?;
        Ok(self)
    }

    /// Whether [`token`](Self::token) takes this secret: to be asked before anything is started.
    ///
    /// # Errors
    /// [`TokenTooShort`] when it has less than 16 bytes.
    pub fn check_token(token: &str) -> Result<(), TokenTooShort> {
        access::check(token)
    }

    /// Other routes behind the same guard, without the page: where they are on another listener than the page is.
    pub fn guard(self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(Arc::new(self.access), guard))
    }

    /// The routes. They have to stay outside of the layer that they show.
    pub fn into_router(self) -> Router {
        self.into_router_with(Router::new())
    }

    /// The routes, and other ones for the same eyes: `others` are behind the same guard.
    pub fn into_router_with(self, others: Router) -> Router {
        let console = Router::new()
            .route("/ryw", get(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], PAGE)))
            // The page names its parts from where it is.
            .route("/ryw/", get(|| async { Redirect::permanent("../ryw") }))
            .route("/ryw/console.css", get(([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)))
            .route("/ryw/console.js", get(([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT)))
            .route("/ryw/live", get(all))
            .route("/ryw/health", get(verdict))
            .route("/ryw/nodes", get(nodes))
            .route("/ryw/routing", get(routing))
            .route("/ryw/decisions", get(decisions))
            .with_state(Arc::new(self.shown));
        console.merge(others).layer(from_fn_with_state(Arc::new(self.access), guard))
    }
}

async fn all(State(shown): State<Arc<Shown>>) -> Json<Live> {
    // Nobody has asked it while there were no requests.
    shown.layer.ask_store().await;
    Json(live::live(&shown.layer, &shown.recorder, &shown.thresholds))
}

async fn verdict(State(shown): State<Arc<Shown>>) -> Response {
    shown.layer.ask_store().await;
    let health = health(&shown.layer, &shown.recorder, &shown.thresholds);
    let code = if health.status == Status::Critical { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(health)).into_response()
}

async fn nodes(State(shown): State<Arc<Shown>>) -> Json<Vec<Node>> {
    Json(live::nodes(&shown.layer, &shown.recorder, &shown.thresholds))
}

async fn routing(State(shown): State<Arc<Shown>>) -> Json<Routing> {
    Json(live::routing(&shown.layer, &shown.recorder))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    session: Option<String>,
    /// `true`: only reads that the primary served.
    primary_reads: Option<bool>,
    limit: Option<usize>,
}

async fn decisions(
    State(shown): State<Arc<Shown>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Vec<Decision>>, Response> {
    let refused = |detail: String| problem(StatusCode::BAD_REQUEST, &detail);
    let Query(asked) = asked.map_err(|error| {
        let accepted = "accepted are session=<hash or name>, primary_reads=true or false, limit=<number>";
        refused(format!("the query can't be read: {}; {accepted}", innermost(&error)))
    })?;
    let session = asked.session.as_deref().map(str::trim).filter(|session| !session.is_empty());
    if session.is_some_and(|session| session.len() > MAX_NAME) {
        return Err(refused(format!("a session is named by at most {MAX_NAME} characters")));
    }
    let limit = asked.limit.unwrap_or(DECISIONS).min(MAX_DECISIONS);
    Ok(Json(shown.recorder.decisions(limit, session, asked.primary_reads == Some(true))))
}

/// What is wrong, without what the framework says around it.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    error.source().map_or(error, innermost)
}
