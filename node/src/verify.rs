//! `rushroom verify FILE`: an exported auction, recomputed with no trust in the server that exported it.
//!
//! The file is what `GET /api/v1/auctions/{id}/export` gives: a head, one event a line, perhaps a line about the replica
//! at the end. Reading is here, judging is `auction::verify`. Also the demo's smoke script judges exports by it.

use anyhow::{Context as _, Result, bail};
use auction::terms::{Rush, SoftClose};
use auction::verify::{Head, Line, Summary};
use auction::{Currency, Terms, TimeRule};
use client::wire::{Auction, Event};
use serde::Deserialize;
use serde_json::Value;

const FORMAT: &str = "rushroom-export/1";

#[derive(Deserialize)]
struct First {
    format: String,
    auction: Auction,
}

/// An export, read.
#[derive(Debug)]
pub(crate) struct Export {
    /// The auction as the server shows it.
    pub(crate) auction: Auction,
    /// Its events.
    pub(crate) events: Vec<Event>,
}

/// Reads an export. Every line must be understood.
pub(crate) fn read(text: &str) -> Result<Export> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, first) = lines.next().context("the file is empty")?;
    let first: First = serde_json::from_str(first).context("line 1 is no export's head")?;
    if first.format != FORMAT {
        bail!("the format is `{}`, not `{FORMAT}`", first.format);
    }
    let mut events = Vec::new();
    for (at, line) in lines {
        let value: Value = serde_json::from_str(line).with_context(|| format!("line {} is no JSON", at + 1))?;
        // The replica's own word about itself, at the end of a local export: nothing to verify.
        if value.get("seq").is_none() && value.get("node").is_some() {
            continue;
        }
        events.push(serde_json::from_value(value).with_context(|| format!("line {} is no event", at + 1))?);
    }
    Ok(Export {
        auction: first.auction,
        events,
    })
}

/// Recomputes it: chain, rules, outcome.
pub(crate) fn verify(export: &Export) -> Result<Summary> {
    let head = Head {
        auction: export.auction.id.clone(),
        terms: terms(&export.auction)?,
    };
    let lines = export.events.iter().map(line).collect::<Result<Vec<_>>>()?;
    let summary = auction::verify::verify(&head, lines)
        .map_err(|broken| anyhow::anyhow!("event {} does not hold: {}", broken.seq, broken.what))?;
    let shown = &export.auction;
    if shown.seq != summary.events {
        bail!(
            "the head speaks of version {}, the events end at {}",
            shown.seq,
            summary.events
        );
    }
    if summary.events > 0 && shown.h != hex::encode(summary.hash) {
        bail!("the head's hash is not that of the last event");
    }
    Ok(summary)
}

/// A summary as a few lines for a person.
pub(crate) fn told(export: &Export, summary: &Summary) -> String {
    let outcome = match (summary.outcome.as_deref(), summary.winner.as_deref()) {
        (None, _) => "not over".to_string(),
        (Some(outcome), None) => outcome.to_string(),
        (Some(outcome), Some(winner)) => format!("{outcome} to {winner}"),
    };
    format!(
        "{}: {} events, {} bids, price {} {}, {outcome}\nhash {}\nevery event is bound to the one before and follows the published rules\n",
        export.auction.id,
        summary.events,
        summary.bids,
        summary.price,
        export.auction.currency,
        hex::encode(summary.hash),
    )
}

fn terms(auction: &Auction) -> Result<Terms> {
    Ok(Terms {
        currency: Currency::parse(&auction.currency).context("the currency")?,
        start_price: auction.start_price,
        increments: auction.increments.iter().map(|row| (row[0], row[1])).collect(),
        reserve: None,
        duration_ms: auction.duration_ms,
        time: TimeRule {
            rush: auction.rush.as_ref().map(|r| Rush {
                cut_ppm_max: r.cut_ppm_max,
                cut_per_raise_ppm: r.cut_per_raise_ppm,
                floor_ms: r.floor_ms,
            }),
            soft_close: auction.soft_close.as_ref().map(|s| SoftClose {
                window_ms: s.window_ms,
                reset_to_ms: s.reset_to_ms,
                extensions_max: s.extensions_max,
            }),
        },
        guests: auction.guests,
        pause_without_stream: auction.pause_without_stream,
    })
}

fn line(event: &Event) -> Result<Line> {
    let mut h = [0; 32];
    hex::decode_to_slice(&event.h, &mut h).with_context(|| format!("the hash of event {}", event.seq))?;
    Ok(Line {
        seq: event.seq,
        ty: event.ty.clone(),
        ct: event.ct,
        ends_at: event.ends_at,
        actor: event.actor.clone(),
        id: event.id.clone(),
        price: event.price,
        leader: event.leader.clone(),
        h,
        amount: event.amount,
        cut_ms: event.cut_ms,
        extended_ms: event.extended_ms,
        left_ms: event.left_ms,
        until: event.until,
        dms: event.dms,
        outcome: event.outcome.clone(),
        node: event.node,
        stream: event.stream.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_export_is_told() {
        let head = r#"{"format":"rushroom-export/1","auction":{"id":"a","currency":"KRW"}}"#;
        let table = [
            ("", "the file is empty"),
            ("{}", "line 1 is no export's head"),
            (
                r#"{"format":"x","auction":{}}"#,
                "the format is `x`, not `rushroom-export/1`",
            ),
            (&format!("{head}\nnot json"), "line 2 is no JSON"),
            (&format!("{head}\n{{\"seq\":\"x\"}}"), "line 2 is no event"),
        ];
        for (text, expect) in table {
            assert_eq!(read(text).unwrap_err().to_string(), expect, "{text}");
        }
        let good = read(&format!("{head}\n{{\"node\":1,\"shard\":2,\"term\":3,\"index\":4}}\n")).unwrap();
        assert_eq!((good.events.len(), verify(&good).unwrap().events), (0, 0));
    }

    #[test]
    fn a_head_that_says_more_than_the_events_is_refused() {
        let text = r#"{"format":"rushroom-export/1","auction":{"id":"a","currency":"KRW","seq":3}}"#;
        assert!(
            verify(&read(text).unwrap())
                .unwrap_err()
                .to_string()
                .contains("version 3")
        );
    }
}
