//! `chaos run`: a plan carried out against a real cluster, written down, and checked.
//!
//! ```text
//!   plan --> Cluster (3 processes)          Recorder --> DIR/history.jsonl --> check --> DIR/report.json
//!              ^     ^                          ^      (and ten times a second: what each replica says that it is)
//!   nemesis ---'     '--- people: bidders, readers, viewers, chatters (each act written before and after)
//!                    '--- video: a seller by WHIP, viewers by WHEP at every node (each picture written as it comes)
//!   then: heal, wait for all closes, dump every replica's log through its own node
//! ```
//!
//! The main thread owns the cluster and plays the nemesis; people are tasks. Nothing here judges: what looks wrong on the
//! way is written down, and the checks say what it means.

mod dump;
mod nemesis;
mod people;
mod plan;
mod recorder;
mod roles;
mod roll;
mod video;
mod watch;

pub(crate) use plan::Plan;
pub(crate) use recorder::Recorder;

use crate::{
    check::{Status, check},
    cluster::{self, Cluster},
    history::{End, History, Meta, Record},
    mono,
};
use anyhow::{Context as _, Result};
use std::{
    fmt::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Carries out a plan; gives what the checks came to, and tells it in `out`.
pub(crate) async fn run(path: &Path, dir: &Path, seed: Option<u64>, out: &mut String) -> Result<Status> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let plan: Plan = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    let seed = seed.unwrap_or_else(|| plan.seed.unwrap_or(1));
    std::fs::create_dir_all(dir)?;
    let binary = cluster::binary()?;
    tracing::info!(plan = plan.name, seed, "starting");
    let began = Instant::now();
    let mut cluster = Cluster::start(
        &binary,
        &cluster::Options {
            dir: dir.into(),
            shards: plan.shards,
            tls: plan.tls,
            seed,
            front: None,
            more: String::new(),
        },
    )?;
    let api = cluster.api(Duration::from_secs(6), seed)?;
    cluster.all_ready(&api).await?;
    let started_ms = began.elapsed().as_millis() as u64;
    let file = dir.join("history.jsonl");
    let recorder = Arc::new(Recorder::create(&file)?);
    recorder.write(&Record::Meta(meta(&plan, seed)));
    let healed = act(&plan, seed, &mut cluster, &recorder, &api).await?;
    recorder.write(&Record::End(End {
        t: mono::now(),
        ops: recorder.ops(),
        healed,
    }));
    recorder.finish()?;
    let panics = cluster.panics();
    drop(cluster);
    let history = History::read(&[&file])?;
    let report = check(&history);
    report.print(&history, out)?;
    let failed = roll::failed_bids(&history);
    let _ = writeln!(out, "{failed}");
    let json = serde_json::json!({
        "plan": plan.name, "seed": seed, "started_ms": started_ms, "seconds": began.elapsed().as_secs(),
        "panics": panics, "bids": failed.bids, "failed_bids": failed.never, "repeated_bids": failed.again, "replay": format!("chaos run {} --out DIR --seed {seed}", path.display()), "check": report.json(),
    });
    std::fs::write(dir.join("report.json"), serde_json::to_string_pretty(&json)?)?;
    if plan.upgrade_to.is_some() && failed.never > 0 {
        out.push_str("fail: a roll must not cost a bid\n");
        return Ok(Status::Fail);
    }
    if panics.is_empty() {
        return Ok(report.status());
    }
    out.push_str(&format!("fail: a node panicked:\n{}\n", panics.join("\n")));
    Ok(Status::Fail)
}

/// People, faults, quiet, dump. True: everything healed.
async fn act(
    plan: &Plan,
    seed: u64,
    cluster: &mut Cluster,
    recorder: &Arc<Recorder>,
    api: &client::Api,
) -> Result<bool> {
    let stop = CancellationToken::new();
    let show = match &plan.video {
        Some(video) => Some(video::start(plan, video, seed, cluster.urls(), api, recorder).await?),
        None => None,
    };
    let house = people::open(plan, api, recorder, seed).await?;
    let trial = match plan.upgrade_to {
        Some(_) => Some(roll::Trial::open(api, seed).await?),
        None => None,
    };
    let roles = roles::start(&cluster.api(roles::ATTEMPT, seed)?, &house.shards(), recorder);
    let watchers = watch::start(plan, &house, cluster.urls(), recorder, seed, &stop);
    let crowd = people::start(plan, &house, api, recorder, seed, &stop).await?;
    nemesis::play(plan, &house, show.as_ref(), cluster, api, recorder).await?;
    if let Some(show) = show {
        show.finish().await;
    }
    stop.cancel();
    crowd.wait().await;
    tracing::info!("quiet: waiting for the last close");
    let healed = house.all_closed(api, Duration::from_secs(plan.close_seconds)).await;
    drop(roles);
    let equal = dump::all(&house, api, recorder).await?;
    watchers.finish().await;
    if let Some(trial) = trial {
        trial.finish(api).await?;
        roll::refuse_old(cluster, api).await?;
    }
    Ok(healed && equal)
}

fn meta(plan: &Plan, seed: u64) -> Meta {
    let rule = &plan.rule;
    Meta {
        format: 1,
        run: format!("{}-{seed}-{}", plan.name, mono::now()),
        commit: std::env::var("RUSHROOM_COMMIT").unwrap_or_default(),
        profile: plan.profile.clone(),
        seed,
        nodes: vec![1, 2, 3],
        replicas: 3,
        start_price: rule.start_price,
        min_inc: rule.min_inc,
        floor_ms: rule.floor_ms,
        k_ppm: rule.k_ppm,
        cap_ppm: rule.cap_ppm,
        eps_ms: rule.eps_ms,
        clock_policy: "stop".into(),
        window: plan.window,
        rto_max_ms: plan.rto_max_ms,
        neighbour_max_ms: plan.neighbour_max_ms,
        frozen_max_ms: plan.video.as_ref().map(|video| video.frozen_max_ms),
        republish_max_ms: plan.video.as_ref().map(|video| video.republish_max_ms),
        video_viewers: plan.video.as_ref().map(|video| video.viewers_per_node * 3),
        // Nodes have no other time to be told.
        refusals_ms: Some(auction::Limits::default().refusals_ms),
        canary: None,
    }
}
