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
//! - when anything is proposed or any message of the group goes or comes (`rest`);
//! - at each follower, when its leader's node is lost or lives another life: the followers stand in order of succession;
//! - at the leader, when a follower's node comes (back): whoever was away must hear who leads before it stands itself;
//! - at every replica, five seconds before a scheduled start, by wall time.
//!
//! **Why a dead leader can't go unseen.** A follower that rests watches the node that it heard the leader from. If that
//! leader still leads, it is at that node: leadership moves only by votes, and a vote is a message, which wakes. So
//! either the node lives in the same life and the leader with it, or the follower stands. A live auction has a timer, a
//! timer needs an entry, and an entry is a message: no replica of its shard rests at all.
//!
//! Who was told of a loss of many leaders, or of many shards to wake, takes so many at a look: elections and heartbeats
//! come in a row, not in a heap.
//!
//! Deliberately absent: the decisions (`lives`, `watch`, `balance`: values in, values out), and openraft's own timers.

mod balance;
pub(crate) mod lives;
mod view;
pub(crate) mod watch;

use crate::{
    group::Group, host::Seat, metrics, options::RaftOptions, peers::Peers, proposer::ProposerHandle, server::Groups,
    wire,
};
use balance::{Balance, Stray};
use lives::Lives;
use parking_lot::Mutex;
use placement::{ClusterMap, NodeId, ShardId};
use proto::raft::v1 as pb;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;
use view::Part;
use watch::{Do, Watch};

/// Most elections, and most heartbeats to whoever came back, at one look.
const AT_ONCE: usize = 64;
/// Two leaders' looks at one replica's place: a resting group is looked at so often although nothing changed, in looks.
const FULL_LOOK: u64 = 40;

/// A node's pulse: what it says, and whom it hears.
pub(crate) struct Pulse {
    me: NodeId,
    /// This life of the process.
    life: u64,
    began: Instant,
    options: watch::Options,
    /// In ms.
    wake_ahead: u64,
    home: balance::Options,
    raft: RaftOptions,
    peers: Arc<Peers>,
    groups: Groups,
    lives: Mutex<Lives>,
    /// Nodes that came, came back or started again since the last look.
    anew: Mutex<BTreeSet<NodeId>>,
    /// Answers to our questions since the last look.
    answers: Mutex<Vec<pb::RestAnswer>>,
    leaving: AtomicBool,
}

impl Pulse {
    pub(crate) fn new(me: NodeId, began: Instant, raft: &RaftOptions, peers: Arc<Peers>, groups: Groups) -> Pulse {
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
            life: rand::random(),
            began,
            options,
            wake_ahead: ms(raft.wake_ahead),
            home: balance::Options {
                settled: ms(raft.home_after),
                ..balance::Options::default()
            },
            raft: raft.clone(),
            peers,
            groups,
            lives: Mutex::new(Lives::new(options.pace, options.silence, 0)),
            anew: Mutex::default(),
            answers: Mutex::default(),
            leaving: AtomicBool::new(false),
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

    /// Whether a node may take a leadership: it lives, and doesn't leave.
    pub(crate) fn can_lead(&self, node: NodeId) -> bool {
        let lives = self.lives.lock();
        !lives.leaves(node) && matches!(lives.known(self.now(), node), lives::Known::Alive { .. })
    }

    fn pulse(&self) -> pb::NodePulse {
        pb::NodePulse {
            node: self.me.0,
            life: self.life,
            leaving: self.is_leaving(),
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
                self.peers.pulse(node, pulse);
            }
        }
    }

    /// A peer's pulse came.
    pub(crate) fn take(&self, pulse: pb::NodePulse) {
        let node = NodeId(pulse.node);
        if self.lives.lock().hear(self.now(), node, pulse.life, pulse.leaving) {
            tracing::debug!(node = node.0, "a node is here");
            self.anew.lock().insert(node);
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
            self.peers.pulse(
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

    /// Wakes a replica here, and has it say so if it leads.
    fn speak(&self, group: &Arc<Group>, why: &'static str) {
        if group.rest.stir() {
            metrics::woken(why);
        }
        if group.led().leading {
            group.rest.shield(self.options.silence);
            let group = group.clone();
            // An error means that the group has stopped: `group` tells the host.
            tokio::spawn(async move { drop(group.raft.trigger().heartbeat().await) });
        }
    }

    /// Someone asks for a replica's vote. True: it must not be given, since the leader lives; it is told to speak.
    pub(crate) fn protects(&self, group: &Arc<Group>) -> bool {
        let rested = group.rest.stir();
        if !rested {
            return group.rest.is_shielded();
        }
        metrics::woken("vote");
        let leader = group.led();
        if leader.leading {
            self.speak(group, "vote");
            return true;
        }
        let Some(node) = leader.leader else { return false };
        let silence = self.lives.lock().silence_of(self.now(), node);
        let lives = silence.is_some_and(|ms| ms < self.options.fresh);
        if lives {
            group.rest.shield(self.options.silence);
            let wake = vec![group.shard.0];
            self.peers.pulse(node, pb::NodePulse { wake, ..self.pulse() });
        }
        lives
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What goes with the next pulse to a node.
type Out = BTreeMap<NodeId, (Vec<pb::RestAsk>, Vec<pb::Mark>)>;

/// A replica under watch.
struct Charge {
    seat: Arc<Seat>,
    watch: Watch,
    /// The `stirs` that the question of this moment saw.
    asked: Option<(u64, u64)>,
    /// Index of the newest mark that was told to the followers.
    marked: u64,
}

/// The task's own memory.
struct Rounds {
    pulse: Arc<Pulse>,
    charges: BTreeMap<ShardId, Charge>,
    looks: u64,
    /// Changes of `lives` at the last full look.
    seen: u64,
    /// Led here, and a replica's node came back: they must speak.
    to_speak: VecDeque<ShardId>,
    out: Out,
    balance: Balance,
}

/// What the task is told of the host at each look.
pub(crate) struct Now {
    /// Rises when a seat is taken or left.
    pub(crate) version: u64,
    /// All seats, if the version isn't the one that was named.
    pub(crate) seats: Option<Vec<Arc<Seat>>>,
    pub(crate) map: Arc<ClusterMap>,
}

/// Sends pulses and looks after all replicas of the node, until it is aborted or `host` (asked for what changed since a
/// version) is gone.
pub(crate) async fn run(pulse: Arc<Pulse>, host: impl Fn(u64) -> Option<Now> + Send) {
    let mut rounds = Rounds {
        pulse: pulse.clone(),
        charges: BTreeMap::new(),
        looks: 0,
        seen: u64::MAX,
        to_speak: VecDeque::new(),
        out: BTreeMap::new(),
        balance: Balance::default(),
    };
    let mut version = 0;
    let mut looks = tokio::time::interval(pulse.raft.heartbeat / 2);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(now) = host(version) else { return };
        if let Some(seats) = now.seats {
            rounds.take_on(seats);
            version = now.version;
        }
        rounds.look(&now.map).await;
        let out = std::mem::take(&mut rounds.out);
        if rounds.looks.is_multiple_of(2) || !out.is_empty() {
            pulse.say(out);
        }
        rounds.looks += 1;
    }
}

impl Rounds {
    fn take_on(&mut self, seats: Vec<Arc<Seat>>) {
        let here: BTreeSet<ShardId> = seats.iter().map(|seat| seat.group.shard).collect();
        self.charges.retain(|shard, _| here.contains(shard));
        for seat in seats {
            let now = self.pulse.now();
            let known = self.charges.get(&seat.group.shard);
            if known.is_none_or(|charge| !Arc::ptr_eq(&charge.seat, &seat)) {
                let charge = Charge {
                    seat: seat.clone(),
                    watch: Watch::new(now),
                    asked: None,
                    marked: 0,
                };
                self.charges.insert(seat.group.shard, charge);
            }
        }
    }

    async fn look(&mut self, map: &ClusterMap) {
        let pulse = self.pulse.clone();
        let now = pulse.now();
        let changes = {
            let mut lives = pulse.lives.lock();
            for node in lives.look(now) {
                tracing::info!(node = node.0, "a node is lost");
            }
            metrics::peers_alive(lives.alive());
            lives.changes()
        };
        self.take_answers();
        self.welcome();
        self.speak_up();
        // A group that rests is looked at only if someone came or went, and now and then for its next start.
        let full = changes != self.seen || self.looks.is_multiple_of(FULL_LOOK);
        self.seen = changes;
        let wall = wall_ms();
        let (mut resting, mut stood) = (0_u64, 0);
        let shards: Vec<ShardId> = self.charges.keys().copied().collect();
        for shard in shards {
            let Some(charge) = self.charges.get_mut(&shard) else {
                continue;
            };
            let group = charge.seat.group.clone();
            if group.rest.is_resting() {
                if full && self.may_rest_on(&group, now, wall) {
                    resting += 1;
                    self.send_home(shard, true, now, wall, map);
                }
                continue;
            }
            match self.step(&group, shard, now, wall, map) {
                Some(Do::Stand) if stood < AT_ONCE => {
                    stood += 1;
                    stand(&group, pulse.raft.pre_vote).await;
                }
                Some(Do::Speak) => {
                    metrics::heartbeat();
                    // An error means that the group has stopped: `group` tells the host.
                    let _ = group.raft.trigger().heartbeat().await;
                }
                _ => {}
            }
        }
        if full {
            metrics::resting(resting);
        }
    }

    /// What one replica that is awake is to do; asking and resting is done here.
    fn step(&mut self, group: &Arc<Group>, shard: ShardId, now: u64, wall: u64, map: &ClusterMap) -> Option<Do> {
        let pulse = self.pulse.clone();
        let charge = self.charges.get_mut(&shard)?;
        let part = view::part(group, &pulse.lives.lock(), pulse.me, now, map);
        let o = &pulse.options;
        match part {
            Part::None => None,
            Part::Follows(follower) => charge.watch.follow(now, o, follower),
            Part::Leads(leader) => {
                let newest = group
                    .replica
                    .marks
                    .lock()
                    .newest()
                    .filter(|(index, _)| *index > charge.marked);
                if let Some((index, digest)) = newest {
                    charge.marked = index;
                    view::marks(group, index, &digest, &mut self.out);
                }
                if let Some((_, seen)) = charge.asked
                    && group.rest.stirs() != seen
                {
                    charge.asked = None;
                    charge.watch.stirred(now);
                }
                let seat = charge.seat.clone();
                match charge.watch.lead(now, o, leader, || pulse.is_still(&seat, wall)) {
                    Some(Do::Ask) => {
                        self.ask(group, shard, now);
                        None
                    }
                    None if self.looks.is_multiple_of(FULL_LOOK) => {
                        self.send_home(shard, leader.matched, now, wall, map);
                        None
                    }
                    Some(Do::Rest) => {
                        let (_, seen) = charge.asked.take()?;
                        if group.rest.rest(seen, pulse.wake_at(group)) {
                            tracing::debug!(shard = shard.0, "at rest");
                        }
                        None
                    }
                    other => other,
                }
            }
        }
    }

    fn ask(&mut self, group: &Arc<Group>, shard: ShardId, now: u64) {
        let pulse = self.pulse.clone();
        let Some(charge) = self.charges.get_mut(&shard) else {
            return;
        };
        let seen = group.rest.stirs();
        let digest = group.replica.state.read().digest();
        let (vote, last, followers) = view::question(group, &pulse.lives.lock(), pulse.me, now);
        charge.asked = Some((now, seen));
        charge
            .watch
            .asked(now, u32::try_from(followers.len()).unwrap_or(u32::MAX));
        for (replica, node) in followers {
            let ask = pb::RestAsk {
                group: shard.0,
                to: replica,
                vote: Some(wire::vote_to(&vote)),
                last: last.as_ref().map(wire::log_id_to),
                ask: now,
                digest: digest.to_vec().into(),
            };
            self.out.entry(node).or_default().0.push(ask);
        }
    }

    /// Gives a shard that is led here back to the node that should lead it, if now is a good moment.
    fn send_home(&mut self, shard: ShardId, matched: bool, now: u64, wall: u64, map: &ClusterMap) {
        let pulse = &self.pulse;
        let Some(charge) = self.charges.get(&shard) else { return };
        let Some(home) = map.preferred_leader(shard).filter(|node| *node != pulse.me) else {
            return;
        };
        let lives::Known::Alive { since } = pulse.lives.lock().known(now, home) else {
            return;
        };
        if !charge.seat.group.led().leading || !pulse.can_lead(home) {
            return;
        }
        let still = pulse.is_still(&charge.seat, wall);
        let stray = Stray {
            since,
            matched,
            term: charge.seat.group.led().term,
            live: (!still).then(|| view::until_timer(&charge.seat.group)),
        };
        if self.balance.may_go(now, &pulse.home, shard, stray) {
            metrics::sent_home();
            let seat = charge.seat.clone();
            tokio::spawn(async move { seat.hand_over(|node| node == home).await });
        }
    }

    fn take_answers(&mut self) {
        let answers = std::mem::take(&mut *self.pulse.answers.lock());
        for answer in answers {
            if let Some(charge) = self.charges.get_mut(&ShardId(answer.group)) {
                charge.watch.answered(answer.ask, answer.rests);
            }
        }
    }

    /// Nodes that came: every group here that leads a replica there must say so.
    fn welcome(&mut self) {
        let anew = std::mem::take(&mut *self.pulse.anew.lock());
        if anew.is_empty() {
            return;
        }
        for (shard, charge) in &self.charges {
            let group = &charge.seat.group;
            if group.led().leading && anew.iter().any(|node| view::has_replica_on(group, *node)) {
                self.to_speak.push_back(*shard);
            }
        }
    }

    fn speak_up(&mut self) {
        let some = self.to_speak.len().min(AT_ONCE);
        for shard in self.to_speak.drain(..some) {
            if let Some(charge) = self.charges.get(&shard) {
                self.pulse.speak(&charge.seat.group, "came");
            }
        }
    }

    /// Whether a group that rests may go on so; else it is woken.
    fn may_rest_on(&self, group: &Arc<Group>, now: u64, wall: u64) -> bool {
        let pulse = &self.pulse;
        if group.rest.overslept(wall) {
            let leader = group.led();
            pulse.speak(group, "start");
            if let Some(node) = leader.leader.filter(|_| !leader.leading) {
                group.rest.hear();
                let wake = vec![group.shard.0];
                pulse.peers.pulse(node, pb::NodePulse { wake, ..pulse.pulse() });
            }
            return false;
        }
        if view::is_orphan(group, &pulse.lives.lock(), pulse.me, now) {
            group.rest.stir();
            group.rest.unshield();
            metrics::woken("orphan");
            return false;
        }
        true
    }
}

async fn stand(group: &Group, pre_vote: bool) {
    metrics::stood();
    tracing::info!(shard = group.shard.0, "stands for election");
    // An error means that the group has stopped: `group` tells the host.
    let _ = group.raft.trigger().elect(pre_vote).await;
}
