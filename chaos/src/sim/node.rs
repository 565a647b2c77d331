//! A node's process: the real `Host` behind the real tonic server, and a clerk who reads edges' mail.
//!
//! ```text
//!   other nodes <-- wires --> tonic: RaftService, MovesService --> Host
//!   edges <-- datagrams ----> clerk ---- submit, read, follow ------^
//! ```
//!
//! The clerk stands for `node`'s gRPC face: it knows nothing, retries nothing. What it adds is evidence: at a refusal
//! because an auction is closed, what the shard's clock read when the command came in (`Witness`).

use super::{
    mail::{Answer, Ask, Letter, Post},
    nic::Nic,
};
use auction::{AuctionId, Command, Limits, Reason, Reply};
use futures_util::StreamExt;
use parking_lot::Mutex;
use placement::{Node, NodeId, ReplicaId, ShardId, mover};
use raft_store::{Fresh, Host, Options, RaftOptions, ReadError, World, clock::lanes, mover::Pace, wal};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// A sign of life on each feed.
const FEED_BEAT: Duration = Duration::from_millis(300);

/// Someone was told that an auction is closed, whose command came in when the clock read `now`.
#[derive(Clone, Debug)]
pub(super) struct ToldClosed {
    pub(super) auction: AuctionId,
    pub(super) now: u64,
    pub(super) node: u64,
}

/// What a run collects beside its history.
#[derive(Default)]
pub(super) struct Witness {
    pub(super) told_closed: Mutex<Vec<ToldClosed>>,
}

/// How long a shard keeps what is over: another time in each seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// A settled auction leaves memory so long after it settled, ms.
    pub(super) cold_after_ms: u64,
    /// A refusal is remembered for so long, ms.
    pub(super) refusals_ms: u64,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            cold_after_ms: 400,
            refusals_ms: Limits::default().refusals_ms,
        }
    }
}

/// What a process is started with.
#[derive(Clone)]
pub(super) struct Start {
    pub(super) node: u64,
    /// The nodes that the cluster is born with: the first so many.
    pub(super) founders: u64,
    /// The replica by which it joined, if it is none of them.
    pub(super) joined: Option<ReplicaId>,
    pub(super) lanes: lanes::Options,
    pub(super) memory: Memory,
    pub(super) shards: u32,
    /// Elections at one look.
    pub(super) at_once: usize,
    pub(super) nic: Arc<Nic>,
    pub(super) disk: raft_store::sim::Disk,
    pub(super) post: Post,
    pub(super) witness: Arc<Witness>,
    /// Where the harness finds the host, to ask it at the end.
    pub(super) host: Arc<Mutex<Option<Host>>>,
}

/// A machine's name in the network.
pub(super) fn name(node: u64) -> String {
    format!("node-{node}")
}

/// A life of the process; its end is an error, and says why.
pub(super) async fn run(start: Start) -> String {
    let world = World::simulated(&start.disk);
    let host = match Host::open_in(options(&start), world).await {
        Ok(host) => host,
        Err(error) => return format!("can't open: {error}"),
    };
    let (accepted, mail) = start.nic.listen();
    *start.host.lock() = Some(host.clone());
    let server = tonic::transport::Server::builder()
        .add_service(host.raft_service())
        .add_service(host.moves_service())
        .serve_with_incoming(ReceiverStream::new(accepted));
    tokio::spawn(server);
    tokio::spawn(clerk(start.clone(), host.clone(), mail));
    host.failed().await
}

/// What the cluster's map says of a node.
pub(super) fn entry(id: u64) -> Node {
    Node {
        id: NodeId(id),
        zone: format!("zone-{id}"),
        region: "here".into(),
        weight: 1,
        grpc: format!("{}:{}", name(id), super::nic::RAFT_PORT),
        http: String::new(),
        trunk: String::new(),
    }
}

/// Small bounds, so that snapshots are made and laggards need them within seconds; paces as they are.
pub(super) fn raft(start: &Start) -> RaftOptions {
    RaftOptions {
        at_once: start.at_once,
        snapshot_bytes: 48 * 1024,
        snapshot_age: Duration::from_secs(6),
        keep_bytes: 12 * 1024,
        snapshot_piece: 4 * 1024,
        cold_after: Duration::from_millis(start.memory.cold_after_ms),
        ..RaftOptions::default()
    }
}

fn options(start: &Start) -> Options {
    let founders = if start.joined.is_some() { 0 } else { start.founders };
    Options {
        node: NodeId(start.node),
        dir: "/node".into(),
        shards: start.shards,
        founders: (1..=founders).map(entry).collect(),
        joined: start.joined,
        dial: start.nic.dialler(),
        lanes: start.lanes,
        limits: Limits {
            refusals_ms: start.memory.refusals_ms,
            ..Limits::default()
        },
        // Auctions last for seconds here: with real bounds none would ever be far enough from its close to be moved.
        moves: mover::Limits {
            hot_ms: 400,
            ..mover::Limits::default()
        },
        pace: Pace {
            busy: Duration::from_millis(40),
            idle: Duration::from_millis(300),
        },
        // Small, so that segments roll.
        wal: wal::Options {
            segment_bytes: 128 * 1024,
            tally_bytes: 16 * 1024,
            preallocate: false,
            reserve_segments: 0,
            low_water_bytes: 0,
            ..wal::Options::default()
        },
        raft: raft(start),
        ..Options::default()
    }
}

type Feeds = Arc<Mutex<BTreeMap<u64, CancellationToken>>>;

async fn clerk(start: Start, host: Host, mut mail: tokio::sync::mpsc::Receiver<(super::mail::Stamp, SocketAddr)>) {
    let feeds = Feeds::default();
    while let Some((stamp, from)) = mail.recv().await {
        let Some(Letter::Ask(call, ask)) = start.post.take(stamp) else {
            continue;
        };
        let (start, host, feeds) = (start.clone(), host.clone(), feeds.clone());
        tokio::spawn(async move {
            let answer = match ask {
                Ask::Submit(shard, command) => Answer::Reply(submit(&start, &host, shard, command).await),
                Ask::Read(shard, auction) => match host.read(shard, &auction, Fresh::Linear).await {
                    Ok(view) => Answer::View(Some(Box::new(view))),
                    Err(ReadError::NotFound) => Answer::NoSuch,
                    Err(_) => Answer::View(None),
                },
                Ask::Export(shard, auction, after, limit) => {
                    let events = host.events(shard, &auction, after, limit).await;
                    Answer::Events(events.ok())
                }
                Ask::Follow(feed, shard, auction, position) => {
                    if let Ok(items) = host.follow(shard, &auction, position).await {
                        let over = CancellationToken::new();
                        feeds.lock().insert(feed, over.clone());
                        feed_to(&start, feed, items, from, &over).await;
                    }
                    start.nic.send(start.post.put(Letter::Over(feed)), from);
                    return;
                }
                Ask::Steer(change) => Answer::Done(super::operator::steer(&host, *change).await),
                Ask::HandOver(shard, to) => Answer::Done(super::operator::hand_over(&host, shard, to).await),
                Ask::Leave(feed) => {
                    if let Some(over) = feeds.lock().remove(&feed) {
                        over.cancel();
                    }
                    return;
                }
            };
            start.nic.send(start.post.put(Letter::Answer(call, answer)), from);
        });
    }
}

async fn submit(start: &Start, host: &Host, shard: ShardId, command: Command) -> Reply {
    let auction = command.auction.clone();
    let reading = host.readings().into_iter().find(|reading| reading.shard == shard);
    let epoch = host.map().borrow().epoch;
    // The door is in the first poll: no time passes between the reading and the stamp.
    let reply = host.submit(shard, epoch, command).await;
    if let (Reply::Verdict(verdict), Some(reading)) = (&reply, reading)
        && verdict.outcome == Err(Reason::Closed)
        && !verdict.dup
    {
        start.witness.told_closed.lock().push(ToldClosed {
            auction,
            now: reading.now.0,
            node: start.node,
        });
    }
    reply
}

async fn feed_to(
    start: &Start,
    feed: u64,
    mut items: futures_util::stream::BoxStream<'static, auction::FeedItem>,
    to: SocketAddr,
    over: &CancellationToken,
) {
    let mut beat = tokio::time::interval(FEED_BEAT);
    for n in 0.. {
        let item = tokio::select! {
            biased;
            () = over.cancelled() => return,
            item = items.next() => match item {
                Some(item) => Some(item),
                None => return,
            },
            _ = beat.tick() => None,
        };
        start.nic.send(start.post.put(Letter::Feed(feed, n, item)), to);
    }
}
