//! What viewers see: complete, in order, once; or an explicit fresh start.

use crate::kit::{Guest, Kit, Ws, options};
use auction::Action;
use futures_util::{SinkExt, StreamExt};
use router::Options;
use serde_json::{Value, json};
use std::time::Duration;

async fn live(kit: &Kit) -> Guest {
    let seller = kit.guest("seller").await;
    kit.live(&seller, "tea").await;
    seller
}

/// `n` bids, each 100 above the one before.
fn bids(kit: &Kit, n: u64) {
    for _ in 0..n {
        let view = kit.fake.view("tea").unwrap();
        let who = if view.leader.as_ref().is_some_and(|l| l.as_str() == "ann") {
            "bob"
        } else {
            "ann"
        };
        let verdict = kit.fake.act("tea", who, Action::Bid { amount: view.least });
        assert!(verdict.outcome.is_ok());
    }
}

/// Reads events until `upto`; they must follow `from` without gap or repeat.
async fn events(ws: &mut Ws, from: u64, upto: u64) {
    for seq in from + 1..=upto {
        let frame = ws.until(&["event", "snap", "state"]).await;
        assert_eq!(
            (frame["t"].as_str(), frame["event"]["seq"].as_u64()),
            (Some("event"), Some(seq)),
            "{frame}"
        );
    }
}

#[tokio::test]
async fn a_newcomer_gets_a_snapshot_the_clock_then_every_event() {
    let kit = Kit::new().await;
    live(&kit).await;
    bids(&kit, 3);
    let mut ws = kit.socket().await;
    let snap = ws.join("tea").await;
    assert_eq!(
        (&snap["t"], &snap["epoch"], &snap["offset"]),
        (&json!("snap"), &json!(7), &json!(4))
    );
    assert_eq!(
        (&snap["auction"]["price"], snap["recent"].as_array().unwrap().len()),
        (&json!(1_200), 4)
    );
    let clock = ws.until(&["clock"]).await;
    assert_eq!(
        (&clock["now"], &clock["err_ms"], &clock["held"]),
        (&json!(1_000), &json!(3), &json!(false))
    );
    assert_eq!(clock["ends_at"], snap["auction"]["ends_at"]);
    bids(&kit, 2);
    events(&mut ws, 4, 6).await;
    let clock = ws.until(&["clock"]).await;
    assert!(
        clock["ends_at"].as_u64() < snap["auction"]["ends_at"].as_u64(),
        "the cut was told"
    );
    kit.fake.advance(70_000);
    let close = ws.until(&["event"]).await;
    assert_eq!(
        (&close["event"]["ty"], &close["event"]["outcome"]),
        (&json!("close"), &json!("sold"))
    );
}

#[tokio::test]
async fn a_viewer_resumes_without_gap_or_repeat() {
    let kit = Kit::new().await;
    live(&kit).await;
    bids(&kit, 5);
    let mut first = kit.socket().await;
    first.join("tea").await;
    drop(first);
    bids(&kit, 4);
    let mut ws = kit.socket().await;
    ws.send(json!({"t": "join", "a": "tea", "epoch": 7, "offset": 6})).await;
    let resumed = ws.until(&["resumed", "snap"]).await;
    assert_eq!((&resumed["t"], &resumed["offset"]), (&json!("resumed"), &json!(6)));
    events(&mut ws, 6, 10).await;
    bids(&kit, 1);
    events(&mut ws, 10, 11).await;
}

#[tokio::test]
async fn what_the_room_no_longer_holds_is_fetched_or_started_anew() {
    let kit = Kit::with(Options {
        room_ring: 8,
        recent_max: 4,
        ..options()
    })
    .await;
    live(&kit).await;
    bids(&kit, 50);
    let join = |offset: u64| json!({"t": "join", "a": "tea", "epoch": 7, "offset": offset});
    let mut ws = kit.socket().await;
    ws.send(join(10)).await;
    assert_eq!(ws.until(&["resumed", "snap"]).await["t"], "resumed", "from a replica");
    events(&mut ws, 10, 51).await;
    bids(&kit, 300);
    let mut ws = kit.socket().await;
    ws.send(join(10)).await;
    let snap = ws.until(&["resumed", "snap"]).await;
    assert_eq!(snap["t"], "snap", "too much to fetch");
    assert!(snap["offset"].as_u64().unwrap() >= 10);
}

#[tokio::test]
async fn a_stale_epoch_starts_anew_and_a_future_offset_never_goes_back() {
    let kit = Kit::new().await;
    live(&kit).await;
    bids(&kit, 3);
    let mut ws = kit.socket().await;
    ws.send(json!({"t": "join", "a": "tea", "epoch": 6, "offset": 2})).await;
    assert_eq!(ws.until(&["resumed", "snap"]).await["t"], "snap");
    // The room's own feed stands still: a resume beyond it waits, then gets a snapshot that is no older.
    kit.fake.mute(1);
    bids(&kit, 2);
    let mut ws = kit.socket().await;
    ws.send(json!({"t": "join", "a": "tea", "epoch": 7, "offset": 6})).await;
    let frame = ws.until(&["resumed", "snap"]).await;
    assert_eq!((&frame["t"], &frame["offset"]), (&json!("snap"), &json!(6)), "{frame}");
}

#[tokio::test]
async fn a_feed_that_ends_is_followed_elsewhere_and_viewers_notice_nothing() {
    let kit = Kit::new().await;
    live(&kit).await;
    let mut ws = kit.socket().await;
    ws.join("tea").await;
    bids(&kit, 2);
    events(&mut ws, 1, 3).await;
    assert_eq!(kit.fake.followers("tea"), [1], "this node's own replica");
    kit.fake.down(1);
    bids(&kit, 3);
    events(&mut ws, 3, 6).await;
    assert_eq!(kit.fake.followers("tea"), [2]);
    kit.fake.cut_feeds();
    bids(&kit, 1);
    events(&mut ws, 6, 7).await;
}

#[tokio::test]
async fn a_feed_that_stands_still_is_left() {
    let kit = Kit::new().await;
    live(&kit).await;
    let bidder = kit.guest("bidder").await;
    let mut ws = kit.signed(&bidder).await;
    ws.join("tea").await;
    kit.fake.mute(1);
    let verdict = ws.bid("tea", "b", 1_000).await;
    assert_eq!(verdict["verdict"]["seq"], 2);
    events(&mut ws, 1, 2).await;
    assert_eq!(kit.fake.followers("tea").last(), Some(&2));
}

#[tokio::test]
async fn a_feed_that_stands_still_is_noticed_though_nobody_here_bids() {
    let kit = Kit::new().await;
    live(&kit).await;
    let mut ws = kit.socket().await;
    ws.join("tea").await;
    kit.fake.mute(1);
    bids(&kit, 2);
    events(&mut ws, 1, 3).await;
}

#[tokio::test]
async fn a_restore_starts_everyone_anew() {
    let kit = Kit::new().await;
    live(&kit).await;
    let mut ws = kit.socket().await;
    ws.join("tea").await;
    kit.fake.restore();
    let snap = ws.until(&["snap"]).await;
    assert_eq!(snap["epoch"], 8);
    bids(&kit, 1);
    events(&mut ws, 1, 2).await;
}

#[tokio::test]
async fn a_thousand_viewers_cost_one_encoding() {
    let kit = Kit::with(Options {
        counts_ms: 3_600_000,
        clock_ms: 3_600_000,
        ..options()
    })
    .await;
    live(&kit).await;
    bids(&kit, 1);
    let mut viewers = Vec::new();
    for _ in 0..1_000 {
        let mut ws = kit.socket().await;
        assert_eq!(ws.join("tea").await["t"], "snap");
        viewers.push(ws);
    }
    let encoded = || kit.edge.rooms()[0].encoded;
    assert_eq!(kit.edge.rooms()[0].viewers, 1_000);
    let before = encoded();
    assert!(before < 20, "a thousand joins: {before} encodings");
    bids(&kit, 1);
    for ws in &mut viewers {
        assert_eq!(ws.until(&["event"]).await["event"]["seq"], 3);
        // The new deadline's clock comes right after the event that moved it.
        assert_eq!(ws.next().await["t"], "clock");
    }
    assert_eq!(encoded() - before, 2, "the event and the clock, once each");
}

#[tokio::test]
async fn a_slow_viewer_falls_to_the_newest_state_and_slows_nobody() {
    let kit = Kit::with(Options {
        room_ring: 512,
        ..options()
    })
    .await;
    live(&kit).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream = socket.connect(kit.addr).await.unwrap();
    let url = format!("ws://{}/ws", kit.addr);
    let (mut slow, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    slow.send(json!({"t": "join", "a": "tea"}).to_string().into())
        .await
        .unwrap();
    let mut fast = kit.socket().await;
    fast.join("tea").await;
    while kit.edge.rooms()[0].viewers < 2 {
        tokio::task::yield_now().await;
    }
    let (mut at, rounds) = (1, 300);
    for _ in 0..rounds {
        bids(&kit, 100);
        events(&mut fast, at, at + 100).await;
        at += 100;
    }
    let mut last: Option<u64> = None;
    let (mut states, mut snaps) = (0, 0);
    while last != Some(at) {
        let message = tokio::time::timeout(Duration::from_secs(20), slow.next())
            .await
            .expect("a frame in time");
        let text = message.unwrap().unwrap().into_text().unwrap();
        if text.is_empty() {
            continue;
        }
        let frame: Value = serde_json::from_str(&text).unwrap();
        match frame["t"].as_str().unwrap() {
            "event" => {
                let seq = frame["event"]["seq"].as_u64();
                assert_eq!(seq, last.map(|l| l + 1), "complete between snapshots");
                last = seq;
            }
            "state" => states += 1,
            "snap" => {
                assert!(frame["offset"].as_u64() >= last, "never back");
                last = frame["offset"].as_u64();
                snaps += 1;
            }
            _ => {}
        }
    }
    assert!(states >= 1 && snaps >= 2, "{states} states, {snaps} snapshots");
}

#[tokio::test]
async fn a_held_clock_is_told_at_once_and_when_it_goes_on() {
    let kit = Kit::new().await;
    live(&kit).await;
    let mut ws = kit.socket().await;
    ws.join("tea").await;
    for held in [true, false] {
        kit.fake.hold(held);
        while ws.until(&["clock"]).await["held"] != json!(held) {}
    }
}

#[tokio::test]
async fn an_auction_is_watched_before_it_is_live() {
    let kit = Kit::new().await;
    let seller = kit.guest("seller").await;
    kit.draft(&seller, "tea").await;
    let mut own = kit.signed(&seller).await;
    assert_eq!(own.join("tea").await["auction"]["phase"], "draft");
    kit.fake.act(
        "tea",
        &seller.id,
        Action::Schedule {
            start_wall_ms: 4_000_000_000_000,
        },
    );
    assert_eq!(own.until(&["changed"]).await["auction"]["phase"], "scheduled");
    let mut ws = kit.socket().await;
    assert_eq!(ws.join("tea").await["auction"]["phase"], "scheduled");
    kit.fake
        .act("tea", &seller.id, Action::Start { schedule_version: None });
    let open = ws.until(&["event"]).await;
    assert_eq!(
        (&open["event"]["ty"], &open["event"]["seq"]),
        (&json!("open"), &json!(1))
    );
    // A room whose seller came while it was a draft is open to all by now.
    kit.draft(&seller, "cup").await;
    assert_eq!(own.join("cup").await["auction"]["phase"], "draft");
    let mut viewer = kit.socket().await;
    assert_eq!(viewer.join("cup").await["problem"]["code"], "not_open");
    kit.fake
        .act("cup", &seller.id, Action::Start { schedule_version: None });
    own.until(&["event"]).await;
    assert_eq!(viewer.join("cup").await["auction"]["phase"], "live");
}

#[tokio::test]
async fn one_socket_follows_many_auctions_and_leaves_them() {
    let kit = Kit::with(Options {
        joins_max: 2,
        ..options()
    })
    .await;
    let seller = kit.guest("seller").await;
    for id in ["tea", "cup", "pot"] {
        kit.live(&seller, id).await;
    }
    let mut ws = kit.socket().await;
    assert_eq!(
        (ws.join("tea").await["a"].clone(), ws.join("cup").await["a"].clone()),
        (json!("tea"), json!("cup"))
    );
    let refused = ws.join("pot").await;
    assert_eq!(
        (&refused["problem"]["code"], &refused["a"]),
        (&json!("rate"), &json!("pot"))
    );
    ws.send(json!({"t": "leave", "a": "tea"})).await;
    assert_eq!(ws.join("pot").await["t"], "snap");
    kit.fake.act("tea", "ann", Action::Bid { amount: 1_000 });
    kit.fake.act("pot", "ann", Action::Bid { amount: 1_000 });
    assert_eq!(ws.until(&["event"]).await["a"], "pot");
}

#[tokio::test]
async fn chat_is_one_order_for_all_and_a_new_leader_says_so() {
    let kit = Kit::new().await;
    live(&kit).await;
    let (a, b) = (kit.guest("bidder").await, kit.guest("bidder").await);
    let (mut one, mut two) = (kit.signed(&a).await, kit.signed(&b).await);
    one.join("tea").await;
    two.join("tea").await;
    for n in 0..5 {
        for ws in [&mut one, &mut two] {
            ws.send(json!({"t": "chat", "a": "tea", "id": format!("l{n}"), "text": format!("line {n}")}))
                .await;
        }
    }
    let read = async |ws: &mut Ws, n: usize| {
        let mut lines = Vec::new();
        while lines.len() < n {
            lines.push(ws.until(&["chat"]).await["chat"].clone());
        }
        lines
    };
    let (seen, also) = (read(&mut one, 10).await, read(&mut two, 10).await);
    assert_eq!(seen, also);
    for who in [&a.id, &b.id] {
        let own: Vec<_> = seen
            .iter()
            .filter(|l| l["from"] == who.as_str())
            .map(|l| l["text"].clone())
            .collect();
        assert_eq!(
            own,
            (0..5).map(|n| json!(format!("line {n}"))).collect::<Vec<_>>(),
            "a sender's lines keep order"
        );
    }
    one.send(json!({"t": "chat", "a": "tea", "id": "l0", "text": "line 0"}))
        .await;
    one.send(json!({"t": "chat", "a": "tea", "id": "l9", "text": "line 9"}))
        .await;
    assert_eq!(
        one.until(&["chat"]).await["chat"]["text"],
        "line 9",
        "the same line again is no new line"
    );
    kit.fake.new_chat_epoch();
    one.send(json!({"t": "chat", "a": "tea", "id": "m", "text": "after"}))
        .await;
    let line = two.until(&["chat"]).await;
    let line = if line["chat"]["text"] == "line 9" {
        two.until(&["chat"]).await
    } else {
        line
    };
    assert_eq!(
        (&line["chat"]["chat_epoch"], &line["chat"]["cseq"]),
        (&json!(2), &json!(1))
    );
}

#[tokio::test]
async fn a_drain_sends_viewers_elsewhere() {
    let kit = Kit::new().await;
    live(&kit).await;
    let mut ws = kit.socket().await;
    ws.join("tea").await;
    let edge = kit.edge.clone();
    let drain = tokio::spawn(async move { edge.shutdown().await });
    assert_eq!(ws.until(&["closed"]).await["closed"], 4503);
    drop(ws);
    drain.await.unwrap();
    assert_eq!(kit.edge.sockets(), 0);
}

#[tokio::test]
async fn a_client_that_never_stops_talking_is_shown_out() {
    let kit = Kit::with(Options {
        frames_per_s: 1,
        ..options()
    })
    .await;
    let mut ws = kit.socket().await;
    for n in 0..5 {
        ws.send(json!({"t": "ping", "c": n})).await;
    }
    assert_eq!(ws.until(&["closed"]).await["closed"], 4429);
}
