//! The media plane: a seller's video in (WHIP), the crowd's video out (WHEP), relays between nodes.
//!
//! ```text
//!   seller --WHIP--> ingest --> stage --> lanes --> viewers       node A, the origin
//!                                 |
//!                                 '--> trunk (one encrypted UDP flow per node pair)
//!                                        |
//!                                        v
//!                              pull --> stage --> lanes --> viewers    node B, a relay: one copy for its whole region
//! ```
//!
//! A `stage` is one auction's video at this node: its tracks, each with one shared ring of packets from which
//! everything is served: live packets, retransmissions to viewers and to other nodes, the picture group that a
//! newcomer starts with. Where its packets come from (a publisher here, or a relay) is the stage's only difference
//! between an origin and a relay.
//!
//! Media and auction know each other by events only: `StreamEvent` goes out, `Media::set_origin` comes in.
//!
//! Deliberately absent: HTTP (the edge speaks WHIP and WHEP and calls `Media`), tokens, decoding, mixing, recording.
//! The packet path's rules are values in `forward`; this crate owns their sockets, threads and clocks.

mod capture;
mod carrier;
mod control;
mod edge;
mod error;
mod ingest;
mod lane;
mod media;
mod metrics;
mod options;
mod outbox;
mod pull;
mod reports;
mod rtcp;
mod sdp;
mod session;
mod spread;
mod stage;
#[cfg(test)]
mod steady;
mod trunk;
mod viewer;

pub use capture::Captured;
pub use control::{RelayControl, RelayServer, RelayService, Speaker, TonicControl};
pub use error::{ControlError, MediaError};
pub use media::{Answer, Media, StreamEvent, StreamStats};
pub use options::{Options, Peer};
