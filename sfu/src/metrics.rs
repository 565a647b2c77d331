//! The media plane's metrics: each is named, described and touched here, and nowhere else.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::{Duration, Instant};

const PACKETS_IN: &str = "rushroom_media_packets_in_total";
const PACKETS_OUT: &str = "rushroom_media_packets_out_total";
const PACKETS_LOST: &str = "rushroom_media_packets_lost_total";
const RETRANSMITTED: &str = "rushroom_media_packets_retransmitted_total";
const DROPPED: &str = "rushroom_media_dropped_total";
const KEYFRAME_ASKS: &str = "rushroom_media_keyframe_asks_total";
const VIEWERS: &str = "rushroom_media_viewers";
const PUBLISHERS: &str = "rushroom_media_publishers";
const REFUSED: &str = "rushroom_media_refused_total";
const JOIN: &str = "rushroom_media_join_seconds";
const RESIDENCE: &str = "rushroom_media_residence_seconds";
const HOP: &str = "rushroom_media_trunk_round_trip_seconds";
const DELAY: &str = "rushroom_media_delay_seconds";

/// Names and explains them to the recorder; called once, when the media plane starts.
pub(crate) fn describe() {
    describe_counter!(
        PACKETS_IN,
        Unit::Count,
        "RTP packets taken in, by way: publisher or trunk"
    );
    describe_counter!(PACKETS_OUT, Unit::Count, "RTP packets sent, by way: viewer or trunk");
    describe_counter!(
        PACKETS_LOST,
        Unit::Count,
        "RTP packets given up on a trunk after all retries"
    );
    describe_counter!(
        RETRANSMITTED,
        Unit::Count,
        "RTP packets sent again, by way: viewer or trunk"
    );
    describe_counter!(
        DROPPED,
        Unit::Count,
        "Work dropped because a bound was reached, by where"
    );
    describe_counter!(
        KEYFRAME_ASKS,
        Unit::Count,
        "Keyframe asks sent upward, by way: publisher or trunk"
    );
    describe_gauge!(VIEWERS, Unit::Count, "Viewers connected to this node");
    describe_gauge!(PUBLISHERS, Unit::Count, "Publishers connected to this node");
    describe_counter!(REFUSED, Unit::Count, "Media requests refused, by code");
    describe_histogram!(JOIN, Unit::Seconds, "A viewer's offer to its open connection");
    describe_histogram!(
        RESIDENCE,
        Unit::Seconds,
        "From a packet's arrival at this node to its sending to a viewer; of each portion's first packet, one portion in 17"
    );
    describe_histogram!(HOP, Unit::Seconds, "Round trip of a trunk");
    describe_histogram!(
        DELAY,
        Unit::Seconds,
        "Delay of pictures on the way to this node, by leg: uplink (capture to whole at the origin) or hop (whole at the parent, on average, to whole here); one picture in 16"
    );
    // Shown before anything happens: an alert on a rise must see what it rose from.
    for way in [Way::Publisher, Way::Trunk] {
        packets_in(way, 0);
    }
    for way in [Way::Viewer, Way::Trunk] {
        packets_out(way, 0);
        retransmitted(way, 0);
    }
    packets_lost(0);
    viewers(0.0);
    publishers(0.0);
    let _ = histogram!(JOIN);
    let _ = histogram!(RESIDENCE);
}

/// The two ways of a packet in and out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Publisher,
    Trunk,
    Viewer,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Publisher => "publisher",
            Way::Trunk => "trunk",
            Way::Viewer => "viewer",
        }
    }
}

pub(crate) fn packets_in(way: Way, count: u64) {
    counter!(PACKETS_IN, "way" => way.name()).increment(count);
}

pub(crate) fn packets_out(way: Way, count: u64) {
    counter!(PACKETS_OUT, "way" => way.name()).increment(count);
}

/// For who sends many: the counter itself, found once.
pub(crate) fn packets_to_viewers() -> metrics::Counter {
    counter!(PACKETS_OUT, "way" => Way::Viewer.name())
}

pub(crate) fn packets_lost(count: u64) {
    counter!(PACKETS_LOST).increment(count);
}

pub(crate) fn retransmitted(way: Way, count: u64) {
    counter!(RETRANSMITTED, "way" => way.name()).increment(count);
}

pub(crate) fn dropped(place: &'static str) {
    dropped_many(place, 1);
}

pub(crate) fn dropped_many(place: &'static str, count: u64) {
    counter!(DROPPED, "where" => place).increment(count);
}

pub(crate) fn keyframe_ask(way: Way) {
    counter!(KEYFRAME_ASKS, "way" => way.name()).increment(1);
}

pub(crate) fn viewers(change: f64) {
    gauge!(VIEWERS).increment(change);
}

pub(crate) fn publishers(change: f64) {
    gauge!(PUBLISHERS).increment(change);
}

pub(crate) fn refused(code: &'static str) {
    counter!(REFUSED, "code" => code).increment(1);
}

pub(crate) fn joined(took: Duration) {
    histogram!(JOIN).record(took.as_secs_f64());
}

/// How long packets stay here, as one lane sees it. Samples, as each record takes memory until it is collected; by a prime,
/// so that it isn't the same viewers who are looked at.
pub(crate) struct Residence {
    histogram: metrics::Histogram,
    portions: u32,
}

impl Residence {
    const ONE_IN: u32 = 17;

    pub(crate) fn new() -> Residence {
        Residence {
            histogram: histogram!(RESIDENCE),
            portions: 0,
        }
    }

    /// A viewer's portion is sent, whose first packet came `at`.
    pub(crate) fn portion(&mut self, at: Instant) {
        self.portions = (self.portions + 1) % Residence::ONE_IN;
        if self.portions == 0 {
            self.histogram.record(at.elapsed().as_secs_f64());
        }
    }
}

/// A part of a picture's way to this node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DelayLeg {
    /// From its capture to whole at its origin.
    Uplink,
    /// From whole at the parent to whole here.
    Hop,
}

pub(crate) fn delay(leg: DelayLeg, took: Duration) {
    let leg = match leg {
        DelayLeg::Uplink => "uplink",
        DelayLeg::Hop => "hop",
    };
    histogram!(DELAY, "leg" => leg).record(took.as_secs_f64());
}

pub(crate) fn trunk_round_trip(took: Duration) {
    histogram!(HOP).record(took.as_secs_f64());
}
