//! What the process says about itself: log lines, traces, metrics.
//!
//! Log lines go to stderr. Traces go to OTLP when an endpoint is set, and only from our own crates: the exporter's HTTP/2
//! client makes spans too, and exporting those would make more. Metrics are declared by each crate's `metrics.rs`
//! and rendered at `/metrics` by whoever asks; nothing is pushed.

use crate::config::{Config, LogFormat};
use anyhow::{Context as _, Result};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry};

/// The crates whose spans are traced.
const OURS: &[&str] = &["rushroom", "raft_store", "router", "sfu", "client"];

/// What must be stopped in order when the process ends.
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Starts log lines and traces. Once per process.
pub(crate) fn start(config: &Config) -> Result<Telemetry> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let traces = if config.telemetry_otlp.is_empty() {
        None
    } else {
        Some(provider(config)?)
    };
    let filter = EnvFilter::try_new(&config.telemetry_log).context("telemetry.log")?;
    let plain = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.telemetry_format {
        LogFormat::Text => plain.with_ansi(false).with_filter(filter).boxed(),
        LogFormat::Json => plain.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let spans = traces.as_ref().map(|provider| {
        let ours = filter_fn(|meta| is_ours(meta.target())).and(LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("rushroom"))
            .with_filter(ours)
    });
    Registry::default()
        .with(lines)
        .with(spans)
        .try_init()
        .context("starting telemetry twice")?;
    Ok(Telemetry { traces })
}

/// Log lines only, for commands that aren't a node.
pub(crate) fn lines(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter).context("the log filter")?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    Registry::default()
        .with(lines.with_filter(filter))
        .try_init()
        .context("starting telemetry twice")
}

fn is_ours(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or(target);
    OURS.contains(&root)
}

fn provider(config: &Config) -> Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.telemetry_otlp)
        .build()
        .context("telemetry.otlp")?;
    let share = f64::from(config.telemetry_sample_ppm) / 1e6;
    let resource = Resource::builder()
        .with_service_name("rushroom")
        .with_attribute(opentelemetry::KeyValue::new(
            "service.instance.id",
            config.node_id.to_string(),
        ))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
        .with_resource(resource)
        .build())
}

impl Telemetry {
    /// Sends what is left. A collector that is gone costs its timeout, not the exit code.
    pub(crate) fn stop(self) {
        if let Some(Err(error)) = self.traces.map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn only_our_own_crates_are_traced() {
        let table = [
            ("rushroom::grpc", true),
            ("router", true),
            ("h2::codec", false),
            ("router_like", false),
            ("tonic", false),
        ];
        for (target, expect) in table {
            assert_eq!(is_ours(target), expect, "{target}");
        }
    }
}
