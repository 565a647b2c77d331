//! When what a packet carries was captured: the line between a track's RTP time and an instant.
//!
//! A seller says in sender reports (and perhaps in each packet, by abs-capture-time) which moment of its own clock a track's
//! RTP time stands for. All its tracks speak of the one clock, so sound and picture stand on one time line however
//! their packets were held up on the way. What is missing is that clock's distance from ours:
//!
//! ```text
//!   report: ntp, rtp ──> anchor of its track                       line(track) = anchor, moved by the distance
//!           arrival − ntp ──> floor: the least of them is the distance + the uplink's shortest way (half a round trip)
//! ```
//!
//! A queue on the way only ever adds, so the least difference is the best, and jitter doesn't move it. Two crystals drift
//! apart, so what was least once may be exceeded by a little more each second. A track that was not yet reported on is
//! placed by its arrivals, filtered in the same way.
//!
//! A line is always in the clock of the node that holds it; from node to node it is moved by their clocks' distance
//! (`Apart`). Instants are µs on a clock that never steps back, given by the caller.

use alloc::vec::Vec;

/// Sources of one seller: tracks, times layers, and some.
pub const SOURCES_MAX: usize = 16;
/// How much two clocks may drift apart, µs per s. A bad crystal is 100.
const DRIFT: i64 = 100;
/// A seller's clock that jumped this far was set: what was known of it is void. µs.
const STEP: i64 = 200_000;
/// A line by which a packet is older, or younger, than this isn't that packet's. µs.
const FAR: i64 = 10_000_000;
/// Reports don't overrule what packets themselves said of their capture for this long, µs.
const EXACT_FOR: i64 = 10_000_000;
const SECOND: i64 = 1_000_000;

/// Which instant a track's RTP time stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// An RTP time.
    pub rtp: u32,
    /// Its instant, µs.
    pub at: i64,
    /// Ticks a second; 0 counts as 1.
    pub rate: u32,
}

impl Line {
    fn rate(&self) -> i64 {
        i64::from(self.rate.max(1))
    }

    /// The instant of an RTP time within half a cycle.
    pub fn at(&self, rtp: u32) -> i64 {
        let ticks = i64::from(rtp.wrapping_sub(self.rtp) as i32);
        self.at.saturating_add((ticks * SECOND).div_euclid(self.rate()))
    }

    /// The RTP time of an instant.
    pub fn rtp(&self, at: i64) -> u32 {
        let ticks = (i128::from(at) - i128::from(self.at)) * i128::from(self.rate());
        self.rtp.wrapping_add(ticks.div_euclid(i128::from(SECOND)) as u32)
    }

    /// The same line in a clock that shows `by` more.
    pub fn moved(self, by: i64) -> Line {
        Line {
            at: self.at.saturating_add(by),
            ..self
        }
    }
}

/// The least of what only ever errs upward. One that was least is exceeded, with time, by what drift allows.
#[derive(Clone, Copy, Debug, Default)]
struct Floor(Option<(i64, i64)>);

impl Floor {
    fn take(&mut self, value: i64, now: i64) {
        let allowed = |(least, since): (i64, i64)| {
            let age = now.saturating_sub(since).max(0) / SECOND;
            value <= least.saturating_add(age.saturating_mul(DRIFT))
        };
        if self.0.is_none_or(allowed) {
            self.0 = Some((value, now));
        }
    }

    fn least(&self) -> Option<i64> {
        self.0.map(|(least, _)| least)
    }
}

#[derive(Clone, Debug)]
struct Source {
    ssrc: u32,
    /// 0: no packet yet.
    rate: u32,
    /// NTP and RTP time of one moment, as the seller says.
    anchor: Option<(u64, u32)>,
    /// Until when the anchor is the packets' own.
    exact_until: i64,
    /// The line by which packets would have come at once, and the least that they were late by it.
    arrivals: Option<Line>,
    late: Floor,
}

/// What is known of one seller's clock and tracks.
#[derive(Clone, Debug, Default)]
pub struct Seller {
    sources: Vec<Source>,
    /// NTP times count from the first one: they are differences, so no era matters.
    first: Option<u64>,
    /// Arrival minus the seller's time.
    distance: Floor,
    round_trip: Floor,
}

impl Seller {
    fn source(&mut self, ssrc: u32) -> Option<&mut Source> {
        let known = self.sources.iter().position(|s| s.ssrc == ssrc);
        let index = match known {
            Some(index) => index,
            None if self.sources.len() >= SOURCES_MAX => return None,
            None => {
                self.sources.push(Source {
                    ssrc,
                    rate: 0,
                    anchor: None,
                    exact_until: i64::MIN,
                    arrivals: None,
                    late: Floor::default(),
                });
                self.sources.len() - 1
            }
        };
        self.sources.get_mut(index)
    }

    /// µs from the first NTP time to this one.
    fn micros(&self, ntp: u64) -> i64 {
        let ahead = ntp.wrapping_sub(self.first.unwrap_or(ntp)) as i64;
        ((i128::from(ahead) * i128::from(SECOND)) >> 32) as i64
    }

    /// The line by what the seller said of a source.
    fn said(&self, source: &Source) -> Option<Line> {
        let ((ntp, rtp), distance) = (source.anchor?, self.distance.least()?);
        let way = self.round_trip.least().unwrap_or(0) / 2;
        let at = self.micros(ntp).saturating_add(distance).saturating_sub(way);
        (source.rate != 0).then_some(Line {
            rtp,
            at,
            rate: source.rate,
        })
    }

    /// A packet came at `now`.
    pub fn packet(&mut self, ssrc: u32, rate: u32, rtp: u32, now: i64) {
        let Some(source) = self.source(ssrc) else { return };
        source.rate = rate;
        let arrivals = source.arrivals.unwrap_or(Line { rtp, at: now, rate });
        let late = now.saturating_sub(arrivals.at(rtp));
        let least = source.late.least().unwrap_or(late);
        let jumped = late.saturating_sub(least).saturating_abs() > FAR || arrivals.rate != rate;
        let old = rtp.wrapping_sub(arrivals.rtp) as i32;
        if jumped {
            (source.arrivals, source.late) = (Some(Line { rtp, at: now, rate }), Floor::default());
            source.late.take(0, now);
        } else {
            // Moved along before half a cycle is over.
            let next = Line {
                rtp,
                at: arrivals.at(rtp),
                rate,
            };
            source.arrivals = Some(if old.unsigned_abs() > 1 << 29 { next } else { arrivals });
            source.late.take(late, now);
        }
        let source = source.clone();
        let lost = |line: Line| line.at(rtp).saturating_sub(now).saturating_abs() > FAR;
        if self.said(&source).is_some_and(lost)
            && let Some(source) = self.source(ssrc)
        {
            source.anchor = None;
        }
    }

    /// A sender report came at `now`: `ntp` (32.32) is the moment of `rtp`.
    pub fn report(&mut self, ssrc: u32, ntp: u64, rtp: u32, now: i64) {
        self.clock(ssrc, ntp, rtp, now);
        if let Some(source) = self.source(ssrc)
            && now >= source.exact_until
        {
            source.anchor = Some((ntp, rtp));
        }
    }

    /// A packet said itself that `rtp` was captured at `ntp` by the clock of who captured it, which shows `ahead` (32.32) more
    /// than the sender's.
    pub fn captured(&mut self, ssrc: u32, ntp: u64, ahead: i64, rtp: u32, now: i64) {
        let ntp = ntp.wrapping_sub(ahead as u64);
        self.clock(ssrc, ntp, rtp, now);
        if let Some(source) = self.source(ssrc) {
            (source.anchor, source.exact_until) = (Some((ntp, rtp)), now.saturating_add(EXACT_FOR));
        }
    }

    fn clock(&mut self, ssrc: u32, ntp: u64, rtp: u32, now: i64) {
        self.first.get_or_insert(ntp);
        let said = self.micros(ntp);
        let held = self.sources.iter().find(|s| s.ssrc == ssrc && s.rate != 0);
        let expected = held.and_then(|source| {
            let (ntp, anchor) = source.anchor?;
            let line = Line {
                rtp: anchor,
                at: self.micros(ntp),
                rate: source.rate,
            };
            Some(line.at(rtp))
        });
        if expected.is_some_and(|expected| said.saturating_sub(expected).saturating_abs() > STEP) {
            self.distance = Floor::default();
            for source in &mut self.sources {
                (source.anchor, source.exact_until) = (None, i64::MIN);
            }
        }
        self.distance.take(now.saturating_sub(said), now);
    }

    /// A round trip to the seller took so long, µs: half of the least is the least that a report was under way.
    pub fn round_trip(&mut self, micros: i64, now: i64) {
        self.round_trip.take(micros.clamp(0, FAR), now);
    }

    /// The line of a source: by what the seller said, else by its arrivals.
    pub fn line(&self, ssrc: u32) -> Option<Line> {
        let source = self.sources.iter().find(|s| s.ssrc == ssrc)?;
        let by_arrival = || Some(source.arrivals?.moved(source.late.least()?));
        self.said(source).or_else(by_arrival)
    }
}

/// How far another node's clock is from ours: asked and answered, the quickest answer is the best.
#[derive(Clone, Copy, Debug, Default)]
pub struct Apart {
    held: Option<(i64, i64, i64)>,
}

impl Apart {
    /// Asked at `asked` and answered at `now` by our clock; the other read `theirs` in between.
    pub fn answered(&mut self, asked: i64, theirs: i64, now: i64) {
        let trip = now.saturating_sub(asked);
        if trip < 0 {
            return;
        }
        let better = self.held.is_none_or(|(_, held, since)| {
            let age = now.saturating_sub(since).max(0) / SECOND;
            trip / 2 <= (held / 2).saturating_add(age.saturating_mul(DRIFT))
        });
        if better {
            let middle = asked.saturating_add(trip / 2);
            self.held = Some((theirs.saturating_sub(middle), trip, now));
        }
    }

    /// What the other clock shows more than ours.
    pub fn ahead(&self) -> Option<i64> {
        self.held.map(|(ahead, _, _)| ahead)
    }
}

/// Reads the extension abs-capture-time: when it was captured, and how far ahead of the sender's the capturer's clock is.
pub fn abs_capture_time(data: &[u8]) -> Option<(u64, i64)> {
    let (ntp, rest) = data.split_first_chunk::<8>()?;
    let ahead = match rest.len() {
        0 => 0,
        8 => i64::from_be_bytes(*rest.first_chunk::<8>()?),
        _ => return None,
    };
    Some((u64::from_be_bytes(*ntp), ahead))
}

#[cfg(test)]
mod tests;
