//! The lifecycle and the guard, as one table: which command each phase takes, and what it answers to the others.
//!
//! ```text
//!   draft --schedule--> scheduled --start--> live <--pause, resume--> paused
//!     |  '----------------start--------------^ |                        |
//!     '----cancel------> closed <-------- deadline, cancel <---- cancel '
//! ```
//!
//! The guard: what isn't live refuses to be joined or bid on. Streams may come and go in any phase (a seller looks at
//! the own picture before the start, and says goodbye after the end); outside the live time that is no event. By rules that
//! let auctions settle, none comes any more once an auction is over (`cold`).

use crate::{Action, Phase, Reason};

/// What a command asks, without its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // each is an `Action` of the same name
pub enum Verb {
    Create,
    Edit,
    Schedule,
    Start,
    Bid,
    MaxBid,
    Pause,
    Resume,
    Extend,
    Cancel,
    StreamUp,
    StreamDown,
}

impl Verb {
    /// Every verb, in order of the table.
    pub const ALL: [Verb; 12] = [
        Verb::Create,
        Verb::Edit,
        Verb::Schedule,
        Verb::Start,
        Verb::Bid,
        Verb::MaxBid,
        Verb::Pause,
        Verb::Resume,
        Verb::Extend,
        Verb::Cancel,
        Verb::StreamUp,
        Verb::StreamDown,
    ];
}

impl Action {
    /// What it asks.
    #[must_use]
    pub fn verb(&self) -> Verb {
        match self {
            Action::Create(_) => Verb::Create,
            Action::Edit { .. } => Verb::Edit,
            Action::Schedule { .. } => Verb::Schedule,
            Action::Start { .. } => Verb::Start,
            Action::Bid { .. } => Verb::Bid,
            Action::MaxBid { .. } => Verb::MaxBid,
            Action::Pause { .. } => Verb::Pause,
            Action::Resume => Verb::Resume,
            Action::Extend { .. } => Verb::Extend,
            Action::Cancel { .. } => Verb::Cancel,
            Action::StreamUp { .. } => Verb::StreamUp,
            Action::StreamDown { .. } => Verb::StreamDown,
        }
    }
}

/// Allowed.
const OK: Option<Reason> = None;
/// Refused.
const fn no(reason: Reason) -> Option<Reason> {
    Some(reason)
}

use Reason::{Closed, NotOpen, Paused, Taken, WrongPhase};

/// One row a verb (in order of `Verb::ALL`), one column a phase.
#[rustfmt::skip]
const TABLE: [[Option<Reason>; 5]; 12] = [
    //              draft            scheduled        live             paused           closed
    /* create    */ [no(Taken),      no(Taken),       no(Taken),       no(Taken),       no(Taken)],
    /* edit      */ [OK,             OK,              no(WrongPhase),  no(WrongPhase),  no(Closed)],
    /* schedule  */ [OK,             OK,              no(WrongPhase),  no(WrongPhase),  no(Closed)],
    /* start     */ [OK,             OK,              no(WrongPhase),  no(WrongPhase),  no(Closed)],
    /* bid       */ [no(NotOpen),    no(NotOpen),     OK,              no(Paused),      no(Closed)],
    /* max bid   */ [no(NotOpen),    no(NotOpen),     OK,              no(Paused),      no(Closed)],
    /* pause     */ [no(WrongPhase), no(WrongPhase),  OK,              no(WrongPhase),  no(Closed)],
    /* resume    */ [no(WrongPhase), no(WrongPhase),  no(WrongPhase),  OK,              no(Closed)],
    /* extend    */ [no(WrongPhase), no(WrongPhase),  OK,              no(WrongPhase),  no(Closed)],
    /* cancel    */ [OK,             OK,              OK,              OK,              no(Closed)],
    /* stream up */ [OK,             OK,              OK,              OK,              OK],
    /* stream dn */ [OK,             OK,              OK,              OK,              OK],
];

/// Whether a phase takes a verb.
///
/// # Errors
/// The reason of the refusal.
pub fn guard(phase: Phase, verb: Verb) -> Result<(), Reason> {
    let column = match phase {
        Phase::Draft => 0,
        Phase::Scheduled => 1,
        Phase::Live => 2,
        Phase::Paused => 3,
        Phase::Closed(_) => 4,
    };
    TABLE[verb as usize][column].map_or(Ok(()), Err)
}
