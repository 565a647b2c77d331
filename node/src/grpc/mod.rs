//! Node to node over gRPC: commands, reads, feeds, clock readings, chat, and the operator's calls.
//!
//! ```text
//!   edge of node A                                node B
//!   Peers -> Peer -> link  ==Commands stream==>  server -> Local (its shards)     one stream per node pair, pipelined
//!                  -> unary reads, feeds    -->  server -> Local
//!                  -> pings                 -->  server -> Local::readings        A follows B's clocks
//! ```
//!
//! Nothing here decides where to ask or whether to ask again: the edge's `route` does, since it knows which answers are
//! final. A transport that fails says `Unknown` for a command (it may have been judged) and `Unreachable` for the rest.
//!
//! Deliberately absent: Raft traffic (raft-store has its own streams, so that a burst of bids never delays a vote) and
//! media (its own trunk).

mod estimate;
mod frames;
mod link;
mod local;
mod peer;
mod server;
#[cfg(test)]
mod tests;
mod trace;

pub(crate) use estimate::Clocks;
pub(crate) use local::{Chatroom, Local, Operated, Reading};
pub(crate) use peer::{Peer, Peers};
pub(crate) use server::{ChatsService, ClusterService, ShardsService};

use std::time::Duration;

/// Bounds of the traffic between nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Longest wait for an answer.
    pub(crate) deadline: Duration,
    /// Largest message.
    pub(crate) message_max: usize,
    /// Commands under way to (or from) one node.
    pub(crate) in_flight: usize,
    /// A clock's reading older than this says nothing about now.
    pub(crate) hold: Duration,
}

/// How often a node asks the others for their clocks. Well under `hold_ms`, or every pause of ours would look held.
pub(crate) const PING: Duration = Duration::from_millis(50);

/// A node on which everything rests holds an answer back for so long at most, and never for more than half of what the
/// asker waits for it (`Limits::deadline`).
pub(crate) const REST: Duration = Duration::from_secs(1);

/// The metadata key by which a replica that doesn't lead says who may.
const LEADER: &str = "rushroom-leader";
