//! `chaos alerts`: every alert of the repository, fired once for real and seen to resolve.
//!
//! ```text
//!   scenes: a node dies, a disk stalls, a roll ...      Prometheus (the repository's rules, time made shorter)
//!        |  on three real processes                          ^ scrapes          | /api/v1/alerts
//!        '--> the condition --> wait until it fires --> mend it --> wait until it rests --> one line of the table
//! ```
//!
//! An alert that nobody has seen fire is a hope. Conditions are made for real: SIGKILL, SIGSTOP, fdatasync held up in the
//! kernel (`strace`), a small disk that fills, a flipped byte in a log, a certificate that ends. What can't be had so is
//! forged, and the table says which.
//!
//! An alert of the rules without a scene fails the run, as does one that doesn't fire or doesn't rest.

mod load;
mod prometheus;
mod scenes;
mod tools;

use crate::{
    check::Status,
    cluster::{self, Cluster},
};
use anyhow::{Context as _, Result};
use client::{Api, Dice};
use prometheus::Prometheus;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Longest wait for an alert to fire, or to rest.
const PATIENCE: Duration = Duration::from_secs(90);
/// Shards of the cluster.
const SHARDS: u32 = 8;

/// What to try.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// The rules.
    #[arg(long, default_value = "docs/ops/alerts.yml")]
    rules: PathBuf,
    /// Gets the nodes' data and logs, Prometheus' data, and report.json.
    #[arg(long)]
    out: PathBuf,
    /// Only these scenes.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// By how much time is made shorter.
    #[arg(long, default_value_t = 60)]
    shorter: u64,
}

/// How one alert fared.
#[derive(Clone, Debug)]
struct Seen {
    /// How the condition was made.
    how: &'static str,
    /// From the condition to the alert, s.
    fired_s: f64,
    /// From the mending to its rest, s.
    rested_s: Option<f64>,
    /// What somebody would have read.
    summary: String,
}

/// Everything that a scene works with.
struct Stage {
    cluster: Cluster,
    prometheus: Prometheus,
    api: Api,
    dir: PathBuf,
    dice: Dice,
    seen: BTreeMap<String, Seen>,
    /// When the present condition was made, or mended.
    since: Instant,
}

impl Stage {
    /// The condition is about to be made, or to be mended.
    fn now(&mut self) {
        self.since = Instant::now();
    }

    /// Waits until all of these fire.
    async fn fires(&mut self, how: &'static str, alerts: &[&str]) -> Result<()> {
        let mut left: Vec<&str> = alerts.to_vec();
        while !left.is_empty() {
            for (name, summary) in self.prometheus.firing().await? {
                if let Some(at) = left.iter().position(|wanted| *wanted == name) {
                    left.swap_remove(at);
                    let fired_s = self.since.elapsed().as_secs_f64();
                    tracing::info!(alert = name, fired_s, summary, "fires");
                    let seen = Seen {
                        how,
                        fired_s,
                        rested_s: None,
                        summary,
                    };
                    self.seen.insert(name, seen);
                }
            }
            anyhow::ensure!(self.since.elapsed() < PATIENCE, "{how}: {left:?} never fired");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Waits until none of these fires.
    async fn rest(&mut self, alerts: &[&str]) -> Result<()> {
        loop {
            let firing: Vec<String> = self
                .prometheus
                .firing()
                .await?
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            let still: Vec<&&str> = alerts
                .iter()
                .filter(|alert| firing.iter().any(|f| f == **alert))
                .collect();
            let rested_s = self.since.elapsed().as_secs_f64();
            for alert in alerts.iter().filter(|alert| !still.contains(alert)) {
                if let Some(seen) = self.seen.get_mut(*alert) {
                    seen.rested_s.get_or_insert(rested_s);
                }
            }
            if still.is_empty() {
                return Ok(());
            }
            anyhow::ensure!(self.since.elapsed() < PATIENCE, "{still:?} never rested");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn scrape_all(&self) -> Result<()> {
        self.prometheus.scrape(&self.cluster.urls())
    }
}

/// Plays all scenes and tells how each alert fared.
pub(crate) async fn run(options: &Options, out: &mut String) -> Result<Status> {
    std::fs::create_dir_all(&options.out)?;
    let dir = options.out.canonicalize()?;
    let names = prometheus::names(&options.rules)?;
    for id in 1..=3 {
        // A run starts from nothing.
        let home = dir.join(format!("node{id}"));
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
    }
    let mut dice = Dice::new(u64::from(std::process::id()));
    let disk = tools::SmallDisk::mount(&dir.join("node3").join("data"))?;
    let binary = cluster::binary()?;
    let front = cluster::tcp(&mut dice)?;
    let mut cluster = Cluster::start(
        &binary,
        &cluster::Options {
            dir: dir.clone(),
            shards: SHARDS,
            seed: 1,
            tls: false,
            front: Some((3, front)),
            more: "\n[log]\nsegment_bytes = 1048576\nlow_water_bytes = 33554432\n\n[raft]\ncold_after_ms = 500\n"
                .into(),
        },
    )?;
    let api = cluster.api(Duration::from_secs(6), 1)?;
    let gate = tools::Gate::open(front, cluster.grpc(3)?).await?;
    cluster.all_ready(&api).await?;
    let port = cluster::tcp(&mut dice)?;
    let prometheus = Prometheus::start(&options.rules, &dir.join("prometheus"), port, options.shorter).await?;
    let mut stage = Stage {
        cluster,
        prometheus,
        api,
        dir: dir.clone(),
        dice,
        seen: BTreeMap::new(),
        since: Instant::now(),
    };
    stage.scrape_all()?;
    stage.now();
    while !stage.prometheus.knows(3).await? {
        anyhow::ensure!(stage.since.elapsed() < PATIENCE, "Prometheus doesn't see the nodes");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let troubles = scenes::all(&mut stage, &gate, &disk, &options.only).await?;
    let panics = stage.cluster.panics();
    let seen = std::mem::take(&mut stage.seen);
    drop(stage);
    drop(disk);
    let report = table(&names, &seen, &troubles, out);
    std::fs::write(dir.join("report.json"), serde_json::to_string_pretty(&report)?).context("report.json")?;
    panics
        .iter()
        .for_each(|line| out.push_str(&format!("fail: a node panicked: {line}\n")));
    let all = names
        .iter()
        .all(|name| seen.get(name).is_some_and(|s| s.rested_s.is_some()));
    let good = panics.is_empty() && troubles.is_empty() && (all || !options.only.is_empty());
    Ok(if good { Status::Pass } else { Status::Fail })
}

fn table(names: &[String], seen: &BTreeMap<String, Seen>, troubles: &[String], out: &mut String) -> serde_json::Value {
    let _ = writeln!(out, "{:<26} {:>8} {:>8}  by", "alert", "fired s", "rested s");
    let mut rows = Vec::new();
    for name in names {
        let one = seen.get(name);
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
        let (fired, rested) = (one.map(|s| s.fired_s), one.and_then(|s| s.rested_s));
        let how = one.map_or("NOT SEEN", |s| s.how);
        let _ = writeln!(out, "{name:<26} {:>8} {:>8}  {how}", number(fired), number(rested));
        rows.push(serde_json::json!({
            "alert": name, "fired_s": fired, "rested_s": rested, "how": how, "summary": one.map(|s| s.summary.clone()),
        }));
    }
    for trouble in troubles {
        let _ = writeln!(out, "fail: {trouble}");
    }
    let fired = seen.len();
    let rested = seen.values().filter(|s| s.rested_s.is_some()).count();
    let forged = seen.values().filter(|s| s.how.starts_with("forged")).count();
    let _ = writeln!(
        out,
        "{} alerts: {fired} fired, {rested} rested, {forged} of them forged",
        names.len()
    );
    serde_json::json!({ "alerts": rows, "troubles": troubles })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn every_alert_has_a_scene() {
        let rules = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ops/alerts.yml");
        let scenes = include_str!("alerts/scenes.rs");
        let names = super::prometheus::names(&rules).unwrap();
        let missing: Vec<_> = names
            .iter()
            .filter(|name| !scenes.contains(&format!("\"{name}\"")))
            .collect();
        assert!(missing.is_empty(), "alerts that nobody ever saw fire: {missing:?}");
    }
}
