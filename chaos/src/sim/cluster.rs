//! The simulated world: machines with processes, a network between them, and one clock that everything else is measured by.
//!
//! ```text
//!   a millisecond:  network and edges (turmoil) --> each machine's process, in turn, for as long as *its* clock moved
//!                                                      frozen: not at all, then all at once
//!                                                      fast or slow: now and then a ms more or less
//! ```
//!
//! A process is a runtime of its own, with its own paused time: timers, sleeps, openraft's elections and the shard's clock
//! all see what this machine's crystal says, and nothing can be forgotten. Whatever asks the operating system for the time
//! is told the same (`doors`).
//!
//! Why not a turmoil host: turmoil ticks every host alike, and a process that can't be stopped for a second while its
//! kernel lives, or run at another rate, can't be lied to by its clock.
//!
//! Deliberately absent: when to do what (`nemesis`).

use super::{
    doors, nic,
    nic::Nic,
    node::{self, Start},
};
use parking_lot::Mutex;
use raft_store::Host;
use std::{sync::Arc, time::Duration};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// Real time at the beginning of every run, ns: the wall's clock of a machine that isn't lied to.
const EPOCH_NS: i64 = 1_750_000_000_000_000_000;
const MS: i64 = 1_000_000;
/// The longest that a message is under way where nothing is wrong.
pub(super) const LATENCY_MAX_MS: u64 = 4;

/// One machine.
pub(super) struct Machine {
    pub(super) start: Start,
    /// None: it is down.
    process: Option<(Runtime, JoinHandle<String>)>,
    lives: u64,
    /// How much faster its crystal is, parts per million.
    pub(super) rate_ppm: i64,
    /// ppm of a millisecond that its clock owes.
    owed: i64,
    /// Its monotonic clock, ms.
    mono_ms: i64,
    /// Its wall clock's error, ms.
    pub(super) wall_error_ms: i64,
    pub(super) frozen: bool,
    /// It runs for one ms in so many.
    pub(super) stutter: Option<u64>,
    /// ms that passed while it couldn't run.
    missed_ms: u64,
}

impl Machine {
    fn new(start: Start) -> Machine {
        Machine {
            start,
            process: None,
            lives: 0,
            rate_ppm: 0,
            owed: 0,
            mono_ms: 0,
            wall_error_ms: 0,
            frozen: false,
            stutter: None,
            missed_ms: 0,
        }
    }

    /// What the process asks the system for.
    fn clocks(&self, now_ms: u64) {
        let wall = EPOCH_NS + (now_ms as i64 + self.wall_error_ms) * MS;
        // No machine's uptime is another's.
        let boot = (self.start.node as i64 + 1) * 1_000_000;
        doors::set((boot + self.mono_ms) * MS, wall);
    }

    /// Starts the process, with a seed of its own.
    pub(super) fn boot(&mut self, seed: u64, now_ms: u64) -> std::io::Result<()> {
        self.lives += 1;
        self.clocks(now_ms);
        let mut bytes = [0; 32];
        for (k, part) in bytes.chunks_mut(8).enumerate() {
            let salt = [self.start.node, self.lives, k as u64]
                .iter()
                .fold(seed, |h, n| (h ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
            part.copy_from_slice(&salt.to_le_bytes());
        }
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(tokio::runtime::RngSeed::from_bytes(&bytes))
            .build()?;
        let main = runtime.spawn(node::run(self.start.clone()));
        self.process = Some((runtime, main));
        (self.frozen, self.missed_ms) = (false, 0);
        Ok(())
    }

    /// The process is gone; the disk keeps what a disk keeps.
    pub(super) fn kill(&mut self, power: bool, now_ms: u64) {
        let Some((runtime, _)) = self.process.take() else {
            return;
        };
        self.clocks(now_ms);
        self.start.nic.deaf();
        *self.start.host.lock() = None;
        drop(runtime);
        self.start.disk = self.start.disk.crash(power);
        (self.frozen, self.missed_ms) = (false, 0);
    }

    /// One millisecond of the world.
    fn tick(&mut self, now_ms: u64) {
        self.owed += 1_000_000 + self.rate_ppm;
        let ms = (self.owed / 1_000_000).max(0);
        self.owed -= ms * 1_000_000;
        self.mono_ms += ms;
        let idles = self.frozen || self.stutter.is_some_and(|n| !now_ms.is_multiple_of(n));
        if idles {
            self.missed_ms += ms as u64;
            return;
        }
        self.clocks(now_ms);
        let missed = std::mem::take(&mut self.missed_ms);
        if let Some((runtime, _)) = &self.process {
            runtime.block_on(async {
                if missed > 0 {
                    // What was frozen finds it all past at once, not ms by ms.
                    tokio::time::advance(Duration::from_millis(missed)).await;
                }
                if ms > 0 {
                    tokio::time::sleep(Duration::from_millis(ms as u64)).await;
                }
            });
        }
    }

    /// Why the process ended by itself, if it did.
    fn ended(&mut self) -> Option<String> {
        let (runtime, main) = self.process.as_mut()?;
        if !main.is_finished() {
            return None;
        }
        Some(runtime.block_on(main).unwrap_or_else(|error| error.to_string()))
    }
}

/// All machines, and the network.
pub(super) struct Cluster {
    pub(super) net: turmoil::Sim<'static>,
    pub(super) machines: Vec<Machine>,
    /// So many of them, the first, have ever been on.
    pub(super) begun: usize,
    seed: u64,
    pub(super) now_ms: u64,
}

impl Cluster {
    /// Machines that are off.
    pub(super) fn new(seed: u64, starts: impl IntoIterator<Item = Start>) -> Cluster {
        doors::set(MS, EPOCH_NS);
        let mut net = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(LATENCY_MAX_MS))
            .simulation_duration(Duration::from_secs(86_400))
            .tcp_capacity(1 << 20)
            .udp_capacity(1 << 20)
            .build();
        let machines: Vec<Machine> = starts.into_iter().map(Machine::new).collect();
        for machine in &machines {
            let nic: Arc<Nic> = machine.start.nic.clone();
            net.host(node::name(machine.start.node), move || nic::run(nic.clone()));
        }
        Cluster {
            net,
            machines,
            begun: 0,
            seed,
            now_ms: 0,
        }
    }

    pub(super) fn boot(&mut self, at: usize) -> std::io::Result<()> {
        let (seed, now) = (self.seed, self.now_ms);
        self.begun = self.begun.max(at + 1);
        self.machines[at].boot(seed, now)
    }

    /// The process dies; with `power` its kernel, too.
    pub(super) fn kill(&mut self, at: usize, power: bool) {
        let now = self.now_ms;
        self.machines[at].kill(power, now);
        if power {
            self.outside();
            self.net.crash(node::name(self.machines[at].start.node));
        }
    }

    /// The machine is on again.
    pub(super) fn revive(&mut self, at: usize, power: bool) -> std::io::Result<()> {
        if power {
            self.outside();
            self.net.bounce(node::name(self.machines[at].start.node));
        }
        self.boot(at)
    }

    /// One millisecond; tells which processes ended by themselves, and why.
    pub(super) fn tick(&mut self) -> Result<Vec<(usize, String)>, String> {
        self.now_ms += 1;
        self.outside();
        self.net.step().map_err(|error| format!("the network: {error}"))?;
        let mut ended = Vec::new();
        for (at, machine) in self.machines.iter_mut().enumerate() {
            machine.tick(self.now_ms);
            ended.extend(machine.ended().map(|why| (at, why)));
        }
        Ok(ended)
    }

    /// Has a node's process do something, with its host.
    pub(super) fn spawn<F>(&self, at: usize, work: impl FnOnce(Host) -> F) -> Option<JoinHandle<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let machine = self.machines.get(at)?;
        let host = machine.start.host.lock().clone()?;
        let (runtime, _) = machine.process.as_ref()?;
        machine.clocks(self.now_ms);
        let task = runtime.spawn(work(host));
        self.outside();
        Some(task)
    }

    /// Whoever is no machine has a right clock.
    fn outside(&self) {
        let now = self.now_ms as i64 * MS;
        doors::set(MS + now, EPOCH_NS + now);
    }

    /// Asks each node's host, where there is one, as its own process would: a host that is asked the time from outside
    /// would read another clock.
    pub(super) fn ask<T>(&self, mut question: impl FnMut(u64, &Host) -> T) -> Vec<Option<T>> {
        let answers = self.machines.iter().map(|machine| {
            let host = machine.start.host.lock().clone()?;
            let (runtime, _) = machine.process.as_ref()?;
            machine.clocks(self.now_ms);
            let inside = runtime.enter();
            let answer = question(machine.start.node, &host);
            drop(inside);
            Some(answer)
        });
        let answers = answers.collect();
        self.outside();
        answers
    }
}

/// Where a machine's host is to be found.
pub(super) fn nowhere() -> Arc<Mutex<Option<Host>>> {
    Arc::default()
}
