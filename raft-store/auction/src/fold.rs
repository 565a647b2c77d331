//! A small stable hash for what needs no cryptography: bodies of commands, fingerprints of tables.
//!
//! Eight bytes a step, multiply and rotate, murmur's finish; little-endian; the length goes in, so that neighbours can't
//! trade bytes. It lies in logs (`BodyHash`), so it must never change: golden vectors are below. Whoever finds two
//! bodies of one hash can only confuse the own command ids with each other.

use crate::command::Action;
use crate::shard::BodyHash;
use crate::terms::Definition;

/// A hash being made.
#[derive(Clone, Copy)]
pub(crate) struct Fold(u64);

impl Fold {
    pub(crate) fn new(tag: u64) -> Fold {
        Fold(0x9e37_79b9_7f4a_7c15).word(tag)
    }

    pub(crate) fn word(self, word: u64) -> Fold {
        Fold((self.0.rotate_left(29) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    pub(crate) fn maybe(self, word: Option<u64>) -> Fold {
        match word {
            Some(word) => self.word(1).word(word),
            None => self.word(0),
        }
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Fold {
        let mut fold = self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            fold = fold.word(u64::from_le_bytes(word));
        }
        fold
    }

    pub(crate) fn done(self) -> u64 {
        let mut h = self.0;
        h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 33)
    }
}

/// The stable hash of an action: what a command's id is bound to.
#[must_use]
pub fn body_hash(action: &Action) -> BodyHash {
    let fold = Fold::new(action.verb() as u64);
    match action {
        Action::Create(definition) => fold.word(definition_hash(definition)),
        Action::Edit { version, definition } => fold.word(u64::from(*version)).word(definition_hash(definition)),
        Action::Schedule { start_wall_ms } => fold.word(*start_wall_ms),
        Action::Start { schedule_version } => fold.maybe(schedule_version.map(u64::from)),
        Action::Bid { amount } => fold.word(*amount),
        Action::MaxBid { maximum } => fold.word(*maximum),
        Action::Pause { for_ms } => fold.maybe(*for_ms),
        Action::Resume => fold,
        Action::Extend { ms } => fold.word(*ms),
        Action::Cancel { reason } => fold.bytes(reason.as_bytes()),
        Action::StreamUp { node, stream } => fold.word(*node).bytes(stream.as_str().as_bytes()),
        Action::StreamDown { stream } => fold.bytes(stream.as_str().as_bytes()),
    }
    .done()
}

/// The stable hash of a definition, reserve and all. The reserve's salt is left out: each sending of one request throws
/// it anew, and all of them are the same command. The state's digest takes it in by itself.
pub(crate) fn definition_hash(definition: &Definition) -> u64 {
    let terms = &definition.terms;
    let mut fold = Fold::new(0xde)
        .bytes(definition.seller.as_str().as_bytes())
        .bytes(definition.title.as_bytes())
        .bytes(definition.description.as_bytes())
        .bytes(&terms.currency.0)
        .word(terms.start_price)
        .word(terms.increments.len() as u64);
    for (from, increment) in &terms.increments {
        fold = fold.word(*from).word(*increment);
    }
    fold = fold
        .maybe(terms.reserve.map(|reserve| reserve.amount))
        .word(terms.duration_ms);
    fold = match terms.time.rush {
        Some(rush) => fold
            .word(1)
            .word(rush.cut_ppm_max)
            .word(rush.cut_per_raise_ppm)
            .word(rush.floor_ms),
        None => fold.word(0),
    };
    fold = match terms.time.soft_close {
        Some(soft) => fold
            .word(1)
            .word(soft.window_ms)
            .word(soft.reset_to_ms)
            .word(u64::from(soft.extensions_max)),
        None => fold.word(0),
    };
    fold.word(u64::from(terms.guests))
        .word(u64::from(terms.pause_without_stream))
        .done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let got = [
            body_hash(&Action::Bid { amount: 0 }),
            body_hash(&Action::Bid { amount: 1 }),
            body_hash(&Action::MaxBid { maximum: 1 }),
            body_hash(&Action::Resume),
            body_hash(&Action::Cancel {
                reason: "a reason of some length".into(),
            }),
        ];
        let want = [
            10_535_882_072_020_106_395,
            10_019_243_681_590_191_089,
            3_531_964_444_670_224_733,
            1_663_201_908_847_280_222,
            16_372_400_891_063_571_899,
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn neighbours_differ() {
        let a = Fold::new(0).bytes(b"ab").bytes(b"c").done();
        let b = Fold::new(0).bytes(b"a").bytes(b"bc").done();
        let c = Fold::new(0).bytes(b"ab\0").bytes(b"c").done();
        assert!(a != b && a != c && b != c);
    }
}
