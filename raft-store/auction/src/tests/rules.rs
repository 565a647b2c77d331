//! Versions of the rules: an auction keeps those that it went live with, whatever build applies its log.
#![allow(clippy::unwrap_used)]

use super::*;

fn start(world: &mut World, auction: &str, at: u64) {
    let create = Action::Create(Box::new(definition(rush_terms())));
    assert_eq!(world.one(at, command(auction, "seller", None, create)).outcome, Ok(()));
    let start = Action::Start { schedule_version: None };
    assert_eq!(world.one(at, command(auction, "seller", None, start)).outcome, Ok(()));
}

fn bid(world: &mut World, auction: &str, at: u64, amount: u64) -> Result<(), Reason> {
    world
        .one(at, command(auction, "ann", None, Action::Bid { amount }))
        .outcome
}

#[test]
fn an_auction_keeps_the_rules_that_it_went_live_with() {
    let mut world = World::new();
    start(&mut world, "before", 0);
    let before = world.shard.digest();
    world.shard.raise_rules(1);
    assert_eq!(world.shard.digest(), before, "rules that it has already change nothing");
    world.shard.raise_rules(3);
    assert_eq!(world.shard.rules(), RULES_VERSION, "never beyond what this code knows");
    start(&mut world, "after", 1_000);
    // More than a thousand times the least next bid, which is 100.
    let jump = 100_001;
    assert_eq!(
        bid(&mut world, "before", 1_001, jump),
        Ok(()),
        "went live by the first rules"
    );
    let newest = if RULES_VERSION >= 3 {
        Err(Reason::TooBig)
    } else {
        Ok(())
    };
    assert_eq!(bid(&mut world, "after", 1_002, jump), newest);

    world.shard.raise_rules(1);
    assert_eq!(world.shard.rules(), RULES_VERSION, "never back");
    let restored = Shard::from_parts(Limits::default(), world.shard.parts()).unwrap();
    assert_eq!(restored.digest(), world.shard.digest(), "a snapshot keeps them");
    assert_eq!(restored.rules(), world.shard.rules());
}

#[test]
fn parts_of_newer_rules_make_no_shard() {
    let mut world = World::new();
    start(&mut world, "a", 0);
    let good = world.shard.parts();
    let (mut shard, mut auction) = (good.clone(), good.clone());
    shard.rules = RULES_VERSION + 1;
    auction.auctions[0].rules = RULES_VERSION + 1;
    assert!(Shard::from_parts(Limits::default(), good).is_ok());
    for parts in [shard, auction] {
        let refused = Shard::from_parts(Limits::default(), parts).unwrap_err();
        assert_eq!(refused, BadParts("newer rules than this build knows"));
    }
}

#[test]
fn replicas_that_miss_the_change_of_rules_differ_in_their_digest() {
    let (mut told, mut missed) = (World::new(), World::new());
    told.shard.raise_rules(2);
    for world in [&mut told, &mut missed] {
        start(world, "a", 0);
    }
    assert_ne!(told.shard.digest(), missed.shard.digest());
}
