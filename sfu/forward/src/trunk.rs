//! Frames between two nodes: what is inside a trunk's encrypted datagram.
//!
//! ```text
//!   datagram   key id u64 | counter u64 | sealed( frame ) with AES-256-GCM; the first 16 bytes are authenticated too
//!
//!   media      1 | track u8 | epoch u32 | stream u64 | trunk sequence u32 | send stamp u32 | the RTP packet, unaltered
//!   nack       2 | track u8 | stream u64 | count u8 | trunk sequence u32 ...
//!   keyframe   3 | track u8 | stream u64
//!   ping       4 | send stamp u32          answered by a pong with the same stamp
//!   pong       5 | send stamp u32
//!   capture   32 | track u8 | stream u64 | RTP time u32 | its instant i64 | rate u32 | count u8 | leg u32 ...
//!   ask time  33 | asked i64               answered by the time
//!   time      34 | asked i64 | read i64
//! ```
//!
//! The trunk sequence is the low half of the packet's extended number at the origin, the same on every hop: so a node may
//! ask any other for what it misses, and knows a packet that it has already. Stamps are ms on the sender's clock,
//! instants and legs (from capture to each node of the way) µs on it. Numbers are big-endian.

use crate::capture::Line;
use alloc::vec::Vec;

/// Datagram bytes before the sealed frame.
pub const OUTER: usize = 16;
/// Bytes of a media frame before its RTP packet.
pub const MEDIA_HEAD: usize = 22;
/// Numbers in one NACK frame.
pub const NACK_MAX: usize = 255;
/// Legs in one capture frame: nodes of a way.
pub const LEGS_MAX: usize = 8;

/// A frame, borrowed from its datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// A packet of a track.
    Media {
        /// The publication's count at its origin.
        epoch: u32,
        /// The stream's number.
        stream: u64,
        /// The track's number.
        track: u8,
        /// Low half of the packet's extended sequence number.
        sequence: u32,
        /// When it was sent, ms on the sender's clock.
        stamp: u32,
        /// The publisher's packet.
        rtp: &'a [u8],
    },
    /// Packets asked for again.
    Nack {
        /// The stream's number.
        stream: u64,
        /// The track's number.
        track: u8,
        /// Trunk sequences.
        sequences: Vec<u32>,
    },
    /// A keyframe asked for.
    Keyframe {
        /// The stream's number.
        stream: u64,
        /// The track's number.
        track: u8,
    },
    /// Asks for a pong.
    Ping {
        /// The asker's clock.
        stamp: u32,
    },
    /// Answers a ping.
    Pong {
        /// The asker's clock, given back.
        stamp: u32,
    },
    /// When a track was captured.
    Capture {
        /// The stream's number.
        stream: u64,
        /// The track's number.
        track: u8,
        /// In the sender's clock.
        line: Line,
        /// From capture until a picture is whole at each node of the way, the sender last.
        legs: Vec<u32>,
    },
    /// Asks what the clock shows.
    AskTime {
        /// The asker's clock, µs.
        asked: i64,
    },
    /// What it shows.
    Time {
        /// The asker's clock, given back.
        asked: i64,
        /// The answerer's, µs.
        read: i64,
    },
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    /// A capture frame after its kind.
    fn capture(&mut self) -> Option<Frame<'a>> {
        let (track, stream) = (self.u8()?, self.u64()?);
        let line = Line {
            rtp: self.u32()?,
            at: self.i64()?,
            rate: self.u32()?,
        };
        let count = usize::from(self.u8()?);
        let legs: Option<Vec<u32>> = (0..count.min(LEGS_MAX)).map(|_| self.u32()).collect();
        Some(Frame::Capture {
            stream,
            track,
            line,
            legs: legs?,
        })
    }
}

impl<'a> Frame<'a> {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Media {
                epoch,
                stream,
                track,
                sequence,
                stamp,
                rtp,
            } => {
                out.extend_from_slice(&[1, *track]);
                out.extend_from_slice(&epoch.to_be_bytes());
                out.extend_from_slice(&stream.to_be_bytes());
                out.extend_from_slice(&sequence.to_be_bytes());
                out.extend_from_slice(&stamp.to_be_bytes());
                out.extend_from_slice(rtp);
            }
            Frame::Nack {
                stream,
                track,
                sequences,
            } => {
                let sequences = &sequences[..sequences.len().min(NACK_MAX)];
                out.extend_from_slice(&[2, *track]);
                out.extend_from_slice(&stream.to_be_bytes());
                out.push(sequences.len() as u8);
                for sequence in sequences {
                    out.extend_from_slice(&sequence.to_be_bytes());
                }
            }
            Frame::Keyframe { stream, track } => {
                out.extend_from_slice(&[3, *track]);
                out.extend_from_slice(&stream.to_be_bytes());
            }
            Frame::Ping { stamp } => {
                out.push(4);
                out.extend_from_slice(&stamp.to_be_bytes());
            }
            Frame::Pong { stamp } => {
                out.push(5);
                out.extend_from_slice(&stamp.to_be_bytes());
            }
            Frame::Capture {
                stream,
                track,
                line,
                legs,
            } => {
                let legs = &legs[..legs.len().min(LEGS_MAX)];
                out.extend_from_slice(&[32, *track]);
                out.extend_from_slice(&stream.to_be_bytes());
                out.extend_from_slice(&line.rtp.to_be_bytes());
                out.extend_from_slice(&line.at.to_be_bytes());
                out.extend_from_slice(&line.rate.to_be_bytes());
                out.push(legs.len() as u8);
                for leg in legs {
                    out.extend_from_slice(&leg.to_be_bytes());
                }
            }
            Frame::AskTime { asked } => {
                out.push(33);
                out.extend_from_slice(&asked.to_be_bytes());
            }
            Frame::Time { asked, read } => {
                out.push(34);
                out.extend_from_slice(&asked.to_be_bytes());
                out.extend_from_slice(&read.to_be_bytes());
            }
        }
    }

    /// Reads a frame. None: not one.
    pub fn decode(bytes: &'a [u8]) -> Option<Frame<'a>> {
        let mut reader = Reader(bytes);
        let frame = match reader.u8()? {
            1 => {
                let track = reader.u8()?;
                let (epoch, stream) = (reader.u32()?, reader.u64()?);
                let (sequence, stamp) = (reader.u32()?, reader.u32()?);
                return Some(Frame::Media {
                    epoch,
                    stream,
                    track,
                    sequence,
                    stamp,
                    rtp: reader.0,
                });
            }
            2 => {
                let (track, stream) = (reader.u8()?, reader.u64()?);
                let count = reader.u8()?;
                let mut sequences = Vec::with_capacity(usize::from(count));
                for _ in 0..count {
                    sequences.push(reader.u32()?);
                }
                Frame::Nack {
                    stream,
                    track,
                    sequences,
                }
            }
            3 => Frame::Keyframe {
                track: reader.u8()?,
                stream: reader.u64()?,
            },
            4 => Frame::Ping { stamp: reader.u32()? },
            5 => Frame::Pong { stamp: reader.u32()? },
            32 => reader.capture()?,
            33 => Frame::AskTime { asked: reader.i64()? },
            34 => Frame::Time {
                asked: reader.i64()?,
                read: reader.i64()?,
            },
            _ => return None,
        };
        reader.0.is_empty().then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[track_caller]
    fn check(frame: Frame<'_>) {
        let mut out = vec![];
        frame.encode(&mut out);
        assert_eq!(Frame::decode(&out), Some(frame));
        for end in 0..out.len().min(MEDIA_HEAD) {
            assert_eq!(Frame::decode(&out[..end]), None, "cut to {end}");
        }
    }

    #[test]
    fn frames_come_back() {
        check(Frame::Media {
            epoch: 1,
            stream: 2,
            track: 3,
            sequence: 4,
            stamp: 5,
            rtp: b"rtp",
        });
        check(Frame::Nack {
            stream: u64::MAX,
            track: 1,
            sequences: vec![1, u32::MAX],
        });
        check(Frame::Keyframe { stream: 7, track: 0 });
        check(Frame::Ping { stamp: 9 });
        check(Frame::Pong { stamp: 9 });
        let line = Line {
            rtp: 1,
            at: -2,
            rate: 90_000,
        };
        for legs in [vec![], vec![3, u32::MAX]] {
            check(Frame::Capture {
                stream: 4,
                track: 5,
                line,
                legs,
            });
        }
        check(Frame::AskTime { asked: -6 });
        check(Frame::Time { asked: 7, read: -8 });
    }

    #[test]
    fn the_head_is_as_long_as_it_says() {
        let mut out = vec![];
        Frame::Media {
            epoch: 1,
            stream: 2,
            track: 3,
            sequence: 4,
            stamp: 5,
            rtp: b"",
        }
        .encode(&mut out);
        assert_eq!(out.len(), MEDIA_HEAD);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            Frame::decode(&bytes);
        }
    }
}
