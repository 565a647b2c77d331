//! What became so. An auction's events are its log: numbered 1, 2, 3 …, each bound to the one before by a hash.

use crate::{AuctionId, Id, Money, Stamp, bound::Opening};
use alloc::boxed::Box;

/// One accepted change of one auction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The auction.
    pub auction: AuctionId,
    /// The auction's version: 1, 2, 3 …; also its offset in the feed.
    pub seq: u64,
    /// When: a command's `arrived`, a timer's due stamp, a hold's stamp. Never falls within an auction.
    pub ct: Stamp,
    /// The deadline after it (a close carries the one that it closes); while paused, the deadline it had.
    pub ends_at: Stamp,
    /// Whose command (bids, pauses …); `None` for timers.
    pub actor: Option<Id>,
    /// That command's id.
    pub id: Option<Id>,
    /// The visible price after it.
    pub price: Money,
    /// Who leads after it.
    pub leader: Option<Id>,
    /// What happened.
    pub kind: EventKind,
    /// The hash chain: SHA-256 over the previous hash and this event's canonical line.
    pub hash: [u8; 32],
}

/// The kinds of event; `EventKind::ty` is the word on the wire and in the chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// Went live: from here on the definition is fixed.
    Open(Box<Opening>),
    /// A bid was accepted. `amount` is what was asked; the visible price is `Event::price`.
    Bid {
        /// What the bidder named (for a maximum: the visible price that it made).
        amount: Money,
        /// Time cut from what was left, ms (0 if none).
        cut_ms: u64,
        /// Time given by a soft close, ms (0 if none).
        extended_ms: u64,
    },
    /// A hidden maximum was raised by the leader; nothing visible changed.
    Raise,
    /// The countdown stopped.
    Pause {
        /// Time left, ms.
        left_ms: u64,
        /// When it resumes by itself.
        until: Option<Stamp>,
    },
    /// The countdown goes on.
    Resume {
        /// How long it was paused, ms; the deadline rose by as much.
        dms: u64,
    },
    /// An operator or the seller gave time.
    Extend {
        /// Milliseconds; the deadline rose by as much.
        dms: u64,
    },
    /// The clock stood: real time that did not count.
    Held {
        /// Milliseconds.
        dms: u64,
    },
    /// Over. The winner is `Event::leader` if sold.
    Close {
        /// How it ended.
        outcome: Outcome,
    },
    /// The seller's stream came up, moved (again up, another node) or went.
    Stream {
        /// The node that takes it in; `None`: gone.
        node: Option<u64>,
        /// The stream.
        stream: Id,
    },
}

impl EventKind {
    /// The word for it on the wire, in histories and in the hash chain.
    #[must_use]
    pub fn ty(&self) -> &'static str {
        match self {
            EventKind::Open(_) => "open",
            EventKind::Bid { .. } => "bid",
            EventKind::Raise => "raise",
            EventKind::Pause { .. } => "pause",
            EventKind::Resume { .. } => "resume",
            EventKind::Extend { .. } => "extend",
            EventKind::Held { .. } => "held",
            EventKind::Close { .. } => "close",
            EventKind::Stream { .. } => "stream",
        }
    }
}

/// How an auction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// To the leader at the price.
    Sold,
    /// No bid, or below the reserve.
    Unsold,
    /// Called off.
    Cancelled,
}

impl Outcome {
    /// The word for it on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Sold => "sold",
            Outcome::Unsold => "unsold",
            Outcome::Cancelled => "cancelled",
        }
    }

    /// The outcome of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Outcome> {
        [Outcome::Sold, Outcome::Unsold, Outcome::Cancelled]
            .into_iter()
            .find(|outcome| outcome.word() == word)
    }
}
