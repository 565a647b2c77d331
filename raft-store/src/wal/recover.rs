//! Reading the log back at a start, and telling a torn tail from damage.
//!
//! The writer fsyncs batch *n* before it writes the first byte of batch *n + 1*. So when the process or the machine dies,
//! only the last batch can be in pieces, and any piece of it may be missing (a disk writes pages in any order). Whatever
//! else can't be read was once durable, and perhaps promised: that is damage, and this node must not guess.
//!
//! Let the first record that can't be read be at `o`, and the last one before it belong to batch *b*.
//!
//! ```text
//!   … [b][b last] ? …            '?' belongs to b+1.  A whole record of b+2 or later behind it: damage. Else: torn, cut.
//!   … [b][b]      ? …            '?' belongs to b.    A whole record of b+1 or later behind it: damage. Else: torn, cut.
//! ```
//!
//! A cut zeroes everything from `o` and writes a `Cut` record as a batch of its own, so that the next recovery meets whole
//! batches again. What of the torn batch was readable before `o` is kept: nobody was promised it, but nobody was told that
//! it failed either. Earlier segments must be whole up to their seal.
//!
//! What can't be told: rot in the very last batch looks like a torn one. Raft then loses one replica's copy of entries that
//! a majority acknowledged; `chaos` knows this limit.

use super::{
    record::{self, Found, HEADER, Kind, Record},
    segment,
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Given each record of a group: (group, kind, payload).
pub(crate) type Visit<'a> = dyn FnMut(u32, Kind, Bytes) -> Result<(), String> + 'a;

/// Why the log can't open.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk answered with an error.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the disk said.
        source: io::Error,
    },
    /// Something that was durable can't be read.
    #[error("{} at byte {at}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
        /// What is wrong.
        what: String,
    },
}

/// What the writer goes on from.
pub(super) struct Recovered {
    /// The open last segment and where its free room begins; `None`: the next is to be made.
    pub(super) tail: Option<(segment::Segment, u64)>,
    /// The number of the next segment to be made.
    pub(super) next_seq: u64,
    pub(super) next_batch: u64,
    /// Oldest first: each segment's groups and the highest entry index of each in it.
    pub(super) pins: BTreeMap<u64, BTreeMap<u32, u64>>,
    /// The newest small state of each group, for checkpoints.
    pub(super) small: BTreeMap<(u32, Kind), Record>,
}

/// Replays `dir` into `visit`.
pub(super) fn recover(dir: &Path, visit: &mut Visit<'_>) -> Result<Recovered, WalError> {
    let io = |what: &str| {
        let what = format!("{what} {}", dir.display());
        move |source| WalError::Io { what, source }
    };
    std::fs::create_dir_all(dir).map_err(io("making"))?;
    let segments = segment::list(dir).map_err(io("listing"))?;
    let mut replay = Replay {
        visit,
        last: None,
        out: Recovered {
            tail: None,
            next_seq: 1,
            next_batch: 1,
            pins: BTreeMap::new(),
            small: BTreeMap::new(),
        },
    };
    let count = segments.len();
    for (i, (seq, path)) in segments.into_iter().enumerate() {
        if i > 0 && seq != replay.out.next_seq {
            return Err(damaged(
                &path,
                0,
                format!("segment {} is missing before it", replay.out.next_seq),
            ));
        }
        replay.out.next_seq = seq + 1;
        replay.segment(seq, &path, i + 1 == count)?;
    }
    Ok(replay.out)
}

fn damaged(path: &Path, at: usize, what: impl Into<String>) -> WalError {
    WalError::Damaged {
        path: path.to_owned(),
        at,
        what: what.into(),
    }
}

struct Replay<'a, 'b> {
    visit: &'a mut Visit<'b>,
    /// Batch and 'last' flag of the newest readable record.
    last: Option<(u64, bool)>,
    out: Recovered,
}

impl Replay<'_, '_> {
    fn segment(&mut self, seq: u64, path: &Path, is_tail: bool) -> Result<(), WalError> {
        let io = |source| WalError::Io {
            what: format!("reading {}", path.display()),
            source,
        };
        let file = Bytes::from(std::fs::read(path).map_err(io)?);
        let (named, salt) = record::read_header(&file).map_err(|what| damaged(path, 0, what))?;
        if named != seq {
            return Err(damaged(path, 8, "has another segment's number"));
        }
        self.out.pins.insert(seq, BTreeMap::new());
        let mut at = HEADER;
        while let Some(found) = record::read(&file, at, salt) {
            if self.last.is_some_and(|(batch, _)| found.batch < batch) {
                return Err(damaged(path, at, "batches go back"));
            }
            self.last = Some((found.batch, found.last));
            self.out.next_batch = found.batch + 1;
            at = found.next();
            if found.kind == Kind::Seal {
                return Ok(());
            }
            self.record(seq, &file, found)
                .map_err(|what| damaged(path, found.from, what))?;
        }
        if !is_tail {
            return Err(damaged(path, at, "can't be read, and it isn't the end of the log"));
        }
        self.tail(seq, path, &file, at, salt)
    }

    fn record(&mut self, seq: u64, file: &Bytes, found: Found) -> Result<(), String> {
        let payload = file.slice(found.from..found.to);
        let record = Record::new(found.group, found.kind, payload.to_vec(), Bytes::new());
        if found.kind == Kind::Entry
            && let Some(pins) = self.out.pins.get_mut(&seq)
        {
            let pin = pins.entry(found.group).or_default();
            *pin = record.index().max(*pin);
        }
        if found.kind == Kind::Purge {
            release(&mut self.out.pins, found.group, record.index());
        }
        if found.kind.is_small_state() {
            self.out.small.insert((found.group, found.kind), record);
        }
        match found.kind {
            Kind::Seal | Kind::Cut => Ok(()),
            // Copied out: a slice would keep the whole segment in memory for as long as one entry lives.
            kind => (self.visit)(found.group, kind, Bytes::copy_from_slice(&payload)),
        }
    }

    /// The end of the last segment, from the first byte that begins no record.
    fn tail(&mut self, seq: u64, path: &Path, file: &Bytes, at: usize, salt: u64) -> Result<(), WalError> {
        let io = |source| WalError::Io {
            what: format!("opening {}", path.display()),
            source,
        };
        let open = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        let rest = file.get(at..).unwrap_or_default();
        let mut end = at;
        let whole = self.last.is_none_or(|(_, last)| last);
        if !whole || rest.iter().any(|byte| *byte != 0) {
            let durable = match self.last {
                Some((batch, true)) => batch + 2,
                Some((batch, false)) => batch + 1,
                None => 2,
            };
            let later = (at..file.len())
                .step_by(8)
                .filter_map(|at| record::read(file, at, salt));
            if let Some(later) = later.into_iter().find(|found| found.batch >= durable) {
                return Err(damaged(
                    path,
                    at,
                    format!("can't be read, but batch {} behind it can", later.batch),
                ));
            }
            end = self.cut(&open, at, file.len(), salt).map_err(io)?;
            tracing::warn!(path = %path.display(), at, bytes = rest.len(), "cut the torn end of the log");
        }
        let capacity = file.len() as u64;
        self.out.tail = Some((
            segment::Segment {
                seq,
                salt,
                file: open,
                capacity,
            },
            end as u64,
        ));
        Ok(())
    }

    /// Zeroes from `at`, then marks the place. Answers where the log goes on.
    fn cut(&mut self, file: &File, at: usize, len: usize, salt: u64) -> io::Result<usize> {
        // A batch number that no torn piece can have: recoveries after this one compare with it.
        let batch = self.out.next_batch + 2;
        let mut mark = Vec::new();
        Record::new(0, Kind::Cut, vec![0; 8], Bytes::new()).write(&mut mark, salt, batch, true);
        file.write_all_at(&vec![0; len.saturating_sub(at)], at as u64)?;
        file.sync_all()?;
        file.write_all_at(&mark, at as u64)?;
        file.sync_all()?;
        self.last = Some((batch, true));
        self.out.next_batch = batch + 1;
        Ok(at + mark.len())
    }
}

/// Entries of `group` up to `index` need no segment any more.
pub(super) fn release(pins: &mut BTreeMap<u64, BTreeMap<u32, u64>>, group: u32, index: u64) {
    for groups in pins.values_mut() {
        if groups.get(&group).is_some_and(|highest| *highest <= index) {
            groups.remove(&group);
        }
    }
}
