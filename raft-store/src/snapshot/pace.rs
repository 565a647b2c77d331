//! How fast this node sends snapshots: all of them together no faster than so many bytes a second.
//!
//! A snapshot is bulk. Sent as fast as the network takes it, it would stand before appends and beats on the wire and before
//! the log on the receiver's disk. Whoever is about to send a piece takes a turn; turns lie as far apart as their bytes
//! take at the rate. There is no credit for idle time beyond one piece: a burst is what is to be avoided.
//!
//! Deliberately absent: fairness between transfers beyond the order of turns; appends and votes, which are never paced.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Turns for pieces.
pub(crate) struct Pace {
    /// 0: no limit.
    bytes_per_s: u64,
    /// When the next piece may go.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(bytes_per_s: u64) -> Pace {
        Pace {
            bytes_per_s,
            next: Mutex::new(None),
        }
    }

    /// When a piece of so many bytes may go, for one that comes `now`.
    fn turn(&self, now: Instant, bytes: usize) -> Instant {
        if self.bytes_per_s == 0 {
            return now;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let mut next = self.next.lock();
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + takes);
        turn
    }

    /// Waits for the turn of a piece of so many bytes.
    pub(crate) async fn take(&self, bytes: usize) {
        tokio::time::sleep_until(self.turn(Instant::now(), bytes)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_transfers_together_keep_the_pace() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let pace = Pace::new(1_000_000);
        // (comes at, bytes, goes at)
        for (comes, bytes, goes) in [
            (0, 100_000, 0),
            (0, 100_000, 100),
            (50, 50_000, 200),
            (240, 10_000, 250),
            // Idle time is no credit.
            (5_000, 100_000, 5_000),
            (5_000, 1, 5_100),
        ] {
            assert_eq!(pace.turn(at(comes), bytes), at(goes), "{bytes} bytes at {comes}");
        }
        assert_eq!(Pace::new(0).turn(at(7), 1 << 30), at(7), "no limit");
    }
}
