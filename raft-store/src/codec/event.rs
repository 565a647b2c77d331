//! Events and verdicts, to wire and back.

use super::{BadWire, Wire, hash, hash_bytes, id, need, opt_id};
use auction::{Event, EventKind, Opening, Outcome, Phase, Reason, Stamp, Verdict};
use proto::log::v1::{self as pb, event::Kind as Pb};

impl Wire for Event {
    type Proto = pb::Event;

    fn to_proto(&self) -> pb::Event {
        pb::Event {
            auction: (&self.auction).into(),
            seq: self.seq,
            ct: self.ct.0,
            ends_at: self.ends_at.0,
            actor: self.actor.as_ref().map(Into::into),
            id: self.id.as_ref().map(Into::into),
            price: self.price,
            leader: self.leader.as_ref().map(Into::into),
            hash: hash_bytes(&self.hash),
            kind: Some(kind_to(&self.kind)),
        }
    }

    fn from_proto(proto: pb::Event) -> Result<Event, BadWire> {
        Ok(Event {
            auction: id(&proto.auction, "event.auction")?,
            seq: proto.seq,
            ct: Stamp(proto.ct),
            ends_at: Stamp(proto.ends_at),
            actor: opt_id(proto.actor, "event.actor")?,
            id: opt_id(proto.id, "event.id")?,
            price: proto.price,
            leader: opt_id(proto.leader, "event.leader")?,
            hash: hash(&proto.hash)?,
            kind: kind_from(need(proto.kind, "event.kind")?)?,
        })
    }
}

fn kind_to(kind: &EventKind) -> Pb {
    match kind {
        EventKind::Open(opening) => Pb::Open(pb::Opening {
            seller: (&opening.seller).into(),
            terms: hash_bytes(&opening.terms),
            seal: opening.seal.as_ref().map(hash_bytes),
        }),
        EventKind::Bid {
            amount,
            cut_ms,
            extended_ms,
        } => Pb::Bid(pb::BidMade {
            amount: *amount,
            cut_ms: *cut_ms,
            extended_ms: *extended_ms,
        }),
        EventKind::Raise => Pb::Raise(pb::Nothing {}),
        EventKind::Pause { left_ms, until } => Pb::Pause(pb::Paused {
            left_ms: *left_ms,
            until: until.map(|stamp| stamp.0),
        }),
        EventKind::Resume { dms } => Pb::Resume(pb::Duration { dms: *dms }),
        EventKind::Extend { dms } => Pb::Extend(pb::Duration { dms: *dms }),
        EventKind::Held { dms } => Pb::Held(pb::Duration { dms: *dms }),
        EventKind::Close { outcome } => Pb::Close(pb::Close {
            outcome: outcome_to(*outcome) as i32,
        }),
        EventKind::Stream { node, stream } => Pb::Stream(pb::Stream {
            node: *node,
            stream: stream.into(),
        }),
    }
}

fn kind_from(kind: Pb) -> Result<EventKind, BadWire> {
    Ok(match kind {
        Pb::Open(opening) => EventKind::Open(Box::new(Opening {
            seller: id(&opening.seller, "open.seller")?,
            terms: hash(&opening.terms)?,
            seal: opening.seal.as_deref().map(hash).transpose()?,
        })),
        Pb::Bid(bid) => EventKind::Bid {
            amount: bid.amount,
            cut_ms: bid.cut_ms,
            extended_ms: bid.extended_ms,
        },
        Pb::Raise(_) => EventKind::Raise,
        Pb::Pause(pause) => EventKind::Pause {
            left_ms: pause.left_ms,
            until: pause.until.map(Stamp),
        },
        Pb::Resume(d) => EventKind::Resume { dms: d.dms },
        Pb::Extend(d) => EventKind::Extend { dms: d.dms },
        Pb::Held(d) => EventKind::Held { dms: d.dms },
        Pb::Close(close) => EventKind::Close {
            outcome: outcome_from(close.outcome)?,
        },
        Pb::Stream(stream) => EventKind::Stream {
            node: stream.node,
            stream: id(&stream.stream, "stream.stream")?,
        },
    })
}

fn outcome_to(outcome: Outcome) -> pb::Outcome {
    match outcome {
        Outcome::Sold => pb::Outcome::Sold,
        Outcome::Unsold => pb::Outcome::Unsold,
        Outcome::Cancelled => pb::Outcome::Cancelled,
    }
}

fn outcome_from(outcome: i32) -> Result<Outcome, BadWire> {
    match pb::Outcome::try_from(outcome) {
        Ok(pb::Outcome::Sold) => Ok(Outcome::Sold),
        Ok(pb::Outcome::Unsold) => Ok(Outcome::Unsold),
        Ok(pb::Outcome::Cancelled) => Ok(Outcome::Cancelled),
        Ok(pb::Outcome::Unspecified) | Err(_) => Err(BadWire::Invalid("outcome")),
    }
}

impl Wire for Phase {
    type Proto = pb::Phase;

    fn to_proto(&self) -> pb::Phase {
        let (kind, outcome) = match self {
            Phase::Draft => (pb::PhaseKind::Draft, pb::Outcome::Unspecified),
            Phase::Scheduled => (pb::PhaseKind::Scheduled, pb::Outcome::Unspecified),
            Phase::Live => (pb::PhaseKind::Live, pb::Outcome::Unspecified),
            Phase::Paused => (pb::PhaseKind::Paused, pb::Outcome::Unspecified),
            Phase::Closed(outcome) => (pb::PhaseKind::Closed, outcome_to(*outcome)),
        };
        pb::Phase {
            kind: kind as i32,
            outcome: outcome as i32,
        }
    }

    fn from_proto(proto: pb::Phase) -> Result<Phase, BadWire> {
        Ok(match pb::PhaseKind::try_from(proto.kind) {
            Ok(pb::PhaseKind::Draft) => Phase::Draft,
            Ok(pb::PhaseKind::Scheduled) => Phase::Scheduled,
            Ok(pb::PhaseKind::Live) => Phase::Live,
            Ok(pb::PhaseKind::Paused) => Phase::Paused,
            Ok(pb::PhaseKind::Closed) => Phase::Closed(outcome_from(proto.outcome)?),
            Ok(pb::PhaseKind::Unspecified) | Err(_) => return Err(BadWire::Invalid("phase")),
        })
    }
}

/// A reason's number; 0 stands for 'accepted'.
pub(super) fn reason_to(reason: Option<Reason>) -> u32 {
    reason.map_or(0, |reason| u32::from(reason.number()))
}

pub(super) fn reason_from(number: u32) -> Result<Option<Reason>, BadWire> {
    if number == 0 {
        return Ok(None);
    }
    let reason = u16::try_from(number).ok().and_then(Reason::from_number);
    reason.map(Some).ok_or(BadWire::Invalid("reason"))
}

impl Wire for Verdict {
    type Proto = pb::Verdict;

    fn to_proto(&self) -> pb::Verdict {
        pb::Verdict {
            reason: reason_to(self.outcome.err()),
            seq: self.seq,
            price: self.price,
            least: self.least,
            leader: self.leader.as_ref().map(Into::into),
            phase: Some(self.phase.to_proto()),
            ct: self.ct.0,
            ends_at: self.ends_at.map(|stamp| stamp.0),
            hash: hash_bytes(&self.hash),
            dup: self.dup,
        }
    }

    fn from_proto(proto: pb::Verdict) -> Result<Verdict, BadWire> {
        Ok(Verdict {
            outcome: reason_from(proto.reason)?.map_or(Ok(()), Err),
            seq: proto.seq,
            price: proto.price,
            least: proto.least,
            leader: opt_id(proto.leader, "verdict.leader")?,
            phase: Phase::from_proto(need(proto.phase, "verdict.phase")?)?,
            ct: Stamp(proto.ct),
            ends_at: proto.ends_at.map(Stamp),
            hash: hash(&proto.hash)?,
            dup: proto.dup,
        })
    }
}
