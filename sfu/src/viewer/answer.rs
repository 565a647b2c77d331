//! The answer to a viewer: which payload types its leg has, and the SDP that says so.
//!
//! A viewer may come before the stream does, so the answer accepts every codec that both sides speak; which one a
//! packet uses is looked up when a stream is there (`LegTerms::formats_for`). Retransmissions have a stream of their own
//! (RFC 4588) where the viewer takes one, else they go in the same stream as the first sending; one ring and one offset map
//! serve both.

use crate::MediaError;
use crate::sdp::{Format, Kind, Offer, Section, Setup};
use forward::Codec;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// One medium of a viewer, as negotiated.
#[derive(Clone, Debug)]
pub(crate) struct LegTerms {
    pub(crate) video: bool,
    pub(crate) ssrc: u32,
    /// Of retransmissions.
    pub(crate) again: u32,
    formats: Vec<Format>,
}

fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';')
        .filter_map(|p| p.trim().split_once('='))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|p| p.1)
}

/// How well a format of the leg suits a source: the same codec, and the nearer its parameters the better.
fn suits(format: &Format, codec: Codec, fmtp: &str) -> Option<u8> {
    if format.codec != codec {
        return None;
    }
    let same = |name, default| {
        parameter(&format.fmtp, name)
            .unwrap_or(default)
            .eq_ignore_ascii_case(parameter(fmtp, name).unwrap_or(default))
    };
    match codec {
        Codec::H264 => {
            let profile = |f: &str| {
                parameter(f, "profile-level-id")
                    .and_then(|p| p.get(..2))
                    .map(str::to_lowercase)
            };
            let score =
                u8::from(profile(&format.fmtp) == profile(fmtp)) + 2 * u8::from(same("packetization-mode", "0"));
            Some(score)
        }
        Codec::Vp9 => same("profile-id", "0").then_some(1),
        Codec::Vp8 | Codec::Opus => Some(1),
    }
}

impl LegTerms {
    /// The payload types by which a source's packets, and their retransmissions, go to this viewer, if it can take them.
    pub(crate) fn payload_types(&self, codec: Codec, fmtp: &str) -> Option<(u8, Option<u8>)> {
        // The first of the best: the viewer's own order decides between equals.
        let mut best: Option<(u8, &Format)> = None;
        for format in &self.formats {
            if let Some(score) = suits(format, codec, fmtp)
                && best.is_none_or(|(held, _)| score > held)
            {
                best = Some((score, format));
            }
        }
        best.map(|(_, format)| (format.payload_type, format.again))
    }
}

/// The streams of one viewer: never two alike, for they share a key, and a number under it must not come twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ssrcs {
    pub(crate) video: u32,
    pub(crate) audio: u32,
    /// Retransmissions of video.
    pub(crate) again: u32,
}

impl Ssrcs {
    /// From any number.
    pub(crate) fn from(drawn: u32) -> Ssrcs {
        let base = drawn & !3;
        Ssrcs {
            video: base | 1,
            audio: base | 2,
            again: base | 3,
        }
    }
}

/// What our side says of itself.
pub(crate) struct Ours<'a> {
    pub(crate) ufrag: &'a str,
    pub(crate) password: &'a str,
    pub(crate) fingerprint: &'a str,
    pub(crate) address: SocketAddr,
    pub(crate) ssrcs: Ssrcs,
    /// The stream's codec and its parameters, if it is up: the offer must have it.
    pub(crate) wanted: Option<(Codec, String)>,
}

fn candidate(address: SocketAddr) -> String {
    format!(
        "candidate:1 1 udp 2130706431 {} {} typ host",
        address.ip(),
        address.port()
    )
}

fn write_formats(out: &mut String, leg: &LegTerms) {
    for Format {
        payload_type,
        rtpmap,
        fmtp,
        again,
        ..
    } in &leg.formats
    {
        let _ = write!(out, "a=rtpmap:{payload_type} {rtpmap}\r\n");
        if leg.video {
            for feedback in ["nack", "nack pli", "ccm fir"] {
                let _ = write!(out, "a=rtcp-fb:{payload_type} {feedback}\r\n");
            }
        }
        if !fmtp.is_empty() {
            let _ = write!(out, "a=fmtp:{payload_type} {fmtp}\r\n");
        }
        if let Some(again) = again {
            let _ = write!(
                out,
                "a=rtpmap:{again} rtx/90000\r\na=fmtp:{again} apt={payload_type}\r\n"
            );
        }
    }
}

fn write_section(out: &mut String, section: &Section, leg: Option<&LegTerms>, ours: &Ours<'_>, setup: &str) {
    let Section {
        name,
        protocol,
        listed,
        mid,
        ..
    } = section;
    let Some(leg) = leg else {
        let _ = write!(
            out,
            "m={name} 0 {protocol} {listed}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=inactive\r\n"
        );
        return;
    };
    let family = if ours.address.is_ipv4() { "IP4" } else { "IP6" };
    let types = leg
        .formats
        .iter()
        .flat_map(|f| [Some(f.payload_type), f.again])
        .flatten();
    let types: Vec<String> = types.map(|payload_type| payload_type.to_string()).collect();
    let _ = write!(
        out,
        "m={name} {} {protocol} {}\r\n",
        ours.address.port(),
        types.join(" ")
    );
    let _ = write!(
        out,
        "c=IN {family} {}\r\na=mid:{mid}\r\na=sendonly\r\na=rtcp-mux\r\n",
        ours.address.ip()
    );
    let _ = write!(out, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", ours.ufrag, ours.password);
    let _ = write!(out, "a=fingerprint:sha-256 {}\r\na=setup:{setup}\r\n", ours.fingerprint);
    write_formats(out, leg);
    let resends = leg.formats.iter().any(|format| format.again.is_some());
    if resends {
        let _ = write!(out, "a=ssrc-group:FID {} {}\r\n", leg.ssrc, leg.again);
    }
    let _ = write!(out, "a=msid:rushroom {name}\r\n");
    for ssrc in [Some(leg.ssrc), resends.then_some(leg.again)].into_iter().flatten() {
        let _ = write!(
            out,
            "a=ssrc:{ssrc} cname:rushroom\r\na=ssrc:{ssrc} msid:rushroom {name}\r\n"
        );
    }
    let _ = write!(out, "a={}\r\na=end-of-candidates\r\n", candidate(ours.address));
}

/// Answers a viewer's offer: the SDP, and the legs that it makes. At most one leg of each kind; other sections are
/// refused in place.
pub(crate) fn answer(offer: &Offer, ours: &Ours<'_>, client: bool) -> Result<(String, Vec<LegTerms>), MediaError> {
    let mut legs: Vec<Option<LegTerms>> = Vec::new();
    for section in &offer.sections {
        let video = section.kind == Kind::Video;
        let taken = legs.iter().flatten().any(|leg: &LegTerms| leg.video == video);
        let usable = section.receives && !section.formats.is_empty() && section.kind != Kind::Other && !taken;
        let ssrcs = ours.ssrcs;
        let mut formats = section.formats.clone();
        if !video {
            // Sound is never asked for again: by then it's too late.
            formats.iter_mut().for_each(|format| format.again = None);
        }
        legs.push(usable.then_some(LegTerms {
            video,
            ssrc: if video { ssrcs.video } else { ssrcs.audio },
            again: ssrcs.again,
            formats,
        }));
    }
    if legs.iter().all(Option::is_none) {
        return Err(MediaError::NoCodec("nothing that the viewer receives can be sent"));
    }
    if let Some((codec, fmtp)) = &ours.wanted
        && legs.iter().flatten().any(|leg| leg.video)
        && !legs
            .iter()
            .flatten()
            .any(|leg| leg.payload_types(*codec, fmtp).is_some())
    {
        return Err(MediaError::NoCodec("the viewer can't decode this stream"));
    }
    let setup = if client { "active" } else { "passive" };
    let mids: Vec<&str> = offer
        .sections
        .iter()
        .zip(&legs)
        .filter(|(_, leg)| leg.is_some())
        .map(|(s, _)| s.mid.as_str())
        .collect();
    let mut out = String::from("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let _ = write!(
        out,
        "a=group:BUNDLE {}\r\na=ice-lite\r\na=msid-semantic: WMS rushroom\r\n",
        mids.join(" ")
    );
    for (section, leg) in offer.sections.iter().zip(&legs) {
        write_section(&mut out, section, leg.as_ref(), ours, setup);
    }
    Ok((out, legs.into_iter().flatten().collect()))
}

/// We start DTLS unless the peer insists: an answerer that is ready at the first check saves a round trip.
pub(crate) fn is_client(setup: Setup) -> bool {
    setup != Setup::Active
}

/// The fragment that answers an ICE restart.
pub(crate) fn restart_fragment(ufrag: &str, password: &str, address: SocketAddr) -> String {
    format!(
        "a=ice-lite\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\na={}\r\na=end-of-candidates\r\n",
        candidate(address)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sdp::tests::offer;

    fn ours(wanted: Option<(Codec, String)>) -> Ours<'static> {
        Ours {
            ufrag: "ours",
            password: "9876543210987654321098",
            fingerprint: "AA:BB",
            address: "127.0.0.1:4000".parse().unwrap(),
            ssrcs: Ssrcs::from(8),
            wanted,
        }
    }

    #[test]
    fn both_media_are_answered_in_the_offers_order() {
        let offer = Offer::parse(&offer(), 65_536).unwrap();
        let (sdp, legs) = answer(&offer, &ours(None), true).unwrap();
        let media: Vec<&str> = sdp.lines().filter(|l| l.starts_with("m=")).collect();
        assert_eq!(
            media,
            [
                "m=audio 4000 UDP/TLS/RTP/SAVPF 111",
                "m=video 4000 UDP/TLS/RTP/SAVPF 96 97 102"
            ]
        );
        assert!(sdp.contains("a=group:BUNDLE 0 1\r\n") && sdp.contains("a=setup:active\r\n"));
        assert_eq!(
            legs.iter().map(|l| (l.video, l.ssrc)).collect::<Vec<_>>(),
            [(false, 10), (true, 9)]
        );
        let rtx = "a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n";
        assert!(sdp.contains(rtx) && sdp.contains("a=ssrc-group:FID 9 11\r\n") && sdp.contains("a=ssrc:11 cname:"));
    }

    #[test]
    fn payload_types_are_the_legs_own() {
        let offer = Offer::parse(&offer(), 65_536).unwrap();
        let (_, legs) = answer(&offer, &ours(None), true).unwrap();
        let table = [
            (Codec::Vp8, "", Some((96, Some(97)))),
            (
                Codec::H264,
                "packetization-mode=1;profile-level-id=42e01f",
                Some((102, None)),
            ),
            (Codec::Vp9, "", None),
            (Codec::Opus, "", None),
        ];
        for (codec, fmtp, expect) in table {
            assert_eq!(legs[1].payload_types(codec, fmtp), expect, "{codec:?}");
        }
    }

    #[test]
    fn what_nobody_could_see_is_refused() {
        let sends = offer().replace("recvonly", "sendonly");
        let vp8_only = offer().replace("H264", "X264");
        for (text, wanted) in [(sends, None), (vp8_only, Some((Codec::H264, String::new())))] {
            let offer = Offer::parse(&text, 65_536).unwrap();
            assert!(matches!(
                answer(&offer, &ours(wanted), true),
                Err(MediaError::NoCodec(_))
            ));
        }
    }

    #[test]
    fn a_data_channel_is_refused_in_its_place() {
        let text = offer() + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n";
        let (sdp, legs) = answer(&Offer::parse(&text, 65_536).unwrap(), &ours(None), false).unwrap();
        assert_eq!(legs.len(), 2);
        assert!(sdp.contains("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n") && sdp.contains("BUNDLE 0 1\r\n"));
    }
}
