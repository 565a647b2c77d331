//! What a socket keeps open over its connections: bids without a verdict, and the rooms that it follows.

use super::{BidError, Position};
use crate::wire::Verdict;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A stamp that was told so long ago says too little of when a bid is sent.
const TOLD_MAX: Duration = Duration::from_secs(60);
/// A bid without a verdict.
pub(super) struct Waiting {
    pub(super) amount: u64,
    /// What is said of when it was first sent, once it was: the same each time.
    pub(super) sent: Option<Option<u64>>,
    pub(super) answer: oneshot::Sender<Result<Verdict, BidError>>,
    /// Send (again) when this comes.
    pub(super) send_at: Instant,
    /// Give up when this comes.
    pub(super) until: Instant,
    /// Times that it was put off.
    pub(super) put_off: u32,
}

impl Waiting {
    /// What is said of when it was first sent, if that wasn't before: now.
    pub(super) fn first_sent(&mut self, room: Option<&Room>) -> Option<u64> {
        *self.sent.get_or_insert_with(|| room.and_then(Room::past))
    }
}

/// A followed auction.
#[derive(Clone, Copy, Default)]
pub(super) struct Room {
    /// The newest place in order: where a resume starts.
    pub(super) position: Option<Position>,
    /// A gap was found and a resume is under way: don't ask for it once per event.
    pub(super) resuming: bool,
    /// The newest reading of its clock while that ran, and when it was told.
    pub(super) told: Option<(u64, Instant)>,
}

impl Room {
    /// A moment on the auction's clock that is certainly past: what was told, for a clock never goes back. No more is made of
    /// it than that: whether the clock went on since then, who wasn't told doesn't know.
    pub(super) fn past(&self) -> Option<u64> {
        self.told.filter(|(_, at)| at.elapsed() < TOLD_MAX).map(|(now, _)| now)
    }
}
