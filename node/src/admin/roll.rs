//! `rushroom admin rolling-restart`: nodes one after the other, each only while all others are whole.
//!
//! What restarts a process is the operator's (systemd, a container runtime, a script); this decides *when*. A node that is
//! told to stop hands its leaderships over by itself. Before each one: every node answers, every shard is led, every replica
//! is open, nothing moves. After it: the same again, or the roll stops there.

use super::args::Roll;
use super::client::Client;
use super::wire::Overview;
use crate::cli::complain;
use anyhow::{Context as _, Result};
use placement::{NodeId, Standing};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// What keeps the cluster from being whole; none: it is.
pub(super) fn not_whole(o: &Overview) -> Option<String> {
    let gone = |node: &&NodeId| o.map.standing(**node) == Standing::Decommissioned;
    if let Some(node) = o.map.nodes.keys().find(|node| !gone(node) && !o.alive.contains(node)) {
        return Some(format!("node {} doesn't answer", node.0));
    }
    if let Some(shard) = o.map.placement.keys().find(|shard| !o.leaders.contains_key(shard)) {
        return Some(format!("shard {} has no leader", shard.0));
    }
    let moves = o.map.steering.moves.len();
    (moves > 0).then(|| format!("{moves} moves are under way"))
}

/// Rolls; exit code 1 where it stopped.
pub(super) async fn roll(client: &Client, how: &Roll) -> Result<ExitCode> {
    let first = client.overview().await?;
    let all: Vec<NodeId> = first.map.nodes.keys().copied().collect();
    let wanted: Vec<NodeId> = how.nodes.iter().copied().map(NodeId).collect();
    if let Some(unknown) = wanted.iter().find(|node| !all.contains(node)) {
        complain(&format!("there is no node {}", unknown.0));
        return Ok(ExitCode::FAILURE);
    }
    // Who leads shard 0 comes last, so that it changes hands once.
    let mut order = if wanted.is_empty() { all } else { wanted.clone() };
    if wanted.is_empty() {
        order.sort_by_key(|node| first.leaders.get(&placement::ShardId::META) == Some(node));
    }
    for (i, node) in order.iter().enumerate() {
        let command = how.command.replace("{node}", &node.0.to_string());
        if how.dry_run {
            complain(&format!("would wait until all is whole, then run: {command}"));
            continue;
        }
        if let Some(why) = until_whole(client, &first, how).await {
            complain(&format!("stopped before node {}: {why}", node.0));
            return Ok(ExitCode::FAILURE);
        }
        complain(&format!("[{}/{}] node {}: {command}", i + 1, order.len(), node.0));
        let status = tokio::process::Command::new("sh")
            .arg("-c")
            .arg(&command)
            .status()
            .await;
        let status = status.with_context(|| format!("running {command}"))?;
        if !status.success() {
            complain(&format!("stopped at node {}: its command ended with {status}", node.0));
            return Ok(ExitCode::FAILURE);
        }
    }
    if !how.dry_run
        && let Some(why) = until_whole(client, &first, how).await
    {
        complain(&format!("the last node did not come back whole: {why}"));
        return Ok(ExitCode::FAILURE);
    }
    complain("done");
    Ok(ExitCode::SUCCESS)
}

/// Waits until every node says that all is whole; what is missing if that doesn't come.
async fn until_whole(client: &Client, first: &Overview, how: &Roll) -> Option<String> {
    let deadline = Instant::now() + Duration::from_secs(how.timeout);
    loop {
        let missing = missing(client, first).await?;
        if Instant::now() > deadline {
            return Some(missing);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks each node: one that has just started hears the others before they hear it.
async fn missing(client: &Client, first: &Overview) -> Option<String> {
    for node in first.map.nodes.values() {
        if first.map.standing(node.id) == Standing::Decommissioned {
            continue;
        }
        let overview = match client.elsewhere(&node.grpc).await {
            Ok(client) => client.overview().await,
            Err(error) => Err(error),
        };
        match overview {
            Ok(overview) => {
                if let Some(why) = not_whole(&overview) {
                    return Some(format!("by node {}'s word, {why}", node.id.0));
                }
            }
            Err(error) => return Some(error.to_string()),
        }
    }
    None
}
