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
//! Locks are taken in one order, state before office, and never held over an await. `apply` takes only the state's; what
//! it did comes back as the result of a proposal, so nothing is answered from inside `apply`.
//!
//! A reign goes: leadership -> marker proposed and applied -> `Office::take` -> looks -> the office is over, because
//! another replica leads (senders are told where to go) or because a proposal failed (the next turn is taken at once; a
//! short wait keeps a log that refuses everything from being asked in a loop).
//!
//! Deliberately absent: rules, the clock's arithmetic, openraft. Also absent: `client_write`; see `port::Log`.

use crate::{
    metrics,
    office::{Fate, Goes, Office, Options, Packed},
    port::{Leadership, Log, ProposeError},
    types::{Payload, TraceContext},
};
use auction::{Applied, Command, Entry, EventKind, Reply, Stamp};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use opentelemetry::trace::TraceContextExt;
use parking_lot::Mutex;
use placement::ShardId;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Longest pause of intake for a planned hand-over.
pub const SHUT_MAX: Duration = Duration::from_millis(50);

/// Between a failed proposal and the next turn.
const NEXT_TURN_AFTER: Duration = Duration::from_millis(20);

/// Wall time as unix ms: the median of what the nodes report, or this node's own.
pub type Wall = Arc<dyn Fn() -> u64 + Send + Sync>;

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
    origin: Instant,
    /// `None` while this replica is not in office. Taken after the state's lock.
    office: Mutex<Option<Office<Waiter>>>,
    /// Wakes the task: there is something in a lane.
    work: Notify,
    /// Wakes who waits for the office to be still.
    still: Notify,
    /// Held in offices that are over, ms.
    held_before: AtomicU64,
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
    pub fn spawn(shard: ShardId, log: Arc<dyn Log>, options: Options, wall: Wall) -> ProposerHandle {
        let shared = Arc::new(Shared {
            shard,
            options,
            log,
            wall,
            origin: Instant::now(),
            office: Mutex::new(None),
            work: Notify::new(),
            still: Notify::new(),
            held_before: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        let task = tokio::spawn(run(shared.clone()));
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
        })
    }

    /// Real time that did not count while this replica was in office, ms, over all its offices.
    pub fn held_total_ms(&self) -> u64 {
        let office = self.shared.office.lock();
        let now = office.as_ref().map_or(0, |office| office.clock().held_total_ms());
        self.shared.held_before.load(Ordering::Relaxed) + now
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
    /// Monotonic ms since this proposer began.
    fn mono(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn submit(&self, command: Command, span: Span) -> Reply {
        let (reply, waits) = oneshot::channel();
        let now = {
            let state = self.log.state().read();
            let mut office = self.office.lock();
            match office.as_mut() {
                None => Some(self.elsewhere()),
                Some(office) => office
                    .submit(self.mono(), &state.shard, command, Waiter { reply, span })
                    .map(|r| r.1),
            }
        };
        if let Some(reply) = now {
            return reply;
        }
        self.work.notify_one();
        // The sender goes away without an answer only if the task died: nobody knows what became of it.
        waits.await.unwrap_or(Reply::Unknown)
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

/// Why an office ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The process stops.
    Stop,
    /// Another replica leads, or none that is known.
    Deposed,
    /// A proposal was rejected, void, or its outcome is unknown.
    Failed,
}

async fn run(shared: Arc<Shared>) {
    let mut leadership = shared.log.leadership();
    let mut last = auction::Office::default();
    let mut after = "start";
    loop {
        let now = *leadership.borrow_and_update();
        if !now.leading {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
            }
            continue;
        }
        last = next_turn(last, now.term, shared.log.state().read().shard.office());
        let end = match open(&shared, &mut leadership, now, last).await {
            Ok(()) => Reign::new(&shared, now.term, after).run(&mut leadership).await,
            Err(end) => end,
        };
        match end {
            End::Stop => return,
            End::Deposed => after = "deposed",
            End::Failed => {
                after = "failed";
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = tokio::time::sleep(NEXT_TURN_AFTER) => {}
                }
            }
        }
    }
}

/// The office after `last` in `term`. `applied`: a replica that restarted within its term goes on after what it finds.
fn next_turn(last: auction::Office, term: u64, applied: auction::Office) -> auction::Office {
    let after = |office: auction::Office| {
        if office.term == term {
            office.turn.saturating_add(1)
        } else {
            0
        }
    };
    auction::Office {
        term,
        turn: after(last).max(after(applied)),
    }
}

/// Waits until this replica no longer leads in `term`.
async fn deposed(leadership: &mut watch::Receiver<Leadership>, term: u64) {
    // An error means that the group is gone: no leadership either.
    let _ = leadership.wait_for(|now| !now.leading || now.term != term).await;
}

/// Proposes the marker of an office and takes the office once the marker is applied.
async fn open(
    shared: &Shared,
    leadership: &mut watch::Receiver<Leadership>,
    now: Leadership,
    id: auction::Office,
) -> Result<(), End> {
    let marker = Payload::entry(Entry {
        office: id,
        ..Entry::default()
    });
    let proposed = shared.log.propose(now.term, marker);
    let result = tokio::select! {
        biased;
        () = shared.stop.cancelled() => return Err(End::Stop),
        result = proposed => result,
        () = deposed(leadership, now.term) => return Err(End::Deposed),
    };
    if let Err(error) = result {
        tracing::debug!(shard = shared.shard.0, term = now.term, %error, "no office");
        return Err(End::Failed);
    }
    let heard_ago = u64::try_from(shared.log.heard_top().elapsed().as_millis()).unwrap_or(u64::MAX);
    let state = shared.log.state().read();
    if state.shard.office() != id || state.shard.next_n() != 1 {
        return Err(End::Failed);
    }
    let office = Office::take(shared.options, id, shared.mono(), &state.shard, heard_ago);
    tracing::info!(
        shard = shared.shard.0,
        term = id.term,
        turn = id.turn,
        base = state.shard.top().0,
        "in office"
    );
    *shared.office.lock() = Some(office);
    Ok(())
}

type Outcome = Result<Arc<Applied>, ProposeError>;

/// An entry that came back (or did not).
struct Landed {
    n: u64,
    sent: Instant,
    result: Outcome,
}

/// One office, from the taking to its end.
struct Reign<'a> {
    shared: &'a Shared,
    term: u64,
    flights: FuturesOrdered<BoxFuture<'static, Landed>>,
    metrics: metrics::OfOffice,
    /// Replies on their way out of the lock.
    out: Vec<(Waiter, Reply)>,
}

impl<'a> Reign<'a> {
    fn new(shared: &'a Shared, term: u64, after: &'static str) -> Self {
        let metrics = metrics::OfOffice::taken(shared.shard, after);
        Self {
            shared,
            term,
            flights: FuturesOrdered::new(),
            metrics,
            out: Vec::new(),
        }
    }

    async fn run(mut self, leadership: &mut watch::Receiver<Leadership>) -> End {
        let end = loop {
            let next = self.look();
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => break End::Stop,
                () = deposed(leadership, self.term) => break End::Deposed,
                Some(landed) = self.flights.next() => {
                    if self.land(landed) == Goes::Over {
                        break End::Failed;
                    }
                }
                () = self.shared.work.notified() => {}
                () = sleep_until(next) => {}
            }
        };
        self.end(end, *leadership.borrow());
        end
    }

    /// One look: packs what may go and proposes it. Returns when to look next.
    fn look(&mut self) -> Option<Instant> {
        let Self { shared, .. } = *self;
        let wall_ms = (shared.wall)();
        let mono = shared.mono();
        let mut ready = Vec::new();
        let next = {
            let state = shared.log.state().read();
            let mut office = shared.office.lock();
            let office = office.as_mut()?;
            while let Some(packed) = office.next_entry(mono, wall_ms, &state.shard) {
                let traces = traces(office, &packed);
                ready.push((packed.entry, traces));
            }
            let load = office.load();
            self.metrics.look(
                load.waiting,
                load.flying,
                office.clock().held_total_ms(),
                state.shard.clamped(),
            );
            office.next_look(mono, wall_ms, &state.shard)
        };
        for (entry, traces) in ready {
            self.propose(entry, traces);
        }
        next.map(|at| shared.origin + Duration::from_millis(at))
    }

    fn propose(&mut self, entry: Entry, traces: Traces) {
        self.metrics.proposed(entry.commands.len());
        let (n, sent) = (entry.n, Instant::now());
        let payload = Payload::Entry {
            entry: Arc::new(entry),
            traces: traces.contexts,
        };
        let proposed = self.shared.log.propose(self.term, payload);
        let spans = traces.spans;
        let flight = async move {
            let result = proposed.await;
            drop(spans);
            Landed { n, sent, result }
        };
        self.flights.push_back(flight.boxed());
    }

    /// Settles what came back, and all that is ready behind it.
    fn land(&mut self, landed: Landed) -> Goes {
        let mut goes = self.settle(landed);
        while goes == Goes::On {
            match self.flights.next().now_or_never().flatten() {
                Some(landed) => goes = self.settle(landed),
                None => break,
            }
        }
        self.answer();
        goes
    }

    fn settle(&mut self, landed: Landed) -> Goes {
        self.metrics.committed(landed.sent.elapsed().as_secs_f64() * 1e3);
        if let Ok(applied) = &landed.result {
            self.measure_closes(applied);
        }
        let mono = self.shared.mono();
        let mut office = self.shared.office.lock();
        let Some(office) = office.as_mut() else {
            return Goes::Over;
        };
        let reply;
        let fate = match &landed.result {
            Ok(applied) => Fate::Applied(applied),
            Err(ProposeError::NotLeader { hint, term }) => {
                reply = Reply::NotLeader {
                    hint: hint.map(|node| node.0),
                    term: *term,
                };
                Fate::NotLogged(&reply)
            }
            Err(ProposeError::Unknown) => Fate::Unknown,
        };
        let goes = office.settle(mono, landed.n, fate, &mut self.out);
        if goes == Goes::Over {
            tracing::warn!(
                shard = self.shared.shard.0,
                n = landed.n,
                ?fate,
                "a proposal failed: the office is over"
            );
        }
        if office.is_still() {
            self.shared.still.notify_waiters();
        }
        goes
    }

    fn measure_closes(&self, applied: &Applied) {
        let Applied::Done(done) = applied else { return };
        let mut closes = done
            .events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::Close { .. }))
            .peekable();
        if closes.peek().is_none() {
            return;
        }
        let state = self.shared.log.state().read();
        if let Some(office) = self.shared.office.lock().as_mut() {
            let now = office.read(self.shared.mono(), &state.shard);
            closes.for_each(|close| self.metrics.close_late(now.since(close.ct)));
        }
    }

    fn answer(&mut self) {
        for (waiter, reply) in self.out.drain(..) {
            // A sender that left doesn't mind.
            let _ = waiter.reply.send(reply);
        }
    }

    fn end(&mut self, end: End, now: Leadership) {
        let unproposed = if end == End::Failed {
            Reply::NotJudged
        } else {
            not_leader(now)
        };
        let office = self.shared.office.lock().take();
        if let Some(mut office) = office {
            office.lose(&unproposed, &mut self.out);
            self.shared
                .held_before
                .fetch_add(office.clock().held_total_ms(), Ordering::Relaxed);
            let id = office.id();
            tracing::info!(
                shard = self.shared.shard.0,
                term = id.term,
                turn = id.turn,
                ?end,
                "out of office"
            );
        }
        self.shared.still.notify_waiters();
        self.answer();
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// The traces of an entry's sampled commands: their contexts go into the log, their spans last until it is applied.
#[derive(Default)]
struct Traces {
    contexts: Vec<(u32, TraceContext)>,
    spans: Vec<Span>,
}

fn traces(office: &Office<Waiter>, packed: &Packed) -> Traces {
    let mut traces = Traces::default();
    for (k, ticket) in packed.tickets.iter().enumerate() {
        let Some(waiter) = ticket.and_then(|ticket| office.waiter(ticket)) else {
            continue;
        };
        if waiter.span.is_disabled() {
            continue;
        }
        let context = waiter.span.context();
        let span = context.span().span_context().clone();
        if !span.is_sampled() {
            continue;
        }
        let (trace, id) = (
            u128::from_be_bytes(span.trace_id().to_bytes()),
            u64::from_be_bytes(span.span_id().to_bytes()),
        );
        let context = TraceContext {
            trace,
            span: id,
            flags: span.trace_flags().to_u8(),
        };
        traces.contexts.push((u32::try_from(k).unwrap_or(u32::MAX), context));
        traces
            .spans
            .push(tracing::info_span!(parent: &waiter.span, "log.commit", n = packed.entry.n));
    }
    traces
}
