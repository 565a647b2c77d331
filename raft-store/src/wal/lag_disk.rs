//! A simulated node's disk: what is written is there at once, what is synced is durable only when the disk says so.
//!
//! ```text
//!   write, sync, rename … --> cache (what reads see)
//!                    '------> journal --settle--> behind (what the power can't take)
//!   crash: a random part of the journal goes to `behind`, in order; then `behind` loses what it had not synced
//! ```
//!
//! Why the journal: code that syncs *waits*, so nothing it does afterwards can be on disk before the sync is. In a
//! simulation the code runs on, and its task waits at the end of the batch. Cutting the journal anywhere, in order, gives
//! exactly the states that a crash during those waits could leave.
//!
//! Whoever must not go on before it is durable, and has no task to wait in (snapshots), uses a disk that settles with each
//! sync (`prompt`).
//!
//! Deliberately absent: time. `lag` says how long an fsync takes; who waits is the caller.

use super::{
    disk::{Disk, DiskFile},
    sim_disk::{Faults, SimDisk, SimFile},
};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

#[derive(Debug)]
enum Step {
    Create(PathBuf, u64),
    Open(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Write(u64, Vec<u8>, u64),
    SetLen(u64, u64),
    Sync(u64),
    SyncDir(PathBuf),
}

struct Lag {
    cache: SimDisk,
    behind: SimDisk,
    journal: Vec<Step>,
    /// Open files on `behind`, by the handle that opened them on `cache`.
    handles: BTreeMap<u64, SimFile>,
    next: u64,
    lag_us: (u64, u64),
    rng: StdRng,
}

/// A disk; clones are the same one.
#[derive(Clone)]
pub(crate) struct LagDisk {
    lag: Arc<Mutex<Lag>>,
    prompt: bool,
}

/// An open file of it.
pub(crate) struct LagFile {
    disk: LagDisk,
    file: SimFile,
    handle: u64,
}

impl LagDisk {
    pub(crate) fn new(seed: u64) -> LagDisk {
        LagDisk::of(SimDisk::default(), SimDisk::default(), seed)
    }

    fn of(cache: SimDisk, behind: SimDisk, seed: u64) -> LagDisk {
        let lag = Lag {
            cache,
            behind,
            journal: Vec::new(),
            handles: BTreeMap::new(),
            next: 0,
            lag_us: (500, 2_000),
            rng: StdRng::seed_from_u64(seed),
        };
        LagDisk {
            lag: Arc::new(Mutex::new(lag)),
            prompt: false,
        }
    }

    /// The same disk, for those who can't wait: each sync is durable when it returns.
    pub(crate) fn prompt(&self) -> LagDisk {
        LagDisk {
            lag: self.lag.clone(),
            prompt: true,
        }
    }

    /// How long fsyncs take from now on.
    pub(crate) fn set_lag(&self, least: Duration, most: Duration) {
        let us = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        self.lag.lock().lag_us = (us(least), us(most).max(us(least)));
    }

    /// How long the next fsync takes.
    pub(crate) fn lag(&self) -> Duration {
        let mut lag = self.lag.lock();
        let (least, most) = lag.lag_us;
        Duration::from_micros(lag.rng.random_range(least..=most))
    }

    /// The next fsync fails.
    pub(crate) fn fail_next_sync(&self) {
        self.lag.lock().cache.set(Faults {
            sync_fails_at: Some(1),
            ..Faults::default()
        });
    }

    /// A byte of one of the files whose names end so rots, behind its first `head` bytes; false: there is none.
    pub(crate) fn rot(&self, ending: &str, head: usize) -> bool {
        let mut lag = self.lag.lock();
        // What rots lies on the disk: all that was written has got there.
        let all = lag.journal.len();
        lag.replay(all);
        let mut files = lag.behind.files_of(ending);
        files.retain(|(_, len)| *len > head);
        if files.is_empty() {
            return false;
        }
        let nth = lag.rng.random_range(0..files.len());
        let (path, len) = &files[nth];
        let (at, bit) = (lag.rng.random_range(head..*len), lag.rng.random_range(0..8));
        lag.cache.rot(path, at, bit);
        lag.behind.rot(path, at, bit);
        true
    }

    /// All that was synced is durable now.
    pub(crate) fn settle(&self) {
        let mut lag = self.lag.lock();
        let all = lag.journal.len();
        lag.replay(all);
    }

    /// What the power leaves (or the end of the process, which takes nothing from what was written).
    pub(crate) fn crash(&self, power: bool) -> LagDisk {
        let mut lag = self.lag.lock();
        let all = lag.journal.len();
        let upto = lag.rng.random_range(0..=all);
        lag.replay(upto);
        let Lag { behind, rng, .. } = &mut *lag;
        let left = if power { behind.crash(rng) } else { behind.kill() };
        let disk = LagDisk::of(left.kill(), left, rng.random());
        disk.lag.lock().lag_us = lag.lag_us;
        disk
    }

    fn with<T>(&self, f: impl FnOnce(&mut Lag) -> io::Result<T>) -> io::Result<T> {
        f(&mut self.lag.lock())
    }

    fn file(&self, lag: &mut Lag, file: SimFile, step: impl FnOnce(u64) -> Step) -> LagFile {
        lag.next += 1;
        let handle = lag.next;
        lag.journal.push(step(handle));
        LagFile {
            disk: self.clone(),
            file,
            handle,
        }
    }
}

impl Lag {
    fn replay(&mut self, upto: usize) {
        let behind = self.behind.clone();
        for step in self.journal.drain(..upto) {
            let done = match step {
                Step::Create(path, handle) => behind.create(&path).map(|file| drop(self.handles.insert(handle, file))),
                Step::Open(path, handle) => behind.open(&path).map(|file| drop(self.handles.insert(handle, file))),
                Step::Rename(from, to) => behind.rename(&from, &to),
                Step::Remove(path) => behind.remove(&path),
                Step::Write(handle, bytes, at) => self.handles[&handle].write_at(&bytes, at),
                Step::SetLen(handle, len) => self.handles[&handle].set_len(len),
                Step::Sync(handle) => self.handles[&handle].sync(),
                Step::SyncDir(dir) => behind.sync_dir(&dir),
            };
            // The cache did the same before; both began alike.
            debug_assert!(done.is_ok(), "{done:?}");
        }
    }
}

impl Disk for LagDisk {
    type File = LagFile;

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(|lag| lag.cache.make_dir(dir))
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.with(|lag| lag.cache.names(dir))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.with(|lag| lag.cache.read(path))
    }

    fn create(&self, path: &Path) -> io::Result<LagFile> {
        self.with(|lag| {
            let file = lag.cache.create(path)?;
            Ok(self.file(lag, file, |handle| Step::Create(path.to_owned(), handle)))
        })
    }

    fn open(&self, path: &Path) -> io::Result<LagFile> {
        self.with(|lag| {
            let file = lag.cache.open(path)?;
            Ok(self.file(lag, file, |handle| Step::Open(path.to_owned(), handle)))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|lag| {
            lag.cache.rename(from, to)?;
            lag.journal.push(Step::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(|lag| {
            lag.cache.remove(path)?;
            lag.journal.push(Step::Remove(path.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(|lag| {
            lag.cache.sync_dir(dir)?;
            lag.journal.push(Step::SyncDir(dir.to_owned()));
            Ok(())
        })?;
        if self.prompt {
            self.settle();
        }
        Ok(())
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        self.with(|lag| lag.cache.free(dir))
    }
}

impl DiskFile for LagFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        self.disk.with(|_| self.file.read_at(out, at))
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.with(|_| self.file.len())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.disk.with(|lag| {
            self.file.write_at(bytes, at)?;
            lag.journal.push(Step::Write(self.handle, bytes.to_vec(), at));
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.with(|lag| {
            self.file.set_len(len)?;
            lag.journal.push(Step::SetLen(self.handle, len));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.with(|lag| {
            self.file.sync()?;
            lag.journal.push(Step::Sync(self.handle));
            Ok(())
        })?;
        if self.disk.prompt {
            self.disk.settle();
        }
        Ok(())
    }
}
