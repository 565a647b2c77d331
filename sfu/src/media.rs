//! `Media`: the handle by which the rest of a node uses the media plane, and the whole that it holds together.

use crate::capture::Captured;
use crate::carrier::Carrier;
use crate::control::{self, RelayControl, RelayServer};
use crate::edge::{self, Edge};
use crate::ingest::{self, Publisher};
use crate::lane::{Input, Lane};
use crate::outbox::Exit;
use crate::pull::{self, Pulling};
use crate::sdp::{Fragment, Offer};
use crate::session::{Presence, Viewer};
use crate::stage::{Clock, LaneHook, News, Stage};
use crate::viewer::answer::{self, Ours, Ssrcs};
use crate::viewer::lean::{Identity, LeanViewer, secret};
use crate::{MediaError, Options, Peer, metrics};
use parking_lot::Mutex;
use proto::relay::v1::{self, SubscribeReply, SubscribeRequest, TrunkKey, UnsubscribeRequest};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often leases and idle stages are looked at.
const SWEEP: Duration = Duration::from_millis(250);
/// Hops below the origin: origin, root, node.
const DEPTH_MAX: u32 = 3;
/// Leases, whatever a child asks.
const LEASE_MAX: Duration = Duration::from_secs(10);

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
    /// Viewers here, those who are joining included.
    pub viewers: u64,
    /// Packets of the stream that is up, all tracks.
    pub packets: u64,
    /// Packets that never came by the trunk, after all retries.
    pub lost: u64,
    /// Pictures of the stream that is up.
    pub frames: u64,
}

/// The media plane of this node; cheap to clone.
#[derive(Clone)]
pub struct Media {
    inner: Arc<Inner>,
}

/// What `Media`'s parts share.
pub(crate) struct Inner {
    pub(crate) options: Arc<Options>,
    pub(crate) carrier: Arc<Carrier>,
    pub(crate) publishers: Mutex<HashMap<String, Arc<Publisher>>>,
    /// Counts publications; starts at the wall clock's second, so that a restarted node goes on above.
    pub(crate) epoch: AtomicU32,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) clock: Clock,
    identity: Arc<Identity>,
    edge: Arc<Edge>,
    hooks: Arc<Vec<LaneHook>>,
    pulling: Arc<Pulling>,
    stages: Mutex<HashMap<String, Arc<Stage>>>,
    events: mpsc::Sender<StreamEvent>,
    lanes: Mutex<Vec<JoinHandle<()>>>,
    udp: SocketAddr,
    trunk: SocketAddr,
}

fn unavailable(error: impl std::fmt::Display) -> MediaError {
    MediaError::Unavailable(error.to_string())
}

fn bind(address: SocketAddr, buffer: usize) -> std::io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    // The kernel may give less; a small buffer only means that bursts drop sooner.
    let _ = socket.set_recv_buffer_size(buffer);
    let _ = socket.set_send_buffer_size(buffer);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn start_lanes(
    options: &Arc<Options>,
    socket: &std::net::UdpSocket,
    clock: Clock,
) -> Result<(Arc<Edge>, Vec<JoinHandle<()>>), MediaError> {
    let media_lanes = options.lanes.max(1);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..=media_lanes)
        .map(|_| sync_channel::<Input>(options.lane_queue.max(16)))
        .unzip();
    let edge = Arc::new(Edge::new(senders, options.viewers_max));
    let exit = Exit::new(socket.try_clone().map_err(unavailable)?).map_err(unavailable)?;
    let exit = Arc::new(exit);
    let mut threads = Vec::new();
    for (index, inputs) in receivers.into_iter().enumerate() {
        let joins = index == media_lanes;
        let name = if joins {
            "media-joins".to_string()
        } else {
            format!("media-lane-{index}")
        };
        let lane = Lane::new(index, joins, inputs, exit.clone(), edge.clone(), options.clone(), clock);
        threads.push(
            std::thread::Builder::new()
                .name(name)
                .spawn(move || lane.run())
                .map_err(unavailable)?,
        );
    }
    Ok((edge, threads))
}

impl Media {
    /// Binds the sockets and starts lanes, trunk and sweeper. `peers`: the live nodes, as the cluster map has them.
    /// `control`: how their relay services are reached (`TonicControl`).
    pub async fn start(
        options: Options,
        peers: watch::Receiver<Vec<Peer>>,
        events: mpsc::Sender<StreamEvent>,
        control: Arc<dyn RelayControl>,
    ) -> Result<Media, MediaError> {
        metrics::describe();
        let options = Arc::new(options);
        let clock = Clock(Instant::now());
        let viewers =
            bind(SocketAddr::new(options.ip, options.udp_port), options.socket_buffer).map_err(unavailable)?;
        let trunk =
            bind(SocketAddr::new(options.ip, options.trunk_port), options.socket_buffer).map_err(unavailable)?;
        let udp = viewers.local_addr().map_err(unavailable)?;
        let trunk_addr = trunk.local_addr().map_err(unavailable)?;
        let (edge, lanes) = start_lanes(&options, &viewers, clock)?;
        let hooks = (0..edge.media_lanes())
            .map(|lane| {
                let edge = edge.clone();
                LaneHook {
                    wake: Box::new(move |stage| edge.offer(lane, Input::Wake(stage.clone()))),
                }
            })
            .collect();
        let carrier = Arc::new(Carrier::new(UdpSocket::from_std(trunk).map_err(unavailable)?, clock));
        let pulling = Arc::new(Pulling {
            options: options.clone(),
            carrier: carrier.clone(),
            control,
            peers,
            trunk: options.announced(trunk_addr),
            instance: rand::random(),
            contacts: Mutex::default(),
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let reader = UdpSocket::from_std(viewers).map_err(unavailable)?;
        tasks.spawn(edge::read(reader, edge.clone(), stop.clone()));
        tasks.spawn(carrier.clone().run(stop.clone()));
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |wall| wall.as_secs() as u32);
        let inner = Arc::new(Inner {
            identity: Arc::new(Identity::generate()?),
            options,
            carrier,
            publishers: Mutex::default(),
            epoch: AtomicU32::new(epoch),
            stop,
            tasks,
            clock,
            edge,
            hooks: Arc::new(hooks),
            pulling,
            stages: Mutex::default(),
            events,
            lanes: Mutex::new(lanes),
            udp,
            trunk: trunk_addr,
        });
        inner.tasks.spawn(sweep(Arc::downgrade(&inner), inner.stop.clone()));
        tracing::info!(%udp, trunk = %trunk_addr, "media is up");
        Ok(Media { inner })
    }

    /// WHIP: takes a seller's offer. A second publisher of the same auction takes over with its first packet.
    pub async fn publish(&self, auction: &str, offer: &str) -> Result<Answer, MediaError> {
        refusal(self.inner.publish(auction, offer).await)
    }

    /// WHEP: takes a viewer's offer. A stream that isn't up yet is waited for, connected; `origin` is the node that
    /// takes the stream in, if the caller knows it (it counts until `set_origin` says more).
    pub async fn watch(&self, auction: &str, origin: Option<u64>, offer: &str) -> Result<Answer, MediaError> {
        refusal(self.inner.watch(auction, origin, offer))
    }

    /// Tells where an auction's stream comes in, as its events say. A publisher here whose stream was known to the
    /// auction ends when the seller turns up elsewhere.
    pub fn set_origin(&self, auction: &str, origin: Option<u64>) {
        let stage = self.inner.stages.lock().get(auction).cloned();
        if let Some(stage) = stage {
            self.inner.set_origin(&stage, origin);
        }
    }

    /// Trickled candidates or an ICE restart (`application/trickle-ice-sdpfrag`).
    pub async fn patch(&self, session: &str, fragment: &str) -> Result<Option<String>, MediaError> {
        let fragment = refusal(Fragment::parse(fragment, self.inner.options.sdp_max))?;
        if let Some(viewer) = self.inner.edge.find(session) {
            return Ok(self.inner.patch_viewer(viewer, &fragment));
        }
        let publisher = self.inner.publishers.lock().get(session).cloned();
        let publisher = publisher.ok_or(MediaError::NotFound)?;
        if fragment.candidates.is_empty() && fragment.ufrag.is_some() {
            return refusal(Err(MediaError::Unsupported(
                "an ICE restart of a publisher: publish again, it takes over",
            )));
        }
        refusal(publisher.trickle(fragment.candidates).await)?;
        Ok(None)
    }

    /// Ends a session, publisher's or viewer's.
    pub async fn end(&self, session: &str) -> Result<(), MediaError> {
        if let Some(viewer) = self.inner.edge.find(session) {
            self.inner.edge.give(viewer, Input::Leave { viewer });
            return Ok(());
        }
        let publisher = self.inner.publishers.lock().get(session).cloned();
        publisher.ok_or(MediaError::NotFound)?.stop.cancel();
        Ok(())
    }

    /// What a viewer's RTP times stand for. None: no such viewer here, or nothing to see yet.
    pub fn captured(&self, session: &str) -> Option<Captured> {
        self.inner.edge.shown(session)?.captured(self.inner.clock)
    }

    /// What this node carries.
    pub fn stats(&self) -> Vec<StreamStats> {
        let stages: Vec<Arc<Stage>> = self.inner.stages.lock().values().cloned().collect();
        let mut stats: Vec<StreamStats> = stages.iter().map(|stage| stage_stats(stage)).collect();
        stats.sort_by(|a, b| a.auction.cmp(&b.auction));
        stats
    }

    /// Where viewers' packets go.
    pub fn udp_addr(&self) -> SocketAddr {
        self.inner.udp
    }

    /// Where other nodes' trunks go.
    pub fn trunk_addr(&self) -> SocketAddr {
        self.inner.trunk
    }

    /// The service by which other nodes subscribe; mount it on the node's gRPC server.
    pub fn relay_service(&self) -> RelayServer {
        control::server(self.clone())
    }

    /// Ends all sessions, tasks and threads, and waits for them.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        let stages: Vec<Arc<Stage>> = self.inner.stages.lock().drain().map(|(_, stage)| stage).collect();
        stages.iter().for_each(|stage| stage.stop.cancel());
        let edge = self.inner.edge.clone();
        let lanes = std::mem::take(&mut *self.inner.lanes.lock());
        let ended = tokio::task::spawn_blocking(move || {
            // The joins lane first: it gives viewers to the others.
            for lane in (0..=edge.media_lanes()).rev() {
                edge.send(lane, Input::Stop);
            }
            for lane in lanes {
                let _ = lane.join();
            }
        });
        let _ = ended.await;
        self.inner.tasks.wait().await;
    }

    pub(crate) async fn subscribe(&self, request: SubscribeRequest) -> Result<SubscribeReply, MediaError> {
        refusal(self.inner.subscribe(request).await)
    }

    pub(crate) fn unsubscribe(&self, request: &UnsubscribeRequest) {
        let stage = self.inner.stages.lock().get(&request.auction).cloned();
        if let Some(stage) = stage {
            stage.demand(|demand| demand.release(request.node));
        }
    }
}

fn refusal<T>(result: Result<T, MediaError>) -> Result<T, MediaError> {
    if let Err(error) = &result {
        metrics::refused(error.code());
        tracing::debug!(code = error.code(), %error, "a media request is refused");
    }
    result
}

fn stage_stats(stage: &Stage) -> StreamStats {
    let live = stage.live.load_full();
    let tracks = live.as_ref().map(|live| live.tracks.load_full()).unwrap_or_default();
    StreamStats {
        auction: stage.auction.clone(),
        origin: live.as_ref().is_some_and(|live| live.origin),
        viewers: stage.demand.lock().viewers(),
        packets: tracks.iter().map(|t| t.packets.load(Ordering::Relaxed)).sum(),
        lost: tracks.iter().map(|t| t.lost.load(Ordering::Relaxed)).sum(),
        frames: tracks.iter().map(|t| t.frames.load(Ordering::Relaxed)).sum(),
    }
}

/// Ends leases that weren't renewed, and forgets stages that nobody needs.
async fn sweep(media: Weak<Inner>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let Some(media) = media.upgrade() else { return };
        let now = media.clock.ms();
        media.stages.lock().retain(|_, stage| {
            let (ended, _) = stage.demand(|demand| demand.expire(now));
            for node in ended {
                tracing::info!(auction = %stage.auction, node, "a relay's lease ended");
            }
            if stage.demand.lock().nodes().next().is_none() {
                stage.depth.store(0, Ordering::Relaxed);
            }
            let keep = !stage.is_idle();
            if !keep {
                stage.stop.cancel();
            }
            keep
        });
    }
}

impl Inner {
    /// The auction's stage, made if need be; `enter` marks it as needed before anybody can sweep it away.
    fn stage<R>(&self, auction: &str, enter: impl FnOnce(&Arc<Stage>) -> R) -> Result<(Arc<Stage>, R), MediaError> {
        let mut stages = self.stages.lock();
        if self.stop.is_cancelled() {
            return Err(MediaError::Unavailable("shutting down".into()));
        }
        if let Some(stage) = stages.get(auction) {
            return Ok((stage.clone(), enter(stage)));
        }
        if stages.len() >= self.options.stages_max {
            return Err(MediaError::Busy("stages"));
        }
        let age = self.options.replay_age;
        let stage = Stage::new(auction, self.hooks.clone(), self.carrier.clone(), self.clock, age);
        stages.insert(auction.into(), stage.clone());
        self.tasks.spawn(pull::run(self.pulling.clone(), stage.clone()));
        let entered = enter(&stage);
        Ok((stage, entered))
    }

    /// Tells the auction; waits for room, so that no event is lost.
    pub(crate) async fn tell(&self, event: StreamEvent) {
        tracing::info!(?event, "stream");
        if self.events.send(event).await.is_err() {
            tracing::warn!("nobody listens to stream events");
        }
    }

    async fn publish(self: &Arc<Self>, auction: &str, offer: &str) -> Result<Answer, MediaError> {
        if self.publishers.lock().len() >= self.options.publishers_max {
            return Err(MediaError::Busy("publishers"));
        }
        let (stage, ()) = self.stage(auction, |stage| {
            stage.pins.fetch_add(1, Ordering::AcqRel);
        })?;
        let session = format!("p-{}", name(20));
        let stream = format!("{}-{}", self.options.node, name(12));
        let answer = ingest::publish(self, stage.clone(), session, stream, offer).await;
        stage.pins.fetch_sub(1, Ordering::AcqRel);
        answer
    }

    fn watch(&self, auction: &str, origin: Option<u64>, offer: &str) -> Result<Answer, MediaError> {
        let offer = Offer::parse(offer, self.options.sdp_max)?;
        let (stage, presence) = self.stage(auction, Presence::new)?;
        if origin.is_some() && stage.news.borrow().origin.is_none() {
            self.set_origin(&stage, origin);
        }
        let (ufrag, password) = (secret(12), secret(24));
        let session = format!("v-{}", name(20));
        let wanted = stage
            .live
            .load()
            .as_ref()
            .and_then(|live| live.video())
            .map(|track| (track.codec, track.fmtp.clone()));
        let ours = Ours {
            ufrag: &ufrag,
            password: &password,
            fingerprint: &self.identity.fingerprint,
            address: self.options.announced(self.udp),
            ssrcs: Ssrcs::from(rand::random()),
            wanted,
        };
        let client = answer::is_client(offer.setup);
        let (sdp, legs) = answer::answer(&offer, &ours, client)?;
        let now = Instant::now();
        let transport = LeanViewer::new(self.identity.clone(), password.clone(), client, offer.fingerprint, now)?;
        let number = self.edge.admit(&session, &ufrag)?;
        let viewer = Viewer::new(number, Box::new(transport), presence, legs, now);
        self.edge.show(number, &viewer.shown);
        // Not waited for: a joins lane that is full is a node that is full.
        if !self
            .edge
            .offer(self.edge.media_lanes(), Input::Arrive(Box::new(viewer)))
        {
            self.edge.forget(number);
            return Err(MediaError::Busy("joins"));
        }
        tracing::debug!(viewer = number, auction, "a viewer joins");
        Ok(Answer { session, sdp })
    }

    fn patch_viewer(&self, viewer: u64, fragment: &Fragment) -> Option<String> {
        // Candidates are of no use to a lite agent: it waits for checks. New credentials are a restart.
        if fragment.ufrag.is_none() || !fragment.candidates.is_empty() {
            return None;
        }
        let (ufrag, password) = (secret(12), secret(24));
        self.edge.add_ufrag(viewer, &ufrag);
        self.edge.give(
            viewer,
            Input::Restart {
                viewer,
                password: password.clone(),
            },
        );
        Some(answer::restart_fragment(
            &ufrag,
            &password,
            self.options.announced(self.udp),
        ))
    }

    fn set_origin(&self, stage: &Arc<Stage>, origin: Option<u64>) {
        stage
            .news
            .send_if_modified(|news| std::mem::replace(&mut news.origin, origin) != origin);
        let mut publisher = stage.publisher.lock();
        let Some(held) = publisher.as_mut() else { return };
        match origin {
            Some(node) if node == self.options.node => held.confirmed = true,
            Some(_) if held.confirmed => held.stop.cancel(),
            // Old news: our publisher's first packet is younger than what the auction says.
            _ => {}
        }
    }

    async fn subscribe(&self, request: SubscribeRequest) -> Result<SubscribeReply, MediaError> {
        let remote: SocketAddr = request
            .trunk
            .parse()
            .map_err(|_| MediaError::BadSdp("a trunk address"))?;
        if request.depth > DEPTH_MAX || request.node == self.options.node {
            return Err(MediaError::Unsupported("relays that ask each other in a ring"));
        }
        let lease = Duration::from_millis(u64::from(request.lease_ms)).min(LEASE_MAX);
        let until = self.clock.ms() + lease.as_millis() as u64;
        let given = self
            .carrier
            .give(request.node, request.instance, request.known_key, remote);
        let (key, secret) = given.ok_or_else(|| unavailable("no key"))?;
        let (stage, (fresh, _)) = self.stage(&request.auction, |stage| {
            stage.demand(|demand| demand.lease(request.node, until))
        })?;
        stage.depth.fetch_max(u64::from(request.depth), Ordering::Relaxed);
        if stage.news.borrow().origin.is_none() && request.origin != 0 {
            self.set_origin(&stage, Some(request.origin));
        }
        if fresh {
            tracing::info!(auction = %stage.auction, node = request.node, "a relay subscribes");
        }
        let known =
            (!request.known_stream.is_empty()).then(|| (request.known_stream.clone(), request.known_tracks as usize));
        let wait = Duration::from_millis(u64::from(request.wait_ms)).min(lease / 2);
        let mut news = stage.news.subscribe();
        tokio::select! {
            _ = tokio::time::timeout(wait, news.wait_for(|news: &News| news.live != known)) => {}
            () = self.stop.cancelled() => return Err(MediaError::Unavailable("shutting down".into())),
        }
        Ok(SubscribeReply {
            stream: stage.live.load_full().map(|live| describe(&live)),
            key: secret.map(|secret| TrunkKey {
                id: key,
                secret: secret.into(),
            }),
            trunk: self.options.announced(self.trunk).to_string(),
        })
    }
}

fn describe(live: &crate::stage::Live) -> v1::Stream {
    let tracks = live.tracks.load();
    let track = |track: &Arc<crate::stage::Track>| v1::Track {
        track: u32::from(track.number),
        kind: if track.codec.is_video() { "video" } else { "audio" }.into(),
        codec: track.codec.name().into(),
        clock_rate: track.codec.clock_rate(),
        fmtp: track.fmtp.clone(),
    };
    v1::Stream {
        id: live.id.clone(),
        number: live.number,
        epoch: live.epoch,
        tracks: tracks.iter().map(track).collect(),
    }
}

/// `length` characters of an id that nobody guesses.
fn name(length: usize) -> String {
    secret(length).replace('+', "-").replace('/', "_")
}
