//! Bots: people who bid, talk and watch, from a seed. The demo's crowd and the harness's load.
//!
//! ```text
//!   notices --> Seen (what a person knows) --> think (a seeded pause) --> bid | say | nothing
//! ```
//!
//! A bot knows what a person at the page knows and no more: it guesses the next bid from the published increments and
//! learns from a refusal. Everything it does is bounded by its options, and it leaves when its auction has closed.

mod bidder;
mod chatter;
mod watcher;

pub use bidder::{Bidder, BidderOptions, BidderReport};
pub use chatter::{Chatter, ChatterOptions, ChatterReport};
pub use watcher::{Watcher, WatcherReport};

use crate::{socket::Notice, wire::Auction};

/// What a person in the room knows.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The auction as of the newest snapshot, moved on by events.
    pub auction: Option<Auction>,
}

impl Seen {
    /// Takes a notice about `auction` in.
    pub fn take(&mut self, id: &str, notice: &Notice) {
        match notice {
            Notice::Snap { a, auction, .. } | Notice::Changed { a, auction } if a == id => {
                self.auction = Some(auction.as_ref().clone());
            }
            Notice::State { a, price, least, seq } if a == id => {
                if let Some(auction) = self.auction.as_mut().filter(|auction| auction.seq < *seq) {
                    (auction.price, auction.least, auction.seq) = (*price, *least, *seq);
                }
            }
            Notice::Event { a, event, .. } if a == id => {
                let Some(auction) = self.auction.as_mut().filter(|auction| auction.seq < event.seq) else {
                    return;
                };
                (auction.seq, auction.price, auction.leader) = (event.seq, event.price, event.leader.clone());
                auction.ends_at = Some(event.ends_at);
                auction.bids += u64::from(event.ty == "bid");
                match event.ty.as_str() {
                    "open" | "resume" => auction.phase = "live".into(),
                    "pause" => auction.phase = "paused".into(),
                    "close" => {
                        auction.phase = "closed".into();
                        auction.outcome = event.outcome.clone();
                    }
                    _ => {}
                }
                auction.least = match auction.bids {
                    0 => auction.start_price,
                    _ => auction.price.saturating_add(step(&auction.increments, auction.price)),
                };
            }
            _ => {}
        }
    }

    /// A verdict tells what the newest events may not have told yet.
    pub fn judged(&mut self, verdict: &crate::wire::Verdict) {
        if let Some(auction) = self.auction.as_mut().filter(|auction| auction.seq <= verdict.seq) {
            (auction.seq, auction.price, auction.least) = (verdict.seq, verdict.price, verdict.least);
            auction.leader = verdict.leader.clone();
            auction.phase.clone_from(&verdict.phase);
        }
    }

    /// It is over.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.auction.as_ref().is_some_and(Auction::is_closed)
    }
}

/// The increment at a price, as published: a guess at the least next bid, which only the server decides.
fn step(increments: &[[u64; 2]], price: u64) -> u64 {
    increments
        .iter()
        .rev()
        .find(|row| row[0] <= price)
        .map_or(1, |row| row[1].max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Event;
    use std::time::Instant;

    fn snap(auction: Auction) -> Notice {
        let position = crate::Position {
            epoch: 1,
            offset: auction.seq,
        };
        Notice::Snap {
            a: "a".into(),
            position,
            auction: Box::new(auction),
            recent: Vec::new(),
            at: Instant::now(),
        }
    }

    fn event(seq: u64, ty: &str, price: u64) -> Notice {
        let event = Event {
            seq,
            ty: ty.into(),
            price,
            leader: Some("kim".into()),
            ..Event::default()
        };
        Notice::Event {
            a: "a".into(),
            event: Box::new(event),
            at: Instant::now(),
        }
    }

    #[test]
    fn a_person_knows_what_the_page_shows() {
        let mut seen = Seen::default();
        let increments = vec![[0, 10], [1_000, 50]];
        let auction = Auction {
            seq: 1,
            start_price: 500,
            price: 500,
            increments,
            ..Auction::default()
        };
        // notice | price | least | closed
        for (notice, price, least, closed) in [
            (snap(auction), 500, 0, false),
            (event(2, "bid", 500), 500, 510, false),
            (event(3, "bid", 1_000), 1_000, 1_050, false),
            (event(2, "bid", 500), 1_000, 1_050, false), // a repeat changes nothing
            (event(4, "close", 1_000), 1_000, 1_050, true),
        ] {
            seen.take("a", &notice);
            let now = seen.auction.clone().unwrap_or_default();
            assert_eq!(
                (now.price, now.least, seen.closed()),
                (price, least, closed),
                "{notice:?}"
            );
        }
        seen.take("another", &event(9, "bid", 9_999));
        assert_eq!(seen.auction.map(|a| a.price), Some(1_000));
    }
}
