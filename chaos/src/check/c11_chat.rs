//! C11, chat: within a chat epoch all viewers see one order without a gap, and each sender's lines in the order said.
//!
//! Source: design 9; `rushroom-history/1`: `cseq` is a line's place within `chat_epoch`; `docs/protocol.md`: a joiner gets
//! the newest lines, then *each* new one. So within a connection and an epoch places follow each other without a gap, from
//! the first one seen. A new leader starts a new epoch; lines may be lost with the old one (chat is not money), so where an
//! epoch ends and where the next begins isn't asked. Nor is what a snapshot in mid-way jumped over: it says that the viewer
//! had fallen behind.

use super::Outcome;
use crate::{
    book::Book,
    history::{Evt, Nanos, Place},
};
use std::collections::{BTreeMap, HashMap};

/// A line's place: (auction, epoch, cseq).
type Line<'h> = (&'h str, u64, u64);

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C11", "chat keeps its order");
    let mut lines: BTreeMap<Line<'_>, (&Evt, Place)> = BTreeMap::new();
    let mut newest: HashMap<(u64, u64, &str), (Line<'_>, bool, Place)> = HashMap::new();
    for (evt, place) in &book.evts {
        if evt.ty == "snap" {
            // From here on it starts over, but never goes back.
            if let Some((_, gap, _)) = newest.get_mut(&(evt.p, evt.sub, evt.a.as_str())) {
                *gap = true;
            }
        }
        if evt.ty != "chat" {
            continue;
        }
        out.judged += 1;
        let line: Line<'_> = (&evt.a, evt.chat_epoch.unwrap_or(0), evt.cseq.unwrap_or(0));
        let (first, at) = *lines.entry(line).or_insert((*evt, *place));
        if (&first.idem, &first.bidder) != (&evt.idem, &evt.bidder) {
            out.fail(
                format!("{}: two viewers see different lines at {}.{}", evt.a, line.1, line.2),
                vec![at, *place],
            );
        }
        // Within one connection the order only rises; another epoch starts afresh.
        if let Some((before, gap, at)) = newest.insert((evt.p, evt.sub, &evt.a), (line, false, *place))
            && before.1 == line.1
            && (line.2 <= before.2 || (line.2 > before.2 + 1 && !gap))
        {
            out.fail(
                format!("{}: viewer {} sees line {} after {}", evt.a, evt.p, line.2, before.2),
                vec![at, *place],
            );
        }
    }
    fifo(book, &lines, &mut out);
    out
}

/// Per sender and epoch: the order of places is the order of saying, for lines that were not said at the same time.
fn fifo(book: &Book<'_>, lines: &BTreeMap<Line<'_>, (&Evt, Place)>, out: &mut Outcome) {
    let mut said: HashMap<(&str, &str), (Nanos, Nanos, Place)> = HashMap::new();
    for op in book.ops.iter().filter(|op| op.inv.f == "chat") {
        let Some(idem) = op.inv.idem.as_deref() else { continue };
        let done = op.ret.map_or(Nanos::MAX, |(ret, _)| ret.t);
        said.entry((&op.inv.a, idem)).or_insert((op.inv.t, done, op.inv_at));
    }
    let mut newest: HashMap<(&str, u64, &str), (Nanos, Place)> = HashMap::new();
    for ((a, epoch, _), (evt, place)) in lines {
        let (Some(idem), Some(from)) = (evt.idem.as_deref(), evt.bidder.as_deref()) else {
            continue;
        };
        let Some((called, done, _)) = said.get(&(*a, idem)) else {
            continue;
        };
        if let Some((before, at)) = newest.insert((*a, *epoch, from), (*called, *place))
            && *done < before
        {
            out.fail(
                format!("{a}: {from} said {idem} before the line above it"),
                vec![at, *place],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::Status,
        history::{History, Record},
    };

    /// What one connection sees: lines as (epoch, place), and snapshots.
    fn failed(seen: &[Option<(u64, u64)>]) -> bool {
        let evt = |(t, seen): (usize, &Option<(u64, u64)>)| {
            let ty = if seen.is_some() { "chat" } else { "snap" };
            let (chat_epoch, cseq) = (seen.map(|s| s.0), seen.map(|s| s.1));
            let (t, a, ty) = (t as Nanos, "x".into(), ty.into());
            Record::Evt(Evt {
                t,
                a,
                ty,
                chat_epoch,
                cseq,
                ..Evt::default()
            })
        };
        let records: Vec<_> = seen.iter().enumerate().map(evt).collect();
        check(&Book::of(&History::of(&records))).status() == Status::Fail
    }

    #[test]
    fn lines_follow_each_other_unless_something_says_that_they_do_not() {
        for (what, seen, fails) in [
            ("from wherever it joined", &[Some((1, 7)), Some((1, 8))][..], false),
            ("a gap", &[Some((1, 7)), Some((1, 9))], true),
            ("again", &[Some((1, 7)), Some((1, 7))], true),
            ("back", &[Some((1, 7)), Some((1, 6))], true),
            ("another leader orders it now", &[Some((1, 7)), Some((2, 1))], false),
            ("a gap after that", &[Some((1, 7)), Some((2, 1)), Some((2, 3))], true),
            ("a declared jump", &[Some((1, 7)), None, Some((1, 20))], false),
            (
                "which excuses one gap",
                &[Some((1, 7)), None, Some((1, 20)), Some((1, 22))],
                true,
            ),
            ("and no step back", &[Some((1, 7)), None, Some((1, 6))], true),
        ] {
            assert_eq!(failed(seen), fails, "{what}");
        }
    }
}
