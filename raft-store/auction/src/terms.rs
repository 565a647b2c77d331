//! An auction's terms: the rules as data, fixed when it goes live and published with it.

use crate::money::{Currency, Money};
use alloc::{string::String, vec::Vec};

/// What is sold, by whom, under which terms. Edited only before the auction is live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    /// The seller: may not bid; starts, pauses and cancels.
    pub seller: crate::Id,
    /// One line, 1..=120 characters.
    pub title: String,
    /// Free text, up to 4,000 characters.
    pub description: String,
    /// The rules.
    pub terms: Terms,
}

/// The rules of price, time and admission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// All amounts are minor units of it.
    pub currency: Currency,
    /// The least first bid.
    pub start_price: Money,
    /// `(from price, increment)`, first row from 0, rising; `p + increment(p)` never falls as p grows.
    pub increments: Vec<(Money, Money)>,
    /// Hidden until met; `None`: sells to any bid.
    pub reserve: Option<Money>,
    /// Bidding time at the start, ms.
    pub duration_ms: u64,
    /// How bids move the end.
    pub time: TimeRule,
    /// Guests may bid (tests, demos).
    pub guests: bool,
    /// The clock pauses while the seller's stream is gone.
    pub pause_without_stream: bool,
}

/// How a bid moves the deadline. Rush first, then soft close on its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeRule {
    /// Cut in proportion to the raise.
    pub rush: Option<Rush>,
    /// Extend when a bid comes close to the end.
    pub soft_close: Option<SoftClose>,
    // `sudden_death` and `fixed` are this rule with neither: the end stands.
}

/// 'A raise of 1 % cuts N % of the time left, at most M %, never below the floor.'
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rush {
    /// Most of the time left that one bid can cut, parts per million (<= 900,000).
    pub cut_ppm_max: u64,
    /// Cut per relative raise: ppm of the time left for a raise of 100 %.
    pub cut_per_raise_ppm: u64,
    /// The cut never takes the time left below this, ms (>= 3,000).
    pub floor_ms: u64,
}

/// A bid with less than `window_ms` left sets the time left to `reset_to_ms`, `extensions_max` times at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SoftClose {
    /// A bid within the last `window_ms` extends.
    pub window_ms: u64,
    /// The time left after an extension, ms (>= `window_ms`).
    pub reset_to_ms: u64,
    /// How often it may.
    pub extensions_max: u32,
}
