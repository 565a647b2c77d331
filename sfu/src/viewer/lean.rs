//! The lean viewer: ICE-lite, DTLS and SRTP, and nothing between the shared ring and the wire.
//!
//! ```text
//!   STUN check --> authentic? --> answered at once, the address is the peer's --> DTLS (we start) --> SRTP keys
//! ```
//!
//! Why not a whole peer connection per viewer: its interceptor chain keeps a ring per viewer and costs more than the
//! encryption, its ICE leaves the first nominating check unanswered for half a second, and inbound NACKs don't reach
//! the caller. What is used here are the same family's parts (`rtc::dtls`, `rtc::srtp`), which do only what they say.

use super::seal::Gcm;
use super::stun;
use super::{Outgoing, TransportState, ViewerTransport};
use crate::MediaError;
use crate::outbox::Outbox;
use bytes::BytesMut;
use forward::rtp::{Extensions, rewrite, rewrite_again};
use rtc::crypto::RTCCryptoProvider;
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::dtls::state::State;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;
use rtc::srtp::config::{Config as SrtpConfig, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::context::Context;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc::srtp::protection_profile::ProtectionProfile;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// DTLS speaks to this stand-in; ICE decides where its datagrams go.
const TUNNEL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
/// A flight that isn't answered is sent again after this. The peer may not be ready for our first one yet.
const FLIGHT: Duration = Duration::from_millis(100);
/// Decrypted RTCP packets that may wait for the lane.
const RTCP_MAX: usize = 32;

/// This node's certificate for all its viewers, and what is needed to use it.
pub(crate) struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    /// `AB:CD:…`, SHA-256.
    pub(crate) fingerprint: String,
}

fn unavailable(error: impl std::fmt::Display) -> MediaError {
    MediaError::Unavailable(error.to_string())
}

impl Identity {
    /// Makes a fresh one: media certificates live as long as the process.
    pub(crate) fn generate() -> Result<Identity, MediaError> {
        let provider = rtc::crypto::default_provider().map_err(unavailable)?;
        let certificate =
            Certificate::generate_self_signed(vec!["rushroom".to_string()], provider.crypto()).map_err(unavailable)?;
        let der = certificate
            .certificate
            .first()
            .ok_or_else(|| unavailable("no certificate"))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, der.as_ref());
        let hex: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Identity {
            provider,
            certificate,
            fingerprint: hex.join(":"),
        })
    }

    fn handshake(&self, client: bool, peer: [u8; 32]) -> Result<Arc<HandshakeConfig>, MediaError> {
        let config = ConfigBuilder::default()
            .with_crypto_provider(self.provider.clone())
            .with_certificates(vec![self.certificate.clone()])
            .with_srtp_protection_profiles(vec![
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
                SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
            ])
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // Certificates are self-signed: the fingerprint of the offer, checked below, is what authenticates.
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(move |certificates: &[Vec<u8>], _: &[_]| {
                let first = certificates.first().ok_or(Error::ErrNonCertificate)?;
                let digest = ring::digest::digest(&ring::digest::SHA256, first);
                if digest.as_ref() == peer {
                    Ok(())
                } else {
                    Err(Error::ErrNoMatchingCertificateFingerprint)
                }
            })))
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_flight_interval(FLIGHT)
            .build(client, None)
            .map_err(unavailable)?;
        Ok(Arc::new(config))
    }
}

struct Keys {
    /// RTP by AES-GCM; absent: the older profile, by `send`.
    gcm: Option<Gcm>,
    send: Context,
    receive: Context,
}

fn keys(state: &State, provider: &Arc<dyn RTCCryptoProvider>) -> Result<Keys, Error> {
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        _ => return Err(Error::ErrNoSuchSrtpProfile),
    };
    let mut config = SrtpConfig {
        profile,
        ..SrtpConfig::default()
    };
    let material = state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
    config.set_session_keys_from_keying_material(material.as_ref(), state.is_client())?;
    Keys::new(&config, provider)
}

impl Keys {
    fn new(config: &SrtpConfig, provider: &Arc<dyn RTCCryptoProvider>) -> Result<Keys, Error> {
        let (crypto, ours, profile) = (provider.crypto(), &config.keys, config.profile);
        let send = Context::new(
            &ours.local_master_key,
            &ours.local_master_salt,
            profile,
            None,
            None,
            crypto,
        )?;
        let window = (Some(srtp_replay_protection(64)), Some(srtcp_replay_protection(64)));
        let receive = Context::new(
            &ours.remote_master_key,
            &ours.remote_master_salt,
            profile,
            window.0,
            window.1,
            crypto,
        )?;
        let gcm = Gcm::new(crypto, &ours.local_master_key, &ours.local_master_salt);
        Ok(Keys { gcm, send, receive })
    }
}

/// `length` characters that nobody guesses.
pub(crate) fn secret(length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..length)
        .map(|_| char::from(ALPHABET[usize::from(rand::random::<u8>() & 63)]))
        .collect()
}

/// A viewer's transport.
pub(crate) struct LeanViewer {
    identity: Arc<Identity>,
    password: String,
    client: bool,
    handshake: Option<Arc<HandshakeConfig>>,
    dtls: Endpoint,
    keys: Option<Keys>,
    /// Where to send: what the peer nominated, or else the first that it proved.
    remote: Option<(SocketAddr, bool)>,
    state: TransportState,
    heard: Instant,
    rtcp: VecDeque<BytesMut>,
}

impl LeanViewer {
    /// For an offer with this fingerprint, found by `password`.
    pub(crate) fn new(
        identity: Arc<Identity>,
        password: String,
        client: bool,
        fingerprint: [u8; 32],
        now: Instant,
    ) -> Result<LeanViewer, MediaError> {
        let handshake = identity.handshake(client, fingerprint)?;
        let server = (!client).then(|| handshake.clone());
        Ok(LeanViewer {
            identity,
            password,
            client,
            handshake: client.then_some(handshake),
            dtls: Endpoint::new(TUNNEL, TransportProtocol::UDP, server),
            keys: None,
            remote: None,
            state: TransportState::Joining,
            heard: now,
            rtcp: VecDeque::new(),
        })
    }

    /// One whose handshake is through, with keys that anyone knows.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn opened(identity: Arc<Identity>, remote: SocketAddr) -> LeanViewer {
        let mut config = SrtpConfig {
            profile: ProtectionProfile::AeadAes128Gcm,
            ..SrtpConfig::default()
        };
        let material = vec![7; config.keying_material_len()];
        config.set_session_keys_from_keying_material(&material, true).unwrap();
        let keys = Keys::new(&config, &identity.provider).unwrap();
        let mut viewer = LeanViewer::new(identity, String::new(), true, [0; 32], Instant::now()).unwrap();
        (viewer.keys, viewer.remote, viewer.state) = (Some(keys), Some((remote, true)), TransportState::Open);
        viewer
    }

    fn check(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], out: &mut Outbox) -> bool {
        let Some(request) = stun::request(bytes) else {
            return false;
        };
        if !request.is_authentic(bytes, &self.password) {
            return false;
        }
        self.heard = now;
        out.push(from, &request.answer(from, &self.password));
        if request.nominated || self.remote.is_none() {
            self.remote = Some((from, request.nominated));
        }
        if let Some(handshake) = self.handshake.take() {
            if self.dtls.connect(now, TUNNEL, handshake, None).is_err() {
                self.state = TransportState::Closed;
            }
            self.flush(out);
        }
        true
    }

    fn flush(&mut self, out: &mut Outbox) {
        while let Some(transmit) = self.dtls.poll_transmit() {
            if let Some((remote, _)) = self.remote {
                out.push(remote, &transmit.message);
            }
        }
    }

    fn dtls(&mut self, now: Instant, bytes: &[u8], out: &mut Outbox) {
        if self.client && self.handshake.is_some() {
            return;
        }
        match self.dtls.read(now, TUNNEL, None, BytesMut::from(bytes)) {
            Ok(events) => {
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => self.open(),
                        EndpointEvent::PeerClosed => self.state = TransportState::Closed,
                        _ => {}
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a viewer's DTLS failed");
                // Once open, a stray datagram is no reason to end.
                if self.state == TransportState::Joining && !matches!(error, Error::ErrInvalidPacketLength) {
                    self.state = TransportState::Closed;
                }
            }
        }
        self.flush(out);
    }

    fn open(&mut self) {
        let keys = self
            .dtls
            .get_connection_state(TUNNEL)
            .map(|state| keys(state, &self.identity.provider));
        match keys {
            Some(Ok(keys)) => {
                self.keys = Some(keys);
                self.state = TransportState::Open;
            }
            _ => self.state = TransportState::Closed,
        }
    }
}

impl ViewerTransport for LeanViewer {
    fn receive(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], out: &mut Outbox) -> bool {
        match bytes.first() {
            Some(0..=3) => return self.check(now, from, bytes, out),
            Some(20..=63) if self.state != TransportState::Closed => self.dtls(now, bytes, out),
            Some(128..=191) => {
                if let Some(keys) = &mut self.keys
                    && self.rtcp.len() < RTCP_MAX
                    && let Ok(plain) = keys.receive.decrypt_rtcp(bytes)
                {
                    self.heard = now;
                    self.rtcp.push_back(plain);
                }
            }
            _ => {}
        }
        false
    }

    fn timeout(&mut self, now: Instant, out: &mut Outbox) {
        if self.dtls.get_connection_state(TUNNEL).is_some()
            && self.dtls.handle_timeout(TUNNEL, now).is_err()
            && self.state == TransportState::Joining
        {
            self.state = TransportState::Closed;
        }
        self.flush(out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.dtls.poll_timeout(&TUNNEL)
    }

    fn state(&self) -> TransportState {
        self.state
    }

    fn heard(&self) -> Instant {
        self.heard
    }

    fn next_rtcp(&mut self) -> Option<BytesMut> {
        self.rtcp.pop_front()
    }

    fn send_rtp(&mut self, packet: Outgoing<'_>, out: &mut Outbox) -> bool {
        let (Some(keys), Some((remote, _))) = (&mut self.keys, self.remote) else {
            return false;
        };
        let Outgoing {
            stored,
            stamp,
            index,
            again,
        } = packet;
        out.write(remote, |out| {
            let start = out.len();
            let (raw, read) = (&stored.raw, &stored.header);
            let header = match again {
                None => rewrite(raw, read, stamp, &Extensions::NONE, out),
                Some(first) => rewrite_again(raw, read, stamp, first, out),
            };
            match &mut keys.gcm {
                Some(gcm) => gcm.seal(out, start, header, index),
                None => {
                    let sealed = keys.send.encrypt_rtp(&out[start..]);
                    out.truncate(start);
                    sealed.is_ok_and(|sealed| {
                        out.extend_from_slice(&sealed);
                        true
                    })
                }
            }
        })
    }

    fn send_rtcp(&mut self, packet: &[u8], out: &mut Outbox) {
        if let (Some(keys), Some((remote, _))) = (&mut self.keys, self.remote)
            && let Ok(sealed) = keys.send.encrypt_rtcp(packet)
        {
            out.push(remote, &sealed);
        }
    }

    fn restart(&mut self, password: String) {
        self.password = password;
    }

    fn close(&mut self, now: Instant, out: &mut Outbox) {
        let _ = self.dtls.close(now);
        self.flush(out);
        self.state = TransportState::Closed;
    }
}
