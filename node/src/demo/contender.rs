//! A bidder that keeps the books on the harness's clock: when each bid was sent, when its verdict came, what it said.
//! A bid without a verdict stays open in them until `settle` has asked for it again, under the same id.

use super::crowd::{Door, Guest};
use client::bots::Seen;
use client::wire::Verdict;
use client::{BidError, Dice};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// An accepted bid.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    /// The auction.
    pub(super) auction: String,
    /// Who bid.
    pub(super) user: String,
    /// The bid's id.
    pub(super) id: String,
    /// Its amount.
    pub(super) amount: u64,
    /// Before it was sent.
    pub(super) sent: Instant,
    /// After its verdict was read.
    pub(super) got: Instant,
    /// The verdict.
    pub(super) verdict: Verdict,
}

/// A bid whose outcome is not known yet.
#[derive(Clone, Debug)]
pub(super) struct Open {
    id: String,
    amount: u64,
    sent: Instant,
}

/// All that became of one contender's bids.
#[derive(Debug, Default)]
pub(super) struct Books {
    auction: String,
    user: String,
    token: String,
    /// Accepted ones, in order.
    pub(super) accepted: Vec<Accepted>,
    /// Refused ones, by code.
    pub(super) refused: BTreeMap<String, u64>,
    /// Without a verdict so far.
    pub(super) open: Vec<Open>,
}

impl Books {
    /// Asks for each open bid once more, by HTTP and with its first id, at every node until one answers. Only a verdict
    /// settles it: what an edge refuses by itself says nothing about the bid that was sent before.
    pub(super) async fn settle(&mut self, door: &Door) {
        let api = door.api().with_token(&self.token);
        for bid in std::mem::take(&mut self.open) {
            match api.bid(&self.auction, bid.amount, &bid.id).await {
                Ok(verdict) => self.book(bid, verdict),
                Err(error) => {
                    tracing::error!(auction = self.auction, bid = bid.id, %error, "a bid's outcome stays unknown");
                    self.open.push(bid);
                }
            }
        }
    }

    fn book(&mut self, bid: Open, verdict: Verdict) {
        match &verdict.code {
            None => self.accepted.push(Accepted {
                auction: self.auction.clone(),
                user: self.user.clone(),
                id: bid.id,
                amount: bid.amount,
                sent: bid.sent,
                got: Instant::now(),
                verdict,
            }),
            Some(code) => *self.refused.entry(code.clone()).or_default() += 1,
        }
    }
}

/// A contender and its habits.
pub(super) struct Contender {
    /// Who it is, with a socket.
    pub(super) guest: Guest,
    /// What it wants.
    pub(super) auction: String,
    /// Of its pauses and raises.
    pub(super) seed: u64,
    /// Pause between bids, ms, from and to.
    pub(super) think_ms: (u64, u64),
}

impl Contender {
    /// Bids until the auction closes or `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Books {
        let mut dice = Dice::new(self.seed);
        let mut seen = Seen::default();
        let user = self.guest.session.user.id.clone();
        let mut books = Books {
            auction: self.auction.clone(),
            user: user.clone(),
            token: self.guest.session.token.clone(),
            ..Books::default()
        };
        self.guest.socket.join(&self.auction).await;
        while !seen.closed() {
            let think = Duration::from_millis(dice.between(self.think_ms.0, self.think_ms.1));
            if !self.watch(&mut seen, think, &stop).await {
                break;
            }
            let live = seen
                .auction
                .as_ref()
                .filter(|a| a.phase == "live" && a.leader.as_deref() != Some(&user));
            let Some(auction) = live else { continue };
            let step = auction.increments.first().map_or(1, |row| row[1]);
            let amount = auction.least.saturating_add(step * dice.below(3));
            self.bid(&mut seen, &mut books, amount, dice.id("s-")).await;
        }
        books
    }

    async fn bid(&mut self, seen: &mut Seen, books: &mut Books, amount: u64, id: String) {
        let sent = Instant::now();
        let socket = self.guest.socket.clone();
        let bid = socket.bid(&self.auction, amount, &id);
        tokio::pin!(bid);
        let verdict = loop {
            tokio::select! {
                verdict = &mut bid => break verdict,
                Some(notice) = self.guest.notices.recv() => seen.take(&self.auction, &notice),
            }
        };
        let bid = Open {
            id: id.clone(),
            amount,
            sent,
        };
        match verdict {
            Ok(verdict) => {
                seen.judged(&verdict);
                books.book(bid, verdict);
            }
            Err(BidError::Refused(problem)) => *books.refused.entry(problem.code).or_default() += 1,
            Err(BidError::Full) => {}
            Err(BidError::Unknown | BidError::Closed) => books.open.push(bid),
        }
    }

    /// Follows the room for `time`; false: leave.
    async fn watch(&mut self, seen: &mut Seen, time: Duration, stop: &CancellationToken) -> bool {
        let until = tokio::time::Instant::now() + time;
        loop {
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep_until(until) => return true,
                notice = self.guest.notices.recv() => match notice {
                    Some(notice) => seen.take(&self.auction, &notice),
                    None => return false,
                },
            }
        }
    }
}
