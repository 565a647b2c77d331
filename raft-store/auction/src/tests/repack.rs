//! The same commands, packed into other entries, give the same history: the promise G3, and what else must hold for
//! every history. Each known mistake (`Plant`) is put in and must be caught by the check that it is for.
//!
//! A `Story` is what happened: lanes of stamped commands, and holds. `pack` cuts it into entries as some leader might:
//! other beats, other interleavings, lanes left behind, new offices, entries that are void.

use super::*;
use crate::plant::{Plant, Plants};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const HORIZON: u64 = 20_000;
pub(super) const LIMITS: Limits = Limits {
    refusals_max: 3,
    refusals_ms: 2_000,
};

pub(super) struct Story {
    lanes: BTreeMap<Id, VecDeque<Stamped>>,
    holds: Vec<Hold>,
}

/// Stamps lie on a grid of 50 ms, so that ties are frequent: with deadlines, ends of pauses, holds.
fn grid(dice: &mut Dice, upto: u64) -> u64 {
    dice.below(upto / 50) * 50
}

/// Each id says when it was first sent: a little late, as a clock that is read from afar may be.
fn say_when(dice: &mut Dice, lane: &mut [(u64, Command)]) {
    let mut first = BTreeMap::new();
    for (stamp, command) in lane {
        let sent = Stamp(*stamp + dice.below(200));
        let key = (command.actor.id.clone(), command.id.clone());
        command.first_sent = Some(*first.entry(key).or_insert(sent));
    }
}

pub(super) fn story(seed: u64) -> Story {
    let dice = &mut Dice(seed);
    let mut lanes = BTreeMap::new();
    for number in 0..1 + dice.below(5) {
        let auction = format!("a{number}");
        let mut terms = rush_terms();
        terms.duration_ms = 1_000 + grid(dice, 6_000);
        terms.time.rush = dice.one_in(2).then_some(Rush {
            floor_ms: 3_000,
            ..terms.time.rush.unwrap()
        });
        let soft = SoftClose {
            window_ms: 1_000,
            reset_to_ms: 1_500,
            extensions_max: 3,
        };
        terms.time.soft_close = dice.one_in(2).then_some(soft);
        terms.pause_without_stream = dice.one_in(2);
        let created = grid(dice, 3_000);
        let started = created + grid(dice, 2_000);
        let end = started + terms.duration_ms;
        let mut lane = vec![
            (
                created,
                command(
                    &auction,
                    "seller",
                    Some("create"),
                    Action::Create(Box::new(definition(terms))),
                ),
            ),
            (
                started,
                command(
                    &auction,
                    "seller",
                    Some("start"),
                    Action::Start { schedule_version: None },
                ),
            ),
        ];
        for _ in 0..dice.below(70) {
            let stamp = if dice.one_in(6) {
                end - dice.below(3)
            } else {
                grid(dice, HORIZON / 2)
            };
            lane.push((stamp, any(dice, &auction)));
        }
        lane.sort_by_key(|(stamp, _)| *stamp);
        say_when(dice, &mut lane);
        let stamped = lane.into_iter().map(|(stamp, command)| Stamped {
            arrived: Stamp(stamp),
            command,
        });
        lanes.insert(id(&auction), stamped.collect());
    }
    let mut stamps: Vec<u64> = (0..dice.below(6)).map(|_| grid(dice, HORIZON / 2)).collect();
    stamps.sort_unstable();
    let holds = stamps
        .into_iter()
        .map(|stamp| Hold {
            stamp: Stamp(stamp),
            lost_ms: 51 + stamp % 7,
        })
        .collect();
    Story { lanes, holds }
}

/// Few actors and ids, so that many are sent again, some with another body.
fn any(dice: &mut Dice, auction: &str) -> Command {
    let who = *dice.pick(&["ann", "bob", "cyd"]);
    let key = format!("k{}", dice.below(12));
    let amount = 100 + dice.below(60);
    let stream = id(if dice.one_in(2) { "s1" } else { "s2" });
    let (who, action) = match dice.below(24) {
        0 => ("seller", Action::Pause { for_ms: None }),
        1 | 2 => (
            "seller",
            Action::Pause {
                for_ms: Some(1_000 + grid(dice, 1_000)),
            },
        ),
        3 | 4 => ("seller", Action::Resume),
        5 => (
            "op",
            Action::Extend {
                ms: 50 + grid(dice, 1_000),
            },
        ),
        6 if dice.one_in(6) => ("op", Action::Cancel { reason: String::new() }),
        6 | 7 => ("system", Action::StreamUp { node: 1, stream }),
        8 => ("system", Action::StreamDown { stream }),
        9..=13 => (who, Action::MaxBid { maximum: amount }),
        _ => (who, Action::Bid { amount }),
    };
    command(auction, who, (!dice.one_in(8)).then_some(key.as_str()), action)
}

/// One way to put the story into a log.
pub(super) fn pack(story: &Story, seed: u64) -> Vec<Entry> {
    let dice = &mut Dice(seed.wrapping_mul(31) ^ 0xabcd);
    let mut lanes = story.lanes.clone();
    let (mut log, mut at, mut n, mut office) = (Vec::new(), 0, 0, Office { term: 1, turn: 0 });
    log.push(Entry {
        office,
        ..Entry::default()
    });
    let longest = *dice.pick(&[20, 900, 5_000]);
    while at < HORIZON || lanes.values().any(|lane| !lane.is_empty()) {
        let last = at;
        at = HORIZON.min(at + *dice.pick(&[0, 1, 3, 20, 50, 150, longest]));
        let mut commands = Vec::new();
        let due = |lane: &VecDeque<Stamped>| lane.front().is_some_and(|first| first.arrived.0 <= at);
        let mut ready: Vec<Id> = lanes
            .iter()
            .filter(|(_, lane)| due(lane))
            .map(|(id, _)| id.clone())
            .collect();
        ready.retain(|_| !dice.one_in(3));
        while !ready.is_empty() {
            let which = dice.below(ready.len() as u64) as usize;
            let lane = lanes.get_mut(&ready[which]).unwrap();
            commands.extend(lane.pop_front());
            if !due(lane) || dice.one_in(5) {
                ready.swap_remove(which);
            }
        }
        let behind = lanes
            .iter()
            .filter(|(_, lane)| due(lane))
            .map(|(id, lane)| (id.clone(), lane[0].arrived));
        let holds = story
            .holds
            .iter()
            .filter(|hold| (last..at).contains(&hold.stamp.0))
            .copied()
            .collect();
        if dice.one_in(20) {
            (office, n) = (
                Office {
                    term: office.term + dice.below(2),
                    turn: office.turn + 1,
                },
                0,
            );
            log.push(Entry {
                office,
                ..Entry::default()
            });
        }
        n += 1;
        log.push(Entry {
            office,
            n,
            at: Stamp(at),
            behind: behind.collect(),
            holds,
            commands,
            wall: None,
        });
    }
    log
}

/// The same log with entries between that must be void: sent twice, out of number, of an office that is over.
fn with_void(log: &[Entry], seed: u64) -> Vec<Entry> {
    let dice = &mut Dice(seed ^ 0x0f0f);
    let mut out = Vec::new();
    for entry in log {
        out.push(entry.clone());
        if entry.n > 0 && dice.one_in(3) {
            let n = entry.n + *dice.pick(&[0, 2, 7]);
            let late = entry.at.plus(dice.below(3_000));
            let commands = entry
                .commands
                .iter()
                .map(|s| Stamped {
                    arrived: late,
                    ..s.clone()
                })
                .collect();
            out.push(Entry {
                n,
                at: late,
                commands,
                ..entry.clone()
            });
            out.push(Entry {
                office: Office { term: 0, turn: 9 },
                n: 1,
                at: late,
                ..Entry::default()
            });
        }
    }
    out
}

/// Half of the stories are told under the first rules.
fn rules_of(seed: u64) -> u32 {
    1 + (seed % 2) as u32
}

/// What a log made: the shard, and each auction's verdicts in its lane's order.
fn run(log: &[Entry], rules: u32, plant: Option<Plant>) -> (Shard, BTreeMap<Id, Vec<(Command, Verdict)>>) {
    let mut shard = Shard::new(LIMITS);
    shard.plants = Plants { one: plant };
    shard.raise_rules(rules);
    let mut verdicts: BTreeMap<Id, Vec<(Command, Verdict)>> = BTreeMap::new();
    for entry in log {
        let before = (shard.digest(), entry.n == 0);
        match shard.apply(entry) {
            Applied::Void => assert_eq!(before.0, shard.digest()),
            Applied::Done(done) => {
                for (stamped, verdict) in entry.commands.iter().zip(done.verdicts) {
                    let command = stamped.command.clone();
                    verdicts
                        .entry(command.auction.clone())
                        .or_default()
                        .push((command, verdict));
                }
            }
        }
    }
    (shard, verdicts)
}

/// Everything of the auctions that a packing must not change.
fn history(shard: &Shard) -> Vec<AuctionParts> {
    let mut auctions = shard.parts().auctions;
    auctions.sort_by(|a, b| a.id.cmp(&b.id));
    for auction in &mut auctions {
        auction.hold_next = 0;
        // In which order auctions settled is the packing's, as the order of verdicts about several auctions is.
        auction.settled = None;
    }
    auctions
}

/// The names of the promises that a story breaks.
fn broken(seed: u64, plant: Option<Plant>) -> BTreeSet<&'static str> {
    let (story, rules) = (story(seed), rules_of(seed));
    let first = run(&pack(&story, seed * 3), rules, plant);
    let mut broken = BTreeSet::new();
    let mut check = |name, holds: bool| {
        if !holds {
            broken.insert(name);
        }
    };
    for other in [seed * 3 + 1, seed * 3 + 2] {
        let log = pack(&story, other);
        let again = run(&log, rules, plant);
        check("repack", history(&first.0) == history(&again.0) && first.1 == again.1);
        let void = run(&with_void(&log, seed), rules, plant);
        check("void", history(&void.0) == history(&again.0));
    }
    check("clamped", first.0.clamped() == 0);
    for auction in &first.0.parts().auctions {
        let events = &auction.events;
        let pairs = || events.windows(2).map(|pair| (&pair[0], &pair[1]));
        check("monotone", pairs().all(|(a, b)| a.ct <= b.ct && a.seq + 1 == b.seq));
        check("price", pairs().all(|(a, b)| a.price <= b.price));
        check("close", pairs().all(|(a, _)| a.kind.ty() != "close"));
        check("open", !matches!(auction.phase, Phase::Live));
        let head = verify::Head::from(&first.0.view(&auction.id).unwrap());
        let lines = events.iter().map(|event| verify::Line::from(&**event));
        check(
            "verify",
            verify::verify(&head, lines).is_ok_and(|s| s.hash == events.last().unwrap().hash),
        );
    }
    for verdicts in first.1.values() {
        check("once", once(verdicts, rules));
        check("too old", rules < 2 || stays_refused(verdicts));
    }
    broken
}

/// No id is judged twice while its first verdict must be remembered.
fn once(verdicts: &[(Command, Verdict)], rules: u32) -> bool {
    let mut judged: BTreeMap<(Id, Id), (u64, Verdict)> = BTreeMap::new();
    verdicts.iter().all(|(command, verdict)| {
        let Some(key) = &command.id else { return true };
        if matches!(
            verdict.outcome,
            Err(Reason::DupBody | Reason::NotFound | Reason::Expired)
        ) {
            return true;
        }
        let key = (command.actor.id.clone(), key.clone());
        let body = body_hash(&command.action);
        let known = judged
            .get(&key)
            .filter(|(_, first)| first.outcome.is_ok() || first.ct.plus(LIMITS.refusals_ms) > verdict.ct);
        match known {
            Some((bound, first)) => {
                *bound == body
                    && *verdict
                        == Verdict {
                            dup: true,
                            ..first.clone()
                        }
            }
            // What is over refuses for ever, and keeps no record of it.
            None if rules >= 2 && verdict.outcome == Err(Reason::Closed) => !verdict.dup,
            None => {
                judged.insert(key, (body, verdict.clone()));
                !verdict.dup
            }
        }
    })
}

/// No id that was refused is accepted later, also when the refusal is forgotten.
fn stays_refused(verdicts: &[(Command, Verdict)]) -> bool {
    let mut refused = BTreeSet::new();
    verdicts.iter().all(|(command, verdict)| {
        let Some(key) = &command.id else { return true };
        let key = (command.actor.id.clone(), key.clone());
        match verdict.outcome {
            Ok(()) => !refused.contains(&key),
            // It says nothing of that id's own body; and what wasn't there yet was not judged.
            Err(Reason::DupBody | Reason::NotFound) => true,
            Err(_) => {
                refused.insert(key);
                true
            }
        }
    })
}

#[test]
fn every_packing_gives_the_same_history() {
    for seed in seeds(250) {
        let broken = broken(seed, None);
        assert!(broken.is_empty(), "{broken:?}; {}", replay(seed, "repack"));
    }
}

#[test]
fn each_planted_mistake_is_caught() {
    let plants = [
        (Plant::NoVoid, "void"),
        (Plant::CloseAtNow, "repack"),
        (Plant::NowForAll, "clamped"),
        (Plant::RefusalsEvict, "once"),
        (Plant::RefusalsPerBidder, "once"),
        (Plant::CommandFirst, "repack"),
        (Plant::HoldFirst, "repack"),
        (Plant::NeverTooOld, "too old"),
    ];
    for (plant, want) in plants {
        let caught = (0..60).find(|&seed| broken(seed, Some(plant)).contains(want));
        assert!(caught.is_some(), "{plant:?} was not caught by {want:?} in 60 stories");
    }
}

/// A snapshot in the middle changes nothing: the digest stays, and so does all that follows.
#[test]
fn a_snapshot_at_any_entry_keeps_the_history() {
    for seed in seeds(60) {
        let log = pack(&story(seed), seed);
        let cut = Dice(seed).below(log.len() as u64) as usize;
        let (mut straight, _) = run(&log[..cut], rules_of(seed), None);
        let mut restored = Shard::from_parts(LIMITS, straight.parts()).unwrap();
        assert_eq!(straight.parts(), restored.parts(), "{}", replay(seed, "snapshot"));
        for (i, entry) in log[cut..].iter().enumerate() {
            assert_eq!(
                straight.digest(),
                restored.digest(),
                "entry {i} after {cut}; {}",
                replay(seed, "snapshot")
            );
            assert_eq!(
                straight.apply(entry),
                restored.apply(entry),
                "{}",
                replay(seed, "snapshot")
            );
        }
        assert_eq!(straight.parts(), restored.parts());
    }
}

#[test]
fn parts_that_contradict_each_other_are_refused() {
    let (shard, _) = run(&pack(&story(1), 1), 1, None);
    let change = |change: fn(&mut Parts)| {
        let mut parts = shard.parts();
        change(&mut parts);
        Shard::from_parts(LIMITS, parts).map(|_| ())
    };
    assert_eq!(change(|_| {}), Ok(()));
    assert_eq!(
        change(|p| p.auctions.push(p.auctions[0].clone())),
        Err(BadParts("an auction twice"))
    );
    assert_eq!(
        change(|p| drop(p.auctions[0].events.remove(0))),
        Err(BadParts("a log with a gap"))
    );
}
