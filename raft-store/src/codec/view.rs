//! Auction views, to wire and back.

use super::{BadWire, Wire, hash, hash_bytes, id, need, opt_id};
use auction::{AuctionView, Definition, Id, Phase, Stamp};
use proto::log::v1 as pb;

impl Wire for AuctionView {
    type Proto = pb::View;

    fn to_proto(&self) -> pb::View {
        pb::View {
            id: (&self.id).into(),
            version: self.version,
            definition: Some(self.definition.to_proto()),
            phase: Some(self.phase.to_proto()),
            seq: self.seq,
            price: self.price,
            least: self.least,
            leader: self.leader.as_ref().map(Into::into),
            bids: self.bids,
            reserve_met: self.reserve_met,
            ends_at: self.ends_at.map(|stamp| stamp.0),
            left_ms: self.left_ms,
            start_wall_ms: self.start_wall_ms,
            ct: self.ct.0,
            hash: hash_bytes(&self.hash),
            stream: stream_to(self.stream.as_ref()),
            cuts: self
                .cuts
                .iter()
                .map(|&(epoch, seq)| pb::ViewCut { epoch, seq })
                .collect(),
        }
    }

    fn from_proto(proto: pb::View) -> Result<AuctionView, BadWire> {
        Ok(AuctionView {
            id: id(&proto.id, "view.id")?,
            version: proto.version,
            definition: Definition::from_proto(need(proto.definition, "view.definition")?)?,
            phase: Phase::from_proto(need(proto.phase, "view.phase")?)?,
            seq: proto.seq,
            price: proto.price,
            least: proto.least,
            leader: opt_id(proto.leader, "view.leader")?,
            bids: proto.bids,
            reserve_met: proto.reserve_met,
            ends_at: proto.ends_at.map(Stamp),
            left_ms: proto.left_ms,
            start_wall_ms: proto.start_wall_ms,
            ct: Stamp(proto.ct),
            hash: hash(&proto.hash)?,
            stream: stream_from(proto.stream)?,
            cuts: proto.cuts.iter().map(|cut| (cut.epoch, cut.seq)).collect(),
        })
    }
}

pub(super) fn stream_to(stream: Option<&(u64, Id)>) -> Option<pb::StreamRef> {
    stream.map(|(node, stream)| pb::StreamRef {
        node: *node,
        stream: stream.into(),
    })
}

pub(super) fn stream_from(stream: Option<pb::StreamRef>) -> Result<Option<(u64, Id)>, BadWire> {
    stream.map(|s| Ok((s.node, id(&s.stream, "stream")?))).transpose()
}
