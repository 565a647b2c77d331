//! `kill -9` of all three processes at once, and a restart: every acknowledged bid and every running countdown is there,
//! and the outage took no bidding time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use client::wire::{Auction, Verdict};
use common::{Cluster, PATIENCE, auction, people};
use std::time::{Duration, Instant};

/// The outage: long against every bound of the clock.
const OUTAGE: Duration = Duration::from_secs(3);
/// What an outage may eat of bidding time (`clock.hold_ms`).
const HOLD_MS: u64 = 200;
/// Auctions, spread over shards by their ids.
const AUCTIONS: usize = 4;
/// Bids on each, from as many bidders.
const BIDS: usize = 12;

/// An auction with the shard's clock in it, once the edge follows that.
async fn with_clock(api: &client::Api, id: &str) -> (Auction, Instant) {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = Instant::now();
        let auction = api.auction(id).await.unwrap();
        if auction.now.is_some() {
            return (auction, now);
        }
        assert!(Instant::now() < until, "no clock of {id}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_no_bidding_time_passes() {
    let mut cluster = Cluster::start("").await;
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, BIDS).await;
    let ids: Vec<String> = (0..AUCTIONS).map(|i| format!("restart-{i}")).collect();
    let mut acked: Vec<(String, String, u64, Verdict)> = Vec::new();
    for (place, id) in ids.iter().enumerate() {
        let selling = cluster.api(place % 3).with_token(&seller.token);
        selling.create(&auction(id, 600_000)).await.unwrap();
        selling.start(id).await.unwrap();
        // Through every node; each bid is over the one before.
        for (n, bidder) in bidders.iter().enumerate() {
            let (key, amount) = (format!("bid-{n}"), 1_000 + 100 * n as u64);
            let verdict = cluster
                .api(n % 3)
                .with_token(&bidder.token)
                .bid(id, amount, &key)
                .await
                .unwrap();
            assert!(verdict.ok, "{verdict:?}");
            acked.push((id.clone(), key, amount, verdict));
        }
    }
    let mut before = Vec::new();
    for id in &ids {
        before.push(with_clock(&api, id).await);
    }

    cluster.kill(&[0, 1, 2]);
    let killed = Instant::now();
    tokio::time::sleep(OUTAGE).await;
    let outage = killed.elapsed();
    cluster.start_all().await;

    for (id, (was, at)) in ids.iter().zip(&before) {
        let (is, now) = with_clock(&api, id).await;
        assert_eq!(
            (&is.phase, is.ends_at, is.price, &is.leader),
            (&was.phase, was.ends_at, was.price, &was.leader)
        );
        let (from, to) = (was.now.unwrap(), is.now.unwrap());
        // A reading runs up to `hold_ms` ahead of what a majority has; that much was never promised to anyone.
        assert!(to + HOLD_MS >= from, "the clock of {id} went back from {from} to {to}");
        // `now` was read between the call and its answer; all time but the outage may have counted.
        let awake = (now.elapsed() + (now - *at)).saturating_sub(outage).as_millis() as u64;
        let went = to.saturating_sub(from);
        assert!(
            went <= awake + HOLD_MS,
            "{id}: {went} ms of bidding time went in {awake} ms awake"
        );
    }
    for (id, key, amount, verdict) in &acked {
        let events = api.events(id, verdict.seq - 1, 1).await.unwrap().items;
        let event = events.first().expect("the event of an acknowledged bid");
        assert_eq!(
            (event.id.as_ref(), event.amount, &event.h),
            (Some(key), Some(*amount), &verdict.h),
            "{id}"
        );
    }
    // The same id and body again: the first verdict, from before the restart. And bidding goes on.
    let (id, key, amount, first) = acked.last().unwrap();
    let last = api.with_token(&bidders[BIDS - 1].token);
    let again = last.bid(id, *amount, key).await.unwrap();
    assert_eq!(
        (again.ok, again.seq, &again.h, again.dup),
        (true, first.seq, &first.h, true)
    );
    let next = api
        .with_token(&bidders[0].token)
        .bid(id, amount + 100, "after")
        .await
        .unwrap();
    assert!(next.ok && next.seq > first.seq && next.ct >= first.ct, "{next:?}");
    cluster.assert_no_panic();
}
