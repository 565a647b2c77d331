//! The countdown a viewer sees: the shard's clock, as carried by the edge, drawn by the client.
//!
//! ```text
//!   shard's stamp  <-- clock{now, s, err} --  edge's monotonic time  <-- pings, best round trip --  our monotonic time
//! ```
//!
//! The edge says 'at my time `s` the shard's clock read `now`'. Pings tell how our time maps to the edge's: of the
//! recent samples the one with the smallest round trip wins, and half of that round trip is the error. So what is left
//! is `ends_at - (now + (edge_time(t) - s))`, never below 0.
//!
//! Deliberately absent: reading a clock. Our time is an argument (ms, fractions allowed), so a test can be an hour.

/// How many pings are remembered: old routes are forgotten, one lucky sample isn't kept for ever.
const SAMPLES_MAX: usize = 16;

/// The edge's monotonic time, estimated from pings.
#[derive(Clone, Debug, Default)]
pub struct EdgeClock {
    /// (round trip, edge time minus ours), newest last.
    samples: Vec<(f64, f64)>,
}

impl EdgeClock {
    /// Nothing known yet.
    #[must_use]
    pub fn new() -> EdgeClock {
        EdgeClock::default()
    }

    /// A ping left at `sent`, its answer `s` (edge time) was here at `received`; both are our time.
    pub fn pong(&mut self, sent: f64, s: f64, received: f64) {
        let round_trip = received - sent;
        if !round_trip.is_finite() || round_trip < 0.0 || !s.is_finite() {
            return; // A broken edge must not break the countdown.
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.remove(0);
        }
        self.samples.push((round_trip, s - (sent + received) / 2.0));
    }

    /// The edge's time when ours is `t`, and the error of that, ms. `None` before the first pong.
    #[must_use]
    pub fn edge_time(&self, t: f64) -> Option<(f64, f64)> {
        let best = self.samples.iter().min_by(|x, y| x.0.total_cmp(&y.0))?;
        Some((t + best.1, best.0 / 2.0))
    }

    /// Forget everything: the socket now talks with another edge.
    pub fn clear(&mut self) {
        self.samples.clear();
    }
}

/// One auction's countdown, fed by `clock` messages and events.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Countdown {
    /// The deadline.
    pub ends_at: Option<u64>,
    /// The reading of the shard's clock …
    pub now: u64,
    /// … at this edge time.
    pub s: f64,
    /// Error of the reading, ms.
    pub err_ms: f64,
    /// The number must stand.
    pub held: bool,
}

/// What to draw.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Shown {
    /// Time left and its error, ms.
    Left {
        /// Milliseconds left.
        left_ms: u64,
        /// How wrong that may be, ms.
        err_ms: f64,
        /// The clock stands: draw the number frozen, and say why.
        held: bool,
    },
    /// The number ran out; the close is not known yet.
    Closing,
}

impl Countdown {
    /// What to draw at our time `t`; `None` while there is no deadline or no idea of the edge's time.
    #[must_use]
    pub fn shown(&self, edge: &EdgeClock, t: f64) -> Option<Shown> {
        let ends_at = self.ends_at?;
        let (edge_now, err) = edge.edge_time(t)?;
        // A stamp below 2^53 is exact in f64; stamps count ms since the shard was born.
        let gone = if self.held { 0.0 } else { (edge_now - self.s).max(0.0) };
        let left = ends_at as f64 - (self.now as f64 + gone);
        if left <= 0.0 {
            return Some(Shown::Closing);
        }
        Some(Shown::Left {
            left_ms: left as u64,
            err_ms: err + self.err_ms,
            held: self.held,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_round_trip_wins() {
        let mut edge = EdgeClock::new();
        assert_eq!(edge.edge_time(0.0), None);
        edge.pong(0.0, 1_100.0, 200.0); // offset 1000, error 100
        edge.pong(300.0, 1_310.0, 320.0); // offset 1000, error 10
        edge.pong(400.0, 1_500.0, 500.0); // offset 1050, error 50
        assert_eq!(edge.edge_time(500.0), Some((1_500.0, 10.0)));
    }

    #[test]
    fn nonsense_is_not_a_sample() {
        let mut edge = EdgeClock::new();
        edge.pong(10.0, 5.0, 9.0);
        edge.pong(0.0, f64::NAN, 1.0);
        assert_eq!(edge.edge_time(0.0), None);
    }

    #[test]
    fn the_number_counts_freezes_and_closes() {
        let mut edge = EdgeClock::new();
        edge.pong(0.0, 1_000.0, 0.0); // edge time = ours + 1000
        let counting = Countdown {
            ends_at: Some(60_000),
            now: 50_000,
            s: 1_000.0,
            err_ms: 2.0,
            held: false,
        };
        let held = Countdown { held: true, ..counting };
        // (our time, countdown, what is drawn)
        let left = |left_ms, held| {
            Some(Shown::Left {
                left_ms,
                err_ms: 2.0,
                held,
            })
        };
        for (t, countdown, want) in [
            (0.0, counting, left(10_000, false)),
            (4_000.0, counting, left(6_000, false)),
            (4_000.0, held, left(10_000, true)),
            (10_000.0, counting, Some(Shown::Closing)),
            (
                0.0,
                Countdown {
                    ends_at: None,
                    ..counting
                },
                None,
            ),
        ] {
            assert_eq!(countdown.shown(&edge, t), want, "at {t}");
        }
    }
}
