//! Tests of the core, each a table or a property; what they share is here.
//!
//! `table` (rules, row by row) · `lifecycle` (every cell of the phase table, who may, every field's bounds) · `once` ·
//! `watermark` (behind, holds, offices) · `naive` (against a model in `u128`) · `repack` (other entries, same history;
//! with the mistakes that must be caught) · `rules` (versions) · `cold` (settled auctions, paged out and in) ·
//! `sent` (a command says when it was first sent) · `settled` (what a replica that is behind may say) · `proof` (golden chain) · `export` (verified, and tampered with) · `reasons` (the one table of codes).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cold;
mod export;
mod lifecycle;
mod naive;
mod once;
mod proof;
mod reasons;
mod repack;
mod rules;
mod sent;
mod settled;
mod table;
mod watermark;

use crate::shard::Done;
use crate::terms::{Rush, SoftClose};
use crate::*;
pub(crate) use std::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

pub(crate) fn id(text: &str) -> Id {
    Id::parse(text).unwrap_or_else(|| panic!("{text:?} is no id"))
}

/// An actor whose rights follow from the name: seller, op, system, guest…; all others are members who may bid.
pub(crate) fn actor(name: &str) -> Actor {
    let rights = match name {
        "seller" | "seller2" => Rights::MEMBER.and(Rights::BIDDER).and(Rights::SELLER),
        "op" => Rights::MEMBER.and(Rights::OPERATOR),
        "system" => Rights::SYSTEM,
        "viewer" => Rights::MEMBER,
        name if name.starts_with("guest") => Rights::BIDDER,
        _ => Rights::MEMBER.and(Rights::BIDDER),
    };
    Actor { id: id(name), rights }
}

/// Rush terms: a raise of 1 % cuts 2 %, at most half, floor 10 s; start at 100, steps of 1, 5 from 1,000; one minute.
pub(crate) fn rush_terms() -> Terms {
    Terms {
        currency: Currency(*b"KRW"),
        start_price: 100,
        increments: vec![(0, 1), (1_000, 5)],
        reserve: None,
        duration_ms: 60_000,
        time: TimeRule {
            rush: Some(Rush {
                cut_ppm_max: 500_000,
                cut_per_raise_ppm: 2_000_000,
                floor_ms: 10_000,
            }),
            soft_close: None,
        },
        guests: false,
        pause_without_stream: false,
    }
}

/// A reserve with a salt that tests know.
pub(crate) fn sealed(amount: Money) -> Reserve {
    Reserve { amount, salt: [7; 32] }
}

pub(crate) fn soft() -> SoftClose {
    SoftClose {
        window_ms: 10_000,
        reset_to_ms: 15_000,
        extensions_max: 2,
    }
}

pub(crate) fn definition(terms: Terms) -> Definition {
    Definition {
        seller: id("seller"),
        title: "A bowl".into(),
        description: String::new(),
        terms,
    }
}

pub(crate) fn command(auction: &str, who: &str, key: Option<&str>, action: Action) -> Command {
    Command {
        auction: id(auction),
        actor: actor(who),
        id: key.map(id),
        first_sent: None,
        action,
    }
}

/// A shard and the numbering of its only office.
pub(crate) struct World {
    pub(crate) shard: Shard,
    pub(crate) n: u64,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> World {
        World {
            shard: Shard::new(limits),
            n: 0,
        }
    }

    /// A shard with one live auction `a` that opened at 0.
    pub(crate) fn live(terms: Terms) -> World {
        let mut world = World::new();
        let create = command("a", "seller", None, Action::Create(Box::new(definition(terms))));
        assert_eq!(world.one(0, create).outcome, Ok(()));
        assert_eq!(
            world
                .one(
                    0,
                    command("a", "seller", None, Action::Start { schedule_version: None })
                )
                .outcome,
            Ok(())
        );
        world
    }

    /// Applies an entry with the next number.
    pub(crate) fn entry(&mut self, entry: Entry) -> Done {
        self.n += 1;
        match self.shard.apply(&Entry { n: self.n, ..entry }) {
            Applied::Done(done) => done,
            Applied::Void => panic!("void"),
        }
    }

    /// One command, alone in its entry.
    pub(crate) fn one(&mut self, at: u64, command: Command) -> Verdict {
        let commands = vec![Stamped {
            arrived: Stamp(at),
            command,
        }];
        self.entry(Entry {
            at: Stamp(at),
            commands,
            ..Entry::default()
        })
        .verdicts
        .remove(0)
    }

    /// An entry that only moves the clock.
    pub(crate) fn beat(&mut self, at: u64) -> Done {
        self.entry(Entry {
            at: Stamp(at),
            ..Entry::default()
        })
    }

    pub(crate) fn view(&self) -> AuctionView {
        self.shard.view(&id("a")).expect("auction a")
    }

    /// `ty@ct` of every event of `a`.
    pub(crate) fn log(&self) -> Vec<String> {
        let events = self.shard.events(&id("a"), 0, usize::MAX).expect("auction a");
        events
            .iter()
            .map(|event| format!("{}@{}", event.kind.ty(), event.ct.0))
            .collect()
    }
}

/// Dice for tests: a seed gives the same throws for ever.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..n.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// The seeds to try: `count` of them, or the one in AUCTION_SEED.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let one = std::env::var("AUCTION_SEED").ok().and_then(|text| text.parse().ok());
    let (from, to) = one.map_or((0, count), |seed: u64| (seed, seed + 1));
    from..to
}

/// How to see a failing seed again.
pub(crate) fn replay(seed: u64, test: &str) -> String {
    format!("replay: AUCTION_SEED={seed} cargo test -p auction {test}")
}
