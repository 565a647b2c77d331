//! Nodes that compare clocks, in virtual microseconds: real delays, wrong clocks, and who is told what.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use proptest::prelude::*;

/// A clock that was set wrong: `rate_ppm` against real time, and steps (when, by how much), µs.
#[derive(Clone, Default, Debug)]
struct Crystal {
    rate_ppm: i64,
    steps: Vec<(u64, i64)>,
    wall_off: i64,
}

impl Crystal {
    fn at(&self, t: u64, boot: u64) -> Clocks {
        let t = signed(t);
        let jumped: i64 = self.steps.iter().filter(|s| signed(s.0) <= t).map(|s| s.1).sum();
        let mono = signed(boot) + t + t * self.rate_ppm / 1_000_000 + jumped;
        Clocks {
            mono: u64::try_from(mono).unwrap(),
            wall: u64::try_from(1_700_000_000_000_000 + t + self.wall_off).unwrap(),
        }
    }
}

const MS: u64 = 1_000;

/// A word on its way.
#[derive(Clone, Copy)]
struct Flying {
    arrives: u64,
    to: usize,
    from: usize,
    /// Of the speaker's process.
    life: u64,
    word: Word,
}

/// What happens to a node besides its clock, at so many ms.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Its process starts again: its monotonic clock has another origin.
    Restart,
    /// Its process stands for so many ms, its clocks don't.
    Freeze(u64),
    /// What is said to it and by it arrives when so many ms are over.
    Hold(u64),
}

/// Nodes, words on their way, and one clock that is right.
struct World {
    crystals: Vec<Crystal>,
    nodes: Vec<Compare>,
    lives: Vec<u64>,
    /// What each node's monotonic clock counts from, µs.
    origins: Vec<u64>,
    /// Until when a node's process stands, and until when its words are held, µs.
    frozen: Vec<u64>,
    held: Vec<u64>,
    troubles: Vec<(u64, usize, Trouble)>,
    flying: Vec<Flying>,
    t: u64,
    dice: u64,
    /// Longest delay of one word, µs.
    delay: u64,
}

impl World {
    fn new(crystals: &[Crystal], delay: u64, seed: u64) -> Self {
        Self {
            crystals: crystals.to_vec(),
            nodes: crystals.iter().map(|_| Compare::new(Options::default(), 1)).collect(),
            lives: vec![1; crystals.len()],
            origins: vec![0; crystals.len()],
            frozen: vec![0; crystals.len()],
            held: vec![0; crystals.len()],
            troubles: Vec::new(),
            flying: Vec::new(),
            t: 0,
            dice: seed | 1,
            delay,
        }
    }

    fn trouble(&mut self) {
        let due: Vec<_> = self
            .troubles
            .extract_if(.., |trouble| trouble.0 * MS <= self.t)
            .collect();
        for (_, node, trouble) in due {
            match trouble {
                Trouble::Restart => {
                    self.lives[node] += 1;
                    self.nodes[node] = Compare::new(Options::default(), self.lives[node]);
                    self.origins[node] += self.now(node).mono;
                }
                Trouble::Freeze(ms) => self.frozen[node] = self.t + ms * MS,
                Trouble::Hold(ms) => self.held[node] = self.t + ms * MS,
            }
        }
    }

    fn throw(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.dice >> 33) % below.max(1)
    }

    fn now(&self, node: usize) -> Clocks {
        let clocks = self.crystals[node].at(self.t, 1_000_000_000 * (node as u64 + 1));
        Clocks {
            mono: clocks.mono - self.origins[node],
            ..clocks
        }
    }

    /// So many ms more: everybody speaks every 50 ms.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.t += MS;
            self.trouble();
            let nodes = self.nodes.len();
            let beat = self.t / MS;
            let awake = |node: &usize| self.frozen[*node] <= self.t;
            let speakers: Vec<usize> = (0..nodes)
                .filter(|n| awake(n) && (beat + *n as u64 * 7).is_multiple_of(50))
                .collect();
            for from in speakers {
                (0..nodes).filter(|to| *to != from).for_each(|to| self.say(from, to));
            }
            let (t, held, frozen) = (self.t, &self.held, &self.frozen);
            let lands = |f: &mut Flying| {
                let last = [f.arrives, held[f.to], held[f.from], frozen[f.to]];
                last.into_iter().all(|until| until <= t)
            };
            for landed in self.flying.extract_if(.., lands).collect::<Vec<_>>() {
                let now = self.now(landed.to);
                self.nodes[landed.to].hear(NodeId(landed.from as u64), landed.life, now, landed.word);
            }
        }
    }

    fn say(&mut self, from: usize, to: usize) {
        let clocks = self.now(from);
        let echo = self.nodes[from].echo(NodeId(to as u64), clocks);
        let arrives = self.t + 100 + self.throw(self.delay);
        self.flying.push(Flying {
            arrives,
            to,
            from,
            life: self.lives[from],
            word: Word { clocks, echo },
        });
    }

    fn fault(&self, node: usize) -> Option<Fault> {
        let drifts = self.nodes[node].drifts(self.now(node));
        self.nodes[node].own_fault(&drifts)
    }

    fn strays(&self, node: usize) -> Vec<u64> {
        let drifts = self.nodes[node].drifts(self.now(node));
        self.nodes[node].strays(&drifts).into_iter().map(|n| n.0).collect()
    }

    fn wall(&self, node: usize) -> Wall {
        self.nodes[node].wall(self.now(node))
    }
}

fn rate(ppm: i64) -> Crystal {
    Crystal {
        rate_ppm: ppm,
        ..Crystal::default()
    }
}

fn step(us: i64) -> Crystal {
    Crystal {
        steps: vec![(5_000 * MS, us)],
        ..Crystal::default()
    }
}

/// Runs until node 0 knows that it strays, at most 15 s after 5 s; tells after how many ms of those, and what it found.
fn found(crystals: &[Crystal], delay: u64) -> Option<(u64, Fault)> {
    let mut world = World::new(crystals, delay, 7);
    world.run(5_000);
    (0..150).find_map(|k| {
        world.run(100);
        Some(((k + 1) * 100, world.fault(0)?))
    })
}

#[test]
fn a_clock_at_another_rate_and_one_that_steps_are_found() {
    let good = Crystal::default();
    for (name, crystal, within, is_step) in [
        ("10 % fast", rate(100_000), 0, false),
        ("10 % slow", rate(-100_000), 0, false),
        ("1 % fast", rate(10_000), 4_000, false),
        ("0.6 % slow", rate(-6_000), 7_000, false),
        ("standing still, but slow", rate(-1_000_000), 0, false),
        ("two seconds ahead", step(2_000_000), 200, true),
        ("two seconds back", step(-2_000_000), 200, true),
    ] {
        let (after, fault) = found(&[crystal, good.clone(), good.clone()], 2_000).unwrap_or_else(|| panic!("{name}"));
        assert!(after <= within.max(100), "{name}: found after {after} ms");
        assert_eq!(matches!(fault, Fault::Step { .. }), is_step, "{name}: {fault:?}");
        let sign = match fault {
            Fault::Rate { ppm } => ppm.signum(),
            Fault::Step { ms } => ms.signum(),
        };
        assert_eq!(
            sign > 0,
            name.contains("fast") || name.contains("ahead"),
            "{name}: {fault:?}"
        );
    }
}

#[test]
fn a_clock_within_the_bound_is_left_alone() {
    let good = Crystal::default();
    for ppm in [-4_000, -500, 0, 500, 4_000] {
        assert_eq!(
            found(&[rate(ppm), good.clone(), good.clone()], 2_000),
            None,
            "{ppm} ppm"
        );
    }
}

#[test]
fn only_the_minority_strays_and_its_peers_know_it() {
    let good = Crystal::default();
    let mut world = World::new(&[rate(50_000), good.clone(), good], 1_000, 3);
    world.run(6_000);
    assert!(matches!(world.fault(0), Some(Fault::Rate { ppm }) if (40_000..60_000).contains(&ppm)));
    assert_eq!((world.fault(1), world.fault(2)), (None, None));
    assert_eq!((world.strays(1), world.strays(2)), (vec![0], vec![0]));
    assert_eq!(world.strays(0), [] as [u64; 0], "it can't accuse the majority");
}

#[test]
fn two_that_differ_accuse_nobody() {
    let mut world = World::new(&[rate(50_000), Crystal::default()], 1_000, 3);
    world.run(6_000);
    assert_eq!((world.fault(0), world.fault(1)), (None, None));
    assert_eq!((world.strays(0), world.strays(1)), (vec![], vec![]));
    let drifts = world.nodes[1].drifts(world.now(1));
    assert!(drifts[&NodeId(0)].rate_ppm > 40_000, "but it shows");
}

#[test]
fn of_five_a_minority_of_two_strays() {
    let good = Crystal::default();
    let crystals = [rate(20_000), rate(20_000), good.clone(), good.clone(), good];
    let mut world = World::new(&crystals, 1_000, 3);
    world.run(10_000);
    for node in 0..5 {
        assert_eq!(world.fault(node).is_some(), node < 2, "node {node}");
        assert_eq!(
            world.strays(node),
            if node < 2 { vec![] } else { vec![0, 1] },
            "node {node}"
        );
    }
}

#[test]
fn a_step_is_forgotten_when_the_window_has_passed() {
    let good = Crystal::default();
    let mut world = World::new(&[step(2_000_000), good.clone(), good], 1_000, 3);
    world.run(5_500);
    assert!(world.fault(0).is_some());
    world.run(8_000);
    assert!(world.fault(0).is_some(), "not before the window has passed");
    world.run(4_000);
    assert_eq!(world.fault(0), None);
    assert_eq!(world.strays(1), [] as [u64; 0]);
}

#[test]
fn another_life_begins_anew() {
    let good = Crystal::default();
    let mut world = World::new(&[good.clone(), good.clone(), good], 1_000, 3);
    world.run(3_000);
    // Node 1 started again: its clock has another origin.
    let word = Word {
        clocks: Clocks { mono: 5, wall: 7 },
        echo: None,
    };
    let now = world.now(0);
    world.nodes[0].hear(NodeId(1), 2, now, word);
    assert!(!world.nodes[0].drifts(now).contains_key(&NodeId(1)));
}

/// What an echo is worth to a process in its life 2, at 5,000 ms of its clock: (name, its life, its `mono` and for how long it
/// was held, ms; the error that is kept, ms, if it is taken at all).
#[test]
fn an_echo_bounds_the_error_by_its_own_round_trip_or_not_at_all() {
    for (name, life, mono, held, error) in [
        ("there and back in 10 ms", 2, 4_990, 0, Some(5)),
        ("the same, held for 90 ms", 2, 4_900, 90, Some(5)),
        (
            "the same, but we stood for a second before we looked",
            2,
            3_900,
            90,
            Some(505),
        ),
        (
            "held for longer than went by: all that went by",
            2,
            4_900,
            400,
            Some(50),
        ),
        ("from the future", 2, 5_001, 0, None),
        ("round too slowly", 2, 2_900, 90, None),
        ("of our life before", 1, 4_990, 0, None),
        ("of our life before, held all the while", 1, 4_990, 3_000, None),
        ("by a peer that tells no lives", 0, 4_990, 0, None),
    ] {
        let mut compare = Compare::new(Options::default(), 2);
        let ms = |mono: u64| Clocks {
            mono: mono * MS,
            wall: mono * MS,
        };
        let echo = Echo {
            life,
            mono: mono * MS,
            held: held * MS,
        };
        let word = Word {
            clocks: ms(77),
            echo: Some(echo),
        };
        compare.hear(NodeId(1), 1, ms(5_000), word);
        let kept = compare.peers[&NodeId(1)].slots.back();
        assert_eq!(kept.map(|kept| kept.error / MS), error, "{name}");
    }
}

/// A process starts again and stands at once: what waits for it when it goes on are words that give back what it said in its
/// life before, and they waited for longer than its clock is ahead of that.
#[test]
fn echoes_of_a_life_before_accuse_nobody() {
    let good = Crystal::default();
    let mut world = World::new(&[good.clone(), good.clone(), good], 2_000, 3);
    // Node 0 counts from 0, twice.
    world.troubles = vec![
        (1, 0, Trouble::Restart),
        (600, 0, Trouble::Restart),
        (620, 0, Trouble::Freeze(1_200)),
    ];
    for _ in 0..60 {
        world.run(100);
        assert_eq!(world.fault(0), None, "at {} ms", world.t / MS);
        assert_eq!(world.strays(0), [] as [u64; 0], "at {} ms", world.t / MS);
    }
}

#[test]
fn wall_time_is_the_median_and_says_how_sure_it_is() {
    let off = |seconds: i64| Crystal {
        wall_off: seconds * 1_000_000,
        ..Crystal::default()
    };
    // (offsets in s, median in s, error in s at most, node 0 is wrong)
    for (offs, median, error, wrong) in [
        (&[0][..], 0.0, 0.0, false),
        (&[3600, 0, 0], 0.0, 0.01, true),
        (&[-3600, 0, 0], 0.0, 0.01, true),
        (&[0, 3600, 0], 0.0, 0.01, false),
        (&[10, 0], 5.0, 5.01, false),
        (&[20, 0, 10], 10.0, 10.01, false),
        (&[0, 0, 0, 50, 60], 0.0, 0.01, false),
    ] {
        let crystals: Vec<_> = offs.iter().map(|s| off(*s)).collect();
        let mut world = World::new(&crystals, 2_000, 5);
        world.run(1_000);
        let wall = world.wall(0);
        let real = 1_700_000_000_000_000 + world.t as i64;
        let says = wall.base + world.now(0).mono as i64;
        let gap = (says - real) as f64 / 1e6 - median;
        assert!(
            gap.abs() <= wall.error as f64 / 1e6 + 1e-3,
            "{offs:?}: off by {gap} s, error {} us",
            wall.error
        );
        assert!(wall.error as f64 / 1e6 <= error, "{offs:?}: error {} us", wall.error);
        assert_eq!((wall.wrong, wall.voices), (wrong, offs.len()), "{offs:?}");
    }
}

#[test]
fn who_is_silent_has_no_say() {
    let off = Crystal {
        wall_off: 9_000_000,
        ..Crystal::default()
    };
    let mut world = World::new(&[Crystal::default(), off.clone(), off], 1_000, 5);
    world.run(1_000);
    assert!(world.wall(0).off < -8_000_000);
    world.t += 3_000 * MS;
    assert_eq!((world.wall(0).off, world.wall(0).voices), (0, 1));
}

fn any_trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        Just(Trouble::Restart),
        (20u64..3_500).prop_map(Trouble::Freeze),
        (20u64..3_500).prop_map(Trouble::Hold),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// However slow and uneven the network is, nobody is accused whose clock is within the bound, and the majority never is.
    #[test]
    fn a_slow_network_accuses_nobody(seed in any::<u64>(), delay in 1u64..900_000, ppm in proptest::collection::vec(-2_000i64..2_000, 3..6)) {
        let crystals: Vec<_> = ppm.iter().map(|p| rate(*p)).collect();
        let mut world = World::new(&crystals, delay, seed);
        for _ in 0..24 {
            world.run(500);
            for node in 0..crystals.len() {
                prop_assert_eq!(world.fault(node), None, "node {} at {} ms", node, world.t / 1_000);
                prop_assert_eq!(world.strays(node), Vec::<u64>::new());
            }
        }
    }

    /// Nor do restarts, frozen processes and words that are held, in any order and all at once.
    #[test]
    fn restarts_freezes_and_held_words_accuse_nobody(
        seed in any::<u64>(),
        delay in 1u64..100_000,
        troubles in proptest::collection::vec((1u64..10_000, 0usize..3, any_trouble()), 1..20),
    ) {
        let mut world = World::new(&vec![Crystal::default(); 3], delay, seed);
        world.troubles = troubles;
        for _ in 0..140 {
            world.run(100);
            for node in 0..3 {
                prop_assert_eq!(world.fault(node), None, "node {} at {} ms", node, world.t / MS);
                prop_assert_eq!(world.strays(node), Vec::<u64>::new(), "node {} at {} ms", node, world.t / MS);
            }
        }
    }

    /// A good node is never told that it strays, whatever one other does.
    #[test]
    fn one_bad_clock_costs_no_good_node(seed in any::<u64>(), ppm in -200_000i64..200_000, us in -3_000_000i64..3_000_000) {
        let bad = Crystal { rate_ppm: ppm, steps: vec![(2_000_000, us)], wall_off: 0 };
        let mut world = World::new(&[bad, Crystal::default(), Crystal::default()], 5_000, seed);
        for _ in 0..16 {
            world.run(500);
            prop_assert_eq!((world.fault(1), world.fault(2)), (None, None));
        }
    }
}
