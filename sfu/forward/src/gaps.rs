//! What a hop misses and when to ask for it: a packet is missed once a later one has been here for a reordering's time,
//! asked for again after each round trip, and given up when it could no longer be shown.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The times of a hop's NACKs, in ms.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a hole may be mere reordering.
    pub reorder: u64,
    /// The least time between two asks for one packet.
    pub retry_min: u64,
    /// Asks for one packet.
    pub asks_max: u8,
    /// After this long a packet is lost.
    pub give_up: u64,
}

impl Timing {
    /// Between two nodes.
    pub const TRUNK: Timing = Timing {
        reorder: 5,
        retry_min: 10,
        asks_max: 4,
        give_up: 400,
    };
}

/// Holes remembered at once; a greater jump is a restart, its packets are lost.
pub const HOLES_MAX: u64 = 512;

#[derive(Clone, Debug)]
struct Hole {
    since: u64,
    next: u64,
    asks: u8,
}

/// The holes of one track at one hop.
#[derive(Clone, Debug)]
pub struct Gaps {
    timing: Timing,
    newest: Option<u64>,
    holes: BTreeMap<u64, Hole>,
    lost: u64,
}

impl Gaps {
    /// No packet yet.
    pub fn new(timing: Timing) -> Gaps {
        Gaps {
            timing,
            newest: None,
            holes: BTreeMap::new(),
            lost: 0,
        }
    }

    /// A packet came, by the first way or asked for.
    pub fn packet(&mut self, sequence: u64, now: u64) {
        let Some(newest) = self.newest else {
            self.newest = Some(sequence);
            return;
        };
        self.holes.remove(&sequence);
        if sequence <= newest {
            return;
        }
        let missing = sequence - newest - 1;
        if missing + self.holes.len() as u64 > HOLES_MAX {
            self.lost += missing + self.holes.len() as u64;
            self.holes.clear();
        } else {
            for hole in newest + 1..sequence {
                self.holes.insert(
                    hole,
                    Hole {
                        since: now,
                        next: now + self.timing.reorder,
                        asks: 0,
                    },
                );
            }
        }
        self.newest = Some(sequence);
    }

    /// Puts the numbers to ask for now into `ask`, and gives up what is too old. `round_trip`: of this hop, ms.
    pub fn due(&mut self, now: u64, round_trip: u64, ask: &mut Vec<u64>) {
        let timing = self.timing;
        let before = self.holes.len();
        self.holes.retain(|sequence, hole| {
            let over = now >= hole.since + timing.give_up;
            if !over && hole.asks < timing.asks_max && now >= hole.next {
                hole.asks += 1;
                hole.next = now + round_trip.max(timing.retry_min);
                ask.push(*sequence);
            }
            !over
        });
        self.lost += (before - self.holes.len()) as u64;
    }

    /// When `due` has something to do next.
    pub fn deadline(&self) -> Option<u64> {
        let when = |hole: &Hole| {
            let end = hole.since + self.timing.give_up;
            if hole.asks < self.timing.asks_max {
                hole.next.min(end)
            } else {
                end
            }
        };
        self.holes.values().map(when).min()
    }

    /// Packets given up so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn due(gaps: &mut Gaps, now: u64) -> Vec<u64> {
        let mut ask = Vec::new();
        gaps.due(now, 20, &mut ask);
        ask
    }

    #[test]
    fn a_hole_is_asked_for_after_reordering_time_then_each_round_trip_then_given_up() {
        let mut gaps = Gaps::new(Timing::TRUNK);
        gaps.packet(10, 0);
        gaps.packet(13, 0);
        assert_eq!(due(&mut gaps, 4), vec![]);
        for now in [5, 25, 45, 65] {
            assert_eq!(due(&mut gaps, now), vec![11, 12], "at {now}");
        }
        assert_eq!(due(&mut gaps, 85), vec![]);
        assert_eq!((gaps.deadline(), gaps.lost()), (Some(400), 0));
        due(&mut gaps, 400);
        assert_eq!((gaps.deadline(), gaps.lost()), (None, 2));
    }

    #[test]
    fn what_comes_late_or_again_is_no_longer_missed() {
        let mut gaps = Gaps::new(Timing::TRUNK);
        gaps.packet(10, 0);
        gaps.packet(12, 0);
        gaps.packet(11, 2);
        assert_eq!((due(&mut gaps, 5), gaps.lost()), (vec![], 0));
    }

    #[test]
    fn a_great_jump_is_a_restart() {
        let mut gaps = Gaps::new(Timing::TRUNK);
        gaps.packet(10, 0);
        gaps.packet(10 + HOLES_MAX + 2, 0);
        assert_eq!((gaps.deadline(), gaps.lost()), (None, HOLES_MAX + 1));
    }

    proptest! {
        /// Every number between first and newest is here, missed, or counted as lost.
        #[test]
        fn none_is_forgotten(steps in proptest::collection::vec((0u64..2_000, 0u64..50), 1..80)) {
            let mut gaps = Gaps::new(Timing::TRUNK);
            let (mut now, mut came) = (0, alloc::collections::BTreeSet::new());
            gaps.packet(0, 0);
            came.insert(0);
            for (sequence, wait) in steps {
                now += wait;
                // What is neither missed nor new was here before, or came after it was given up: it counts as lost.
                if gaps.holes.contains_key(&sequence) || gaps.newest.is_some_and(|n| sequence > n) {
                    came.insert(sequence);
                }
                gaps.packet(sequence, now);
                due(&mut gaps, now);
            }
            let span = gaps.newest.unwrap_or(0) + 1;
            prop_assert_eq!(came.len() as u64 + gaps.holes.len() as u64 + gaps.lost(), span);
        }
    }
}
