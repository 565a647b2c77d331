//! The core's words in the words of a history.

use crate::history::{Evt, Log, Ret};
use auction::{AuctionView, Event, EventKind, Outcome, Phase, Verdict, chain};

pub(super) fn is_closed(phase: Phase) -> bool {
    matches!(phase, Phase::Closed(_))
}

/// What a history says of a verdict.
pub(super) fn judged(verdict: &Verdict) -> Ret {
    Ret {
        st: if verdict.outcome.is_ok() { "ok" } else { "fail" }.into(),
        seq: Some(verdict.seq).filter(|seq| *seq > 0),
        hi: Some(verdict.price),
        ldr: verdict.leader.as_ref().map(ToString::to_string),
        ph: Some(verdict.phase.word().into()),
        ct: Some(verdict.ct.0),
        dl: verdict.ends_at.map(|stamp| stamp.0),
        h: Some(hex::encode(verdict.hash)).filter(|_| verdict.hash != chain::genesis()),
        dup: verdict.dup,
        code: verdict.outcome.err().map(|reason| reason.code().into()),
        ..Ret::default()
    }
}

pub(super) fn unknown() -> Ret {
    Ret {
        st: "unk".into(),
        ..Ret::default()
    }
}

/// What a read found.
pub(super) fn version(view: &AuctionView) -> Ret {
    Ret {
        st: "ok".into(),
        seq: Some(view.seq).filter(|seq| *seq > 0),
        hi: Some(view.price),
        ldr: view.leader.as_ref().map(ToString::to_string),
        ph: Some(view.phase.word().into()),
        ct: Some(view.ct.0),
        dl: view.ends_at.map(|stamp| stamp.0),
        h: Some(hex::encode(view.hash)),
        ..Ret::default()
    }
}

pub(super) fn snap(seq: u64, view: &AuctionView) -> Evt {
    Evt {
        seq,
        ty: "snap".into(),
        h: hex::encode(view.hash),
        ct: Some(view.ct.0),
        dl: view.ends_at.map(|stamp| stamp.0),
        ..Evt::default()
    }
}

/// The phase that an event leaves an auction in, if it says.
pub(super) fn phase_after(event: &Event) -> Option<Phase> {
    match event.kind {
        EventKind::Close { outcome } => Some(Phase::Closed(outcome)),
        EventKind::Open(_) | EventKind::Resume { .. } => Some(Phase::Live),
        EventKind::Pause { .. } => Some(Phase::Paused),
        _ => None,
    }
}

/// An event as a viewer writes it down.
pub(super) fn event(event: &Event) -> Evt {
    let log = log(event);
    Evt {
        seq: log.seq,
        ty: log.ty,
        h: log.h,
        amt: log.amt,
        bidder: Some(log.bidder),
        ct: Some(log.ct),
        dl: Some(log.dl),
        dms: log.dms,
        ..Evt::default()
    }
}

/// An event as it stands in a replica's log: the cells that its hash is of.
pub(super) fn log(event: &Event) -> Log {
    let line = chain::line(event);
    let amt = match line.amt {
        chain::Amt::Money(amount) | chain::Amt::Answered(amount, ..) => Some(amount),
        chain::Amt::Empty => None,
    };
    let idem = match line.idem {
        chain::Idem::Id(id) => id.to_owned(),
        chain::Idem::Digest(digest) => hex::encode(digest),
        chain::Idem::Empty => String::new(),
    };
    let dms = match event.kind {
        EventKind::Resume { dms } | EventKind::Extend { dms } | EventKind::Held { dms } => Some(dms),
        _ => None,
    };
    Log {
        seq: line.seq,
        ty: line.ty.into(),
        idem,
        bidder: line.bidder.into(),
        amt,
        ct: line.ct,
        dl: line.dl,
        dms,
        h: hex::encode(event.hash),
        ..Log::default()
    }
}

/// Whether an event ends an auction by decision, not by time.
pub(super) fn is_cancel(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::Close {
            outcome: Outcome::Cancelled
        }
    )
}
