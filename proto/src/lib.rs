//! Rushroom's words on the wire and on disk.
//!
//! Generated from `rushroom/<area>/v1/*.proto`; package = folder. Nothing here has behaviour: conversions to domain
//! types live beside the domain's users (`codec`, `grpc`), so that a core never learns of an encoding. What lies
//! under `log/v1` is written to disks: never renumber, never reuse a number.

#[cfg(not(tokio_unstable))]
compile_error!(
    "build with `--cfg tokio_unstable` (set once in .cargo/config.toml): is a RUSTFLAGS variable overriding it?"
);

/// What lies in logs and snapshots.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod log {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("rushroom.log.v1");
    }
}

/// Replica to replica.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod raft {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("rushroom.raft.v1");
    }
}

/// SFU to SFU.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod relay {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("rushroom.relay.v1");
    }
}

/// Node to node: commands, reads, feeds, clocks, chat.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod shard {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("rushroom.shard.v1");
    }
}

/// Operator to node.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod cluster {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("rushroom.cluster.v1");
    }
}
