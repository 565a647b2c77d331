//! `/healthz`, `/readyz`, `/metrics`.
//!
//! Liveness asks only whether this process answers: an orchestrator that restarts a node because something *beside* it
//! is down makes an outage out of a hiccup. Readiness says whether to send users here, and if not, why; what needs an
//! operator but no other node is a warning beside it.

use axum::extract;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// A node's state, each point a line for an operator.
pub(crate) struct State {
    /// Why it isn't ready; empty: it is.
    pub(crate) reasons: Vec<String>,
    /// What should be looked at all the same.
    pub(crate) warnings: Vec<String>,
}

/// Asks for it.
pub(crate) type Look = Arc<dyn Fn() -> State + Send + Sync>;

/// Brings gauges up to date just before they are shown.
pub(crate) type Measure = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone)]
struct Health {
    look: Look,
    measure: Measure,
    began: Instant,
    metrics: PrometheusHandle,
}

/// The three routes.
pub(crate) fn routes(look: Look, measure: Measure, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({"ok": true})) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(Health {
            look,
            measure,
            began: Instant::now(),
            metrics,
        })
}

async fn ready(extract::State(health): extract::State<Health>) -> impl IntoResponse {
    let State { reasons, warnings } = (health.look)();
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({"ready": reasons.is_empty(), "reasons": reasons, "warnings": warnings})),
    )
}

async fn render(extract::State(health): extract::State<Health>) -> impl IntoResponse {
    (health.measure)();
    crate::metrics::alive(health.began.elapsed(), (health.look)().reasons.is_empty());
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        health.metrics.render(),
    )
}
