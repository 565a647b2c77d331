//! Every setting, declared once: field, type, default, unit, doc. `Config`, its reader, `config doc` and
//! `config default` all come from this table, so none of them can go stale.

use super::value::{Founders, LogFormat, Shape, Value};
use super::{Fault, Source};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// One row of the table, for the reference.
#[derive(Debug)]
pub(crate) struct Key {
    /// Dotted name.
    pub(crate) name: &'static str,
    /// What kind of value.
    pub(crate) kind: &'static str,
    /// How a TOML file writes it.
    pub(crate) shape: Shape,
    /// The default, as text.
    pub(crate) default: &'static str,
    /// Unit, or empty.
    pub(crate) unit: &'static str,
    /// What it does.
    pub(crate) doc: &'static str,
}

macro_rules! keys {
    ($($field:ident: $type:ty = $name:literal, $default:literal, $unit:literal, $doc:literal;)*) => {
        /// The settings of one node, read and checked.
        #[derive(Clone)]
        pub(crate) struct Config { $(#[doc = $doc] pub(crate) $field: $type,)* }

        /// The table.
        pub(crate) const KEYS: &[Key] = &[$(Key {
            name: $name, kind: <$type as Value>::KIND, shape: <$type as Value>::SHAPE, default: $default, unit: $unit, doc: $doc,
        },)*];

        impl Config {
            /// Reads each key from the last source that has it. All faults come together; where a value is faulty the
            /// default stands in, so that what the others say together can be checked all the same.
            pub(super) fn parse(sources: &[&dyn Source], places: &mut Places, faults: &mut Vec<Fault>) -> Option<Config> {
                $(let $field = one::<$type>(sources, $name, $default, places, faults);)*
                Some(Config { $($field: $field?,)* })
            }
        }
    };
}

/// Where each key's value stands.
pub(super) type Places = BTreeMap<&'static str, String>;

fn one<T: Value>(
    sources: &[&dyn Source],
    name: &'static str,
    default: &str,
    places: &mut Places,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    let Some(setting) = sources.iter().rev().find_map(|s| s.get(name)) else {
        places.insert(name, "default".into());
        return T::parse(default).ok();
    };
    places.insert(name, setting.place.clone());
    match setting.read() {
        Ok(value) => Some(value),
        Err(what) => {
            faults.push(Fault {
                key: name.into(),
                place: setting.place,
                what,
            });
            T::parse(default).ok()
        }
    }
}

keys! {
    node_id: u64 = "node.id", "1", "", "This node's id in its cluster, from 1; never reused.";
    node_zone: String = "node.zone", "a", "", "Failure domain: replicas of a shard lie in distinct zones.";
    node_region: String = "node.region", "local", "", "Media region: one relay copy of a stream per region.";
    node_dir: PathBuf = "node.dir", "data", "", "Folder of the log and snapshots.";
    node_drain_ms: u64 = "node.drain_ms", "5000", "ms", "Longest graceful stop after SIGTERM or SIGINT.";
    http_listen: SocketAddr = "http.listen", "127.0.0.1:8080", "", "HTTP and WebSocket for clients, /healthz, /metrics.";
    http_url: String = "http.url", "", "", "Base URL told to clients; empty: from http.listen.";
    listen_backlog: u32 = "listen.backlog", "65535", "connections", "Connections that may wait at http.listen and grpc.listen to be taken in: a node that dies sends its whole audience at once. The kernel allows no more than net.core.somaxconn.";
    grpc_listen: SocketAddr = "grpc.listen", "127.0.0.1:8081", "", "gRPC for other nodes.";
    grpc_advertise: String = "grpc.advertise", "", "", "host:port told to other nodes; empty: grpc.listen.";
    grpc_allow_plaintext: bool = "grpc.allow_plaintext", "false", "", "Allows nodes to talk without TLS beyond loopback: only on a network that you trust wholly. Not needed with tls.cert.";
    grpc_deadline_ms: u64 = "grpc.deadline_ms", "2000", "ms", "Longest wait for another node's answer.";
    grpc_message_max: u64 = "grpc.message_max_bytes", "4194304", "bytes", "Largest message between nodes.";
    grpc_in_flight: u64 = "grpc.in_flight", "4096", "commands", "Commands under way to one other node; more are answered `busy`.";
    tls_ca: String = "tls.ca", "", "", "Certificates of the authorities that nodes are known by, as `rushroom node init-ca` makes them; empty: no TLS between nodes.";
    tls_cert: String = "tls.cert", "", "", "This node's certificate, as `rushroom node cert` issues it. Replaced files are taken without a restart.";
    tls_key: String = "tls.key", "", "", "The certificate's key.";
    tls_look_ms: u64 = "tls.look_ms", "2000", "ms", "How often it is looked for replaced files.";
    media_ip: IpAddr = "media.ip", "127.0.0.1", "", "Address at which browsers reach this node's media ports.";
    media_udp_port: u16 = "media.udp_port", "0", "", "UDP port of viewers; 0: a free one.";
    media_trunk_port: u16 = "media.trunk_port", "0", "", "UDP port of relays between nodes; 0: a free one.";
    media_lanes: u32 = "media.lanes", "0", "threads", "Threads that send to viewers, at most 64; a stream's viewers are spread over them. 0: one for each two cores, at least one.";
    cluster_shards: u32 = "cluster.shards", "128", "", "Auction shards, fixed when the cluster is born.";
    cluster_founders: Founders = "cluster.founders", "", "", "The nodes that found the cluster, the same list on each; empty: this node alone.";
    cluster_join: String = "cluster.join", "", "", "host:port (gRPC) of any node of a cluster that lives, for a node that joins it; empty: this node is a founder.";
    cluster_dead_after_ms: u64 = "cluster.dead_after_ms", "300000", "ms", "A node that is silent for so long is lost: its replicas are replaced.";
    cluster_secret: String = "cluster.secret", "", "", "Seed of the keys that sign tokens, 64 hex digits, the same on each node; empty: made once in node.dir (one node only). Secret.";
    raft_heartbeat_ms: u64 = "raft.heartbeat_ms", "50", "ms", "A node's sign of life, and a leader's where it needs one of its own.";
    raft_election_min_ms: u64 = "raft.election_min_ms", "150", "ms", "Half of it lies between one follower's turn to stand and the next one's.";
    raft_election_max_ms: u64 = "raft.election_max_ms", "300", "ms", "Silence after which a node is lost and a follower stands; also the leader's lease.";
    raft_rest_after_ms: u64 = "raft.rest_after_ms", "2000", "ms", "A shard with nothing to do rests after so long: no heartbeats until it is wanted. 0: never.";
    raft_snapshot_bytes_per_s: u64 = "raft.snapshot_bytes_per_s", "67108864", "bytes/s", "Pace of all snapshots together that this node sends; 0: no limit.";
    raft_snapshot_piece_bytes: u64 = "raft.snapshot_piece_bytes", "262144", "bytes", "A snapshot is read, sent and stored in pieces of so much: 4096 to 1048576. What goes beside it waits for one at most.";
    raft_snapshot_after_bytes: u64 = "raft.snapshot_after_bytes", "16777216", "bytes", "A shard makes a snapshot when its log grew by so much ...";
    raft_snapshot_after_s: u64 = "raft.snapshot_after_s", "3600", "s", "... or when so much time passed and anything was logged at all.";
    raft_cold_after_ms: u64 = "raft.cold_after_ms", "60000", "ms", "An auction that nothing can change any more leaves memory, and snapshots, so long after it settled: it is read from disk then. 0: never.";
    log_segment_bytes: u64 = "log.segment_bytes", "67108864", "bytes", "Size of one file of the log.";
    log_low_water_bytes: u64 = "log.low_water_bytes", "268435456", "bytes", "Free room on the log's disk below which it says that it is nearly full.";
    log_stall_ms: u64 = "log.stall_ms", "1000", "ms", "A write in the disk's hands for so long means that the disk hangs: this node gives its leaderships away.";
    clock_hold_ms: u64 = "clock.hold_ms", "200", "ms", "How far the clock may run ahead of what a majority has.";
    clock_step_ms: u64 = "clock.step_ms", "50", "ms", "How far the clock may advance between two looks.";
    clock_grace_ms: u64 = "clock.grace_ms", "150", "ms", "How long a new office's clock stands while senders send again.";
    clock_beat_ms: u64 = "clock.beat_ms", "100", "ms", "Longest time without an entry while a timer pends.";
    lanes_window: u64 = "lanes.window", "256", "commands", "Commands of a shard in flight: more wait in its lanes.";
    lanes_entry_max: u64 = "lanes.entry_max", "128", "commands", "Commands in one entry of a shard's log.";
    lanes_pipeline: u64 = "lanes.pipeline", "1", "entries", "Entries of a shard in flight before smaller ones wait to be filled. More only where nodes are far apart.";
    lanes_lane_ms: u64 = "lanes.lane_ms", "40", "ms", "Work that the lanes of a shard may hold, in time to drain it.";
    admin_http: bool = "admin.http", "false", "", "Opens /api/v1/admin/* to operators' tokens.";
    limits_bids_per_s: u32 = "limits.bids_per_s", "100", "bids/s", "Bids of one person; a burst is four times as many.";
    limits_frames_per_s: u32 = "limits.frames_per_s", "250", "frames/s", "Frames of one WebSocket, whatever they say; a burst is four times as many. Above it the socket is closed 4429.";
    limits_line_ms: u64 = "limits.line_ms", "2", "ms", "While what is ready on a node takes longer than this, sockets that say many things at once pause (40 ms at most, each time). 0: never.";
    demo_enabled: bool = "demo.enabled", "false", "", "Opens the cluster page and its `stop this node` to everyone. Loopback only.";
    telemetry_log: String = "telemetry.log", "info,openraft=error,rtc=error,rtc_ice=error,rtc_dtls=error,webrtc=error", "", "What is logged; the libraries below us speak of every retry.";
    telemetry_format: LogFormat = "telemetry.format", "text", "", "How log lines are written, to stderr.";
    telemetry_otlp: String = "telemetry.otlp", "", "", "OTLP/gRPC endpoint for traces, as in http://127.0.0.1:4317; empty: none.";
    telemetry_sample_ppm: u32 = "telemetry.sample_ppm", "10000", "ppm", "Share of traces begun here that are kept; a caller's own choice is followed.";
}
