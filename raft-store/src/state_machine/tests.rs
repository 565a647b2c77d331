//! Images are written beside everything else: one that ends late spoils nothing.
#![allow(clippy::unwrap_used)]

use super::StateMachine;
use crate::{
    cold::ColdStore,
    log_store::LogStore,
    options::RaftOptions,
    snapshot::{SnapshotDir, SnapshotFile},
    types::{LeaderId, LogEntry, LogId, LogPayload},
    wal::{self, Wal, disk::AnyDisk},
};
use auction::Limits;
use openraft::{
    RaftSnapshotBuilder,
    storage::{RaftStateMachine, Snapshot},
    vote::RaftLeaderId,
};

const GROUP: u32 = 4;

/// A replica's state and its folder.
struct Place {
    dir: tempfile::TempDir,
    wal: Wal,
    file: SnapshotFile,
    machine: StateMachine,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.wal.close();
    }
}

impl Place {
    async fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let options = wal::Options {
            segment_bytes: 64 * 1024,
            preallocate: false,
            ..wal::Options::default()
        };
        let wal = Wal::open(&dir.path().join("wal"), options, &mut |_, _, _| Ok(())).unwrap();
        let log = LogStore::open(GROUP, 7, wal.clone(), None, &RaftOptions::default()).await;
        let place = SnapshotDir {
            disk: AnyDisk::Os,
            dir: dir.path().to_owned(),
        };
        let file = SnapshotFile::new(&place, GROUP);
        let machine = StateMachine::open(log.unwrap(), file.clone(), Limits::default(), ColdStore::none()).unwrap();
        Place {
            dir,
            wal,
            file,
            machine,
        }
    }

    async fn apply(&mut self, upto: u64) {
        let from = self
            .machine
            .applied_state()
            .await
            .unwrap()
            .0
            .map_or(1, |id| id.index + 1);
        let entries = (from..=upto).map(|index| {
            let log_id = LogId {
                leader_id: LeaderId::new(1, 1),
                index,
            };
            let payload = LogPayload::Blank;
            Ok((LogEntry { log_id, payload }, None))
        });
        self.machine.apply(futures_util::stream::iter(entries)).await.unwrap();
    }

    /// Up to where the snapshot goes that is sent to others, and that the next start finds.
    async fn kept(&mut self) -> (Option<u64>, Option<u64>) {
        let sent = self.machine.get_current_snapshot().await.unwrap();
        let found = self.file.read().unwrap();
        let index = |id: Option<LogId>| id.map(|id| id.index);
        (
            sent.and_then(|snapshot| index(snapshot.meta.last_log_id)),
            found.and_then(|(meta, _)| index(meta.last_log_id)),
        )
    }
}

/// openraft builds in a task of its own, and installs another node's snapshot without waiting for it.
#[tokio::test]
async fn an_image_that_ends_late_does_not_replace_what_was_installed_meanwhile() {
    let (mut here, mut there) = (Place::new().await, Place::new().await);
    here.apply(3).await;
    let mut late = here.machine.get_snapshot_builder().await;
    there.apply(9).await;
    let newer = there.machine.get_snapshot_builder().await.build_snapshot().await;
    let Snapshot { meta, snapshot } = newer.unwrap();
    here.machine.install_snapshot(&meta, snapshot).await.unwrap();
    assert_eq!(here.kept().await, (Some(9), Some(9)));
    let told = late.build_snapshot().await.unwrap();
    assert_eq!(here.kept().await, (Some(9), Some(9)), "the log is gone up to there");
    assert_eq!(told.meta.last_log_id.map(|id| id.index), Some(9), "what there is");
    here.apply(12).await;
    here.machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    assert_eq!(here.kept().await, (Some(12), Some(12)), "and on from there");
}

/// openraft doesn't wait for what another node sent, either.
#[tokio::test]
async fn a_snapshot_that_is_installed_after_its_replica_stopped_gets_no_name() {
    let (mut here, mut there) = (Place::new().await, Place::new().await);
    there.apply(9).await;
    let sent = there.machine.get_snapshot_builder().await.build_snapshot().await;
    let Snapshot { meta, snapshot } = sent.unwrap();
    here.file.close();
    assert!(here.machine.install_snapshot(&meta, snapshot).await.is_err());
    assert_eq!(here.kept().await, (None, None));
}

/// A replica that was stopped writes nothing any more: the name is its successor's.
#[tokio::test]
async fn an_image_that_ends_after_its_replica_is_not_written() {
    let mut here = Place::new().await;
    here.apply(3).await;
    let mut late = here.machine.get_snapshot_builder().await;
    here.file.close();
    assert!(late.build_snapshot().await.is_err());
    let names = std::fs::read_dir(here.dir.path()).unwrap().flatten();
    let files = names.filter(|name| name.path().is_file()).count();
    assert_eq!((here.kept().await, files), ((None, None), 0));
}
