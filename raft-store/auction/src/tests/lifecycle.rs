//! Every cell of the phase table as the shard answers it; who may; every field's bounds.

use super::*;
use crate::phase::{Verb, guard};

/// A shard whose auction `a` is in the phase.
fn in_phase(phase: Phase) -> World {
    let mut world = World::new();
    let mut seller = |action| assert_eq!(world.one(0, command("a", "seller", None, action)).outcome, Ok(()));
    seller(Action::Create(Box::new(definition(rush_terms()))));
    match phase {
        Phase::Draft => {}
        Phase::Scheduled => seller(Action::Schedule { start_wall_ms: 5 }),
        Phase::Live | Phase::Paused | Phase::Closed(_) => seller(Action::Start { schedule_version: None }),
    }
    match phase {
        Phase::Paused => seller(Action::Pause { for_ms: None }),
        Phase::Closed(_) => seller(Action::Cancel { reason: String::new() }),
        _ => {}
    }
    assert_eq!(world.view().phase, phase);
    world
}

/// A command of this verb that nothing but the phase speaks against, and who sends it.
fn fitting(verb: Verb, world: &World) -> (&'static str, Action) {
    let definition = Box::new(definition(rush_terms()));
    match verb {
        Verb::Create => ("seller", Action::Create(definition)),
        Verb::Edit => (
            "seller",
            Action::Edit {
                version: world.view().version,
                definition,
            },
        ),
        Verb::Schedule => ("seller", Action::Schedule { start_wall_ms: 9 }),
        Verb::Start => ("seller", Action::Start { schedule_version: None }),
        Verb::Bid => ("ann", Action::Bid { amount: 100 }),
        Verb::MaxBid => ("ann", Action::MaxBid { maximum: 100 }),
        Verb::Pause => ("seller", Action::Pause { for_ms: None }),
        Verb::Resume => ("seller", Action::Resume),
        Verb::Extend => ("seller", Action::Extend { ms: 1 }),
        Verb::Cancel => ("seller", Action::Cancel { reason: String::new() }),
        Verb::StreamUp => (
            "system",
            Action::StreamUp {
                node: 1,
                stream: id("s"),
            },
        ),
        Verb::StreamDown => ("system", Action::StreamDown { stream: id("s") }),
    }
}

const PHASES: [Phase; 5] = [
    Phase::Draft,
    Phase::Scheduled,
    Phase::Live,
    Phase::Paused,
    Phase::Closed(Outcome::Cancelled),
];

/// Written out once more, on purpose: draft, scheduled, live, paused, closed.
#[rustfmt::skip]
const WANT: [(Verb, [&str; 5]); 12] = [
    (Verb::Create,     ["taken", "taken", "taken", "taken", "taken"]),
    (Verb::Edit,       ["draft", "scheduled", "wrong_phase", "wrong_phase", "closed!"]),
    (Verb::Schedule,   ["scheduled", "scheduled", "wrong_phase", "wrong_phase", "closed!"]),
    (Verb::Start,      ["live", "live", "wrong_phase", "wrong_phase", "closed!"]),
    (Verb::Bid,        ["not_open", "not_open", "live", "paused!", "closed!"]),
    (Verb::MaxBid,     ["not_open", "not_open", "live", "paused!", "closed!"]),
    (Verb::Pause,      ["wrong_phase", "wrong_phase", "paused", "wrong_phase", "closed!"]),
    (Verb::Resume,     ["wrong_phase", "wrong_phase", "wrong_phase", "live", "closed!"]),
    (Verb::Extend,     ["wrong_phase", "wrong_phase", "live", "wrong_phase", "closed!"]),
    (Verb::Cancel,     ["closed", "closed", "closed", "closed", "closed!"]),
    (Verb::StreamUp,   ["draft", "scheduled", "live", "paused", "closed"]),
    (Verb::StreamDown, ["draft", "scheduled", "live", "paused", "closed"]),
];

#[test]
fn every_cell() {
    for (verb, row) in WANT {
        for (phase, want) in PHASES.into_iter().zip(row) {
            let mut world = in_phase(phase);
            if verb == Verb::StreamDown {
                world.one(
                    0,
                    command(
                        "a",
                        "system",
                        None,
                        Action::StreamUp {
                            node: 1,
                            stream: id("s"),
                        },
                    ),
                );
            }
            let (before, digest) = (world.view(), world.shard.parts().auctions);
            let (who, action) = fitting(verb, &world);
            let verdict = world.one(0, command("a", who, None, action));
            let after = world.view();
            let cell = match verdict.outcome {
                Ok(()) => after.phase.word().into(),
                // Two codes are spelled as phases are.
                Err(reason) if PHASES.iter().any(|p| p.word() == reason.code()) => format!("{}!", reason.code()),
                Err(reason) => reason.code().to_string(),
            };
            assert_eq!(cell, want, "{verb:?} in {phase:?}");
            assert_eq!(
                verdict.outcome.is_ok(),
                guard(phase, verb).is_ok(),
                "{verb:?} in {phase:?}"
            );
            if verdict.outcome.is_err() {
                assert_eq!(
                    (after, world.shard.parts().auctions),
                    (before, digest),
                    "a refusal changes nothing"
                );
            }
        }
    }
    assert_eq!(WANT.map(|row| row.0), Verb::ALL);
}

#[test]
fn who_may() {
    // verb | seller | another seller | bidder | guest | operator | system
    #[rustfmt::skip]
    let table = [
        (Phase::Draft, Verb::Edit,      ["ok", "auth", "auth", "auth", "ok", "ok"]),
        (Phase::Draft, Verb::Schedule,  ["ok", "auth", "auth", "auth", "ok", "ok"]),
        (Phase::Draft, Verb::Start,     ["ok", "auth", "auth", "auth", "ok", "ok"]),
        (Phase::Live, Verb::Pause,      ["ok", "auth", "auth", "auth", "ok", "ok"]),
        (Phase::Paused, Verb::Resume,   ["ok", "auth", "auth", "auth", "ok", "ok"]),
        (Phase::Live, Verb::Extend,     ["ok", "auth", "auth", "auth", "ok", "ok"]),
        (Phase::Live, Verb::Cancel,     ["ok", "auth", "auth", "auth", "ok", "ok"]),
        (Phase::Live, Verb::StreamUp,   ["auth", "auth", "auth", "auth", "auth", "ok"]),
        (Phase::Live, Verb::Bid,        ["own", "ok", "ok", "auth", "auth", "auth"]),
        (Phase::Live, Verb::MaxBid,     ["own", "ok", "ok", "auth", "auth", "auth"]),
    ];
    for (phase, verb, row) in table {
        for (who, want) in ["seller", "seller2", "ann", "guest-1", "op", "system"]
            .into_iter()
            .zip(row)
        {
            let mut world = in_phase(phase);
            let (_, action) = fitting(verb, &world);
            let verdict = world.one(0, command("a", who, None, action));
            assert_eq!(
                verdict.outcome.map_or_else(Reason::code, |()| "ok"),
                want,
                "{verb:?} by {who}"
            );
        }
    }
}

#[test]
fn who_may_create() {
    for (who, want) in [
        ("seller", "ok"),
        ("seller2", "auth"),
        ("ann", "auth"),
        ("guest-1", "auth"),
        ("op", "ok"),
        ("system", "ok"),
    ] {
        let create = command("a", who, None, Action::Create(Box::new(definition(rush_terms()))));
        let verdict = World::new().one(0, create);
        assert_eq!(verdict.outcome.map_or_else(Reason::code, |()| "ok"), want, "{who}");
    }
}

#[test]
fn unknown_auctions() {
    let mut world = World::new();
    for verb in Verb::ALL.into_iter().skip(2) {
        let (who, action) = fitting(verb, &in_phase(Phase::Draft));
        let verdict = world.one(7, command("nowhere", who, Some("k"), action));
        assert_eq!(
            (verdict.outcome, verdict.seq, verdict.ct),
            (Err(Reason::NotFound), 0, Stamp(7)),
            "{verb:?}"
        );
    }
    assert_eq!(world.shard.view(&id("nowhere")), None);
    assert_eq!(world.shard.events(&id("nowhere"), 0, 9), None);
}

#[test]
fn schedule_and_start_by_version() {
    let mut world = in_phase(Phase::Scheduled);
    let version = world.view().version;
    assert_eq!(world.shard.scheduled().collect::<Vec<_>>(), [(id("a"), 5, version)]);
    let start = |version| {
        command(
            "a",
            "system",
            None,
            Action::Start {
                schedule_version: Some(version),
            },
        )
    };
    assert_eq!(world.one(1, start(version - 1)).outcome, Err(Reason::Stale));
    // An edit keeps the schedule and makes a new version of it.
    let edit = Action::Edit {
        version,
        definition: Box::new(definition(Terms {
            start_price: 7,
            ..rush_terms()
        })),
    };
    assert_eq!(world.one(1, command("a", "seller", None, edit.clone())).outcome, Ok(()));
    assert_eq!(
        world.one(1, command("a", "seller", None, edit)).outcome,
        Err(Reason::Stale)
    );
    assert_eq!(world.one(1, start(version)).outcome, Err(Reason::Stale));
    assert_eq!(world.one(2, start(version + 1)).outcome, Ok(()));
    let view = world.view();
    assert_eq!(
        (view.seq, view.price, view.least, view.ends_at),
        (1, 7, 7, Some(Stamp(60_002)))
    );
    assert_eq!(world.shard.scheduled().count(), 0);
    // Proposed once more by a leader who didn't know yet.
    assert_eq!(world.one(3, start(version + 1)).outcome, Err(Reason::WrongPhase));
}

#[test]
fn a_cancel_before_the_start_is_the_only_event() {
    let mut world = in_phase(Phase::Scheduled);
    assert_eq!(
        world
            .one(9, command("a", "seller", None, Action::Cancel { reason: "no".into() }))
            .outcome,
        Ok(())
    );
    let view = world.view();
    assert_eq!((view.seq, view.ends_at, view.start_wall_ms), (1, Some(Stamp(9)), None));
    assert_eq!(world.log(), ["close@9"]);
    assert!(!world.shard.has_timers() && world.shard.scheduled().count() == 0);
}

#[test]
fn definitions_and_schedules_are_changes_without_events() {
    let mut world = World::new();
    let mut changed = |action| {
        let commands = vec![Stamped {
            arrived: Stamp(0),
            command: command("a", "seller", None, action),
        }];
        let done = world.entry(Entry {
            commands,
            ..Entry::default()
        });
        (done.changed.len(), done.events.len())
    };
    assert_eq!(changed(Action::Create(Box::new(definition(rush_terms())))), (1, 0));
    assert_eq!(
        changed(Action::Edit {
            version: 1,
            definition: Box::new(definition(rush_terms()))
        }),
        (1, 0)
    );
    assert_eq!(changed(Action::Schedule { start_wall_ms: 1 }), (1, 0));
    assert_eq!(changed(Action::Start { schedule_version: None }), (0, 1));
}

/// One change to valid terms, and the field that must be named (empty: it stays valid).
#[test]
fn every_bound_of_a_definition() {
    type Change = fn(&mut Definition);
    #[rustfmt::skip]
    let table: &[(&str, Change)] = &[
        ("", |_| {}),
        ("title", |d| d.title = String::new()),
        ("title", |d| d.title = "   ".into()),
        ("title", |d| d.title = "two\nlines".into()),
        ("", |d| d.title = "가".repeat(120)),
        ("title", |d| d.title = "가".repeat(121)),
        ("", |d| d.description = "lines\n\tare fine".into()),
        ("description", |d| d.description = "bell \u{7}".into()),
        ("", |d| d.description = "x".repeat(4_000)),
        ("description", |d| d.description = "x".repeat(4_001)),
        ("currency", |d| d.terms.currency = Currency(*b"krw")),
        ("", |d| d.terms.start_price = 0),
        ("", |d| d.terms.start_price = money::MONEY_MAX),
        ("start_price", |d| d.terms.start_price = money::MONEY_MAX + 1),
        ("increments", |d| d.terms.increments = vec![]),
        ("increments", |d| d.terms.increments = vec![(1, 1)]),
        ("increments", |d| d.terms.increments = vec![(0, 0)]),
        ("increments", |d| d.terms.increments = vec![(0, u64::MAX)]),
        ("increments", |d| d.terms.increments = vec![(0, 1), (0, 2)]),
        ("increments", |d| d.terms.increments = vec![(0, 1), (u64::MAX, 2)]),
        ("", |d| d.terms.increments = vec![(0, 5), (100, 4)]),       // 99 asks 104, 100 asks 104
        ("increments", |d| d.terms.increments = vec![(0, 6), (100, 4)]), // 99 asks 105, 100 asks 104
        ("", |d| d.terms.increments = (0..32).map(|i| (i, 1)).collect()),
        ("increments", |d| d.terms.increments = (0..33).map(|i| (i, 1)).collect()),
        ("reserve", |d| d.terms.reserve = Some(sealed(u64::MAX))),
        ("duration_ms", |d| d.terms.duration_ms = 999),
        ("", |d| d.terms.duration_ms = 2_592_000_000),
        ("duration_ms", |d| d.terms.duration_ms = 2_592_000_001),
        ("rush.cut_ppm_max", |d| d.terms.time.rush.as_mut().unwrap().cut_ppm_max = 900_001),
        ("rush.cut_per_raise_ppm", |d| d.terms.time.rush.as_mut().unwrap().cut_per_raise_ppm = u64::MAX),
        ("rush.floor_ms", |d| d.terms.time.rush.as_mut().unwrap().floor_ms = 2_999),
        ("", |d| d.terms.time = TimeRule { rush: None, soft_close: Some(soft()) }),
        ("soft_close.window_ms", |d| d.terms.time.soft_close = Some(terms::SoftClose { window_ms: 999, ..soft() })),
        ("soft_close.reset_to_ms", |d| d.terms.time.soft_close = Some(terms::SoftClose { reset_to_ms: 9_999, ..soft() })),
        ("soft_close.extensions_max", |d| d.terms.time.soft_close = Some(terms::SoftClose { extensions_max: 0, ..soft() })),
    ];
    for (row, (field, change)) in table.iter().enumerate() {
        let mut changed = definition(rush_terms());
        change(&mut changed);
        assert_eq!(
            changed.validate().map_or_else(|wrong| wrong.field, |()| ""),
            *field,
            "row {row}"
        );
        let verdict = World::new().one(0, command("a", "seller", None, Action::Create(Box::new(changed))));
        assert_eq!(verdict.outcome.is_ok(), field.is_empty(), "row {row}");
    }
}

/// A valid ladder never asks less for a higher price, against every price around its edges.
#[test]
fn a_ladder_never_falls() {
    let terms = Terms {
        increments: vec![(0, 5), (100, 4), (110, 50), (200, 10), (260, 1)],
        ..rush_terms()
    };
    let valid = Terms {
        increments: vec![(0, 5), (100, 4), (110, 50)],
        ..rush_terms()
    };
    assert!(terms.validate().is_err() && valid.validate().is_ok());
    assert!((0..300).all(|price| valid.above(price) <= valid.above(price + 1)));
    assert!((0..300).any(|price| terms.above(price) > terms.above(price + 1)));
    assert_eq!(
        [0, 99, 100, 109, 110, u64::MAX].map(|price| valid.increment(price)),
        [5, 5, 4, 4, 50, 50]
    );
}
