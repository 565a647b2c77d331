//! `demo --script smoke`: the whole way once, without a browser, in about a minute.
//!
//! ```text
//!   0 s   six auctions; the seller publishes to node P (Seoul), a viewer watches at node V (Tokyo)
//!         contenders bid over WebSocket at all three nodes
//!  12 s   kill -9 of node L, which leads the hottest auction; L is neither P nor V
//!  18 s   L is started again
//!  ...    all auctions close by themselves
//!  end    every replica's export is verified and held against every acknowledged bid
//! ```
//!
//! The seller publishes to a node that survives: the hottest auction's id is chosen so that another node leads it. If
//! leadership moved meanwhile to P, the seller's client publishes again by itself, to a node that lives; if it moved to V,
//! the run says so.

use super::audit;
use super::cluster::{Cluster, NODES, SHARDS};
use super::contender::{Books, Contender};
use super::crowd::Door;
use super::report::{Report, Witness, clock_step};
use super::show::wall_ms;
use super::video::{Frames, Seller};
use anyhow::{Context as _, Result, bail};
use client::bots::{Watcher, WatcherReport};
use client::wire::{NewAuction, Rush};
use client::{Dice, Role};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The place of the node at which the viewer watches: the only one of its region.
const VIEWER: usize = 2;
/// Bidding before the kill.
const BEFORE_KILL: Duration = Duration::from_secs(12);
/// The victim stays down so long.
const DOWN: Duration = Duration::from_secs(6);
/// Pictures that must have come before bidding starts, and again once the victim is back; and the wait for them.
const FRAMES_FIRST: u64 = 30;
const FRAMES_WAIT: Duration = Duration::from_secs(20);
/// Witnesses of the clock are taken from so long before and after the outage.
const WITNESS: f64 = 1_500.0;
/// Contenders of the hottest auction, and of each other one.
const HOT_CONTENDERS: usize = 10;
const CONTENDERS: usize = 2;
/// Auctions beside the hottest.
const OTHERS: usize = 5;

/// What is under way while the script runs.
struct Running {
    stop: CancellationToken,
    books: Vec<JoinHandle<Books>>,
    watchers: Vec<(String, JoinHandle<WatcherReport>)>,
}

/// Runs the script; the report says what it found.
pub(super) async fn run(cluster: &mut Cluster, door: &Door, seed: u64, seconds: u64) -> Result<Report> {
    let mut dice = Dice::new(seed);
    let seller = door.sign_in("Smoke", Role::Seller).await?;
    let api = door.api().with_token(&seller.token);
    let (hot, publish_at) = choose(door, &mut dice).await?;
    let mut ids = vec![hot.clone()];
    ids.extend((0..OTHERS).map(|_| dice.id("smoke-")));
    let live_ms = seconds.clamp(40, 600) * 1000 * 6 / 10;
    for (i, id) in ids.iter().enumerate() {
        // The others close one after another, the first while the victim is down.
        let duration = if i == 0 { live_ms } else { live_ms * (i as u64 + 3) / 10 };
        api.create(&definition(id, duration))
            .await
            .with_context(|| format!("creating {id}"))?;
    }
    // A draft can't be watched: the hottest is scheduled while its video comes up, and started with the others.
    api.schedule(&hot, wall_ms() + 600_000)
        .await
        .context("scheduling the hottest auction")?;
    let video = Seller::publish(door, publish_at, &hot, &seller.token)?;
    let viewer = door.sign_in("Viewer", Role::Bidder).await?;
    let frames = Frames::watch(door, VIEWER, &hot, &viewer.token)?;
    frames
        .at_least(FRAMES_FIRST, FRAMES_WAIT)
        .await
        .context("waiting for video in the other region")?;
    for id in &ids {
        api.start(id).await.with_context(|| format!("starting {id}"))?;
    }
    let running = crowd(door, &ids, &mut dice).await?;

    tokio::time::sleep(BEFORE_KILL).await;
    let victim = leader_of(door, &hot, VIEWER)
        .await?
        .context("nobody leads the hottest auction")?;
    if victim == VIEWER {
        bail!("leadership of the hottest auction moved to the viewer's node before the kill: run again");
    }
    let frames_before = frames.count();
    let killed = Instant::now();
    cluster.kill(victim).await?;
    tracing::info!(node = NODES[victim].0, "killed the leader of the hottest auction");
    tokio::time::sleep(DOWN).await;
    cluster.restart(victim).await?;
    tracing::info!(
        node = NODES[victim].0,
        after_ms = killed.elapsed().as_millis() as u64,
        "started it again"
    );
    // Still growing, well after the kill: not only what was on its way when the node died.
    frames
        .at_least(frames.count() + FRAMES_FIRST, FRAMES_WAIT)
        .await
        .context("waiting for video after the kill")?;

    let patience = Duration::from_secs(seconds + 60);
    let (books, watched) = finish(running, patience).await?;
    let mut report = Report {
        frames_before_kill: frames_before,
        ..Report::default()
    };
    report.frames_after_kill = frames.count().saturating_sub(frames_before);
    video.stop().await;
    measure(&mut report, &books, &watched, &hot, killed);
    audit::check(&mut report, door, &ids, &books, &watched).await?;
    Ok(report)
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
        match leader_of(door, &id, VIEWER).await? {
            Some(leader) if leader != VIEWER => return Ok((id, 1 - leader)),
            _ => {}
        }
    }
    bail!("no shard is led in the first region")
}

/// The place of the node that leads an auction's shard, as the node at `asked` knows.
async fn leader_of(door: &Door, auction: &str, asked: usize) -> Result<Option<usize>> {
    let shard = placement::shard_of(auction, SHARDS).0;
    let cluster = door
        .api()
        .pinned(asked)
        .cluster()
        .await
        .context("asking for the cluster")?;
    let leader = cluster.shards.iter().find(|s| s.id == shard).and_then(|s| s.leader);
    Ok(leader.and_then(|id| NODES.iter().position(|n| n.0 == id)))
}

/// Contenders and watchers for all auctions.
async fn crowd(door: &Door, ids: &[String], dice: &mut Dice) -> Result<Running> {
    let stop = CancellationToken::new();
    let mut running = Running {
        stop: stop.clone(),
        books: Vec::new(),
        watchers: Vec::new(),
    };
    for (a, id) in ids.iter().enumerate() {
        let (contenders, think_ms) = if a == 0 {
            (HOT_CONTENDERS, (40, 250))
        } else {
            (CONTENDERS, (300, 900))
        };
        for i in 0..contenders {
            let guest = door.guest("Bot", a + i, dice.roll()).await?;
            let contender = Contender {
                socket: guest.socket,
                notices: guest.notices,
                user: guest.session.user.id,
                auction: id.clone(),
                seed: dice.roll(),
                think_ms,
            };
            running.books.push(tokio::spawn(contender.run(stop.clone())));
        }
        for place in [a % NODES.len(), VIEWER] {
            let (socket, notices) = door.connect(None, place, dice.roll());
            let watcher = Watcher::new(socket, notices, id.clone());
            running
                .watchers
                .push((id.clone(), tokio::spawn(watcher.run(stop.clone()))));
        }
    }
    Ok(running)
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
        report.unknown += book.unknown;
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
