//! The rules, replayed on published lines: what may come, and what it makes of price, leader and deadline.

use super::{
    Check, Head, Line, holds,
    line::{cells, digest, fields},
};
use crate::{
    Money, Stamp,
    chain::{self, Hash},
    cut::move_end,
    terms::{EXTEND_MS_MAX, PAUSE_MS},
};
use alloc::{format, string::String};

/// Where the auction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    Before,
    Live,
    Paused { since: u64, until: Option<u64> },
    Closed,
}

/// The state that the lines so far make.
pub(super) struct Replay<'a> {
    head: &'a Head,
    pub(super) at: At,
    pub(super) seq: u64,
    pub(super) ct: u64,
    pub(super) dl: u64,
    pub(super) price: Money,
    pub(super) leader: Option<String>,
    extensions: u32,
    pub(super) bids: u64,
    pub(super) outcome: Option<String>,
    pub(super) hash: Option<Hash>,
    /// It was opened: what the head fixes is bound.
    pub(super) bound: bool,
    pub(super) seal: Option<Hash>,
    /// When a stream last came up.
    streamed: Option<u64>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(head: &'a Head) -> Replay<'a> {
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
            bound: false,
            seal: None,
            streamed: None,
        }
    }

    pub(super) fn step(&mut self, line: &Line) -> Check {
        holds(line.seq == self.seq + 1, "seq", || {
            format!("number {} after {}", line.seq, self.seq)
        })?;
        fields(line)?;
        digest(self.head, line)?;
        let hash = chain::link(&self.head.auction, self.hash.as_ref(), &cells(line)?);
        holds(hash == line.h, "hash", || {
            String::from("the hash doesn't follow from the line and the one before")
        })?;
        holds(line.ct >= self.ct, "ct", || {
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
            "stream" => self.stream(line)?,
            "close" => self.close(line)?,
            _ => self.same(line)?,
        }
        (self.seq, self.ct, self.hash) = (line.seq, line.ct, Some(line.h));
        Ok(())
    }

    /// Nothing may come after a timer that is due, but what the timer does.
    fn time(&self, line: &Line) -> Check {
        let only_open = line.ty == "open" || (line.ty == "close" && line.outcome.as_deref() == Some("cancelled"));
        match self.at {
            At::Before => holds(only_open, "time", || String::from("it is not open yet")),
            At::Closed => Err(("time", String::from("it was closed before"))),
            At::Live => {
                let last = line.ct == self.dl && matches!(line.ty.as_str(), "close" | "held");
                holds(line.ct < self.dl || last, "time", || {
                    format!("at {} it was over: it ended at {}", line.ct, self.dl)
                })
            }
            At::Paused { until: Some(until), .. } => {
                let fits = line.ct < until || line.ct == until && line.ty == "resume";
                holds(fits, "time", || {
                    format!("at {} the pause was over: it ended at {until}", line.ct)
                })
            }
            At::Paused { .. } => Ok(()),
        }
    }

    fn live(&self) -> Check {
        holds(self.at == At::Live, "phase", || String::from("it is not live"))
    }

    /// Price, leader and deadline stay.
    fn same(&self, line: &Line) -> Check {
        self.same_price(line)?;
        holds(line.leader == self.leader, "leader", || {
            String::from("another leader without a bid")
        })?;
        self.deadline(line, self.dl)
    }

    fn same_price(&self, line: &Line) -> Check {
        holds(line.price == self.price, "price", || {
            format!("price {} instead of {}", line.price, self.price)
        })
    }

    fn deadline(&self, line: &Line, right: u64) -> Check {
        holds(line.ends_at == right, "ends_at", || {
            format!("deadline {} instead of {right}", line.ends_at)
        })
    }

    fn open(&mut self, line: &Line) -> Check {
        holds(self.at == At::Before, "phase", || String::from("opened twice"))?;
        self.at = At::Live;
        self.dl = Stamp(line.ct).plus(self.head.terms.duration_ms).0;
        (self.bound, self.seal) = (true, line.seal);
        if let Some(reserve) = self.head.terms.reserve {
            holds(line.seal == Some(reserve.seal(&self.head.auction)), "reserve", || {
                String::from("the reserve that the head opens is not the one that was sealed")
            })?;
        }
        self.same(line)
    }

    fn bid(&mut self, line: &Line) -> Check {
        self.live()?;
        let terms = &self.head.terms;
        let amount = line.amount.unwrap_or(0);
        let least = terms.least(self.price, self.leader.is_some());
        holds(amount >= least, "amount", || {
            format!("{amount} is below the least next bid, {least}")
        })?;
        holds(line.actor.as_ref() != Some(&self.head.seller), "actor", || {
            String::from("the seller bids")
        })?;
        holds(line.actor != self.leader, "actor", || String::from("the leader bid on"))?;
        if line.leader == line.actor {
            holds(line.price == amount, "price", || {
                format!("a leading bid of {amount} makes {} the price", line.price)
            })?;
        } else {
            holds(line.leader.is_some() && line.leader == self.leader, "leader", || {
                String::from("someone leads who didn't bid")
            })?;
            let most = terms.above(amount);
            let fits = (amount..=most).contains(&line.price);
            holds(fits, "price", || {
                format!("an answer of {} to {amount}, with {most} at most", line.price)
            })?;
        }
        let (end, ct) = (Stamp(self.dl), Stamp(line.ct));
        let moved = move_end(&terms.time, self.extensions, end, ct, self.price, line.price);
        self.deadline(line, moved.ends_at.0)?;
        let told = (line.cut_ms, line.extended_ms);
        let right = (Some(moved.cut_ms), Some(moved.extended_ms));
        holds(told == right, "cut", || {
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
        holds(self.leader.is_some() && line.actor == self.leader, "actor", || {
            String::from("only the leader can raise")
        })?;
        self.same(line)
    }

    fn pause(&mut self, line: &Line) -> Check {
        self.live()?;
        self.same(line)?;
        let left = self.dl - line.ct;
        holds(line.left_ms == Some(left), "left_ms", || {
            format!("{:?} left instead of {left}", line.left_ms)
        })?;
        let long = line.until.map(|until| until.saturating_sub(line.ct));
        holds(long.is_none_or(|ms| PAUSE_MS.contains(&ms)), "until", || {
            format!("a pause of {long:?} ms")
        })?;
        self.at = At::Paused {
            since: line.ct,
            until: line.until,
        };
        Ok(())
    }

    fn resume(&mut self, line: &Line) -> Check {
        let At::Paused { since, until } = self.at else {
            return Err(("phase", String::from("it is not paused")));
        };
        // Nobody's doing: then it is the timer's, or that of a stream that came back.
        let streamed = self.streamed == Some(line.ct) && until.is_none();
        let by_itself = until == Some(line.ct) || streamed;
        holds(line.actor.is_some() || by_itself, "actor", || {
            String::from("resumed by nobody")
        })?;
        let paused = line.ct - since;
        holds(line.dms == Some(paused), "dms", || {
            format!("{:?} ms paused instead of {paused}", line.dms)
        })?;
        self.dl = Stamp(self.dl).plus(paused).0;
        self.at = At::Live;
        self.same(line)
    }

    fn extend(&mut self, line: &Line) -> Check {
        self.live()?;
        let given = line.dms.unwrap_or(0);
        holds((1..=EXTEND_MS_MAX).contains(&given), "dms", || {
            format!("an extension of {given} ms")
        })?;
        self.dl = Stamp(self.dl).plus(given).0;
        self.same(line)
    }

    fn stream(&mut self, line: &Line) -> Check {
        self.streamed = line.node.map(|_| line.ct);
        self.same(line)
    }

    fn close(&mut self, line: &Line) -> Check {
        let outcome = line.outcome.as_deref().unwrap_or("");
        self.same_price(line)?;
        let end = if self.at == At::Before { line.ct } else { self.dl };
        self.deadline(line, end)?;
        match outcome {
            "sold" => holds(line.leader.is_some() && line.leader == self.leader, "leader", || {
                String::from("the wrong winner")
            })?,
            "unsold" | "cancelled" => holds(line.leader.is_none(), "leader", || format!("{outcome}, with a winner"))?,
            other => return Err(("outcome", format!("unknown outcome {other:?}"))),
        }
        if outcome == "cancelled" {
            holds(line.actor.is_some(), "actor", || String::from("cancelled by nobody"))?;
            holds(self.at != At::Live || line.ct < self.dl, "time", || {
                String::from("cancelled after its end")
            })?;
        } else {
            self.live()?;
            holds(line.ct == self.dl, "ct", || {
                format!("closed at {}, but it ends at {}", line.ct, self.dl)
            })?;
            holds(line.actor.is_none() && line.id.is_none(), "actor", || {
                String::from("a close that someone sent")
            })?;
            self.sale(outcome)?;
        }
        self.dl = end;
        self.leader.clone_from(&line.leader);
        self.at = At::Closed;
        self.outcome = Some(outcome.into());
        Ok(())
    }

    /// Whom the lot goes to is no one's choice: to the leader, unless a reserve was sealed and isn't met.
    fn sale(&self, outcome: &str) -> Check {
        let kept = match (self.seal, self.head.terms.reserve) {
            (None, _) => false,
            (Some(_), Some(reserve)) => self.price < reserve.amount,
            (Some(_), None) => return Ok(()), // The head's check says that it must be opened.
        };
        let right = if self.leader.is_some() && !kept {
            "sold"
        } else {
            "unsold"
        };
        holds(outcome == right, "outcome", || {
            format!("{outcome}, where the rules make it {right}")
        })
    }
}
