//! The rounds of a node's pulse: one task that looks at every replica here, and does what is due.
//!
//! ```text
//!   look: who was lost | answers to our questions | who came back: speak | each replica: watch --> heartbeat, question,
//!                                                                             rest, stand for election, go home
//!   a peer's process has ended: a look at once
//!   every second look, or each of a calm node: a pulse to every other node, with the questions for it
//! ```
//!
//! A replica that rests costs the look of one flag; it is looked at fully when somebody came or went, and once a second
//! for its next start. While *all* of them rest the node is calm: its pulses come at half their pace and nothing else is looked
//! at; after three that say so, and while all peers say the same, at a tenth. Whatever wakes a replica ends the calm and is
//! told to the peers at once, who then speak up too.
//!
//! Deliberately absent: what a pulse means when it arrives (`pulse`), and every decision.

use super::{
    Out, Pulse,
    balance::{Balance, Stray},
    lives, view,
    view::Part,
    watch::{Do, Watch},
};
use crate::{
    clock::proposer::ProposerHandle, group::Group, host::Seat, metrics, options::RaftOptions, types::Vote, wire,
};
use openraft::{async_runtime::watch::WatchReceiver, raft::TransferLeaderRequest};
use placement::{ClusterMap, NodeId, ShardId};
use proto::raft::v1 as pb;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Between two full looks at groups that rest, although nobody came or went; ms.
const FULL_LOOK: u64 = 1_000;
/// How many times slower a node's pulse is that has just become calm: its peers hear several times that it will speak less.
const CALM_FIRST: u32 = 2;
/// Pulses of that kind.
const CALM_LOOKS: u32 = 3;
/// How many times slower a calm node's pulse is then. It says so, and is waited for.
const CALM_PACES: u32 = 10;
/// Between two tries to give a shard away whose clock stood too much, ms: long, since the next leader's may stand as well.
const STRAINED_AGAIN: u64 = 60_000;

/// Between two pulses of a node that has been calm for a while.
pub(crate) fn calm_pause(raft: &RaftOptions) -> Duration {
    raft.heartbeat * CALM_PACES
}

/// A replica under watch.
struct Charge {
    seat: Arc<Seat>,
    watch: Watch,
    /// The `stirs` that the question of this moment saw.
    asked: Option<(u64, u64)>,
    /// Index of the newest mark that was told to the followers.
    marked: u64,
    /// When this node last tried to give the shard away because its clock stood.
    gave: Option<u64>,
    /// The vote at which it was last seen to follow.
    follows: Option<Vote>,
}

/// The task's own memory.
struct Rounds {
    pulse: Arc<Pulse>,
    charges: BTreeMap<ShardId, Charge>,
    /// The last full look, and the last pulse, in ms.
    looked: u64,
    spoke: u64,
    /// This look is a full one.
    full: bool,
    /// Everything rests, and nobody waits for a word.
    calm: bool,
    /// Looks since it became calm.
    calm_looks: u32,
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
        looked: 0,
        spoke: 0,
        full: true,
        calm: false,
        calm_looks: 0,
        seen: u64::MAX,
        to_speak: VecDeque::new(),
        out: BTreeMap::new(),
        balance: Balance::default(),
    };
    let mut version = 0;
    let mut woken = pulse.woken.subscribe();
    let mut stirred = *woken.borrow();
    let heartbeat = pulse.raft.heartbeat;
    loop {
        let slow = rounds.calm && rounds.calm_looks >= CALM_LOOKS && pulse.lives.lock().all_rest();
        let pace = match (slow, rounds.calm) {
            (true, _) => calm_pause(&pulse.raft),
            (false, true) => heartbeat * CALM_FIRST,
            (false, false) => heartbeat / 2,
        };
        tokio::select! {
            () = tokio::time::sleep(pace) => {}
            () = pulse.peers.news().notified() => {}
            _ = woken.changed(), if rounds.calm => {}
        }
        for node in pulse.peers.take_refused() {
            pulse.refused(node);
        }
        let Some(now) = host(version) else { return };
        if let Some(seats) = now.seats {
            rounds.take_on(seats);
            version = now.version;
        }
        // Noted before the look: who is woken meanwhile is looked at again.
        let stirs = *pulse.woken.borrow();
        rounds.calm &= stirs == stirred;
        stirred = stirs;
        let paused = if slow { rounds.pause() } else { 0 };
        rounds.look(&now.map, paused).await;
        rounds.speak();
    }
}

impl Rounds {
    fn take_on(&mut self, seats: Vec<Arc<Seat>>) {
        let here: BTreeSet<ShardId> = seats.iter().map(|seat| seat.group.shard).collect();
        self.charges.retain(|shard, _| here.contains(shard));
        self.calm = false;
        for seat in seats {
            let now = self.pulse.now();
            let known = self.charges.get(&seat.group.shard);
            if known.is_none_or(|charge| !Arc::ptr_eq(&charge.seat, &seat)) {
                let charge = Charge {
                    seat: seat.clone(),
                    watch: Watch::new(now),
                    asked: None,
                    marked: 0,
                    gave: None,
                    follows: None,
                };
                self.charges.insert(seat.group.shard, charge);
            }
        }
    }

    /// Between two pulses of a node that has been calm for a while, ms.
    fn pause(&self) -> u64 {
        self.pulse.options.pace * u64::from(CALM_PACES)
    }

    /// Who is lost, at this moment; gives how often anybody's state has changed.
    fn count(&self, now: u64, paused: u64) -> u64 {
        let pulse = &self.pulse;
        let mut lives = pulse.lives.lock();
        for node in lives.look(now, paused, !self.calm) {
            tracing::info!(node = node.0, "a node is lost");
        }
        // One that was never heard, too.
        let gone = |node: &NodeId| matches!(lives.known(now, *node), lives::Known::Lost { .. });
        let others = pulse.peers.nodes().into_iter().filter(|node| *node != pulse.me);
        pulse.peers.lose(others.filter(gone).collect());
        metrics::peers_alive(lives.alive());
        lives.changes()
    }

    async fn look(&mut self, map: &ClusterMap, paused: u64) {
        let pulse = self.pulse.clone();
        let now = pulse.now();
        let changes = self.count(now, paused);
        self.take_answers();
        self.welcome();
        self.speak_up();
        // A group that rests is looked at only if someone came or went, and now and then for its next start.
        self.full = changes != self.seen || now >= self.looked + FULL_LOOK;
        self.seen = changes;
        if self.full {
            self.looked = now;
        } else if self.calm {
            return;
        }
        pulse.fleet.look(now);
        let wall = pulse.fleet.wall().ms;
        if self.full {
            self.give_up(now);
        }
        let (mut resting, mut stood, mut calm) = (0_u64, 0, true);
        let shards: Vec<ShardId> = self.charges.keys().copied().collect();
        for shard in shards {
            let Some(charge) = self.charges.get_mut(&shard) else {
                continue;
            };
            let group = charge.seat.group.clone();
            if group.rest.is_resting() {
                if self.full && self.may_rest_on(&group, now, wall) {
                    resting += 1;
                    self.send_home(shard, true, now, wall, map);
                }
                continue;
            }
            calm = false;
            if group.falls_mute() {
                self.hand_on(shard);
            }
            match self.step(&group, shard, now, wall, map) {
                Some(Do::Stand) if stood < at_once(&pulse) => {
                    stood += 1;
                    #[cfg(feature = "sim")]
                    crate::sim::stands(pulse.me.0, shard.0);
                    stand(&group, pulse.raft.pre_vote).await;
                }
                Some(Do::Inherit) if stood < at_once(&pulse) => {
                    stood += 1;
                    if let Some(vote) = self.charges.get(&shard).and_then(|charge| charge.follows) {
                        inherit(&group, vote).await;
                    }
                }
                Some(Do::Speak) => {
                    metrics::heartbeat();
                    // An error means that the group has stopped: `group` tells the host.
                    let _ = group.raft.trigger().heartbeat().await;
                }
                _ => {}
            }
        }
        if self.full {
            metrics::resting(resting);
        }
        self.calm = calm && self.to_speak.is_empty();
    }

    /// A pulse to every other node, when it is time or when there is something for one of them.
    fn speak(&mut self) {
        let (now, pace) = (self.pulse.now(), self.pulse.options.pace);
        let out = std::mem::take(&mut self.out);
        self.calm_looks = if self.calm {
            self.calm_looks.saturating_add(1)
        } else {
            0
        };
        self.pulse.rests(self.calm.then_some(self.pause()));
        // A look that comes a little early is on time.
        if self.calm || !out.is_empty() || now + pace / 4 >= self.spoke + pace {
            self.spoke = now;
            self.pulse.say(out);
        }
    }

    /// What one replica that is awake is to do; asking and resting is done here.
    fn step(&mut self, group: &Arc<Group>, shard: ShardId, now: u64, wall: u64, map: &ClusterMap) -> Option<Do> {
        let pulse = self.pulse.clone();
        let charge = self.charges.get_mut(&shard)?;
        let me = view::Me {
            node: pulse.me,
            fit: pulse.is_fit(),
        };
        let part = view::part(group, &pulse.lives.lock(), me, now, map);
        let o = &pulse.options;
        match part {
            Part::None => None,
            Part::Follows(follower, vote) => {
                charge.follows = Some(vote);
                charge.watch.follow(now, o, follower)
            }
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
                    None if self.full => {
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

    /// Gives away the leaderships of shards whose clock stood too much here; see `clock::Options`. What is wrong with the
    /// whole node is `host::care`'s business.
    fn give_up(&mut self, now: u64) {
        for charge in self.charges.values_mut() {
            let strained = charge.seat.proposer.as_ref().is_some_and(ProposerHandle::is_strained);
            let waits = charge.gave.is_some_and(|at| now < at + STRAINED_AGAIN);
            if !strained || waits || !charge.seat.group.led().leading {
                continue;
            }
            charge.gave = Some(now);
            tracing::info!(
                shard = charge.seat.group.shard.0,
                "its clock stands too much here: it goes elsewhere"
            );
            let (seat, pulse) = (charge.seat.clone(), self.pulse.clone());
            tokio::spawn(async move {
                if seat.hand_over(None, |node| pulse.can_lead(node)).await.is_ok() {
                    metrics::given_up();
                }
            });
        }
    }

    /// Names another leader, since the one that was named hasn't come: a fit one, else one that lives.
    fn hand_on(&self, shard: ShardId) {
        let Some(charge) = self.charges.get(&shard) else { return };
        tracing::info!(shard = shard.0, "whoever was to lead it didn't come: another is asked");
        let (seat, pulse) = (charge.seat.clone(), self.pulse.clone());
        tokio::spawn(async move {
            let any_fit = seat.group.has_voter(|node| pulse.can_lead(node));
            let fit = |node| {
                if any_fit {
                    pulse.can_lead(node)
                } else {
                    pulse.lives(node)
                }
            };
            seat.hand_over(None, fit).await
        });
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
            tokio::spawn(async move { seat.hand_over(None, |node| node == home).await });
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
        let some = self.to_speak.len().min(self.pulse.raft.at_once);
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
                let wake = vec![group.shard.0];
                pulse.send(node, pb::NodePulse { wake, ..pulse.pulse() });
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

/// Most elections at one look.
fn at_once(pulse: &Pulse) -> usize {
    #[cfg(feature = "sim")]
    if crate::sim::planted(crate::sim::Plant::StandTogether) {
        return usize::MAX;
    }
    pulse.raft.at_once
}

async fn stand(group: &Group, pre_vote: bool) {
    metrics::stood();
    tracing::info!(shard = group.shard.0, "stands for election");
    // An error means that the group has stopped: `group` tells the host.
    let _ = group.raft.trigger().elect(pre_vote).await;
}

/// Stands as if the leader had handed over: its process has ended, so nobody need wait until its lease has. `vote` is that
/// of the look which judged: who has a newer leader meanwhile isn't that one's heir, and a vote read now would unseat it.
async fn inherit(group: &Group, vote: Vote) {
    metrics::stood();
    let last = group.raft.data_metrics().borrow_watched().last_log;
    tracing::info!(shard = group.shard.0, "inherits from a leader that has ended");
    // An error means that the group has stopped, or that there is a newer leader.
    let _ = group
        .raft
        .handle_transfer_leader(TransferLeaderRequest::new(vote, group.id, last))
        .await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::{
        Host, Options,
        types::{LogEntry, LogId, LogPayload, TypeConfig},
    };
    use openraft::{RaftState, raft::AppendEntriesRequest};
    use placement::Node;

    /// A node whose peers aren't there, and that looks at nothing by itself: who stands is asked to.
    async fn alone(dir: &std::path::Path) -> Host {
        let founder = |id| Node {
            id: NodeId(id),
            zone: format!("zone-{id}"),
            region: "here".into(),
            weight: 1,
            grpc: format!("127.0.0.1:{id}"),
            http: String::new(),
            trunk: String::new(),
        };
        let options = Options {
            node: NodeId(1),
            dir: dir.to_path_buf(),
            shards: 1,
            founders: (1..=3).map(founder).collect(),
            raft: RaftOptions {
                heartbeat: Duration::from_secs(3_600),
                ..RaftOptions::default()
            },
            ..Options::default()
        };
        Host::open(options).await.unwrap()
    }

    /// Another replica leads in `term`, and its entry is here.
    async fn follow(group: &Group, term: u64) -> Vote {
        let vote = Vote::new_committed(term, group.id + 1);
        let last = |state: &RaftState<_>| state.log_ids.last().copied();
        let prev_log_id = group.raft.with_raft_state(last).await.unwrap();
        let log_id = LogId {
            leader_id: *vote.leader_id(),
            index: prev_log_id.map_or(0, |id| id.index + 1),
        };
        let request = AppendEntriesRequest {
            vote,
            prev_log_id,
            entries: vec![LogEntry {
                log_id,
                payload: LogPayload::Blank,
            }],
            leader_commit: None,
        };
        let taken = group.raft.append_entries(request).await.unwrap();
        assert!(taken.is_success(), "{taken}");
        vote
    }

    /// The term once everything that was asked of the group before has been done.
    async fn term(group: &Group) -> u64 {
        let term = |state: &RaftState<TypeConfig>| state.vote_ref().leader_id.term;
        group.raft.with_raft_state(term).await.unwrap()
    }

    /// Nobody stands as the heir of a leader that has a successor: that one would be unseated at once.
    #[tokio::test]
    async fn an_heir_of_an_older_leader_unseats_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let host = alone(dir.path()).await;
        let group = host.group(ShardId(0)).unwrap();
        let older = follow(&group, 5).await;
        let newer = follow(&group, 6).await;
        inherit(&group, older).await;
        assert_eq!(term(&group).await, 6, "a newer leader was unseated");
        inherit(&group, newer).await;
        assert_eq!(term(&group).await, 7, "an heir stands");
        host.halt().await;
    }
}
