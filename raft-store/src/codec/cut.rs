//! Where a shard's history was cut, and what it has lost, to disk and back.

use super::{
    BadWire, Wire, id,
    steering::{origin_from, origin_to},
};
use crate::state::{Cut, Lost};
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

impl Wire for Lost {
    type Proto = pb::Lost;

    fn to_proto(&self) -> pb::Lost {
        let auctions = self.auctions.iter().map(|(auction, what)| pb::LostAuction {
            auction: auction.into(),
            what: what.clone(),
        });
        pb::Lost {
            auctions: auctions.collect(),
            unnamed: self.unnamed,
        }
    }

    fn from_proto(proto: pb::Lost) -> Result<Lost, BadWire> {
        let auctions = proto.auctions.into_iter();
        let auctions = auctions.map(|one| Ok((id(&one.auction, "lost.auction")?, one.what)));
        Ok(Lost {
            auctions: auctions.collect::<Result<_, BadWire>>()?,
            unnamed: proto.unnamed,
        })
    }
}
