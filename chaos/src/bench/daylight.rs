//! What operators do to a cluster in daylight, and what bidders feel of it: nodes drained and restarted (`drain`), replicas
//! moved to a node that has joined (`shift`), under bids at a set rate.
//!
//! ```text
//!   pairs of people --a bid every so many ms, due or not answered yet--> edges --> shards
//!      '--> Book: each bid's shard, when it was due, when it was answered, and how
//!                     '--> Felt: one stretch of time, looked at afterwards
//! ```
//!
//! Two figures of one stretch. *Latency* is counted from when a bid was due, so that a pair that had to wait isn't
//! kinder to its next bid. A shard's *stall* is its longest time between two accepted answers, the stretch's ends
//! counted: with hundreds of bids a second in each shard it is known to a few ms, and it says nothing of an edge that a
//! client had to leave.
//!
//! A bid that was refused, or whose outcome stayed unknown, is an error: each leads its auction when it is called, so there
//! is no other reason than what is being done to the cluster.

mod drain;
mod shift;

pub(crate) use drain::{DrainOptions, drain};
pub(crate) use shift::{ShiftOptions, shift};

use super::{
    Pair, open,
    usage::{Usage, round1},
};
use crate::cluster::Cluster;
use anyhow::{Context as _, Result, ensure};
use client::{Api, Role, wire::Event};
use futures_util::{StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Pairs that are set up at a time.
const SETUP: usize = 32;
/// A cluster that takes longer for anything has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at who leads what.
const LOOK: Duration = Duration::from_millis(20);
/// Sockets and leaders come to rest.
const WARM: Duration = Duration::from_secs(3);

/// How hard.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Load {
    /// Bids that are due a second, all together.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Pairs of people, each with an auction and at most one bid under way.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    pairs: u64,
    /// Shards of the cluster.
    #[arg(long, default_value_t = 16)]
    shards: u32,
}

/// One answered bid.
struct Answered {
    shard: u32,
    due: Instant,
    at: Instant,
    /// Accepted; else what was said.
    fate: Result<(), String>,
}

/// All bids so far.
#[derive(Default)]
struct Book {
    bids: Vec<Answered>,
    acked: BTreeSet<String>,
}

/// People who bid until they are told to stop.
struct Crowd {
    book: Arc<Mutex<Book>>,
    auctions: Vec<String>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Crowd {
    /// Opens the auctions and begins to bid. `seconds`: how long it may take, at most.
    async fn start(api: &Api, load: &Load, seconds: u64) -> Result<Crowd> {
        let one = |n: usize| async move {
            let seller = api.with_token(&api.guest(&format!("s{n}"), Role::Seller).await?.token);
            let id = format!("bench-{n}");
            let shard = open(&seller, &id, seconds).await?;
            anyhow::Ok((shard, id.clone(), Pair::new(api, id, n).await?))
        };
        let pairs: Vec<(u32, String, Pair)> = futures_util::stream::iter(0..load.pairs as usize)
            .map(one)
            .buffer_unordered(SETUP)
            .try_collect()
            .await?;
        let mut crowd = Crowd {
            book: Arc::default(),
            auctions: Vec::new(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        let every = Duration::from_secs_f64(load.pairs as f64 / load.rate as f64);
        let first = Instant::now();
        for (n, (shard, id, pair)) in pairs.into_iter().enumerate() {
            crowd.auctions.push(id);
            let due = first + every.mul_f64(n as f64 / load.pairs as f64);
            let (book, stop) = (crowd.book.clone(), crowd.stop.clone());
            crowd.tasks.spawn(bid_on(pair, shard, due, every, book, stop));
        }
        Ok(crowd)
    }

    /// What was felt in a stretch of time.
    fn felt(&self, from: Instant, until: Instant) -> Result<Felt> {
        Felt::of(&self.book.lock().bids, from, until)
    }

    /// Ends the bidding, and looks for every accepted bid in what the cluster exports. Gives how many there are, and how
    /// many of them are lost.
    async fn end(mut self, api: &Api) -> Result<(usize, usize)> {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let mut kept = BTreeSet::new();
        for id in &self.auctions {
            let text = api.export(id, false).await?;
            let ids = text
                .lines()
                .skip(1)
                .filter_map(|line| serde_json::from_str::<Event>(line).ok()?.id);
            kept.extend(ids);
        }
        let book = self.book.lock();
        Ok((book.acked.len(), book.acked.difference(&kept).count()))
    }
}

async fn bid_on(
    mut pair: Pair,
    shard: u32,
    first: Instant,
    every: Duration,
    book: Arc<Mutex<Book>>,
    stop: CancellationToken,
) {
    let mut due = first;
    while !stop.is_cancelled() {
        tokio::time::sleep_until(due.into()).await;
        let (id, verdict) = pair.bid().await;
        let at = Instant::now();
        let fate = match verdict {
            Ok(verdict) if verdict.ok => Ok(()),
            Ok(verdict) => Err(verdict.code.unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        };
        let mut book = book.lock();
        if fate.is_ok() {
            book.acked.insert(id);
        }
        book.bids.push(Answered { shard, due, at, fate });
        // One bid that is late makes the next one late too; a whole round that was missed isn't made up for.
        due = (due + every).max(at.checked_sub(every).unwrap_or(at));
    }
}

/// A stretch of time, as bidders felt it.
struct Felt {
    seconds: f64,
    latency: Histogram<u64>,
    /// The longest time between accepted answers of each shard, ms.
    stalls: BTreeMap<u32, f64>,
    /// The shard with the longest one of all, and when it began, counted from the stretch's begin.
    worst: Option<(u32, Duration)>,
    errors: BTreeMap<String, u64>,
}

impl Felt {
    fn of(bids: &[Answered], from: Instant, until: Instant) -> Result<Felt> {
        let mut felt = Felt {
            seconds: (until - from).as_secs_f64(),
            latency: Histogram::new(3)?,
            stalls: BTreeMap::new(),
            worst: None,
            errors: BTreeMap::new(),
        };
        let mut longest_of_all = Duration::ZERO;
        let mut answers: BTreeMap<u32, Vec<Instant>> = BTreeMap::new();
        for bid in bids {
            answers.entry(bid.shard).or_default();
            // A bid belongs to a stretch if any part of its wait does.
            if bid.at < from || bid.due > until {
                continue;
            }
            match &bid.fate {
                Ok(()) => felt.latency.record((bid.at - bid.due).as_micros() as u64)?,
                Err(said) => *felt.errors.entry(said.clone()).or_default() += 1,
            }
            if bid.fate.is_ok() && bid.at <= until {
                answers.entry(bid.shard).or_default().push(bid.at);
            }
        }
        for (shard, mut times) in answers {
            times.extend([from, until]);
            times.sort_unstable();
            let longest = times.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).max();
            let (longest, began) = longest.unwrap_or((Duration::ZERO, from));
            felt.stalls.insert(shard, longest.as_secs_f64() * 1e3);
            if longest > longest_of_all {
                longest_of_all = longest;
                felt.worst = Some((shard, began - from));
            }
        }
        Ok(felt)
    }

    fn ms(&self, quantile: f64) -> f64 {
        round1(self.latency.value_at_quantile(quantile) as f64 / 1e3)
    }

    fn per_s(&self) -> f64 {
        (self.latency.len() as f64 / self.seconds).round()
    }

    fn errors(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Takes in another stretch, as if both were one.
    fn join(&mut self, other: &Felt) -> Result<()> {
        self.seconds += other.seconds;
        self.latency.add(&other.latency)?;
        for (said, count) in &other.errors {
            *self.errors.entry(said.clone()).or_default() += count;
        }
        Ok(())
    }
}

/// What several stretches came to.
#[derive(Default)]
struct Sum {
    felt: Option<Felt>,
    stalls: Vec<f64>,
    took: Vec<f64>,
}

impl Sum {
    fn take(&mut self, felt: Felt, took: Duration) -> Result<()> {
        self.stalls.extend(felt.stalls.values().copied());
        self.took.push(took.as_secs_f64() * 1e3);
        match &mut self.felt {
            Some(all) => all.join(&felt),
            none => {
                *none = Some(felt);
                Ok(())
            }
        }
    }

    /// The same, of one shard only.
    fn take_of(&mut self, shard: u32, mut felt: Felt, took: Duration) -> Result<()> {
        felt.stalls.retain(|one, _| *one == shard);
        self.take(felt, took)
    }

    fn took_ms(&mut self, at: f64) -> f64 {
        quantile(&mut self.took, at)
    }

    fn figures(&mut self) -> Value {
        let Some(felt) = &self.felt else { return json!({}) };
        let mut figures = felt_figures(felt);
        let stall = |stalls: &mut Vec<f64>, at| quantile(stalls, at);
        let stalls = json!({
            "stall_ms_p50": stall(&mut self.stalls, 0.5), "stall_ms_p99": stall(&mut self.stalls, 0.99),
            "stall_ms_max": stall(&mut self.stalls, 1.0), "ms_max": quantile(&mut self.took, 1.0),
        });
        put(&mut figures, "", stalls);
        figures
    }
}

fn felt_figures(felt: &Felt) -> Value {
    let mut stalls: Vec<f64> = felt.stalls.values().copied().collect();
    let said: Vec<String> = felt
        .errors
        .iter()
        .map(|(said, count)| format!("{count} {said}"))
        .collect();
    json!({
        "bids_per_s": felt.per_s(), "p50_ms": felt.ms(0.5), "p99_ms": felt.ms(0.99), "max_ms": felt.ms(1.0),
        "stall_ms_p99": quantile(&mut stalls, 0.99), "errors": felt.errors(), "said": said.join(", "),
    })
}

/// Puts figures among others, under longer names.
fn put(all: &mut Value, before: &str, figures: Value) {
    if let Value::Object(figures) = figures {
        for (name, value) in figures {
            all[format!("{before}{name}")] = value;
        }
    }
}

/// An undisturbed stretch, and what the machine did in it.
async fn base(cluster: &Cluster, crowd: &Crowd, seconds: u64) -> Result<(Felt, Value)> {
    tokio::time::sleep(WARM).await;
    let (nodes, me) = (cluster.pids(), [std::process::id()]);
    let groups: [&[u32]; 2] = [&nodes, &me];
    let (from, before) = (Instant::now(), Usage::now(&groups)?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let spent = before.since(&groups)?;
    let cores = |group: usize| (spent.groups[group] / spent.seconds * 100.0).round() / 100.0;
    let told = json!({
        "server_cpu_cores": cores(0), "client_cpu_cores": cores(1), "others_percent": spent.others_percent(),
    });
    Ok((crowd.felt(from, Instant::now())?, told))
}

/// One of the values, by its rank.
pub(super) fn quantile(values: &mut [f64], quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len().max(1) - 1) as f64 * quantile).round() as usize;
    values.get(at).copied().map_or(0.0, round1)
}

/// An operator at the first node's console.
struct Console {
    http: reqwest::Client,
    url: String,
}

impl Console {
    fn at(api: &Api) -> Result<Console> {
        let node = api.nodes().first().context("no node")?;
        Ok(Console {
            http: reqwest::Client::new(),
            url: format!("{node}/api/v1/admin"),
        })
    }

    async fn overview(&self) -> Result<Value> {
        let asked = self.http.get(format!("{}/overview", self.url)).send().await?;
        Ok(asked.error_for_status()?.json().await?)
    }

    async fn change(&self, change: Value) -> Result<()> {
        let ask = json!({"change": change, "force": "bench"});
        let asked = self
            .http
            .post(format!("{}/changes", self.url))
            .json(&ask)
            .send()
            .await?;
        let (status, said) = (asked.status(), asked.text().await?);
        ensure!(status.is_success(), "{ask}: {said}");
        Ok(())
    }
}

/// How many shards each node leads, by the word of the node at `place`.
async fn leads(api: &Api, place: usize) -> Result<BTreeMap<u64, usize>> {
    let cluster = api.pinned(place).cluster().await?;
    let mut leads = BTreeMap::new();
    for leader in cluster.shards.iter().filter_map(|shard| shard.leader) {
        *leads.entry(leader).or_default() += 1;
    }
    Ok(leads)
}

/// Waits until every shard is led, and as many by each node as is wanted.
async fn led(api: &Api, place: usize, shards: u32, wanted: impl Fn(&BTreeMap<u64, usize>) -> bool) -> Result<Instant> {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = leads(api, place).await?;
        if now.values().sum::<usize>() == shards as usize + 1 && wanted(&now) {
            return Ok(Instant::now());
        }
        ensure!(Instant::now() < until, "leaderships stay at {now:?}");
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Answered, Felt, quantile};
    use std::time::{Duration, Instant};

    /// Bids: (shard, due ms, answered ms, accepted).
    fn felt(bids: &[(u32, u64, u64, bool)], from: u64, until: u64) -> Felt {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let bids: Vec<Answered> = bids
            .iter()
            .map(|(shard, due, answered, ok)| Answered {
                shard: *shard,
                due: at(*due),
                at: at(*answered),
                fate: if *ok { Ok(()) } else { Err("low".into()) },
            })
            .collect();
        Felt::of(&bids, at(from), at(until)).unwrap()
    }

    #[test]
    fn a_stall_is_the_longest_time_without_an_accepted_answer() {
        let bids = [
            (1, 90, 100, true),
            (1, 100, 150, true),
            (1, 160, 200, false),
            (1, 200, 400, true),
            (2, 50, 60, true),
        ];
        // from | until | stall of shard 1 | of shard 2 | errors
        for (from, until, one, two, errors) in [
            (100, 400, 250.0, 300.0, 1),
            (100, 150, 50.0, 50.0, 0),
            (300, 500, 100.0, 200.0, 0),
            (0, 100, 100.0, 60.0, 0),
        ] {
            let felt = felt(&bids, from, until);
            assert_eq!((felt.stalls[&1], felt.stalls[&2]), (one, two), "{from}..{until}");
            assert_eq!(felt.errors(), errors, "{from}..{until}");
        }
    }

    #[test]
    fn the_longest_stall_has_a_shard_and_a_moment() {
        let bids = [
            (1, 0, 150, true),
            (1, 0, 300, true),
            (2, 0, 120, true),
            (2, 0, 390, true),
        ];
        let felt = felt(&bids, 100, 400);
        assert_eq!(felt.worst, Some((2, Duration::from_millis(20))));
    }

    #[test]
    fn a_bid_that_waits_through_a_stretch_is_felt_in_it() {
        let felt = felt(&[(1, 0, 900, true)], 300, 400);
        assert_eq!(felt.ms(1.0).round(), 900.0);
        assert_eq!(felt.stalls[&1], 100.0, "it was answered after the stretch");
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let mut values = [5.0, 1.0, 3.0];
        assert_eq!(quantile(&mut values, 0.5), 3.0);
        assert_eq!(quantile(&mut values, 0.99), 5.0);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }
}
