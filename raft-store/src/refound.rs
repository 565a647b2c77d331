//! A shard founded anew on this node's disk: as one fresh replica that is all of its group.
//!
//! ```text
//!   a backup's image, or what one replica still has --> State, its feeds in a new epoch, its history marked as cut
//!     --> shard-0007.plant-31 (durable)          until here nothing has happened
//!     --> log: born as 31, vote, purged to the snapshot   in one write: from here on this node is replica 31
//!     --> shard-0007.snap                        by renaming; done again whenever replica 31 opens
//! ```
//!
//! Nobody may open the shard meanwhile (`placement::Seal`), so the replica has never spoken before all of it is durable. A
//! crash between any two steps leaves what can be gone on with: `plant` again does what is missing.
//!
//! What is taken from a survivor is *all* of its log, committed or not: an acknowledged bid is on a majority's disks, and
//! this may be the only one of them that is left. An entry that was on no majority is judged now, as any leader's after an
//! election would be.
//!
//! Deliberately absent: whether it is right to do so (`host::refound` and the operator).

use crate::{
    cold::salvage::{Gap, salvage},
    group::Ground,
    log_store::{Found, LogStore},
    snapshot::{self, Image, SnapshotFile},
    state::{Lost, State},
    state_machine::blocking,
    types::{Home, LeaderId, LogEntry, LogId, LogPayload, Membership, Payload, SnapshotMeta, StoredMembership, Vote},
};
use auction::{Cold, Entry, Settled};
use openraft::vote::RaftLeaderId;
use placement::{NodeId, ReplicaId, ShardId};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

/// What a replica that isn't open has: its snapshot, with all settled auctions that can be read, and all of its log applied to it.
/// What can't be read is told by the state (`Lost`); nothing on the disk is changed.
pub(crate) async fn leftover(ground: &Ground, shard: ShardId, found: Found) -> io::Result<(State, Found, Lost)> {
    let (file, limits) = (SnapshotFile::new(&ground.snapshots, shard.0), ground.limits);
    let place = ground.cold.clone();
    blocking(move || {
        let mut state = match file.read()? {
            Some((_, stored)) => snapshot::decode(stored.body()?, limits)?,
            None => State::new(limits),
        };
        let (cold, mut lost) = (state.shard.cold(), Lost::default());
        if cold.count > 0 {
            // All of it comes along: in memory, until the new replica pages it out again.
            let mut parts = Vec::new();
            let each = |settled: Settled| {
                parts.push(settled.parts());
                Ok(())
            };
            let gaps = salvage(&place, shard.0, found.born().unwrap_or(0), &cold, each)?;
            let image = Image::of(&state).with(parts);
            state = image.into_state(limits)?;
            lose(&mut lost, &gaps);
            lose(&mut state.lost, &gaps);
        }
        for entry in found.entries() {
            replay(&mut state, entry)?;
        }
        Ok((state, found, lost))
    })
    .await
}

/// Which settled auctions a replica lacks, open or not; nothing is changed. What it paged out since its snapshot its log has.
pub(crate) async fn lacks(ground: &Ground, shard: ShardId, replica: u64) -> io::Result<Lost> {
    let (file, place) = (SnapshotFile::new(&ground.snapshots, shard.0), ground.cold.clone());
    blocking(move || {
        let cold = file.read()?.map_or_else(Cold::default, |(_, stored)| stored.cold);
        let mut lost = Lost::default();
        lose(&mut lost, &salvage(&place, shard.0, replica, &cold, |_| Ok(()))?);
        Ok(lost)
    })
    .await
}

fn lose(lost: &mut Lost, gaps: &[Gap]) {
    for Gap { auction, what } in gaps {
        match auction {
            Some(auction) => drop(lost.auctions.insert(auction.clone(), what.clone())),
            None => lost.unnamed += 1,
        }
    }
}

fn replay(state: &mut State, entry: &LogEntry) -> io::Result<()> {
    let index = entry.log_id.index;
    if index <= state.applied && state.applied > 0 {
        return Ok(());
    }
    // The first entry of a group is its members'; nothing comes before it.
    let next = if state.applied == 0 { index } else { state.applied + 1 };
    if index != next {
        let text = format!("entries {}..{index} are missing from the log", state.applied + 1);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    match &entry.payload {
        // Where it could be read, a settled auction has no effect on what names it; where it can't, it must not be created again.
        LogPayload::Normal(logged) => match logged.payload() {
            Payload::Entry { entry, .. } if names(entry, &state.lost) => {
                let mut entry = (**entry).clone();
                entry
                    .commands
                    .retain(|stamped| !state.lost.auctions.contains_key(&stamped.command.auction));
                state.apply(&Payload::entry(entry));
            }
            payload => drop(state.apply(payload)),
        },
        LogPayload::Blank | LogPayload::Membership(_) => {}
    }
    state.applied = index;
    Ok(())
}

fn names(entry: &Entry, lost: &Lost) -> bool {
    let mut commands = entry.commands.iter();
    commands.any(|stamped| lost.auctions.contains_key(&stamped.command.auction))
}

/// Puts a state on this node's disk as the only replica of its group. Gives what its log is then.
pub(crate) async fn plant(
    ground: &Ground,
    shard: ShardId,
    (node, replica): (NodeId, ReplicaId),
    state: State,
    before: Option<&Found>,
) -> io::Result<Found> {
    // Above every term that anybody here has heard of: offices of the shard's clock never go back.
    let term = state.shard.office().term.max(before.map_or(0, Found::term)) + 1;
    let leader_id = LeaderId::new(term, replica.0);
    let last = LogId {
        leader_id,
        index: state.applied.max(1),
    };
    let members = Membership::new(
        vec![BTreeSet::from([replica.0])],
        BTreeMap::from([(replica.0, Home(node.0))]),
    );
    let members = members.map_err(|error| io::Error::other(error.to_string()))?;
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), members),
    };
    let (planted, file) = files(ground, shard, replica.0);
    blocking(move || {
        let mut state = state;
        state.applied = last.index;
        let image = Image::of(&state);
        planted.write(&meta, &image.cold(), &image.encode()).map(drop)
    })
    .await?;
    let vote = Vote {
        leader_id,
        committed: true,
    };
    let found = LogStore::found_as(shard.0, &ground.wal, replica.0, vote, last).await?;
    let (planted, _) = files(ground, shard, replica.0);
    blocking(move || adopt(&planted, &file)).await?;
    Ok(found)
}

/// Gives what was planted for a replica the snapshot's name, if that wasn't done yet.
pub(crate) fn adopt_planted(ground: &Ground, shard: ShardId, replica: u64) -> io::Result<()> {
    let (planted, file) = files(ground, shard, replica);
    adopt(&planted, &file)
}

/// Whether a replica was planted here, as far as its log says.
pub(crate) fn is_planted(found: Option<&Found>, replica: ReplicaId) -> bool {
    found.is_some_and(|found| found.born() == Some(replica.0) && found.purged().is_some() && found.term() > 0)
}

fn files(ground: &Ground, shard: ShardId, replica: u64) -> (SnapshotFile, SnapshotFile) {
    (
        SnapshotFile::planted(&ground.snapshots, shard.0, replica),
        SnapshotFile::new(&ground.snapshots, shard.0),
    )
}

fn adopt(planted: &SnapshotFile, file: &SnapshotFile) -> io::Result<()> {
    match planted.read()? {
        Some((meta, stored)) => file.adopt(&stored, meta.last_log_id, || ()),
        None => Ok(()),
    }
}
