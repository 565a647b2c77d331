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
//! (`Plant`), and a test shows that each of them is caught. Two of the model's plants can't be made here, because the
//! code has no place for them: `decode_gap` (stamp and place are one call) and `lanes_first` (`next_entry` reads the
//! clock before it looks at a lane); those of `apply` are planted in the auction core's own tests.
//!
//! Deliberately absent: tasks, sockets, disks. `tests/clock_proposer.rs` has the task, the host's tests have the rest.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod checks;
mod edges;

use super::{Fate, Goes, Office, Options, Packed};
use crate::{clock, lanes};
use auction::{
    Action, Actor, Applied, AuctionId, Command, Currency, Definition, Entry, EventKind, Id, Known, Limits, Reason,
    Reply, Rights, Shard, Stamp, Stamped, Terms, TimeRule, Verdict, body_hash,
    terms::{Rush, SoftClose},
};
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

/// A random number generator that will give the same schedules next year.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `low` up to, not including, `high`.
    fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.range(0, from.len() as u64) as usize]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.range(0, 100) < percent
    }
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
    kind == Kind::Hot && seed % 2 == 0
}

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

/// A shard with its auctions scheduled, by an office before all others. `together`: they all end at once.
fn born(count: usize, seed: u64, together: bool) -> (Shard, Vec<AuctionId>) {
    let mut dice = Dice(seed ^ 0xA0C7);
    let mut shard = Shard::new(Limits {
        refusals_max: 3,
        ..Limits::default()
    });
    let auctions: Vec<AuctionId> = (0..count).map(|k| id(&format!("a{k}"))).collect();
    let office = auction::Office { term: 0, turn: 1 };
    let mut commands = Vec::new();
    for auction in &auctions {
        let rush = Rush {
            cut_ppm_max: 900_000,
            cut_per_raise_ppm: dice.pick(&[300_000, 8_000_000]),
            floor_ms: 3_000,
        };
        let window_ms = dice.pick(&[1_000, 1_500]);
        let soft = SoftClose {
            window_ms,
            reset_to_ms: window_ms + 200,
            extensions_max: dice.range(1, 6) as u32,
        };
        let mode = dice.range(0, 4);
        let time = TimeRule {
            rush: (mode & 1 == 1).then_some(rush),
            soft_close: (mode & 2 == 2).then_some(soft),
        };
        let duration_ms = if mode & 1 == 1 {
            dice.range(3_200, 5_000)
        } else {
            dice.range(1_000, 3_500)
        };
        let start_wall_ms = dice.range(0, 900);
        let (time, duration_ms, start_wall_ms) = if together {
            (TimeRule::default(), 2_500, 300)
        } else {
            (time, duration_ms, start_wall_ms)
        };
        let terms = Terms {
            currency: Currency::parse("KRW").unwrap(),
            start_price: dice.range(1, 40),
            increments: vec![(0, 1), (50, 5), (500, 25)],
            reserve: dice.pick(&[None, Some(60)]),
            duration_ms,
            time,
            guests: false,
            pause_without_stream: false,
        };
        let definition = Definition {
            seller: id("sel"),
            title: "lot".into(),
            description: String::new(),
            terms,
        };
        let start = Action::Schedule { start_wall_ms };
        for action in [Action::Create(Box::new(definition)), start] {
            let actor = Actor {
                id: id("system"),
                rights: Rights::SYSTEM,
            };
            let command = Command {
                auction: auction.clone(),
                actor,
                id: None,
                action,
            };
            commands.push(Stamped {
                arrived: Stamp(0),
                command,
            });
        }
    }
    shard.apply(&Entry {
        office,
        ..Entry::default()
    });
    let Applied::Done(done) = shard.apply(&Entry {
        office,
        n: 1,
        commands,
        ..Entry::default()
    }) else {
        panic!("void birth")
    };
    assert!(
        done.verdicts.iter().all(|verdict| verdict.outcome.is_ok()),
        "{:?}",
        done.verdicts
    );
    (shard, auctions)
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

    // ---- what the proposer's task does

    fn poke(&mut self, node: usize, ms: u64) {
        let at = self.t + ms;
        let n = &mut self.nodes[node];
        if n.office.is_some() && n.wake.is_none_or(|wake| at < wake) {
            n.wake = Some(at);
            let office = n.office_no;
            self.at(at, What::Look { node, office });
        }
    }

    fn look(&mut self, i: usize, office_no: usize) {
        let (t, mono) = (self.t, self.mono(i));
        let node = &mut self.nodes[i];
        if node.office_no != office_no || node.wake != Some(t) {
            return;
        }
        node.wake = None;
        if t < node.frozen {
            let ms = node.frozen - t;
            return self.poke(i, ms);
        }
        let Node {
            office: Some(office),
            shard,
            ..
        } = node
        else {
            return;
        };
        let mut packed = Vec::new();
        while let Some(next) = office.next_entry(mono, t, shard) {
            packed.push(next);
        }
        for auction in office.started.keys() {
            self.began.entry((office_no, auction.clone())).or_insert(t);
        }
        let next = office.next_look(mono, t, shard);
        self.sample(i);
        for packed in packed {
            self.propose(i, office_no, packed);
        }
        if let Some(next) = next {
            self.poke(i, next - mono);
        }
    }

    /// Writes down the reading of a node's office, and checks its steps.
    fn sample(&mut self, i: usize) {
        let Some(office) = &self.nodes[i].office else { return };
        let (t, now) = (self.t, office.clock.last_reading().0);
        if !office.clock.looked_at(self.mono(i)) {
            return;
        }
        let samples = &mut self.offices[self.nodes[i].office_no].samples;
        let (last_t, last) = *samples.last().unwrap();
        samples.push((t, now));
        if now < last {
            self.bad("monotone", format!("reading {last} -> {now}"));
        } else if now - last > t - last_t {
            self.bad("fast", format!("reading {:?} -> {:?}", (last_t, last), (t, now)));
        }
    }

    fn landed(&mut self, i: usize, office_no: usize, n: u64, fate: Landed) {
        let mono = self.mono(i);
        if self.nodes[i].office_no != office_no || self.nodes[i].office.is_none() {
            return;
        }
        self.nodes[i].landed.insert(n, fate);
        let mut out = Vec::new();
        let mut goes = Goes::On;
        while goes == Goes::On {
            let Node {
                office: Some(office),
                landed,
                ..
            } = &mut self.nodes[i]
            else {
                break;
            };
            let Some(fate) = office
                .flights
                .front()
                .and_then(|flight| Some((flight.n, landed.remove(&flight.n)?)))
            else {
                break;
            };
            goes = match &fate.1 {
                Landed::Applied(applied) => office.settle(mono, fate.0, Fate::Applied(applied), &mut out),
                Landed::NotLogged => office.settle(mono, fate.0, Fate::NotLogged(&Reply::NotJudged), &mut out),
                Landed::Unknown => office.settle(mono, fate.0, Fate::Unknown, &mut out),
            };
            if goes == Goes::Over && self.plant == Some(Plant::SameOffice) {
                office.lose(&Reply::Unknown, &mut out);
                office.n = fate.0 - 1;
                goes = Goes::On;
                break;
            }
        }
        self.reply_all(out);
        if goes == Goes::Over {
            self.lose(i);
            self.take_again(i, office_no);
        }
        self.poke(i, 0);
    }

    fn lose(&mut self, i: usize) {
        self.nodes[i].landed.clear();
        if let Some(mut office) = self.nodes[i].office.take() {
            let mut out = Vec::new();
            office.lose(&Reply::NotJudged, &mut out);
            self.reply_all(out);
        }
    }

    /// The same replica opens the next office of its term.
    fn take_again(&mut self, i: usize, office_no: usize) {
        let past = &self.offices[office_no];
        if past.id.term != self.term || self.leader != i {
            return;
        }
        let reading = past.samples.last().unwrap().1;
        self.outages.push(Outage {
            office: office_no,
            since: self.t,
            reading,
        });
        self.turn += 1;
        self.mark();
    }

    fn mark(&mut self) {
        let office = auction::Office {
            term: self.term,
            turn: self.turn,
        };
        let sent = self.quorum();
        self.enqueue(
            Arc::new(Entry {
                office,
                ..Entry::default()
            }),
            sent,
        );
    }

    fn take(&mut self, i: usize, id: auction::Office) {
        self.lose(i);
        let (t, mono) = (self.t, self.mono(i));
        let node = &mut self.nodes[i];
        let heard_ago = if self.offices.is_empty() {
            0
        } else {
            t - node.heard.min(t)
        };
        let mut office = Office::take(self.options, id, mono, &node.shard, heard_ago);
        office.plant = self.plant;
        if let Some(Plant::Clock(plant)) = self.plant {
            office.clock.plant = Some(plant);
        }
        let base = office.clock.base();
        node.office = Some(office);
        node.office_no = self.offices.len();
        node.wake = None;
        self.offices.push(Past {
            id,
            base,
            took: t,
            samples: vec![(t, base.0)],
        });
        let before = self.office_now.replace(self.offices.len() - 1);
        self.check_outage(before, base);
        self.poke(i, 0);
        let (ms, office) = (self.dice.range(LEARN.0, LEARN.1 + 1), self.offices.len() - 1);
        self.after(ms, What::Learn { node: i, office });
    }

    // ---- the log

    fn quorum(&self) -> bool {
        let n = &self.nodes[self.leader];
        n.up && !n.cut && self.t >= n.frozen && !self.no_quorum
    }

    fn enqueue(&mut self, entry: Arc<Entry>, sent: bool) {
        let ready = (self.t + self.latency()).max(self.queue.back().map_or(0, |last| last.ready));
        self.queue.push_back(Queued { ready, entry, sent });
        self.at(ready, What::Pump);
    }

    fn propose(&mut self, node: usize, office: usize, packed: Packed) {
        let entry = Arc::new(packed.entry);
        if entry.office.term != self.term {
            return; // a leader of the past: never commits, and it learns so later
        }
        if let Some(fate) = self.reject_next.take() {
            let (ms, n) = (self.dice.range(1, 40), entry.n);
            let unknown = matches!(fate, Landed::Unknown);
            return self.after(
                ms,
                What::Landed {
                    node,
                    office,
                    n,
                    unknown,
                },
            );
        }
        let received = self.t + self.dice.range(LATENCY.0, LATENCY.1 + 1);
        self.received.insert((entry.office, entry.n), received);
        let sent = self.quorum();
        self.enqueue(entry, sent);
    }

    fn pump(&mut self) {
        while self.queue.front().is_some_and(|next| next.ready <= self.t) && self.quorum() {
            let entry = self.queue.pop_front().unwrap().entry;
            self.log.push(entry.clone());
            self.logged_at.push(self.t);
            self.advance(self.leader);
            if entry.n == 0
                && entry.office
                    == (auction::Office {
                        term: self.term,
                        turn: self.turn,
                    })
            {
                self.take(self.leader, entry.office);
            }
        }
    }

    fn advance(&mut self, i: usize) {
        while self.nodes[i].applied < self.log.len() {
            let node = &mut self.nodes[i];
            let entry = self.log[node.applied].clone();
            let top = node.shard.top();
            let applied = Arc::new(node.shard.apply(&entry));
            if node.shard.top() > top {
                let late = self.plant == Some(Plant::HeldFromApply);
                node.heard = if late {
                    self.t
                } else {
                    self.received[&(entry.office, entry.n)]
                };
            }
            node.applied += 1;
            if let Applied::Done(done) = applied.as_ref() {
                self.seen(i, &entry, done);
            }
            let office_no = self.nodes[i].office_no;
            if entry.n > 0
                && self.nodes[i]
                    .office
                    .as_ref()
                    .is_some_and(|office| office.id == entry.office)
            {
                self.landed(i, office_no, entry.n, Landed::Applied(applied));
            }
        }
    }

    fn seen(&mut self, i: usize, entry: &Entry, done: &auction::Done) {
        for event in &done.events {
            if matches!(event.kind, EventKind::Close { .. }) {
                self.closes.entry(event.auction.clone()).or_insert((self.t, event.ct));
            }
        }
        for (stamped, verdict) in entry.commands.iter().zip(&done.verdicts) {
            let command = &stamped.command;
            if verdict.outcome == Err(Reason::Closed) && self.nodes[i].office.is_some() {
                self.check_told_late(i, command);
            }
            if matches!(command.action, Action::Start { .. }) && verdict.outcome.is_ok() {
                let office = self.offices.iter().position(|past| past.id == entry.office).unwrap();
                let began = self.began[&(office, command.auction.clone())];
                self.live_at.entry(command.auction.clone()).or_insert(began);
            }
        }
    }

    /// Node `i` leads the next term; of what was in flight and had been sent, a prefix survives.
    fn elect(&mut self, i: usize) {
        let sent = self.queue.iter().take_while(|next| next.sent).count() as u64;
        let keep = self.dice.range(0, sent + 1) as usize;
        self.queue.truncate(keep);
        (self.term, self.turn, self.leader) = (self.term + 1, 0, i);
        let ready = self.t + self.latency();
        for queued in &mut self.queue {
            (queued.ready, queued.sent) = (ready, true);
        }
        let office = auction::Office {
            term: self.term,
            turn: 0,
        };
        self.queue.push_back(Queued {
            ready,
            entry: Arc::new(Entry {
                office,
                ..Entry::default()
            }),
            sent: true,
        });
        self.at(ready, What::Pump);
    }

    // ---- faults

    /// The same trouble, just before a deadline and amid a burst of bids.
    fn aim(&mut self, trouble: Trouble, ms: u64, tries: u32) {
        let node = &self.nodes[self.leader];
        let reading = node
            .office
            .as_ref()
            .map_or(Stamp(u64::MAX), |office| office.clock.last_reading());
        let due = |id: &AuctionId| {
            node.shard
                .due(id)
                .is_some_and(|due| due.since(reading) < 40 && due > reading)
        };
        let near = self.auctions.iter().position(due);
        if near.is_none() && tries > 0 {
            return self.after(
                5,
                What::Aim {
                    trouble,
                    ms,
                    tries: tries - 1,
                },
            );
        }
        match near {
            Some(near) if self.kind == Kind::Faults => {
                let bids = self.dice.range(0, 40);
                self.burst(near, bids, 40);
            }
            // Where it isn't the log's fault: every auction is hot when this one is about to close.
            Some(_) => (0..self.auctions.len()).for_each(|auction| {
                let bids = self.dice.range(20, 120);
                self.burst(auction, bids, 80);
            }),
            None => {}
        }
        if self.kind == Kind::Faults {
            let wait = self.dice.range(0, 60);
            self.after(wait, What::Trouble { trouble, ms });
        }
    }

    fn trouble(&mut self, trouble: Trouble, ms: u64) {
        self.faults_end = self.faults_end.max(self.t + ms);
        let i = self.leader;
        let whole = self.nodes.iter().all(|n| n.up && !n.cut && self.t >= n.frozen) && !self.no_quorum;
        if self.nodes[i].office.is_none() || !whole {
            return;
        }
        match trouble {
            Trouble::Slow => {
                self.slow = self.dice.pick(&[5, 12, 30]);
                return self.after(ms, What::Quicken);
            }
            Trouble::Reject => return self.reject_next = Some(Landed::NotLogged),
            Trouble::Forget => return self.reject_next = Some(Landed::Unknown),
            _ => {}
        }
        let reading = self.read(i);
        let office = self.nodes[i].office_no;
        self.outages.push(Outage {
            office,
            since: self.t,
            reading: reading.0,
        });
        match trouble {
            Trouble::Elect => {
                let next = (i + self.dice.range(1, 3) as usize) % 3;
                self.elect(next);
                let ms = self.dice.range(0, 100);
                return self.after(ms, What::Lose { node: i, office });
            }
            Trouble::Crash => {
                self.nodes[i].up = false;
                self.nodes[i].office = None;
                self.nodes[i].landed.clear();
            }
            Trouble::Freeze => self.nodes[i].frozen = self.t + ms,
            Trouble::Cut => self.nodes[i].cut = true,
            _ => self.no_quorum = true,
        }
        let term = self.term;
        if trouble != Trouble::NoQuorum {
            let wait = self.dice.range(150, 700);
            self.after(wait, What::MaybeElect { node: i, term });
        }
        self.after(
            ms,
            What::Heal {
                trouble,
                node: i,
                office,
                since: self.t,
                reading,
                term,
            },
        );
    }

    /// A socket's look at a node's clock.
    fn read(&mut self, i: usize) -> Stamp {
        let mono = self.mono(i);
        let Node {
            office: Some(office),
            shard,
            ..
        } = &mut self.nodes[i]
        else {
            panic!("no office")
        };
        let now = office.read_at_door(mono, shard);
        self.sample(i);
        now
    }

    fn maybe_elect(&mut self, node: usize, term: u64) {
        let n = &self.nodes[node];
        if self.term == term && (!n.up || n.cut || self.t < n.frozen) {
            let next = (node + self.dice.range(1, 3) as usize) % 3;
            self.elect(next);
        }
    }

    fn heal(&mut self, trouble: Trouble, node: usize, office: usize, since: u64, reading: Stamp, term: u64) {
        (self.nodes[node].up, self.nodes[node].cut) = (true, false);
        if trouble == Trouble::NoQuorum {
            self.no_quorum = false;
        }
        let same = self.nodes[node].office.is_some() && self.nodes[node].office_no == office;
        if trouble == Trouble::Crash && self.term == term {
            let next = (node + self.dice.range(0, 3) as usize) % 3;
            self.elect(next);
        } else if self.term != term {
            let ms = if trouble == Trouble::Freeze {
                self.dice.range(0, 30)
            } else {
                0
            };
            self.after(ms, What::Lose { node, office });
        } else if same {
            let eaten = self.read(node).since(reading);
            let bound = if trouble == Trouble::Freeze {
                self.options.clock.step_ms
            } else {
                self.options.clock.hold_ms
            };
            if eaten > bound {
                self.bad("eaten", format!("{trouble:?} of {} ms ate {eaten}", self.t - since));
            }
            self.outages.pop();
        }
        self.pump();
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
    let seeds = one.map_or(0..from_env("RUSHROOM_SEEDS").unwrap_or(400), |seed| seed..seed + 1);
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
        BaseForAll, BusyVerdict, Clock, FairOnly, HeldFromApply, OwnBound, PendingDupBody, SameOffice, StartOnce,
    };
    for (plant, kind, caught_by) in [
        (OwnBound, Kind::Hot, &["late"][..]),
        (FairOnly, Kind::Hot, &["late"]),
        (Clock(clock::Plant::Clamp), Kind::Faults, &["eaten", "fast", "declared"]),
        (Clock(clock::Plant::LookByProposer), Kind::Faults, &["eaten"]),
        (Clock(clock::Plant::ElapsedInGrace), Kind::Faults, &["fast"]),
        (Clock(clock::Plant::HeldEach), Kind::Faults, &["declared"]),
        (PendingDupBody, Kind::Faults, &["once"]),
        (BaseForAll, Kind::Faults, &["interregnum", "in_time", "monotone"]),
        (StartOnce, Kind::Faults, &["hang"]),
        (SameOffice, Kind::Faults, &["interregnum", "in_time", "hang"]),
        (HeldFromApply, Kind::Faults, &["declared"]),
        (BusyVerdict, Kind::Faults, &["once"]),
    ] {
        let caught = (0..600).find(|seed| {
            broken(*seed, Some(plant), Some(kind))
                .iter()
                .any(|b| caught_by.contains(&b.0))
        });
        assert!(caught.is_some(), "{plant:?} went unseen by {caught_by:?}");
    }
}
