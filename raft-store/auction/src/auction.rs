//! One auction: its state, its timers, and what it shows.
//!
//! `run(upto)` lets the auction's own time pass: every timer due by then fires, in due order, anchored at its *due* stamp;
//! `judge` then looks at a command at its `arrived`. Whoever calls them in this order (`Shard`) gets the promise that a
//! close never depends on how commands were packed.
//!
//! ```text
//!             run(upto)                       judge(arrived, command), in judge.rs
//!   due:  close | end of a timed pause        guard (phase) -> who may -> the rule -> event or reason
//!   holds: after all else at their stamp
//! ```
//!
//! Deliberately absent: watermarks, numbering of entries, who else is in the shard (`shard`).

use crate::{
    AuctionId, AuctionView, Definition, Event, EventKind, Id, Money, Outcome, Phase, Reason, Stamp, Verdict, chain,
    fold::definition_hash,
    hold::Holds,
    once::{Once, Record},
    plant::{Plant, Plants},
};
use alloc::{sync::Arc, vec::Vec};

/// Whose doing an event is.
#[derive(Clone, Copy)]
pub(crate) struct Cause<'a> {
    pub(crate) ct: Stamp,
    pub(crate) actor: Option<&'a Id>,
    pub(crate) id: Option<&'a Id>,
}

impl Cause<'_> {
    /// A rule's own doing at `ct`.
    pub(crate) fn rule(ct: Stamp) -> Cause<'static> {
        Cause {
            ct,
            actor: None,
            id: None,
        }
    }
}

/// What judging gave out beside the verdict.
#[derive(Default)]
pub(crate) struct Out {
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) changed: Vec<AuctionId>,
}

/// One auction's state. Fields as in `parts::AuctionParts`, where each is told.
#[derive(Clone, Debug)]
pub(crate) struct Auction {
    pub(crate) id: AuctionId,
    pub(crate) version: u32,
    pub(crate) definition: Definition,
    pub(crate) definition_hash: u64,
    pub(crate) phase: Phase,
    pub(crate) start_wall_ms: Option<u64>,
    pub(crate) price: Money,
    pub(crate) leader: Option<Id>,
    pub(crate) maximum: Money,
    pub(crate) bids: u64,
    pub(crate) extensions: u32,
    pub(crate) live_at: Stamp,
    pub(crate) ends_at: Option<Stamp>,
    pub(crate) paused_at: Option<Stamp>,
    pub(crate) until: Option<Stamp>,
    pub(crate) paused_by_stream: bool,
    pub(crate) stream: Option<(u64, Id)>,
    pub(crate) stream_gone: bool,
    pub(crate) hold_next: u64,
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) once: Once,
    /// The rules that it went live with.
    pub(crate) rules: u32,
    /// The watermark where it lies below the shard's `top` (`lagging`); else a lower bound of it.
    pub(crate) watermark: Stamp,
    pub(crate) lagging: bool,
    /// The key under which the shard's timer index holds it.
    pub(crate) timer: Option<Stamp>,
    /// The key under which the shard's expiry index holds it.
    pub(crate) expiry: Option<Stamp>,
    /// The key under which the shard's index of starts holds it.
    pub(crate) start_key: Option<u64>,
}

impl Auction {
    /// A draft.
    pub(crate) fn new(id: AuctionId, definition: Definition) -> Auction {
        Auction {
            id,
            version: 1,
            definition_hash: definition_hash(&definition),
            phase: Phase::Draft,
            start_wall_ms: None,
            price: definition.terms.start_price,
            leader: None,
            maximum: 0,
            bids: 0,
            extensions: 0,
            live_at: Stamp(0),
            ends_at: None,
            paused_at: None,
            until: None,
            paused_by_stream: false,
            stream: None,
            stream_gone: false,
            hold_next: 0,
            events: Vec::new(),
            once: Once::default(),
            rules: 1,
            watermark: Stamp(0),
            lagging: false,
            timer: None,
            expiry: None,
            start_key: None,
            definition,
        }
    }

    pub(crate) fn seq(&self) -> u64 {
        self.events.len() as u64
    }

    pub(crate) fn hash(&self) -> chain::Hash {
        self.events.last().map_or(chain::genesis(), |event| event.hash)
    }

    pub(crate) fn ct(&self) -> Stamp {
        self.events.last().map_or(Stamp(0), |event| event.ct)
    }

    /// Whether its time runs or stands: the phases that holds are declared in.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Live | Phase::Paused)
    }

    /// When its next timer is due.
    pub(crate) fn due(&self) -> Option<Stamp> {
        match self.phase {
            Phase::Live => self.ends_at,
            Phase::Paused => self.until,
            _ => None,
        }
    }

    pub(crate) fn least(&self) -> Money {
        self.definition.terms.least(self.price, self.leader.is_some())
    }

    pub(crate) fn emit(&mut self, cause: Cause<'_>, kind: EventKind, out: &mut Out) {
        let mut event = Event {
            auction: self.id.clone(),
            seq: self.seq() + 1,
            ct: cause.ct,
            ends_at: self.ends_at.unwrap_or(cause.ct),
            actor: cause.actor.cloned(),
            id: cause.id.cloned(),
            price: self.price,
            leader: self.leader.clone(),
            kind,
            hash: [0; 32],
        };
        event.hash = chain::hash(self.events.last().map(|last| &last.hash), &event);
        let event = Arc::new(event);
        self.events.push(Arc::clone(&event));
        out.events.push(event);
    }

    // ---- time

    /// Lets time pass up to `upto`: timers in due order, a hold after all else at its stamp.
    pub(crate) fn run(&mut self, upto: Stamp, holds: &Holds, plants: Plants, at: Stamp, out: &mut Out) {
        loop {
            let due = self.due();
            let early = plants.has(Plant::HoldFirst);
            if let Some((number, hold)) = holds.from(self.hold_next)
                && (hold.stamp < upto || early && hold.stamp == upto)
                && due.is_none_or(|due| due > hold.stamp || early && due == hold.stamp)
            {
                self.hold_next = number + 1;
                if self.is_open() && self.live_at < hold.stamp {
                    self.emit(Cause::rule(hold.stamp), EventKind::Held { dms: hold.lost_ms }, out);
                }
                continue;
            }
            let due = due.map(|due| {
                if plants.has(Plant::TimerEarly) {
                    Stamp(due.0.saturating_sub(150))
                } else {
                    due
                }
            });
            match due {
                Some(due) if due <= upto => self.fire(if plants.has(Plant::CloseAtNow) { at } else { due }, out),
                _ => return,
            }
        }
    }

    /// The timer that is due fires, at `ct`.
    fn fire(&mut self, ct: Stamp, out: &mut Out) {
        if self.phase == Phase::Live {
            let met = self
                .definition
                .terms
                .reserve
                .is_none_or(|reserve| self.price >= reserve.amount);
            let outcome = if self.leader.is_some() && met {
                Outcome::Sold
            } else {
                Outcome::Unsold
            };
            return self.close(Cause::rule(ct), outcome, out);
        }
        self.resume(Cause::rule(ct), out);
        // The seller's pause is over, but the picture went meanwhile.
        if self.definition.terms.pause_without_stream && self.stream_gone {
            self.pause(Cause::rule(ct), None, true, out);
        }
    }

    pub(crate) fn close(&mut self, cause: Cause<'_>, outcome: Outcome, out: &mut Out) {
        self.phase = Phase::Closed(outcome);
        if outcome != Outcome::Sold {
            self.leader = None;
        }
        self.ends_at = self.ends_at.or(Some(cause.ct));
        self.start_wall_ms = None;
        (self.paused_at, self.until, self.paused_by_stream) = (None, None, false);
        self.emit(cause, EventKind::Close { outcome }, out);
    }

    pub(crate) fn pause(&mut self, cause: Cause<'_>, for_ms: Option<u64>, by_stream: bool, out: &mut Out) {
        let left_ms = self.ends_at.unwrap_or(cause.ct).since(cause.ct);
        self.phase = Phase::Paused;
        self.paused_at = Some(cause.ct);
        self.until = for_ms.map(|ms| cause.ct.plus(ms));
        self.paused_by_stream = by_stream;
        self.emit(
            cause,
            EventKind::Pause {
                left_ms,
                until: self.until,
            },
            out,
        );
    }

    pub(crate) fn resume(&mut self, cause: Cause<'_>, out: &mut Out) {
        let dms = cause.ct.since(self.paused_at.unwrap_or(cause.ct));
        self.phase = Phase::Live;
        self.ends_at = self.ends_at.map(|end| end.plus(dms));
        (self.paused_at, self.until, self.paused_by_stream) = (None, None, false);
        self.emit(cause, EventKind::Resume { dms }, out);
    }

    // ---- what it shows

    /// A verdict against the present version.
    pub(crate) fn verdict(&self, outcome: Result<(), Reason>, ct: Stamp) -> Verdict {
        Verdict {
            outcome,
            seq: self.seq(),
            price: self.price,
            least: self.least(),
            leader: self.leader.clone(),
            phase: self.phase,
            ct,
            ends_at: self.ends_at,
            hash: self.hash(),
            dup: false,
        }
    }

    /// What to remember of a verdict just given.
    pub(crate) fn record(&self, body: u64, outcome: Result<(), Reason>, ct: Stamp) -> Record {
        Record {
            body,
            refused: outcome.err(),
            seq: self.seq(),
            ct,
            price: self.price,
            least: self.least(),
            phase: self.phase,
        }
    }

    /// The verdict that was given, again.
    pub(crate) fn remembered(&self, record: &Record) -> Verdict {
        let then = (record.seq as usize).checked_sub(1).and_then(|i| self.events.get(i));
        Verdict {
            outcome: record.refused.map_or(Ok(()), Err),
            seq: record.seq,
            price: record.price,
            least: record.least,
            leader: then.and_then(|event| event.leader.clone()),
            phase: record.phase,
            ct: record.ct,
            ends_at: then.map(|event| event.ends_at),
            hash: then.map_or(chain::genesis(), |event| event.hash),
            dup: true,
        }
    }

    /// The auction as shown: without what must stay hidden. The reserve is opened when the outcome hung on it.
    pub(crate) fn view(&self) -> AuctionView {
        let mut definition = self.definition.clone();
        let reserve = definition.terms.reserve;
        if !matches!(self.phase, Phase::Closed(Outcome::Sold | Outcome::Unsold)) {
            definition.terms.reserve = None;
        }
        AuctionView {
            id: self.id.clone(),
            version: self.version,
            definition,
            phase: self.phase,
            seq: self.seq(),
            price: self.price,
            least: self.least(),
            leader: self.leader.clone(),
            bids: self.bids,
            reserve_met: reserve.map(|reserve| self.bids > 0 && self.price >= reserve.amount),
            ends_at: self.ends_at,
            left_ms: self.paused_at.and_then(|at| self.ends_at.map(|end| end.since(at))),
            start_wall_ms: self.start_wall_ms,
            ct: self.ct(),
            hash: self.hash(),
            stream: self.stream.clone(),
            cuts: Vec::new(),
        }
    }
}
