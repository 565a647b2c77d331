//! What was durable is there after any crash, what is above a state's count is never used, and what is damaged is never served.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{ColdDir, ColdStore, ENTRY, HEAD, salvage};
use crate::{
    log_store::LogStore,
    options::RaftOptions,
    snapshot::{SnapshotDir, SnapshotFile},
    state_machine::StateMachine,
    types::{LeaderId, LogEntry, LogId, LogPayload, Logged, Payload},
    wal::{
        self, Wal,
        disk::{AnyDisk, Disk, DiskFile},
        sim_disk::{Faults, SimDisk},
    },
};
use auction::{
    Action, Actor, AuctionId, Cold, Command, Currency, Definition, Entry, Id, Limits, Office, RULES_VERSION, Rights,
    Settled, Shard, Stamp, Stamped, Terms, TimeRule,
};
use openraft::{RaftSnapshotBuilder, storage::RaftStateMachine, vote::RaftLeaderId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

const DIR: &str = "/cold";
const GROUP: u32 = 7;
const REPLICA: u64 = 0x1f;

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn definition() -> Definition {
    Definition {
        seller: id("seller"),
        title: "a lamp".into(),
        description: "of brass".into(),
        terms: Terms {
            currency: Currency::parse("KRW").unwrap(),
            start_price: 100,
            increments: vec![(0, 1)],
            reserve: None,
            duration_ms: 60_000,
            time: TimeRule {
                rush: None,
                soft_close: None,
            },
            guests: false,
            pause_without_stream: false,
        },
    }
}

fn command(auction: &str, who: &str, key: &str, action: Action) -> Command {
    let rights = match who {
        "seller" => Rights::MEMBER.and(Rights::SELLER),
        _ => Rights::MEMBER.and(Rights::BIDDER),
    };
    let actor = Actor { id: id(who), rights };
    Command {
        auction: id(auction),
        actor,
        id: Some(id(key)),
        first_sent: None,
        action,
    }
}

/// A shard in which so many auctions settled, each with so many bids; their names fall as their numbers rise.
fn shard(auctions: usize, bids: usize) -> Shard {
    let mut shard = Shard::new(Limits::default());
    shard.raise_rules(RULES_VERSION);
    let office = Office { term: 1, turn: 0 };
    shard.apply(&Entry {
        office,
        ..Entry::default()
    });
    for number in 0..auctions {
        let name = format!("a{:04}", auctions - number);
        let create = Action::Create(Box::new(definition()));
        let mut commands = vec![
            command(&name, "seller", "create", create),
            command(&name, "seller", "start", Action::Start { schedule_version: None }),
        ];
        for bid in 0..bids {
            let who = if bid % 2 == 0 { "ann" } else { "bob" };
            let amount = 100 + bid as u64;
            commands.push(command(&name, who, &format!("b{bid}"), Action::Bid { amount }));
        }
        let reason = "over".into();
        commands.push(command(&name, "seller", "end", Action::Cancel { reason }));
        let at = Stamp(number as u64 + 1);
        let commands = commands.into_iter().map(|command| Stamped { arrived: at, command });
        shard.apply(&Entry {
            office,
            n: shard.next_n(),
            at,
            commands: commands.collect(),
            ..Entry::default()
        });
    }
    assert_eq!(shard.settled_count(), auctions as u64);
    shard
}

fn all(shard: &Shard) -> Vec<Arc<Settled>> {
    shard.warm().cloned().collect()
}

/// What a snapshot names that was made when so many had been paged out.
fn cold(all: &[Arc<Settled>], count: usize) -> Cold {
    all[..count]
        .iter()
        .fold(Cold::default(), |cold, settled| cold.plus(settled.digest()))
}

fn open(disk: &SimDisk, cold: &Cold) -> io::Result<ColdStore<SimDisk>> {
    ColdStore::open(disk.clone(), Path::new(DIR), GROUP, REPLICA, cold)
}

fn same(store: &ColdStore<SimDisk>, settled: &Settled) -> bool {
    let number = settled.number();
    let events = store.events(number, 0, usize::MAX).unwrap();
    store.find(settled.id(), number + 1) == Some(number)
        && store.load(number).unwrap().parts() == settled.parts()
        && store.view(number).unwrap() == settled.view()
        && events == settled.events()
}

fn file(ending: &str) -> PathBuf {
    Path::new(DIR).join(format!("shard-0007-1f.{ending}"))
}

/// A state machine on a real disk.
struct Place {
    _dir: tempfile::TempDir,
    log: LogStore,
    file: SnapshotFile,
    cold: PathBuf,
}

impl Place {
    async fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let options = wal::Options {
            segment_bytes: 64 * 1024,
            preallocate: false,
            ..wal::Options::default()
        };
        let log = Wal::open(dir.path(), options, &mut |_, _, _| Ok(())).unwrap();
        let log = LogStore::open(GROUP, REPLICA, log, None, &RaftOptions::default()).await;
        let place = SnapshotDir {
            disk: AnyDisk::Os,
            dir: dir.path().to_owned(),
        };
        Place {
            log: log.unwrap(),
            file: SnapshotFile::new(&place, GROUP),
            cold: dir.path().join("cold"),
            _dir: dir,
        }
    }

    fn open(&self, cold: &Cold) -> StateMachine {
        let cold = ColdStore::open(AnyDisk::Os, &self.cold, GROUP, REPLICA, cold).unwrap();
        StateMachine::open(self.log.clone(), self.file.clone(), Limits::default(), cold).unwrap()
    }
}

/// One command, as the log has it.
fn entry(shard: &Shard, at: u64, command: Command) -> Entry {
    Entry {
        office: shard.office(),
        n: shard.next_n(),
        at: Stamp(at),
        commands: vec![Stamped {
            arrived: Stamp(at),
            command,
        }],
        ..Entry::default()
    }
}

/// A replica that pages applies as one that doesn't: with what its snapshot and its store have of it.
#[tokio::test]
async fn what_an_entry_names_is_brought_back_for_it() {
    let place = Place::new().await;
    let mut machine = place.open(&Cold::default());
    let mut straight = shard(3, 4);
    let replica = machine.replica();
    replica.state.write().shard = straight.clone();
    for settled in all(&straight).iter().take(2) {
        replica.cold.append(settled).unwrap();
        replica.cold.sync().unwrap();
        assert!(replica.state.write().shard.page_out(settled.number()).is_some());
    }
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let named = replica.state.read().shard.cold();
    assert_eq!(named, cold(&all(&straight), 2));
    // As after a restart.
    let mut machine = place.open(&named);
    let create = Action::Create(Box::new(definition()));
    let commands = [
        command("a0003", "bob", "b3", Action::Bid { amount: 103 }),
        command("a0002", "bob", "new", Action::Bid { amount: 900 }),
        command("a0003", "bob", "again", create.clone()),
        command("a0001", "bob", "again", create),
    ];
    for (index, command) in commands.into_iter().enumerate() {
        let entry = entry(&straight, 100 + index as u64, command);
        let want = straight.apply(&entry);
        let log_id = LogId {
            leader_id: LeaderId::new(1, 1),
            index: 10 + index as u64,
        };
        let payload = LogPayload::Normal(Logged::new(Payload::entry(entry), bytes::Bytes::new()));
        let entries = futures_util::stream::iter([Ok((LogEntry { log_id, payload }, None))]);
        machine.apply(entries).await.unwrap();
        let replica = machine.replica();
        let state = replica.state.read();
        assert_eq!(state.shard.digest(), straight.digest(), "{want:?}");
        let here = ["a0003", "a0002", "a0001"].map(|name| state.shard.is_here(&id(name)));
        assert_eq!(
            (state.shard.cold().count, here),
            (2, [false, false, true]),
            "guests have gone"
        );
    }
}

#[test]
fn what_was_taken_in_is_read_whole_and_in_pages() {
    let disk = SimDisk::default();
    // More than two pieces of events.
    let all = all(&shard(3, 600));
    let store = open(&disk, &Cold::default()).unwrap();
    for settled in &all {
        store.append(settled).unwrap();
        store.append(settled).unwrap();
    }
    assert_eq!((store.count(), store.sync().unwrap()), (3, 3));
    assert!(all.iter().all(|settled| same(&store, settled)));
    let whole = all[1].events();
    assert_eq!(whole.len(), 602);
    for (after, limit) in [
        (0, 1),
        (0, 256),
        (255, 2),
        (256, 1),
        (257, 300),
        (600, 9),
        (602, 9),
        (9_999, 1),
        (0, 0),
    ] {
        let want: Vec<_> = whole.iter().skip(after as usize).take(limit).cloned().collect();
        assert_eq!(store.events(1, after, limit).unwrap(), want, "after {after}, {limit}");
    }
    let ids = |after: Option<&str>, many, below| {
        let after = after.map(id);
        let found = store.ids(after.as_ref(), many, below);
        found
            .into_iter()
            .map(|(id, number)| format!("{id}:{number}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(None, 9, 3), ["a0001:2", "a0002:1", "a0003:0"], "in order of id");
    assert_eq!(ids(Some("a0001"), 1, 3), ["a0002:1"]);
    assert_eq!(ids(None, 9, 2), ["a0002:1", "a0003:0"], "not those above the count");
    assert_eq!(store.find(all[2].id(), 2), None, "never the future");
    assert_eq!(store.find(&AuctionId::parse("none").unwrap(), 3), None);
}

/// Random lives: a disk that dies at any byte, or loses power, or fills up. What a snapshot may name (what `sync` said) is there, and
/// what comes above is written again.
#[test]
fn what_was_durable_is_there_after_any_crash() {
    let all = all(&shard(12, 20));
    let seed = std::env::var("COLD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(0..400, |seed: u64| seed..seed + 1);
    let mut crashed = 0;
    for seed in seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut disk = SimDisk::default();
        let mut durable = 0;
        for life in 0..4 {
            let what = format!("life {life}; replay: COLD_SEED={seed} cargo test -p raft-store what_was_durable");
            // The newest snapshot may be older than the newest page-out.
            let named = rng.random_range(0..=durable);
            let store = open(&disk, &cold(&all, named)).unwrap_or_else(|error| panic!("{error}; {what}"));
            assert_eq!(store.count(), named as u64, "what is above is cut off; {what}");
            assert!(all[..named].iter().all(|settled| same(&store, settled)), "{what}");
            durable = named;
            disk.set(Faults {
                dies_after: rng.random_bool(0.7).then(|| rng.random_range(0..30_000)),
                capacity: rng
                    .random_bool(0.2)
                    .then(|| disk.bytes() as u64 + rng.random_range(0..20_000)),
                sync_fails_at: rng.random_bool(0.2).then(|| rng.random_range(1..6)),
                ..Faults::default()
            });
            for settled in &all[named..] {
                if store.append(settled).is_err() {
                    break;
                }
                if rng.random_bool(0.4) {
                    match store.sync() {
                        Ok(count) => durable = count as usize,
                        Err(_) => break,
                    }
                }
            }
            drop(store);
            crashed += usize::from(durable < all.len());
            disk = disk.crash(rng);
        }
    }
    assert!(crashed > 400 || seed.is_some(), "{crashed} lives ended early: too tame");
}

/// The mistake that the test above is for: naming what isn't durable yet.
#[test]
fn a_snapshot_that_names_what_is_not_durable_is_noticed_at_the_next_start() {
    let all = all(&shard(6, 20));
    let noticed = (0..40).filter(|seed| {
        let disk = SimDisk::default();
        let store = open(&disk, &Cold::default()).unwrap();
        all.iter().for_each(|settled| store.append(settled).unwrap());
        let crashed = disk.crash(&mut StdRng::seed_from_u64(*seed));
        let opened = open(&crashed, &cold(&all, 6));
        let error = opened.map(|store| all.iter().all(|s| store.load(s.number()).is_ok()));
        !matches!(error, Ok(true))
    });
    assert!(noticed.count() > 20);
}

#[test]
fn a_full_disk_is_tried_again_and_a_failed_fsync_is_not() {
    let all = all(&shard(4, 20));
    let disk = SimDisk::default();
    let store = open(&disk, &Cold::default()).unwrap();
    store.append(&all[0]).unwrap();
    let used = disk.bytes() as u64;
    disk.set(Faults {
        capacity: Some(used + 700),
        ..Faults::default()
    });
    assert_eq!(store.append(&all[1]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.bytes() as u64, used, "the room was given back");
    disk.set(Faults::default());
    store.append(&all[1]).unwrap();
    assert_eq!(store.sync().unwrap(), 2);
    store.append(&all[2]).unwrap();
    disk.set(Faults {
        sync_fails_at: Some(1),
        ..Faults::default()
    });
    assert!(store.sync().is_err());
    disk.set(Faults::default());
    assert!(
        store.sync().is_err() && store.append(&all[3]).is_err(),
        "nobody knows what the disk holds"
    );
    assert!(same(&store, &all[0]), "what is durable is read on");
    assert_eq!(disk.retried(), 0);
}

#[test]
fn every_cut_and_every_flip_is_noticed() {
    let all = all(&shard(2, 5));
    let disk = SimDisk::default();
    let store = open(&disk, &Cold::default()).unwrap();
    all.iter().for_each(|settled| store.append(settled).unwrap());
    store.sync().unwrap();
    drop(store);
    let named = cold(&all, 2);
    // Found at the start, or when it is read.
    let noticed = |disk: &SimDisk| match open(disk, &named) {
        Err(error) => error.kind() == io::ErrorKind::InvalidData,
        Ok(store) => (0..2).any(|number| {
            let loaded = store.load(number);
            loaded.is_err_and(|error| error.to_string().starts_with("[cold_damaged]"))
        }),
    };
    assert!(!noticed(&disk), "nothing is wrong yet");
    for ending in ["cold", "cidx"] {
        let path = file(ending);
        let whole = disk.read(&path).unwrap();
        for at in 0..whole.len() {
            // The rest of the index's first entry means nothing.
            if ending == "cidx" && (HEAD as usize..ENTRY).contains(&at) {
                continue;
            }
            let spoilt = disk.kill();
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            spoilt.spoil(&path, flipped);
            assert!(noticed(&spoilt), "{ending}: flip at {at}");
            spoilt.spoil(&path, whole[..at].to_vec());
            assert!(noticed(&spoilt), "{ending}: cut at {at}");
        }
        let without = disk.kill();
        without.lose(&path);
        assert!(noticed(&without), "{ending} is gone");
    }
    let mut other = named;
    other.sum = other.sum.plus(&[1; 32]);
    assert!(open(&disk, &other).is_err(), "the snapshot names others");
}

#[test]
fn another_replica_s_records_are_taken_as_they_are_and_what_is_damaged_is_not() {
    let all = all(&shard(3, 300));
    let (there, here) = (SimDisk::default(), SimDisk::default());
    let (from, to) = (
        open(&there, &Cold::default()).unwrap(),
        ColdStore::open(here, Path::new(DIR), GROUP, 5, &Cold::default()).unwrap(),
    );
    all.iter().for_each(|settled| from.append(settled).unwrap());
    let record = |number| from.record(number).unwrap().to_vec();
    assert!(to.take(1, &record(1)).is_err(), "not the next one");
    assert!(to.take(0, &record(1)).is_err(), "not what it says");
    let mut damaged = record(0);
    damaged[4_000] ^= 1;
    assert!(to.take(0, &damaged).is_err());
    for number in 0..3 {
        to.take(number, &record(number)).unwrap();
        to.take(number, &record(number)).unwrap();
    }
    assert_eq!(to.count(), 3);
    assert!(to.holds(&cold(&all, 2)).is_ok() && to.holds(&cold(&all, 3)).is_ok());
    let mut other = cold(&all, 3);
    other.sum = other.sum.plus(&[1; 32]);
    assert!(to.holds(&other).is_err(), "another sum");
    other.count = 4;
    assert!(to.holds(&other).is_err(), "more than is here");
    // Who sends looks first: else one rotten record would be sent, and refused, again and again.
    let rotten = from.place(1).unwrap();
    let file = there.open(&from.records).unwrap();
    file.write_at(&[0; 8], rotten.at + rotten.len / 2).unwrap();
    assert_eq!(from.record(1).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(there.open(&from.index).is_err(), "condemned: its next start knows");
    assert!(from.record(0).is_ok() && from.record(2).is_ok());
}

#[test]
fn a_replica_that_is_gone_leaves_nothing() {
    let all = all(&shard(2, 2));
    let disk = SimDisk::default();
    let store = open(&disk, &Cold::default()).unwrap();
    all.iter().for_each(|settled| store.append(settled).unwrap());
    store.sync().unwrap();
    assert_eq!(disk.files(), 2);
    let next = ColdStore::open(disk.clone(), Path::new(DIR), GROUP, REPLICA + 1, &Cold::default()).unwrap();
    assert_eq!(
        (disk.files(), next.count()),
        (2, 0),
        "under another id nothing is found, and the old one's stay while this one has nothing"
    );
    next.append(&all[0]).unwrap();
    next.sync().unwrap();
    assert_eq!(disk.files(), 4);
    next.succeed();
    assert_eq!(disk.files(), 2, "a snapshot came with all that it names");
    drop(next);
    store.append(&all[0]).unwrap();
    let next = ColdStore::open(disk.clone(), Path::new(DIR), GROUP, REPLICA + 1, &cold(&all, 1)).unwrap();
    assert_eq!((disk.files(), next.count()), (2, 1), "or was there at the start");
    let other = ColdStore::open(disk.clone(), Path::new(DIR), GROUP + 1, 9, &Cold::default()).unwrap();
    other.append(&all[0]).unwrap();
    super::clear(&disk, Path::new(DIR), GROUP).unwrap();
    assert_eq!(disk.files(), 2, "another group's stay");
}

/// What a founding finds of three auctions when a replica's files are as `spoil` leaves them: numbers that were read, and what of the
/// rest is known.
fn salvaged(spoil: impl FnOnce(&Path, &str)) -> (Vec<u64>, Vec<Option<String>>) {
    let all = all(&shard(3, 300));
    let dir = tempfile::tempdir().unwrap();
    for replica in [REPLICA, REPLICA + 1] {
        let store = ColdStore::open(AnyDisk::Os, dir.path(), GROUP, replica, &Cold::default()).unwrap();
        all.iter().for_each(|settled| store.append(settled).unwrap());
        store.sync().unwrap();
    }
    spoil(dir.path(), "shard-0007-1f");
    let before = names(dir.path());
    let place = ColdDir {
        disk: AnyDisk::Os,
        dir: dir.path().to_owned(),
    };
    let mut read = Vec::new();
    let each = |settled: Settled| {
        let number = settled.number();
        assert_eq!(settled.parts(), all[number as usize].parts());
        read.push(number);
        Ok(())
    };
    let gaps = salvage::salvage(&place, GROUP, REPLICA, &cold(&all, 3), each).unwrap();
    assert_eq!(names(dir.path()), before, "nothing is changed");
    let gaps = gaps.into_iter().map(|gap| gap.auction.map(|id| id.to_string()));
    (read, gaps.collect())
}

fn names(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(dir).unwrap().flatten().map(|file| file.path());
    let mut files: Vec<_> = files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn what_can_be_read_of_a_damaged_replica_is_salvaged_and_the_rest_is_named() {
    let flip = |dir: &Path, name: String, at: usize| {
        let path = dir.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let gone = |dir: &Path, name: String| std::fs::remove_file(dir.join(name)).unwrap();
    // Without the files of a replica that was here before.
    let alone = |dir: &Path| {
        gone(dir, "shard-0007-20.cold".into());
        gone(dir, "shard-0007-20.cidx".into());
    };
    let check = |what: &str, read: &[u64], lost: &[Option<&str>], spoil: &dyn Fn(&Path, &str)| {
        let (found, gaps) = salvaged(|dir, stem| spoil(dir, stem));
        assert_eq!(found, read, "{what}");
        assert_eq!(gaps.iter().map(Option::as_deref).collect::<Vec<_>>(), lost, "{what}");
    };
    let middle = |dir: &Path, stem: &str| {
        let len = std::fs::metadata(dir.join(format!("{stem}.cold"))).unwrap().len() as usize;
        flip(dir, format!("{stem}.cold"), len / 2);
    };
    check("all is well", &[0, 1, 2], &[], &|dir, _| alone(dir));
    check("a record", &[0, 2], &[Some("a0002")], &|dir, stem| {
        alone(dir);
        middle(dir, stem);
    });
    check("a record that a former replica has", &[0, 1, 2], &[], &middle);
    check(
        "a former replica's record is damaged, too",
        &[0, 2],
        &[Some("a0002")],
        &|dir, stem| {
            middle(dir, stem);
            middle(dir, "shard-0007-20");
        },
    );
    for number in 0..3 {
        check(
            "an entry whose record lies between its neighbours",
            &[0, 1, 2],
            &[],
            &|dir, stem| {
                alone(dir);
                flip(dir, format!("{stem}.cidx"), ENTRY * (1 + number) + 30);
            },
        );
    }
    check("condemned", &[0, 1, 2], &[], &|dir, stem| {
        alone(dir);
        std::fs::rename(dir.join(format!("{stem}.cidx")), dir.join(format!("{stem}.damaged"))).unwrap();
    });
    check("no index", &[], &[None; 3], &|dir, stem| {
        gone(dir, format!("{stem}.cidx"));
    });
    check("no records", &[], &[None; 3], &|dir, stem| {
        gone(dir, format!("{stem}.cold"));
    });
    check("cut off", &[0], &[Some("a0002"), Some("a0001")], &|dir, stem| {
        alone(dir);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(dir.join(format!("{stem}.cold")));
        let file = file.unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    });
}
