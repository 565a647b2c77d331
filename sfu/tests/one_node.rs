//! One node: what a seller publishes is what viewers see, whatever the order in which they come, and over loss.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use client::media::{Publisher, PublisherOptions, Viewer, ViewerOptions};
use sfu::StreamEvent;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Direct, Wire, is_media, more_frames, nodes, until, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_flow_and_the_end_is_told() {
    let mut nodes = nodes(&["east"]).await;
    let publisher = nodes[0].publish("lamp");
    let stream = nodes[0].up().await;
    let viewer = nodes[0].view("lamp", 1);
    let seen = until(&viewer, "a second of video and sound", |s| {
        s.frames >= 20 && s.audio_packets >= 20
    })
    .await;
    assert_eq!((seen.missing, seen.connections), (0, 1), "{seen:?}");
    assert!(seen.keyframes >= 1 && seen.picture.is_some());
    let stats = nodes[0].media.stats();
    assert_eq!(
        (stats[0].origin, stats[0].viewers, stats[0].lost),
        (true, 1, 0),
        "{stats:?}"
    );
    publisher.stop().await;
    assert_eq!(
        nodes[0].event().await,
        StreamEvent::Down {
            auction: "lamp".into(),
            stream
        }
    );
    viewer.stop().await;
    nodes[0].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_may_come_first() {
    let mut nodes = nodes(&["east"]).await;
    let viewer = nodes[0].view("lamp", 1);
    until(&viewer, "an open connection", |s| s.connected).await;
    let publisher = nodes[0].publish("lamp");
    nodes[0].up().await;
    let seen = more_frames(&viewer, 20).await;
    assert_eq!((seen.connections, seen.missing), (1, 0), "{seen:?}");
    publisher.stop().await;
    viewer.stop().await;
    nodes[0].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_starts_with_the_keyframe_that_is_here_already() {
    let mut nodes = nodes(&["east"]).await;
    let publisher = nodes[0].publish("lamp");
    nodes[0].up().await;
    let first = nodes[0].view("lamp", 1);
    until(&first, "a few frames", |s| s.frames >= 5).await;
    let second = nodes[0].view("lamp", 1);
    let seen = until(&second, "the first frame", |s| s.frames >= 1).await;
    assert!(seen.keyframes >= 1, "the first frame is a keyframe: {seen:?}");
    assert_eq!(seen.missing, 0, "what is replayed has no hole: {seen:?}");
    for viewer in [first, second] {
        viewer.stop().await;
    }
    publisher.stop().await;
    nodes[0].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_publisher_takes_over_and_viewers_stay() {
    let mut nodes = nodes(&["east"]).await;
    let once = Direct {
        once: true,
        ..nodes[0].whip("lamp")
    };
    let first = Publisher::start(PublisherOptions::default(), Arc::new(once)).unwrap();
    let one = nodes[0].up().await;
    let viewer = nodes[0].view("lamp", 1);
    more_frames(&viewer, 10).await;
    let second = nodes[0].publish("lamp");
    let two = nodes[0].up().await;
    assert_ne!(one, two);
    let seen = more_frames(&viewer, 30).await;
    assert_eq!(seen.connections, 1);
    // The first one's end is no event: its stream isn't the auction's any more.
    first.leave().await;
    second.leave().await;
    assert_eq!(
        nodes[0].event().await,
        StreamEvent::Down {
            auction: "lamp".into(),
            stream: two
        }
    );
    viewer.stop().await;
    nodes[0].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_vanishes_is_told_after_its_grace() {
    let mut nodes = nodes(&["east"]).await;
    let cut = Arc::new(AtomicBool::new(false));
    // Once: a seller who finds the wire cut doesn't come back by another.
    let by_wire = Direct {
        cut: Some(cut.clone()),
        once: true,
        ..nodes[0].whip("lamp")
    };
    let publisher = Publisher::start(PublisherOptions::default(), Arc::new(by_wire)).unwrap();
    let stream = nodes[0].up().await;
    cut.store(true, Ordering::Relaxed);
    assert_eq!(
        nodes[0].event().await,
        StreamEvent::Down {
            auction: "lamp".into(),
            stream
        }
    );
    publisher.stop().await;
    nodes[0].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_viewer_loses_it_gets_again() {
    let mut nodes = nodes(&["east"]).await;
    let publisher = nodes[0].publish("lamp");
    nodes[0].up().await;
    let wire = Wire::to(nodes[0].media.udp_addr(), 10, is_media, Arc::default()).await;
    let lossy = Direct {
        via: Some(wire.address),
        ..nodes[0].whep("lamp", 1)
    };
    let viewer = Viewer::start(ViewerOptions::default(), Arc::new(lossy));
    until(&viewer, "a while of lossy video", |s| s.frames >= 60).await;
    assert!(
        wire.lost.load(Ordering::Relaxed) >= 20,
        "the wire loses every tenth packet"
    );
    // Holes are filled as fast as new ones come: at some moment there is none.
    let seen = until(&viewer, "no packet missing", |s| s.missing == 0).await;
    assert!(seen.packets > 200, "{seen:?}");
    viewer.stop().await;
    publisher.stop().await;
    nodes[0].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_that_are_no_offers_are_refused_and_leave_nothing_behind() {
    let nodes = nodes(&["east"]).await;
    let media = &nodes[0].media;
    let long = "v=0\r\n".to_string() + &"a=x\r\n".repeat(20_000);
    for (offer, code) in [
        ("", "bad_request"),
        ("v=0\r\n", "bad_request"),
        ("<html>", "bad_request"),
        (long.as_str(), "too_large"),
    ] {
        let refused = [
            media.publish("lamp", offer).await,
            media.watch("lamp", None, offer).await,
        ];
        for result in refused {
            assert_eq!(result.expect_err("no offer").code(), code, "{:.20}", offer);
        }
    }
    for session in ["", "v-none", "p-none"] {
        assert_eq!(media.end(session).await.expect_err("no session").code(), "not_found");
        assert_eq!(
            media
                .patch(session, "a=ice-ufrag:abcd\r\n")
                .await
                .expect_err("no session")
                .code(),
            "not_found"
        );
    }
    assert!(media.stats().iter().all(|s| s.viewers == 0));
    nodes[0].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_leaves_is_forgotten() {
    let mut nodes = nodes(&["east"]).await;
    let publisher = nodes[0].publish("lamp");
    nodes[0].up().await;
    let viewer = nodes[0].view("lamp", 1);
    more_frames(&viewer, 5).await;
    viewer.stop().await;
    // The lane takes the end in turn; it is the next thing that it does.
    let media = nodes[0].media.clone();
    let gone = async {
        while media.stats().iter().any(|s| s.viewers > 0) {
            tokio::task::yield_now().await;
        }
    };
    within("the viewer to be forgotten", gone).await;
    publisher.stop().await;
    nodes[0].stop().await;
}
