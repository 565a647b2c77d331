//! A shard's state out of this node and into it: images for backups, and shards founded anew from them, or from what is left.
//!
//! The gRPC service and the edge's HTTP face both come here, so that guards, audit and codes are the same. A node gives images
//! of shards that it leads, and founds shards on itself: whoever asks another one is told whom to ask. Nothing is carried on to
//! another node, for what goes in and out here is all of a shard, hidden maxima too, and nodes are not let to ask for that.

use super::AdminPort;
use crate::admin::{found, json as admin_json, reason};
use crate::metrics;
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, StreamExt as _};
use placement::{NodeId, ShardId};
use proto::cluster::v1 as pb;
use raft_store::{ImageError, ReadError, RefoundError, Source, Weighed};
use router::ports::{AdminFounding, AdminImage, AdminStep, Shards as _};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How long another node may take to say what it has.
const PEER_WAIT: Duration = Duration::from_secs(1);
/// Steps of a founding that wait to be read.
const STEPS: usize = 8;
/// Between two looks at how far a founding is.
const LOOK: Duration = Duration::from_millis(50);

fn refused(code: &str, why: String, may_be_forced: bool) -> pb::Refused {
    pb::Refused {
        code: code.to_owned(),
        why,
        may_be_forced,
    }
}

/// Why a shard isn't founded anew.
fn not_founded(error: &RefoundError) -> pb::Refused {
    let forceable = match error {
        RefoundError::NotEmpty(_) => true,
        RefoundError::Steer {
            what: raft_store::SteerError::Refused(refusal),
        } => refusal.may_be_forced(),
        _ => false,
    };
    refused(error.code(), error.to_string(), forceable)
}

fn refusal(error: &RefoundError, left: Value) -> Value {
    let mut told = admin_json::refused(&not_founded(error));
    told["left"] = left;
    if let RefoundError::Unreadable(lost) = error {
        told["lost"] = admin_json::lost(lost);
    }
    told
}

/// What a shard would be founded from.
fn about(shard: ShardId, node: NodeId, weighed: &Weighed, left: Value) -> Value {
    let image = weighed.image.as_ref();
    let image =
        image.map(|proven| json!({"index": proven.index, "auctions": proven.auctions, "events": proven.events}));
    let mut about = json!({"step": "weighed", "shard": shard.0, "node": node.0, "image": image, "left": left});
    if !weighed.lost.is_empty() {
        about["lost"] = admin_json::lost(&weighed.lost);
    }
    about
}

impl AdminPort {
    /// Which builds run.
    pub(crate) async fn versions(&self) -> pb::VersionsReply {
        let nodes = self.host.versions().await.into_iter().map(|one| {
            let (build, newest) = one.known.clone().unwrap_or_default();
            pb::NodeVersion {
                node: one.node.0,
                answers: one.known.is_some(),
                build,
                newest,
            }
        });
        pb::VersionsReply {
            cluster_version: self.host.map().borrow().cluster_version(),
            nodes: nodes.collect(),
        }
    }

    /// The state of a shard that this node leads, and what it is; of a dry run only that, and nobody is told.
    pub(crate) async fn image(
        &self,
        shard: ShardId,
        who: &str,
        dry_run: bool,
    ) -> Result<(pb::ImageHead, bytes::Bytes), pb::Refused> {
        let map = self.map.borrow().clone();
        if !map.placement.contains_key(&shard) {
            let unknown = placement::Refusal::UnknownShard(shard);
            return Err(refused(unknown.code(), unknown.to_string(), false));
        }
        if !dry_run {
            self.note_copy(who)
                .await
                .map_err(|why| refused("unavailable", why.message().to_owned(), false))?;
        }
        let made = self.host.image(shard).await.map_err(|error| match error {
            ImageError::Read(ReadError::NotHere | ReadError::NotLeader { .. }) => {
                let leader = self.shards.leader(shard).filter(|node| *node != self.shards.me);
                let who = leader.map_or("nobody that is known".to_owned(), |node| format!("node {}", node.0));
                let why = format!("this node doesn't lead shard {}: {who} does", shard.0);
                refused("not_leader", why, false)
            }
            ImageError::Read(_) => refused("unavailable", error.to_string(), false),
            ImageError::Unsound(_) => refused("image_unsound", error.to_string(), false),
        });
        let (proven, body) = made?;
        let head = pb::ImageHead {
            shard: shard.0,
            index: proven.index,
            top: proven.top,
            auctions: proven.auctions,
            events: proven.events,
            digest: proven.digest.to_vec().into(),
            size: body.len() as u64,
            shards: map.shards,
        };
        if dry_run {
            return Ok((head, bytes::Bytes::new()));
        }
        let (shard, index, bytes) = (shard.0, proven.index, body.len());
        tracing::info!(shard, index, bytes, who, "an image was asked for");
        Ok((head, body))
    }

    /// The same, for the edge.
    pub(super) async fn image_told(&self, shard: ShardId, who: &str, dry_run: bool) -> Result<AdminImage, Value> {
        match self.image(shard, who, dry_run).await {
            Ok((head, body)) => Ok(AdminImage {
                head: admin_json::image(&head),
                body: (!dry_run).then_some(body),
            }),
            Err(why) => {
                let mut told = admin_json::refused(&why);
                if why.code == "not_leader" {
                    let map = self.map.borrow().clone();
                    let leader = self.shards.leader(shard).and_then(|node| map.nodes.get(&node).cloned());
                    told["refused"]["leader"] = json!(leader.map(|node| json!({"node": node.id.0, "http": node.http})));
                }
                Err(told)
            }
        }
    }

    /// A founding, step by step to its end.
    pub(super) fn founding(&self, ask: AdminFounding) -> BoxStream<'static, AdminStep> {
        let (steps, told) = mpsc::channel(STEPS);
        let (host, me, map) = (self.host.clone(), self.shards.me, self.map.clone());
        let left = self.left(ask.shard);
        let AdminFounding {
            shard,
            who,
            force,
            dry_run,
            image,
            give_up_unreadable,
        } = ask;
        let here = if give_up_unreadable {
            Source::Readable
        } else {
            Source::Survivor
        };
        let source = image.map_or(here, Source::Image);
        tokio::spawn(async move {
            // Whoever asked may be gone: then nobody hears the steps, and the founding goes on.
            let survivors = match source {
                Source::Survivor | Source::Readable => left.await,
                Source::Image(_) => Value::Null,
            };
            let refused = |error: &RefoundError| AdminStep::Refused(refusal(error, survivors.clone()));
            let weighed = match host.weigh(shard, &source, reason(force.as_deref())).await {
                Ok(weighed) => weighed,
                Err(error) => {
                    metrics::admin_change("refused".into(), force.is_some());
                    let _ = steps.send(refused(&error)).await;
                    return;
                }
            };
            let about = about(shard, me, &weighed, survivors.clone());
            if dry_run {
                metrics::admin_change("shown".into(), force.is_some());
                let mut told = about;
                told["done"] = json!(false);
                let _ = steps.send(AdminStep::Done(told)).await;
                return;
            }
            let _ = steps.send(AdminStep::Progress(about)).await;
            // What the founding needs of it was read; the bytes go.
            drop(source);
            let mut done = found(host, shard, weighed, who, force);
            let mut sealed = false;
            let done = loop {
                tokio::select! {
                    done = &mut done => break done,
                    () = tokio::time::sleep(LOOK) => {
                        if !sealed && map.borrow().is_sealed(shard) {
                            sealed = true;
                            let _ = steps.send(AdminStep::Progress(json!({"step": "closed", "shard": shard.0}))).await;
                        }
                    }
                }
            };
            let last = match done {
                Ok(Ok(new)) => AdminStep::Done(admin_json::founded(shard, me, &new)),
                Ok(Err(error)) => refused(&error),
                Err(error) => refused(&RefoundError::Unavailable(error.to_string())),
            };
            let _ = steps.send(last).await;
        });
        ReceiverStream::new(told).boxed()
    }

    /// What is left of a shard: what each node with a replica says of it.
    fn left(&self, shard: ShardId) -> impl Future<Output = Value> + Send + 'static {
        let map = self.map.borrow().clone();
        let (peers, host, me) = (self.peers.clone(), self.host.clone(), self.shards.me);
        async move {
            let rows = map.replicas_of(shard).iter().map(|(node, _)| {
                let (peers, host, http) = (&peers, &host, map.nodes.get(node).map(|known| known.http.clone()));
                async move {
                    let has = if *node == me {
                        Some(here(host, shard))
                    } else {
                        there(peers, *node, shard).await
                    };
                    let (answers, has) = (has.is_some(), has.flatten());
                    json!({
                        "node": node.0, "http": http, "answers": answers, "role": has.as_ref().map(|has| has.0.clone()),
                        "applied": has.as_ref().map(|has| has.1), "last": has.as_ref().map(|has| has.2),
                    })
                }
            });
            Value::Array(join_all(rows).await)
        }
    }
}

/// Role, applied and last entry of this node's replica, if one is open.
fn here(host: &raft_store::Host, shard: ShardId) -> Option<(String, u64, u64)> {
    let own = host.status().into_iter().find(|status| status.shard == shard)?;
    Some((own.role.word().to_string(), own.applied, own.last_log))
}

/// The same of another node's; nothing at all if that doesn't answer.
async fn there(peers: &crate::grpc::Peers, node: NodeId, shard: ShardId) -> Option<Option<(String, u64, u64)>> {
    let peer = peers.get(node).ok()?;
    let status = tokio::time::timeout(PEER_WAIT, peer.status()).await.ok()?.ok()?;
    let replica = status.replicas.into_iter().find(|replica| replica.shard == shard.0);
    Some(replica.map(|replica| (replica.role, replica.applied, replica.last)))
}
