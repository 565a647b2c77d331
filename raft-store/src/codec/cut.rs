//! Where a shard's history was cut, to disk and back.

use super::{
    BadWire, Wire, id,
    steering::{origin_from, origin_to},
};
use crate::state::Cut;
use proto::log::v1 as pb;

impl Wire for Cut {
    type Proto = pb::Cut;

    fn to_proto(&self) -> pb::Cut {
        let auctions = self.auctions.iter().map(|(auction, seq)| pb::CutAuction {
            auction: auction.into(),
            seq: *seq,
        });
        pb::Cut {
            epoch: self.epoch,
            from: origin_to(self.from).into(),
            auctions: auctions.collect(),
        }
    }

    fn from_proto(proto: pb::Cut) -> Result<Cut, BadWire> {
        let auctions = proto
            .auctions
            .iter()
            .map(|one| Ok((id(&one.auction, "cut.auction")?, one.seq)));
        Ok(Cut {
            epoch: proto.epoch,
            from: origin_from(proto.from)?,
            auctions: auctions.collect::<Result<_, BadWire>>()?,
        })
    }
}
