//! The peers as processes: started in a folder of their own, ready when they say so, ended with us.
//!
//! ```text
//!   here --> etcd x 3                       here --> redis-server, worker.mjs
//!        '-> load --endpoints … --> leader       '-> load.mjs --> redis <--> worker
//! ```
//!
//! A load program says `from` and `until` on a line each around its measured time: between them the servers' CPU is read.
//! Nothing is installed here: what is missing is named, with what to do about it.

use super::super::{
    child::{Talker, tied},
    usage::{Spent, Usage},
};
use crate::cluster;
use anyhow::{Context as _, Result, ensure};
use client::Dice;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

/// A server that takes longer than this to be ready has failed.
const START: Duration = Duration::from_secs(30);
/// A load program may take this much longer than what it measures.
const SLACK: Duration = Duration::from_secs(60);

/// What is needed, and where it is.
#[derive(Debug, Default)]
pub(super) struct Tools {
    etcd: PathBuf,
    load: PathBuf,
    bullmq: PathBuf,
    pub(super) etcd_version: String,
    pub(super) redis_version: String,
}

impl Tools {
    /// Looks for everything at once; the error names all that is missing.
    pub(super) fn find(peers: &Path) -> Result<Tools> {
        let (etcd, load, bullmq) = (peers.join("bin/etcd"), peers.join("bin/load"), peers.join("bullmq"));
        let mut missing = Vec::new();
        for path in [&etcd, &load, &bullmq.join("node_modules/bullmq/package.json")] {
            if !path.is_file() {
                missing.push(format!(
                    "{} (`make bench-peers` builds it; needs Go 1.26, Node 18 and npm)",
                    path.display()
                ));
            }
        }
        let redis_version = version("redis-server");
        if redis_version.is_none() {
            missing.push("redis-server (Debian: apt-get install redis-server)".into());
        }
        if version("node").is_none() {
            missing.push("node (Debian: apt-get install nodejs npm)".into());
        }
        let etcd_version = version(&etcd);
        ensure!(
            missing.is_empty(),
            "what the peers need isn't there:\n  {}",
            missing.join("\n  ")
        );
        Ok(Tools {
            // They are started in other folders.
            etcd: etcd.canonicalize()?,
            load: load.canonicalize()?,
            bullmq: bullmq.canonicalize()?,
            etcd_version: etcd_version.context("etcd doesn't say its version")?,
            redis_version: redis_version.unwrap_or_default(),
        })
    }
}

/// The first line of what a program says of its version.
fn version(program: impl AsRef<OsStr>) -> Option<String> {
    let out = std::process::Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let line = out.status.success().then(|| text.lines().next())??;
    Some(line.trim().to_owned())
}

/// A server that runs.
pub(super) trait Peer {
    /// Processes that do the work.
    fn pids(&self) -> Vec<u32>;
    /// Its load program, but for clients, payload and time.
    fn load(&self) -> Command;
    /// What the load program calls its rate.
    fn rate(&self) -> &'static str;
}

/// Three members on loopback.
pub(super) struct Etcd {
    members: Vec<Child>,
    urls: Vec<String>,
    load: PathBuf,
    /// That its clients share.
    connections: usize,
}

impl Etcd {
    pub(super) async fn start(tools: &Tools, dir: &Path, connections: usize) -> Result<Etcd> {
        let ports = free_ports(9)?;
        let urls =
            |three: &[u16]| -> Vec<String> { three.iter().map(|port| format!("http://127.0.0.1:{port}")).collect() };
        let (urls, peers, health) = (urls(&ports[..3]), urls(&ports[3..6]), urls(&ports[6..]));
        let all = peers.iter().enumerate().map(|(n, peer)| format!("m{n}={peer}"));
        let all = all.collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for (n, ((url, peer), health)) in urls.iter().zip(&peers).zip(&health).enumerate() {
            let mut command = tied(&tools.etcd);
            command
                .args(["--name", &format!("m{n}"), "--log-level", "warn"])
                .arg("--data-dir")
                .arg(dir.join(format!("m{n}")))
                .args(["--listen-client-urls", url, "--advertise-client-urls", url])
                // Its advice for production: gRPC on a port of its own is the faster server.
                .args(["--listen-client-http-urls", health])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .args(["--initial-cluster", &all, "--initial-cluster-token", "bench"]);
            members.push(spawn(command, &dir.join(format!("m{n}.log")))?);
        }
        let etcd = Etcd {
            members,
            urls,
            load: tools.load.clone(),
            connections,
        };
        for (n, url) in health.iter().enumerate() {
            let log = dir.join(format!("m{n}.log"));
            healthy(url).await.with_context(|| format!("etcd: {}", tail(&log)))?;
        }
        Ok(etcd)
    }
}

impl Peer for Etcd {
    fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(Child::id).collect()
    }

    fn load(&self) -> Command {
        let mut command = tied(&self.load);
        command.args(["--endpoints", &self.urls.join(",")]);
        command.args(["--connections", &self.connections.to_string()]);
        command
    }

    fn rate(&self) -> &'static str {
        "puts_per_s"
    }
}

/// A Redis that syncs each write, and the queue's one worker.
pub(super) struct Bullmq {
    redis: Child,
    worker: Talker,
    port: u16,
    folder: PathBuf,
}

impl Bullmq {
    pub(super) async fn start(tools: &Tools, dir: &Path) -> Result<Bullmq> {
        let port = free_ports(1)?[0];
        let mut command = tied("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .arg("--dir")
            .arg(dir);
        let redis = spawn(command, &dir.join("redis.log"))?;
        let log = dir.join("redis.log");
        listens(port)
            .await
            .with_context(|| format!("redis-server: {}", tail(&log)))?;
        let mut command = tied("node");
        command
            .arg(tools.bullmq.join("worker.mjs"))
            .args(["--port", &port.to_string()]);
        let mut worker = Talker::start(command)?;
        worker.expect("ready", START).await.context("the queue's worker")?;
        let folder = tools.bullmq.clone();
        Ok(Bullmq {
            redis,
            worker,
            port,
            folder,
        })
    }
}

impl Peer for Bullmq {
    fn pids(&self) -> Vec<u32> {
        [&self.redis, &self.worker.child]
            .into_iter()
            .filter_map(Child::id)
            .collect()
    }

    fn load(&self) -> Command {
        let mut command = tied("node");
        command
            .arg(self.folder.join("load.mjs"))
            .args(["--port", &self.port.to_string()]);
        command
    }

    fn rate(&self) -> &'static str {
        "jobs_per_s"
    }
}

/// Runs a peer's load program; its figures, and what the servers spent while it measured.
pub(super) async fn load(peer: &impl Peer, clients: usize, payload: usize, seconds: u64) -> Result<(Value, Spent)> {
    let mut command = peer.load();
    for (name, value) in [("--clients", clients), ("--payload", payload)] {
        command.args([name, &value.to_string()]);
    }
    command.args(["--seconds", &seconds.to_string()]);
    let mut program = Talker::start(command)?;
    let (servers, load) = (peer.pids(), [program.pid()?]);
    let groups: [&[u32]; 2] = [&servers, &load];
    program.expect("from", SLACK).await?;
    let before = Usage::now(&groups)?;
    program.expect("until", SLACK + Duration::from_secs(seconds)).await?;
    let spent = before.since(&groups)?;
    let figures = serde_json::from_str(&program.line(SLACK).await?)?;
    ensure!(program.child.wait().await?.success(), "the load failed");
    Ok((figures, spent))
}

fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let log = std::fs::File::create(log)?;
    let command = command.stdout(log.try_clone()?).stderr(log);
    let name = format!("{:?}", command.as_std().get_program());
    command.spawn().context(name)
}

/// The end of a log, for whoever reads why something didn't start.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let seed = u64::from(std::process::id()) << 32 | u64::from(std::time::UNIX_EPOCH.elapsed()?.subsec_nanos());
    let mut dice = Dice::new(seed);
    let mut ports = BTreeSet::new();
    while ports.len() < count {
        ports.insert(cluster::tcp(&mut dice)?);
    }
    Ok(ports.into_iter().collect())
}

async fn listens(port: u16) -> Result<()> {
    until(START, async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await
}

/// etcd's own word that it has a leader and can write.
async fn healthy(url: &str) -> Result<()> {
    let url = format!("{url}/health");
    until(START, async || {
        let answer = reqwest::get(&url).await.and_then(reqwest::Response::error_for_status);
        answer.is_ok()
    })
    .await
}

async fn until(within: Duration, mut ready: impl AsyncFnMut() -> bool) -> Result<()> {
    let end = Instant::now() + within;
    while !ready().await {
        ensure!(Instant::now() < end, "not ready after {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
