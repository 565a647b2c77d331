//! What an alert must know of the shards, measured when somebody looks.
//!
//! ```text
//!   Prometheus --GET /metrics--> node: Host::measure(): leaderships, lag, shut replicas, the map --> gauges --> the page
//! ```
//!
//! These are facts about *now*, so they are taken when they are asked for: a node that nobody watches pays nothing, and a
//! gauge is never older than the page that it stands on. Shards that rest aren't woken by it.
//!
//! A shard without a leader must show even where no node holds a replica of it: so each node names every shard of its
//! map, with 0 where it doesn't lead. Lag is told by node, not by shard, to keep the page short; `rushroom admin shard
//! list` tells the rest.
//!
//! Deliberately absent: counters and times of single acts. Those are counted where they happen.

use super::{Host, Inner, Seat};
use crate::{metrics, port::Log, versions};
use openraft::async_runtime::watch::WatchReceiver;
use placement::{ClusterMap, NodeId, ShardId, Standing};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

impl Host {
    /// Brings the gauges of this node's shards up to date. To be called just before they are shown.
    pub fn measure(&self) {
        let map = self.inner.map.borrow().clone();
        if map.epoch == 0 {
            return;
        }
        let seats = self.inner.seats();
        let leading = |seat: &&Arc<Seat>| seat.group.leadership().borrow().leading && self.inner.has_majority(seat);
        let led: BTreeSet<ShardId> = seats.iter().filter(leading).map(|seat| seat.group.shard).collect();
        for shard in map.placement.keys() {
            metrics::leads(*shard, led.contains(shard));
        }
        // A node that nobody lacks anything of shows 0, not what it showed last.
        let mut lag: BTreeMap<NodeId, u64> = map.nodes.keys().map(|node| (*node, 0)).collect();
        for (node, entries) in seats.iter().flat_map(|seat| seat.group.followers()) {
            let most = lag.entry(node).or_default();
            *most = entries.max(*most);
        }
        for (node, entries) in lag.into_iter().filter(|(node, _)| *node != self.node()) {
            metrics::lag(node, entries);
        }
        metrics::shut(self.inner.shut(&map));
        metrics::versions(map.cluster_version(), versions::NEWEST);
        metrics::map(map.steering.version, peers(&map, self.node()), map.steering.paused);
    }
}

impl Inner {
    /// Whether a majority of a group's voters is on nodes that live. A leader whose followers are gone goes on believing
    /// that it leads (a shard that rests asks nobody); but nothing is decided there.
    fn has_majority(&self, seat: &Seat) -> bool {
        let metrics = seat.group.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = &metrics.membership_config;
        let lives = |id: &u64| {
            let home = members.get_node(id).map(|home| home.node());
            *id == seat.group.id || home.is_some_and(|node| self.pulse.lives(node))
        };
        let sets = members.membership().get_joint_config().iter();
        sets.clone()
            .all(|set| set.iter().filter(|id| lives(id)).count() * 2 > set.len())
    }

    /// Replicas that the map gives this node and that aren't open here.
    fn shut(&self, map: &ClusterMap) -> usize {
        let open = |(shard, replica): &(ShardId, placement::ReplicaId)| {
            self.seat(*shard).is_some_and(|seat| seat.group.id == replica.0)
        };
        map.seats_on(self.options.node).filter(|seat| !open(seat)).count()
    }
}

/// Nodes that should answer this one.
fn peers(map: &ClusterMap, me: NodeId) -> usize {
    let standing = |node: &NodeId| map.steering.standings.get(node).copied().unwrap_or_default();
    let stays = |node: &&NodeId| **node != me && !matches!(standing(node), Standing::Lost | Standing::Decommissioned);
    map.nodes.keys().filter(stays).count()
}
