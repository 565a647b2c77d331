//! Holds: real time that no majority witnessed and that did not count, declared in every auction that it concerns.
//!
//! A hold at stamp `h` becomes an event in each auction that is live or paused there and was opened before `h`, after all
//! else at `h`; so it waits until the auction's watermark has *passed* `h`. An auction that is behind takes it later than
//! the others, at the same place in its own log. What all have passed is dropped. Holds are numbered, so that each
//! auction knows by one number which it has taken.

use crate::{Entry, Hold, Shard, Stamp, auction::Out};
use alloc::{collections::VecDeque, vec::Vec};

/// Declared holds that some auction's watermark hasn't passed yet, oldest first, numbered over the shard's life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds {
    pub(crate) first: u64,
    pub(crate) list: VecDeque<Hold>,
}

impl Holds {
    /// The first hold with this number or a later one.
    pub(crate) fn from(&self, number: u64) -> Option<(u64, Hold)> {
        let skip = number.saturating_sub(self.first);
        let hold = self.list.get(usize::try_from(skip).ok()?)?;
        Some((self.first + skip, *hold))
    }
}

impl Shard {
    /// Puts the entry's holds in line, at stamps that can't be in anybody's past. Whether any came.
    pub(crate) fn take_holds(&mut self, entry: &Entry, at: Stamp) -> bool {
        for hold in &entry.holds {
            let oldest = self.holds.list.back().map_or(self.top, |last| last.stamp.max(self.top));
            let stamp = hold.stamp.clamp(oldest.min(at), at);
            self.clamped += u64::from(stamp != hold.stamp);
            self.holds.list.push_back(Hold {
                stamp,
                lost_ms: hold.lost_ms,
            });
        }
        !entry.holds.is_empty()
    }

    /// Declares holds: at first to all, later to those that were behind; then drops what everyone has passed.
    pub(crate) fn run_holds(
        &mut self,
        at: Stamp,
        walk_all: bool,
        mut was_behind: Vec<usize>,
        entry: &Entry,
        out: &mut Out,
    ) {
        if self.holds.list.is_empty() {
            return;
        }
        if walk_all {
            was_behind = (0..self.auctions.len()).collect();
        } else {
            was_behind.extend_from_slice(&self.lagging);
            was_behind.sort_unstable();
            was_behind.dedup();
        }
        for slot in was_behind {
            if self.auctions[slot].is_open() {
                self.run(slot, at, out);
            }
        }
        // A lane may hold the very creation of an auction: its holds wait, too.
        let unborn = entry
            .behind
            .iter()
            .filter(|behind| self.slot(&behind.0).is_none())
            .map(|behind| behind.1);
        let lagging = self.lagging.iter().map(|&slot| self.auctions[slot].watermark);
        let lowest = lagging.chain(unborn).min().map_or(at, |lowest| lowest.min(at));
        while self.holds.list.front().is_some_and(|hold| hold.stamp < lowest) {
            self.holds.list.pop_front();
            self.holds.first += 1;
        }
    }
}
