//! Leaders change, nodes die, answers get lost: the bidder sees one verdict, once.

use crate::kit::{Kit, options};
use auction::Reply;
use router::Options;
use serde_json::json;

#[tokio::test]
async fn a_change_of_leader_costs_one_redirect() {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "tea").await;
    kit.fake.lead(3);
    kit.fake.rumour(Some(2));
    let before = kit.fake.asked().len();
    assert_eq!(kit.bid("tea", &bidder, "k", 1_000).await.0, 200);
    assert_eq!(kit.fake.asked()[before..], [2, 3]);
    kit.bid("tea", &bidder, "l", 1_000).await;
    assert_eq!(kit.fake.asked()[before..], [2, 3, 3], "and then it is known");
}

/// Without a map every auction would seem to be in shard 1, and its leader's 'no such auction' would be taken for a verdict.
#[tokio::test]
async fn before_the_map_is_known_nothing_is_said_of_auctions() {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "tea").await;
    kit.fake.mapless(true);
    let before = kit.fake.asked().len();
    let (status, problem) = kit.bid("tea", &bidder, "k", 1_000).await;
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (503, &json!("unavailable")),
        "{problem}"
    );
    for path in ["/api/v1/auctions", "/api/v1/auctions/tea", "/ws"] {
        let (status, problem) = kit.get(path).await;
        assert_eq!(
            (status.as_u16(), &problem["code"]),
            (503, &json!("unavailable")),
            "{path}"
        );
    }
    assert_eq!(kit.fake.asked().len(), before, "nobody was asked");
    // What is no auction's goes on.
    kit.guest("bidder").await;
    kit.fake.mapless(false);
    assert_eq!(kit.bid("tea", &bidder, "k", 1_000).await.0, 200);
}

#[tokio::test]
async fn an_unknown_outcome_is_asked_again_and_acts_once() {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "tea").await;
    kit.fake.script(Reply::Unknown, true);
    kit.fake.script(Reply::Busy { retry_after_ms: 1 }, false);
    kit.fake.script(Reply::NotJudged, false);
    let (status, verdict) = kit.bid("tea", &bidder, "k", 1_000).await;
    assert_eq!(
        (status.as_u16(), &verdict["ok"], &verdict["dup"]),
        (200, &json!(true), &json!(true)),
        "{verdict}"
    );
    assert_eq!(kit.fake.view("tea").unwrap().bids, 1);
}

#[tokio::test]
async fn the_leaders_death_is_not_shown_to_the_bidder() {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "tea").await;
    let mut ws = kit.signed(&bidder).await;
    ws.join("tea").await;
    kit.fake.rumour(Some(2));
    kit.fake.down(2);
    kit.fake.lead(3);
    let frame = ws.bid("tea", "b1", 1_000).await;
    assert_eq!(frame["verdict"]["ok"], true, "{frame}");
}

#[tokio::test]
async fn only_the_deadline_ends_the_asking() {
    let kit = Kit::with(Options {
        deadline_ms: 200,
        ..options()
    })
    .await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "tea").await;
    for node in [1, 2, 3] {
        kit.fake.down(node);
    }
    let (status, body) = kit.bid("tea", &bidder, "k", 1_000).await;
    assert_eq!(
        (status.as_u16(), &body["code"]),
        (504, &json!("timeout")),
        "it may have been judged"
    );
    let mut ws = kit.signed(&bidder).await;
    let frame = ws.bid("tea", "b1", 1_000).await;
    assert_eq!(
        (&frame["id"], &frame["problem"]["code"]),
        (&json!("b1"), &json!("timeout"))
    );
    for node in [1, 2, 3] {
        kit.fake.up(node);
    }
    assert_eq!(kit.bid("tea", &bidder, "k", 1_000).await.0, 200, "the same key, later");
    // Nobody leads: then nothing was judged, and that is said.
    kit.fake.lead(9);
    let (status, body) = kit.bid("tea", &bidder, "l", 2_000).await;
    assert_eq!((status.as_u16(), &body["code"]), (503, &json!("unavailable")), "{body}");
}

/// A bid over HTTP or the WebSocket, as its client wrote it; what the edge made of that.
async fn said_of(kit: &Kit, bidder: &crate::kit::Guest, http: bool, id: &str, sent: Option<u64>) -> Vec<Option<u64>> {
    let before = kit.fake.sent().len();
    kit.fake.script(Reply::NotJudged, false);
    kit.fake.script(Reply::Unknown, true);
    if http {
        let body = sent.map_or(json!({"amount": 1_000}), |sent| json!({"amount": 1_000, "sent": sent}));
        let bid = kit
            .http
            .post(kit.url("/api/v1/auctions/tea/bids"))
            .bearer_auth(&bidder.token);
        crate::kit::answer(bid.header("idempotency-key", id).json(&body)).await;
    } else {
        let mut ws = kit.signed(bidder).await;
        let mut bid = json!({"t": "bid", "a": "tea", "id": id, "amount": 1_000});
        if let Some(sent) = sent {
            bid["sent"] = json!(sent);
        }
        ws.send(bid).await;
        ws.until(&["verdict"]).await;
    }
    let told = kit.fake.sent()[before..].to_vec();
    assert!(
        told.len() >= 3,
        "asked once, and again after each that was no answer: {told:?}"
    );
    told
}

#[tokio::test]
async fn when_a_bid_was_first_sent_is_asked_once_and_told_at_each_asking() {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "tea").await;
    // The clock reads 1,000, and a little more after each asking.
    let now = || kit.fake.now();
    for http in [true, false] {
        // name | what the client says | the clock isn't heard | what the leaders are told
        let table = [
            ("as the client says", Some(500), false, Some(500)),
            ("who says nothing sends it now", None, false, None),
            ("nobody sends tomorrow", Some(u64::MAX), false, None),
            ("as the client says, whatever the time", Some(700), true, Some(700)),
        ];
        for (n, (name, sent, held, told)) in table.into_iter().enumerate() {
            kit.fake.hold(held);
            let told = Some(told.unwrap_or(now()));
            let id = format!("k{n}-{http}");
            let said = said_of(&kit, &bidder, http, &id, sent).await;
            assert!(said.iter().all(|sent| *sent == told), "{name}: {said:?}");
        }
        kit.fake.hold(true);
        let id = format!("nobody-{http}");
        let said = said_of(&kit, &bidder, http, &id, None).await;
        assert!(said.iter().all(Option::is_none), "nobody knows: {said:?}");
        kit.fake.hold(false);
    }
}

#[tokio::test]
async fn a_bid_that_was_first_sent_ten_minutes_ago_is_too_old() {
    let kit = Kit::new().await;
    let (seller, bidder) = (kit.guest("seller").await, kit.guest("bidder").await);
    kit.live(&seller, "tea").await;
    let hour = auction::Action::Extend { ms: 3_600_000 };
    kit.fake.act("tea", "op", hour);
    assert_eq!(kit.bid("tea", &bidder, "won", 1_000).await.0, 200);
    let sent = kit.fake.now();
    kit.fake.advance(600_000);
    let mut ws = kit.signed(&bidder).await;
    for replica_here in [false, true] {
        if replica_here {
            kit.fake.replica_here();
        }
        let late = json!({"t": "bid", "a": "tea", "id": "late", "amount": 2_000, "sent": sent});
        ws.send(late).await;
        let verdict = ws.until(&["verdict"]).await;
        assert_eq!(
            (&verdict["verdict"]["code"], &verdict["id"]),
            (&json!("expired"), &json!("late"))
        );
        let post = kit
            .http
            .post(kit.url("/api/v1/auctions/tea/bids"))
            .bearer_auth(&bidder.token);
        let post = post
            .header("idempotency-key", "late")
            .json(&json!({"amount": 2_000, "sent": sent}));
        let (status, problem) = crate::kit::answer(post).await;
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("expired")));
        assert!(
            problem["ko"].as_str().is_some_and(|ko| ko.contains("오래된")),
            "{problem}"
        );
    }
    // What was accepted stays so, and a new bid is a new bid.
    let (status, again) = kit.bid("tea", &bidder, "won", 1_000).await;
    assert_eq!((status.as_u16(), &again["dup"]), (200, &json!(true)));
    let other = kit.guest("bidder").await;
    assert_eq!(kit.bid("tea", &other, "late", 2_000).await.0, 200);
}
