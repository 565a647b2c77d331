//! Which nodes get which shard: the first of the rendezvous order that lie in distinct zones and have room.
//!
//! Pure rendezvous order balances badly at a hundred shards (measured: the fullest of nine nodes holds 1.3-1.45 times
//! its share), so each node has a bound of 1.10 times its share by weight; who is full is skipped. Three wishes in order
//! of strength: distinct nodes (always), distinct zones (while there are enough), the bound (while both others allow).
//! With four nodes in three zones the lone nodes of two zones must hold everything, bound or not: losing a zone must
//! never lose two replicas.
//!
//! Operators' overrides go before the order: pins first, exclusions never. A node that drains is not chosen, but keeps what
//! nobody else can take: a drain never leaves a shard with fewer replicas.
//!
//! Leaders are then spread: of a shard's replicas the one that leads least (by weight) so far is put first.
//!
//! Deliberately absent: moving. `place` says what should be; the mover gets there one step at a time.

use crate::{
    ClusterMap, NodeId, Placement, ShardId, Standing,
    overrides::{Holding, holding},
    rank::rank_shard,
};
use std::collections::{BTreeMap, BTreeSet};

/// How shards are placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Replicas of each shard (fewer if there are fewer nodes).
    pub replicas: usize,
    /// What a node may hold, in parts per million of its share by weight.
    pub bound_ppm: u64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            replicas: 3,
            bound_ppm: 1_100_000,
        }
    }
}

/// The placement of shards 1..=`map.shards` on the nodes of `map`: the same map with `placement` renewed and the epoch
/// raised, if anything changed. Replicas that stay keep their ids, new ones get fresh ids. What is placed of shard 0
/// stays: where the map itself lives isn't decided by the map. For a cluster that is being born: where groups live
/// already, replicas must be moved (`plan`, `mover`).
#[must_use]
pub fn place(map: &ClusterMap, rules: Rules) -> ClusterMap {
    let mut next = map.clone();
    let auction_shards = 1..=map.shards;
    next.placement
        .retain(|shard, _| *shard == ShardId::META || auction_shards.contains(&shard.0));
    for (shard, nodes) in wanted(map, rules, 0).0 {
        let replicas = nodes
            .into_iter()
            .map(|node| (node, map.replica_on(shard, node).unwrap_or_else(|| next.next_replica())))
            .collect();
        next.placement.insert(shard, Placement { replicas });
    }
    next.epoch += u64::from(next.placement != map.placement);
    next
}

/// The nodes that each auction shard should have, leader first; and which overrides were left out, and why.
pub(crate) fn wanted(map: &ClusterMap, rules: Rules, now_ms: u64) -> (BTreeMap<ShardId, Vec<NodeId>>, Vec<String>) {
    let mut void = Vec::new();
    let held: BTreeMap<ShardId, Holding> = (1..=map.shards)
        .map(ShardId)
        .map(|shard| {
            let (holds, left_out) = holding(map, shard, rules.replicas, now_ms);
            void.extend(left_out);
            (shard, holds)
        })
        .collect();
    (spread_leaders(map, choose(map, rules, &held), &held), void)
}

/// The nodes of each shard, in rendezvous order.
fn choose(map: &ClusterMap, rules: Rules, wishes: &BTreeMap<ShardId, Holding>) -> BTreeMap<ShardId, Vec<NodeId>> {
    let bounds = bounds(map, rules);
    let mut held: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut chosen = BTreeMap::new();
    for (&shard, wish) in wishes {
        let order = rank_shard(shard, map.nodes.keys().map(|&node| (node, map.share(node))));
        let mut picked = wish.pins.clone();
        let zone = |node: &NodeId| map.nodes.get(node).map_or("", |known| known.zone.as_str());
        let mut zones: BTreeSet<&str> = picked.iter().map(zone).collect();
        // Strictest wish first; what a pass can't fill the next one may.
        for (distinct_zones, bounded) in [(true, true), (true, false), (false, true), (false, false)] {
            for &node in order.iter().filter(|node| !wish.excluded.contains(node)) {
                let full = held.get(&node).copied().unwrap_or(0) >= bounds.get(&node).copied().unwrap_or(0);
                let near = distinct_zones && zones.contains(zone(&node));
                let fits = !(picked.contains(&node) || near || bounded && full);
                if fits && picked.len() < rules.replicas {
                    picked.push(node);
                    zones.insert(zone(&node));
                }
            }
        }
        for node in &picked {
            *held.entry(*node).or_default() += 1;
        }
        picked.sort_by_key(|node| order.iter().position(|other| other == node));
        // Whoever drains keeps what nobody else can take.
        let stays = map.replicas_of(shard).iter().map(|replica| replica.0);
        let stays = stays.filter(|node| map.standing(*node) == Standing::Draining);
        let missing = rules.replicas.saturating_sub(picked.len());
        picked.extend(stays.take(missing));
        chosen.insert(shard, picked);
    }
    chosen
}

/// How many replicas each node may hold: its share by weight times the bound, rounded up.
pub(crate) fn bounds(map: &ClusterMap, rules: Rules) -> BTreeMap<NodeId, u64> {
    let share = |node: &NodeId| u128::from(map.share(*node));
    let taking: Vec<NodeId> = map.nodes.keys().copied().filter(|node| share(node) > 0).collect();
    let weights: u128 = taking.iter().map(share).sum();
    let replicas = u128::from(map.shards) * rules.replicas.min(taking.len()) as u128;
    let bound = |node: &NodeId| {
        (replicas * share(node) * u128::from(rules.bound_ppm)).div_ceil((weights * 1_000_000).max(1)) as u64
    };
    taking.iter().map(|node| (*node, bound(node))).collect()
}

/// Puts one node of each shard first, so that leaderships are spread by weight; rendezvous order decides ties.
fn spread_leaders(
    map: &ClusterMap,
    chosen: BTreeMap<ShardId, Vec<NodeId>>,
    wishes: &BTreeMap<ShardId, Holding>,
) -> BTreeMap<ShardId, Vec<NodeId>> {
    let mut leads: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut spread = BTreeMap::new();
    for (shard, mut nodes) in chosen {
        // (leads + 1) / weight, compared without fractions; who takes no shards leads only where nobody else can.
        let load = |node: &NodeId| {
            let share = u128::from(map.share(*node));
            let leads = u128::from(leads.get(node).copied().unwrap_or(0));
            (share == 0, (leads + 1) * 1_000_000 / share.max(1))
        };
        let wish = wishes.get(&shard).and_then(|wish| wish.leader);
        let wished = nodes.iter().position(|node| Some(*node) == wish);
        let first = wished.or_else(|| (0..nodes.len()).min_by_key(|&i| load(&nodes[i])));
        if let Some(first) = first {
            nodes[..=first].rotate_right(1);
            *leads.entry(nodes[0]).or_default() += 1;
        }
        spread.insert(shard, nodes);
    }
    spread
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::{Node, ReplicaId};
    use proptest::prelude::*;

    /// A map of `shards` shards over nodes given as (id, zone, weight).
    fn map(shards: u32, nodes: &[(u64, &str, u32)]) -> ClusterMap {
        let node = |&(id, zone, weight): &(u64, &str, u32)| {
            let text = String::new;
            (
                NodeId(id),
                Node {
                    id: NodeId(id),
                    zone: zone.into(),
                    region: text(),
                    weight,
                    grpc: text(),
                    http: text(),
                    trunk: text(),
                },
            )
        };
        ClusterMap {
            shards,
            nodes: nodes.iter().map(node).collect(),
            ..ClusterMap::default()
        }
    }

    fn counts(map: &ClusterMap) -> BTreeMap<NodeId, usize> {
        map.nodes
            .keys()
            .map(|&node| (node, map.shards_on(node).filter(|s| s.0 != ShardId::META).count()))
            .collect()
    }

    /// The dumbest correct placement: for each shard try every way of picking nodes from the whole order, wish by wish.
    fn naive(map: &ClusterMap, rules: Rules) -> BTreeMap<ShardId, BTreeSet<NodeId>> {
        let total: u64 = map.nodes.values().map(|n| u64::from(n.weight)).sum();
        let alive = map.nodes.values().filter(|n| n.weight > 0).count();
        let want = rules.replicas.min(alive);
        let mut out: BTreeMap<ShardId, BTreeSet<NodeId>> = BTreeMap::new();
        for s in 1..=map.shards {
            let mut picked: Vec<NodeId> = Vec::new();
            while picked.len() < want {
                let order = rank_shard(ShardId(s), map.nodes.values().map(|n| (n.id, n.weight)));
                let zone_free = |n: &NodeId| !picked.iter().any(|p| map.nodes[p].zone == map.nodes[n].zone);
                let room = |n: &NodeId| {
                    let held = out.values().filter(|nodes| nodes.contains(n)).count() as f64;
                    let share = f64::from(map.shards) * want as f64 * f64::from(map.nodes[n].weight) / total as f64;
                    held < (share * rules.bound_ppm as f64 / 1e6 - 1e-9).ceil()
                };
                let left: Vec<NodeId> = order.into_iter().filter(|n| !picked.contains(n)).collect();
                let best = left.iter().find(|n| zone_free(n) && room(n));
                let best = best.or_else(|| left.iter().find(|n| zone_free(n)));
                let best = best.or_else(|| left.iter().find(|n| room(n))).or_else(|| left.first());
                picked.push(*best.unwrap());
            }
            out.insert(ShardId(s), picked.into_iter().collect());
        }
        out
    }

    fn cluster() -> impl Strategy<Value = ClusterMap> {
        let node = (0usize..5, 0u32..4);
        (1u32..40, proptest::collection::vec(node, 1..9)).prop_map(|(shards, nodes)| {
            let zones = ["a", "b", "c", "d", "e"];
            let list: Vec<_> = nodes
                .iter()
                .enumerate()
                .map(|(i, &(z, w))| (i as u64 + 1, zones[z], w))
                .collect();
            map(shards, &list)
        })
    }

    proptest! {
        #[test]
        fn equals_the_dumbest_algorithm(map in cluster()) {
            let placed = place(&map, Rules::default());
            let sets: BTreeMap<_, BTreeSet<_>> =
                placed.placement.iter().map(|(s, p)| (*s, p.replicas.iter().map(|r| r.0).collect())).collect();
            prop_assert_eq!(sets, naive(&map, Rules::default()));
        }

        #[test]
        fn keeps_its_promises(map in cluster()) {
            let placed = place(&map, Rules::default());
            let alive: Vec<_> = map.nodes.values().filter(|n| n.weight > 0).collect();
            let zones: BTreeSet<_> = alive.iter().map(|n| n.zone.as_str()).collect();
            let mut ids = BTreeSet::new();
            for (shard, placement) in &placed.placement {
                let nodes: BTreeSet<_> = placement.replicas.iter().map(|r| r.0).collect();
                let in_zones: BTreeSet<_> = nodes.iter().map(|n| map.nodes[n].zone.as_str()).collect();
                prop_assert_eq!(nodes.len(), placement.replicas.len());
                prop_assert_eq!(nodes.len(), 3.min(alive.len()));
                prop_assert_eq!(in_zones.len(), 3.min(zones.len()), "zones of {:?}", shard);
                prop_assert!(placement.replicas.iter().all(|r| ids.insert(r.1)), "a replica id twice");
            }
            // Placed again, nothing changes: not even the epoch.
            prop_assert_eq!(place(&placed, Rules::default()), placed);
        }

        /// A drained node loses all, and whatever stays keeps its replica id; no id is ever given again.
        #[test]
        fn ids_are_never_used_twice(map in cluster(), drained in 1u64..9) {
            let before = place(&map, Rules::default());
            let mut without = before.clone();
            if let Some(node) = without.nodes.get_mut(&NodeId(drained)) {
                node.weight = 0;
            }
            let after = place(&without, Rules::default());
            prop_assert_eq!(after.shards_on(NodeId(drained)).count(), 0);
            for (shard, placement) in &after.placement {
                for &(node, replica) in &placement.replicas {
                    match before.replica_on(*shard, node) {
                        Some(old) => prop_assert_eq!(old, replica),
                        None => prop_assert!(replica > ReplicaId(before.replica_ids)),
                    }
                }
            }
            // Back again: fresh ids, not the old ones.
            let mut back = after;
            back.nodes.clone_from(&before.nodes);
            let back = place(&back, Rules::default());
            for (shard, replica) in back.shards_on(NodeId(drained)) {
                prop_assert!(Some(replica) != before.replica_on(shard, NodeId(drained)));
            }
        }
    }

    #[test]
    fn the_bound_holds_where_zones_allow_it() {
        let nine: Vec<_> = (1..=9).map(|id| (id, ["a", "b", "c"][id as usize % 3], 1)).collect();
        let placed = place(&map(128, &nine), Rules::default());
        let most = counts(&placed).into_values().max().unwrap();
        // The share is 128 * 3 / 9 = 42.7; 1.10 of it, rounded up, is 47.
        assert!(most <= 47, "{:?}", counts(&placed));
    }

    #[test]
    fn leaders_are_spread() {
        let placed = place(&map(16, &[(1, "a", 1), (2, "b", 1), (3, "c", 1)]), Rules::default());
        let mut leads: BTreeMap<NodeId, u32> = BTreeMap::new();
        for shard in (1..=16).map(ShardId) {
            *leads.entry(placed.preferred_leader(shard).unwrap()).or_default() += 1;
        }
        assert!(
            leads.len() == 3 && leads.values().all(|&n| n == 5 || n == 6),
            "{leads:?}"
        );
    }

    /// How many of 128 * 3 replicas move when a tenth node joins nine, and when it leaves again.
    #[test]
    fn a_new_node_moves_little() {
        let zone = |id: u64| ["a", "b", "c"][id as usize % 3];
        let nine: Vec<_> = (1..=9).map(|id| (id, zone(id), 1)).collect();
        let before = place(&map(128, &nine), Rules::default());
        let mut joined = before.clone();
        joined.nodes.extend(map(128, &[(10, "a", 1)]).nodes);
        let after = place(&joined, Rules::default());
        let moved = |from: &ClusterMap, to: &ClusterMap| {
            to.placement
                .iter()
                .flat_map(|(s, p)| p.replicas.iter().map(|r| (*s, r.0)))
                .filter(|(s, n)| from.replica_on(*s, *n).is_none())
                .count()
        };
        let onto_it = after.shards_on(NodeId(10)).count();
        let all = moved(&before, &after);
        // Its fair share is 38; the bound lets some others move along.
        assert!((20..=43).contains(&onto_it), "{onto_it} onto the new node");
        assert!(all <= 96, "{all} of 384 replicas moved");
        assert!(after.epoch == before.epoch + 1 && before.epoch == 1);
    }

    #[test]
    fn shard_0_stays_where_it_is() {
        let mut start = map(4, &[(1, "a", 1), (2, "b", 1)]);
        let id = start.next_replica();
        start.placement.insert(
            ShardId::META,
            Placement {
                replicas: vec![(NodeId(2), id)],
            },
        );
        let placed = place(&start, Rules::default());
        assert_eq!(placed.replicas_of(ShardId::META), [(NodeId(2), ReplicaId(1))]);
        assert_eq!(placed.placement.len(), 5);
        assert_eq!(placed.replicas_of(ShardId(9)), []);
    }
}
