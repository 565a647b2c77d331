//! C4, asked: nothing is in the log that nobody asked for, and nothing that was definitely refused.
//!
//! Source: G2, G6. A bid is asked for by an `inv` with its auction, bidder and id, and one of its bodies. A bid all of
//! whose attempts were answered `fail` certainly never applied. What sellers and operators do (open, pause, extend,
//! cancel) is matched by its verb: their ids are the client library's.

use super::Outcome;
use crate::{
    book::Book,
    history::{Log, Place},
};
use std::collections::HashSet;

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C4", "nothing unasked is applied");
    let verbs: HashSet<(&str, &str)> = book
        .ops
        .iter()
        .filter(|op| op.fail().is_none())
        .flat_map(|op| {
            [
                (op.inv.a.as_str(), op.inv.f.as_str()),
                (&op.inv.a, op.inv.arg.as_deref().unwrap_or("")),
            ]
        })
        .collect();
    for (a, auction) in &book.auctions {
        for (log, place) in &auction.versions {
            out.judged += 1;
            match log.ty.as_str() {
                "bid" => bid(book, a, log, *place, &mut out),
                verb @ ("open" | "pause" | "extend") if !verbs.contains(&(*a, verb)) => {
                    out.fail(format!("{a}: {verb} was asked by nobody"), vec![*place]);
                }
                _ => {}
            }
        }
    }
    out
}

fn bid(book: &Book<'_>, a: &str, log: &Log, place: Place, out: &mut Outcome) {
    let attempts: Vec<_> = book.attempts(log).collect();
    if attempts.is_empty() {
        return out.fail(format!("{a}: a bid that nobody made"), vec![place]);
    }
    let lines = || {
        attempts
            .iter()
            .flat_map(|op| op.lines())
            .chain([place])
            .collect::<Vec<_>>()
    };
    if !attempts.iter().any(|op| op.inv.amt == log.amt) {
        out.fail(format!("{a}: a bid with an amount that was not asked"), lines());
    }
    if attempts.iter().all(|op| op.fail().is_some()) {
        out.fail(format!("{a}: a refused bid was applied"), lines());
    }
}
