//! `Media`: the handle by which the rest of a node uses the media plane.

use crate::{MediaError, Options, Peer};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// The answer to a WHIP or WHEP offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The session: an unguessable name, and the capability to patch and end it.
    pub session: String,
    /// SDP answer.
    pub sdp: String,
}

/// What the auction should know of its seller's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A publisher's first packet came in at this node.
    Up {
        /// The auction.
        auction: String,
        /// The stream's id, new for each publication.
        stream: String,
    },
    /// The publisher is gone (its connection was lost for `publisher_grace`, or it said so) and no other took over.
    Down {
        /// The auction.
        auction: String,
        /// The stream that ended.
        stream: String,
    },
}

/// One auction's video at this node, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStats {
    /// The auction.
    pub auction: String,
    /// The publisher is connected to this node.
    pub origin: bool,
    /// Viewers connected here.
    pub viewers: u64,
    /// Packets taken in, all tracks.
    pub packets: u64,
    /// Packets that never came, after all retries.
    pub lost: u64,
    /// Pictures taken in.
    pub frames: u64,
}

/// The media plane of this node; cheap to clone.
#[derive(Clone)]
pub struct Media {
    options: Arc<Options>,
}
impl Media {
    /// Binds the sockets and starts lanes and trunk. Relays reach `peers` by gRPC unless another `control` is given.
    pub async fn start(
        options: Options,
        peers: watch::Receiver<Vec<Peer>>,
        events: mpsc::Sender<StreamEvent>,
        control: Arc<dyn crate::RelayControl>,
    ) -> Result<Media, MediaError> {
        let _ = (peers, events, control);
        Ok(Media { options: Arc::new(options) })
    }

    /// WHIP: takes a seller's offer. A second publisher of the same auction takes over.
    pub async fn publish(&self, auction: &str, offer: &str) -> Result<Answer, MediaError> {
        let _ = (auction, offer);
        Err(MediaError::Unavailable("starting".into()))
    }

    /// WHEP: takes a viewer's offer. A stream that isn't up yet is waited for, connected; `origin` is the node that
    /// takes the stream in, if the caller knows it.
    pub async fn watch(&self, auction: &str, origin: Option<u64>, offer: &str) -> Result<Answer, MediaError> {
        let _ = (auction, origin, offer);
        Err(MediaError::Unavailable("starting".into()))
    }

    /// Tells where an auction's stream comes in, as its events say.
    pub fn set_origin(&self, auction: &str, origin: Option<u64>) {
        let _ = (auction, origin);
    }

    /// Trickled candidates or an ICE restart (`application/trickle-ice-sdpfrag`).
    pub async fn patch(&self, session: &str, fragment: &str) -> Result<Option<String>, MediaError> {
        let _ = (session, fragment);
        Err(MediaError::NotFound)
    }

    /// Ends a session, publisher's or viewer's.
    pub async fn end(&self, session: &str) -> Result<(), MediaError> {
        let _ = session;
        Err(MediaError::NotFound)
    }

    /// What this node carries.
    pub fn stats(&self) -> Vec<StreamStats> {
        Vec::new()
    }

    /// Where viewers' packets go: the socket's address.
    pub fn udp_addr(&self) -> SocketAddr {
        SocketAddr::new(self.options.ip, self.options.udp_port)
    }

    /// Where other nodes' trunks go.
    pub fn trunk_addr(&self) -> SocketAddr {
        SocketAddr::new(self.options.ip, self.options.trunk_port)
    }

    /// The service by which other nodes subscribe; mount it on the node's gRPC server.
    pub fn relay_service(&self) -> crate::RelayServer {
        crate::control::server(self.clone())
    }

    /// Ends all sessions and threads.
    pub async fn shutdown(&self) {}

    pub(crate) async fn subscribe(
        &self,
        _request: proto::relay::v1::SubscribeRequest,
    ) -> Result<proto::relay::v1::SubscribeReply, MediaError> {
        Err(MediaError::NotFound)
    }

    pub(crate) fn unsubscribe(&self, _request: proto::relay::v1::UnsubscribeRequest) {}
}
