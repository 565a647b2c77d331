//! The cold store: settled auctions of one replica, on disk instead of in memory and in snapshots.
//!
//! ```text
//!   DIR/cold/shard-0007-1f.cold    "RUSHCOLD", version; then record behind record, in order of number (see `record`)
//!   DIR/cold/shard-0007-1f.cidx    the same head in 128 bytes; then 128 bytes for each number: where its record lies, its
//!                                  digest, its id, and a checksum of these
//!
//!   pager --append, sync--> files --then--> Shard::page_out      so what is out of memory is durable, always
//!   readers, apply, transfers <--number or id, below F-- files   F = the state's `cold().count`
//! ```
//!
//! **Why no database.** What is kept here is never changed: records come in one order, each once, the newest are cut off at a
//! start, and all of it is thrown away with its replica. Two files that grow are all that takes. There is no page that is
//! written twice, nothing to repair after a crash, a replica's damage is its own, and simulations run it byte for byte. What it costs is memory
//! for an index by id (`ids`).
//!
//! **Never the future.** A state says by one number, F, which auctions are here: those below. What lies at F and above is not
//! used: it was written ahead of a page-out, or came with a snapshot that isn't installed yet. At a start it is cut off;
//! whoever replays the log from an older snapshot writes it again, the same.
//!
//! **Damage.** At a start every entry of the index is checked, and that the digests below F make the sum that the snapshot names; each
//! piece of a record has a checksum that is looked at when it is read. What doesn't match is never served (`[cold_damaged]`), and
//! the replica is condemned: at its next start it stays shut, and is replaced under a fresh id.
//!
//! A write that fails is taken back, and tried again later; after an fsync that failed nobody knows what the disk holds, so nothing is
//! written any more until the next start. Auctions stay in memory then, and bids never notice.
//!
//! Deliberately absent: when to page out (`pager`); deleting one auction.

mod answer;
pub(crate) mod pager;
mod record;
pub(crate) mod salvage;
#[cfg(test)]
mod tests;

use crate::{
    metrics,
    wal::disk::{AnyDisk, Disk, DiskFile, exactly},
};
use auction::{AuctionId, AuctionParts, AuctionView, Cold, Event, Settled, Sum};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

const MAGIC: [u8; 8] = *b"RUSHCOLD";
const VERSION: u32 = 1;
/// Bytes of an entry of the index, and of its head.
const ENTRY: usize = 128;
/// Bytes before the first record.
pub(crate) const HEAD: u64 = 16;
/// Whole auctions that were read last, and are kept for whoever asks again.
const RECENT: usize = 8;
/// Entries of the index that are read at once.
const AT_ONCE: usize = 2_048;

/// Where a node's settled auctions lie.
#[derive(Clone)]
pub(crate) struct ColdDir {
    pub(crate) disk: AnyDisk,
    pub(crate) dir: PathBuf,
}

/// What doesn't match.
pub(crate) fn damaged(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("[cold_damaged] {what}"))
}

/// Where a record lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) id: AuctionId,
    pub(crate) digest: [u8; 32],
    at: u64,
    pub(crate) len: u64,
    head: u32,
    head_crc32c: u32,
}

impl Place {
    fn to_bytes(&self) -> [u8; ENTRY] {
        let mut out = [0; ENTRY];
        out[..8].copy_from_slice(&self.at.to_le_bytes());
        out[8..16].copy_from_slice(&self.len.to_le_bytes());
        out[16..20].copy_from_slice(&self.head.to_le_bytes());
        out[20..24].copy_from_slice(&self.head_crc32c.to_le_bytes());
        out[24..56].copy_from_slice(&self.digest);
        let id = self.id.as_str().as_bytes();
        // An id is at most 64 bytes long.
        out[56] = id.len() as u8;
        out[60..60 + id.len()].copy_from_slice(id);
        let crc = crc32c::crc32c(&out[..124]);
        out[124..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Place> {
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        if word(124)? != crc32c::crc32c(bytes.get(..124)?) {
            return None;
        }
        let id = bytes.get(60..60 + usize::from(bytes[56]))?;
        Some(Place {
            id: AuctionId::parse(std::str::from_utf8(id).ok()?)?,
            digest: *bytes.get(24..)?.first_chunk()?,
            at: long(0)?,
            len: long(8)?,
            head: word(16)?,
            head_crc32c: word(20)?,
        })
    }
}

fn head_of() -> [u8; HEAD as usize] {
    let mut head = [0; HEAD as usize];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head
}

struct Files<F> {
    records: F,
    index: F,
}

struct Inner<F> {
    files: Option<Arc<Files<F>>>,
    /// Records written.
    count: u64,
    /// Of these, so many are durable.
    durable: u64,
    /// Bytes of the file of records.
    end: u64,
    ids: BTreeMap<AuctionId, u64>,
    recent: VecDeque<Arc<Settled>>,
    /// Nothing is written any more.
    sick: Option<String>,
}

/// One replica's settled auctions on disk.
pub(crate) struct ColdStore<D: Disk = AnyDisk> {
    disk: D,
    group: u32,
    replica: u64,
    dir: PathBuf,
    records: PathBuf,
    index: PathBuf,
    inner: Mutex<Inner<D::File>>,
    /// Held by whoever writes.
    writing: Mutex<()>,
    /// Records that were looked for.
    #[cfg(test)]
    pub(crate) looked: std::sync::atomic::AtomicUsize,
}

fn prefix(group: u32) -> String {
    format!("shard-{group:04}-")
}

fn own_prefix(group: u32, replica: u64) -> String {
    format!("{}{replica:x}.", prefix(group))
}

/// Whether a file is of a group's replicas, but not of this one.
fn is_former(group: u32, replica: u64) -> impl Fn(&str) -> bool {
    let (of, own) = (prefix(group), own_prefix(group, replica));
    move |name| name.starts_with(&of) && !name.starts_with(&own)
}

/// Deletes what lies here of a group's replicas. Durable.
pub(crate) fn clear<D: Disk>(disk: &D, dir: &Path, group: u32) -> io::Result<()> {
    let of = prefix(group);
    remove(disk, dir, |name| name.starts_with(&of)).map(drop)
}

/// The same of all replicas but one.
fn drop_former<D: Disk>(disk: &D, dir: &Path, group: u32, but: u64) -> io::Result<()> {
    remove(disk, dir, is_former(group, but)).map(drop)
}

/// Deletes what lies here of groups that aren't wanted; how many files that were. A crash between throwing a replica away and
/// clearing its records leaves them, and nobody else would ever look. Durable.
pub(crate) fn sweep<D: Disk>(disk: &D, dir: &Path, wanted: impl Fn(u32) -> bool) -> io::Result<usize> {
    let group = |name: &str| name.strip_prefix("shard-")?.split_once('-')?.0.parse().ok();
    remove(disk, dir, |name| group(name).is_some_and(|group| !wanted(group)))
}

fn remove<D: Disk>(disk: &D, dir: &Path, goes: impl Fn(&str) -> bool) -> io::Result<usize> {
    let names = match disk.names(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut gone = 0;
    for name in names.iter().filter(|name| goes(name)) {
        disk.remove(&dir.join(name))?;
        gone += 1;
    }
    if gone > 0 {
        disk.sync_dir(dir)?;
    }
    Ok(gone)
}

#[cfg(test)]
impl ColdStore {
    /// An empty one, for tests in which nothing settles.
    pub(crate) fn none() -> ColdStore {
        let dir = Path::new("/there/is/no/such/folder");
        ColdStore::open(AnyDisk::Os, dir, 1, 1, &Cold::default()).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl<D: Disk> ColdStore<D>
where
    D::File: Sync,
{
    /// What lies here of a replica whose snapshot names `cold`; what lies above that is cut off. Blocks.
    ///
    /// Other replicas' files of the group stay until this one has as much as it will ever be sent (`drop_former`): a replica that
    /// comes in the place of a damaged one is empty at first, and what the old one has may be wanted (`salvage`).
    pub(crate) fn open(disk: D, dir: &Path, group: u32, replica: u64, cold: &Cold) -> io::Result<ColdStore<D>> {
        if cold.count == 0 {
            let own = own_prefix(group, replica);
            remove(&disk, dir, |name| name.starts_with(&own))?;
        }
        let name = |ending: &str| dir.join(format!("{}{ending}", own_prefix(group, replica)));
        let store = ColdStore {
            records: name("cold"),
            index: name("cidx"),
            dir: dir.to_owned(),
            disk,
            group,
            replica,
            inner: Mutex::new(Inner {
                files: None,
                count: 0,
                durable: 0,
                end: HEAD,
                ids: BTreeMap::new(),
                recent: VecDeque::new(),
                sick: None,
            }),
            writing: Mutex::new(()),
            #[cfg(test)]
            looked: std::sync::atomic::AtomicUsize::default(),
        };
        if cold.count > 0 {
            store.recover(cold)?;
            drop_former(&store.disk, dir, group, replica)?;
        }
        Ok(store)
    }

    fn recover(&self, cold: &Cold) -> io::Result<()> {
        let open = |path: &Path| {
            self.disk.open(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => damaged(format!("{} is gone", path.display())),
                _ => error,
            })
        };
        let files = Files {
            records: open(&self.records)?,
            index: open(&self.index)?,
        };
        for (file, path) in [(&files.records, &self.records), (&files.index, &self.index)] {
            let mut head = [0; HEAD as usize];
            exactly(file, &mut head, 0).map_err(|_| damaged(format!("{} has no head", path.display())))?;
            if head != head_of() {
                return Err(damaged(format!("{} is no file of this version", path.display())));
            }
        }
        let (mut sum, mut end, mut ids) = (Sum::default(), HEAD, BTreeMap::new());
        self.walk(&files, cold.count, |number, place| {
            if place.at != end || u64::from(place.head) > place.len {
                return Err(damaged(format!("record {number} doesn't follow the one before")));
            }
            end += place.len;
            sum = sum.plus(&place.digest);
            ids.insert(place.id, number);
            Ok(())
        })?;
        if sum != cold.sum || ids.len() as u64 != cold.count || files.records.len()? < end {
            return Err(damaged(format!(
                "{}: the first {} records aren't those that the snapshot names",
                self.records.display(),
                cold.count
            )));
        }
        // What lies above is written again, the same, when its time comes.
        files.records.set_len(end)?;
        files.index.set_len(ENTRY as u64 * (1 + cold.count))?;
        let mut inner = self.inner.lock();
        (inner.count, inner.durable, inner.end, inner.ids) = (cold.count, cold.count, end, ids);
        inner.files = Some(Arc::new(files));
        Ok(())
    }

    /// Each entry of the index below `upto`.
    fn walk(
        &self,
        files: &Files<D::File>,
        upto: u64,
        mut each: impl FnMut(u64, Place) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut number = 0;
        let mut piece = vec![0; ENTRY * AT_ONCE];
        while number < upto {
            let many = usize::try_from(upto - number).unwrap_or(AT_ONCE).min(AT_ONCE);
            let piece = &mut piece[..many * ENTRY];
            exactly(&files.index, piece, ENTRY as u64 * (1 + number))
                .map_err(|_| damaged(format!("{} ends too early", self.index.display())))?;
            for bytes in piece.chunks_exact(ENTRY) {
                let place = Place::from_bytes(bytes)
                    .ok_or_else(|| damaged(format!("{}: entry {number}", self.index.display())))?;
                each(number, place)?;
                number += 1;
            }
        }
        Ok(())
    }

    // ---- writing

    fn files(&self) -> io::Result<Arc<Files<D::File>>> {
        if let Some(why) = &self.inner.lock().sick {
            return Err(io::Error::other(why.clone()));
        }
        if let Some(files) = self.inner.lock().files.clone() {
            return Ok(files);
        }
        self.disk.make_dir(&self.dir)?;
        if let Some(above) = self.dir.parent() {
            self.disk.sync_dir(above)?;
        }
        let files = Files {
            records: self.disk.create(&self.records)?,
            index: self.disk.create(&self.index)?,
        };
        files.records.write_at(&head_of(), 0)?;
        let mut first = [0; ENTRY];
        first[..HEAD as usize].copy_from_slice(&head_of());
        files.index.write_at(&first, 0)?;
        self.disk.sync_dir(&self.dir)?;
        let files = Arc::new(files);
        self.inner.lock().files = Some(files.clone());
        Ok(files)
    }

    /// How many records are here, durable or not.
    pub(crate) fn count(&self) -> u64 {
        self.inner.lock().count
    }

    /// Bytes of all records.
    pub(crate) fn bytes(&self) -> u64 {
        self.inner.lock().end - HEAD
    }

    /// Takes a settled auction in, unless it is here already. Its number must be the next one. Blocks.
    pub(crate) fn append(&self, settled: &Settled) -> io::Result<()> {
        if settled.number() < self.count() {
            return Ok(());
        }
        let (record, head) = record::encode(settled);
        self.put(settled, &record, head)
    }

    /// Takes a record in that another replica has written: what it says, in this build's own words. Blocks.
    pub(crate) fn take(&self, number: u64, record: &[u8]) -> io::Result<()> {
        #[cfg(feature = "sim")]
        {
            crate::sim::met_cold("taken");
            if crate::sim::planted(crate::sim::Plant::ColdLeftBehind) {
                return Ok(());
            }
        }
        let (settled, _) = record::decode(record)?;
        if settled.number() != number {
            return Err(damaged(format!("record {number} says that it is {}", settled.number())));
        }
        self.append(&settled)
    }

    fn put(&self, settled: &Settled, record: &[u8], head: u32) -> io::Result<()> {
        let _one = self.writing.lock();
        let files = self.files()?;
        let (count, at) = {
            let inner = self.inner.lock();
            (inner.count, inner.end)
        };
        if settled.number() < count {
            return Ok(());
        }
        if settled.number() > count {
            return Err(io::Error::other(format!("record {} before {count}", settled.number())));
        }
        let place = Place {
            id: settled.id().clone(),
            digest: *settled.digest(),
            at,
            len: record.len() as u64,
            head,
            head_crc32c: crc32c::crc32c(&record[..head as usize]),
        };
        let written = files
            .records
            .write_at(record, at)
            .and_then(|()| files.index.write_at(&place.to_bytes(), ENTRY as u64 * (1 + count)));
        if let Err(error) = written {
            // What a full disk holds of it is worth less than the room.
            let _ = files.records.set_len(at);
            let _ = files.index.set_len(ENTRY as u64 * (1 + count));
            return Err(error);
        }
        let mut inner = self.inner.lock();
        inner.ids.insert(place.id, count);
        (inner.count, inner.end) = (count + 1, at + place.len);
        Ok(())
    }

    /// Makes durable what was written; how many records are, then. Blocks.
    pub(crate) fn sync(&self) -> io::Result<u64> {
        let _one = self.writing.lock();
        let (count, durable) = {
            let inner = self.inner.lock();
            (inner.count, inner.durable)
        };
        if count == durable {
            return Ok(durable);
        }
        #[cfg(feature = "sim")]
        if crate::sim::planted(crate::sim::Plant::PagedOutUnsynced) {
            return Ok(count);
        }
        let files = self.files()?;
        if let Err(error) = files.records.sync().and_then(|()| files.index.sync()) {
            self.inner.lock().sick = Some(format!("an fsync of settled auctions failed: {error}"));
            return Err(error);
        }
        self.inner.lock().durable = count;
        Ok(count)
    }

    /// A snapshot that names `cold` is about to become this replica's: all of that must be here, and durable. Blocks.
    pub(crate) fn holds(&self, cold: &Cold) -> io::Result<()> {
        if cold.count == 0 {
            return Ok(());
        }
        #[cfg(feature = "sim")]
        if crate::sim::planted(crate::sim::Plant::ColdLeftBehind) {
            return Ok(());
        }
        let durable = self.sync()?;
        if durable < cold.count {
            let what = format!(
                "{durable} settled auctions are here, and the snapshot names {}",
                cold.count
            );
            return Err(io::Error::other(what));
        }
        let (files, mut sum) = (self.open_files()?, Sum::default());
        let walked = self.walk(&files, cold.count, |_, place| {
            sum = sum.plus(&place.digest);
            Ok(())
        });
        walked.map_err(|error| match error.kind() {
            // Else the same snapshot would come again and again, and fail here each time without a word.
            io::ErrorKind::InvalidData => self.bad(error),
            _ => error,
        })?;
        if sum == cold.sum {
            Ok(())
        } else {
            Err(damaged("the settled auctions here aren't those of the snapshot"))
        }
    }

    /// What a snapshot names is here: what former replicas had isn't wanted any more. Blocks.
    pub(crate) fn succeed(&self) {
        // If the disk won't now, the next start does it.
        let _ = drop_former(&self.disk, &self.dir, self.group, self.replica);
    }

    /// A founding gave up what it couldn't read: what former replicas had of it is the last there is, and stays under names that
    /// nobody reads or clears any more (`lost-NNNN-*`). Blocks.
    pub(crate) fn set_aside(&self) -> io::Result<()> {
        let former = is_former(self.group, self.replica);
        for name in self.disk.names(&self.dir)? {
            if let Some(rest) = name.strip_prefix("shard-")
                && former(&name)
            {
                self.disk
                    .rename(&self.dir.join(&name), &self.dir.join(format!("lost-{rest}")))?;
            }
        }
        self.disk.sync_dir(&self.dir)
    }

    /// A record is damaged: at its next start this replica is found to be hurt, and isn't opened. Blocks.
    fn condemn(&self) {
        // If the disk won't even do this, the next start finds out when it reads that record again.
        let _ = self.disk.rename(&self.index, &self.index.with_extension("damaged"));
        let _ = self.disk.sync_dir(&self.dir);
    }

    // ---- reading; all of it below `below`, the state's own count

    /// An auction's number, if it is cold to a state that has so many.
    pub(crate) fn find(&self, auction: &AuctionId, below: u64) -> Option<u64> {
        if below == 0 {
            return None;
        }
        let number = self.inner.lock().ids.get(auction).copied();
        number.filter(|number| *number < below)
    }

    /// The ids of cold auctions after one, in order, at most so many.
    pub(crate) fn ids(&self, after: Option<&AuctionId>, many: usize, below: u64) -> Vec<(AuctionId, u64)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let inner = self.inner.lock();
        let range = inner.ids.range::<AuctionId, _>((from, Bound::Unbounded));
        let cold = range.filter(|(_, number)| **number < below);
        cold.take(many).map(|(id, number)| (id.clone(), *number)).collect()
    }

    /// Where a record lies. Blocks.
    pub(crate) fn place(&self, number: u64) -> io::Result<Place> {
        #[cfg(test)]
        self.looked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let files = self.open_files()?;
        let mut bytes = [0; ENTRY];
        let read = exactly(&files.index, &mut bytes, ENTRY as u64 * (1 + number));
        read.map_err(|error| self.unread(number, error))?;
        Place::from_bytes(&bytes).ok_or_else(|| self.broken(number, "its entry of the index"))
    }

    fn open_files(&self) -> io::Result<Arc<Files<D::File>>> {
        let files = self.inner.lock().files.clone();
        files.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn broken(&self, number: u64, what: impl std::fmt::Display) -> io::Error {
        self.bad(damaged(format!("{}: record {number}: {what}", self.records.display())))
    }

    fn bad(&self, error: io::Error) -> io::Error {
        metrics::cold_damaged();
        #[cfg(feature = "sim")]
        crate::sim::met_cold("damaged");
        tracing::error!(%error, "a settled auction can't be read");
        self.condemn();
        error
    }

    /// A disk that can't give back what was written is damage, too; else whoever restarts would meet it again and again.
    fn unread(&self, number: u64, error: io::Error) -> io::Error {
        let bad_sector = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
        if bad_sector || error.kind() == io::ErrorKind::UnexpectedEof {
            self.broken(number, error)
        } else {
            error
        }
    }

    /// Some bytes of a record. Blocks.
    fn piece(&self, place: &Place, from: u64, len: usize) -> io::Result<Bytes> {
        let files = self.open_files()?;
        let len = place.len.saturating_sub(from).min(len as u64) as usize;
        let mut bytes = vec![0; len];
        exactly(&files.records, &mut bytes, place.at + from)?;
        Ok(Bytes::from(bytes))
    }

    fn head(&self, number: u64) -> io::Result<(Place, record::Head)> {
        let place = self.place(number)?;
        let bytes = self.piece(&place, 0, place.head as usize);
        let bytes = bytes.map_err(|error| self.unread(number, error))?;
        if crc32c::crc32c(&bytes) != place.head_crc32c {
            return Err(self.broken(number, "its head fails the checksum"));
        }
        let head = record::Head::read(bytes).map_err(|error| self.broken(number, error))?;
        Ok((place, head))
    }

    /// An auction as shown. Blocks.
    pub(crate) fn view(&self, number: u64) -> io::Result<AuctionView> {
        Ok(self.head(number)?.1.view)
    }

    /// Events after version `after`, at most `limit`. Reads only what holds them. Blocks.
    pub(crate) fn events(&self, number: u64, after: u64, limit: usize) -> io::Result<Vec<Arc<Event>>> {
        let (place, head) = self.head(number)?;
        let mut events = Vec::new();
        for span in head.events_after(after) {
            if events.len() >= limit {
                break;
            }
            let bytes = self.piece(&place, span.at, span.len);
            let bytes = bytes.map_err(|error| self.unread(number, error))?;
            let some = span.events(&bytes).map_err(|error| self.broken(number, error))?;
            events.extend(some.into_iter().filter(|event| event.seq > after));
        }
        events.truncate(limit);
        Ok(events)
    }

    /// An auction, whole. Blocks.
    pub(crate) fn load(&self, number: u64) -> io::Result<Arc<Settled>> {
        let known = self.inner.lock().recent.iter().find(|s| s.number() == number).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let settled = Arc::new(self.checked(number)?.1);
        let mut inner = self.inner.lock();
        if inner.recent.len() >= RECENT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(settled.clone());
        Ok(settled)
    }

    /// An auction as plain values, for whoever wants all of them once. Blocks.
    pub(crate) fn parts(&self, number: u64) -> io::Result<AuctionParts> {
        Ok(self.checked(number)?.1.parts())
    }

    /// A record, for another replica: it goes nowhere before it was checked. Blocks.
    pub(crate) fn record(&self, number: u64) -> io::Result<Bytes> {
        #[cfg(feature = "sim")]
        crate::sim::met_cold("sent");
        Ok(self.checked(number)?.0)
    }

    fn checked(&self, number: u64) -> io::Result<(Bytes, Settled)> {
        let place = self.place(number)?;
        let bytes = self.piece(&place, 0, usize::try_from(place.len).map_err(io::Error::other)?);
        let bytes = bytes.map_err(|error| self.unread(number, error))?;
        let (settled, head) = record::decode(&bytes).map_err(|error| self.broken(number, error))?;
        if head != place.head || crc32c::crc32c(&bytes[..head as usize]) != place.head_crc32c {
            return Err(self.broken(number, "its head fails the checksum"));
        }
        if settled.number() != number || *settled.digest() != place.digest {
            return Err(self.broken(number, "it isn't what its digest says"));
        }
        Ok((bytes, settled))
    }
}
