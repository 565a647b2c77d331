//! How long bidding stands still when a leader dies: SIGKILL, then the first acceptance of a bid that was *called after*
//! the kill. Acknowledged bids are remembered and looked for in the log at the end.
//!
//! Six pairs of bidders, each with an auction in the *same* shard, their sockets spread over all nodes: some lose their own
//! edge with the leader, as in life.

use super::{Pair, fresh, open};
use crate::run::leader;
use anyhow::{Context as _, Result, ensure};
use client::{Api, Dice, Role, wire::Event};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

const PAIRS: usize = 6;
/// Auctions that are opened at most to find enough of one shard.
const TRIES_MAX: usize = 2_000;
/// A cluster that takes longer than this to accept a bid again has failed.
const FAILED: Duration = Duration::from_secs(30);
/// Between two kills, after the node is ready: its replicas catch up.
const SETTLE: Duration = Duration::from_millis(1_500);

/// What the bidders share.
struct Shared {
    acked: Mutex<BTreeSet<String>>,
    /// Newest call among accepted bids.
    accepted: watch::Sender<Option<Instant>>,
}

/// Kills the leader `kills` times; the figures as JSON.
pub(crate) async fn failover(kills: usize, shards: u32) -> Result<serde_json::Value> {
    ensure!(kills > 0, "kills must be at least 1");
    let (dir, mut cluster, api) = fresh(shards).await?;
    let seller = api.with_token(&api.guest("seller", Role::Seller).await?.token);
    let (shard, ids) = neighbours(&seller, kills as u64 * 60).await?;
    let shared = Arc::new(Shared {
        acked: Mutex::new(BTreeSet::new()),
        accepted: watch::Sender::new(None),
    });
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for (n, id) in ids.iter().enumerate() {
        let pair = Pair::new(&api, id.clone(), n).await?;
        tasks.spawn(bidders(pair, n, shared.clone(), stop.clone()));
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
    let mut kept = BTreeSet::new();
    for id in &ids {
        let text = api.export(id, false).await?;
        kept.extend(
            text.lines()
                .skip(1)
                .filter_map(|line| serde_json::from_str::<Event>(line).ok()?.id),
        );
    }
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

/// Auctions that share a shard.
async fn neighbours(seller: &Api, seconds: u64) -> Result<(u32, Vec<String>)> {
    let mut shards: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for n in 0..TRIES_MAX {
        let id = format!("bench-{n}");
        let shard = open(seller, &id, seconds).await?;
        let ids = shards.entry(shard).or_default();
        ids.push(id);
        if ids.len() == PAIRS {
            return Ok((shard, std::mem::take(ids)));
        }
    }
    anyhow::bail!("no shard has {PAIRS} auctions")
}

async fn bidders(mut pair: Pair, n: usize, shared: Arc<Shared>, stop: CancellationToken) {
    let mut dice = Dice::new(n as u64);
    while !stop.is_cancelled() {
        let called = Instant::now();
        let (id, verdict) = pair.bid().await;
        if verdict.is_ok_and(|verdict| verdict.ok) {
            shared.acked.lock().insert(id);
            shared.accepted.send_if_modified(|newest| {
                let newer = newest.is_none_or(|before| before < called);
                if newer {
                    *newest = Some(called);
                }
                newer
            });
        }
        // Bidders in no hurry: the question is availability, not throughput.
        tokio::time::sleep(Duration::from_millis(dice.between(1, 6))).await;
    }
}
