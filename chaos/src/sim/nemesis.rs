//! What goes wrong in a simulation, and when: faults of machines, networks, disks and clocks, as the seed says.
//!
//! Faults of different kinds overlap; two of the network don't, since cutting and mending the same wire twice says nothing.
//! A quorum may well be lost: nothing may be forgotten for it, and when it is over, everything must go on (`judge`).
//!
//! Each fault is an interval in the history, as in `chaos run`.
//!
//! Deliberately absent: clocks that are faster than real time by more than a monotonic clock is allowed to be before it
//! is caught (G5): what such a machine's clock does isn't promised, and the checks don't forgive it.

use super::{cluster::Cluster, node::name, record::Pen};
use crate::history::{Nem, Record};
use client::Dice;
use futures_util::FutureExt;
use std::time::Duration;

/// What goes wrong at which machine (by its place in the cluster).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The process dies; with `power` the machine does, and its disk loses what wasn't synced.
    Kill {
        at: usize,
        power: bool,
    },
    /// The power of all machines fails at once.
    Blackout,
    Freeze {
        at: usize,
    },
    /// It gets one ms of processor in so many.
    Stutter {
        at: usize,
        nth: u64,
    },
    /// Other nodes and it don't hear each other.
    Cut {
        at: usize,
    },
    /// The same to who leads, until another does; then it hears of that, and dies while it takes the other's entries in
    /// place of its own.
    Depose {
        at: usize,
    },
    /// Nor do the edges.
    Alone {
        at: usize,
    },
    /// What is said to and by it arrives when the fault is over.
    Held {
        at: usize,
    },
    /// What the first says never reaches the second.
    OneWay {
        from: usize,
        to: usize,
    },
    /// Everything to and from it takes so long.
    Far {
        at: usize,
        ms: u64,
    },
    ClockRate {
        at: usize,
        ppm: i64,
    },
    WallStep {
        at: usize,
        ms: i64,
    },
    SlowDisk {
        at: usize,
        ms: u64,
    },
    /// An fsync fails: the node must stop by itself.
    BadDisk {
        at: usize,
    },
    /// A byte of a settled auction rots. In the end an operator has everything read there, and the node started again: then
    /// the replica stays shut, and is replaced.
    Rot {
        at: usize,
    },
}

impl Fault {
    fn word(self) -> &'static str {
        match self {
            Fault::Kill { power: false, .. } => "kill",
            Fault::Kill { power: true, .. } => "power",
            Fault::Blackout => "blackout",
            Fault::Freeze { .. } => "freeze",
            Fault::Stutter { .. } => "stutter",
            Fault::Cut { .. } => "cut",
            Fault::Depose { .. } => "depose",
            Fault::Alone { .. } => "alone",
            Fault::Held { .. } => "held-messages",
            Fault::OneWay { .. } => "one-way",
            Fault::Far { .. } => "far",
            Fault::ClockRate { .. } => "clock-rate",
            Fault::WallStep { .. } => "wall-step",
            Fault::SlowDisk { .. } => "slow-disk",
            Fault::BadDisk { .. } => "bad-disk",
            Fault::Rot { .. } => "rot",
        }
    }

    fn of_network(self) -> bool {
        matches!(
            self,
            Fault::Cut { .. }
                | Fault::Depose { .. }
                | Fault::Alone { .. }
                | Fault::Held { .. }
                | Fault::OneWay { .. }
                | Fault::Far { .. }
        )
    }

    /// The machine whose process it takes.
    fn takes(self, machine: usize) -> bool {
        match self {
            Fault::Kill { at, .. }
            | Fault::Depose { at }
            | Fault::Freeze { at }
            | Fault::Stutter { at, .. }
            | Fault::BadDisk { at } => at == machine,
            Fault::Blackout => true,
            _ => false,
        }
    }

    fn details(self) -> serde_json::Value {
        serde_json::json!({ "is": format!("{self:?}") })
    }
}

/// A fault that goes on.
struct Going {
    id: u64,
    fault: Fault,
    until_ms: u64,
}

/// The schedule of a run, made as it goes.
pub(super) struct Nemesis {
    dice: Dice,
    pen: Pen,
    edges: Vec<String>,
    next_ms: u64,
    going: Vec<Going>,
    /// From when on something cold may rot, if anything does. Once in a run: two rotten replicas of a shard would be one too many.
    rots_ms: Option<u64>,
    /// Where something rotted.
    rotten: Option<usize>,
    /// Who was deposed, and when it dies.
    deposed: Option<(usize, u64)>,
    done: u64,
    /// How many of each kind.
    pub(super) count: std::collections::BTreeMap<&'static str, u64>,
}

/// As long as everything is well: between faults.
const GAP_MS: [u64; 2] = [100, 1_800];
const GOING_MAX: usize = 3;
/// So many runs of a hundred have something rot.
const ROTS_PERCENT: u64 = 40;
/// Before that is tried, from the beginning of faults on and again.
const ROTS_AFTER_MS: [u64; 2] = [5_000, 11_000];
const ROTS_AGAIN_MS: u64 = 300;

impl Nemesis {
    pub(super) fn new(mut dice: Dice, pen: Pen, edges: Vec<String>, first_ms: u64) -> Nemesis {
        let rots = dice.chance(ROTS_PERCENT);
        Nemesis {
            dice,
            pen,
            edges,
            next_ms: first_ms,
            going: Vec::new(),
            rots_ms: rots.then_some(first_ms),
            rotten: None,
            deposed: None,
            done: 0,
            count: std::collections::BTreeMap::new(),
        }
    }

    /// Whether a fault excuses that a machine's process ended by itself. What rotted ends its replica only.
    pub(super) fn excuses(&self, at: usize) -> bool {
        self.going.iter().any(|going| going.fault == Fault::BadDisk { at })
    }

    /// The first fault may come from here on.
    pub(super) fn begin_at(&mut self, ms: u64) {
        self.next_ms = ms;
        let after = self.dice.between(ROTS_AFTER_MS[0], ROTS_AFTER_MS[1]);
        self.rots_ms = self.rots_ms.map(|_| ms + after);
    }

    /// What is due at this moment.
    pub(super) fn play(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        let now = cluster.now_ms;
        self.stop(cluster, |going| going.until_ms <= now)?;
        self.rot(cluster);
        if let Some((at, _)) = self.deposed.take_if(|(_, due)| *due <= now) {
            let power = self.dice.chance(50);
            self.start(cluster, Fault::Kill { at, power });
        }
        if now < self.next_ms {
            return Ok(());
        }
        self.next_ms = now + self.dice.between(GAP_MS[0], GAP_MS[1]);
        if self.going.len() < GOING_MAX
            && let Some(fault) = self.pick(cluster)
        {
            self.start(cluster, fault);
        }
        Ok(())
    }

    /// Has something cold rot, if it is time and anything is cold anywhere.
    fn rot(&mut self, cluster: &mut Cluster) {
        let now = cluster.now_ms;
        if self.rots_ms.is_none_or(|from| now < from) {
            return;
        }
        let at = self.dice.below(cluster.begun as u64) as usize;
        if cluster.machines[at].start.disk.rot_cold() {
            (self.rots_ms, self.rotten) = (None, Some(at));
            self.start(cluster, Fault::Rot { at });
        } else {
            self.rots_ms = Some(now + ROTS_AGAIN_MS);
        }
    }

    fn start(&mut self, cluster: &mut Cluster, fault: Fault) {
        let until_ms = cluster.now_ms + self.length(fault);
        self.begin(cluster, fault);
        self.done += 1;
        *self.count.entry(fault.word()).or_default() += 1;
        self.line(self.done, fault, "start");
        self.going.push(Going {
            id: self.done,
            fault,
            until_ms,
        });
    }

    /// Whether nothing is wrong now.
    pub(super) fn rests(&self) -> bool {
        self.going.is_empty() && self.deposed.is_none()
    }

    /// Everything is mended.
    pub(super) fn heal(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        self.stop(cluster, |going| !matches!(going.fault, Fault::Rot { .. }))?;
        // Now that every machine is up.
        self.stop(cluster, |_| true)?;
        (self.deposed, self.rots_ms) = (None, None);
        for machine in &mut cluster.machines {
            machine.rate_ppm = 0;
            machine.wall_error_ms = 0;
        }
        Ok(())
    }

    /// An operator's last round, once all is up: a machine on whose disk something rotted is read through again, since what it
    /// was may not have been there to be asked before, and goes down until the next `heal`. False: there is none.
    pub(super) fn inspect(&mut self, cluster: &mut Cluster) -> bool {
        let Some(at) = self.rotten.take() else { return false };
        read_all(cluster, at);
        self.start(cluster, Fault::Kill { at, power: false });
        true
    }

    fn stop(&mut self, cluster: &mut Cluster, due: impl Fn(&Going) -> bool) -> Result<(), String> {
        let taken = |at: usize| self.going.iter().any(|going| going.fault.takes(at));
        // A machine that is down or frozen for another reason is left to that.
        let due = |going: &Going| due(going) && !matches!(going.fault, Fault::Rot { at } if taken(at));
        let all = self.going.iter().map(due).collect::<Vec<_>>();
        let mut due = all.into_iter();
        let (over, going): (Vec<_>, Vec<_>) = std::mem::take(&mut self.going)
            .into_iter()
            .partition(|_| due.next() == Some(true));
        self.going = going;
        for going in over {
            self.end(cluster, going.fault)?;
            self.line(going.id, going.fault, "stop");
        }
        Ok(())
    }

    fn pick(&mut self, cluster: &Cluster) -> Option<Fault> {
        let machines = cluster.begun;
        let at = self.dice.below(machines as u64) as usize;
        let other = (at + 1 + self.dice.below(machines as u64 - 1) as usize) % machines;
        let ppm = match self.dice.below(4) {
            0 => self.dice.between(50, 500) as i64,
            1 => -(self.dice.between(1_000, 50_000) as i64),
            _ => -(self.dice.between(50, 500) as i64),
        };
        let step = self.dice.between(1, 7_200_000) as i64;
        let fault = match self.dice.below(100) {
            0..12 => Fault::Kill { at, power: false },
            12..24 => Fault::Kill { at, power: true },
            24..27 => Fault::Blackout,
            27..37 => Fault::Freeze { at },
            37..41 => Fault::Stutter {
                at,
                nth: self.dice.between(10, 60),
            },
            41..47 => Fault::Cut { at },
            47..50 => Fault::Depose {
                at: leader(cluster).unwrap_or(at),
            },
            50..56 => Fault::Alone { at },
            56..63 => Fault::Held { at },
            63..71 => Fault::OneWay { from: at, to: other },
            71..76 => Fault::Far {
                at,
                ms: self.dice.between(15, 120),
            },
            76..83 => Fault::ClockRate { at, ppm },
            83..88 => Fault::WallStep {
                at,
                ms: if self.dice.chance(50) { step } else { -step },
            },
            88..95 => Fault::SlowDisk {
                at,
                ms: self.dice.between(20, 400),
            },
            _ => Fault::BadDisk { at },
        };
        let clash = self.going.iter().any(|going| {
            (going.fault.of_network() && fault.of_network())
                || (0..machines).any(|m| going.fault.takes(m) && fault.takes(m))
                || (fault == Fault::Blackout && going.fault.of_network())
        });
        let clash = clash || self.deposed.is_some();
        (!clash).then_some(fault)
    }

    fn length(&mut self, fault: Fault) -> u64 {
        match fault {
            Fault::ClockRate { .. } | Fault::WallStep { .. } => self.dice.between(1_000, 6_000),
            Fault::Blackout => self.dice.between(200, 900),
            Fault::Depose { .. } => self.dice.between(300, 800),
            Fault::BadDisk { .. } => self.dice.between(1_000, 2_500),
            Fault::Rot { .. } => self.dice.between(500, 6_000),
            _ => match self.dice.below(3) {
                0 => self.dice.between(20, 250),
                1 => self.dice.between(200, 1_200),
                _ => self.dice.between(1_000, 3_500),
            },
        }
    }

    fn begin(&mut self, cluster: &mut Cluster, fault: Fault) {
        let all = 0..cluster.begun;
        match fault {
            Fault::Kill { at, power } => cluster.kill(at, power),
            Fault::Blackout => all.for_each(|at| cluster.kill(at, true)),
            Fault::Freeze { at } => cluster.machines[at].frozen = true,
            Fault::Stutter { at, nth } => cluster.machines[at].stutter = Some(nth),
            Fault::Cut { at } | Fault::Depose { at } => each(cluster, at, &[], |net, a, b| net.partition(a, b)),
            Fault::Alone { at } => each(cluster, at, &self.edges, |net, a, b| net.partition(a, b)),
            Fault::Held { at } => each(cluster, at, &[], |net, a, b| net.hold(a, b)),
            Fault::OneWay { from, to } => {
                let (from, to) = (cluster.machines[from].start.node, cluster.machines[to].start.node);
                cluster.net.partition_oneway(name(from), name(to));
            }
            Fault::Far { at, ms } => each(cluster, at, &self.edges, |net, a, b| {
                net.set_link_latency(a, b, Duration::from_millis(ms));
            }),
            Fault::ClockRate { at, ppm } => cluster.machines[at].rate_ppm = ppm,
            Fault::WallStep { at, ms } => cluster.machines[at].wall_error_ms = ms,
            Fault::SlowDisk { at, ms } => {
                let lag = Duration::from_millis(ms);
                cluster.machines[at].start.disk.set_lag(lag / 4, lag);
            }
            Fault::BadDisk { at } => cluster.machines[at].start.disk.fail_next_sync(),
            // It has rotted.
            Fault::Rot { .. } => {}
        }
    }

    fn end(&mut self, cluster: &mut Cluster, fault: Fault) -> Result<(), String> {
        let up = |error: std::io::Error| format!("a machine doesn't boot: {error}");
        match fault {
            Fault::Kill { at, power } => cluster.revive(at, power).map_err(up)?,
            Fault::Blackout => {
                for at in 0..cluster.begun {
                    cluster.revive(at, true).map_err(up)?;
                }
            }
            Fault::Freeze { at } => cluster.machines[at].frozen = false,
            Fault::Stutter { at, .. } => cluster.machines[at].stutter = None,
            Fault::Cut { at } | Fault::Depose { at } => {
                each(cluster, at, &[], |net, a, b| net.repair(a, b));
                cluster.machines[at].start.nic.reset();
                if let Fault::Depose { at } = fault {
                    self.deposed = Some((at, cluster.now_ms + self.dice.between(2, 90)));
                }
            }
            Fault::Alone { at } => {
                each(cluster, at, &self.edges, |net, a, b| net.repair(a, b));
                cluster.machines[at].start.nic.reset();
            }
            Fault::Held { at } => each(cluster, at, &[], |net, a, b| net.release(a, b)),
            Fault::OneWay { from, to } => {
                let [a, b] = [from, to].map(|at| cluster.machines[at].start.node);
                cluster.net.repair_oneway(name(a), name(b));
                cluster.machines[from].start.nic.reset();
            }
            Fault::Far { at, .. } => each(cluster, at, &self.edges, |net, a, b| {
                net.set_link_latency(a, b, Duration::from_millis(2));
            }),
            Fault::ClockRate { at, .. } => cluster.machines[at].rate_ppm = 0,
            Fault::WallStep { at, .. } => cluster.machines[at].wall_error_ms = 0,
            Fault::SlowDisk { at, .. } => {
                let (least, most) = (Duration::from_micros(500), Duration::from_millis(2));
                cluster.machines[at].start.disk.set_lag(least, most);
            }
            Fault::BadDisk { at } => {
                // It stopped, or nothing was written all the while: then it goes now.
                cluster.kill(at, true);
                cluster.revive(at, true).map_err(up)?;
            }
            Fault::Rot { at } => {
                read_all(cluster, at);
                cluster.kill(at, false);
                cluster.revive(at, false).map_err(up)?;
            }
        }
        Ok(())
    }

    fn line(&self, id: u64, fault: Fault, ev: &str) {
        let tgt = match fault {
            Fault::Blackout => Vec::new(),
            Fault::OneWay { from, to } => vec![from as u64 + 1, to as u64 + 1],
            fault => (0..8).filter(|m| fault.takes(*m)).map(|m| m as u64 + 1).collect(),
        };
        self.pen.write(|t| {
            Record::Nem(Nem {
                t,
                id,
                ev: ev.into(),
                f: fault.word().into(),
                tgt,
                d: fault.details(),
                eff: "installed".into(),
            })
        });
    }
}

/// Has a node read all that is over there: what rotted is found.
fn read_all(cluster: &Cluster, at: usize) {
    let name = cluster.machines[at].start.node;
    cluster.ask(|node, host| {
        for shard in host
            .status()
            .into_iter()
            .filter(|_| node == name)
            .map(|group| group.shard)
        {
            for auction in host.over(shard, None, usize::MAX).unwrap_or_default() {
                // A simulated disk answers at once; what it says is known there now.
                let _ = host.events(shard, &auction, 0, usize::MAX).now_or_never();
            }
        }
    });
}

/// A machine that leads a shard of auctions, by its own word.
fn leader(cluster: &Cluster) -> Option<usize> {
    let leads = |node: u64, host: &raft_store::Host| {
        let mut leaders = host.leaders().into_iter();
        leaders.any(|(shard, _, leader)| shard.0 > 0 && leader.is_some_and(|leader| leader.0 == node))
    };
    cluster.ask(leads).iter().position(|leads| *leads == Some(true))
}

/// Something between a machine and each other machine, and perhaps the edges.
pub(super) fn each(
    cluster: &Cluster,
    at: usize,
    edges: &[String],
    act: impl Fn(&turmoil::Sim<'static>, String, String),
) {
    let me = name(cluster.machines[at].start.node);
    let others = cluster.machines.iter().map(|machine| name(machine.start.node));
    for other in others.filter(|other| *other != me).chain(edges.iter().cloned()) {
        act(&cluster.net, me.clone(), other);
    }
}
