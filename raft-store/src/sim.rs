//! The doors of a simulated world: its disk, and mistakes that it can tell the shards to make.
//!
//! A simulation (`chaos sim`) runs the real code of this crate on simulated time and networks. This file is all that it
//! needs beyond the public API; it exists only with the feature `sim`. Why a plant is a switch for the whole process: a
//! simulation is a process of its own, and a mistake would be in every node's build.
//!
//! Deliberately absent: simulated time (the runtime's), schedules of faults, judgement: those are `chaos`'s.

use crate::wal::lag_disk::LagDisk;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    time::Duration,
};

static RUNNING: AtomicBool = AtomicBool::new(false);
static PLANTED: AtomicU8 = AtomicU8::new(0);
static PIECES: AtomicU64 = AtomicU64::new(0);
static COLD: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());
static STANDS: Mutex<Vec<(u64, u32)>> = Mutex::new(Vec::new());

/// From now on this process is a simulation: nothing of it waits in threads.
pub fn begin() {
    RUNNING.store(true, Ordering::Relaxed);
}

pub(crate) fn running() -> bool {
    RUNNING.load(Ordering::Relaxed)
}

/// Mistakes that this crate can be told to make; the auction core has its own (`auction::sow`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Plant {
    /// The log answers before the disk has it.
    AckBeforeFsync = 1,
    /// An fsync's error is taken for success.
    FsyncErrorIgnored,
    /// A vote is spoken without being written.
    VoteNotPersisted,
    /// A cut of the log isn't written.
    TruncateNotPersisted,
    /// A snapshot forgets which commands were judged.
    SnapshotForgets,
    /// A command is answered when it is at the door, by what the leader thinks will become of it.
    AckBeforeCommit,
    /// A read doesn't ask whether its leader still leads.
    StaleRead,
    /// A new office's clock begins half a second behind the shard's newest stamp.
    ClockFallsBack,
    /// A new office's clock begins half a second ahead of it.
    ClockJumps,
    /// The clock runs on without a majority.
    ClockRunsFree,
    /// A lane gives its newest command first.
    LaneBackwards,
    /// The door lets in again what was judged before. No mistake by itself: a command that gets into the log twice is judged
    /// once. It takes the first of two safeguards away, so that the second is seen to hold.
    DoorForgets,
    /// The last entry of an office that ended comes into the log again behind the next office's marker, as from a queue
    /// that nobody emptied. No mistake by itself, either: it is void.
    EntriesReturn,
    /// However long a node is silent, it isn't held for lost.
    SilenceUnseen,
    /// All that a lost node led is stood for at one look.
    StandTogether,
    /// Settled auctions leave memory before they are durable.
    PagedOutUnsynced,
    /// A replica that gets a snapshot lets go of the settled auctions that come with it, and says that it has them.
    ColdLeftBehind,
    /// Who looks for an auction that isn't in memory finds nothing.
    ColdNotFound,
    /// An auction that isn't in memory knows no id any more.
    ColdForgetsIds,
}

/// Has every shard of this process make a mistake.
pub fn plant(plant: Plant) {
    PLANTED.store(plant as u8, Ordering::Relaxed);
}

pub(crate) fn planted(plant: Plant) -> bool {
    PLANTED.load(Ordering::Relaxed) == plant as u8
}

/// An auction that isn't in memory was met: by whom.
pub(crate) fn met_cold(by: &'static str) {
    *COLD.lock().entry(by).or_default() += 1;
}

/// How often auctions that weren't in memory were met so far, on all nodes, by whom: a `command`, a `view`, its `events`, an
/// `entry` that was applied; how many were `sent` to other replicas, and `taken` from them, and how many were found `damaged`.
#[must_use]
pub fn cold() -> BTreeMap<&'static str, u64> {
    COLD.lock().clone()
}

/// A piece of a snapshot was taken in.
pub(crate) fn piece_came() {
    PIECES.fetch_add(1, Ordering::Relaxed);
}

/// Pieces of snapshots that were taken in so far, by all nodes.
#[must_use]
pub fn pieces() -> u64 {
    PIECES.load(Ordering::Relaxed)
}

/// A node stands for election in a shard.
pub(crate) fn stands(node: u64, shard: u32) {
    STANDS.lock().push((node, shard));
}

/// Who stood for election since this was asked last: (node, shard).
#[must_use]
pub fn stood() -> Vec<(u64, u32)> {
    std::mem::take(&mut *STANDS.lock())
}

/// A node's disk, with a seed of its own. It outlives the node's crashes.
#[derive(Clone)]
pub struct Disk(LagDisk);

impl Disk {
    /// An empty one.
    #[must_use]
    pub fn new(seed: u64) -> Disk {
        Disk(LagDisk::new(seed))
    }

    /// How long fsyncs take from now on.
    pub fn set_lag(&self, least: Duration, most: Duration) {
        self.0.set_lag(least, most);
    }

    /// The next fsync fails, as a broken disk's does.
    pub fn fail_next_sync(&self) {
        self.0.fail_next_sync();
    }

    /// A byte of a settled auction rots, if any lies here.
    #[must_use]
    pub fn rot_cold(&self) -> bool {
        self.0.rot("cold", crate::cold::HEAD as usize)
    }

    /// The disk as a new start finds it: after a loss of power without what wasn't synced, in whole or in part.
    #[must_use]
    pub fn crash(&self, power: bool) -> Disk {
        Disk(self.0.crash(power))
    }

    pub(crate) fn inner(&self) -> LagDisk {
        self.0.clone()
    }
}
