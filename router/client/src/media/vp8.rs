//! VP8 in RTP (RFC 7741): frames cut into packets, and packets counted back into whole frames.

use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// Payload bytes of a packet, descriptor included: fits any path with room for RTP, SRTP and a trunk.
pub const PAYLOAD_MAX: usize = 1_100;
const DESCRIPTOR: usize = 4;
/// Frames that may be incomplete at once; the oldest is given up.
const OPEN_MAX: usize = 64;

/// Cuts a frame into payloads: descriptor with a 15-bit picture id, then the bytes.
pub fn packetise(frame: &Bytes, picture: u16) -> Vec<Bytes> {
    let mut payloads = Vec::new();
    let mut at = 0;
    while at < frame.len() {
        let end = (at + PAYLOAD_MAX - DESCRIPTOR).min(frame.len());
        let mut payload = BytesMut::with_capacity(end - at + DESCRIPTOR);
        // X; S on the first packet; partition 0.
        payload.put_u8(0x80 | if at == 0 { 0x10 } else { 0 });
        // I: a picture id follows, in two bytes.
        payload.put_u8(0x80);
        payload.put_u16(0x8000 | (picture & 0x7fff));
        payload.extend_from_slice(&frame[at..end]);
        payloads.push(payload.freeze());
        at = end;
    }
    payloads
}

/// What a packet's descriptor says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// First packet of its picture.
    pub starts: bool,
    /// The picture's number, if it is told.
    pub picture: Option<u16>,
    /// A keyframe starts here.
    pub keyframe: bool,
}

/// Reads a payload's descriptor. None: cut short.
pub fn descriptor(payload: &[u8]) -> Option<Descriptor> {
    let first = *payload.first()?;
    let starts = first & 0x10 != 0 && first & 0x07 == 0;
    let mut at = 1;
    let mut picture = None;
    if first & 0x80 != 0 {
        let extended = *payload.get(at)?;
        at += 1;
        if extended & 0x80 != 0 {
            let high = *payload.get(at)?;
            if high & 0x80 != 0 {
                picture = Some(u16::from(high & 0x7f) << 8 | u16::from(*payload.get(at + 1)?));
                at += 2;
            } else {
                picture = Some(u16::from(high));
                at += 1;
            }
        }
        at += usize::from(extended & 0x40 != 0) + usize::from(extended & 0x30 != 0);
    }
    let keyframe = starts && *payload.get(at)? & 1 == 0;
    Some(Descriptor {
        starts,
        picture,
        keyframe,
    })
}

#[derive(Default)]
struct Open {
    first: Option<u64>,
    last: Option<u64>,
    packets: u64,
    picture: Option<u16>,
    keyframe: bool,
}

/// A whole frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whole {
    /// Its number, if told.
    pub picture: Option<u16>,
    /// It needs no other.
    pub keyframe: bool,
}

/// Counts packets back into frames, in whatever order they come.
#[derive(Default)]
pub struct Frames {
    /// By extended timestamp order of arrival: timestamp to frame.
    open: BTreeMap<u32, Open>,
    /// Sequence numbers missing below the newest.
    missing: std::collections::BTreeSet<u64>,
    newest: Option<u64>,
    given_up: u64,
}

impl Frames {
    /// A packet came. Gives the frame that it completed.
    pub fn packet(&mut self, sequence: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Option<Whole> {
        let number = self.number(sequence)?;
        let described = descriptor(payload)?;
        let open = self.open.entry(timestamp).or_default();
        open.packets += 1;
        open.picture = open.picture.or(described.picture);
        open.keyframe |= described.keyframe;
        if described.starts {
            open.first = Some(number);
        }
        if marker {
            open.last = Some(number);
        }
        if let (Some(first), Some(last)) = (open.first, open.last)
            && open.packets == last + 1 - first
        {
            let open = self.open.remove(&timestamp)?;
            return Some(Whole {
                picture: open.picture,
                keyframe: open.keyframe,
            });
        }
        if self.open.len() > OPEN_MAX {
            self.open.pop_first();
        }
        None
    }

    /// The extended number; None: it came twice.
    fn number(&mut self, sequence: u16) -> Option<u64> {
        let Some(newest) = self.newest else {
            let number = (1 << 16) + u64::from(sequence);
            self.newest = Some(number);
            return Some(number);
        };
        let ahead = sequence.wrapping_sub(newest as u16) as i16;
        let number = newest.saturating_add_signed(i64::from(ahead));
        if number > newest {
            self.missing.extend(newest + 1..number);
            self.newest = Some(number);
            while self.missing.len() > 1024 {
                self.missing.pop_first();
                self.given_up += 1;
            }
            Some(number)
        } else {
            self.missing.remove(&number).then_some(number)
        }
    }

    /// Packets that are missing so far: those that may still come, and those that won't.
    pub fn missing(&self) -> u64 {
        self.missing.len() as u64 + self.given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, keyframe: bool) -> Bytes {
        let mut bytes = vec![7u8; length];
        bytes[0] = u8::from(!keyframe);
        Bytes::from(bytes)
    }

    #[test]
    fn a_frame_comes_back_whole_in_any_order() {
        let payloads = packetise(&frame(3_000, true), 77);
        assert_eq!(payloads.len(), 3);
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut frames = Frames::default();
            // A frame before, so that the order of ours is known.
            frames.packet(9, 1, true, &packetise(&frame(10, false), 76)[0]);
            let whole: Vec<Whole> = order
                .iter()
                .filter_map(|n| frames.packet(10 + *n as u16, 2, *n == 2, &payloads[*n]))
                .collect();
            assert_eq!(
                whole,
                [Whole {
                    picture: Some(77),
                    keyframe: true
                }],
                "{order:?}"
            );
            assert_eq!(frames.missing(), 0);
        }
    }

    #[test]
    fn a_hole_is_missed_until_it_is_filled_and_twice_counts_once() {
        let payloads = packetise(&frame(3_000, false), 1);
        let mut frames = Frames::default();
        assert_eq!(frames.packet(65_535, 5, false, &payloads[0]), None);
        assert_eq!(frames.packet(1, 5, true, &payloads[2]), None);
        assert_eq!(frames.packet(1, 5, true, &payloads[2]), None);
        assert_eq!(frames.missing(), 1);
        assert!(frames.packet(0, 5, false, &payloads[1]).is_some());
        assert_eq!(frames.missing(), 0);
    }

    #[test]
    fn descriptors_that_are_cut_are_none() {
        for cut in [&[][..], &[0x80], &[0x80, 0x80], &[0x80, 0x80, 0x80], &[0x10]] {
            assert_eq!(descriptor(cut), None, "{cut:?}");
        }
    }
}
