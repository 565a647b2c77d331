//! The node's own metrics, and the recorder behind `/metrics`: declared here once, each crate's with it.

use anyhow::{Context as _, Result};
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const INFO: &str = "rushroom_node_info";
const COMMANDS: &str = "rushroom_node_remote_commands_total";
const REFUSED: &str = "rushroom_node_remote_refused_total";
const ROUND_TRIP: &str = "rushroom_node_clock_round_trip_seconds";
const STREAMS: &str = "rushroom_node_stream_commands_total";
const TLS_LEFT: &str = "rushroom_node_tls_left_days";
const TLS_FAILED: &str = "rushroom_node_tls_failed_total";
const TLS_ROTATED: &str = "rushroom_node_tls_rotated_total";
const NOT_ALLOWED: &str = "rushroom_node_not_allowed_total";

/// Seconds.
const DAY: f64 = 86_400.0;

const UPTIME: &str = "rushroom_node_uptime_seconds";
const READY: &str = "rushroom_node_ready";
const LAST_END: &str = "rushroom_node_last_end";
const CHANGES: &str = "rushroom_node_admin_changes_total";

/// The same in milliseconds, for what is counted on a shard's clock.
const BUCKETS_MS: &[f64] = &[
    1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 10_000.0,
];
/// And for what is counted by pieces.
const BUCKETS_PIECES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0,
];
/// Times are kept in these buckets, seconds.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// A packet's stay in the media plane is counted in fractions of these.
const RESIDENCE: &str = "rushroom_media_residence_seconds";
const BUCKETS_RESIDENCE: &[f64] = &[
    0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015,
    0.02, 0.03, 0.05, 0.1, 1.0,
];

/// Installs the recorder and describes every metric of every crate. Once per process.
pub(crate) fn install(node: u64) -> Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), BUCKETS)
        .context("metric buckets")?
        .set_buckets_for_metric(Matcher::Suffix("_ms".into()), BUCKETS_MS)
        .context("metric buckets")?
        .set_buckets_for_metric(Matcher::Suffix("_commands".into()), BUCKETS_PIECES)
        .context("metric buckets")?
        .set_buckets_for_metric(Matcher::Suffix("_records".into()), BUCKETS_PIECES)
        .context("metric buckets")?
        .set_buckets_for_metric(Matcher::Full(RESIDENCE.into()), BUCKETS_RESIDENCE)
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
    metrics::describe_gauge!(UPTIME, Unit::Seconds, "Since this process began");
    metrics::describe_gauge!(READY, Unit::Count, "1 while /readyz says yes");
    metrics::describe_gauge!(
        LAST_END,
        Unit::Count,
        "Always 1; its label says how the process before this one ended: first, clean, crashed, failed, diverged"
    );
    metrics::describe_counter!(
        CHANGES,
        Unit::Count,
        "Changes that operators asked of this node, by outcome (done, shown, a refusal's code) and whether by force"
    );
    describe_tls();
    raft_store::metrics::describe();
    router::metrics::describe();
    // An alert on a counter's rise must see it before it rises.
    admin_change_counter("done".into(), true).increment(0);
    // sfu describes its own when its media plane starts.
    metrics::gauge!(INFO, "version" => raft_store::versions::BUILD, "node" => node.to_string()).set(1.0);
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

/// How this process is, now.
pub(crate) fn alive(uptime: std::time::Duration, ready: bool) {
    metrics::gauge!(UPTIME).set(uptime.as_secs_f64());
    metrics::gauge!(READY).set(f64::from(u8::from(ready)));
}

/// How the process before this one ended.
pub(crate) fn last_end(how: &'static str) {
    metrics::gauge!(LAST_END, "how" => how).set(1.0);
}

/// An operator asked for a change.
pub(crate) fn admin_change(outcome: String, forced: bool) {
    admin_change_counter(outcome, forced).increment(1);
}

fn admin_change_counter(outcome: String, forced: bool) -> metrics::Counter {
    metrics::counter!(CHANGES, "outcome" => outcome, "forced" => if forced { "yes" } else { "no" })
}

/// So many seconds until a certificate is over.
pub(crate) fn tls_left(what: &'static str, seconds: i64) {
    metrics::gauge!(TLS_LEFT, "what" => what).set(seconds as f64 / DAY);
}

/// A handshake failed, or new files weren't taken.
pub(crate) fn tls_failed(at: &'static str, code: &'static str) {
    metrics::counter!(TLS_FAILED, "at" => at, "code" => code).increment(1);
}

/// A node that speaks TLS can fail in these ways, and hasn't yet: a counter that is born with its first failure has no
/// increase that an alert could see.
pub(crate) fn tls_begins() {
    for at in ["dial", "accept", "rotate"] {
        for code in crate::tls::CODES {
            metrics::counter!(TLS_FAILED, "at" => at, "code" => code).increment(0);
        }
    }
}

/// New certificates came into use.
pub(crate) fn tls_rotated() {
    metrics::counter!(TLS_ROTATED).increment(1);
}

/// A call was refused because of who called.
pub(crate) fn not_allowed() {
    metrics::counter!(NOT_ALLOWED).increment(1);
}

fn describe_tls() {
    metrics::describe_gauge!(
        TLS_LEFT,
        Unit::Count,
        "Days until this node's certificate, or the authority that it trusts, is over"
    );
    metrics::describe_counter!(
        TLS_FAILED,
        Unit::Count,
        "Handshakes that failed (accept, dial) and replaced files that were not taken (rotate), by code"
    );
    metrics::describe_counter!(TLS_ROTATED, Unit::Count, "Times that new certificates came into use");
    metrics::describe_counter!(NOT_ALLOWED, Unit::Count, "Calls refused because of who called");
}
