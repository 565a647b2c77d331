//! What a replica says of auctions that aren't in its memory.
//!
//! Nobody holds the state's lock while the disk is read. What was found cold under the lock stays so: a record below a state's count is
//! never changed nor dropped while the replica lives, and what it says of a settled auction is true for ever.
//!
//! Deliberately absent: what is in memory (`auction::Shard`).

use crate::{
    host::ReadError,
    metrics,
    state::State,
    state_machine::{Replica, blocking},
};
use auction::{AuctionId, AuctionView, Command, Entry, Event, Phase, Reason, Settled, Shard, Stamp, Verdict};
use std::{io, sync::Arc};

/// Where an auction lies.
pub(crate) enum Lies<T> {
    /// In memory, and what was wanted of it.
    Here(T),
    /// On disk, under this number.
    Cold(u64),
    /// It lay on disk, and a founding went on without it.
    Lost,
    /// Nowhere.
    Nowhere,
}

/// What a command about a lost auction is told: it can't be created again, and what was accepted of it nobody knows.
fn lost(at: Stamp) -> Verdict {
    Verdict {
        outcome: Err(Reason::Lost),
        seq: 0,
        price: 0,
        least: 0,
        leader: None,
        phase: Phase::Draft,
        ct: at,
        ends_at: None,
        hash: [0; 32],
        dup: false,
    }
}

/// The disk is asked for an auction.
fn met(what: &'static str) {
    metrics::cold_read();
    #[cfg(feature = "sim")]
    crate::sim::met_cold(what);
    #[cfg(not(feature = "sim"))]
    let _ = what;
}

impl Replica {
    /// One look for an auction in memory and on disk, under one lock: between two looks it may go from one to the other.
    pub(crate) fn look<T>(&self, auction: &AuctionId, here: impl FnOnce(&State) -> Option<T>) -> Lies<T> {
        let state = self.state.read();
        if let Some(here) = here(&state) {
            return Lies::Here(here);
        }
        #[cfg(feature = "sim")]
        if crate::sim::planted(crate::sim::Plant::ColdNotFound) {
            return Lies::Nowhere;
        }
        match self.cold.find(auction, state.shard.cold().count) {
            Some(number) => Lies::Cold(number),
            None if state.lost.auctions.contains_key(auction) => Lies::Lost,
            None => Lies::Nowhere,
        }
    }

    /// Reads a record where that may block. What can't be read is no answer: another replica may have it.
    async fn record<T: Send + 'static>(
        &self,
        what: &'static str,
        read: impl FnOnce(&super::ColdStore) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let store = self.cold.clone();
        met(what);
        blocking(move || read(&store))
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => ReadError::Damaged,
                _ => ReadError::Unavailable,
            })
    }

    /// A cold auction, whole.
    pub(crate) async fn settled(&self, number: u64) -> Result<Arc<Settled>, ReadError> {
        self.record("whole", move |store| store.load(number)).await
    }

    /// What a command about an auction that isn't in memory is told, whoever asks whichever replica: it is settled.
    pub(crate) async fn cold_verdict(&self, command: &Command) -> Result<Option<Verdict>, ReadError> {
        // First by a hash: each bid asks.
        let here = |state: &State| state.shard.is_here(&command.auction).then_some(());
        let number = match self.look(&command.auction, here) {
            Lies::Here(()) | Lies::Nowhere => return Ok(None),
            Lies::Lost => return Ok(Some(lost(self.state.read().shard.top()))),
            Lies::Cold(number) => number,
        };
        let settled = self.settled(number).await?;
        #[cfg(feature = "sim")]
        crate::sim::met_cold("command");
        #[cfg(feature = "sim")]
        if crate::sim::planted(crate::sim::Plant::ColdForgetsIds) {
            let nameless = Command {
                id: None,
                ..command.clone()
            };
            return Ok(Some(settled.answer(&nameless, self.state.read().shard.top())));
        }
        Ok(Some(settled.answer(command, self.state.read().shard.top())))
    }

    /// An auction as shown, wherever it lies, and whether it may still grow.
    pub(crate) async fn view(&self, auction: &AuctionId) -> Result<Option<(AuctionView, bool)>, ReadError> {
        let cuts = |state: &State| state.cuts_of(auction).collect::<Vec<_>>();
        let here = |state: &State| {
            let view = state.shard.view(auction)?;
            Some(AuctionView {
                cuts: cuts(state),
                ..view
            })
        };
        let number = match self.look(auction, here) {
            Lies::Here(view) => return Ok(Some((view, true))),
            Lies::Lost => return Err(ReadError::Lost),
            Lies::Nowhere => return Ok(None),
            Lies::Cold(number) => number,
        };
        let view = self.record("view", move |store| store.view(number)).await?;
        let cuts = cuts(&self.state.read());
        Ok(Some((AuctionView { cuts, ..view }, false)))
    }

    /// An auction's events after version `after`, wherever they lie.
    pub(crate) async fn events(
        &self,
        auction: &AuctionId,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<Arc<Event>>>, ReadError> {
        let here = |state: &State| state.shard.events(auction, after, limit).map(<[_]>::to_vec);
        match self.look(auction, here) {
            Lies::Here(events) => Ok(Some(events)),
            Lies::Lost => Err(ReadError::Lost),
            Lies::Nowhere => Ok(None),
            Lies::Cold(number) => self
                .record("events", move |store| store.events(number, after, limit))
                .await
                .map(Some),
        }
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
