//! `rushroom admin rolling-restart`: nodes one after the other, each only while all others are whole.
//!
//! What restarts a process is the operator's (systemd, a container runtime, a script); this decides *when*. A node that is
//! told to stop hands its leaderships over by itself. Before each one: every node answers, every shard is led, nothing moves;
//! then the cluster is asked (`Change::Restart`): it says no where a shard would be left without a majority that is open and
//! has its log, or an auction that the node leads closes within 30 s, and writes down what it allows. A reason overrides
//! that. After the last one: all is whole again, or the roll has failed.
//!
//! Where something always closes soon there is no such moment for a node that leads many shards; there is one for each of
//! them. So while a node waits for that, its leaderships go elsewhere one by one, each when its own shard is calm, and stay there
//! for a while by preference; those of shards with nothing live stay, for nobody feels them go. A node that leads nothing
//! live may be restarted: nobody notices a follower that is gone for a moment.

use super::args::{AdminArgs, Roll};
use super::client::Client;
use super::run::told;
use super::wire::Overview;
use crate::cli::{complain, say};
use anyhow::{Context as _, Result};
use placement::{NodeId, Refusal, ShardId, Standing};
use proto::cluster::v1 as pb;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// For so long, and the roll's own patience, a leadership stays where it was handed to; then it may come home.
const ASIDE: Duration = Duration::from_secs(120);

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
pub(super) async fn roll(client: &Client, how: &Roll, args: &AdminArgs) -> Result<ExitCode> {
    let first = client.overview().await?;
    let order = match order(&first, how) {
        Ok(order) => order,
        Err(unknown) => {
            complain(&format!("refused [{}]: {unknown}", unknown.code()));
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut done = Vec::new();
    let stopped = if how.dry_run {
        show(client, &order, how, args).await?;
        None
    } else {
        one_by_one(client, &first, &order, how, args, &mut done).await?
    };
    match &stopped {
        Some(why) => complain(why),
        None if how.dry_run => {}
        None => complain("done"),
    }
    if args.json {
        let done: Vec<u64> = done.iter().map(|node: &NodeId| node.0).collect();
        say(&format!("{:#}\n", json!({"restarted": done, "stopped": stopped})))?;
    }
    Ok(if stopped.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Who leads shard 0 comes last, so that it changes hands once. Who has left isn't there to be restarted.
fn order(first: &Overview, how: &Roll) -> Result<Vec<NodeId>, Refusal> {
    let wanted: Vec<NodeId> = how.nodes.iter().copied().map(NodeId).collect();
    if let Some(unknown) = wanted.iter().find(|node| !first.map.nodes.contains_key(node)) {
        return Err(Refusal::UnknownNode(*unknown));
    }
    if !wanted.is_empty() {
        return Ok(wanted);
    }
    let here = |node: &NodeId| first.map.standing(*node) != Standing::Decommissioned;
    let mut all: Vec<NodeId> = first.map.nodes.keys().copied().filter(here).collect();
    all.sort_by_key(|node| first.leaders.get(&placement::ShardId::META) == Some(node));
    Ok(all)
}

/// Restarts them; why it stopped, if it did.
async fn one_by_one(
    client: &Client,
    first: &Overview,
    order: &[NodeId],
    how: &Roll,
    args: &AdminArgs,
    done: &mut Vec<NodeId>,
) -> Result<Option<String>> {
    for (i, node) in order.iter().enumerate() {
        if let Some(why) = until_whole(client, first, how).await {
            return Ok(Some(format!("stopped before node {}: {why}", node.0)));
        }
        if let Some(why) = until_allowed(client, *node, how, args).await? {
            return Ok(Some(format!("stopped before node {}: {why}", node.0)));
        }
        let command = how.command.replace("{node}", &node.0.to_string());
        complain(&format!("[{}/{}] node {}: {command}", i + 1, order.len(), node.0));
        let mut shell = tokio::process::Command::new("sh");
        let status = shell.arg("-c").arg(&command).status().await;
        let status = status.with_context(|| format!("running {command}"))?;
        if !status.success() {
            return Ok(Some(format!(
                "stopped at node {}: its command ended with {status}",
                node.0
            )));
        }
        done.push(*node);
    }
    let missing = until_whole(client, first, how).await;
    Ok(missing.map(|why| format!("the last node did not come back whole: {why}")))
}

/// What a roll would do, and what stands against it now.
async fn show(client: &Client, order: &[NodeId], how: &Roll, args: &AdminArgs) -> Result<()> {
    for node in order {
        let command = how.command.replace("{node}", &node.0.to_string());
        complain(&format!("would wait until all is whole, then run: {command}"));
        if let Some(refused) = ask(client, *node, how, args, true).await? {
            complain(&format!("now it would wait: node {}: {}", node.0, told(&refused)));
        }
    }
    Ok(())
}

/// Asks whether a node may be restarted now; what is granted stands in the audit.
async fn ask(
    client: &Client,
    node: NodeId,
    how: &Roll,
    args: &AdminArgs,
    dry_run: bool,
) -> Result<Option<pb::Refused>> {
    let request = pb::ChangeRequest {
        change: Some(pb::change_request::Change::Restart(node.0)),
        who: args.who.clone(),
        force: how.force.clone(),
        dry_run,
        ..pb::ChangeRequest::default()
    };
    Ok(client.change(request).await?.refused)
}

/// Waits until a node may be restarted: until its shards have a majority without it, and nothing that it leads closes soon.
async fn until_allowed(client: &Client, node: NodeId, how: &Roll, args: &AdminArgs) -> Result<Option<String>> {
    let deadline = Instant::now() + Duration::from_secs(how.timeout);
    let mut waits = None;
    loop {
        let Some(refused) = ask(client, node, how, args, false).await? else {
            return Ok(None);
        };
        if !refused.may_be_forced {
            return Ok(Some(told(&refused)));
        }
        if refused.code == "closes_soon" {
            step_aside(client, node, how, args).await?;
        }
        if Instant::now() > deadline {
            return Ok(Some(told(&refused)));
        }
        if waits.as_ref() != Some(&refused.code) {
            complain(&format!("node {} waits: {}", node.0, refused.why));
            waits = Some(refused.code);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Hands over what a node leads of shards in which something is live, as far as each of them is calm now.
async fn step_aside(client: &Client, node: NodeId, how: &Roll, args: &AdminArgs) -> Result<()> {
    let overview = client.overview().await?;
    let Some(known) = overview.map.nodes.get(&node) else {
        return Ok(());
    };
    let status = client.elsewhere(&known.grpc).await?.status().await?;
    let live = |shard: &ShardId| {
        let own = status.replicas.iter().find(|replica| replica.shard == shard.0);
        own.is_some_and(|own| own.role == "leader" && own.auctions_live > 0)
    };
    let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
    overview
        .leaders
        .values()
        .for_each(|leader| *leads.entry(*leader).or_default() += 1);
    for shard in overview.map.placement.keys().filter(|shard| live(shard)) {
        let others = overview.map.replicas_of(*shard).iter().map(|replica| replica.0);
        let heirs = others.filter(|other| *other != node && overview.alive.contains(other));
        let Some(heir) = heirs.min_by_key(|heir| leads.get(heir).copied().unwrap_or_default()) else {
            continue;
        };
        let request = pb::TransferRequest {
            shard: shard.0,
            to: Some(heir.0),
            who: args.who.clone(),
            force: None,
            dry_run: false,
            for_ms: Some(ASIDE.as_millis() as u64 + how.timeout.saturating_mul(1_000)),
        };
        // Refused: it isn't calm, or its heir isn't ready. Another look comes.
        if client.transfer(request).await?.refused.is_none() {
            *leads.entry(heir).or_default() += 1;
            complain(&format!("node {}: shard {} is led by node {}", node.0, shard.0, heir.0));
        }
    }
    Ok(())
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
