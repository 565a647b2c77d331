//! What operators ask over HTTP, as far as it is the edge's: who may, what is read of a request, how long work is told.

use crate::kit::{Kit, answer, options};
use auction::Rights;
use reqwest::{Method, RequestBuilder};
use router::Options;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn open() -> Kit {
    Kit::with(Options {
        admin: true,
        image_max: 64,
        request_ms: 300,
        ..options()
    })
    .await
}

fn token(kit: &Kit, who: &str, rights: Rights) -> String {
    let id = auction::Id::parse(who).unwrap();
    kit.edge.tokens().mint(&id, who, rights).unwrap().0
}

fn call(kit: &Kit, method: Method, path: &str) -> RequestBuilder {
    kit.http.request(method, kit.url(&format!("/api/v1/admin/{path}")))
}

/// Puts an image back.
fn put(kit: &Kit, query: &str, image: &str) -> RequestBuilder {
    let call = call(kit, Method::POST, &format!("shards/3/restore{query}"));
    let call = call.bearer_auth(token(kit, "olga", Rights::OPERATOR));
    call.header("content-type", "application/octet-stream")
        .body(image.to_owned())
}

/// The names and data of a stream's events.
async fn events(request: RequestBuilder) -> Vec<(String, Value)> {
    let text = request
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let field = |block: &str, name: &str| {
        let mut lines = block.lines().filter_map(|line| line.strip_prefix(name));
        lines.next().map(|rest| rest.trim().to_owned())
    };
    let blocks = text
        .split("\n\n")
        .filter_map(|block| Some((field(block, "event:")?, field(block, "data:")?)));
    blocks
        .map(|(name, data)| (name, serde_json::from_str(&data).unwrap()))
        .collect()
}

#[tokio::test]
async fn operators_act_and_auditors_look() {
    let kit = open().await;
    let closed = Kit::new().await;
    // path | method | an auditor may
    let table = [
        ("versions", Method::GET, true),
        ("shards/3/image", Method::GET, false),
        ("shards/3/image?dry_run=true", Method::GET, false),
        ("shards/3/restore", Method::POST, false),
        ("shards/3/unsafe-recover", Method::POST, false),
    ];
    for (path, method, auditors) in table {
        let status = async |kit: &Kit, rights: Option<Rights>| {
            let call = call(kit, method.clone(), path);
            let call = match rights {
                Some(rights) => call.bearer_auth(token(kit, "x", rights)),
                None => call,
            };
            let call = if path.ends_with("restore") {
                call.header("content-type", "application/octet-stream")
            } else {
                call
            };
            answer(call).await.0.as_u16()
        };
        assert_eq!(status(&kit, None).await, 401, "{path}: nobody");
        assert_eq!(status(&kit, Some(Rights::SELLER)).await, 403, "{path}: a seller");
        assert_eq!(
            status(&kit, Some(Rights::AUDITOR)).await == 200,
            auditors,
            "{path}: an auditor"
        );
        assert_ne!(status(&kit, Some(Rights::OPERATOR)).await, 403, "{path}: an operator");
        assert_eq!(
            status(&closed, Some(Rights::OPERATOR)).await,
            404,
            "{path}: where it is off"
        );
    }
}

#[tokio::test]
async fn a_node_joins_by_hand() {
    let kit = open().await;
    let join = async |more: Value| {
        let mut change =
            json!({"kind": "join", "id": 4, "zone": "d", "region": "x", "grpc": "h:1", "http": "http://h:2"});
        change
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let call = call(&kit, Method::POST, "changes").bearer_auth(token(&kit, "olga", Rights::OPERATOR));
        answer(call.json(&json!({"change": change}))).await
    };
    let (status, told) = join(json!({"newest": 2})).await;
    assert_eq!(status, 200, "{told}");
    let change = told["change"].as_str().unwrap();
    assert!(
        change.starts_with("Join") && change.contains("zone: \"d\"") && change.contains("weight: 1"),
        "{change}"
    );
    assert_eq!(told["newest"], 2);
    for odd in [json!({"id": -1}), json!({"zone": 5}), json!({"colour": "red"})] {
        assert!(join(odd.clone()).await.0.is_client_error(), "{odd}");
    }
}

#[tokio::test]
async fn an_image_is_octets_and_what_they_are() {
    let kit = open().await;
    let olga = token(&kit, "olga", Rights::OPERATOR);
    let whole = call(&kit, Method::GET, "shards/3/image")
        .bearer_auth(&olga)
        .send()
        .await
        .unwrap();
    let head: Value = serde_json::from_str(whole.headers()["rushroom-image"].to_str().unwrap()).unwrap();
    assert_eq!((&head["shard"], &head["who"]), (&json!(3), &json!("olga")));
    assert_eq!(whole.headers()["content-type"], "application/octet-stream");
    assert_eq!(whole.bytes().await.unwrap(), "all of it");
    let (status, head) = answer(call(&kit, Method::GET, "shards/3/image?dry_run=true").bearer_auth(&olga)).await;
    assert_eq!((status.as_u16(), &head["shard"]), (200, &json!(3)));
    let (status, why) = answer(call(&kit, Method::GET, "shards/5/image").bearer_auth(&olga)).await;
    assert_eq!((status.as_u16(), &why["refused"]["code"]), (409, &json!("not_leader")));
    let (status, _) = answer(call(&kit, Method::GET, "shards/x/image").bearer_auth(&olga)).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn long_work_is_told_at_its_end_or_step_by_step() {
    let kit = open().await;
    let (status, done) = answer(put(&kit, "?force=a%20drill", "octets")).await;
    let wanted = json!({"shard": 3, "who": "olga", "why": "a drill", "dry_run": false, "image": "octets"});
    assert_eq!((status.as_u16(), &done), (200, &wanted));
    let (status, why) = answer(put(&kit, "", "octets")).await;
    assert_eq!((status.as_u16(), &why["refused"]["code"]), (409, &json!("gives_up")));
    let told = events(put(&kit, "?force=a%20drill&dry_run=true", "octets")).await;
    let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["progress", "done"]);
    assert_eq!(
        (&told[0].1["step"], &told[1].1["dry_run"]),
        (&json!("weighed"), &json!(true))
    );
    let olga = token(&kit, "olga", Rights::OPERATOR);
    let recover = |body: Value| {
        call(&kit, Method::POST, "shards/3/unsafe-recover")
            .bearer_auth(&olga)
            .json(&body)
    };
    let told = events(recover(json!({}))).await;
    assert_eq!(
        (told[1].0.as_str(), &told[1].1["refused"]["code"]),
        ("refused", &json!("gives_up"))
    );
    let (status, done) = answer(recover(json!({"force": "burnt"}))).await;
    assert_eq!(
        (status.as_u16(), &done["why"], &done["image"]),
        (200, &json!("burnt"), &Value::Null)
    );
}

/// Sends an image of unknown length, and no end of it; the status that comes.
async fn chunked(kit: &Kit, chunks: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(kit.addr).await.unwrap();
    let olga = token(kit, "olga", Rights::OPERATOR);
    let request = format!(
        "POST /api/v1/admin/shards/3/restore HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {olga}\r\n\
         content-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).await.unwrap();
    String::from_utf8_lossy(&head[9..]).into_owned()
}

#[tokio::test]
async fn an_image_that_is_none_is_refused() {
    let kit = open().await;
    let long = "x".repeat(65);
    assert_eq!(answer(put(&kit, "", &long)).await.0, 413, "it says that it is too long");
    let piece = format!("28\r\n{}\r\n", &long[..40]);
    assert_eq!(chunked(&kit, &piece.repeat(2)).await, "413", "it doesn't say");
    assert_eq!(chunked(&kit, &piece).await, "504", "it breaks off");
    let olga = token(&kit, "olga", Rights::OPERATOR);
    let text = call(&kit, Method::POST, "shards/3/restore")
        .bearer_auth(&olga)
        .body("{}");
    assert_eq!(answer(text).await.0, 415);
    for query in ["?dry_run=maybe", "?colour=red"] {
        assert_eq!(answer(put(&kit, query, "octets")).await.0, 400, "{query}");
    }
}
