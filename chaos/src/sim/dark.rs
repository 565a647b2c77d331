//! The dark: every shard rests, nobody wants one, and a machine loses its power without a word.
//!
//! Nothing is said by then but a pulse twice a second between nodes, and no connection is refused or ended: messages to the
//! machine that is gone just go nowhere. So only silence can tell, and everything after it is a chain of waits:
//!
//! ```text
//!   all rest, all calm --power off-->  silence  --held for lost-->  its shards are stood for, some at a look  --> led
//!                          |          (`lost_at_rest`)                 (`at_once`)
//!                          '--somebody wants one of its shards--> silence --> lost --> stood for --> served
//!                                                       (`lost_when_wanted`)
//! ```
//!
//! What is judged, each bound from the nodes' own options in simulated time: D1 the machine is held for lost in time by
//! every survivor, and no survivor is; D2 the command is served in time; D3 its shards are led by survivors in time, at
//! most `at_once` elections begin at a node's look, and nobody else's shard changes hands; D4 all rest again.
//! The seed says when, who, and in every second one, when a shard is wanted and which. That silence isn't believed, or that
//! all stand together, are mistakes that can be planted (`plants`).
//!
//! Deliberately absent: people, edges, other faults. `run` has those; but there somebody always wants something.

use super::{
    cluster::{Cluster, LATENCY_MAX_MS, nowhere},
    mail::Post,
    nemesis,
    nic::Nic,
    node::{self, Memory, Start, Witness},
    people, run,
};
use auction::{Action, Actor, Command, Id, Reply, Rights};
use client::Dice;
use placement::{NodeId, ShardId};
use raft_store::{Host, RaftOptions, clock::lanes};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinHandle;

const NODES: u64 = 3;
/// Shards of auctions. With three nodes a third of them is led by the machine that goes, and stood for by two.
const SHARDS: u32 = 24;
/// Elections at one look: few, so that a third of the shards takes several.
const AT_ONCE: usize = 2;
/// Until every shard is led from home, and all rest.
const SETTLED_MS: u64 = 60_000;
/// Nodes are calm this long before the power goes.
const CALM_MS: u64 = 3_000;
/// A message there, what it needs on the disk (2 ms), and the answer; at each end and each disk a tick to be noticed.
const TRIP_MS: u64 = 2 * LATENCY_MAX_MS + 2 + 6;
/// To be asked, to be voted for, to have it confirmed, the marker of the office, the command.
const TRIPS: u64 = 5;

/// What the nodes' options promise, ms.
struct Bounds {
    /// Until a survivor holds the machine for lost.
    lost: u64,
    /// Until a command is served, from the moment at which its shard is wanted.
    served: u64,
    /// Until all its shards are led, from the moment at which the last survivor holds it for lost.
    led: u64,
    /// Until all rest again.
    rested: u64,
}

impl Bounds {
    fn of(raft: &RaftOptions, led: usize) -> Bounds {
        let look = ms(raft.heartbeat / 2);
        // Who comes second stands a step later; and once more where two stood for one shard together, or one asked a voter
        // that hadn't held the leader for lost yet: it is silent for as long as a vote is kept back.
        let step = ms(raft.election_min / 2);
        let looks = led.div_ceil(raft.at_once) as u64 * look;
        let again = ms(raft.election_max) + 2 * step;
        Bounds {
            lost: ms(raft.lost_at_rest()) + TRIP_MS,
            served: ms(raft.lost_when_wanted()) + step + look + again + TRIPS * TRIP_MS,
            led: looks + step + again + TRIPS * TRIP_MS,
            rested: 3 * ms(raft.rest_after) + 3 * ms(raft.home_after),
        }
    }
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// Somebody wants a shard that the machine led.
struct Wish {
    at_ms: u64,
    /// The survivor that is asked.
    edge: usize,
    shard: ShardId,
    asked: bool,
    answer: Option<JoinHandle<Reply>>,
    served_ms: Option<u64>,
}

struct Dark {
    cluster: Cluster,
    dice: Dice,
    trace: Sha256,
    findings: Vec<String>,
    text: String,
}

/// Runs a seed, on a fresh thread after `doors::begin`: once in a process.
pub(super) fn run(seed: u64) -> run::Outcome {
    raft_store::sim::begin();
    let mut dark = Dark::new(seed);
    if let Err(why) = dark.act(seed) {
        dark.findings.push(why);
    }
    let mut text = dark.text;
    for finding in &dark.findings {
        let _ = writeln!(text, "    fail: {finding}");
    }
    let word = |finding: &String| finding.split(':').next().unwrap_or_default().to_owned();
    let failed: BTreeSet<String> = dark.findings.iter().map(word).collect();
    run::Outcome {
        passed: failed.is_empty(),
        failed: failed.into_iter().collect(),
        hash: hex::encode(dark.trace.finalize())[..16].to_owned(),
        sim_ms: dark.cluster.now_ms,
        bids: 0,
        faults: 1,
        moves: 0,
        pieces: 0,
        cold: BTreeMap::new(),
        again: BTreeMap::new(),
        text,
        history: Vec::new(),
    }
}

impl Dark {
    fn new(seed: u64) -> Dark {
        let dice = Dice::new(seed);
        let (post, witness) = (Post::default(), Arc::new(Witness::default()));
        let starts = (1..=NODES).map(|node| Start {
            node,
            founders: NODES,
            joined: None,
            lanes: lanes::Options::default(),
            memory: Memory::default(),
            shards: SHARDS,
            at_once: AT_ONCE,
            nic: Nic::new(),
            disk: raft_store::sim::Disk::new(dice.fork(node).roll()),
            post: post.clone(),
            witness: witness.clone(),
            host: nowhere(),
        });
        Dark {
            cluster: Cluster::new(seed, starts),
            dice: dice.fork(7),
            trace: Sha256::new(),
            findings: Vec::new(),
            text: String::new(),
        }
    }

    /// Something happened, or is wrong: part of the trace.
    fn note(&mut self, what: &str) {
        let line = format!("{} ms: {what}", self.cluster.now_ms);
        self.trace.update(&line);
        let _ = writeln!(self.text, "{line}");
    }

    fn tick(&mut self) -> Result<(), String> {
        let ended = self.cluster.tick()?;
        if let Some((at, why)) = ended.first() {
            return Err(format!("S5: node {} ended by itself: {why}", at + 1));
        }
        match super::panicked() {
            Some(panic) => Err(format!("S5: panic: {panic}")),
            None => Ok(()),
        }
    }

    fn until(&mut self, ms: u64, what: &str, so: impl Fn(&Cluster) -> bool) -> Result<(), String> {
        let until = self.cluster.now_ms + ms;
        while !so(&self.cluster) {
            if self.cluster.now_ms >= until {
                return Err(format!("{what} not within {ms} ms"));
            }
            self.tick()?;
        }
        Ok(())
    }

    fn act(&mut self, seed: u64) -> Result<(), String> {
        for at in 0..NODES as usize {
            self.cluster.boot(at).map_err(|error| error.to_string())?;
        }
        self.until(SETTLED_MS, "S1: all led from home, and at rest", at_home)?;
        let calm = CALM_MS + self.dice.below(1_000);
        for _ in 0..calm {
            self.tick()?;
            if !all_rest(&self.cluster) {
                return Err("S1: somebody woke in the quiet".into());
            }
        }
        let gone = self.dice.below(NODES) as usize;
        let led = led_by(&self.cluster, gone);
        let raft = node::raft(&self.cluster.machines[gone].start);
        let bounds = Bounds::of(&raft, led.len());
        // In every second seed; before it would be told anyway.
        // (Silence is told three pauses after the last word, which was one ago at most.)
        let wish = seed
            .is_multiple_of(2)
            .then(|| self.wish(gone, &led, ms((raft.lost_at_rest() - raft.election_max) / 2)));
        self.note(&format!("node {} goes dark, and led {} shards", gone + 1, led.len()));
        // First the network: not even the end of a connection is heard.
        nemesis::each(&self.cluster, gone, &[], |net, a, b| net.hold(a, b));
        self.cluster.kill(gone, true);
        self.watch(gone, &led, &bounds, wish)?;
        self.until(bounds.rested, "D4: all rest again", all_rest)
            .map_err(|why| format!("{why}: awake {:?}", awake(&self.cluster)))
    }

    fn wish(&mut self, gone: usize, led: &BTreeMap<ShardId, u64>, within: u64) -> Wish {
        let shards: Vec<ShardId> = led.keys().copied().filter(|shard| shard.0 > 0).collect();
        let survivors: Vec<usize> = (0..NODES as usize).filter(|at| *at != gone).collect();
        Wish {
            at_ms: self.cluster.now_ms + self.dice.below(within),
            edge: self.dice.pick(&survivors).copied().unwrap_or_default(),
            shard: self.dice.pick(&shards).copied().unwrap_or(ShardId(1)),
            asked: false,
            answer: None,
            served_ms: None,
        }
    }

    /// From the end of the power until all is as it was, or too late.
    fn watch(
        &mut self,
        gone: usize,
        led: &BTreeMap<ShardId, u64>,
        bounds: &Bounds,
        mut wish: Option<Wish>,
    ) -> Result<(), String> {
        let dark = self.cluster.now_ms;
        let others = terms(&self.cluster, led);
        drop(raft_store::sim::stood());
        let mut lost: BTreeMap<usize, u64> = BTreeMap::new();
        loop {
            self.tick()?;
            let now = self.cluster.now_ms;
            self.hear(gone, &mut lost);
            self.stands();
            if let Some(wish) = &mut wish {
                self.serve(wish);
                if wish.asked && wish.served_ms.is_none() && now > wish.at_ms + bounds.served {
                    return Err(format!(
                        "D2: wanted at {}, not served within {} ms",
                        wish.at_ms, bounds.served
                    ));
                }
            }
            let all_lost = lost.len() as u64 == NODES - 1;
            if !all_lost && now > dark + bounds.lost {
                return Err(format!(
                    "D1: {} of 2 hold it for lost after {} ms",
                    lost.len(),
                    bounds.lost
                ));
            }
            let inherited = led_by_others(&self.cluster, gone, led);
            let told = lost.values().copied().max().unwrap_or(now);
            if all_lost && !inherited && now > told + bounds.led {
                return Err(format!(
                    "D3: not all {} shards are led after {} ms",
                    led.len(),
                    bounds.led
                ));
            }
            if inherited && all_lost && wish.as_ref().is_none_or(|wish| wish.served_ms.is_some()) {
                self.note("all its shards are led");
                break;
            }
        }
        if terms(&self.cluster, led) != others {
            self.findings
                .push("D3: a shard that it didn't lead changed hands".into());
        }
        Ok(())
    }

    /// Who holds whom for lost.
    fn hear(&mut self, gone: usize, lost: &mut BTreeMap<usize, u64>) {
        let hears = |_, host: &Host| -> Vec<bool> { (1..=NODES).map(|node| host.hears(NodeId(node))).collect() };
        for (at, hears) in self.cluster.ask(hears).into_iter().enumerate() {
            let Some(hears) = hears else { continue };
            if !hears[gone] && !lost.contains_key(&at) {
                lost.insert(at, self.cluster.now_ms);
                self.note(&format!("node {} holds it for lost", at + 1));
            }
            let others = (0..NODES as usize).filter(|other| *other != at && *other != gone);
            for other in others.filter(|other| !hears[*other]) {
                let (at, other) = (at + 1, other + 1);
                self.findings.push(format!("D1: node {at} holds node {other} for lost"));
            }
        }
    }

    /// Elections that began at this moment. Between two moments with any at a node lies a look of its own.
    fn stands(&mut self) {
        let mut count: BTreeMap<u64, usize> = BTreeMap::new();
        for (node, shard) in raft_store::sim::stood() {
            *count.entry(node).or_default() += 1;
            self.note(&format!("node {node} stands in shard {shard}"));
        }
        for (node, n) in count.into_iter().filter(|(_, n)| *n > AT_ONCE) {
            self.findings
                .push(format!("D3: node {node} stood in {n} shards at once, of {AT_ONCE}"));
        }
    }

    /// The command, as the survivor's edge sees to it: its shard is wanted, and as soon as somebody leads, it goes there.
    fn serve(&mut self, wish: &mut Wish) {
        let now = self.cluster.now_ms;
        if now < wish.at_ms || wish.served_ms.is_some() {
            return;
        }
        let (shard, edge) = (wish.shard, wish.edge as u64 + 1);
        if !wish.asked {
            wish.asked = true;
            self.note(&format!("node {edge} wants shard {}", shard.0));
        }
        self.cluster
            .ask(|node, host| (node == edge).then(|| host.wanted(shard)));
        if let Some(task) = wish.answer.take_if(|task| task.is_finished()) {
            let reply = futures_util::FutureExt::now_or_never(task);
            if let Some(Ok(Reply::Verdict(_))) = reply {
                wish.served_ms = Some(now);
                self.note(&format!("served after {} ms", now - wish.at_ms));
                return;
            }
        }
        let leads = |node: u64, host: &Host| {
            let mut leaders = host.leaders().into_iter();
            leaders.any(|(led, _, leader)| led == shard && leader == Some(NodeId(node)))
        };
        let leader = self.cluster.ask(leads).iter().position(|leads| *leads == Some(true));
        if let (None, Some(at)) = (&wish.answer, leader) {
            wish.answer = self.cluster.spawn(at, move |host| async move {
                let epoch = host.map().borrow().epoch;
                host.submit(shard, epoch, create(shard)).await
            });
        }
    }
}

/// Every shard is led from home by everybody's word, and rests everywhere.
fn at_home(cluster: &Cluster) -> bool {
    let home = |_, host: &Host| {
        let map = host.map().borrow().clone();
        let leaders = host.leaders();
        let all = leaders.len() as u32 == SHARDS + 1;
        all && leaders
            .into_iter()
            .all(|(shard, _, leader)| leader == map.preferred_leader(shard))
    };
    let home = cluster.ask(home).iter().all(|home| *home == Some(true));
    home && all_rest(cluster)
}

/// Every replica rests at every machine that is on.
fn all_rest(cluster: &Cluster) -> bool {
    let rest = cluster.ask(|_, host| host.at_rest().is_some());
    rest.into_iter().flatten().all(|rests| rests)
}

/// Replicas that don't rest: (node, shard, term, leader).
fn awake(cluster: &Cluster) -> Vec<(u64, u32, u64, Option<u64>)> {
    let awake = |node: u64, host: &Host| -> Vec<_> {
        let awake = host.status().into_iter().filter(|group| !group.resting);
        awake
            .map(|group| (node, group.shard.0, group.term, group.leader.map(|node| node.0)))
            .collect()
    };
    cluster.ask(awake).into_iter().flatten().flatten().collect()
}

/// The shards that a machine leads, and their terms.
fn led_by(cluster: &Cluster, at: usize) -> BTreeMap<ShardId, u64> {
    let node = NodeId(at as u64 + 1);
    let leaders = cluster
        .ask(|_, host| host.leaders())
        .swap_remove(at)
        .unwrap_or_default();
    let led = leaders.into_iter().filter(|(_, _, leader)| *leader == Some(node));
    led.map(|(shard, term, _)| (shard, term)).collect()
}

/// The terms of all other shards, at each machine that is on.
fn terms(cluster: &Cluster, led: &BTreeMap<ShardId, u64>) -> Vec<BTreeMap<ShardId, u64>> {
    let leaders = cluster.ask(|_, host| host.leaders()).into_iter().flatten();
    let others = leaders.map(|leaders| {
        let others = leaders.into_iter().filter(|(shard, ..)| !led.contains_key(shard));
        others.map(|(shard, term, _)| (shard, term)).collect()
    });
    others.collect()
}

/// Whether all these shards are led by somebody else, by everybody's word.
fn led_by_others(cluster: &Cluster, gone: usize, led: &BTreeMap<ShardId, u64>) -> bool {
    let gone = NodeId(gone as u64 + 1);
    cluster
        .ask(|_, host| host.leaders())
        .into_iter()
        .flatten()
        .all(|leaders| {
            leaders
                .into_iter()
                .filter(|(shard, ..)| led.contains_key(shard))
                .all(|(_, _, leader)| leader.is_some_and(|leader| leader != gone))
        })
}

/// An auction that lies in a shard, to be created.
fn create(shard: ShardId) -> Command {
    let name = (0..).map(|n| format!("lot-{n}"));
    let lot = name
        .take(10_000)
        .find(|name| placement::shard_of(name, SHARDS) == shard)
        .unwrap_or_default();
    let id = |text: &str| Id::parse(text).unwrap_or_else(|| unreachable!("{text:?} is an id"));
    let seller = id("seller");
    Command {
        auction: id(&lot),
        action: Action::Create(Box::new(people::definition(&seller, 60_000))),
        actor: Actor {
            id: seller,
            rights: Rights::MEMBER.and(Rights::SELLER),
        },
        id: Some(id("create")),
        first_sent: None,
    }
}
