//! Watermarks, offices, holds: who holds back whose close.

use super::*;

/// Two live auctions, `a` and `b`, each ending at 60,000.
fn two() -> World {
    let mut world = World::live(rush_terms());
    for action in [
        Action::Create(Box::new(definition(rush_terms()))),
        Action::Start { schedule_version: None },
    ] {
        assert_eq!(world.one(0, command("b", "seller", None, action)).outcome, Ok(()));
    }
    world
}

fn behind(list: &[(&str, u64)]) -> Vec<(AuctionId, Stamp)> {
    list.iter()
        .map(|&(auction, stamp)| (id(auction), Stamp(stamp)))
        .collect()
}

fn bid(auction: &str, arrived: u64, who: &str, amount: u64) -> Stamped {
    Stamped {
        arrived: Stamp(arrived),
        command: command(auction, who, None, Action::Bid { amount }),
    }
}

fn types(done: &Done) -> Vec<String> {
    done.events
        .iter()
        .map(|e| format!("{} {}@{}", e.auction, e.kind.ty(), e.ct.0))
        .collect()
}

#[test]
fn a_backlog_holds_back_its_own_close_and_nobody_elses() {
    let mut world = two();
    let late = Entry {
        at: Stamp(60_100),
        behind: behind(&[("a", 59_990)]),
        ..Entry::default()
    };
    assert_eq!(types(&world.entry(late)), ["b close@60000"]);
    assert_eq!(
        (world.shard.watermark(&id("a")), world.shard.watermark(&id("b"))),
        (Stamp(59_990), Stamp(60_100))
    );
    assert_eq!(
        world.shard.below(Stamp(60_100)).collect::<Vec<_>>(),
        [(id("a"), Stamp(59_990))]
    );
    assert_eq!(world.shard.below(Stamp(59_990)).count(), 0);
    assert_eq!(
        world.shard.next_deadline(),
        Some(Stamp(60_000)),
        "still pending, still due"
    );
    // What waited is judged at its own stamp, in time; what came after the end is late.
    let rest = vec![
        bid("a", 59_990, "ann", 100),
        bid("a", 59_999, "bob", 101),
        bid("a", 60_000, "ann", 500),
    ];
    let done = world.entry(Entry {
        at: Stamp(60_200),
        commands: rest,
        ..Entry::default()
    });
    let outcomes: Vec<_> = done
        .verdicts
        .iter()
        .map(|v| v.outcome.err().map(Reason::code))
        .collect();
    assert_eq!(outcomes, [None, None, Some("closed")]);
    assert_eq!(types(&done), ["a bid@59990", "a bid@59999", "a close@60000"]);
    assert_eq!(world.shard.below(Stamp(u64::MAX)).count(), 0);
    assert_eq!(world.shard.clamped(), 0);
}

#[test]
fn stamps_out_of_bounds_are_clamped_and_counted() {
    let mut world = two();
    world.beat(1_000);
    let rows = [
        (999, 1_000, 1),
        (1_500, 1_500, 0),
        (1_400, 1_500, 1),
        (9_999, 2_000, 1),
        (2_000, 2_000, 0),
    ];
    let commands = rows.iter().map(|&(arrived, ..)| bid("a", arrived, "ann", 1)).collect();
    let done = world.entry(Entry {
        at: Stamp(2_000),
        commands,
        ..Entry::default()
    });
    let judged: Vec<u64> = done.verdicts.iter().map(|v| v.ct.0).collect();
    assert_eq!(judged, rows.map(|row| row.1));
    assert_eq!(world.shard.clamped(), rows.iter().map(|row| row.2).sum::<u64>());
    // A clock that goes back is a clamp, too, and goes nowhere.
    world.beat(500);
    assert_eq!((world.shard.top(), world.shard.clamped()), (Stamp(2_000), 4));
}

#[test]
fn entries_that_do_not_follow_are_void() {
    let office = |term, turn| Office { term, turn };
    let mut shard = Shard::new(Limits::default());
    let mut apply = |office, n| {
        let entry = Entry {
            office,
            n,
            at: Stamp(n.min(99) * 10),
            ..Entry::default()
        };
        (shard.apply(&entry) != Applied::Void, shard.top().0, shard.next_n())
    };
    #[rustfmt::skip]
    let rows = [
        // term, turn, n -> applied, top, next n
        (1, 0, 1, false, 0, 1),   // before its marker
        (1, 0, 0, true, 0, 1),    // the marker
        (1, 0, 1, true, 10, 2),
        (1, 0, 1, false, 10, 2),  // again
        (1, 0, 3, false, 10, 2),  // one is missing: everything behind it is void
        (1, 0, 4, false, 10, 2),
        (1, 0, 2, true, 20, 3),
        (1, 0, 0, false, 20, 3),  // a marker again
        (1, 1, 0, true, 20, 1),   // the next turn
        (1, 0, 3, false, 20, 1),  // of the office before
        (0, 9, 0, false, 20, 1),  // an older term
        (3, 0, 0, true, 20, 1),
        (1, 1, 1, false, 20, 1),
        (3, 0, 1, true, 20, 2),
        (3, 0, u64::MAX, false, 20, 2),
    ];
    for (term, turn, n, applied, top, next) in rows {
        assert_eq!(
            apply(office(term, turn), n),
            (applied, top, next),
            "({term}, {turn}) {n}"
        );
    }
}

#[test]
fn a_void_entry_leaves_no_trace() {
    let mut world = two();
    let digest = world.shard.digest();
    let entry = Entry {
        n: world.n + 2,
        at: Stamp(99_999),
        commands: vec![bid("a", 5, "ann", 100)],
        ..Entry::default()
    };
    assert_eq!(world.shard.apply(&entry), Applied::Void);
    assert_eq!(world.shard.digest(), digest);
}

#[test]
fn a_hold_comes_after_all_else_at_its_stamp_in_each_open_auction() {
    let mut world = two();
    world.one(
        0,
        command("c", "seller", None, Action::Create(Box::new(definition(rush_terms())))),
    );
    let holds = vec![Hold {
        stamp: Stamp(500),
        lost_ms: 80,
    }];
    // `a` is behind: its commands at 500 come in the next entry, and the hold after them.
    let entry = Entry {
        at: Stamp(600),
        behind: behind(&[("a", 500)]),
        holds,
        ..Entry::default()
    };
    assert_eq!(types(&world.entry(entry)), ["b held@500"]);
    let commands = vec![
        bid("a", 500, "ann", 100),
        bid("a", 500, "bob", 101),
        bid("a", 501, "ann", 102),
    ];
    let done = world.entry(Entry {
        at: Stamp(700),
        commands,
        ..Entry::default()
    });
    assert_eq!(types(&done), ["a bid@500", "a bid@500", "a held@500", "a bid@501"]);
    assert_eq!(world.shard.parts().holds, [], "nobody waits for it any more");
    assert_eq!(world.shard.clamped(), 0);
}

#[test]
fn a_hold_at_the_top_waits_for_the_next_entry() {
    let mut world = two();
    let hold = Hold {
        stamp: Stamp(500),
        lost_ms: 80,
    };
    assert_eq!(
        types(&world.entry(Entry {
            at: Stamp(500),
            holds: vec![hold],
            ..Entry::default()
        })),
        [""; 0]
    );
    assert_eq!(types(&world.beat(500)), [""; 0]);
    assert_eq!(types(&world.beat(501)), ["a held@500", "b held@500"]);
}

#[test]
fn an_auction_that_opens_at_or_after_a_hold_does_not_declare_it() {
    // Creation and start wait in the lane while the hold passes.
    for (start, want) in [(499, 2), (500, 1), (501, 1)] {
        let mut world = two();
        let holds = vec![Hold {
            stamp: Stamp(500),
            lost_ms: 80,
        }];
        world.entry(Entry {
            at: Stamp(600),
            behind: behind(&[("c", 400)]),
            holds,
            ..Entry::default()
        });
        let create = Action::Create(Box::new(definition(rush_terms())));
        let commands = [(400, create), (start, Action::Start { schedule_version: None })].map(|(at, action)| Stamped {
            arrived: Stamp(at),
            command: command("c", "seller", None, action),
        });
        world.entry(Entry {
            at: Stamp(700),
            commands: commands.into(),
            ..Entry::default()
        });
        assert_eq!(
            world.shard.events(&id("c"), 0, 9).unwrap().len(),
            want,
            "started at {start}"
        );
        assert_eq!(world.shard.clamped(), 0);
    }
}

#[test]
fn reads() {
    let mut world = two();
    // after | upto -> is a timer due there? Both auctions end at 60,000.
    for (after, upto, want) in [
        (None, 59_999, false),
        (None, 60_000, true),
        (Some(59_999), 60_000, true),
        (Some(60_000), 99_000, false),
        (Some(u64::MAX), u64::MAX, false),
    ] {
        assert_eq!(
            world.shard.due_within(after.map(Stamp), Stamp(upto)),
            want,
            "({after:?}, {upto}]"
        );
    }
    assert!(world.shard.has_timers());
    assert_eq!(
        (world.shard.due(&id("a")), world.shard.due(&id("zzz"))),
        (Some(Stamp(60_000)), None)
    );
    world.one(1, command("a", "seller", None, Action::Pause { for_ms: None }));
    assert_eq!(
        (world.shard.due(&id("a")), world.shard.next_deadline()),
        (None, Some(Stamp(60_000)))
    );
    world.one(2, command("b", "seller", None, Action::Pause { for_ms: Some(5_000) }));
    assert_eq!(world.shard.next_deadline(), Some(Stamp(5_002)));
    world.one(
        3,
        command("b", "seller", None, Action::Cancel { reason: String::new() }),
    );
    assert!(!world.shard.has_timers());
    assert_eq!(world.shard.count(), (2, 1));
    let ids: Vec<_> = world.shard.views().map(|view| view.id.to_string()).collect();
    assert_eq!(ids, ["a", "b"]);
    let seqs = |after, limit| {
        let events = world.shard.events(&id("b"), after, limit).unwrap();
        events.iter().map(|e| e.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 9), [1, 2, 3]);
    assert_eq!(seqs(1, 1), [2]);
    assert_eq!(seqs(3, 9), [0; 0]);
    assert_eq!(seqs(u64::MAX, usize::MAX), [0; 0]);
    let view = world.view();
    assert_eq!((view.left_ms, view.ends_at), (Some(59_999), Some(Stamp(60_000))));
}
