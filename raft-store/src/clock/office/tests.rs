//! One office over a log in memory: what it promises about stamps, and in which order it looks ids up.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::{
    sim::{Plant, birth::born},
    *,
};
use auction::Reason;
use proptest::prelude::*;
use std::collections::HashMap;

impl<W> Office<W> {
    /// What the planted mistakes leave behind a look.
    pub(super) fn after_looking(&mut self, at: Stamp) {
        self.seen = at;
        for (arrived, command, ticket) in std::mem::take(&mut self.decoding) {
            self.lanes.push(arrived, command, Some(ticket));
        }
    }
}

const WALL: Wall = Wall {
    ms: 10_000,
    error_ms: 1,
};

/// An office, its shard, and entries on their way.
struct Desk {
    office: Office<usize>,
    shard: Shard,
    auctions: Vec<AuctionId>,
    flying: VecDeque<Entry>,
    mono: u64,
    /// Below this nothing may arrive any more, by auction.
    promised: HashMap<AuctionId, Stamp>,
    told: Vec<(usize, Reply)>,
}

impl Desk {
    fn new(plant: Option<Plant>, window: usize) -> Desk {
        let (mut shard, auctions) = born(3, 5, true);
        let id = auction::Office { term: 9, turn: 0 };
        shard.apply(&Entry {
            office: id,
            ..Entry::default()
        });
        let lanes = lanes::Options {
            window,
            entry_max: 4,
            ..lanes::Options::default()
        };
        let clock = clock::Options::default();
        let mut office = Office::take(Options { clock, lanes }, id, 0, &shard, 0);
        office.plant = plant;
        Desk {
            office,
            shard,
            auctions,
            flying: VecDeque::new(),
            mono: 0,
            promised: HashMap::new(),
            told: Vec::new(),
        }
    }

    /// A desk after its grace, with all auctions live.
    fn open(plant: Option<Plant>, window: usize) -> Desk {
        let mut desk = Desk::new(plant, window);
        for ms in [0, 150, 5, 5] {
            desk.mono += ms;
            desk.look().unwrap();
            while desk.land() {}
        }
        let live = |id: &AuctionId| desk.shard.view(id).unwrap().phase == auction::Phase::Live;
        assert!(desk.auctions.iter().all(live));
        desk
    }

    fn bid(&self, auction: usize, who: &str, id: &str, amount: u64) -> Command {
        Command {
            auction: self.auctions[auction].clone(),
            actor: Actor {
                id: Id::parse(who).unwrap(),
                rights: Rights::MEMBER.and(Rights::BIDDER),
            },
            id: Some(Id::parse(id).unwrap()),
            first_sent: None,
            action: Action::Bid { amount },
        }
    }

    /// What is said at once; `None`: it waits.
    fn say(&mut self, command: Command, waiter: usize) -> Option<Reply> {
        let now = self.office.submit(self.mono, &self.shard, command, waiter);
        now.map(|(_, reply)| reply)
    }

    /// Packs what may go, and checks each entry against all promises before it.
    fn look(&mut self) -> Result<(), String> {
        while let Some(packed) = self.office.next_entry(self.mono, WALL, &self.shard) {
            let entry = packed.entry;
            for stamped in &entry.commands {
                let (arrived, auction) = (stamped.arrived, &stamped.command.auction);
                let promised = self.promised.get(auction).copied().unwrap_or_default();
                if arrived < promised || arrived > entry.at {
                    return Err(format!(
                        "{arrived:?} for {auction} after {promised:?} was promised, at {:?}",
                        entry.at
                    ));
                }
            }
            for auction in &self.auctions {
                let held = entry.behind.iter().find(|(id, _)| id == auction);
                let promise = held.map_or(entry.at, |(_, oldest)| entry.at.min(*oldest));
                let known = self.promised.entry(auction.clone()).or_default();
                *known = promise.max(*known);
            }
            self.flying.push_back(entry);
        }
        Ok(())
    }

    /// The oldest entry comes back through the log.
    fn land(&mut self) -> bool {
        let Some(entry) = self.flying.pop_front() else {
            return false;
        };
        let applied = self.shard.apply(&entry);
        let fate = Fate::Applied(&applied);
        assert_eq!(self.office.settle(self.mono, entry.n, fate, &mut self.told), Goes::On);
        true
    }
}

#[derive(Clone, Copy, Debug)]
enum Do {
    /// Time passes.
    Wait(u64),
    /// A bid comes.
    Bid(usize),
    Look,
    Land,
}

fn doings() -> impl Strategy<Value = Vec<Do>> {
    let one = prop_oneof![
        4 => (0u64..20).prop_map(Do::Wait),
        8 => (0usize..3).prop_map(Do::Bid),
        2 => Just(Do::Look),
        1 => Just(Do::Land),
    ];
    proptest::collection::vec(one, 1..300)
}

/// Runs what happens and tells the first broken promise.
fn run(doings: &[Do], plant: Option<Plant>) -> Result<(), String> {
    let mut desk = Desk::open(plant, 6);
    for (k, doing) in doings.iter().enumerate() {
        match doing {
            Do::Wait(ms) => desk.mono += ms,
            Do::Bid(auction) => {
                let amount = 1_000 * (k as u64 + 1);
                let bid = desk.bid(*auction, "ann", &format!("b{k}"), amount);
                desk.say(bid, k);
            }
            Do::Look => desk.look()?,
            Do::Land => {
                desk.land();
            }
        }
    }
    for _ in 0..400 {
        desk.mono += 5;
        desk.look()?;
        desk.land();
    }
    match desk.shard.clamped() {
        0 => Ok(()),
        clamped => Err(format!("{clamped} stamps clamped")),
    }
}

proptest! {
    /// An entry's watermarks promise what will not come any more: nothing that comes later breaks one, whatever waits in
    /// which lane. So door, stamp and place are one step, and the clock is read before the lanes are looked at.
    #[test]
    fn no_promise_is_broken_by_what_comes_later(doings in doings()) {
        prop_assert_eq!(run(&doings, None), Ok(()));
    }
}

#[test]
fn a_gap_before_the_place_or_lanes_seen_first_break_a_promise() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    for plant in [Plant::DecodeGap, Plant::LanesFirst] {
        let mut runner = TestRunner::deterministic();
        let caught = (0..200).find(|_| {
            let doings = doings().new_tree(&mut runner).unwrap().current();
            run(&doings, Some(plant)).is_err()
        });
        assert!(caught.is_some(), "{plant:?} went unseen in 200 runs");
    }
}

/// Applied table, pending map, early refusal, door: each answers for what comes after it, too.
#[test]
fn ids_are_looked_up_in_order() {
    let refused = |reply: Option<Reply>| match reply {
        Some(Reply::Verdict(verdict)) => verdict.outcome.err(),
        other => panic!("{other:?}"),
    };
    let mut desk = Desk::open(None, 6);
    // Applied: the first verdict again, though by now that amount is low.
    assert_eq!(desk.say(desk.bid(0, "ann", "one", 5_000), 1), None);
    desk.look().unwrap();
    while desk.land() {}
    // Pending: joined, though that amount would be refused early once another is applied, and though the door is shut.
    assert_eq!(desk.say(desk.bid(0, "bob", "two", 6_000), 2), None);
    desk.office.shut(desk.mono, 1_000);
    for (name, command, answer) in [
        ("applied", desk.bid(0, "ann", "one", 5_000), Some(Ok(()))),
        (
            "applied, another body",
            desk.bid(0, "ann", "one", 5_001),
            Some(Err(Reason::DupBody)),
        ),
        ("pending", desk.bid(0, "bob", "two", 6_000), None),
    ] {
        let reply = desk.say(command, 3);
        let outcome = reply.map(|reply| match reply {
            Reply::Verdict(verdict) => verdict.outcome,
            other => panic!("{name}: {other:?}"),
        });
        assert_eq!(outcome, answer, "{name}");
    }
    assert_eq!(
        desk.say(desk.bid(0, "bob", "two", 6_001), 4),
        Some(Reply::NotJudged),
        "pending, another body"
    );
    assert_eq!(
        refused(desk.say(desk.bid(0, "cat", "three", 10), 5)),
        Some(Reason::Low),
        "early, before the door"
    );
    assert!(
        matches!(desk.say(desk.bid(0, "cat", "four", 9_000), 6), Some(Reply::Busy { .. })),
        "the door"
    );
    desk.office.reopen();
    assert_eq!(
        desk.say(desk.bid(0, "cat", "four", 9_000), 7),
        None,
        "nothing is remembered of a full door"
    );
    desk.look().unwrap();
    while desk.land() {}
    let told = |waiter: usize| {
        desk.told
            .iter()
            .any(|(w, reply)| *w == waiter && matches!(reply, Reply::Verdict(v) if v.outcome.is_ok()))
    };
    assert!(told(1) && told(2) && told(3) && told(7), "{:?}", desk.told);
}

/// Gaps between entries of an idle office whose commits take `trip` ms, once it knows that.
fn gaps(trip: u64) -> Vec<u64> {
    let mut desk = Desk::open(None, 6);
    let (mut sent, mut gaps, mut last) = (VecDeque::new(), Vec::new(), None);
    let began = desk.mono;
    while desk.shard.has_timers() && desk.mono < began + 4_000 {
        desk.mono += 5;
        while sent.front().is_some_and(|at| at + trip <= desk.mono) {
            sent.pop_front();
            assert!(desk.land());
        }
        let before = desk.flying.len();
        desk.look().unwrap();
        for _ in before..desk.flying.len() {
            sent.push_back(desk.mono);
            gaps.extend(last.replace(desk.mono).map(|last| desk.mono - last));
        }
    }
    assert!(gaps.len() > 16, "{gaps:?}");
    // A smoothed round trip is learnt in some beats, and the last auction's close comes when it is due.
    gaps.truncate(gaps.len() - 4);
    gaps.split_off(gaps.len() / 2)
}

/// A beat each 100 ms; each 50 where commits take over 60 ms, so that the reading seldom meets `hold_ms`.
#[test]
fn slow_commits_make_beats_closer() {
    for (trip, expected) in [(5, 100), (55, 100), (70, 50), (120, 50)] {
        let gaps = gaps(trip);
        assert!(
            gaps.iter().all(|gap| *gap <= expected) && gaps.contains(&expected),
            "commits of {trip} ms: {gaps:?}"
        );
    }
}

/// The window is full of commands that don't come back: beats go out all the same, with nothing in them.
#[test]
fn a_beat_finds_room_in_a_full_window() {
    let mut desk = Desk::open(None, 6);
    for n in 0..12 {
        let bid = desk.bid(n % 3, "ann", &format!("b{n}"), 1_000 * (n as u64 + 1));
        desk.say(bid, n);
        desk.look().unwrap();
    }
    let full: usize = desk.flying.iter().map(|entry| entry.commands.len()).sum();
    assert_eq!(full, 6, "the window isn't full");
    let (before, waiting) = (desk.flying.len(), desk.office.load().waiting);
    for _ in 0..25 {
        desk.mono += 5;
        desk.look().unwrap();
    }
    let beats: Vec<usize> = desk
        .flying
        .iter()
        .skip(before)
        .map(|entry| entry.commands.len())
        .collect();
    assert_eq!((beats, desk.office.load().waiting), (vec![0], waiting));
}
