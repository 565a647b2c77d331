//! When a leader goes back to where it should be: gently, one at a time.
//!
//! The map names a preferred leader for each shard, spread evenly over the nodes. After a fail-over leaders stand
//! elsewhere, and would stay there. They go back when the preferred node has lived for a while, its replica has the whole
//! log, and nobody would notice: a shard in which nothing is to do goes first; one with a live auction only after longer,
//! never shortly before a timer comes due, and not twice within a good while.
//!
//! Values in, values out. Deliberately absent: the hand-over itself.

use placement::ShardId;
use std::collections::BTreeMap;

/// The paces, in ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// The preferred node must have lived for so long …
    pub(crate) settled: u64,
    /// … and for a shard with something to do, for so long.
    pub(crate) settled_live: u64,
    /// A live shard moves only if its next timer is due no sooner.
    pub(crate) margin: u64,
    /// Between two moves of one node's leaderships.
    pub(crate) apart: u64,
    /// Between two moves of the same shard. One that didn't succeed (it is led here still, in the same term) is tried
    /// again after `settled`.
    pub(crate) mute: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            settled: 10_000,
            settled_live: 60_000,
            margin: 30_000,
            apart: 100,
            mute: 300_000,
        }
    }
}

/// A shard that is led in another place than the preferred one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stray {
    /// Since when the preferred node lives.
    pub(crate) since: u64,
    /// Its replica has all that is logged.
    pub(crate) matched: bool,
    /// The term in which the shard is led here.
    pub(crate) term: u64,
    /// `None`: nothing is to do. Else ms until the next timer.
    pub(crate) live: Option<u64>,
}

/// What was moved lately.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    last: Option<u64>,
    /// When, and from which term.
    moved: BTreeMap<ShardId, (u64, u64)>,
}

impl Balance {
    /// Whether this shard may go now. True also notes that it does.
    pub(crate) fn may_go(&mut self, now: u64, o: &Options, shard: ShardId, stray: Stray) -> bool {
        let settled = if stray.live.is_none() {
            o.settled
        } else {
            o.settled_live
        };
        let lived = now.saturating_sub(stray.since) >= settled;
        let calm = stray.live.is_none_or(|left| left >= o.margin);
        let apart = self.last.is_none_or(|at| now >= at + o.apart);
        let muted = self.moved.get(&shard).is_some_and(|(at, term)| {
            let mute = if *term == stray.term { o.settled } else { o.mute };
            now < at + mute
        });
        let goes = lived && calm && apart && stray.matched && !muted;
        if goes {
            self.last = Some(now);
            self.moved.insert(shard, (now, stray.term));
            // It holds no more than there are strays in a while.
            self.moved.retain(|_, (at, _)| now < *at + o.mute);
        }
        goes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strays_go_back_gently() {
        let idle = Stray {
            since: 0,
            matched: true,
            term: 1,
            live: None,
        };
        let live = |left| Stray {
            live: Some(left),
            ..idle
        };
        for (name, now, stray, goes) in [
            ("idle", 10_000, idle, true),
            ("the node came only now", 9_999, idle, false),
            ("its replica lags", 60_000, Stray { matched: false, ..idle }, false),
            ("live, and the node came lately", 59_999, live(90_000), false),
            ("live", 60_000, live(30_000), true),
            ("closing soon", 60_000, live(29_999), false),
        ] {
            let mut balance = Balance::default();
            assert_eq!(
                balance.may_go(now, &Options::default(), ShardId(1), stray),
                goes,
                "{name}"
            );
        }
    }

    #[test]
    fn one_at_a_time_and_none_twice() {
        let (o, mut balance) = (Options::default(), Balance::default());
        let mut went = |now, shard, term| {
            let idle = Stray {
                since: 0,
                matched: true,
                term,
                live: None,
            };
            balance.may_go(now, &o, ShardId(shard), idle)
        };
        assert!(went(10_000, 1, 7));
        assert!(!went(10_099, 2, 7), "too soon after another");
        assert!(went(10_100, 2, 7));
        assert!(!went(19_999, 2, 7), "it didn't succeed: again, but not at once");
        assert!(went(20_100, 2, 7));
        assert!(!went(309_999, 1, 9), "it went, and came back: muted");
        assert!(went(310_000, 1, 9));
    }
}
