//! One exported line: which fields its type has, what it binds, and how it comes from an event.

use super::{Check, Fault, Head, holds};
use crate::{
    Event, EventKind, Id, Money,
    bound::{Fixed, Particulars},
    chain::{self, Amt, Hash, Idem},
    money::MONEY_MAX,
};
use alloc::{format, string::String};

/// One exported event, as published.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // the fields of `Event` in docs/protocol.md, by the same names
pub struct Line {
    pub seq: u64,
    pub ty: String,
    pub ct: u64,
    pub ends_at: u64,
    pub actor: Option<String>,
    pub id: Option<String>,
    pub price: Money,
    pub leader: Option<String>,
    pub h: Hash,
    pub digest: Option<Hash>,
    pub seller: Option<String>,
    pub seal: Option<Hash>,
    pub amount: Option<Money>,
    pub cut_ms: Option<u64>,
    pub extended_ms: Option<u64>,
    pub left_ms: Option<u64>,
    pub until: Option<u64>,
    pub dms: Option<u64>,
    pub outcome: Option<String>,
    pub node: Option<u64>,
    pub stream: Option<String>,
}

/// Per type: the fields that it must have, and those that it may have. `leader` may stand in any.
#[rustfmt::skip]
const FIELDS: [(&str, &[&str], &[&str]); 9] = [
    ("open",   &["digest", "seller"],                          &["actor", "id", "seal"]),
    ("bid",    &["actor", "amount", "cut_ms", "extended_ms"],  &["id"]),
    ("raise",  &["actor"],                                     &["id"]),
    ("pause",  &["left_ms"],                                   &["actor", "id", "digest", "until"]),
    ("resume", &["dms", "digest"],                             &["actor", "id"]),
    ("extend", &["dms", "digest", "actor"],                    &["id"]),
    ("held",   &["dms", "digest"],                             &[]),
    ("close",  &["outcome"],                                   &["actor", "id", "digest"]),
    ("stream", &["stream", "digest"],                          &["actor", "id", "node"]),
];

/// A line has what its type has, no more and no less, and no number beyond its bound.
pub(super) fn fields(line: &Line) -> Check {
    let known = FIELDS.iter().find(|row| row.0 == line.ty);
    let (ty, must, may) = known.ok_or_else(|| ("type", format!("unknown type {:?}", line.ty)))?;
    let present = [
        ("actor", line.actor.is_some()),
        ("id", line.id.is_some()),
        ("digest", line.digest.is_some()),
        ("seller", line.seller.is_some()),
        ("seal", line.seal.is_some()),
        ("amount", line.amount.is_some()),
        ("cut_ms", line.cut_ms.is_some()),
        ("extended_ms", line.extended_ms.is_some()),
        ("left_ms", line.left_ms.is_some()),
        ("until", line.until.is_some()),
        ("dms", line.dms.is_some()),
        ("outcome", line.outcome.is_some()),
        ("node", line.node.is_some()),
        ("stream", line.stream.is_some()),
    ];
    for (name, is) in present {
        let (must, may) = (must.contains(&name), may.contains(&name));
        holds(is || !must, "fields", || format!("{ty} without {name}"))?;
        holds(!is || must || may, "fields", || format!("{ty} has no {name}"))?;
    }
    let most = line.amount.unwrap_or(0).max(line.price);
    holds(most <= MONEY_MAX, "amount", || {
        format!("{most} is beyond every auction")
    })
}

/// A line's digest is that of what it says; of the `open` line, that of what the head says is fixed.
pub(super) fn digest(head: &Head, line: &Line) -> Check {
    if line.ty != "open" {
        return holds(line.digest == digest_of(line), "digest", || {
            String::from("the digest is not that of the line's particulars")
        });
    }
    holds(line.seller.as_ref() == Some(&head.seller), "seller", || {
        format!(
            "the head names {:?}, the chain was opened for {:?}",
            head.seller, line.seller
        )
    })?;
    holds(line.digest == Some(opening(head, line)), "terms", || {
        String::from(
            "version, texts or terms in the head, or who started it by which command, are not what the chain was opened with",
        )
    })
}

/// The digest that an `open` line must bear under a head.
pub(crate) fn opening(head: &Head, line: &Line) -> Hash {
    Fixed {
        version: head.version,
        seller: &head.seller,
        actor: line.actor.as_deref().unwrap_or(""),
        id: line.id.as_deref().unwrap_or(""),
        title: &head.title,
        description: &head.description,
        terms: &head.terms,
        seal: line.seal.as_ref(),
    }
    .digest()
}

/// The digest that a line of another type must bear.
pub(crate) fn digest_of(line: &Line) -> Option<Hash> {
    if matches!(line.ty.as_str(), "bid" | "raise") {
        return None;
    }
    let told = Particulars {
        seq: line.seq,
        ty: &line.ty,
        actor: line.actor.as_deref(),
        id: line.id.as_deref(),
        until: line.until,
        dms: line.dms,
        node: line.node,
        stream: line.stream.as_deref(),
    };
    told.digest()
}

/// The chain's cells of a published line.
pub(crate) fn cells(line: &Line) -> Result<chain::Line<'_>, Fault> {
    let actor = line.actor.as_deref().unwrap_or("");
    let leader = line.leader.as_deref().unwrap_or("");
    let (bidder, amt) = match line.ty.as_str() {
        "bid" => {
            let amount = line
                .amount
                .ok_or_else(|| ("fields", String::from("bid without amount")))?;
            let plain = line.actor == line.leader && amount == line.price;
            (
                actor,
                if plain {
                    Amt::Money(amount)
                } else {
                    Amt::Answered(amount, line.price, leader)
                },
            )
        }
        "raise" => (actor, Amt::Money(line.price)),
        "close" if line.outcome.as_deref() == Some("sold") => (leader, Amt::Money(line.price)),
        "close" => ("", Amt::Money(0)),
        "open" => (line.seller.as_deref().unwrap_or(""), Amt::Empty),
        _ => ("", Amt::Empty),
    };
    let idem = match (&line.digest, &line.id) {
        (Some(digest), _) => Idem::Digest(*digest),
        (None, Some(id)) => Idem::Id(id),
        (None, None) => Idem::Empty,
    };
    Ok(chain::Line {
        seq: line.seq,
        ty: &line.ty,
        idem,
        bidder,
        amt,
        ct: line.ct,
        dl: line.ends_at,
    })
}

impl From<&Event> for Line {
    /// The event as it is published.
    fn from(event: &Event) -> Line {
        let text = |id: &Option<Id>| id.as_ref().map(String::from);
        let mut line = Line {
            seq: event.seq,
            ty: event.kind.ty().into(),
            ct: event.ct.0,
            ends_at: event.ends_at.0,
            actor: text(&event.actor),
            id: text(&event.id),
            price: event.price,
            leader: text(&event.leader),
            h: event.hash,
            digest: chain::digest(event),
            ..Line::default()
        };
        match &event.kind {
            EventKind::Raise => {}
            EventKind::Open(opening) => {
                line.seller = Some((&opening.seller).into());
                line.seal = opening.seal;
            }
            EventKind::Bid {
                amount,
                cut_ms,
                extended_ms,
            } => {
                line.amount = Some(*amount);
                line.cut_ms = Some(*cut_ms);
                line.extended_ms = Some(*extended_ms);
            }
            EventKind::Pause { left_ms, until } => {
                line.left_ms = Some(*left_ms);
                line.until = until.map(|until| until.0);
            }
            EventKind::Resume { dms } | EventKind::Extend { dms } | EventKind::Held { dms } => line.dms = Some(*dms),
            EventKind::Close { outcome } => line.outcome = Some(outcome.word().into()),
            EventKind::Stream { node, stream } => {
                line.node = *node;
                line.stream = Some(stream.into());
            }
        }
        line
    }
}
