//! A snapshot on its way in: a file that grows piece by piece, and can be gone on with by whoever sends the same one.
//!
//! ```text
//!   sender --head{id}--> have(id)?  --> shard-0007-SIZE-CRC-INDEX.part: so many bytes are here
//!          --piece{at, crc, bytes}--> written at the end of it             (another id: begun anew, the old one deleted)
//!          --...-->  whole: fsynced, its own checksum read back --> Stored --> installed by renaming
//! ```
//!
//! What is being sent is told by `Id`: size, checksum and log index of the file. Two senders with the same id hold the same
//! bytes, be it the same leader after a broken connection, or the next leader. So a transfer goes on from the piece
//! that is missing; since the name says the id, also after a restart of this node.
//!
//! Each piece has a checksum of its own, so that damage on the way costs that piece; the whole has the file's own, which
//! covers what the disk did meanwhile. Pieces aren't synced one by one: after a power cut the whole's checksum fails, and
//! the transfer begins again.
//!
//! Memory is one piece. A disk that has no room for it refuses early, and a transfer that fails for want of room gives back
//! what it took.
//!
//! Deliberately absent: the wire, and who may send (`server`).

use super::Stored;
use crate::{
    types::SnapshotMeta,
    wal::disk::{Disk, DiskFile},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Longest piece that is taken in.
pub(crate) const PIECE_MAX: usize = 1024 * 1024;

/// What is being sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Id {
    pub(crate) group: u32,
    /// The log index that it covers.
    pub(crate) index: u64,
    pub(crate) size: u64,
    pub(crate) crc32c: u32,
}

impl Id {
    fn name(&self) -> String {
        let Id {
            group,
            index,
            size,
            crc32c,
        } = self;
        format!("shard-{group:04}-{size:x}-{crc32c:08x}-{index:x}.part")
    }
}

/// Why a piece isn't taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PieceError {
    /// It isn't the next one.
    #[error("the next byte is {have}")]
    Elsewhere {
        /// So many bytes are here.
        have: u64,
    },
    /// It is longer than what is missing, or than any piece may be.
    #[error("the piece is too long")]
    TooLong,
    /// It was damaged on its way.
    #[error("the piece fails its checksum")]
    Damaged,
    /// All pieces are here, and the whole isn't what it should be.
    #[error("the whole is damaged: {0}")]
    WholeDamaged(io::Error),
    /// The disk answered with an error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file that grows.
pub(crate) struct Incoming<D: Disk> {
    disk: D,
    path: PathBuf,
    file: D::File,
    id: Id,
    have: u64,
}

impl<D: Disk> Incoming<D> {
    /// Goes on with what is here of `id`, or begins. What is here of the group's other snapshots is deleted. Blocks.
    pub(crate) fn open(disk: D, dir: &Path, id: Id) -> io::Result<Incoming<D>> {
        let (name, of_group) = (id.name(), format!("shard-{:04}-", id.group));
        let mut known = false;
        for other in disk.names(dir)? {
            known |= other == name;
            if other != name && other.starts_with(&of_group) && other.ends_with(".part") {
                disk.remove(&dir.join(other))?;
            }
        }
        let path = dir.join(name);
        let file = if known { disk.open(&path)? } else { disk.create(&path)? };
        let have = file.len()?.min(id.size);
        Ok(Incoming {
            disk,
            path,
            file,
            id,
            have,
        })
    }

    /// So many bytes of it are here.
    pub(crate) fn have(&self) -> u64 {
        self.have
    }

    /// Takes the next piece. Blocks.
    pub(crate) fn take(&mut self, at: u64, crc32c: u32, bytes: &[u8]) -> Result<(), PieceError> {
        if at != self.have {
            return Err(PieceError::Elsewhere { have: self.have });
        }
        if bytes.len() > PIECE_MAX || bytes.len() as u64 > self.id.size - self.have {
            return Err(PieceError::TooLong);
        }
        if crc32c::crc32c(bytes) != crc32c {
            return Err(PieceError::Damaged);
        }
        if let Err(error) = self.file.write_at(bytes, at) {
            // What a full disk holds of it is worth less than the room. It may not go: then that is the lesser trouble.
            let _ = self.disk.remove(&self.path);
            return Err(error.into());
        }
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// Makes the whole durable and checks it. What isn't right is deleted, and is sent again from its beginning. Blocks.
    pub(crate) fn finish(self) -> Result<(SnapshotMeta, Stored<D::File>), PieceError> {
        if self.have != self.id.size {
            return Err(PieceError::Elsewhere { have: self.have });
        }
        let checked = self.file.sync().and_then(|()| Stored::open(&self.disk, &self.path));
        let error = match checked {
            Ok((meta, stored)) if stored.crc32c == self.id.crc32c => return Ok((meta, stored)),
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "it is another snapshot"),
            Err(error) => error,
        };
        let _ = self.disk.remove(&self.path);
        Err(match error.kind() {
            io::ErrorKind::InvalidData => PieceError::WholeDamaged(error),
            _ => error.into(),
        })
    }
}

#[cfg(test)]
mod tests;
