//! Decisions one by one: what was recorded, what is seen, and what comes of it.

use super::*;

/// One move, step by step, as an operator reads it.
#[test]
fn a_move_in_words() {
    let mut world = World::new(1);
    world.join_4(None);
    let first = *world.map.steering.goal.keys().next().unwrap();
    let mut steps = Vec::new();
    for _ in 0..40 {
        world.adopt_all();
        world.catch_up();
        world.look();
        world.act(true, false);
        let step = world.map.steering.moves.get(&first).map(|one| one.step);
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    let all: Vec<Option<Step>> = Step::ALL.into_iter().map(Some).collect();
    assert_eq!(steps[..6], all[..], "{steps:?}");
    assert_eq!(world.map.steering.ended[0].what.reason, "node 4 joins");
}

/// Columns: recorded | the new replica follows | it votes | the old one is gone | pending | then recorded.
#[test]
fn a_record_goes_by_what_a_majority_has() {
    use Step::{CaughtUp, HandedOver, Joint, Learner, Planned, Removed};
    for (step, follows, votes, gone, pending, then) in [
        (Planned, true, false, false, true, Planned),
        (Planned, true, false, false, false, Learner),
        (Learner, false, false, false, false, Planned),
        (CaughtUp, false, false, false, false, Planned),
        (CaughtUp, false, true, false, true, CaughtUp),
        (CaughtUp, false, true, false, false, Joint),
        (Joint, true, false, false, false, CaughtUp),
        (HandedOver, true, false, false, false, CaughtUp),
        (HandedOver, false, true, true, true, HandedOver),
        (HandedOver, false, true, true, false, Removed),
    ] {
        let mut world = World::new(1);
        world.map = plan(&world.map, &Change::Join(node(4)), Rules::default(), 0, None)
            .unwrap()
            .map;
        let shard = *world
            .map
            .steering
            .goal
            .keys()
            .find(|shard| **shard != ShardId::META)
            .unwrap();
        let (from, old) = world.map.replicas_of(shard)[0];
        let (_, leader) = world.map.replicas_of(shard)[1];
        let new = world.map.next_replica();
        let one = crate::Move {
            id: 1,
            from: Some((from, old)),
            to: Some((NodeId(4), new)),
            step,
            back: false,
            forced: None,
            reason: String::new(),
            began_ms: 0,
        };
        world.map.steering.moves.insert(shard, one);
        world.look();
        let (map, mut facts, _) = world.looks.pop().unwrap();
        let group = facts.groups.get_mut(&shard).unwrap();
        group.leader = map.replicas_of(shard).iter().find(|r| r.1 == leader).unwrap().0;
        group.pending = pending;
        group.learners.extend(follows.then_some(new));
        group.voters[0].extend(votes.then_some(new));
        if gone {
            group.voters[0].remove(&old);
        }
        let decided = decide(&map, &facts, &world.limits).map.unwrap_or(map);
        let recorded = decided.steering.moves[&shard].step;
        assert_eq!(recorded, then, "{step:?} {follows} {votes} {gone} {pending}");
    }
}

/// Columns: closes in | forced | the move begins.
#[test]
fn a_closing_auction_is_not_disturbed() {
    for (closes_in_ms, force, begins) in [
        (None, None, true),
        (Some(30_001), None, true),
        (Some(30_000), None, false),
        (Some(5_000), Some("fire"), true),
    ] {
        let mut world = World::new(2);
        world.join_4(force);
        world
            .groups
            .values_mut()
            .for_each(|g| g.facts.closes_in_ms = closes_in_ms);
        world.adopt(NodeId(4));
        world.look();
        world.act(true, false);
        assert_eq!(
            !world.map.steering.moves.is_empty(),
            begins,
            "{closes_in_ms:?} {force:?}"
        );
    }
}

/// Columns: closes in | forced | it is handed over | what it waits for.
#[test]
fn what_a_draining_node_leads_is_handed_over_or_says_why_not() {
    let soon = Some("a live auction closes soon");
    for (closes_in_ms, force, goes, waits) in [
        (None, None, true, None),
        (Some(30_001), None, true, None),
        (Some(30_000), None, false, soon),
        (Some(5_000), Some("fire"), true, None),
    ] {
        let mut world = World::new(4);
        let drain = Change::Drain(NodeId(1));
        world.map = plan(&world.map, &drain, Rules::default(), 0, force).unwrap().map;
        world.adopt_all();
        world.look();
        let (map, mut facts, _) = world.looks.pop().unwrap();
        let mut groups = facts.groups.iter_mut();
        let led = groups.find(|(shard, group)| **shard != ShardId::META && group.leader == NodeId(1));
        let (&shard, group) = led.unwrap();
        group.closes_in_ms = closes_in_ms;
        let decision = decide(&map, &facts, &world.limits);
        let handed = |(of, _, work): &(ShardId, NodeId, Work)| *of == shard && matches!(work, Work::HandOver(_));
        let came = (
            decision.work.iter().any(handed),
            decision.waits.get(&shard).map(String::as_str),
        );
        assert_eq!(came, (goes, waits), "{closes_in_ms:?} {force:?}");
    }
}

/// Columns: silent for | other nodes | lost.
#[test]
fn a_silent_node_is_lost_after_its_grace_if_others_can_carry_its_shards() {
    for (silent, spare, lost) in [(299_999, true, false), (300_000, true, true), (900_000, false, false)] {
        let mut world = World::new(3);
        if spare {
            world.map = plan(&world.map, &Change::Join(node(4)), Rules::default(), 0, None)
                .unwrap()
                .map;
        }
        let facts = Facts {
            silent_ms: BTreeMap::from([(NodeId(2), silent)]),
            ..Facts::default()
        };
        let decision = decide(&world.map, &facts, &world.limits);
        let standing = decision.map.map_or(Standing::Active, |map| map.standing(NodeId(2)));
        assert_eq!(standing == Standing::Lost, lost, "{silent} {spare}");
    }
}
