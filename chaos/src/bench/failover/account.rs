//! Where the time of a failover went, by the nodes' own logs: when the survivors noticed the end, when a replica stood, when
//! one was in office. What is left until the acceptance is the edges' part and the client's.
//!
//! ```text
//!   kill --noticed--> a survivor's log: its process has ended --stood--> an election --office--> in office --answer--> accepted
//! ```
//!
//! Nodes and harness share one machine and its wall clock; only differences of a few seconds are taken of it.

use anyhow::{Context as _, Result};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

const DAY_MS: f64 = 86_400_000.0;

/// Where the logs end now, and what the wall clock says.
pub(super) struct Mark {
    wall_ms: f64,
    /// (node, its log, where it ends)
    ends: Vec<(u64, PathBuf, u64)>,
}

/// What the logs say of one shard; all in ms after the mark.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(super) struct OfShard {
    /// First candidate, and how many stood until the office.
    pub(super) stood: Option<f64>,
    pub(super) stands: u32,
    pub(super) office: Option<f64>,
    /// Whose office that was.
    pub(super) leader: Option<u64>,
    /// Offices that began: more than one, and leadership was lost again.
    pub(super) offices: u32,
}

/// What the logs say of a failover.
#[derive(Default, PartialEq, Debug)]
pub(super) struct Account {
    /// First and last survivor to see that the node is gone.
    pub(super) noticed: Option<(f64, f64)>,
    pub(super) shards: BTreeMap<u32, OfShard>,
}

impl Mark {
    /// Of these logs, now.
    pub(super) fn now(logs: Vec<(u64, PathBuf)>) -> Result<Mark> {
        let ends = logs.into_iter().map(|(node, log)| {
            let end = std::fs::metadata(&log).with_context(|| format!("{}", log.display()))?;
            Ok((node, log, end.len()))
        });
        Ok(Mark {
            ends: ends.collect::<Result<_>>()?,
            wall_ms: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3 % DAY_MS,
        })
    }

    /// What was logged since.
    pub(super) fn account(&self) -> Result<Account> {
        let mut account = Account::default();
        for (node, log, end) in &self.ends {
            let mut text = String::new();
            let mut file = File::open(log)?;
            file.seek(SeekFrom::Start(*end))?;
            file.read_to_string(&mut text)?;
            text.lines().for_each(|line| account.take(*node, line, self.wall_ms));
        }
        Ok(account)
    }
}

impl Account {
    fn take(&mut self, node: u64, line: &str, wall_ms: f64) {
        let Some(at) = time_of_day(line) else { return };
        let at = (at - wall_ms).rem_euclid(DAY_MS);
        if line.contains("a node's process has ended") || line.contains("a node is lost") {
            let (first, last) = self.noticed.unwrap_or((at, at));
            self.noticed = Some((first.min(at), last.max(at)));
            return;
        }
        let Some(shard) = field(line, "shard=") else { return };
        let stands = line.contains("stands for election") || line.contains("inherits from a leader");
        let office = line.contains(": in office");
        if !stands && !office {
            return;
        }
        let of = self.shards.entry(shard).or_default();
        let first = |known: Option<f64>| Some(known.map_or(at, |known| known.min(at)));
        if stands {
            (of.stood, of.stands) = (first(of.stood), of.stands + 1);
        } else {
            if of.office.is_none_or(|known| at < known) {
                of.leader = Some(node);
            }
            (of.office, of.offices) = (first(of.office), of.offices + 1);
        }
    }
}

/// The time of day, ms, of a line that begins like `2026-11-22T20:41:11.802311Z`.
fn time_of_day(line: &str) -> Option<f64> {
    let (clock, _) = line.split_once('T')?.1.split_once('Z')?;
    let mut parts = clock.split(':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some(((hours * 60.0 + minutes) * 60.0 + seconds) * 1e3)
}

fn field(line: &str, name: &str) -> Option<u32> {
    let text = line.split_once(name)?.1;
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_nodes_become_an_account() {
        let lines = "2026-11-22T23:59:59.900000Z  INFO raft_store::pulse: a node's process has ended node=1\n\
            2026-11-22T23:59:59.912000Z  INFO raft_store::pulse: a node's process has ended node=1\n\
            2026-11-22T23:59:59.915500Z  INFO raft_store::pulse::rounds: inherits from a leader that has ended shard=7\n\
            2026-11-23T00:00:00.020000Z  INFO raft_store::pulse::rounds: stands for election shard=7\n\
            2026-11-23T00:00:00.031000Z  INFO raft_store::clock::proposer::reign: in office shard=7 term=3 turn=0 base=12\n\
            2026-11-23T00:00:00.040000Z  INFO raft_store::clock::proposer::reign: out of office shard=7 term=3 turn=0\n\
            2026-11-23T00:00:00.041000Z  INFO raft_store::clock::proposer::reign: in office shard=7 term=4 turn=0 base=12\n\
            thread 'main' has said something else entirely";
        let mut account = Account::default();
        lines.lines().for_each(|line| account.take(2, line, DAY_MS - 110.0));
        let round = |ms: f64| ms.round();
        assert_eq!(account.noticed.map(|(a, b)| (round(a), round(b))), Some((10.0, 22.0)));
        let of = account.shards[&7];
        assert_eq!((of.stood.map(round), of.stands), (Some(26.0), 2));
        assert_eq!((of.office.map(round), of.offices), (Some(141.0), 2), "across midnight");
        assert_eq!(of.leader, Some(2));
        assert_eq!(account.shards.len(), 1);
    }
}
