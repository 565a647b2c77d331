//! Segment files: names, creation, preparation in the background.
//!
//! A prepared file is `next-N.tmp`, zero-filled and fsynced. It becomes a segment by getting its header (fsynced) and then
//! its name (folder fsynced): a file with a segment's name always has a whole header.
//!
//! Deliberately absent: what is in them.

use super::record::{HEADER, header};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

/// An open segment.
pub(super) struct Segment {
    pub(super) seq: u64,
    pub(super) salt: u64,
    pub(super) file: File,
    pub(super) capacity: u64,
}

pub(super) fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("wal-{seq:016}.seg"))
}

/// The segments in `dir` by number. Leftovers of preparations are deleted.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if let Some(seq) = name
            .strip_prefix("wal-")
            .and_then(|n| n.strip_suffix(".seg"))
            .and_then(|n| n.parse().ok())
        {
            found.push((seq, path));
        } else if name.starts_with("next-") {
            std::fs::remove_file(path)?;
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn zero_filled(path: &Path, bytes: u64, fill: bool) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    if fill {
        let zeros = vec![0; 1 << 20];
        let mut left = bytes as usize;
        while left > 0 {
            let n = left.min(zeros.len());
            file.write_all(&zeros[..n])?;
            left -= n;
        }
    } else {
        file.set_len(bytes)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Makes segments, one ahead of need.
pub(super) struct Preparer {
    dir: PathBuf,
    bytes: u64,
    fill: bool,
    ready: Option<Receiver<io::Result<(PathBuf, File)>>>,
}

impl Preparer {
    /// Starts the thread if files are to be filled ahead; it ends when the `Preparer` is dropped.
    pub(super) fn start(dir: PathBuf, bytes: u64, ahead: bool) -> io::Result<Preparer> {
        let mut ready = None;
        if ahead {
            let (tx, rx) = sync_channel(0);
            let folder = dir.clone();
            std::thread::Builder::new()
                .name("wal-next".into())
                .spawn(move || prepare(&folder, bytes, &tx))?;
            ready = Some(rx);
        }
        Ok(Preparer {
            dir,
            bytes,
            fill: ahead,
            ready,
        })
    }

    /// Segment `seq`, with room for at least `need` bytes behind its header.
    pub(super) fn make(&self, seq: u64, need: u64) -> io::Result<Segment> {
        let wanted = need + HEADER as u64;
        let prepared = match &self.ready {
            Some(ready) if wanted <= self.bytes => Some(ready.recv().map_err(io::Error::other)??),
            _ => None,
        };
        let capacity = wanted.max(self.bytes);
        let (temporary, file) = match prepared {
            Some(prepared) => prepared,
            None => {
                let temporary = self.dir.join(format!("next-odd-{seq}.tmp"));
                let file = zero_filled(&temporary, capacity, self.fill)?;
                (temporary, file)
            }
        };
        let salt = rand::random();
        file.write_all_at(&header(seq, salt), 0)?;
        file.sync_data()?;
        std::fs::rename(temporary, path(&self.dir, seq))?;
        sync_dir(&self.dir)?;
        Ok(Segment {
            seq,
            salt,
            file,
            capacity,
        })
    }
}

fn prepare(dir: &Path, bytes: u64, tx: &SyncSender<io::Result<(PathBuf, File)>>) {
    for n in 0u64.. {
        let path = dir.join(format!("next-{n}.tmp"));
        let made = zero_filled(&path, bytes, true).map(|file| (path.clone(), file));
        // A closed channel: the log has stopped, and this file won't be needed.
        if tx.send(made).is_err() {
            let _ = std::fs::remove_file(path);
            return;
        }
    }
}
