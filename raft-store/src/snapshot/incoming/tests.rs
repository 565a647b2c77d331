//! A transfer that is cut anywhere, damaged anywhere, or finds no room: in the end the same file is here, or none.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{Id, Incoming, PieceError};
use crate::{
    snapshot::{SnapshotDir, SnapshotFile, tests::parts},
    wal::{
        disk::{AnyDisk, Disk as _},
        sim_disk::{Faults, SimDisk},
    },
};
use rand::{SeedableRng, rngs::StdRng};
use std::path::Path;

const DIR: &str = "/snapshots";
const PIECE: usize = 64;

/// A snapshot's file up to `index`.
fn file(index: u64) -> Vec<u8> {
    parts(index, 1_000).concat()
}

fn id(file: &[u8], index: u64) -> Id {
    Id {
        group: 7,
        index,
        size: file.len() as u64,
        crc32c: u32::from_le_bytes(*file[24..].first_chunk().unwrap()),
    }
}

fn open(disk: &SimDisk, id: Id) -> Incoming<SimDisk> {
    Incoming::open(disk.clone(), Path::new(DIR), id).unwrap()
}

/// Sends pieces from what is here, at most `pieces`.
fn send(incoming: &mut Incoming<SimDisk>, file: &[u8], pieces: usize) -> Result<(), PieceError> {
    for _ in 0..pieces {
        let at = incoming.have() as usize;
        let piece = &file[at..(at + PIECE).min(file.len())];
        if piece.is_empty() {
            break;
        }
        incoming.take(at as u64, crc32c::crc32c(piece), piece)?;
    }
    Ok(())
}

/// Finishes, installs, and reads back what was installed.
fn arrive(disk: &SimDisk, incoming: Incoming<SimDisk>, file: &[u8]) {
    let (_, stored) = incoming.finish().unwrap();
    let dir = SnapshotDir {
        disk: AnyDisk::Os,
        dir: DIR.into(),
    };
    let place = SnapshotFile::new(&dir, 7);
    place.adopt_on(disk, &stored.path).unwrap();
    let (_, stored) = place.read_from(disk).unwrap().unwrap();
    assert_eq!(stored.piece(0, file.len()).unwrap(), file);
    assert_eq!(disk.files(), 1, "nothing else is left");
}

const ALL: usize = usize::MAX;

#[test]
fn a_transfer_cut_at_every_piece_goes_on_where_it_was() {
    let file = file(3);
    let pieces = file.len().div_ceil(PIECE);
    for cut in 0..=pieces {
        for again in cut..=pieces {
            let disk = SimDisk::default();
            send(&mut open(&disk, id(&file, 3)), &file, cut).unwrap();
            // Another connection, perhaps another leader: the same bytes.
            let mut second = open(&disk, id(&file, 3));
            assert_eq!(second.have(), (cut * PIECE).min(file.len()) as u64, "cut at {cut}");
            send(&mut second, &file, again - cut).unwrap();
            drop(second);
            // This process was killed.
            let disk = disk.kill();
            let mut third = open(&disk, id(&file, 3));
            assert_eq!(third.have(), (again * PIECE).min(file.len()) as u64, "cut at {again}");
            send(&mut third, &file, ALL).unwrap();
            arrive(&disk, third, &file);
        }
    }
}

#[test]
fn another_snapshot_begins_anew() {
    let (old, new) = (file(3), file(4));
    let disk = SimDisk::default();
    send(&mut open(&disk, id(&old, 3)), &old, 5).unwrap();
    let mut incoming = open(&disk, id(&new, 4));
    assert_eq!(incoming.have(), 0);
    send(&mut incoming, &new, ALL).unwrap();
    arrive(&disk, incoming, &new);
}

#[test]
fn a_damaged_piece_is_refused_and_sent_again() {
    let file = file(3);
    for piece in 0..file.len().div_ceil(PIECE) {
        let disk = SimDisk::default();
        let mut incoming = open(&disk, id(&file, 3));
        send(&mut incoming, &file, piece).unwrap();
        let at = incoming.have() as usize;
        let right = &file[at..(at + PIECE).min(file.len())];
        let mut wrong = right.to_vec();
        wrong[piece % right.len()] ^= 4;
        let taken = incoming.take(at as u64, crc32c::crc32c(right), &wrong);
        assert!(matches!(taken, Err(PieceError::Damaged)), "{taken:?}");
        assert_eq!(incoming.have() as usize, at);
        send(&mut incoming, &file, ALL).unwrap();
        arrive(&disk, incoming, &file);
    }
}

#[test]
fn pieces_out_of_place_or_too_long_are_refused() {
    let file = file(3);
    let mut incoming = open(&SimDisk::default(), id(&file, 3));
    send(&mut incoming, &file, 2).unwrap();
    let piece = &file[..PIECE];
    for at in [0, PIECE as u64, 3 * PIECE as u64] {
        let taken = incoming.take(at, crc32c::crc32c(piece), piece);
        assert!(matches!(taken, Err(PieceError::Elsewhere { have: 128 })), "{taken:?}");
    }
    let long = vec![0; file.len()];
    let taken = incoming.take(128, crc32c::crc32c(&long), &long);
    assert!(matches!(taken, Err(PieceError::TooLong)), "{taken:?}");
    let unfinished = incoming.finish().map(drop);
    assert!(
        matches!(unfinished, Err(PieceError::Elsewhere { have: 128 })),
        "{unfinished:?}"
    );
}

/// Every piece was right, and the disk changed one afterwards; or the sender's id doesn't fit its bytes.
#[test]
fn a_whole_that_is_damaged_is_thrown_away() {
    let file = file(3);
    for at in 0..file.len() {
        if (28..32).contains(&at) {
            // Four bytes that mean nothing.
            continue;
        }
        let disk = SimDisk::default();
        let mut incoming = open(&disk, id(&file, 3));
        send(&mut incoming, &file, ALL).unwrap();
        let name = disk.names(Path::new(DIR)).unwrap().pop().unwrap();
        let mut flipped = file.clone();
        flipped[at] ^= 1;
        disk.spoil(&Path::new(DIR).join(name), flipped);
        assert!(incoming.finish().is_err(), "byte {at}");
        assert_eq!(disk.files(), 0, "byte {at}: it begins again");
    }
    let disk = SimDisk::default();
    let mut incoming = open(
        &disk,
        Id {
            crc32c: 1,
            ..id(&file, 3)
        },
    );
    send(&mut incoming, &file, ALL).unwrap();
    assert!(matches!(incoming.finish().map(drop), Err(PieceError::WholeDamaged(_))));
}

#[test]
fn a_full_disk_refuses_and_gets_its_room_back() {
    let file = file(3);
    for room in 0..file.len() as u64 {
        let disk = SimDisk::default();
        disk.set(Faults {
            capacity: Some(room),
            ..Faults::default()
        });
        let sent = send(&mut open(&disk, id(&file, 3)), &file, ALL);
        assert!(
            matches!(&sent, Err(PieceError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull),
            "{sent:?}"
        );
        assert_eq!((disk.files(), disk.bytes()), (0, 0), "room for {room}");
        disk.set(Faults::default());
        let mut incoming = open(&disk, id(&file, 3));
        send(&mut incoming, &file, ALL).unwrap();
        arrive(&disk, incoming, &file);
    }
}

/// Pieces aren't synced one by one: after a power cut what is here may be anything, and is never installed.
#[test]
fn after_a_power_cut_the_file_is_right_or_thrown_away() {
    let file = file(3);
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..200 {
        let disk = SimDisk::default();
        send(&mut open(&disk, id(&file, 3)), &file, 9).unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        let left = disk.crash(&mut StdRng::seed_from_u64(seed));
        let mut incoming = open(&left, id(&file, 3));
        send(&mut incoming, &file, ALL).unwrap();
        match incoming.finish() {
            Ok((_, stored)) => {
                right += 1;
                assert_eq!(stored.piece(0, file.len()).unwrap(), file);
            }
            Err(_) => {
                wrong += 1;
                assert_eq!(left.files(), 0);
            }
        }
    }
    assert!(right > 20 && wrong > 0, "{right} right, {wrong} thrown away");
}
