//! The shared ring of one track: every packet once per node, whoever asks for it.
//!
//! One writer (the leg that takes the track in), many readers that follow a cursor: lanes, trunks, retransmissions.
//! `P` is the caller's cheap handle on a packet (`Bytes` in `sfu`); the ring never copies one.

use alloc::vec::Vec;

/// Packets by extended sequence number, the newest `capacity` of them.
#[derive(Debug)]
pub struct Ring<P> {
    slots: Vec<Option<(u64, P)>>,
    newest: Option<u64>,
    oldest: u64,
}

/// What became of an insert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// It is kept.
    Kept,
    /// It was there already (a retransmission that came twice).
    Twice,
    /// It is older than the ring reaches.
    TooOld,
}

impl<P: Clone> Ring<P> {
    /// A ring of at least `capacity` packets (rounded up to a power of two, at least 16).
    pub fn new(capacity: usize) -> Ring<P> {
        let mut slots = Vec::new();
        slots.resize_with(capacity.clamp(16, 1 << 20).next_power_of_two(), || None);
        Ring {
            slots,
            newest: None,
            oldest: 0,
        }
    }

    fn index(&self, sequence: u64) -> usize {
        (sequence & (self.slots.len() as u64 - 1)) as usize
    }

    /// Keeps a packet.
    pub fn insert(&mut self, sequence: u64, packet: P) -> Inserted {
        let reach = self.slots.len() as u64;
        match self.newest {
            None => self.oldest = sequence,
            Some(newest) if newest >= sequence + reach => return Inserted::TooOld,
            Some(_) => {}
        }
        let index = self.index(sequence);
        if self.slots[index].as_ref().is_some_and(|(held, _)| *held == sequence) {
            return Inserted::Twice;
        }
        self.slots[index] = Some((sequence, packet));
        let newest = self.newest.map_or(sequence, |n| n.max(sequence));
        self.newest = Some(newest);
        self.oldest = self.oldest.min(sequence).max((newest + 1).saturating_sub(reach));
        Inserted::Kept
    }

    /// The packet of that number, if it is still (or already) here.
    pub fn get(&self, sequence: u64) -> Option<&P> {
        match &self.slots[self.index(sequence)] {
            Some((held, packet)) if *held == sequence => Some(packet),
            _ => None,
        }
    }

    /// The newest number seen.
    pub fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// The oldest number that may still be here.
    pub fn oldest(&self) -> u64 {
        self.oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_tells_twice_from_too_old() {
        let mut ring = Ring::new(16);
        for n in 100..120u64 {
            assert_eq!(ring.insert(n, n), Inserted::Kept);
        }
        assert_eq!((ring.newest(), ring.oldest()), (Some(119), 104));
        assert_eq!(
            (ring.get(119), ring.get(104), ring.get(103)),
            (Some(&119), Some(&104), None)
        );
        assert_eq!(ring.insert(119, 0), Inserted::Twice);
        assert_eq!(ring.insert(103, 0), Inserted::TooOld);
    }

    #[test]
    fn a_gap_is_no_packet_until_it_is_filled() {
        let mut ring = Ring::new(16);
        ring.insert(10, 'a');
        ring.insert(12, 'c');
        assert_eq!(ring.get(11), None);
        assert_eq!(ring.insert(11, 'b'), Inserted::Kept);
        assert_eq!((ring.get(11), ring.newest()), (Some(&'b'), Some(12)));
    }

    #[test]
    fn a_packet_before_the_first_is_kept() {
        let mut ring = Ring::new(16);
        ring.insert(10, 'b');
        ring.insert(9, 'a');
        assert_eq!((ring.oldest(), ring.get(9)), (9, Some(&'a')));
    }
}
