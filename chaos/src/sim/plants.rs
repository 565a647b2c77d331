//! Mistakes that every node of a simulation makes, to show that the seeds find them: each within a bound.

use super::{Scene, SimOptions, child, jobs, replay};
use crate::check::Status;
use raft_store::sim::Plant;
use std::fmt::Write as _;

/// A mistake: its name, what it is, how to make it, and within how many seeds it must be found. 0: so few schedules show it
/// that no bound is kept (it is tried on as many seeds as were asked for, and `all` leaves it out).
///
/// Against some things there are two safeguards, one behind the other; a mistake in the second shows only where the first is
/// gone, so both go at once. That the first alone is no loss is a row of its own, which no seed may find (`sound`): it
/// also says that the second is enough.
struct Row {
    name: &'static str,
    what: &'static str,
    sow: fn(),
    within: u64,
    /// No mistake: this many seeds must all pass.
    sound: bool,
    /// Where it shows.
    world: World,
}

/// In which world a mistake is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum World {
    /// What seeds make.
    Usual,
    /// Windows so narrow that lanes fall behind.
    Narrow,
    /// A machine loses its power while everything rests.
    Dark,
}

macro_rules! raft {
    ($plant:ident) => {
        || raft_store::sim::plant(Plant::$plant)
    };
}

macro_rules! core {
    ($name:literal $(, without $first:ident)?) => {
        || {
            $(raft_store::sim::plant(Plant::$first);)?
            auction::sow($name);
        }
    };
}

const ROWS: &[Row] = &[
    Row {
        name: "ack-before-fsync",
        what: "the log answers before the disk has it",
        sow: raft!(AckBeforeFsync),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "fsync-error-ignored",
        what: "a failed fsync is taken for a good one",
        sow: raft!(FsyncErrorIgnored),
        within: 60,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "vote-not-persisted",
        what: "a vote is spoken without being written",
        sow: raft!(VoteNotPersisted),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "truncate-not-persisted",
        what: "a cut of the log isn't written",
        sow: raft!(TruncateNotPersisted),
        within: 0,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "snapshot-forgets",
        what: "a snapshot forgets which commands were judged",
        sow: raft!(SnapshotForgets),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "ack-before-commit",
        what: "a command is answered at the door, before it is logged",
        sow: raft!(AckBeforeCommit),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "stale-read",
        what: "a read doesn't ask whether its leader still leads",
        sow: raft!(StaleRead),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "clock-falls-back",
        what: "a new office's clock begins behind the newest stamp",
        sow: raft!(ClockFallsBack),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "clock-jumps",
        what: "a new office's clock begins ahead of the newest stamp",
        sow: raft!(ClockJumps),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "clock-runs-free",
        what: "the clock runs on without a majority",
        sow: raft!(ClockRunsFree),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "lane-backwards",
        what: "a lane gives its newest command first",
        sow: raft!(LaneBackwards),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "old-office-accepted",
        what: "an entry that doesn't follow in its office is applied, where one comes back",
        sow: core!("old-office-accepted", without EntriesReturn),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "entries-return",
        what: "an office's last entry comes back behind the next one's marker: it must be void",
        sow: raft!(EntriesReturn),
        within: 20,
        sound: true,
        world: World::Usual,
    },
    Row {
        name: "close-at-now",
        what: "a close is stamped when it is noticed, not when it was due",
        sow: core!("close-at-now"),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "now-for-all",
        what: "a beat ignores the lanes that are behind",
        sow: core!("now-for-all"),
        within: 20,
        sound: false,
        world: World::Narrow,
    },
    Row {
        name: "timer-early",
        what: "timers fire 150 ms early",
        sow: core!("timer-early"),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "applied-twice",
        what: "a command that was judged is judged again, where the door lets it in",
        sow: core!("applied-twice", without DoorForgets),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "silence-unseen",
        what: "however long a node is silent, it isn't held for lost",
        sow: raft!(SilenceUnseen),
        within: 5,
        sound: false,
        world: World::Dark,
    },
    Row {
        name: "stand-together",
        what: "all that a lost node led is stood for at one look",
        sow: raft!(StandTogether),
        within: 5,
        sound: false,
        world: World::Dark,
    },
    Row {
        name: "paged-out-unsynced",
        what: "settled auctions leave memory before they are durable",
        sow: raft!(PagedOutUnsynced),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "cold-left-behind",
        what: "a replica that gets a snapshot lets go of the settled auctions that come with it",
        sow: raft!(ColdLeftBehind),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "cold-not-found",
        what: "who looks for an auction that isn't in memory finds nothing",
        sow: raft!(ColdNotFound),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "cold-forgets-ids",
        what: "an auction that isn't in memory knows no id any more",
        sow: raft!(ColdForgetsIds),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "forgets-early",
        what: "a refusal is forgotten when half its time is over",
        sow: core!("forgets-early"),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "never-too-old",
        what: "nobody asks how long ago a command was first sent",
        sow: core!("never-too-old"),
        within: 20,
        sound: false,
        world: World::Usual,
    },
    Row {
        name: "door-forgets",
        what: "the door lets in again what was judged: it must be judged once",
        sow: raft!(DoorForgets),
        within: 20,
        sound: true,
        world: World::Usual,
    },
];

fn row(name: &str) -> anyhow::Result<&'static Row> {
    let row = ROWS.iter().find(|row| row.name == name);
    row.ok_or_else(|| {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        anyhow::anyhow!("no plant {name:?}; there are: {}", names.join(" "))
    })
}

/// Has every node of this process make a mistake.
pub(super) fn sow(name: &str) -> anyhow::Result<()> {
    (row(name)?.sow)();
    Ok(())
}

/// One mistake: found within its bound, or not.
pub(super) fn one(name: &str, options: &SimOptions, out: &mut String) -> anyhow::Result<Status> {
    let row = row(name)?;
    let options = &SimOptions {
        narrow: options.narrow || row.world == World::Narrow,
        scene: options.scene.or((row.world == World::Dark).then_some(Scene::Dark)),
        ..options.clone()
    };
    let within = if row.within == 0 { options.seeds } else { row.within };
    for n in 0..within {
        let seed = options.from + n;
        let (line, _) = child(seed, Some(name), options)?;
        let failed = line.map_or_else(|| vec!["broke off".to_owned()], |line| line.failed);
        if !failed.is_empty() {
            let (by, how) = (failed.join(" "), replay(seed, Some(name), options));
            let found = if row.sound { "HARMED seed " } else { "found by seed" };
            writeln!(out, "{name:<24}{found} {seed:<4}{by:<20}{how}   ({})", row.what)?;
            return Ok(if row.sound { Status::Fail } else { Status::Pass });
        }
    }
    let found = if row.sound { "no harm" } else { "NOT FOUND" };
    writeln!(out, "{name:<24}{found} in {within} seeds   ({})", row.what)?;
    Ok(if row.sound { Status::Pass } else { Status::Fail })
}

/// All of them.
pub(super) fn all(options: &SimOptions, out: &mut String) -> anyhow::Result<Status> {
    let rows: Vec<&'static Row> = ROWS.iter().filter(|row| row.within > 0).collect();
    let told: Vec<anyhow::Result<(Status, String)>> = std::thread::scope(|scope| {
        // As many at a time as there are processors: a plant is mostly found by its first seeds.
        let share = rows.len().div_ceil(jobs(options)).max(1);
        let run = |rows: &[&'static Row]| {
            let rows = rows.to_vec();
            scope.spawn(move || {
                let tell = |row: &'static Row| {
                    let mut said = String::new();
                    one(row.name, options, &mut said).map(|status| (status, said))
                };
                rows.into_iter().map(tell).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = rows.chunks(share).map(run).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_default())
            .collect()
    });
    let (mut found, mut missed) = (0, rows.len() - told.len());
    for told in told {
        let (status, said) = told?;
        out.push_str(&said);
        match status {
            Status::Pass => found += 1,
            _ => missed += 1,
        }
    }
    writeln!(out, "# pass {found}\n# fail {missed}")?;
    Ok(if missed == 0 { Status::Pass } else { Status::Fail })
}
