//! Whether this node should lead, and what it should still take in: one state, with reasons, for the whole node.
//!
//! A node that is slow or short of room can still follow, vote and answer; it had better not lead. Whoever finds a reason
//! says so here (`set`), and everything else follows from it:
//!
//! ```text
//!   disk: low, full, stalled, ailing --.                .--> pulse: peers give it no leadership, and stand before it
//!                                      +--> Fitness ----+--> its leaderships go elsewhere (`host::care`)
//!   clock: rate, step, wall time ------'                +--> readiness, metrics
//!                                                       '--> Intake: what the door still takes in
//! ```
//!
//! It is no fence: where no other node is fit, the unfit ones lead on. A disk that failed is another matter: that stops
//! the node (`wal`).
//!
//! `Checkup` is the judgement of the disk, with its memory: values in, values out. A stall that is over leaves the node
//! unfit for a while, or leaderships would go to and fro with every slow fsync.
//!
//! Deliberately absent: handing over (`host::care`), refusing (`clock::office`).

use crate::wal::Pressure;
use auction::Action;
use std::{collections::BTreeSet, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Why a node had better not lead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Unfit {
    /// The log's disk is nearly full.
    DiskLow,
    /// It is full, and the reserve is in use.
    DiskFull,
    /// It has had a batch in hand for too long, or had lately.
    DiskStalled,
    /// It answers with errors where nothing promised is at stake yet (a file that is being prepared).
    DiskAiling,
    /// Its monotonic clock runs at another rate than its peers'.
    ClockRate,
    /// Its monotonic clock jumped.
    ClockStep,
    /// Its wall clock is far from its peers'.
    WallTime,
}

impl Unfit {
    /// Those that the log's disk can give.
    pub const DISK: [Unfit; 4] = [Unfit::DiskLow, Unfit::DiskFull, Unfit::DiskStalled, Unfit::DiskAiling];

    /// All of them.
    pub const ALL: [Unfit; 7] = [
        Unfit::DiskLow,
        Unfit::DiskFull,
        Unfit::DiskStalled,
        Unfit::DiskAiling,
        Unfit::ClockRate,
        Unfit::ClockStep,
        Unfit::WallTime,
    ];

    /// Its code, in metrics and APIs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Unfit::DiskLow => "disk_low",
            Unfit::DiskFull => "disk_full",
            Unfit::DiskStalled => "disk_stalled",
            Unfit::DiskAiling => "disk_ailing",
            Unfit::ClockRate => "clock_rate",
            Unfit::ClockStep => "clock_step",
            Unfit::WallTime => "wall_time",
        }
    }

    /// A line for an operator.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Unfit::DiskLow => "the log's disk is nearly full: no new auctions, leaderships go elsewhere",
            Unfit::DiskFull => "the log's disk is full and its reserve in use: no bids, leaderships go elsewhere",
            Unfit::DiskStalled => "the log's disk hangs: leaderships go elsewhere",
            Unfit::DiskAiling => "the log's disk fails to prepare a file: leaderships go elsewhere",
            Unfit::ClockRate => "the monotonic clock runs at another rate than the peers': leaderships go elsewhere",
            Unfit::ClockStep => "the monotonic clock jumped: leaderships go elsewhere",
            Unfit::WallTime => "the wall clock is far from the peers': leaderships go elsewhere",
        }
    }

    /// Whether users had better be sent to another node. A disk that is only low still serves them, and so does a node whose
    /// clocks stray: what it doesn't lead goes by others' clocks.
    #[must_use]
    pub fn is_grave(self) -> bool {
        matches!(self, Unfit::DiskFull | Unfit::DiskStalled | Unfit::DiskAiling)
    }
}

/// What a shard's door takes in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Intake {
    /// Everything.
    #[default]
    All = 0,
    /// Nothing that makes auctions.
    NoNew = 1,
    /// No bids either, and nothing goes live: closes, pauses, cancels, streams and membership go on.
    NoBids = 2,
}

impl Intake {
    /// What these reasons leave.
    #[must_use]
    pub fn of(reasons: &BTreeSet<Unfit>) -> Intake {
        if reasons.contains(&Unfit::DiskFull) {
            Intake::NoBids
        } else if reasons.contains(&Unfit::DiskLow) {
            Intake::NoNew
        } else {
            Intake::All
        }
    }

    /// From its number; what can't be is the strictest.
    #[must_use]
    pub fn from_number(n: u8) -> Intake {
        match n {
            0 => Intake::All,
            1 => Intake::NoNew,
            _ => Intake::NoBids,
        }
    }

    /// Whether it lets this in.
    #[must_use]
    pub fn takes(self, action: &Action) -> bool {
        match action {
            Action::Create(_) | Action::Edit { .. } | Action::Schedule { .. } => self == Intake::All,
            Action::Start { .. } | Action::Bid { .. } | Action::MaxBid { .. } => self < Intake::NoBids,
            // These end or calm something, or keep what is live whole.
            Action::Pause { .. }
            | Action::Resume
            | Action::Extend { .. }
            | Action::Cancel { .. }
            | Action::StreamUp { .. }
            | Action::StreamDown { .. } => true,
        }
    }
}

/// The node's reasons, and whoever wants to know.
#[derive(Debug)]
pub(crate) struct Fitness {
    reasons: watch::Sender<BTreeSet<Unfit>>,
}

impl Default for Fitness {
    fn default() -> Fitness {
        Fitness {
            reasons: watch::channel(BTreeSet::new()).0,
        }
    }
}

impl Fitness {
    /// A reason is there, or isn't any more.
    pub(crate) fn set(&self, reason: Unfit, is_so: bool) {
        self.reasons.send_if_modified(|reasons| {
            let changed = if is_so {
                reasons.insert(reason)
            } else {
                reasons.remove(&reason)
            };
            if changed {
                crate::metrics::unfit(reason, is_so);
                let why = reason.says();
                if is_so {
                    tracing::warn!(reason = reason.code(), why, "this node had better not lead");
                } else {
                    tracing::info!(reason = reason.code(), "a reason not to lead is gone");
                }
            }
            changed
        });
    }

    /// Nothing speaks against leading.
    pub(crate) fn is_fit(&self) -> bool {
        self.reasons.borrow().is_empty()
    }

    /// What speaks against it now.
    pub(crate) fn reasons(&self) -> BTreeSet<Unfit> {
        self.reasons.borrow().clone()
    }

    /// What speaks against it, and each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<BTreeSet<Unfit>> {
        self.reasons.subscribe()
    }
}

/// When a disk counts as stalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StallOptions {
    /// A batch in hand for so long is a stall.
    pub after: Duration,
    /// So long without one, and it is over.
    pub clear: Duration,
}

impl Default for StallOptions {
    fn default() -> StallOptions {
        StallOptions {
            after: Duration::from_secs(1),
            clear: Duration::from_secs(10),
        }
    }
}

/// The disk as it is looked at again and again.
pub(crate) struct Checkup {
    options: StallOptions,
    stalled_at: Option<Instant>,
}

impl Checkup {
    pub(crate) fn new(options: StallOptions) -> Checkup {
        Checkup {
            options,
            stalled_at: None,
        }
    }

    /// What speaks against the disk at `now`. `stalled`: for how long it has had its batch in hand; `ailing`: it could not
    /// prepare a file, and not for want of room.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        pressure: Pressure,
        stalled: Duration,
        ailing: bool,
    ) -> BTreeSet<Unfit> {
        if stalled >= self.options.after {
            self.stalled_at = Some(now);
        }
        let lately = |at: Instant| now.saturating_duration_since(at) < self.options.clear;
        let is_stalled = self.stalled_at.is_some_and(lately);
        let found = [
            (pressure == Pressure::Low, Unfit::DiskLow),
            (pressure == Pressure::Reserve, Unfit::DiskFull),
            (is_stalled, Unfit::DiskStalled),
            (ailing, Unfit::DiskAiling),
        ];
        found
            .into_iter()
            .filter_map(|(is_so, why)| is_so.then_some(why))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use auction::Id;

    #[test]
    fn a_disk_is_judged_by_room_errors_and_time() {
        let ms = Duration::from_millis;
        let options = StallOptions {
            after: ms(1_000),
            clear: ms(10_000),
        };
        let began = Instant::now();
        let mut checkup = Checkup::new(options);
        // (at, pressure, in hand for, ailing, what speaks against it)
        for (at, pressure, stalled, ailing, why) in [
            (0, Pressure::Ample, 0, false, vec![]),
            (50, Pressure::Ample, 999, false, vec![]),
            (100, Pressure::Ample, 1_000, false, vec![Unfit::DiskStalled]),
            (10_099, Pressure::Ample, 0, false, vec![Unfit::DiskStalled]),
            (10_100, Pressure::Ample, 0, false, vec![]),
            (10_150, Pressure::Low, 0, false, vec![Unfit::DiskLow]),
            (10_200, Pressure::Reserve, 0, false, vec![Unfit::DiskFull]),
            (10_250, Pressure::Ample, 0, true, vec![Unfit::DiskAiling]),
            (
                10_300,
                Pressure::Low,
                2_000,
                true,
                vec![Unfit::DiskLow, Unfit::DiskStalled, Unfit::DiskAiling],
            ),
        ] {
            let found = checkup.look(began + ms(at), pressure, ms(stalled), ailing);
            assert_eq!(found, why.into_iter().collect(), "at {at}");
        }
    }

    #[test]
    fn the_door_narrows_by_what_is_at_stake() {
        let bid = Action::Bid { amount: 1 };
        let start = Action::Start { schedule_version: None };
        let schedule = Action::Schedule { start_wall_ms: 1 };
        let cancel = Action::Cancel { reason: String::new() };
        let down = Action::StreamDown {
            stream: Id::parse("s").unwrap(),
        };
        for (why, new, bids) in [
            (vec![], true, true),
            (vec![Unfit::DiskStalled], true, true),
            (vec![Unfit::DiskLow], false, true),
            (vec![Unfit::DiskLow, Unfit::DiskFull], false, false),
        ] {
            let intake = Intake::of(&why.iter().copied().collect());
            assert_eq!(intake, Intake::from_number(intake as u8));
            assert_eq!(intake.takes(&schedule), new, "{why:?}");
            assert_eq!((intake.takes(&bid), intake.takes(&start)), (bids, bids), "{why:?}");
            assert!(intake.takes(&cancel) && intake.takes(&down), "{why:?}");
        }
    }
}
