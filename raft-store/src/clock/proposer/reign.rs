//! A reign: from the marker that opens an office to the answers that its end owes.
//!
//! ```text
//!   not leading --leadership--> marker --applied--> look, propose, settle, look ... --+--> another leads: not leading
//!                                  ^                                                  |
//!                                  '------------------- next turn -- a proposal failed'
//! ```
//!
//! Proposals are made by this task only, one after the other, and their results are taken in the same order.

use super::{Shared, Waiter, not_leader};
use crate::{
    clock::office::{Fate, Goes, Office, Packed},
    metrics,
    port::{Leadership, ProposeError},
    types::{Payload, TraceContext},
};
use auction::{Applied, Entry, EventKind, Reply};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use opentelemetry::trace::TraceContextExt;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Between a failed proposal and the next turn.
const NEXT_TURN_AFTER: Duration = Duration::from_millis(20);

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

/// The proposer's task: waits for leadership, reigns, and waits again.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut leadership = shared.log.leadership();
    let mut last = auction::Office::default();
    let mut after = "start";
    #[cfg(feature = "sim")]
    let mut left = None;
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
            Ok(()) => {
                #[cfg(feature = "sim")]
                return_entry(&shared, now.term, left.take());
                let mut reign = Reign::new(&shared, now.term, after);
                let end = reign.run(&mut leadership).await;
                #[cfg(feature = "sim")]
                {
                    left = reign.newest;
                }
                end
            }
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

/// What a queue that nobody emptied would do: an entry of an office that is over comes into the log behind the marker of
/// the next.
#[cfg(feature = "sim")]
fn return_entry(shared: &Shared, term: u64, entry: Option<Entry>) {
    if let Some(entry) = entry
        && crate::sim::planted(crate::sim::Plant::EntriesReturn)
    {
        // Whatever becomes of it: nobody waits for it.
        drop(tokio::spawn(shared.log.propose(term, Payload::entry(entry))));
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
    let mut office = Office::take(shared.options, id, shared.mono(), &state.shard, heard_ago);
    let (stood, counted) = *shared.stretch.lock();
    if stood == state.shard.top() {
        office.counted_before(counted);
    }
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
    /// The entry that was proposed last, for `Plant::EntriesReturn`.
    #[cfg(feature = "sim")]
    newest: Option<Entry>,
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
            #[cfg(feature = "sim")]
            newest: None,
        }
    }

    async fn run(&mut self, leadership: &mut watch::Receiver<Leadership>) -> End {
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
                // Those who are at the door now go with the first: one entry, not many.
                () = self.shared.work.notified() => tokio::task::yield_now().await,
                () = sleep_until(next) => {}
            }
        };
        self.end(end, *leadership.borrow());
        end
    }

    /// One look: packs what may go and proposes it. Returns when to look next.
    fn look(&mut self) -> Option<Instant> {
        let Self { shared, .. } = *self;
        let wall = (shared.wall)();
        let mono = shared.mono();
        let mut ready = Vec::new();
        let next = {
            let state = shared.log.state().read();
            let mut office = shared.office.lock();
            let office = office.as_mut()?;
            office.narrow(shared.intake());
            while let Some(packed) = office.next_entry(mono, wall, &state.shard) {
                if let Some(ms) = packed.late_ms {
                    self.metrics.beat_late(ms);
                }
                let traces = traces(office, &packed);
                ready.push((packed.entry, traces));
            }
            let load = office.load();
            self.metrics.look(load.waiting, load.flying, state.shard.clamped());
            self.metrics
                .clock(office.clock().held_total_ms(), office.clock().is_strained());
            office.next_look(mono, wall.ms, &state.shard)
        };
        for (entry, traces) in ready {
            self.propose(entry, traces);
        }
        next.map(|at| Instant::now() + Duration::from_millis(at.saturating_sub(mono)))
    }

    fn propose(&mut self, entry: Entry, traces: Traces) {
        self.metrics.proposed(entry.commands.len());
        self.metrics.holds(entry.holds.len());
        let (n, sent) = (entry.n, Instant::now());
        #[cfg(feature = "sim")]
        {
            self.newest = Some(entry.clone());
        }
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
        let top = self.shared.log.state().read().shard.top();
        let office = self.shared.office.lock().take();
        if let Some(mut office) = office {
            office.lose(&unproposed, &mut self.out);
            let held = office.clock().held_total_ms();
            self.shared.held_before.fetch_add(held, Ordering::Relaxed);
            let mut stretch = self.shared.stretch.lock();
            *stretch = match *stretch {
                _ if top != office.clock().base() => (top, 0),
                (stood, counted) if stood == top => (top, counted + held),
                _ => (top, held),
            };
            drop(stretch);
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
