//! Each row of the protocol's HTTP table, once the way it should go, and who may not.

use crate::kit::{Kit, answer, item, options};
use auction::Rights;
use reqwest::Method;
use router::Options;
use serde_json::{Value, json};

#[tokio::test]
async fn an_auction_from_draft_to_sold() {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.draft(&seller, "tea").await;
    let path = |verb: &str| format!("/api/v1/auctions/tea/{verb}");
    let mut edit = item("tea");
    edit["version"] = json!(1);
    edit["title"] = json!("A better teapot");
    let (_, body) = kit.call(Method::PUT, "/api/v1/auctions/tea", Some(&seller), edit).await;
    assert_eq!(
        (&body["title"], &body["version"]),
        (&json!("A better teapot"), &json!(2)),
        "{body}"
    );
    // verb | body | phase after it
    let steps = [
        ("schedule", json!({"start_at_ms": 4_000_000_000_000u64}), "scheduled"),
        ("start", json!({}), "live"),
        ("pause", json!({}), "paused"),
        ("resume", json!({}), "live"),
        ("extend", json!({"ms": 5_000}), "live"),
    ];
    for (verb, body, phase) in steps {
        let (status, body) = kit.call(Method::POST, &path(verb), Some(&seller), body).await;
        assert_eq!(
            (status.as_u16(), body["phase"].as_str()),
            (200, Some(phase)),
            "{verb}: {body}"
        );
    }
    let (status, verdict) = kit.bid("tea", &bidder, "k1", 1_000).await;
    assert_eq!(
        (status.as_u16(), &verdict["ok"], &verdict["dup"]),
        (200, &json!(true), &json!(false)),
        "{verdict}"
    );
    let (_, again) = kit.bid("tea", &bidder, "k1", 1_000).await;
    assert_eq!(
        (&again["ok"], &again["dup"], &again["seq"]),
        (&json!(true), &json!(true), &verdict["seq"])
    );
    kit.fake.advance(70_000);
    let (_, body) = kit.get("/api/v1/auctions/tea").await;
    assert_eq!(
        (&body["phase"], &body["outcome"], &body["leader"]),
        (&json!("closed"), &json!("sold"), &json!(bidder.id))
    );
    let (_, events) = kit.get("/api/v1/auctions/tea/events?after=1&limit=2").await;
    assert_eq!(events["items"].as_array().unwrap().len(), 2);
    assert_eq!((&events["items"][0]["seq"], &events["next"]), (&json!(2), &json!(3)));
    let (_, all) = kit.get("/api/v1/auctions/tea/events").await;
    let types: Vec<_> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["ty"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["open", "pause", "resume", "extend", "bid", "close"]);
}

#[tokio::test]
async fn an_export_is_the_auction_and_each_event_of_it() {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "tea").await;
    for n in 0..600u64 {
        let who = if n % 2 == 0 { "ann" } else { "bob" };
        kit.fake.act(
            "tea",
            who,
            auction::Action::Bid {
                amount: 1_000 + 100 * n,
            },
        );
    }
    kit.bid("tea", &bidder, "last", 1_000_000).await;
    for (query, end) in [("", 0), ("?replica=local", 1)] {
        let text = kit
            .http
            .get(kit.url(&format!("/api/v1/auctions/tea/export{query}")))
            .send()
            .await
            .unwrap();
        let text = text.text().await.unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 1 + 602 + end, "{query}");
        assert_eq!(
            (&lines[0]["format"], &lines[0]["auction"]["seq"]),
            (&json!("rushroom-export/2"), &json!(602))
        );
        let seqs: Vec<u64> = lines[1..603].iter().map(|l| l["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=602).collect::<Vec<_>>());
        if end == 1 {
            assert_eq!(
                (&lines[603]["node"], &lines[603]["term"], &lines[603]["index"]),
                (&json!(1), &json!(5), &json!(99))
            );
        }
    }
    kit.fake.down(1);
    let (status, body) = kit.get("/api/v1/auctions/tea/export?replica=local").await;
    assert_eq!((status.as_u16(), &body["code"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn a_key_names_one_auction_however_often_it_is_sent() {
    let kit = Kit::new().await;
    let seller = kit.guest("seller").await;
    let mut body = item("x");
    body.as_object_mut().unwrap().remove("id");
    let create = |key: Option<&'static str>| {
        let mut request = kit
            .http
            .post(kit.url("/api/v1/auctions"))
            .bearer_auth(&seller.token)
            .json(&body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        answer(request)
    };
    let (first, second, other, none) = (
        create(Some("k")).await,
        create(Some("k")).await,
        create(Some("l")).await,
        create(None).await,
    );
    assert_eq!(
        (first.0.as_u16(), second.0.as_u16(), other.0.as_u16(), none.0.as_u16()),
        (201, 201, 201, 201)
    );
    assert_eq!(first.1["id"], second.1["id"]);
    assert_ne!(first.1["id"], other.1["id"]);
    assert_eq!(none.1["id"].as_str().unwrap().len(), 10);
}

fn ids(body: &Value) -> Vec<String> {
    let items = body["items"].as_array().unwrap().iter();
    items.map(|a| a["id"].as_str().unwrap().into()).collect()
}

#[tokio::test]
async fn lists_come_in_pages_and_keep_drafts_to_their_seller() {
    let kit = Kit::with(Options {
        list_cache_ms: 0,
        ..options()
    })
    .await;
    let (seller, other) = (kit.guest("seller").await, kit.guest("seller").await);
    for n in 0..5 {
        kit.live(&seller, &format!("live{n}")).await;
    }
    kit.draft(&seller, "draft1").await;
    kit.draft(&other, "draft2").await;
    kit.fake.act(
        "live4",
        "op",
        auction::Action::Cancel {
            reason: "broken".into(),
        },
    );
    let (_, page) = kit.get("/api/v1/auctions?limit=3").await;
    assert_eq!(ids(&page), ["live0", "live1", "live2"]);
    let next = page["next"].as_str().unwrap();
    let (_, page) = kit.get(&format!("/api/v1/auctions?limit=3&cursor={next}")).await;
    assert_eq!(
        (ids(&page), &page["next"]),
        (vec!["live3".into(), "live4".into()], &Value::Null)
    );
    let (_, page) = kit.get("/api/v1/auctions?state=closed").await;
    assert_eq!(ids(&page), ["live4"]);
    let (_, page) = kit.get("/api/v1/auctions?state=draft").await;
    assert_eq!(ids(&page), [""; 0]);
    let (_, page) = kit
        .call(Method::GET, "/api/v1/auctions?state=draft", Some(&other), json!({}))
        .await;
    assert_eq!(ids(&page), ["draft2"]);
    let (_, page) = kit.get(&format!("/api/v1/auctions?seller={}", other.id)).await;
    assert_eq!(ids(&page), [""; 0]);
    for bad in ["state=sold", "cursor=!!", "limit=x"] {
        let (status, body) = kit.get(&format!("/api/v1/auctions?{bad}")).await;
        assert_eq!((status.as_u16(), &body["code"]), (400, &json!("bad_request")), "{bad}");
    }
}

/// What is over comes page by page, by id; a page that is full says whether there is more.
#[tokio::test]
async fn what_is_over_is_listed_a_page_at_a_time() {
    let kit = Kit::with(Options {
        list_cache_ms: 0,
        ..options()
    })
    .await;
    let (seller, other) = (kit.guest("seller").await, kit.guest("seller").await);
    for n in 0..5 {
        kit.live(&seller, &format!("live{n}")).await;
    }
    for n in [0, 2, 3, 4] {
        kit.fake.act(
            &format!("live{n}"),
            "op",
            auction::Action::Cancel {
                reason: "broken".into(),
            },
        );
    }
    for (wish, pages) in [
        ("limit=2", vec!["live1 live0", "live2 live3", "live4"]),
        ("limit=5", vec!["live1 live0 live2 live3 live4"]),
        ("limit=1", vec!["live1", "live0", "live2", "live3", "live4"]),
        ("state=closed&limit=2", vec!["live0 live2", "live3 live4"]),
        ("state=closed&limit=3", vec!["live0 live2 live3", "live4"]),
        ("state=live", vec!["live1"]),
    ] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let (_, page) = kit.get(&format!("/api/v1/auctions?{wish}{cursor}")).await;
            seen.push(ids(&page).join(" "));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, pages, "{wish}");
    }
    let (_, page) = kit
        .get(&format!("/api/v1/auctions?state=closed&seller={}", seller.id))
        .await;
    assert_eq!(ids(&page).len(), 4);
    let (_, page) = kit
        .get(&format!("/api/v1/auctions?state=closed&seller={}", other.id))
        .await;
    assert_eq!((ids(&page).len(), &page["next"]), (0, &Value::Null));
}

/// Auctions over0, over1, ... of one seller, all cancelled.
async fn over(kit: &Kit, many: usize) {
    let seller = kit.guest("seller").await;
    for n in 0..many {
        let id = format!("over{n}");
        kit.live(&seller, &id).await;
        let reason = "broken".into();
        kit.fake.act(&id, "op", auction::Action::Cancel { reason });
    }
}

/// What can't be read is left out of its page, which names its shard; the pages after it are there.
#[tokio::test]
async fn a_list_goes_on_after_what_could_not_be_read() {
    let kit = Kit::with(Options {
        list_cache_ms: 0,
        ..options()
    })
    .await;
    over(&kit, 5).await;
    // not read | limit | pages; `?`: a shard is missing
    let table = [
        (None, 2, vec!["over0 over1", "over2 over3", "over4"]),
        (Some("over0"), 2, vec!["over1 ?", "over2 over3", "over4"]),
        (Some("over1"), 2, vec!["over0 ?", "over2 over3", "over4"]),
        (Some("over2"), 2, vec!["over0 over1", "over3 ?", "over4"]),
        (Some("over4"), 2, vec!["over0 over1", "over2 over3", "?"]),
        (Some("over1"), 1, vec!["over0", "?", "over2", "over3", "over4"]),
        (Some("over3"), 5, vec!["over0 over1 over2 over4 ?"]),
    ];
    for (unread, limit, pages) in table {
        kit.fake.unread(unread);
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let wish = format!("state=closed&limit={limit}{cursor}");
            let (_, page) = kit.get(&format!("/api/v1/auctions?{wish}")).await;
            let mut words = ids(&page);
            words.extend(page["missing"].is_array().then(|| "?".into()));
            seen.push(words.join(" "));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, pages, "{unread:?}, limit {limit}");
    }
}

/// Whoever wants a page that is slow to come waits for it, together with all who want the same; nobody else does.
#[tokio::test]
async fn a_page_that_is_slow_holds_up_no_other() {
    let hour = 3_600_000;
    let kit = Kit::with(Options {
        list_cache_ms: hour,
        ask_ms: hour,
        request_ms: hour,
        ..options()
    })
    .await;
    over(&kit, 4).await;
    let path = "/api/v1/auctions?state=closed";
    let next = async |limit: usize| {
        let (_, page) = kit.get(&format!("{path}&limit={limit}")).await;
        page["next"].as_str().unwrap().to_owned()
    };
    let (after0, after1) = (next(1).await, next(2).await);
    kit.fake.hold_over(Some("over0"));
    let slow = kit.url(&format!("{path}&limit=1&cursor={after0}"));
    let slow: Vec<_> = (0..8)
        .map(|_| tokio::spawn(answer(kit.http.get(slow.clone()))))
        .collect();
    kit.fake.over_is_asked("over0").await;
    // another cursor, then a page that is known already
    for (wish, want) in [
        (format!("limit=1&cursor={after1}"), "over2"),
        ("limit=1".into(), "over0"),
    ] {
        let asked = format!("{path}&{wish}");
        let got = tokio::time::timeout(std::time::Duration::from_secs(20), kit.get(&asked)).await;
        assert_eq!(ids(&got.expect("an answer in time").1), [want], "{wish}");
    }
    kit.fake.hold_over(None);
    for page in slow {
        assert_eq!(ids(&page.await.unwrap().1), ["over1"]);
    }
    assert_eq!(kit.fake.over_asked("over0"), 2, "each shard once, for all eight");
}

#[tokio::test]
async fn chat_is_read_over_http_too() {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "tea").await;
    let mut ws = kit.signed(&bidder).await;
    ws.join("tea").await;
    for n in 0..3 {
        ws.send(json!({"t": "chat", "a": "tea", "id": format!("c{n}"), "text": format!("hi {n}")}))
            .await;
        let line = ws.until(&["chat"]).await;
        assert_eq!(
            (&line["chat"]["cseq"], &line["chat"]["from"]),
            (&json!(n + 1), &json!(bidder.id))
        );
    }
    let (_, body) = kit.get("/api/v1/auctions/tea/chat").await;
    let texts: Vec<_> = body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["hi 0", "hi 1", "hi 2"]);
}

#[tokio::test]
async fn video_is_published_by_the_seller_and_watched_while_open() {
    let kit = Kit::new().await;
    let (seller, viewer) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "live").await;
    kit.draft(&seller, "draft").await;
    kit.live(&seller, "over").await;
    kit.fake.act(
        "over",
        "op",
        auction::Action::Cancel {
            reason: "broken".into(),
        },
    );
    let sdp = "application/sdp";
    let big = "v=0".repeat(30_000);
    // path | who | type | body | status, code
    let table = [
        ("/whip/live", Some(&seller), sdp, "v=0", 201, ""),
        ("/whip/draft", Some(&seller), sdp, "v=0", 201, ""),
        ("/whip/live", None, sdp, "v=0", 401, "auth"),
        ("/whip/live", Some(&viewer), sdp, "v=0", 403, "auth"),
        ("/whip/over", Some(&seller), sdp, "v=0", 409, "closed"),
        ("/whip/none", Some(&seller), sdp, "v=0", 404, "not_found"),
        (
            "/whip/live",
            Some(&seller),
            "application/json",
            "v=0",
            415,
            "unsupported",
        ),
        ("/whip/live", Some(&seller), sdp, "", 400, "bad_request"),
        ("/whip/live", Some(&seller), sdp, "nonsense", 400, "bad_request"),
        ("/whip/live", Some(&seller), sdp, &big, 413, "too_large"),
        ("/whep/live", None, sdp, "v=0", 201, ""),
        ("/whep/draft", None, sdp, "v=0", 409, "not_open"),
        ("/whep/draft", Some(&viewer), sdp, "v=0", 409, "not_open"),
        ("/whep/draft", Some(&seller), sdp, "v=0", 201, ""),
        ("/whep/over", None, sdp, "v=0", 409, "closed"),
        ("/whep/a%20b", None, sdp, "v=0", 404, "not_found"),
    ];
    for (path, who, kind, body, status, code) in table {
        let mut request = kit
            .http
            .post(kit.url(path))
            .header("content-type", kind)
            .body(body.to_owned());
        if let Some(who) = who {
            request = request.bearer_auth(&who.token);
        }
        let (got, body) = answer(request).await;
        let got_code = body["code"].as_str().unwrap_or_default();
        assert_eq!((got.as_u16(), got_code), (status, code), "{path} {kind}: {body}");
    }
    let call = |method: Method, path: &str, kind: &str| {
        answer(
            kit.http
                .request(method, kit.url(path))
                .header("content-type", kind)
                .body("a=x"),
        )
    };
    let fragment = "application/trickle-ice-sdpfrag";
    assert_eq!(call(Method::PATCH, "/media/pub-live", fragment).await.0, 204);
    assert_eq!(call(Method::PATCH, "/media/pub-live", "text/plain").await.0, 415);
    assert_eq!(call(Method::PATCH, "/media/other", fragment).await.0, 404);
    assert_eq!(call(Method::DELETE, "/media/pub-live", "").await.0, 200);
    assert_eq!(call(Method::DELETE, "/media/a%2Fb", "").await.0, 404);
}

#[tokio::test]
async fn the_cluster_is_for_operators_outside_a_demo() {
    let kit = Kit::new().await;
    let guest = kit.guest("bidder").await;
    let operator = kit
        .edge
        .tokens()
        .mint(&auction::Id::parse("op").unwrap(), "Op", Rights::OPERATOR)
        .unwrap()
        .0;
    let status = async |token: Option<&str>| {
        let mut request = kit.http.get(kit.url("/api/v1/cluster"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        answer(request).await.0.as_u16()
    };
    assert_eq!(
        (
            status(None).await,
            status(Some(&guest.token)).await,
            status(Some(&operator)).await
        ),
        (401, 403, 200)
    );
    let stop = |kit: &Kit, node: &str| answer(kit.http.post(kit.url(&format!("/api/v1/admin/nodes/{node}/stop"))));
    assert_eq!(stop(&kit, "2").await.0, 403);
    assert!(kit.fake.stopped().is_empty());
    let demo = Kit::with(Options {
        demo: true,
        ..options()
    })
    .await;
    assert_eq!(answer(demo.http.get(demo.url("/api/v1/cluster"))).await.0, 200);
    let statuses = (
        stop(&demo, "2").await.0.as_u16(),
        stop(&demo, "9").await.0.as_u16(),
        stop(&demo, "x").await.0.as_u16(),
    );
    assert_eq!((statuses, demo.fake.stopped()), ((202, 404, 404), vec![2]));
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_keep_a_page_safe() {
    let kit = Kit::new().await;
    for path in ["/", "/room/tea", "/api/v1/auctions", "/api/v1/none", "/nothing.js"] {
        let response = kit.http.get(kit.url(path)).send().await.unwrap();
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .map(|v| v.to_str().unwrap().to_owned())
                .unwrap_or_default()
        };
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert!(
            header("content-security-policy").contains("ws://10.0.0.2:8080"),
            "{path}"
        );
        assert!(!header("content-security-policy").contains("unsafe"), "{path}");
        assert_eq!(header("access-control-allow-origin"), "*", "{path}");
        assert!(!header("cache-control").is_empty(), "{path}");
    }
    let preflight = kit.http.request(Method::OPTIONS, kit.url("/api/v1/auctions"));
    let response = preflight
        .header("access-control-request-method", "POST")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 204);
}

#[tokio::test]
async fn paths_of_the_page_get_the_page_and_paths_of_the_api_get_problems() {
    let kit = Kit::new().await;
    // method | path | status | code
    let table = [
        (Method::GET, "/", 200, ""),
        (Method::GET, "/room/tea", 200, ""),
        (Method::GET, "/assets/none.js", 404, ""),
        (Method::GET, "/../Cargo.toml", 404, ""),
        (Method::GET, "/api/v1/none", 404, "no_such_path"),
        (Method::DELETE, "/api/v1/auctions", 405, "method"),
        (Method::POST, "/room/tea", 405, "method"),
        (Method::GET, "/ws", 400, "bad_request"),
        (Method::GET, "/api/v1/openapi.json", 200, ""),
    ];
    for (method, path, status, code) in table {
        let (got, body) = answer(kit.http.request(method.clone(), kit.url(path))).await;
        assert_eq!(
            (got.as_u16(), body["code"].as_str().unwrap_or_default()),
            (status, code),
            "{method} {path}"
        );
    }
    let page = kit.http.get(kit.url("/")).send().await.unwrap();
    let etag = page.headers()["etag"].clone();
    assert_eq!(
        kit.http
            .get(kit.url("/"))
            .header("if-none-match", etag)
            .send()
            .await
            .unwrap()
            .status(),
        304
    );
}

#[test]
fn the_description_names_every_route() {
    let api: Value = serde_json::from_str(&router::openapi()).unwrap();
    let paths: Vec<_> = api["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    for path in [
        "/api/v1/auth/guest",
        "/api/v1/auctions",
        "/api/v1/auctions/{id}",
        "/api/v1/auctions/{id}/bids",
        "/api/v1/auctions/{id}/cancel",
        "/api/v1/auctions/{id}/chat",
        "/api/v1/auctions/{id}/events",
        "/api/v1/auctions/{id}/export",
        "/api/v1/auctions/{id}/extend",
        "/api/v1/auctions/{id}/pause",
        "/api/v1/auctions/{id}/resume",
        "/api/v1/auctions/{id}/schedule",
        "/api/v1/auctions/{id}/start",
        "/api/v1/cluster",
        "/api/v1/admin/nodes/{id}/stop",
        "/api/v1/admin/changes",
        "/api/v1/admin/versions",
        "/api/v1/admin/shards/{id}/image",
        "/api/v1/admin/shards/{id}/restore",
        "/api/v1/admin/shards/{id}/unsafe-recover",
        "/whip/{id}",
        "/whep/{id}",
        "/media/{session}",
    ] {
        assert!(paths.contains(&path), "{path} is missing");
    }
}

#[tokio::test]
async fn limits_answer_429_with_a_time_to_wait() {
    let limited = Options {
        bids_per_s: 1,
        guests_per_min: 1,
        loopback_unlimited: false,
        ..options()
    };
    let kit = Kit::with(limited).await;
    let bidder = kit.guest("bidder").await;
    let (status, body) = kit.call(Method::POST, "/api/v1/auth/guest", None, json!({})).await;
    assert_eq!((status.as_u16(), &body["code"]), (429, &json!("rate")));
    for n in 0..4 {
        assert_eq!(kit.bid("none", &bidder, &format!("k{n}"), 1).await.0, 404);
    }
    let request = kit
        .http
        .post(kit.url("/api/v1/auctions/none/bids"))
        .bearer_auth(&bidder.token);
    let response = request
        .header("idempotency-key", "k")
        .json(&json!({"amount": 1}))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "1")
    );
}

#[tokio::test]
async fn a_client_that_dribbles_its_request_is_let_go() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let kit = Kit::with(Options {
        head_ms: 50,
        ..options()
    })
    .await;
    let mut stream = tokio::net::TcpStream::connect(kit.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
}

#[tokio::test]
async fn a_full_edge_turns_away_and_takes_again() {
    let kit = Kit::with(Options {
        sockets_max: 1,
        ..options()
    })
    .await;
    let one = kit.socket().await;
    let url = format!("ws://{}/ws", kit.addr);
    assert!(tokio_tungstenite::connect_async(&url).await.is_err(), "503");
    drop(one);
    while kit.edge.sockets() > 0 {
        tokio::task::yield_now().await;
    }
    kit.socket().await;
}
