//! A bidder that keeps the books on the harness's clock: when each bid was sent, when its verdict came, what it said.

use client::bots::Seen;
use client::wire::Verdict;
use client::{BidError, Dice, Notices, Socket};
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

/// All that became of one contender's bids.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Accepted ones, in order.
    pub(super) accepted: Vec<Accepted>,
    /// Refused ones, by code.
    pub(super) refused: BTreeMap<String, u64>,
    /// Without a verdict.
    pub(super) unknown: u64,
}

/// A contender and its habits.
pub(super) struct Contender {
    /// Its socket, signed in as `user`.
    pub(super) socket: Socket,
    /// What that tells.
    pub(super) notices: Notices,
    /// Who it is.
    pub(super) user: String,
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
        let (mut seen, mut books) = (Seen::default(), Books::default());
        self.socket.join(&self.auction).await;
        while !seen.closed() {
            let think = Duration::from_millis(dice.between(self.think_ms.0, self.think_ms.1));
            if !self.watch(&mut seen, think, &stop).await {
                break;
            }
            let live = seen
                .auction
                .as_ref()
                .filter(|a| a.phase == "live" && a.leader.as_deref() != Some(&self.user));
            let Some(auction) = live else { continue };
            let step = auction.increments.first().map_or(1, |row| row[1]);
            let amount = auction.least.saturating_add(step * dice.below(3));
            self.bid(&mut seen, &mut books, amount, dice.id("s-")).await;
        }
        books
    }

    async fn bid(&mut self, seen: &mut Seen, books: &mut Books, amount: u64, id: String) {
        let sent = Instant::now();
        let socket = self.socket.clone();
        let bid = socket.bid(&self.auction, amount, &id);
        tokio::pin!(bid);
        let verdict = loop {
            tokio::select! {
                verdict = &mut bid => break verdict,
                Some(notice) = self.notices.recv() => seen.take(&self.auction, &notice),
            }
        };
        let got = Instant::now();
        match verdict {
            Ok(verdict) => {
                seen.judged(&verdict);
                match &verdict.code {
                    None => {
                        let (auction, user) = (self.auction.clone(), self.user.clone());
                        books.accepted.push(Accepted {
                            auction,
                            user,
                            id: id.clone(),
                            amount,
                            sent,
                            got,
                            verdict,
                        });
                    }
                    Some(code) => *books.refused.entry(code.clone()).or_default() += 1,
                }
            }
            Err(BidError::Refused(problem)) => *books.refused.entry(problem.code).or_default() += 1,
            Err(BidError::Full) => {}
            Err(BidError::Unknown | BidError::Closed) => books.unknown += 1,
        }
    }

    /// Follows the room for `time`; false: leave.
    async fn watch(&mut self, seen: &mut Seen, time: Duration, stop: &CancellationToken) -> bool {
        let until = tokio::time::Instant::now() + time;
        loop {
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep_until(until) => return true,
                notice = self.notices.recv() => match notice {
                    Some(notice) => seen.take(&self.auction, &notice),
                    None => return false,
                },
            }
        }
    }
}
