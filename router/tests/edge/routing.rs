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
