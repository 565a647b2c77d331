//! Media alone: two nodes in two regions in one process, a page to publish and watch with a browser, no auction.
//!
//! ```text
//!   cargo run -p sfu --example solo -- [--clip]      then open the URL that it prints
//!   /?publish   the browser sells: a drawn counter by WHIP     (or --clip: the synthetic seller does)
//!   /           a viewer at the origin;   /?far   a viewer at the relay in the other region
//! ```
//!
//! The page shows, and keeps in `window.seen`, what it measured: ms from the offer to the first picture, pictures
//! decoded, and the picture's number as read from the drawn bar code.

#![allow(clippy::print_stdout)]

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{delete, get, post};
use client::media::{HttpSignal, Publisher, PublisherOptions};
use sfu::{Media, MediaError, Options, Peer, StreamEvent, TonicControl};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

const PAGE: &str = include_str!("solo.html");

#[derive(Clone)]
struct Nodes {
    near: Media,
    far: Media,
}

fn refused(error: MediaError) -> Response {
    (StatusCode::BAD_REQUEST, error.to_string()).into_response()
}

fn created(answer: Result<sfu::Answer, MediaError>) -> Response {
    match answer {
        Ok(answer) => {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("application/sdp"),
            );
            if let Ok(location) = format!("/media/{}", answer.session).parse() {
                headers.insert(header::LOCATION, location);
            }
            (StatusCode::CREATED, headers, answer.sdp).into_response()
        }
        Err(error) => refused(error),
    }
}

async fn whip(State(nodes): State<Nodes>, Path(auction): Path<String>, offer: String) -> Response {
    created(nodes.near.publish(&auction, &offer).await)
}

async fn whep(State(nodes): State<Nodes>, Path(auction): Path<String>, offer: String) -> Response {
    created(nodes.near.watch(&auction, Some(1), &offer).await)
}

async fn far(State(nodes): State<Nodes>, Path(auction): Path<String>, offer: String) -> Response {
    created(nodes.far.watch(&auction, Some(1), &offer).await)
}

async fn end(State(nodes): State<Nodes>, Path(session): Path<String>) -> StatusCode {
    match (nodes.near.end(&session).await, nodes.far.end(&session).await) {
        (Err(_), Err(_)) => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

async fn stats(State(nodes): State<Nodes>) -> String {
    format!("near {:?}\nfar  {:?}\n", nodes.near.stats(), nodes.far.stats())
}

async fn node(id: u64, region: &str) -> outcome::Result<(Media, watch::Sender<Vec<Peer>>, Peer)> {
    let (peers, peers_in) = watch::channel(Vec::new());
    let (events, mut events_in) = mpsc::channel::<StreamEvent>(16);
    let options = Options {
        node: id,
        region: region.into(),
        ..Options::default()
    };
    let media = Media::start(options, peers_in, events, Arc::new(TonicControl::plain())).await?;
    tokio::spawn(async move {
        while let Some(event) = events_in.recv().await {
            println!("node {id}: {event:?}");
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let grpc = listener.local_addr()?.to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(media.relay_service())
            .serve_with_incoming(incoming),
    );
    let peer = Peer {
        node: id,
        region: region.into(),
        trunk: media.trunk_addr(),
        grpc,
    };
    Ok((media, peers, peer))
}

/// Any error ends an example.
mod outcome {
    pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
}

#[tokio::main]
async fn main() -> outcome::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let (near, near_peers, first) = node(1, "east").await?;
    let (far_media, far_peers, second) = node(2, "west").await?;
    near_peers.send_replace(vec![first.clone(), second.clone()]);
    far_peers.send_replace(vec![first, second]);
    let nodes = Nodes { near, far: far_media };
    let app = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/whip/{auction}", post(whip))
        .route("/whep/{auction}", post(whep))
        .route("/far/whep/{auction}", post(far))
        .route("/media/{session}", delete(end))
        .route("/stats", get(stats))
        .with_state(nodes.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    println!("{base}");
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let seller = match std::env::args().any(|arg| arg == "--clip") {
        true => {
            let signal = HttpSignal::new(vec![format!("{base}/whip/lamp")], None)?;
            Some(Publisher::start(PublisherOptions::default(), Arc::new(signal))?)
        }
        false => None,
    };
    tokio::signal::ctrl_c().await?;
    if let Some(seller) = seller {
        seller.stop().await;
    }
    nodes.far.shutdown().await;
    nodes.near.shutdown().await;
    server.abort();
    Ok(())
}
