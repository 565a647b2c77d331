//! What a viewer's leg calls each packet: its own sequence numbers and timestamps, unbroken across source changes.
//!
//! Within one source a packet's number and time are the source's plus a constant, so that a gap in the source is the
//! same gap on the leg and a viewer's NACK leads straight back to the shared ring. When the source changes (another
//! publisher took over) the constants change: numbers go on by one, time by the given step.
//!
//! ```text
//!   source   100 101 102 103 | 7000 7001        (a new publisher after 103)
//!   leg      500 501 502 503 |  504  505        `splice` chose the constant; 503 is asked for again in vain:
//!                                               its ring is gone
//! ```

use crate::replay::Plan;
use crate::sequence::nearest;

/// Leg numbers begin in the second cycle, so that nothing before the first underflows.
const CYCLE: u64 = 1 << 16;

/// The map of one leg and track.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    /// Leg number minus source number, wrapping.
    shift: u64,
    /// Leg timestamp minus source timestamp, wrapping.
    time_shift: u32,
    /// The first leg number of this source.
    since: u64,
    /// The newest leg number and its timestamp.
    newest: Option<(u64, u32)>,
    /// The picture group that this leg started with.
    plan: Option<Plan>,
}

impl Offsets {
    /// A leg whose first packet will carry `first`.
    pub fn starting_at(first: u16) -> Offsets {
        Offsets {
            since: CYCLE + u64::from(first),
            ..Offsets::default()
        }
    }

    /// Starts (or restarts) with another source, whose first packet is `sequence` at `timestamp`. `step`: how far the
    /// leg's time goes on over the seam, in ticks. `plan`: the replayed group, if the join has one.
    pub fn splice(&mut self, sequence: u64, timestamp: u32, step: u32, plan: Option<Plan>) {
        let first = plan.as_ref().map_or(timestamp, |p| p.timestamp(timestamp));
        if let Some((newest, last)) = self.newest {
            self.since = newest + 1;
            self.time_shift = last.wrapping_add(step).wrapping_sub(first);
        }
        self.shift = self.since.wrapping_sub(sequence);
        self.plan = plan;
    }

    /// Number and timestamp on the leg of a source packet. The number goes on over 2^16, from the first packet's cycle 0: it
    /// is what SRTP calls the packet's index. None: the packet precedes the seam.
    pub fn place(&mut self, sequence: u64, timestamp: u32) -> Option<(u64, u32)> {
        let number = sequence.wrapping_add(self.shift);
        if number < self.since || number > self.since.wrapping_add(u64::MAX >> 1) {
            return None;
        }
        let planned = match &self.plan {
            Some(plan) if plan.covers(sequence) => plan.timestamp(timestamp),
            _ => timestamp,
        };
        let placed = planned.wrapping_add(self.time_shift);
        if self.newest.is_none_or(|(newest, _)| number > newest) {
            self.newest = Some((number, placed));
        }
        Some((number - CYCLE, placed))
    }

    /// The source number that a leg's number stands for, if its source is still this one.
    pub fn source_of(&self, number: u16) -> Option<u64> {
        let (newest, _) = self.newest?;
        let number = nearest(newest, number);
        (number >= self.since && number <= newest).then(|| number.wrapping_sub(self.shift))
    }

    /// A live source timestamp as the leg has it (for sender reports).
    pub fn timestamp(&self, timestamp: u32) -> u32 {
        timestamp.wrapping_add(self.time_shift)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn a_new_source_goes_on_where_the_old_one_stopped() {
        let mut leg = Offsets::starting_at(500);
        leg.splice(100, 9_000, 0, None);
        assert_eq!([100, 101, 103].map(|n| leg.place(n, 9_000).unwrap().0), [500, 501, 503]);
        leg.splice(7_000, 50, 3_000, None);
        assert_eq!(leg.place(7_000, 50), Some((504, 12_000)));
        assert_eq!(leg.place(7_001, 3_050), Some((505, 15_000)));
        assert_eq!(leg.place(6_999, 50), None);
    }

    #[test]
    fn a_nack_leads_back_to_the_source_but_not_over_the_seam() {
        let mut leg = Offsets::starting_at(65_535);
        leg.splice(100, 0, 0, None);
        for n in 100..110 {
            leg.place(n, 0);
        }
        assert_eq!(
            (leg.source_of(65_535), leg.source_of(0), leg.source_of(8)),
            (Some(100), Some(101), Some(109))
        );
        assert_eq!((leg.source_of(9), leg.source_of(65_534)), (None, None));
        leg.splice(5, 0, 0, None);
        leg.place(5, 0);
        assert_eq!((leg.source_of(9), leg.source_of(8)), (Some(5), None));
    }

    #[test]
    fn an_index_counts_the_cycles_from_the_first_packets() {
        let mut leg = Offsets::starting_at(65_534);
        leg.splice(100, 0, 0, None);
        let indexes = [100, 101, 102, 101, 100 + (1 << 16)].map(|n| leg.place(n, 0).unwrap().0);
        assert_eq!(indexes, [65_534, 65_535, 65_536, 65_535, 131_070]);
    }

    #[test]
    fn a_retransmission_has_the_number_of_the_first_time() {
        let mut leg = Offsets::starting_at(1);
        leg.splice(10, 70, 0, None);
        let first = leg.place(10, 70);
        leg.place(11, 80);
        assert_eq!(leg.place(10, 70), first);
    }

    proptest! {
        /// Whatever the sources: leg numbers of one leg are unique, rise with their source, and lead back.
        #[test]
        fn numbers_are_unbroken(start: u16, sources in proptest::collection::vec(
            (1u64 << 16..1 << 40, any::<u32>(), 1usize..300), 1..6))
        {
            let mut leg = Offsets::starting_at(start);
            let mut expect = start;
            for (first, time, count) in sources {
                leg.splice(first, time, 3_000, None);
                for n in 0..count as u64 {
                    let (number, _) = leg.place(first + n, time.wrapping_add(n as u32 * 3_000)).unwrap();
                    prop_assert_eq!(number as u16, expect);
                    prop_assert_eq!(leg.source_of(number as u16), Some(first + n));
                    expect = expect.wrapping_add(1);
                }
            }
        }

        /// Time never steps back over a seam, and keeps the source's pace within it.
        #[test]
        fn time_goes_on(times in proptest::collection::vec(any::<u32>(), 1..6)) {
            let mut leg = Offsets::starting_at(0);
            let mut placed = Vec::new();
            for time in times {
                leg.splice(1 << 20, time, 3_000, None);
                for n in 0..3u32 {
                    placed.push(leg.place((1 << 20) + u64::from(n), time.wrapping_add(n * 3_000)).unwrap().1);
                }
            }
            for pair in placed.windows(2) {
                prop_assert_eq!(pair[1].wrapping_sub(pair[0]), 3_000);
            }
        }
    }
}
