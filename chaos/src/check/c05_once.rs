//! C5, once: an id acts at most once, and all good answers to it tell the same verdict.
//!
//! Source: G6. An id belongs to its bidder and auction. The same id with another body is refused (`dup_body`), so every
//! `ok` under an id names the amount that the log has.

use super::Outcome;
use crate::{book::Book, history::Place};
use std::collections::HashMap;

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C5", "exactly once");
    for (a, auction) in &book.auctions {
        let mut seen: HashMap<(&str, &str), Place> = HashMap::new();
        for (log, place) in auction.versions.iter().filter(|(log, _)| log.ty == "bid") {
            out.judged += 1;
            if let Some(first) = seen.insert((&log.bidder, &log.idem), *place) {
                out.fail(format!("{a}: the id {} acted twice", log.idem), vec![first, *place]);
            }
        }
    }
    for ((a, _, idem), attempts) in &book.bids {
        let mut first = None;
        for op in attempts.iter().map(|i| &book.ops[*i]) {
            let Some(ret) = op.ok() else { continue };
            out.judged += 1;
            let told = (ret.seq, op.inv.amt);
            match first {
                None => first = Some((told, op)),
                Some((before, other)) if before != told => {
                    let lines = other.lines().into_iter().chain(op.lines()).collect();
                    out.fail(format!("{a}: the id {idem} has two verdicts"), lines);
                }
                Some(_) => {}
            }
        }
    }
    out
}
