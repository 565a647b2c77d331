//! C5, once: an id acts at most once, and all that is told of it agrees: one verdict, as long as it is remembered.
//!
//! Source: G6, and 0028 for ids that are forgotten. An id belongs to its bidder and auction. The same id with another body is
//! refused (`dup_body`), so every `ok` under an id names the amount that the log has.
//!
//! ```text
//!   accepted                      the same for ever: any refusal of it is a breach, however late
//!   refused, recorded at stamp r  until r + refusals_ms: the same again, as a repeat
//!   sent first at s               judged at s + refusals_ms less the doubt, or later: `expired`, or what stays true for ever
//! ```
//!
//! What stays true for ever (`low`, `closed`, `taken`, `expired`) may be said without the log and leaves no record: another such
//! reason may come later, an acceptance never. Stamps are the server's, so they are exact here: no margin is needed.
//!
//! Deliberately absent: `rate`, `busy`, `dup_body` (it is said of another command) and what edges refuse by themselves: no
//! verdicts; chat (C11).

use super::Outcome;
use crate::{
    book::{Book, Op},
    history::{Meta, Place, Ret},
};
use std::collections::{BTreeMap, HashMap};

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
    let mut named: BTreeMap<_, Vec<&Op<'_>>> = BTreeMap::new();
    let commands = book
        .ops
        .iter()
        .filter(|op| !matches!(op.inv.f.as_str(), "read" | "chat"));
    for op in commands.filter(|op| op.inv.idem.is_some()) {
        named.entry(op.key()).or_default().push(op);
    }
    let meta = book.meta();
    let (mut repeats, mut expired) = (0, 0);
    for attempts in named.values() {
        let told: Vec<Told<'_, '_>> = attempts.iter().filter_map(|op| Told::of(op)).collect();
        one(&told, &meta, &mut out);
        repeats += told.iter().filter(|told| told.ret.dup).count();
        expired += told.iter().filter(|told| told.code() == "expired").count();
    }
    out.figure("repeats", repeats as f64);
    out.figure("expired", expired as f64);
    out
}

/// A verdict, and what asked for it.
struct Told<'b, 'h> {
    op: &'b Op<'h>,
    ret: &'h Ret,
}

impl<'b, 'h> Told<'b, 'h> {
    fn of(op: &'b Op<'h>) -> Option<Told<'b, 'h>> {
        let (ret, _) = op.ret.filter(|(ret, _)| ret.st != "unk")?;
        let told = Told { op, ret };
        (!matches!(told.code(), "auth" | "rate" | "busy" | "dup_body" | "not_found")).then_some(told)
    }

    fn ok(&self) -> bool {
        self.ret.st == "ok"
    }

    fn code(&self) -> &'h str {
        self.ret.code.as_deref().unwrap_or("")
    }

    /// Said by the log, and remembered.
    fn recorded(&self) -> bool {
        self.ok() || self.ret.dup || !matches!(self.code(), "low" | "closed" | "taken" | "expired")
    }

    /// What it comes to.
    fn verdict(&self) -> (bool, &'h str, Option<u64>, Option<u64>) {
        (self.ok(), self.code(), self.ret.seq, self.op.inv.amt)
    }
}

fn lines(of: &[&Told<'_, '_>]) -> Vec<Place> {
    of.iter().flat_map(|told| told.op.lines()).collect()
}

/// All that was told of one id.
fn one(told: &[Told<'_, '_>], meta: &Meta, out: &mut Outcome) {
    let name = |told: &Told<'_, '_>| {
        let (a, _, idem) = told.op.key();
        format!("{a}: the id {idem}")
    };
    let first_ok = told.iter().find(|told| told.ok());
    let mut recorded: Option<&Told<'_, '_>> = None;
    for told in told {
        out.judged += 1;
        if let Some(ok) = first_ok.filter(|_| !told.ok()) {
            let what = format!("{} was accepted, and refused as {}", name(told), told.code());
            out.fail(what, lines(&[ok, told]));
        } else if told.recorded() {
            match recorded {
                Some(before) if before.verdict() != told.verdict() && remembered(before, told, meta) => {
                    out.fail(format!("{} has two verdicts", name(told)), lines(&[before, told]));
                }
                Some(_) => {}
                None => recorded = Some(told),
            }
        }
        if let Some(why) = age(told, meta) {
            out.fail(format!("{} {why}", name(told)), lines(&[told]));
        }
    }
}

/// Whether the one had to be remembered when the other was judged. Accepted: for ever.
fn remembered(before: &Told<'_, '_>, told: &Told<'_, '_>, meta: &Meta) -> bool {
    if before.ok() && told.ok() {
        return true;
    }
    match (meta.refusals_ms, before.ret.ct, told.ret.ct) {
        (Some(ms), Some(one), Some(other)) => one.abs_diff(other) < ms,
        _ => false,
    }
}

/// What is wrong with a verdict by the age of its id. A repeat tells what was judged long ago.
fn age(told: &Told<'_, '_>, meta: &Meta) -> Option<String> {
    let (ms, sent, ct) = (meta.refusals_ms?, told.op.inv.sent?, told.ret.ct?);
    let over = sent + ms - (ms / 4).min(1_000);
    if told.code() == "expired" {
        return (ct < over).then(|| format!("was called too old at {ct}, {} ms too early", over - ct));
    }
    let judged = told.recorded() && !told.ret.dup;
    (judged && ct >= over).then(|| format!("was judged at {ct}, {} ms after it was too old", ct - over))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{History, Inv, Record};

    const NEW: bool = false;
    const REPEAT: bool = true;

    /// What is found of an id that was first sent at stamp 1,000 and is told these verdicts, one after the other: the code ("":
    /// accepted), the version, the stamp, and whether it is told as a repeat. Refusals are remembered for 4 s.
    #[track_caller]
    fn check(told: &[(&str, u64, u64, bool)], want: Option<&str>) {
        let mut records = vec![Record::Meta(Meta {
            refusals_ms: Some(4_000),
            ..Meta::default()
        })];
        for (op, (code, seq, ct, dup)) in (1..).zip(told) {
            records.push(Record::Inv(Inv {
                t: op * 10,
                p: op as u64,
                op: op as u64,
                f: "bid".into(),
                a: "x".into(),
                idem: Some("one".into()),
                amt: Some(5),
                sent: Some(1_000),
                ..Inv::default()
            }));
            records.push(Record::Ret(Ret {
                t: op * 10 + 5,
                p: op as u64,
                op: op as u64,
                st: if code.is_empty() { "ok" } else { "fail" }.into(),
                seq: Some(*seq),
                ct: Some(*ct),
                dup: *dup,
                code: Some((*code).to_owned()).filter(|code| !code.is_empty()),
                ..Ret::default()
            }));
        }
        let history = History::of(&records);
        let found = super::check(&Book::of(&history)).findings;
        let found = found.first().map(|finding| finding.what.as_str());
        assert_eq!(
            found.is_some_and(|found| want.is_some_and(|want| found.contains(want))),
            want.is_some(),
            "{told:?}: {found:?}"
        );
        assert_eq!(found.is_some(), want.is_some(), "{told:?}: {found:?}");
    }

    #[test]
    fn accepted_is_accepted_for_ever() {
        check(&[("", 3, 1_100, NEW), ("", 3, 1_100, REPEAT)], None);
        check(&[("", 3, 1_100, NEW), ("", 4, 1_200, NEW)], Some("two verdicts"));
        check(
            &[("", 3, 1_100, NEW), ("closed", 9, 60_000, NEW)],
            Some("accepted, and refused as closed"),
        );
        check(
            &[("", 3, 1_100, NEW), ("expired", 9, 60_000, NEW)],
            Some("refused as expired"),
        );
        check(
            &[("paused", 3, 1_100, NEW), ("", 4, 9_000, NEW)],
            Some("accepted, and refused as paused"),
        );
        // No verdicts.
        check(&[("", 3, 1_100, NEW), ("dup_body", 3, 1_100, NEW)], None);
        check(
            &[("busy", 3, 1_100, NEW), ("rate", 3, 1_100, NEW), ("", 4, 1_200, NEW)],
            None,
        );
    }

    #[test]
    fn refused_is_told_again_as_long_as_it_is_remembered() {
        check(&[("paused", 3, 1_100, NEW), ("paused", 3, 1_100, REPEAT)], None);
        check(
            &[("paused", 3, 1_100, NEW), ("paused", 4, 1_100, REPEAT)],
            Some("two verdicts"),
        );
        check(
            &[("paused", 3, 1_100, NEW), ("leading", 4, 2_000, NEW)],
            Some("two verdicts"),
        );
        // What stays true for ever may be said instead of it, and instead of each other.
        check(
            &[
                ("paused", 3, 1_100, NEW),
                ("low", 4, 1_200, NEW),
                ("closed", 9, 1_300, NEW),
            ],
            None,
        );
        check(
            &[
                ("low", 3, 1_100, NEW),
                ("paused", 4, 1_200, NEW),
                ("paused", 4, 1_200, REPEAT),
            ],
            None,
        );
    }

    #[test]
    fn what_may_be_forgotten_is_too_old() {
        // 1,000 + 4,000, less a quarter of 4 s.
        check(&[("expired", 3, 4_000, NEW), ("expired", 4, 90_000, NEW)], None);
        check(&[("expired", 3, 3_999, NEW)], Some("1 ms too early"));
        check(&[("", 3, 3_999, NEW)], None);
        check(&[("", 3, 4_000, NEW)], Some("0 ms after it was too old"));
        check(&[("paused", 3, 4_000, NEW)], Some("after it was too old"));
        check(&[("low", 3, 90_000, NEW), ("closed", 9, 90_000, NEW)], None);
        check(
            &[
                ("paused", 3, 3_900, NEW),
                ("paused", 3, 3_900, REPEAT),
                ("expired", 4, 7_900, NEW),
            ],
            None,
        );
        check(
            &[("paused", 3, 3_900, NEW), ("leading", 4, 7_900, NEW)],
            Some("after it was too old"),
        );
    }
}
