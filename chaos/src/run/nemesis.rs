//! The nemesis: plays a plan's faults on the real processes, and writes down each from its start to the end of healing.

use super::{
    Plan, Recorder,
    people::House,
    plan::{Fault, FaultKind},
    roll,
    video::Show,
};
use crate::{
    cluster::{self, Cluster},
    history::{Nem, Record},
    mono,
};
use anyhow::{Context as _, Result};
use client::Api;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a restarted node may take to be ready.
const READY_MAX: Duration = Duration::from_secs(20);

/// Plays all faults, each at its time, and returns when the people's time is over.
pub(crate) async fn play(
    plan: &Plan,
    house: &Arc<House>,
    show: Option<&Show>,
    cluster: &mut Cluster,
    api: &Api,
    recorder: &Arc<Recorder>,
) -> Result<()> {
    let began = Instant::now();
    for (id, fault) in plan.faults.iter().enumerate() {
        until(began, Duration::from_millis(fault.at_ms)).await;
        let targets = targets(fault.f, house, show, api).await?;
        one(plan, id as u64 + 1, fault, targets, cluster, api, recorder).await?;
    }
    until(began, Duration::from_secs(plan.seconds)).await;
    Ok(())
}

async fn until(began: Instant, after: Duration) {
    tokio::time::sleep_until((began + after).into()).await;
}

/// Whom a fault hits, now.
async fn targets(f: FaultKind, house: &House, show: Option<&Show>, api: &Api) -> Result<Vec<u64>> {
    let origin = || show.and_then(Show::origin).context("no node has the seller's stream");
    Ok(match f {
        FaultKind::KillLeader | FaultKind::PauseLeader => vec![leader(api, house.hot_shard()).await?],
        FaultKind::KillFollower => vec![1 + leader(api, house.hot_shard()).await? % 3],
        FaultKind::KillAll | FaultKind::Roll | FaultKind::Upgrade => vec![1, 2, 3],
        FaultKind::KillOrigin => vec![origin()?],
        FaultKind::KillRelay => vec![cluster::far_from(origin()?)],
    })
}

async fn one(
    plan: &Plan,
    id: u64,
    fault: &Fault,
    targets: Vec<u64>,
    cluster: &mut Cluster,
    api: &Api,
    recorder: &Recorder,
) -> Result<()> {
    let tell = |ev: &str| {
        let (d, eff) = (serde_json::json!({ "for_ms": fault.for_ms }), "installed".into());
        let (t, f, tgt) = (mono::now(), fault.f.word().into(), targets.clone());
        recorder.write(&Record::Nem(Nem {
            t,
            id,
            ev: ev.into(),
            f,
            tgt,
            d,
            eff,
        }));
    };
    tracing::info!(fault = fault.f.word(), ?targets, "fault");
    tell("start");
    let settle = Duration::from_millis(fault.for_ms);
    match fault.f {
        FaultKind::Roll => roll::all(cluster, api, settle).await?,
        FaultKind::Upgrade => roll::upgrade(plan.upgrade_to.context("upgrade to what?")?, cluster, settle).await?,
        _ => break_and_mend(fault, &targets, cluster, api).await?,
    }
    tell("stop");
    Ok(())
}

/// The fault itself: nodes die or freeze, and come back.
async fn break_and_mend(fault: &Fault, targets: &[u64], cluster: &mut Cluster, api: &Api) -> Result<()> {
    let pause = fault.f == FaultKind::PauseLeader;
    for node in targets {
        if pause {
            cluster.freeze(*node, true)?;
        } else {
            cluster.kill(*node)?;
        }
    }
    tokio::time::sleep(Duration::from_millis(fault.for_ms)).await;
    for node in targets {
        if pause {
            cluster.freeze(*node, false)?;
        } else {
            cluster.spawn(*node)?;
        }
    }
    for node in targets {
        cluster.ready(*node, api, READY_MAX).await?;
    }
    Ok(())
}

/// Who leads a shard: asked until some node knows.
async fn leader(api: &Api, shard: u32) -> Result<u64> {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        for node in 0..api.nodes().len() {
            if let Ok(cluster) = api.pinned(node).cluster().await
                && let Some(leader) = cluster.leader(shard)
                && cluster.nodes.iter().any(|n| n.id == leader && n.alive)
            {
                return Ok(leader);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None.context("no node knows who leads the shard")
}
