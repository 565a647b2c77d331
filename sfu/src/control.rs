//! How one node's media plane asks another for a stream: the gRPC service, and the client of it.
//!
//! `RelayControl` is the question "how do I reach a peer's relay service?"; `TonicControl` answers it with one channel
//! per peer. A node that speaks TLS says how to dial; tests may give another `RelayControl` altogether.

use crate::{ControlError, Media, MediaError, Peer};
use async_trait::async_trait;
use parking_lot::Mutex;
use proto::relay::v1::relay_client::RelayClient;
use proto::relay::v1::relay_server::{Relay, RelayServer as Generated};
use proto::relay::v1::{SubscribeReply, SubscribeRequest, UnsubscribeReply, UnsubscribeRequest};
use std::collections::HashMap;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

/// The relay service, ready to be mounted.
pub type RelayServer = Generated<RelayService>;

/// Reaches the relay service of a peer.
#[async_trait]
pub trait RelayControl: Send + Sync + 'static {
    /// Takes or renews a lease, and waits for news of the stream.
    async fn subscribe(&self, peer: &Peer, request: SubscribeRequest) -> Result<SubscribeReply, ControlError>;
    /// Gives a lease back.
    async fn unsubscribe(&self, peer: &Peer, request: UnsubscribeRequest) -> Result<(), ControlError>;
}

/// Serves other nodes' subscriptions out of `Media`.
pub struct RelayService {
    media: Media,
}

pub(crate) fn server(media: Media) -> RelayServer {
    Generated::new(RelayService { media })
}

/// The node at the other end, by its certificate; in the extensions of a request. None: nobody checks here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Speaker(pub u64);

/// A node takes leases in its own name only: the stream's key and packets go where they say.
fn allow<T>(request: &Request<T>, node: u64) -> Result<(), Status> {
    match request.extensions().get::<Speaker>() {
        Some(Speaker(speaker)) if *speaker != node => Err(Status::permission_denied(format!(
            "[not_yours] a lease of node {node}, and node {speaker} asks"
        ))),
        _ => Ok(()),
    }
}

fn status(error: MediaError) -> Status {
    match error {
        MediaError::NotFound => Status::not_found(error.to_string()),
        MediaError::Busy(_) => Status::resource_exhausted(error.to_string()),
        MediaError::Unavailable(_) => Status::unavailable(error.to_string()),
        _ => Status::invalid_argument(error.to_string()),
    }
}

#[async_trait]
impl Relay for RelayService {
    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<SubscribeReply>, Status> {
        allow(&request, request.get_ref().node)?;
        let reply = self.media.subscribe(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn unsubscribe(&self, request: Request<UnsubscribeRequest>) -> Result<Response<UnsubscribeReply>, Status> {
        allow(&request, request.get_ref().node)?;
        self.media.unsubscribe(request.get_ref());
        Ok(Response::new(UnsubscribeReply {}))
    }
}

/// Makes a channel to a node out of an endpoint with its address.
type Dial = Box<dyn Fn(u64, &Endpoint) -> Channel + Send + Sync>;

/// `RelayControl` over tonic: one lazily connected channel per peer address.
pub struct TonicControl {
    dial: Dial,
    channels: Mutex<HashMap<String, Channel>>,
}

impl TonicControl {
    /// Without TLS: for loopback only.
    pub fn plain() -> TonicControl {
        TonicControl::dialling(|_, endpoint| endpoint.connect_lazy())
    }

    /// By this way to make a channel to a node.
    pub fn dialling(dial: impl Fn(u64, &Endpoint) -> Channel + Send + Sync + 'static) -> TonicControl {
        TonicControl {
            dial: Box::new(dial),
            channels: Mutex::new(HashMap::new()),
        }
    }

    fn client(&self, peer: &Peer) -> Result<RelayClient<Channel>, ControlError> {
        if let Some(channel) = self.channels.lock().get(&peer.grpc) {
            return Ok(RelayClient::new(channel.clone()));
        }
        let bad = |e: tonic::transport::Error| ControlError::Unreachable(peer.node, e.to_string());
        let url = if peer.grpc.contains("://") {
            peer.grpc.clone()
        } else {
            format!("http://{}", peer.grpc)
        };
        let endpoint = Endpoint::from_shared(url)
            .map_err(bad)?
            .connect_timeout(Duration::from_millis(500))
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(1))
            .keep_alive_while_idle(true);
        let channel = (self.dial)(peer.node, &endpoint);
        self.channels.lock().insert(peer.grpc.clone(), channel.clone());
        Ok(RelayClient::new(channel))
    }
}

fn refused(peer: &Peer, status: Status) -> ControlError {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled | tonic::Code::Unknown => {
            ControlError::Unreachable(peer.node, status.message().to_string())
        }
        _ => ControlError::Refused(status.message().to_string()),
    }
}

#[async_trait]
impl RelayControl for TonicControl {
    async fn subscribe(&self, peer: &Peer, request: SubscribeRequest) -> Result<SubscribeReply, ControlError> {
        let mut request = Request::new(request);
        // The answer may wait for news; past the lease it is lost.
        let patience = Duration::from_millis(u64::from(request.get_ref().lease_ms.max(500)));
        request.set_timeout(patience);
        let mut client = self.client(peer)?;
        let reply = client.subscribe(request).await.map_err(|s| refused(peer, s))?;
        Ok(reply.into_inner())
    }

    async fn unsubscribe(&self, peer: &Peer, request: UnsubscribeRequest) -> Result<(), ControlError> {
        let mut request = Request::new(request);
        request.set_timeout(Duration::from_millis(500));
        let mut client = self.client(peer)?;
        client.unsubscribe(request).await.map_err(|s| refused(peer, s))?;
        Ok(())
    }
}
