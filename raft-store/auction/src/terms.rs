//! An auction's terms: the rules as data, fixed when it goes live and published with it.
//!
//! Every field's bounds stand in one place, `validate`, which names the first field that is wrong; the edge asks it before
//! a command is sent, and `apply` asks it again, because a log may hold anything.

use crate::{
    bound::Reserve,
    money::{Currency, MONEY_MAX, Money},
};
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
    /// Hidden until the end; `None`: sells to any bid.
    pub reserve: Option<Reserve>,
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

/// A field that is out of its bounds, and what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// The field, as it is called on the wire.
    pub field: &'static str,
    /// What it must be.
    pub must: &'static str,
}

/// Most characters of a title.
pub const TITLE_MAX: usize = 120;
/// Most characters of a description.
pub const DESCRIPTION_MAX: usize = 4_000;
/// Most rows of an increment ladder.
pub const INCREMENTS_MAX: usize = 32;
/// Shortest and longest bidding time at the start, ms (one second to thirty days).
pub const DURATION_MS: core::ops::RangeInclusive<u64> = 1_000..=2_592_000_000;
/// Most time that one `Extend` gives, ms.
pub const EXTEND_MS_MAX: u64 = 86_400_000;
/// Shortest and longest timed pause, ms. Shorter ones would be over before anyone saw them.
pub const PAUSE_MS: core::ops::RangeInclusive<u64> = 1_000..=86_400_000;
/// Most characters of a cancel's reason.
pub const REASON_MAX: usize = 300;

fn must(field: &'static str, holds: bool, must: &'static str) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(Wrong { field, must }) }
}

impl Definition {
    /// Whether every field is within its bounds.
    ///
    /// # Errors
    /// The first field that isn't.
    pub fn validate(&self) -> Result<(), Wrong> {
        let one_line = |text: &str| !text.chars().any(char::is_control);
        let text = |text: &str| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
        let title = self.title.chars().count();
        must(
            "title",
            (1..=TITLE_MAX).contains(&title) && one_line(&self.title),
            "one line of 1 to 120 characters",
        )?;
        must("title", !self.title.trim().is_empty(), "not only spaces")?;
        let description = self.description.chars().count();
        must(
            "description",
            description <= DESCRIPTION_MAX && text(&self.description),
            "at most 4,000 characters",
        )?;
        self.terms.validate()
    }
}

impl Terms {
    /// Whether every rule is within its bounds.
    ///
    /// # Errors
    /// The first field that isn't.
    pub fn validate(&self) -> Result<(), Wrong> {
        let upper = self.currency.0.iter().all(u8::is_ascii_uppercase);
        must("currency", upper, "three capital letters (ISO 4217)")?;
        must("start_price", self.start_price <= MONEY_MAX, "at most 10^15")?;
        self.validate_increments()?;
        must(
            "reserve",
            self.reserve.is_none_or(|r| r.amount <= MONEY_MAX),
            "at most 10^15",
        )?;
        must(
            "duration_ms",
            DURATION_MS.contains(&self.duration_ms),
            "one second to thirty days",
        )?;
        if let Some(rush) = self.time.rush {
            must("rush.cut_ppm_max", rush.cut_ppm_max <= 900_000, "at most 900,000")?;
            must(
                "rush.cut_per_raise_ppm",
                rush.cut_per_raise_ppm <= 1_000_000_000,
                "at most 1,000,000,000",
            )?;
            must(
                "rush.floor_ms",
                (3_000..=86_400_000).contains(&rush.floor_ms),
                "three seconds to a day",
            )?;
        }
        if let Some(soft) = self.time.soft_close {
            must(
                "soft_close.window_ms",
                (1_000..=3_600_000).contains(&soft.window_ms),
                "one second to an hour",
            )?;
            let reset = soft.window_ms..=3_600_000;
            must(
                "soft_close.reset_to_ms",
                reset.contains(&soft.reset_to_ms),
                "from window_ms to an hour",
            )?;
            must(
                "soft_close.extensions_max",
                (1..=10_000).contains(&soft.extensions_max),
                "1 to 10,000",
            )?;
        }
        Ok(())
    }

    /// The ladder must start at 0, rise, and never let `p + increment(p)` fall: else a higher bid could ask for less.
    fn validate_increments(&self) -> Result<(), Wrong> {
        let rows = &self.increments;
        must("increments", (1..=INCREMENTS_MAX).contains(&rows.len()), "1 to 32 rows")?;
        must(
            "increments",
            rows.first().is_some_and(|row| row.0 == 0),
            "a first row from 0",
        )?;
        must(
            "increments",
            rows.iter().all(|row| row.0 <= MONEY_MAX),
            "rows at most from 10^15",
        )?;
        must(
            "increments",
            rows.iter().all(|row| (1..=MONEY_MAX).contains(&row.1)),
            "increments of 1 to 10^15",
        )?;
        for pair in rows.windows(2) {
            let ((_, before), (from, after)) = (pair[0], pair[1]);
            must("increments", pair[0].0 < from, "rows in rising order")?;
            // The last price under the row asks for `from - 1 + before`.
            must(
                "increments",
                from - 1 + before <= from + after,
                "p + increment(p) that never falls",
            )?;
        }
        Ok(())
    }

    /// The increment at a price.
    #[must_use]
    pub fn increment(&self, price: Money) -> Money {
        let row = self.increments.partition_point(|row| row.0 <= price);
        row.checked_sub(1)
            .and_then(|i| self.increments.get(i))
            .map_or(1, |row| row.1)
    }

    /// The least bid above a price (which may lie above `MONEY_MAX`: then nobody can bid any more).
    #[must_use]
    pub fn above(&self, price: Money) -> Money {
        price.saturating_add(self.increment(price))
    }

    /// The least next bid: the start price, but never 0, before anyone leads.
    #[must_use]
    pub fn least(&self, price: Money, led: bool) -> Money {
        if led {
            self.above(price)
        } else {
            self.start_price.max(1)
        }
    }
}

/// Whether a cancel's reason is one that can be shown.
#[must_use]
pub fn reason_fits(reason: &str) -> bool {
    reason.chars().count() <= REASON_MAX && !reason.chars().any(char::is_control)
}
