//! STUN as an ICE-lite answerer needs it (RFC 8489, RFC 8445): read binding requests, authenticate them, answer.
//!
//! We never ask, so this is all of ICE on our side: the full agent at the other end checks, chooses and keeps consent.
//! An answer to the first request with `USE-CANDIDATE` goes out at once, which is what makes a join quick.

use ring::hmac;
use std::net::{IpAddr, SocketAddr};

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEAD: usize = 20;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
/// HMAC-SHA1 length.
const MAC: usize = 20;

/// A binding request, read in place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    transaction: [u8; 12],
    /// `local:remote` user fragments.
    pub(crate) username: &'a str,
    /// The peer chose this pair.
    pub(crate) nominated: bool,
    /// Where the integrity attribute starts.
    integrity_at: usize,
}

/// The first byte says that this may be STUN (RFC 7983).
pub(crate) fn is_stun(bytes: &[u8]) -> bool {
    bytes.len() >= HEAD && bytes[0] < 4 && bytes[4..8] == COOKIE
}

/// Reads a binding request. None: something else, or malformed. Not authenticated yet.
pub(crate) fn request(bytes: &[u8]) -> Option<Request<'_>> {
    if !is_stun(bytes) || u16::from_be_bytes([bytes[0], bytes[1]]) != BINDING_REQUEST {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    if length + HEAD != bytes.len() || length % 4 != 0 {
        return None;
    }
    let (mut username, mut nominated, mut integrity_at) = (None, false, None);
    let mut at = HEAD;
    while at + 4 <= bytes.len() && integrity_at.is_none() {
        let kind = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        let value = bytes.get(at + 4..at + 4 + length)?;
        match kind {
            USERNAME => username = Some(std::str::from_utf8(value).ok()?),
            USE_CANDIDATE => nominated = true,
            MESSAGE_INTEGRITY if length == MAC => integrity_at = Some(at),
            _ => {}
        }
        at += 4 + length.next_multiple_of(4);
    }
    let transaction: [u8; 12] = bytes.get(8..HEAD)?.try_into().ok()?;
    Some(Request {
        transaction,
        username: username?,
        nominated,
        integrity_at: integrity_at?,
    })
}

impl Request<'_> {
    /// Our user fragment, by which the viewer is found.
    pub(crate) fn local_ufrag(&self) -> &str {
        self.username.split(':').next().unwrap_or("")
    }

    /// The request was made by somebody who knows our password.
    pub(crate) fn is_authentic(&self, bytes: &[u8], password: &str) -> bool {
        let Some(mac) = bytes.get(self.integrity_at + 4..self.integrity_at + 4 + MAC) else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let signed = signed_part(bytes, self.integrity_at);
        hmac::verify(&key, &signed, mac).is_ok()
    }

    /// The success answer: where we saw the request come from.
    pub(crate) fn answer(&self, from: SocketAddr, password: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        out.extend_from_slice(&BINDING_SUCCESS.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&COOKIE);
        out.extend_from_slice(&self.transaction);
        attribute(&mut out, XOR_MAPPED_ADDRESS, &self.xor_address(from));
        let at = out.len();
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let mac = hmac::sign(&key, &signed_part(&out, at));
        attribute(&mut out, MESSAGE_INTEGRITY, mac.as_ref());
        set_length(&mut out, 8);
        let crc = crc32(&out) ^ 0x5354_554e;
        attribute(&mut out, FINGERPRINT, &crc.to_be_bytes());
        out
    }

    fn xor_address(&self, from: SocketAddr) -> Vec<u8> {
        let port = (from.port() ^ 0x2112).to_be_bytes();
        let mut mask = COOKIE.to_vec();
        mask.extend_from_slice(&self.transaction);
        let (family, octets) = match from.ip() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let mut value = vec![0, family, port[0], port[1]];
        value.extend(octets.iter().zip(&mask).map(|(octet, mask)| octet ^ mask));
        value
    }
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    set_length(out, 0);
}

/// Writes the length field as if `more` bytes were still to come.
fn set_length(out: &mut [u8], more: usize) {
    let length = ((out.len() - HEAD + more) as u16).to_be_bytes();
    out[2..4].copy_from_slice(&length);
}

/// What the integrity covers: all before it, with a length that ends with it.
fn signed_part(bytes: &[u8], integrity_at: usize) -> Vec<u8> {
    let mut signed = bytes[..integrity_at].to_vec();
    set_length(&mut signed, 4 + MAC);
    signed
}

/// CRC-32 (ISO-HDLC), bit by bit: 80 bytes a join and a few each second don't earn a table.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 != 0 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// RFC 5769, 2.1: sample request; password `VOkJxbRl1RmTxUk/WvJxBt`, user `evtj:h6vY`.
    const SAMPLE: [u8; 108] = [
        0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87,
        0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73, 0x74, 0x20, 0x63, 0x6c,
        0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff, 0x80, 0x29, 0x00, 0x08, 0x93, 0x2f,
        0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76,
        0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e,
        0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49, 0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
    ];
    const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

    #[test]
    fn the_rfcs_sample_is_read_and_authentic() {
        let request = request(&SAMPLE).unwrap();
        assert_eq!(
            (request.username, request.local_ufrag(), request.nominated),
            ("evtj:h6vY", "evtj", false)
        );
        assert!(request.is_authentic(&SAMPLE, PASSWORD));
        assert!(!request.is_authentic(&SAMPLE, "another"));
        let mut changed = SAMPLE;
        changed[44] ^= 1;
        assert!(!super::request(&changed).unwrap().is_authentic(&changed, PASSWORD));
    }

    #[test]
    fn the_fingerprint_is_the_rfcs() {
        assert_eq!(crc32(&SAMPLE[..100]) ^ 0x5354_554e, 0xe57a_3bcf);
    }

    #[test]
    fn another_implementation_reads_our_answer() {
        for from in ["192.0.2.1:32853", "[2001:db8::1]:5"] {
            let from: SocketAddr = from.parse().unwrap();
            let bytes = request(&SAMPLE).unwrap().answer(from, PASSWORD);
            let mut message = rtc::stun::message::Message::new();
            message.raw = bytes.clone();
            message.decode().unwrap();
            let mut address = rtc::stun::xoraddr::XorMappedAddress::default();
            use rtc::stun::message::Getter as _;
            address.get_from(&message).unwrap();
            assert_eq!((address.ip, address.port), (from.ip(), from.port()));
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, PASSWORD.as_bytes());
            let at = bytes.len() - 8 - 24;
            assert!(hmac::verify(&key, &signed_part(&bytes, at), &bytes[at + 4..at + 24]).is_ok());
        }
    }

    #[test]
    fn cut_or_changed_bytes_are_no_request() {
        for end in 0..SAMPLE.len() {
            assert_eq!(request(&SAMPLE[..end]), None, "cut to {end}");
        }
        for at in 0..SAMPLE.len() {
            let mut changed = SAMPLE;
            changed[at] = 0xff;
            if let Some(request) = request(&changed) {
                let _ = request.is_authentic(&changed, PASSWORD);
            }
        }
    }
}
