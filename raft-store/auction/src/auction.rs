//! One auction: its state, its timers, and how it judges a command.
//!
//! `run(upto)` lets the auction's own time pass: every timer due by then fires, in due order, anchored at its *due* stamp;
//! `judge` then looks at a command at its `arrived`. Whoever calls them in this order (`Shard`) gets the promise that a
//! close never depends on how commands were packed.
//!
//! ```text
//!             run(upto)                       judge(arrived, command)
//!   due:  close | end of a timed pause        guard (phase) -> who may -> the rule -> event or reason
//!   holds: after all else at their stamp
//! ```
//!
//! Deliberately absent: watermarks, numbering of entries, who else is in the shard (`shard`).

use crate::{
    Action, Actor, AuctionId, AuctionView, Definition, Event, EventKind, Id, Money, Outcome, Phase, Reason, Rights,
    Stamp, Verdict, chain,
    cut::move_end,
    fold::definition_hash,
    money::MONEY_MAX,
    once::{Once, Record},
    phase::{Verb, guard},
    shard::{Holds, Plant, Plants},
    terms::{EXTEND_MS_MAX, PAUSE_MS, reason_fits},
};
use alloc::{sync::Arc, vec::Vec};

/// Whose doing an event is.
#[derive(Clone, Copy)]
struct Cause<'a> {
    ct: Stamp,
    actor: Option<&'a Id>,
    id: Option<&'a Id>,
}

impl Cause<'_> {
    /// A rule's own doing at `ct`.
    fn rule(ct: Stamp) -> Cause<'static> {
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

    fn emit(&mut self, cause: Cause<'_>, kind: EventKind, out: &mut Out) {
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
                .is_none_or(|reserve| self.price >= reserve);
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

    fn close(&mut self, cause: Cause<'_>, outcome: Outcome, out: &mut Out) {
        self.phase = Phase::Closed(outcome);
        if outcome != Outcome::Sold {
            self.leader = None;
        }
        self.ends_at = self.ends_at.or(Some(cause.ct));
        self.start_wall_ms = None;
        (self.paused_at, self.until, self.paused_by_stream) = (None, None, false);
        self.emit(cause, EventKind::Close { outcome }, out);
    }

    fn pause(&mut self, cause: Cause<'_>, for_ms: Option<u64>, by_stream: bool, out: &mut Out) {
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

    fn resume(&mut self, cause: Cause<'_>, out: &mut Out) {
        let dms = cause.ct.since(self.paused_at.unwrap_or(cause.ct));
        self.phase = Phase::Live;
        self.ends_at = self.ends_at.map(|end| end.plus(dms));
        (self.paused_at, self.until, self.paused_by_stream) = (None, None, false);
        self.emit(cause, EventKind::Resume { dms }, out);
    }

    // ---- judging

    /// Judges a command at `arrived`. All timers up to `arrived` must have run.
    pub(crate) fn judge(
        &mut self,
        arrived: Stamp,
        actor: &Actor,
        id: Option<&Id>,
        action: &Action,
        out: &mut Out,
    ) -> Result<(), Reason> {
        let verb = action.verb();
        guard(self.phase, verb)?;
        self.may(actor, verb)?;
        let cause = Cause {
            ct: arrived,
            actor: Some(&actor.id),
            id,
        };
        match action {
            Action::Create(_) => Err(Reason::Taken),
            Action::Edit { version, definition } => self.edit(*version, definition, out),
            Action::Schedule { start_wall_ms } => {
                self.version = self.version.saturating_add(1);
                self.phase = Phase::Scheduled;
                self.start_wall_ms = Some(*start_wall_ms);
                out.changed.push(self.id.clone());
                Ok(())
            }
            Action::Start { schedule_version } => self.start(cause, *schedule_version, out),
            Action::Bid { amount } => self.bid(cause, actor, *amount, false, out),
            Action::MaxBid { maximum } => self.bid(cause, actor, *maximum, true, out),
            Action::Pause { for_ms } => {
                if for_ms.is_some_and(|ms| !PAUSE_MS.contains(&ms)) {
                    return Err(Reason::Invalid);
                }
                self.pause(cause, *for_ms, false, out);
                Ok(())
            }
            Action::Resume => {
                // Who resumes by hand goes on without the picture.
                self.stream_gone = false;
                self.resume(cause, out);
                Ok(())
            }
            Action::Extend { ms } => {
                if !(1..=EXTEND_MS_MAX).contains(ms) {
                    return Err(Reason::Invalid);
                }
                self.ends_at = self.ends_at.map(|end| end.plus(*ms));
                self.emit(cause, EventKind::Extend { dms: *ms }, out);
                Ok(())
            }
            Action::Cancel { reason } => {
                if !reason_fits(reason) {
                    return Err(Reason::Invalid);
                }
                self.close(cause, Outcome::Cancelled, out);
                Ok(())
            }
            Action::StreamUp { node, stream } => self.stream_up(cause, *node, stream, out),
            Action::StreamDown { stream } => self.stream_down(cause, stream, out),
        }
    }

    /// Who may ask this.
    fn may(&self, actor: &Actor, verb: Verb) -> Result<(), Reason> {
        let rights = actor.rights;
        let over = rights.has(Rights::OPERATOR) || rights.has(Rights::SYSTEM);
        let seller = actor.id == self.definition.seller;
        let allowed = match verb {
            Verb::Create => true,
            Verb::Bid | Verb::MaxBid if seller => return Err(Reason::Own),
            Verb::Bid | Verb::MaxBid => {
                rights.has(Rights::BIDDER) && (rights.has(Rights::MEMBER) || self.definition.terms.guests)
            }
            Verb::StreamUp | Verb::StreamDown => rights.has(Rights::SYSTEM),
            Verb::Edit | Verb::Schedule | Verb::Start | Verb::Pause | Verb::Resume | Verb::Extend | Verb::Cancel => {
                seller || over
            }
        };
        if allowed { Ok(()) } else { Err(Reason::Auth) }
    }

    fn edit(&mut self, version: u32, definition: &Definition, out: &mut Out) -> Result<(), Reason> {
        if version != self.version {
            return Err(Reason::Stale);
        }
        if definition.seller != self.definition.seller || definition.validate().is_err() {
            return Err(Reason::Invalid);
        }
        self.definition = definition.clone();
        self.definition_hash = definition_hash(definition);
        self.price = definition.terms.start_price;
        self.version = self.version.saturating_add(1);
        out.changed.push(self.id.clone());
        Ok(())
    }

    fn start(&mut self, cause: Cause<'_>, schedule_version: Option<u32>, out: &mut Out) -> Result<(), Reason> {
        if let Some(version) = schedule_version {
            if self.phase != Phase::Scheduled {
                return Err(Reason::WrongPhase);
            }
            if version != self.version {
                return Err(Reason::Stale);
            }
        }
        self.phase = Phase::Live;
        self.live_at = cause.ct;
        self.ends_at = Some(cause.ct.plus(self.definition.terms.duration_ms));
        self.start_wall_ms = None;
        self.stream_gone = false;
        self.emit(cause, EventKind::Open, out);
        Ok(())
    }

    /// A bid, or with `proxy` a maximum up to which the shard bids for the actor.
    fn bid(&mut self, cause: Cause<'_>, actor: &Actor, named: Money, proxy: bool, out: &mut Out) -> Result<(), Reason> {
        if named > MONEY_MAX {
            return Err(Reason::TooBig);
        }
        if self.leader.as_ref() == Some(&actor.id) {
            if !proxy || named <= self.maximum {
                return Err(Reason::Leading);
            }
            self.maximum = named;
            self.emit(cause, EventKind::Raise, out);
            return Ok(());
        }
        let least = self.least();
        if named < least {
            return Err(Reason::Low);
        }
        let before = self.price;
        let terms = &self.definition.terms;
        if self.leader.is_some() && named <= self.maximum {
            // The leader's hidden maximum answers; the earlier of two equal ones wins.
            self.price = self.maximum.min(terms.above(named));
        } else {
            let beats = if self.leader.is_some() {
                least.max(terms.above(self.maximum))
            } else {
                least
            };
            self.price = if proxy { named.min(beats) } else { named };
            self.leader = Some(actor.id.clone());
            self.maximum = named;
        }
        let ends_at = self.ends_at.unwrap_or(cause.ct);
        let moved = move_end(&terms.time, self.extensions, ends_at, cause.ct, before, self.price);
        self.ends_at = Some(moved.ends_at);
        self.extensions += u32::from(moved.extended);
        self.bids += 1;
        let amount = if proxy { self.price } else { named };
        self.emit(
            cause,
            EventKind::Bid {
                amount,
                cut_ms: moved.cut_ms,
                extended_ms: moved.extended_ms,
            },
            out,
        );
        Ok(())
    }

    fn stream_up(&mut self, cause: Cause<'_>, node: u64, stream: &Id, out: &mut Out) -> Result<(), Reason> {
        if self
            .stream
            .as_ref()
            .is_some_and(|known| known.0 == node && known.1 == *stream)
        {
            return Err(Reason::Stale);
        }
        self.stream = Some((node, stream.clone()));
        self.stream_gone = false;
        if !self.is_open() {
            out.changed.push(self.id.clone());
            return Ok(());
        }
        self.emit(
            cause,
            EventKind::Stream {
                node: Some(node),
                stream: stream.clone(),
            },
            out,
        );
        if self.paused_by_stream {
            self.resume(Cause::rule(cause.ct), out);
        }
        Ok(())
    }

    fn stream_down(&mut self, cause: Cause<'_>, stream: &Id, out: &mut Out) -> Result<(), Reason> {
        if self.stream.as_ref().is_none_or(|known| known.1 != *stream) {
            return Err(Reason::Stale);
        }
        self.stream = None;
        self.stream_gone = true;
        if !self.is_open() {
            out.changed.push(self.id.clone());
            return Ok(());
        }
        self.emit(
            cause,
            EventKind::Stream {
                node: None,
                stream: stream.clone(),
            },
            out,
        );
        if self.phase == Phase::Live && self.definition.terms.pause_without_stream {
            self.pause(Cause::rule(cause.ct), None, true, out);
        }
        Ok(())
    }

    // ---- what it shows

    /// A refusal that stays true whatever comes, or none.
    pub(crate) fn absorbing(&self, actor: &Actor, action: &Action) -> Option<Reason> {
        let (Action::Bid { amount: named } | Action::MaxBid { maximum: named }) = action else {
            return None;
        };
        match self.phase {
            Phase::Closed(_) => Some(Reason::Closed),
            // Whoever may not bid at all is told so by the log; whoever leads may be outbid before the next look.
            Phase::Live | Phase::Paused if self.may(actor, action.verb()).is_ok() => {
                (self.leader.as_ref() != Some(&actor.id) && *named < self.least()).then_some(Reason::Low)
            }
            _ => None,
        }
    }

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

    /// The auction as shown: without what must stay hidden.
    pub(crate) fn view(&self) -> AuctionView {
        let mut definition = self.definition.clone();
        let reserve = definition.terms.reserve.take();
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
            reserve_met: reserve.map(|reserve| self.bids > 0 && self.price >= reserve),
            ends_at: self.ends_at,
            left_ms: self.paused_at.and_then(|at| self.ends_at.map(|end| end.since(at))),
            start_wall_ms: self.start_wall_ms,
            ct: self.ct(),
            hash: self.hash(),
            stream: self.stream.clone(),
        }
    }
}
