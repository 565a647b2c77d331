//! Settled auctions: when they settle, what they answer for ever, and that where they lie never shows.

use super::*;
use crate::tests::repack::{LIMITS, pack, story};
use std::{collections::BTreeMap, sync::Arc};

/// A world of the newest rules with a live auction `a`.
fn live() -> World {
    let mut world = World::with(LIMITS);
    world.shard.raise_rules(RULES_VERSION);
    open(&mut world, "a", 0);
    world
}

fn open(world: &mut World, auction: &str, at: u64) {
    let create = Action::Create(Box::new(definition(rush_terms())));
    let start = Action::Start { schedule_version: None };
    for (key, action) in [("create", create), ("start", start)] {
        assert_eq!(
            world.one(at, command(auction, "seller", Some(key), action)).outcome,
            Ok(())
        );
    }
}

fn cancel(auction: &str) -> Command {
    command(auction, "op", Some("end"), Action::Cancel { reason: "over".into() })
}

fn bid(auction: &str, who: &str, key: &str, amount: u64) -> Command {
    command(auction, who, Some(key), Action::Bid { amount })
}

fn streams() -> (Action, Action) {
    let stream = id("s1");
    let up = Action::StreamUp {
        node: 1,
        stream: stream.clone(),
    };
    (up, Action::StreamDown { stream })
}

#[test]
fn an_auction_settles_when_nothing_can_change_it_any_more() {
    let (up, down) = streams();
    let mut world = live();
    world.one(1, command("a", "system", Some("up"), up.clone()));
    assert_eq!(
        world.one(2, bid("a", "ann", "low", 1)).outcome,
        Err(Reason::Low),
        "remembered until 2,002"
    );
    assert_eq!(world.one(3, cancel("a")).outcome, Ok(()));
    let settled = |world: &World| world.shard.settled_count();
    assert_eq!(settled(&world), 0, "a stream is up, a refusal is remembered");
    assert_eq!(world.one(4, command("a", "system", Some("d"), down)).outcome, Ok(()));
    assert_eq!(settled(&world), 0, "a refusal is remembered");
    let again = command("a", "system", Some("up2"), up);
    assert_eq!(world.one(5, again).outcome, Err(Reason::Closed), "no stream comes back");
    let low = world.one(6, bid("a", "ann", "low", 1));
    assert_eq!((low.outcome, low.dup), (Err(Reason::Low), true), "its first verdict");
    world.entry(Entry {
        at: Stamp(2_500),
        behind: vec![(id("a"), Stamp(7))],
        ..Entry::default()
    });
    assert_eq!(settled(&world), 0, "its watermark is behind");
    world.beat(2_501);
    assert_eq!(settled(&world), 1);
    assert_eq!(world.view().phase, Phase::Closed(Outcome::Cancelled));
}

#[test]
fn a_settled_auction_answers_for_ever_and_remembers_no_refusal() {
    let (up, down) = streams();
    let mut world = live();
    assert_eq!(world.one(3, cancel("a")).outcome, Ok(()));
    let view = world.view();
    // Refusals leave no record: the digest knows of none.
    let before = world.shard.parts().auctions;
    for (command, reason) in [
        (bid("a", "ann", "low", 1), Reason::Closed),
        (bid("a", "ann", "new", 500), Reason::Closed),
        (command("a", "system", Some("up3"), up), Reason::Closed),
        (command("a", "system", Some("d3"), down), Reason::Closed),
        (
            command(
                "a",
                "bob",
                Some("c"),
                Action::Create(Box::new(definition(rush_terms()))),
            ),
            Reason::Taken,
        ),
    ] {
        let told = world.one(2_600, command.clone());
        assert_eq!((told.outcome, told.dup), (Err(reason), false), "{command:?}");
        assert_eq!(
            world.shard.early(&command).map(|v| v.outcome),
            Some(Err(reason)),
            "at the door, too"
        );
        assert_eq!(
            world.shard.settled(&command).map(|v| v.outcome),
            Some(Err(reason)),
            "anywhere"
        );
    }
    let known = world.one(2_700, cancel("a"));
    assert_eq!((known.outcome, known.dup), (Ok(()), true));
    let other = command("a", "op", Some("end"), Action::Resume);
    assert_eq!(world.one(2_800, other).outcome, Err(Reason::DupBody));
    assert_eq!(world.shard.parts().auctions, before);
    assert_eq!((world.view(), world.shard.clamped()), (view, 0));
}

#[test]
fn by_the_first_rules_nothing_settles_and_what_is_over_settles_when_they_are_raised() {
    let mut world = World::with(LIMITS);
    for auction in ["b", "a", "c"] {
        open(&mut world, auction, 0);
        world.one(1, cancel(auction));
    }
    open(&mut world, "d", 2);
    world.beat(10_000);
    assert_eq!(world.shard.settled_count(), 0);
    world.shard.raise_rules(RULES_VERSION);
    let order: Vec<String> = world.shard.warm().map(|settled| settled.id().to_string()).collect();
    assert_eq!(order, ["a", "b", "c"], "in order of id");
    assert_eq!(world.shard.count(), (4, 1));
    assert_eq!(world.shard.views().count(), 4);
}

#[test]
fn only_the_lowest_number_goes_and_what_went_comes_as_a_guest() {
    let mut world = live();
    for auction in ["b", "c"] {
        open(&mut world, auction, 1);
        world.one(2, cancel(auction));
    }
    let digest = world.shard.digest();
    assert!(world.shard.page_out(1).is_none(), "not the lowest");
    let b = world.shard.page_out(0).expect("the lowest");
    assert!(world.shard.page_out(0).is_none(), "gone already");
    assert!(world.shard.page_out(7).is_none(), "never was");
    assert_eq!((world.shard.cold().count, world.shard.digest()), (1, digest));
    assert!(!world.shard.is_here(&id("b")) && world.shard.view(&id("b")).is_none());
    world.shard.page_in(b.clone());
    world.shard.page_in(b);
    assert_eq!(
        world.shard.view(&id("b")).map(|view| view.phase),
        Some(Phase::Closed(Outcome::Cancelled))
    );
    assert_eq!(
        world.shard.parts().auctions.len(),
        2,
        "a guest is no part: {:?}",
        world.shard.cold()
    );
    assert_eq!(world.one(3, bid("b", "ann", "k", 9)).outcome, Err(Reason::Closed));
    assert!(world.shard.send_away(1).is_none(), "no guest");
    assert!(world.shard.send_away(0).is_some());
    assert!(world.shard.send_away(0).is_none());
    assert!(!world.shard.is_here(&id("b")));
}

#[test]
fn parts_of_settled_auctions_that_contradict_themselves_are_refused() {
    let mut world = live();
    open(&mut world, "b", 1);
    for auction in ["a", "b"] {
        world.one(2, cancel(auction));
    }
    let change = |change: fn(&mut Parts)| {
        let mut parts = world.shard.parts();
        change(&mut parts);
        Shard::from_parts(LIMITS, parts).map(|shard| shard.digest() == world.shard.digest())
    };
    assert_eq!(change(|_| {}), Ok(true));
    assert_eq!(
        change(|p| p.auctions.swap(0, 1)),
        Err(BadParts("settled auctions with a gap"))
    );
    assert_eq!(
        change(|p| p.cold.count = 1),
        Err(BadParts("settled auctions with a gap"))
    );
    assert_eq!(
        change(|p| p.auctions[1].id = id("a")),
        Err(BadParts("an auction twice"))
    );
    assert_eq!(
        change(|p| p.auctions[1].phase = Phase::Live),
        Err(BadParts("settled, and not over"))
    );
    assert_eq!(change(|p| p.auctions[1].price += 1), Ok(false), "the digest tells");
    assert_eq!(
        change(|p| p.cold.sum = p.cold.sum.plus(&[1; 32])),
        Ok(false),
        "the digest tells"
    );
}

#[test]
fn sums_carry() {
    let mut one = [0; 32];
    one[0] = 1;
    let most = Sum([0xff; 32]);
    assert_eq!(most.plus(&one), Sum([0; 32]));
    let mut half = [0; 32];
    half[15] = 0x80;
    let mut whole = [0; 32];
    whole[16] = 1;
    assert_eq!(Sum(half).plus(&half), Sum(whole));
}

/// A replica that pages as it likes, over a store that is a map of plain values.
struct Pager {
    shard: Shard,
    store: BTreeMap<u64, AuctionParts>,
}

impl Pager {
    fn apply(&mut self, entry: &Entry, forgets: bool) -> Applied {
        let mut guests = Vec::new();
        for stamped in &entry.commands {
            let wanted = &stamped.command.auction;
            let Some(parts) = self.store.values().find(|parts| parts.id == *wanted) else {
                continue;
            };
            let number = parts.settled.unwrap();
            if number < self.shard.cold().count && !self.shard.is_here(wanted) && !forgets {
                self.shard
                    .page_in(Arc::new(Settled::from_parts(parts.clone()).unwrap()));
                guests.push(number);
            }
        }
        let applied = self.shard.apply(entry);
        for number in guests {
            assert!(self.shard.send_away(number).is_some());
        }
        applied
    }

    /// Pages some out, and now and then comes back from a snapshot, with what the store had then and more.
    fn drift(&mut self, dice: &mut Dice) {
        let most = dice.below(3) as usize;
        let warm: Vec<Arc<Settled>> = self.shard.warm().take(most).cloned().collect();
        for settled in warm {
            self.store.insert(settled.number(), settled.parts());
            assert!(self.shard.page_out(settled.number()).is_some());
        }
        if dice.one_in(8) {
            let parts = self.shard.parts();
            let restored = Shard::from_parts(LIMITS, parts.clone()).unwrap();
            assert_eq!((restored.parts(), restored.digest()), (parts, self.shard.digest()));
            self.shard = restored;
        }
    }
}

/// The first difference between a replica that keeps all in memory and one that pages.
fn difference(seed: u64, forgets: bool) -> (Option<String>, u64) {
    let dice = &mut Dice(seed ^ 0xc01d);
    let log = pack(&story(seed), seed);
    let raised = dice.below(1 + log.len() as u64 / 2) as usize;
    let mut straight = Shard::new(LIMITS);
    let mut paging = Pager {
        shard: Shard::new(LIMITS),
        store: BTreeMap::new(),
    };
    for (i, entry) in log.iter().enumerate() {
        if i == raised {
            straight.raise_rules(RULES_VERSION);
            paging.shard.raise_rules(RULES_VERSION);
        }
        if straight.apply(entry) != paging.apply(entry, forgets) {
            return (Some(format!("entry {i} was judged otherwise")), 0);
        }
        if straight.digest() != paging.shard.digest() {
            return (Some(format!("after entry {i} the digests differ")), 0);
        }
        paging.drift(dice);
    }
    // All together again, as a backup has it.
    let mut parts = paging.shard.parts();
    let cold = paging.store.range(..parts.cold.count).map(|(_, parts)| parts.clone());
    let (settled, mut going): (Vec<_>, Vec<_>) = parts.auctions.into_iter().partition(|p| p.settled.is_some());
    going.extend(cold.chain(settled));
    (parts.auctions, parts.cold) = (going, Cold::default());
    let whole = Shard::from_parts(LIMITS, parts).unwrap();
    let same = whole.digest() == straight.digest() && whole.parts() == straight.parts();
    (
        (!same).then(|| "all together isn't the whole".into()),
        paging.shard.cold().count,
    )
}

#[test]
fn where_a_settled_auction_lies_never_shows() {
    let mut cold = 0;
    for seed in seeds(300) {
        let (difference, paged) = difference(seed, false);
        assert_eq!(difference, None, "{}", replay(seed, "where_a_settled_auction_lies"));
        cold += paged;
    }
    assert!(
        cold > 100 || std::env::var_os("AUCTION_SEED").is_some(),
        "{cold} paged out: too tame"
    );
}

#[test]
fn an_apply_that_forgets_what_was_paged_out_is_caught() {
    let caught = (0..300).find(|&seed| difference(seed, true).0.is_some());
    assert!(caught.is_some(), "not in 300 stories");
}
