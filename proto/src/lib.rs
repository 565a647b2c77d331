//! Rushroom's words on the wire and on disk.
//!
//! Generated from `rushroom/<area>/v1/*.proto`; package = folder. Nothing here has behaviour: conversions to domain
//! types live beside the domain's users (`codec`, `grpc`), so that a core never learns of an encoding. What lies
//! under `log/v1` is written to disks: never renumber, never reuse a number.

#[cfg(not(tokio_unstable))]
compile_error!(
    "build with `--cfg tokio_unstable` (set once in .cargo/config.toml): is a RUSTFLAGS variable overriding it?"
);
