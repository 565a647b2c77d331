//! One move, one step further: what its recorded step and the group's present members say comes next.

use super::{GroupFacts, Run, Work};
use crate::{ClusterMap, Move, NodeId, ReplicaId, ShardId, Standing, Step};
use std::collections::BTreeSet;

impl Run<'_> {
    pub(super) fn advance_moves(&mut self) {
        let moves: Vec<(ShardId, Move)> = self.map.steering.moves.clone().into_iter().collect();
        for (shard, one) in moves {
            if one.step == Step::Removed {
                self.bury(shard, &one);
                continue;
            }
            let Some(group) = self.facts.groups.get(&shard) else {
                self.wait(shard, "its group has no leader that answers");
                continue;
            };
            if group.is_changing() {
                // Settled first, by `tidy_groups`.
                self.wait(shard, "a change of members is under way");
            } else if one.back {
                self.go_back(shard, &one, group);
            } else {
                self.go_on(shard, &one, group);
            }
        }
    }

    fn go_on(&mut self, shard: ShardId, one: &Move, group: &GroupFacts) {
        let true_step = borne_out(one, group);
        if true_step < one.step {
            self.news(format!(
                "shard {}: move {}: the group doesn't know of it any more",
                shard.0, one.id
            ));
            self.record(shard, true_step);
            return;
        }
        match (one.step, one.to) {
            (Step::Planned, Some((node, replica))) if !group.is_member(replica) => {
                if self.facts.seats.get(&node).and_then(|seats| seats.get(&shard)) == Some(&replica) {
                    self.work(shard, Work::AddLearner(replica, node));
                } else {
                    self.wait(shard, format!("node {} to open its replica", node.0));
                }
            }
            (Step::Planned, Some(_)) => self.record(shard, Step::Learner),
            // Nobody comes: what is left is to take one away.
            (Step::Planned, None) => self.record(shard, Step::Joint),
            (Step::Learner, Some((node, replica))) => {
                let lag = group.lag.get(&replica).copied();
                if group.votes(replica) || lag.is_some_and(|lag| lag <= self.limits.lag_max) {
                    self.record(shard, Step::CaughtUp);
                } else {
                    let lag = lag.map_or("all".to_owned(), |lag| lag.to_string());
                    self.wait(shard, format!("node {} to catch up: it lacks {lag} entries", node.0));
                }
            }
            (Step::CaughtUp, Some((_, replica))) if group.votes(replica) => self.joined(shard, one),
            (Step::CaughtUp, Some((_, replica))) => {
                let mut then = group.voting();
                then.insert(replica);
                self.change(shard, one, &then, Work::Promote(replica));
            }
            (Step::Learner | Step::CaughtUp, None) => self.record(shard, Step::Joint),
            (Step::Joint, _) => self.hand_over(shard, one, group),
            (Step::HandedOver, _) => self.take_vote(shard, one, group),
            (Step::Removed, _) => {}
        }
    }

    /// The new replica votes. A shard that only gains one is done with that.
    fn joined(&mut self, shard: ShardId, one: &Move) {
        if one.from.is_none() {
            swap(&mut self.map, shard, one);
            self.news(format!("shard {}: move {} is done: {}", shard.0, one.id, told(one)));
            self.map.steering.end(shard, self.facts.now_ms);
            settle_goal(&mut self.map, shard);
            return;
        }
        self.record(shard, Step::Joint);
    }

    fn hand_over(&mut self, shard: ShardId, one: &Move, group: &GroupFacts) {
        let leads = one.from.is_some_and(|from| from.0 == group.leader);
        if !leads {
            self.record(shard, Step::HandedOver);
        } else if self.hot(shard) && one.forced.is_none() {
            self.wait(shard, "a live auction closes soon");
        } else {
            let to = one.to.map(|to| to.0).filter(|node| self.map.share(*node) > 0);
            let wished = self
                .map
                .steering
                .goal
                .get(&shard)
                .and_then(|nodes| nodes.first().copied());
            let present =
                |node: &NodeId| one.to.is_some_and(|to| to.0 == *node) || self.map.replica_on(shard, *node).is_some();
            self.work(shard, Work::HandOver(wished.filter(present).or(to)));
        }
    }

    fn take_vote(&mut self, shard: ShardId, one: &Move, group: &GroupFacts) {
        let Some((node, replica)) = one.from else {
            // Nothing to take: seen only if a build changed its mind about steps.
            self.map.steering.end(shard, self.facts.now_ms);
            self.news(format!("shard {}: move {} had nothing left to do", shard.0, one.id));
            return;
        };
        // Shard 0's old voter goes on following it, as every node does that stays.
        let keep = shard == ShardId::META && self.map.standing(node) != Standing::Decommissioned;
        let gone = if keep {
            !group.votes(replica)
        } else {
            !group.is_member(replica)
        };
        if gone {
            swap(&mut self.map, shard, one);
            if keep {
                self.map.steering.watchers.insert(node, replica);
            }
            settle_goal(&mut self.map, shard);
            self.record(shard, Step::Removed);
            return;
        }
        if group.leader == node {
            // It leads again: an election came between.
            self.hand_over_again(shard, one);
            return;
        }
        let mut then = group.voting();
        then.remove(&replica);
        self.change(shard, one, &then, Work::Remove { replica, keep });
    }

    fn hand_over_again(&mut self, shard: ShardId, one: &Move) {
        if self.hot(shard) && one.forced.is_none() {
            self.wait(shard, "a live auction closes soon");
        } else {
            self.work(shard, Work::HandOver(one.to.map(|to| to.0)));
        }
    }

    /// Work that changes who votes: only if a majority of the then voters answers, and nobody is disturbed.
    fn change(&mut self, shard: ShardId, one: &Move, then: &BTreeSet<ReplicaId>, work: Work) {
        if !self.majority_alive(shard, then) {
            self.wait(shard, "a majority of the new members to answer");
            if one.to.is_none() && !one.back && self.has_hurt(shard, then) {
                // They never will before the hurt one is replaced, and that waits for this move.
                if let Some(kept) = self.map.steering.moves.get_mut(&shard) {
                    kept.back = true;
                }
                self.news(format!(
                    "shard {}: move {} goes back: a replica that stays is hurt",
                    shard.0, one.id
                ));
            }
        } else if self.hot(shard) && one.forced.is_none() {
            self.wait(shard, "a live auction closes soon");
        } else {
            self.work(shard, work);
        }
    }

    /// Whether one of these replicas is given to its node, which doesn't open it.
    pub(super) fn has_hurt(&self, shard: ShardId, of: &BTreeSet<ReplicaId>) -> bool {
        let version = self.map.steering.version;
        let mut replicas = self.map.replicas_of(shard).iter();
        replicas.any(|(node, replica)| of.contains(replica) && self.is_shut(shard, *node, *replica, version))
    }

    /// Cancelled: the new replica goes, the old one stays.
    fn go_back(&mut self, shard: ShardId, one: &Move, group: &GroupFacts) {
        let keep = shard == ShardId::META && one.to.is_some_and(|to| self.map.steering.watchers.contains_key(&to.0));
        let there = one
            .to
            .filter(|to| if keep { group.votes(to.1) } else { group.is_member(to.1) });
        let old_votes = one.from.is_none_or(|from| group.votes(from.1));
        match there {
            // Too late: the old replica's vote is gone, so the new one's must stay.
            Some(_) if !old_votes => {
                if let Some(kept) = self.map.steering.moves.get_mut(&shard) {
                    kept.back = false;
                }
                self.news(format!("shard {}: move {} can't go back any more", shard.0, one.id));
            }
            Some((node, replica)) if node == group.leader => {
                let _ = replica;
                self.work(shard, Work::HandOver(one.from.map(|from| from.0)));
            }
            Some((_, replica)) => {
                let mut then = group.voting();
                then.remove(&replica);
                self.change(shard, one, &then, Work::Remove { replica, keep });
            }
            None => {
                self.map.steering.end(shard, self.facts.now_ms);
                settle_goal(&mut self.map, shard);
                self.news(format!(
                    "shard {}: move {} was taken back: {}",
                    shard.0,
                    one.id,
                    told(one)
                ));
            }
        }
    }

    /// The old replica's node throws it away as soon as it knows; one that doesn't answer will when it comes back.
    fn bury(&mut self, shard: ShardId, one: &Move) {
        let still = one.from.filter(|(node, replica)| {
            let seats = self.facts.seats.get(node);
            let watches = self.map.steering.watchers.get(node) == Some(replica);
            !watches && seats.and_then(|seats| seats.get(&shard)) == Some(replica)
        });
        if let Some((node, _)) = still {
            self.wait(shard, format!("node {} to throw its replica away", node.0));
            return;
        }
        self.map.steering.end(shard, self.facts.now_ms);
        self.news(format!("shard {}: move {} is done: {}", shard.0, one.id, told(one)));
    }

    fn record(&mut self, shard: ShardId, step: Step) {
        if let Some(one) = self.map.steering.moves.get_mut(&shard) {
            one.step = step;
            let id = one.id;
            self.news(format!("shard {}: move {id}: {}", shard.0, step.word()));
        }
    }
}

/// How far a move can be, by the group's members.
fn borne_out(one: &Move, group: &GroupFacts) -> Step {
    match one.to {
        Some((_, replica)) if !group.is_member(replica) => Step::Planned,
        Some((_, replica)) if !group.votes(replica) => one.step.min(Step::CaughtUp),
        _ => one.step,
    }
}

/// A move in words.
pub(super) fn told(one: &Move) -> String {
    let from = one
        .from
        .map_or(String::new(), |from| format!(" from node {}", from.0.0));
    let to = one.to.map_or(String::new(), |to| format!(" to node {}", to.0.0));
    format!("replica{from}{to} ({})", one.reason)
}

/// The map says what the group's members are: the new replica in the old one's place, in the order of the goal.
fn swap(map: &mut ClusterMap, shard: ShardId, one: &Move) {
    let goal = map.steering.goal.get(&shard).cloned().unwrap_or_default();
    let Some(placement) = map.placement.get_mut(&shard) else {
        return;
    };
    placement.replicas.retain(|replica| Some(*replica) != one.from);
    if let Some(to) = one.to
        && !placement.replicas.contains(&to)
    {
        placement.replicas.push(to);
    }
    // Who isn't in the goal keeps its place behind those who are.
    placement
        .replicas
        .sort_by_key(|replica| goal.iter().position(|node| *node == replica.0).unwrap_or(usize::MAX));
    if shard == ShardId::META
        && let Some(to) = one.to
    {
        map.steering.watchers.remove(&to.0);
    }
    map.epoch += 1;
}

/// A goal that is reached is none.
fn settle_goal(map: &mut ClusterMap, shard: ShardId) {
    let Some(goal) = map.steering.goal.get(&shard) else {
        return;
    };
    let goal: BTreeSet<NodeId> = goal.iter().copied().collect();
    let has: BTreeSet<NodeId> = map.replicas_of(shard).iter().map(|replica| replica.0).collect();
    if goal == has {
        map.steering.goal.remove(&shard);
    }
}
