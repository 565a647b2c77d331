//! A shard: many auctions, one order of events.
//!
//! `apply` is pure, total, and the same on every replica. It never asks the time: it is told *when* (`at`, `arrived`) and
//! *what*, and answers with what became so. In order:
//!
//! ```text
//!   1. void an entry of another office, or out of number      one rejected proposal voids what was pipelined behind it
//!   2. for each command: its own auction's timers up to `arrived`, then judge it at `arrived`
//!   3. raise the watermarks: min(at, behind[auction]); every auction's timers up to its own watermark
//! ```
//!
//! Why the close is safe under load: a command is judged after its auction's timers up to its own `arrived` have run, so a
//! late beat can delay the news of a close but never the close itself. Why one hot auction holds back nobody else: its
//! backlog lowers its own watermark (`behind`), not the shard's `top`.
//!
//! Cost: an auction that isn't behind has no watermark of its own (it is `top`), and due timers come from an index, so an
//! entry costs what its commands cost, however many auctions lie in the shard. Only a hold walks them all.
//!
//! A stamp outside its bounds is clamped and counted; the count must stay 0 (it means a leader's bug, not a reason to
//! stop). Deliberately absent: clocks, queues, retries, I/O, errors.

use crate::{
    Action, Actor, AuctionId, Command, Entry, Event, Id, Office, Reason, Rights, Stamp, Stamped, Verdict,
    auction::{Auction, Out},
    cold::{self, Shelf},
    fold::body_hash,
    hold::Holds,
    once::{Key, Record},
    plant::{Plant, Plants},
    table::{Table, hash_one},
    view::Phase,
};
use alloc::{collections::BTreeSet, sync::Arc, vec::Vec};

/// The newest rules that this code knows; an entry or snapshot of newer ones stops the replica.
///
/// A shard judges by the rules that its log names, not by the newest ones of whoever applies it: replicas of two builds
/// judge alike. With the feature `next` there is one more version, to try a change of rules with before there is one:
/// a bid of more than a thousand times the least next one is refused.
pub const RULES_VERSION: u32 = if cfg!(feature = "next") { 3 } else { 2 };

/// What a shard remembers at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Logged refusals alive per (auction, actor); with so many alive more are refused at the door.
    pub refusals_max: usize,
    /// How long a logged refusal is remembered, ms of the shard's clock.
    pub refusals_ms: u64,
}

impl Limits {
    /// What may have been refused, and forgotten since: an id that was first sent `first_sent` or before, for who judges it
    /// at `now`. A second early (a quarter, of short times): the clock by which somebody said when isn't the shard's own.
    pub(crate) fn too_old(&self, first_sent: Stamp, now: Stamp) -> bool {
        let doubt_ms = (self.refusals_ms / 4).min(1_000);
        first_sent.plus(self.refusals_ms - doubt_ms) <= now
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            refusals_max: 256,
            refusals_ms: 600_000,
        }
    }
}

/// What became of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// Of another office, or out of number: without effect; its commands are *not judged*.
    Void,
    /// Applied.
    Done(Done),
}

/// What an applied entry made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Done {
    /// One for each command of the entry, in its order.
    pub verdicts: Vec<Verdict>,
    /// Within an auction in order of `seq`.
    pub events: Vec<Arc<Event>>,
    /// Auctions whose view changed without an event (definition, schedule, a stream outside the live time).
    pub changed: Vec<AuctionId>,
}

/// What is remembered of a command id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known {
    /// The same body: its first verdict (`dup` is set).
    Verdict(Verdict),
    /// The id belongs to another body: `dup_body`, judged at the present version.
    OtherBody(Verdict),
}

/// A stable hash of a command's action: what an id is bound to.
pub type BodyHash = u64;

/// What a Raft group replicates: auctions, their clocks, their logs.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    pub(crate) limits: Limits,
    pub(crate) office: Office,
    pub(crate) n: u64,
    pub(crate) top: Stamp,
    pub(crate) clamped: u64,
    pub(crate) holds: Holds,
    /// What may still change, in no order that matters (by the first rules: all, in order of creation).
    pub(crate) auctions: Vec<Auction>,
    pub(crate) index: Table<usize>,
    /// Every pending timer: (due, slot).
    pub(crate) timers: BTreeSet<(Stamp, usize)>,
    /// Every auction with logged refusals: (when the oldest is over, slot).
    expiries: BTreeSet<(Stamp, usize)>,
    /// Scheduled starts: (wall time, slot).
    pub(crate) starts: BTreeSet<(u64, usize)>,
    /// The slots whose watermark lies below `top`.
    pub(crate) lagging: Vec<usize>,
    pub(crate) plants: Plants,
    /// The rules that auctions go live with; 0 stands for 1.
    pub(crate) rules: u32,
    /// What nothing can change any more.
    pub(crate) shelf: Shelf,
    /// Slots of closed auctions that were touched since the last look at what may settle.
    pub(crate) ripe: Vec<usize>,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub fn new(limits: Limits) -> Shard {
        Shard {
            limits,
            ..Shard::default()
        }
    }

    /// Applies one log entry: pure, total, the same on every replica.
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        if entry.n == 0 {
            return self.take_office(entry.office);
        }
        let follows = entry.office == self.office && Some(entry.n) == self.n.checked_add(1);
        if !follows && !self.plants.has(Plant::NoVoid) {
            return Applied::Void;
        }
        self.n = entry.n;
        let at = entry.at.max(self.top);
        self.clamped += u64::from(entry.at < self.top);
        // A hold at the very top is passed by the next entry, by everyone at once.
        let walk_all = self.take_holds(entry, at) || self.holds.list.back().is_some_and(|last| last.stamp >= self.top);
        let mut out = Out::default();
        let mut verdicts = Vec::with_capacity(entry.commands.len());
        out.events.reserve(entry.commands.len());
        for stamped in &entry.commands {
            verdicts.push(self.command(stamped, at, &mut out));
        }
        let was_behind = self.raise(entry, at);
        self.ripen(&was_behind);
        self.run_due(at, &mut out);
        self.run_holds(at, walk_all, was_behind, entry, &mut out);
        self.forget(at);
        self.settle();
        Applied::Done(Done {
            verdicts,
            events: out.events,
            changed: out.changed,
        })
    }

    /// The rules by which auctions that go live now are judged.
    #[must_use]
    pub fn rules(&self) -> u32 {
        self.rules.max(1)
    }

    /// From here on auctions go live with these rules. Never back, and never to rules that this code doesn't know: who
    /// reads the log stops before that. What is over already settles then and there, by rules that know of it.
    pub fn raise_rules(&mut self, version: u32) {
        self.rules = version.min(RULES_VERSION).max(self.rules());
        let all: Vec<usize> = (0..self.auctions.len()).collect();
        self.ripen(&all);
        self.settle();
    }

    /// A marker opens an office; one of an office that isn't newer has no effect.
    fn take_office(&mut self, office: Office) -> Applied {
        if office <= self.office {
            return Applied::Void;
        }
        (self.office, self.n) = (office, 0);
        Applied::Done(Done::default())
    }

    // ---- commands

    fn command(&mut self, stamped: &Stamped, at: Stamp, out: &mut Out) -> Verdict {
        let command = &stamped.command;
        let Some(slot) = self.slot(&command.auction) else {
            let arrived = stamped.arrived.min(at);
            self.clamped += u64::from(arrived != stamped.arrived);
            if let Some(settled) = self.shelf.get(&command.auction) {
                return settled.answer(command, arrived);
            }
            return self.create(command, arrived, out);
        };
        let watermark = self.watermark_of(slot);
        let arrived = stamped.arrived.min(at).max(watermark);
        self.clamped += u64::from(arrived != stamped.arrived);
        let auction = &mut self.auctions[slot];
        auction.watermark = arrived;
        if self.plants.has(Plant::CommandFirst) {
            let verdict = self.judge(slot, command, arrived, out);
            self.auctions[slot].run(arrived, &self.holds, self.plants, at, out);
            self.reindex(slot);
            return verdict;
        }
        auction.run(arrived, &self.holds, self.plants, at, out);
        let verdict = self.judge(slot, command, arrived, out);
        self.reindex(slot);
        verdict
    }

    /// A command about an auction that doesn't exist (yet).
    fn create(&mut self, command: &Command, arrived: Stamp, out: &mut Out) -> Verdict {
        let nothing = |reason| Verdict {
            outcome: Err(reason),
            seq: 0,
            price: 0,
            least: 0,
            leader: None,
            phase: Phase::Draft,
            ct: arrived,
            ends_at: None,
            hash: crate::chain::genesis(),
            dup: false,
        };
        let Action::Create(definition) = &command.action else {
            return nothing(Reason::NotFound);
        };
        if self.too_old(command, arrived) {
            return nothing(Reason::Expired);
        }
        if !may_create(&command.actor, &definition.seller) {
            return nothing(Reason::Auth);
        }
        if definition.validate().is_err() {
            return nothing(Reason::Invalid);
        }
        let mut auction = Auction::new(command.auction.clone(), (**definition).clone());
        // Nothing was promised about it before: its own watermark starts here, even below `top`.
        (auction.watermark, auction.lagging) = (arrived, true);
        auction.hold_next = self.holds.first;
        let record = auction.record(body_hash(&command.action), Ok(()), arrived);
        if let Some(id) = &command.id {
            auction.once.put(Key::new(&command.actor.id, id), record);
        }
        let verdict = auction.verdict(Ok(()), arrived);
        out.changed.push(auction.id.clone());
        let slot = self.insert(auction);
        self.reindex(slot);
        verdict
    }

    /// Judges a command once: the same id gets its first verdict again.
    fn judge(&mut self, slot: usize, command: &Command, arrived: Stamp, out: &mut Out) -> Verdict {
        let ms = self.memory_ms();
        let rules = self.rules();
        let auction = &mut self.auctions[slot];
        if matches!(auction.phase, Phase::Draft | Phase::Scheduled) {
            // What it goes live with it keeps.
            auction.rules = rules;
        }
        let (actor, action) = (&command.actor, &command.action);
        let over = (rules >= cold::SINCE).then(|| auction.over(action)).flatten();
        let Some(id) = &command.id else {
            if let Some(reason) = over {
                return auction.verdict(Err(reason), arrived);
            }
            let outcome = auction.judge(arrived, actor, None, action, out);
            return auction.verdict(outcome, arrived);
        };
        let body = body_hash(action);
        let key = Key::new(&actor.id, id);
        auction.once.prune(arrived, ms);
        if let Some(record) = auction.once.look(key, arrived, ms)
            && !self.plants.has(Plant::Twice)
        {
            return tell(auction, record, body, arrived).verdict();
        }
        if let Some(reason) = over {
            // It stays true whatever comes: the id needs no record to be refused again.
            return auction.verdict(Err(reason), arrived);
        }
        if self.too_old(command, arrived) {
            // No record: it is refused again whenever it comes again.
            return self.auctions[slot].verdict(Err(Reason::Expired), arrived);
        }
        let auction = &mut self.auctions[slot];
        let outcome = auction.judge(arrived, actor, Some(id), action, out);
        let record = auction.record(body, outcome, arrived);
        auction.once.put(key, record);
        let evict = self.plants.has(Plant::RefusalsEvict);
        if evict && outcome.is_err() && auction.once.alive(&actor.id, arrived, ms) > self.limits.refusals_max {
            auction.once.forget_oldest();
        }
        if self.plants.has(Plant::RefusalsPerBidder) && outcome.is_err() {
            let alive = |auction: &Auction| auction.once.alive(&actor.id, arrived, ms);
            if self.auctions.iter().map(alive).sum::<usize>() > self.limits.refusals_max {
                let any = self.auctions.iter_mut().find(|auction| alive(auction) > 0);
                any.into_iter().for_each(|auction| auction.once.forget_oldest());
            }
        }
        self.auctions[slot].verdict(outcome, arrived)
    }

    /// How long a logged refusal is remembered.
    pub(crate) fn memory_ms(&self) -> u64 {
        if self.plants.has(Plant::ForgetsEarly) {
            return self.limits.refusals_ms / 2;
        }
        self.limits.refusals_ms
    }

    /// Whether a command whose id nobody remembers may have been refused, and forgotten since. Whoever was told of that
    /// refusal must not see it accepted.
    pub(crate) fn too_old(&self, command: &Command, now: Stamp) -> bool {
        let first_sent = command.first_sent.filter(|_| command.id.is_some() && self.rules() >= 2);
        first_sent.is_some_and(|sent| self.limits.too_old(sent, now)) && !self.plants.has(Plant::NeverTooOld)
    }

    // ---- watermarks and timers

    /// Raises `top` and every watermark. Gives back the slots that were behind.
    fn raise(&mut self, entry: &Entry, at: Stamp) -> Vec<usize> {
        let was_behind = core::mem::take(&mut self.lagging);
        let mut behind: Vec<(usize, Stamp)> = Vec::with_capacity(entry.behind.len());
        if !self.plants.has(Plant::NowForAll) {
            for (id, stamp) in &entry.behind {
                if let Some(slot) = self.slot(id) {
                    behind.push((slot, self.watermark_of(slot).max(*stamp)));
                }
            }
        }
        for &slot in &was_behind {
            self.auctions[slot].lagging = false;
        }
        for (slot, watermark) in behind {
            let auction = &mut self.auctions[slot];
            // An auction named twice keeps the lower of both.
            let watermark = if auction.lagging {
                watermark.min(auction.watermark)
            } else {
                watermark
            };
            if watermark < at {
                if !auction.lagging {
                    self.lagging.push(slot);
                }
                (auction.watermark, auction.lagging) = (watermark, true);
            }
        }
        self.lagging.sort_unstable();
        self.top = at;
        was_behind
    }

    /// Runs every auction that has a due timer up to its own watermark.
    fn run_due(&mut self, at: Stamp, out: &mut Out) {
        if self.timers.first().is_none_or(|timer| timer.0 > at) {
            return;
        }
        let due: Vec<usize> = self
            .timers
            .iter()
            .take_while(|timer| timer.0 <= at)
            .map(|timer| timer.1)
            .collect();
        for slot in due {
            self.run(slot, at, out);
        }
    }

    pub(crate) fn run(&mut self, slot: usize, at: Stamp, out: &mut Out) {
        let watermark = self.watermark_of(slot);
        self.auctions[slot].run(watermark, &self.holds, self.plants, at, out);
        self.reindex(slot);
    }

    /// Forgets refusals that are over, in auctions that no command visits.
    fn forget(&mut self, at: Stamp) {
        if self.expiries.first().is_none_or(|expiry| expiry.0 > at) {
            return;
        }
        let over: Vec<usize> = self
            .expiries
            .iter()
            .take_while(|expiry| expiry.0 <= at)
            .map(|expiry| expiry.1)
            .collect();
        for slot in over {
            let watermark = self.watermark_of(slot);
            let ms = self.memory_ms();
            self.auctions[slot].once.prune(watermark, ms);
            self.reindex(slot);
        }
    }

    pub(crate) fn watermark_of(&self, slot: usize) -> Stamp {
        let auction = &self.auctions[slot];
        if auction.lagging {
            auction.watermark
        } else {
            auction.watermark.max(self.top)
        }
    }

    // ---- indexes

    pub(crate) fn slot(&self, id: &AuctionId) -> Option<usize> {
        self.index
            .get(hash_one(id.as_str()), |&slot| self.auctions[slot].id == *id)
            .copied()
    }

    pub(crate) fn get(&self, id: &AuctionId) -> Option<&Auction> {
        match self.slot(id) {
            Some(slot) => self.auctions.get(slot),
            None => self.shelf.get(id).map(|settled| &settled.auction),
        }
    }

    /// Takes a new auction in. Its id must be new.
    pub(crate) fn insert(&mut self, auction: Auction) -> usize {
        let slot = self.auctions.len();
        self.index.insert(hash_one(auction.id.as_str()), slot);
        if auction.lagging {
            self.lagging.push(slot);
        }
        self.auctions.push(auction);
        slot
    }

    /// Notes which of these slots may have come to settle.
    fn ripen(&mut self, slots: &[usize]) {
        if self.rules() >= cold::SINCE {
            let Shard { auctions, ripe, .. } = self;
            let closed = |slot: &&usize| matches!(auctions[**slot].phase, Phase::Closed(_));
            ripe.extend(slots.iter().filter(closed));
        }
    }

    /// Takes an auction out. The last one takes its slot.
    pub(crate) fn take_out(&mut self, slot: usize) -> Auction {
        let old = self.auctions.len() - 1;
        for at in [slot, old] {
            self.unkey(at);
        }
        self.lagging.retain(|at| *at != slot);
        let gone = self.auctions.swap_remove(slot);
        self.index.remove(hash_one(gone.id.as_str()), |at| *at == slot);
        if slot != old {
            let moved = hash_one(self.auctions[slot].id.as_str());
            if let Some(at) = self.index.get_mut(moved, |at| *at == old) {
                *at = slot;
            }
            self.lagging
                .iter_mut()
                .filter(|at| **at == old)
                .for_each(|at| *at = slot);
            self.lagging.sort_unstable();
            self.reindex(slot);
        }
        gone
    }

    /// Takes a slot out of the indexes by time.
    fn unkey(&mut self, slot: usize) {
        let auction = &mut self.auctions[slot];
        move_key(&mut self.timers, &mut auction.timer, None, slot);
        move_key(&mut self.expiries, &mut auction.expiry, None, slot);
        move_key(&mut self.starts, &mut auction.start_key, None, slot);
    }

    /// Brings the indexes up to date with an auction. What they hold depends on the state alone, never on its history:
    /// a replica that comes from a snapshot forgets and fires at the same entries as all others.
    pub(crate) fn reindex(&mut self, slot: usize) {
        let ms = self.memory_ms();
        let auction = &mut self.auctions[slot];
        let due = auction.due();
        move_key(&mut self.timers, &mut auction.timer, due, slot);
        let expiry = auction.once.next_expiry(ms);
        move_key(&mut self.expiries, &mut auction.expiry, expiry, slot);
        move_key(&mut self.starts, &mut auction.start_key, auction.start_wall_ms, slot);
        self.ripen(&[slot]);
    }
}

/// Moves a slot of an index from its old key to its new one.
fn move_key<K: Ord + Copy>(index: &mut BTreeSet<(K, usize)>, old: &mut Option<K>, new: Option<K>, slot: usize) {
    if *old != new {
        if let Some(old) = *old {
            index.remove(&(old, slot));
        }
        if let Some(new) = new {
            index.insert((new, slot));
        }
        *old = new;
    }
}

/// Who may create an auction of this seller.
fn may_create(actor: &Actor, seller: &Id) -> bool {
    let over = actor.rights.has(Rights::OPERATOR) || actor.rights.has(Rights::SYSTEM);
    over || (actor.rights.has(Rights::SELLER) && actor.id == *seller)
}

/// What is told to someone who sends a known id.
pub(crate) fn tell(auction: &Auction, record: &Record, body: BodyHash, now: Stamp) -> Known {
    if record.body == body {
        Known::Verdict(auction.remembered(record))
    } else {
        Known::OtherBody(auction.verdict(Err(Reason::DupBody), now))
    }
}

impl Known {
    /// The verdict to answer with.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self {
            Known::Verdict(verdict) | Known::OtherBody(verdict) => verdict,
        }
    }
}
