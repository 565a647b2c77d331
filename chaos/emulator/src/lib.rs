//! A bad network between real sockets, decided by a seed.
//!
//! ```text
//!   peer --UDP--> proxy --(Link: what becomes of it, and when)--> UDP --> peer
//! ```
//!
//! `Link` is one direction, and pure: a datagram's moment and size in, its fate out. It has no clock and no socket, so the
//! same seed and the same datagrams have the same fate each time. `Proxy` is its shell: sockets, a queue by due time, tokio's
//! timer (which is good to a millisecond; a link in the proxy is late by that much, never early).

mod link;
mod proxy;

pub use link::{Burst, Counts, Fate, Link, Lost, Rate, Weather};
pub use proxy::{Proxy, Seen};
