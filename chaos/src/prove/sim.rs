//! A small auction house in virtual time: what the product would write down if it were right, and what with one bug.
//!
//! Written from `rushroom-history/1` alone. One queue of steps in time; each shard has a clock that stands during faults
//! and holds; a bid is judged when it arrives, its answer and its events travel for a few milliseconds. Clients retire on
//! an unknown outcome and come back under another number with the same id. Viewers reconnect and resume.
//!
//! `sim` runs the time and the people; `house` has the rules and the log; a plant is an `if` at the place where the bug
//! would be.

mod house;
mod people;

use super::Plant;
use crate::history::{End, Held, Inv, Med, Meta, Nanos, Nem, Record, Ret};
use client::Dice;
use house::House;
use people::{Client, Viewer};
use std::collections::BTreeMap;

const MS: Nanos = 1_000_000;
const AUCTIONS: usize = 24;
const SHARDS: u32 = 4;
const CLIENTS: u64 = 16;
const EPS_MS: u64 = 350;
const WINDOW: u64 = 5_000;
const HOLD_MS: Nanos = 80;
/// People act until here; what is left closes by itself.
const QUIET: Nanos = 12_500 * MS;
const OVER: Nanos = 34_000 * MS;

/// What happens at a moment.
enum Step {
    /// A client thinks of something to do.
    Think(u64),
    /// An operation reaches the leader.
    Arrive(Box<people::Asked>),
    /// An answer reaches its client.
    Answer(Box<people::Asked>, Box<crate::history::Ret>),
    /// A client that never heard gives up waiting.
    GiveUp(Box<people::Asked>),
    /// An event reaches a viewer's connection.
    Deliver {
        viewer: usize,
        sub: u64,
        seq: u64,
        snap: bool,
    },
    /// A viewer's connection breaks, or comes back.
    Break(usize),
    Return(usize),
    /// Timers.
    Tick,
    /// A fault starts, or stops.
    Fault(u64),
    Heal(u64),
    /// A shard's clock stands, and goes on.
    Stand(u32),
    GoOn(u32),
    /// The operator pauses, or extends.
    Operate(usize, &'static str),
    /// Someone says a line.
    Say(u64),
    /// The seller goes on the air at a node, or leaves it.
    Air(&'static str, u64),
    /// A frame is shown.
    Frame(u64),
    /// A bug that needs a moment of its own.
    Bug,
}

/// The run.
pub(super) struct Sim {
    plant: Plant,
    /// The bug was planted already: most are planted once.
    planted: bool,
    dice: Dice,
    now: Nanos,
    queue: BTreeMap<(Nanos, u64), Step>,
    queued: u64,
    records: Vec<Record>,
    house: House,
    clients: BTreeMap<u64, Client>,
    viewers: Vec<Viewer>,
    ops: u64,
    subs: u64,
    people: u64,
    fault: Option<u64>,
    lines: u64,
    /// The seller's node, and until when nothing of it is shown.
    origin: u64,
    dark: Nanos,
}

/// A whole run with one bug in it (or none).
pub(super) fn simulate(seed: u64, plant: Plant) -> Vec<Record> {
    let mut sim = Sim {
        plant,
        planted: false,
        dice: Dice::new(seed),
        now: 0,
        queue: BTreeMap::new(),
        queued: 0,
        records: Vec::new(),
        house: House::new(AUCTIONS, SHARDS),
        clients: BTreeMap::new(),
        viewers: Vec::new(),
        ops: 0,
        subs: 0,
        people: 1_000,
        fault: None,
        lines: 0,
        origin: 1,
        dark: 0,
    };
    sim.records.push(Record::Meta(meta(seed)));
    sim.schedule();
    while let Some(((t, _), step)) = sim.queue.pop_first() {
        sim.now = t;
        sim.step(step);
    }
    sim.dump();
    sim.records
}

fn meta(seed: u64) -> Meta {
    let rule = Meta {
        start_price: 1_000,
        min_inc: 10,
        floor_ms: 3_000,
        k_ppm: 200_000,
        cap_ppm: 300_000,
        ..Meta::default()
    };
    Meta {
        format: 1,
        run: format!("sim-{seed}"),
        profile: "simulated".into(),
        seed,
        nodes: vec![1, 2, 3],
        replicas: 3,
        eps_ms: EPS_MS,
        clock_policy: "stop".into(),
        window: WINDOW,
        rto_max_ms: Some(2_000),
        neighbour_max_ms: Some(100),
        frozen_max_ms: Some(2_000),
        republish_max_ms: Some(2_000),
        video_viewers: Some(2),
        canary: Some("failed".into()),
        ..rule
    }
}

impl Sim {
    fn at(&mut self, t: Nanos, step: Step) {
        self.queued += 1;
        self.queue.insert((t, self.queued), step);
    }

    /// Milliseconds, jittered.
    fn jitter(&mut self, from_us: u64, to_us: u64) -> Nanos {
        self.dice.between(from_us, to_us) as Nanos * 1_000
    }

    /// Whether the bug goes off now: once, if its place is reached and `here` is so.
    fn bug(&mut self, plant: Plant, here: bool) -> bool {
        let now = self.plant == plant && !self.planted && here;
        self.planted |= now;
        now
    }

    fn schedule(&mut self) {
        let clients = if self.plant == Plant::Thin { 1 } else { CLIENTS };
        for a in 0..AUCTIONS {
            self.at(a as Nanos * 20 * MS, Step::Operate(a, "open"));
            for _ in 0..3 {
                self.viewer(a);
            }
        }
        for _ in 0..clients {
            let p = self.client(None);
            self.at(600 * MS, Step::Think(p));
        }
        (0..OVER / (5 * MS)).for_each(|n| self.at(n * 5 * MS, Step::Tick));
        // Ten faults, and two holds; after 9.6 s all is calm.
        for n in 0..10 {
            self.at((2_000 + n as Nanos * 800) * MS, Step::Fault(n));
            self.at((2_480 + n as Nanos * 800) * MS, Step::Heal(n));
        }
        for (t, shard) in [(1_200, 1), (1_700, 2)] {
            self.at(t * MS, Step::Stand(shard));
            self.at((t + HOLD_MS) * MS, Step::GoOn(shard));
        }
        self.at(1_000 * MS, Step::Operate(3, "pause"));
        self.at(1_100 * MS, Step::Operate(4, "extend"));
        (0..40).for_each(|n| self.at((700 + n * 30) * MS, Step::Say(n as u64 % 3)));
        self.at(650 * MS, Step::Air("publish", 1));
        self.at(8_750 * MS, Step::Air("unpublish", 0));
        (0..200).for_each(|n| self.at((700 + n * 40) * MS, Step::Frame(n as u64)));
        self.at(5_800 * MS, Step::Bug);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Think(p) => self.think(p),
            Step::Arrive(asked) => self.arrive(asked),
            Step::Answer(asked, ret) => self.answered(*asked, *ret),
            Step::GiveUp(asked) => self.give_up(*asked),
            Step::Deliver { viewer, sub, seq, snap } => self.deliver(viewer, sub, seq, snap),
            Step::Break(viewer) => self.break_off(viewer),
            Step::Return(viewer) => self.come_back(viewer),
            Step::Tick => {
                if self.fault.is_none() {
                    (0..AUCTIONS).for_each(|a| self.timers(a));
                }
            }
            Step::Fault(id) => {
                self.fault = Some(id);
                self.house.stand(self.now, true, None);
                self.nem(id, "start");
                self.seller_lost(id);
            }
            Step::Heal(id) => {
                self.fault = None;
                self.house.stand(self.now, false, None);
                self.nem(id, "stop");
                if self.bug(Plant::OutageEats, id == 4) {
                    (0..SHARDS).for_each(|shard| self.house.slip(shard, 900 * MS));
                }
            }
            Step::Stand(shard) => self.house.stand(self.now, true, Some(shard)),
            Step::GoOn(shard) => self.held(shard),
            Step::Operate(a, verb) => self.operate(a, verb),
            Step::Say(who) => self.say(who),
            Step::Air(what, node) => self.air(what, node),
            Step::Frame(n) => self.frame(n),
            Step::Bug if self.plant == Plant::ClockJump => self.house.slip(0, -400 * MS),
            Step::Bug if self.plant == Plant::ClockBack => self.house.slip(0, 800 * MS),
            Step::Bug => {}
        }
    }

    fn nem(&mut self, id: u64, ev: &str) {
        let (f, eff) = ("kill".into(), "installed".into());
        let d = serde_json::json!({});
        self.records.push(Record::Nem(Nem {
            t: self.now,
            id,
            ev: ev.into(),
            f,
            tgt: vec![1 + id % 3],
            d,
            eff,
        }));
    }

    /// A fault took the seller's node: the seller goes on the air again at one that isn't the next to be taken.
    fn seller_lost(&mut self, id: u64) {
        if self.origin != 1 + id % 3 || self.now < self.dark {
            return;
        }
        let off = if self.bug(Plant::SellerLost, id > 3) {
            3_000
        } else {
            300
        };
        self.dark = self.now + (off + 150) * MS;
        self.origin = 1 + (id + 2) % 3;
        self.at(self.now + off * MS, Step::Air("publish", self.origin));
    }

    fn air(&mut self, what: &str, node: u64) {
        self.ops += 1;
        let (p, op, t) = (8, self.ops, self.now);
        let (f, a, arg, node) = ("admin".into(), house::name(0), Some(what.into()), Some(node));
        let (idem, bidder, amt) = (None, None, None);
        self.records.push(Record::Inv(Inv {
            t,
            p,
            op,
            f,
            a,
            idem,
            bidder,
            amt,
            arg,
            node,
            sent: None,
        }));
        let st = "ok".into();
        self.records.push(Record::Ret(Ret {
            t,
            p,
            op,
            st,
            ..Ret::default()
        }));
    }

    /// A frame, at both who watch.
    fn frame(&mut self, n: u64) {
        let (t, src_t) = (self.now, self.now - 150 * MS);
        for p in [9, 10] {
            let lost = match self.plant {
                Plant::Frozen => p == 9 && (50..120).contains(&n),
                Plant::NeverBack => p == 10 && n >= 100,
                Plant::Blind => p == 10,
                _ => false,
            };
            if t >= self.dark && !lost {
                let (a, node) = (house::name(0), self.origin);
                self.records.push(Record::Med(Med {
                    t,
                    p,
                    a,
                    n,
                    src_t,
                    node,
                }));
            }
        }
    }

    /// The clock stood: an event in each auction that is on.
    fn held(&mut self, shard: u32) {
        for a in (0..AUCTIONS).filter(|a| house::shard(*a, SHARDS) == shard) {
            self.timers(a);
            let ct = self.house.clock(a, self.now);
            if let Some(seq) = self.house.held(a, ct, HOLD_MS as u64) {
                self.spread(a, seq);
            }
        }
        self.house.stand(self.now, false, Some(shard));
        let (t, dms) = (self.now + 20 * MS, HOLD_MS as u64);
        self.records.push(Record::Held(Held { t, node: 1, shard, dms }));
    }

    /// All that is due in an auction, and the news of it.
    fn timers(&mut self, a: usize) {
        let clock = self.house.clock(a, self.now);
        let near = a == 7 && self.house.due_within(a, clock, 600);
        let early = if self.bug(Plant::EarlyClose, near) { 600 } else { 0 };
        // The same, but stamped as if it were due: only the harness's clock can tell.
        let lie = if self.bug(Plant::FiredEarly, near) { 600 } else { 0 };
        while let Some(closing) = self.house.due(a, clock + early + lie) {
            // The late bid needs an auction that forgets to close until it comes.
            if closing && self.plant == Plant::LateAccepted && a > 4 && !self.planted {
                return;
            }
            let wrong = closing && self.house.bidders(a) > 1;
            let wrong = self.bug(Plant::WrongWinner, wrong);
            let longer = if self.bug(Plant::PauseFree, !closing) { 500 } else { 0 };
            let seq = self.house.fire(a, early, wrong, longer);
            self.spread(a, seq);
            if closing && self.bug(Plant::TwoCloses, true) {
                let seq = self.house.close_again(a);
                self.spread(a, seq);
            }
        }
    }

    /// The final dump of all replicas, and the end.
    fn dump(&mut self) {
        for node in 1..=3 {
            for a in 0..AUCTIONS {
                let mut logs = self.house.log(a).to_vec();
                if a == 2 && node == 3 && self.plant == Plant::ShortReplica {
                    logs.pop();
                }
                for mut log in logs {
                    log.node = node;
                    if self.plant == Plant::Divergence && node == 3 && a == 2 && log.seq == 4 {
                        log.bidder = "someone-else".into();
                    }
                    self.records.push(Record::Log(log));
                }
            }
        }
        if self.plant != Plant::NoEnd {
            self.records.push(Record::End(End {
                t: self.now,
                ops: self.ops,
                healed: true,
            }));
        }
    }
}
