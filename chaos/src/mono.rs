//! The harness's one clock: CLOCK_MONOTONIC in nanoseconds, as the history wants it.

use crate::history::Nanos;
use std::time::Instant;

/// Now.
pub(crate) fn now() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// The moment of an `Instant`, which is the same clock without a face.
pub(crate) fn at(instant: Instant) -> Nanos {
    now() - Nanos::try_from(instant.elapsed().as_nanos()).unwrap_or(0)
}
