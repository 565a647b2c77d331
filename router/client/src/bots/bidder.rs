//! A bidder: overbids when it isn't leading, thinks a while in between, stops at its budget.

use super::Seen;
use crate::{BidError, Dice, Notices, Socket, wire::Verdict};
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;

/// How a bidder behaves.
#[derive(Clone, Debug)]
pub struct BidderOptions {
    /// The auction it wants.
    pub auction: String,
    /// Who it is: the user id of its token.
    pub user: String,
    /// Of its thoughts.
    pub seed: u64,
    /// Thinks at least this long before a bid …
    pub think_min: Duration,
    /// … and at most this long.
    pub think_max: Duration,
    /// Bids up to this many times the least raise above the least next bid.
    pub eager: u64,
    /// Never bids more than this.
    pub budget: u64,
    /// Never bids more often than this.
    pub bids_max: u64,
}

/// What became of its bids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BidderReport {
    /// Accepted: (id, amount), in order.
    pub accepted: Vec<(String, u64)>,
    /// Refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Without a verdict.
    pub unknown: u64,
}

/// A bidding bot on its own socket.
pub struct Bidder {
    socket: Socket,
    notices: Notices,
    options: BidderOptions,
}

impl Bidder {
    /// A bidder that will use `socket`, which must be signed in.
    #[must_use]
    pub fn new(socket: Socket, notices: Notices, options: BidderOptions) -> Bidder {
        Bidder {
            socket,
            notices,
            options,
        }
    }

    /// Bids until the auction closes, the budget or the number of bids is used up, or `stop` says so.
    pub async fn run(mut self, stop: CancellationToken) -> BidderReport {
        let mut dice = Dice::new(self.options.seed);
        let (mut seen, mut report) = (Seen::default(), BidderReport::default());
        let mut bids = 0;
        self.socket.join(&self.options.auction).await;
        while bids < self.options.bids_max && !seen.closed() {
            let think = dice.between(
                self.options.think_min.as_millis() as u64,
                self.options.think_max.as_millis() as u64,
            );
            if !self.watch(&mut seen, Duration::from_millis(think), &stop).await {
                break;
            }
            let Some(amount) = self.wish(&seen, &mut dice) else {
                continue;
            };
            if amount > self.options.budget {
                break;
            }
            bids += 1;
            let id = dice.id("b-");
            match self.bid(&mut seen, amount, &id).await {
                Ok(verdict) => {
                    seen.judged(&verdict);
                    match verdict.code {
                        None => report.accepted.push((id, amount)),
                        Some(code) => *report.refused.entry(code).or_default() += 1,
                    }
                }
                Err(BidError::Refused(problem)) => *report.refused.entry(problem.code).or_default() += 1,
                Err(BidError::Full) => {}
                Err(BidError::Unknown) => report.unknown += 1,
                Err(BidError::Closed) => {
                    report.unknown += 1;
                    break;
                }
            }
        }
        report
    }

    /// One bid. Notices go on being read meanwhile, or a full queue of them would hold back our own verdict.
    async fn bid(&mut self, seen: &mut Seen, amount: u64, id: &str) -> Result<Verdict, BidError> {
        let bid = self.socket.bid(&self.options.auction, amount, id);
        tokio::pin!(bid);
        loop {
            tokio::select! {
                verdict = &mut bid => return verdict,
                Some(notice) = self.notices.recv() => seen.take(&self.options.auction, &notice),
            }
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
                    Some(notice) => seen.take(&self.options.auction, &notice),
                    None => return false,
                },
            }
        }
    }

    /// What it would bid now, if anything.
    fn wish(&self, seen: &Seen, dice: &mut Dice) -> Option<u64> {
        let auction = seen.auction.as_ref().filter(|auction| auction.phase == "live")?;
        if auction.leader.as_ref() == Some(&self.options.user) {
            return None;
        }
        let raise = super::step(&auction.increments, auction.price);
        Some(
            auction
                .least
                .saturating_add(raise.saturating_mul(dice.below(self.options.eager + 1))),
        )
    }
}
