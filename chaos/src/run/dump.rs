//! The final dump: every replica's log of every auction, asked of that replica's own node and of nobody else.

use super::{Recorder, people::House};
use crate::history::{Log, Record};
use anyhow::{Context as _, Result};
use client::{Api, wire::Event};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// How long replicas may take to catch up after the last close.
const EQUAL_MAX: Duration = Duration::from_secs(15);

/// The last line of a local export.
#[derive(Deserialize)]
struct Tail {
    node: u64,
    shard: u32,
    term: Option<u64>,
}

/// Writes all logs; true: all replicas came to have the same number of events.
pub(crate) async fn all(house: &House, api: &Api, recorder: &Recorder) -> Result<bool> {
    let mut equal = true;
    for a in house.ids() {
        let until = Instant::now() + EQUAL_MAX;
        let logs = loop {
            let mut logs = Vec::new();
            for node in 0..api.nodes().len() {
                logs.push(replica(api, node, &a).await);
            }
            let lengths: Vec<_> = logs.iter().map(|log| log.as_ref().map_or(0, Vec::len)).collect();
            let same = lengths.iter().all(|n| *n > 0 && *n == lengths[0]);
            if same || Instant::now() > until {
                equal &= same;
                break logs;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        for log in logs {
            match log {
                Ok(log) => log.into_iter().for_each(|log| recorder.write(&Record::Log(log))),
                Err(error) => tracing::warn!(auction = a, %error, "a replica's log is missing"),
            }
        }
    }
    Ok(equal)
}

async fn replica(api: &Api, node: usize, a: &str) -> Result<Vec<Log>> {
    let text = api.pinned(node).export(a, true).await?;
    let mut lines: Vec<&str> = text.lines().skip(1).collect();
    let tail: Tail = serde_json::from_str(lines.pop().context("an empty export")?)?;
    let events = lines.into_iter().map(serde_json::from_str::<Event>);
    events
        .map(|event| {
            Ok(Log {
                a: a.into(),
                node: tail.node,
                shard: tail.shard,
                term: tail.term,
                ..log(&event?)
            })
        })
        .collect()
}

/// An event of the API in the words of the history: who bid what, who won at what, and the cells that its hash is of.
pub(crate) fn log(event: &Event) -> Log {
    let sold = event.outcome.as_deref() == Some("sold");
    let (bidder, amt) = match event.ty.as_str() {
        "open" => (event.seller.clone(), None),
        "bid" => (event.actor.clone(), event.amount),
        "close" if sold => (event.leader.clone(), Some(event.price)),
        "close" => (None, Some(0)),
        _ => (None, None),
    };
    Log {
        seq: event.seq,
        ty: event.ty.clone(),
        idem: event.digest.clone().or_else(|| event.id.clone()).unwrap_or_default(),
        bidder: bidder.unwrap_or_default(),
        amt,
        ct: event.ct,
        dl: event.ends_at,
        dms: event.dms,
        h: event.h.clone(),
        ..Log::default()
    }
}
