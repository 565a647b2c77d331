//! Chat: desks of the shards that this node leads, other nodes' over gRPC.
//!
//! A chat epoch is the term in which its shard is led: never used twice, and newer is larger. A node that stops leading
//! closes the desks; who followed them follows the new leader, whose epoch says that a line may be missing.

use super::Roles;
use crate::grpc::{Chatroom, Peers};
use async_trait::async_trait;
use auction::AuctionId;
use futures_util::stream::BoxStream;
use placement::{ClusterMap, NodeId, ShardId};
use router::chat::Hall;
use router::ports::{ChatLine, Chats, PortError};
use std::sync::Arc;
use tokio::sync::watch;

/// Chats, as reached from this node.
#[derive(Clone)]
pub(crate) struct ChatPort {
    /// This node.
    pub(crate) me: NodeId,
    /// Desks of this node.
    pub(crate) hall: Hall,
    /// Who leads what.
    pub(crate) roles: Roles,
    /// The number of shards.
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
    /// Other nodes.
    pub(crate) peers: Arc<Peers>,
}

impl ChatPort {
    fn shard(&self, auction: &AuctionId) -> ShardId {
        placement::shard_of(auction.as_str(), self.map.borrow().shards)
    }

    /// The chat epoch of a shard that this node leads.
    fn epoch(&self, shard: ShardId) -> Result<u64, PortError> {
        match self.roles.of(shard) {
            Some(role) if role.leader == Some(self.me) => Ok(role.term),
            Some(role) => Err(PortError::NotLeader { hint: role.leader }),
            None => Err(PortError::NotLeader { hint: None }),
        }
    }

    /// Closes the desks of shards that this node leads no longer.
    pub(crate) fn retain(&self) {
        self.hall.retain(|auction| self.epoch(self.shard(auction)).is_ok());
    }
}

impl Chatroom for ChatPort {
    fn say(&self, shard: ShardId, auction: &AuctionId, line: ChatLine) -> Result<ChatLine, PortError> {
        let epoch = self.epoch(shard)?;
        self.hall
            .say(auction, epoch, line)
            .map_err(|refusal| PortError::Refused(refusal.to_string()))
    }

    fn follow(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        after: Option<(u64, u64)>,
    ) -> Result<BoxStream<'static, ChatLine>, PortError> {
        Ok(self.hall.follow(auction, self.epoch(shard)?, after))
    }
}

#[async_trait]
impl Chats for ChatPort {
    async fn say(&self, node: NodeId, auction: &AuctionId, line: ChatLine) -> Result<ChatLine, PortError> {
        let shard = self.shard(auction);
        if node == self.me {
            return Chatroom::say(self, shard, auction, line);
        }
        self.peers.get(node)?.say(shard, auction, line).await
    }

    async fn follow(
        &self,
        node: NodeId,
        auction: &AuctionId,
        after: Option<(u64, u64)>,
    ) -> Result<BoxStream<'static, ChatLine>, PortError> {
        let shard = self.shard(auction);
        if node == self.me {
            return Chatroom::follow(self, shard, auction, after);
        }
        self.peers.get(node)?.follow_chat(shard, auction, after).await
    }
}
