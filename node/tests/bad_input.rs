//! Rubbish, lies and bad luck against a real cluster, over HTTP and WebSocket: each gets its coded refusal, nothing else
//! changes, and no node panics.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use client::Api;
use common::{Cluster, PATIENCE, auction, people};
use futures_util::{SinkExt as _, StreamExt as _};
use router::auth::Tokens;
use router::{Options, Secret};
use serde_json::{Value, json};
use std::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// A token as this secret signs it, living for `ttl_ms`.
fn token(secret: &str, ttl_ms: u64) -> String {
    let options = Options {
        token_secret: Secret::of(secret.as_bytes()),
        token_ttl_ms: ttl_ms,
        ..Options::default()
    };
    let id = auction::Id::parse("guest-forged-1").unwrap();
    let rights = auction::Rights::BIDDER.and(auction::Rights::SELLER);
    Tokens::new(&options).mint(&id, "Forged", rights).unwrap().0
}

/// Everyone and everything that the tables name.
struct Scene {
    cluster: Cluster,
    api: Api,
    seller: String,
    kim: String,
    lee: String,
}

async fn scene() -> Scene {
    let cluster = Cluster::start("").await;
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, 2).await;
    let selling = api.with_token(&seller.token);
    for id in ["live", "draft", "over"] {
        selling
            .create(&auction(id, if id == "over" { 5_000 } else { 600_000 }))
            .await
            .unwrap();
    }
    selling.start("live").await.unwrap();
    selling.start("over").await.unwrap();
    // Kim leads the live one; the amount and id of that bid are used again below.
    let verdict = api
        .with_token(&bidders[0].token)
        .bid("live", 5_000, "kim-1")
        .await
        .unwrap();
    assert!(verdict.ok, "{verdict:?}");
    let until = Instant::now() + PATIENCE;
    while !api.auction("over").await.unwrap().is_closed() {
        assert!(Instant::now() < until, "the short auction does not close");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (kim, lee) = (bidders[0].token.clone(), bidders[1].token.clone());
    Scene {
        cluster,
        api,
        seller: seller.token,
        kim,
        lee,
    }
}

impl Scene {
    fn token(&self, who: &str) -> Option<String> {
        match who {
            "nobody" => None,
            "kim" => Some(self.kim.clone()),
            "lee" => Some(self.lee.clone()),
            "seller" => Some(self.seller.clone()),
            "expired" => Some(token(common::SECRET, 0)),
            "foreign" => Some(token("another cluster's secret", 60_000)),
            "garbage" => Some("not.a.token".into()),
            "none" => Some(format!("eyJhbGciOiJub25lIn0.{}.", self.kim.split('.').nth(1).unwrap())),
            other => panic!("nobody is called {other}"),
        }
    }

    /// What must not change: what happened in each auction so far. A busy machine may make the clock hold meanwhile, which
    /// is declared as an event of its own and changes neither price nor deadline.
    async fn state(&self) -> Vec<String> {
        let mut all = Vec::new();
        for id in ["live", "draft", "over"] {
            let a = self.api.auction(id).await.unwrap();
            all.push(format!(
                "{id} {} {} {:?} {:?} {}",
                a.phase, a.price, a.leader, a.ends_at, a.bids
            ));
            let events = self.api.events(id, 0, 500).await.unwrap().items;
            let happened = events.iter().filter(|e| e.ty != "held");
            all.extend(happened.map(|e| format!("{id} {} {:?} {:?} {}", e.ty, e.actor, e.id, e.price)));
        }
        all
    }
}

/// who | auction | key | body | status | code
#[rustfmt::skip]
const HTTP: &[(&str, &str, &str, &str, u16, &str)] = &[
    ("lee", "live", "h1", "{\"amount\": ", 400, "bad_request"),
    ("lee", "live", "h2", "", 422, "invalid"),
    ("lee", "live", "h3", "[]", 400, "bad_request"),
    ("lee", "live", "h4", "{}", 422, "invalid"),
    ("lee", "live", "h5", "{\"amount\": -1}", 422, "invalid"),
    ("lee", "live", "h6", "{\"amount\": 6000.5}", 422, "invalid"),
    ("lee", "live", "h7", "{\"amount\": \"6000\"}", 422, "invalid"),
    ("lee", "live", "h8", "{\"amount\": 18446744073709551616}", 422, "too_big"),
    ("lee", "live", "h9", "{\"amount\": 1e400}", 400, "bad_request"),
    ("lee", "live", "h10", "{\"amount\": 18446744073709551615}", 422, "too_big"),
    ("lee", "live", "h11", "{\"amount\": 1000000000000001}", 422, "too_big"),
    ("lee", "live", "h12", "{\"amount\": 0}", 409, "low"),
    ("lee", "live", "h13", "{\"amount\": 5000}", 409, "low"),
    ("kim", "live", "h14", "{\"amount\": 9000}", 409, "leading"),
    ("kim", "live", "kim-1", "{\"amount\": 9000}", 409, "dup_body"),
    ("seller", "live", "h15", "{\"amount\": 9000}", 409, "own"),
    ("lee", "draft", "h16", "{\"amount\": 9000}", 409, "not_open"),
    ("lee", "over", "h17", "{\"amount\": 9000}", 409, "closed"),
    ("lee", "unknown", "h18", "{\"amount\": 9000}", 404, "not_found"),
    ("nobody", "live", "h19", "{\"amount\": 9000}", 401, "auth"),
    ("expired", "live", "h20", "{\"amount\": 9000}", 401, "auth"),
    ("foreign", "live", "h21", "{\"amount\": 9000}", 401, "auth"),
    ("garbage", "live", "h22", "{\"amount\": 9000}", 401, "auth"),
    ("none", "live", "h23", "{\"amount\": 9000}", 401, "auth"),
    ("lee", "live", "", "{\"amount\": 9000}", 400, "bad_request"),
    ("lee", "live", "a key with spaces", "{\"amount\": 9000}", 422, "invalid"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_each_gets_its_code_and_nothing_changes() {
    let scene = scene().await;
    let before = scene.state().await;
    let http = reqwest::Client::new();
    let bid = async |who: &str, auction: &str, key: &str, body: String, place: usize| {
        let mut request = http
            .post(format!(
                "{}/api/v1/auctions/{auction}/bids",
                scene.cluster.nodes[place].http
            ))
            .header("content-type", "application/json")
            .body(body);
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        if let Some(token) = scene.token(who) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
        (
            status,
            problem["code"].as_str().unwrap_or_default().to_string(),
            problem,
        )
    };
    let mut wrong = Vec::new();
    for (i, (who, auction, key, body, status, code)) in HTTP.iter().enumerate() {
        // At every node in turn: two of three don't lead the shard.
        let (got, named, problem) = bid(who, auction, key, (*body).to_string(), i % 3).await;
        if (got, named.as_str()) != (*status, *code) {
            wrong.push(format!(
                "{who} {auction} {key:?} {body}: {got} {problem} instead of {status} {code}"
            ));
        }
    }
    let huge = format!("{{\"amount\": 9000, \"more\": \"{}\"}}", "x".repeat(1 << 20));
    let (got, named, problem) = bid("lee", "live", "h99", huge, 0).await;
    if (got, named.as_str()) != (413, "too_large") {
        wrong.push(format!("a huge body: {got} {problem}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(scene.state().await, before);
    scene.cluster.assert_no_panic();
}

/// who | frame | code
#[rustfmt::skip]
const WEBSOCKET: &[(&str, &str, &str)] = &[
    ("lee", "{\"t\": ", "bad_request"),
    ("lee", "{\"t\": \"dance\"}", "bad_request"),
    ("lee", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w1\",\"amount\":-1}", "invalid"),
    ("lee", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w2\",\"amount\":6000.5}", "invalid"),
    ("lee", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w3\",\"amount\":18446744073709551616}", "too_big"),
    ("lee", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w4\",\"amount\":1000000000000001}", "too_big"),
    ("lee", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w5\",\"amount\":5000}", "low"),
    ("lee", "{\"t\":\"bid\",\"a\":\"over\",\"id\":\"w6\",\"amount\":9000}", "closed"),
    ("lee", "{\"t\":\"bid\",\"a\":\"draft\",\"id\":\"w7\",\"amount\":9000}", "not_open"),
    ("lee", "{\"t\":\"bid\",\"a\":\"unknown\",\"id\":\"w8\",\"amount\":9000}", "not_found"),
    ("kim", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"kim-1\",\"amount\":9000}", "dup_body"),
    ("seller", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w9\",\"amount\":9000}", "own"),
    ("nobody", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w10\",\"amount\":9000}", "auth"),
    ("nobody", "{\"t\":\"chat\",\"a\":\"live\",\"id\":\"w11\",\"text\":\"hi\"}", "auth"),
    ("lee", "{\"t\":\"join\",\"a\":\"unknown\"}", "not_found"),
];

/// Opens a socket at a node, says hello as `who`, sends one frame, and gives the first coded answer or the close code.
async fn answer(scene: &Scene, place: usize, who: &str, frame: Message) -> String {
    let url = format!("{}/ws", scene.cluster.nodes[place].http.replace("http", "ws"));
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    if let Some(token) = scene.token(who) {
        socket
            .send(Message::text(json!({"t": "hello", "token": token}).to_string()))
            .await
            .unwrap();
    }
    socket.send(frame).await.unwrap();
    let waiting = async {
        while let Some(message) = socket.next().await {
            match message {
                Ok(Message::Text(text)) => {
                    let said: Value = serde_json::from_str(text.as_str()).unwrap();
                    let codes = [&said["problem"]["code"], &said["verdict"]["code"]];
                    if let Some(code) = codes.iter().find_map(|c| c.as_str()) {
                        return code.to_string();
                    }
                }
                Ok(Message::Close(Some(close))) => return u16::from(close.code).to_string(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
        "end".to_string()
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_websocket_each_gets_its_code_and_nothing_changes() {
    let scene = scene().await;
    let before = scene.state().await;
    let mut wrong = Vec::new();
    for (i, (who, frame, code)) in WEBSOCKET.iter().enumerate() {
        let got = answer(&scene, i % 3, who, Message::text(*frame)).await;
        if got != *code {
            wrong.push(format!("{who} {frame}: {got} instead of {code}"));
        }
    }
    for who in ["expired", "foreign", "garbage", "none"] {
        let got = answer(&scene, 0, who, Message::text("{\"t\":\"ping\",\"c\":1}")).await;
        if got != "4401" && got != "auth" {
            wrong.push(format!("hello with the {who} token: {got} instead of 4401"));
        }
    }
    let big = format!(
        "{{\"t\":\"chat\",\"a\":\"live\",\"id\":\"w90\",\"text\":\"{}\"}}",
        "x".repeat(64 * 1024)
    );
    let got = answer(&scene, 1, "lee", Message::text(big)).await;
    if !matches!(got.as_str(), "4400" | "too_large" | "1009") {
        wrong.push(format!("a huge frame: {got} instead of 4400"));
    }
    let got = answer(&scene, 2, "lee", Message::binary(vec![0xff; 64])).await;
    if !matches!(got.as_str(), "4400" | "bad_request") {
        wrong.push(format!("a binary frame: {got} instead of bad_request"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(scene.state().await, before);
    scene.cluster.assert_no_panic();
}
