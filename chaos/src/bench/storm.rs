//! Thousands of bidders on one auction: does its shard still close in time, and do its neighbours still get their answers?
//!
//! ```text
//!                          .--> load 1 --.
//!   here --- share, go ----+--> load 2 --+--> three edges --> the storm's auction --.
//!     |                    '--> load 3 --'                                          +-- one shard
//!     |---- neighbours: pairs that overbid each other, as in a quiet house --------.|
//!     '---- closers: small auctions, one of which closes every moment, watched ----'
//! ```
//!
//! Twice the same: a quiet phase without the crowd, then the storm. In both the neighbours' answers are timed, each close
//! is held against its deadline as far as acknowledgements tell the shard's clock (`mapping`), and every sign of a committed
//! entry (an answer, an event) is noted: the longest time without one is at least as long as the longest between two
//! entries, beats among them.
//!
//! Where the load shares its cores with the servers, it is the machine that is measured, too: so the CPU of both is told, and
//! `--load-nice` lets the load give way. That changes what is offered, not what is promised: then lateness is the cluster's.

pub(super) mod load;
mod mapping;
mod shard;

use super::{
    child::{Talker, tied},
    fresh, open,
    usage::{Usage, round1},
};
use anyhow::{Result, ensure};
use client::{Api, Role};
use hdrhistogram::Histogram;
use load::{Counted, Share};
use serde_json::{Value, json};
use shard::{Found, Shard};
use std::{collections::BTreeMap, process::Stdio, time::Duration};

/// How large, how hard.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StormOptions {
    /// On one auction, each on a socket of its own, spread over three edges.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(3..))]
    bidders: u64,
    /// Load processes: one may open about 20,000 files.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=64))]
    processes: u64,
    /// Bids of one socket that are under way at a time, at most.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    in_flight: u64,
    /// Share of bids that can't win.
    #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(u64).range(0..=100))]
    hopeless_percent: u64,
    /// A bidder's wait between an answer and the next bid, on average; 0: none.
    #[arg(long, default_value_t = 1_000)]
    think_ms: u64,
    /// Bidders who follow the auction too; the others get verdicts only.
    #[arg(long, default_value_t = 300)]
    watching: u64,
    /// How much the load processes give way to the cluster and to those who measure, as if they were on other machines.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=19))]
    load_nice: u64,
    /// Measured time of each phase.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Shards of the cluster.
    #[arg(long, default_value_t = 16)]
    shards: u32,
}

const AUCTION: &str = "storm";
/// The crowd bids for this long before it is measured.
const WARM: Duration = Duration::from_secs(2);
/// A load process has this long to sign its share in.
const READY: Duration = Duration::from_secs(300);
/// A load process has this long for its last answers.
const LAST: Duration = Duration::from_secs(60);

/// Runs it; the figures as JSON.
pub(crate) async fn storm(options: &StormOptions) -> Result<Value> {
    let (dir, cluster, api) = fresh(options.shards).await?;
    let seller = api.with_token(&api.guest("seller", Role::Seller).await?.token);
    let id = open(&seller, AUCTION, options.seconds * 2 + 600).await?;
    let phase = Duration::from_secs(options.seconds);
    let mut shard = Shard::open(&api, id, options.shards, phase).await?;
    tracing::info!(shard = id, "quiet phase");
    let quiet = shard.phase(phase).await?;
    let mut loads = start(options, &api).await?;
    tracing::info!(bidders = options.bidders, "the crowd is there");
    let (nodes, me) = (cluster.pids(), [std::process::id()]);
    let crowd: Vec<u32> = loads.iter().map(Talker::pid).collect::<Result<_>>()?;
    let groups: [&[u32]; 3] = [&nodes, &crowd, &me];
    for load in &mut loads {
        load.say("go").await?;
    }
    let measured = async {
        tokio::time::sleep(WARM).await;
        let before = Usage::now(&groups)?;
        tokio::time::sleep(phase).await;
        before.since(&groups)
    };
    let (stormy, spent) = tokio::try_join!(shard.phase(phase), measured)?;
    let mut counted = Vec::new();
    for load in &mut loads {
        counted.push(serde_json::from_str(&load.line(LAST).await?)?);
    }
    let held = shard.held(&api).await?;
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    let mut figures = crowd_figures(options, &counted, held)?;
    for (name, value) in [
        ("server_cpu_cores", spent.groups[0] / spent.seconds),
        ("client_cpu_cores", (spent.groups[1] + spent.groups[2]) / spent.seconds),
    ] {
        figures[name] = ((value * 100.0).round() / 100.0).into();
    }
    figures["others_percent"] = spent.others_percent().into();
    shard_figures(&mut figures, &quiet, &stormy);
    Ok(figures)
}

/// Starts the load processes, each with its share, and waits until all of the crowd is connected.
async fn start(options: &StormOptions, api: &Api) -> Result<Vec<Talker>> {
    let me = std::env::current_exe()?;
    let mut loads = Vec::new();
    for n in 0..options.processes {
        let part = |of: u64| (of * (n + 1) / options.processes - of * n / options.processes) as usize;
        let share = Share {
            nodes: api.nodes().to_vec(),
            auction: AUCTION.into(),
            first: (options.bidders * n / options.processes) as usize,
            bidders: part(options.bidders),
            watching: part(options.watching.min(options.bidders)),
            in_flight: options.in_flight as usize,
            hopeless_percent: options.hopeless_percent,
            think_ms: options.think_ms,
            warm_ms: WARM.as_millis() as u64,
            measure_ms: options.seconds * 1_000,
        };
        let mut command = tied("nice");
        command.args(["-n", &options.load_nice.to_string()]).arg(&me);
        command.args(["bench", "storm-load"]).stdin(Stdio::piped());
        let mut load = Talker::start(command)?;
        load.say(&serde_json::to_string(&share)?).await?;
        loads.push(load);
    }
    for load in &mut loads {
        load.expect("ready", READY).await?;
    }
    Ok(loads)
}

/// What the crowd was answered.
fn crowd_figures(options: &StormOptions, counted: &[Counted], held_ms: u64) -> Result<Value> {
    let mut latency = Histogram::<u64>::new(3)?;
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    for one in counted {
        for (micros, times) in &one.micros {
            latency.record_n(*micros, *times)?;
        }
        for (code, times) in &one.outcomes {
            *outcomes.entry(code).or_default() += times;
        }
    }
    let per_s = |times: u64| round1(times as f64 / options.seconds as f64);
    let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    let mut figures = json!({
        "bench": "storm", "answered_per_s": per_s(latency.len()),
        "answer_p50_ms": ms(0.5), "answer_p99_ms": ms(0.99), "answer_max_ms": ms(1.0),
        "events_seen_per_s": per_s(counted.iter().map(|one| one.events).sum()),
        "held_ms": held_ms, "bidders": options.bidders, "processes": options.processes,
        "in_flight": options.in_flight, "hopeless_percent": options.hopeless_percent, "think_ms": options.think_ms, "load_nice": options.load_nice,
        "watching": options.watching, "seconds": options.seconds, "shards": options.shards,
    });
    for (code, times) in outcomes {
        figures[format!("{code}_per_s")] = per_s(times).into();
    }
    Ok(figures)
}

/// What the shard's other auctions felt, in both phases.
fn shard_figures(figures: &mut Value, quiet: &Found, stormy: &Found) {
    for (name, phase) in [("quiet_", quiet), ("", stormy)] {
        let bids = &phase.bids;
        let mut put = |what: &str, value: Value| figures[format!("{name}{what}")] = value;
        put("other_p50_ms", (bids.value_at_quantile(0.5) as f64 / 1e3).into());
        put("other_p99_ms", (bids.value_at_quantile(0.99) as f64 / 1e3).into());
        put("other_bids", bids.len().into());
        put("other_failed", phase.failed.into());
        put("closes", phase.late.len().into());
        put("closes_missing", phase.missing.into());
        put(
            "early_closes",
            phase.late.iter().filter(|late| **late < 0.0).count().into(),
        );
        for (what, quantile) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            put(&format!("close_late_ms_{what}"), rank(&phase.late, quantile).into());
            put(&format!("entry_gap_ms_{what}"), rank(&phase.gaps, quantile).into());
        }
    }
    let p99 = |phase: &Found| phase.bids.value_at_quantile(0.99) as f64;
    figures["other_p99_ratio"] = ((p99(stormy) / p99(quiet).max(1.0) * 100.0).round() / 100.0).into();
}

/// The value at a quantile of few: a value that was seen, the larger one between two.
fn rank(values: &[f64], quantile: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    sorted
        .get((last as f64 * quantile).ceil() as usize)
        .map(|value| round1(*value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quantiles_of_few_are_values_that_were_seen() {
        for (values, quantile, expected) in [
            (&[][..], 0.5, None),
            (&[3.0, 1.0, 2.0], 0.5, Some(2.0)),
            (&[3.0, 1.0, 2.0], 0.99, Some(3.0)),
            (&[3.0, 1.0, 2.0, 4.0], 0.5, Some(3.0)),
        ] {
            assert_eq!(rank(values, quantile), expected, "{values:?} at {quantile}");
        }
    }

    #[test]
    fn shares_add_up() {
        let of = |bidders: u64, processes: u64| -> u64 {
            let part = |n: u64| bidders * (n + 1) / processes - bidders * n / processes;
            (0..processes).map(part).sum()
        };
        for (bidders, processes) in [(2_000, 3), (20_000, 7), (3, 3), (4, 3)] {
            assert_eq!(of(bidders, processes), bidders);
        }
    }

    #[test]
    fn what_the_processes_counted_is_added_up() {
        let options = StormOptions {
            bidders: 2,
            processes: 2,
            load_nice: 0,
            in_flight: 1,
            hopeless_percent: 95,
            think_ms: 0,
            watching: 0,
            seconds: 2,
            shards: 1,
        };
        let one = |low: u64| Counted {
            outcomes: BTreeMap::from([("low".to_owned(), low), ("accepted".to_owned(), 1)]),
            micros: vec![(1_000, low), (9_000, 1)],
            events: 4,
        };
        let figures = crowd_figures(&options, &[one(10), one(20)], 7).unwrap();
        assert_eq!(figures["answered_per_s"], 16.0, "{figures}");
        assert_eq!(figures["low_per_s"], 15.0);
        assert_eq!(figures["accepted_per_s"], 1.0);
        assert_eq!(figures["events_seen_per_s"], 4.0);
        assert_eq!(figures["held_ms"], 7);
    }

    #[test]
    fn the_line_tells_how_late_closes_were() {
        let found = |late: &[f64]| {
            let mut bids = Histogram::<u64>::new(3).unwrap();
            bids.record(1_000).unwrap();
            Found {
                bids,
                failed: 0,
                late: late.to_vec(),
                missing: 0,
                gaps: vec![4.0],
            }
        };
        let mut figures = json!({});
        shard_figures(&mut figures, &found(&[1.0, 2.0]), &found(&[-1.0, 3.0, 9.0]));
        assert_eq!(figures["close_late_ms_p99"], 9.0, "{figures}");
        assert_eq!(figures["quiet_close_late_ms_p99"], 2.0);
        assert_eq!(figures["early_closes"], 1);
        assert_eq!(figures["entry_gap_ms_max"], 4.0);
        assert_eq!(figures["other_p99_ratio"], 1.0);
    }
}
