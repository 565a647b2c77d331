//! Once: the same id gets its first verdict, for as long as it is remembered; and the door.

use super::*;

fn bid(who: &str, key: &str, amount: u64) -> Command {
    command("a", who, Some(key), Action::Bid { amount })
}

fn small() -> Limits {
    Limits {
        refusals_max: 3,
        refusals_ms: 1_000,
    }
}

fn live(limits: Limits) -> World {
    let mut world = World::with(limits);
    let create = command(
        "a",
        "seller",
        Some("c"),
        Action::Create(Box::new(definition(rush_terms()))),
    );
    world.one(0, create);
    world.one(
        0,
        command("a", "seller", Some("s"), Action::Start { schedule_version: None }),
    );
    world
}

#[test]
fn the_first_verdict_comes_again() {
    let mut world = live(Limits::default());
    let rows = [
        ("accepted", bid("ann", "k1", 100)),
        ("low", bid("bob", "k1", 100)),
        ("raise", bid("bob", "k2", 150)),
        ("leading", bid("bob", "k3", 151)),
        ("auth", command("a", "bob", Some("k4"), Action::Resume)),
        (
            "the start",
            command("a", "seller", Some("s"), Action::Start { schedule_version: None }),
        ),
        (
            "the creation",
            command(
                "a",
                "seller",
                Some("c"),
                Action::Create(Box::new(definition(rush_terms()))),
            ),
        ),
    ];
    let first = rows.clone().map(|(_, command)| world.one(10, command));
    // Much happens; then everything is sent again, to the log and to the door.
    world.one(20, bid("cyd", "k1", 500));
    world.one(30, command("a", "op", None, Action::Cancel { reason: String::new() }));
    let seq = world.view().seq;
    for ((name, command), first) in rows.into_iter().zip(first) {
        let body = body_hash(&command.action);
        let known = world
            .shard
            .known(&command.auction, &command.actor.id, command.id.as_ref().unwrap(), body);
        let again = world.one(40, command);
        assert_eq!(
            again,
            Verdict {
                dup: true,
                ..first.clone()
            },
            "{name}"
        );
        assert_eq!(known, Some(Known::Verdict(again)), "{name}");
    }
    assert_eq!(world.view().seq, seq);
}

#[test]
fn another_body_under_a_known_id() {
    let mut world = live(Limits::default());
    world.one(1, bid("ann", "k", 100));
    world.one(1, bid("bob", "k", 100)); // refused; the same id of another actor is another key
    for who in ["ann", "bob"] {
        let other = bid(who, "k", 777);
        let verdict = world.one(2, other.clone());
        assert_eq!(
            (verdict.outcome, verdict.seq, verdict.dup),
            (Err(Reason::DupBody), 2, false)
        );
        let known = world
            .shard
            .known(&id("a"), &id(who), &id("k"), body_hash(&other.action));
        assert_eq!(known, Some(Known::OtherBody(verdict)));
    }
    // A maximum of the same amount is another body, too.
    let maximum = command("a", "ann", Some("k"), Action::MaxBid { maximum: 100 });
    assert_eq!(world.one(2, maximum).outcome, Err(Reason::DupBody));
    assert_eq!(world.view().bids, 1);
}

#[test]
fn a_refusal_is_remembered_for_its_time_and_an_accepted_id_for_ever() {
    let mut world = live(small());
    world.one(100, bid("ann", "yes", 100));
    world.one(100, bid("bob", "no", 100));
    assert_eq!(world.one(1_099, bid("bob", "no", 100)).outcome, Err(Reason::Low));
    assert!(world.one(1_099, bid("bob", "no", 100)).dup);
    assert!(!world.one(1_100, bid("bob", "no", 100)).dup, "judged anew at 1,100");
    assert!(world.one(50_000, bid("ann", "yes", 100)).dup);
}

#[test]
fn with_many_refusals_alive_the_door_is_shut() {
    let mut world = live(small());
    world.one(0, bid("ann", "k", 100));
    let good = bid("bob", "good", 1_000);
    for (key, at) in [("k1", 100), ("k2", 200), ("k3", 300)] {
        assert_eq!(world.shard.early(&good), None);
        world.one(at, bid("bob", key, 1));
    }
    let early = world.shard.early(&good).expect("the bound is used up");
    assert_eq!((early.outcome, early.seq), (Err(Reason::Rate), 2));
    assert_eq!(world.shard.early(&bid("cyd", "good", 1_000)), None, "others go on");
    // What was in flight is judged and remembered, all the same: none is evicted.
    assert_eq!(world.one(400, bid("bob", "k4", 1)).outcome, Err(Reason::Low));
    assert!(world.one(500, bid("bob", "k1", 1)).dup);
    // The first two of four are over: room again.
    world.beat(1_199);
    assert_eq!(world.shard.early(&good).map(|v| v.outcome), Some(Err(Reason::Rate)));
    world.beat(1_200);
    assert_eq!(world.shard.early(&good), None);
    // Long after, nothing is kept of them, though nobody asked.
    world.beat(2_000);
    let kept: Vec<_> = world.shard.parts().auctions[0]
        .once
        .iter()
        .map(|o| o.id.to_string())
        .collect();
    assert_eq!(kept, ["k", "c", "s"]);
}

#[test]
fn early_refusals_are_of_absorbing_facts_only() {
    let early = |world: &World, command: Command| world.shard.early(&command).map(|v| v.outcome.unwrap_err().code());
    let mut world = live(Limits::default());
    world.one(0, bid("ann", "k", 200));
    let rows = [
        ("below the least", bid("bob", "e", 200), Some("low")),
        ("enough", bid("bob", "e", 201), None),
        ("the leader may be outbid meanwhile", bid("ann", "e", 1), None),
        ("the seller is told so by the log", bid("seller", "e", 1), None),
        ("so is a guest", bid("guest-1", "e", 1), None),
        (
            "a maximum below the least",
            command("a", "bob", Some("e"), Action::MaxBid { maximum: 200 }),
            Some("low"),
        ),
        ("too much is no absorbing fact", bid("bob", "e", u64::MAX), None),
        (
            "unknown may be created",
            command("b", "bob", Some("e"), Action::Bid { amount: 1 }),
            None,
        ),
        ("not a bid", command("a", "bob", Some("e"), Action::Resume), None),
    ];
    for (name, command, want) in rows {
        assert_eq!(early(&world, command), want, "{name}");
    }
    world.one(1, command("a", "seller", None, Action::Pause { for_ms: None }));
    assert_eq!(
        early(&world, bid("bob", "e", 200)),
        Some("low"),
        "prices don't fall in a pause"
    );
    assert_eq!(early(&world, bid("bob", "e", 201)), None, "a pause ends");
    world.one(
        2,
        command("a", "seller", None, Action::Cancel { reason: String::new() }),
    );
    assert_eq!(early(&world, bid("bob", "e", 900)), Some("closed"));
    assert_eq!(early(&world, bid("ann", "e", 900)), Some("closed"));
}
