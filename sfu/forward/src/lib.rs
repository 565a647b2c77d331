//! The packet path as values: what happens to an RTP packet between the seller and a viewer, without a socket or a clock.
//!
//! The contract of every part: it is told what came and when (milliseconds, given by the caller), changes only
//! itself, and answers what is to be done. So each rule is a ten-line test, and the threads and sockets around it
//! (`sfu`) hold no rule of their own.
//!
//! ```text
//!   packet --> rtp (parse) --> codec (keyframe? frame?) --> ring (shared, per track) --+--> offsets --> viewer
//!                                                             |   |                    |
//!                                              NACK answered -'   '- replay (a join)   '--> trunk frame --> next node
//!   viewer's PLI --> keyframe gate (merge) --> seller          gaps (what is missing, when to ask) <-- trunk frame
//! ```
//!
//! Deliberately absent: floats, allocation per packet (a rewritten packet goes into the caller's buffer), encryption.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod capture;
pub mod codec;
pub mod gaps;
pub mod keyframe;
pub mod offsets;
pub mod parent;
pub mod replay;
pub mod resend;
pub mod ring;
pub mod rtp;
pub mod sequence;
pub mod subscription;
pub mod trunk;

pub use codec::Codec;
