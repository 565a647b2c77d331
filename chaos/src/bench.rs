//! `chaos bench`: figures, each from a run that anyone can repeat. Each ends with one line of flat JSON.
//!
//! - `core`: how many commands one core applies, without disk or network (`auction::Shard`).
//! - `bids`: durable bids over three real processes and real sockets. Closed loop: each client bids again when its
//!   verdict came, so the latencies are those at the load that the clients reach, not at one that was set.
//!   Every bid leads its auction, none is refused: what is counted is work on disk.
//! - `drain`, `move`: what operators do in daylight, and what bidders feel of it.
//! - `failover`: SIGKILL of a node, until the first bid *called after the kill* is accepted in each shard that it led.
//! - `flat`: what a bid costs among few live auctions, and among many.
//! - `history`: what finished auctions cost the shard that has them.
//! - `idle`: what shards cost that nobody uses.
//! - `peers`: `bids` beside etcd and a Redis job queue, by turns.
//! - `storm`: thousands of bidders on one auction, most of them hopeless: are closes in time, do others wait?
//! - `wal`: the log alone, one for all shards beside one for each; and how long a start over a long one takes.
//! - `media`: what a viewer of video costs the node, by the hundred; what is lost, how long a packet stays.
//! - `join`: from a viewer's offer to its first whole picture, at the origin and behind a relay; then what is lost on the way.

mod bids;
mod child;
mod core;
mod daylight;
mod failover;
mod flat;
mod history;
mod idle;
mod join;
mod media;
mod peers;
mod storm;
mod usage;
mod wal;

pub(crate) use bids::{BidsOptions, bids};
pub(crate) use core::core;
pub(crate) use daylight::{DrainOptions, ShiftOptions, drain, shift};
pub(crate) use failover::{FailoverOptions, failover};
pub(crate) use flat::{FlatOptions, flat};
pub(crate) use history::{HistoryOptions, history};
pub(crate) use idle::{IdleOptions, idle};
pub(crate) use join::{JoinOptions, join};
pub(crate) use media::{MediaOptions, media};
pub(crate) use peers::{PeersOptions, peers};
pub(crate) use storm::{StormOptions, load::load as storm_load, storm};
pub(crate) use wal::{WalOptions, wal};

use crate::cluster::{self, Cluster};
use anyhow::Result;
use client::{
    Api, BidError, Dice, Role, Socket, SocketOptions,
    wire::{NewAuction, Verdict},
};
use std::{path::Path, time::Duration};

/// People that are set up at a time.
const SETUP: usize = 32;

/// The middle one, or the lower of the two in the middle: always a value that was seen.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// A fresh cluster in a folder of its own, ready.
async fn fresh(shards: u32) -> Result<(tempfile::TempDir, Cluster, Api)> {
    fresh_in(None, shards).await
}

/// The same, on the disk that holds `within`. With `CHAOS_TLS` set in the environment nodes talk TLS: what that costs is
/// measured so.
async fn fresh_in(within: Option<&Path>, shards: u32) -> Result<(tempfile::TempDir, Cluster, Api)> {
    fresh_with(within, shards, "").await
}

/// The same, with more in the nodes' settings.
async fn fresh_with(within: Option<&Path>, shards: u32, more: &str) -> Result<(tempfile::TempDir, Cluster, Api)> {
    let binary = cluster::binary()?;
    let mut dir = within.map_or_else(tempfile::tempdir, tempfile::tempdir_in)?;
    if std::env::var_os("CHAOS_KEEP").is_some() {
        // The nodes' logs tell what a figure can't.
        dir.disable_cleanup(true);
        eprintln!("the nodes' folders stay: {}", dir.path().display());
    }
    let options = cluster::Options {
        dir: dir.path().into(),
        shards,
        tls: std::env::var_os("CHAOS_TLS").is_some(),
        seed: 1,
        front: None,
        // A load of few people must not meet the pace that a crowd of them has.
        more: format!("\n[limits]\nbids_per_s = 100000\nframes_per_s = 250000\n{more}"),
    };
    let mut cluster = Cluster::start(&binary, &options)?;
    let api = cluster.api(Duration::from_secs(6), 1)?;
    cluster.all_ready(&api).await?;
    Ok((dir, cluster, api))
}

/// Opens an auction without any rule of time, for `seconds` and a margin; gives its shard. `api` is the seller's.
async fn open(api: &Api, id: &str, seconds: u64) -> Result<u32> {
    let new = NewAuction {
        id: Some(id.into()),
        title: id.into(),
        currency: "KRW".into(),
        start_price: 100,
        increments: Some(vec![[0, 1]]),
        duration_ms: (seconds + 600) * 1000,
        guests: Some(true),
        ..NewAuction::default()
    };
    api.create(&new).await?;
    Ok(api.start(id).await?.shard)
}

/// Ids that fall into a shard: computed, not tried.
fn ids_in(shard: u32, shards: u32) -> impl Iterator<Item = String> {
    let all = (0u64..).map(|n| format!("q-{n}"));
    all.filter(move |id| placement::shard_of(id, shards).0 == shard)
}

/// Two people with an auction to themselves, who overbid each other by turns: every bid leads, so every bid is durable
/// work. (People who bid against a crowd are refused most of the time, and too many refusals shut the door on them.)
struct Pair {
    sockets: [Socket; 2],
    auction: String,
    amount: u64,
    turn: usize,
    dice: Dice,
}

impl Pair {
    async fn new(api: &Api, auction: String, n: usize) -> Result<Pair> {
        let mut sockets = Vec::with_capacity(2);
        for side in 0..2 {
            let token = Some(api.guest(&format!("b{n}-{side}"), Role::Bidder).await?.token);
            let (nodes, first, seed) = (api.nodes().to_vec(), n, (n * 2 + side) as u64);
            let options = SocketOptions {
                nodes,
                first,
                token,
                seed,
                ..SocketOptions::default()
            };
            sockets.push(Socket::open(options).0);
        }
        let sockets = sockets.try_into().map_err(|_| anyhow::anyhow!("two sockets"))?;
        Ok(Pair {
            sockets,
            auction,
            amount: 99,
            turn: 0,
            dice: Dice::new(n as u64),
        })
    }

    /// The next bid: its id, and what became of it.
    async fn bid(&mut self) -> (String, Result<Verdict, BidError>) {
        self.amount += 1;
        let id = self.dice.id("b-");
        let verdict = self.sockets[self.turn].bid(&self.auction, self.amount, &id).await;
        // After an unknown outcome it may be this one who leads: the other's bid is right in either case.
        self.turn = 1 - self.turn;
        (id, verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_value_that_was_seen() {
        for (values, expected) in [(vec![], 0.0), (vec![3.0, 1.0], 1.0), (vec![9.0, 1.0, 2.0], 2.0)] {
            let found = median(values.iter().copied()).unwrap_or_default();
            assert_eq!(found, expected, "{values:?}");
        }
    }

    #[test]
    fn ids_fall_into_their_shard() {
        for shard in 1..=16 {
            for id in ids_in(shard, 16).take(3) {
                assert_eq!(placement::shard_of(&id, 16).0, shard, "{id}");
            }
        }
    }
}
