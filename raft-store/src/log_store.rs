//! One group's log: every entry that no snapshot covers yet, in memory, and on disk through the node's `wal`.
//!
//! ```text
//!   openraft --append--> memory (readable at once) --push--> wal --fsync--> callback --> openraft counts it
//! ```
//!
//! All living entries are in memory, because compaction bounds them by bytes (`RaftOptions::snapshot_bytes` and
//! `keep_bytes`): reads for replication and for applying never touch the disk. Memory and the queue to the disk change
//! under one lock, so that their order is the same, also against `rewrite`.
//!
//! A vote is durable before `save_vote` returns: only then is it spoken. A commit is kept lazily (`Wal::push_lazy`): it
//! saves a restarted replica the wait for a leader, and nothing depends on it.
//!
//! Deliberately absent: what entries mean, and when to compact (`janitor`).

mod disk;
#[cfg(test)]
mod tests;

pub(crate) use disk::describe;

use crate::{
    options::RaftOptions,
    types::{LogEntry, LogId, TypeConfig, Vote},
    wal::{Kind, Op, Record, Wal},
};
use bytes::Bytes;
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::Arc,
    time::Instant,
};

/// What a test or a simulation has this log forget to write, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unwritten {
    Vote,
    Cut,
}

/// Whether that mistake is to be made now: never in a build for operators.
#[inline]
fn skips(what: Unwritten) -> bool {
    #[cfg(test)]
    if tests::SKIPPED.get() == Some(what) {
        return true;
    }
    #[cfg(feature = "sim")]
    return crate::sim::planted(match what {
        Unwritten::Vote => crate::sim::Plant::VoteNotPersisted,
        Unwritten::Cut => crate::sim::Plant::TruncateNotPersisted,
    });
    #[cfg(not(feature = "sim"))]
    {
        let _ = what;
        false
    }
}

/// What recovery found of a group.
#[derive(Clone, Default)]
pub(crate) struct Found {
    born: Option<u64>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, LogEntry>,
    /// Damage took records of this log: why we know.
    hurt: Option<String>,
}

impl Found {
    /// Takes in one record, in the order in which they were written.
    pub(crate) fn take(&mut self, kind: Kind, payload: Bytes) -> Result<(), String> {
        match kind {
            Kind::Entry => {
                let entry = disk::read_entry(payload)?;
                self.entries.insert(entry.log_id.index, entry);
            }
            Kind::Vote => self.vote = Some(disk::read_vote(&payload)?),
            Kind::Truncate => drop(self.entries.split_off(&disk::read_truncate(&payload)?)),
            Kind::Purge => {
                let id = disk::read_log_id(&payload)?;
                self.entries = self.entries.split_off(&(id.index + 1));
                self.purged = Some(id);
            }
            Kind::Commit => self.committed = Some(disk::read_log_id(&payload)?),
            Kind::Born => {
                let born = disk::read_born(&payload)?;
                // Logs of format 1 have checkpoints in which a birth comes behind what was said after it.
                if self.born.is_some_and(|before| before != born) {
                    *self = Found::default();
                }
                self.born = Some(born);
            }
            Kind::Hurt => self.hurt = Some(String::from_utf8_lossy(&payload).into_owned()),
            Kind::Seal | Kind::Cut | Kind::Tally => {}
        }
        Ok(())
    }

    /// Why `replica` must not go on with this log: damage took something of it that it may have answered for. Another
    /// replica has nothing to do with it.
    pub(crate) fn hurt(&self, replica: u64) -> Option<&str> {
        self.hurt.as_deref().filter(|_| self.born == Some(replica))
    }

    /// The same log, of a replica that must not go on, and why.
    pub(crate) fn hurt_by(mut self, why: &str) -> Found {
        self.hurt.get_or_insert_with(|| why.to_owned());
        self
    }

    /// Its entries, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &LogEntry> {
        self.entries.values()
    }

    /// Up to where entries are gone.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// Term and index of the newest entry that it has with all before it, here or in a snapshot: nothing can be founded from
    /// what comes after a gap.
    pub(crate) fn tail(&self) -> (u64, u64) {
        let mut last = self.purged;
        for entry in self.entries() {
            if last.is_some_and(|id| entry.log_id.index != id.index + 1) {
                break;
            }
            last = Some(entry.log_id);
        }
        last.map_or((0, 0), |id| (id.leader_id.term, id.index))
    }

    /// The highest term that it has heard of.
    pub(crate) fn term(&self) -> u64 {
        let vote = self.vote.map_or(0, |vote| vote.leader_id.term);
        let last = self.entries.last_key_value().map(|(_, entry)| entry.log_id);
        vote.max(last.or(self.purged).map_or(0, |id| id.leader_id.term))
    }

    /// Whether nobody's replica is here: it was thrown away, or never born; of a log that damage hurt nobody can tell.
    pub(crate) fn is_nobodys(&self) -> bool {
        self.born().is_none() && self.hurt.is_none()
    }

    /// The replica whose log this is; none if it was thrown away.
    pub(crate) fn born(&self) -> Option<u64> {
        self.born.filter(|replica| *replica > 0)
    }
}

struct Cached {
    entry: LogEntry,
    bytes: usize,
    heard: Instant,
}

impl Cached {
    fn new(entry: LogEntry, heard: Instant) -> Cached {
        let bytes = disk::size(&entry);
        Cached { entry, bytes, heard }
    }
}

struct Memory {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// Index of the first of `entries`, or of the next entry if there is none.
    first: u64,
    /// Without gaps.
    entries: VecDeque<Cached>,
    /// Sum of their sizes.
    bytes: u64,
}

impl Memory {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Nothing was ever here. Raft then begins at 0; openraft's suite of tests at 1.
    fn is_virgin(&self) -> bool {
        self.entries.is_empty() && self.purged.is_none()
    }

    fn last_log_id(&self) -> Option<LogId> {
        self.entries.back().map(|cached| cached.entry.log_id).or(self.purged)
    }

    fn at(&self, index: u64) -> Option<&Cached> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn push(&mut self, cached: Cached) {
        self.bytes += cached.bytes as u64;
        self.entries.push_back(cached);
    }

    /// Drops entries from `index` on.
    fn truncate(&mut self, index: u64) {
        let keep = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        while self.entries.len() > keep {
            self.bytes -= self.entries.pop_back().map_or(0, |cached| cached.bytes as u64);
        }
    }

    fn purge(&mut self, id: LogId) {
        while self.first <= id.index
            && let Some(cached) = self.entries.pop_front()
        {
            self.bytes -= cached.bytes as u64;
            self.first += 1;
        }
        self.first = self.first.max(id.index + 1);
        self.purged = self.purged.max(Some(id));
    }
}

/// A group's log. Cheap to clone: all clones are one.
#[derive(Clone)]
pub(crate) struct LogStore {
    group: u32,
    wal: Wal,
    memory: Arc<Mutex<Memory>>,
    append_bytes_max: usize,
}

impl LogStore {
    /// The log of `replica` in `group`, from what recovery found. A log of another replica is disowned on disk.
    pub(crate) async fn open(
        group: u32,
        replica: u64,
        wal: Wal,
        found: Option<Found>,
        options: &RaftOptions,
    ) -> Result<LogStore, String> {
        if let Some(why) = found.as_ref().and_then(|found| found.hurt(replica)) {
            return Err(format!(
                "group {group}: damage in the log hurt replica {replica} ({why}): it must come back under a fresh id"
            ));
        }
        let found = match found {
            Some(found) if found.born == Some(replica) => found,
            _ => {
                let born = Record::new(group, Kind::Born, disk::write_born(replica), Bytes::new());
                wal.write(vec![born]).await.map_err(|error| error.to_string())?;
                Found::default()
            }
        };
        let now = Instant::now();
        let Found {
            vote,
            committed,
            purged,
            entries,
            ..
        } = found;
        let mut memory = Memory {
            vote,
            committed,
            purged,
            first: purged.map_or(0, |id| id.index + 1),
            entries: VecDeque::new(),
            bytes: 0,
        };
        for (index, entry) in entries {
            if index != memory.end() {
                return Err(format!(
                    "group {group}: entries {}..{index} are missing from the log",
                    memory.end()
                ));
            }
            memory.push(Cached::new(entry, now));
        }
        let memory = Arc::new(Mutex::new(memory));
        Ok(LogStore {
            group,
            wal,
            memory,
            append_bytes_max: options.append_bytes_max,
        })
    }

    /// Begins the log of a replica that is founded here: born, having voted for itself, and with everything up to `last` in
    /// a snapshot that is durable already. One write; done again it changes nothing.
    pub(crate) async fn found_as(group: u32, wal: &Wal, replica: u64, vote: Vote, last: LogId) -> io::Result<Found> {
        let record = |kind, payload| Record::new(group, kind, payload, Bytes::new());
        wal.write(vec![
            record(Kind::Born, disk::write_born(replica)),
            record(Kind::Vote, disk::write_vote(&vote)),
            record(Kind::Purge, disk::write_log_id(&last)),
        ])
        .await?;
        Ok(Found {
            born: Some(replica),
            vote: Some(vote),
            purged: Some(last),
            ..Found::default()
        })
    }

    /// Term and index of its newest entry.
    pub(crate) fn tail(&self) -> (u64, u64) {
        let last = self.memory.lock().last_log_id();
        last.map_or((0, 0), |id| (id.leader_id.term, id.index))
    }

    /// What recovery would find of this log, of `replica`. Its group must have stopped.
    pub(crate) fn leave(&self, replica: u64) -> Found {
        let memory = self.memory.lock();
        let entries = memory.entries.iter().map(|cached| &cached.entry);
        Found {
            born: Some(replica),
            vote: memory.vote,
            committed: memory.committed,
            purged: memory.purged,
            entries: entries.map(|entry| (entry.log_id.index, entry.clone())).collect(),
            hurt: None,
        }
    }

    /// Throws a group's log away: no replica is born there, until one is under a fresh id. Its log is closed.
    pub(crate) async fn disown(group: u32, wal: &Wal) -> io::Result<()> {
        let nobody = Record::new(group, Kind::Born, disk::write_born(0), Bytes::new());
        wal.write(vec![nobody]).await
    }

    /// When the entry at `index` came here; `None` if it is gone.
    pub(crate) fn heard(&self, index: u64) -> Option<Instant> {
        self.memory.lock().at(index).map(|cached| cached.heard)
    }

    /// Bytes of entries above `index`.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        let memory = self.memory.lock();
        let after = memory
            .entries
            .iter()
            .rev()
            .take_while(|cached| cached.entry.log_id.index > index);
        after.map(|cached| cached.bytes as u64).sum()
    }

    /// Bytes of all living entries.
    pub(crate) fn bytes(&self) -> u64 {
        self.memory.lock().bytes
    }

    /// The highest index that may be purged so that `keep` bytes of entries stay, `upto` at most.
    pub(crate) fn purgeable(&self, upto: u64, keep: u64) -> Option<u64> {
        let memory = self.memory.lock();
        let mut kept = 0;
        let mut entries = memory.entries.iter().rev();
        let oldest_kept = entries.find(|cached| {
            kept += cached.bytes as u64;
            kept > keep
        })?;
        let index = oldest_kept.entry.log_id.index.min(upto);
        (index >= memory.first).then_some(index)
    }

    /// Writes all living entries again, so that no old segment is needed for them.
    pub(crate) async fn rewrite(&self) -> io::Result<()> {
        let room = self.wal.room().await?;
        let memory = self.memory.lock();
        let records = memory
            .entries
            .iter()
            .map(|cached| disk::entry(self.group, &cached.entry));
        let op = Op {
            records: records.collect(),
            rewrite: Some(self.group),
            done: None,
        };
        self.wal.push(room, op);
        Ok(())
    }

    fn record(&self, kind: Kind, payload: Vec<u8>) -> Record {
        Record::new(self.group, kind, payload, Bytes::new())
    }

    fn range(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Vec<LogEntry> {
        let memory = self.memory.lock();
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let (mut out, mut bytes) = (Vec::new(), 0);
        for index in start.max(memory.first)..end.min(memory.end()) {
            let Some(cached) = memory.at(index) else { break };
            bytes += cached.bytes;
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(cached.entry.clone());
        }
        out
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.range(range, usize::MAX))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        Ok(self.range(start..end, self.append_bytes_max))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.memory.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let memory = self.memory.lock();
        Ok(LogState {
            last_purged_log_id: memory.purged,
            last_log_id: memory.last_log_id(),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if skips(Unwritten::Vote) {
            self.memory.lock().vote = Some(*vote);
            return Ok(());
        }
        self.wal
            .write(vec![self.record(Kind::Vote, disk::write_vote(vote))])
            .await?;
        self.memory.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(id) = committed {
            self.memory.lock().committed = Some(id);
            self.wal.push_lazy(self.record(Kind::Commit, disk::write_log_id(&id)));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        // It was written without waiting: what it names may be newer than the log that survived.
        let memory = self.memory.lock();
        Ok(memory.committed.min(memory.last_log_id()))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let room = self.wal.room().await?;
        let now = Instant::now();
        let mut records = Vec::new();
        let mut memory = self.memory.lock();
        for entry in entries {
            if memory.is_virgin() {
                memory.first = entry.index();
            }
            if entry.index() != memory.end() {
                let text = format!("append of {} to a log that ends before {}", entry.index(), memory.end());
                return Err(io::Error::other(text));
            }
            records.push(disk::entry(self.group, &entry));
            memory.push(Cached::new(entry, now));
        }
        let done = Box::new(move |result| callback.io_completed(result));
        self.wal.push(room, Op::new(records, Some(done)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let room = self.wal.room().await?;
        let from = last.map_or(0, |id| id.index + 1);
        let mut memory = self.memory.lock();
        memory.truncate(from);
        if skips(Unwritten::Cut) {
            return Ok(());
        }
        // Not waited for: whatever is appended next lies behind it in the same log.
        self.wal.push(
            room,
            Op::new(vec![self.record(Kind::Truncate, disk::write_truncate(from))], None),
        );
        Ok(())
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        let room = self.wal.room().await?;
        let mut memory = self.memory.lock();
        memory.purge(id);
        // Not waited for: if it is lost, entries come back that a durable snapshot covers.
        self.wal.push(
            room,
            Op::new(vec![self.record(Kind::Purge, disk::write_log_id(&id))], None),
        );
        Ok(())
    }
}
