//! C7, one order: linearizable, by version witness.
//!
//! Source: G2; research on checks ("pairwise conditions suffice: order by (version, write first, then call) is then a
//! legal linearization"). Every answer carries the version that it served, so no search is needed: what starts after
//! version v was visible to anyone (an answer, an event at a viewer) must see at least v; a write must make more than v.
//! Nobody sees a version before its bid was called. What a version is said to contain is what the log has.
//!
//! Exempt from 'sees at least': reads that ask for less (`at_least`), and refusals `low`, `closed` and `expired`: these
//! are absorbing facts (a price never falls, a closed auction never reopens, an old id never grows young), true at every
//! later version too; they must be true at the version that they name (`expired` is C5's to judge).

use super::Outcome;
use crate::{
    book::{Auction, Book, Op},
    history::{Log, Nanos, Place, Ret},
};
use std::collections::HashMap;

/// A version was seen by someone at a moment.
struct Sight {
    t: Nanos,
    seq: u64,
    place: Place,
}

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C7", "linearizable by version witness");
    let mut sights: HashMap<&str, Vec<Sight>> = HashMap::new();
    for op in &book.ops {
        if let Some((ret, place)) = op.ret
            && let Some(seq) = ret.seq.filter(|seq| *seq > 0)
            && believed(book, op, seq)
        {
            sights
                .entry(&op.inv.a)
                .or_default()
                .push(Sight { t: ret.t, seq, place });
        }
    }
    for (evt, place) in book.evts.iter().filter(|(evt, _)| evt.ty != "chat" && evt.seq > 0) {
        sights.entry(&evt.a).or_default().push(Sight {
            t: evt.t,
            seq: evt.seq,
            place: *place,
        });
    }
    for (a, seen) in &mut sights {
        let Some(auction) = book.auctions.get(a) else { continue };
        seen.sort_by_key(|sight| sight.t);
        foresight(book, a, auction, seen, &mut out);
    }
    // Newest version visible before each moment: a running maximum over the sorted sights.
    let tops: HashMap<&str, Vec<(Nanos, u64, Place)>> = sights.iter().map(|(a, seen)| (*a, tops(seen))).collect();
    for op in &book.ops {
        let (Some(auction), Some(tops)) = (book.auctions.get(op.inv.a.as_str()), tops.get(op.inv.a.as_str())) else {
            continue;
        };
        answer(book, op, auction, tops, &mut out);
    }
    out
}

/// An accepted bid whose version is another's in the log was lost or moved: that is C3's finding, not a sight.
fn believed(book: &Book<'_>, op: &Op<'_>, seq: u64) -> bool {
    if op.ok().is_none() || op.inv.f != "bid" {
        return true;
    }
    let made = book
        .auctions
        .get(op.inv.a.as_str())
        .and_then(|auction| auction.version(seq));
    made.is_some_and(|(log, _)| Some(&log.idem) == op.inv.idem.as_ref() && Some(&log.bidder) == op.inv.bidder.as_ref())
}

fn tops(seen: &[Sight]) -> Vec<(Nanos, u64, Place)> {
    let mut tops: Vec<(Nanos, u64, Place)> = Vec::new();
    for sight in seen {
        if tops.last().is_none_or(|(_, seq, _)| sight.seq > *seq) {
            tops.push((sight.t, sight.seq, sight.place));
        }
    }
    tops
}

/// The newest version that was visible before `t`.
fn visible(tops: &[(Nanos, u64, Place)], t: Nanos) -> Option<(u64, Place)> {
    let n = tops.partition_point(|(at, ..)| *at < t);
    n.checked_sub(1).map(|i| (tops[i].1, tops[i].2))
}

/// Nobody sees a version before its bid was called. Seeing version s is seeing all before it.
fn foresight(book: &Book<'_>, a: &str, auction: &Auction<'_>, seen: &[Sight], out: &mut Outcome) {
    for sight in seen {
        let Some((log, place)) = auction.version(sight.seq) else {
            continue;
        };
        if let Some(called) = book.called(log).filter(|called| sight.t < *called) {
            let early = super::ms(called - sight.t);
            out.fail(
                format!("{a}: version {} was seen {early} ms before it was asked for", sight.seq),
                vec![sight.place, *place],
            );
        }
    }
}

fn answer(book: &Book<'_>, op: &Op<'_>, auction: &Auction<'_>, tops: &[(Nanos, u64, Place)], out: &mut Outcome) {
    let Some((ret, _)) = op.ret.filter(|(ret, _)| ret.st != "unk") else {
        return;
    };
    let Some(seq) = ret.seq.filter(|seq| *seq > 0) else {
        return;
    };
    out.judged += 1;
    let a = &op.inv.a;
    let code = ret.code.as_deref().unwrap_or("");
    if ret.st == "ok" && op.inv.f == "bid" {
        // A repeat tells its first verdict: what counts is when the id was first called.
        let Some((log, _)) = auction.version(seq).filter(|_| believed(book, op, seq)) else {
            return;
        };
        let called = book.called(log).unwrap_or(op.inv.t);
        if let Some((top, place)) = visible(tops, called).filter(|(top, _)| seq <= *top) {
            let lines = op.lines().into_iter().chain([place]).collect();
            out.fail(
                format!("{a}: a bid made version {seq} after version {top} was visible"),
                lines,
            );
        }
        return;
    }
    if ret.dup {
        return;
    }
    let Some((log, at)) = auction.version(seq) else {
        return out.fail(
            format!("{a}: an answer from version {seq}, which no log has"),
            op.lines(),
        );
    };
    if let Err(why) = content(ret, auction, log) {
        let lines = op.lines().into_iter().chain([*at]).collect();
        return out.fail(format!("{a}: {why}"), lines);
    }
    let older_is_fine = matches!(code, "low" | "closed" | "expired")
        || op.inv.arg.as_deref().is_some_and(|arg| arg.starts_with("at_least"));
    // Called again, the answer is the first verdict (G6), of a version at or after the id's first call.
    if let Some((top, place)) = visible(tops, book.first_call(op)).filter(|(top, _)| seq < *top && !older_is_fine) {
        let lines = op.lines().into_iter().chain([place]).collect();
        out.fail(
            format!("{a}: an answer from version {seq} after version {top} was visible"),
            lines,
        );
    }
}

/// What an answer says of its version is what the log has; a refusal is true there.
fn content(ret: &Ret, auction: &Auction<'_>, log: &Log) -> Result<(), String> {
    let seq = log.seq;
    if ret.h.as_ref().is_some_and(|h| *h != log.h) {
        return Err(format!("the hash told of version {seq} is not the log's"));
    }
    let bid = auction.versions[..seq as usize]
        .iter()
        .rev()
        .find(|(log, _)| log.ty == "bid")
        .map(|(log, _)| *log);
    if let (Some(bid), Some(hi)) = (bid, ret.hi)
        && (Some(hi) != bid.amt || ret.ldr.as_ref().is_some_and(|ldr| *ldr != bid.bidder))
    {
        return Err(format!("the price or leader told of version {seq} is not the log's"));
    }
    if ret.dl.is_some_and(|dl| dl != log.dl) {
        return Err(format!("the deadline told of version {seq} is not the log's"));
    }
    let closed = auction.closed.is_some_and(|close| close <= seq);
    match (ret.code.as_deref(), ret.ph.as_deref()) {
        (Some("closed"), _) if !closed => Err(format!("refused as closed at version {seq}, which is open")),
        (_, Some(phase)) if (phase == "closed") != closed => Err(format!("phase {phase} told of version {seq}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Evt, History, Inv, Record};

    /// Version 2 was seen at 10. A bid is called at each of `calls` (when, by which id), and the last of them is refused at
    /// 30 as paused, at version 1.
    fn failed(calls: &[(Nanos, &str)]) -> bool {
        let a = || "x".to_owned();
        let log = |seq, ty: &str| {
            let ty = ty.into();
            Record::Log(Log {
                node: 1,
                a: a(),
                seq,
                ty,
                ..Log::default()
            })
        };
        let mut records = vec![log(1, "pause"), log(2, "held")];
        for (op, (t, idem)) in (1..).zip(calls) {
            records.push(Record::Inv(Inv {
                t: *t,
                p: op,
                op,
                f: "bid".into(),
                a: a(),
                idem: Some((*idem).into()),
                bidder: Some("ann".into()),
                ..Inv::default()
            }));
        }
        records.push(Record::Evt(Evt {
            t: 10,
            a: a(),
            seq: 2,
            ty: "held".into(),
            ..Evt::default()
        }));
        let op = calls.len() as u64;
        records.push(Record::Ret(Ret {
            t: 30,
            p: op,
            op,
            st: "fail".into(),
            seq: Some(1),
            code: Some("paused".into()),
            ..Ret::default()
        }));
        let history = History::of(&records);
        check(&Book::of(&history)).status() == super::super::Status::Fail
    }

    #[test]
    fn a_refusal_that_is_asked_for_again_counts_from_the_first_time() {
        for (what, calls, fails) in [
            ("called after version 2 was seen", &[(20, "one")][..], true),
            ("called before", &[(5, "one")], false),
            ("called before, and again after", &[(5, "one"), (20, "one")], false),
            ("another bid was called before", &[(5, "one"), (20, "two")], true),
            ("twice, both after", &[(15, "one"), (20, "one")], true),
        ] {
            assert_eq!(failed(calls), fails, "{what}");
        }
    }
}
