//! The simulation of offices: the real `Office`, `Clock`, `Lanes`, `Pending` and `Shard` in virtual milliseconds, over a
//! log in memory that does everything a Raft log may do to them.
//!
//! ```text
//!   edges (`edges`): send, lose patience, send again, same id twice, same id with another body
//!      |  ^ replies
//!      v  |
//!   three nodes: Shard + Office --propose--> queue --commit in order--> log --apply--> three nodes
//!                                  ^ terms, rejections, unknown outcomes, what is in flight at an election may survive
//!   faults: crash, freeze, cut, no quorum, slow commits, election, rejection, an outcome that is told as unknown
//! ```
//!
//! After each schedule `checks` looks for broken promises, by the names of the reference model (`clock_model.py` of the
//! design): agree, repack, monotone, fast, in_time, interregnum, eaten, given, late, once, hang, declared.
//!
//! A check is worth something only if it fails for the mistake that it is for. So the code under test knows some mistakes
//! (`Plant`: all of the model's that concern a leader), and a test shows that each of them is caught. Those of `apply` are
//! planted in the auction core's own tests.
//!
//! Deliberately absent: tasks, sockets, disks. `tests/clock_proposer.rs` has the task, the host's tests have the rest.

#![allow(clippy::unwrap_used, clippy::expect_used)]

pub(super) mod birth;
mod checks;
mod edges;
mod replicas;
mod troubles;

use super::{Fate, Goes, Office, Options, Packed};
use crate::clock::{self, lanes};
use auction::{
    Action, Actor, Applied, AuctionId, Command, Currency, Definition, Entry, EventKind, Id, Known, Limits, Reason,
    Reply, Reserve, Rights, Shard, Stamp, Stamped, Terms, TimeRule, Verdict, body_hash,
    terms::{Rush, SoftClose},
};
use birth::{Dice, born};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    sync::Arc,
};

/// Known mistakes, for tests that prove the checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plant {
    /// One of the clock's.
    Clock(clock::Plant),
    /// Another body is answered dup_body from the pending map.
    PendingDupBody,
    /// A lane's bound looks at this lane only.
    OwnBound,
    /// A new office stamps and promises from `top` even for a lane that was behind it.
    BaseForAll,
    /// A scheduled start is proposed when wall time passes it, not as long as it has passed.
    StartOnce,
    /// Lanes whose close is due get no turns before the others.
    FairOnly,
    /// After a rejected proposal the office goes on without a new base and grace.
    SameOffice,
    /// The same, and numbers go on after the rejected one.
    NumberGoesOn,
    /// A command is stamped before it is decoded, and placed after it.
    DecodeGap,
    /// The proposer looks at the lanes first, and reads the clock then.
    LanesFirst,
    /// A new office counts the hold from applying the entry that holds `top`, not from receiving it.
    HeldFromApply,
    /// Busy and not judged are final for the client.
    BusyVerdict,
}

/// What another body is told by the plant `PendingDupBody`.
pub(crate) fn dup_body(shard: &Shard, command: &Command) -> Verdict {
    let view = shard.view(&command.auction).unwrap();
    Verdict {
        outcome: Err(Reason::DupBody),
        seq: view.seq,
        price: view.price,
        least: view.least,
        leader: view.leader,
        phase: view.phase,
        ct: shard.top(),
        ends_at: view.ends_at,
        hash: view.hash,
        dup: false,
    }
}

/// Commit latency without faults, ms.
const LATENCY: (u64, u64) = (2, 25);
/// How long an edge takes to learn of a new office, ms.
const LEARN: (u64, u64) = (2, 60);
const END: u64 = 40_000;

fn options(window: usize) -> Options {
    let lanes = lanes::Options {
        window,
        entry_max: 16,
        ..lanes::Options::default()
    };
    Options {
        clock: clock::Options::default(),
        lanes,
    }
}

/// What kind of trouble a schedule is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Faults,
    Calm,
    Hot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    Crash,
    Freeze,
    Cut,
    NoQuorum,
    Slow,
    Elect,
    Reject,
    Forget,
}

/// Who waits for a reply: a request, its try, the node that will answer.
type Waiter = (usize, u32, usize);

enum What {
    Look {
        node: usize,
        office: usize,
    },
    Pump,
    Learn {
        node: usize,
        office: usize,
    },
    Trouble {
        trouble: Trouble,
        ms: u64,
    },
    Aim {
        trouble: Trouble,
        ms: u64,
        tries: u32,
    },
    Heal {
        trouble: Trouble,
        node: usize,
        office: usize,
        since: u64,
        reading: Stamp,
        term: u64,
    },
    Quicken,
    MaybeElect {
        node: usize,
        term: u64,
    },
    Lose {
        node: usize,
        office: usize,
    },
    Landed {
        node: usize,
        office: usize,
        n: u64,
        unknown: bool,
    },
    Client {
        number: u64,
        auction: usize,
    },
    Burst {
        auction: usize,
        bids: u64,
        ms: u64,
    },
    Send {
        request: usize,
    },
    Deliver {
        node: usize,
        request: usize,
        attempt: u32,
    },
    Overdue {
        request: usize,
        attempt: u32,
    },
    Answer {
        request: usize,
        attempt: u32,
        reply: Box<Reply>,
    },
    Retry {
        request: usize,
        attempt: u32,
    },
}

struct Task {
    t: u64,
    k: u64,
    what: What,
}

impl PartialEq for Task {
    fn eq(&self, other: &Self) -> bool {
        self.k == other.k
    }
}
impl Eq for Task {}
impl PartialOrd for Task {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Task {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.t, self.k).cmp(&(other.t, other.k))
    }
}

struct Node {
    shard: Shard,
    applied: usize,
    office: Option<Office<Waiter>>,
    /// Which of `World::offices` that is.
    office_no: usize,
    up: bool,
    cut: bool,
    frozen: u64,
    /// When this replica received the entry that holds `top`.
    heard: u64,
    wake: Option<u64>,
    /// Fates that came before those of earlier entries did: told in order, as the proposer's futures are.
    landed: BTreeMap<u64, Landed>,
}

enum Landed {
    Applied(Arc<Applied>),
    NotLogged,
    Unknown,
}

/// What is remembered of an office for the checks.
struct Past {
    id: auction::Office,
    base: Stamp,
    took: u64,
    /// Every reading: (real, stamp).
    samples: Vec<(u64, u64)>,
}

struct Queued {
    ready: u64,
    entry: Arc<Entry>,
    sent: bool,
}

struct Outage {
    office: usize,
    since: u64,
    reading: u64,
}

/// A stamp that some office gave a command.
struct Given {
    office: usize,
    stamp: Stamp,
    body: u64,
}

struct World {
    seed: u64,
    plant: Option<Plant>,
    kind: Kind,
    dice: Dice,
    t: u64,
    k: u64,
    tasks: BinaryHeap<Reverse<Task>>,
    auctions: Vec<AuctionId>,
    nodes: Vec<Node>,
    options: Options,
    // the log
    log: Vec<Arc<Entry>>,
    logged_at: Vec<u64>,
    queue: VecDeque<Queued>,
    received: HashMap<(auction::Office, u64), u64>,
    term: u64,
    turn: u32,
    leader: usize,
    slow: u64,
    no_quorum: bool,
    reject_next: Option<Landed>,
    // what was seen
    offices: Vec<Past>,
    office_now: Option<usize>,
    outages: Vec<Outage>,
    given: HashMap<auction::Key, Vec<Given>>,
    began: HashMap<(usize, AuctionId), u64>,
    live_at: HashMap<AuctionId, u64>,
    closes: HashMap<AuctionId, (u64, Stamp)>,
    requests: Vec<edges::Request>,
    open: usize,
    told: BTreeMap<(auction::Key, u64), Vec<Result<(), Reason>>>,
    /// The node that edges take for the leader.
    known: usize,
    known_office: usize,
    faults_end: u64,
    bursts: u64,
    bad: Vec<(&'static str, String)>,
}

/// Half of the hot schedules have all closes at once.
fn together(kind: Kind, seed: u64) -> bool {
    kind == Kind::Hot && seed.is_multiple_of(2)
}

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

impl World {
    fn new(seed: u64, plant: Option<Plant>, kind: Option<Kind>) -> Self {
        let mut dice = Dice(seed);
        let kinds = [Kind::Faults, Kind::Faults, Kind::Faults, Kind::Calm, Kind::Hot];
        let kind = kind.unwrap_or(kinds[(seed % 5) as usize]);
        let count = if kind == Kind::Hot {
            dice.range(3, 13)
        } else {
            dice.range(1, 5)
        };
        let (shard, auctions) = born(count as usize, seed, together(kind, seed));
        let node = || Node {
            shard: shard.clone(),
            applied: 0,
            office: None,
            office_no: usize::MAX,
            up: true,
            cut: false,
            frozen: 0,
            heard: 0,
            wake: None,
            landed: BTreeMap::new(),
        };
        let window = if kind == Kind::Faults {
            dice.pick(&[3, 8, 32])
        } else {
            32
        };
        Self {
            seed,
            plant,
            kind,
            dice,
            t: 0,
            k: 0,
            tasks: BinaryHeap::new(),
            auctions,
            nodes: (0..3).map(|_| node()).collect(),
            options: options(window),
            log: Vec::new(),
            logged_at: Vec::new(),
            queue: VecDeque::new(),
            received: HashMap::new(),
            term: 0,
            turn: 0,
            leader: 0,
            slow: 1,
            no_quorum: false,
            reject_next: None,
            offices: Vec::new(),
            office_now: None,
            outages: Vec::new(),
            given: HashMap::new(),
            began: HashMap::new(),
            live_at: HashMap::new(),
            closes: HashMap::new(),
            requests: Vec::new(),
            open: 0,
            told: BTreeMap::new(),
            known: 0,
            known_office: 0,
            faults_end: 0,
            bursts: 0,
            bad: Vec::new(),
        }
    }

    fn bad(&mut self, name: &'static str, text: String) {
        self.bad.push((name, format!("t={} {:?}: {text}", self.t, self.kind)));
    }

    fn at(&mut self, t: u64, what: What) {
        self.k += 1;
        self.tasks.push(Reverse(Task { t, k: self.k, what }));
    }

    fn after(&mut self, ms: u64, what: What) {
        self.at(self.t + ms, what);
    }

    fn latency(&mut self) -> u64 {
        self.dice.range(LATENCY.0, LATENCY.1 + 1) * self.slow
    }

    /// A node's monotonic clock: each began at another time.
    fn mono(&self, node: usize) -> u64 {
        self.t + 1_000_003 * (node as u64 + 1)
    }

    // ---- running

    fn run(mut self) -> Self {
        self.elect(0);
        if self.kind == Kind::Faults {
            self.plan_troubles();
        }
        self.plan_clients();
        while let Some(Reverse(task)) = self.tasks.pop() {
            if task.t > END || (task.t > 6_500 && self.quiet()) {
                break;
            }
            self.t = task.t;
            self.step(task.what);
        }
        self
    }

    fn plan_troubles(&mut self) {
        use Trouble::{Crash, Cut, Elect, Forget, Freeze, NoQuorum, Reject, Slow};
        let all = [
            Crash, Freeze, Freeze, Cut, Cut, NoQuorum, Slow, Elect, Reject, Reject, Forget,
        ];
        for _ in 0..self.dice.range(1, 5) {
            let (t, trouble, ms) = (
                self.dice.range(50, 4_000),
                self.dice.pick(&all),
                self.dice.range(20, 1_200),
            );
            let what = if self.dice.chance(50) {
                What::Trouble { trouble, ms }
            } else {
                What::Aim {
                    trouble,
                    ms,
                    tries: 400,
                }
            };
            self.at(t, what);
        }
    }

    fn quiet(&self) -> bool {
        let leader = &self.nodes[self.leader];
        let still = leader.office.as_ref().is_some_and(Office::is_still);
        self.open == 0
            && self.t > self.faults_end + 300
            && still
            && leader.shard.count().1 == 0
            && leader.shard.scheduled().next().is_none()
    }

    fn step(&mut self, what: What) {
        match what {
            What::Look { node, office } => self.look(node, office),
            What::Pump => self.pump(),
            What::Learn { node, office } if office >= self.known_office => {
                (self.known, self.known_office) = (node, office);
            }
            What::Learn { .. } => {}
            What::Trouble { trouble, ms } => self.trouble(trouble, ms),
            What::Aim { trouble, ms, tries } => self.aim(trouble, ms, tries),
            What::Heal {
                trouble,
                node,
                office,
                since,
                reading,
                term,
            } => {
                self.heal(trouble, node, office, since, reading, term);
            }
            What::Quicken => self.slow = 1,
            What::MaybeElect { node, term } => self.maybe_elect(node, term),
            What::Lose { node, office } if self.nodes[node].office_no == office => self.lose(node),
            What::Lose { .. } => {}
            What::Landed {
                node,
                office,
                n,
                unknown,
            } => {
                let fate = if unknown { Landed::Unknown } else { Landed::NotLogged };
                self.landed(node, office, n, fate);
            }
            What::Client { number, auction } => self.client(number, auction),
            What::Burst { auction, bids, ms } => self.burst(auction, bids, ms),
            What::Send { request } => self.send(request),
            What::Deliver { node, request, attempt } => self.deliver(node, request, attempt),
            What::Overdue { request, attempt } => self.overdue(request, attempt),
            What::Answer {
                request,
                attempt,
                reply,
            } => self.answer(request, attempt, *reply),
            What::Retry { request, attempt } => self.retry(request, attempt),
        }
    }
}

/// One schedule, checked. What is broken, by name.
fn broken(seed: u64, plant: Option<Plant>, kind: Option<Kind>) -> Vec<(&'static str, String)> {
    World::new(seed, plant, kind).run().check()
}

/// `RUSHROOM_SEED=n` replays one schedule, `RUSHROOM_SEEDS=n` runs more of them.
fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_promise_holds_over_every_schedule() {
    let one = from_env("RUSHROOM_SEED");
    let seeds = one.map_or(0..from_env("RUSHROOM_SEEDS").unwrap_or(250), |seed| seed..seed + 1);
    let mut failed = Vec::new();
    for seed in seeds {
        if let Some((name, text)) = broken(seed, None, None).first() {
            failed.push(format!(
                "{name}: {text}\n  replay: RUSHROOM_SEED={seed} cargo test -p raft-store every_promise"
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{} schedules broke a promise; the first:\n{}",
        failed.len(),
        failed[..failed.len().min(12)].join("\n")
    );
}

#[test]
fn every_planted_mistake_is_caught() {
    use Plant::{
        BaseForAll, BusyVerdict, Clock, DecodeGap, FairOnly, HeldFromApply, LanesFirst, NumberGoesOn, OwnBound,
        PendingDupBody, SameOffice, StartOnce,
    };
    // The third is where the search begins: some mistakes show in few schedules only.
    for (plant, kind, from, caught_by) in [
        (OwnBound, Kind::Hot, 0, &["late"][..]),
        (FairOnly, Kind::Hot, 195, &["late"]),
        (
            Clock(clock::Plant::Clamp),
            Kind::Faults,
            0,
            &["eaten", "fast", "declared"],
        ),
        (Clock(clock::Plant::LookByProposer), Kind::Faults, 0, &["eaten"]),
        (Clock(clock::Plant::ElapsedInGrace), Kind::Faults, 0, &["fast"]),
        (Clock(clock::Plant::HeldEach), Kind::Faults, 0, &["declared"]),
        (PendingDupBody, Kind::Faults, 80, &["once"]),
        (BaseForAll, Kind::Faults, 0, &["interregnum", "in_time", "monotone"]),
        (StartOnce, Kind::Faults, 0, &["hang"]),
        (SameOffice, Kind::Faults, 0, &["interregnum", "in_time", "hang"]),
        (
            NumberGoesOn,
            Kind::Faults,
            0,
            &["interregnum", "in_time", "hang", "once"],
        ),
        (DecodeGap, Kind::Faults, 0, &["monotone"]),
        (LanesFirst, Kind::Faults, 0, &["monotone"]),
        (HeldFromApply, Kind::Faults, 0, &["declared"]),
        (BusyVerdict, Kind::Faults, 0, &["once"]),
    ] {
        let caught = (from..from + 600).find(|seed| {
            broken(*seed, Some(plant), Some(kind))
                .iter()
                .any(|b| caught_by.contains(&b.0))
        });
        eprintln!("{plant:?}: caught in schedule {caught:?}");
        assert!(caught.is_some(), "{plant:?} went unseen by {caught_by:?}");
    }
}
