//! `demo --script smoke`: the whole way once, without a browser, in about a minute.
//!
//! ```text
//!   0 s   six auctions; the seller publishes to node P (Seoul), a viewer watches at node V (Tokyo)
//!         contenders bid over WebSocket at all three nodes
//!  12 s   `aim` finds L, which leads the hottest auction and is not V; a second viewer watches at L
//!         kill -9 of L: the second viewer's stream is cut, and it connects again elsewhere, as a page does
//!  18 s   L is started again
//!  ...    all auctions close by themselves
//!  end    bids without a verdict are asked for again, under the same id
//!         every replica's export is verified and held against every acknowledged bid; logs are read for panics
//! ```
//!
//! The hottest auction's id is chosen so that another node than P leads it, so the seller publishes to a node that
//! survives. Should leadership have moved to P meanwhile, the seller's client publishes again by itself, to a node that
//! lives, and both viewers' pictures must come back.
//!
//! No outcome stays open: a bid that got no verdict (its edge died, its patience ended) is sent again with the same id
//! once its auction has closed. Then there is an answer for certain: the first verdict if it was judged, `closed` if it
//! never was. So an unknown that is left means that the cluster couldn't answer, and breaks the run.

use super::aim::{self, Aim, leader_of};
use super::audit;
use super::cluster::{Cluster, NODES};
use super::contender::{Books, Contender};
use super::crowd::Door;
use super::report::{Report, Witness, clock_step};
use super::video::{Frames, Seller};
use crate::admin::wall_ms;
use anyhow::{Context as _, Result, bail};
use client::bots::{Watcher, WatcherReport};
use client::wire::{NewAuction, Rush};
use client::{Dice, Role};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The place of the node at which the viewer watches: the only one of its region.
pub(super) const VIEWER: usize = 2;
/// Bidding before the kill.
const BEFORE_KILL: Duration = Duration::from_secs(12);
/// The victim stays down so long.
const DOWN: Duration = Duration::from_secs(6);
/// Pictures that must have come before bidding starts, and again once the victim is back; and the wait for them.
pub(super) const FRAMES_FIRST: u64 = 30;
pub(super) const FRAMES_WAIT: Duration = Duration::from_secs(20);
/// Witnesses of the clock are taken from so long before and after the outage.
const WITNESS: f64 = 1_500.0;
/// Contenders of the hottest auction, and of each other one.
const HOT_CONTENDERS: usize = 10;
const CONTENDERS: usize = 2;
/// Auctions beside the hottest.
const OTHERS: usize = 5;

/// What is under way while the script runs.
pub(super) struct Running {
    stop: CancellationToken,
    books: Vec<JoinHandle<Books>>,
    watchers: Vec<(String, JoinHandle<WatcherReport>)>,
    /// Auctions with a crowd of their own.
    heated: BTreeSet<String>,
}

/// Runs the script; the report says what it found.
pub(super) async fn run(cluster: &mut Cluster, door: &Door, seed: u64, seconds: u64) -> Result<Report> {
    let mut dice = Dice::new(seed);
    let seller = door.sign_in("Smoke", Role::Seller).await?;
    let api = door.api().with_token(&seller.token);
    let (stream, publish_at) = choose(door, &mut dice).await?;
    let ids = auctions(&api, &stream, seconds, &mut dice).await?;
    let video = Seller::publish(door, publish_at, &stream, &seller.token)?;
    let viewer = door.sign_in("Viewer", Role::Bidder).await?;
    let frames = Frames::watch(door, VIEWER, &stream, &viewer.token)?;
    frames
        .at_least(FRAMES_FIRST, FRAMES_WAIT)
        .await
        .context("waiting for video in the other region")?;
    for id in &ids {
        api.start(id).await.with_context(|| format!("starting {id}"))?;
    }
    let mut running = crowd(door, &ids, &mut dice).await?;

    tokio::time::sleep(BEFORE_KILL).await;
    let aim = aim::take(door, &ids, &stream, &viewer.token, &mut running, &mut dice).await?;
    let mut report = Report {
        frames_before_kill: frames.count(),
        second_frames_before_kill: aim.second.count(),
        killed_node: NODES[aim.place].0,
        ..Report::default()
    };
    let killed = kill(cluster, &aim, &frames, &mut report).await?;

    let patience = Duration::from_secs(seconds + 60);
    let (mut books, watched) = finish(running, patience).await?;
    for book in &mut books {
        book.settle(door).await;
    }
    report.frames_after_kill = frames.count().saturating_sub(report.frames_before_kill);
    report.second_frames_after_kill = aim.second.count().saturating_sub(report.second_frames_before_kill);
    video.stop().await;
    measure(&mut report, &books, &watched, &aim.auction, killed);
    audit::check(&mut report, door, &ids, &books, &watched).await?;
    report.panics = cluster.panics()?;
    Ok(report)
}

/// Creates all auctions; the first is the one with video.
async fn auctions(api: &client::Api, stream: &str, seconds: u64, dice: &mut Dice) -> Result<Vec<String>> {
    let mut ids = vec![stream.to_string()];
    ids.extend((0..OTHERS).map(|_| dice.id("smoke-")));
    let live_ms = seconds.clamp(40, 600) * 1000 * 6 / 10;
    for (i, id) in ids.iter().enumerate() {
        // The others close one after another, the first while the victim is down.
        let duration = if i == 0 { live_ms } else { live_ms * (i as u64 + 3) / 10 };
        api.create(&definition(id, duration))
            .await
            .with_context(|| format!("creating {id}"))?;
    }
    // A draft can't be watched: this one is scheduled while its video comes up, and started with the others.
    api.schedule(stream, wall_ms() + 600_000)
        .await
        .context("scheduling the auction with video")?;
    Ok(ids)
}

/// Kills the victim, starts it again, and waits until both viewers' pictures grow again.
async fn kill(cluster: &mut Cluster, aim: &Aim, frames: &Frames, report: &mut Report) -> Result<Instant> {
    let again = aim.second.again();
    let killed = Instant::now();
    cluster.kill(aim.place).await?;
    tracing::info!(
        node = report.killed_node,
        auction = aim.auction,
        "killed the leader of the hottest auction"
    );
    tokio::time::sleep(DOWN).await;
    cluster.restart(aim.place).await?;
    tracing::info!(
        node = report.killed_node,
        after_ms = killed.elapsed().as_millis() as u64,
        "started it again"
    );
    // Still growing, well after the kill: not only what was on its way when the node died.
    frames
        .at_least(frames.count() + FRAMES_FIRST, FRAMES_WAIT)
        .await
        .context("waiting for video after the kill")?;
    let first = tokio::time::timeout(FRAMES_WAIT, again)
        .await
        .context("the second viewer, whose node was killed, got no picture again")??;
    report.second_again_ms = first.map(|at| at.saturating_duration_since(killed).as_millis() as u64);
    aim.second
        .at_least(aim.second.count() + FRAMES_FIRST, FRAMES_WAIT)
        .await
        .context("waiting for the second viewer's video after the kill")?;
    Ok(killed)
}

fn definition(id: &str, duration_ms: u64) -> NewAuction {
    NewAuction {
        id: Some(id.to_string()),
        title: "연기 시험 · Smoke".into(),
        description: None,
        currency: "KRW".into(),
        start_price: 100_000,
        increments: Some(vec![[0, 500]]),
        reserve: None,
        duration_ms,
        rush: Some(Rush {
            cut_ppm_max: 20_000,
            cut_per_raise_ppm: 100_000,
            floor_ms: 8_000,
        }),
        soft_close: None,
        guests: Some(true),
        pause_without_stream: None,
    }
}

/// An id for the hottest auction whose shard is led in Seoul, and the place of Seoul's other node.
async fn choose(door: &Door, dice: &mut Dice) -> Result<(String, usize)> {
    for _ in 0..200 {
        let id = dice.id("hot-");
        match leader_of(door, &id).await? {
            Some(leader) if leader != VIEWER => return Ok((id, 1 - leader)),
            _ => {}
        }
    }
    bail!("no shard is led in the first region")
}

/// Contenders and watchers for all auctions.
async fn crowd(door: &Door, ids: &[String], dice: &mut Dice) -> Result<Running> {
    let mut running = Running {
        stop: CancellationToken::new(),
        books: Vec::new(),
        watchers: Vec::new(),
        heated: BTreeSet::new(),
    };
    for (a, id) in ids.iter().enumerate() {
        if a == 0 {
            running.heat(door, id, dice).await?;
        } else {
            running.contend(door, id, (CONTENDERS, a), (300, 900), dice).await?;
        }
        for place in [a % NODES.len(), VIEWER] {
            let (socket, notices) = door.connect(None, place, dice.roll());
            let watcher = Watcher::new(socket, notices, id.clone());
            let watcher = tokio::spawn(watcher.run(running.stop.clone()));
            running.watchers.push((id.clone(), watcher));
        }
    }
    Ok(running)
}

impl Running {
    /// Makes an auction the hottest of all, once.
    pub(super) async fn heat(&mut self, door: &Door, auction: &str, dice: &mut Dice) -> Result<()> {
        if self.heated.insert(auction.to_string()) {
            self.contend(door, auction, (HOT_CONTENDERS, 0), (40, 250), dice)
                .await?;
        }
        Ok(())
    }

    /// Adds contenders, at one node after another from `first`.
    async fn contend(
        &mut self,
        door: &Door,
        auction: &str,
        (contenders, first): (usize, usize),
        think_ms: (u64, u64),
        dice: &mut Dice,
    ) -> Result<()> {
        for i in 0..contenders {
            let guest = door.guest("Bot", first + i, dice.roll()).await?;
            let contender = Contender {
                guest,
                auction: auction.to_string(),
                seed: dice.roll(),
                think_ms,
            };
            self.books.push(tokio::spawn(contender.run(self.stop.clone())));
        }
        Ok(())
    }
}

/// Waits until every watcher has seen its auction close, then for the contenders' books.
async fn finish(running: Running, patience: Duration) -> Result<(Vec<Books>, Vec<(String, WatcherReport)>)> {
    let until = tokio::time::Instant::now() + patience;
    let mut watched = Vec::new();
    for (id, watcher) in running.watchers {
        let seen = tokio::time::timeout_at(until, watcher).await;
        watched.push((
            id.clone(),
            seen.with_context(|| format!("{id} did not close in time"))??,
        ));
    }
    running.stop.cancel();
    let mut books = Vec::new();
    for book in running.books {
        books.push(
            tokio::time::timeout_at(until, book)
                .await
                .context("a contender did not end")??,
        );
    }
    Ok((books, watched))
}

/// What can be read off the books: counts, failover, lateness, the clock.
fn measure(report: &mut Report, books: &[Books], watched: &[(String, WatcherReport)], hot: &str, killed: Instant) {
    for book in books {
        report.accepted += book.accepted.len() as u64;
        report.refused += book.refused.values().sum::<u64>();
        report.unknown += book.open.len() as u64;
    }
    let late = watched
        .iter()
        .map(|(_, w)| w.close_late.map(|d| d.as_millis() as u64))
        .collect::<Option<Vec<_>>>();
    report.close_late_ms_max = late.and_then(|all| all.into_iter().max());

    let hot_bids: Vec<_> = books
        .iter()
        .flat_map(|b| &b.accepted)
        .filter(|a| a.auction == hot)
        .collect();
    let first = hot_bids.iter().filter(|a| a.sent > killed).map(|a| a.got).min();
    let outage = first.map(|first| first - killed);
    report.failover_ms = outage.map(|o| o.as_millis() as u64);
    let ms = |t: Instant| {
        if t >= killed {
            (t - killed).as_secs_f64() * 1e3
        } else {
            -(killed - t).as_secs_f64() * 1e3
        }
    };
    let all = hot_bids.iter().map(|a| Witness {
        sent: ms(a.sent),
        got: ms(a.got),
        ct: a.verdict.ct as f64,
    });
    let all: Vec<Witness> = all.collect();
    if let Some(outage) = outage.map(|o| o.as_secs_f64() * 1e3) {
        let before: Vec<_> = all
            .iter()
            .copied()
            .filter(|w| w.got <= 0.0 && w.sent > -WITNESS)
            .collect();
        let after: Vec<_> = all
            .iter()
            .copied()
            .filter(|w| w.sent > 0.0 && w.got < outage + WITNESS)
            .collect();
        report.clock_step_ms = clock_step(&before, &after, outage);
    }
}
