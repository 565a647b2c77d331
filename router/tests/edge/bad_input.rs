//! What is malformed, too large, late, foreign or forbidden gets its coded refusal, over HTTP and over the WebSocket, and
//! nothing else changes.

use crate::kit::{Guest, Kit, Ws, answer, item};
use auction::Action;
use reqwest::Method;
use serde_json::{Value, json};

struct Scene {
    kit: Kit,
    seller: Guest,
    bidder: Guest,
    expired: Guest,
    foreign: Guest,
}

/// A live auction led by someone at 5,000, one that is over, a draft, and people.
async fn scene() -> Scene {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    for id in ["live", "over", "late"] {
        kit.live(&seller, id).await;
    }
    kit.draft(&seller, "draft").await;
    kit.fake.act(
        "over",
        "op",
        Action::Cancel {
            reason: "broken".into(),
        },
    );
    kit.fake.act("live", "ann", Action::Bid { amount: 5_000 });
    kit.fake.act("live", "op", Action::Extend { ms: 3_600_000 });
    kit.fake.advance(60_000);
    let stranger = |secret: &[u8], ttl| {
        let options = router::Options {
            token_secret: router::Secret::of(secret),
            token_ttl_ms: ttl,
            ..Default::default()
        };
        let id = auction::Id::parse(&bidder.id).unwrap();
        let tokens = router::auth::Tokens::new(&options);
        Guest {
            token: tokens.mint(&id, "x", auction::Rights::BIDDER).unwrap().0,
            id: bidder.id.clone(),
        }
    };
    let (expired, foreign) = (stranger(b"test", 0), stranger(b"another cluster", 60_000));
    Scene {
        kit,
        seller,
        bidder,
        expired,
        foreign,
    }
}

impl Scene {
    /// Whom a table means; nobody if empty.
    fn who(&self, name: &str) -> Option<&Guest> {
        match name {
            "" => None,
            "seller" => Some(&self.seller),
            "bidder" => Some(&self.bidder),
            "expired" => Some(&self.expired),
            "foreign" => Some(&self.foreign),
            other => panic!("nobody is called {other}"),
        }
    }
}

fn unchanged(kit: &Kit, before: &[u64]) {
    let after: Vec<u64> = ["live", "over", "late", "draft"]
        .map(|a| kit.fake.view(a).unwrap().seq)
        .to_vec();
    assert_eq!(after, before, "nothing else changes");
}

fn seqs(kit: &Kit) -> Vec<u64> {
    ["live", "over", "late", "draft"]
        .map(|a| kit.fake.view(a).unwrap().seq)
        .to_vec()
}

/// what | auction | who (nobody if empty) | body | status | code
#[rustfmt::skip]
const HTTP_BIDS: &[(&str, &str, &str, &str, u16, &str)] = &[
    ("malformed", "live", "bidder", "{\"amount\":", 400, "bad_request"),
    ("not JSON", "live", "bidder", "amount=6000", 400, "bad_request"),
    ("another shape", "live", "bidder", "[6000]", 400, "bad_request"),
    ("just a number", "live", "bidder", " 6000", 400, "bad_request"),
    ("twice", "live", "bidder", "{\"amount\":6000,\"amount\":7000}", 422, "invalid"),
    ("nothing", "live", "bidder", "", 422, "invalid"),
    ("no amount", "live", "bidder", "{}", 422, "invalid"),
    ("null", "live", "bidder", "{\"amount\":null}", 422, "invalid"),
    ("text", "live", "bidder", "{\"amount\":\"6000\"}", 422, "invalid"),
    ("negative", "live", "bidder", "{\"amount\":-1}", 422, "invalid"),
    ("very negative", "live", "bidder", "{\"amount\":-9223372036854775809}", 422, "invalid"),
    ("fraction", "live", "bidder", "{\"amount\":6000.5}", 422, "invalid"),
    ("float", "live", "bidder", "{\"amount\":6000.0}", 422, "invalid"),
    ("NaN", "live", "bidder", "{\"amount\":NaN}", 400, "bad_request"),
    ("beyond floats", "live", "bidder", "{\"amount\":1e400}", 422, "invalid"),
    ("too big", "live", "bidder", "{\"amount\":1000000000000001}", 422, "too_big"),
    ("2^63", "live", "bidder", "{\"amount\":9223372036854775808}", 422, "too_big"),
    ("overflowing", "live", "bidder", "{\"amount\":18446744073709551616}", 422, "too_big"),
    ("sent: text", "live", "bidder", "{\"amount\":6000,\"sent\":\"now\"}", 422, "invalid"),
    ("sent: negative", "live", "bidder", "{\"amount\":6000,\"sent\":-1}", 422, "invalid"),
    ("sent: a fraction", "live", "bidder", "{\"amount\":6000,\"sent\":1.5}", 422, "invalid"),
    ("sent long ago, and low", "live", "bidder", "{\"amount\":0,\"sent\":0}", 409, "low"),
    ("zero", "live", "bidder", "{\"amount\":0}", 409, "low"),
    ("low", "live", "bidder", "{\"amount\":5001}", 409, "low"),
    ("late", "late", "bidder", "{\"amount\":6000}", 409, "closed"),
    ("closed", "over", "bidder", "{\"amount\":6000}", 409, "closed"),
    ("not open", "draft", "bidder", "{\"amount\":6000}", 409, "not_open"),
    ("unknown auction", "none", "bidder", "{\"amount\":6000}", 404, "not_found"),
    ("no id at all", "a%20b", "bidder", "{\"amount\":6000}", 404, "not_found"),
    ("the seller's own", "live", "seller", "{\"amount\":6000}", 409, "own"),
    ("no token", "live", "", "{\"amount\":6000}", 401, "auth"),
    ("expired token", "live", "expired", "{\"amount\":6000}", 401, "auth"),
    ("foreign token", "live", "foreign", "{\"amount\":6000}", 401, "auth"),
];

#[tokio::test]
async fn bids_over_http() {
    let s = scene().await;
    let before = seqs(&s.kit);
    let big = format!("{{\"amount\": 6000, \"pad\": \"{}\"}}", "x".repeat(40_000));
    let oversized = ("oversized", "live", "bidder", big.as_str(), 413, "too_large");
    let all = HTTP_BIDS.iter().copied().chain([oversized]);
    for (n, (what, auction, who, body, status, code)) in all.enumerate() {
        let mut request = s.kit.http.post(s.kit.url(&format!("/api/v1/auctions/{auction}/bids")));
        request = request
            .header("idempotency-key", format!("k{n}"))
            .header("content-type", "application/json");
        if let Some(who) = s.who(who) {
            request = request.bearer_auth(&who.token);
        }
        let (got, answer) = answer(request.body(body.to_owned())).await;
        assert_eq!(
            (got.as_u16(), answer["code"].as_str()),
            (status, Some(code)),
            "{what}: {answer}"
        );
        for field in ["type", "title", "status", "ko"] {
            assert!(!answer[field].is_null(), "{what}: {field} is missing in {answer}");
        }
        unchanged(&s.kit, &before);
    }
}

#[tokio::test]
async fn keys_over_http() {
    let s = scene().await;
    assert_eq!(s.kit.bid("live", &s.bidder, "mine", 6_000).await.0, 200);
    let before = seqs(&s.kit);
    let (status, body) = s.kit.bid("live", &s.bidder, "mine", 7_000).await;
    assert_eq!((status.as_u16(), &body["code"]), (409, &json!("dup_body")));
    unchanged(&s.kit, &before);
    let long = "k".repeat(65);
    for (key, status, code) in [
        (None, 400, "bad_request"),
        (Some(long.as_str()), 422, "invalid"),
        (Some("a b"), 422, "invalid"),
        (Some(""), 422, "invalid"),
    ] {
        let mut request = s
            .kit
            .http
            .post(s.kit.url("/api/v1/auctions/live/bids"))
            .bearer_auth(&s.bidder.token);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let (got, body) = answer(request.json(&json!({"amount": 9_000}))).await;
        assert_eq!((got.as_u16(), body["code"].as_str()), (status, Some(code)), "{key:?}");
        unchanged(&s.kit, &before);
    }
    let form = s
        .kit
        .http
        .post(s.kit.url("/api/v1/auctions/live/bids"))
        .bearer_auth(&s.bidder.token);
    let form = form
        .header("idempotency-key", "f")
        .header("content-type", "text/plain")
        .body("{\"amount\":9000}");
    let (got, body) = answer(form).await;
    assert_eq!((got.as_u16(), body["code"].as_str()), (415, Some("unsupported")));
    let garbage = s
        .kit
        .http
        .get(s.kit.url("/api/v1/auctions"))
        .header("authorization", "Basic abc");
    assert_eq!(answer(garbage).await.0, 401);
}

fn wrong(key: &str, value: Value) -> Value {
    let mut body = item("fresh");
    body[key] = value;
    body
}

/// what | body | status | code
#[rustfmt::skip]
fn wrong_definitions() -> Vec<(&'static str, Value, u16, &'static str)> {
    vec![
        ("no title", wrong("title", json!("")), 422, "invalid"),
        ("a huge title", wrong("title", json!("x".repeat(200))), 422, "invalid"),
        ("title of another type", wrong("title", json!(5)), 422, "invalid"),
        ("currency", wrong("currency", json!("won")), 422, "invalid"),
        ("negative price", wrong("start_price", json!(-5)), 422, "invalid"),
        ("price too big", wrong("start_price", json!(u64::MAX)), 422, "too_big"),
        ("reserve too big", wrong("reserve", json!(u64::MAX)), 422, "too_big"),
        ("no increments", wrong("increments", json!([])), 422, "invalid"),
        ("increments that fall", wrong("increments", json!([[0, 100], [50, 1]])), 422, "invalid"),
        ("no time", wrong("duration_ms", json!(0)), 422, "invalid"),
        ("floor too low", wrong("rush", json!({"cut_ppm_max": 1, "cut_per_raise_ppm": 1, "floor_ms": 1})), 422, "invalid"),
        ("cut too deep", wrong("rush", json!({"cut_ppm_max": 1_000_000, "cut_per_raise_ppm": 1, "floor_ms": 5000})), 422, "invalid"),
        ("bad id", wrong("id", json!("a/b")), 422, "invalid"),
        ("taken id", item("live"), 409, "taken"),
    ]
}

#[tokio::test]
async fn definitions_over_http() {
    let s = scene().await;
    for (what, body, status, code) in wrong_definitions() {
        let (got, body) = s
            .kit
            .call(Method::POST, "/api/v1/auctions", Some(&s.seller), body)
            .await;
        assert_eq!(
            (got.as_u16(), body["code"].as_str()),
            (status, Some(code)),
            "{what}: {body}"
        );
    }
    assert!(s.kit.fake.view("fresh").is_none());
}

#[tokio::test]
async fn others_may_not_touch_an_auction() {
    let s = scene().await;
    let (bidder, stranger) = (&s.bidder, s.kit.guest("seller").await);
    let (got, _) = s
        .kit
        .call(Method::POST, "/api/v1/auctions", Some(bidder), item("fresh"))
        .await;
    assert_eq!(got, 403, "a bidder creates nothing");
    let before = seqs(&s.kit);
    for (verb, body) in [
        ("start", json!({})),
        ("pause", json!({})),
        ("extend", json!({"ms": 1000})),
        ("cancel", json!({"reason": "mine now"})),
        ("schedule", json!({"start_at_ms": 4_000_000_000_000u64})),
    ] {
        let auction = if verb == "start" || verb == "schedule" {
            "draft"
        } else {
            "live"
        };
        let path = format!("/api/v1/auctions/{auction}/{verb}");
        let (got, answer) = s.kit.call(Method::POST, &path, Some(&stranger), body.clone()).await;
        assert_eq!(
            (got.as_u16(), answer["code"].as_str()),
            (403, Some("auth")),
            "{verb}: {answer}"
        );
        let (got, _) = s.kit.call(Method::POST, &path, None, body).await;
        assert_eq!(got, 401, "{verb}");
        unchanged(&s.kit, &before);
    }
}

#[tokio::test]
async fn bids_over_the_websocket() {
    let s = scene().await;
    let before = seqs(&s.kit);
    let mut bidder = s.kit.signed(&s.bidder).await;
    let mut seller = s.kit.signed(&s.seller).await;
    let mut nobody = s.kit.socket().await;
    // what | who (0 bidder, 1 seller, 2 nobody) | auction | amount | code
    let table = [
        ("null", 0, "live", json!(null), "invalid"),
        ("text", 0, "live", json!("6000"), "invalid"),
        ("negative", 0, "live", json!(-1), "invalid"),
        ("fraction", 0, "live", json!(6000.5), "invalid"),
        ("float", 0, "live", json!(6000.0), "invalid"),
        ("too big", 0, "live", json!(1_000_000_000_000_001u64), "too_big"),
        ("2^63", 0, "live", json!(1u64 << 63), "too_big"),
        ("beyond 64 bits", 0, "live", json!(1e30), "too_big"),
        ("zero", 0, "live", json!(0), "low"),
        ("low", 0, "live", json!(5_001), "low"),
        ("late", 0, "late", json!(6_000), "closed"),
        ("closed", 0, "over", json!(6_000), "closed"),
        ("not open", 0, "draft", json!(6_000), "not_open"),
        ("unknown auction", 0, "none", json!(6_000), "not_found"),
        ("the seller's own", 1, "live", json!(6_000), "own"),
        ("no token", 2, "live", json!(6_000), "auth"),
    ];
    for (n, (what, who, auction, amount, code)) in table.into_iter().enumerate() {
        let ws = match who {
            0 => &mut bidder,
            1 => &mut seller,
            _ => &mut nobody,
        };
        let id = format!("b{n}");
        ws.send(json!({"t": "bid", "a": auction, "id": id, "amount": amount}))
            .await;
        let frame = ws.until(&["verdict"]).await;
        let got = frame["problem"]["code"].as_str().or(frame["verdict"]["code"].as_str());
        assert_eq!(
            (got, &frame["id"], &frame["a"]),
            (Some(code), &json!(id), &json!(auction)),
            "{what}: {frame}"
        );
        unchanged(&s.kit, &before);
    }
    for sent in [json!("now"), json!(-1), json!(1.5), json!([1])] {
        bidder
            .send(json!({"t": "bid", "a": "live", "id": "odd", "amount": 6_000, "sent": sent}))
            .await;
        let frame = bidder.until(&["verdict"]).await;
        assert_eq!(
            (&frame["problem"]["code"], &frame["id"]),
            (&json!("invalid"), &json!("odd")),
            "sent {sent}"
        );
    }
    unchanged(&s.kit, &before);
    assert_eq!(bidder.bid("live", "mine", 6_000).await["verdict"]["ok"], true);
    let again = bidder.bid("live", "mine", 6_000).await;
    assert_eq!(
        (&again["verdict"]["ok"], &again["verdict"]["dup"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(bidder.bid("live", "mine", 7_000).await["verdict"]["code"], "dup_body");
}

/// what | frame | code of the problem (none: closed without) | close code (0: stays open)
type FrameRow = (&'static str, String, Option<&'static str>, u16);

#[rustfmt::skip]
fn frames(s: &Scene) -> Vec<FrameRow> {
    let long = json!({"t": "chat", "a": "live", "id": "x", "text": "y".repeat(5_000)}).to_string();
    let huge = "z".repeat(100_000);
    vec![
        ("not JSON", "hello".into(), Some("bad_request"), 0),
        ("no object", "[1]".into(), Some("bad_request"), 0),
        ("no type", "{}".into(), Some("bad_request"), 0),
        ("unknown type", json!({"t": "launch"}).to_string(), Some("bad_request"), 0),
        ("type of another type", json!({"t": 5}).to_string(), Some("bad_request"), 0),
        ("join nowhere", json!({"t": "join"}).to_string(), Some("bad_request"), 0),
        ("join what is no id", json!({"t": "join", "a": "a b"}).to_string(), Some("bad_request"), 0),
        ("join from a fraction", json!({"t": "join", "a": "live", "epoch": 1, "offset": 0.5}).to_string(), Some("bad_request"), 0),
        ("join the unknown", json!({"t": "join", "a": "none"}).to_string(), Some("not_found"), 0),
        ("join a draft", json!({"t": "join", "a": "draft"}).to_string(), Some("not_open"), 0),
        ("bid without id", json!({"t": "bid", "a": "live", "amount": 6_000}).to_string(), Some("bad_request"), 0),
        ("ping without c", json!({"t": "ping"}).to_string(), Some("bad_request"), 0),
        ("chat unsigned", json!({"t": "chat", "a": "live", "id": "x", "text": "hi"}).to_string(), Some("auth"), 0),
        ("garbage token", json!({"t": "hello", "token": "x.y.z"}).to_string(), Some("auth"), 4401),
        ("expired token", json!({"t": "hello", "token": s.expired.token}).to_string(), Some("auth"), 4401),
        ("foreign token", json!({"t": "hello", "token": s.foreign.token}).to_string(), Some("auth"), 4401),
        ("over 4 KiB", long, Some("too_large"), 4400),
        ("far over", huge, None, 4400),
    ]
}

#[tokio::test]
async fn frames_that_are_none() {
    let s = scene().await;
    for (what, frame, code, close) in frames(&s) {
        let mut ws: Ws = s.kit.socket().await;
        ws.raw(frame).await;
        if let Some(code) = code {
            let problem = ws.until(&["problem"]).await;
            assert_eq!(problem["problem"]["code"], code, "{what}: {problem}");
        }
        if close == 0 {
            ws.send(json!({"t": "ping", "c": 1})).await;
            assert_eq!(ws.until(&["pong"]).await["c"], 1, "{what}");
        } else {
            assert_eq!(ws.until(&["closed"]).await["closed"], close, "{what}");
        }
    }
    let mut ws = s.kit.socket().await;
    ws.binary(vec![0xff; 64]).await;
    assert_eq!(ws.until(&["problem"]).await["problem"]["code"], "bad_request");
    assert_eq!(ws.until(&["closed"]).await["closed"], 4400, "binary");
    let mut ws = s.kit.socket().await;
    for _ in 0..9 {
        ws.raw("noise".into()).await;
    }
    assert_eq!(ws.until(&["closed"]).await["closed"], 4400, "patience has an end");
}

#[tokio::test]
async fn chat_lines_that_are_none() {
    let s = scene().await;
    let mut ws = s.kit.signed(&s.bidder).await;
    for (what, text, code) in [
        ("empty", String::new(), "invalid"),
        ("spaces", "   ".into(), "invalid"),
        ("control characters", "a\u{1b}[31mb".into(), "invalid"),
        ("turned around", "a\u{202e}b".into(), "invalid"),
        ("too long", "가".repeat(301), "invalid"),
    ] {
        ws.send(json!({"t": "chat", "a": "live", "id": "x", "text": text}))
            .await;
        let frame = ws.until(&["problem"]).await;
        assert_eq!(
            (frame["problem"]["code"].as_str(), &frame["id"]),
            (Some(code), &json!("x")),
            "{what}"
        );
    }
    let texts = s.kit.get("/api/v1/auctions/live/chat").await.1;
    assert_eq!(texts["items"], json!([]));
}

/// Frames are thrown together from these.
#[rustfmt::skip]
const PIECES: [&str; 24] = [
    "{", "}", "[", "]", ":", ",", "\"t\"", "\"bid\"", "\"join\"", "\"hello\"", "\"chat\"", "\"ping\"",
    "\"a\"", "\"live\"", "\"id\"", "\"amount\"", "\"offset\"", "\"epoch\"", "1e99", "-0", "18446744073709551616", "null", "\"\\ud800\"", "\u{feff}"
];

/// Frames made of pieces of frames: none may end a socket otherwise than by a code of ours, and the edge goes on.
#[tokio::test]
async fn noise_is_never_more_than_noise() {
    let s = scene().await;
    let before = seqs(&s.kit);
    for seed in 0u64..60 {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = |n: usize| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            (dice % n as u64) as usize
        };
        let mut ws = s.kit.socket().await;
        for _ in 0..6 {
            let frame: String = (0..roll(20)).map(|_| PIECES[roll(PIECES.len())]).collect();
            ws.raw(frame).await;
        }
        // Half made well, so that it gets past the parser.
        let fields = ["t", "a", "id", "amount", "epoch", "offset", "token", "c", "text"];
        let values = [
            json!("bid"),
            json!("join"),
            json!("chat"),
            json!("live"),
            json!(-1),
            json!(1e300),
            json!([]),
            json!({}),
            json!(null),
        ];
        let frame: serde_json::Map<String, Value> = (0..4)
            .map(|_| {
                (
                    fields[roll(fields.len())].to_owned(),
                    values[roll(values.len())].clone(),
                )
            })
            .collect();
        ws.send(Value::Object(frame)).await;
        ws.send(json!({"t": "ping", "c": seed})).await;
        let end = ws.until(&["pong", "closed"]).await;
        let known = end["c"] == json!(seed) || [4400, 4401].map(|c| json!(c)).contains(&end["closed"]);
        assert!(known, "seed {seed}: {end}");
    }
    unchanged(&s.kit, &before);
}
