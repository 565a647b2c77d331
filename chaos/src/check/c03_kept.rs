//! C3, kept: every bid that was answered `ok` is in the final log, with that version, amount, stamp and hash.
//!
//! Source: G1. The log is the longest replica's; C2 says that all are that one.

use super::Outcome;
use crate::{
    book::{Auction, Book},
    history::{Log, Place, Ret},
};
use std::collections::HashMap;

/// A log's entries by (bidder, id).
type Ids<'h> = HashMap<(&'h str, &'h str), Vec<(&'h Log, Place)>>;

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C3", "no acknowledged bid is lost");
    let by_id: HashMap<&str, Ids<'_>> = book.auctions.iter().map(|(a, auction)| (*a, by_id(auction))).collect();
    let mut lost = 0.0;
    for op in book.ops.iter().filter(|op| op.inv.f == "bid") {
        let (Some(ret), a) = (op.ok(), op.inv.a.as_str()) else {
            continue;
        };
        let Some(ids) = by_id.get(a) else {
            out.unknown(format!("{a}: no log of an auction with accepted bids"));
            continue;
        };
        out.judged += 1;
        let (bidder, idem) = (
            op.inv.bidder.as_deref().unwrap_or(""),
            op.inv.idem.as_deref().unwrap_or(""),
        );
        let entries = ids.get(&(bidder, idem)).map_or(&[][..], Vec::as_slice);
        let Some((_, place)) = entries.first() else {
            lost += 1.0;
            out.fail(format!("{a}: an acknowledged bid is in no log"), op.lines());
            continue;
        };
        // Twice in the log is C5's finding; here it is enough that one of the entries is what was told.
        if !entries.iter().any(|(log, _)| told(ret, log)) {
            let lines = op.lines().into_iter().chain([*place]).collect();
            out.fail(
                format!("{a}: the log has an acknowledged bid otherwise than it was told"),
                lines,
            );
        }
    }
    out.figure("acked_lost", lost);
    out
}

fn told(ret: &Ret, log: &Log) -> bool {
    let same = (ret.seq, ret.ct, ret.h.as_deref()) == (Some(log.seq), Some(log.ct), Some(log.h.as_str()));
    same && ret.dl.is_none_or(|dl| dl == log.dl)
}

/// The entries of each bid.
fn by_id<'h>(auction: &Auction<'h>) -> Ids<'h> {
    let mut ids = Ids::new();
    for (log, place) in auction.versions.iter().filter(|(log, _)| log.ty == "bid") {
        ids.entry((log.bidder.as_str(), log.idem.as_str()))
            .or_default()
            .push((*log, *place));
    }
    ids
}
