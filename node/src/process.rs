//! One running node: built from its settings, served until told to stop, drained.
//!
//! ```text
//!   bind ports -> Host (disk, shards) -> Media -> gRPC (raft, shards, chat, relay, cluster) -> Edge (HTTP)
//!   stop: Edge says 4503 -> Host hands leaderships over -> Media ends -> gRPC ends      within node.drain_ms
//! ```
//!
//! Ports are bound before anything is started, so that a port in use costs an error message and nothing else. The
//! edge is served last and stopped first: whoever can reach it finds the rest working.

use crate::admin::AdminService;
use crate::config::Config;
use crate::grpc::{ChatsService, Clocks, ClusterService, Limits, Local, Peers, ShardsService};
use crate::life::Life;
use crate::listen::{allow_files, listen};
use crate::tls::{self, GateLayer, Incoming, Tls};
use crate::wiring::{self, AdminPort, ChatPort, HostShards, MapPort, Roles, ShardPort, StreamPort};
use crate::{health, metrics};
use anyhow::{Context as _, Result};
use placement::NodeId;
use proto::cluster::v1::admin_server::AdminServer;
use proto::cluster::v1::cluster_server::ClusterServer;
use proto::shard::v1::chats_server::ChatsServer;
use proto::shard::v1::shards_server::ShardsServer;
use raft_store::{Dial, Host};
use router::chat::{DeskLimits, Hall};
use router::{Edge, Ports, Secret};
use sfu::Media;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tower::layer::util::{Identity as NoLayer, Stack};

/// Stream events that wait to be told; the media plane waits beyond it.
const STREAM_EVENTS_MAX: usize = 256;
/// HTTP/2 windows of the gRPC server.
const WINDOW: u32 = 1 << 20;

/// The gRPC server with the table of who may call what before it.
type Gated = tonic::transport::server::Router<Stack<GateLayer, NoLayer>>;

/// The parts of a running node that outlive its building.
struct Node {
    host: Host,
    media: Media,
    edge: Edge,
    grpc_stop: oneshot::Sender<()>,
    /// Loops that live as long as the node; aborted with it.
    loops: JoinSet<()>,
}

/// Runs a node until SIGTERM or SIGINT, or until its disk fails.
pub(crate) async fn run(config: Config) -> Result<()> {
    let mut stop = Stop::listen()?;
    allow_files();
    let recorder = metrics::install(config.node_id)?;
    let http = listen("http.listen", config.http_listen, config.listen_backlog)?;
    let grpc = listen("grpc.listen", config.grpc_listen, config.listen_backlog)?;
    tracing::info!(node = config.node_id, http = %http.local_addr()?, grpc = %grpc.local_addr()?, "starting");

    let mut node = build(&config, grpc).await?;
    // Not before the folder is known to be ours.
    let (life, before) = Life::begin(&config.node_dir);
    metrics::last_end(before);
    let upkeep = recorder.clone();
    node.loops.spawn(async move {
        // Histograms keep raw samples until someone renders them; this bounds them when nobody does.
        let mut every = tokio::time::interval(Duration::from_secs(5));
        loop {
            every.tick().await;
            upkeep.run_upkeep();
        }
    });
    let host = node.host.clone();
    let unfit = host.unfit();
    let state = Arc::new(move || {
        let unfit = unfit.borrow();
        let says = |grave: bool| {
            unfit
                .iter()
                .filter(move |why| why.is_grave() == grave)
                .map(|why| why.says().to_owned())
        };
        let leaderless = (!host.ready()).then(|| "a shard of this node knows no leader yet".to_owned());
        health::State {
            reasons: leaderless.into_iter().chain(says(true)).collect(),
            warnings: says(false).collect(),
        }
    });
    let host = node.host.clone();
    let measure = Arc::new(move || host.measure());
    let serving = tokio::spawn({
        let (edge, extra) = (node.edge.clone(), health::routes(state, measure, recorder));
        async move { edge.serve(http, extra).await }
    });
    tracing::info!(node = config.node_id, "serving");

    let failed = tokio::select! {
        () = stop.asked() => None,
        why = node.host.failed() => Some(why),
    };
    let drained = tokio::time::timeout(Duration::from_millis(config.node_drain_ms), drain(node)).await;
    tracing::info!(in_time = drained.is_ok(), "stopped");
    serving.abort();
    life.end(failed.as_deref());
    failed.map_or(Ok(()), |why| Err(anyhow::anyhow!("the disk failed: {why}")))
}

async fn drain(node: Node) {
    tracing::info!("draining");
    node.edge.shutdown().await;
    node.host.shutdown().await;
    node.media.shutdown().await;
    let _ = node.grpc_stop.send(());
}

/// Whom it concerns that a shard is led by someone else.
fn another_leads(desks: ChatPort, clocks: Arc<Clocks>) -> impl Fn() + Send {
    move || {
        desks.retain();
        clocks.another_leads();
    }
}

/// Builds every part and wires them; starts all but the edge's listener.
async fn build(config: &Config, grpc: TcpListener) -> Result<Node> {
    let me = NodeId(config.node_id);
    let limits = limits(config);
    let tls = open_tls(config)?;
    let dial = dial(tls.clone());
    let host = open_host(config, tls.as_ref(), dial.clone()).await?;
    let map = host.map();
    let local: Arc<dyn Local> = Arc::new(HostShards(host.clone()));
    let clocks = Arc::new(Clocks::new(limits.hold));
    let peers = Peers::start(me, limits, dial, clocks.clone(), map.clone());
    let roles = Roles::default();
    let shards = ShardPort {
        me,
        local: local.clone(),
        peers: peers.clone(),
        clocks: clocks.clone(),
        roles: roles.clone(),
    };

    let (events, heard) = mpsc::channel(STREAM_EVENTS_MAX);
    let (living, living_peers) = watch::channel(Vec::new());
    let control = Arc::new(relay_control(tls.clone()));
    let media = Media::start(media_options(config), living_peers, events, control)
        .await
        .context("starting the media plane")?;
    let streams = StreamPort::new(media.clone(), shards.clone(), map.clone());
    let hall = Hall::new(DeskLimits::default());
    let chats = ChatPort {
        me,
        hall,
        roles: roles.clone(),
        map: map.clone(),
        peers: peers.clone(),
    };
    let admin = Arc::new(AdminPort {
        demo: config.demo_enabled,
        host: host.clone(),
        media: media.clone(),
        shards: shards.clone(),
        map: map.clone(),
        peers: peers.clone(),
    });

    let mut loops = JoinSet::new();
    loops.spawn(roles.follow(host.clone(), another_leads(chats.clone(), clocks.clone())));
    loops.spawn(wiring::follow_own_clocks(me, local.clone(), clocks));
    loops.spawn(wiring::follow_peers(map.clone(), peers, living));
    loops.spawn(streams.clone().tell_all(heard));

    let server = grpc_server(&host, &media, local, &chats, admin.clone(), limits, me);
    let looks = Duration::from_millis(config.tls_look_ms);
    tls.clone().map(|tls| loops.spawn(tls.follow(looks)));
    let grpc_stop = serve_grpc(server, Incoming::of(grpc, tls));
    let ports = Ports {
        shards: Arc::new(shards),
        map: Arc::new(MapPort { me, map }),
        chats: Arc::new(chats),
        streams: Arc::new(streams),
        admin,
    };
    let edge = Edge::new(edge_options(config)?, ports);
    Ok(Node {
        host,
        media,
        edge,
        grpc_stop,
        loops,
    })
}

async fn open_host(config: &Config, tls: Option<&Tls>, dial: Dial) -> Result<Host> {
    let joined = crate::join::joined(config, tls).await?;
    let host = Host::open(host_options(config, joined, dial)).await;
    host.context("opening node.dir")
}

/// Serves gRPC until the sender is used or dropped.
fn serve_grpc(server: Gated, incoming: Incoming) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let stopped = async { stopped.await.unwrap_or_default() };
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
            tracing::error!(%error, "the gRPC server ended");
        }
    });
    stop
}

fn grpc_server(
    host: &Host,
    media: &Media,
    local: Arc<dyn Local>,
    chats: &ChatPort,
    admin: Arc<AdminPort>,
    limits: Limits,
    me: NodeId,
) -> Gated {
    let max = limits.message_max;
    let shards = ShardsServer::new(ShardsService::new(local, limits)).max_decoding_message_size(max);
    let chats = ChatsServer::new(ChatsService(Arc::new(chats.clone()))).max_decoding_message_size(max);
    let operators = AdminServer::new(AdminService(admin.clone()));
    let cluster = ClusterServer::new(ClusterService { me, node: admin });
    tonic::transport::Server::builder()
        .layer(GateLayer)
        .initial_connection_window_size(WINDOW * 4)
        .initial_stream_window_size(WINDOW)
        // Only so that what a vanished caller held is freed: whoever waits for an answer tests the way itself.
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_service(host.raft_service())
        .add_service(host.moves_service())
        .add_service(shards)
        .add_service(chats)
        .add_service(cluster)
        .add_service(operators)
        .add_service(media.relay_service())
}

/// The node's certificates, if it has any: they must be good before anything starts.
fn open_tls(config: &Config) -> Result<Option<Tls>> {
    if config.tls_cert.is_empty() {
        if !config.grpc_listen.ip().is_loopback() {
            tracing::warn!("nodes talk in the clear beyond loopback: whoever reaches this port can be any of them");
        }
        return Ok(None);
    }
    let [ca, cert, key] = [&config.tls_ca, &config.tls_cert, &config.tls_key].map(PathBuf::from);
    Ok(Some(
        Tls::open(ca, cert, key, Some(config.node_id)).context("reading tls.*")?,
    ))
}

fn dial(tls: Option<Tls>) -> Dial {
    Dial::by(move |node, endpoint| tls::channel(tls.as_ref(), Some(node.0), endpoint))
}

fn relay_control(tls: Option<Tls>) -> sfu::TonicControl {
    sfu::TonicControl::dialling(move |node, endpoint| tls::channel(tls.as_ref(), Some(node), endpoint))
}

fn limits(config: &Config) -> Limits {
    Limits {
        deadline: Duration::from_millis(config.grpc_deadline_ms),
        message_max: config.grpc_message_max as usize,
        in_flight: config.grpc_in_flight as usize,
        hold: Duration::from_millis(config.clock_hold_ms),
    }
}

fn host_options(config: &Config, joined: Option<placement::ReplicaId>, dial: Dial) -> raft_store::Options {
    let mut options = raft_store::Options {
        node: NodeId(config.node_id),
        dir: config.node_dir.join("raft"),
        shards: config.cluster_shards,
        founders: if joined.is_some() {
            Vec::new()
        } else {
            config.founders()
        },
        joined,
        dial,
        ..raft_store::Options::default()
    };
    options.moves.dead_after_ms = config.cluster_dead_after_ms;
    options.wal.segment_bytes = config.log_segment_bytes;
    options.wal.low_water_bytes = config.log_low_water_bytes;
    options.stall.after = Duration::from_millis(config.log_stall_ms);
    options.raft.heartbeat = Duration::from_millis(config.raft_heartbeat_ms);
    options.raft.election_min = Duration::from_millis(config.raft_election_min_ms);
    options.raft.election_max = Duration::from_millis(config.raft_election_max_ms);
    options.raft.snapshot_bytes_per_s = config.raft_snapshot_bytes_per_s;
    options.raft.snapshot_piece = config.raft_snapshot_piece_bytes as usize;
    options.raft.snapshot_bytes = config.raft_snapshot_after_bytes;
    options.raft.snapshot_age = Duration::from_secs(config.raft_snapshot_after_s);
    options.raft.cold_after = Duration::from_millis(config.raft_cold_after_ms);
    options.raft.rest_after = Duration::from_millis(config.raft_rest_after_ms);
    options.clock.hold_ms = config.clock_hold_ms;
    options.clock.step_ms = config.clock_step_ms;
    options.clock.grace_ms = config.clock_grace_ms;
    options.clock.beat_ms = config.clock_beat_ms;
    options.lanes.lane_ms = config.lanes_lane_ms;
    options.lanes.window = config.lanes_window as usize;
    options.lanes.entry_max = config.lanes_entry_max as usize;
    options.lanes.pipeline = config.lanes_pipeline as usize;
    options
}

/// Threads that send to viewers. Half the cores by default: the other half is for what feeds them (handshakes, the kernel's
/// receiving side, the seller's connection, trunks), and for bids, whose clock must not wait for a picture.
fn media_lanes(wanted: u32, cores: usize) -> usize {
    match wanted {
        0 => (cores / 2).clamp(1, 64),
        wanted => wanted as usize,
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn media_options(config: &Config) -> sfu::Options {
    sfu::Options {
        node: config.node_id,
        region: config.node_region.clone(),
        ip: config.media_ip,
        udp_port: config.media_udp_port,
        trunk_port: config.media_trunk_port,
        lanes: media_lanes(config.media_lanes, cores()),
        ..sfu::Options::default()
    }
}

fn edge_options(config: &Config) -> Result<router::Options> {
    let token_secret = if config.cluster_secret.is_empty() {
        Secret::of(&own_secret(&config.node_dir)?)
    } else {
        Secret::of(config.cluster_secret.as_bytes())
    };
    Ok(router::Options {
        region: config.node_region.clone(),
        demo: config.demo_enabled,
        admin: config.demo_enabled || config.admin_http,
        token_secret,
        bids_per_s: config.limits_bids_per_s,
        frames_per_s: config.limits_frames_per_s,
        line_ms: config.limits_line_ms,
        ..router::Options::default()
    })
}

/// A lone node's secret: made once, kept readable by its owner only.
fn own_secret(dir: &Path) -> Result<Vec<u8>> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = dir.join("secret");
    let made = || -> std::io::Result<Vec<u8>> {
        match std::fs::read(&path) {
            Ok(bytes) if bytes.len() == 32 => return Ok(bytes),
            Ok(_) => std::fs::remove_file(&path)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        std::fs::create_dir_all(dir)?;
        let bytes: [u8; 32] = rand::random();
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        Ok(bytes.to_vec())
    };
    made().with_context(|| format!("the secret at {}", path.display()))
}

/// SIGTERM or SIGINT, from before the first port is bound.
struct Stop {
    term: Signal,
    int: Signal,
}

impl Stop {
    fn listen() -> Result<Stop> {
        Ok(Stop {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! { _ = self.term.recv() => {}, _ = self.int.recv() => {} }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_lanes_leave_cores_for_the_rest() {
        for (wanted, cores, expect) in [
            (0, 1, 1),
            (0, 2, 1),
            (0, 3, 1),
            (0, 8, 4),
            (0, 512, 64),
            (1, 8, 1),
            (5, 2, 5),
        ] {
            assert_eq!(media_lanes(wanted, cores), expect, "{wanted} of {cores} cores");
        }
    }
}
