//! `rushroom demo`: a local cluster of three real node processes in two regions, and a show on it.
//!
//! ```text
//!   demo --spawns--> node 1, 2 (seoul), 3 (tokyo)      restarted 10 s after one was stopped from the cluster page
//!    '--public protocol--> show (auctions, seller's video, bots)   or   smoke (script, report)
//! ```
//!
//! Everything lies in one folder: settings, logs and data of each node. A temporary one goes with the demo; a given one
//! stays, and the next demo goes on with its auctions.

mod aim;
mod audit;
mod cluster;
mod contender;
mod crowd;
mod ports;
mod report;
mod show;
mod smoke;
mod video;

use crate::cli::say;
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use cluster::Cluster;
use crowd::Door;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A node that was stopped from the cluster page is shown as down for so long.
const DOWN: Duration = Duration::from_secs(10);
/// How often it is looked whether a node ended.
const LOOK: Duration = Duration::from_millis(200);

/// What can be asked of the demo.
#[derive(Args)]
pub(crate) struct Demo {
    /// Folder for settings, logs and data; a temporary one if absent.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// First port (twelve are used); free ones if absent.
    #[arg(long, value_name = "BASE")]
    port: Option<u16>,
    /// Print nothing but errors.
    #[arg(long)]
    quiet: bool,
    /// A show without bots.
    #[arg(long)]
    no_bots: bool,
    /// Nodes talk in the clear; else by certificates of the demo's own authority.
    #[arg(long)]
    plain: bool,
    /// Write the nodes' addresses and pids here once all are ready, and again after each restart.
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
    /// Of the bots and the show.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run a script instead of the show.
    #[arg(long, value_name = "NAME")]
    script: Option<Script>,
    /// Where the script writes what it found, as JSON.
    #[arg(long, value_name = "FILE", requires = "script")]
    report: Option<PathBuf>,
    /// About how long the script takes; the show stops after it.
    #[arg(long)]
    seconds: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Script {
    /// The whole way once: bids, video, a kill, closes, checks.
    Smoke,
}

/// Runs the demo until it is done or told to stop.
pub(crate) async fn run(demo: Demo) -> Result<ExitCode> {
    let temporary = match demo.dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("rushroom-demo-")
                .tempdir()
                .context("a temporary folder")?,
        ),
    };
    let dir = demo
        .dir
        .clone()
        .or_else(|| temporary.as_ref().map(|t| t.path().to_path_buf()))
        .unwrap_or_default();
    if demo.script.is_some() && dir.join("node1").exists() {
        anyhow::bail!("{} holds a cluster; the script wants an empty folder", dir.display());
    }
    let mut cluster = Cluster::prepare(
        &std::path::absolute(dir)?,
        demo.port,
        demo.ports_file.clone(),
        demo.plain,
    )?;
    let ended = tokio::select! {
        ended = perform(&demo, &mut cluster) => ended,
        _ = tokio::signal::ctrl_c() => told(&demo, "\ndraining …\n").map(|()| ExitCode::SUCCESS),
        () = terminated() => told(&demo, "draining …\n").map(|()| ExitCode::SUCCESS),
    };
    cluster.stop().await;
    ended
}

async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut term) => {
            term.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

fn told(demo: &Demo, text: &str) -> Result<()> {
    if demo.quiet { Ok(()) } else { say(text).map(|_| ()) }
}

async fn perform(demo: &Demo, cluster: &mut Cluster) -> Result<ExitCode> {
    cluster.start().await?;
    told(demo, &table(cluster))?;
    let door = Door::new(cluster.urls(), demo.seed)?;
    match demo.script {
        Some(Script::Smoke) => script(demo, cluster, &door).await,
        None => show(demo, cluster, door).await,
    }
}

async fn script(demo: &Demo, cluster: &mut Cluster, door: &Door) -> Result<ExitCode> {
    let report = smoke::run(cluster, door, demo.seed, demo.seconds.unwrap_or(60)).await?;
    let text = serde_json::to_string_pretty(&report).context("writing the report")? + "\n";
    if let Some(path) = &demo.report {
        std::fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    }
    told(demo, &text)?;
    let broken = report.broken();
    for line in &broken {
        crate::cli::complain(line);
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn show(demo: &Demo, cluster: &mut Cluster, door: Door) -> Result<ExitCode> {
    let stop = CancellationToken::new();
    let _ends_with_us = stop.clone().drop_guard();
    tokio::spawn(show::run(door, demo.seed, !demo.no_bots, stop.clone()));
    let until = demo
        .seconds
        .map(|s| tokio::time::Instant::now() + Duration::from_secs(s));
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        if until.is_some_and(|until| tokio::time::Instant::now() >= until) {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some((place, status)) = cluster.ended() {
            let id = cluster.nodes[place].id;
            told(
                demo,
                &format!("node {id} is down ({status}); back in {} s\n", DOWN.as_secs()),
            )?;
            tokio::time::sleep(DOWN).await;
            cluster.restart(place).await?;
            told(demo, &format!("node {id} is back: {}\n", cluster.nodes[place].http()))?;
        }
    }
}

/// The cluster as a small table.
fn table(cluster: &Cluster) -> String {
    use std::fmt::Write as _;
    let mut out = String::from("\n  Rushroom is running.\n\n");
    for node in &cluster.nodes {
        let _ = writeln!(out, "  node {}  {:<6}  {}", node.id, node.region, node.http());
    }
    let first = cluster.nodes.first().map(cluster::Node::http).unwrap_or_default();
    if let Some(papers) = cluster.papers() {
        let papers = papers.display();
        let grpc = cluster.nodes.first().map_or(0, |node| node.ports.grpc);
        let _ = write!(
            out,
            "\n  operate  rushroom admin --node 127.0.0.1:{grpc} --ca {papers}/ca.crt \\\n           \
             --cert {papers}/operator-demo.crt --key {papers}/operator-demo.key status\n"
        );
    }
    let _ = write!(
        out,
        "\n  rooms    {first}/\n  studio   {first}/studio\n  cluster  {first}/cluster\n\n  Ctrl-C stops and drains all nodes.\n\n"
    );
    out
}
