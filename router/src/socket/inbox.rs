//! What short tasks leave for a session: the verdict lane. Never dropped, so bounded by closing: a viewer that takes no
//! verdicts within the bound is closed 4408, comes back, and asks again with the same ids.

use crate::room::{Seat, Start};
use axum::extract::ws::Utf8Bytes;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// Something for the session.
pub(super) enum Item {
    Frame(Utf8Bytes),
    Ping,
    /// A join came through.
    Seated {
        join: u64,
        seat: Box<Seat>,
        frames: Vec<Utf8Bytes>,
    },
    /// A join was refused (the client was told).
    Refused {
        join: u64,
    },
    /// The snapshot for a viewer that was behind.
    Snapshot {
        join: u64,
        start: Option<Start>,
    },
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
}

/// The inbox of one session.
pub(super) struct Inbox {
    /// Notified by tasks and rooms alike.
    pub(super) wake: Arc<Notify>,
    waiting: Mutex<Waiting>,
    bytes_max: usize,
    /// Bids on their way.
    pub(super) bids: Arc<AtomicUsize>,
    /// Joins on their way.
    pub(super) joins: Arc<AtomicUsize>,
}

impl Inbox {
    pub(super) fn new(bytes_max: usize) -> Inbox {
        Inbox {
            wake: Arc::default(),
            waiting: Mutex::default(),
            bytes_max,
            bids: Arc::default(),
            joins: Arc::default(),
        }
    }

    pub(super) fn push(&self, frame: Utf8Bytes) {
        self.put(Item::Frame(frame));
    }

    /// A frame from the session's own task, which looks here before it sleeps: nobody needs to be woken.
    pub(super) fn push_own(&self, frame: Utf8Bytes) {
        self.keep(Item::Frame(frame));
    }

    pub(super) fn ping(&self) {
        self.put(Item::Ping);
    }

    pub(super) fn put(&self, item: Item) {
        self.keep(item);
        self.wake.notify_one();
    }

    fn keep(&self, item: Item) {
        let mut waiting = self.waiting.lock();
        // Frames are what can pile up; joins and snapshots are one per seat.
        if let Item::Frame(frame) = &item {
            waiting.bytes += frame.len();
        }
        if waiting.bytes <= self.bytes_max {
            waiting.items.push_back(item);
        }
    }

    /// Whether a verdict found no room: the session must end.
    pub(super) fn overflown(&self) -> bool {
        self.waiting.lock().bytes > self.bytes_max
    }

    pub(super) fn take(&self) -> VecDeque<Item> {
        let mut waiting = self.waiting.lock();
        waiting.bytes = 0;
        std::mem::take(&mut waiting.items)
    }
}

/// One more of something on its way, if the bound allows; counted down when dropped.
pub(super) struct OnItsWay(Arc<AtomicUsize>);

impl OnItsWay {
    pub(super) fn begin(count: &Arc<AtomicUsize>, max: usize) -> Option<OnItsWay> {
        let room = |n: usize| (n < max).then_some(n + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(OnItsWay(count.clone()))
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn verdicts_beyond_the_bound_end_the_session_instead_of_being_dropped_unseen() {
        let inbox = Inbox::new(10);
        inbox.push("12345".into());
        inbox.push("12345".into());
        assert!(!inbox.overflown());
        assert_eq!(inbox.take().len(), 2);
        for _ in 0..3 {
            inbox.push("12345".into());
        }
        assert!(inbox.overflown());
    }

    #[test]
    fn what_is_on_its_way_is_bounded_and_counted_down() {
        let count = Arc::default();
        let one = OnItsWay::begin(&count, 2).unwrap();
        let _two = OnItsWay::begin(&count, 2).unwrap();
        assert!(OnItsWay::begin(&count, 2).is_none());
        drop(one);
        assert!(OnItsWay::begin(&count, 2).is_some());
    }
}
