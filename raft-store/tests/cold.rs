//! Settled auctions between real hosts on real disks: they leave memory, and nobody can tell but by the memory. Whoever comes later
//! gets them; what is damaged is replaced; backups have them all.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use auction::{Action, AuctionId, AuctionView, Event, FeedItem, Outcome, Phase, Position, Reason, Reply, verify};
use common::{Cluster, PATIENCE, bid, command, definition, id, open_auction};
use futures_util::StreamExt;
use placement::{NodeId, ShardId};
use raft_store::{Fresh, Host, RaftOptions, ReadError, RefoundError, Source};
use std::{path::PathBuf, sync::Arc, time::Duration};

const SHARD: ShardId = ShardId(1);
const BIDS: u64 = 4;

/// Settled auctions leave memory soon, and a log is compacted soon.
fn quick() -> RaftOptions {
    RaftOptions {
        cold_after: Duration::from_millis(200),
        snapshot_bytes: 64 * 1024,
        keep_bytes: 0,
        ..RaftOptions::default()
    }
}

fn host(cluster: &Cluster, node: u64) -> &Host {
    &cluster.running[&node].host
}

fn name(n: usize) -> AuctionId {
    id(&format!("lot-{n:03}"))
}

/// Auctions that are over, with a long description each.
async fn finish(cluster: &Cluster, from: usize, many: usize) {
    for n in from..from + many {
        let mut definition = definition(3_600_000);
        definition.description = "x".repeat(3_000);
        let create = command(&name(n), "seller", "create", Action::Create(Box::new(definition)));
        let start = command(&name(n), "seller", "start", Action::Start { schedule_version: None });
        for one in [create, start] {
            assert_eq!(cluster.say(SHARD, one).await.outcome, Ok(()), "{}", name(n));
        }
        for k in 1..=BIDS {
            assert_eq!(bid(cluster, SHARD, &name(n), k).await.outcome, Ok(()));
        }
        let end = command(&name(n), "seller", "end", Action::Cancel { reason: "over".into() });
        assert_eq!(cluster.say(SHARD, end).await.outcome, Ok(()));
    }
}

fn cold(cluster: &Cluster, node: u64) -> u64 {
    let Some(running) = cluster.running.get(&node) else {
        return 0;
    };
    let status = running.host.status();
    let group = status.iter().find(|group| group.shard == SHARD);
    group.map_or(0, |group| group.cold)
}

async fn paged_out(cluster: &Cluster, nodes: &[u64], many: u64) {
    cluster
        .until("they have left memory", |c| {
            nodes.iter().all(|node| cold(c, *node) == many)
        })
        .await;
}

/// What an auction is, wherever one looks.
async fn look(host: &Host, auction: &AuctionId) -> (AuctionView, Vec<Arc<Event>>) {
    let view = host.read(SHARD, auction, Fresh::AtLeast(0)).await.unwrap();
    let events = host.events(SHARD, auction, 0, usize::MAX).await.unwrap();
    let lines = events.iter().map(|event| verify::Line::from(&**event));
    verify::verify(&verify::Head::from(&view), lines).unwrap_or_else(|broken| panic!("{auction}: {broken:?}"));
    (view, events)
}

type Known = Vec<(AuctionView, Vec<Arc<Event>>)>;

async fn all(host: &Host, many: usize) -> Known {
    let mut known = Vec::new();
    for n in 0..many {
        known.push(look(host, &name(n)).await);
    }
    known
}

/// Everything of the auctions is as it was, on every node.
async fn unchanged(cluster: &Cluster, known: &Known) {
    for (node, running) in &cluster.running {
        assert_eq!(&all(&running.host, known.len()).await, known, "node {node}");
        let mut listed: Vec<AuctionId> = Vec::new();
        loop {
            let page = running.host.over(SHARD, listed.last(), 7).unwrap();
            assert!(page.len() <= 7);
            listed.extend_from_slice(&page);
            if page.is_empty() {
                break;
            }
        }
        let over: Vec<AuctionId> = known.iter().map(|(view, _)| view.id.clone()).collect();
        assert_eq!(listed, over, "node {node}");
    }
}

/// Commands about what is settled get the first verdict, or are refused for good.
async fn answers(cluster: &Cluster, auction: &AuctionId) {
    let first = bid(cluster, SHARD, auction, BIDS).await;
    assert_eq!(
        (first.outcome, first.dup, first.seq),
        (Ok(()), true, BIDS + 1),
        "its first verdict"
    );
    let late = bid(cluster, SHARD, auction, 99).await;
    assert_eq!((late.outcome, late.dup), (Err(Reason::Closed), false));
    let again = command(
        auction,
        "other",
        "create-2",
        Action::Create(Box::new(definition(60_000))),
    );
    assert_eq!(cluster.say(SHARD, again).await.outcome, Err(Reason::Taken));
    let other = command(auction, "seller", "end", Action::Resume);
    assert_eq!(cluster.say(SHARD, other).await.outcome, Err(Reason::DupBody));
}

async fn short(host: &Host, auction: &AuctionId, from: Option<Position>, many: usize) -> Vec<String> {
    let feed = host.follow(SHARD, auction, from).await.unwrap();
    let word = |item| match item {
        FeedItem::Snapshot { view, .. } => format!("s{}", view.seq),
        FeedItem::Event(event) => event.seq.to_string(),
        FeedItem::Changed(_) => "c".into(),
    };
    tokio::time::timeout(PATIENCE, feed.take(many).map(word).collect())
        .await
        .unwrap()
}

fn snapshot_bytes(cluster: &Cluster, node: u64) -> u64 {
    let path = cluster.folder(node).join("snapshots/shard-0001.snap");
    path.metadata().map_or(0, |file| file.len())
}

fn records(cluster: &Cluster, node: u64, ending: &str) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(cluster.folder(node).join("cold"))
        .ok()?
        .flatten()
        .map(|file| file.path());
    files.find(|path| path.to_string_lossy().contains("shard-0001-") && path.extension().is_some_and(|e| e == ending))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_left_memory_is_as_it_was_over_restarts_and_leaders() {
    let mut cluster = Cluster::new(1, quick());
    cluster.start_all().await;
    finish(&cluster, 0, 60).await;
    let (_, live) = open_auction(&cluster, "live", 3_600_000).await;
    cluster.agree(SHARD).await;
    let known = all(host(&cluster, 1), 60).await;
    paged_out(&cluster, &[1, 2, 3], 60).await;
    unchanged(&cluster, &known).await;
    answers(&cluster, &name(7)).await;
    let end = BIDS as usize + 2;
    for node in 1..=3 {
        let host = host(&cluster, node);
        let from = Some(Position { epoch: 1, offset: 2 });
        assert_eq!(short(host, &name(3), None, 1).await, [format!("s{end}")]);
        assert_eq!(
            short(host, &name(3), from, end - 2).await,
            (3..=end).map(|n| n.to_string()).collect::<Vec<_>>()
        );
        let page = host.events(SHARD, &name(3), 2, 2).await.unwrap();
        assert_eq!(page.iter().map(|event| event.seq).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(
            host.read(SHARD, &id("none"), Fresh::AtLeast(0)).await,
            Err(ReadError::NotFound)
        );
    }
    cluster.agree(SHARD).await;
    // Each dies once, the leader too, and comes back from a snapshot and what comes after it in the log.
    for node in 1..=3 {
        cluster.crash(node).await;
        assert_eq!(bid(&cluster, SHARD, &live, node).await.outcome, Ok(()));
        answers(&cluster, &name(11)).await;
        cluster.start(node).await;
        cluster.agree(SHARD).await;
    }
    paged_out(&cluster, &[1, 2, 3], 60).await;
    unchanged(&cluster, &known).await;
    answers(&cluster, &name(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_does_not_grow_with_history_and_who_comes_later_gets_it_all() {
    let mut cluster = Cluster::new(1, quick());
    cluster.start_all().await;
    let mut sizes = Vec::new();
    cluster.stop(3).await;
    for round in 0..3 {
        finish(&cluster, round * 40, 40).await;
        paged_out(&cluster, &[1, 2], 40 * (round as u64 + 1)).await;
        // What comes after the page-out makes the next snapshot.
        let before = [1, 2].map(|node| snapshot_index(&cluster, node));
        let mut n = 0;
        while [1, 2].map(|node| snapshot_index(&cluster, node)) <= before.map(|index| index + 1) {
            let mut definition = definition(60_000);
            definition.description = "x".repeat(3_000);
            let draft = id("draft");
            let action = if round + n == 0 {
                Action::Create(Box::new(definition))
            } else {
                // Where it was judged it is known; others may be a moment behind.
                let version = host(&cluster, cluster.leader_of(SHARD).unwrap())
                    .read(SHARD, &draft, Fresh::AtLeast(0))
                    .await
                    .unwrap()
                    .version;
                Action::Edit {
                    version,
                    definition: Box::new(definition),
                }
            };
            cluster
                .say(SHARD, command(&draft, "seller", &format!("d{round}-{n}"), action))
                .await;
            n += 1;
        }
        sizes.push(snapshot_bytes(&cluster, 1));
    }
    assert!(sizes[2] < 40 * 3_000 && sizes[2] < sizes[0] + 40_000, "{sizes:?}");
    let known = all(host(&cluster, 1), 120).await;
    cluster.start(3).await;
    cluster.agree(SHARD).await;
    assert!(
        cold(&cluster, 3) >= 40,
        "they came with the snapshot: {}",
        cold(&cluster, 3)
    );
    paged_out(&cluster, &[1, 2, 3], 120).await;
    unchanged(&cluster, &known).await;
    // It can give them on, too.
    for node in [1, 2] {
        cluster.crash(node).await;
        cluster.start(node).await;
        cluster.agree(SHARD).await;
    }
    unchanged(&cluster, &known).await;
}

fn snapshot_index(cluster: &Cluster, node: u64) -> u64 {
    let status = host(cluster, node).status();
    status
        .iter()
        .find(|group| group.shard == SHARD)
        .map_or(0, |group| group.snapshot)
}

/// A transfer is cut in the middle of the records: another sender goes on from the one that is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_dies_among_the_records_is_followed_by_another() {
    let slow = RaftOptions {
        snapshot_bytes_per_s: 128 * 1024,
        snapshot_piece: 16 * 1024,
        ..quick()
    };
    let mut cluster = Cluster::new(1, slow);
    cluster.start_all().await;
    cluster.stop(3).await;
    finish(&cluster, 0, 80).await;
    paged_out(&cluster, &[1, 2], 80).await;
    finish(&cluster, 80, 30).await;
    paged_out(&cluster, &[1, 2], 110).await;
    cluster
        .until("both have compacted their logs", |c| {
            [1, 2].iter().all(|node| {
                host(c, *node)
                    .status()
                    .iter()
                    .any(|g| g.shard == SHARD && g.purged > 300)
            })
        })
        .await;
    let known = all(host(&cluster, 1), 110).await;
    cluster.start(3).await;
    cluster
        .until("some records are there", |c| {
            records(c, 3, "cidx").is_some_and(|path| path.metadata().is_ok_and(|file| file.len() > 128 * 5))
        })
        .await;
    let sender = cluster.leader_of(SHARD).unwrap();
    cluster.crash(sender).await;
    cluster.agree(SHARD).await;
    cluster.start(sender).await;
    cluster.agree(SHARD).await;
    paged_out(&cluster, &[1, 2, 3], 110).await;
    unchanged(&cluster, &known).await;
}

/// Bits rot in the records of one replica: what is damaged is never served, and once that was seen the replica is replaced at its
/// next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_records_are_damaged_is_replaced_under_a_fresh_id() {
    let mut cluster = Cluster::new(1, quick());
    cluster.start_all().await;
    finish(&cluster, 0, 40).await;
    paged_out(&cluster, &[1, 2, 3], 40).await;
    finish(&cluster, 40, 20).await;
    paged_out(&cluster, &[1, 2, 3], 60).await;
    cluster
        .until("a snapshot names some", |c| snapshot_index(c, 3) > 260)
        .await;
    let known = all(host(&cluster, 1), 60).await;
    // While it runs: the middle of a record.
    let path = records(&cluster, 3, "cold").unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16 + 2_000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let read = host(&cluster, 3).read(SHARD, &name(0), Fresh::AtLeast(0)).await;
    assert_eq!(read, Err(ReadError::Damaged), "never served");
    let events = host(&cluster, 3).events(SHARD, &name(0), 0, 9).await;
    assert_eq!(events, Err(ReadError::Damaged));
    let feed = host(&cluster, 3).follow(SHARD, &name(0), None).await;
    assert_eq!(feed.err(), Some(ReadError::Damaged), "it is there, and can't be read");
    let late = command(&name(0), "ann", "late", Action::Bid { amount: 999 });
    let epoch = cluster.map().epoch;
    let told = host(&cluster, 3).submit(SHARD, epoch, late).await;
    assert_eq!(
        told,
        Reply::NotJudged,
        "what can't be read isn't logged: this node goes on"
    );
    assert_eq!(look(host(&cluster, 2), &name(0)).await, known[0], "another has it");
    answers(&cluster, &name(1)).await;

    let before = cluster.map().seat_on(SHARD, NodeId(3)).unwrap();
    cluster.crash(3).await;
    cluster.start(3).await;
    cluster
        .until("it has a fresh replica", |c| {
            let now = c.map().seat_on(SHARD, NodeId(3));
            now.is_some_and(|replica| replica != before) && host(c, 3).ready()
        })
        .await;
    cluster.agree(SHARD).await;
    paged_out(&cluster, &[1, 2, 3], 60).await;
    unchanged(&cluster, &known).await;
    let own = format!(
        "shard-0001-{:x}.cold",
        cluster.map().seat_on(SHARD, NodeId(3)).unwrap().0
    );
    assert!(
        records(&cluster, 3, "cold").unwrap().ends_with(own),
        "nothing of the old one is left"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_and_survivors_have_them_all() {
    let mut cluster = Cluster::new(1, quick());
    cluster.start_all().await;
    finish(&cluster, 0, 30).await;
    let (_, live) = open_auction(&cluster, "live", 3_600_000).await;
    assert_eq!(bid(&cluster, SHARD, &live, 1).await.outcome, Ok(()));
    paged_out(&cluster, &[1, 2, 3], 30).await;
    let known = all(host(&cluster, 1), 30).await;
    let leader = cluster.leader_of(SHARD).unwrap();
    let (proven, image) = loop {
        let (proven, image) = host(&cluster, leader).image(SHARD).await.unwrap();
        // A live auction's shard beats: both must be of the same entry.
        let (index, digest) = host(&cluster, leader).digest(SHARD).unwrap();
        if index == proven.index {
            assert_eq!(proven.digest, digest);
            break (proven, image);
        }
    };
    assert_eq!((proven.auctions, proven.events), (31, 30 * (BIDS + 2) + 2));
    // A restore.
    assert_eq!(bid(&cluster, SHARD, &live, 2).await.outcome, Ok(()));
    let one = host(&cluster, 1).clone();
    let founded = one
        .refound(SHARD, Source::Image(image), "test", Some("a drill"))
        .await
        .unwrap();
    assert_eq!(founded.auctions, 31);
    cluster.three_again(SHARD).await;
    paged_out(&cluster, &[1, 2, 3], 30).await;
    unchanged(&cluster, &known).await;
    answers(&cluster, &name(4)).await;
    // What one of them has when the others are gone.
    for node in [2, 3] {
        cluster.crash(node).await;
    }
    let one = host(&cluster, 1).clone();
    let founded = one.refound(SHARD, Source::Survivor, "test", Some("two are gone")).await;
    assert!(founded.is_err(), "shard 0 has no majority either: {founded:?}");
    for node in [2, 3] {
        cluster.start(node).await;
    }
    cluster.seal(SHARD, 1).await;
    let founded = one
        .refound(SHARD, Source::Survivor, "test", Some("two are gone"))
        .await
        .unwrap();
    assert_eq!(founded.auctions, 31);
    cluster.three_again(SHARD).await;
    paged_out(&cluster, &[1, 2, 3], 30).await;
    unchanged(&cluster, &known).await;
    let view = one.read(SHARD, &name(3), Fresh::AtLeast(0)).await.unwrap();
    assert_eq!(view.phase, Phase::Closed(Outcome::Cancelled));
}

/// The last that has an acknowledged bid is shut, as it can't read all that is over: its log counts where a shard is founded anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shut_replica_with_the_longer_log_is_not_passed_over() {
    let (shut, open, gone) = (1, 2, 3);
    let mut cluster = Cluster::new(1, quick());
    cluster.start_all().await;
    finish(&cluster, 0, 40).await;
    paged_out(&cluster, &[1, 2, 3], 40).await;
    finish(&cluster, 40, 20).await;
    paged_out(&cluster, &[1, 2, 3], 60).await;
    cluster
        .until("a snapshot names some", |c| snapshot_index(c, shut) > 260)
        .await;
    let (_, live) = open_auction(&cluster, "live", 3_600_000).await;
    assert_eq!(bid(&cluster, SHARD, &live, 1).await.outcome, Ok(()));
    cluster.agree(SHARD).await;
    cluster.crash(open).await;
    assert_eq!(bid(&cluster, SHARD, &live, 2).await.outcome, Ok(()), "not known there");
    cluster.crash(gone).await;
    let over = look(host(&cluster, shut), &name(0)).await;
    let path = records(&cluster, shut, "cold").unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16 + 2_000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let read = host(&cluster, shut).read(SHARD, &name(0), Fresh::AtLeast(0)).await;
    assert_eq!(read, Err(ReadError::Damaged));
    cluster.crash(shut).await;
    cluster.start(open).await;
    cluster.start(shut).await;
    cluster
        .until("the map is led and one replica is open", |c| {
            let has = |node| host(c, node).status().iter().any(|group| group.shard == SHARD);
            c.leader_of(ShardId::META).is_some() && has(open) && !has(shut)
        })
        .await;

    let why = Some("its disk burnt");
    let refused = host(&cluster, open).refound(SHARD, Source::Survivor, "test", why).await;
    let Err(RefoundError::Shorter { node, theirs, ours }) = refused else {
        panic!("an acknowledged bid was given up: {refused:?}")
    };
    assert_eq!(node, NodeId(shut));
    assert!(theirs > ours && ours > 0, "{theirs} {ours}");
    assert!(!cluster.map().is_sealed(SHARD), "nothing was closed");
    let founded = host(&cluster, shut).refound(SHARD, Source::Survivor, "test", why).await;
    let founded = founded.unwrap();
    assert!(
        founded.lost.is_empty(),
        "what was hit is kept twice: {:?}",
        founded.lost
    );
    assert_eq!(look(host(&cluster, shut), &name(0)).await, over);
    let view = host(&cluster, shut).read(SHARD, &live, Fresh::Linear).await.unwrap();
    assert_eq!((view.bids, view.price), (2, 1_200), "all that was acknowledged");
}
