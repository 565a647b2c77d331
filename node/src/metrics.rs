//! The node's own metrics, and the recorder behind `/metrics`: declared here once, each crate's with it.

use anyhow::{Context as _, Result};
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const INFO: &str = "rushroom_node_info";
const COMMANDS: &str = "rushroom_node_remote_commands_total";
const REFUSED: &str = "rushroom_node_remote_refused_total";
const ROUND_TRIP: &str = "rushroom_node_clock_round_trip_seconds";
const STREAMS: &str = "rushroom_node_stream_commands_total";

/// Times are kept in these buckets, seconds.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// Installs the recorder and describes every metric of every crate. Once per process.
pub(crate) fn install(node: u64) -> Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), BUCKETS)
        .context("metric buckets")?
        .install_recorder()
        .context("installing the metrics recorder")?;
    metrics::describe_gauge!(
        INFO,
        Unit::Count,
        "Always 1; its labels say which build and node answers"
    );
    metrics::describe_counter!(COMMANDS, Unit::Count, "Commands sent to other nodes");
    metrics::describe_counter!(
        REFUSED,
        Unit::Count,
        "Commands not sent: too many under way, or no connection"
    );
    metrics::describe_histogram!(
        ROUND_TRIP,
        Unit::Seconds,
        "Round trip of clock readings from other nodes"
    );
    metrics::describe_counter!(STREAMS, Unit::Count, "Stream events told to auctions, by result");
    raft_store::metrics::describe();
    router::metrics::describe();
    // sfu describes its own when its media plane starts.
    metrics::gauge!(INFO, "version" => env!("CARGO_PKG_VERSION"), "node" => node.to_string()).set(1.0);
    Ok(handle)
}

/// Commands went out to another node.
pub(crate) fn remote_commands(n: usize) {
    metrics::counter!(COMMANDS).increment(n as u64);
}

/// A command could not go out.
pub(crate) fn remote_refused() {
    metrics::counter!(REFUSED).increment(1);
}

/// A clock reading took this long, there and back.
pub(crate) fn round_trip(micros: u64) {
    metrics::histogram!(ROUND_TRIP).record(micros as f64 / 1e6);
}

/// An auction was told of its stream, or would not hear it.
pub(crate) fn stream_command(result: &'static str) {
    metrics::counter!(STREAMS, "result" => result).increment(1);
}
