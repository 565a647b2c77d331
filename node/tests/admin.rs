//! `rushroom admin` against real nodes: what an operator sees, what is refused, and a node that comes and goes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use client::Role;
use common::{Cluster, SHARDS, auction};
use serde_json::Value;
use std::process::{Command, Output};

/// Runs one command against a node; its exit code, and what it printed.
fn admin(cluster: &Cluster, at: usize, words: &str) -> (i32, String, String) {
    let words: Vec<&str> = words.split_whitespace().collect();
    said(cluster, at, &words)
}

/// The same, of words that may be empty or hold spaces.
fn said(cluster: &Cluster, at: usize, words: &[&str]) -> (i32, String, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args(["admin", "--node", &cluster.nodes[at].grpc, "--who", "olga"])
        .args(words)
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

/// What was changed, by the audit.
fn audited(cluster: &Cluster) -> Vec<String> {
    let overview = json(cluster, "ops list");
    let said = overview["audit"].as_array().unwrap();
    said.iter().map(|s| s["what"].as_str().unwrap().to_owned()).collect()
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

/// A weight of 0 empties a node. While moves are paused nothing comes of it: whoever waits for it gives up, and it can be taken
/// back. What is taken back doesn't come after all once moves go on.
fn a_weight_is_waited_for_and_taken_back(cluster: &Cluster) {
    let (had, come_true) = (held(cluster, 4), "done: the map has come true");
    // command | exit code | what the operator is told | replicas of node 4 then
    let table = [
        ("pause", 0, "", had),
        ("node weight 4 0 --wait --timeout 0", 4, "gave up waiting", had),
        ("plan cancel", 0, "", had),
        ("go --wait --timeout 60", 0, come_true, had),
        ("node weight 4 0 --wait --timeout 60", 0, come_true, 0),
        ("node weight 4 1 --wait --timeout 60", 0, come_true, had),
    ];
    for (words, expected, told, holds) in table {
        let (code, _, err) = admin(cluster, 2, words);
        assert!(code == expected && err.contains(told), "{words}: {code} {err}");
        assert_eq!(held(cluster, 4), holds, "{words}");
    }
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
    a_weight_is_waited_for_and_taken_back(&cluster);

    let shown = json(&cluster, "node drain 4 --dry-run");
    assert_eq!(shown["stored"], false);
    assert!(!shown["moves"].as_array().unwrap().is_empty(), "{shown:#}");
    assert!(held(&cluster, 4) > 0, "a dry run moved something");
    let (code, _, err) = admin(&cluster, 3, "node drain 4 --wait --timeout 60");
    assert_eq!(code, 0, "{err}");
    assert_eq!(held(&cluster, 4), 0);
    let (code, _, err) = admin(&cluster, 2, "node decommission 4 --wait --timeout 60");
    assert_eq!(code, 0, "{err}");

    assert_eq!(
        audited(&cluster),
        [
            "node 4 joins",
            "rebalance",
            "pause",
            "node 4 has weight 0",
            "cancel all",
            "go on",
            "node 4 has weight 0",
            "node 4 has weight 1",
            "node 4 drains",
            "node 4 goes for good"
        ]
    );
}

/// Command | exit code | what the operator is told.
const REFUSED: &[(&str, i32, &str)] = &[
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
        "cluster upgrade --to 2",
        1,
        "refused [not_newer]: the cluster is at version 2",
    ),
    (
        "cluster upgrade --to 9",
        1,
        "refused [version_newer]: node 1: its build knows up to cluster version 2, not 9",
    ),
    (
        "shard transfer-leader 1 --to 9",
        1,
        "refused [unknown_node]: there is no node 9",
    ),
    (
        "shard transfer-leader 99",
        1,
        "refused [unknown_shard]: there is no shard 99",
    ),
    ("shard explain 99", 1, "refused [unknown_shard]: there is no shard 99"),
    ("shard exclude 0 1", 1, "refused [unknown_shard]"),
    ("shard pin 1 9", 1, "refused [unknown_node]"),
    ("shard pin 1 1 --hours 8761", 2, "8761 is not in 1..=8760"),
    ("shard lift 1 1", 1, "refused [nothing_to_cancel]"),
    ("plan cancel --shard 99", 1, "refused [nothing_to_cancel]"),
    ("node weight 1 10001", 1, "refused [too_heavy]"),
    ("node weight 1 -1", 2, "unexpected argument '-1'"),
    ("node weight 1 4294967296", 2, "4294967296 is not in 0..=4294967295"),
    ("node join rubbish", 1, "rubbish"),
    (
        "rolling-restart --nodes 9 --command true",
        1,
        "refused [unknown_node]: there is no node 9",
    ),
    ("shard explain", 2, "required arguments"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_refused_with_its_reason() {
    let cluster = Cluster::start("").await;
    for (words, expected, told) in REFUSED {
        let (code, _, err) = admin(&cluster, 0, words);
        assert!(code == *expected && err.contains(told), "{words}: {code} {err}");
    }
    let long = "x".repeat(201);
    let decommission = ["node", "decommission", "3", "--force"];
    for (reason, told) in [(" ", "refused [no_reason]"), (&long, "refused [too_long]")] {
        let (code, _, err) = said(&cluster, 0, &[&decommission[..], &[reason]].concat());
        assert!(code == 1 && err.contains(told), "{reason:?}: {code} {err}");
    }
    let (code, out, _) = admin(&cluster, 0, "--json shard transfer-leader 99");
    let refused: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &refused["refused"]["code"]), (1, &"unknown_shard".into()));
    let unreached = Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args(["admin", "--node", "127.0.0.1:1", "status"])
        .output()
        .unwrap();
    assert_eq!(unreached.status.code(), Some(3));
    assert_eq!(json(&cluster, "status")["version"], 0, "something was stored");
    let versions = json(&cluster, "cluster version");
    assert_eq!(versions["cluster_version"], 2);
    let nodes = versions["nodes"].as_array().unwrap();
    assert!(
        nodes.len() == 3 && nodes.iter().all(|n| n["knows_up_to"] == 2),
        "{versions:#}"
    );
}

/// Each exception that an operator can make is kept with its owner, shown, and taken back; a node is let in by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exceptions_are_kept_shown_and_taken_back() {
    let cluster = Cluster::start("").await;
    for (words, told) in [("shard pin 1 2 --hours 1", "pin"), ("shard exclude 2 3", "exclude")] {
        let (code, _, err) = admin(&cluster, 0, words);
        assert_eq!(code, 0, "{words}: {err}");
        let shard = words.split(' ').nth(2).unwrap();
        let (_, out, _) = admin(&cluster, 0, &format!("shard explain {shard}"));
        assert!(out.contains(told) && out.contains("olga"), "{words}: {out}");
    }
    for words in ["shard lift 1 2", "shard lift 2 3"] {
        let (code, _, err) = admin(&cluster, 0, words);
        assert_eq!(code, 0, "{words}: {err}");
    }
    assert_eq!(json(&cluster, "status")["overrides"], serde_json::json!([]));
    let line = "id=9 zone=d region=seoul grpc=127.0.0.1:9 http=http://127.0.0.1:9 trunk=127.0.0.1:9";
    let (code, _, err) = said(&cluster, 0, &["node", "join", line, "--dry-run"]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = said(&cluster, 0, &["node", "join", "id=9 zone=d"]);
    assert!(code == 1 && err.contains("has no region"), "{code} {err}");
    assert_eq!(
        audited(&cluster),
        [
            "shard 1: pin 2 for olga",
            "shard 2: exclude 3 for olga",
            "shard 1: no override for node 2",
            "shard 2: no override for node 3"
        ]
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
        ("shard explain 0", "note: shard 0 is the cluster's map"),
        ("shard top", "LIVE"),
        ("plan history", "OUTCOME"),
        ("completion bash", "rushroom"),
    ] {
        let (code, out, err) = admin(&cluster, 0, words);
        assert!(code == 0 && out.contains(has), "{words}: {code}\n{out}\n{err}");
    }
}

/// What an operator may not disturb without a reason: an auction that closes soon, and a shard's only majority. What was
/// forced is in the audit, with why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_restarted_only_when_nobody_feels_it() {
    let mut cluster = Cluster::start("").await;
    let api = cluster.api(0);
    let seller = api.guest("seller", Role::Seller).await.unwrap();
    let selling = api.with_token(&seller.token);
    // It closes within 30 s for as long as this test can take.
    selling.create(&auction("soon", 29_000)).await.unwrap();
    selling.start("soon").await.unwrap();
    let shard = u64::from(placement::shard_of("soon", SHARDS).0);
    let shards = json(&cluster, "shard list");
    let shards = shards["shards"].as_array().unwrap();
    let one = shards.iter().find(|s| s["id"] == shard).unwrap();
    let leader = one["leader"].as_u64().unwrap();
    let ran = cluster.nodes[0].home.join("ran");
    let roll = |more: &[&str]| {
        let (command, nodes) = (format!("echo {{node}} >> {}", ran.display()), leader.to_string());
        let words = [
            "rolling-restart",
            "--timeout",
            "1",
            "--nodes",
            &nodes,
            "--command",
            &command,
        ];
        said(&cluster, 1, &[&words[..], more].concat())
    };

    let transfer = format!("shard transfer-leader {shard}");
    let (code, _, err) = admin(&cluster, 0, &transfer);
    assert!(
        code == 1 && err.contains("refused [closes_soon]: a live auction of shard"),
        "{err}"
    );
    let (code, out, err) = admin(&cluster, 0, &format!("{transfer} --dry-run --force fire"));
    assert!(code == 0 && out.contains("would be led by"), "{out} {err}");
    let (code, _, err) = roll(&[]);
    assert!(
        code == 1 && err.contains("refused [closes_soon]") && err.contains("waits"),
        "{err}"
    );
    let (code, _, err) = roll(&["--dry-run"]);
    assert!(code == 0 && err.contains("now it would wait"), "{err}");
    assert!(!ran.exists(), "it was restarted");
    assert_eq!(json(&cluster, "status")["version"], 0, "something was stored");

    let (code, out, err) = roll(&["--json", "--force", "kernel hole"]);
    assert_eq!(code, 0, "{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["restarted"], serde_json::json!([leader]));
    assert_eq!(std::fs::read_to_string(&ran).unwrap(), format!("{leader}\n"));
    let audit = &json(&cluster, "ops list")["audit"][0];
    assert_eq!(audit["what"], format!("node {leader} is restarted"));
    assert_eq!((&audit["who"], &audit["why"]), (&"olga".into(), &"kernel hole".into()));
    assert!(cluster.logs().contains("rushroom::audit"), "no line in any log");

    // Two of three are a majority, one isn't.
    let third = (leader % 3 + 1) as usize;
    cluster.kill(&[third - 1]);
    let asked = if third == 1 { 1 } else { 0 };
    let roll = format!("rolling-restart --timeout 1 --nodes {leader} --command true");
    let (code, _, err) = admin(&cluster, asked, &roll);
    assert!(code == 1 && err.contains("stopped before node"), "{err}");
    let (_, _, err) = admin(&cluster, asked, &format!("{roll} --dry-run"));
    assert!(err.contains("refused [not_whole]"), "{err}");
}

/// Who leads a shard, by the overview.
fn leader(cluster: &Cluster, shard: u32) -> u64 {
    let shards = json(cluster, "shard list");
    let shards = shards["shards"].as_array().unwrap();
    let one = shards.iter().find(|s| s["id"] == shard).unwrap();
    one["leader"].as_u64().unwrap()
}

/// Where something always closes soon, a node that waits to be restarted hands over what is calm meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_hands_over_what_is_calm() {
    let cluster = Cluster::start("").await;
    let api = cluster.api(0);
    let seller = api.guest("seller", Role::Seller).await.unwrap();
    let selling = api.with_token(&seller.token);
    let hot = placement::shard_of("soon", SHARDS).0;
    let node = leader(&cluster, hot);
    let names = (0..200).map(|n| format!("calm-{n}"));
    let mut shards = names.map(|name| (placement::shard_of(&name, SHARDS).0, name));
    let (calm, name) = shards
        .find(|(shard, _)| *shard != hot && leader(&cluster, *shard) == node)
        .unwrap();
    for (id, duration_ms) in [(name.as_str(), 600_000), ("soon", 29_000)] {
        selling.create(&auction(id, duration_ms)).await.unwrap();
        selling.start(id).await.unwrap();
    }
    let roll = format!("rolling-restart --timeout 1 --nodes {node} --command true");
    let (code, _, err) = admin(&cluster, 0, &roll);
    assert!(code == 1 && err.contains("refused [closes_soon]"), "{err}");
    assert!(
        err.contains(&format!("node {node}: shard {calm} is led by node")),
        "{err}"
    );
    assert_eq!(leader(&cluster, hot), node, "nobody disturbs what closes soon");
    assert_ne!(leader(&cluster, calm), node);

    selling.cancel("soon", "enough").await.unwrap();
    let (code, _, err) = admin(&cluster, 0, &roll);
    assert_eq!(code, 0, "{err}");
    assert_ne!(leader(&cluster, calm), node, "it stays where it was handed to");
    cluster.assert_no_panic();
}

/// A node that has just started knows an older map than the others: what it shows is the newest all the same, or it says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_just_started_shows_the_newest_map() {
    let mut cluster = Cluster::start("").await;
    for round in 0..2 {
        cluster.kill(&[2]);
        let hours = format!("shard exclude 1 2 --hours {}", round + 1);
        let (code, _, err) = admin(&cluster, 0, &hours);
        assert_eq!(code, 0, "{err}");
        let wanted = json(&cluster, "status")["version"].as_u64().unwrap();
        let grpc = cluster.nodes[2].grpc.clone();
        // Asked again and again from before it serves until it has answered.
        let asking = tokio::task::spawn_blocking(move || {
            let until = std::time::Instant::now() + common::PATIENCE;
            loop {
                let output = Command::new(env!("CARGO_BIN_EXE_rushroom"))
                    .args(["admin", "--node", &grpc, "--json", "ops", "list"])
                    .output()
                    .unwrap();
                if output.status.success() || std::time::Instant::now() > until {
                    return output.stdout;
                }
            }
        });
        cluster.start_all().await;
        let told: Value = serde_json::from_slice(&asking.await.unwrap()).unwrap();
        let newest = told["version"].as_u64().unwrap() >= wanted;
        assert!(newest || told["may_be_old"] == true, "{wanted}: {told}");
        assert!(newest, "the others answer: it can know: {told}");
    }
    cluster.assert_no_panic();
}
