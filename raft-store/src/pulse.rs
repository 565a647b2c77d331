//! One sign of life for each pair of nodes, and the one clock that all groups of a node share.
//!
//! openraft gives each group timers of its own: a replica that does nothing costs a tick every 10 ms and a heartbeat every
//! 50. Those are off. Instead each node sends every other one a *pulse*, and one task looks at all replicas here, at half
//! a pulse's pace, and does what `watch` says.
//!
//! ```text
//!   node A                                   node B
//!   look --Pulse{life, asks, wake}---------> lives: A is here; its groups may rest: answers
//!     |  <-------Pulse{life, answers}------- look
//!     '--> heartbeats of all groups that need one, at once: they ride in one frame for each peer
//! ```
//!
//! **Rest.** A leader with nothing to do asks its living followers to rest; a follower does so only at the leader's exact
//! vote and last index, with all of it applied and no timer pending. When all have said yes, the leader rests. From
//! then on nothing is sent and nothing is looked at but one flag. A shard wakes
//! - when anything is proposed or any message of the group goes or comes (`rest`), but for what goes to a node that is lost;
//! - at each follower, when its leader's node is lost or lives another life: the followers stand in order of succession;
//! - at the leader, when a follower's node comes (back): whoever was away must hear who leads before it stands itself;
//! - at every replica, five seconds before a scheduled start, by the wall time that most nodes have.
//!
//! **Why a dead leader can't go unseen.** A follower that rests watches the node that it heard the leader from. If that
//! leader still leads, it is at that node: leadership moves only by votes, and a vote is a message, which wakes. So
//! either the node lives in the same life and the leader with it, or the follower stands. A live auction has a timer, a
//! timer needs an entry, and an entry is a message: no replica of its shard rests at all.
//!
//! **Clocks.** Each pulse carries the node's clocks, and the nodes compare them (`clock::fleet`). A node that should not
//! lead (its clocks stray, its disk hangs) says so, hands its leaderships to others, and stands for election last.
//!
//! Who was told of a loss of many leaders, or of many shards to wake, takes so many at a look: elections and heartbeats
//! come in a row, not in a heap.
//!
//! Deliberately absent: the decisions (`lives`, `watch`, `balance`: values in, values out), and openraft's own timers.

mod balance;
pub(crate) mod lives;
mod rounds;
mod view;
pub(crate) mod watch;

use crate::{
    clock::{fleet::Fleet, proposer::ProposerHandle},
    group::{Ground, Group},
    host::Seat,
    metrics,
    options::RaftOptions,
    peers::Peers,
    server::Groups,
    versions::{self, Agreed},
    wire,
};
use lives::Lives;
use parking_lot::Mutex;
use placement::NodeId;
use proto::raft::v1 as pb;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};
use tokio::{sync::watch as news, time::Instant};

pub(crate) use rounds::{Now, calm_pause, run};

/// What goes with the next pulse to a node.
type Out = BTreeMap<NodeId, (Vec<pb::RestAsk>, Vec<pb::Mark>)>;

/// A node's pulse: what it says, and whom it hears.
pub(crate) struct Pulse {
    me: NodeId,
    began: Instant,
    options: watch::Options,
    /// In ms.
    wake_ahead: u64,
    home: balance::Options,
    raft: RaftOptions,
    peers: Arc<Peers>,
    groups: Groups,
    agreed: Arc<Agreed>,
    lives: Mutex<Lives>,
    fleet: Fleet,
    /// Nodes that came, came back or started again since the last look.
    anew: Mutex<BTreeSet<NodeId>>,
    /// Answers to our questions since the last look.
    answers: Mutex<Vec<pb::RestAnswer>>,
    leaving: AtomicBool,
    /// Longest pause until the next pulse, ms, while all rests here; else 0.
    next_ms: AtomicU32,
    woken: news::Sender<u64>,
}

impl Pulse {
    pub(crate) fn new(me: NodeId, ground: &Ground, groups: Groups, fleet: Fleet) -> Pulse {
        let raft = &ground.raft;
        let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let options = watch::Options {
            pace: ms(raft.heartbeat).max(2),
            fresh: ms(raft.election_max) / 2,
            silence: ms(raft.election_max),
            step: ms(raft.election_min) / 2,
            rest_after: ms(raft.rest_after),
        };
        Pulse {
            me,
            began: ground.began,
            options,
            wake_ahead: ms(raft.wake_ahead),
            home: balance::Options {
                settled: ms(raft.home_after),
                ..balance::Options::default()
            },
            raft: raft.clone(),
            peers: ground.peers.clone(),
            groups,
            agreed: ground.agreed.clone(),
            lives: Mutex::new(Lives::new(options.pace, options.silence, 0)),
            fleet,
            anew: Mutex::default(),
            answers: Mutex::default(),
            leaving: AtomicBool::new(false),
            next_ms: AtomicU32::new(0),
            woken: ground.woken.clone(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// This node is about to stop: peers are told at once.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.say(BTreeMap::new());
    }

    /// Whether this node is about to stop.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// All rests here, and the next pulse comes after `next` at most; `None`: something is awake.
    fn rests(&self, next: Option<u64>) {
        let ms = next.map_or(0, |ms| u32::try_from(ms).unwrap_or(u32::MAX));
        self.next_ms.store(ms, Ordering::Relaxed);
    }

    /// Whether nothing speaks against this node's leading.
    pub(crate) fn is_fit(&self) -> bool {
        self.fleet.fitness().is_fit()
    }

    /// This node's clocks among its peers', and whether it should lead.
    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Whether a node may take a leadership: it lives, doesn't leave, and its clocks and disk are good.
    pub(crate) fn can_lead(&self, node: NodeId) -> bool {
        let lives = self.lives.lock();
        !lives.leaves(node)
            && !lives.is_unfit(node)
            && !self.fleet.strays(node)
            && matches!(lives.known(self.now(), node), lives::Known::Alive { .. })
    }

    /// Whether a node's pulse comes.
    pub(crate) fn lives(&self, node: NodeId) -> bool {
        matches!(self.lives.lock().known(self.now(), node), lives::Known::Alive { .. })
    }

    fn pulse(&self) -> pb::NodePulse {
        pb::NodePulse {
            node: self.me.0,
            life: self.fleet.life(),
            leaving: self.is_leaving(),
            cluster_version: self.agreed.version(),
            newest: versions::NEWEST,
            unfit: !self.is_fit(),
            next_ms: self.next_ms.load(Ordering::Relaxed),
            ..pb::NodePulse::default()
        }
    }

    /// One pulse to every other node, with what there is for it.
    fn say(&self, mut out: Out) {
        for node in self.peers.nodes() {
            if node != self.me {
                let (asks, marks) = out.remove(&node).unwrap_or_default();
                let pulse = pb::NodePulse {
                    asks,
                    marks,
                    ..self.pulse()
                };
                self.send(node, pulse);
            }
        }
    }

    /// A peer's pulses come by one more way.
    pub(crate) fn way(&self, node: NodeId) {
        self.lives.lock().way(node);
    }

    /// One of the ways has ended.
    pub(crate) fn way_ended(&self, node: NodeId) {
        let ended = self.lives.lock().way_ended(self.now(), node);
        if ended {
            self.ended(node);
        }
    }

    /// Nobody listens at a peer's address.
    fn refused(&self, node: NodeId) {
        let ended = self.lives.lock().refused(self.now(), node);
        if ended {
            self.ended(node);
        }
    }

    fn ended(&self, node: NodeId) {
        tracing::info!(node = node.0, "a node's process has ended");
        self.look_now();
    }

    /// Something can't wait for the next look.
    pub(crate) fn look_now(&self) {
        self.peers.news().notify_one();
    }

    /// A pulse to one node, with the clocks as they are as it goes.
    fn send(&self, node: NodeId, pulse: pb::NodePulse) {
        let clock = Some(self.fleet.word(node));
        self.peers.pulse(node, pb::NodePulse { clock, ..pulse });
    }

    /// A peer's pulse came.
    pub(crate) fn take(&self, pulse: pb::NodePulse) {
        let node = NodeId(pulse.node);
        if !self.agreed.hears(node, pulse.cluster_version, pulse.newest) {
            return;
        }
        // First of all: what comes between is the round trip's.
        self.fleet.hear(node, pulse.life, pulse.clock);
        let lives = lives::Said {
            life: pulse.life,
            leaving: pulse.leaving,
            unfit: pulse.unfit,
            next: pulse.next_ms.into(),
        };
        let heard = self.lives.lock().hear(self.now(), node, lives);
        if heard.anew {
            tracing::debug!(node = node.0, "a node is here");
            self.peers.find(node);
            self.anew.lock().insert(node);
        }
        if heard.stirs {
            self.look_now();
        }
        for shard in &pulse.wake {
            if let Some(group) = self.groups.of(*shard) {
                self.speak(&group, "asked");
            }
        }
        for mark in &pulse.marks {
            if let Ok(group) = self.groups.find(mark.group, mark.to) {
                group.compare(mark.index, &mark.digest);
            }
        }
        if !pulse.answers.is_empty() {
            self.answers.lock().extend(pulse.answers);
        }
        if !pulse.asks.is_empty() {
            let answers = pulse.asks.into_iter().map(|ask| self.answer(node, ask)).collect();
            self.send(
                node,
                pb::NodePulse {
                    answers,
                    ..self.pulse()
                },
            );
        }
    }

    /// A leader asks a replica here to rest.
    fn answer(&self, from: NodeId, ask: pb::RestAsk) -> pb::RestAnswer {
        let rests = self.groups.find(ask.group, ask.to).is_ok_and(|group| {
            let seen = group.rest.stirs();
            let at_leaders = wire::vote_from(ask.vote).is_ok_and(|vote| {
                let last = ask.last.map(wire::log_id_from).transpose();
                last.is_ok_and(|last| view::is_at(&group, from, &vote, last))
            });
            at_leaders && view::agrees(&group, &ask) && group.rest.rest(seen, self.wake_at(&group))
        });
        pb::RestAnswer {
            group: ask.group,
            ask: ask.ask,
            rests,
        }
    }

    /// When a shard must be awake for its next start, by wall time.
    fn wake_at(&self, group: &Group) -> u64 {
        let state = group.replica.state.read();
        let next = state.shard.scheduled().next();
        next.map_or(u64::MAX, |(_, start, _)| start.saturating_sub(self.wake_ahead))
    }

    /// Whether nothing waits, nothing flies, no timer pends and no start is near.
    fn is_still(&self, seat: &Seat, wall: u64) -> bool {
        let state = seat.group.replica.state.read();
        let next = state.shard.scheduled().next();
        let near = next.is_some_and(|(_, start, _)| start <= wall.saturating_add(2 * self.wake_ahead));
        !near && !state.shard.has_timers() && seat.proposer.as_ref().is_none_or(ProposerHandle::is_still)
    }

    /// Wakes a replica here whose leader lives, and has it say so if it leads.
    fn speak(&self, group: &Arc<Group>, why: &'static str) {
        if group.rest.stir_led() {
            metrics::woken(why);
        }
        if group.led().leading {
            group.rest.shield(self.options.silence);
            let group = group.clone();
            // An error means that the group has stopped: `group` tells the host.
            tokio::spawn(async move { drop(group.raft.trigger().heartbeat().await) });
        }
    }

    /// Somebody here has a command for a shard whose leader is elsewhere. A replica that rests wakes, has the leader speak, and
    /// so finds out within a silence if that one's machine is gone, which would else be told by the seldom pulses of a calm node.
    pub(crate) fn want(&self, group: &Group) {
        // Each command that goes elsewhere asks: one flag, as long as the shard is awake.
        if !group.rest.is_resting() {
            return;
        }
        let leader = group.led();
        let Some(node) = leader.leader.filter(|_| !leader.leading) else {
            return;
        };
        if group.rest.stir_led() {
            metrics::woken("wanted");
            let wake = vec![group.shard.0];
            self.send(node, pb::NodePulse { wake, ..self.pulse() });
        }
    }

    /// Someone asks for a replica's vote. True: it must not be given, since the leader lives; it is told to speak.
    pub(crate) fn protects(&self, group: &Arc<Group>) -> bool {
        let leader = group.led();
        let fresh = |node| self.lives.lock().is_fresh(self.now(), node, self.options.fresh);
        let lives = group.rest.is_resting() && leader.leader.is_some_and(|node| leader.leading || fresh(node));
        let rested = if lives {
            group.rest.stir_led()
        } else {
            group.rest.stir()
        };
        if !rested {
            return group.rest.is_shielded();
        }
        metrics::woken("vote");
        if leader.leading {
            self.speak(group, "vote");
            return true;
        }
        if let Some(node) = leader.leader.filter(|_| lives) {
            group.rest.shield(self.options.silence);
            let wake = vec![group.shard.0];
            self.send(node, pb::NodePulse { wake, ..self.pulse() });
        }
        lives
    }
}
