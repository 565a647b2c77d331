//! How long a newcomer looks at nothing: from the moment its WHEP offer is sent to the first whole picture it has.
//!
//! ```text
//!   publisher --WHIP--> node 1 (region one) --trunk--> node 2 (region one), node 3 (region two, the relay)
//!                          |                              |                    |
//!   viewers, in turn:    origin                       neighbour              relay
//! ```
//!
//! Viewers come one after another, so that each join is one join; they stay, and when all are there they watch together
//! for the set time. What a viewer lost then is told twice. By pictures: the publisher numbers them, so the numbers that a
//! viewer should have had, less the whole pictures it had. By packets: sequence numbers of its leg that never came, not even
//! when asked for again. Publisher, viewers and cluster share the machine: this tells of the path through the product, not
//! of a network, and losses are those of a crowded machine. A join includes what the viewer's own WebRTC takes, whose ICE
//! agent looks at its checks every 200 ms: much of a fast join is that wait.

use super::{fresh, open};
use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use client::{
    Api, Role,
    media::{HttpSignal, MediaClientError, Publisher, PublisherOptions, Seen, Signal, Viewer, ViewerOptions},
};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How many, how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JoinOptions {
    /// Viewers, who come one after another: by turns at the origin's node, the region's other node, the other region.
    #[arg(long, default_value_t = 30)]
    viewers: usize,
    /// They watch together for this long, and losses are counted. At most 1200: picture numbers have 15 bits.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1200))]
    seconds: u64,
    /// Shards of the cluster.
    #[arg(long, default_value_t = 8)]
    shards: u32,
}

const AUCTION: &str = "bench-join";
/// The place of the other region, in the order of nodes.
const RELAY: usize = 2;
/// Pictures that are sent before the first viewer comes: a group is there to start from.
const WARM: u64 = 40;
/// A stream that takes longer than this to start, or to reach a viewer, has failed.
const FAILED: Duration = Duration::from_secs(20);
/// After the last picture was sent: what is missing has been asked for and has come, or never will.
const DRAIN: Duration = Duration::from_secs(1);

/// WHEP, with the moment at which the offer was sent.
struct Timed {
    inner: HttpSignal,
    sent: Mutex<Option<Instant>>,
}

#[async_trait]
impl Signal for Timed {
    async fn offer(&self, sdp: String) -> Result<(String, String), MediaClientError> {
        *self.sent.lock() = Some(Instant::now());
        self.inner.offer(sdp).await
    }

    async fn end(&self, session: &str) {
        self.inner.end(session).await;
    }
}

/// A viewer at its place.
struct Watching {
    place: usize,
    viewer: Viewer,
    joined: Duration,
    /// What it had seen when the counting began.
    before: Seen,
}

/// What viewers lost together.
#[derive(Default)]
struct Lost {
    seen: u64,
    frames: u64,
    packets: u64,
    connections: u64,
}

/// Runs it; the figures as JSON.
pub(crate) async fn join(options: &JoinOptions) -> Result<serde_json::Value> {
    ensure!(
        options.viewers >= 3,
        "viewers must be at least 3, one for each place of the cluster"
    );
    let (dir, cluster, api) = fresh(options.shards).await?;
    let publisher = publish(&api, options).await?;
    let mut watching = Vec::with_capacity(options.viewers);
    for n in 0..options.viewers {
        let one = come(&api, n % api.nodes().len()).await;
        let one = one.with_context(|| format!("viewer {}", n + 1))?;
        tracing::info!(viewer = n + 1, node = one.place + 1, joined = ?one.joined, "sees a picture");
        watching.push(one);
    }
    tracing::info!(viewers = watching.len(), "all are there and watch");
    for one in &mut watching {
        one.before = one.viewer.seen().borrow().clone();
    }
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    // Without a goodbye, which could overtake the last pictures.
    publisher.leave().await;
    tokio::time::sleep(DRAIN).await;
    let figures = figures(options, &watching)?;
    for one in watching {
        one.viewer.stop().await;
    }
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    Ok(figures)
}

/// A live auction with a seller on air at the first node.
async fn publish(api: &Api, options: &JoinOptions) -> Result<Publisher> {
    let token = api.guest("seller", Role::Seller).await?.token;
    open(
        &api.with_token(&token),
        AUCTION,
        options.seconds + options.viewers as u64,
    )
    .await?;
    let url = format!("{}/whip/{AUCTION}", api.nodes()[0]);
    let signal = HttpSignal::new(vec![url], Some(token))?;
    let publisher = Publisher::start(PublisherOptions::default(), Arc::new(signal))?;
    reach(publisher.sent(), |sent| *sent >= WARM)
        .await
        .context("the seller doesn't come on air")?;
    Ok(publisher)
}

/// One viewer comes to the node at `place` and waits for its first whole picture, which is one that can be drawn.
async fn come(api: &Api, place: usize) -> Result<Watching> {
    let url = format!("{}/whep/{AUCTION}", api.nodes()[place]);
    let signal = Arc::new(Timed {
        inner: HttpSignal::new(vec![url], None)?,
        sent: Mutex::new(None),
    });
    let viewer = Viewer::start(ViewerOptions::default(), signal.clone());
    reach(viewer.seen(), |seen| seen.keyframes > 0)
        .await
        .with_context(|| format!("no picture at node {}", place + 1))?;
    let now = Instant::now();
    let before = viewer.seen().borrow().clone();
    ensure!(
        before.connections == 1,
        "it took {} connections at node {}",
        before.connections,
        place + 1
    );
    let sent = signal.sent.lock().context("an offer was sent")?;
    Ok(Watching {
        place,
        viewer,
        joined: now - sent,
        before,
    })
}

async fn reach<T>(mut channel: watch::Receiver<T>, enough: impl FnMut(&T) -> bool) -> Result<()> {
    tokio::time::timeout(FAILED, channel.wait_for(enough)).await??;
    Ok(())
}

fn figures(options: &JoinOptions, watching: &[Watching]) -> Result<serde_json::Value> {
    let ends: Vec<Seen> = watching.iter().map(|one| one.viewer.seen().borrow().clone()).collect();
    // The newest picture that anyone had is one that everyone should have had. Numbers turn over: count from one base.
    let base = watching
        .iter()
        .find_map(|one| one.before.picture)
        .context("no viewer")?;
    let newest = ends.iter().filter_map(|end| end.picture);
    let newest = newest
        .max_by_key(|picture| picture.wrapping_sub(base) & 0x7fff)
        .context("nobody saw a picture")?;
    let lost = |wanted: &dyn Fn(usize) -> bool| {
        let mut sum = Lost::default();
        for (one, end) in watching.iter().zip(&ends).filter(|(one, _)| wanted(one.place)) {
            let before = one.before.picture.unwrap_or(newest);
            let had = end.frames - one.before.frames;
            sum.seen += had;
            sum.frames += missed(before, newest, had);
            sum.packets += end.missing.saturating_sub(one.before.missing);
            sum.connections += end.connections - one.before.connections;
        }
        sum
    };
    let (all, origin, relay) = (
        lost(&|_| true),
        lost(&|place| place == 0),
        lost(&|place| place == RELAY),
    );
    let mut figures = serde_json::json!({
        "bench": "join", "viewers": options.viewers, "seconds": options.seconds,
        "frames_seen": all.seen, "frames_lost": all.frames, "packets_lost": all.packets, "reconnects": all.connections,
        "origin_frames_lost": origin.frames, "origin_packets_lost": origin.packets,
        "relay_frames_lost": relay.frames, "relay_packets_lost": relay.packets,
    });
    for (name, wanted) in [
        ("", None),
        ("origin_", Some(0)),
        ("neighbour_", Some(1)),
        ("relay_", Some(RELAY)),
    ] {
        let mut times = Histogram::<u64>::new(3)?;
        for one in watching
            .iter()
            .filter(|one| wanted.is_none_or(|place| place == one.place))
        {
            times.record(one.joined.as_micros() as u64)?;
        }
        for (quantile, word) in [(0.5, "p50"), (0.99, "p99")] {
            let ms = times.value_at_quantile(quantile) as f64 / 1e3;
            figures[format!("join_{name}ms_{word}")] = ((ms * 10.0).round() / 10.0).into();
        }
    }
    Ok(figures)
}

/// Pictures after `before` up to `newest`, less the whole ones. Never below 0: a picture from before the counting may have
/// become whole within it.
fn missed(before: u16, newest: u16, had: u64) -> u64 {
    u64::from(newest.wrapping_sub(before) & 0x7fff).saturating_sub(had)
}

#[cfg(test)]
mod tests {
    use super::missed;

    #[test]
    fn pictures_are_missed_over_the_turn_of_their_number() {
        for (before, newest, had, lost) in [
            (10, 30, 20, 0),
            (10, 30, 17, 3),
            (32_760, 12, 20, 0),
            (32_760, 12, 19, 1),
            (10, 30, 21, 0),
        ] {
            assert_eq!(missed(before, newest, had), lost, "{before}..{newest}, had {had}");
        }
    }
}
