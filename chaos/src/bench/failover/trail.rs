//! What a pair called around a kill, and what that says of the clock.
//!
//! ```text
//!   last accepted before     under way at the kill          first accepted that was called after it
//!   c0 ---stamp--- a0      c ------------x------- a             c1 ---stamp--- a1
//!                                       kill                      ^ this is what is judged
//! ```
//!
//! **Bidding time (G5).** Between the two acceptances the shard's clock went on by the difference of their stamps. Time in
//! which nobody could bid must not be in it: the last leader's part ends at the kill and may be `HOLD_MS` ahead, the next
//! leader's begins when it takes office, after `GRACE_MS` at a standstill. And no more may be given back than the outage's own
//! length, `HOLD_MS` and `GRACE_MS`. Both with the harness' doubt about when exactly a bid was judged, and 50 ms.

use std::time::{Duration, Instant};

/// As far as a clock may be ahead of what a majority has (design G5).
const HOLD_MS: f64 = 200.0;
/// A new leader's clock stands for so long.
const GRACE_MS: f64 = 150.0;
/// What the harness' measuring may add.
const MEASURING_MS: f64 = 50.0;
/// Calls kept, each pair: a pair that bids every few ms needs far less for one failover.
const CALLS_MAX: usize = 4_096;

/// A bid and its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) called: Instant,
    pub(super) answered: Instant,
    /// The stamp it was accepted at; `None`: it wasn't.
    pub(super) accepted: Option<u64>,
    /// The node that answered it; `None`: no connection.
    pub(super) edge: Option<u64>,
}

/// A pair's calls since the last kill.
#[derive(Debug, Default)]
pub(super) struct Trail(Vec<Call>);

impl Trail {
    pub(super) fn note(&mut self, call: Call) {
        if self.0.len() >= CALLS_MAX {
            self.0.drain(..CALLS_MAX / 2);
        }
        self.0.push(call);
    }

    /// What happened around a kill; `None`: nothing was accepted before it, or nothing after.
    pub(super) fn around(&self, killed: Instant) -> Option<Around> {
        let accepted = self.0.iter().filter(|call| call.accepted.is_some());
        let before = *accepted.clone().rfind(|call| call.answered <= killed)?;
        let after = *accepted.clone().find(|call| call.called > killed)?;
        let pending = self
            .0
            .iter()
            .find(|call| call.called <= killed && call.answered > killed);
        Some(Around {
            killed,
            before,
            pending: pending.copied(),
            after,
        })
    }
}

/// A pair's calls around a kill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    killed: Instant,
    before: Call,
    /// Under way when the node was killed.
    pub(super) pending: Option<Call>,
    /// The first acceptance that was called after it.
    pub(super) after: Call,
}

fn ms(later: Instant, earlier: Instant) -> f64 {
    later.saturating_duration_since(earlier).as_secs_f64() * 1e3
}

impl Around {
    /// From the kill to the acceptance, ms.
    pub(super) fn waited(&self) -> f64 {
        ms(self.after.answered, self.killed)
    }

    /// A moment after the kill, ms.
    pub(super) fn since_kill(&self, at: Instant) -> f64 {
        ms(at, self.killed)
    }

    fn clock_went(&self) -> Option<f64> {
        let (before, after) = (self.before.accepted?, self.after.accepted?);
        // Back: a clock that fails otherwise too. `give` sees nothing then, `eaten` less than nothing.
        Some(after as f64 - before as f64)
    }

    /// By how many ms too much the clock went on; `office_ms`: when the next leader took office, after the kill. Not more than
    /// 0 is as promised.
    pub(super) fn eaten_too_much(&self, office_ms: f64) -> Option<f64> {
        let before = ms(self.killed, self.before.called);
        let after = (self.waited() - office_ms - GRACE_MS).max(0.0);
        Some(self.clock_went()? - before - HOLD_MS - after - MEASURING_MS)
    }

    /// By how many ms too much bidding time was given back. Not more than 0 is as promised.
    pub(super) fn given_too_much(&self) -> Option<f64> {
        let between = ms(self.after.called, self.before.answered);
        Some(between - self.clock_went()? - self.waited() - HOLD_MS - GRACE_MS - MEASURING_MS)
    }

    /// By how many ms the clock outran real time, or went back. Not more than 0 is as promised.
    pub(super) fn outran(&self) -> Option<f64> {
        let went = self.clock_went()?;
        let most = ms(self.after.answered, self.before.called) + Duration::from_millis(1).as_secs_f64() * 1e3;
        Some((went - most * 1.005).max(-went))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Calls as (called, answered, stamp), ms after the kill plus 1,000; gives (waited, eaten, given, outran), each but the
    /// first as whether it breaks the promise.
    fn check(calls: &[(u64, u64, Option<u64>)], office: f64) -> Option<(u64, bool, bool, bool)> {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut trail = Trail::default();
        for (called, answered, accepted) in calls {
            trail.note(Call {
                called: at(*called),
                answered: at(*answered),
                accepted: *accepted,
                edge: None,
            });
        }
        let around = trail.around(at(1_000))?;
        let breaks = |ms: Option<f64>| ms.unwrap() > 0.0;
        Some((
            around.waited().round() as u64,
            breaks(around.eaten_too_much(office)),
            breaks(around.given_too_much()),
            breaks(around.outran()),
        ))
    }

    #[test]
    fn time_is_judged_between_the_last_acceptance_before_and_the_first_called_after() {
        // Called at 990, judged at stamp 5,000 or so; in office 300 ms after the kill; 460: the first called after it.
        let story = |stamp| {
            [
                (980, 985, Some(4_990)),
                (990, 995, Some(5_000)),
                (998, 1_450, Some(stamp - 1)),
                (1_455, 1_460, Some(stamp)),
                (1_470, 1_480, Some(stamp + 20)),
            ]
        };
        for (name, stamp, expected) in [
            ("nothing went by", 5_001, (460, false, false, false)),
            (
                "as much as a clock may be ahead, and 50",
                5_270,
                (460, false, false, false),
            ),
            ("the outage was eaten", 5_450, (460, true, false, false)),
            ("more than went by", 5_600, (460, true, false, true)),
        ] {
            assert_eq!(check(&story(stamp), 300.0), Some(expected), "{name}");
        }
        let back = [(990, 995, Some(5_000)), (1_400, 1_460, Some(4_900))];
        assert_eq!(check(&back, 300.0), Some((460, false, false, true)), "it went back");
        let long_ago = [(100, 100, Some(5_000)), (1_400, 1_460, Some(5_001))];
        assert_eq!(
            check(&long_ago, 300.0),
            Some((460, false, true, false)),
            "900 ms before the kill didn't count"
        );
        assert_eq!(
            check(&[(990, 995, Some(1)), (998, 1_450, Some(2))], 300.0),
            None,
            "none after"
        );
        assert_eq!(check(&[(1_455, 1_460, Some(2))], 300.0), None, "none before");
    }
}
