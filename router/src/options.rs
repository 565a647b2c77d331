//! Every bound and interval of the edge, as plain data with defaults that run.
//!
//! Each queue named here is bounded; the doc of a field says what happens when it is full. `node` fills this from its
//! configuration and nothing else reads the environment.

use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;

/// Thirty-two secret bytes that never show in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl Secret {
    /// A secret made of any text (a passphrase, a file's content): its SHA-256, bound to its use.
    #[must_use]
    pub fn of(text: &[u8]) -> Secret {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(b"rushroom token key 1\n");
        context.update(text);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Secret(bytes)
    }

    /// A secret that nobody else has: tokens signed by it verify on this node only, until it restarts.
    #[must_use]
    pub fn random() -> Secret {
        let mut bytes = [0; 32];
        // `fill` fails only where the system has no random source at all; then no token may ever verify.
        if SystemRandom::new().fill(&mut bytes).is_err() {
            tracing::error!("the system gives no randomness: tokens will not outlive this process");
            bytes = rand::random();
        }
        Secret(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How an edge behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node's region, told to clients.
    pub region: String,
    /// A demo: anyone sees the cluster page, and nodes can be stopped from it.
    pub demo: bool,
    /// Operators may ask over HTTP (`/api/v1/admin/*`).
    pub admin: bool,

    /// Signs and verifies tokens: the same on every node of a cluster. Default: random.
    pub token_secret: Secret,
    /// Verify only: secrets that signed tokens before a rotation.
    pub token_secrets_old: Vec<Secret>,
    /// A token's life, ms.
    pub token_ttl_ms: u64,
    /// Guests may take the seller's role.
    pub guest_sellers: bool,

    /// How long a command is asked for before the caller is told `timeout`, ms.
    pub deadline_ms: u64,
    /// How long one node may take to answer before another is asked, ms.
    pub ask_ms: u64,
    /// Bids to one shard under way from this edge, whatever its leader grants; as many wait behind them, more are `busy`.
    pub shard_bids_max: usize,

    /// HTTP: connections at this edge that are no WebSockets (yet); more are closed at once.
    pub connections_max: usize,
    /// HTTP: how long a client may take to send a request's head, ms.
    pub head_ms: u64,
    /// HTTP: a JSON body, bytes.
    pub body_max: usize,
    /// HTTP: an SDP body, bytes.
    pub sdp_max: usize,
    /// HTTP: a shard's image that an operator puts back, bytes.
    pub image_max: u64,
    /// HTTP: a whole request, ms (longer than `deadline_ms`).
    pub request_ms: u64,
    /// HTTP: how long a merged list of auctions is shared by those who ask, ms.
    pub list_cache_ms: u64,
    /// HTTP: items in one page, at most.
    pub page_max: usize,

    /// WebSocket: sockets at this edge; more are turned away with 503.
    pub sockets_max: usize,
    /// WebSocket: a client's frame, bytes.
    pub frame_max: usize,
    /// WebSocket: auctions that one socket follows.
    pub joins_max: usize,
    /// WebSocket: bids of one socket that wait for a verdict; more are refused `rate`.
    pub socket_bids_max: usize,
    /// While what is ready on this node takes longer than this, sockets that say many things at once pause. 0: never.
    pub line_ms: u64,
    /// WebSocket: chat lines of one socket that wait for their place; more are refused `rate`.
    pub socket_chats_max: usize,
    /// WebSocket: bytes of verdicts that wait for a viewer; above it the socket is closed 4408.
    pub verdict_bytes_max: usize,
    /// WebSocket: events that a viewer may be behind before it falls to the newest state and a snapshot.
    pub viewer_lag_max: u64,
    /// WebSocket: frames of one client per second (a burst is four times as many); above it the socket is closed 4429.
    pub frames_per_s: u32,
    /// WebSocket: frames that were not understood before the socket is closed 4400.
    pub strikes_max: u32,
    /// WebSocket: a ping is sent when nothing was heard for this long, ms.
    pub ping_ms: u64,
    /// WebSocket: silence after which the socket is closed, ms.
    pub silence_ms: u64,
    /// WebSocket: how long one frame may take to leave, ms; then 4408.
    pub send_ms: u64,
    /// WebSocket: after a drain began, sockets are closed spread over this time, ms.
    pub drain_ms: u64,

    /// Rooms at this edge.
    pub rooms_max: usize,
    /// Events that a room keeps for resumes.
    pub room_ring: usize,
    /// Newest events in a snapshot.
    pub recent_max: usize,
    /// Chat lines that a room keeps.
    pub chat_ring: usize,
    /// How long a room without viewers keeps its feed, ms.
    pub room_linger_ms: u64,
    /// Clock messages while nothing changes, ms.
    pub clock_ms: u64,
    /// Viewer counts, at most one in this time, ms.
    pub counts_ms: u64,

    /// Bids per second and person; a burst is four times as many.
    pub bids_per_s: u32,
    /// Other commands per second and person.
    pub commands_per_s: u32,
    /// Chat lines per ten seconds and person.
    pub chats_per_10s: u32,
    /// Guest tokens per minute and address.
    pub guests_per_min: u32,
    /// Media offers per minute and address.
    pub offers_per_min: u32,
    /// Addresses of this machine are not limited (benches, demos, a proxy that limits by itself).
    pub loopback_unlimited: bool,
    /// People and addresses that limits remember; the longest idle are forgotten first.
    pub limit_keys_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            region: "local".into(),
            demo: false,
            admin: false,
            token_secret: Secret::random(),
            token_secrets_old: Vec::new(),
            token_ttl_ms: 12 * 3_600_000,
            guest_sellers: true,
            deadline_ms: 5_000,
            ask_ms: 1_000,
            shard_bids_max: 1_024,
            connections_max: 4_000,
            head_ms: 10_000,
            body_max: 32 * 1024,
            sdp_max: 64 * 1024,
            image_max: 4 << 30,
            request_ms: 15_000,
            list_cache_ms: 250,
            page_max: 500,
            sockets_max: 15_000,
            frame_max: 4 * 1024,
            joins_max: 32,
            socket_bids_max: 64,
            line_ms: 2,
            socket_chats_max: 8,
            verdict_bytes_max: 256 * 1024,
            viewer_lag_max: 256,
            frames_per_s: 250,
            strikes_max: 8,
            ping_ms: 20_000,
            silence_ms: 50_000,
            send_ms: 10_000,
            drain_ms: 2_000,
            rooms_max: 10_000,
            room_ring: 1_024,
            recent_max: 50,
            chat_ring: 100,
            room_linger_ms: 30_000,
            clock_ms: 2_000,
            counts_ms: 1_000,
            bids_per_s: 100,
            commands_per_s: 50,
            chats_per_10s: 10,
            guests_per_min: 60,
            offers_per_min: 120,
            loopback_unlimited: true,
            limit_keys_max: 100_000,
        }
    }
}
