//! `chaos sim`: the shards' real code in a simulated world. The same seed has the same trace, to the hash.
//!
//! ```text
//!   chaos sim --seeds 500  --> a process per seed, some at a time --> a line for each that fails, and how to replay it
//!   chaos sim --seed 17        |
//!                              v
//!     people at edges --datagrams--> Host: proposer, lanes, clock, openraft, log, snapshots   x 3
//!                                      |  tonic over simulated TCP
//!     nemesis: machines, network, disks, clocks
//!                              '--> history --> C1-C14 of `chaos check`, and S1-S11 (`judge`)
//! ```
//!
//! Real: everything in `raft-store` and below, openraft, tonic, h2. Simulated: the network (turmoil), the disks under the
//! log and the snapshots, time, chance, the threads that wait for disks. Why a process per seed: chance and clocks
//! are the process's (`doors`), and so are the counters of libraries; a fresh one begins where every fresh one begins.
//!
//! Deliberately absent: edges, video, `node`: those run for real, in `chaos run`. Steps of a monotonic clock, too: here it runs
//! fast or slow, and only the wall's clock steps. What a step does is tested in `raft-store`, in virtual time
//! (`src/clock/compare/tests.rs`) and on real hosts (`tests/clock_fleet.rs`).

mod clocks;
mod cluster;
mod dark;
mod doors;
mod edge;
mod judge;
mod mail;
mod nemesis;
mod nic;
mod node;
mod operator;
mod past;
mod people;
mod plants;
mod record;
mod run;
mod words;

use crate::{
    check::Status,
    history::{Record, Writer},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// What is simulated.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SimOptions {
    /// One seed, in this process; else many, each in a process of its own.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How long people act under faults, simulated seconds.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// How many at a time; as many as there are processors, if absent.
    #[arg(long)]
    jobs: Option<usize>,
    /// No new seed is begun after so many real seconds.
    #[arg(long)]
    within: Option<u64>,
    /// Every node makes this mistake: the seeds must find it, or the command fails. `all`: each in turn.
    #[arg(long)]
    plant: Option<String>,
    /// Windows so narrow that lanes fall behind, as they do under a crowd.
    #[arg(long)]
    narrow: bool,
    /// Something that happens in a given way, in place of people and faults.
    #[arg(long)]
    scene: Option<Scene>,
    /// Each seed runs twice, and must have the same trace twice.
    #[arg(long)]
    twice: bool,
    /// Gets the history of a seed that failed (of a single seed: in any case, but for `--only-failed`).
    #[arg(long)]
    out: Option<PathBuf>,
    /// A single seed that passes leaves nothing behind: thousands would fill the disk.
    #[arg(long)]
    only_failed: bool,
    /// Tells what every check looked at.
    #[arg(long)]
    verbose: bool,
}

/// What happens in a given way; the seed says when, and to whom.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Scene {
    /// All shards rest, and a machine loses its power without a word.
    Dark,
}

/// What a seed came to: one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    seed: u64,
    passed: bool,
    failed: Vec<String>,
    hash: String,
    sim_ms: u64,
    bids: u64,
    faults: u64,
    moves: u64,
    pieces: u64,
    #[serde(default)]
    cold: Counts,
    #[serde(default)]
    again: Counts,
}

/// How often what happened.
type Counts = BTreeMap<String, u64>;

static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// What a task panicked with, if one did.
fn panicked() -> Option<String> {
    PANIC.lock().clone()
}

/// Runs seeds; says what they came to.
pub(crate) fn sim(options: &SimOptions, out: &mut String) -> anyhow::Result<Status> {
    match (options.seed, options.plant.as_deref()) {
        (Some(seed), plant) => one(seed, plant, options, out),
        (None, Some("all")) => plants::all(options, out),
        (None, Some(plant)) => plants::one(plant, options, out),
        (None, None) => many(options, out),
    }
}

fn one(seed: u64, plant: Option<&str>, options: &SimOptions, out: &mut String) -> anyhow::Result<Status> {
    std::panic::set_hook(Box::new(|info| {
        PANIC.lock().get_or_insert_with(|| info.to_string());
    }));
    if let Some(plant) = plant {
        plants::sow(plant)?;
    }
    let begin = run::Options {
        seed,
        seconds: options.seconds,
        verbose: options.verbose,
        narrow: options.narrow,
    };
    let scene = options.scene;
    // A thread of its own: this one has hash keys from before the seed.
    doors::begin(seed);
    let ran = std::thread::Builder::new()
        .name("sim".into())
        .spawn(move || match scene {
            Some(Scene::Dark) => dark::run(seed),
            None => run::run(&begin),
        })?;
    let ran = ran
        .join()
        .map_err(|_| anyhow::anyhow!("seed {seed}: {}", panicked().unwrap_or_default()))?;
    out.push_str(&ran.text);
    if let Some(dir) = &options.out
        && !(options.only_failed && ran.passed)
    {
        keep(dir, seed, &ran.history)?;
    }
    let line = Line {
        seed,
        passed: ran.passed,
        failed: ran.failed,
        hash: ran.hash,
        sim_ms: ran.sim_ms,
        bids: ran.bids,
        faults: ran.faults,
        moves: ran.moves,
        pieces: ran.pieces,
        cold: owned(ran.cold),
        again: owned(ran.again),
    };
    writeln!(out, "{}", serde_json::to_string(&line)?)?;
    Ok(if line.passed { Status::Pass } else { Status::Fail })
}

fn owned(counts: BTreeMap<&'static str, u64>) -> Counts {
    counts.into_iter().map(|(what, n)| (what.to_owned(), n)).collect()
}

fn keep(dir: &Path, seed: u64, history: &[Record]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut writer = Writer::create(&dir.join(format!("seed-{seed}.jsonl")))?;
    for record in history {
        writer.write(record)?;
    }
    Ok(writer.finish()?)
}

/// The words that run one seed.
fn words(seed: u64, plant: Option<&str>, options: &SimOptions) -> Vec<String> {
    let mut words = vec![
        "sim".into(),
        "--seed".into(),
        seed.to_string(),
        "--seconds".into(),
        options.seconds.to_string(),
    ];
    if options.narrow {
        words.push("--narrow".into());
    }
    if options.scene == Some(Scene::Dark) {
        words.extend(["--scene".into(), "dark".into()]);
    }
    if let Some(plant) = plant {
        words.extend(["--plant".into(), plant.into()]);
    }
    words
}

/// The command that runs one seed again.
fn replay(seed: u64, plant: Option<&str>, options: &SimOptions) -> String {
    format!("chaos {}", words(seed, plant, options).join(" "))
}

/// A seed in a process of its own: its line, and what it said before.
fn child(seed: u64, plant: Option<&str>, options: &SimOptions) -> anyhow::Result<(Option<Line>, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words(seed, plant, options));
    if let (Some(out), None) = (&options.out, plant) {
        command.arg("--only-failed").arg("--out").arg(out);
    }
    let done = command.env("RUSHROOM_LOG", "off").stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let line = said.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let told = format!("{said}{}", String::from_utf8_lossy(&done.stderr));
    Ok((line, told))
}

/// How many seeds run at a time.
fn jobs(options: &SimOptions) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    options.jobs.unwrap_or_else(all).max(1)
}

/// What many seeds came to.
#[derive(Default)]
struct Sum {
    passed: u64,
    sim_ms: u64,
    bids: u64,
    faults: u64,
    moves: u64,
    pieces: u64,
    cold: Counts,
    again: Counts,
    /// By seed, so that it reads alike however many ran at a time.
    failed: BTreeMap<u64, String>,
}

fn many(options: &SimOptions, out: &mut String) -> anyhow::Result<Status> {
    let (began, next) = (Instant::now(), AtomicU64::new(0));
    let sum = Mutex::new(Sum::default());
    let jobs = jobs(options);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let late = options.within.is_some_and(|within| began.elapsed().as_secs() >= within);
                    if n >= options.seeds || late {
                        return;
                    }
                    seed(options.from + n, options, &sum);
                }
            });
        }
    });
    let sum = sum.into_inner();
    for (seed, why) in &sum.failed {
        writeln!(
            out,
            "seed {seed} failed; replay: {}\n{why}",
            replay(*seed, None, options)
        )?;
    }
    let wall = began.elapsed().as_secs_f64();
    let ran = sum.passed + sum.failed.len() as u64;
    let figures = serde_json::json!({
        "sim_seeds": ran, "sim_passed": sum.passed, "sim_failed": sum.failed.len(), "from": options.from,
        "sim_seconds": sum.sim_ms / 1_000, "wall_seconds": wall.round(), "seeds_per_min": (ran as f64 * 60.0 / wall).round(),
        "sim_seconds_per_wall_second_and_job": (sum.sim_ms as f64 / 1e3 / wall / jobs as f64).round(),
        "bids": sum.bids, "faults": sum.faults, "moves": sum.moves, "snapshot_pieces": sum.pieces,
        "cold_met": sum.cold, "old_ids": sum.again,
    });
    let missed = unreached(&sum, ran, options);
    for what in &missed {
        writeln!(out, "reached too little: {what}")?;
    }
    let failed = sum.failed.len() + missed.len();
    writeln!(out, "# pass {}\n# fail {failed}\n{figures}", sum.passed)?;
    Ok(if failed == 0 && ran > 0 {
        Status::Pass
    } else {
        Status::Fail
    })
}

fn add(sum: &mut Counts, some: &Counts) {
    for (what, n) in some {
        *sum.entry(what.clone()).or_default() += n;
    }
}

/// What many seeds must have come to together, each so often in a hundred seeds: else they proved nothing of it. A fifth or less
/// of what they mostly do.
const REACHED: &[(&str, Of, u64)] = &[
    ("command", Of::Cold, 300),
    ("view", Of::Cold, 150),
    ("events", Of::Cold, 1_000),
    ("taken", Of::Cold, 30),
    ("damaged", Of::Cold, 30),
    ("accepted", Of::Again, 2_000),
    ("refused_as_before", Of::Again, 300),
    ("refused_for_good", Of::Again, 500),
    ("expired", Of::Again, 20),
];

/// What is counted: meetings with what is cold (`raft_store::sim::cold`), or old ids, by what they were told (`past`).
#[derive(Clone, Copy)]
enum Of {
    Cold,
    Again,
}

/// What too few of these seeds came to. Few seeds, or short ones, may miss anything.
fn unreached(sum: &Sum, ran: u64, options: &SimOptions) -> Vec<String> {
    if ran < 20 || options.seconds < 15 || options.scene.is_some() {
        return Vec::new();
    }
    let few = REACHED.iter().filter_map(|(what, of, least)| {
        let counts = match of {
            Of::Cold => &sum.cold,
            Of::Again => &sum.again,
        };
        let (n, least) = (counts.get(*what).copied().unwrap_or(0), least * ran / 100);
        (n < least).then(|| format!("{what}: {n} in {ran} seeds, not {least}"))
    });
    few.collect()
}

fn seed(seed: u64, options: &SimOptions, sum: &Mutex<Sum>) {
    let first = child(seed, None, options);
    let again = options.twice.then(|| child(seed, None, options));
    let mut sum = sum.lock();
    match first {
        Ok((Some(line), told)) => {
            sum.sim_ms += line.sim_ms;
            sum.bids += line.bids;
            sum.faults += line.faults;
            sum.moves += line.moves;
            sum.pieces += line.pieces;
            add(&mut sum.cold, &line.cold);
            add(&mut sum.again, &line.again);
            let same = match again {
                Some(Ok((Some(again), _))) => again.hash == line.hash,
                Some(_) => false,
                None => true,
            };
            if line.passed && same {
                sum.passed += 1;
            } else {
                let why = if same {
                    told
                } else {
                    format!("another trace at the second time\n{told}")
                };
                sum.failed.insert(seed, why);
            }
        }
        Ok((None, told)) => drop(sum.failed.insert(seed, format!("it broke off: {told}"))),
        Err(error) => drop(sum.failed.insert(seed, error.to_string())),
    }
}
