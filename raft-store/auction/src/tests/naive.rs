//! Against the dumbest auction that keeps the rules: `u128` everywhere, ifs instead of tables, no indexes.
//!
//! It is written from the rules (design, section 5) and from the clock's reference model, not from `auction.rs`. Both get
//! the same commands; every answer and every event must be the same.

use super::*;

#[derive(Default)]
struct Naive {
    live: bool,
    paused: Option<(u128, Option<u128>)>,
    closed: bool,
    price: u128,
    leader: Option<String>,
    maximum: u128,
    extensions: u32,
    ends_at: u128,
    log: Vec<String>,
}

impl Naive {
    fn emit(&mut self, ct: u128, ty: &str) {
        let leader = self.leader.as_deref().unwrap_or("-");
        self.log
            .push(format!("{ty}@{ct} {} {leader} {}", self.price, self.ends_at));
    }

    fn step(terms: &Terms, price: u128) -> u128 {
        let mut rows = terms.increments.iter().filter(|row| u128::from(row.0) <= price);
        price + u128::from(rows.next_back().expect("a row from 0").1)
    }

    fn run(&mut self, terms: &Terms, upto: u128) {
        loop {
            if let Some((since, Some(until))) = self.paused
                && until <= upto
            {
                self.resume(since, until);
            } else if self.live && self.paused.is_none() && self.ends_at <= upto {
                let enough = terms
                    .reserve
                    .is_none_or(|reserve| self.price >= u128::from(reserve.amount));
                (self.live, self.closed) = (false, true);
                if !enough {
                    self.leader = None;
                }
                self.emit(self.ends_at, "close");
            } else {
                return;
            }
        }
    }

    fn resume(&mut self, since: u128, now: u128) {
        self.paused = None;
        self.ends_at += now - since;
        self.emit(now, "resume");
    }

    fn judge(&mut self, terms: &Terms, now: u128, who: &str, action: &Action) -> &'static str {
        if self.closed {
            return "closed";
        }
        let bids = matches!(action, Action::Bid { .. } | Action::MaxBid { .. });
        if self.paused.is_some() && bids {
            return "paused";
        }
        match action {
            Action::Bid { amount } => return self.bid(terms, now, who, u128::from(*amount), false),
            Action::MaxBid { maximum } => return self.bid(terms, now, who, u128::from(*maximum), true),
            Action::Pause { for_ms } if self.paused.is_none() => {
                self.paused = Some((now, for_ms.map(|ms| now + u128::from(ms))));
                self.emit(now, "pause");
            }
            Action::Resume if self.paused.is_some() => self.resume(self.paused.expect("paused").0, now),
            Action::Extend { ms } if self.paused.is_none() => {
                self.ends_at += u128::from(*ms);
                self.emit(now, "extend");
            }
            Action::Cancel { .. } => {
                (self.live, self.closed, self.leader, self.paused) = (false, true, None, None);
                self.emit(now, "close");
            }
            _ => return "wrong_phase",
        }
        "ok"
    }

    fn bid(&mut self, terms: &Terms, now: u128, who: &str, named: u128, proxy: bool) -> &'static str {
        if named > u128::from(money::MONEY_MAX) {
            return "too_big";
        }
        if self.leader.as_deref() == Some(who) {
            if !proxy || named <= self.maximum {
                return "leading";
            }
            self.maximum = named;
            self.emit(now, "raise");
            return "ok";
        }
        let first = self.leader.is_none();
        let least = if first {
            u128::from(terms.start_price).max(1)
        } else {
            Naive::step(terms, self.price)
        };
        if named < least {
            return "low";
        }
        let before = self.price;
        if !first && named <= self.maximum {
            self.price = self.maximum.min(Naive::step(terms, named));
        } else {
            let over = if first {
                least
            } else {
                least.max(Naive::step(terms, self.maximum))
            };
            self.price = if proxy && over < named { over } else { named };
            (self.leader, self.maximum) = (Some(who.to_string()), named);
        }
        self.move_end(terms, now, before);
        self.emit(now, "bid");
        "ok"
    }

    fn move_end(&mut self, terms: &Terms, now: u128, before: u128) {
        let mut left = self.ends_at - now;
        if let Some(rush) = terms.time.rush {
            let raise = (self.price - before) * u128::from(rush.cut_per_raise_ppm) / before.max(1);
            let cut = raise.min(u128::from(rush.cut_ppm_max));
            left = (left - left * cut / 1_000_000).max(left.min(u128::from(rush.floor_ms)));
        }
        if let Some(soft) = terms.time.soft_close
            && left < u128::from(soft.window_ms)
            && self.extensions < soft.extensions_max
        {
            left = u128::from(soft.reset_to_ms);
            self.extensions += 1;
        }
        self.ends_at = now + left;
    }
}

fn terms(dice: &mut Dice) -> Terms {
    let rush = Rush {
        cut_ppm_max: dice.below(900_001),
        cut_per_raise_ppm: *dice.pick(&[0, 300_000, 2_000_000, 8_000_000, 1_000_000_000]),
        floor_ms: *dice.pick(&[3_000, 5_000, 20_000]),
    };
    let window = 1_000 + dice.below(4_000);
    let soft = SoftClose {
        window_ms: window,
        reset_to_ms: window + dice.below(3_000),
        extensions_max: 1 + dice.below(4) as u32,
    };
    Terms {
        start_price: *dice.pick(&[0, 1, 40, 999, money::MONEY_MAX - 500]),
        increments: dice
            .pick(&[vec![(0, 1)], vec![(0, 1), (50, 5), (500, 25)], vec![(0, 100)]])
            .clone(),
        reserve: dice.pick(&[None, Some(60), Some(5_000)]).map(sealed),
        duration_ms: 1_000 + dice.below(30_000),
        time: TimeRule {
            rush: (!dice.one_in(3)).then_some(rush),
            soft_close: (!dice.one_in(3)).then_some(soft),
        },
        ..rush_terms()
    }
}

fn action(dice: &mut Dice, price: u64) -> (&'static str, Action) {
    let near = (price + dice.below(60)).saturating_sub(5);
    let amount = *dice.pick(&[
        near,
        near,
        near,
        near * 2,
        dice.0 % 3,
        money::MONEY_MAX,
        money::MONEY_MAX + 1,
        u64::MAX,
    ]);
    let who = *dice.pick(&["ann", "bob", "cyd"]);
    match dice.below(30) {
        0 => ("seller", Action::Pause { for_ms: None }),
        1 => (
            "seller",
            Action::Pause {
                for_ms: Some(1_000 + dice.below(3_000)),
            },
        ),
        2..=4 => ("seller", Action::Resume),
        5 => (
            "seller",
            Action::Extend {
                ms: 1 + dice.below(5_000),
            },
        ),
        6 if dice.one_in(8) => ("seller", Action::Cancel { reason: String::new() }),
        6..=15 => (who, Action::MaxBid { maximum: amount }),
        _ => (who, Action::Bid { amount }),
    }
}

#[test]
fn the_same_as_the_naive_auction() {
    for seed in seeds(400) {
        let dice = &mut Dice(seed);
        let terms = terms(dice);
        let mut world = World::live(terms.clone());
        let mut naive = Naive {
            live: true,
            ends_at: terms.duration_ms.into(),
            ..Naive::default()
        };
        naive.price = terms.start_price.into();
        naive.emit(0, "open");
        let mut now = 0;
        for _ in 0..60 {
            now += *dice.pick(&[0, 0, 1, 50, 400, 1_000, 3_000]);
            if dice.one_in(10)
                && let Some(due) = world.shard.next_deadline()
            {
                now = now.max(due.0 - dice.below(2));
            }
            let (who, action) = action(dice, world.view().price);
            naive.run(&terms, now.into());
            let want = naive.judge(&terms, now.into(), who, &action);
            let verdict = world.one(now, command("a", who, None, action.clone()));
            let got = verdict.outcome.map_or_else(Reason::code, |()| "ok");
            assert_eq!(got, want, "{who} {action:?} at {now}; {}", replay(seed, "naive"));
        }
        world.beat(now + 500_000_000);
        naive.run(&terms, (now + 500_000_000).into());
        let events = world.shard.events(&id("a"), 0, usize::MAX).unwrap();
        let line = |e: &std::sync::Arc<Event>| {
            let leader = e.leader.as_ref().map_or("-".to_string(), Id::to_string);
            format!("{}@{} {} {leader} {}", e.kind.ty(), e.ct.0, e.price, e.ends_at.0)
        };
        let got: Vec<_> = events.iter().map(line).collect();
        assert_eq!(got, naive.log, "{}", replay(seed, "naive"));
    }
}
