//! Opening a host: the folder, the log, shard 0, and the shards that the map gives this node.
//!
//! ```text
//!   DIR/lock             held while the host lives
//!   DIR/node             this node's id: another node must not open it
//!   DIR/log-begun        there was a log here: a start that finds none has lost it
//!   DIR/wal/             see `wal`
//!   DIR/snapshots/       see `snapshot`
//!   DIR/cold/            see `cold`
//! ```

use super::{
    Host, Inner, OpenError, Seat, care,
    seats::{Own, shut_hurt, take_seats},
};
use crate::{
    clock::{
        compare,
        fleet::Fleet,
        office,
        proposer::{Proposer, Wall},
    },
    cold::{self, ColdDir, pager},
    fitness::Fitness,
    group::{Ground, Group, NotOpened},
    janitor,
    log_store::Found,
    meta, mover,
    moves::Crew,
    options::Options,
    peers::Peers,
    port::Log,
    pulse::{self, Pulse},
    server::Groups,
    snapshot::SnapshotDir,
    state_machine::blocking,
    types::Home,
    versions::{self, Agreed},
    wal::{self, Visit, Wal, WalError, disk::AnyDisk},
    world::World,
};
use parking_lot::{Mutex, RwLock};
use placement::{ClusterMap, NodeId, ShardId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{File, TryLockError},
    io,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
};

/// A replica that isn't preferred waits so long, times its rank, before it gives its group members itself.
const INITIALIZE_AFTER: Duration = Duration::from_secs(2);

pub(super) async fn open(options: Options, world: World) -> Result<Host, OpenError> {
    check(&options)?;
    let (lock, wal, found) = match &world.disk {
        AnyDisk::Os => {
            let options = options.clone();
            let opened = spawn_blocking(move || open_disk(&options)).await;
            let (lock, wal, found) = opened.map_err(|error| OpenError::Raft(error.to_string()))??;
            (Some(lock), wal, found)
        }
        #[cfg(feature = "sim")]
        AnyDisk::Sim(disk) => {
            let open = |visit: &mut Visit<'_>| Wal::open_as_task(disk.clone(), &options.dir, options.wal, visit);
            let (wal, found) = recover(open)?;
            (None, wal, found)
        }
    };
    let (snapshots, cold) = places(&options, &world);
    let peers = Arc::new(Peers::new(options.raft.clone(), options.dial.clone()));
    peers.set_addresses(options.founders.iter().map(|node| (node.id, node.grpc.clone())));
    let failed = watch::channel(None).0;
    let ground = Ground {
        wal,
        peers,
        snapshots,
        cold,
        low_water: options.wal.low_water_bytes,
        raft: options.raft.clone(),
        limits: options.limits,
        agreed: Arc::new(Agreed::new(failed.clone())),
        failed,
        began: tokio::time::Instant::now(),
        led: watch::channel(0).0,
        woken: watch::channel(0).0,
        hurt: watch::channel(0).0,
    };
    let service = Groups::default();
    let fitness = Arc::new(Fitness::default());
    // Who rests speaks at half the pace: six such pulses must be missed before a clock has no say.
    let six = u64::try_from(options.raft.heartbeat.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_mul(12);
    let compare = compare::Options {
        silent_ms: options.compare.silent_ms.max(six),
        ..options.compare
    };
    let fleet = Fleet::new(options.time.clone(), compare, fitness.clone());
    let pulse = Pulse::new(options.node, &ground, service.clone(), fleet);
    let inner = Arc::new(Inner {
        options,
        ground,
        found: Mutex::new(found),
        seats: RwLock::default(),
        seats_version: AtomicU64::new(0),
        service,
        pulse: Arc::new(pulse),
        fitness,
        map: watch::channel(Arc::new(ClusterMap::default())).0,
        waits: watch::channel(BTreeMap::new()).0,
        tasks: Mutex::new(JoinSet::new()),
        meta_tasks: Mutex::new(JoinSet::new()),
        refounding: tokio::sync::Mutex::new(()),
        _lock: lock,
    });
    start(&inner).await?;
    Ok(Host { inner })
}

/// Where snapshots and settled auctions lie.
fn places(options: &Options, world: &World) -> (SnapshotDir, ColdDir) {
    let disk = world.disk.prompt();
    let snapshots = SnapshotDir {
        disk: disk.clone(),
        dir: options.dir.join("snapshots"),
    };
    let cold = ColdDir {
        disk,
        dir: options.dir.join("cold"),
    };
    (snapshots, cold)
}

fn check(options: &Options) -> Result<(), OpenError> {
    let bad = |what: &str| Err(OpenError::Options(what.to_owned()));
    let founders: std::collections::BTreeSet<NodeId> = options.founders.iter().map(|node| node.id).collect();
    if options.shards == 0 {
        return bad("shards must be at least 1");
    }
    if founders.len() != options.founders.len() {
        return bad("a founder is named twice");
    }
    if founders.len() > meta::VOTERS_MAX {
        return bad("more founders than keep the cluster map");
    }
    Ok(())
}

fn open_disk(options: &Options) -> Result<(File, Wal, HashMap<u32, Found>), OpenError> {
    let dir = &options.dir;
    let io = |what: &str| {
        let what = format!("{what} {}", dir.display());
        move |source| OpenError::Io { what, source }
    };
    std::fs::create_dir_all(dir.join("snapshots")).map_err(io("making"))?;
    let lock = File::create(dir.join("lock")).map_err(io("locking"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(dir.display().to_string())),
        Err(TryLockError::Error(source)) => return Err(io("locking")(source)),
    }
    own(&dir.join("node"), options.node)?;
    versions::check_folder(&AnyDisk::Os, dir)
        .map_err(io("reading"))?
        .map_err(OpenError::Newer)?;
    let begun = dir.join("log-begun");
    if begun.exists() && !wal::exists(&dir.join("wal")) {
        // With an empty log the replicas would open as if they had never voted.
        return Err(OpenError::Damaged(format!(
            "the log of {} is gone: this node's replicas must come back under fresh ids, in an empty folder",
            dir.display()
        )));
    }
    let (wal, found) = recover(|visit| Wal::open(&dir.join("wal"), options.wal, visit))?;
    if !begun.exists() {
        let made = File::create(&begun).and_then(|file| file.sync_all());
        made.and_then(|()| File::open(dir)?.sync_all()).map_err(io("marking"))?;
    }
    Ok((lock, wal, found))
}

/// Opens the log, and takes what it tells of each group.
fn recover(
    open: impl FnOnce(&mut Visit<'_>) -> Result<Wal, WalError>,
) -> Result<(Wal, HashMap<u32, Found>), OpenError> {
    let mut found: HashMap<u32, Found> = HashMap::new();
    let mut visit = |group, kind, payload| found.entry(group).or_default().take(kind, payload);
    let wal = open(&mut visit).map_err(|error| match error {
        WalError::Io { what, source } => OpenError::Io { what, source },
        damaged @ (WalError::Damaged { .. } | WalError::Missing { .. }) => OpenError::Damaged(damaged.to_string()),
    })?;
    Ok((wal, found))
}

/// Binds the folder to this node, or finds that it is bound.
fn own(path: &Path, node: NodeId) -> Result<(), OpenError> {
    let io = |source| OpenError::Io {
        what: path.display().to_string(),
        source,
    };
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim() == node.0.to_string() => Ok(()),
        Ok(text) => Err(OpenError::Options(format!(
            "the folder belongs to node {}",
            text.trim().escape_debug()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::write(path, format!("{}\n", node.0)).map_err(io)?;
            File::open(path).and_then(|file| file.sync_all()).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}

/// Clears the settled auctions of replicas that the log knows nothing of any more.
async fn sweep(inner: &Inner) -> Result<(), OpenError> {
    let here = |found: &(&u32, &Found)| !found.1.is_nobodys();
    let here: BTreeSet<u32> = inner.found.lock().iter().filter(here).map(|found| *found.0).collect();
    let place = inner.ground.cold.clone();
    let swept = blocking(move || cold::sweep(&place.disk, &place.dir, |group| here.contains(&group)));
    let files = swept.await.map_err(|source| OpenError::Io {
        what: format!("sweeping {}", inner.ground.cold.dir.display()),
        source,
    })?;
    if files > 0 {
        tracing::info!(files, "settled auctions of replicas that are no more were cleared");
    }
    Ok(())
}

async fn start(inner: &Arc<Inner>) -> Result<(), OpenError> {
    sweep(inner).await?;
    let options = &inner.options;
    let members = meta::members(&options.founders);
    let founded = members
        .iter()
        .find(|(_, home)| home.node() == options.node)
        .map(|(id, _)| *id);
    // The log knows best: a node that joined was told its replica once.
    let known = inner.found.lock().get(&ShardId::META.0).and_then(Found::born);
    let me = known.or(founded).or(options.joined.map(|replica| replica.0));
    let me = me.ok_or_else(|| OpenError::Options("this node is no founder, and has not joined".into()))?;
    let members = if founded.is_some() { members } else { BTreeMap::new() };
    open_meta(inner, me, members).await.map_err(OpenError::Raft)?;
    let weak = Arc::downgrade(inner);
    let groups = move || weak.upgrade().map_or_else(Vec::new, |inner| groups(&inner));
    let mut tasks = inner.tasks.lock();
    tasks.spawn(janitor::run(inner.ground.wal.clone(), options.raft.clone(), groups));
    let weak = Arc::downgrade(inner);
    let groups = move || weak.upgrade().map_or_else(Vec::new, |inner| self::groups(&inner));
    tasks.spawn(pager::run(options.raft.cold_after, groups));
    let weak = Arc::downgrade(inner);
    tasks.spawn(pulse::run(inner.pulse.clone(), move |seen| {
        let inner = weak.upgrade()?;
        let version = inner.seats_version.load(Ordering::Acquire);
        Some(pulse::Now {
            version,
            seats: (version != seen).then(|| inner.seats()),
            map: inner.map.borrow().clone(),
        })
    }));
    tasks.spawn(care::run(Arc::downgrade(inner)));
    let weak = Arc::downgrade(inner);
    let groups = move || weak.upgrade().map_or_else(Vec::new, |inner| self::groups(&inner));
    let (maps, led) = (inner.map.subscribe(), inner.ground.led.subscribe());
    tasks.spawn(versions::raise_rules(groups, maps, led));
    Ok(())
}

/// Opens shard 0's replica, and begins what holds on to it.
pub(super) async fn open_meta(inner: &Arc<Inner>, me: u64, members: BTreeMap<u64, Home>) -> Result<(), String> {
    let options = &inner.options;
    let founder = !members.is_empty();
    let meta = seat(inner, ShardId::META, me, members).await.map_err(|why| match why {
        NotOpened::Failed(why) | NotOpened::Hurt(why, _) => why,
    })?;
    let crew = Crew {
        me: options.node,
        here: Arc::new(Own(Arc::downgrade(inner))),
        peers: inner.ground.peers.clone(),
    };
    let mut tasks = inner.meta_tasks.lock();
    if founder {
        tasks.spawn(meta::bear(meta.clone(), options.founders.clone(), options.shards));
    }
    let waits = inner.waits.clone();
    tasks.spawn(mover::run(meta.clone(), crew, options.moves, options.pace, waits));
    tasks.spawn(follow_map(Arc::downgrade(inner), meta.replica.map.subscribe()));
    Ok(())
}

fn groups(inner: &Inner) -> Vec<Arc<Group>> {
    inner.seats().iter().map(|seat| seat.group.clone()).collect()
}

/// Takes in each new map: addresses, then the shards that it gives this node. And closes what damage has ended: both are about
/// seats, so one after the other.
async fn follow_map(inner: Weak<Inner>, mut maps: watch::Receiver<Option<Arc<ClusterMap>>>) {
    let Some(mut hurt) = inner.upgrade().map(|inner| inner.ground.hurt.subscribe()) else {
        return;
    };
    loop {
        hurt.mark_unchanged();
        if let Some(inner) = inner.upgrade() {
            shut_hurt(&inner).await;
        }
        let map = maps.borrow_and_update().clone();
        if let Some(map) = map {
            let Some(inner) = inner.upgrade() else { return };
            let version = map.cluster_version();
            let rises = version > inner.ground.agreed.version();
            let (disk, dir) = (inner.ground.snapshots.disk.clone(), inner.options.dir.clone());
            let mark = || blocking(move || versions::mark_folder(&disk, &dir, version));
            if rises && let Err(error) = mark().await {
                let why = format!("marking the folder's version: {error}");
                inner
                    .ground
                    .failed
                    .send_if_modified(|present| present.replace(why).is_none());
                return;
            }
            inner.ground.agreed.take(version);
            inner
                .ground
                .peers
                .set_addresses(map.nodes.values().map(|node| (node.id, node.grpc.clone())));
            if let Err(why) = take_seats(&inner, &map).await {
                tracing::error!(%why, "a shard of this node can't open");
                inner
                    .ground
                    .failed
                    .send_if_modified(|present| present.replace(why).is_none());
            }
            inner.map.send_replace(map);
        }
        let changed = tokio::select! {
            changed = maps.changed() => changed,
            changed = hurt.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Opens one group, gives it a proposer and a place among those that are found from outside.
pub(super) async fn seat(
    inner: &Arc<Inner>,
    shard: ShardId,
    id: u64,
    members: BTreeMap<u64, Home>,
) -> Result<Arc<Group>, NotOpened> {
    let found = inner.found.lock().remove(&shard.0);
    let group = Group::open(&inner.ground, shard, id, found).await?;
    let options = office::Options {
        clock: inner.options.clock,
        lanes: inner.options.lanes,
    };
    let log: Arc<dyn Log> = group.clone();
    let pulse = inner.pulse.clone();
    let wall: Wall = Arc::new(move || pulse.fleet().wall());
    let time = inner.options.time.clone();
    let proposer = (shard != ShardId::META).then(|| Proposer::spawn(shard, log, options, time, wall));
    inner.seats.write().insert(
        shard,
        Arc::new(Seat {
            group: group.clone(),
            proposer,
        }),
    );
    inner.seats_version.fetch_add(1, Ordering::Release);
    inner.service.insert(group.clone());
    // In rendezvous order for a shard, in order of node for shard 0.
    let order: Vec<u64> = match inner.options.node {
        _ if shard == ShardId::META => members.keys().copied().collect(),
        _ => order(inner, shard, &members),
    };
    let rank = order.iter().position(|member| *member == id).unwrap_or(order.len());
    inner.tasks.lock().spawn(give_members(group.clone(), members, rank));
    Ok(group)
}

fn order(inner: &Inner, shard: ShardId, members: &BTreeMap<u64, Home>) -> Vec<u64> {
    let meta = inner.seat(ShardId::META);
    let map = meta.and_then(|seat| seat.group.replica.map.borrow().clone());
    map.map_or_else(
        || members.keys().copied().collect(),
        |map| map.replicas_of(shard).iter().map(|(_, replica)| replica.0).collect(),
    )
}

/// The preferred replica gives a new group its members at once, and so leads it; others only if that didn't happen.
/// A replica that moves here is let in by its group, and has none to give.
async fn give_members(group: Arc<Group>, members: BTreeMap<u64, Home>, rank: usize) {
    if members.is_empty() {
        return;
    }
    tokio::time::sleep(INITIALIZE_AFTER * u32::try_from(rank).unwrap_or(u32::MAX)).await;
    if group.leadership().borrow().leader.is_some() {
        return;
    }
    if let Err(error) = group.initialize(members).await {
        tracing::debug!(shard = group.shard.0, %error, "the group has members already");
    }
}
