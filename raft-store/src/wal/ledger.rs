//! What the log knows of each group without understanding it: how many records it had, which entries live, what small
//! state is newest, and which segments still hold something of it.
//!
//! Recovery and writer keep the same book by the same rule (`take`), one from what it reads, the other from what it made
//! durable. So a *tally*, the book written into the log now and then, must agree with what a reader counted up to there:
//! that is how damage is pinned to the groups that it touched.
//!
//! ```text
//!   tally: groups u64, then for each  group u32 · nth u64 · first u64 · end u64
//!                                             |        '--------'--- living entries: first..end
//!                                             '--- how many records it had
//! ```
//!
//! A *checkpoint* is a tally and, for each group, copies of its newest birth, vote, purge, commit and hurt. Each segment
//! begins with one, so a segment is needed only for entries that are still alive in it.
//!
//! Deliberately absent: I/O.

use super::{
    plant::{self, Plant},
    record::{Form, Kind, Record},
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What of a group goes into a checkpoint, in this order: a birth must come before what was said after it.
const SMALL: [Kind; 5] = [Kind::Born, Kind::Vote, Kind::Purge, Kind::Commit, Kind::Hurt];

/// Bytes of a group in a tally.
const LINE: usize = 28;

/// One group.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Account {
    /// How many records it had.
    pub(super) nth: u64,
    /// Entries that live: `first..end`.
    pub(super) first: u64,
    pub(super) end: u64,
    small: BTreeMap<Kind, Record>,
}

impl Account {
    pub(super) fn small(&self, kind: Kind) -> Option<&Record> {
        self.small.get(&kind)
    }

    pub(super) fn is_hurt(&self) -> bool {
        self.small.contains_key(&Kind::Hurt)
    }
}

/// A group's line in a tally.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) group: u32,
    pub(super) nth: u64,
    pub(super) first: u64,
    pub(super) end: u64,
}

/// The book.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Ledger {
    pub(super) accounts: BTreeMap<u32, Account>,
    /// Oldest segment first: each segment's groups and the highest entry of each in it.
    pub(super) pins: BTreeMap<u64, BTreeMap<u32, u64>>,
}

impl Ledger {
    /// The number of the group's next record.
    pub(super) fn number(&mut self, group: u32) -> u64 {
        let account = self.accounts.entry(group).or_default();
        account.nth += 1;
        account.nth
    }

    pub(super) fn nth(&self, group: u32) -> u64 {
        self.accounts.get(&group).map_or(0, |account| account.nth)
    }

    /// Takes in a record of segment `seq`. Numbering is the caller's.
    pub(super) fn take(&mut self, seq: u64, record: &Record) {
        if !record.kind.is_of_group() {
            return;
        }
        let index = record.index();
        let account = self.accounts.entry(record.group).or_default();
        match record.kind {
            Kind::Entry => {
                if account.first == account.end && index >= account.end {
                    (account.first, account.end) = (index, index + 1);
                }
                account.end = account.end.max(index + 1);
                let pin = self.pins.entry(seq).or_default().entry(record.group).or_default();
                *pin = index.max(*pin);
            }
            Kind::Truncate if plant::is(Plant::TruncationUnbooked) => {}
            Kind::Truncate => account.end = account.end.min(index).max(account.first),
            Kind::Purge => {
                account.first = account.first.max(index + 1);
                account.end = account.end.max(account.first);
                self.release(record.group, index + u64::from(plant::is(Plant::PurgedTooFar)));
            }
            Kind::Born => {
                let known = account.small.get(&Kind::Born);
                if known.is_some_and(|known| payload(known) != payload(record)) {
                    *account = Account {
                        nth: account.nth,
                        ..Account::default()
                    };
                    self.forget_before(record.group, u64::MAX);
                }
            }
            // Nobody will read its entries any more.
            Kind::Hurt => self.forget_before(record.group, u64::MAX),
            Kind::Vote | Kind::Commit | Kind::Seal | Kind::Cut | Kind::Tally => {}
        }
        if SMALL.contains(&record.kind) {
            // Out of whatever it is a slice of.
            let copy = Record::new(record.group, record.kind, payload(record), Bytes::new());
            let account = self.accounts.entry(record.group).or_default();
            account.small.insert(record.kind, copy);
        }
    }

    /// Entries of `group` up to `index` need no segment any more.
    fn release(&mut self, group: u32, index: u64) {
        for groups in self.pins.values_mut() {
            if groups.get(&group).is_some_and(|highest| *highest <= index) {
                groups.remove(&group);
            }
        }
    }

    /// Nothing of `group` in segments before `seq` is needed any more.
    pub(super) fn forget_before(&mut self, group: u32, seq: u64) {
        for (_, groups) in self.pins.range_mut(..seq) {
            groups.remove(&group);
        }
    }

    /// Bytes of a tally on disk.
    pub(super) fn tally_size(&self, form: Form) -> usize {
        (form.head() + 8 + LINE * self.accounts.len()).next_multiple_of(8)
    }

    pub(super) fn tally(&self) -> Record {
        let mut payload = (self.accounts.len() as u64).to_le_bytes().to_vec();
        for (group, account) in &self.accounts {
            payload.extend_from_slice(&group.to_le_bytes());
            for word in [account.nth, account.first, account.end] {
                payload.extend_from_slice(&word.to_le_bytes());
            }
        }
        Record::new(0, Kind::Tally, payload, Bytes::new())
    }

    /// A tally and every group's small state.
    pub(super) fn checkpoint(&self) -> Vec<Record> {
        let small = self.accounts.values().flat_map(|account| {
            let kinds = SMALL.iter().filter_map(|kind| account.small.get(kind));
            let kinds = kinds.filter(|small| !(small.kind == Kind::Vote && plant::is(Plant::VotesForgotten)));
            kinds.cloned()
        });
        std::iter::once(self.tally()).chain(small).collect()
    }

    pub(super) fn size_of(records: &[Record], form: Form) -> usize {
        records.iter().map(|record| record.size(form)).sum()
    }
}

fn payload(record: &Record) -> Vec<u8> {
    [&record.prefix[..], &record.body[..]].concat()
}

/// The lines of a tally.
pub(super) fn read_tally(payload: &[u8]) -> Result<Vec<Line>, String> {
    let bad = || "a tally is malformed".to_owned();
    let (count, rest) = payload.split_first_chunk::<8>().ok_or_else(bad)?;
    if (rest.len() % LINE, (rest.len() / LINE) as u64) != (0, u64::from_le_bytes(*count)) {
        return Err(bad());
    }
    let lines = rest.chunks_exact(LINE).map(|line| {
        let word = |at: usize| {
            let bytes = line[at..].first_chunk::<8>();
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        Line {
            group: line.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes)),
            nth: word(4),
            first: word(12),
            end: word(20),
        }
    });
    Ok(lines.collect())
}
