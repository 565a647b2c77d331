//! Shards as Raft groups: one durable order of money and time, kept by three nodes.
//!
//! ```text
//!   commands --> lanes --> proposer --> port::Log --> group (openraft) --> wal (one per node, fsync)
//!                            ^  clock      |             |    ^
//!                            |             |         network / server (tonic) <--> other nodes
//!                            '-- state <-- state_machine <----'
//!                                   |          '--> snapshot files
//!                                   '--> feed --> followers
//! ```
//!
//! `Host` is the way in: it holds this node's replicas of every group, and shard 0 (`meta`) tells it which those are.
//! What is decided lies in `auction`; when it is decided lies in `clock`, with the lanes and the proposer; that it stays
//! decided lies in `wal`, `log_store`, `state_machine` and openraft. No type of openraft's leaves this crate.
//!
//! Deliberately absent: HTTP, WebSockets, routing between nodes (the edge's), rules (the core's), what should
//! move where (`placement`'s).

mod behind;
pub mod clock;
pub mod codec;
mod cold;
pub mod dial;
pub mod feed;
pub mod fitness;
mod group;
pub mod host;
pub mod image;
mod janitor;
mod log_store;
mod marks;
mod membership;
mod meta;
pub mod metrics;
pub mod mover;
mod moves;
mod network;
pub mod options;
mod peers;
pub mod port;
mod pulse;
mod refound;
mod rest;
mod server;
#[cfg(feature = "sim")]
pub mod sim;
mod snapshot;
pub mod state;
mod state_machine;
pub mod types;
pub mod versions;
pub mod wal;
mod wire;
mod world;

pub use behind::Behind;
pub use dial::{Dial, Speaker};
pub use fitness::Unfit;
pub use host::{
    Ask, DIVERGED, Founded, Fresh, GroupStatus, Host, NodeVersion, OpenError, ReadError, Reading, RefoundError, Role,
    Source, SteerError, Weighed,
};
pub use image::{ImageError, Proven, prove};
pub use moves::MovesService;
pub use options::{Options, RaftOptions};
pub use port::{Leadership, Log, ProposeError};
pub use server::RaftService;
pub use state::{Cut, Lost, State};
pub use types::{MetaCommand, Payload, TraceContext};
pub use world::World;
