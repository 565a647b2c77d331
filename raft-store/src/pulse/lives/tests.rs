//! Who is lost, and when: stories of pulses and looks.

use super::*;

const A: NodeId = NodeId(1);

fn said(life: u64) -> Said {
    Said {
        life,
        leaving: false,
        unfit: false,
        next: 0,
    }
}

fn lives() -> Lives {
    Lives::new(50, 300, 1_000)
}

/// What happens, when; and what is known of the peer then.
enum Step {
    Pulse(u64),
    Look,
}
use Step::{Look, Pulse};

#[test]
fn a_peer_lives_by_its_pulses() {
    let alive = |since| Known::Alive { since };
    let lost = |at| Known::Lost { at, surely: false };
    for (name, steps, known) in [
        ("never heard", vec![(1_100, Look)], Known::Unknown),
        ("never heard, for long", vec![(1_900, Look)], lost(1_000)),
        ("heard", vec![(1_050, Pulse(7)), (1_100, Look)], alive(1_050)),
        (
            "silent, not yet lost",
            vec![(1_050, Pulse(7)), (1_150, Look), (1_250, Look), (1_349, Look)],
            alive(1_050),
        ),
        (
            "silent, lost",
            vec![(1_050, Pulse(7)), (1_150, Look), (1_250, Look), (1_350, Look)],
            lost(1_350),
        ),
        (
            "back",
            vec![
                (1_050, Pulse(7)),
                (1_200, Look),
                (1_350, Look),
                (1_500, Look),
                (1_600, Pulse(7)),
            ],
            alive(1_600),
        ),
        (
            "another life, without a gap",
            vec![(1_050, Pulse(7)), (1_100, Pulse(8))],
            alive(1_100),
        ),
        (
            "we were frozen for two seconds",
            vec![(1_050, Pulse(7)), (1_100, Look), (3_100, Look)],
            alive(1_050),
        ),
        (
            "we were frozen, and the peer is silent since",
            vec![
                (1_050, Pulse(7)),
                (1_100, Look),
                (3_100, Look),
                (3_250, Look),
                (3_349, Look),
                (3_350, Look),
            ],
            lost(3_350),
        ),
    ] {
        let mut lives = lives();
        let mut now = 0;
        for (at, step) in steps {
            now = at;
            match step {
                Pulse(life) => drop(lives.hear(at, A, said(life))),
                Look => drop(lives.look(at, 0, true)),
            }
        }
        assert_eq!(lives.known(now, A), known, "{name}");
    }
}

#[test]
fn a_killed_process_is_lost_at_once() {
    #[derive(Clone, Copy)]
    enum Word {
        Pulse(u64),
        WayEnds,
        Refused,
        Opens,
    }
    use Word::{Opens, Pulse, Refused, WayEnds};
    let sure = |at| Known::Lost { at, surely: true };
    let alive = |since| Known::Alive { since };
    for (name, words, known) in [
        ("its pulse ends", vec![WayEnds], alive(1_000)),
        ("nobody listens", vec![Refused], alive(1_000)),
        ("both", vec![WayEnds, Refused], sure(1_003)),
        ("both, the other way round", vec![Refused, WayEnds], sure(1_003)),
        ("it spoke in between", vec![Refused, Pulse(7), WayEnds], alive(1_000)),
        ("two ways, one ends", vec![Opens, Refused, WayEnds], alive(1_000)),
        (
            "it came back in another life",
            vec![WayEnds, Refused, Pulse(8), Opens],
            alive(1_004),
        ),
    ] {
        let mut lives = lives();
        lives.hear(1_000, A, said(7));
        lives.way(A);
        let mut now = 1_001;
        for word in words {
            now += 1;
            match word {
                Pulse(life) => drop(lives.hear(now, A, said(life))),
                WayEnds => drop(lives.way_ended(now, A)),
                Refused => drop(lives.refused(now, A)),
                Opens => lives.way(A),
            }
        }
        assert_eq!(lives.known(now, A), known, "{name}");
    }
    assert!(
        !lives().refused(1_000, A),
        "a peer that was never heard may still be starting"
    );
}

fn resting(next: u64) -> Said {
    Said { next, ..said(7) }
}

#[test]
fn who_rests_is_waited_for_as_long_as_it_said() {
    // (peer's pause, ours, looks, found lost at)
    for (name, next, paused, looks, lost) in [
        ("at the usual pace", 0, 0, vec![1_100, 1_250, 1_299, 1_300], 1_300),
        ("one that rests", 500, 0, (1_100..=2_500).step_by(100).collect(), 2_500),
        (
            "a pause that nobody believes",
            1_000_000,
            0,
            (1_100..=10_000).step_by(100).collect(),
            10_000,
        ),
        ("we rest, too", 500, 500, vec![1_500, 2_000, 2_500], 2_500),
        (
            "we rest, and were away",
            500,
            500,
            vec![1_500, 2_300, 2_800, 3_299, 3_300],
            3_300,
        ),
    ] {
        let mut lives = lives();
        lives.hear(1_000, A, resting(next));
        let found = looks.into_iter().find(|at| !lives.look(*at, paused, false).is_empty());
        assert_eq!(found, Some(lost), "{name}");
    }
}

/// Somebody wakes: the usual silence holds for all from then on, whatever they said before.
#[test]
fn who_is_awake_waits_for_nobody_longer_than_usual() {
    const B: NodeId = NodeId(2);
    let rest = || {
        let mut lives = lives();
        lives.hear(1_000, A, resting(500));
        lives.hear(1_000, B, resting(500));
        assert_eq!(lives.look(1_000, 0, false), []);
        assert!(lives.all_rest());
        assert_eq!(lives.look(1_500, 500, false), []);
        lives
    };
    let mut we = rest();
    assert!(
        we.is_fresh(1_749, A, 150) && !we.is_fresh(1_750, A, 150),
        "as late as it said"
    );
    assert_eq!(we.look(1_700, 0, true), [], "its time counts from our waking");
    assert!(!we.all_rest());
    assert_eq!(
        we.hear(1_701, B, resting(500)),
        Heard {
            anew: false,
            stirs: false
        }
    );
    assert_eq!(we.look(1_850, 0, true), []);
    assert_eq!(we.look(1_999, 0, true), []);
    assert_eq!(we.look(2_000, 0, true), [A], "it heard that we woke, or isn't there");
    assert_eq!(we.look(2_001, 0, true), [B], "nor may the other pause any more");

    let mut frozen = rest();
    assert_eq!(frozen.look(1_700, 0, true), []);
    assert_eq!(frozen.look(9_000, 0, true), [], "we were away, they weren't");
    assert_eq!(frozen.look(9_150, 0, true), []);
    assert_eq!(frozen.look(9_299, 0, true), []);
    assert_eq!(frozen.look(9_300, 0, true), [A, B]);

    let mut peer = rest();
    assert_eq!(
        peer.hear(1_700, B, said(7)),
        Heard {
            anew: false,
            stirs: true
        },
        "it expects a word"
    );
    assert_eq!(
        peer.hear(1_750, B, said(7)),
        Heard {
            anew: false,
            stirs: false
        },
        "once"
    );
    assert!(!peer.all_rest() && peer.is_fresh(1_749, A, 150));
    assert!(!peer.is_fresh(2_000, A, 150), "A heard of it, too");
    assert_eq!(peer.look(1_800, 500, false), [], "we rest: A may be deaf to B only");
    assert_eq!(peer.look(2_100, 500, false), [B]);
    assert!(peer.all_rest(), "who is lost wakes nobody");
    peer.hear(2_200, B, resting(500));
    assert!(peer.all_rest());
}

#[test]
fn changes_are_told_once() {
    let mut lives = lives();
    assert!(lives.hear(1_050, A, said(7)).anew, "new");
    assert!(!lives.hear(1_100, A, said(7)).anew, "the same");
    let before = lives.changes();
    assert_eq!(lives.look(1_200, 0, true), []);
    assert_eq!(lives.look(1_399, 0, true), []);
    assert_eq!(lives.look(1_400, 0, true), [A]);
    assert_eq!(lives.look(1_500, 0, true), [], "told already");
    assert_eq!((lives.changes(), lives.alive()), (before + 1, 0));
    let leaving = Said {
        leaving: true,
        ..said(7)
    };
    assert!(lives.hear(1_600, A, leaving).anew, "back");
    assert!(lives.leaves(A));
    assert!(lives.is_fresh(1_649, A, 50) && !lives.is_fresh(1_650, A, 50));
    let (before, unfit) = (lives.changes(), Said { unfit: true, ..said(7) });
    assert!(!lives.hear(1_660, A, unfit).anew && lives.is_unfit(A), "no other life");
    assert_eq!(lives.changes(), before + 1, "but another state");
    lives.hear(1_670, A, said(7));
    assert!(!lives.is_unfit(A));
}
