//! The other end of `peers`: takes what other nodes' replicas say to ours.
//!
//! ```text
//!   Control stream --> each request in a task of its own, bounded ----------.
//!   Append stream  --> per group and session, in order, to stream_append ---+--> answers, gathered into messages
//!   Snapshot       --> taken in piece by piece, checked, then installed (`arrive`)
//!   Pulse stream   --> one after the other, to `pulse`
//! ```
//!
//! Whatever is asked of a replica wakes it. A vote is refused in its name while its leader's node lives and it rested:
//! see `pulse`.
//!
//! A request names the replica that it is for. A node that holds another replica of that group (a newer one, say, after
//! its disk was replaced) refuses: a vote given under an id that isn't ours could count twice.
//!
//! Where the listener says which node speaks (`dial::Speaker`), a replica's word is taken from the node that holds it and from
//! no other: a node can't vote, append or pulse as another.
//!
//! Deliberately absent: who may connect (the listener's business, in `node`).

mod arrive;

use crate::{
    dial::Speaker, group::Group, pulse::Pulse, rest::Log, state_machine::StateMachine, types::TypeConfig, wire,
};
use futures_util::{StreamExt, stream::BoxStream};
use openraft::{
    Raft as OpenRaft,
    raft::{StreamAppendError, StreamAppendResult},
};
use parking_lot::{Mutex, RwLock};
use placement::{NodeId, ShardId};
use proto::raft::v1::{self as pb, raft_server::Raft, request, response};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Longest message between nodes. An append is bounded by `append_bytes_max`, or is one entry.
pub(crate) const MESSAGE_MAX: usize = 64 * 1024 * 1024;
/// Control requests of one stream that are worked on at once.
const CONTROL_MAX: usize = 256;
/// Answers that wait for one stream.
const ANSWERS_MAX: usize = 1024;
/// Appends of one session that wait for their group.
const SESSION_MAX: usize = 64;
/// Most answers in one message.
const FRAME_ANSWERS: usize = 64;

/// A group's openraft handle.
pub(crate) type Handle = OpenRaft<TypeConfig, StateMachine>;

/// The groups of this node, as its server finds them.
#[derive(Clone, Default)]
pub(crate) struct Groups {
    open: Arc<RwLock<HashMap<u32, Arc<Group>>>>,
    closed: CancellationToken,
    arrivals: Arc<arrive::Arrivals>,
}

impl Groups {
    /// Ends all streams of peers, and takes no new ones.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        self.open.write().clear();
    }

    pub(crate) fn insert(&self, group: Arc<Group>) {
        self.open.write().insert(group.shard.0, group);
    }

    /// A replica that moved away answers no one any more.
    pub(crate) fn remove(&self, group: u32) {
        self.open.write().remove(&group);
    }

    /// Whatever replica of a group is here.
    pub(crate) fn of(&self, group: u32) -> Option<Arc<Group>> {
        self.open.read().get(&group).cloned()
    }

    /// Whether `speaker` may speak for the replica whose vote this is. A replica that neither its group nor the map knows
    /// (both may be behind) is believed: whoever speaks is a node of this cluster at least.
    fn allow(&self, speaker: Option<Speaker>, group: &Group, vote: Option<&pb::Vote>) -> Result<(), String> {
        let (Some(Speaker(node)), Some(vote)) = (speaker, vote) else {
            return Ok(());
        };
        let replica = vote.leader.as_ref().map_or(0, |leader| leader.replica);
        let home = group.home_of(replica).or_else(|| self.home_by_map(group, replica));
        match home {
            Some(home) if home != node => {
                tracing::warn!(
                    shard = group.shard.0,
                    replica,
                    node = node.0,
                    of = home.0,
                    "a node spoke as another"
                );
                Err(format!(
                    "[not_yours] replica {replica} of shard {} is node {}'s, and node {} speaks",
                    group.shard.0, home.0, node.0
                ))
            }
            _ => Ok(()),
        }
    }

    fn home_by_map(&self, group: &Group, replica: u64) -> Option<NodeId> {
        let map = self.of(ShardId::META.0)?.replica.map.borrow().clone()?;
        let seats = map.replicas_of(group.shard).iter();
        seats.clone().find(|(_, id)| id.0 == replica).map(|(node, _)| *node)
    }

    /// The replica that is meant.
    pub(crate) fn find(&self, group: u32, replica: u64) -> Result<Arc<Group>, String> {
        match self.of(group) {
            Some(here) if here.id == replica => Ok(here),
            Some(here) => Err(format!("group {group}: replica {} is here, not {replica}", here.id)),
            None => Err(format!("group {group} is not here")),
        }
    }
}

/// The service that `node` mounts.
#[derive(Clone)]
pub struct RaftService {
    pub(crate) groups: Groups,
    pub(crate) pulse: Arc<Pulse>,
}

type Answers = mpsc::Sender<pb::Response>;

#[tonic::async_trait]
impl Raft for RaftService {
    type ControlStream = BoxStream<'static, Result<pb::Responses, Status>>;
    type AppendStream = BoxStream<'static, Result<pb::Responses, Status>>;

    async fn control(
        &self,
        requests: Request<Streaming<pb::Requests>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (answers, out) = answers();
        let speaker = speaker(&requests);
        let work = control(self.clone(), speaker, requests.into_inner(), answers);
        tokio::spawn(self.groups.closed.clone().run_until_cancelled_owned(work));
        Ok(Response::new(out))
    }

    async fn append(&self, requests: Request<Streaming<pb::Requests>>) -> Result<Response<Self::AppendStream>, Status> {
        let (answers, out) = answers();
        let speaker = speaker(&requests);
        let work = append(self.groups.clone(), speaker, requests.into_inner(), answers);
        tokio::spawn(self.groups.closed.clone().run_until_cancelled_owned(work));
        Ok(Response::new(out))
    }

    async fn snapshot(
        &self,
        chunks: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        let speaker = speaker(&chunks);
        let work = arrive::install(&self.groups, speaker, chunks.into_inner());
        // What is here by then stays: after a restart the transfer goes on from it.
        let done = self.groups.closed.run_until_cancelled(work).await;
        let vote = done.unwrap_or_else(|| Err(Status::unavailable("this node stops")))?;
        Ok(Response::new(vote))
    }

    async fn snapshot_have(&self, head: Request<pb::SnapshotHead>) -> Result<Response<pb::SnapshotHere>, Status> {
        let speaker = speaker(&head);
        let here = arrive::have(&self.groups, speaker, &head.into_inner()).await?;
        Ok(Response::new(here))
    }

    async fn pulse(&self, pulses: Request<Streaming<pb::NodePulse>>) -> Result<Response<pb::PulseEnd>, Status> {
        let speaker = speaker(&pulses);
        let mut pulses = pulses.into_inner();
        let work = async {
            let mut way: Option<Way> = None;
            while let Some(pulse) = pulses.message().await? {
                let node = NodeId(pulse.node);
                if speaker.is_some_and(|Speaker(node)| node.0 != pulse.node) {
                    return Err(Status::permission_denied("[not_yours] the pulse of another node"));
                }
                self.pulse.take(pulse);
                if way.as_ref().is_none_or(|way| way.1 != node) {
                    self.pulse.way(node);
                    way = Some(Way(&self.pulse, node));
                }
            }
            Ok(Response::new(pb::PulseEnd {}))
        };
        let done = self.groups.closed.run_until_cancelled(work).await;
        done.unwrap_or_else(|| Err(Status::unavailable("this node stops")))
    }
}

/// A way by which a peer's pulses come, until it is dropped.
struct Way<'a>(&'a Pulse, NodeId);

impl Drop for Way<'_> {
    fn drop(&mut self) {
        self.0.way_ended(self.1);
    }
}

fn speaker<T>(request: &Request<T>) -> Option<Speaker> {
    request.extensions().get::<Speaker>().copied()
}

fn answers() -> (Answers, BoxStream<'static, Result<pb::Responses, Status>>) {
    let (tx, rx) = mpsc::channel(ANSWERS_MAX);
    let out = ReceiverStream::new(rx).ready_chunks(FRAME_ANSWERS);
    (tx, out.map(|responses| Ok(pb::Responses { responses })).boxed())
}

async fn control(
    service: RaftService,
    speaker: Option<Speaker>,
    mut requests: Streaming<pb::Requests>,
    answers: Answers,
) {
    let working = Arc::new(Semaphore::new(CONTROL_MAX));
    while let Ok(Some(message)) = requests.message().await {
        for request in message.requests {
            let Ok(permit) = working.clone().acquire_owned().await else {
                return;
            };
            let (service, answers) = (service.clone(), answers.clone());
            tokio::spawn(async move {
                let call = request.call;
                let body = serve(&service, speaker, request)
                    .await
                    .unwrap_or_else(response::Body::Refused);
                // The peer has gone: so has its question.
                let _ = answers.send(pb::Response { call, body: Some(body) }).await;
                drop(permit);
            });
        }
    }
}

async fn serve(
    service: &RaftService,
    speaker: Option<Speaker>,
    request: pb::Request,
) -> Result<response::Body, String> {
    let group = service.groups.find(request.group, request.to)?;
    service.groups.allow(speaker, &group, vote_of(request.body.as_ref()))?;
    let raft = &group.raft;
    guard(service, &group, request.body.as_ref())?;
    Ok(match request.body.ok_or("a request without content")? {
        request::Body::Vote(vote) => {
            let vote = wire::vote_request_from(vote).map_err(|bad| bad.to_string())?;
            let last = vote.last_log_id;
            let response = raft.vote(vote).await.map_err(|error| error.to_string())?;
            if response.vote_granted {
                group.rest.hear();
            } else if last < response.last_log_id {
                // Who asks can't win; we can.
                group.rest.found(Log::Longer);
                service.pulse.look_now();
            }
            response::Body::Vote(wire::vote_response_to(&response))
        }
        request::Body::PreVote(vote) => {
            let vote = wire::vote_request_from(vote).map_err(|bad| bad.to_string())?;
            let response = raft.pre_vote(vote).await.map_err(|error| error.to_string())?;
            response::Body::PreVote(wire::vote_response_to(&response))
        }
        request::Body::Append(append) => {
            let append = wire::append_from(append).map_err(|bad| bad.to_string())?;
            let prev = append.prev_log_id;
            let last = append.entries.last().map(|entry| entry.log_id).or(prev);
            let response = raft.append_entries(append).await.map_err(|error| error.to_string())?;
            if prev.is_none() && response.is_conflict() {
                return Err("a conflict before the first entry".into());
            }
            let result = response.into_stream_result(prev, last);
            hear(&group, &result);
            response::Body::Append(wire::appended_to(&result))
        }
        request::Body::Transfer(transfer) => {
            let transfer = wire::transfer_from(transfer).map_err(|bad| bad.to_string())?;
            let response = raft
                .handle_transfer_leader(transfer)
                .await
                .map_err(|error| error.to_string())?;
            response::Body::Transfer(wire::transferred_to(&response))
        }
    })
}

/// In whose name a request speaks.
fn vote_of(body: Option<&request::Body>) -> Option<&pb::Vote> {
    match body? {
        request::Body::Vote(vote) | request::Body::PreVote(vote) => vote.vote.as_ref(),
        request::Body::Append(append) => append.vote.as_ref(),
        request::Body::Transfer(transfer) => transfer.from_leader.as_ref(),
    }
}

/// Wakes the group, or refuses in its name.
fn guard(service: &RaftService, group: &Arc<Group>, body: Option<&request::Body>) -> Result<(), String> {
    match body {
        Some(request::Body::Vote(vote) | request::Body::PreVote(vote)) if !vote.leadership_transfer => {
            if service.pulse.protects(group) {
                return Err("the leader lives".into());
            }
        }
        // Before openraft is asked: a replica that is about to stop must not take over.
        Some(request::Body::Transfer(transfer)) if transfer.to == group.id && service.pulse.is_leaving() => {
            return Err("this node is about to stop".into());
        }
        Some(request::Body::Transfer(transfer)) if transfer.to == group.id && !service.pulse.is_fit() => {
            return Err("this node had better not lead now".into());
        }
        // A leader speaks, or another stands by its wish.
        _ => {
            group.rest.stir_led();
        }
    }
    Ok(())
}

/// A leader's word was accepted, unless the replica knows a newer one.
fn hear(group: &Group, result: &StreamAppendResult<TypeConfig>) {
    if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
        group.rest.hear();
    }
}

/// One run of appends to one group.
struct Session {
    number: u64,
    requests: mpsc::Sender<(u64, pb::AppendRequest)>,
    group: Arc<Group>,
    /// In whose name it speaks: looked at when that changes.
    vote: Option<pb::Vote>,
}

async fn append(groups: Groups, speaker: Option<Speaker>, mut requests: Streaming<pb::Requests>, answers: Answers) {
    let mut sessions: HashMap<u32, Session> = HashMap::new();
    while let Ok(Some(message)) = requests.message().await {
        for request in message.requests {
            let (call, group) = (request.call, request.group);
            if let Err(why) = pass_on(&groups, speaker, &mut sessions, request, &answers).await
                && answers
                    .send(pb::Response {
                        call,
                        body: Some(response::Body::Refused(why)),
                    })
                    .await
                    .is_err()
            {
                tracing::debug!(group, "the peer's append stream has ended");
                return;
            }
        }
    }
}

async fn pass_on(
    groups: &Groups,
    speaker: Option<Speaker>,
    sessions: &mut HashMap<u32, Session>,
    request: pb::Request,
    answers: &Answers,
) -> Result<(), String> {
    let Some(request::Body::Append(append)) = request.body else {
        return Err("not an append".into());
    };
    let known = sessions
        .get(&request.group)
        .is_some_and(|session| session.number == append.session && session.vote == append.vote);
    if !known {
        let group = groups.find(request.group, request.to)?;
        groups.allow(speaker, &group, append.vote.as_ref())?;
        let (tx, rx) = mpsc::channel(SESSION_MAX);
        // Replacing the old session closes its channel: it ends when it has answered what it took.
        sessions.insert(
            request.group,
            Session {
                number: append.session,
                requests: tx,
                group: group.clone(),
                vote: append.vote,
            },
        );
        tokio::spawn(run_session(group, rx, answers.clone()));
    }
    match sessions.get(&request.group) {
        Some(session) => {
            session.group.rest.stir_led();
            let sent = session.requests.send((request.call, append)).await;
            sent.map_err(|_| "the session has ended".into())
        }
        None => Err("the session has ended".into()),
    }
}

async fn run_session(group: Arc<Group>, requests: mpsc::Receiver<(u64, pb::AppendRequest)>, answers: Answers) {
    let calls: Arc<Mutex<VecDeque<u64>>> = Arc::default();
    let input = ReceiverStream::new(requests).map({
        let calls = calls.clone();
        move |(call, append)| {
            calls.lock().push_back(call);
            wire::append_from(append)
        }
    });
    // A request that can't be read ends the run: what follows it must not be applied over the gap.
    let input = input
        .take_while(|request| std::future::ready(request.is_ok()))
        .filter_map(|r| std::future::ready(r.ok()));
    let mut results = std::pin::pin!(group.raft.stream_append(input));
    while let Some(result) = results.next().await {
        let Some(call) = calls.lock().pop_front() else { break };
        let body = match result {
            Ok(result) => {
                hear(&group, &result);
                response::Body::Append(wire::appended_to(&result))
            }
            Err(fatal) => response::Body::Refused(fatal.to_string()),
        };
        if answers.send(pb::Response { call, body: Some(body) }).await.is_err() {
            return;
        }
    }
    let left: Vec<u64> = calls.lock().drain(..).collect();
    for call in left {
        let body = Some(response::Body::Refused("the run of appends has ended".into()));
        if answers.send(pb::Response { call, body }).await.is_err() {
            return;
        }
    }
}
