//! The words in which a host answers.

use auction::{Office, Stamp};
use placement::{NodeId, ShardId};

/// Stands in what `Host::failed` says when a replica stopped because its state was not the others'.
pub const DIVERGED: &str = "the state diverged";

/// Why a host can't open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The options contradict themselves.
    #[error("options: {0}")]
    Options(String),
    /// Another process holds the folder.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// The disk answered with an error.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the disk said.
        source: std::io::Error,
    },
    /// A newer version of the cluster has written here.
    #[error("{0}")]
    Newer(String),
    /// What lies on the disk is damaged: this node must not go on with it.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Raft refused to start.
    #[error("raft: {0}")]
    Raft(String),
}

/// Why a read has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// This node holds no replica of that shard.
    #[error("no replica of this shard here")]
    NotHere,
    /// A linearizable read needs the leader; perhaps `hint` is.
    #[error("not the leader")]
    NotLeader {
        /// The node that may lead.
        hint: Option<NodeId>,
    },
    /// No such auction.
    #[error("no such auction")]
    NotFound,
    /// This replica is behind the version asked for, and stayed so for as long as a read waits; or the auction is over for good,
    /// and never got there.
    #[error("this replica is behind")]
    Behind,
    /// The auction is over, and no disk could give its record back when its shard was founded anew.
    #[error("[lost] its record was lost")]
    Lost,
    /// The auction's record here isn't what was written: another replica may have it.
    #[error("[cold_damaged] its record can't be read here")]
    Damaged,
    /// No majority confirmed the leader in time, the group is stopping, or the disk gives no answer.
    #[error("unavailable")]
    Unavailable,
}

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fresh {
    /// Linearizable: the leader confirms with a majority that it leads, and has applied all that was committed.
    Linear,
    /// At least this version of the auction; waits up to a second for it.
    AtLeast(u64),
}

/// The clock of a shard that this node leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The shard.
    pub shard: ShardId,
    /// Who speaks.
    pub office: Office,
    /// The reading.
    pub now: Stamp,
    /// The newest applied stamp.
    pub top: Stamp,
    /// Whether any timer is pending.
    pub timers: bool,
    /// Commands that the shard drains in `lanes.lane_ms`: edges hold back what is more.
    pub drains: u32,
}

/// What a replica is in its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Leads.
    Leader,
    /// Stands for election.
    Candidate,
    /// Follows.
    Follower,
    /// Follows without a vote.
    Learner,
    /// Has stopped, by command or by a failed disk.
    Stopped,
}

impl Role {
    /// The word for it in APIs and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Candidate => "candidate",
            Role::Follower => "follower",
            Role::Learner => "learner",
            Role::Stopped => "stopped",
        }
    }
}

/// A replica as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    /// The shard.
    pub shard: ShardId,
    /// What this node's replica is.
    pub role: Role,
    /// Its Raft term.
    pub term: u64,
    /// The node that leads, if known.
    pub leader: Option<NodeId>,
    /// Index of the newest applied log entry.
    pub applied: u64,
    /// Index of the newest log entry.
    pub last_log: u64,
    /// Index up to which a snapshot covers the log.
    pub snapshot: u64,
    /// Index up to which the log is gone.
    pub purged: u64,
    /// The shard's newest stamp.
    pub top: Stamp,
    /// Bidding time that outages held back while this replica led, ms.
    pub held_total_ms: u64,
    /// Stamps that applying had to correct: always 0, or a promise about order was broken.
    pub clamped: u64,
    /// Auctions in it, wherever they lie.
    pub auctions: u64,
    /// Of these, live or paused.
    pub live: u64,
    /// Settled auctions that lie on disk, not in memory.
    pub cold: u64,
    /// Whether it rests: nothing to do, no heartbeats.
    pub resting: bool,
    /// The nodes that hold its replicas.
    pub replicas: Vec<NodeId>,
}
