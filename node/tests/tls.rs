//! A cluster whose nodes speak TLS: it works as one that doesn't; certificates are replaced under running bids; who has
//! none, or the wrong one, gets nowhere; and what an operator does is kept under the certificate's name.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Cluster, PATIENCE, auction, people};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn rushroom(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args(args)
        .env_remove("RUSHROOM_ADMIN_CERT")
        .output()
        .unwrap()
}

fn made(args: &[&str]) {
    let output = rushroom(args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An authority, and certificates of three nodes, an operator and an auditor.
fn papers(dir: &Path) {
    let d = dir.to_str().unwrap();
    made(&["node", "init-ca", "--out", d]);
    for id in ["1", "2", "3"] {
        issue(d, &["--node", id]);
    }
    issue(d, &["--operator", "alice"]);
    issue(d, &["--auditor", "bob"]);
}

fn issue(dir: &str, whom: &[&str]) {
    made(&[&["node", "cert", "--ca", dir, "--out", dir], whom].concat());
}

fn settings(dir: &str) -> String {
    format!(
        "[tls]\nca = '{dir}/ca.crt'\ncert = '{dir}/node-{{id}}.crt'\nkey = '{dir}/node-{{id}}.key'\nlook_ms = 100\n"
    )
}

/// `rushroom admin` as `who`; its exit code and all that it said.
fn admin(cluster: &Cluster, dir: &str, who: Option<&str>, args: &[&str]) -> (i32, String) {
    let mut all = vec!["admin".to_owned(), "--node".into(), cluster.nodes[0].grpc.clone()];
    if let Some(who) = who {
        let paper = |end: &str| format!("{dir}/{who}.{end}");
        all.extend(["--ca".into(), format!("{dir}/ca.crt"), "--cert".into(), paper("crt")]);
        all.extend(["--key".into(), paper("key"), "--who".into(), "somebody".into()]);
    }
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    let output = rushroom(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

async fn metric(cluster: &Cluster, place: usize, line: &str) -> f64 {
    let url = format!("{}/metrics", cluster.nodes[place].http);
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let found = text.lines().find(|l| l.starts_with(line));
    found.map_or(0.0, |l| l.rsplit(' ').next().unwrap().parse().unwrap())
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Gives node 1 the certificate of node 2: it notices, and goes on with its own.
async fn mix_up(cluster: &Cluster, d: &str) {
    std::fs::copy(format!("{d}/node-2.crt"), format!("{d}/node-1.crt")).unwrap();
    std::fs::copy(format!("{d}/node-2.key"), format!("{d}/node-1.key")).unwrap();
    until("the wrong files are noticed", async || {
        metric(
            cluster,
            0,
            "rushroom_node_tls_failed_total{at=\"rotate\",code=\"tls_wrong_name\"}",
        )
        .await
            >= 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_running_bids() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path().to_str().unwrap().to_owned();
    papers(dir.path());
    let mut cluster = Cluster::start(&settings(&d)).await;
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, 2).await;
    let selling = api.with_token(&seller.token);
    let mut bids = Vec::new();
    let (stop, judged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    for n in 0..3 {
        let id = format!("tls-{n}");
        selling.create(&auction(&id, 600_000)).await.unwrap();
        selling.start(&id).await.unwrap();
        let bidding = [0, 1].map(|b: usize| cluster.api(n).with_token(&bidders[b].token));
        let (stop, judged) = (stop.clone(), judged.clone());
        bids.push(tokio::spawn(async move {
            for k in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let bidder = &bidding[(k % 2) as usize];
                let verdict = bidder.bid(&id, 1_000 + 100 * k, &format!("k{k}")).await.unwrap();
                assert!(verdict.ok, "bid {k} on {id}: {verdict:?}");
                judged.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let more = async |than: u64| {
        until("bids go on", async || judged.load(Ordering::Relaxed) >= than).await;
        judged.load(Ordering::Relaxed)
    };
    let before = more(30).await;

    for id in ["1", "2", "3"] {
        issue(&d, &["--node", id]);
    }
    for place in 0..3 {
        until("the new files are taken", async || {
            metric(&cluster, place, "rushroom_node_tls_rotated_total").await >= 1.0
        })
        .await;
    }
    let after = more(before + 30).await;
    // A process that starts now shakes hands anew with all the others, which took new files while they ran.
    cluster.kill(&[2]);
    cluster.start_all().await;
    more(after + 30).await;

    mix_up(&cluster, &d).await;
    more(judged.load(Ordering::Relaxed) + 30).await;
    stop.store(true, Ordering::Relaxed);
    for bid in bids {
        bid.await.unwrap();
    }
    let left = metric(&cluster, 1, "rushroom_node_tls_left_days{what=\"certificate\"}").await;
    assert!((89.0..=90.0).contains(&left), "{left} days are left");
    assert!(cluster.logs().contains("[tls_wrong_name]"));
    cluster.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_what_the_certificate_says() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path().to_str().unwrap();
    papers(dir.path());
    let mut cluster = Cluster::start(&settings(d)).await;
    // who | what | exit code | said
    let table: &[(Option<&str>, &[&str], i32, &str)] = &[
        (Some("operator-alice"), &["status"], 0, "3 nodes: 3 answer"),
        (Some("auditor-bob"), &["status"], 0, "3 nodes: 3 answer"),
        (
            Some("auditor-bob"),
            &["pause"],
            1,
            "refused [not_allowed] auditor bob may not call",
        ),
        (
            Some("node-1"),
            &["pause"],
            1,
            "refused [not_allowed] node 1 may ask to be let in itself",
        ),
        (Some("operator-alice"), &["pause"], 0, ""),
        (None, &["status"], 3, "was not reached"),
    ];
    for (who, args, code, said) in table {
        let (exit, told) = admin(&cluster, d, *who, args);
        assert_eq!(exit, *code, "{who:?} {args:?}: {told}");
        assert!(told.contains(said), "{who:?} {args:?}: {told}");
    }
    let (_, kept) = admin(&cluster, d, Some("auditor-bob"), &["ops", "list"]);
    assert!(kept.contains("operator alice (as somebody)"), "{kept}");
    // An override's owner, too, is the certificate's holder.
    let pin = ["shard", "pin", "1", "1", "--dry-run"];
    let (exit, told) = admin(&cluster, d, Some("operator-alice"), &pin);
    assert_eq!(exit, 0, "{told}");
    let (exit, told) = admin(&cluster, d, Some("operator-alice"), &pin[..4]);
    assert_eq!(exit, 0, "{told}");
    let (_, told) = admin(&cluster, d, Some("auditor-bob"), &["shard", "explain", "1"]);
    assert!(told.contains("operator alice (as somebody)"), "{told}");

    // A node that joins needs a certificate, too, and comes in as itself.
    issue(d, &["--node", "4"]);
    cluster.admit_with(4, "d", &settings(d)).await;
    let (_, told) = admin(&cluster, d, Some("operator-alice"), &["status"]);
    assert!(told.contains("4 nodes: 4 answer"), "{told}");
    let (_, kept) = admin(&cluster, d, Some("auditor-bob"), &["ops", "list"]);
    assert!(kept.contains("node 4"), "{kept}");
    cluster.assert_no_panic();
}

#[test]
fn a_node_with_files_that_are_not_good_together_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path().to_str().unwrap();
    papers(dir.path());
    let start = |sets: &[String]| {
        let mut args = vec!["node".to_owned()];
        args.extend(sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
        let output = rushroom(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let set = |key: &str, value: &str| format!("{key}={value}");
    let file = |name: &str| format!("{d}/{name}");
    let own = [
        set("node.dir", &file("data")),
        set("http.listen", "127.0.0.1:0"),
        set("grpc.listen", "127.0.0.1:0"),
    ];
    let with = |ca: &str, cert: &str, key: &str| {
        let tls = [
            set("tls.ca", &file(ca)),
            set("tls.cert", &file(cert)),
            set("tls.key", &file(key)),
        ];
        start(&[own.to_vec(), tls.to_vec()].concat())
    };
    let told = with("ca.crt", "node-2.crt", "node-2.key");
    assert!(
        told.contains("[tls_wrong_name]") && told.contains("is node 2's, not node 1's"),
        "{told}"
    );
    let told = with("ca.crt", "node-1.crt", "node-2.key");
    assert!(told.contains("[tls_key_mismatch]"), "{told}");
    let told = with("ca.crt", "operator-alice.crt", "operator-alice.key");
    assert!(told.contains("[tls_wrong_name]"), "{told}");
    let told = with("ca.crt", "node-1.crt", "nothing.key");
    assert!(told.contains("[tls_file]"), "{told}");
    // Half of them, or none beyond loopback, is a fault of the settings.
    let told = start(
        &[
            own.to_vec(),
            vec![set("tls.ca", &file("ca.crt")), set("tls.cert", &file("node-1.crt"))],
        ]
        .concat(),
    );
    assert!(told.contains("all three or none"), "{told}");
    let told = start(&[set("grpc.listen", "0.0.0.0:0")]);
    assert!(told.contains("would talk without TLS"), "{told}");
}
