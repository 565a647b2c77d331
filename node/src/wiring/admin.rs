//! The operator's view: the map, who is alive, this node's replicas and streams; and in a demo the button that kills.

use super::ShardPort;
use crate::admin::{Overview, change, json as admin_json, refused, wall_ms};
use crate::grpc::{Peer, Peers};
use async_trait::async_trait;
use auction::Stamp;
use futures_util::{future::join_all, stream::BoxStream};
use placement::{ClusterMap, NodeId, Refusal, ShardId, plan::MOVED_FOR_MS};
use proto::cluster::v1::{Replica, StatusReply, Stream};
use raft_store::{Ask, Host, SteerError};
use router::ports::{Admin, AdminChange, AdminFounding, AdminImage, AdminStep, AdminTransfer, PortError, Shards as _};
use serde_json::{Value, json};
use sfu::Media;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Time for the answer to leave before the process dies.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// How long the page waits for what another node says of its streams.
const PEER_WAIT: Duration = Duration::from_millis(100);

/// One note in the audit for all shards that somebody copies within so long, ms.
const COPY_TOLD_MS: u64 = 600_000;

/// How long a new leader may take to be known.
const LED_WAIT: Duration = Duration::from_secs(3);

/// The operator's port at this node.
pub(crate) struct AdminPort {
    /// A demo.
    pub(crate) demo: bool,
    /// Its shards.
    pub(crate) host: Host,
    /// Its video.
    pub(crate) media: Media,
    /// Everyone's shards.
    pub(crate) shards: ShardPort,
    /// The map.
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
    /// The other nodes.
    pub(crate) peers: Arc<Peers>,
}

/// Dies as by `kill -9`: nothing is flushed, nobody is told.
fn die() {
    tracing::warn!("stopped from the cluster page");
    tokio::spawn(async {
        tokio::time::sleep(LAST_WORDS).await;
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    });
}

/// How a leadership is to be handed over.
pub(crate) struct Handing<'a> {
    /// Who asks.
    pub(crate) who: &'a str,
    /// A reason to disturb an auction that closes soon.
    pub(crate) force: Option<String>,
    /// Only shown.
    pub(crate) dry_run: bool,
    /// How long the heir leads by preference; else a week.
    pub(crate) for_ms: Option<u64>,
}

fn asked(change: placement::Change, who: &str, force: Option<String>, dry_run: bool) -> Ask {
    Ask {
        change,
        who: who.to_owned(),
        force,
        version: None,
        dry_run,
        newest: raft_store::versions::NEWEST,
    }
}

impl AdminPort {
    /// The cluster as this node sees it. The newest map, and what moves wait for, are known where shard 0 is led: asked
    /// there, unless `own`. Without an answer (this node has just started; nobody leads it) the map may be an older one.
    pub(crate) async fn overview(&self, own: bool) -> Overview {
        let mut map = self.map.borrow().clone();
        let mut waits = self.host.waits();
        let leader = self.shards.leader(ShardId::META);
        let mut may_be_old = leader.is_none();
        if let (false, Some(leader)) = (own, leader.filter(|leader| *leader != self.shards.me)) {
            let theirs = async {
                let peer = self.peers.get(leader).ok()?;
                tokio::time::timeout(PEER_WAIT, peer.overview()).await.ok()?.ok()
            };
            match theirs.await {
                Some(theirs) => {
                    if (theirs.map.epoch, theirs.map.steering.version) > (map.epoch, map.steering.version) {
                        map = Arc::new(theirs.map);
                    }
                    waits = theirs.waits;
                }
                None => may_be_old = true,
            }
        }
        let shards = map.placement.keys();
        let leaders: BTreeMap<ShardId, NodeId> = shards.filter_map(|s| Some((*s, self.shards.leader(*s)?))).collect();
        Overview {
            may_be_old,
            node: self.shards.me,
            alive: map
                .nodes
                .keys()
                .copied()
                .filter(|node| self.peers.alive(*node))
                .collect(),
            map: (*map).clone(),
            leaders,
            waits,
        }
    }

    /// Hands a shard's leadership to `to` (preferred there from now on), or to whoever can lead.
    pub(crate) async fn transfer(
        &self,
        shard: ShardId,
        to: Option<NodeId>,
        how: Handing<'_>,
    ) -> Result<NodeId, SteerError> {
        let Handing {
            who,
            force,
            dry_run,
            for_ms,
        } = how;
        let map = self.map.borrow().clone();
        let not_now = |why: &str| SteerError::Refused(Refusal::NotNow(shard, why.into()));
        let (leader, heir) = self.heir(&map, shard, to).map_err(SteerError::Refused)?;
        if to == Some(leader) {
            return Ok(leader);
        }
        if force.is_none() {
            let may = self.host.may_hand_over(shard, leader).await;
            may.map_err(SteerError::Refused)?;
        }
        // What is written down first can't be forgotten: a preference, or a note that somebody asked for this.
        let change = if let (Some(to), true) = (to, shard != ShardId::META) {
            let wish = placement::Override {
                shard,
                wish: placement::Wish::PreferLeader(to),
                owner: who.to_owned(),
                until_ms: wall_ms() + for_ms.unwrap_or(MOVED_FOR_MS).min(MOVED_FOR_MS),
            };
            placement::Change::Override(wish)
        } else {
            placement::Change::HandedOver { shard, from: leader }
        };
        self.host.steer(asked(change, who, force, dry_run)).await?;
        if dry_run {
            return Ok(heir);
        }
        let handed = self.host.hand_over(shard, leader, to).await;
        handed.map_err(|why| not_now(&why))?;
        let patience = tokio::time::Instant::now() + LED_WAIT;
        while self.shards.leader(shard).is_none_or(|now| now == leader) {
            if tokio::time::Instant::now() > patience {
                return Err(not_now("it was handed over, and nobody is known to lead yet"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(self.shards.leader(shard).unwrap_or(leader))
    }

    /// Who leads a shard, and who would instead.
    fn heir(&self, map: &ClusterMap, shard: ShardId, to: Option<NodeId>) -> Result<(NodeId, NodeId), Refusal> {
        if !map.placement.contains_key(&shard) {
            return Err(Refusal::UnknownShard(shard));
        }
        if let Some(to) = to.filter(|to| map.replica_on(shard, *to).is_none()) {
            let known = map.nodes.contains_key(&to);
            return Err(if known {
                Refusal::NotThere(shard, to)
            } else {
                Refusal::UnknownNode(to)
            });
        }
        let leader = self.shards.leader(shard);
        let leader = leader.ok_or_else(|| Refusal::NotNow(shard, "it has no leader that is known".into()))?;
        if to == Some(leader) {
            return Ok((leader, leader));
        }
        let mut others = map.replicas_of(shard).iter().map(|replica| replica.0);
        let heir = others.find(|node| *node != leader && self.peers.alive(*node) && to.is_none_or(|to| to == *node));
        match (heir, to) {
            (Some(heir), _) => Ok((leader, heir)),
            (None, Some(to)) => Err(Refusal::Unheard(to)),
            (None, None) => Err(Refusal::NotNow(
                shard,
                "no other node with a replica of it answers".into(),
            )),
        }
    }

    /// Writes down that somebody copies shards: once for all that follow within a while, since each image is a line of
    /// its own in the log of the node that gives it.
    pub(crate) async fn note_copy(&self, who: &str) -> Result<(), tonic::Status> {
        let what = placement::Change::Copy;
        let (text, now) = (what.to_string(), wall_ms());
        let told = |map: &ClusterMap| {
            let mut said = map.steering.said.iter().rev();
            said.any(|said| said.who == who && said.what == text && now.saturating_sub(said.at_ms) < COPY_TOLD_MS)
        };
        if told(&self.map.borrow()) {
            return Ok(());
        }
        match self.host.steer(asked(what, who, None, false)).await {
            Ok(_) => Ok(()),
            // With shard 0 down the others can be kept all the same, and should be: now of all times.
            Err(SteerError::Unavailable(why) | SteerError::Unknown(why)) => {
                tracing::warn!(target: "rushroom::audit", who, why, "shards are copied into a backup, and the map can't keep the note");
                Ok(())
            }
            Err(SteerError::Refused(refusal)) => Err(tonic::Status::failed_precondition(format!(
                "[{}] {refusal}",
                refusal.code()
            ))),
        }
    }

    /// This node's own replicas and streams.
    async fn own(&self) -> StatusReply {
        let now: BTreeMap<ShardId, Stamp> = self.host.readings().into_iter().map(|r| (r.shard, r.now)).collect();
        let mut replicas = Vec::new();
        for s in self.host.status() {
            replicas.push(Replica {
                shard: s.shard.0,
                role: s.role.word().to_string(),
                term: s.term,
                leader: s.leader.map(|n| n.0),
                applied: s.applied,
                now: now.get(&s.shard).map(|n| n.0),
                held_total_ms: s.held_total_ms,
                auctions_live: s.live as u32,
                last: s.last_log,
            });
        }
        let streams = self.media.stats().into_iter().map(|s| Stream {
            auction: s.auction,
            viewers: s.viewers as u32,
            origin: s.origin,
        });
        StatusReply {
            node: self.shards.me.0,
            map_epoch: self.map.borrow().epoch,
            replicas,
            streams: streams.collect(),
            clock: Some(clock_of(&self.host)),
        }
    }

    fn shard(&self, shard: ShardId, map: &ClusterMap, own: Option<&Replica>) -> Value {
        let replicas: Vec<u64> = map
            .placement
            .get(&shard)
            .map(|p| p.replicas.iter().map(|(n, _)| n.0).collect())
            .unwrap_or_default();
        let clock = self.shards.clock(shard);
        json!({
            "id": shard.0,
            "leader": self.shards.leader(shard).map(|n| n.0),
            "term": own.map(|r| r.term),
            "replicas": replicas,
            "auctions_live": own.map_or(0, |r| r.auctions_live),
            "now": own.and_then(|r| r.now).or_else(|| clock.map(|c| c.now.0)),
            "held_total_ms": own.map(|r| r.held_total_ms),
            "role": own.map(|r| r.role.clone()),
            "applied": own.map(|r| r.applied),
            "behind": behind(&self.host, shard),
        })
    }
}

/// Whose lanes the last offices of a shard found behind, by this node's replica: what their stamps mean can't be told
/// from a history without it.
fn behind(host: &raft_store::Host, shard: ShardId) -> Vec<Value> {
    let word = |b: raft_store::Behind| {
        json!({
            "term": b.office.term, "turn": b.office.turn, "base": b.base.0,
            "auction": b.auction.as_str(), "stamp": b.stamp.0, "seq": b.seq,
        })
    };
    host.behind(shard).into_iter().map(word).collect()
}

#[async_trait]
impl Admin for AdminPort {
    async fn status(&self) -> Value {
        let map = self.map.borrow().clone();
        let own = self.own().await;
        let replicas: BTreeMap<u32, &Replica> = own.replicas.iter().map(|r| (r.shard, r)).collect();
        let nodes: Vec<Value> = map
            .nodes
            .values()
            .map(|n| {
                json!({
                    "id": n.id.0, "zone": n.zone, "region": n.region, "http": n.http,
                    "alive": self.peers.alive(n.id), "weight": n.weight,
                })
            })
            .collect();
        let shards: Vec<Value> = (0..=map.shards)
            .map(|s| self.shard(ShardId(s), &map, replicas.get(&s).copied()))
            .collect();
        let others = map
            .nodes
            .keys()
            .filter(|n| **n != self.shards.me && self.peers.alive(**n));
        let others = others.filter_map(|n| self.peers.get(*n).ok());
        // A frozen peer must not freeze the page: what it has to say of its streams is left out.
        let ask = |peer: Peer| async move { tokio::time::timeout(PEER_WAIT, peer.status()).await.ok()?.ok() };
        let others = join_all(others.map(ask)).await;
        let streams = others.iter().flatten().chain([&own]).flat_map(|status| {
            let node = status.node;
            let one =
                move |s: &Stream| json!({"auction": s.auction, "node": node, "viewers": s.viewers, "origin": s.origin});
            status.streams.iter().map(one)
        });
        let streams: Vec<Value> = streams.collect();
        let clocks: Vec<Value> = others
            .iter()
            .chain([&Some(own.clone())])
            .flatten()
            .filter_map(clock_json)
            .collect();
        json!({
            "me": own.node, "demo": self.demo, "epoch": map.epoch,
            "nodes": nodes, "shards": shards, "streams": streams,
            "clocks": clocks,
        })
    }

    async fn overview(&self) -> Value {
        admin_json::overview(&self.overview(false).await)
    }

    async fn explain(&self, shard: ShardId) -> Option<Value> {
        let map = self.map.borrow().clone();
        map.placement.contains_key(&shard).then(|| {
            let rules = placement::Rules::default();
            admin_json::explained(&placement::explain(&map, shard, rules, wall_ms()))
        })
    }

    async fn change(&self, ask: AdminChange) -> Result<Value, Value> {
        let Some((wanted, who)) = crate::admin::change_to(&ask.change, &ask.who) else {
            return Err(json!({"refused": {"code": "invalid", "why": "no operator's change", "may_be_forced": false}}));
        };
        let request = proto::cluster::v1::ChangeRequest {
            change: Some(wanted),
            who,
            force: ask.force,
            version: ask.version,
            dry_run: ask.dry_run,
            newest: ask.newest,
        };
        let reply = change(&self.host, request).await;
        let told = admin_json::change(&reply, ask.dry_run);
        if reply.refused.is_some() { Err(told) } else { Ok(told) }
    }

    async fn transfer(&self, shard: ShardId, to: Option<NodeId>, ask: AdminTransfer) -> Result<NodeId, Value> {
        let AdminTransfer { who, force, dry_run } = ask;
        let how = Handing {
            who: &who,
            force,
            dry_run,
            for_ms: None,
        };
        let done = AdminPort::transfer(self, shard, to, how).await;
        done.map_err(|error| {
            let reply = proto::cluster::v1::ChangeReply {
                refused: Some(refused(&error)),
                ..proto::cluster::v1::ChangeReply::default()
            };
            admin_json::change(&reply, dry_run)
        })
    }

    async fn versions(&self) -> Value {
        admin_json::versions(&AdminPort::versions(self).await)
    }

    async fn image(&self, shard: ShardId, who: &str, dry_run: bool) -> Result<AdminImage, Value> {
        self.image_told(shard, who, dry_run).await
    }

    fn found(&self, ask: AdminFounding) -> BoxStream<'static, AdminStep> {
        self.founding(ask)
    }

    async fn stop_node(&self, node: NodeId) -> Result<(), PortError> {
        if !self.demo {
            return Err(PortError::Refused("only in a demo".into()));
        }
        if node == self.shards.me {
            die();
            return Ok(());
        }
        self.peers.get(node)?.stop().await
    }
}

fn clock_of(host: &Host) -> proto::cluster::v1::Clock {
    let clock = host.clock();
    proto::cluster::v1::Clock {
        wall_ms: clock.wall.ms,
        wall_error_ms: clock.wall.error_ms,
        wall_off_ms: clock.wall_off_ms,
        voices: u32::try_from(clock.voices).unwrap_or(u32::MAX),
        rates_ppm: clock.rates_ppm.iter().map(|(node, ppm)| (node.0, *ppm)).collect(),
        unfit: clock
            .unfit
            .into_iter()
            .map(|(reason, why)| (reason.code().to_owned(), why))
            .collect(),
        shunned: clock.shunned.iter().map(|node| node.0).collect(),
    }
}

fn clock_json(status: &StatusReply) -> Option<Value> {
    let clock = status.clock.as_ref()?;
    Some(json!({
        "node": status.node, "wall_ms": clock.wall_ms, "wall_error_ms": clock.wall_error_ms,
        "wall_off_ms": clock.wall_off_ms, "voices": clock.voices, "rates_ppm": clock.rates_ppm,
        "unfit": clock.unfit, "shunned": clock.shunned,
    }))
}

/// The admin port as the gRPC service asks it.
#[async_trait]
impl crate::grpc::Operated for AdminPort {
    async fn status(&self) -> StatusReply {
        self.own().await
    }
    fn stop(&self) -> Result<(), PortError> {
        if !self.demo {
            return Err(PortError::Refused("only in a demo".into()));
        }
        die();
        Ok(())
    }
}
