//! One running node: built from its settings, served until told to stop, drained.

use crate::config::Config;
use crate::{health, metrics};
use anyhow::{Context as _, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a node until SIGTERM or SIGINT.
pub(crate) async fn run(config: Config) -> Result<()> {
    let metrics = metrics::install(config.node_id)?;
    let upkeep = tokio::spawn(upkeep(metrics.clone()));
    let listener = TcpListener::bind(config.http_listen)
        .await
        .with_context(|| format!("http.listen {}", config.http_listen))?;
    let app = health::routes(Arc::new(Vec::new), metrics);
    tracing::info!(node = config.node_id, http = %listener.local_addr()?, "serving");
    axum::serve(listener, app)
        .with_graceful_shutdown(stop_asked())
        .await
        .context("serving HTTP")?;
    upkeep.abort();
    Ok(())
}

/// Histograms keep raw samples until someone renders them; this bounds them when nobody does.
async fn upkeep(metrics: metrics_exporter_prometheus::PrometheusHandle) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        every.tick().await;
        metrics.run_upkeep();
    }
}

async fn stop_asked() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        // Without handlers the default action ends the process: nothing to wait for, and nothing lost.
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
}
