//! What the log and the snapshots ask of a disk: the seam at which tests put a disk that lies, fills up or dies.
//!
//! ```text
//!   writer, pool, recover, snapshot --> Disk --> Os          the kernel's files, in production
//!                                           |--> SimDisk     in memory, with a crash at any byte (tests)
//!                                           '--> LagDisk     two of those, with time between write and sync (simulation)
//! ```
//!
//! Everything is generic over `Disk` and `Os` has no fields: the compiler sees through it, and production pays nothing.
//! One sync is enough for both data and length: `fdatasync` writes what is needed to read the data back. Names need their
//! folder's sync.
//!
//! Deliberately absent: retries and buffering. A segment is read once, whole, at a start; snapshots are read in pieces.

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
    /// Reads what is there, at most as much as fits; 0: nothing is.
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize>;
    /// Bytes in it.
    fn len(&self) -> io::Result<u64>;
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes what was written durable. After an error nobody knows what the disk holds: never call it again.
    fn sync(&self) -> io::Result<()>;
}

/// Reads as much as fits from `at`; a file that ends before is an error.
pub(crate) fn exactly(file: &impl DiskFile, out: &mut [u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], at + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}

/// The disk of a node: the kernel's, unless the whole node is simulated.
#[derive(Clone)]
pub(crate) enum AnyDisk {
    Os,
    #[cfg(feature = "sim")]
    Sim(super::lag_disk::LagDisk),
}

/// An open file of it.
pub(crate) enum AnyFile {
    Os(File),
    #[cfg(feature = "sim")]
    Sim(super::lag_disk::LagFile),
}

impl AnyDisk {
    /// The same disk, for those who have nowhere to wait: what is synced is durable when `sync` returns. Any real disk is.
    pub(crate) fn prompt(&self) -> AnyDisk {
        match self {
            AnyDisk::Os => AnyDisk::Os,
            #[cfg(feature = "sim")]
            AnyDisk::Sim(disk) => AnyDisk::Sim(disk.prompt()),
        }
    }
}

/// The same call to whichever disk it is.
macro_rules! either {
    ($disk:expr, $call:ident($($arg:expr),*)) => {
        match $disk {
            AnyDisk::Os => Os.$call($($arg),*),
            #[cfg(feature = "sim")]
            AnyDisk::Sim(sim) => sim.$call($($arg),*),
        }
    };
}

impl Disk for AnyDisk {
    type File = AnyFile;

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        either!(self, make_dir(dir))
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        either!(self, names(dir))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        either!(self, read(path))
    }

    fn create(&self, path: &Path) -> io::Result<AnyFile> {
        match self {
            AnyDisk::Os => Os.create(path).map(AnyFile::Os),
            #[cfg(feature = "sim")]
            AnyDisk::Sim(sim) => sim.create(path).map(AnyFile::Sim),
        }
    }

    fn open(&self, path: &Path) -> io::Result<AnyFile> {
        match self {
            AnyDisk::Os => Os.open(path).map(AnyFile::Os),
            #[cfg(feature = "sim")]
            AnyDisk::Sim(sim) => sim.open(path).map(AnyFile::Sim),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        either!(self, rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        either!(self, remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        either!(self, sync_dir(dir))
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        either!(self, free(dir))
    }
}

impl DiskFile for AnyFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            AnyFile::Os(file) => DiskFile::read_at(file, out, at),
            #[cfg(feature = "sim")]
            AnyFile::Sim(file) => file.read_at(out, at),
        }
    }

    fn len(&self) -> io::Result<u64> {
        match self {
            AnyFile::Os(file) => DiskFile::len(file),
            #[cfg(feature = "sim")]
            AnyFile::Sim(file) => file.len(),
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            AnyFile::Os(file) => DiskFile::write_at(file, bytes, at),
            #[cfg(feature = "sim")]
            AnyFile::Sim(file) => file.write_at(bytes, at),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self {
            AnyFile::Os(file) => DiskFile::set_len(file, len),
            #[cfg(feature = "sim")]
            AnyFile::Sim(file) => file.set_len(len),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self {
            AnyFile::Os(file) => DiskFile::sync(file),
            #[cfg(feature = "sim")]
            AnyFile::Sim(file) => file.sync(),
        }
    }
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
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, out, at)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

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
