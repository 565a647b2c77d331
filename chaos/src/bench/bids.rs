//! Durable bids a second: real processes, real sockets, each accepted bid fsynced by a majority before its verdict.
//!
//! Clients share the auctions evenly and take the next amount of their auction from one counter, so nearly every bid
//! leads when it arrives; those that others overtook on the way are refused (`low`) and counted apart. `bids_per_s` is
//! accepted bids only.

use super::{auctions, fresh, sessions};
use anyhow::{Result, ensure};
use client::{Socket, SocketOptions};
use hdrhistogram::Histogram;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How hard.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BidsOptions {
    /// Sockets, each with one bid under way.
    #[arg(long, default_value_t = 256)]
    clients: usize,
    /// Measured time; two seconds before it are not counted.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Auctions; by default one for four clients.
    #[arg(long)]
    auctions: Option<usize>,
    /// Shards of the cluster.
    #[arg(long, default_value_t = 16)]
    shards: u32,
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
    let (dir, cluster, api) = fresh(options.shards).await?;
    let count = options.auctions.unwrap_or(options.clients.div_ceil(4)).max(1);
    let ids = auctions(&api, count, options.seconds).await?;
    let prices: Arc<Vec<AtomicU64>> = Arc::new(ids.iter().map(|_| AtomicU64::new(100)).collect());
    let stop = CancellationToken::new();
    tracing::info!(clients = options.clients, auctions = count, "signing in");
    let people = sessions(&api, options.clients).await?;
    let from = Instant::now() + WARM;
    let until = from + Duration::from_secs(options.seconds);
    let mut tasks = JoinSet::new();
    for (n, person) in people.into_iter().enumerate() {
        let options = SocketOptions {
            nodes: cluster.urls(),
            first: n,
            token: Some(person.token),
            seed: n as u64,
            ..SocketOptions::default()
        };
        let (socket, _) = Socket::open(options);
        tasks.spawn(one(
            socket,
            n,
            ids[n % count].clone(),
            n % count,
            prices.clone(),
            (from, until),
            stop.clone(),
        ));
    }
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
    let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    let per_s = |n: u64| (n as f64 / options.seconds as f64).round();
    Ok(serde_json::json!({
        "bench": "bids", "bids_per_s": per_s(latency.len()), "p50_ms": ms(0.5), "p99_ms": ms(0.99), "max_ms": latency.max() as f64 / 1e3,
        "clients": options.clients, "auctions": count, "seconds": options.seconds, "loop": "closed",
        "refused_per_s": per_s(refused), "unknown": unknown,
    }))
}

async fn one(
    socket: Socket,
    n: usize,
    auction: String,
    a: usize,
    prices: Arc<Vec<AtomicU64>>,
    (from, until): (Instant, Instant),
    stop: CancellationToken,
) -> Result<Counts> {
    let mut counts = Counts {
        accepted: Histogram::new(3)?,
        refused: 0,
        unknown: 0,
    };
    let mut k = 0u64;
    while !stop.is_cancelled() && Instant::now() < until {
        k += 1;
        let amount = prices[a].fetch_add(1, Ordering::Relaxed);
        let called = Instant::now();
        let verdict = socket.bid(&auction, amount, &format!("b{n}-{k}")).await;
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
