//! The edge over real sockets, with the real auction rules behind fake ports.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod bad_input;
mod crowd;
mod delay;
mod fake;
mod http;
mod kit;
mod rooms;
mod routing;
