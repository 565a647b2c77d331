//! Frames of `shard/v1` to domain words and back. What came from a peer is checked: a frame that makes no sense is an
//! error of that call, never a panic.

use super::local::Reading;
use auction::{AuctionView, Event, FeedItem, Id, Office, Position, Reply, Stamp, Verdict};
use placement::ShardId;
use proto::shard::v1 as pb;
use raft_store::codec::{BadWire, Wire as _};
use router::ports::ChatLine;
use std::sync::Arc;

/// A reply as a frame.
pub(super) fn reply_to(correlation: u64, reply: &Reply) -> pb::ReplyFrame {
    use pb::reply_frame::Reply as Pb;
    let reply = match reply {
        Reply::Verdict(verdict) => Pb::Verdict(verdict.to_proto()),
        Reply::NotLeader { hint, term } => Pb::NotLeader(pb::NotLeader {
            hint: *hint,
            term: *term,
        }),
        Reply::WrongEpoch { epoch } => Pb::WrongEpoch(pb::WrongEpoch { epoch: *epoch }),
        Reply::Busy { retry_after_ms } => Pb::Busy(pb::Busy {
            retry_after_ms: *retry_after_ms,
        }),
        Reply::NoRoom { retry_after_ms } => Pb::NoRoom(pb::NoRoom {
            retry_after_ms: *retry_after_ms,
        }),
        Reply::NotJudged => Pb::NotJudged(pb::NotJudged {}),
        Reply::Unknown => Pb::Unknown(pb::Unknown {}),
    };
    pb::ReplyFrame {
        correlation,
        reply: Some(reply),
    }
}

/// A frame as a reply; what makes no sense leaves the outcome unknown.
pub(super) fn reply_from(frame: pb::ReplyFrame) -> Reply {
    use pb::reply_frame::Reply as Pb;
    match frame.reply {
        Some(Pb::Verdict(verdict)) => Verdict::from_proto(verdict).map_or_else(
            |error| {
                tracing::error!(%error, "a peer sent a verdict that can't be read");
                Reply::Unknown
            },
            Reply::Verdict,
        ),
        Some(Pb::NotLeader(n)) => Reply::NotLeader {
            hint: n.hint,
            term: n.term,
        },
        Some(Pb::WrongEpoch(w)) => Reply::WrongEpoch { epoch: w.epoch },
        Some(Pb::Busy(b)) => Reply::Busy {
            retry_after_ms: b.retry_after_ms,
        },
        Some(Pb::NoRoom(n)) => Reply::NoRoom {
            retry_after_ms: n.retry_after_ms,
        },
        Some(Pb::NotJudged(_)) => Reply::NotJudged,
        Some(Pb::Unknown(_)) | None => Reply::Unknown,
    }
}

/// A feed item as a frame.
pub(super) fn item_to(item: &FeedItem) -> pb::FeedItem {
    use pb::feed_item::Item;
    let item = match item {
        FeedItem::Snapshot { position, view } => {
            let position = Some(pb::Position {
                epoch: position.epoch,
                offset: position.offset,
            });
            Item::Snapshot(pb::Snapshot {
                position,
                view: Some(view.to_proto()),
            })
        }
        FeedItem::Event(event) => Item::Event(event.to_proto()),
        FeedItem::Changed(view) => Item::Changed(view.to_proto()),
    };
    pb::FeedItem { item: Some(item) }
}

/// A frame as a feed item.
pub(super) fn item_from(frame: pb::FeedItem) -> Result<FeedItem, BadWire> {
    use pb::feed_item::Item;
    Ok(match frame.item.ok_or(BadWire::Missing("item"))? {
        Item::Snapshot(snapshot) => {
            let position = snapshot.position.ok_or(BadWire::Missing("snapshot.position"))?;
            FeedItem::Snapshot {
                position: Position {
                    epoch: position.epoch,
                    offset: position.offset,
                },
                view: Box::new(view_from(snapshot.view)?),
            }
        }
        Item::Event(event) => FeedItem::Event(Arc::new(Event::from_proto(event)?)),
        Item::Changed(view) => FeedItem::Changed(Box::new(AuctionView::from_proto(view)?)),
    })
}

/// A view that must be there.
pub(super) fn view_from(view: Option<proto::log::v1::View>) -> Result<AuctionView, BadWire> {
    AuctionView::from_proto(view.ok_or(BadWire::Missing("view"))?)
}

/// A reading as a frame.
pub(super) fn reading_to(reading: &Reading) -> pb::Reading {
    pb::Reading {
        shard: reading.shard.0,
        term: reading.office.term,
        turn: reading.office.turn,
        now: reading.now.0,
        top: reading.top.0,
        timers: reading.timers,
        drains: reading.drains,
    }
}

/// A frame as a reading.
pub(super) fn reading_from(frame: &pb::Reading) -> Reading {
    Reading {
        shard: ShardId(frame.shard),
        office: Office {
            term: frame.term,
            turn: frame.turn,
        },
        now: Stamp(frame.now),
        top: Stamp(frame.top),
        timers: frame.timers,
        drains: frame.drains,
    }
}

/// A line of chat as a frame.
pub(super) fn line_to(line: ChatLine) -> pb::Line {
    pb::Line {
        chat_epoch: line.chat_epoch,
        cseq: line.cseq,
        from: String::from(&line.from),
        name: line.name,
        id: String::from(&line.id),
        text: line.text,
    }
}

/// A frame as a line of chat.
pub(super) fn line_from(frame: pb::Line) -> Result<ChatLine, BadWire> {
    Ok(ChatLine {
        chat_epoch: frame.chat_epoch,
        cseq: frame.cseq,
        from: Id::parse(&frame.from).ok_or(BadWire::Invalid("line.from"))?,
        name: frame.name,
        id: Id::parse(&frame.id).ok_or(BadWire::Invalid("line.id"))?,
        text: frame.text,
    })
}
