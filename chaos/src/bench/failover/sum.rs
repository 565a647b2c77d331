//! Samples of one run or of several, and the figures of all of them.
//!
//! A hundred kills take longer than anyone wants to have the machine to oneself: with a file, runs are pieces of one
//! measurement. It holds a line of JSON for each sample and one for each run, so that quantiles are of the samples, never of
//! quantiles.

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

/// One shard's failover: moments in ms after the kill.
#[derive(Clone, Serialize, Deserialize, Debug, Default)]
pub(super) struct Sample {
    pub(super) shard: u32,
    /// The first acceptance that was called after the kill.
    pub(super) ms: f64,
    /// The last survivor had seen the end of the process.
    pub(super) noticed: Option<f64>,
    pub(super) stood: Option<f64>,
    pub(super) stands: u32,
    pub(super) office: Option<f64>,
    pub(super) offices: u32,
    /// Who leads now.
    pub(super) leader: Option<u64>,
    /// The bid under way at the kill was answered.
    pub(super) freed: Option<f64>,
    /// The accepted bid was called.
    pub(super) called: f64,
    /// Who answered that bid under way, and this one.
    pub(super) edges: [Option<u64>; 2],
    /// More than 0: beyond what G5 allows.
    pub(super) eaten: Option<f64>,
    pub(super) given: Option<f64>,
    pub(super) outran: Option<f64>,
}

impl Sample {
    fn breaks_g5(&self) -> bool {
        [self.eaten, self.given, self.outran]
            .into_iter()
            .flatten()
            .any(|ms| ms > 0.0)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |ms: Option<f64>| ms.map_or("-".into(), |ms| format!("{ms:.0}"));
        write!(
            f,
            "shard {} after {:.0} ms: noticed {}, stood {} ({} times), node {} in office {} ({} times), the bid under way answered {}, \
             the next called {:.0}, by nodes {:?}{}",
            self.shard,
            self.ms,
            at(self.noticed),
            at(self.stood),
            self.stands,
            self.leader.unwrap_or(0),
            at(self.office),
            self.offices,
            at(self.freed),
            self.called,
            self.edges,
            if self.breaks_g5() { "; G5 is broken" } else { "" },
        )
    }
}

/// One run.
#[derive(Serialize, Deserialize, Debug, Default)]
struct Run {
    kills: usize,
    acked: usize,
    acked_lost: usize,
}

#[derive(Serialize, Deserialize)]
enum Line {
    /// Of how many shards all runs in this file are.
    Of(u32),
    Sample(Box<Sample>),
    Run(Run),
}

/// All samples so far.
#[derive(Default)]
pub(super) struct Sum {
    file: Option<PathBuf>,
    shards: u32,
    samples: Vec<Sample>,
    runs: Vec<Run>,
    /// Lines that the file hasn't yet.
    new: Vec<Line>,
}

impl Sum {
    /// Those of a file, if one is named; it must be of as many shards.
    pub(super) fn open(file: Option<&Path>, shards: u32) -> Result<Sum> {
        let mut sum = Sum {
            file: file.map(Path::to_path_buf),
            shards,
            ..Sum::default()
        };
        let Some(file) = file.filter(|file| file.exists()) else {
            sum.new.push(Line::Of(shards));
            return Ok(sum);
        };
        for line in fs::read_to_string(file)?.lines() {
            match serde_json::from_str(line).with_context(|| format!("{}: {line}", file.display()))? {
                Line::Of(of) => ensure!(of == shards, "{} is of {of} shards", file.display()),
                Line::Sample(sample) => sum.samples.push(*sample),
                Line::Run(run) => sum.runs.push(run),
            }
        }
        Ok(sum)
    }

    pub(super) fn add(&mut self, samples: Vec<Sample>) {
        self.new.extend(samples.iter().cloned().map(Box::new).map(Line::Sample));
        self.samples.extend(samples);
    }

    /// Ends this run: only now are its samples in the file, with what it lost.
    pub(super) fn close(mut self, kills: usize, acked: usize, acked_lost: usize) -> Result<serde_json::Value> {
        let run = || Run {
            kills,
            acked,
            acked_lost,
        };
        self.new.push(Line::Run(run()));
        self.runs.push(run());
        if let Some(file) = &self.file {
            let mut text = String::new();
            for line in &self.new {
                text += &serde_json::to_string(line)?;
                text.push('\n');
            }
            let mut file = OpenOptions::new().create(true).append(true).open(file)?;
            file.write_all(text.as_bytes())?;
        }
        Ok(self.figures())
    }

    fn figures(&self) -> serde_json::Value {
        let times = |of: fn(&Sample) -> Option<f64>| {
            let mut times: Vec<f64> = self.samples.iter().filter_map(of).collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let all = times(|sample| Some(sample.ms));
        let noticed = times(|sample| sample.noticed);
        let office = times(|sample| sample.office);
        let answer = times(|sample| Some(sample.ms - sample.office?));
        let most = |of: fn(&Sample) -> Option<f64>| rank(&times(of), 1.0);
        let total = |of: fn(&Run) -> usize| self.runs.iter().map(of).sum::<usize>();
        serde_json::json!({
            "bench": "failover", "failover_ms_p50": rank(&all, 0.5), "failover_ms_p99": rank(&all, 0.99),
            "failover_ms_max": rank(&all, 1.0), "kills": total(|run| run.kills), "shards": self.shards,
            "shards_lost": all.len(), "runs": self.runs.len(),
            "acked": total(|run| run.acked), "acked_lost": total(|run| run.acked_lost),
            "noticed_ms_p50": rank(&noticed, 0.5), "noticed_ms_p99": rank(&noticed, 0.99),
            "office_ms_p50": rank(&office, 0.5), "office_ms_p99": rank(&office, 0.99), "office_ms_max": rank(&office, 1.0),
            "answer_after_office_ms_p50": rank(&answer, 0.5), "answer_after_office_ms_p99": rank(&answer, 0.99),
            "stood_again": self.samples.iter().filter(|sample| sample.stands > 1).count(),
            "g5_broken": self.samples.iter().filter(|sample| sample.breaks_g5()).count(),
            "g5_judged": self.samples.iter().filter(|sample| sample.eaten.is_some()).count(),
            "g5_eaten_margin_ms": most(|sample| sample.eaten), "g5_given_margin_ms": most(|sample| sample.given),
        })
    }
}

/// The value at a quantile of sorted times: one that was seen, the larger one between two.
fn rank(times: &[f64], quantile: f64) -> Option<f64> {
    let last = times.len().checked_sub(1)?;
    let at = times.get((last as f64 * quantile).ceil() as usize)?;
    Some((at * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample(ms: f64, eaten: f64) -> Sample {
        Sample {
            ms,
            office: Some(ms / 2.0),
            eaten: Some(eaten),
            ..Sample::default()
        }
    }

    #[test]
    fn runs_add_up_in_a_file_and_quantiles_are_of_samples() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sum");
        let mut one = Sum::open(Some(&file), 16).unwrap();
        one.add((1..=99).map(|n| sample(f64::from(n), -1.0)).collect());
        one.close(2, 1_000, 0).unwrap();
        let mut two = Sum::open(Some(&file), 16).unwrap();
        two.add(vec![sample(1_000.0, 0.5), sample(2_000.0, -3.0)]);
        let figures = two.close(1, 500, 1).unwrap();
        for (key, value) in [
            ("failover_ms_p50", 51.0),
            ("failover_ms_p99", 1_000.0),
            ("failover_ms_max", 2_000.0),
            ("office_ms_max", 1_000.0),
            ("kills", 3.0),
            ("acked", 1_500.0),
            ("acked_lost", 1.0),
            ("g5_broken", 1.0),
            ("g5_eaten_margin_ms", 0.5),
        ] {
            assert_eq!(figures[key].as_f64(), Some(value), "{key}");
        }
        assert!(Sum::open(Some(&file), 128).is_err(), "another cluster's");
    }
}
