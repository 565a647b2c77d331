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
//! is purged only after that. A file that fails its checksum stops the replica. One that is older never takes the place of a newer
//! one (`Kept`).
//!
//! What goes about between openraft, disk and network is not the bytes but the file, held open (`Stored`): whoever sends it
//! reads piece by piece, and a newer snapshot that takes its name meanwhile doesn't disturb. Whoever gets one writes the
//! same file, piece by piece (`incoming`), and installs it by renaming. Only decoding needs a body whole in memory.
//!
//! What is paged out (`cold`) isn't in it: only how many auctions those are, and the sum of their digests, which stands in the meta
//! part, too. They were durable before they left memory, so whatever snapshot names them, they are there.
//!
//! Deliberately absent: increments and compression. Hot state is small.

pub(crate) mod incoming;
pub(crate) mod pace;

use crate::{
    codec::{self, Wire},
    cold::ColdStore,
    state::{Cut, FIRST_EPOCH, Lost, State},
    types::{LogId, SnapshotMeta},
    wal::disk::{AnyDisk, AnyFile, Disk, DiskFile, exactly},
    wire,
};
use auction::{AuctionParts, Cold, Limits, Parts, Shard};
use bytes::Bytes;
use parking_lot::Mutex;
use placement::ClusterMap;
use prost::Message;
use proto::{log::v1 as log_pb, raft::v1 as raft_pb};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

const MAGIC: [u8; 8] = *b"RUSHSNAP";
const VERSION: u32 = 2;
const HEAD: usize = 32;
/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;
/// Longest meta part: members, and a log id.
const META_MAX: u32 = 1024 * 1024;

/// A state taken at one moment, to be encoded elsewhere: the state's lock is held only for this.
pub(crate) struct Image {
    parts: Parts,
    map: Option<Arc<ClusterMap>>,
    applied: u64,
    feed_epoch: u64,
    cuts: Vec<Cut>,
    lost: Lost,
}

impl Image {
    pub(crate) fn of(state: &State) -> Image {
        #[cfg(feature = "sim")]
        if crate::sim::planted(crate::sim::Plant::SnapshotForgets) {
            return Image::forgetful(state);
        }
        Image {
            parts: state.shard.parts(),
            map: state.map.clone(),
            applied: state.applied,
            feed_epoch: state.feed_epoch,
            cuts: state.cuts.clone(),
            lost: state.lost.clone(),
        }
    }

    #[cfg(feature = "sim")]
    fn forgetful(state: &State) -> Image {
        let mut parts = state.shard.parts();
        parts.auctions.iter_mut().for_each(|auction| auction.once.clear());
        Image {
            parts,
            map: state.map.clone(),
            applied: state.applied,
            feed_epoch: state.feed_epoch,
            cuts: state.cuts.clone(),
            lost: state.lost.clone(),
        }
    }

    /// What it leaves out.
    pub(crate) fn cold(&self) -> Cold {
        self.parts.cold
    }

    /// With all that it leaves out: for whoever has no cold store, or another. Blocks.
    pub(crate) fn whole(self, store: &ColdStore) -> io::Result<Image> {
        let count = self.parts.cold.count;
        let cold = (0..count).map(|number| store.parts(number));
        let cold: Vec<AuctionParts> = cold.collect::<io::Result<_>>()?;
        Ok(self.with(cold))
    }

    /// With these in the place of all that it leaves out. Settled auctions are numbered anew, for some may be lost.
    pub(crate) fn with(mut self, cold: Vec<AuctionParts>) -> Image {
        let auctions = &mut self.parts.auctions;
        let first = auctions.iter().position(|parts| parts.settled.is_some());
        let first = first.unwrap_or(auctions.len());
        auctions.splice(first..first, cold);
        for (number, parts) in (0..).zip(&mut auctions[first..]) {
            parts.settled = Some(number);
        }
        self.parts.cold = Cold::default();
        self
    }

    /// The state itself, without a way over bytes.
    pub(crate) fn into_state(self, limits: Limits) -> io::Result<State> {
        let bad = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{error:?}"));
        Ok(State {
            shard: Shard::from_parts(limits, self.parts).map_err(bad)?,
            map: self.map,
            applied: self.applied,
            feed_epoch: self.feed_epoch,
            cuts: self.cuts,
            lost: self.lost,
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let proto = log_pb::State {
            shard: Some(self.parts.to_proto()),
            map: self.map.as_ref().map(|map| map.to_proto()),
            applied: self.applied,
            // The first epoch isn't written, so that such a snapshot is what it was before there were others.
            feed_epoch: if self.feed_epoch == FIRST_EPOCH {
                0
            } else {
                self.feed_epoch
            },
            cuts: self.cuts.iter().map(Wire::to_proto).collect(),
            lost: (!self.lost.is_empty()).then(|| self.lost.to_proto()),
        };
        proto.encode_to_vec()
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
        feed_epoch: proto.feed_epoch.max(FIRST_EPOCH),
        cuts: proto
            .cuts
            .into_iter()
            .map(Cut::from_proto)
            .collect::<Result<_, _>>()
            .map_err(|error| bad(error.to_string()))?,
        lost: proto
            .lost
            .map(Lost::from_proto)
            .transpose()
            .map_err(|error| bad(error.to_string()))?
            .unwrap_or_default(),
    })
}

/// Where a node's snapshots lie.
#[derive(Clone)]
pub(crate) struct SnapshotDir {
    pub(crate) disk: AnyDisk,
    pub(crate) dir: PathBuf,
}

/// A snapshot's file, whole and held open.
pub(crate) struct Stored<F = AnyFile> {
    file: F,
    /// Its name when it was opened.
    path: PathBuf,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Its own checksum, over all of it.
    pub(crate) crc32c: u32,
    /// What its state leaves out.
    pub(crate) cold: Cold,
    body_from: u64,
}

impl<F> fmt::Debug for Stored<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path.display(), self.size)
    }
}

impl<F: DiskFile> Stored<F> {
    /// Opens and checks a file, a piece at a time.
    pub(crate) fn open(disk: &impl Disk<File = F>, path: &Path) -> io::Result<(SnapshotMeta, Stored<F>)> {
        let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
        let file = disk.open(path)?;
        let size = file.len()?;
        let mut head = [0; HEAD];
        exactly(&file, &mut head, 0).map_err(|_| bad("is shorter than a header".into()))?;
        let parts = Head::read(&head, size).map_err(bad)?;
        let mut meta = vec![0; parts.meta as usize];
        exactly(&file, &mut meta, HEAD as u64)?;
        let mut crc = crc32c::crc32c_append(crc32c::crc32c(&head[..24]), &meta);
        let body_from = HEAD as u64 + u64::from(parts.meta);
        let (mut at, mut piece) = (body_from, vec![0; PIECE]);
        while at < size {
            let n = (size - at).min(PIECE as u64) as usize;
            exactly(&file, &mut piece[..n], at)?;
            crc = crc32c::crc32c_append(crc, &piece[..n]);
            at += n as u64;
        }
        if crc != parts.crc32c {
            return Err(bad("fails its checksum".into()));
        }
        let meta = raft_pb::SnapshotMeta::decode(&meta[..]).map_err(|error| bad(error.to_string()))?;
        let cold = codec::cold(meta.cold, &meta.cold_sum).map_err(|error| bad(error.to_string()))?;
        let meta = wire::snapshot_meta_from(meta).map_err(|error| bad(error.to_string()))?;
        let stored = Stored {
            file,
            path: path.to_owned(),
            size,
            crc32c: parts.crc32c,
            cold,
            body_from,
        };
        Ok((meta, stored))
    }

    /// The name under which it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Some of the file, from `at`. Blocks for the disk.
    pub(crate) fn piece(&self, at: u64, len: usize) -> io::Result<Bytes> {
        let len = self.size.saturating_sub(at).min(len as u64) as usize;
        let mut piece = vec![0; len];
        exactly(&self.file, &mut piece, at)?;
        Ok(Bytes::from(piece))
    }

    /// The whole body. Blocks for the disk.
    pub(crate) fn body(&self) -> io::Result<Bytes> {
        let len = usize::try_from(self.size - self.body_from).map_err(io::Error::other)?;
        self.piece(self.body_from, len)
    }
}

/// Where a group's snapshot lies. Clones are one: who writes waits for who writes.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    disk: AnyDisk,
    dir: PathBuf,
    path: PathBuf,
    kept: Arc<Mutex<Kept>>,
}

/// What a file's writers must know of each other. An image is encoded and written beside everything else, and openraft waits
/// for its end neither before it has another node's snapshot installed nor when the replica stops.
#[derive(Default)]
struct Kept {
    /// What the newest one that was written or installed here is of.
    newest: Option<LogId>,
    /// The replica has stopped: the file may be another's by now.
    closed: bool,
}

impl Kept {
    fn open(&self) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::other("the replica has stopped"));
        }
        Ok(())
    }
}

impl SnapshotFile {
    pub(crate) fn new(place: &SnapshotDir, group: u32) -> SnapshotFile {
        SnapshotFile {
            disk: place.disk.clone(),
            dir: place.dir.clone(),
            path: place.dir.join(format!("shard-{group:04}.snap")),
            kept: Arc::default(),
        }
    }

    /// Where a replica that is founded here is put before its log says that it is born.
    pub(crate) fn planted(place: &SnapshotDir, group: u32, replica: u64) -> SnapshotFile {
        SnapshotFile {
            disk: place.disk.clone(),
            dir: place.dir.clone(),
            path: place.dir.join(format!("shard-{group:04}.plant-{replica}")),
            kept: Arc::default(),
        }
    }

    /// Replaces the file, unless a newer one has come meanwhile: the log is gone up to there. Gives what is there then. Blocks
    /// for the disk.
    pub(crate) fn write(&self, meta: &SnapshotMeta, cold: &Cold, body: &[u8]) -> io::Result<(SnapshotMeta, Stored)> {
        let mut kept = self.kept.lock();
        kept.open()?;
        if kept.newest <= meta.last_log_id {
            let bytes = wire::snapshot_meta_to(meta, cold).encode_to_vec();
            self.replace(&self.disk, &[&head(&bytes, body), &bytes, body])?;
            kept.newest = meta.last_log_id;
        }
        Stored::open(&self.disk, &self.path)
    }

    /// From here on nothing is written by this replica; returns when what is being written has been. Blocks.
    pub(crate) fn close(&self) {
        self.kept.lock().closed = true;
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

    /// Gives a file that came from another node, and is of `last`, this one's name. It is durable already, its name is
    /// afterwards. `then` comes with it: whoever closes waits for both.
    pub(crate) fn adopt(&self, stored: &Stored, last: Option<LogId>, then: impl FnOnce()) -> io::Result<()> {
        let mut kept = self.kept.lock();
        kept.open()?;
        self.adopt_on(&self.disk, &stored.path)?;
        kept.newest = kept.newest.max(last);
        then();
        Ok(())
    }

    fn adopt_on(&self, disk: &impl Disk, path: &Path) -> io::Result<()> {
        if *path != self.path {
            disk.rename(path, &self.path)?;
        }
        disk.sync_dir(&self.dir)
    }

    /// Opens the file, if there is one. Blocks for the disk.
    pub(crate) fn read(&self) -> io::Result<Option<(SnapshotMeta, Stored)>> {
        self.read_from(&self.disk)
    }

    fn read_from<D: Disk>(&self, disk: &D) -> io::Result<Option<(SnapshotMeta, Stored<D::File>)>> {
        match Stored::open(disk, &self.path) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Bytes of the file; 0 if there is none.
    pub(crate) fn bytes(&self) -> u64 {
        self.disk.open(&self.path).and_then(|file| file.len()).unwrap_or(0)
    }

    /// Room on its disk.
    pub(crate) fn free(&self) -> io::Result<u64> {
        self.disk.free(&self.dir)
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

/// What a header says.
struct Head {
    meta: u32,
    crc32c: u32,
}

impl Head {
    /// Reads the header of a file of `size` bytes.
    fn read(head: &[u8; HEAD], size: u64) -> Result<Head, String> {
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
        let (meta, crc32c) = (word(12), word(24));
        let body = head[16..]
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let whole = (HEAD as u64 + u64::from(meta)).checked_add(body);
        if meta > META_MAX || whole != Some(size) {
            return Err("is not of the length that it names".into());
        }
        Ok(Head { meta, crc32c })
    }
}

fn checksum(head: &[u8], meta: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(head), meta), body)
}

#[cfg(test)]
mod tests {
    //! The old one or the new one, whatever happens in between; and never a damaged one.
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::{AnyDisk, Cold, HEAD, SnapshotDir, SnapshotFile, head};
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
    pub(super) fn parts(index: u64, len: usize) -> [Vec<u8>; 3] {
        let meta = SnapshotMeta {
            last_log_id: Some(LogId {
                leader_id: LeaderId::new(1, 1),
                index,
            }),
            ..SnapshotMeta::default()
        };
        let meta = wire::snapshot_meta_to(&meta, &Cold::default()).encode_to_vec();
        let body = vec![index as u8; len];
        [head(&meta, &body), meta, body]
    }

    fn put(disk: &SimDisk, parts: &[Vec<u8>; 3]) -> std::io::Result<()> {
        file().replace(disk, &[&parts[0], &parts[1], &parts[2]])
    }

    fn index(disk: &SimDisk) -> Option<u64> {
        let read = file().read_from(disk).unwrap();
        read.map(|(meta, stored)| {
            let body = stored.body().unwrap();
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
