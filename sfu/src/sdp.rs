//! SDP, as far as WHIP and WHEP need it: an offer is read into plain values, with every bound checked before anything
//! is built from it.
//!
//! Both doors read the offer here. The WHIP door then gives the text to the `webrtc` crate; the WHEP door answers from
//! these values (`viewer::answer`). What we don't understand is skipped; what we need and don't find is refused.

use crate::MediaError;
use forward::Codec;

/// Media sections in an offer.
const MEDIA_MAX: usize = 32;
/// Payload types in a section.
const FORMATS_MAX: usize = 128;

/// What kind of media a section carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Anything else: refused in the answer.
    Other,
}

/// Who starts DTLS, as the offer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Setup {
    /// We choose.
    ActPass,
    /// The peer starts.
    Active,
    /// We start.
    Passive,
}

/// A payload type that we could use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Format {
    pub(crate) payload_type: u8,
    pub(crate) codec: Codec,
    /// Format parameters, as they stand.
    pub(crate) fmtp: String,
    /// `opus/48000/2`, as it stands.
    pub(crate) rtpmap: String,
    /// Payload type of its retransmissions (RFC 4588), if the peer takes them as a stream of their own.
    pub(crate) again: Option<u8>,
}

/// One media section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Section {
    pub(crate) kind: Kind,
    /// `video`, `audio`, `application`.
    pub(crate) name: String,
    /// `UDP/TLS/RTP/SAVPF`.
    pub(crate) protocol: String,
    /// All payload types as listed: what a refusal repeats.
    pub(crate) listed: String,
    pub(crate) mid: String,
    /// The peer is ready to receive.
    pub(crate) receives: bool,
    /// The peer is ready to send.
    pub(crate) sends: bool,
    /// What of it we speak, in the peer's order.
    pub(crate) formats: Vec<Format>,
    /// Retransmission formats, and of which format they are (`apt`).
    again: Vec<(u8, Option<u8>)>,
}

/// An offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    pub(crate) ufrag: String,
    pub(crate) password: String,
    /// SHA-256 of the peer's certificate.
    pub(crate) fingerprint: [u8; 32],
    pub(crate) setup: Setup,
    pub(crate) sections: Vec<Section>,
}

fn token(value: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic())
}

fn fingerprint(value: &str) -> Option<[u8; 32]> {
    let (algorithm, hex) = value.split_once(' ')?;
    if !algorithm.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let mut out = [0; 32];
    let mut parts = hex.trim().split(':');
    for byte in &mut out {
        *byte = u8::from_str_radix(parts.next().filter(|p| p.len() == 2)?, 16).ok()?;
    }
    parts.next().is_none().then_some(out)
}

#[derive(Default)]
struct Reading {
    ufrag: Option<String>,
    password: Option<String>,
    fingerprint: Option<[u8; 32]>,
    setup: Option<Setup>,
    bundled: bool,
    sections: Vec<Section>,
}

impl Reading {
    fn media(&mut self, value: &str) -> Result<(), MediaError> {
        let bad = MediaError::BadSdp("a media line");
        let mut words = value.split_ascii_whitespace();
        let (Some(name), Some(port), Some(protocol)) = (words.next(), words.next(), words.next()) else {
            return Err(bad);
        };
        let listed: Vec<&str> = words.collect();
        let port_ok = port.split('/').next().is_some_and(|p| p.parse::<u16>().is_ok());
        if !port_ok || !token(name, 1..=32) || !token(protocol, 1..=32) || listed.len() > FORMATS_MAX {
            return Err(bad);
        }
        if self.sections.len() >= MEDIA_MAX {
            return Err(MediaError::BadSdp("too many media sections"));
        }
        let kind = match name {
            "video" => Kind::Video,
            "audio" => Kind::Audio,
            _ => Kind::Other,
        };
        self.sections.push(Section {
            kind,
            name: name.into(),
            protocol: protocol.into(),
            listed: listed.join(" "),
            mid: String::new(),
            receives: true,
            sends: true,
            formats: Vec::new(),
            again: Vec::new(),
        });
        Ok(())
    }

    fn attribute(&mut self, name: &str, value: &str) -> Result<(), MediaError> {
        match name {
            "ice-ufrag" if self.ufrag.is_none() => {
                self.ufrag = Some(value.into()).filter(|v: &String| token(v, 4..=256));
            }
            "ice-pwd" if self.password.is_none() => {
                self.password = Some(value.into()).filter(|v: &String| token(v, 22..=256));
            }
            "fingerprint" if self.fingerprint.is_none() => self.fingerprint = fingerprint(value),
            "setup" => {
                self.setup = match value {
                    "actpass" => Some(Setup::ActPass),
                    "active" => Some(Setup::Active),
                    "passive" => Some(Setup::Passive),
                    _ => return Err(MediaError::BadSdp("a=setup")),
                }
            }
            "group" if value.starts_with("BUNDLE") => self.bundled = true,
            _ => {
                if let Some(section) = self.sections.last_mut() {
                    section.attribute(name, value)?;
                }
            }
        }
        Ok(())
    }
}

impl Section {
    fn attribute(&mut self, name: &str, value: &str) -> Result<(), MediaError> {
        match name {
            "mid" if token(value, 1..=64) => self.mid = value.into(),
            "mid" => return Err(MediaError::BadSdp("a=mid")),
            "sendonly" => self.receives = false,
            "recvonly" => self.sends = false,
            "inactive" => (self.receives, self.sends) = (false, false),
            "rtpmap" => {
                let Some((payload_type, map)) = value.split_once(' ') else {
                    return Ok(());
                };
                let codec = map.split('/').next().and_then(Codec::by_name);
                if let (Ok(payload_type @ 0..=127), true) = (payload_type.parse(), map.starts_with("rtx/"))
                    && self.again.len() < FORMATS_MAX
                {
                    self.again.push((payload_type, None));
                }
                let kind_fits = codec.is_some_and(|c| c.is_video() == (self.kind == Kind::Video));
                if let (Ok(payload_type @ 0..=127), Some(codec), true) = (payload_type.parse(), codec, kind_fits)
                    && self.formats.len() < FORMATS_MAX
                {
                    self.formats.push(Format {
                        payload_type,
                        codec,
                        fmtp: String::new(),
                        rtpmap: map.trim().into(),
                        again: None,
                    });
                }
            }
            "fmtp" => {
                let Some((payload_type, parameters)) = value.split_once(' ') else {
                    return Ok(());
                };
                let wanted = payload_type.parse::<u8>().ok();
                if let Some(format) = self.formats.iter_mut().find(|f| Some(f.payload_type) == wanted) {
                    format.fmtp = parameters.trim().into();
                }
                if let Some((_, of)) = self.again.iter_mut().find(|again| Some(again.0) == wanted) {
                    *of = parameters.trim().strip_prefix("apt=").and_then(|apt| apt.parse().ok());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Section {
    /// The peer's lines may come in any order: which retransmissions belong to which format is known at the end.
    fn pair(&mut self) {
        for format in &mut self.formats {
            let own = |again: &&(u8, Option<u8>)| again.1 == Some(format.payload_type);
            format.again = self.again.iter().find(own).map(|again| again.0);
        }
    }
}

impl Offer {
    /// Reads an offer of at most `max` bytes.
    pub(crate) fn parse(text: &str, max: usize) -> Result<Offer, MediaError> {
        if text.len() > max {
            return Err(MediaError::TooLarge(max));
        }
        if !text.starts_with("v=0") {
            return Err(MediaError::BadSdp("it doesn't start with v=0"));
        }
        let mut reading = Reading::default();
        for line in text.lines() {
            let line = line.trim_end();
            if line.bytes().any(|b| b.is_ascii_control()) {
                return Err(MediaError::BadSdp("a control character"));
            }
            match line.split_once('=') {
                Some(("m", value)) => reading.media(value)?,
                Some(("a", attribute)) => {
                    let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
                    reading.attribute(name, value.trim())?;
                }
                Some((key, _)) if key.len() == 1 => {}
                None if line.is_empty() => {}
                _ => return Err(MediaError::BadSdp("a line that is no key=value")),
            }
        }
        reading.finish()
    }
}

impl Reading {
    fn finish(mut self) -> Result<Offer, MediaError> {
        if !self.sections.iter().any(|s| s.kind != Kind::Other) {
            return Err(MediaError::BadSdp("no audio or video section"));
        }
        if self.sections.iter().any(|s| s.mid.is_empty()) {
            return Err(MediaError::BadSdp("a section without a=mid"));
        }
        if self.sections.len() > 1 && !self.bundled {
            return Err(MediaError::BadSdp("the sections aren't bundled"));
        }
        if self.sections.iter().all(|s| s.formats.is_empty()) {
            return Err(MediaError::NoCodec("VP8, H264, VP9 and opus are spoken"));
        }
        self.sections.iter_mut().for_each(Section::pair);
        Ok(Offer {
            ufrag: self.ufrag.ok_or(MediaError::BadSdp("no a=ice-ufrag"))?,
            password: self.password.ok_or(MediaError::BadSdp("no a=ice-pwd"))?,
            fingerprint: self.fingerprint.ok_or(MediaError::BadSdp("no SHA-256 fingerprint"))?,
            setup: self.setup.unwrap_or(Setup::ActPass),
            sections: self.sections,
        })
    }
}

/// A trickle fragment (RFC 8840): the peer's credentials, if named, and its candidates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) ufrag: Option<String>,
    pub(crate) password: Option<String>,
    /// `candidate:…` values, with the mid of their section.
    pub(crate) candidates: Vec<(Option<String>, String)>,
}

impl Fragment {
    /// Reads a fragment of at most `max` bytes.
    pub(crate) fn parse(text: &str, max: usize) -> Result<Fragment, MediaError> {
        if text.len() > max {
            return Err(MediaError::TooLarge(max));
        }
        let mut fragment = Fragment::default();
        let mut mid = None;
        for line in text.lines().map(str::trim_end).filter(|l| !l.is_empty()) {
            match line.split_once('=') {
                Some(("a", attribute)) => match attribute.split_once(':') {
                    Some(("ice-ufrag", value)) if token(value, 4..=256) => fragment.ufrag = Some(value.into()),
                    Some(("ice-pwd", value)) if token(value, 22..=256) => fragment.password = Some(value.into()),
                    Some(("ice-ufrag" | "ice-pwd", _)) => return Err(MediaError::BadSdp("ICE credentials")),
                    Some(("mid", value)) => mid = Some(value.to_string()),
                    Some(("candidate", _)) if fragment.candidates.len() < 64 => {
                        fragment.candidates.push((mid.clone(), attribute.into()));
                    }
                    Some(("candidate", _)) => return Err(MediaError::BadSdp("too many candidates")),
                    _ => {}
                },
                Some((key, _)) if key.len() == 1 => {}
                _ => return Err(MediaError::BadSdp("a line that is no key=value")),
            }
        }
        Ok(fragment)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A viewer's offer, as Chromium makes it, cut to what matters.
    pub(crate) fn offer() -> String {
        let print = ["AB"; 32].join(":");
        format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
             a=ice-ufrag:peer\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {print}\r\na=setup:actpass\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\n\
             a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:0 PCMU/8000\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 96 97 102\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=recvonly\r\na=rtcp-mux\r\n\
             a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtpmap:102 H264/90000\r\n\
             a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n"
        )
    }

    #[test]
    fn an_offer_is_read() {
        let offer = Offer::parse(&offer(), 65_536).unwrap();
        assert_eq!(
            (offer.ufrag.as_str(), offer.setup, offer.fingerprint),
            ("peer", Setup::ActPass, [0xab; 32])
        );
        let codecs: Vec<Vec<(u8, Codec)>> = offer
            .sections
            .iter()
            .map(|s| s.formats.iter().map(|f| (f.payload_type, f.codec)).collect())
            .collect();
        assert_eq!(
            codecs,
            [vec![(111, Codec::Opus)], vec![(96, Codec::Vp8), (102, Codec::H264)]]
        );
        let again: Vec<Option<u8>> = offer.sections[1].formats.iter().map(|f| f.again).collect();
        assert_eq!(again, [Some(97), None]);
        assert!(offer.sections.iter().all(|s| s.receives && !s.sends));
    }

    #[test]
    fn malformed_offers_are_refused_with_a_code() {
        let good = offer();
        let table: &[(&str, String, &str)] = &[
            ("empty", String::new(), "bad_request"),
            ("no SDP", "hello".into(), "bad_request"),
            ("binary", "v=0\r\n\u{1}\u{2}=3".into(), "bad_request"),
            ("only a version", "v=0\r\n".into(), "bad_request"),
            ("no key=value", good.replace("s=-", "garbage"), "bad_request"),
            ("no ufrag", good.replace("a=ice-ufrag:peer\r\n", ""), "bad_request"),
            ("short ufrag", good.replace("peer", "p"), "bad_request"),
            ("long ufrag", good.replace("peer", &"p".repeat(300)), "bad_request"),
            (
                "no password",
                good.replace("a=ice-pwd:0123456789012345678901\r\n", ""),
                "bad_request",
            ),
            ("no fingerprint", good.replace("sha-256", "sha-1"), "bad_request"),
            ("short fingerprint", good.replace("AB:AB:", ""), "bad_request"),
            ("bad setup", good.replace("actpass", "holdconn"), "bad_request"),
            ("no mid", good.replace("a=mid:1\r\n", ""), "bad_request"),
            ("bad mid", good.replace("a=mid:1", "a=mid:a b"), "bad_request"),
            ("no bundle", good.replace("a=group:BUNDLE 0 1\r\n", ""), "bad_request"),
            (
                "bad media line",
                good.replace("m=video 9", "m=video nine"),
                "bad_request",
            ),
            (
                "cut media line",
                good.replace("m=video 9 UDP/TLS/RTP/SAVPF 96 97 102", "m=video"),
                "bad_request",
            ),
            (
                "many sections",
                good.clone() + &"m=audio 9 X 0\r\na=mid:z\r\n".repeat(40),
                "bad_request",
            ),
            (
                "many formats",
                good.replace("96 97 102", &"96 ".repeat(200)),
                "bad_request",
            ),
            (
                "no codec",
                good.replace("VP8", "AV1")
                    .replace("H264", "H265")
                    .replace("opus", "G722"),
                "bad_request",
            ),
            ("oversized", good.clone() + &"a=x:y\r\n".repeat(10_000), "too_large"),
        ];
        for (name, text, code) in table {
            let refused = Offer::parse(text, 65_536)
                .map(|_| "accepted")
                .unwrap_or_else(|e| e.code());
            assert_eq!(refused, *code, "{name}");
        }
    }

    #[test]
    fn every_cut_of_an_offer_is_read_or_refused() {
        let good = offer();
        for end in 0..good.len() {
            let _ = Offer::parse(&good[..end], 65_536);
        }
    }

    #[test]
    fn fragments() {
        let text = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
                    a=candidate:1 1 udp 1 192.0.2.1 5000 typ host\r\na=end-of-candidates\r\n";
        let fragment = Fragment::parse(text, 1_000).unwrap();
        assert_eq!(
            (fragment.ufrag.as_deref(), fragment.candidates.len()),
            (Some("abcd"), 1)
        );
        assert_eq!(fragment.candidates[0].0.as_deref(), Some("0"));
        for bad in ["nonsense", "a=ice-ufrag:a", "a=ice-pwd:short"] {
            assert!(Fragment::parse(bad, 1_000).is_err(), "{bad}");
        }
        assert_eq!(Fragment::parse(text, 10), Err(MediaError::TooLarge(10)));
    }
}
