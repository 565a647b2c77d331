//! The serving side of `shard/v1` and `cluster/v1`: hands calls to this node's shards and writes their answers.
//!
//! A command stream is one task: it stamps each command's arrival by polling it at once, keeps as many under way as the
//! bound allows and says `Busy` beyond it. It never stops reading: a command that waits in a socket has no stamp yet.

use super::local::{Chatroom, Local, Operated};
use super::{LEADER, Limits, REST, frames, trace};
use async_trait::async_trait;
use auction::{AuctionId, Command, Id, Position, Reply};
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt as _};
use placement::{NodeId, ShardId};
use proto::cluster::v1::cluster_server::Cluster;
use proto::cluster::v1::{StatusReply, StatusRequest, StopReply, StopRequest};
use proto::shard::v1::{self as pb, chats_server::Chats, shards_server::Shards};
use raft_store::codec::Wire as _;
use router::ports::{Freshness, PortError};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

/// Reply batches that wait for the transport. A peer that doesn't read its replies stops being read.
const REPLIES_MAX: usize = 16;
/// Replies in one batch.
const BATCH_MAX: usize = 256;
/// Events in one answer.
const EVENTS_MAX: u32 = 1_000;

/// Serves this node's shards.
pub(crate) struct ShardsService {
    local: Arc<dyn Local>,
    limits: Limits,
}

impl ShardsService {
    /// Over these shards.
    pub(crate) fn new(local: Arc<dyn Local>, limits: Limits) -> ShardsService {
        ShardsService { local, limits }
    }
}

fn status(error: PortError) -> Status {
    match error {
        PortError::NotFound => Status::not_found("no such auction"),
        PortError::NotLeader { hint } => {
            let mut status = Status::failed_precondition("not the leader");
            if let Some(Ok(value)) = hint.map(|node| node.0.to_string().parse()) {
                status.metadata_mut().insert(LEADER, value);
            }
            status
        }
        PortError::Unreachable(node) => Status::unavailable(format!("node {node} is unreachable")),
        PortError::Refused(why) => Status::invalid_argument(why),
    }
}

fn auction(text: &str) -> Result<AuctionId, Status> {
    Id::parse(text).ok_or_else(|| Status::invalid_argument("not an auction id"))
}

#[async_trait]
impl Shards for ShardsService {
    type CommandsStream = ReceiverStream<Result<pb::ReplyBatch, Status>>;
    type FollowStream = BoxStream<'static, Result<pb::FeedItem, Status>>;
    type ReadingsStream = BoxStream<'static, Result<pb::Pong, Status>>;

    async fn commands(
        &self,
        request: Request<Streaming<pb::CommandBatch>>,
    ) -> Result<Response<Self::CommandsStream>, Status> {
        let (out, replies) = mpsc::channel(REPLIES_MAX);
        let (local, in_flight) = (self.local.clone(), self.limits.in_flight);
        tokio::spawn(async move {
            if let Err(error) = commands(local, request.into_inner(), out, in_flight).await {
                tracing::debug!(%error, "a command stream ended");
            }
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<pb::ReadReply>, Status> {
        let request = request.into_inner();
        let fresh = match request.fresh {
            Some(pb::read_request::Fresh::AtLeast(seq)) => Freshness::AtLeast(seq),
            _ => Freshness::Linear,
        };
        let auction = auction(&request.auction)?;
        let reading = self.local.read(ShardId(request.shard), &auction, fresh);
        let view = tokio::time::timeout(self.limits.deadline, reading)
            .await
            .map_err(|_| Status::deadline_exceeded("reading"))?
            .map_err(status)?;
        Ok(Response::new(pb::ReadReply {
            view: Some(view.to_proto()),
        }))
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListReply>, Status> {
        let views = self
            .local
            .list(ShardId(request.into_inner().shard))
            .await
            .map_err(status)?;
        Ok(Response::new(pb::ListReply {
            views: views.iter().map(|v| v.to_proto()).collect(),
        }))
    }

    async fn over(&self, request: Request<pb::OverRequest>) -> Result<Response<pb::OverReply>, Status> {
        let request = request.into_inner();
        let after = (!request.after.is_empty())
            .then(|| auction(&request.after))
            .transpose()?;
        let limit = request.limit.min(EVENTS_MAX) as usize;
        let ids = self.local.over(ShardId(request.shard), after.as_ref(), limit);
        Ok(Response::new(pb::OverReply {
            auctions: ids.map_err(status)?.iter().map(Into::into).collect(),
        }))
    }

    async fn events(&self, request: Request<pb::EventsRequest>) -> Result<Response<pb::EventsReply>, Status> {
        let request = request.into_inner();
        let auction = auction(&request.auction)?;
        let limit = request.limit.min(EVENTS_MAX) as usize;
        let events = self
            .local
            .events(ShardId(request.shard), &auction, request.after, limit)
            .await
            .map_err(status)?;
        Ok(Response::new(pb::EventsReply {
            events: events.iter().map(|e| e.to_proto()).collect(),
        }))
    }

    async fn follow(&self, request: Request<pb::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let request = request.into_inner();
        let from = request.from.map(|p| Position {
            epoch: p.epoch,
            offset: p.offset,
        });
        let auction = auction(&request.auction)?;
        let items = self
            .local
            .follow(ShardId(request.shard), &auction, from)
            .await
            .map_err(status)?;
        Ok(Response::new(items.map(|item| Ok(frames::item_to(&item))).boxed()))
    }

    async fn readings(&self, request: Request<Streaming<pb::Ping>>) -> Result<Response<Self::ReadingsStream>, Status> {
        let local = self.local.clone();
        let rest = REST.min(self.limits.deadline / 2);
        let pongs = request.into_inner().then(move |ping| {
            let local = local.clone();
            async move {
                let n = ping?.n;
                let readings = match local.at_rest() {
                    None => local.readings().iter().map(frames::reading_to).collect(),
                    // Held back until there may be something to read; a reading now would be one of long after the question.
                    Some(mut woken) => {
                        let _ = tokio::time::timeout(rest, woken.changed()).await;
                        Vec::new()
                    }
                };
                Ok(pb::Pong { n, readings })
            }
        });
        Ok(Response::new(pongs.boxed()))
    }
}

/// One peer's commands, until it goes.
async fn commands(
    local: Arc<dyn Local>,
    mut batches: Streaming<pb::CommandBatch>,
    out: mpsc::Sender<Result<pb::ReplyBatch, Status>>,
    in_flight: usize,
) -> Result<(), Status> {
    let mut under_way = FuturesUnordered::new();
    let mut replies = Vec::new();
    loop {
        tokio::select! {
            batch = batches.message() => {
                let Some(batch) = batch? else { break };
                for frame in batch.commands {
                    let correlation = frame.correlation;
                    if under_way.len() >= in_flight {
                        replies.push(frames::reply_to(correlation, &Reply::Busy { retry_after_ms: 10 }));
                        continue;
                    }
                    let mut judging = Box::pin(judge(local.clone(), frame));
                    match futures_util::poll!(&mut judging) {
                        std::task::Poll::Ready(reply) => replies.push(reply),
                        std::task::Poll::Pending => under_way.push(judging),
                    }
                }
            }
            Some(reply) = under_way.next() => {
                replies.push(reply);
                // Entries that are landing now answer with this one: one frame, one write.
                tokio::task::yield_now().await;
                while replies.len() < BATCH_MAX {
                    match futures_util::FutureExt::now_or_never(under_way.next()) {
                        Some(Some(reply)) => replies.push(reply),
                        _ => break,
                    }
                }
            }
        }
        if !replies.is_empty() {
            let batch = pb::ReplyBatch {
                replies: std::mem::take(&mut replies),
            };
            if out.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
    }
    // The sender closed its half: what is under way is still answered.
    while let Some(reply) = under_way.next().await {
        if out.send(Ok(pb::ReplyBatch { replies: vec![reply] })).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn judge(local: Arc<dyn Local>, frame: pb::CommandFrame) -> pb::ReplyFrame {
    let command = frame.command.map(Command::from_proto);
    let reply = match command {
        Some(Ok(command)) => {
            let (shard, epoch) = (ShardId(frame.shard), frame.epoch);
            if frame.traceparent.is_empty() {
                local.submit(shard, epoch, command).await
            } else {
                let span = tracing::info_span!("leader.command", shard = shard.0, auction = %command.auction);
                trace::adopt(&span, &frame.traceparent);
                local.submit(shard, epoch, command).instrument(span).await
            }
        }
        // Certainly not judged, and it never will be: but only a newer peer can have sent it, so it may ask elsewhere.
        Some(Err(error)) => {
            tracing::error!(%error, "a peer sent a command that can't be read");
            Reply::NotJudged
        }
        None => Reply::NotJudged,
    };
    frames::reply_to(frame.correlation, &reply)
}

/// Serves chat of the auctions that this node leads.
pub(crate) struct ChatsService(pub(crate) Arc<dyn Chatroom>);

#[async_trait]
impl Chats for ChatsService {
    type FollowStream = BoxStream<'static, Result<pb::Line, Status>>;

    async fn say(&self, request: Request<pb::SayRequest>) -> Result<Response<pb::Line>, Status> {
        let request = request.into_inner();
        let line = request.line.ok_or_else(|| Status::invalid_argument("no line"))?;
        let line = frames::line_from(line).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let placed = self
            .0
            .say(ShardId(request.shard), &auction(&request.auction)?, line)
            .map_err(status)?;
        Ok(Response::new(frames::line_to(placed)))
    }

    async fn follow(&self, request: Request<pb::ChatFollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let request = request.into_inner();
        let after = request.resume.then_some((request.chat_epoch, request.cseq));
        let lines = self
            .0
            .follow(ShardId(request.shard), &auction(&request.auction)?, after)
            .map_err(status)?;
        Ok(Response::new(lines.map(|line| Ok(frames::line_to(line))).boxed()))
    }
}

/// Serves an operator's calls.
pub(crate) struct ClusterService {
    /// This node.
    pub(crate) me: NodeId,
    /// What does it.
    pub(crate) node: Arc<dyn Operated>,
}

#[async_trait]
impl Cluster for ClusterService {
    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(self.node.status().await))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopReply>, Status> {
        if request.into_inner().node != self.me.0 {
            return Err(Status::invalid_argument("another node was meant"));
        }
        self.node.stop().map_err(status)?;
        Ok(Response::new(StopReply {}))
    }
}
