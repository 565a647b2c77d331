//! What a forwarder must know of a payload: does a picture that needs no other start here?
//!
//! VP8 (RFC 7741), H.264 (RFC 6184), VP9 (RFC 9628). Nothing is decoded; anything unreadable is 'no'.

/// What this service carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Codec {
    /// VP8 video.
    Vp8,
    /// H.264 video.
    H264,
    /// VP9 video.
    Vp9,
    /// Opus audio.
    Opus,
}

impl Codec {
    /// By its name in SDP, whatever the case.
    pub fn by_name(name: &str) -> Option<Codec> {
        [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Opus]
            .into_iter()
            .find(|c| c.name().eq_ignore_ascii_case(name))
    }

    /// Its name in SDP.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Vp8 => "VP8",
            Codec::H264 => "H264",
            Codec::Vp9 => "VP9",
            Codec::Opus => "opus",
        }
    }

    /// Video, not audio.
    pub fn is_video(self) -> bool {
        self != Codec::Opus
    }

    /// RTP clock, Hz.
    pub fn clock_rate(self) -> u32 {
        if self.is_video() { 90_000 } else { 48_000 }
    }

    /// This packet starts a picture that needs no other.
    pub fn starts_keyframe(self, payload: &[u8]) -> bool {
        match self {
            Codec::Vp8 => vp8(payload).unwrap_or(false),
            Codec::H264 => h264(payload).unwrap_or(false),
            Codec::Vp9 => vp9(payload).unwrap_or(false),
            Codec::Opus => true,
        }
    }
}

fn vp8(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let mut at = 1;
    if first & 0x80 != 0 {
        let extended = *payload.get(at)?;
        at += 1;
        if extended & 0x80 != 0 {
            at += if *payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(extended & 0x40 != 0) + usize::from(extended & 0x30 != 0);
    }
    // S bit and partition 0: the first packet of the picture; then the frame tag's lowest bit is 0 for a keyframe.
    let starts = first & 0x10 != 0 && first & 0x07 == 0;
    Some(starts && *payload.get(at)? & 0x01 == 0)
}

fn h264(payload: &[u8]) -> Option<bool> {
    const SPS: u8 = 7;
    const IDR: u8 = 5;
    match *payload.first()? & 0x1f {
        // A stream that repeats its parameter sets starts a group with them.
        SPS | IDR => Some(true),
        // STAP-A: any unit within.
        24 => {
            let mut rest = payload.get(1..)?;
            while rest.len() > 2 {
                let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                if matches!(*rest.get(2)? & 0x1f, SPS | IDR) {
                    return Some(true);
                }
                rest = rest.get(2 + length..)?;
            }
            Some(false)
        }
        // FU-A: the first fragment tells.
        28 => {
            let fragment = *payload.get(1)?;
            Some(fragment & 0x80 != 0 && fragment & 0x1f == IDR)
        }
        _ => Some(false),
    }
}

fn vp9(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let (has_id, inter, has_layers, starts) = (first & 0x80, first & 0x40, first & 0x20, first & 0x08);
    if inter != 0 || starts == 0 {
        return Some(false);
    }
    let mut at = 1;
    if has_id != 0 {
        at += if *payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    if has_layers == 0 {
        return Some(true);
    }
    // The lowest spatial layer starts the picture.
    Some((*payload.get(at)? >> 1) & 0x07 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(codec: Codec, payload: &[u8], expect: bool) {
        assert_eq!(codec.starts_keyframe(payload), expect, "{codec:?} {payload:02x?}");
    }

    #[test]
    fn keyframes_by_codec() {
        check(Codec::Vp8, &[0x10, 0x00], true);
        check(Codec::Vp8, &[0x10, 0x01], false);
        check(Codec::Vp8, &[0x00, 0x00], false);
        check(Codec::Vp8, &[0x90, 0xe0, 0x81, 0x02, 0x03, 0x04, 0x50], true);
        check(Codec::Vp8, &[0x90, 0x80, 0x01], false);
        check(Codec::H264, &[0x67, 0x42], true);
        check(Codec::H264, &[0x65], true);
        check(Codec::H264, &[0x41], false);
        check(Codec::H264, &[0x78, 0, 2, 0x41, 0, 0, 1, 0x65], true);
        check(Codec::H264, &[0x7c, 0x85], true);
        check(Codec::H264, &[0x7c, 0x05], false);
        check(Codec::Vp9, &[0x88, 0x01], true);
        check(Codec::Vp9, &[0xc8, 0x01], false);
        check(Codec::Vp9, &[0xa8, 0x01, 0x02], false);
        check(Codec::Opus, &[], true);
    }

    proptest! {
        #[test]
        fn any_payload_is_taken(payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            for codec in [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Opus] {
                codec.starts_keyframe(&payload);
            }
        }
    }
}
