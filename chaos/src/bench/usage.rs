//! What processes use, as the kernel counts it: CPU seconds and resident memory of ours, and how busy the machine is
//! with everything else.
//!
//! Rates on a shared machine lie, CPU per operation lies less: so each figure that is compared comes with both, and with
//! `others`, the share of the machine that neither servers nor clients of the run used while it was measured. Children
//! that a process has left behind are not counted: none of the measured ones has any.

use anyhow::{Context as _, Result};
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

/// A moment's counters of some processes and of the machine.
pub(crate) struct Usage {
    at: Instant,
    /// Ticks of each group of processes.
    groups: Vec<u64>,
    /// Ticks that the machine was busy, all cores.
    busy: u64,
}

/// What happened between two moments.
pub(crate) struct Spent {
    /// CPU seconds of each group, in the order given.
    pub(crate) groups: Vec<f64>,
    /// Wall time between.
    pub(crate) seconds: f64,
    /// CPU seconds of everything else on this machine.
    pub(crate) others: f64,
}

impl Usage {
    /// Now, of groups of processes (servers, clients).
    pub(crate) fn now(groups: &[&[u32]]) -> Result<Usage> {
        let sum = |pids: &&[u32]| pids.iter().map(|pid| ticks(*pid)).sum::<Result<u64>>();
        Ok(Usage {
            at: Instant::now(),
            groups: groups.iter().map(sum).collect::<Result<_>>()?,
            busy: busy()?,
        })
    }

    /// Since then, of the same groups.
    pub(crate) fn since(&self, groups: &[&[u32]]) -> Result<Spent> {
        let now = Usage::now(groups)?;
        let per_s = rustix::param::clock_ticks_per_second() as f64;
        let each = now.groups.iter().zip(&self.groups);
        let groups: Vec<f64> = each.map(|(a, b)| a.saturating_sub(*b) as f64 / per_s).collect();
        let busy = now.busy.saturating_sub(self.busy) as f64 / per_s;
        Ok(Spent {
            others: (busy - groups.iter().sum::<f64>()).max(0.0),
            groups,
            seconds: (now.at - self.at).as_secs_f64(),
        })
    }
}

/// What groups of processes use between two moments that are still to come.
pub(crate) async fn between(groups: &[&[u32]], from: Instant, until: Instant) -> Result<Spent> {
    tokio::time::sleep_until(from.into()).await;
    let before = Usage::now(groups)?;
    tokio::time::sleep_until(until.into()).await;
    before.since(groups)
}

impl Spent {
    /// The rest's use, percent of the whole machine.
    pub(crate) fn others_percent(&self) -> f64 {
        round1(100.0 * self.others / (self.seconds * cores()))
    }
}

/// Cores of this machine.
pub(crate) fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// How busy the machine is by itself, percent of all cores: looked at for a second, before a run begins.
pub(crate) async fn busy_percent() -> Result<f64> {
    let before = Usage::now(&[])?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(before.since(&[])?.others_percent())
}

/// Resident memory of a process, MiB.
pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<f64>()
            .ok()
    });
    Ok(round1(kib.context("no VmRSS")? / 1024.0))
}

/// CPU seconds of each thread of a process so far, by the thread's name; threads of one name together.
pub(crate) fn threads(pid: u32) -> Result<BTreeMap<String, f64>> {
    let per_s = rustix::param::clock_ticks_per_second() as f64;
    let mut spent = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        // One that ended meanwhile is left out.
        let (Ok(name), Ok(stat)) = (
            fs::read_to_string(thread.join("comm")),
            fs::read_to_string(thread.join("stat")),
        ) else {
            continue;
        };
        let ticks = parse_ticks(&stat).with_context(|| format!("{}/stat", thread.display()))?;
        *spent.entry(name.trim_end().to_owned()).or_default() += ticks as f64 / per_s;
    }
    Ok(spent)
}

/// To a tenth: more digits would claim more than was measured.
pub(crate) fn round1(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn ticks(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    parse_ticks(&text).with_context(|| format!("/proc/{pid}/stat"))
}

/// utime and stime, fields 14 and 15. The name (field 2) may hold spaces and brackets: count from its last bracket.
fn parse_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

fn busy() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    text.lines().next().and_then(parse_busy).context("/proc/stat")
}

/// Everything of the first line but idle (4th) and waiting for a disk (5th); guests are in user time already.
fn parse_busy(line: &str) -> Option<u64> {
    let fields = line.strip_prefix("cpu ")?.split_ascii_whitespace();
    let fields: Vec<u64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    Some(fields.iter().take(8).sum::<u64>() - fields.get(3)? - fields.get(4)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_kernels_lines_are_read_as_they_are() {
        for (stat, ticks) in [
            (
                "7 (etcd) S 1 7 7 0 -1 4194560 1 0 0 0 120 30 9 9 20 0 1 0 5 6 7",
                Some(150),
            ),
            (
                "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 2 3 9 9 20 0 1 0 5 6 7",
                Some(5),
            ),
            ("7 (etcd) S 1 7", None),
            ("", None),
        ] {
            assert_eq!(parse_ticks(stat), ticks, "{stat}");
        }
        // user nice system idle iowait irq softirq steal guest guest_nice
        assert_eq!(parse_busy("cpu  10 1 5 1000 50 2 3 4 10 1"), Some(25));
        assert_eq!(parse_busy("cpu0 10 1 5 1000 50 2 3 4 10 1"), None);
    }

    #[test]
    fn a_process_that_works_is_seen_to_work() {
        let me = [std::process::id()];
        let groups: [&[u32]; 1] = [&me];
        let before = Usage::now(&groups).unwrap();
        // Until the kernel has charged us two ticks, and one of them to a thread that still lives (others' tests end beside
        // this one, and what they spent stays with the process): the counters themselves are the event that is waited for.
        let mut spent = before.since(&groups).unwrap();
        let living = || threads(me[0]).unwrap().values().sum::<f64>();
        while spent.groups[0] < 0.02 || living() == 0.0 {
            spent = before.since(&groups).unwrap();
        }
        assert!(spent.groups[0] >= 0.02 && spent.seconds > 0.0);
        assert!(rss_mib(me[0]).unwrap() > 0.0);
        assert!(Usage::now(&[&[u32::MAX][..]]).is_err(), "no such process");
        let threads = threads(me[0]).unwrap();
        assert!(threads.len() > 1, "{threads:?}");
    }
}
