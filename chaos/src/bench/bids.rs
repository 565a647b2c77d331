//! Durable bids a second: real processes, real sockets, each accepted bid fsynced by a majority before its verdict.
//!
//! A client is a pair of people on two sockets with an auction of their own, one bid under way: `clients` bids are in
//! flight, spread over all shards and edges. Harness and cluster share the machine, and its cores: so the figures come
//! with the CPU that the nodes used per accepted bid, with the clients' own, and with what others used meanwhile.

use super::{Pair, SETUP, fresh_in, open, usage};
use anyhow::{Result, ensure};
use client::{Api, Role};
use futures_util::{StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How hard.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BidsOptions {
    /// Pairs of people, each pair with one bid under way.
    #[arg(long, default_value_t = 256)]
    pub(super) clients: usize,
    /// Measured time; two seconds before it are not counted.
    #[arg(long, default_value_t = 10)]
    pub(super) seconds: u64,
    /// Shards of the cluster.
    #[arg(long, default_value_t = 16)]
    pub(super) shards: u32,
    /// Where the nodes keep their data: the disk that is measured. If absent, the folder for temporary files.
    #[arg(long)]
    pub(super) dir: Option<PathBuf>,
}

const WARM: Duration = Duration::from_secs(2);

/// What one client counted.
struct Counts {
    accepted: Histogram<u64>,
    refused: u64,
    unknown: u64,
}

/// Runs it; the figures as JSON.
pub(crate) async fn bids(options: &BidsOptions) -> Result<serde_json::Value> {
    ensure!(
        options.clients > 0 && options.seconds > 0,
        "clients and seconds must be at least 1"
    );
    let (dir, cluster, api) = fresh_in(options.dir.as_deref(), options.shards).await?;
    tracing::info!(clients = options.clients, "opening auctions, signing in");
    let pairs = pairs(&api, options).await?;
    let from = Instant::now() + WARM;
    let until = from + Duration::from_secs(options.seconds);
    let mut tasks = JoinSet::new();
    for pair in pairs {
        tasks.spawn(one(pair, from, until));
    }
    let (nodes, me) = (cluster.pids(), [std::process::id()]);
    let groups: [&[u32]; 2] = [&nodes, &me];
    let spent = usage::between(&groups, from, until).await?;
    let mut latency = Histogram::<u64>::new(3)?;
    let (mut refused, mut unknown) = (0, 0);
    while let Some(counts) = tasks.join_next().await {
        let counts = counts??;
        latency.add(&counts.accepted)?;
        refused += counts.refused;
        unknown += counts.unknown;
    }
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    let all = Counts {
        accepted: latency,
        refused,
        unknown,
    };
    Ok(figures(options, &all, &spent))
}

/// The line: what all clients counted, and what it cost the nodes (first group) and the clients (second).
fn figures(options: &BidsOptions, all: &Counts, spent: &usage::Spent) -> serde_json::Value {
    let latency = &all.accepted;
    let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    let cpu_us = |group: usize| (spent.groups[group] * 1e7 / latency.len().max(1) as f64).round() / 10.0;
    serde_json::json!({
        "bench": "bids", "bids_per_s": (latency.len() as f64 / options.seconds as f64).round(),
        "p50_ms": ms(0.5), "p99_ms": ms(0.99), "max_ms": latency.max() as f64 / 1e3,
        "clients": options.clients, "shards": options.shards, "seconds": options.seconds, "loop": "closed",
        "refused": all.refused, "unknown": all.unknown,
        "cpu_us_per_bid": cpu_us(0), "client_cpu_us_per_bid": cpu_us(1), "others_percent": spent.others_percent(),
    })
}

async fn pairs(api: &Api, options: &BidsOptions) -> Result<Vec<Pair>> {
    // A seller each: one person who opens hundreds of auctions at once is, rightly, told to slow down.
    let one = |n: usize| {
        let id = format!("bench-{n}");
        async move {
            let seller = api.with_token(&api.guest(&format!("s{n}"), Role::Seller).await?.token);
            open(&seller, &id, options.seconds).await?;
            Pair::new(api, id, n).await
        }
    };
    futures_util::stream::iter(0..options.clients)
        .map(one)
        .buffer_unordered(SETUP)
        .try_collect()
        .await
}

async fn one(mut pair: Pair, from: Instant, until: Instant) -> Result<Counts> {
    let mut counts = Counts {
        accepted: Histogram::new(3)?,
        refused: 0,
        unknown: 0,
    };
    while Instant::now() < until {
        let called = Instant::now();
        let (_, verdict) = pair.bid().await;
        let done = Instant::now();
        if called < from || done > until {
            continue;
        }
        match verdict {
            Ok(verdict) if verdict.ok => counts.accepted.record((done - called).as_micros() as u64)?,
            Ok(_) | Err(client::BidError::Refused(_)) => counts.refused += 1,
            Err(_) => counts.unknown += 1,
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_line_has_the_keys_that_it_is_read_by() {
        let options = BidsOptions {
            clients: 2,
            seconds: 2,
            shards: 1,
            dir: None,
        };
        let mut accepted = Histogram::<u64>::new(3).unwrap();
        for micros in [500, 1_000, 1_500, 2_000] {
            accepted.record(micros).unwrap();
        }
        let all = Counts {
            accepted,
            refused: 1,
            unknown: 0,
        };
        let spent = usage::Spent {
            groups: vec![4.0, 8.0],
            seconds: 2.0,
            others: 0.0,
        };
        let figures = figures(&options, &all, &spent);
        assert_eq!(figures["bids_per_s"], 2.0, "{figures}");
        assert_eq!(figures["p50_ms"], 1.0);
        assert_eq!(figures["p99_ms"], 2.0);
        assert_eq!(figures["refused"], 1);
        assert_eq!(figures["cpu_us_per_bid"], 1_000_000.0);
    }
}
