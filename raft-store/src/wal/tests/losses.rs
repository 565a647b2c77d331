//! Losses that random damage seldom makes: each the smallest log in which one step of recovery is all that notices it.

use super::{
    crash::{TINY, open, open_with},
    damage::records,
    model::{Model, State},
};
use crate::wal::{
    Kind, Op, Options, Record, WalError,
    sim_disk::SimDisk,
    writer::{Work, Writer},
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// No tallies of the writer's own accord.
const QUIET: Options = Options {
    tally_bytes: 1 << 20,
    ..TINY
};

fn record(group: u32, kind: Kind, n: u64, len: usize) -> Record {
    Record::new(group, kind, n.to_le_bytes().to_vec(), Bytes::from(vec![n as u8; len]))
}

fn commit(writer: &mut Writer<SimDisk>, batches: Vec<Vec<Record>>, rests: bool) {
    let last = batches.len() - 1;
    for (i, records) in batches.into_iter().enumerate() {
        let work = Work {
            ops: vec![Op::new(records, None)],
            lazy: BTreeMap::new(),
            rests: rests && i == last,
        };
        writer.commit(work).unwrap();
    }
    if rests {
        let (ops, lazy) = (Vec::new(), BTreeMap::new());
        writer.commit(Work { ops, lazy, rests }).unwrap();
    }
}

/// Flips a bit of the first record that `is` what is meant.
fn flip(disk: &SimDisk, is: impl Fn(u32, Kind, &[u8]) -> bool) {
    let (path, mut file) = disk.segments().pop().unwrap();
    let all = records(&file);
    let mut meant = all.iter().filter(|r| !r.mark.copy);
    let found = meant.find(|r| is(r.group, r.kind, &file[r.from..r.to])).unwrap();
    let at = found.from;
    file[at] ^= 1;
    disk.spoil(&path, file);
}

fn vote(n: u8) -> impl Fn(u32, Kind, &[u8]) -> bool {
    move |group, kind, payload| (group, kind) == (1, Kind::Vote) && payload[0] == n
}

fn hurt(state: &State) -> Vec<u32> {
    let hurt = state.iter().filter(|(_, of)| of.hurt);
    hurt.map(|(group, _)| *group).collect()
}

/// Its entries are all there, and so is the tally: only its number tells that something between them is gone.
#[test]
pub(super) fn a_vote_lost_between_others_is_noticed() {
    let disk = SimDisk::default();
    let (mut writer, _) = open_with(&disk, QUIET).unwrap();
    let batches = vec![
        vec![record(1, Kind::Born, 1, 0), record(2, Kind::Born, 2, 0)],
        vec![record(1, Kind::Entry, 0, 10), record(2, Kind::Entry, 0, 10)],
        vec![record(1, Kind::Vote, 7, 0)],
        vec![record(1, Kind::Entry, 1, 10)],
    ];
    commit(&mut writer, batches, true);
    drop(writer);
    let disk = disk.kill();
    flip(&disk, vote(7));
    let (_, found) = open(&disk).unwrap();
    assert_eq!(hurt(&found), [1]);
}

/// Nobody can say whose the damage is: the log must not open as if it were nobody's.
#[test]
pub(super) fn damage_that_no_tally_follows_is_refused() {
    let disk = SimDisk::default();
    let (mut writer, _) = open_with(&disk, QUIET).unwrap();
    let batches = vec![
        vec![record(1, Kind::Born, 1, 0), record(2, Kind::Born, 2, 0)],
        vec![record(1, Kind::Vote, 7, 0)],
        vec![record(2, Kind::Vote, 8, 0)],
        vec![record(2, Kind::Vote, 9, 0)],
    ];
    commit(&mut writer, batches, false);
    drop(writer);
    let disk = disk.kill();
    flip(&disk, vote(7));
    let opened = open(&disk).map(|(_, found)| found);
    assert!(matches!(opened, Err(WalError::Damaged { .. })), "{opened:?}");
}

/// The segment in which a vote was lost goes when others need it no more. That the vote was lost must not go with it.
#[test]
pub(super) fn who_is_hurt_stays_so_when_the_damaged_segment_is_gone() {
    let disk = SimDisk::default();
    let (mut writer, _) = open_with(&disk, QUIET).unwrap();
    let batches = vec![
        vec![record(1, Kind::Born, 1, 0), record(2, Kind::Born, 2, 0)],
        vec![record(1, Kind::Vote, 6, 0)],
        vec![record(1, Kind::Vote, 7, 0)],
    ];
    commit(&mut writer, batches, true);
    drop(writer);
    let disk = disk.kill();
    flip(&disk, vote(7));
    let (mut writer, found) = open_with(&disk, QUIET).unwrap();
    assert_eq!(hurt(&found), [1]);
    let first = disk.segments()[0].0.clone();
    for n in 0..60 {
        let batch = vec![record(2, Kind::Entry, n, 400), record(2, Kind::Purge, n, 0)];
        commit(&mut writer, vec![batch], false);
    }
    assert!(
        disk.segments().iter().all(|(path, _)| *path != first),
        "the damaged segment is still there"
    );
    drop(writer);
    let (_, found) = open(&disk.kill()).unwrap();
    assert_eq!(hurt(&found), [1]);
}

/// Behind the torn place of a batch, whole pieces of it may lie. The log goes on over them, and at some length of what is
/// written next its end meets the beginning of such a piece: it must not be there any more.
#[test]
pub(super) fn what_was_cut_never_comes_back() {
    let disk = SimDisk::default();
    let (mut writer, _) = open_with(&disk, QUIET).unwrap();
    let torn = vec![record(1, Kind::Entry, 0, 700), record(1, Kind::Entry, 1, 20)];
    commit(&mut writer, vec![vec![record(1, Kind::Born, 1, 0)], torn], false);
    drop(writer);
    let disk = disk.kill();
    flip(&disk, |_, kind, payload| kind == Kind::Entry && payload[0] == 0);
    for len in (0..800).step_by(8) {
        let disk = disk.kill();
        let (mut writer, found) = open_with(&disk, QUIET).unwrap();
        assert!(found[&1].entries.is_empty(), "the batch was torn: {found:?}");
        let mut model = Model::from(found);
        let next = record(2, Kind::Vote, 3, len);
        model.say([next.clone()]);
        commit(&mut writer, vec![vec![next]], false);
        model.ack();
        drop(writer);
        let (_, found) = open(&disk.kill()).unwrap();
        model.check(&found, &format!("{len} bytes behind the cut"));
    }
}
