//! One WebSocket that stays: joins, bids and chat go in, notices come out, and what happens to connections in between
//! is the socket's business.
//!
//! ```text
//!   caller            Socket (handle)        task                          edge nodes
//!     | bid(a, 500, id) |--- Ask (bounded) --->|--- {t:"bid"} ------------> node 1  x  dies
//!     |                 |                      |--- hello, join from (epoch, offset), bid again, same id --> node 2
//!     | <--- verdict ---|<--- oneshot ---------|<-- {t:"verdict"} ---------
//!     | <=== Notices (bounded) ================|<-- events, clock, chat
//! ```
//!
//! Why one task owns everything: joins, positions and unanswered bids must be re-sent as one consistent whole after a
//! reconnect; with two owners one of them would be late. Why notices have a bound that *blocks*: a consumer that is slow
//! makes this socket slow, and the edge knows what to do with a slow socket; dropping here would be a gap unseen.
//! Whoever wants no notices drops the receiver.
//!
//! Deliberately absent: interpretation. Every event is passed on as it came, repeats and gaps included (a harness wants
//! to see them); a gap is told and answered by a resume.

mod link;
mod open;
mod task;

use crate::{
    clock::{Countdown, EdgeClock},
    wire::{Auction, ChatLine, Event, Problem, Verdict},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// How a socket behaves.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// Base URLs (`http://host:port`) of the nodes to connect to, in this order.
    pub nodes: Vec<String>,
    /// Which of them first.
    pub first: usize,
    /// Whom the socket speaks for; `None`: a watcher without a name.
    pub token: Option<String>,
    /// A ping this often; also the tick of the offset estimate.
    pub ping_every: Duration,
    /// Silence for this long: the connection is dead.
    pub silence_max: Duration,
    /// Connecting may take this long.
    pub connect_max: Duration,
    /// Wait before the next node: at least this, doubled at each failure …
    pub backoff_min: Duration,
    /// … up to this; each wait is jittered.
    pub backoff_max: Duration,
    /// A bid without an answer is sent again after this (the edge answers within 5 s).
    pub resend_after: Duration,
    /// A bid without a verdict after this is `BidError::Unknown`.
    pub bid_patience: Duration,
    /// Asks that wait for the task.
    pub asks_max: usize,
    /// Bids without a verdict.
    pub bids_max: usize,
    /// Notices that wait for the caller.
    pub notices_max: usize,
    /// Of the jitter.
    pub seed: u64,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions {
            nodes: Vec::new(),
            first: 0,
            token: None,
            ping_every: Duration::from_secs(1),
            silence_max: Duration::from_secs(3),
            connect_max: Duration::from_secs(2),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            resend_after: Duration::from_secs(6),
            bid_patience: Duration::from_secs(15),
            asks_max: 64,
            bids_max: 256,
            notices_max: 1024,
            seed: rand::random(),
        }
    }
}

/// A place in an auction's feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Of the feed.
    pub epoch: u64,
    /// The newest version seen.
    pub offset: u64,
}

/// Why a bid has no verdict.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BidError {
    /// Refused before a shard judged it (not signed in, too many requests, not understood).
    #[error("refused: {}", .0.code)]
    Refused(Box<Problem>),
    /// It may or may not have been accepted. The same id may be sent again.
    #[error("outcome unknown")]
    Unknown,
    /// Too many bids of this socket wait already; certainly not sent.
    #[error("too many bids wait")]
    Full,
    /// The socket is closed; a bid under way has an unknown outcome.
    #[error("the socket is closed")]
    Closed,
}

/// What a socket tells. `at`: when it was read off the wire.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Connected, and greeted by this node.
    Opened {
        /// The node.
        node: u64,
        /// Its region.
        region: String,
        /// When.
        at: Instant,
    },
    /// The connection ended; another is tried unless `last`.
    Lost {
        /// The close code, if the edge gave one.
        code: Option<u16>,
        /// The socket gives up: coming back unchanged is useless.
        last: bool,
        /// When.
        at: Instant,
    },
    /// A join was sent.
    Joining {
        /// The auction.
        a: String,
        /// Resume from here.
        from: Option<Position>,
        /// When.
        at: Instant,
    },
    /// Start from this.
    Snap {
        /// The auction.
        a: String,
        /// Its place in the feed.
        position: Position,
        /// The auction then.
        auction: Box<Auction>,
        /// Newest events up to it, for display.
        recent: Vec<Event>,
        /// When.
        at: Instant,
    },
    /// The resume is complete.
    Resumed {
        /// The auction.
        a: String,
        /// Events after this follow.
        position: Position,
        /// When.
        at: Instant,
    },
    /// The next event, as it came.
    Event {
        /// The auction.
        a: String,
        /// What happened.
        event: Box<Event>,
        /// When.
        at: Instant,
    },
    /// Events are missing between `have` and `got`; a resume was sent.
    Gap {
        /// The auction.
        a: String,
        /// Last version in order.
        have: u64,
        /// The version that came.
        got: u64,
    },
    /// The definition changed.
    Changed {
        /// The auction.
        a: String,
        /// The auction now.
        auction: Box<Auction>,
    },
    /// Newest values for a slow socket.
    State {
        /// The auction.
        a: String,
        /// Visible price.
        price: u64,
        /// Least next bid.
        least: u64,
        /// Version.
        seq: u64,
    },
    /// The shard's clock; `Socket::countdown` has it already.
    Clock {
        /// The auction.
        a: String,
        /// The reading.
        countdown: Countdown,
        /// When.
        at: Instant,
    },
    /// A line of chat.
    Chat {
        /// The auction.
        a: String,
        /// The line.
        line: ChatLine,
        /// When.
        at: Instant,
    },
    /// How many watch.
    Counts {
        /// The auction.
        a: String,
        /// Viewers.
        viewers: u64,
    },
    /// The edge refused something that nobody waits for.
    Problem {
        /// What is wrong.
        problem: Box<Problem>,
        /// The auction it was about.
        a: Option<String>,
        /// The id it had.
        id: Option<String>,
    },
}

/// The notices of a socket, in order. Dropping it is fine: the socket goes on without.
pub type Notices = mpsc::Receiver<Notice>;

/// What the handle asks of the task.
enum Ask {
    Join {
        a: String,
        from: Option<Position>,
    },
    Leave {
        a: String,
    },
    Bid {
        a: String,
        id: String,
        amount: u64,
        answer: oneshot::Sender<Result<Verdict, BidError>>,
    },
    Chat {
        a: String,
        id: String,
        text: String,
    },
    Reconnect,
}

/// What handle and task both see.
#[derive(Default)]
struct Shared {
    edge: EdgeClock,
    countdowns: BTreeMap<String, Countdown>,
    node: Option<u64>,
}

/// A handle on one socket. Cheap to clone; the socket closes with the last handle.
#[derive(Clone)]
pub struct Socket {
    asks: mpsc::Sender<Ask>,
    shared: Arc<Mutex<Shared>>,
    born: Instant,
}

impl Socket {
    /// Opens a socket: connects in the background, for as long as a handle lives.
    #[must_use]
    pub fn open(options: SocketOptions) -> (Socket, Notices) {
        let (asks, inbox) = mpsc::channel(options.asks_max.max(1));
        let (notices, outbox) = mpsc::channel(options.notices_max.max(1));
        let (shared, born) = (Arc::new(Mutex::new(Shared::default())), Instant::now());
        tokio::spawn(task::Task::new(options, inbox, notices, shared.clone(), born).run());
        (Socket { asks, shared, born }, outbox)
    }

    /// Follows an auction from now on, through every reconnect.
    pub async fn join(&self, auction: &str) {
        let _ = self
            .asks
            .send(Ask::Join {
                a: auction.into(),
                from: None,
            })
            .await;
    }

    /// Follows an auction from after `position`.
    pub async fn join_from(&self, auction: &str, position: Position) {
        let _ = self
            .asks
            .send(Ask::Join {
                a: auction.into(),
                from: Some(position),
            })
            .await;
    }

    /// Stops following.
    pub async fn leave(&self, auction: &str) {
        let _ = self.asks.send(Ask::Leave { a: auction.into() }).await;
    }

    /// Bids, and waits for the verdict: across reconnects, under the same id. A refusal is a verdict (`ok: false`).
    ///
    /// # Errors
    /// There is no verdict: `BidError` says why.
    pub async fn bid(&self, auction: &str, amount: u64, id: &str) -> Result<Verdict, BidError> {
        let (answer, verdict) = oneshot::channel();
        let ask = Ask::Bid {
            a: auction.into(),
            id: id.into(),
            amount,
            answer,
        };
        self.asks.send(ask).await.map_err(|_| BidError::Closed)?;
        verdict.await.unwrap_or(Err(BidError::Closed))
    }

    /// Says a line. It comes back as a `Notice::Chat` when it has its place; it is sent again after a reconnect until
    /// then, under the same id.
    pub async fn chat(&self, auction: &str, id: &str, text: &str) {
        let _ = self
            .asks
            .send(Ask::Chat {
                a: auction.into(),
                id: id.into(),
                text: text.into(),
            })
            .await;
    }

    /// Drops the connection and takes the next node: what a bad network does, on purpose.
    pub async fn reconnect(&self) {
        let _ = self.asks.send(Ask::Reconnect).await;
    }

    /// The node that this socket is connected to.
    #[must_use]
    pub fn node(&self) -> Option<u64> {
        self.shared.lock().node
    }

    /// An auction's countdown and the edge's clock to draw it with, as of now.
    #[must_use]
    pub fn countdown(&self, auction: &str) -> Option<(Countdown, EdgeClock)> {
        let shared = self.shared.lock();
        shared
            .countdowns
            .get(auction)
            .map(|countdown| (*countdown, shared.edge.clone()))
    }

    /// Our time on this socket's scale: what `Countdown::shown` wants as `t`.
    #[must_use]
    pub fn time(&self) -> f64 {
        ms(self.born, Instant::now())
    }

    /// Whether the socket gave up.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.asks.is_closed()
    }
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}
