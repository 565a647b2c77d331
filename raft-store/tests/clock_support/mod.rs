//! A shard's log in memory, for tests of the proposer and the feed: one replica, a latency, and switches for faults.
//!
//! Time is tokio's paused clock, so nothing here waits for real.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use auction::{
    Action, Actor, Applied, AuctionId, Command, Currency, Definition, Id, Limits, Money, Rights, Terms, TimeRule, Wall,
};
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use placement::{NodeId, ShardId};
use raft_store::{
    Leadership, Log, ProposeError, State,
    clock::{
        office::Options,
        proposer::{Proposer, ProposerHandle},
        time::Time,
    },
    feed::Feed,
    types::Payload,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

type Proposal = (u64, Payload, oneshot::Sender<Result<Arc<Applied>, ProposeError>>);

/// What the log does with the next proposal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It is not logged, and the proposer is told so.
    Reject,
    /// It is logged, but the proposer is told nothing certain.
    Forget,
    /// It is neither logged nor answered, and nothing after it is.
    Stall,
}

/// One replica that leads as long as it is told so.
pub(crate) struct FakeLog {
    state: RwLock<State>,
    leadership: watch::Sender<Leadership>,
    queue: mpsc::UnboundedSender<Proposal>,
    /// Events, as the state machine would publish them.
    pub(crate) feed: Feed,
    /// Used up by the next entry that carries commands.
    pub(crate) fault: Mutex<Option<Fault>>,
    /// Proposals seen.
    pub(crate) proposals: AtomicU64,
    /// Unix ms, as the proposer is told.
    pub(crate) wall: AtomicU64,
    /// What was declared of wall time.
    pub(crate) walls: Mutex<Vec<Wall>>,
    /// When `top` was heard of; `None`: this moment.
    pub(crate) heard: Mutex<Option<Instant>>,
}

impl FakeLog {
    pub(crate) fn new(latency: Duration) -> Arc<Self> {
        let (queue, mut proposals) = mpsc::unbounded_channel::<Proposal>();
        let log = Arc::new(Self {
            state: RwLock::new(State::new(Limits::default())),
            leadership: watch::Sender::new(leads(1)),
            queue,
            feed: Feed::new(1),
            fault: Mutex::new(None),
            proposals: AtomicU64::new(0),
            wall: AtomicU64::new(1_000_000),
            walls: Mutex::default(),
            heard: Mutex::new(None),
        });
        let weak = Arc::downgrade(&log);
        tokio::spawn(async move {
            let mut stalled = Vec::new();
            while let Some((term, payload, told)) = proposals.recv().await {
                tokio::time::sleep(latency).await;
                let Some(log) = weak.upgrade() else { return };
                match log.commit(term, &payload) {
                    Some(result) => drop(told.send(result)),
                    None => stalled.push(told),
                }
            }
        });
        log
    }

    fn commit(&self, term: u64, payload: &Payload) -> Option<Result<Arc<Applied>, ProposeError>> {
        let now = *self.leadership.borrow();
        if !now.leading || now.term != term {
            return Some(Err(ProposeError::NotLeader {
                hint: now.leader,
                term: now.term,
            }));
        }
        let Payload::Entry { entry, .. } = payload else {
            panic!("no meta commands here")
        };
        let fault = if entry.commands.is_empty() {
            None
        } else {
            self.fault.lock().take()
        };
        match fault {
            Some(Fault::Reject) => return Some(Err(ProposeError::NotLeader { hint: None, term })),
            Some(Fault::Stall) => {
                *self.fault.lock() = Some(Fault::Stall);
                return None;
            }
            Some(Fault::Forget) | None => {}
        }
        let mut state = self.state.write();
        let applied = state.shard.apply(entry);
        if let Applied::Done(done) = &applied {
            self.feed.publish(done, &state.shard);
        }
        Some(if fault.is_some() {
            Err(ProposeError::Unknown)
        } else {
            Ok(Arc::new(applied))
        })
    }

    /// Another term, perhaps another leader.
    pub(crate) fn lead(&self, leadership: Leadership) {
        self.leadership.send_replace(leadership);
    }

    pub(crate) fn proposer(self: &Arc<Self>) -> ProposerHandle {
        self.proposer_with(Options::default())
    }

    pub(crate) fn proposer_with(self: &Arc<Self>, options: Options) -> ProposerHandle {
        let wall = self.clone();
        let wall = Arc::new(move || Wall {
            ms: wall.wall.load(Ordering::Relaxed),
            error_ms: 3,
        });
        Proposer::spawn(ShardId(1), self.clone(), options, Time::default(), wall)
    }

    pub(crate) fn proposed(&self) -> u64 {
        self.proposals.load(Ordering::Relaxed)
    }
}

impl Log for FakeLog {
    fn propose(&self, term: u64, payload: Payload) -> BoxFuture<'static, Result<Arc<Applied>, ProposeError>> {
        self.proposals.fetch_add(1, Ordering::Relaxed);
        if let Payload::Entry { entry, .. } = &payload {
            self.walls.lock().extend(entry.wall);
        }
        let (told, result) = oneshot::channel();
        let sent = self.queue.send((term, payload, told));
        Box::pin(async move {
            sent.map_err(|_| ProposeError::Unknown)?;
            result.await.unwrap_or(Err(ProposeError::Unknown))
        })
    }

    fn state(&self) -> &RwLock<State> {
        &self.state
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn heard_top(&self) -> Instant {
        self.heard.lock().unwrap_or_else(Instant::now)
    }
}

/// This replica leads in `term`.
pub(crate) fn leads(term: u64) -> Leadership {
    Leadership {
        term,
        leading: true,
        leader: Some(NodeId(1)),
    }
}

/// Node 2 leads in `term`.
pub(crate) fn follows(term: u64) -> Leadership {
    Leadership {
        term,
        leading: false,
        leader: Some(NodeId(2)),
    }
}

pub(crate) fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

/// Terms without surprises: 10 s, increments of 1, bids don't move the end.
pub(crate) fn definition(duration_ms: u64) -> Definition {
    let terms = Terms {
        currency: Currency::parse("KRW").unwrap(),
        start_price: 100,
        increments: vec![(0, 1)],
        reserve: None,
        duration_ms,
        time: TimeRule::default(),
        guests: false,
        pause_without_stream: false,
    };
    Definition {
        seller: id("sel"),
        title: "a lamp".into(),
        description: String::new(),
        terms,
    }
}

/// A command of the seller.
pub(crate) fn seller(auction: &AuctionId, command: &str, action: Action) -> Command {
    let actor = Actor {
        id: id("sel"),
        rights: Rights::MEMBER.and(Rights::SELLER),
    };
    Command {
        auction: auction.clone(),
        actor,
        id: Some(id(command)),
        first_sent: None,
        action,
    }
}

/// A bid.
pub(crate) fn bid(auction: &AuctionId, who: &str, command: &str, amount: Money) -> Command {
    let actor = Actor {
        id: id(who),
        rights: Rights::MEMBER.and(Rights::BIDDER),
    };
    Command {
        auction: auction.clone(),
        actor,
        id: Some(id(command)),
        first_sent: None,
        action: Action::Bid { amount },
    }
}
