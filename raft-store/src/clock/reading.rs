//! The clock of a shard: time that a majority witnessed.
//!
//! An auction ends at a moment, and everybody must agree which bids came before it. Whose moment? A wall clock may step,
//! drift or lie; a leader's own monotonic clock dies with the leader, and goes on counting while the leader is frozen,
//! cut off, or already deposed. Each of these would eat bidding time that nobody could use, or give some back to those
//! who were lucky. So **consensus drives time; time does not drive consensus**: the shard's clock is a number in the
//! replicated state, `top`, and only committed entries move it. What this file holds is the leader's *reading*: its
//! guess, between two entries, of what the next one will say.
//!
//! ```text
//!                            <= hold_ms
//!            top             reading          real time
//!   ----------|-----------------|-----------------|------->  ms
//!   committed ^                 ^ bids are        ^ what the leader's
//!   by a majority                 stamped here      own clock would say
//!                                                   (its start is forgotten)
//! ```
//!
//! # The argument
//! **It never runs fast.** Each step of the reading is at most the real time since the last one. A sum of such steps is
//! at most the real time of the sum.
//!
//! **It never goes back.** Within an office steps are not negative. A new office starts at `base`, the `top` that its
//! replica has applied after its own marker came back through the log: at least every stamp that ever counted.
//!
//! **An outage eats at most `hold_ms`.** The reading never gets further ahead of the newest *applied* stamp than that.
//! A leader that lost its majority reads on for `hold_ms`, then stands. When the majority is back, the clock goes on
//! from where it stood: the outage did not happen, as far as bidding time is concerned.
//!
//! **A freeze eats at most `step_ms`.** Between two looks the reading advances at most so much, however long the process
//! was stopped. For this to hold *every reading is a look*: a socket that stamps a bid and the proposer that packs an
//! entry go through the same bounded step, under one lock. (Bounding only the proposer's looks lets the first bid after
//! a freeze of a second be stamped a second late; the simulation's plant `look_by_proposer`.)
//!
//! **Where a bound is met, the clock re-anchors.** It forgets the time that it may not count and goes on from there. The
//! natural way to write it, `min(base + elapsed, top + hold_ms)`, *remembers* that time: as soon as `top` moves, the
//! reading jumps by up to `hold_ms` at each entry until it has caught up, and eats the whole outage in bites (plant
//! `clamp`).
//!
//! **A change of leader eats nothing.** For `grace_ms` after taking office the clock stands at `base`, while edges send
//! again what the old leader never answered; those commands are judged at `base`, as if the interregnum had not been.
//! Real time counts from the *end* of the grace: counting from its beginning (plant `elapsed_in_grace`) makes the clock
//! jump by the grace when it ends.
//!
//! **What was lost is told.** Time that really passed but did not count is summed over re-anchors, and declared as a
//! `Hold` in the log once the sum is over `declare_ms` and the clock moves again. Summed, because a slow majority loses
//! a few ms at every look, none of which alone would ever be worth telling (plant `held_each`). Time counts as lost only
//! while it mattered: while a timer pends, or a command is in flight; the caller says so.
//!
//! What is left to trust: that the monotonic clock of one machine, over the tens of milliseconds between two entries,
//! isn't off by much. Comparing the rates of nodes is not this file's business.
//!
//! Deliberately absent: any clock. Real time is an argument, in monotonic ms from an origin of the caller's choice, so
//! that a test can run years of faults in a second.

use auction::{Hold, Stamp};

/// The bounds of the clock, all in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How far the reading may run ahead of the newest applied stamp: the most that an outage can eat.
    pub hold_ms: u64,
    /// How far it may advance between two looks: the most that a frozen process can eat.
    pub step_ms: u64,
    /// How long a new office stands at its base, for edges to send again what is unanswered.
    pub grace_ms: u64,
    /// A pending timer makes an entry at least this often.
    pub beat_ms: u64,
    /// The pace of beats where commits take over `slow_ms`: so that the reading seldom meets `hold_ms`.
    pub slow_beat_ms: u64,
    /// A round trip over this is slow.
    pub slow_ms: u64,
    /// The proposer looks this often while it has work or timers.
    pub look_ms: u64,
    /// Lost time is declared once its sum is over this.
    pub declare_ms: u64,
    /// Lost time is judged over stretches of this length,
    pub strain_ms: u64,
    /// and where more than this share of one was lost, another replica may do better.
    pub strain_percent: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hold_ms: 200,
            step_ms: 50,
            grace_ms: 150,
            beat_ms: 100,
            slow_beat_ms: 50,
            slow_ms: 60,
            look_ms: 5,
            declare_ms: 50,
            strain_ms: 10_000,
            strain_percent: 5,
        }
    }
}

/// The reading of one office's clock. See the module's narrative.
#[derive(Clone, Debug)]
pub struct Clock {
    options: Options,
    base: Stamp,
    reading: Stamp,
    /// Monotonic time of the last look.
    last: u64,
    /// Monotonic time at which the grace ends and the clock begins to run.
    stands_until: u64,
    /// Lost and not yet declared.
    lost: u64,
    /// Where the clock stood when it last lost time.
    stood: Stamp,
    /// Ready for the next entry, which takes them all; see `HOLDS_MAX`.
    holds: Vec<Hold>,
    /// All that was lost in this office, declared or not.
    held_total: u64,
    strain: Strain,
    #[cfg(test)]
    pub(crate) plant: Option<Plant>,
}

/// How much was lost lately.
#[derive(Clone, Copy, Debug)]
struct Strain {
    /// When the present stretch began (monotonic), and what had been lost by then.
    since: u64,
    held: u64,
    /// The verdict on the stretch before.
    over: bool,
}

impl Strain {
    fn look(&mut self, options: &Options, mono: u64, held: u64) {
        let length = mono.saturating_sub(self.since);
        if length >= options.strain_ms {
            self.over = (held - self.held) * 100 > length * options.strain_percent;
            (self.since, self.held) = (mono, held);
        }
    }
}

/// Holds that wait for an entry. An entry goes at least every beat while time counts, so this is never met in practice;
/// over it holds are merged into the newest.
const HOLDS_MAX: usize = 64;

/// Known mistakes, for tests that prove the checks.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plant {
    /// `min(base + elapsed, top + hold_ms)` instead of re-anchoring.
    Clamp,
    /// A socket's reading is not bounded by `step_ms`.
    LookByProposer,
    /// Real time counts from the taking of office.
    ElapsedInGrace,
    /// A hold is declared only when one re-anchor alone is over `declare_ms`.
    HeldEach,
}

impl Clock {
    /// The clock of an office taken at monotonic `mono`, from the applied `base`. `lost_ms`: real time that had already
    /// passed since `base` was heard of, or `None` if nothing was at stake then.
    #[must_use]
    pub fn take(options: Options, base: Stamp, mono: u64, lost_ms: Option<u64>) -> Self {
        let lost = lost_ms.map_or(0, |ms| ms.saturating_add(options.grace_ms));
        #[cfg(feature = "sim")]
        let base = match () {
            () if crate::sim::planted(crate::sim::Plant::ClockFallsBack) => Stamp(base.0.saturating_sub(500)),
            () if crate::sim::planted(crate::sim::Plant::ClockJumps) => base.plus(500),
            () => base,
        };
        Self {
            options,
            base,
            reading: base,
            last: mono,
            stands_until: mono.saturating_add(options.grace_ms),
            lost,
            stood: base,
            holds: Vec::new(),
            held_total: lost,
            strain: Strain {
                since: mono.saturating_add(options.grace_ms),
                held: lost,
                over: false,
            },
            #[cfg(test)]
            plant: None,
        }
    }

    /// Reads the clock: one look. `top` is the newest applied stamp; `counts` tells whether time that is lost now
    /// matters to anyone (a timer pends, or a command is in flight).
    pub fn read(&mut self, mono: u64, top: Stamp, counts: bool) -> Stamp {
        self.look(mono, top, counts, self.options.step_ms)
    }

    fn look(&mut self, mono: u64, top: Stamp, counts: bool, step_ms: u64) -> Stamp {
        if mono < self.stands_until {
            return self.reading;
        }
        let passed = mono.saturating_sub(self.last.max(self.running_since()));
        #[cfg(test)]
        if self.plant == Some(Plant::Clamp) {
            let wish = self.base.plus(mono - self.stands_until);
            self.reading = self.reading.max(wish.min(top.plus(self.options.hold_ms)));
            return self.reading;
        }
        let ahead = top.plus(self.options.hold_ms).since(self.reading);
        #[cfg(feature = "sim")]
        let (ahead, step_ms) = match crate::sim::planted(crate::sim::Plant::ClockRunsFree) {
            true => (u64::MAX, u64::MAX),
            false => (ahead, step_ms),
        };
        let step = passed.min(step_ms).min(ahead);
        let lost = passed - step;
        if counts && lost > 0 {
            self.lose(lost);
        }
        self.reading = self.reading.plus(step);
        self.last = self.last.max(mono);
        self.strain.look(&self.options, mono, self.held_total);
        if self.lost > self.options.declare_ms && self.reading > self.stood {
            self.declare();
        }
        self.reading
    }

    fn running_since(&self) -> u64 {
        #[cfg(test)]
        if self.plant == Some(Plant::ElapsedInGrace) {
            return 0;
        }
        self.stands_until
    }

    fn lose(&mut self, lost: u64) {
        self.stood = self.reading;
        self.held_total += lost;
        #[cfg(test)]
        if self.plant == Some(Plant::HeldEach) && lost <= self.options.declare_ms {
            return;
        }
        self.lost += lost;
    }

    fn declare(&mut self) {
        let hold = Hold {
            stamp: self.stood,
            lost_ms: self.lost,
        };
        self.lost = 0;
        let full = self.holds.len() >= HOLDS_MAX;
        match self.holds.last_mut() {
            Some(last) if full => {
                last.stamp = hold.stamp;
                last.lost_ms += hold.lost_ms;
            }
            _ => self.holds.push(hold),
        }
    }

    /// A reading by a socket. The same as `read`; only the planted mistake makes them differ.
    pub(crate) fn read_at_door(&mut self, mono: u64, top: Stamp, counts: bool) -> Stamp {
        #[cfg(test)]
        if self.plant == Some(Plant::LookByProposer) {
            return self.look(mono, top, counts, u64::MAX);
        }
        self.read(mono, top, counts)
    }

    /// Whether the office still stands in its grace.
    #[must_use]
    pub fn in_grace(&self, mono: u64) -> bool {
        mono < self.stands_until
    }

    /// Monotonic time at which the grace ends.
    #[must_use]
    pub fn grace_ends(&self) -> u64 {
        self.stands_until
    }

    /// Where this office began.
    #[must_use]
    pub fn base(&self) -> Stamp {
        self.base
    }

    /// The last reading, without a look.
    #[must_use]
    pub fn last_reading(&self) -> Stamp {
        self.reading
    }

    /// Whether too much was lost in the last whole stretch of `strain_ms`: a reason to hand leadership over.
    #[must_use]
    pub fn is_strained(&self) -> bool {
        self.strain.over
    }

    /// Whether the last look was at `mono`.
    #[cfg(test)]
    pub(crate) fn looked_at(&self, mono: u64) -> bool {
        self.last == mono || self.in_grace(mono)
    }

    /// Holds to declare in the next entry.
    pub fn take_holds(&mut self) -> Vec<Hold> {
        std::mem::take(&mut self.holds)
    }

    /// Of what was lost when this office was taken, `ms` are in the total of an office before it: it ended without moving
    /// `top`, so both count from the same moment. Changes totals only: what is declared is what the log doesn't know yet.
    pub fn counted_before(&mut self, ms: u64) {
        self.held_total = self.held_total.saturating_sub(ms);
        self.strain.held = self.held_total;
    }

    /// Milliseconds lost in this office so far, interregnum and grace included.
    #[must_use]
    pub fn held_total_ms(&self) -> u64 {
        self.held_total
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    const O: Options = Options {
        hold_ms: 200,
        step_ms: 50,
        grace_ms: 150,
        beat_ms: 100,
        slow_beat_ms: 50,
        slow_ms: 60,
        look_ms: 5,
        declare_ms: 50,
        strain_ms: 10_000,
        strain_percent: 5,
    };

    /// One row a look: `(mono, top, reading after it)`.
    fn check(rows: &[(u64, u64, u64)]) -> Clock {
        let mut clock = Clock::take(O, Stamp(1000), 0, Some(0));
        for &(mono, top, reading) in rows {
            assert_eq!(
                clock.read(mono, Stamp(top), true),
                Stamp(reading),
                "at mono {mono}, top {top}"
            );
        }
        clock
    }

    #[test]
    fn stands_in_the_grace_and_runs_from_its_end() {
        check(&[
            (0, 1000, 1000),
            (149, 1000, 1000),
            (150, 1000, 1000),
            (151, 1000, 1001),
            (190, 1000, 1040),
        ]);
    }

    #[test]
    fn stands_where_the_majority_last_was_and_goes_on_without_a_jump() {
        let mut clock = check(&[
            (150, 1000, 1000),
            (200, 1000, 1050),
            (250, 1000, 1100),
            (300, 1000, 1150),
            (350, 1000, 1200),
            (400, 1000, 1200), // 200 ahead of top: stands
            (900, 1000, 1200),
            (905, 1200, 1205), // top moved: goes on from there, the half second never was
        ]);
        // Interregnum 0 + grace 150, told when the clock first moved; then 550 at 1200.
        assert_eq!(
            clock.take_holds(),
            [
                Hold {
                    stamp: Stamp(1000),
                    lost_ms: 150
                },
                Hold {
                    stamp: Stamp(1200),
                    lost_ms: 550
                }
            ]
        );
        assert_eq!(clock.held_total_ms(), 700);
    }

    #[test]
    fn a_freeze_eats_one_step() {
        check(&[
            (150, 1000, 1000),
            (155, 1000, 1005),
            (60_155, 1005, 1055),
            (60_160, 1055, 1060),
        ]);
    }

    #[test]
    fn small_losses_are_summed_until_they_are_worth_telling() {
        let mut clock = Clock::take(O, Stamp(0), 0, None);
        let mut mono = 150;
        clock.read(mono, Stamp(0), true);
        for k in 1..=5_u64 {
            mono += 70; // 20 over the step
            clock.read(mono, Stamp(k * 50), true);
        }
        assert_eq!(
            clock.take_holds(),
            [Hold {
                stamp: Stamp(100),
                lost_ms: 60
            }]
        );
        assert_eq!(clock.held_total_ms(), 100);
    }

    #[test]
    fn idle_time_is_nobodys_loss() {
        let mut clock = Clock::take(O, Stamp(0), 0, None);
        clock.read(10_000, Stamp(0), false);
        clock.read(10_100, Stamp(0), false);
        assert_eq!((clock.held_total_ms(), clock.take_holds()), (0, vec![]));
    }

    #[test]
    fn a_clock_that_loses_much_says_so_until_it_is_better() {
        let mut clock = Clock::take(O, Stamp(0), 0, None);
        let mut mono = 150;
        let mut live = |looks: u64, ms: u64| {
            for _ in 0..looks {
                mono += ms;
                let top = clock.last_reading();
                clock.read(mono, top, true);
            }
            clock.is_strained()
        };
        assert!(!live(2_000, 5), "ten seconds without a loss");
        assert!(live(200, 60), "10 of each 60 ms lost");
        assert!(!live(4_000, 5));
    }

    /// What may happen between two looks: real time passes, and `top` catches up by a share of what is ahead.
    fn life() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
        proptest::collection::vec(
            (prop_oneof![8 => 0u64..12, 1 => 0u64..3000], 0u64..=100, any::<bool>()),
            1..200,
        )
    }

    /// Runs a life and tells the first broken promise.
    fn live(looks: &[(u64, u64, bool)], plant: Option<Plant>) -> Result<(), String> {
        let mut clock = Clock::take(O, Stamp(500), 0, Some(40));
        clock.plant = plant;
        let (mut mono, mut top, mut last) = (0u64, Stamp(500), Stamp(500));
        let (mut declared, mut moved) = (0, 0);
        for &(passed, percent, door) in looks {
            mono += passed;
            let now = if door {
                clock.read_at_door(mono, top, true)
            } else {
                clock.read(mono, top, true)
            };
            let step = now.0.checked_sub(last.0).ok_or("went back")?;
            if step > passed {
                return Err(format!("fast: {step} in {passed}"));
            }
            if step > O.step_ms {
                return Err(format!("one look ate {step}"));
            }
            if now > top.plus(O.hold_ms) {
                return Err(format!("{now:?} is over hold_ms ahead of {top:?}"));
            }
            declared += clock.take_holds().iter().map(|h| h.lost_ms).sum::<u64>();
            moved += step;
            last = now;
            top = top.plus(now.since(top) * percent / 100);
        }
        let real = 40 + mono.max(O.grace_ms);
        let stood = real - moved;
        if mono > O.grace_ms && stood.saturating_sub(declared) > O.declare_ms && last > clock.stood {
            return Err(format!("{stood} ms did not count, {declared} declared"));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn holds_its_bounds_over_any_life(looks in life()) {
            prop_assert_eq!(live(&looks, None), Ok(()));
        }
    }

    #[test]
    fn each_planted_mistake_is_caught() {
        let freeze = [(150, 100, false), (5, 100, false), (2000, 100, true), (5, 100, true)];
        let outage: Vec<_> = (0..100).map(|k| (10, u64::from(k > 80) * 100, false)).collect();
        let slow: Vec<_> = (0..100).map(|_| (70, 100, false)).collect();
        for (plant, looks) in [
            (Plant::Clamp, &outage[..]),
            (Plant::LookByProposer, &freeze[..]),
            (Plant::ElapsedInGrace, &outage[..]),
            (Plant::HeldEach, &slow[..]),
        ] {
            assert_eq!(live(looks, None), Ok(()));
            assert!(live(looks, Some(plant)).is_err(), "{plant:?} went unseen");
        }
    }
}
