//! Random lives of a log on a disk that dies at any byte: what recovery finds is what was said, up to a point that lies
//! behind all that was acknowledged.
//!
//! One seed is a log of several lives. Each life does random ops and ends by losing power at a byte, by a failed fsync, by
//! a full disk, by a kill, or well; the next life must find the model's state.

use super::model::{Model, Script, State, say};
use crate::wal::{
    Op, Options, WalError, recover,
    sim_disk::{Faults, SimDisk},
    space::Space,
    writer::{Work, Writer},
};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::{collections::BTreeMap, path::Path, sync::Arc};

pub(super) const DIR: &str = "/wal";

pub(super) const TINY: Options = Options {
    segment_bytes: 8192,
    segments_soft: 2,
    queue: 16,
    batch_bytes: 1 << 20,
    tally_bytes: 1500,
    preallocate: false,
    reserve_segments: 0,
    low_water_bytes: 0,
};

/// A writer without its thread: a test says when a batch is a batch.
pub(super) fn open(disk: &SimDisk) -> Result<(Writer<SimDisk>, State), WalError> {
    open_with(disk, TINY)
}

pub(super) fn open_with(disk: &SimDisk, options: Options) -> Result<(Writer<SimDisk>, State), WalError> {
    let mut state = State::new();
    let mut visit = |group, kind, payload: Bytes| {
        say(&mut state, group, kind, &payload);
        Ok(())
    };
    let recovered = recover::recover(disk, Path::new(DIR), &mut visit)?;
    let writer = Writer::new(disk.clone(), DIR.into(), options, Arc::new(Space::new()), recovered)?;
    Ok((writer, state))
}

/// One random batch. False: the disk failed.
pub(super) fn batch(
    writer: &mut Writer<SimDisk>,
    rng: &mut impl Rng,
    script: &mut Script,
    model: &mut Model,
    groups: u32,
) -> bool {
    let mut work = Work {
        ops: Vec::new(),
        lazy: BTreeMap::new(),
        rests: rng.random_bool(0.1),
    };
    let acked = Arc::new(Mutex::new(0));
    let count = rng.random_range(1..6);
    for _ in 0..count {
        let (records, rewrite) = script.next(rng, groups);
        model.say(records.iter().cloned());
        let acked = acked.clone();
        let done = move |result: std::io::Result<()>| *acked.lock() += u32::from(result.is_ok());
        work.ops.push(Op {
            records,
            rewrite,
            done: Some(Box::new(done)),
        });
    }
    let result = writer.commit(work);
    match *acked.lock() {
        0 => {}
        n if n == count => model.ack(),
        n => panic!("{n} of {count} ops of one batch were acknowledged"),
    }
    result.is_ok()
}

/// How a life ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    Power,
    Sync,
    Full,
    Kill,
    Well,
}

fn life(disk: &SimDisk, rng: &mut StdRng, model: &mut Model, what: &str) -> (SimDisk, Death) {
    let death = [
        Death::Power,
        Death::Power,
        Death::Sync,
        Death::Full,
        Death::Kill,
        Death::Well,
    ][rng.random_range(0..6)];
    let mut faults = Faults::default();
    match death {
        Death::Power => faults.dies_after = Some(rng.random_range(0..30_000)),
        Death::Sync => faults.sync_fails_at = Some(rng.random_range(1..60)),
        Death::Full => faults.capacity = Some(rng.random_range(20_000..60_000)),
        Death::Kill | Death::Well => {}
    }
    disk.set(faults);
    let opened = open(disk);
    let (mut writer, found) = match opened {
        Ok(opened) => opened,
        // It died while it recovered; what was there must still be there.
        Err(WalError::Io { .. }) => return (disk.crash(rng), death),
        Err(damaged) => panic!("{what}: {death:?}: {damaged}"),
    };
    model.check(&found, &format!("{what}, before {death:?}"));
    *model = Model::from(found.clone());
    let mut script = Script::new(found);
    for _ in 0..rng.random_range(1..60) {
        if !batch(&mut writer, rng, &mut script, model, 5) {
            break;
        }
    }
    if let Death::Well = death {
        let rest = Work {
            ops: Vec::new(),
            lazy: BTreeMap::new(),
            rests: true,
        };
        writer.commit(rest).unwrap();
    }
    drop(writer);
    assert_eq!(
        disk.retried(),
        0,
        "{what}: an fsync was tried again after one had failed"
    );
    let left = match death {
        Death::Kill | Death::Well => disk.kill(),
        Death::Power | Death::Sync | Death::Full => disk.crash(rng),
    };
    (left, death)
}

pub(super) fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = SimDisk::default();
    let mut model = Model::default();
    for n in 0..8 {
        let what = format!("life {n}; replay: WAL_SEED={seed} cargo test -p raft-store --lib wal::tests::crash");
        (disk, _) = life(&disk, &mut rng, &mut model, &what);
    }
    disk.set(Faults::default());
    let (_, found) = open(&disk).unwrap();
    model.check(
        &found,
        &format!("the end; replay: WAL_SEED={seed} cargo test -p raft-store --lib wal::tests::crash"),
    );
}

#[test]
fn what_is_acknowledged_survives_a_crash_at_any_byte() {
    match std::env::var("WAL_SEED") {
        Ok(seed) => run(seed.parse().expect("WAL_SEED is a number")),
        Err(_) => (0..100).for_each(run),
    }
}
