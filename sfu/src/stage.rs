//! A stage: one auction's video at this node.
//!
//! ```text
//!   publisher or trunk --push--> Track (ring, picture group, keyframe gate)
//!                                  |-- wake --> lanes with viewers of this stage (they follow the ring by cursor)
//!                                  '-- child --> trunk (one copy per node below)
//! ```
//!
//! One writer per track (the publisher's task, or the trunk's); readers take the ring's lock for the moment of copying a
//! few handles. A wake carries nothing: a lane that was busy finds several packets in the ring at once, so the
//! lanes' queues can't fill with packets.

use crate::capture::Capture;
use crate::metrics;
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use forward::Codec;
use forward::keyframe::KeyframeGate;
use forward::replay::Group;
use forward::ring::{Inserted, Ring};
use forward::rtp::Header;
use forward::subscription::Demand;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Milliseconds since the process's media plane started: the clock that `forward` is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(pub(crate) Instant);

impl Clock {
    pub(crate) fn ms(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    /// The same in µs, as capture instants are counted.
    pub(crate) fn us(self) -> i64 {
        self.us_at(Instant::now())
    }

    /// What it read, or will read, at an instant.
    pub(crate) fn us_at(self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.0).as_micros() as i64;
        since - self.0.saturating_duration_since(at).as_micros() as i64
    }
}

/// A packet as it came, its header, and when it came to this node.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) raw: Bytes,
    pub(crate) header: Header,
    pub(crate) at: Instant,
}

/// What is behind a track's lock.
pub(crate) struct TrackState {
    pub(crate) ring: Ring<Arc<Stored>>,
    pub(crate) group: Group,
    gate: KeyframeGate,
}

/// One track of a stream.
pub(crate) struct Track {
    /// Its number in trunk frames.
    pub(crate) number: u8,
    pub(crate) codec: Codec,
    pub(crate) fmtp: String,
    state: Mutex<TrackState>,
    /// When it was captured.
    pub(crate) capture: Capture,
    pub(crate) packets: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) lost: AtomicU64,
}

impl Track {
    pub(crate) fn new(number: u8, codec: Codec, fmtp: String, ring: usize, keyframe_gap_ms: u64) -> Track {
        let state = TrackState {
            ring: Ring::new(ring),
            group: Group::default(),
            gate: KeyframeGate::new(keyframe_gap_ms),
        };
        Track {
            number,
            codec,
            fmtp,
            state: Mutex::new(state),
            capture: Capture::default(),
            packets: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    pub(crate) fn read<R>(&self, look: impl FnOnce(&TrackState) -> R) -> R {
        look(&self.state.lock())
    }

    /// Takes a packet in. False: it was here already, or came too late. The second part: ask for a keyframe now.
    fn insert(&self, sequence: u64, stored: Arc<Stored>, now: u64) -> (bool, bool) {
        let keyframe = self.codec.is_video() && self.codec.starts_keyframe(&stored.raw[stored.header.payload.clone()]);
        let marker = stored.header.marker;
        let mut state = self.state.lock();
        if state.ring.insert(sequence, stored) != Inserted::Kept {
            return (false, false);
        }
        if keyframe {
            state.group.keyframe(sequence, now);
            state.gate.arrived();
        }
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.frames
            .fetch_add(u64::from(marker && self.codec.is_video()), Ordering::Relaxed);
        (true, state.gate.due(now))
    }
}

/// How a stream's source is asked for a keyframe.
pub(crate) trait Source: Send + Sync {
    /// One ask, already merged.
    fn keyframe(&self, track: u8);
}

/// A stream that is up.
pub(crate) struct Live {
    pub(crate) id: String,
    /// Its number in trunk frames.
    pub(crate) number: u64,
    pub(crate) epoch: u32,
    /// Its publisher is connected here.
    pub(crate) origin: bool,
    /// Grows as tracks show themselves; never shrinks.
    pub(crate) tracks: ArcSwap<Vec<Arc<Track>>>,
    pub(crate) source: Box<dyn Source>,
}

impl Live {
    pub(crate) fn track(&self, number: u8) -> Option<Arc<Track>> {
        self.tracks.load().iter().find(|t| t.number == number).cloned()
    }

    pub(crate) fn video(&self) -> Option<Arc<Track>> {
        self.tracks.load().iter().find(|t| t.codec.is_video()).cloned()
    }

    /// Adds a track, unless its number is taken.
    pub(crate) fn add(&self, track: Arc<Track>) {
        self.tracks.rcu(|tracks| {
            let mut tracks = Vec::clone(tracks);
            if tracks.iter().all(|t| t.number != track.number) {
                tracks.push(track.clone());
            }
            tracks
        });
    }
}

/// Who wakes a lane.
pub(crate) struct LaneHook {
    pub(crate) wake: Box<dyn Fn(&Arc<Stage>) -> bool + Send + Sync>,
}

/// Who carries packets to nodes below.
pub(crate) trait Children: Send + Sync {
    fn media(&self, nodes: &[u64], live: &Live, track: u8, sequence: u64, stored: &Arc<Stored>);
}

/// What of a stage others wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// The stream that is up, and how many tracks it has.
    pub(crate) live: Option<(String, usize)>,
    /// Where the auction says that its stream comes in.
    pub(crate) origin: Option<u64>,
    /// A publisher is connected here.
    pub(crate) local: bool,
    /// Somebody wants the stream here.
    pub(crate) wanted: bool,
}

/// One auction's video at this node.
pub(crate) struct Stage {
    pub(crate) auction: String,
    pub(crate) live: ArcSwapOption<Live>,
    pub(crate) demand: Mutex<Demand>,
    /// Per lane: a wake is on its way; and how many viewers it has here.
    woken: Vec<(AtomicBool, AtomicU64)>,
    lanes: Arc<Vec<LaneHook>>,
    children: Arc<dyn Children>,
    /// Nodes below, as the packet path reads them.
    below: ArcSwap<Vec<u64>>,
    pub(crate) news: watch::Sender<News>,
    /// The publisher whose stream is up here.
    pub(crate) publisher: Mutex<Option<Publishing>>,
    /// Publishers on their way: the stage isn't idle.
    pub(crate) pins: AtomicU64,
    /// Hops below this node.
    pub(crate) depth: AtomicU64,
    /// Ends the stage's puller.
    pub(crate) stop: CancellationToken,
    pub(crate) replay_age_ms: u64,
    clock: Clock,
}

/// A publisher at a stage.
pub(crate) struct Publishing {
    pub(crate) session: String,
    pub(crate) stop: CancellationToken,
    /// The auction has named this node as origin since: from now on another origin means that the seller moved.
    pub(crate) confirmed: bool,
}

impl Stage {
    pub(crate) fn new(
        auction: &str,
        lanes: Arc<Vec<LaneHook>>,
        children: Arc<dyn Children>,
        clock: Clock,
        replay_age: Duration,
    ) -> Arc<Stage> {
        Arc::new(Stage {
            publisher: Mutex::new(None),
            pins: AtomicU64::new(0),
            depth: AtomicU64::new(0),
            stop: CancellationToken::new(),
            replay_age_ms: replay_age.as_millis() as u64,
            auction: auction.into(),
            live: ArcSwapOption::empty(),
            demand: Mutex::new(Demand::default()),
            woken: lanes
                .iter()
                .map(|_| (AtomicBool::new(false), AtomicU64::new(0)))
                .collect(),
            lanes,
            children,
            below: ArcSwap::default(),
            news: watch::channel(News::default()).0,
            clock,
        })
    }

    /// A packet of `live` came in.
    pub(crate) fn push(self: &Arc<Stage>, live: &Arc<Live>, track: &Track, sequence: u64, raw: Bytes) {
        let Ok(header) = Header::parse(&raw) else {
            metrics::dropped("malformed");
            return;
        };
        let at = Instant::now();
        let stored = Arc::new(Stored { raw, header, at });
        let (fresh, ask) = track.insert(sequence, stored.clone(), self.clock.ms());
        if ask {
            live.source.keyframe(track.number);
        }
        if !fresh {
            return;
        }
        if stored.header.marker && track.codec.is_video() {
            track
                .capture
                .picture(stored.header.timestamp, self.clock.us_at(stored.at));
        }
        let below = self.below.load();
        if !below.is_empty() {
            self.children.media(&below, live, track.number, sequence, &stored);
        }
        self.wake();
    }

    /// Wakes the lanes that have viewers here.
    pub(crate) fn wake(self: &Arc<Stage>) {
        for (hook, (woken, viewers)) in self.lanes.iter().zip(&self.woken) {
            if viewers.load(Ordering::Relaxed) > 0 && !woken.swap(true, Ordering::AcqRel) && !(hook.wake)(self) {
                // The lane is full of other work; the next packet tries again.
                woken.store(false, Ordering::Release);
            }
        }
    }

    /// A lane starts to serve a wake: packets from here on need another.
    pub(crate) fn waking(&self, lane: usize) {
        if let Some((woken, _)) = self.woken.get(lane) {
            woken.store(false, Ordering::Release);
        }
    }

    pub(crate) fn lane_viewers(&self, lane: usize, came: bool) {
        if let Some((_, viewers)) = self.woken.get(lane) {
            if came {
                viewers.fetch_add(1, Ordering::Relaxed);
            } else {
                viewers.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Somebody below or here needs a keyframe of this track.
    pub(crate) fn ask_keyframe(&self, live: &Live, track: &Track) {
        let ask = track.codec.is_video() && track.state.lock().gate.ask(self.clock.ms());
        if ask {
            live.source.keyframe(track.number);
        }
    }

    /// The stream changed: another one, none, or more tracks.
    pub(crate) fn set_live(self: &Arc<Stage>, live: Option<Arc<Live>>) {
        let named = live.as_ref().map(|live| (live.id.clone(), live.tracks.load().len()));
        self.live.store(live);
        self.news
            .send_if_modified(|news| std::mem::replace(&mut news.live, named.clone()) != named);
        self.wake();
    }

    /// Ends the stream if it is still this one.
    pub(crate) fn clear_live(self: &Arc<Stage>, id: &str) -> bool {
        let current = self.live.load().as_ref().is_some_and(|live| live.id == id);
        if current {
            self.set_live(None);
        }
        current
    }

    /// Changes who wants the stream, and tells the packet path and the puller.
    pub(crate) fn demand<R>(&self, change: impl FnOnce(&mut Demand) -> R) -> R {
        let mut demand = self.demand.lock();
        let result = change(&mut demand);
        let nodes: Vec<u64> = demand.nodes().collect();
        if **self.below.load() != nodes {
            self.below.store(Arc::new(nodes));
        }
        let wanted = demand.is_wanted();
        drop(demand);
        self.news
            .send_if_modified(|news| std::mem::replace(&mut news.wanted, wanted) != wanted);
        result
    }

    /// Nobody is here, above or below: the stage can be forgotten.
    pub(crate) fn is_idle(&self) -> bool {
        let news = self.news.borrow();
        !news.local && !news.wanted && news.live.is_none() && self.pins.load(Ordering::Acquire) == 0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Counts what reaches the seller, and the copies that go down.
    #[derive(Default)]
    pub(crate) struct Counts {
        asks: AtomicU64,
        copies: AtomicU64,
    }

    struct CountedSource(Arc<Counts>);

    impl Source for CountedSource {
        fn keyframe(&self, _: u8) {
            self.0.asks.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Children for Counts {
        fn media(&self, nodes: &[u64], _: &Live, _: u8, _: u64, _: &Arc<Stored>) {
            self.copies.fetch_add(nodes.len() as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn packet(sequence: u16, keyframe: bool) -> Bytes {
        let mut raw = vec![0x80, 96, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0x10, u8::from(!keyframe)];
        raw[2..4].copy_from_slice(&sequence.to_be_bytes());
        Bytes::from(raw)
    }

    pub(crate) fn stage() -> (Arc<Stage>, Arc<Live>, Arc<Track>, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        let clock = Clock(Instant::now());
        let stage = Stage::new(
            "lamp",
            Arc::new(Vec::new()),
            counts.clone(),
            clock,
            Duration::from_secs(2),
        );
        let track = Arc::new(Track::new(0, Codec::Vp8, String::new(), 64, 1_000_000));
        let live = Arc::new(Live {
            id: "s".into(),
            number: 1,
            epoch: 1,
            origin: true,
            tracks: ArcSwap::default(),
            source: Box::new(CountedSource(counts.clone())),
        });
        live.add(track.clone());
        stage.set_live(Some(live.clone()));
        (stage, live, track, counts)
    }

    #[test]
    fn a_crowds_keyframe_asks_are_one_ask() {
        let (stage, live, track, counts) = stage();
        for _ in 0..1_000 {
            stage.ask_keyframe(&live, &track);
        }
        assert_eq!(counts.asks.load(Ordering::Relaxed), 1);
        stage.push(&live, &track, 1, packet(1, true));
        stage.push(&live, &track, 2, packet(2, false));
        assert_eq!(counts.asks.load(Ordering::Relaxed), 1, "within the gap, and served");
    }

    #[test]
    fn one_copy_per_node_below_and_none_of_what_came_twice() {
        let (stage, live, track, counts) = stage();
        stage.push(&live, &track, 1, packet(1, true));
        assert_eq!(counts.copies.load(Ordering::Relaxed), 0);
        stage.demand(|demand| demand.lease(7, 1_000));
        stage.demand(|demand| demand.lease(8, 1_000));
        for sequence in [2, 3, 3, 2] {
            stage.push(&live, &track, sequence, packet(sequence as u16, false));
        }
        stage.push(&live, &track, 4, Bytes::from_static(b"no RTP"));
        assert_eq!(counts.copies.load(Ordering::Relaxed), 4);
        assert_eq!(track.packets.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn an_older_streams_end_changes_nothing() {
        let (stage, _, _, _) = stage();
        assert!(!stage.clear_live("another"));
        assert!(stage.live.load().is_some());
        assert!(stage.clear_live("s") && stage.is_idle());
    }
}
