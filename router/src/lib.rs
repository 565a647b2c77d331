//! The edge: what a browser talks to.
//!
//! An `Edge` is HTTP for everything that happens once and one WebSocket for everything that goes on
//! (`docs/protocol.md` is its contract). It holds no truth: auctions live in shards, reached through the ports that
//! `node` implements; what the edge adds is fan-out (one upstream feed per auction, any number of viewers) and patience
//! (an unknown outcome is asked for again, with the same id, until there is a verdict).
//!
//! ```text
//!   browser --HTTP--> http ---.                       .--> Shards (in process, gRPC)
//!   browser <--WS---> socket --+--> route (decides) --+--> Chats, Streams, Admin
//!                       ^      '--> auth, limits
//!                       '-- room <-- feed, clock, chat of one auction, encoded once for all viewers
//! ```
//!
//! Deliberately absent: Raft, disks, media packets, sessions. A token verifies by its key alone, so that a storm of
//! reconnects touches nothing but this process.

pub mod auth;
pub mod chat;
mod edge;
mod gate;
mod http;
mod limits;
pub mod metrics;
mod options;
mod pages;
pub mod ports;
mod problem;
mod room;
mod route;
mod serve;
mod socket;
mod wire;

pub use edge::{Edge, Ports};
pub use http::openapi;
pub use options::{Options, Secret};
pub use room::RoomStats;
