//! C10, streams: a viewer gets every event of an auction, once, in order, across reconnects; each is the log's.
//!
//! Source: G8. A connection starts with a snapshot or goes on right after the version that the viewer asked to resume
//! from. On a resume a snapshot may jump only over more
//! events than the declared window keeps. Whoever is connected when
//! the run ends has the log's last event.

use super::Outcome;
use crate::{
    book::Book,
    history::{Evt, Nanos, Place, Sub},
};
use std::collections::HashMap;

/// Where one viewer of one auction is.
#[derive(Default)]
struct Viewer {
    /// The newest version seen, over all its connections.
    seen: u64,
    /// The open connection: (its number, where it asked to resume, whether anything came yet, its line).
    open: Option<(u64, u64, bool, Place)>,
    /// Line of the newest event.
    line: Option<Place>,
}

enum Step<'h> {
    Sub(&'h Sub),
    Evt(&'h Evt),
}

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C10", "viewers' streams have no gap");
    let window = book.meta().window;
    let subs = book.subs.iter().map(|(sub, place)| (sub.t, *place, Step::Sub(sub)));
    let evts = book
        .evts
        .iter()
        .filter(|(evt, _)| evt.ty != "chat")
        .map(|(evt, place)| (evt.t, *place, Step::Evt(evt)));
    let mut steps: Vec<(Nanos, Place, Step<'_>)> = subs.chain(evts).collect();
    steps.sort_by_key(|(t, place, _)| (*t, *place));
    let mut viewers: HashMap<(u64, &str), Viewer> = HashMap::new();
    for (_, place, step) in &steps {
        match step {
            Step::Sub(sub) => turn(viewers.entry((sub.p, &sub.a)).or_default(), sub, *place, &mut out),
            Step::Evt(evt) => {
                out.judged += 1;
                take(
                    book,
                    viewers.entry((evt.p, &evt.a)).or_default(),
                    evt,
                    *place,
                    window,
                    &mut out,
                );
            }
        }
    }
    for ((p, a), viewer) in &viewers {
        let last = book.auctions.get(a).map_or(0, |auction| auction.versions.len() as u64);
        if let Some((.., at)) = viewer.open.filter(|_| viewer.seen < last) {
            let lines = [Some(at), viewer.line].into_iter().flatten().collect();
            out.fail(format!("{a}: viewer {p} ends at {} of {last}", viewer.seen), lines);
        }
    }
    out
}

fn turn(viewer: &mut Viewer, sub: &Sub, place: Place, out: &mut Outcome) {
    if sub.ev == "close" {
        viewer.open = None;
        return;
    }
    if sub.from != viewer.seen && sub.from != 0 {
        let lines = viewer.line.into_iter().chain([place]).collect();
        out.fail(
            format!(
                "{}: viewer {} resumes from {}, not from {}",
                sub.a, sub.p, sub.from, viewer.seen
            ),
            lines,
        );
    }
    viewer.open = Some((sub.sub, sub.from, false, place));
}

fn take(book: &Book<'_>, viewer: &mut Viewer, evt: &Evt, place: Place, window: u64, out: &mut Outcome) {
    let Evt { a, p, seq, .. } = evt;
    let lines = |line: Option<Place>| line.into_iter().chain([place]).collect::<Vec<_>>();
    let Some((sub, from, started, opened)) = viewer.open else {
        return out.fail(format!("{a}: viewer {p} got {seq} on no connection"), vec![place]);
    };
    if sub != evt.sub {
        return out.fail(
            format!("{a}: viewer {p} got {seq} on an old connection"),
            vec![opened, place],
        );
    }
    let auction = book.auctions.get(a.as_str());
    if evt.ty == "snap" {
        // A first join may start anywhere; a resume may be told to jump only beyond the window.
        let jump = seq.abs_diff(viewer.seen);
        if from > 0 && jump > 0 && jump <= window {
            out.fail(
                format!("{a}: viewer {p} is told to jump to {seq} from {}", viewer.seen),
                vec![opened, place],
            );
        }
        if started && *seq < viewer.seen {
            out.fail(
                format!("{a}: viewer {p} goes back to {seq} from {}", viewer.seen),
                lines(viewer.line),
            );
        }
    } else if *seq != viewer.seen + 1 {
        let what = if *seq <= viewer.seen { "again" } else { "too early" };
        out.fail(
            format!("{a}: viewer {p} gets {seq} {what}, after {}", viewer.seen),
            lines(viewer.line),
        );
    }
    (viewer.open, viewer.seen, viewer.line) = (Some((sub, from, true, opened)), *seq, Some(place));
    same(auction, evt, place, out);
}

/// The event is the log's.
fn same(auction: Option<&crate::book::Auction<'_>>, evt: &Evt, place: Place, out: &mut Outcome) {
    let Some(auction) = auction.filter(|_| evt.seq > 0) else {
        return;
    };
    match auction.version(evt.seq) {
        None => out.fail(
            format!("{}: a viewer got {}, which no log has", evt.a, evt.seq),
            vec![place],
        ),
        Some((log, at)) => {
            let other = evt.h != log.h
                || evt.ct.is_some_and(|ct| ct != log.ct)
                || evt.dl.is_some_and(|dl| dl != log.dl)
                || (evt.ty != "snap" && evt.ty != log.ty);
            if other {
                out.fail(
                    format!("{}: a viewer got another {} than the log has", evt.a, evt.seq),
                    vec![*at, place],
                );
            }
        }
    }
}
