//! The head of an export, held against where the replay ended: every field of it, each under its own code.

use super::{
    Check, Head, holds,
    replay::{At, Replay},
};
use crate::chain;
use alloc::{format, string::String};
use core::fmt::Debug;

/// Checks what the head shows; what it fixes was checked with the `open` event.
pub(super) fn check(head: &Head, end: &Replay<'_>) -> Check {
    let shown = &head.shown;
    // First how far it goes: an export cut short is told as that.
    same("seq", &shown.seq, &end.seq)?;
    same("h", &hex(&shown.h), &hex(&end.hash.unwrap_or(chain::genesis())))?;
    same("ct", &shown.ct, &end.ct)?;
    phase(head, end)?;
    same("outcome", &shown.outcome, &end.outcome)?;
    same("price", &shown.price, &end.price)?;
    same("leader", &shown.leader, &end.leader)?;
    same("bids", &shown.bids, &end.bids)?;
    same(
        "least",
        &shown.least,
        &head.terms.least(end.price, end.leader.is_some()),
    )?;
    same("ends_at", &shown.ends_at, &(end.seq > 0).then_some(end.dl))?;
    let left = match end.at {
        At::Paused { since, .. } => Some(end.dl.saturating_sub(since)),
        _ => None,
    };
    same("left_ms", &shown.left_ms, &left)?;
    let waits = shown.phase == "scheduled";
    holds(shown.start_at_ms.is_some() == waits, "start_at_ms", || {
        format!("a start at {:?} while {}", shown.start_at_ms, shown.phase)
    })?;
    reserve(head, end)
}

fn phase(head: &Head, end: &Replay<'_>) -> Check {
    let shown = head.shown.phase.as_str();
    let fits = match end.at {
        At::Before => matches!(shown, "draft" | "scheduled"),
        At::Live => shown == "live",
        At::Paused { .. } => shown == "paused",
        At::Closed => shown == "closed",
    };
    holds(fits, "phase", || {
        format!("the head says {shown:?}, but the events leave it {:?}", end.at)
    })
}

/// The reserve is opened exactly when the outcome hung on it, and what is said of it before fits that there is one.
fn reserve(head: &Head, end: &Replay<'_>) -> Check {
    let due = end.seal.is_some() && matches!(end.outcome.as_deref(), Some("sold" | "unsold"));
    holds(head.terms.reserve.is_some() == due, "reserve", || {
        String::from(if due {
            "there was a reserve, but it isn't opened"
        } else {
            "a reserve is shown that is not to be opened"
        })
    })?;
    if let Some(reserve) = head.terms.reserve {
        let met = end.bids > 0 && end.price >= reserve.amount;
        return same("reserve_met", &head.shown.reserve_met, &Some(met));
    }
    // Unbound terms (never live) may have a reserve or not.
    let told = head.shown.reserve_met.is_some();
    holds(!end.bound || told == end.seal.is_some(), "reserve_met", || {
        let seal = if end.seal.is_some() { "a" } else { "no" };
        format!(
            "the head says {:?}, but there is {seal} reserve",
            head.shown.reserve_met
        )
    })
}

fn same<T: PartialEq + Debug>(field: &'static str, shown: &T, replayed: &T) -> Check {
    holds(shown == replayed, field, || {
        format!("the head says {shown:?}, the events make it {replayed:?}")
    })
}

fn hex(hash: &chain::Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
