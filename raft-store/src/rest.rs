//! Whether a replica rests, and what wakes it.
//!
//! A shard in which nothing is to be done needs no heartbeats: its replicas *rest*, and the lease of its leader's node
//! (`pulse`) stands for its leader's. One flag for each replica says so; every message of the group, in or out, and every
//! proposal, takes it down. So a group that says anything is awake at both ends, whatever made it speak.
//!
//! ```text
//!            .--------- rest(seen): only if nothing stirred since `seen` ---------.
//!            v                                                                    |
//!         resting ------- stir: a message in or out, a proposal, pulse -------> awake
//! ```
//!
//! The race between the two is settled by order: `stir` counts first and looks at the flag then; `rest` sets the flag
//! first and looks at the count then. One of them sees the other.
//!
//! **The shield.** A replica that was woken by a question for its vote would give it, since its leader's lease in openraft
//! ran out while it rested. If the leader's node lives, the replica is shielded instead for as long as a lease lasts, and
//! the leader is told to speak.
//!
//! **The log.** Votes that are refused say who has more of the log. It is noted here until a leader is heard again: who
//! has less stands last, since it can't win and only spoils others' votes; who has more stands at once.
//!
//! Deliberately absent: who decides (`pulse`), and openraft, which knows nothing of rest.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// How long this replica's log is beside another's, as an election showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum Log {
    /// Nobody asked since a leader was heard.
    #[default]
    Unknown,
    /// A voter has more.
    Shorter,
    /// Somebody stood who has less, or refused its vote although it has less.
    Longer,
}

/// What the wires and the pulse know of one replica. Times are ms since the host began.
#[derive(Debug)]
pub(crate) struct Rest {
    began: Instant,
    resting: AtomicBool,
    stirs: AtomicU64,
    heard: AtomicU64,
    shield: AtomicU64,
    /// A `Log`.
    log: AtomicU8,
    /// Wall time (unix ms) at which it wakes by itself; `u64::MAX`: never.
    until_wall: AtomicU64,
    /// Rises when any replica of the host is woken.
    woken: watch::Sender<u64>,
}

impl Rest {
    /// A replica that is awake.
    pub(crate) fn new(began: Instant, woken: watch::Sender<u64>) -> Rest {
        let rest = Rest {
            began,
            resting: AtomicBool::new(false),
            stirs: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            shield: AtomicU64::new(0),
            log: AtomicU8::new(Log::Unknown as u8),
            until_wall: AtomicU64::new(u64::MAX),
            woken,
        };
        rest.hear();
        rest
    }

    /// Now, in ms since the host began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// So long ago, in ms since the host began.
    pub(crate) fn ago(&self, ago: Duration) -> u64 {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        self.now().saturating_sub(ago)
    }

    pub(crate) fn is_resting(&self) -> bool {
        self.resting.load(SeqCst)
    }

    /// How often it was stirred: to be named to `rest`.
    pub(crate) fn stirs(&self) -> u64 {
        self.stirs.load(SeqCst)
    }

    /// Something happens. True: it rested.
    pub(crate) fn stir(&self) -> bool {
        self.stirs.fetch_add(1, SeqCst);
        // A read first: this is on the way of every message.
        let rested = self.resting.load(SeqCst) && self.resting.swap(false, SeqCst);
        if rested {
            self.woken.send_modify(|count| *count += 1);
        }
        rested
    }

    /// Something happens, and its leader lives: while it rested nothing was to be heard of it. Whoever woke without that would
    /// take the leader for silent, and stand at once, also against the one that is being handed the shard.
    pub(crate) fn stir_led(&self) -> bool {
        // Before the flag falls: from then on `pulse` looks.
        if self.is_resting() {
            self.hear();
        }
        self.stir()
    }

    /// Rests until `until_wall` at the latest, unless something stirred since `seen`. True: it does.
    pub(crate) fn rest(&self, seen: u64, until_wall: u64) -> bool {
        self.until_wall.store(until_wall, SeqCst);
        self.hear();
        self.resting.store(true, SeqCst);
        if self.stirs() != seen {
            self.resting.store(false, SeqCst);
        }
        self.is_resting()
    }

    /// Whether it rests, and wall time says that it should not any more.
    pub(crate) fn overslept(&self, wall_ms: u64) -> bool {
        self.is_resting() && wall_ms >= self.until_wall.load(SeqCst)
    }

    /// A leader's word was accepted, or a vote given.
    pub(crate) fn hear(&self) {
        self.heard.fetch_max(self.now(), SeqCst);
        self.found(Log::Unknown);
    }

    /// What an election showed.
    pub(crate) fn found(&self, log: Log) {
        self.log.store(log as u8, SeqCst);
    }

    /// What it showed last.
    pub(crate) fn log(&self) -> Log {
        match self.log.load(SeqCst) {
            1 => Log::Shorter,
            2 => Log::Longer,
            _ => Log::Unknown,
        }
    }

    /// When that was last.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(SeqCst)
    }

    /// No vote is given for so long.
    pub(crate) fn shield(&self, ms: u64) {
        self.shield.fetch_max(self.now() + ms, SeqCst);
    }

    /// Whether a vote must be refused now.
    pub(crate) fn is_shielded(&self) -> bool {
        self.now() < self.shield.load(SeqCst)
    }

    /// The leader is lost after all.
    pub(crate) fn unshield(&self) {
        self.shield.store(0, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_only_if_nothing_stirred_since() {
        let woken = watch::Sender::new(0);
        let rest = Rest::new(Instant::now(), woken.clone());
        let seen = rest.stirs();
        assert!(!rest.stir(), "it was awake");
        assert!(!rest.rest(seen, u64::MAX), "it stirred since");
        assert!(rest.rest(rest.stirs(), 1_000));
        assert!(!rest.overslept(999) && rest.overslept(1_000));
        assert_eq!(*woken.borrow(), 0, "nobody was woken yet");
        assert!(rest.stir(), "it rested");
        assert_eq!(*woken.borrow(), 1);
        assert!(!rest.is_resting() && !rest.overslept(2_000));
    }

    #[tokio::test(start_paused = true)]
    async fn who_wakes_was_led_until_now_if_the_leader_lives() {
        let rest = Rest::new(Instant::now(), watch::Sender::new(0));
        let sleep = async || {
            assert!(rest.rest(rest.stirs(), u64::MAX));
            tokio::time::advance(Duration::from_secs(2)).await;
        };
        sleep().await;
        assert!(rest.stir_led());
        assert_eq!(rest.heard(), 2_000);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!rest.stir_led());
        assert_eq!(
            rest.heard(),
            2_000,
            "one that is awake hears the leader itself, or doesn't"
        );
        sleep().await;
        assert!(rest.stir());
        assert_eq!(
            rest.heard(),
            3_000,
            "nobody knows whether the leader lives: it was heard when it went to rest"
        );
    }

    #[test]
    fn what_an_election_showed_is_forgotten_when_a_leader_is_heard() {
        let rest = Rest::new(Instant::now(), watch::Sender::new(0));
        for log in [Log::Shorter, Log::Longer] {
            rest.found(log);
            assert_eq!(rest.log(), log);
            rest.hear();
            assert_eq!(rest.log(), Log::Unknown);
        }
    }

    /// Two threads, one that puts to rest and one that stirs: a stir is never slept through.
    #[test]
    fn a_stir_is_never_lost() {
        for _ in 0..2_000 {
            let rest = Rest::new(Instant::now(), watch::Sender::new(0));
            let seen = rest.stirs();
            std::thread::scope(|scope| {
                scope.spawn(|| rest.rest(seen, u64::MAX));
                scope.spawn(|| rest.stir());
            });
            // Whichever came first, the stir came too: either it woke the replica, or `rest` saw it.
            assert!(!rest.is_resting());
        }
    }
}
