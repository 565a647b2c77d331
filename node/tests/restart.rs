//! `kill -9` of all three processes at once, and a restart: every acknowledged bid and every running countdown is there,
//! and the outage took no bidding time.
//!
//! What the clock may do (G5) is said in stamps alone, since only they were promised. An acknowledged stamp lies on the
//! disks of a majority, and a new office begins at the newest of those: so no later stamp may lie below it, by nothing at
//! all. And of the time in which nobody ran, at most `clock.hold_ms` may count: that far a leader's reading may run ahead
//! of what a majority has, and a bid may be stamped and acknowledged there. What an edge *shows* may be ahead of that
//! for a moment (it extrapolates the leader's last reading), so a shown time from before the kill is compared with
//! nothing; one from after it must have reached what was acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use client::wire::{Auction, Verdict};
use client::{Api, Session};
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
async fn with_clock(api: &Api, id: &str) -> Auction {
    let until = Instant::now() + PATIENCE;
    loop {
        let auction = api.auction(id).await.unwrap();
        if auction.now.is_some() {
            return auction;
        }
        assert!(Instant::now() < until, "no clock of {id}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A bid that was answered `accepted`.
struct Acked {
    id: String,
    key: String,
    amount: u64,
    /// Before it was sent: its stamp is of no earlier moment.
    sent: Instant,
    verdict: Verdict,
}

/// Opens all auctions and bids on each through every node; each bid is over the one before.
async fn bid_on_all(cluster: &Cluster, seller: &Session, bidders: &[Session]) -> Vec<Acked> {
    let mut acked = Vec::new();
    for place in 0..AUCTIONS {
        let id = format!("restart-{place}");
        let selling = cluster.api(place % 3).with_token(&seller.token);
        selling.create(&auction(&id, 600_000)).await.unwrap();
        selling.start(&id).await.unwrap();
        for (n, bidder) in bidders.iter().enumerate() {
            let (key, amount) = (format!("bid-{n}"), 1_000 + 100 * n as u64);
            let bidding = cluster.api(n % 3).with_token(&bidder.token);
            let sent = Instant::now();
            let verdict = bidding.bid(&id, amount, &key).await.unwrap();
            assert!(verdict.ok, "{verdict:?}");
            let id = id.clone();
            acked.push(Acked {
                id,
                key,
                amount,
                sent,
                verdict,
            });
        }
    }
    acked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_no_bidding_time_passes() {
    let mut cluster = Cluster::start("").await;
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, BIDS).await;
    let acked = bid_on_all(&cluster, &seller, &bidders).await;
    let last: Vec<&Acked> = acked.chunks(BIDS).filter_map(|of_one| of_one.last()).collect();
    let mut before = Vec::new();
    for bid in &last {
        before.push(api.auction(&bid.id).await.unwrap());
    }

    cluster.kill(&[0, 1, 2]);
    // All are gone by now: up to here, and again from the start on, time may have counted.
    let killed = Instant::now();
    tokio::time::sleep(OUTAGE).await;
    let started = Instant::now();
    cluster.start_all().await;

    for (bid, was) in last.iter().zip(&before) {
        let (id, is) = (&bid.id, with_clock(&api, &bid.id).await);
        assert_eq!(
            (&is.phase, is.ends_at, is.price, &is.leader),
            (&was.phase, was.ends_at, was.price, &was.leader)
        );
        assert!(is.now >= Some(bid.verdict.ct), "{id} shows {:?}", is.now);
        // The same id and body again: the first verdict, from before the restart.
        let again = api
            .with_token(&bidders[BIDS - 1].token)
            .bid(id, bid.amount, &bid.key)
            .await
            .unwrap();
        assert_eq!(
            (again.ok, again.seq, &again.h, again.ct, again.dup),
            (true, bid.verdict.seq, &bid.verdict.h, bid.verdict.ct, true)
        );
        // And bidding goes on, at a stamp that tells how much time counted.
        let next = api
            .with_token(&bidders[0].token)
            .bid(id, bid.amount + 100, "after")
            .await
            .unwrap();
        assert!(next.ok && next.seq > bid.verdict.seq, "{next:?}");
        let awake = (killed - bid.sent + started.elapsed()).as_millis() as u64;
        let went = next.ct.checked_sub(bid.verdict.ct).expect("stamps never go back");
        assert!(
            went <= awake + HOLD_MS,
            "{id}: {went} ms of bidding time went in {awake} ms awake"
        );
    }
    for bid in &acked {
        let events = api.events(&bid.id, bid.verdict.seq - 1, 1).await.unwrap().items;
        let event = events.first().expect("the event of an acknowledged bid");
        assert_eq!(
            (event.id.as_ref(), event.amount, &event.h),
            (Some(&bid.key), Some(bid.amount), &bid.verdict.h),
            "{}",
            bid.id
        );
    }
    cluster.assert_no_panic();
}
