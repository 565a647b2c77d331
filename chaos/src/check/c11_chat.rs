//! C11, chat: within a chat epoch all viewers see one order, and each sender's lines in the order said.
//!
//! Source: design 9; `rushroom-history/1`: `cseq` is a line's place within `chat_epoch`. A new leader starts a new epoch;
//! lines may be lost with the old one (chat is not money), so completeness is not asked here, order is.

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
    let mut newest: HashMap<(u64, u64, &str), (Line<'_>, Place)> = HashMap::new();
    for (evt, place) in book.evts.iter().filter(|(evt, _)| evt.ty == "chat") {
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
        if let Some((before, at)) = newest.insert((evt.p, evt.sub, &evt.a), (line, *place))
            && before.1 == line.1
            && before.2 >= line.2
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
