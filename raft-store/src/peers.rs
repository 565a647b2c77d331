//! The wires to other nodes: one stream per peer and class, shared by all groups.
//!
//! ```text
//!   group 3 --call--.                                             .--> group 3
//!   group 9 --call---+--> link task --Requests{...}--> (tonic) ---+--> group 9
//!   group 4 --call--'        ^--------- Responses{...} <----------'
//! ```
//!
//! A link dials when there is something to say. While it is down its calls fail at once as unreachable, and openraft waits
//! its backoff: nothing is queued for a peer that isn't there. What waits for one stream is put into one message, so that
//! the heartbeats of all groups to one node cost about one frame. The log's link is let go when nothing was said on it for
//! `link_rest`: where all shards rest, a third of what the wires cost is keeping such connections alive.
//!
//! Pulses (`pulse`) go one way, on a stream of their own: what can't be sent is dropped, since only the newest counts. When
//! it ends it is dialled again at once, and soon again if that tells nothing: a process that is killed closes its sockets one
//! after another, and the first dial may still meet an end that is about to go. If nobody listens there, that is told.
//!
//! Every call has a deadline of its own; an answer that comes later is dropped.
//!
//! Deliberately absent: retries (openraft's), encryption (`dial`'s).

use crate::{dial::Dial, options::RaftOptions, snapshot::pace::Pace};
use parking_lot::{Mutex, RwLock};
use placement::NodeId;
use proto::raft::v1::{NodePulse, Request, Requests, Response, Responses, raft_client::RaftClient, request, response};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    io,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

/// Pulses that wait for one peer: more would be stale.
const PULSES_MAX: usize = 8;
/// First pause before a peer is dialled again; twice as long each time.
const REDIAL_MIN: Duration = Duration::from_millis(2);

/// What shares a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Class {
    /// Votes, heartbeats, hand-overs: small, and urgent.
    Control,
    /// The log.
    Append,
    /// Snapshots: one stream each, never a link.
    Snapshot,
}

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No way to the node, or none that works.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The node was asked, and said nothing in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The node doesn't serve this replica.
    #[error("refused: {0}")]
    Refused(String),
}

type Answer = Result<response::Body, CallError>;

struct Call {
    request: Request,
    answer: oneshot::Sender<Answer>,
}

/// A call that is on its way.
pub(crate) struct Calling {
    answer: oneshot::Receiver<Answer>,
    deadline: tokio::time::Instant,
    ttl: Duration,
}

impl Calling {
    /// Waits for the answer, until the deadline. Cancel-safe.
    pub(crate) async fn answer(&mut self) -> Answer {
        match tokio::time::timeout_at(self.deadline, &mut self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CallError::Unreachable("the link has ended".into())),
            Err(_) => Err(CallError::Late(self.ttl)),
        }
    }
}

/// All peers of this node.
pub(crate) struct Peers {
    options: RaftOptions,
    dial: Dial,
    /// Of all snapshots that this node sends.
    pub(crate) pace: Pace,
    addresses: RwLock<BTreeMap<NodeId, String>>,
    links: Mutex<BTreeMap<(NodeId, Class), mpsc::Sender<Call>>>,
    pulses: Mutex<BTreeMap<NodeId, mpsc::Sender<NodePulse>>>,
    channels: Mutex<HashMap<(NodeId, Class), (String, Channel)>>,
    /// Nodes at whose address nobody listens, since this was last taken.
    refused: Mutex<BTreeSet<NodeId>>,
    /// Nodes that are held for lost.
    gone: RwLock<BTreeSet<NodeId>>,
    news: Notify,
}

impl Peers {
    pub(crate) fn new(options: RaftOptions, dial: Dial) -> Peers {
        Peers {
            pace: Pace::new(options.snapshot_bytes_per_s),
            options,
            dial,
            addresses: RwLock::default(),
            links: Mutex::default(),
            pulses: Mutex::default(),
            channels: Mutex::default(),
            refused: Mutex::default(),
            gone: RwLock::default(),
            news: Notify::new(),
        }
    }

    pub(crate) fn options(&self) -> &RaftOptions {
        &self.options
    }

    /// Where nodes are, from now on.
    pub(crate) fn set_addresses(&self, addresses: impl IntoIterator<Item = (NodeId, String)>) {
        self.addresses.write().extend(addresses);
    }

    /// Sends a request; the answer comes through `Calling`.
    pub(crate) fn call(
        self: &std::sync::Arc<Self>,
        node: NodeId,
        class: Class,
        group: u32,
        to: u64,
        body: request::Body,
        ttl: Duration,
    ) -> Result<Calling, CallError> {
        let request = Request {
            call: 0,
            group,
            to,
            body: Some(body),
        };
        let (tx, rx) = oneshot::channel();
        let sent = self.link(node, class).try_send(Call { request, answer: tx });
        sent.map_err(|error| CallError::Unreachable(format!("the link's queue: {error}")))?;
        Ok(Calling {
            answer: rx,
            deadline: tokio::time::Instant::now() + ttl,
            ttl,
        })
    }

    /// Nodes at whose address nobody listened when they were dialled; each is told once for each dial.
    pub(crate) fn take_refused(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut *self.refused.lock())
    }

    /// These nodes are held for lost, and no others: by each look at who lives.
    pub(crate) fn lose(&self, nodes: BTreeSet<NodeId>) {
        if *self.gone.read() != nodes {
            *self.gone.write() = nodes;
        }
    }

    /// One of them speaks: no look is waited for.
    pub(crate) fn find(&self, node: NodeId) {
        self.gone.write().remove(&node);
    }

    /// Whether a node is held for lost.
    pub(crate) fn is_gone(&self, node: NodeId) -> bool {
        self.gone.read().contains(&node)
    }

    /// Told when there is more to take, or when `pulse` learnt something that can't wait for its next look.
    pub(crate) fn news(&self) -> &Notify {
        &self.news
    }

    /// All nodes that have an address.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.addresses.read().keys().copied().collect()
    }

    /// Sends a pulse. It is lost if there is no way: the next one says more.
    pub(crate) fn pulse(self: &std::sync::Arc<Self>, node: NodeId, pulse: NodePulse) {
        let mut pulses = self.pulses.lock();
        let link = pulses.entry(node).or_insert_with(|| {
            let (tx, rx) = mpsc::channel(PULSES_MAX);
            tokio::spawn(run_pulses(std::sync::Arc::downgrade(self), node, rx));
            tx
        });
        let _ = link.try_send(pulse);
    }

    fn link(self: &std::sync::Arc<Self>, node: NodeId, class: Class) -> mpsc::Sender<Call> {
        let mut links = self.links.lock();
        let link = links.entry((node, class)).or_insert_with(|| {
            let (tx, rx) = mpsc::channel(self.options.link_queue.max(1));
            // It holds `Peers` weakly: it ends when the host drops it.
            tokio::spawn(run_link(std::sync::Arc::downgrade(self), node, class, rx));
            tx
        });
        link.clone()
    }

    /// A channel to a node: dialled lazily, kept while the address stays.
    pub(crate) fn channel(&self, node: NodeId, class: Class) -> Result<Channel, CallError> {
        let address = self.addresses.read().get(&node).cloned();
        let address = address.ok_or_else(|| CallError::Unreachable(format!("node {} has no address", node.0)))?;
        let mut channels = self.channels.lock();
        if let Some((known, channel)) = channels.get(&(node, class))
            && *known == address
        {
            return Ok(channel.clone());
        }
        let endpoint = Channel::from_shared(format!("http://{address}"))
            .map_err(|error| CallError::Unreachable(error.to_string()))?
            .connect_timeout(self.options.rpc)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(1))
            .keep_alive_while_idle(true);
        let channel = self.dial.channel(node, &endpoint);
        channels.insert((node, class), (address, channel.clone()));
        Ok(channel)
    }

    async fn open(&self, node: NodeId, class: Class) -> Result<Stream, CallError> {
        let channel = self.channel(node, class)?;
        let unreachable = |error: Status| CallError::Unreachable(error.message().to_owned());
        let mut client = RaftClient::new(channel)
            .max_decoding_message_size(crate::server::MESSAGE_MAX)
            .max_encoding_message_size(crate::server::MESSAGE_MAX);
        let (tx, rx) = mpsc::channel(8);
        let requests = ReceiverStream::new(rx);
        let opened = async {
            match class {
                Class::Control => client.control(requests).await,
                Class::Append | Class::Snapshot => client.append(requests).await,
            }
        };
        match tokio::time::timeout(self.options.rpc, opened).await {
            Ok(response) => Ok(Stream {
                tx,
                rx: response.map_err(unreachable)?.into_inner(),
            }),
            Err(_) => Err(CallError::Unreachable("no connection in time".into())),
        }
    }
}

/// Carries pulses to one peer; dials again after a while when there is no way.
async fn run_pulses(peers: std::sync::Weak<Peers>, node: NodeId, mut pulses: mpsc::Receiver<NodePulse>) {
    let mut pause = REDIAL_MIN;
    loop {
        let Some(strong) = peers.upgrade() else { return };
        let pause_max = strong.options.heartbeat * 2;
        let channel = strong.channel(node, Class::Control);
        drop(strong);
        if let Ok(channel) = channel {
            let (tx, rx) = mpsc::channel(PULSES_MAX);
            let mut client = RaftClient::new(channel);
            let dialled = Instant::now();
            let mut said = std::pin::pin!(client.pulse(ReceiverStream::new(rx)));
            let over = loop {
                tokio::select! {
                    ended = &mut said => {
                        let why = ended.err();
                        tracing::debug!(node = node.0, ?why, "the pulse to a peer ended");
                        if why.is_some_and(|why| nobody_listens(&why))
                            && let Some(peers) = peers.upgrade()
                        {
                            peers.refused.lock().insert(node);
                            peers.news.notify_one();
                        }
                        break false;
                    }
                    pulse = pulses.recv() => match pulse {
                        // A way that is stuck loses pulses, as one that is down does.
                        Some(pulse) => drop(tx.try_send(pulse)),
                        None => break true,
                    },
                }
            };
            if over {
                return;
            }
            // One that was up is dialled again at once: a machine whose process has ended says so.
            if dialled.elapsed() >= pause_max {
                pause = REDIAL_MIN;
                continue;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(pause_max);
        // What was said meanwhile is stale.
        while pulses.try_recv().is_ok() {}
    }
}

/// Whether a call failed because its machine answered that no process has that address.
fn nobody_listens(status: &Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(status);
    while let Some(error) = cause {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

struct Stream {
    tx: mpsc::Sender<Requests>,
    rx: Streaming<Responses>,
}

/// Calls that were sent and have no answer yet.
#[derive(Default)]
struct Waiting {
    next: u64,
    calls: HashMap<u64, oneshot::Sender<Answer>>,
}

/// Above so many, those whose caller has gone are thrown out.
const WAITING_SWEEP: usize = 4096;

impl Waiting {
    fn take(&mut self, call: Call) -> Request {
        if self.calls.len() >= WAITING_SWEEP {
            self.calls.retain(|_, answer| !answer.is_closed());
        }
        self.next += 1;
        self.calls.insert(self.next, call.answer);
        Request {
            call: self.next,
            ..call.request
        }
    }

    fn give(&mut self, response: Response) {
        // Nobody waits for what came too late.
        if let Some(answer) = self.calls.remove(&response.call) {
            let _ = answer.send(match response.body {
                Some(response::Body::Refused(why)) => Err(CallError::Refused(why)),
                Some(body) => Ok(body),
                None => Err(CallError::Refused("an answer without content".into())),
            });
        }
    }

    fn fail(&mut self, error: &CallError) {
        for (_, answer) in self.calls.drain() {
            let _ = answer.send(Err(error.clone()));
        }
    }
}

async fn run_link(peers: std::sync::Weak<Peers>, node: NodeId, class: Class, mut calls: mpsc::Receiver<Call>) {
    while let Some(first) = calls.recv().await {
        let Some(strong) = peers.upgrade() else { return };
        let opened = strong.open(node, class).await;
        let link_rest = strong.options.link_rest;
        drop(strong);
        let mut waiting = Waiting::default();
        let first = waiting.take(first);
        // Pulses go on the control link's connection: it is always wanted.
        let rests = (class == Class::Append).then_some(link_rest);
        let error = match opened {
            Ok(stream) => match talk(stream, first, &mut calls, &mut waiting, rests).await {
                Some(error) => {
                    tracing::debug!(node = node.0, ?class, %error, "the stream to a peer ended");
                    error
                }
                None => {
                    if let Some(peers) = peers.upgrade() {
                        peers.channels.lock().remove(&(node, class));
                    }
                    continue;
                }
            },
            Err(error) => error,
        };
        waiting.fail(&error);
        // What was queued meanwhile was meant for a peer that isn't there.
        while let Ok(call) = calls.try_recv() {
            let _ = call.answer.send(Err(error.clone()));
        }
    }
}

/// Nobody waits for the end of it.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// Most calls in one message.
const FRAME_CALLS: usize = 64;

/// Carries calls and answers until the stream ends; tells why it did. None: nothing was said for as long as it `rests` after.
async fn talk(
    mut stream: Stream,
    first: Request,
    calls: &mut mpsc::Receiver<Call>,
    waiting: &mut Waiting,
    rests: Option<Duration>,
) -> Option<CallError> {
    let ended = |what: &str| Some(CallError::Unreachable(what.to_owned()));
    if stream.tx.send(Requests { requests: vec![first] }).await.is_err() {
        return ended("the stream ended");
    }
    let (mut looks, mut said) = (tokio::time::interval(rests.unwrap_or(FOREVER)), false);
    looks.reset();
    loop {
        let next = async {
            // Room first: a call leaves the queue only when it can be sent.
            let room = stream.tx.reserve().await.ok()?;
            let call = calls.recv().await?;
            Some((room, call))
        };
        tokio::select! {
            next = next => {
                let Some((room, call)) = next else { return ended("the stream ended") };
                let mut requests = vec![waiting.take(call)];
                // Other groups that are about to speak go with it: one frame, one write.
                tokio::task::yield_now().await;
                while requests.len() < FRAME_CALLS && let Ok(call) = calls.try_recv() {
                    requests.push(waiting.take(call));
                }
                room.send(Requests { requests });
                said = true;
            }
            _ = looks.tick() => if !std::mem::take(&mut said) && rests.is_some() {
                return None;
            },
            answers = stream.rx.message() => match answers {
                Ok(Some(answers)) => answers.responses.into_iter().for_each(|response| waiting.give(response)),
                Ok(None) => return ended("the peer closed the stream"),
                Err(status) => return ended(status.message()),
            },
        }
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
