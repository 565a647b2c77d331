//! The bugs that are planted, and who must catch each.

use crate::check::Status;

macro_rules! plants {
    ($($plant:ident, $status:ident [$($caught:literal)*], $what:literal;)*) => {
        /// A bug in the simulated product (or in its harness).
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Plant { $(#[doc = $what] $plant,)* }

        /// Every bug, and the checks that must fail on it: those and no other.
        pub(crate) const PLANTS: &[Row] = &[
            $(Row { plant: Plant::$plant, status: Status::$status, caught: &[$($caught),*], what: $what },)*
        ];
    };
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) plant: Plant,
    pub(crate) status: Status,
    pub(crate) caught: &'static [&'static str],
    pub(crate) what: &'static str,
}

plants! {
    Nothing,        Pass    [],          "a right run";
    NoEnd,          Unknown [],          "the history breaks off";
    Thin,           Unknown [],          "next to nothing was tried";
    TwoOpen,        Fail    ["C1"],      "a process calls while a call is open";
    GoesOn,         Fail    ["C1"],      "a process goes on after an unknown outcome";
    Orphan,         Fail    ["C1"],      "an answer comes twice";
    Divergence,     Fail    ["C2"],      "one replica has another bidder in one entry";
    ShortReplica,   Fail    ["C2"],      "one replica lacks the newest entry";
    HashMismatch,   Fail    ["C2"],      "a hash is made of another stamp";
    LostAck,        Fail    ["C3"],      "a bid is acknowledged and forgotten";
    AckedOtherwise, Fail    ["C3"],      "an acknowledgement names another stamp than the log";
    Phantom,        Fail    ["C4"],      "a bid that nobody made";
    RefusedApplied, Fail    ["C4"],      "a bid is refused and applied";
    OtherBody,      Fail    ["C5"],      "an id is used again with another amount, and applied";
    // A bid applied twice is also a bid at the price that already stands: it breaks two promises by nature.
    AppliedTwice,   Fail    ["C5" "C6"], "a repeat is applied again";
    DeadlineRise,   Fail    ["C6"],      "a bid makes the deadline later";
    CutOff,         Fail    ["C6"],      "a cut is one millisecond short";
    LowAccepted,    Fail    ["C6"],      "a bid at the standing price is accepted";
    LateAccepted,   Fail    ["C6"],      "a bid after the deadline is accepted";
    StampBack,      Fail    ["C6"],      "a stamp falls within an auction";
    PauseFree,      Fail    ["C6"],      "a pause gives more time than it took";
    StaleRead,      Fail    ["C7"],      "a linearizable read serves an older version";
    StaleRefusal,   Fail    ["C7"],      "a refusal is judged at an older version";
    WrongContent,   Fail    ["C7"],      "a read names another price than its version has";
    EarlyClose,     Fail    ["C8"],      "an auction closes before its deadline";
    WrongWinner,    Fail    ["C8"],      "the runner-up wins";
    TwoCloses,      Fail    ["C8"],      "an auction closes twice";
    BidAfterClose,  Fail    ["C8"],      "a bid after the close is accepted";
    FiredEarly,     Fail    ["C8"],      "an auction closes too soon, stamped as if it were due";
    LateNews,       Fail    ["C8"],      "viewers hear of a close seconds late";
    ClockJump,      Fail    ["C9"],      "the clock jumps ahead";
    ClockBack,      Fail    ["C9"],      "the clock falls back, undeclared";
    OutageEats,     Fail    ["C9"],      "an outage gives back more than its length";
    StreamGap,      Fail    ["C10"],     "a viewer misses an event";
    Repeat,         Fail    ["C10"],     "a viewer gets an event twice";
    WrongEvent,     Fail    ["C10"],     "a viewer's event has another hash than the log";
    SnapTooEasy,    Fail    ["C10"],     "a resume within the window starts over";
    ResumeSkips,    Fail    ["C10"],     "a resume skips an event";
    EndsEarly,      Fail    ["C10"],     "a viewer never gets the last event";
    ChatSwapped,    Fail    ["C11"],     "two lines of one sender change places";
    ChatTwoOrders,  Fail    ["C11"],     "two viewers see different lines in one place";
    ChatGap,        Fail    ["C11"],     "a viewer misses a line of chat";
    LongSilence,    Fail    ["C12"],     "nobody is answered for seconds";
    Frozen,         Fail    ["C12"],     "a picture stands still";
    NeverBack,      Fail    ["C12"],     "a picture stands still until the end";
    Blind,          Fail    ["C12"],     "a viewer never sees a picture";
    HotFirst,       Fail    ["C14"],     "bids beside a hot auction wait behind its crowd";
    SellerLost,     Fail    ["C12"],     "a seller whose node died isn't taken in for seconds";
}
