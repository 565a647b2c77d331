//! Where the map is going: what nodes are told to do, the placement that is wanted, and each move's step.
//!
//! ```text
//!   planned --> learner --> caught up --> joint --> handed over --> removed --> (gone: the old replica is tombstoned)
//!      '----------'------------'           '------------'
//!        cancel: leaves no trace        cancel: rolled back while the old replica still votes
//! ```
//!
//! All of it lies in shard 0 beside the placement, so that whoever leads meta next goes on where the last one died. Each
//! step names what is *known to be done*; the next one is tried until it is seen to be done, and only then recorded.
//!
//! `version` rises with every change and is what writers compare and set; `ClusterMap::epoch` rises only when somebody
//! who sends bids must know: a move of six steps costs edges one new map, not six.
//!
//! Deliberately absent: deciding. `plan` makes goals, `mover` walks towards them.

use crate::{NodeId, Override, ReplicaId, ShardId};
use std::collections::BTreeMap;

/// Most ended moves that are remembered.
const ENDED_MAX: usize = 128;
/// Most things that were asked for that are remembered.
const SAID_MAX: usize = 128;

/// What a node is to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Standing {
    /// Takes shards by its weight.
    #[default]
    Active,
    /// Leads nothing, and gives its replicas away where others can take them. Comes back by `resume`.
    Draining,
    /// Was silent for too long: its replicas are replaced. Comes back, without them, by `resume`.
    Lost,
    /// Gone for good; its id is never used again.
    Decommissioned,
}

impl Standing {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Draining => "draining",
            Standing::Lost => "lost",
            Standing::Decommissioned => "decommissioned",
        }
    }
}

/// What is known to be done of a move.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// Decided; the new replica may be opened.
    Planned,
    /// The new replica follows the group's log, without a vote.
    Learner,
    /// The new replica has nearly all of the log.
    CaughtUp,
    /// The new replica votes.
    Joint,
    /// The old replica does not lead.
    HandedOver,
    /// The old replica does not vote, and the map says so.
    Removed,
}

impl Step {
    /// All, in order.
    pub const ALL: [Step; 6] = [
        Step::Planned,
        Step::Learner,
        Step::CaughtUp,
        Step::Joint,
        Step::HandedOver,
        Step::Removed,
    ];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Step::Planned => "planned",
            Step::Learner => "learner",
            Step::CaughtUp => "caught up",
            Step::Joint => "joint",
            Step::HandedOver => "handed over",
            Step::Removed => "removed",
        }
    }
}

/// One replica on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// Its number, in the order in which moves began.
    pub id: u64,
    /// The replica that goes; none: the shard gains one.
    pub from: Option<(NodeId, ReplicaId)>,
    /// The replica that comes, under an id that was never used; none: the shard loses one.
    pub to: Option<(NodeId, ReplicaId)>,
    /// How far it is.
    pub step: Step,
    /// It was cancelled, and goes back.
    pub back: bool,
    /// An operator's reason to disturb auctions that close soon.
    pub forced: Option<String>,
    /// Why.
    pub reason: String,
    /// When it was planned, wall time in ms: for people, nothing depends on it.
    pub began_ms: u64,
}

/// A move that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Of which shard.
    pub shard: ShardId,
    /// As it was at its last step.
    pub what: Move,
    /// Wall time, ms.
    pub ended_ms: u64,
}

/// A shard that nobody may open: it is being founded anew on one node, from a backup or from what one replica still has.
///
/// While it stands, what its old replicas have on their disks stays there; when it goes, the new replica is the only one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seal {
    /// The node on which it is founded.
    pub node: NodeId,
    /// As this replica: an id that nobody ever had.
    pub replica: ReplicaId,
    /// From what.
    pub from: Origin,
    /// An operator's reason.
    pub why: String,
    /// Since when, wall time in ms: the epoch of all feeds of the shard from then on.
    pub since_ms: u64,
}

/// Where a shard's state comes from when it is founded anew.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// A backup.
    Backup,
    /// A replica that is left over.
    Survivor,
}

impl Origin {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Origin::Backup => "a backup",
            Origin::Survivor => "a survivor",
        }
    }
}

/// What somebody asked for, and got: the audit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Wall time, ms.
    pub at_ms: u64,
    /// Who.
    pub who: String,
    /// What.
    pub what: String,
    /// The reason given to force it, if it was forced.
    pub why: Option<String>,
    /// The version that came of it.
    pub version: u64,
}

/// Where the map is going.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Steering {
    /// Rises with each change of the whole map.
    pub version: u64,
    /// What nodes were told, where that isn't `Active`.
    pub standings: BTreeMap<NodeId, Standing>,
    /// Nodes that follow shard 0 without a vote, and the replicas by which they do.
    pub watchers: BTreeMap<NodeId, ReplicaId>,
    /// The nodes that shards shall have, leader first, where those aren't the nodes that they have.
    pub goal: BTreeMap<ShardId, Vec<NodeId>>,
    /// Why a goal is what it is.
    pub reason: String,
    /// An operator's reason to go on where auctions close soon, for the goals of the last plan.
    pub forced: Option<String>,
    /// What is under way, one of each shard at most.
    pub moves: BTreeMap<ShardId, Move>,
    /// Moves begun so far.
    pub move_ids: u64,
    /// The newest that are over, oldest first.
    pub ended: Vec<Ended>,
    /// Exceptions to the arithmetic.
    pub overrides: Vec<Override>,
    /// Nothing new begins and nothing goes on.
    pub paused: bool,
    /// The newest things that were asked for, oldest first.
    pub said: Vec<Said>,
    /// What all nodes may rely on all others to know; 0 stands for 1. Raised by operators, never lowered.
    pub cluster_version: u32,
    /// Shards that nobody may open.
    pub sealed: BTreeMap<ShardId, Seal>,
}

impl Steering {
    /// Moves that load a node, as the old place or the new one.
    #[must_use]
    pub fn moves_of(&self, node: NodeId) -> usize {
        let loads = |m: &&Move| [m.from, m.to].iter().flatten().any(|end| end.0 == node);
        self.moves.values().filter(loads).count()
    }

    /// Writes down what was asked for.
    pub fn say(&mut self, said: Said) {
        if self.said.len() >= SAID_MAX {
            self.said.remove(0);
        }
        self.said.push(said);
    }

    /// Writes a move down as over.
    pub fn end(&mut self, shard: ShardId, now_ms: u64) -> Option<Move> {
        let what = self.moves.remove(&shard)?;
        if self.ended.len() >= ENDED_MAX {
            self.ended.remove(0);
        }
        self.ended.push(Ended {
            shard,
            what: what.clone(),
            ended_ms: now_ms,
        });
        Some(what)
    }
}
