//! openraft's own suite for storage over our log and state machine, and what must be there after a reopening.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{Found, LogStore, Unwritten};
use crate::{
    cold::ColdStore,
    options::RaftOptions,
    snapshot::SnapshotFile,
    state_machine::StateMachine,
    types::{LeaderId, LogEntry, LogId, LogPayload, TypeConfig, Vote},
    wal::{self, Wal},
};
use auction::Limits;
use openraft::{
    RaftLogReader, StorageError,
    storage::{IOFlushed, RaftLogStorage},
    testing::log::{StoreBuilder, Suite},
    type_config::TypeConfigExt,
    vote::RaftLeaderId,
};
use std::{collections::HashMap, path::Path};

const GROUP: u32 = 4;
const REPLICA: u64 = 7;

/// A log that is closed and gone when the test is.
struct Ground {
    wal: Wal,
    _dir: tempfile::TempDir,
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.wal.close();
    }
}

fn recover(dir: &Path) -> (Wal, HashMap<u32, Found>) {
    let mut found: HashMap<u32, Found> = HashMap::new();
    let mut visit = |group, kind, payload| found.entry(group).or_default().take(kind, payload);
    let options = wal::Options {
        segment_bytes: 64 * 1024,
        preallocate: false,
        ..wal::Options::default()
    };
    let wal = Wal::open(dir, options, &mut visit).unwrap();
    (wal, found)
}

async fn reopen(dir: &Path, replica: u64) -> LogStore {
    let (wal, mut found) = recover(dir);
    LogStore::open(GROUP, replica, wal, found.remove(&GROUP), &RaftOptions::default())
        .await
        .unwrap()
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Ground> for Builder {
    async fn build(&self) -> Result<(Ground, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = recover(dir.path());
        let log = LogStore::open(GROUP, 0, wal.clone(), None, &RaftOptions::default())
            .await
            .unwrap();
        let place = crate::snapshot::SnapshotDir {
            disk: crate::wal::disk::AnyDisk::Os,
            dir: dir.path().to_owned(),
        };
        let file = SnapshotFile::new(&place, GROUP);
        let machine = StateMachine::open(log.clone(), file, Limits::default(), ColdStore::none()).unwrap();
        Ok((Ground { wal, _dir: dir }, log, machine))
    }
}

#[test]
fn openrafts_suite_for_storage_passes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(Suite::test_all(Builder)).unwrap();
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId::new(term, 1),
        index,
    }
}

async fn append(log: &mut LogStore, term: u64, indexes: std::ops::Range<u64>) {
    let entries: Vec<LogEntry> = indexes
        .map(|index| LogEntry {
            log_id: log_id(term, index),
            payload: LogPayload::Blank,
        })
        .collect();
    let (tx, rx) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(tx)).await.unwrap();
    rx.await.unwrap().unwrap();
}

thread_local! {
    /// What logs of this thread forget to write.
    pub(super) static SKIPPED: std::cell::Cell<Option<Unwritten>> = const { std::cell::Cell::new(None) };
}

/// What a log is once it was reopened: its vote, what was purged, and its entries by term and index.
#[derive(PartialEq, Debug)]
struct Left {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    entries: Vec<LogId>,
}

async fn left(dir: &Path) -> Left {
    let mut log = reopen(dir, REPLICA).await;
    let state = log.get_log_state().await.unwrap();
    let entries = log.try_get_log_entries(0..100).await.unwrap();
    let left = Left {
        vote: log.read_vote().await.unwrap(),
        committed: log.read_committed().await.unwrap(),
        purged: state.last_purged_log_id,
        last: state.last_log_id,
        entries: entries.iter().map(|entry| entry.log_id).collect(),
    };
    log.wal.close();
    left
}

/// A vote, ten entries, and four of them replaced by another leader's three.
async fn voted_and_cut(dir: &Path) {
    let mut log = reopen(dir, REPLICA).await;
    log.save_vote(&Vote::new(2, 9)).await.unwrap();
    log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
    append(&mut log, 1, 0..10).await;
    log.truncate_after(Some(log_id(1, 5))).await.unwrap();
    append(&mut log, 3, 6..9).await;
    log.purge(log_id(1, 2)).await.unwrap();
    log.save_committed(Some(log_id(3, 7))).await.unwrap();
    log.wal.close();
}

fn as_it_was_left() -> Left {
    Left {
        vote: Some(Vote::new_committed(3, 1)),
        committed: Some(log_id(3, 7)),
        purged: Some(log_id(1, 2)),
        last: Some(log_id(3, 8)),
        entries: [(1, 3), (1, 4), (1, 5), (3, 6), (3, 7), (3, 8)]
            .map(|(term, index)| log_id(term, index))
            .to_vec(),
    }
}

#[tokio::test]
async fn a_vote_and_a_log_survive_as_they_were_left() {
    let dir = tempfile::tempdir().unwrap();
    voted_and_cut(dir.path()).await;
    assert_eq!(left(dir.path()).await, as_it_was_left());
}

/// The test above finds what isn't written. (A cut that isn't shows in simulations only now and then: its log must end
/// behind the entries that came in place of the old ones, and its process end before more come.)
#[tokio::test]
async fn what_is_not_written_is_missed() {
    for (skipped, without) in [
        (
            Unwritten::Vote,
            Left {
                vote: None,
                ..as_it_was_left()
            },
        ),
        (
            Unwritten::Cut,
            Left {
                // The old leader's last entry, which is even taken for a committed one.
                last: Some(log_id(1, 9)),
                committed: Some(log_id(1, 9)),
                entries: [as_it_was_left().entries, vec![log_id(1, 9)]].concat(),
                ..as_it_was_left()
            },
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        SKIPPED.set(Some(skipped));
        voted_and_cut(dir.path()).await;
        SKIPPED.set(None);
        assert_eq!(left(dir.path()).await, without, "{skipped:?}");
    }
}

#[tokio::test]
async fn a_rewritten_log_is_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(dir.path(), REPLICA).await;
    append(&mut log, 1, 0..20).await;
    log.rewrite().await.unwrap();
    append(&mut log, 1, 20..22).await;
    log.wal.close();
    let mut log = reopen(dir.path(), REPLICA).await;
    let indexes: Vec<u64> = log
        .try_get_log_entries(..)
        .await
        .unwrap()
        .iter()
        .map(|entry| entry.log_id.index)
        .collect();
    assert_eq!(indexes, (0..22).collect::<Vec<_>>());
    log.wal.close();
}

/// What was said once and long ago is in no segment but as a copy: the log begins with a checkpoint then.
#[tokio::test]
async fn a_vote_outlives_the_segment_that_it_was_written_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(dir.path(), REPLICA).await;
    let vote = Vote::new(9, 2);
    log.save_vote(&vote).await.unwrap();
    // Far more than the segment that holds the vote: it goes.
    for n in 0..40 {
        append(&mut log, 1, n * 100..(n + 1) * 100).await;
        log.purge(log_id(1, n * 100 + 90)).await.unwrap();
    }
    log.wal.close();
    let names = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let first = names.min().unwrap();
    assert_ne!(first, "wal-0000000000000001.seg", "the first segment should be gone");
    let mut log = reopen(dir.path(), REPLICA).await;
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (Some(log_id(1, 3990)), Some(log_id(1, 3999)))
    );
    log.wal.close();
}

/// Damage to a group's records shuts that group's replica, whatever else the log holds; a fresh replica is free of it.
#[tokio::test]
async fn a_hurt_replica_stays_shut_and_a_fresh_one_opens() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(dir.path(), REPLICA).await;
    append(&mut log, 1, 0..10).await;
    log.wal.close();
    let path = dir.path().join("wal-0000000000000001.seg");
    let mut file = std::fs::read(&path).unwrap();
    // An entry in the middle: its checksum fails, those around it are whole.
    let at = file.windows(8).position(|bytes| bytes == 4u64.to_le_bytes()).unwrap();
    file[at] ^= 1;
    std::fs::write(&path, file).unwrap();
    let (wal, mut found) = recover(dir.path());
    let found = found.remove(&GROUP).unwrap();
    assert!(found.hurt(REPLICA).is_some() && found.hurt(REPLICA + 1).is_none());
    let there: Vec<u64> = found.entries().map(|entry| entry.log_id.index).collect();
    let gap = (0..10).find(|index| !there.contains(index)).unwrap();
    assert!(gap > 0 && there.last() == Some(&9), "{there:?}");
    assert_eq!(
        found.tail(),
        (1, gap - 1),
        "what comes after a gap is of no use to anybody"
    );
    let shut = LogStore::open(GROUP, REPLICA, wal.clone(), Some(found), &RaftOptions::default()).await;
    assert!(shut.is_err_and(|why| why.contains("fresh id")));
    wal.close();
    let mut log = reopen(dir.path(), REPLICA + 1).await;
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, None);
    log.wal.close();
}

/// A fresh replica id on an old folder: the old log and, above all, the old vote are not its own.
#[tokio::test]
async fn another_replicas_log_is_disowned() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(dir.path(), REPLICA).await;
    log.save_vote(&Vote::new(5, 5)).await.unwrap();
    append(&mut log, 1, 0..3).await;
    log.wal.close();
    for _ in 0..2 {
        let mut log = reopen(dir.path(), REPLICA + 1).await;
        assert_eq!(log.read_vote().await.unwrap(), None);
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, None);
        log.wal.close();
    }
}

#[tokio::test]
async fn reads_for_followers_are_bounded_in_bytes_and_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = recover(dir.path());
    let options = RaftOptions {
        append_bytes_max: 300,
        ..RaftOptions::default()
    };
    let mut log = LogStore::open(GROUP, REPLICA, wal, None, &options).await.unwrap();
    append(&mut log, 1, 0..10).await;
    // A blank counts 128 bytes.
    assert_eq!(log.limited_get_log_entries(0, 10).await.unwrap().len(), 2);
    log.append_bytes_max = 1;
    assert_eq!(log.limited_get_log_entries(4, 10).await.unwrap().len(), 1);
    log.wal.close();
}

#[tokio::test]
async fn purging_keeps_the_bytes_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = reopen(dir.path(), REPLICA).await;
    append(&mut log, 1, 0..10).await;
    let check = |upto, keep, expected| assert_eq!(log.purgeable(upto, keep), expected, "upto {upto} keep {keep}");
    check(9, 0, Some(9));
    check(5, 0, Some(5));
    check(9, 128 * 4, Some(5));
    check(3, 128 * 4, Some(3));
    check(9, 128 * 100, None);
    log.wal.close();
}

/// A snapshot's file is there whole or not at all, and damage to any byte of it is noticed.
#[tokio::test]
async fn a_damaged_snapshot_is_refused_at_every_byte() {
    use openraft::{RaftSnapshotBuilder, storage::RaftStateMachine};
    let (ground, _, mut machine) = Builder.build().await.unwrap();
    assert!(machine.get_current_snapshot().await.unwrap().is_none());
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert!(machine.get_current_snapshot().await.unwrap().is_some());
    let path = ground._dir.path().join("shard-0004.snap");
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).filter(|at| !(28..32).contains(at)) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert!(machine.get_current_snapshot().await.is_err(), "byte {at}");
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(machine.get_current_snapshot().await.is_err(), "shorter");
}
