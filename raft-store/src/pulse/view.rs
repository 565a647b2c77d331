//! A replica as it is now, in the words of `watch`: read from openraft's metrics, the membership and who lives.
//!
//! Deliberately absent: decisions, and anything that waits.

use super::{
    lives::{Known, Lives},
    watch::{Follower, Leader},
};
use crate::{
    group::Group,
    rest::Log,
    types::{LogId, Vote},
};
use openraft::{Instant as _, ServerState, async_runtime::watch::WatchReceiver};
use placement::{ClusterMap, NodeId};
use proto::raft::v1 as pb;

/// What a replica is to the watch.
pub(super) enum Part {
    /// It leads and can act.
    Leads(Leader),
    /// It has a vote and follows, or stands; at this vote.
    Follows(Follower, Vote),
    /// Neither: no members yet, no vote, or not yet in command.
    None,
}

fn is_lost(lives: &Lives, now: u64, node: NodeId) -> bool {
    matches!(lives.known(now, node), Known::Lost { .. })
}

/// This node.
#[derive(Clone, Copy)]
pub(super) struct Me {
    pub(super) node: NodeId,
    /// Nothing speaks against its leading.
    pub(super) fit: bool,
}

pub(super) fn part(group: &Group, lives: &Lives, me: Me, now: u64, map: &ClusterMap) -> Part {
    // Looked at and let go: a second look while one is held would wait for a change that waits for the first.
    let state = group.raft.server_metrics().borrow_watched().state;
    match state {
        ServerState::Leader => leader(group, lives, now),
        ServerState::Follower | ServerState::Candidate => follower(group, lives, me, now, map),
        _ => Part::None,
    }
}

fn follower(group: &Group, lives: &Lives, me: Me, now: u64, map: &ClusterMap) -> Part {
    let server = group.raft.server_metrics();
    let server = server.borrow_watched();
    let members = &server.membership_config;
    if !members.voter_ids().any(|id| id == group.id) {
        return Part::None;
    }
    let led_by = server.current_leader.filter(|id| *id != group.id);
    let leader = led_by.and_then(|id| members.get_node(&id)).map(|home| home.node());
    let node_of = |id| members.get_node(&id).map(|home| home.node());
    let order = map.replicas_of(group.shard);
    // Who is fit before who isn't, then the map's order; who isn't in it comes after, by number.
    let place = |node: NodeId| {
        let at = order.iter().position(|(n, _)| *n == node);
        let unfit = if node == me.node { !me.fit } else { lives.is_unfit(node) };
        (unfit, at.unwrap_or(usize::MAX), node)
    };
    let before = |node: &NodeId| Some(*node) != leader && place(*node) < place(me.node);
    let able = |node: &NodeId| !is_lost(lives, now, *node) && !lives.leaves(*node);
    let log = group.rest.log();
    let voters = members.voter_ids().filter_map(node_of);
    let rank = match log {
        Log::Longer => 0,
        Log::Unknown => voters.filter(before).filter(able).count(),
        // After everyone.
        Log::Shorter => voters.count(),
    };
    let follower = Follower {
        heard: group.rest.heard(),
        leader: leader.map(|node| lives.known(now, node)),
        rank: rank as u64,
        longer: log == Log::Longer,
        dice: rand::random(),
    };
    Part::Follows(follower, server.vote)
}

fn leader(group: &Group, lives: &Lives, now: u64) -> Part {
    let data = group.raft.data_metrics();
    let data = data.borrow_watched();
    let server = group.raft.server_metrics();
    let server = server.borrow_watched();
    let members = &server.membership_config;
    let (mut acked, mut matched) = (Some(u64::MAX), data.last_applied == data.last_log);
    for (id, home) in members.nodes() {
        if *id == group.id || is_lost(lives, now, home.node()) {
            continue;
        }
        let seen = data.heartbeat.as_ref().and_then(|acked| *acked.get(id)?);
        acked = acked
            .zip(seen)
            .map(|(least, at)| least.min(group.rest.ago(at.elapsed())));
        matched &= data.replication.as_ref().and_then(|m| m.get(id).copied()?) == data.last_log;
    }
    // Between two configurations there is something to do.
    matched &= members.log_id() == server.committed_membership_config.log_id();
    matched &= members.membership().get_joint_config().len() == 1;
    Part::Leads(Leader {
        last: data.last_log.map_or(0, |id| id.index),
        acked: acked.map(|at| at.min(now)),
        matched,
    })
}

/// What a leader asks, and whom: the replicas on living nodes.
pub(super) fn question(
    group: &Group,
    lives: &Lives,
    me: NodeId,
    now: u64,
) -> (Vote, Option<LogId>, Vec<(u64, NodeId)>) {
    let server = group.raft.server_metrics();
    let server = server.borrow_watched();
    let followers = server.membership_config.nodes().map(|(id, home)| (*id, home.node()));
    let living = followers.filter(|(_, node)| *node != me && !is_lost(lives, now, *node));
    let living = living.collect();
    let last = group.raft.data_metrics().borrow_watched().last_log;
    (server.vote, last, living)
}

/// Whether a replica follows the leader of `vote` at `from`, has applied all up to `last`, has nothing beyond it, and no
/// timer.
pub(super) fn is_at(group: &Group, from: NodeId, vote: &Vote, last: Option<LogId>) -> bool {
    let server = group.raft.server_metrics();
    let data = group.raft.data_metrics();
    let follows = {
        let server = server.borrow_watched();
        matches!(server.state, ServerState::Follower | ServerState::Learner) && server.vote == *vote && vote.committed
    };
    let at = {
        let data = data.borrow_watched();
        data.last_log == last && data.last_applied == last
    };
    follows && at && group.led().leader == Some(from) && !group.replica.state.read().shard.has_timers()
}

/// Whether a replica that is where its leader is has the leader's state; if not, it stops.
pub(super) fn agrees(group: &Group, ask: &pb::RestAsk) -> bool {
    let index = ask.last.as_ref().map_or(0, |last| last.index);
    let own = {
        let state = group.replica.state.read();
        (state.applied == index).then(|| state.digest())
    };
    let Some(own) = own else { return false };
    // Both are taken now: the one must be noted before the other is compared with it.
    let marked = group.replica.marks.lock().mark(index, own);
    marked.is_ok() && group.compare(index, &ask.digest)
}

/// A leader's mark, for each follower.
pub(super) fn marks(group: &Group, index: u64, digest: &[u8], out: &mut super::Out) {
    let server = group.raft.server_metrics();
    let server = server.borrow_watched();
    for (id, home) in server.membership_config.nodes().filter(|(id, _)| **id != group.id) {
        let mark = pb::Mark {
            group: group.shard.0,
            to: *id,
            index,
            digest: digest.to_vec().into(),
        };
        out.entry(home.node()).or_default().1.push(mark);
    }
}

/// How long until the next timer of a shard comes due, on its own clock; 0 if there is none but something is to do.
pub(super) fn until_timer(group: &Group) -> u64 {
    let state = group.replica.state.read();
    let due = state.shard.next_deadline();
    due.map_or(0, |due| due.since(state.shard.top()))
}

/// Whether a group has a replica on a node.
pub(super) fn has_replica_on(group: &Group, node: NodeId) -> bool {
    let server = group.raft.server_metrics();
    let server = server.borrow_watched();
    server.membership_config.nodes().any(|(_, home)| home.node() == node)
}

/// Whether a replica that rests has lost its leader: the node is gone, or lives another life than when it was heard.
pub(super) fn is_orphan(group: &Group, lives: &Lives, me: NodeId, now: u64) -> bool {
    match group.led().leader {
        Some(node) if node == me => false,
        Some(node) => match lives.known(now, node) {
            Known::Alive { since } => since > group.rest.heard(),
            Known::Unknown | Known::Lost { .. } => true,
        },
        None => true,
    }
}
