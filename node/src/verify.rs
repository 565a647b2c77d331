//! `rushroom verify FILE`: an exported auction, recomputed with no trust in the server that exported it.
//!
//! The file is what `GET /api/v1/auctions/{id}/export` gives: a head, one event a line, perhaps a line about the replica
//! at the end. Reading is in `read` (nothing passes that isn't understood whole), judging is `auction::verify`; here is
//! what a person is told. A refusal begins with its code, as in `head.price: …`, `event.hash: …`, `file.field: …`.
//!
//! Also the demo's smoke script judges exports by it.

mod read;
#[cfg(test)]
mod tests;

pub(crate) use read::read;

use auction::verify::{Broken, Head, Line, Reserved, Summary};

/// An export, read.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    /// What the server says of the auction.
    pub(crate) head: Head,
    /// Where the server says that the history was cut: the epoch that began, and the version that it went on from.
    pub(crate) cuts: Vec<(u64, u64)>,
    /// Its events.
    pub(crate) events: Vec<Line>,
}

/// Why an export is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {what}")]
pub(crate) struct Refused {
    /// Where and which check, as in `event.hash`.
    pub(crate) code: String,
    /// For a person.
    pub(crate) what: String,
}

/// Recomputes it: chain, rules, outcome, and the head.
pub(crate) fn verify(export: &Export) -> Result<Summary, Refused> {
    auction::verify::verify(&export.head, export.events.iter().cloned()).map_err(refused)
}

fn refused(Broken { seq, code, what }: Broken) -> Refused {
    match seq {
        Some(seq) => Refused {
            code: format!("event.{code}"),
            what: format!("event {seq} does not hold: {what}"),
        },
        None => Refused {
            code: format!("head.{code}"),
            what,
        },
    }
}

/// A summary as a few lines for a person; the last says what was checked, and what nobody can know from this file.
pub(crate) fn told(export: &Export, summary: &Summary) -> String {
    let outcome = match (summary.outcome.as_deref(), summary.winner.as_deref()) {
        (None, _) => "not over".to_string(),
        (Some(outcome), None) => outcome.to_string(),
        (Some(outcome), Some(winner)) => format!("{outcome} to {winner}"),
    };
    let head = &export.head;
    format!(
        "{}: {} events, {} bids, price {} {}, {outcome}\nhash {}\nunknown: {}\n{}\n",
        head.auction,
        summary.events,
        summary.bids,
        summary.price,
        head.terms.currency.as_str(),
        hex::encode(summary.hash),
        unknown(export, summary),
        checked(export, summary),
    )
}

/// What the file can't show, whoever looks at it.
fn unknown(export: &Export, summary: &Summary) -> String {
    let mut all: Vec<String> = [
        "hidden maxima",
        "bids that were refused or kept back",
        "who stands behind an id",
    ]
    .map(str::to_owned)
    .to_vec();
    if summary.reserve == Reserved::Sealed {
        all.insert(0, "the sealed reserve (and with it whether it is met)".into());
    }
    // A server that restored a backup says so; one that keeps quiet about it can't be caught by this file alone.
    for (epoch, after) in &export.cuts {
        all.push(format!(
            "what came after version {after} before the history was cut there (epoch {epoch})"
        ));
    }
    all.join(", ")
}

/// The last line.
fn checked(export: &Export, summary: &Summary) -> String {
    let (seq, phase) = (summary.events, export.head.shown.phase.as_str());
    if seq == 0 {
        return format!("checked: nothing but the form; it is {phase}, no event binds terms or seller yet");
    }
    let terms = if summary.bound {
        "terms and seller are those that it was opened with"
    } else {
        "it never was live, so nothing binds terms and seller"
    };
    let reserve = match summary.reserve {
        Reserved::Opened(amount) => format!("; the outcome fits the opened reserve of {amount}"),
        Reserved::Sealed | Reserved::None => String::new(),
    };
    let bound = format!(
        "checked: all {seq} events are bound to each other and follow the published rules; {terms}; \
         every field of the head is what the events make it{reserve}"
    );
    if summary.outcome.is_some() {
        format!("{bound}; closed at version {seq}, which is the end")
    } else {
        format!(
            "{bound}; {phase} at version {seq}: nothing after it is proved, and later events may have been left out"
        )
    }
}
