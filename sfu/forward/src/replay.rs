//! Instant join: the newest picture group, replayed from the shared ring to a newcomer.
//!
//! Why the timestamps are squeezed: a player takes the first picture's arrival as its timestamp's due moment. If a second's
//! worth of pictures came in a burst with their true timestamps, the player would stay a second behind for good. So
//! the replayed pictures get timestamps a tick apart, ending at the newest picture's true one, and live goes on from
//! there unchanged.
//!
//! ```text
//!   true      0   3000  6000  9000 | 12000 (live)
//!   squeezed 8730 8820  8910  9000 | 12000           step 90: a millisecond
//! ```

use alloc::vec::Vec;

/// Pictures that a replay may hold; a longer group isn't replayed.
pub const PICTURES_MAX: usize = 300;

/// Where the newest picture group of a track starts.
#[derive(Clone, Debug, Default)]
pub struct Group {
    start: Option<(u64, u64)>,
}

impl Group {
    /// Takes note of a packet that starts a keyframe, at `now` ms.
    pub fn keyframe(&mut self, sequence: u64, now: u64) {
        if self.start.is_none_or(|(start, _)| sequence > start) {
            self.start = Some((sequence, now));
        }
    }

    /// The first packet of the newest keyframe.
    pub fn start(&self) -> Option<u64> {
        self.start.map(|(start, _)| start)
    }

    /// The packet to start a newcomer with: the keyframe, if it isn't older than `age_max` ms and still in the ring.
    pub fn replay_from(&self, now: u64, age_max: u64, oldest: u64) -> Option<u64> {
        let (start, at) = self.start?;
        (now.saturating_sub(at) <= age_max && start >= oldest).then_some(start)
    }
}

/// The timestamps of one replay.
#[derive(Clone, Debug)]
pub struct Plan {
    until: u64,
    step: u32,
    /// True and squeezed timestamp of each picture, oldest first.
    pictures: Vec<(u32, u32)>,
}

impl Plan {
    /// Plans the replay of `packets` (sequence, timestamp), in order. None: too many pictures, or no packet.
    pub fn squeeze(packets: impl Iterator<Item = (u64, u32)>, step: u32) -> Option<Plan> {
        let mut plan = Plan {
            until: 0,
            step,
            pictures: Vec::new(),
        };
        for (sequence, timestamp) in packets {
            plan.until = sequence;
            if plan.pictures.last().is_none_or(|(last, _)| *last != timestamp) {
                plan.pictures.push((timestamp, timestamp));
            }
            if plan.pictures.len() > PICTURES_MAX {
                return None;
            }
        }
        let (last, _) = *plan.pictures.last()?;
        let count = plan.pictures.len() as u32;
        for (index, (timestamp, squeezed)) in plan.pictures.iter_mut().enumerate() {
            let tight = last.wrapping_sub((count - 1 - index as u32) * step);
            // Pictures that lie closer than a step keep their own time.
            *squeezed = if (tight.wrapping_sub(*timestamp) as i32) > 0 {
                tight
            } else {
                *timestamp
            };
        }
        Some(plan)
    }

    /// The packet belongs to the replayed group.
    pub fn covers(&self, sequence: u64) -> bool {
        sequence <= self.until
    }

    /// The squeezed form of a true timestamp. A picture that the plan doesn't know (all its packets were late) lies
    /// just after the one before it.
    pub fn timestamp(&self, timestamp: u32) -> u32 {
        let later = |pair: &&(u32, u32)| (timestamp.wrapping_sub(pair.0) as i32) >= 0;
        match self.pictures.iter().rev().find(later) {
            Some((known, squeezed)) => squeezed.wrapping_add(timestamp.wrapping_sub(*known).min(self.step / 2)),
            None => self
                .pictures
                .first()
                .map_or(timestamp, |(_, squeezed)| squeezed.wrapping_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::offsets::Offsets;

    fn group(first: u32) -> impl Iterator<Item = (u64, u32)> {
        (0..8u64).map(move |n| (100 + n, first.wrapping_add(n as u32 / 2 * 3_000)))
    }

    #[test]
    fn a_replay_ends_at_the_true_time() {
        for first in [0u32, u32::MAX - 4_000] {
            let plan = Plan::squeeze(group(first), 90).unwrap();
            let got: Vec<u32> = (0..4u32)
                .map(|n| plan.timestamp(first.wrapping_add(n * 3_000)).wrapping_sub(first))
                .collect();
            assert_eq!(got, [8_730, 8_820, 8_910, 9_000]);
            assert!(plan.covers(107) && !plan.covers(108));
        }
    }

    #[test]
    fn live_goes_on_from_the_replay_with_its_own_time() {
        let mut leg = Offsets::starting_at(7);
        let plan = Plan::squeeze(group(0), 90);
        leg.splice(100, 0, 0, plan);
        assert_eq!(leg.place(100, 0), Some((7, 8_730)));
        assert_eq!(leg.place(107, 9_000), Some((14, 9_000)));
        assert_eq!(leg.place(108, 12_000), Some((15, 12_000)));
        // Asked for again: as the first time.
        assert_eq!(leg.place(102, 3_000), Some((9, 8_820)));
    }

    #[test]
    fn an_unknown_picture_lies_between_its_neighbours() {
        let plan = Plan::squeeze([(1, 0), (5, 9_000)].into_iter(), 90).unwrap();
        let middle = plan.timestamp(3_000);
        assert!(plan.timestamp(0) < middle && middle < plan.timestamp(9_000));
    }

    #[test]
    fn only_a_fresh_group_that_is_still_held_is_replayed() {
        let mut group = Group::default();
        assert_eq!(group.replay_from(0, 2_000, 0), None);
        group.keyframe(50, 1_000);
        group.keyframe(40, 1_001);
        assert_eq!(group.replay_from(3_000, 2_000, 50), Some(50));
        assert_eq!(group.replay_from(3_001, 2_000, 50), None);
        assert_eq!(group.replay_from(1_000, 2_000, 51), None);
    }

    #[test]
    fn a_group_without_end_is_not_replayed() {
        let long = (0..=PICTURES_MAX as u64).map(|n| (n, n as u32 * 3_000));
        assert!(Plan::squeeze(long, 90).is_none());
        assert!(Plan::squeeze(core::iter::empty(), 90).is_none());
    }
}
