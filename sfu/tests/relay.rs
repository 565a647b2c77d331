//! Two nodes and more: a relay pulls on demand, one copy, and gives back what it lost on the way.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use support::{Node, Wire, acquaint, more_frames, nodes, until, within};
use tokio::sync::watch;

/// A trunk datagram that carries a picture: larger than any other frame, of which that of a capture line is the largest (63 bytes sealed, and 4 for each node of the way).
fn is_trunk_media(bytes: &[u8]) -> bool {
    bytes.len() > 100
}

/// Origin 1 in the east and relay 2 in the west, with a wire for what comes down.
async fn pair(every: u64) -> (Node, Node, Wire) {
    let (rewire, wired) = watch::channel(None);
    let origin = Node::start(1, "east", watch::channel(None).1).await;
    let relay = Node::start(2, "west", wired).await;
    let wire = Wire::to(relay.media.trunk_addr(), every, is_trunk_media, Arc::default()).await;
    rewire.send_replace(Some(wire.address));
    let mut both = vec![origin, relay];
    acquaint(&both);
    let relay = both.pop().unwrap();
    (both.pop().unwrap(), relay, wire)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_viewers_behind_a_relay_are_one_copy() {
    let (mut origin, relay, wire) = pair(0).await;
    let publisher = origin.publish("lamp");
    origin.up().await;
    let viewers = [relay.view("lamp", 1), relay.view("lamp", 1), relay.view("lamp", 1)];
    for viewer in &viewers {
        more_frames(viewer, 40).await;
    }
    let (carried, stats) = (wire.carried.load(Ordering::Relaxed), relay.media.stats());
    assert_eq!(
        (stats[0].origin, stats[0].viewers, stats[0].lost),
        (false, 3, 0),
        "{stats:?}"
    );
    // Silence is small: what is counted on the wire is video, and at most a few packets are on their way.
    assert!(
        carried <= stats[0].packets + 20,
        "one copy: {carried} datagrams, {} packets",
        stats[0].packets
    );
    for viewer in viewers {
        let seen = viewer.seen().borrow().clone();
        assert_eq!(seen.missing, 0, "{seen:?}");
        viewer.stop().await;
    }
    let media = relay.media.clone();
    let forgotten = async {
        while !media.stats().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within("the last viewer to end the subscription", forgotten).await;
    publisher.stop().await;
    relay.stop().await;
    origin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_trunk_loses_is_asked_for_again() {
    let (mut origin, relay, wire) = pair(7).await;
    let publisher = origin.publish("lamp");
    origin.up().await;
    let viewer = relay.view("lamp", 1);
    more_frames(&viewer, 80).await;
    let lost = wire.lost.load(Ordering::Relaxed);
    let stats = relay.media.stats();
    assert!(lost >= 20, "the wire loses every seventh datagram");
    assert_eq!(stats[0].lost, 0, "every one of {lost} came again: {stats:?}");
    until(&viewer, "no packet missing", |s| s.missing == 0).await;
    viewer.stop().await;
    publisher.stop().await;
    relay.stop().await;
    origin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relays_viewer_may_come_before_the_seller() {
    let mut nodes = nodes(&["east", "west"]).await;
    let viewer = nodes[1].view("lamp", 1);
    until(&viewer, "an open connection", |s| s.connected).await;
    let publisher = nodes[0].publish("lamp");
    nodes[0].up().await;
    more_frames(&viewer, 20).await;
    publisher.stop().await;
    viewer.stop().await;
    for node in &nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_follow_a_seller_who_moves_to_another_node() {
    let mut nodes = nodes(&["east", "west", "west"]).await;
    let first = nodes[0].publish("lamp");
    nodes[0].up().await;
    let viewers = [
        nodes[0].view("lamp", 1),
        nodes[1].view("lamp", 1),
        nodes[2].view("lamp", 1),
    ];
    for viewer in &viewers {
        more_frames(viewer, 10).await;
    }
    nodes.iter().for_each(|node| node.media.set_origin("lamp", Some(1)));
    first.leave().await;
    let second = nodes[1].publish("lamp");
    nodes[1].up().await;
    nodes.iter().for_each(|node| node.media.set_origin("lamp", Some(2)));
    for viewer in &viewers {
        let seen = more_frames(viewer, 30).await;
        assert_eq!(seen.connections, 1, "{seen:?}");
    }
    for viewer in viewers {
        viewer.stop().await;
    }
    second.stop().await;
    for node in &nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_of_a_relay_carries_on() {
    // Three nodes in the west: two of them are served by the third, the region's root.
    let mut nodes = nodes(&["east", "west", "west", "west"]).await;
    let publisher = nodes[0].publish("lamp");
    nodes[0].up().await;
    let viewers = [
        nodes[1].view("lamp", 1),
        nodes[2].view("lamp", 1),
        nodes[3].view("lamp", 1),
    ];
    for viewer in &viewers {
        let seen = more_frames(viewer, 30).await;
        assert_eq!(seen.missing, 0, "{seen:?}");
    }
    for viewer in viewers {
        viewer.stop().await;
    }
    publisher.stop().await;
    for node in &nodes {
        node.stop().await;
    }
}
