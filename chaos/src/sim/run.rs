//! One run of a simulation: a seed, a world, people, faults; then quiet, and judgement.
//!
//! ```text
//!   boot ----> people act, faults come and go ----> all faults healed ----> nobody acts any more ----> judge
//!              `seconds`: safety                    2 s: acts must succeed   until all is answered and closed: liveness
//! ```

use super::{
    clocks::{self, Clocks},
    cluster::{Cluster, nowhere},
    edge::Edge,
    judge::{self, Seen},
    mail::Post,
    nemesis::Nemesis,
    nic::Nic,
    node::{Memory, Start, Witness},
    operator,
    people::{MIN_INC, Person, RULE, START_PRICE, Show, Stage},
    record::Pen,
};
use crate::history::{End, History, Meta, Record};
use auction::{AuctionId, Event};
use client::Dice;
use futures_util::FutureExt;
use placement::{NodeId, ShardId};
use raft_store::clock::lanes;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Nodes that the cluster is born with, and nodes that join.
const NODES: u64 = 3;
const MORE: u64 = 1;
const SHARDS: u32 = 2;
const EDGES: u64 = 2;
/// hold_ms + grace_ms of the nodes.
const EPS_MS: u64 = 350;
/// Until every node has a map and knows leaders.
const BOOT_MS: u64 = 10_000;
/// Before an operator looks at what rotted, and how long a restart takes.
const INSPECT_MS: u64 = 1_000;
const RESTART_MS: u64 = 300;
/// People go on for so long when all is healed.
const HEALED_MS: u64 = 2_000;
/// Then everything is answered and closed within this: the longest auction with its extensions and pauses, and a bit.
const LIVELY_MS: u64 = 30_000;
/// Then every move has come to its end within this.
const MOVED_MS: u64 = 30_000;
/// Then replicas agree within this.
const EQUAL_MS: u64 = 5_000;

/// What a run is started with.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) seed: u64,
    /// How long people act under faults.
    pub(super) seconds: u64,
    pub(super) verbose: bool,
    /// Lanes fall behind, as they do under a crowd.
    pub(super) narrow: bool,
}

/// What it came to.
pub(super) struct Outcome {
    pub(super) passed: bool,
    pub(super) failed: Vec<String>,
    /// Of everything that happened, in order: the same seed has the same.
    pub(super) hash: String,
    pub(super) sim_ms: u64,
    pub(super) bids: u64,
    pub(super) faults: u64,
    /// Moves that were begun, and pieces of snapshots that were taken in.
    pub(super) moves: u64,
    pub(super) pieces: u64,
    /// How often what was cold was met, by whom, and old ids came again, by what they were told.
    pub(super) cold: BTreeMap<&'static str, u64>,
    pub(super) again: BTreeMap<&'static str, u64>,
    pub(super) text: String,
    pub(super) history: Vec<Record>,
}

struct World {
    cluster: Cluster,
    show: Arc<Show>,
    pen: Pen,
    nemesis: Nemesis,
    witness: Arc<Witness>,
    memory: Memory,
    clocks: Clocks,
    seen: Seen,
    trace: Sha256,
}

/// Runs a seed, on a fresh thread after `doors::begin`: once in a process.
pub(super) fn run(options: &Options) -> Outcome {
    raft_store::sim::begin();
    let mut world = World::new(options);
    if let Err(why) = world.act(options) {
        world.seen.find(why);
    }
    world.finish(options)
}

impl World {
    fn new(options: &Options) -> World {
        let dice = Dice::new(options.seed);
        let (post, pen, witness) = (Post::default(), Pen::default(), Arc::new(Witness::default()));
        let lanes = packing(&mut dice.fork(8), options.narrow);
        let memory = memory(&mut dice.fork(11));
        let starts = (1..=NODES + MORE).map(|node| Start {
            node,
            founders: NODES,
            joined: None,
            lanes,
            memory,
            shards: SHARDS,
            at_once: 64,
            nic: Nic::new(),
            disk: raft_store::sim::Disk::new(dice.fork(node).roll()),
            post: post.clone(),
            witness: witness.clone(),
            host: nowhere(),
        });
        let mut cluster = Cluster::new(options.seed, starts);
        let show = Show::new(pen.clone(), SHARDS, NODES);
        let edges: Vec<String> = (0..EDGES).map(|n| format!("edge-{n}")).collect();
        for (n, edge) in edges.iter().enumerate() {
            let (show, post, dice) = (show.clone(), post.clone(), dice.fork(100 + n as u64));
            cluster.net.client(edge.clone(), people(show, post, n as u64, dice));
        }
        let nemesis = Nemesis::new(dice.fork(7), pen.clone(), edges, u64::MAX);
        World {
            cluster,
            show,
            pen,
            nemesis,
            witness,
            memory,
            clocks: Clocks::new(dice.fork(9)),
            seen: Seen::default(),
            trace: Sha256::new(),
        }
    }

    fn tick(&mut self) -> Result<(), String> {
        self.pen.set_now(self.cluster.now_ms + 1);
        let ended = self.cluster.tick()?;
        for (at, why) in ended {
            if !self.nemesis.excuses(at) {
                self.seen.find(format!("S5: node {} ended by itself: {why}", at + 1));
            }
            self.cluster.kill(at, false);
        }
        if let Some(panic) = super::panicked() {
            return Err(format!("S5: panic: {panic}"));
        }
        if self.cluster.now_ms.is_multiple_of(10) {
            self.look();
        }
        Ok(())
    }

    /// Who leads and who stamps, by each node's own word, and how far each shard is.
    fn look(&mut self) {
        if !self.nemesis.rests() {
            self.seen.wrong(self.cluster.now_ms);
        }
        self.clocks.look(&self.cluster, &mut self.seen);
        self.welcome();
        let looked = self
            .cluster
            .ask(|node, host| (node, host.leaders(), host.readings(), host.status(), behind(host)));
        let mut tops: BTreeMap<u32, u64> = BTreeMap::new();
        for (node, leaders, readings, status, behind) in looked.into_iter().flatten() {
            for (shard, behind) in &behind {
                self.pen.behind(node, shard.0, behind);
            }
            for (shard, term, leader) in leaders {
                let words = [u64::from(shard.0), term, node, leader.map_or(0, |leader| leader.0)];
                words.iter().for_each(|word| self.trace.update(word.to_le_bytes()));
            }
            for reading in readings {
                self.trace.update(reading.now.0.to_le_bytes());
                self.seen.office(reading.shard.0, reading.office, node);
            }
            for group in status {
                let top = tops.entry(group.shard.0).or_default();
                *top = group.top.0.max(*top);
                if group.clamped > 0 {
                    self.seen.clamped(group.shard.0, node, group.clamped);
                }
            }
        }
        let live = self.show.live();
        for (shard, top) in tops.into_iter().filter(|(shard, _)| *shard > 0) {
            self.seen.top(&self.pen, shard, top, live.contains(&ShardId(shard)));
        }
    }

    /// Ticks until something is so; an error when it isn't within `ms`.
    fn until(&mut self, ms: u64, what: &str, so: impl Fn(&World) -> bool) -> Result<(), String> {
        let until = self.cluster.now_ms + ms;
        while !so(self) {
            if self.cluster.now_ms >= until {
                return Err(format!("{what} not within {ms} ms: {}", self.state()));
            }
            self.tick()?;
        }
        Ok(())
    }

    fn state(&self) -> String {
        let leaders = self.cluster.ask(|node, host| (node, host.leaders()));
        format!(
            "{} unanswered, open {:?}, leaders {leaders:?}",
            self.show.unanswered.load(Ordering::Relaxed),
            self.show.open()
        )
    }

    fn act(&mut self, options: &Options) -> Result<(), String> {
        self.pen.write(|_| Record::Meta(meta(options.seed, self.memory)));
        for at in 0..NODES as usize {
            self.cluster.boot(at).map_err(|error| error.to_string())?;
        }
        self.until(BOOT_MS, "S1: all nodes ready", World::ready)?;
        let first = self.cluster.now_ms + 500;
        self.nemesis.begin_at(first);
        let end = first + options.seconds * 1_000;
        while self.cluster.now_ms < end {
            self.nemesis.play(&mut self.cluster)?;
            self.tick()?;
        }
        self.nemesis.heal(&mut self.cluster)?;
        self.pass(INSPECT_MS)?;
        if self.nemesis.inspect(&mut self.cluster) {
            self.pass(RESTART_MS)?;
            self.nemesis.heal(&mut self.cluster)?;
        }
        self.pass(HEALED_MS)?;
        *self.show.stage.lock() = Stage::Ending;
        self.until(LIVELY_MS, "S1: everything answered and closed", |world| {
            world.show.unanswered.load(Ordering::Relaxed) == 0 && world.show.open().is_empty()
        })?;
        self.until(MOVED_MS, "S1: all moves over", World::settled)?;
        self.until(EQUAL_MS, "S1: all replicas equal", World::equal)?;
        // The last events are on their way to viewers.
        self.pass(2_000)?;
        *self.show.stage.lock() = Stage::Over;
        self.stray()
    }

    /// So much time passes.
    fn pass(&mut self, ms: u64) -> Result<(), String> {
        let until = self.cluster.now_ms + ms;
        while self.cluster.now_ms < until {
            self.tick()?;
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        self.cluster
            .ask(|_, host| host.ready())
            .iter()
            .take(self.cluster.begun)
            .all(|ready| *ready == Some(true))
    }

    /// Whoever was let in starts, as the replica that the map says.
    fn welcome(&mut self) {
        let at = self.cluster.begun;
        let Some(machine) = self.cluster.machines.get(at) else {
            return;
        };
        let node = NodeId(machine.start.node);
        let of = |_, host: &raft_store::Host| host.map().borrow().steering.watchers.get(&node).copied();
        let Some(replica) = self.cluster.ask(of).into_iter().flatten().flatten().next() else {
            return;
        };
        self.cluster.machines[at].start.joined = Some(replica);
        match self.cluster.boot(at) {
            Ok(()) => self.show.nodes.store(node.0, Ordering::Relaxed),
            Err(error) => self.seen.find(format!("S5: node {} doesn't boot: {error}", node.0)),
        }
    }

    fn settled(&self) -> bool {
        let hosts = self.cluster.ask(|_, host| host.clone());
        let hosts: Vec<_> = hosts.into_iter().flatten().collect();
        hosts.len() == self.cluster.begun && operator::has_settled(&hosts)
    }

    /// One clock goes wrong while nothing else is, and nobody bids any more (what a fast clock does before it is caught
    /// isn't promised): it must be told from the others, lose what it leads, and be trusted again once it is right.
    fn stray(&mut self) -> Result<(), String> {
        let trusted = |world: &World| (0..world.cluster.begun).all(|at| !clocks::accused(&world.cluster, at));
        // Where all had been accused because two were wrong, nobody could take over.
        self.until(clocks::TRUSTED_MS, "S10: everybody is trusted", trusted)?;
        let (at, faults) = self.clocks.fault(&mut self.cluster);
        self.until(
            clocks::CAUGHT_MS,
            &format!("S10: {faults} at node {} is seen", at + 1),
            |world| clocks::accused(&world.cluster, at),
        )?;
        self.until(
            clocks::GIVEN_MS,
            &format!("S10: node {} leads nothing", at + 1),
            |world| clocks::leads_nothing(&world.cluster, at),
        )?;
        self.cluster.machines[at].rate_ppm = 0;
        self.cluster.machines[at].wall_error_ms = 0;
        self.until(
            clocks::TRUSTED_MS,
            &format!("S10: node {} is trusted again", at + 1),
            |world| (0..world.cluster.begun).all(|at| !clocks::accused(&world.cluster, at)),
        )
    }

    /// All replicas of each shard have applied the same, and hold the same.
    fn equal(&self) -> bool {
        let mut states: BTreeMap<u32, BTreeSet<(u64, [u8; 32])>> = BTreeMap::new();
        let digest = |host: &raft_store::Host, shard| host.digest(ShardId(shard)).unwrap_or_default();
        let ask = |node, host: &raft_store::Host| {
            let map = host.map().borrow().clone();
            let held = map.shards_on(NodeId(node)).map(|(shard, _)| shard.0);
            held.map(|shard| (shard, digest(host, shard))).collect::<Vec<_>>()
        };
        for digests in self.cluster.ask(ask).into_iter().take(self.cluster.begun) {
            let Some(digests) = digests else { return false };
            for (shard, digest) in digests {
                states.entry(shard).or_default().insert(digest);
            }
        }
        states.values().all(|states| states.len() == 1)
    }

    fn finish(mut self, options: &Options) -> Outcome {
        let moves = |_, host: &raft_store::Host| host.map().borrow().steering.move_ids;
        let moves = self.cluster.ask(moves).into_iter().flatten().max().unwrap_or(0);
        // Before the harness itself reads everything.
        let cold = raft_store::sim::cold();
        let (missing, again) = self.show.past.take();
        missing
            .into_iter()
            .for_each(|what| self.seen.find(format!("S11: {what}")));
        self.nothing_missing();
        let logs = self.dump();
        let told = std::mem::take(&mut *self.witness.told_closed.lock());
        self.seen.told_closed(&told, &logs);
        let (ops, healed) = (self.pen.ops(), self.seen.findings.is_empty());
        self.pen.write(|t| Record::End(End { t, ops, healed }));
        let records = self.pen.take();
        self.seen.once(&records, &logs);
        for record in &records {
            self.trace.update(serde_json::to_string(record).unwrap_or_default());
        }
        let history = History::of(&records);
        let mut text = String::new();
        let passed = judge::judge(&history, &self.seen, options.verbose, &mut text);
        let bids = |record: &&Record| matches!(record, Record::Log(log) if log.node == 1 && log.ty == "bid");
        Outcome {
            passed,
            failed: judge::failed(&history, &self.seen),
            hash: hex::encode(self.trace.finalize())[..16].to_owned(),
            sim_ms: self.cluster.now_ms,
            bids: records.iter().filter(bids).count() as u64,
            faults: self.nemesis.count.values().sum(),
            moves,
            pieces: raft_store::sim::pieces(),
            cold,
            again,
            text,
            history: records,
        }
    }

    /// Every replica has all that was ever made (S11), once all are equal.
    fn nothing_missing(&mut self) {
        if !self.equal() {
            return;
        }
        let missing = self.cluster.ask(|node, host| {
            let map = host.map().borrow().clone();
            let here = map.shards_on(NodeId(node)).map(|(shard, _)| shard).collect();
            self.show.past.missing_at(host, &here, &self.show)
        });
        for what in missing.into_iter().flatten().flatten() {
            self.seen.find(format!("S11: {what}"));
        }
    }

    /// Every replica's log of every auction, from that replica; gives the longest of each.
    fn dump(&mut self) -> BTreeMap<AuctionId, Vec<Arc<Event>>> {
        let mut logs: BTreeMap<AuctionId, Vec<Arc<Event>>> = BTreeMap::new();
        let all = self.show.auctions();
        let places: Vec<(AuctionId, ShardId)> = all.into_iter().map(|a| (a.clone(), self.show.shard(&a))).collect();
        let dumped = self.cluster.ask(|node, host| {
            // A simulated disk answers at once.
            let log = |(a, shard): &(AuctionId, ShardId)| host.events(*shard, a, 0, usize::MAX).now_or_never()?.ok();
            (node, places.iter().map(log).collect::<Vec<_>>())
        });
        for (node, dump) in dumped.into_iter().flatten() {
            for ((auction, shard), events) in places.iter().zip(dump) {
                let Some(events) = events else { continue };
                for line in judge::lines(node, shard.0, auction, &events) {
                    self.pen.write(|_| line);
                }
                let known = logs.entry(auction.clone()).or_default();
                if events.len() > known.len() {
                    *known = events;
                }
            }
        }
        logs
    }
}

/// Whose lanes were behind at each shard's last offices, by the word of one node.
fn behind(host: &raft_store::Host) -> Vec<(ShardId, raft_store::Behind)> {
    let of = |shard: u32| {
        host.behind(ShardId(shard))
            .into_iter()
            .map(move |b| (ShardId(shard), b))
    };
    (1..=SHARDS).flat_map(of).collect()
}

/// How commands are packed into entries: it must make no difference, so it is another one in each seed. A narrow window makes
/// lanes that are behind, which a few people wouldn't otherwise.
fn packing(dice: &mut Dice, narrow: bool) -> lanes::Options {
    let usual = lanes::Options::default();
    if narrow {
        return lanes::Options {
            entry_max: 2,
            window: 3,
            ..usual
        };
    }
    match dice.below(3) {
        0 => usual,
        1 => lanes::Options { entry_max: 2, ..usual },
        _ => lanes::Options {
            entry_max: 1,
            pipeline: 4,
            ..usual
        },
    }
}

/// For how long what is over stays where it is: shorter than a run mostly, so that it is seen to go, and to stay known.
fn memory(dice: &mut Dice) -> Memory {
    let usual = Memory::default();
    Memory {
        cold_after_ms: dice
            .pick(&[50, 150, 400, 1_500])
            .copied()
            .unwrap_or(usual.cold_after_ms),
        refusals_ms: dice
            .pick(&[1_000, 2_000, 5_000, usual.refusals_ms])
            .copied()
            .unwrap_or(usual.refusals_ms),
    }
}

fn meta(seed: u64, memory: Memory) -> Meta {
    Meta {
        format: 1,
        run: format!("sim-{seed}"),
        profile: "smoke".into(),
        seed,
        nodes: (1..=NODES + MORE).collect(),
        replicas: NODES,
        start_price: START_PRICE,
        min_inc: MIN_INC,
        floor_ms: RULE.floor_ms,
        k_ppm: RULE.cut_per_raise_ppm,
        cap_ppm: RULE.cut_ppm_max,
        eps_ms: EPS_MS,
        clock_policy: "stop".into(),
        window: 4_096,
        refusals_ms: Some(memory.refusals_ms),
        ..Meta::default()
    }
}

/// Everyone at one edge; never ends, so that the edge goes on.
async fn people(show: Arc<Show>, post: Post, edge: u64, dice: Dice) -> turmoil::Result {
    let way = Edge::open(post, show.clone(), (edge + 1) << 40).await?;
    let person = |n: u64, id: String| Person::new(show.clone(), way.clone(), dice.fork(n), &id);
    for n in 0..2 {
        if let Some(seller) = person(n, format!("seller-{edge}-{n}")) {
            tokio::task::spawn_local(seller.sell(edge * 2 + n));
        }
    }
    for n in 10..14 {
        if let Some(bidder) = person(n, format!("bidder-{edge}-{n}")) {
            tokio::task::spawn_local(bidder.bid());
        }
    }
    if let Some(reader) = person(30, format!("reader-{edge}")) {
        tokio::task::spawn_local(reader.read());
    }
    if let Some(late) = person(50, format!("late-{edge}")) {
        tokio::task::spawn_local(late.look_back());
    }
    if edge == 0
        && let Some(operator) = person(40, "operator".into())
    {
        tokio::task::spawn_local(operator.operate(NODES, MORE));
    }
    let mut watched = BTreeSet::new();
    loop {
        for auction in show.auctions() {
            if watched.insert(auction.clone())
                && let Some(viewer) = person(1_000 + watched.len() as u64, format!("viewer-{edge}"))
            {
                tokio::task::spawn_local(viewer.watch(auction));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
