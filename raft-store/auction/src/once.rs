//! Once: which command ids an auction has judged, and how.
//!
//! The key is (auction, actor, id), bound to a hash of the body. An accepted id is remembered as long as the auction's
//! log; a refusal for `refusals_ms` of the shard's clock, judged at the asking command's `arrived`, so that a busy shard
//! and a quiet one forget alike. None is evicted before: a forgotten refusal could be judged anew and accepted, and its
//! sender would hold two answers. What keeps the table small is the door: with `refusals_max` alive for one actor, more
//! are refused there, unlogged (`Shard::early`). Those already in flight are still remembered, so the table may pass the
//! bound by a window's worth.
//!
//! What was forgotten must not come back as new: a command says when its id was first sent (`Command::first_sent`), and
//! one that was sent so long ago that its refusal may be forgotten is refused again (`expired`), without a record. So an id
//! that was refused once is never accepted, however late a copy of it arrives, for whoever says honestly when.
//!
//! A verdict isn't stored whole: leader, hash and deadline of its version are in the auction's log.

use crate::{
    Id, Money, Phase, Reason, Stamp,
    fold::Fold,
    shard::BodyHash,
    table::{Table, hash_one, hash_two},
};
use alloc::{boxed::Box, collections::VecDeque, sync::Arc, vec::Vec};

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

/// One judged id.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) actor: Id,
    pub(crate) id: Id,
    pub(crate) record: Record,
}

/// An actor's command id, hashed once for looking and putting.
#[derive(Clone, Copy)]
pub(crate) struct Key<'a> {
    actor: &'a Id,
    id: &'a Id,
    hash: u64,
}

impl Key<'_> {
    pub(crate) fn new<'a>(actor: &'a Id, id: &'a Id) -> Key<'a> {
        Key {
            actor,
            id,
            hash: hash_two(actor.as_str(), id.as_str()),
        }
    }
}

/// The stamps of one actor's logged refusals, oldest first.
#[derive(Clone, Debug)]
struct Refused {
    actor: Id,
    stamps: VecDeque<Stamp>,
}

/// The table of one auction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Once {
    seen: Table<Arc<Seen>>,
    refused: Table<Box<Refused>>,
    /// Logged refusals, oldest first.
    refusals: VecDeque<Arc<Seen>>,
    /// The sum of all records' fingerprints: a digest that needs no walk.
    sum: u64,
}

impl Once {
    /// How an id was judged, if that isn't forgotten at `now`.
    pub(crate) fn look(&self, key: Key<'_>, now: Stamp, refusals_ms: u64) -> Option<&Record> {
        let seen = self
            .seen
            .get(key.hash, |seen| seen.id == *key.id && seen.actor == *key.actor)?;
        let record = &seen.record;
        (record.refused.is_none() || record.ct.plus(refusals_ms) > now).then_some(record)
    }

    /// Logged refusals of an actor that are alive at `now`.
    pub(crate) fn alive(&self, actor: &Id, now: Stamp, refusals_ms: u64) -> usize {
        self.refused
            .get(hash_one(actor.as_str()), |refused| refused.actor == *actor)
            .map_or(0, |refused| {
                let dead = refused.stamps.partition_point(|ct| ct.plus(refusals_ms) <= now);
                refused.stamps.len() - dead
            })
    }

    /// Remembers a judged id. The id must not be known.
    pub(crate) fn put(&mut self, key: Key<'_>, record: Record) {
        let Key { actor, id, hash } = key;
        let seen = Arc::new(Seen {
            actor: actor.clone(),
            id: id.clone(),
            record,
        });
        self.sum = self.sum.wrapping_add(fingerprint(hash, &record));
        if record.refused.is_some() {
            self.refusals.push_back(Arc::clone(&seen));
            let whose = hash_one(actor.as_str());
            match self.refused.get_mut(whose, |refused| refused.actor == *actor) {
                Some(refused) => refused.stamps.push_back(record.ct),
                None => {
                    let stamps = VecDeque::from([record.ct]);
                    self.refused.insert(
                        whose,
                        Box::new(Refused {
                            actor: actor.clone(),
                            stamps,
                        }),
                    );
                }
            }
        }
        self.seen.insert(hash, seen);
    }

    /// When the oldest logged refusal may be forgotten.
    pub(crate) fn next_expiry(&self, refusals_ms: u64) -> Option<Stamp> {
        self.refusals.front().map(|oldest| oldest.record.ct.plus(refusals_ms))
    }

    /// Forgets the refusals that are over at `now`.
    pub(crate) fn prune(&mut self, now: Stamp, refusals_ms: u64) {
        while self.next_expiry(refusals_ms).is_some_and(|over| over <= now) {
            self.forget_oldest();
        }
    }

    /// Forgets the oldest logged refusal.
    pub(crate) fn forget_oldest(&mut self) {
        let Some(oldest) = self.refusals.pop_front() else {
            return;
        };
        let hash = hash_two(oldest.actor.as_str(), oldest.id.as_str());
        if self.seen.remove(hash, |seen| Arc::ptr_eq(seen, &oldest)).is_some() {
            self.sum = self.sum.wrapping_sub(fingerprint(hash, &oldest.record));
        }
        let whose = hash_one(oldest.actor.as_str());
        if let Some(refused) = self.refused.get_mut(whose, |refused| refused.actor == oldest.actor) {
            refused.stamps.pop_front();
            if refused.stamps.is_empty() {
                self.refused.remove(whose, |refused| refused.actor == oldest.actor);
            }
        }
    }

    /// Whether any logged refusal is remembered.
    pub(crate) fn has_refusals(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// Every judged id, in order of (actor, id).
    pub(crate) fn sorted(&self) -> Vec<&Seen> {
        self.seen
            .sorted(|seen| (seen.actor.clone(), seen.id.clone()))
            .into_iter()
            .map(|seen| &**seen)
            .collect()
    }

    /// The table of these ids.
    pub(crate) fn of(mut all: Vec<Seen>) -> Once {
        // Within one stamp the order tells nothing: all of them are over at the same moment.
        all.sort_by_key(|seen| seen.record.ct);
        let mut once = Once::default();
        for seen in all {
            once.put(Key::new(&seen.actor, &seen.id), seen.record);
        }
        once
    }

    /// The sum of all records' fingerprints.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }
}

fn fingerprint(key: u64, record: &Record) -> u64 {
    Fold::new(key)
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
