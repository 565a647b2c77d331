//! How a bid moves the end: the rush cut, then the soft close on its result.
//!
//! ```text
//!   left  = ends_at - arrived
//!   cut   = min(cut_ppm_max, cut_per_raise_ppm * (price' - price) / max(price, 1))      parts per million of `left`
//!   left' = max(left - left * cut / 10^6, min(left, floor_ms))                          rush
//!   left' = reset_to_ms, if left' < window_ms and extensions are left                   soft close
//!   ends_at' = arrived + left'
//! ```
//!
//! `price` is the *visible* one before and after: raising one's own hidden maximum cuts nothing. Multiplied before
//! divided, in `u128`: 10^15 of money times 10^9 ppm needs 80 bits, so nothing here can wrap. A rule with neither part
//! (`fixed`, `sudden_death`) leaves the end where it is.

use crate::{Money, Stamp, TimeRule};

/// Where a bid moved the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// The new end.
    pub ends_at: Stamp,
    /// What the rush took, ms.
    pub cut_ms: u64,
    /// What the soft close gave, ms.
    pub extended_ms: u64,
    /// Whether an extension was used up.
    pub extended: bool,
}

/// The end after a bid at `arrived` that made `price` into `price_after`, with `extensions` of the soft close used.
#[must_use]
pub fn move_end(
    rule: &TimeRule,
    extensions: u32,
    ends_at: Stamp,
    arrived: Stamp,
    price: Money,
    price_after: Money,
) -> Moved {
    let whole = ends_at.since(arrived);
    let mut left = whole;
    if let Some(rush) = rule.rush {
        let raise = u128::from(price_after.saturating_sub(price));
        let per = u128::from(rush.cut_per_raise_ppm) * raise / u128::from(price.max(1));
        let cut_ppm = per.min(u128::from(rush.cut_ppm_max));
        // At most `whole`, so it fits again.
        let cut = (u128::from(whole) * cut_ppm / 1_000_000).min(u128::from(whole)) as u64;
        left = (whole - cut).max(whole.min(rush.floor_ms));
    }
    let cut_ms = whole - left;
    let mut extended_ms = 0;
    let mut extended = false;
    if let Some(soft) = rule.soft_close
        && left < soft.window_ms
        && left < soft.reset_to_ms
        && extensions < soft.extensions_max
    {
        extended_ms = soft.reset_to_ms - left;
        extended = true;
        left = soft.reset_to_ms;
    }
    Moved {
        ends_at: arrived.plus(left),
        cut_ms,
        extended_ms,
        extended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::MONEY_MAX;
    use crate::terms::{Rush, SoftClose};

    const RUSH: Rush = Rush {
        cut_ppm_max: 500_000,
        cut_per_raise_ppm: 2_000_000,
        floor_ms: 10_000,
    };
    const SOFT: SoftClose = SoftClose {
        window_ms: 15_000,
        reset_to_ms: 20_000,
        extensions_max: 2,
    };

    fn check(rule: TimeRule, used: u32, left: u64, price: Money, after: Money, want: (u64, u64, u64)) {
        let moved = move_end(&rule, used, Stamp(1_000 + left), Stamp(1_000), price, after);
        assert_eq!(
            (moved.ends_at.0 - 1_000, moved.cut_ms, moved.extended_ms),
            want,
            "{rule:?} left {left} {price} -> {after}"
        );
    }

    #[test]
    fn table() {
        let rush = TimeRule {
            rush: Some(RUSH),
            soft_close: None,
        };
        let soft = TimeRule {
            rush: None,
            soft_close: Some(SOFT),
        };
        let both = TimeRule {
            rush: Some(RUSH),
            soft_close: Some(SOFT),
        };
        let fixed = TimeRule::default();
        // rule, extensions used, left, price, price after -> (left after, cut, extended)
        check(fixed, 0, 60_000, 100, 200, (60_000, 0, 0));
        check(rush, 0, 60_000, 100, 100, (60_000, 0, 0)); // nothing visible changed
        check(rush, 0, 60_000, 100, 101, (58_800, 1_200, 0)); // 1 % cuts 2 %
        check(rush, 0, 60_000, 100, 125, (30_000, 30_000, 0)); // 25 % cuts the most, 50 %
        check(rush, 0, 60_000, 100, 100_000, (30_000, 30_000, 0));
        check(rush, 0, 12_000, 100, 200, (10_000, 2_000, 0)); // the floor
        check(rush, 0, 10_000, 100, 200, (10_000, 0, 0));
        check(rush, 0, 4_000, 100, 200, (4_000, 0, 0)); // below the floor nothing is cut
        check(rush, 0, 60_000, 0, 1, (30_000, 30_000, 0)); // a start price of 0 counts as 1
        check(rush, 0, 60_000, 3, 4, (30_000, 30_000, 0)); // 666,666 ppm, capped
        check(rush, 0, 60_000, 7_000_000, 7_000_001, (60_000, 0, 0)); // rounds down
        check(
            rush,
            0,
            100_000_000_000,
            MONEY_MAX - 1,
            MONEY_MAX,
            (100_000_000_000, 0, 0),
        );
        check(
            rush,
            0,
            u64::MAX - 1_000,
            1,
            MONEY_MAX,
            (9_223_372_036_854_775_308, 9_223_372_036_854_775_307, 0),
        );
        check(soft, 0, 15_000, 1, 2, (15_000, 0, 0)); // the window is open at its far end
        check(soft, 0, 14_999, 1, 2, (20_000, 0, 5_001));
        check(soft, 1, 1, 1, 2, (20_000, 0, 19_999));
        check(soft, 2, 1, 1, 2, (1, 0, 0)); // used up
        check(both, 0, 20_000, 100, 200, (20_000, 10_000, 10_000)); // cut into the window, then extended
        check(both, 2, 20_000, 100, 200, (10_000, 10_000, 0));
    }

    proptest::proptest! {
        /// What a rush may do at all, for any numbers: never past the end, never below the floor, never more than the most,
        /// and a higher raise never cuts less.
        #[test]
        fn a_rush_stays_within_its_bounds(
            (max, per, floor) in (0u64..=900_000, 0u64..=1_000_000_000, 3_000u64..=86_400_000),
            (left, arrived) in (0u64..=3_000_000_000, 0u64..=u64::MAX / 2),
            (price, raise, more) in (0u64..=MONEY_MAX, 0u64..=MONEY_MAX, 0u64..=1_000_000),
        ) {
            let rush = Rush { cut_ppm_max: max, cut_per_raise_ppm: per, floor_ms: floor };
            let rule = TimeRule { rush: Some(rush), soft_close: None };
            let end = Stamp(arrived + left);
            let moved = move_end(&rule, 0, end, Stamp(arrived), price, price + raise);
            let after = moved.ends_at.since(Stamp(arrived));
            proptest::prop_assert!(after <= left && after >= left.min(floor));
            proptest::prop_assert_eq!(left - after, moved.cut_ms);
            proptest::prop_assert!(u128::from(moved.cut_ms) * 1_000_000 <= u128::from(left) * u128::from(max));
            let higher = move_end(&rule, 0, end, Stamp(arrived), price, price + raise + more);
            proptest::prop_assert!(higher.ends_at <= moved.ends_at);
        }

        /// With a soft close no bid leaves less than it did before, unless the rush took it above the window.
        #[test]
        fn a_soft_close_only_gives(left in 1u64..100_000, used in 0u32..5, price in 1u64..10_000, raise in 0u64..10_000) {
            let rush = move_end(&TimeRule { rush: Some(RUSH), soft_close: None }, used, Stamp(left), Stamp(0), price, price + raise);
            let both = TimeRule { rush: Some(RUSH), soft_close: Some(SOFT) };
            let moved = move_end(&both, used, Stamp(left), Stamp(0), price, price + raise);
            let in_window = rush.ends_at.0 < SOFT.window_ms && used < SOFT.extensions_max;
            proptest::prop_assert_eq!(moved.ends_at.0, if in_window { SOFT.reset_to_ms } else { rush.ends_at.0 });
            proptest::prop_assert_eq!(moved.extended, in_window);
        }
    }
}
