//! Real nodes on disks that fail, hang and fill up: a library between them and the kernel does as a file in the node's
//! folder says.
//!
//! ```text
//!   rushroom --fdatasync, pwrite--> shim.c (LD_PRELOAD) --> kernel
//!                                      '-- SHIM_DIR/{fails,hangs,full} exists?
//! ```
//!
//! The binary is the one that is shipped: no fail point is in it. The shim is built by `cc`, which linking Rust needs too.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use client::{Api, wire::NewAuction};
use common::{Cluster, PATIENCE, auction, people};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Opens the cluster page, which tells who leads.
const DEMO: &str = "[demo]\nenabled = true";

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int asked(const char *what) {
    char path[4096];
    const char *dir = getenv("SHIM_DIR");
    if (!dir) return 0;
    snprintf(path, sizeof path, "%s/%s", dir, what);
    return access(path, F_OK) == 0;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    while (asked("hangs")) usleep(5000);
    if (asked("fails")) { errno = EIO; return -1; }
    return real(fd);
}

/* A full disk takes what overwrites, not what makes a file longer. */
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    struct stat file;
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (asked("full") && fstat(fd, &file) == 0 && S_ISREG(file.st_mode) && at + (off64_t)n > file.st_size) {
        errno = ENOSPC;
        return -1;
    }
    return real(fd, bytes, n, at);
}
"#;

/// Builds the shim in `dir`.
fn shim(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, SHIM).unwrap();
    let mut cc = std::process::Command::new("cc");
    let built = cc
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl");
    assert!(built.status().unwrap().success(), "cc failed");
    library
}

async fn say(http: &str, what: &str) -> (u16, Option<String>, Value) {
    let answer = reqwest::get(format!("{http}{what}")).await.unwrap();
    let retry = answer
        .headers()
        .get("retry-after")
        .map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), retry, answer.json().await.unwrap_or_default())
}

/// Who leads a shard, by the word of the node at `place`.
async fn leader(cluster: &Cluster, place: usize, shard: u32) -> Option<u64> {
    let (_, _, map) = say(&cluster.nodes[place].http, "/api/v1/cluster").await;
    let shards = map["shards"].as_array()?;
    shards.iter().find(|line| line["id"] == shard)?["leader"].as_u64()
}

/// Asks again until it is so.
async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A live auction, and the place of the node that leads it.
async fn live(cluster: &Cluster, seller: &Api) -> (u32, usize) {
    seller.create(&auction("lot", 3_600_000)).await.unwrap();
    let shard = seller.start("lot").await.unwrap().shard;
    let place = loop {
        if let Some(node) = leader(cluster, 0, shard).await {
            break cluster.nodes.iter().position(|n| n.id == node).unwrap();
        }
    };
    (shard, place)
}

fn signed(cluster: &Cluster, place: usize, session: &client::Session) -> Api {
    cluster.api(place).with_token(&session.token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_stops_the_node_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_on(DEMO, 4_194_304, Some(shim(dir.path()))).await;
    let (seller, bidders) = people(&cluster.api(0), 2).await;
    let (_, place) = live(&cluster, &signed(&cluster, 0, &seller)).await;
    let elsewhere = (place + 1) % 3;
    let bidders: Vec<Api> = bidders.iter().map(|who| signed(&cluster, elsewhere, who)).collect();
    let bid = |n: usize| {
        let who = &bidders[n % 2];
        async move {
            who.bid("lot", 1_000 + 100 * n as u64, &format!("bid-{n}"))
                .await
                .unwrap()
        }
    };
    for n in 0..5 {
        assert!(bid(n).await.ok);
    }
    let fails = cluster.nodes[place].home.join("fails");
    std::fs::write(&fails, "").unwrap();
    // The others take over, under bids; none is lost.
    for n in 5..10 {
        assert!(bid(n).await.ok, "bid {n}");
    }
    let (status, log) = cluster.ended(place).await;
    assert!(!status.success(), "{status}");
    assert!(log.contains("the log's disk failed: this node must stop"), "{log}");
    assert!(log.contains("the disk failed: "), "{log}");
    std::fs::remove_file(&fails).unwrap();
    cluster.start_all().await;
    assert!(bid(10).await.ok);
    let view = cluster.api(place).auction("lot").await.unwrap();
    assert_eq!((view.bids, view.price), (11, 2_000));
    cluster.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_loses_its_leaderships_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start_on(&format!("stall_ms = 300\n{DEMO}"), 4_194_304, Some(shim(dir.path()))).await;
    let (seller, bidders) = people(&cluster.api(0), 2).await;
    let (shard, place) = live(&cluster, &signed(&cluster, 0, &seller)).await;
    let elsewhere = (place + 1) % 3;
    let hangs = cluster.nodes[place].home.join("hangs");
    std::fs::write(&hangs, "").unwrap();
    let node = cluster.nodes[place].id;
    until("another node leads", || async {
        leader(&cluster, elsewhere, shard)
            .await
            .is_some_and(|leader| leader != node)
    })
    .await;
    let (status, _, state) = say(&cluster.nodes[place].http, "/readyz").await;
    assert_eq!(status, 503, "{state}");
    assert!(state["reasons"].to_string().contains("the log's disk hangs"), "{state}");
    let who = signed(&cluster, elsewhere, &bidders[0]);
    assert!(who.bid("lot", 1_000, "while-it-hangs").await.unwrap().ok);
    let page = reqwest::get(format!("{}/metrics", cluster.nodes[place].http))
        .await
        .unwrap();
    let page = page.text().await.unwrap();
    let told = |name: &str, label: &str, end: &str| {
        page.lines()
            .any(|l| l.starts_with(name) && l.contains(label) && l.ends_with(end))
    };
    assert!(told("rushroom_raft_unfit{", "disk_stalled", " 1"), "{page}");
    std::fs::remove_file(&hangs).unwrap();
    until("it is ready again", || async {
        say(&cluster.nodes[place].http, "/readyz").await.0 == 200
    })
    .await;
    cluster.assert_no_panic();
}

/// Drafts that fill the log: a description is kept.
async fn fill(seller: &Api, from: usize, n: usize) {
    let text = "x".repeat(3_000);
    for draft in from..from + n {
        let draft = NewAuction {
            description: Some(text.clone()),
            ..auction(&format!("draft-{draft}"), 60_000)
        };
        // Once the disk is full it is refused: that is what is waited for.
        let _ = seller.create(&draft).await;
    }
}

/// A bid that the disk has no room for: by a code, and with a word on when to come back.
async fn refused_as_full(cluster: &Cluster, token: &str) {
    let refused = reqwest::Client::new()
        .post(format!("{}/api/v1/auctions/lot/bids", cluster.nodes[0].http))
        .bearer_auth(token)
        .header("Idempotency-Key", "while-full")
        .json(&serde_json::json!({"amount": 1_100}))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status().as_u16(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "disk_full", "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_bids_by_a_code_and_takes_them_again() {
    let dir = tempfile::tempdir().unwrap();
    // Small segments, so that a few drafts reach the reserve.
    let cluster = Cluster::start_on(DEMO, 524_288, Some(shim(dir.path()))).await;
    let (seller, bidders) = people(&cluster.api(0), 2).await;
    let seller = signed(&cluster, 0, &seller);
    live(&cluster, &seller).await;
    let who = signed(&cluster, 0, &bidders[0]);
    assert!(who.bid("lot", 1_000, "before").await.unwrap().ok);
    let full = |is_so: bool| {
        for node in &cluster.nodes {
            let file = node.home.join("full");
            let done = if is_so {
                std::fs::write(file, "")
            } else {
                std::fs::remove_file(file)
            };
            done.unwrap();
        }
    };
    full(true);
    let mut drafts = 0;
    until("the reserve is in use everywhere", || {
        let (cluster, seller, from) = (&cluster, &seller, drafts);
        drafts += 20;
        async move {
            fill(seller, from, 20).await;
            let mut all = true;
            for node in &cluster.nodes {
                all &= say(&node.http, "/readyz").await.2["reasons"]
                    .to_string()
                    .contains("its reserve in use");
            }
            all
        }
    })
    .await;
    refused_as_full(&cluster, &bidders[1].token).await;
    // What was judged keeps its verdict; what calms an auction goes on.
    let again = who.bid("lot", 1_000, "before").await.unwrap();
    assert!(again.ok && again.dup);
    seller.pause("lot", None).await.unwrap();
    full(false);
    until("all are ready again", || async {
        let mut all = true;
        for node in &cluster.nodes {
            all &= say(&node.http, "/readyz").await.0 == 200;
        }
        all
    })
    .await;
    seller.resume("lot").await.unwrap();
    let later = signed(&cluster, 0, &bidders[1]);
    assert!(
        later.bid("lot", 1_100, "while-full").await.unwrap().ok,
        "the same id, later"
    );
    cluster.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_nearly_full_takes_no_new_auctions() {
    let cluster = Cluster::start("low_water_bytes = 9000000000000000").await;
    let (seller, _) = people(&cluster.api(0), 0).await;
    let refused = reqwest::Client::new()
        .post(format!("{}/api/v1/auctions", cluster.nodes[0].http))
        .bearer_auth(&seller.token)
        .header("Idempotency-Key", "new")
        .json(&serde_json::to_value(auction("lot", 60_000)).unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status().as_u16(), 503);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "disk_full", "{problem}");
    // Nobody else is fitter: they lead on, and serve.
    let (status, _, state) = say(&cluster.nodes[0].http, "/readyz").await;
    assert_eq!(status, 200, "{state}");
    assert!(state["warnings"].to_string().contains("nearly full"), "{state}");
    cluster.assert_no_panic();
}
