//! A viewer: its transport, its stage, and its legs, each with a place in a track's ring.
//!
//! A leg starts with the newest picture group if the ring has a fresh one, else with the next keyframe, which it asks
//! for. It follows the ring by `cursor`; holes are skipped and remembered, and sent when they are filled. When the stage's
//! stream changes (another publisher, a relay's new parent with a new stream), the leg is spliced: the viewer's
//! decoder sees unbroken numbers.

use crate::capture::Place as Shown;
use crate::metrics::{self, Way};
use crate::outbox::Outbox;
use crate::rtcp::{Report, sender_report};
use crate::stage::{Clock, Live, Stage, Stored, Track};
use crate::viewer::answer::LegTerms;
use crate::viewer::{Outgoing, ViewerTransport};
use forward::offsets::Offsets;
use forward::replay::Plan;
use forward::resend::{Answer, RTT_UNKNOWN, Resends, round_trip};
use forward::rtp::Stamp;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A replayed picture's distance from the next, in ticks: a millisecond of 90 kHz.
const REPLAY_STEP: u32 = 90;
/// Holes that a leg remembers.
const HOLES_MAX: usize = 64;
/// Retransmissions to one viewer between two reports: a viewer's asks must not multiply its stream.
const RETRANSMITS_MAX: u32 = 1_000;
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Seconds from 1900 to 1970.
const NTP_EPOCH: u64 = 2_208_988_800;

/// Packets gathered from rings during one wake: viewers at the same place share them. Kept from wake to wake, for its room.
#[derive(Default)]
pub(crate) struct Batches {
    /// The first `used` are of this wake.
    batches: Vec<Batch>,
    used: usize,
}

#[derive(Default)]
struct Batch {
    track: u8,
    from: u64,
    /// One past the newest.
    until: u64,
    packets: Vec<(u64, Arc<Stored>)>,
}

impl Batches {
    /// The wake is served: its packets are let go.
    pub(crate) fn clear(&mut self) {
        for batch in &mut self.batches[..self.used] {
            batch.packets.clear();
        }
        self.used = 0;
    }

    fn gather(&mut self, track: &Track, from: u64) -> &Batch {
        let known = self.batches[..self.used]
            .iter()
            .position(|b| b.track == track.number && b.from == from);
        let index = known.unwrap_or_else(|| {
            if self.used == self.batches.len() {
                self.batches.push(Batch::default());
            }
            self.batches[self.used].fill(track, from);
            self.used += 1;
            self.used - 1
        });
        &self.batches[index]
    }
}

impl Batch {
    fn fill(&mut self, track: &Track, from: u64) {
        (self.track, self.from) = (track.number, from);
        track.read(|state| {
            self.until = state.ring.newest().map_or(from, |newest| newest + 1).max(from);
            for number in from.max(state.ring.oldest())..self.until {
                self.packets
                    .extend(state.ring.get(number).map(|packet| (number, packet.clone())));
            }
        });
    }
}

enum Place {
    /// No track yet.
    Unbound,
    /// Waits for a keyframe at or after this number.
    Waits(u64),
    /// Follows: the next number to send.
    Follows(u64),
}

struct Leg {
    terms: LegTerms,
    offsets: Offsets,
    track: Option<Arc<Track>>,
    payload_type: u8,
    /// Payload type of retransmissions, where they have a stream of their own, and its next number with its cycles.
    again: Option<u8>,
    again_next: u64,
    resends: Resends,
    place: Place,
    holes: Vec<u64>,
    sent_at: Option<Instant>,
    packets: u32,
    octets: u32,
}

/// What one pump did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pumped {
    /// Packets that went out.
    pub(crate) sent: u64,
    /// When the first of the live ones came in.
    pub(crate) oldest: Option<Instant>,
}

/// One viewer.
pub(crate) struct Viewer {
    pub(crate) number: u64,
    pub(crate) transport: Box<dyn ViewerTransport>,
    pub(crate) since: Instant,
    presence: Presence,
    live: Option<Arc<Live>>,
    legs: Vec<Leg>,
    retransmits: u32,
    /// The round trip, as its reports tell it, ms.
    rtt: u64,
    reported: Instant,
    /// Where its picture is, for its page.
    pub(crate) shown: Arc<Shown>,
}

/// A viewer counts as demand from its offer on, so that a relay asks its parent while the handshake runs; and until it
/// is dropped, whatever the way.
pub(crate) struct Presence {
    stage: Arc<Stage>,
}

impl Presence {
    pub(crate) fn new(stage: &Arc<Stage>) -> Presence {
        stage.demand(|demand| demand.viewer_came());
        metrics::viewers(1.0);
        Presence { stage: stage.clone() }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.stage.demand(|demand| demand.viewer_left());
        metrics::viewers(-1.0);
    }
}

impl Leg {
    fn bind(&mut self, track: &Arc<Track>, age_max: u64, clock: Clock) -> bool {
        let Some((payload_type, again)) = self.terms.payload_types(track.codec, &track.fmtp) else {
            return false;
        };
        (self.payload_type, self.again) = (payload_type, again);
        self.resends = Resends::default();
        self.track = Some(track.clone());
        self.holes.clear();
        self.place = if track.codec.is_video() {
            Place::Waits(track.read(
                |state| match state.group.replay_from(clock.ms(), age_max, state.ring.oldest()) {
                    Some(start) => start,
                    None => state.ring.newest().map_or(0, |newest| newest + 1),
                },
            ))
        } else {
            Place::Waits(track.read(|state| state.ring.newest().unwrap_or(0)))
        };
        true
    }

    /// A waiting leg starts if the ring has what it waits for.
    fn start(&mut self, now: Instant) {
        let (Place::Waits(from), Some(track)) = (&self.place, &self.track) else {
            return;
        };
        let from = *from;
        let begin = track.read(|state| {
            let newest = state.ring.newest()?;
            let start = if track.codec.is_video() {
                state.group.start()?
            } else {
                from.max(state.ring.oldest())
            };
            let first = state.ring.get(start)?.header.timestamp;
            if start < from {
                return None;
            }
            let times = (start..=newest).filter_map(|n| state.ring.get(n).map(|p| (n, p.header.timestamp)));
            let plan = if track.codec.is_video() {
                Plan::squeeze(times, REPLAY_STEP)
            } else {
                None
            };
            Some((start, first, plan))
        });
        if let Some((start, first, plan)) = begin {
            // Over a seam the leg's time goes on as long as the pause was.
            let pause = self
                .sent_at
                .map_or(0, |at| now.saturating_duration_since(at).as_millis() as u64);
            let step =
                (pause * u64::from(track.codec.clock_rate()) / 1000).max(u64::from(track.codec.clock_rate()) / 30);
            self.offsets.splice(start, first, step as u32, plan);
            self.place = Place::Follows(start);
        }
    }
}

fn send(leg: &mut Leg, transport: &mut dyn ViewerTransport, number: u64, stored: &Stored, out: &mut Outbox) -> bool {
    let Some((index, timestamp)) = leg.offsets.place(number, stored.header.timestamp) else {
        return false;
    };
    let stamp = Stamp {
        payload_type: leg.payload_type,
        sequence: index as u16,
        timestamp,
        ssrc: leg.terms.ssrc,
    };
    let sent = transport.send_rtp(
        Outgoing {
            stored,
            stamp,
            index,
            again: None,
        },
        out,
    );
    if sent {
        leg.packets = leg.packets.wrapping_add(1);
        leg.octets = leg.octets.wrapping_add(stored.header.payload.len() as u32);
    }
    sent
}

/// Sends a packet that went out before: in the stream for that, if the viewer took one.
fn send_again(
    leg: &mut Leg,
    transport: &mut dyn ViewerTransport,
    number: u64,
    stored: &Stored,
    out: &mut Outbox,
) -> bool {
    let Some(payload_type) = leg.again else {
        return send(leg, transport, number, stored, out);
    };
    let Some((first, timestamp)) = leg.offsets.place(number, stored.header.timestamp) else {
        return false;
    };
    let index = leg.again_next;
    leg.again_next += 1;
    let stamp = Stamp {
        payload_type,
        sequence: index as u16,
        timestamp,
        ssrc: leg.terms.again,
    };
    let packet = Outgoing {
        stored,
        stamp,
        index,
        again: Some(first as u16),
    };
    transport.send_rtp(packet, out)
}

impl Viewer {
    pub(crate) fn new(
        number: u64,
        transport: Box<dyn ViewerTransport>,
        presence: Presence,
        terms: Vec<LegTerms>,
        now: Instant,
    ) -> Viewer {
        let leg = |terms| Leg {
            terms,
            offsets: Offsets::starting_at(rand::random()),
            track: None,
            payload_type: 0,
            again: None,
            again_next: u64::from(rand::random::<u16>()),
            resends: Resends::default(),
            place: Place::Unbound,
            holes: Vec::new(),
            sent_at: None,
            packets: 0,
            octets: 0,
        };
        Viewer {
            number,
            transport,
            since: now,
            presence,
            live: None,
            legs: terms.into_iter().map(leg).collect(),
            retransmits: 0,
            rtt: RTT_UNKNOWN,
            reported: now,
            shown: Arc::default(),
        }
    }

    pub(crate) fn stage(&self) -> &Arc<Stage> {
        &self.presence.stage
    }

    /// The handshake is through.
    pub(crate) fn opened(&self) {
        metrics::joined(self.since.elapsed());
    }

    /// Follows the stage's stream: a change of it, or a track that showed itself.
    fn follow(&mut self, clock: Clock) {
        let live = self.presence.stage.live.load_full();
        let same = match (&self.live, &live) {
            (Some(held), Some(live)) => Arc::ptr_eq(held, live),
            (None, None) => true,
            _ => false,
        };
        if !same {
            for leg in &mut self.legs {
                leg.track = None;
                leg.place = Place::Unbound;
            }
            self.live = live;
        }
        let Some(live) = &self.live else { return };
        for leg in self.legs.iter_mut().filter(|leg| leg.track.is_none()) {
            let tracks = live.tracks.load();
            let Some(track) = tracks.iter().find(|t| t.codec.is_video() == leg.terms.video) else {
                continue;
            };
            let age_max = self.presence.stage.replay_age_ms;
            if leg.bind(track, age_max, clock) && track.codec.is_video() {
                leg.start(Instant::now());
                if !matches!(leg.place, Place::Follows(_)) {
                    self.presence.stage.ask_keyframe(live, track);
                }
            }
        }
    }

    /// Sends what is new.
    pub(crate) fn pump(&mut self, clock: Clock, batches: &mut Batches, out: &mut Outbox) -> Pumped {
        self.follow(clock);
        let Viewer {
            legs,
            transport,
            live,
            presence,
            shown,
            ..
        } = self;
        let mut pumped = Pumped::default();
        for leg in legs {
            let Some(track) = leg.track.clone() else { continue };
            let waited = !matches!(leg.place, Place::Follows(_));
            leg.start(Instant::now());
            let Place::Follows(cursor) = leg.place else { continue };
            let batch = batches.gather(&track, cursor);
            if batch
                .packets
                .first()
                .is_some_and(|(first, _)| *first > cursor + HOLES_MAX as u64)
            {
                // The ring ran away from us, or a great hole: what comes can't be decoded without a keyframe.
                leg.place = Place::Waits(batch.until);
                if let Some(live) = live {
                    presence.stage.ask_keyframe(live, &track);
                }
                continue;
            }
            fill_holes(leg, &track, transport.as_mut(), out);
            let mut next = cursor;
            for (number, stored) in &batch.packets {
                leg.holes.extend(next..*number);
                next = number + 1;
                pumped.sent += u64::from(send(leg, transport.as_mut(), *number, stored, out));
            }
            // A replay's packets came long ago; they stayed for the newcomer.
            if let (false, Some((_, first))) = (waited, batch.packets.first()) {
                pumped.oldest = Some(pumped.oldest.map_or(first.at, |oldest| oldest.min(first.at)));
            }
            let excess = leg.holes.len().saturating_sub(HOLES_MAX);
            leg.holes.drain(..excess);
            if !batch.packets.is_empty() {
                leg.sent_at = Some(Instant::now());
            }
            leg.place = Place::Follows(batch.until);
            if leg.terms.video {
                shown.is(&track, leg.offsets.timestamp(0));
            }
        }
        pumped
    }

    /// Answers a NACK from the shared ring.
    pub(crate) fn retransmit(&mut self, ssrc: u32, numbers: &[u16], clock: Clock, out: &mut Outbox) {
        let Viewer {
            legs,
            transport,
            retransmits,
            rtt,
            ..
        } = self;
        let now = clock.ms();
        let Some(leg) = legs.iter_mut().find(|leg| leg.terms.ssrc == ssrc) else {
            return;
        };
        let Some(track) = leg.track.clone() else { return };
        let mut sent = 0;
        for number in numbers {
            if *retransmits >= RETRANSMITS_MAX {
                metrics::dropped("retransmits");
                break;
            }
            let Some(source) = leg.offsets.source_of(*number) else {
                continue;
            };
            let Some(stored) = track.read(|state| state.ring.get(source).cloned()) else {
                continue;
            };
            match leg.resends.ask(source, now, *rtt) {
                Answer::Send => {}
                Answer::UnderWay => continue,
                Answer::GivenUp => {
                    metrics::dropped("resends");
                    continue;
                }
            }
            *retransmits += 1;
            sent += u64::from(send_again(leg, transport.as_mut(), source, &stored, out));
        }
        metrics::retransmitted(Way::Viewer, sent);
    }

    /// The viewer reports on a stream of ours: by that the round trip is known.
    pub(crate) fn heard(&mut self, ssrc: u32, last: u32, held: u32) {
        let ours = self.legs.iter().any(|leg| leg.terms.ssrc == ssrc);
        if let (true, Some(now)) = (ours, ntp_now())
            && let Some(trip) = round_trip((now >> 16) as u32, last, held)
        {
            self.rtt = trip;
        }
    }

    /// The viewer's decoder needs a keyframe.
    pub(crate) fn ask_keyframe(&self, ssrc: u32) {
        let leg = self.legs.iter().find(|leg| leg.terms.ssrc == ssrc);
        if let (Some(live), Some(track)) = (&self.live, leg.and_then(|leg| leg.track.as_ref())) {
            self.presence.stage.ask_keyframe(live, track);
        }
    }

    /// Sends reports when they are due: by them the viewer's player aligns sound and picture. A report names the RTP time of
    /// what is captured at that moment, not of what has come: a track that is held up on the way is late, and no less in step.
    pub(crate) fn report(&mut self, now: Instant, clock: Clock, out: &mut Outbox) {
        if now < self.reported + REPORT_EVERY {
            return;
        }
        self.reported = now;
        self.retransmits = 0;
        let Some(ntp) = ntp_now() else { return };
        for leg in &self.legs {
            let (Some(track), Place::Follows(_)) = (&leg.track, &leg.place) else {
                continue;
            };
            let Some(line) = track.capture.line() else {
                continue;
            };
            let report = Report {
                ssrc: leg.terms.ssrc,
                ntp,
                timestamp: leg.offsets.timestamp(line.rtp(clock.us_at(now))),
                packets: leg.packets,
                octets: leg.octets,
            };
            self.transport.send_rtcp(&sender_report(report), out);
        }
    }
}

/// The wall's time as NTP has it, 32.32.
fn ntp_now() -> Option<u64> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(((wall.as_secs() + NTP_EPOCH) << 32) | ((u64::from(wall.subsec_nanos()) << 32) / 1_000_000_000))
}

/// Sends what came late.
fn fill_holes(leg: &mut Leg, track: &Track, transport: &mut dyn ViewerTransport, out: &mut Outbox) {
    if leg.holes.is_empty() {
        return;
    }
    let filled: Vec<(u64, Arc<Stored>)> = track.read(|state| {
        leg.holes
            .iter()
            .filter_map(|hole| state.ring.get(*hole).map(|packet| (*hole, packet.clone())))
            .collect()
    });
    for (number, stored) in filled {
        leg.holes.retain(|hole| *hole != number);
        send(leg, transport, number, &stored, out);
    }
}
