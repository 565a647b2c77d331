//! A shard's state out of a node and into it, over HTTP: images (what a backup keeps), restore, and recovery from what is left.
//!
//! ```text
//!   GET  …/shards/3/image            --> octets, and what they are in the header `rushroom-image`
//!   POST …/shards/3/restore          octets --> proven, guarded, then step by step
//!   POST …/shards/3/unsafe-recover   {force} --> guarded, then step by step
//! ```
//!
//! The last two are long work: who accepts `text/event-stream` is told each step as it comes, anybody else the last one. These
//! routes stand outside the deadline of all others, for an image is as long as a shard's history; what is bounded instead is its
//! length, the pause between two pieces of it, and how many are taken in at once. Whoever asks is known before a byte is read.
//!
//! Deliberately absent: where images are kept. Keys of stores stay with whoever keeps backups.

use super::{
    Caller, Json,
    admin::{Wants, operator, shard},
    ask::is_type,
};
use crate::{
    edge::State,
    ports::{AdminFounding, AdminStep},
    problem::{EdgeCode, Problem},
};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, Path, Query, Request, State as FromState},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt as _, stream::BoxStream};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc, time::Duration};

/// Says what an image is.
const IMAGE: HeaderName = HeaderName::from_static("rushroom-image");

/// How an image is asked for.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Look {
    #[serde(default)]
    dry_run: bool,
}

/// How an image is put back.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Put {
    #[serde(default)]
    dry_run: bool,
    force: Option<String>,
}

/// How a shard is recovered.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recover {
    #[serde(default)]
    dry_run: bool,
    force: Option<String>,
    #[serde(default)]
    give_up_unreadable: bool,
}

fn refused(why: Value) -> Response {
    (StatusCode::CONFLICT, axum::Json(why)).into_response()
}

/// The state of a shard that this node leads, whole, hidden maxima too: for a backup. `dry_run`: only what it would be, and no
/// note in the audit. 409 with the leader where another node leads.
#[utoipa::path(get, path = "/api/v1/admin/shards/{id}/image", params(("id" = u32, Path), ("dry_run" = Option<bool>, Query)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 403, body = Problem),
        (status = 409, body = Value)))]
pub(crate) async fn image(
    FromState(state): FromState<Arc<State>>,
    Path(id): Path<String>,
    Caller(user): Caller,
    Query(look): Query<Look>,
) -> Result<Response, Problem> {
    let who = operator(&state, user.as_ref(), Wants::Act)?;
    let image = match state.ports.admin.image(shard(&id)?, &who, look.dry_run).await {
        Ok(image) => image,
        Err(why) => return Ok(refused(why)),
    };
    let Some(body) = image.body else {
        return Ok(axum::Json(image.head).into_response());
    };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    if let Ok(head) = HeaderValue::from_str(&image.head.to_string()) {
        headers.insert(IMAGE, head);
    }
    Ok(response)
}

/// An image back into its shard, founded anew on this node: proven first, then the shard is closed everywhere; other nodes
/// follow by themselves. `force`: why what the shard has may be given up. 409 with the reason where it is refused.
#[utoipa::path(post, path = "/api/v1/admin/shards/{id}/restore",
    params(("id" = u32, Path), ("dry_run" = Option<bool>, Query), ("force" = Option<String>, Query)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Value), (status = 403, body = Problem), (status = 409, body = Value),
        (status = 413, body = Problem)))]
pub(crate) async fn restore(
    FromState(state): FromState<Arc<State>>,
    Path(id): Path<String>,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, Problem> {
    let who = operator(&state, user.as_ref(), Wants::Act)?;
    let shard = shard(&id)?;
    let (mut parts, body) = request.into_parts();
    let Query(put) = Query::<Put>::from_request_parts(&mut parts, &state)
        .await
        .map_err(|why| Problem::edge(EdgeCode::BadRequest).because(why.body_text()))?;
    if !is_type(&parts.headers, "application/octet-stream") {
        return Err(Problem::edge(EdgeCode::Unsupported).because("send application/octet-stream"));
    }
    let Ok(_one) = state.images.try_acquire() else {
        let busy = "another image is being taken in by this node";
        return Ok(refused(
            json!({"refused": {"code": "unavailable", "why": busy, "may_be_forced": false}}),
        ));
    };
    let image = taken_in(&state, &parts.headers, body).await?;
    let ask = AdminFounding {
        shard,
        who,
        force: put.force,
        dry_run: put.dry_run,
        image: Some(image),
        give_up_unreadable: false,
    };
    Ok(told(&parts.headers, state.ports.admin.found(ask)).await)
}

/// A shard whose majority is lost for good, founded anew from what this node's replica has. Without `force` nothing is done
/// but told what is left. Auctions that are over and can't be read there are named (`unreadable`), and given up only with
/// `give_up_unreadable`.
#[utoipa::path(post, path = "/api/v1/admin/shards/{id}/unsafe-recover", params(("id" = u32, Path)), request_body = Value,
    responses((status = 200, body = Value), (status = 403, body = Problem), (status = 409, body = Value)))]
pub(crate) async fn recover(
    FromState(state): FromState<Arc<State>>,
    Path(id): Path<String>,
    Caller(user): Caller,
    headers: HeaderMap,
    Json(put): Json<Recover>,
) -> Result<Response, Problem> {
    let who = operator(&state, user.as_ref(), Wants::Act)?;
    let ask = AdminFounding {
        shard: shard(&id)?,
        who,
        force: put.force,
        dry_run: put.dry_run,
        image: None,
        give_up_unreadable: put.give_up_unreadable,
    };
    Ok(told(&headers, state.ports.admin.found(ask)).await)
}

/// All of an image.
async fn taken_in(state: &State, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let max = state.options.image_max;
    let too_large = || Problem::edge(EdgeCode::TooLarge).because(format!("an image is at most {max} bytes"));
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let (mut pieces, mut image) = (body.into_data_stream(), Vec::new());
    let pause = Duration::from_millis(state.options.request_ms);
    loop {
        let piece = tokio::time::timeout(pause, pieces.next()).await;
        match piece.map_err(|_| Problem::edge(EdgeCode::Timeout).because("the image broke off"))? {
            None => return Ok(image.into()),
            Some(Err(_)) => return Err(Problem::edge(EdgeCode::BadRequest).because("the image broke off")),
            Some(Ok(piece)) if image.len() as u64 + piece.len() as u64 > max => return Err(too_large()),
            Some(Ok(piece)) => image.extend_from_slice(&piece),
        }
    }
}

/// Long work: each step as it comes, or the last one.
async fn told(headers: &HeaderMap, mut steps: BoxStream<'static, AdminStep>) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if accept.contains("text/event-stream") {
        let events = steps.map(|step| {
            let (name, what) = match step {
                AdminStep::Progress(what) => ("progress", what),
                AdminStep::Done(what) => ("done", what),
                AdminStep::Refused(why) => ("refused", why),
            };
            Ok::<_, Infallible>(Event::default().event(name).data(what.to_string()))
        });
        return Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    }
    while let Some(step) = steps.next().await {
        match step {
            AdminStep::Progress(_) => {}
            AdminStep::Done(what) => return axum::Json(what).into_response(),
            AdminStep::Refused(why) => return refused(why),
        }
    }
    Problem::edge(EdgeCode::Timeout).into_response()
}
