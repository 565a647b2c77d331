//! A shard founded anew between real hosts: closed first, gone on with after whatever broke off, nothing of before taken for
//! what comes after.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use auction::{FeedItem, Position};
use common::{Cluster, PATIENCE, bid, open_auction};
use futures_util::StreamExt;
use placement::ShardId;
use raft_store::{Fresh, Host, RefoundError, Source};

fn host(cluster: &Cluster, node: u64) -> Host {
    cluster.running[&node].host.clone()
}

/// What a founding does first; then, as far as anybody can tell, it dies.
async fn only_sealed(cluster: &Cluster, shard: ShardId, node: u64) {
    cluster.seal(shard, node).await;
    closed(cluster, shard).await;
}

async fn closed(cluster: &Cluster, shard: ShardId) {
    cluster
        .until("the shard is closed everywhere", |cluster| {
            let open = |host: &Host| host.status().iter().any(|group| group.shard == shard);
            let knows = |host: &Host| host.map().borrow().is_sealed(shard);
            cluster.running.values().all(|r| knows(&r.host) && !open(&r.host))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_broke_off_after_the_seal_stays_closed_over_restarts_and_is_gone_on_with() {
    let mut cluster = Cluster::three(2).await;
    let (shard, lamp) = open_auction(&cluster, "lamp", 600_000).await;
    assert_eq!(bid(&cluster, shard, &lamp, 1).await.outcome, Ok(()));
    // Nobody guards this founding: its survivor must have what a majority has.
    cluster.agree(shard).await;
    only_sealed(&cluster, shard, 2).await;
    let before = cluster.map();
    for node in 1..=3 {
        cluster.crash(node).await;
    }
    cluster.start_all().await;
    closed(&cluster, shard).await;

    let founded = host(&cluster, 2)
        .refound(shard, Source::Survivor, "test", Some("again"))
        .await;
    let founded = founded.unwrap();
    assert_eq!(
        founded.replica, before.steering.sealed[&shard].replica,
        "it goes on as the same"
    );
    assert!(
        !before
            .replicas_of(shard)
            .iter()
            .any(|replica| replica.1 == founded.replica),
        "a fresh id"
    );
    cluster.three_again(shard).await;
    assert_eq!(bid(&cluster, shard, &lamp, 2).await.outcome, Ok(()));
    cluster.agree(shard).await;
    let view = host(&cluster, 2).read(shard, &lamp, Fresh::AtLeast(3)).await.unwrap();
    let cuts: Vec<u64> = view.cuts.iter().map(|cut| cut.0).collect();
    assert_eq!(
        (view.bids, view.price, cuts),
        (2, 1_200, vec![founded.epoch]),
        "all that was acknowledged, and the cut"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_before_starts_again_from_a_snapshot() {
    let cluster = Cluster::three(2).await;
    let (shard, lamp) = open_auction(&cluster, "lamp", 600_000).await;
    assert_eq!(bid(&cluster, shard, &lamp, 1).await.outcome, Ok(()));
    let (_, image) = {
        let leader = cluster.leader_of(shard).unwrap();
        host(&cluster, leader).image(shard).await.unwrap()
    };
    // In no image: its number will be another event's.
    assert_eq!(bid(&cluster, shard, &lamp, 2).await.outcome, Ok(()));
    let one = host(&cluster, 1);
    let refused = one.refound(shard, Source::Image(image.clone()), "test", None).await;
    assert_eq!(refused, Err(RefoundError::NotEmpty(shard)));
    let founded = one
        .refound(shard, Source::Image(image), "test", Some("a drill"))
        .await
        .unwrap();
    cluster.three_again(shard).await;
    assert_eq!(bid(&cluster, shard, &lamp, 4).await.outcome, Ok(()));
    cluster.agree(shard).await;
    for node in 1..=3 {
        let there = host(&cluster, node);
        let old = Position { epoch: 1, offset: 3 };
        let mut feed = there.follow(shard, &lamp, Some(old)).await.unwrap();
        let first = tokio::time::timeout(PATIENCE, feed.next()).await.unwrap().unwrap();
        let FeedItem::Snapshot { position, view } = first else {
            panic!("node {node} goes on as if nothing had been: {first:?}")
        };
        assert_eq!((position.epoch, view.price), (founded.epoch, 1_400), "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_majority_has_is_not_given_up_and_a_bad_image_closes_nothing() {
    let cluster = Cluster::three(2).await;
    let (shard, lamp) = open_auction(&cluster, "lamp", 600_000).await;
    let one = host(&cluster, 1);
    let refused = one.refound(shard, Source::Survivor, "test", Some("x")).await;
    assert_eq!(refused, Err(RefoundError::QuorumThere { shard, there: 3, of: 3 }));
    let refused = one.refound(ShardId::META, Source::Survivor, "test", Some("x")).await;
    assert!(matches!(refused, Err(RefoundError::QuorumThere { .. })), "{refused:?}");
    let (_, image) = {
        let leader = cluster.leader_of(shard).unwrap();
        host(&cluster, leader).image(shard).await.unwrap()
    };
    let cut = image.slice(..image.len() - 3);
    let refused = one.refound(shard, Source::Image(cut), "test", Some("x")).await;
    assert!(matches!(refused, Err(RefoundError::Unsound(_))), "{refused:?}");
    assert!(!cluster.map().is_sealed(shard));
    assert_eq!(bid(&cluster, shard, &lamp, 1).await.outcome, Ok(()), "it never stopped");
}
