//! Mistakes for the tests of the log to notice: each is one wrong step, put into the code by name.
//!
//! A checker that has never failed proves nothing. So the places at which the log is easily got wrong ask here whether
//! they are to be got wrong now; `tests::plants` plants each, and some test of the log must fail over it.
//!
//! Only in test builds is there anything to ask: elsewhere `is` is `false`, and nothing is left of it.

/// What is done wrongly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Plant {
    /// A batch is acknowledged before its fsync.
    AckUnsynced,
    /// Writes are acknowledged before they are written.
    AckUnwritten,
    /// An fsync that failed is tried again, and says 'done'.
    RetriedSync,
    /// A new segment's name isn't made durable.
    NameUnsynced,
    /// A new segment's header isn't made durable before its name.
    HeaderUnsynced,
    /// A segment is sealed before the next one is there.
    SealedFirst,
    /// Checkpoints leave the votes out.
    VotesForgotten,
    /// The oldest segment goes although entries live in it.
    DroppedPinned,
    /// A rewrite also frees the segment that it was written to.
    RewroteTooFar,
    /// A purge frees one entry more than it names.
    PurgedTooFar,
    /// A truncation isn't entered into the book.
    TruncationUnbooked,
    /// A cut leaves what was torn where it was.
    CutKeptPieces,
    /// Damage before the end is taken for a torn end.
    DamageTakenForTorn,
    /// The checksum doesn't cover where the record lies.
    PlaceUncovered,
    /// The checksum doesn't cover the segment's salt.
    SaltUncovered,
    /// A gap in a group's numbers hurts nobody.
    GapsIgnored,
    /// Damage with no tally behind it is waved through.
    LossUnproved,
    /// Who is hurt isn't written down.
    HurtForgotten,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Plant>> = const { std::cell::Cell::new(None) };
}

/// Whether this mistake is to be made now, on this thread.
#[inline]
pub(super) fn is(plant: Plant) -> bool {
    #[cfg(test)]
    return PLANTED.get() == Some(plant);
    #[cfg(not(test))]
    {
        let _ = plant;
        false
    }
}

/// Plants a mistake for the thread that calls.
#[cfg(test)]
pub(super) fn plant(plant: Option<Plant>) {
    PLANTED.set(plant);
}
