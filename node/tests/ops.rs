//! The alert rules and the dashboard (`docs/ops`) against what nodes really say, and against the runbooks.
//!
//! ```text
//!   docs/ops/alerts.yml, dashboard.json --names of metrics--> declared in some metrics.rs?  on a real node's /metrics?
//!                      '--names of alerts--> a runbook in docs/operations.md?  a unit test?  fired for real by `chaos alerts`?
//! ```
//!
//! Whether the rules are rules, and what they say over made-up data, is `promtool`'s business (`.ci/stages lint`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Cluster, PATIENCE, auction, people};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands behind `key` in each line of a text.
fn after(text: &str, key: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(key));
    lines.map(|rest| rest.trim().to_owned()).collect()
}

/// Every expression of the rules (comments apart) and the dashboard.
fn expressions() -> String {
    let rules = read("docs/ops/alerts.yml");
    let mut all: String = rules
        .lines()
        .filter(|l| !l.trim_start().starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    let dashboard: serde_json::Value = serde_json::from_str(&read("docs/ops/dashboard.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push('\n');
            all.push_str(target["expr"].as_str().unwrap());
        }
    }
    all
}

/// Names of our metrics in a text: words that begin with `rushroom_`.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !word(c));
    words
        .filter(|w| w.starts_with("rushroom_"))
        .map(str::to_owned)
        .collect()
}

/// The names that are declared, in whatever crate.
fn declared() -> BTreeSet<String> {
    let files = ["node", "raft-store", "router", "sfu"].map(|c| read(&format!("{c}/src/metrics.rs")));
    let consts = files
        .iter()
        .flat_map(|text| text.lines().filter(|line| line.contains("const ")));
    consts.flat_map(names).collect()
}

/// A metric by the name under which it was declared: a histogram is shown in parts.
fn base(name: &str) -> &str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|part| name.strip_suffix(part))
        .unwrap_or(name)
}

#[test]
fn what_is_watched_is_declared() {
    let (watched, declared) = (names(&expressions()), declared());
    assert!(
        watched.len() > 40 && declared.len() > 50,
        "{} of {}",
        watched.len(),
        declared.len()
    );
    let unknown: Vec<_> = watched.iter().filter(|name| !declared.contains(base(name))).collect();
    assert!(
        unknown.is_empty(),
        "watched, and declared in no metrics.rs: {unknown:?}"
    );
}

#[test]
fn every_alert_has_a_runbook_a_unit_test_and_a_link() {
    let rules = read("docs/ops/alerts.yml");
    let alerts = after(&rules, "- alert:");
    assert!(alerts.len() > 20, "{alerts:?}");
    let once: BTreeSet<_> = alerts.iter().collect();
    assert_eq!(once.len(), alerts.len(), "an alert is there twice: {alerts:?}");

    let links = after(&rules, "runbook:");
    let wanted: Vec<_> = alerts
        .iter()
        .map(|a| format!("docs/operations.md#{}", a.to_lowercase()))
        .collect();
    assert_eq!(links, wanted, "each alert links the runbook of its own name");

    let operations = read("docs/operations.md");
    let headings: BTreeSet<_> = after(&operations, "### Rushroom")
        .into_iter()
        .map(|h| format!("Rushroom{h}"))
        .collect();
    assert_eq!(
        headings.iter().collect::<BTreeSet<_>>(),
        once,
        "headings of docs/operations.md (left), alerts (right)"
    );

    let tests: BTreeSet<_> = after(&read("docs/ops/alerts.test.yml"), "- alertname:")
        .into_iter()
        .collect();
    assert_eq!(
        tests.iter().collect::<BTreeSet<_>>(),
        once,
        "alerts with unit tests (left), alerts (right)"
    );
}

/// Shown by nodes that speak TLS only.
const WITH_TLS: &[&str] = &["rushroom_node_tls_left_days", "rushroom_node_tls_failed_total"];

/// Bids, a close and a leader's work make every metric that is watched appear: else an alert could be silent for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_is_on_a_real_page() {
    let cluster = Cluster::start("").await;
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, 1).await;
    let (selling, bidding) = (api.with_token(&seller.token), api.with_token(&bidders[0].token));
    selling.create(&auction("ops", 3_000)).await.unwrap();
    selling.start("ops").await.unwrap();
    bidding.bid("ops", 1_000, "b1").await.unwrap();
    let mut watched = names(&expressions());
    watched.retain(|name| !WITH_TLS.contains(&name.as_str()));
    let until = Instant::now() + PATIENCE;
    loop {
        let mut shown = BTreeSet::new();
        for node in &cluster.nodes {
            let page = reqwest::get(format!("{}/metrics", node.http))
                .await
                .unwrap()
                .text()
                .await
                .unwrap();
            let series = page.lines().filter(|line| !line.starts_with('#'));
            shown.extend(
                series
                    .filter_map(|line| line.split(['{', ' ']).next())
                    .map(str::to_owned),
            );
        }
        let missing: Vec<_> = watched.iter().filter(|name| !shown.contains(*name)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "watched, and on no node's page: {missing:?}");
        // The close is on its way.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    cluster.assert_no_panic();
}
