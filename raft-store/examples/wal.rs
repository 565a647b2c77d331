//! One log for all groups of a node, beside a log per group: the same clients, the same disk, in turns.
//!
//! `cargo run --release -p raft-store --example wal -- DIR [SECONDS]` prints one line of flat JSON: for 1, 16, 64 and 128
//! groups entries a second, bytes a second, entries an fsync and waits of both, medians of three rounds, and their ratio.

#![allow(clippy::print_stdout)]

use raft_store::wal::bench::{Load, Seen, run};
use std::{error::Error, fmt::Write, path::Path, time::Duration};

const GROUPS: [u32; 4] = [1, 16, 64, 128];
const ROUNDS: usize = 3;
const CLIENTS: u32 = 256;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("wal DIR [SECONDS]")?;
    let seconds: f64 = args.next().map_or(Ok(3.0), |text| text.parse())?;
    let mut out = format!("{{\"bench\":\"wal\",\"clients\":{CLIENTS},\"rounds\":{ROUNDS},\"seconds\":{seconds}");
    for groups in GROUPS {
        let (mut shared, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            shared.push(once(&dir, groups, true, seconds).await?);
            alone.push(once(&dir, groups, false, seconds).await?);
        }
        let (shared, alone) = (median(shared), median(alone));
        tell(&mut out, groups, "shared", &shared)?;
        tell(&mut out, groups, "alone", &alone)?;
        write!(out, ",\"ratio_{groups}\":{:.2}", rate(&shared) / rate(&alone))?;
    }
    println!("{out}}}");
    Ok(())
}

async fn once(dir: &str, groups: u32, shared: bool, seconds: f64) -> Result<Seen, Box<dyn Error>> {
    let dir = Path::new(dir).join("wal-bench");
    let load = Load {
        groups,
        clients: CLIENTS,
        body_bytes: 200,
        shared,
        time: Duration::from_secs_f64(seconds),
        segment_bytes: 4 * 1024 * 1024,
    };
    let seen = run(&dir, load).await;
    std::fs::remove_dir_all(&dir)?;
    Ok(seen?)
}

fn rate(seen: &Seen) -> f64 {
    seen.entries as f64 / seen.time.as_secs_f64()
}

fn median(mut rounds: Vec<Seen>) -> Seen {
    rounds.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    rounds[rounds.len() / 2]
}

fn tell(out: &mut String, groups: u32, name: &str, seen: &Seen) -> std::fmt::Result {
    let ms = |wait: Duration| wait.as_secs_f64() * 1000.0;
    write!(
        out,
        ",\"{name}_{groups}_entries_per_s\":{:.0},\"{name}_{groups}_bytes_per_s\":{:.0},\"{name}_{groups}_entries_per_fsync\":{:.1},\
         \"{name}_{groups}_p50_ms\":{:.2},\"{name}_{groups}_p99_ms\":{:.2}",
        rate(seen),
        seen.bytes as f64 / seen.time.as_secs_f64(),
        seen.entries as f64 / seen.fsyncs.max(1) as f64,
        ms(seen.p50),
        ms(seen.p99)
    )
}
