//! Answers: what a sender of a command or a follower of a feed can be told.

use crate::{AuctionView, Event, Id, Money, Phase, Reason, Stamp};

/// The final answer to a command, and the version of the auction it was judged at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// `Ok`: accepted, at version `seq`. `Err`: refused, and why, judged against version `seq`.
    pub outcome: Result<(), Reason>,
    /// The version that it made (accepted) or saw (refused). 0: no such auction.
    pub seq: u64,
    /// Visible price at that version (after an accepted bid its own amount, unless a hidden maximum answered it).
    pub price: Money,
    /// Least next bid at that version, so that a refusal can say what would do.
    pub least: Money,
    /// Who led at that version.
    pub leader: Option<Id>,
    /// Phase at that version.
    pub phase: Phase,
    /// The stamp at which it was judged.
    pub ct: Stamp,
    /// Deadline at that version.
    pub ends_at: Option<Stamp>,
    /// Hash at that version.
    pub hash: [u8; 32],
    /// This is the remembered verdict of an earlier sending.
    pub dup: bool,
}

/// What a replica answers to a command. Only `Verdict` is final: for all else the same id may still be accepted, so the
/// edge goes on asking.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Judged.
    Verdict(Verdict),
    /// Not the leader of that shard; perhaps `hint` is.
    NotLeader {
        /// The node that may lead.
        hint: Option<u64>,
        /// The term of that knowledge.
        term: u64,
    },
    /// The sender's map is old (or ours is): ours has this epoch.
    WrongEpoch {
        /// The epoch of the answering node's map.
        epoch: u64,
    },
    /// No room in the lane: later.
    Busy {
        /// Milliseconds to wait.
        retry_after_ms: u32,
    },
    /// The leader's disk has no room for it: not judged. Later, or wherever the leadership goes.
    NoRoom {
        /// Milliseconds to wait.
        retry_after_ms: u32,
    },
    /// Certainly not judged (yet): send again.
    NotJudged,
    /// May or may not have been judged: send again with the same id.
    Unknown,
}

/// A place in a shard's or an auction's feed. `epoch` changes only by a restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// Of the feed.
    pub epoch: u64,
    /// An auction's `seq`.
    pub offset: u64,
}

/// What a follower of an auction's feed is given, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FeedItem {
    /// Start from here: the auction as of `view.seq`; what came before is not sent.
    Snapshot {
        /// Where the feed goes on.
        position: Position,
        /// The auction then.
        view: alloc::boxed::Box<AuctionView>,
    },
    /// The next event: `event.seq` is one more than what came before.
    Event(alloc::sync::Arc<Event>),
    /// The auction's definition or schedule changed before it was live (no seq): the new view.
    Changed(alloc::boxed::Box<AuctionView>),
}
