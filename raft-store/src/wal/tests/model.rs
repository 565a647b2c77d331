//! The dumbest log that is right: a list of records, and what each group is after the first `k` of them.

use crate::wal::{Kind, Record};
use rand::{Rng, RngExt};
use std::collections::BTreeMap;

/// What a group is, as far as the log knows.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct GroupState {
    pub(super) born: Option<Vec<u8>>,
    pub(super) vote: Option<Vec<u8>>,
    pub(super) commit: Option<Vec<u8>>,
    pub(super) purge: Option<Vec<u8>>,
    pub(super) entries: BTreeMap<u64, Vec<u8>>,
    /// Named as hurt by recovery.
    pub(super) hurt: bool,
}

/// Short: a payload is told by its checksum.
impl std::fmt::Debug for GroupState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |payload: &Option<Vec<u8>>| payload.as_ref().map(|p| crc32c::crc32c(p));
        let (born, vote, commit) = (short(&self.born), short(&self.vote), short(&self.commit));
        let purge = self
            .purge
            .as_ref()
            .map(|p| u64::from_le_bytes(*p.first_chunk().unwrap()));
        write!(
            f,
            "born {born:?} vote {vote:?} commit {commit:?} purge {purge:?} hurt {} entries",
            self.hurt
        )?;
        let mut entries = self.entries.iter();
        entries.try_for_each(|(i, p)| write!(f, " {i}:{:x}", crc32c::crc32c(p)))
    }
}

pub(super) type State = BTreeMap<u32, GroupState>;

/// Says one record.
pub(super) fn say(state: &mut State, group: u32, kind: Kind, payload: &[u8]) {
    let of = state.entry(group).or_default();
    let index = payload.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    match kind {
        Kind::Born => {
            if of.born.as_ref().is_some_and(|born| born != payload) {
                *of = GroupState::default();
            }
            of.born = Some(payload.to_vec());
        }
        Kind::Vote => of.vote = Some(payload.to_vec()),
        Kind::Commit => of.commit = Some(payload.to_vec()),
        Kind::Purge => {
            of.purge = Some(payload.to_vec());
            of.entries.retain(|i, _| *i > index);
        }
        Kind::Truncate => of.entries.retain(|i, _| *i < index),
        Kind::Entry => drop(of.entries.insert(index, payload.to_vec())),
        Kind::Hurt => of.hurt = true,
        Kind::Seal | Kind::Cut | Kind::Tally => {}
    }
}

pub(super) fn say_record(state: &mut State, record: &Record) {
    let payload = [&record.prefix[..], &record.body[..]].concat();
    say(state, record.group, record.kind, &payload);
}

/// What the log was told, and how much of it was acknowledged.
#[derive(Clone, Default)]
pub(super) struct Model {
    base: State,
    said: Vec<Record>,
    acked: usize,
}

impl Model {
    /// A life that begins with what recovery found.
    pub(super) fn from(base: State) -> Model {
        Model {
            base,
            ..Model::default()
        }
    }

    pub(super) fn say(&mut self, records: impl IntoIterator<Item = Record>) {
        self.said.extend(records);
    }

    pub(super) fn ack(&mut self) {
        self.acked = self.said.len();
    }

    pub(super) fn after(&self, k: usize) -> State {
        let mut state = self.base.clone();
        self.said[..k].iter().for_each(|record| say_record(&mut state, record));
        state
    }

    pub(super) fn acknowledged(&self) -> State {
        self.after(self.acked)
    }

    /// Nothing acknowledged is lost, nothing is invented: `found` is the state after some number of records, at least
    /// all that were acknowledged.
    pub(super) fn check(&self, found: &State, what: &str) {
        let mut state = self.acknowledged();
        if state == *found {
            return;
        }
        for record in &self.said[self.acked..] {
            say_record(&mut state, record);
            if state == *found {
                return;
            }
        }
        let acked = self.acknowledged();
        for group in acked.keys().chain(found.keys()) {
            let (was, is) = (acked.get(group), found.get(group));
            assert_eq!(was, is, "{what}: group {group} (left: acknowledged, right: recovered)");
        }
        panic!("{what}: recovered groups are each right, but not of one moment");
    }
}

/// Ops of a few groups, as their logs could make them.
pub(super) struct Script {
    pub(super) state: State,
    lives: u64,
}

impl Script {
    pub(super) fn new(state: State) -> Script {
        Script { state, lives: 0 }
    }

    fn record(group: u32, kind: Kind, payload: Vec<u8>) -> Record {
        Record::new(group, kind, payload, bytes::Bytes::new())
    }

    /// The next op of some group: its records, and whether they are a rewrite of all that lives.
    pub(super) fn next(&mut self, rng: &mut impl Rng, groups: u32) -> (Vec<Record>, Option<u32>) {
        let group = rng.random_range(0..groups);
        let of = self.state.entry(group).or_default().clone();
        let purged = of
            .purge
            .as_ref()
            .map_or(0, |p| u64::from_le_bytes(*p.first_chunk().unwrap()) + 1);
        let end = of.entries.last_key_value().map_or(purged, |(i, _)| i + 1);
        let first = of.entries.first_key_value().map_or(end, |(i, _)| *i);
        let word = |n: u64| n.to_le_bytes().to_vec();
        let mut rewrite = None;
        let roll = rng.random_range(0..100);
        let records = match roll {
            _ if of.born.is_none() => vec![Self::record(group, Kind::Born, word(1))],
            0..=54 => {
                let n = rng.random_range(1..5);
                let entries = (end..end + n).map(|i| {
                    let len = if rng.random_bool(0.05) {
                        1500
                    } else {
                        rng.random_range(0..150)
                    };
                    let fill: u8 = rng.random();
                    Self::record(group, Kind::Entry, [word(i), vec![fill; len]].concat())
                });
                entries.collect()
            }
            55..=64 => vec![Self::record(group, Kind::Vote, word(rng.random()))],
            65..=69 if end > first => vec![Self::record(group, Kind::Truncate, word(rng.random_range(first..end)))],
            70..=84 if end > first => {
                vec![Self::record(group, Kind::Purge, word(rng.random_range(first..end)))]
            }
            85..=86 => vec![Self::record(group, Kind::Purge, word(end + 10))],
            87..=94 => {
                rewrite = Some(group);
                of.entries
                    .values()
                    .map(|payload| Self::record(group, Kind::Entry, payload.clone()))
                    .collect()
            }
            95 => {
                self.lives += 1;
                vec![Self::record(
                    group,
                    Kind::Born,
                    word(1000 + self.lives * 7 + rng.random_range(0..7u64)),
                )]
            }
            _ => vec![Self::record(group, Kind::Commit, word(rng.random()))],
        };
        records.iter().for_each(|record| say_record(&mut self.state, record));
        (records, rewrite)
    }
}
