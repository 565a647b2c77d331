//! Mistakes that every node of a simulation makes, to show that the seeds find them: each within a bound.

use super::{SimOptions, child, replay};
use crate::check::Status;
use raft_store::sim::Plant;
use std::fmt::Write as _;

/// A mistake: its name, what it is, how to make it, and within how many seeds it must be found.
struct Row {
    name: &'static str,
    what: &'static str,
    sow: fn(),
    within: u64,
}

macro_rules! raft {
    ($plant:ident) => {
        || raft_store::sim::plant(Plant::$plant)
    };
}

const ROWS: &[Row] = &[Row {
    name: "ack-before-fsync",
    what: "the log answers before the disk has it",
    sow: raft!(AckBeforeFsync),
    within: 60,
}];

fn row(name: &str) -> anyhow::Result<&'static Row> {
    let row = ROWS.iter().find(|row| row.name == name);
    row.ok_or_else(|| {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        anyhow::anyhow!("no plant {name:?}; there are: {}", names.join(" "))
    })
}

/// Has every node of this process make a mistake.
pub(super) fn sow(name: &str) -> anyhow::Result<()> {
    (row(name)?.sow)();
    Ok(())
}

/// One mistake: found within its bound, or not.
pub(super) fn one(name: &str, options: &SimOptions, out: &mut String) -> anyhow::Result<Status> {
    let row = row(name)?;
    for n in 0..row.within {
        let seed = options.from + n;
        let (line, _) = child(seed, Some(name), options)?;
        let failed = line.map_or_else(|| vec!["broke off".to_owned()], |line| line.failed);
        if !failed.is_empty() {
            let (by, how) = (failed.join(" "), replay(seed, Some(name), options));
            writeln!(out, "{name:<24}found by seed {seed:<4}{by:<20}{how}   ({})", row.what)?;
            return Ok(Status::Pass);
        }
    }
    writeln!(out, "{name:<24}NOT FOUND in {} seeds   ({})", row.within, row.what)?;
    Ok(Status::Fail)
}

/// All of them.
pub(super) fn all(options: &SimOptions, out: &mut String) -> anyhow::Result<Status> {
    let (mut found, mut missed) = (0, 0);
    for row in ROWS {
        match one(row.name, options, out)? {
            Status::Pass => found += 1,
            _ => missed += 1,
        }
    }
    writeln!(out, "# pass {found}\n# fail {missed}")?;
    Ok(if missed == 0 { Status::Pass } else { Status::Fail })
}
