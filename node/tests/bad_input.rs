//! Rubbish, lies and bad luck against a real cluster, over HTTP and WebSocket: each gets its coded refusal, nothing else
//! changes, and no node panics.
//!
//! Where each expected code comes from: what is no JSON, or a body that is no object, is malformed (`bad_request`); a
//! field that is missing, of another type or out of its bounds is `invalid`, an amount above 10^15 `too_big` (docs/protocol.md);
//! what a shard judges has the reason of `auction::Reason`. A zero is within the bounds of an amount, so it is `low`.
//!
//! "Late" is hard to hit from outside: whether a bid comes before or after a deadline is the leader's clock to say. So
//! bidders bid without pause until each is told `closed`, and every verdict is held against the stamp that it carries.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use client::Api;
use common::{Cluster, PATIENCE, auction, people};
use futures_util::{SinkExt as _, StreamExt as _};
use router::auth::Tokens;
use router::{Options, Secret};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
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

    /// A bid over HTTP at a node: status, code, problem.
    async fn post(
        &self,
        http: &reqwest::Client,
        who: &str,
        (auction, key): (&str, &str),
        body: String,
        place: usize,
    ) -> (u16, String, Value) {
        let node = &self.cluster.nodes[place].http;
        let mut request = http
            .post(format!("{node}/api/v1/auctions/{auction}/bids"))
            .header("content-type", "application/json")
            .body(body);
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        if let Some(token) = self.token(who) {
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
    }

    /// What must not change.
    async fn state(&self) -> State {
        let mut state = State::default();
        for id in ["live", "draft", "over"] {
            let a = self.api.auction(id).await.unwrap();
            state.auctions.push(format!(
                "{id} {} {} {:?} {:?} {}",
                a.phase, a.price, a.leader, a.ends_at, a.bids
            ));
            let events = self.api.events(id, 0, 500).await.unwrap().items;
            let told =
                |e: &client::wire::Event| format!("{} {} {:?} {:?} {} {}", e.seq, e.ty, e.actor, e.id, e.price, e.h);
            state.events.push(events.iter().map(told).collect());
        }
        state
    }

    /// Nothing changed since; no node panicked.
    async fn assert_unchanged_since(&self, before: &State) {
        let now = self.state().await;
        assert_eq!(now.auctions, before.auctions);
        for (now, before) in now.events.iter().zip(&before.events) {
            let (same, more) = now.split_at(before.len().min(now.len()));
            assert_eq!(same, before);
            // A busy machine may make the clock hold meanwhile. That is declared to every live auction as an event of its
            // own (G5), which is nobody's doing and moves neither price nor deadline: they are compared above.
            assert!(more.iter().all(|e| e.split(' ').nth(1) == Some("held")), "{more:?}");
        }
        self.cluster.assert_no_panic();
    }
}

/// What there is to see of the scene's auctions.
#[derive(Default)]
struct State {
    auctions: Vec<String>,
    events: Vec<Vec<String>>,
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
    ("lee", "live", "h9", "{\"amount\": 1e400}", 422, "invalid"),
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
        scene.post(&http, who, (auction, key), body, place).await
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
    scene.assert_unchanged_since(&before).await;
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
    ("kim", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w12\",\"amount\":9000}", "leading"),
    ("kim", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"kim-1\",\"amount\":9000}", "dup_body"),
    ("seller", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w9\",\"amount\":9000}", "own"),
    ("nobody", "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w10\",\"amount\":9000}", "auth"),
    ("nobody", "{\"t\":\"chat\",\"a\":\"live\",\"id\":\"w11\",\"text\":\"hi\"}", "auth"),
    ("lee", "{\"t\":\"join\",\"a\":\"unknown\"}", "not_found"),
];

const BID: &str = "{\"t\":\"bid\",\"a\":\"live\",\"id\":\"w99\",\"amount\":9000}";

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A socket at a node, with hello said.
async fn open(scene: &Scene, place: usize, token: Option<String>) -> Socket {
    let url = format!("{}/ws", scene.cluster.nodes[place].http.replace("http", "ws"));
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    if let Some(token) = token {
        let hello = json!({"t": "hello", "token": token}).to_string();
        socket.send(Message::text(hello)).await.unwrap();
    }
    socket
}

/// What a socket says next that is an answer.
#[derive(Debug, PartialEq)]
enum Answer {
    /// A code: of a problem, or of a verdict that refuses.
    Code(String),
    /// An accepted bid.
    Accepted,
    /// The edge closed it, by this code.
    Closed(u16),
    /// It ended without a word.
    Ended,
}

async fn next(socket: &mut Socket) -> (Answer, Value) {
    let waiting = async {
        while let Some(message) = socket.next().await {
            match message {
                Ok(Message::Text(text)) => {
                    let said: Value = serde_json::from_str(text.as_str()).unwrap();
                    let codes = [&said["problem"]["code"], &said["verdict"]["code"]];
                    if let Some(code) = codes.iter().find_map(|c| c.as_str()) {
                        return (Answer::Code(code.to_string()), said);
                    }
                    if said["verdict"]["ok"] == true {
                        return (Answer::Accepted, said);
                    }
                }
                Ok(Message::Close(Some(close))) => return (Answer::Closed(close.code.into()), Value::Null),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        (Answer::Ended, Value::Null)
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("an answer")
}

/// Says hello as `who`, sends one frame, and gives `n` answers.
async fn answers(scene: &Scene, place: usize, who: &str, frame: Message, n: usize) -> Vec<Answer> {
    let mut socket = open(scene, place, scene.token(who)).await;
    // A token that is refused closes the socket, maybe before the frame is out.
    let _ = socket.send(frame).await;
    let mut all = Vec::new();
    for _ in 0..n {
        all.push(next(&mut socket).await.0);
    }
    all
}

fn code(code: &str) -> Answer {
    Answer::Code(code.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_websocket_each_gets_its_code_and_nothing_changes() {
    let scene = scene().await;
    let before = scene.state().await;
    let mut wrong = Vec::new();
    let mut check = |what: &str, got: Vec<Answer>, expect: Vec<Answer>| {
        if got != expect {
            wrong.push(format!("{what}: {got:?} instead of {expect:?}"));
        }
    };
    for (i, (who, frame, expect)) in WEBSOCKET.iter().enumerate() {
        let got = answers(&scene, i % 3, who, Message::text(*frame), 1).await;
        check(&format!("{who} {frame}"), got, vec![code(expect)]);
    }
    // Who can't be proven is told so and shut out; the bid behind the token is never looked at.
    for (i, who) in ["expired", "foreign", "garbage", "none"].into_iter().enumerate() {
        let got = answers(&scene, i % 3, who, Message::text(BID), 2).await;
        check(who, got, vec![code("auth"), Answer::Closed(4401)]);
    }
    let chat = |n: usize| json!({"t": "chat", "a": "live", "id": "w90", "text": "x".repeat(n)}).to_string();
    let got = answers(&scene, 1, "lee", Message::text(chat(5_000)), 2).await;
    check("over 4 KiB", got, vec![code("too_large"), Answer::Closed(4400)]);
    let got = answers(&scene, 2, "lee", Message::binary(vec![0xff; 64]), 2).await;
    check("binary", got, vec![code("bad_request"), Answer::Closed(4400)]);
    // Far beyond the bound the edge hangs up on what it hasn't read, which may overtake its own close frame.
    let got = answers(&scene, 1, "lee", Message::text(chat(64 * 1024)), 1).await;
    let hung_up = matches!(got[..], [Answer::Closed(4400) | Answer::Ended]);
    check("far over", if hung_up { vec![] } else { got }, vec![]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.assert_unchanged_since(&before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ends_meanwhile_ends_its_socket() {
    let scene = scene().await;
    let before = scene.state().await;
    let (short, ends_ms) = short_lived();
    let mut idle = open(&scene, 0, Some(short.clone())).await;
    let mut busy = open(&scene, 1, Some(short)).await;
    let (mut judged, mut n) = (0, 0);
    let mut pace = pace();
    loop {
        pace.tick().await;
        n += 1;
        let late = wall_ms() >= ends_ms;
        let bid = json!({"t": "bid", "a": "live", "id": format!("short-{n}"), "amount": 5_000}).to_string();
        if busy.send(Message::text(bid)).await.is_err() {
            break;
        }
        match next(&mut busy).await.0 {
            Answer::Code(code) if code == "low" => {
                assert!(!late, "bid {n} was judged though its token had ended");
                judged += 1;
            }
            Answer::Code(code) if code == "auth" => assert!(wall_ms() >= ends_ms, "refused before its end"),
            Answer::Closed(4401) => break,
            other => panic!("bid {n}: {other:?}"),
        }
    }
    assert!(
        wall_ms() >= ends_ms && judged > 0,
        "{judged} bids were judged while the token lived"
    );
    assert_eq!(
        next(&mut idle).await.0,
        Answer::Closed(4401),
        "a silent socket is closed as well"
    );
    scene.assert_unchanged_since(&before).await;
}

fn wall_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_millis() as u64
}

/// A bidder's token that ends in a few seconds, and when (unix ms).
fn short_lived() -> (String, u64) {
    let options = Options {
        token_secret: Secret::of(common::SECRET.as_bytes()),
        token_ttl_ms: 4_000,
        ..Options::default()
    };
    let id = auction::Id::parse("guest-short-1").unwrap();
    let (token, user) = Tokens::new(&options)
        .mint(&id, "Short", auction::Rights::BIDDER)
        .unwrap();
    (token, user.expires_at_ms)
}

/// A verdict as its bidder was told: accepted or the code, at what stamp, of which version.
#[derive(Debug)]
struct Told {
    code: Option<String>,
    ct: u64,
    seq: u64,
}

impl Told {
    fn of(verdict: &Value) -> Told {
        let code = verdict["code"].as_str().map(Into::into);
        let number = |key: &str| verdict[key].as_u64().unwrap();
        Told {
            code,
            ct: number("ct"),
            seq: number("seq"),
        }
    }
}

/// The next amount: always above every one before.
fn more(price: &AtomicU64) -> u64 {
    price.fetch_add(100, Ordering::Relaxed)
}

/// Below the pace at which a bidder is told to slow down (`rate`): such a refusal carries no stamp.
fn pace() -> tokio::time::Interval {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pace
}

/// Bids over HTTP until told `closed`.
async fn until_closed_http(api: Api, name: &str, price: &AtomicU64) -> Vec<Told> {
    let (mut told, mut pace) = (Vec::new(), pace());
    while told.last().is_none_or(|t: &Told| t.code.as_deref() != Some("closed")) {
        pace.tick().await;
        let verdict = api
            .bid("late", more(price), &format!("{name}-{}", told.len()))
            .await
            .unwrap();
        told.push(Told {
            code: verdict.code,
            ct: verdict.ct,
            seq: verdict.seq,
        });
    }
    told
}

/// The same over a WebSocket.
async fn until_closed_ws(mut socket: Socket, name: &str, price: &AtomicU64) -> Vec<Told> {
    let (mut told, mut pace) = (Vec::new(), pace());
    while told.last().is_none_or(|t: &Told| t.code.as_deref() != Some("closed")) {
        pace.tick().await;
        let id = format!("{name}-{}", told.len());
        let bid = json!({"t": "bid", "a": "late", "id": id, "amount": more(price)}).to_string();
        socket.send(Message::text(bid)).await.unwrap();
        let (_, said) = next(&mut socket).await;
        assert_eq!(said["id"], id, "{said}");
        assert!(
            said["verdict"]["ct"].is_u64(),
            "a verdict of the shard has its stamp: {said}"
        );
        told.push(Told::of(&said["verdict"]));
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_bid_is_refused_and_one_in_time_is_not() {
    let cluster = Cluster::start("").await;
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, 4).await;
    let selling = api.with_token(&seller.token);
    selling.create(&auction("late", 5_000)).await.unwrap();
    selling.start("late").await.unwrap();
    let ends_at = api.auction("late").await.unwrap().ends_at.unwrap();
    let price = AtomicU64::new(1_000);
    let token = |n: usize| bidders[n].token.clone();
    let scene = Scene {
        api: api.clone(),
        seller: seller.token.clone(),
        kim: token(0),
        lee: token(1),
        cluster,
    };
    let (ws_a, ws_b) = (
        open(&scene, 1, Some(token(2))).await,
        open(&scene, 2, Some(token(3))).await,
    );
    let (a, b, c, d) = tokio::join!(
        until_closed_http(scene.cluster.api(0).with_token(&token(0)), "a", &price),
        until_closed_http(scene.cluster.api(2).with_token(&token(1)), "b", &price),
        until_closed_ws(ws_a, "c", &price),
        until_closed_ws(ws_b, "d", &price),
    );
    let all = [a, b, c, d];
    let mut newest = 0;
    for (n, told) in all.iter().enumerate() {
        for verdict in told {
            match verdict.code.as_deref() {
                None => {
                    assert!(
                        verdict.ct < ends_at,
                        "bidder {n} was accepted late: {verdict:?}, ended {ends_at}"
                    );
                    newest = newest.max(verdict.seq);
                }
                Some("closed") => assert!(
                    verdict.ct >= ends_at,
                    "bidder {n} was in time: {verdict:?}, ends {ends_at}"
                ),
                Some("low" | "leading") => {}
                other => panic!("bidder {n}: {other:?}"),
            }
        }
    }
    assert!(newest > 0, "nobody bid in time: {all:?}");
    // The last one in time won: nobody who came later did, and the close is what followed it (but for holds).
    let events = api.events("late", newest - 1, 500).await.unwrap().items;
    let after: Vec<&str> = events
        .iter()
        .map(|e| e.ty.as_str())
        .filter(|ty| *ty != "held")
        .collect();
    assert_eq!(after, ["bid", "close"]);
    assert_eq!(events.last().unwrap().leader, events[0].actor);
    scene.cluster.assert_no_panic();
}
