//! One Raft group on this node: its replica, and the way in.
//!
//! ```text
//!   Proposer --propose--> queue --> forwarder task --write().with_leader(term)--> openraft
//!                                                                                   |
//!   applied, or refused, or unknown  <--------------- responder --------------------'
//! ```
//!
//! Why the forwarder: `propose` must take its place in the log's order when it is *called*, and openraft's own call takes
//! it when it is *polled*. One task passes proposals on in the order of calls and waits for no result.
//!
//! `with_leader` names the term that the proposer believes in: openraft compares it with its own before it logs anything,
//! so an entry of an old office is refused, and never logged under a newer term.
//!
//! Only `ForwardToLeader` means that nothing was logged. A discarded entry may have been committed by another leader
//! meanwhile; after a stop nobody knows. Those are *unknown*.
//!
//! A leader that restarts does not take up its old term again (`enable_leader_restore` is off): stamps of an office must
//! not go on in another life of the process.
//!
//! A shard that rests has no lease in openraft: before a proposal is passed on, the forwarder asks the followers once.
//!
//! Deliberately absent: `client_write*` (unguarded), lease reads, openraft's own ticks (see `pulse`).

mod wake;

use crate::{
    cold::{ColdDir, ColdStore},
    host::ReadError,
    log_store::{Found, LogStore},
    membership::Handing,
    network::Network,
    options::RaftOptions,
    peers::Peers,
    port::{Leadership, Log, ProposeError},
    refound,
    rest::Rest,
    server::Handle,
    snapshot::{SnapshotDir, SnapshotFile},
    state::State,
    state_machine::{Replica, StateMachine, blocking},
    types::{Answer, Home, LogId, Payload, TypeConfig},
    versions::Agreed,
    wal::Wal,
};
use auction::{Applied, AuctionId, Cold, Limits, Settled};
use futures_util::future::BoxFuture;
use openraft::{
    Config, ServerState, SnapshotPolicy,
    async_runtime::watch::WatchReceiver,
    errors::ClientWriteError,
    metrics::RaftServerMetrics,
    raft::{ClientWriteResult, ReadPolicy},
    type_config::alias::OneshotReceiverOf,
};
use parking_lot::{Mutex, RwLock};
use placement::{NodeId, ShardId};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};
use wake::{Wake, forward};

/// Proposals that wait for the forwarder. Above the proposer's window: it never fills.
const PROPOSALS_MAX: usize = 1024;
/// Longest wait for a majority; less than whoever asks from elsewhere waits for the answer.
const DECREE_PATIENCE: Duration = Duration::from_secs(5);

type Outcome = OneshotReceiverOf<TypeConfig, ClientWriteResult<TypeConfig>>;

struct Proposal {
    term: u64,
    payload: Payload,
    /// Where the outcome will come from, once openraft has the proposal; dropped if it never took it.
    passed: oneshot::Sender<Outcome>,
}

/// What every group of a node shares.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) wal: Wal,
    pub(crate) peers: Arc<Peers>,
    pub(crate) snapshots: SnapshotDir,
    /// Where settled auctions lie.
    pub(crate) cold: ColdDir,
    /// Free bytes that a snapshot from another node must leave.
    pub(crate) low_water: u64,
    pub(crate) raft: RaftOptions,
    pub(crate) limits: Limits,
    /// Told why this node must stop.
    pub(crate) failed: watch::Sender<Option<String>>,
    /// The cluster's version.
    pub(crate) agreed: Arc<Agreed>,
    /// When the host began: the zero of all replicas' clocks.
    pub(crate) began: tokio::time::Instant,
    /// Rises with each change of any group's leadership.
    pub(crate) led: watch::Sender<u64>,
    /// Rises with each replica that is woken.
    pub(crate) woken: watch::Sender<u64>,
    /// Rises with each replica that damage to its settled auctions has ended.
    pub(crate) hurt: watch::Sender<u64>,
}

/// A group's replica on this node.
pub(crate) struct Group {
    pub(crate) shard: ShardId,
    pub(crate) id: u64,
    pub(crate) raft: Handle,
    pub(crate) log: LogStore,
    pub(crate) replica: Arc<Replica>,
    pub(crate) rest: Arc<Rest>,
    /// Its snapshot.
    file: SnapshotFile,
    /// Where snapshots come in, and what they must leave free.
    pub(crate) snapshots: SnapshotDir,
    pub(crate) low_water: u64,
    leadership: watch::Sender<Leadership>,
    proposals: mpsc::Sender<Proposal>,
    wake: Wake,
    /// The last hand-over that was begun here.
    pub(crate) handing: Mutex<Option<Handing>>,
    /// Set when it is stopped on purpose.
    stopping: OnceLock<()>,
    failed: watch::Sender<Option<String>>,
}

/// Why a group isn't open.
pub(crate) enum NotOpened {
    /// What this replica has is damaged, and others may have it: it stays shut. With what its log was found to be.
    Hurt(String, Option<Found>),
    /// This node can't go on.
    Failed(String),
}

impl From<String> for NotOpened {
    fn from(why: String) -> NotOpened {
        NotOpened::Failed(why)
    }
}

impl Group {
    /// Recovers the replica and starts it. It answers no one before the host has put it among `Groups`.
    pub(crate) async fn open(
        ground: &Ground,
        shard: ShardId,
        id: u64,
        found: Option<Found>,
    ) -> Result<Arc<Group>, NotOpened> {
        let file = SnapshotFile::new(&ground.snapshots, shard.0);
        prepare(ground, shard, id, found.as_ref()).await?;
        let cold = match settled(ground, shard, id, file.clone()).await {
            Ok(cold) => cold,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let why = error.to_string();
                return Err(NotOpened::Hurt(why.clone(), found.map(|found| found.hurt_by(&why))));
            }
            Err(error) => return Err(error.to_string().into()),
        };
        let log = LogStore::open(shard.0, id, ground.wal.clone(), found, &ground.raft).await?;
        let (limits, machine_log, its_file) = (ground.limits, log.clone(), file.clone());
        let machine = blocking(move || StateMachine::open(machine_log, its_file, limits, cold)).await;
        let machine = machine.map_err(|error| error.to_string())?;
        let replica = machine.replica();
        let config = Arc::new(config(&ground.raft)?);
        let rest = Arc::new(Rest::new(ground.began, ground.woken.clone()));
        let network = Network {
            peers: ground.peers.clone(),
            group: shard.0,
            rest: rest.clone(),
            cold: replica.cold.clone(),
        };
        let started = Handle::new(id, config, network, log.clone(), machine).await;
        let raft = started.map_err(|error| not_started(&replica, &log, id, &error))?;
        let (proposals, waiting) = mpsc::channel(PROPOSALS_MAX);
        let leadership = watch::channel(Leadership::default()).0;
        let stopping = OnceLock::new();
        let wake = Wake {
            raft: raft.clone(),
            rest: rest.clone(),
            lease: ground.raft.election_max,
            agreed: ground.agreed.clone(),
        };
        let group = Group {
            shard,
            id,
            raft,
            log,
            replica,
            rest,
            file,
            snapshots: ground.snapshots.clone(),
            low_water: ground.low_water,
            leadership,
            proposals,
            wake: wake.clone(),
            handing: Mutex::default(),
            stopping,
            failed: ground.failed.clone(),
        };
        let group = Arc::new(group);
        tokio::spawn(forward(wake, id, waiting));
        tokio::spawn(follow_leadership(
            group.clone(),
            ground.led.clone(),
            ground.hurt.clone(),
        ));
        Ok(group)
    }

    /// Tells the host why it must stop; the first reason stays.
    pub(crate) fn fail(&self, why: &str) {
        self.failed.send_if_modified(|present| {
            let first = present.is_none();
            present.get_or_insert(format!("shard {}: {why}", self.shard.0));
            first
        });
    }

    /// Another replica has this digest at this index: if it isn't ours, this replica ends.
    pub(crate) fn compare(&self, index: u64, digest: &[u8]) -> bool {
        // A digest of another length is another build's.
        let Ok(digest) = digest.try_into() else { return true };
        match self.replica.marks.lock().tell(index, digest) {
            Ok(()) => true,
            Err(diverged) => {
                tracing::error!(shard = self.shard.0, %diverged, "this replica stops");
                self.fail(&diverged.to_string());
                false
            }
        }
    }

    /// Where a replica of the group lives, as its members know.
    pub(crate) fn home_of(&self, replica: u64) -> Option<NodeId> {
        let metrics = self.raft.server_metrics();
        let members = metrics.borrow_watched().membership_config.clone();
        members.get_node(&replica).map(|home| home.node())
    }

    /// Who leads now, as this replica knows it.
    pub(crate) fn led(&self) -> Leadership {
        *self.leadership.borrow()
    }

    /// Gives the group its first members, unless it has some. Every founder may call it: all name the same.
    pub(crate) async fn initialize(&self, members: BTreeMap<u64, Home>) -> Result<(), String> {
        if self.raft.is_initialized().await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        self.raft.initialize(members).await.map_err(|error| error.to_string())
    }

    /// Makes sure that a leader here may write, for what doesn't go through `write`.
    pub(crate) async fn up(&self) {
        self.wake.up().await;
    }

    /// Proposes one payload; see `port::Log::propose`.
    pub(crate) fn write(&self, term: u64, payload: Payload) -> BoxFuture<'static, Result<Answer, ProposeError>> {
        let (passed, outcome) = oneshot::channel();
        if self.proposals.try_send(Proposal { term, payload, passed }).is_err() {
            let refused = ProposeError::NotLeader {
                hint: None,
                term: self.leadership.borrow().term,
            };
            return Box::pin(std::future::ready(Err(refused)));
        }
        let leadership = self.leadership.subscribe();
        Box::pin(async move {
            let outcome = outcome.await.map_err(|_| ProposeError::Unknown)?;
            match outcome.await {
                Ok(Ok(response)) => Ok(response.data),
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(ProposeError::NotLeader {
                    hint: forward.leader_node.map(Home::node),
                    term: leadership.borrow().term,
                }),
                Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
            }
        })
    }

    /// Proposes what may be asked for again, and waits so long: a leader without a majority would never say.
    pub(crate) async fn decree(&self, term: u64, payload: Payload) -> Result<Answer, ProposeError> {
        let written = tokio::time::timeout(DECREE_PATIENCE, self.write(term, payload));
        written.await.unwrap_or(Err(ProposeError::Unknown))
    }

    /// Returns when this replica is known to lead, and has applied all that was committed before the call.
    pub(crate) async fn read_index(&self, patience: Duration) -> Result<(), Option<NodeId>> {
        let confirmed = async {
            let read = self
                .raft
                .get_read_linearizer(ReadPolicy::ReadIndex)
                .await
                .map_err(|_| ())?;
            read.try_await_ready(&self.raft, Some(patience))
                .await
                .map_err(|_| ())?
                .map_err(|_| ())
        };
        match tokio::time::timeout(patience, confirmed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(())) | Err(_) => {
                let known = *self.leadership.borrow();
                Err(known.leader.filter(|_| !known.leading))
            }
        }
    }

    /// Stops the replica. Its log stays open for others.
    pub(crate) async fn shutdown(&self) {
        let _ = self.stopping.set(());
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(shard = self.shard.0, %error, "the group ended badly");
        }
        let file = self.file.clone();
        // openraft doesn't wait for an image that is being written, and its name may be another replica's next.
        let _ = blocking(move || {
            file.close();
            Ok(())
        })
        .await;
    }
}

/// Why openraft didn't start. It applies at once what the log says is committed: damage that an entry meets then shuts this
/// replica, as it does later, and not the node.
fn not_started(replica: &Replica, log: &LogStore, id: u64, error: &impl std::fmt::Display) -> NotOpened {
    match replica.hurt.get() {
        Some(why) => NotOpened::Hurt(why.clone(), Some(log.leave(id).hurt_by(why))),
        None => NotOpened::Failed(error.to_string()),
    }
}

impl Log for Group {
    fn propose(&self, term: u64, payload: Payload) -> BoxFuture<'static, Result<Arc<Applied>, ProposeError>> {
        let written = self.write(term, payload);
        Box::pin(async move {
            match written.await? {
                Answer::Entry(applied) => Ok(applied),
                // Not what was proposed: nothing can be said of it.
                Answer::Nothing | Answer::Meta { .. } => Err(ProposeError::Unknown),
            }
        })
    }

    fn state(&self) -> &RwLock<State> {
        &self.replica.state
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn heard_top(&self) -> Instant {
        *self.replica.heard_top.lock()
    }

    fn cold(&self, auction: &AuctionId, below: u64) -> Option<u64> {
        self.replica.cold.find(auction, below)
    }

    fn settled(&self, number: u64) -> BoxFuture<'static, Result<Arc<Settled>, ReadError>> {
        let replica = self.replica.clone();
        Box::pin(async move { replica.settled(number).await })
    }
}

/// The replica's settled auctions on disk, as its snapshot names them.
async fn settled(ground: &Ground, shard: ShardId, id: u64, file: SnapshotFile) -> io::Result<ColdStore> {
    let place = ground.cold.clone();
    blocking(move || {
        let cold = file.read()?.map_or_else(Cold::default, |(_, stored)| stored.cold);
        ColdStore::open(place.disk, &place.dir, shard.0, id, &cold)
    })
    .await
}

/// Makes the snapshot's file this replica's own, or none, and sees that it goes as far as the log has been thrown away.
async fn prepare(ground: &Ground, shard: ShardId, id: u64, found: Option<&Found>) -> Result<(), String> {
    let place = ground.clone();
    let file = SnapshotFile::new(&ground.snapshots, shard.0);
    // Whatever lies there was another replica's.
    let foreign = found.and_then(Found::born) != Some(id);
    let snapshot = blocking(move || {
        if foreign {
            file.remove()?;
            return Ok(None);
        }
        refound::adopt_planted(&place, shard, id)?;
        Ok(file.read()?.and_then(|(meta, _)| meta.last_log_id))
    });
    let snapshot = snapshot.await.map_err(|error| error.to_string())?;
    if !foreign && found.and_then(Found::purged) > snapshot {
        return Err(format!(
            "[log_without_snapshot] shard {}: entries are gone from replica {id}'s log that its snapshot doesn't hold",
            shard.0
        ));
    }
    Ok(())
}

fn config(options: &RaftOptions) -> Result<Config, String> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "rushroom".into(),
        // `pulse` looks at all groups at once, and triggers heartbeats and elections.
        enable_tick: false,
        // Without ticks only the deadline of one heartbeat, which must be of use while the lease lasts. (A deadline as
        // short as the pace made leaders lose office on a busy machine: each answer came, and each too late.)
        heartbeat_interval: ms(options.election_max) * 2 / 3,
        election_timeout_min: ms(options.election_max) - 1,
        // The lease.
        election_timeout_max: ms(options.election_max),
        install_snapshot_timeout: ms(options.snapshot_rpc),
        enable_pre_vote: Some(options.pre_vote),
        enable_leader_restore: Some(false),
        max_payload_entries: options.append_entries_max,
        // When to make snapshots and what to purge is decided in bytes, by `janitor`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX / 2,
        // What doesn't fit waits in front of the group, where it has a bound of its own.
        api_channel_size: Some(options.group_queue),
        notification_channel_size: Some(options.group_queue),
        state_machine_channel_size: Some(256),
        // For statistics that nobody asks for: the default would set 144 KiB a replica aside.
        log_stage_capacity: Some(1),
        api_batch_capacity: 256,
        ..Config::default()
    };
    config.validate().map_err(|error| error.to_string())
}

/// Tells the proposer and the host who leads; and the host, when the group stopped by itself.
async fn follow_leadership(group: Arc<Group>, led: watch::Sender<u64>, hurt: watch::Sender<u64>) {
    let mut server = group.raft.server_metrics();
    let mut data = group.raft.data_metrics();
    loop {
        let applied = data.borrow_watched().last_applied;
        let (known, stands) = leadership(&server.borrow_watched(), applied, group.id);
        let changed = group.leadership.send_if_modified(|present| {
            let changed = *present != known;
            *present = known;
            changed
        });
        if changed {
            led.send_modify(|count| *count += 1);
        }
        // Only a leader that isn't leading yet has to look at what is applied: elsewhere that changes all the time.
        let waits = stands && !known.leading;
        let changed = tokio::select! {
            changed = server.changed() => changed,
            changed = data.changed(), if waits => changed,
        };
        if changed.is_err() {
            break;
        }
    }
    group.leadership.send_modify(|known| {
        known.leading = false;
        known.leader = None;
    });
    if group.replica.hurt.get().is_some() {
        // The host closes it; other replicas have what this one can't read.
        hurt.send_modify(|count| *count += 1);
    } else if group.stopping.get().is_none() {
        let why = match &group.raft.metrics().borrow_watched().running_state {
            Ok(()) => "stopped".to_owned(),
            Err(fatal) => fatal.to_string(),
        };
        tracing::error!(shard = group.shard.0, %why, "a replica stopped by itself");
        group.fail(&why);
    }
}

/// Who leads, and whether it is this replica, be it that it can't act yet.
///
/// A leader's first own entry is a blank one. Until that is applied here, a majority has not answered, and openraft would
/// refuse proposals; and entries of earlier leaders may still be missing from the state.
fn leadership(metrics: &RaftServerMetrics<TypeConfig>, applied: Option<LogId>, me: u64) -> (Leadership, bool) {
    let vote = metrics.vote;
    let node = |replica| metrics.membership_config.get_node(&replica).map(|home| home.node());
    let stands = metrics.state == ServerState::Leader && vote.committed && vote.leader_id.node_id == me;
    let leadership = Leadership {
        term: vote.leader_id.term,
        leading: stands && applied.is_some_and(|id| id.leader_id == vote.leader_id),
        leader: metrics.current_leader.and_then(node),
    };
    (leadership, stands)
}
