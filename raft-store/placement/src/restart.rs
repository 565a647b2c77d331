//! Whether a node may be stopped for a moment, and a leadership sent away: who would feel it?
//!
//! A node that stops takes its replicas along. So each of its shards must have, without it, a majority of voters that are
//! open and have nearly all of the log: a follower that is still catching up is no majority's part, though its process
//! answers. And what it leads changes hands, which bidders feel for some ms: not where a live auction closes soon.
//!
//! Both are guard rails: an operator's reason overrides them.
//!
//! Deliberately absent: waiting until it may. Whoever restarts asks again.

use crate::{ClusterMap, Facts, GroupFacts, NodeId, Refusal, ReplicaId, ShardId, mover::Limits};

/// Whether all shards of a node go on without it.
///
/// # Errors
/// The first shard that doesn't, and why.
pub fn may_stop(map: &ClusterMap, facts: &Facts, limits: &Limits, node: NodeId) -> Result<(), Refusal> {
    for (shard, _) in map.shards_on(node) {
        let Some(group) = facts.groups.get(&shard) else {
            return Err(Refusal::NotWhole(shard, "it has no leader that answers".into()));
        };
        if group.is_changing() {
            return Err(Refusal::NotWhole(shard, "a change of its members is under way".into()));
        }
        let voters = group.voting();
        let goes = map.replica_on(shard, node);
        let stays = |voter: &&ReplicaId| Some(**voter) != goes && is_whole(facts, limits, shard, group, **voter);
        let left = voters.iter().filter(stays).count();
        if left * 2 <= voters.len() {
            let why = format!(
                "without node {} only {left} of its {} replicas are open and have the whole log",
                node.0,
                voters.len()
            );
            return Err(Refusal::NotWhole(shard, why));
        }
        if group.leader == node {
            may_hand_over(shard, group, limits)?;
        }
    }
    Ok(())
}

/// Whether a shard's leadership may go elsewhere now.
///
/// # Errors
/// Where a live auction closes soon.
pub fn may_hand_over(shard: ShardId, group: &GroupFacts, limits: &Limits) -> Result<(), Refusal> {
    match group.closes_in_ms.filter(|in_ms| *in_ms <= limits.hot_ms) {
        Some(in_ms) => Err(Refusal::ClosesSoon { shard, in_ms }),
        None => Ok(()),
    }
}

/// Open on a node that answers, with nearly all of the log.
fn is_whole(facts: &Facts, limits: &Limits, shard: ShardId, group: &GroupFacts, voter: ReplicaId) -> bool {
    let mut homes = facts
        .seats
        .iter()
        .filter(|(_, seats)| seats.get(&shard) == Some(&voter));
    let Some((home, _)) = homes.next() else {
        return false;
    };
    *home == group.leader || group.lag.get(&voter).is_some_and(|lag| *lag <= limits.lag_max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Node, Rules, place};
    use std::collections::{BTreeMap, BTreeSet};

    /// Three nodes with one shard, all of it open; node 1 leads.
    fn world() -> (ClusterMap, Facts) {
        let node = |id: u64| Node {
            id: NodeId(id),
            zone: format!("zone-{id}"),
            region: String::new(),
            weight: 1,
            grpc: String::new(),
            http: String::new(),
            trunk: String::new(),
        };
        let map = ClusterMap {
            shards: 1,
            nodes: (1..=3).map(|id| (NodeId(id), node(id))).collect(),
            ..ClusterMap::default()
        };
        let map = place(&map, Rules::default());
        let replicas: BTreeMap<NodeId, ReplicaId> = map.replicas_of(ShardId(1)).iter().copied().collect();
        let group = GroupFacts {
            leader: NodeId(1),
            voters: vec![replicas.values().copied().collect()],
            lag: replicas.values().map(|replica| (*replica, 0)).collect(),
            ..GroupFacts::default()
        };
        let seat = |(node, replica): (&NodeId, &ReplicaId)| (*node, BTreeMap::from([(ShardId(1), *replica)]));
        let facts = Facts {
            seats: replicas.iter().map(seat).collect(),
            groups: BTreeMap::from([(ShardId(1), group)]),
            ..Facts::default()
        };
        (map, facts)
    }

    /// Columns: what is wrong | node 1, which leads, may stop | node 2 may.
    #[test]
    fn a_node_stops_only_where_nobody_misses_it() {
        type Wrong = fn(&mut Facts, ReplicaId);
        let rows: [(&str, Wrong, &str, &str); 8] = [
            ("nothing", |_, _| {}, "", ""),
            (
                "node 3 doesn't answer",
                |facts, _| drop(facts.seats.remove(&NodeId(3))),
                "not_whole",
                "not_whole",
            ),
            (
                "node 3 answers, and its replica isn't open",
                |facts, _| facts.seats.get_mut(&NodeId(3)).unwrap().clear(),
                "not_whole",
                "not_whole",
            ),
            (
                "node 3 is catching up",
                |facts, third| {
                    group(facts).lag.insert(third, 65);
                },
                "not_whole",
                "not_whole",
            ),
            (
                "node 3 lacks a little",
                |facts, third| {
                    group(facts).lag.insert(third, 64);
                },
                "",
                "",
            ),
            (
                "nobody leads",
                |facts, _| facts.groups.clear(),
                "not_whole",
                "not_whole",
            ),
            (
                "a change is half done",
                |facts, _| group(facts).voters.push(BTreeSet::new()),
                "not_whole",
                "not_whole",
            ),
            (
                "an auction closes in 30 s",
                |facts, _| group(facts).closes_in_ms = Some(30_000),
                "closes_soon",
                "",
            ),
        ];
        for (what, wrong, first, second) in rows {
            let (map, mut facts) = world();
            let third = map.replica_on(ShardId(1), NodeId(3)).unwrap();
            wrong(&mut facts, third);
            for (node, expected) in [(1, first), (2, second)] {
                let may = may_stop(&map, &facts, &Limits::default(), NodeId(node));
                let code = may.as_ref().map_or_else(Refusal::code, |()| "");
                assert_eq!(code, expected, "{what}, node {node}");
                assert!(may.is_ok() || may.unwrap_err().may_be_forced(), "{what}, node {node}");
            }
        }
    }

    fn group(facts: &mut Facts) -> &mut GroupFacts {
        facts.groups.get_mut(&ShardId(1)).unwrap()
    }

    #[test]
    fn a_leadership_stays_where_an_auction_closes_soon() {
        for (closes_in_ms, goes) in [
            (None, true),
            (Some(30_001), true),
            (Some(30_000), false),
            (Some(0), false),
        ] {
            let group = GroupFacts {
                closes_in_ms,
                ..GroupFacts::default()
            };
            let may = may_hand_over(ShardId(1), &group, &Limits::default());
            assert_eq!(may.is_ok(), goes, "{closes_in_ms:?}");
        }
    }
}
