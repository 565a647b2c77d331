//! From a shard's clock to ours, by what was acknowledged: as certain as two clocks without a wire between them can be.
//!
//! A bid that was called at `c` and stamped `s` was stamped after `c`, when the clock read at most `s` + 1 ms (stamps are
//! whole). The clock never runs faster than real time, and stands when it is held: so what it is behind us can only grow,
//! and the largest `c − s − 1` that was ever acknowledged bounds it from below. A deadline then can't have been due before
//! `ends_at` plus that bound: a close seen earlier is early for certain, and lateness is counted from there, which makes it
//! too large by what the quickest bid took to its stamp, never too small.

use std::time::{Duration, Instant};

/// The bound, from some moment of ours.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    zero: Instant,
    /// Ours less the shard's, ms, at least.
    behind: Option<f64>,
}

impl Mapping {
    pub(super) fn new() -> Mapping {
        Mapping {
            zero: Instant::now(),
            behind: None,
        }
    }

    /// A bid called at `called` was judged at `stamp`.
    pub(super) fn acked(&mut self, called: Instant, stamp: u64) {
        let behind = self.ms(called) - stamp as f64 - 1.0;
        self.behind = Some(self.behind.map_or(behind, |before| before.max(behind)));
    }

    /// How late a close was, in ms, that was due at `ends_at` and seen at `seen`; below 0: early for certain. `None`: nothing
    /// was acknowledged yet.
    pub(super) fn late(&self, ends_at: u64, seen: Instant) -> Option<f64> {
        Some(self.ms(seen) - (ends_at as f64 + self.behind?))
    }

    fn ms(&self, at: Instant) -> f64 {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        match at.checked_duration_since(self.zero) {
            Some(after) => ms(after),
            None => -ms(self.zero.saturating_duration_since(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bids as (called, stamp), a close as (due, seen), all in ms: how late it is.
    fn check(what: &str, bids: &[(u64, u64)], (due, seen): (u64, u64), late: Option<f64>) {
        let mut mapping = Mapping::new();
        let at = |ms| mapping.zero + Duration::from_millis(ms);
        let bids: Vec<_> = bids.iter().map(|(called, stamp)| (at(*called), *stamp)).collect();
        let seen = at(seen);
        for (called, stamp) in bids {
            mapping.acked(called, stamp);
        }
        let found = mapping.late(due, seen);
        let same = match (found, late) {
            (Some(found), Some(late)) => (found - late).abs() < 1e-6,
            (found, late) => found == late,
        };
        assert!(same, "{what}: {found:?}, not {late:?}");
    }

    #[test]
    fn lateness_is_counted_from_the_earliest_moment_that_the_deadline_can_have_come() {
        check("nothing acknowledged", &[], (500, 600), None);
        // The clock is 100 behind: a stamp of 900 for a call at 1000 that took no time.
        check(
            "in time, but for the stamp's own millisecond",
            &[(1000, 900)],
            (2000, 2100),
            Some(1.0),
        );
        check(
            "a slow bid says less, and takes nothing back",
            &[(1000, 900), (1500, 1480)],
            (2000, 2110),
            Some(11.0),
        );
        check(
            "a quicker one says more",
            &[(1500, 1480), (1600, 1500)],
            (2000, 2110),
            Some(11.0),
        );
        check(
            "a hold: the clock fell behind by 50 more",
            &[(1000, 900), (1600, 1450)],
            (2000, 2160),
            Some(11.0),
        );
        check("early for certain", &[(1000, 900)], (2000, 2050), Some(-49.0));
    }
}
