//! A small world for media tests: nodes in one process, signals straight into them, and lossy wires between.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use async_trait::async_trait;
use client::media::{MediaClientError, Publisher, PublisherOptions, Seen, Signal, Viewer, ViewerOptions};
use proto::relay::v1::{SubscribeReply, SubscribeRequest, UnsubscribeRequest};
use sfu::{ControlError, Media, Options, Peer, RelayControl, StreamEvent, TonicControl};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// No wait in these tests is longer; what isn't there by then doesn't come.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Waits until what a viewer has seen fulfils a condition.
pub async fn until(viewer: &Viewer, what: &str, met: impl Fn(&Seen) -> bool) -> Seen {
    let mut seen = viewer.seen();
    let seen = within(what, seen.wait_for(|seen| met(seen))).await;
    seen.expect("the viewer runs").clone()
}

/// Waits until a viewer has seen `more` pictures than now.
pub async fn more_frames(viewer: &Viewer, more: u64) -> Seen {
    let now = viewer.seen().borrow().frames;
    until(viewer, &format!("{more} more frames than {now}"), |seen| {
        seen.frames >= now + more
    })
    .await
}

/// Straight into a node's media plane.
pub struct Direct {
    pub media: Media,
    pub auction: String,
    pub origin: Option<u64>,
    pub publish: bool,
    /// Written into answers in place of the node's own port.
    pub via: Option<SocketAddr>,
    /// Take one offer only: a publisher that is taken over doesn't come back.
    pub once: bool,
    pub used: AtomicBool,
    /// A publisher's only way to its node is a wire, which is cut when this is set.
    pub cut: Option<Arc<AtomicBool>>,
}

#[async_trait]
impl Signal for Direct {
    async fn offer(&self, sdp: String) -> Result<(String, String), MediaClientError> {
        if self.once && self.used.swap(true, Ordering::Relaxed) {
            return Err(MediaClientError::NoAnswer("once".into()));
        }
        // Without candidates in the offer the node can't find a way around the wire.
        let sdp = match self.cut {
            Some(_) => sdp
                .lines()
                .filter(|l| !l.starts_with("a=candidate"))
                .map(|l| format!("{l}\r\n"))
                .collect(),
            None => sdp,
        };
        let answer = match self.publish {
            true => self.media.publish(&self.auction, &sdp).await,
            false => self.media.watch(&self.auction, self.origin, &sdp).await,
        };
        let answer = answer.map_err(|e| MediaClientError::Refused {
            status: 400,
            body: e.to_string(),
        })?;
        let port = self.media.udp_addr().port().to_string();
        if let Some(cut) = &self.cut {
            let own = port_of(&answer.sdp);
            let wire = Wire::to(
                SocketAddr::new(self.media.udp_addr().ip(), own),
                0,
                |_| false,
                cut.clone(),
            )
            .await;
            return Ok((
                answer.sdp.replace(&own.to_string(), &wire.address.port().to_string()),
                answer.session,
            ));
        }
        let sdp = match self.via {
            Some(via) => answer.sdp.replace(&port, &via.port().to_string()),
            None => answer.sdp,
        };
        Ok((sdp, answer.session))
    }

    async fn end(&self, session: &str) {
        let _ = self.media.end(session).await;
    }
}

/// The port of an answer's host candidate.
fn port_of(sdp: &str) -> u16 {
    let candidate = sdp.lines().find(|l| l.starts_with("a=candidate")).expect("a candidate");
    candidate
        .split(' ')
        .nth(5)
        .and_then(|port| port.parse().ok())
        .expect("a port")
}

/// A node: its media plane, its gRPC server, its stream events.
pub struct Node {
    pub id: u64,
    pub media: Media,
    pub events: mpsc::Receiver<StreamEvent>,
    peer: Peer,
    peers: watch::Sender<Vec<Peer>>,
    stop: CancellationToken,
}

/// Gives the trunk another way: the child tells its parent the address of a wire.
pub struct Rewired {
    inner: TonicControl,
    trunk: watch::Receiver<Option<SocketAddr>>,
}

#[async_trait]
impl RelayControl for Rewired {
    async fn subscribe(&self, peer: &Peer, mut request: SubscribeRequest) -> Result<SubscribeReply, ControlError> {
        if let Some(trunk) = *self.trunk.borrow() {
            request.trunk = trunk.to_string();
        }
        self.inner.subscribe(peer, request).await
    }

    async fn unsubscribe(&self, peer: &Peer, request: UnsubscribeRequest) -> Result<(), ControlError> {
        self.inner.unsubscribe(peer, request).await
    }
}

impl Node {
    pub async fn start(id: u64, region: &str, trunk: watch::Receiver<Option<SocketAddr>>) -> Node {
        let control = Arc::new(Rewired {
            inner: TonicControl::plain(),
            trunk,
        });
        Node::start_with(id, region, control).await
    }

    pub async fn start_with(id: u64, region: &str, control: Arc<dyn RelayControl>) -> Node {
        let options = Options {
            node: id,
            region: region.into(),
            publisher_grace: Duration::from_millis(500),
            // So each test with two viewers has them on two threads.
            lanes: 2,
            ..Options::default()
        };
        let (peers, peers_in) = watch::channel(Vec::new());
        let (events, events_in) = mpsc::channel(64);
        let media = Media::start(options, peers_in, events, control)
            .await
            .expect("media starts");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let grpc = listener.local_addr().expect("an address").to_string();
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder()
            .add_service(media.relay_service())
            .serve_with_incoming_shutdown(
                tokio_stream::wrappers::TcpListenerStream::new(listener),
                stop.clone().cancelled_owned(),
            );
        tokio::spawn(server);
        let peer = Peer {
            node: id,
            region: region.into(),
            trunk: media.trunk_addr(),
            grpc,
        };
        Node {
            id,
            media,
            events: events_in,
            peer,
            peers,
            stop,
        }
    }

    pub fn whip(&self, auction: &str) -> Direct {
        Direct {
            media: self.media.clone(),
            auction: auction.into(),
            origin: None,
            publish: true,
            via: None,
            once: false,
            used: AtomicBool::new(false),
            cut: None,
        }
    }

    pub fn whep(&self, auction: &str, origin: u64) -> Direct {
        Direct {
            publish: false,
            origin: Some(origin),
            ..self.whip(auction)
        }
    }

    pub fn publish(&self, auction: &str) -> Publisher {
        Publisher::start(PublisherOptions::default(), Arc::new(self.whip(auction))).expect("the clip is good")
    }

    pub fn view(&self, auction: &str, origin: u64) -> Viewer {
        Viewer::start(ViewerOptions::default(), Arc::new(self.whep(auction, origin)))
    }

    pub async fn event(&mut self) -> StreamEvent {
        within("a stream event", self.events.recv()).await.expect("media runs")
    }

    pub async fn up(&mut self) -> String {
        match self.event().await {
            StreamEvent::Up { stream, .. } => stream,
            down => panic!("expected a stream to come up, got {down:?}"),
        }
    }

    pub async fn stop(&self) {
        within("the shutdown", self.media.shutdown()).await;
        self.stop.cancel();
    }
}

/// Nodes that know each other.
pub async fn nodes(regions: &[&str]) -> Vec<Node> {
    let none = watch::channel(None).1;
    let mut nodes = Vec::new();
    for (index, region) in regions.iter().enumerate() {
        nodes.push(Node::start(index as u64 + 1, region, none.clone()).await);
    }
    acquaint(&nodes);
    nodes
}

pub fn acquaint(nodes: &[Node]) {
    let peers: Vec<Peer> = nodes.iter().map(|node| node.peer.clone()).collect();
    for node in nodes {
        node.peers.send_replace(peers.clone());
    }
}

/// A UDP wire towards `target` that loses every `every`-th datagram of those that `counts` picks (0: none). What the
/// target sends back goes to whoever sent first. `cut`: from then on it loses everything.
pub struct Wire {
    pub address: SocketAddr,
    pub carried: Arc<AtomicU64>,
    pub lost: Arc<AtomicU64>,
}

/// An SRTP packet of media (not RTCP, DTLS or STUN).
pub fn is_media(bytes: &[u8]) -> bool {
    bytes.len() > 12 && (128..192).contains(&bytes[0]) && !(72..79).contains(&(bytes[1] & 0x7f))
}

struct Loss {
    every: u64,
    counts: fn(&[u8]) -> bool,
    cut: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Loss {
    fn takes(&self, bytes: &[u8]) -> bool {
        if self.cut.load(Ordering::Relaxed) {
            return true;
        }
        if !(self.counts)(bytes) {
            return false;
        }
        let count = self.carried.fetch_add(1, Ordering::Relaxed) + 1;
        let lost = self.every != 0 && count.is_multiple_of(self.every);
        self.lost.fetch_add(u64::from(lost), Ordering::Relaxed);
        lost
    }
}

impl Wire {
    pub async fn to(target: SocketAddr, every: u64, counts: fn(&[u8]) -> bool, cut: Arc<AtomicBool>) -> Wire {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
        let address = front.local_addr().expect("an address");
        let (carried, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let loss = Arc::new(Loss {
            every,
            counts,
            cut,
            carried: carried.clone(),
            lost: lost.clone(),
        });
        tokio::spawn(async move {
            let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
            let mut buffer = vec![0; 2048];
            while let Ok((length, from)) = front.recv_from(&mut buffer).await {
                if let Entry::Vacant(new) = backs.entry(from) {
                    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
                    back.connect(target).await.expect("connected");
                    new.insert(back.clone());
                    tokio::spawn(carry_back(back, front.clone(), from, loss.clone()));
                }
                if !loss.takes(&buffer[..length]) {
                    let _ = backs[&from].send(&buffer[..length]).await;
                }
            }
        });
        Wire { address, carried, lost }
    }
}

async fn carry_back(back: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, loss: Arc<Loss>) {
    let mut buffer = vec![0; 2048];
    while let Ok(length) = back.recv(&mut buffer).await {
        if !loss.takes(&buffer[..length]) {
            let _ = front.send_to(&buffer[..length], to).await;
        }
    }
}
