//! One direction of a network: what becomes of a datagram, and when it comes out.
//!
//! ```text
//!   queue of a bottleneck (rate, tail drop) --> loss --> delay + jitter (in order) --> reordering, duplicates
//! ```
//!
//! Every datagram rolls the same dice in the same order, whatever becomes of it: one knob that is turned changes its own
//! effect and shifts nobody else's rolls.

use std::time::Duration;

const MILLION: u64 = 1_000_000;
const NANOS: u128 = 1_000_000_000;

/// How the network is. The default is perfect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Datagrams lost on their own, in a million.
    pub loss_ppm: u32,
    /// Losses that come together, beside those.
    pub burst: Option<Burst>,
    /// How long each is on its way.
    pub delay: Duration,
    /// At most so much longer, evenly; the order is kept.
    pub jitter: Duration,
    /// Datagrams, in a million, that are held back by `reorder_by`, so that later ones overtake them.
    pub reorder_ppm: u32,
    /// How long those are held back.
    pub reorder_by: Duration,
    /// Datagrams, in a million, that come twice.
    pub duplicate_ppm: u32,
    /// A bottleneck.
    pub rate: Option<Rate>,
}

/// Losses in bursts, after Gilbert and Elliott: a good state that loses nothing, and a bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// From good to bad, in a million, at each datagram.
    pub enter_ppm: u32,
    /// From bad to good.
    pub leave_ppm: u32,
    /// Lost while it is bad.
    pub loss_ppm: u32,
}

/// A bottleneck and the queue before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits a second that go through; 0: nothing does.
    pub bits_per_s: u64,
    /// Bytes that may wait; what finds no room is lost.
    pub queue_bytes: u64,
}

/// Why a datagram was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// By the queue, which was full.
    Queue,
    /// On its own.
    Alone,
    /// In a burst.
    Burst,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never comes.
    Lost(Lost),
    /// It comes out at this moment, on the clock by which it was offered; and a second time, if it was doubled.
    Comes {
        /// When.
        at: Duration,
        /// Twice.
        twice: bool,
    },
}

/// What a link has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams that were offered.
    pub offered: u64,
    /// Those that were lost, for whatever reason.
    pub lost: u64,
    /// Those that came twice.
    pub doubled: u64,
    /// Those that were held back.
    pub held_back: u64,
}

/// `SplitMix64`: small, and the same on every machine and in every release, which is what a seed is for.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..n`; 0 if `n` is 0.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(n)) >> 64) as u64
    }

    fn happens(&mut self, ppm: u32) -> bool {
        self.below(MILLION) < u64::from(ppm)
    }
}

/// One direction.
#[derive(Clone, Debug)]
pub struct Link {
    weather: Weather,
    dice: Dice,
    bad: bool,
    /// When the bottleneck has sent all that it took.
    free: Duration,
    /// When the newest that keeps the order comes out.
    newest: Duration,
    counts: Counts,
}

impl Link {
    /// A link whose dice are decided by `seed`.
    #[must_use]
    pub fn new(weather: Weather, seed: u64) -> Link {
        Link {
            weather,
            dice: Dice(seed),
            bad: false,
            free: Duration::ZERO,
            newest: Duration::ZERO,
            counts: Counts::default(),
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The weather changes, for what is offered from now on.
    pub fn change(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// A datagram of `bytes` is offered at `now`, which never goes back.
    pub fn offer(&mut self, now: Duration, bytes: usize) -> Fate {
        let Weather {
            loss_ppm,
            burst,
            delay,
            jitter,
            reorder_ppm,
            reorder_by,
            duplicate_ppm,
            rate,
        } = self.weather;
        let alone = self.dice.happens(loss_ppm);
        let in_burst = self.burst(burst);
        let wait = Duration::from_nanos(self.dice.below(jitter.as_nanos() as u64 + 1));
        let held_back = self.dice.happens(reorder_ppm);
        let twice = self.dice.happens(duplicate_ppm);
        self.counts.offered += 1;
        // What is lost behind the bottleneck has taken its room there.
        let Some(sent) = self.bottleneck(rate, now, bytes) else {
            return self.lose(Lost::Queue);
        };
        if alone {
            return self.lose(Lost::Alone);
        }
        if in_burst {
            return self.lose(Lost::Burst);
        }
        let in_order = (sent + delay + wait).max(self.newest);
        self.newest = in_order;
        self.counts.doubled += u64::from(twice);
        self.counts.held_back += u64::from(held_back);
        let at = if held_back { in_order + reorder_by } else { in_order };
        Fate::Comes { at, twice }
    }

    fn lose(&mut self, why: Lost) -> Fate {
        self.counts.lost += 1;
        Fate::Lost(why)
    }

    fn burst(&mut self, burst: Option<Burst>) -> bool {
        let Burst {
            enter_ppm,
            leave_ppm,
            loss_ppm,
        } = burst.unwrap_or(Burst {
            enter_ppm: 0,
            leave_ppm: MILLION as u32,
            loss_ppm: 0,
        });
        let turns = self.dice.happens(if self.bad { leave_ppm } else { enter_ppm });
        self.bad ^= turns;
        self.dice.happens(loss_ppm) && self.bad
    }

    /// When the datagram has left the bottleneck; none: no room.
    fn bottleneck(&mut self, rate: Option<Rate>, now: Duration, bytes: usize) -> Option<Duration> {
        let Some(Rate {
            bits_per_s,
            queue_bytes,
        }) = rate
        else {
            return Some(now);
        };
        if bits_per_s == 0 {
            return None;
        }
        let waits = self.free.saturating_sub(now);
        let queued = (waits.as_nanos() * u128::from(bits_per_s)).div_ceil(8 * NANOS);
        // An idle bottleneck takes one of any size.
        if queued > 0 && queued + bytes as u128 > u128::from(queue_bytes) {
            return None;
        }
        let takes = (bytes as u128 * 8 * NANOS).div_ceil(u128::from(bits_per_s));
        self.free = self.free.max(now) + Duration::from_nanos(takes as u64);
        Some(self.free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const CLEAR: Weather = Weather {
        loss_ppm: 0,
        burst: None,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        reorder_ppm: 0,
        reorder_by: Duration::ZERO,
        duplicate_ppm: 0,
        rate: None,
    };

    /// Datagrams of 1,000 bytes at these milliseconds come out at those; `None` is lost.
    #[track_caller]
    fn check(weather: Weather, at: &[u64], expect: &[Option<u64>]) {
        let mut link = Link::new(weather, 1);
        let seen: Vec<Option<u64>> = at
            .iter()
            .map(|ms| match link.offer(MS * *ms as u32, 1_000) {
                Fate::Comes { at, .. } => Some(at.as_millis() as u64),
                Fate::Lost(_) => None,
            })
            .collect();
        assert_eq!(seen, expect, "{weather:?}");
        let lost = expect.iter().filter(|e| e.is_none()).count() as u64;
        assert_eq!((link.counts().offered, link.counts().lost), (at.len() as u64, lost));
    }

    #[test]
    fn each_knob_does_what_it_says() {
        check(CLEAR, &[0, 5, 5, 9], &[Some(0), Some(5), Some(5), Some(9)]);
        let delay = 40 * MS;
        check(Weather { delay, ..CLEAR }, &[0, 5], &[Some(40), Some(45)]);
        let loss_ppm = 1_000_000;
        check(Weather { loss_ppm, ..CLEAR }, &[0, 5], &[None, None]);
        // 8 Mbit/s: a millisecond for each; three may wait, the one under way is counted until it has gone.
        let rate = Some(Rate {
            bits_per_s: 8_000_000,
            queue_bytes: 3_000,
        });
        let queue = Weather { rate, ..CLEAR };
        check(queue, &[0, 0, 0, 0, 1], &[Some(1), Some(2), Some(3), None, Some(4)]);
        check(queue, &[0, 9], &[Some(1), Some(10)]);
        let shut = Some(Rate {
            bits_per_s: 0,
            queue_bytes: 3_000,
        });
        check(Weather { rate: shut, ..CLEAR }, &[0, 9], &[None, None]);
        let held = Weather {
            reorder_ppm: 1_000_000,
            reorder_by: 7 * MS,
            ..CLEAR
        };
        check(held, &[0, 5], &[Some(7), Some(12)]);
    }

    #[test]
    fn a_datagram_that_is_larger_than_the_queue_goes_through_an_idle_bottleneck() {
        let rate = Some(Rate {
            bits_per_s: 8_000_000,
            queue_bytes: 10,
        });
        check(Weather { rate, ..CLEAR }, &[0, 0, 1], &[Some(1), None, Some(2)]);
    }

    #[test]
    fn twice_is_twice() {
        let weather = Weather {
            duplicate_ppm: 1_000_000,
            ..CLEAR
        };
        let fate = Link::new(weather, 1).offer(MS, 1);
        assert_eq!(fate, Fate::Comes { at: MS, twice: true });
    }

    #[test]
    fn a_burst_loses_neighbours_as_often_as_it_says() {
        // Bad for 1 of 20 datagrams, 10 at a time, half of them lost: 2.5 %.
        let burst = Some(Burst {
            enter_ppm: 5_263,
            leave_ppm: 100_000,
            loss_ppm: 500_000,
        });
        let mut link = Link::new(Weather { burst, ..CLEAR }, 7);
        let fates: Vec<bool> = (0..400_000)
            .map(|n| matches!(link.offer(MS * n, 100), Fate::Lost(Lost::Burst)))
            .collect();
        let lost = fates.iter().filter(|lost| **lost).count();
        assert!((9_000..11_000).contains(&lost), "{lost} of 400,000");
        // Alone, 2.5 % would have a neighbour that is lost in 2.5 % of cases; here it is 45 %.
        let pairs = fates.windows(2).filter(|pair| pair[0] && pair[1]).count();
        assert!(pairs * 100 > lost * 35, "{pairs} neighbours of {lost}");
    }

    fn weather() -> impl Strategy<Value = Weather> {
        let share = 0u32..=200_000;
        let burst =
            (share.clone(), 1u32..=1_000_000, share.clone()).prop_map(|(enter_ppm, leave_ppm, loss_ppm)| Burst {
                enter_ppm,
                leave_ppm,
                loss_ppm,
            });
        let rate = (1u64..=100_000_000, 0u64..=200_000).prop_map(|(bits_per_s, queue_bytes)| Rate {
            bits_per_s,
            queue_bytes,
        });
        let times = (0u64..200, 0u64..100, 0u64..100);
        (
            share.clone(),
            proptest::option::of(burst),
            times,
            share.clone(),
            share,
            proptest::option::of(rate),
        )
            .prop_map(
                |(loss_ppm, burst, (delay, jitter, by), reorder_ppm, duplicate_ppm, rate)| Weather {
                    loss_ppm,
                    burst,
                    delay: MS * delay as u32,
                    jitter: MS * jitter as u32,
                    reorder_ppm,
                    reorder_by: MS * by as u32,
                    duplicate_ppm,
                    rate,
                },
            )
    }

    /// Fates of datagrams with these pauses (ms) and sizes.
    fn fates(weather: Weather, seed: u64, datagrams: &[(u32, usize)]) -> Vec<(Duration, Fate)> {
        let (mut link, mut now) = (Link::new(weather, seed), Duration::ZERO);
        let mut offer = |(pause, bytes): &(u32, usize)| {
            now += MS * *pause;
            (now, link.offer(now, *bytes))
        };
        datagrams.iter().map(&mut offer).collect()
    }

    proptest! {
        #[test]
        fn the_same_seed_is_the_same_fate(
            weather in weather(),
            seed: u64,
            datagrams in proptest::collection::vec((0u32..20, 1usize..1_500), 1..200),
        ) {
            prop_assert_eq!(fates(weather, seed, &datagrams), fates(weather, seed, &datagrams));
        }

        #[test]
        fn nothing_comes_early_and_the_order_is_kept_unless_it_is_asked_for(
            weather in weather(),
            seed: u64,
            datagrams in proptest::collection::vec((0u32..20, 1usize..1_500), 1..200),
        ) {
            let mut newest = Duration::ZERO;
            for (now, fate) in fates(Weather { reorder_ppm: 0, ..weather }, seed, &datagrams) {
                let Fate::Comes { at, .. } = fate else { continue };
                prop_assert!(at >= now + weather.delay && at >= newest);
                newest = at;
            }
        }

        #[test]
        fn a_knob_that_is_turned_shifts_nobody_elses_rolls(
            weather in weather(),
            seed: u64,
            datagrams in proptest::collection::vec((0u32..20, 1usize..1_500), 1..200),
        ) {
            let weather = Weather { rate: None, ..weather };
            let slower = Weather { delay: weather.delay + MS, duplicate_ppm: 1_000_000, ..weather };
            let both = fates(weather, seed, &datagrams).into_iter().zip(fates(slower, seed, &datagrams));
            for ((_, plain), (_, slow)) in both {
                match (plain, slow) {
                    (Fate::Lost(why), Fate::Lost(other)) => prop_assert_eq!(why, other),
                    (Fate::Comes { at, .. }, Fate::Comes { at: later, twice }) => {
                        prop_assert_eq!((at + MS, true), (later, twice));
                    }
                    _ => prop_assert!(false, "{:?} and {:?}", plain, slow),
                }
            }
        }

        #[test]
        fn a_bottleneck_carries_no_more_than_its_rate(
            seed: u64,
            bits_per_s in 100_000u64..10_000_000,
            queue_bytes in 0u64..50_000,
            datagrams in proptest::collection::vec((0u32..5, 1usize..1_500), 1..200),
        ) {
            let rate = Some(Rate { bits_per_s, queue_bytes });
            let seen = fates(Weather { rate, ..CLEAR }, seed, &datagrams);
            let (mut bits, mut last) = (0u128, Duration::ZERO);
            for ((now, fate), (_, bytes)) in seen.iter().zip(&datagrams) {
                let Fate::Comes { at, .. } = fate else { continue };
                bits += *bytes as u128 * 8;
                last = *at;
                // It waits no longer than a full queue and itself.
                let longest = (u128::from(queue_bytes).max(*bytes as u128) * 8 * NANOS).div_ceil(u128::from(bits_per_s));
                prop_assert!((*at - *now).as_nanos() <= longest + datagrams.len() as u128);
            }
            prop_assert!(bits * NANOS <= last.as_nanos() * u128::from(bits_per_s));
        }
    }
}
