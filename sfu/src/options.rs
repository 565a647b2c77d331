//! What a node tells its media plane when it starts: plain values, all with defaults, none read from the environment.
//!
//! Every queue of this crate has its bound here, so that an operator (and a reader) finds them in one place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How the media plane of one node runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node's id.
    pub node: u64,
    /// This node's media region.
    pub region: String,
    /// Address that all media sockets bind to.
    pub ip: IpAddr,
    /// Address that is written into SDP answers; absent: `ip`.
    pub announce: Option<IpAddr>,
    /// The one UDP port of all viewers; 0 takes a free one.
    pub udp_port: u16,
    /// The UDP port of the trunks to other nodes; 0 takes a free one.
    pub trunk_port: u16,
    /// Threads that send to viewers. One more does handshakes, so that a storm of joins never holds back a picture.
    pub lanes: usize,
    /// Inputs (datagrams, wakes, arrivals) that may wait for one lane; more are dropped and counted.
    pub lane_queue: usize,
    /// Viewers that this node takes; more are refused with `busy`.
    pub viewers_max: usize,
    /// Publishers that this node takes.
    pub publishers_max: usize,
    /// Auctions whose video this node carries at once.
    pub stages_max: usize,
    /// Bytes of an SDP offer or fragment.
    pub sdp_max: usize,
    /// Packets kept per track for NACK and instant join; a power of two.
    pub ring_packets: usize,
    /// A keyframe older than this isn't replayed to a newcomer: a fresh one is asked for.
    pub replay_age: Duration,
    /// The seller is asked for a keyframe at most once in this time.
    pub keyframe_gap: Duration,
    /// A viewer that sends nothing (no ICE consent) for this long is gone.
    pub viewer_silence: Duration,
    /// A handshake that takes longer than this is given up.
    pub handshake_max: Duration,
    /// The stream is down when its publisher's ICE has been lost for this long.
    pub publisher_grace: Duration,
    /// How long a relay's subscription lives without renewal.
    pub lease: Duration,
    /// Kernel buffer of each media socket, bytes.
    pub socket_buffer: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            node: 0,
            region: String::new(),
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            announce: None,
            udp_port: 0,
            trunk_port: 0,
            lanes: 1,
            lane_queue: 4096,
            viewers_max: 2000,
            publishers_max: 64,
            stages_max: 4096,
            sdp_max: 64 * 1024,
            ring_packets: 2048,
            replay_age: Duration::from_secs(2),
            keyframe_gap: Duration::from_secs(1),
            viewer_silence: Duration::from_secs(15),
            handshake_max: Duration::from_secs(10),
            publisher_grace: Duration::from_secs(3),
            lease: Duration::from_secs(2),
            socket_buffer: 4 << 20,
        }
    }
}

impl Options {
    /// The address that viewers are told, once the socket has its port.
    pub(crate) fn announced(&self, bound: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.announce.unwrap_or(bound.ip()), bound.port())
    }
}

/// Another node's media plane, as the cluster map knows it. The list that a node is given holds only nodes that are
/// alive; it may hold the node itself, which is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub node: u64,
    /// Its media region.
    pub region: String,
    /// Its trunk socket.
    pub trunk: SocketAddr,
    /// `host:port` or URL of its gRPC server.
    pub grpc: String,
}
