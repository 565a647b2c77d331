//! A shard: many auctions, one order of events.
//!
//! First form of the public face; the rules fill in behind it.

use crate::{
    Action, AuctionId, AuctionView, Command, Definition, Entry, Event, Hold, Id, Money, Office, Phase, Reason, Stamp,
    Verdict,
};
use alloc::{sync::Arc, vec::Vec};

/// What a shard remembers at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Logged refusals alive per (auction, actor); with so many alive more are refused at the door.
    pub refusals_max: usize,
    /// How long a logged refusal is remembered, ms of the shard's clock.
    pub refusals_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            refusals_max: 64,
            refusals_ms: 600_000,
        }
    }
}

/// What became of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// Of an older office, or out of number: without effect; its commands are *not judged*.
    Void,
    /// Applied.
    Done(Done),
}

/// What an applied entry made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Done {
    /// One for each command of the entry, in its order.
    pub verdicts: Vec<Verdict>,
    /// Within an auction in order of `seq`.
    pub events: Vec<Arc<Event>>,
    /// Auctions whose view changed without an event (definition, schedule, a stream outside the live time).
    pub changed: Vec<AuctionId>,
}

/// What is remembered of a command id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known {
    /// The same body: its first verdict (`dup` is set).
    Verdict(Verdict),
    /// The id belongs to another body: `dup_body`, judged at the present version.
    OtherBody(Verdict),
}

/// A stable hash of a command's action: what an id is bound to.
pub type BodyHash = u64;

/// All of a shard, as plain values: what a snapshot holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// The office whose entries follow.
    pub office: Office,
    /// The number of its newest applied entry.
    pub n: u64,
    /// The newest stamp.
    pub top: Stamp,
    /// Stamps that had to be clamped (must stay 0).
    pub clamped: u64,
    /// Holds that some auction's watermark has not passed yet, oldest first.
    pub holds: Vec<Hold>,
    /// The number of the first of them (holds are counted from 0 over the shard's life).
    pub hold_first: u64,
    /// Every auction, in order of creation.
    pub auctions: Vec<AuctionParts>,
}

/// One auction, as plain values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuctionParts {
    /// The auction.
    pub id: AuctionId,
    /// Version of definition and schedule.
    pub version: u32,
    /// What is sold, with the reserve.
    pub definition: Definition,
    /// Where in its life.
    pub phase: Phase,
    /// Wall time of a scheduled start, unix ms.
    pub start_wall_ms: Option<u64>,
    /// Visible price.
    pub price: Money,
    /// Who leads.
    pub leader: Option<Id>,
    /// The leader's hidden maximum (0: nobody leads).
    pub maximum: Money,
    /// Accepted bids.
    pub bids: u64,
    /// Soft-close extensions used.
    pub extensions: u32,
    /// When it went live.
    pub live_at: Stamp,
    /// The deadline; while paused the one it had.
    pub ends_at: Option<Stamp>,
    /// Since when it is paused.
    pub paused_at: Option<Stamp>,
    /// When a timed pause ends.
    pub until: Option<Stamp>,
    /// It is paused because the stream is gone.
    pub paused_by_stream: bool,
    /// The seller's stream.
    pub stream: Option<(u64, Id)>,
    /// The stream was up and went.
    pub stream_gone: bool,
    /// The watermark, if it lies below the shard's `top`.
    pub behind: Option<Stamp>,
    /// The number of the first hold that it has not taken yet.
    pub hold_next: u64,
    /// Its log.
    pub events: Vec<Arc<Event>>,
    /// Remembered command ids, in order of (actor, id).
    pub once: Vec<OnceParts>,
}

/// One remembered command id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnceParts {
    /// Who sent it.
    pub actor: Id,
    /// The command's id.
    pub id: Id,
    /// What it is bound to.
    pub body: BodyHash,
    /// `None`: accepted.
    pub refused: Option<Reason>,
    /// The version that it made or saw.
    pub seq: u64,
    /// When it was judged.
    pub ct: Stamp,
    /// Price told.
    pub price: Money,
    /// Least next bid told.
    pub least: Money,
    /// Phase told.
    pub phase: Phase,
}

/// Why parts make no shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadParts(pub &'static str);

/// What a Raft group replicates: auctions, their clocks, their logs.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    top: Stamp,
    office: Office,
    n: u64,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub fn new(limits: Limits) -> Shard {
        let _ = limits;
        Shard::default()
    }

    /// Applies one log entry: pure, total, the same on every replica.
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        if entry.n == 0 {
            self.office = entry.office;
            return Applied::Done(Done::default());
        }
        Applied::Void
    }

    /// The newest stamp judged or promised: the shard's now.
    #[must_use]
    pub fn top(&self) -> Stamp {
        self.top
    }

    /// The office whose entries are being applied.
    #[must_use]
    pub fn office(&self) -> Office {
        self.office
    }

    /// The number that the next entry of this office must have.
    #[must_use]
    pub fn next_n(&self) -> u64 {
        self.n.saturating_add(1)
    }

    /// The earliest due timer of all auctions.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Stamp> {
        None
    }

    /// Whether any timer is pending.
    #[must_use]
    pub fn has_timers(&self) -> bool {
        self.next_deadline().is_some()
    }

    /// An auction's next timer.
    #[must_use]
    pub fn due(&self, auction: &AuctionId) -> Option<Stamp> {
        let _ = auction;
        None
    }

    /// An auction's watermark; of an unknown auction the shard's `top`.
    #[must_use]
    pub fn watermark(&self, auction: &AuctionId) -> Stamp {
        let _ = auction;
        self.top
    }

    /// The auctions whose watermark is below `base`: a new office lists them in `behind`.
    pub fn below(&self, base: Stamp) -> impl Iterator<Item = (AuctionId, Stamp)> + '_ {
        let _ = base;
        core::iter::empty()
    }

    /// What is remembered of a command id.
    #[must_use]
    pub fn known(&self, auction: &AuctionId, actor: &Id, id: &Id, body: BodyHash) -> Option<Known> {
        let _ = (auction, actor, id, body);
        None
    }

    /// A refusal that needs no log: `low` and `closed` (absorbing), and `rate` where the bound on logged refusals is used up.
    #[must_use]
    pub fn early(&self, command: &Command) -> Option<Verdict> {
        let _ = command;
        None
    }

    /// One auction as shown.
    #[must_use]
    pub fn view(&self, auction: &AuctionId) -> Option<AuctionView> {
        let _ = auction;
        None
    }

    /// All auctions as shown, in order of id.
    pub fn views(&self) -> impl Iterator<Item = AuctionView> + '_ {
        core::iter::empty()
    }

    /// An auction's events after version `after`, at most `limit`.
    #[must_use]
    pub fn events(&self, auction: &AuctionId, after: u64, limit: usize) -> Option<&[Arc<Event>]> {
        let _ = (auction, after, limit);
        None
    }

    /// Scheduled auctions as (auction, wall time of the start, schedule version), earliest first.
    pub fn scheduled(&self) -> impl Iterator<Item = (AuctionId, u64, u32)> + '_ {
        core::iter::empty()
    }

    /// A hash of the whole state: equal on replicas that applied the same log.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        [0; 32]
    }

    /// The whole state as plain values.
    #[must_use]
    pub fn parts(&self) -> Parts {
        Parts {
            office: self.office,
            n: self.n,
            top: self.top,
            clamped: 0,
            holds: Vec::new(),
            hold_first: 0,
            auctions: Vec::new(),
        }
    }

    /// The shard that `parts` describe.
    ///
    /// # Errors
    /// When parts contradict each other (an id twice, a broken sequence).
    pub fn from_parts(limits: Limits, parts: Parts) -> Result<Shard, BadParts> {
        let _ = limits;
        Ok(Shard {
            top: parts.top,
            office: parts.office,
            n: parts.n,
        })
    }

    /// How many stamps had to be clamped. Must stay 0.
    #[must_use]
    pub fn clamped(&self) -> u64 {
        0
    }
}

/// The stable hash of an action.
#[must_use]
pub fn body_hash(action: &Action) -> BodyHash {
    let _ = action;
    0
}
