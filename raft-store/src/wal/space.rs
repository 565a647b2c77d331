//! Room on the disk, told before it is gone.
//!
//! ```text
//!   Ample ── free < low_water ──> Low ── a segment couldn't be made, the reserve is in use ──> Reserve
//!     ^                            |  ^                                                          |
//!     '── free > low_water + 1/8 ──'  '──────────────── the reserve is whole again ──────────────'
//! ```
//!
//! `Low` is the moment to refuse bids: closes, votes and membership go on, and need little. `Reserve` says that only the
//! segments laid by are left; when they are full the log fails and the node stops, with nothing acknowledged lost.
//!
//! Also here, for the same readers: for how long the disk has been busy with the batch that everyone waits for, and whether
//! it lately failed to prepare a file, and not for want of room (`ailing`). Nothing promised was in that file, so the log
//! goes on; but the next such answer may be to an fsync that counts, and that one stops the node.
//!
//! Deliberately absent: what to refuse. That is for whoever takes in commands.

use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How much room is left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Pressure {
    /// Enough.
    #[default]
    Ample,
    /// Less than `Options::low_water_bytes` is free: take no bids; closes and membership go on.
    Low,
    /// The disk is full; what is written now goes into the segments laid by.
    Reserve,
}

/// What the writer and its helper tell of the disk.
pub(super) struct Space {
    pub(super) pressure: watch::Sender<Pressure>,
    /// When the disk was given the batch that it has in hand.
    busy: Mutex<Option<Instant>>,
    ailing: AtomicBool,
    /// Fsyncs of batches, and bytes in them, so far.
    syncs: AtomicU64,
    bytes: AtomicU64,
}

impl Space {
    pub(super) fn new() -> Space {
        Space {
            pressure: watch::channel(Pressure::default()).0,
            busy: Mutex::new(None),
            ailing: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Tells what is free now, and whether the reserve is in use.
    pub(super) fn tell(&self, free: u64, low_water: u64, reserve_used: bool) {
        // What is nearly full isn't roomy again one byte later: bids would be refused and taken by turns.
        let was_low = *self.pressure.borrow() != Pressure::Ample;
        let enough = low_water.saturating_add(if was_low { low_water / 8 } else { 0 });
        let now = match (reserve_used, free < enough) {
            (true, _) => Pressure::Reserve,
            (false, true) => Pressure::Low,
            (false, false) => Pressure::Ample,
        };
        crate::metrics::disk(free, now as u8);
        let changed = self.pressure.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        match now {
            _ if !changed => {}
            Pressure::Ample => tracing::info!(free, "the log's disk has room again"),
            Pressure::Low => tracing::warn!(free, low_water, "the log's disk is nearly full"),
            Pressure::Reserve => tracing::error!(free, "the log's disk is full: the reserve is in use"),
        }
    }

    /// The disk is given a batch, or is done with it.
    pub(super) fn busy(&self, busy: bool) {
        *self.busy.lock() = busy.then(Instant::now);
    }

    /// A file couldn't be prepared, and not for want of room; or one could again.
    pub(super) fn ails(&self, ailing: bool) {
        self.ailing.store(ailing, Ordering::Relaxed);
    }

    /// Whether the last file that was to be prepared couldn't be.
    pub(super) fn is_ailing(&self) -> bool {
        self.ailing.load(Ordering::Relaxed)
    }

    /// A batch of so many bytes is durable.
    pub(super) fn synced(&self, bytes: u64) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Fsyncs of batches, and bytes in them, so far.
    pub(super) fn done(&self) -> (u64, u64) {
        (self.syncs.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// For how long the disk has had the batch in hand.
    pub(super) fn stalled(&self) -> Duration {
        self.busy.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }
}
