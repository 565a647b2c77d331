//! The feed: committed events of a shard, to whoever follows an auction on this replica.
//!
//! An auction's events are numbered 1, 2, 3 …, and the state keeps them all as long as it keeps the auction. So a
//! follower needs no queue of its own that never overflows: it needs a bounded one, and a way to notice a gap.
//!
//! ```text
//!   apply (state's write lock) --publish--> room of the auction --(ring of `RING`)--> follower: next = last + 1?
//!                                                                                        | yes: give it
//!   state's event log  <---------------- read after `last` (read lock) ------------------' no: catch up here
//! ```
//!
//! **No gap, no repeat.** `follow` subscribes and reads the history under one read lock; `publish` runs under the write
//! lock. So an event is in the history, or comes through the room, or both; the sequence number drops the second copy.
//!
//! **A slow follower never blocks `apply`.** The ring forgets what it didn't fetch in time; it then reads on from the
//! event log, and if that would be more than `CATCH_UP` events, it is told to start again from a snapshot.
//!
//! A follower may ask for events after an offset that this replica hasn't applied yet (its edge was fed by a quicker
//! replica before): it is given exactly what comes after it, as soon as it is there.
//!
//! An auction that was settled and has left memory has no more events: who follows it gets what there is from the cold store, and waits.
//! What can't be read there is said to be so, and the feed ends: another replica may have it.
//!
//! Deliberately absent: encoding, viewers, coalescing. Those are the edge's (`router::room`); a follower here is an edge.

use crate::{host::ReadError, metrics, port::Log};
use auction::{AuctionId, AuctionView, Done, Event, FeedItem, Phase, Position, Settled, Shard};
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::broadcast::{self, error::RecvError};

/// Events that a room keeps for followers that are slow to fetch.
pub const RING: usize = 256;

/// A follower that is further behind starts again from a snapshot.
pub const CATCH_UP: usize = 4_096;

/// What a room is told.
#[derive(Clone, Debug)]
enum News {
    Event(Arc<Event>),
    Changed(Arc<AuctionView>),
    /// The state was replaced (a snapshot was installed): read on from the event log.
    Reset,
}

type Rooms = Mutex<HashMap<AuctionId, broadcast::Sender<News>>>;

/// The feed of one replica of one shard.
#[derive(Debug)]
pub struct Feed {
    epoch: AtomicU64,
    /// One broadcast per followed auction; made by its first follower, dropped with its last.
    rooms: Arc<Rooms>,
}

impl Feed {
    /// A feed without followers. `epoch` changes only when the shard is founded anew.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch: AtomicU64::new(epoch),
            rooms: Arc::default(),
        }
    }

    /// The epoch of all positions in this feed.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Auctions that someone follows.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.rooms.lock().len()
    }

    /// Tells followers what an entry made. Called from `apply`, under the state's write lock; never waits.
    pub fn publish(&self, done: &Done, shard: &Shard) {
        if done.events.is_empty() && done.changed.is_empty() {
            return;
        }
        let rooms = self.rooms.lock();
        if rooms.is_empty() {
            return;
        }
        // A send fails only without followers: nobody's loss.
        for event in &done.events {
            if let Some(room) = rooms.get(&event.auction) {
                let _ = room.send(News::Event(event.clone()));
            }
        }
        for auction in &done.changed {
            if let Some(room) = rooms.get(auction)
                && let Some(view) = shard.view(auction)
            {
                let _ = room.send(News::Changed(Arc::new(view)));
            }
        }
    }

    /// Tells all followers that the state was replaced by a snapshot: they read on from the event log, or start again if it
    /// is of another epoch. Called under the state's write lock.
    pub fn reset(&self, epoch: u64) {
        if self.epoch.swap(epoch, Ordering::Relaxed) != epoch {
            self.close();
            return;
        }
        for room in self.rooms.lock().values() {
            let _ = room.send(News::Reset);
        }
    }

    /// Ends all followers: this replica is no more, and others have what comes next.
    pub fn close(&self) {
        self.rooms.lock().clear();
    }

    /// Follows an auction: complete after `from`, or opened by a snapshot.
    ///
    /// # Errors
    /// When no such auction is here, or it can't be read.
    pub async fn follow(
        &self,
        log: Arc<dyn Log>,
        auction: &AuctionId,
        from: Option<Position>,
    ) -> Result<BoxStream<'static, FeedItem>, ReadError> {
        let here = {
            let state = log.state().read();
            match state.shard.view(auction) {
                Some(view) => Ok(self.follower(&log, view, from, |after| events_of(&state.shard, auction, after))),
                None if state.lost.auctions.contains_key(auction) => return Err(ReadError::Lost),
                // Under the same lock: between two looks it may have left memory.
                None => Err(log.cold(auction, state.shard.cold().count)),
            }
        };
        let follower = match here {
            Ok(follower) => follower,
            Err(number) => {
                let settled = log.settled(number.ok_or(ReadError::NotFound)?).await?;
                self.follower(&log, settled.view(), from, |after| settled_after(&settled, after))
            }
        };
        let items = stream::unfold(follower, |mut follower| async move {
            Some((follower.next().await?, follower))
        });
        Ok(items.boxed())
    }

    /// A follower of an auction that is as `view` says, with the events that `after` gives.
    fn follower(
        &self,
        log: &Arc<dyn Log>,
        view: AuctionView,
        from: Option<Position>,
        after: impl FnOnce(u64) -> Vec<Arc<Event>>,
    ) -> Follower {
        let news = self.join(&view.id);
        let epoch = self.epoch();
        let resume = from.filter(|from| from.epoch == epoch).map(|from| from.offset);
        let mut follower = Follower {
            epoch,
            auction: view.id.clone(),
            news,
            last: resume.unwrap_or(0),
            ready: VecDeque::new(),
            _seat: Seat::take(&self.rooms, &view.id),
            log: log.clone(),
        };
        match resume {
            None => follower.restart(view),
            Some(last) => follower.catch_up(after(last), view),
        }
        follower
    }

    fn join(&self, auction: &AuctionId) -> broadcast::Receiver<News> {
        let mut rooms = self.rooms.lock();
        rooms
            .entry(auction.clone())
            .or_insert_with(|| broadcast::channel(RING).0)
            .subscribe()
    }
}

/// What a follower is given at once, and one more if there is more than that.
fn events_of(shard: &Shard, auction: &AuctionId, after: u64) -> Vec<Arc<Event>> {
    shard.events(auction, after, CATCH_UP + 1).unwrap_or_default().to_vec()
}

fn settled_after(settled: &Settled, after: u64) -> Vec<Arc<Event>> {
    let later = settled.events().iter().filter(|event| event.seq > after);
    later.take(CATCH_UP + 1).cloned().collect()
}

/// A follower's place in a room: the room goes when its last follower leaves.
struct Seat {
    rooms: Weak<Rooms>,
    auction: AuctionId,
}

impl Seat {
    fn take(rooms: &Arc<Rooms>, auction: &AuctionId) -> Self {
        metrics::followers(1);
        Self {
            rooms: Arc::downgrade(rooms),
            auction: auction.clone(),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        metrics::followers(-1);
        let Some(rooms) = self.rooms.upgrade() else { return };
        let mut rooms = rooms.lock();
        // The receiver of this follower was dropped before its seat (order of fields).
        if rooms.get(&self.auction).is_some_and(|room| room.receiver_count() == 0) {
            rooms.remove(&self.auction);
        }
    }
}

struct Follower {
    epoch: u64,
    auction: AuctionId,
    news: broadcast::Receiver<News>,
    /// The sequence number of the last event given.
    last: u64,
    /// What was read from the event log and is not given yet; at most `CATCH_UP`.
    ready: VecDeque<FeedItem>,
    _seat: Seat,
    log: Arc<dyn Log>,
}

impl Follower {
    async fn next(&mut self) -> Option<FeedItem> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            match self.news.recv().await {
                Ok(News::Event(event)) if event.seq <= self.last => {}
                Ok(News::Event(event)) if event.seq == self.last + 1 => {
                    self.last = event.seq;
                    return Some(FeedItem::Event(event));
                }
                Ok(News::Changed(view)) if view.seq >= self.last => {
                    return Some(FeedItem::Changed(Box::new((*view).clone())));
                }
                Ok(News::Changed(_)) => {}
                Ok(News::Event(_) | News::Reset) | Err(RecvError::Lagged(_)) => self.resync().await?,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Reads on from the state, or from what it has paged out. `None`: the auction is no longer here, or can't be read, so the
    /// feed ends.
    async fn resync(&mut self) -> Option<()> {
        metrics::resync();
        let log = self.log.clone();
        let here = {
            let state = log.state().read();
            match state.shard.view(&self.auction) {
                Some(view) => Ok((events_of(&state.shard, &self.auction, self.last), view)),
                None => Err(log.cold(&self.auction, state.shard.cold().count)),
            }
        };
        let (events, view) = match here {
            Ok(here) => here,
            Err(number) => {
                let settled = log.settled(number?).await.ok()?;
                (settled_after(&settled, self.last), settled.view())
            }
        };
        // Changes of a definition have no number, so one that was missed is told again.
        let unborn = matches!(view.phase, Phase::Draft | Phase::Scheduled);
        let changed = unborn.then(|| FeedItem::Changed(Box::new(view.clone())));
        self.catch_up(events, view);
        self.ready.extend(changed);
        Some(())
    }

    /// Queues what the event log has after `last`, or a snapshot if that is too much. An offset that this replica hasn't
    /// reached yet needs nothing: what comes up to it is dropped as it comes.
    fn catch_up(&mut self, events: Vec<Arc<Event>>, view: AuctionView) {
        let complete = events.first().is_none_or(|event| event.seq == self.last + 1);
        if !complete || events.len() > CATCH_UP {
            self.restart(view);
            return;
        }
        if let Some(newest) = events.last() {
            self.last = newest.seq;
        }
        self.ready.extend(events.into_iter().map(FeedItem::Event));
    }

    /// Starts again from a snapshot.
    fn restart(&mut self, view: AuctionView) {
        self.last = view.seq;
        let position = Position {
            epoch: self.epoch,
            offset: view.seq,
        };
        self.ready.push_back(FeedItem::Snapshot {
            position,
            view: Box::new(view),
        });
    }
}
