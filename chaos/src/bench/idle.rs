//! What shards cost that nobody uses: CPU of three nodes, memory of each.
//!
//! The measuring begins when the cluster has *settled*, which is something to be seen, not a time to be slept: every node
//! knows a leader of every shard, all nodes name the same one, and between two looks no replica applied anything or changed
//! its term. Nothing is asked of the nodes while it is measured; afterwards the same look must find the same leaders, or the
//! figure would be that of an election.
//!
//! Then each shard in turn is woken by a first command, an auction's draft, and asked for a second one at once: the one is
//! what a user waits for who comes first, the other what everybody else does. Both are durable on a majority.

use super::{
    daylight::quantile,
    fresh, ids_in,
    usage::{self, Usage},
};
use anyhow::{Context as _, Result, bail, ensure};
use client::{
    Api, Role,
    wire::{Cluster, NewAuction},
};
use std::time::{Duration, Instant};

/// How many, how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct IdleOptions {
    /// Auction shards of the cluster; none holds an auction.
    #[arg(long, default_value_t = 128)]
    shards: u32,
    /// Measured time, after the cluster has settled.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Between two looks while the cluster settles.
const LOOK: Duration = Duration::from_secs(1);
/// The measured time is told in stretches of so many seconds.
const STRETCH: u64 = 5;
/// Most shards that are woken.
const WOKEN: u32 = 100;
/// A cluster that isn't settled after this never will be.
const FAILED: Duration = Duration::from_secs(180);

/// One replica as its node tells of it: shard, leader, term, applied.
type Replica = (u32, Option<u64>, Option<u64>, Option<u64>);

/// Runs it; the figures as JSON.
pub(crate) async fn idle(options: &IdleOptions) -> Result<serde_json::Value> {
    let began = Instant::now();
    let (dir, cluster, api) = fresh(options.shards).await?;
    let before_idle = settled(&api, options.shards).await?;
    let settle = began.elapsed().as_secs_f64();
    tracing::info!(settle, "settled");
    let nodes = cluster.pids();
    let groups: [&[u32]; 1] = [&nodes];
    let before = Usage::now(&groups)?;
    let course = course(&groups, options.seconds).await?;
    let spent = before.since(&groups)?;
    let rss: Vec<f64> = nodes.iter().map(|pid| usage::rss_mib(*pid)).collect::<Result<_>>()?;
    let after = look(&api).await?;
    ensure!(
        leaders(&before_idle) == leaders(&after),
        "leaders changed while it was measured: that isn't idle"
    );
    let [mut first, mut second] = wake(&api, options.shards).await?;
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    Ok(serde_json::json!({
        "bench": "idle", "cpu_percent_of_core": (spent.groups[0] / spent.seconds * 1e4).round() / 100.0,
        "course_percent": course, "rss_mib_max": rss.iter().copied().fold(0.0, f64::max), "rss_mib_1": rss[0], "rss_mib_2": rss[1], "rss_mib_3": rss[2],
        "shards": options.shards, "nodes": nodes.len(), "seconds": options.seconds,
        "wake_ms_p50": quantile(&mut first, 0.5), "wake_ms_p99": quantile(&mut first, 0.99), "wake_ms_max": quantile(&mut first, 1.0),
        "awake_ms_p50": quantile(&mut second, 0.5), "awake_ms_p99": quantile(&mut second, 0.99), "woken": first.len(),
        "settle_s": usage::round1(settle), "others_percent": spent.others_percent(),
    }))
}

/// What the first command to a shard at rest takes, and what the next one does, ms.
async fn wake(api: &Api, shards: u32) -> Result<[Vec<f64>; 2]> {
    let session = api.guest("early", Role::Seller).await?;
    let api = api.with_token(&session.token);
    let mut took = [Vec::new(), Vec::new()];
    // The first of them pays for the connection, and isn't counted.
    for shard in 1..=shards.min(WOKEN) {
        for (times, id) in took.iter_mut().zip(ids_in(shard, shards)) {
            let draft = NewAuction {
                id: Some(id.clone()),
                title: id,
                currency: "KRW".into(),
                start_price: 100,
                increments: Some(vec![[0, 1]]),
                duration_ms: 60_000,
                ..NewAuction::default()
            };
            let from = Instant::now();
            api.create(&draft).await?;
            if shard > 1 {
                times.push(from.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(took)
}

/// CPU in each stretch of the measured time, in percent of a core: what is left of the start shows as a fall.
async fn course(nodes: &[&[u32]; 1], seconds: u64) -> Result<Vec<f64>> {
    let (mut left, mut course) = (seconds, Vec::new());
    while left > 0 {
        let stretch = left.min(STRETCH);
        let from = Instant::now();
        let spent = usage::between(nodes, from, from + Duration::from_secs(stretch)).await?;
        course.push((spent.groups[0] / spent.seconds * 1e4).round() / 100.0);
        left -= stretch;
    }
    Ok(course)
}

/// Waits until two looks in a row find the same, whole cluster; gives it.
async fn settled(api: &Api, shards: u32) -> Result<Vec<Vec<Replica>>> {
    let until = Instant::now() + FAILED;
    let mut last: Vec<Vec<Replica>> = Vec::new();
    loop {
        // A node that is still busy with its elections may not answer in time: then it isn't settled.
        let now = look(api).await.unwrap_or_default();
        if whole(&now, shards) && now == last {
            return Ok(now);
        }
        if Instant::now() >= until {
            bail!("not settled after {FAILED:?}: {}", amiss(&now, shards));
        }
        last = now;
        tokio::time::sleep(LOOK).await;
    }
}

/// Every node's replicas, in order of shard.
async fn look(api: &Api) -> Result<Vec<Vec<Replica>>> {
    let mut all = Vec::new();
    for node in 0..api.nodes().len() {
        let cluster = api.pinned(node).cluster().await.context("a node doesn't answer")?;
        all.push(replicas(&cluster));
    }
    Ok(all)
}

fn replicas(cluster: &Cluster) -> Vec<Replica> {
    let shards = cluster.shards.iter();
    let mut all: Vec<Replica> = shards.map(|s| (s.id, s.leader, s.term, s.applied)).collect();
    all.sort_unstable();
    all
}

fn leaders(all: &[Vec<Replica>]) -> Vec<Vec<(u32, Option<u64>)>> {
    let of = |node: &Vec<Replica>| node.iter().map(|(shard, leader, ..)| (*shard, *leader)).collect();
    all.iter().map(of).collect()
}

/// Every node tells of at least `shards` shards, and all name the same leader for each.
fn whole(all: &[Vec<Replica>], shards: u32) -> bool {
    let complete = |node: &Vec<Replica>| {
        node.len() >= shards as usize
            && node
                .iter()
                .all(|(_, leader, term, _)| leader.is_some() && term.is_some())
    };
    let leaders = leaders(all);
    !all.is_empty() && all.iter().all(complete) && leaders.windows(2).all(|pair| pair[0] == pair[1])
}

fn amiss(all: &[Vec<Replica>], shards: u32) -> String {
    let nodes = all.iter().map(|node| {
        let led = node.iter().filter(|(_, leader, ..)| leader.is_some()).count();
        format!("{led} of {shards} shards led")
    });
    nodes.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_whole_when_all_agree_on_a_leader_of_each_shard() {
        let node = |leaders: &[Option<u64>]| -> Vec<Replica> {
            let shards = leaders.iter().enumerate();
            shards
                .map(|(n, leader)| (n as u32, *leader, Some(1), Some(9)))
                .collect()
        };
        let good = node(&[Some(1), Some(2)]);
        for (what, all, expected) in [
            ("nobody answers", vec![], false),
            ("all agree", vec![good.clone(), good.clone(), good.clone()], true),
            ("one knows no leader", vec![good.clone(), node(&[Some(1), None])], false),
            ("two leaders", vec![good.clone(), node(&[Some(1), Some(3)])], false),
            ("a shard is missing", vec![good, node(&[Some(1)])], false),
        ] {
            assert_eq!(whole(&all, 2), expected, "{what}");
        }
    }
}
