//! `rushroom`: one binary, every role.
//!
//! The only place where the parts meet. `process` builds a node out of them: shards (raft-store), edge (router) and
//! media (sfu) know nothing of each other; `wiring` implements the ports that the edge owns, `grpc` carries them to
//! other nodes. `demo` starts three such processes and a show on top.
//!
//! ```text
//!   main -> config -> process -> { telemetry, health, raft-store, sfu, wiring -> router, grpc }
//!        -> admin   -> cluster.v1 of any node: an operator's commands
//!        -> demo    -> three `rushroom node` children, bots and a seller over the public protocol
//! ```
//!
//! Deliberately absent here: rules, protocols, retries. Whoever looks for behaviour goes one crate further.

mod admin;
mod backup;
mod cli;
mod config;
mod demo;
mod grpc;
mod health;
mod join;
mod life;
mod listen;
mod metrics;
mod process;
mod telemetry;
mod tls;
mod verify;
mod wal;
mod wiring;

use std::process::ExitCode;

/// A bid makes some dozens of small allocations, freed on other threads than they were made on (docs/decisions/0024).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            cli::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
