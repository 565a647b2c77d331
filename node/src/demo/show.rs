//! The seeded show: a few stages, each with its own kind of terms, where auctions follow one another; bots that bid and
//! chat; a seller whose video is live on the first stage.
//!
//! All of it goes over the public protocol, as people would: nothing here knows more than a browser does.

use super::crowd::Door;
use super::video::Seller;
use crate::admin::wall_ms;
use anyhow::{Context as _, Result};
use client::bots::{Bidder, BidderOptions, Chatter, ChatterOptions, Watcher};
use client::wire::{NewAuction, Rush, SoftClose};
use client::{Dice, Role};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between an auction's end and the next one of its stage.
const INTERVAL: Duration = Duration::from_secs(8);
/// After a failed round (nodes may be down just now).
const AGAIN: Duration = Duration::from_secs(2);

/// What a stage sells, and how.
struct Stage {
    slug: &'static str,
    titles: &'static [&'static str],
    start_price: u64,
    step: u64,
    duration_ms: u64,
    rush: Option<(u64, u64, u64)>,
    soft_close: Option<(u64, u64, u32)>,
    bidders: u64,
    video: bool,
    /// Starts by its schedule instead of at once.
    scheduled_ms: u64,
}

const STAGES: &[Stage] = &[
    Stage {
        slug: "rush",
        titles: &[
            "달항아리 · Moon jar, white porcelain",
            "청자 매병 · Celadon vase",
            "나전칠기함 · Mother-of-pearl box",
        ],
        start_price: 100_000,
        step: 5_000,
        duration_ms: 240_000,
        rush: Some((300_000, 1_500_000, 15_000)),
        soft_close: None,
        bidders: 5,
        video: true,
        scheduled_ms: 0,
    },
    Stage {
        slug: "soft",
        titles: &[
            "필름 카메라 · Film camera, 1974",
            "턴테이블 · Turntable, belt drive",
            "만년필 · Fountain pen, gold nib",
        ],
        start_price: 50_000,
        step: 1_000,
        duration_ms: 150_000,
        rush: None,
        soft_close: Some((15_000, 20_000, 5)),
        bidders: 4,
        video: false,
        scheduled_ms: 0,
    },
    Stage {
        slug: "fixed",
        titles: &[
            "한정판 운동화 · Sneakers, limited",
            "수제 도마 · Walnut board, handmade",
            "산양삼 세트 · Wild ginseng set",
        ],
        start_price: 30_000,
        step: 1_000,
        duration_ms: 120_000,
        rush: None,
        soft_close: None,
        bidders: 3,
        video: false,
        scheduled_ms: 45_000,
    },
];

/// Names of the crowd.
const NAMES: &[&str] = &[
    "Minji", "Jun", "Sora", "Haru", "Yuna", "Ken", "Mina", "Taeo", "Rin", "Dana", "Jiho", "Aoi",
];

/// Runs all stages until `stop`.
pub(super) async fn run(door: Door, seed: u64, bots: bool, stop: CancellationToken) {
    let stages = STAGES.iter().enumerate().map(|(i, stage)| {
        let (door, stop) = (door.clone(), stop.clone());
        async move {
            let dice = Dice::new(seed).fork(i as u64);
            for n in 0_u64.. {
                let round = round(&door, stage, n, dice.fork(n), bots, &stop);
                let pause = match round.await {
                    Ok(()) => INTERVAL,
                    Err(error) => {
                        tracing::warn!(stage = stage.slug, error = %format!("{error:#}"), "a round of the show failed");
                        AGAIN
                    }
                };
                tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => {} }
            }
        }
    });
    futures_util::future::join_all(stages).await;
}

fn definition(stage: &Stage, n: u64, id: &str) -> NewAuction {
    let title = stage.titles[(n as usize) % stage.titles.len()];
    NewAuction {
        id: Some(id.to_string()),
        title: title.to_string(),
        description: Some("데모 상품입니다. A demo item: nothing is really sold.".into()),
        currency: "KRW".into(),
        start_price: stage.start_price,
        increments: Some(vec![[0, stage.step], [stage.start_price * 5, stage.step * 5]]),
        reserve: None,
        duration_ms: stage.duration_ms,
        rush: stage.rush.map(|(cut_ppm_max, cut_per_raise_ppm, floor_ms)| Rush {
            cut_ppm_max,
            cut_per_raise_ppm,
            floor_ms,
        }),
        soft_close: stage
            .soft_close
            .map(|(window_ms, reset_to_ms, extensions_max)| SoftClose {
                window_ms,
                reset_to_ms,
                extensions_max,
            }),
        guests: Some(true),
        pause_without_stream: None,
    }
}

/// One auction from its creation to its close.
async fn round(door: &Door, stage: &Stage, n: u64, mut dice: Dice, bots: bool, stop: &CancellationToken) -> Result<()> {
    let seller = door.sign_in("Seller", Role::Seller).await?;
    let api = door.api().with_token(&seller.token);
    // The wall time keeps ids fresh when the demo runs again in the same folder.
    let id = format!("{}-{n}-{}", stage.slug, wall_ms() / 1000);
    api.create(&definition(stage, n, &id))
        .await
        .context("creating an auction")?;
    let video = if stage.video {
        Some(Seller::publish(door, 0, &id, &seller.token)?)
    } else {
        None
    };
    if stage.scheduled_ms > 0 {
        api.schedule(&id, wall_ms() + stage.scheduled_ms)
            .await
            .context("scheduling an auction")?;
    } else {
        api.start(&id).await.context("starting an auction")?;
    }
    // Bots leave with their round.
    let over = stop.child_token();
    let guard = over.clone().drop_guard();
    if bots {
        spawn_bots(door, stage, &id, &mut dice, &over).await?;
    }
    let (socket, notices) = door.connect(None, 0, dice.roll());
    let watched = Watcher::new(socket, notices, id.clone()).run(over.clone()).await;
    tracing::info!(auction = id, events = watched.events, "a round of the show is over");
    drop(guard);
    if let Some(video) = video {
        video.stop().await;
    }
    Ok(())
}

async fn spawn_bots(door: &Door, stage: &Stage, id: &str, dice: &mut Dice, over: &CancellationToken) -> Result<()> {
    for i in 0..stage.bidders {
        let name = dice.pick(NAMES).copied().unwrap_or("Mina");
        let guest = door.guest(name, i as usize, dice.roll()).await?;
        let options = BidderOptions {
            auction: id.to_string(),
            user: guest.session.user.id.clone(),
            seed: dice.roll(),
            think_min: Duration::from_millis(1_500),
            think_max: Duration::from_millis(9_000),
            eager: 2,
            budget: stage.start_price * dice.between(3, 12),
            bids_max: 200,
        };
        tokio::spawn(Bidder::new(guest.socket, guest.notices, options).run(over.clone()));
    }
    for i in 0..2_usize {
        let name = dice.pick(NAMES).copied().unwrap_or("Haru");
        let guest = door.guest(name, i + 1, dice.roll()).await?;
        let options = ChatterOptions {
            auction: id.to_string(),
            seed: dice.roll(),
            pause_min: Duration::from_secs(3),
            pause_max: Duration::from_secs(14),
            phrases: Vec::new(),
            lines_max: 100,
        };
        tokio::spawn(Chatter::new(guest.socket, guest.notices, options).run(over.clone()));
    }
    Ok(())
}
