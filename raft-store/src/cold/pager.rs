//! The pager: takes settled auctions out of memory, a while after they settled. One task a node.
//!
//! ```text
//!   look: settled `cold_after` ago? --Arcs, under the read lock--> append, sync (no lock) --durable--> page_out, under the write lock
//! ```
//!
//! Nothing waits for it. It takes a bounded number at a look, and what it drops it drops when no lock is held. Where the disk is short
//! of room, or says no, all stays in memory as it was, and it tries again: bids and the log come first.
//!
//! A shard at rest isn't woken by it: it reads the state, and says nothing to anybody.
//!
//! Deliberately absent: what is paged out (always the lowest numbers), and how it is written (`cold`).

use crate::{group::Group, metrics, state_machine::blocking, wal::disk::Disk};
use auction::Settled;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Auctions of one shard at one look.
const BATCH: usize = 256;
/// Events of them together, or one auction.
const BATCH_EVENTS: usize = 100_000;
/// Longest time between two looks, and shortest.
const LOOK_MAX: Duration = Duration::from_secs(5);
const LOOK_MIN: Duration = Duration::from_millis(50);
/// Before a shard whose auctions couldn't be written is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// When a shard had how many settled auctions.
#[derive(Default)]
struct Ages {
    seen: VecDeque<(u64, Instant)>,
    /// Below this they are old enough.
    ripe: u64,
    not_before: Option<Instant>,
}

impl Ages {
    /// The shard has so many now. How many of them settled `after` ago or earlier.
    fn look(&mut self, count: u64, now: Instant, after: Duration) -> u64 {
        if self.seen.back().is_none_or(|(known, _)| *known < count) && count > self.ripe {
            self.seen.push_back((count, now));
        }
        while let Some((upto, since)) = self.seen.front()
            && now.duration_since(*since) >= after
        {
            self.ripe = self.ripe.max(*upto);
            self.seen.pop_front();
        }
        self.ripe
    }
}

/// Looks after the groups of a node until it is aborted. `after` zero: nothing is paged out.
pub(crate) async fn run(after: Duration, groups: impl Fn() -> Vec<Arc<Group>> + Send) {
    if after.is_zero() {
        return;
    }
    let mut ages: BTreeMap<(u32, u64), Ages> = BTreeMap::new();
    let mut looks = tokio::time::interval((after / 4).clamp(LOOK_MIN, LOOK_MAX));
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let groups = groups();
        ages.retain(|(shard, id), _| groups.iter().any(|group| (group.shard.0, group.id) == (*shard, *id)));
        let (mut auctions, mut bytes) = (0, 0);
        for group in groups {
            let ages = ages.entry((group.shard.0, group.id)).or_default();
            look_after(&group, ages, after).await;
            auctions += group.replica.state.read().shard.cold().count;
            bytes += group.replica.cold.bytes();
        }
        metrics::cold(auctions, bytes);
    }
}

/// One look at one group.
async fn look_after(group: &Arc<Group>, ages: &mut Ages, after: Duration) {
    let (count, cold) = {
        let state = group.replica.state.read();
        (state.shard.settled_count(), state.shard.cold().count)
    };
    let now = Instant::now();
    let ripe = ages.look(count, now, after).min(count);
    if ripe <= cold || ages.not_before.is_some_and(|at| now < at) {
        return;
    }
    // One batch after the other, as long as there are any: else what closes faster would pile up.
    let mut left = ripe - cold;
    while left > 0 {
        match page_out(group, ripe).await {
            Ok(0) => return,
            Ok(gone) => left = left.saturating_sub(gone),
            Err(error) => {
                metrics::cold_failed();
                if ages.not_before.is_none() {
                    tracing::warn!(shard = group.shard.0, %error, "settled auctions stay in memory");
                }
                ages.not_before = Some(now + AGAIN);
                return;
            }
        }
        tokio::task::yield_now().await;
    }
    ages.not_before = None;
}

/// Pages out some of what is below `ripe`; gives how many went.
async fn page_out(group: &Arc<Group>, ripe: u64) -> io::Result<u64> {
    let batch = batch(group, ripe);
    let (store, place, low_water) = (group.replica.cold.clone(), group.snapshots.clone(), group.low_water);
    let (durable, batch) = blocking(move || {
        let free = place.disk.free(&place.dir).unwrap_or(u64::MAX);
        if free < low_water.saturating_mul(2) {
            let what = "too little room for settled auctions";
            return Err(io::Error::new(io::ErrorKind::StorageFull, what));
        }
        for settled in &batch {
            store.append(settled)?;
        }
        Ok((store.sync()?, batch))
    })
    .await?;
    let mut gone = Vec::with_capacity(batch.len());
    {
        let mut state = group.replica.state.write();
        for settled in batch.iter().filter(|settled| settled.number() < durable) {
            // Another state may have come meanwhile, in which it is cold already, or isn't next: then nothing happens.
            gone.extend(state.shard.page_out(settled.number()));
        }
    }
    metrics::cold_paged_out(gone.len());
    Ok(gone.len() as u64)
}

fn batch(group: &Group, ripe: u64) -> Vec<Arc<Settled>> {
    let state = group.replica.state.read();
    let warm = state.shard.warm().take(BATCH).take_while(|s| s.number() < ripe);
    let mut events = 0;
    let fits = warm.take_while(|settled| {
        let first = events == 0;
        events += settled.events().len();
        first || events <= BATCH_EVENTS
    });
    fits.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_settled_long_enough_ago_is_ripe() {
        let began = Instant::now();
        let after = Duration::from_secs(60);
        let mut ages = Ages::default();
        // second | settled by then | ripe
        for (at, count, ripe) in [
            (0, 0, 0),
            (1, 3, 0),
            (30, 5, 0),
            (60, 5, 0),
            (61, 5, 3),
            (89, 9, 3),
            (90, 9, 5),
            (300, 9, 9),
            (301, 9, 9),
        ] {
            let now = began + Duration::from_secs(at);
            assert_eq!(ages.look(count, now, after), ripe, "second {at}");
        }
        assert!(ages.seen.len() <= 1, "what is ripe isn't remembered");
    }
}
