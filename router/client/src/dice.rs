//! Seeded randomness for bots, jitter and plans: the same seed rolls the same, with any version of any library.
//!
//! SplitMix64: eight lines, no state but a counter, good enough for everything but secrets.

/// A seeded source of numbers. Not for secrets.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that roll what `seed` says.
    #[must_use]
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Other dice, decided by these and `salt`: one per bot, so that one bot's rolls don't shift another's.
    #[must_use]
    pub fn fork(&self, salt: u64) -> Dice {
        let mut forked = Dice(self.0 ^ salt.wrapping_mul(0xd6e8_feb8_6659_fd93));
        forked.roll();
        forked
    }

    /// 64 even bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // The bias of a 64-bit multiply is below 2^-32 for every n that we use.
        ((u128::from(self.roll()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from.saturating_add(self.below(to.saturating_sub(from).saturating_add(1)))
    }

    /// True in `percent` of 100 rolls.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`; `None` if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    /// An id of 16 letters and digits after `prefix`.
    pub fn id(&mut self, prefix: &str) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut bits = u128::from(self.roll()) << 64 | u128::from(self.roll());
        let mut text = String::with_capacity(prefix.len() + 17);
        text.push_str(prefix);
        for _ in 0..16 {
            text.push(char::from(LETTERS[(bits & 31) as usize]));
            bits >>= 5;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same_forever() {
        // Golden: a plan's seed must mean the same run in every release.
        let mut dice = Dice::new(1);
        assert_eq!(
            [dice.roll(), dice.roll()],
            [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]
        );
        assert_eq!(Dice::new(7).id("k-"), Dice::new(7).id("k-"));
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut dice = Dice::new(3);
        assert_eq!(dice.below(0), 0);
        for _ in 0..1000 {
            assert!(dice.below(7) < 7);
            assert!((5..=9).contains(&dice.between(5, 9)));
        }
        assert_eq!(dice.between(4, 4), 4);
        assert_eq!(dice.pick::<u8>(&[]), None);
    }

    #[test]
    fn forks_differ_and_leave_their_parent_alone() {
        let dice = Dice::new(11);
        assert_ne!(dice.fork(1).roll(), dice.fork(2).roll());
        let mut again = dice.clone();
        assert_eq!(dice.fork(9).roll(), again.fork(9).roll());
        assert_ne!(again.roll(), 0);
    }
}
