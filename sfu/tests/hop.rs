//! A bad line between two nodes: 2 % of all datagrams are lost, both ways, and a round trip takes 80 ms. What the relay's
//! viewers miss in the end is at most one packet in 2,000.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use async_trait::async_trait;
use emulator::{Proxy, Weather};
use proto::relay::v1::{SubscribeReply, SubscribeRequest, UnsubscribeRequest};
use sfu::{ControlError, Peer, RelayControl, TonicControl};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use support::{Node, acquaint, until};
use tokio::sync::watch;

/// Of the network's dice.
const SEED: u64 = 5;
/// Auctions at once: each is some hundred packets a second.
const AUCTIONS: usize = 8;
/// Pictures that each viewer waits for.
const PICTURES: u64 = 200;

/// Names the line's ends in place of the nodes' own trunks: the parent sends down by the one, the child asks up by the other.
struct Line {
    inner: TonicControl,
    ends: watch::Receiver<Option<(SocketAddr, SocketAddr)>>,
}

#[async_trait]
impl RelayControl for Line {
    async fn subscribe(&self, peer: &Peer, mut request: SubscribeRequest) -> Result<SubscribeReply, ControlError> {
        let ends = *self.ends.borrow();
        if let Some((down, _)) = ends {
            request.trunk = down.to_string();
        }
        let mut reply = self.inner.subscribe(peer, request).await?;
        if let Some((_, up)) = ends {
            reply.trunk = up.to_string();
        }
        Ok(reply)
    }

    async fn unsubscribe(&self, peer: &Peer, request: UnsubscribeRequest) -> Result<(), ControlError> {
        self.inner.unsubscribe(peer, request).await
    }
}

async fn proxy(target: SocketAddr, weather: Weather, seed: u64) -> Proxy {
    Proxy::start(target, weather, Weather::default(), seed).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_line_between_two_nodes_costs_next_to_nothing() {
    let (name, named) = watch::channel(None);
    let line = Line {
        inner: TonicControl::plain(),
        ends: named,
    };
    let origin = Node::start(1, "east", watch::channel(None).1).await;
    let relay = Node::start_with(2, "west", Arc::new(line)).await;
    let weather = Weather {
        loss_ppm: 20_000,
        delay: Duration::from_millis(40),
        ..Weather::default()
    };
    let down = proxy(relay.media.trunk_addr(), weather, SEED).await;
    let up = proxy(origin.media.trunk_addr(), weather, SEED + 1).await;
    name.send_replace(Some((down.address, up.address)));
    let nodes = [origin, relay];
    acquaint(&nodes);
    let [mut origin, relay] = nodes;
    let auctions: Vec<String> = (0..AUCTIONS).map(|n| format!("lamp-{n}")).collect();
    let mut publishers = Vec::new();
    for auction in &auctions {
        publishers.push(origin.publish(auction));
        origin.up().await;
    }
    let viewers: Vec<_> = auctions.iter().map(|auction| relay.view(auction, 1)).collect();
    for viewer in &viewers {
        until(viewer, "the pictures", |seen| seen.frames >= PICTURES).await;
    }
    let (down, up) = (down.seen().there, up.seen().there);
    let stats = relay.media.stats();
    let (packets, lost): (u64, u64) = stats.iter().fold((0, 0), |(p, l), s| (p + s.packets, l + s.lost));
    eprintln!("{lost} of {packets} packets never came; the line: {down:?}, {up:?}");
    assert!(packets >= 4_000, "seed {SEED}: {packets} packets are too few to judge");
    assert!(
        down.lost * 100 >= down.offered && up.lost > 0,
        "seed {SEED}: the line is bad: {down:?}, {up:?}"
    );
    assert!(
        lost * 2_000 <= packets,
        "seed {SEED}: {lost} of {packets} packets never came; the line lost {down:?}, {up:?}"
    );
    for viewer in viewers {
        viewer.stop().await;
    }
    for publisher in publishers {
        publisher.stop().await;
    }
    relay.stop().await;
    origin.stop().await;
}
