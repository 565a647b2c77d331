//! Damage, pinned to the groups that it hurts; and the proof that the others lost nothing.
//!
//! Each record carries how many its group had with it (`nth`), and now and then a *tally* says the same of all groups.
//! So when bytes are lost:
//!
//! ```text
//!   [g1 7][g2 3][tally 7 3] ##lost## [g1 9][g2 4] … [tally 9 4 g3:1]
//!                                      |     |                 '--- g3 was born and lost here: hurt
//!                                      |     '--- 3, then 4: g2 lost nothing
//!                                      '--- 7, then 9: g1 lost a record: hurt
//! ```
//!
//! A group is *unhurt* if its numbers go on without a gap, up to a tally behind the loss. Where no tally follows, nobody
//! can say what a group lost that wrote nothing since: then the log doesn't open, and the message says where.
//! Independently of any loss, what lives must be there: a tally also names each group's living entries, and a group whose
//! entries aren't all found is hurt (a segment that was deleted leaves no unreadable bytes).
//!
//! A hurt group's replica must not go on: it could forget a vote or an entry that it answered for. Its other nodes have
//! everything; it comes back under a fresh replica id, and its birth under that ends the hurt.
//!
//! Deliberately absent: guesses from the unreadable bytes themselves.

use super::{
    WalError,
    ledger::{Ledger, Line},
    plant::{self, Plant},
    record::{Found, Kind, Record},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Indexes that were found, as runs `from -> end`.
#[derive(Clone, Default, Debug)]
struct Runs(BTreeMap<u64, u64>);

impl Runs {
    fn insert(&mut self, index: u64) {
        let (mut from, mut end) = (index, index + 1);
        if let Some((before, before_end)) = self.0.range(..=index).next_back().map(|(f, e)| (*f, *e)) {
            if before_end > index {
                return;
            }
            if before_end == index {
                from = before;
            }
        }
        if let Some(after_end) = self.0.remove(&end) {
            end = after_end;
        }
        self.0.insert(from, end);
    }

    /// Forgets indexes from `index` on.
    fn truncate(&mut self, index: u64) {
        self.0.split_off(&index);
        if let Some((_, end)) = self.0.iter_mut().next_back() {
            *end = index.min(*end);
        }
    }

    /// The first of `first..end` that isn't there.
    fn missing(&self, first: u64, end: u64) -> Option<u64> {
        if first >= end {
            return None;
        }
        match self.0.range(..=first).next_back() {
            Some((_, run_end)) if *run_end >= end => None,
            Some((_, run_end)) => Some(first.max(*run_end)),
            None => Some(first),
        }
    }
}

/// What is known of the groups' wholeness, record by record.
#[derive(Default)]
pub(super) struct Proof {
    /// A tally was read, so that every count has its beginning.
    based: bool,
    /// Something was lost since the last tally: where.
    open: Option<(PathBuf, usize)>,
    found: BTreeMap<u32, Runs>,
    hurt: BTreeMap<u32, String>,
}

impl Proof {
    /// Bytes were lost.
    pub(super) fn lost(&mut self, path: &Path, at: usize) {
        self.open.get_or_insert_with(|| (path.to_owned(), at));
    }

    /// Takes in a record of a group, before `ledger` does.
    pub(super) fn record(&mut self, ledger: &mut Ledger, found: Found, record: &Record) {
        let group = found.group;
        let runs = self.found.entry(group).or_default();
        match found.kind {
            Kind::Entry => runs.insert(record.index()),
            Kind::Truncate => runs.truncate(record.index()),
            Kind::Born => {
                let account = ledger.accounts.get(&group);
                let known = account.and_then(|account| account.small(Kind::Born));
                if known.is_some_and(|known| known.index() != record.index()) {
                    *runs = Runs::default();
                    self.hurt.remove(&group);
                }
            }
            _ => {}
        }
        // Format 1 doesn't count; a later tally gives the beginning.
        if found.mark.nth == 0 {
            return;
        }
        let expected = ledger.nth(group) + 1;
        if found.mark.nth != expected && self.based && !plant::is(Plant::GapsIgnored) {
            self.hurt(group, || {
                format!("of its records, {expected} to {} are lost", found.mark.nth)
            });
        }
        ledger.accounts.entry(group).or_default().nth = found.mark.nth;
    }

    /// Takes in a tally. An error: something was lost, and nobody can say whose it was.
    pub(super) fn tally(&mut self, ledger: &mut Ledger, lines: &[Line]) -> Result<(), WalError> {
        let based = std::mem::replace(&mut self.based, true);
        if let Some((path, at)) = self.open.take()
            && !based
        {
            let what = "can't be read, and no tally before it tells which shards it hurts".into();
            return Err(WalError::Damaged { path, at, what });
        }
        for line in lines {
            let account = ledger.accounts.entry(line.group).or_default();
            let same = (account.nth, account.first, account.end) == (line.nth, line.first, line.end);
            (account.nth, account.first, account.end) = (line.nth, line.first, line.end);
            if based && !same {
                self.hurt(line.group, || format!("records up to its {}th are lost", line.nth));
            }
        }
        Ok(())
    }

    fn hurt(&mut self, group: u32, why: impl FnOnce() -> String) {
        self.hurt.entry(group).or_insert_with(why);
    }

    /// The groups that are hurt and that the log doesn't call so yet, and why. An error: something was lost, and nobody can say whose it was.
    pub(super) fn end(mut self, ledger: &Ledger) -> Result<BTreeMap<u32, String>, WalError> {
        if let Some((path, at)) = self.open.filter(|_| !plant::is(Plant::LossUnproved)) {
            let what = "can't be read, and no tally behind it tells which shards it hurts".into();
            return Err(WalError::Damaged { path, at, what });
        }
        let none = Runs::default();
        for (group, account) in ledger.accounts.iter().filter(|_| self.based) {
            if account.is_hurt() {
                self.hurt.remove(group);
                continue;
            }
            let runs = self.found.get(group).unwrap_or(&none);
            if let Some(missing) = runs.missing(account.first, account.end) {
                let why = format!("entry {missing} is lost, of {}..{}", account.first, account.end);
                self.hurt.entry(*group).or_insert(why);
            }
        }
        Ok(self.hurt)
    }
}
