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
use tracing::{Level, Metadata, Subscriber};
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
    let lines = subscriber(&config.telemetry_log, config.telemetry_format, traces.as_ref())?;
    lines.try_init().context("starting telemetry twice")?;
    Ok(Telemetry { traces })
}

/// Log lines, and spans where somebody collects them.
fn subscriber(
    filter: &str,
    format: LogFormat,
    traces: Option<&SdkTracerProvider>,
) -> Result<Box<dyn Subscriber + Send + Sync>> {
    let filter = EnvFilter::try_new(filter).context("telemetry.log")?;
    // Without the hint every `trace!` of every library is asked for at run time.
    let filter = filter.and(filter_fn(is_line).with_max_level_hint(LevelFilter::TRACE));
    let plain = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => plain.with_ansi(false).with_filter(filter).boxed(),
        LogFormat::Json => plain.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let lines = Registry::default().with(lines);
    let Some(provider) = traces else {
        // Not `with(None)`: to the registry a layer that isn't there wants all that the others don't, and gets it built.
        return Ok(Box::new(lines));
    };
    let ours = filter_fn(|meta| is_ours(meta.target())).with_max_level_hint(LevelFilter::INFO);
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("rushroom"));
    Ok(Box::new(lines.with(spans.with_filter(ours.and(LevelFilter::INFO)))))
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

/// Spans are for traces. If lines wanted them too, each bid would build four that nobody reads, where no collector is set.
/// Whoever looks for more in `debug` lines gets those spans with them.
fn is_line(meta: &Metadata<'_>) -> bool {
    !meta.is_span() || *meta.level() > Level::INFO
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Spans that nobody collects, and what libraries would say at `trace`, were a seventh of the processors' time.
    #[test]
    fn without_a_collector_spans_cost_nothing_and_lines_go_on() {
        let lines = subscriber("info", LogFormat::Text, None).unwrap();
        assert_eq!(
            lines.max_level_hint(),
            Some(LevelFilter::INFO),
            "more is asked for, and thrown away"
        );
        tracing::subscriber::with_default(lines, || {
            assert!(tracing::info_span!("a bid's way").is_disabled());
            assert!(tracing::enabled!(Level::INFO));
            assert!(!tracing::enabled!(target: "h2", Level::TRACE));
        });
    }

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
