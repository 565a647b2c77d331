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
//!
//! Every failover comes with an account (`account`: noticed, stood, in office, answered), its slowest shards in a line each;
//! and with a judgement of the clock (`trail`): bidding time eaten or given back beyond G5 is counted, and fails the bench.

mod account;
mod sum;
mod trail;

use super::{Pair, SETUP, fresh, ids_in, open, usage};
use crate::cluster::Cluster;
use account::{Account, Mark};
use anyhow::{Context as _, Result, ensure};
use client::{Api, Dice, Role, wire::Event};
use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use sum::{Sample, Sum};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use trail::{Call, Trail};

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

/// Slowest shards of a kill that are told of.
const TOLD: usize = 3;

/// What is killed, and how often.
#[derive(clap::Args, Debug)]
pub(crate) struct FailoverOptions {
    /// Nodes to kill, one after another.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Shards of the cluster.
    #[arg(long, default_value_t = 16)]
    shards: u32,
    /// A file that sums up runs: the samples of this one are added to it, and the figures are those of all in it.
    #[arg(long)]
    sum: Option<PathBuf>,
}

/// Ids of bids that were accepted.
type Acked = Arc<Mutex<BTreeSet<String>>>;

/// The pair of one auction, as the harness sees it.
struct Bidding {
    shard: u32,
    auction: String,
    /// Newest call among accepted bids, and when it was accepted.
    accepted: watch::Receiver<Option<(Instant, Instant)>>,
    trail: Arc<Mutex<Trail>>,
}

/// Kills nodes; the figures as JSON.
pub(crate) async fn failover(options: &FailoverOptions) -> Result<serde_json::Value> {
    let (kills, shards) = (options.kills, options.shards);
    ensure!(kills > 0 && shards > 0, "kills and shards must be at least 1");
    let mut sum = Sum::open(options.sum.as_deref(), shards)?;
    let busy = usage::busy_percent().await?;
    let (dir, mut cluster, api) = fresh(shards).await?;
    let acked = Acked::default();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let bidding = start(&api, shards, kills as u64 * 60, &acked, &stop, &mut tasks).await?;
    for n in 0..kills {
        let now = Instant::now();
        try_join_all(bidding.iter().map(|one| wait_accepted(one, now))).await?;
        let node = (n % 3) as u64 + 1;
        let samples = kill(&mut cluster, &api, node, &bidding).await?;
        told(n + 1, node, &samples);
        sum.add(samples);
        cluster.spawn(node)?;
        cluster.ready(node, &api, Duration::from_secs(30)).await?;
        tokio::time::sleep(SETTLE).await;
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    let kept = kept(&api, &bidding).await?;
    let acked = acked.lock();
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    let mut figures = sum.close(kills, acked.len(), acked.difference(&kept).count())?;
    figures["others_percent_before"] = busy.into();
    Ok(figures)
}

/// Kills a node and waits until every shard that it led accepts bids again.
async fn kill(cluster: &mut Cluster, api: &Api, node: u64, bidding: &[Bidding]) -> Result<Vec<Sample>> {
    let lost = led_by(api, node, bidding).await?;
    let logs = (1..=3).filter(|id| *id != node);
    let logs = logs
        .map(|id| Ok((id, cluster.files(id)?.1)))
        .collect::<Result<Vec<_>>>()?;
    let (mark, killed) = (Mark::now(logs)?, Instant::now());
    cluster.kill(node)?;
    // All at once: who waited for one after the other would see a shard's second acceptance instead of its first.
    try_join_all(lost.iter().map(|one| wait_accepted(one, killed))).await?;
    let account = mark.account()?;
    let sample = |one: &&Bidding| sample(one, killed, &account);
    lost.iter().map(sample).collect()
}

/// One shard's failover.
fn sample(one: &Bidding, killed: Instant, account: &Account) -> Result<Sample> {
    let around = one.trail.lock().around(killed);
    let around = around.with_context(|| format!("shard {}: nothing accepted on both sides of a kill", one.shard))?;
    let of = account.shards.get(&one.shard).copied().unwrap_or_default();
    let pending = around.pending;
    Ok(Sample {
        shard: one.shard,
        ms: around.waited(),
        noticed: account.noticed.map(|noticed| noticed.1),
        stood: of.stood,
        stands: of.stands,
        office: of.office,
        offices: of.offices,
        leader: of.leader,
        freed: pending.map(|call| around.since_kill(call.answered)),
        called: around.since_kill(around.after.called),
        edges: [pending.and_then(|call| call.edge), around.after.edge],
        // Without a new office (the dead node didn't lead it any more) the clock may have gone on all the time.
        eaten: of.office.and_then(|at| around.eaten_too_much(at)),
        given: around.given_too_much(),
        outran: around.outran(),
    })
}

/// A line for the kill, and one for each of its slowest shards.
fn told(kill: usize, node: u64, samples: &[Sample]) {
    let mut slowest: Vec<&Sample> = samples.iter().collect();
    slowest.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    let most = slowest.first().map(|sample| sample.ms.round());
    tracing::info!(kill, node, shards = samples.len(), slowest_ms = most, "accepting again");
    for sample in slowest.into_iter().take(TOLD) {
        tracing::info!(kill, "{sample}");
    }
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
        let trail = Arc::<Mutex<Trail>>::default();
        bidding.push(Bidding {
            shard,
            auction: pair.auction.clone(),
            accepted,
            trail: trail.clone(),
        });
        let told = Told {
            acked: acked.clone(),
            accepted: tell,
            trail,
        };
        tasks.spawn(bid(pair, n, think, told, stop.clone()));
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

/// Where a pair says what it saw.
struct Told {
    acked: Acked,
    accepted: watch::Sender<Option<(Instant, Instant)>>,
    trail: Arc<Mutex<Trail>>,
}

async fn bid(mut pair: Pair, n: usize, think: Duration, told: Told, stop: CancellationToken) {
    let mut dice = Dice::new(n as u64);
    let think_us = think.as_micros() as u64;
    while !stop.is_cancelled() {
        let (called, side) = (Instant::now(), pair.turn);
        let (id, verdict) = pair.bid().await;
        let answered = Instant::now();
        let accepted = verdict.ok().filter(|verdict| verdict.ok).map(|verdict| verdict.ct);
        told.trail.lock().note(Call {
            called,
            answered,
            accepted,
            edge: pair.sockets[side].node(),
        });
        if accepted.is_some() {
            told.acked.lock().insert(id);
            told.accepted.send_replace(Some((called, answered)));
        }
        tokio::time::sleep(Duration::from_micros(dice.between(think_us / 2, think_us * 3 / 2))).await;
    }
}
