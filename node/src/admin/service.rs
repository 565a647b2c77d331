//! `cluster.v1.Admin`: what operators ask of any node.
//!
//! Deliberately absent: sign-in. This listener is the nodes' own (loopback or a private network, see Known gaps); who asks
//! over HTTP is checked by the edge.

use super::wire::{change_from, overview_to, plan_to, refused_to};
use crate::{metrics, wiring::AdminPort};
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use placement::{NodeId, ShardId};
use proto::cluster::v1::{self as pb, admin_server::Admin};
use raft_store::{Ask, SteerError};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status};

/// Pace of `Watch`: what didn't change isn't sent again.
const WATCH: Duration = Duration::from_millis(200);

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
    };
    match host.steer(ask).await {
        Ok(plan) => plan_to(&plan),
        Err(SteerError::Refused(refusal)) => refused_to(refusal.code(), refusal.to_string(), refusal.may_be_forced()),
        Err(SteerError::Unavailable(why)) => refused_to("unavailable", why, false),
        Err(SteerError::Unknown(why)) => refused_to("unknown", format!("the outcome is unknown: {why}"), false),
    }
}

#[async_trait]
impl Admin for AdminService {
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
        Ok(Response::new(change(&self.0.host, request.into_inner()).await))
    }

    async fn transfer(&self, request: Request<pb::TransferRequest>) -> Result<Response<pb::TransferReply>, Status> {
        let request = request.into_inner();
        let (shard, to) = (ShardId(request.shard), request.to.map(NodeId));
        let reply = match self.0.transfer(shard, to, &request.who, request.force).await {
            Ok(leader) => pb::TransferReply {
                refused: String::new(),
                leader: leader.0,
            },
            Err(refused) => pb::TransferReply { refused, leader: 0 },
        };
        Ok(Response::new(reply))
    }
}
