//! What the edge needs from the rest of the node. The router owns these traits; `node` implements them, in process or
//! over gRPC. Nothing here retries: `route` does, because it knows which answers are final.

use async_trait::async_trait;
use auction::{AuctionId, AuctionView, Command, FeedItem, Position, Reply, Stamp, Verdict};
use futures_util::stream::BoxStream;
use placement::{ClusterMap, NodeId, ShardId};
use std::sync::Arc;
use tokio::sync::watch;

/// A call to another part failed before it could answer. Never a verdict.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PortError {
    /// The node can't be reached, or didn't answer in time.
    #[error("node {0} is unreachable")]
    Unreachable(u64),
    /// The node answered that it isn't the one to ask; perhaps `hint` is.
    #[error("not the leader")]
    NotLeader {
        /// Who may be.
        hint: Option<NodeId>,
    },
    /// No such auction (or chat, or stream).
    #[error("not found")]
    NotFound,
    /// The request can't be served, and why: a code of `docs/protocol.md` if the caller is to be told (`rate`,
    /// `invalid`, `dup_body` …), else words for the log.
    #[error("{0}")]
    Refused(String),
}

/// A leader's clock as this node follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockEstimate {
    /// The reading now, by this node's estimate.
    pub now: Stamp,
    /// Half the round trip of the sample behind it: the error, ms.
    pub err_ms: u32,
    /// No fresh reading for `hold_ms`: the number must freeze.
    pub held: bool,
    /// In how many ms that will be so if nothing more is heard; `None`: it is so already.
    pub held_in_ms: Option<u32>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Linearizable: ReadIndex at the leader.
    Linear,
    /// Any replica that has at least this version of the auction (0: whatever it has).
    AtLeast(u64),
}

/// The shards, as reached from this node.
#[async_trait]
pub trait Shards: Send + Sync + 'static {
    /// Sends a command to `node`, which may lead `shard`. Errors in transport are `Reply::Unknown`.
    async fn submit(&self, node: NodeId, shard: ShardId, epoch: u64, command: Command) -> Reply;

    /// A command's verdict, if a replica on this node knows it whatever its leader has under way: it was judged, or it is a
    /// bid that is too low or too late for good. Must not wait. By default nothing is known here.
    fn settled(&self, _shard: ShardId, _command: &Command) -> Option<Verdict> {
        None
    }

    /// Commands that a shard's leader drains within a moment (`lanes.lane_ms`), as it said last: all edges together let out
    /// no more at a time. `None`: it said nothing.
    fn drains(&self, _shard: ShardId) -> Option<u32> {
        None
    }

    /// One auction, as `node`'s replica of `shard` has it.
    async fn read(
        &self,
        node: NodeId,
        shard: ShardId,
        auction: &AuctionId,
        fresh: Freshness,
    ) -> Result<AuctionView, PortError>;

    /// The auctions of a shard that aren't over, as `node`'s replica has them, in order of id.
    async fn list(&self, node: NodeId, shard: ShardId) -> Result<Vec<AuctionView>, PortError>;

    /// The ids of a shard's auctions that are over, as `node`'s replica has them: after `after`, in order, at most `limit`.
    async fn over(
        &self,
        node: NodeId,
        shard: ShardId,
        after: Option<&AuctionId>,
        limit: usize,
    ) -> Result<Vec<AuctionId>, PortError>;

    /// An auction's feed from `node`'s replica: complete after `from`, or opened by a snapshot. The stream ends when the
    /// node goes; the caller resumes elsewhere from the last position that it saw.
    async fn follow(
        &self,
        node: NodeId,
        shard: ShardId,
        auction: &AuctionId,
        from: Option<Position>,
    ) -> Result<BoxStream<'static, FeedItem>, PortError>;

    /// An auction's events after `after`, at most `limit`, as `node`'s replica has them.
    async fn events(
        &self,
        node: NodeId,
        shard: ShardId,
        auction: &AuctionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<auction::Event>>, PortError>;

    /// The clock of a shard's leader, if any reading was ever seen.
    fn clock(&self, shard: ShardId) -> Option<ClockEstimate>;

    /// Changes whenever some shard's clock read what its readings before didn't foretell (it was held, or another leads):
    /// whoever shows a clock looks again at once.
    fn clock_news(&self) -> watch::Receiver<u64>;

    /// Who leads a shard, as far as this node knows.
    fn leader(&self, shard: ShardId) -> Option<NodeId>;
}

/// The cluster map, followed.
pub trait ClusterMapSource: Send + Sync + 'static {
    /// The newest map that this node knows, and its changes.
    fn map(&self) -> watch::Receiver<Arc<ClusterMap>>;
    /// This node.
    fn me(&self) -> NodeId;
}

/// A line of chat, as ordered by its shard's leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatLine {
    /// Changes with each new leader; order holds within one.
    pub chat_epoch: u64,
    /// 1, 2, 3 … within the epoch.
    pub cseq: u64,
    /// Who.
    pub from: auction::Id,
    /// Their shown name.
    pub name: String,
    /// The sender's id of the line (sent again: same line).
    pub id: auction::Id,
    /// What.
    pub text: String,
}

/// Chat of auctions, at the nodes that lead them.
#[async_trait]
pub trait Chats: Send + Sync + 'static {
    /// Says a line at `node`; gives it back with its place in the order.
    async fn say(&self, node: NodeId, auction: &AuctionId, line: ChatLine) -> Result<ChatLine, PortError>;
    /// The lines of an auction after `(chat_epoch, cseq)`, history first. Ends when the node goes.
    async fn follow(
        &self,
        node: NodeId,
        auction: &AuctionId,
        after: Option<(u64, u64)>,
    ) -> Result<BoxStream<'static, ChatLine>, PortError>;
    /// The newest lines of an auction's chat, at most `limit`. By default: what `follow` gives at once.
    async fn recent(&self, node: NodeId, auction: &AuctionId, limit: usize) -> Result<Vec<ChatLine>, PortError> {
        let mut lines = self.follow(node, auction, None).await?;
        let mut newest = std::collections::VecDeque::new();
        let pause = std::time::Duration::from_millis(100);
        while let Ok(Some(line)) = tokio::time::timeout(pause, futures_util::StreamExt::next(&mut lines)).await {
            newest.push_back(line);
            if newest.len() > limit {
                newest.pop_front();
            }
        }
        Ok(newest.into())
    }
}

/// An answer to WHIP or WHEP.
#[derive(Clone, Debug)]
pub struct MediaAnswer {
    /// The session's id; names the resource `/media/{session}`.
    pub session: String,
    /// SDP answer.
    pub sdp: String,
}

/// What a viewer's RTP times stand for, right now.
#[derive(Clone, Debug)]
pub struct MediaCaptured {
    /// The RTP time, as the viewer receives it, of a picture that is captured at this moment.
    pub rtp: u32,
    /// Its ticks a second.
    pub rate: u32,
    /// From its capture until a picture is whole at each node of the way, µs: the origin first, this node last.
    pub legs_us: Vec<u32>,
}

/// Live video at this node.
#[async_trait]
pub trait Streams: Send + Sync + 'static {
    /// A seller's stream (WHIP): the SDP offer for an auction. A second publisher takes over.
    async fn publish(&self, auction: &AuctionId, offer: String) -> Result<MediaAnswer, PortError>;
    /// A viewer (WHEP). `origin` is the node that takes the stream in, as the auction says.
    async fn watch(&self, auction: &AuctionId, origin: Option<NodeId>, offer: String)
    -> Result<MediaAnswer, PortError>;
    /// Trickled candidates or an ICE restart (`application/trickle-ice-sdpfrag`).
    async fn patch(&self, session: &str, fragment: String) -> Result<Option<String>, PortError>;
    /// Ends a session.
    async fn end(&self, session: &str) -> Result<(), PortError>;
    /// What a viewer's RTP times stand for. Must not wait. `None`: no such viewer at this node, or nothing to see yet.
    fn captured(&self, _session: &str) -> Option<MediaCaptured> {
        None
    }
}

/// A change that an operator wants.
#[derive(Clone, Debug)]
pub struct AdminChange {
    /// What.
    pub change: placement::Change,
    /// Who, for the audit.
    pub who: String,
    /// A reason to override what may be overridden.
    pub force: Option<String>,
    /// Only of this version of the map.
    pub version: Option<u64>,
    /// Only shown.
    pub dry_run: bool,
    /// Of a node that joins: the newest cluster version that its build knows; 0: not said.
    pub newest: u32,
}

/// A shard's state, whole: what a backup keeps.
#[derive(Clone, Debug)]
pub struct AdminImage {
    /// What it is, as JSON.
    pub head: serde_json::Value,
    /// All of it; of a dry run nothing.
    pub body: Option<bytes::Bytes>,
}

/// A shard that is to be founded anew on this node.
#[derive(Clone, Debug)]
pub struct AdminFounding {
    /// Which.
    pub shard: ShardId,
    /// Who asks, for the audit.
    pub who: String,
    /// Why what is there may be given up.
    pub force: Option<String>,
    /// Only weighed.
    pub dry_run: bool,
    /// From this image; else from what this node's replica has.
    pub image: Option<bytes::Bytes>,
    /// Without an image: settled auctions whose records can't be read may be lost.
    pub give_up_unreadable: bool,
}

/// What is told of long work.
#[derive(Clone, Debug)]
pub enum AdminStep {
    /// It goes on.
    Progress(serde_json::Value),
    /// It is done (or, of a dry run, would be).
    Done(serde_json::Value),
    /// It isn't, and why.
    Refused(serde_json::Value),
}

/// How a leadership is to be handed over.
#[derive(Clone, Debug)]
pub struct AdminTransfer {
    /// Who asks, for the audit.
    pub who: String,
    /// A reason to disturb an auction that closes soon.
    pub force: Option<String>,
    /// Only shown.
    pub dry_run: bool,
}

/// What an operator sees and does.
#[async_trait]
pub trait Admin: Send + Sync + 'static {
    /// The state of the cluster as JSON (`docs/protocol.md`, cluster).
    async fn status(&self) -> serde_json::Value;
    /// The map, who answers, who leads, what moves, as JSON (`docs/operations.md`).
    async fn overview(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    /// Why a shard lies where it lies; none: no such shard.
    async fn explain(&self, _shard: ShardId) -> Option<serde_json::Value> {
        None
    }
    /// Plans a change of the map and, unless it is a dry run, stores it. Both answers are JSON; an error says why not.
    async fn change(&self, _ask: AdminChange) -> Result<serde_json::Value, serde_json::Value> {
        Err(serde_json::Value::Null)
    }
    /// Hands a shard's leadership over; the new leader, or why it stays, as JSON.
    async fn transfer(
        &self,
        _shard: ShardId,
        _to: Option<NodeId>,
        _ask: AdminTransfer,
    ) -> Result<NodeId, serde_json::Value> {
        Err(serde_json::Value::Null)
    }
    /// Which builds run, as JSON.
    async fn versions(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    /// The state of a shard that this node leads; of a dry run only what it would be. An error says why not, as JSON.
    async fn image(&self, _shard: ShardId, _who: &str, _dry_run: bool) -> Result<AdminImage, serde_json::Value> {
        Err(serde_json::Value::Null)
    }
    /// Founds a shard anew on this node. It goes on though nobody listens; the last step is no progress.
    fn found(&self, _ask: AdminFounding) -> BoxStream<'static, AdminStep> {
        Box::pin(futures_util::stream::once(async {
            AdminStep::Refused(serde_json::Value::Null)
        }))
    }
    /// Demo only: stops a node's process as a crash would.
    async fn stop_node(&self, node: NodeId) -> Result<(), PortError>;
}

impl From<crate::chat::ChatRefusal> for PortError {
    fn from(refusal: crate::chat::ChatRefusal) -> PortError {
        PortError::Refused(refusal.to_string())
    }
}
