//! Clocks that stray, judged: who is wrong must be told apart, and nobody else.
//!
//! ```text
//!   all the while     a node whose clocks were right is accused, with at most one other that was wrong    S10
//!   after the show    one clock goes wrong, nothing else is:
//!                     accused within CAUGHT_MS --> leads nothing within GIVEN_MS --> mended: trusted within TRUSTED_MS
//! ```
//!
//! No freeze, no lost message, no slow network and no restart excuses an accusation: what nodes say of each other's clocks
//! takes errors off first (`raft_store::clock::compare`). Two clocks that are wrong at once do: the third may then look
//! like the stray, and nobody can tell.

use super::{cluster::Cluster, judge::Seen};
use client::Dice;
use raft_store::{Host, Unfit};
use std::collections::{BTreeMap, BTreeSet};

/// A rate of 7,500 ppm is 50 ms in 7 s; the bound is 50 ms surely, within a window of 10 s.
pub(super) const CAUGHT_MS: u64 = 14_000;
/// From the accusation to the last leadership's end.
pub(super) const GIVEN_MS: u64 = 5_000;
/// The window, and a bit. At rest, where nodes speak of their clocks once a second, twenty words are as many seconds.
pub(super) const TRUSTED_MS: u64 = 30_000;
/// A clock that was wrong at a moment counts as wrong for so long.
const WRONG_FOR_MS: u64 = TRUSTED_MS;
/// Half of what is caught (0.5 %) can't be accused, whatever else there is.
const FINE_PPM: i64 = 1_000;

/// What is remembered of each machine's clocks.
pub(super) struct Clocks {
    dice: Dice,
    /// When each was last seen to be wrong, ms.
    wrong: BTreeMap<usize, u64>,
    /// Whose clock goes wrong after the show.
    stray: Option<usize>,
    told: BTreeSet<usize>,
}

/// Whether a node says that its clocks stray.
fn says_so(host: &Host) -> bool {
    let of_clocks = [Unfit::ClockRate, Unfit::ClockStep, Unfit::WallTime];
    host.unfit().borrow().iter().any(|why| of_clocks.contains(why))
}

/// Whether the node at a place says that its clocks stray.
pub(super) fn accused(cluster: &Cluster, at: usize) -> bool {
    let said = cluster.ask(|_, host| says_so(host));
    said.get(at).copied().flatten() == Some(true)
}

/// Whether the node at a place leads no shard, by its own word.
pub(super) fn leads_nothing(cluster: &Cluster, at: usize) -> bool {
    let leads = |node, host: &Host| {
        let mut leaders = host.leaders().into_iter();
        leaders.any(|(_, _, leader)| leader.is_some_and(|leader| leader.0 == node))
    };
    cluster.ask(leads).get(at).copied().flatten() == Some(false)
}

impl Clocks {
    pub(super) fn new(dice: Dice) -> Clocks {
        Clocks {
            dice,
            wrong: BTreeMap::new(),
            stray: None,
            told: BTreeSet::new(),
        }
    }

    /// Who is accused now, and might be.
    pub(super) fn look(&mut self, cluster: &Cluster, seen: &mut Seen) {
        let now = cluster.now_ms;
        for (at, machine) in cluster.machines.iter().enumerate() {
            if machine.rate_ppm.abs() > FINE_PPM || machine.wall_error_ms != 0 {
                self.wrong.insert(at, now);
            }
        }
        self.wrong.retain(|_, at| now < *at + WRONG_FOR_MS);
        if self.wrong.len() > 1 {
            return;
        }
        for (at, accused) in cluster.ask(|_, host| says_so(host)).into_iter().enumerate() {
            let excused = self.wrong.contains_key(&at) || self.stray == Some(at);
            if accused == Some(true) && !excused && self.told.insert(at) {
                seen.find(format!(
                    "S10: node {} strays at {now}, it says; its clocks are right",
                    at + 1
                ));
            }
        }
    }

    /// Makes one machine's clock wrong: which, and how.
    pub(super) fn fault(&mut self, cluster: &mut Cluster) -> (usize, String) {
        let at = self.dice.below(cluster.begun as u64) as usize;
        self.stray = Some(at);
        let sign = if self.dice.chance(50) { 1 } else { -1 };
        let machine = &mut cluster.machines[at];
        let what = if self.dice.chance(30) {
            let ms = sign * self.dice.between(2_000, 7_200_000) as i64;
            machine.wall_error_ms = ms;
            format!("a wall clock {ms} ms off")
        } else {
            let ppm = sign * self.dice.between(7_500, 50_000) as i64;
            machine.rate_ppm = ppm;
            format!("a clock {ppm} ppm fast")
        };
        (at, what)
    }
}
