//! Settled auctions: what nothing can change any more, and what of it need not lie in memory.
//!
//! ```text
//!   closed, its watermark at the shard's, no refusal remembered, no stream up --settled--> number 0, 1, 2 … of its shard
//!     in memory:  Arc<Settled>  --page_out, lowest number first-->  Cold {count, sum}: somebody else keeps 0..count
//!                               <--page_in, for a while (a guest)--
//! ```
//!
//! *That* an auction is settled, and its number, follow from the log: every replica says the same. *Where* it lies is each
//! replica's own affair, and never shows: neither in a verdict nor in the digest, which is a sum over all auctions. What is paged out is
//! always the lowest numbers, so one number tells which they are.
//!
//! A settled auction answers by itself: an accepted id gets its first verdict, all else is refused without leaving a record,
//! as it would be refused again. So it never changes, and may be shared and written down once.
//!
//! Whoever pages out must page in what an entry names before it is applied: an auction that is neither here nor brought is
//! unknown to `apply`, and would be created again.
//!
//! Deliberately absent: disks, and the choice of when to page out.

use crate::{
    Action, AuctionId, AuctionView, BadParts, Command, Event, Phase, Reason, Shard, Stamp, Verdict,
    auction::Auction,
    fold::body_hash,
    once::Key,
    parts::{AuctionParts, auction_of, auction_parts},
    shard::tell,
    table::{Table, hash_one},
};
use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

/// The first rules by which auctions settle.
pub(crate) const SINCE: u32 = 2;

/// A sum of digests, modulo 2^256, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(pub [u8; 32]);

impl Sum {
    /// One more in it.
    #[must_use]
    pub fn plus(self, digest: &[u8; 32]) -> Sum {
        let mut sum = self.0;
        let mut carry = 0;
        for (byte, more) in sum.iter_mut().zip(digest) {
            let total = u16::from(*byte) + u16::from(*more) + carry;
            // The low byte stays, the rest is carried.
            *byte = (total & 0xff) as u8;
            carry = total >> 8;
        }
        Sum(sum)
    }
}

/// The settled auctions that aren't in memory: the numbers below `count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cold {
    /// How many.
    pub count: u64,
    /// The sum of their digests.
    pub sum: Sum,
}

impl Cold {
    /// With the next number, too.
    #[must_use]
    pub fn plus(self, digest: &[u8; 32]) -> Cold {
        Cold {
            count: self.count + 1,
            sum: self.sum.plus(digest),
        }
    }
}

/// One settled auction, whole.
#[derive(Debug)]
pub struct Settled {
    number: u64,
    digest: [u8; 32],
    pub(crate) auction: Auction,
}

impl Settled {
    fn new(number: u64, mut auction: Auction) -> Settled {
        // What only matters while it can still change.
        (auction.watermark, auction.hold_next) = (Stamp(0), 0);
        Settled {
            number,
            digest: auction.digest(None),
            auction,
        }
    }

    /// Its number in its shard.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it adds to the shard's digest.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Which auction it is.
    #[must_use]
    pub fn id(&self) -> &AuctionId {
        &self.auction.id
    }

    /// As shown.
    #[must_use]
    pub fn view(&self) -> AuctionView {
        self.auction.view()
    }

    /// Its whole log.
    #[must_use]
    pub fn events(&self) -> &[Arc<Event>] {
        &self.auction.events
    }

    /// What a command about it is told, if it comes at `at`: for ever the same, but for `at`.
    #[must_use]
    pub fn answer(&self, command: &Command, at: Stamp) -> Verdict {
        let auction = &self.auction;
        let known = command.id.as_ref().and_then(|id| {
            let key = Key::new(&command.actor.id, id);
            auction.once.look(key, at, 0)
        });
        if let Some(record) = known {
            return tell(auction, record, body_hash(&command.action), at).verdict();
        }
        auction.verdict(Err(auction.over(&command.action).unwrap_or(Reason::Closed)), at)
    }

    /// As plain values.
    #[must_use]
    pub fn parts(&self) -> AuctionParts {
        AuctionParts {
            settled: Some(self.number),
            ..auction_parts(&self.auction)
        }
    }

    /// The settled auction that `parts` describe.
    ///
    /// # Errors
    /// When parts contradict each other, or something could still change it.
    pub fn from_parts(parts: AuctionParts) -> Result<Settled, BadParts> {
        let number = parts.settled.ok_or(BadParts("it isn't settled"))?;
        let auction = auction_of(parts)?;
        if !auction.is_settled() {
            return Err(BadParts("settled, and not over"));
        }
        Ok(Settled::new(number, auction))
    }
}

impl Auction {
    /// Nothing can change it any more.
    fn is_settled(&self) -> bool {
        let over = matches!(self.phase, Phase::Closed(_)) && !self.lagging;
        over && self.stream.is_none() && !self.once.has_refusals()
    }

    /// What a closed auction answers to all that can't be accepted any more, whoever asks and whatever comes: by rules that
    /// let auctions settle, it leaves no record. Only the goodbye of a stream that is up is still taken.
    pub(crate) fn over(&self, action: &Action) -> Option<Reason> {
        if !matches!(self.phase, Phase::Closed(_)) {
            return None;
        }
        match action {
            Action::Create(_) => Some(Reason::Taken),
            Action::StreamDown { stream } if self.stream.as_ref().is_some_and(|up| up.1 == *stream) => None,
            _ => Some(Reason::Closed),
        }
    }
}

/// The settled auctions of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    /// The number of the next one.
    next: u64,
    pub(crate) cold: Cold,
    /// The sum of all digests, cold ones and those in memory.
    sum: Sum,
    /// In memory: all from `cold.count` on, and guests below it.
    here: BTreeMap<u64, Arc<Settled>>,
    index: Table<u64>,
}

impl Shelf {
    /// How many have settled.
    pub(crate) fn len(&self) -> u64 {
        self.next
    }

    pub(crate) fn sum(&self) -> Sum {
        self.sum
    }

    pub(crate) fn get(&self, id: &AuctionId) -> Option<&Arc<Settled>> {
        if self.here.is_empty() {
            return None;
        }
        let is = |number: &u64| self.here.get(number).is_some_and(|settled| settled.id() == id);
        self.here.get(self.index.get(hash_one(id.as_str()), is)?)
    }

    /// Those that must be in memory: all that aren't cold, by number.
    pub(crate) fn warm(&self) -> impl Iterator<Item = &Arc<Settled>> {
        self.here.range(self.cold.count..).map(|(_, settled)| settled)
    }

    fn put(&mut self, settled: Arc<Settled>) {
        self.index.insert(hash_one(settled.id().as_str()), settled.number);
        self.here.insert(settled.number, settled);
    }

    fn take(&mut self, number: u64) -> Option<Arc<Settled>> {
        let settled = self.here.remove(&number)?;
        self.index
            .remove(hash_one(settled.id().as_str()), |known| *known == number);
        Some(settled)
    }

    fn settle(&mut self, auction: Auction) {
        let settled = Settled::new(self.next, auction);
        self.next += 1;
        self.sum = self.sum.plus(&settled.digest);
        self.put(Arc::new(settled));
    }

    /// A shelf of which only the cold ones are known so far.
    pub(crate) fn of(cold: Cold) -> Shelf {
        Shelf {
            next: cold.count,
            cold,
            sum: cold.sum,
            ..Shelf::default()
        }
    }

    /// Takes the next one in, as it was.
    pub(crate) fn restore(&mut self, settled: Settled) -> Result<(), BadParts> {
        if settled.number != self.next {
            return Err(BadParts("settled auctions with a gap"));
        }
        self.next += 1;
        self.sum = self.sum.plus(&settled.digest);
        self.put(Arc::new(settled));
        Ok(())
    }
}

impl Shard {
    /// Settles what nothing can change any more, of the slots that an entry touched, in order of id.
    pub(crate) fn settle(&mut self) {
        if self.ripe.is_empty() {
            return;
        }
        let ripe = core::mem::take(&mut self.ripe).into_iter();
        let mut ripe: Vec<AuctionId> = ripe
            .filter_map(|slot| self.auctions.get(slot))
            .filter(|auction| auction.is_settled())
            .map(|auction| auction.id.clone())
            .collect();
        ripe.sort_unstable();
        ripe.dedup();
        for id in ripe {
            if let Some(slot) = self.slot(&id) {
                let auction = self.take_out(slot);
                self.shelf.settle(auction);
            }
        }
    }

    /// Which settled auctions aren't in memory.
    #[must_use]
    pub fn cold(&self) -> Cold {
        self.shelf.cold
    }

    /// How many auctions have settled, wherever they lie.
    #[must_use]
    pub fn settled_count(&self) -> u64 {
        self.shelf.len()
    }

    /// The settled auctions that aren't cold, by number.
    pub fn warm(&self) -> impl Iterator<Item = &Arc<Settled>> {
        self.shelf.warm()
    }

    /// Whether `auction` is known here without paging in.
    #[must_use]
    pub fn is_here(&self, auction: &AuctionId) -> bool {
        self.slot(auction).is_some() || self.shelf.get(auction).is_some()
    }

    /// Drops a settled auction from memory: somebody keeps it. Only the lowest number that isn't cold goes: any other call has no
    /// effect, and gives `None`. What it gives back is better dropped where nobody waits.
    pub fn page_out(&mut self, number: u64) -> Option<Arc<Settled>> {
        if number != self.shelf.cold.count {
            return None;
        }
        let settled = self.shelf.take(number)?;
        self.shelf.cold = self.shelf.cold.plus(&settled.digest);
        Some(settled)
    }

    /// Brings a cold auction back as a guest, until `send_away`. One that isn't cold has no effect: it is here.
    pub fn page_in(&mut self, settled: Arc<Settled>) {
        if settled.number < self.shelf.cold.count && !self.is_here(settled.id()) {
            self.shelf.put(settled);
        }
    }

    /// The guest of this number goes again.
    pub fn send_away(&mut self, number: u64) -> Option<Arc<Settled>> {
        let guest = number < self.shelf.cold.count;
        guest.then(|| self.shelf.take(number)).flatten()
    }
}
