//! Walking over a segment's bytes: which records are there, and what each place says that holds none.
//!
//! The writer fsyncs batch *n* before it writes the first byte of batch *n + 1*. So when the process or the machine dies,
//! only the last batch can be in pieces, and any piece of it may be missing (a disk writes pages in any order). Whatever
//! else can't be read was once durable, and perhaps promised: that is damage.
//!
//! Let the first place that can't be read be `?`, and the last record before it belong to batch *b*.
//!
//! ```text
//!   … [b][b last] ? …            '?' belongs to b+1.  A whole record of b+2 or later behind it: damage. Else: torn.
//!   … [b][b]      ? …            '?' belongs to b.    A whole record of b+1 or later behind it: damage. Else: torn.
//! ```
//!
//! What can't be told: rot in the very last batch looks like a torn one, and so does a log whose end the disk rolled back.
//! The writer keeps that window short: a second after the last batch, and at a close, it adds a tally, and what lies
//! before a tally isn't the last batch. What is left is Raft's: one replica's copy of what a majority holds.
//!
//! Deliberately absent: I/O, and judging what damage means (`proof`).

use super::{
    plant::{self, Plant},
    record::{self, Found, Header, Kind},
};

/// What lies at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    Record(Found),
    /// Bytes that were durable and can't be read; what follows can.
    Lost {
        from: usize,
        to: usize,
    },
}

/// How a segment ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// The first byte that belongs to no record.
    pub(super) at: usize,
    pub(super) sealed: bool,
    /// A batch was being written here: its pieces may be cut.
    pub(super) torn: bool,
    /// Whether any record is in it.
    pub(super) empty: bool,
}

/// The walk, from segment to segment.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Walk {
    /// Batch and 'last' flag of the newest readable record.
    last: Option<(u64, bool)>,
}

impl Walk {
    /// The number of the next batch to be written.
    pub(super) fn next_batch(&self) -> u64 {
        self.last.map_or(1, |(batch, _)| batch + 1)
    }

    /// Walks over a segment. In the last one (`is_tail`) its end may be torn; elsewhere what can't be read is lost.
    pub(super) fn segment<E>(
        &mut self,
        file: &[u8],
        header: &Header,
        is_tail: bool,
        mut sink: impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<End, E> {
        let mut end = End {
            at: header.len(),
            sealed: false,
            torn: false,
            empty: true,
        };
        loop {
            while let Some(found) = record::read(file, end.at, header.form) {
                self.last = Some((found.mark.batch, found.mark.last));
                end.at = found.next();
                end.empty = false;
                if found.kind == Kind::Seal {
                    end.sealed = true;
                    return Ok(end);
                }
                sink(Piece::Record(found))?;
            }
            match self.beyond(file, header, end.at, is_tail) {
                Some(to) => {
                    sink(Piece::Lost { from: end.at, to })?;
                    end.at = to;
                }
                None => break,
            }
        }
        let rest = file.get(end.at..).unwrap_or_default();
        end.torn = self.last.is_some_and(|(_, last)| !last) || rest.iter().any(|byte| *byte != 0);
        Ok(end)
    }

    /// The next whole record behind an unreadable place, if what lies between is damage.
    fn beyond(&self, file: &[u8], header: &Header, at: usize, is_tail: bool) -> Option<usize> {
        let durable = match self.last {
            _ if is_tail && plant::is(Plant::DamageTakenForTorn) => return None,
            _ if !is_tail => 0,
            Some((batch, true)) => batch + 2,
            Some((batch, false)) => batch + 1,
            None => header.batch.max(1) + 1,
        };
        let whole = || {
            let places = (at..file.len()).step_by(8);
            places.filter_map(|at| record::read(file, at, header.form))
        };
        let first = whole().next()?;
        (first.mark.batch >= durable || whole().any(|found| found.mark.batch >= durable)).then_some(first.at)
    }
}
