//! The thread that owns the disk: batches in, answers out.
//!
//! It is a thread and no task: `fdatasync` blocks for as long as the disk likes, and a worker of the runtime that blocks
//! would hold up heartbeats.
//!
//! Every start begins with a checkpoint behind whatever was recovered, so that a torn one is never the only one, and what
//! was recovered is no longer the end of the log. Tallies follow every `tally_bytes`, a second after the last batch,
//! and at the close: see `proof` and `scan` for what hangs on them.
//!
//! Deliberately absent: retries. See `wal` for why an error ends it.

use super::{
    Done, Op, Options, Queue, Shared, WalError,
    disk::{Disk, DiskFile},
    ledger::Ledger,
    plant::{self, Plant},
    record::{Form, HEADER, Kind, Mark, Record},
    recover::Recovered,
    segment::{Preparer, Segment},
    space::Space,
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// A log that rests for so long gets a tally behind its last batch.
const REST: Duration = Duration::from_secs(1);

pub(super) struct Writer<D: Disk> {
    dir: PathBuf,
    options: Options,
    space: Arc<Space>,
    preparer: Preparer<D>,
    current: Segment<D::File>,
    /// Where the free room of `current` begins.
    at: u64,
    batch: u64,
    ledger: Ledger,
    /// Bytes since the last tally.
    untallied: u64,
    buffer: Vec<u8>,
}

/// What is to be done next.
pub(super) struct Work {
    pub(super) ops: Vec<Op>,
    pub(super) lazy: BTreeMap<u32, Record>,
    /// The log rests or closes.
    pub(super) rests: bool,
}

/// A batch that is written, for better or worse, and who waits for it.
struct Stored {
    done: Vec<Done>,
    result: io::Result<()>,
}

impl<D: Disk> Writer<D> {
    pub(super) fn new(
        disk: D,
        dir: PathBuf,
        options: Options,
        space: Arc<Space>,
        recovered: Recovered<D::File>,
    ) -> Result<Writer<D>, WalError> {
        let failed = |what: &str| {
            let what = format!("{what} in {}", dir.display());
            move |source| WalError::Io { what, source }
        };
        let preparer = Preparer::start(disk, dir.clone(), options, space.clone()).map_err(failed("starting"))?;
        let Recovered {
            tail,
            next_seq,
            next_batch,
            before,
            ledger,
            hurt,
        } = recovered;
        let (current, at) = match tail {
            Some(tail) => tail,
            None => {
                let room = Ledger::size_of(&ledger.checkpoint(), NEW) + NEW.seal();
                let made = preparer.make(next_seq, before, next_batch, room as u64);
                (made.map_err(failed("making a segment"))?, HEADER as u64)
            }
        };
        let mut writer = Writer {
            dir: dir.clone(),
            options,
            space,
            preparer,
            current,
            at,
            batch: next_batch,
            ledger,
            untallied: 0,
            buffer: Vec::new(),
        };
        writer.ledger.pins.entry(writer.current.header.seq).or_default();
        writer.begin(hurt).map_err(failed("writing a checkpoint"))?;
        Ok(writer)
    }

    /// A whole checkpoint behind whatever was recovered, and the news of who is hurt.
    fn begin(&mut self, hurt: BTreeMap<u32, String>) -> io::Result<()> {
        let room = Ledger::size_of(&self.ledger.checkpoint(), NEW) + NEW.seal();
        if self.current.header.form.version != NEW.version || self.at + room as u64 > self.current.capacity {
            self.roll(0)?;
        } else {
            let checkpoint = self.ledger.checkpoint();
            self.put(&checkpoint.iter().collect::<Vec<_>>(), true)?;
        }
        let unknown = |group: &u32| {
            let account = self.ledger.accounts.get(group);
            account.is_some_and(|account| !account.is_hurt())
        };
        let news = hurt.into_iter().filter(|(group, _)| unknown(group));
        let news: Vec<Record> = news
            .map(|(group, why)| Record::new(group, Kind::Hurt, why.into_bytes(), Bytes::new()))
            .collect();
        if news.is_empty() || plant::is(Plant::HurtForgotten) {
            Ok(())
        } else {
            self.write(&news)
        }
    }

    pub(super) fn run(mut self, shared: &Arc<Shared>) {
        while let Some(work) = self.gather(shared) {
            if let Err(error) = self.commit(work) {
                self.fail(shared, &error);
                return;
            }
            *shared.pinned.lock() = self.pinned();
            crate::metrics::segments(self.ledger.pins.len());
        }
    }

    /// Waits for work and takes a batch of it. `None`: closed, and nothing is left.
    fn gather(&self, shared: &Shared) -> Option<Work> {
        let mut queue = shared.queue.lock();
        while queue.ops.is_empty() && !queue.closed {
            if self.untallied == 0 {
                shared.wake.wait(&mut queue);
            } else if shared.wake.wait_for(&mut queue, REST).timed_out() {
                break;
            }
        }
        self.take(&mut queue)
    }

    /// A batch of what waits. `None`: closed, and nothing is left.
    fn take(&self, queue: &mut Queue) -> Option<Work> {
        let mut bytes = 0;
        let form = self.current.header.form;
        let mut fits = |op: &Op| {
            let first = bytes == 0;
            bytes += Ledger::size_of(&op.records, form);
            first || bytes <= self.options.batch_bytes
        };
        let n = queue.ops.iter().take_while(|(op, _)| fits(op)).count();
        // Permits go here: what is being written no longer waits in the queue.
        let ops: Vec<Op> = queue.ops.drain(..n).map(|(op, _permit)| op).collect();
        let rests = ops.is_empty();
        let Queue { lazy, closed, .. } = queue;
        let lazy = std::mem::take(lazy);
        let over = *closed && rests && lazy.is_empty() && self.untallied == 0;
        (!over).then_some(Work { ops, lazy, rests })
    }

    /// Writes one batch, and answers everyone in it.
    pub(super) fn commit(&mut self, work: Work) -> io::Result<()> {
        let stored = self.store(work);
        self.answer(stored)
    }

    /// Writes one batch.
    fn store(&mut self, work: Work) -> Stored {
        let Work { ops, lazy, rests } = work;
        let mut records = Vec::with_capacity(ops.len() + lazy.len());
        let mut done: Vec<Done> = Vec::with_capacity(ops.len());
        let mut rewritten = Vec::new();
        for op in ops {
            records.extend(op.records);
            done.extend(op.done);
            rewritten.extend(op.rewrite);
        }
        records.extend(lazy.into_values());
        self.space.busy(true);
        if plant::is(Plant::AckUnwritten) {
            done.drain(..).for_each(|done| done(Ok(())));
        }
        let mut result = if records.is_empty() {
            Ok(())
        } else {
            self.write(&records)
        };
        if result.is_ok() {
            // Before anything that may begin another segment.
            for group in rewritten {
                let here = self.current.header.seq + u64::from(plant::is(Plant::RewroteTooFar));
                self.ledger.forget_before(group, here);
            }
        }
        if rests && result.is_ok() && self.untallied > 0 {
            result = self.rest();
        }
        Stored { done, result }
    }

    /// Answers everyone in a batch; then what nobody needs any more can go.
    fn answer(&mut self, stored: Stored) -> io::Result<()> {
        let Stored { done, result } = stored;
        #[cfg(feature = "sim")]
        let result = if crate::sim::planted(crate::sim::Plant::FsyncErrorIgnored) {
            Ok(())
        } else {
            result
        };
        self.space.busy(false);
        let answer = result.as_ref().err().map(|error| (error.kind(), error.to_string()));
        for done in done {
            let answer = answer.clone();
            done(answer.map_or(Ok(()), |(kind, text)| Err(io::Error::new(kind, text))));
        }
        result?;
        self.drop_free()
    }

    /// A tally as a batch of its own: what lies before it isn't the end of the log any more.
    fn rest(&mut self) -> io::Result<()> {
        self.make_room(self.ledger.tally_size(self.current.header.form))?;
        // Told after any roll: a checkpoint counts too.
        let tally = self.ledger.tally();
        self.put(&[&tally], false)
    }

    /// One batch of records: written, synced, accounted for.
    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        let form = self.current.header.form;
        let size = Ledger::size_of(records, form);
        self.make_room(size + self.ledger.tally_size(form))?;
        // Told after any roll: a checkpoint counts too.
        let due = self.untallied > 0 && self.untallied + size as u64 > self.options.tally_bytes;
        let tally = due.then(|| self.ledger.tally());
        let batch: Vec<&Record> = tally.iter().chain(records).collect();
        self.put(&batch, false)?;
        self.untallied += size as u64;
        for record in records {
            self.ledger.take(self.current.header.seq, record);
        }
        Ok(())
    }

    fn make_room(&mut self, size: usize) -> io::Result<()> {
        let need = size + self.current.header.form.seal();
        if self.at + need as u64 > self.current.capacity {
            self.roll(size)?;
        }
        Ok(())
    }

    /// Puts records on disk as one batch. Copies (of a checkpoint) say nothing new.
    fn put(&mut self, records: &[&Record], copies: bool) -> io::Result<()> {
        self.buffer.clear();
        let form = self.current.header.form;
        for (i, record) in records.iter().enumerate() {
            let of_group = record.kind.is_of_group();
            let mark = Mark {
                batch: self.batch,
                last: i + 1 == records.len(),
                copy: copies && of_group,
                nth: if of_group { self.ledger.number(record.group) } else { 0 },
            };
            record.write(&mut self.buffer, self.at as usize, form, mark);
        }
        let started = Instant::now();
        self.current.file.write_at(&self.buffer, self.at)?;
        if !plant::is(Plant::AckUnsynced) {
            let synced = self.current.file.sync();
            if synced.is_err() && plant::is(Plant::RetriedSync) {
                self.current.file.sync()?;
            } else {
                synced?;
            }
        }
        crate::metrics::fsync(started.elapsed().as_secs_f64(), records.len(), self.buffer.len() as u64);
        self.space.synced(self.buffer.len() as u64);
        self.at += self.buffer.len() as u64;
        self.batch += 1;
        if records.iter().any(|record| record.kind == Kind::Tally) {
            // The copies behind a checkpoint's tally want one behind them too, or they would be the end of the log.
            self.untallied = u64::from(copies);
        }
        Ok(())
    }

    /// Goes on in the next segment, which begins with a checkpoint and has room for `need` more bytes.
    fn roll(&mut self, need: usize) -> io::Result<()> {
        let header = self.current.header;
        let checkpoint = self.ledger.checkpoint();
        let size = need + Ledger::size_of(&checkpoint, NEW) + NEW.seal();
        let number = (header.seq + 1).to_le_bytes().to_vec();
        let seal = Record::new(0, Kind::Seal, number, Bytes::new());
        let first = plant::is(Plant::SealedFirst);
        if first {
            self.put(&[&seal], false)?;
        }
        // The seal takes a batch of its own, and comes after the file: a seal without a next segment means a lost one.
        let batch = self.batch + u64::from(!first);
        let next = self
            .preparer
            .make(header.seq + 1, header.form.salt, batch, size as u64)?;
        if !first {
            self.put(&[&seal], false)?;
        }
        self.current = next;
        self.at = HEADER as u64;
        self.ledger.pins.insert(self.current.header.seq, BTreeMap::new());
        self.put(&checkpoint.iter().collect::<Vec<_>>(), true)
    }

    /// Deletes the oldest segments while nothing lives in them.
    fn drop_free(&mut self) -> io::Result<()> {
        while let Some((&seq, groups)) = self.ledger.pins.first_key_value() {
            let lives = !groups.is_empty() && !plant::is(Plant::DroppedPinned);
            if seq == self.current.header.seq || lives {
                break;
            }
            self.preparer.delete(seq)?;
            self.ledger.pins.remove(&seq);
        }
        Ok(())
    }

    fn pinned(&self) -> Vec<u32> {
        match self.ledger.pins.first_key_value() {
            Some((_, groups)) if self.ledger.pins.len() > self.options.segments_soft => {
                groups.keys().copied().collect()
            }
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

#[cfg(feature = "sim")]
impl Writer<super::lag_disk::LagDisk> {
    /// The thread's life, as a task: where the thread would wait for the disk, time passes. What was written meanwhile is
    /// lost by a crash, in whole or in part; nobody has been answered.
    pub(super) async fn run_as_task(mut self, shared: Arc<Shared>, disk: super::lag_disk::LagDisk) {
        while let Some(work) = self.gather_as_task(&shared).await {
            let stored = self.store(work);
            if !crate::sim::planted(crate::sim::Plant::AckBeforeFsync) {
                tokio::time::sleep(disk.lag()).await;
                disk.settle();
            }
            if let Err(error) = self.answer(stored) {
                self.fail(&shared, &error);
                return;
            }
            *shared.pinned.lock() = self.pinned();
        }
    }

    async fn gather_as_task(&self, shared: &Shared) -> Option<Work> {
        loop {
            {
                let mut queue = shared.queue.lock();
                if !queue.ops.is_empty() || queue.closed {
                    return self.take(&mut queue);
                }
            }
            let woken = shared.wake_task.notified();
            if self.untallied == 0 {
                woken.await;
            } else if tokio::time::timeout(REST, woken).await.is_err() {
                return self.take(&mut shared.queue.lock());
            }
        }
    }
}

/// What new segments are written in; sizes don't depend on the salt.
const NEW: Form = Form {
    version: super::record::VERSION,
    salt: 0,
};
