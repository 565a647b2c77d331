//! Files that aren't what they were: torn ends, flipped bits, misplaced blocks, segments from elsewhere.
//!
//! Every test spoils a whole, well closed (or freshly killed) log in one way and opens it. Then one of three is true, and
//! nothing else: the log doesn't open; or the groups that it names as hurt are, and the others are what they were to the
//! byte; or, at the torn end only, what was in the last batch is gone.

use super::{
    crash::{DIR, TINY, batch, open, open_with},
    model::{Model, Script, State},
};
use crate::wal::{
    Options, WalError,
    record::{self, Found, Header, Kind},
    sim_disk::SimDisk,
    writer::Work,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

pub(super) const GROUPS: u32 = 6;
const BLOCK: usize = 4096;

pub(super) struct Grown {
    pub(super) disk: SimDisk,
    pub(super) state: State,
    /// What was acknowledged at each moment, and the files then.
    moments: Vec<(State, Vec<(PathBuf, Vec<u8>)>)>,
}

/// A log after some batches. Well closed: nothing in it is the last batch any more.
fn grown(seed: u64, batches: usize, well: bool) -> Grown {
    grown_in(seed, batches, well, TINY.segment_bytes)
}

pub(super) fn grown_in(seed: u64, batches: usize, well: bool, segment_bytes: u64) -> Grown {
    let mut rng = StdRng::seed_from_u64(seed);
    let disk = SimDisk::default();
    let options = Options { segment_bytes, ..TINY };
    let (mut writer, found) = open_with(&disk, options).unwrap();
    let (mut model, mut script) = (Model::from(found.clone()), Script::new(found));
    let mut moments = Vec::new();
    for _ in 0..batches {
        assert!(batch(&mut writer, &mut rng, &mut script, &mut model, GROUPS));
        moments.push((model.acknowledged(), disk.segments()));
    }
    if well {
        let (ops, lazy) = (Vec::new(), BTreeMap::new());
        writer.commit(Work { ops, lazy, rests: true }).unwrap();
    }
    drop(writer);
    Grown {
        disk: disk.kill(),
        state: model.acknowledged(),
        moments,
    }
}

/// The records of a segment.
pub(super) fn records(file: &[u8]) -> Vec<Found> {
    let header = Header::read(file).unwrap();
    let (mut at, mut out) = (header.len(), Vec::new());
    while let Some(found) = record::read(file, at, header.form) {
        at = found.next();
        out.push(found);
    }
    out
}

/// What came of a spoilt log.
#[derive(Default, Debug)]
struct Tally {
    refused: usize,
    /// Opened with groups hurt, and others not.
    hurt: usize,
    unharmed: usize,
}

impl Tally {
    /// Opens `disk` and holds it against what was acknowledged.
    fn check(&mut self, disk: &SimDisk, state: &State, what: &str) -> BTreeSet<u32> {
        match open(disk) {
            Err(WalError::Damaged { .. }) => {
                self.refused += 1;
                BTreeSet::new()
            }
            Err(other) => panic!("{what}: {other}"),
            Ok((_, found)) => {
                let hurt: BTreeSet<u32> = found
                    .iter()
                    .filter(|(_, of)| of.hurt)
                    .map(|(group, _)| *group)
                    .collect();
                for group in state.keys().chain(found.keys()).filter(|group| !hurt.contains(group)) {
                    assert_eq!(
                        state.get(group),
                        found.get(group),
                        "{what}: group {group}, not called hurt"
                    );
                }
                if hurt.is_empty() {
                    self.unharmed += 1;
                } else {
                    self.hurt += 1;
                    if self.hurt.is_multiple_of(8) {
                        again(disk, state, &hurt, what);
                    }
                }
                hurt
            }
        }
    }
}

/// Who is hurt stays hurt, and who isn't goes on.
fn again(disk: &SimDisk, state: &State, hurt: &BTreeSet<u32>, what: &str) {
    let (_, found) = open(&disk.kill()).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    for (group, of) in &found {
        assert_eq!(of.hurt, hurt.contains(group), "{what}, again: group {group}");
        if !of.hurt {
            assert_eq!(state.get(group), Some(of), "{what}, again: group {group}");
        }
    }
}

#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    for seed in 0..4 {
        let log = grown(seed, 6, false);
        let (path, file) = log.disk.segments().pop().unwrap();
        let all = records(&file);
        let last = all.last().unwrap().mark.batch;
        let from = all.iter().find(|found| found.mark.batch == last).unwrap().at;
        let to = all.last().unwrap().next();
        // A tally of its own says nothing new.
        let said = all
            .iter()
            .any(|found| found.mark.batch == last && found.kind.is_of_group());
        let before = &log.moments[log.moments.len() - 1 - usize::from(said)].0;
        for torn in ["shorter", "zeros", "garbage", "hole"] {
            for at in from..to {
                let mut torn_file = file.clone();
                match torn {
                    "shorter" => torn_file.truncate(at),
                    "zeros" => torn_file[at..].fill(0),
                    "garbage" => torn_file[at..to]
                        .iter_mut()
                        .for_each(|byte| *byte = byte.wrapping_add(1)),
                    _ => torn_file[from..at].fill(0),
                }
                let disk = log.disk.kill();
                disk.spoil(&path, torn_file);
                let what = format!("seed {seed}, {torn} at {at} of {from}..{to}");
                let (mut writer, found) = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
                // Every record of the last batch that is still there in order may be kept; those before must be.
                let mut kept = before.clone();
                let mut states = vec![kept.clone()];
                for found in all.iter().filter(|found| found.mark.batch == last) {
                    super::model::say(&mut kept, found.group, found.kind, &file[found.from..found.to]);
                    states.push(kept.clone());
                }
                assert!(states.contains(&found), "{what}: {found:?}");
                // Life goes on behind the cut, and the next recovery finds both.
                let (mut model, mut script) = (Model::from(found.clone()), Script::new(found));
                assert!(batch(
                    &mut writer,
                    &mut StdRng::seed_from_u64(seed),
                    &mut script,
                    &mut model,
                    GROUPS
                ));
                let (_, found) = open(&disk.kill()).unwrap_or_else(|error| panic!("{what}, again: {error}"));
                model.check(&found, &what);
            }
        }
    }
}

/// Each bit of one flip a byte, in every byte of every segment. Damage to a record hurts its group at most; damage to what
/// is of no group hurts none.
#[test]
fn a_flip_in_any_byte_hurts_the_group_that_it_touches_and_no_other() {
    let log = grown_in(11, 7, true, 1800);
    let files = log.disk.segments();
    assert!(files.len() >= 3, "{} segments", files.len());
    let mut tally = Tally::default();
    for (path, file) in &files {
        let all = records(file);
        let end = all.last().unwrap().next();
        for at in 0..(end + 64).min(file.len()) {
            let disk = log.disk.kill();
            let mut flipped = file.clone();
            flipped[at] ^= 1 << (at % 8);
            disk.spoil(path, flipped);
            let what = format!("{} byte {at}", path.display());
            let hurt = tally.check(&disk, &log.state, &what);
            let touched = all.iter().find(|found| (found.at..found.to).contains(&at));
            let owner = touched
                .filter(|found| found.kind.is_of_group())
                .map(|found| found.group);
            if at >= all[0].at {
                assert!(
                    hurt.iter().all(|group| Some(*group) == owner),
                    "{what} of {owner:?} hurt {hurt:?}"
                );
            }
        }
    }
    let Tally {
        refused,
        hurt,
        unharmed,
    } = tally;
    assert!(
        hurt > 1000 && unharmed > 100,
        "{hurt} hurt, {refused} refused, {unharmed} unharmed"
    );
    assert!(
        refused < hurt / 2,
        "most flips must leave the other groups alive: {hurt} hurt, {refused} refused"
    );
}

#[test]
fn swapped_lost_and_duplicated_blocks_are_noticed() {
    let log = grown(23, 60, true);
    let files = log.disk.segments();
    let places: Vec<(usize, usize)> = (0..files.len())
        .flat_map(|i| (0..files[i].1.len().div_ceil(BLOCK)).map(move |block| (i, block * BLOCK)))
        .collect();
    let block = |(i, at): (usize, usize)| {
        let file = &files[i].1;
        file[at..(at + BLOCK).min(file.len())].to_vec()
    };
    let put = |disk: &SimDisk, (i, at): (usize, usize), bytes: &[u8]| {
        let files = disk.segments();
        let (path, mut file) = files[i].clone();
        let n = bytes.len().min(file.len() - at);
        file[at..at + n].copy_from_slice(&bytes[..n]);
        disk.spoil(&path, file);
    };
    let mut tally = Tally::default();
    // The very end of the log: what is gone from there on looks as if it had never been written.
    let (tail, end) = (
        files.len() - 1,
        records(&files.last().unwrap().1).last().unwrap().next(),
    );
    let last = (tail, (end - 1) / BLOCK * BLOCK);
    for &to in &places {
        for &from in &places {
            let disk = log.disk.kill();
            put(&disk, to, &block(from));
            if to < last {
                tally.check(&disk, &log.state, &format!("block {from:?} also at {to:?}"));
            }
            put(&disk, from, &block(to));
            if to < last && from < last {
                tally.check(&disk, &log.state, &format!("blocks {from:?} and {to:?} swapped"));
            }
        }
        let disk = log.disk.kill();
        put(&disk, to, &[0; BLOCK]);
        if to < last {
            tally.check(&disk, &log.state, &format!("block {to:?} zeroed"));
        }
    }
    assert!(tally.hurt > 0 && tally.refused > 0, "{tally:?}");
}

#[test]
fn an_old_segment_that_comes_back_is_noticed_or_harmless() {
    let log = grown(37, 120, true);
    let now = log.disk.segments();
    let tail = &now.last().unwrap().0;
    let mut tally = Tally::default();
    for (moment, (_, files)) in log.moments.iter().enumerate().step_by(3) {
        for (path, file) in files {
            let disk = log.disk.kill();
            if path == tail {
                // The end rolled back: that can't be told. But what is found is what once was, nothing else.
                disk.spoil(path, file.clone());
                let (_, found) = open(&disk).unwrap();
                let was = log.moments.iter().any(|(state, _)| *state == found);
                assert!(
                    was || found == log.state,
                    "the end of moment {moment} gave a state that never was"
                );
                continue;
            }
            disk.spoil(path, file.clone());
            let hurt = tally.check(&disk, &log.state, &format!("{} of moment {moment}", path.display()));
            if !now.iter().any(|(present, _)| present == path) {
                assert!(hurt.is_empty(), "{} isn't needed", path.display());
            }
        }
    }
    assert!(tally.unharmed > 0, "{tally:?}");
}

#[test]
fn a_missing_segment_is_noticed() {
    let log = grown(41, 60, true);
    let files = log.disk.segments();
    assert!(files.len() >= 3, "{} segments", files.len());
    for (i, (path, _)) in files.iter().enumerate() {
        let disk = log.disk.kill();
        disk.lose(path);
        let mut tally = Tally::default();
        let hurt = tally.check(&disk, &log.state, &format!("{} is gone", path.display()));
        assert!(
            tally.refused == 1 || !hurt.is_empty(),
            "{} went unnoticed",
            path.display()
        );
        assert_eq!(
            tally.refused == 1,
            i + 1 == files.len(),
            "only the loss of the end can't be told apart"
        );
    }
}

/// A segment of the same number from another log: another life of this folder, or another node's.
#[test]
fn a_segment_of_another_log_is_refused() {
    let (log, other) = (grown(41, 60, true), grown(43, 60, true));
    let theirs = other.disk.segments();
    for (path, _) in log.disk.segments() {
        let Some((_, file)) = theirs.iter().find(|(name, _)| *name == path) else {
            continue;
        };
        let disk = log.disk.kill();
        disk.spoil(&path, file.clone());
        let opened = open(&disk).map(drop);
        assert!(matches!(opened, Err(WalError::Damaged { .. })), "{}", path.display());
    }
}

/// What a hurt group's replica left behind is over once the group is born again under a fresh id.
#[test]
fn a_fresh_birth_ends_the_hurt() {
    let log = grown(11, 60, true);
    let (path, file) = log.disk.segments().pop().unwrap();
    let all = records(&file);
    let victim = all.iter().find(|found| found.kind == Kind::Entry).unwrap();
    let mut flipped = file;
    flipped[victim.from] ^= 1;
    log.disk.spoil(&path, flipped);
    let (mut writer, found) = open(&log.disk).unwrap();
    assert!(found[&victim.group].hurt);
    let born = record::Record::new(
        victim.group,
        Kind::Born,
        999u64.to_le_bytes().to_vec(),
        bytes::Bytes::new(),
    );
    let ops = vec![crate::wal::Op::new(vec![born], None)];
    let lazy = BTreeMap::new();
    writer
        .commit(Work {
            ops,
            lazy,
            rests: false,
        })
        .unwrap();
    let (_, found) = open(&log.disk.kill()).unwrap();
    assert!(!found[&victim.group].hurt && found[&victim.group].entries.is_empty());
}

/// The log of the release before: read as it was, then gone on with in the new format.
#[test]
fn a_log_of_format_1_goes_on() {
    let form = record::Form { version: 1, salt: 77 };
    let header = Header {
        form,
        seq: 1,
        before: 0,
        batch: 0,
    };
    let mut file = header.write();
    let mut model = Model::default();
    let mut rng = StdRng::seed_from_u64(5);
    let mut script = Script::new(State::new());
    for n in 1..20 {
        let (records, _) = script.next(&mut rng, 3);
        for (i, record) in records.iter().enumerate() {
            let mark = record::Mark {
                batch: n,
                last: i + 1 == records.len(),
                copy: false,
                nth: 0,
            };
            let mut bytes = Vec::new();
            record.write(&mut bytes, file.len(), form, mark);
            file.extend(bytes);
        }
        model.say(records);
        model.ack();
    }
    file.resize(file.len() + rng.random_range(100..2000), 0);
    let disk = SimDisk::default();
    disk.spoil(&PathBuf::from(DIR).join("wal-0000000000000001.seg"), file);
    let (mut writer, found) = open(&disk).unwrap();
    model.check(&found, "the old log");
    for _ in 0..40 {
        assert!(batch(&mut writer, &mut rng, &mut script, &mut model, 3));
    }
    let (_, found) = open(&disk.kill()).unwrap();
    model.check(&found, "the old log, gone on with");
}

/// Several wounds at once, of any size, anywhere before the last batch.
#[test]
fn many_random_wounds_are_noticed() {
    let mut tally = Tally::default();
    match std::env::var("WAL_SEED") {
        Ok(seed) => wound(seed.parse().expect("WAL_SEED is a number"), &mut tally),
        Err(_) => {
            (0..150).for_each(|seed| wound(seed, &mut tally));
            assert!(tally.hurt > 30 && tally.refused > 0, "{tally:?}");
        }
    }
}

fn wound(seed: u64, tally: &mut Tally) {
    let log = grown_in(seed % 7, 40, true, 4096);
    let mut rng = StdRng::seed_from_u64(seed);
    let disk = log.disk.kill();
    for _ in 0..rng.random_range(1..4) {
        let files = disk.segments();
        let i = rng.random_range(0..files.len());
        let (path, mut file) = files[i].clone();
        let end = match i + 1 == files.len() {
            true => records(&log.disk.segments()[i].1).last().unwrap().at,
            false => file.len(),
        };
        let from = rng.random_range(0..end);
        let to = (from + [1, 8, 100, 600][rng.random_range(0..4)]).min(end);
        match rng.random_range(0..3) {
            0 => file[from..to].fill(0),
            1 => file[from..to].iter_mut().for_each(|byte| *byte = rng.random()),
            _ => {
                let (_, other) = &files[rng.random_range(0..files.len())];
                let n = (to - from).min(other.len());
                file[from..from + n].copy_from_slice(&other[..n]);
            }
        }
        disk.spoil(&path, file);
    }
    tally.check(
        &disk,
        &log.state,
        &format!("replay: WAL_SEED={seed} cargo test -p raft-store --lib many_random_wounds"),
    );
}
