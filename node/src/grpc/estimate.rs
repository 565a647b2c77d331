//! Following a leader's clock from afar.
//!
//! ```text
//!   we:      t0 ---- ping ---->            t1
//!   leader:            `now`  ---- pong --->      `now` was true at some moment between t0 and t1
//! ```
//!
//! So a round trip brackets the leader's reading: the estimate is the middle, half the round trip its error. Of the
//! samples of one office the shortest round trip wins, as long as newer ones don't contradict it: a clock that was held
//! and re-anchored lies behind what the old sample foretells, and then the newest sample is the truth.
//!
//! The estimate never runs more than `hold` beyond the last pong: a leader that fell silent may be held, and telling
//! viewers less time than they have would be a lie. `held` says so.
//!
//! Pure: our own clock is an argument, in microseconds.

use super::local::Reading;
use auction::{Office, Stamp};
use parking_lot::Mutex;
use placement::{NodeId, ShardId};
use router::ports::ClockEstimate;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// One shard's clock as followed here.
#[derive(Clone, Copy, Debug)]
struct Followed {
    node: NodeId,
    office: Office,
    /// Our time of the best sample's middle, and the reading then, both us.
    at: u64,
    now: u64,
    /// Half its round trip, us.
    err: u64,
    /// The newest pong, and its reading.
    heard: u64,
    last: u64,
    /// The newest reading stood where the one before stood.
    still: bool,
    /// What the leader said that it drains.
    drains: u32,
}

impl Followed {
    fn foretold(&self, t: u64) -> u64 {
        if t >= self.at {
            self.now + (t - self.at)
        } else {
            self.now.saturating_sub(self.at - t)
        }
    }

    /// A newer sample: `now` (us) was true somewhere in `sent..=received`. Whether it told something that the ones before
    /// didn't foretell: the clock was held, stands, or goes again.
    fn sample(&mut self, now: u64, sent: u64, received: u64) -> bool {
        // A reading is whole milliseconds: it may be up to one behind.
        let slack = self.err + 1_000;
        let agrees = now + slack >= self.foretold(sent) && now <= self.foretold(received) + slack;
        let err = (received - sent) / 2;
        // The bonus lets a sample age out: rates differ a little, and routes change.
        let age_bonus = sent.saturating_sub(self.at) / 2_000;
        if !agrees || err <= self.err + age_bonus {
            (self.at, self.now, self.err) = (sent + err, now, err);
        }
        let still = now == self.last && received.saturating_sub(self.heard) > 20_000;
        let news = !agrees || still != self.still;
        self.still = still;
        (self.heard, self.last) = (received, now);
        news
    }

    fn read(&self, t: u64, hold: u64) -> ClockEstimate {
        let stale = t.saturating_sub(self.heard) > hold;
        let now = if self.still || stale {
            self.last
        } else {
            self.foretold(t).max(self.last)
        };
        ClockEstimate {
            now: Stamp(now / 1_000),
            err_ms: (self.err.div_ceil(1_000)) as u32,
            held: stale || self.still,
            // Just past the moment at which silence becomes a hold.
            held_in_ms: (!stale && !self.still).then(|| ((self.heard + hold).saturating_sub(t) / 1_000) as u32 + 1),
        }
    }
}

/// The clocks of all shards, as followed from this node. One lock: it is held for a few arithmetic steps.
pub(crate) struct Clocks {
    started: Instant,
    hold: u64,
    followed: Mutex<HashMap<ShardId, Followed>>,
    /// Counts the readings that nobody could foretell, of all shards.
    news: watch::Sender<u64>,
}

impl Clocks {
    /// No clock followed yet.
    pub(crate) fn new(hold: Duration) -> Clocks {
        Clocks {
            started: Instant::now(),
            hold: hold.as_micros() as u64,
            followed: Mutex::default(),
            news: watch::Sender::new(0),
        }
    }

    /// Changes whenever some shard's clock read what nobody could foretell.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// This node's own replicas know of another leader: its clock is still to be heard.
    pub(crate) fn another_leads(&self) {
        self.news.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Our time, us.
    pub(crate) fn mono(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// `node` read its clocks at some moment between `sent` and `received` (our time). No readings: all its shards rest.
    pub(crate) fn heard(&self, node: NodeId, readings: &[Reading], sent: u64, received: u64) {
        let mut news = false;
        let mut followed = self.followed.lock();
        if readings.is_empty() {
            // What a storm long ago left it to grant isn't what it can do: it grants nothing in particular.
            let of_node = followed.values_mut().filter(|f| f.node == node);
            of_node.for_each(|f| f.drains = 0);
        }
        for reading in readings {
            let (now, err) = (reading.now.0 * 1_000, (received - sent) / 2);
            match followed.get_mut(&reading.shard) {
                // An older office's reading comes from a leader that doesn't know yet that it is none.
                Some(old) if old.office > reading.office => {}
                Some(old) if old.office == reading.office => {
                    news |= old.sample(now, sent, received);
                    old.drains = reading.drains;
                }
                _ => {
                    let fresh = Followed {
                        node,
                        office: reading.office,
                        at: sent + err,
                        now,
                        err,
                        heard: received,
                        last: now,
                        still: false,
                        drains: reading.drains,
                    };
                    followed.insert(reading.shard, fresh);
                    news = true;
                }
            }
        }
        drop(followed);
        if news {
            self.news.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// A shard's clock at our time `t`.
    pub(crate) fn read(&self, shard: ShardId, t: u64) -> Option<ClockEstimate> {
        self.followed.lock().get(&shard).map(|f| f.read(t, self.hold))
    }

    /// How many commands a shard's leader said that it drains in `lanes.lane_ms`.
    pub(crate) fn drains(&self, shard: ShardId) -> Option<u32> {
        let followed = self.followed.lock();
        followed.get(&shard).map(|f| f.drains).filter(|drains| *drains > 0)
    }

    /// Who led a shard when its clock was last heard, and in which term; `None` if that is longer ago than `hold`.
    pub(crate) fn leader(&self, shard: ShardId, t: u64) -> Option<(NodeId, u64)> {
        let followed = self.followed.lock();
        followed
            .get(&shard)
            .filter(|f| t.saturating_sub(f.heard) <= self.hold)
            .map(|f| (f.node, f.office.term))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// (sent, received, reading) ms, in turn; then at `ask` the clock must read `now` with this error and held.
    fn check(samples: &[(u64, u64, u64)], ask: u64, expect: (u64, u32, bool)) {
        let clocks = Clocks::new(Duration::from_millis(200));
        for (sent, received, now) in samples {
            clocks.heard(NodeId(2), &[reading(1, *now)], sent * 1_000, received * 1_000);
        }
        let read = clocks.read(ShardId(1), ask * 1_000).unwrap();
        assert_eq!((read.now.0, read.err_ms, read.held), expect, "{samples:?} at {ask}");
    }

    fn reading(term: u64, now: u64) -> Reading {
        let office = Office { term, turn: 0 };
        Reading {
            shard: ShardId(1),
            office,
            now: Stamp(now),
            top: Stamp(now),
            timers: true,
            drains: 400,
        }
    }

    #[test]
    fn the_shortest_round_trip_wins_until_it_is_contradicted() {
        check(&[(0, 10, 1_000)], 15, (1_010, 5, false));
        // A worse sample that agrees changes nothing.
        check(&[(0, 10, 1_000), (100, 160, 1_140)], 160, (1_155, 5, false));
        // A better one does.
        check(&[(0, 60, 1_000), (100, 104, 1_102)], 104, (1_104, 2, false));
        // The clock was held in between: the newest sample is the truth.
        check(&[(0, 10, 1_000), (100, 160, 1_020)], 160, (1_050, 30, false));
        // It stands: its number stands.
        check(&[(0, 10, 1_000), (100, 110, 1_000)], 150, (1_000, 5, true));
        // Silence: held, at the last word.
        check(&[(0, 10, 1_000)], 211, (1_000, 5, true));
    }

    /// After samples as in `check`, how often there was news, and in how long silence would be a hold at `ask`.
    fn check_news(samples: &[(u64, u64, u64)], ask: u64, expect: (u64, Option<u32>)) {
        let clocks = Clocks::new(Duration::from_millis(200));
        for (sent, received, now) in samples {
            clocks.heard(NodeId(2), &[reading(1, *now)], sent * 1_000, received * 1_000);
        }
        let read = clocks.read(ShardId(1), ask * 1_000).unwrap();
        assert_eq!(
            (*clocks.news().borrow(), read.held_in_ms),
            expect,
            "{samples:?} at {ask}"
        );
    }

    #[test]
    fn only_what_could_not_be_foretold_is_news() {
        check_news(&[(0, 10, 1_000)], 10, (1, Some(201)));
        check_news(
            &[(0, 10, 1_000), (60, 70, 1_060), (120, 130, 1_121)],
            140,
            (1, Some(191)),
        );
        // Held in between; standing; going again.
        check_news(&[(0, 10, 1_000), (100, 110, 1_020)], 110, (2, Some(201)));
        check_news(&[(0, 10, 1_000), (60, 70, 1_000)], 80, (2, None));
        check_news(
            &[(0, 10, 1_000), (60, 70, 1_000), (120, 130, 1_040)],
            130,
            (3, Some(201)),
        );
        check_news(&[(0, 10, 1_000)], 211, (1, None));
    }

    #[test]
    fn what_a_storm_left_is_forgotten_when_the_node_rests() {
        let clocks = Clocks::new(Duration::from_millis(200));
        clocks.heard(NodeId(1), &[reading(3, 500)], 0, 2_000);
        clocks.heard(NodeId(2), &[], 2_000, 4_000);
        assert_eq!(clocks.drains(ShardId(1)), Some(400), "another node's rest says nothing");
        clocks.heard(NodeId(1), &[], 4_000, 6_000);
        assert_eq!(clocks.drains(ShardId(1)), None);
        clocks.heard(NodeId(1), &[reading(3, 900)], 6_000, 8_000);
        assert_eq!(clocks.drains(ShardId(1)), Some(400));
    }

    #[test]
    fn a_newer_office_counts_and_an_older_one_is_ignored() {
        let clocks = Clocks::new(Duration::from_millis(200));
        clocks.heard(NodeId(1), &[reading(3, 500)], 0, 2_000);
        clocks.heard(NodeId(2), &[reading(4, 400)], 10_000, 12_000);
        clocks.heard(NodeId(1), &[reading(3, 900)], 20_000, 22_000);
        assert_eq!(clocks.leader(ShardId(1), 23_000), Some((NodeId(2), 4)));
        assert_eq!(clocks.read(ShardId(1), 12_000).unwrap().now, Stamp(401));
        assert_eq!(clocks.leader(ShardId(1), 300_000), None);
        assert_eq!(clocks.leader(ShardId(2), 0), None);
    }
}
