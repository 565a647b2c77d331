//! What handlers ask of a request: who calls, under which key, with what body. Each failure is a coded problem.

use crate::{
    auth::User,
    edge::State,
    problem::{EdgeCode, Problem},
};
use auction::{AuctionId, Id, Reason};
use axum::{
    body::{Bytes, to_bytes},
    extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// Whoever calls, if they say who. A token that proves nobody is refused even where none is needed.
pub(crate) struct Caller(pub(crate) Option<User>);

impl FromRequestParts<Arc<State>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Caller, Problem> {
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
            return Ok(Caller(None));
        };
        let token = value.to_str().ok().and_then(|v| {
            let (scheme, token) = v.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let token = token.ok_or_else(|| Problem::unsigned("Authorization is no bearer token"))?;
        state
            .tokens
            .verify(token)
            .map(|user| Caller(Some(user)))
            .map_err(|why| {
                tracing::debug!(%why, "a token was refused");
                Problem::unsigned(&why.to_string())
            })
    }
}

/// A caller who must be signed in.
pub(crate) struct Signed(pub(crate) User);

impl FromRequestParts<Arc<State>> for Signed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Signed, Problem> {
        let Caller(user) = Caller::from_request_parts(parts, state).await?;
        user.map(Signed).ok_or_else(|| Problem::unsigned("a token is needed"))
    }
}

/// The peer's address, for limits.
pub(crate) struct Peer(pub(crate) IpAddr);

impl FromRequestParts<Arc<State>> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Peer, Problem> {
        // Forwarded headers are not believed: whoever proxies limits by itself, or is limited as one.
        let address = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|info| info.0.ip());
        Ok(Peer(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

/// The auction that a path names. What can't be an id names no auction.
pub(crate) struct AuctionPath(pub(crate) AuctionId);

impl FromRequestParts<Arc<State>> for AuctionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<AuctionPath, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|Path(text)| Id::parse(&text));
        id.map(AuctionPath).ok_or_else(|| Problem::reason(Reason::NotFound))
    }
}

/// The `Idempotency-Key`, if any.
pub(crate) struct Key(pub(crate) Option<Id>);

impl FromRequestParts<Arc<State>> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Key, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(Key(None));
        };
        let id = value.to_str().ok().and_then(Id::parse);
        let wrong = || Problem::reason(Reason::Invalid).because("Idempotency-Key: 1 to 64 of A-Z a-z 0-9 _ -");
        id.map(|id| Key(Some(id))).ok_or_else(wrong)
    }
}

/// A body of at most `max` bytes.
pub(crate) async fn body(request: Request, max: usize) -> Result<Bytes, Problem> {
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let too_large = || Problem::edge(EdgeCode::TooLarge).because(format!("at most {max} bytes"));
    if declared.is_some_and(|n| n > max as u64) {
        return Err(too_large());
    }
    to_bytes(request.into_body(), max).await.map_err(|error| {
        // The library wraps both cases in one type; what isn't the limit is a client that hung up or lied.
        let limit = std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("limit"));
        if limit {
            too_large()
        } else {
            Problem::edge(EdgeCode::BadRequest)
        }
    })
}

/// Whether the content type is `expected` (parameters aside).
pub(crate) fn is_type(headers: &HeaderMap, expected: &str) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case(expected)
}

/// A JSON body. None at all is `{}`.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<State>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<State>) -> Result<Json<T>, Problem> {
        let json = is_type(request.headers(), "application/json");
        let bytes = body(request, state.options.body_max).await?;
        if !json && !bytes.is_empty() {
            return Err(Problem::edge(EdgeCode::Unsupported).because("send application/json"));
        }
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        // Serde would also read a struct from an array, field by field: nobody means that.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(bytes);
            return Err(parsed.map_or_else(
                |error| Problem::json(&error),
                |_| Problem::edge(EdgeCode::BadRequest).because("the body is a JSON object"),
            ));
        }
        serde_json::from_slice(bytes)
            .map(Json)
            .map_err(|error| Problem::json(&error))
    }
}
