//! How fast one person, or one address, may go: token buckets in a bounded map.
//!
//! Pure: time is an argument. A bucket that is full again is no different from one that was never used, so those are
//! forgotten first; if all are in use, the longest idle go.

use std::{collections::HashMap, hash::Hash};

/// Buckets that hold `burst` and gain `per_minute`.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    per_minute: u64,
    burst: u64,
    keys_max: usize,
    buckets: HashMap<K, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In 1/60,000 of a token, so that a millisecond gains a whole number: `per_minute`.
    level: u64,
    at_ms: u64,
}

/// One token.
const ONE: u64 = 60_000;

impl<K: Hash + Eq + Clone> Buckets<K> {
    pub(crate) fn new(per_minute: u64, burst: u64, keys_max: usize) -> Buckets<K> {
        Buckets {
            per_minute: per_minute.max(1),
            burst: burst.max(1),
            keys_max: keys_max.max(8),
            buckets: HashMap::new(),
        }
    }

    /// Takes one token of `key`, or says how long until there is one, ms.
    pub(crate) fn take(&mut self, key: &K, now_ms: u64) -> Result<(), u64> {
        let full = self.burst * ONE;
        if !self.buckets.contains_key(key) {
            self.make_room(now_ms);
        }
        let per_minute = self.per_minute;
        let bucket = self.buckets.entry(key.clone()).or_insert(Bucket {
            level: full,
            at_ms: now_ms,
        });
        let gained = now_ms.saturating_sub(bucket.at_ms).saturating_mul(per_minute);
        bucket.level = bucket.level.saturating_add(gained).min(full);
        bucket.at_ms = bucket.at_ms.max(now_ms);
        if bucket.level >= ONE {
            bucket.level -= ONE;
            Ok(())
        } else {
            Err((ONE - bucket.level).div_ceil(per_minute))
        }
    }

    fn make_room(&mut self, now_ms: u64) {
        if self.buckets.len() < self.keys_max {
            return;
        }
        let (full, rate) = (self.burst * ONE, self.per_minute);
        self.buckets.retain(|_, b| {
            b.level
                .saturating_add(now_ms.saturating_sub(b.at_ms).saturating_mul(rate))
                < full
        });
        if self.buckets.len() < self.keys_max {
            return;
        }
        // All in use: an eighth at once, so that a flood of new keys pays for the scan only now and then.
        let mut times: Vec<u64> = self.buckets.values().map(|b| b.at_ms).collect();
        let nth = times.len() / 8;
        let (_, cut, _) = times.select_nth_unstable(nth);
        let cut = *cut;
        self.buckets.retain(|_, b| b.at_ms > cut);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.buckets.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut b = Buckets::new(60, 3, 100);
        // now_ms | expected
        let table = [
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Err(1_000)),
            (400, Err(600)),
            (1_000, Ok(())),
            (1_000, Err(1_000)),
            (900, Err(1_000)),
            (1_000_000, Ok(())),
        ];
        for (i, (now, expected)) in table.into_iter().enumerate() {
            assert_eq!(b.take(&"ann", now), expected, "row {i}");
        }
        assert_eq!(b.take(&"bob", 0), Ok(()), "another's bucket is another's");
    }

    #[test]
    fn a_flood_of_keys_stays_within_the_bound_and_forgets_the_idle_first() {
        let mut b = Buckets::new(60, 2, 64);
        for i in 0..10_000u32 {
            b.take(&i, u64::from(i) / 100).unwrap();
            assert!(b.len() <= 64, "{} keys", b.len());
        }
        let mut b = Buckets::new(1, 1, 8);
        for i in 0..9u32 {
            b.take(&i, u64::from(i)).unwrap();
        }
        assert!(b.take(&8, 9).is_err(), "the newest is remembered");
    }
}
