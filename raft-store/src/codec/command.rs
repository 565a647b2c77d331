//! Commands and definitions, to wire and back.

use super::{BadWire, Wire, hash, hash_bytes, id, need, opt_id};
use auction::{
    Action, Actor, Command, Currency, Definition, Reserve, Rights, Stamp, Terms, TimeRule,
    terms::{Rush, SoftClose},
};
use proto::log::v1::{self as pb, command::Action as Pb};

impl Wire for Command {
    type Proto = pb::Command;

    fn to_proto(&self) -> pb::Command {
        pb::Command {
            auction: (&self.auction).into(),
            actor: Some(pb::Actor {
                id: (&self.actor.id).into(),
                rights: u32::from(self.actor.rights.0),
            }),
            id: self.id.as_ref().map(Into::into),
            first_sent: self.first_sent.map(|stamp| stamp.0),
            action: Some(action_to(&self.action)),
        }
    }

    fn from_proto(proto: pb::Command) -> Result<Command, BadWire> {
        let actor = need(proto.actor, "command.actor")?;
        let rights = u16::try_from(actor.rights).map_err(|_| BadWire::Invalid("actor.rights"))?;
        Ok(Command {
            auction: id(&proto.auction, "command.auction")?,
            actor: Actor {
                id: id(&actor.id, "actor.id")?,
                rights: Rights(rights),
            },
            id: opt_id(proto.id, "command.id")?,
            first_sent: proto.first_sent.map(Stamp),
            action: action_from(need(proto.action, "command.action")?)?,
        })
    }
}

fn action_to(action: &Action) -> Pb {
    match action {
        Action::Create(definition) => Pb::Create(definition.to_proto()),
        Action::Edit { version, definition } => Pb::Edit(pb::Edit {
            version: *version,
            definition: Some(definition.to_proto()),
        }),
        Action::Schedule { start_wall_ms } => Pb::Schedule(pb::Schedule {
            start_wall_ms: *start_wall_ms,
        }),
        Action::Start { schedule_version } => Pb::Start(pb::Start {
            schedule_version: *schedule_version,
        }),
        Action::Bid { amount } => Pb::Bid(pb::Amount { amount: *amount }),
        Action::MaxBid { maximum } => Pb::MaxBid(pb::Amount { amount: *maximum }),
        Action::Pause { for_ms } => Pb::Pause(pb::Pause { for_ms: *for_ms }),
        Action::Resume => Pb::Resume(pb::Nothing {}),
        Action::Extend { ms } => Pb::Extend(pb::Extend { ms: *ms }),
        Action::Cancel { reason } => Pb::Cancel(pb::Cancel { reason: reason.clone() }),
        Action::StreamUp { node, stream } => Pb::StreamUp(pb::StreamUp {
            node: *node,
            stream: stream.into(),
        }),
        Action::StreamDown { stream } => Pb::StreamDown(pb::StreamDown { stream: stream.into() }),
    }
}

fn action_from(action: Pb) -> Result<Action, BadWire> {
    Ok(match action {
        Pb::Create(definition) => Action::Create(Box::new(Definition::from_proto(definition)?)),
        Pb::Edit(edit) => Action::Edit {
            version: edit.version,
            definition: Box::new(Definition::from_proto(need(edit.definition, "edit.definition")?)?),
        },
        Pb::Schedule(schedule) => Action::Schedule {
            start_wall_ms: schedule.start_wall_ms,
        },
        Pb::Start(start) => Action::Start {
            schedule_version: start.schedule_version,
        },
        Pb::Bid(bid) => Action::Bid { amount: bid.amount },
        Pb::MaxBid(bid) => Action::MaxBid { maximum: bid.amount },
        Pb::Pause(pause) => Action::Pause { for_ms: pause.for_ms },
        Pb::Resume(_) => Action::Resume,
        Pb::Extend(extend) => Action::Extend { ms: extend.ms },
        Pb::Cancel(cancel) => Action::Cancel { reason: cancel.reason },
        Pb::StreamUp(up) => Action::StreamUp {
            node: up.node,
            stream: id(&up.stream, "stream_up.stream")?,
        },
        Pb::StreamDown(down) => Action::StreamDown {
            stream: id(&down.stream, "stream_down.stream")?,
        },
    })
}

impl Wire for Definition {
    type Proto = pb::Definition;

    fn to_proto(&self) -> pb::Definition {
        pb::Definition {
            seller: (&self.seller).into(),
            title: self.title.clone(),
            description: self.description.clone(),
            terms: Some(self.terms.to_proto()),
        }
    }

    fn from_proto(proto: pb::Definition) -> Result<Definition, BadWire> {
        Ok(Definition {
            seller: id(&proto.seller, "definition.seller")?,
            title: proto.title,
            description: proto.description,
            terms: Terms::from_proto(need(proto.terms, "definition.terms")?)?,
        })
    }
}

impl Wire for Terms {
    type Proto = pb::Terms;

    fn to_proto(&self) -> pb::Terms {
        pb::Terms {
            currency: self.currency.as_str().to_owned(),
            start_price: self.start_price,
            increments: self
                .increments
                .iter()
                .map(|&(from, increment)| pb::Step { from, increment })
                .collect(),
            reserve: self.reserve.map(|reserve| pb::Reserve {
                amount: reserve.amount,
                salt: hash_bytes(&reserve.salt),
            }),
            duration_ms: self.duration_ms,
            rush: self.time.rush.map(|r| pb::Rush {
                cut_ppm_max: r.cut_ppm_max,
                cut_per_raise_ppm: r.cut_per_raise_ppm,
                floor_ms: r.floor_ms,
            }),
            soft_close: self.time.soft_close.map(|s| pb::SoftClose {
                window_ms: s.window_ms,
                reset_to_ms: s.reset_to_ms,
                extensions_max: s.extensions_max,
            }),
            guests: self.guests,
            pause_without_stream: self.pause_without_stream,
        }
    }

    fn from_proto(proto: pb::Terms) -> Result<Terms, BadWire> {
        let rush = proto.rush.map(|r| Rush {
            cut_ppm_max: r.cut_ppm_max,
            cut_per_raise_ppm: r.cut_per_raise_ppm,
            floor_ms: r.floor_ms,
        });
        let soft_close = proto.soft_close.map(|s| SoftClose {
            window_ms: s.window_ms,
            reset_to_ms: s.reset_to_ms,
            extensions_max: s.extensions_max,
        });
        let reserve = proto.reserve.map(|r| {
            let (amount, salt) = (r.amount, hash(&r.salt)?);
            Ok::<_, BadWire>(Reserve { amount, salt })
        });
        Ok(Terms {
            currency: Currency::parse(&proto.currency).ok_or(BadWire::Invalid("terms.currency"))?,
            start_price: proto.start_price,
            increments: proto.increments.iter().map(|s| (s.from, s.increment)).collect(),
            reserve: reserve.transpose()?,
            duration_ms: proto.duration_ms,
            time: TimeRule { rush, soft_close },
            guests: proto.guests,
            pause_without_stream: proto.pause_without_stream,
        })
    }
}
