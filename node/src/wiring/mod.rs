//! Where the parts meet: the ports that the edge owns, implemented over this node's own parts or, through `grpc`,
//! another node's.
//!
//! ```text
//!   router::Shards ----> me? Host (raft-store)     : Peer (gRPC)
//!   router::Chats -----> me? Hall of leading shards : Peer (gRPC)
//!   router::Streams ---> Media (sfu)  --Up/Down--> commands to the auction's shard, as SYSTEM
//!                          ^-- set_origin ---------- the auction's stream events
//!   router::Admin -----> status of both, stop (demo)
//! ```
//!
//! Nothing here has rules of its own beyond "is it me?".

mod admin;
mod chats;
mod copies;
mod host;
mod map;
mod shards;
mod streams;

pub(crate) use admin::{AdminPort, Handing};
pub(crate) use chats::ChatPort;
pub(crate) use host::{HostShards, Roles};
pub(crate) use map::{MapPort, follow_peers};
pub(crate) use shards::{ShardPort, follow_own_clocks};
pub(crate) use streams::StreamPort;
