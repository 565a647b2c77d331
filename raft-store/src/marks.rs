//! Digests of the state, taken at the same places of the log on every replica, and compared.
//!
//! Replicas that applied the same log must have the same state. Were one of them wrong (a bug, a bit that flipped in
//! memory, another build), nobody would notice until it led. So every `EVERY` entries each replica notes its digest; the
//! leader tells its own to the others by the next pulse, and a replica that finds another digest at the same index stops,
//! loudly. A shard that goes to rest is compared too, at its last index.
//!
//! If it is the leader that is wrong, its followers stop, and with them its majority: better nothing than two truths.
//!
//! Deliberately absent: repair. A replica that diverged is replaced under a fresh id.

use std::collections::VecDeque;

/// A fingerprint of a state.
pub(crate) type Digest = [u8; 32];

/// Between two places of the log at which digests are taken.
pub(crate) const EVERY: u64 = 1_024;
/// Own marks, and a leader's that wait for us to come so far.
const KEPT: usize = 8;

/// Two replicas that applied the same log have another state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the state diverged: at index {index} another replica has another digest")]
pub(crate) struct Diverged {
    /// Where.
    pub(crate) index: u64,
}

/// A replica's newest marks, and the leader's that it hasn't reached.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    own: VecDeque<(u64, Digest)>,
    told: VecDeque<(u64, Digest)>,
}

impl Marks {
    /// This replica's state at an index.
    pub(crate) fn mark(&mut self, index: u64, digest: Digest) -> Result<(), Diverged> {
        push(&mut self.own, index, digest);
        self.compare(index)
    }

    /// The leader's state at an index.
    pub(crate) fn tell(&mut self, index: u64, digest: Digest) -> Result<(), Diverged> {
        push(&mut self.told, index, digest);
        self.compare(index)
    }

    /// The newest own mark.
    pub(crate) fn newest(&self) -> Option<(u64, Digest)> {
        self.own.back().copied()
    }

    fn compare(&self, index: u64) -> Result<(), Diverged> {
        let at = |marks: &VecDeque<(u64, Digest)>| marks.iter().find(|(i, _)| *i == index).map(|(_, digest)| *digest);
        match (at(&self.own), at(&self.told)) {
            (Some(own), Some(told)) if own != told => Err(Diverged { index }),
            _ => Ok(()),
        }
    }
}

fn push(marks: &mut VecDeque<(u64, Digest)>, index: u64, digest: Digest) {
    if marks.len() >= KEPT {
        marks.pop_front();
    }
    marks.push_back((index, digest));
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = [1; 32];
    const B: Digest = [2; 32];

    #[test]
    fn a_difference_at_the_same_index_is_found_whoever_comes_first() {
        for (name, own, told, found) in [
            ("the same", (1_024, A), (1_024, A), false),
            ("another", (1_024, A), (1_024, B), true),
            ("of another place", (1_024, A), (2_048, B), false),
        ] {
            let mut marks = Marks::default();
            assert_eq!(marks.mark(own.0, own.1), Ok(()), "{name}");
            assert_eq!(marks.tell(told.0, told.1).is_err(), found, "{name}, told later");
            let mut marks = Marks::default();
            assert_eq!(marks.tell(told.0, told.1), Ok(()), "{name}");
            assert_eq!(marks.mark(own.0, own.1).is_err(), found, "{name}, told before");
        }
    }

    #[test]
    fn what_the_node_says_of_it_is_what_others_look_for() {
        assert!(Diverged { index: 7 }.to_string().contains(crate::DIVERGED));
    }

    #[test]
    fn old_marks_go() {
        let mut marks = Marks::default();
        for index in 1..100 {
            marks
                .mark(index, A)
                .unwrap_or_else(|_| unreachable!("nothing was told"));
        }
        assert_eq!(marks.newest(), Some((99, A)));
        assert_eq!(marks.own.len(), KEPT);
        assert_eq!(marks.tell(1, B), Ok(()), "nobody knows any more");
    }
}
