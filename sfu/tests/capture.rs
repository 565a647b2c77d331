//! Sound in step with the picture: what an uplink or a trunk does to one track doesn't move it on the capture line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use async_trait::async_trait;
use client::media::{MediaClientError, Publisher, PublisherOptions, Seen, Signal, Viewer};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use support::{Direct, Node, nodes, until};
use tokio::net::UdpSocket;

/// What the uplink holds sound back.
const HELD: Duration = Duration::from_millis(80);
/// Opus, as the synthetic seller numbers it.
const OPUS: u8 = 111;

/// A seller whose only way to its node holds its sound back, and the reports on it.
struct Uplink {
    inner: Direct,
    held: Duration,
}

#[async_trait]
impl Signal for Uplink {
    async fn offer(&self, sdp: String) -> Result<(String, String), MediaClientError> {
        // Without candidates in the offer the node can't find a way around the wire.
        let candidates = |line: &&str| !line.starts_with("a=candidate");
        let sdp = sdp
            .lines()
            .filter(candidates)
            .map(|line| format!("{line}\r\n"))
            .collect();
        let (answer, session) = self.inner.offer(sdp).await?;
        let candidate = answer
            .lines()
            .find(|l| l.starts_with("a=candidate"))
            .expect("a candidate");
        let port: u16 = candidate.split(' ').nth(5).unwrap().parse().unwrap();
        let target = SocketAddr::new(self.inner.media.udp_addr().ip(), port);
        let wire = wire(target, self.held).await;
        Ok((answer.replace(&port.to_string(), &wire.port().to_string()), session))
    }

    async fn end(&self, session: &str) {
        self.inner.end(session).await;
    }
}

/// The sender of a datagram's first stream: SRTP and SRTCP leave it readable.
fn ssrc(bytes: &[u8]) -> Option<u32> {
    let at = if is_rtcp(bytes) { 4 } else { 8 };
    let media = bytes.first().is_some_and(|first| (128..192).contains(first));
    let word = bytes.get(at..at + 4).filter(|_| media)?;
    Some(u32::from_be_bytes(word.try_into().unwrap()))
}

fn is_rtcp(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|second| (192..224).contains(second))
}

/// Carries to `target` and back; what is of the stream whose packets are Opus, later.
async fn wire(target: SocketAddr, held: Duration) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
    let address = front.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut sound = None;
        let mut buffer = vec![0; 2048];
        while let Ok((length, from)) = front.recv_from(&mut buffer).await {
            let bytes = buffer[..length].to_vec();
            if let std::collections::hash_map::Entry::Vacant(e) = backs.entry(from) {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
                back.connect(target).await.expect("connected");
                e.insert(back.clone());
                let front = front.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 2048];
                    while let Ok(length) = back.recv(&mut buffer).await {
                        let _ = front.send_to(&buffer[..length], from).await;
                    }
                });
            }
            let back = backs[&from].clone();
            let stream = ssrc(&bytes);
            if stream.is_some() && !is_rtcp(&bytes) && bytes[1] & 0x7f == OPUS {
                sound = stream;
            }
            let held = if stream.is_some() && stream == sound {
                held
            } else {
                Duration::ZERO
            };
            tokio::spawn(async move {
                if !held.is_zero() {
                    tokio::time::sleep(held).await;
                }
                let _ = back.send(&bytes).await;
            });
        }
    });
    address
}

fn publish(node: &Node, held: Duration) -> Publisher {
    let inner = node.whip("lamp");
    Publisher::start(PublisherOptions::default(), Arc::new(Uplink { inner, held })).unwrap()
}

/// How much later sound comes than the picture of the same moment, by what the viewer's node reports; ms.
fn apart(seen: &Seen) -> Option<i64> {
    Some((seen.audio_late_us? - seen.video_late_us?) / 1_000)
}

/// Waits until a viewer's reports tell that sound comes `expect` ms after the picture, a player's frame more or less.
async fn told(viewer: &Viewer, expect: i64) {
    until(viewer, &format!("reports that tell of {expect} ms"), |seen| {
        apart(seen).is_some_and(|apart| (apart - expect).abs() <= 25)
    })
    .await;
}

/// Reports at the origin and behind a relay tell how late the sound is, so that a player can put it back in step.
async fn check(held: Duration) {
    let mut nodes = nodes(&["east", "west"]).await;
    let publisher = publish(&nodes[0], held);
    nodes[0].up().await;
    let viewers = [nodes[0].view("lamp", 1), nodes[1].view("lamp", 1)];
    for viewer in &viewers {
        told(viewer, held.as_millis() as i64).await;
    }
    for viewer in viewers {
        viewer.stop().await;
    }
    publisher.stop().await;
    for node in &nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_and_picture_that_come_together_are_in_step() {
    check(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_that_the_uplink_holds_back_keeps_its_place() {
    check(HELD).await;
}
