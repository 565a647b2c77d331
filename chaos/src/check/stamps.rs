//! What a stamp says of its shard's clock: what C8 and C9 take for the clock's readings, and whether the server may say so.
//!
//! A command's stamp is what the clock read when it arrived, but for one kind. In the grace of an office the clock stands
//! at `base`, and an auction whose lane was behind when the office before fell is below that: its bids are stamped from
//! its own watermark on, so that those that were in time lose nothing. Taken for readings such stamps look like a clock
//! that was behind and then jumped. A history tells them by its `behind` lines:
//!
//! ```text
//!   office before            | office taken, base 1000; a behind at 750, at version 7
//!   a: ... v7 stamped 700    | a: v8 stamped 750, v9 stamped 760        | v10 stamped 1004
//!      read: 700             |    read: 1000, 1000 (the grace)          |     read: 1004
//! ```
//!
//! So the reading is the larger of the stamp and of the newest `base` that the auction was behind, among the offices that
//! were taken before its version: exact, not a margin. A version before that was stamped by an office before, and its
//! stamp is a reading; an auction that no line names has readings only.
//!
//! What excuses is judged itself. A `base` that is wrong moves readings, and C9 sees a clock that jumps. The rest is judged
//! here: every replica tells the same of an office; a base is above what it excuses and doesn't fall from office to
//! office; what an auction was stamped with before isn't above its watermark, nor what it is stamped with after, below;
//! and somebody's command was on its way to the auction, for nothing else makes a lane fall behind.

use super::Outcome;
use crate::{
    book::{Auction, Book},
    history::{Behind, Nanos, Place},
};
use std::collections::{BTreeMap, HashMap};

/// One acknowledged bid: what its shard's clock read, and when at the earliest and the latest.
pub(super) struct Reading {
    pub(super) read: u64,
    pub(super) inv: Nanos,
    pub(super) ret: Nanos,
    pub(super) lines: Vec<Place>,
}

/// Which auctions were behind, in order of office.
pub(super) struct Stamps<'b> {
    behind: HashMap<&'b str, Vec<(&'b Behind, Place)>>,
}

impl<'b> Stamps<'b> {
    pub(super) fn of(book: &Book<'b>) -> Stamps<'b> {
        let mut behind: HashMap<&str, Vec<(&Behind, Place)>> = HashMap::new();
        for (told, place) in &book.behinds {
            behind.entry(&told.a).or_default().push((*told, *place));
        }
        Stamps { behind }
    }

    /// The newest office before version `seq` of an auction that found it behind.
    fn behind(&self, a: &str, seq: u64) -> Option<(&'b Behind, Place)> {
        let told = self.behind.get(a)?;
        told.iter().rfind(|(behind, _)| behind.seq < seq).copied()
    }

    /// What the clock read when the command of a version was stamped, and the line that says so if it isn't the stamp.
    pub(super) fn read(&self, a: &str, seq: u64, ct: u64) -> (u64, Option<Place>) {
        match self.behind(a, seq).filter(|(behind, _)| behind.base > ct) {
            Some((behind, place)) => (behind.base, Some(place)),
            None => (ct, None),
        }
    }

    /// The first good answer of each accepted bid, per shard, in order of the clock. Calls count from the first attempt: a
    /// repeat's answer carries the first verdict's stamp.
    pub(super) fn readings(&self, book: &Book) -> BTreeMap<u32, Vec<Reading>> {
        let mut shards: BTreeMap<u32, Vec<Reading>> = BTreeMap::new();
        for ((a, ..), attempts) in &book.bids {
            let Some(auction) = book.auctions.get(a) else { continue };
            let attempts: Vec<_> = attempts.iter().map(|i| &book.ops[*i]).collect();
            let answered = attempts
                .iter()
                .filter_map(|op| Some((op.ok()?, op)))
                .min_by_key(|(ret, _)| ret.t);
            let (Some((ret, op)), Some(inv)) = (answered, attempts.iter().map(|op| op.inv.t).min()) else {
                continue;
            };
            let Some(ct) = ret.ct else { continue };
            // Without a version there is no telling: then the stamp is taken for a reading.
            let (read, line) = self.read(a, ret.seq.unwrap_or(0), ct);
            shards.entry(auction.shard).or_default().push(Reading {
                read,
                inv,
                ret: ret.t,
                lines: op.lines().into_iter().chain(line).collect(),
            });
        }
        let sort = |readings: &mut Vec<Reading>| readings.sort_by_key(|r| (r.read, r.ret));
        shards.values_mut().for_each(sort);
        shards
    }
}

/// Judges what the history says of lanes that were behind.
pub(super) fn judge(book: &Book, out: &mut Outcome) {
    let mut first: BTreeMap<(u32, u64, u32, &str), (&Behind, Place)> = BTreeMap::new();
    let mut bases: BTreeMap<u32, (&Behind, Place)> = BTreeMap::new();
    for (behind, place) in &book.behinds {
        let office = format!("shard {}, office {}.{}", behind.shard, behind.term, behind.turn);
        let key = (behind.shard, behind.term, behind.turn, behind.a.as_str());
        let (other, at) = *first.entry(key).or_insert((behind, *place));
        if (other.base, other.ct, other.seq) != (behind.base, behind.ct, behind.seq) {
            out.fail(
                format!("{office}: replicas tell differently how {} was behind", behind.a),
                vec![at, *place],
            );
        }
        if let Some((before, at)) = bases.insert(behind.shard, (behind, *place))
            && before.base > behind.base
        {
            out.fail(
                format!("{office}: begins at {}, the one before at {}", behind.base, before.base),
                vec![at, *place],
            );
        }
    }
    out.figure("behind", first.len() as f64);
    let stamps = Stamps::of(book);
    let far = first.values().map(|(behind, _)| behind.base.saturating_sub(behind.ct));
    out.figure("behind_ms_max", far.max().unwrap_or(0) as f64);
    for (behind, place) in first.values() {
        let Some(auction) = book.auctions.get(behind.a.as_str()) else {
            continue;
        };
        bounds(behind, *place, auction, out);
        if !explained(book, &stamps, behind) {
            let what = format!("{} was behind, though nobody had asked anything of it", behind.a);
            out.fail(what, vec![*place]);
        }
    }
    for auction in book.auctions.values() {
        for (log, at) in auction.versions.iter().filter(|(log, _)| log.ty == "bid") {
            if let Some((behind, place)) = stamps.behind(&log.a, log.seq)
                && log.ct < behind.ct
            {
                let what = format!("{}: stamped {}, promised was {} or more", log.a, log.ct, behind.ct);
                out.fail(what, vec![place, *at]);
            }
        }
    }
}

/// A watermark lies below the base, and not below what was judged.
fn bounds(behind: &Behind, place: Place, auction: &Auction, out: &mut Outcome) {
    if behind.ct >= behind.base {
        let what = format!(
            "{} is told behind at {}, at or above {}",
            behind.a, behind.ct, behind.base
        );
        out.fail(what, vec![place]);
    }
    if let Some((log, at)) = auction.version(behind.seq)
        && log.ct > behind.ct
    {
        let what = format!(
            "{} is told behind at {}, after a stamp of {}",
            behind.a, behind.ct, log.ct
        );
        out.fail(what, vec![*at, place]);
    }
}

/// Whether somebody's command can have waited in the lane: called by then, and not judged by that version. An office that
/// fell in its grace leaves behind what it found; and a stream's node speaks for itself, of which nothing is written.
fn explained(book: &Book, stamps: &Stamps, behind: &Behind) -> bool {
    let earlier = |(other, _): &(&Behind, Place)| {
        (other.term, other.turn) < (behind.term, behind.turn) && other.base == behind.base
    };
    let inherited = stamps
        .behind
        .get(behind.a.as_str())
        .is_some_and(|told| told.iter().any(earlier));
    if inherited || book.meta().video_viewers.is_some() {
        return true;
    }
    book.ops.iter().any(|op| {
        let ours = op.inv.a == behind.a && !matches!(op.inv.f.as_str(), "read" | "chat");
        let judged = op.ret.filter(|(ret, _)| ret.st != "unk").and_then(|(ret, _)| {
            let seq = ret.seq?;
            Some(if ret.st == "ok" {
                seq <= behind.seq
            } else {
                seq < behind.seq
            })
        });
        ours && op.inv.t <= behind.t && judged != Some(true)
    })
}

#[cfg(test)]
mod tests;
