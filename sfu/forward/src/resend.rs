//! What a viewer asks for again: sent at once, but not while it may still be under way, and not for ever.
//!
//! A receiver repeats an ask each round trip or so until the packet comes. An answer that is sent again before the first could
//! have arrived is waste on a link that is losing packets already.
//!
//! ```text
//!   ask 17 ---> sent        (first)
//!   ask 17 ---> under way   (within a round trip of the last sending)
//!   ask 17 ---> sent ...    (up to `TIMES_MAX`), then given up: the viewer asks for a keyframe
//! ```

use alloc::vec::Vec;

/// Packets that are remembered, a power of two: what a receiver has missing at once is fewer.
const SLOTS: usize = 256;
/// Sendings of one packet beyond the first.
pub const TIMES_MAX: u8 = 4;
/// A round trip counts as at least this: a receiver's timer and ours aren't in step, ms.
pub const RTT_MIN: u64 = 10;
/// A round trip before one was measured, ms.
pub const RTT_UNKNOWN: u64 = 50;

/// What becomes of an ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The packet goes out again.
    Send,
    /// It was sent less than a round trip ago.
    UnderWay,
    /// It was sent often enough.
    GivenUp,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u64,
    at: u64,
    times: u8,
}

/// One leg's answers. Takes no room before the first ask.
#[derive(Clone, Debug, Default)]
pub struct Resends {
    slots: Vec<Option<Slot>>,
}

impl Resends {
    /// A packet is asked for at `now` over a round trip of `rtt` (both ms). `number` tells packets of a leg apart.
    pub fn ask(&mut self, number: u64, now: u64, rtt: u64) -> Answer {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        let slot = &mut self.slots[(number & (SLOTS as u64 - 1)) as usize];
        let times = match slot {
            Some(known) if known.number == number => {
                if known.times >= TIMES_MAX {
                    return Answer::GivenUp;
                }
                if now < known.at.saturating_add(rtt.max(RTT_MIN)) {
                    return Answer::UnderWay;
                }
                known.times + 1
            }
            _ => 1,
        };
        *slot = Some(Slot { number, at: now, times });
        Answer::Send
    }
}

/// The round trip that a receiver's report tells (RFC 3550, section 6.4.1), in ms: `now` is the middle of the NTP time at which
/// the report came, `last` that of the sender report that it answers, `held` how long it was kept, in 1/65536 s. None: it
/// answers none, or makes no sense.
pub fn round_trip(now: u32, last: u32, held: u32) -> Option<u64> {
    if last == 0 {
        return None;
    }
    let trip = now.wrapping_sub(last).wrapping_sub(held);
    // Half a minute or "less than nothing" is no round trip.
    (trip < 30 << 16).then(|| (u64::from(trip) * 1_000) >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks as (number, at ms) over a round trip of 40 ms.
    #[track_caller]
    fn check(asks: &[(u64, u64, Answer)]) {
        let mut resends = Resends::default();
        for (number, at, expect) in asks {
            assert_eq!(resends.ask(*number, *at, 40), *expect, "{number} at {at} of {asks:?}");
        }
    }

    #[test]
    fn what_may_be_under_way_is_not_sent_again() {
        use Answer::{GivenUp, Send, UnderWay};
        check(&[
            (7, 0, Send),
            (7, 0, UnderWay),
            (7, 39, UnderWay),
            (7, 40, Send),
            (7, 79, UnderWay),
        ]);
        check(&[(7, 0, Send), (8, 0, Send), (7, 10, UnderWay), (8, 10, UnderWay)]);
        check(&[
            (7, 0, Send),
            (7, 40, Send),
            (7, 80, Send),
            (7, 120, Send),
            (7, 160, GivenUp),
            (7, 9_000, GivenUp),
        ]);
        // One that shares its place is another packet.
        check(&[(7, 0, Send), (7 + SLOTS as u64, 0, Send), (7, 1, Send)]);
    }

    #[test]
    fn a_round_trip_is_never_less_than_a_timers_pace() {
        let mut resends = Resends::default();
        let answers = [0, 9, 10].map(|at| resends.ask(1, at, 0));
        assert_eq!(answers, [Answer::Send, Answer::UnderWay, Answer::Send]);
    }

    #[test]
    fn a_report_tells_the_round_trip() {
        let s = 65_536;
        for (now, last, held, expect) in [
            (10 * s, 9 * s, 0, Some(1_000)),
            (10 * s, 9 * s, s / 2, Some(500)),
            (s / 4, 0_u32.wrapping_sub(s / 4), 0, Some(500)),
            (10 * s, 9 * s, s, Some(0)),
            (10 * s, 0, 0, None),
            (10 * s, 9 * s, s + 1, None),
            (100 * s, 9 * s, 0, None),
        ] {
            assert_eq!(round_trip(now, last, held), expect, "{now} {last} {held}");
        }
    }
}
