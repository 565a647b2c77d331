//! How a schedule begins: dice, and a shard with auctions to come.

use super::{
    Action, Actor, Applied, AuctionId, Command, Currency, Definition, Entry, Limits, Reserve, Rights, Rush, Shard,
    SoftClose, Stamp, Stamped, Terms, TimeRule, id,
};

/// A random number generator that will give the same schedules next year.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `low` up to, not including, `high`.
    pub(super) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.range(0, from.len() as u64) as usize]
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.range(0, 100) < percent
    }
}

/// A shard with its auctions scheduled, by an office before all others. `together`: they all end at once.
pub(in crate::clock::office) fn born(count: usize, seed: u64, together: bool) -> (Shard, Vec<AuctionId>) {
    let mut dice = Dice(seed ^ 0xA0C7);
    let limits = Limits {
        refusals_max: 3,
        ..Limits::default()
    };
    let mut shard = Shard::new(limits);
    let auctions: Vec<AuctionId> = (0..count).map(|k| id(&format!("a{k}"))).collect();
    let office = auction::Office { term: 0, turn: 1 };
    let mut commands = Vec::new();
    for auction in &auctions {
        let terms = terms(&mut dice, together);
        let start_wall_ms = if together { 300 } else { dice.range(0, 900) };
        let definition = Definition {
            seller: id("sel"),
            title: "lot".into(),
            description: String::new(),
            terms,
        };
        for action in [Action::Create(Box::new(definition)), Action::Schedule { start_wall_ms }] {
            let actor = Actor {
                id: id("system"),
                rights: Rights::SYSTEM,
            };
            let command = Command {
                auction: auction.clone(),
                actor,
                id: None,
                first_sent: None,
                action,
            };
            commands.push(Stamped {
                arrived: Stamp(0),
                command,
            });
        }
    }
    let marker = Entry {
        office,
        ..Entry::default()
    };
    shard.apply(&marker);
    let birth = Entry {
        n: 1,
        commands,
        ..marker
    };
    let Applied::Done(done) = shard.apply(&birth) else {
        panic!("void birth")
    };
    assert!(
        done.verdicts.iter().all(|verdict| verdict.outcome.is_ok()),
        "{:?}",
        done.verdicts
    );
    (shard, auctions)
}

/// Short terms of every kind; `together`: the same fixed time for all.
fn terms(dice: &mut Dice, together: bool) -> Terms {
    let rush = Rush {
        cut_ppm_max: 900_000,
        cut_per_raise_ppm: dice.pick(&[300_000, 8_000_000]),
        floor_ms: 3_000,
    };
    let window_ms = dice.pick(&[1_000, 1_500]);
    let soft = SoftClose {
        window_ms,
        reset_to_ms: window_ms + 200,
        extensions_max: dice.range(1, 6) as u32,
    };
    let mode = if together { 0 } else { dice.range(0, 4) };
    let duration_ms = match mode {
        _ if together => 2_500,
        // A cut needs time above its floor.
        1 | 3 => dice.range(3_200, 5_000),
        _ => dice.range(1_000, 3_500),
    };
    Terms {
        currency: Currency::parse("KRW").unwrap(),
        start_price: dice.range(1, 40),
        increments: vec![(0, 1), (50, 5), (500, 25)],
        reserve: dice
            .pick(&[None, Some(60)])
            .map(|amount| Reserve { amount, salt: [3; 32] }),
        duration_ms,
        time: TimeRule {
            rush: (mode & 1 == 1).then_some(rush),
            soft_close: (mode & 2 == 2).then_some(soft),
        },
        guests: false,
        pause_without_stream: false,
    }
}
