//! One load process: its share of the crowd, each bidder on a socket of its own.
//!
//! ```text
//!   storm              this process                            edges
//!     | {…one line…} --->| signs in, opens sockets -------------->|
//!     | <--- ready       |                                        |
//!     | go ------------->| warm-up, then the measured time  <====>|
//!     | <--- {figures}   |
//! ```
//!
//! A bidder has up to `in_flight` bids under way. Most are hopeless: they offer what the price is already. The rest want to
//! lead, and offer a little more than the newest price that anyone in this process was told: as in a real crowd many of
//! those come too late. Nobody here follows the auction but the `watching`; the rest know what their verdicts tell them.

use anyhow::{Context as _, Result, ensure};
use client::{Api, ApiOptions, BidError, Dice, Notice, Role, Socket, SocketOptions, wire::Verdict};
use futures_util::{StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    task::JoinSet,
};

/// Bidders that are set up at a time.
const SETUP: usize = 64;
/// A socket that isn't open after this has failed.
const OPEN: Duration = Duration::from_secs(30);
/// Bids under way at the end have this long to be answered.
const LAST: Duration = Duration::from_secs(5);
/// What a hopeful bidder adds to the least bid, at most.
const RAISE_MAX: u64 = 20;

/// What the harness asks for, as one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(super) nodes: Vec<String>,
    pub(super) auction: String,
    /// Number of the first bidder: names and dice.
    pub(super) first: usize,
    pub(super) bidders: usize,
    /// How many of them follow the auction too.
    pub(super) watching: usize,
    pub(super) in_flight: usize,
    pub(super) hopeless_percent: u64,
    /// A bidder waits this long on average between an answer and the next bid.
    pub(super) think_ms: u64,
    pub(super) warm_ms: u64,
    pub(super) measure_ms: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Verdicts by code (`accepted`, `low`, …), and bids without one (`unknown`, `unfinished`, a problem's code).
    pub(super) outcomes: BTreeMap<String, u64>,
    /// (µs, how many) of verdicts.
    pub(super) micros: Vec<(u64, u64)>,
    /// Events that the watching saw.
    pub(super) events: u64,
}

/// What bidders share.
struct Crowd {
    share: Share,
    least: AtomicU64,
    events: AtomicU64,
    counted: Mutex<(BTreeMap<String, u64>, Histogram<u64>)>,
}

/// Longest answer that a histogram holds apart, µs: longer ones count as this.
const MICROS_MAX: u64 = 60_000_000;

/// An empty one, µs. Its range is given: one that grows by itself cuts off what it has not grown to.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, MICROS_MAX, 3)?)
}

/// The process: `say` speaks on stdout. Gives its figures, to be printed as the last line.
pub(crate) async fn load(say: fn(&str)) -> Result<serde_json::Value> {
    let mut stdin = BufReader::new(tokio::io::stdin()).lines();
    let share = stdin
        .next_line()
        .await?
        .context("started by `chaos bench storm` only")?;
    let share: Share = serde_json::from_str(&share)?;
    let crowd = Arc::new(Crowd {
        least: AtomicU64::new(1),
        events: AtomicU64::new(0),
        counted: Mutex::new((BTreeMap::new(), histogram()?)),
        share,
    });
    let sockets = open(&crowd).await?;
    say("ready");
    ensure!(stdin.next_line().await?.as_deref() == Some("go"), "the harness is gone");
    let from = Instant::now() + Duration::from_millis(crowd.share.warm_ms);
    let until = from + Duration::from_millis(crowd.share.measure_ms);
    let mut tasks = JoinSet::new();
    for (n, socket) in sockets.iter().enumerate() {
        for lane in 0..crowd.share.in_flight {
            let dice = Dice::new((crowd.share.first + n) as u64).fork(lane as u64);
            tasks.spawn(bid(crowd.clone(), socket.clone(), dice, from, until));
        }
    }
    while let Some(done) = tasks.join_next().await {
        done?;
    }
    Ok(serde_json::to_value(crowd.counted())?)
}

/// Everyone signed in and connected, spread over the edges.
async fn open(crowd: &Arc<Crowd>) -> Result<Vec<Socket>> {
    let api = Api::new(ApiOptions {
        nodes: crowd.share.nodes.clone(),
        first: crowd.share.first,
        ..ApiOptions::default()
    })?;
    let share = &crowd.share;
    let one = |n: usize| {
        let (api, crowd, number) = (api.clone(), crowd.clone(), share.first + n);
        async move {
            let token = Some(api.guest(&format!("c{number}"), Role::Bidder).await?.token);
            let (socket, mut notices) = Socket::open(SocketOptions {
                nodes: crowd.share.nodes.clone(),
                first: number,
                token,
                // The crowd's pings would be a load of their own; verdicts tell that a connection lives.
                ping_every: Duration::from_secs(10),
                silence_max: Duration::from_secs(30),
                seed: number as u64,
                ..SocketOptions::default()
            });
            let opened = tokio::time::timeout(OPEN, async {
                while !matches!(notices.recv().await, Some(Notice::Opened { .. }) | None) {}
            });
            opened.await.with_context(|| format!("bidder {number} can't connect"))?;
            if n < crowd.share.watching {
                socket.join(&crowd.share.auction).await;
                tokio::spawn(watch(crowd, notices));
            }
            anyhow::Ok(socket)
        }
    };
    let all = futures_util::stream::iter(0..share.bidders).map(one);
    all.buffer_unordered(SETUP).try_collect().await
}

async fn watch(crowd: Arc<Crowd>, mut notices: client::Notices) {
    while let Some(notice) = notices.recv().await {
        if matches!(notice, Notice::Event { .. }) {
            crowd.events.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One of the bids that a bidder has under way, again and again.
async fn bid(crowd: Arc<Crowd>, socket: Socket, mut dice: Dice, from: Instant, until: Instant) {
    let share = &crowd.share;
    // Nobody starts at the same moment as everybody.
    let spread = share.think_ms.max(100);
    tokio::time::sleep(Duration::from_millis(dice.below(spread))).await;
    loop {
        let called = Instant::now();
        if called >= until {
            return;
        }
        let least = crowd.least.load(Ordering::Relaxed);
        let hopeless = dice.chance(share.hopeless_percent);
        let amount = if hopeless {
            least.saturating_sub(1).max(1)
        } else {
            least + dice.below(RAISE_MAX)
        };
        let id = dice.id("s-");
        let last = tokio::time::Instant::from_std(until + LAST);
        let answer = tokio::time::timeout_at(last, socket.bid(&share.auction, amount, &id)).await;
        let now = Instant::now();
        if let Ok(Ok(verdict)) = &answer {
            crowd.least.fetch_max(verdict.least, Ordering::Relaxed);
        }
        if called >= from && (now <= until || answer.is_err()) {
            crowd.count(answer.ok(), now - called);
        }
        if share.think_ms > 0 {
            tokio::time::sleep(Duration::from_millis(dice.between(0, 2 * share.think_ms))).await;
        }
    }
}

impl Crowd {
    fn counted(&self) -> Counted {
        let counted = self.counted.lock();
        let recorded = counted.1.iter_recorded();
        Counted {
            outcomes: counted.0.clone(),
            micros: recorded.map(|v| (v.value_iterated_to(), v.count_at_value())).collect(),
            events: self.events.load(Ordering::Relaxed),
        }
    }

    fn count(&self, answer: Option<Result<Verdict, BidError>>, took: Duration) {
        let mut counted = self.counted.lock();
        let outcome = match answer {
            Some(Ok(verdict)) => {
                counted.1.saturating_record(took.as_micros() as u64);
                verdict.code.unwrap_or_else(|| "accepted".into())
            }
            Some(Err(BidError::Refused(problem))) => problem.code,
            Some(Err(BidError::Full)) => "full".into(),
            Some(Err(BidError::Unknown | BidError::Closed)) => "unknown".into(),
            None => "unfinished".into(),
        };
        *counted.0.entry(outcome).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_is_counted_by_its_code_and_with_the_time_that_it_took() {
        let crowd = Crowd {
            share: Share {
                nodes: Vec::new(),
                auction: String::new(),
                first: 0,
                bidders: 0,
                watching: 0,
                in_flight: 1,
                hopeless_percent: 0,
                think_ms: 0,
                warm_ms: 0,
                measure_ms: 0,
            },
            least: AtomicU64::new(1),
            events: AtomicU64::new(3),
            counted: Mutex::new((BTreeMap::new(), histogram().unwrap())),
        };
        let verdict = |code: Option<&str>| Verdict {
            ok: code.is_none(),
            code: code.map(Into::into),
            ..Verdict::default()
        };
        for ms in [2, 300, 4_000] {
            crowd.count(Some(Ok(verdict(Some("low")))), Duration::from_millis(ms));
        }
        crowd.count(Some(Ok(verdict(None))), Duration::from_secs(3_600));
        crowd.count(Some(Err(BidError::Unknown)), Duration::from_secs(1));
        crowd.count(None, Duration::from_secs(1));
        let counted = crowd.counted();
        let outcomes = [("accepted", 1), ("low", 3), ("unfinished", 1), ("unknown", 1)];
        assert_eq!(counted.outcomes, outcomes.map(|(code, n)| (code.to_owned(), n)).into());
        let expected = [2_000, 300_000, 4_000_000, MICROS_MAX];
        assert_eq!(counted.micros.len(), expected.len(), "{:?}", counted.micros);
        for ((micros, times), expected) in counted.micros.iter().zip(expected) {
            let off = micros.abs_diff(expected) as f64 / expected as f64;
            assert!(off < 0.001 && *times == 1, "{micros} us, {expected} expected");
        }
        assert_eq!(counted.events, 3);
    }
}
