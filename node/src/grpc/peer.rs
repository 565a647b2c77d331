//! Other nodes, as this one reaches them: one lazily connected channel each, found by id through the cluster map.

use super::link::Link;
use super::{Clocks, LEADER, Limits, PING, REST, frames};
use crate::metrics;
use auction::{AuctionId, AuctionView, Command, Event, FeedItem, Position, Reply};
use futures_util::stream::{BoxStream, StreamExt as _};
use parking_lot::{Mutex, RwLock};
use placement::{ClusterMap, Node, NodeId, ShardId};
use proto::cluster::v1::admin_client::AdminClient;
use proto::cluster::v1::cluster_client::ClusterClient;
use proto::cluster::v1::{StatusReply, StatusRequest, StopRequest};
use proto::shard::v1::{self as pb, chats_client::ChatsClient, shards_client::ShardsClient};
use raft_store::{Dial, codec::Wire as _};
use router::ports::{ChatLine, Freshness, PortError};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long connecting may take: a loopback or a data centre answers in a fraction of it.
const CONNECT: Duration = Duration::from_millis(500);
/// Silence on a connection is tested this often, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// HTTP/2 windows: a feed that lags must not stall the commands beside it.
const WINDOW: u32 = 1 << 20;
/// Largest answer to 'all auctions of a shard'.
const LIST_MAX: usize = 64 << 20;

/// One other node.
#[derive(Clone)]
pub(crate) struct Peer {
    node: NodeId,
    address: String,
    channel: Channel,
    link: Link,
    limits: Limits,
    /// Until when it counts as alive by what was heard of it, in µs of our monotonic clock.
    alive_until: Arc<AtomicU64>,
}

impl Peer {
    fn new(node: &Node, limits: Limits, dial: &Dial) -> Option<Peer> {
        let endpoint = Endpoint::from_shared(format!("http://{}", node.grpc))
            .inspect_err(|error| tracing::error!(node = node.id.0, %error, "a node's gRPC address can't be used"))
            .ok()?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .initial_connection_window_size(WINDOW * 4)
            .initial_stream_window_size(WINDOW)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = dial.channel(node.id, &endpoint);
        let link = Link::spawn(channel.clone(), limits);
        Some(Peer {
            node: node.id,
            address: node.grpc.clone(),
            channel,
            link,
            limits,
            alive_until: Arc::default(),
        })
    }

    fn shards(&self) -> ShardsClient<Channel> {
        ShardsClient::new(self.channel.clone()).max_decoding_message_size(self.limits.message_max)
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.limits.deadline);
        request
    }

    fn failed(&self, status: &Status) -> PortError {
        match status.code() {
            Code::NotFound => PortError::NotFound,
            Code::FailedPrecondition => {
                let hint = status
                    .metadata()
                    .get(LEADER)
                    .and_then(|v| v.to_str().ok())
                    .and_then(|v| v.parse().ok());
                PortError::NotLeader { hint: hint.map(NodeId) }
            }
            Code::InvalidArgument | Code::ResourceExhausted | Code::PermissionDenied => {
                PortError::Refused(status.message().to_string())
            }
            _ => PortError::Unreachable(self.node.0),
        }
    }

    fn garbled<T>(&self, error: T) -> PortError
    where
        T: std::fmt::Display,
    {
        tracing::error!(node = self.node.0, %error, "a peer's answer can't be read");
        PortError::Unreachable(self.node.0)
    }

    /// A command, answered or `Unknown` by the deadline.
    pub(crate) async fn submit(&self, shard: ShardId, epoch: u64, command: &Command) -> Reply {
        let answer = self.link.submit(shard, epoch, command);
        tokio::time::timeout(self.limits.deadline, answer)
            .await
            .unwrap_or(Reply::Unknown)
    }

    /// One auction.
    pub(crate) async fn read(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        fresh: Freshness,
    ) -> Result<AuctionView, PortError> {
        let fresh = Some(match fresh {
            Freshness::Linear => pb::read_request::Fresh::Linear(true),
            Freshness::AtLeast(seq) => pb::read_request::Fresh::AtLeast(seq),
        });
        let request = self.ask(pb::ReadRequest {
            shard: shard.0,
            auction: auction.into(),
            fresh,
        });
        let reply = self.shards().read(request).await.map_err(|s| self.failed(&s))?;
        frames::view_from(reply.into_inner().view).map_err(|e| self.garbled(e))
    }

    /// All auctions of a shard.
    pub(crate) async fn list(&self, shard: ShardId) -> Result<Vec<AuctionView>, PortError> {
        let request = self.ask(pb::ListRequest { shard: shard.0 });
        let mut client = ShardsClient::new(self.channel.clone()).max_decoding_message_size(LIST_MAX);
        let reply = client.list(request).await.map_err(|s| self.failed(&s))?;
        let views = reply.into_inner().views.into_iter().map(AuctionView::from_proto);
        views.collect::<Result<_, _>>().map_err(|e| self.garbled(e))
    }

    /// The ids of a shard's auctions that are over, after one, in order.
    pub(crate) async fn over(
        &self,
        shard: ShardId,
        after: Option<&AuctionId>,
        limit: usize,
    ) -> Result<Vec<AuctionId>, PortError> {
        let request = self.ask(pb::OverRequest {
            shard: shard.0,
            after: after.map_or_else(String::new, Into::into),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        });
        let reply = self.shards().over(request).await.map_err(|s| self.failed(&s))?;
        let ids = reply.into_inner().auctions.into_iter();
        let ids = ids.map(|text| AuctionId::parse(&text).ok_or_else(|| self.garbled("no id")));
        ids.collect()
    }

    /// Events after `after`.
    pub(crate) async fn events(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, PortError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let request = self.ask(pb::EventsRequest {
            shard: shard.0,
            auction: auction.into(),
            after,
            limit,
        });
        let reply = self.shards().events(request).await.map_err(|s| self.failed(&s))?;
        let events = reply
            .into_inner()
            .events
            .into_iter()
            .map(|e| Event::from_proto(e).map(Arc::new));
        events.collect::<Result<_, _>>().map_err(|e| self.garbled(e))
    }

    /// A feed. It ends when the node goes, or says something that can't be read.
    pub(crate) async fn follow(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        from: Option<Position>,
    ) -> Result<BoxStream<'static, FeedItem>, PortError> {
        let from = from.map(|p| pb::Position {
            epoch: p.epoch,
            offset: p.offset,
        });
        let request = pb::FollowRequest {
            shard: shard.0,
            auction: auction.into(),
            from,
        };
        let mut client = self.shards();
        let opening = tokio::time::timeout(self.limits.deadline, client.follow(request));
        let stream = opening
            .await
            .map_err(|_| PortError::Unreachable(self.node.0))?
            .map_err(|s| self.failed(&s))?;
        let items = stream.into_inner().map(|item| frames::item_from(item.ok()?).ok());
        Ok(items
            .take_while(|i| std::future::ready(i.is_some()))
            .filter_map(std::future::ready)
            .boxed())
    }

    /// Says a line of chat.
    pub(crate) async fn say(&self, shard: ShardId, auction: &AuctionId, line: ChatLine) -> Result<ChatLine, PortError> {
        let line = Some(frames::line_to(line));
        let request = self.ask(pb::SayRequest {
            shard: shard.0,
            auction: auction.into(),
            line,
        });
        let reply = ChatsClient::new(self.channel.clone())
            .say(request)
            .await
            .map_err(|s| self.failed(&s))?;
        frames::line_from(reply.into_inner()).map_err(|e| self.garbled(e))
    }

    /// Follows a chat.
    pub(crate) async fn follow_chat(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        after: Option<(u64, u64)>,
    ) -> Result<BoxStream<'static, ChatLine>, PortError> {
        let (chat_epoch, cseq) = after.unwrap_or_default();
        let auction = auction.into();
        let request = pb::ChatFollowRequest {
            shard: shard.0,
            auction,
            resume: after.is_some(),
            chat_epoch,
            cseq,
        };
        let mut client = ChatsClient::new(self.channel.clone());
        let opening = tokio::time::timeout(self.limits.deadline, client.follow(request));
        let stream = opening
            .await
            .map_err(|_| PortError::Unreachable(self.node.0))?
            .map_err(|s| self.failed(&s))?;
        let lines = stream.into_inner().map(|line| frames::line_from(line.ok()?).ok());
        Ok(lines
            .take_while(|l| std::future::ready(l.is_some()))
            .filter_map(std::future::ready)
            .boxed())
    }

    /// The node's own view of itself.
    pub(crate) async fn status(&self) -> Result<StatusReply, PortError> {
        let request = self.ask(StatusRequest {});
        let reply = ClusterClient::new(self.channel.clone())
            .status(request)
            .await
            .map_err(|s| self.failed(&s))?;
        Ok(reply.into_inner())
    }

    /// The cluster by that node's own word.
    pub(crate) async fn overview(&self) -> Result<crate::admin::Overview, PortError> {
        let request = self.ask(proto::cluster::v1::OverviewRequest { own: true });
        let reply = AdminClient::new(self.channel.clone()).overview(request).await;
        let reply = reply.map_err(|s| self.failed(&s))?.into_inner();
        crate::admin::overview_from(reply).map_err(|e| self.garbled(e))
    }

    /// Demo: the node's process dies.
    pub(crate) async fn stop(&self) -> Result<(), PortError> {
        let request = self.ask(StopRequest { node: self.node.0 });
        ClusterClient::new(self.channel.clone())
            .stop(request)
            .await
            .map_err(|s| self.failed(&s))?;
        Ok(())
    }

    /// Pings for clocks until the connection breaks.
    async fn ping(&self, clocks: &Clocks) -> Result<(), Status> {
        let (out, pings) = tokio::sync::mpsc::channel(1);
        out.try_send(pb::Ping { n: 0 }).map_err(|_| Status::internal("full"))?;
        let mut sent = clocks.mono();
        let mut client = self.shards();
        let opening = tokio::time::timeout(self.limits.deadline, client.readings(ReceiverStream::new(pings)));
        let mut pongs = opening
            .await
            .map_err(|_| Status::deadline_exceeded("opening"))??
            .into_inner();
        let mut n = 0;
        loop {
            let answer = tokio::time::timeout(self.limits.deadline, pongs.message());
            let pong = answer.await.map_err(|_| Status::deadline_exceeded("pong"))??;
            let Some(pong) = pong else { return Ok(()) };
            let received = clocks.mono();
            if pong.n == n {
                let readings: Vec<_> = pong.readings.iter().map(frames::reading_from).collect();
                clocks.heard(self.node, &readings, sent, received);
                // One at rest is heard of that much more seldom.
                let next = if readings.is_empty() { REST } else { PING };
                let patience = (CONNECT + PING + next).as_micros() as u64;
                self.alive_until.store(received + patience, Ordering::Relaxed);
                if !readings.is_empty() {
                    metrics::round_trip(received - sent);
                }
            }
            // A node at rest holds its answer back: asked again at once, it says the first reading when it wakes.
            if Duration::from_micros(received - sent) < PING {
                tokio::time::sleep(PING).await;
            }
            n += 1;
            sent = clocks.mono();
            if out.send(pb::Ping { n }).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// All other nodes.
pub(crate) struct Peers {
    me: NodeId,
    limits: Limits,
    dial: Dial,
    clocks: Arc<Clocks>,
    peers: RwLock<HashMap<NodeId, (Peer, tokio::task::AbortHandle)>>,
    map: watch::Receiver<Arc<ClusterMap>>,
    // Serializes changes, so that two callers don't open two channels to one node.
    changing: Mutex<()>,
}

impl Peers {
    /// The nodes of the map but `me`, followed as the map changes.
    pub(crate) fn start(
        me: NodeId,
        limits: Limits,
        dial: Dial,
        clocks: Arc<Clocks>,
        mut map: watch::Receiver<Arc<ClusterMap>>,
    ) -> Arc<Peers> {
        let peers = Arc::new(Peers {
            me,
            limits,
            dial,
            clocks,
            peers: RwLock::default(),
            map: map.clone(),
            changing: Mutex::default(),
        });
        let keeper = Arc::downgrade(&peers);
        tokio::spawn(async move {
            loop {
                let newest = map.borrow_and_update().clone();
                let Some(peers) = keeper.upgrade() else { return };
                peers.adopt(&newest);
                drop(peers);
                if map.changed().await.is_err() {
                    return;
                }
            }
        });
        peers
    }

    fn adopt(&self, map: &ClusterMap) {
        let _one = self.changing.lock();
        let gone = |id: &NodeId, peer: &Peer| map.nodes.get(id).is_none_or(|n| n.grpc != peer.address);
        self.peers.write().retain(|id, (peer, pinger)| {
            let gone = gone(id, peer);
            if gone {
                pinger.abort();
            }
            !gone
        });
        for node in map.nodes.values().filter(|n| n.id != self.me) {
            if self.peers.read().contains_key(&node.id) {
                continue;
            }
            let Some(peer) = Peer::new(node, self.limits, &self.dial) else {
                continue;
            };
            let pinger = tokio::spawn(keep_pinging(peer.clone(), self.clocks.clone())).abort_handle();
            self.peers.write().insert(node.id, (peer, pinger));
        }
    }

    /// A node by id.
    pub(crate) fn get(&self, node: NodeId) -> Result<Peer, PortError> {
        if let Some((peer, _)) = self.peers.read().get(&node) {
            return Ok(peer.clone());
        }
        // A caller may have seen a newer map than our keeper has adopted yet.
        let map = self.map.borrow().clone();
        self.adopt(&map);
        self.peers
            .read()
            .get(&node)
            .map(|(peer, _)| peer.clone())
            .ok_or(PortError::Unreachable(node.0))
    }

    /// Whether a node answered a ping lately.
    pub(crate) fn alive(&self, node: NodeId) -> bool {
        let now = self.clocks.mono();
        let until = self
            .peers
            .read()
            .get(&node)
            .map(|(peer, _)| peer.alive_until.load(Ordering::Relaxed));
        node == self.me || until.is_some_and(|until| now <= until)
    }
}

async fn keep_pinging(peer: Peer, clocks: Arc<Clocks>) {
    loop {
        if let Err(error) = peer.ping(&clocks).await {
            tracing::debug!(node = peer.node.0, %error, "no clock readings from a node");
        }
        // A broken connection may be mended at once; if not, it isn't alive, however long it might have been silent.
        let soon = clocks.mono() + CONNECT.as_micros() as u64;
        peer.alive_until.fetch_min(soon, Ordering::Relaxed);
        tokio::time::sleep(PING).await;
    }
}
