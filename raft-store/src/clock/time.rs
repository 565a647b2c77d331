//! A node's own two clocks: one that only counts, and one that says what people's clocks say.
//!
//! A seam, so that a test can give a node a clock that runs at another rate, jumps or stands. Timers (elections, looks)
//! stay the runtime's: a node whose clock is wrong still acts, and its peers must see that it is wrong.
//!
//! Deliberately absent: judgement (`compare`), and any bound (`reading`).

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// Where a node's time comes from.
pub trait Source: Send + Sync + fmt::Debug {
    /// Microseconds from an origin of its own choice; should never go back.
    fn mono_us(&self) -> u64;
    /// Microseconds since the Unix epoch, by this node.
    fn wall_us(&self) -> u64;
}

/// A node's clocks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Time(Arc<dyn Source>);

impl Time {
    /// Clocks that aren't the machine's.
    #[must_use]
    pub fn of(source: Arc<dyn Source>) -> Time {
        Time(source)
    }

    /// Monotonic, in microseconds.
    #[must_use]
    pub fn mono_us(&self) -> u64 {
        self.0.mono_us()
    }

    /// Monotonic, in milliseconds.
    #[must_use]
    pub fn mono_ms(&self) -> u64 {
        self.0.mono_us() / 1_000
    }

    /// Wall time by this node, in microseconds since the Unix epoch.
    #[must_use]
    pub fn wall_us(&self) -> u64 {
        self.0.wall_us()
    }
}

impl Default for Time {
    /// The machine's.
    fn default() -> Time {
        Time(Arc::new(Machine::default()))
    }
}

/// The origin is the first look, so that it is one of the runtime that looks (a paused one has a clock of its own).
#[derive(Debug, Default)]
struct Machine {
    origin: OnceLock<Instant>,
}

impl Source for Machine {
    fn mono_us(&self) -> u64 {
        u64::try_from(self.origin.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn wall_us(&self) -> u64 {
        // A machine set before 1970 is told by its peers.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}
