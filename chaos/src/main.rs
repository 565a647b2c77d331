//! `chaos`: breaks a real cluster on purpose and checks the promises.
//!
//! ```text
//!   chaos run PLAN   starts nodes, drives people, kills leaders --> DIR/history.jsonl --> chaos check
//!   chaos bench …    the same cluster under load, no faults (or only kills) --> one line of JSON
//!   chaos alerts     every alert of the repository, fired once against a real Prometheus
//!   chaos prove      the checks themselves, against planted bugs
//! ```
//!
//! It never links `node`: what it knows of the product it knows through the API, like everyone else.

mod alerts;
mod bench;
mod book;
mod check;
mod cluster;
mod history;
mod mono;
mod prove;
mod run;
#[cfg(feature = "sim")]
mod sim;

use clap::{Parser, Subcommand};
use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

/// The load shares its machine with what it loads: what it doesn't use, the nodes have. They use the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "chaos", about = "Breaks a real cluster on purpose and checks the promises.")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Checks C1-C14 on histories of one run; exit 0 pass, 1 fail, 2 unknown.
    Check {
        /// `rushroom-history/1` files; they are read as one.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Carries out a plan against a real cluster of three processes, then checks what happened.
    Run {
        /// A plan, as in chaos/plans.
        plan: PathBuf,
        /// Gets history.jsonl, report.json, and the nodes' settings, data and logs.
        #[arg(long)]
        out: PathBuf,
        /// Of people and faults; the plan's own, or 1, if absent.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Fires every alert of docs/ops/alerts.yml once for real, against a real Prometheus, and sees it resolve. Some eight minutes; needs
    /// prometheus, strace and root (for a small disk): see `make alerts`.
    Alerts(alerts::Options),
    /// Measures; ends with one line of flat JSON.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// The shards' real code in a simulated world, seed by seed: machines, networks, disks and clocks go wrong.
    #[cfg(feature = "sim")]
    Sim(sim::SimOptions),
    /// Proves the checks: each planted bug must be caught by the check that it is for.
    Prove {
        /// Of the simulated runs.
        #[arg(long, default_value_t = 3)]
        seed: u64,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// Commands a second of the pure core, on one core.
    Core {
        /// Commands to apply.
        #[arg(long, default_value_t = 1_000_000)]
        commands: usize,
        /// Of the mix.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Durable bids a second over three processes and real sockets.
    Bids(bench::BidsOptions),
    /// Video: from POST /whep to the first whole picture, and what viewers lose; at the origin and behind a relay.
    ///
    /// Starts three nodes in two regions, and a seller on air at the first. Viewers come one after another, by turns at
    /// the seller's node (origin), at the other node of its region (neighbour) and in the other region (relay), and stay;
    /// then all watch for the set time. Figures: `join_ms_*` over all viewers, `join_origin_ms_*`, `join_neighbour_ms_*`,
    /// `join_relay_ms_*`; of the watching: `frames_seen` (whole pictures), `frames_lost` (pictures that were sent and never
    /// became whole), `packets_lost` (not here, not even when asked for again), each also for `origin_` and `relay_`. WebRTC
    /// offers local addresses: run it in a network namespace (.ci/netns).
    Join(bench::JoinOptions),
    /// Video by the hundred: what a viewer costs the node that serves it, and what it loses.
    ///
    /// A seller on air (VP8 of 1.5 Mbit/s and 30 pictures a second, with Opus), and light viewers in this process who check, shake
    /// hands, decrypt and count, but decode nothing. Run it in a network namespace (.ci/netns), on a machine that does nothing else.
    Media(bench::MediaOptions),
    /// Nodes drained one after the other, then restarted, under bids at a set rate: errors, latencies, each shard's longest
    /// time without an accepted bid.
    Drain(bench::DrainOptions),
    /// Leaders' replicas moved to a node that has joined, under bids at a set rate: the same figures.
    Move(bench::ShiftOptions),
    /// Time without an accepted bid after the leader is killed.
    Failover(bench::FailoverOptions),
    /// What a bid costs the nodes among few live auctions, and among many.
    Flat(bench::FlatOptions),
    /// What finished auctions cost the shard that has them: memory, snapshots, a start, and the bids of today.
    History(bench::HistoryOptions),
    /// What shards cost that nobody uses: CPU of three nodes, memory of each.
    Idle(bench::IdleOptions),
    /// Ours beside etcd and a Redis job queue: interleaved rounds, medians, ratios. Start it with `make bench-peers`.
    Peers(bench::PeersOptions),
    /// The log alone: one for all shards of a node beside one for each, by turns; and a start over a long log.
    Wal(bench::WalOptions),
    /// Thousands of bidders on one auction: lateness of closes, and what another auction of its shard feels.
    Storm(bench::StormOptions),
    /// One load process of `storm`, which starts it: bidders as its standard input says.
    #[command(hide = true)]
    StormLoad,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter())
        .init();
    let mut text = String::new();
    let status = match Args::parse().what {
        What::Check { files } => check_files(&files, &mut text),
        What::Run { plan, out, seed } => wait(run::run(&plan, &out, seed, &mut text)),
        What::Alerts(options) => wait(alerts::run(&options, &mut text)),
        What::Bench { what } => bench(&what, &mut text),
        #[cfg(feature = "sim")]
        What::Sim(options) => sim::sim(&options, &mut text),
        What::Prove { seed } => prove::prove(seed, &mut text).map(prove::status).map_err(Into::into),
    };
    say(&text);
    match status {
        Ok(status) => ExitCode::from(status.code()),
        Err(error) => {
            say(&format!("chaos: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn bench(what: &Bench, out: &mut String) -> anyhow::Result<check::Status> {
    let figures = match what {
        Bench::Core { commands, seed } => bench::core(*commands, *seed),
        Bench::Bids(options) => wait(bench::bids(options)),
        Bench::Join(options) => wait(bench::join(options)),
        Bench::Media(options) => wait(bench::media(options)),
        Bench::Drain(options) => wait(bench::drain(options)),
        Bench::Move(options) => wait(bench::shift(options)),
        Bench::Flat(options) => wait(bench::flat(options)),
        Bench::History(options) => wait(bench::history(options)),
        Bench::Idle(options) => wait(bench::idle(options)),
        Bench::Peers(options) => wait(bench::peers(options)),
        Bench::Wal(options) => wait(bench::wal(options)),
        Bench::Storm(options) => wait(bench::storm(options)),
        Bench::StormLoad => wait(bench::storm_load(say)),
        Bench::Failover(options) => wait(bench::failover(options)),
    }?;
    write!(out, "{figures}")?;
    let count = |key: &str| figures[key].as_u64().unwrap_or(0);
    Ok(if count("acked_lost") + count("g5_broken") == 0 {
        check::Status::Pass
    } else {
        check::Status::Fail
    })
}

/// Runs to the end on this thread, which is the main one: what it starts as a child dies with it.
fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        // As the nodes have it: a client that waits for its turn here is measured as a node that is slow.
        .global_queue_interval(1)
        .enable_all()
        .build()?
        .block_on(work)
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_env("RUSHROOM_LOG")
        .unwrap_or_else(|_| "info,rtc=warn,rtc_ice=warn,webrtc=warn".into())
}

fn check_files(files: &[PathBuf], out: &mut String) -> anyhow::Result<check::Status> {
    let history = history::History::read(files)?;
    let report = check::check(&history);
    report.print(&history, out)?;
    Ok(report.status())
}

/// The one place that speaks on stdout.
#[allow(clippy::print_stdout)]
fn say(text: &str) {
    let mut line = String::new();
    let _ = write!(line, "{text}");
    println!("{}", line.trim_end());
}
