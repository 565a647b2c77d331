//! A command says when its id was first sent: what may have been refused and forgotten since is refused again.

use super::*;
use crate::plant::{Plant, Plants};
use std::collections::BTreeSet;

const MINUTE: u64 = 60_000;

fn bid(key: Option<&str>, sent: Option<u64>, amount: Money) -> Command {
    let mut bid = command("a", "bob", key, Action::Bid { amount });
    bid.first_sent = sent.map(Stamp);
    bid
}

/// A long auction at 500, by the second rules.
fn live() -> World {
    let mut terms = rush_terms();
    (terms.duration_ms, terms.time.rush) = (86_400_000, None);
    let mut world = World::live(terms);
    world.shard.raise_rules(2);
    world.one(0, command("a", "ann", Some("first"), Action::Bid { amount: 500 }));
    world
}

/// What becomes of a bid of `amount`, first sent at 0 and judged at `at`, where the same id had been judged at `before` with
/// another amount or the same.
#[track_caller]
fn check(before: Option<(u64, Money)>, at: u64, sent: Option<u64>, amount: Money, want: Result<(), Reason>) {
    let mut world = live();
    if let Some((then, amount)) = before {
        world.one(then, bid(Some("k"), Some(0), amount));
    }
    let again = bid(Some("k"), sent, amount);
    world.beat(at);
    let door = world.shard.early(&again);
    let known = world
        .shard
        .known(&again.auction, &again.actor.id, &id("k"), body_hash(&again.action));
    let before = world.shard.parts();
    let judged = world.one(at, again.clone());
    assert_eq!(judged.outcome, want);
    if let (Some(door), None) = (door, known) {
        let low = amount <= 500 && door.outcome == Err(Reason::Low);
        assert!(door.outcome == want || low, "at the door: {door:?}");
    }
    if want == Err(Reason::Expired) {
        let (door, anywhere) = (world.shard.early(&again), world.shard.settled(&again));
        assert_eq!(door, anywhere, "at the door, and on any replica");
        let reason = if amount <= 500 { Reason::Low } else { Reason::Expired };
        assert_eq!(door.map(|v| v.outcome), Some(Err(reason)));
        assert_eq!(world.shard.parts().auctions, before.auctions, "no record, no change");
    }
}

#[test]
fn after_ten_minutes_less_a_second_nobody_knows_whether_it_was_refused() {
    let (min, s) = (MINUTE, 1_000);
    let expired = Err(Reason::Expired);
    // Never judged before.
    check(None, 10 * min - 2 * s, Some(0), 900, Ok(()));
    check(None, 10 * min - s - 1, Some(0), 900, Ok(()));
    check(None, 10 * min - s, Some(0), 900, expired);
    check(None, 10 * min, Some(0), 900, expired);
    check(None, 10 * min + s, Some(0), 900, expired);
    // Who says nothing, or says what can't be yet, is judged as new; as is who says a later moment.
    check(None, 10 * min, None, 900, Ok(()));
    check(None, 10 * min, Some(u64::MAX), 900, Ok(()));
    check(None, 10 * min, Some(2 * s), 900, Ok(()));
    // The door tells of a price that is too low first: the bidder can do something about that.
    check(None, 10 * min, Some(0), 1, expired);
}

#[test]
fn what_is_remembered_is_told_whatever_its_age() {
    let (min, s) = (MINUTE, 1_000);
    // Refused at 0:05 for its amount, remembered until 10:05.
    check(Some((5 * s, 1)), 10 * min + 4 * s, Some(0), 1, Err(Reason::Low));
    check(Some((5 * s, 1)), 10 * min + 4 * s, Some(0), 900, Err(Reason::DupBody));
    check(Some((5 * s, 1)), 10 * min + 6 * s, Some(0), 900, Err(Reason::Expired));
    // Accepted: for ever.
    check(Some((5 * s, 900)), 30 * min, Some(0), 900, Ok(()));
    check(Some((5 * s, 900)), 30 * min, Some(0), 901, Err(Reason::DupBody));
}

#[test]
fn the_first_rules_and_commands_without_an_id_know_nothing_of_it() {
    let mut world = live();
    world.beat(20 * MINUTE);
    assert_eq!(world.one(20 * MINUTE, bid(None, Some(0), 900)).outcome, Ok(()));
    world.one(20 * MINUTE, command("a", "ann", None, Action::Bid { amount: 950 }));
    world.shard.rules = 1;
    let (old, silent) = (bid(Some("k"), Some(0), 2_000), bid(Some("k"), None, 2_000));
    let mut other = World {
        shard: world.shard.clone(),
        n: world.n,
    };
    assert_eq!(world.shard.early(&old), None);
    assert_eq!(world.shard.settled(&old), None);
    assert_eq!(world.one(20 * MINUTE, old).outcome, Ok(()));
    // To the state of the first rules it makes no difference that it was said.
    other.one(20 * MINUTE, silent);
    assert_eq!(other.shard.digest(), world.shard.digest());
}

#[test]
fn a_creation_that_comes_ten_minutes_late_makes_no_auction() {
    let mut world = live();
    let mut late = command(
        "b",
        "seller",
        Some("c"),
        Action::Create(Box::new(definition(rush_terms()))),
    );
    late.first_sent = Some(Stamp(0));
    assert_eq!(world.one(10 * MINUTE, late.clone()).outcome, Err(Reason::Expired));
    late.first_sent = Some(Stamp(9 * MINUTE));
    assert_eq!(world.one(10 * MINUTE, late).outcome, Ok(()));
}

/// Short memory, so that many ids live longer than it.
const LIMITS: Limits = Limits {
    refusals_max: 1_000,
    refusals_ms: 4_000,
};

/// One id on its way: what it says, and which of its copies were answered how.
struct Sent {
    command: Command,
    accepted: bool,
    refused: bool,
}

/// A story of people who send their bids again and again, by any replica and after any time, and say honestly (by a clock
/// that may be a second ahead) when they sent them first. How many were told both 'accepted' and 'refused'; and how many
/// copies were refused as too old.
fn torn(seed: u64, plant: Option<Plant>) -> (usize, usize) {
    let mut dice = Dice(seed);
    let mut terms = rush_terms();
    (terms.duration_ms, terms.time.rush) = (86_400_000, None);
    let mut world = World::with(LIMITS);
    world.shard.plants = Plants { one: plant };
    world.shard.raise_rules(2);
    let create = Action::Create(Box::new(definition(terms)));
    for action in [create, Action::Start { schedule_version: None }] {
        assert_eq!(world.one(0, command("a", "seller", None, action)).outcome, Ok(()));
    }
    let (mut behind, mut sent, mut at, mut expired) = (world.shard.clone(), Vec::<Sent>::new(), 0, 0);
    for n in 0..400 {
        at += *dice.pick(&[1, 50, 700, 2_500]);
        match dice.below(10) {
            // A pause refuses what would win later; and prices rise.
            0 => {
                world.one(
                    at,
                    command(
                        "a",
                        "seller",
                        None,
                        Action::Pause {
                            for_ms: Some(1_000 + dice.below(3_000)),
                        },
                    ),
                );
            }
            1 => behind = world.shard.clone(),
            _ => {}
        }
        if sent.is_empty() || dice.one_in(3) {
            let (who, amount) = (*dice.pick(&["ann", "bob"]), world.view().price + 1 + dice.below(40));
            let mut command = command("a", who, Some(&format!("k{n}")), Action::Bid { amount });
            command.first_sent = Some(Stamp(at + dice.below(999)));
            sent.push(Sent {
                command,
                accepted: false,
                refused: false,
            });
        }
        let newest = sent.len() as u64 - 1;
        let one = &mut sent[(newest - dice.below(newest + 1).min(dice.below(newest + 1))) as usize];
        let replica = if dice.one_in(2) { &behind } else { &world.shard };
        let outcome = match replica.settled(&one.command) {
            Some(told) => told.outcome,
            None => world.one(at, one.command.clone()).outcome,
        };
        expired += usize::from(outcome == Err(Reason::Expired));
        (one.accepted, one.refused) = (one.accepted || outcome.is_ok(), one.refused || outcome.is_err());
    }
    (sent.iter().filter(|one| one.accepted && one.refused).count(), expired)
}

#[test]
fn an_id_that_was_refused_once_is_never_accepted() {
    let mut expired = 0;
    for seed in seeds(120) {
        let (torn, old) = torn(seed, None);
        assert_eq!(torn, 0, "{}", replay(seed, "an_id_that_was_refused_once"));
        expired += old;
    }
    if std::env::var_os("AUCTION_SEED").is_none() {
        assert!(expired > 1_000, "{expired} too old: the stories are too tame");
        for plant in [Plant::NeverTooOld, Plant::ForgetsEarly] {
            let found: BTreeSet<u64> = (0..120).filter(|&seed| torn(seed, Some(plant)).0 > 0).collect();
            assert!(found.len() > 20, "{plant:?} is found out by {found:?} only");
        }
    }
}
