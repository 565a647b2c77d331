//! The cluster page's calls, carried to the `Admin` port. Outside a demo only operators see the cluster, and nobody stops a
//! node from a page.

use super::Caller;
use crate::{
    auth::User,
    edge::State,
    ports::PortError,
    problem::{EdgeCode, Problem},
};
use auction::{Reason, Rights};
use axum::{
    extract::{Path, State as FromState},
    http::StatusCode,
};
use placement::NodeId;
use std::sync::Arc;

fn may_see(state: &State, user: Option<&User>) -> Result<(), Problem> {
    match user {
        _ if state.options.demo => Ok(()),
        None => Err(Problem::unsigned("only operators see the cluster")),
        Some(user) if user.rights.has(Rights::OPERATOR) => Ok(()),
        Some(_) => Err(Problem::reason(Reason::Auth).because("only operators see the cluster")),
    }
}

/// Nodes, shards, leaders, streams.
#[utoipa::path(get, path = "/api/v1/cluster", responses((status = 200, body = serde_json::Value), (status = 403, body = Problem)))]
pub(crate) async fn status(
    FromState(state): FromState<Arc<State>>,
    Caller(user): Caller,
) -> Result<axum::Json<serde_json::Value>, Problem> {
    may_see(&state, user.as_ref())?;
    Ok(axum::Json(state.ports.admin.status().await))
}

/// Demo: stop a node's process as a crash would.
#[utoipa::path(post, path = "/api/v1/admin/nodes/{id}/stop", params(("id" = u64, Path)),
    responses((status = 202), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn stop(
    FromState(state): FromState<Arc<State>>,
    Path(node): Path<String>,
    Caller(user): Caller,
) -> Result<StatusCode, Problem> {
    if !state.options.demo {
        return Err(Problem::reason(Reason::Auth).because("nodes are stopped from a page in demos only"));
    }
    let node = node
        .parse()
        .map_err(|_| Problem::reason(Reason::NotFound).because("no such node"))?;
    let who = user.map_or_else(|| "nobody in particular".to_owned(), |u| u.id.to_string());
    tracing::warn!(target: "rushroom::audit", who, node, "a node is stopped from the cluster page");
    match state.ports.admin.stop_node(NodeId(node)).await {
        Ok(()) => Ok(StatusCode::ACCEPTED),
        Err(PortError::NotFound) => Err(Problem::reason(Reason::NotFound).because("no such node")),
        Err(error) => {
            tracing::warn!(node, %error, "a node could not be stopped");
            Err(Problem::edge(EdgeCode::Unavailable))
        }
    }
}
