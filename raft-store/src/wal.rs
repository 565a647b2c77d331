//! The write-ahead log of a node: one for all its groups, so that all of them share each `fdatasync`.
//!
//! A bid is acknowledged when a majority has fsynced it, so what a commit costs is mostly what an fsync costs. With one
//! log per group, sixteen busy groups make sixteen fsyncs where one would do (measured: a third of the throughput). So
//! every group's entries, votes, truncations and purges go as records into one file after the other, and one thread
//! writes whatever has gathered while the disk was busy as one *batch*, with one `fdatasync`, then answers all of it.
//!
//! ```text
//!   group 0 --.                 .-------- writer thread --------.
//!   group 1 ---+--> queue --> batch --> pwrite --> fdatasync --> done(Ok) for every write of the batch
//!   group 7 --'                 |
//!                               '--> segment full: seal it, take the prepared one, write the checkpoint
//!                                       ^
//!                 preparer thread ------'  zero-fills the next file, so that no commit grows one
//! ```
//!
//! **What is on disk** is described byte by byte in `record`. **Recovery** (`recover`) replays all segments in order and
//! gives every record to its group. A batch that was being written when the process died may be torn (`scan`): nobody was
//! promised anything of it, so it is cut. Damage *before* it touches what was promised. It is pinned to the groups that it
//! hurts (`proof`): their replicas stop, and come back under fresh ids, while the others go on. Where that can't be proved,
//! the node refuses to start.
//!
//! **Space.** Each new segment begins with a checkpoint of every group's small state (`ledger`), so the oldest segment is
//! needed only for entries that are still alive in it. It goes when there are none. A group that is idle would keep its
//! first segment for ever; `log_store` rewrites such a group's few entries (`Op::rewrite`), and asks those with many for a
//! snapshot. A disk that fills up is told of early, and the next segments lie ready, even when it is full (`space`).
//!
//! **A failed fsync is final.** What the kernel then holds for the file is unknown, and a second fsync may say 'done' for
//! pages that it dropped. So the first error stops the log: all waiting writes fail, `failed` tells the host, and the
//! node must restart from what the disk really has.
//!
//! **A disk that lies** is what the tests are about: they put one under the log (`disk`), which tears, flips, swaps, fills
//! up and dies at every byte.
//!
//! Deliberately absent: reading back (entries alive are in memory, in `log_store`), compression, any knowledge of what a
//! payload means beyond an entry's index.

pub mod bench;
pub(crate) mod disk;
pub mod inspect;
#[cfg(feature = "sim")]
pub(crate) mod lag_disk;
mod ledger;
mod plant;
mod proof;
pub(crate) mod record;
mod recover;
mod scan;
mod segment;
#[cfg(any(test, feature = "sim"))]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod sim_disk;
mod space;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use record::{Kind, Record};
pub(crate) use recover::Visit;
pub use recover::WalError;
pub use space::Pressure;

use disk::{Disk, Os};
use parking_lot::{Condvar, Mutex};
use space::Space;
use std::{collections::BTreeMap, io, path::Path, sync::Arc, thread::JoinHandle, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The log on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Size of a segment file.
    pub segment_bytes: u64,
    /// Segments on disk above which the oldest is made free: its groups rewrite what they need of it, or make snapshots.
    pub segments_soft: usize,
    /// Writes that wait for the disk; beyond that, writers wait too.
    pub queue: usize,
    /// Bytes of one batch: more goes into the next.
    pub batch_bytes: usize,
    /// Bytes between tallies: damage in the last of them, before a crash, can't be pinned to its groups.
    pub tally_bytes: u64,
    /// Zero-fill the next segment in the background, so that commits never grow a file.
    pub preallocate: bool,
    /// Segments laid by, with `preallocate`, for when the disk is full.
    pub reserve_segments: usize,
    /// Free bytes on the disk below which bids should be refused (`Pressure::Low`).
    pub low_water_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 * 1024 * 1024,
            segments_soft: 4,
            queue: 4096,
            batch_bytes: 8 * 1024 * 1024,
            tally_bytes: 256 * 1024,
            preallocate: true,
            reserve_segments: 1,
            low_water_bytes: 256 * 1024 * 1024,
        }
    }
}

/// Whether any segment lies in `dir`.
pub(crate) fn exists(dir: &Path) -> bool {
    segment::list(&Os, dir).is_ok_and(|segments| !segments.is_empty())
}

/// Told when the batch of a write is on disk, or that it never will be.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Records that are written together, in order.
pub(crate) struct Op {
    pub(crate) records: Vec<Record>,
    /// These records are all that is alive of this group: older copies are not needed any more.
    pub(crate) rewrite: Option<u32>,
    pub(crate) done: Option<Done>,
}

impl Op {
    pub(crate) fn new(records: Vec<Record>, done: Option<Done>) -> Op {
        Op {
            records,
            rewrite: None,
            done,
        }
    }
}

/// What waits for the writer. The lock is held for a push or a swap, never over I/O.
#[derive(Default)]
struct Queue {
    ops: Vec<(Op, Option<OwnedSemaphorePermit>)>,
    /// The newest commit of each group: worth keeping, not worth an fsync. Goes with the next batch.
    lazy: BTreeMap<u32, Record>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// The same, for a writer that is a task.
    #[cfg(feature = "sim")]
    wake_task: tokio::sync::Notify,
    room: Arc<Semaphore>,
    failed: watch::Sender<Option<String>>,
    /// Groups with living entries in the oldest segment, if there are more segments than `segments_soft`.
    pinned: Mutex<Vec<u32>>,
    space: Arc<Space>,
}

impl Shared {
    fn wake(&self) {
        self.wake.notify_one();
        #[cfg(feature = "sim")]
        self.wake_task.notify_one();
    }
}

/// The way to the log. Cheap to clone; the writer thread lives until `close`.
#[derive(Clone)]
pub(crate) struct Wal {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Room in the queue for one `Op`, gone when its batch is done.
pub(crate) struct Room(OwnedSemaphorePermit);

impl Wal {
    /// Recovers what lies in `dir`, giving each record to `visit`, and starts the writer.
    pub(crate) fn open(dir: &Path, options: Options, visit: &mut recover::Visit<'_>) -> Result<Wal, WalError> {
        Wal::open_on(Os, dir, options, visit)
    }

    /// The same on any disk.
    pub(crate) fn open_on<D: Disk>(
        disk: D,
        dir: &Path,
        options: Options,
        visit: &mut recover::Visit<'_>,
    ) -> Result<Wal, WalError> {
        let (writer, shared) = Wal::recovered(disk, dir, options, visit)?;
        let thread = std::thread::Builder::new().name("wal".into()).spawn({
            let shared = shared.clone();
            move || writer.run(&shared)
        });
        let thread = thread.map_err(|source| WalError::Io {
            what: "starting the writer".into(),
            source,
        })?;
        Ok(Wal {
            shared,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// The same in a simulated world: the writer is a task, and an fsync takes as long as the disk says.
    #[cfg(feature = "sim")]
    pub(crate) fn open_as_task(
        disk: lag_disk::LagDisk,
        dir: &Path,
        options: Options,
        visit: &mut recover::Visit<'_>,
    ) -> Result<Wal, WalError> {
        let (writer, shared) = Wal::recovered(disk.clone(), dir, options, visit)?;
        disk.settle();
        tokio::spawn(writer.run_as_task(shared.clone(), disk));
        Ok(Wal {
            shared,
            thread: Arc::default(),
        })
    }

    fn recovered<D: Disk>(
        disk: D,
        dir: &Path,
        options: Options,
        visit: &mut recover::Visit<'_>,
    ) -> Result<(writer::Writer<D>, Arc<Shared>), WalError> {
        let recovered = recover::recover(&disk, dir, visit)?;
        let space = Arc::new(Space::new());
        let writer = writer::Writer::new(disk, dir.to_owned(), options, space.clone(), recovered)?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            #[cfg(feature = "sim")]
            wake_task: tokio::sync::Notify::new(),
            room: Arc::new(Semaphore::new(options.queue.max(1))),
            failed: watch::channel(None).0,
            pinned: Mutex::new(Vec::new()),
            space,
        });
        Ok((writer, shared))
    }

    /// Waits until the queue has room for one more write.
    pub(crate) async fn room(&self) -> io::Result<Room> {
        match self.shared.room.clone().acquire_owned().await {
            Ok(permit) => Ok(Room(permit)),
            Err(_) => Err(io::Error::other("the log is closed")),
        }
    }

    /// Queues a write. Order of calls is order on disk.
    pub(crate) fn push(&self, room: Room, op: Op) {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            drop(queue);
            op.refuse();
            return;
        }
        queue.ops.push((op, Some(room.0)));
        drop(queue);
        self.shared.wake();
    }

    /// Keeps a group's newest commit, to go with the next batch.
    pub(crate) fn push_lazy(&self, record: Record) {
        self.shared.queue.lock().lazy.insert(record.group, record);
    }

    /// Queues a write and waits until it is on disk.
    pub(crate) async fn write(&self, records: Vec<Record>) -> io::Result<()> {
        let room = self.room().await?;
        let (tx, rx) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| drop(tx.send(result)));
        self.push(room, Op::new(records, Some(done)));
        rx.await.unwrap_or_else(|_| Err(io::Error::other("the log is closed")))
    }

    /// Why the log stopped, once it did.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failed.subscribe()
    }

    /// How much room the disk has.
    pub(crate) fn pressure(&self) -> watch::Receiver<Pressure> {
        self.shared.space.pressure.subscribe()
    }

    /// For how long the disk has had the batch in hand (0: it rests): a leader on a disk that hangs had better hand over.
    pub(crate) fn stalled(&self) -> Duration {
        self.shared.space.stalled()
    }

    /// Whether the disk lately failed to prepare a file, and not for want of room.
    pub(crate) fn is_ailing(&self) -> bool {
        self.shared.space.is_ailing()
    }

    /// Fsyncs of batches, and bytes in them, since the opening.
    pub(crate) fn done(&self) -> (u64, u64) {
        self.shared.space.done()
    }

    /// Groups that keep the oldest of too many segments.
    pub(crate) fn pinned(&self) -> Vec<u32> {
        self.shared.pinned.lock().clone()
    }

    /// Writes what waits, then stops the writer. Blocks for as long as the disk takes.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake();
        self.shared.room.close();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic there was a bug and has been reported by the panic hook; nothing is left to stop.
            let _ = thread.join();
        }
    }
}

impl Op {
    fn refuse(self) {
        if let Some(done) = self.done {
            done(Err(io::Error::other("the log is closed")));
        }
    }
}
