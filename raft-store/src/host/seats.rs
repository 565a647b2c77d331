//! Taking and leaving seats, as the map says, and what this node answers when the mover asks.
//!
//! ```text
//!   a new map --> seats that it doesn't give us any more: stopped, followers sent elsewhere, replica thrown away on disk
//!             --> seats that it gives us: opened; a group's first replicas give themselves members, others wait to be let in
//! ```
//!
//! A replica is thrown away by a record in the log that no replica is born there (id 0), so that it is gone after a crash,
//! too. Its id is never used again: whatever comes to this node later comes under another.

use super::{Inner, Seat, open::seat};
use crate::{
    cold,
    group::NotOpened,
    log_store::{Found, LogStore},
    moves::{Here, Looked, NotStored},
    port::Log,
    snapshot::SnapshotFile,
    state_machine::blocking,
    types::{Answer, LogId, MetaCommand, Payload},
    versions,
};
use futures_util::future::BoxFuture;
use placement::{ClusterMap, NodeId, ReplicaId, ShardId, Work};
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak, atomic::Ordering},
};

/// Makes this node's seats those that the map gives it.
pub(super) async fn take_seats(inner: &Arc<Inner>, map: &ClusterMap) -> Result<(), String> {
    let me = inner.options.node;
    let open: Vec<Arc<Seat>> = inner.seats();
    for seat in open {
        let shard = seat.group.shard;
        if map.is_sealed(shard) {
            tracing::warn!(shard = shard.0, "[shard_sealed] closed until it is founded anew");
            shut_seat(inner, &seat).await;
        } else if shard != ShardId::META && map.seat_on(shard, me) != Some(ReplicaId(seat.group.id)) {
            leave_seat(inner, &seat).await?;
        }
    }
    for (shard, replica) in map.seats_on(me) {
        if shard == ShardId::META || inner.seat(shard).is_some() || map.is_sealed(shard) {
            continue;
        }
        if inner.born(shard) > Some(replica) {
            // A map of before, read again after a restart: a newer one is on its way.
            continue;
        }
        let hurt = inner.hurt(shard, replica);
        if let Some(why) = hurt {
            // The others of this node lost nothing; this one comes back when the map gives it a fresh id.
            tracing::error!(shard = shard.0, replica = replica.0, %why, "a replica is hurt and stays shut");
            continue;
        }
        match seat(inner, shard, replica.0, inner.first_members(map, shard)).await {
            Ok(_) => {}
            Err(NotOpened::Failed(why)) => return Err(why),
            Err(NotOpened::Hurt(why, found)) => {
                tracing::error!(shard = shard.0, replica = replica.0, %why, "a replica is hurt by damage to its settled auctions and stays shut");
                inner.found.lock().extend(found.map(|found| (shard.0, found)));
            }
        }
    }
    for (shard, replica) in inner.gone(map) {
        throw_away(inner, shard).await?;
        inner.found.lock().remove(&shard.0);
        tracing::info!(
            shard = shard.0,
            replica = replica.0,
            "a replica went while it was closed"
        );
    }
    Ok(())
}

async fn stop_seat(inner: &Arc<Inner>, seat: &Seat) {
    let group = &seat.group;
    inner.seats.write().remove(&group.shard);
    inner.seats_version.fetch_add(1, Ordering::Release);
    inner.service.remove(group.shard.0);
    if let Some(proposer) = &seat.proposer {
        proposer.shutdown().await;
    }
    group.shutdown().await;
    group.replica.feed.close();
}

/// Closes a replica that may be opened again: what it has stays on the disk.
pub(super) async fn shut_seat(inner: &Arc<Inner>, seat: &Seat) {
    stop_seat(inner, seat).await;
    let group = &seat.group;
    inner.found.lock().insert(group.shard.0, group.log.leave(group.id));
}

/// Closes the replicas that have met damage to their settled auctions while they applied their logs. They stay shut, as those
/// do that are found damaged at a start, until the map gives this node fresh ones.
pub(super) async fn shut_hurt(inner: &Arc<Inner>) {
    for seat in inner.seats() {
        let group = &seat.group;
        let Some(why) = group.replica.hurt.get() else { continue };
        tracing::error!(shard = group.shard.0, replica = group.id, %why, "a replica is hurt by damage to its settled auctions and is shut");
        stop_seat(inner, &seat).await;
        let left = group.log.leave(group.id).hurt_by(why);
        inner.found.lock().insert(group.shard.0, left);
    }
}

async fn throw_away(inner: &Arc<Inner>, shard: ShardId) -> Result<(), String> {
    LogStore::disown(shard.0, &inner.ground.wal)
        .await
        .map_err(|error| format!("throwing a replica away: {error}"))?;
    let file = SnapshotFile::new(&inner.ground.snapshots, shard.0);
    let place = inner.ground.cold.clone();
    blocking(move || {
        file.remove()?;
        cold::clear(&place.disk, &place.dir, shard.0)
    })
    .await
    .map_err(|error| format!("throwing a snapshot away: {error}"))
}

async fn leave_seat(inner: &Arc<Inner>, seat: &Seat) -> Result<(), String> {
    let group = &seat.group;
    stop_seat(inner, seat).await;
    throw_away(inner, group.shard).await?;
    tracing::info!(shard = group.shard.0, replica = group.id, "a replica has moved away");
    Ok(())
}

/// This node, as the mover asks it.
pub(super) struct Own(pub(super) Weak<Inner>);

impl Here for Own {
    fn look(&self) -> Looked {
        self.0.upgrade().map_or_else(Looked::default, |inner| inner.looked())
    }

    fn work(&self, shard: ShardId, work: Work, seen: Option<LogId>) -> BoxFuture<'static, Result<(), String>> {
        let inner = self.0.clone();
        Box::pin(async move {
            let inner = inner.upgrade().ok_or("this node is stopping")?;
            let seat = inner.seat(shard).ok_or("no replica of that shard here")?;
            match work {
                Work::HandOver(to) => seat.hand_over(to, |node| inner.pulse.can_lead(node)).await,
                work => seat.group.change(work, seen).await,
            }
        })
    }

    fn store(&self, expected: u64, map: ClusterMap) -> BoxFuture<'static, Result<(), NotStored>> {
        let inner = self.0.clone();
        Box::pin(async move {
            let seat = inner.upgrade().and_then(|inner| inner.seat(ShardId::META));
            let group = seat.map(|seat| seat.group.clone()).ok_or(NotStored::NotLeader(None))?;
            let known = *group.leadership().borrow();
            if !known.leading {
                return Err(NotStored::NotLeader(known.leader));
            }
            let map = Box::new(map);
            let command = Payload::Meta(MetaCommand::Steer { expected, map });
            match group.decree(known.term, command).await {
                Ok(Answer::Meta { stored: true, .. }) => Ok(()),
                Ok(_) => Err(NotStored::Stale),
                Err(crate::ProposeError::NotLeader { hint, .. }) => Err(NotStored::NotLeader(hint)),
                Err(crate::ProposeError::Unknown) => Err(NotStored::Unknown(
                    "no majority of shard 0 has answered: it may be stored, or may not".into(),
                )),
            }
        })
    }
}

impl Inner {
    /// Why a replica must not be opened with what lies in the log.
    fn hurt(&self, shard: ShardId, replica: ReplicaId) -> Option<String> {
        let found = self.found.lock();
        found.get(&shard.0)?.hurt(replica.0).map(str::to_owned)
    }

    /// The replica whose log lies here, closed.
    pub(super) fn born(&self, shard: ShardId) -> Option<ReplicaId> {
        self.found.lock().get(&shard.0).and_then(Found::born).map(ReplicaId)
    }

    /// Replicas that lie here closed, and that the map doesn't give this node any more: it has given their ids, so it is no
    /// map of before.
    fn gone(&self, map: &ClusterMap) -> Vec<(ShardId, ReplicaId)> {
        let found = self.found.lock();
        let born = found
            .iter()
            .filter_map(|(shard, found)| Some((ShardId(*shard), ReplicaId(found.born()?))));
        let me = self.options.node;
        let gone = |(shard, replica): &(ShardId, ReplicaId)| {
            *shard != ShardId::META
                && !map.is_sealed(*shard)
                && map.seat_on(*shard, me).is_none()
                && replica.0 <= map.replica_ids
        };
        born.filter(gone).collect()
    }

    fn looked(&self) -> Looked {
        let me = self.options.node;
        let seats = self.seats();
        let led = seats.iter().filter_map(|seat| {
            let led = seat.group.as_led(me, closes_in(seat))?;
            Some((seat.group.shard, led))
        });
        let map = self.map.borrow().clone();
        let found = self.found.lock();
        let closed = found.iter().filter_map(|(shard, found)| {
            let replica = ReplicaId(found.born()?);
            Some((ShardId(*shard), (replica, found.tail())))
        });
        let closed = closed.collect();
        drop(found);
        Looked {
            closed,
            // A node without a map has taken no seats by any version.
            version: if map.epoch == 0 { u64::MAX } else { map.steering.version },
            led: led.collect(),
            newest: versions::NEWEST,
            build: versions::BUILD.into(),
            seats: seats
                .iter()
                .map(|seat| (seat.group.shard, ReplicaId(seat.group.id)))
                .collect(),
            tails: seats
                .iter()
                .map(|seat| (seat.group.shard, seat.group.log.tail()))
                .collect(),
        }
    }

    /// Whom a group gives itself as members when it is born: none unless this is the map that it is born with.
    fn first_members(&self, map: &ClusterMap, shard: ShardId) -> BTreeMap<u64, crate::types::Home> {
        let first = crate::meta::first_map(&self.options.founders, map.shards);
        let mut born: Vec<(NodeId, ReplicaId)> = first.replicas_of(shard).to_vec();
        let mut present: Vec<(NodeId, ReplicaId)> = map.replicas_of(shard).to_vec();
        born.sort_unstable();
        present.sort_unstable();
        let same = born == present && !map.steering.moves.contains_key(&shard);
        let members = present
            .iter()
            .map(|(node, replica)| (replica.0, crate::types::Home(node.0)));
        if same { members.collect() } else { BTreeMap::new() }
    }
}

/// When the first timer of a led shard is due, ms from its clock's now.
fn closes_in(seat: &Seat) -> Option<u64> {
    let reading = seat.proposer.as_ref()?.reading()?;
    let due = seat.group.replica.state.read().shard.next_deadline()?;
    Some(due.0.saturating_sub(reading.now.0))
}
