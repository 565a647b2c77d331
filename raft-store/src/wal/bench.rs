//! How much the shared log is worth: clients that each wait for their write, over one log or over a log per group.
//!
//! ```text
//!   client (group g) --write, wait--> log of the node            shared: one writer, one fsync for all who wait
//!                                 '-> log of group g             alone:  as many writers and fsyncs as groups
//! ```
//!
//! Each client appends an entry, waits until it is durable, and goes on; every so often its group's log is purged, so that
//! segments come and go as they do in a node. What is measured is the log alone: no Raft, no network, no state.
//!
//! Also how long a start takes that has to read a long log (`recovery`).
//!
//! Deliberately absent: a verdict. `chaos bench wal` runs both kinds in turns, through `rushroom wal bench`.

use super::{Kind, Op, Options, Record, Wal, WalError};
use bytes::Bytes;
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Entries after which a group's log is purged.
const PURGE_EVERY: u64 = 256;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Groups that write.
    pub groups: u32,
    /// Clients over all groups, each with one write under way.
    pub clients: u32,
    /// Bytes of an entry's body.
    pub body_bytes: usize,
    /// One log for all groups, or one each.
    pub shared: bool,
    /// How long.
    pub time: Duration,
    /// Segments of each log.
    pub segment_bytes: u64,
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Entries acknowledged.
    pub entries: u64,
    /// Bytes that were written for them.
    pub bytes: u64,
    /// Fsyncs that it took.
    pub fsyncs: u64,
    /// How long it really took.
    pub time: Duration,
    /// Half of the writes waited at most so long …
    pub p50: Duration,
    /// … and all but one in a hundred so long.
    pub p99: Duration,
}

/// Runs `load` on fresh logs below `dir`.
///
/// # Errors
/// When a log can't open.
pub async fn run(dir: &Path, load: Load) -> Result<Seen, WalError> {
    let options = Options {
        segment_bytes: load.segment_bytes,
        reserve_segments: 0,
        low_water_bytes: 0,
        ..Options::default()
    };
    let count = if load.shared { 1 } else { load.groups };
    let logs = (0..count).map(|n| Wal::open(&dir.join(format!("log-{n}")), options, &mut |_, _, _| Ok(())));
    let logs: Vec<Wal> = logs.collect::<Result<_, _>>()?;
    let done = |logs: &[Wal]| {
        let done = logs.iter().map(Wal::done);
        done.fold((0, 0), |(syncs, bytes), (s, b)| (syncs + s, bytes + b))
    };
    let before = done(&logs);
    let indexes: Arc<Vec<AtomicU64>> = Arc::new((0..load.groups).map(|_| AtomicU64::new(0)).collect());
    let started = Instant::now();
    let clients = (0..load.clients).map(|n| {
        let group = n % load.groups;
        let log = logs[group as usize % logs.len()].clone();
        tokio::spawn(client(
            log,
            group,
            indexes.clone(),
            load.body_bytes,
            started + load.time,
        ))
    });
    let clients: Vec<_> = clients.collect();
    let mut waits: Vec<Duration> = Vec::new();
    for client in clients {
        waits.extend(client.await.unwrap_or_default());
    }
    let time = started.elapsed();
    let after = done(&logs);
    logs.iter().for_each(Wal::close);
    waits.sort_unstable();
    let at = |ppm: usize| waits.get(waits.len() * ppm / 1_000_000).copied().unwrap_or_default();
    Ok(Seen {
        entries: waits.len() as u64,
        bytes: after.1 - before.1,
        fsyncs: after.0 - before.0,
        time,
        p50: at(500_000),
        p99: at(990_000),
    })
}

/// One client's waits.
async fn client(log: Wal, group: u32, indexes: Arc<Vec<AtomicU64>>, body: usize, until: Instant) -> Vec<Duration> {
    let body = Bytes::from(vec![b'x'; body]);
    let mut waits = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        match append(&log, group, &indexes[group as usize], &body).await {
            Ok(()) => waits.push(began.elapsed()),
            Err(_) => break,
        }
    }
    waits
}

async fn append(log: &Wal, group: u32, indexes: &AtomicU64, body: &Bytes) -> io::Result<()> {
    let index = indexes.fetch_add(1, Ordering::Relaxed);
    // As a log id: index, term, replica; then the entry's form.
    let mut prefix: Vec<u8> = [index, 1, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
    if index > 0 && index.is_multiple_of(PURGE_EVERY) {
        let room = log.room().await?;
        let purge = Record::new(group, Kind::Purge, prefix.clone(), Bytes::new());
        log.push(room, Op::new(vec![purge], None));
    }
    prefix.push(2);
    log.write(vec![Record::new(group, Kind::Entry, prefix, body.clone())])
        .await
}

/// A start over a long log.
#[derive(Clone, Copy, Debug)]
pub struct Recovered {
    /// Bytes of the segments.
    pub bytes: u64,
    /// Records that were told to their groups.
    pub records: u64,
    /// From opening the first file to a log that takes writes.
    pub time: Duration,
}

/// Writes `bytes` of entries for `groups`, none of which may go, and opens the log again.
///
/// # Errors
/// When the log can't open, or be written.
pub async fn recovery(dir: &Path, bytes: u64, groups: u32, body: usize) -> Result<Recovered, WalError> {
    let options = Options {
        reserve_segments: 0,
        low_water_bytes: 0,
        ..Options::default()
    };
    let failed = |source| WalError::Io {
        what: "writing a long log".into(),
        source,
    };
    let log = Wal::open(dir, options, &mut |_, _, _| Ok(()))?;
    let body = Bytes::from(vec![b'x'; body]);
    let mut index = 0_u64;
    while log.done().1 < bytes {
        // As a log id: index, term, replica; then the entry's form.
        let mut prefix: Vec<u8> = [index, 1, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
        prefix.push(2);
        let entry = |group| Record::new(group, Kind::Entry, prefix.clone(), body.clone());
        log.write((0..groups).map(entry).collect()).await.map_err(failed)?;
        index += 1;
    }
    let written = log.done().1;
    log.close();
    let began = Instant::now();
    let mut records = 0;
    let log = Wal::open(dir, options, &mut |_, _, _| {
        records += 1;
        Ok(())
    })?;
    let time = began.elapsed();
    log.close();
    Ok(Recovered {
        bytes: written,
        records,
        time,
    })
}
