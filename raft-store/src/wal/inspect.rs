//! A log looked at from outside: what lies in a folder, of whom, and whether it is sound. Changes nothing, ever.
//!
//! It reads with the same eyes as recovery (`scan`, `proof`), so that what it calls sound opens, and what it calls damaged
//! is what a start would find. It works on the folder of a node that runs, too: then the end of the log is being written
//! (a torn batch there means nothing), and a segment may be gone between two looks.
//!
//! ```text
//!   DIR, or a wal in it --> read --> Report { segments, shards, lost, end }      (ls, verify)
//!                       '-> dump --> one Line a record, as it lies              (dump)
//! ```
//!
//! Deliberately absent: what bidders wrote. An entry is told by its place in the order and its size.

use super::{
    disk::{Disk, Os},
    record::{Found, Header, Kind},
    recover::{self, WalError},
    scan::{Piece, Walk},
    segment,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Looks at a folder that changes meanwhile, before giving up.
const LOOKS: usize = 5;
/// Between two looks at an end that may be being written.
const AGAIN: Duration = Duration::from_millis(50);

/// Whether a node has the folder open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// The process with this id (0: of another namespace) holds it.
    Live(u32),
    /// Nobody does.
    Dead,
    /// The folder has no lock, or the system doesn't tell.
    Unknown,
}

/// A place that was durable and can't be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The file.
    pub file: PathBuf,
    /// The first byte.
    pub from: usize,
    /// The first byte behind it that can be read again.
    pub to: usize,
}

/// One segment file.
#[derive(Clone, Debug)]
pub struct SegmentLine {
    /// Its number.
    pub seq: u64,
    /// Its format; 0: its header can't be read.
    pub format: u8,
    /// Length of the file.
    pub bytes: u64,
    /// Where its last record ends.
    pub used: u64,
    /// Whole records in it.
    pub records: u64,
    /// The first and the last batch in it.
    pub batches: Option<(u64, u64)>,
    /// Shards with records in it.
    pub shards: usize,
    /// Shards that keep it: it holds living entries of theirs.
    pub kept_by: Vec<u32>,
    /// In a word: `sealed`, `end`, `blank`, `open` (neither sealed nor the end), `unreadable`.
    pub state: &'static str,
}

/// One shard's log.
#[derive(Clone, Debug)]
pub struct ShardLine {
    /// The shard.
    pub shard: u32,
    /// What recovery counts of it.
    pub records: u64,
    /// Living entries: first and one behind the last.
    pub entries: (u64, u64),
    /// Its newest birth, vote, purge and commit, in words.
    pub small: BTreeMap<&'static str, String>,
    /// Why this replica is hurt, if it is.
    pub hurt: Option<String>,
}

/// What lies in a folder.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where the segments lie.
    pub dir: PathBuf,
    /// Whether a node has it open.
    pub life: Life,
    /// Oldest first.
    pub segments: Vec<SegmentLine>,
    /// By number; empty when the log doesn't open.
    pub shards: Vec<ShardLine>,
    /// Places that can't be read.
    pub lost: Vec<Lost>,
    /// The end holds a batch in pieces, and nobody is writing it: a start cuts it.
    pub torn: bool,
    /// Where the log ends: segment and byte.
    pub end: (u64, usize),
    /// Why a start would refuse the log.
    pub refused: Option<String>,
}

/// What can be said of a log, or of one shard in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// Proved: all that was durable is there.
    Sound,
    /// All but the last batch, which is in pieces. After a crash that is how a batch looks that was promised to nobody; of a
    /// log that was closed well, it is damage. Whose, can't be told.
    Torn,
    /// Something that was durable is missing; of a shard: it is this one's, or may be.
    Damaged,
}

impl Verdict {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Sound => "sound",
            Verdict::Torn => "torn",
            Verdict::Damaged => "damaged",
        }
    }
}

impl Report {
    /// What can be said of the whole log, or of one shard. `None`: the log, which is sound, holds nothing of that shard.
    ///
    /// A shard is sound beside damage only if that is proved: its numbers go on without a gap up to a tally behind the
    /// damage. Where nothing proves it, the damage counts as the shard's.
    #[must_use]
    pub fn verdict(&self, shard: Option<u32>) -> Option<Verdict> {
        let end = if self.torn { Verdict::Torn } else { Verdict::Sound };
        let hurt = |line: &ShardLine| line.hurt.is_some();
        let damaged = !self.lost.is_empty() || self.shards.iter().any(hurt);
        let Some(shard) = shard else {
            let damaged = damaged || self.refused.is_some();
            return Some(if damaged { Verdict::Damaged } else { end });
        };
        match self.shards.iter().find(|line| line.shard == shard) {
            _ if self.refused.is_some() => Some(Verdict::Damaged),
            Some(line) if hurt(line) => Some(Verdict::Damaged),
            Some(_) => Some(end),
            // What is lost may be all that there was of it.
            None if damaged => Some(Verdict::Damaged),
            None => (end != Verdict::Sound).then_some(end),
        }
    }
}

/// One record.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its segment.
    pub segment: u64,
    /// Where it begins.
    pub at: usize,
    /// Its batch, and whether it is the last of it.
    pub batch: (u64, bool),
    /// Its shard, if it is of one.
    pub shard: Option<u32>,
    /// How many records its shard had with it; 0 in format 1.
    pub nth: u64,
    /// A copy of what was said before.
    pub copy: bool,
    /// What kind it is; `lost` for a place that can't be read.
    pub kind: &'static str,
    /// What it says.
    pub what: String,
}

/// The folder of the segments: in a node's folder, in its shards', or `dir` itself.
fn home(dir: &Path) -> Result<PathBuf, WalError> {
    let inner = ["raft/wal", "wal"].map(|inner| dir.join(inner));
    let home = inner.into_iter().find(|inner| inner.is_dir());
    let home = home.unwrap_or_else(|| dir.to_owned());
    match segment::list(&Os, &home) {
        Ok(found) if found.is_empty() => Err(WalError::Missing { dir: home }),
        Ok(_) => Ok(home),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(WalError::Missing { dir: home }),
        Err(source) => Err(WalError::Io {
            what: format!("listing {}", home.display()),
            source,
        }),
    }
}

/// Whether a node holds the lock beside `home`, without touching it.
fn life(home: &Path) -> Life {
    let lock = home.parent().map(|parent| parent.join("lock"));
    let Some(Ok(lock)) = lock.map(std::fs::metadata) else {
        return Life::Unknown;
    };
    let Ok(locks) = std::fs::read_to_string("/proc/locks") else {
        return Life::Unknown;
    };
    let (major, minor) = (rustix::fs::major(lock.dev()), rustix::fs::minor(lock.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", lock.ino());
    // 1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF
    let holder = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == place)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    });
    holder.map_or(Life::Dead, Life::Live)
}

/// Again, if a segment went while we looked: a node that runs deletes what it needs no more.
fn patiently<T>(mut look: impl FnMut() -> Result<T, WalError>) -> Result<T, WalError> {
    let gone =
        |error: &WalError| matches!(error, WalError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
    for _ in 1..LOOKS {
        match look() {
            Err(error) if gone(&error) => {}
            other => return other,
        }
    }
    look()
}

/// Reads the log in `dir` (a node's folder, or the segments' own).
///
/// # Errors
/// When there is no log, or the disk won't read it. Damage is no error: it is what is reported.
pub fn read(dir: &Path) -> Result<Report, WalError> {
    let home = home(dir)?;
    let mut report_now = patiently(|| report(&home))?;
    for _ in 1..LOOKS {
        if !(report_now.torn && matches!(report_now.life, Life::Live(_))) {
            break;
        }
        // What a node is writing becomes whole; what stays in pieces isn't being written.
        std::thread::sleep(AGAIN);
        let before = report_now.end;
        report_now = patiently(|| report(&home))?;
        if report_now.end > before {
            report_now.torn = false;
        }
    }
    Ok(report_now)
}

fn report(home: &Path) -> Result<Report, WalError> {
    let mut out = Report {
        dir: home.to_owned(),
        life: life(home),
        segments: Vec::new(),
        shards: Vec::new(),
        lost: Vec::new(),
        torn: false,
        end: (0, 0),
        refused: None,
    };
    each_segment(home, &mut |line, lost| {
        out.segments.push(line);
        out.lost.extend(lost);
    })?;
    let read = match recover::read(&Os, home, &mut |_, _, _| Ok(())) {
        Ok(read) => read,
        Err(damaged @ WalError::Damaged { .. }) => {
            out.refused = Some(damaged.to_string());
            return Ok(out);
        }
        Err(other) => return Err(other),
    };
    out.torn = read.tail.as_ref().is_some_and(|tail| tail.torn);
    out.end = read
        .tail
        .as_ref()
        .map_or((read.next_seq, 0), |tail| (tail.header.seq, tail.at));
    for line in &mut out.segments {
        let kept_by = read.ledger.pins.get(&line.seq);
        line.kept_by = kept_by.map_or_else(Vec::new, |groups| groups.keys().copied().collect());
    }
    for (shard, account) in &read.ledger.accounts {
        let told = |kind: Kind| {
            let record = account.small(kind)?;
            Some((
                kind.name(),
                crate::log_store::describe(kind, &Bytes::from(record.prefix.clone())),
            ))
        };
        let kinds = [Kind::Born, Kind::Vote, Kind::Purge, Kind::Commit];
        let before = account
            .small(Kind::Hurt)
            .map(|why| String::from_utf8_lossy(&why.prefix).into_owned());
        out.shards.push(ShardLine {
            shard: *shard,
            records: account.nth,
            entries: (account.first, account.end),
            small: kinds.into_iter().filter_map(told).collect(),
            hurt: read.hurt.get(shard).cloned().or(before),
        });
    }
    Ok(out)
}

fn load(path: &Path) -> Result<Vec<u8>, WalError> {
    Os.read(path).map_err(|source| WalError::Io {
        what: format!("reading {}", path.display()),
        source,
    })
}

fn list(home: &Path) -> Result<Vec<(u64, PathBuf)>, WalError> {
    segment::list(&Os, home).map_err(|source| WalError::Io {
        what: format!("listing {}", home.display()),
        source,
    })
}

/// Which of them the log ends in: the last, or the one before a blank one.
fn tail(segments: &[(u64, PathBuf)]) -> Result<usize, WalError> {
    let blank = match segments {
        [.., _, (_, last)] => recover::is_blank(&load(last)?),
        _ => false,
    };
    Ok(segments.len().saturating_sub(1 + usize::from(blank)))
}

fn each_segment(home: &Path, tell: &mut dyn FnMut(SegmentLine, Vec<Lost>)) -> Result<(), WalError> {
    let segments = list(home)?;
    let tail = tail(&segments)?;
    let mut walk = Walk::default();
    for (i, (seq, path)) in segments.iter().enumerate() {
        let file = load(path)?;
        let is_tail = i >= tail;
        let mut line = SegmentLine {
            seq: *seq,
            format: 0,
            bytes: file.len() as u64,
            used: 0,
            records: 0,
            batches: None,
            shards: 0,
            kept_by: Vec::new(),
            state: "unreadable",
        };
        let mut lost = Vec::new();
        let Ok(header) = Header::read(&file) else {
            let (from, to) = (0, file.len());
            tell(
                line,
                vec![Lost {
                    file: path.clone(),
                    from,
                    to,
                }],
            );
            continue;
        };
        let mut shards = BTreeSet::new();
        let Ok(end) = walk.segment(&file, &header, is_tail, |piece| {
            match piece {
                Piece::Record(found) => {
                    line.records += 1;
                    let first = line.batches.map_or(found.mark.batch, |(first, _)| first);
                    line.batches = Some((first, found.mark.batch));
                    shards.extend(found.kind.is_of_group().then_some(found.group));
                }
                Piece::Lost { from, to } => lost.push(Lost {
                    file: path.clone(),
                    from,
                    to,
                }),
            }
            Ok::<(), Infallible>(())
        });
        line.format = header.form.version;
        (line.used, line.shards) = (end.at as u64, shards.len());
        line.state = match is_tail {
            _ if end.sealed => "sealed",
            _ if recover::is_blank(&file) => "blank",
            true => "end",
            false => "open",
        };
        tell(line, lost);
    }
    Ok(())
}

/// Tells every record in `dir` as it lies, of one shard or of all. `false` from `tell` ends it.
///
/// # Errors
/// When there is no log, or the disk won't read it.
pub fn dump(dir: &Path, shard: Option<u32>, tell: &mut dyn FnMut(Line) -> bool) -> Result<(), WalError> {
    let home = home(dir)?;
    let segments = patiently(|| list(&home))?;
    let tail = patiently(|| tail(&segments))?;
    let mut walk = Walk::default();
    for (i, (seq, path)) in segments.iter().enumerate() {
        let file = match load(path) {
            Ok(file) => Bytes::from(file),
            // A node that runs needs it no more.
            Err(WalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(other) => return Err(other),
        };
        let Ok(header) = Header::read(&file) else {
            if !tell(lost(*seq, 0, file.len())) {
                return Ok(());
            }
            continue;
        };
        let walked = walk.segment(&file, &header, i >= tail, |piece| {
            let line = match piece {
                Piece::Lost { from, to } => lost(*seq, from, to),
                Piece::Record(found)
                    if shard.is_some_and(|shard| !found.kind.is_of_group() || shard != found.group) =>
                {
                    return Ok(());
                }
                Piece::Record(found) => told(*seq, &file, found),
            };
            if tell(line) { Ok(()) } else { Err(()) }
        });
        if walked.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn lost(segment: u64, from: usize, to: usize) -> Line {
    Line {
        segment,
        at: from,
        batch: (0, false),
        shard: None,
        nth: 0,
        copy: false,
        kind: "lost",
        what: format!("{} bytes can't be read", to - from),
    }
}

fn told(segment: u64, file: &Bytes, found: Found) -> Line {
    let payload = file.slice(found.from..found.to);
    Line {
        segment,
        at: found.at,
        batch: (found.mark.batch, found.mark.last),
        shard: found.kind.is_of_group().then_some(found.group),
        nth: found.mark.nth,
        copy: found.mark.copy,
        kind: found.kind.name(),
        what: crate::log_store::describe(found.kind, &payload),
    }
}
