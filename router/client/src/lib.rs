//! Rushroom's client: what users may link. HTTP for what happens once, one WebSocket for what goes on, and bots on top.
//!
//! ```text
//!   Bidder, Chatter, Watcher          bots: seeded, bounded
//!        |            |
//!        v            v
//!      Api          Socket ---- Countdown (EdgeClock: pings -> edge time)
//!   (problems as   (bids repeated with the same id until a verdict;
//!    typed errors)   reconnects elsewhere, resumes by epoch and offset)
//! ```
//!
//! One rule runs through all of it: *an unknown outcome is no failure*. A bid whose answer was lost is sent again under
//! the same id, here or at another node, until a verdict comes or the caller's patience ends; then the error says
//! `Unknown`, never "refused".
//!
//! Deliberately absent: the auction's rules. The server judges; a client that judged too would disagree one day.

pub mod api;
pub mod bots;
pub mod clock;
pub mod dice;
pub mod media;
pub mod socket;
pub mod wire;

pub use api::{Api, ApiError, ApiOptions, Role, Session};
pub use clock::{Countdown, EdgeClock};
pub use dice::Dice;
pub use socket::{BidError, Notice, Notices, Position, Socket, SocketOptions};
