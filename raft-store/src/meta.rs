//! Shard 0: the cluster map, and how a cluster is born.
//!
//! ```text
//!   every founder: the same list of founders --> the same members of shard 0, by arithmetic
//!   its leader:    no map yet? --> placement::place(founders) --> StoreMap{expected: 0} --> log
//!   every node:    applies it --> opens the replicas that the map gives it
//!   preferred replica of each shard: initializes its group, and so leads it first
//! ```
//!
//! The map is computed once and stored: nobody else runs the arithmetic, so neither floats nor library versions can make
//! two nodes disagree. Two leaders that both try are told apart by the compare-and-set on the epoch.
//!
//! All founders vote in shard 0: a founder more than `VOTERS_MAX` is refused at the start. A node that joins later follows
//! shard 0 without a vote, so that every node has the map, and votes when the mover makes it.
//!
//! Deliberately absent: everything after birth (`mover`, `host::steer`).

use crate::{
    group::Group,
    port::Log,
    types::{Answer, Home, MetaCommand, Payload},
    versions,
};
use placement::{ClusterMap, Node, NodeId, Placement, ReplicaId, ShardId, place};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Most founders: each of them keeps the map.
pub(crate) const VOTERS_MAX: usize = 7;

/// The replica of shard 0 on each founder: numbered in order of node id, the same on every node.
pub(crate) fn members(founders: &[Node]) -> BTreeMap<u64, Home> {
    let mut nodes: Vec<NodeId> = founders.iter().map(|node| node.id).collect();
    nodes.sort_unstable();
    (1..).zip(nodes.into_iter().map(|node| Home(node.0))).collect()
}

/// The first map: founders, the place of shard 0, and the places of all others.
pub(crate) fn first_map(founders: &[Node], shards: u32) -> ClusterMap {
    let members = members(founders);
    let replicas = members
        .iter()
        .map(|(replica, home)| (home.node(), ReplicaId(*replica)))
        .collect();
    let bare = ClusterMap {
        epoch: 0,
        shards,
        nodes: founders.iter().map(|node| (node.id, node.clone())).collect(),
        placement: BTreeMap::from([(ShardId::META, Placement { replicas })]),
        replica_ids: members.len() as u64,
        ..ClusterMap::default()
    };
    let mut map = place::place(&bare, place::Rules::default());
    map.epoch = 1;
    // All founders run this build, or one that is told to go: nobody else has ever written here.
    map.steering.cluster_version = versions::NEWEST;
    map
}

/// Stores the first map whenever this node leads shard 0 and there is none. Ends when there is one.
pub(crate) async fn bear(meta: Arc<Group>, founders: Vec<Node>, shards: u32) {
    let mut leadership = meta.leadership();
    let mut map = meta.replica.map.subscribe();
    loop {
        if map.borrow_and_update().is_some() {
            return;
        }
        let known = *leadership.borrow_and_update();
        if known.leading {
            let first = Box::new(first_map(&founders, shards));
            let command = MetaCommand::StoreMap {
                expected: 0,
                map: first,
            };
            match meta.decree(known.term, Payload::Meta(command)).await {
                Ok(Answer::Meta { epoch, stored: true }) => tracing::info!(epoch, shards, "the cluster is born"),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the first map was not stored"),
            }
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            changed = map.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}
