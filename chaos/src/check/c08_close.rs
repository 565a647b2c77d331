//! C8, one end: every auction closes once, at its deadline, to the right winner, and the news of it is not late.
//!
//! Source: G2, G4, G5; `rushroom-history/1`: a close is a timer's effect, stamped at its due stamp, carries the deadline
//! that it closes, the winner in `bidder` and the price in `amt` ("" and 0 if none). A cancelled lot closes when it was
//! cancelled, to nobody, and was asked for.
//!
//! Lateness is judged only where it is *certain*: from the newest acknowledged bid of the shard we know a moment at
//! which its clock had surely read that stamp; from there the clock can't have needed longer than real time, unless a
//! fault or a hold came between. A viewer whose stream was opened after that moment is waited for from then.
//!
//! So is earliness: a close can be stamped rightly and fired too soon, and then only the harness's clock tells.
//!
//! ```text
//!   a bid is called ------ its stamp is read ---------------------------- the clock reads the close's stamp
//!        inv                 (at or after inv)         at least (close.ct - ct) / 1.005 after inv ^
//! ```
//!
//! No outage, hold or change of leader can shorten that way (they only make the clock stand), so it needs no exception:
//! whoever sees the close, as an event, in a snapshot or in an answer, before its earliest moment (less 20 ms, as C9
//! lets a clock gain) has seen it early.

use super::{Outcome, c09_clock, stamps::Stamps};
use crate::{
    book::{Auction, Book},
    history::{Log, Nanos, Place},
};
use std::collections::HashMap;

/// The news of a close may be this late at a viewer, beyond `eps_ms`. More than G4's 100 ms, which are the commit's: from there
/// the news takes its way to a viewer, on machines that the load shares and fills. Rows of `docs/benchmarks.md` hold closer.
const LATE_MAX_MS: f64 = 250.0;
/// A clock may be this much faster than real time before it is caught (G5).
const FASTEST: f64 = 1.005;

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
    early(book, &mut out);
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
    let readings = Stamps::of(book).readings(book);
    // Whoever wasn't watching (its node had died, and it had not found another) hears of it when it is again.
    let opens = book.subs.iter().filter(|(sub, _)| sub.ev == "open");
    let opened: HashMap<u64, Nanos> = opens.map(|(sub, _)| (sub.sub, sub.t)).collect();
    let mut first: HashMap<&str, (Nanos, Nanos, Place)> = HashMap::new();
    for (evt, place) in book.evts.iter().filter(|(evt, _)| evt.ty == "close") {
        let watched = opened.get(&evt.sub).copied().unwrap_or(Nanos::MIN);
        first.entry(&evt.a).or_insert((evt.t, watched, *place));
    }
    let mut worst: f64 = 0.0;
    for (a, (t, watched, place)) in first {
        let Some(auction) = book.auctions.get(a) else { continue };
        let Some((close, at)) = auction.versions.last().filter(|(log, _)| log.ty == "close") else {
            continue;
        };
        let acks = readings.get(&auction.shard).map_or(&[][..], Vec::as_slice);
        // Of what was answered by then, the newest that isn't after the close: what others bid since says nothing.
        let before = &acks[..acks.partition_point(|ack| ack.read <= close.ct)];
        let Some(ack) = before.iter().rfind(|ack| ack.ret <= t) else {
            continue;
        };
        let (seen, due) = (ack.ret, ack.ret + (close.ct - ack.read) as i64 * 1_000_000);
        // What happens after the news had to be there is no excuse.
        let until = t.min(due + (limit * 1e6) as i64);
        if disturbed(book, seen, until, auction.shard) {
            continue;
        }
        let late = super::ms(t - due.max(watched));
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

/// A stamp that a shard's clock certainly didn't read before a moment: (stamp, moment, the lines that show it).
type Bound = (u64, Nanos, Vec<Place>);

/// How early each close certainly was, at the first who saw it.
fn early(book: &Book<'_>, out: &mut Outcome) {
    let (bounds, seen) = (bounds(book), sightings(book));
    let (mut worst, mut timed, mut untimed) = (f64::NEG_INFINITY, 0, 0);
    for (a, auction) in &book.auctions {
        let (Some((close, at)), Some((t, place))) = (
            auction.closed.and_then(|seq| auction.version(seq)),
            seen.get(a).copied(),
        ) else {
            continue;
        };
        let bounds = bounds.get(&auction.shard).map_or(&[][..], Vec::as_slice);
        // The clock never goes back, so only stamps before the close's say when it can have come to it. Its own stamp
        // doesn't: over an outage the clock stands, and bids may get the stamp that it came to long ago.
        let before = &bounds[..bounds.partition_point(|(ct, ..)| *ct < close.ct)];
        let earliest = |(ct, inv, _): &Bound| *inv + ((close.ct - ct) as f64 * 1e6 / FASTEST) as Nanos;
        let Some(bound) = before.iter().max_by_key(|bound| earliest(bound)) else {
            untimed += 1;
            continue;
        };
        timed += 1;
        let ahead = super::ms(earliest(bound) - t);
        worst = worst.max(ahead);
        if ahead > c09_clock::RISE_MAX_MS {
            out.fail(
                format!("{a}: the close was seen {ahead:.0} ms before the clock can have read its deadline"),
                bound.2.iter().copied().chain([*at, place]).collect(),
            );
        }
    }
    out.figure("closes_timed", f64::from(timed));
    if timed > 0 {
        out.figure("close_early_ms_max", worst.max(0.0));
    }
    if untimed > 0 {
        out.unknown(format!(
            "{untimed} closes can't be timed: nothing was acknowledged in their shard before"
        ));
    }
}

/// Per shard, in order of stamp: acknowledged bids, and acknowledged opens (each auction that closed had one).
fn bounds(book: &Book<'_>) -> HashMap<u32, Vec<Bound>> {
    let mut shards: HashMap<u32, Vec<Bound>> = HashMap::new();
    let stamps = Stamps::of(book);
    for (shard, readings) in stamps.readings(book) {
        let bounds = readings.into_iter().map(|r| (r.read, r.inv, r.lines));
        shards.entry(shard).or_default().extend(bounds);
    }
    // Asked again, the answer tells of the first time: the stamp was read after the first call, not after the last.
    let mut called: HashMap<&str, Nanos> = HashMap::new();
    for op in book.ops.iter().filter(|op| op.inv.f == "open") {
        let first = called.entry(&op.inv.a).or_insert(op.inv.t);
        *first = op.inv.t.min(*first);
    }
    for op in book.ops.iter().filter(|op| op.inv.f == "open" && op.ok().is_some()) {
        let auction = book.auctions.get(op.inv.a.as_str());
        if let Some((auction, (log, place))) = auction.and_then(|auction| Some((auction, auction.version(1)?)))
            && log.ty == "open"
            && let Some(first) = called.get(op.inv.a.as_str())
        {
            let (read, line) = stamps.read(&log.a, log.seq, log.ct);
            let lines = op.lines().into_iter().chain([*place]).chain(line).collect();
            shards.entry(auction.shard).or_default().push((read, *first, lines));
        }
    }
    shards.values_mut().for_each(|bounds| bounds.sort());
    shards
}

/// When anyone first saw each auction closed.
fn sightings<'h>(book: &Book<'h>) -> HashMap<&'h str, (Nanos, Place)> {
    let closed = |a: &str, seq: u64| {
        let auction = book.auctions.get(a);
        auction
            .and_then(|auction| auction.closed)
            .is_some_and(|closed| seq >= closed)
    };
    let evts = book.evts.iter().filter(|(evt, _)| evt.ty != "chat");
    let evts = evts.map(|(evt, place)| (evt.a.as_str(), evt.seq, evt.t, *place));
    let rets = book.ops.iter().filter_map(|op| {
        let (ret, place) = op.ret?;
        Some((op.inv.a.as_str(), ret.seq?, ret.t, place))
    });
    let mut first: HashMap<&str, (Nanos, Place)> = HashMap::new();
    for (a, _, t, place) in evts.chain(rets).filter(|(a, seq, ..)| closed(a, *seq)) {
        let known = first.entry(a).or_insert((t, place));
        *known = (*known).min((t, place));
    }
    first
}

/// Whether a fault or a hold lies between two moments.
pub(super) fn disturbed(book: &Book<'_>, from: Nanos, to: Nanos, shard: u32) -> bool {
    let fault = book.faults.iter().any(|fault| fault.from < to && from < fault.to);
    let held = book
        .helds
        .iter()
        .any(|(held, _)| held.shard == shard && from < held.t && held.t - (held.dms as i64) * 1_000_000 < to);
    fault || held
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::history::{Evt, History, Inv, Record, Ret};

    const MS: Nanos = 1_000_000;

    /// An auction that opens at stamp 1,000 (called at 5,000 ms) and closes at stamp 11,000; its close is seen at `seen` ms.
    /// A bid in its shard is called at `bid.0` ms and gets stamp `bid.1`.
    fn failed(bid: Option<(i64, u64)>, seen: i64) -> bool {
        failed_after(&[5_000], bid, seen)
    }

    /// The same; it was asked to open at each of `calls`, of which the last was answered.
    fn failed_after(calls: &[i64], bid: Option<(i64, u64)>, seen: i64) -> bool {
        let log = |seq, ty: &str, ct, dl| {
            Record::Log(Log {
                node: 1,
                a: "x".into(),
                seq,
                ty: ty.into(),
                ct,
                dl,
                amt: (ty == "close").then_some(0),
                ..Log::default()
            })
        };
        let inv = |op, f: &str, a: &str, t| {
            Record::Inv(Inv {
                t: t * MS,
                p: op,
                op,
                f: f.into(),
                a: a.into(),
                ..Inv::default()
            })
        };
        let ok = |op, t, ct| {
            Record::Ret(Ret {
                t: t * MS,
                p: op,
                op,
                st: "ok".into(),
                ct,
                ..Ret::default()
            })
        };
        let mut records = Vec::new();
        for (n, t) in calls.iter().enumerate() {
            records.push(inv(10 + n as u64, "open", "x", *t));
        }
        let last = calls.len() as u64 - 1;
        records.push(ok(10 + last, calls[last as usize] + 4, None));
        if let Some((t, ct)) = bid {
            // Of another auction of the shard, so that the one that closes stays as it is.
            records.extend([inv(2, "bid", "y", t), ok(2, t + 5, Some(ct))]);
            records.push(Record::Log(Log {
                a: "y".into(),
                seq: 1,
                ty: "open".into(),
                ..Log::default()
            }));
        }
        let (t, a, ty) = (seen * MS, "x".into(), "close".into());
        records.push(Record::Evt(Evt {
            t,
            a,
            ty,
            seq: 2,
            ..Evt::default()
        }));
        records.extend([log(1, "open", 1_000, 11_000), log(2, "close", 11_000, 11_000)]);
        let history = History::of(&records);
        let mut out = Outcome::new("C8", "test");
        early(&Book::of(&history), &mut out);
        out.status() == super::super::Status::Fail
    }

    #[test]
    fn early_is_what_no_clock_can_explain() {
        for (what, bid, seen, fails) in [
            ("in time", None, 15_000, false),
            // 10 s at half a percent are 50 ms, and 20 are let go.
            ("as fast as a bad clock may be", None, 14_931, false),
            ("faster than any clock may be", None, 14_929, true),
            // Time that was lost moves the earliest moment: 3 s of outage were seen by a bid at stamp 2,000.
            ("after an outage, in time", Some((9_000, 2_000)), 18_000, false),
            ("an outage that gave nothing back", Some((9_000, 2_000)), 17_900, true),
            (
                "an outage that no bid saw explains late, not early",
                None,
                18_000,
                false,
            ),
            // A stamp after the close's says nothing of it.
            ("a later stamp", Some((14_990, 11_001)), 14_991, false),
            ("a bid at the very stamp", Some((14_990, 11_000)), 14_991, false),
            // Its leader fell when the close was out: the next one stands at this stamp, and gives it to bids.
            ("the very stamp, called later", Some((15_040, 11_000)), 15_000, false),
            ("just before it, called later", Some((15_040, 10_999)), 15_000, true),
        ] {
            assert_eq!(failed(bid, seen), fails, "{what}");
        }
    }

    #[test]
    fn an_opening_that_was_asked_for_twice_counts_from_the_first_time() {
        assert!(
            !failed_after(&[5_000, 9_000], None, 15_000),
            "opened when it was first asked"
        );
        assert!(failed_after(&[5_000, 9_000], None, 14_000), "too early for either");
    }
}
