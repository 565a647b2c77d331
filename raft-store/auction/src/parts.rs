//! A shard as plain values, and back: what a snapshot holds.
//!
//! The encoding lies elsewhere (`raft-store`); here is only *what* must be kept. Everything that can be derived (indexes,
//! counts, sums, the newest hash) isn't in the parts but made again by `from_parts`, so that a snapshot can't contradict
//! itself. A round trip keeps the digest.

use crate::{
    AuctionId, BodyHash, Cold, Definition, Event, Hold, Id, Limits, Money, Office, Phase, RULES_VERSION, Reason, Shard,
    Stamp,
    auction::Auction,
    cold::{Settled, Shelf},
    fold::definition_hash,
    hold::Holds,
    once::{Once, Record, Seen},
};
use alloc::{sync::Arc, vec::Vec};

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
    /// The auctions that may still change, then the settled ones by number.
    pub auctions: Vec<AuctionParts>,
    /// The rules that auctions go live with.
    pub rules: u32,
    /// The settled auctions that aren't among `auctions`: whoever made the parts keeps them elsewhere.
    pub cold: Cold,
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
    /// The rules that it went live with.
    pub rules: u32,
    /// Its number among the shard's settled auctions, if it is one.
    pub settled: Option<u64>,
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

impl Shard {
    /// The whole state as plain values.
    #[must_use]
    pub fn parts(&self) -> Parts {
        Parts {
            office: self.office,
            n: self.n,
            top: self.top,
            clamped: self.clamped,
            holds: self.holds.list.iter().copied().collect(),
            hold_first: self.holds.first,
            auctions: self
                .auctions
                .iter()
                .map(auction_parts)
                .chain(self.shelf.warm().map(|settled| settled.parts()))
                .collect(),
            rules: self.rules(),
            cold: self.shelf.cold,
        }
    }

    /// The shard that `parts` describe.
    ///
    /// # Errors
    /// When parts contradict each other (an id twice, a gap in a log), or name rules that this code doesn't know.
    pub fn from_parts(limits: Limits, parts: Parts) -> Result<Shard, BadParts> {
        if parts.auctions.iter().any(|a| a.rules > RULES_VERSION) || parts.rules > RULES_VERSION {
            return Err(BadParts("newer rules than this build knows"));
        }
        let mut shard = Shard::new(limits);
        shard.rules = parts.rules.max(1);
        (shard.office, shard.n, shard.top, shard.clamped) = (parts.office, parts.n, parts.top, parts.clamped);
        shard.holds = Holds {
            first: parts.hold_first,
            list: parts.holds.into(),
        };
        shard.shelf = Shelf::of(parts.cold);
        for parts in parts.auctions {
            if shard.is_here(&parts.id) {
                return Err(BadParts("an auction twice"));
            }
            if parts.settled.is_some() {
                shard.shelf.restore(Settled::from_parts(parts)?)?;
                continue;
            }
            let auction = auction_of(parts)?;
            let slot = shard.insert(auction);
            shard.reindex(slot);
        }
        Ok(shard)
    }
}

pub(crate) fn auction_parts(a: &Auction) -> AuctionParts {
    let once = a.once.sorted().into_iter().map(|Seen { actor, id, record }| OnceParts {
        actor: actor.clone(),
        id: id.clone(),
        body: record.body,
        refused: record.refused,
        seq: record.seq,
        ct: record.ct,
        price: record.price,
        least: record.least,
        phase: record.phase,
    });
    AuctionParts {
        id: a.id.clone(),
        version: a.version,
        definition: a.definition.clone(),
        phase: a.phase,
        start_wall_ms: a.start_wall_ms,
        price: a.price,
        leader: a.leader.clone(),
        maximum: a.maximum,
        bids: a.bids,
        extensions: a.extensions,
        live_at: a.live_at,
        ends_at: a.ends_at,
        paused_at: a.paused_at,
        until: a.until,
        paused_by_stream: a.paused_by_stream,
        stream: a.stream.clone(),
        stream_gone: a.stream_gone,
        behind: a.lagging.then_some(a.watermark),
        hold_next: a.hold_next,
        events: a.events.clone(),
        once: once.collect(),
        rules: a.rules,
        settled: None,
    }
}

pub(crate) fn auction_of(parts: AuctionParts) -> Result<Auction, BadParts> {
    for (event, seq) in parts.events.iter().zip(1..) {
        if event.seq != seq || event.auction != parts.id {
            return Err(BadParts("a log with a gap"));
        }
    }
    let seen = parts.once.into_iter().map(|o| {
        let (body, refused, seq, ct) = (o.body, o.refused, o.seq, o.ct);
        let record = Record {
            body,
            refused,
            seq,
            ct,
            price: o.price,
            least: o.least,
            phase: o.phase,
        };
        Seen {
            actor: o.actor,
            id: o.id,
            record,
        }
    });
    Ok(Auction {
        id: parts.id,
        version: parts.version,
        definition_hash: definition_hash(&parts.definition),
        definition: parts.definition,
        phase: parts.phase,
        start_wall_ms: parts.start_wall_ms,
        price: parts.price,
        leader: parts.leader,
        maximum: parts.maximum,
        bids: parts.bids,
        extensions: parts.extensions,
        live_at: parts.live_at,
        ends_at: parts.ends_at,
        paused_at: parts.paused_at,
        until: parts.until,
        paused_by_stream: parts.paused_by_stream,
        stream: parts.stream,
        stream_gone: parts.stream_gone,
        hold_next: parts.hold_next,
        events: parts.events,
        once: Once::of(seen.collect()),
        rules: parts.rules.max(1),
        watermark: parts.behind.unwrap_or_default(),
        lagging: parts.behind.is_some(),
        timer: None,
        expiry: None,
        start_key: None,
    })
}
