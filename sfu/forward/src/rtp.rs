//! RTP headers (RFC 3550, RFC 8285): read in place, rewritten into the caller's buffer.
//!
//! A leg to a viewer has its own payload types, SSRCs and extension ids; a packet is relayed by writing a new header
//! before the same payload. Extensions whose id isn't mapped are left out: a receiver drops, or misreads, what was
//! never negotiated with it.

use alloc::vec::Vec;
use core::ops::Range;

/// The fixed part of an RTP header.
pub const FIXED: usize = 12;

/// Bytes that aren't an RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// A parsed header; ranges index the packet that it was parsed from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Last packet of a picture (video), first of a talk spurt (audio).
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in the codec's clock.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
    /// Extension profile (0xBEDE: one-byte form, 0x1000: two-byte form) and where its elements lie.
    pub extension: Option<(u16, Range<usize>)>,
    /// Where the payload lies, padding excluded.
    pub payload: Range<usize>,
}

fn u16_at(raw: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = raw.get(at..at + 2).ok_or(Malformed)?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn u32_at(raw: &[u8], at: usize) -> Result<u32, Malformed> {
    let bytes = raw.get(at..at + 4).ok_or(Malformed)?;
    Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

impl Header {
    /// Reads a header. Total: any bytes give a header whose ranges lie inside, or `Malformed`.
    pub fn parse(raw: &[u8]) -> Result<Header, Malformed> {
        let (first, second) = match raw {
            [first, second, ..] if first >> 6 == 2 => (*first, *second),
            _ => return Err(Malformed),
        };
        let mut at = FIXED + usize::from(first & 0x0f) * 4;
        let mut extension = None;
        if first & 0x10 != 0 {
            let profile = u16_at(raw, at)?;
            let length = usize::from(u16_at(raw, at + 2)?) * 4;
            extension = Some((profile, at + 4..at + 4 + length));
            at += 4 + length;
        }
        let padding = if first & 0x20 != 0 {
            usize::from(*raw.last().ok_or(Malformed)?)
        } else {
            0
        };
        let end = raw.len().checked_sub(padding).ok_or(Malformed)?;
        if end < at || (first & 0x20 != 0 && padding == 0) {
            return Err(Malformed);
        }
        Ok(Header {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: u16_at(raw, 2)?,
            timestamp: u32_at(raw, 4)?,
            ssrc: u32_at(raw, 8)?,
            extension,
            payload: at..end,
        })
    }

    /// The extension elements (id, data), in order; ends at the first that doesn't fit.
    pub fn elements<'a>(&self, raw: &'a [u8]) -> Elements<'a> {
        match &self.extension {
            Some((profile, range)) => Elements {
                two_byte: profile & 0xfff0 == 0x1000,
                rest: match profile {
                    0xbede | 0x1000..=0x100f => raw.get(range.clone()).unwrap_or(&[]),
                    _ => &[],
                },
            },
            None => Elements {
                two_byte: false,
                rest: &[],
            },
        }
    }
}

/// Iterator over extension elements.
pub struct Elements<'a> {
    two_byte: bool,
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            if first == 0 {
                // One byte of padding.
                self.rest = rest;
                continue;
            }
            let (id, length, rest) = if self.two_byte {
                let (&length, rest) = rest.split_first()?;
                (first, usize::from(length), rest)
            } else if first >> 4 == 15 {
                return None;
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1, rest)
            };
            if rest.len() < length {
                self.rest = &[];
                return None;
            }
            let (data, rest) = rest.split_at(length);
            self.rest = rest;
            return Some((id, data));
        }
    }
}

/// Which extension of the source leg has which id on the target leg; what isn't mapped is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extensions {
    to: [u8; 16],
}

impl Extensions {
    /// Nothing passes.
    pub const NONE: Extensions = Extensions { to: [0; 16] };

    /// Lets `from` (1..=14) pass as `to` (1..=14); other ids are ignored.
    pub fn map(mut self, from: u8, to: u8) -> Extensions {
        if (1..=14).contains(&from) && (1..=14).contains(&to) {
            self.to[usize::from(from)] = to;
        }
        self
    }

    fn target(&self, id: u8) -> u8 {
        self.to.get(usize::from(id)).copied().unwrap_or(0)
    }
}

/// What a leg puts into the header in place of the source's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The leg's payload type.
    pub payload_type: u8,
    /// The leg's sequence number.
    pub sequence: u16,
    /// The leg's timestamp.
    pub timestamp: u32,
    /// The leg's SSRC.
    pub ssrc: u32,
}

fn fixed(header: &Header, stamp: Stamp, out: &mut Vec<u8>) {
    out.push(0x80);
    out.push((u8::from(header.marker) << 7) | (stamp.payload_type & 0x7f));
    out.extend_from_slice(&stamp.sequence.to_be_bytes());
    out.extend_from_slice(&stamp.timestamp.to_be_bytes());
    out.extend_from_slice(&stamp.ssrc.to_be_bytes());
}

/// Appends the packet as one of a retransmission stream (RFC 4588): `stamp` is that stream's, `original` the number under which
/// the packet went out first. Gives the length of its header.
pub fn rewrite_again(raw: &[u8], header: &Header, stamp: Stamp, original: u16, out: &mut Vec<u8>) -> usize {
    fixed(header, stamp, out);
    out.extend_from_slice(&original.to_be_bytes());
    out.extend_from_slice(raw.get(header.payload.clone()).unwrap_or(&[]));
    FIXED
}

/// Appends the packet anew to `out`: the leg's header, mapped extensions, the same payload. Contributing sources and padding
/// are left out. Gives the length of its header.
pub fn rewrite(raw: &[u8], header: &Header, stamp: Stamp, extensions: &Extensions, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    fixed(header, stamp, out);
    let start = out.len();
    if *extensions != Extensions::NONE {
        for (id, data) in header.elements(raw) {
            let target = extensions.target(id);
            // The one-byte form holds 1 to 16 bytes; what is longer or empty is left out with the unmapped.
            if target != 0 && (1..=16).contains(&data.len()) {
                if out.len() == start {
                    out.extend_from_slice(&[0xbe, 0xde, 0, 0]);
                }
                out.push((target << 4) | (data.len() as u8 - 1));
                out.extend_from_slice(data);
            }
        }
    }
    if out.len() > start {
        while !(out.len() - start).is_multiple_of(4) {
            out.push(0);
        }
        let words = ((out.len() - start) / 4 - 1) as u16;
        out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
        out[begin] |= 0x10;
    }
    let length = out.len() - begin;
    out.extend_from_slice(raw.get(header.payload.clone()).unwrap_or(&[]));
    length
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn packet(extension: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut raw = vec![0x80, 0x80 | 96, 0, 7, 0, 0, 0, 9, 0, 0, 0, 1];
        if !extension.is_empty() {
            raw[0] |= 0x10;
            raw.extend_from_slice(extension);
        }
        raw.extend_from_slice(payload);
        raw
    }

    const STAMP: Stamp = Stamp {
        payload_type: 102,
        sequence: 65_535,
        timestamp: 4,
        ssrc: 5,
    };

    #[test]
    fn header_is_read_as_it_stands() {
        let raw = packet(&[], b"abc");
        let header = Header::parse(&raw).unwrap();
        assert_eq!((header.marker, header.payload_type, header.sequence), (true, 96, 7));
        assert_eq!((header.timestamp, header.ssrc, header.payload), (9, 1, 12..15));
    }

    #[test]
    fn unmapped_extensions_are_left_out_mapped_ones_change_their_id() {
        // Ids 3 (two bytes) and 4 (one byte), padded to two words.
        let raw = packet(&[0xbe, 0xde, 0, 2, 0x31, 1, 2, 0x40, 9, 0, 0, 0], b"xyz");
        let header = Header::parse(&raw).unwrap();
        let mut out = Vec::new();
        rewrite(&raw, &header, STAMP, &Extensions::NONE.map(4, 7), &mut out);
        let again = Header::parse(&out).unwrap();
        assert_eq!(again.elements(&out).collect::<Vec<_>>(), vec![(7, &[9u8][..])]);
        assert_eq!(&out[again.payload], b"xyz");
        let before = out.clone();
        let length = rewrite(&raw, &header, STAMP, &Extensions::NONE, &mut out);
        assert_eq!((length, out.len()), (FIXED, before.len() + FIXED + 3));
        assert!(out.starts_with(&before), "what was there stays");
    }

    #[test]
    fn a_packet_that_goes_again_leads_with_its_first_number() {
        let raw = packet(&[0xbe, 0xde, 0, 1, 0x40, 9, 0, 0], b"xyz");
        let header = Header::parse(&raw).unwrap();
        let mut out = b"before".to_vec();
        assert_eq!(rewrite_again(&raw, &header, STAMP, 0x0102, &mut out), FIXED);
        let again = Header::parse(&out[6..]).unwrap();
        assert_eq!((again.ssrc, again.payload_type, again.sequence), (5, 102, 65_535));
        assert_eq!((again.timestamp, again.marker), (4, true));
        assert_eq!(&out[6..][again.payload], b"\x01\x02xyz");
    }

    #[test]
    fn what_is_not_rtp_is_refused() {
        for bad in [&[][..], &[0x80], &[0x00; 20], &[0x90; 12], &[0x8f; 13], &[0xa0; 12]] {
            let refused = Header::parse(bad).is_err();
            assert!(refused, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_ranges_lie_inside(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(header) = Header::parse(&raw) {
                prop_assert!(header.payload.end <= raw.len());
                header.elements(&raw).count();
                let mut out = Vec::new();
                rewrite(&raw, &header, STAMP, &Extensions::NONE.map(1, 2).map(3, 3), &mut out);
                let again = Header::parse(&out);
                prop_assert!(again.is_ok());
            }
        }

        #[test]
        fn payload_and_marker_survive_all_else_is_the_legs(
            payload in proptest::collection::vec(any::<u8>(), 0..60), marker: bool, sequence: u16, timestamp: u32,
            ssrc: u32, payload_type in 0u8..128,
        ) {
            let mut raw = packet(&[0xbe, 0xde, 0, 1, 0x12, 1, 2, 3], &payload);
            raw[1] = (u8::from(marker) << 7) | 96;
            let stamp = Stamp { payload_type, sequence, timestamp, ssrc };
            let header = Header::parse(&raw).unwrap();
            let mut out = Vec::new();
            rewrite(&raw, &header, stamp, &Extensions::NONE.map(1, 5), &mut out);
            let again = Header::parse(&out).unwrap();
            prop_assert_eq!(&out[again.payload.clone()], &payload[..]);
            prop_assert_eq!(again.marker, marker);
            let got = Stamp { payload_type: again.payload_type, sequence: again.sequence,
                timestamp: again.timestamp, ssrc: again.ssrc };
            prop_assert_eq!(got, stamp);
        }
    }
}
