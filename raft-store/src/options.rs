//! What a host is told at its start: plain data, each number with its unit and reason.

use crate::{
    clock::{self, lanes},
    dial::Dial,
    fitness::StallOptions,
    wal,
};
use auction::Limits;
use placement::{Node, NodeId};
use std::{path::PathBuf, time::Duration};

/// All that `Host::open` needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// Where its log, its snapshots and its lock lie. Made if absent; one process at a time.
    pub dir: PathBuf,
    /// Number of auction shards, fixed when the cluster is born.
    pub shards: u32,
    /// The nodes that the cluster is born with; the same list on each of them, and none on one that joins later.
    pub founders: Vec<Node>,
    /// The log on disk.
    pub wal: wal::Options,
    /// When the log's disk counts as stalled.
    pub stall: StallOptions,
    /// Elections, heartbeats, compaction.
    pub raft: RaftOptions,
    /// The shards' clocks.
    pub clock: clock::Options,
    /// This node's own two clocks.
    pub time: clock::Time,
    /// How nodes compare theirs.
    pub compare: clock::compare::Options,
    /// The shards' lanes.
    pub lanes: lanes::Options,
    /// What a shard remembers.
    pub limits: Limits,
    /// How replicas move.
    pub moves: placement::mover::Limits,
    /// How often the mover looks.
    pub pace: crate::mover::Pace,
    /// The replica of shard 0 by which this node joined, if it is no founder. Told once; the log remembers it.
    pub joined: Option<placement::ReplicaId>,
    /// How other nodes are reached.
    pub dial: Dial,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            node: NodeId(1),
            dir: PathBuf::from("data"),
            shards: 128,
            founders: Vec::new(),
            wal: wal::Options::default(),
            stall: StallOptions::default(),
            raft: RaftOptions::default(),
            clock: clock::Options::default(),
            time: clock::Time::default(),
            compare: clock::compare::Options::default(),
            lanes: lanes::Options::default(),
            limits: Limits::default(),
            moves: placement::mover::Limits::default(),
            pace: crate::mover::Pace::default(),
            joined: None,
            dial: Dial::default(),
        }
    }
}

/// Elections, heartbeats, deadlines, compaction of each group.
#[derive(Clone, Debug)]
pub struct RaftOptions {
    /// Pace of a node's pulse, and of a leader's heartbeats while they are due.
    pub heartbeat: Duration,
    /// Half of it lies between two in the order of succession.
    pub election_min: Duration,
    /// The silence after which a follower stands; a leader's lease, and a node's.
    pub election_max: Duration,
    /// A shard with nothing to do rests after so long. Zero: never.
    pub rest_after: Duration,
    /// A leadership that isn't where the map wants it goes there when that node has lived for so long and nothing is to do.
    pub home_after: Duration,
    /// A shard with a scheduled start is awake so long before it.
    pub wake_ahead: Duration,
    /// Most elections, and most heartbeats to whoever came back, that a node begins at one look (half a `heartbeat`): a lost
    /// machine's shards are inherited in a row, not in a heap. With 128 shards on three nodes a survivor inherits about 21, all of
    /// them at one look: 64 spread them only where a lost machine led some hundred.
    pub at_once: usize,
    /// Ask before standing, so that a node that comes back from a cut doesn't unseat a good leader.
    pub pre_vote: bool,
    /// A connection, a vote or a heartbeat that takes longer has failed.
    pub rpc: Duration,
    /// One answer of a pipelined append that takes longer has failed. It waits for the follower's disk: longer than `rpc`,
    /// or a slow fsync makes everything be sent again.
    pub append_rpc: Duration,
    /// A snapshot transfer that makes no progress for so long has failed. The next one goes on where it was.
    pub snapshot_rpc: Duration,
    /// Wait before a snapshot that couldn't be sent is sent again.
    pub snapshot_backoff: Duration,
    /// All snapshots that this node sends, together, in bytes a second. 0: no limit.
    pub snapshot_bytes_per_s: u64,
    /// Bytes of a snapshot in one message.
    pub snapshot_piece: usize,
    /// Wait before an unreachable peer is tried again.
    pub backoff: Duration,
    /// A group makes a snapshot when its log grew by so many bytes since the last …
    pub snapshot_bytes: u64,
    /// … or when so much time passed and anything was logged at all.
    pub snapshot_age: Duration,
    /// A settled auction leaves memory so long after it settled. Zero: never.
    pub cold_after: Duration,
    /// So many bytes of log stay behind a snapshot, for followers that lag a little.
    pub keep_bytes: u64,
    /// Entries in one append to a follower.
    pub append_entries_max: u64,
    /// Bytes of entries in one append to a follower (one entry always goes).
    pub append_bytes_max: usize,
    /// Appends to one follower that wait for their answer.
    pub append_window: usize,
    /// Frames that wait for one stream to one peer.
    pub link_queue: usize,
    /// A connection for the log on which nothing was said for so long, or for twice as long at most, is let go.
    pub link_rest: Duration,
    /// Calls that wait inside one group.
    pub group_queue: u64,
}

impl RaftOptions {
    /// A machine that falls silent while every shard rests, and none is wanted, is held for lost within this by every other:
    /// three of the pauses that it announced, the look that comes a pause later at most, and a silence more at a node that
    /// another's finding it out wakes just before, since who is awake counts from there.
    #[must_use]
    pub fn lost_at_rest(&self) -> Duration {
        crate::pulse::calm_pause(self) + crate::pulse::lives::patience_at_rest(self) + self.election_max
    }

    /// The same from the moment at which somebody wants a shard that it leads: a silence, and the look after it.
    #[must_use]
    pub fn lost_when_wanted(&self) -> Duration {
        self.election_max + self.heartbeat / 2
    }
}

impl Default for RaftOptions {
    fn default() -> RaftOptions {
        RaftOptions {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            rest_after: Duration::from_secs(2),
            home_after: Duration::from_secs(10),
            wake_ahead: Duration::from_secs(5),
            at_once: 64,
            pre_vote: true,
            rpc: Duration::from_millis(300),
            append_rpc: Duration::from_secs(1),
            snapshot_rpc: Duration::from_secs(20),
            snapshot_backoff: Duration::from_millis(500),
            snapshot_bytes_per_s: 64 * 1024 * 1024,
            snapshot_piece: 256 * 1024,
            backoff: Duration::from_millis(30),
            snapshot_bytes: 16 * 1024 * 1024,
            snapshot_age: Duration::from_secs(3600),
            cold_after: Duration::from_secs(60),
            keep_bytes: 4 * 1024 * 1024,
            append_entries_max: 256,
            append_bytes_max: 1024 * 1024,
            append_window: 32,
            link_queue: 1024,
            link_rest: Duration::from_secs(10),
            group_queue: 1024,
        }
    }
}
