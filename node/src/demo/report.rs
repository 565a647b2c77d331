//! What the smoke run found, and whether every promise held. What the less plain numbers mean:
//! `clock_step_ms` is what the shard's clock *certainly* gained, or lost beyond the outage itself, over the kill;
//! `close_late_ms_max` the harness time from `ends_at` to the close event at a viewer.

use serde::Serialize;

/// The report, as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Report {
    /// Bids accepted (as their bidders were told).
    pub(super) accepted: u64,
    /// Bids refused.
    pub(super) refused: u64,
    /// Bids without a verdict, even after they were asked for again.
    pub(super) unknown: u64,
    /// Accepted bids that are not in every replica's log as they were acknowledged.
    pub(super) acked_lost: u64,
    /// Bids that are in a log more than once.
    pub(super) duplicates: u64,
    /// Every auction closed once, to its last bidder, as shown to all.
    pub(super) winners_ok: bool,
    /// From the kill to the first bid accepted that was sent after it.
    pub(super) failover_ms: Option<u64>,
    /// Worst lateness of a close at a viewer.
    pub(super) close_late_ms_max: Option<u64>,
    /// What the clock certainly gained or lost over the kill.
    pub(super) clock_step_ms: Option<u64>,
    /// Pictures at the viewer in the other region before the kill.
    pub(super) frames_before_kill: u64,
    /// And after it.
    pub(super) frames_after_kill: u64,
    /// Every export recomputes, and all replicas agree.
    pub(super) hash_chain_ok: bool,
    /// Which node was killed.
    pub(super) killed_node: u64,
    /// Pictures before the kill at a second viewer, who watched at the node that was killed.
    pub(super) second_frames_before_kill: u64,
    /// And after it, from another node.
    pub(super) second_frames_after_kill: u64,
    /// From the kill to that viewer's first whole picture over a new connection.
    pub(super) second_again_ms: Option<u64>,
    /// Lines of the nodes' logs that tell of a panic.
    pub(super) panics: u64,
}

const FAILOVER_MS_MAX: u64 = 1_500;
const CLOSE_LATE_MS_MAX: u64 = 250;
const CLOCK_STEP_MS_MAX: u64 = 400;
/// 'Growing again': a second of video at the least.
const FRAMES_MIN: u64 = 15;

impl Report {
    /// The promises that did not hold, each a line.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                broken.push(what);
            }
        };
        must(self.accepted > 0, "no bid was accepted".into());
        must(
            self.acked_lost == 0,
            format!("{} acknowledged bids are lost", self.acked_lost),
        );
        must(
            self.duplicates == 0,
            format!("{} bids were applied twice", self.duplicates),
        );
        must(self.unknown == 0, format!("{} bids never got a verdict", self.unknown));
        must(self.panics == 0, format!("{} panics in the nodes' logs", self.panics));
        must(self.winners_ok, "an auction has a wrong winner, or none".into());
        must(
            self.hash_chain_ok,
            "a hash chain doesn't hold, or replicas differ".into(),
        );
        let mut bound = |name: &str, value: Option<u64>, max: u64| match value {
            Some(value) => must(value <= max, format!("{name} is {value}, above {max}")),
            None => must(false, format!("{name} could not be measured")),
        };
        bound("failover_ms", self.failover_ms, FAILOVER_MS_MAX);
        bound("close_late_ms_max", self.close_late_ms_max, CLOSE_LATE_MS_MAX);
        bound("clock_step_ms", self.clock_step_ms, CLOCK_STEP_MS_MAX);
        for (frames, whose) in [
            (self.frames_before_kill, "frames before the kill"),
            (self.frames_after_kill, "frames after the kill"),
            (self.second_frames_before_kill, "frames from the node to be killed"),
            (
                self.second_frames_after_kill,
                "frames after the kill for those who watched there",
            ),
        ] {
            must(frames >= FRAMES_MIN, format!("only {frames} {whose}"));
        }
        must(
            self.second_again_ms.is_some(),
            "who watched at the killed node got no picture again".into(),
        );
        broken
    }
}

/// A bid's acknowledgement on the harness's clock: it was judged at stamp `ct`, somewhere in `sent..=got`. All ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Witness {
    /// Harness time before the first byte was sent.
    pub(super) sent: f64,
    /// Harness time when the verdict was read.
    pub(super) got: f64,
    /// The shard's stamp of it.
    pub(super) ct: f64,
}

/// What the shard's clock certainly did over an outage of `outage` ms, between witnesses before and after it: the larger
/// of what it gained and of what it lost beyond the outage.
///
/// Each witness brackets theta = stamp - harness time: it lies in `[ct - got, ct - sent]`. A step is certain only where
/// no theta fits both sides.
pub(super) fn clock_step(before: &[Witness], after: &[Witness], outage: f64) -> Option<u64> {
    let least = |w: &Witness| w.ct - w.got;
    let most = |w: &Witness| w.ct - w.sent;
    let max = |side: &[Witness]| side.iter().map(least).reduce(f64::max);
    let min = |side: &[Witness]| side.iter().map(most).reduce(f64::min);
    let gained = max(after)? - min(before)?;
    let lost = max(before)? - min(after)? - outage;
    Some(gained.max(lost).max(0.0).round() as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn good() -> Report {
        Report {
            accepted: 10,
            winners_ok: true,
            failover_ms: Some(700),
            close_late_ms_max: Some(40),
            clock_step_ms: Some(0),
            frames_before_kill: 200,
            frames_after_kill: 300,
            second_frames_before_kill: 30,
            second_frames_after_kill: 300,
            second_again_ms: Some(3_000),
            hash_chain_ok: true,
            ..Report::default()
        }
    }

    #[test]
    fn each_promise_is_checked() {
        assert_eq!(good().broken(), Vec::<String>::new());
        let table: &[fn(&mut Report)] = &[
            |r| r.accepted = 0,
            |r| r.acked_lost = 1,
            |r| r.duplicates = 1,
            |r| r.winners_ok = false,
            |r| r.failover_ms = Some(1_501),
            |r| r.failover_ms = None,
            |r| r.close_late_ms_max = Some(251),
            |r| r.close_late_ms_max = None,
            |r| r.clock_step_ms = Some(401),
            |r| r.clock_step_ms = None,
            |r| r.frames_before_kill = 0,
            |r| r.frames_after_kill = 3,
            |r| r.second_frames_before_kill = 3,
            |r| r.second_frames_after_kill = 3,
            |r| r.second_again_ms = None,
            |r| r.unknown = 1,
            |r| r.panics = 1,
            |r| r.hash_chain_ok = false,
        ];
        for (i, break_it) in table.iter().enumerate() {
            let mut report = good();
            break_it(&mut report);
            assert_eq!(report.broken().len(), 1, "row {i}");
        }
    }

    #[test]
    fn only_what_is_certain_counts_as_a_step() {
        let w = |sent: f64, got: f64, ct: f64| Witness { sent, got, ct };
        // before | after | outage | step
        let table: &[(&[Witness], &[Witness], f64, Option<u64>)] = &[
            (
                &[w(0.0, 10.0, 1_005.0)],
                &[w(1_000.0, 1_010.0, 2_005.0)],
                500.0,
                Some(0),
            ),
            // Stood for the whole outage: that is what an outage may cost.
            (
                &[w(0.0, 10.0, 1_005.0)],
                &[w(1_000.0, 1_010.0, 1_505.0)],
                500.0,
                Some(0),
            ),
            // Lost 300 more.
            (
                &[w(0.0, 10.0, 1_005.0)],
                &[w(1_000.0, 1_010.0, 1_205.0)],
                500.0,
                Some(290),
            ),
            // Gained 200.
            (
                &[w(0.0, 10.0, 1_005.0)],
                &[w(1_000.0, 1_010.0, 2_205.0)],
                500.0,
                Some(190),
            ),
            // A slow answer proves little.
            (
                &[w(0.0, 400.0, 1_005.0)],
                &[w(1_000.0, 1_010.0, 2_205.0)],
                500.0,
                Some(190),
            ),
            (&[], &[w(1_000.0, 1_010.0, 2_205.0)], 500.0, None),
        ];
        for (before, after, outage, expect) in table {
            assert_eq!(clock_step(before, after, *outage), *expect, "{before:?} {after:?}");
        }
    }
}
