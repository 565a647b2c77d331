//! The auction core: rules, order, time. Values in, values out.
//!
//! `Shard` is what a Raft group replicates. It is told *when* (`Stamp`, from the log entry) and *what* (`Command`), and
//! answers with what became so (`Event`) and how each command was judged (`Verdict`). It never asks the time: two
//! replicas that read the same log hold the same state, to the byte (`Shard::digest`).
//!
//! ```text
//!   Proposer --Entry{at, behind, commands}--> log --> Shard::apply --> Events --> feed --> viewers
//!      ^------------ next_deadline() ---------------------'    '--> Verdicts --> whoever asked
//! ```
//!
//! Why the close is safe under load: each command is judged at its own `arrived` stamp, after its auction's timers up
//! to that stamp have run. A late beat can delay the *news* of a close, never the close itself.
//!
//! Deliberately absent: clocks, randomness, floats, I/O, queues, errors. `apply` is total: a refused bid is a value.
//! The crate is `no_std`, so that a clock read does not compile.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod auction;
pub mod bound;
pub mod chain;
pub mod cold;
pub mod command;
pub mod cut;
mod digest;
pub mod event;
mod fold;
mod hold;
pub mod id;
mod judge;
pub mod money;
mod once;
pub mod parts;
pub mod phase;
mod plant;
mod read;
pub mod refusal;
pub mod reply;
pub mod shard;
pub mod stamp;
mod table;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod view;

pub use bound::{Opening, Reserve};
pub use cold::{Cold, Settled, Sum};
pub use command::{Action, Actor, Command, Entry, Hold, Key, Rights, Stamped, Wall};
pub use event::{Event, EventKind, Outcome};
pub use fold::body_hash;
pub use id::{AuctionId, Id};
pub use money::{Currency, Money};
pub use parts::{AuctionParts, BadParts, OnceParts, Parts};
#[cfg(feature = "plant")]
pub use plant::sow;
pub use refusal::Reason;
pub use reply::{FeedItem, Position, Reply, Verdict};
pub use shard::{Applied, BodyHash, Done, Known, Limits, RULES_VERSION, Shard};
pub use stamp::{Office, Stamp};
pub use terms::{Definition, Terms, TimeRule};
pub use view::{AuctionView, Phase};
