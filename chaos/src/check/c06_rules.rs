//! C6, the rules: the log, replayed from the history's document.
//!
//! Source: `rushroom-history/1`, meta and the bullets on `ct`, `dl`, `resume`, `extend`, `held`:
//! `cut = min(cap_ppm, k_ppm*(amt-prev)/max(prev,1))`, `rem = dl-ct`,
//! `rem' = max(rem - rem*cut/10^6, min(rem, floor_ms))`, `dl' = ct+rem'`, integer division, prev of a first bid = start
//! price. Written without a look at the product's core, in u128. How an auction ends is C8's.

use super::Outcome;
use crate::{
    book::Book,
    history::{Log, Meta},
};

/// An auction as the replay has it.
struct Replay<'m> {
    meta: &'m Meta,
    phase: Phase,
    price: u64,
    leader: Option<String>,
    ct: u64,
    dl: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Before,
    Live,
    /// Since this stamp.
    Paused(u64),
}

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C6", "the rules, replayed");
    let meta = book.meta();
    for (a, auction) in &book.auctions {
        let mut replay = Replay {
            meta: &meta,
            phase: Phase::Before,
            price: meta.start_price,
            leader: None,
            ct: 0,
            dl: 0,
        };
        let mut before = None;
        for (log, place) in &auction.versions {
            if log.ty == "close" {
                break;
            }
            out.judged += 1;
            if let Err(why) = replay.step(log) {
                out.fail(
                    format!("{a}: {} {}: {why}", log.ty, log.seq),
                    before.into_iter().chain([*place]).collect(),
                );
            }
            replay.take(log);
            before = Some(*place);
        }
    }
    out
}

impl Replay<'_> {
    /// Whether the rules allow this event now.
    fn step(&self, log: &Log) -> Result<(), String> {
        let Replay { phase, ct, dl, .. } = *self;
        if log.ct < ct {
            return Err(format!("its stamp {} is before {ct}", log.ct));
        }
        let live = phase == Phase::Live;
        match log.ty.as_str() {
            "open" if phase != Phase::Before => Err("a second opening".into()),
            "open" if log.dl < log.ct => Err("a deadline before the opening".into()),
            "open" => Ok(()),
            _ if phase == Phase::Before => Err("before the opening".into()),
            "bid" if !live => Err("a bid while paused".into()),
            "bid" => self.bid(log),
            "pause" if !live || log.ct >= dl => Err("a pause of what isn't counting".into()),
            "pause" | "held" => equal("the deadline", log.dl, dl),
            "resume" => match phase {
                Phase::Paused(since) => {
                    equal("its length", log.dms.unwrap_or(0), log.ct - since)?;
                    equal("the deadline", log.dl, dl + (log.ct - since))
                }
                _ => Err("a resume of what isn't paused".into()),
            },
            "extend" if live && log.ct >= dl => Err("an extension after the deadline".into()),
            "extend" => equal("the deadline", log.dl, dl + log.dms.unwrap_or(0)),
            other => Err(format!("an event of kind {other:?} has no place in a run under test")),
        }
    }

    fn bid(&self, log: &Log) -> Result<(), String> {
        let amt = log.amt.unwrap_or(0);
        let least = self
            .leader
            .as_ref()
            .map_or(self.price, |_| self.price + self.meta.min_inc);
        if log.ct >= self.dl {
            return Err(format!("it arrived at {}, the deadline was {}", log.ct, self.dl));
        }
        if amt < least {
            return Err(format!("{amt} is below {least}"));
        }
        if self.leader.as_ref() == Some(&log.bidder) {
            return Err("the leader overbids itself".into());
        }
        equal("the deadline", log.dl, self.deadline(log.ct, amt))
    }

    /// The deadline that a bid makes.
    fn deadline(&self, ct: u64, amt: u64) -> u64 {
        let [prev, amt, left] = [self.price, amt, self.dl - ct].map(u128::from);
        let [k, cap, floor] = [self.meta.k_ppm, self.meta.cap_ppm, self.meta.floor_ms].map(u128::from);
        let cut = cap.min(k * (amt - prev) / prev.max(1));
        let rest = (left - left * cut / 1_000_000).max(left.min(floor));
        ct + rest as u64
    }

    /// Goes on from what the log says, right or wrong: one bug, one finding.
    fn take(&mut self, log: &Log) {
        (self.ct, self.dl) = (log.ct, log.dl);
        match log.ty.as_str() {
            "open" | "resume" => self.phase = Phase::Live,
            "pause" => self.phase = Phase::Paused(log.ct),
            "bid" => {
                self.price = log.amt.unwrap_or(self.price);
                self.leader = Some(log.bidder.clone());
            }
            _ => {}
        }
    }
}

fn equal(what: &str, is: u64, must: u64) -> Result<(), String> {
    if is == must {
        Ok(())
    } else {
        Err(format!("{what} is {is}, must be {must}"))
    }
}
