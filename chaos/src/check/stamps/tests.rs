//! A leader falls while the lane of `x` is 208 ms behind; the next office begins at 1000. What C8 and C9 make of it, and of
//! clocks that did jump by as much.
//!
//! ```text
//!   harness  4600      4990 5000 ......... 5400 ......... 5550   5551            7550
//!   clock     600       990 1000 --------- fault, grace - 1000   1001            3000: `z` closes
//!                            x behind at 792, at version 2
//! ```

use super::super::{Status, c08_close, c09_clock};
use crate::{
    book::Book,
    history::{Behind, Evt, History, Inv, Log, Meta, Nanos, Nem, Record, Ret, Sub},
};

const MS: Nanos = 1_000_000;
const BASE: u64 = 1_000;
const BEHIND: u64 = 792;
const Z_CLOSES: u64 = 3_000;

/// A bid: in which auction, the version that it made, its stamp; called and answered (harness, ms).
type Bid = (&'static str, u64, u64, i64, i64);

/// `x` and `y` bid on before the fall; nobody was answered in between.
const BEFORE: [Bid; 3] = [
    ("y", 2, 600, 4_598, 4_603),
    ("x", 2, 700, 4_699, 4_704),
    ("y", 3, 990, 4_989, 4_995),
];
/// In the grace, of the lane that was behind; and just after it, of another.
const IN_GRACE: Bid = ("x", 3, BEHIND, 5_540, 5_548);
const AFTER: Bid = ("y", 4, 1_002, 5_551, 5_556);

struct Story {
    bids: Vec<Bid>,
    behind: Vec<Behind>,
    /// Somebody's bid on `x` was on its way when the leader fell.
    waited: bool,
    /// When the close of `z` was seen.
    seen: i64,
    /// When the viewer of the close had opened its stream, ms.
    watched: Option<i64>,
}

fn told() -> Behind {
    Behind {
        t: 5_401 * MS,
        node: 1,
        term: 2,
        base: BASE,
        a: "x".into(),
        ct: BEHIND,
        seq: 2,
        ..Behind::default()
    }
}

impl Story {
    fn of(more: &[Bid], behind: Vec<Behind>) -> Story {
        Story {
            bids: BEFORE.iter().chain(more).copied().collect(),
            behind,
            waited: true,
            seen: 7_555,
            watched: None,
        }
    }

    fn tell(&self) -> Vec<Record> {
        let mut records = vec![Record::Meta(Meta {
            eps_ms: 350,
            ..Meta::default()
        })];
        for a in ["x", "y", "z"] {
            records.push(log(a, 1, "open", 100, "", Z_CLOSES));
        }
        records.push(log("z", 2, "close", Z_CLOSES, "", Z_CLOSES));
        for (n, bid) in self.bids.iter().enumerate() {
            records.extend(told_of(n as u64 + 10, *bid));
        }
        if self.waited {
            records.push(call(1, "x", 4_792));
        }
        for (ev, t) in [("start", 5_000), ("stop", 5_400)] {
            records.push(Record::Nem(Nem {
                t: t * MS,
                ev: ev.into(),
                ..Nem::default()
            }));
        }
        records.extend(self.behind.iter().cloned().map(Record::Behind));
        if let Some(t) = self.watched {
            records.push(Record::Sub(Sub {
                t: t * MS,
                sub: 7,
                a: "z".into(),
                ev: "open".into(),
                ..Sub::default()
            }));
        }
        records.push(Record::Evt(Evt {
            t: self.seen * MS,
            sub: 7,
            a: "z".into(),
            seq: 2,
            ty: "close".into(),
            ..Evt::default()
        }));
        records
    }

    /// Whether C8 and C9 fail.
    fn fails(&self) -> (bool, bool) {
        let history = History::of(&self.tell());
        let book = Book::of(&history);
        let failed = |outcome: super::Outcome| outcome.status() == Status::Fail;
        (failed(c08_close::check(&book)), failed(c09_clock::check(&book)))
    }
}

fn log(a: &str, seq: u64, ty: &str, ct: u64, idem: &str, dl: u64) -> Record {
    Record::Log(Log {
        node: 1,
        a: a.into(),
        seq,
        ty: ty.into(),
        idem: idem.into(),
        bidder: if idem.is_empty() { "" } else { "ann" }.into(),
        amt: (ty == "close").then_some(0),
        ct,
        dl,
        ..Log::default()
    })
}

fn call(op: u64, a: &str, t: i64) -> Record {
    Record::Inv(Inv {
        t: t * MS,
        p: op,
        op,
        f: "bid".into(),
        a: a.into(),
        idem: Some(format!("i{op}")),
        bidder: Some("ann".into()),
        ..Inv::default()
    })
}

fn told_of(op: u64, (a, seq, ct, inv, ret): Bid) -> [Record; 3] {
    let ret = Record::Ret(Ret {
        t: ret * MS,
        p: op,
        op,
        st: "ok".into(),
        seq: Some(seq),
        ct: Some(ct),
        ..Ret::default()
    });
    [call(op, a, inv), ret, log(a, seq, "bid", ct, &format!("i{op}"), 9_000)]
}

fn check(what: &str, story: &Story, c8: bool, c9: bool) {
    assert_eq!(story.fails(), (c8, c9), "{what}: whether C8 and C9 fail");
}

#[test]
fn a_lane_that_was_behind_is_no_clock_that_jumped() {
    check("no lane behind", &Story::of(&[AFTER], vec![]), false, false);
    let honest = Story::of(&[IN_GRACE, AFTER], vec![told()]);
    check("a lane behind, told", &honest, false, false);
    // It is the line that tells: without it, or about another auction, the stamp stands for a reading.
    check("untold", &Story::of(&[IN_GRACE, AFTER], vec![]), true, true);
    let another = Behind {
        a: "y".into(),
        seq: 4,
        ..told()
    };
    check(
        "told of another",
        &Story::of(&[IN_GRACE, AFTER], vec![another]),
        true,
        true,
    );
    // What the office before stamped is a reading, however far below the base: had the clock stood at the base by then, it
    // would have fallen afterwards.
    let late = Behind { seq: 3, ..told() };
    check("judged before", &Story::of(&[IN_GRACE, AFTER], vec![late]), true, true);
}

#[test]
fn a_clock_that_jumps_by_as_much_is_seen_beside_a_lane_behind() {
    // The clock goes on from 1208 where it should from 1000: the bid after the grace says so, and so does the close of `z`.
    let mut jump = Story::of(&[IN_GRACE, ("y", 4, 1_210, 5_551, 5_556)], vec![told()]);
    jump.seen = 7_347;
    check("the clock jumped", &jump, true, true);
    // The lane's own stamps, after the grace: readings like any other.
    let own = Story::of(&[IN_GRACE, ("x", 4, 1_210, 5_551, 5_556), AFTER], vec![told()]);
    check("in its own lane", &own, false, true);
    // 20 ms are let go, as without a lane that is behind: not one more.
    let by = |ms| Story::of(&[IN_GRACE, ("y", 4, BASE + 16 + ms, 5_551, 5_556)], vec![told()]);
    check("20 ms for certain", &by(20), false, false);
    check("21 ms for certain", &by(21), false, true);
    // The lane goes on being stamped as in the grace, when the clock runs: somebody is given time.
    let given = Story::of(&[("x", 3, BEHIND, 5_700, 5_705), AFTER], vec![told()]);
    check("stamped as behind after the grace", &given, true, true);
}

#[test]
fn what_excuses_is_judged_itself() {
    let with = |behind: Vec<Behind>| Story::of(&[IN_GRACE, AFTER], behind);
    let base = |base| with(vec![Behind { base, ..told() }]);
    check(
        "a base too high: the clock would have jumped",
        &base(BASE + 208),
        false,
        true,
    );
    check("a base too low", &base(BEHIND + 1), true, true);
    check("a base at the watermark", &base(BEHIND), true, true);
    let other = |other: Behind| with(vec![told(), Behind { node: 2, ..other }]);
    check("two replicas tell the same", &other(told()), false, false);
    for (what, lie) in [
        (
            "another base",
            Behind {
                base: BASE + 1,
                ..told()
            },
        ),
        (
            "another watermark",
            Behind {
                ct: BEHIND - 1,
                ..told()
            },
        ),
        ("another version", Behind { seq: 1, ..told() }),
    ] {
        check(what, &other(lie), false, true);
    }
    let next = |base| Behind {
        term: 3,
        base,
        seq: 3,
        ..told()
    };
    check("the next office, too", &with(vec![told(), next(BASE)]), false, false);
    check(
        "the next office falls back",
        &with(vec![told(), next(BASE - 1)]),
        false,
        true,
    );
    let over = with(vec![Behind {
        ct: BEHIND + 1,
        ..told()
    }]);
    check("stamped below the watermark", &over, false, true);
    let under = with(vec![Behind { ct: 699, ..told() }]);
    check("a watermark below what was judged", &under, false, true);
    let mut nobody = Story::of(&[IN_GRACE, AFTER], vec![told()]);
    nobody.waited = false;
    // Its own bid came only later.
    check("nobody had asked anything of it", &nobody, false, true);
}

#[test]
fn a_late_close_is_seen_whatever_others_bid_since() {
    let seen = |seen| Story {
        seen,
        ..Story::of(&[AFTER, ("y", 5, 3_600, 8_149, 8_154)], vec![])
    };
    // From the bid that was answered at 5,556 with 1,002: due by 7,554.
    check("600 ms late", &seen(8_154), false, false);
    check("601 ms late", &seen(8_155), true, false);
    // Who was away hears of it when it is there again; who was there all the time is no excuse.
    let watched = |from, at| Story {
        watched: Some(from),
        ..seen(at)
    };
    check("601 ms late, watched since then", &watched(7_554, 8_155), true, false);
    check(
        "600 ms after the stream was opened",
        &watched(8_500, 9_100),
        false,
        false,
    );
    check(
        "601 ms after the stream was opened",
        &watched(8_500, 9_101),
        true,
        false,
    );
}
