//! openraft's way to another replica, over `peers`.
//!
//! Appends are pipelined: up to `append_window` requests are on their way at once, and answers come in the order of the
//! requests, since one stream carries them and the follower's `stream_append` answers in order. One such run is a
//! *session*; its number tells the follower that a new run begins, so that stragglers of an older one are not mixed in.
//!
//! openraft says every commit at once, in a request without entries. Under load the next entry is a moment behind and says it
//! too: so word of a commit alone waits `COMMIT_REST` for company, and is dropped when company comes. That is half of all
//! requests, answers, and turns of the group on three nodes.
//!
//! A snapshot goes on a stream of its own, piece by piece from its file, at the node's pace (`snapshot::pace`). The peer is
//! asked first how much of the same snapshot it has, so a transfer that broke off goes on where it was.
//!
//! Whatever goes wrong on the way is `Unreachable`: openraft then waits its backoff. In particular a pre-vote that can't be
//! asked is not granted.
//!
//! Deliberately absent: the frames (`wire`), the streams (`peers`).

use crate::{
    codec::BadWire,
    cold::ColdStore,
    metrics,
    peers::{CallError, Calling, Class, Peers},
    rest::{Log, Rest},
    snapshot::Stored,
    state_machine::blocking,
    types::{Home, SnapshotData, SnapshotMeta, TypeConfig, Vote},
    wire,
};
use futures_util::{
    Stream, StreamExt,
    future::{Either, select},
    stream,
};
use openraft::{
    OptionalSend, RaftNetworkFactory,
    base::{BoxFuture, BoxStream},
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::SnapshotOf,
};
use placement::NodeId;
use proto::raft::v1::{self as pb, raft_client::RaftClient, request, response};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

/// How long word of a commit waits for an entry to go with. A follower's feed is as much later where nothing follows.
const COMMIT_REST: Duration = Duration::from_millis(2);

/// Makes the ways from one group to its other replicas.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
    pub(crate) group: u32,
    /// A group that says anything is awake.
    pub(crate) rest: Arc<Rest>,
    /// What snapshots leave out.
    pub(crate) cold: Arc<ColdStore>,
}

impl Network {
    fn way(&self, target: u64, home: &Home, class: Class) -> Way {
        Way {
            peers: self.peers.clone(),
            group: self.group,
            rest: self.rest.clone(),
            cold: self.cold.clone(),
            target,
            node: home.node(),
            class,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, node: &Home) -> Way {
        self.way(target, node, Class::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Home) -> Way {
        self.way(target, node, Class::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Home) -> Way {
        self.way(target, node, Class::Snapshot)
    }
}

/// The way to one replica.
pub(crate) struct Way {
    peers: Arc<Peers>,
    group: u32,
    rest: Arc<Rest>,
    cold: Arc<ColdStore>,
    target: u64,
    node: NodeId,
    class: Class,
}

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

fn unreachable(error: impl ToString) -> Unreachable<TypeConfig> {
    Unreachable::from_string(error)
}

fn bad(error: BadWire) -> RPCError<TypeConfig> {
    unreachable(error).into()
}

fn odd() -> RPCError<TypeConfig> {
    unreachable("an answer to another question").into()
}

impl From<CallError> for RPCError<TypeConfig> {
    fn from(error: CallError) -> Self {
        unreachable(error).into()
    }
}

/// Numbers of append sessions, over all groups.
static SESSION: AtomicU64 = AtomicU64::new(1);

impl Way {
    /// A group that says anything is awake; but what is said to a node that is held for lost nobody hears. openraft says it
    /// again and again where a replica there lacks an entry: the shard would never rest until that machine is back.
    fn stir(&self) {
        if !self.peers.is_gone(self.node) {
            self.rest.stir();
        }
    }

    fn start(&self, class: Class, body: request::Body, ttl: Duration) -> Result<Calling, CallError> {
        self.stir();
        self.peers.call(self.node, class, self.group, self.target, body, ttl)
    }

    async fn control(&self, body: request::Body) -> Result<response::Body, CallError> {
        self.start(Class::Control, body, self.peers.options().rpc)?
            .answer()
            .await
    }

    /// What a refused vote says of our log.
    fn learn(&self, asked: &VoteRequest<TypeConfig>, response: &VoteResponse<TypeConfig>) {
        if response.vote_granted {
            return;
        }
        if response.last_log_id > asked.last_log_id {
            self.rest.found(Log::Shorter);
        } else if response.last_log_id < asked.last_log_id && response.vote.leader_id.term >= asked.vote.leader_id.term
        {
            // It isn't a leader's lease that stands against us, but a vote that can't win.
            self.rest.found(Log::Longer);
            self.peers.news().notify_one();
        }
    }

    /// Sends what the peer hasn't got yet, and waits until it is installed there.
    async fn send_snapshot(&self, vote: Vote, meta: &SnapshotMeta, stored: Arc<Stored>) -> Result<Vote, CallError> {
        self.stir();
        let patience = self.peers.options().snapshot_rpc;
        let mut client = RaftClient::new(self.peers.channel(self.node, Class::Snapshot)?);
        let head = pb::SnapshotHead {
            group: self.group,
            to: self.target,
            vote: Some(wire::vote_to(&vote)),
            meta: Some(wire::snapshot_meta_to(meta, &stored.cold)),
            size: stored.size,
            crc32c: stored.crc32c,
            cold_bytes: self.cold.bytes(),
        };
        let here = timeout(patience, client.snapshot_have(head.clone())).await;
        let here = here
            .map_err(|_| CallError::Late(patience))?
            .map_err(failed)?
            .into_inner();
        let have = here.have;
        if have > 0 {
            metrics::snapshot_resumed();
            tracing::info!(
                group = self.group,
                have,
                of = stored.size,
                "a snapshot goes on where it was"
            );
        }
        let (pieces, stream) = mpsc::channel(1);
        let answer = std::pin::pin!(client.snapshot(ReceiverStream::new(stream)));
        let fed = std::pin::pin!(self.feed(head, stored, here, pieces));
        let reply = match select(answer, fed).await {
            Either::Left((reply, _)) => reply,
            Either::Right((fed, answer)) => {
                fed?;
                timeout(patience, answer).await.map_err(|_| CallError::Late(patience))?
            }
        };
        let reply = reply.map_err(failed)?.into_inner();
        wire::vote_from(reply.vote).map_err(|error| CallError::Refused(error.to_string()))
    }

    /// Reads piece by piece, in turn with all other transfers of this node.
    async fn feed(
        &self,
        head: pb::SnapshotHead,
        stored: Arc<Stored>,
        here: pb::SnapshotHere,
        pieces: mpsc::Sender<pb::SnapshotChunk>,
    ) -> Result<(), CallError> {
        use pb::snapshot_chunk::Part;
        let (patience, len) = (self.peers.options().snapshot_rpc, self.peers.options().snapshot_piece);
        let pieces = &pieces;
        let say = |part| async move {
            let said = pieces
                .send_timeout(pb::SnapshotChunk { part: Some(part) }, patience)
                .await;
            said.map_err(|_| CallError::Unreachable("the snapshot is taken in no further".into()))
        };
        let (size, mut at) = (head.size, here.have);
        say(Part::Head(head)).await?;
        for number in here.cold..stored.cold.count {
            let store = self.cold.clone();
            let record = blocking(move || store.record(number)).await.map_err(unread)?;
            let (mut from, size) = (0, record.len() as u64);
            while from < size {
                let data = record.slice(from as usize..record.len().min(from as usize + len));
                self.peers.pace.take(data.len()).await;
                metrics::snapshot_sent(data.len());
                let piece = pb::ColdPiece {
                    number,
                    size,
                    at: from,
                    crc32c: crc32c::crc32c(&data),
                    data,
                };
                from += piece.data.len() as u64;
                say(Part::Cold(piece)).await?;
            }
        }
        while at < size {
            let file = stored.clone();
            let read = blocking(move || file.piece(at, len)).await;
            let data = read.map_err(unread)?;
            self.peers.pace.take(data.len()).await;
            metrics::snapshot_sent(data.len());
            let piece = pb::SnapshotPiece {
                at,
                crc32c: crc32c::crc32c(&data),
                data,
            };
            at += piece.data.len() as u64;
            say(Part::Piece(piece)).await?;
        }
        Ok(())
    }
}

fn unread(error: std::io::Error) -> CallError {
    CallError::Refused(format!("reading the snapshot: {error}"))
}

fn failed(status: tonic::Status) -> CallError {
    CallError::Unreachable(format!("{}: {}", status.code(), status.message()))
}

impl RaftNetworkV2<TypeConfig> for Way {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let body = request::Body::Append(wire::append_to(&rpc, 0));
        let answer = self.start(self.class, body, self.peers.options().rpc)?.answer().await?;
        let response::Body::Append(appended) = answer else {
            return Err(odd());
        };
        Ok(match wire::appended_from(appended).map_err(bad)? {
            Ok(matched) if matched == last => AppendEntriesResponse::Success,
            Ok(matched) => AppendEntriesResponse::PartialSuccess(matched),
            Err(error) => AppendEntriesResponse::from(Err(error)),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.class == Class::Control {
            // A heartbeat: one question, one answer.
            return openraft::network::stream_append_sequential(self, input, option);
        }
        let pipeline = Pipeline {
            session: SESSION.fetch_add(1, Ordering::Relaxed),
            way: self,
            input: Some(input),
            flying: VecDeque::new(),
            resting: Resting::default(),
        };
        let answers = stream::unfold(Some(pipeline), |pipeline| async move {
            let mut pipeline = pipeline?;
            let answer = pipeline.next().await?;
            // After an error, or a conflict, openraft begins a new session.
            let goes_on = matches!(answer, Ok(Ok(_)));
            Some((answer, goes_on.then_some(pipeline)))
        });
        let answers: BoxStream<'s, _> = answers.boxed();
        Box::pin(async move { Ok(answers) })
    }

    async fn vote(&mut self, rpc: VoteRequest<TypeConfig>, _option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        match self.control(request::Body::Vote(wire::vote_request_to(&rpc))).await? {
            response::Body::Vote(response) => {
                let response = wire::vote_response_from(response).map_err(bad)?;
                self.learn(&rpc, &response);
                Ok(response)
            }
            _ => Err(odd()),
        }
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<TypeConfig>, _option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        match self
            .control(request::Body::PreVote(wire::vote_request_to(&rpc)))
            .await?
        {
            response::Body::PreVote(response) => wire::vote_response_from(response).map_err(bad),
            _ => Err(odd()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sent = self.send_snapshot(vote, &snapshot.meta, snapshot.snapshot.0);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sent => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => {
                    metrics::snapshot_broken();
                    tracing::info!(group = self.group, node = self.node.0, %error, "a snapshot wasn't sent whole");
                    Err(StreamingError::Unreachable(unreachable(error)))
                }
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        match self.control(request::Body::Transfer(wire::transfer_to(&req))).await? {
            response::Body::Transfer(response) => wire::transferred_from(response).map_err(bad),
            _ => Err(odd()),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let options = self.peers.options();
        // A snapshot that the other side has no room for isn't offered thirty times a second.
        let pause = match self.class {
            Class::Snapshot => options.snapshot_backoff,
            Class::Control | Class::Append => options.backoff,
        };
        Some(Backoff::new(std::iter::repeat(pause)))
    }
}

/// One run of pipelined appends.
struct Pipeline<'s, S> {
    way: &'s Way,
    session: u64,
    /// `None`: there are no more requests.
    input: Option<S>,
    flying: VecDeque<Calling>,
    resting: Resting,
}

/// Word of a commit alone, and when it goes if no entry comes that says it too.
#[derive(Default)]
struct Resting(Option<(AppendEntriesRequest<TypeConfig>, Instant)>);

impl Resting {
    /// A request came: it is given back if it is to be sent now.
    fn take_in(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        now: Instant,
    ) -> Option<AppendEntriesRequest<TypeConfig>> {
        if !request.entries.is_empty() {
            // It knows of every commit that rested.
            self.0 = None;
            return Some(request);
        }
        // Newer word waits no longer than the word that it replaces.
        let until = self.until().unwrap_or(now + COMMIT_REST);
        self.0 = Some((request, until));
        None
    }

    fn until(&self) -> Option<Instant> {
        self.0.as_ref().map(|(_, until)| *until)
    }

    fn leave(&mut self) -> Option<AppendEntriesRequest<TypeConfig>> {
        self.0.take().map(|(request, _)| request)
    }
}

impl<S> Pipeline<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    /// The next answer, in order; sends what is to be sent meanwhile.
    async fn next(&mut self) -> Option<Rpc<StreamAppendResult<TypeConfig>>> {
        loop {
            let Pipeline {
                way,
                input,
                flying,
                resting,
                ..
            } = self;
            let more = input.is_some();
            let room = flying.len() < way.peers.options().append_window;
            let until = resting.until();
            let go = tokio::select! {
                biased;
                Some(answer) = answered(flying) => {
                    flying.pop_front();
                    return Some(read(answer));
                }
                request = asked(input), if room && more => match request {
                    Some(request) => resting.take_in(request, Instant::now()),
                    None => {
                        self.input = None;
                        self.resting.leave()
                    }
                },
                () = sleep_until(until), if until.is_some() => resting.leave(),
                else => return None,
            };
            if let Some(Err(error)) = go.map(|request| self.send(&request)) {
                return Some(Err(error.into()));
            }
        }
    }

    fn send(&mut self, request: &AppendEntriesRequest<TypeConfig>) -> Result<(), CallError> {
        let body = request::Body::Append(wire::append_to(request, self.session));
        let calling = self
            .way
            .start(Class::Append, body, self.way.peers.options().append_rpc)?;
        self.flying.push_back(calling);
        Ok(())
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// The answer to the oldest request; `None` at once if there is none.
async fn answered(flying: &mut VecDeque<Calling>) -> Option<Result<response::Body, CallError>> {
    Some(flying.front_mut()?.answer().await)
}

async fn asked<S: Stream + Unpin>(input: &mut Option<S>) -> Option<S::Item> {
    input.as_mut()?.next().await
}

fn read(answer: Result<response::Body, CallError>) -> Rpc<StreamAppendResult<TypeConfig>> {
    match answer? {
        response::Body::Append(appended) => wire::appended_from(appended).map_err(bad),
        _ => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::options::RaftOptions;
    use crate::peers::fake;
    use crate::types::{LeaderId, LogEntry, LogId, LogPayload};
    use openraft::vote::RaftLeaderId as _;

    /// The ways of group 1.
    fn network(peers: Arc<Peers>) -> Network {
        let woken = tokio::sync::watch::Sender::new(0);
        Network {
            peers,
            group: 1,
            rest: Arc::new(Rest::new(Instant::now(), woken)),
            cold: Arc::new(ColdStore::none()),
        }
    }

    /// What comes is sent at once, rests, or is dropped for what says more.
    #[test]
    fn word_of_a_commit_waits_for_company() {
        let leader_id = LeaderId::new(1, 1);
        let id = |index| LogId { leader_id, index };
        let request = |commit, entry: Option<u64>| AppendEntriesRequest::<TypeConfig> {
            vote: Vote {
                leader_id,
                committed: true,
            },
            prev_log_id: None,
            entries: Vec::from_iter(entry.map(|index| LogEntry {
                log_id: id(index),
                payload: LogPayload::Blank,
            })),
            leader_commit: Some(id(commit)),
        };
        let commit = |request: AppendEntriesRequest<TypeConfig>| request.leader_commit.map(|id| id.index);
        let (mut resting, began) = (Resting::default(), Instant::now());
        let ms = |ms| began + Duration::from_millis(ms);
        assert_eq!(resting.take_in(request(1, Some(1)), began).and_then(commit), Some(1));
        assert_eq!(resting.until(), None, "entries wait for nothing");
        assert!(resting.take_in(request(2, None), began).is_none());
        assert!(resting.take_in(request(3, None), ms(1)).is_none());
        assert_eq!(
            resting.until(),
            Some(began + COMMIT_REST),
            "newer word goes when the older would have"
        );
        assert_eq!(resting.leave().and_then(commit), Some(3));
        assert_eq!(resting.until(), None);
        assert!(resting.take_in(request(4, None), ms(5)).is_none());
        assert_eq!(resting.take_in(request(5, Some(2)), ms(6)).and_then(commit), Some(5));
        assert!(resting.leave().is_none(), "what rested was said by what came");
    }

    /// openraft's default grants a pre-vote that nobody was asked for: a node that is cut off would then stand again and
    /// again, and unseat a good leader when it comes back.
    #[tokio::test]
    async fn what_cannot_be_asked_is_not_granted() {
        let peers = Arc::new(Peers::new(RaftOptions::default(), crate::Dial::default()));
        // A port that was ours a moment ago: nobody listens there.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        peers.set_addresses([(NodeId(2), free.to_string())]);
        let mut network = network(peers);
        let option = || RPCOption::new(Duration::from_millis(50));
        let request = || VoteRequest::new(Vote::new(2, 1), None);
        for node in [2, 3] {
            let mut way = network.new_client(5, &Home(node)).await;
            let pre_vote = way.pre_vote(request(), option()).await;
            assert!(
                matches!(pre_vote, Err(RPCError::Unreachable(_))),
                "node {node}: {pre_vote:?}"
            );
            let vote = way.vote(request(), option()).await;
            assert!(matches!(vote, Err(RPCError::Unreachable(_))), "node {node}: {vote:?}");
        }
    }

    /// An append of one entry.
    fn append(index: u64) -> AppendEntriesRequest<TypeConfig> {
        let leader_id = LeaderId::new(1, 1);
        let entry = LogEntry {
            log_id: LogId { leader_id, index },
            payload: LogPayload::Blank,
        };
        AppendEntriesRequest {
            vote: Vote {
                leader_id,
                committed: true,
            },
            prev_log_id: None,
            entries: vec![entry],
            leader_commit: None,
        }
    }

    /// All up to its entry matches.
    fn matched(asked: &pb::Request) -> pb::Response {
        let Some(request::Body::Append(append)) = asked.body.clone() else {
            panic!("no append: {asked:?}")
        };
        let last = append.entries.last().and_then(|entry| entry.log_id);
        let result = Ok(last.map(|id| wire::log_id_from(id).unwrap()));
        pb::Response {
            call: asked.call,
            body: Some(response::Body::Append(wire::appended_to(&result))),
        }
    }

    /// So many appends to a follower that says nothing until it has as many as may be on their way: how many calls each frame
    /// carries to it. It then answers the newest first, and openraft is told in order all the same.
    async fn check(window: usize, appends: u64, sizes: &[usize]) {
        let what = format!("{appends} appends, a window of {window}");
        let options = RaftOptions {
            append_window: window,
            ..fake::patient()
        };
        let peers = Arc::new(Peers::new(options, crate::Dial::default()));
        let mut frames = fake::listen(&peers, NodeId(2)).await;
        let mut way = network(peers).new_client(5, &Home(2)).await;
        let follower = async {
            let (mut seen, mut flying, mut left) = (Vec::new(), Vec::new(), appends as usize);
            while left > 0 {
                let frame = frames.next().await;
                seen.push(frame.requests.len());
                flying.extend(frame.requests.iter().map(matched));
                if flying.len() >= window.min(left) {
                    left -= flying.len();
                    frame.answer(flying.drain(..).rev().collect());
                }
            }
            seen
        };
        let leader = async {
            let input = stream::iter((1..=appends).map(append));
            let answers = way.stream_append(input, RPCOption::new(fake::PATIENCE)).await.unwrap();
            let index = |answer: Rpc<StreamAppendResult<TypeConfig>>| answer.unwrap().unwrap().unwrap().index;
            answers.map(index).collect::<Vec<u64>>().await
        };
        let (seen, told) = tokio::join!(follower, leader);
        assert_eq!(seen, sizes, "{what}");
        assert_eq!(told, Vec::from_iter(1..=appends), "{what}");
    }

    #[tokio::test]
    async fn appends_to_a_slow_follower_fly_together_and_are_answered_in_order() {
        // What opens the link goes alone.
        check(1, 3, &[1, 1, 1]).await;
        check(2, 3, &[1, 1, 1]).await;
        check(4, 4, &[1, 3]).await;
        check(4, 5, &[1, 3, 1]).await;
        check(4, 10, &[1, 3, 4, 2]).await;
        check(32, 10, &[1, 9]).await;
    }
}
