//! What the inspector says of a shard is held against what the shard really has: 'sound' is a proof, or a lie.
//!
//! It looks at real files, so each spoilt log is put into a folder. A flip may leave every shard sound (it hit a seal, or
//! a copy); it must never leave one sound that lost something.

use super::{
    crash::open,
    damage::{GROUPS, grown_in},
};
use crate::wal::{
    inspect::{self, Verdict},
    sim_disk::SimDisk,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

fn name(path: &Path) -> &std::ffi::OsStr {
    path.file_name().unwrap()
}

fn put(dir: &Path, files: &[(PathBuf, Vec<u8>)]) {
    for (path, file) in files {
        std::fs::write(dir.join(name(path)), file).unwrap();
    }
}

/// Every shard's verdict, counted; none may be better than what recovery finds.
fn check(dir: &Path, disk: &SimDisk, state: &super::model::State, seen: &mut BTreeMap<Verdict, usize>, what: &str) {
    let report = inspect::read(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = open(&disk.kill()).map(|(_, found)| found);
    for group in 0..GROUPS {
        let verdict = report.verdict(Some(group)).unwrap_or(Verdict::Damaged);
        *seen.entry(verdict).or_default() += 1;
        if verdict == Verdict::Damaged {
            continue;
        }
        let found = found
            .as_ref()
            .unwrap_or_else(|error| panic!("{what}: group {group} is {verdict:?}, and the log doesn't open: {error}"));
        let has = found.get(&group);
        assert!(
            !has.is_some_and(|of| of.hurt),
            "{what}: group {group} is {verdict:?}, and hurt"
        );
        if verdict == Verdict::Sound {
            assert_eq!(has, state.get(&group), "{what}: group {group} is called sound");
        }
    }
    let (whole, worst) = (
        report.verdict(None),
        (0..GROUPS).filter_map(|g| report.verdict(Some(g))).max(),
    );
    assert!(whole >= worst, "{what}: the log is {whole:?}, a shard in it {worst:?}");
}

#[test]
fn a_shard_is_called_sound_only_if_it_lost_nothing() {
    let log = grown_in(11, 7, true, 1800);
    let files = log.disk.segments();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &files);
    let mut seen = BTreeMap::new();
    check(dir.path(), &log.disk, &log.state, &mut seen, "whole");
    assert_eq!(seen.keys().collect::<Vec<_>>(), [&Verdict::Sound]);
    for (path, file) in &files {
        let used = file.iter().rposition(|byte| *byte != 0).unwrap() + 9;
        for at in (0..used.min(file.len())).step_by(3) {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << (at % 8);
            let disk = log.disk.kill();
            disk.spoil(path, flipped.clone());
            put(dir.path(), &[(path.clone(), flipped)]);
            check(
                dir.path(),
                &disk,
                &log.state,
                &mut seen,
                &format!("{} byte {at}", path.display()),
            );
        }
        put(dir.path(), &[(path.clone(), file.clone())]);
    }
    let of = |verdict| seen.get(&verdict).copied().unwrap_or(0);
    let (sound, torn, damaged) = (of(Verdict::Sound), of(Verdict::Torn), of(Verdict::Damaged));
    assert!(
        sound > 500 && torn > 20 && damaged > 200,
        "{sound} sound, {torn} torn, {damaged} damaged"
    );
}

#[test]
fn a_missing_file_leaves_no_log_sound() {
    let log = grown_in(41, 60, true, 8192);
    let files = log.disk.segments();
    let dir = tempfile::tempdir().unwrap();
    for (path, file) in &files {
        put(dir.path(), &files);
        std::fs::remove_file(dir.path().join(name(path))).unwrap();
        let disk = log.disk.kill();
        disk.lose(path);
        let what = format!("without {}", path.display());
        check(dir.path(), &disk, &log.state, &mut BTreeMap::new(), &what);
        let verdict = inspect::read(dir.path()).unwrap().verdict(None);
        assert_eq!(verdict, Some(Verdict::Damaged), "{what}");
        put(dir.path(), &[(path.clone(), file.clone())]);
    }
}
