//! This node's replicas of all groups: the way into the crate.
//!
//! ```text
//!   open: lock the folder --> recover the log --> start shard 0 --> (map) --> start the shards that the map gives us
//!   a newer map: seats are left and taken (`seats`); meta's leader moves replicas (`mover`)
//!   shutdown: hand leaderships over --> stop proposers --> stop groups --> close the log
//! ```
//!
//! A host answers for its own replicas only: whoever asks the wrong node is told so, with a hint, and asks again. One
//! `Host` is one node; several can live in one process, as tests do.
//!
//! Deliberately absent: routing to other nodes (`router`).

mod care;
mod face;
mod open;
mod refound;
mod seats;
mod steer;
mod vitals;

pub use face::{DIVERGED, Fresh, GroupStatus, OpenError, ReadError, Reading, Role};
pub use refound::{Founded, RefoundError, Source, Weighed};
pub use steer::{Ask, NodeVersion, SteerError};

use crate::{
    behind::Behind,
    clock::{NodeClock, proposer::ProposerHandle},
    fitness::{Fitness, Unfit},
    group::{Ground, Group},
    log_store::Found,
    options::Options,
    port::Log,
    pulse::Pulse,
    server::{Groups, MESSAGE_MAX, RaftService},
    state_machine::blocking,
    wal,
    world::World,
};
use auction::{AuctionId, AuctionView, Command, Event, FeedItem, Position, Reply, Verdict};
use futures_util::{future::join_all, stream::BoxStream};
use openraft::{ServerState, async_runtime::watch::WatchReceiver};
use parking_lot::{Mutex, RwLock};
use placement::{ClusterMap, NodeId, ShardId};
use proto::raft::v1::raft_server::RaftServer;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};

/// How long a read waits for a majority, or for the version that was asked for.
const READ_PATIENCE: Duration = Duration::from_secs(1);

/// This node's replicas. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

/// A shard's replica here, and its proposer (shard 0 has none: it has no clock).
pub(crate) struct Seat {
    pub(crate) group: Arc<Group>,
    pub(crate) proposer: Option<ProposerHandle>,
}

struct Inner {
    options: Options,
    ground: Ground,
    /// What recovery found of groups that aren't open yet.
    found: Mutex<HashMap<u32, Found>>,
    seats: RwLock<BTreeMap<ShardId, Arc<Seat>>>,
    /// Rises when a seat is taken or left.
    seats_version: AtomicU64,
    service: Groups,
    pulse: Arc<Pulse>,
    fitness: Arc<Fitness>,
    map: watch::Sender<Arc<ClusterMap>>,
    /// What moves wait for, while this node leads shard 0.
    waits: watch::Sender<BTreeMap<ShardId, String>>,
    tasks: Mutex<JoinSet<()>>,
    /// Those that hold on to shard 0's replica.
    meta_tasks: Mutex<JoinSet<()>>,
    /// Held while a shard is founded anew here: one at a time.
    refounding: tokio::sync::Mutex<()>,
    /// Locked while the host lives, so that no other process opens the folder.
    _lock: Option<File>,
}

impl Inner {
    fn seat(&self, shard: ShardId) -> Option<Arc<Seat>> {
        self.seats.read().get(&shard).cloned()
    }

    fn seats(&self) -> Vec<Arc<Seat>> {
        self.seats.read().values().cloned().collect()
    }
}

impl Host {
    /// Recovers what lies in `options.dir`, starts this node's groups, and dials peers when there is something to say.
    ///
    /// # Errors
    /// When the folder is in use, unreadable, or damaged.
    pub async fn open(options: Options) -> Result<Host, OpenError> {
        Host::open_in(options, World::real()).await
    }

    /// The same in any world.
    ///
    /// # Errors
    /// When the folder is in use, unreadable, or damaged.
    pub async fn open_in(options: Options, world: World) -> Result<Host, OpenError> {
        open::open(options, world).await
    }

    /// What other nodes' replicas talk to: mount it on the gRPC server of this node's `grpc` address.
    #[must_use]
    pub fn raft_service(&self) -> RaftServer<RaftService> {
        let service = RaftService {
            groups: self.inner.service.clone(),
            pulse: self.inner.pulse.clone(),
        };
        RaftServer::new(service)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// A shard's group, if a replica of it is here.
    pub(crate) fn group(&self, shard: ShardId) -> Option<Arc<Group>> {
        self.inner.seat(shard).map(|seat| seat.group.clone())
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.options.node
    }

    /// The newest cluster map that this node knows (epoch 0: none yet), and its changes.
    #[must_use]
    pub fn map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.inner.map.subscribe()
    }

    /// How much room the log's disk has, and its changes: below `Ample`, bids should be refused early.
    #[must_use]
    pub fn disk(&self) -> watch::Receiver<wal::Pressure> {
        self.inner.ground.wal.pressure()
    }

    /// For how long the log's disk has had the batch in hand; 0 when it rests. A leader on a disk that hangs had better
    /// hand over.
    #[must_use]
    pub fn disk_stalled(&self) -> Duration {
        self.inner.ground.wal.stalled()
    }

    /// Why this node had better not lead, and its changes; empty: it may.
    #[must_use]
    pub fn unfit(&self) -> watch::Receiver<BTreeSet<Unfit>> {
        self.inner.fitness.subscribe()
    }

    /// This node's clocks among its peers'.
    #[must_use]
    pub fn clock(&self) -> NodeClock {
        self.inner.pulse.fleet().status()
    }

    /// Has a map, and every group of this node knows a leader.
    #[must_use]
    pub fn ready(&self) -> bool {
        let map = self.inner.map.borrow().clone();
        let seats = self.inner.seats.read();
        let led = |shard| seats.get(&shard).is_some_and(|seat| seat.group.led().leader.is_some());
        map.epoch > 0
            && map
                .shards_on(self.node())
                .all(|(shard, _)| led(shard) || map.is_sealed(shard))
    }

    /// Gives a command to this node's replica of `shard`, which answers for itself only.
    pub async fn submit(&self, shard: ShardId, epoch: u64, command: Command) -> Reply {
        let map = self.inner.map.borrow().clone();
        if epoch != map.epoch {
            return Reply::WrongEpoch { epoch: map.epoch };
        }
        let seat = self.inner.seat(shard);
        if let Some(seat) = &seat
            && !forgets()
        {
            match seat.group.replica.cold_verdict(&command).await {
                // It is settled: whoever leads says the same.
                Ok(Some(verdict)) => return Reply::Verdict(verdict),
                Ok(None) => {}
                // What can't be read must not be logged: no replica that can't read it either could apply it.
                Err(_) => return Reply::NotJudged,
            }
        }
        match seat.as_ref().and_then(|seat| seat.proposer.as_ref()) {
            Some(proposer) => proposer.submit(command).await,
            None => Reply::NotLeader {
                hint: map.preferred_leader(shard).map(|node| node.0),
                term: 0,
            },
        }
    }

    /// What this node's replica knows of a command's verdict without asking anyone, whoever leads: see `Shard::settled`.
    #[must_use]
    pub fn settled(&self, shard: ShardId, command: &Command) -> Option<Verdict> {
        let seat = self.inner.seat(shard)?;
        let state = seat.group.replica.state.read();
        state.shard.settled(command)
    }

    /// A command for a shard goes from here to its leader on another node: a replica here that rests wakes and has that one
    /// speak, so that the loss of its machine is found out as soon as if the shard had been awake.
    pub fn wanted(&self, shard: ShardId) {
        if let Some(seat) = self.inner.seat(shard) {
            self.inner.pulse.want(&seat.group);
        }
    }

    /// One auction.
    ///
    /// # Errors
    /// See `ReadError`.
    pub async fn read(&self, shard: ShardId, auction: &AuctionId, fresh: Fresh) -> Result<AuctionView, ReadError> {
        let seat = self.inner.seat(shard).ok_or(ReadError::NotHere)?;
        let group = &seat.group;
        let view = || group.replica.view(auction);
        let found = |view: Option<(AuctionView, bool)>| view.map(|view| view.0).ok_or(ReadError::NotFound);
        match fresh {
            #[cfg(feature = "sim")]
            Fresh::Linear if crate::sim::planted(crate::sim::Plant::StaleRead) => found(view().await?),
            Fresh::Linear => {
                group.read_index(READ_PATIENCE).await.map_err(|hint| match hint {
                    Some(hint) => ReadError::NotLeader { hint: Some(hint) },
                    None => ReadError::Unavailable,
                })?;
                found(view().await?)
            }
            Fresh::AtLeast(0) => found(view().await?),
            Fresh::AtLeast(seq) => {
                let mut applied = group.replica.applied.subscribe();
                let reached = async {
                    loop {
                        applied.borrow_and_update();
                        match view().await? {
                            Some((view, _)) if view.seq >= seq => return Ok(view),
                            // It is over for good: waiting would read its record again with each entry, in vain.
                            Some((_, false)) => return Err(ReadError::Behind),
                            _ => {}
                        }
                        applied.changed().await.map_err(|_| ReadError::Unavailable)?;
                    }
                };
                tokio::time::timeout(READ_PATIENCE, reached)
                    .await
                    .unwrap_or(Err(ReadError::Behind))
            }
        }
    }

    /// The auctions of a shard that aren't over, as this replica has them, in order of id.
    ///
    /// # Errors
    /// When no replica is here.
    pub fn list(&self, shard: ShardId) -> Result<Vec<AuctionView>, ReadError> {
        let seat = self.inner.seat(shard).ok_or(ReadError::NotHere)?;
        let views = seat.group.replica.state.read().shard.going_on().collect();
        Ok(views)
    }

    /// The ids of a shard's auctions that are over, after `after`, in order, at most `limit`: there may be many, and most of them
    /// lie on disk.
    ///
    /// # Errors
    /// When no replica is here.
    pub fn over(&self, shard: ShardId, after: Option<&AuctionId>, limit: usize) -> Result<Vec<AuctionId>, ReadError> {
        let seat = self.inner.seat(shard).ok_or(ReadError::NotHere)?;
        Ok(seat.group.replica.over(after, limit))
    }

    /// An auction's events after version `after`, at most `limit`, as this replica has them.
    ///
    /// # Errors
    /// When no replica, or no such auction, is here, or it can't be read.
    pub async fn events(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, ReadError> {
        let seat = self.inner.seat(shard).ok_or(ReadError::NotHere)?;
        let events = seat.group.replica.events(auction, after, limit).await?;
        events.ok_or(ReadError::NotFound)
    }

    /// An auction's feed: complete after `from`, or opened by a snapshot.
    ///
    /// # Errors
    /// When no replica, or no such auction, is here, or it can't be read.
    pub async fn follow(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        from: Option<Position>,
    ) -> Result<BoxStream<'static, FeedItem>, ReadError> {
        let seat = self.inner.seat(shard).ok_or(ReadError::NotHere)?;
        let log: Arc<dyn Log> = seat.group.clone();
        seat.group.replica.feed.follow(log, auction, from).await
    }

    /// The clocks of the shards that this node leads; not of those that rest, since nobody waits for them.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        let seats = self.inner.seats();
        let awake = seats.iter().filter(|seat| !seat.group.rest.is_resting());
        let readings = awake.filter_map(|seat| {
            let reading = seat.proposer.as_ref()?.reading()?;
            Some(Reading {
                shard: seat.group.shard,
                office: reading.office,
                now: reading.now,
                top: reading.top,
                timers: reading.timers,
                drains: reading.drains,
            })
        });
        readings.collect()
    }

    /// Some if every replica of this node rests: it changes when one is woken.
    #[must_use]
    pub fn at_rest(&self) -> Option<watch::Receiver<u64>> {
        // Before the look, so that what wakes meanwhile isn't missed.
        let woken = self.inner.ground.woken.subscribe();
        let seats = self.inner.seats.read();
        seats.values().all(|seat| seat.group.rest.is_resting()).then_some(woken)
    }

    /// The index that this node's replica of a shard has applied, and a fingerprint of its state there. It reads the
    /// whole state: for comparisons, not for a page that is looked at.
    #[must_use]
    pub fn digest(&self, shard: ShardId) -> Option<(u64, [u8; 32])> {
        let seat = self.inner.seat(shard)?;
        let state = seat.group.replica.state.read();
        Some((state.applied, state.digest()))
    }

    /// Every replica of this node. Cheap: nothing is hashed.
    #[must_use]
    pub fn status(&self) -> Vec<GroupStatus> {
        self.inner.seats().iter().map(|seat| status(seat)).collect()
    }

    /// Whose lanes were behind when a shard's last offices were taken, as far as this node's replica applied their markers.
    #[must_use]
    pub fn behind(&self, shard: ShardId) -> Vec<Behind> {
        let seat = self.inner.seat(shard);
        seat.map_or_else(Vec::new, |seat| seat.group.replica.behind.lock().all())
    }

    /// Who leads each group of this node, by the word of its replica here, and in which term. Cheap: nothing is hashed.
    #[must_use]
    pub fn leaders(&self) -> Vec<(ShardId, u64, Option<NodeId>)> {
        let leader = |seat: &Arc<Seat>| {
            let known = seat.group.led();
            (seat.group.shard, known.term, known.leader)
        };
        self.inner.seats().iter().map(leader).collect()
    }

    /// Whether another node's signs of life come.
    #[must_use]
    pub fn hears(&self, node: NodeId) -> bool {
        self.inner.pulse.lives(node)
    }

    /// Rises whenever a group's leadership, as its replica here knows it, changes.
    #[must_use]
    pub fn leadership_changes(&self) -> watch::Receiver<u64> {
        self.inner.ground.led.subscribe()
    }

    /// Resolves when the disk failed, or a replica stopped by itself, and this node must stop; with the reason.
    pub async fn failed(&self) -> String {
        let mut groups = self.inner.ground.failed.subscribe();
        let mut wal = self.inner.ground.wal.failed();
        let why = |failed: Result<watch::Ref<'_, Option<String>>, _>| match failed {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "the host has been closed".to_owned(),
        };
        tokio::select! {
            failed = wal.wait_for(Option::is_some) => why(failed),
            failed = groups.wait_for(Option::is_some) => why(failed),
        }
    }

    /// Hands leaderships over, then stops all groups and the log.
    pub async fn shutdown(&self) {
        self.inner.pulse.leave();
        let seats = self.inner.seats();
        let pulse = &self.inner.pulse;
        let led = seats.iter().filter(|seat| seat.group.led().leading);
        join_all(led.map(|seat| seat.hand_over(None, |node| pulse.can_lead(node)))).await;
        self.halt().await;
    }

    /// Stops all groups and the log, and hands nothing over: others will notice.
    pub async fn halt(&self) {
        // Seats are not opened any more, and no snapshot begins.
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        tasks.shutdown().await;
        let mut tasks = std::mem::take(&mut *self.inner.meta_tasks.lock());
        tasks.shutdown().await;
        let seats = self.inner.seats();
        for seat in &seats {
            if let Some(proposer) = &seat.proposer {
                proposer.shutdown().await;
            }
        }
        // Peers' streams end here, so that the gRPC server can, and so that no group is asked anything after its end.
        self.inner.service.close();
        join_all(seats.iter().map(|seat| seat.group.shutdown())).await;
        let wal = self.inner.ground.wal.clone();
        // Joining a thread; it fails only if that thread panicked, which the panic hook has told.
        let _ = blocking(move || {
            wal.close();
            Ok(())
        })
        .await;
    }
}

impl Seat {
    /// Gives the leadership, if it is here, to a node that is `fit`, to the one `wished` for if possible.
    pub(crate) async fn hand_over(&self, wished: Option<NodeId>, fit: impl Fn(NodeId) -> bool) -> Result<(), String> {
        let done = self.group.give_leadership(self.proposer.as_ref(), wished, fit).await;
        tracing::debug!(shard = self.group.shard.0, ?done, "handed over");
        done
    }
}

/// Whether this door lets in what is settled already (simulations only): the log refuses it as well.
fn forgets() -> bool {
    #[cfg(feature = "sim")]
    return crate::sim::planted(crate::sim::Plant::DoorForgets);
    #[cfg(not(feature = "sim"))]
    false
}

fn status(seat: &Seat) -> GroupStatus {
    let metrics = seat.group.raft.metrics();
    let metrics = metrics.borrow_watched();
    let role = match (&metrics.running_state, metrics.state) {
        (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
        (_, ServerState::Leader) => Role::Leader,
        (_, ServerState::Candidate) => Role::Candidate,
        (_, ServerState::Follower) => Role::Follower,
        (_, ServerState::Learner) => Role::Learner,
    };
    let leader = metrics
        .current_leader
        .and_then(|id| metrics.membership_config.get_node(&id).map(|home| home.node()));
    let state = seat.group.replica.state.read();
    GroupStatus {
        shard: seat.group.shard,
        role,
        term: metrics.current_term,
        clamped: state.shard.clamped(),
        leader,
        applied: state.applied,
        last_log: metrics.last_log_index.unwrap_or(0),
        snapshot: metrics.snapshot.as_ref().map_or(0, |id| id.index),
        purged: metrics.purged.as_ref().map_or(0, |id| id.index),
        top: state.shard.top(),
        held_total_ms: seat.proposer.as_ref().map_or(0, ProposerHandle::held_total_ms),
        auctions: state.shard.count().0 as u64,
        live: state.shard.count().1 as u64,
        cold: state.shard.cold().count,
        resting: seat.group.rest.is_resting(),
        replicas: metrics.membership_config.nodes().map(|(_, home)| home.node()).collect(),
    }
}

#[cfg(test)]
mod tests;
