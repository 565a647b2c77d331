//! Proof: an exported auction, recomputed with no trust in the server that exported it.
//!
//! ```text
//!   head   what is fixed (terms, seller, …)      -> must be what the chain was opened with      (line, bound)
//!   lines  is it bound?  each hash follows from the one before and from what the line says     (line, chain)
//!          is it right?  what it says follows from the rules and the lines before              (replay)
//!   head   what is shown (phase, price, …)       -> must be what the replay ends with           (head)
//! ```
//!
//! The replay works on plain values as they were published and shares with the server's judging only the arithmetic of
//! terms and cut, which the terms publish anyway. Every refusal has a code, the first that is found.
//!
//! What can't be known from outside is said here and not guessed: hidden maxima (a bid that a maximum answered may have
//! made any price up to one increment above it), bids that were refused or kept back, and whatever comes after the last
//! line: only a close ends an auction, so a live one's export is a beginning and no more.

mod head;
mod line;
mod replay;

pub use line::Line;

use crate::{
    AuctionView, Money, Phase, Terms,
    chain::{self, Hash},
};
use alloc::{format, string::String};
#[cfg(test)]
pub(crate) use line::{cells, digest_of, opening};

/// What an export says before its events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The auction's id.
    pub auction: String,
    /// Version of the definition.
    pub version: u32,
    /// Who sells.
    pub seller: String,
    /// One line.
    pub title: String,
    /// Free text.
    pub description: String,
    /// The published terms, with the reserve once it is opened.
    pub terms: Terms,
    /// Where it stands.
    pub shown: Shown,
}

/// What an export's head says of the auction's state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // the fields of `Auction` in docs/protocol.md, by the same names
pub struct Shown {
    pub phase: String,
    pub outcome: Option<String>,
    pub seq: u64,
    pub price: Money,
    pub least: Money,
    pub leader: Option<String>,
    pub bids: u64,
    pub reserve_met: Option<bool>,
    pub ends_at: Option<u64>,
    pub left_ms: Option<u64>,
    pub start_at_ms: Option<u64>,
    pub ct: u64,
    pub h: Hash,
}

impl From<&AuctionView> for Head {
    /// The auction as it is published.
    fn from(view: &AuctionView) -> Head {
        Head {
            auction: (&view.id).into(),
            version: view.version,
            seller: (&view.definition.seller).into(),
            title: view.definition.title.clone(),
            description: view.definition.description.clone(),
            terms: view.definition.terms.clone(),
            shown: Shown {
                phase: view.phase.word().into(),
                outcome: match view.phase {
                    Phase::Closed(outcome) => Some(outcome.word().into()),
                    _ => None,
                },
                seq: view.seq,
                price: view.price,
                least: view.least,
                leader: view.leader.as_ref().map(String::from),
                bids: view.bids,
                reserve_met: view.reserve_met,
                ends_at: view.ends_at.map(|stamp| stamp.0),
                left_ms: view.left_ms,
                start_at_ms: view.start_wall_ms,
                ct: view.ct.0,
                h: view.hash,
            },
        }
    }
}

/// What is known of the reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserved {
    /// There is none.
    None,
    /// There is one, sealed.
    Sealed,
    /// It was opened, fits its seal, and the outcome fits it.
    Opened(Money),
}

/// What a verified export shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Events verified.
    pub events: u64,
    /// Bids among them.
    pub bids: u64,
    /// The visible price after the last.
    pub price: Money,
    /// The winner, if it was sold.
    pub winner: Option<String>,
    /// `sold`, `unsold`, `cancelled`; `None`: not over yet.
    pub outcome: Option<String>,
    /// An `open` event binds the terms; without one (never live) they are the server's word.
    pub bound: bool,
    /// The reserve.
    pub reserve: Reserved,
    /// The hash of the last event: two exports that agree on it agree on everything.
    pub hash: Hash,
}

/// The first thing that doesn't hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// The event's number; `None`: it is the head.
    pub seq: Option<u64>,
    /// One word: which check.
    pub code: &'static str,
    /// What is wrong.
    pub what: String,
}

/// A check that failed: which, and what was found.
type Fault = (&'static str, String);
type Check = Result<(), Fault>;

fn holds(holds: bool, code: &'static str, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err((code, what())) }
}

/// Recomputes an export.
///
/// # Errors
/// The first line that isn't bound to those before it or breaks a rule, or what the head says that the lines don't bear out.
pub fn verify(head: &Head, lines: impl IntoIterator<Item = Line>) -> Result<Summary, Broken> {
    let of_head = |(code, what)| Broken { seq: None, code, what };
    if let Err(wrong) = head.terms.validate() {
        return Err(of_head(("terms", format!("{} must be {}", wrong.field, wrong.must))));
    }
    let mut replay = replay::Replay::new(head);
    for line in lines {
        let seq = Some(line.seq);
        replay.step(&line).map_err(|(code, what)| Broken { seq, code, what })?;
    }
    head::check(head, &replay).map_err(of_head)?;
    Ok(Summary {
        events: replay.seq,
        bids: replay.bids,
        price: replay.price,
        winner: replay.leader.filter(|_| replay.outcome.as_deref() == Some("sold")),
        outcome: replay.outcome,
        bound: replay.bound,
        reserve: match (replay.seal, head.terms.reserve) {
            (None, _) => Reserved::None,
            (Some(_), None) => Reserved::Sealed,
            (Some(_), Some(reserve)) => Reserved::Opened(reserve.amount),
        },
        hash: replay.hash.unwrap_or(chain::genesis()),
    })
}
