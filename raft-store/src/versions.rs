//! Which versions there are of what nodes say to each other, log and judge by, and which of them may be used now.
//!
//! ```text
//!   a build knows 1..=NEWEST         a roll: nodes restart one by one with a newer build; nothing new is used yet
//!   cluster_version, in shard 0      raised by an operator, once every node's build knows it; no way back
//!        '--> each leader: log entries in that version's form; Rules{…} logged once in each shard
//!        '--> each node:   DIR/format, so that an old build refuses the folder
//!                          pulses: an old build that comes back stops itself, and isn't heard
//! ```
//!
//! Why one number for all: an operator decides once, and a test needs to try one step, not every mixture. Why not by
//! itself: until it is raised, going back to the old build is a restart; the one who rolls knows when that is no longer
//! wanted. Why rules are in the log, too: a replica must judge an entry by the rules that held *there*, when it replays it a
//! month later, and not by those of the day.
//!
//! A newer field on the wire that may be overlooked needs no version: readers skip what they don't know. What must not be
//! overlooked (an entry's form, rules, a step of a move) is refused by `codec` with `[version_newer]`.
//!
//! Deliberately absent: reading of forms (`codec`), the check that every build knows a version (`host::steer`).

use crate::{
    group::Group,
    port::Log,
    types::{Answer, Payload},
    wal::disk::{Disk, DiskFile},
};
use parking_lot::Mutex;
use placement::{ClusterMap, NodeId, ShardId};
use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// The newest cluster version that this build knows. With the feature `next` it knows one more, to try a roll with.
pub const NEWEST: u32 = if cfg!(feature = "next") { 3 } else { 2 };
/// The newest form of log entries that this build reads.
pub(crate) const FORMAT: u32 = if cfg!(feature = "next") { 2 } else { 1 };
/// What this build calls itself.
pub const BUILD: &str = if cfg!(feature = "next") {
    concat!(env!("CARGO_PKG_VERSION"), "-next")
} else {
    env!("CARGO_PKG_VERSION")
};

/// Before rules that could not be logged are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The form of entries of a cluster version.
fn format_of(version: u32) -> u32 {
    match version {
        0..3 => 1,
        3.. => FORMAT,
    }
}

/// The rules of a cluster version: they have had the same numbers so far.
fn rules_of(version: u32) -> u32 {
    version.clamp(1, auction::RULES_VERSION)
}

/// The cluster's version, as this node knows it.
pub(crate) struct Agreed {
    /// 0: no map yet.
    version: AtomicU32,
    /// Old builds that were told of already.
    told: Mutex<BTreeSet<NodeId>>,
    /// Told why this node must stop.
    failed: watch::Sender<Option<String>>,
}

impl Agreed {
    pub(crate) fn new(failed: watch::Sender<Option<String>>) -> Agreed {
        Agreed {
            version: AtomicU32::new(0),
            told: Mutex::default(),
            failed,
        }
    }

    /// The map says so.
    pub(crate) fn take(&self, version: u32) {
        self.version.fetch_max(version.max(1), Ordering::Release);
    }

    /// The cluster's version; 0: this node has no map.
    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// In which form entries are written.
    pub(crate) fn format(&self) -> u32 {
        format_of(self.version())
    }

    /// Whether a peer is to be heard, by what its pulse says: the cluster's version, and the newest that its build knows.
    pub(crate) fn hears(&self, node: NodeId, cluster: u32, newest: u32) -> bool {
        if cluster > NEWEST {
            let why = format!(
                "[version_newer] the cluster is at version {cluster} (says node {}); this build knows up to {NEWEST}",
                node.0
            );
            self.failed.send_if_modified(|present| {
                let first = present.is_none();
                present.get_or_insert(why);
                first
            });
            return false;
        }
        let (newest, version) = (newest.max(1), self.version());
        if newest < version && self.told.lock().insert(node) {
            tracing::error!(
                node = node.0,
                newest,
                version,
                "a node's build is too old for this cluster: it isn't heard"
            );
        }
        newest >= version
    }
}

/// Refuses a folder that a newer version of the cluster has written to.
pub(crate) fn check_folder(disk: &impl Disk, dir: &Path) -> io::Result<Result<(), String>> {
    let bytes = match disk.read(&dir.join("format")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&bytes);
    Ok(match text.trim().parse::<u32>() {
        Ok(found) if found <= NEWEST => Ok(()),
        Ok(found) => Err(format!(
            "[version_newer] the folder is at cluster version {found}; this build knows up to {NEWEST}"
        )),
        Err(_) => Err(format!("[version_newer] {}: no version", dir.join("format").display())),
    })
}

/// Marks the folder as written to by a version. Durable before anything of that version is.
pub(crate) fn mark_folder(disk: &impl Disk, dir: &Path, version: u32) -> io::Result<()> {
    if version <= 1 {
        return Ok(());
    }
    let temporary = dir.join("format.tmp");
    let file = disk.create(&temporary)?;
    file.write_at(format!("{version}\n").as_bytes(), 0)?;
    file.sync()?;
    disk.rename(&temporary, &dir.join("format"))?;
    disk.sync_dir(dir)
}

/// Logs the cluster version's rules in each shard that is led here and doesn't have them. Runs until it is aborted.
pub(crate) async fn raise_rules(
    groups: impl Fn() -> Vec<Arc<Group>>,
    mut maps: watch::Receiver<Arc<ClusterMap>>,
    mut led: watch::Receiver<u64>,
) {
    loop {
        led.borrow_and_update();
        let version = maps.borrow_and_update().cluster_version();
        let done = raise_all(groups(), rules_of(version)).await;
        tokio::select! {
            changed = maps.changed() => if changed.is_err() { return },
            changed = led.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if !done => {}
        }
    }
}

/// True: all that are led here have them.
async fn raise_all(groups: Vec<Arc<Group>>, rules: u32) -> bool {
    let mut done = true;
    for group in groups {
        let known = group.led();
        if group.shard == ShardId::META || !known.leading || group.state().read().shard.rules() >= rules {
            continue;
        }
        match group.decree(known.term, Payload::Rules(rules)).await {
            Ok(Answer::Nothing) => tracing::info!(shard = group.shard.0, rules, "new rules"),
            // Another leads, or nobody knows: whoever leads then sees to it.
            Ok(_) | Err(_) => done = false,
        }
    }
    done
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wal::disk::Os;

    #[test]
    fn a_folder_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            check_folder(&Os, dir.path()).unwrap(),
            Ok(()),
            "before there were others"
        );
        for (version, fits) in [(1, true), (NEWEST, true), (NEWEST + 1, false)] {
            mark_folder(&Os, dir.path(), version).unwrap();
            let checked = check_folder(&Os, dir.path()).unwrap();
            assert_eq!(checked.is_ok(), fits, "{version}: {checked:?}");
            assert!(fits || checked.unwrap_err().starts_with("[version_newer]"));
        }
    }

    #[test]
    fn an_old_build_is_not_heard_and_stops_itself() {
        // our version | a pulse's cluster version and newest | heard | we stop
        let table = [
            (0, 0, 0, true, false),
            (1, 1, 1, true, false),
            (1, 0, 0, true, false),
            (1, 1, 7, true, false),
            (7, 1, 0, false, false),
            (7, 0, 6, false, false),
            (1, NEWEST + 1, NEWEST + 1, false, true),
        ];
        for (ours, cluster, newest, heard, stops) in table {
            let failed = watch::channel(None).0;
            let agreed = Agreed::new(failed.clone());
            agreed.version.store(ours, Ordering::Release);
            let row = format!("{ours}, {cluster}, {newest}");
            assert_eq!(agreed.hears(NodeId(2), cluster, newest), heard, "{row}");
            assert_eq!(failed.borrow().is_some(), stops, "{row}");
        }
    }
}
