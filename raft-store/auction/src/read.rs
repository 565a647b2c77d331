//! What others may ask of a shard's state: the leader's door, the proposer's clock, readers of auctions and events.
//!
//! Nothing here changes anything. All of it is what was *applied*; what waits in lanes or in flight is the asker's to
//! know. Cost: a look-up by hash, or an index's first entry; only `views` and `count` walk.

use crate::{
    AuctionId, AuctionView, BodyHash, Command, Event, Id, Known, Office, Phase, Reason, Shard, Stamp, Verdict,
    auction::Auction, cold, fold::body_hash, once::Key, shard::tell,
};
use alloc::{sync::Arc, vec::Vec};

impl Shard {
    /// The newest stamp judged or promised: the shard's now.
    #[must_use]
    pub fn top(&self) -> Stamp {
        self.top
    }

    /// The office whose entries are being applied.
    #[must_use]
    pub fn office(&self) -> Office {
        self.office
    }

    /// The number that the next entry of this office must have.
    #[must_use]
    pub fn next_n(&self) -> u64 {
        self.n.saturating_add(1)
    }

    /// How many stamps had to be clamped. Must stay 0.
    #[must_use]
    pub fn clamped(&self) -> u64 {
        self.clamped
    }

    /// The earliest due timer of all auctions.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Stamp> {
        self.timers.first().map(|timer| timer.0)
    }

    /// Whether a timer is due after `after` (`None`: at any time before, too) and by `upto`.
    #[must_use]
    pub fn due_within(&self, after: Option<Stamp>, upto: Stamp) -> bool {
        let from = after.map_or(Stamp(0), |after| after.plus(1));
        from <= upto && self.timers.range((from, 0)..=(upto, usize::MAX)).next().is_some()
    }

    /// Whether any timer is pending.
    #[must_use]
    pub fn has_timers(&self) -> bool {
        !self.timers.is_empty()
    }

    /// An auction's next timer.
    #[must_use]
    pub fn due(&self, auction: &AuctionId) -> Option<Stamp> {
        self.get(auction)?.due()
    }

    /// An auction's watermark; of an unknown auction the shard's `top`.
    #[must_use]
    pub fn watermark(&self, auction: &AuctionId) -> Stamp {
        self.slot(auction).map_or(self.top, |slot| self.watermark_of(slot))
    }

    /// The auctions whose watermark is below `base` (at most `top`): a new office lists them in `behind`.
    pub fn below(&self, base: Stamp) -> impl Iterator<Item = (AuctionId, Stamp)> + '_ {
        let lagging = self.lagging.iter().map(|&slot| &self.auctions[slot]);
        lagging
            .filter(move |a| a.watermark < base)
            .map(|a| (a.id.clone(), a.watermark))
    }

    /// What is remembered of a command id.
    #[must_use]
    pub fn known(&self, auction: &AuctionId, actor: &Id, id: &Id, body: BodyHash) -> Option<Known> {
        let auction = self.get(auction)?;
        let record = auction.once.look(Key::new(actor, id), self.top, self.memory_ms())?;
        Some(tell(auction, record, body, self.top))
    }

    /// A refusal that needs no log: `expired`, `low` and `closed`, which stay true whatever comes, and `rate` where the
    /// actor's bound on logged refusals is used up. Ask `known` first.
    #[must_use]
    pub fn early(&self, command: &Command) -> Option<Verdict> {
        let auction = self.get(&command.auction)?;
        let alive = || auction.once.alive(&command.actor.id, self.top, self.memory_ms());
        let full = || (command.id.is_some() && alive() >= self.limits.refusals_max).then_some(Reason::Rate);
        let reason = self.for_good(auction, command).or_else(full)?;
        Some(auction.verdict(Err(reason), self.watermark(&command.auction)))
    }

    /// Why a command whose id isn't known is refused whenever it is judged from here on.
    fn for_good(&self, auction: &Auction, command: &Command) -> Option<Reason> {
        // By its auction's watermark, not by `top`: below it nothing about that auction is stamped any more.
        let too_old = || self.too_old(command, self.watermark(&command.auction));
        let over = (self.rules() >= cold::SINCE).then(|| auction.over(&command.action));
        let absorbing = || auction.absorbing(&command.actor, &command.action);
        over.flatten()
            .or_else(absorbing)
            .or_else(|| too_old().then_some(Reason::Expired))
    }

    /// A command's verdict, as far as it can't become another one whatever the log holds beyond what is applied here. So any
    /// replica may tell it, also one that is behind:
    /// - its id was judged: that is its verdict;
    /// - it wasn't, up to here, and the bid is too low, or too old, or the auction is closed, here already: wherever in the
    ///   log it lies, or will lie, it is refused there (perhaps for another reason).
    ///
    /// (`rate` is none of these: the id may be on its way to be accepted.)
    #[must_use]
    pub fn settled(&self, command: &Command) -> Option<Verdict> {
        let auction = self.get(&command.auction)?;
        let known = command.id.as_ref().and_then(|id| {
            let body = body_hash(&command.action);
            self.known(&command.auction, &command.actor.id, id, body)
        });
        if let Some(known) = known {
            return Some(known.verdict());
        }
        let reason = self.for_good(auction, command)?;
        Some(auction.verdict(Err(reason), self.watermark(&command.auction)))
    }

    /// One auction as shown; `None` also for a cold one.
    #[must_use]
    pub fn view(&self, auction: &AuctionId) -> Option<AuctionView> {
        self.get(auction).map(Auction::view)
    }

    /// All auctions in memory as shown, in order of id (cold ones that are guests are left out).
    pub fn views(&self) -> impl Iterator<Item = AuctionView> + '_ {
        let warm = self.shelf.warm().map(|settled| &settled.auction);
        let mut all: Vec<&Auction> = self.auctions.iter().chain(warm).collect();
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all.into_iter().map(Auction::view)
    }

    /// The auctions that aren't over, as shown, in order of id.
    pub fn going_on(&self) -> impl Iterator<Item = AuctionView> + '_ {
        let going = self.auctions.iter().filter(|a| !matches!(a.phase, Phase::Closed(_)));
        let mut all: Vec<&Auction> = going.collect();
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all.into_iter().map(Auction::view)
    }

    /// The ids of the auctions in memory that are over, after `after`, in order, at most so many.
    #[must_use]
    pub fn over(&self, after: Option<&AuctionId>, many: usize) -> Vec<AuctionId> {
        let warm = self.shelf.warm().map(|settled| &settled.auction);
        let closed = self.auctions.iter().filter(|a| matches!(a.phase, Phase::Closed(_)));
        let ids = closed.chain(warm).map(|a| &a.id);
        let mut ids: Vec<&AuctionId> = ids.filter(|id| after.is_none_or(|after| *id > after)).collect();
        ids.sort_unstable();
        ids.into_iter().take(many).cloned().collect()
    }

    /// How many auctions there are, and how many of them are live or paused.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (
            self.auctions.len() + usize::try_from(self.shelf.len()).unwrap_or(usize::MAX),
            self.auctions.iter().filter(|a| a.is_open()).count(),
        )
    }

    /// An auction's events after version `after`, at most `limit`. `None`: no such auction in memory.
    #[must_use]
    pub fn events(&self, auction: &AuctionId, after: u64, limit: usize) -> Option<&[Arc<Event>]> {
        let events = &self.get(auction)?.events;
        let from = usize::try_from(after).map_or(events.len(), |after| after.min(events.len()));
        Some(&events[from..from + limit.min(events.len() - from)])
    }

    /// Scheduled auctions as (auction, wall time of the start, schedule version), earliest first.
    pub fn scheduled(&self) -> impl Iterator<Item = (AuctionId, u64, u32)> + '_ {
        self.starts
            .iter()
            .map(|&(wall, slot)| (self.auctions[slot].id.clone(), wall, self.auctions[slot].version))
    }
}
