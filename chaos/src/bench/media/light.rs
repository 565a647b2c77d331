//! A light viewer: as much of WebRTC as a node can tell from outside, and nothing behind it.
//!
//! ```text
//!   offer --> answer --> STUN check, nominating --> DTLS (the node starts) --> SRTP: authenticated, decrypted, counted
//!                            '-- again each 2 s: consent            report: once a second, as a browser's
//! ```
//!
//! Values in, values out: datagrams and moments come from the caller, datagrams to send are left in `out`. It is made of the
//! same family's parts as the node's own viewers (STUN, DTLS, SRTP), in the other role. It asks for nothing again: a packet
//! that doesn't come is lost, so what is counted is what the node lost.

use anyhow::{Context as _, Result, bail, ensure};
use client::media::vp8::{Frames, descriptor};
use rtc::{
    crypto::RTCCryptoProvider,
    dtls::{
        config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig},
        crypto::Certificate,
        endpoint::{Endpoint, EndpointEvent},
        extension::extension_use_srtp::SrtpProtectionProfile,
        state::State,
    },
    ice::attributes::{control::AttrControlling, priority::PriorityAttr, use_candidate::UseCandidateAttr},
    rtp::Header,
    shared::{TransportProtocol, marshal::Unmarshal as _},
    srtp::{
        config::{Config, LABEL_EXTRACTOR_DTLS_SRTP},
        context::Context as Srtp,
        option::srtp_replay_protection,
        protection_profile::ProtectionProfile,
    },
    stun::{
        attributes::ATTR_USERNAME,
        fingerprint::FINGERPRINT,
        integrity::MessageIntegrity,
        message::{BINDING_REQUEST, Message, TransactionId},
        textattrs::TextAttribute,
    },
};
use sha2::{Digest as _, Sha256};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

/// DTLS speaks to this stand-in.
const TUNNEL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
/// A check that isn't answered is sent again after this; one that was, as consent, after that.
const CHECK: Duration = Duration::from_millis(100);
const CONSENT: Duration = Duration::from_secs(2);
const REPORT: Duration = Duration::from_secs(1);
/// The payload types of our offer.
const VIDEO: u8 = 96;
const AUDIO: u8 = 111;

/// The certificate of all viewers of this process.
pub(super) struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    dtls: Arc<HandshakeConfig>,
    fingerprint: String,
}

impl Identity {
    pub(super) fn generate() -> Result<Identity> {
        let provider = rtc::crypto::default_provider()?;
        let certificate = Certificate::generate_self_signed(vec!["viewer".to_owned()], provider.crypto())?;
        let der = certificate.certificate.first().context("no certificate")?;
        let hex: Vec<String> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
        let dtls = ConfigBuilder::default()
            .with_crypto_provider(provider.clone())
            .with_certificates(vec![certificate])
            .with_srtp_protection_profiles(vec![
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
                SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
            ])
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // Who the node is, its HTTP answer has said; what is measured here isn't trust.
            .with_insecure_skip_verify(true)
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_flight_interval(CHECK)
            .build(false, None)?;
        Ok(Identity {
            provider,
            dtls: Arc::new(dtls),
            fingerprint: hex.join(":"),
        })
    }
}

/// What came of one track.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// Packets that were the node's and whole, from `first` on.
    pub(super) packets: u64,
    /// Extended numbers: where the counting begins, and the newest of all.
    first: Option<u64>,
    newest: Option<u64>,
    ssrc: u32,
}

impl Counted {
    fn packet(&mut self, ssrc: u32, sequence: u16) {
        let number = match self.newest {
            None => (1 << 16) + u64::from(sequence),
            Some(newest) => newest.saturating_add_signed(i64::from(sequence.wrapping_sub(newest as u16) as i16)),
        };
        self.newest = self.newest.max(Some(number));
        self.ssrc = ssrc;
        self.packets += u64::from(number >= *self.first.get_or_insert(number));
    }

    /// Begins anew, after what came so far.
    pub(super) fn begin(&mut self) {
        self.packets = 0;
        self.first = self.newest.map(|newest| newest + 1);
    }

    /// Numbers that were skipped.
    pub(super) fn lost(&self) -> u64 {
        let (first, newest) = self.first.zip(self.newest).unwrap_or((1, 0));
        (newest + 1).saturating_sub(first).saturating_sub(self.packets)
    }
}

/// What one packet told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// A picture's first packet: its number, as the seller counts.
    Picture(u16),
    /// The first keyframe is whole: a browser would draw.
    Drawable,
}

/// One viewer.
pub(super) struct Light {
    identity: Arc<Identity>,
    ufrag: String,
    password: String,
    theirs: Option<(String, String)>,
    dtls: Endpoint,
    keys: Option<(Srtp, Srtp)>,
    checked: Option<Instant>,
    consented: bool,
    reported: Instant,
    /// Until the first keyframe is whole.
    frames: Option<Frames>,
    pub(super) video: Counted,
    pub(super) audio: Counted,
    /// Packets that weren't what they claimed to be, or came twice.
    pub(super) refused: u64,
    pub(super) out: Vec<Vec<u8>>,
}

impl Light {
    pub(super) fn new(identity: Arc<Identity>, now: Instant) -> Light {
        let name = |_| char::from(b'a' + rand::random::<u8>() % 26);
        Light {
            ufrag: (0..8).map(name).collect(),
            password: (0..24).map(name).collect(),
            theirs: None,
            dtls: Endpoint::new(TUNNEL, TransportProtocol::UDP, Some(identity.dtls.clone())),
            keys: None,
            checked: None,
            consented: false,
            reported: now,
            frames: Some(Frames::default()),
            video: Counted::default(),
            audio: Counted::default(),
            refused: 0,
            out: Vec::new(),
            identity,
        }
    }

    pub(super) fn offer(&self) -> String {
        let mut sdp = String::from("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n");
        let media = [("video", VIDEO, "VP8/90000"), ("audio", AUDIO, "opus/48000/2")];
        for (mid, (name, payload, map)) in media.into_iter().enumerate() {
            sdp += &format!(
                "m={name} 9 UDP/TLS/RTP/SAVPF {payload}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=recvonly\r\na=rtcp-mux\r\n\
                 a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:actpass\r\na=rtpmap:{payload} {map}\r\n\
                 a=rtcp-fb:{payload} nack\r\na=rtcp-fb:{payload} nack pli\r\n",
                self.ufrag, self.password, self.identity.fingerprint
            );
        }
        sdp
    }

    /// Takes the answer; gives the node's address for media.
    pub(super) fn answered(&mut self, sdp: &str) -> Result<SocketAddr> {
        let value = |name: &str| sdp.lines().find_map(|line| line.strip_prefix(name));
        let (ufrag, password) = (value("a=ice-ufrag:"), value("a=ice-pwd:"));
        let (ufrag, password) = ufrag.zip(password).context("an answer without credentials")?;
        self.theirs = Some((ufrag.to_owned(), password.to_owned()));
        let candidate = value("a=candidate:").context("an answer without a candidate")?;
        let words: Vec<&str> = candidate.split(' ').collect();
        let &[_, _, "udp", _, ip, port, ..] = words.as_slice() else {
            bail!("a candidate that isn't one: {candidate}")
        };
        Ok(SocketAddr::new(ip.parse()?, port.parse()?))
    }

    pub(super) fn is_open(&self) -> bool {
        self.keys.is_some()
    }

    /// What is due by now: checks, handshake retries, reports.
    pub(super) fn due(&mut self, now: Instant) -> Result<()> {
        let again = if self.consented { CONSENT } else { CHECK };
        if self.checked.is_none_or(|checked| now >= checked + again) {
            self.checked = Some(now);
            let check = self.check()?;
            self.out.push(check);
        }
        if self.dtls.poll_timeout(&TUNNEL).is_some_and(|due| due <= now) {
            self.dtls.handle_timeout(TUNNEL, now)?;
            self.flush();
        }
        if now >= self.reported + REPORT {
            self.reported = now;
            self.report()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<Vec<u8>> {
        let (ufrag, password) = self.theirs.as_ref().context("no answer yet")?;
        let crypto = self.identity.provider.crypto();
        let mut message = Message::new();
        message.build(&[
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId::new()),
            Box::new(TextAttribute::new(ATTR_USERNAME, format!("{ufrag}:{}", self.ufrag))),
            Box::<UseCandidateAttr>::default(),
            Box::new(AttrControlling(1)),
            Box::new(PriorityAttr(1)),
            Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
                password.clone(),
                crypto,
            )),
            Box::new(FINGERPRINT),
        ])?;
        Ok(message.raw)
    }

    /// A receiver report for each track, as a browser sends them: the node has them to decrypt and to read.
    fn report(&mut self) -> Result<()> {
        let Some((_, send)) = &mut self.keys else { return Ok(()) };
        for track in [&self.video, &self.audio] {
            let Some(newest) = track.newest else { continue };
            let mut report = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
            report.extend_from_slice(&track.ssrc.to_be_bytes());
            report.extend_from_slice(&[0; 4]);
            report.extend_from_slice(&(newest as u32).to_be_bytes());
            report.extend_from_slice(&[0; 12]);
            self.out.push(send.encrypt_rtcp(&report)?.to_vec());
        }
        Ok(())
    }

    /// A datagram came.
    pub(super) fn receive(&mut self, now: Instant, bytes: &[u8]) -> Result<Told> {
        match bytes.first() {
            Some(0..=3) => self.consented = true,
            Some(20..=63) => self.handshake(now, bytes)?,
            // RTCP has these in place of a payload type; ours are reports that nobody needs here.
            Some(128..=191) if bytes.len() > 12 && !(64..96).contains(&(bytes[1] & 0x7f)) => {
                return Ok(self.media(bytes));
            }
            _ => {}
        }
        Ok(Told::Nothing)
    }

    fn handshake(&mut self, now: Instant, bytes: &[u8]) -> Result<()> {
        let events = self.dtls.read(now, TUNNEL, None, bytes.into())?;
        if events
            .iter()
            .any(|event| matches!(event, EndpointEvent::HandshakeComplete))
        {
            let state = self.dtls.get_connection_state(TUNNEL).context("no DTLS state")?;
            self.keys = Some(keys(state, &*self.identity.provider)?);
        }
        ensure!(
            !events.iter().any(|event| matches!(event, EndpointEvent::PeerClosed)),
            "the node closed the connection"
        );
        self.flush();
        Ok(())
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.dtls.poll_transmit() {
            self.out.push(transmit.message.to_vec());
        }
    }

    fn media(&mut self, bytes: &[u8]) -> Told {
        let plain = self
            .keys
            .as_mut()
            .and_then(|(receive, _)| receive.decrypt_rtp(bytes).ok());
        let Some(plain) = plain else {
            self.refused += 1;
            return Told::Nothing;
        };
        let mut payload = &plain[..];
        let Ok(header) = Header::unmarshal(&mut payload) else {
            self.refused += 1;
            return Told::Nothing;
        };
        if header.payload_type != VIDEO {
            self.audio.packet(header.ssrc, header.sequence_number);
            return Told::Nothing;
        }
        self.video.packet(header.ssrc, header.sequence_number);
        if let Some(frames) = &mut self.frames
            && frames
                .packet(header.sequence_number, header.timestamp, header.marker, payload)
                .is_some_and(|whole| whole.keyframe)
        {
            self.frames = None;
            return Told::Drawable;
        }
        match descriptor(payload) {
            Some(described) if described.starts => described.picture.map_or(Told::Nothing, Told::Picture),
            _ => Told::Nothing,
        }
    }
}

/// To receive with, and to send with.
fn keys(state: &State, provider: &dyn RTCCryptoProvider) -> Result<(Srtp, Srtp)> {
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => ProtectionProfile::AeadAes256Gcm,
        other => bail!("the node chose {other:?}"),
    };
    let mut config = Config {
        profile,
        ..Config::default()
    };
    let material = state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
    config.set_session_keys_from_keying_material(material.as_ref(), state.is_client())?;
    let (keys, crypto) = (&config.keys, provider.crypto());
    let window = Some(srtp_replay_protection(1024));
    let receive = Srtp::new(
        &keys.remote_master_key,
        &keys.remote_master_salt,
        profile,
        window,
        None,
        crypto,
    )?;
    let send = Srtp::new(
        &keys.local_master_key,
        &keys.local_master_salt,
        profile,
        None,
        None,
        crypto,
    )?;
    Ok((receive, send))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Numbers before the counting begins, numbers after; how many came, how many are lost.
    #[track_caller]
    fn check(before: &[u16], after: &[u16], came: u64, lost: u64) {
        let mut counted = Counted::default();
        before.iter().for_each(|sequence| counted.packet(7, *sequence));
        counted.begin();
        after.iter().for_each(|sequence| counted.packet(7, *sequence));
        assert_eq!(
            (counted.packets, counted.lost()),
            (came, lost),
            "{before:?} then {after:?}"
        );
    }

    #[test]
    fn what_is_skipped_is_lost() {
        check(&[], &[], 0, 0);
        check(&[5], &[6, 7, 8], 3, 0);
        check(&[5], &[6, 8, 9], 3, 1);
        check(&[5], &[8, 7, 6], 3, 0);
        check(&[5], &[8], 1, 2);
        check(&[65_534], &[65_535, 0, 2], 3, 1);
        check(&[5, 6], &[], 0, 0);
    }

    #[test]
    fn an_answers_address_is_its_candidates() {
        let viewer = || Light::new(Arc::new(Identity::generate().unwrap()), Instant::now());
        let answer =
            |candidate: &str| format!("v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:secret\r\na=candidate:{candidate}\r\n");
        let good = viewer()
            .answered(&answer("1 1 udp 2130706431 127.0.0.1 4000 typ host"))
            .unwrap();
        assert_eq!(good, "127.0.0.1:4000".parse::<SocketAddr>().unwrap());
        for bad in ["1 1 tcp 1 127.0.0.1 4000 typ host", "1 1 udp 1 nowhere 4000", "1"] {
            assert!(viewer().answered(&answer(bad)).is_err(), "{bad}");
        }
        assert!(viewer().answered("v=0\r\n").is_err());
    }
}
