//! `rushroom admin`: an operator's commands, and the service that answers them.
//!
//! ```text
//!   rushroom admin … --> client (gRPC) --> any node: service --> Host::steer --> shard 0
//!        tables, json <-- wire <---------------'
//! ```
//!
//! Operators plan, read, apply: every write takes `--dry-run`; `plan show` is one for all that is open; `--version` applies
//! to what was read and nothing else. What would break something is refused with the reason; a few things go with
//! `--force REASON`, which is kept in the audit.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 not understood (clap's), 3 not reached, 4 `--wait` gave up.

mod args;
mod backup;
mod client;
pub(crate) mod json;
mod refound;
mod roll;
mod run;
mod service;
mod tables;
mod wire;

pub(crate) use args::AdminArgs;
pub(crate) use run::{run, wall_ms};
pub(crate) use service::{AdminService, change, found, reason, refused};
pub(crate) use wire::{Overview, change_to, overview_from};
