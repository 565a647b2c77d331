//! The simulated house: clocks, rules, logs. Its bugs are arguments: who plants them decides when.

use crate::{
    check::hash,
    history::{Log, Nanos},
};
use std::collections::{BTreeSet, HashMap};

/// A shard's clock: the harness's time minus what was lost.
#[derive(Clone, Default)]
struct Clock {
    lost: Nanos,
    /// It stands since then.
    since: Option<Nanos>,
}

/// One auction.
pub(super) struct Auction {
    log: Vec<Log>,
    shard: u32,
    pub(super) price: u64,
    pub(super) leader: Option<String>,
    pub(super) dl: u64,
    pub(super) open: bool,
    pub(super) closed: bool,
    /// Paused since, and until.
    paused: Option<(u64, u64)>,
    /// What was answered to whom: (bidder, id) -> (amount, version).
    pub(super) known: HashMap<(String, String), (u64, u64)>,
}

/// All of them.
pub(super) struct House {
    clocks: Vec<Clock>,
    auctions: Vec<Auction>,
    /// The next hash is made of a wrong stamp.
    pub(super) mishash: bool,
}

/// The name of an auction.
pub(super) fn name(a: usize) -> String {
    format!("lot-{a}")
}

/// Its shard.
pub(super) fn shard(a: usize, shards: u32) -> u32 {
    a as u32 % shards
}

impl House {
    pub(super) fn new(auctions: usize, shards: u32) -> House {
        let auction = |a| Auction {
            log: Vec::new(),
            shard: shard(a, shards),
            price: 1_000,
            leader: None,
            dl: 0,
            open: false,
            closed: false,
            paused: None,
            known: HashMap::new(),
        };
        House {
            clocks: vec![Clock::default(); shards as usize],
            auctions: (0..auctions).map(auction).collect(),
            mishash: false,
        }
    }

    pub(super) fn get(&self, a: usize) -> &Auction {
        &self.auctions[a]
    }

    pub(super) fn log(&self, a: usize) -> &[Log] {
        &self.auctions[a].log
    }

    /// Newest version.
    pub(super) fn seq(&self, a: usize) -> u64 {
        self.auctions[a].log.len() as u64
    }

    pub(super) fn phase(&self, a: usize) -> &'static str {
        match &self.auctions[a] {
            auction if auction.closed => "closed",
            auction if auction.paused.is_some() => "paused",
            _ => "live",
        }
    }

    /// What the clock of an auction's shard reads; never below the auction's newest stamp.
    pub(super) fn clock(&self, a: usize, now: Nanos) -> u64 {
        let auction = &self.auctions[a];
        let clock = &self.clocks[auction.shard as usize];
        let read = (clock.since.unwrap_or(now) - clock.lost) / 1_000_000;
        auction.log.last().map_or(0, |log| log.ct).max(read.max(0) as u64)
    }

    /// A shard's clock, or all, stand from now, or go on.
    pub(super) fn stand(&mut self, now: Nanos, stand: bool, only: Option<u32>) {
        for (_, clock) in self
            .clocks
            .iter_mut()
            .enumerate()
            .filter(|(n, _)| only.is_none_or(|only| only as usize == *n))
        {
            match (stand, clock.since) {
                (true, None) => clock.since = Some(now),
                (false, Some(since)) => {
                    clock.lost += now - since;
                    clock.since = None;
                }
                _ => {}
            }
        }
    }

    /// A clock loses (or gains) this much.
    pub(super) fn slip(&mut self, shard: u32, by: Nanos) {
        self.clocks[shard as usize].lost += by;
    }

    /// Whether something is due by `clock`: a close (true) or the end of a pause (false).
    pub(super) fn due(&self, a: usize, clock: u64) -> Option<bool> {
        let auction = &self.auctions[a];
        match auction.paused {
            _ if !auction.open || auction.closed => None,
            Some((_, until)) => (until <= clock).then_some(false),
            None => (auction.dl <= clock).then_some(true),
        }
    }

    /// Whether the close is near but not there.
    pub(super) fn due_within(&self, a: usize, clock: u64, ms: u64) -> bool {
        self.due(a, clock).is_none() && self.due(a, clock + ms) == Some(true)
    }

    /// How many different people bid.
    pub(super) fn bidders(&self, a: usize) -> usize {
        let bidders: BTreeSet<_> = self
            .log(a)
            .iter()
            .filter(|log| log.ty == "bid")
            .map(|log| &log.bidder)
            .collect();
        bidders.len()
    }

    /// Fires what is due: gives the new version.
    pub(super) fn fire(&mut self, a: usize, early: u64, wrong: bool, longer: u64) -> u64 {
        let auction = &mut self.auctions[a];
        if let Some((since, until)) = auction.paused.take() {
            let dms = until - since;
            auction.dl += dms + longer;
            return self.append(
                a,
                Log {
                    ty: "resume".into(),
                    ct: until,
                    dms: Some(dms),
                    ..Log::default()
                },
            );
        }
        auction.closed = true;
        let (mut bidder, amt) = (
            auction.leader.clone().unwrap_or_default(),
            if auction.leader.is_some() { auction.price } else { 0 },
        );
        if wrong {
            let other = auction
                .log
                .iter()
                .rev()
                .find(|log| log.ty == "bid" && log.bidder != bidder);
            bidder = other.map_or(bidder.clone(), |log| log.bidder.clone());
        }
        let last = auction.log.last().map_or(0, |log| log.ct);
        let ct = last.max(auction.dl - early.min(auction.dl));
        self.append(
            a,
            Log {
                ty: "close".into(),
                ct,
                bidder,
                amt: Some(amt),
                ..Log::default()
            },
        )
    }

    pub(super) fn close_again(&mut self, a: usize) -> u64 {
        let close = self.auctions[a].log.last().cloned().unwrap_or_default();
        self.append(a, close)
    }

    pub(super) fn start(&mut self, a: usize, ct: u64, duration: u64) -> u64 {
        (self.auctions[a].open, self.auctions[a].dl) = (true, ct + duration);
        self.append(
            a,
            Log {
                ty: "open".into(),
                ct,
                ..Log::default()
            },
        )
    }

    pub(super) fn pause(&mut self, a: usize, ct: u64, ms: u64) -> u64 {
        self.auctions[a].paused = Some((ct, ct + ms));
        self.append(
            a,
            Log {
                ty: "pause".into(),
                ct,
                ..Log::default()
            },
        )
    }

    pub(super) fn extend(&mut self, a: usize, ct: u64, ms: u64) -> u64 {
        self.auctions[a].dl += ms;
        self.append(
            a,
            Log {
                ty: "extend".into(),
                ct,
                dms: Some(ms),
                ..Log::default()
            },
        )
    }

    pub(super) fn held(&mut self, a: usize, ct: u64, dms: u64) -> Option<u64> {
        let on = self.auctions[a].open && !self.auctions[a].closed;
        on.then(|| {
            self.append(
                a,
                Log {
                    ty: "held".into(),
                    ct,
                    dms: Some(dms),
                    ..Log::default()
                },
            )
        })
    }

    /// The least next bid.
    pub(super) fn least(&self, a: usize) -> u64 {
        let auction = &self.auctions[a];
        if auction.leader.is_some() {
            auction.price + 10
        } else {
            auction.price
        }
    }

    /// Applies a bid; `off`: the deadline is wrong by this.
    pub(super) fn bid(&mut self, a: usize, ct: u64, (bidder, idem, amt): (&str, &str, u64), off: i64) -> u64 {
        let auction = &mut self.auctions[a];
        // ppm of what is left, as published: 1 % up cuts 0.2 %, at most 30 %, never below 3 s.
        let left = auction.dl.saturating_sub(ct);
        let raised = amt.saturating_sub(auction.price);
        let ppm = (raised * 200_000 / auction.price.max(1)).min(300_000);
        let kept = left - left * ppm / 1_000_000;
        let rest = if kept < 3_000 { kept.max(left.min(3_000)) } else { kept };
        auction.dl = (ct + rest).saturating_add_signed(off);
        (auction.price, auction.leader) = (amt, Some(bidder.into()));
        let bid = Log {
            ty: "bid".into(),
            ct,
            idem: idem.into(),
            bidder: bidder.into(),
            amt: Some(amt),
            ..Log::default()
        };
        let seq = self.append(a, bid);
        self.auctions[a].known.insert((bidder.into(), idem.into()), (amt, seq));
        seq
    }

    fn append(&mut self, a: usize, event: Log) -> u64 {
        let auction = &mut self.auctions[a];
        let seq = auction.log.len() as u64 + 1;
        let (a, dl, shard) = (name(a), auction.dl, auction.shard);
        let before = auction
            .log
            .last()
            .map_or_else(|| hash::genesis(&a), |log| log.h.clone());
        let mut log = Log {
            a,
            seq,
            dl,
            shard,
            term: Some(1),
            index: Some(seq),
            ..event
        };
        let mistaken = Log {
            ct: log.ct + u64::from(std::mem::take(&mut self.mishash)),
            ..log.clone()
        };
        log.h = hash::next(&before, &mistaken);
        auction.log.push(log);
        seq
    }
}
