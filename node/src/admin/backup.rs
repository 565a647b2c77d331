//! `rushroom admin backup`: images of shards from the nodes that lead them to an object store, and what lies there.
//!
//! The store's keys stay with whoever calls; nodes know nothing of it. Each image is proven by the node that gives it, and
//! again here before anything is put: the network in between is trusted with nothing.

use super::args::{Backup, BackupCommand};
use super::client::{Client, NotReached};
use super::{json, wall_ms};
use crate::backup::{Listed, Manifest, Store};
use crate::cli::{complain, say};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use placement::ShardId;
use proto::cluster::v1 as pb;
use serde_json::{Value, json as told};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// A shard whose leader changes is asked for again so many times.
const TRIES: usize = 5;
const AGAIN: Duration = Duration::from_millis(300);

/// Takes backups of the shards that are wanted. Exit code 1 if one of them failed; the others are there all the same.
pub(super) async fn take(client: &Client, what: &Backup, as_json: bool) -> Result<ExitCode> {
    let url = what.to.as_deref().unwrap_or_default();
    let store = if what.dry_run {
        Store::could_open(url)?;
        None
    } else {
        Some(Store::open(url)?)
    };
    let map = client.overview().await?.map;
    let wanted: Vec<ShardId> = if what.all {
        map.placement.keys().copied().collect()
    } else {
        what.shard.iter().copied().map(ShardId).collect()
    };
    let mut done = Vec::new();
    let mut failed = 0;
    for (n, shard) in wanted.iter().enumerate() {
        let kept = match &store {
            Some(store) => one(client, store, *shard).await,
            None => match shown(client, *shard, as_json).await {
                Ok(head) => {
                    done.push(json::image(&head));
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        match kept {
            Ok((name, manifest)) => {
                if !as_json {
                    let (at, of) = (n + 1, wanted.len());
                    say(&format!("[{at}/{of}] {}\n", line(&name, &manifest)))?;
                }
                done.push(row(&name, Some(&manifest)));
            }
            Err(error) => {
                failed += 1;
                complain(&format!("shard {}: {error:#}", shard.0));
            }
        }
    }
    if as_json {
        let key = if what.dry_run { "would_be" } else { "backups" };
        say(&format!("{:#}\n", told!({key: done, "failed": failed})))?;
    } else if what.dry_run {
        complain("nothing was put");
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What would be put: the leader makes and proves the image, and keeps it to itself.
async fn shown(client: &Client, shard: ShardId, as_json: bool) -> Result<pb::ImageHead> {
    let (head, _) = tried(client, shard, true).await?;
    if !as_json {
        let (index, auctions, events, bytes) = (head.index, head.auctions, head.events, head.size);
        say(&format!(
            "shard {} would be kept: index {index}, {auctions} auctions, {events} events, {bytes} bytes\n",
            shard.0
        ))?;
    }
    Ok(head)
}

async fn one(client: &Client, store: &Store, shard: ShardId) -> Result<(String, Manifest)> {
    let (head, body) = tried(client, shard, false).await?;
    let body = Bytes::from(body);
    let proven = raft_store::prove(body.clone()).context("the image that came is not sound")?;
    anyhow::ensure!(
        proven.digest[..] == head.digest[..] && proven.index == head.index,
        "the image that came is not the one that was sent"
    );
    Ok(store.put(shard.0, head.shards, &proven, &body, wall_ms()).await?)
}

async fn tried(client: &Client, shard: ShardId, dry_run: bool) -> Result<(pb::ImageHead, Vec<u8>)> {
    let mut last = None;
    for _ in 0..TRIES {
        match image(client, shard, dry_run).await {
            Ok(image) => return Ok(image),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(AGAIN).await;
    }
    Err(last.map_or_else(|| anyhow::anyhow!("no answer"), anyhow::Error::from))
}

async fn image(client: &Client, shard: ShardId, dry_run: bool) -> Result<(pb::ImageHead, Vec<u8>), NotReached> {
    let overview = client.overview().await?;
    let leader = overview
        .leaders
        .get(&shard)
        .and_then(|node| overview.map.nodes.get(node));
    let leader = leader.ok_or_else(|| NotReached::Silent {
        node: format!("the leader of shard {}", shard.0),
        why: "nobody leads it".into(),
    })?;
    client.elsewhere(&leader.grpc).await?.image(shard.0, dry_run).await
}

/// `list` and `verify`: the store alone.
pub(super) async fn look(what: &BackupCommand, as_json: bool) -> Result<ExitCode> {
    match what {
        BackupCommand::List(at) => {
            let listed = Store::open(&at.url)?.list(at.shard).await?;
            if as_json {
                let rows: Vec<Value> = listed.iter().map(|l| row(&l.name, l.manifest.as_ref())).collect();
                return say(&format!("{:#}\n", told!({ "backups": rows })));
            }
            say(&table(&listed))
        }
        BackupCommand::Verify(at) => verify(&Store::open(&at.url)?, at.shard, as_json).await,
    }
}

async fn verify(store: &Store, shard: Option<u32>, as_json: bool) -> Result<ExitCode> {
    let listed = store.list(shard).await?;
    let (mut sound, mut rows) = (0, Vec::new());
    let whole: Vec<&Listed> = listed.iter().filter(|l| l.manifest.is_some()).collect();
    for listed in &whole {
        let read = store.read(&listed.name).await;
        let told = read.as_ref().err().map(ToString::to_string);
        match &read {
            Ok((manifest, proven, _)) => {
                sound += 1;
                if !as_json {
                    let (auctions, events) = (proven.auctions, proven.events);
                    say(&format!(
                        "sound    {}  {auctions} auctions, {events} events recomputed\n",
                        line(&listed.name, manifest)
                    ))?;
                }
            }
            Err(error) if !as_json => {
                say(&format!("DAMAGED  {}  {error}\n", listed.name))?;
            }
            Err(_) => {}
        }
        rows.push(told!({"name": listed.name, "sound": told.is_none(), "why": told}));
    }
    let unfinished = listed.len() - whole.len();
    if as_json {
        say(&format!("{:#}\n", told!({"verified": rows, "unfinished": unfinished})))?;
    } else {
        say(&format!(
            "{sound} of {} sound; {unfinished} were not finished\n",
            whole.len()
        ))?;
    }
    // An empty place proves nothing.
    Ok(if sound == whole.len() && sound > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn line(name: &str, m: &Manifest) -> String {
    format!("{name}  shard {}, index {}, {} bytes", m.shard, m.index, m.bytes)
}

fn row(name: &str, manifest: Option<&Manifest>) -> Value {
    match manifest {
        None => told!({"name": name, "finished": false}),
        Some(m) => told!({
            "name": name, "finished": true, "shard": m.shard, "index": m.index, "bytes": m.bytes, "auctions": m.auctions,
            "events": m.events, "digest": m.digest, "taken_ms": m.taken_ms,
        }),
    }
}

fn table(listed: &[Listed]) -> String {
    let mut out = String::from("SHARD        INDEX  AUCTIONS    EVENTS         BYTES  NAME\n");
    for l in listed {
        let _ = match &l.manifest {
            Some(m) => writeln!(
                out,
                "{:>5}  {:>11}  {:>8}  {:>8}  {:>12}  {}",
                m.shard, m.index, m.auctions, m.events, m.bytes, l.name
            ),
            None => writeln!(out, "    -  not finished: no manifest                     {}", l.name),
        };
    }
    out
}
