//! Delay: what a page is told of its picture's capture, and what it may say of it.

use crate::kit::Kit;
use serde_json::{Value, json};

#[tokio::test]
async fn a_page_is_told_what_its_rtp_times_stand_for_on_the_clock_of_its_pings() {
    let kit = Kit::new().await;
    let mut ws = kit.socket().await;
    ws.send(json!({"t": "ping", "c": 1})).await;
    let before = ws.until(&["pong"]).await["s"].as_f64().unwrap();
    ws.send(json!({"t": "capture", "media": "view-tea"})).await;
    let told = ws.until(&["capture"]).await;
    ws.send(json!({"t": "ping", "c": 2})).await;
    let after = ws.until(&["pong"]).await["s"].as_f64().unwrap();
    let line = &told["line"];
    assert_eq!(told["media"], "view-tea");
    assert_eq!(
        (&line["rtp"], &line["rate"], &line["legs_ms"]),
        (&json!(7), &json!(90_000), &json!([12.5, 40.0]))
    );
    assert!((before..=after).contains(&line["s"].as_f64().unwrap()), "{told}");
}

#[tokio::test]
async fn a_session_that_isnt_watched_here_has_no_line() {
    let kit = Kit::new().await;
    let mut ws = kit.socket().await;
    ws.send(json!({"t": "capture", "media": "view"})).await;
    assert_eq!(ws.until(&["capture"]).await, json!({"t": "capture", "media": "view"}));
}

#[tokio::test]
async fn samples_are_taken_silently_and_nonsense_is_a_strike() {
    let kit = Kit::new().await;
    let mut ws = kit.socket().await;
    let fine = [
        json!({"t": "seen", "legs": {"whole": 120.5, "hammer": 90}}),
        json!({"t": "seen", "legs": {"whole": "long", "else": -1e300}}),
        json!({"t": "seen", "legs": {}}),
    ];
    // More than are counted.
    for frame in fine.iter().cycle().take(30) {
        ws.send(frame.clone()).await;
    }
    ws.send(json!({"t": "ping", "c": 1})).await;
    assert_eq!(ws.until(&["pong", "problem", "closed"]).await["t"], "pong");
    let long = "v".repeat(200);
    for frame in [
        json!({"t": "seen"}),
        json!({"t": "seen", "legs": [1]}),
        json!({"t": "capture"}),
        json!({"t": "capture", "media": 7}),
        json!({"t": "capture", "media": long}),
    ] {
        let mut ws = kit.socket().await;
        ws.send(frame.clone()).await;
        let problem: Value = ws.until(&["problem", "capture", "closed"]).await;
        assert_eq!(problem["problem"]["code"], "bad_request", "{frame}: {problem}");
    }
}
