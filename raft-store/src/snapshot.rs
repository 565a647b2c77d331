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
    wire,
};
use auction::{Limits, Parts, Shard};
use bytes::Bytes;
use placement::ClusterMap;
use prost::Message;
use proto::{log::v1 as log_pb, raft::v1 as raft_pb};
use std::{
    fs::File,
    io::{self, Write},
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

/// Where a group's snapshot lies.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    dir: PathBuf,
    path: PathBuf,
}

impl SnapshotFile {
    pub(crate) fn new(dir: &Path, group: u32) -> SnapshotFile {
        SnapshotFile {
            dir: dir.to_owned(),
            path: dir.join(format!("shard-{group:04}.snap")),
        }
    }

    /// Replaces the file. Blocks for the disk.
    pub(crate) fn write(&self, meta: &SnapshotMeta, body: &SnapshotBytes) -> io::Result<()> {
        let meta = wire::snapshot_meta_to(meta).encode_to_vec();
        let mut head = Vec::with_capacity(HEAD);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&(meta.len() as u32).to_le_bytes());
        head.extend_from_slice(&(body.len() as u64).to_le_bytes());
        let crc = checksum(&head, &meta, body);
        head.extend_from_slice(&crc.to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&head)?;
        file.write_all(&meta)?;
        file.write_all(body)?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&temporary, &self.path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Reads the file back, if there is one. Blocks for the disk.
    pub(crate) fn read(&self) -> io::Result<Option<(SnapshotMeta, SnapshotBytes)>> {
        let file = match std::fs::read(&self.path) {
            Ok(file) => Bytes::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        parse(&file)
            .map(Some)
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", self.path.display())))
    }

    /// Deletes the file of a replica that is no more.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
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
