//! The checkers, proven: a simulated run that is right passes, and each planted bug is caught by the check that it is for.
//!
//! ```text
//!   seed, plant --> sim (a small auction house, written from the history's document) --> History --> check
//!                                                                    expected: exactly the checks of the plant's row
//! ```
//!
//! Why plants and not unit tests per check: a check that fires on a hand-made line proves that it reads the line; a check
//! that fires on one bug in ten thousand good lines, while the other twelve stay silent, proves that it tells bugs apart.

mod plant;
mod sim;

pub(crate) use plant::{PLANTS, Plant};

use crate::{
    check::{Report, Status, check},
    history::History,
};

/// A simulated run with a bug in it (or none), as checked.
fn run(seed: u64, plant: Plant) -> (History, Report) {
    let history = History::of(&sim::simulate(seed, plant));
    let report = check(&history);
    (history, report)
}

/// Proves all checkers on one seed; says row by row what was caught. True: as the table says.
pub(crate) fn prove(seed: u64, out: &mut dyn std::fmt::Write) -> Result<bool, std::fmt::Error> {
    let mut proven = true;
    for row in PLANTS {
        let (history, report) = run(seed, row.plant);
        let right = report.failed() == row.caught && report.status() == row.status;
        let (caught, is) = (report.failed().join(" "), if right { "as it must" } else { "WRONG" });
        writeln!(
            out,
            "{:<16}{:<54}{:<9}{caught:<8} {is}",
            format!("{:?}", row.plant),
            row.what,
            report.status().word()
        )?;
        if !right {
            proven = false;
            report.print(&history, out)?;
        }
    }
    Ok(proven)
}

/// The exit status of a proof.
pub(crate) fn status(proven: bool) -> Status {
    if proven { Status::Pass } else { Status::Fail }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    fn expect(seed: u64, plant: Plant, status: Status, caught: &[&str]) {
        let (history, report) = run(seed, plant);
        let mut text = String::new();
        report.print(&history, &mut text).unwrap();
        let replay = format!("replay: chaos prove --seed {seed}");
        assert_eq!(
            (report.status(), report.failed()),
            (status, caught.to_vec()),
            "{plant:?}, {replay}\n{text}"
        );
    }

    #[test]
    fn a_right_run_passes_whatever_the_seed() {
        for seed in 1..=3 {
            expect(seed, Plant::Nothing, Status::Pass, &[]);
        }
    }

    #[test]
    fn each_planted_bug_is_caught_by_its_check() {
        for row in PLANTS {
            expect(4, row.plant, row.status, row.caught);
        }
    }

    #[test]
    fn every_check_has_a_bug_that_it_catches() {
        let caught: BTreeSet<_> = PLANTS.iter().flat_map(|row| row.caught.iter().copied()).collect();
        let all: BTreeSet<_> = (1..=12).chain([14]).map(|n| format!("C{n}")).collect();
        assert_eq!(caught.into_iter().map(String::from).collect::<BTreeSet<_>>(), all);
        // C13 never fails a run, it makes it unknown.
        assert!(
            PLANTS
                .iter()
                .any(|row| row.plant == Plant::Thin && row.status == Status::Unknown)
        );
    }
}
