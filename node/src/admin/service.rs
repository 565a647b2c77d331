//! `cluster.v1.Admin`: what operators ask of any node.
//!
//! Who asks is who the certificate says (`tls::gate` has let them in by their role): the name that a caller gives itself is
//! kept beside it, and alone only where nodes talk in the clear. A node may ask for one thing: to be let in itself. Who asks
//! over HTTP is checked by the edge.

use super::wire::{change_from, overview_to, plan_to, refused_to};
use crate::metrics;
use crate::tls::{Caller, Identity};
use crate::wiring::{AdminPort, Handing};
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use placement::{NodeId, ShardId};
use proto::cluster::v1::{self as pb, admin_server::Admin};
use raft_store::{Ask, Founded, RefoundError, Source, SteerError, Weighed, codec::Wire as _};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status};

/// Pace of `Watch`: what didn't change isn't sent again.
const WATCH: Duration = Duration::from_millis(200);

/// Bytes of an image in one message.
const IMAGE_CHUNK: usize = 1 << 20;
/// Largest image that is taken in.
const IMAGE_MAX: u64 = 4 << 30;

/// Serves operators.
pub(crate) struct AdminService(pub(crate) Arc<AdminPort>);

/// Plans and stores a change, with every refusal as an answer.
pub(crate) async fn change(host: &raft_store::Host, request: pb::ChangeRequest) -> pb::ChangeReply {
    let (dry_run, forced) = (request.dry_run, request.force.is_some());
    let reply = answer(host, request).await;
    let outcome = match &reply.refused {
        Some(refused) => refused.code.clone(),
        None if dry_run => "shown".into(),
        None => "done".into(),
    };
    metrics::admin_change(outcome, forced);
    reply
}

/// Founds a shard anew on this node. It goes on to its end though whoever asked has gone.
pub(crate) fn found(
    host: raft_store::Host,
    shard: ShardId,
    weighed: Weighed,
    who: String,
    force: Option<String>,
) -> tokio::task::JoinHandle<Result<Founded, RefoundError>> {
    tokio::spawn(async move {
        let done = host.found(shard, weighed, &who, reason(force.as_deref())).await;
        match &done {
            Ok(new) => tracing::warn!(
                shard = shard.0,
                who,
                replica = new.replica.0,
                index = new.index,
                "founded anew"
            ),
            Err(error) => tracing::warn!(shard = shard.0, who, %error, "not founded anew"),
        }
        metrics::admin_change(if done.is_ok() { "founded" } else { "refused" }.into(), true);
        done
    })
}

/// A reason that says something.
pub(crate) fn reason(force: Option<&str>) -> Option<&str> {
    force.filter(|why| !why.trim().is_empty())
}

async fn answer(host: &raft_store::Host, request: pb::ChangeRequest) -> pb::ChangeReply {
    let Some(change) = request.change else {
        return refused_to("invalid", "no change".into(), false);
    };
    let change = match change_from(change, &request.who) {
        Ok(change) => change,
        Err(bad) => return refused_to("invalid", bad.to_string(), false),
    };
    let ask = Ask {
        change,
        who: request.who,
        force: request.force,
        version: request.version,
        dry_run: request.dry_run,
        newest: request.newest,
    };
    match host.steer(ask).await {
        Ok(plan) => plan_to(&plan),
        Err(error) => pb::ChangeReply {
            refused: Some(refused(&error)),
            ..pb::ChangeReply::default()
        },
    }
}

/// Why not, with its code.
pub(crate) fn refused(error: &SteerError) -> pb::Refused {
    let (code, may_be_forced) = match error {
        SteerError::Refused(refusal) => (refusal.code(), refusal.may_be_forced()),
        SteerError::Unavailable(_) => ("unavailable", false),
        SteerError::Unknown(_) => ("unknown", false),
    };
    pb::Refused {
        code: code.to_owned(),
        why: error.to_string(),
        may_be_forced,
    }
}

fn caller<T>(request: &Request<T>) -> Option<Identity> {
    let caller = request.extensions().get::<Caller>();
    caller.and_then(|caller| caller.identity.clone())
}

/// The name for the audit: the certificate's, and what the caller calls itself if that is something else.
fn signed(caller: Option<&Identity>, claimed: &str) -> String {
    match caller {
        None => claimed.to_owned(),
        Some(identity) => {
            let sure = identity.to_string();
            if claimed.is_empty() || claimed == sure || sure.ends_with(&format!(" {claimed}")) {
                sure
            } else {
                format!("{sure} (as {claimed})")
            }
        }
    }
}

/// Who asks for a change, if they may.
fn asks(caller: Option<&Identity>, request: &pb::ChangeRequest) -> Result<String, Status> {
    if let Some(Identity::Node(node)) = caller {
        let own = matches!(&request.change, Some(pb::change_request::Change::Join(join)) if join.id == *node);
        if !own {
            crate::metrics::not_allowed();
            let why = format!("[not_allowed] node {node} may ask to be let in itself, and for nothing else");
            return Err(Status::permission_denied(why));
        }
    }
    Ok(signed(caller, &request.who))
}

/// What a shard is to be founded from, whole.
async fn founding(mut chunks: tonic::Streaming<pb::RefoundChunk>) -> Result<(pb::RefoundHead, Source), Status> {
    let bad = |what: &str| Status::invalid_argument(format!("[invalid] {what}"));
    let Some(pb::refound_chunk::Part::Head(head)) = chunks.message().await?.and_then(|chunk| chunk.part) else {
        return Err(bad("the first message is no head"));
    };
    let Some(size) = head.size else {
        let source = if head.give_up_unreadable {
            Source::Readable
        } else {
            Source::Survivor
        };
        return Ok((head, source));
    };
    if size > IMAGE_MAX {
        return Err(bad("the image is beyond every image"));
    }
    let mut body = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        let Some(pb::refound_chunk::Part::Data(data)) = chunk.part else {
            return Err(bad("an image with two heads"));
        };
        body.extend_from_slice(&data);
        if body.len() as u64 > size {
            return Err(bad("an image longer than it said"));
        }
    }
    if body.len() as u64 != size {
        return Err(bad("an image that broke off"));
    }
    Ok((head, Source::Image(body.into())))
}

#[async_trait]
impl Admin for AdminService {
    type ImageStream = BoxStream<'static, Result<pb::ImageChunk, Status>>;
    type WatchStream = BoxStream<'static, Result<pb::OverviewReply, Status>>;

    async fn overview(&self, request: Request<pb::OverviewRequest>) -> Result<Response<pb::OverviewReply>, Status> {
        let own = request.into_inner().own;
        Ok(Response::new(overview_to(&self.0.overview(own).await)))
    }

    async fn watch(&self, _: Request<pb::OverviewRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let seen: Option<pb::OverviewReply> = None;
        let looks = stream::unfold((self.0.clone(), seen), |(port, seen)| async move {
            loop {
                let now = overview_to(&port.overview(false).await);
                if seen.as_ref() != Some(&now) {
                    return Some((Ok(now.clone()), (port, Some(now))));
                }
                tokio::time::sleep(WATCH).await;
            }
        });
        Ok(Response::new(looks.boxed()))
    }

    async fn change(&self, request: Request<pb::ChangeRequest>) -> Result<Response<pb::ChangeReply>, Status> {
        let caller = caller(&request);
        let mut request = request.into_inner();
        request.who = asks(caller.as_ref(), &request)?;
        Ok(Response::new(change(&self.0.host, request).await))
    }

    async fn versions(&self, _: Request<pb::VersionsRequest>) -> Result<Response<pb::VersionsReply>, Status> {
        Ok(Response::new(self.0.versions().await))
    }

    async fn image(&self, request: Request<pb::ImageRequest>) -> Result<Response<Self::ImageStream>, Status> {
        let who = signed(caller(&request).as_ref(), "");
        let pb::ImageRequest { shard, dry_run } = request.into_inner();
        let (head, body) = self.0.image(ShardId(shard), &who, dry_run).await.map_err(|why| {
            let text = format!("[{}] {}", why.code, why.why);
            match why.code.as_str() {
                "unavailable" | "image_unsound" => Status::unavailable(text),
                _ => Status::failed_precondition(text),
            }
        })?;
        let head = pb::image_chunk::Part::Head(head);
        let pieces = (0..body.len()).step_by(IMAGE_CHUNK).map(move |from| {
            let upto = (from + IMAGE_CHUNK).min(body.len());
            pb::image_chunk::Part::Data(body.slice(from..upto))
        });
        let parts = std::iter::once(head).chain(pieces);
        let chunks = parts.map(|part| Ok(pb::ImageChunk { part: Some(part) }));
        Ok(Response::new(stream::iter(chunks).boxed()))
    }

    async fn refound(
        &self,
        request: Request<tonic::Streaming<pb::RefoundChunk>>,
    ) -> Result<Response<pb::RefoundReply>, Status> {
        let caller = caller(&request);
        let (head, source) = founding(request.into_inner()).await?;
        let who = signed(caller.as_ref(), &head.who);
        let (host, shard) = (self.0.host.clone(), ShardId(head.shard));
        let weighed = host.weigh(shard, &source, reason(head.force.as_deref())).await;
        // What the founding needs of it was read; the bytes go.
        drop(source);
        let done = match weighed {
            Ok(weighed) if head.dry_run => {
                metrics::admin_change("shown".into(), head.force.is_some());
                return Ok(Response::new(shown(&weighed)));
            }
            Ok(weighed) => found(host, shard, weighed, who, head.force)
                .await
                .map_err(|error| Status::internal(error.to_string()))?,
            Err(error) => {
                metrics::admin_change("refused".into(), true);
                Err(error)
            }
        };
        Ok(Response::new(match done {
            Ok(new) => pb::RefoundReply {
                refused: String::new(),
                replica: new.replica.0,
                index: new.index,
                top: new.top,
                auctions: new.auctions,
                epoch: new.epoch,
                lost: (!new.lost.is_empty()).then(|| new.lost.to_proto()),
            },
            Err(error) => pb::RefoundReply {
                refused: error.to_string(),
                ..pb::RefoundReply::default()
            },
        }))
    }

    async fn transfer(&self, request: Request<pb::TransferRequest>) -> Result<Response<pb::TransferReply>, Status> {
        let caller = caller(&request);
        let mut request = request.into_inner();
        request.who = signed(caller.as_ref(), &request.who);
        let (shard, to) = (ShardId(request.shard), request.to.map(NodeId));
        let how = Handing {
            who: &request.who,
            force: request.force,
            dry_run: request.dry_run,
            for_ms: request.for_ms,
        };
        let done = self.0.transfer(shard, to, how).await;
        Ok(Response::new(match done {
            Ok(leader) => pb::TransferReply {
                refused: None,
                leader: leader.0,
            },
            Err(error) => pb::TransferReply {
                refused: Some(refused(&error)),
                leader: 0,
            },
        }))
    }
}

/// What a founding would come to.
fn shown(weighed: &Weighed) -> pb::RefoundReply {
    let image = weighed.image.as_ref();
    pb::RefoundReply {
        index: image.map_or(0, |proven| proven.index),
        auctions: image.map_or(0, |proven| proven.auctions),
        lost: (!weighed.lost.is_empty()).then(|| weighed.lost.to_proto()),
        ..pb::RefoundReply::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Identity, asks, pb, signed};
    use pb::change_request::Change;

    #[test]
    fn the_audit_names_the_certificate() {
        let alice = Identity::Operator("alice".into());
        // caller | claims | kept
        let table = [
            (None, "bob", "bob"),
            (Some(&alice), "", "operator alice"),
            (Some(&alice), "alice", "operator alice"),
            (Some(&alice), "bob", "operator alice (as bob)"),
        ];
        for (caller, claims, kept) in table {
            assert_eq!(signed(caller, claims), kept);
        }
    }

    #[test]
    fn a_node_asks_only_to_be_let_in_itself() {
        let join = |id| {
            Change::Join(proto::log::v1::Node {
                id,
                ..Default::default()
            })
        };
        let four = Identity::Node(4);
        let alice = Identity::Operator("alice".into());
        let table = [
            (&four, join(4), true),
            (&four, join(5), false),
            (&four, Change::Drain(4), false),
            (&alice, join(5), true),
            (&alice, Change::Drain(4), true),
        ];
        for (who, change, allowed) in table {
            let request = pb::ChangeRequest {
                change: Some(change.clone()),
                ..Default::default()
            };
            assert_eq!(asks(Some(who), &request).is_ok(), allowed, "{who}: {change:?}");
        }
    }
}
