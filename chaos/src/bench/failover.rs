//! How long bidding stands still when a leader dies: SIGKILL, then the first acceptance of a bid that was *called after*
//! the kill. Acknowledged bids are remembered and looked for in the log at the end.
//!
//! Eight bidders on sockets spread over all nodes: some lose their own edge with the leader, as in life.

use super::{auctions, fresh, sessions};
use crate::run::leader;
use anyhow::{Context as _, Result, ensure};
use client::{Dice, Socket, SocketOptions, wire::Event};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

const BIDDERS: usize = 8;
/// A cluster that takes longer than this to accept a bid again has failed.
const FAILED: Duration = Duration::from_secs(30);
/// Between two kills, after the node is ready: its replicas catch up.
const SETTLE: Duration = Duration::from_millis(1_500);

/// What the bidders share.
struct Shared {
    price: AtomicU64,
    acked: Mutex<BTreeSet<String>>,
    /// Newest call among accepted bids.
    accepted: watch::Sender<Option<Instant>>,
}

/// Kills the leader `kills` times; the figures as JSON.
pub(crate) async fn failover(kills: usize, shards: u32) -> Result<serde_json::Value> {
    ensure!(kills > 0, "kills must be at least 1");
    let (dir, mut cluster, api) = fresh(shards).await?;
    let auction = auctions(&api, 1, kills as u64 * 60)
        .await?
        .pop()
        .context("an auction")?;
    let shard = api.auction(&auction).await?.shard;
    let shared = Arc::new(Shared {
        price: AtomicU64::new(100),
        acked: Mutex::new(BTreeSet::new()),
        accepted: watch::Sender::new(None),
    });
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for (n, person) in sessions(&api, BIDDERS).await?.into_iter().enumerate() {
        let token = Some(person.token);
        let options = SocketOptions {
            nodes: cluster.urls(),
            first: n,
            token,
            seed: n as u64,
            ..SocketOptions::default()
        };
        let socket = Socket::open(options).0;
        tasks.spawn(bidder(socket, n, auction.clone(), shared.clone(), stop.clone()));
    }
    let mut times = Vec::with_capacity(kills);
    for n in 0..kills {
        wait_accepted(&shared, Instant::now()).await?;
        let node = leader(&api, shard).await?;
        let killed = Instant::now();
        cluster.kill(node)?;
        let ms = (wait_accepted(&shared, killed).await? - killed).as_secs_f64() * 1e3;
        tracing::info!(kill = n + 1, node, ms, "accepting again");
        times.push(ms);
        cluster.spawn(node)?;
        cluster.ready(node, &api, Duration::from_secs(30)).await?;
        tokio::time::sleep(SETTLE).await;
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    let text = api.export(&auction, false).await?;
    let kept: BTreeSet<String> = text
        .lines()
        .skip(1)
        .filter_map(|line| serde_json::from_str::<Event>(line).ok()?.id)
        .collect();
    let acked = shared.acked.lock();
    let lost = acked.difference(&kept).count();
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    times.sort_by(f64::total_cmp);
    let at = |quantile: f64| (times[((times.len() - 1) as f64 * quantile).round() as usize] * 10.0).round() / 10.0;
    Ok(serde_json::json!({
        "bench": "failover", "failover_ms_p50": at(0.5), "failover_ms_p99": at(0.99), "failover_ms_max": at(1.0),
        "kills": kills, "acked": acked.len(), "acked_lost": lost,
    }))
}

/// Waits until a bid that was called after `from` is accepted; gives the moment.
async fn wait_accepted(shared: &Shared, from: Instant) -> Result<Instant> {
    let mut accepted = shared.accepted.subscribe();
    let wait = accepted.wait_for(|called| called.is_some_and(|called| called > from));
    tokio::time::timeout(FAILED, wait)
        .await
        .context("no bid is accepted any more")??;
    Ok(Instant::now())
}

async fn bidder(socket: Socket, n: usize, auction: String, shared: Arc<Shared>, stop: CancellationToken) {
    let mut dice = Dice::new(n as u64);
    while !stop.is_cancelled() {
        let amount = shared.price.fetch_add(1, Ordering::Relaxed);
        let (id, called) = (dice.id("f-"), Instant::now());
        if socket.bid(&auction, amount, &id).await.is_ok_and(|verdict| verdict.ok) {
            shared.acked.lock().insert(id);
            shared.accepted.send_if_modified(|newest| {
                let newer = newest.is_none_or(|before| before < called);
                if newer {
                    *newest = Some(called);
                }
                newer
            });
        }
        // A bidder in no hurry: the question is availability, not throughput.
        tokio::time::sleep(Duration::from_millis(dice.between(1, 6))).await;
    }
}
