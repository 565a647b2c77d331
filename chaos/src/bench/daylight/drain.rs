//! Nodes are drained one after the other under bids, as an operator does it; then each is restarted.
//!
//! ```text
//!   base --> drain 1: leaderships leave, resume: they come home --> drain 2 … --> SIGTERM, start, ready: 1, 2, 3
//! ```
//!
//! `leaderships_ms` is from the operator's request until some other node's page shows that the drained one leads nothing.

use super::{Console, Crowd, Load, PATIENCE, Sum, base, led};
use crate::{bench::fresh, cluster::Cluster};
use anyhow::{Result, ensure};
use client::Api;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How hard, how often.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DrainOptions {
    #[command(flatten)]
    load: Load,
    /// Each node is drained so many times.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Undisturbed time before.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    base: u64,
    /// Rolling restarts after the drains.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=1000))]
    restarts: u64,
    /// The next restart doesn't wait until the node before it leads again (a minute): for hunting what is rare.
    #[arg(long)]
    hasty: bool,
}

/// A bid that was under way while leaderships went is answered by then.
const AFTER: Duration = Duration::from_millis(300);
/// Between two disturbances.
const QUIET: Duration = Duration::from_secs(1);

/// Runs it; the figures as JSON.
pub(crate) async fn drain(options: &DrainOptions) -> Result<Value> {
    let load = &options.load;
    let (dir, mut cluster, api) = fresh(load.shards).await?;
    let crowd = Crowd::start(&api, load, options.base + (options.rounds + options.restarts) * 240).await?;
    led(&api, 0, load.shards, everyone).await?;
    let console = Console::at(&api)?;
    let (undisturbed, mut figures) = base(&cluster, &crowd, options.base).await?;
    let (mut drains, mut homes, mut restarts) = (Sum::default(), Sum::default(), Sum::default());
    for _ in 0..options.rounds {
        for node in 1..=3 {
            one(&console, &api, &crowd, load, node, [&mut drains, &mut homes]).await?;
        }
    }
    for node in (0..options.restarts).flat_map(|_| 1..=3) {
        restart(&mut cluster, &api, &crowd, options, node, &mut restarts).await?;
    }
    let (acked, lost) = crowd.end(&api).await?;
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    let told = json!({
        "bench": "drain", "rate": load.rate, "pairs": load.pairs, "shards": load.shards,
        "drains": drains.took.len(), "leaderships_ms": drains.took_ms(1.0), "leaderships_ms_p50": drains.took_ms(0.5),
        "acked": acked, "acked_lost": lost,
    });
    super::put(&mut figures, "", told);
    super::put(&mut figures, "", drains.figures());
    super::put(&mut figures, "base_", super::felt_figures(&undisturbed));
    super::put(&mut figures, "home_", homes.figures());
    super::put(&mut figures, "restart_", restarts.figures());
    Ok(figures)
}

fn everyone(leads: &BTreeMap<u64, usize>) -> bool {
    leads.len() == 3
}

/// The place of a node that tells what became of another.
fn witness(node: u64) -> usize {
    (node % 3) as usize
}

/// One node is told to stop, is started, and leads again.
async fn restart(
    cluster: &mut Cluster,
    api: &Api,
    crowd: &Crowd,
    options: &DrainOptions,
    node: u64,
    restarts: &mut Sum,
) -> Result<()> {
    let from = Instant::now();
    cluster.stop(node, PATIENCE).await?;
    let stopped = from.elapsed();
    cluster.spawn(node)?;
    cluster.ready(node, api, PATIENCE).await?;
    let ready = from.elapsed();
    tokio::time::sleep(QUIET).await;
    let felt = crowd.felt(from, Instant::now())?;
    tracing::info!(node, ?stopped, ?ready, stalls = ?felt.stalls, worst = ?felt.worst, errors = ?felt.errors, "restarted");
    restarts.take(felt, ready)?;
    if !options.hasty {
        let back = led(api, witness(node), options.load.shards, everyone).await? - from;
        tracing::info!(node, ?back, "everyone leads again");
    }
    Ok(())
}

/// One node gives its leaderships away, and gets them again.
async fn one(
    console: &Console,
    api: &Api,
    crowd: &Crowd,
    load: &Load,
    node: u64,
    [drains, homes]: [&mut Sum; 2],
) -> Result<()> {
    let from = Instant::now();
    console.change(json!({"kind": "drain", "node": node})).await?;
    let done = led(api, witness(node), load.shards, |leads| !leads.contains_key(&node)).await?;
    tokio::time::sleep(AFTER).await;
    let felt = crowd.felt(from, done + AFTER)?;
    tracing::info!(node, ms = (done - from).as_millis() as u64, stalls = ?felt.stalls, errors = ?felt.errors, "drained");
    drains.take(felt, done - from)?;
    tokio::time::sleep(QUIET).await;
    let from = Instant::now();
    console.change(json!({"kind": "resume", "node": node})).await?;
    let done = led(api, witness(node), load.shards, everyone).await?;
    tokio::time::sleep(QUIET).await;
    let felt = crowd.felt(from, Instant::now())?;
    tracing::info!(node, ms = (done - from).as_millis() as u64, stalls = ?felt.stalls, errors = ?felt.errors, "home again");
    homes.take(felt, done - from)
}
