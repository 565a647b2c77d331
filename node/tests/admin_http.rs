//! The operator's API over HTTP against real nodes: what each change would do, news as they come, which builds run, a node that
//! is let in by hand, a shard's image, and the same image put back after every disk was lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Cluster, PATIENCE, SECRET, SHARDS, auction, people, stamped};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// An operator at a node.
struct Olga {
    http: Client,
    token: String,
}

impl Olga {
    fn new() -> Olga {
        let options = router::Options {
            token_secret: router::Secret::of(SECRET.as_bytes()),
            ..router::Options::default()
        };
        let id = auction::Id::parse("olga").unwrap();
        let tokens = router::auth::Tokens::new(&options);
        Olga {
            http: Client::builder().no_proxy().build().unwrap(),
            token: tokens.mint(&id, "Olga", auction::Rights::OPERATOR).unwrap().0,
        }
    }

    fn ask(&self, cluster: &Cluster, at: usize, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/api/v1/admin/{path}", cluster.nodes[at].http);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    async fn get(&self, cluster: &Cluster, path: &str) -> Value {
        told(self.ask(cluster, 0, Method::GET, path)).await.1
    }

    /// The place of the node that leads a shard, as itself says.
    async fn leader(&self, cluster: &Cluster, shard: u32) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            for at in 0..cluster.nodes.len() {
                let path = format!("shards/{shard}/image?dry_run=true");
                if told(self.ask(cluster, at, Method::GET, &path)).await.0 == 200 {
                    return at;
                }
            }
            assert!(Instant::now() < until, "nobody leads shard {shard}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Puts an image back.
    fn put(&self, cluster: &Cluster, shard: u32, query: &str, image: &[u8]) -> RequestBuilder {
        let ask = self.ask(cluster, 0, Method::POST, &format!("shards/{shard}/restore{query}"));
        ask.header("content-type", "application/octet-stream")
            .body(image.to_vec())
    }

    async fn audit(&self, cluster: &Cluster) -> String {
        self.get(cluster, "overview").await["audit"].to_string()
    }
}

async fn told(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The names of a stream's events, and the data of the last.
async fn steps(request: RequestBuilder) -> (Vec<String>, Value) {
    let response = request.header("accept", "text/event-stream").send().await.unwrap();
    let text = response.text().await.unwrap();
    let all = |name: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|rest| rest.trim().to_owned()).collect::<Vec<_>>()
    };
    let last = serde_json::from_str(all("data:").last().unwrap()).unwrap();
    (all("event:"), last)
}

/// The next event of a stream that goes on. Comments, which only keep it open, are none.
async fn next(stream: &mut Response, read: &mut Vec<u8>) -> Value {
    loop {
        let Some(end) = read.windows(2).position(|two| two == b"\n\n") else {
            let more = tokio::time::timeout(PATIENCE, stream.chunk()).await;
            let more = more.expect("nothing more is told").unwrap();
            read.extend_from_slice(&more.expect("the stream has ended"));
            continue;
        };
        let event = String::from_utf8(read.drain(..end + 2).collect()).unwrap();
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if let Some(data) = field("data:") {
            assert_eq!(field("event:"), Some("overview"), "{event}");
            return serde_json::from_str(data).unwrap();
        }
    }
}

async fn joins_and_versions(olga: &Olga, cluster: &Cluster) {
    let versions = olga.get(cluster, "versions").await;
    let newest = versions["cluster_version"].as_u64().unwrap();
    let nodes = versions["nodes"].as_array().unwrap();
    assert!(
        nodes.len() == 3 && nodes.iter().all(|n| n["answers"] == true),
        "{versions}"
    );
    let join = |newest: u64, dry_run: bool| {
        let node = json!({"kind": "join", "id": 9, "zone": "z", "region": "x", "grpc": "127.0.0.1:9",
            "http": "http://127.0.0.1:9", "trunk": "127.0.0.1:9", "newest": newest});
        let ask = json!({"change": node, "dry_run": dry_run});
        olga.ask(cluster, 1, Method::POST, "changes").json(&ask)
    };
    // An older build would stop itself: it isn't let in.
    let (status, why) = told(join(newest - 1, false)).await;
    assert_eq!(
        (status, &why["refused"]["may_be_forced"]),
        (409, &json!(false)),
        "{why}"
    );
    let (status, shown) = told(join(newest, true)).await;
    assert_eq!((status, &shown["stored"]), (200, &json!(false)), "{shown}");
    assert!(
        !olga.audit(cluster).await.contains("olga"),
        "a dry run is not written down"
    );
}

/// A backup that is only shown: nothing is put, and nobody reads of it in the audit.
async fn shown_only(olga: &Olga, cluster: &Cluster) {
    let folder = cluster.nodes[0].home.join("kept");
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args([
            "admin",
            "--node",
            &cluster.nodes[0].grpc,
            "backup",
            "--all",
            "--dry-run",
            "--to",
        ])
        .arg(format!("file://{}", folder.display()))
        .output()
        .unwrap();
    let said = String::from_utf8([shown.stdout, shown.stderr].concat()).unwrap();
    assert_eq!(
        said.matches("would be kept: index").count(),
        SHARDS as usize + 1,
        "{said}"
    );
    assert!(
        shown.status.success() && said.contains("nothing was put") && !folder.exists(),
        "{said}"
    );
    assert!(!olga.audit(cluster).await.contains("copied"));
}

/// The shard's image, by its leader; others say who that is.
async fn image(olga: &Olga, cluster: &Cluster, shard: u32) -> Vec<u8> {
    let path = format!("shards/{shard}/image");
    let leads = olga.leader(cluster, shard).await;
    assert!(
        !olga.audit(cluster).await.contains("copied"),
        "what was only shown is no copy"
    );
    let other = (leads + 1) % 3;
    let (status, why) = told(olga.ask(cluster, other, Method::GET, &path)).await;
    assert_eq!((status, &why["refused"]["code"]), (409, &json!("not_leader")), "{why}");
    assert_eq!(
        why["refused"]["leader"]["http"],
        cluster.nodes[leads].http.as_str(),
        "{why}"
    );
    let response = olga.ask(cluster, leads, Method::GET, &path).send().await.unwrap();
    let head = response.headers()["rushroom-image"].to_str().unwrap();
    let head: Value = serde_json::from_str(head).unwrap();
    let body = response.bytes().await.unwrap().to_vec();
    assert_eq!(
        (&head["auctions"], &head["bytes"]),
        (&json!(1), &json!(body.len())),
        "{head}"
    );
    assert!(olga.audit(cluster).await.contains("copied"), "a copy is written down");
    body
}

/// What is there isn't given up without a reason; what is no image of this shard is never taken.
async fn what_is_there_is_kept(olga: &Olga, cluster: &Cluster, shard: u32, image: &[u8]) {
    let other = shard % SHARDS + 1;
    let refused = async |request: RequestBuilder, code: &str| {
        let (status, why) = told(request).await;
        assert_eq!((status, &why["refused"]["code"]), (409, &json!(code)), "{why}");
    };
    refused(olga.put(cluster, shard, "", image), "gives_up").await;
    refused(olga.put(cluster, other, "?force=x", image), "other_shard").await;
    refused(
        olga.put(cluster, shard, "?force=x", &image[..image.len() / 2]),
        "image_unsound",
    )
    .await;
    refused(olga.put(cluster, 0, "?force=x", image), "nothing_here").await;
    let recover = |dry_run: bool| {
        let ask = olga.ask(cluster, 0, Method::POST, &format!("shards/{shard}/unsafe-recover"));
        ask.json(&json!({"force": "a drill", "dry_run": dry_run}))
    };
    refused(recover(false), "quorum_there").await;
    let (_, why) = told(recover(true)).await;
    let left = why["left"].as_array().unwrap();
    assert!(
        left.len() == 3 && left.iter().all(|one| one["answers"] == true),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_goes_out_and_comes_back_over_http() {
    let mut cluster = Cluster::start("[admin]\nhttp = true").await;
    let olga = Olga::new();
    joins_and_versions(&olga, &cluster).await;
    shown_only(&olga, &cluster).await;
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, 1).await;
    let selling = api.with_token(&seller.token);
    selling.create(&auction("kept", 600_000)).await.unwrap();
    let shard = selling.start("kept").await.unwrap().shard;
    let before = stamped(&api.with_token(&bidders[0].token), "kept", 1_000, "b1").await;
    let image = image(&olga, &cluster, shard).await;
    what_is_there_is_kept(&olga, &cluster, shard, &image).await;

    cluster.kill(&[0, 1, 2]);
    for node in &cluster.nodes {
        std::fs::remove_dir_all(node.home.join("data")).unwrap();
    }
    cluster.start_all().await;
    let until = Instant::now() + PATIENCE;
    let (status, shown) = loop {
        let answer = told(olga.put(&cluster, shard, "?dry_run=true", &image)).await;
        // A shard that isn't led yet isn't known to be empty.
        if answer.0 == 200 || Instant::now() > until {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(
        (status, &shown["done"], &shown["image"]["auctions"]),
        (200, &json!(false), &json!(1)),
        "{shown}"
    );
    assert_eq!(olga.get(&cluster, "overview").await["sealed"], json!([]), "only shown");
    let (names, done) = steps(olga.put(&cluster, shard, "", &image)).await;
    assert_eq!(
        (names.first().unwrap().as_str(), names.last().unwrap().as_str()),
        ("progress", "done"),
        "{done}"
    );
    assert_eq!(
        (&done["shard"], &done["auctions"]),
        (&json!(shard), &json!(1)),
        "{done}"
    );
    let api = cluster.api(0);
    let kept = api.auction("kept").await.unwrap();
    assert_eq!((kept.price, kept.ends_at), (1_000, Some(before.ends_at)), "{kept:?}");
    let audit = olga.audit(&cluster).await;
    assert!(
        audit.contains(&format!("shard {shard}: closed")) && audit.contains("olga"),
        "{audit}"
    );
    cluster.assert_no_panic();
}

/// What is wanted | how, beside being only shown | status | what is told.
const CHANGES: &[(&str, &str, u16, &str)] = &[
    (r#"{"kind": "drain", "node": 1}"#, "{}", 200, r#""from":1"#),
    (r#"{"kind": "drain", "node": 9}"#, "{}", 409, "unknown_node"),
    (r#"{"kind": "resume", "node": 1}"#, "{}", 200, r#""leaders":[]"#),
    (r#"{"kind": "resume", "node": 9}"#, "{}", 409, "unknown_node"),
    // Of 8 shards with equal weights it leads 3 at most, with this weight 5 at least.
    (r#"{"kind": "weight", "node": 1, "weight": 3}"#, "{}", 200, r#""to":1"#),
    (
        r#"{"kind": "weight", "node": 1, "weight": 10001}"#,
        "{}",
        409,
        "too_heavy",
    ),
    (r#"{"kind": "decommission", "node": 3}"#, "{}", 409, "too_few"),
    (
        r#"{"kind": "decommission", "node": 3}"#,
        r#"{"force": " "}"#,
        409,
        "no_reason",
    ),
    (
        r#"{"kind": "decommission", "node": 3}"#,
        r#"{"force": "a drill"}"#,
        200,
        "forced: a drill",
    ),
    (
        r#"{"kind": "move", "shard": 1, "from": 1, "to": 2}"#,
        "{}",
        409,
        "there",
    ),
    (
        r#"{"kind": "move", "shard": 1, "from": 9, "to": 1}"#,
        "{}",
        409,
        "not_there",
    ),
    (
        r#"{"kind": "move", "shard": 1, "from": 1, "to": 9}"#,
        "{}",
        409,
        "unknown_node",
    ),
    (
        r#"{"kind": "pin", "shard": 1, "node": 1, "hours": 1}"#,
        "{}",
        200,
        r#""moves":[]"#,
    ),
    (r#"{"kind": "pin", "shard": 99, "node": 1}"#, "{}", 409, "unknown_shard"),
    (
        r#"{"kind": "exclude", "shard": 2, "node": 3}"#,
        "{}",
        200,
        "exclusions are left out",
    ),
    (
        r#"{"kind": "exclude", "shard": 0, "node": 3}"#,
        "{}",
        409,
        "unknown_shard",
    ),
    (
        r#"{"kind": "prefer_leader", "shard": 1, "node": 1}"#,
        "{}",
        200,
        r#""moves":[]"#,
    ),
    (
        r#"{"kind": "prefer_leader", "shard": 1, "node": 9}"#,
        "{}",
        409,
        "unknown_node",
    ),
    (
        r#"{"kind": "lift", "shard": 1, "node": 1}"#,
        "{}",
        409,
        "nothing_to_cancel",
    ),
    (r#"{"kind": "cancel"}"#, "{}", 409, "nothing_to_cancel"),
    (r#"{"kind": "cancel", "shard": 1}"#, "{}", 409, "nothing_to_cancel"),
    (r#"{"kind": "rebalance"}"#, "{}", 200, r#""moves":[]"#),
    (r#"{"kind": "rebalance"}"#, r#"{"version": 99}"#, 409, "stale"),
    (r#"{"kind": "pause"}"#, r#"{"version": 0}"#, 200, r#""leaders":[]"#),
    (r#"{"kind": "go"}"#, "{}", 200, r#""leaders":[]"#),
    (r#"{"kind": "upgrade", "to": 1}"#, "{}", 409, "not_newer"),
    (r#"{"kind": "upgrade", "to": 99}"#, "{}", 409, "version_newer"),
    (
        r#"{"kind": "restart", "node": 1}"#,
        r#"{"force": "a drill"}"#,
        200,
        r#""moves":[]"#,
    ),
    (r#"{"kind": "restart", "node": 9}"#, "{}", 409, "unknown_node"),
    (
        r#"{"kind": "join", "id": 1, "zone": "a", "region": "x", "grpc": "", "http": "", "newest": 99}"#,
        "{}",
        409,
        "taken",
    ),
    (
        r#"{"kind": "join", "id": 9, "zone": "d", "region": "x", "grpc": "", "http": "", "newest": 99}"#,
        "{}",
        200,
        r#""to":9"#,
    ),
    (r#"{"kind": "lose", "node": 1}"#, "{}", 422, "unknown variant"),
    (r#"{"kind": "drain"}"#, "{}", 422, "missing field"),
    (
        r#"{"kind": "drain", "node": 1}"#,
        r#"{"when": 1}"#,
        422,
        "unknown field",
    ),
];

/// What would come of each kind of change, and why others are refused; nothing is stored, nobody reads of it in the audit.
async fn changes_are_shown(olga: &Olga, cluster: &Cluster) {
    for (change, how, expected, said) in CHANGES {
        let mut ask: Value = serde_json::from_str(how).unwrap();
        ask["change"] = serde_json::from_str(change).unwrap();
        ask["dry_run"] = json!(true);
        let (status, answer) = told(olga.ask(cluster, 1, Method::POST, "changes").json(&ask)).await;
        let right = match status {
            200 => answer["stored"] == false && answer.to_string().contains(said),
            409 => answer["refused"]["code"] == *said,
            _ => answer["code"] == "invalid" && answer.to_string().contains(said),
        };
        assert!(status == *expected && right, "{ask}: {status} {answer}");
    }
    let overview = olga.get(cluster, "overview").await;
    assert_eq!(
        (&overview["version"], &overview["audit"]),
        (&json!(0), &json!([])),
        "something was stored"
    );
}

/// A shard's leadership goes where it is sent; before that it is shown, and refused where it can't be.
async fn leadership_is_sent(olga: &Olga, cluster: &Cluster) {
    let shards = olga.get(cluster, "overview").await["shards"].clone();
    let shards = shards.as_array().unwrap();
    let shard = shards.iter().find(|one| one["id"] == 1).unwrap();
    let replicas = shard["replicas"].as_array().unwrap();
    // Not the first, to which it may go home by itself meanwhile.
    let to = replicas.iter().rev().find(|node| **node != shard["leader"]).unwrap();
    let send = |shard: u32, ask: Value| {
        let ask = olga
            .ask(cluster, 0, Method::POST, &format!("shards/{shard}/leader"))
            .json(&ask);
        told(ask)
    };
    for (shard, to, code) in [(1, json!(9), "unknown_node"), (99, json!(null), "unknown_shard")] {
        let (status, why) = send(shard, json!({"to": to})).await;
        assert_eq!((status, &why["refused"]["code"]), (409, &json!(code)), "{why}");
    }
    for done in [false, true] {
        let (status, told) = send(1, json!({"to": to, "dry_run": !done})).await;
        let wanted = json!({"shard": 1, "leader": to, "done": done});
        assert_eq!((status, &told), (200, &wanted));
    }
    let overview = olga.get(cluster, "overview").await;
    let led = overview["shards"].as_array().unwrap().iter();
    let led: Vec<&Value> = led.filter(|one| one["id"] == 1).map(|one| &one["leader"]).collect();
    assert_eq!(led, [to]);
    let last = overview["audit"].as_array().unwrap().last().unwrap();
    let said = format!("shard 1: prefer-leader {to} for olga");
    assert_eq!((&last["who"], &last["what"]), (&json!("olga"), &json!(said)), "{last}");
}

/// The stream at one node tells how things are, and again when something changed, whichever node was asked for the change.
async fn news_are_told(olga: &Olga, cluster: &Cluster) {
    let mut stream = olga.ask(cluster, 0, Method::GET, "events").send().await.unwrap();
    let kind = stream.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/event-stream"), "{kind}");
    let mut read = Vec::new();
    let mut seen = next(&mut stream, &mut read).await;
    assert_eq!(seen["paused"], false, "{seen}");
    for (kind, paused, said) in [("pause", true, "pause"), ("go", false, "go on")] {
        let ask = json!({"change": {"kind": kind}});
        let (status, done) = told(olga.ask(cluster, 1, Method::POST, "changes").json(&ask)).await;
        assert_eq!((status, &done["stored"]), (200, &json!(true)), "{done}");
        let version = done["version"].as_u64().unwrap() + 1;
        // Other news may come before, who leads what for one.
        while seen["version"].as_u64() < Some(version) {
            let now = next(&mut stream, &mut read).await;
            assert_ne!(now, seen, "what didn't change is told again");
            seen = now;
        }
        assert_eq!(seen["paused"], paused, "{seen}");
        let last = seen["audit"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["who"], &last["what"]), (&json!("olga"), &json!(said)), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_made_and_told_over_http() {
    let cluster = Cluster::start("[admin]\nhttp = true").await;
    let olga = Olga::new();
    changes_are_shown(&olga, &cluster).await;
    news_are_told(&olga, &cluster).await;
    leadership_is_sent(&olga, &cluster).await;
    cluster.assert_no_panic();
}
