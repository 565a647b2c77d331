//! Which moves begin now: at most one of each shard and `per_node` of each node, and none where it would hurt.

use super::{Run, advance::told};
use crate::{
    ClusterMap, Move, NodeId, ReplicaId, ShardId, Standing, Step,
    plan::{pairs, reason, renew_goal},
};

impl Run<'_> {
    pub(super) fn begin_moves(&mut self) {
        let shards: Vec<ShardId> = self.map.steering.goal.keys().copied().collect();
        for shard in shards {
            if self.map.steering.moves.contains_key(&shard) {
                continue;
            }
            match pairs(&self.map, shard).into_iter().next() {
                Some((from, to)) => self.begin(shard, from, to),
                // The goal names the nodes that the shard has: only their order is new.
                None => self.reorder(shard),
            }
        }
    }

    fn reorder(&mut self, shard: ShardId) {
        let Some(goal) = self.map.steering.goal.remove(&shard) else {
            return;
        };
        if let Some(placement) = self.map.placement.get_mut(&shard) {
            let before = placement.replicas.clone();
            placement
                .replicas
                .sort_by_key(|replica| goal.iter().position(|node| *node == replica.0));
            self.map.epoch += u64::from(before != placement.replicas);
        }
        self.news(format!("shard {} is where it should be", shard.0));
    }

    fn begin(&mut self, shard: ShardId, from: Option<NodeId>, to: Option<NodeId>) {
        let forced = self.map.steering.forced.clone();
        let Some(group) = self.facts.groups.get(&shard) else {
            self.wait(shard, "its group has no leader that answers");
            return;
        };
        if group.is_changing() {
            self.wait(shard, "a change of members is under way");
            return;
        }
        if to.is_some_and(|to| self.map.standing(to) != Standing::Active) {
            // It was to stay where it is, drained, and a move that was past the point has taken it away.
            renew_goal(&mut self.map, shard, self.limits.rules, self.facts.now_ms);
            self.news(format!(
                "shard {}: its goal was of other nodes, and is made anew",
                shard.0
            ));
            return;
        }
        if let Some(to) = to
            && !self.facts.alive(to)
        {
            self.wait(shard, format!("node {} to answer", to.0));
            return;
        }
        if to.is_none() {
            let goes = from.and_then(|node| self.map.replica_on(shard, node));
            let mut left = group.voting();
            left.retain(|replica| Some(*replica) != goes);
            if self.has_hurt(shard, &left) {
                self.wait(shard, "a hurt replica to be replaced");
                return;
            }
        }
        let busy = [from, to].into_iter().flatten().find(|node| self.loaded(*node));
        if let Some(node) = busy {
            self.wait(shard, format!("moves of node {}", node.0));
            return;
        }
        if self.hot(shard) && forced.is_none() {
            self.wait(shard, "a live auction closes soon");
            return;
        }
        let why = reason(&self.map, shard, from, to);
        // A node that follows shard 0 already goes on as the replica that it is.
        let watcher = to.and_then(|node| self.map.steering.watchers.get(&node).copied());
        let watcher = watcher.filter(|_| shard == ShardId::META);
        let to = to.map(|node| (node, watcher.unwrap_or_else(|| self.map.next_replica())));
        let from: Option<(NodeId, ReplicaId)> = from.and_then(|node| Some((node, self.map.replica_on(shard, node)?)));
        self.insert(shard, from, to, forced, why);
    }

    fn insert(
        &mut self,
        shard: ShardId,
        from: Option<(NodeId, ReplicaId)>,
        to: Option<(NodeId, ReplicaId)>,
        forced: Option<String>,
        reason: String,
    ) {
        self.map.steering.move_ids += 1;
        let one = Move {
            id: self.map.steering.move_ids,
            from,
            to,
            step: Step::Planned,
            back: false,
            forced,
            reason,
            began_ms: self.facts.now_ms,
        };
        self.news(format!("shard {}: move {} begins: {}", shard.0, one.id, told(&one)));
        self.map.steering.moves.insert(shard, one);
    }

    /// A replica that its node has been given and can't open (damage in its log took something that it may have answered
    /// for) is replaced where it is, under a fresh id. That comes before other moves of the shard: one that takes a whole
    /// replica would wait for a majority of the others in vain.
    pub(super) fn replace_hurt(&mut self, stored: &ClusterMap) {
        let busy = |shard: &ShardId| stored.steering.moves.contains_key(shard) || stored.is_sealed(*shard);
        let shards = stored
            .placement
            .iter()
            .filter(|(shard, _)| **shard != ShardId::META && !busy(shard));
        for (shard, placement) in shards {
            // One that goes anyway needs no successor in its place.
            let goal = stored.steering.goal.get(shard);
            let stays = |node: NodeId| goal.is_none_or(|goal| goal.contains(&node));
            let shut = |(node, replica): &&(NodeId, ReplicaId)| {
                stays(*node) && self.is_shut(*shard, *node, *replica, stored.steering.version)
            };
            let Some(&hurt) = placement.replicas.iter().find(shut) else {
                continue;
            };
            let group = self.facts.groups.get(shard);
            let ready = group.is_some_and(|group| !group.is_changing() && group.votes(hurt.1));
            if ready && !self.loaded(hurt.0) && !self.map.steering.moves.contains_key(shard) {
                let fresh = self.map.next_replica();
                let why = "its replica is hurt".to_owned();
                self.insert(*shard, Some(hurt), Some((hurt.0, fresh)), None, why);
            }
        }
    }

    /// A node knows by the map of `version` that it has a replica, and doesn't open it.
    pub(super) fn is_shut(&self, shard: ShardId, node: NodeId, replica: ReplicaId, version: u64) -> bool {
        let told = self.facts.knows.get(&node) == Some(&version);
        let open = self.facts.seats.get(&node).and_then(|seats| seats.get(&shard));
        told && open != Some(&replica)
    }

    /// A node that is gone isn't loaded by losing replicas: it does no work for it.
    fn loaded(&self, node: NodeId) -> bool {
        self.facts.alive(node) && self.map.steering.moves_of(node) >= self.limits.per_node
    }
}
