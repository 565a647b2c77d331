//! The objects of `docs/protocol.md` as JSON, and the way from domain types to them.
//!
//! The core's types derive no serde on purpose: what a client sees is decided here, and here only.

use crate::ports::ChatLine;
use auction::{
    AuctionView, Definition, Event, EventKind, Outcome, Phase, Stamp, Verdict, chain,
    money::{MONEY_MAX, Money},
};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;
use utoipa::ToSchema;

/// How an auction ended.
pub(crate) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Sold => "sold",
        Outcome::Unsold => "unsold",
        Outcome::Cancelled => "cancelled",
    }
}

/// Amounts: an integer that is not negative. Above the largest that is handled it is `TooBig`, which has its own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
pub(crate) enum Amount {
    Is(Money),
    TooBig,
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Amount, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Amount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole amount in minor units")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Amount, E> {
                Ok(if n <= MONEY_MAX { Amount::Is(n) } else { Amount::TooBig })
            }
            /// Integers beyond 64 bits come here too.
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<Amount, E> {
                if n > MONEY_MAX as f64 && n.fract() == 0.0 {
                    Ok(Amount::TooBig)
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(n), &self))
                }
            }
        }
        from.deserialize_u64(Visitor)
    }
}

/// Cut in proportion to the raise.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RushBody {
    pub(crate) cut_ppm_max: u64,
    pub(crate) cut_per_raise_ppm: u64,
    pub(crate) floor_ms: u64,
}

/// Extend when a bid comes close to the end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SoftCloseBody {
    pub(crate) window_ms: u64,
    pub(crate) reset_to_ms: u64,
    pub(crate) extensions_max: u32,
}

/// A reserve, opened after the close.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ReserveBody {
    pub(crate) amount: u64,
    /// 64 hex digits: with the amount they make the seal of the `open` event.
    pub(crate) salt: String,
}

/// The seller's stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct StreamBody {
    pub(crate) node: u64,
    pub(crate) id: String,
}

/// An auction, one version of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Auction)]
pub(crate) struct AuctionBody {
    pub(crate) id: String,
    pub(crate) version: u32,
    pub(crate) seller: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) currency: String,
    pub(crate) start_price: u64,
    pub(crate) increments: Vec<(u64, u64)>,
    pub(crate) duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rush: Option<RushBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) soft_close: Option<SoftCloseBody>,
    pub(crate) guests: bool,
    pub(crate) pause_without_stream: bool,
    pub(crate) phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<&'static str>,
    pub(crate) seq: u64,
    pub(crate) price: u64,
    pub(crate) least: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leader: Option<String>,
    pub(crate) bids: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reserve_met: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reserve: Option<ReserveBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ends_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) left_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start_at_ms: Option<u64>,
    pub(crate) ct: u64,
    pub(crate) h: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<StreamBody>,
    pub(crate) shard: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) now: Option<u64>,
}

impl AuctionBody {
    /// The view as it is shown; `now` is the shard's clock at this edge.
    pub(crate) fn of(view: &AuctionView, shard: u32, now: Option<Stamp>) -> AuctionBody {
        let Definition {
            seller,
            title,
            description,
            terms,
        } = &view.definition;
        AuctionBody {
            id: (&view.id).into(),
            version: view.version,
            seller: seller.into(),
            title: title.clone(),
            description: description.clone(),
            currency: terms.currency.as_str().into(),
            start_price: terms.start_price,
            increments: terms.increments.clone(),
            duration_ms: terms.duration_ms,
            rush: terms.time.rush.map(|r| RushBody {
                cut_ppm_max: r.cut_ppm_max,
                cut_per_raise_ppm: r.cut_per_raise_ppm,
                floor_ms: r.floor_ms,
            }),
            soft_close: terms.time.soft_close.map(|s| SoftCloseBody {
                window_ms: s.window_ms,
                reset_to_ms: s.reset_to_ms,
                extensions_max: s.extensions_max,
            }),
            guests: terms.guests,
            pause_without_stream: terms.pause_without_stream,
            phase: view.phase.word(),
            outcome: match view.phase {
                Phase::Closed(outcome) => Some(outcome_word(outcome)),
                _ => None,
            },
            seq: view.seq,
            price: view.price,
            least: view.least,
            leader: view.leader.as_ref().map(Into::into),
            bids: view.bids,
            reserve_met: view.reserve_met,
            reserve: terms.reserve.map(|reserve| ReserveBody {
                amount: reserve.amount,
                salt: hex::encode(reserve.salt),
            }),
            ends_at: view.ends_at.map(|s| s.0),
            left_ms: view.left_ms,
            start_at_ms: view.start_wall_ms,
            ct: view.ct.0,
            h: hex::encode(view.hash),
            stream: view.stream.as_ref().map(|(node, id)| StreamBody {
                node: *node,
                id: id.into(),
            }),
            shard,
            now: now.map(|s| s.0),
        }
    }
}

/// One accepted change.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventBody {
    pub(crate) seq: u64,
    pub(crate) ty: &'static str,
    pub(crate) ct: u64,
    pub(crate) ends_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) price: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leader: Option<String>,
    pub(crate) h: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) amount: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cut_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) extended_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) left_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<String>,
}

impl From<&Event> for EventBody {
    fn from(event: &Event) -> EventBody {
        let mut body = EventBody {
            seq: event.seq,
            ty: event.kind.ty(),
            ct: event.ct.0,
            ends_at: event.ends_at.0,
            actor: event.actor.as_ref().map(Into::into),
            id: event.id.as_ref().map(Into::into),
            price: event.price,
            leader: event.leader.as_ref().map(Into::into),
            h: hex::encode(event.hash),
            digest: chain::digest(event).map(hex::encode),
            ..EventBody::default()
        };
        match &event.kind {
            EventKind::Raise => {}
            EventKind::Open(opening) => {
                body.seller = Some((&opening.seller).into());
                body.seal = opening.seal.map(hex::encode);
            }
            EventKind::Bid {
                amount,
                cut_ms,
                extended_ms,
            } => {
                body.amount = Some(*amount);
                body.cut_ms = Some(*cut_ms);
                body.extended_ms = Some(*extended_ms);
            }
            EventKind::Pause { left_ms, until } => {
                body.left_ms = Some(*left_ms);
                body.until = until.map(|s| s.0);
            }
            EventKind::Resume { dms } | EventKind::Extend { dms } | EventKind::Held { dms } => body.dms = Some(*dms),
            EventKind::Close { outcome } => body.outcome = Some(outcome_word(*outcome)),
            EventKind::Stream { node, stream } => {
                body.node = *node;
                body.stream = Some(stream.into());
            }
        }
        body
    }
}

/// The final answer to a command.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Verdict)]
pub(crate) struct VerdictBody {
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
    pub(crate) seq: u64,
    pub(crate) price: u64,
    pub(crate) least: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leader: Option<String>,
    pub(crate) phase: &'static str,
    pub(crate) ct: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ends_at: Option<u64>,
    pub(crate) h: String,
    pub(crate) dup: bool,
}

impl From<&Verdict> for VerdictBody {
    fn from(verdict: &Verdict) -> VerdictBody {
        VerdictBody {
            ok: verdict.outcome.is_ok(),
            code: verdict.outcome.err().map(auction::Reason::code),
            seq: verdict.seq,
            price: verdict.price,
            least: verdict.least,
            leader: verdict.leader.as_ref().map(Into::into),
            phase: verdict.phase.word(),
            ct: verdict.ct.0,
            ends_at: verdict.ends_at.map(|s| s.0),
            h: hex::encode(verdict.hash),
            dup: verdict.dup,
        }
    }
}

/// A line of chat.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Chat)]
pub(crate) struct ChatBody {
    pub(crate) chat_epoch: u64,
    pub(crate) cseq: u64,
    pub(crate) from: String,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) text: String,
}

impl From<&ChatLine> for ChatBody {
    fn from(line: &ChatLine) -> ChatBody {
        ChatBody {
            chat_epoch: line.chat_epoch,
            cseq: line.cseq,
            from: (&line.from).into(),
            name: line.name.clone(),
            id: (&line.id).into(),
            text: line.text.clone(),
        }
    }
}

/// What the server says on a WebSocket.
#[derive(Serialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub(crate) enum Say<'a> {
    Hello {
        node: u64,
        region: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<UserBody>,
        s: f64,
        /// Where else this cluster can be reached, should this edge go.
        edges: Vec<String>,
        /// What it understands beyond what every edge does.
        hears: &'static [&'static str],
    },
    Snap {
        a: &'a str,
        epoch: u64,
        offset: u64,
        auction: AuctionBody,
        recent: Vec<EventBody>,
    },
    Resumed {
        a: &'a str,
        epoch: u64,
        offset: u64,
    },
    Event {
        a: &'a str,
        event: EventBody,
    },
    Changed {
        a: &'a str,
        auction: AuctionBody,
    },
    State {
        a: &'a str,
        price: u64,
        least: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        leader: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ends_at: Option<u64>,
        seq: u64,
    },
    Clock {
        a: &'a str,
        now: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        ends_at: Option<u64>,
        s: f64,
        err_ms: u32,
        held: bool,
    },
    Verdict {
        a: &'a str,
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        verdict: Option<VerdictBody>,
        #[serde(skip_serializing_if = "Option::is_none")]
        problem: Option<crate::problem::Problem>,
    },
    Chat {
        a: &'a str,
        chat: ChatBody,
    },
    Counts {
        a: &'a str,
        viewers: u64,
    },
    Pong {
        c: &'a serde_json::Number,
        s: f64,
    },
    Capture {
        media: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<CaptureBody>,
    },
    Problem {
        problem: crate::problem::Problem,
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    },
}

/// What a viewer's RTP times stand for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CaptureBody {
    /// The RTP time of a picture that is captured at `s`.
    pub(crate) rtp: u32,
    pub(crate) rate: u32,
    pub(crate) s: f64,
    pub(crate) legs_ms: Vec<f64>,
}

/// Who a socket or a token speaks for.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserBody {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) roles: Vec<&'static str>,
}

impl From<&crate::auth::User> for UserBody {
    fn from(user: &crate::auth::User) -> UserBody {
        UserBody {
            id: (&user.id).into(),
            name: user.name.clone(),
            roles: user.roles(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn an_amount_is_a_whole_number_that_fits() {
        let read = |json: &str| serde_json::from_str::<Amount>(json).map_err(|e| e.is_data());
        let table = [
            ("0", Ok(Amount::Is(0))),
            ("1000000000000000", Ok(Amount::Is(MONEY_MAX))),
            ("1000000000000001", Ok(Amount::TooBig)),
            ("18446744073709551615", Ok(Amount::TooBig)),
            ("18446744073709551616", Ok(Amount::TooBig)),
            ("1e300", Ok(Amount::TooBig)),
            ("-1", Err(true)),
            ("-9223372036854775809", Err(true)),
            ("1.5", Err(true)),
            ("1000.0", Err(true)),
            ("\"5\"", Err(true)),
            ("null", Err(true)),
            ("true", Err(true)),
            ("[1]", Err(true)),
            ("1e400", Err(false)),
            ("NaN", Err(false)),
            ("0x10", Err(false)),
        ];
        for (json, expected) in table {
            assert_eq!(read(json), expected, "{json}");
        }
    }
}
