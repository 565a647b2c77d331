//! How many commands the pure core applies on one core: a realistic mix, packed as the proposer packs.
//!
//! 300 live auctions; of 20 commands 12 are bids that lead, 4 are too low, 2 come from who leads already, 1 repeats an id,
//! 1 is about an auction that doesn't exist. Entries carry 64 commands. Made beforehand; only `apply` is timed.

use anyhow::{Context as _, Result, ensure};
use auction::{
    Action, Actor, Applied, Command, Currency, Definition, Entry, Id, Limits, Office, Rights, Shard, Stamp, Stamped,
    Terms, TimeRule, terms::Rush,
};
use client::Dice;
use std::time::Instant;

const AUCTIONS: u64 = 300;
const BIDDERS: u64 = 2_000;
const BATCH: usize = 64;

/// Applies `commands` commands; the figures as JSON.
pub(crate) fn core(commands: usize, seed: u64) -> Result<serde_json::Value> {
    let mut shard = Shard::new(Limits::default());
    let mut log = Log { n: 0, at: 0 };
    shard.apply(&log.entry(Vec::new()));
    let auctions: Vec<Id> = (0..AUCTIONS).map(|n| id(&format!("lot-{n}"))).collect::<Result<_>>()?;
    for auction in &auctions {
        let create = command(auction, "seller", "c", Action::Create(Box::new(definition()?)))?;
        let start = command(auction, "seller", "s", Action::Start { schedule_version: None })?;
        let entry = log.entry(vec![create, start]);
        let Applied::Done(done) = shard.apply(&entry) else {
            anyhow::bail!("an entry out of order")
        };
        ensure!(
            done.verdicts.iter().all(|verdict| verdict.outcome.is_ok()),
            "{:?}",
            done.verdicts
        );
    }
    let entries = workload(commands, seed, &auctions, &mut log)?;
    let (mut accepted, mut refused, mut events) = (0u64, 0u64, 0u64);
    let began = Instant::now();
    for entry in &entries {
        if let Applied::Done(done) = shard.apply(entry) {
            let good = done.verdicts.iter().filter(|verdict| verdict.outcome.is_ok()).count() as u64;
            accepted += good;
            refused += done.verdicts.len() as u64 - good;
            events += done.events.len() as u64;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    ensure!(
        accepted + refused == commands as u64,
        "{} of {commands} were judged",
        accepted + refused
    );
    Ok(serde_json::json!({
        "bench": "core", "commands_per_s": (commands as f64 / seconds).round(), "ns_per_command": (seconds * 1e9 / commands as f64).round(),
        "commands": commands, "accepted": accepted, "refused": refused, "events": events, "clamped": shard.clamped(),
    }))
}

/// Where the log stands.
struct Log {
    n: u64,
    at: u64,
}

impl Log {
    fn entry(&mut self, commands: Vec<Command>) -> Entry {
        self.at += 1;
        let (n, at) = (self.n, Stamp(self.at));
        self.n += 1;
        let commands = commands
            .into_iter()
            .map(|command| Stamped { arrived: at, command })
            .collect();
        Entry {
            office: Office { term: 1, turn: 0 },
            n,
            at,
            commands,
            ..Entry::default()
        }
    }
}

fn workload(commands: usize, seed: u64, auctions: &[Id], log: &mut Log) -> Result<Vec<Entry>> {
    let mut dice = Dice::new(seed);
    let bidders: Vec<Id> = (0..BIDDERS)
        .map(|n| id(&format!("bidder-{n}")))
        .collect::<Result<_>>()?;
    // (price, leader, the newest accepted bid's id and amount) as the mix expects them.
    let mut state = vec![(1_000u64, usize::MAX, (0u64, 0u64)); auctions.len()];
    let (mut entries, mut batch) = (Vec::new(), Vec::with_capacity(BATCH));
    for n in 0..commands as u64 {
        let a = dice.below(AUCTIONS) as usize;
        let (price, leader, newest) = state[a];
        let other = (leader.wrapping_add(1 + dice.below(BIDDERS - 1) as usize)) % bidders.len();
        let bid = |who: usize, n: u64, amount: u64| -> Result<Command> {
            command(
                &auctions[a],
                bidders[who].as_str(),
                &format!("i{n}"),
                Action::Bid { amount },
            )
        };
        let made = match dice.below(20) {
            0..4 if leader != usize::MAX => bid(other, n, price)?,
            4..6 if leader != usize::MAX => bid(leader, n, price + 10)?,
            6 if leader != usize::MAX => bid(leader, newest.0, newest.1)?,
            7 => command(
                &id("nowhere")?,
                "bidder-1",
                &format!("i{n}"),
                Action::Bid { amount: 5_000 },
            )?,
            _ => {
                let amount = if leader == usize::MAX { price } else { price + 10 };
                state[a] = (amount, other, (n, amount));
                bid(other, n, amount)?
            }
        };
        batch.push(made);
        if batch.len() == BATCH {
            entries.push(log.entry(std::mem::take(&mut batch)));
        }
    }
    if !batch.is_empty() {
        entries.push(log.entry(batch));
    }
    Ok(entries)
}

fn id(text: &str) -> Result<Id> {
    Id::parse(text).context("an id")
}

fn command(auction: &Id, actor: &str, key: &str, action: Action) -> Result<Command> {
    let rights = Rights::MEMBER.and(Rights::BIDDER).and(Rights::SELLER);
    let actor = Actor { id: id(actor)?, rights };
    Ok(Command {
        auction: auction.clone(),
        actor,
        id: Some(id(key)?),
        first_sent: None,
        action,
    })
}

fn definition() -> Result<Definition> {
    let rush = Rush {
        cut_ppm_max: 300_000,
        cut_per_raise_ppm: 1_000,
        floor_ms: 10_000,
    };
    let terms = Terms {
        currency: Currency::parse("KRW").context("a currency")?,
        start_price: 1_000,
        increments: vec![(0, 10)],
        reserve: None,
        duration_ms: 86_000_000,
        time: TimeRule {
            rush: Some(rush),
            soft_close: None,
        },
        guests: true,
        pause_without_stream: false,
    };
    Ok(Definition {
        seller: id("seller")?,
        title: "Bench".into(),
        description: String::new(),
        terms,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn the_mix_is_what_it_says() {
        let figures = super::core(4_000, 1).unwrap();
        let accepted = figures["accepted"].as_u64().unwrap();
        // Bids that lead and repeats of accepted ones: about 13 of 20.
        assert!((2_400..3_000).contains(&accepted), "{figures}");
        assert_eq!(figures["clamped"], 0);
    }
}
