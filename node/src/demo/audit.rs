//! After the run: what the replicas' logs say, held against what bidders were told and viewers saw.

use super::contender::{Accepted, Books};
use super::crowd::Door;
use super::report::Report;
use crate::verify::{self, Export};
use anyhow::{Context as _, Result};
use auction::verify::Line;
use client::bots::WatcherReport;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A replica that was down catches up within this.
const CATCH_UP: Duration = Duration::from_secs(15);
/// Between two looks at a replica that lags.
const LOOK: Duration = Duration::from_millis(100);

/// Checks every auction on every replica; broken promises go into the report, with a line each in the log.
pub(super) async fn check(
    report: &mut Report,
    door: &Door,
    ids: &[String],
    books: &[Books],
    watched: &[(String, WatcherReport)],
) -> Result<()> {
    (report.winners_ok, report.hash_chain_ok) = (true, true);
    let mut lost = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for id in ids {
        let mut hashes = BTreeSet::new();
        for place in 0..door.urls().len() {
            let export = closed_export(door, id, place).await?;
            match verify::verify(&export) {
                Ok(summary) => {
                    hashes.insert(summary.hash);
                }
                Err(error) => complain(&mut report.hash_chain_ok, id, place, &format!("{error:#}")),
            }
            let accepted = books.iter().flat_map(|b| &b.accepted).filter(|a| a.auction == *id);
            lost.extend(
                accepted
                    .filter(|a| !holds(&export.events, a))
                    .map(|a| (a.user.clone(), a.id.clone())),
            );
            twice.extend(
                repeated(&export.events)
                    .into_iter()
                    .map(|(user, bid)| (id.clone(), user, bid)),
            );
            if let Err(why) = winner(&export.events) {
                complain(&mut report.winners_ok, id, place, &why);
            }
            let shown = watched
                .iter()
                .filter(|(a, _)| a == id)
                .all(|(_, w)| as_shown(&export.events, w));
            if !shown {
                complain(&mut report.winners_ok, id, place, "a viewer was shown another end");
            }
        }
        if hashes.len() > 1 {
            complain(&mut report.hash_chain_ok, id, 0, "replicas differ");
        }
    }
    for (user, bid) in lost.iter().take(10) {
        tracing::error!(user, bid, "an acknowledged bid is not in a replica's log");
    }
    (report.acked_lost, report.duplicates) = (lost.len() as u64, twice.len() as u64);
    Ok(())
}

fn complain(holds: &mut bool, auction: &str, place: usize, why: &str) {
    *holds = false;
    tracing::error!(auction, place, why, "a promise is broken");
}

/// A replica's export, once its auction has closed there too.
async fn closed_export(door: &Door, id: &str, place: usize) -> Result<Export> {
    let until = tokio::time::Instant::now() + CATCH_UP;
    let api = door.api().pinned(place);
    loop {
        let export = match api.export(id, true).await {
            Ok(text) => Some(verify::read(&text).with_context(|| format!("the export of {id} at node {}", place + 1))?),
            Err(_) => None,
        };
        let late = tokio::time::Instant::now() >= until;
        match export {
            Some(export) if late || export.events.last().is_some_and(|e| e.ty == "close") => return Ok(export),
            None if late => anyhow::bail!("node {} gives no export of {id}", place + 1),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The log holds the bid as it was acknowledged.
fn holds(events: &[Line], bid: &Accepted) -> bool {
    let at = usize::try_from(bid.verdict.seq)
        .ok()
        .and_then(|seq| events.get(seq.checked_sub(1)?));
    at.is_some_and(|event| {
        event.seq == bid.verdict.seq
            && event.actor.as_deref() == Some(&bid.user)
            && event.id.as_deref() == Some(&bid.id)
            && event.amount == Some(bid.amount)
            && hex::encode(event.h) == bid.verdict.h
    })
}

/// Bids that are in the log more than once.
fn repeated(events: &[Line]) -> Vec<(String, String)> {
    let mut seen = BTreeMap::new();
    for event in events.iter().filter(|e| e.ty == "bid") {
        if let (Some(actor), Some(id)) = (&event.actor, &event.id) {
            *seen.entry((actor.clone(), id.clone())).or_insert(0) += 1;
        }
    }
    seen.into_iter()
        .filter(|(_, times)| *times > 1)
        .map(|(key, _)| key)
        .collect()
}

/// One close, at the end, to the last bidder.
fn winner(events: &[Line]) -> Result<(), String> {
    let closes = events.iter().filter(|e| e.ty == "close").count();
    let Some(close) = events.last().filter(|e| e.ty == "close" && closes == 1) else {
        return Err(format!("{closes} closes, or something after one"));
    };
    let last = events.iter().rev().find(|e| e.ty == "bid");
    let sold = close.outcome.as_deref() == Some("sold");
    let right = last.map_or(!sold && close.leader.is_none(), |bid| sold && close.leader == bid.actor);
    if right {
        Ok(())
    } else {
        Err(format!(
            "closed to {:?} after a bid by {:?}",
            close.leader,
            last.map(|b| &b.actor)
        ))
    }
}

/// A viewer saw the same close, by the same hash, and no event twice or missing.
fn as_shown(events: &[Line], watched: &WatcherReport) -> bool {
    let close = events.last();
    let same = watched
        .close
        .as_ref()
        .zip(close)
        .is_some_and(|((seen, _), close)| seen.h == hex::encode(close.h));
    same && watched.gaps == 0 && watched.repeats == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(events: &[(&str, Option<&str>, Option<&str>)]) -> Vec<Line> {
        let events = events.iter().enumerate().map(|(i, (ty, actor, id))| Line {
            seq: i as u64 + 1,
            ty: (*ty).into(),
            actor: actor.map(Into::into),
            id: id.map(Into::into),
            leader: actor.map(Into::into),
            outcome: (*ty == "close").then(|| {
                if actor.is_some() {
                    "sold".into()
                } else {
                    "unsold".into()
                }
            }),
            ..Line::default()
        });
        events.collect()
    }

    #[test]
    fn the_last_bidder_wins_once() {
        let (kim, lee) = (Some("kim"), Some("lee"));
        let table = [
            (
                export(&[("open", None, None), ("bid", kim, kim), ("close", kim, None)]),
                true,
            ),
            (export(&[("open", None, None), ("close", None, None)]), true),
            (
                export(&[("open", None, None), ("bid", kim, kim), ("close", lee, None)]),
                false,
            ),
            (
                export(&[("open", None, None), ("bid", kim, kim), ("close", None, None)]),
                false,
            ),
            (export(&[("close", None, None), ("close", None, None)]), false),
            (export(&[("open", None, None)]), false),
        ];
        for (i, (export, right)) in table.iter().enumerate() {
            assert_eq!(winner(export).is_ok(), *right, "row {i}");
        }
    }

    #[test]
    fn a_bid_in_the_log_twice_is_found() {
        let (kim, a, b) = (Some("kim"), Some("a"), Some("b"));
        assert_eq!(
            repeated(&export(&[("bid", kim, a), ("bid", kim, b), ("bid", kim, a)])),
            [("kim".into(), "a".into())]
        );
        assert!(repeated(&export(&[("bid", kim, a), ("bid", Some("lee"), a)])).is_empty());
    }
}
