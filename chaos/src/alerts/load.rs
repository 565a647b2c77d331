//! Bids and closes in the background of a scene: what makes logs grow, replicas lag and latencies show.
//!
//! Deliberately absent: judging. Bids may fail here; that is often the point.

use anyhow::Result;
use client::{Api, Role, wire::NewAuction};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Ends when it is dropped.
pub(super) struct Load(#[allow(dead_code)] JoinSet<()>);

fn auction(id: &str, duration_ms: u64) -> NewAuction {
    NewAuction {
        id: Some(id.into()),
        title: "Load".into(),
        currency: "KRW".into(),
        start_price: 100,
        increments: Some(vec![[0, 1]]),
        duration_ms,
        guests: Some(true),
        ..NewAuction::default()
    }
}

/// Bidders on an auction of each shard or so, by whichever node answers.
pub(super) async fn bids(api: &Api, name: &str, bidders: usize) -> Result<Load> {
    let seller = api.guest("load", Role::Seller).await?;
    let selling = api.with_token(&seller.token);
    let mut tasks = JoinSet::new();
    for n in 0..bidders {
        let id: Arc<str> = format!("{name}-{}", n % 8).into();
        if n < 8 {
            selling.create(&auction(&id, 3_600_000)).await?;
            selling.start(&id).await?;
        }
        let session = api.guest(&format!("b{n}"), Role::Bidder).await?;
        let (api, name) = (api.with_token(&session.token), name.to_owned());
        tasks.spawn(async move {
            let mut amount = 100;
            for k in 0_u64.. {
                match api.bid(&id, amount, &format!("{name}-{n}-{k}")).await {
                    Ok(verdict) => amount = amount.max(verdict.price) + 1,
                    // Low, busy, or nobody there: by then others have bid.
                    Err(_) => amount += 10,
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    Ok(Load(tasks))
}

/// Drafts with long descriptions, by `sellers` at once: bytes for the log, whatever pace bidders are held to.
pub(super) async fn drafts(api: &Api, name: &str, sellers: usize) -> Result<Load> {
    let mut tasks = JoinSet::new();
    for n in 0..sellers {
        let session = api.guest(&format!("d{n}"), Role::Seller).await?;
        let (api, name) = (api.with_token(&session.token), name.to_owned());
        tasks.spawn(async move {
            for k in 0_u64.. {
                let draft = NewAuction {
                    description: Some("a very long story ".repeat(200)),
                    ..auction(&format!("{name}-draft-{n}-{k}"), 3_600_000)
                };
                // Refused by a node that is short of room, until another one leads there.
                let _ = api.create(&draft).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    Ok(Load(tasks))
}

/// Auctions of one second each, one after the other, by `sellers` at once.
pub(super) async fn closes(api: &Api, name: &str, sellers: usize) -> Result<Load> {
    let mut tasks = JoinSet::new();
    for n in 0..sellers {
        let session = api.guest(&format!("s{n}"), Role::Seller).await?;
        let (api, name) = (api.with_token(&session.token), name.to_owned());
        tasks.spawn(async move {
            for k in 0_u64.. {
                let id = format!("{name}-{n}-{k}");
                if api.create(&auction(&id, 1_000)).await.is_ok() {
                    let _ = api.start(&id).await;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
    }
    Ok(Load(tasks))
}

/// An auction that is over, with a bid: its id.
pub(super) async fn over(api: &Api, id: &str) -> Result<String> {
    let seller = api.guest("over", Role::Seller).await?;
    let selling = api.with_token(&seller.token);
    selling.create(&auction(id, 3_600_000)).await?;
    selling.start(id).await?;
    let bidder = api.guest("over", Role::Bidder).await?;
    api.with_token(&bidder.token).bid(id, 100, "only").await?;
    selling.cancel(id, "enough").await?;
    Ok(id.to_owned())
}
