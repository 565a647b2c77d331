//! What the people of a run know together: which auctions there are, what each stands at. Newest version wins.

use crate::history::Ret;
use client::{
    Api, Dice,
    wire::{Auction, Event},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

#[derive(Clone, Default)]
struct Known {
    shard: u32,
    seq: u64,
    price: u64,
    leader: Option<String>,
    closed: bool,
}

/// The auctions of a run.
pub(crate) struct House {
    ids: Vec<String>,
    known: Mutex<BTreeMap<String, Known>>,
    min_inc: u64,
}

impl House {
    pub(crate) fn new(auctions: Vec<Auction>, min_inc: u64) -> House {
        let ids = auctions.iter().map(|auction| auction.id.clone()).collect();
        let known = |auction: Auction| {
            (
                auction.id,
                Known {
                    shard: auction.shard,
                    price: auction.price,
                    ..Known::default()
                },
            )
        };
        House {
            ids,
            known: Mutex::new(auctions.into_iter().map(known).collect()),
            min_inc,
        }
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.ids.clone()
    }

    /// The hottest auction.
    pub(crate) fn hot(&self) -> String {
        self.ids.first().cloned().unwrap_or_default()
    }

    pub(crate) fn hot_shard(&self) -> u32 {
        self.shard(&self.hot())
    }

    /// Shards that hold auctions of the run.
    pub(crate) fn shards(&self) -> BTreeSet<u32> {
        self.known.lock().values().map(|known| known.shard).collect()
    }

    pub(crate) fn shard(&self, a: &str) -> u32 {
        self.known.lock().get(a).map_or(0, |known| known.shard)
    }

    /// An auction to act on: the hot one with its share, closed ones now and then (their refusals count too).
    pub(crate) fn wish(&self, dice: &mut Dice, hot_percent: u64) -> Option<String> {
        let known = self.known.lock();
        let open: Vec<&String> = self
            .ids
            .iter()
            .filter(|a| known.get(*a).is_some_and(|k| !k.closed))
            .collect();
        if dice.chance(3) || open.is_empty() {
            return dice.pick(&self.ids).cloned();
        }
        match open.first() {
            Some(hot) if **hot == self.ids[0] && dice.chance(hot_percent) => Some((*hot).clone()),
            _ => dice.pick(&open).map(|a| (*a).clone()),
        }
    }

    /// The least next bid, as far as anyone here knows.
    pub(crate) fn least(&self, a: &str) -> u64 {
        let known = self.known.lock().get(a).cloned().unwrap_or_default();
        if known.leader.is_some() {
            known.price + self.min_inc
        } else {
            known.price
        }
    }

    fn newer(&self, a: &str, seq: u64, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known.lock().get_mut(a).filter(|known| known.seq < seq) {
            known.seq = seq;
            change(known);
        }
    }

    pub(crate) fn saw(&self, auction: &Auction) {
        self.newer(&auction.id, auction.seq, |known| {
            (known.price, known.leader, known.closed) = (auction.price, auction.leader.clone(), auction.is_closed());
        });
    }

    pub(crate) fn heard(&self, a: &str, event: &Event) {
        self.newer(a, event.seq, |known| {
            (known.price, known.leader, known.closed) = (event.price, event.leader.clone(), event.ty == "close");
        });
    }

    pub(crate) fn told(&self, a: &str, ret: &Ret) {
        self.newer(a, ret.seq.unwrap_or(0), |known| {
            known.price = ret.hi.unwrap_or(known.price);
            known.leader.clone_from(&ret.ldr);
            known.closed = ret.ph.as_deref() == Some("closed");
        });
    }

    /// Waits until every auction is closed; false: one never was.
    pub(crate) async fn all_closed(&self, api: &Api, within: Duration) -> bool {
        let until = Instant::now() + within;
        for a in &self.ids {
            loop {
                if api.auction(a).await.is_ok_and(|auction| auction.is_closed()) {
                    break;
                }
                if Instant::now() > until {
                    tracing::error!(auction = a, "never closed");
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        true
    }
}
