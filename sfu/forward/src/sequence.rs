//! Sequence numbers that wrap at 2^16 on the wire and never wrap here.

/// Extends 16-bit sequence numbers to 64 bits, by the nearest to the newest seen.
#[derive(Clone, Debug, Default)]
pub struct Unwrap {
    newest: Option<u64>,
}

impl Unwrap {
    /// The extended number. The first starts in the second cycle, so that a packet before it still has a number.
    pub fn extend(&mut self, sequence: u16) -> u64 {
        let extended = match self.newest {
            None => (1 << 16) + u64::from(sequence),
            Some(newest) => nearest(newest, sequence),
        };
        self.newest = Some(self.newest.map_or(extended, |n| n.max(extended)));
        extended
    }
}

/// The number nearest to `newest` whose low 16 bits are `sequence`.
pub fn nearest(newest: u64, sequence: u16) -> u64 {
    let ahead = sequence.wrapping_sub(newest as u16) as i16;
    newest.saturating_add_signed(i64::from(ahead))
}

/// The number nearest to `newest` whose low 32 bits are `sequence`.
pub fn nearest32(newest: u64, sequence: u32) -> u64 {
    let ahead = sequence.wrapping_sub(newest as u32) as i32;
    newest.saturating_add_signed(i64::from(ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_and_reorders() {
        let mut unwrap = Unwrap::default();
        let got = [65_534u16, 65_535, 0, 65_533, 2, 1].map(|s| unwrap.extend(s) - (1 << 16));
        assert_eq!(got, [65_534, 65_535, 65_536, 65_533, 65_538, 65_537]);
    }

    #[test]
    fn nearest_is_within_half_a_cycle() {
        for (newest, sequence, expect) in [
            (100_000u64, 100_000u64 as u16, 100_000),
            (65_536, 65_535, 65_535),
            (3, 2, 2),
        ] {
            assert_eq!(nearest(newest, sequence), expect);
        }
        assert_eq!(nearest32((7 << 32) + 1, u32::MAX), (7 << 32) - 1);
    }
}
