//! One node's commands to one other, over one stream.
//!
//! ```text
//!   submit --Ask (bounded)--> writer --CommandBatch--> ~~~ stream ~~~> the other node
//!      ^                        | waiting: correlation -> who asked
//!      '------- Reply ------- reader <--ReplyBatch-- ~~~ stream ~~~
//! ```
//!
//! Why one stream: what waits while a batch is written goes out together in the next one, so a burst costs few frames,
//! and a node pair has one place where commands queue, with one bound. Full means `Busy`, said at once.
//!
//! When the stream breaks, everything that waited on it becomes `Unknown`: it may have been judged. The next command
//! opens a new stream; there is no backoff here since `route` asks elsewhere first.
//!
//! Deliberately absent: retries, deadlines per command (the caller's: dropping the future of `submit` is enough).

use super::{Limits, frames, trace};
use crate::metrics;
use auction::{Command, Reply};
use parking_lot::Mutex;
use placement::ShardId;
use proto::shard::v1::{CommandBatch, CommandFrame, ReplyBatch, shards_client::ShardsClient};
use raft_store::codec::Wire as _;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Commands in one frame.
const BATCH_MAX: usize = 128;
/// Batches that wait for the transport; what waits behind them packs better.
const BATCHES_MAX: usize = 4;
/// What a caller is told to wait when this link is full, ms.
const RETRY_AFTER_MS: u32 = 10;

struct Ask {
    frame: CommandFrame,
    reply: oneshot::Sender<Reply>,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>>;

/// The sending end; cheap to clone. The link ends with its last handle.
#[derive(Clone)]
pub(super) struct Link {
    asks: mpsc::Sender<Ask>,
}

impl Link {
    /// A link over `channel`; opens its stream when first used.
    pub(super) fn spawn(channel: Channel, limits: Limits) -> Link {
        let (asks, queue) = mpsc::channel(limits.in_flight);
        tokio::spawn(run(channel, queue, limits));
        Link { asks }
    }

    /// Sends a command and waits for its answer, as long as the caller cares to.
    pub(super) async fn submit(&self, shard: ShardId, epoch: u64, command: &Command) -> Reply {
        let frame = CommandFrame {
            correlation: 0,
            shard: shard.0,
            epoch,
            command: Some(command.to_proto()),
            traceparent: trace::current(),
        };
        let (reply, answer) = oneshot::channel();
        match self.asks.try_send(Ask { frame, reply }) {
            Ok(()) => answer.await.unwrap_or(Reply::Unknown),
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::remote_refused();
                Reply::Busy {
                    retry_after_ms: RETRY_AFTER_MS,
                }
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Reply::Unknown,
        }
    }
}

async fn run(channel: Channel, mut queue: mpsc::Receiver<Ask>, limits: Limits) {
    let mut next = 1;
    let mut first = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut first, BATCH_MAX).await > 0 {
        let client = ShardsClient::new(channel.clone())
            .max_decoding_message_size(limits.message_max)
            .max_encoding_message_size(limits.message_max);
        let waiting = Waiting::default();
        if let Err(error) = stream(client, &mut queue, &mut first, &waiting, &mut next, limits).await {
            tracing::debug!(%error, lost = waiting.lock().len(), "a command stream ended");
        }
        // Dropping a sender tells its caller `Unknown`.
        waiting.lock().clear();
        first.clear();
    }
}

/// One stream's life: writes batches until the other end goes, while a reader hands out replies.
async fn stream(
    mut client: ShardsClient<Channel>,
    queue: &mut mpsc::Receiver<Ask>,
    first: &mut Vec<Ask>,
    waiting: &Waiting,
    next: &mut u64,
    limits: Limits,
) -> Result<(), tonic::Status> {
    let (out, batches) = mpsc::channel(BATCHES_MAX);
    // The server answers the call's headers only once it has the stream: the first batch must already be on its way.
    let _ = out.try_send(batch(first, waiting, next));
    let opening = tokio::time::timeout(limits.deadline, client.commands(ReceiverStream::new(batches)));
    let replies = opening
        .await
        .map_err(|_| tonic::Status::deadline_exceeded("opening the stream"))??
        .into_inner();
    let reader = read(replies, waiting.clone());
    let writer = async {
        let mut asks = Vec::with_capacity(BATCH_MAX);
        while queue.recv_many(&mut asks, BATCH_MAX).await > 0 {
            gather(queue, &mut asks).await;
            if waiting.lock().len() >= limits.in_flight {
                // Callers that gave up leave their entries behind; only those that still wait count.
                waiting.lock().retain(|_, reply| !reply.is_closed());
                if waiting.lock().len() >= limits.in_flight {
                    refuse(&mut asks);
                    continue;
                }
            }
            if out.send(batch(&mut asks, waiting, next)).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { ended = reader => ended, () = writer => Ok(()) }
}

/// Whoever is about to ask goes with this batch: sockets that are ready are heard first, then all of it is one frame and
/// one write. Costs an idle link nothing, since then nothing else is ready.
async fn gather(queue: &mut mpsc::Receiver<Ask>, asks: &mut Vec<Ask>) {
    tokio::task::yield_now().await;
    while asks.len() < BATCH_MAX
        && let Ok(ask) = queue.try_recv()
    {
        asks.push(ask);
    }
}

fn refuse(asks: &mut Vec<Ask>) {
    for ask in asks.drain(..) {
        metrics::remote_refused();
        let _ = ask.reply.send(Reply::Busy {
            retry_after_ms: RETRY_AFTER_MS,
        });
    }
}

fn batch(asks: &mut Vec<Ask>, waiting: &Waiting, next: &mut u64) -> CommandBatch {
    let mut waiting = waiting.lock();
    let mut commands = Vec::with_capacity(asks.len());
    for mut ask in asks.drain(..) {
        ask.frame.correlation = *next;
        *next += 1;
        waiting.insert(ask.frame.correlation, ask.reply);
        commands.push(ask.frame);
    }
    metrics::remote_commands(commands.len());
    CommandBatch { commands }
}

async fn read(mut replies: Streaming<ReplyBatch>, waiting: Waiting) -> Result<(), tonic::Status> {
    while let Some(batch) = replies.message().await? {
        let mut waiting = waiting.lock();
        for frame in batch.replies {
            if let Some(caller) = waiting.remove(&frame.correlation) {
                // A caller that no longer waits is no error.
                let _ = caller.send(frames::reply_from(frame));
            }
        }
    }
    Ok(())
}
