//! One viewer's WebSocket: many auctions, four lanes, bounded in every direction.
//!
//! A session is one task. It hears frames, has the slow work (joins, bids, chat) done by short tasks that put their
//! answers into its inbox, and after each wake-up writes what is due: first the inbox (verdicts: never dropped), then what
//! each seat hasn't read of its room's board (state, chat, counts). While a write waits for a slow viewer nothing
//! is queued for it but verdicts; the boards go on, and it falls to the newest state and a snapshot.
//!
//! ```text
//!   client --frame--> hear --spawn--> route (bid) ----verdict--.
//!                       |                                      v
//!                       '--spawn--> room (join) --start--> [ inbox ] --.
//!                                     board --(wake)--> seats ----------+--> client
//! ```
//!
//! Tokens come in frames, never in cookies, so a foreign page can't ride on anyone's sign-in.

mod delay;
mod hear;
mod inbox;

use crate::{
    auth::{User, wall_ms},
    edge::State,
    limits::Buckets,
    metrics,
    ports::ChatLine,
    problem::{EdgeCode, Problem},
    room::{Seat, Start, encode},
    wire::{Say, UserBody},
};
use auction::{AuctionId, Command, Id};
use axum::{
    extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade},
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt as _, SinkExt as _};
use inbox::{Inbox, Item, OnItsWay};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time};

/// Why the edge closes a socket; the number tells the client whether and when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Close {
    /// Don't come back unchanged.
    Malformed = 4400,
    /// Sign in again.
    Token = 4401,
    /// Come back, jitter 0-2 s.
    Slow = 4408,
    /// Too many; later.
    TooMany = 4429,
    /// Come back at once, elsewhere.
    Draining = 4503,
}

impl Close {
    fn words(self) -> &'static str {
        match self {
            Close::Malformed => "malformed or too large",
            Close::Token => "token refused",
            Close::Slow => "slow",
            Close::TooMany => "too many",
            Close::Draining => "draining",
        }
    }
}

/// Messages that are heard before anything is written: what came in one read is answered in one write. No more than that:
/// a neighbour's socket stands in line behind as many of the crowd's as are ready, each with a turn of this length.
const TURN: usize = 8;
/// Longest pause of a client that says many things at once, each time.
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// Small frames are gathered into writes of about this size. It stays with the socket once it was used.
const WRITE_TOGETHER: usize = 2048;

/// How a session goes on.
enum Flow {
    On,
    /// Say why, then close.
    Close(Close),
    /// The client is gone.
    Gone,
}

/// Upgrades to a WebSocket, if there is room.
pub(crate) fn upgrade(state: Arc<State>, upgrade: WebSocketUpgrade) -> Response {
    if *state.draining.borrow() || state.sockets.load(Ordering::Relaxed) >= state.options.sockets_max {
        return Problem {
            retry_after_s: Some(2),
            ..Problem::edge(EdgeCode::Unavailable)
        }
        .into_response();
    }
    // The defaults cost 134 KiB an idle viewer; these, under 5 (the write buffer is made when first needed). Frames over our own bound get a coded
    // refusal up to a few times it; beyond that the library hangs up.
    let limit = state.options.frame_max * 4;
    upgrade
        .read_buffer_size(1024)
        .write_buffer_size(WRITE_TOGETHER)
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(move |socket| Box::pin(serve(state, socket)))
}

/// Counts a socket for as long as it lives.
struct Counted(Arc<State>);

impl Counted {
    fn new(state: Arc<State>) -> Counted {
        metrics::sockets(state.sockets.fetch_add(1, Ordering::Relaxed) + 1);
        Counted(state)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::sockets(self.0.sockets.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

async fn serve(state: Arc<State>, mut socket: WebSocket) {
    let _counted = Counted::new(state.clone());
    let mut session = Session::new(state);
    session.greet();
    if let Some(close) = session.run(&mut socket).await {
        metrics::closed(close as u16);
        let frame = CloseFrame {
            code: close as u16,
            reason: close.words().into(),
        };
        let _ = time::timeout(Duration::from_secs(1), socket.send(Message::Close(Some(frame)))).await;
    }
}

/// How long a client that said so many things at once pauses while all that is ready takes `line`, of which `free` is nobody's
/// fault (zero: it never pauses).
fn pause(line: Duration, free: Duration, said: usize) -> Option<Duration> {
    let beyond = line.checked_sub(free).filter(|_| !free.is_zero())?;
    let said = u32::try_from(said).unwrap_or(u32::MAX);
    Some(beyond.saturating_mul(said).min(PAUSE_MAX))
}

/// Writes a turn's frames, small ones together.
async fn write(socket: &mut WebSocket, out: Vec<Message>) -> Result<(), axum::Error> {
    for message in out {
        socket.feed(message).await?;
    }
    socket.flush().await
}

/// A seat and which join made it.
struct Seated {
    auction: AuctionId,
    join: u64,
    /// `None` while the join is under way.
    seat: Option<Seat>,
    /// A snapshot is on its way: no events until then.
    waiting: bool,
}

struct Session {
    state: Arc<State>,
    user: Option<User>,
    inbox: Arc<Inbox>,
    seats: Vec<Seated>,
    joins: u64,
    /// To the task that says this session's chat lines, once there was one.
    speaker: Option<mpsc::Sender<(AuctionId, ChatLine)>>,
    /// To the task that carries this session's bids, once there was one.
    bidder: Option<mpsc::Sender<(Id, Command, OnItsWay)>>,
    strikes: u32,
    /// How fast this client may speak, whatever it says.
    pace: Buckets<()>,
    begun: Instant,
    heard: Instant,
    pinged: bool,
    leave_at: Option<Instant>,
    /// Messages heard since anything was written.
    turn: usize,
    /// Samples of delay that were taken.
    samples: u64,
}

impl Session {
    fn new(state: Arc<State>) -> Session {
        let inbox = Arc::new(Inbox::new(state.options.verdict_bytes_max));
        let per_s = u64::from(state.options.frames_per_s);
        let pace = Buckets::new(per_s * 60, per_s * 4, 1);
        Session {
            state,
            user: None,
            inbox,
            seats: Vec::new(),
            joins: 0,
            speaker: None,
            bidder: None,
            strikes: 0,
            pace,
            begun: Instant::now(),
            heard: Instant::now(),
            pinged: false,
            leave_at: None,
            turn: 0,
            samples: 0,
        }
    }

    fn greet(&self) {
        self.say(&Say::Hello {
            node: self.state.ports.map.me().0,
            region: &self.state.options.region,
            user: self.user.as_ref().map(UserBody::from),
            s: self.state.monotonic_ms(),
            edges: self.state.edges(),
            hears: delay::HEARS,
        });
    }

    fn say(&self, say: &Say<'_>) {
        self.inbox.push(encode(say));
    }

    async fn run(&mut self, socket: &mut WebSocket) -> Option<Close> {
        let mut told = self.state.draining.subscribe();
        // Made once: a session wakes twice for each bid.
        let mut draining = std::pin::pin!(told.wait_for(|d| *d));
        let mut look = std::pin::pin!(time::sleep_until(self.next_look().into()));
        loop {
            let flow = tokio::select! {
                message = socket.recv() => self.messages(message, socket),
                () = self.inbox.wake.notified() => Flow::On,
                () = &mut look => {
                    let flow = self.look();
                    // Whoever spoke meanwhile is looked at later.
                    look.as_mut().reset(self.next_look().into());
                    flow
                }
                _ = &mut draining, if self.leave_at.is_none() => {
                    // Spread, so that a drain is no stampede on the other edges.
                    let spread = rand::random_range(0..=self.state.options.drain_ms);
                    self.leave_at = Some(Instant::now() + Duration::from_millis(spread));
                    Flow::On
                }
            };
            let next = self.next_look();
            if next < look.deadline().into_std() {
                look.as_mut().reset(next.into());
            }
            let pumped = self.pump(socket).await;
            let turn = std::mem::take(&mut self.turn);
            if turn > 1 {
                self.give_way(turn).await;
            }
            match (flow, pumped) {
                (Flow::Close(close), Flow::On) | (_, Flow::Close(close)) => return Some(close),
                (Flow::Gone, _) | (_, Flow::Gone) => return None,
                (Flow::On, Flow::On) => {}
            }
        }
    }

    /// A client that says many things at once lets others go first: the work of this node's shards, and whoever says one thing.
    /// It pauses for as long as all that is ready here takes, beyond `line_ms`, once for each thing that it said: TCP tells
    /// it to slow down, and no answer of anyone else stands in line behind it.
    async fn give_way(&self, said: usize) {
        let began = Instant::now();
        tokio::task::yield_now().await;
        let free = Duration::from_millis(self.state.options.line_ms);
        if let Some(pause) = pause(began.elapsed(), free, said) {
            metrics::gave_way();
            time::sleep(pause).await;
        }
    }

    /// A message, and those that came with it: what they are answered at once leaves in one write.
    fn messages(&mut self, first: Option<Result<Message, axum::Error>>, socket: &mut WebSocket) -> Flow {
        let mut flow = self.message(first);
        self.turn = 1;
        for _ in 1..TURN {
            if !matches!(flow, Flow::On) {
                break;
            }
            let Some(next) = socket.recv().now_or_never() else {
                break;
            };
            flow = self.message(next);
            self.turn += 1;
        }
        flow
    }

    fn message(&mut self, message: Option<Result<Message, axum::Error>>) -> Flow {
        let message = match message {
            None => return Flow::Gone,
            // Too long for the library, or bytes that are no text: it can't be told apart from noise.
            Some(Err(error)) => {
                tracing::debug!(%error, "a socket ended in an error");
                return Flow::Close(Close::Malformed);
            }
            Some(Ok(message)) => message,
        };
        self.heard = Instant::now();
        self.pinged = false;
        if self.pace.take(&(), self.begun.elapsed().as_millis() as u64).is_err() {
            return Flow::Close(Close::TooMany);
        }
        match message {
            Message::Text(text) => self.hear(&text),
            Message::Binary(_) => {
                self.strike("frames are text");
                Flow::Close(Close::Malformed)
            }
            Message::Ping(_) | Message::Pong(_) => Flow::On,
            Message::Close(_) => Flow::Gone,
        }
    }

    /// When to look at the socket though nothing happened: to ping, to give it up, to leave, or to sign it out.
    fn next_look(&self) -> Instant {
        let options = &self.state.options;
        let quiet = if self.pinged {
            options.silence_ms
        } else {
            options.ping_ms
        };
        let mut at = self.heard + Duration::from_millis(quiet);
        if let Some(user) = &self.user {
            let left = user.expires_at_ms.saturating_sub(wall_ms());
            at = at.min(Instant::now() + Duration::from_millis(left));
        }
        self.leave_at.map_or(at, |leave| leave.min(at))
    }

    fn look(&mut self) -> Flow {
        if self.leave_at.is_some_and(|at| at <= Instant::now()) {
            return Flow::Close(Close::Draining);
        }
        if self.user.as_ref().is_some_and(|u| u.expires_at_ms <= wall_ms()) {
            return Flow::Close(Close::Token);
        }
        let quiet = self.heard.elapsed().as_millis() as u64;
        if quiet >= self.state.options.silence_ms {
            return Flow::Close(Close::Slow);
        }
        if !self.pinged && quiet >= self.state.options.ping_ms {
            self.pinged = true;
            self.inbox.ping();
        }
        Flow::On
    }

    /// Writes a bounded turn of what is due: verdicts, then the boards.
    async fn pump(&mut self, socket: &mut WebSocket) -> Flow {
        if self.inbox.overflown() {
            return Flow::Close(Close::Slow);
        }
        let mut out = Vec::new();
        for item in self.inbox.take() {
            match item {
                Item::Frame(frame) => out.push(Message::Text(frame)),
                Item::Ping => out.push(Message::Ping(axum::body::Bytes::new())),
                Item::Seated { join, seat, frames } => self.seated(join, *seat, frames, &mut out),
                Item::Refused { join } => self.seats.retain(|s| s.join != join),
                Item::Snapshot { join, start } => self.restarted(join, start, &mut out),
            }
        }
        let mut frames: Vec<Utf8Bytes> = Vec::new();
        let mut more = false;
        for i in 0..self.seats.len() {
            more |= self.read(i, &mut frames);
        }
        out.extend(frames.into_iter().map(Message::Text));
        metrics::sent(out.len() as u64);
        if !out.is_empty() {
            let patience = Duration::from_millis(self.state.options.send_ms);
            match time::timeout(patience, write(socket, out)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Flow::Gone,
                Err(_) => return Flow::Close(Close::Slow),
            }
        }
        if more {
            self.inbox.wake.notify_one();
        }
        Flow::On
    }

    /// One seat's turn; whether it has more.
    fn read(&mut self, i: usize, frames: &mut Vec<Utf8Bytes>) -> bool {
        let seated = &mut self.seats[i];
        let Some(seat) = &mut seated.seat else { return false };
        let turn = if seated.waiting {
            seat.read_side(frames)
        } else {
            seat.read(self.state.options.viewer_lag_max, frames)
        };
        if turn.skipped > 0 {
            metrics::chat_skipped(turn.skipped);
        }
        if turn.snapshot {
            metrics::fell_behind();
            seated.waiting = true;
            let (room, inbox, join) = (seat.room().clone(), self.inbox.clone(), seated.join);
            tokio::spawn(async move {
                let start = room.snapshot(0).await;
                inbox.put(Item::Snapshot {
                    join,
                    start: start.ok(),
                });
            });
        }
        turn.more
    }

    fn seated(&mut self, join: u64, seat: Seat, frames: Vec<Utf8Bytes>, out: &mut Vec<Message>) {
        // Left, or joined anew, meanwhile: then the seat is dropped.
        if let Some(seated) = self.seats.iter_mut().find(|s| s.join == join) {
            seated.seat = Some(seat);
            out.extend(frames.into_iter().map(Message::Text));
        }
    }

    fn restarted(&mut self, join: u64, start: Option<Start>, out: &mut Vec<Message>) {
        let Some(seated) = self.seats.iter_mut().find(|s| s.join == join) else {
            return;
        };
        let Some(seat) = &mut seated.seat else { return };
        seated.waiting = false;
        // Without a snapshot the next turn asks again, with the newest state by then.
        if let Some(start) = start {
            seat.moved(&start);
            out.extend(start.frames.into_iter().map(Message::Text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that an idle viewer's task holds.
    fn size<F: Future>(_: impl FnOnce(Arc<State>, WebSocket) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn who_says_many_things_pauses_for_the_line_beyond_what_is_free() {
        let ms = Duration::from_millis;
        for (line, free, said, expect) in [
            (0, 2, 8, None),
            (1, 2, 8, None),
            (3, 2, 2, Some(2)),
            (4, 2, 8, Some(16)),
            (500, 2, 8, Some(40)),
            (500, 0, 8, None),
        ] {
            assert_eq!(pause(ms(line), ms(free), said), expect.map(ms), "{line} {free} {said}");
        }
    }

    #[test]
    fn an_idle_viewer_is_small() {
        assert!(size(serve) <= 4096, "{} bytes", size(serve));
    }
}
