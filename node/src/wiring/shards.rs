//! The edge's `Shards`: this node's own replicas in process, others over gRPC.

use super::Roles;
use crate::grpc::{Clocks, Local, Peers};
use async_trait::async_trait;
use auction::{AuctionId, AuctionView, Command, Event, FeedItem, Position, Reply, Verdict};
use futures_util::stream::BoxStream;
use placement::{NodeId, ShardId};
use router::ports::{ClockEstimate, Freshness, PortError, Shards};
use std::sync::Arc;
use tokio::sync::watch;

/// All shards, as reached from this node.
#[derive(Clone)]
pub(crate) struct ShardPort {
    /// This node.
    pub(crate) me: NodeId,
    /// Its own shards.
    pub(crate) local: Arc<dyn Local>,
    /// The other nodes.
    pub(crate) peers: Arc<Peers>,
    /// Leaders' clocks, followed.
    pub(crate) clocks: Arc<Clocks>,
    /// Who leads, by this node's replicas.
    pub(crate) roles: Roles,
}

#[async_trait]
impl Shards for ShardPort {
    async fn submit(&self, node: NodeId, shard: ShardId, epoch: u64, command: Command) -> Reply {
        if node == self.me {
            return self.local.submit(shard, epoch, command).await;
        }
        self.local.wanted(shard);
        match self.peers.get(node) {
            Ok(peer) => peer.submit(shard, epoch, &command).await,
            Err(_) => Reply::Unknown,
        }
    }

    fn settled(&self, shard: ShardId, command: &Command) -> Option<Verdict> {
        self.local.settled(shard, command)
    }

    fn drains(&self, shard: ShardId) -> Option<u32> {
        self.clocks.drains(shard)
    }

    async fn read(
        &self,
        node: NodeId,
        shard: ShardId,
        auction: &AuctionId,
        fresh: Freshness,
    ) -> Result<AuctionView, PortError> {
        if node == self.me {
            return self.local.read(shard, auction, fresh).await;
        }
        self.peers.get(node)?.read(shard, auction, fresh).await
    }

    async fn list(&self, node: NodeId, shard: ShardId) -> Result<Vec<AuctionView>, PortError> {
        if node == self.me {
            return self.local.list(shard).await;
        }
        self.peers.get(node)?.list(shard).await
    }

    async fn over(
        &self,
        node: NodeId,
        shard: ShardId,
        after: Option<&AuctionId>,
        limit: usize,
    ) -> Result<Vec<AuctionId>, PortError> {
        if node == self.me {
            return self.local.over(shard, after, limit);
        }
        self.peers.get(node)?.over(shard, after, limit).await
    }

    async fn follow(
        &self,
        node: NodeId,
        shard: ShardId,
        auction: &AuctionId,
        from: Option<Position>,
    ) -> Result<BoxStream<'static, FeedItem>, PortError> {
        if node == self.me {
            return self.local.follow(shard, auction, from).await;
        }
        self.peers.get(node)?.follow(shard, auction, from).await
    }

    async fn events(
        &self,
        node: NodeId,
        shard: ShardId,
        auction: &AuctionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, PortError> {
        if node == self.me {
            return self.local.events(shard, auction, after, limit).await;
        }
        self.peers.get(node)?.events(shard, auction, after, limit).await
    }

    fn clock(&self, shard: ShardId) -> Option<ClockEstimate> {
        self.clocks.read(shard, self.clocks.mono())
    }

    fn clock_news(&self) -> watch::Receiver<u64> {
        self.clocks.news()
    }

    fn leader(&self, shard: ShardId) -> Option<NodeId> {
        let own = self.roles.of(shard).and_then(|role| Some((role.leader?, role.term)));
        let heard = self.clocks.leader(shard, self.clocks.mono());
        match (own, heard) {
            (Some(own), Some(heard)) => Some(if heard.1 > own.1 { heard.0 } else { own.0 }),
            (own, heard) => own.or(heard).map(|(node, _)| node),
        }
    }
}

/// Feeds the clocks of shards that this node leads into its own estimates, as if by a ping without a way to go.
pub(crate) async fn follow_own_clocks(me: NodeId, local: Arc<dyn Local>, clocks: Arc<Clocks>) {
    loop {
        match local.at_rest() {
            // Looked at now and then, so that an end of the host is seen.
            Some(mut woken) => {
                let _ = tokio::time::timeout(crate::grpc::REST, woken.changed()).await;
            }
            None => tokio::time::sleep(crate::grpc::PING).await,
        }
        let sent = clocks.mono();
        let readings = local.readings();
        clocks.heard(me, &readings, sent, clocks.mono());
    }
}
