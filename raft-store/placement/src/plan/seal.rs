//! A shard that is founded anew: closed everywhere first, then one new replica is all that it has.
//!
//! ```text
//!   seal: nobody may open it; fresh replica id; no goal, no move --> (the node writes the replica's disk)
//!     found: that replica is the shard's only one --> a goal as any other: the mover brings the others
//! ```
//!
//! Sealing again goes on where it stopped: on the same node as the same replica, which was never opened and so never spoke;
//! on another node as another.
//!
//! Deliberately absent: what the replica consists of (`raft_store::refound`), and a way back. A shard whose founding broke
//! off is founded again, from the same or from something else.

use super::{Scope, known};
use crate::{ClusterMap, NodeId, Origin, Placement, Refusal, Seal, ShardId, Standing};

/// Longest reason that is kept.
const WHY_MAX: usize = 200;

/// Always to be forced: with the edit done.
pub(super) fn seal(
    next: &mut ClusterMap,
    shard: ShardId,
    node: NodeId,
    from: Origin,
    now_ms: u64,
) -> Result<Scope, (Refusal, Scope)> {
    let hard = |refusal| (refusal, Scope::Nothing);
    if shard == ShardId::META || shard.0 > next.shards {
        return Err(hard(Refusal::UnknownShard(shard)));
    }
    if known(next, node).map_err(hard)? == Standing::Lost {
        return Err(hard(Refusal::TakesNone(node)));
    }
    let before = next.steering.sealed.remove(&shard);
    let before = before.filter(|seal| seal.node == node && seal.from == from);
    let seal = before.unwrap_or_else(|| Seal {
        node,
        replica: next.next_replica(),
        from,
        why: String::new(),
        since_ms: now_ms,
    });
    next.steering.sealed.insert(shard, seal);
    next.steering.goal.remove(&shard);
    next.steering.end(shard, now_ms);
    Err((Refusal::GivesUp(shard), Scope::Nothing))
}

/// Keeps the operator's reason where everybody sees it.
pub(super) fn explain(next: &mut ClusterMap, shard: ShardId, reason: &str) {
    if let Some(seal) = next.steering.sealed.get_mut(&shard) {
        seal.why = reason.chars().take(WHY_MAX).collect();
    }
}

/// The new replica is the shard's only one; its goal is what the arithmetic wants.
pub(super) fn found(next: &mut ClusterMap, shard: ShardId) -> Result<Scope, Refusal> {
    let seal = next.steering.sealed.remove(&shard).ok_or(Refusal::NotSealed(shard))?;
    let replicas = vec![(seal.node, seal.replica)];
    next.placement.insert(shard, Placement { replicas });
    Ok(Scope::One(shard))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use crate::{
        Change, ClusterMap, Facts, Node, NodeId, Origin, Placement, Refusal, ReplicaId, Rules, ShardId, decide,
        mover::Limits, place, plan,
    };
    use std::collections::{BTreeMap, BTreeSet};

    const SHARD: ShardId = ShardId(2);

    fn map() -> ClusterMap {
        let node = |id: u64| Node {
            id: NodeId(id),
            zone: format!("z{id}"),
            region: "r".into(),
            weight: 1,
            grpc: String::new(),
            http: String::new(),
            trunk: String::new(),
        };
        let replicas = (1..=3).map(|id| (NodeId(id), ReplicaId(id))).collect();
        let bare = ClusterMap {
            shards: 4,
            nodes: (1..=3).map(|id| (NodeId(id), node(id))).collect(),
            placement: BTreeMap::from([(ShardId::META, Placement { replicas })]),
            replica_ids: 3,
            ..ClusterMap::default()
        };
        place(&bare, Rules::default())
    }

    fn seal(map: &ClusterMap, node: u64, force: Option<&str>) -> Result<ClusterMap, Refusal> {
        let change = Change::Seal {
            shard: SHARD,
            node: NodeId(node),
            from: Origin::Backup,
        };
        plan(map, &change, Rules::default(), 1_000 + node, force).map(|plan| plan.map)
    }

    fn found(map: &ClusterMap) -> Result<ClusterMap, Refusal> {
        plan(map, &Change::Found(SHARD), Rules::default(), 5, None).map(|plan| plan.map)
    }

    #[test]
    fn it_takes_a_reason_and_leaves_the_old_replicas_named_until_the_new_one_is_there() {
        let map = map();
        assert_eq!(seal(&map, 1, None), Err(Refusal::GivesUp(SHARD)));
        assert_eq!(found(&map), Err(Refusal::NotSealed(SHARD)));
        let sealed = seal(&map, 1, Some("two disks gone")).unwrap();
        let of = &sealed.steering.sealed[&SHARD];
        assert_eq!(
            (of.replica, of.since_ms, of.why.as_str()),
            (ReplicaId(map.replica_ids + 1), 1_001, "two disks gone")
        );
        assert_eq!(sealed.placement, map.placement, "nothing is thrown away yet");
        let founded = found(&sealed).unwrap();
        assert_eq!(founded.replicas_of(SHARD), &[(NodeId(1), of.replica)]);
        assert!(founded.epoch > sealed.epoch && !founded.is_sealed(SHARD));
        let goal: BTreeSet<NodeId> = founded.steering.goal[&SHARD].iter().copied().collect();
        assert_eq!(goal, (1..=3).map(NodeId).collect(), "back to three, by the mover");
    }

    #[test]
    fn again_on_the_same_node_it_is_the_same_replica_and_on_another_node_another() {
        let once = seal(&map(), 1, Some("x")).unwrap();
        let again = seal(&once, 1, Some("y")).unwrap();
        assert_eq!(
            again.steering.sealed[&SHARD].replica,
            once.steering.sealed[&SHARD].replica
        );
        assert_eq!(
            again.steering.sealed[&SHARD].since_ms,
            once.steering.sealed[&SHARD].since_ms
        );
        let elsewhere = seal(&again, 2, Some("z")).unwrap();
        assert!(elsewhere.steering.sealed[&SHARD].replica > once.steering.sealed[&SHARD].replica);
    }

    #[test]
    fn shard_0_and_strangers_are_refused_whatever_the_reason() {
        let map = map();
        let ask = |shard, node| {
            let (from, node) = (Origin::Survivor, NodeId(node));
            plan(
                &map,
                &Change::Seal { shard, node, from },
                Rules::default(),
                1,
                Some("x"),
            )
            .map(|_| ())
        };
        assert_eq!(ask(ShardId::META, 1), Err(Refusal::UnknownShard(ShardId::META)));
        assert_eq!(ask(ShardId(5), 1), Err(Refusal::UnknownShard(ShardId(5))));
        assert_eq!(ask(SHARD, 9), Err(Refusal::UnknownNode(NodeId(9))));
    }

    #[test]
    fn the_mover_and_other_plans_leave_a_sealed_shard_alone() {
        let sealed = seal(&map(), 1, Some("x")).unwrap();
        let drained = plan(&sealed, &Change::Rebalance, Rules::default(), 9, None)
            .unwrap()
            .map;
        assert!(!drained.steering.goal.contains_key(&SHARD));
        let seats = |node: u64| {
            let seats = sealed.seats_on(NodeId(node)).filter(|seat| seat.0 != SHARD);
            (NodeId(node), seats.collect::<BTreeMap<_, _>>())
        };
        let facts = Facts {
            knows: (1..=3).map(|node| (NodeId(node), sealed.steering.version)).collect(),
            seats: (1..=3).map(seats).collect(),
            ..Facts::default()
        };
        let decision = decide(&sealed, &facts, &Limits::default());
        assert_eq!(decision.map, None, "{:?}", decision.news);
    }
}
