//! Once: which command ids an auction has judged, and how.
//!
//! The key is (auction, actor, id), bound to a hash of the body. An accepted id is remembered as long as the auction's
//! log; a refusal for `refusals_ms` of the shard's clock, judged at the asking command's `arrived`, so that a busy shard
//! and a quiet one forget alike. None is evicted before: a forgotten refusal could be judged anew and accepted, and its
//! sender would hold two answers. What keeps the table small is the door: with `refusals_max` alive for one actor, more
//! are refused there, unlogged (`Shard::early`). Those already in flight are still remembered, so the table may pass the
//! bound by a window's worth.
//!
//! A verdict isn't stored whole: leader, hash and deadline of its version are in the auction's log.

use crate::{Id, Money, Phase, Reason, Stamp, fold::Fold, shard::BodyHash};
use alloc::collections::{BTreeMap, VecDeque};

/// How one id was judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) body: BodyHash,
    /// `None`: accepted.
    pub(crate) refused: Option<Reason>,
    pub(crate) seq: u64,
    pub(crate) ct: Stamp,
    pub(crate) price: Money,
    pub(crate) least: Money,
    pub(crate) phase: Phase,
}

/// One actor's ids, and the stamps of the logged refusals among them, oldest first.
#[derive(Clone, Debug, Default)]
struct Seen {
    ids: BTreeMap<Id, Record>,
    refused: VecDeque<Stamp>,
}

/// The table of one auction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Once {
    actors: BTreeMap<Id, Seen>,
    /// Logged refusals, oldest first: (judged at, actor, id).
    refusals: VecDeque<(Stamp, Id, Id)>,
    /// The sum of all records' fingerprints: a digest that needs no walk.
    sum: u64,
}

impl Once {
    /// How an id was judged, if that isn't forgotten at `now`.
    pub(crate) fn look(&self, actor: &Id, id: &Id, now: Stamp, refusals_ms: u64) -> Option<&Record> {
        let record = self.actors.get(actor)?.ids.get(id)?;
        (record.refused.is_none() || record.ct.plus(refusals_ms) > now).then_some(record)
    }

    /// Logged refusals of an actor that are alive at `now`.
    pub(crate) fn alive(&self, actor: &Id, now: Stamp, refusals_ms: u64) -> usize {
        self.actors.get(actor).map_or(0, |seen| {
            let dead = seen.refused.partition_point(|ct| ct.plus(refusals_ms) <= now);
            seen.refused.len() - dead
        })
    }

    /// Remembers a judged id. The id must not be known.
    pub(crate) fn put(&mut self, actor: &Id, id: &Id, record: Record) {
        self.sum = self.sum.wrapping_add(fingerprint(actor, id, &record));
        if !self.actors.contains_key(actor) {
            self.actors.insert(actor.clone(), Seen::default());
        }
        if let Some(seen) = self.actors.get_mut(actor) {
            seen.ids.insert(id.clone(), record);
            if record.refused.is_some() {
                seen.refused.push_back(record.ct);
                self.refusals.push_back((record.ct, actor.clone(), id.clone()));
            }
        }
    }

    /// When the oldest logged refusal may be forgotten.
    pub(crate) fn next_expiry(&self, refusals_ms: u64) -> Option<Stamp> {
        self.refusals.front().map(|oldest| oldest.0.plus(refusals_ms))
    }

    /// Forgets the refusals that are over at `now`.
    pub(crate) fn prune(&mut self, now: Stamp, refusals_ms: u64) {
        while self.next_expiry(refusals_ms).is_some_and(|over| over <= now) {
            self.forget_oldest();
        }
    }

    /// Forgets the oldest logged refusal.
    pub(crate) fn forget_oldest(&mut self) {
        let Some((_, actor, id)) = self.refusals.pop_front() else {
            return;
        };
        let Some(seen) = self.actors.get_mut(&actor) else {
            return;
        };
        seen.refused.pop_front();
        if let Some(record) = seen.ids.remove(&id) {
            self.sum = self.sum.wrapping_sub(fingerprint(&actor, &id, &record));
        }
        if seen.ids.is_empty() {
            self.actors.remove(&actor);
        }
    }

    /// Every record, in order of (actor, id).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Id, &Id, &Record)> {
        self.actors
            .iter()
            .flat_map(|(actor, seen)| seen.ids.iter().map(move |(id, record)| (actor, id, record)))
    }

    /// The table of these records.
    pub(crate) fn from_records(records: impl Iterator<Item = (Id, Id, Record)>) -> Once {
        let mut once = Once::default();
        for (actor, id, record) in records {
            once.put(&actor, &id, record);
        }
        // Within one stamp the order tells nothing: all of them are over at the same moment.
        once.refusals.make_contiguous().sort();
        for seen in once.actors.values_mut() {
            seen.refused.make_contiguous().sort();
        }
        once
    }

    /// The sum of all records' fingerprints.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }
}

fn fingerprint(actor: &Id, id: &Id, record: &Record) -> u64 {
    Fold::new(0x0ce)
        .bytes(actor.as_str().as_bytes())
        .bytes(id.as_str().as_bytes())
        .word(record.body)
        .word(record.refused.map_or(0, |reason| u64::from(reason.number())))
        .word(record.seq)
        .word(record.ct.0)
        .word(record.price)
        .word(record.least)
        .word(phase_number(record.phase))
        .done()
}

/// A phase as a number, for digests.
pub(crate) fn phase_number(phase: Phase) -> u64 {
    match phase {
        Phase::Draft => 0,
        Phase::Scheduled => 1,
        Phase::Live => 2,
        Phase::Paused => 3,
        Phase::Closed(outcome) => 4 + outcome as u64,
    }
}
