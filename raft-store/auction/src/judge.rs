//! How an auction judges a command: the guard, who may, then the rule.
//!
//! ```text
//!   guard (phase table) -> who may -> bounds -> the rule -> event(s), or the reason of the refusal
//! ```
//!
//! A refusal changes nothing. Prices: a bid must be the least next bid at least; against a hidden maximum that covers it,
//! the maximum answers with one increment more (never above itself, so the earlier of two equal ones wins); a maximum
//! that beats leads at one increment above the second.
//!
//! Deliberately absent: time (timers ran before), memory of ids (`once`).

use crate::{
    Action, Actor, Definition, EventKind, Id, Money, Outcome, Phase, Reason, Rights, Stamp,
    auction::{Auction, Cause, Out},
    bound::Opening,
    cut::move_end,
    fold::definition_hash,
    money::MONEY_MAX,
    phase::{Verb, guard},
    terms::{EXTEND_MS_MAX, PAUSE_MS, reason_fits},
};
use alloc::boxed::Box;

impl Auction {
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
        let (actor, id) = (cause.actor, cause.id);
        let opening = Opening::of(self.id.as_str(), self.version, &self.definition, actor, id);
        self.emit(cause, EventKind::Open(Box::new(opening)), out);
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
        if cfg!(feature = "next") && self.rules >= 3 && named > least.saturating_mul(1_000) {
            return Err(Reason::TooBig);
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
}
