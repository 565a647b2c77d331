//! The proposer: the only writer of a shard, as a task.
//!
//! `Office` decides; this file owns what decisions need: the lock that makes door, stamp and place one step, the task
//! that looks at the clock, and the futures of entries in flight.
//!
//! ```text
//!   submit (any task) --- state.read, office.lock: known? pending? early? room, stamp, lane ---> wakes the task
//!                                                                                               |
//!   task: look -> pack -> Log::propose ... up to `window` commands in flight ... -> settle -> Reply to each sender
//!           ^--- every look_ms while there are timers or work; not at all while there are none
//! ```
//!
//! One lock a shard, not one a lane: the door holds it for 2-4 µs (measured with the shard's look-ups, beside busy
//! builds), so 50,000 commands a second on one shard keep it an eighth of the time; a lock for each lane would still need
//! the shard's for the clock and the room.
//!
//! Locks are taken in one order, state before office, and never held over an await. `apply` takes only the state's; what
//! it did comes back as the result of a proposal, so nothing is answered from inside `apply`.
//!
//! A reign goes: leadership -> marker proposed and applied -> `Office::take` -> looks -> the office is over, because
//! another replica leads (senders are told where to go) or because a proposal failed (the next turn is taken at once; a
//! short wait keeps a log that refuses everything from being asked in a loop).
//!
//! Deliberately absent: rules, the clock's arithmetic, openraft. Also absent: `client_write`; see `port::Log`.

mod reign;

use crate::{
    clock::{
        office::{Office, Options},
        time::Time,
    },
    fitness::Intake,
    metrics,
    port::{Leadership, Log},
};
use auction::{Command, Reply, Stamp};
use parking_lot::Mutex;
use placement::ShardId;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

/// Longest pause of intake for a planned hand-over.
pub const SHUT_MAX: Duration = Duration::from_millis(50);

/// Wall time: the median of what the nodes report, with its error.
pub type Wall = Arc<dyn Fn() -> auction::Wall + Send + Sync>;

/// A leader's clock, as told to edges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The office that reads.
    pub office: auction::Office,
    /// The reading.
    pub now: Stamp,
    /// The newest applied stamp.
    pub top: Stamp,
    /// Whether any timer pends: if none does, nobody waits for this clock.
    pub timers: bool,
    /// Commands that the shard drains in `lane_ms`: edges hold back what is more.
    pub drains: u32,
}

/// A sender that waits.
struct Waiter {
    reply: oneshot::Sender<Reply>,
    span: Span,
}

struct Shared {
    shard: ShardId,
    options: Options,
    log: Arc<dyn Log>,
    wall: Wall,
    time: Time,
    /// `None` while this replica is not in office. Taken after the state's lock.
    office: Mutex<Option<Office<Waiter>>>,
    /// Wakes the task: there is something in a lane.
    work: Notify,
    /// Wakes who waits for the office to be still.
    still: Notify,
    /// Held in offices that are over, ms.
    held_before: AtomicU64,
    /// What the door takes in; see `Intake`.
    intake: AtomicU8,
    /// Held in offices that ended where they began, and where that was: the next one taken there counts from the same
    /// moment as they did, and only what is more is new. (Else an hour of elections is told as many hours.)
    stretch: Mutex<(Stamp, u64)>,
    stop: CancellationToken,
}

/// The way to a shard's proposer. Dropping it stops the task.
pub struct ProposerHandle {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Starts proposers.
pub struct Proposer;

impl Proposer {
    /// Starts the task of one shard's replica: idle until its replica leads. Needs a tokio runtime around it.
    pub fn spawn(shard: ShardId, log: Arc<dyn Log>, options: Options, time: Time, wall: Wall) -> ProposerHandle {
        let shared = Arc::new(Shared {
            shard,
            options,
            log,
            wall,
            time,
            office: Mutex::new(None),
            work: Notify::new(),
            still: Notify::new(),
            held_before: AtomicU64::new(0),
            intake: AtomicU8::new(Intake::All as u8),
            stretch: Mutex::default(),
            stop: CancellationToken::new(),
        });
        let task = tokio::spawn(reign::run(shared.clone()));
        ProposerHandle {
            shared,
            task: Mutex::new(Some(task)),
        }
    }
}

impl ProposerHandle {
    /// A command, to its verdict (or to what is none: see `Reply`). Dropping the future takes nothing back.
    pub async fn submit(&self, command: Command) -> Reply {
        let span = tracing::info_span!("shard.submit", shard = self.shared.shard.0, auction = %command.auction);
        let reply = self.shared.submit(command, span.clone()).instrument(span).await;
        metrics::judged(&reply);
        reply
    }

    /// The clock, if this replica is in office. A look, like every reading.
    pub fn reading(&self) -> Option<Reading> {
        let state = self.shared.log.state().read();
        let mut office = self.shared.office.lock();
        let office = office.as_mut()?;
        let now = office.read(self.shared.mono(), &state.shard);
        Some(Reading {
            office: office.id(),
            now,
            top: state.shard.top(),
            timers: state.shard.has_timers(),
            drains: u32::try_from(office.load().drains).unwrap_or(u32::MAX),
        })
    }

    /// Real time that did not count while this replica was in office, ms, over all its offices.
    pub fn held_total_ms(&self) -> u64 {
        let office = self.shared.office.lock();
        let now = office.as_ref().map_or(0, |office| office.clock().held_total_ms());
        self.shared.held_before.load(Ordering::Relaxed) + now
    }

    /// Whether this replica, in office, lost so much time lately that another one should lead (see `clock::Options`).
    pub fn is_strained(&self) -> bool {
        self.shared
            .office
            .lock()
            .as_ref()
            .is_some_and(|office| office.clock().is_strained())
    }

    /// Whether nothing waits here and nothing flies. To be asked under the state's lock, if that is wanted too.
    pub fn is_still(&self) -> bool {
        self.shared.office.lock().as_ref().is_none_or(Office::is_still)
    }

    /// Pauses intake (at most `SHUT_MAX`) until nothing waits or flies, so that a hand-over finds a follower with the
    /// last index. True if it became still; intake comes back by itself in any case, so a hand-over that fails leaves
    /// no silent shard.
    pub async fn quiesce(&self) -> bool {
        let shut_ms = u64::try_from(SHUT_MAX.as_millis()).unwrap_or(u64::MAX);
        match self.shared.office.lock().as_mut() {
            Some(office) => office.shut(self.shared.mono(), shut_ms),
            None => return true,
        }
        let becomes_still = async {
            loop {
                let changed = self.shared.still.notified();
                if self.shared.office.lock().as_ref().is_none_or(Office::is_still) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(SHUT_MAX, becomes_still).await.is_ok()
    }

    /// Ends a pause of intake at once.
    pub fn reopen(&self) {
        if let Some(office) = self.shared.office.lock().as_mut() {
            office.reopen();
        }
        self.shared.work.notify_one();
    }

    /// Narrows the door, or widens it again: a disk that is short of room takes in less.
    pub fn narrow(&self, intake: Intake) {
        if self.shared.intake.swap(intake as u8, Ordering::Relaxed) != intake as u8 {
            // Starts that came due meanwhile are looked at.
            self.shared.work.notify_one();
        }
    }

    /// Stops the task; what waits is told that it was not judged, what flies that its outcome is unknown.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(shard = self.shared.shard.0, %error, "the proposer ended badly");
        }
    }
}

impl Drop for ProposerHandle {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    fn intake(&self) -> Intake {
        Intake::from_number(self.intake.load(Ordering::Relaxed))
    }

    /// This node's monotonic clock, ms.
    fn mono(&self) -> u64 {
        self.time.mono_ms()
    }

    async fn submit(&self, command: Command, span: Span) -> Reply {
        let (reply, waits) = oneshot::channel();
        #[cfg(feature = "sim")]
        let hoped = crate::sim::planted(crate::sim::Plant::AckBeforeCommit).then(|| self.hoped(&command));
        let (now, look) = {
            let state = self.log.state().read();
            let mut office = self.office.lock();
            match office.as_mut() {
                None => (Some(self.elsewhere()), false),
                Some(office) => {
                    office.narrow(self.intake());
                    let answered = office.submit(self.mono(), &state.shard, command, Waiter { reply, span });
                    (answered.map(|r| r.1), office.wants_look())
                }
            }
        };
        if let Some(reply) = now {
            return reply;
        }
        // Not for each of a crowd's bids, to find that it must wait.
        if look {
            self.work.notify_one();
        }
        #[cfg(feature = "sim")]
        if let Some(hoped) = hoped {
            return hoped;
        }
        // The sender goes away without an answer only if the task died: nobody knows what became of it.
        waits.await.unwrap_or(Reply::Unknown)
    }

    /// A planted mistake's answer: what will become of a command, if nothing comes between.
    #[cfg(feature = "sim")]
    fn hoped(&self, command: &Command) -> Reply {
        let mut shard = self.log.state().read().shard.clone();
        let (office, n, at) = (shard.office(), shard.next_n(), shard.top());
        let (arrived, command) = (at, command.clone());
        let entry = auction::Entry {
            office,
            n,
            at,
            commands: vec![auction::Stamped { arrived, command }],
            ..auction::Entry::default()
        };
        match shard.apply(&entry) {
            auction::Applied::Done(done) => done.verdicts.into_iter().next().map_or(Reply::Unknown, Reply::Verdict),
            auction::Applied::Void => Reply::Unknown,
        }
    }

    /// What is said while this replica is not in office.
    fn elsewhere(&self) -> Reply {
        let now = *self.log.leadership().borrow();
        if now.leading { Reply::NotJudged } else { not_leader(now) }
    }
}

fn not_leader(now: Leadership) -> Reply {
    Reply::NotLeader {
        hint: now.leader.map(|node| node.0),
        term: now.term,
    }
}
