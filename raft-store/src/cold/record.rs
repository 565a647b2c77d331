//! A record of the cold store: one settled auction, in parts that can be read apart.
//!
//! ```text
//!   head    a log.v1.ColdHead: as shown, all that is neither event nor id, and where the rest lies, with checksums
//!   events  log.v1.ColdEvents, `PIECE` events each: a page of a long history reads its own piece only
//!   ids     a log.v1.ColdIds
//! ```
//!
//! The head's own checksum stands in the index. A whole record is checked once more by what it says: the digest of the auction that
//! comes of it must be the one that the index, and the sum in the snapshot, name.
//!
//! Deliberately absent: compression.

use super::damaged;
use crate::codec::Wire;
use auction::{AuctionParts, AuctionView, Event, Settled};
use bytes::Bytes;
use prost::Message;
use proto::log::v1 as pb;
use std::{fmt::Display, io, sync::Arc};

/// Events in a piece.
const PIECE: usize = 256;

/// A record, and how long its head is.
pub(super) fn encode(settled: &Settled) -> (Vec<u8>, u32) {
    let mut auction = settled.parts().to_proto();
    let (events, ids) = (std::mem::take(&mut auction.events), std::mem::take(&mut auction.once));
    let mut rest = Vec::new();
    let mut span = |first: u64, bytes: Vec<u8>| {
        rest.extend_from_slice(&bytes);
        pb::ColdSpan {
            first,
            len: bytes.len() as u64,
            crc32c: crc32c::crc32c(&bytes),
        }
    };
    let mut spans = Vec::new();
    for some in events.chunks(PIECE) {
        let first = some.first().map_or(0, |event| event.seq);
        let events = some.to_vec();
        spans.push(span(first, pb::ColdEvents { events }.encode_to_vec()));
    }
    let ids = span(0, pb::ColdIds { ids }.encode_to_vec());
    let head = pb::ColdHead {
        view: Some(settled.view().to_proto()),
        auction: Some(auction),
        events: spans,
        ids: Some(ids),
    };
    let mut record = head.encode_to_vec();
    let head = record.len() as u32;
    record.extend_from_slice(&rest);
    // Where the head ends is the index's to know, and of whoever gets the record alone: it stands at the very end, too.
    record.extend_from_slice(&head.to_le_bytes());
    (record, head)
}

fn bad(error: impl Display) -> io::Error {
    damaged(error)
}

/// A part of a record.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// From the beginning of the record.
    pub(super) at: u64,
    pub(super) len: usize,
    first: u64,
    crc32c: u32,
}

impl Span {
    fn checked(self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() == self.len && crc32c::crc32c(bytes) == self.crc32c {
            Ok(())
        } else {
            Err(bad(format!("the part at {} fails its checksum", self.at)))
        }
    }

    /// The events in it.
    pub(super) fn events(self, bytes: &Bytes) -> io::Result<Vec<Arc<Event>>> {
        self.checked(bytes)?;
        let all = pb::ColdEvents::decode(bytes.clone()).map_err(bad)?.events;
        let all = all.into_iter().map(|event| Event::from_proto(event).map(Arc::new));
        all.collect::<Result<_, _>>().map_err(bad)
    }
}

/// What a record's head says.
pub(super) struct Head {
    pub(super) view: AuctionView,
    auction: pb::AuctionParts,
    events: Vec<Span>,
    ids: Span,
}

impl Head {
    pub(super) fn read(bytes: Bytes) -> io::Result<Head> {
        let mut at = bytes.len() as u64;
        let head = pb::ColdHead::decode(bytes).map_err(bad)?;
        let mut place = |span: pb::ColdSpan| {
            let len = usize::try_from(span.len).map_err(bad)?;
            let (crc32c, first) = (span.crc32c, span.first);
            let placed = Span { at, len, first, crc32c };
            at = at.checked_add(span.len).ok_or_else(|| bad("a part without end"))?;
            Ok::<_, io::Error>(placed)
        };
        let events = head.events.into_iter().map(&mut place).collect::<Result<_, _>>()?;
        let ids = place(head.ids.ok_or_else(|| bad("no ids"))?)?;
        Ok(Head {
            view: AuctionView::from_proto(head.view.ok_or_else(|| bad("no view"))?).map_err(bad)?,
            auction: head.auction.ok_or_else(|| bad("no auction"))?,
            events,
            ids,
        })
    }

    /// The parts that hold events after a version.
    pub(super) fn events_after(&self, after: u64) -> impl Iterator<Item = Span> + '_ {
        // The last part that begins at or before the next one.
        let next = after.saturating_add(1);
        let from = self.events.partition_point(|span| span.first <= next).saturating_sub(1);
        self.events[from..].iter().copied()
    }
}

/// The auction that a whole record holds, and how long its head is.
pub(super) fn decode(record: &[u8]) -> io::Result<(Settled, u32)> {
    let head = record.last_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
    let head = head.ok_or_else(|| bad("a record without end"))?;
    let part = |at: u64, len: usize| {
        let from = usize::try_from(at).ok()?;
        record.get(from..from.checked_add(len)?)
    };
    let bytes = part(0, head as usize).ok_or_else(|| bad("a head that is longer than its record"))?;
    let Head {
        mut auction,
        events,
        ids,
        ..
    } = Head::read(Bytes::copy_from_slice(bytes))?;
    let read = |span: Span| part(span.at, span.len).ok_or_else(|| bad("a part that isn't there"));
    for span in events {
        let bytes = read(span)?;
        span.checked(bytes)?;
        auction
            .events
            .extend(pb::ColdEvents::decode(bytes).map_err(bad)?.events);
    }
    let bytes = read(ids)?;
    ids.checked(bytes)?;
    auction.once = pb::ColdIds::decode(bytes).map_err(bad)?.ids;
    let parts = AuctionParts::from_proto(auction).map_err(bad)?;
    let settled = Settled::from_parts(parts).map_err(|error| bad(error.0))?;
    Ok((settled, head))
}
