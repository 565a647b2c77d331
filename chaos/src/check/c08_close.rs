//! C8, one end: every auction closes once, at its deadline, to the right winner, and the news of it is not late.
//!
//! Source: G2, G4, G5; `rushroom-history/1`: a close is a timer's effect, stamped at its due stamp, carries the deadline
//! that it closes, the winner in `bidder` and the price in `amt` ("" and 0 if none). A cancelled lot closes when it was
//! cancelled, to nobody, and was asked for.
//!
//! Lateness is judged only where it is *certain*: from the newest acknowledged bid of the shard we know a moment at
//! which its clock had surely read that stamp; from there the clock can't have needed longer than real time, unless a
//! fault or a hold came between.

use super::Outcome;
use crate::{
    book::{Auction, Book},
    history::{Log, Nanos, Place},
};
use std::collections::HashMap;

/// The news of a close may be this late at a viewer, beyond `eps_ms`.
const LATE_MAX_MS: f64 = 250.0;

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C8", "one close, right and in time");
    let mut open = 0;
    for (a, auction) in &book.auctions {
        out.judged += 1;
        let closes: Vec<_> = auction.versions.iter().filter(|(log, _)| log.ty == "close").collect();
        let Some((close, place)) = closes.first() else {
            open += 1;
            continue;
        };
        if closes.len() > 1 {
            out.fail(
                format!("{a}: closed {} times", closes.len()),
                closes.iter().map(|(_, place)| *place).collect(),
            );
        }
        if let Some((_, after)) = auction.version(close.seq + 1).filter(|(log, _)| log.ty != "close") {
            out.fail(format!("{a}: goes on after its close"), vec![*place, *after]);
        }
        one(book, a, auction, close, *place, &mut out);
    }
    if open > 0 {
        out.unknown(format!("{open} auctions never closed in this history"));
    }
    late(book, &mut out);
    out
}

fn one(book: &Book<'_>, a: &str, auction: &Auction<'_>, close: &Log, place: Place, out: &mut Outcome) {
    let before = &auction.versions[..close.seq as usize - 1];
    let last = before.last().copied();
    let nobody = close.bidder.is_empty() && close.amt.unwrap_or(0) == 0;
    let cancelled = nobody
        && book
            .ops
            .iter()
            .any(|op| op.inv.a == a && op.inv.arg.as_deref() == Some("cancel"));
    if cancelled {
        return;
    }
    let lines: Vec<Place> = last.map(|(_, place)| place).into_iter().chain([place]).collect();
    let due = last.map_or(close.dl, |(log, _)| log.dl);
    if close.dl != due {
        out.fail(
            format!("{a}: closes deadline {}, but it was {due}", close.dl),
            lines.clone(),
        );
    }
    if close.ct < close.dl {
        out.fail(format!("{a}: closed {} ms early", close.dl - close.ct), lines);
    } else if close.ct > close.dl {
        out.fail(
            format!("{a}: closed at {}, not at its due stamp {}", close.ct, close.dl),
            lines,
        );
    }
    let best = before.iter().rev().find(|(log, _)| log.ty == "bid");
    let winner = best.map_or(("", 0), |(log, _)| (log.bidder.as_str(), log.amt.unwrap_or(0)));
    if (close.bidder.as_str(), close.amt.unwrap_or(0)) != winner {
        let lines = best.map(|(_, place)| *place).into_iter().chain([place]).collect();
        out.fail(
            format!(
                "{a}: sold to {:?} at {:?}, the last bid says otherwise",
                close.bidder, close.amt
            ),
            lines,
        );
    }
}

/// How late the news of each close certainly was, at the first viewer that got it.
fn late(book: &Book<'_>, out: &mut Outcome) {
    let limit = LATE_MAX_MS + book.meta().eps_ms as f64;
    // Acknowledged bids per shard: (moment by which the stamp had surely been read, stamp).
    let mut acks: HashMap<u32, Vec<(Nanos, u64)>> = HashMap::new();
    for op in book.ops.iter().filter(|op| op.inv.f == "bid") {
        if let (Some(ret), Some(auction)) = (op.ok(), book.auctions.get(op.inv.a.as_str()))
            && let Some(ct) = ret.ct
        {
            acks.entry(auction.shard).or_default().push((ret.t, ct));
        }
    }
    acks.values_mut().for_each(|acks| acks.sort_unstable());
    let mut first: HashMap<&str, (Nanos, Place)> = HashMap::new();
    for (evt, place) in book.evts.iter().filter(|(evt, _)| evt.ty == "close") {
        first.entry(&evt.a).or_insert((evt.t, *place));
    }
    let mut worst: f64 = 0.0;
    for (a, (t, place)) in first {
        let Some(auction) = book.auctions.get(a) else { continue };
        let Some((close, at)) = auction.versions.last().filter(|(log, _)| log.ty == "close") else {
            continue;
        };
        let acks = acks.get(&auction.shard).map_or(&[][..], Vec::as_slice);
        let n = acks.partition_point(|(seen, _)| *seen <= t);
        let Some((seen, stamp)) = n.checked_sub(1).map(|i| acks[i]) else {
            continue;
        };
        let due = seen + (close.ct.saturating_sub(stamp) as i64) * 1_000_000;
        // What happens after the news had to be there is no excuse.
        let until = t.min(due + (limit * 1e6) as i64);
        if close.ct < stamp || disturbed(book, seen, until, auction.shard) {
            continue;
        }
        let late = super::ms(t - due.max(seen));
        worst = worst.max(late);
        if late > limit {
            out.fail(
                format!("{a}: the close was {late:.0} ms late at its first viewer"),
                vec![*at, place],
            );
        }
    }
    out.figure("close_late_ms_max", worst);
}

/// Whether a fault or a hold lies between two moments.
fn disturbed(book: &Book<'_>, from: Nanos, to: Nanos, shard: u32) -> bool {
    let fault = book.faults.iter().any(|fault| fault.from < to && from < fault.to);
    let held = book
        .helds
        .iter()
        .any(|(held, _)| held.shard == shard && from < held.t && held.t - (held.dms as i64) * 1_000_000 < to);
    fault || held
}
