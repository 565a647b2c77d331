//! Disks that fail, fill up and hang under the real writer thread.

use crate::wal::{
    Kind, Options, Pressure, Record, Wal,
    sim_disk::{Faults, SimDisk},
};
use bytes::Bytes;
use std::path::Path;

const AHEAD: Options = Options {
    segment_bytes: 8192,
    segments_soft: 2,
    queue: 16,
    batch_bytes: 1 << 20,
    tally_bytes: 1 << 20,
    preallocate: true,
    reserve_segments: 2,
    low_water_bytes: 20_000,
};

fn open(disk: &SimDisk) -> (Wal, usize) {
    let mut entries = 0;
    let mut visit = |_, kind, _: Bytes| {
        entries += usize::from(kind == Kind::Entry);
        Ok(())
    };
    let wal = Wal::open_on(disk.clone(), Path::new("/wal"), AHEAD, &mut visit).unwrap();
    (wal, entries)
}

/// Waits until the helper has all its files: the log's one, the next, the reserve. Durable, since a fault that comes between a
/// file's last byte and its fsync would still hit the preparation.
async fn laid_by(disk: &SimDisk) {
    while disk.durable_bytes() < AHEAD.segment_bytes as usize * (2 + AHEAD.reserve_segments) {
        tokio::task::yield_now().await;
    }
}

fn entry(index: u64) -> Record {
    Record::new(1, Kind::Entry, index.to_le_bytes().to_vec(), Bytes::from(vec![7; 2000]))
}

/// The write fails, everyone who waits fails, the host is told why, and the fsync isn't tried again: a second one would
/// say 'done' of pages that were dropped.
#[tokio::test]
async fn a_failed_fsync_is_final() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    wal.write(vec![entry(0)]).await.unwrap();
    laid_by(&disk).await;
    let mut failed = wal.failed();
    disk.set(Faults {
        sync_fails_at: Some(1),
        ..Faults::default()
    });
    assert!(wal.write(vec![entry(1)]).await.is_err());
    failed.wait_for(Option::is_some).await.unwrap();
    assert!(wal.write(vec![entry(2)]).await.is_err(), "it must not be tried again");
    wal.close();
    assert_eq!(disk.retried(), 0, "an fsync after the one that failed");
    let (wal, entries) = open(&disk.crash(&mut rand::rng()));
    wal.close();
    assert_eq!(entries, 1, "what was acknowledged, and only that");
}

/// While an fsync hangs nobody is answered, and the stall can be seen; when it ends, all are.
#[tokio::test]
async fn a_hanging_fsync_acknowledges_nothing_and_is_seen() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    disk.set(Faults {
        hangs: true,
        ..Faults::default()
    });
    let writes: Vec<_> = (0..5)
        .map(|index| {
            let wal = wal.clone();
            tokio::spawn(async move { wal.write(vec![entry(index)]).await })
        })
        .collect();
    while wal.stalled().is_zero() {
        tokio::task::yield_now().await;
    }
    let before = wal.stalled();
    while wal.stalled() <= before {
        tokio::task::yield_now().await;
    }
    assert!(
        writes.iter().all(|write| !write.is_finished()),
        "acknowledged before its fsync"
    );
    disk.set(Faults::default());
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert!(wal.stalled().is_zero());
    wal.close();
}

/// A disk that fills up: told early, then the segments laid by are used, then the log fails, and nothing that was
/// acknowledged is gone. Room that comes back is taken.
#[tokio::test]
async fn a_full_disk_is_told_early_and_the_reserve_is_used() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    wal.write(vec![entry(0)]).await.unwrap();
    laid_by(&disk).await;
    let mut pressure = wal.pressure();
    assert_eq!(*pressure.borrow(), Pressure::Ample);
    disk.set(Faults {
        free: Some(10_000),
        ..Faults::default()
    });
    pressure.wait_for(|now| *now == Pressure::Low).await.unwrap();
    wal.write(vec![entry(1)]).await.unwrap();
    // Not a byte more: the prepared segment and the reserve are all there is.
    disk.set(Faults {
        capacity: Some(0),
        ..Faults::default()
    });
    let mut index = 2;
    while wal.write(vec![entry(index)]).await.is_ok() {
        index += 1;
        assert!(index < 100);
        if index == 8 {
            // By now the prepared segment is in use, and what follows comes out of the reserve.
            pressure.wait_for(|now| *now == Pressure::Reserve).await.unwrap();
        }
    }
    assert!(index >= 10, "the reserve took nothing: {index}");
    wal.close();
    disk.set(Faults::default());
    let (wal, entries) = open(&disk.crash(&mut rand::rng()));
    assert_eq!(entries as u64, index, "what was acknowledged");
    let mut pressure = wal.pressure();
    pressure.wait_for(|now| *now == Pressure::Ample).await.unwrap();
    wal.write(vec![entry(index)]).await.unwrap();
    wal.close();
}

#[tokio::test]
async fn room_that_comes_back_refills_the_reserve() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    wal.write(vec![entry(0)]).await.unwrap();
    laid_by(&disk).await;
    disk.set(Faults {
        capacity: Some(0),
        ..Faults::default()
    });
    let mut pressure = wal.pressure();
    let mut index = 1;
    while *pressure.borrow_and_update() != Pressure::Reserve {
        wal.write(vec![entry(index)]).await.unwrap();
        index += 1;
    }
    disk.set(Faults::default());
    pressure.wait_for(|now| *now == Pressure::Ample).await.unwrap();
    for index in index..40 {
        wal.write(vec![entry(index)]).await.unwrap();
    }
    wal.close();
}

/// Room for one file isn't room for the reserve: a disk that gives back a little is still said to be full.
#[tokio::test]
async fn the_reserve_is_in_use_until_it_is_whole() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    wal.write(vec![entry(0)]).await.unwrap();
    laid_by(&disk).await;
    let has = |capacity| Faults {
        capacity: Some(capacity),
        ..Faults::default()
    };
    disk.set(has(0));
    let mut pressure = wal.pressure();
    let mut index = 1;
    while *pressure.borrow_and_update() != Pressure::Reserve {
        wal.write(vec![entry(index)]).await.unwrap();
        index += 1;
    }
    let before = disk.durable_bytes();
    disk.set(has(before as u64 + AHEAD.segment_bytes));
    while disk.durable_bytes() < before + AHEAD.segment_bytes as usize {
        tokio::task::yield_now().await;
    }
    let refused = disk.refused();
    while disk.refused() == refused {
        tokio::task::yield_now().await;
    }
    assert!(!pressure.has_changed().unwrap(), "{:?}", *pressure.borrow());
    disk.set(Faults::default());
    pressure.wait_for(|now| *now == Pressure::Ample).await.unwrap();
    wal.close();
}

/// EIO where nothing promised is at stake: the log goes on, says that it ails, never syncs a file again whose fsync failed,
/// and is well once a new file could be made.
#[tokio::test]
async fn a_file_that_cannot_be_prepared_is_thrown_away_and_a_new_one_made() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    wal.write(vec![entry(0)]).await.unwrap();
    laid_by(&disk).await;
    disk.set(Faults {
        spares_fail: true,
        ..Faults::default()
    });
    let mut index = 1;
    while !wal.is_ailing() {
        wal.write(vec![entry(index)]).await.unwrap();
        index += 1;
        assert!(index < 20, "nothing was prepared meanwhile");
        tokio::task::yield_now().await;
    }
    assert_eq!(*wal.pressure().borrow(), Pressure::Ample, "there is room");
    assert_eq!(*wal.failed().borrow(), None);
    disk.set(Faults::default());
    while wal.is_ailing() {
        tokio::task::yield_now().await;
    }
    for index in index..40 {
        wal.write(vec![entry(index)]).await.unwrap();
    }
    wal.close();
    assert_eq!(disk.retried(), 0, "an fsync after the one that failed");
    let (wal, entries) = open(&disk.crash(&mut rand::rng()));
    wal.close();
    assert_eq!(entries, 40);
}

/// The same, and it never gets well: what was laid by is used, then one last new file is tried, and that error is final.
#[tokio::test]
async fn a_disk_that_never_prepares_again_ends_the_log_when_it_needs_a_file() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    wal.write(vec![entry(0)]).await.unwrap();
    laid_by(&disk).await;
    disk.set(Faults {
        spares_fail: true,
        ..Faults::default()
    });
    let mut index = 1;
    while wal.write(vec![entry(index)]).await.is_ok() {
        index += 1;
        assert!(index < 100);
    }
    // Three entries fit into a segment; the one in use, the prepared one and the reserve are four.
    assert!(index >= 10, "what was laid by took nothing: {index}");
    wal.failed().wait_for(Option::is_some).await.unwrap();
    wal.close();
    assert_eq!(disk.retried(), 0, "an fsync after the one that failed");
    disk.set(Faults::default());
    let (wal, entries) = open(&disk.crash(&mut rand::rng()));
    wal.close();
    assert_eq!(entries as u64, index, "what was acknowledged");
}
