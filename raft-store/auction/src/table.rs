//! An index by hash whose order never shows.
//!
//! Trees of ids cost a third of `apply`: every step compares texts that lie elsewhere in memory. Here a look-up is one
//! hash (`Fold`: fixed, so that replicas and builds behave alike) and one or two reads. Order of buckets is arbitrary, so
//! there is no way to walk one but `sorted`. Hashes are kept beside the values: growing never reads what they point to.

use crate::fold::Fold;
use alloc::vec::Vec;
use hashbrown::HashTable;

/// Values under 64-bit hashes; equality is the caller's.
#[derive(Clone, Debug)]
pub(crate) struct Table<T>(HashTable<(u64, T)>);

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table(HashTable::new())
    }
}

impl<T> Table<T> {
    pub(crate) fn get(&self, hash: u64, is: impl Fn(&T) -> bool) -> Option<&T> {
        self.0.find(hash, |(_, value)| is(value)).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, hash: u64, is: impl Fn(&T) -> bool) -> Option<&mut T> {
        self.0.find_mut(hash, |(_, value)| is(value)).map(|(_, value)| value)
    }

    /// Puts a value in that isn't there yet.
    pub(crate) fn insert(&mut self, hash: u64, value: T) {
        self.0.insert_unique(hash, (hash, value), |(hash, _)| *hash);
    }

    pub(crate) fn remove(&mut self, hash: u64, is: impl Fn(&T) -> bool) -> Option<T> {
        self.0
            .find_entry(hash, |(_, value)| is(value))
            .ok()
            .map(|entry| entry.remove().0.1)
    }

    /// All values, in an order of the caller's.
    pub(crate) fn sorted<K: Ord>(&self, key: impl Fn(&T) -> K) -> Vec<&T> {
        let mut all: Vec<&T> = self.0.iter().map(|(_, value)| value).collect();
        all.sort_by_key(|value| key(value));
        all
    }
}

/// The hash of one text.
pub(crate) fn hash_one(text: &str) -> u64 {
    Fold::new(1).bytes(text.as_bytes()).done()
}

/// The hash of two texts.
pub(crate) fn hash_two(a: &str, b: &str) -> u64 {
    Fold::new(2).bytes(a.as_bytes()).bytes(b.as_bytes()).done()
}
