//! What a viewer's page asks and tells of its picture's delay.
//!
//! ```text
//!   page: capture {media} --> edge: which RTP time is captured right now, and how long the way to this node takes
//!   page: seen {legs}     --> histograms, one a leg
//! ```
//!
//! The page places each picture on the edge's clock, which it knows from its pings, by the RTP time that the browser tells
//! of it. What it then says is a stranger's word: it goes into a histogram within bounds, and nowhere else.

use super::{Flow, Session};
use crate::{
    metrics,
    wire::{CaptureBody, Say},
};
use serde_json::{Map, Value};
use std::time::Duration;

/// Messages of this file, as `hello` tells them: a page doesn't ask an edge that wouldn't understand.
pub(super) const HEARS: &[&str] = &["capture", "seen"];
/// Parts of a picture's way that a page measures, the way as a whole, and how old the picture was when the hammer fell.
const LEGS: [&str; 8] = [
    "uplink", "hops", "receive", "buffer", "decode", "display", "whole", "hammer",
];
/// What a clock's error may do to a leg, and what nobody would watch, ms.
const LEG_MIN: f64 = -1_000.0;
const LEG_MAX: f64 = 60_000.0;
/// Samples of one socket at once; then one a second.
const SAMPLES: u64 = 10;

impl Session {
    pub(super) fn capture(&mut self, fields: &Map<String, Value>) -> Flow {
        let media = fields.get("media").and_then(Value::as_str);
        let Some(media) = media.filter(|media| (1..=128).contains(&media.len())) else {
            return self.strike("capture needs the name of a media session");
        };
        let line = self.state.ports.streams.captured(media).map(|captured| CaptureBody {
            rtp: captured.rtp,
            rate: captured.rate,
            s: self.state.monotonic_ms(),
            legs_ms: captured.legs_us.iter().map(|us| f64::from(*us) / 1_000.0).collect(),
        });
        self.say(&Say::Capture { media, line });
        Flow::On
    }

    pub(super) fn seen(&mut self, fields: &Map<String, Value>) -> Flow {
        let Some(Value::Object(legs)) = fields.get("legs") else {
            return self.strike("seen needs legs");
        };
        if self.samples >= SAMPLES + self.begun.elapsed().as_secs() {
            return Flow::On;
        }
        self.samples += 1;
        for leg in LEGS {
            if let Some(took) = legs.get(leg).and_then(sound) {
                metrics::seen(leg, took);
            }
        }
        Flow::On
    }
}

/// A leg that can be: a little less than nothing is nothing.
fn sound(ms: &Value) -> Option<Duration> {
    let ms = ms.as_f64().filter(|ms| (LEG_MIN..=LEG_MAX).contains(ms))?;
    Duration::try_from_secs_f64(ms.max(0.0) / 1_000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_leg_is_a_number_within_bounds() {
        for (said, expect) in [
            (json!(12.5), Some(12_500)),
            (json!(-3), Some(0)),
            (json!(60_000), Some(60_000_000)),
            (json!(60_001), None),
            (json!(-1_001), None),
            (json!("12"), None),
            (json!(null), None),
        ] {
            assert_eq!(sound(&said), expect.map(Duration::from_micros), "{said}");
        }
    }
}
