//! A fourth node joins under bids and takes its share; then replicas are moved by hand, one shard after the other.
//!
//! ```text
//!   base --> node 4 joins: the map's arithmetic gives it shards (two moves of a node at a time)
//!        --> shard s: its leader's replica --> the node without one (learner, caught up, joint, handed over, removed) --> next …
//! ```
//!
//! The replica that is moved by hand is the leader's own: that is the move that a bidder could feel.

use super::{Console, Crowd, Load, PATIENCE, Sum, base, led};
use crate::bench::fresh;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How hard, how often.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ShiftOptions {
    #[command(flatten)]
    load: Load,
    /// Shards that are moved, one after the other.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=128))]
    moves: u64,
    /// Undisturbed time before.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    base: u64,
}

/// The node that joins.
const NEWCOMER: u64 = 4;
/// A bid that was under way at the end is answered by then.
const AFTER: Duration = Duration::from_millis(300);
/// Between two looks at a move.
const LOOK: Duration = Duration::from_millis(50);
/// Between two moves.
const QUIET: Duration = Duration::from_secs(1);

/// Runs it; the figures as JSON.
pub(crate) async fn shift(options: &ShiftOptions) -> Result<Value> {
    let load = &options.load;
    let moves = options.moves.min(u64::from(load.shards));
    let (dir, mut cluster, api) = fresh(load.shards).await?;
    let crowd = Crowd::start(&api, load, options.base + moves * 60 + 300).await?;
    led(&api, 0, load.shards, |leads| leads.len() == 3).await?;
    let console = Console::at(&api)?;
    let (undisturbed, mut figures) = base(&cluster, &crowd, options.base).await?;
    let mut joining = Sum::default();
    let began = Instant::now();
    cluster.join(NEWCOMER)?;
    let joined = began + PATIENCE;
    while console.overview().await?["nodes"]
        .as_array()
        .is_none_or(|nodes| nodes.len() < 4)
    {
        ensure!(Instant::now() < joined, "the node that joins isn't in the map");
        tokio::time::sleep(LOOK).await;
    }
    settled(&console).await?;
    let took = began.elapsed();
    tokio::time::sleep(AFTER).await;
    joining.take(crowd.felt(began, Instant::now())?, took)?;
    tokio::time::sleep(QUIET).await;
    let mut sum = Sum::default();
    for shard in 1..=moves as u32 {
        one(&console, &crowd, shard, &mut sum).await?;
    }
    let (acked, lost) = crowd.end(&api).await?;
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    let told = json!({
        "bench": "move", "rate": load.rate, "pairs": load.pairs, "shards": load.shards, "moves": moves,
        "move_ms_p50": sum.took_ms(0.5), "move_ms": sum.took_ms(1.0), "acked": acked, "acked_lost": lost,
    });
    super::put(&mut figures, "", told);
    super::put(&mut figures, "", sum.figures());
    super::put(&mut figures, "join_", joining.figures());
    super::put(&mut figures, "base_", super::felt_figures(&undisturbed));
    Ok(figures)
}

/// Moves one shard's leading replica, and looks at that shard only.
async fn one(console: &Console, crowd: &Crowd, shard: u32, sum: &mut Sum) -> Result<()> {
    let now = console.overview().await?;
    let mut shards = now["shards"].as_array().into_iter().flatten();
    let here = shards.find(|one| one["id"] == shard).context("no such shard")?;
    let from = here["leader"].as_u64().context("nobody leads it")?;
    let has = |node: u64| {
        here["replicas"]
            .as_array()
            .is_some_and(|on| on.iter().any(|one| *one == node))
    };
    let to = (1..=NEWCOMER).find(|node| !has(*node)).context("it is everywhere")?;
    let began = Instant::now();
    console
        .change(json!({"kind": "move", "shard": shard, "from": from, "to": to}))
        .await?;
    settled(console).await?;
    let took = began.elapsed();
    tokio::time::sleep(AFTER).await;
    let felt = crowd.felt(began, Instant::now())?;
    tracing::info!(shard, from, to, ms = took.as_millis() as u64, stall = felt.stalls[&shard], errors = ?felt.errors, "moved");
    sum.take_of(shard, felt, took)?;
    tokio::time::sleep(QUIET).await;
    Ok(())
}

/// Waits until nothing moves and nothing is left to move.
async fn settled(console: &Console) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = console.overview().await?;
        let none = now["moves"].as_array().is_some_and(Vec::is_empty);
        let goals = now["shards"].as_array().into_iter().flatten();
        if none && goals.filter(|shard| !shard["goal"].is_null()).count() == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < until, "a move doesn't end: {now:#}");
        tokio::time::sleep(LOOK).await;
    }
}
