//! The types of our Raft groups: what is logged, what applying answers, and openraft's names bound to them.
//!
//! A payload is encoded once, by the leader that proposes it, and those bytes then go to the own disk and to every
//! follower's: `Logged` carries the value and its bytes together. Nothing of openraft's is ever serialized by openraft.
//!
//! A replica's id is apart from its node's: it is fresh for each placement of a shard and never used twice, since a
//! wiped replica that came back under its old id could vote twice.
//!
//! Deliberately absent: conversions. Domain to wire is `codec`'s, openraft to wire is `wire`'s.

use auction::{Applied, Entry};
use bytes::Bytes;
use openraft::{impls, type_config::alias};
use placement::{ClusterMap, NodeId};
use std::{fmt, sync::Arc};

/// The W3C trace context of a command's sender: carried through the log so that a trace goes on wherever it is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// 128-bit trace id.
    pub trace: u128,
    /// The span that sent it.
    pub span: u64,
    /// Trace flags (bit 0: sampled).
    pub flags: u8,
}

/// What one log entry of a group says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// An entry of the shard's clock and commands.
    Entry {
        /// For `auction::Shard::apply`.
        entry: Arc<Entry>,
        /// By place in `entry.commands`, rising: the traces of those commands that are sampled.
        traces: Vec<(u32, TraceContext)>,
    },
    /// A change of the cluster map (shard 0 only).
    Meta(MetaCommand),
    /// From here on auctions of the shard go live with these rules.
    Rules(u32),
}

impl Payload {
    /// An entry without traces.
    #[must_use]
    pub fn entry(entry: Entry) -> Payload {
        Payload::Entry {
            entry: Arc::new(entry),
            traces: Vec::new(),
        }
    }
}

/// A change of shard 0's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetaCommand {
    /// Stores `map` if the stored map's epoch is `expected` (0: there is none yet).
    StoreMap {
        /// The epoch that the sender saw.
        expected: u64,
        /// The new map; its epoch is `expected + 1`.
        map: Box<ClusterMap>,
    },
    /// Stores `map` if there is one whose steering is at version `expected`: how everything after birth is written.
    Steer {
        /// The version that the sender saw.
        expected: u64,
        /// The new map; its version is newer, its epoch not older.
        map: Box<ClusterMap>,
    },
}

/// What applying a log entry answers to its proposer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A blank or a membership entry: nothing of ours.
    Nothing,
    /// A shard's entry.
    Entry(Arc<Applied>),
    /// A meta command: the map's epoch now, and whether the command did it.
    Meta {
        /// The stored map's epoch.
        epoch: u64,
        /// Whether the compare-and-set succeeded.
        stored: bool,
    },
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Nothing => f.write_str("nothing"),
            Answer::Entry(_) => f.write_str("entry"),
            Answer::Meta { epoch, stored } => write!(f, "meta epoch {epoch} stored {stored}"),
        }
    }
}

/// A payload together with its bytes. Cheap to clone: the log cache, the disk and every follower share one.
#[derive(Clone)]
pub struct Logged(Arc<(Payload, Bytes)>);

impl Logged {
    /// Binds a payload to its encoding, which `codec` makes.
    pub(crate) fn new(payload: Payload, bytes: Bytes) -> Logged {
        Logged(Arc::new((payload, bytes)))
    }

    /// What it says.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.0.0
    }

    /// Its encoding: a `log.v1.Payload`.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.1
    }
}

impl PartialEq for Logged {
    fn eq(&self, other: &Logged) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Logged {}

impl fmt::Debug for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logged({} bytes)", self.bytes().len())
    }
}

impl fmt::Display for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payload() {
            Payload::Entry { entry, .. } => {
                let (o, n) = (entry.office, entry.n);
                write!(
                    f,
                    "entry {}.{}#{n} at {} ({} commands)",
                    o.term,
                    o.turn,
                    entry.at.0,
                    entry.commands.len()
                )
            }
            Payload::Meta(_) => f.write_str("meta"),
            Payload::Rules(version) => write!(f, "rules {version}"),
        }
    }
}

/// Where a replica is: its node. The node's address is in the cluster map, since it may change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Home(pub u64);

impl Home {
    /// As the cluster map's word.
    #[must_use]
    pub fn node(self) -> NodeId {
        NodeId(self.0)
    }
}

openraft::declare_raft_types!(
    /// Our groups, to openraft.
    pub TypeConfig:
        D = Logged,
        R = Answer,
        NodeId = u64,
        Node = Home,
);

/// A term and its leader's replica.
pub type LeaderId = impls::leader_id_adv::LeaderId<u64, u64>;
/// A vote.
pub type Vote = alias::VoteOf<TypeConfig>;
/// A place in a group's log.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// One log entry.
pub type LogEntry = alias::EntryOf<TypeConfig>;
/// What a log entry holds.
pub type LogPayload = openraft::EntryPayload<Logged, u64, Home>;
/// A group's members and the log id that made them so.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// A group's members.
pub type Membership = openraft::Membership<u64, Home>;
/// What a snapshot is of.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot as it is handed about: its file, whole and held open. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SnapshotData(pub(crate) Arc<crate::snapshot::Stored>);
