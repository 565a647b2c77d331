//! C14, neighbours: while one auction is stormed, bids on the others in its shard are answered as ever.
//!
//! Source: G7. A figure always, of every bid beside a storm; a promise where the run's meta names a limit (`neighbour_max_ms`).
//!
//! ```text
//!   calls of a shard in the second before a bid:   a a a a a b a a a c a a a a a …
//!                                                  `- stormed: STORM of them or more
//!   that bid is on b or c, which have a FAINTER-th of those at most: it is a neighbour's, and its wait is judged
//! ```
//!
//! A storm is told by what people call, not by what the cluster makes of it: a crowd that is turned away is one as well. What a
//! fault or a hold came near to is not judged, for then everybody waits; nor is what ended unknown, which C12 is for.

use super::{Outcome, c08_close::disturbed};
use crate::{book::Book, history::Nanos};
use std::collections::{HashMap, VecDeque};

/// A storm is so many bids on one auction …
const STORM: usize = 30;
/// … within so long.
const WITHIN: Nanos = 1_000_000_000;
/// A neighbour has so many times fewer.
const FAINTER: usize = 4;

/// What a shard's people called lately.
#[derive(Default)]
struct Lately<'h> {
    calls: VecDeque<(Nanos, &'h str)>,
    counts: HashMap<&'h str, usize>,
}

impl<'h> Lately<'h> {
    fn call(&mut self, t: Nanos, a: &'h str) {
        while let Some((_, gone)) = self.calls.pop_front_if(|call| call.0 <= t - WITHIN) {
            if let Some(count) = self.counts.get_mut(gone) {
                *count -= 1;
            }
        }
        self.calls.push_back((t, a));
        *self.counts.entry(a).or_default() += 1;
    }

    /// The auction beside which a bid on `a` is a neighbour's.
    fn storm_beside(&self, a: &str) -> Option<&'h str> {
        let own = self.counts.get(a).copied().unwrap_or_default();
        let storm = |count: usize| count >= STORM.max(own * FAINTER);
        let hottest = self.counts.iter().max_by_key(|(name, count)| (**count, **name));
        hottest.filter(|(_, count)| storm(**count)).map(|(name, _)| *name)
    }
}

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C14", "a storm is its own auction's");
    let limit = book.meta().neighbour_max_ms;
    let mut bids: Vec<_> = book.ops.iter().filter(|op| op.inv.f == "bid").collect();
    bids.sort_by_key(|op| op.inv.t);
    let mut shards: HashMap<u32, Lately<'_>> = HashMap::new();
    let mut worst: f64 = 0.0;
    for op in bids {
        let Some(auction) = book.auctions.get(op.inv.a.as_str()) else {
            continue;
        };
        let lately = shards.entry(auction.shard).or_default();
        lately.call(op.inv.t, &op.inv.a);
        let (Some(hot), Some((ret, _))) = (lately.storm_beside(&op.inv.a), op.ret) else {
            continue;
        };
        if ret.st == "unk" || disturbed(book, op.inv.t - WITHIN, ret.t, auction.shard) {
            continue;
        }
        out.judged += 1;
        let waited = super::ms(ret.t - op.inv.t);
        worst = worst.max(waited);
        if let Some(limit) = limit.filter(|limit| waited > *limit as f64) {
            let (a, lines) = (&op.inv.a, op.lines());
            out.fail(
                format!("{a}: a bid waited {waited:.0} ms beside the storm on {hot}, {limit} are allowed"),
                lines,
            );
        }
    }
    out.figure("neighbour_ms_max", worst);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Whether the last bid, on `b`, is a neighbour's after these calls: (auction, how many, ms before).
    fn beside(calls: &[(&'static str, usize, i64)]) -> bool {
        let mut lately = Lately::default();
        for (a, count, before) in calls {
            (0..*count).for_each(|_| lately.call(-before * 1_000_000, a));
        }
        lately.call(0, "b");
        lately.storm_beside("b").is_some()
    }

    #[test]
    fn a_neighbour_is_fainter_than_a_storm() {
        for (what, calls, is) in [
            ("a storm", &[("a", 30, 500)][..], true),
            ("less than a storm", &[("a", 29, 500)], false),
            ("a storm that is over", &[("a", 30, 1_000), ("a", 1, 10)], false),
            ("two that are as hot", &[("a", 40, 500), ("b", 10, 400)], false),
            ("one a good deal hotter", &[("a", 40, 500), ("b", 9, 400)], true),
            ("its own", &[("b", 100, 500)], false),
            ("nobody", &[], false),
        ] {
            assert_eq!(beside(calls), is, "{what}");
        }
    }
}
