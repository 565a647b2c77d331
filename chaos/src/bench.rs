//! `chaos bench`: figures, each from a run that anyone can repeat. Each ends with one line of flat JSON.
//!
//! - `core`: how many commands one core applies, without disk or network (`auction::Shard`).
//! - `bids`: durable bids over three real processes and real sockets. Closed loop: each client bids again when its
//!   verdict came, so the latencies are those at the load that the clients reach, not at one that was set.
//! - `failover`: SIGKILL of the leader, until the first bid *called after the kill* is accepted.

mod bids;
mod core;
mod failover;

pub(crate) use bids::{BidsOptions, bids};
pub(crate) use core::core;
pub(crate) use failover::failover;

use crate::cluster::{self, Cluster};
use anyhow::Result;
use client::{Api, Role, Session, wire::NewAuction};
use std::time::Duration;

/// A fresh cluster in a folder of its own, ready.
async fn fresh(shards: u32) -> Result<(tempfile::TempDir, Cluster, Api)> {
    let binary = cluster::binary()?;
    let dir = tempfile::tempdir()?;
    let options = cluster::Options {
        dir: dir.path().into(),
        shards,
        seed: 1,
    };
    let mut cluster = Cluster::start(&binary, &options)?;
    let api = cluster.api(Duration::from_secs(6), 1)?;
    cluster.all_ready(&api).await?;
    Ok((dir, cluster, api))
}

/// Opens auctions without any rule of time, for `seconds` and a margin; gives their ids.
async fn auctions(api: &Api, count: usize, seconds: u64) -> Result<Vec<String>> {
    let seller = api.guest("seller", Role::Seller).await?;
    let api = api.with_token(&seller.token);
    let mut ids = Vec::with_capacity(count);
    for n in 0..count {
        let new = NewAuction {
            id: Some(format!("bench-{n}")),
            title: format!("Bench {n}"),
            currency: "KRW".into(),
            start_price: 100,
            increments: Some(vec![[0, 1]]),
            duration_ms: (seconds + 600) * 1000,
            guests: Some(true),
            ..NewAuction::default()
        };
        api.create(&new).await?;
        ids.push(api.start(&format!("bench-{n}")).await?.id);
    }
    Ok(ids)
}

/// Signed-in bidders, 32 at a time.
async fn sessions(api: &Api, count: usize) -> Result<Vec<Session>> {
    use futures_util::{StreamExt as _, TryStreamExt as _};
    let one = |n: usize| async move { api.guest(&format!("b{n}"), Role::Bidder).await };
    Ok(futures_util::stream::iter(0..count)
        .map(one)
        .buffer_unordered(32)
        .try_collect()
        .await?)
}
