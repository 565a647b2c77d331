//! The body of a snapshot: a shard's whole state, to disk and back.

use super::{
    BadWire, Wire,
    event::{reason_from, reason_to},
    hold_from, hold_to, id, need, office_from, office_to, opt_id, rules,
    view::{stream_from, stream_to},
};
use auction::{AuctionParts, Cold, Definition, Event, OnceParts, Parts, Phase, Stamp, Sum};
use bytes::Bytes;
use proto::log::v1 as pb;
use std::sync::Arc;

impl Wire for Parts {
    type Proto = pb::ShardParts;

    fn to_proto(&self) -> pb::ShardParts {
        pb::ShardParts {
            office: Some(office_to(self.office)),
            n: self.n,
            top: self.top.0,
            clamped: self.clamped,
            holds: self.holds.iter().map(hold_to).collect(),
            hold_first: self.hold_first,
            auctions: self.auctions.iter().map(Wire::to_proto).collect(),
            rules: later(self.rules),
            cold: self.cold.count,
            // Nothing where nothing is cold: such a snapshot is what it was before anything could be.
            cold_sum: if self.cold.count == 0 {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(&self.cold.sum.0)
            },
        }
    }

    fn from_proto(proto: pb::ShardParts) -> Result<Parts, BadWire> {
        Ok(Parts {
            office: office_from(need(proto.office, "parts.office")?),
            n: proto.n,
            top: Stamp(proto.top),
            clamped: proto.clamped,
            holds: proto.holds.iter().map(hold_from).collect(),
            hold_first: proto.hold_first,
            auctions: proto
                .auctions
                .into_iter()
                .map(Wire::from_proto)
                .collect::<Result<_, _>>()?,
            rules: rules(proto.rules)?,
            cold: cold(proto.cold, &proto.cold_sum)?,
        })
    }
}

/// What lies elsewhere.
pub(crate) fn cold(count: u64, sum: &[u8]) -> Result<Cold, BadWire> {
    if count == 0 {
        return Ok(Cold::default());
    }
    let sum = sum.try_into().map_err(|_| BadWire::Invalid("parts.cold_sum"))?;
    Ok(Cold { count, sum: Sum(sum) })
}

/// The first rules aren't written, so that a snapshot of them is what it was before there were others.
fn later(rules: u32) -> u32 {
    if rules > 1 { rules } else { 0 }
}

impl Wire for AuctionParts {
    type Proto = pb::AuctionParts;

    fn to_proto(&self) -> pb::AuctionParts {
        pb::AuctionParts {
            id: (&self.id).into(),
            version: self.version,
            definition: Some(self.definition.to_proto()),
            phase: Some(self.phase.to_proto()),
            start_wall_ms: self.start_wall_ms,
            price: self.price,
            leader: self.leader.as_ref().map(Into::into),
            maximum: self.maximum,
            bids: self.bids,
            extensions: self.extensions,
            live_at: self.live_at.0,
            ends_at: self.ends_at.map(|stamp| stamp.0),
            paused_at: self.paused_at.map(|stamp| stamp.0),
            until: self.until.map(|stamp| stamp.0),
            paused_by_stream: self.paused_by_stream,
            stream: stream_to(self.stream.as_ref()),
            stream_gone: self.stream_gone,
            behind: self.behind.map(|stamp| stamp.0),
            hold_next: self.hold_next,
            events: self.events.iter().map(|event| event.to_proto()).collect(),
            once: self.once.iter().map(Wire::to_proto).collect(),
            rules: later(self.rules),
            settled: self.settled,
        }
    }

    fn from_proto(proto: pb::AuctionParts) -> Result<AuctionParts, BadWire> {
        let events = proto
            .events
            .into_iter()
            .map(|event| Event::from_proto(event).map(Arc::new));
        Ok(AuctionParts {
            id: id(&proto.id, "auction.id")?,
            version: proto.version,
            definition: Definition::from_proto(need(proto.definition, "auction.definition")?)?,
            phase: Phase::from_proto(need(proto.phase, "auction.phase")?)?,
            start_wall_ms: proto.start_wall_ms,
            price: proto.price,
            leader: opt_id(proto.leader, "auction.leader")?,
            maximum: proto.maximum,
            bids: proto.bids,
            extensions: proto.extensions,
            live_at: Stamp(proto.live_at),
            ends_at: proto.ends_at.map(Stamp),
            paused_at: proto.paused_at.map(Stamp),
            until: proto.until.map(Stamp),
            paused_by_stream: proto.paused_by_stream,
            stream: stream_from(proto.stream)?,
            stream_gone: proto.stream_gone,
            behind: proto.behind.map(Stamp),
            hold_next: proto.hold_next,
            events: events.collect::<Result<_, _>>()?,
            once: proto.once.into_iter().map(Wire::from_proto).collect::<Result<_, _>>()?,
            rules: rules(proto.rules)?,
            settled: proto.settled,
        })
    }
}

impl Wire for OnceParts {
    type Proto = pb::Once;

    fn to_proto(&self) -> pb::Once {
        pb::Once {
            actor: (&self.actor).into(),
            id: (&self.id).into(),
            body: self.body,
            refused: reason_to(self.refused),
            seq: self.seq,
            ct: self.ct.0,
            price: self.price,
            least: self.least,
            phase: Some(self.phase.to_proto()),
        }
    }

    fn from_proto(proto: pb::Once) -> Result<OnceParts, BadWire> {
        Ok(OnceParts {
            actor: id(&proto.actor, "once.actor")?,
            id: id(&proto.id, "once.id")?,
            body: proto.body,
            refused: reason_from(proto.refused)?,
            seq: proto.seq,
            ct: Stamp(proto.ct),
            price: proto.price,
            least: proto.least,
            phase: Phase::from_proto(need(proto.phase, "once.phase")?)?,
        })
    }
}
