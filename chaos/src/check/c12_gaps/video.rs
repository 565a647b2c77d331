//! C12's pictures: how long a viewer's picture stood still, and how long a seller was off the air.
//!
//! Source: G10: "An SFU or relay that dies is routed around, and viewers see pictures again within 2 s." A viewer's picture
//! stands from one frame with a *new* number to the next (an older one, replayed to a newcomer, is no news), and from its
//! last to the end of the show. What counts of that:
//!
//! ```text
//!   a node on the way dies, another is up       the whole of it
//!   the seller's own node dies or is frozen     what was before that, and what came after the seller was taken in again
//!                                                 (nobody can show what nobody sends), or after that node was back
//!   all nodes die                               what was before that, and what came after the last was back
//! ```
//!
//! The seller's way back has its own limit: from the death of its node (where all died, from the return of the last) to the
//! answer of the node that takes it in. Where the seller is, its operations say: `f` = admin, `arg` = publish or unpublish.

use super::super::{Outcome, ms};
use crate::{
    book::{Book, Fault},
    history::{Nanos, Place},
};
use std::collections::{BTreeMap, BTreeSet};

/// One stretch without a new picture.
struct Freeze {
    from: Nanos,
    to: Nanos,
    lines: Vec<Place>,
}

pub(super) fn check(book: &Book<'_>, out: &mut Outcome) {
    let meta = book.meta();
    let viewers: BTreeSet<_> = book.meds.iter().map(|(med, _)| med.p).collect();
    out.judged += book.meds.len() as u64;
    if let Some(n) = meta.video_viewers.filter(|n| viewers.len() as u64 != *n) {
        let seen = viewers.len();
        out.fail(format!("{n} viewers of video watched, {seen} saw a picture"), vec![]);
    }
    if viewers.is_empty() {
        return;
    }
    let shows = shows(book);
    let (mut raw, mut counted): (f64, f64) = (0.0, 0.0);
    for (a, freeze) in freezes(book, &shows) {
        let stood = freeze.to - freeze.from;
        let counts = shows.get(a).map_or(stood, |show| show.counts(book, &freeze));
        (raw, counted) = (raw.max(ms(stood)), counted.max(ms(counts)));
        if let Some(limit) = meta.frozen_max_ms.filter(|limit| ms(counts) > *limit as f64) {
            let what = format!(
                "{a}: a picture stood for {:.0} ms, {:.0} of them count",
                ms(stood),
                ms(counts)
            );
            out.fail(format!("{what}, {limit} are allowed"), freeze.lines);
        }
    }
    let mut off_air: f64 = 0.0;
    for (a, show) in &shows {
        off_air = off_air.max(show.off_air(book, a, meta.republish_max_ms, out));
    }
    out.figure("video_viewers", viewers.len() as f64);
    out.figure("frozen_ms_max", raw);
    out.figure("frozen_counted_ms_max", counted);
    out.figure("republish_ms_max", off_air);
}

/// Stretches of all viewers.
fn freezes<'h>(book: &Book<'h>, shows: &BTreeMap<&'h str, Show>) -> Vec<(&'h str, Freeze)> {
    let mut meds = book.meds.clone();
    meds.sort_by_key(|(med, place)| (med.t, *place));
    let mut newest: BTreeMap<(u64, &str), (u64, Nanos, Place)> = BTreeMap::new();
    let mut all = Vec::new();
    for (med, place) in meds {
        let before = newest.entry((med.p, &med.a)).or_insert((med.n, med.t, place));
        if med.n > before.0 {
            let (from, to, lines) = (before.1, med.t, vec![before.2, place]);
            all.push((med.a.as_str(), Freeze { from, to, lines }));
            *before = (med.n, med.t, place);
        }
    }
    // A picture that never comes back stands until the show is over.
    for ((_, a), (_, from, place)) in newest {
        let to = shows.get(a).map_or(from, |show| show.until);
        if to > from {
            let lines = vec![place];
            all.push((a, Freeze { from, to, lines }));
        }
    }
    all
}

/// One auction's video, as its seller told of it.
struct Show {
    /// Each time that a node took the seller in: (moment, node, line).
    taken: Vec<(Nanos, u64, Place)>,
    /// The seller stopped, or the history did.
    until: Nanos,
}

fn shows<'h>(book: &Book<'h>) -> BTreeMap<&'h str, Show> {
    let mut shows: BTreeMap<&str, Show> = BTreeMap::new();
    for op in book.ops.iter().filter(|op| op.inv.f == "admin") {
        let show = || Show {
            taken: Vec::new(),
            until: book.last,
        };
        match (op.inv.arg.as_deref(), op.ret) {
            (Some("publish"), Some((ret, place))) if ret.st == "ok" => {
                let show = shows.entry(&op.inv.a).or_insert_with(show);
                show.taken.push((ret.t, op.inv.node.unwrap_or(0), place));
            }
            (Some("unpublish"), _) => shows.entry(&op.inv.a).or_insert_with(show).until = op.inv.t,
            _ => {}
        }
    }
    shows.values_mut().for_each(|show| show.taken.sort_unstable());
    shows
}

impl Show {
    /// The node that had the seller at a moment.
    fn origin(&self, t: Nanos) -> Option<u64> {
        let n = self.taken.partition_point(|(taken, ..)| *taken <= t);
        n.checked_sub(1).map(|i| self.taken[i].1)
    }

    /// When the seller was taken in again after a fault began.
    fn again(&self, fault: &Fault<'_>) -> Option<&(Nanos, u64, Place)> {
        self.taken.get(self.taken.partition_point(|(t, ..)| *t <= fault.from))
    }

    /// Whether a fault took the seller's node.
    fn takes_origin(&self, fault: &Fault<'_>) -> bool {
        self.origin(fault.from)
            .is_some_and(|node| fault.nem.tgt.contains(&node))
    }

    /// How much of a freeze counts: all but what a fault left nothing to show in.
    fn counts(&self, book: &Book<'_>, freeze: &Freeze) -> Nanos {
        let mut counts = 0;
        let mut at = freeze.from;
        // Faults are sorted by start.
        for fault in book.faults.iter().filter(|f| f.from < freeze.to && freeze.from < f.to) {
            if !self.takes_origin(fault) && !all(book, fault) {
                continue;
            }
            let again = self.again(fault).map(|(t, ..)| *t);
            let back = if all(book, fault) {
                fault.to.max(again.unwrap_or(fault.to))
            } else {
                again.map_or(fault.to, |again| again.min(fault.to))
            };
            counts += (fault.from - at).max(0);
            at = at.max(back);
        }
        counts + (freeze.to - at).max(0)
    }

    /// The longest that the seller was off the air because its node died.
    fn off_air(&self, book: &Book<'_>, a: &str, limit: Option<u64>, out: &mut Outcome) -> f64 {
        let mut worst: f64 = 0.0;
        let dead = |fault: &&Fault<'_>| fault.nem.f.starts_with("kill") && self.takes_origin(fault);
        for fault in book.faults.iter().filter(dead) {
            let from = if all(book, fault) { fault.to } else { fault.from };
            let again = self.again(fault);
            let off = ms((again.map_or(self.until, |(t, ..)| *t) - from).max(0));
            worst = worst.max(off);
            if limit.is_some_and(|limit| off > limit as f64) {
                out.fail(
                    format!("{a}: the seller was off the air for {off:.0} ms after its node died"),
                    again.map(|(.., place)| *place).into_iter().collect(),
                );
            }
        }
        worst
    }
}

/// Whether a fault took every node.
fn all(book: &Book<'_>, fault: &Fault<'_>) -> bool {
    book.meta().nodes.iter().all(|node| fault.nem.tgt.contains(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::Status,
        history::{History, Inv, Med, Meta, Nem, Record, Ret},
    };

    const MS: Nanos = 1_000_000;

    /// A show of 20 s with a picture each 50 ms, but none in `frozen`; node 1 takes the seller in at 0, and others do later.
    /// Moments in ms. What the check says with 2 s allowed to viewers and 3 s to the seller.
    fn judged(frozen: (i64, i64), fault: Option<(&str, &[u64], i64, i64)>, again: &[(i64, u64)]) -> Status {
        let meta = Meta {
            nodes: vec![1, 2, 3],
            frozen_max_ms: Some(2_000),
            republish_max_ms: Some(3_000),
            video_viewers: Some(1),
            ..Meta::default()
        };
        let mut records = vec![Record::Meta(meta)];
        let op = |op, t, arg: &str, node| {
            let inv = Inv {
                t: t * MS,
                p: 5,
                op,
                f: "admin".into(),
                a: "x".into(),
                arg: Some(arg.into()),
                node,
                ..Inv::default()
            };
            let ret = Ret {
                t: t * MS,
                p: 5,
                op,
                st: "ok".into(),
                ..Ret::default()
            };
            [Record::Inv(inv), Record::Ret(ret)]
        };
        let takes = std::iter::once(&(0, 1)).chain(again).enumerate();
        takes.for_each(|(n, (t, node))| records.extend(op(n as u64, *t, "publish", Some(*node))));
        records.extend(op(90, 20_000, "unpublish", None));
        if let Some((f, tgt, from, to)) = fault {
            for (ev, t) in [("start", from), ("stop", to)] {
                records.push(Record::Nem(Nem {
                    t: t * MS,
                    id: 1,
                    ev: ev.into(),
                    f: f.into(),
                    tgt: tgt.into(),
                    eff: "installed".into(),
                    ..Nem::default()
                }));
            }
        }
        let shown = (0..400u64).filter(|n| !(frozen.0..frozen.1).contains(&(*n as i64 * 50)));
        records.extend(shown.map(|n| {
            let (t, a) = (n as Nanos * 50 * MS, "x".into());
            Record::Med(Med {
                t,
                p: 9,
                a,
                n,
                ..Med::default()
            })
        }));
        let mut out = Outcome::new("C12", "test");
        check(&Book::of(&History::of(&records)), &mut out);
        out.status()
    }

    #[test]
    #[rustfmt::skip]
    fn what_counts_of_a_picture_that_stands() {
        use Status::{Fail, Pass};
        let (relay, origin, all): (&[u64], &[u64], &[u64]) = (&[3], &[1], &[1, 2, 3]);
        let kill = |tgt| Some(("kill-relay", tgt, 5_000, 9_000));
        for (what, frozen, fault, again, status) in [
            ("nothing stands", (0, 0), None, &[][..], Pass),
            ("2 s without a fault", (5_000, 6_950), None, &[], Pass),
            ("more than 2 s without a fault", (5_000, 7_000), None, &[], Fail),
            ("a relay dies: 2 s", (5_000, 6_950), kill(relay), &[], Pass),
            ("a relay dies: more", (5_000, 7_000), kill(relay), &[], Fail),
            ("the origin dies: 2 s from the seller's return", (5_000, 9_600), kill(origin), &[(7_700, 2)], Pass),
            ("the origin dies: more", (5_000, 9_700), kill(origin), &[(7_600, 2)], Fail),
            ("the origin dies: what stood before counts", (3_900, 8_600), kill(origin), &[(7_600, 2)], Fail),
            ("the origin dies: the seller takes too long", (5_000, 8_200), kill(origin), &[(8_100, 2)], Fail),
            ("the origin dies: the seller stays away", (5_000, 20_000), kill(origin), &[], Fail),
            ("the origin is frozen", (5_000, 7_500), Some(("pause-leader", origin, 5_000, 6_200)), &[], Pass),
            ("the origin is frozen: more", (5_000, 8_300), Some(("pause-leader", origin, 5_000, 6_200)), &[], Fail),
            ("all die: from the return of the last", (5_000, 12_000), kill(all), &[(10_500, 2)], Pass),
            ("all die: the seller takes too long", (5_000, 12_500), kill(all), &[(12_100, 2)], Fail),
            ("a picture never comes back", (15_000, 20_000), None, &[], Fail),
            ("nobody ever sees one", (0, 20_000), None, &[], Fail),
        ] {
            assert_eq!(judged(frozen, fault, again), status, "{what}");
        }
    }
}
