//! The admin API's answers as JSON: what `--json` prints and what `/api/v1/admin/*` gives, the same to the letter.

use super::wire::Overview;
use placement::{ClusterMap, Explained, Move, ShardId};
use proto::cluster::v1 as pb;
use serde_json::{Value, json};

fn one_move(shard: ShardId, one: &Move) -> Value {
    json!({
        "shard": shard.0, "id": one.id,
        "from": one.from.map(|end| end.0.0), "from_replica": one.from.map(|end| end.1.0),
        "to": one.to.map(|end| end.0.0), "to_replica": one.to.map(|end| end.1.0),
        "step": one.step.word(), "back": one.back, "reason": one.reason, "forced": one.forced,
        "began_ms": one.began_ms,
    })
}

/// Everything.
pub(crate) fn overview(overview: &Overview) -> Value {
    let map = &overview.map;
    let nodes = map.nodes.values().map(|node| {
        let leads = overview
            .leaders
            .iter()
            .filter(|(shard, leader)| **leader == node.id && **shard != ShardId::META);
        json!({
            "id": node.id.0, "zone": node.zone, "region": node.region, "weight": node.weight, "http": node.http,
            "grpc": node.grpc, "standing": map.standing(node.id).word(), "alive": overview.alive.contains(&node.id),
            "replicas": replicas(map, node.id), "leads": leads.count(), "moves": map.steering.moves_of(node.id),
            "keeps_map": map.replica_on(ShardId::META, node.id).is_some(),
        })
    });
    let shards = map.placement.iter().map(|(shard, placement)| {
        json!({
            "id": shard.0, "leader": overview.leaders.get(shard).map(|node| node.0),
            "replicas": placement.replicas.iter().map(|replica| replica.0.0).collect::<Vec<_>>(),
            "replica_ids": placement.replicas.iter().map(|replica| replica.1.0).collect::<Vec<_>>(),
            "goal": map.steering.goal.get(shard).map(|nodes| nodes.iter().map(|node| node.0).collect::<Vec<_>>()),
        })
    });
    let moves = map.steering.moves.iter().map(|(shard, one)| {
        let mut told = one_move(*shard, one);
        told["waits"] = json!(overview.waits.get(shard));
        told
    });
    json!({
        "node": overview.node.0, "epoch": map.epoch, "version": map.steering.version, "paused": map.steering.paused,
        "may_be_old": overview.may_be_old,
        "nodes": nodes.collect::<Vec<_>>(), "shards": shards.collect::<Vec<_>>(), "moves": moves.collect::<Vec<_>>(),
        "sealed": sealed(map),
        "waits": overview.waits.iter().map(|(s, why)| json!({"shard": s.0, "why": why})).collect::<Vec<_>>(),
        "overrides": overrides(&map.steering.overrides), "history": history(map), "audit": audit(map),
    })
}

/// Shards that nobody may open.
fn sealed(map: &ClusterMap) -> Vec<Value> {
    let one = |(shard, seal): (&ShardId, &placement::Seal)| {
        json!({
            "shard": shard.0, "node": seal.node.0, "from": seal.from.word(), "why": seal.why, "since_ms": seal.since_ms,
        })
    };
    map.steering.sealed.iter().map(one).collect()
}

fn replicas(map: &ClusterMap, node: placement::NodeId) -> usize {
    map.shards_on(node).filter(|seat| seat.0 != ShardId::META).count()
}

fn overrides(list: &[placement::Override]) -> Vec<Value> {
    let one = |o: &placement::Override| {
        json!({
            "shard": o.shard.0, "wish": o.wish.word(), "node": o.wish.node().0, "owner": o.owner, "until_ms": o.until_ms,
        })
    };
    list.iter().map(one).collect()
}

/// Moves that are over, oldest first.
pub(crate) fn history(map: &ClusterMap) -> Vec<Value> {
    let one = |ended: &placement::Ended| {
        let mut told = one_move(ended.shard, &ended.what);
        told["ended_ms"] = json!(ended.ended_ms);
        told
    };
    map.steering.ended.iter().map(one).collect()
}

/// What was asked for, oldest first.
pub(crate) fn audit(map: &ClusterMap) -> Vec<Value> {
    let one = |said: &placement::Said| json!({"at_ms": said.at_ms, "who": said.who, "what": said.what, "why": said.why, "version": said.version});
    map.steering.said.iter().map(one).collect()
}

/// What a change did, or would do.
pub(crate) fn change(reply: &pb::ChangeReply, dry_run: bool) -> Value {
    if let Some(refused) = &reply.refused {
        return self::refused(refused);
    }
    let moves = reply
        .moves
        .iter()
        .map(|m| json!({"shard": m.shard, "from": m.from, "to": m.to, "reason": m.reason}));
    let leaders = reply
        .leaders
        .iter()
        .map(|l| json!({"shard": l.shard, "from": l.from, "to": l.to}));
    json!({
        "version": reply.base, "stored": !dry_run, "moves": moves.collect::<Vec<_>>(),
        "leaders": leaders.collect::<Vec<_>>(), "warnings": reply.warnings,
    })
}

/// Why not.
pub(crate) fn refused(refused: &pb::Refused) -> Value {
    json!({"refused": {"code": refused.code, "why": refused.why, "may_be_forced": refused.may_be_forced}})
}

/// A shard's place.
pub(crate) fn explained(explained: &Explained) -> Value {
    let candidates = explained.candidates.iter().map(|c| {
        json!({
            "node": c.node.0, "zone": c.zone, "standing": c.standing.word(), "weight": c.weight, "score": c.score,
            "rank": c.rank, "held": c.held, "bound": c.bound, "has": c.has, "wanted": c.wanted,
        })
    });
    json!({
        "shard": explained.shard.0, "candidates": candidates.collect::<Vec<_>>(),
        "overrides": overrides(&explained.overrides), "void": explained.void,
        "goal": explained.goal.as_ref().map(|nodes| nodes.iter().map(|node| node.0).collect::<Vec<_>>()),
    })
}

/// Who runs which build.
pub(crate) fn versions(reply: &proto::cluster::v1::VersionsReply) -> Value {
    let nodes = reply
        .nodes
        .iter()
        .map(|n| json!({"id": n.node, "answers": n.answers, "build": n.build, "knows_up_to": n.newest}));
    json!({"cluster_version": reply.cluster_version, "nodes": nodes.collect::<Vec<_>>()})
}

/// What an image is.
pub(crate) fn image(head: &pb::ImageHead) -> Value {
    json!({
        "shard": head.shard, "index": head.index, "top": head.top, "auctions": head.auctions, "events": head.events,
        "digest": hex::encode(&head.digest), "bytes": head.size, "shards": head.shards,
    })
}

/// A shard that was founded anew.
pub(crate) fn founded(shard: ShardId, node: placement::NodeId, new: &raft_store::Founded) -> Value {
    let mut told = json!({
        "shard": shard.0, "node": node.0, "replica": new.replica.0, "index": new.index, "auctions": new.auctions,
        "epoch": new.epoch,
    });
    if !new.lost.is_empty() {
        told["lost"] = lost(&new.lost);
    }
    told
}

/// Settled auctions that can't be read: which, what each lacks, and how many more nobody can name.
pub(crate) fn lost(lost: &raft_store::Lost) -> Value {
    let named = lost.auctions.iter();
    let named: serde_json::Map<String, Value> = named.map(|(id, what)| (id.to_string(), json!(what))).collect();
    json!({"auctions": named, "unnamed": lost.unnamed})
}
