//! Compaction: when a group makes a snapshot, what of its log goes then, and what keeps old segments alive.
//!
//! A group makes a snapshot when its log has grown by so many *bytes*, or when anything at all was logged and so much time
//! went by. Counting entries would be wrong: at a burst a thousand entries are ten milliseconds, and every follower that
//! blinked would need a whole snapshot. For the same reason `keep_bytes` of entries stay behind a snapshot.
//!
//! When too many segments pile up, the groups that still live in the oldest are asked to leave it: one with little log
//! writes it again at the end, one with much makes a snapshot and keeps nothing behind it.
//!
//! Deliberately absent: haste. It looks once a second; bounds are about space, not about moments.

use crate::{group::Group, options::RaftOptions, wal::Wal};
use openraft::async_runtime::watch::WatchReceiver;
use std::{collections::BTreeMap, sync::Arc, time::Duration, time::Instant};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);

/// A log up to this long is rewritten rather than covered by a snapshot.
const REWRITE_MAX: u64 = 1024 * 1024;

/// Looks after the groups of a node until it is aborted.
pub(crate) async fn run(wal: Wal, options: RaftOptions, groups: impl Fn() -> Vec<Arc<Group>> + Send) {
    let mut last: BTreeMap<u32, Instant> = BTreeMap::new();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let pinned = wal.pinned();
        for group in groups() {
            let pins = pinned.contains(&group.shard.0);
            let since = *last.entry(group.shard.0).or_insert_with(Instant::now);
            if look_after(&group, &options, pins, since.elapsed()).await {
                last.insert(group.shard.0, Instant::now());
            }
        }
    }
}

/// One look at one group. True: it began a snapshot.
async fn look_after(group: &Group, options: &RaftOptions, pins: bool, age: Duration) -> bool {
    let (snapshot, applied, purged) = {
        let metrics = group.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<crate::types::LogId>| id.map(|id| id.index);
        (
            index(&metrics.snapshot),
            index(&metrics.last_applied),
            index(&metrics.purged),
        )
    };
    let grown = group.log.bytes_after(snapshot.unwrap_or(0));
    let news = applied > snapshot;
    let crowded = pins && group.log.bytes() > REWRITE_MAX;
    let begins = news && (grown >= options.snapshot_bytes || age >= options.snapshot_age || crowded);
    // An error means that the group has stopped: `group` tells the host.
    if begins && group.raft.trigger().snapshot().await.is_err() {
        return false;
    }
    let keep = if pins { 0 } else { options.keep_bytes };
    if let Some(snapshot) = snapshot
        && let Some(upto) = group.log.purgeable(snapshot, keep)
        && Some(upto) > purged
    {
        let _ = group.raft.trigger().purge_log(upto).await;
    }
    if pins
        && !crowded
        && let Err(error) = group.log.rewrite().await
    {
        tracing::debug!(shard = group.shard.0, %error, "the log is closed");
    }
    begins
}
