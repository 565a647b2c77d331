//! The operator of a simulation: a node joins, shards move, nodes drain and come back, leaderships are handed over, while
//! people bid and machines fail.
//!
//! Whatever the cluster refuses stays refused; whatever isn't answered in time is asked for no more, or again by chance.
//! When people stop, everything that was stopped is told to go on, and `run` waits until all moves have come to an end.
//!
//! Deliberately absent: force. A guard rail that was overridden promises nothing.

use super::{
    edge::Edge,
    mail::{Answer, Ask},
    node,
    people::Person,
};
use placement::{Change, NodeId, ShardId, Standing};
use raft_store::Host;
use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

/// Longer than a host tries.
const PATIENCE: Duration = Duration::from_secs(12);

/// What a node does with an operator's change: true if it was stored.
pub(super) async fn steer(host: &Host, change: Change) -> bool {
    let ask = raft_store::Ask {
        change,
        who: "operator".into(),
        force: None,
        version: None,
        dry_run: false,
        newest: raft_store::versions::NEWEST,
    };
    host.steer(ask).await.is_ok()
}

/// Gives a shard's leadership to a node, from whoever this node thinks has it.
pub(super) async fn hand_over(host: &Host, shard: ShardId, to: u64) -> bool {
    let leader = host
        .leaders()
        .into_iter()
        .find_map(|(led, _, leader)| leader.filter(|_| led == shard));
    match leader {
        Some(leader) => host.hand_over(shard, leader, Some(NodeId(to))).await.is_ok(),
        None => false,
    }
}

/// Whether all that was asked for has come true: no moves, nothing paused, and each node has what the newest map gives it.
pub(super) fn has_settled(hosts: &[Host]) -> bool {
    let maps = hosts.iter().map(|host| host.map().borrow().clone());
    let Some(map) = maps.max_by_key(|map| map.steering.version) else {
        return false;
    };
    let steering = &map.steering;
    let quiet = steering.goal.is_empty() && steering.moves.is_empty() && !steering.paused;
    quiet
        && hosts.iter().all(|host| {
            let has: BTreeSet<ShardId> = host.status().iter().map(|group| group.shard).collect();
            let gets: BTreeSet<ShardId> = map.seats_on(host.node()).map(|seat| seat.0).collect();
            has == gets && *host.map().borrow() == map && map.standing(host.node()) == Standing::Active
        })
}

impl Person {
    /// Runs the cluster of `founders` nodes and `more` that may join, until people stop.
    pub(super) async fn operate(mut self, founders: u64, more: u64) {
        self.show.unanswered.fetch_add(1, Ordering::Relaxed);
        let (all, shards) = (founders + more, u64::from(self.show.shards));
        let mut waiting: Vec<u64> = (founders + 1..=all).collect();
        let mut drained: BTreeSet<u64> = BTreeSet::new();
        let mut paused = false;
        while self.think(400, 2_500).await {
            if let Some(node) = waiting.last().copied() {
                if self.told(Change::Join(node::entry(node))).await {
                    waiting.pop();
                }
                continue;
            }
            let (from, to) = (self.dice.between(1, all), self.dice.between(1, all));
            let shard = ShardId(self.dice.between(0, shards) as u32);
            match self.dice.below(20) {
                0..10 => {
                    let owner = "operator".into();
                    let (from, to) = (NodeId(from), NodeId(to));
                    self.told(Change::Move { shard, from, to, owner }).await;
                }
                10..12 if drained.is_empty() => {
                    self.told(Change::Drain(NodeId(from))).await;
                    drained.insert(from);
                }
                10..14 => {
                    if let Some(node) = drained.first().copied()
                        && self.told(Change::Resume(NodeId(node))).await
                    {
                        drained.remove(&node);
                    }
                }
                14 => drop(self.told(Change::Rebalance).await),
                15 => drop(self.told(Change::Cancel(None)).await),
                16 => {
                    paused = !paused;
                    self.told(if paused { Change::Pause } else { Change::Go }).await;
                }
                _ => drop(self.wish(Ask::HandOver(shard, to)).await),
            }
        }
        self.leave(all).await;
        self.show.unanswered.fetch_sub(1, Ordering::Relaxed);
    }

    /// Everything goes on again.
    async fn leave(&mut self, all: u64) {
        let nodes = (1..=all).map(|node| Change::Resume(NodeId(node)));
        for change in nodes.chain([Change::Go]) {
            // Refused: there is nothing to go on. Not answered: the next round asks again.
            for _ in 0..3 {
                if self.told(change.clone()).await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn told(&mut self, change: Change) -> bool {
        self.wish(Ask::Steer(Box::new(change))).await
    }

    async fn wish(&mut self, ask: Ask) -> bool {
        let node = self.show.any_node(&mut self.dice);
        let way: &Edge = &self.edge;
        matches!(way.ask(node, ask, PATIENCE).await, Some(Answer::Done(true)))
    }
}
