//! A disk in memory that behaves as badly as a disk may: what isn't synced is lost in pieces, what fails stays failed.
//!
//! ```text
//!   write_at --> cache and `dirty` --sync--> `durable`
//!   crash:       `durable` and any subset of the dirty sectors; any prefix of the names that weren't synced
//! ```
//!
//! For tests and for simulations (`lag_disk`) only: it panics where a file that it made itself is missing.
#![allow(clippy::unwrap_used)]

use crate::wal::disk::{Disk, DiskFile};
use parking_lot::{Condvar, Mutex};
use rand::{Rng, RngExt};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct Inode {
    cache: Vec<u8>,
    durable: Vec<u8>,
    /// What was written since the last sync.
    dirty: Vec<(usize, Vec<u8>)>,
    /// An fsync of it failed: what it holds is unknown.
    spoilt: bool,
    /// It was synced once.
    synced: bool,
}

#[derive(Clone)]
enum NameOp {
    Link(PathBuf, u64),
    Unlink(PathBuf),
}

/// What goes wrong.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Faults {
    /// After so many written bytes the power is gone.
    pub(crate) dies_after: Option<u64>,
    /// This fsync, counted from now, fails.
    pub(crate) sync_fails_at: Option<u64>,
    /// Bytes that all files together may have.
    pub(crate) capacity: Option<u64>,
    /// What `free` says, if not by capacity.
    pub(crate) free: Option<u64>,
    /// The first fsync of each new file fails: files can't be prepared, all else is well.
    pub(crate) spares_fail: bool,
    /// Fsyncs wait until it is false again.
    pub(crate) hangs: bool,
}

#[derive(Default)]
struct Sim {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    journal: Vec<NameOp>,
    next: u64,
    faults: Faults,
    dead: bool,
    syncs: u64,
    /// Fsyncs that were asked for after one had failed.
    retried: u64,
    sync_failed: bool,
    /// Times that a file couldn't grow for want of room.
    refused: u64,
}

#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<(Mutex<Sim>, Condvar)>);

pub(crate) struct SimFile(SimDisk, u64);

fn gone() -> io::Error {
    io::Error::other("the power is gone")
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, op: NameOp) {
    match op {
        NameOp::Link(path, id) => drop(names.insert(path, id)),
        NameOp::Unlink(path) => drop(names.remove(&path)),
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    if bytes.len() < at + what.len() {
        bytes.resize(at + what.len(), 0);
    }
    bytes[at..at + what.len()].copy_from_slice(what);
}

impl SimDisk {
    fn sim<T>(&self, f: impl FnOnce(&mut Sim) -> io::Result<T>) -> io::Result<T> {
        let mut sim = self.0.0.lock();
        if sim.dead { Err(gone()) } else { f(&mut sim) }
    }

    pub(crate) fn set(&self, faults: Faults) {
        let mut sim = self.0.0.lock();
        sim.faults = faults;
        sim.syncs = 0;
        self.0.1.notify_all();
    }

    pub(crate) fn retried(&self) -> u64 {
        self.0.0.lock().retried
    }

    /// Times that a file couldn't grow for want of room.
    #[cfg(test)]
    pub(crate) fn refused(&self) -> u64 {
        self.0.0.lock().refused
    }

    /// What is left when the power fails: the durable bytes, any of the sectors under way, some of the names.
    pub(crate) fn crash(&self, rng: &mut impl Rng) -> SimDisk {
        let sim = self.0.0.lock();
        let mut names = sim.durable_names.clone();
        let kept = rng.random_range(0..=sim.journal.len());
        sim.journal[..kept].iter().cloned().for_each(|op| apply(&mut names, op));
        let keep = [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4)];
        let mut inodes = BTreeMap::new();
        for id in names.values() {
            let mut inode = sim.inodes[id].clone();
            for (at, bytes) in &inode.dirty {
                let mut from = 0;
                while from < bytes.len() {
                    let to = (from + SECTOR - (at + from) % SECTOR).min(bytes.len());
                    if rng.random_bool(keep) {
                        write(&mut inode.durable, at + from, &bytes[from..to]);
                    }
                    from = to;
                }
            }
            inodes.insert(*id, SimDisk::settled(inode.durable));
        }
        SimDisk::from(inodes, names, sim.next)
    }

    /// What is left when only the process dies: all of it.
    pub(crate) fn kill(&self) -> SimDisk {
        let sim = self.0.0.lock();
        let inodes = sim.inodes.iter();
        let inodes = inodes
            .map(|(id, inode)| (*id, SimDisk::settled(inode.cache.clone())))
            .collect();
        SimDisk::from(inodes, sim.names.clone(), sim.next)
    }

    fn settled(bytes: Vec<u8>) -> Inode {
        Inode {
            cache: bytes.clone(),
            durable: bytes,
            dirty: Vec::new(),
            spoilt: false,
            synced: true,
        }
    }

    fn from(inodes: BTreeMap<u64, Inode>, names: BTreeMap<PathBuf, u64>, next: u64) -> SimDisk {
        let sim = Sim {
            inodes,
            durable_names: names.clone(),
            names,
            next,
            ..Sim::default()
        };
        SimDisk(Arc::new((Mutex::new(sim), Condvar::new())))
    }

    /// How many files there are.
    pub(crate) fn files(&self) -> usize {
        self.0.0.lock().names.len()
    }

    /// Bytes of all files together.
    pub(crate) fn bytes(&self) -> usize {
        let sim = self.0.0.lock();
        sim.names.values().map(|id| sim.inodes[id].cache.len()).sum()
    }

    /// Bytes of all files together, as far as an fsync made them durable.
    pub(crate) fn durable_bytes(&self) -> usize {
        let sim = self.0.0.lock();
        sim.names.values().map(|id| sim.inodes[id].durable.len()).sum()
    }

    /// All files whose names end so, and their lengths.
    #[cfg(feature = "sim")]
    pub(crate) fn files_of(&self, ending: &str) -> Vec<(PathBuf, usize)> {
        let sim = self.0.0.lock();
        let files = sim.names.iter().map(|(path, id)| (path, sim.inodes[id].cache.len()));
        let ours = files.filter(|(path, _)| path.extension().is_some_and(|e| e == ending));
        ours.map(|(path, len)| (path.clone(), len)).collect()
    }

    /// A byte of a file rots, wherever it lies: what was written there says something else from now on.
    #[cfg(feature = "sim")]
    pub(crate) fn rot(&self, path: &Path, at: usize, bit: u8) {
        let mut sim = self.0.0.lock();
        let id = sim.names[path];
        let inode = sim.inodes.get_mut(&id).unwrap();
        for bytes in [&mut inode.cache, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// All segments, by name.
    pub(crate) fn segments(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let sim = self.0.0.lock();
        let files = sim
            .names
            .iter()
            .map(|(path, id)| (path.clone(), sim.inodes[id].cache.clone()));
        files
            .filter(|(path, _)| path.extension().is_some_and(|e| e == "seg"))
            .collect()
    }

    /// Puts bytes into a file behind everyone's back.
    pub(crate) fn spoil(&self, path: &Path, bytes: Vec<u8>) {
        let mut sim = self.0.0.lock();
        let id = match sim.names.get(path) {
            Some(id) => *id,
            None => {
                sim.next += 1;
                let id = sim.next;
                sim.names.insert(path.to_owned(), id);
                sim.durable_names.insert(path.to_owned(), id);
                id
            }
        };
        sim.inodes.insert(id, SimDisk::settled(bytes));
    }

    pub(crate) fn lose(&self, path: &Path) {
        let mut sim = self.0.0.lock();
        sim.names.remove(path);
        sim.durable_names.remove(path);
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn make_dir(&self, _: &Path) -> io::Result<()> {
        self.sim(|_| Ok(()))
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.sim(|sim| {
            let inside = sim.names.keys().filter(|path| path.parent() == Some(dir));
            Ok(inside
                .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
                .collect())
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.sim(|sim| {
            let id = sim.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            Ok(sim.inodes[id].cache.clone())
        })
    }

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        self.sim(|sim| {
            sim.next += 1;
            let id = sim.next;
            sim.inodes.insert(id, Inode::default());
            let op = NameOp::Link(path.to_owned(), id);
            sim.journal.push(op.clone());
            apply(&mut sim.names, op);
            Ok(SimFile(self.clone(), id))
        })
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        self.sim(|sim| {
            let id = *sim.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            Ok(SimFile(self.clone(), id))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.sim(|sim| {
            let id = *sim.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            for op in [NameOp::Link(to.to_owned(), id), NameOp::Unlink(from.to_owned())] {
                sim.journal.push(op.clone());
                apply(&mut sim.names, op);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.sim(|sim| {
            sim.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            let op = NameOp::Unlink(path.to_owned());
            sim.journal.push(op.clone());
            apply(&mut sim.names, op);
            Ok(())
        })
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.sim(|sim| {
            let names = sim.names.clone();
            sim.durable_names = names;
            sim.journal.clear();
            Ok(())
        })
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        self.sim(|sim| {
            let used: u64 = sim.names.values().map(|id| sim.inodes[id].cache.len() as u64).sum();
            let by_capacity = sim.faults.capacity.map_or(u64::MAX, |all| all.saturating_sub(used));
            Ok(sim.faults.free.unwrap_or(by_capacity))
        })
    }
}

impl SimFile {
    fn grow(&self, sim: &mut Sim, len: usize) -> io::Result<()> {
        let used: u64 = sim.names.values().map(|id| sim.inodes[id].cache.len() as u64).sum();
        let growth = len.saturating_sub(sim.inodes[&self.1].cache.len()) as u64;
        if growth > 0 && sim.faults.capacity.is_some_and(|all| used + growth > all) {
            sim.refused += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.sim(|sim| {
            let cache = &sim.inodes[&self.1].cache;
            let from = cache.len().min(at as usize);
            let n = out.len().min(cache.len() - from);
            out[..n].copy_from_slice(&cache[from..from + n]);
            Ok(n)
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.0.sim(|sim| Ok(sim.inodes[&self.1].cache.len() as u64))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.sim(|sim| {
            self.grow(sim, at as usize + bytes.len())?;
            let n = sim
                .faults
                .dies_after
                .map_or(bytes.len() as u64, |left| left.min(bytes.len() as u64));
            let inode = sim.inodes.get_mut(&self.1).unwrap();
            write(&mut inode.cache, at as usize, &bytes[..n as usize]);
            inode.dirty.push((at as usize, bytes[..n as usize].to_vec()));
            if let Some(left) = &mut sim.faults.dies_after {
                *left -= n;
                if n < bytes.len() as u64 {
                    sim.dead = true;
                    return Err(gone());
                }
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.sim(|sim| {
            self.grow(sim, len as usize)?;
            let inode = sim.inodes.get_mut(&self.1).unwrap();
            let before = inode.cache.len();
            inode.cache.resize(len as usize, 0);
            if before < len as usize {
                inode.dirty.push((before, vec![0; len as usize - before]));
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut sim = self.0.0.0.lock();
        self.0.0.1.wait_while(&mut sim, |sim| sim.faults.hangs);
        if sim.dead {
            return Err(gone());
        }
        sim.syncs += 1;
        sim.retried += u64::from(sim.sync_failed);
        let at = sim.faults.sync_fails_at == Some(sim.syncs);
        sim.sync_failed |= at;
        let name = sim.names.iter().find(|(_, id)| **id == self.1).map(|(path, _)| path);
        let spare = name.is_some_and(|path| path.extension().is_some_and(|e| e == "tmp"));
        let fails = at || (spare && !sim.inodes[&self.1].synced && sim.faults.spares_fail);
        sim.retried += u64::from(sim.inodes[&self.1].spoilt && !sim.sync_failed);
        let inode = sim.inodes.get_mut(&self.1).unwrap();
        inode.spoilt |= fails;
        inode.synced |= !fails;
        let dirty = std::mem::take(&mut inode.dirty);
        if fails {
            // As kernels do: the pages count as clean from now on, and were never written.
            return Err(io::Error::from_raw_os_error(5));
        }
        for (at, bytes) in dirty {
            write(&mut inode.durable, at, &bytes);
        }
        let len = inode.cache.len();
        inode.durable.resize(len, 0);
        Ok(())
    }
}
