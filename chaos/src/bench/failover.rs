//! How long bidding stands still when a node dies: SIGKILL, then in each shard that it led the first acceptance of a bid that
//! was *called after* the kill. Acknowledged bids are remembered and looked for in the log at the end.
//!
//! ```text
//!   shard 1   pair, pair            <- node 2 leads        kill -9 node 2
//!   shard 2   pair                  <- node 1 leads           |--- ms ---> accepted in shard 1   a sample each
//!   shard 3   pair                  <- node 2 leads           |------ ms ------> … in shard 3
//! ```
//!
//! Every shard has a live auction and a pair of people who bid on it, so that all of them are awake and all that the dead node
//! led are measured; their sockets are spread over all nodes: some lose their own edge with the leader, as in life. The nodes
//! die by turns, so that each leads about a third when it does.

use super::{Pair, SETUP, fresh, ids_in, open};
use anyhow::{Context as _, Result, ensure};
use client::{Api, Dice, Role, wire::Event};
use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Auctions at least, however few shards there are: one pair alone would find the leader by luck.
const PAIRS_MIN: usize = 6;
/// Bids of all pairs together, a second, about: the question is availability, not throughput.
const RATE: usize = 2_000;
/// A cluster that takes longer than this to accept a bid again has failed.
const FAILED: Duration = Duration::from_secs(30);
/// Between two kills, after the node is ready: its replicas catch up, and leaderships come home.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How long leaderships may take to come home to a node that is back.
const HOME: Duration = Duration::from_secs(40);

/// Ids of bids that were accepted.
type Acked = Arc<Mutex<BTreeSet<String>>>;

/// The pairs of one auction, as the harness sees them.
struct Bidding {
    shard: u32,
    auction: String,
    /// Newest call among accepted bids, and when it was accepted.
    accepted: watch::Receiver<Option<(Instant, Instant)>>,
}

/// Kills nodes `kills` times; the figures as JSON.
pub(crate) async fn failover(kills: usize, shards: u32) -> Result<serde_json::Value> {
    ensure!(kills > 0 && shards > 0, "kills and shards must be at least 1");
    let (dir, mut cluster, api) = fresh(shards).await?;
    let acked = Acked::default();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let bidding = start(&api, shards, kills as u64 * 60, &acked, &stop, &mut tasks).await?;
    let (mut times, mut led) = (Vec::new(), 0);
    for n in 0..kills {
        let now = Instant::now();
        try_join_all(bidding.iter().map(|one| wait_accepted(one, now))).await?;
        let node = (n % 3) as u64 + 1;
        let lost = led_by(&api, node, &bidding).await?;
        led += lost.len();
        let killed = Instant::now();
        cluster.kill(node)?;
        // All at once: who waited for one after the other would see a shard's second acceptance instead of its first.
        let back = try_join_all(lost.into_iter().map(|one| wait_accepted(one, killed))).await?;
        let ms = back.iter().map(|at| (*at - killed).as_secs_f64() * 1e3);
        times.extend(ms);
        let slowest = back.iter().max().map(|at| (*at - killed).as_secs_f64() * 1e3);
        tracing::info!(kill = n + 1, node, shards = back.len(), slowest, "accepting again");
        cluster.spawn(node)?;
        cluster.ready(node, &api, Duration::from_secs(30)).await?;
        tokio::time::sleep(SETTLE).await;
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    let kept = kept(&api, &bidding).await?;
    let acked = acked.lock();
    let lost = acked.difference(&kept).count();
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    times.sort_by(f64::total_cmp);
    Ok(serde_json::json!({
        "bench": "failover", "failover_ms_p50": rank(&times, 0.5), "failover_ms_p99": rank(&times, 0.99),
        "failover_ms_max": rank(&times, 1.0), "kills": kills, "shards": shards, "shards_lost": led,
        "acked": acked.len(), "acked_lost": lost,
    }))
}

/// The value at a quantile of sorted times: one that was seen, the larger one between two.
fn rank(times: &[f64], quantile: f64) -> Option<f64> {
    let last = times.len().checked_sub(1)?;
    let at = times.get((last as f64 * quantile).ceil() as usize)?;
    Some((at * 10.0).round() / 10.0)
}

/// Opens an auction in each shard (more in each if they are few), and sets pairs to bid on them.
async fn start(
    api: &Api,
    shards: u32,
    seconds: u64,
    acked: &Acked,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<Vec<Bidding>> {
    let each = PAIRS_MIN.div_ceil(shards as usize);
    let auctions: Vec<(u32, String)> = (1..=shards)
        .flat_map(|shard| ids_in(shard, shards).take(each).map(move |id| (shard, id)))
        .collect();
    let think = Duration::from_secs_f64(auctions.len() as f64 / RATE as f64);
    let one = |(n, (shard, id)): (usize, (u32, String))| async move {
        // A seller each: one person who opens hundreds of auctions at once is, rightly, told to slow down.
        let seller = api.with_token(&api.guest(&format!("s{n}"), Role::Seller).await?.token);
        ensure!(
            open(&seller, &id, seconds).await? == shard,
            "{id} lies in another shard"
        );
        Ok((shard, n, Pair::new(api, id, n).await?))
    };
    let pairs: Vec<(u32, usize, Pair)> = futures_util::stream::iter(auctions.into_iter().enumerate())
        .map(one)
        .buffer_unordered(SETUP)
        .try_collect()
        .await?;
    let mut bidding = Vec::with_capacity(pairs.len());
    for (shard, n, pair) in pairs {
        let (tell, accepted) = watch::channel(None);
        bidding.push(Bidding {
            shard,
            auction: pair.auction.clone(),
            accepted,
        });
        tasks.spawn(bid(pair, n, think, acked.clone(), tell, stop.clone()));
    }
    Ok(bidding)
}

/// What a node leads by every other node's word, once it leads anything: a node that was killed before gets its
/// leaderships back after a while.
async fn led_by<'a>(api: &Api, node: u64, bidding: &'a [Bidding]) -> Result<Vec<&'a Bidding>> {
    let until = Instant::now() + HOME;
    loop {
        let cluster = api.cluster().await?;
        let led: Vec<_> = bidding
            .iter()
            .filter(|one| cluster.leader(one.shard) == Some(node))
            .collect();
        // A third of many; of few, any.
        if led.len() >= (bidding.len() / 4).max(1) {
            return Ok(led);
        }
        ensure!(
            Instant::now() < until,
            "node {node} leads {} of {} shards",
            led.len(),
            bidding.len()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until a bid that was called after `from` is accepted; gives the moment at which it was.
async fn wait_accepted(one: &Bidding, from: Instant) -> Result<Instant> {
    let mut accepted = one.accepted.clone();
    let wait = accepted.wait_for(|newest| newest.is_some_and(|(called, _)| called > from));
    let newest = tokio::time::timeout(FAILED, wait).await;
    let newest = *newest.with_context(|| format!("no bid is accepted any more in shard {}", one.shard))??;
    Ok(newest.context("waited for")?.1)
}

/// Ids of all bids that the cluster has.
async fn kept(api: &Api, bidding: &[Bidding]) -> Result<BTreeSet<String>> {
    let mut kept = BTreeSet::new();
    for one in bidding {
        let text = api.export(&one.auction, false).await?;
        let events = text.lines().skip(1);
        kept.extend(events.filter_map(|line| serde_json::from_str::<Event>(line).ok()?.id));
    }
    Ok(kept)
}

async fn bid(
    mut pair: Pair,
    n: usize,
    think: Duration,
    acked: Acked,
    accepted: watch::Sender<Option<(Instant, Instant)>>,
    stop: CancellationToken,
) {
    let mut dice = Dice::new(n as u64);
    let think_us = think.as_micros() as u64;
    while !stop.is_cancelled() {
        let called = Instant::now();
        let (id, verdict) = pair.bid().await;
        if verdict.is_ok_and(|verdict| verdict.ok) {
            acked.lock().insert(id);
            accepted.send_replace(Some((called, Instant::now())));
        }
        tokio::time::sleep(Duration::from_micros(dice.between(think_us / 2, think_us * 3 / 2))).await;
    }
}
