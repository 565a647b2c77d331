//! The clock of a shard, whole: how time is read, who may stamp, where commands wait, what goes into the log and when.
//!
//! ```text
//!   sockets --> proposer --------------------- lock ---------------------> port::Log
//!               task, futures   | office: door, stamp, place; pack; settle |
//!                               |   reading   lanes   pending              |
//! ```
//!
//! | file | what it knows |
//! |---|---|
//! | `reading` | the held reading of one office, and the argument for it |
//! | `lanes` | where commands wait between their stamp and the log |
//! | `pending` | who waits for which command |
//! | `office` | one replica's time as leader, whole, as a value |
//! | `proposer` | the task around it: the only writer of a shard |
//!
//! Deliberately absent: what a stamp does to an auction (the core's `Shard::apply`).

pub mod lanes;
pub mod office;
pub mod pending;
pub mod proposer;
mod reading;

#[cfg(test)]
pub(crate) use reading::Plant;
pub use reading::{Clock, Options};
