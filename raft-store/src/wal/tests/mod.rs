//! The log on real files: what survives, what is cut, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod damage;
mod faults;
mod losses;
mod model;
mod plants;
mod verdicts;

use super::{
    Kind, Op, Options, Record, Wal, WalError,
    record::{self, Form, Header, Mark},
};
use bytes::Bytes;
use std::path::{Path, PathBuf};

const SMALL: Options = Options {
    segment_bytes: 4096,
    segments_soft: 2,
    queue: 16,
    batch_bytes: 1024,
    tally_bytes: 1000,
    preallocate: false,
    reserve_segments: 0,
    low_water_bytes: 0,
};

/// A record as recovery tells it.
type Told = (u32, Kind, Vec<u8>);

fn entry(group: u32, index: u64, body: &[u8]) -> Record {
    Record::new(
        group,
        Kind::Entry,
        index.to_le_bytes().to_vec(),
        Bytes::copy_from_slice(body),
    )
}

fn told(record: &Record) -> Told {
    (
        record.group,
        record.kind,
        [&record.prefix[..], &record.body[..]].concat(),
    )
}

fn open(dir: &Path, options: Options) -> Result<(Wal, Vec<Told>), WalError> {
    let mut all = Vec::new();
    let mut visit = |group, kind, payload: Bytes| {
        all.push((group, kind, payload.to_vec()));
        Ok(())
    };
    let wal = Wal::open(dir, options, &mut visit)?;
    Ok((wal, all))
}

/// Writes each list of records as a batch of its own.
async fn fill(dir: &Path, options: Options, batches: &[Vec<Record>]) {
    let (wal, _) = open(dir, options).unwrap();
    for batch in batches {
        wal.write(batch.clone()).await.unwrap();
    }
    wal.close();
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "seg"));
    paths.sort();
    paths
}

#[tokio::test]
async fn many_segments_are_read_in_order_and_small_state_goes_along() {
    let dir = tempfile::tempdir().unwrap();
    let vote = Record::new(1, Kind::Vote, b"vote".to_vec(), Bytes::new());
    let mut batches = vec![vec![vote.clone()]];
    batches.extend((0..40).map(|i| vec![entry(1, i, &[i as u8; 300])]));
    fill(dir.path(), SMALL, &batches).await;
    assert!(segments(dir.path()).len() > 2);
    let (wal, found) = open(dir.path(), SMALL).unwrap();
    wal.close();
    let entries: Vec<&Told> = found.iter().filter(|(_, kind, _)| *kind == Kind::Entry).collect();
    let expected: Vec<Told> = batches[1..].iter().map(|batch| told(&batch[0])).collect();
    assert_eq!(entries, expected.iter().collect::<Vec<_>>());
    assert!(
        found.iter().filter(|t| **t == told(&vote)).count() > 1,
        "each segment repeats the vote"
    );
}

#[tokio::test]
async fn segments_go_when_nothing_lives_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), SMALL).unwrap();
    let vote = Record::new(2, Kind::Vote, b"vote".to_vec(), Bytes::new());
    wal.write(vec![vote.clone(), entry(2, 0, b"idle group")]).await.unwrap();
    for i in 0..40 {
        wal.write(vec![entry(1, i, &[1; 300])]).await.unwrap();
    }
    let purge = Record::new(1, Kind::Purge, 39u64.to_le_bytes().to_vec(), Bytes::new());
    wal.write(vec![purge]).await.unwrap();
    wal.write(vec![entry(1, 40, b"on")]).await.unwrap();
    assert_eq!(wal.pinned(), vec![2], "the idle group holds the first segment");
    let room = wal.room().await.unwrap();
    wal.push(
        room,
        Op {
            records: vec![entry(2, 0, b"idle group")],
            rewrite: Some(2),
            done: None,
        },
    );
    wal.write(vec![entry(1, 41, b"on")]).await.unwrap();
    wal.write(vec![entry(1, 42, b"on")]).await.unwrap();
    wal.close();
    assert_eq!(segments(dir.path()).len(), 1, "only the newest is left");
    let (wal, found) = open(dir.path(), SMALL).unwrap();
    wal.close();
    for kept in [
        told(&vote),
        told(&entry(2, 0, b"idle group")),
        told(&entry(1, 42, b"on")),
    ] {
        assert!(found.contains(&kept), "{kept:?} is gone");
    }
}

#[tokio::test]
async fn a_batch_longer_than_a_segment_gets_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let long = entry(1, 0, &[5; 20_000]);
    fill(dir.path(), SMALL, &[vec![long.clone()], vec![entry(1, 1, b"next")]]).await;
    let (wal, found) = open(dir.path(), SMALL).unwrap();
    wal.close();
    assert_eq!(found, vec![told(&long), told(&entry(1, 1, b"next"))]);
}

#[tokio::test]
async fn a_lazy_commit_goes_with_the_next_batch_or_the_close() {
    let commit = |n: u64| Record::new(1, Kind::Commit, n.to_le_bytes().to_vec(), Bytes::new());
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), SMALL).unwrap();
    wal.push_lazy(commit(1));
    wal.push_lazy(commit(2));
    wal.write(vec![entry(1, 0, b"x")]).await.unwrap();
    wal.push_lazy(commit(3));
    wal.close();
    let (wal, found) = open(dir.path(), SMALL).unwrap();
    wal.close();
    assert_eq!(
        found,
        vec![told(&entry(1, 0, b"x")), told(&commit(2)), told(&commit(3))]
    );
}

#[tokio::test]
async fn after_a_close_writes_fail() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), SMALL).unwrap();
    wal.close();
    assert!(wal.write(vec![entry(1, 0, b"late")]).await.is_err());
}

/// A disk that fails once is not asked again: nothing more is written, everyone is told, and the host can see why.
#[tokio::test]
async fn a_failed_disk_ends_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), SMALL).unwrap();
    wal.write(vec![entry(1, 0, b"kept")]).await.unwrap();
    let mut failed = wal.failed();
    assert_eq!(*failed.borrow_and_update(), None);
    // Without its folder, the log can't make its next segment.
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert!(wal.write(vec![entry(1, 1, &[1; 5000])]).await.is_err());
    failed.changed().await.unwrap();
    assert!(failed.borrow().is_some());
    std::fs::create_dir(dir.path()).unwrap();
    assert!(
        wal.write(vec![entry(1, 1, b"again")]).await.is_err(),
        "it must not be tried again"
    );
}

#[tokio::test]
async fn prepared_segments_hold_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let batches: Vec<Vec<Record>> = (0..40).map(|i| vec![entry(1, i, &[i as u8; 300])]).collect();
    fill(
        dir.path(),
        Options {
            preallocate: true,
            ..SMALL
        },
        &batches,
    )
    .await;
    let (wal, found) = open(dir.path(), SMALL).unwrap();
    wal.close();
    assert_eq!(found, batches.iter().map(|batch| told(&batch[0])).collect::<Vec<_>>());
}

/// A block that the disk put where another belongs holds no record, in another segment or in its own.
#[test]
fn a_record_is_one_only_in_its_place() {
    let form = Form { version: 2, salt: 5 };
    let mark = Mark {
        batch: 1,
        last: true,
        copy: false,
        nth: 1,
    };
    let mut out = Vec::new();
    entry(1, 2, b"here").write(&mut out, 0, form, mark);
    assert!(record::read(&out, 0, form).is_some());
    let moved = [vec![0; 4096], out.clone()].concat();
    assert!(
        record::read(&moved, 4096, form).is_none(),
        "elsewhere in the same segment"
    );
    assert!(
        record::read(&out, 0, Form { salt: 6, ..form }).is_none(),
        "in another segment"
    );
}

/// Disk format 2. If this test must change, the version must, and the old form must still be read.
#[test]
fn golden_bytes_of_a_record_and_a_header() {
    let mut out = Vec::new();
    let form = Form {
        version: 2,
        salt: 0x1122_3344_5566_7788,
    };
    let mark = Mark {
        batch: 9,
        last: true,
        copy: false,
        nth: 5,
    };
    entry(7, 0x0102, b"lamp").write(&mut out, 64, form, mark);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(&out),
        "0c000000ac8cdb7209000000000000000700000001010000050000000000000002010000000000006c616d7000000000"
    );
    let header = Header {
        form,
        seq: 3,
        before: 0x0a0b,
        batch: 0x0c,
    };
    assert_eq!(
        hex(&header.write()),
        "5255534857414c02030000000000000088776655443322110b0a0000000000000c0000000000000083d2713600000000"
    );
}

/// Disk format 1, as its own release wrote it: it is still read.
#[test]
fn golden_bytes_of_format_1_are_read() {
    let bytes = |hex: &str| -> Vec<u8> {
        let digit = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    };
    let mut file = bytes("5255534857414c010300000000000000887766554433221143cffe5f00000000");
    file.extend(bytes(
        "0c0000006bb216530900000000000000070000000101000002010000000000006c616d7000000000",
    ));
    let header = Header::read(&file).unwrap();
    assert_eq!(
        (header.form.version, header.seq, header.form.salt),
        (1, 3, 0x1122_3344_5566_7788)
    );
    let found = record::read(&file, header.len(), header.form).unwrap();
    let Mark { batch, last, copy, nth } = found.mark;
    assert_eq!(
        (found.group, found.kind, batch, last, copy, nth),
        (7, Kind::Entry, 9, true, false, 0)
    );
    assert_eq!(&file[found.from..found.to], b"\x02\x01\0\0\0\0\0\0lamp");
    let mut again = Vec::new();
    entry(7, 0x0102, b"lamp").write(&mut again, 32, header.form, found.mark);
    assert_eq!(again, file[32..], "a segment of format 1 is sealed in format 1");
}
