//! Three hosts, one process, real files and sockets: what a cluster must still know after losing its leader, its
//! processes, or most of its log.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use auction::Action;
use common::{Cluster, ask, bid, command, open_auction};
use placement::{Change, ShardId};
use raft_store::{Fresh, RaftOptions, ReadError, SteerError};

/// A bid is accepted, the leader dies, another leads, the bid is there, and the dead one comes back to the same state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bid_outlives_its_leader() {
    let mut cluster = Cluster::three(2).await;
    let (shard, auction) = open_auction(&cluster, "lamp", 3_600_000).await;
    assert_eq!(bid(&cluster, shard, &auction, 0).await.outcome, Ok(()));
    let first = cluster.leader_of(shard).unwrap();
    cluster.crash(first).await;
    // The same id again: the first verdict, from whoever leads now.
    let again = bid(&cluster, shard, &auction, 0).await;
    assert_eq!((again.outcome, again.dup), (Ok(()), true));
    assert_eq!(bid(&cluster, shard, &auction, 1).await.outcome, Ok(()));
    assert_ne!(cluster.leader_of(shard), Some(first));
    cluster.start(first).await;
    cluster
        .until("the returned node is ready", |c| c.running[&first].host.ready())
        .await;
    cluster.agree(shard).await;
    cluster.agree(ShardId::META).await;
}

/// All processes die at once and come back: every acknowledged bid is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_from_disk_keeps_everything() {
    let mut cluster = Cluster::three(2).await;
    let (shard, auction) = open_auction(&cluster, "vase", 3_600_000).await;
    for n in 0..20 {
        assert_eq!(bid(&cluster, shard, &auction, n).await.outcome, Ok(()));
    }
    let map = cluster.running[&1].host.map().borrow().clone();
    for node in 1..=3 {
        cluster.crash(node).await;
    }
    cluster.start_all().await;
    let again = bid(&cluster, shard, &auction, 19).await;
    assert_eq!((again.outcome, again.dup, again.price), (Ok(()), true, 2_900));
    cluster.agree(shard).await;
    assert_eq!(
        *cluster.running[&2].host.map().borrow(),
        map,
        "the map came back as it was"
    );
}

/// A follower that was away for longer than the log is kept gets a snapshot, and ends in the same state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lags_behind_the_log_gets_a_snapshot() {
    let raft = RaftOptions {
        snapshot_bytes: 16 * 1024,
        keep_bytes: 1024,
        ..RaftOptions::default()
    };
    let mut cluster = Cluster::new(1, raft);
    cluster.start_all().await;
    let (shard, auction) = open_auction(&cluster, "clock", 3_600_000).await;
    let away = (1..=3).find(|id| Some(*id) != cluster.leader_of(shard)).unwrap();
    let known = cluster.running[&away]
        .host
        .status()
        .into_iter()
        .find(|g| g.shard == shard)
        .unwrap()
        .last_log;
    cluster.crash(away).await;
    for n in 0..200 {
        assert_eq!(bid(&cluster, shard, &auction, n).await.outcome, Ok(()));
    }
    cluster
        .until("the log behind a snapshot is gone", |c| {
            c.running
                .values()
                .all(|r| r.host.status().iter().any(|g| g.shard == shard && g.purged > known))
        })
        .await;
    cluster.start(away).await;
    cluster.agree(shard).await;
    let there = cluster.running[&away]
        .host
        .status()
        .into_iter()
        .find(|g| g.shard == shard)
        .unwrap();
    assert!(there.snapshot > known, "it came by a snapshot: {there:?}");
    // The snapshot is a start for the next life, too.
    cluster.crash(away).await;
    cluster.start(away).await;
    assert_eq!(bid(&cluster, shard, &auction, 200).await.outcome, Ok(()));
    cluster.agree(shard).await;
}

/// Linear reads are the leader's; others wait for the version that was asked for, or say that they are behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_as_fresh_as_asked() {
    let cluster = Cluster::three(1).await;
    let (shard, auction) = open_auction(&cluster, "chair", 3_600_000).await;
    let seq = bid(&cluster, shard, &auction, 3).await.seq;
    let leader = cluster.leader_of(shard).unwrap();
    // On a busy machine the clock may hold, and a declared hold is a version of its own: at least `seq`, then.
    for (node, running) in &cluster.running {
        let linear = running.host.read(shard, &auction, Fresh::Linear).await;
        match (*node == leader, linear) {
            // A busy machine may have held the clock meanwhile, which is an event too.
            (true, Ok(view)) => assert_eq!((view.seq >= seq, view.price), (true, 1_300)),
            (false, Err(ReadError::NotLeader { hint })) => assert_eq!(hint.map(|n| n.0), Some(leader)),
            (_, other) => panic!("node {node}, leader {leader}: {other:?}"),
        }
        let view = running.host.read(shard, &auction, Fresh::AtLeast(seq)).await.unwrap();
        assert_eq!((view.seq >= seq, view.price), (true, 1_300));
        let behind = running.host.read(shard, &auction, Fresh::AtLeast(seq + 1_000)).await;
        assert_eq!(behind, Err(ReadError::Behind));
        let other = common::id("no-such");
        assert_eq!(
            running.host.read(shard, &other, Fresh::AtLeast(0)).await,
            Err(ReadError::NotFound)
        );
    }
}

/// A node that is shut down gives its leaderships away first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_hands_over() {
    let mut cluster = Cluster::three(3).await;
    let (shard, auction) = open_auction(&cluster, "table", 3_600_000).await;
    assert_eq!(bid(&cluster, shard, &auction, 0).await.outcome, Ok(()));
    let leader = cluster.leader_of(shard).unwrap();
    cluster.stop(leader).await;
    cluster.until("another leads", |c| c.leader_of(shard).is_some()).await;
    assert_eq!(bid(&cluster, shard, &auction, 1).await.outcome, Ok(()));
}

/// An edge with another map is told so, and nothing is judged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_epoch_is_refused() {
    let cluster = Cluster::three(1).await;
    let host = &cluster.running[&1].host;
    let epoch = host.map().borrow().epoch;
    let start = command(
        &common::id("x"),
        "seller",
        "c",
        Action::Start { schedule_version: None },
    );
    let reply = host.submit(ShardId(1), epoch + 1, start).await;
    assert_eq!(reply, auction::Reply::WrongEpoch { epoch });
}

/// Shard 0 has lost its majority, so nobody can change the map: bids go on by the one that is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bids_go_on_without_the_map() {
    let mut cluster = Cluster::of(5, 2, RaftOptions::default());
    cluster.start_all().await;
    let (shard, auction) = open_auction(&cluster, "lamp", 3_600_000).await;
    assert_eq!(bid(&cluster, shard, &auction, 0).await.outcome, Ok(()));
    let map = cluster.map();
    let stay: Vec<u64> = map
        .replicas_of(shard)
        .iter()
        .take(2)
        .map(|replica| replica.0.0)
        .collect();
    for node in (1..=5).filter(|node| !stay.contains(node)) {
        cluster.crash(node).await;
    }
    for n in 1..8 {
        assert_eq!(bid(&cluster, shard, &auction, n).await.outcome, Ok(()), "bid {n}");
    }
    let refused = cluster.running[&stay[0]]
        .host
        .steer(ask(Change::Pause))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, SteerError::Unavailable(_) | SteerError::Unknown(_)),
        "shard 0 decides without a majority: {refused}"
    );
    assert_eq!(*cluster.map(), *map);
    assert_eq!(bid(&cluster, shard, &auction, 8).await.outcome, Ok(()));
    cluster.agree(shard).await;
}
