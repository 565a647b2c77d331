//! `/healthz`, `/readyz`, `/metrics`.
//!
//! Liveness asks only whether this process answers: an orchestrator that restarts a node because something *beside* it
//! is down makes an outage out of a hiccup. Readiness says whether to send users here, and if not, why.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Why a node isn't ready, each a line for an operator; empty: it is.
pub(crate) type Reasons = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Brings gauges up to date just before they are shown.
pub(crate) type Measure = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone)]
struct Health {
    reasons: Reasons,
    measure: Measure,
    began: Instant,
    metrics: PrometheusHandle,
}

/// The three routes.
pub(crate) fn routes(reasons: Reasons, measure: Measure, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({"ok": true})) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(Health {
            reasons,
            measure,
            began: Instant::now(),
            metrics,
        })
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    let reasons = (health.reasons)();
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({"ready": reasons.is_empty(), "reasons": reasons})))
}

async fn render(State(health): State<Health>) -> impl IntoResponse {
    (health.measure)();
    crate::metrics::alive(health.began.elapsed(), (health.reasons)().is_empty());
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        health.metrics.render(),
    )
}
