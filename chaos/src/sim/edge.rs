//! An edge of a simulation: a machine that people's acts go out from, and answers come in to.
//!
//! It does what the product's edges do with a command: to whoever is thought to lead, then where the hints say, again and
//! again with the same id, until there is a verdict or the person's patience is over.
//!
//! Deliberately absent: caches, fan-out, limits. Those are `router`'s, and tested there.

use super::{
    mail::{Answer, Ask, Letter, Post},
    nic::MAIL_PORT,
    node,
    people::Show,
};
use auction::{AuctionId, Command, FeedItem, Position, Reply, Verdict};
use client::Dice;
use placement::ShardId;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use turmoil::net::UdpSocket;

/// One sending of one question waits so long.
const ATTEMPT: Duration = Duration::from_millis(600);
/// Between two sendings that brought nothing.
const PAUSE: Duration = Duration::from_millis(15);
/// A feed that is silent for so long is left.
const FEED_SILENCE: Duration = Duration::from_millis(1_000);

/// What an edge's socket gives out.
struct Desk {
    udp: UdpSocket,
    post: Post,
    show: Arc<Show>,
    next: RefCell<u64>,
    calls: RefCell<BTreeMap<u64, oneshot::Sender<Answer>>>,
    feeds: RefCell<BTreeMap<u64, mpsc::UnboundedSender<(u64, Option<FeedItem>)>>>,
    /// Whom each shard was last led by, as far as anyone here heard.
    leaders: RefCell<BTreeMap<ShardId, u64>>,
}

/// The way out of an edge.
#[derive(Clone)]
pub(super) struct Edge(Rc<Desk>);

impl Edge {
    /// Opens the edge's socket, on a turmoil host.
    pub(super) async fn open(post: Post, show: Arc<Show>, first: u64) -> std::io::Result<Edge> {
        let edge = Edge(Rc::new(Desk {
            udp: UdpSocket::bind(("0.0.0.0", MAIL_PORT)).await?,
            post,
            show,
            next: RefCell::new(first),
            calls: RefCell::default(),
            feeds: RefCell::default(),
            leaders: RefCell::default(),
        }));
        tokio::task::spawn_local(edge.clone().sort());
        Ok(edge)
    }

    /// Gives each letter that comes in to who waits for it.
    async fn sort(self) {
        let mut stamp = [0; 8];
        while self.0.udp.recv_from(&mut stamp).await.is_ok() {
            match self.0.post.take(stamp) {
                Some(Letter::Answer(call, answer)) => {
                    if let Some(waits) = self.0.calls.borrow_mut().remove(&call) {
                        let _ = waits.send(answer);
                    }
                }
                Some(Letter::Feed(feed, n, item)) => {
                    if let Some(viewer) = self.0.feeds.borrow().get(&feed) {
                        let _ = viewer.send((n, item));
                    }
                }
                // Whoever reads it finds its end.
                Some(Letter::Over(feed)) => drop(self.0.feeds.borrow_mut().remove(&feed)),
                Some(Letter::Ask(..)) | None => {}
            }
        }
    }

    fn number(&self) -> u64 {
        let mut next = self.0.next.borrow_mut();
        *next += 1;
        *next
    }

    async fn send(&self, node: u64, letter: Letter) {
        let stamp = self.0.post.put(letter);
        let _ = self.0.udp.send_to(&stamp, (node::name(node), MAIL_PORT)).await;
    }

    /// Asks a node; nothing: it said nothing in time.
    pub(super) async fn ask(&self, node: u64, ask: Ask, patience: Duration) -> Option<Answer> {
        let call = self.number();
        let (answer, waits) = oneshot::channel();
        self.0.calls.borrow_mut().insert(call, answer);
        self.send(node, Letter::Ask(call, ask)).await;
        let answer = tokio::time::timeout(patience, waits).await;
        self.0.calls.borrow_mut().remove(&call);
        answer.ok()?.ok()
    }

    /// Who leads a shard, as far as is known here; or anyone.
    pub(super) fn leader(&self, shard: ShardId, dice: &mut Dice) -> u64 {
        let known = self.0.leaders.borrow().get(&shard).copied();
        known.unwrap_or_else(|| self.0.show.any_node(dice))
    }

    /// A command to its verdict, within a person's patience.
    pub(super) async fn command(
        &self,
        shard: ShardId,
        command: &Command,
        patience: Duration,
        dice: &mut Dice,
    ) -> Option<Verdict> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let node = self.leader(shard, dice);
            let left = until.saturating_duration_since(Instant::now()).min(ATTEMPT);
            if dice.chance(3) {
                // The network, or an impatient edge, says it twice; only one answer is listened to.
                let echo = self.0.show.any_node(dice);
                self.send(echo, Letter::Ask(0, Ask::Submit(shard, command.clone())))
                    .await;
            }
            let answer = self.ask(node, Ask::Submit(shard, command.clone()), left).await;
            let wait = match answer {
                Some(Answer::Reply(Reply::Verdict(verdict))) => {
                    self.0.leaders.borrow_mut().insert(shard, node);
                    return Some(verdict);
                }
                Some(Answer::Reply(Reply::NotLeader { hint: Some(hint), .. })) if hint != node => {
                    self.0.leaders.borrow_mut().insert(shard, hint);
                    Duration::from_millis(1)
                }
                Some(Answer::Reply(Reply::Busy { retry_after_ms })) => {
                    Duration::from_millis(u64::from(retry_after_ms).clamp(1, 100))
                }
                Some(Answer::Reply(Reply::NotJudged | Reply::Unknown)) => PAUSE,
                _ => {
                    self.0.leaders.borrow_mut().remove(&shard);
                    PAUSE
                }
            };
            tokio::time::sleep(wait).await;
        }
        None
    }

    /// Follows an auction at a node.
    pub(super) async fn follow(&self, node: u64, shard: ShardId, auction: &AuctionId, from: Option<Position>) -> Feed {
        let number = self.number();
        let (items, rx) = mpsc::unbounded_channel();
        self.0.feeds.borrow_mut().insert(number, items);
        let ask = Ask::Follow(number, shard, auction.clone(), from);
        self.send(node, Letter::Ask(0, ask)).await;
        Feed {
            edge: self.clone(),
            node,
            number,
            rx,
            early: BTreeMap::new(),
            next: 0,
        }
    }
}

/// A feed from a node, in order.
pub(super) struct Feed {
    edge: Edge,
    node: u64,
    number: u64,
    rx: mpsc::UnboundedReceiver<(u64, Option<FeedItem>)>,
    early: BTreeMap<u64, Option<FeedItem>>,
    next: u64,
}

impl Feed {
    /// The next item; nothing: the feed is dead, or so silent that it must be.
    pub(super) async fn next(&mut self) -> Option<FeedItem> {
        let until = Instant::now() + FEED_SILENCE;
        loop {
            while let Some(item) = self.early.remove(&self.next) {
                self.next += 1;
                if item.is_some() {
                    return item;
                }
            }
            // A gap isn't life: what comes after it doesn't move the deadline.
            let (n, item) = tokio::time::timeout_at(until, self.rx.recv()).await.ok()??;
            self.early.insert(n, item);
            if n == self.next && self.early[&n].is_none() {
                self.early.remove(&n);
                self.next += 1;
                return Box::pin(self.next()).await;
            }
        }
    }

    pub(super) async fn leave(self) {
        self.edge.0.feeds.borrow_mut().remove(&self.number);
        self.edge.send(self.node, Letter::Ask(0, Ask::Leave(self.number))).await;
    }
}
