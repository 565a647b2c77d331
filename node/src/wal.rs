//! `rushroom wal {ls,dump,verify} DIR`: a node's write-ahead log, for people and for scripts.
//!
//! `DIR` is the folder of a node, alive or dead, or the one with the segments. Nothing is changed, locked or repaired.
//! Reading is `raft_store::wal::inspect`; here are tables, JSON and exit codes:
//!
//! ```text
//!   0  sound: proved that nothing that was durable is missing (with --group: nothing of that shard)
//!   1  damaged (with --group: that shard's, or nobody can say whose)
//!   2  no log, no such shard in it, it can't be read, or bad arguments
//!   3  torn: the last batch is in pieces, all before it is sound. After a crash that is as it should be
//! ```
//!
//! Deliberately absent: what bidders wrote, and any way to mend a log. A hurt replica comes back from its others.

mod bench;

use crate::cli::{complain, say};
use anyhow::Result;
use clap::{Args, Subcommand};
use raft_store::wal::{
    WalError,
    inspect::{self, Life, Line, Report, SegmentLine, ShardLine, Verdict},
};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Something that was durable is missing.
const DAMAGED: u8 = 1;
/// There is no log, or it can't be read.
const UNREADABLE: u8 = 2;
/// The last batch is in pieces.
const TORN: u8 = 3;
/// Lines that are printed at once.
const CHUNK: usize = 64 * 1024;

#[derive(Subcommand)]
pub(crate) enum Wal {
    /// Segments and shards, as tables.
    Ls(Where),
    /// Every record, as it lies.
    Dump(Where),
    /// Whether all that was durable is there. Exit code 0: sound, 1: damaged, 2: can't be read, 3: the last batch is torn.
    Verify(Where),
    /// The log alone under load: one run, one line of JSON.
    #[command(hide = true)]
    Bench(bench::Bench),
}

#[derive(Args)]
pub(crate) struct Where {
    /// A node's folder, or the folder of its segments.
    dir: PathBuf,
    /// Only this shard.
    #[arg(long, value_name = "N")]
    group: Option<u32>,
    /// JSON: an object, or one a line (dump).
    #[arg(long)]
    json: bool,
}

/// Does what was asked.
pub(crate) fn run(what: &Wal) -> Result<ExitCode> {
    let done = match what {
        Wal::Bench(what) => return bench::bench(what),
        Wal::Ls(place) => ls(place),
        Wal::Dump(place) => dump(place),
        Wal::Verify(place) => verify(place),
    };
    match done {
        Ok(Ok(code)) => Ok(code),
        Ok(Err(error)) => {
            complain(&format!("{}: {error}", error.code()));
            Ok(ExitCode::from(UNREADABLE))
        }
        Err(error) => Err(error),
    }
}

/// A log that can't be read is an answer, not a failure of ours.
type Answer = Result<Result<ExitCode, WalError>>;

/// What a verdict is to a script. None: there is no such shard.
fn code(verdict: Option<Verdict>) -> ExitCode {
    match verdict {
        Some(Verdict::Sound) => ExitCode::SUCCESS,
        Some(Verdict::Damaged) => ExitCode::from(DAMAGED),
        Some(Verdict::Torn) => ExitCode::from(TORN),
        None => ExitCode::from(UNREADABLE),
    }
}

/// The whole report, and what it says of what was asked for.
fn report(place: &Where) -> Result<(Report, Option<Verdict>), WalError> {
    let report = inspect::read(&place.dir)?;
    let verdict = report.verdict(place.group);
    if let (Some(shard), None) = (place.group, verdict) {
        complain(&format!("wal_no_shard: the log holds nothing of shard {shard}"));
    }
    Ok((report, verdict))
}

/// The same with nothing in it of other shards, to be shown.
fn only(mut report: Report, shard: Option<u32>) -> Report {
    if let Some(shard) = shard {
        report.shards.retain(|line| line.shard == shard);
        let lines = report.segments.iter_mut();
        lines.for_each(|line| line.kept_by.retain(|kept| *kept == shard));
    }
    report
}

fn ls(place: &Where) -> Answer {
    let (report, verdict) = match report(place) {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let report = only(report, place.group);
    if place.json {
        say(&format!("{}\n", as_json(&report, verdict)))?;
    } else {
        let (segments, shards) = (segments(&report), shards(&report));
        say(&format!("{}\n{segments}\n{shards}", told(&report)))?;
    }
    Ok(Ok(code(verdict)))
}

fn verify(place: &Where) -> Answer {
    let (report, verdict) = match report(place) {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let report = only(report, place.group);
    if place.json {
        say(&format!("{}\n", as_json(&report, verdict)))?;
    } else {
        say(&format!("{}{}", told(&report), judged(&report, place.group, verdict)))?;
    }
    Ok(Ok(code(verdict)))
}

fn dump(place: &Where) -> Answer {
    let (mut text, mut failed) = (String::new(), Ok(ExitCode::SUCCESS));
    if !place.json {
        text.push_str("SEGMENT  AT         BATCH        SHARD  NTH      KIND      WHAT\n");
    }
    let read = inspect::dump(&place.dir, place.group, &mut |line| {
        text.push_str(&if place.json { line_json(&line) } else { line_text(&line) });
        if text.len() > CHUNK {
            failed = say(&std::mem::take(&mut text));
        }
        failed.is_ok()
    });
    failed?;
    say(&text)?;
    // What isn't there can't be listed: a segment that is gone leaves no line.
    Ok(read.and_then(|()| report(place)).map(|(_, verdict)| code(verdict)))
}

fn line_text(line: &Line) -> String {
    let shard = line.shard.map_or_else(|| "-".to_owned(), |shard| shard.to_string());
    let nth = if line.nth == 0 {
        "-".to_owned()
    } else {
        line.nth.to_string()
    };
    let batch = format!("{}{}", line.batch.0, if line.batch.1 { "." } else { "" });
    let copy = if line.copy { " (copy)" } else { "" };
    format!(
        "{:<7}  {:<9}  {batch:<11}  {shard:<5}  {nth:<7}  {:<8}  {}{copy}\n",
        line.segment, line.at, line.kind, line.what
    )
}

fn line_json(line: &Line) -> String {
    let value = json!({
        "segment": line.segment, "at": line.at, "batch": line.batch.0, "last": line.batch.1, "shard": line.shard,
        "nth": line.nth, "copy": line.copy, "kind": line.kind, "what": line.what,
    });
    format!("{value}\n")
}

fn told(report: &Report) -> String {
    let life = match report.life {
        Life::Live(0) => "a node has it open".to_owned(),
        Life::Live(pid) => format!("process {pid} has it open"),
        Life::Dead => "no node has it open".to_owned(),
        Life::Unknown => "whether a node has it open can't be told".to_owned(),
    };
    let used: u64 = report.segments.iter().map(|line| line.used).sum();
    let all: u64 = report.segments.iter().map(|line| line.bytes).sum();
    format!(
        "{}: {life}; {} segments, {} used of {}\n",
        report.dir.display(),
        report.segments.len(),
        size(used),
        size(all)
    )
}

fn segments(report: &Report) -> String {
    let row = |line: &SegmentLine| {
        let batches = line
            .batches
            .map_or_else(|| "-".into(), |(first, last)| format!("{first}-{last}"));
        vec![
            line.seq.to_string(),
            line.format.to_string(),
            line.state.to_owned(),
            size(line.used),
            size(line.bytes),
            line.records.to_string(),
            batches,
            line.shards.to_string(),
            list(&line.kept_by),
        ]
    };
    let head = [
        "SEGMENT", "FORMAT", "STATE", "USED", "OF", "RECORDS", "BATCHES", "SHARDS", "KEPT BY",
    ];
    table(&head, report.segments.iter().map(row).collect())
}

fn shards(report: &Report) -> String {
    let row = |line: &ShardLine| {
        let small = |name: &str| line.small.get(name).cloned().unwrap_or_else(|| "-".to_owned());
        let (first, end) = line.entries;
        let entries = if first < end {
            format!("{first}-{}", end - 1)
        } else {
            "none".into()
        };
        let state = line
            .hurt
            .as_ref()
            .map_or_else(|| "sound".to_owned(), |why| format!("hurt: {why}"));
        vec![
            line.shard.to_string(),
            small("born"),
            line.records.to_string(),
            entries,
            small("vote"),
            small("purge"),
            small("commit"),
            state,
        ]
    };
    let head = [
        "SHARD",
        "BORN",
        "RECORDS",
        "ENTRIES",
        "VOTE",
        "PURGED",
        "COMMITTED",
        "STATE",
    ];
    table(&head, report.shards.iter().map(row).collect())
}

/// What is wrong, line by line, and what that comes to.
fn judged(report: &Report, shard: Option<u32>, verdict: Option<Verdict>) -> String {
    let mut out = String::new();
    for lost in &report.lost {
        let file = lost.file.display();
        out += &format!("{file}: bytes {}-{} can't be read\n", lost.from, lost.to);
    }
    for line in &report.shards {
        if let Some(why) = &line.hurt {
            let shard = line.shard;
            out += &format!("shard {shard} is hurt: {why}; its replica must come back under a fresh id\n");
        }
    }
    if let Some(why) = &report.refused {
        out += &format!("wal_damaged: a node would refuse to start: {why}\n");
    }
    let whose = shard.map_or_else(
        || format!("{} shards", report.shards.len()),
        |shard| format!("shard {shard}"),
    );
    out += &match verdict {
        Some(Verdict::Sound) if report.lost.is_empty() => {
            format!("sound: {whose}, nothing that was durable is missing\n")
        }
        Some(Verdict::Sound) => {
            format!("sound: {whose} lost nothing, as a tally behind the damage proves; the log is damaged\n")
        }
        Some(Verdict::Torn) => format!(
            "torn: the last batch is in pieces, and whose it is can't be told; before it, {whose} lost nothing. After a crash it \
             was promised to nobody, and the next start cuts it; after an orderly stop it is damage\n"
        ),
        Some(Verdict::Damaged) => match shard {
            Some(shard) => format!("damaged: what is lost is of shard {shard}, or may be\n"),
            None => "damaged\n".to_owned(),
        },
        None => String::new(),
    };
    out
}

fn as_json(report: &Report, verdict: Option<Verdict>) -> Value {
    let life = match report.life {
        Life::Live(pid) => json!({"live": true, "pid": pid}),
        Life::Dead => json!({"live": false}),
        Life::Unknown => json!({"live": null}),
    };
    let segment = |line: &SegmentLine| {
        json!({
            "segment": line.seq, "format": line.format, "state": line.state, "used": line.used, "bytes": line.bytes,
            "records": line.records, "first_batch": line.batches.map(|b| b.0), "last_batch": line.batches.map(|b| b.1),
            "shards": line.shards, "kept_by": line.kept_by,
        })
    };
    let shard = |line: &ShardLine| {
        json!({
            "shard": line.shard, "records": line.records, "first": line.entries.0, "end": line.entries.1,
            "small": line.small, "hurt": line.hurt,
        })
    };
    let lost = report.lost.iter();
    let lost = lost.map(|lost| json!({"file": lost.file, "from": lost.from, "to": lost.to}));
    json!({
        "dir": report.dir, "node": life, "sound": verdict == Some(Verdict::Sound), "verdict": verdict.map(Verdict::word), "torn": report.torn, "refused": report.refused,
        "segments": report.segments.iter().map(segment).collect::<Vec<_>>(),
        "shards": report.shards.iter().map(shard).collect::<Vec<_>>(),
        "lost": lost.collect::<Vec<_>>(),
    })
}

/// Numbers to the right of each other, words below each other.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let width = |i: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(i))
            .map(|cell| cell.chars().count());
        cells.chain([head[i].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    std::iter::once(line(&head))
        .chain(rows.iter().map(|row| line(row)))
        .collect()
}

fn list(shards: &[u32]) -> String {
    match shards {
        [] => "nobody".to_owned(),
        few if few.len() <= 8 => few.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        many => format!("{} shards", many.len()),
    }
}

fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}
