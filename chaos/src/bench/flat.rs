//! What a bid costs among few auctions and among many: it should be the same.
//!
//! A client is a pair of people with one bid under way, as in `bids`; but each bid goes to another of the pair's auctions, so
//! that all live auctions are bid on in turn, whatever their number. The clients stay the same: what differs between steps is
//! only how many auctions there are. The cost is the nodes' CPU per accepted bid; the ratio is the dearest step's to the
//! cheapest's, by the medians of some rounds.
//!
//! Each figure is of a fresh cluster, and the steps take turns: in one cluster that grows, the last step would pay for the
//! history of the first, and on a machine whose speed drifts for the hour.
//!
//! The smallest step is one auction for each client: a single auction with one bid under way costs more a bid, since nothing
//! shares its way through log and disk, and would flatter the larger steps.

use super::{
    BidsOptions, SETUP, fresh_in, median, open,
    usage::{self, round1},
};
use anyhow::{Result, ensure};
use client::{Api, Dice, Role, Socket, SocketOptions};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many, how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FlatOptions {
    /// Live auctions at each step, rising.
    #[arg(long, value_delimiter = ',', default_values_t = [256usize, 1_000, 10_000])]
    auctions: Vec<usize>,
    /// Each step is measured so often, in turns with the others.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    #[command(flatten)]
    bids: BidsOptions,
}

const WARM: Duration = Duration::from_secs(1);
/// Auctions of one seller: more at once would be told to slow down.
const SOLD: usize = 50;

/// One of a pair's auctions.
struct Lot {
    auction: String,
    amount: u64,
    turn: usize,
}

/// Two people who overbid each other, in one of their auctions after the other.
struct Hopper {
    sockets: [Socket; 2],
    lots: Vec<Lot>,
    at: usize,
    dice: Dice,
}

/// What one step came to, in one cluster.
struct Step {
    cost_us: f64,
    per_s: f64,
    others: f64,
}

/// Runs it; the figures as JSON.
pub(crate) async fn flat(options: &FlatOptions) -> Result<Value> {
    let BidsOptions {
        clients,
        seconds,
        shards,
        ..
    } = options.bids;
    let rising = options.auctions.windows(2).all(|pair| pair[0] < pair[1]);
    ensure!(
        rising && options.auctions.first().is_some_and(|first| *first >= clients),
        "steps must rise, from at least one auction for each of the {clients} clients"
    );
    let mut steps: Vec<Vec<Step>> = options.auctions.iter().map(|_| Vec::new()).collect();
    for round in 0..options.rounds {
        for (live, done) in options.auctions.iter().zip(&mut steps) {
            let one = step(&options.bids, *live).await?;
            tracing::info!(
                round,
                auctions = live,
                cost_us = one.cost_us,
                per_s = one.per_s,
                "measured"
            );
            done.push(one);
        }
    }
    let mut figures = json!({
        "bench": "flat", "clients": clients, "seconds": seconds, "shards": shards, "rounds": options.rounds,
    });
    let mut costs = Vec::new();
    for (live, done) in options.auctions.iter().zip(&steps) {
        let of = |what: fn(&Step) -> f64| median(done.iter().map(what)).unwrap_or_default();
        costs.push(of(|step| step.cost_us));
        figures[format!("cpu_us_per_bid_{live}")] = round1(of(|step| step.cost_us)).into();
        figures[format!("bids_per_s_{live}")] = round1(of(|step| step.per_s)).into();
    }
    figures["flat_ratio"] = ratio(&costs).into();
    let others = steps.iter().flatten().map(|step| step.others).fold(0.0, f64::max);
    figures["others_percent"] = others.into();
    Ok(figures)
}

/// So many live auctions in a cluster of their own.
async fn step(options: &BidsOptions, live: usize) -> Result<Step> {
    let (clients, seconds) = (options.clients, options.seconds);
    let (dir, cluster, api) = fresh_in(options.dir.as_deref(), options.shards).await?;
    let mut hoppers = hoppers(&api, clients).await?;
    open_all(&api, live, seconds).await?;
    for n in 0..live {
        hoppers[n % clients].lots.push(Lot {
            auction: id(n),
            amount: 99,
            turn: 0,
        });
    }
    let mut tasks = JoinSet::new();
    let from = Instant::now() + WARM;
    let until = from + Duration::from_secs(seconds);
    for hopper in hoppers {
        tasks.spawn(hop(hopper, from, until));
    }
    let (nodes, me) = (cluster.pids(), [std::process::id()]);
    let groups: [&[u32]; 2] = [&nodes, &me];
    let spent = usage::between(&groups, from, until).await?;
    let mut accepted = 0;
    while let Some(done) = tasks.join_next().await {
        accepted += done??;
    }
    let panics = cluster.panics();
    ensure!(panics.is_empty(), "a node panicked: {panics:?}");
    drop((cluster, dir));
    Ok(Step {
        cost_us: spent.groups[0] * 1e6 / accepted.max(1) as f64,
        per_s: accepted as f64 / seconds as f64,
        others: spent.others_percent(),
    })
}

/// The dearest to the cheapest, to two places.
fn ratio(costs: &[f64]) -> Option<f64> {
    let dearest = costs.iter().copied().reduce(f64::max)?;
    let cheapest = costs.iter().copied().reduce(f64::min)?;
    Some((dearest / cheapest * 100.0).round() / 100.0)
}

fn id(n: usize) -> String {
    format!("flat-{n}")
}

async fn hoppers(api: &Api, clients: usize) -> Result<Vec<Hopper>> {
    let one = |n: usize| async move {
        let mut sockets = Vec::with_capacity(2);
        for side in 0..2 {
            let token = Some(api.guest(&format!("f{n}-{side}"), Role::Bidder).await?.token);
            let (nodes, seed) = (api.nodes().to_vec(), (n * 2 + side) as u64);
            let options = SocketOptions {
                nodes,
                first: n,
                token,
                seed,
                ..SocketOptions::default()
            };
            sockets.push(Socket::open(options).0);
        }
        let sockets = sockets.try_into().map_err(|_| anyhow::anyhow!("two sockets"))?;
        anyhow::Ok(Hopper {
            sockets,
            lots: Vec::new(),
            at: 0,
            dice: Dice::new(n as u64),
        })
    };
    let all = futures_util::stream::iter(0..clients).map(one);
    all.buffer_unordered(SETUP).try_collect().await
}

/// Opens so many auctions, those of one seller one after another.
async fn open_all(api: &Api, live: usize, seconds: u64) -> Result<()> {
    let lots: Vec<usize> = (0..live).collect();
    let sellers = lots.chunks(SOLD).map(|lots| {
        let lots = lots.to_vec();
        async move {
            let name = format!("s{}", lots.first().copied().unwrap_or_default());
            let seller = api.with_token(&api.guest(&name, Role::Seller).await?.token);
            for n in lots {
                open(&seller, &id(n), seconds + 600).await?;
            }
            anyhow::Ok(())
        }
    });
    let all = futures_util::stream::iter(sellers.collect::<Vec<_>>());
    all.buffer_unordered(SETUP).try_collect().await
}

/// Bids until the time is over; how many were accepted within it.
async fn hop(mut hopper: Hopper, from: Instant, until: Instant) -> Result<u64> {
    let mut accepted = 0;
    loop {
        let called = Instant::now();
        if called >= until {
            return Ok(accepted);
        }
        let Hopper {
            sockets,
            lots,
            at,
            dice,
        } = &mut hopper;
        *at = (*at + 1) % lots.len();
        let lot = &mut lots[*at];
        lot.amount += 1;
        let verdict = sockets[lot.turn].bid(&lot.auction, lot.amount, &dice.id("f-")).await;
        lot.turn = 1 - lot.turn;
        let verdict = verdict.map_err(|error| anyhow::anyhow!("{}: {error}", lot.auction))?;
        ensure!(verdict.ok, "{}: {:?}", lot.auction, verdict.code);
        accepted += u64::from(called >= from && Instant::now() <= until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_the_dearest_to_the_cheapest() {
        for (costs, expected) in [(&[][..], None), (&[50.0], Some(1.0)), (&[60.0, 50.0, 55.0], Some(1.2))] {
            assert_eq!(ratio(costs), expected, "{costs:?}");
        }
    }
}
