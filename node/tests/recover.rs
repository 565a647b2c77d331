//! A majority is lost for good: two of three nodes with their disks. The third brings the map and the shard back, bids go on,
//! and new nodes take the lost ones' places.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Cluster, PATIENCE, SHARDS, auction, people, stamped, went_on};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// `rushroom admin …`: exit code, and all that it said.
fn admin(node: &str, words: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args(["admin", "--node", node, "--who", "tester"])
        .args(words)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn status(node: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args(["admin", "--node", node, "--json", "status"])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < late, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// No reason is good enough.
fn nothing_is_lost_yet(node: &str, shard: &str) {
    let (code, said) = admin(node, &["unsafe-recover", "--shard", shard, "--force", "a drill"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("A majority answers") && said.contains("[quorum_there]"),
        "{said}"
    );
}

/// Two new nodes take the places of two that won't come back.
async fn replace_the_lost(cluster: &mut Cluster, node: &str, shard: &str) {
    cluster.admit(4, "d").await;
    cluster.admit(5, "e").await;
    for lost in ["1", "2"] {
        let (code, said) = admin(node, &["node", "decommission", lost, "--force", "burnt"]);
        assert_eq!(code, 0, "{said}");
    }
    until("three replicas again", || {
        let shards = status(node)["shards"].clone();
        let ours = shards
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["id"] == shard.parse::<u32>().unwrap())
            .unwrap();
        ours["replicas"].as_array().unwrap().len() == 3 && ours["goal"].is_null()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_brings_a_shard_back() {
    let mut cluster = Cluster::start("").await;
    let api = cluster.api(2);
    let (seller, bidders) = people(&api, 2).await;
    let selling = api.with_token(&seller.token);
    selling.create(&auction("kept", 600_000)).await.unwrap();
    let shard = selling.start("kept").await.unwrap().shard.to_string();
    let (ann, bob) = (api.with_token(&bidders[0].token), api.with_token(&bidders[1].token));
    let mut before = vec![stamped(&ann, "kept", 1_000, "b1").await];
    let node = cluster.nodes[2].grpc.clone();
    nothing_is_lost_yet(&node, &shard);
    let (code, said) = admin(&node, &["unsafe-recover", "--shard", &shard, "--dry-run"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("it would be refused [quorum_there]"), "{said}");
    // It goes on as if nothing had been asked.
    before.push(stamped(&bob, "kept", 1_100, "b2").await);
    // Acknowledged by a majority; the third node has it a moment later at most.
    let late = Instant::now() + PATIENCE;
    while !api.pinned(2).export("kept", true).await.unwrap().contains("\"b2\"") {
        assert!(Instant::now() < late, "node 3 never hears of the last bid");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    cluster.kill(&[0, 1]);
    for lost in cluster.nodes.drain(0..2) {
        std::fs::remove_dir_all(lost.home).unwrap();
    }
    let (code, said) = admin(&node, &["unsafe-recover", "--shard", &shard]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("1 of 3 replicas are left") && said.contains("nothing was done"),
        "{said}"
    );
    // The map can't be changed either: it comes first.
    for lost in 0..=SHARDS {
        let lost = lost.to_string();
        let (code, said) = admin(
            &node,
            &["unsafe-recover", "--shard", &lost, "--force", "two disks burnt"],
        );
        assert_eq!(code, 0, "shard {lost}: {said}");
    }

    let api = cluster.api(0);
    let (ann, bob) = (api.with_token(&bidders[0].token), api.with_token(&bidders[1].token));
    let left = api.auction("kept").await.unwrap();
    assert_eq!((left.phase.as_str(), left.price), ("live", 1_100), "{left:?}");
    assert_eq!(left.ends_at, Some(before[1].ends_at), "the deadline is the same");
    let after = [
        stamped(&ann, "kept", 1_200, "b3").await,
        stamped(&bob, "kept", 1_300, "b4").await,
    ];
    went_on("unsafe-recover", &before, &after);
    let audit = status(&node)["audit"].to_string();
    for what in [
        "shard 0: founded anew",
        &format!("shard {shard}: closed"),
        "two disks burnt",
        "tester",
    ] {
        assert!(audit.contains(what), "{what}: {audit}");
    }

    replace_the_lost(&mut cluster, &node, &shard).await;
    assert!(ann.bid("kept", 1_400, "b5").await.unwrap().ok);
    cluster.assert_no_panic();
}
