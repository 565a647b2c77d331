//! The promises as checks over a recorded history: one file per property, all from the same `Book`.
//!
//! ```text
//!   FILE… --> History --> Book --> c01 … c14 --> Report --> exit 0 pass | 1 fail | 2 unknown
//! ```
//!
//! A check says what it found and the lines that show it. *Fail* is a broken promise; *unknown* means that the history
//! can't tell (no end, no coverage, logs missing): never a pass. Every check is O(n log n) or less, and proven by the
//! bugs planted in `prove`.
//!
//! Deliberately absent: the `auction` crate. The rules are replayed from the history's own document, so that a bug in
//! the product can't hide behind itself. Absent too: a black-box search for a linearization; the version in every answer
//! is a witness, and a witness is checked in one sweep.

mod c01_form;
mod c02_replicas;
mod c03_kept;
mod c04_asked;
mod c05_once;
mod c06_rules;
mod c07_order;
mod c08_close;
mod c09_clock;
mod c10_streams;
mod c11_chat;
mod c12_gaps;
mod c13_coverage;
mod c14_neighbours;
mod stamps;

/// The hash chain of the history's document, for whoever writes one.
pub(crate) mod hash {
    pub(crate) use super::c02_replicas::{genesis, hash as next};
}

use crate::{
    book::Book,
    history::{History, Place},
};
use std::fmt;

/// Findings of one check that are kept; the rest is counted.
const KEPT_MAX: usize = 50;

/// What a check, or all of them, came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Status {
    Pass,
    Unknown,
    Fail,
}

impl Status {
    /// The exit status of a check.
    pub(crate) fn code(self) -> u8 {
        match self {
            Status::Pass => 0,
            Status::Fail => 1,
            Status::Unknown => 2,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Pass => "pass",
            Status::Fail => "fail",
            Status::Unknown => "unknown",
        }
    }
}

/// One thing that was found, and the lines that show it.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) status: Status,
    pub(crate) what: String,
    pub(crate) lines: Vec<Place>,
}

/// What one check found.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    /// Things looked at: a check that looked at nothing proves nothing.
    pub(crate) judged: u64,
    pub(crate) findings: Vec<Finding>,
    /// Findings beyond those kept.
    pub(crate) more: u64,
    /// What was measured on the way.
    pub(crate) figures: Vec<(&'static str, f64)>,
}

impl Outcome {
    fn new(id: &'static str, name: &'static str) -> Outcome {
        Outcome {
            id,
            name,
            judged: 0,
            findings: Vec::new(),
            more: 0,
            figures: Vec::new(),
        }
    }

    fn find(&mut self, status: Status, what: String, lines: Vec<Place>) {
        if self.findings.len() < KEPT_MAX {
            self.findings.push(Finding { status, what, lines });
        } else {
            self.more += 1;
        }
    }

    /// A promise is broken.
    fn fail(&mut self, what: String, lines: Vec<Place>) {
        self.find(Status::Fail, what, lines);
    }

    /// The history can't tell.
    fn unknown(&mut self, what: String) {
        self.find(Status::Unknown, what, Vec::new());
    }

    fn figure(&mut self, name: &'static str, value: f64) {
        self.figures.push((name, value));
    }

    pub(crate) fn status(&self) -> Status {
        self.findings
            .iter()
            .map(|finding| finding.status)
            .max()
            .unwrap_or(Status::Pass)
    }
}

/// Everything that was found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) outcomes: Vec<Outcome>,
}

impl Report {
    pub(crate) fn status(&self) -> Status {
        self.outcomes
            .iter()
            .map(Outcome::status)
            .max()
            .unwrap_or(Status::Unknown)
    }

    /// The checks that failed, by id.
    pub(crate) fn failed(&self) -> Vec<&'static str> {
        self.outcomes
            .iter()
            .filter(|o| o.status() == Status::Fail)
            .map(|o| o.id)
            .collect()
    }

    /// As one JSON object: for `report.json`.
    pub(crate) fn json(&self) -> serde_json::Value {
        let checks: serde_json::Map<_, _> = self
            .outcomes
            .iter()
            .map(|o| {
                let figures: serde_json::Map<_, _> = o
                    .figures
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).into()))
                    .collect();
                let found: Vec<_> = o.findings.iter().take(5).map(|f| f.what.clone()).collect();
                let value = serde_json::json!({
                    "name": o.name, "status": o.status().word(), "judged": o.judged,
                    "findings": o.findings.len() as u64 + o.more, "first": found, "figures": figures,
                });
                (o.id.to_owned(), value)
            })
            .collect();
        serde_json::json!({ "status": self.status().word(), "checks": checks })
    }

    /// For people: a line per check, and under it what it found with the lines that show it.
    pub(crate) fn print(&self, history: &History, out: &mut dyn fmt::Write) -> fmt::Result {
        for o in &self.outcomes {
            write!(
                out,
                "{:<4}{:<34}{:<8}{:>9} judged",
                o.id,
                o.name,
                o.status().word(),
                o.judged
            )?;
            for (name, value) in &o.figures {
                write!(out, "  {name}={}", (value * 100.0).round() / 100.0)?;
            }
            writeln!(out)?;
            for finding in &o.findings {
                writeln!(out, "    {}: {}", finding.status.word(), finding.what)?;
                for place in &finding.lines {
                    writeln!(out, "        {}", history.show(*place))?;
                }
            }
            if o.more > 0 {
                writeln!(out, "    … and {} more", o.more)?;
            }
        }
        writeln!(out, "{}", self.status().word())
    }
}

/// Runs every check.
pub(crate) fn check(history: &History) -> Report {
    let book = Book::of(history);
    let outcomes = vec![
        c01_form::check(history, &book),
        c02_replicas::check(&book),
        c03_kept::check(&book),
        c04_asked::check(&book),
        c05_once::check(&book),
        c06_rules::check(&book),
        c07_order::check(&book),
        c08_close::check(&book),
        c09_clock::check(&book),
        c10_streams::check(&book),
        c11_chat::check(&book),
        c12_gaps::check(&book),
        c13_coverage::check(&book),
        c14_neighbours::check(&book),
    ];
    Report { outcomes }
}

/// The time between two moments as ms.
fn ms(nanos: i64) -> f64 {
    nanos as f64 / 1e6
}
