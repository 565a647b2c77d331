//! A snapshot from another node: taken in piece by piece, checked, installed.
//!
//! Who sends asks first how much of this snapshot is here (`have`), then sends the rest. The newest sender of a group has the
//! word: whatever an older one still sends (a leader that was deposed, a connection that died without a word) ends when
//! its next piece comes.
//!
//! What the snapshot leaves out (`cold`) comes before it in the same stream, record by record, as far as it isn't here; a record
//! counts when it is whole, is the auction that it says, and was written. All together must make the sum that the snapshot names, and
//! be durable, before it is installed.
//!
//! A snapshot that would leave less than the low-water mark free is refused before its first piece: it would take the room
//! that the log needs.
//!
//! Deliberately absent: the file (`snapshot::incoming`), and the pace (the sender's).

use super::Groups;
use crate::{
    dial::Speaker,
    group::Group,
    snapshot::incoming::{Id, Incoming, PIECE_MAX, PieceError},
    state_machine::blocking,
    types::SnapshotData,
    wal::disk::{AnyDisk, Disk},
    wire,
};
use parking_lot::Mutex;
use proto::raft::v1::{self as pb, snapshot_chunk::Part};
use std::{collections::HashMap, io, sync::Arc};
use tonic::{Status, Streaming};

/// Longest snapshot that is taken in.
const SNAPSHOT_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Whose turn it is to send a group's snapshot.
#[derive(Default)]
pub(super) struct Arrivals(Mutex<HashMap<u32, u64>>);

impl Arrivals {
    /// The newest sender's turn.
    fn begin(&self, group: u32) -> u64 {
        let mut turns = self.0.lock();
        let turn = turns.entry(group).or_default();
        *turn += 1;
        *turn
    }

    fn is_on(&self, group: u32, turn: u64) -> bool {
        self.0.lock().get(&group) == Some(&turn)
    }
}

fn invalid(what: impl Into<String>) -> Status {
    Status::invalid_argument(what)
}

fn refused(error: PieceError) -> Status {
    match error {
        PieceError::Elsewhere { .. } | PieceError::TooLong => Status::out_of_range(error.to_string()),
        PieceError::Damaged | PieceError::WholeDamaged(_) => Status::data_loss(error.to_string()),
        PieceError::Io(error) => disk(&error),
    }
}

fn disk(error: &io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Status::resource_exhausted(error.to_string()),
        _ => Status::unavailable(format!("the disk: {error}")),
    }
}

/// What is here of the snapshot that `head` names, open to be gone on with.
async fn open(
    groups: &Groups,
    speaker: Option<Speaker>,
    head: &pb::SnapshotHead,
) -> Result<(Arc<Group>, Incoming<AnyDisk>), Status> {
    let group = groups.find(head.group, head.to).map_err(Status::failed_precondition)?;
    let allowed = groups.allow(speaker, &group, head.vote.as_ref());
    allowed.map_err(Status::permission_denied)?;
    group.rest.stir();
    let last = head.meta.as_ref().and_then(|meta| meta.last_log_id.as_ref());
    let id = Id {
        group: head.group,
        index: last.ok_or_else(|| invalid("a snapshot of nothing"))?.index,
        size: head.size,
        crc32c: head.crc32c,
    };
    if id.size > SNAPSHOT_MAX {
        return Err(invalid("the snapshot is too long"));
    }
    let (place, low_water) = (group.snapshots.clone(), group.low_water);
    let cold_missing = head.cold_bytes.saturating_sub(group.replica.cold.bytes());
    let opened = blocking(move || {
        let incoming = Incoming::open(place.disk.clone(), &place.dir, id)?;
        let missing = (id.size - incoming.have()).saturating_add(cold_missing);
        // Where nobody can tell how much is free, the disk tells soon enough.
        let free = place.disk.free(&place.dir).unwrap_or(u64::MAX);
        if missing > 0 && free < missing.saturating_add(low_water) {
            let what = format!("a snapshot of {missing} bytes more would leave too little free");
            return Err(io::Error::new(io::ErrorKind::StorageFull, what));
        }
        Ok(incoming)
    });
    let incoming = opened.await.map_err(|error| disk(&error))?;
    Ok((group, incoming))
}

/// How much of it is here.
pub(super) async fn have(
    groups: &Groups,
    speaker: Option<Speaker>,
    head: &pb::SnapshotHead,
) -> Result<pb::SnapshotHere, Status> {
    let (group, incoming) = open(groups, speaker, head).await?;
    groups.arrivals.begin(head.group);
    Ok(pb::SnapshotHere {
        have: incoming.have(),
        cold: group.replica.cold.count(),
    })
}

/// A record on its way in.
#[derive(Default)]
struct Growing {
    number: u64,
    bytes: Vec<u8>,
}

/// Takes a piece of a record in.
async fn take_cold(group: &Group, growing: &mut Growing, piece: pb::ColdPiece) -> Result<(), Status> {
    if piece.at == 0 {
        *growing = Growing {
            number: piece.number,
            bytes: Vec::new(),
        };
    }
    let have = growing.bytes.len() as u64;
    let fits = piece.data.len() <= PIECE_MAX && have + piece.data.len() as u64 <= piece.size;
    if piece.number != growing.number || piece.at != have || !fits || piece.size > SNAPSHOT_MAX {
        return Err(Status::out_of_range("a record's piece out of place"));
    }
    if crc32c::crc32c(&piece.data) != piece.crc32c {
        return Err(Status::data_loss("a record's piece fails its checksum"));
    }
    growing.bytes.extend_from_slice(&piece.data);
    if (growing.bytes.len() as u64) < piece.size {
        return Ok(());
    }
    let (store, record, number) = (
        group.replica.cold.clone(),
        std::mem::take(&mut growing.bytes),
        piece.number,
    );
    let taken = blocking(move || store.take(number, &record)).await;
    taken.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Status::data_loss(error.to_string()),
        _ => disk(&error),
    })
}

/// Takes in what is missing, and installs the whole.
pub(super) async fn install(
    groups: &Groups,
    speaker: Option<Speaker>,
    mut chunks: Streaming<pb::SnapshotChunk>,
) -> Result<pb::SnapshotReply, Status> {
    let Some(Part::Head(head)) = chunks.message().await?.and_then(|chunk| chunk.part) else {
        return Err(invalid("no head"));
    };
    let (group, mut incoming) = open(groups, speaker, &head).await?;
    let turn = groups.arrivals.begin(head.group);
    let vote = wire::vote_from(head.vote).map_err(|bad| invalid(bad.to_string()))?;
    let mut growing = Growing::default();
    while let Some(chunk) = chunks.message().await? {
        if !groups.arrivals.is_on(head.group, turn) {
            return Err(Status::aborted("another sender has taken over"));
        }
        group.rest.stir();
        let piece = match chunk.part {
            Some(Part::Piece(piece)) => piece,
            Some(Part::Cold(piece)) => {
                crate::metrics::snapshot_received(piece.data.len());
                take_cold(&group, &mut growing, piece).await?;
                continue;
            }
            Some(Part::Head(_)) | None => return Err(invalid("no piece")),
        };
        crate::metrics::snapshot_received(piece.data.len());
        #[cfg(feature = "sim")]
        crate::sim::piece_came();
        let taken = blocking(move || Ok((incoming.take(piece.at, piece.crc32c, &piece.data), incoming))).await;
        let (taken, back) = taken.map_err(|error| disk(&error))?;
        taken.map_err(refused)?;
        incoming = back;
    }
    let whole = blocking(move || Ok(incoming.finish()))
        .await
        .map_err(|error| disk(&error))?;
    let (meta, stored) = whole.map_err(refused)?;
    let (store, cold) = (group.replica.cold.clone(), stored.cold);
    let held = blocking(move || store.holds(&cold)).await;
    held.map_err(|error| disk(&error))?;
    tracing::info!(group = head.group, bytes = stored.size, "installing a snapshot");
    let path = stored.path().to_owned();
    let snapshot = openraft::storage::Snapshot {
        meta,
        snapshot: SnapshotData(Arc::new(stored)),
    };
    let response = group.raft.install_full_snapshot(vote, snapshot).await;
    group.rest.hear();
    // A replica that is stopping installs nothing; its next life can.
    let response = response.map_err(|fatal| Status::unavailable(fatal.to_string()))?;
    // Installed, it has another name by now; else it is of no use any more.
    let disk = group.snapshots.disk.clone();
    let _ = blocking(move || disk.remove(&path)).await;
    Ok(pb::SnapshotReply {
        vote: Some(wire::vote_to(&response.vote)),
    })
}
