//! The storm's shard as its quiet people see it: neighbours who bid on, small auctions that close, entries that go on.
//!
//! Everything is opened before anything is measured: which ids fall into the shard is computed, not tried. A closer is
//! started by its seller at its time and closes by itself `CLOSER` later; its seller watches it on a socket of its own and
//! holds the close against the deadline that the opening named.

use super::mapping::Mapping;
use crate::bench::{Pair, ids_in, open};
use anyhow::{Context as _, Result, ensure};
use client::{
    Api, Dice, Notice, Notices, Role, Socket, SocketOptions,
    wire::{Event, NewAuction},
};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinSet};

/// Pairs of neighbours, each with an auction of its own.
const NEIGHBOURS: usize = 4;
/// A neighbour's thought between an answer and the next bid, ms, at most.
const THINK_MS: u64 = 20;
/// How long a closer is live; also the warm-up of a phase, so that closes begin when the measuring does.
const CLOSER: Duration = Duration::from_secs(2);
/// A closer closes this often.
const CLOSE_EVERY: Duration = Duration::from_millis(200);
/// Closers of one seller, who watches them: an edge lets nobody else follow a draft.
const SOLD: usize = 16;
/// After a phase: closes that are due have this long to be seen.
const LAST: Duration = Duration::from_secs(15);

/// What a phase found.
pub(super) struct Found {
    /// Answers to neighbours' bids, µs.
    pub(super) bids: Histogram<u64>,
    /// Neighbours' bids that were not accepted.
    pub(super) failed: u64,
    /// Lateness of closes, ms.
    pub(super) late: Vec<f64>,
    /// Closes that nobody saw.
    pub(super) missing: usize,
    /// Between two signs of a committed entry, ms.
    pub(super) gaps: Vec<f64>,
}

/// What is seen, by all who look.
#[derive(Default)]
struct Seen {
    /// Signs of committed entries in this phase: a few hundred a second.
    entries: Vec<Instant>,
    /// Closer → deadline, from its opening.
    due: BTreeMap<String, u64>,
    /// Lateness of closes in this phase.
    late: Vec<f64>,
    /// Closers that were started and aren't closed.
    live: BTreeSet<String>,
}

struct Shared {
    seen: Mutex<Seen>,
    mapping: Mutex<Mapping>,
    /// A closer was seen closed.
    closed: Notify,
}

/// The quiet part of the shard.
pub(super) struct Shard {
    id: u32,
    pairs: Vec<Pair>,
    /// Drafts, each with its seller's client; the next one last.
    closers: Vec<(Api, String)>,
    shared: Arc<Shared>,
    /// Who watches the closers; they end with us.
    _watching: (Vec<Socket>, JoinSet<()>),
    held_before: u64,
}

impl Shard {
    /// Opens neighbours and closers in shard `id` for two phases of this length.
    pub(super) async fn open(api: &Api, id: u32, shards: u32, phase: Duration) -> Result<Shard> {
        let mut ids = ids_in(id, shards);
        let mut pairs = Vec::new();
        for n in 0..NEIGHBOURS {
            let auction = ids.next().context("an id")?;
            let seller = api.with_token(&api.guest(&format!("n{n}"), Role::Seller).await?.token);
            ensure!(
                open(&seller, &auction, phase.as_secs() * 2 + 600).await? == id,
                "another shard"
            );
            pairs.push(Pair::new(api, auction, n).await?);
        }
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            mapping: Mutex::new(Mapping::new()),
            closed: Notify::new(),
        });
        let (mut closers, mut sockets, mut tasks) = (Vec::new(), Vec::new(), JoinSet::new());
        let wanted = 2 * closers_of(phase);
        while closers.len() < wanted {
            let token = api.guest(&format!("q{}", sockets.len()), Role::Seller).await?.token;
            let seller = api.with_token(&token);
            let (socket, notices) = Socket::open(SocketOptions {
                nodes: api.nodes().to_vec(),
                first: sockets.len(),
                token: Some(token),
                ..SocketOptions::default()
            });
            tasks.spawn(watch(notices, shared.clone()));
            for auction in ids.by_ref().take(SOLD) {
                seller.create(&closer(&auction)).await?;
                socket.join(&auction).await;
                closers.push((seller.clone(), auction));
            }
            sockets.push(socket);
        }
        let mut shard = Shard {
            id,
            pairs,
            closers,
            shared,
            _watching: (sockets, tasks),
            held_before: 0,
        };
        shard.held_before = shard.held(api).await?;
        Ok(shard)
    }

    /// Bids and closes for the warm-up and `phase`; what is found counts from the warm-up's end.
    pub(super) async fn phase(&mut self, phase: Duration) -> Result<Found> {
        *self.shared.seen.lock() = Seen::default();
        let from = Instant::now() + CLOSER;
        let until = from + phase;
        let mut bidders = JoinSet::new();
        for (n, pair) in std::mem::take(&mut self.pairs).into_iter().enumerate() {
            bidders.spawn(neighbour(pair, n, self.shared.clone(), from, until));
        }
        self.close(closers_of(phase)).await?;
        let mut found = Found {
            bids: Histogram::new(3)?,
            failed: 0,
            late: Vec::new(),
            missing: 0,
            gaps: Vec::new(),
        };
        while let Some(done) = bidders.join_next().await {
            let (pair, bids, failed) = done??;
            self.pairs.push(pair);
            found.bids.add(&bids)?;
            found.failed += failed;
        }
        let _ = tokio::time::timeout(LAST, self.all_closed()).await;
        let seen = std::mem::take(&mut *self.shared.seen.lock());
        found.missing = seen.live.len();
        found.late = seen.late;
        found.gaps = gaps(seen.entries, from, until);
        Ok(found)
    }

    /// Starts closers, one each moment, whether the last start was answered or not.
    async fn close(&mut self, count: usize) -> Result<()> {
        let mut tick = tokio::time::interval(CLOSE_EVERY);
        let mut starts = JoinSet::new();
        for _ in 0..count {
            tick.tick().await;
            let (seller, auction) = self.closers.pop().context("enough closers")?;
            self.shared.seen.lock().live.insert(auction.clone());
            starts.spawn(async move { seller.start(&auction).await });
        }
        while let Some(started) = starts.join_next().await {
            started?.context("a closer doesn't start")?;
        }
        Ok(())
    }

    async fn all_closed(&self) {
        loop {
            let closed = self.shared.closed.notified();
            if self.shared.seen.lock().live.is_empty() {
                return;
            }
            closed.await;
        }
    }

    /// Time that the shard's clock stood since it was opened here, ms: as the node that counted most has it.
    pub(super) async fn held(&self, api: &Api) -> Result<u64> {
        let mut most = 0;
        for node in 0..api.nodes().len() {
            let shards = api.pinned(node).cluster().await?.shards;
            let ours = shards.iter().find(|shard| shard.id == self.id);
            most = most.max(ours.and_then(|shard| shard.held_total_ms).unwrap_or(0));
        }
        Ok(most - self.held_before.min(most))
    }
}

fn closers_of(phase: Duration) -> usize {
    (phase.as_millis() / CLOSE_EVERY.as_millis()).max(1) as usize
}

fn closer(id: &str) -> NewAuction {
    NewAuction {
        id: Some(id.into()),
        title: id.into(),
        currency: "KRW".into(),
        start_price: 100,
        increments: Some(vec![[0, 1]]),
        duration_ms: CLOSER.as_millis() as u64,
        guests: Some(true),
        ..NewAuction::default()
    }
}

/// One pair bids until the time is over; gives itself back, its times, and how many bids were not accepted.
async fn neighbour(
    mut pair: Pair,
    n: usize,
    shared: Arc<Shared>,
    from: Instant,
    until: Instant,
) -> Result<(Pair, Histogram<u64>, u64)> {
    let (mut bids, mut failed, mut dice) = (Histogram::new(3)?, 0, Dice::new(n as u64));
    loop {
        let called = Instant::now();
        if called >= until {
            return Ok((pair, bids, failed));
        }
        let (_, verdict) = pair.bid().await;
        let now = Instant::now();
        let accepted = verdict.ok().filter(|verdict| verdict.ok);
        if let Some(verdict) = &accepted {
            shared.mapping.lock().acked(called, verdict.ct);
            shared.seen.lock().entries.push(now);
        }
        // A bid that ended after the phase counts where it hurts: in the tail, by what it took.
        match accepted {
            Some(_) if called >= from => bids.record((now - called).as_micros() as u64)?,
            None if called >= from => failed += 1,
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(dice.below(THINK_MS))).await;
    }
}

/// A seller watches its closers.
async fn watch(mut notices: Notices, shared: Arc<Shared>) {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Event { a, event, at } => shared.event(&a, &event, at),
            // Fallen behind, or a connection was lost: what the newest state says is seen now.
            Notice::Snap { a, auction, at, .. } => {
                if let Some(ends_at) = auction.ends_at {
                    shared.seen.lock().due.insert(a.clone(), ends_at);
                }
                if auction.is_closed() {
                    shared.close(&a, at);
                }
            }
            _ => {}
        }
    }
}

impl Shared {
    fn event(&self, a: &str, event: &Event, at: Instant) {
        {
            let mut seen = self.seen.lock();
            seen.entries.push(at);
            if event.ty == "open" {
                seen.due.insert(a.into(), event.ends_at);
            }
        }
        if event.ty == "close" {
            self.close(a, at);
        }
    }

    fn close(&self, a: &str, at: Instant) {
        {
            let mut seen = self.seen.lock();
            let due = seen.due.get(a).copied();
            // The same close again, after a resume, is nothing new.
            if !seen.live.remove(a) {
                return;
            }
            let late = due.and_then(|due| self.mapping.lock().late(due, at));
            seen.late.extend(late);
        }
        self.closed.notify_waiters();
    }
}

/// Times between signs, and from the edges of the phase to the first and the last, ms.
fn gaps(mut signs: Vec<Instant>, from: Instant, until: Instant) -> Vec<f64> {
    signs.retain(|at| (from..=until).contains(at));
    signs.extend([from, until]);
    signs.sort_unstable();
    let pairs = signs.windows(2);
    pairs.map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_at_the_edges_of_a_phase_is_a_gap_too() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        for (what, signs, expected) in [
            ("nothing seen", vec![], vec![1000.0]),
            ("out of order", vec![at(1500), at(1100)], vec![100.0, 400.0, 500.0]),
            (
                "outside the phase",
                vec![at(10), at(1900), at(5000)],
                vec![900.0, 100.0],
            ),
        ] {
            let found: Vec<f64> = gaps(signs, at(1000), at(2000)).iter().map(|ms| ms.round()).collect();
            assert_eq!(found, expected, "{what}");
        }
    }
}
