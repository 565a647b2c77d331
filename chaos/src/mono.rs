//! The harness's one clock: CLOCK_MONOTONIC in nanoseconds, as the history wants it.
//!
//! An `Instant` is the same clock without a face. Its reading is told by one anchor taken at the start: reading both
//! clocks each time would add whatever the scheduler does between the two, and put events out of order.

use crate::history::Nanos;
use std::{sync::OnceLock, time::Instant};

/// Now.
pub(crate) fn now() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// The moment of an `Instant`.
pub(crate) fn at(instant: Instant) -> Nanos {
    static ANCHOR: OnceLock<(Instant, Nanos)> = OnceLock::new();
    let (anchor, nanos) = *ANCHOR.get_or_init(anchor);
    let ns = |duration: std::time::Duration| Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX / 2);
    match instant.checked_duration_since(anchor) {
        Some(after) => nanos + ns(after),
        None => nanos - ns(anchor - instant),
    }
}

/// One moment on both faces, as tightly as a hundred tries give it.
fn anchor() -> (Instant, Nanos) {
    let tries = (0..100).map(|_| {
        let before = now();
        let instant = Instant::now();
        let after = now();
        (after - before, (instant, before + (after - before) / 2))
    });
    tries
        .min_by_key(|(width, _)| *width)
        .map_or_else(|| (Instant::now(), now()), |(_, both)| both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_faces_show_the_same_time_in_the_same_order() {
        let (before, instant, after) = (now(), Instant::now(), now());
        // The anchor's own width is far below this.
        let slack = 1_000_000;
        assert!((before - slack..=after + slack).contains(&at(instant)));
        let later = Instant::now();
        assert!(at(later) - at(instant) == Nanos::try_from((later - instant).as_nanos()).unwrap_or(-1));
    }
}
