//! `rushroom wal bench DIR`: the log alone under load, one run, one line of JSON. `chaos bench wal` runs it by turns.
//!
//! It is in this binary so that what is measured is the log that is shipped.
//!
//! Deliberately absent: comparisons and medians.

use crate::cli::say;
use anyhow::{Result, ensure};
use clap::Args;
use raft_store::wal::bench::{Load, recovery, run};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode, time::Duration};

#[derive(Args)]
pub(crate) struct Bench {
    /// An empty folder on the disk that is meant; what is made there is deleted again.
    dir: PathBuf,
    /// Shards that write.
    #[arg(long, default_value_t = 64)]
    groups: u32,
    /// Writers over all shards, each of which waits for its write.
    #[arg(long, default_value_t = 64)]
    clients: u32,
    /// A log for each shard, instead of one for all.
    #[arg(long)]
    alone: bool,
    /// How long.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Bytes of an entry.
    #[arg(long, default_value_t = 200)]
    body: usize,
    /// Instead: how long a start takes over a log of so many bytes.
    #[arg(long, value_name = "BYTES")]
    recover: Option<u64>,
}

/// Runs it, in a folder of its own below the one that was named.
pub(crate) fn bench(bench: &Bench) -> Result<ExitCode> {
    ensure!(
        bench.groups > 0 && bench.clients > 0,
        "at least one shard and one writer"
    );
    let dir = bench.dir.join("wal-bench");
    ensure!(!dir.exists(), "{} is there already", dir.display());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let seen = runtime.block_on(async {
        if let Some(bytes) = bench.recover {
            let seen = recovery(&dir, bytes, bench.groups, bench.body).await?;
            return anyhow::Ok(json!({
                "groups": bench.groups, "bytes": seen.bytes, "records": seen.records, "recovery_s": seen.time.as_secs_f64(),
            }));
        }
        let load = Load {
            groups: bench.groups,
            clients: bench.clients,
            body_bytes: bench.body,
            shared: !bench.alone,
            time: Duration::from_secs_f64(bench.seconds),
            segment_bytes: 4 * 1024 * 1024,
        };
        let seen = run(&dir, load).await?;
        let (seconds, ms) = (seen.time.as_secs_f64(), |wait: Duration| wait.as_secs_f64() * 1_000.0);
        Ok(json!({
            "groups": bench.groups, "clients": bench.clients, "alone": bench.alone, "seconds": seconds,
            "records_per_s": seen.entries as f64 / seconds, "bytes_per_s": seen.bytes as f64 / seconds,
            "fsyncs_per_s": seen.fsyncs as f64 / seconds, "p50_ms": ms(seen.p50), "p99_ms": ms(seen.p99),
        }))
    });
    std::fs::remove_dir_all(&dir)?;
    say(&format!("{}\n", seen?))?;
    Ok(ExitCode::SUCCESS)
}
