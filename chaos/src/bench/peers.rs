//! Ours beside its peers, on one machine, by turns: durable bids a second against etcd's puts and a Redis job queue's jobs.
//!
//! ```text
//!   round 1:  ours 64  ours 256  bullmq 64  bullmq 256  etcd 256 …     each with fresh servers and an empty folder
//!   round 2:  the same                                                 on the same disk
//!   round 3:  the same        --> medians over rounds --> ratios, one line of flat JSON
//! ```
//!
//! All are driven by the same number of closed-loop clients, each of which waits for its answer, with the same payload: what
//! one bid is in our log. What isn't alike, and whom it favours:
//! - etcd: three members, puts to the leader over gRPC by etcd's own Go client, no hop in between (ours: over WebSocket
//!   through an edge, which is the leader for a third of the bids). All its clients share 8 connections, so a system call
//!   carries many puts (ours: two sockets a client); `etcd_each` is etcd with a connection for each client. It has one
//!   Raft group (ours: `--shards` of them); `ours_one` is ours with one. etcd keeps every version of a key on disk; ours keeps
//!   the auction and its bids in memory.
//! - BullMQ: one Redis, unreplicated, `appendfsync always`; a job is one SET (ours: three fsynced copies, rules, hash chain).
//! - Clients share the two cores with the servers, and a client in Go, Node and Rust costs differently: so each run tells
//!   the CPU of its servers per operation and that of its clients, apart.
//!
//! The machine's other work is sampled before each run and during it, and told: a rate from a busy machine is no rate.

mod servers;

use super::{bids, bids::BidsOptions, median, usage};
use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use proto::log::v1;
use serde_json::{Map, Value};
use servers::{Bullmq, Etcd, Peer, Tools};
use std::{collections::BTreeMap, path::PathBuf};

/// How often, how hard.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PeersOptions {
    /// Where `make bench-peers` has put the peers: `bin/etcd`, `bin/load`, `bullmq/`.
    #[arg(long, default_value = "out/peers")]
    peers: PathBuf,
    /// Rounds; the figures are medians over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Measured time of each run; two seconds before it are not counted.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Shards of ours.
    #[arg(long, default_value_t = 16)]
    shards: u32,
    /// Bytes of a put and of a job; if absent, what a bid takes in our log.
    #[arg(long)]
    payload: Option<usize>,
    /// Where servers keep their data: the disk that is measured. If absent, the folder for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only these: `ours`, `ours_one`, `etcd`, `etcd_each`, `bullmq`, as in `--only etcd,ours`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Connections that etcd's clients share, as its own benchmark tool lets them.
const SHARED: usize = 8;

/// Who runs with how many clients; ours at every size that a peer has. `ours_one` has one shard, as etcd has one Raft group;
/// in `etcd_each` each client has a connection of its own, as each of ours has (two of them, in fact).
const RUNS: [(&str, &[usize]); 5] = [
    ("ours", &[64, 256, 1024]),
    ("ours_one", &[256, 1024]),
    ("etcd", &[64, 256, 1024]),
    ("etcd_each", &[256, 1024]),
    ("bullmq", &[64, 256]),
];

/// Name, whose, over whose, clients. The first five set us beside each peer as it is meant to be run; four of them have an
/// aim (`docs/benchmarks.md`): etcd's at 256 and 1,024, and both of the queue's. The other six are closer to like beside like:
/// a connection for every client (`etcd_each`), one Raft group each (`ours_one`), and both.
const RATIOS: [(&str, &str, &str, usize); 11] = [
    ("ratio_etcd_64", "ours", "etcd", 64),
    ("ratio_etcd_256", "ours", "etcd", 256),
    ("ratio_etcd_1024", "ours", "etcd", 1024),
    ("ratio_bullmq_64", "ours", "bullmq", 64),
    ("ratio_bullmq_256", "ours", "bullmq", 256),
    ("ratio_etcd_each_256", "ours", "etcd_each", 256),
    ("ratio_etcd_each_1024", "ours", "etcd_each", 1024),
    ("ratio_one_etcd_256", "ours_one", "etcd", 256),
    ("ratio_one_etcd_1024", "ours_one", "etcd", 1024),
    ("ratio_one_etcd_each_256", "ours_one", "etcd_each", 256),
    ("ratio_one_etcd_each_1024", "ours_one", "etcd_each", 1024),
];

/// What else a machine may do, percent of all cores, for its figures to be worth comparing. A chain of small steps (the
/// queue's) suffers from others far more than a batch does: on a busy machine the ratios flatter us.
const QUIET_PERCENT: f64 = 15.0;

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_per_op: f64,
    client_cpu_us_per_op: f64,
    /// Percent of the machine that something else used: before, during.
    others: [f64; 2],
}

/// Runs it; the figures as JSON.
pub(crate) async fn peers(options: &PeersOptions) -> Result<Value> {
    let tools = Tools::find(&options.peers)?;
    let payload = options.payload.unwrap_or_else(bid_bytes);
    ensure!(payload > 0, "payload must be at least 1");
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    ensure!(
        RUNS.iter().any(|(name, _)| wanted(name)),
        "nothing of {:?} is known",
        options.only
    );
    let mut runs: BTreeMap<(&str, usize), Vec<Run>> = BTreeMap::new();
    let sizes = sizes();
    for round in 1..=options.rounds {
        for clients in &sizes {
            for (name, _) in RUNS.iter().filter(|(name, at)| wanted(name) && at.contains(clients)) {
                let run = one(name, *clients, payload, options, &tools).await;
                let run = run.with_context(|| format!("{name} with {clients} clients"))?;
                tracing::info!(round, clients, ?run, "{name}");
                runs.entry((*name, *clients)).or_default().push(run);
            }
        }
    }
    Ok(figures(options, payload, &tools, &runs))
}

/// All numbers of clients, each once.
fn sizes() -> Vec<usize> {
    let mut sizes: Vec<usize> = RUNS.iter().flat_map(|(_, at)| at.iter().copied()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

async fn one(name: &str, clients: usize, payload: usize, options: &PeersOptions, tools: &Tools) -> Result<Run> {
    let before = usage::busy_percent().await?;
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }?;
    match name {
        "etcd" | "etcd_each" => {
            let connections = if name == "etcd" { SHARED } else { clients };
            let etcd = Etcd::start(tools, dir.path(), connections).await?;
            load(&etcd, clients, payload, options.seconds, before).await
        }
        "bullmq" => {
            let bullmq = Bullmq::start(tools, dir.path()).await?;
            load(&bullmq, clients, payload, options.seconds, before).await
        }
        _ => {
            let seconds = options.seconds;
            let shards = if name == "ours" { options.shards } else { 1 };
            let options = BidsOptions {
                clients,
                seconds,
                shards,
                dir: options.dir.clone(),
            };
            let figures = bids(&options).await?;
            for name in ["refused", "unknown"] {
                ensure!(figures[name] == 0, "bids without acceptance: {figures}");
            }
            let at = |name: &str| number(&figures, name);
            Ok(Run {
                per_s: at("bids_per_s")?,
                p50_ms: at("p50_ms")?,
                p99_ms: at("p99_ms")?,
                cpu_us_per_op: at("cpu_us_per_bid")?,
                client_cpu_us_per_op: at("client_cpu_us_per_bid")?,
                others: [before, at("others_percent")?],
            })
        }
    }
}

/// Runs a peer's own load program against it.
async fn load(peer: &impl Peer, clients: usize, payload: usize, seconds: u64, before: f64) -> Result<Run> {
    let (figures, spent) = servers::load(peer, clients, payload, seconds).await?;
    let ops = number(&figures, "ops")?;
    Ok(Run {
        per_s: number(&figures, peer.rate())?,
        p50_ms: number(&figures, "p50_ms")?,
        p99_ms: number(&figures, "p99_ms")?,
        cpu_us_per_op: spent.groups[0] * 1e6 / ops,
        client_cpu_us_per_op: number(&figures, "client_cpu_us_per_op")?,
        others: [before, spent.others_percent()],
    })
}

fn number(figures: &Value, name: &str) -> Result<f64> {
    figures[name]
        .as_f64()
        .with_context(|| format!("no number `{name}` in {figures}"))
}

/// The line: absolute figures of every run's median, and the ratios.
fn figures(options: &PeersOptions, payload: usize, tools: &Tools, runs: &BTreeMap<(&str, usize), Vec<Run>>) -> Value {
    let mut out = Map::new();
    out.insert("bench".into(), "peers".into());
    for (name, own, against, clients) in RATIOS {
        if let (Some(ours), Some(theirs)) = (runs.get(&(own, clients)), runs.get(&(against, clients))) {
            let ratio = middle(ours, |run| run.per_s) / middle(theirs, |run| run.per_s);
            out.insert(name.into(), ((ratio * 100.0).round() / 100.0).into());
        }
    }
    let mut others = 0f64;
    for ((name, clients), all) in runs {
        let mut put = |what: &str, of: fn(&Run) -> f64| {
            out.insert(
                format!("{name}_{clients}_{what}"),
                usage::round1(middle(all, of)).into(),
            );
        };
        put("per_s", |run| run.per_s);
        put("p50_ms", |run| run.p50_ms);
        put("p99_ms", |run| run.p99_ms);
        put("cpu_us_per_op", |run| run.cpu_us_per_op);
        put("client_cpu_us_per_op", |run| run.client_cpu_us_per_op);
        put("others_percent", |run| run.others[1]);
        others = all.iter().flat_map(|run| run.others).fold(others, f64::max);
    }
    for (name, value) in [
        ("rounds", options.rounds.into()),
        ("seconds", options.seconds.into()),
        ("shards", options.shards.into()),
        ("payload", payload.into()),
        ("others_percent_max", others.into()),
        ("quiet", (others <= QUIET_PERCENT).into()),
        ("etcd", tools.etcd_version.clone().into()),
        ("redis", tools.redis_version.clone().into()),
    ] {
        out.insert(name.into(), value);
    }
    Value::Object(out)
}

/// The middle one of some runs.
fn middle(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    median(runs.iter().map(of)).unwrap_or(f64::NAN)
}

/// What one bid of `chaos bench bids` takes in a log entry: the peers store as much.
fn bid_bytes() -> usize {
    let command = v1::Command {
        auction: "bench-256".into(),
        actor: Some(v1::Actor {
            id: "guest-b256-1-01234567".into(),
            rights: 1,
        }),
        id: Some(client::Dice::new(1).id("b-")),
        first_sent: None,
        action: Some(v1::command::Action::Bid(v1::Amount { amount: 1_000 })),
    };
    let stamped = v1::Stamped {
        arrived: 60_000,
        command: Some(command),
        trace: None,
    };
    stamped.encoded_len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(per_s: f64) -> Run {
        Run {
            per_s,
            p50_ms: 1.0,
            p99_ms: 2.0,
            cpu_us_per_op: 3.0,
            client_cpu_us_per_op: 4.0,
            others: [5.0, 6.0],
        }
    }

    #[test]
    fn ratios_are_of_medians_and_only_of_what_ran() {
        let options = PeersOptions {
            peers: PathBuf::new(),
            rounds: 3,
            seconds: 8,
            shards: 16,
            payload: None,
            dir: None,
            only: Vec::new(),
        };
        let tools = Tools::default();
        let runs = BTreeMap::from([
            (("ours", 256), vec![run(900.0), run(100.0), run(300.0)]),
            (("etcd", 256), vec![run(100.0), run(101.0), run(1.0)]),
            (("etcd", 1024), vec![run(7.0)]),
        ]);
        let figures = figures(&options, 80, &tools, &runs);
        assert_eq!(figures["ratio_etcd_256"], 3.0, "{figures}");
        assert_eq!(figures["ours_256_per_s"], 300.0);
        assert_eq!(figures["etcd_1024_p99_ms"], 2.0);
        assert_eq!(figures["others_percent_max"], 6.0);
        assert_eq!(figures["quiet"], true);
        assert!(figures.get("ratio_etcd_1024").is_none(), "nothing to compare with");
        assert!(
            figures
                .as_object()
                .unwrap()
                .values()
                .all(|v| !v.is_object() && !v.is_array()),
            "flat"
        );
    }

    #[test]
    fn every_run_of_a_peer_has_one_of_ours() {
        let ours = RUNS.iter().find(|(name, _)| *name == "ours").unwrap().1;
        assert!(sizes().iter().all(|size| ours.contains(size)));
    }

    #[test]
    fn a_bid_is_as_large_as_its_parts() {
        assert!((60..200).contains(&bid_bytes()), "{}", bid_bytes());
    }
}
