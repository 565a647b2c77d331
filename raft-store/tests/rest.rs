//! Shards that rest, on three real hosts: what wakes them, and that a dead leader is seen although nobody beats.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use auction::{Action, Limits, Phase};
use common::{Cluster, ask, bid, command, definition, id, open_auction};
use placement::{Change, NodeId, ShardId};
use raft_store::{Fresh, RaftOptions};
use std::{
    sync::atomic::Ordering,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Shards go to rest quickly here.
fn options() -> RaftOptions {
    RaftOptions {
        rest_after: Duration::from_millis(300),
        wake_ahead: Duration::from_secs(1),
        ..RaftOptions::default()
    }
}

async fn cluster(shards: u32) -> Cluster {
    let mut cluster = Cluster::new(shards, options());
    cluster.start_all().await;
    cluster
}

/// Every replica of every shard, on nodes that run.
async fn all_rest(cluster: &Cluster) {
    let resting = |c: &Cluster| c.statuses().iter().all(|(_, groups)| groups.iter().all(|g| g.resting));
    cluster.until("all shards rest", resting).await;
}

fn rests(cluster: &Cluster, shard: ShardId) -> bool {
    let statuses = cluster.statuses();
    let mut replicas = statuses
        .iter()
        .flat_map(|(_, groups)| groups)
        .filter(|g| g.shard == shard);
    replicas.any(|g| g.resting)
}

fn term(cluster: &Cluster, shard: ShardId) -> u64 {
    let statuses = cluster.statuses();
    let replicas = statuses
        .iter()
        .flat_map(|(_, groups)| groups)
        .filter(|g| g.shard == shard);
    replicas.map(|g| g.term).max().unwrap()
}

/// A shard of which nobody wants anything rests; a command wakes it; a live auction keeps it, and only it, awake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_auction_keeps_its_shard_awake_and_no_other() {
    let cluster = cluster(3).await;
    all_rest(&cluster).await;
    let (shard, auction) = open_auction(&cluster, "lamp", 3_600_000).await;
    assert_eq!(bid(&cluster, shard, &auction, 0).await.outcome, Ok(()));
    // The others go to rest again, if the commands' way touched them at all; long after that the shard is awake still.
    for n in 1..20 {
        let others = |c: &Cluster| (0..=3).map(ShardId).filter(|s| *s != shard).all(|s| rests(c, s));
        cluster.until("the others rest", others).await;
        assert!(!rests(&cluster, shard), "a live auction's shard rests");
        assert_eq!(bid(&cluster, shard, &auction, n).await.outcome, Ok(()));
    }
    let end = command(&auction, "seller", "end", Action::Cancel { reason: "over".into() });
    assert_eq!(cluster.say(shard, end).await.outcome, Ok(()));
    all_rest(&cluster).await;
    cluster.agree(shard).await;
}

/// Connections between the nodes of a cluster, each seen from the end that was dialled.
fn connections(cluster: &Cluster) -> usize {
    let ports: Vec<String> = cluster
        .founders
        .iter()
        .map(|node| node.grpc.rsplit(':').next().unwrap().to_owned())
        .collect();
    let ports: Vec<String> = ports
        .iter()
        .map(|port| format!(":{:04X}", port.parse::<u16>().unwrap()))
        .collect();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    // local address, remote address, state: 01 is established.
    let words = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words
        .filter(|w| w[3] == "01" && ports.iter().any(|port| w[1].ends_with(port.as_str())))
        .count()
}

/// Where all rests, the connections for the log go; the next command dials again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_for_the_log_rest_too() {
    let brisk = RaftOptions {
        link_rest: Duration::from_millis(500),
        ..options()
    };
    let mut cluster = Cluster::new(3, brisk);
    cluster.start_all().await;
    let (shard, auction) = open_auction(&cluster, "lamp", 3_600_000).await;
    for n in 0..2 {
        assert_eq!(bid(&cluster, shard, &auction, n).await.outcome, Ok(()));
        let busy = connections(&cluster);
        let end = command(
            &auction,
            "seller",
            &format!("pause-{n}"),
            Action::Pause { for_ms: None },
        );
        assert_eq!(cluster.say(shard, end).await.outcome, Ok(()));
        all_rest(&cluster).await;
        // Each node keeps one connection to each other for its pulses.
        cluster.until("the log's are gone", |c| connections(c) == 6).await;
        assert!(busy > 6, "{busy} connections while the shard was awake");
        let resume = command(&auction, "seller", &format!("resume-{n}"), Action::Resume);
        assert_eq!(cluster.say(shard, resume).await.outcome, Ok(()));
    }
    cluster.agree(shard).await;
}

/// The leader of a shard that rests dies: nobody hears it, its node's lease tells, and another leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_of_a_shard_at_rest_is_seen() {
    let mut cluster = cluster(4).await;
    let (shard, auction) = open_auction(&cluster, "vase", 3_600_000).await;
    let end = command(&auction, "seller", "end", Action::Cancel { reason: "over".into() });
    assert_eq!(cluster.say(shard, end).await.outcome, Ok(()));
    all_rest(&cluster).await;
    let first = cluster.leader_of(shard).unwrap();
    cluster.crash(first).await;
    // Nothing is asked of it: it finds a new leader by itself.
    cluster.until("another leads", |c| c.leader_of(shard).is_some()).await;
    assert_ne!(cluster.leader_of(shard), Some(first));
    // With a node away the shards rest all the same: of the replicas that are there.
    all_rest(&cluster).await;
    cluster.start(first).await;
    cluster
        .until("the returned node is ready", |c| c.running[&first].host.ready())
        .await;
    cluster.agree(shard).await;
    all_rest(&cluster).await;
}

/// A command that goes to a leader elsewhere wakes the replica that it passes, and the leader, whom nobody unseats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_wanted_wakes_and_keeps_its_leader() {
    let cluster = cluster(2).await;
    all_rest(&cluster).await;
    let shard = ShardId(1);
    let (leader, before) = (cluster.leader_of(shard).unwrap(), term(&cluster, shard));
    let edge = (1..=3).find(|node| *node != leader).unwrap();
    cluster.running[&leader].host.wanted(shard);
    assert!(rests(&cluster, shard), "the leader's own node needs no such word");
    cluster.running[&edge].host.wanted(shard);
    let awake = |node: u64| {
        move |c: &Cluster| {
            let statuses = c.statuses();
            let of_node = statuses.iter().find(|(id, _)| *id == node).unwrap();
            of_node.1.iter().any(|g| g.shard == shard && !g.resting)
        }
    };
    assert!(awake(edge)(&cluster));
    cluster.until("the leader is awake, too", awake(leader)).await;
    all_rest(&cluster).await;
    assert_eq!(
        (cluster.leader_of(shard), term(&cluster, shard)),
        (Some(leader), before)
    );
}

/// A leader whose process has ended is inherited from at once: with a lease of ten minutes nobody could stand otherwise.
/// Of a live shard and of one at rest, twice over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_has_ended_is_inherited_from() {
    let patient = RaftOptions {
        election_max: Duration::from_secs(600),
        ..options()
    };
    let mut cluster = Cluster::new(4, patient);
    cluster.start_all().await;
    let (shard, auction) = open_auction(&cluster, "lamp", 3_600_000).await;
    for n in 0..2 {
        assert_eq!(bid(&cluster, shard, &auction, 2 * n).await.outcome, Ok(()));
        let leader = cluster.leader_of(shard).unwrap();
        cluster.crash(leader).await;
        cluster
            .until("all shards are led", |c| {
                (0..=4).all(|s| c.leader_of(ShardId(s)).is_some())
            })
            .await;
        assert_ne!(cluster.leader_of(shard), Some(leader));
        assert_eq!(bid(&cluster, shard, &auction, 2 * n + 1).await.outcome, Ok(()));
        cluster.start(leader).await;
        cluster
            .until("the returned node is ready", |c| c.running[&leader].host.ready())
            .await;
    }
    cluster.agree(shard).await;
}

/// The leader's process is gone and back before its silence is noticed: another life leads nothing, and that is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_life_of_the_leader_is_no_leader() {
    let mut cluster = cluster(2).await;
    all_rest(&cluster).await;
    let leader = cluster.leader_of(ShardId(1)).unwrap();
    cluster.crash(leader).await;
    cluster.start(leader).await;
    let (shard, auction) = open_auction(&cluster, "clock", 3_600_000).await;
    assert_eq!(bid(&cluster, shard, &auction, 0).await.outcome, Ok(()));
    cluster
        .until("all shards are led", |c| {
            (0..=2).all(|s| c.leader_of(ShardId(s)).is_some())
        })
        .await;
}

/// A follower that comes back hears who leads before it stands: nobody is unseated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_unseats_nobody() {
    let mut cluster = cluster(1).await;
    let shard = ShardId(1);
    all_rest(&cluster).await;
    let (leader, before) = (cluster.leader_of(shard).unwrap(), term(&cluster, shard));
    let away = (1..=3).find(|node| *node != leader).unwrap();
    cluster.crash(away).await;
    all_rest(&cluster).await;
    cluster.start(away).await;
    cluster
        .until("the returned node is ready", |c| c.running[&away].host.ready())
        .await;
    all_rest(&cluster).await;
    assert_eq!(
        (cluster.leader_of(shard), term(&cluster, shard)),
        (Some(leader), before)
    );
}

/// A replica whose state is another one at the same place of the log stops, and says why. Planted: one node forgets
/// refusals at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_diverged_stops_its_replica() {
    let mut cluster = Cluster::new(1, options());
    let forgetful = Limits {
        refusals_ms: 1,
        ..Limits::default()
    };
    cluster.odd = Some((3, forgetful));
    cluster.start_all().await;
    let (shard, auction) = open_auction(&cluster, "lamp", 3_600_000).await;
    // What isn't paused can't be resumed, which the log says; the others remember it.
    let resume = command(&auction, "seller", "resume", Action::Resume);
    assert!(cluster.say(shard, resume).await.outcome.is_err());
    // Bids move the clock on, and one node forgets.
    let digests = |c: &Cluster| -> Vec<_> { c.running.values().map(|r| r.host.digest(shard)).collect() };
    let mut differ = false;
    for n in 0..2_000 {
        if differ {
            break;
        }
        assert_eq!(bid(&cluster, shard, &auction, n).await.outcome, Ok(()));
        // Followers hear of a commit a moment after the bidder.
        let at_one_place = |c: &Cluster| {
            let digests = digests(c);
            let applied: Vec<_> = digests.iter().map(|d| d.map(|d| d.0)).collect();
            differ = digests.iter().any(|d| *d != digests[0]);
            applied.iter().all(|at| *at == applied[0])
        };
        cluster.until("all are at one place of the log", at_one_place).await;
    }
    assert!(differ, "the plant doesn't take");
    let end = Action::Cancel { reason: "over".into() };
    assert_eq!(
        cluster
            .say(shard, command(&auction, "seller", "end", end))
            .await
            .outcome,
        Ok(())
    );
    // Going to rest, they compare. Whoever asks, the others find the difference.
    let failed = cluster.running.values().map(|running| Box::pin(running.host.failed()));
    let (why, ..) = tokio::time::timeout(common::PATIENCE, futures_util::future::select_all(failed))
        .await
        .expect("nobody noticed");
    assert!(why.contains("diverged") && why.contains("shard 1"), "{why}");
}

/// A leadership goes back to the node that should have it, when that node is back and nothing is to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_goes_home() {
    let mut cluster = Cluster::new(
        2,
        RaftOptions {
            home_after: Duration::from_millis(500),
            ..options()
        },
    );
    cluster.start_all().await;
    let shard = ShardId(1);
    let home = cluster.running[&1]
        .host
        .map()
        .borrow()
        .preferred_leader(shard)
        .unwrap()
        .0;
    cluster
        .until("it is led from home", |c| c.leader_of(shard) == Some(home))
        .await;
    cluster.crash(home).await;
    cluster.until("another leads", |c| c.leader_of(shard).is_some()).await;
    cluster.start(home).await;
    cluster
        .until("it came home", |c| c.leader_of(shard) == Some(home))
        .await;
    all_rest(&cluster).await;
    assert_eq!(cluster.leader_of(shard), Some(home));
}

/// A scheduled start wakes its shard in time, though the leader that took the schedule is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_start_wakes_its_shard() {
    let mut cluster = cluster(1).await;
    let (shard, auction) = (ShardId(1), id("lamp"));
    let create = Action::Create(Box::new(definition(3_600_000)));
    assert_eq!(
        cluster
            .say(shard, command(&auction, "seller", "c", create))
            .await
            .outcome,
        Ok(())
    );
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let schedule = Action::Schedule {
        start_wall_ms: wall + 6_000,
    };
    assert_eq!(
        cluster
            .say(shard, command(&auction, "seller", "s", schedule))
            .await
            .outcome,
        Ok(())
    );
    all_rest(&cluster).await;
    let leader = cluster.leader_of(shard).unwrap();
    cluster.crash(leader).await;
    let live = |c: &Cluster| {
        let host = &c.running.values().next().unwrap().host;
        let view = futures_util::FutureExt::now_or_never(host.read(shard, &auction, Fresh::AtLeast(0)));
        view.is_some_and(|view| view.unwrap().phase == Phase::Live)
    };
    cluster.until("the auction starts", live).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(now >= wall + 6_000, "it started {} ms early", wall + 6_000 - now);
    assert!(!rests(&cluster, shard));
}

/// Who has named the next leader takes nothing any more, and speaks no heartbeat that would wake who rests. When that next
/// one is cut off at this very moment, another is named: the shard doesn't stand still until somebody restarts a node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_to_whoever_is_cut_off_leaves_no_mute_leader() {
    let cluster = cluster(1).await;
    for led in [ShardId::META, ShardId(1)] {
        all_rest(&cluster).await;
        let old = cluster.leader_of(led).unwrap();
        let heir = (1..=3).find(|id| *id != old).unwrap();
        cluster.between.cut.store(heir, Ordering::Relaxed);
        let host = &cluster.running[&old].host;
        let before = term(&cluster, led);
        // Refused, or done by the third node already.
        let _ = host.hand_over(led, NodeId(old), Some(NodeId(heir))).await;
        if led == ShardId::META {
            host.steer(ask(Change::Pause)).await.unwrap();
        } else {
            open_auction(&cluster, "cup", 1_000).await;
        }
        assert!(term(&cluster, led) > before, "{led:?}");
        cluster.between.cut.store(0, Ordering::Relaxed);
    }
}
