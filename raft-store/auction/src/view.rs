//! An auction as it is shown: one version of it, whole.

use alloc::vec::Vec;

use crate::{AuctionId, Definition, Id, Money, Outcome, Stamp};

/// Where in its life an auction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Being written.
    Draft,
    /// Starts at a wall time.
    Scheduled,
    /// Counting down.
    Live,
    /// Stopped for a while.
    Paused,
    /// Over.
    Closed(Outcome),
}

impl Phase {
    /// The word for it on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Phase::Draft => "draft",
            Phase::Scheduled => "scheduled",
            Phase::Live => "live",
            Phase::Paused => "paused",
            Phase::Closed(_) => "closed",
        }
    }
}

/// One version of an auction. What must stay hidden is not in it: maxima never, the reserve only as `reserve_met` until
/// the auction closes sold or unsold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuctionView {
    /// The auction.
    pub id: AuctionId,
    /// Version of the definition (edits before it is live).
    pub version: u32,
    /// What is sold, by whom, on which terms. `terms.reserve`: only once it is opened.
    pub definition: Definition,
    /// Where in its life.
    pub phase: Phase,
    /// Version of the auction: events so far.
    pub seq: u64,
    /// Visible price: the start price before the first bid.
    pub price: Money,
    /// Least next bid.
    pub least: Money,
    /// Who leads.
    pub leader: Option<Id>,
    /// Accepted bids so far.
    pub bids: u64,
    /// Whether a reserve exists and is met (`None`: there is none).
    pub reserve_met: Option<bool>,
    /// The deadline (live: counts; closed: the one it closed at).
    pub ends_at: Option<Stamp>,
    /// Time left while paused, ms.
    pub left_ms: Option<u64>,
    /// Wall time of a scheduled start, unix ms.
    pub start_wall_ms: Option<u64>,
    /// The stamp of the newest event (0 before the first).
    pub ct: Stamp,
    /// Hash of the newest event; before the first, of nothing (`chain::genesis`).
    pub hash: [u8; 32],
    /// The seller's stream: (node, stream id).
    pub stream: Option<(u64, Id)>,
    /// Where its history was cut, oldest first: the epoch that began, and the version after which it goes on. The core knows
    /// of none: whoever keeps it fills them in.
    pub cuts: Vec<(u64, u64)>,
}
