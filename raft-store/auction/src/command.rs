//! What a shard can be told: commands, and the entries that carry them through the log.

use crate::{AuctionId, Id, Money, Office, Stamp, terms::Definition};
use alloc::{boxed::Box, string::String, vec::Vec};

/// One wish of one actor about one auction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The auction it is about; names the shard and the lane.
    pub auction: AuctionId,
    /// Who asks, with the rights that their token proved at the edge.
    pub actor: Actor,
    /// The sender's id of this command: the same id gets the first verdict again. `None`: the leader's own commands.
    pub id: Option<Id>,
    /// A reading of the shard's clock no later than the moment at which this id was first sent, the same each time it is
    /// sent. `None`: unknown, judged as new. Who forgot a refusal knows by it that there may have been one (`once`).
    pub first_sent: Option<Stamp>,
    /// What is wanted.
    pub action: Action,
}

/// The key under which a verdict is remembered: (auction, actor, id).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// The auction.
    pub auction: AuctionId,
    /// The actor's id.
    pub actor: Id,
    /// The command's id.
    pub id: Id,
}

/// Who acts, and as what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    /// The person (or `system` for a leader's own commands).
    pub id: Id,
    /// What their token grants.
    pub rights: Rights,
}

/// A set of rights, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rights(pub u16);

impl Rights {
    /// Signed in by a provider (not a guest).
    pub const MEMBER: Rights = Rights(1);
    /// May bid.
    pub const BIDDER: Rights = Rights(1 << 1);
    /// May create and run auctions of their own.
    pub const SELLER: Rights = Rights(1 << 2);
    /// May moderate.
    pub const MODERATOR: Rights = Rights(1 << 3);
    /// May operate the cluster and freeze any auction.
    pub const OPERATOR: Rights = Rights(1 << 4);
    /// The cluster itself.
    pub const SYSTEM: Rights = Rights(1 << 5);
    /// May look at the cluster as operators do, and change nothing.
    pub const AUDITOR: Rights = Rights(1 << 6);

    /// Whether all of `other` is in `self`.
    #[must_use]
    pub const fn has(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }
}

/// What can be asked of an auction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// A new draft. Validated; refused if the id is taken.
    Create(Box<Definition>),
    /// Another definition, if `version` is the newest and it isn't live yet.
    Edit {
        /// The definition version that the editor saw.
        version: u32,
        /// What it shall be.
        definition: Box<Definition>,
    },
    /// To start by itself at a wall time (unix ms).
    Schedule {
        /// Unix milliseconds.
        start_wall_ms: u64,
    },
    /// Go live now. From the leader with the schedule's version; from the seller with `None`.
    Start {
        /// The schedule version that came due, or `None` for 'now'.
        schedule_version: Option<u32>,
    },
    /// A bid of exactly this amount.
    Bid {
        /// Minor units.
        amount: Money,
    },
    /// A maximum up to which the shard bids for the actor.
    MaxBid {
        /// Minor units; hidden.
        maximum: Money,
    },
    /// Stop the countdown, for a time (>= 1 s) or until resumed.
    Pause {
        /// Milliseconds, or `None` until `Resume`.
        for_ms: Option<u64>,
    },
    /// End a pause.
    Resume,
    /// Give more time.
    Extend {
        /// Milliseconds, 1..=86,400,000.
        ms: u64,
    },
    /// Call it off. Final.
    Cancel {
        /// Shown to bidders.
        reason: String,
    },
    /// The seller's stream came up, or moved.
    StreamUp {
        /// The node that takes it in.
        node: u64,
        /// The stream's id: a new one for each publication.
        stream: Id,
    },
    /// The seller's stream is gone.
    StreamDown {
        /// The stream that ended (an older one's end changes nothing).
        stream: Id,
    },
}

/// A command and when it reached the leader that judges it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamped {
    /// The stamp of arrival.
    pub arrived: Stamp,
    /// What arrived.
    pub command: Command,
}

/// Real time that did not count: the clock stood at `stamp` for `lost_ms`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Where the clock stood.
    pub stamp: Stamp,
    /// How much real time was lost.
    pub lost_ms: u64,
}

/// What the leader took for wall time, and how sure that was: more than half of the nodes' clocks lay within `error_ms`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wall {
    /// Unix milliseconds.
    pub ms: u64,
    /// Milliseconds, to either side.
    pub error_ms: u64,
}

/// One log entry of a shard. `n == 0` is the marker that opens an office; 1, 2, 3 … follow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// Whose stamps these are.
    pub office: Office,
    /// The entry's number within its office.
    pub n: u64,
    /// The leader's reading when it packed the entry; every `arrived` is at most this.
    pub at: Stamp,
    /// Auctions with a backlog: the oldest stamp that still waits in their lane.
    pub behind: Vec<(AuctionId, Stamp)>,
    /// Holds to declare.
    pub holds: Vec<Hold>,
    /// The commands, within an auction in stamp order.
    pub commands: Vec<Stamped>,
    /// Declared where the entry starts an auction that was scheduled; for whoever asks later why it began when it did.
    /// It decides nothing.
    pub wall: Option<Wall>,
}
