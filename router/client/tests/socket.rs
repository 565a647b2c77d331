//! The socket against an edge that misbehaves: what survives a connection, what is said again, what is never said twice.
//!
//! The edge is a few lines here: a listener whose every connection is handed to the test, frame by frame. Nothing sleeps;
//! each step waits for the frame or notice that proves it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use client::{BidError, Notice, Notices, Position, Socket, SocketOptions};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{Message, protocol::CloseFrame},
};

struct Edge(TcpListener);

impl Edge {
    async fn start() -> (Edge, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (Edge(listener), url)
    }

    async fn accept(&self) -> Conn {
        let (stream, _) = self.0.accept().await.unwrap();
        Conn(accept_async(stream).await.unwrap())
    }
}

struct Conn(WebSocketStream<TcpStream>);

impl Conn {
    /// The next frame of type `t`; pings are answered on the way, anything else is a surprise.
    async fn expect(&mut self, t: &str) -> Value {
        loop {
            let Message::Text(text) = self.0.next().await.unwrap().unwrap() else {
                continue;
            };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["t"] == t {
                return frame;
            }
            assert_eq!(frame["t"], "ping", "{frame}");
            self.say(json!({"t": "pong", "c": frame["c"], "s": 5.0})).await;
        }
    }

    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn event(&mut self, seq: u64) {
        let event = json!({"seq": seq, "ty": "bid", "ct": seq, "ends_at": 900 + seq, "price": seq, "h": "ff"});
        self.say(json!({"t": "event", "a": "lot", "event": event})).await;
    }

    async fn snap(&mut self, offset: u64) {
        let auction = json!({"id": "lot", "seq": offset, "phase": "live"});
        self.say(json!({"t": "snap", "a": "lot", "epoch": 7, "offset": offset, "auction": auction, "recent": []}))
            .await;
    }

    async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        self.0.close(Some(frame)).await.unwrap();
        // Until the client is gone too.
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

fn open(nodes: &[&str], token: Option<&str>) -> (Socket, Notices) {
    Socket::open(SocketOptions {
        nodes: nodes.iter().map(ToString::to_string).collect(),
        token: token.map(String::from),
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        seed: 1,
        ..SocketOptions::default()
    })
}

async fn notice(notices: &mut Notices, wanted: impl Fn(&Notice) -> bool) -> Notice {
    loop {
        let notice = notices.recv().await.expect("the socket ended");
        if wanted(&notice) {
            return notice;
        }
    }
}

#[tokio::test]
async fn a_bid_whose_answer_was_lost_is_sent_again_elsewhere_under_its_id() {
    let ((one, url1), (two, url2)) = (Edge::start().await, Edge::start().await);
    let (socket, _notices) = open(&[&url1, &url2], Some("secret"));
    let bid = tokio::spawn(async move { socket.bid("lot", 500, "k1").await });
    let mut conn = one.accept().await;
    assert_eq!(conn.expect("hello").await["token"], "secret");
    let first = conn.expect("bid").await;
    drop(conn); // The answer is lost with the node.
    let mut conn = two.accept().await;
    conn.expect("hello").await;
    assert_eq!(conn.expect("bid").await, first);
    conn.say(json!({"t": "verdict", "a": "lot", "id": "k1", "verdict": {"ok": true, "seq": 3, "dup": true}}))
        .await;
    let verdict = bid.await.unwrap().unwrap();
    assert_eq!((verdict.ok, verdict.seq, verdict.dup), (true, 3, true));
}

/// The number of a clock that runs, or stands.
fn clock(now: u64, held: bool) -> Value {
    json!({"t": "clock", "a": "lot", "now": now, "ends_at": 9_000_000, "s": 1.0, "err_ms": 1.0, "held": held})
}

#[tokio::test]
async fn what_is_said_of_when_a_bid_was_first_sent_stays_the_same() {
    let ((one, url1), (two, url2)) = (Edge::start().await, Edge::start().await);
    let (socket, mut notices) = open(&[&url1, &url2, &url2], None);
    socket.join("lot").await;
    let mut conn = one.accept().await;
    conn.expect("join").await;
    conn.snap(4).await;
    // Of a clock that stands nobody knows how old its number is.
    for (now, held) in [(70_000, false), (71_000, true)] {
        conn.say(clock(now, held)).await;
        notice(
            &mut notices,
            |n| matches!(n, Notice::Clock { countdown, .. } if countdown.now == now),
        )
        .await;
    }
    let bidding = socket.clone();
    let bid = tokio::spawn(async move { bidding.bid("lot", 500, "k1").await });
    let first = conn.expect("bid").await;
    assert_eq!(
        first,
        json!({"t": "bid", "a": "lot", "id": "k1", "amount": 500, "sent": 70_000})
    );
    drop(conn);
    let mut conn = two.accept().await;
    conn.expect("join").await;
    conn.snap(5).await;
    conn.say(clock(90_000, false)).await;
    notice(
        &mut notices,
        |n| matches!(n, Notice::Clock { countdown, .. } if countdown.now == 90_000),
    )
    .await;
    assert_eq!(conn.expect("bid").await, first, "again, by another edge and later");
    // Another bid is another moment.
    let bidding = socket.clone();
    let later = tokio::spawn(async move { bidding.bid("lot", 600, "k2").await });
    assert_eq!(conn.expect("bid").await["sent"], 90_000);
    for id in ["k1", "k2"] {
        conn.say(json!({"t": "verdict", "a": "lot", "id": id, "verdict": {"ok": true, "seq": 6}}))
            .await;
    }
    assert!(bid.await.unwrap().unwrap().ok && later.await.unwrap().unwrap().ok);
}

#[tokio::test]
async fn a_bid_that_was_given_up_and_is_sent_again_says_the_same_moment() {
    let (edge, url) = Edge::start().await;
    let (socket, mut notices) = Socket::open(SocketOptions {
        nodes: vec![url],
        bid_patience: Duration::from_millis(50),
        ..SocketOptions::default()
    });
    socket.join("lot").await;
    let mut conn = edge.accept().await;
    conn.expect("join").await;
    for now in [70_000, 80_000] {
        conn.say(clock(now, false)).await;
        notice(
            &mut notices,
            |n| matches!(n, Notice::Clock { countdown, .. } if countdown.now == now),
        )
        .await;
        let bidding = socket.clone();
        let bid = tokio::spawn(async move { bidding.bid("lot", 500, "k1").await });
        assert_eq!(conn.expect("bid").await["sent"], 70_000);
        assert!(matches!(bid.await.unwrap(), Err(BidError::Unknown)));
    }
}

#[tokio::test]
async fn an_open_problem_is_no_answer_and_a_refusal_is() {
    // problem's code | sent again
    for (code, again) in [
        ("timeout", true),
        ("unavailable", true),
        ("busy", true),
        ("rate", false),
        ("auth", false),
    ] {
        let (edge, url) = Edge::start().await;
        let (socket, _notices) = open(&[&url], None);
        let bid = tokio::spawn(async move { socket.bid("lot", 500, "k1").await });
        let mut conn = edge.accept().await;
        let first = conn.expect("bid").await;
        conn.say(json!({"t": "verdict", "a": "lot", "id": "k1", "problem": {"code": code, "status": 400}}))
            .await;
        if again {
            assert_eq!(conn.expect("bid").await, first, "{code}");
            conn.say(json!({"t": "verdict", "a": "lot", "id": "k1", "verdict": {"ok": false, "code": "low"}}))
                .await;
            assert_eq!(bid.await.unwrap().unwrap().code.as_deref(), Some("low"));
        } else {
            assert!(matches!(bid.await.unwrap(), Err(BidError::Refused(p)) if p.code == code));
        }
    }
}

#[tokio::test]
async fn a_reconnect_resumes_after_what_was_seen() {
    let (edge, url) = Edge::start().await;
    let (socket, mut notices) = open(&[&url], None);
    socket.join("lot").await;
    let mut conn = edge.accept().await;
    assert_eq!(conn.expect("join").await, json!({"t": "join", "a": "lot"}));
    conn.snap(4).await;
    conn.event(5).await;
    notice(
        &mut notices,
        |n| matches!(n, Notice::Event { event, .. } if event.seq == 5),
    )
    .await;
    conn.close(4503).await;
    notice(&mut notices, |n| {
        matches!(
            n,
            Notice::Lost {
                code: Some(4503),
                last: false,
                ..
            }
        )
    })
    .await;
    let mut conn = edge.accept().await;
    assert_eq!(
        conn.expect("join").await,
        json!({"t": "join", "a": "lot", "epoch": 7, "offset": 5})
    );
    conn.say(json!({"t": "resumed", "a": "lot", "epoch": 7, "offset": 5}))
        .await;
    let resumed = notice(&mut notices, |n| matches!(n, Notice::Resumed { .. })).await;
    assert!(matches!(
        resumed,
        Notice::Resumed {
            position: Position { epoch: 7, offset: 5 },
            ..
        }
    ));
}

#[tokio::test]
async fn a_gap_is_told_and_asked_for_once() {
    let (edge, url) = Edge::start().await;
    let (socket, mut notices) = open(&[&url], None);
    socket.join("lot").await;
    let mut conn = edge.accept().await;
    conn.expect("join").await;
    conn.snap(4).await;
    conn.event(6).await;
    conn.event(7).await;
    assert_eq!(conn.expect("join").await["offset"], 4);
    notice(&mut notices, |n| matches!(n, Notice::Gap { have: 4, got: 6, .. })).await;
    // The resume brings all that was missing; a second question would be the next frame here.
    conn.say(json!({"t": "resumed", "a": "lot", "epoch": 7, "offset": 4}))
        .await;
    for seq in 5..=7 {
        conn.event(seq).await;
    }
    notice(&mut notices, |n| matches!(n, Notice::Resumed { .. })).await;
    for seq in 5..=7 {
        notice(
            &mut notices,
            |n| matches!(n, Notice::Event { event, .. } if event.seq == seq),
        )
        .await;
    }
    socket.leave("lot").await;
    conn.expect("leave").await;
}

#[tokio::test]
async fn a_refused_token_ends_the_socket() {
    let (edge, url) = Edge::start().await;
    let (socket, mut notices) = open(&[&url], Some("expired"));
    let mut conn = edge.accept().await;
    conn.expect("hello").await;
    conn.close(4401).await;
    notice(&mut notices, |n| {
        matches!(
            n,
            Notice::Lost {
                code: Some(4401),
                last: true,
                ..
            }
        )
    })
    .await;
    assert!(notices.recv().await.is_none());
    assert!(matches!(socket.bid("lot", 1, "k").await, Err(BidError::Closed)));
}

#[tokio::test]
async fn more_bids_than_the_bound_are_not_sent() {
    let (edge, url) = Edge::start().await;
    let options = SocketOptions {
        nodes: vec![url],
        bids_max: 1,
        ..SocketOptions::default()
    };
    let (socket, _notices) = Socket::open(options);
    let waiting = tokio::spawn({
        let socket = socket.clone();
        async move { socket.bid("lot", 1, "k1").await }
    });
    let mut conn = edge.accept().await;
    conn.expect("bid").await;
    assert!(matches!(socket.bid("lot", 2, "k2").await, Err(BidError::Full)));
    waiting.abort();
}
