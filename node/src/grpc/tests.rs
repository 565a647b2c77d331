//! Two ends over a real socket, with a scripted node behind the server: what the wire does to answers, bounds and breaks.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::local::{Local, Reading};
use super::{Clocks, Limits, Peers, ShardsService};
use async_trait::async_trait;
use auction::{
    Action, Actor, AuctionId, AuctionView, Command, Event, FeedItem, Id, Office, Phase, Position, Reason, Reply,
    Rights, Stamp, Verdict,
};
use futures_util::stream::{BoxStream, StreamExt as _};
use placement::{ClusterMap, Node, NodeId, ShardId};
use proto::shard::v1::shards_server::ShardsServer;
use router::ports::{Freshness, PortError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_stream::wrappers::TcpListenerStream;

const OTHER: NodeId = NodeId(2);

/// Answers by the auction's name: `ok`, `low`, `leader` (not me), `slow` (when `gate` opens), `gone` (no such auction).
struct Scripted {
    gate: Semaphore,
    /// Its clock goes from 7,000 since then.
    began: Instant,
    rests: AtomicBool,
    woken: watch::Sender<u64>,
}

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn command(auction: &str) -> Command {
    let actor = Actor {
        id: id("lee"),
        rights: Rights::BIDDER,
    };
    Command {
        auction: id(auction),
        actor,
        id: Some(id("k1")),
        first_sent: None,
        action: Action::Bid { amount: 900 },
    }
}

fn verdict(outcome: Result<(), Reason>) -> Verdict {
    Verdict {
        outcome,
        seq: 3,
        price: 700,
        least: 800,
        leader: Some(id("kim")),
        phase: Phase::Live,
        ct: Stamp(5_000),
        ends_at: Some(Stamp(9_000)),
        hash: [7; 32],
        dup: false,
    }
}

#[async_trait]
impl Local for Scripted {
    fn settled(&self, _: ShardId, _: &Command) -> Option<Verdict> {
        None
    }

    fn wanted(&self, _: ShardId) {}

    async fn submit(&self, _shard: ShardId, epoch: u64, command: Command) -> Reply {
        match command.auction.as_str() {
            "ok" => Reply::Verdict(verdict(Ok(()))),
            "low" => Reply::Verdict(verdict(Err(Reason::Low))),
            "leader" => Reply::NotLeader { hint: Some(3), term: 9 },
            "old" => Reply::WrongEpoch { epoch: epoch + 1 },
            "busy" => Reply::Busy { retry_after_ms: 40 },
            "full" => Reply::NoRoom { retry_after_ms: 1_000 },
            "slow" => {
                self.gate.acquire().await.unwrap().forget();
                Reply::NotJudged
            }
            _ => Reply::Unknown,
        }
    }
    async fn read(&self, _shard: ShardId, auction: &AuctionId, _fresh: Freshness) -> Result<AuctionView, PortError> {
        match auction.as_str() {
            "leader" => Err(PortError::NotLeader { hint: Some(NodeId(3)) }),
            _ => Err(PortError::NotFound),
        }
    }
    async fn list(&self, _shard: ShardId) -> Result<Vec<AuctionView>, PortError> {
        Ok(Vec::new())
    }
    fn over(&self, _: ShardId, after: Option<&AuctionId>, limit: usize) -> Result<Vec<AuctionId>, PortError> {
        let all = ["a", "b", "c"].map(id).into_iter();
        Ok(all
            .filter(|id| after.is_none_or(|after| id > after))
            .take(limit)
            .collect())
    }
    async fn events(&self, _: ShardId, _: &AuctionId, after: u64, limit: usize) -> Result<Vec<Arc<Event>>, PortError> {
        let all = (1..=10).map(|seq| Arc::new(event(seq)));
        Ok(all.filter(|e| e.seq > after).take(limit).collect())
    }
    async fn follow(
        &self,
        _shard: ShardId,
        _auction: &AuctionId,
        from: Option<Position>,
    ) -> Result<BoxStream<'static, FeedItem>, PortError> {
        let from = from.map_or(0, |p| p.offset);
        let items = (from + 1..=5).map(|seq| FeedItem::Event(Arc::new(event(seq))));
        Ok(futures_util::stream::iter(items).boxed())
    }
    fn readings(&self) -> Vec<Reading> {
        let office = Office { term: 4, turn: 1 };
        vec![Reading {
            shard: ShardId(1),
            office,
            now: Stamp(7_000 + self.began.elapsed().as_millis() as u64),
            top: Stamp(6_990),
            timers: true,
            drains: 400,
        }]
    }
    fn at_rest(&self) -> Option<watch::Receiver<u64>> {
        let woken = self.woken.subscribe();
        self.rests.load(Ordering::SeqCst).then_some(woken)
    }
}

fn event(seq: u64) -> Event {
    Event {
        auction: id("ok"),
        seq,
        ct: Stamp(seq),
        ends_at: Stamp(99),
        actor: None,
        id: None,
        price: 1,
        leader: None,
        kind: auction::EventKind::Raise,
        hash: [1; 32],
    }
}

/// A node behind a real socket, and the peers of another that knows it.
struct Pair {
    peers: Arc<Peers>,
    clocks: Arc<Clocks>,
    node: Arc<Scripted>,
    /// A runtime of its own, so that ending it ends every connection, as the end of a process does.
    server: Option<Runtime>,
    _map: watch::Sender<Arc<ClusterMap>>,
}

async fn pair(in_flight: usize) -> Pair {
    let limits = Limits {
        deadline: Duration::from_secs(20),
        message_max: 1 << 20,
        in_flight,
        hold: Duration::from_millis(200),
    };
    let node = Arc::new(Scripted {
        gate: Semaphore::new(0),
        began: Instant::now(),
        rests: AtomicBool::new(false),
        woken: watch::Sender::new(0),
    });
    let server = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let service = ShardsServer::new(ShardsService::new(node.clone(), limits));
    let (told, address) = oneshot::channel();
    server.spawn(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        told.send(listener.local_addr().unwrap()).unwrap();
        let server = tonic::transport::Server::builder().add_service(service);
        server
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    let grpc = address.await.unwrap().to_string();
    let other = Node {
        id: OTHER,
        zone: "b".into(),
        region: "x".into(),
        weight: 1,
        grpc,
        http: String::new(),
        trunk: String::new(),
    };
    let map = ClusterMap {
        nodes: [(OTHER, other)].into(),
        ..ClusterMap::default()
    };
    let (sender, map) = watch::channel(Arc::new(map));
    let clocks = Arc::new(Clocks::new(limits.hold));
    let peers = Peers::start(NodeId(1), limits, raft_store::Dial::default(), clocks.clone(), map);
    Pair {
        peers,
        clocks,
        node,
        server: Some(server),
        _map: sender,
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.die();
    }
}

impl Pair {
    fn die(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }

    async fn submit(&self, auction: &str) -> Reply {
        self.peers
            .get(OTHER)
            .unwrap()
            .submit(ShardId(1), 5, &command(auction))
            .await
    }
}

#[tokio::test]
async fn each_answer_comes_back_as_it_was_given() {
    let pair = pair(64).await;
    let table = [
        ("ok", Reply::Verdict(verdict(Ok(())))),
        ("low", Reply::Verdict(verdict(Err(Reason::Low)))),
        ("leader", Reply::NotLeader { hint: Some(3), term: 9 }),
        ("old", Reply::WrongEpoch { epoch: 6 }),
        ("busy", Reply::Busy { retry_after_ms: 40 }),
        ("full", Reply::NoRoom { retry_after_ms: 1_000 }),
        ("other", Reply::Unknown),
    ];
    for (auction, expect) in table {
        assert_eq!(pair.submit(auction).await, expect, "{auction}");
    }
}

#[tokio::test]
async fn a_slow_command_holds_back_no_other_and_the_bound_says_busy() {
    let pair = pair(4).await;
    let slow = futures_util::future::join_all((0..4).map(|_| pair.submit("slow")));
    tokio::pin!(slow);
    // All four are on their way; the fifth finds no room, at one end or the other.
    assert!(futures_util::poll!(&mut slow).is_pending());
    loop {
        assert!(futures_util::poll!(&mut slow).is_pending());
        match pair.submit("ok").await {
            Reply::Busy { .. } => break,
            Reply::Verdict(_) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
    pair.node.gate.add_permits(4);
    assert!(slow.await.iter().all(|r| *r == Reply::NotJudged));
    assert!(matches!(pair.submit("ok").await, Reply::Verdict(_)));
}

#[tokio::test]
async fn a_broken_stream_leaves_outcomes_unknown() {
    let mut pair = pair(64).await;
    assert!(matches!(pair.submit("ok").await, Reply::Verdict(_)));
    let peer = pair.peers.get(OTHER).unwrap();
    let slow = command("slow");
    let slow = peer.submit(ShardId(1), 5, &slow);
    tokio::pin!(slow);
    assert!(futures_util::poll!(&mut slow).is_pending());
    pair.die();
    assert_eq!(slow.await, Reply::Unknown);
    assert_eq!(pair.submit("ok").await, Reply::Unknown);
}

#[tokio::test]
async fn reads_feeds_and_refusals_cross_the_wire() {
    let pair = pair(64).await;
    let peer = pair.peers.get(OTHER).unwrap();
    let read = |auction: &'static str| {
        let peer = peer.clone();
        async move { peer.read(ShardId(1), &id(auction), Freshness::Linear).await }
    };
    assert!(matches!(
        read("leader").await,
        Err(PortError::NotLeader { hint: Some(NodeId(3)) })
    ));
    assert!(matches!(read("none").await, Err(PortError::NotFound)));
    let over = peer.over(ShardId(1), Some(&id("a")), 1).await.unwrap();
    assert_eq!(over, [id("b")]);
    let events = peer.events(ShardId(1), &id("ok"), 4, 3).await.unwrap();
    assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [5, 6, 7]);
    let from = Some(Position { epoch: 1, offset: 2 });
    let feed = peer.follow(ShardId(1), &id("ok"), from).await.unwrap();
    assert_eq!(feed.count().await, 3);
    assert!(matches!(pair.peers.get(NodeId(9)), Err(PortError::Unreachable(9))));
}

#[tokio::test]
async fn clocks_are_heard_by_pings() {
    let pair = pair(64).await;
    let estimate = loop {
        match pair.clocks.read(ShardId(1), pair.clocks.mono()) {
            Some(estimate) => break estimate,
            None => tokio::task::yield_now().await,
        }
    };
    assert!(estimate.now >= Stamp(7_000));
    assert_eq!(pair.clocks.leader(ShardId(1), pair.clocks.mono()), Some((OTHER, 4)));
    assert!(pair.peers.alive(OTHER) && pair.peers.alive(NodeId(1)) && !pair.peers.alive(NodeId(9)));
}

/// A node on which all shards rest holds its answers back: no clock is read there, and it counts as alive all the same.
#[tokio::test]
async fn a_node_at_rest_is_heard_again_when_it_wakes() {
    let pair = pair(64).await;
    let held = || {
        let estimate = pair.clocks.read(ShardId(1), pair.clocks.mono());
        estimate.is_none_or(|estimate| estimate.held)
    };
    let until = async |wanted: bool| {
        while held() != wanted {
            tokio::task::yield_now().await;
        }
    };
    until(false).await;
    for _ in 0..3 {
        pair.node.rests.store(true, Ordering::SeqCst);
        until(true).await;
        assert!(pair.peers.alive(OTHER));
        pair.node.rests.store(false, Ordering::SeqCst);
        pair.node.woken.send_modify(|count| *count += 1);
        until(false).await;
    }
}

/// However long a node at rest may be silent: once its connection is broken and stays so, it doesn't count as alive.
#[tokio::test]
async fn a_node_at_rest_that_dies_is_not_alive() {
    let mut pair = pair(64).await;
    pair.node.rests.store(true, Ordering::SeqCst);
    while !pair.peers.alive(OTHER) {
        tokio::task::yield_now().await;
    }
    pair.die();
    while pair.peers.alive(OTHER) {
        tokio::task::yield_now().await;
    }
}
