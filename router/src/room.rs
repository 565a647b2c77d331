//! One auction at this edge: one upstream feed, any number of viewers.
//!
//! A `Room` follows the auction's feed, clock and chat once (`feed`), keeps what it needs to show on a `Board`
//! (`journal`), and wakes viewers (`audience`). Each viewer reads the board at its own pace through its `Seat`. A newcomer starts from
//! a snapshot (the auction at some version, read from a replica and encoded once for all who come at that version), or
//! resumes after an offset if everything since then can be given to it.
//!
//! Why a snapshot is safe while events pour in: the board's ring holds the events after the version that was read, so
//! a viewer goes on from that version, whichever it was.
//!
//! Deliberately absent: who may do what (`socket`), sockets, and any truth.

mod audience;
mod feed;
mod journal;

use crate::{
    edge::State,
    metrics,
    ports::Freshness,
    problem::{EdgeCode, Problem},
    route::GiveUp,
    wire::{AuctionBody, EventBody, Say},
};
use auction::{AuctionId, AuctionView, Phase, Position};
use audience::Audience;
use axum::extract::ws::Utf8Bytes;
use journal::{Board, Cell, ChatRing, Journal};
pub(crate) use journal::{Cursor, Turn};
use parking_lot::Mutex;
use placement::ShardId;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, watch},
    time,
};
use tokio_util::sync::CancellationToken;

/// Events that a resume may fetch from upstream beyond the ring; more is a snapshot.
const RESUME_MAX: u64 = 200;
/// How long a resume waits for an edge that is behind it.
const BEHIND: Duration = Duration::from_secs(1);
/// A view this fresh serves the next newcomer too, with the events since.
const FRESH: Duration = Duration::from_millis(50);

/// Whether a room can be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Opening,
    Open,
    /// It can't be opened, or was closed for want of viewers.
    Gone(GiveUp),
}

/// The auction as last read or told.
struct Viewed {
    view: AuctionView,
    at: Instant,
    /// The snapshot frame made of it.
    snap: Option<Utf8Bytes>,
}

/// Where a viewer starts.
pub(crate) struct Start {
    pub(crate) cursor: Cursor,
    /// Sent first, never dropped.
    pub(crate) frames: Vec<Utf8Bytes>,
}

/// One auction at this edge.
pub(crate) struct Room {
    pub(crate) id: AuctionId,
    pub(crate) shard: ShardId,
    state: Arc<State>,
    door: watch::Sender<Door>,
    board: Mutex<Board>,
    viewed: Mutex<Option<Viewed>>,
    /// One reader of the auction at a time; the others find its result.
    reading: tokio::sync::Mutex<()>,
    /// The journal's end, for those who wait for it.
    head: watch::Sender<u64>,
    audience: Audience,
    /// Joins under way and seats: a room without interest goes.
    interest: AtomicUsize,
    /// The newest seq that a verdict spoke of: a feed that stays behind it is stuck.
    expected: AtomicU64,
    /// The deadline that viewers were told, ms (0: none).
    deadline: AtomicU64,
    /// Its clock runs, or is paused: viewers are told the time.
    live: AtomicBool,
    stop: CancellationToken,
    encoded: AtomicU64,
}

impl Room {
    fn new(state: Arc<State>, id: AuctionId) -> Room {
        let options = &state.options;
        let board = Board {
            journal: Journal::new(options.room_ring),
            newest: None,
            changed: Cell::default(),
            clock: Cell::default(),
            counts: Cell::default(),
            chat: ChatRing::new(options.chat_ring),
        };
        Room {
            shard: state.routes.shard_of(&id),
            id,
            state,
            door: watch::channel(Door::Opening).0,
            board: Mutex::new(board),
            viewed: Mutex::new(None),
            reading: tokio::sync::Mutex::new(()),
            head: watch::channel(0).0,
            audience: Audience::default(),
            interest: AtomicUsize::new(0),
            expected: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            live: AtomicBool::new(false),
            stop: CancellationToken::new(),
            encoded: AtomicU64::new(0),
        }
    }

    /// The one place where frames for viewers are made: once each, whoever watches.
    fn encode(&self, say: &Say<'_>) -> Utf8Bytes {
        self.encoded.fetch_add(1, Ordering::Relaxed);
        metrics::encoded();
        encode(say)
    }

    /// Sockets that watch.
    pub(crate) fn viewers(&self) -> usize {
        self.audience.len()
    }

    /// A verdict spoke of version `seq`: the feed should be there soon.
    pub(crate) fn expect(&self, seq: u64) {
        self.expected.fetch_max(seq, Ordering::Relaxed);
    }

    /// The auction, if it still is a draft. The view may be from before it opened (its seller sat here all along), but a
    /// draft has no events: one that came since tells.
    pub(crate) fn draft(&self) -> Option<AuctionView> {
        let viewed = self.viewed.lock();
        let view = &viewed.as_ref()?.view;
        let quiet = *self.head.borrow() <= view.seq;
        (view.phase == Phase::Draft && quiet).then(|| view.clone())
    }

    /// Takes a view if it is no older than the one that is known.
    fn viewed(&self, view: AuctionView) {
        let mut viewed = self.viewed.lock();
        let newer = viewed
            .as_ref()
            .is_none_or(|old| (view.seq, view.version) >= (old.view.seq, old.view.version));
        if newer {
            *viewed = Some(Viewed {
                view,
                at: Instant::now(),
                snap: None,
            });
        }
    }

    /// Where a newcomer starts: after `from` if all since can be given, else from a snapshot not older than it.
    pub(crate) async fn start(&self, from: Option<Position>) -> Result<Start, Problem> {
        let mut at_least = 0;
        if let Some(from) = from {
            if let Some(start) = self.resume(from).await {
                return Ok(start);
            }
            // Of another epoch, its offset says nothing.
            at_least = if self.board.lock().journal.epoch == from.epoch {
                from.offset
            } else {
                0
            };
        }
        self.snapshot(at_least).await
    }

    /// Everything after `from`, or `None`.
    async fn resume(&self, from: Position) -> Option<Start> {
        if self.board.lock().journal.epoch != from.epoch {
            return None;
        }
        let mut head = self.head.subscribe();
        let caught_up = head.wait_for(|h| *h >= from.offset);
        time::timeout(BEHIND, caught_up).await.ok()?.ok()?;
        let base = self.board.lock().journal.base();
        let resumed = Say::Resumed {
            a: self.id.as_str(),
            epoch: from.epoch,
            offset: from.offset,
        };
        let mut frames = vec![encode(&resumed)];
        let mut seq = from.offset;
        if base > seq {
            let events = self.older(seq, base - seq).await?;
            frames.extend(events.iter().map(|e| {
                self.encode(&Say::Event {
                    a: self.id.as_str(),
                    event: (&**e).into(),
                })
            }));
            seq = base;
        }
        let board = self.board.lock();
        (board.journal.epoch == from.epoch).then(|| Start {
            cursor: board.cursor(seq),
            frames,
        })
    }

    /// The `n` events after `seq`, from a replica; all of them or `None`.
    async fn older(&self, seq: u64, n: u64) -> Option<Vec<Arc<auction::Event>>> {
        if n > RESUME_MAX {
            return None;
        }
        let shards = &self.state.ports.shards;
        let ask = |node| shards.events(node, self.shard, &self.id, seq, n as usize);
        let events = self.state.routes.nearest(self.shard, ask).await.ok()?;
        let whole = events.len() as u64 == n && events.iter().zip(seq + 1..).all(|(e, s)| e.seq == s);
        whole.then_some(events)
    }

    /// A snapshot at version `at_least` or later, and the place from which its viewer goes on.
    pub(crate) async fn snapshot(&self, at_least: u64) -> Result<Start, Problem> {
        let _one = self.reading.lock().await;
        let (last, base) = {
            let board = self.board.lock();
            (board.journal.last, board.journal.base())
        };
        let known = self.viewed.lock().as_ref().map(|v| (v.view.seq, v.at.elapsed()));
        // (From before it was live it has no version: then it isn't shown once there are events.)
        let good = known.is_some_and(|(seq, age)| {
            seq >= at_least
                && (seq == last || (seq > 0 && seq >= base && age < FRESH && last - seq.min(last) < RESUME_MAX))
        });
        if !good {
            match self
                .state
                .routes
                .read(&self.id, Freshness::AtLeast(last.max(at_least)))
                .await
            {
                Ok(view) => self.viewed(view),
                // An older view with all events since is as good, if the ring still has them.
                Err(why) if known.is_none_or(|(seq, _)| seq < base.max(at_least)) => return Err(why.into()),
                Err(_) => {}
            }
        }
        self.show().ok_or_else(|| Problem::edge(EdgeCode::Unavailable))
    }

    /// The snapshot of the known view, encoded once.
    fn show(&self) -> Option<Start> {
        let mut viewed = self.viewed.lock();
        let viewed = viewed.as_mut()?;
        let board = self.board.lock();
        let seq = viewed.view.seq;
        let frame = viewed.snap.get_or_insert_with(|| {
            let now = self.state.ports.shards.clock(self.shard).map(|c| c.now);
            self.encode(&Say::Snap {
                a: self.id.as_str(),
                epoch: board.journal.epoch,
                offset: seq,
                auction: AuctionBody::of(&viewed.view, self.shard.0, now),
                recent: board
                    .journal
                    .recent(seq, self.state.options.recent_max)
                    .map(EventBody::from)
                    .collect(),
            })
        });
        Some(Start {
            cursor: board.cursor(seq),
            frames: vec![frame.clone()],
        })
    }
}

/// A frame as text. Serializing these types can't fail; if it did, the viewer would see an empty object.
pub(crate) fn encode(say: &Say<'_>) -> Utf8Bytes {
    serde_json::to_string(say).unwrap_or_else(|_| "{}".into()).into()
}

/// Holds a room open.
pub(crate) struct Interest(Arc<Room>);

impl Interest {
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.0
    }

    /// Sits a viewer down: from now on `wake` is notified of all that happens.
    pub(crate) fn seat(self, wake: Arc<Notify>, cursor: Cursor) -> Seat {
        Seat {
            number: self.0.audience.sit(wake),
            interest: self,
            cursor,
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.interest.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A viewer's place in a room.
pub(crate) struct Seat {
    interest: Interest,
    number: u64,
    cursor: Cursor,
}

impl Seat {
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.interest.0
    }

    /// What the viewer hasn't seen, a bounded part of it.
    pub(crate) fn read(&mut self, lag_max: u64, out: &mut Vec<Utf8Bytes>) -> Turn {
        self.interest.0.board.lock().read(&mut self.cursor, lag_max, out)
    }

    /// The same without events, while a snapshot is on its way.
    pub(crate) fn read_side(&mut self, out: &mut Vec<Utf8Bytes>) -> Turn {
        let mut turn = Turn::default();
        self.interest.0.board.lock().read_side(&mut self.cursor, &mut turn, out);
        turn
    }

    /// Goes on from a snapshot.
    pub(crate) fn moved(&mut self, start: &Start) {
        self.cursor = self.interest.0.board.lock().moved(&self.cursor, start.cursor.seq);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.interest.0.audience.leave(self.number);
    }
}

/// What a room is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomStats {
    /// The auction.
    pub auction: AuctionId,
    /// Viewers at this edge.
    pub viewers: usize,
    /// The newest event.
    pub seq: u64,
    /// Frames encoded since it opened, each shared by all viewers.
    pub encoded: u64,
}

/// All rooms of an edge.
#[derive(Default)]
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<AuctionId, Arc<Room>>>,
}

impl Rooms {
    /// Enters a room, opening it if need be.
    pub(crate) async fn enter(&self, state: &Arc<State>, id: &AuctionId) -> Result<Interest, Problem> {
        let interest = self
            .interest(state, id)
            .ok_or_else(|| Problem::edge(EdgeCode::Unavailable))?;
        let mut door = interest.0.door.subscribe();
        let opened = door.wait_for(|d| *d != Door::Opening);
        let wait = Duration::from_millis(state.options.deadline_ms);
        let door = match time::timeout(wait, opened).await {
            Ok(Ok(door)) => *door,
            Ok(Err(_)) | Err(_) => return Err(Problem::edge(EdgeCode::Unavailable)),
        };
        match door {
            Door::Gone(why) => Err(why.into()),
            Door::Open | Door::Opening => Ok(interest),
        }
    }

    /// The room of an auction, if it is open.
    pub(crate) fn get(&self, id: &AuctionId) -> Option<Arc<Room>> {
        self.rooms.lock().get(id).cloned()
    }

    pub(crate) fn stats(&self) -> Vec<RoomStats> {
        let rooms: Vec<Arc<Room>> = self.rooms.lock().values().cloned().collect();
        let stats = |room: &Arc<Room>| RoomStats {
            auction: room.id.clone(),
            viewers: room.viewers(),
            seq: *room.head.borrow(),
            encoded: room.encoded.load(Ordering::Relaxed),
        };
        rooms.iter().map(stats).collect()
    }

    fn interest(&self, state: &Arc<State>, id: &AuctionId) -> Option<Interest> {
        let mut rooms = self.rooms.lock();
        let room = match rooms.get(id) {
            Some(room) => room.clone(),
            None if rooms.len() >= state.options.rooms_max => return None,
            None => {
                let room = Arc::new(Room::new(state.clone(), id.clone()));
                rooms.insert(id.clone(), room.clone());
                metrics::rooms(rooms.len());
                feed::open(&room);
                room
            }
        };
        room.interest.fetch_add(1, Ordering::Relaxed);
        Some(Interest(room))
    }

    /// Closes a room that nobody wants. Under the map's lock, so that none can enter meanwhile.
    fn close_idle(&self, room: &Arc<Room>) -> bool {
        let mut rooms = self.rooms.lock();
        let idle = room.interest.load(Ordering::Relaxed) == 0;
        if idle {
            self.forget(&mut rooms, room, GiveUp::Unavailable);
        }
        idle
    }

    /// Closes a room whatever its viewers want: there is no such auction.
    fn close(&self, room: &Arc<Room>, why: GiveUp) {
        let mut rooms = self.rooms.lock();
        self.forget(&mut rooms, room, why);
    }

    fn forget(&self, rooms: &mut HashMap<AuctionId, Arc<Room>>, room: &Arc<Room>, why: GiveUp) {
        if rooms.get(&room.id).is_some_and(|r| Arc::ptr_eq(r, room)) {
            rooms.remove(&room.id);
        }
        metrics::rooms(rooms.len());
        room.door.send_replace(Door::Gone(why));
        room.stop.cancel();
    }

    /// Closes all rooms (the edge goes).
    pub(crate) fn close_all(&self) {
        for (_, room) in self.rooms.lock().drain() {
            room.stop.cancel();
        }
    }
}
