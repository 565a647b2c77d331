//! The scenes: for each condition how it is made, which alerts must fire, how it is mended.
//!
//! Each scene leaves the cluster whole, so that any of them can be played alone (`--only`). The last ones change builds and
//! the cluster's version, which can't be taken back.

use super::{
    Stage, load,
    tools::{Forged, Gate, SlowDisk, SmallDisk},
};
use anyhow::{Context as _, Result, ensure};
use client::{Api, ApiOptions};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long a node may take to stop or to be ready.
const NODE_MAX: Duration = Duration::from_secs(40);
/// Connections at once: more than an edge takes that aren't WebSockets.
const CONNECTIONS: usize = 4_400;

/// Names of the scenes, in their order.
const SCENES: &[&str] = &[
    "death", "majority", "cut", "blind", "diverged", "leaders", "lag", "damage", "cold", "frozen", "slow", "late",
    "stalled", "disk", "crowd", "forged", "papers", "stuck", "roll",
];

/// Plays the scenes; gives what went wrong.
pub(super) async fn all(stage: &mut Stage, gate: &Gate, disk: &SmallDisk, only: &[String]) -> Result<Vec<String>> {
    for name in only {
        ensure!(
            SCENES.contains(&name.as_str()),
            "no scene {name}; there are: {}",
            SCENES.join(", ")
        );
    }
    let mut troubles = Vec::new();
    for name in SCENES
        .iter()
        .filter(|name| only.is_empty() || only.iter().any(|o| o == *name))
    {
        tracing::info!(scene = name, "begins");
        let played = match *name {
            "death" => death(stage).await,
            "majority" => majority(stage).await,
            "cut" => cut(stage, gate).await,
            "blind" => blind(stage).await,
            "diverged" => diverged(stage).await,
            "leaders" => leaders(stage).await,
            "lag" => lag(stage).await,
            "damage" => damage(stage).await,
            "cold" => cold(stage).await,
            "frozen" => frozen(stage).await,
            "slow" => slow(stage).await,
            "late" => late(stage).await,
            "stalled" => stalled(stage).await,
            "disk" => fills(stage, disk).await,
            "crowd" => crowd(stage).await,
            "forged" => forged(stage).await,
            "papers" => papers(stage).await,
            "stuck" => stuck(stage).await,
            _ => roll(stage).await,
        };
        if let Err(error) = played {
            tracing::error!(scene = name, "failed: {error:#}");
            troubles.push(format!("{name}: {error:#}"));
            mend(stage, gate, disk).await?;
        }
    }
    Ok(troubles)
}

/// After a scene that broke off: everything runs again.
async fn mend(stage: &mut Stage, gate: &Gate, disk: &SmallDisk) -> Result<()> {
    gate.set(true);
    let _ = disk.clear();
    stage.scrape_all()?;
    for id in 1..=3 {
        let _ = stage.cluster.freeze(id, false);
        stage.cluster.forget_ended(id)?;
        let _ = stage.cluster.spawn(id);
        let api = stage.api.clone();
        stage.cluster.ready(id, &api, NODE_MAX).await?;
    }
    Ok(())
}

async fn back(stage: &mut Stage, id: u64) -> Result<()> {
    let api = stage.api.clone();
    stage.cluster.spawn(id)?;
    stage.cluster.ready(id, &api, NODE_MAX).await
}

fn admin(stage: &mut Stage, words: &str) -> Result<Output> {
    let grpc = stage.cluster.grpc(1)?;
    let out = Command::new(stage.cluster.binary())
        .args(["admin", "--node", &grpc, "--who", "alerts"])
        .args(words.split_whitespace())
        .output()?;
    Ok(out)
}

fn done(out: &Output) -> Result<()> {
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

async fn death(stage: &mut Stage) -> Result<()> {
    stage.now();
    stage.cluster.kill(3)?;
    stage.fires("SIGKILL of a node", &["RushroomNodeDown"]).await?;
    stage.now();
    back(stage, 3).await?;
    stage.rest(&["RushroomNodeDown"]).await?;
    stage
        .fires("SIGKILL of a node, and its return", &["RushroomNodeCrashed"])
        .await?;
    stage.cluster.stop(3, NODE_MAX).await?;
    stage.now();
    back(stage, 3).await?;
    stage.rest(&["RushroomNodeCrashed"]).await
}

async fn majority(stage: &mut Stage) -> Result<()> {
    let alerts = [
        "RushroomShardLeaderless",
        "RushroomNodeNotReady",
        "RushroomBidsUnanswered",
    ];
    let _bids = load::bids(&stage.api, "majority", 8).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.now();
    stage.cluster.kill(2)?;
    stage.cluster.kill(3)?;
    stage.fires("SIGKILL of two nodes under bids", &alerts).await?;
    stage.now();
    back(stage, 2).await?;
    back(stage, 3).await?;
    stage.rest(&alerts).await
}

async fn cut(stage: &mut Stage, gate: &Gate) -> Result<()> {
    stage.now();
    gate.set(false);
    stage
        .fires("a node's wire cut, one way", &["RushroomNodeCutOff"])
        .await?;
    stage.now();
    gate.set(true);
    stage.rest(&["RushroomNodeCutOff"]).await
}

async fn blind(stage: &mut Stage) -> Result<()> {
    stage.now();
    stage.prometheus.scrape(&[])?;
    stage.fires("no targets", &["RushroomNotWatched"]).await?;
    stage.now();
    stage.scrape_all()?;
    stage.rest(&["RushroomNotWatched"]).await
}

/// The real thing needs a bug. The word that such a process leaves is written in its place; all behind it is real.
async fn diverged(stage: &mut Stage) -> Result<()> {
    stage.cluster.stop(3, NODE_MAX).await?;
    std::fs::write(stage.dir.join("node3/data/life"), "diverged\n")?;
    stage.now();
    back(stage, 3).await?;
    stage
        .fires("forged: the last word of such a process", &["RushroomStateDiverged"])
        .await?;
    stage.cluster.stop(3, NODE_MAX).await?;
    stage.now();
    back(stage, 3).await?;
    stage.rest(&["RushroomStateDiverged"]).await
}

async fn leaders(stage: &mut Stage) -> Result<()> {
    stage.now();
    let until = Instant::now() + Duration::from_secs(60);
    let mut to = 1;
    while !stage.prometheus.is_firing("RushroomLeadersChange").await? {
        ensure!(Instant::now() < until, "hand-overs never showed");
        to = to % 3 + 1;
        // One that leads already is refused; the next one doesn't.
        let _ = admin(stage, &format!("shard transfer-leader 1 --to {to} --force alerts"))?;
    }
    stage
        .fires("a shard handed over again and again", &["RushroomLeadersChange"])
        .await?;
    stage.now();
    stage.rest(&["RushroomLeadersChange"]).await
}

async fn lag(stage: &mut Stage) -> Result<()> {
    let _bids = load::bids(&stage.api, "lag", 24).await?;
    stage.now();
    stage.cluster.freeze(3, true)?;
    stage
        .fires("SIGSTOP of a node under bids", &["RushroomReplicaLags"])
        .await?;
    stage.now();
    stage.cluster.freeze(3, false)?;
    stage.rest(&["RushroomReplicaLags"]).await
}

/// A byte of a node's log is another one after a restart; while moves are paused nobody mends its replica.
async fn damage(stage: &mut Stage) -> Result<()> {
    let alerts = ["RushroomMovesPaused", "RushroomForced"];
    stage.now();
    done(&admin(stage, "pause --force alerts")?)?;
    stage.fires("`pause --force`", &alerts).await?;
    {
        let _bids = load::bids(&stage.api, "damage", 16).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    stage.cluster.stop(3, NODE_MAX).await?;
    rot(&stage.dir.join("node3/data/raft/wal"))?;
    stage.now();
    stage.cluster.spawn(3)?;
    stage
        .fires("a flipped byte in the log, moves paused", &["RushroomReplicaShut"])
        .await?;
    stage.now();
    done(&admin(stage, "go")?)?;
    let api = stage.api.clone();
    stage.cluster.ready(3, &api, NODE_MAX).await?;
    stage
        .rest(&["RushroomReplicaShut", "RushroomMovesPaused", "RushroomForced"])
        .await
}

/// Somebody reads an auction that is over, and its record isn't what was written.
async fn cold(stage: &mut Stage) -> Result<()> {
    let folder = stage.dir.join("node3/data/raft/cold");
    let before = sizes(&folder)?;
    let auction = load::over(&stage.api, "rotten").await?;
    let until = Instant::now() + NODE_MAX;
    let grew = |(path, size): &(PathBuf, u64)| {
        let records = path.extension().is_some_and(|ending| ending == "cold");
        records && *size > before.get(path).copied().unwrap_or(0)
    };
    let (path, size) = loop {
        if let Some(grown) = sizes(&folder)?.into_iter().find(grew) {
            break grown;
        }
        ensure!(Instant::now() < until, "node 3 keeps {auction} in memory");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    flip(
        &path,
        usize::midpoint(before.get(&path).copied().unwrap_or(0) as usize, size as usize),
    )?;
    stage.now();
    let third = stage.cluster.urls().into_iter().nth(2).context("a third node")?;
    let own = Api::new(ApiOptions {
        nodes: vec![third],
        ..ApiOptions::default()
    })?;
    ensure!(own.export(&auction, true).await.is_err(), "a damaged record was served");
    stage
        .fires("a flipped byte in a record", &["RushroomColdDamaged"])
        .await?;
    stage.cluster.stop(3, NODE_MAX).await?;
    stage.now();
    back(stage, 3).await?;
    stage.rest(&["RushroomColdDamaged"]).await?;
    own.export(&auction, true).await?;
    Ok(())
}

/// The files in a folder. One that isn't there yet has none.
fn sizes(folder: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    if !folder.exists() {
        return Ok(BTreeMap::new());
    }
    let entries = std::fs::read_dir(folder)?.map(|entry| {
        let entry = entry?;
        Ok((entry.path(), entry.metadata()?.len()))
    });
    entries.collect()
}

/// Flips a byte in the middle of what the fullest segment holds.
fn rot(wal: &Path) -> Result<()> {
    let mut best: (usize, PathBuf) = Default::default();
    for path in sizes(wal)?.into_keys() {
        let bytes = std::fs::read(&path)?;
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        if used > best.0 {
            best = (used, path);
        }
    }
    let (used, path) = best;
    ensure!(used > 4_096, "nothing to damage in {}", wal.display());
    flip(&path, used / 2)
}

fn flip(path: &Path, at: usize) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    bytes[at] ^= 0x10;
    tracing::info!(path = %path.display(), at, "a byte flipped");
    Ok(std::fs::write(path, bytes)?)
}

async fn frozen(stage: &mut Stage) -> Result<()> {
    let _bids = load::bids(&stage.api, "frozen", 8).await?;
    stage.now();
    let until = Instant::now() + Duration::from_secs(60);
    while !stage.prometheus.is_firing("RushroomClockHeld").await? {
        ensure!(Instant::now() < until, "held clocks never showed");
        for frozen in [true, false] {
            for id in 1..=3 {
                stage.cluster.freeze(id, frozen)?;
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }
    stage
        .fires("SIGSTOP of all nodes, 150 ms of each 300", &["RushroomClockHeld"])
        .await?;
    stage.now();
    stage.rest(&["RushroomClockHeld"]).await
}

async fn slow(stage: &mut Stage) -> Result<()> {
    let alerts = ["RushroomFsyncSlow", "RushroomBidsSlow"];
    let _bids = load::bids(&stage.api, "slow", 8).await?;
    stage.now();
    let slow = slow_disks(stage, 400)?;
    stage.fires("every fdatasync held up for 400 ms", &alerts).await?;
    stage.now();
    drop(slow);
    stage.rest(&alerts).await
}

/// Slow enough to be late, not so slow that the clock stands and waits: on a clock that is held nothing is late.
async fn late(stage: &mut Stage) -> Result<()> {
    let _closes = load::closes(&stage.api, "late", 6).await?;
    stage.now();
    let slow = slow_disks(stage, 130)?;
    stage
        .fires("every fdatasync held up for 130 ms", &["RushroomCloseLate"])
        .await?;
    stage.now();
    drop(slow);
    stage.rest(&["RushroomCloseLate"]).await
}

fn slow_disks(stage: &Stage, more_ms: u64) -> Result<Vec<SlowDisk>> {
    stage
        .cluster
        .pids()
        .iter()
        .map(|pid| SlowDisk::of(*pid, more_ms))
        .collect()
}

async fn stalled(stage: &mut Stage) -> Result<()> {
    let _bids = load::bids(&stage.api, "stalled", 8).await?;
    let pid = *stage.cluster.pids().get(2).context("three nodes")?;
    stage.now();
    let slow = SlowDisk::of(pid, 5_000)?;
    stage
        .fires("one node's fdatasync held up for 5 s", &["RushroomFsyncStalled"])
        .await?;
    stage.now();
    drop(slow);
    stage.rest(&["RushroomFsyncStalled"]).await
}

async fn fills(stage: &mut Stage, disk: &SmallDisk) -> Result<()> {
    let _bids = load::bids(&stage.api, "disk", 24).await?;
    stage.now();
    let until = Instant::now() + Duration::from_secs(60);
    while !stage.prometheus.is_firing("RushroomDiskFills").await? {
        ensure!(Instant::now() < until, "a disk that fills never showed");
        disk.leave(disk.free()?.saturating_sub(512 << 10).max(48 << 20))?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stage.fires("a small disk that fills", &["RushroomDiskFills"]).await?;
    stage.now();
    disk.leave(20 << 20)?;
    stage.fires("a small disk, 20 MiB free", &["RushroomDiskLow"]).await?;
    stage.now();
    // Less than a segment takes, so that the log goes into those that were laid by. Bids alone would need minutes for that;
    // many drafts would use up the one that is laid by, and stop the node, between two looks at its metrics.
    let _drafts = load::drafts(&stage.api, "disk", 2).await?;
    disk.leave(512 << 10)?;
    stage
        .fires(
            "a small disk without room, under bids and drafts",
            &["RushroomDiskFull"],
        )
        .await?;
    stage.now();
    disk.clear()?;
    stage
        .rest(&["RushroomDiskFull", "RushroomDiskLow", "RushroomDiskFills"])
        .await
}

async fn crowd(stage: &mut Stage) -> Result<()> {
    let url = stage.cluster.urls().into_iter().next().context("a node")?;
    let address = url.trim_start_matches("http://").to_owned();
    stage.now();
    let mut crowd = Vec::with_capacity(CONNECTIONS);
    let until = Instant::now() + Duration::from_secs(60);
    while !stage.prometheus.is_firing("RushroomEdgeFull").await? {
        ensure!(Instant::now() < until, "a full edge never showed");
        // Those that are too slow to ask are closed; others come.
        crowd.clear();
        for _ in 0..CONNECTIONS {
            crowd.extend(tokio::net::TcpStream::connect(&address).await);
        }
    }
    stage.fires("4,400 connections at once", &["RushroomEdgeFull"]).await?;
    stage.now();
    drop(crowd);
    stage.rest(&["RushroomEdgeFull"]).await
}

/// No good leader makes such a stamp, and no bad one is at hand; and no machine here lies about its clock.
async fn forged(stage: &mut Stage) -> Result<()> {
    stray(stage).await?;
    let page = Forged::serve("rushroom_shard_clamped_stamps_total{shard=\"1\"}").await?;
    let mut targets = stage.cluster.urls();
    targets.push(page.url.clone());
    stage.prometheus.scrape(&targets)?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    stage.now();
    page.set(1);
    stage
        .fires("forged: a page with that counter", &["RushroomStampsClamped"])
        .await?;
    stage.now();
    stage.scrape_all()?;
    stage.rest(&["RushroomStampsClamped"]).await
}

async fn stray(stage: &mut Stage) -> Result<()> {
    let page = Forged::serve("rushroom_raft_unfit{reason=\"clock_step\"}").await?;
    let mut targets = stage.cluster.urls();
    targets.push(page.url.clone());
    stage.prometheus.scrape(&targets)?;
    stage.now();
    page.set(1);
    stage
        .fires("forged: a page with that gauge", &["RushroomClockUnfit"])
        .await?;
    stage.now();
    stage.scrape_all()?;
    stage.rest(&["RushroomClockUnfit"]).await
}

/// A process that ends with the scene.
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn issue(stage: &Stage, words: &str) -> Result<()> {
    let out = Command::new(stage.cluster.binary())
        .args(["node"])
        .args(words.split_whitespace())
        .output()?;
    done(&out)
}

/// A lone node with a certificate for five days, and then with one for ninety.
async fn papers(stage: &mut Stage) -> Result<()> {
    let home = stage.dir.join("papers");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home)?;
    let at = |name: &str| home.join(name).display().to_string();
    issue(stage, &format!("init-ca --out {}", at("ca")))?;
    issue(
        stage,
        &format!("cert --ca {} --node 9 --days 5 --out {}", at("ca"), at("now")),
    )?;
    let (http, grpc) = (
        crate::cluster::tcp(&mut stage.dice)?,
        crate::cluster::tcp(&mut stage.dice)?,
    );
    let text = format!(
        "[node]\nid = 9\ndir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{http}\"\n[grpc]\nlisten = \"127.0.0.1:{grpc}\"\n[cluster]\nshards = 1\n\
         [tls]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\nlook_ms = 500\n",
        at("data"),
        at("ca/ca.crt"),
        at("now/node-9.crt"),
        at("now/node-9.key"),
    );
    std::fs::write(home.join("node.toml"), text)?;
    let _node = start(stage, &home)?;
    let mut targets = stage.cluster.urls();
    targets.push(format!("http://127.0.0.1:{http}"));
    stage.now();
    stage.prometheus.scrape(&targets)?;
    stage
        .fires("a certificate for five days", &["RushroomCertExpires"])
        .await?;
    stage.now();
    issue(
        stage,
        &format!("cert --ca {} --node 9 --days 90 --out {}", at("ca"), at("new")),
    )?;
    for file in ["node-9.key", "node-9.crt"] {
        std::fs::rename(home.join("new").join(file), home.join("now").join(file))?;
    }
    stage.rest(&["RushroomCertExpires"]).await?;
    knocks(stage, grpc).await?;
    stage.scrape_all()
}

/// Somebody without TLS at the door of that node, again and again.
async fn knocks(stage: &mut Stage, port: u16) -> Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stage.now();
    let until = Instant::now() + Duration::from_secs(60);
    while !stage.prometheus.is_firing("RushroomTlsFails").await? {
        ensure!(Instant::now() < until, "failed handshakes never showed");
        for _ in 0..8 {
            let mut door = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            door.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
            // Refused: the other end hangs up, in whatever way.
            let _ = door.read(&mut [0; 64]).await;
        }
    }
    stage
        .fires("callers without TLS, again and again", &["RushroomTlsFails"])
        .await?;
    stage.now();
    stage.rest(&["RushroomTlsFails"]).await
}

fn start(stage: &Stage, home: &std::path::Path) -> Result<Own> {
    let log = std::fs::File::create(home.join("node.log"))?;
    let child = Command::new(stage.cluster.binary())
        .args(["node", "--config"])
        .arg(home.join("node.toml"))
        .args(["--die-with", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    Ok(Own(child))
}

/// A fourth node comes, and freezes while replicas move to it.
async fn stuck(stage: &mut Stage) -> Result<()> {
    let home = stage.dir.join("node4");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home)?;
    let (settings, _) = stage.cluster.files(1)?;
    let like: toml::Table = toml::from_str(&std::fs::read_to_string(settings)?)?;
    let secret = like["cluster"]["secret"].as_str().context("a secret")?.to_owned();
    let (http, grpc) = (
        crate::cluster::tcp(&mut stage.dice)?,
        crate::cluster::tcp(&mut stage.dice)?,
    );
    let text = format!(
        "[node]\nid = 4\nzone = \"d\"\nregion = \"tokyo\"\ndir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{http}\"\n\
         [grpc]\nlisten = \"127.0.0.1:{grpc}\"\n[cluster]\nsecret = \"{secret}\"\njoin = \"{}\"\n[log]\nsegment_bytes = 1048576\n",
        home.join("data").display(),
        stage.cluster.grpc(1)?
    );
    std::fs::write(home.join("node.toml"), text)?;
    let node = start(stage, &home)?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(node.0.id())?).context("a pid")?;
    let until = Instant::now() + NODE_MAX;
    loop {
        let now: serde_json::Value = serde_json::from_slice(&admin(stage, "--json status")?.stdout)?;
        if now["moves"].as_array().is_some_and(|moves| !moves.is_empty()) {
            break;
        }
        ensure!(Instant::now() < until, "nothing moved to the new node: {now:#}");
    }
    stage.now();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
    stage
        .fires("SIGSTOP of a node that replicas move to", &["RushroomMoveStuck"])
        .await?;
    stage.now();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
    stage.rest(&["RushroomMoveStuck"]).await?;
    // It leaves again, so that the roll finds three.
    done(&admin(stage, "node decommission 4 --wait --timeout 150")?)?;
    drop(node);
    Ok(())
}

/// To the next build, if there is one at hand, and to its version.
async fn roll(stage: &mut Stage) -> Result<()> {
    let next = std::env::var_os("RUSHROOM_NEXT_BIN").context("RUSHROOM_NEXT_BIN names no build to roll to")?;
    stage.cluster.use_binary(next.as_ref());
    for id in 1..=3 {
        stage.cluster.stop(id, NODE_MAX).await?;
        stage.now();
        back(stage, id).await?;
        if id == 2 {
            stage
                .fires("two builds side by side", &["RushroomVersionsMixed"])
                .await?;
        }
    }
    stage.rest(&["RushroomVersionsMixed"]).await?;
    stage
        .fires("a roll that nobody finished", &["RushroomUpgradeOpen"])
        .await?;
    stage.now();
    done(&admin(stage, "cluster upgrade --to 3")?)?;
    stage.rest(&["RushroomUpgradeOpen"]).await
}
