//! HTTP: every row of `docs/protocol.md`.
//!
//! Handlers live by subject (`auctions`, `read`, `people`, `media`, `cluster`, `admin`); this file is the table of routes and what
//! holds for all of them: a deadline, bounded bodies, problems instead of bare statuses, security headers. Answers may be
//! read by any page (`Access-Control-Allow-Origin: *`): authority comes only from a bearer token that a page must hold,
//! never from a cookie, and a page of one node goes on at another when its own is gone.

mod admin;
mod ask;
mod auctions;
mod cluster;
mod copies;
mod media;
mod openapi;
mod people;
mod read;

use crate::{
    edge::State,
    pages,
    problem::{EdgeCode, Problem},
    socket,
};
pub(crate) use ask::{AuctionPath, Caller, Json, Key, Peer, Signed};
use axum::{
    Router,
    extract::{Request, State as FromState, ws::WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    handler::Handler,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
pub use openapi::openapi;
pub(crate) use read::PAGES;
use std::{sync::Arc, time::Duration};
use tower_http::compression::CompressionLayer;

/// The whole edge as one router.
pub(crate) fn app(state: Arc<State>, extra: Router) -> Router {
    Router::new()
        .route("/api/v1/openapi.json", get(openapi::serve))
        .route("/api/v1/auth/guest", post(people::guest))
        .route("/api/v1/cluster", get(cluster::status))
        .route("/api/v1/admin/nodes/{id}/stop", post(cluster::stop))
        .route("/api/v1/admin/overview", get(admin::overview))
        .route("/api/v1/admin/events", get(admin::events))
        .route("/api/v1/admin/shards/{id}", get(admin::explain))
        .route("/api/v1/admin/shards/{id}/leader", post(admin::transfer))
        .route("/api/v1/admin/changes", post(admin::change))
        .route("/api/v1/admin/versions", get(admin::versions))
        .route("/media/{session}", delete(media::end).patch(media::patch))
        .merge(of_auctions(&state))
        .method_not_allowed_fallback(async || Problem::edge(EdgeCode::Method))
        .with_state(state.clone())
        .merge(extra)
        .fallback(fallback.layer(CompressionLayer::new()))
        .layer(middleware::from_fn_with_state(state.clone(), within_time))
        .merge(of_copies(&state))
        .layer(middleware::from_fn_with_state(state, headers))
}

/// What takes as long as a shard's history is.
fn of_copies(state: &Arc<State>) -> Router {
    Router::new()
        .route("/api/v1/admin/shards/{id}/image", get(copies::image))
        .route("/api/v1/admin/shards/{id}/restore", post(copies::restore))
        .route("/api/v1/admin/shards/{id}/unsafe-recover", post(copies::recover))
        .method_not_allowed_fallback(async || Problem::edge(EdgeCode::Method))
        .with_state(state.clone())
}

/// What speaks of an auction, and so of its shard: closed until the map says how many shards there are.
fn of_auctions(state: &Arc<State>) -> Router<Arc<State>> {
    Router::new()
        .route("/api/v1/auctions", get(read::list).post(auctions::create))
        .route("/api/v1/auctions/{id}", get(read::one).put(auctions::edit))
        .route("/api/v1/auctions/{id}/schedule", post(auctions::schedule))
        .route("/api/v1/auctions/{id}/start", post(auctions::start))
        .route("/api/v1/auctions/{id}/resume", post(auctions::resume))
        .route("/api/v1/auctions/{id}/pause", post(auctions::pause))
        .route("/api/v1/auctions/{id}/extend", post(auctions::extend))
        .route("/api/v1/auctions/{id}/cancel", post(auctions::cancel))
        .route("/api/v1/auctions/{id}/bids", post(auctions::bid))
        .route("/api/v1/auctions/{id}/events", get(read::events))
        .route("/api/v1/auctions/{id}/export", get(read::export))
        .route("/api/v1/auctions/{id}/chat", get(read::chat))
        .route("/whip/{id}", post(media::publish))
        .route("/whep/{id}", post(media::watch))
        .route("/ws", get(ws))
        .route_layer(middleware::from_fn_with_state(state.clone(), map_known))
}

/// A node that just started serves before it has the map. Without it every auction would seem to be in shard 1, which
/// would answer 'no such auction' for good to a bid that may have been accepted, or take a new auction in at the wrong
/// place. Nothing was judged: come back soon.
async fn map_known(FromState(state): FromState<Arc<State>>, request: Request, next: Next) -> Response {
    if state.routes.map().shards > 0 {
        return next.run(request).await;
    }
    let problem = Problem {
        retry_after_s: Some(1),
        ..Problem::edge(EdgeCode::Unavailable)
    };
    problem.into_response()
}

async fn ws(
    FromState(state): FromState<Arc<State>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => socket::upgrade(state, upgrade),
        Err(why) => Problem::edge(EdgeCode::BadRequest)
            .because(why.body_text())
            .into_response(),
    }
}

/// Pages, packed for those who can unpack them. (Answers of the API are small, and packing costs where it hurts.)
async fn fallback(method: Method, uri: Uri, request: Request) -> Response {
    let ours = ["/api/", "/whip/", "/whep/", "/media/"];
    if ours.iter().any(|p| uri.path().starts_with(p)) {
        return Problem::edge(EdgeCode::NoSuchPath).into_response();
    }
    if method != Method::GET && method != Method::HEAD {
        return Problem::edge(EdgeCode::Method).into_response();
    }
    pages::page(uri.path(), request.headers())
}

/// No request takes longer than `request_ms` to be answered (a body that streams afterwards has its own pace).
async fn within_time(FromState(state): FromState<Arc<State>>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(Duration::from_millis(state.options.request_ms), next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::edge(EdgeCode::Timeout).into_response(),
    }
}

const CORS: [(HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, idempotency-key, traceparent",
    ),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "location, retry-after, etag"),
];

const SECURITY: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(self), microphone=(self), display-capture=(self), geolocation=(), payment=()",
    ),
    ("x-frame-options", "DENY"),
];

async fn headers(FromState(state): FromState<Arc<State>>, request: Request, next: Next) -> Response {
    let preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut response = StatusCode::NO_CONTENT.into_response();
        response
            .headers_mut()
            .insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in CORS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in SECURITY {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&policy(&state.edges())) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    // Answers of the API are of this moment; pages say for themselves how long they hold.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The content security policy: nothing but our own files, connections only to this cluster's nodes.
fn policy(edges: &[String]) -> String {
    let mut connect = String::from("'self'");
    for edge in edges {
        let edge = edge.trim_end_matches('/');
        // A node's URL comes from the operator's map; anything that could end the directive is left out.
        if edge.contains([';', ',', ' ', '\'']) || !edge.starts_with("http") {
            continue;
        }
        connect.push_str(&format!(" {edge} {}", edge.replacen("http", "ws", 1)));
    }
    format!(
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
         media-src 'self' blob: mediastream:; worker-src 'self' blob:; connect-src {connect}; object-src 'none'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::policy;

    #[test]
    fn pages_connect_to_this_cluster_only() {
        let edges = [
            "http://10.0.0.2:8080/",
            "https://b.example",
            "javascript:x",
            "http://x; script-src *",
        ];
        let policy = policy(&edges.map(String::from));
        assert!(policy.contains(
            "connect-src 'self' http://10.0.0.2:8080 ws://10.0.0.2:8080 https://b.example wss://b.example; object-src"
        ));
    }
}
