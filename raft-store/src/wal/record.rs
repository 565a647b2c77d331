//! The bytes of the log, format 2. All numbers are little-endian.
//!
//! ```text
//!  segment file  wal-0000000000000001.seg
//!   0  magic    "RUSHWAL" 0x02        the 8th byte is the format's version
//!   8  seq      u64                   1, 2, 3 … without gaps
//!  16  salt     u64                   random; seeds the checksum of every record in this file
//!  24  before   u64                   the salt of the segment before; 0: there was none
//!  32  batch    u64                   the number of the first batch in it
//!  40  crc32c   u32  of bytes 0..40
//!  44  zero     u32
//!  48  record, record, … zeros
//!
//!  record (a multiple of 8 bytes)
//!   0  len      u32  of the payload, > 0
//!   4  crc32c   u32  of salt, where in the file the record begins (u64), len, bytes 8..32, payload
//!   8  batch    u64  rises by one with each fdatasync
//!  16  group    u32  the shard
//!  20  kind     u8   see `Kind`
//!  21  flags    u8   bit 0: the last record of its batch; bit 1: a copy of what was said before (checkpoints)
//!  22  zero     u16
//!  24  nth      u64  how many records its group had with this one; 0 if it is of no group
//!  32  payload, then zeros up to a multiple of 8
//! ```
//!
//! Why the salt: what bidders write ends up in payloads. Without a secret in the checksum, a title could carry the image
//! of a record, and recovery, which looks for whole records behind a torn one, would believe it.
//!
//! Why the place: a block that the disk put where another belongs holds whole records. Not here: their place is wrong.
//!
//! Why `batch` and `last`: they tell a torn tail from damage. Why `nth`: after damage it tells which groups lost
//! nothing. See `recover`.
//!
//! **Format 1** had neither `before`, `batch` and place, nor `nth`: a header of 32 bytes (crc32c at 24), a record's head of
//! 24. It is read, and a segment in it is sealed in it; nothing new is begun in it.

use super::plant::{self, Plant};
use bytes::Bytes;

const MAGIC: [u8; 7] = *b"RUSHWAL";
/// What new segments are written in.
pub(super) const VERSION: u8 = 2;
/// Longest payload. Far above the largest entry (`lanes::Options::entry_max` commands); a length above it is damage.
pub(super) const PAYLOAD_MAX: usize = 256 * 1024 * 1024;

const LAST: u8 = 1;
const COPY: u8 = 2;

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A log entry. Payload: index u64, then `log_store`'s encoding. A later record of the same index replaces it.
    Entry = 1,
    /// The group's vote.
    Vote = 2,
    /// Entries from an index on are gone. Payload: that index, u64.
    Truncate = 3,
    /// Entries up to a log id are in a snapshot. Payload: a log id, index first.
    Purge = 4,
    /// The newest committed log id.
    Commit = 5,
    /// Nothing follows in this segment. Payload: the next segment's number.
    Seal = 6,
    /// What followed was torn and has been cut. Payload: zeros.
    Cut = 7,
    /// The group's replica id. Payload: u64, 0: none any more. Another id than before: all that came before is another's.
    Born = 8,
    /// Every group as it is at this place. Payload: see `ledger`.
    Tally = 9,
    /// The group lost records to damage: this replica must not go on. Payload: why, in words.
    Hurt = 10,
}

impl Kind {
    fn from_number(n: u8) -> Option<Kind> {
        Some(match n {
            1 => Kind::Entry,
            2 => Kind::Vote,
            3 => Kind::Truncate,
            4 => Kind::Purge,
            5 => Kind::Commit,
            6 => Kind::Seal,
            7 => Kind::Cut,
            8 => Kind::Born,
            9 => Kind::Tally,
            10 => Kind::Hurt,
            _ => return None,
        })
    }

    /// Its name for people and for JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Entry => "entry",
            Kind::Vote => "vote",
            Kind::Truncate => "truncate",
            Kind::Purge => "purge",
            Kind::Commit => "commit",
            Kind::Seal => "seal",
            Kind::Cut => "cut",
            Kind::Born => "born",
            Kind::Tally => "tally",
            Kind::Hurt => "hurt",
        }
    }

    /// Whether it speaks of one group; else of the log.
    pub(super) fn is_of_group(self) -> bool {
        !matches!(self, Kind::Seal | Kind::Cut | Kind::Tally)
    }
}

/// How a segment's records are written: its format and its salt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Form {
    pub(super) version: u8,
    pub(super) salt: u64,
}

impl Form {
    /// Bytes of a record before its payload.
    pub(super) fn head(self) -> usize {
        if self.version == 1 { 24 } else { 32 }
    }

    /// What a seal takes: kept free at the end of each segment.
    pub(super) fn seal(self) -> usize {
        self.head() + 8
    }

    fn checksum(self, at: usize, record: &[u8]) -> u32 {
        let salt = if plant::is(Plant::SaltUncovered) { 0 } else { self.salt };
        let mut crc = crc32c::crc32c(&salt.to_le_bytes());
        if self.version > 1 && !plant::is(Plant::PlaceUncovered) {
            crc = crc32c::crc32c_append(crc, &(at as u64).to_le_bytes());
        }
        crc = crc32c::crc32c_append(crc, &record[..4]);
        crc32c::crc32c_append(crc, &record[8..])
    }
}

/// A record to be written. The payload comes in two pieces, so that an entry's bytes need no copy to get a prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) group: u32,
    pub(crate) kind: Kind,
    pub(crate) prefix: Vec<u8>,
    pub(crate) body: Bytes,
}

/// What the writer adds to a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    pub(super) batch: u64,
    pub(super) last: bool,
    pub(super) copy: bool,
    pub(super) nth: u64,
}

impl Record {
    pub(crate) fn new(group: u32, kind: Kind, prefix: Vec<u8>, body: Bytes) -> Record {
        Record {
            group,
            kind,
            prefix,
            body,
        }
    }

    /// The index in an `Entry`, `Truncate` or `Purge` record, else 0.
    pub(super) fn index(&self) -> u64 {
        let payload = if self.prefix.is_empty() {
            &self.body[..]
        } else {
            &self.prefix
        };
        payload.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Bytes on disk.
    pub(super) fn size(&self, form: Form) -> usize {
        padded(form.head() + self.prefix.len() + self.body.len())
    }

    /// Appends the record's bytes; `out` begins at `base` in the file.
    pub(super) fn write(&self, out: &mut Vec<u8>, base: usize, form: Form, mark: Mark) {
        let start = out.len();
        let len = (self.prefix.len() + self.body.len()) as u32;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&mark.batch.to_le_bytes());
        out.extend_from_slice(&self.group.to_le_bytes());
        let flags = u8::from(mark.last) * LAST + u8::from(mark.copy) * COPY;
        out.extend_from_slice(&[self.kind as u8, flags, 0, 0]);
        if form.version > 1 {
            out.extend_from_slice(&mark.nth.to_le_bytes());
        }
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&self.body);
        let crc = form.checksum(base + start, &out[start..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        out.resize(start + self.size(form), 0);
    }
}

/// A record as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) group: u32,
    pub(super) kind: Kind,
    pub(super) mark: Mark,
    /// Where it begins in the file.
    pub(super) at: usize,
    /// Where its payload lies.
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Found {
    /// Where the next record begins.
    pub(super) fn next(&self) -> usize {
        padded(self.to)
    }
}

/// The record at `at`, if one is there whole.
pub(super) fn read(file: &[u8], at: usize, form: Form) -> Option<Found> {
    let head = file.get(at..at.checked_add(form.head())?)?;
    let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
    // Cheap questions first: looking for whole records in a long stretch of rubbish asks this at every eighth byte.
    if len == 0 || len > PAYLOAD_MAX || head[21] > LAST + COPY || head[22..24] != [0; 2] {
        return None;
    }
    let kind = Kind::from_number(head[20])?;
    let whole = file.get(at..at + form.head() + len)?;
    let crc = u32::from_le_bytes(*head[4..].first_chunk()?);
    if crc != form.checksum(at, whole) {
        return None;
    }
    let nth = head.get(24..).and_then(|nth| nth.first_chunk::<8>());
    Some(Found {
        group: u32::from_le_bytes(*head[16..].first_chunk()?),
        kind,
        mark: Mark {
            batch: u64::from_le_bytes(*head[8..].first_chunk()?),
            last: head[21] & LAST != 0,
            copy: head[21] & COPY != 0,
            nth: nth.map_or(0, |bytes| u64::from_le_bytes(*bytes)),
        },
        at,
        from: at + form.head(),
        to: at + form.head() + len,
    })
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// A segment's first bytes, as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) form: Form,
    pub(super) seq: u64,
    pub(super) before: u64,
    pub(super) batch: u64,
}

/// Bytes of a header of format 2.
pub(super) const HEADER: usize = 48;

impl Header {
    /// Where the first record lies.
    pub(super) fn len(&self) -> usize {
        if self.form.version == 1 { 32 } else { HEADER }
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&MAGIC);
        out.push(self.form.version);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.form.salt.to_le_bytes());
        if self.form.version > 1 {
            out.extend_from_slice(&self.before.to_le_bytes());
            out.extend_from_slice(&self.batch.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out
    }

    /// A segment's first bytes, or what is wrong with them.
    pub(super) fn read(file: &[u8]) -> Result<Header, &'static str> {
        if file.get(..7) != Some(&MAGIC[..]) {
            return Err("is no segment, or its header is damaged");
        }
        let version = file.get(7).copied().unwrap_or(0);
        let crc_at = match version {
            1 => 24,
            VERSION => 40,
            _ => return Err("has a format that this version doesn't know"),
        };
        let (Some(covered), Some(crc)) = (file.get(..crc_at), file.get(crc_at..crc_at + 4)) else {
            return Err("is shorter than a header");
        };
        if crc != crc32c::crc32c(covered).to_le_bytes() {
            return Err("has a damaged header");
        }
        let word = |at: usize| {
            let bytes = covered.get(at..).and_then(|bytes| bytes.first_chunk::<8>());
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        Ok(Header {
            form: Form {
                version,
                salt: word(16),
            },
            seq: word(8),
            before: word(24),
            batch: word(32),
        })
    }
}
