//! What operators look at: about this instance, not about anybody's data.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use ryw_console::{
    Recorder,
    health::{Status, Thresholds, health, is_ready},
};
use tower_ryw::{RywLayer, Source};

use super::{system, wrong_method};
use crate::{backend::Backend, prometheus::Prometheus, store::Shared};

/// What the operators' routes show.
#[derive(Clone, Debug)]
pub(crate) struct Insight {
    pub(crate) backend: Backend,
    pub(crate) layer: RywLayer,
    pub(crate) recorder: Recorder,
    pub(crate) shared: Shared,
    pub(crate) prometheus: Prometheus,
}

/// Not to be wrapped in a layer.
pub(crate) fn operators(insight: Insight) -> Router {
    Router::new()
        .route("/v1/health", get(verdict))
        .route("/livez", get("ok\n"))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(wrong_method)
        .with_state(insight.clone())
        .merge(measured(insight))
}

/// For Prometheus.
pub(crate) fn measured(insight: Insight) -> Router {
    Router::new().route("/metrics", get(metrics)).method_not_allowed_fallback(wrong_method).with_state(insight)
}

/// For administrators.
pub(crate) fn statistics(insight: Insight) -> Router {
    Router::new()
        .route("/api/admin/read-after-write/stats", get(stats))
        .method_not_allowed_fallback(wrong_method)
        .with_state(insight)
}

impl Insight {
    fn marks(&self) -> usize {
        self.layer.local_store().len()
    }
}

/// The verdict of the console, with the store as this program knows it. 503 when critical.
async fn verdict(State(insight): State<Insight>) -> Response {
    // Nobody has asked the store while there were no requests.
    let asked = insight.layer.ask_store().await;
    let health = health(&insight.layer, &insight.recorder, &Thresholds::default());
    let code = if health.status == Status::Critical { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let store = insight.shared.describe(insight.marks(), asked);
    let said = serde_json::json!({
        "status": health.status,
        "enforced": health.enforced,
        "findings": health.findings,
        "nodes": health.nodes,
        "store": store,
        "reads": health.reads,
        "writes": health.writes,
        "thresholds": health.thresholds,
    });
    (code, Json(said)).into_response()
}

/// Whether this instance should be sent requests. A lagging replica is no reason not to.
async fn ready(State(insight): State<Insight>) -> (StatusCode, &'static str) {
    if is_ready(&insight.layer) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "neither a primary nor a replica is in service\n")
    }
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

/// Sums of this instance. Ages are those of the marks that it keeps itself: with a shared store, of its own writes.
async fn stats(State(insight): State<Insight>) -> Json<serde_json::Value> {
    let stats = insight.layer.stats().snapshot();
    let seconds = |age: Duration| age.as_secs_f64();
    let ages = insight.layer.local_store().ages();
    let reads: Vec<_> = stats
        .routed
        .iter()
        .map(|(route, reason, count)| serde_json::json!({ "route": route, "reason": reason.word(), "count": count }))
        .collect();
    let checks: serde_json::Map<_, _> =
        stats.checked.iter().map(|(found, count)| (found.word().to_owned(), (*count).into())).collect();
    // What reads have shown is no write.
    let writes = stats.sources.iter().filter(|(source, _)| *source != Source::Read);
    let sources: serde_json::Map<_, _> =
        writes.map(|(source, count)| (source.word().to_owned(), (*count).into())).collect();
    Json(serde_json::json!({
        "timestamp": system::timestamp(),
        "readAfterWriteStats": {
            "totalEntries": insight.marks(),
            "entriesBySource": sources,
            "oldestEntryAge": ages.map(|(oldest, _)| seconds(oldest)),
            "averageAge": ages.map(|(_, mean)| seconds(mean)),
        },
        "requests": reads,
        "spotChecks": checks,
        "systemInfo": system::info(insight.recorder.uptime()),
    }))
}
