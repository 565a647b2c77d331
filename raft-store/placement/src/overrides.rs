//! Exceptions to the arithmetic: what an operator wants of one shard, who wants it, and for how long.
//!
//! The balancer's table over rendezvous order, as in Ceph's upmap, with its lesson: an exception that was right once may
//! put two replicas on one machine later. So each is looked at again whenever a goal is computed; one that is expired,
//! names a node that doesn't take shards, or would spoil the spread over zones is left out, and the plan says so.
//!
//! Deliberately absent: erasing them. What is void today may hold again tomorrow; `plan` drops the expired ones.

use crate::{ClusterMap, NodeId, ShardId};
use std::collections::BTreeSet;

/// Most overrides.
pub(crate) const OVERRIDES_MAX: usize = 1024;

/// What is wanted of a shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wish {
    /// A replica on this node.
    Pin(NodeId),
    /// None there.
    Exclude(NodeId),
    /// The leader there, if a replica is.
    PreferLeader(NodeId),
}

impl Wish {
    /// The node that it speaks of.
    #[must_use]
    pub fn node(self) -> NodeId {
        match self {
            Wish::Pin(node) | Wish::Exclude(node) | Wish::PreferLeader(node) => node,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Wish::Pin(_) => "pin",
            Wish::Exclude(_) => "exclude",
            Wish::PreferLeader(_) => "prefer-leader",
        }
    }
}

/// One exception.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// Of which shard.
    pub shard: ShardId,
    /// What.
    pub wish: Wish,
    /// Who wants it.
    pub owner: String,
    /// Until when, wall time in ms.
    pub until_ms: u64,
}

/// What holds of a shard's overrides now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Holding {
    pub(crate) pins: Vec<NodeId>,
    pub(crate) excluded: BTreeSet<NodeId>,
    pub(crate) leader: Option<NodeId>,
}

/// The overrides of a shard that hold, and why each other one doesn't.
pub(crate) fn holding(map: &ClusterMap, shard: ShardId, replicas: usize, now_ms: u64) -> (Holding, Vec<String>) {
    let (mut holding, mut void) = (Holding::default(), Vec::new());
    let zone = |node: NodeId| map.nodes.get(&node).map(|known| known.zone.as_str());
    let taking: Vec<NodeId> = map.nodes.keys().copied().filter(|node| map.share(*node) > 0).collect();
    let zones: BTreeSet<_> = taking.iter().map(|node| zone(*node)).collect();
    for o in map.steering.overrides.iter().filter(|o| o.shard == shard) {
        let node = o.wish.node();
        let why = match o.wish {
            _ if o.until_ms <= now_ms => Some("it has expired".to_owned()),
            Wish::Exclude(_) => None,
            _ if map.share(node) == 0 => Some(format!("node {} takes no shards", node.0)),
            Wish::Pin(_) if holding.pins.len() >= replicas => Some("more pins than replicas".into()),
            Wish::Pin(_) if zones.len() >= replicas && holding.pins.iter().any(|pin| zone(*pin) == zone(node)) => {
                Some("two pins in one zone".into())
            }
            Wish::Pin(_) | Wish::PreferLeader(_) => None,
        };
        match (why, o.wish) {
            (Some(why), wish) => void.push(format!(
                "shard {}: {} {} of {} is left out: {why}",
                shard.0,
                wish.word(),
                node.0,
                o.owner
            )),
            (None, Wish::Pin(node)) => holding.pins.push(node),
            (None, Wish::Exclude(node)) => {
                holding.excluded.insert(node);
            }
            (None, Wish::PreferLeader(node)) => holding.leader = Some(node),
        }
    }
    // Excluding all but fewer than the replicas would shrink the shard: then exclusions are left out, all of them.
    let left = taking.iter().filter(|node| !holding.excluded.contains(node)).count();
    if !holding.excluded.is_empty() && left < replicas.min(taking.len()) {
        holding.excluded.clear();
        void.push(format!(
            "shard {}: exclusions are left out: too few nodes would remain",
            shard.0
        ));
    }
    (holding, void)
}
