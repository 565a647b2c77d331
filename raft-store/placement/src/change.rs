//! What may be wanted of the map, and why it may be refused: the words of operators.
//!
//! Each refusal has a code for scripts and a sentence for people. A few may be overridden with a reason, which is kept.
//!
//! Deliberately absent: what a change does (`plan`).

use crate::{Node, NodeId, Origin, Override, ShardId};
use std::fmt;

/// Largest weight of a node: beyond it shares would drown in rounding.
pub const WEIGHT_MAX: u32 = 10_000;
/// Longest text that is kept in the map: a name, a reason, an address.
pub const TEXT_MAX: usize = 200;

/// What somebody wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new node (or one that holds nothing, again).
    Join(Node),
    /// It leads nothing, and gives its replicas away where others can take them.
    Drain(NodeId),
    /// It takes shards again.
    Resume(NodeId),
    /// Its share.
    Weight(NodeId, u32),
    /// It goes for good.
    Decommission(NodeId),
    /// It was silent for too long: its replicas are replaced.
    Lose(NodeId),
    /// An exception for one shard.
    Override(Override),
    /// No exception for that shard and node any more.
    Lift(ShardId, NodeId),
    /// One replica to another node, pinned there for a while.
    Move {
        /// Of which shard.
        shard: ShardId,
        /// Where it is.
        from: NodeId,
        /// Where it shall be.
        to: NodeId,
        /// Who wants it.
        owner: String,
    },
    /// Everything to where the arithmetic wants it.
    Rebalance,
    /// No goal for this shard (or any), and what is under way goes back while it can.
    Cancel(Option<ShardId>),
    /// Nothing moves.
    Pause,
    /// Moves go on.
    Go,
    /// A shard's leadership was handed to whoever could take it: a note for the audit, and nothing else.
    HandedOver {
        /// Which shard.
        shard: ShardId,
        /// From.
        from: NodeId,
    },
    /// A node is about to be restarted by somebody else: whether it may, and a note for the audit.
    Restart(NodeId),
    /// Shards are copied into a backup: a note for the audit, and nothing else.
    Copy,
    /// All nodes may rely on all others to know this version. There is no way back.
    Upgrade(u32),
    /// A shard is closed on every node, to be founded anew on one of them. What its replicas have stays on their disks.
    Seal {
        /// Which shard.
        shard: ShardId,
        /// Where.
        node: NodeId,
        /// From what.
        from: Origin,
    },
    /// A sealed shard has been founded, and has that one replica: the node's own word, and no operator's.
    Found(ShardId),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Join(node) => write!(f, "node {} joins", node.id.0),
            Change::Drain(node) => write!(f, "node {} drains", node.0),
            Change::Resume(node) => write!(f, "node {} takes shards again", node.0),
            Change::Weight(node, weight) => write!(f, "node {} has weight {weight}", node.0),
            Change::Decommission(node) => write!(f, "node {} goes for good", node.0),
            Change::Lose(node) => write!(f, "node {} is lost", node.0),
            Change::Override(o) => write!(
                f,
                "shard {}: {} {} for {}",
                o.shard.0,
                o.wish.word(),
                o.wish.node().0,
                o.owner
            ),
            Change::Lift(shard, node) => write!(f, "shard {}: no override for node {}", shard.0, node.0),
            Change::Move { shard, from, to, owner } => {
                write!(
                    f,
                    "shard {}: from node {} to node {} for {owner}",
                    shard.0, from.0, to.0
                )
            }
            Change::Rebalance => f.write_str("rebalance"),
            Change::Cancel(Some(shard)) => write!(f, "shard {}: cancel", shard.0),
            Change::Cancel(None) => f.write_str("cancel all"),
            Change::Pause => f.write_str("pause"),
            Change::Go => f.write_str("go on"),
            Change::HandedOver { shard, from } => write!(f, "shard {}: leadership away from node {}", shard.0, from.0),
            Change::Restart(node) => write!(f, "node {} is restarted", node.0),
            Change::Copy => f.write_str("shards are copied into a backup"),
            Change::Upgrade(to) => write!(f, "cluster version {to}"),
            Change::Seal { shard, node, from } => {
                let from = from.word();
                write!(
                    f,
                    "shard {}: closed, to be founded anew from {from} on node {}",
                    shard.0, node.0
                )
            }
            Change::Found(shard) => write!(f, "shard {}: founded anew", shard.0),
        }
    }
}

/// Why a change can't be planned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No such node.
    UnknownNode(NodeId),
    /// No such shard.
    UnknownShard(ShardId),
    /// The node is decommissioned: its id is never used again.
    Gone(NodeId),
    /// A node of that id holds replicas: a machine that lost its disk comes back under a new id.
    Taken(NodeId),
    /// The map is full.
    TooMany(&'static str),
    /// Fewer nodes than replicas would take shards.
    TooFew {
        /// Nodes that would.
        left: usize,
        /// Replicas of a shard.
        wanted: usize,
    },
    /// Nobody would be left to lead.
    Last(NodeId),
    /// The node has no replica of the shard.
    NotThere(ShardId, NodeId),
    /// The node has a replica of the shard already.
    There(ShardId, NodeId),
    /// The node takes no shards.
    TakesNone(NodeId),
    /// Two replicas would lie in one zone, though there are enough zones.
    SameZone(ShardId, String),
    /// A move of the shard is under way.
    UnderWay(ShardId),
    /// Nothing is there to cancel, or it is past the point.
    NothingToCancel,
    /// The cluster is at that version, or beyond.
    NotNewer {
        /// Its version.
        now: u32,
    },
    /// A node's build doesn't know that version.
    TooOld {
        /// Which node.
        node: NodeId,
        /// The newest that it knows.
        newest: u32,
        /// The version.
        wanted: u32,
    },
    /// A node doesn't answer, so nobody knows which build it runs.
    Unheard(NodeId),
    /// The shard's other replicas are given up for good.
    GivesUp(ShardId),
    /// The shard isn't being founded.
    NotSealed(ShardId),
    /// The shard is being founded anew: nothing else may be done with it.
    Sealed(ShardId),
    /// Without that node the shard would have no majority that has its log.
    NotWhole(ShardId, String),
    /// A live auction of the shard closes soon, and would be disturbed.
    ClosesSoon {
        /// Which shard.
        shard: ShardId,
        /// In so many ms.
        in_ms: u64,
    },
    /// A text is longer than what is kept.
    TooLong {
        /// Which.
        what: &'static str,
        /// Characters at most.
        most: usize,
    },
    /// The weight is beyond every machine.
    TooHeavy(u32),
    /// A guard rail was to be overridden, and nobody said why.
    NoReason,
    /// Nobody took over: as things are now, or in time.
    NotNow(ShardId, String),
    /// The plan is of another version of the map.
    Stale {
        /// The version that it is of.
        of: u64,
        /// The version now.
        now: u64,
    },
}

impl Refusal {
    /// A code that scripts can match.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::UnknownNode(_) => "unknown_node",
            Refusal::UnknownShard(_) => "unknown_shard",
            Refusal::Gone(_) => "gone",
            Refusal::Taken(_) => "taken",
            Refusal::TooMany(_) => "too_many",
            Refusal::TooFew { .. } => "too_few",
            Refusal::Last(_) => "last",
            Refusal::NotThere(..) => "not_there",
            Refusal::There(..) => "there",
            Refusal::TakesNone(_) => "takes_none",
            Refusal::SameZone(..) => "same_zone",
            Refusal::UnderWay(_) => "under_way",
            Refusal::NothingToCancel => "nothing_to_cancel",
            Refusal::NotNewer { .. } => "not_newer",
            Refusal::TooOld { .. } => "version_newer",
            Refusal::Unheard(_) => "unheard",
            Refusal::GivesUp(_) => "gives_up",
            Refusal::NotSealed(_) => "not_sealed",
            Refusal::Sealed(_) => "shard_sealed",
            Refusal::NotWhole(..) => "not_whole",
            Refusal::ClosesSoon { .. } => "closes_soon",
            Refusal::TooLong { .. } => "too_long",
            Refusal::TooHeavy(_) => "too_heavy",
            Refusal::NoReason => "no_reason",
            Refusal::NotNow(..) => "not_now",
            Refusal::Stale { .. } => "stale",
        }
    }

    /// Whether a good reason may override it.
    #[must_use]
    pub fn may_be_forced(&self) -> bool {
        matches!(
            self,
            Refusal::TooFew { .. }
                | Refusal::SameZone(..)
                | Refusal::GivesUp(_)
                | Refusal::NotWhole(..)
                | Refusal::ClosesSoon { .. }
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::UnknownNode(node) => write!(f, "there is no node {}", node.0),
            Refusal::UnknownShard(shard) => write!(f, "there is no shard {}", shard.0),
            Refusal::Gone(node) => write!(f, "node {} is decommissioned; its id is never used again", node.0),
            Refusal::Taken(node) => write!(
                f,
                "node {} holds replicas; a machine that lost its disk joins under a new id, and the old one is decommissioned",
                node.0
            ),
            Refusal::TooMany(what) => write!(f, "too many {what}"),
            Refusal::TooFew { left, wanted } => {
                write!(
                    f,
                    "only {left} nodes would take shards, and each shard wants {wanted} replicas"
                )
            }
            Refusal::Last(node) => write!(f, "node {} is the last that takes shards", node.0),
            Refusal::NotThere(shard, node) => write!(f, "node {} has no replica of shard {}", node.0, shard.0),
            Refusal::There(shard, node) => write!(f, "node {} has a replica of shard {} already", node.0, shard.0),
            Refusal::TakesNone(node) => write!(f, "node {} takes no shards", node.0),
            Refusal::SameZone(shard, zone) => {
                write!(f, "shard {} would have two replicas in zone {zone}", shard.0)
            }
            Refusal::UnderWay(shard) => write!(f, "a move of shard {} is under way", shard.0),
            Refusal::NothingToCancel => f.write_str("nothing is under way that could still be cancelled"),
            Refusal::NotNewer { now } => write!(f, "the cluster is at version {now} already; there is no way back"),
            Refusal::TooOld { node, newest, wanted } => write!(
                f,
                "node {}: its build knows up to cluster version {newest}, not {wanted}: give it a newer build",
                node.0
            ),
            Refusal::Unheard(node) => write!(
                f,
                "node {} doesn't answer: bring it back, or decommission it, so that no old build comes back later",
                node.0
            ),
            Refusal::GivesUp(shard) => write!(
                f,
                "shard {}: whatever its present replicas have and the new one hasn't is lost for good",
                shard.0
            ),
            Refusal::NotSealed(shard) => write!(f, "shard {} isn't being founded anew", shard.0),
            Refusal::Sealed(shard) => write!(f, "shard {} is closed while it is founded anew", shard.0),
            Refusal::NotWhole(shard, why) | Refusal::NotNow(shard, why) => write!(f, "shard {}: {why}", shard.0),
            Refusal::ClosesSoon { shard, in_ms } => {
                write!(f, "a live auction of shard {} closes in {in_ms} ms", shard.0)
            }
            Refusal::TooLong { what, most } => write!(f, "the {what} is longer than {most} characters"),
            Refusal::NoReason => f.write_str("guard rails are overridden for a reason only, and none was given"),
            Refusal::TooHeavy(weight) => write!(f, "a weight of {weight}: at most {WEIGHT_MAX}"),
            Refusal::Stale { of, now } => write!(f, "the plan is of version {of}; the map is at {now}: read it again"),
        }
    }
}
