//! What a client may say, and what is done about it.
//!
//! Frames are read field by field from plain JSON, not into a type, so that a bid with an impossible amount is still
//! answered under its own id. A frame that isn't understood is a strike; a few are forgiven.

use super::{
    Close, Flow, Seated, Session,
    inbox::{Inbox, Item, OnItsWay},
};
use crate::{
    auth::{User, wall_ms},
    edge::State,
    ports::ChatLine,
    problem::{EdgeCode, Problem},
    room::{Interest, encode},
    wire::{Amount, Say, VerdictBody},
};
use auction::{Action, Actor, AuctionId, Command, Id, Money, Position, Reason, Rights, Stamp, money::MONEY_MAX};
use axum::extract::ws::Utf8Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Map, Value};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A client's frame.
type Fields = Map<String, Value>;

impl Session {
    pub(super) fn hear(&mut self, text: &str) -> Flow {
        if text.len() > self.state.options.frame_max {
            let problem = Problem::edge(EdgeCode::TooLarge).because("a frame is at most 4 KiB");
            self.say(&Say::Problem {
                problem,
                a: None,
                id: None,
            });
            return Flow::Close(Close::Malformed);
        }
        if let Some((a, id, amount, sent)) = plain_bid(text) {
            return self.bid(a, id, Ok(amount), sent);
        }
        let fields = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return self.strike("a frame is a JSON object"),
            Err(error) => return self.strike(&error.to_string()),
        };
        match fields.get("t").and_then(Value::as_str) {
            Some("ping") => self.ping(&fields),
            Some("hello") => self.hello(&fields),
            Some("join") => self.join(&fields),
            Some("leave") => self.leave(&fields),
            Some("bid") => self.any_bid(&fields),
            Some("chat") => self.chat(&fields),
            Some("capture") => self.capture(&fields),
            Some("seen") => self.seen(&fields),
            _ => self.strike("t is none of hello, join, leave, bid, chat, ping, capture, seen"),
        }
    }

    /// Says that a frame was not understood; too many of those end the socket.
    pub(super) fn strike(&mut self, detail: &str) -> Flow {
        let problem = Problem::edge(EdgeCode::BadRequest).because(detail);
        self.say(&Say::Problem {
            problem,
            a: None,
            id: None,
        });
        self.strikes += 1;
        if self.strikes > self.state.options.strikes_max {
            Flow::Close(Close::Malformed)
        } else {
            Flow::On
        }
    }

    fn refuse(&self, a: Option<&AuctionId>, id: Option<&Id>, problem: Problem) {
        self.say(&Say::Problem {
            problem,
            a: a.map(Id::as_str),
            id: id.map(Id::as_str),
        });
    }

    fn ping(&mut self, fields: &Fields) -> Flow {
        match fields.get("c") {
            Some(Value::Number(c)) => {
                self.say(&Say::Pong {
                    c,
                    s: self.state.monotonic_ms(),
                });
                Flow::On
            }
            _ => self.strike("ping needs a number c"),
        }
    }

    fn hello(&mut self, fields: &Fields) -> Flow {
        let Some(token) = fields.get("token").and_then(Value::as_str) else {
            return self.strike("hello needs a token");
        };
        match self.state.tokens.verify(token) {
            Ok(user) => {
                self.user = Some(user);
                self.greet();
                Flow::On
            }
            Err(why) => {
                tracing::debug!(%why, "a token was refused");
                self.refuse(None, None, Problem::unsigned(&why.to_string()));
                Flow::Close(Close::Token)
            }
        }
    }

    fn join(&mut self, fields: &Fields) -> Flow {
        let Some(a) = id(fields, "a") else {
            return self.strike("join needs an auction id a");
        };
        let from = match (whole(fields, "epoch"), whole(fields, "offset")) {
            (Ok(Some(epoch)), Ok(Some(offset))) => Some(Position { epoch, offset }),
            (Ok(_), Ok(_)) => None,
            _ => return self.strike("epoch and offset are whole numbers"),
        };
        self.seats.retain(|s| s.auction != a);
        let joins_max = self.state.options.joins_max;
        // Those under way count too, also for auctions left meanwhile: each holds a task.
        let on_its_way = OnItsWay::begin(&self.inbox.joins, joins_max).filter(|_| self.seats.len() < joins_max);
        let Some(on_its_way) = on_its_way else {
            self.refuse(
                Some(&a),
                None,
                Problem::reason(Reason::Rate).because("too many auctions on one socket"),
            );
            return Flow::On;
        };
        self.joins += 1;
        self.seats.push(Seated {
            auction: a.clone(),
            join: self.joins,
            seat: None,
            waiting: false,
        });
        let (state, inbox, join) = (self.state.clone(), self.inbox.clone(), self.joins);
        let user = self.user.as_ref().map(|u| (u.id.clone(), u.rights));
        tokio::spawn(async move {
            match enter(&state, &a, user, from, &inbox).await {
                Ok((seat, frames)) => inbox.put(Item::Seated { join, seat, frames }),
                Err(problem) => {
                    inbox.push(encode(&Say::Problem {
                        problem,
                        a: Some(a.as_str()),
                        id: None,
                    }));
                    inbox.put(Item::Refused { join });
                }
            }
            drop(on_its_way);
        });
        Flow::On
    }

    fn leave(&mut self, fields: &Fields) -> Flow {
        let Some(a) = id(fields, "a") else {
            return self.strike("leave needs an auction id a");
        };
        self.seats.retain(|s| s.auction != a);
        Flow::On
    }

    /// A bid with something unusual about it, perhaps a mistake: answered under its own id all the same.
    fn any_bid(&mut self, fields: &Fields) -> Flow {
        let (Some(a), Some(id)) = (id(fields, "a"), id(fields, "id")) else {
            return self.strike("bid needs an auction id a, an id and an amount");
        };
        let amount = match fields
            .get("amount")
            .map(|v| serde_json::from_value::<Amount>(v.clone()))
        {
            Some(Ok(Amount::Is(amount))) => Ok(amount),
            Some(Ok(Amount::TooBig)) => Err(Problem::reason(Reason::TooBig)),
            Some(Err(error)) => Err(Problem::reason(Reason::Invalid).because(error.to_string())),
            None => Err(Problem::reason(Reason::Invalid).because("amount is missing")),
        };
        let sent = whole(fields, "sent");
        let odd = || Problem::reason(Reason::Invalid).because("sent is a whole number");
        let amount = amount.and_then(|amount| sent.map(|_| amount).map_err(|()| odd()));
        self.bid(a, id, amount, sent.unwrap_or_default().map(Stamp))
    }

    fn bid(&mut self, a: AuctionId, id: Id, amount: Result<Money, Problem>, first_sent: Option<Stamp>) -> Flow {
        let admitted = amount.and_then(|amount| Ok((amount, self.admit_bid()?)));
        let (amount, (actor, on_its_way)) = match admitted {
            Ok(admitted) => admitted,
            Err(problem) => {
                self.inbox.push_own(verdict(&a, &id, Err(problem)));
                return Flow::On;
            }
        };
        let command = Command {
            auction: a,
            actor,
            id: Some(id.clone()),
            first_sent,
            action: Action::Bid { amount },
        };
        if let Some(settled) = self.state.settled(&command) {
            let settled = verdict(&command.auction, &id, Ok(VerdictBody::from(&settled)));
            self.inbox.push_own(settled);
            return Flow::On;
        }
        let (state, inbox) = (&self.state, &self.inbox);
        let bidder = self.bidder.get_or_insert_with(|| bidder(state.clone(), inbox.clone()));
        if let Err(full) = bidder.try_send((id, command, on_its_way)) {
            let (id, command, _) = full.into_inner();
            self.inbox
                .push_own(verdict(&command.auction, &id, Err(Problem::rate(1_000))));
        }
        Flow::On
    }

    /// Who speaks. A token's end closes the socket, but a frame may be read before that is looked at.
    fn signed(&self) -> Result<&User, Problem> {
        let user = self
            .user
            .as_ref()
            .ok_or_else(|| Problem::unsigned("say hello with a token first"))?;
        if user.expires_at_ms <= wall_ms() {
            return Err(Problem::unsigned("the token has expired"));
        }
        Ok(user)
    }

    fn admit_bid(&self) -> Result<(Actor, OnItsWay), Problem> {
        let user = self.signed()?;
        self.state.limit_bid(user)?;
        let max = self.state.options.socket_bids_max;
        let on_its_way = OnItsWay::begin(&self.inbox.bids, max).ok_or_else(|| Problem::rate(1_000))?;
        Ok((user.actor(), on_its_way))
    }

    fn chat(&mut self, fields: &Fields) -> Flow {
        let (Some(a), Some(id), Some(text)) = (
            id(fields, "a"),
            id(fields, "id"),
            fields.get("text").and_then(Value::as_str),
        ) else {
            return self.strike("chat needs an auction id a, an id and a text");
        };
        let user = match self.signed() {
            Ok(user) => user,
            Err(problem) => {
                self.refuse(Some(&a), Some(&id), problem);
                return Flow::On;
            }
        };
        if text.chars().count() > crate::chat::TEXT_MAX {
            self.refuse(
                Some(&a),
                Some(&id),
                Problem::reason(Reason::Invalid).because("at most 300 characters"),
            );
            return Flow::On;
        }
        let line = ChatLine {
            chat_epoch: 0,
            cseq: 0,
            from: user.id.clone(),
            name: user.name.clone(),
            id: id.clone(),
            text: text.to_owned(),
        };
        let (state, inbox) = (&self.state, &self.inbox);
        let speaker = self
            .speaker
            .get_or_insert_with(|| speaker(state.clone(), inbox.clone()));
        if speaker.try_send((a.clone(), line)).is_err() {
            self.refuse(Some(&a), Some(&id), Problem::rate(1_000));
        }
        Flow::On
    }
}

/// Carries a session's bids to their verdicts, all at once. One task for all of them, for a task is no small thing to make.
/// Its own, not the session's: a client that doesn't read must not hold its bids' places at the gate. Ends with
/// the session, once the last verdict is in.
fn bidder(state: Arc<State>, inbox: Arc<Inbox>) -> mpsc::Sender<(Id, Command, OnItsWay)> {
    let (bids, mut coming) = mpsc::channel::<(Id, Command, OnItsWay)>(state.options.socket_bids_max.max(1));
    tokio::spawn(async move {
        let mut under_way = FuturesUnordered::new();
        let mut open = true;
        while open || !under_way.is_empty() {
            tokio::select! {
                bid = coming.recv(), if open => match bid {
                    Some((id, command, on_its_way)) => under_way.push(judged(&state, id, command, on_its_way)),
                    None => open = false,
                },
                Some(frame) = under_way.next() => inbox.push(frame),
            }
        }
    });
    bids
}

/// One bid, to the frame that tells what became of it.
async fn judged(state: &Arc<State>, id: Id, command: Command, on_its_way: OnItsWay) -> Utf8Bytes {
    let a = command.auction.clone();
    let outcome = state.bid(command, None).await;
    let frame = verdict(&a, &id, outcome.map(|v| VerdictBody::from(&v)));
    drop(on_its_way);
    frame
}

/// Says a session's lines one after the other, so that they keep their order. Ends with the session.
fn speaker(state: Arc<State>, inbox: Arc<Inbox>) -> mpsc::Sender<(AuctionId, ChatLine)> {
    let (lines, mut waiting) = mpsc::channel::<(AuctionId, ChatLine)>(state.options.socket_chats_max.max(1));
    tokio::spawn(async move {
        while let Some((a, line)) = waiting.recv().await {
            let id = line.id.clone();
            if let Err(problem) = state.chat(&a, line).await {
                inbox.push(encode(&Say::Problem {
                    problem,
                    a: Some(a.as_str()),
                    id: Some(id.as_str()),
                }));
            }
        }
    });
    lines
}

/// Enters a room and finds the place to start; a draft is its seller's own business.
async fn enter(
    state: &Arc<State>,
    a: &AuctionId,
    user: Option<(Id, Rights)>,
    from: Option<Position>,
    inbox: &Inbox,
) -> Result<(Box<super::Seat>, Vec<Utf8Bytes>), Problem> {
    let interest: Interest = state.rooms.enter(state, a).await?;
    if let Some(view) = interest.room().draft() {
        let may = user.is_some_and(|(id, rights)| id == view.definition.seller || rights.has(Rights::OPERATOR));
        if !may {
            return Err(Problem::reason(Reason::NotOpen));
        }
    }
    let start = interest.room().start(from).await?;
    Ok((Box::new(interest.seat(inbox.wake.clone(), start.cursor)), start.frames))
}

fn verdict(a: &AuctionId, id: &Id, outcome: Result<VerdictBody, Problem>) -> Utf8Bytes {
    let (verdict, problem) = match outcome {
        Ok(verdict) => (Some(verdict), None),
        Err(problem) => (None, Some(problem)),
    };
    encode(&Say::Verdict {
        a: a.as_str(),
        id: id.as_str(),
        verdict,
        problem,
    })
}

/// A bid as every client writes it: read without a copy, since a storm is made of these. `None`: to be looked at closely.
fn plain_bid(text: &str) -> Option<(AuctionId, Id, Money, Option<Stamp>)> {
    #[derive(serde::Deserialize)]
    struct Frame<'a> {
        t: &'a str,
        a: &'a str,
        id: &'a str,
        amount: Money,
        sent: Option<u64>,
    }
    let frame: Frame<'_> = serde_json::from_str(text).ok()?;
    let sound = frame.t == "bid" && frame.amount <= MONEY_MAX;
    let (a, id) = (Id::parse(frame.a)?, Id::parse(frame.id)?);
    sound.then_some((a, id, frame.amount, frame.sent.map(Stamp)))
}

fn id(fields: &Fields, key: &str) -> Option<Id> {
    fields.get(key).and_then(Value::as_str).and_then(Id::parse)
}

/// A whole number if there is one, `Err` if there is something else.
fn whole(fields: &Fields, key: &str) -> Result<Option<u64>, ()> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(()),
    }
}
