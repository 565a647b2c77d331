//! The mover: what is known, what is seen, and from both the next step. Values in, values out.
//!
//! ```text
//!   shard 0 (ClusterMap) --.                        .--> the map, one version on: stored by compare-and-set
//!                          +--> decide --Decision---+--> work for leaders of groups: tried, may fail, may be repeated
//!   nodes (Facts) ---------'                        '--> what waits, and for what
//! ```
//!
//! A step is recorded when it is *seen* to be done, and work is only ever the next step of what is recorded. So whoever
//! dies, whenever, loses nothing but time: the next meta leader looks, and goes on. A membership change that was left
//! half done is seen as a joint configuration, and settled before anything else. One that no majority has yet is no
//! change: the group's next leader may never have heard of it. A record that members don't bear out goes back to what
//! they do.
//!
//! Three rules keep it safe. *Ids are fresh*: a replica that comes gets an id that nobody ever had, so that a wiped one
//! can't vote twice. *Work names what was seen*: a group's leader refuses work that was decided on another membership
//! than its present one, so a leader of meta that was deposed without noticing can't undo what its successor did.
//! *Gone means gone*: a replica is dropped from the map only after the group's members no longer name it, and only then
//! does its node throw it away.
//!
//! And three are courtesies: at most `per_node` moves load a node, nothing disturbs a shard in which a live auction closes
//! within `hot_ms` (an operator's reason overrides that), and nothing begins while moves are paused.
//!
//! Deliberately absent: clocks, sockets, openraft. Who is alive and for how long is an argument.

mod advance;
mod begin;
#[cfg(test)]
mod tests;

use crate::{ClusterMap, NodeId, ReplicaId, Rules, ShardId, Standing};
use std::collections::{BTreeMap, BTreeSet};

/// How moves are paced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Moves that may load a node at once.
    pub per_node: usize,
    /// A live auction that closes within so many ms isn't disturbed.
    pub hot_ms: u64,
    /// A new replica has caught up when it lacks at most so many entries.
    pub lag_max: u64,
    /// A node that is silent for so many ms is lost, and its replicas are replaced.
    pub dead_after_ms: u64,
    /// How shards are placed.
    pub rules: Rules,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            per_node: 2,
            hot_ms: 30_000,
            lag_max: 64,
            dead_after_ms: 300_000,
            rules: Rules::default(),
        }
    }
}

/// A group, as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupFacts {
    /// The node that leads.
    pub leader: NodeId,
    /// Who votes: one set, or two while a change is under way.
    pub voters: Vec<BTreeSet<ReplicaId>>,
    /// Who follows without a vote.
    pub learners: BTreeSet<ReplicaId>,
    /// What made its members so isn't on a majority's disks yet: another leader may undo it.
    pub pending: bool,
    /// How many entries each other replica lacks, as far as its leader knows.
    pub lag: BTreeMap<ReplicaId, u64>,
    /// When the first of its live auctions closes, ms from now.
    pub closes_in_ms: Option<u64>,
}

impl GroupFacts {
    /// Whether its members are being changed, so that nothing is to be concluded from them.
    pub(crate) fn is_changing(&self) -> bool {
        self.pending || self.voters.len() > 1
    }

    /// All who vote, before or after a change that is half done.
    pub(crate) fn voting(&self) -> BTreeSet<ReplicaId> {
        self.voters.iter().flatten().copied().collect()
    }

    pub(crate) fn votes(&self, replica: ReplicaId) -> bool {
        self.voters.iter().any(|set| set.contains(&replica))
    }

    pub(crate) fn is_member(&self, replica: ReplicaId) -> bool {
        self.votes(replica) || self.learners.contains(&replica)
    }
}

/// What was seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Wall time, ms.
    pub now_ms: u64,
    /// For how long each node has been silent; a node that isn't named was never looked at.
    pub silent_ms: BTreeMap<NodeId, u64>,
    /// The version of the map by which each node that answered has taken and left its seats.
    pub knows: BTreeMap<NodeId, u64>,
    /// The replicas that each node that answered has open.
    pub seats: BTreeMap<NodeId, BTreeMap<ShardId, ReplicaId>>,
    /// The groups that have a leader that answered.
    pub groups: BTreeMap<ShardId, GroupFacts>,
}

impl Facts {
    /// The node answered the last look.
    #[must_use]
    pub fn alive(&self, node: NodeId) -> bool {
        self.seats.contains_key(&node)
    }
}

/// What a group's leader is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Work {
    /// Let a replica on a node follow.
    AddLearner(ReplicaId, NodeId),
    /// Give a follower a vote.
    Promote(ReplicaId),
    /// Give leadership to another node: to this one, if it can lead.
    HandOver(Option<NodeId>),
    /// Take a replica's vote; `keep`: it goes on following.
    Remove {
        /// Which.
        replica: ReplicaId,
        /// As a follower.
        keep: bool,
    },
    /// Finish a change that was left half done.
    Settle,
}

impl Work {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Work::AddLearner(..) => "add learner",
            Work::Promote(_) => "promote",
            Work::HandOver(_) => "hand over",
            Work::Remove { .. } => "remove",
            Work::Settle => "settle",
        }
    }
}

/// What comes of a look.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// The map to store before anything else, if it changes.
    pub map: Option<ClusterMap>,
    /// What is new in it, a line each, for the log and the audit.
    pub news: Vec<String>,
    /// What leaders of groups are asked to do.
    pub work: Vec<(ShardId, NodeId, Work)>,
    /// What a move waits for, or what a draining node leads.
    pub waits: BTreeMap<ShardId, String>,
}

/// One look's decision.
#[must_use]
pub fn decide(map: &ClusterMap, facts: &Facts, limits: &Limits) -> Decision {
    let mut run = Run {
        map: map.clone(),
        facts,
        limits,
        out: Decision::default(),
    };
    if !map.steering.paused {
        run.lose_the_silent();
        run.advance_moves();
        run.replace_hurt(map);
        run.begin_moves();
    }
    run.forget_the_gone();
    run.tidy_groups(map);
    run.relieve_draining();
    let Run {
        map: mut next, mut out, ..
    } = run;
    out.map = (!out.news.is_empty()).then(|| {
        next.steering.version = map.steering.version + 1;
        next
    });
    out
}

/// A decision in the making.
struct Run<'a> {
    map: ClusterMap,
    facts: &'a Facts,
    limits: &'a Limits,
    out: Decision,
}

impl Run<'_> {
    fn news(&mut self, line: String) {
        self.out.news.push(line);
    }

    fn wait(&mut self, shard: ShardId, why: impl Into<String>) {
        self.out.waits.insert(shard, why.into());
    }

    fn work(&mut self, shard: ShardId, work: Work) {
        if let Some(group) = self.facts.groups.get(&shard) {
            self.out.work.push((shard, group.leader, work));
        }
    }

    /// Whether an auction of the shard must not be disturbed now.
    fn hot(&self, shard: ShardId) -> bool {
        let closes = self.facts.groups.get(&shard).and_then(|group| group.closes_in_ms);
        closes.is_some_and(|in_ms| in_ms <= self.limits.hot_ms)
    }

    /// Whether `voters` would have a majority among nodes that answer.
    fn majority_alive(&self, shard: ShardId, voters: &BTreeSet<ReplicaId>) -> bool {
        let opens = |replica: &&ReplicaId| {
            let here = |seats: &BTreeMap<ShardId, ReplicaId>| seats.get(&shard) == Some(*replica);
            self.facts.seats.values().any(here)
        };
        voters.iter().filter(opens).count() * 2 > voters.len()
    }

    /// Nodes that no look reached for too long are lost, if the others can carry their shards.
    fn lose_the_silent(&mut self) {
        let silent: Vec<NodeId> = self
            .facts
            .silent_ms
            .iter()
            .filter(|(node, ms)| {
                let standing = self.map.standing(**node);
                **ms >= self.limits.dead_after_ms && matches!(standing, Standing::Active | Standing::Draining)
            })
            .map(|(node, _)| *node)
            .collect();
        for node in silent {
            let change = crate::Change::Lose(node);
            // Refused: there is nobody to take its shards. That is looked at again.
            if let Ok(plan) = crate::plan(&self.map, &change, self.limits.rules, self.facts.now_ms, None) {
                self.map = plan.map;
                self.news(format!("node {} was silent for too long: it is lost", node.0));
            }
        }
    }

    /// A node that has gone for good and holds nothing stops following shard 0, once it has closed what it held. (One that
    /// is lost goes on: it must hear of it when it comes back.)
    fn forget_the_gone(&mut self) {
        let watchers: Vec<NodeId> = self.map.steering.watchers.keys().copied().collect();
        for node in watchers {
            let holds = self.map.shards_on(node).next().is_some() || self.map.steering.moves_of(node) > 0;
            let open = self.facts.seats.get(&node);
            let closed = open.is_none_or(|seats| seats.keys().all(|shard| *shard == ShardId::META));
            if self.map.standing(node) == Standing::Decommissioned && !holds && closed {
                self.map.steering.watchers.remove(&node);
                self.news(format!("node {} has gone: it holds nothing any more", node.0));
            }
        }
    }

    /// Groups whose members aren't what the map says: half-done changes are settled, strangers sent away, watchers of
    /// shard 0 let in. Looks at the map as it is stored, not as it is about to be.
    fn tidy_groups(&mut self, stored: &ClusterMap) {
        for (shard, group) in &self.facts.groups {
            if self.out.work.iter().any(|work| work.0 == *shard) {
                continue;
            }
            if group.is_changing() {
                if !group.pending {
                    self.work(*shard, Work::Settle);
                }
                continue;
            }
            let mut known: BTreeMap<ReplicaId, NodeId> = stored
                .replicas_of(*shard)
                .iter()
                .map(|(node, replica)| (*replica, *node))
                .collect();
            if let Some(one) = stored.steering.moves.get(shard) {
                known.extend(
                    [one.from, one.to]
                        .iter()
                        .flatten()
                        .map(|(node, replica)| (*replica, *node)),
                );
            }
            let placed = known.clone();
            if *shard == ShardId::META {
                known.extend(stored.steering.watchers.iter().map(|(node, replica)| (*replica, *node)));
                let missing = stored
                    .steering
                    .watchers
                    .iter()
                    .find(|(_, replica)| !group.is_member(**replica));
                if let Some((node, replica)) = missing {
                    self.work(*shard, Work::AddLearner(*replica, *node));
                    continue;
                }
            }
            // A vote that was given late, when the move that it was for had been taken back.
            let voters = group.voters.iter().flatten();
            let members = group.learners.iter().filter(|replica| !known.contains_key(replica));
            let stranger = members.chain(voters.filter(|replica| !placed.contains_key(replica)));
            if let Some(replica) = stranger.copied().next() {
                let mut left = group.voting();
                left.remove(&replica);
                let keep = known.contains_key(&replica);
                if self.majority_alive(*shard, &left) {
                    self.work(*shard, Work::Remove { replica, keep });
                }
            }
        }
    }

    /// What a draining node leads goes to others.
    fn relieve_draining(&mut self) {
        if self.map.steering.paused {
            return;
        }
        for (shard, group) in &self.facts.groups {
            let drains = self.map.standing(group.leader) != Standing::Active;
            let busy = self.out.work.iter().any(|work| work.0 == *shard);
            let forced = self.map.steering.forced.is_some();
            let others = group.voting().len() > 1;
            if !drains || !others || busy {
                continue;
            }
            if self.hot(*shard) && !forced {
                // A move of the shard may have said already what it waits for itself.
                if !self.out.waits.contains_key(shard) {
                    self.wait(*shard, "a live auction closes soon");
                }
                continue;
            }
            let mut others = self.map.replicas_of(*shard).iter().map(|replica| replica.0);
            let to = others.find(|node| self.map.share(*node) > 0 && self.facts.alive(*node));
            self.work(*shard, Work::HandOver(to));
        }
    }
}
