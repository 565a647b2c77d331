//! What the tests share: an edge that serves on a free port, people with tokens, a socket that waits for frames.

use crate::fake::Fake;
use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, StatusCode};
use router::{Edge, Options, Ports, Secret};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

/// An edge over a fake cluster.
pub(crate) struct Kit {
    pub(crate) fake: Fake,
    pub(crate) edge: Edge,
    pub(crate) addr: SocketAddr,
    pub(crate) http: reqwest::Client,
}

/// Limits out of the way, so that tables are about what they say.
pub(crate) fn options() -> Options {
    Options {
        token_secret: Secret::of(b"test"),
        drain_ms: 0,
        bids_per_s: 1_000_000,
        commands_per_s: 1_000_000,
        chats_per_10s: 1_000_000,
        ..Options::default()
    }
}

impl Kit {
    pub(crate) async fn new() -> Kit {
        Kit::with(options()).await
    }

    pub(crate) async fn with(options: Options) -> Kit {
        let fake = Fake::new();
        let port = Arc::new(fake.clone());
        let ports = Ports {
            shards: port.clone(),
            map: port.clone(),
            chats: port.clone(),
            streams: port.clone(),
            admin: port,
        };
        let edge = Edge::new(options, ports);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = edge.clone();
        tokio::spawn(async move { serving.serve(listener, axum::Router::new()).await });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Kit { fake, edge, addr, http }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) async fn guest(&self, role: &str) -> Guest {
        let (status, body) = self
            .call(
                Method::POST,
                "/api/v1/auth/guest",
                None,
                json!({"role": role, "name": role}),
            )
            .await;
        assert_eq!(status, 200, "{body}");
        Guest {
            token: body["token"].as_str().unwrap().into(),
            id: body["user"]["id"].as_str().unwrap().into(),
        }
    }

    /// A call with a JSON body, and its JSON answer.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        who: Option<&Guest>,
        body: Value,
    ) -> (StatusCode, Value) {
        let mut request = self.http.request(method, self.url(path)).json(&body);
        if let Some(guest) = who {
            request = request.bearer_auth(&guest.token);
        }
        answer(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.http.get(self.url(path))).await
    }

    pub(crate) async fn bid(&self, auction: &str, who: &Guest, key: &str, amount: u64) -> (StatusCode, Value) {
        let request = self.http.post(self.url(&format!("/api/v1/auctions/{auction}/bids")));
        let request = request
            .bearer_auth(&who.token)
            .header("idempotency-key", key)
            .json(&json!({"amount": amount}));
        answer(request).await
    }

    /// A live auction of `seller`: starts at 1,000, a minute long, steps of 100, guests may bid.
    pub(crate) async fn live(&self, seller: &Guest, id: &str) {
        self.draft(seller, id).await;
        let (status, body) = self
            .call(
                Method::POST,
                &format!("/api/v1/auctions/{id}/start"),
                Some(seller),
                json!({}),
            )
            .await;
        assert_eq!((status.as_u16(), body["phase"].as_str()), (200, Some("live")), "{body}");
    }

    pub(crate) async fn draft(&self, seller: &Guest, id: &str) {
        let (status, body) = self
            .call(Method::POST, "/api/v1/auctions", Some(seller), item(id))
            .await;
        assert_eq!(status, 201, "{body}");
    }

    pub(crate) async fn socket(&self) -> Ws {
        let (stream, _) = tokio_tungstenite::connect_async(format!("ws://{}/ws", self.addr))
            .await
            .unwrap();
        let mut ws = Ws { stream };
        assert_eq!(ws.next().await["t"], "hello");
        ws
    }

    /// A socket that is signed in.
    pub(crate) async fn signed(&self, who: &Guest) -> Ws {
        let mut ws = self.socket().await;
        ws.send(json!({"t": "hello", "token": who.token})).await;
        assert_eq!(ws.next().await["user"]["id"], who.id.as_str());
        ws
    }
}

/// An auction as a seller writes it.
pub(crate) fn item(id: &str) -> Value {
    json!({
        "id": id, "title": "A teapot", "currency": "KRW", "start_price": 1_000, "increments": [[0, 100]],
        "duration_ms": 60_000, "guests": true,
        "rush": {"cut_ppm_max": 500_000, "cut_per_raise_ppm": 1_000_000, "floor_ms": 10_000},
    })
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Someone with a token.
pub(crate) struct Guest {
    pub(crate) token: String,
    pub(crate) id: String,
}

/// A client's socket. Waiting is bounded: a frame that doesn't come fails the test.
pub(crate) struct Ws {
    pub(crate) stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Ws {
    pub(crate) async fn send(&mut self, frame: Value) {
        self.raw(frame.to_string()).await;
    }

    pub(crate) async fn raw(&mut self, text: String) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn binary(&mut self, bytes: Vec<u8>) {
        self.stream.send(Message::binary(bytes)).await.unwrap();
    }

    /// The next frame, or the close code as `{"closed": code}`.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.stream.next())
                .await
                .expect("a frame in time");
            match message {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Close(frame))) => return json!({"closed": frame.map_or(0, |f| u16::from(f.code))}),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return json!({"closed": 0}),
            }
        }
    }

    /// The next frame of one of these types, dropping others.
    pub(crate) async fn until(&mut self, types: &[&str]) -> Value {
        loop {
            let frame = self.next().await;
            assert!(
                frame.get("closed").is_none() || types.contains(&"closed"),
                "closed: {frame}, waiting for {types:?}"
            );
            if frame.get("closed").is_some() || types.iter().any(|t| frame["t"] == *t) {
                return frame;
            }
        }
    }

    pub(crate) async fn bid(&mut self, auction: &str, id: &str, amount: u64) -> Value {
        self.send(json!({"t": "bid", "a": auction, "id": id, "amount": amount}))
            .await;
        self.until(&["verdict"]).await
    }

    /// Joins and gives back the first frame about it.
    pub(crate) async fn join(&mut self, auction: &str) -> Value {
        self.send(json!({"t": "join", "a": auction})).await;
        self.until(&["snap", "resumed", "problem"]).await
    }
}
