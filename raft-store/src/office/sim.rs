//! The simulation of offices: in the making.

use auction::{Command, Reason, Shard, Verdict};

/// Known mistakes, for tests that prove the checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plant {
    /// Another body is answered dup_body from the pending map.
    PendingDupBody,
    /// A lane's bound looks at this lane only.
    OwnBound,
    /// A new office stamps and promises from `top` even for a lane that was behind it.
    BaseForAll,
    /// A scheduled start is proposed when wall time passes it, not as long as it has passed.
    StartOnce,
    /// Lanes whose close is due get no turns before the others.
    FairOnly,
}

pub(crate) fn dup_body(shard: &Shard, command: &Command) -> Verdict {
    let _ = shard.early(command);
    unreachable!("{:?}", Reason::DupBody)
}
