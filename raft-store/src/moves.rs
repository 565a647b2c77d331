//! What nodes say to each other about moves: looks, work, and maps to store.
//!
//! ```text
//!   mover (meta's leader) --Look--> every node:   open replicas, groups that it leads
//!                         --Do----> a leader:     one change of its group
//!   an operator's node    --Store-> meta's leader: a map, by compare-and-set
//! ```
//!
//! `Here` is this node's own answer to all three, so that the mover asks itself and others in the same words.
//!
//! Deliberately absent: trust. Who may connect is the listener's business, and nothing here acts without a majority.

use crate::{
    codec::{BadWire, Wire},
    membership::Led,
    peers::{CallError, Class, Peers},
    types::{LeaderId, LogId},
};
use futures_util::future::{BoxFuture, join_all};
use openraft::vote::RaftLeaderId;
use placement::{ClusterMap, GroupFacts, NodeId, ReplicaId, ShardId, Work};
use proto::cluster::v1::{self as pb, do_request::Work as PbWork, moves_client::MovesClient, moves_server::Moves};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tonic::{Request, Response, Status};

/// Longest map between nodes.
const MAP_MAX: usize = 16 * 1024 * 1024;
/// A node that doesn't answer a look within this doesn't answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// Work waits for a majority.
const WORK_PATIENCE: Duration = Duration::from_secs(8);

/// One node's answer to a look.
#[derive(Default)]
pub(crate) struct Looked {
    pub(crate) version: u64,
    pub(crate) seats: BTreeMap<ShardId, ReplicaId>,
    pub(crate) led: BTreeMap<ShardId, Led>,
    /// The newest cluster version that the node's build knows.
    pub(crate) newest: u32,
    pub(crate) build: String,
    /// Term and index of the newest log entry of each open replica.
    pub(crate) tails: BTreeMap<ShardId, (u64, u64)>,
    /// Replicas whose logs lie there closed, and their tails: they answer nobody, and may have what no open one has.
    pub(crate) closed: BTreeMap<ShardId, (ReplicaId, (u64, u64))>,
}

/// Why a map wasn't stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotStored {
    /// This node doesn't lead shard 0; perhaps that one does.
    NotLeader(Option<NodeId>),
    /// Another change came first.
    Stale,
    /// It may be stored, or may not.
    Unknown(String),
}

/// This node, asked about its replicas.
pub(crate) trait Here: Send + Sync + 'static {
    fn look(&self) -> Looked;
    fn work(&self, shard: ShardId, work: Work, seen: Option<LogId>) -> BoxFuture<'static, Result<(), String>>;
    fn store(&self, expected: u64, map: ClusterMap) -> BoxFuture<'static, Result<(), NotStored>>;
}

/// This node and the others, asked alike.
#[derive(Clone)]
pub(crate) struct Crew {
    pub(crate) me: NodeId,
    pub(crate) here: Arc<dyn Here>,
    pub(crate) peers: Arc<Peers>,
}

impl Crew {
    fn client(&self, node: NodeId) -> Result<MovesClient<tonic::transport::Channel>, CallError> {
        let channel = self.peers.channel(node, Class::Control)?;
        Ok(MovesClient::new(channel)
            .max_decoding_message_size(MAP_MAX)
            .max_encoding_message_size(MAP_MAX))
    }

    pub(crate) async fn look(&self, node: NodeId) -> Option<Looked> {
        if node == self.me {
            return Some(self.here.look());
        }
        let mut client = self.client(node).ok()?;
        let answer = client.look(Request::new(pb::LookRequest {}));
        let answer = tokio::time::timeout(LOOK_PATIENCE, answer).await.ok()?.ok()?;
        looked_from(node, answer.into_inner()).ok()
    }

    /// Looks at all of them at once: what each says, or that it doesn't answer.
    pub(crate) async fn looks(&self, nodes: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, Option<Looked>> {
        join_all(nodes.map(|node| async move { (node, self.look(node).await) }))
            .await
            .into_iter()
            .collect()
    }

    pub(crate) async fn work(
        &self,
        node: NodeId,
        shard: ShardId,
        work: Work,
        seen: Option<LogId>,
    ) -> Result<(), String> {
        if node == self.me {
            return self.here.work(shard, work, seen).await;
        }
        let mut client = self.client(node).map_err(|error| error.to_string())?;
        let answer = client.r#do(Request::new(work_to(shard, work, seen)));
        let answer = tokio::time::timeout(WORK_PATIENCE, answer).await;
        let answer = answer
            .map_err(|_| "no answer in time")?
            .map_err(|status| status.message().to_owned())?;
        match answer.into_inner().refused {
            refused if refused.is_empty() => Ok(()),
            refused => Err(refused),
        }
    }

    pub(crate) async fn store(&self, node: NodeId, expected: u64, map: ClusterMap) -> Result<(), NotStored> {
        if node == self.me {
            return self.here.store(expected, map).await;
        }
        let mut client = self.client(node).map_err(|_| NotStored::NotLeader(None))?;
        let map = Some(map.to_proto());
        let answer = client.store(Request::new(pb::StoreRequest { expected, map }));
        let answer = tokio::time::timeout(WORK_PATIENCE, answer).await;
        let answer = answer.map_err(|_| NotStored::Unknown("no answer in time".into()))?;
        let answer = answer
            .map_err(|status| NotStored::Unknown(status.message().to_owned()))?
            .into_inner();
        match answer {
            pb::StoreReply { stored: true, .. } => Ok(()),
            pb::StoreReply { refused, .. } if !refused.is_empty() => Err(NotStored::Unknown(refused)),
            pb::StoreReply {
                leader: Some(leader), ..
            } if leader > 0 => Err(NotStored::NotLeader(Some(NodeId(leader)))),
            pb::StoreReply { leader: Some(_), .. } => Err(NotStored::NotLeader(None)),
            pb::StoreReply { leader: None, .. } => Err(NotStored::Stale),
        }
    }
}

/// The service that `node` mounts.
#[derive(Clone)]
pub struct MovesService {
    pub(crate) here: Arc<dyn Here>,
}

#[tonic::async_trait]
impl Moves for MovesService {
    async fn look(&self, _: Request<pb::LookRequest>) -> Result<Response<pb::LookReply>, Status> {
        Ok(Response::new(looked_to(&self.here.look())))
    }

    async fn r#do(&self, request: Request<pb::DoRequest>) -> Result<Response<pb::DoReply>, Status> {
        let bad = |bad: BadWire| Status::invalid_argument(bad.to_string());
        let (shard, work, seen) = work_from(request.into_inner()).map_err(bad)?;
        let done = self.here.work(shard, work, seen).await;
        Ok(Response::new(pb::DoReply {
            refused: done.err().unwrap_or_default(),
        }))
    }

    async fn store(&self, request: Request<pb::StoreRequest>) -> Result<Response<pb::StoreReply>, Status> {
        let request = request.into_inner();
        let map = request.map.ok_or_else(|| Status::invalid_argument("no map"))?;
        let map = ClusterMap::from_proto(map).map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        let reply = match self.here.store(request.expected, map).await {
            Ok(()) => pb::StoreReply {
                stored: true,
                ..pb::StoreReply::default()
            },
            Err(NotStored::NotLeader(hint)) => pb::StoreReply {
                leader: Some(hint.map_or(0, |node| node.0)),
                ..pb::StoreReply::default()
            },
            Err(NotStored::Stale) => pb::StoreReply::default(),
            Err(NotStored::Unknown(refused)) => pb::StoreReply {
                refused,
                ..pb::StoreReply::default()
            },
        };
        Ok(Response::new(reply))
    }
}

fn members_to(id: Option<LogId>) -> Option<pb::Membership> {
    id.map(|id| pb::Membership {
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        index: id.index,
    })
}

fn members_from(proto: Option<pb::Membership>) -> Option<LogId> {
    proto.map(|proto| LogId {
        leader_id: LeaderId::new(proto.term, proto.leader),
        index: proto.index,
    })
}

fn looked_to(looked: &Looked) -> pb::LookReply {
    let led = looked.led.iter().map(|(shard, led)| pb::Led {
        shard: shard.0,
        voters: led
            .facts
            .voters
            .iter()
            .map(|set| pb::Voting {
                replicas: set.iter().map(|replica| replica.0).collect(),
            })
            .collect(),
        learners: led.facts.learners.iter().map(|replica| replica.0).collect(),
        lag: led
            .facts
            .lag
            .iter()
            .map(|(replica, entries)| pb::Lag {
                replica: replica.0,
                entries: *entries,
            })
            .collect(),
        closes_in_ms: led.facts.closes_in_ms,
        membership: members_to(led.members),
        pending: led.facts.pending,
    });
    let seats = looked.seats.iter().map(|(shard, replica)| pb::Seat {
        shard: shard.0,
        replica: replica.0,
        term: looked.tails.get(shard).map_or(0, |tail| tail.0),
        last: looked.tails.get(shard).map_or(0, |tail| tail.1),
    });
    let closed = looked.closed.iter().map(|(shard, (replica, (term, last)))| pb::Seat {
        shard: shard.0,
        replica: replica.0,
        term: *term,
        last: *last,
    });
    pb::LookReply {
        version: looked.version,
        seats: seats.collect(),
        closed: closed.collect(),
        led: led.collect(),
        newest: looked.newest,
        build: looked.build.clone(),
    }
}

fn looked_from(node: NodeId, proto: pb::LookReply) -> Result<Looked, BadWire> {
    let led = proto.led.into_iter().map(|led| {
        let voters = led
            .voters
            .iter()
            .map(|set| set.replicas.iter().copied().map(ReplicaId).collect());
        let facts = GroupFacts {
            leader: node,
            voters: voters.collect(),
            learners: led.learners.iter().copied().map(ReplicaId).collect(),
            pending: led.pending,
            lag: led
                .lag
                .iter()
                .map(|lag| (ReplicaId(lag.replica), lag.entries))
                .collect(),
            closes_in_ms: led.closes_in_ms,
        };
        let members = members_from(led.membership);
        (ShardId(led.shard), Led { facts, members })
    });
    Ok(Looked {
        version: proto.version,
        seats: proto
            .seats
            .iter()
            .map(|seat| (ShardId(seat.shard), ReplicaId(seat.replica)))
            .collect(),
        tails: proto
            .seats
            .iter()
            .map(|seat| (ShardId(seat.shard), (seat.term, seat.last)))
            .collect(),
        closed: proto
            .closed
            .iter()
            .map(|seat| (ShardId(seat.shard), (ReplicaId(seat.replica), (seat.term, seat.last))))
            .collect(),
        led: led.collect(),
        newest: proto.newest.max(1),
        build: proto.build,
    })
}

fn work_to(shard: ShardId, work: Work, seen: Option<LogId>) -> pb::DoRequest {
    let work = match work {
        Work::AddLearner(replica, node) => PbWork::AddLearner(pb::AddLearner {
            replica: replica.0,
            node: node.0,
        }),
        Work::Promote(replica) => PbWork::Promote(replica.0),
        Work::Remove { replica, keep } => PbWork::Remove(pb::Remove {
            replica: replica.0,
            keep,
        }),
        Work::HandOver(node) => PbWork::HandOver(pb::HandOver {
            node: node.map(|node| node.0),
        }),
        Work::Settle => PbWork::Settle(pb::Settle {}),
    };
    pb::DoRequest {
        shard: shard.0,
        membership: members_to(seen),
        work: Some(work),
    }
}

fn work_from(proto: pb::DoRequest) -> Result<(ShardId, Work, Option<LogId>), BadWire> {
    let work = match proto.work.ok_or(BadWire::Missing("do.work"))? {
        PbWork::AddLearner(add) => Work::AddLearner(ReplicaId(add.replica), NodeId(add.node)),
        PbWork::Promote(replica) => Work::Promote(ReplicaId(replica)),
        PbWork::Remove(remove) => Work::Remove {
            replica: ReplicaId(remove.replica),
            keep: remove.keep,
        },
        PbWork::HandOver(to) => Work::HandOver(to.node.map(NodeId)),
        PbWork::Settle(_) => Work::Settle,
    };
    Ok((ShardId(proto.shard), work, members_from(proto.membership)))
}
