//! One bid's trace: browser's context -> edge of one node -> leader on another -> log -> feed of every replica, as an
//! OTLP collector receives it.
//!
//! `RUSHROOM_TEST_OTLP_GRPC` and `RUSHROOM_TEST_OTLP_QUERY` name a running `.ci/services/otel`; without them the test
//! starts one in a folder of its own (which needs what `.ci/services/otel install` fetches).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Cluster, auction, people};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The spans of a bid, from the edge to the feed.
const WAY: &[&str] = &[
    "edge.bid",
    "leader.command",
    "shard.submit",
    "log.commit",
    "feed.publish",
];
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const BROWSER: &str = "b7ad6b7169203331";

struct Collector {
    grpc: String,
    query: String,
    started: Option<PathBuf>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/services/otel")
}

impl Collector {
    fn get(dir: &Path) -> Collector {
        let given = (
            std::env::var("RUSHROOM_TEST_OTLP_GRPC"),
            std::env::var("RUSHROOM_TEST_OTLP_QUERY"),
        );
        if let (Ok(grpc), Ok(query)) = given {
            return Collector {
                grpc,
                query,
                started: None,
            };
        }
        let out = Command::new(script()).arg("start").arg(dir).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let vars: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("export ")?.split_once('='))
            .map(|(k, v)| (k, v.trim_matches('\'')))
            .collect();
        let var = |name: &str| vars[name].to_string();
        let (grpc, query) = (var("RUSHROOM_TEST_OTLP_GRPC"), var("RUSHROOM_TEST_OTLP_QUERY"));
        Collector {
            grpc,
            query,
            started: Some(dir.to_path_buf()),
        }
    }

    /// The spans of our trace with this name, once there are `min`.
    async fn spans(&self, name: &str, min: usize) -> Vec<Value> {
        let url = format!("{}/spans?trace={TRACE}&name={name}&min={min}&timeout=30", self.query);
        let answer = reqwest::get(&url).await.unwrap();
        assert!(answer.status().is_success(), "no {min} spans `{name}` arrived");
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(dir) = &self.started {
            let _ = Command::new(script()).arg("wipe").arg(dir).output();
        }
    }
}

fn text<'a>(span: &'a Value, key: &str) -> &'a str {
    span[key].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bid_is_one_trace_from_the_edge_to_every_feed() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::get(dir.path());
    let more = format!(
        "[telemetry]\notlp = '{}'\nsample_ppm = 0\n[demo]\nenabled = true",
        collector.grpc
    );
    let cluster = Cluster::start(&more).await;
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, 1).await;

    // An auction that the asked node (place 0) doesn't lead, so that the bid crosses nodes.
    let id = led_elsewhere(&cluster).await;
    let selling = api.with_token(&seller.token);
    selling.create(&auction(&id, 600_000)).await.unwrap();
    selling.start(&id).await.unwrap();

    let answer = reqwest::Client::new()
        .post(format!("{}/api/v1/auctions/{id}/bids", cluster.nodes[0].http))
        .header("authorization", format!("Bearer {}", bidders[0].token))
        .header("idempotency-key", "traced")
        .header("traceparent", format!("00-{TRACE}-{BROWSER}-01"))
        .header("content-type", "application/json")
        .body(r#"{"amount": 1000}"#)
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{:?}", answer.text().await);

    let mut spans: BTreeMap<String, Value> = BTreeMap::new();
    for name in WAY {
        let min = if *name == "feed.publish" { 3 } else { 1 };
        for span in collector.spans(name, min).await {
            spans.insert(text(&span, "span").to_string(), span);
        }
    }
    // Whatever lies between them must lead up to the browser's span too.
    for span in spans.values() {
        let mut up = span.clone();
        let mut steps = 0;
        while text(&up, "parent") != BROWSER {
            let parent = text(&up, "parent").to_string();
            up = match spans.get(&parent) {
                Some(known) => known.clone(),
                None => ancestor(&collector, &parent).await,
            };
            steps += 1;
            assert!(steps < 20, "a ring of spans above {}", text(span, "name"));
        }
    }
    let of = |name: &str| -> BTreeSet<&str> {
        let named = spans.values().filter(|s| text(s, "name") == name);
        named
            .map(|s| s["resource"]["service.instance.id"].as_str().unwrap())
            .collect()
    };
    assert_eq!(of("edge.bid"), BTreeSet::from(["1"]));
    assert_eq!(
        of("feed.publish"),
        BTreeSet::from(["1", "2", "3"]),
        "every replica publishes under the bid's trace"
    );
    assert!(
        of("leader.command").is_disjoint(&of("edge.bid")),
        "the bid crossed nodes"
    );
}

/// A span of our trace by its id.
async fn ancestor(collector: &Collector, id: &str) -> Value {
    let url = format!("{}/spans?trace={TRACE}&span={id}&min=1&timeout=30", collector.query);
    let answer = reqwest::get(&url).await.unwrap();
    assert!(
        answer.status().is_success(),
        "span {id} never arrived: the trace is broken there"
    );
    let spans: Vec<Value> = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    spans[0].clone()
}

/// An auction's id whose shard node 1 doesn't lead.
async fn led_elsewhere(cluster: &Cluster) -> String {
    let me = cluster.nodes[0].id;
    let until = std::time::Instant::now() + common::PATIENCE;
    loop {
        let known = cluster.api(0).pinned(0).cluster().await.unwrap();
        for n in 0..64 {
            let id = format!("traced-{n}");
            let shard = placement::shard_of(&id, common::SHARDS).0;
            let leader = known.shards.iter().find(|s| s.id == shard).and_then(|s| s.leader);
            if leader.is_some_and(|l| l != me) {
                return id;
            }
        }
        assert!(std::time::Instant::now() < until, "node {me} leads everything");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
