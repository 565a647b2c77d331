//! The thread that owns the disk: batches in, answers out.
//!
//! It is a thread and no task: `fdatasync` blocks for as long as the disk likes, and a worker of the runtime that blocks
//! would hold up heartbeats.
//!
//! Deliberately absent: retries. See `wal` for why an error ends it.

use super::{
    Done, Op, Options, Queue, Shared,
    record::{HEADER, Kind, Record, SEAL},
    recover::{Recovered, WalError, release},
    segment::{self, Preparer, Segment},
};
use bytes::Bytes;
use std::{collections::BTreeMap, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc, time::Instant};

pub(super) struct Writer {
    dir: PathBuf,
    options: Options,
    preparer: Preparer,
    current: Segment,
    /// Where the free room of `current` begins.
    at: u64,
    batch: u64,
    pins: BTreeMap<u64, BTreeMap<u32, u64>>,
    small: BTreeMap<(u32, Kind), Record>,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(dir: PathBuf, options: Options, recovered: Recovered) -> Result<Writer, WalError> {
        let io = |source| WalError::Io {
            what: format!("making a segment in {}", dir.display()),
            source,
        };
        let preparer = Preparer::start(dir.clone(), options.segment_bytes, options.preallocate).map_err(io)?;
        let Recovered {
            tail,
            next_seq,
            next_batch,
            mut pins,
            small,
        } = recovered;
        let fresh = tail.is_none();
        let (current, at) = match tail {
            Some(tail) => tail,
            None => (preparer.make(next_seq, 0).map_err(io)?, HEADER as u64),
        };
        pins.entry(current.seq).or_default();
        let buffer = Vec::new();
        let mut writer = Writer {
            dir,
            options,
            preparer,
            current,
            at,
            batch: next_batch,
            pins,
            small,
            buffer,
        };
        if fresh && !writer.small.is_empty() {
            let records: Vec<Record> = writer.small.values().cloned().collect();
            writer.write(&records).map_err(|source| WalError::Io {
                what: "writing a checkpoint".into(),
                source,
            })?;
        }
        Ok(writer)
    }

    pub(super) fn run(mut self, shared: &Arc<Shared>) {
        while let Some((ops, lazy)) = self.gather(shared) {
            if let Err(error) = self.commit(ops, lazy) {
                self.fail(shared, &error);
                return;
            }
            *shared.pinned.lock() = self.pinned();
        }
    }

    /// Waits for work and takes a batch of it. `None`: closed, and nothing is left.
    #[allow(clippy::type_complexity)]
    fn gather(&self, shared: &Shared) -> Option<(Vec<Op>, BTreeMap<u32, Record>)> {
        let mut queue = shared.queue.lock();
        while queue.ops.is_empty() && !queue.closed {
            shared.wake.wait(&mut queue);
        }
        let mut bytes = 0;
        let mut fits = |op: &Op| {
            let first = bytes == 0;
            bytes += op.records.iter().map(Record::size).sum::<usize>();
            first || bytes <= self.options.batch_bytes
        };
        let n = queue.ops.iter().take_while(|(op, _)| fits(op)).count();
        // Permits go here: what is being written no longer waits in the queue.
        let ops: Vec<Op> = queue.ops.drain(..n).map(|(op, _permit)| op).collect();
        let Queue { lazy, closed, .. } = &mut *queue;
        let lazy = std::mem::take(lazy);
        (!ops.is_empty() || !lazy.is_empty() || !*closed).then_some((ops, lazy))
    }

    /// Writes one batch, and answers everyone in it.
    fn commit(&mut self, ops: Vec<Op>, lazy: BTreeMap<u32, Record>) -> io::Result<()> {
        let mut records = Vec::with_capacity(ops.len() + lazy.len());
        let mut done: Vec<Done> = Vec::with_capacity(ops.len());
        let mut rewritten = Vec::new();
        for op in ops {
            records.extend(op.records);
            done.extend(op.done);
            rewritten.extend(op.rewrite);
        }
        records.extend(lazy.into_values());
        let result = if records.is_empty() {
            Ok(())
        } else {
            self.write(&records)
        };
        let answer = result
            .as_ref()
            .map_or_else(|error| Some((error.kind(), error.to_string())), |()| None);
        for done in done {
            done(
                answer
                    .clone()
                    .map_or(Ok(()), |(kind, text)| Err(io::Error::new(kind, text))),
            );
        }
        result?;
        for group in rewritten {
            self.forget_before(group, self.current.seq);
        }
        self.drop_free()
    }

    /// One batch of records: written, synced, accounted for.
    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        let size: usize = records.iter().map(Record::size).sum();
        if self.at + (size + SEAL) as u64 > self.current.capacity {
            self.roll(size)?;
        }
        self.put(records)?;
        for record in records {
            match record.kind {
                Kind::Entry => {
                    let pin = self
                        .pins
                        .entry(self.current.seq)
                        .or_default()
                        .entry(record.group)
                        .or_default();
                    *pin = record.index().max(*pin);
                }
                Kind::Purge => release(&mut self.pins, record.group, record.index()),
                Kind::Born => self.forget_before(record.group, self.current.seq),
                Kind::Vote | Kind::Truncate | Kind::Commit | Kind::Seal | Kind::Cut => {}
            }
            if record.kind.is_small_state() {
                self.small.insert((record.group, record.kind), record.clone());
            }
        }
        Ok(())
    }

    fn put(&mut self, records: &[Record]) -> io::Result<()> {
        self.buffer.clear();
        for (i, record) in records.iter().enumerate() {
            record.write(&mut self.buffer, self.current.salt, self.batch, i + 1 == records.len());
        }
        let started = Instant::now();
        self.current.file.write_all_at(&self.buffer, self.at)?;
        self.current.file.sync_data()?;
        crate::metrics::fsync(started.elapsed().as_secs_f64(), records.len(), self.buffer.len() as u64);
        self.at += self.buffer.len() as u64;
        self.batch += 1;
        Ok(())
    }

    /// Seals the current segment and opens the next with a checkpoint and room for `need` more bytes.
    fn roll(&mut self, need: usize) -> io::Result<()> {
        let next = self.current.seq + 1;
        let seal = Record::new(0, Kind::Seal, next.to_le_bytes().to_vec(), Bytes::new());
        self.put(&[seal])?;
        let checkpoint: Vec<Record> = self.small.values().cloned().collect();
        let size: usize = checkpoint.iter().map(Record::size).sum();
        self.current = self.preparer.make(next, (need + size + SEAL) as u64)?;
        self.at = HEADER as u64;
        self.pins.insert(next, BTreeMap::new());
        if !checkpoint.is_empty() {
            self.put(&checkpoint)?;
        }
        Ok(())
    }

    fn forget_before(&mut self, group: u32, seq: u64) {
        for (_, groups) in self.pins.range_mut(..seq) {
            groups.remove(&group);
        }
    }

    /// Deletes the oldest segments while nothing lives in them.
    fn drop_free(&mut self) -> io::Result<()> {
        while let Some((&seq, groups)) = self.pins.first_key_value() {
            if seq == self.current.seq || !groups.is_empty() {
                break;
            }
            std::fs::remove_file(segment::path(&self.dir, seq))?;
            self.pins.remove(&seq);
        }
        Ok(())
    }

    fn pinned(&self) -> Vec<u32> {
        match self.pins.first_key_value() {
            Some((_, groups)) if self.pins.len() > self.options.segments_soft => groups.keys().copied().collect(),
            _ => Vec::new(),
        }
    }

    /// The disk failed: nothing more is written, and everyone who waits is told.
    fn fail(self, shared: &Shared, error: &io::Error) {
        tracing::error!(%error, dir = %self.dir.display(), "the log's disk failed: this node must stop");
        let mut queue = shared.queue.lock();
        queue.closed = true;
        let waiting = std::mem::take(&mut queue.ops);
        drop(queue);
        shared.room.close();
        shared.failed.send_replace(Some(error.to_string()));
        for (op, _) in waiting {
            op.refuse();
        }
    }
}
