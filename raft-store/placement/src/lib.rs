//! Which node holds which shard: the words, and the arithmetic that decides it.
//!
//! Placement is *computed once*, by the leader of shard 0, and *stored* there as a `ClusterMap` with an epoch; everyone
//! else reads the map. So floats and library versions can never make two nodes disagree.
//!
//! ```text
//!   auction id --shard_of--> shard --ClusterMap--> replicas          (every request: one hash, one look-up)
//!   nodes, weights --rank--> rendezvous order --place--> ClusterMap  (at birth, only at meta's leader)
//!   ClusterMap, a change --plan--> ClusterMap with a goal            (an operator, or a node that stays dead)
//!   ClusterMap, what is seen --mover--> next steps                   (at meta's leader, until the goal is reached)
//!   stream key --rank--> parent and spare of a relay                 (`sfu`)
//! ```
//!
//! Deliberately absent: I/O, clocks, liveness. Who is alive is an argument.

use std::collections::BTreeMap;

mod change;
mod explain;
pub mod mover;
mod overrides;
pub mod place;
pub mod plan;
pub mod rank;
mod restart;
mod steering;

pub use change::{Change, Refusal, TEXT_MAX, WEIGHT_MAX};
pub use explain::{Candidate, Explained, explain};
pub use mover::{Decision, Facts, GroupFacts, Work, decide};
pub use overrides::{Override, Wish};
pub use place::{Rules, place};
pub use plan::{Plan, PlannedMove, plan};
pub use rank::{rank, shard_of};
pub use restart::{may_hand_over, may_stop};
pub use steering::{Ended, Move, Origin, Said, Seal, Standing, Steering, Step};

/// A machine's id in the cluster: chosen by the operator, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeId(pub u64);

/// A shard: one Raft group and the auctions in it. Shard 0 is `meta`, the cluster map; auctions live in 1..=n.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u32);

impl ShardId {
    /// The shard that holds the cluster map.
    pub const META: ShardId = ShardId(0);
}

/// A replica's id within its group: fresh for every placement, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplicaId(pub u64);

/// A node as the map knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Failure domain: replicas of a shard lie in distinct zones while there are enough.
    pub zone: String,
    /// Media region: one relay copy per region.
    pub region: String,
    /// Share of shards, relative; 0: draining.
    pub weight: u32,
    /// `host:port` for other nodes (gRPC).
    pub grpc: String,
    /// Base URL for clients.
    pub http: String,
    /// `host:port` of the media trunk (UDP).
    pub trunk: String,
}

/// Where a shard lives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    /// The first is the preferred leader; the others follow in rendezvous order.
    pub replicas: Vec<(NodeId, ReplicaId)>,
}

/// The cluster map, as stored in shard 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterMap {
    /// Rises with each change.
    pub epoch: u64,
    /// Number of auction shards (1..=n), fixed at birth.
    pub shards: u32,
    /// Known nodes.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Shard to replicas.
    pub placement: BTreeMap<ShardId, Placement>,
    /// Replica ids given so far: the next is one more. Only rises, so that no id is ever used twice.
    pub replica_ids: u64,
    /// Where it is going, and how far it got.
    pub steering: Steering,
}

impl ClusterMap {
    /// The shard that holds an auction.
    #[must_use]
    pub fn shard_of(&self, auction: &str) -> ShardId {
        shard_of(auction, self.shards)
    }

    /// The replicas of a shard, preferred leader first; none if the map doesn't know it.
    #[must_use]
    pub fn replicas_of(&self, shard: ShardId) -> &[(NodeId, ReplicaId)] {
        self.placement.get(&shard).map_or(&[], |placement| &placement.replicas)
    }

    /// The node that should lead a shard.
    #[must_use]
    pub fn preferred_leader(&self, shard: ShardId) -> Option<NodeId> {
        self.replicas_of(shard).first().map(|replica| replica.0)
    }

    /// The replica of a shard on a node.
    #[must_use]
    pub fn replica_on(&self, shard: ShardId, node: NodeId) -> Option<ReplicaId> {
        self.replicas_of(shard)
            .iter()
            .find(|replica| replica.0 == node)
            .map(|replica| replica.1)
    }

    /// The shards that have a replica on a node, in order.
    pub fn shards_on(&self, node: NodeId) -> impl Iterator<Item = (ShardId, ReplicaId)> + '_ {
        self.placement
            .keys()
            .filter_map(move |&shard| Some((shard, self.replica_on(shard, node)?)))
    }

    /// Whether a node takes shards, gives them away, or is gone for good.
    #[must_use]
    pub fn standing(&self, node: NodeId) -> Standing {
        self.steering.standings.get(&node).copied().unwrap_or_default()
    }

    /// What all nodes may rely on all others to know.
    #[must_use]
    pub fn cluster_version(&self) -> u32 {
        self.steering.cluster_version.max(1)
    }

    /// A node's share of shards: none unless it is active.
    #[must_use]
    pub fn share(&self, node: NodeId) -> u32 {
        match self.standing(node) {
            Standing::Active => self.nodes.get(&node).map_or(0, |known| known.weight),
            Standing::Draining | Standing::Lost | Standing::Decommissioned => 0,
        }
    }

    /// The replica of a shard that a node must keep open: one that is placed there, one that is moving there, or one
    /// that only follows shard 0.
    #[must_use]
    pub fn seat_on(&self, shard: ShardId, node: NodeId) -> Option<ReplicaId> {
        let one = self.steering.moves.get(&shard);
        let in_place = one.filter(|one| one.from.map(|from| from.0) == one.to.map(|to| to.0));
        if let Some((there, fresh)) = in_place.and_then(|one| one.to)
            && there == node
        {
            return Some(fresh);
        }
        let placed = self.replica_on(shard, node);
        let coming = || {
            let to = self.steering.moves.get(&shard)?.to?;
            (to.0 == node).then_some(to.1)
        };
        let watching = || {
            let watcher = self.steering.watchers.get(&node)?;
            (shard == ShardId::META).then_some(*watcher)
        };
        placed.or_else(coming).or_else(watching)
    }

    /// All replicas that a node must keep open, in order of shard.
    pub fn seats_on(&self, node: NodeId) -> impl Iterator<Item = (ShardId, ReplicaId)> + '_ {
        self.placement
            .keys()
            .filter_map(move |&shard| Some((shard, self.seat_on(shard, node)?)))
    }

    /// Whether nobody may open a shard now.
    #[must_use]
    pub fn is_sealed(&self, shard: ShardId) -> bool {
        self.steering.sealed.contains_key(&shard)
    }

    /// A replica id that was never used before.
    pub fn next_replica(&mut self) -> ReplicaId {
        self.replica_ids += 1;
        ReplicaId(self.replica_ids)
    }
}
