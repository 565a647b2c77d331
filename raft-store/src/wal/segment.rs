//! Segment files: names, creation, preparation in the background, and a reserve for a full disk.
//!
//! ```text
//!   next-N.tmp  zero-filled, fsynced ──.
//!                                      ├─> header, fsync ──> wal-M.seg, folder fsynced
//!   reserve-N.tmp, if the disk is full ┘
//! ```
//!
//! A file with a segment's name always has a whole header. The helper thread keeps one file ready and the reserve whole,
//! and looks at the free room once a second; while the disk is full it tries again at each look, and whenever a segment
//! was deleted.
//!
//! **An I/O error while a file is prepared** doesn't stop the log: nothing was promised of that file, and the segment in
//! use is another. The file is thrown away, never synced again, and a new one is begun at the next look. Until one
//! succeeds the disk counts as ailing (`space`), so that the node leads nothing. If the log needs the file before that,
//! one last new one is tried, and its error is final.
//!
//! Deliberately absent: what is in them.

use super::{
    Options,
    disk::{Disk, DiskFile},
    plant::{self, Plant},
    record::{Form, HEADER, Header, VERSION},
    space::Space,
};
use parking_lot::{Condvar, Mutex};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

/// How often the helper looks at the free room.
const LOOK: Duration = Duration::from_secs(1);
/// Zeros are written in pieces of this size; between two of them the helper sees that it is to stop.
const PIECE: usize = 1 << 20;

/// An open segment.
pub(super) struct Segment<F> {
    pub(super) header: Header,
    pub(super) file: F,
    pub(super) capacity: u64,
}

pub(super) fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("wal-{seq:016}.seg"))
}

/// The number in a segment's name.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix("wal-")?.strip_suffix(".seg")?.parse().ok()
}

/// The segments in `dir`, oldest first.
pub(super) fn list(disk: &impl Disk, dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let names = disk.names(dir)?;
    let mut found: Vec<_> = names
        .iter()
        .filter_map(|name| Some((number(name)?, dir.join(name))))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Deletes what earlier preparations left.
pub(super) fn sweep(disk: &impl Disk, dir: &Path) -> io::Result<()> {
    for name in disk.names(dir)? {
        if (name.starts_with("next-") || name.starts_with("reserve-")) && name.ends_with(".tmp") {
            disk.remove(&dir.join(name))?;
        }
    }
    Ok(())
}

fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

type Prepared<F> = (PathBuf, F);

struct State<F> {
    ready: Option<Prepared<F>>,
    reserve: Vec<Prepared<F>>,
    /// A full disk made the log take from the reserve, and it isn't whole again.
    dipped: bool,
    /// Why the helper could not make the file that is wanted.
    failed: Option<(io::ErrorKind, String)>,
    stop: bool,
    /// A segment was deleted: look again.
    freed: bool,
    named: u64,
}

struct Pool<D: Disk> {
    disk: D,
    dir: PathBuf,
    options: Options,
    space: Arc<Space>,
    state: Mutex<State<D::File>>,
    changed: Condvar,
}

/// Makes segments, one ahead of need.
pub(super) struct Preparer<D: Disk> {
    pool: Arc<Pool<D>>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Disk> Preparer<D> {
    /// Starts the helper if files are to be filled ahead; it ends when the `Preparer` is dropped.
    pub(super) fn start(disk: D, dir: PathBuf, options: Options, space: Arc<Space>) -> io::Result<Preparer<D>> {
        let state = State {
            ready: None,
            reserve: Vec::new(),
            dipped: false,
            failed: None,
            stop: false,
            freed: false,
            named: 0,
        };
        let pool = Arc::new(Pool {
            disk,
            dir,
            options,
            space,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let mut thread = None;
        if options.preallocate {
            let pool = pool.clone();
            thread = Some(
                std::thread::Builder::new()
                    .name("wal-next".into())
                    .spawn(move || pool.prepare())?,
            );
        } else {
            pool.look();
        }
        Ok(Preparer { pool, thread })
    }

    /// Segment `seq`, with room for at least `need` bytes behind its header.
    pub(super) fn make(&self, seq: u64, before: u64, batch: u64, need: u64) -> io::Result<Segment<D::File>> {
        let pool = &self.pool;
        let wanted = need + HEADER as u64;
        let capacity = wanted.max(pool.options.segment_bytes);
        let prepared = match self.thread {
            Some(_) if wanted <= pool.options.segment_bytes => pool.take()?,
            _ => pool.fill("next-odd", capacity)?,
        };
        let (temporary, file) = prepared;
        let header = Header {
            form: Form {
                version: VERSION,
                salt: rand::random(),
            },
            seq,
            before,
            batch,
        };
        file.write_at(&header.write(), 0)?;
        if !plant::is(Plant::HeaderUnsynced) {
            file.sync()?;
        }
        pool.disk.rename(&temporary, &path(&pool.dir, seq))?;
        if !plant::is(Plant::NameUnsynced) {
            pool.disk.sync_dir(&pool.dir)?;
        }
        Ok(Segment { header, file, capacity })
    }

    /// Deletes segment `seq`. Durable at once: segments go oldest first, and never come back in another order.
    pub(super) fn delete(&self, seq: u64) -> io::Result<()> {
        let pool = &self.pool;
        pool.disk.remove(&path(&pool.dir, seq))?;
        pool.disk.sync_dir(&pool.dir)?;
        pool.state.lock().freed = true;
        pool.changed.notify_all();
        Ok(())
    }
}

impl<D: Disk> Drop for Preparer<D> {
    fn drop(&mut self) {
        self.pool.state.lock().stop = true;
        self.pool.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there was a bug, and the panic hook has told it.
            let _ = thread.join();
        }
    }
}

impl<D: Disk> Pool<D> {
    /// A file that is ready; waits for it. From the reserve when the disk is full, or fails.
    fn take(&self) -> io::Result<Prepared<D::File>> {
        let mut state = self.state.lock();
        loop {
            if let Some(prepared) = state.ready.take() {
                self.changed.notify_all();
                return Ok(prepared);
            }
            if let Some((kind, _)) = state.failed {
                if let Some(prepared) = state.reserve.pop() {
                    state.dipped |= is_full(kind);
                    drop(state);
                    if is_full(kind) {
                        self.space.tell(0, self.options.low_water_bytes, true);
                    }
                    return Ok(prepared);
                }
                drop(state);
                // The last word is the disk's, and it may have changed its mind.
                return self.fill("next-odd", self.options.segment_bytes);
            }
            self.changed.wait(&mut state);
        }
    }

    /// The helper's life.
    fn prepare(&self) {
        while let Some(what) = self.wanted() {
            self.look();
            let made = what.map(|name| self.fill(name, self.options.segment_bytes)).transpose();
            let mut state = self.state.lock();
            match made {
                Ok(None) => {}
                Ok(Some(prepared)) => {
                    self.space.ails(false);
                    state.failed = None;
                    if state.ready.is_none() {
                        state.ready = Some(prepared);
                    } else {
                        state.reserve.push(prepared);
                        state.dipped &= state.reserve.len() < self.options.reserve_segments;
                    }
                }
                Err(error) => {
                    self.space.ails(!is_full(error.kind()));
                    if state.failed.is_none() {
                        tracing::warn!(%error, "a file for the log can't be prepared; a new one is tried once a second");
                    }
                    crate::metrics::unprepared();
                    state.failed = Some((error.kind(), error.to_string()));
                }
            }
            self.changed.notify_all();
        }
    }

    /// Waits until there is something to make (its name) or the room is to be looked at (`None`). None at all: stop.
    fn wanted(&self) -> Option<Option<&'static str>> {
        let mut state = self.state.lock();
        let wants = |state: &State<D::File>| {
            let reserve = state.reserve.len() < self.options.reserve_segments;
            let reserve = reserve.then_some("reserve");
            if state.ready.is_none() { Some("next") } else { reserve }
        };
        if state.stop {
            return None;
        }
        // After a failure, once a look is enough.
        let quiet = |state: &mut State<D::File>| {
            !state.stop && !state.freed && (state.failed.is_some() || wants(state).is_none())
        };
        self.changed.wait_while_for(&mut state, quiet, LOOK);
        state.freed = false;
        (!state.stop).then(|| wants(&state))
    }

    /// Tells how much room there is.
    fn look(&self) {
        let free = match self.disk.free(&self.dir) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "can't tell how much room the log's disk has");
                return;
            }
        };
        let state = self.state.lock();
        let full = state.failed.as_ref().is_some_and(|(kind, _)| is_full(*kind));
        // One file more is not yet a whole reserve: a disk that gives back a little says `Reserve` on.
        let used = state.dipped || full && state.reserve.len() < self.options.reserve_segments;
        drop(state);
        self.space.tell(free, self.options.low_water_bytes, used);
        crate::metrics::stalled(self.space.stalled().as_secs_f64());
    }

    /// A new file of `bytes` zeros, durable. On an error nothing is left of it.
    fn fill(&self, name: &str, bytes: u64) -> io::Result<Prepared<D::File>> {
        let n = {
            let mut state = self.state.lock();
            state.named += 1;
            state.named
        };
        let path = self.dir.join(format!("{name}-{n}.tmp"));
        match self.zeros(&path, bytes) {
            Ok(file) => Ok((path, file)),
            Err(error) => {
                // It may not be there at all.
                let _ = self.disk.remove(&path);
                Err(error)
            }
        }
    }

    fn zeros(&self, path: &Path, bytes: u64) -> io::Result<D::File> {
        let file = self.disk.create(path)?;
        if self.options.preallocate {
            let zeros = vec![0; PIECE.min(bytes as usize)];
            let mut at = 0;
            while at < bytes && !self.state.lock().stop {
                let n = (bytes - at).min(PIECE as u64);
                file.write_at(&zeros[..n as usize], at)?;
                at += n;
            }
        }
        file.set_len(bytes)?;
        file.sync()?;
        Ok(file)
    }
}
