//! What edges and nodes of a simulation say to each other: a datagram carries a number, and here lies what it stands for.
//!
//! Datagrams are lost, delayed and overtake each other as the simulated network likes; what lies here is never altered.
//! Why no encoding: the wire between edge and node is `router`'s and `node`'s, and isn't under test. Between nodes it is,
//! and there the real one is spoken.
//!
//! Deliberately absent: cleaning up. A lost letter lies here until the end of a run of some seconds.

use auction::{AuctionId, AuctionView, Command, Event, FeedItem, Position, Reply};
use parking_lot::Mutex;
use placement::{Change, ShardId};
use std::{collections::BTreeMap, sync::Arc};

/// A datagram: the number of a letter.
pub(super) type Stamp = [u8; 8];

/// What an edge wants of a node.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Submit(ShardId, Command),
    /// A linear read.
    Read(ShardId, AuctionId),
    /// Events after a version, so many at most, as this node's replica has them.
    Export(ShardId, AuctionId, u64, usize),
    /// A feed of its own number, from a position on.
    Follow(u64, ShardId, AuctionId, Option<Position>),
    Leave(u64),
    /// An operator's change of the map.
    Steer(Box<Change>),
    /// An operator's hand-over of a shard, to this node.
    HandOver(ShardId, u64),
}

/// What the node says to it.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Reply(Reply),
    View(Option<Box<AuctionView>>),
    /// There is no such auction, says a linear read.
    NoSuch,
    Events(Option<Vec<Arc<Event>>>),
    /// Whether an operator's wish came true.
    Done(bool),
}

#[derive(Clone, Debug)]
pub(super) enum Letter {
    Ask(u64, Ask),
    Answer(u64, Answer),
    /// The n-th of a feed; nothing in it: the feed is alive.
    Feed(u64, u64, Option<FeedItem>),
    /// The node has no such feed, or has no more: its replica is elsewhere now.
    Over(u64),
}

/// Where letters lie.
#[derive(Clone, Default)]
pub(super) struct Post(Arc<Mutex<(u64, BTreeMap<u64, Letter>)>>);

impl Post {
    pub(super) fn put(&self, letter: Letter) -> Stamp {
        let mut post = self.0.lock();
        post.0 += 1;
        let n = post.0;
        post.1.insert(n, letter);
        n.to_le_bytes()
    }

    /// Takes a letter out. A datagram that the network brings twice brings nothing the second time.
    pub(super) fn take(&self, stamp: Stamp) -> Option<Letter> {
        self.0.lock().1.remove(&u64::from_le_bytes(stamp))
    }
}
