//! Exceptions to the arithmetic: what an operator wants of one shard, who wants it, and for how long.
//!
//! The balancer's table over rendezvous order, as in Ceph's upmap, with its lesson: an exception that was right once may
//! put two replicas on one machine later. So each is looked at again whenever a goal is computed; one that is expired,
//! names a node that doesn't take shards, or would spoil the spread over zones is left out, and the plan says so.
//!
//! Deliberately absent: erasing them. What is void today may hold again tomorrow; `plan` drops the expired ones.

use crate::{ClusterMap, NodeId, ShardId};
use std::collections::BTreeSet;

/// Most overrides.
pub(crate) const OVERRIDES_MAX: usize = 1024;

/// What is wanted of a shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wish {
    /// A replica on this node.
    Pin(NodeId),
    /// None there.
    Exclude(NodeId),
    /// The leader there, if a replica is.
    PreferLeader(NodeId),
}

impl Wish {
    /// The node that it speaks of.
    #[must_use]
    pub fn node(self) -> NodeId {
        match self {
            Wish::Pin(node) | Wish::Exclude(node) | Wish::PreferLeader(node) => node,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Wish::Pin(_) => "pin",
            Wish::Exclude(_) => "exclude",
            Wish::PreferLeader(_) => "prefer-leader",
        }
    }
}

/// One exception.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// Of which shard.
    pub shard: ShardId,
    /// What.
    pub wish: Wish,
    /// Who wants it.
    pub owner: String,
    /// Until when, wall time in ms.
    pub until_ms: u64,
}

/// What holds of a shard's overrides now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Holding {
    pub(crate) pins: Vec<NodeId>,
    pub(crate) excluded: BTreeSet<NodeId>,
    pub(crate) leader: Option<NodeId>,
}

/// The overrides of a shard that hold, and why each other one doesn't.
pub(crate) fn holding(map: &ClusterMap, shard: ShardId, replicas: usize, now_ms: u64) -> (Holding, Vec<String>) {
    let (mut holding, mut void) = (Holding::default(), Vec::new());
    let zone = |node: NodeId| map.nodes.get(&node).map(|known| known.zone.as_str());
    let taking: Vec<NodeId> = map.nodes.keys().copied().filter(|node| map.share(*node) > 0).collect();
    let zones: BTreeSet<_> = taking.iter().map(|node| zone(*node)).collect();
    for o in map.steering.overrides.iter().filter(|o| o.shard == shard) {
        let node = o.wish.node();
        let why = match o.wish {
            _ if o.until_ms <= now_ms => Some("it has expired".to_owned()),
            Wish::Exclude(_) => None,
            _ if map.share(node) == 0 => Some(format!("node {} takes no shards", node.0)),
            Wish::Pin(_) if holding.pins.len() >= replicas => Some("more pins than replicas".into()),
            Wish::Pin(_) if zones.len() >= replicas && holding.pins.iter().any(|pin| zone(*pin) == zone(node)) => {
                Some("two pins in one zone".into())
            }
            Wish::Pin(_) | Wish::PreferLeader(_) => None,
        };
        match (why, o.wish) {
            (Some(why), wish) => void.push(format!(
                "shard {}: {} {} of {} is left out: {why}",
                shard.0,
                wish.word(),
                node.0,
                o.owner
            )),
            (None, Wish::Pin(node)) => holding.pins.push(node),
            (None, Wish::Exclude(node)) => {
                holding.excluded.insert(node);
            }
            (None, Wish::PreferLeader(node)) => holding.leader = Some(node),
        }
    }
    // Excluding all but fewer than the replicas would shrink the shard: then exclusions are left out, all of them.
    let left = taking.iter().filter(|node| !holding.excluded.contains(node)).count();
    if !holding.excluded.is_empty() && left < replicas.min(taking.len()) {
        holding.excluded.clear();
        void.push(format!(
            "shard {}: exclusions are left out: too few nodes would remain",
            shard.0
        ));
    }
    (holding, void)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Change, Node, Rules, explain, place, plan, plan::OVERRIDE_MAX_MS};

    const SHARD: ShardId = ShardId(1);

    /// Six shards of three replicas on four nodes, each in a zone of its own.
    fn born() -> ClusterMap {
        let node = |id| Node {
            id: NodeId(id),
            zone: format!("zone-{id}"),
            region: String::new(),
            weight: 1,
            grpc: String::new(),
            http: String::new(),
            trunk: String::new(),
        };
        let bare = ClusterMap {
            shards: 6,
            nodes: (1..=4).map(|id| (NodeId(id), node(id))).collect(),
            ..ClusterMap::default()
        };
        place(&bare, Rules::default())
    }

    fn until(wish: Wish, until_ms: u64) -> Override {
        Override {
            shard: SHARD,
            wish,
            owner: "ann".into(),
            until_ms,
        }
    }

    fn void(wish: Wish) -> String {
        let (word, node) = (wish.word(), wish.node().0);
        format!("shard 1: {word} {node} of ann is left out: it has expired")
    }

    /// Whether a wish until `until_ms` holds at `now_ms`, to the arithmetic and to who asks why a shard is where it is.
    fn check(wish: Wish, until_ms: u64, now_ms: u64, holds: bool) {
        let what = format!("{wish:?} until {until_ms}, at {now_ms}");
        let mut map = born();
        map.steering.overrides.push(until(wish, until_ms));
        let mut expect = (Holding::default(), Vec::new());
        match wish {
            _ if !holds => expect.1.push(void(wish)),
            Wish::Pin(node) => expect.0.pins.push(node),
            Wish::Exclude(node) => {
                expect.0.excluded.insert(node);
            }
            Wish::PreferLeader(node) => expect.0.leader = Some(node),
        }
        assert_eq!(holding(&map, SHARD, 3, now_ms), expect, "{what}");
        let told = explain(&map, SHARD, Rules::default(), now_ms);
        assert_eq!(told.void, expect.1, "{what}");
        assert_eq!(told.overrides, map.steering.overrides, "{what}: told while it is there");
    }

    #[test]
    fn a_wish_holds_until_its_end_and_no_longer() {
        for wish in [
            Wish::Pin(NodeId(4)),
            Wish::Exclude(NodeId(1)),
            Wish::PreferLeader(NodeId(2)),
        ] {
            check(wish, 1_000, 0, true);
            check(wish, 1_000, 999, true);
            check(wish, 1_000, 1_000, false);
            check(wish, 1_000, 1_001, false);
            check(wish, u64::MAX, u64::MAX - 1, true);
            check(wish, 0, 0, false);
        }
    }

    /// Any plan forgets what is over; one that computes goals has the shard go home, too.
    #[test]
    fn a_plan_after_its_end_forgets_a_wish_and_the_shard_goes_home() {
        let home = born();
        let away = home.preferred_leader(SHARD).unwrap();
        let wanted = Change::Override(until(Wish::Exclude(away), 1_000));
        let mut map = plan(&home, &wanted, Rules::default(), 0, None).unwrap().map;
        // It went: the move is over, and the goal with it.
        let goal = map.steering.goal.remove(&SHARD).unwrap();
        let spare = *goal
            .iter()
            .find(|node| home.replica_on(SHARD, **node).is_none())
            .unwrap();
        let fresh = map.next_replica();
        for seat in &mut map.placement.get_mut(&SHARD).unwrap().replicas {
            if seat.0 == away {
                *seat = (spare, fresh);
            }
        }
        let check = |change: Change, now_ms: u64, kept: bool, goes_home: bool| {
            let next = plan(&map, &change, Rules::default(), now_ms, None).unwrap();
            let overrides = next.map.steering.overrides.len();
            assert_eq!(overrides, usize::from(kept), "{change} at {now_ms}");
            let moves = next.moves.iter().filter(|one| one.shard == SHARD);
            let moves: Vec<_> = moves.map(|one| (one.from, one.to, one.reason.as_str())).collect();
            let back = (Some(spare), Some(away), "rebalance");
            let expect = if goes_home { vec![back] } else { Vec::new() };
            assert_eq!(moves, expect, "{change} at {now_ms}");
            assert!(next.warnings.is_empty(), "{change} at {now_ms}: {:?}", next.warnings);
        };
        check(Change::Rebalance, 999, true, false);
        check(Change::Pause, 999, true, false);
        check(Change::Pause, 1_000, false, false);
        check(Change::Rebalance, 1_000, false, true);
        check(Change::Rebalance, 1_001, false, true);
    }

    #[test]
    fn who_wants_something_until_a_moment_that_is_over_is_told_so() {
        let wish = Wish::Exclude(born().preferred_leader(SHARD).unwrap());
        let check = |now_ms: u64, warnings: &[String], moves: bool| {
            let wanted = Change::Override(until(wish, 1_000));
            let next = plan(&born(), &wanted, Rules::default(), now_ms, None).unwrap();
            assert_eq!(next.warnings, warnings, "at {now_ms}");
            assert_eq!(!next.moves.is_empty(), moves, "at {now_ms}");
        };
        check(999, &[], true);
        check(1_000, &[void(wish)], false);
    }

    #[test]
    fn nothing_is_wanted_for_longer_than_a_year() {
        let check = |until_ms: u64, now_ms: u64, kept_ms: u64| {
            let wanted = Change::Override(until(Wish::Exclude(NodeId(1)), until_ms));
            let next = plan(&born(), &wanted, Rules::default(), now_ms, None).unwrap();
            let kept: Vec<u64> = next.map.steering.overrides.iter().map(|o| o.until_ms).collect();
            assert_eq!(kept, [kept_ms], "until {until_ms}, asked at {now_ms}");
        };
        let now = 1_700_000_000_000;
        let year = now + OVERRIDE_MAX_MS;
        check(year - 1, now, year - 1);
        check(year, now, year);
        check(year + 1, now, year);
        check(u64::MAX, now, year);
        // Where there is no year left.
        check(u64::MAX, u64::MAX - 1, u64::MAX);
    }
}
