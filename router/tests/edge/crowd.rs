//! A crowd at the edge: what it is told without anyone being asked, and what it is told when there is no room.

use crate::kit::Kit;
use serde_json::json;

#[tokio::test]
async fn a_bid_that_is_too_low_for_good_is_answered_by_the_nodes_own_replica() {
    let kit = Kit::new().await;
    let (seller, ann, bob) = (
        kit.guest("seller").await,
        kit.guest("bidder").await,
        kit.guest("bidder").await,
    );
    kit.live(&seller, "tea").await;
    kit.fake.replica_here();
    let (mut first, mut second) = (kit.signed(&ann).await, kit.signed(&bob).await);
    assert_eq!(first.bid("tea", "k", 2_000).await["verdict"]["ok"], true);
    let before = kit.fake.asked_count();
    for (what, id, amount, ok, code) in [
        ("too low", "l", 1_500, false, json!("low")),
        ("the same again", "l", 1_500, false, json!("low")),
    ] {
        let verdict = second.bid("tea", id, amount).await["verdict"].clone();
        assert_eq!(
            (&verdict["ok"], &verdict["code"]),
            (&json!(ok), &code),
            "{what}: {verdict}"
        );
    }
    let verdict = first.bid("tea", "k", 2_000).await["verdict"].clone();
    assert_eq!(
        (&verdict["ok"], &verdict["dup"]),
        (&json!(true), &json!(true)),
        "sent again: {verdict}"
    );
    let (status, problem) = kit.bid("tea", &bob, "over-http", 1_500).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("low")), "{problem}");
    assert_eq!(kit.fake.asked_count(), before, "no leader was asked");
    assert_eq!(second.bid("tea", "m", 3_000).await["verdict"]["ok"], true);
    assert_eq!(kit.fake.asked_count(), before + 1, "a bid that may win is the leader's");
}

#[tokio::test]
async fn who_finds_no_room_is_told_at_once_when_to_come_back_and_the_rest_is_judged() {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "tea").await;
    // Three edges: eight for each.
    kit.fake.drains(24);
    let stalled = kit.fake.stall().await;
    let mut ws = kit.signed(&bidder).await;
    for n in 0..64 {
        ws.send(json!({"t": "bid", "a": "tea", "id": format!("k{n}"), "amount": 1_000}))
            .await;
    }
    let mut turned = Vec::new();
    for _ in 0..52 {
        let frame = ws.until(&["verdict"]).await;
        assert_eq!(
            frame["problem"]["code"], "busy",
            "eight fly and four wait; nobody else: {frame}"
        );
        let wait = frame["problem"]["retry_after_ms"].as_u64().unwrap();
        assert!((40..=2_000).contains(&wait), "{frame}");
        turned.push(frame["id"].as_str().unwrap().to_owned());
    }
    drop(stalled);
    for _ in 0..12 {
        let frame = ws.until(&["verdict"]).await;
        assert!(frame["verdict"].is_object(), "{frame}");
        assert!(!turned.contains(&frame["id"].as_str().unwrap().to_owned()), "{frame}");
    }
    let again = ws.bid("tea", &turned[0], 1_000).await;
    assert!(again["verdict"].is_object(), "there is room again: {again}");
}
