//! Why a shard lies where it lies: each node's draw, its zone, its bound, what it was told, and what it holds.
//!
//! The same arithmetic as `place`, told instead of applied: what it calls wanted is what a rebalance would set as goal now.
//!
//! Deliberately absent: who is alive. The operator's table adds that.

use crate::{
    ClusterMap, Node, NodeId, Override, Rules, ShardId, Standing,
    place::{bounds, wanted},
    plan::{META_VOTERS, meta_order, meta_wanted},
    rank::{rank_shard, score},
};

/// One node, for one shard.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Its zone.
    pub zone: String,
    /// What it was told.
    pub standing: Standing,
    /// Its weight.
    pub weight: u32,
    /// Its draw; the highest goes first. None: it takes no shards.
    pub score: Option<f64>,
    /// Its place in the rendezvous order, from 1; none: it takes no shards.
    pub rank: Option<usize>,
    /// Replicas of auction shards on it.
    pub held: u64,
    /// How many it may hold.
    pub bound: u64,
    /// Has a replica of the shard.
    pub has: bool,
    /// Would have one after a rebalance now.
    pub wanted: bool,
}

/// A shard's place, explained.
#[derive(Clone, PartialEq, Debug)]
pub struct Explained {
    /// The shard.
    pub shard: ShardId,
    /// Best first; those that take no shards last.
    pub candidates: Vec<Candidate>,
    /// Its overrides, void ones too.
    pub overrides: Vec<Override>,
    /// Overrides that don't hold, and why; and what else is to be known.
    pub void: Vec<String>,
    /// Where it is going, if it isn't there.
    pub goal: Option<Vec<NodeId>>,
}

/// Shard 0 isn't placed as the others are: who keeps it goes on keeping it while it stays, and others come in the order of a
/// draw of their own until there are enough.
fn explain_meta(map: &ClusterMap) -> Explained {
    let (order, wanted) = (meta_order(map), meta_wanted(map));
    let candidate = |node: &Node| {
        let has = map.replica_on(ShardId::META, node.id).is_some();
        Candidate {
            node: node.id,
            zone: node.zone.clone(),
            standing: map.standing(node.id),
            weight: node.weight,
            score: None,
            rank: order.iter().position(|other| *other == node.id).map(|place| place + 1),
            held: u64::from(has),
            bound: 1,
            has,
            wanted: wanted.contains(&node.id),
        }
    };
    let mut candidates: Vec<Candidate> = map.nodes.values().map(candidate).collect();
    candidates.sort_by_key(|candidate| (!candidate.has, candidate.rank.unwrap_or(usize::MAX)));
    let note = format!(
        "shard 0 is the cluster's map: an odd number of nodes keep it, {META_VOTERS} at most, in distinct zones if they can; \
         weights and overrides don't count, who keeps it stays, and all others follow it without a vote"
    );
    Explained {
        shard: ShardId::META,
        candidates,
        overrides: Vec::new(),
        void: vec![note],
        goal: map.steering.goal.get(&ShardId::META).cloned(),
    }
}

/// Explains a shard's place.
#[must_use]
pub fn explain(map: &ClusterMap, shard: ShardId, rules: Rules, now_ms: u64) -> Explained {
    if shard == ShardId::META {
        return explain_meta(map);
    }
    let (goals, void) = wanted(map, rules, now_ms);
    let wanted = goals.get(&shard).cloned().unwrap_or_default();
    let order = rank_shard(shard, map.nodes.keys().map(|node| (*node, map.share(*node))));
    let bounds = bounds(map, rules);
    let candidate = |node: NodeId| {
        let known = map.nodes.get(&node);
        let share = map.share(node);
        Candidate {
            node,
            zone: known.map_or(String::new(), |known| known.zone.clone()),
            standing: map.standing(node),
            weight: known.map_or(0, |known| known.weight),
            score: (share > 0).then(|| score(shard, node, share)),
            rank: order.iter().position(|other| *other == node).map(|place| place + 1),
            held: map.shards_on(node).filter(|seat| seat.0 != ShardId::META).count() as u64,
            bound: bounds.get(&node).copied().unwrap_or(0),
            has: map.replica_on(shard, node).is_some(),
            wanted: wanted.contains(&node),
        }
    };
    let mut candidates: Vec<Candidate> = map.nodes.keys().map(|node| candidate(*node)).collect();
    candidates.sort_by_key(|candidate| candidate.rank.unwrap_or(usize::MAX));
    let ours = |text: &String| text.starts_with(&format!("shard {}:", shard.0));
    Explained {
        shard,
        candidates,
        overrides: map
            .steering
            .overrides
            .iter()
            .filter(|o| o.shard == shard)
            .cloned()
            .collect(),
        void: void.into_iter().filter(ours).collect(),
        goal: map.steering.goal.get(&shard).cloned(),
    }
}
