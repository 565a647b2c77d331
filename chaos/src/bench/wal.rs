//! The log alone: one for all shards of a node, beside one for each, by turns on the same disk.
//!
//! ```text
//!   for each number of shards and of writers, three rounds:   rushroom wal bench (shared), rushroom wal bench --alone
//!   then:                                                     rushroom wal bench --recover 1 GiB
//! ```
//!
//! Medians of the rounds; a ratio is taken within a round, where both ran next to each other, and its median told. How busy
//! the machine was in the minute before is told too (`load_before`): where it isn't small, only ratios mean anything.
//!
//! Deliberately absent: Raft, network, state.

use crate::cluster;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use std::{path::Path, path::PathBuf, process::Stdio};

/// What and how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WalOptions {
    /// On this disk.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Numbers of shards.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,128")]
    groups: Vec<u32>,
    /// Numbers of writers, each of which waits for its write.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    clients: Vec<u32>,
    /// Of each run.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Of each pair of runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Bytes of the log that is recovered; 0: none is.
    #[arg(long, default_value_t = 1 << 30)]
    recover: u64,
}

const FIGURES: [&str; 5] = ["records_per_s", "fsyncs_per_s", "bytes_per_s", "p50_ms", "p99_ms"];

/// Runs it; the figures as one flat object.
pub(crate) async fn wal(options: &WalOptions) -> Result<Value> {
    ensure!(options.rounds > 0, "at least one round");
    let dir = tempfile::tempdir_in(&options.dir)?;
    let load = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let mut out = Map::new();
    for &groups in &options.groups {
        for &clients in &options.clients {
            let rounds = both(dir.path(), groups, clients, options).await?;
            tell(&mut out, groups, clients, &rounds);
        }
    }
    if options.recover > 0 {
        let bytes = options.recover.to_string();
        let seen = once(dir.path(), &["--recover", &bytes, "--groups", "128"]).await?;
        for name in ["recovery_s", "bytes", "records"] {
            out.insert(
                format!("recovered_{name}").replace("recovered_recovery", "recovery"),
                seen[name].clone(),
            );
        }
    }
    out.insert("bench".into(), "wal".into());
    out.insert("rounds".into(), json!(options.rounds));
    out.insert("seconds".into(), json!(options.seconds));
    let load: Option<f64> = load.split(' ').next().and_then(|word| word.parse().ok());
    out.insert("load_before".into(), json!(load));
    Ok(Value::Object(out))
}

/// Shared and alone, next to each other, as often as there are rounds.
async fn both(dir: &Path, groups: u32, clients: u32, options: &WalOptions) -> Result<Vec<[Value; 2]>> {
    let (groups, clients, seconds) = (groups.to_string(), clients.to_string(), options.seconds.to_string());
    let load = ["--groups", &groups, "--clients", &clients, "--seconds", &seconds];
    let mut rounds = Vec::new();
    for round in 0..options.rounds {
        let alone = [&load[..], &["--alone"]].concat();
        // Who goes first changes: what the one leaves to the disk falls on the other.
        let pair = if round % 2 == 0 {
            let shared = once(dir, &load).await?;
            [shared, once(dir, &alone).await?]
        } else {
            let alone = once(dir, &alone).await?;
            [once(dir, &load).await?, alone]
        };
        rounds.push(pair);
    }
    Ok(rounds)
}

async fn once(dir: &Path, args: &[&str]) -> Result<Value> {
    let mut command = tokio::process::Command::new(cluster::binary()?);
    let command = command.args(["wal", "bench"]).arg(dir).args(args);
    let done = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    ensure!(
        done.status.success(),
        "{args:?}: {}: {}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    serde_json::from_slice(&done.stdout).with_context(|| format!("{args:?}"))
}

fn figure(seen: &Value, name: &str) -> f64 {
    seen[name].as_f64().unwrap_or(f64::NAN)
}

fn tell(out: &mut Map<String, Value>, groups: u32, clients: u32, rounds: &[[Value; 2]]) {
    let round = |value: f64| json!((value * 100.0).round() / 100.0);
    for (i, kind) in ["shared", "alone"].into_iter().enumerate() {
        for name in FIGURES {
            let value = median(rounds.iter().map(|pair| figure(&pair[i], name)));
            out.insert(format!("g{groups}_c{clients}_{kind}_{name}"), round(value));
        }
    }
    let ratio = |pair: &[Value; 2]| figure(&pair[0], "records_per_s") / figure(&pair[1], "records_per_s");
    let ratio = median(rounds.iter().map(ratio));
    out.insert(format!("ratio_g{groups}_c{clients}"), round(ratio));
    let rate = |kind: &str| out.get(&format!("g{groups}_c{clients}_{kind}_records_per_s")).cloned();
    tracing::info!(groups, clients, shared = ?rate("shared"), alone = ?rate("alone"), ratio, "measured");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_one_round_and_its_median_is_told() {
        let seen = |rate: f64| json!({"records_per_s": rate, "fsyncs_per_s": 1.0, "bytes_per_s": 1.0, "p50_ms": 1.0, "p99_ms": 1.0});
        // A disk that was three times as slow in one round: no ratio is of two rounds.
        let rounds = [[300.0, 100.0], [100.0, 50.0], [600.0, 240.0]].map(|pair| pair.map(seen));
        let mut out = Map::new();
        tell(&mut out, 64, 16, &rounds);
        assert_eq!(out["ratio_g64_c16"], json!(2.5));
        assert_eq!(out["g64_c16_shared_records_per_s"], json!(300.0));
        assert_eq!(out["g64_c16_alone_records_per_s"], json!(100.0));
        assert_eq!(out.len(), 11);
    }
}
