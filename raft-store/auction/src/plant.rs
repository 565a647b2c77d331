//! Known mistakes, planted by tests to show that each is caught by the check that it is for.
//!
//! They are the reference model's, as far as they concern `apply`, and a few that only a whole cluster can be seen to
//! make. Outside of tests and simulations (feature `plant`) `has` is `false` to the compiler, and nothing of them is left.

/// Known mistakes that tests plant, to show that they are caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plant {
    /// An entry that doesn't follow is applied all the same.
    NoVoid,
    /// Timers are anchored at the entry's `at`.
    CloseAtNow,
    /// A beat ignores `behind`.
    NowForAll,
    /// A logged refusal over the bound is forgotten and its id judged anew.
    RefusalsEvict,
    /// The bound on logged refusals is a bidder's over all auctions, and the oldest anywhere is forgotten.
    RefusalsPerBidder,
    /// Timers run after the command on a tie.
    CommandFirst,
    /// Holds come before what else is at their stamp.
    HoldFirst,
    /// Timers fire 150 ms before they are due.
    TimerEarly,
    /// A command that was judged before is judged again.
    Twice,
    /// Nobody asks how long ago a command was first sent.
    NeverTooOld,
    /// A refusal is forgotten when half its time is over.
    ForgetsEarly,
}

/// The plant that every shard of this process makes: its number and one, or 0.
#[cfg(feature = "plant")]
static SOWN: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);

/// Has every shard of this process make a mistake, by its name in a simulation. False: there is no such plant.
#[cfg(feature = "plant")]
pub fn sow(name: &str) -> bool {
    let plant = match name {
        "old-office-accepted" => Plant::NoVoid,
        "close-at-now" => Plant::CloseAtNow,
        "now-for-all" => Plant::NowForAll,
        "timer-early" => Plant::TimerEarly,
        "applied-twice" => Plant::Twice,
        "never-too-old" => Plant::NeverTooOld,
        "forgets-early" => Plant::ForgetsEarly,
        _ => return false,
    };
    SOWN.store(plant as u8 + 1, core::sync::atomic::Ordering::Relaxed);
    true
}

/// The plants in force: none, outside of tests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plants {
    #[cfg(test)]
    pub(crate) one: Option<Plant>,
}

impl Plants {
    pub(crate) fn has(self, plant: Plant) -> bool {
        #[cfg(test)]
        if self.one == Some(plant) {
            return true;
        }
        #[cfg(feature = "plant")]
        if SOWN.load(core::sync::atomic::Ordering::Relaxed) == plant as u8 + 1 {
            return true;
        }
        let _ = plant;
        false
    }
}
