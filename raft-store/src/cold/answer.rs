//! What a replica says of auctions that aren't in its memory.
//!
//! Nobody holds the state's lock while the disk is read. What was found cold under the lock stays so: a record below a state's count is
//! never changed nor dropped while the replica lives, and what it says of a settled auction is true for ever.
//!
//! Deliberately absent: what is in memory (`auction::Shard`).

use crate::{
    metrics,
    state_machine::{Replica, blocking},
};
use auction::{AuctionId, AuctionView, Command, Entry, Event, Settled, Shard, Verdict};
use std::{io, sync::Arc};

impl Replica {
    /// An auction's number in the cold store, if it isn't in memory.
    pub(crate) fn cold_number(&self, auction: &AuctionId) -> Option<u64> {
        let state = self.state.read();
        let count = state.shard.cold().count;
        // First by a hash: each bid asks.
        if count == 0 || state.shard.is_here(auction) {
            return None;
        }
        self.cold.find(auction, count)
    }

    /// An auction that isn't in memory, whole.
    pub(crate) async fn settled(&self, auction: &AuctionId) -> io::Result<Option<Arc<Settled>>> {
        let Some(number) = self.cold_number(auction) else {
            return Ok(None);
        };
        let store = self.cold.clone();
        metrics::cold_read();
        blocking(move || store.load(number)).await.map(Some)
    }

    /// What a command about an auction that isn't in memory is told, whoever asks whichever replica: it is settled.
    pub(crate) async fn cold_verdict(&self, command: &Command) -> io::Result<Option<Verdict>> {
        let settled = self.settled(&command.auction).await?;
        Ok(settled.map(|settled| settled.answer(command, self.state.read().shard.top())))
    }

    /// An auction as shown, wherever it lies.
    pub(crate) async fn view(&self, auction: &AuctionId) -> io::Result<Option<AuctionView>> {
        let cuts = {
            let state = self.state.read();
            let cuts: Vec<_> = state.cuts_of(auction).collect();
            if let Some(view) = state.shard.view(auction) {
                return Ok(Some(AuctionView { cuts, ..view }));
            }
            cuts
        };
        let Some(number) = self.cold_number(auction) else {
            // Unknown, or another state came between the two looks.
            return Ok(self
                .state
                .read()
                .shard
                .view(auction)
                .map(|view| AuctionView { cuts, ..view }));
        };
        let store = self.cold.clone();
        metrics::cold_read();
        let view = blocking(move || store.view(number)).await?;
        Ok(Some(AuctionView { cuts, ..view }))
    }

    /// An auction's events after version `after`, wherever they lie.
    pub(crate) async fn events(
        &self,
        auction: &AuctionId,
        after: u64,
        limit: usize,
    ) -> io::Result<Option<Vec<Arc<Event>>>> {
        let here = |replica: &Replica| {
            let state = replica.state.read();
            state.shard.events(auction, after, limit).map(<[_]>::to_vec)
        };
        if let Some(events) = here(self) {
            return Ok(Some(events));
        }
        let Some(number) = self.cold_number(auction) else {
            return Ok(here(self));
        };
        let store = self.cold.clone();
        metrics::cold_read();
        blocking(move || store.events(number, after, limit)).await.map(Some)
    }

    /// The ids of auctions that are over, after one, in order, at most so many, wherever they lie. No disk is asked.
    pub(crate) fn over(&self, after: Option<&AuctionId>, many: usize) -> Vec<AuctionId> {
        let (mut ids, count) = {
            let state = self.state.read();
            (state.shard.over(after, many), state.shard.cold().count)
        };
        let cold = self.cold.ids(after, many, count);
        ids.extend(cold.into_iter().map(|(id, _)| id));
        ids.sort_unstable();
        ids.truncate(many);
        ids
    }

    /// The cold auctions that an entry names and that aren't in memory: to be paged in before it is applied.
    pub(crate) fn named(&self, shard: &Shard, entry: &Entry) -> Vec<u64> {
        let count = shard.cold().count;
        if count == 0 {
            return Vec::new();
        }
        let wanted = entry.commands.iter().map(|stamped| &stamped.command.auction);
        let away = wanted.filter(|auction| !shard.is_here(auction));
        let mut numbers: Vec<u64> = away.filter_map(|auction| self.cold.find(auction, count)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}
