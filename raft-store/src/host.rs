//! This node's replicas of all groups: the way into the crate.
//!
//! First form of the public face; the groups fill in behind it.

use crate::options::Options;
use auction::{AuctionId, AuctionView, Command, Event, FeedItem, Office, Position, Reply, Stamp};
use futures_util::stream::BoxStream;
use placement::{ClusterMap, NodeId, ShardId};
use std::sync::Arc;
use tokio::sync::watch;

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
    /// This replica is behind the version asked for, and stayed so for as long as a read waits.
    #[error("this replica is behind")]
    Behind,
    /// No majority confirmed the leader in time, or the group is stopping.
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
    /// Fingerprint of the state at `applied`.
    pub digest: [u8; 32],
    /// The shard's newest stamp.
    pub top: Stamp,
    /// Bidding time that outages held back while this replica led, ms.
    pub held_total_ms: u64,
    /// The nodes that hold its replicas.
    pub replicas: Vec<NodeId>,
}

/// This node's replicas. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    map: watch::Sender<Arc<ClusterMap>>,
}

impl Host {
    /// Recovers what lies in `options.dir`, starts this node's groups, and dials peers when there is something to say.
    ///
    /// # Errors
    /// When the folder is in use, unreadable, or damaged.
    pub async fn open(options: Options) -> Result<Host, OpenError> {
        let _ = options;
        Ok(Host {
            inner: Arc::new(Inner {
                map: watch::channel(Arc::default()).0,
            }),
        })
    }

    /// The newest cluster map that this node knows (epoch 0: none yet), and its changes.
    #[must_use]
    pub fn map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.inner.map.subscribe()
    }

    /// Has a map, and every group of this node knows a leader.
    #[must_use]
    pub fn ready(&self) -> bool {
        false
    }

    /// Gives a command to this node's replica of `shard`, which answers for itself only.
    pub async fn submit(&self, shard: ShardId, epoch: u64, command: Command) -> Reply {
        let _ = (shard, epoch, command);
        Reply::NotJudged
    }

    /// One auction.
    ///
    /// # Errors
    /// See `ReadError`.
    pub async fn read(&self, shard: ShardId, auction: &AuctionId, fresh: Fresh) -> Result<AuctionView, ReadError> {
        let _ = (shard, auction, fresh);
        Err(ReadError::NotHere)
    }

    /// All auctions of a shard, as this replica has them.
    ///
    /// # Errors
    /// When no replica is here.
    pub async fn list(&self, shard: ShardId) -> Result<Vec<AuctionView>, ReadError> {
        let _ = shard;
        Err(ReadError::NotHere)
    }

    /// An auction's events after version `after`, at most `limit`, as this replica has them.
    ///
    /// # Errors
    /// When no replica, or no such auction, is here.
    pub fn events(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, ReadError> {
        let _ = (shard, auction, after, limit);
        Err(ReadError::NotHere)
    }

    /// An auction's feed: complete after `from`, or opened by a snapshot.
    ///
    /// # Errors
    /// When no replica, or no such auction, is here.
    pub fn follow(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        from: Option<Position>,
    ) -> Result<BoxStream<'static, FeedItem>, ReadError> {
        let _ = (shard, auction, from);
        Err(ReadError::NotHere)
    }

    /// The clocks of the shards that this node leads.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        Vec::new()
    }

    /// Every replica of this node.
    #[must_use]
    pub fn status(&self) -> Vec<GroupStatus> {
        Vec::new()
    }

    /// Resolves when the disk failed and this node must stop, with the reason. Pending for ever otherwise.
    pub async fn failed(&self) -> String {
        std::future::pending().await
    }

    /// Hands leaderships over, then stops all groups and the log.
    pub async fn shutdown(&self) {}
}
