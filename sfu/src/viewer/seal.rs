//! Sealing: an RTP packet becomes an SRTP packet (RFC 3711, RFC 7714), in the buffer that it lies in.
//!
//! The family's `srtp::Context` returns each packet in a buffer of its own, made for it, and reads the header again to guess
//! the packet's index. We know the index, and where the packet is to lie: so AES-GCM, which every browser of today takes, is
//! done here, over the family's cipher. The older profile, and all RTCP, go through the `Context`.

use rtc::crypto::{AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CryptoError, RTCCrypto};

/// Labels of RFC 3711, section 4.3.2.
const LABEL_KEY: u8 = 0;
const LABEL_SALT: u8 = 2;
const SALT: usize = 12;
const TAG: usize = 16;

/// The sending half of SRTP with AES-GCM.
pub(crate) struct Gcm {
    cipher: Box<dyn AeadCipher>,
    salt: [u8; SALT],
}

/// RFC 3711, section 4.3: session keys are AES in counter mode over the master salt and a label.
fn derive(crypto: &dyn RTCCrypto, key: &[u8], salt: &[u8; SALT], label: u8, out: &mut [u8]) -> Result<(), CryptoError> {
    let algorithm = match key.len() {
        16 => BlockCipherAlgorithm::Aes128,
        _ => BlockCipherAlgorithm::Aes256,
    };
    for (count, part) in (0u16..).zip(out.chunks_mut(16)) {
        let mut block = [0; 16];
        block[..SALT].copy_from_slice(salt);
        block[7] ^= label;
        block[14..].copy_from_slice(&count.to_be_bytes());
        crypto.block_encrypt(algorithm, key, &mut block)?;
        part.copy_from_slice(&block[..part.len()]);
    }
    Ok(())
}

impl Gcm {
    /// From a master key of 16 or 32 bytes and a master salt of 12. None: they aren't that, or AES can't be had.
    pub(crate) fn new(crypto: &dyn RTCCrypto, key: &[u8], salt: &[u8]) -> Option<Gcm> {
        let algorithm = match key.len() {
            16 => AeadAlgorithm::Aes128Gcm,
            32 => AeadAlgorithm::Aes256Gcm,
            _ => return None,
        };
        let master = salt.try_into().ok()?;
        let mut session = [0; 32];
        let session = &mut session[..key.len()];
        derive(crypto, key, master, LABEL_KEY, session).ok()?;
        let mut salt = [0; SALT];
        derive(crypto, key, master, LABEL_SALT, &mut salt).ok()?;
        let cipher = crypto.new_aead(algorithm, session).ok()?;
        Some(Gcm { cipher, salt })
    }

    /// Seals the packet that lies in `out` from `start` on, `header` bytes of it readable. `index`: its number with its
    /// cycles (RFC 3711, section 3.3.1), whose low half is in the header. False: it couldn't be sealed.
    ///
    /// An index must never come back with other bytes: AES-GCM would be broken by it.
    pub(crate) fn seal(&mut self, out: &mut Vec<u8>, start: usize, header: usize, index: u64) -> bool {
        let mut nonce = self.salt;
        let packet = &mut out[start..];
        let (head, payload) = packet.split_at_mut(header);
        let cycles = ((index >> 16) as u32).to_be_bytes();
        // Two zeroes, source, cycles, number.
        let place = head[8..12].iter().chain(&cycles).chain(&head[2..4]);
        nonce[2..].iter_mut().zip(place).for_each(|(byte, with)| *byte ^= with);
        let mut tag = [0; TAG];
        let sealed = self.cipher.seal_in_place(&nonce, head, payload, &mut tag).is_ok();
        out.extend_from_slice(&tag);
        sealed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rtc::srtp::context::Context;
    use rtc::srtp::protection_profile::ProtectionProfile;

    /// What we seal, another implementation opens: packets of one stream, by index.
    #[track_caller]
    fn check(key: &[u8], profile: ProtectionProfile, indexes: &[u64]) {
        let provider = rtc::crypto::default_provider().unwrap();
        let salt = [0x5a; SALT];
        let mut ours = Gcm::new(provider.crypto(), key, &salt).unwrap();
        let mut theirs = Context::new(key, &salt, profile, None, None, provider.crypto()).unwrap();
        for index in indexes {
            let mut plain = vec![0x80, 0xe0, 0, 0, 1, 2, 3, 4, 9, 8, 7, 6];
            plain[2..4].copy_from_slice(&(*index as u16).to_be_bytes());
            plain.extend_from_slice(format!("picture {index}").as_bytes());
            let mut out = b"before".to_vec();
            out.extend_from_slice(&plain);
            assert!(ours.seal(&mut out, 6, 12, *index));
            assert_eq!((&out[..6], out.len()), (&b"before"[..], 6 + plain.len() + TAG));
            let opened = theirs.decrypt_rtp(&out[6..]).unwrap();
            assert_eq!(opened, plain, "index {index}");
        }
    }

    #[test]
    fn another_implementation_opens_what_we_seal() {
        let turn = 1 << 16;
        for (key, profile) in [
            (&[7u8; 16][..], ProtectionProfile::AeadAes128Gcm),
            (&[7u8; 32][..], ProtectionProfile::AeadAes256Gcm),
        ] {
            check(key, profile, &[0, 1, 2]);
            check(key, profile, &[turn - 3, turn - 2, turn - 1, turn, turn + 1]);
            // One that is sent again, over the turn.
            check(key, profile, &[turn - 2, turn, turn - 1, turn + 1]);
        }
    }

    #[test]
    fn keys_of_another_size_are_refused() {
        let provider = rtc::crypto::default_provider().unwrap();
        for (key, salt) in [(15, 12), (0, 12), (33, 12), (16, 14), (16, 0)] {
            let gcm = Gcm::new(provider.crypto(), &vec![0; key], &vec![0; salt]);
            assert!(gcm.is_none(), "{key} and {salt}");
        }
    }
}
