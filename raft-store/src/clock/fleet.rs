//! This node's clocks among its peers': what is said of them, what is heard, and what follows.
//!
//! ```text
//!   pulse out: word(node) --------> {mono, wall, echo}                  Host::clock()  <-- status
//!   pulse in:  hear(node, word) --> compare                                  |
//!   each look: ------------------> who strays? --> Fitness, shunned peers, metrics
//!                                  what time is it? --> wall(): scheduled starts, here and in every proposer
//! ```
//!
//! **What a stray does.** It gives its leaderships to nodes that are fit, is given none, and stands for election after all
//! others that are fit (never *not at all*: a shard whose only complete replica is a stray's had better be led by it; the
//! held reading bounds what its clock can do). It is fit again when its clocks were good for a whole window.
//!
//! **Between two words** wall time goes on by the lesser of what this node's two clocks say went by. Either may jump; a
//! scheduled start that waits for the next word, a twentieth of a second, is better than one that comes an hour early.
//!
//! Deliberately absent: the arithmetic (`compare`), the handing over (`pulse`).

use super::{
    compare::{Clocks, Compare, Echo, Fault, Options, Word},
    time::Time,
};
use crate::{
    fitness::{Fitness, Unfit},
    metrics,
};
use auction::Wall;
use parking_lot::Mutex;
use placement::NodeId;
use proto::raft::v1 as pb;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A node's clocks against its peers', as operators see them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeClock {
    /// Wall time by the median, and how sure that is.
    pub wall: Wall,
    /// This node's own wall clock minus the median, ms.
    pub wall_off_ms: i64,
    /// How many nodes' clocks that is the median of.
    pub voices: usize,
    /// How much faster each peer's monotonic clock runs than ours, parts per million.
    pub rates_ppm: BTreeMap<NodeId, i64>,
    /// Why this node should not lead, with a line for each reason.
    pub unfit: Vec<(Unfit, String)>,
    /// Peers whose clocks stray, as far as this node can tell: they get no leadership from here.
    pub shunned: Vec<NodeId>,
}

/// The median as it was found last.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// Median minus our monotonic clock, and minus our wall clock, µs.
    by_mono: i64,
    by_wall: i64,
    error: u64,
    voices: usize,
}

#[derive(Debug, Default)]
struct Judged {
    /// When our monotonic clock was last found to stray, by the caller's clock, and how.
    fault: Option<(u64, Fault)>,
    /// The same of our wall clock: by how much, µs.
    wall: Option<(u64, i64)>,
    rates: BTreeMap<NodeId, i64>,
    strays: BTreeSet<NodeId>,
}

/// See the module's narrative.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// This life of the process.
    life: u64,
    time: Time,
    options: Options,
    compare: Mutex<Compare>,
    fitness: Arc<Fitness>,
    found: Mutex<Found>,
    judged: Mutex<Judged>,
}

impl Fleet {
    pub(crate) fn new(time: Time, options: Options, fitness: Arc<Fitness>) -> Fleet {
        let found = Found {
            by_mono: gap(time.wall_us(), time.mono_us()),
            by_wall: 0,
            error: 0,
            voices: 1,
        };
        // 0 is what a peer that says nothing of lives echoes: no life of ours.
        let life = rand::random::<u64>().max(1);
        Fleet {
            life,
            time,
            options,
            compare: Mutex::new(Compare::new(options, life)),
            fitness,
            found: Mutex::new(found),
            judged: Mutex::default(),
        }
    }

    /// Which life of the process this is.
    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    /// What speaks against leading here.
    pub(crate) fn fitness(&self) -> &Arc<Fitness> {
        &self.fitness
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            mono: self.time.mono_us(),
            wall: self.time.wall_us(),
        }
    }

    /// What to say to a peer, now.
    pub(crate) fn word(&self, node: NodeId) -> pb::ClockWord {
        // The clocks are read last: what comes between is the round trip's.
        let compare = self.compare.lock();
        let clocks = self.clocks();
        let echo = compare.echo(node, clocks);
        pb::ClockWord {
            mono_us: clocks.mono,
            wall_us: clocks.wall,
            echo_us: echo.map_or(0, |echo| echo.mono),
            held_us: echo.map(|echo| echo.held),
            echo_life: echo.map_or(0, |echo| echo.life),
        }
    }

    /// A peer spoke.
    pub(crate) fn hear(&self, node: NodeId, life: u64, word: Option<pb::ClockWord>) {
        if let Some(word) = word {
            let clocks = Clocks {
                mono: word.mono_us,
                wall: word.wall_us,
            };
            let echo = word.held_us.map(|held| Echo {
                life: word.echo_life,
                mono: word.echo_us,
                held,
            });
            self.compare
                .lock()
                .hear(node, life, self.clocks(), Word { clocks, echo });
        }
    }

    /// Whether a peer's monotonic clock strays, as far as this node can tell.
    pub(crate) fn strays(&self, node: NodeId) -> bool {
        self.judged.lock().strays.contains(&node)
    }

    /// Wall time, by most nodes' clocks.
    pub(crate) fn wall(&self) -> Wall {
        let now = self.clocks();
        let found = *self.found.lock();
        let us = now
            .mono
            .saturating_add_signed(found.by_mono)
            .min(now.wall.saturating_add_signed(found.by_wall));
        Wall {
            ms: us / 1_000,
            error_ms: found.error.div_ceil(1_000),
        }
    }

    /// Judges, at `at` of a clock of the caller's (ms): that clock only paces how long a reason holds.
    pub(crate) fn look(&self, at: u64) {
        let (drifts, fault, strays, wall, now) = {
            let compare = self.compare.lock();
            let now = self.clocks();
            let drifts = compare.drifts(now);
            let fault = compare.own_fault(&drifts);
            let strays = compare.strays(&drifts);
            (drifts, fault, strays, compare.wall(now), now)
        };
        *self.found.lock() = Found {
            by_mono: wall.base,
            by_wall: wall.off.saturating_neg(),
            error: wall.error,
            voices: wall.voices,
        };
        metrics::wall(wall.off, wall.error);
        let mut judged = self.judged.lock();
        let jumped = |fault: &Option<(u64, Fault)>| matches!(fault, Some((_, Fault::Step { .. })));
        let before = jumped(&judged.fault);
        if let Some(fault) = fault {
            judged.fault = Some((at, fault));
        }
        if wall.wrong {
            judged.wall = Some((at, wall.off));
        }
        let window = self.options.window_ms;
        let over = |since: u64| at.saturating_sub(since) >= window;
        judged.fault = judged.fault.filter(|fault| fault.0 == at || !over(fault.0));
        judged.wall = judged.wall.filter(|wall| wall.0 == at || !over(wall.0));
        if jumped(&judged.fault) && !before {
            metrics::jumped();
        }
        judged.strays = strays.into_iter().collect();
        judged.rates = drifts.iter().map(|(node, drift)| (*node, drift.rate_ppm)).collect();
        for (node, ppm) in &judged.rates {
            metrics::rate(*node, *ppm);
        }
        self.tell(judged.fault.map(|fault| fault.1), judged.wall.map(|wall| wall.1));
        tracing::trace!(mono = now.mono, "clocks compared");
    }

    fn tell(&self, fault: Option<Fault>, wall_off: Option<i64>) {
        let (rate, step) = (
            matches!(fault, Some(Fault::Rate { .. })),
            matches!(fault, Some(Fault::Step { .. })),
        );
        self.fitness.set(Unfit::ClockRate, rate);
        self.fitness.set(Unfit::ClockStep, step);
        self.fitness.set(Unfit::WallTime, wall_off.is_some());
    }

    /// All of it, for operators.
    pub(crate) fn status(&self) -> NodeClock {
        let wall = self.wall();
        let found = *self.found.lock();
        let judged = self.judged.lock();
        let line = |reason: Unfit| match (reason, judged.fault, judged.wall) {
            (Unfit::ClockRate, Some((_, Fault::Rate { ppm })), _) => {
                format!("the monotonic clock runs {ppm} ppm faster than most peers'")
            }
            (Unfit::ClockStep, Some((_, Fault::Step { ms })), _) => format!("the monotonic clock jumped by {ms} ms"),
            (Unfit::WallTime, _, Some((_, us))) => format!("the wall clock is {} ms off the median", us / 1_000),
            (other, ..) => other.says().to_owned(),
        };
        let reasons = self.fitness.reasons();
        NodeClock {
            wall,
            wall_off_ms: found.by_wall.saturating_neg() / 1_000,
            voices: found.voices,
            rates_ppm: judged.rates.clone(),
            unfit: reasons.into_iter().map(|reason| (reason, line(reason))).collect(),
            shunned: judged.strays.iter().copied().collect(),
        }
    }
}

fn gap(a: u64, b: u64) -> i64 {
    let of = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    of(a) - of(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::time::Source;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// Clocks that stand until they are set.
    #[derive(Debug, Default)]
    struct Hands {
        mono: AtomicU64,
        wall: AtomicU64,
    }

    impl Source for Hands {
        fn mono_us(&self) -> u64 {
            self.mono.load(Relaxed)
        }
        fn wall_us(&self) -> u64 {
            self.wall.load(Relaxed)
        }
    }

    const MS: u64 = 1_000;

    /// (what our monotonic clock and our wall clock did since the last look, how far wall time went on), ms.
    #[test]
    fn wall_time_between_looks_goes_by_the_slower_clock() {
        for (mono, wall, went) in [
            (40, 40, 40),
            (40, 3_600_040, 40),
            (2_040, 40, 40),
            (40, 0, 0),
            (0, 40, 0),
        ] {
            let hands = Arc::new(Hands::default());
            hands.wall.store(9_000_000 * MS, Relaxed);
            let fleet = Fleet::new(Time::of(hands.clone()), Options::default(), Arc::default());
            fleet.look(0);
            assert_eq!(fleet.wall().ms, 9_000_000);
            hands.mono.fetch_add(mono * MS, Relaxed);
            hands.wall.fetch_add(wall * MS, Relaxed);
            assert_eq!(fleet.wall().ms, 9_000_000 + went, "mono {mono}, wall {wall}");
        }
    }

    #[test]
    fn a_reason_holds_for_a_window_after_it_was_last_seen() {
        let (hands, window) = (Arc::new(Hands::default()), Options::default().window_ms);
        let fleet = Fleet::new(Time::of(hands.clone()), Options::default(), Arc::default());
        let peers = |fleet: &Fleet, wall: u64| {
            for node in [2, 3] {
                let echo = fleet.word(NodeId(node)).mono_us;
                let word = pb::ClockWord {
                    mono_us: echo,
                    wall_us: wall,
                    echo_us: echo,
                    held_us: Some(0),
                    echo_life: fleet.life(),
                };
                fleet.hear(NodeId(node), 1, Some(word));
            }
        };
        peers(&fleet, 5_000_000 * MS);
        fleet.look(100);
        assert_eq!(fleet.fitness().reasons().len(), 1);
        assert_eq!(fleet.status().wall_off_ms, -5_000_000);
        // The clock is set right.
        hands.wall.store(5_000_000 * MS, Relaxed);
        fleet.look(200);
        assert!(!fleet.fitness().is_fit());
        fleet.look(99 + window);
        assert!(!fleet.fitness().is_fit());
        fleet.look(100 + window);
        assert!(fleet.fitness().is_fit());
    }
}
