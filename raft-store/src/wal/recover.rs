//! Reading the log back at a start: a torn tail is cut, damage before it is pinned to the groups that it hurts.
//!
//! ```text
//!   segments, oldest first --> scan (records, lost places, the end) --> proof (who is hurt)
//!                                             |                          |
//!                                             v                          v
//!                                          ledger, visit              visit(Hurt), or the log doesn't open
//! ```
//!
//! A cut zeroes everything from the torn place and writes a `Cut` record as a batch of its own, so that the next recovery
//! meets whole batches again. What of the torn batch was readable before it is kept: nobody was promised it, but nobody
//! was told that it failed either.
//!
//! **Files.** The next segment's file is durable before the one before it is sealed. So the last segment may be a blank
//! one whose predecessor isn't sealed (it is dropped, and made again), but a sealed segment without a next has lost it. A
//! segment that is missing between others is a loss like any other. Where something is lost, but the newer segments alone
//! hold all that they say is alive, the older ones aren't needed: they are strays (an old backup, say), and are put aside
//! as `*.stray`. Each segment names the salt of the one before:
//! one of another life doesn't fit.
//!
//! Deliberately absent: repair. A hurt group comes back from its other replicas.

use super::{
    disk::{Disk, DiskFile},
    ledger::{self, Ledger},
    plant::{self, Plant},
    proof::Proof,
    record::{Form, Found, Header, Kind, Mark, Record},
    scan::{Piece, Walk},
    segment::{self, Segment},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Given each record of a group: (group, kind, payload). At the end, a `Hurt` for each group that damage hurt.
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
    /// Something that was durable can't be read, and it can't be said whose it was.
    #[error("{} at byte {at}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
        /// What is wrong.
        what: String,
    },
    /// There is no log where one was looked for.
    #[error("{} holds no log", dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
}

impl WalError {
    /// Its code, for people and programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            WalError::Io { .. } => "wal_io",
            WalError::Damaged { .. } => "wal_damaged",
            WalError::Missing { .. } => "wal_missing",
        }
    }
}

/// What the writer goes on from.
pub(super) struct Recovered<F> {
    /// The open last segment and where its free room begins; `None`: the next is to be made.
    pub(super) tail: Option<(Segment<F>, u64)>,
    /// The number of the next segment to be made.
    pub(super) next_seq: u64,
    pub(super) next_batch: u64,
    /// The salt of the segment before the next; 0: none.
    pub(super) before: u64,
    pub(super) ledger: Ledger,
    /// Groups that damage hurt, and why.
    pub(super) hurt: BTreeMap<u32, String>,
}

/// What lies in a folder, before anything is done about it.
pub(super) struct Read {
    pub(super) ledger: Ledger,
    pub(super) hurt: BTreeMap<u32, String>,
    pub(super) walk: Walk,
    /// The segment in which the log ends.
    pub(super) tail: Option<Tail>,
    /// A blank segment behind the tail, to be dropped.
    pub(super) blank: Option<PathBuf>,
    /// Segments that don't belong to this log, to be put aside.
    pub(super) strays: Vec<PathBuf>,
    pub(super) next_seq: u64,
    /// The salt of the newest segment; 0: none.
    pub(super) before: u64,
}

/// Where the log ends.
pub(super) struct Tail {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    pub(super) at: usize,
    pub(super) torn: bool,
    pub(super) len: usize,
}

/// Replays `dir` into `visit`, and makes its end fit to be written behind.
pub(super) fn recover<D: Disk>(disk: &D, dir: &Path, visit: &mut Visit<'_>) -> Result<Recovered<D::File>, WalError> {
    let failed = |what: String| move |source| WalError::Io { what, source };
    disk.make_dir(dir)
        .map_err(failed(format!("making {}", dir.display())))?;
    segment::sweep(disk, dir).map_err(failed(format!("sweeping {}", dir.display())))?;
    let read = read(disk, dir, visit)?;
    let aside = |path: &PathBuf| {
        tracing::warn!(path = %path.display(), "put a stray segment aside: the log doesn't need it");
        disk.rename(path, &path.with_extension("stray"))
    };
    read.strays
        .iter()
        .try_for_each(aside)
        .and_then(|()| read.blank.as_ref().map_or(Ok(()), |path| disk.remove(path)))
        .and_then(|()| disk.sync_dir(dir))
        .map_err(failed(format!("tidying {}", dir.display())))?;
    for (group, why) in &read.hurt {
        tracing::error!(group, %why, "damage in the log hurt this group's replica: it must not go on");
        let why = Bytes::from(why.clone().into_bytes());
        visit(*group, Kind::Hurt, why).map_err(|what| damaged(dir, 0, what))?;
    }
    let known = read.ledger.accounts.values().filter(|account| account.is_hurt());
    crate::metrics::hurt(known.count() + read.hurt.len());
    let mut out = Recovered {
        tail: None,
        next_seq: read.next_seq,
        next_batch: read.walk.next_batch(),
        before: read.before,
        ledger: read.ledger,
        hurt: read.hurt,
    };
    if let Some(tail) = read.tail {
        out.open(disk, tail)?;
    }
    Ok(out)
}

impl<F: DiskFile> Recovered<F> {
    fn open<D: Disk<File = F>>(&mut self, disk: &D, tail: Tail) -> Result<(), WalError> {
        let failed = |source| WalError::Io {
            what: format!("opening {}", tail.path.display()),
            source,
        };
        let file = disk.open(&tail.path).map_err(failed)?;
        let mut at = tail.at;
        if tail.torn {
            at = self.cut(&file, &tail).map_err(failed)?;
            crate::metrics::cut();
            tracing::warn!(path = %tail.path.display(), at = tail.at, "cut the torn end of the log");
        }
        let segment = Segment {
            header: tail.header,
            file,
            capacity: tail.len as u64,
        };
        self.tail = Some((segment, at as u64));
        Ok(())
    }

    /// Zeroes from the torn place, then marks it. Answers where the log goes on.
    fn cut(&mut self, file: &F, tail: &Tail) -> io::Result<usize> {
        // A batch number that no torn piece can have: recoveries after this one compare with it.
        let batch = self.next_batch + 2;
        let mark = Mark {
            batch,
            last: true,
            copy: false,
            nth: 0,
        };
        let mut bytes = Vec::new();
        Record::new(0, Kind::Cut, vec![0; 8], Bytes::new()).write(&mut bytes, tail.at, tail.header.form, mark);
        if !plant::is(Plant::CutKeptPieces) {
            file.write_at(&vec![0; tail.len.saturating_sub(tail.at)], tail.at as u64)?;
            file.sync()?;
        }
        file.write_at(&bytes, tail.at as u64)?;
        file.sync()?;
        self.next_batch = batch + 1;
        Ok(tail.at + bytes.len())
    }
}

/// Reads `dir`, changing nothing.
pub(super) fn read(disk: &impl Disk, dir: &Path, visit: &mut Visit<'_>) -> Result<Read, WalError> {
    let segments = segment::list(disk, dir).map_err(|source| WalError::Io {
        what: format!("listing {}", dir.display()),
        source,
    })?;
    let whole = |from: usize| {
        let alone = replay(disk, &segments[from..], &mut |_, _, _| Ok(()));
        alone.is_ok_and(|alone| alone.hurt.is_empty())
    };
    // Nearly always the whole folder is the log. If it isn't sound, perhaps its newer part is, and says so of itself.
    if whole(0) {
        return replay(disk, &segments, visit);
    }
    let from = (1..segments.len()).find(|from| whole(*from)).unwrap_or(0);
    let mut out = replay(disk, &segments[from..], visit)?;
    out.strays = segments[..from].iter().map(|(_, path)| path.clone()).collect();
    Ok(out)
}

fn replay(disk: &impl Disk, segments: &[(u64, PathBuf)], visit: &mut Visit<'_>) -> Result<Read, WalError> {
    let mut replay = Replay {
        visit,
        proof: Proof::default(),
        before: None,
        sealed: None,
        out: Read {
            ledger: Ledger::default(),
            hurt: BTreeMap::new(),
            walk: Walk::default(),
            tail: None,
            blank: None,
            strays: Vec::new(),
            next_seq: 1,
            before: 0,
        },
    };
    let load = |path: &Path| {
        disk.read(path).map_err(|source| WalError::Io {
            what: format!("reading {}", path.display()),
            source,
        })
    };
    let blank = match segments {
        [.., _, (_, last)] => is_blank(&load(last)?).then(|| last.clone()),
        _ => None,
    };
    let tail = segments.len().saturating_sub(1 + usize::from(blank.is_some()));
    for (i, (seq, path)) in segments.iter().enumerate() {
        if i > 0 && *seq != replay.out.next_seq {
            replay.proof.lost(path, 0);
            replay.before = None;
        }
        let sealed = replay.segment(*seq, path, load(path)?, i >= tail)?;
        if !sealed && i == tail && blank.is_some() {
            replay.out.blank = blank;
            break;
        }
        replay.out.next_seq = seq + 1;
    }
    // In format 1 the seal came before the next file.
    if let Some((path, at, 2..)) = &replay.sealed {
        return Err(damaged(path, *at, "is sealed, and the segment after it is missing"));
    }
    replay.out.before = replay.before.map_or(0, |form| form.salt);
    replay.out.hurt = replay.proof.end(&replay.out.ledger)?;
    Ok(replay.out)
}

/// A segment that was made and never written to.
pub(super) fn is_blank(file: &[u8]) -> bool {
    Header::read(file).is_ok_and(|header| {
        let rest = file.get(header.len()..).unwrap_or_default();
        rest.iter().all(|byte| *byte == 0)
    })
}

pub(super) fn damaged(path: &Path, at: usize, what: impl Into<String>) -> WalError {
    WalError::Damaged {
        path: path.to_owned(),
        at,
        what: what.into(),
    }
}

struct Replay<'a, 'b> {
    visit: &'a mut Visit<'b>,
    proof: Proof,
    /// The form of the segment before, if its header could be read.
    before: Option<Form>,
    /// Where the newest segment was sealed, if it was, and its format.
    sealed: Option<(PathBuf, usize, u8)>,
    out: Read,
}

impl Replay<'_, '_> {
    /// One segment. True: it is sealed.
    fn segment(&mut self, seq: u64, path: &Path, file: Vec<u8>, is_tail: bool) -> Result<bool, WalError> {
        let file = Bytes::from(file);
        let header = match Header::read(&file) {
            Ok(header) => header,
            // The one behind it may tell what was in it.
            Err(_) if !is_tail => {
                self.proof.lost(path, 0);
                self.before = None;
                return Ok(true);
            }
            Err(what) => return Err(damaged(path, 0, what)),
        };
        if header.seq != seq {
            return Err(damaged(path, 8, "has another segment's number"));
        }
        let follows = self.before.replace(header.form);
        if header.form.version > 1 && follows.is_some_and(|before| before.salt != header.before) {
            return Err(damaged(
                path,
                24,
                "doesn't follow the segment before it: one of them is of another log",
            ));
        }
        self.out.ledger.pins.entry(seq).or_default();
        let mut walk = self.out.walk;
        let end = walk.segment(&file, &header, is_tail, |piece| match piece {
            Piece::Record(found) => self.record(seq, path, &file, found),
            Piece::Lost { from, .. } => {
                self.proof.lost(path, from);
                // In format 1, nothing tells whose it was.
                let bare = header.form.version == 1;
                if bare {
                    Err(damaged(path, from, "can't be read"))
                } else {
                    Ok(())
                }
            }
        })?;
        self.out.walk = walk;
        if !is_tail && !end.sealed {
            self.proof.lost(path, end.at);
            if header.form.version == 1 {
                return Err(damaged(path, end.at, "can't be read, and it isn't the end of the log"));
            }
        }
        self.sealed = end.sealed.then(|| (path.to_owned(), end.at, header.form.version));
        if is_tail && !end.sealed {
            self.out.tail = Some(Tail {
                path: path.to_owned(),
                header,
                at: end.at,
                torn: end.torn,
                len: file.len(),
            });
        }
        Ok(end.sealed)
    }

    fn record(&mut self, seq: u64, path: &Path, file: &Bytes, found: Found) -> Result<(), WalError> {
        let payload = file.slice(found.from..found.to);
        if found.kind == Kind::Tally {
            let lines = ledger::read_tally(&payload).map_err(|what| damaged(path, found.from, what))?;
            return self.proof.tally(&mut self.out.ledger, &lines);
        }
        let record = Record::new(found.group, found.kind, Vec::new(), payload.clone());
        if found.kind.is_of_group() {
            self.proof.record(&mut self.out.ledger, found, &record);
            self.out.ledger.take(seq, &record);
        }
        match found.kind {
            Kind::Seal | Kind::Cut | Kind::Tally => Ok(()),
            // Copied out: a slice would keep the whole segment in memory for as long as one entry lives.
            kind => (self.visit)(found.group, kind, Bytes::copy_from_slice(&payload))
                .map_err(|what| damaged(path, found.from, what)),
        }
    }
}
