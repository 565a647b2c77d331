//! C12, availability: the longest time without a definite answer while someone waited, and (in `video`) the longest that
//! a viewer's picture stood still.
//!
//! Source: G9, G10; goals in research on reliability. A figure always; a promise where the run's meta names a limit
//! (`rto_max_ms`, `frozen_max_ms`), because what is allowed depends on the faults of the plan.

mod video;

use super::Outcome;
use crate::{
    book::Book,
    history::{Nanos, Place},
};
use std::collections::HashMap;

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C12", "nobody waits too long");
    let meta = book.meta();
    let (silent, at) = silence(book, &mut out);
    out.figure("leaderless_ms_max", super::ms(silent));
    if let Some(limit) = meta.rto_max_ms.filter(|limit| super::ms(silent) > *limit as f64) {
        out.fail(
            format!(
                "no definite answer for {:.0} ms, {limit} are allowed",
                super::ms(silent)
            ),
            at,
        );
    }
    video::check(book, &mut out);
    out
}

/// The longest span, over all auctions, in which an operation was open all the time and none was answered.
fn silence(book: &Book<'_>, out: &mut Outcome) -> (Nanos, Vec<Place>) {
    let mut points: HashMap<&str, Vec<(Nanos, bool, bool, Place)>> = HashMap::new();
    for op in &book.ops {
        let list = points.entry(&op.inv.a).or_default();
        list.push((op.inv.t, true, false, op.inv_at));
        if let Some((ret, place)) = op.ret {
            list.push((ret.t, false, ret.st != "unk", place));
        }
    }
    let mut worst = (0, Vec::new());
    for points in points.values_mut() {
        out.judged += points.len() as u64;
        points.sort_unstable_by_key(|(t, call, ..)| (*t, *call));
        let mut open = 0i64;
        let mut since: Option<(Nanos, Place)> = None;
        for (t, call, definite, place) in points.iter() {
            open += if *call { 1 } else { -1 };
            match since {
                None if *call => since = Some((*t, *place)),
                Some((from, at)) if *definite => {
                    if *t - from > worst.0 {
                        worst = (*t - from, vec![at, *place]);
                    }
                    since = (open > 0).then_some((*t, *place));
                }
                // The last waiter gave up: nobody waits any more.
                Some(_) if open == 0 => since = None,
                _ => {}
            }
        }
    }
    worst
}
