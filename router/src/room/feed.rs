//! What keeps a room up to date: four tasks, for the feed, the chat, the clock, and doubt; a fifth tells its audience.
//!
//! The feed is followed from the nearest replica; when it ends (its node went), it is followed from the next one, from
//! the last position seen, so viewers notice nothing. A replica that is cut off keeps its stream open and says nothing:
//! when verdicts, or a look at the leader now and then, speak of versions that the feed doesn't reach within a second,
//! another replica is followed.

use super::{
    Door, Room,
    journal::{Newest, Pushed},
};
use crate::{
    metrics,
    ports::{Freshness, PortError},
    route::GiveUp,
    wire::{AuctionBody, ChatBody, EventBody, Say},
};
use auction::{AuctionView, Event, EventKind, FeedItem, Phase, Position, Reason};
use futures_util::StreamExt;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::time;

/// How often the clock and the viewer count are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Viewers are told at once when the clock is this far from what they were told, beyond its error, ms.
const STRAY_MS: u64 = 25;
/// Viewers are told news of the clock at most so often.
const NEWS_PACE: Duration = Duration::from_millis(50);
/// How long a feed may stay behind what verdicts say.
const STUCK: Duration = Duration::from_secs(1);
/// How often the leader is asked whether the feed is behind it.
const DOUBT: Duration = Duration::from_secs(2);
/// Pause between two tries to follow.
const AGAIN: Duration = Duration::from_millis(50);

/// Starts the tasks; they end when the room stops.
pub(super) fn open(room: &Arc<Room>) {
    spawn(room, follow(room.clone()));
    spawn(room, chat(room.clone()));
    spawn(room, tick(room.clone()));
    spawn(room, doubt(room.clone()));
    let told = room.clone();
    spawn(room, async move { told.audience.run().await });
}

fn spawn(room: &Arc<Room>, task: impl Future<Output = ()> + Send + 'static) {
    let stop = room.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}

/// Why following one replica ended.
enum End {
    /// The stream ended, stood still, or broke its promise: go on elsewhere.
    Elsewhere,
    /// No replica that was asked has the auction.
    Missing,
}

async fn follow(room: Arc<Room>) {
    let state = room.state.clone();
    for turn in 0usize.. {
        let near = state.routes.near(room.shard);
        if let Some(node) = near.get(turn % near.len().max(1)) {
            let from = room.board.lock().journal.position();
            let shards = &state.ports.shards;
            let wait = Duration::from_millis(state.options.ask_ms);
            let followed = time::timeout(wait, shards.follow(*node, room.shard, &room.id, from)).await;
            let end = match followed.unwrap_or(Err(PortError::Unreachable(node.0))) {
                Ok(items) => drain(&room, items).await,
                Err(PortError::NotFound) => End::Missing,
                Err(PortError::Refused(why)) if why == Reason::Lost.code() => End::Missing,
                Err(error) => {
                    tracing::debug!(auction = %room.id, node = node.0, %error, "a feed can't be followed here");
                    End::Elsewhere
                }
            };
            if matches!(end, End::Missing)
                && let Some(why) = missing(&room).await
            {
                state.rooms.close(&room, why);
                return;
            }
        }
        time::sleep(AGAIN).await;
    }
}

/// Why the auction can't be followed anywhere, if the leader says so, too (a replica may only be behind).
async fn missing(room: &Room) -> Option<GiveUp> {
    let read = room.state.routes.read(&room.id, Freshness::Linear).await;
    read.err().filter(|why| matches!(why, GiveUp::NotFound | GiveUp::Lost))
}

async fn drain(room: &Arc<Room>, mut items: futures_util::stream::BoxStream<'static, FeedItem>) -> End {
    let mut behind_since = None;
    loop {
        match time::timeout(TICK, items.next()).await {
            Ok(Some(item)) => {
                if !take(room, item).await {
                    tracing::warn!(auction = %room.id, "a feed left events out; following another replica");
                    metrics::refollowed(true);
                    return End::Elsewhere;
                }
            }
            Ok(None) => break,
            Err(_) => {}
        }
        if room.expected.load(Ordering::Relaxed) <= *room.head.borrow() {
            behind_since = None;
        } else if behind_since.get_or_insert_with(Instant::now).elapsed() > STUCK {
            tracing::warn!(auction = %room.id, "a feed stands still; following another replica");
            break;
        }
    }
    metrics::refollowed(false);
    End::Elsewhere
}

/// Takes one item; `false` if events before it are missing.
async fn take(room: &Arc<Room>, item: FeedItem) -> bool {
    match item {
        FeedItem::Snapshot { position, view } => begin(room, position, *view).await,
        FeedItem::Changed(view) => change(room, *view),
        FeedItem::Event(event) => return publish(room, event),
    }
    true
}

/// The feed starts at a snapshot: the first time, or because what we had couldn't be continued.
async fn begin(room: &Arc<Room>, position: Position, view: AuctionView) {
    let recent = history(room, position.offset).await;
    {
        // This order of locks everywhere: view, then board.
        let mut viewed = room.viewed.lock();
        let mut board = room.board.lock();
        let generation = board.journal.generation;
        board.journal.restart(position);
        if board.journal.generation != generation {
            board.journal.prefill(recent);
            board.newest = Some(Newest::of(&view));
            if generation > 0 {
                metrics::refollowed(true);
                // The view of the old epoch may bear a larger seq: it must not win over this one.
                *viewed = None;
            }
        }
    }
    room.deadline.store(view.ends_at.map_or(0, |s| s.0), Ordering::Relaxed);
    room.live
        .store(matches!(view.phase, Phase::Live | Phase::Paused), Ordering::Relaxed);
    room.viewed(view);
    room.head.send_replace(position.offset);
    room.door.send_if_modified(|door| {
        let opening = *door == Door::Opening;
        if opening {
            *door = Door::Open;
        }
        opening
    });
    clock(room);
    room.audience.wake();
}

/// The newest events before a snapshot, for display; none if they can't be had.
async fn history(room: &Room, offset: u64) -> Vec<(Arc<Event>, axum::extract::ws::Utf8Bytes)> {
    let n = (room.state.options.recent_max as u64).min(offset);
    if n == 0 {
        return Vec::new();
    }
    let shards = &room.state.ports.shards;
    let ask = |node| shards.events(node, room.shard, &room.id, offset - n, n as usize);
    let events = room.state.routes.nearest(room.shard, ask).await.unwrap_or_default();
    let frame = |e: &Arc<Event>| {
        room.encode(&Say::Event {
            a: room.id.as_str(),
            event: (&**e).into(),
        })
    };
    events
        .into_iter()
        .filter(|e| e.seq <= offset)
        .map(|e| (e.clone(), frame(&e)))
        .collect()
}

/// The definition changed before the auction was live.
fn change(room: &Arc<Room>, view: AuctionView) {
    let now = room.state.ports.shards.clock(room.shard).map(|c| c.now);
    let say = Say::Changed {
        a: room.id.as_str(),
        auction: AuctionBody::of(&view, room.shard.0, now),
    };
    let frame = room.encode(&say);
    room.viewed(view);
    room.board.lock().changed.set(frame);
    room.audience.wake();
}

/// An event, encoded once and shown to all.
fn publish(room: &Arc<Room>, event: Arc<Event>) -> bool {
    match room.board.lock().journal.place(event.seq) {
        Pushed::Old => return true,
        Pushed::Gap => return false,
        Pushed::Next => {}
    }
    let span = tracing::trace_span!("edge.fanout", auction = %room.id, seq = event.seq);
    let _in = span.enter();
    let terms = room.viewed.lock().as_ref().map(|v| v.view.definition.terms.clone());
    let least = terms.map_or(event.price, |t| t.least(event.price, event.leader.is_some()));
    let frame = room.encode(&Say::Event {
        a: room.id.as_str(),
        event: EventBody::from(&*event),
    });
    let newest = Newest::new(&event, least);
    let seq = event.seq;
    let moved = room.deadline.swap(event.ends_at.0, Ordering::Relaxed) != event.ends_at.0;
    let closed = matches!(event.kind, EventKind::Close { .. });
    room.live.store(!closed, Ordering::Relaxed);
    {
        let mut board = room.board.lock();
        board.journal.push(event, frame);
        board.newest = Some(newest);
    }
    room.head.send_replace(seq);
    if moved {
        clock(room);
    }
    if closed {
        room.audience.wake_now();
    } else {
        room.audience.wake();
    }
    true
}

/// What the clock reads now, for all.
fn clock(room: &Arc<Room>) -> bool {
    let estimate = room.state.ports.shards.clock(room.shard);
    let held = estimate.is_none_or(|c| c.held);
    let viewed = room.viewed.lock();
    let Some(view) = viewed.as_ref().map(|v| &v.view) else {
        return held;
    };
    let ends_at = match room.deadline.load(Ordering::Relaxed) {
        0 => view.ends_at.map(|s| s.0),
        ms => Some(ms),
    };
    let say = Say::Clock {
        a: room.id.as_str(),
        // No reading was ever seen: the newest event's stamp is what is known.
        now: estimate.map_or(view.ct.0, |c| c.now.0),
        ends_at,
        s: room.state.monotonic_ms(),
        err_ms: estimate.map_or(0, |c| c.err_ms),
        held,
    };
    let frame = room.encode(&say);
    drop(viewed);
    room.board.lock().clock.set(frame);
    held
}

/// Chat: followed at the leader, from the last line seen.
async fn chat(room: Arc<Room>) {
    let state = room.state.clone();
    let mut door = room.door.subscribe();
    if door.wait_for(|d| *d != Door::Opening).await.is_err() {
        return;
    }
    loop {
        if let Some(node) = state.routes.leader(room.shard) {
            let after = room.board.lock().chat.last;
            if let Ok(mut lines) = state.ports.chats.follow(node, &room.id, after).await {
                loop {
                    match time::timeout(STUCK, lines.next()).await {
                        Ok(Some(line)) => say(&room, &line),
                        Ok(None) => break,
                        // Quiet: perhaps because another leads by now.
                        Err(_) if state.routes.leader(room.shard) != Some(node) => break,
                        Err(_) => {}
                    }
                }
            }
        }
        time::sleep(AGAIN * 4).await;
    }
}

fn say(room: &Room, line: &crate::ports::ChatLine) {
    let place = (line.chat_epoch, line.cseq);
    let known = room
        .board
        .lock()
        .chat
        .last
        .is_some_and(|(epoch, cseq)| epoch == line.chat_epoch && line.cseq <= cseq);
    if known {
        return;
    }
    let frame = room.encode(&Say::Chat {
        a: room.id.as_str(),
        chat: ChatBody::from(line),
    });
    room.board.lock().chat.push(place, frame);
    room.audience.wake();
}

/// Looks at the leader's own state while viewers watch a clock that runs: one cheap read, not a consensus one.
async fn doubt(room: Arc<Room>) {
    let state = room.state.clone();
    loop {
        time::sleep(DOUBT).await;
        let watched = room.live.load(Ordering::Relaxed) && room.viewers() > 0;
        let Some(node) = state.routes.leader(room.shard).filter(|_| watched) else {
            continue;
        };
        let read = state
            .ports
            .shards
            .read(node, room.shard, &room.id, Freshness::AtLeast(0));
        if let Ok(Ok(view)) = time::timeout(Duration::from_millis(state.options.ask_ms), read).await {
            room.expect(view.seq);
        }
    }
}

/// Clock, viewer count, and the end of a room that nobody watches.
async fn tick(room: Arc<Room>) {
    let options = &room.state.options;
    let mut news = room.state.ports.shards.clock_news();
    let (mut was_held, mut spoke) = (None, Instant::now());
    let mut told: Option<(u64, Instant)> = None;
    let mut heard_news = false;
    let (mut said, mut counted) = (0, None::<Instant>);
    let mut idle_since = None;
    loop {
        let estimate = room.state.ports.shards.clock(room.shard);
        let held = estimate.is_none_or(|c| c.held);
        // A hold may be over before it was noticed here: then the clock is behind what viewers were told. News of it is
        // passed on at once; a clock that strays without is told a few times as often as usual, not at every look.
        let quiet = if heard_news {
            NEWS_PACE
        } else {
            Duration::from_millis(options.clock_ms / 8)
        };
        let may_correct = spoke.elapsed() >= quiet;
        heard_news &= !may_correct;
        let strayed = may_correct
            && told.zip(estimate).is_some_and(|((now, at), c)| {
                let foretold = now + at.elapsed().as_millis() as u64;
                !c.held && c.now.0.abs_diff(foretold) > STRAY_MS + u64::from(c.err_ms)
            });
        let due = strayed || was_held != Some(held) || spoke.elapsed() >= Duration::from_millis(options.clock_ms);
        if room.live.load(Ordering::Relaxed) && due {
            was_held = Some(clock(&room));
            told = estimate.map(|c| (c.now.0, Instant::now()));
            spoke = Instant::now();
            room.audience.wake_now();
        }
        let viewers = room.viewers();
        if viewers != said && counted.is_none_or(|at| at.elapsed() >= Duration::from_millis(options.counts_ms)) {
            let frame = room.encode(&Say::Counts {
                a: room.id.as_str(),
                viewers: viewers as u64,
            });
            room.board.lock().counts.set(frame);
            (said, counted) = (viewers, Some(Instant::now()));
            room.audience.wake();
        }
        if room.interest.load(Ordering::Relaxed) > 0 {
            idle_since = None;
        } else if idle_since.get_or_insert_with(Instant::now).elapsed() >= Duration::from_millis(options.room_linger_ms)
            && room.state.rooms.close_idle(&room)
        {
            return;
        }
        // Two edges tell of a hold at the same time only if neither waits for its next look.
        let silence = estimate
            .and_then(|c| c.held_in_ms)
            .map_or(TICK, |ms| Duration::from_millis(ms.into()));
        tokio::select! {
            () = time::sleep(if heard_news { NEWS_PACE } else { TICK.min(silence) }) => {}
            changed = news.changed() => match changed {
                Ok(()) => heard_news = true,
                Err(_) => return,
            },
        }
    }
}
