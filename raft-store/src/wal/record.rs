//! The bytes of the log, format 1. All numbers are little-endian.
//!
//! ```text
//!  segment file  wal-0000000000000001.seg
//!   0  magic    "RUSHWAL" 0x01        the 8th byte is the format's version
//!   8  seq      u64                   1, 2, 3 … without gaps
//!  16  salt     u64                   random; seeds the checksum of every record in this file
//!  24  crc32c   u32  of bytes 0..24
//!  28  zero     u32
//!  32  record, record, … zeros
//!
//!  record (a multiple of 8 bytes)
//!   0  len      u32  of the payload, > 0
//!   4  crc32c   u32  of salt, len, bytes 8..24, payload
//!   8  batch    u64  rises by one with each fdatasync
//!  16  group    u32  the shard
//!  20  kind     u8   see `Kind`
//!  21  flags    u8   bit 0: the last record of its batch
//!  22  zero     u16
//!  24  payload, then zeros up to a multiple of 8
//! ```
//!
//! Why the salt: what bidders write ends up in payloads. Without a secret in the checksum, a title could carry the image
//! of a record, and recovery, which looks for whole records behind a torn one, would believe it.
//!
//! Why `batch` and `last`: they tell a torn tail from damage. See `recover`.

use bytes::Bytes;

pub(super) const MAGIC: [u8; 8] = *b"RUSHWAL\x01";
pub(super) const HEADER: usize = 32;
pub(super) const HEAD: usize = 24;
/// Longest payload. Far above the largest entry (`lanes::Options::entry_max` commands); a length above it is damage.
pub(super) const PAYLOAD_MAX: usize = 256 * 1024 * 1024;
/// What a seal takes: kept free at the end of each segment.
pub(super) const SEAL: usize = HEAD + 8;

const LAST: u8 = 1;

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
    /// The group's replica id. Payload: u64. Another id than before: all that came before is another replica's.
    Born = 8,
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
            _ => return None,
        })
    }

    /// Whether the newest record of this kind is all that counts of a group: it goes into each segment's checkpoint.
    pub(super) fn is_small_state(self) -> bool {
        matches!(self, Kind::Vote | Kind::Purge | Kind::Commit | Kind::Born)
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

impl Record {
    pub(crate) fn new(group: u32, kind: Kind, prefix: Vec<u8>, body: Bytes) -> Record {
        Record {
            group,
            kind,
            prefix,
            body,
        }
    }

    /// The index in an `Entry` or `Purge` record, else 0.
    pub(super) fn index(&self) -> u64 {
        self.prefix
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Bytes on disk.
    pub(super) fn size(&self) -> usize {
        padded(HEAD + self.prefix.len() + self.body.len())
    }

    /// Appends the record's bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>, salt: u64, batch: u64, last: bool) {
        let start = out.len();
        let len = (self.prefix.len() + self.body.len()) as u32;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&batch.to_le_bytes());
        out.extend_from_slice(&self.group.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, if last { LAST } else { 0 }, 0, 0]);
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&self.body);
        let crc = checksum(salt, &out[start..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        out.resize(start + self.size(), 0);
    }
}

/// A record as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) group: u32,
    pub(super) kind: Kind,
    pub(super) batch: u64,
    pub(super) last: bool,
    /// Where its payload lies in the file.
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
pub(super) fn read(file: &[u8], at: usize, salt: u64) -> Option<Found> {
    let head = file.get(at..at + HEAD)?;
    let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
    if len == 0 || len > PAYLOAD_MAX {
        return None;
    }
    let whole = file.get(at..at + HEAD + len)?;
    let kind = Kind::from_number(head[20])?;
    let crc = u32::from_le_bytes(*head[4..].first_chunk()?);
    if crc != checksum(salt, whole) {
        return None;
    }
    Some(Found {
        group: u32::from_le_bytes(*head[16..].first_chunk()?),
        kind,
        batch: u64::from_le_bytes(*head[8..].first_chunk()?),
        last: head[21] & LAST != 0,
        from: at + HEAD,
        to: at + HEAD + len,
    })
}

fn checksum(salt: u64, record: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &record[..4]);
    crc32c::crc32c_append(crc, &record[8..])
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// A segment's first bytes.
pub(super) fn header(seq: u64, salt: u64) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(&MAGIC);
    out[8..16].copy_from_slice(&seq.to_le_bytes());
    out[16..24].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&out[..24]);
    out[24..28].copy_from_slice(&crc.to_le_bytes());
    out
}

/// `(seq, salt)` of a segment's first bytes, or what is wrong with them.
pub(super) fn read_header(file: &[u8]) -> Result<(u64, u64), &'static str> {
    let Some(head) = file.first_chunk::<HEADER>() else {
        return Err("is shorter than a header");
    };
    if head[..7] != MAGIC[..7] {
        return Err("is no segment");
    }
    if head[7] != MAGIC[7] {
        return Err("has a format that this version doesn't know");
    }
    let word = |at: usize| {
        head[at..]
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    if head[24..28] != crc32c::crc32c(&head[..24]).to_le_bytes() {
        return Err("has a damaged header");
    }
    Ok((word(8), word(16)))
}
