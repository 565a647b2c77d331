//! A founding that dies at each of its steps, with every node: what is found afterwards is closed or founded, never in between,
//! and the same call goes on. Of a backup and of a survivor.
//!
//! ```text
//!   Sealed    the map says so, everywhere or not yet
//!   Written   the state lies beside the snapshots; the log knows nothing of it
//!   Born      the log says who the replica is; its snapshot hasn't its name yet
//!   Adopted   it has; the map doesn't know
//!   Founded   the map names it; nobody has led it yet
//! ```
//!
//! How a step is met and not passed: the call is a future, which goes on only when it is polled; each poll looks first whether
//! the step is reached. `Born` ends within one poll, so it is made of `Adopted` by giving the snapshot its old name.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cluster, bid, open_auction};
use placement::ShardId;
use raft_store::{Fresh, Source};
use std::{
    future::{Future, poll_fn},
    path::PathBuf,
    pin::pin,
    task::Poll,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Sealed,
    Written,
    Born,
    Adopted,
    Founded,
}

const STEPS: [Step; 5] = [Step::Sealed, Step::Written, Step::Born, Step::Adopted, Step::Founded];
/// Where it is founded.
const NODE: u64 = 2;

/// Polls `call` until `reached`, and drops it there.
async fn until<F: Future>(call: F, mut reached: impl FnMut() -> bool) -> Option<F::Output> {
    let mut call = pin!(call);
    poll_fn(|cx| {
        if reached() {
            return Poll::Ready(None);
        }
        call.as_mut().poll(cx).map(Some)
    })
    .await
}

/// The snapshot of a shard on `NODE`, and what was planted for a replica of it.
fn files(cluster: &Cluster, shard: ShardId, replica: u64) -> (PathBuf, PathBuf) {
    let dir = cluster.folder(NODE).join("snapshots");
    let name = format!("shard-{:04}", shard.0);
    (
        dir.join(format!("{name}.snap")),
        dir.join(format!("{name}.plant-{replica}")),
    )
}

/// Founds the shard up to a step.
async fn found_up_to(cluster: &Cluster, shard: ShardId, source: Source, step: Step) {
    let host = cluster.running[&NODE].host.clone();
    let before = cluster.map().replicas_of(shard).to_vec();
    let mut written = false;
    let reached = || {
        let map = host.map().borrow().clone();
        let seal = map.steering.sealed.get(&shard).cloned();
        match (step, seal) {
            (Step::Sealed, seal) => seal.is_some(),
            (Step::Founded, None) => map.replicas_of(shard).len() == 1 && map.replicas_of(shard) != before,
            (Step::Founded, _) | (_, None) => false,
            (_, Some(seal)) => {
                let is_there = files(cluster, shard, seal.replica.0).1.exists();
                let was_there = std::mem::replace(&mut written, is_there);
                if step == Step::Written {
                    is_there
                } else {
                    was_there && !is_there
                }
            }
        }
    };
    let ended = until(host.refound(shard, source, "test", Some("a drill")), reached).await;
    assert!(ended.is_none(), "{step:?} was passed unseen: {ended:?}");
}

async fn each_step(survivor: bool) {
    let mut cluster = Cluster::three(2).await;
    let (shard, lamp) = open_auction(&cluster, "lamp", 3_600_000).await;
    let mut bids = 0;
    for step in STEPS {
        assert_eq!(
            bid(&cluster, shard, &lamp, bids).await.outcome,
            Ok(()),
            "before {step:?}"
        );
        bids += 1;
        cluster.agree(shard).await;
        let source = if survivor {
            cluster.seal(shard, NODE).await;
            Source::Survivor
        } else {
            let leader = cluster.leader_of(shard).unwrap();
            Source::Image(cluster.running[&leader].host.image(shard).await.unwrap().1)
        };
        found_up_to(&cluster, shard, source.clone(), step).await;
        let sealed = cluster.running[&NODE]
            .host
            .map()
            .borrow()
            .steering
            .sealed
            .get(&shard)
            .cloned();
        for node in 1..=3 {
            cluster.crash(node).await;
        }
        if let (Step::Born, Some(seal)) = (step, &sealed) {
            let (snap, plant) = files(&cluster, shard, seal.replica.0);
            std::fs::rename(snap, plant).unwrap();
        }
        cluster.start_all().await;
        assert_eq!(cluster.map().is_sealed(shard), step != Step::Founded, "{step:?}");
        if let Some(seal) = sealed {
            let open = |r: &common::Running| r.host.status().iter().any(|group| group.shard == shard);
            assert!(!cluster.running.values().any(open), "{step:?}: a sealed shard is open");
            let host = cluster.running[&NODE].host.clone();
            let founded = host.refound(shard, source, "test", Some("again")).await;
            let founded = founded.unwrap_or_else(|error| panic!("{step:?}: {error}"));
            assert_eq!(founded.replica, seal.replica, "{step:?}: it goes on as the same");
        }
        cluster.three_again(shard).await;
        let leader = cluster.leader_of(shard).unwrap();
        let view = cluster.running[&leader]
            .host
            .read(shard, &lamp, Fresh::Linear)
            .await
            .unwrap();
        assert_eq!(view.bids, bids, "{step:?}: what was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_dies_at_any_step_is_gone_on_with() {
    each_step(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_dies_at_any_step_is_gone_on_with() {
    each_step(true).await;
}
