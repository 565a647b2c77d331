//! Which node holds which shard: the words, and the arithmetic that decides it.
//!
//! Placement is *computed once*, by the leader of shard 0, and *stored* there as a `ClusterMap` with an epoch; everyone
//! else reads the map. So floats and library versions can never make two nodes disagree.
//!
//! Deliberately absent: I/O, clocks, liveness. Who is alive is an argument.

use std::collections::BTreeMap;

/// A machine's id in the cluster: chosen by the operator, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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
    /// Replicas in rendezvous order: the first is the preferred leader.
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
}
