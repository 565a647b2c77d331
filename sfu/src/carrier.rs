//! The carrier: the trunk's socket, and what comes and goes by it.
//!
//! ```text
//!   stage.push --> media() --seal--> socket ~~~~> socket --open--> receive() --> the child's stage.push
//!                                      ^                               |
//!                                      '----- nack, keyframe, ping ----'
//! ```
//!
//! A packet is sealed and sent by whoever brought it (the publisher's task, or this one for a relay of a relay): there
//! is no queue between, and a full socket drops, which the child sees as a gap and asks again.

use crate::capture::Clocks;
use crate::metrics::{self, Way};
use crate::stage::{Children, Clock, Live, Source, Stage, Stored};
use crate::trunk::{self, Association, Associations, DATAGRAM_MAX, End};
use bytes::{Bytes, BytesMut};
use forward::capture::Line;
use forward::gaps::{Gaps, Timing};
use forward::sequence::nearest32;
use forward::trunk::{Frame, NACK_MAX};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// How often gaps are looked at while streams come in.
const TICK: Duration = Duration::from_millis(5);
/// Between two pings of a pair.
const PING_MS: u64 = 500;

/// A stream that comes in by the trunk.
struct Incoming {
    parent: u64,
    stage: Weak<Stage>,
    live: Weak<Live>,
    tracks: HashMap<u8, IncomingTrack>,
}

struct IncomingTrack {
    newest: u64,
    gaps: Gaps,
}

/// The trunk's half of the packet path.
pub(crate) struct Carrier {
    socket: UdpSocket,
    clock: Clock,
    associations: Mutex<Associations>,
    /// Streams that are up here, by number: what children may ask of.
    streams: Mutex<HashMap<u64, (Weak<Stage>, Weak<Live>)>>,
    incoming: Mutex<HashMap<u64, Incoming>>,
    clocks: Clocks,
    /// A stream started to come in.
    woken: tokio::sync::Notify,
}

/// Asks the parent for keyframes.
pub(crate) struct TrunkSource {
    pub(crate) carrier: Weak<Carrier>,
    pub(crate) stream: u64,
}

impl Source for TrunkSource {
    fn keyframe(&self, track: u8) {
        let Some(carrier) = self.carrier.upgrade() else { return };
        let parent = carrier
            .incoming
            .lock()
            .get(&self.stream)
            .map(|incoming| incoming.parent);
        if let Some(parent) = parent {
            metrics::keyframe_ask(Way::Trunk);
            carrier.send(
                parent,
                End::Child,
                &Frame::Keyframe {
                    stream: self.stream,
                    track,
                },
            );
        }
    }
}

impl Children for Carrier {
    fn media(&self, nodes: &[u64], live: &Live, track: u8, sequence: u64, stored: &Arc<Stored>) {
        for node in nodes {
            self.send(*node, End::Parent, &self.frame(live, track, sequence, stored));
        }
        self.tell_capture(nodes, live, track);
        metrics::packets_out(Way::Trunk, nodes.len() as u64);
    }
}

impl Carrier {
    pub(crate) fn new(socket: UdpSocket, clock: Clock) -> Carrier {
        Carrier {
            socket,
            clock,
            associations: Mutex::default(),
            streams: Mutex::default(),
            incoming: Mutex::default(),
            clocks: Clocks::default(),
            woken: tokio::sync::Notify::new(),
        }
    }

    fn frame<'a>(&self, live: &Live, track: u8, sequence: u64, stored: &'a Stored) -> Frame<'a> {
        let stamp = self.clock.ms() as u32;
        Frame::Media {
            epoch: live.epoch,
            stream: live.number,
            track,
            sequence: sequence as u32,
            stamp,
            rtp: &stored.raw,
        }
    }

    fn send(&self, node: u64, end: End, frame: &Frame<'_>) {
        let mut associations = self.associations.lock();
        if let Some(association) = associations.of(node, end) {
            self.send_by(association, frame);
        }
    }

    fn send_by(&self, association: &mut Association, frame: &Frame<'_>) {
        if let Some(datagram) = association.seal(frame)
            && self.socket.try_send_to(&datagram, association.remote).is_err()
        {
            metrics::dropped("trunk");
        }
    }

    /// Tells the nodes below when a track was captured, from time to time.
    fn tell_capture(&self, nodes: &[u64], live: &Live, number: u8) {
        let due = live.track(number).and_then(|track| track.capture.due(self.clock.ms()));
        let Some((line, legs)) = due else { return };
        let frame = Frame::Capture {
            stream: live.number,
            track: number,
            line,
            legs,
        };
        for node in nodes {
            self.send(*node, End::Parent, &frame);
        }
    }

    /// A parent told when a track was captured.
    fn capture_in(&self, node: u64, (stream, track): (u64, u8), line: Line, legs: &[u32]) {
        let live = {
            let incoming = self.incoming.lock();
            // A former parent's word would mix two ways.
            incoming
                .get(&stream)
                .filter(|entry| entry.parent == node)
                .and_then(|entry| entry.live.upgrade())
        };
        if let (Some(line), Some(track)) = (self.clocks.ours(node, line), live.and_then(|live| live.track(track))) {
            track.capture.is(line, legs);
        }
    }

    /// A key for a child (see `Associations::give`).
    pub(crate) fn give(
        &self,
        node: u64,
        instance: u64,
        known: u64,
        remote: SocketAddr,
    ) -> Option<(u64, Option<Vec<u8>>)> {
        self.associations
            .lock()
            .give(node, instance, known, remote, Instant::now())
    }

    /// A parent's key for us.
    pub(crate) fn install(&self, node: u64, key: u64, secret: &[u8], remote: SocketAddr) -> bool {
        match Association::new(key, secret, node, End::Child, remote, Instant::now()) {
            Some(association) => {
                self.associations.lock().install(association);
                true
            }
            None => false,
        }
    }

    /// The key that we have from a parent; 0: none.
    pub(crate) fn known_key(&self, node: u64) -> u64 {
        self.associations
            .lock()
            .of(node, End::Child)
            .map_or(0, |association| association.key)
    }

    /// A stream is up here.
    pub(crate) fn register(&self, stage: &Arc<Stage>, live: &Arc<Live>) {
        let mut streams = self.streams.lock();
        streams.retain(|_, (_, live)| live.strong_count() > 0);
        streams.insert(live.number, (Arc::downgrade(stage), Arc::downgrade(live)));
    }

    /// A stream comes from `parent` from now on.
    pub(crate) fn expect(&self, stage: &Arc<Stage>, live: &Arc<Live>, parent: u64) {
        let mut incoming = self.incoming.lock();
        incoming.retain(|_, incoming| incoming.live.strong_count() > 0);
        let entry = incoming.entry(live.number).or_insert_with(|| Incoming {
            parent,
            stage: Arc::downgrade(stage),
            live: Arc::downgrade(live),
            tracks: HashMap::new(),
        });
        entry.parent = parent;
        self.woken.notify_one();
    }

    /// Runs the socket until it is told to stop.
    pub(crate) async fn run(self: Arc<Carrier>, stop: CancellationToken) {
        let mut buffer = BytesMut::zeroed(DATAGRAM_MAX);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pinged = 0;
        loop {
            let busy = !self.incoming.lock().is_empty();
            tokio::select! {
                () = stop.cancelled() => return,
                received = self.socket.recv_from(&mut buffer) => {
                    if let Ok((length, _)) = received {
                        self.receive(&mut buffer[..length]);
                    }
                }
                _ = tick.tick(), if busy => self.tick(&mut pinged),
                () = self.woken.notified(), if !busy => {}
            }
        }
    }

    fn receive(self: &Arc<Carrier>, datagram: &mut [u8]) {
        let now = Instant::now();
        let mut associations = self.associations.lock();
        let Some(association) = trunk::key_of(datagram).and_then(|key| associations.by_key(key)) else {
            metrics::dropped("trunk_unknown");
            return;
        };
        let (node, end) = (association.node, association.end);
        let Some(frame) = association.open(datagram, now).and_then(Frame::decode) else {
            metrics::dropped("trunk_forged");
            return;
        };
        match (frame, end) {
            (Frame::Ping { stamp }, End::Parent) => self.send_by(association, &Frame::Pong { stamp }),
            (Frame::Pong { stamp }, End::Child) => {
                let took = u64::from((self.clock.ms() as u32).wrapping_sub(stamp));
                association.measured(took);
                metrics::trunk_round_trip(Duration::from_millis(took));
            }
            (
                Frame::Nack {
                    stream,
                    track,
                    sequences,
                },
                End::Parent,
            ) => {
                drop(associations);
                self.retransmit(node, stream, track, &sequences);
            }
            (Frame::Keyframe { stream, track }, End::Parent) => {
                drop(associations);
                self.ask_keyframe(node, stream, track);
            }
            (
                Frame::Media {
                    stream,
                    track,
                    sequence,
                    rtp,
                    ..
                },
                End::Child,
            ) => {
                let rtp = Bytes::copy_from_slice(rtp);
                drop(associations);
                self.media_in(node, stream, track, sequence, rtp);
            }
            (Frame::AskTime { asked }, End::Parent) => {
                let read = self.clock.us_at(now);
                self.send_by(association, &Frame::Time { asked, read });
            }
            (Frame::Time { asked, read }, End::Child) => {
                self.clocks.answered(node, (asked, read, self.clock.us_at(now)));
            }
            (
                Frame::Capture {
                    stream,
                    track,
                    line,
                    legs,
                },
                End::Child,
            ) => {
                drop(associations);
                self.capture_in(node, (stream, track), line, &legs);
            }
            _ => metrics::dropped("trunk_misplaced"),
        }
    }

    /// A stream that this node may ask of.
    fn served(&self, node: u64, stream: u64) -> Option<(Arc<Stage>, Arc<Live>)> {
        let (stage, live) = self.streams.lock().get(&stream).cloned()?;
        let (stage, live) = (stage.upgrade()?, live.upgrade()?);
        let subscribed = stage.demand.lock().nodes().any(|n| n == node);
        subscribed.then_some((stage, live))
    }

    fn ask_keyframe(&self, node: u64, stream: u64, track: u8) {
        if let Some((stage, live)) = self.served(node, stream)
            && let Some(track) = live.track(track)
        {
            stage.ask_keyframe(&live, &track);
        }
    }

    fn retransmit(&self, node: u64, stream: u64, track: u8, sequences: &[u32]) {
        let Some((_, live)) = self.served(node, stream) else {
            return;
        };
        let Some(track) = live.track(track) else { return };
        let mut sent = 0;
        for sequence in sequences {
            let found = track.read(|state| {
                let number = nearest32(state.ring.newest()?, *sequence);
                state.ring.get(number).map(|stored| (number, stored.clone()))
            });
            if let Some((number, stored)) = found {
                self.send(node, End::Parent, &self.frame(&live, track.number, number, &stored));
                sent += 1;
            }
        }
        metrics::retransmitted(Way::Trunk, sent);
    }

    fn media_in(&self, node: u64, stream: u64, number: u8, sequence: u32, rtp: Bytes) {
        let mut incoming = self.incoming.lock();
        let Some(entry) = incoming.get_mut(&stream) else { return };
        let (Some(stage), Some(live)) = (entry.stage.upgrade(), entry.live.upgrade()) else {
            incoming.remove(&stream);
            return;
        };
        if entry.parent != node {
            // From a former parent, still under way: as good as any.
            metrics::dropped("trunk_former");
        }
        let Some(track) = live.track(number) else { return };
        let held = entry.tracks.entry(number).or_insert_with(|| IncomingTrack {
            newest: (1 << 32) + u64::from(sequence),
            gaps: Gaps::new(Timing::TRUNK),
        });
        let extended = nearest32(held.newest, sequence);
        held.newest = held.newest.max(extended);
        held.gaps.packet(extended, self.clock.ms());
        drop(incoming);
        metrics::packets_in(Way::Trunk, 1);
        stage.push(&live, &track, extended, rtp);
    }

    /// Asks for what is missing, and measures round trips.
    fn tick(&self, pinged: &mut u64) {
        let now = self.clock.ms();
        let mut asks = Vec::new();
        {
            let mut incoming = self.incoming.lock();
            let mut associations = self.associations.lock();
            incoming.retain(|_, entry| entry.live.strong_count() > 0);
            for (stream, entry) in incoming.iter_mut() {
                let round_trip = associations.of(entry.parent, End::Child).map_or(0, |a| a.round_trip);
                let Some(live) = entry.live.upgrade() else { continue };
                for (track, held) in &mut entry.tracks {
                    let mut due = Vec::new();
                    let before = held.gaps.lost();
                    held.gaps.due(now, round_trip, &mut due);
                    let lost = held.gaps.lost();
                    if lost > before {
                        metrics::packets_lost(lost - before);
                        if let Some(track) = live.track(*track) {
                            track.lost.store(lost, Ordering::Relaxed);
                        }
                    }
                    for part in due.chunks(NACK_MAX) {
                        let sequences = part.iter().map(|n| *n as u32).collect();
                        asks.push((
                            entry.parent,
                            Frame::Nack {
                                stream: *stream,
                                track: *track,
                                sequences,
                            },
                        ));
                    }
                }
            }
            if now >= *pinged + PING_MS {
                *pinged = now;
                for association in associations.all().filter(|a| a.end == End::Child) {
                    self.send_by(association, &Frame::Ping { stamp: now as u32 });
                    let asked = self.clock.us();
                    self.send_by(association, &Frame::AskTime { asked });
                }
            }
        }
        for (node, frame) in asks {
            self.send(node, End::Child, &frame);
        }
    }
}
