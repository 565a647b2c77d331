//! Replicas that move between real hosts: under bids, while leaders die at every step, and when a node stays away.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use auction::{AuctionId, Reply};
use common::{Cluster, command, open_auction};
use placement::{Change, NodeId, ShardId, Standing, Step};
use raft_store::{Fresh, RaftOptions, Role};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

fn nodes_of(cluster: &Cluster, shard: ShardId) -> BTreeSet<u64> {
    cluster.map().replicas_of(shard).iter().map(|r| r.0.0).collect()
}

/// Every goal is reached, every running node has taken in the newest map and holds what it gives, and each shard is led.
async fn settled(cluster: &Cluster) {
    cluster
        .until("the map has come true", |c| {
            let map = c.map();
            let quiet = map.steering.goal.is_empty() && map.steering.moves.is_empty();
            let seated = c.running.iter().all(|(node, r)| {
                let has: BTreeSet<ShardId> = r.host.status().iter().map(|g| g.shard).collect();
                let gets: BTreeSet<ShardId> = map.seats_on(NodeId(*node)).map(|seat| seat.0).collect();
                let watches = map.steering.watchers.contains_key(&NodeId(*node)) || gets.contains(&ShardId::META);
                !watches || has == gets && *r.host.map().borrow() == map
            });
            quiet && seated && (0..=map.shards).all(|s| c.leader_of(ShardId(s)).is_some())
        })
        .await;
}

/// The replicas that a shard has now have applied the same log to the same state.
async fn agree(cluster: &Cluster, shard: ShardId) {
    cluster
        .until("the shard's replicas agree", |c| {
            let holders = nodes_of(c, shard);
            let of = |node: &u64| c.running.get(node)?.host.digest(shard);
            let states: Vec<_> = holders.iter().map(of).collect();
            states.iter().all(|state| state.is_some() && *state == states[0])
        })
        .await;
}

/// Bids as an edge sends them, over every host in turn, with one id until there is a verdict; none may fail or be lost.
struct Bidders {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<(AuctionId, ShardId, u64, Duration)>>,
}

impl Bidders {
    fn on(cluster: &Cluster, auctions: &[(ShardId, AuctionId)]) -> Bidders {
        let stop = Arc::new(AtomicBool::new(false));
        let hosts: Vec<_> = cluster.running.values().map(|r| r.host.clone()).collect();
        let tasks = auctions.iter().cloned().map(|(shard, auction)| {
            let (stop, hosts) = (stop.clone(), hosts.clone());
            tokio::spawn(async move {
                let (mut n, mut worst) = (0, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let who = if n % 2 == 0 { "ann" } else { "bob" };
                    let amount = 1_000 + 100 * n;
                    let bid = command(&auction, who, &format!("b-{n}"), auction::Action::Bid { amount });
                    let begun = Instant::now();
                    let verdict = 'asking: loop {
                        for host in &hosts {
                            let epoch = host.map().borrow().epoch;
                            let reply = host.submit(shard, epoch, bid.clone());
                            if let Ok(Reply::Verdict(verdict)) =
                                tokio::time::timeout(Duration::from_secs(1), reply).await
                            {
                                break 'asking verdict;
                            }
                        }
                        assert!(begun.elapsed() < common::PATIENCE, "no verdict on bid {n} of {shard:?}");
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    };
                    assert_eq!(verdict.outcome, Ok(()), "bid {n} of {shard:?}: {verdict:?}");
                    worst = worst.max(begun.elapsed());
                    n += 1;
                }
                (auction, shard, n, worst)
            })
        });
        let tasks = tasks.collect();
        Bidders { stop, tasks }
    }

    /// Stops bidding; every accepted bid must be in the auction, at its shard's present leader.
    async fn end(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let (auction, shard, bids, worst) = task.await.unwrap();
            let leader = cluster.leader_of(shard).unwrap();
            let view = cluster.running[&leader]
                .host
                .read(shard, &auction, Fresh::Linear)
                .await
                .unwrap();
            assert_eq!(view.bids, bids, "bids of {auction} in {shard:?}");
            eprintln!("{shard:?}: {bids} bids, the slowest took {worst:?}");
            agree(cluster, shard).await;
        }
    }
}

/// One auction in each shard.
async fn one_each(cluster: &Cluster) -> Vec<(ShardId, AuctionId)> {
    let mut auctions: Vec<(ShardId, AuctionId)> = Vec::new();
    for n in 0.. {
        let name = format!("lot-{n}");
        let shard = placement::shard_of(&name, cluster.shards);
        if auctions.iter().all(|known| known.0 != shard) {
            auctions.push(open_auction(cluster, &name, 3_600_000).await);
        }
        if auctions.len() == cluster.shards as usize {
            return auctions;
        }
    }
    auctions
}

/// A fourth node joins under bids and takes its share; drained, it gives everything back; then it goes for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_and_goes_under_bids() {
    let mut cluster = Cluster::three(4).await;
    let auctions = one_each(&cluster).await;
    let epoch = cluster.map().epoch;
    let bidders = Bidders::on(&cluster, &auctions);
    cluster.join(4).await;
    settled(&cluster).await;
    let held = cluster.map().shards_on(NodeId(4)).count();
    assert!(held >= 1, "the new node holds nothing");
    assert!(cluster.map().epoch > epoch);

    cluster.steer(Change::Drain(NodeId(4))).await;
    settled(&cluster).await;
    assert_eq!(
        cluster.map().shards_on(NodeId(4)).count(),
        0,
        "{:?}",
        cluster.map().placement
    );
    bidders.end(&cluster).await;

    cluster.steer(Change::Decommission(NodeId(4))).await;
    cluster
        .until("nobody knows the node any more", |c| {
            let map = c.map();
            map.standing(NodeId(4)) == Standing::Decommissioned && map.steering.watchers.is_empty()
        })
        .await;
    let ended = cluster.map().steering.ended.clone();
    let ids: BTreeSet<_> = ended.iter().filter_map(|one| one.what.to).collect();
    let came = ended
        .iter()
        .filter(|one| one.shard != ShardId::META && one.what.to.is_some())
        .count();
    assert!(ids.len() >= came, "a replica id came twice: {ended:#?}");
}

/// The node that leads shard 0 dies at each step of a move; whoever leads next finishes it, under bids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_outlives_meta_leaders_that_die_at_each_step() {
    let mut cluster = Cluster::new(1, RaftOptions::default());
    cluster.start_all().await;
    cluster.join(4).await;
    settled(&cluster).await;
    let auctions = one_each(&cluster).await;
    let shard = auctions[0].0;
    for step in Step::ALL {
        let here = nodes_of(&cluster, shard);
        let from = *here.iter().next().unwrap();
        let to = (1..=4).find(|node| !here.contains(node)).unwrap();
        let change = Change::Move {
            shard,
            from: NodeId(from),
            to: NodeId(to),
            owner: "test".into(),
        };
        let before = cluster.map().steering.move_ids;
        cluster.steer(change).await;
        cluster
            .until("the move is that far", |c| {
                let map = c.map();
                let reached = map.steering.moves.get(&shard).is_some_and(|one| one.step >= step);
                reached || map.steering.move_ids > before && map.steering.moves.is_empty()
            })
            .await;
        let leader = cluster.leader_of(ShardId::META).unwrap();
        cluster.crash(leader).await;
        // A majority of shard 0 and of the shard is left: the move ends without the dead node, or waits for it.
        cluster.start(leader).await;
        settled(&cluster).await;
        assert_eq!(
            nodes_of(&cluster, shard),
            here.iter().copied().filter(|n| *n != from).chain([to]).collect()
        );
        let verdict = common::bid(&cluster, shard, &auctions[0].1, cluster.map().steering.move_ids).await;
        assert_eq!(verdict.outcome, Ok(()), "after {step:?}: {verdict:?}");
        agree(&cluster, shard).await;
    }
}

/// Whoever led shard 0 when it was cut off believes so still, with the map of then. It sees the members of now, by which
/// all that came meanwhile are strangers: it may send none of them away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mover_that_was_deposed_unheard_undoes_nothing() {
    let mut cluster = Cluster::new(2, RaftOptions::default());
    cluster.start_all().await;
    let auctions = one_each(&cluster).await;
    settled(&cluster).await;
    let old = cluster.leader_of(ShardId::META).unwrap();
    cluster.between.cut.store(old, Ordering::Relaxed);
    // What stands between them ends with the others' lives; nothing new comes about.
    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    for id in &others {
        cluster.crash(*id).await;
        cluster.start(*id).await;
    }
    let leads = |c: &Cluster, node: u64, shard: ShardId| {
        let status = c.running[&node].host.status();
        status.iter().any(|g| g.shard == shard && g.role == Role::Leader)
    };
    cluster
        .until("the others have a leader", |c| {
            others.iter().any(|id| leads(c, *id, ShardId::META))
        })
        .await;
    assert!(
        leads(&cluster, old, ShardId::META),
        "the old leader has heard of its end"
    );
    cluster.join_by(others[0], 4).await;
    cluster
        .until("the new node has its share", |c| {
            let map = c.map();
            let quiet = map.steering.goal.is_empty() && map.steering.moves.is_empty();
            quiet && map.shards_on(NodeId(4)).next().is_some()
        })
        .await;
    // Each look asks two others. Whom it sends away is let in again in a moment: so members are looked at all the while.
    let asked = |c: &Cluster| c.between.asked.load(Ordering::Relaxed);
    let before = asked(&cluster);
    cluster
        .until("the old leader has looked", |c| {
            members_as_placed(c, old);
            asked(c) >= before + 12
        })
        .await;
    assert!(
        leads(&cluster, old, ShardId::META),
        "the old leader has heard of its end"
    );
    cluster.between.cut.store(0, Ordering::Relaxed);
    settled(&cluster).await;
    members_as_placed(&cluster, old);
    for (shard, auction) in &auctions {
        assert_eq!(common::bid(&cluster, *shard, auction, 7).await.outcome, Ok(()));
        agree(&cluster, *shard).await;
    }
}

/// Each group's members are those that the map names, by the word of whoever leads it; `old` isn't asked.
fn members_as_placed(cluster: &Cluster, old: u64) {
    let map = cluster.map();
    for shard in (0..=map.shards).map(ShardId) {
        let mut placed = nodes_of(cluster, shard);
        if shard == ShardId::META {
            placed.extend(map.steering.watchers.keys().map(|node| node.0));
        }
        let now = cluster.running.iter().filter(|(id, _)| **id != old);
        let led = now.flat_map(|(_, r)| r.host.status());
        for group in led.filter(|g| g.shard == shard && g.role == Role::Leader) {
            let members: BTreeSet<u64> = group.replicas.iter().map(|node| node.0).collect();
            assert_eq!(members, placed, "{shard:?}");
        }
    }
}

/// A node that stays away is lost after its grace, and its replicas are replaced; it comes back empty-handed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_after_its_grace() {
    let mut cluster = Cluster::new(3, RaftOptions::default());
    cluster.moves.dead_after_ms = 1_500;
    cluster.start_all().await;
    cluster.join(4).await;
    settled(&cluster).await;
    let auctions = one_each(&cluster).await;
    let victim = cluster.map().preferred_leader(ShardId(1)).unwrap().0;
    cluster.crash(victim).await;
    cluster
        .until("the dead node is lost", |c| {
            c.map().standing(NodeId(victim)) == Standing::Lost
        })
        .await;
    settled(&cluster).await;
    assert_eq!(cluster.map().shards_on(NodeId(victim)).count(), 0);
    for (shard, auction) in &auctions {
        assert_eq!(common::bid(&cluster, *shard, auction, 7).await.outcome, Ok(()));
        assert_eq!(nodes_of(&cluster, *shard).len(), 3);
    }
    // It knows nothing of all that: it must throw away what it has before anybody counts on it.
    cluster.start(victim).await;
    cluster.steer(Change::Resume(NodeId(victim))).await;
    settled(&cluster).await;
    for (shard, _) in &auctions {
        agree(&cluster, *shard).await;
    }
}

/// An operator's change of an old version is refused, a dry run changes nothing, and what was asked for is written down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_compared_and_written_down() {
    let cluster = Cluster::three(2).await;
    let host = &cluster.running[&2].host;
    let ask = |version, dry_run| raft_store::Ask {
        version,
        dry_run,
        ..common::ask(Change::Pause)
    };
    let before = cluster.map();
    host.steer(ask(None, true)).await.unwrap();
    assert_eq!(cluster.map(), before, "a dry run changed something");
    let plan = host.steer(ask(Some(before.steering.version), false)).await.unwrap();
    let refused = host.steer(ask(Some(before.steering.version), false)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "the plan is of version {}; the map is at {}: read it again",
            plan.base,
            plan.base + 1
        )
    );
    let said = cluster.map().steering.said.clone();
    assert_eq!(
        said.iter()
            .map(|s| (s.who.as_str(), s.what.as_str()))
            .collect::<Vec<_>>(),
        [("olga", "pause")]
    );
    let unknown = host.steer(common::ask(Change::Drain(NodeId(9)))).await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no node 9");
}
