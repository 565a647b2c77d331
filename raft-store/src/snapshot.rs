//! A group's snapshot: its whole state in one file, which is there whole or not at all.
//!
//! ```text
//!  shard-0007.snap                         all numbers little-endian
//!   0  magic    "RUSHSNAP"
//!   8  version  u32   2
//!  12  meta     u32   length of the meta part
//!  16  body     u64   length of the body
//!  24  crc32c   u32   of bytes 0..24, meta, body
//!  28  zero     u32
//!  32  meta     a raft.v1.SnapshotMeta: what the snapshot is of
//!      body     a log.v1.State
//! ```
//!
//! Written under another name, fsynced, renamed, and the folder fsynced: a crash leaves the old one or the new one. The log
//! is purged only after that. A file that fails its checksum stops the replica.
//!
//! Deliberately absent: increments and compression. Hot state is small.

use crate::{
    codec::Wire,
    state::State,
    types::{SnapshotBytes, SnapshotMeta},
    wal::disk::{AnyDisk, Disk, DiskFile},
    wire,
};
use auction::{Limits, Parts, Shard};
use bytes::Bytes;
use placement::ClusterMap;
use prost::Message;
use proto::{log::v1 as log_pb, raft::v1 as raft_pb};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

const MAGIC: [u8; 8] = *b"RUSHSNAP";
const VERSION: u32 = 2;
const HEAD: usize = 32;

/// A state taken at one moment, to be encoded elsewhere: the state's lock is held only for this.
pub(crate) struct Image {
    parts: Parts,
    map: Option<Arc<ClusterMap>>,
    applied: u64,
}

impl Image {
    pub(crate) fn of(state: &State) -> Image {
        Image {
            parts: state.shard.parts(),
            map: state.map.clone(),
            applied: state.applied,
        }
    }

    pub(crate) fn encode(&self) -> SnapshotBytes {
        let proto = log_pb::State {
            shard: Some(self.parts.to_proto()),
            map: self.map.as_ref().map(|map| map.to_proto()),
            applied: self.applied,
        };
        SnapshotBytes(Bytes::from(proto.encode_to_vec()))
    }
}

/// The state that a snapshot's body describes.
pub(crate) fn decode(body: Bytes, limits: Limits) -> io::Result<State> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let proto = log_pb::State::decode(body).map_err(|error| bad(error.to_string()))?;
    let parts = proto.shard.ok_or_else(|| bad("the snapshot has no shard".into()))?;
    let parts = Parts::from_proto(parts).map_err(|error| bad(error.to_string()))?;
    let shard = Shard::from_parts(limits, parts).map_err(|error| bad(format!("{error:?}")))?;
    let map = proto
        .map
        .map(ClusterMap::from_proto)
        .transpose()
        .map_err(|error| bad(error.to_string()))?;
    Ok(State {
        shard,
        map: map.map(Arc::new),
        applied: proto.applied,
    })
}

/// Where a node's snapshots lie.
#[derive(Clone)]
pub(crate) struct SnapshotDir {
    pub(crate) disk: AnyDisk,
    pub(crate) dir: PathBuf,
}

/// Where a group's snapshot lies.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    disk: AnyDisk,
    dir: PathBuf,
    path: PathBuf,
}

impl SnapshotFile {
    pub(crate) fn new(place: &SnapshotDir, group: u32) -> SnapshotFile {
        SnapshotFile {
            disk: place.disk.clone(),
            dir: place.dir.clone(),
            path: place.dir.join(format!("shard-{group:04}.snap")),
        }
    }

    /// Replaces the file. Blocks for the disk.
    pub(crate) fn write(&self, meta: &SnapshotMeta, body: &SnapshotBytes) -> io::Result<()> {
        let meta = wire::snapshot_meta_to(meta).encode_to_vec();
        self.replace(&self.disk, &[&head(&meta, body), &meta, body])
    }

    fn replace(&self, disk: &impl Disk, parts: &[&[u8]]) -> io::Result<()> {
        let temporary = self.path.with_extension("tmp");
        let written = fill(disk, &temporary, parts).and_then(|()| disk.rename(&temporary, &self.path));
        if let Err(error) = written {
            // Not there perhaps; if it is, it takes room that is short now. The old snapshot is untouched.
            let _ = disk.remove(&temporary);
            return Err(error);
        }
        disk.sync_dir(&self.dir)
    }

    /// Reads the file back, if there is one. Blocks for the disk.
    pub(crate) fn read(&self) -> io::Result<Option<(SnapshotMeta, SnapshotBytes)>> {
        self.read_from(&self.disk)
    }

    fn read_from(&self, disk: &impl Disk) -> io::Result<Option<(SnapshotMeta, SnapshotBytes)>> {
        let file = match disk.read(&self.path) {
            Ok(file) => Bytes::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        parse(&file)
            .map(Some)
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", self.path.display())))
    }

    /// Deletes the file of a replica that is no more. Durable: the next replica here must never find it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match self.disk.remove(&self.path) {
            Ok(()) => self.disk.sync_dir(&self.dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn fill(disk: &impl Disk, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let file = disk.create(path)?;
    let mut at = 0;
    for part in parts {
        file.write_at(part, at)?;
        at += part.len() as u64;
    }
    file.sync()
}

fn head(meta: &[u8], body: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&(meta.len() as u32).to_le_bytes());
    head.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let crc = checksum(&head, meta, body);
    head.extend_from_slice(&crc.to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    head
}

fn parse(file: &Bytes) -> Result<(SnapshotMeta, SnapshotBytes), String> {
    let head = file.first_chunk::<HEAD>().ok_or("is shorter than a header")?;
    let word = |at: usize| {
        head[at..]
            .first_chunk::<4>()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    if head[..8] != MAGIC {
        return Err("is no snapshot".into());
    }
    if word(8) != VERSION {
        return Err(format!("has version {}, which this version doesn't know", word(8)));
    }
    let body_from = HEAD + word(12) as usize;
    let body_len = head[16..]
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if file.len() < body_from || (file.len() - body_from) as u64 != body_len {
        return Err("is not of the length that it names".into());
    }
    let (meta, body) = (file.slice(HEAD..body_from), file.slice(body_from..));
    if checksum(&head[..24], &meta, &body) != word(24) {
        return Err("fails its checksum".into());
    }
    let meta = raft_pb::SnapshotMeta::decode(meta).map_err(|error| error.to_string())?;
    let meta = wire::snapshot_meta_from(meta).map_err(|error| error.to_string())?;
    Ok((meta, SnapshotBytes(body)))
}

fn checksum(head: &[u8], meta: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(head), meta), body)
}

#[cfg(test)]
mod tests {
    //! The old one or the new one, whatever happens in between; and never a damaged one.
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::{AnyDisk, HEAD, SnapshotDir, SnapshotFile, head};
    use crate::{
        types::{LeaderId, LogId, SnapshotMeta},
        wal::sim_disk::{Faults, SimDisk},
        wire,
    };
    use openraft::vote::RaftLeaderId;
    use prost::Message;
    use rand::{SeedableRng, rngs::StdRng};

    fn file() -> SnapshotFile {
        let place = SnapshotDir {
            disk: AnyDisk::Os,
            dir: "/snapshots".into(),
        };
        SnapshotFile::new(&place, 7)
    }

    /// A snapshot up to `index`, with a body of its own.
    fn parts(index: u64, len: usize) -> [Vec<u8>; 3] {
        let meta = SnapshotMeta {
            last_log_id: Some(LogId {
                leader_id: LeaderId::new(1, 1),
                index,
            }),
            ..SnapshotMeta::default()
        };
        let meta = wire::snapshot_meta_to(&meta).encode_to_vec();
        let body = vec![index as u8; len];
        [head(&meta, &body), meta, body]
    }

    fn put(disk: &SimDisk, parts: &[Vec<u8>; 3]) -> std::io::Result<()> {
        file().replace(disk, &[&parts[0], &parts[1], &parts[2]])
    }

    fn index(disk: &SimDisk) -> Option<u64> {
        let read = file().read_from(disk).unwrap();
        read.map(|(meta, body)| {
            let index = meta.last_log_id.unwrap().index;
            assert!(
                body.iter().all(|byte| u64::from(*byte) == index),
                "a body of another snapshot"
            );
            index
        })
    }

    #[test]
    fn a_crash_at_any_byte_leaves_the_old_one_or_the_new_one() {
        let (old, new) = (parts(1, 700), parts(2, 1500));
        let all: usize = new.iter().map(Vec::len).sum();
        for dies_after in 0..=all as u64 + 1 {
            let disk = SimDisk::default();
            put(&disk, &old).unwrap();
            disk.set(Faults {
                dies_after: Some(dies_after),
                ..Faults::default()
            });
            let written = put(&disk, &new).is_ok();
            for seed in 0..4 {
                let left = disk.crash(&mut StdRng::seed_from_u64(seed));
                let found = index(&left);
                let right = if written {
                    found == Some(2)
                } else {
                    matches!(found, Some(1 | 2))
                };
                assert!(
                    right,
                    "died after {dies_after} bytes, seed {seed}: found {found:?}, written: {written}"
                );
            }
        }
    }

    #[test]
    fn a_failed_fsync_or_a_full_disk_leaves_the_old_one() {
        let (old, new) = (parts(1, 700), parts(2, 1500));
        let (sync, full) = (
            Faults {
                sync_fails_at: Some(1),
                ..Faults::default()
            },
            Faults {
                capacity: Some(1500),
                ..Faults::default()
            },
        );
        for faults in [sync, full] {
            let disk = SimDisk::default();
            put(&disk, &old).unwrap();
            disk.set(faults);
            assert!(put(&disk, &new).is_err());
            assert_eq!(index(&disk), Some(1), "{faults:?}");
            assert_eq!(index(&disk.crash(&mut StdRng::seed_from_u64(0))), Some(1), "{faults:?}");
            assert_eq!(disk.files(), 1, "{faults:?}: nothing is left of the attempt");
        }
    }

    #[test]
    fn every_cut_and_every_flip_is_noticed() {
        let whole = parts(3, 300).concat();
        let path = file().path;
        let check = |bytes: Vec<u8>, what: &str| {
            let disk = SimDisk::default();
            disk.spoil(&path, bytes);
            assert!(file().read_from(&disk).is_err(), "{what}");
        };
        for at in 0..whole.len() {
            check(whole[..at].to_vec(), &format!("cut at {at}"));
            // The four bytes behind the checksum mean nothing.
            if !(HEAD - 4..HEAD).contains(&at) {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << (at % 8);
                check(flipped, &format!("flip at {at}"));
            }
        }
        check([&whole[..], &[0]].concat(), "a byte more");
    }
}
