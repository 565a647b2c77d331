//! The rules, row by row. `at | who | what | outcome | price | leader | end`; a number is a bid.

use super::*;

fn action(what: &str) -> Action {
    let words: Vec<&str> = what.split_whitespace().collect();
    let number = |i: usize| words[i].replace('_', "").parse::<u64>().expect(what);
    match words[0] {
        "start" => Action::Start { schedule_version: None },
        "max" => Action::MaxBid { maximum: number(1) },
        "pause" => Action::Pause {
            for_ms: words.get(1).map(|_| number(1)),
        },
        "resume" => Action::Resume,
        "extend" => Action::Extend { ms: number(1) },
        "cancel" => Action::Cancel {
            reason: "broken".into(),
        },
        "up" => Action::StreamUp {
            node: number(1),
            stream: id(words[2]),
        },
        "down" => Action::StreamDown { stream: id(words[1]) },
        _ => Action::Bid { amount: number(0) },
    }
}

/// Plays a table on auction `a`, which opens at 0 under `terms`. `-`: nobody leads; an empty cell isn't looked at.
fn check(terms: Terms, table: &str) -> World {
    let mut world = World::live(terms);
    for row in table.trim().lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [at, who, what, outcome, price, leader, end] = cells[..] else {
            panic!("seven cells: {row}")
        };
        let at: u64 = at.replace('_', "").parse().expect(row);
        if what == "beat" {
            world.beat(at);
        } else if let Some(lost) = what.strip_prefix("hold ") {
            let hold = Hold {
                stamp: Stamp(at),
                lost_ms: lost.parse().expect(row),
            };
            world.entry(Entry {
                at: Stamp(at + 1),
                holds: vec![hold],
                ..Entry::default()
            });
        } else {
            let verdict = world.one(at, command("a", who, None, action(what)));
            let code = verdict.outcome.map_or_else(Reason::code, |()| "ok");
            assert_eq!(code, outcome, "{row}");
        }
        let view = world.view();
        let shown = [
            ("price", price, view.price.to_string()),
            ("leader", leader, view.leader.map_or("-".into(), |id| id.to_string())),
            ("end", end, view.ends_at.map_or("-".into(), |end| end.0.to_string())),
        ];
        for (cell, want, got) in shown {
            assert!(
                want.is_empty() || want.replace('_', "") == got,
                "{cell} is {got} after {row}"
            );
        }
    }
    assert_eq!(world.shard.clamped(), 0);
    world
}

#[test]
fn rush() {
    check(
        rush_terms(),
        "
         1_000 | ann | 99  | low     | 100 | -   | 60_000
         1_000 | ann | 100 | ok      | 100 | ann | 60_000
         2_000 | bob | 100 | low     | 100 | ann | 60_000
         2_000 | bob | 101 | ok      | 101 | bob | 58_840
         2_000 | bob | 150 | leading | 101 | bob | 58_840
         3_000 | ann | 202 | ok      | 202 | ann | 30_920
         4_000 | bob | 404 | ok      | 404 | bob | 17_460
         5_000 | ann | 808 | ok      | 808 | ann | 15_000
         9_000 | bob | 900 | ok      | 900 | bob | 15_000
        15_000 | ann | 901 | closed  | 900 | bob | 15_000
        ",
    );
}

#[test]
fn the_last_millisecond() {
    let log = check(
        rush_terms(),
        "
        59_999 | ann    | 100   | ok     | 100 | ann | 60_000
        60_000 | bob    | 200   | closed | 100 | ann | 60_000
        60_001 | seller | pause | closed | 100 | ann | 60_000
        ",
    )
    .log();
    assert_eq!(log, ["open@0", "bid@59999", "close@60000"]);
}

#[test]
fn soft_close_alone() {
    let terms = Terms {
        time: TimeRule {
            rush: None,
            soft_close: Some(soft()),
        },
        ..rush_terms()
    };
    check(
        terms,
        "
        50_000 | ann | 100 | ok     | 100 | ann | 60_000
        50_001 | bob | 101 | ok     | 101 | bob | 65_001
        65_000 | ann | 102 | ok     | 102 | ann | 80_000
        79_999 | bob | 103 | ok     | 103 | bob | 80_000
        80_000 | ann | 104 | closed | 103 | bob | 80_000
        ",
    );
}

#[test]
fn rush_into_the_soft_window() {
    let terms = Terms {
        time: TimeRule {
            soft_close: Some(soft()),
            ..rush_terms().time
        },
        ..rush_terms()
    };
    check(
        terms,
        "
             0 | ann | 200 | ok | 200 | ann | 30_000
        12_000 | bob | 400 | ok | 400 | bob | 22_000
        13_000 | ann | 800 | ok | 800 | ann | 28_000
        ",
    );
}

#[test]
fn fixed_end() {
    check(
        Terms {
            time: TimeRule::default(),
            ..rush_terms()
        },
        "
             0 | ann | 100_000 | ok     | 100_000 | ann | 60_000
        59_999 | bob | 900_000 | ok     | 900_000 | bob | 60_000
        60_000 | ann | 999_999 | closed | 900_000 | bob | 60_000
        ",
    );
}

#[test]
fn increments_change_with_the_price() {
    check(
        rush_terms(),
        "
        0 | ann | 998  | ok  | 998  | ann |
        0 | bob | 999  | ok  | 999  | bob |
        0 | ann | 1000 | ok  | 1000 | ann |
        0 | bob | 1004 | low | 1000 | ann |
        0 | bob | 1005 | ok  | 1005 | bob |
        ",
    );
}

#[test]
fn maxima() {
    check(
        rush_terms(),
        "
        0      | ann | max 300 | ok      | 100 | ann | 60_000
        0      | bob | 100     | low     | 100 | ann | 60_000
        0      | bob | 101     | ok      | 102 | ann | 57_600
        0      | bob | 299     | ok      | 300 | ann | 28_800
        1_000  | cyd | 300     | low     | 300 | ann | 28_800
        1_000  | ann | max 300 | leading | 300 | ann | 28_800
        1_000  | ann | 400     | leading | 300 | ann | 28_800
        1_000  | ann | max 500 | ok      | 300 | ann | 28_800
        1_000  | bob | max 400 | ok      | 401 | ann | 14_900
        1_000  | bob | max 500 | ok      | 500 | ann | 11_000
        1_000  | bob | max 900 | ok      | 501 | bob | 11_000
        1_000  | cyd | 900     | ok      | 900 | bob | 11_000
        1_000  | cyd | 901     | ok      | 901 | cyd | 11_000
        ",
    );
}

#[test]
fn a_maximum_of_less_than_the_step_leads_at_itself() {
    check(
        Terms {
            increments: vec![(0, 10)],
            ..rush_terms()
        },
        "
        0 | ann | max 200 | ok  | 100 | ann |
        0 | bob | max 205 | ok  | 205 | bob |
        ",
    );
}

#[test]
fn reserve() {
    let terms = Terms {
        reserve: Some(sealed(150)),
        ..rush_terms()
    };
    let below = check(
        terms.clone(),
        "0 | ann | 149 | ok | 149 | ann |\n 60_000 | x | beat | | 149 | - |",
    );
    assert_eq!(below.view().phase, Phase::Closed(Outcome::Unsold));
    assert_eq!(below.view().reserve_met, Some(false));
    let met = check(
        terms.clone(),
        "0 | ann | 150 | ok | 150 | ann |\n 60_000 | x | beat | | 150 | ann |",
    );
    assert_eq!(met.view().phase, Phase::Closed(Outcome::Sold));
    assert_eq!(met.view().reserve_met, Some(true));
    for (world, when) in [(&below, "unsold"), (&met, "sold")] {
        assert_eq!(
            world.view().definition.terms.reserve,
            Some(sealed(150)),
            "opened once {when}"
        );
    }
    let hidden = check(terms.clone(), "0 | ann | 150 | ok | 150 | ann |");
    assert_eq!(hidden.view().definition.terms.reserve, None, "hidden while it is live");
    let none = check(terms, "60_000 | x | beat | | 100 | - |");
    assert_eq!(none.view().phase, Phase::Closed(Outcome::Unsold));
}

#[test]
fn money_edges() {
    check(
        Terms {
            start_price: 0,
            time: TimeRule::default(),
            ..rush_terms()
        },
        "
        0 | ann | 0                    | low     | 0                | -   |
        0 | ann | 1                    | ok      | 1                | ann |
        0 | bob | 1000000000000001     | too_big | 1                | ann |
        0 | bob | 18446744073709551615 | too_big | 1                | ann |
        0 | bob | 1000000000000000     | ok      | 1000000000000000 | bob |
        0 | ann | 1000000000000000     | low     | 1000000000000000 | bob |
        0 | ann | max 18446744073709551615 | too_big | 1000000000000000 | bob |
        ",
    );
    check(
        Terms {
            start_price: money::MONEY_MAX,
            ..rush_terms()
        },
        "
        0 | ann | max 1000000000000000 | ok  | 1000000000000000 | ann | 60_000
        0 | bob | 1000000000000000     | low | 1000000000000000 | ann | 60_000
        ",
    );
}

#[test]
fn who_may_bid() {
    check(
        rush_terms(),
        "
        0 | seller  | 100 | own  | 100 | - |
        0 | seller2 | 100 | ok   | 100 | seller2 |
        0 | guest-x | 200 | auth | 100 | seller2 |
        0 | viewer  | 200 | auth | 100 | seller2 |
        0 | op      | 200 | auth | 100 | seller2 |
        0 | system  | 200 | auth | 100 | seller2 |
        ",
    );
    check(
        Terms {
            guests: true,
            ..rush_terms()
        },
        "0 | guest-x | 100 | ok | 100 | guest-x |",
    );
}

#[test]
fn pauses() {
    let world = check(
        rush_terms(),
        "
        10_000 | seller | pause       | ok          |  | - | 60_000
        11_000 | ann    | 100         | paused      |  | - | 60_000
        11_000 | seller | pause       | wrong_phase |  | - | 60_000
        11_000 | seller | extend 5    | wrong_phase |  | - | 60_000
        15_000 | ann    | resume      | auth        |  | - | 60_000
        15_000 | seller | resume      | ok          |  | - | 65_000
        15_000 | seller | resume      | wrong_phase |  | - | 65_000
        20_000 | op     | pause 999   | invalid     |  | - | 65_000
        20_000 | op     | pause 86400001 | invalid  |  | - | 65_000
        20_000 | op     | pause 1000  | ok          |  | - | 65_000
        20_999 | ann    | 100         | paused      |  | - | 65_000
        21_000 | ann    | 100         | ok          |  | ann | 66_000
        66_000 | x      | beat        |             |  | ann | 66_000
        ",
    );
    let want = [
        "open@0",
        "pause@10000",
        "resume@15000",
        "pause@20000",
        "resume@21000",
        "bid@21000",
        "close@66000",
    ];
    assert_eq!(world.log(), want);
}

#[test]
fn extensions() {
    check(
        rush_terms(),
        "
        59_999 | seller | extend 1        | ok      | | - | 60_001
        60_000 | seller | extend 0        | invalid | | - | 60_001
        60_000 | seller | extend 86400001 | invalid | | - | 60_001
        60_000 | op     | extend 86400000 | ok      | | - | 86_460_001
        60_000 | ann    | extend 1        | auth    | | - | 86_460_001
        ",
    );
}

#[test]
fn cancels() {
    let world = check(
        rush_terms(),
        "
        1_000 | ann    | 100    | ok     | 100 | ann |
        2_000 | bob    | cancel | auth   | 100 | ann |
        3_000 | seller | cancel | ok     | 100 | -   | 60_000
        3_000 | ann    | 200    | closed | 100 | -   | 60_000
        ",
    );
    assert_eq!(world.view().phase, Phase::Closed(Outcome::Cancelled));
}

#[test]
fn streams_come_and_go() {
    let world = check(
        Terms {
            pause_without_stream: true,
            ..rush_terms()
        },
        "
         1_000 | seller | up 1 s1     | auth        | | - | 60_000
         1_000 | system | up 1 s1     | ok          | | - | 60_000
         1_000 | system | up 1 s1     | stale       | | - | 60_000
         2_000 | system | down s0     | stale       | | - | 60_000
         2_000 | system | down s1     | ok          | | - | 60_000
         5_000 | ann    | 100         | paused      | | - | 60_000
         7_000 | system | up 2 s2     | ok          | | - | 65_000
         8_000 | system | up 3 s3     | ok          | | - | 65_000
        10_000 | seller | pause 2000  | ok          | | - | 65_000
        11_000 | system | down s3     | ok          | | - | 65_000
        13_000 | x      | beat        |             | | - | 67_000
        14_000 | seller | resume      | ok          | | - | 69_000
        15_000 | ann    | 100         | ok          | | ann | 69_000
        ",
    );
    let want = [
        "open@0",
        "stream@1000",
        "stream@2000",
        "pause@2000",
        "stream@7000",
        "resume@7000",
        "stream@8000",
        "pause@10000",
        "stream@11000",
        "resume@12000",
        "pause@12000",
        "resume@14000",
        "bid@15000",
    ];
    assert_eq!(world.log(), want);
}

#[test]
fn streams_pause_nothing_where_the_terms_do_not_say_so() {
    let world = check(
        rush_terms(),
        "0 | system | up 1 s | ok | | - | 60_000\n 1 | system | down s | ok | | - | 60_000",
    );
    assert_eq!(world.log(), ["open@0", "stream@0", "stream@1"]);
    assert_eq!(world.view().stream, None);
}

#[test]
fn holds() {
    let world = check(
        rush_terms(),
        "
         1_000 | x      | hold 300 | | | - | 60_000
         2_000 | seller | pause    | ok | | - | 60_000
         3_000 | x      | hold 70  | | | - | 60_000
         4_000 | seller | resume   | ok | | - | 62_000
        61_999 | x      | hold 60  | | | - | 62_000
        63_000 | x      | hold 99  | | | - | 62_000
        ",
    );
    assert_eq!(
        world.log(),
        [
            "open@0",
            "held@1000",
            "pause@2000",
            "held@3000",
            "resume@4000",
            "held@61999",
            "close@62000"
        ]
    );
}
