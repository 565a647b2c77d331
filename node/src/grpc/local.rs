//! What this node's own shards and chats can be asked, as the gRPC servers see it: the `Host` behind a trait, so that
//! the wire is tested without a cluster.

use async_trait::async_trait;
use auction::{AuctionId, AuctionView, Command, Event, FeedItem, Office, Position, Reply, Stamp, Verdict};
use futures_util::stream::BoxStream;
use placement::ShardId;
use proto::cluster::v1::StatusReply;
use router::ports::{ChatLine, Freshness, PortError};
use std::sync::Arc;
use tokio::sync::watch;

/// A clock that this node leads, read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The shard.
    pub(crate) shard: ShardId,
    /// Whose stamps.
    pub(crate) office: Office,
    /// The reading.
    pub(crate) now: Stamp,
    /// The newest stamp applied.
    pub(crate) top: Stamp,
    /// A timer pends.
    pub(crate) timers: bool,
    /// Commands that the shard drains in `lanes.lane_ms`.
    pub(crate) drains: u32,
}

/// The shards that this node holds.
#[async_trait]
pub(crate) trait Local: Send + Sync + 'static {
    /// A command to this node's replica.
    async fn submit(&self, shard: ShardId, epoch: u64, command: Command) -> Reply;
    /// A command's verdict, if this node's replica knows it whoever leads.
    fn settled(&self, shard: ShardId, command: &Command) -> Option<Verdict>;
    /// A command goes to the leader of this shard, which is on another node.
    fn wanted(&self, shard: ShardId);
    /// One auction.
    async fn read(&self, shard: ShardId, auction: &AuctionId, fresh: Freshness) -> Result<AuctionView, PortError>;
    /// The auctions that aren't over.
    async fn list(&self, shard: ShardId) -> Result<Vec<AuctionView>, PortError>;
    /// The ids of those that are, after one, in order.
    fn over(&self, shard: ShardId, after: Option<&AuctionId>, limit: usize) -> Result<Vec<AuctionId>, PortError>;
    /// Events after `after`.
    async fn events(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, PortError>;
    /// The feed.
    async fn follow(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        from: Option<Position>,
    ) -> Result<BoxStream<'static, FeedItem>, PortError>;
    /// The clocks that this node leads.
    fn readings(&self) -> Vec<Reading>;
    /// Some if nothing on this node is awake, so that there is nothing to read: it changes when something wakes.
    fn at_rest(&self) -> Option<watch::Receiver<u64>>;
}

/// The chats of auctions that this node leads.
pub(crate) trait Chatroom: Send + Sync + 'static {
    /// Says a line.
    fn say(&self, shard: ShardId, auction: &AuctionId, line: ChatLine) -> Result<ChatLine, PortError>;
    /// The lines after a place.
    fn follow(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        after: Option<(u64, u64)>,
    ) -> Result<BoxStream<'static, ChatLine>, PortError>;
}

/// What an operator can ask of this node.
#[async_trait]
pub(crate) trait Operated: Send + Sync + 'static {
    /// Its own state.
    async fn status(&self) -> StatusReply;
    /// Dies as by `kill -9`, if that may be asked (demo).
    fn stop(&self) -> Result<(), PortError>;
}
