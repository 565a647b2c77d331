//! Replicas that are too far behind for the log: snapshots between real hosts, cut off by dying senders and receivers; and
//! a replica whose log is damaged, replaced where it is.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use auction::Action;
use common::{Cluster, command, definition, id};
use futures_util::{StreamExt, stream};
use placement::{NodeId, ShardId};
use raft_store::{GroupStatus, RaftOptions, wal::inspect};
use std::{path::PathBuf, time::Duration};

const SHARD: ShardId = ShardId(1);
const DRAFTS: usize = 250;

/// A log is compacted soon, and nothing of it is kept for who lags.
fn compact() -> RaftOptions {
    RaftOptions {
        snapshot_bytes: 128 * 1024,
        keep_bytes: 0,
        ..RaftOptions::default()
    }
}

/// Drafts with long descriptions: state that a snapshot carries.
async fn fill(cluster: &Cluster, from: usize, drafts: usize) {
    let made = stream::iter(from..from + drafts).map(|n| async move {
        let mut definition = definition(60_000);
        definition.description = "x".repeat(3_500);
        let create = command(
            &id(&format!("draft-{n}")),
            "seller",
            "create",
            Action::Create(Box::new(definition)),
        );
        assert_eq!(cluster.say(SHARD, create).await.outcome, Ok(()), "draft {n}");
    });
    made.buffer_unordered(32).collect::<()>().await;
}

fn group(cluster: &Cluster, node: u64, shard: ShardId) -> Option<GroupStatus> {
    let status = cluster.running.get(&node)?.host.status();
    status.into_iter().find(|group| group.shard == shard)
}

/// Bytes of a snapshot that are on their way into a node.
fn arriving(cluster: &Cluster, node: u64) -> Option<u64> {
    let folder = cluster.folder(node).join("snapshots");
    let mut files = std::fs::read_dir(folder).ok()?.flatten();
    let part = files.find(|file| file.path().extension().is_some_and(|e| e == "part"))?;
    Some(part.metadata().ok()?.len())
}

/// Two nodes with a log that begins behind node 3's end (which is told), and about a megabyte of state.
async fn left_behind(raft: RaftOptions) -> (Cluster, u64) {
    let mut cluster = Cluster::new(1, raft);
    cluster.start_all().await;
    // Its stop may leave it an entry or two more: a new leader's first.
    let end = group(&cluster, 3, SHARD).unwrap().last_log + 2;
    cluster.stop(3).await;
    fill(&cluster, 0, DRAFTS).await;
    cluster
        .until("both have compacted their logs", |c| {
            [1, 2]
                .iter()
                .all(|node| group(c, *node, SHARD).is_some_and(|g| g.purged > end))
        })
        .await;
    (cluster, end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_compacted_by_bytes_and_who_is_behind_gets_a_snapshot() {
    let (mut cluster, end) = left_behind(compact()).await;
    cluster.start(3).await;
    cluster.agree(SHARD).await;
    let there = group(&cluster, 3, SHARD).unwrap();
    assert!(there.snapshot > end, "it came by a snapshot: {there:?}");
    assert_eq!(arriving(&cluster, 3), None, "nothing of the transfer is left");
    fill(&cluster, DRAFTS, 5).await;
    cluster.agree(SHARD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_compacted_by_age() {
    let raft = RaftOptions {
        snapshot_age: Duration::from_secs(1),
        keep_bytes: 0,
        ..RaftOptions::default()
    };
    let mut cluster = Cluster::new(1, raft);
    cluster.start_all().await;
    fill(&cluster, 0, 1).await;
    cluster
        .until("a few bytes are in a snapshot", |c| {
            (1..=3).all(|node| group(c, node, SHARD).is_some_and(|g| g.snapshot > 0 && g.purged > 0))
        })
        .await;
}

/// So slow that a transfer is surely cut in its middle: a piece a second, of about four.
fn slow() -> RaftOptions {
    RaftOptions {
        snapshot_bytes_per_s: 256 * 1024,
        ..compact()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_dies_in_the_middle_is_followed_by_another() {
    let (mut cluster, end) = left_behind(slow()).await;
    cluster.start(3).await;
    cluster
        .until("some of it is there", |c| arriving(c, 3).is_some_and(|bytes| bytes > 0))
        .await;
    let sender = cluster.leader_of(SHARD).unwrap();
    cluster.crash(sender).await;
    cluster.agree(SHARD).await;
    assert!(group(&cluster, 3, SHARD).unwrap().snapshot > end);
    cluster.start(sender).await;
    cluster.agree(SHARD).await;
    assert_eq!(arriving(&cluster, 3), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_dies_in_the_middle_goes_on_where_it_was() {
    let (mut cluster, end) = left_behind(slow()).await;
    cluster.start(3).await;
    cluster
        .until("some of it is there", |c| arriving(c, 3).is_some_and(|bytes| bytes > 0))
        .await;
    cluster.crash(3).await;
    let before = arriving(&cluster, 3).unwrap();
    cluster.start(3).await;
    // It only ever grows, until it has the snapshot's own name.
    let mut seen = before;
    cluster
        .until("the rest is there", |c| match arriving(c, 3) {
            Some(bytes) => {
                assert!(
                    bytes >= seen,
                    "it began again: {bytes} bytes, and {seen} had been there"
                );
                seen = bytes;
                false
            }
            None => group(c, 3, SHARD).is_some_and(|g| g.snapshot > end),
        })
        .await;
    cluster.agree(SHARD).await;
}

fn segments(cluster: &Cluster, node: u64) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(cluster.folder(node).join("wal")).unwrap();
    let mut paths: Vec<PathBuf> = folder.flatten().map(|file| file.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "seg"));
    paths.sort();
    paths
}

/// A bit of an entry of one shard rots while its node is down. The node starts, its other replicas go on, and this one is
/// replaced where it is, under an id that was never used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_log_is_damaged_is_replaced_under_a_fresh_id() {
    let mut cluster = Cluster::three(2).await;
    let (shard, auction) = common::open_auction(&cluster, "lamp", 3_600_000).await;
    for n in 0..10 {
        assert!(common::bid(&cluster, shard, &auction, n).await.outcome.is_ok());
    }
    cluster.agree(shard).await;
    let before = cluster.map().seat_on(shard, NodeId(3)).unwrap();
    cluster.crash(3).await;
    let mut place = None;
    let folder = cluster.folder(3).join("wal");
    inspect::dump(&folder, Some(shard.0), &mut |line| {
        if line.kind == "entry" && !line.copy {
            place = Some((line.segment, line.at));
        }
        true
    })
    .unwrap();
    let (segment, at) = place.unwrap();
    let path = segments(&cluster, 3)
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with(&format!("{segment:016}.seg")))
        .unwrap();
    let mut file = std::fs::read(&path).unwrap();
    file[at + 40] ^= 1;
    std::fs::write(&path, file).unwrap();
    let report = inspect::read(&folder).unwrap();
    assert_eq!(report.verdict(Some(shard.0)), Some(inspect::Verdict::Damaged));

    cluster.start(3).await;
    cluster
        .until("it has a fresh replica", |c| {
            let now = c.map().seat_on(shard, NodeId(3));
            now.is_some_and(|replica| replica != before) && c.running[&3].host.ready()
        })
        .await;
    assert!(common::bid(&cluster, shard, &auction, 10).await.outcome.is_ok());
    cluster.agree(shard).await;
    let view = cluster.running[&3].host.list(shard).unwrap();
    assert_eq!(view.iter().find(|view| view.id == auction).unwrap().bids, 11);
    // Who was hurt once isn't hurt for ever.
    cluster.crash(3).await;
    cluster.start(3).await;
    cluster.agree(shard).await;
}
