//! Domain words to wire and disk words (`proto/rushroom/log/v1`), and back.
//!
//! `to_proto` can't fail. `from_proto` trusts nothing: what comes back from a disk or a peer is checked field by field,
//! and `BadWire` names the one that is wrong. An unknown kind of command, event or payload is an error, never skipped: a
//! replica that can't judge an entry must stop, or it would differ from those that can.
//!
//! Deliberately absent: openraft's types (`wire`), files (`wal`, `snapshot`), and any `derive(Serialize)` on the domain.

mod command;
mod cut;
mod event;
#[cfg(test)]
mod golden;
mod map;
mod parts;
pub(crate) use parts::cold;
mod steering;
#[cfg(test)]
mod tests;
mod view;

use crate::{
    types::{Logged, MetaCommand, Payload, TraceContext},
    versions,
};
use auction::{Entry, Hold, Id, Office, Stamp, Stamped, Wall};
use bytes::Bytes;
use placement::ClusterMap;
use prost::Message;
use proto::log::v1 as pb;
use std::sync::Arc;

/// Why bytes are no value of ours.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadWire {
    /// Not the encoding of such a message at all.
    #[error("not a message: {0}")]
    Undecodable(String),
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field's value is outside its range, or of a kind that this version doesn't know.
    #[error("{0} has no meaning here")]
    Invalid(&'static str),
    /// Written by a newer build, for readers that know more.
    #[error("[version_newer] {what} is at version {found}; this build knows up to {known}")]
    Newer {
        /// What is newer.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
}

impl From<prost::DecodeError> for BadWire {
    fn from(error: prost::DecodeError) -> BadWire {
        BadWire::Undecodable(error.to_string())
    }
}

/// A domain value that has a form on wire and disk.
pub trait Wire: Sized {
    /// That form.
    type Proto: Message + Default;

    /// The value, written.
    fn to_proto(&self) -> Self::Proto;

    /// The value, read and checked.
    ///
    /// # Errors
    /// When a field is missing, out of range, or of an unknown kind.
    fn from_proto(proto: Self::Proto) -> Result<Self, BadWire>;

    /// The value as bytes.
    fn to_bytes(&self) -> Bytes {
        Bytes::from(self.to_proto().encode_to_vec())
    }

    /// The value of bytes.
    ///
    /// # Errors
    /// As `from_proto`, or when the bytes are no such message.
    fn from_bytes(bytes: Bytes) -> Result<Self, BadWire> {
        Self::from_proto(Self::Proto::decode(bytes)?)
    }
}

fn id(text: &str, field: &'static str) -> Result<Id, BadWire> {
    Id::parse(text).ok_or(BadWire::Invalid(field))
}

fn opt_id(text: Option<String>, field: &'static str) -> Result<Option<Id>, BadWire> {
    text.map(|text| id(&text, field)).transpose()
}

/// A version (absent: 1) that this build knows.
fn known(what: &'static str, found: u32, known: u32) -> Result<u32, BadWire> {
    match found.max(1) {
        found if found <= known => Ok(found),
        found => Err(BadWire::Newer { what, found, known }),
    }
}

/// Rules that this build knows.
fn rules(found: u32) -> Result<u32, BadWire> {
    known("what the rules", found, auction::RULES_VERSION)
}

fn need<T>(value: Option<T>, field: &'static str) -> Result<T, BadWire> {
    value.ok_or(BadWire::Missing(field))
}

fn hash(bytes: &[u8]) -> Result<[u8; 32], BadWire> {
    bytes.try_into().map_err(|_| BadWire::Invalid("hash"))
}

fn hash_bytes(hash: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(hash)
}

impl Logged {
    /// A payload of this node's own, encoded here and nowhere else.
    #[must_use]
    pub fn of(payload: Payload) -> Logged {
        Logged::in_format(payload, 1)
    }

    /// The same in a form that every replica is known to read (see `versions`).
    pub(crate) fn in_format(payload: Payload, format: u32) -> Logged {
        let mut proto = payload.to_proto();
        if format >= 2 {
            proto.format = format;
            reckon_back(&mut proto);
        }
        let bytes = Bytes::from(proto.encode_to_vec());
        Logged::new(payload, bytes)
    }

    /// A payload that came from a disk or a peer; its bytes are kept as they came.
    ///
    /// # Errors
    /// When they are no payload that this version knows.
    pub fn read(bytes: Bytes) -> Result<Logged, BadWire> {
        Ok(Logged::new(Payload::from_bytes(bytes.clone())?, bytes))
    }
}

impl Wire for Payload {
    type Proto = pb::Payload;

    fn to_proto(&self) -> pb::Payload {
        let kind = match self {
            Payload::Entry { entry, traces } => pb::payload::Kind::Entry(entry_to(entry, traces)),
            Payload::Meta(command) => pb::payload::Kind::Meta(command.to_proto()),
            Payload::Rules(version) => pb::payload::Kind::Rules(pb::Rules { version: *version }),
        };
        pb::Payload {
            kind: Some(kind),
            format: 0,
        }
    }

    fn from_proto(mut proto: pb::Payload) -> Result<Payload, BadWire> {
        if known("the form of an entry", proto.format, versions::FORMAT)? >= 2 {
            reckon_back(&mut proto);
        }
        Ok(match need(proto.kind, "payload.kind")? {
            pb::payload::Kind::Entry(entry) => {
                let (entry, traces) = entry_from(entry)?;
                Payload::Entry {
                    entry: Arc::new(entry),
                    traces,
                }
            }
            pb::payload::Kind::Meta(command) => Payload::Meta(MetaCommand::from_proto(command)?),
            pb::payload::Kind::Rules(new) => Payload::Rules(rules(new.version)?),
        })
    }
}

/// Format 2 writes when a command arrived as how long before the entry; the way back is the same.
fn reckon_back(proto: &mut pb::Payload) {
    if let Some(pb::payload::Kind::Entry(entry)) = &mut proto.kind {
        for stamped in &mut entry.commands {
            stamped.arrived = entry.at.wrapping_sub(stamped.arrived);
        }
    }
}

impl Wire for Entry {
    type Proto = pb::Entry;

    fn to_proto(&self) -> pb::Entry {
        entry_to(self, &[])
    }

    fn from_proto(proto: pb::Entry) -> Result<Entry, BadWire> {
        Ok(entry_from(proto)?.0)
    }
}

fn entry_to(entry: &Entry, traces: &[(u32, TraceContext)]) -> pb::Entry {
    let mut commands: Vec<pb::Stamped> = entry
        .commands
        .iter()
        .map(|s| pb::Stamped {
            arrived: s.arrived.0,
            command: Some(s.command.to_proto()),
            trace: None,
        })
        .collect();
    for (at, trace) in traces {
        if let Some(command) = commands.get_mut(*at as usize) {
            command.trace = Some(trace_to(*trace));
        }
    }
    pb::Entry {
        office: Some(office_to(entry.office)),
        n: entry.n,
        at: entry.at.0,
        behind: entry
            .behind
            .iter()
            .map(|(a, s)| pb::Behind {
                auction: a.into(),
                stamp: s.0,
            })
            .collect(),
        holds: entry.holds.iter().map(hold_to).collect(),
        commands,
        wall: entry.wall.map(|Wall { ms, error_ms }| pb::Wall { ms, error_ms }),
    }
}

fn entry_from(proto: pb::Entry) -> Result<(Entry, Vec<(u32, TraceContext)>), BadWire> {
    let mut traces = Vec::new();
    let mut commands = Vec::with_capacity(proto.commands.len());
    for (i, stamped) in proto.commands.into_iter().enumerate() {
        if let Some(trace) = stamped.trace {
            traces.push((i as u32, trace_from(trace)?));
        }
        let command = auction::Command::from_proto(need(stamped.command, "command")?)?;
        commands.push(Stamped {
            arrived: Stamp(stamped.arrived),
            command,
        });
    }
    let behind = proto
        .behind
        .iter()
        .map(|b| Ok((id(&b.auction, "behind.auction")?, Stamp(b.stamp))));
    let entry = Entry {
        office: office_from(need(proto.office, "entry.office")?),
        n: proto.n,
        at: Stamp(proto.at),
        behind: behind.collect::<Result<_, BadWire>>()?,
        holds: proto.holds.iter().map(hold_from).collect(),
        commands,
        wall: proto.wall.map(|pb::Wall { ms, error_ms }| Wall { ms, error_ms }),
    };
    Ok((entry, traces))
}

fn office_to(office: Office) -> pb::Office {
    pb::Office {
        term: office.term,
        turn: office.turn,
    }
}

fn office_from(office: pb::Office) -> Office {
    Office {
        term: office.term,
        turn: office.turn,
    }
}

fn hold_to(hold: &Hold) -> pb::Hold {
    pb::Hold {
        stamp: hold.stamp.0,
        lost_ms: hold.lost_ms,
    }
}

fn hold_from(hold: &pb::Hold) -> Hold {
    Hold {
        stamp: Stamp(hold.stamp),
        lost_ms: hold.lost_ms,
    }
}

fn trace_to(trace: TraceContext) -> pb::TraceContext {
    pb::TraceContext {
        trace_hi: (trace.trace >> 64) as u64,
        trace_lo: trace.trace as u64,
        span: trace.span,
        flags: u32::from(trace.flags),
    }
}

fn trace_from(trace: pb::TraceContext) -> Result<TraceContext, BadWire> {
    Ok(TraceContext {
        trace: u128::from(trace.trace_hi) << 64 | u128::from(trace.trace_lo),
        span: trace.span,
        flags: u8::try_from(trace.flags).map_err(|_| BadWire::Invalid("trace.flags"))?,
    })
}

/// A cluster map's bytes, for digests.
pub(crate) fn map_bytes(map: &ClusterMap) -> Bytes {
    map.to_bytes()
}
