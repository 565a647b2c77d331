//! C1, well formed: the history itself can be believed.
//!
//! Source: `rushroom-history/1`, fields of meta, inv, ret, end. A process has one open operation, an answer follows its
//! call, and a process whose operation has an unknown outcome is never used again (its old call may still act). A broken
//! history is a harness bug and fails here, so that no other check has to ask.

use super::Outcome;
use crate::{
    book::{Book, Op},
    history::{History, Place, Ret},
};
use std::collections::HashMap;

pub(super) fn check(history: &History, book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C1", "well formed");
    for (place, why) in &history.broken {
        out.fail(format!("not a record: {why}"), vec![*place]);
    }
    match book.metas.as_slice() {
        [(meta, _)] if meta.format == 1 && meta.clock_policy == "stop" => {}
        [(_, place)] => out.fail("format must be 1 and clock_policy \"stop\"".into(), vec![*place]),
        [] => out.unknown("no meta line".into()),
        // Several files of one run may each carry the line; they must agree.
        many if many.iter().all(|(meta, _)| meta.run == many[0].0.run) => {}
        many => out.fail(
            "files of different runs".into(),
            many.iter().map(|(_, place)| *place).collect(),
        ),
    }
    match book.ends.as_slice() {
        [] => out.unknown("no end line: the run broke off".into()),
        ends => {
            for (_, place) in ends.iter().filter(|(end, _)| !end.healed) {
                out.fail("the cluster did not heal".into(), vec![*place]);
            }
        }
    }
    for (_, place) in &book.orphans {
        out.fail("an answer without its call, or a second one".into(), vec![*place]);
    }
    for place in &book.reused {
        out.fail("an operation's number is used twice".into(), vec![*place]);
    }
    sequential(book, &mut out);
    for op in &book.ops {
        out.judged += 1;
        if let Some((ret, place)) = op.ret
            && let Some(why) = misformed(op, ret)
        {
            out.fail(why, vec![op.inv_at, place]);
        }
    }
    out
}

/// One open operation per process; none after an unknown one.
fn sequential(book: &Book<'_>, out: &mut Outcome) {
    let mut newest: HashMap<u64, &Op<'_>> = HashMap::new();
    for op in &book.ops {
        if let Some(before) = newest.insert(op.inv.p, op) {
            let lines: Vec<Place> = before.lines().into_iter().chain([op.inv_at]).collect();
            if before.unknown() {
                out.fail(format!("process {} goes on after an unknown outcome", op.inv.p), lines);
            } else if before.ret.is_some_and(|(ret, _)| ret.t > op.inv.t) {
                out.fail(format!("process {} has two operations open", op.inv.p), lines);
            }
        }
    }
}

fn misformed(op: &Op<'_>, ret: &Ret) -> Option<String> {
    if ret.t < op.inv.t {
        return Some("the answer is older than the call".into());
    }
    match ret.st.as_str() {
        "unk" => None,
        "fail" if ret.code.is_none() => Some("a refusal without a code".into()),
        "fail" => None,
        "ok" if op.inv.f == "bid" => {
            let named = op.inv.idem.is_some() && op.inv.bidder.is_some() && op.inv.amt.is_some();
            let told = ret.seq.is_some() && ret.ct.is_some() && ret.h.is_some();
            if !named || !told {
                Some("an accepted bid lacks a field".into())
            } else if ret.hi != op.inv.amt || ret.ldr != op.inv.bidder {
                Some("an accepted bid whose answer names another amount or leader".into())
            } else {
                None
            }
        }
        "ok" => None,
        other => Some(format!("an answer of kind {other:?}")),
    }
}
