//! What a viewer of video costs: one seller, viewers by the hundred at the seller's own node.
//!
//! ```text
//!   this process:  seller --WHIP--> node 1 (of three) --WHEP--> 200 light viewers :this process
//! ```
//!
//! CPU is the whole process's of node 1, whatever it is spent on (its shards, its HTTP, the seller's connection), so that
//! nothing can hide; beside it each kind of thread is told apart, and what the node used with the seller alone. On loopback
//! the sender pays for the way into the receiver's socket too: a node on a network pays less.
//!
//! The seller's pictures are sent as a program sends them, each in one burst; a browser spreads them. So a picture is
//! `viewers` times its packets for one thread at once, and how long packets stay in the node (`residence`) is the length of
//! that work: told for what it is, and not to be compared with figures of evenly paced streams.

mod crowd;
mod light;

use super::{fresh, open, usage, usage::Usage};
use anyhow::{Context as _, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use client::{
    Api, Role,
    media::{HttpSignal, OnPicture, Publisher, PublisherOptions},
};
use crowd::{Crowd, Sent};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How many, how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MediaOptions {
    /// Viewers of the one stream, at the seller's node.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    viewers: u64,
    /// Measured time, after all have come.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=900))]
    seconds: u64,
    /// Viewers that join at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    joining: u64,
}

const AUCTION: &str = "bench-media";
/// The stream: pictures a second, bits a second, seconds from keyframe to keyframe, how much of it is one keyframe.
const RATE: usize = 30;
const BITS: usize = 1_500_000;
const GROUP: usize = 2 * RATE;
const KEYFRAME: usize = 25_000;
/// Pictures before the first viewer comes: a group is there to start from.
const WARM: u64 = 45;
/// The node with the seller alone is measured for this long; and nothing is counted for this long after the last viewer came.
const ALONE: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_secs(2);
const FAILED: Duration = Duration::from_secs(20);
/// What else a machine may do, percent of all cores, for the figures to be worth comparing.
const QUIET_PERCENT: f64 = 5.0;

/// Runs it; the figures as JSON.
pub(crate) async fn media(options: &MediaOptions) -> Result<serde_json::Value> {
    let before = usage::busy_percent().await?;
    let (dir, cluster, api) = fresh(8).await?;
    let node = *cluster.pids().first().context("a cluster without nodes")?;
    let sent = Arc::new(Sent::new());
    let publisher = publish(&api, options, sent.clone()).await?;
    let alone = Usage::now(&[&[node]])?;
    tokio::time::sleep(ALONE).await;
    let alone = alone.since(&[&[node]])?;
    let rss = usage::rss_mib(node)?;
    let url = format!("{}/whep/{AUCTION}", api.nodes()[0]);
    let mut crowd = Crowd::new(Arc::new(HttpSignal::new(vec![url], None)?), sent)?;
    let began = Instant::now();
    crowd.come(options.viewers as usize, options.joining as usize).await?;
    tracing::info!(viewers = options.viewers, took = ?began.elapsed(), "all are there and watch");
    tokio::time::sleep(SETTLE).await;
    let window = Window::begin(&api, node, &crowd).await?;
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let seen = window.end(&api, node, &crowd).await?;
    crowd.check().await?;
    let rss = (usage::rss_mib(node)? - rss).max(0.0);
    publisher.stop().await;
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    let mut figures = figures(options, &seen, &crowd);
    figures["node_cores_without_viewers"] = digits(alone.groups[0] / alone.seconds, 3).into();
    figures["kib_per_viewer"] = digits(rss * 1024.0 / options.viewers as f64, 1).into();
    figures["others_percent_before"] = before.into();
    figures["quiet"] = (seen.spent.others_percent().max(before) <= QUIET_PERCENT).into();
    drop((crowd, cluster, dir));
    Ok(figures)
}

/// A live auction with a seller on air at the first node.
async fn publish(api: &Api, options: &MediaOptions, sent: Arc<Sent>) -> Result<Publisher> {
    let token = api.guest("seller", Role::Seller).await?.token;
    open(&api.with_token(&token), AUCTION, options.seconds + options.viewers).await?;
    let url = format!("{}/whip/{AUCTION}", api.nodes()[0]);
    let signal = HttpSignal::new(vec![url], Some(token))?;
    let seller = PublisherOptions {
        clip: clip(),
        on_picture: Some(OnPicture::new(move |picture| {
            if let Some(number) = picture.number {
                sent.note(number, picture.at);
            }
        })),
        ..PublisherOptions::default()
    };
    let publisher = Publisher::start(seller, Arc::new(signal))?;
    let mut pictures = publisher.sent();
    let warm = tokio::time::timeout(FAILED, pictures.wait_for(|sent| *sent >= WARM)).await;
    warm.context("the seller doesn't come on air")??;
    Ok(publisher)
}

/// A group of pictures with the sizes of a live encoder's; nobody decodes them, so only their first bytes mean something.
fn clip() -> Bytes {
    let delta = (BITS / 8 / RATE * GROUP - KEYFRAME) / (GROUP - 1);
    let mut file = BytesMut::new();
    file.put_slice(b"DKIF\0\0\x20\0VP80");
    file.put_slice(&[128, 2, 104, 1]);
    for word in [RATE as u32, 1, GROUP as u32, 0] {
        file.put_u32_le(word);
    }
    for n in 0..GROUP {
        let (length, tag) = if n == 0 { (KEYFRAME, 0) } else { (delta, 1) };
        file.put_u32_le(length as u32);
        file.put_u64_le(n as u64);
        file.put_u8(tag);
        file.put_bytes(0xa5, length - 1);
    }
    file.freeze()
}

/// The counters at the beginning of the measured time.
struct Window {
    usage: Usage,
    threads: BTreeMap<String, f64>,
    metrics: Metrics,
}

/// What happened within it.
struct Seen {
    /// Of the node, and of this process.
    spent: usage::Spent,
    threads: BTreeMap<String, f64>,
    /// Residence, by upper bound in seconds.
    residence: Vec<(f64, f64)>,
    dropped: f64,
    sum: crowd::Sum,
}

impl Window {
    async fn begin(api: &Api, node: u32, crowd: &Crowd) -> Result<Window> {
        let metrics = Metrics::of(api).await?;
        let threads = usage::threads(node)?;
        crowd.begin();
        Ok(Window {
            usage: Usage::now(&[&[node], &[std::process::id()]])?,
            threads,
            metrics,
        })
    }

    async fn end(self, api: &Api, node: u32, crowd: &Crowd) -> Result<Seen> {
        let sum = crowd.sum();
        let spent = self.usage.since(&[&[node], &[std::process::id()]])?;
        let mut threads = usage::threads(node)?;
        for (name, spent) in &mut threads {
            *spent -= self.threads.get(name).copied().unwrap_or(0.0);
        }
        let metrics = Metrics::of(api).await?;
        let residence = metrics.residence.iter().zip(&self.metrics.residence);
        Ok(Seen {
            residence: residence.map(|((le, now), (_, then))| (*le, now - then)).collect(),
            dropped: metrics.dropped - self.metrics.dropped,
            spent,
            threads,
            sum,
        })
    }
}

fn figures(options: &MediaOptions, seen: &Seen, crowd: &Crowd) -> serde_json::Value {
    let Seen { spent, sum, .. } = seen;
    let viewer_seconds = options.viewers as f64 * spent.seconds;
    let packets = sum.packets as f64;
    let lanes: f64 = named(&seen.threads, "media-lane");
    let join_ms = |quantile| digits(crowd.joins.value_at_quantile(quantile) as f64 / 1e3, 1);
    let mut figures = serde_json::json!({
        "bench": "media", "viewers": options.viewers, "seconds": options.seconds,
        "cpu_per_viewer_second": digits(spent.groups[0] / viewer_seconds, 6),
        "us_per_packet": digits(spent.groups[0] * 1e6 / packets, 2),
        "lane_us_per_packet": digits(lanes * 1e6 / packets, 2),
        "packets": sum.packets, "packets_per_viewer_second": digits(packets / viewer_seconds, 1),
        "lost": sum.lost, "refused": sum.refused, "dropped_by_node": seen.dropped,
        "delay_ms_p50": digits(crowd.delay_ms(0.5), 2), "delay_ms_p99": digits(crowd.delay_ms(0.99), 2),
        "join_ms_p50": join_ms(0.5), "join_ms_p99": join_ms(0.99),
        "client_cpu_per_viewer_second": digits(spent.groups[1] / viewer_seconds, 6),
        "others_percent": spent.others_percent(),
    });
    for (name, at) in [("residence_ms_p50", 0.5), ("residence_ms_p99", 0.99)] {
        figures[name] = quantile(&seen.residence, at).map(|s| digits(s * 1e3, 3)).into();
    }
    let all: f64 = seen.threads.values().sum();
    let joins = named(&seen.threads, "media-joins");
    for (name, spent_by) in [("lanes", lanes), ("joins", joins), ("rest", all - lanes - joins)] {
        figures[format!("cores_{name}")] = digits(spent_by / spent.seconds, 3).into();
    }
    figures
}

fn named(threads: &BTreeMap<String, f64>, prefix: &str) -> f64 {
    let found = threads.iter().filter(|(name, _)| name.starts_with(prefix));
    found.map(|(_, seconds)| seconds).sum()
}

fn digits(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// What the node says of its media.
#[derive(Debug, Default, PartialEq)]
struct Metrics {
    /// Cumulative, by upper bound in seconds.
    residence: Vec<(f64, f64)>,
    dropped: f64,
}

impl Metrics {
    async fn of(api: &Api) -> Result<Metrics> {
        let url = format!("{}/metrics", api.nodes()[0]);
        Ok(Metrics::parse(
            &reqwest::get(url).await?.error_for_status()?.text().await?,
        ))
    }

    fn parse(text: &str) -> Metrics {
        let mut metrics = Metrics::default();
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<f64>() else { continue };
            if name.starts_with("rushroom_media_residence_seconds_bucket{") {
                let le = name.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
                if let Some(Ok(le)) = le.map(str::parse::<f64>) {
                    metrics.residence.push((le, value));
                }
            } else if name.starts_with("rushroom_media_dropped_total{") {
                metrics.dropped += value;
            }
        }
        metrics
    }
}

/// A quantile of cumulative buckets, straight between two bounds. None: nothing was counted, or it lies above the last bound.
fn quantile(buckets: &[(f64, f64)], at: f64) -> Option<f64> {
    let (_, all) = buckets.last().filter(|(_, all)| *all > 0.0)?;
    let wanted = all * at;
    let mut below = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= wanted {
            let share = if *count > below.1 {
                (wanted - below.1) / (count - below.1)
            } else {
                1.0
            };
            return Some(below.0 + (bound - below.0) * share).filter(|value| value.is_finite());
        }
        below = (*bound, *count);
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use client::media::ivf::Clip;

    #[test]
    fn the_clip_is_the_stream_that_is_named() {
        let clip = Clip::parse(&clip()).unwrap();
        let bytes: usize = clip.frames.iter().map(Bytes::len).sum();
        let bits = bytes * 8 * RATE / clip.frames.len();
        assert_eq!((clip.rate, clip.frames.len()), ((30, 1), GROUP));
        assert!((BITS - bits) * 1000 < BITS, "{bits} bit/s");
        let keyframes = clip.frames.iter().filter(|frame| frame[0] & 1 == 0).count();
        assert_eq!(keyframes, 1);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let inf = f64::INFINITY;
        for (buckets, at, expect) in [
            (vec![], 0.5, None),
            (vec![(1.0, 0.0), (inf, 0.0)], 0.5, None),
            (vec![(1.0, 10.0), (2.0, 20.0), (inf, 20.0)], 0.5, Some(1.0)),
            (vec![(1.0, 10.0), (2.0, 20.0), (inf, 20.0)], 0.75, Some(1.5)),
            (vec![(1.0, 10.0), (inf, 20.0)], 0.99, None),
        ] {
            assert_eq!(quantile(&buckets, at), expect, "{buckets:?} at {at}");
        }
    }

    #[test]
    fn the_nodes_words_are_read() {
        let text = "# HELP x y\nrushroom_media_dropped_total{where=\"lane\"} 2\nrushroom_media_dropped_total{where=\"socket\"} 3\n\
                    rushroom_media_residence_seconds_bucket{le=\"0.001\"} 7\nrushroom_media_residence_seconds_bucket{le=\"+Inf\"} 9\n\
                    rushroom_media_residence_seconds_sum 1\n";
        let expected = Metrics {
            residence: vec![(0.001, 7.0), (f64::INFINITY, 9.0)],
            dropped: 5.0,
        };
        assert_eq!(Metrics::parse(text), expected);
    }
}
