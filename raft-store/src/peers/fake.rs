//! A peer that shows what comes to it, frame by frame, and answers when a test has it do so.
//!
//! The frames of one turn can be counted without a clock: a test runs on one thread, so whatever it says before it waits is
//! said before the link's task runs, and comes in as few frames as the link makes of it.
//!
//! Deliberately absent: pulses and snapshots, which have streams of their own.
#![allow(clippy::unwrap_used)]

use super::Peers;
use crate::options::RaftOptions;
use futures_util::{StreamExt, stream::BoxStream};
use placement::NodeId;
use proto::raft::v1::{
    self as pb,
    raft_server::{Raft, RaftServer},
};
use std::time::Duration;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// Longer than any machine takes: nothing is judged by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

type Answers = BoxStream<'static, Result<pb::Responses, Status>>;

/// One message of a stream, and the way back.
pub(crate) struct Frame {
    pub(crate) requests: Vec<pb::Request>,
    back: mpsc::UnboundedSender<Result<pb::Responses, Status>>,
}

impl Frame {
    /// Says this on the frame's stream, in one message.
    pub(crate) fn answer(&self, responses: Vec<pb::Response>) {
        let said = self.back.send(Ok(pb::Responses { responses }));
        assert!(said.is_ok(), "the stream has ended");
    }
}

/// What has come to a fake peer.
pub(crate) struct Frames(mpsc::UnboundedReceiver<Frame>);

impl Frames {
    /// The next one.
    pub(crate) async fn next(&mut self) -> Frame {
        tokio::time::timeout(PATIENCE, self.0.recv()).await.unwrap().unwrap()
    }
}

/// Options by which no call fails for being late.
pub(crate) fn patient() -> RaftOptions {
    RaftOptions {
        rpc: PATIENCE,
        append_rpc: PATIENCE,
        ..RaftOptions::default()
    }
}

/// Listens as `node`, and lets these peers know where.
pub(crate) async fn listen(peers: &Peers, node: NodeId) -> Frames {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    peers.set_addresses([(node, listener.local_addr().unwrap().to_string())]);
    let (tx, rx) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(RaftServer::new(Fake(tx)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Frames(rx)
}

struct Fake(mpsc::UnboundedSender<Frame>);

impl Fake {
    fn take(&self, requests: Request<Streaming<pb::Requests>>) -> Response<Answers> {
        let (frames, mut requests) = (self.0.clone(), requests.into_inner());
        let (back, answers) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(message)) = requests.message().await {
                let (requests, back) = (message.requests, back.clone());
                // The test is over.
                if frames.send(Frame { requests, back }).is_err() {
                    return;
                }
            }
        });
        Response::new(UnboundedReceiverStream::new(answers).boxed())
    }
}

#[tonic::async_trait]
impl Raft for Fake {
    type ControlStream = Answers;
    type AppendStream = Answers;

    async fn control(&self, requests: Request<Streaming<pb::Requests>>) -> Result<Response<Answers>, Status> {
        Ok(self.take(requests))
    }

    async fn append(&self, requests: Request<Streaming<pb::Requests>>) -> Result<Response<Answers>, Status> {
        Ok(self.take(requests))
    }

    async fn snapshot(&self, _: Request<Streaming<pb::SnapshotChunk>>) -> Result<Response<pb::SnapshotReply>, Status> {
        Err(Status::unimplemented("no snapshots here"))
    }

    async fn snapshot_have(&self, _: Request<pb::SnapshotHead>) -> Result<Response<pb::SnapshotHere>, Status> {
        Err(Status::unimplemented("no snapshots here"))
    }

    async fn pulse(&self, _: Request<Streaming<pb::NodePulse>>) -> Result<Response<pb::PulseEnd>, Status> {
        Err(Status::unimplemented("no pulses here"))
    }
}
