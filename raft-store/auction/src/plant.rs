//! Known mistakes, planted by tests to show that each is caught by the check that it is for.
//!
//! They are the reference model's, as far as they concern `apply`. Outside of tests `has` is `false` to the compiler, and
//! nothing of them is left in the code.

/// Known mistakes that tests plant, to show that they are caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plant {
    /// An entry that doesn't follow is applied all the same.
    #[cfg_attr(not(test), allow(dead_code))]
    NoVoid,
    /// Timers are anchored at the entry's `at`.
    CloseAtNow,
    /// A beat ignores `behind`.
    NowForAll,
    /// A logged refusal over the bound is forgotten and its id judged anew.
    RefusalsEvict,
    /// Timers run after the command on a tie.
    CommandFirst,
    /// Holds come before what else is at their stamp.
    HoldFirst,
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
        return self.one == Some(plant);
        #[cfg(not(test))]
        {
            let _ = plant;
            false
        }
    }
}
