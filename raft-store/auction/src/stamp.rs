//! Moments on a shard's own clock, and who may speak them.
//!
//! A `Stamp` is milliseconds since the shard was born, as its leaders counted them; it is not wall time and only the
//! log moves it. An `Office` is one stretch of stamping by one leader: a term can hold several (a rejected proposal
//! ends an office, not a term).

/// A moment on a shard's clock, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The stamp `ms` later; saturates at the end of time (584 million years).
    #[must_use]
    pub const fn plus(self, ms: u64) -> Stamp {
        Stamp(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`; 0 if `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Stamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One stretch of stamping by one leader: (term, turn), ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Office {
    /// The Raft term.
    pub term: u64,
    /// How many offices this term had before.
    pub turn: u32,
}
