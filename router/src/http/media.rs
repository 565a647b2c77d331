//! Video's door: WHIP (RFC 9725) and WHEP, handed to this node's SFU through the `Streams` port.
//!
//! The guard: only an auction's seller publishes to it, and nobody watches what isn't open. A draft can be published to
//! (a seller tries the camera first) but watched only by its seller; what is closed takes neither.

use super::{
    AuctionPath, Caller, Peer, Signed,
    ask::{body, is_type},
};
use crate::{
    auth::User,
    edge::{State, reason_of},
    ports::{Freshness, MediaAnswer, PortError},
    problem::{EdgeCode, Problem},
};
use auction::{AuctionId, AuctionView, Phase, Reason, Rights};
use axum::{
    extract::{Path, Request, State as FromState},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use placement::NodeId;
use std::{net::IpAddr, sync::Arc};

/// Whether this caller may watch (or publish).
fn guard(view: &AuctionView, user: Option<&User>, wish: Wish) -> Result<(), Problem> {
    let own = user.is_some_and(|u| u.id == view.definition.seller && u.rights.has(Rights::SELLER));
    match view.phase {
        Phase::Closed(_) => Err(Problem::reason(Reason::Closed)),
        _ if wish == Wish::Publish && !own => {
            Err(Problem::reason(Reason::Auth).because("only the auction's seller publishes"))
        }
        Phase::Draft if !own => Err(Problem::reason(Reason::NotOpen)),
        _ => Ok(()),
    }
}

/// What an offer is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Publish,
    Watch,
}

/// An offer, whichever way the pictures go: limited, read, guarded, handed to this node's SFU.
async fn offer(
    state: &State,
    auction: &AuctionId,
    user: Option<&User>,
    peer: IpAddr,
    (wish, request): (Wish, Request),
) -> Result<Response, Problem> {
    state.limit_offer(peer)?;
    let sdp = text(state, request, "application/sdp").await?;
    // Who sells it never changes, and a stale phase can only refuse: any replica will do.
    let view = state.routes.read(auction, Freshness::AtLeast(0)).await?;
    guard(&view, user, wish)?;
    let streams = &state.ports.streams;
    let answered = match wish {
        Wish::Publish => streams.publish(auction, sdp).await,
        Wish::Watch => {
            let origin = view.stream.as_ref().map(|(node, _)| NodeId(*node));
            streams.watch(auction, origin, sdp).await
        }
    };
    answered.map(answer).map_err(refused)
}

/// A body of the right type, not too large, that is text.
async fn text(state: &State, request: Request, kind: &str) -> Result<String, Problem> {
    if !is_type(request.headers(), kind) {
        return Err(Problem::edge(EdgeCode::Unsupported).because(format!("send {kind}")));
    }
    let bytes = body(request, state.options.sdp_max).await?;
    let read = String::from_utf8(bytes.into()).ok().filter(|t| !t.trim().is_empty());
    read.ok_or_else(|| Problem::edge(EdgeCode::BadRequest).because("the body is no text"))
}

fn answer(answer: MediaAnswer) -> Response {
    let location = format!("/media/{}", answer.session);
    let headers = [
        (header::LOCATION, location),
        (header::CONTENT_TYPE, "application/sdp".to_owned()),
    ];
    (StatusCode::CREATED, headers, answer.sdp).into_response()
}

fn refused(error: PortError) -> Problem {
    match error {
        PortError::NotFound => Problem::reason(Reason::NotFound),
        PortError::Refused(why) => match reason_of(&why) {
            Some(reason) => Problem::reason(reason),
            None => Problem::edge(EdgeCode::BadRequest).because(why),
        },
        PortError::Unreachable(_) | PortError::NotLeader { .. } => Problem {
            retry_after_s: Some(1),
            ..Problem::edge(EdgeCode::Unavailable)
        },
    }
}

/// A seller's stream (WHIP).
#[utoipa::path(post, path = "/whip/{id}", params(("id" = String, Path)),
    request_body(content = String, content_type = "application/sdp"),
    responses((status = 201, body = String, content_type = "application/sdp"), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 415, body = Problem)))]
pub(crate) async fn publish(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    Signed(user): Signed,
    Peer(peer): Peer,
    request: Request,
) -> Result<Response, Problem> {
    offer(&state, &auction, Some(&user), peer, (Wish::Publish, request)).await
}

/// A viewer (WHEP).
#[utoipa::path(post, path = "/whep/{id}", params(("id" = String, Path)),
    request_body(content = String, content_type = "application/sdp"),
    responses((status = 201, body = String, content_type = "application/sdp"), (status = 409, body = Problem),
        (status = 415, body = Problem)))]
pub(crate) async fn watch(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    Caller(user): Caller,
    Peer(peer): Peer,
    request: Request,
) -> Result<Response, Problem> {
    offer(&state, &auction, user.as_ref(), peer, (Wish::Watch, request)).await
}

/// A session's id is its capability; one that can't be is unknown.
fn session(text: &str) -> Result<&str, Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let fits = (1..=128).contains(&text.len()) && text.bytes().all(plain);
    if fits {
        Ok(text)
    } else {
        Err(Problem::reason(Reason::NotFound))
    }
}

/// Trickled candidates or an ICE restart.
#[utoipa::path(patch, path = "/media/{session}", params(("session" = String, Path)),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag"),
    responses((status = 200, body = String), (status = 204), (status = 404, body = Problem)))]
pub(crate) async fn patch(
    FromState(state): FromState<Arc<State>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    const KIND: &str = "application/trickle-ice-sdpfrag";
    let fragment = text(&state, request, KIND).await?;
    match state
        .ports
        .streams
        .patch(session(&id)?, fragment)
        .await
        .map_err(refused)?
    {
        Some(answer) => Ok(([(header::CONTENT_TYPE, KIND)], answer).into_response()),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// The end of a session.
#[utoipa::path(delete, path = "/media/{session}", params(("session" = String, Path)),
    responses((status = 200), (status = 404, body = Problem)))]
pub(crate) async fn end(
    FromState(state): FromState<Arc<State>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    state.ports.streams.end(session(&id)?).await.map_err(refused)?;
    Ok(StatusCode::OK)
}
