//! What the log and the snapshots ask of a disk: the seam at which tests put a disk that lies, fills up or dies.
//!
//! ```text
//!   writer, pool, recover, snapshot --> Disk --> Os          the kernel's files, in production
//!                                           '--> SimDisk     in memory, with a crash at any byte (tests)
//! ```
//!
//! Everything is generic over `Disk` and `Os` has no fields: the compiler sees through it, and production pays nothing.
//! One sync is enough for both data and length: `fdatasync` writes what is needed to read the data back. Names need their
//! folder's sync.
//!
//! Deliberately absent: retries, buffering, reading in pieces. A segment is read once, whole, at a start.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// A disk, or what passes for one.
pub(crate) trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in `dir`, in no order.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// A new, empty file; an old one of that name is emptied.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// A file that is there, to write into.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that a process like ours may still write below `dir`.
    fn free(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file of a disk.
pub(crate) trait DiskFile: Send + 'static {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes what was written durable. After an error nobody knows what the disk holds: never call it again.
    fn sync(&self) -> io::Result<()>;
}

/// The kernel's files.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Os;

impl Disk for Os {
    type File = File;

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
