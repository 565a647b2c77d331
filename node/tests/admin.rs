//! `rushroom admin` against real nodes: what an operator sees, what is refused, and a node that comes and goes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Cluster;
use serde_json::Value;
use std::process::{Command, Output};

/// Runs one command against a node; its exit code, and what it printed.
fn admin(cluster: &Cluster, at: usize, words: &str) -> (i32, String, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args(["admin", "--node", &cluster.nodes[at].grpc, "--who", "olga"])
        .args(words.split_whitespace())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn json(cluster: &Cluster, words: &str) -> Value {
    let (code, out, err) = admin(cluster, 0, &format!("--json {words}"));
    assert_eq!(code, 0, "{words}: {err}");
    serde_json::from_str(&out).unwrap()
}

/// Replicas on a node, by the overview.
fn held(cluster: &Cluster, node: u64) -> u64 {
    let overview = json(cluster, "status");
    let nodes = overview["nodes"].as_array().unwrap();
    nodes
        .iter()
        .find(|n| n["id"] == node)
        .map_or(0, |n| n["replicas"].as_u64().unwrap())
}

/// A cluster of three becomes four and three again, by what an operator types; each command by another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_and_goes() {
    let mut cluster = Cluster::start("").await;
    cluster.admit(4, "d").await;
    let (code, _, err) = admin(&cluster, 1, "rebalance --wait --timeout 60");
    assert_eq!(code, 0, "{err}");
    assert!(
        held(&cluster, 4) > 0,
        "the new node holds nothing: {:#}",
        json(&cluster, "status")
    );

    let shown = json(&cluster, "node drain 4 --dry-run");
    assert_eq!(shown["stored"], false);
    assert!(!shown["moves"].as_array().unwrap().is_empty(), "{shown:#}");
    assert!(held(&cluster, 4) > 0, "a dry run moved something");
    let (code, _, err) = admin(&cluster, 3, "node drain 4 --wait --timeout 60");
    assert_eq!(code, 0, "{err}");
    assert_eq!(held(&cluster, 4), 0);
    let (code, _, err) = admin(&cluster, 2, "node decommission 4 --wait --timeout 60");
    assert_eq!(code, 0, "{err}");

    let overview = json(&cluster, "ops list");
    let said: Vec<&str> = overview["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["what"].as_str().unwrap())
        .collect();
    assert_eq!(
        said,
        ["node 4 joins", "rebalance", "node 4 drains", "node 4 goes for good"]
    );
}

/// Columns: command | exit code | what the operator is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_refused_with_its_reason() {
    let cluster = Cluster::start("").await;
    let rows = [
        ("node drain 9", 1, "refused [unknown_node]: there is no node 9"),
        (
            "node decommission 3",
            1,
            "refused [too_few]: only 2 nodes would take shards, and each shard wants 3 replicas (--force",
        ),
        (
            "shard move 1 --from 1 --to 2",
            1,
            "refused [there]: node 2 has a replica of shard 1 already",
        ),
        ("plan cancel", 1, "refused [nothing_to_cancel]"),
        (
            "plan apply --version 99",
            1,
            "refused [stale]: the plan is of version 99",
        ),
        (
            "cluster upgrade --to 1",
            1,
            "refused [not_newer]: the cluster is at version 1",
        ),
        (
            "cluster upgrade --to 9",
            1,
            "refused [version_newer]: node 1: its build knows up to cluster version 1, not 9",
        ),
        ("shard transfer-leader 1 --to 9", 1, "node 9 has no replica of shard 1"),
        ("shard explain 99", 1, "there is no shard 99"),
        ("shard explain", 2, "required arguments"),
    ];
    for (words, expected, told) in rows {
        let (code, _, err) = admin(&cluster, 0, words);
        assert!(code == expected && err.contains(told), "{words}: {code} {err}");
    }
    let unreached = Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args(["admin", "--node", "127.0.0.1:1", "status"])
        .output()
        .unwrap();
    assert_eq!(unreached.status.code(), Some(3));
    assert_eq!(json(&cluster, "status")["version"], 0, "something was stored");
    let versions = json(&cluster, "cluster version");
    assert_eq!(versions["cluster_version"], 1);
    let nodes = versions["nodes"].as_array().unwrap();
    assert!(
        nodes.len() == 3 && nodes.iter().all(|n| n["knows_up_to"] == 1),
        "{versions:#}"
    );
}

/// Leadership goes where it is sent, and the tables are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_sent() {
    let cluster = Cluster::start("").await;
    let overview = json(&cluster, "shard list");
    let shard = &overview["shards"].as_array().unwrap()[1];
    let (id, leader) = (shard["id"].as_u64().unwrap(), shard["leader"].as_u64().unwrap());
    let to = shard["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_u64)
        .find(|n| *n != leader)
        .unwrap();
    let (code, out, err) = admin(&cluster, 2, &format!("shard transfer-leader {id} --to {to}"));
    assert_eq!(
        (code, out.as_str()),
        (0, format!("shard {id} is led by node {to}\n").as_str()),
        "{err}"
    );
    // Away from there, to whoever can: it is in the audit, too.
    let (code, _, err) = admin(&cluster, 2, &format!("shard transfer-leader {id}"));
    assert_eq!(code, 0, "{err}");
    let audit = json(&cluster, "status")["audit"].to_string();
    let note = format!("shard {id}: leadership away from node {to}");
    assert!(audit.contains(&note) && audit.contains("olga"), "{audit}");
    for (words, has) in [
        ("status", "8 shards: 9 of 9 led"),
        ("node list", "STANDING"),
        ("shard list", "0 (map)"),
        ("plan show", "0 replicas would move"),
        ("shard explain 1", "HELD/BOUND"),
        ("shard top", "LIVE"),
        ("plan history", "OUTCOME"),
        ("completion bash", "rushroom"),
    ] {
        let (code, out, err) = admin(&cluster, 0, words);
        assert!(code == 0 && out.contains(has), "{words}: {code}\n{out}\n{err}");
    }
}
