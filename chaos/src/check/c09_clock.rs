//! C9, the clock: a shard's clock is never ahead of where it was against the harness's, and falls back only where time
//! was declared lost.
//!
//! Source: G5; `rushroom-history/1`. theta = reading - harness clock. Each acknowledged bid bounds it: the clock was read
//! between the call and the answer, so theta lies in [reading - ret, reading - inv]; the reading is the bid's stamp, but
//! for those of a lane that was behind (`stamps`). Two disjoint intervals are a *certain* step.
//! - Rise: never more than 20 ms (that would be bidding time taken away).
//! - Fall: at most eps outside faults and holds; over a fault or a hold at most its length plus eps.
//!
//! One sweep: with A(t) = length of faults and holds up to t plus eps for each that began by then, a fall between i and
//! j is too large iff (lo_i + A(inv_i)) - (hi_j + A(ret_j)) > eps: a running maximum does for all pairs.

use super::{
    Outcome,
    stamps::{self, Reading, Stamps},
};
use crate::{book::Book, history::Nanos};
use std::collections::HashSet;

/// A certain gain up to this is no jump.
pub(super) const RISE_MAX_MS: f64 = 20.0;

impl Reading {
    /// Bounds of theta, ms.
    fn theta(&self) -> (f64, f64) {
        let read = self.read as f64;
        (read - super::ms(self.ret), read - super::ms(self.inv))
    }
}

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C9", "the clock neither jumps nor slips");
    let eps = book.meta().eps_ms as f64;
    let mut worst = (0.0_f64, 0.0_f64);
    for (shard, readings) in Stamps::of(book).readings(book) {
        let allowance = Allowance::of(book, shard, eps);
        out.judged += readings.len() as u64;
        let (rise, fall) = sweep(shard, &readings, &allowance, eps, &mut out);
        worst = (worst.0.max(rise), worst.1.max(fall));
    }
    out.figure("certain_rise_ms_max", worst.0);
    out.figure("certain_fall_ms_max", worst.1);
    stamps::judge(book, &mut out);
    held_share(book, &mut out);
    out
}

fn sweep(shard: u32, readings: &[Reading], allowance: &Allowance, eps: f64, out: &mut Outcome) -> (f64, f64) {
    let (mut least_hi, mut most_lo): (Option<(f64, &Reading)>, Option<(f64, &Reading)>) = (None, None);
    let (mut rise_max, mut fall_max) = (0.0_f64, 0.0_f64);
    for reading in readings {
        let (lo, hi) = reading.theta();
        let pair = |other: &Reading| other.lines.iter().chain(&reading.lines).copied().collect::<Vec<_>>();
        if let Some((least, other)) = least_hi {
            rise_max = rise_max.max(lo - least);
            if lo - least > RISE_MAX_MS {
                out.fail(
                    format!("shard {shard}: the clock gained {:.1} ms for certain", lo - least),
                    pair(other),
                );
                // Go on from here: one jump, one finding.
                least_hi = None;
            }
        }
        let back = hi + allowance.at(reading.ret);
        if let Some((most, other)) = most_lo {
            fall_max = fall_max.max(most - back);
            if most - back > eps {
                let lost = most - back;
                out.fail(
                    format!("shard {shard}: the clock lost {lost:.1} ms beyond what was declared"),
                    pair(other),
                );
                most_lo = None;
            }
        }
        if least_hi.is_none_or(|(least, _)| hi < least) {
            least_hi = Some((hi, reading));
        }
        let forth = lo + allowance.at(reading.inv);
        if most_lo.is_none_or(|(most, _)| forth > most) {
            most_lo = Some((forth, reading));
        }
    }
    (rise_max, fall_max)
}

/// What the clock may have lost by a moment: faults and holds up to then, and eps for each.
struct Allowance {
    eps: f64,
    /// Disjoint intervals, and how many faults and holds had begun by the start of each: (from, to, lost before, begun).
    spans: Vec<(Nanos, Nanos, f64)>,
    begun: Vec<Nanos>,
}

impl Allowance {
    fn of(book: &Book<'_>, shard: u32, eps: f64) -> Allowance {
        let mut spans: Vec<(Nanos, Nanos)> = book.faults.iter().map(|fault| (fault.from, fault.to)).collect();
        spans.extend(holds(book, shard).map(|(t, dms)| (t - dms * 1_000_000, t)));
        let mut begun: Vec<Nanos> = spans.iter().map(|(from, _)| *from).collect();
        begun.sort_unstable();
        spans.sort_unstable();
        let mut merged: Vec<(Nanos, Nanos, f64)> = Vec::new();
        for (from, to) in spans {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => {
                    let before = merged
                        .last()
                        .map_or(0.0, |(from, to, lost)| lost + super::ms(to - from));
                    merged.push((from, to, before));
                }
            }
        }
        Allowance {
            eps,
            spans: merged,
            begun,
        }
    }

    fn at(&self, t: Nanos) -> f64 {
        let n = self.spans.partition_point(|(from, ..)| *from <= t);
        let lost = n.checked_sub(1).map_or(0.0, |i| {
            let (from, to, before) = self.spans[i];
            before + super::ms(to.min(t) - from)
        });
        lost + self.eps * self.begun.partition_point(|from| *from <= t) as f64
    }
}

/// Declared holds of a shard as they were seen: (moment, ms).
fn holds<'b>(book: &'b Book<'_>, shard: u32) -> impl Iterator<Item = (Nanos, i64)> + 'b {
    book.helds
        .iter()
        .filter(move |(held, _)| held.shard == shard)
        .map(|(held, _)| (held.t, held.dms as i64))
}

/// Holds over 1 % of fault-free time: the machine was too slow for the run to say anything about clocks.
fn held_share(book: &Book<'_>, out: &mut Outcome) {
    let mut faulty = 0;
    let mut until = Nanos::MIN;
    for fault in &book.faults {
        faulty += (fault.to - fault.from.max(until)).max(0);
        until = until.max(fault.to);
    }
    let free = super::ms((book.last - book.first).max(0) - faulty);
    let shards: HashSet<u32> = book.auctions.values().map(|auction| auction.shard).collect();
    let outside = |t: Nanos| {
        !book
            .faults
            .iter()
            .any(|fault| fault.from <= t && t <= fault.to + 1_000_000_000)
    };
    let held: u64 = book
        .helds
        .iter()
        .filter(|(held, _)| outside(held.t))
        .map(|(held, _)| held.dms)
        .sum();
    let share = held as f64 / (free * shards.len().max(1) as f64).max(1.0);
    out.figure("held_percent", share * 100.0);
    if free > 0.0 && share > 0.01 {
        out.unknown(format!(
            "the clocks were held for {:.1} % of the time without a fault",
            share * 100.0
        ));
    }
}
