//! `rushroom admin restore` and `unsafe-recover`: a shard founded anew, from a backup or from the one replica that is left.
//!
//! ```text
//!   restore:         store --read, recomputed--> here --image--> a node: recomputed again, sealed, planted, founded
//!   unsafe-recover:  every node: what have you got? --> shown --(--force)--> the node with most: sealed, planted, founded
//! ```
//!
//! Both say first what they would do. Whoever stops in the middle leaves a shard that is closed everywhere (`[shard_sealed]`, in
//! `admin status`); the same command goes on where that one stopped.
//!
//! Deliberately absent: waiting for the other replicas. The mover brings them, as after any loss.

use super::args::{AdminArgs, Recover, Restore};
use super::client::{Client, NotReached};
use super::tables;
use super::wire::Overview;
use crate::backup::{Listed, Manifest, Store};
use crate::cli::{complain, say};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use placement::{NodeId, ShardId};
use proto::cluster::v1 as pb;
use serde_json::json;
use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

/// See the module.
pub(super) async fn restore(client: &Client, what: &Restore, args: &AdminArgs) -> Result<ExitCode> {
    let shard = ShardId(what.shard);
    let overview = client.overview().await?;
    if shard == ShardId::META || shard.0 > overview.map.shards {
        bail!(
            "[unknown_shard] shard {} can't be restored: there are shards 1 to {}",
            shard.0,
            overview.map.shards
        );
    }
    let store = Store::open(&what.from)?;
    let name = match &what.name {
        Some(name) => name.clone(),
        None => newest(&store, shard).await?,
    };
    // All of it is read and recomputed before any node is asked for anything.
    let (manifest, _, body) = store.read(&name).await?;
    fits(&manifest, &overview, shard)?;
    let node = chosen(&overview, shard, what.on)?;
    let (auctions, index) = (manifest.auctions, manifest.index);
    let age = tables::ago(manifest.taken_ms, super::wall_ms());
    complain(&format!(
        "shard {}: {auctions} auctions up to entry {index}, taken {age}, to node {}",
        shard.0, node.0
    ));
    if what.dry_run {
        complain("nothing was done");
        return Ok(ExitCode::SUCCESS);
    }
    let head = head(shard, what.force.as_deref(), args);
    found(client, &overview, node, head, Some(body), args).await
}

async fn newest(store: &Store, shard: ShardId) -> Result<String> {
    let listed = store.list(Some(shard.0)).await?;
    let whole = |listed: &Listed| listed.manifest.is_some();
    let newest = listed.into_iter().rfind(whole);
    let newest = newest.with_context(|| format!("[backup_missing] no backup of shard {} lies there", shard.0))?;
    Ok(newest.name)
}

/// Another cluster's cut puts auctions where nobody would look for them.
fn fits(manifest: &Manifest, overview: &Overview, shard: ShardId) -> Result<()> {
    if manifest.shard != shard.0 {
        bail!(
            "[other_shard] it is a backup of shard {}, not of shard {}",
            manifest.shard,
            shard.0
        );
    }
    if manifest.shards != overview.map.shards {
        let (theirs, ours) = (manifest.shards, overview.map.shards);
        bail!("[other_cluster] it is of a cluster of {theirs} shards, and this one has {ours}");
    }
    Ok(())
}

/// The node that is named, or the first that has the shard and answers, or any that answers and takes shards.
fn chosen(overview: &Overview, shard: ShardId, named: Option<u64>) -> Result<NodeId> {
    if let Some(node) = named {
        return Ok(NodeId(node));
    }
    // Where a founding broke off it goes on.
    if let Some(seal) = overview.map.steering.sealed.get(&shard) {
        return Ok(seal.node);
    }
    let has = overview.map.replicas_of(shard).iter().map(|replica| replica.0);
    let takes = overview
        .map
        .nodes
        .keys()
        .copied()
        .filter(|node| overview.map.share(*node) > 0);
    let mut alive = has.chain(takes).filter(|node| overview.alive.contains(node));
    alive.next().context("no node that could take the shard answers")
}

/// What a node has of a shard.
struct Left {
    node: NodeId,
    /// Role, applied, last; none: it doesn't answer, or has no replica open.
    has: Result<Option<(String, u64, u64)>, NotReached>,
}

/// See the module.
pub(super) async fn recover(client: &Client, what: &Recover, args: &AdminArgs) -> Result<ExitCode> {
    let shard = ShardId(what.shard);
    let overview = client.overview().await?;
    if shard.0 > overview.map.shards {
        bail!("[unknown_shard] there are shards 0 to {}", overview.map.shards);
    }
    let left = left(client, &overview, shard).await;
    if !args.json {
        say(&survivors(&overview, shard, &left))?;
    }
    let sealed = overview.map.steering.sealed.get(&shard).map(|seal| seal.node);
    let most = left
        .iter()
        .filter_map(|one| Some((one.has.as_ref().ok()?.as_ref()?.2, one.node)));
    let node = what.on.map(NodeId).or(sealed).or(most.max().map(|most| most.1));
    let node = node.with_context(|| {
        format!(
            "[nothing_here] no node that answers has a replica of shard {} open; one that is closed is recovered by `--on NODE`",
            shard.0
        )
    })?;
    let mut head = head(shard, what.force.as_deref(), args);
    head.give_up_unreadable = what.give_up_unreadable;
    if what.force.is_none() || what.dry_run {
        weighed(client, &overview, node, head).await?;
        complain(&format!(
            "nothing was done: `--force REASON` founds shard {} anew on node {}, and gives up whatever the others have",
            shard.0, node.0
        ));
        return Ok(if what.dry_run {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    found(client, &overview, node, head, None, args).await
}

/// Says what a founding at a node would be refused for, or would lose.
async fn weighed(client: &Client, overview: &Overview, node: NodeId, mut head: pb::RefoundHead) -> Result<()> {
    head.dry_run = true;
    // Weighed as if a reason had been given: whether there is one shows when it's meant.
    head.force.get_or_insert_with(|| "dry run".to_owned());
    let reply = client.refound(grpc_of(overview, node)?, head, None).await?;
    if !reply.refused.is_empty() {
        complain(&format!("it would be refused {}", reply.refused));
    }
    say(&told(&reply.lost.unwrap_or_default()))?;
    Ok(())
}

fn grpc_of(overview: &Overview, node: NodeId) -> Result<&str> {
    let known = overview.map.nodes.get(&node);
    let known = known.with_context(|| format!("[unknown_node] there is no node {}", node.0))?;
    Ok(&known.grpc)
}

/// Lost auctions, a line each.
fn told(lost: &proto::log::v1::Lost) -> String {
    let mut told = String::new();
    for one in &lost.auctions {
        let _ = writeln!(told, "lost: {} ({})", one.auction, one.what);
    }
    if lost.unnamed > 0 {
        let _ = writeln!(told, "lost: {} more, whose ids nobody can tell", lost.unnamed);
    }
    told
}

async fn left(client: &Client, overview: &Overview, shard: ShardId) -> Vec<Left> {
    let mut left = Vec::new();
    for (node, _) in overview.map.replicas_of(shard) {
        let address = overview.map.nodes.get(node).map_or("", |known| &known.grpc);
        let status = async { client.elsewhere(address).await?.status().await };
        let has = status.await.map(|status| {
            let mut replicas = status.replicas.into_iter();
            let replica = replicas.find(|replica| replica.shard == shard.0)?;
            Some((replica.role, replica.applied, replica.last))
        });
        left.push(Left { node: *node, has });
    }
    left
}

fn survivors(overview: &Overview, shard: ShardId, left: &[Left]) -> String {
    let rows = left.iter().map(|one| {
        let mut row = vec![
            one.node.0.to_string(),
            overview.map.standing(one.node).word().to_owned(),
        ];
        row.extend(match &one.has {
            Ok(Some((role, applied, last))) => [role.clone(), applied.to_string(), last.to_string()],
            Ok(None) => ["has it closed".to_owned(), "-".into(), "-".into()],
            Err(_) => ["doesn't answer".to_owned(), "-".into(), "-".into()],
        });
        row
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let there = left.iter().filter(|one| matches!(one.has, Ok(Some(_)))).count();
    let said = if there * 2 > left.len() {
        "A majority answers: there is nothing to recover.".to_owned()
    } else {
        format!(
            "{there} of {} replicas are left. What only the others have is lost: at most what was acknowledged after the last\n\
             entry below reached this far. Nodes that don't answer must never come back with their old disks.",
            left.len()
        )
    };
    let table = tables::table(&["node", "standing", "replica", "applied", "last entry"], &rows);
    format!("shard {}\n{said}\n\n{table}", shard.0)
}

fn head(shard: ShardId, force: Option<&str>, args: &AdminArgs) -> pb::RefoundHead {
    pb::RefoundHead {
        shard: shard.0,
        who: args.who.clone(),
        force: force.map(str::to_owned),
        size: None,
        give_up_unreadable: false,
        dry_run: false,
    }
}

async fn found(
    client: &Client,
    overview: &Overview,
    node: NodeId,
    mut head: pb::RefoundHead,
    image: Option<Bytes>,
    args: &AdminArgs,
) -> Result<ExitCode> {
    let address = grpc_of(overview, node)?;
    head.size = image.as_ref().map(|image| image.len() as u64);
    let shard = ShardId(head.shard);
    let reply = client.refound(address, head, image).await?;
    if !reply.refused.is_empty() {
        complain(&format!("refused {}", reply.refused));
        return Ok(ExitCode::FAILURE);
    }
    let (replica, index, auctions, epoch) = (reply.replica, reply.index, reply.auctions, reply.epoch);
    let lost = reply.lost.unwrap_or_default();
    if args.json {
        let named: BTreeMap<&str, &str> = lost.auctions.iter().map(|one| (&*one.auction, &*one.what)).collect();
        let told = json!({
            "shard": shard.0, "node": node.0, "replica": replica, "index": index, "auctions": auctions, "epoch": epoch,
            "lost": {"auctions": named, "unnamed": lost.unnamed},
        });
        return say(&format!("{told:#}\n"));
    }
    say(&told(&lost))?;
    say(&format!(
        "shard {} is founded anew on node {} as replica {replica}: {auctions} auctions, at entry {index}, feeds in epoch {epoch}\n\
         more replicas come by themselves (`plan show`)\n",
        shard.0, node.0
    ))
}
