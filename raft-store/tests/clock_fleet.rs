//! Nodes with wrong clocks, on three real hosts: found by their peers, led around, and back when they are good again.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use auction::{Action, Phase};
use common::{Cluster, bid, command, definition, id, open_auction};
use placement::{NodeId, ShardId};
use raft_store::{
    Fresh, RaftOptions, Unfit,
    clock::{
        Time, compare,
        time::{self, Source},
    },
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A machine's clocks that can be set wrong while it runs.
#[derive(Debug)]
struct Crystal {
    real: time::Time,
    /// Since real µs, at own µs, by so many parts per million of real time.
    run: Mutex<(u64, u64, u64)>,
    wall_ahead_us: AtomicU64,
}

const RIGHT: u64 = 1_000_000;

impl Crystal {
    fn new() -> Arc<Crystal> {
        Arc::new(Crystal {
            real: Time::default(),
            // Steps back must not reach 0.
            run: Mutex::new((0, 100_000_000, RIGHT)),
            wall_ahead_us: AtomicU64::new(0),
        })
    }

    /// From now on at another rate, after a step.
    fn set(&self, rate_ppm: u64, step_us: i64) {
        let now = self.mono_us();
        *self.run.lock().unwrap() = (self.real.mono_us(), now.checked_add_signed(step_us).unwrap(), rate_ppm);
    }
}

impl Source for Crystal {
    fn mono_us(&self) -> u64 {
        let (since, own, ppm) = *self.run.lock().unwrap();
        own + (self.real.mono_us() - since) * ppm / 1_000_000
    }

    fn wall_us(&self) -> u64 {
        self.real.wall_us() + self.wall_ahead_us.load(Ordering::Relaxed)
    }
}

const ODD: u64 = 2;
const SHARDS: u32 = 6;

/// Three nodes, of which one has the clock given.
async fn cluster(crystal: &Arc<Crystal>) -> Cluster {
    let raft = RaftOptions {
        home_after: Duration::from_millis(200),
        ..RaftOptions::default()
    };
    let mut cluster = Cluster::new(SHARDS, raft);
    cluster.times.insert(ODD, Time::of(crystal.clone()));
    // A shorter memory, so that the test needn't wait for the full one.
    cluster.compare = compare::Options {
        window_ms: 2_000,
        slot_ms: 100,
        ..compare::Options::default()
    };
    cluster.start_all().await;
    cluster
        .until("the odd node leads", |c| !led_by(c, ODD).is_empty())
        .await;
    cluster
}

fn led_by(cluster: &Cluster, node: u64) -> BTreeSet<ShardId> {
    let all = (0..=SHARDS).map(ShardId);
    all.filter(|shard| cluster.leader_of(*shard) == Some(node)).collect()
}

fn reasons(cluster: &Cluster, node: u64) -> Vec<Unfit> {
    let clock = cluster.running[&node].host.clock();
    clock.unfit.iter().map(|(reason, _)| *reason).collect()
}

/// Has a node lead a shard, as an operator would.
async fn give(cluster: &Cluster, shard: ShardId, node: u64) {
    while cluster.leader_of(shard) != Some(node) {
        if let Some(leader) = cluster.leader_of(shard) {
            let host = &cluster.running[&leader].host;
            // Refused while a replica lags or is thought unfit: asked again.
            let _ = host.hand_over(shard, NodeId(leader), Some(NodeId(node))).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn all_led(cluster: &Cluster) -> bool {
    (0..=SHARDS).all(|shard| cluster.leader_of(ShardId(shard)).is_some())
}

/// Both peers of the odd node come to measure its rate, as `rushroom_clock_rate_ppm` tells it: by whichever clock runs faster,
/// once they have compared for as long as they remember.
async fn measured(cluster: &Cluster, rate_ppm: u64, name: &str) {
    let right = RIGHT as i64;
    let expect = (rate_ppm as i64 - right) * right / rate_ppm.max(RIGHT) as i64;
    let close = |c: &Cluster, node: u64| {
        let seen = c.running[&node].host.clock().rates_ppm.get(&NodeId(ODD)).copied();
        seen.is_some_and(|seen| (seen - expect).abs() * 5 <= expect.abs())
    };
    let what = format!("its peers measure about {expect} ppm, it being {name}");
    cluster.until(&what, |c| close(c, 1) && close(c, 3)).await;
}

/// Whatever is wrong with a node's monotonic clock: its peers' comparison finds it, it gives every leadership away and
/// gets none, bids go on, and it leads again once its clock has been good for as long as clocks are compared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_strays_leads_nothing_until_it_is_good() {
    let crystal = Crystal::new();
    let cluster = cluster(&crystal).await;
    let (shard, auction) = open_auction(&cluster, "lamp", 3_600_000).await;
    let mut n = 0;
    for (name, rate, step, found) in [
        (
            "ten per cent fast",
            1_100_000,
            0,
            &[Unfit::ClockRate, Unfit::ClockStep][..],
        ),
        ("two seconds ahead", RIGHT, 2_000_000, &[Unfit::ClockStep]),
        ("ten per cent slow", 900_000, 0, &[Unfit::ClockRate, Unfit::ClockStep]),
        ("two seconds back", RIGHT, -2_000_000, &[Unfit::ClockStep]),
        ("standing still", 0, 0, &[Unfit::ClockRate, Unfit::ClockStep]),
    ] {
        give(&cluster, shard, ODD).await;
        crystal.set(rate, step);
        cluster
            .until(&format!("it knows that it is {name}"), |c| {
                reasons(c, ODD).iter().any(|reason| found.contains(reason))
            })
            .await;
        cluster
            .until(&format!("others lead, it being {name}"), |c| {
                led_by(c, ODD).is_empty() && all_led(c)
            })
            .await;
        for good in [1, 3] {
            assert_eq!(reasons(&cluster, good), [], "node {good}, while node {ODD} is {name}");
        }
        let shuns = |c: &Cluster, node: u64| c.running[&node].host.clock().shunned == [NodeId(ODD)];
        cluster
            .until(&format!("its peers know that it is {name}"), |c| {
                [1, 3].iter().all(|node| shuns(c, *node))
            })
            .await;
        // A step is no rate: how much of one it looks like depends on when it was.
        if rate != RIGHT {
            measured(&cluster, rate, name).await;
        }
        n += 1;
        assert_eq!(bid(&cluster, shard, &auction, n).await.outcome, Ok(()));
        // A shard whose leader goes silent on a crowded machine may elect it, as nobody refuses it a vote (decision 0019): then it
        // hands that over, too.
        let rid = format!("nothing stays with it while it is {name}");
        cluster.until(&rid, |c| led_by(c, ODD).is_empty()).await;
        crystal.set(RIGHT, 0);
        cluster
            .until(&format!("it is good after it was {name}"), |c| {
                reasons(c, ODD).is_empty() && c.running[&1].host.clock().shunned.is_empty()
            })
            .await;
    }
    n += 1;
    assert_eq!(bid(&cluster, shard, &auction, n).await.outcome, Ok(()));
    cluster.agree(shard).await;
}

/// The leader's wall clock is an hour ahead: nothing starts early, nothing starts late, and the node knows and gives way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_start_goes_by_the_clocks_of_most() {
    let crystal = Crystal::new();
    let cluster = cluster(&crystal).await;
    let shard = *led_by(&cluster, ODD)
        .iter()
        .find(|s| **s != ShardId(0))
        .expect("it leads a shard");
    let auction = (0..1_000)
        .map(|k| id(&format!("lamp-{k}")))
        .find(|name| placement::shard_of(name.as_str(), SHARDS) == shard)
        .unwrap();
    let create = Action::Create(Box::new(definition(3_600_000)));
    let created = cluster.say(shard, command(&auction, "seller", "c", create)).await;
    assert_eq!(created.outcome, Ok(()));
    crystal.wall_ahead_us.store(3_600_000_000, Ordering::Relaxed);
    let wall = |crystal: &Crystal| crystal.real.wall_us() / 1_000;
    let start_wall_ms = wall(&crystal) + 3_000;
    let schedule = command(&auction, "seller", "s", Action::Schedule { start_wall_ms });
    assert_eq!(cluster.say(shard, schedule).await.outcome, Ok(()));
    cluster
        .until("the node knows that its wall clock is wrong", |c| {
            reasons(c, ODD) == [Unfit::WallTime]
        })
        .await;
    cluster
        .until("others lead", |c| led_by(c, ODD).is_empty() && all_led(c))
        .await;
    for node in 1..=3 {
        let clock = cluster.running[&node].host.clock();
        let off = clock.wall.ms.abs_diff(wall(&crystal));
        assert!(
            off <= clock.wall.error_ms + 50,
            "node {node} takes it to be {off} ms off; {clock:?}"
        );
        assert_eq!(clock.wall_off_ms > 3_590_000, node == ODD, "{clock:?}");
    }
    let live = |c: &Cluster| {
        let host = &c.running[&1].host;
        let view = futures_util::FutureExt::now_or_never(host.read(shard, &auction, Fresh::AtLeast(0)));
        view.is_some_and(|view| view.unwrap().phase == Phase::Live)
    };
    assert!(!live(&cluster) || wall(&crystal) >= start_wall_ms, "it started early");
    cluster.until("the auction starts", live).await;
    assert!(wall(&crystal) >= start_wall_ms, "it started early");
}
