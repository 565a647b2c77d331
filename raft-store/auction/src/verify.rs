//! Proof: an exported auction, recomputed with no trust in the server that exported it.
//!
//! Two questions of each line. Is it *bound*: does its hash follow from the one before and from what it says (`chain`)?
//! Is it *right*: does what it says follow from the rules and from the lines before (price, least bid, cut, deadline,
//! pauses, close)? The replay works on plain values as they were published and shares with the server's judging only the
//! arithmetic of terms and cut, which the terms publish anyway.
//!
//! What can't be known from outside is said here and not guessed: hidden maxima (a bid that a maximum answered may have
//! made any price up to one increment above it) and the reserve (a led auction may end unsold).

use crate::{
    Money, Stamp, Terms,
    chain::{self, Amt, Hash},
    cut::move_end,
    terms::EXTEND_MS_MAX,
};
use alloc::{format, string::String};

/// What an export says before its events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The auction's id.
    pub auction: String,
    /// The published terms (a reserve in them is ignored: it isn't published).
    pub terms: Terms,
}

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

/// What a verified export shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Events verified.
    pub events: u64,
    /// Bids among them.
    pub bids: u64,
    /// The visible price after the last.
    pub price: Money,
    /// The winner, if it was sold.
    pub winner: Option<String>,
    /// `sold`, `unsold`, `cancelled`; `None`: not over yet.
    pub outcome: Option<String>,
    /// The hash of the last event: two exports that agree on it agree on everything.
    pub hash: Hash,
}

/// The first line that doesn't hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Its number.
    pub seq: u64,
    /// What is wrong with it.
    pub what: String,
}

/// Recomputes an export.
///
/// # Errors
/// The first line that isn't bound to those before it, or breaks a rule.
pub fn verify(head: &Head, lines: impl IntoIterator<Item = Line>) -> Result<Summary, Broken> {
    let mut replay = Replay::new(head);
    for line in lines {
        replay.step(&line).map_err(|what| Broken { seq: line.seq, what })?;
    }
    Ok(Summary {
        events: replay.seq,
        bids: replay.bids,
        price: replay.price,
        winner: replay.leader.filter(|_| replay.outcome.as_deref() == Some("sold")),
        outcome: replay.outcome,
        hash: replay.hash.unwrap_or(chain::genesis()),
    })
}

/// Where the auction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Before,
    Live,
    Paused { since: u64, until: Option<u64> },
    Closed,
}

/// The state that the lines so far make.
struct Replay<'a> {
    head: &'a Head,
    at: At,
    seq: u64,
    ct: u64,
    dl: u64,
    price: Money,
    leader: Option<String>,
    extensions: u32,
    bids: u64,
    outcome: Option<String>,
    hash: Option<Hash>,
    /// When a stream last came up.
    streamed: Option<u64>,
}

type Check = Result<(), String>;

fn holds(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

impl<'a> Replay<'a> {
    fn new(head: &'a Head) -> Replay<'a> {
        Replay {
            head,
            at: At::Before,
            seq: 0,
            ct: 0,
            dl: 0,
            price: head.terms.start_price,
            leader: None,
            extensions: 0,
            bids: 0,
            outcome: None,
            hash: None,
            streamed: None,
        }
    }

    fn step(&mut self, line: &Line) -> Check {
        holds(line.seq == self.seq + 1, || {
            format!("number {} after {}", line.seq, self.seq)
        })?;
        let hash = chain::link(&self.head.auction, self.hash.as_ref(), &cells(line)?);
        holds(hash == line.h, || {
            String::from("the hash doesn't follow from the line and the one before")
        })?;
        holds(line.ct >= self.ct, || {
            format!("its stamp {} lies before {}", line.ct, self.ct)
        })?;
        self.time(line)?;
        match line.ty.as_str() {
            "open" => self.open(line)?,
            "bid" => self.bid(line)?,
            "raise" => self.raise(line)?,
            "pause" => self.pause(line)?,
            "resume" => self.resume(line)?,
            "extend" => self.extend(line)?,
            "held" => self.held(line)?,
            "stream" => self.stream(line)?,
            "close" => self.close(line)?,
            other => return Err(format!("unknown type {other:?}")),
        }
        (self.seq, self.ct, self.hash) = (line.seq, line.ct, Some(line.h));
        Ok(())
    }

    /// Nothing may come after a timer that is due, but what the timer does.
    fn time(&self, line: &Line) -> Check {
        let only_open = line.ty == "open" || (line.ty == "close" && line.outcome.as_deref() == Some("cancelled"));
        match self.at {
            At::Before => holds(only_open, || String::from("it is not open yet")),
            At::Closed => Err(String::from("it was closed before")),
            At::Live if line.ty == "close" || line.ty == "held" => holds(line.ct <= self.dl, || {
                format!("at {} it was over: it ended at {}", line.ct, self.dl)
            }),
            At::Live => holds(line.ct < self.dl, || {
                format!("at {} it was over: it ended at {}", line.ct, self.dl)
            }),
            At::Paused { until: Some(until), .. } => {
                let fits = line.ct < until || line.ct == until && line.ty == "resume";
                holds(fits, || {
                    format!("at {} the pause was over: it ended at {until}", line.ct)
                })
            }
            At::Paused { .. } => Ok(()),
        }
    }

    fn live(&self) -> Check {
        holds(self.at == At::Live, || String::from("it is not live"))
    }

    /// Price, leader and deadline stay.
    fn same(&self, line: &Line) -> Check {
        holds(line.price == self.price, || {
            format!("price {} instead of {}", line.price, self.price)
        })?;
        holds(line.leader == self.leader, || {
            String::from("another leader without a bid")
        })?;
        holds(line.ends_at == self.dl, || {
            format!("deadline {} instead of {}", line.ends_at, self.dl)
        })
    }

    fn open(&mut self, line: &Line) -> Check {
        holds(self.at == At::Before, || String::from("opened twice"))?;
        self.at = At::Live;
        self.dl = Stamp(line.ct).plus(self.head.terms.duration_ms).0;
        self.same(line)
    }

    fn bid(&mut self, line: &Line) -> Check {
        self.live()?;
        let terms = &self.head.terms;
        let amount = line.amount.ok_or_else(|| String::from("a bid without an amount"))?;
        let least = terms.least(self.price, self.leader.is_some());
        holds(amount >= least, || {
            format!("{amount} is below the least next bid, {least}")
        })?;
        holds(line.actor.is_some() && line.actor != self.leader, || {
            String::from("the leader bid on")
        })?;
        if line.leader == line.actor {
            holds(line.price == amount, || {
                format!("a leading bid of {amount} makes {} the price", line.price)
            })?;
        } else {
            holds(line.leader == self.leader, || {
                String::from("someone leads who didn't bid")
            })?;
            let most = terms.above(amount);
            let fits = (amount..=most).contains(&line.price);
            holds(fits, || {
                format!("an answer of {} to {amount}, with {most} at most", line.price)
            })?;
        }
        let ends_at = Stamp(self.dl);
        let moved = move_end(
            &terms.time,
            self.extensions,
            ends_at,
            Stamp(line.ct),
            self.price,
            line.price,
        );
        holds(line.ends_at == moved.ends_at.0, || {
            format!("deadline {} instead of {}", line.ends_at, moved.ends_at.0)
        })?;
        let told = (line.cut_ms.unwrap_or(0), line.extended_ms.unwrap_or(0));
        let right = (moved.cut_ms, moved.extended_ms);
        holds(told == right, || {
            format!("(cut, extension) {told:?} instead of {right:?}")
        })?;
        self.extensions += u32::from(moved.extended);
        self.bids += 1;
        (self.price, self.dl) = (line.price, line.ends_at);
        self.leader.clone_from(&line.leader);
        Ok(())
    }

    fn raise(&mut self, line: &Line) -> Check {
        self.live()?;
        holds(self.leader.is_some() && line.actor == self.leader, || {
            String::from("only the leader can raise")
        })?;
        self.same(line)
    }

    fn pause(&mut self, line: &Line) -> Check {
        self.live()?;
        self.same(line)?;
        let left = self.dl - line.ct;
        holds(line.left_ms == Some(left), || {
            format!("{:?} left instead of {left}", line.left_ms)
        })?;
        holds(line.until.is_none_or(|until| until >= line.ct), || {
            String::from("a pause that ends before it begins")
        })?;
        self.at = At::Paused {
            since: line.ct,
            until: line.until,
        };
        Ok(())
    }

    fn resume(&mut self, line: &Line) -> Check {
        let At::Paused { since, until } = self.at else {
            return Err(String::from("it is not paused"));
        };
        // Nobody's doing: then it is the timer's, or that of a stream that came back.
        let streamed = self.streamed == Some(line.ct) && until.is_none();
        let by_itself = until == Some(line.ct) || streamed;
        holds(line.actor.is_some() || by_itself, || String::from("resumed by nobody"))?;
        let paused = line.ct - since;
        holds(line.dms == Some(paused), || {
            format!("{:?} ms paused instead of {paused}", line.dms)
        })?;
        self.dl = Stamp(self.dl).plus(paused).0;
        self.at = At::Live;
        self.same(line)
    }

    fn extend(&mut self, line: &Line) -> Check {
        self.live()?;
        let given = line.dms.unwrap_or(0);
        holds((1..=EXTEND_MS_MAX).contains(&given), || {
            format!("an extension of {given} ms")
        })?;
        self.dl = Stamp(self.dl).plus(given).0;
        self.same(line)
    }

    fn held(&mut self, line: &Line) -> Check {
        holds(line.dms.is_some(), || String::from("a hold without a length"))?;
        self.same(line)
    }

    fn stream(&mut self, line: &Line) -> Check {
        self.streamed = line.node.map(|_| line.ct);
        self.same(line)
    }

    fn close(&mut self, line: &Line) -> Check {
        let outcome = line.outcome.as_deref().unwrap_or("");
        holds(line.price == self.price, || {
            format!("price {} instead of {}", line.price, self.price)
        })?;
        let end = if self.at == At::Before { line.ct } else { self.dl };
        holds(line.ends_at == end, || {
            format!("deadline {} instead of {end}", line.ends_at)
        })?;
        match outcome {
            "sold" => holds(line.leader.is_some() && line.leader == self.leader, || {
                String::from("the wrong winner")
            })?,
            "unsold" | "cancelled" => holds(line.leader.is_none(), || format!("{outcome}, with a winner"))?,
            other => return Err(format!("unknown outcome {other:?}")),
        }
        if outcome == "cancelled" {
            holds(line.actor.is_some(), || String::from("cancelled by nobody"))?;
            holds(self.at != At::Live || line.ct < self.dl, || {
                String::from("cancelled after its end")
            })?;
        } else {
            self.live()?;
            holds(line.ct == self.dl, || {
                format!("closed at {}, but it ends at {}", line.ct, self.dl)
            })?;
            holds(line.id.is_none(), || String::from("a close that someone sent"))?;
        }
        self.leader.clone_from(&line.leader);
        self.at = At::Closed;
        self.outcome = Some(outcome.into());
        Ok(())
    }
}

/// The chain's cells of a published line.
pub(crate) fn cells(line: &Line) -> Result<chain::Line<'_>, String> {
    let actor = line.actor.as_deref().unwrap_or("");
    let leader = line.leader.as_deref().unwrap_or("");
    let (bidder, amt) = match line.ty.as_str() {
        "bid" => {
            let amount = line.amount.ok_or_else(|| String::from("a bid without an amount"))?;
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
        "stream" => {
            let stream = line
                .stream
                .as_deref()
                .ok_or_else(|| String::from("a stream without a name"))?;
            ("", Amt::Stream(line.node, stream))
        }
        _ => ("", Amt::Empty),
    };
    let idem = line.id.as_deref().unwrap_or("");
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

impl From<&crate::Event> for Line {
    /// The event as it is published.
    fn from(event: &crate::Event) -> Line {
        use crate::EventKind;
        let text = |id: &Option<crate::Id>| id.as_ref().map(String::from);
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
            ..Line::default()
        };
        match &event.kind {
            EventKind::Open | EventKind::Raise => {}
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
