//! A node that had better not lead gives its leaderships away, and its shards' doors narrow.
//!
//! ```text
//!   every 50 ms: disk --> Checkup --> Fitness --> doors of all seats
//!                                        '--unfit--> each shard led here, with a voter on a fit node: handed over
//! ```
//!
//! While all shards of a fit node rest nothing is written and no door is knocked at: it looks once a second, and at once when
//! one wakes.
//!
//! A hand-over pauses intake for up to 50 ms, so it is tried only where someone could take over, a few at a time, and one
//! that failed again only after a while. A disk that hangs holds up every commit here: then all go at once.
//!
//! They come home by themselves (`pulse::balance`) when this node has been fit for long enough.
//!
//! Deliberately absent: the judgement (`fitness`).

use super::{Inner, Seat};
use crate::{
    fitness::{Checkup, Intake, Unfit},
    metrics,
};
use futures_util::future::join_all;
use placement::ShardId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::Instant;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);
/// How often while everything rests.
const CALM_LOOK: Duration = Duration::from_secs(1);
/// Before a hand-over that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Hand-overs at once, while nothing hangs.
const GENTLE: usize = 4;
/// Hand-overs at once from a disk that hangs.
const HASTY: usize = 64;

/// Looks after the node's fitness until it is aborted or the host is gone.
pub(super) async fn run(host: Weak<Inner>) {
    let mut checkup = None;
    let mut tried: BTreeMap<ShardId, Instant> = BTreeMap::new();
    let Some(mut woken) = host.upgrade().map(|inner| inner.ground.woken.subscribe()) else {
        return;
    };
    let mut calm = false;
    loop {
        if calm {
            let _ = tokio::time::timeout(CALM_LOOK, woken.changed()).await;
        } else {
            tokio::time::sleep(LOOK).await;
        }
        // Noted before the look: who is woken meanwhile is looked at again.
        woken.mark_unchanged();
        let Some(inner) = host.upgrade() else { return };
        let checkup = checkup.get_or_insert_with(|| Checkup::new(inner.options.stall));
        let found = examine(&inner, checkup);
        for reason in Unfit::DISK {
            inner.fitness.set(reason, found.contains(&reason));
        }
        let reasons = inner.fitness.reasons();
        let seats = inner.seats();
        let intake = Intake::of(&reasons);
        for proposer in seats.iter().filter_map(|seat| seat.proposer.as_ref()) {
            proposer.narrow(intake);
        }
        calm = reasons.is_empty() && seats.iter().all(|seat| seat.group.rest.is_resting());
        if reasons.is_empty() {
            tried.clear();
        } else {
            let many = if reasons.contains(&Unfit::DiskStalled) {
                HASTY
            } else {
                GENTLE
            };
            give_away(&inner, &seats, &mut tried, many).await;
        }
    }
}

fn examine(inner: &Inner, checkup: &mut Checkup) -> BTreeSet<Unfit> {
    let wal = &inner.ground.wal;
    let pressure = *wal.pressure().borrow();
    checkup.look(Instant::now(), pressure, wal.stalled(), wal.is_ailing())
}

async fn give_away(inner: &Arc<Inner>, seats: &[Arc<Seat>], tried: &mut BTreeMap<ShardId, Instant>, many: usize) {
    let pulse = &inner.pulse;
    let fit = |node| pulse.can_lead(node);
    let led = seats.iter().filter(|seat| {
        let group = &seat.group;
        let lately = tried.get(&group.shard).is_some_and(|at| at.elapsed() < AGAIN);
        !lately && group.led().leading && group.has_voter(fit)
    });
    let led: Vec<Arc<Seat>> = led.take(many).cloned().collect();
    for seat in &led {
        tried.insert(seat.group.shard, Instant::now());
    }
    let given = led.iter().map(|seat| async move {
        let done = seat.hand_over(None, fit).await;
        metrics::given_away(done.is_ok());
        if let Err(why) = done {
            tracing::debug!(shard = seat.group.shard.0, why, "a leadership stays here");
        }
    });
    join_all(given).await;
}
