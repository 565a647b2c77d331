//! An operator's API as HTTP and JSON, carried to the `Admin` port. Off unless the node's settings open it (a demo does);
//! outside a demo operators may ask, auditors may look, by the role in their token; each change is written down with who asked.
//!
//! Deliberately absent: deciding anything. What a change would do, and what it may not, is the port's answer.

use super::{Caller, Json};
use crate::{
    auth::User,
    auth::wall_ms,
    edge::State,
    ports::{Admin, AdminChange, AdminTransfer},
    problem::{EdgeCode, Problem},
};
use auction::{Reason, Rights};
use axum::{
    extract::{Path, State as FromState},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use placement::{Change, Node, NodeId, Override, ShardId, Wish};
use serde::Deserialize;
use serde_json::Value;
use std::{convert::Infallible, sync::Arc, time::Duration};

/// Pace of the progress stream: what didn't change isn't sent again.
const PACE: Duration = Duration::from_millis(200);
/// How long an override holds if nothing else is said.
const HOURS: u64 = 168;

/// What is wanted.
#[derive(Deserialize, Debug)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Wanted {
    Drain { node: u64 },
    Resume { node: u64 },
    Weight { node: u64, weight: u32 },
    Decommission { node: u64 },
    Move { shard: u32, from: u64, to: u64 },
    Pin { shard: u32, node: u64, hours: Option<u64> },
    Exclude { shard: u32, node: u64, hours: Option<u64> },
    PreferLeader { shard: u32, node: u64, hours: Option<u64> },
    Lift { shard: u32, node: u64 },
    Cancel { shard: Option<u32> },
    Rebalance,
    Pause,
    Go,
    Upgrade { to: u32 },
    Restart { node: u64 },
    Join(Joins),
}

/// A node that is let into the map by hand (one with `cluster.join` set does it itself).
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Joins {
    id: u64,
    zone: String,
    region: String,
    #[serde(default = "one")]
    weight: u32,
    grpc: String,
    http: String,
    #[serde(default)]
    trunk: String,
    /// The newest cluster version that its build knows.
    #[serde(default)]
    newest: u32,
}

fn one() -> u32 {
    1
}

/// A change, and how it is made.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    change: Wanted,
    #[serde(default)]
    dry_run: bool,
    version: Option<u64>,
    force: Option<String>,
}

/// To whom leadership goes.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Transfer {
    to: Option<u64>,
    force: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

impl Wanted {
    fn change(self, owner: &str) -> Change {
        let wish = |shard, wish, hours: Option<u64>| {
            Change::Override(Override {
                shard: ShardId(shard),
                wish,
                owner: owner.to_owned(),
                until_ms: wall_ms() + hours.unwrap_or(HOURS).min(HOURS * 52) * 3_600_000,
            })
        };
        match self {
            Wanted::Drain { node } => Change::Drain(NodeId(node)),
            Wanted::Resume { node } => Change::Resume(NodeId(node)),
            Wanted::Weight { node, weight } => Change::Weight(NodeId(node), weight),
            Wanted::Decommission { node } => Change::Decommission(NodeId(node)),
            Wanted::Move { shard, from, to } => Change::Move {
                shard: ShardId(shard),
                from: NodeId(from),
                to: NodeId(to),
                owner: owner.to_owned(),
            },
            Wanted::Pin { shard, node, hours } => wish(shard, Wish::Pin(NodeId(node)), hours),
            Wanted::Exclude { shard, node, hours } => wish(shard, Wish::Exclude(NodeId(node)), hours),
            Wanted::PreferLeader { shard, node, hours } => wish(shard, Wish::PreferLeader(NodeId(node)), hours),
            Wanted::Lift { shard, node } => Change::Lift(ShardId(shard), NodeId(node)),
            Wanted::Cancel { shard } => Change::Cancel(shard.map(ShardId)),
            Wanted::Rebalance => Change::Rebalance,
            Wanted::Pause => Change::Pause,
            Wanted::Go => Change::Go,
            Wanted::Upgrade { to } => Change::Upgrade(to),
            Wanted::Restart { node } => Change::Restart(NodeId(node)),
            Wanted::Join(node) => Change::Join(Node {
                id: NodeId(node.id),
                zone: node.zone,
                region: node.region,
                weight: node.weight,
                grpc: node.grpc,
                http: node.http,
                trunk: node.trunk,
            }),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wants {
    Look,
    Act,
}

/// Who asks, if they may.
pub(super) fn operator(state: &State, user: Option<&User>, wants: Wants) -> Result<String, Problem> {
    if !state.options.admin {
        return Err(Problem::edge(EdgeCode::NoSuchPath));
    }
    may(state.options.demo, user, wants)
}

/// Operators may do everything, auditors look; in a demo everybody is an operator.
fn may(demo: bool, user: Option<&User>, wants: Wants) -> Result<String, Problem> {
    match user {
        Some(user) if demo || user.rights.has(Rights::OPERATOR) => Ok(user.id.to_string()),
        Some(user) if wants == Wants::Look && user.rights.has(Rights::AUDITOR) => Ok(user.id.to_string()),
        None if demo => Ok("demo".into()),
        None => Err(Problem::unsigned("only operators may ask this")),
        Some(_) => Err(Problem::reason(Reason::Auth).because("only operators may ask this")),
    }
}

pub(super) fn shard(text: &str) -> Result<ShardId, Problem> {
    let id = text
        .parse()
        .map_err(|_| Problem::reason(Reason::NotFound).because("no such shard"))?;
    Ok(ShardId(id))
}

/// The map, who answers, who leads, what moves and what it waits for, history and audit.
#[utoipa::path(get, path = "/api/v1/admin/overview", responses((status = 200, body = Value), (status = 403, body = Problem)))]
pub(crate) async fn overview(
    FromState(state): FromState<Arc<State>>,
    Caller(user): Caller,
) -> Result<axum::Json<Value>, Problem> {
    operator(&state, user.as_ref(), Wants::Look)?;
    Ok(axum::Json(state.ports.admin.overview().await))
}

/// The same as server-sent events, again whenever something changed.
#[utoipa::path(get, path = "/api/v1/admin/events",
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 403, body = Problem)))]
pub(crate) async fn events(FromState(state): FromState<Arc<State>>, Caller(user): Caller) -> Result<Response, Problem> {
    operator(&state, user.as_ref(), Wants::Look)?;
    let admin = state.ports.admin.clone();
    let looks = stream::unfold(
        (admin, None),
        |(admin, seen): (Arc<dyn Admin>, Option<Value>)| async move {
            loop {
                let now = admin.overview().await;
                if seen.as_ref() != Some(&now) {
                    let event = Event::default().event("overview").data(now.to_string());
                    return Some((Ok::<_, Infallible>(event), (admin, Some(now))));
                }
                tokio::time::sleep(PACE).await;
            }
        },
    );
    Ok(Sse::new(looks).keep_alive(KeepAlive::default()).into_response())
}

/// Why a shard lies where it lies.
#[utoipa::path(get, path = "/api/v1/admin/shards/{id}", params(("id" = u32, Path)),
    responses((status = 200, body = Value), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn explain(
    FromState(state): FromState<Arc<State>>,
    Path(id): Path<String>,
    Caller(user): Caller,
) -> Result<axum::Json<Value>, Problem> {
    operator(&state, user.as_ref(), Wants::Look)?;
    let told = state.ports.admin.explain(shard(&id)?).await;
    told.map(axum::Json)
        .ok_or_else(|| Problem::reason(Reason::NotFound).because("no such shard"))
}

/// Plans a change and, unless it is a dry run, stores it. 409 with the reason where it is refused.
#[utoipa::path(post, path = "/api/v1/admin/changes", request_body = Value,
    responses((status = 200, body = Value), (status = 403, body = Problem), (status = 409, body = Value)))]
pub(crate) async fn change(
    FromState(state): FromState<Arc<State>>,
    Caller(user): Caller,
    Json(ask): Json<Ask>,
) -> Result<Response, Problem> {
    let who = operator(&state, user.as_ref(), Wants::Act)?;
    let newest = match &ask.change {
        Wanted::Join(node) => node.newest,
        _ => 0,
    };
    let ask = AdminChange {
        newest,
        change: ask.change.change(&who),
        who,
        force: ask.force,
        version: ask.version,
        dry_run: ask.dry_run,
    };
    Ok(match state.ports.admin.change(ask).await {
        Ok(told) => axum::Json(told).into_response(),
        Err(why) => (StatusCode::CONFLICT, axum::Json(why)).into_response(),
    })
}

/// Which builds run, and up to which cluster version they know.
#[utoipa::path(get, path = "/api/v1/admin/versions", responses((status = 200, body = Value), (status = 403, body = Problem)))]
pub(crate) async fn versions(
    FromState(state): FromState<Arc<State>>,
    Caller(user): Caller,
) -> Result<axum::Json<Value>, Problem> {
    operator(&state, user.as_ref(), Wants::Look)?;
    Ok(axum::Json(state.ports.admin.versions().await))
}

/// Hands a shard's leadership over. 409 with the reason where it stays.
#[utoipa::path(post, path = "/api/v1/admin/shards/{id}/leader", params(("id" = u32, Path)), request_body = Value,
    responses((status = 200, body = Value), (status = 403, body = Problem), (status = 409, body = Value)))]
pub(crate) async fn transfer(
    FromState(state): FromState<Arc<State>>,
    Path(id): Path<String>,
    Caller(user): Caller,
    Json(ask): Json<Transfer>,
) -> Result<Response, Problem> {
    let who = operator(&state, user.as_ref(), Wants::Act)?;
    let shard = shard(&id)?;
    let how = AdminTransfer {
        who,
        force: ask.force,
        dry_run: ask.dry_run,
    };
    let moved = state.ports.admin.transfer(shard, ask.to.map(NodeId), how).await;
    Ok(match moved {
        Ok(leader) => {
            let told = serde_json::json!({"shard": shard.0, "leader": leader.0, "done": !ask.dry_run});
            axum::Json(told).into_response()
        }
        Err(why) => (StatusCode::CONFLICT, axum::Json(why)).into_response(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Ask, Rights, User, Wants, may};
    use auction::Id;
    use placement::Change;

    fn user(rights: Rights) -> User {
        User {
            id: Id::parse("olga").unwrap(),
            name: "Olga".into(),
            rights,
            expires_at_ms: u64::MAX,
        }
    }

    #[test]
    fn operators_act_auditors_look_and_others_do_neither() {
        // rights | may look | may act
        let table = [
            (Rights::OPERATOR, true, true),
            (Rights::AUDITOR, true, false),
            (Rights::MEMBER.and(Rights::MODERATOR), false, false),
            (Rights::default(), false, false),
        ];
        for (rights, look, act) in table {
            let user = user(rights);
            assert_eq!(may(false, Some(&user), Wants::Look).is_ok(), look, "{rights:?} looks");
            assert_eq!(may(false, Some(&user), Wants::Act).is_ok(), act, "{rights:?} acts");
            assert_eq!(may(true, Some(&user), Wants::Act).unwrap(), "olga", "a demo");
        }
        assert!(may(false, None, Wants::Look).is_err());
        assert_eq!(may(true, None, Wants::Act).unwrap(), "demo");
    }

    #[test]
    fn an_upgrade_can_be_asked_for() {
        let ask: Ask = serde_json::from_str(r#"{"change":{"kind":"upgrade","to":2}}"#).unwrap();
        assert_eq!(ask.change.change("olga"), Change::Upgrade(2));
    }
}
