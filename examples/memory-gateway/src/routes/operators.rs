//! What operators look at: about this instance, not about anybody's data.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_ryw::{RywLayer, topology::NodeState};

use super::wrong_method;
use crate::{backend::Backend, prometheus::Prometheus, store::Shared};

/// Seconds of lag from which a node is degraded, or critical.
const LAG_DEGRADED: f64 = 10.0;
const LAG_CRITICAL: f64 = 30.0;

/// What the operators' routes show.
#[derive(Clone, Debug)]
pub(crate) struct Insight {
    pub(crate) backend: Backend,
    pub(crate) layer: RywLayer,
    pub(crate) shared: Shared,
    pub(crate) prometheus: Prometheus,
}

/// Not to be wrapped in a layer.
pub(crate) fn operators(insight: Insight) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/metrics", get(metrics))
        .route("/api/admin/read-after-write/stats", get(stats))
        .method_not_allowed_fallback(wrong_method)
        .with_state(insight)
}

impl Insight {
    fn marks(&self) -> usize {
        self.layer.local_store().len()
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
    let health = insight.layer.store_health();
    if health.is_some_and(|health| health.away.is_some()) {
        worst = worst.max(1);
    }
    let status = ["ok", "degraded", "critical"][worst];
    let code = if worst == 2 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let store = insight.shared.describe(insight.marks(), health);
    (code, Json(serde_json::json!({ "status": status, "nodes": nodes, "store": store }))).into_response()
}

/// Prometheus text format.
async fn metrics(State(insight): State<Insight>) -> Response {
    match insight.prometheus.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics can't be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn stats(State(insight): State<Insight>) -> Json<serde_json::Value> {
    let stats = insight.layer.stats().snapshot();
    let seconds = |age: Duration| age.as_secs_f64();
    let ages = insight.layer.local_store().ages();
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
