//! What finished auctions cost a shard that goes on: memory, snapshots, a start, and the bids of today.
//!
//! Auctions are opened, bid on and called off one after another by each of some pairs of people, until there are as many as were asked
//! for; then the bench waits until every node has them on disk (or doesn't, with `--cold-after-ms 0`: what it was like before). What is measured
//! then: resident memory of the nodes, bids a second on new auctions, the newest snapshot, and how long a node takes that was killed, from its start
//! to saying that it is ready.
//!
//! The log is compacted often here, so that the bids of the measured time make a snapshot that leaves out what is cold.

use super::{
    Pair, SETUP, fresh_with, open,
    usage::{self, round1},
};
use anyhow::{Result, bail, ensure};
use client::{Api, Role};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How many, how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HistoryOptions {
    /// Finished auctions.
    #[arg(long, default_value_t = 1_000)]
    auctions: usize,
    /// Accepted bids in each.
    #[arg(long, default_value_t = 100)]
    bids: usize,
    /// Pairs of people, each pair with one bid under way.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    clients: u64,
    /// Shards of the cluster.
    #[arg(long, default_value_t = 1)]
    shards: u32,
    /// Measured time, of bids on new auctions.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// `raft.cold_after_ms` of the nodes. 0: finished auctions stay in memory.
    #[arg(long, default_value_t = 1_000)]
    cold_after_ms: u64,
    /// Where the nodes keep their data. If absent, the folder for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Auctions of one seller: more at once would be told to slow down.
const SOLD: usize = 40;
/// Nodes that don't have everything on disk by then never will.
const FAILED: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(200);

/// Runs it; the figures as JSON.
pub(crate) async fn history(options: &HistoryOptions) -> Result<Value> {
    let more = format!(
        "\n[raft]\ncold_after_ms = {}\nsnapshot_after_bytes = 1048576\n",
        options.cold_after_ms
    );
    let (dir, mut cluster, api) = fresh_with(options.dir.as_deref(), options.shards, &more).await?;
    let began = Instant::now();
    let pairs = pairs(&api, options.clients as usize).await?;
    let mut pairs = make(&api, pairs, options).await?;
    let made = began.elapsed().as_secs_f64();
    tracing::info!(made, "the history is made");
    if options.cold_after_ms > 0 {
        on_disk(dir.path(), 3 * options.auctions as u64).await?;
    }
    let nodes = cluster.pids();
    let rss: Vec<f64> = nodes.iter().map(|pid| usage::rss_mib(*pid)).collect::<Result<_>>()?;
    for (n, pair) in pairs.iter_mut().enumerate() {
        let seller = seller(&api, &format!("new{n}")).await?;
        (pair.auction, pair.amount) = (format!("new-{n}"), 99);
        open(&seller, &pair.auction, options.seconds).await?;
    }
    let groups: [&[u32]; 1] = [&nodes];
    let before = usage::Usage::now(&groups)?;
    let accepted = today(pairs, Duration::from_secs(options.seconds)).await?;
    let spent = before.since(&groups)?;
    let snapshot = largest(dir.path(), "snap").max();
    let cold: u64 = largest(dir.path(), "cold").sum();
    cluster.kill(1)?;
    let started = Instant::now();
    cluster.spawn(1)?;
    cluster.ready(1, &api, FAILED).await?;
    let restart = started.elapsed().as_secs_f64();
    let again = cluster.pids().first().map_or(Ok(0.0), |pid| usage::rss_mib(*pid))?;
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    Ok(json!({
        "bench": "history", "auctions": options.auctions, "bids_each": options.bids, "shards": options.shards, "clients": options.clients,
        "cold_after_ms": options.cold_after_ms, "rss_mib_max": rss.iter().copied().fold(0.0, f64::max), "rss_mib_restarted": again,
        "snapshot_bytes_max": snapshot, "cold_bytes_all_nodes": cold, "restart_s": round1(restart),
        "bids_per_s": (accepted as f64 / options.seconds as f64).round(), "cpu_us_per_bid": round1(spent.groups[0] * 1e6 / accepted.max(1) as f64),
        "seconds": options.seconds, "made_s": round1(made), "others_percent": spent.others_percent(),
    }))
}

async fn seller(api: &Api, name: &str) -> Result<Api> {
    Ok(api.with_token(&api.guest(name, Role::Seller).await?.token))
}

async fn pairs(api: &Api, clients: usize) -> Result<Vec<Pair>> {
    let one = |n: usize| Pair::new(api, String::new(), n);
    let all = futures_util::stream::iter(0..clients).map(one);
    all.buffer_unordered(SETUP).try_collect().await
}

/// Makes the history; gives the people back.
async fn make(api: &Api, pairs: Vec<Pair>, options: &HistoryOptions) -> Result<Vec<Pair>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for (n, mut pair) in pairs.into_iter().enumerate() {
        let (api, next, options) = (api.clone(), next.clone(), options.clone());
        tasks.spawn(async move {
            let mut sold = 0;
            let mut selling = seller(&api, &format!("s{n}-0")).await?;
            loop {
                let lot = next.fetch_add(1, Ordering::Relaxed);
                if lot >= options.auctions {
                    return anyhow::Ok(pair);
                }
                sold += 1;
                if sold % SOLD == 0 {
                    selling = seller(&api, &format!("s{n}-{sold}")).await?;
                }
                (pair.auction, pair.amount) = (format!("old-{lot}"), 99);
                open(&selling, &pair.auction, 3_600).await?;
                let mut accepted = 0;
                while accepted < options.bids {
                    let (_, verdict) = pair.bid().await;
                    accepted += usize::from(verdict.is_ok_and(|verdict| verdict.ok));
                }
                selling.cancel(&pair.auction, "over").await?;
            }
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.push(done??);
    }
    Ok(all)
}

/// Bids on new auctions; how many were accepted.
async fn today(pairs: Vec<Pair>, time: Duration) -> Result<u64> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for mut pair in pairs {
        tasks.spawn(async move {
            let mut accepted = 0;
            while Instant::now() < until {
                let (_, verdict) = pair.bid().await;
                accepted += u64::from(verdict.is_ok_and(|verdict| verdict.ok));
            }
            accepted
        });
    }
    let mut all = 0;
    while let Some(done) = tasks.join_next().await {
        all += done?;
    }
    Ok(all)
}

/// Waits until all nodes together have so many on disk: an entry of the index each, and one for its head.
async fn on_disk(dir: &Path, many: u64) -> Result<()> {
    let until = Instant::now() + FAILED;
    loop {
        let there: u64 = largest(dir, "cidx").map(|bytes| (bytes / 128).saturating_sub(1)).sum();
        if there >= many {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{there} of {many} are on disk after {FAILED:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Bytes of each file of an ending, below a folder.
fn largest(dir: &Path, ending: &str) -> impl Iterator<Item = u64> {
    let (mut folders, mut found) = (vec![dir.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = file.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(file.metadata().map_or(0, |file| file.len()));
            }
        }
    }
    found.into_iter()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_found_below_by_their_ending() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("node-1/cold");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(below.join("a.cidx"), [0; 256]).unwrap();
        std::fs::write(dir.path().join("b.cidx"), [0; 128]).unwrap();
        std::fs::write(below.join("c.cold"), [0; 7]).unwrap();
        let mut found: Vec<u64> = largest(dir.path(), "cidx").collect();
        found.sort_unstable();
        assert_eq!(found, [128, 256]);
        assert_eq!(largest(dir.path(), "snap").count(), 0);
    }
}
