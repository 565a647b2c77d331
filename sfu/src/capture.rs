//! When pictures and sound were captured, as this node knows it: at an origin from the seller, at a relay from its parent.
//!
//! ```text
//!   seller's reports --Uplink--> line --.                                    .--> sender reports to viewers
//!                                       v                                    |
//!                                 Track's Capture --(four times a second)--> trunk: line, legs --> the child's Capture
//!                                       |
//!                                 Places (a viewer's own RTP times) --> `Media::captured`: the table for its page
//! ```
//!
//! A line is in this node's media clock. From node to node it is moved by how far the two clocks are apart, which both
//! ends of a trunk measure by asking. With it go the legs so far: how long after its capture a picture was whole at each
//! node of the way, as a running mean.

use crate::metrics::{self, DelayLeg};
use crate::stage::{Clock, Track};
use forward::capture::{Apart, Line, Seller, abs_capture_time};
use forward::rtp::Header;
use forward::trunk::LEGS_MAX;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Between two tellings of a line to the nodes below, ms.
const TELL_MS: u64 = 250;
/// A picture in so many is written down in the histograms.
const ONE_IN: u32 = 16;
/// What a new picture counts for in a mean.
const SHARE: i64 = 16;
/// Older than this, a picture was kept, not carried. µs.
const FAR: i64 = 10_000_000;
/// The extension by which a packet says itself when it was captured.
pub(crate) const ACT_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";

/// A seller's uplink: what it says of its clock, and the lines that follow from that.
pub(crate) struct Uplink {
    clock: Clock,
    seller: Mutex<Seller>,
    /// The extension's id in this seller's packets.
    act: Option<u8>,
}

impl Uplink {
    /// `offer`: the seller's, for the ids of its extensions.
    pub(crate) fn new(clock: Clock, offer: &str) -> Arc<Uplink> {
        Arc::new(Uplink {
            clock,
            seller: Mutex::default(),
            act: act_id(offer),
        })
    }

    /// A sender report of the seller came in at `at`.
    pub(crate) fn report(&self, ssrc: u32, ntp: u64, rtp: u32, at: Instant) {
        self.seller.lock().report(ssrc, ntp, rtp, self.clock.us_at(at));
    }

    /// The round trip to the seller, as its connection measures it.
    pub(crate) fn round_trip(&self, took: Duration) {
        let now = self.clock.us();
        self.seller.lock().round_trip(took.as_micros() as i64, now);
    }

    /// A packet of the seller's came in: its track's line is brought up to date.
    pub(crate) fn packet(&self, track: &Track, raw: &[u8]) {
        let Ok(header) = Header::parse(raw) else { return };
        let now = self.clock.us();
        let said = self
            .act
            .and_then(|act| header.elements(raw).find(|(id, _)| *id == act))
            .and_then(|(_, data)| abs_capture_time(data));
        let mut seller = self.seller.lock();
        seller.packet(header.ssrc, track.codec.clock_rate(), header.timestamp, now);
        if let Some((ntp, ahead)) = said {
            seller.captured(header.ssrc, ntp, ahead, header.timestamp, now);
        }
        let line = seller.line(header.ssrc);
        drop(seller);
        if let Some(line) = line {
            track.capture.is(line, &[]);
        }
    }
}

fn act_id(offer: &str) -> Option<u8> {
    let value = |line: &'_ str| -> Option<u8> {
        let (id, uri) = line.trim_end().strip_prefix("a=extmap:")?.split_once(' ')?;
        let id = id.split('/').next()?.parse().ok()?;
        (uri.split(' ').next() == Some(ACT_URI) && id != 0).then_some(id)
    };
    // Bundled sections use one id for one extension.
    offer.lines().find_map(value)
}

#[derive(Default)]
struct Held {
    line: Option<Line>,
    /// From capture to whole at each node above, µs.
    above: Vec<u32>,
    /// The same at this node.
    here: Option<i64>,
    pictures: u32,
    told: Option<u64>,
}

/// A track's line at this node.
#[derive(Default)]
pub(crate) struct Capture {
    held: Mutex<Held>,
}

impl Capture {
    /// The line, and the legs above this node.
    pub(crate) fn is(&self, line: Line, above: &[u32]) {
        let mut held = self.held.lock();
        held.line = Some(line);
        if held.above != above {
            held.above.clear();
            held.above.extend_from_slice(above);
        }
    }

    pub(crate) fn line(&self) -> Option<Line> {
        self.held.lock().line
    }

    /// A picture became whole here.
    pub(crate) fn picture(&self, timestamp: u32, now: i64) {
        let mut held = self.held.lock();
        let Some(line) = held.line else { return };
        let took = now.saturating_sub(line.at(timestamp));
        // What was asked for again, or replayed, says nothing of the way.
        if !(0..FAR).contains(&took) {
            return;
        }
        let mean = held.here.unwrap_or(took);
        held.here = Some(mean + (took - mean) / SHARE);
        held.pictures = held.pictures.wrapping_add(1);
        if held.pictures % ONE_IN == 1 {
            let (leg, before) = match held.above.last() {
                Some(before) => (DelayLeg::Hop, i64::from(*before)),
                None => (DelayLeg::Uplink, 0),
            };
            metrics::delay(leg, Duration::from_micros((took - before).max(0) as u64));
        }
    }

    /// From capture to whole at each node of the way, this one last, µs.
    pub(crate) fn legs(&self) -> Vec<u32> {
        Held::legs(&self.held.lock())
    }

    /// What the nodes below are to be told, if it is time to.
    pub(crate) fn due(&self, now_ms: u64) -> Option<(Line, Vec<u32>)> {
        let mut held = self.held.lock();
        let line = held.line?;
        if held.told.is_some_and(|told| now_ms < told + TELL_MS) {
            return None;
        }
        held.told = Some(now_ms);
        Some((line, held.legs()))
    }
}

impl Held {
    fn legs(&self) -> Vec<u32> {
        let here = self.here.map(|here| u32::try_from(here).unwrap_or(u32::MAX));
        self.above.iter().copied().chain(here).take(LEGS_MAX).collect()
    }
}

/// How far the clocks of the nodes above are from ours.
#[derive(Default)]
pub(crate) struct Clocks {
    apart: Mutex<HashMap<u64, Apart>>,
}

impl Clocks {
    /// A parent answered: asked at `asked`, read `theirs`, here at `now`.
    pub(crate) fn answered(&self, node: u64, (asked, theirs, now): (i64, i64, i64)) {
        self.apart.lock().entry(node).or_default().answered(asked, theirs, now);
    }

    /// A parent's line in our clock, once its clock is known.
    pub(crate) fn ours(&self, node: u64, line: Line) -> Option<Line> {
        let ahead = self.apart.lock().get(&node)?.ahead()?;
        Some(line.moved(ahead.saturating_neg()))
    }
}

/// Where a viewer's picture is: its track, and what the viewer's RTP times are ahead of the track's.
#[derive(Default)]
pub(crate) struct Place(Mutex<(Weak<Track>, u32)>);

impl Place {
    /// The viewer's video follows `track`, `ahead` of it.
    pub(crate) fn is(&self, track: &Arc<Track>, ahead: u32) {
        let mut held = self.0.lock();
        if held.1 != ahead || !std::ptr::eq(held.0.as_ptr(), Arc::as_ptr(track)) {
            *held = (Arc::downgrade(track), ahead);
        }
    }

    /// What the viewer's page needs to know.
    pub(crate) fn captured(&self, clock: Clock) -> Option<Captured> {
        let (track, ahead) = self.0.lock().clone();
        let track = track.upgrade()?;
        let line = track.capture.line()?;
        Some(Captured {
            rtp: line.rtp(clock.us()).wrapping_add(ahead),
            rate: line.rate,
            legs_us: track.capture.legs(),
        })
    }
}

/// What a viewer's RTP times stand for, at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The RTP time, as the viewer receives it, of a picture that is captured right now.
    pub rtp: u32,
    /// Its ticks a second.
    pub rate: u32,
    /// From its capture until a picture is whole at each node of the way, µs: the origin first, this node last.
    pub legs_us: Vec<u32>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forward::Codec;

    const LINE: Line = Line {
        rtp: 0,
        at: 0,
        rate: 90_000,
    };

    #[test]
    fn an_offer_names_the_extensions_id() {
        let extmap = |id: &str| format!("v=0\r\nm=video 9 X 96\r\na=extmap:1 urn:x\r\na=extmap:{id} {ACT_URI}\r\n");
        for (offer, expect) in [
            (extmap("9"), Some(9)),
            (extmap("9/sendonly"), Some(9)),
            (extmap("0"), None),
            (extmap("300"), None),
            (format!("a=extmap:4 {ACT_URI}x\r\n"), None),
            (String::new(), None),
        ] {
            assert_eq!(act_id(&offer), expect, "{offer}");
        }
    }

    #[test]
    fn legs_add_up_from_node_to_node_and_are_told_four_times_a_second() {
        let origin = Capture::default();
        assert_eq!((origin.due(0), origin.legs()), (None, vec![]));
        origin.is(LINE, &[]);
        origin.picture(90_000, 1_005_000);
        // A picture that was asked for again, after a minute.
        origin.picture(90_000, 61_000_000);
        let (line, legs) = origin.due(10).unwrap();
        assert_eq!((line, &legs[..]), (LINE, &[5_000][..]));
        assert_eq!((origin.due(259), origin.due(260)), (None, Some((LINE, legs.clone()))));
        let relay = Capture::default();
        relay.is(line.moved(7), &legs);
        relay.picture(90_000, 1_045_007);
        assert_eq!(relay.legs(), [5_000, 45_000]);
    }

    #[test]
    fn a_parents_line_is_moved_into_our_clock() {
        let clocks = Clocks::default();
        assert_eq!(clocks.ours(7, LINE), None);
        clocks.answered(7, (100, 5_000 + 110, 120));
        assert_eq!(clocks.ours(7, LINE.moved(5_000)), Some(LINE));
    }

    #[test]
    fn a_viewer_is_told_in_its_own_rtp_times() {
        let clock = Clock(Instant::now());
        let track = Arc::new(Track::new(0, Codec::Vp8, String::new(), 64, 0));
        let place = Place::default();
        place.is(&track, 1_000);
        assert_eq!(place.captured(clock), None);
        track.capture.is(LINE, &[]);
        let before = LINE.rtp(clock.us());
        let told = place.captured(clock).unwrap();
        let after = LINE.rtp(clock.us());
        assert!(
            (before..=after).contains(&(told.rtp - 1_000)),
            "{before} {told:?} {after}"
        );
        drop(track);
        assert_eq!(place.captured(clock), None, "a stream that is over");
    }
}
