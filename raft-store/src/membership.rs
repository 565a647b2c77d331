//! A group's members, as its leader sees and changes them: the hands of `mover`.
//!
//! Every change names the members that it was decided on, by the log id of the entry that made them so: a decision that is
//! out of date is refused, be it a step that was done already or one of a mover that has been deposed.
//!
//! Leadership is handed over before a leader loses its vote: a planned hand-over costs milliseconds, an election hundreds.
//!
//! Deliberately absent: what should change, and when (`placement::mover`).

use crate::{
    clock::proposer::ProposerHandle,
    group::Group,
    port::{Leadership, Log},
    types::{Home, LogId, TypeConfig},
};
use openraft::{ChangeMembers, async_runtime::watch::WatchReceiver, metrics::RaftMetrics, raft::Precondition};
use placement::{GroupFacts, NodeId, ReplicaId, Work};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// A change that takes longer is looked at again: it may still be done.
const CHANGE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a planned hand-over may take.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(500);

/// A hand-over that was begun. From then on a leader takes no proposals and speaks no heartbeats, in that term, for good:
/// openraft knows no way back. So whoever was named and doesn't come must be followed by another.
pub(crate) struct Handing {
    term: u64,
    /// The replica that was named last.
    to: u64,
    at: Instant,
}

impl Handing {
    /// Whether it was begun in this leadership, which stands still.
    fn is_of(&self, known: Leadership) -> bool {
        known.leading && known.term == self.term
    }
}

/// A group that this node leads.
pub(crate) struct Led {
    pub(crate) facts: GroupFacts,
    /// What made its members what they are.
    pub(crate) members: Option<LogId>,
}

impl Group {
    /// The group as its leader sees it; none if this replica doesn't lead.
    pub(crate) fn as_led(&self, me: NodeId, closes_in_ms: Option<u64>) -> Option<Led> {
        if !self.leadership().borrow().leading {
            return None;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let ids = |set: &BTreeSet<u64>| set.iter().copied().map(ReplicaId).collect();
        let facts = GroupFacts {
            leader: me,
            voters: membership.get_joint_config().iter().map(ids).collect(),
            learners: membership.learner_ids().map(ReplicaId).collect(),
            pending: is_pending(&metrics),
            lag: lag(&metrics),
            closes_in_ms,
        };
        Some(Led {
            facts,
            members: *metrics.membership_config.log_id(),
        })
    }

    /// The other nodes with a replica of this group, and how many entries each lacks; nothing unless this replica leads.
    pub(crate) fn followers(&self) -> Vec<(NodeId, u64)> {
        if !self.leadership().borrow().leading {
            return Vec::new();
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let lag = lag(&metrics);
        let others = metrics.membership_config.nodes().filter(|(id, _)| **id != self.id);
        // One that never matched anything lacks everything.
        let all = metrics.last_log_index.unwrap_or(0);
        others
            .map(|(id, home)| (home.node(), lag.get(&ReplicaId(*id)).copied().unwrap_or(all)))
            .collect()
    }

    /// Changes who is a member, if the members are still those that were `seen`.
    pub(crate) async fn change(&self, work: Work, seen: Option<LogId>) -> Result<(), String> {
        let present = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (
                *metrics.membership_config.log_id(),
                metrics.membership_config.voter_ids().collect::<BTreeSet<_>>(),
            )
        };
        if present.0 != seen {
            return Err("its members have changed meanwhile".into());
        }
        let (change, retain) = match work {
            Work::AddLearner(replica, node) => {
                let nodes = BTreeMap::from([(replica.0, Home(node.0))]);
                (ChangeMembers::AddNodes(nodes), true)
            }
            Work::Promote(replica) => (ChangeMembers::AddVoterIds([replica.0].into()), true),
            Work::Remove { replica, keep } if present.1.contains(&replica.0) => {
                (ChangeMembers::RemoveVoters([replica.0].into()), keep)
            }
            Work::Remove { replica, .. } => (ChangeMembers::RemoveNodes([replica.0].into()), true),
            // Whatever was begun has its last set of voters already: adding nobody to it makes it the only one.
            Work::Settle => (ChangeMembers::AddVoterIds(BTreeSet::new()), true),
            Work::HandOver(_) => return Err("no change of members".into()),
        };
        let guard: Precondition<TypeConfig> = Precondition::LastMembershipLogId {
            last_membership_log_id: seen,
        };
        self.up().await;
        let changed = self.raft.change_membership_if(change, retain, [guard]);
        match tokio::time::timeout(CHANGE_PATIENCE, changed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no majority answered in time".into()),
        }
    }

    /// Gives leadership to a voter that has the whole log, on a node that is `fit`: on the one `wished` for, if it is one of
    /// them. Intake stands still for as long as it takes, and goes on here if nobody took over.
    pub(crate) async fn give_leadership(
        &self,
        proposer: Option<&ProposerHandle>,
        wished: Option<NodeId>,
        fit: impl Fn(NodeId) -> bool,
    ) -> Result<(), String> {
        if !self.leadership().borrow().leading {
            return Err("it doesn't lead".into());
        }
        if let Some(proposer) = proposer {
            proposer.quiesce().await;
        }
        // Who was named already, and didn't come, is the last choice.
        let named = self.named();
        let target = self
            .heir(|voter, node| Some(node) == wished && Some(voter) != named && fit(node))
            .or_else(|| self.heir(|voter, node| Some(voter) != named && fit(node)))
            .or_else(|| self.heir(|_, node| fit(node)));
        let done = match target {
            Some(target) => self.transfer(target).await,
            None => Err("no other voter has the whole log".into()),
        };
        if let (Err(_), Some(proposer)) = (&done, proposer) {
            proposer.reopen();
        }
        done
    }

    async fn transfer(&self, to: u64) -> Result<(), String> {
        let mut leadership = self.leadership();
        // Noted first: whoever asked for it may not wait for the outcome.
        *self.handing.lock() = Some(Handing {
            term: leadership.borrow().term,
            to,
            at: Instant::now(),
        });
        self.raft
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(|error| error.to_string())?;
        let gone = leadership.wait_for(|leadership| !leadership.leading);
        match tokio::time::timeout(HAND_OVER_PATIENCE, gone).await {
            Ok(_) => Ok(()),
            Err(_) => Err("the other replica didn't take over in time".into()),
        }
    }

    /// The replica that was named last as the next leader, while this one still leads.
    fn named(&self) -> Option<u64> {
        let handing = self.handing.lock();
        let handing = handing.as_ref().filter(|handing| handing.is_of(self.led()));
        handing.map(|handing| handing.to)
    }

    /// Whether it leads without being able to, since whoever it named didn't take over in time. Said once each time that is
    /// waited for: who hears it names another.
    pub(crate) fn falls_mute(&self) -> bool {
        let mut handing = self.handing.lock();
        let Some(handing) = handing.as_mut().filter(|handing| handing.is_of(self.led())) else {
            return false;
        };
        let mute = handing.at.elapsed() >= HAND_OVER_PATIENCE;
        if mute {
            handing.at = Instant::now();
        }
        mute
    }

    /// Whether any other voter is on a node that is `fit`, be it that it lacks a little of the log now.
    pub(crate) fn has_voter(&self, fit: impl Fn(NodeId) -> bool) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = &metrics.membership_config;
        let home = |voter: u64| members.get_node(&voter).map(|home| home.node());
        let mut others = members.voter_ids().filter(|voter| *voter != self.id);
        others.any(|voter| home(voter).is_some_and(&fit))
    }

    /// A voter, on a node, that is `fit` and has the whole log.
    fn heir(&self, fit: impl Fn(u64, NodeId) -> bool) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let lag = lag(&metrics);
        let there = |voter: &u64| {
            let home = metrics.membership_config.get_node(voter).map(|home| home.node());
            *voter != self.id && home.is_some_and(|home| fit(*voter, home)) && lag.get(&ReplicaId(*voter)) == Some(&0)
        };
        metrics.membership_config.voter_ids().find(there)
    }
}

/// Whether the entry that made the members what they are is still on its way to a majority.
fn is_pending(metrics: &RaftMetrics<TypeConfig>) -> bool {
    let made = metrics.membership_config.log_id().map(|id| id.index);
    made > metrics.local_committed.map(|id| id.index)
}

/// How many entries each other replica lacks.
fn lag(metrics: &RaftMetrics<TypeConfig>) -> BTreeMap<ReplicaId, u64> {
    let last = metrics.last_log_index.unwrap_or(0);
    let Some(matched) = metrics.replication.as_ref() else {
        return BTreeMap::new();
    };
    let known = matched
        .iter()
        .filter_map(|(replica, id)| Some((*replica, id.as_ref()?.index)));
    known
        .map(|(replica, index)| (ReplicaId(replica), last.saturating_sub(index)))
        .collect()
}
