//! Reads arbitrary bytes as log entries, applies them, and looks whether what must always hold still holds.
//!
//! Nothing about the entries is sane: any stamps, any numbers and offices, unknown auctions, values at every edge. What
//! must hold all the same: `apply` ends without a panic; versions have no gap; stamps and prices of an auction never
//! fall; one close ends it; snapshots keep the digest; every log proves itself.
//!
//! Shared by the fuzz target and by `tests/arbitrary.rs`.

use auction::{
    Action, Actor, Applied, Command, Currency, Definition, Entry, Hold, Id, Limits, Office, Phase, Reserve, Rights,
    Shard, Stamp, Stamped, Terms, TimeRule, body_hash,
    money::MONEY_MAX,
    terms::{Rush, SoftClose},
    verify,
};

/// Bytes as a stream of choices; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, n: u8) -> u8 {
        self.byte() % n
    }

    /// A number: small, of a few bytes, or at an edge.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1..=3 => u64::from(self.byte()),
            4 | 5 => u64::from(self.byte()) * 256 + u64::from(self.byte()),
            6 => *[1_000, 60_000, MONEY_MAX, MONEY_MAX + 1]
                .get(usize::from(self.below(4)))
                .unwrap_or(&1),
            _ => u64::MAX - u64::from(self.byte()),
        }
    }

    fn name(&mut self, from: &[&str]) -> Id {
        let name = from[usize::from(self.byte()) % from.len()];
        Id::parse(name).unwrap_or_else(|| panic!("{name} is no id"))
    }

    fn maybe<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| some(self))
    }
}

fn definition(bytes: &mut Bytes<'_>) -> Definition {
    let sane = bytes.below(4) > 0;
    let number = |bytes: &mut Bytes<'_>, usual| if sane { usual } else { bytes.number() };
    let rush = bytes.maybe(|b| Rush {
        cut_ppm_max: number(b, 900_000),
        cut_per_raise_ppm: b.number() % 2_000_000_000,
        floor_ms: number(b, 3_000),
    });
    let soft_close = bytes.maybe(|b| SoftClose {
        window_ms: number(b, 1_000),
        reset_to_ms: number(b, 2_000),
        extensions_max: number(b, 3) as u32,
    });
    let terms = Terms {
        currency: Currency(*b"KRW"),
        start_price: number(bytes, 100),
        increments: if sane {
            vec![(0, 1), (500, 10)]
        } else {
            vec![(0, bytes.number()), (bytes.number(), bytes.number())]
        },
        reserve: bytes
            .maybe(Bytes::number)
            .map(|amount| Reserve { amount, salt: [9; 32] }),
        duration_ms: number(bytes, 5_000),
        time: TimeRule { rush, soft_close },
        guests: bytes.below(2) == 0,
        pause_without_stream: bytes.below(2) == 0,
    };
    Definition {
        seller: bytes.name(&["seller", "ann"]),
        title: "t".into(),
        description: String::new(),
        terms,
    }
}

fn action(bytes: &mut Bytes<'_>) -> Action {
    match bytes.below(18) {
        0 => Action::Create(Box::new(definition(bytes))),
        1 => Action::Edit {
            version: bytes.number() as u32,
            definition: Box::new(definition(bytes)),
        },
        2 => Action::Schedule {
            start_wall_ms: bytes.number(),
        },
        3 | 4 => Action::Start {
            schedule_version: bytes.maybe(|b| b.number() as u32),
        },
        5 => Action::Pause {
            for_ms: bytes.maybe(Bytes::number),
        },
        6 => Action::Resume,
        7 => Action::Extend { ms: bytes.number() },
        8 => Action::Cancel { reason: "r".into() },
        9 => Action::StreamUp {
            node: bytes.number(),
            stream: bytes.name(&["s", "t"]),
        },
        10 => Action::StreamDown {
            stream: bytes.name(&["s", "t"]),
        },
        11..=13 => Action::MaxBid {
            maximum: bytes.number(),
        },
        _ => Action::Bid { amount: bytes.number() },
    }
}

const AUCTIONS: [&str; 4] = ["a", "b", "c", "an-auction-with-a-name-that-is-longer-than-most"];

fn entry(bytes: &mut Bytes<'_>, shard: &Shard, near: u64) -> Entry {
    let wild = bytes.below(16) == 0;
    let office = if wild {
        Office {
            term: bytes.number(),
            turn: bytes.number() as u32,
        }
    } else {
        shard.office()
    };
    let n = if wild { bytes.number() } else { shard.next_n() };
    // Mostly near the clock; sometimes anywhere.
    let stamp = |b: &mut Bytes<'_>| match b.below(12) {
        0 => Stamp(b.number()),
        step => Stamp(near.saturating_add(u64::from(step) * 40).saturating_sub(100)),
    };
    let at = Stamp(near.saturating_add(u64::from(bytes.byte()) * 8));
    let at = if bytes.below(32) == 0 {
        Stamp(bytes.number())
    } else {
        at
    };
    let behind = (0..bytes.below(4))
        .map(|_| (bytes.name(&AUCTIONS), stamp(bytes)))
        .collect();
    let holds = (0..bytes.below(6).saturating_sub(3))
        .map(|_| Hold {
            stamp: stamp(bytes),
            lost_ms: bytes.number(),
        })
        .collect();
    let commands = (0..bytes.below(6))
        .map(|_| {
            let id = bytes.name(&["seller", "ann", "bob", "sys"]);
            let rights = if id.as_str() == "sys" {
                Rights::SYSTEM
            } else {
                Rights(u16::from(bytes.byte()) | 7)
            };
            let auction = bytes.name(&AUCTIONS);
            let key = bytes.maybe(|b| b.name(&["k1", "k2", "k3", "k4"]));
            let command = Command {
                auction,
                actor: Actor { id, rights },
                id: key,
                first_sent: bytes.maybe(stamp),
                action: action(bytes),
            };
            Stamped {
                arrived: stamp(bytes),
                command,
            }
        })
        .collect();
    Entry {
        office,
        n,
        at,
        behind,
        holds,
        commands,
        wall: None,
    }
}

/// Applies what the bytes say and checks what must hold. Gives back how many (events, closes) they made.
///
/// # Panics
/// When it doesn't hold.
pub(crate) fn drive(bytes: &[u8]) -> (usize, usize) {
    let mut bytes = Bytes(bytes);
    let limits = Limits {
        refusals_max: 2,
        refusals_ms: 1_000,
    };
    let mut shard = Shard::new(limits);
    // By the first rules, or by those that let auctions settle.
    shard.raise_rules(1 + u32::from(bytes.below(2)));
    while !bytes.0.is_empty() {
        let entry = entry(&mut bytes, &shard, shard.top().0);
        for stamped in &entry.commands {
            let command = &stamped.command;
            let _ = shard.early(command);
            if let Some(id) = &command.id {
                let _ = shard.known(&command.auction, &command.actor.id, id, body_hash(&command.action));
            }
        }
        let before = shard.top();
        if let Applied::Done(done) = shard.apply(&entry) {
            assert!(entry.n == 0 || done.verdicts.len() == entry.commands.len());
        }
        assert!(shard.top() >= before);
        if bytes.below(8) == 0 {
            let restored = Shard::from_parts(limits, shard.parts());
            let restored = restored.unwrap_or_else(|bad| panic!("{bad:?}"));
            assert_eq!(restored.digest(), shard.digest());
            shard = restored;
        }
    }
    let _ = (
        shard.next_deadline(),
        shard.scheduled().count(),
        shard.below(shard.top()).count(),
    );
    let counts = shard.views().map(|view| check(&shard, &view));
    counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn check(shard: &Shard, view: &auction::AuctionView) -> (usize, usize) {
    let events = shard.events(&view.id, 0, usize::MAX).unwrap_or_default();
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event.seq, seq);
    }
    for pair in events.windows(2) {
        assert!(pair[0].ct <= pair[1].ct, "stamps fall: {pair:?}");
        assert!(pair[0].price <= pair[1].price, "the price falls: {pair:?}");
        assert!(pair[0].kind.ty() != "close", "after the close: {pair:?}");
    }
    let closed = events.last().is_some_and(|last| last.kind.ty() == "close");
    assert_eq!(closed, matches!(view.phase, Phase::Closed(_)));
    assert_eq!(view.seq, events.len() as u64);
    let head = verify::Head::from(view);
    let lines = events.iter().map(|event| verify::Line::from(&**event));
    // At the very end of time stamps saturate, and the replay's differences with them.
    if shard.top() < Stamp(u64::MAX / 2) {
        verify::verify(&head, lines).unwrap_or_else(|broken| panic!("{broken:?} of {}", view.id));
    }
    (events.len(), usize::from(closed))
}
