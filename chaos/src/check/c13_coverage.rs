//! C13, coverage: a run that didn't do enough is unknown, not passed.
//!
//! Source: `rushroom-history/1`, its list; openraft's and etcd's harnesses reject thin runs the same way. Runs of
//! profile `smoke` are exempt from the *counts*, not from having had a fault, answers and logs at all.

use super::Outcome;
use crate::book::Book;
use std::collections::{BTreeMap, HashMap, HashSet};

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C13", "enough was tried");
    let smoke = book.meta().profile == "smoke";
    let (ops, oks) = (
        book.ops.len(),
        book.ops
            .iter()
            .filter(|op| op.inv.f == "bid" && op.ok().is_some())
            .count(),
    );
    let unknown = book.ops.iter().filter(|op| op.unknown()).count();
    let overlap = book
        .ops
        .iter()
        .filter(|op| overlaps(book, op.inv.t, op.ret.map_or(book.last, |(ret, _)| ret.t)))
        .count();
    out.judged = ops as u64;
    out.figure("ok_bids", oks as f64);
    out.figure("unknown_percent", percent(unknown, ops));
    out.figure("under_fault_percent", percent(overlap, ops));
    let mut need = |enough: bool, what: &str| {
        if !enough {
            out.unknown(what.to_owned());
        }
    };
    need(oks > 0, "no bid was accepted");
    need(
        percent(unknown, ops) <= 20.0,
        "over 20 % of the operations have an unknown outcome",
    );
    need(overlap > 0, "no operation ran under a fault");
    if smoke {
        return out;
    }
    need(oks >= 1000, "fewer than 1000 accepted bids");
    need(
        percent(overlap, ops) >= 5.0,
        "under 5 % of the operations overlap a fault",
    );
    let mut per_auction: HashMap<&str, usize> = HashMap::new();
    let bids = book.ops.iter().filter(|op| op.inv.f == "bid");
    bids.for_each(|op| *per_auction.entry(&op.inv.a).or_default() += 1);
    let all: usize = per_auction.values().sum();
    need(per_auction.len() >= 20, "fewer than 20 auctions");
    need(
        per_auction.values().any(|n| n * 10 >= all * 3),
        "no auction was hot (30 % of all bids)",
    );
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    for (nem, _) in book.nems.iter().filter(|(nem, _)| nem.ev == "start") {
        *faults.entry(&nem.f).or_default() += usize::from(nem.eff == "installed");
    }
    need(
        !faults.is_empty() && faults.values().all(|n| *n >= 10),
        "a fault class ran fewer than 10 times",
    );
    need(
        viewers(book),
        "an auction had fewer than 3 viewers with 2 reconnects each",
    );
    need(
        rate(book) >= 200.0,
        "fewer than 200 definite answers a second before the first fault",
    );
    need(
        book.meta().canary.as_deref() == Some("failed"),
        "no canary: a build with a planted bug must have failed",
    );
    out
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn overlaps(book: &Book<'_>, from: i64, to: i64) -> bool {
    // Faults are few and sorted by start.
    book.faults
        .iter()
        .take_while(|fault| fault.from <= to)
        .any(|fault| fault.to >= from && !fault.nem.f.is_empty())
}

/// Every auction with bids has three viewers that each reconnected twice.
fn viewers(book: &Book<'_>) -> bool {
    let mut opens: HashMap<(&str, u64), usize> = HashMap::new();
    for (sub, _) in book.subs.iter().filter(|(sub, _)| sub.ev == "open") {
        *opens.entry((&sub.a, sub.p)).or_default() += 1;
    }
    let mut steady: HashMap<&str, usize> = HashMap::new();
    opens
        .iter()
        .filter(|(_, n)| **n >= 3)
        .for_each(|((a, _), _)| *steady.entry(a).or_default() += 1);
    let auctions: HashSet<&str> = book
        .ops
        .iter()
        .filter(|op| op.inv.f == "bid")
        .map(|op| op.inv.a.as_str())
        .collect();
    auctions.iter().all(|a| steady.get(a).is_some_and(|n| *n >= 3))
}

/// Definite answers a second before the first fault.
fn rate(book: &Book<'_>) -> f64 {
    let until = book.faults.first().map_or(book.last, |fault| fault.from);
    let from = book.ops.first().map_or(until, |op| op.inv.t);
    let answers = book
        .ops
        .iter()
        .filter(|op| !op.unknown() && op.ret.is_some_and(|(ret, _)| ret.t <= until))
        .count();
    answers as f64 / (super::ms(until - from) / 1e3).max(0.001)
}
