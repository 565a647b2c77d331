//! Tokens: who someone is and what they may, signed by the cluster and verified by key alone.
//!
//! A token is a JWT signed with Ed25519. Every node derives the same key from the cluster's secret, so any edge verifies
//! what any other signed and a reconnect storm reaches no store. The header's `kid` picks the key (rotation: old secrets
//! verify, the newest signs); the algorithm is never taken from the token.
//!
//! Deliberately absent: refresh, revocation and sign-in by providers (they come with accounts); `SYSTEM` can't be
//! spoken by any token.

use crate::options::{Options, Secret};
use auction::{Actor, Id, Rights};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// Who our tokens are for; a token of another service is foreign even if its key were ours.
const AUDIENCE: &str = "rushroom";
/// A token's header and claims are a few hundred bytes; nothing longer is looked at.
const TOKEN_MAX: usize = 2_048;

/// A person, as a token proves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: Id,
    /// Shown name.
    pub name: String,
    /// What they may.
    pub rights: Rights,
    /// Until when, unix ms.
    pub expires_at_ms: u64,
}

impl User {
    /// As the author of a command.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor {
            id: self.id.clone(),
            rights: self.rights,
        }
    }

    /// The words for what they may.
    #[must_use]
    pub fn roles(&self) -> Vec<&'static str> {
        ROLES
            .iter()
            .filter(|(_, right)| self.rights.has(*right))
            .map(|(word, _)| *word)
            .collect()
    }
}

/// Roles as they are spelled in tokens. `SYSTEM` is missing on purpose.
const ROLES: [(&str, Rights); 6] = [
    ("member", Rights::MEMBER),
    ("bidder", Rights::BIDDER),
    ("seller", Rights::SELLER),
    ("moderator", Rights::MODERATOR),
    ("operator", Rights::OPERATOR),
    ("auditor", Rights::AUDITOR),
];

/// Why a token was refused: for logs and tests, the caller only learns `auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not three base64 parts, or not our claims.
    #[error("malformed")]
    Malformed,
    /// Signed with no algorithm, or another than ours.
    #[error("wrong algorithm")]
    Algorithm,
    /// No key of ours has that `kid`.
    #[error("unknown key")]
    UnknownKey,
    /// The signature doesn't match.
    #[error("wrong signature")]
    Signature,
    /// Past its `exp`.
    #[error("expired")]
    Expired,
    /// For someone else's service.
    #[error("wrong audience")]
    Audience,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    name: String,
    roles: Vec<String>,
    iat: u64,
    exp: u64,
}

struct Verifier {
    kid: String,
    key: DecodingKey,
}

/// Signs and verifies.
pub struct Tokens {
    kid: String,
    signer: EncodingKey,
    verifiers: Vec<Verifier>,
    ttl_ms: u64,
}

impl Tokens {
    /// Keys from the options' secrets.
    #[must_use]
    pub fn new(options: &Options) -> Tokens {
        let newest = verifier(&options.token_secret);
        let kid = newest.kid.clone();
        let old = options.token_secrets_old.iter().map(verifier);
        Tokens {
            kid,
            signer: EncodingKey::from_ed_der(&pkcs8(&options.token_secret)),
            verifiers: std::iter::once(newest).chain(old).collect(),
            ttl_ms: options.token_ttl_ms,
        }
    }

    /// A token for a person, and when it ends (unix ms). `None` only if signing itself fails.
    #[must_use]
    pub fn mint(&self, id: &Id, name: &str, rights: Rights) -> Option<(String, User)> {
        let now = wall_ms();
        let user = User {
            id: id.clone(),
            name: name.to_owned(),
            rights,
            expires_at_ms: (now + self.ttl_ms) / 1000 * 1000,
        };
        let claims = Claims {
            iss: AUDIENCE.into(),
            aud: AUDIENCE.into(),
            sub: id.into(),
            name: name.into(),
            roles: user.roles().into_iter().map(Into::into).collect(),
            iat: now / 1000,
            exp: user.expires_at_ms / 1000,
        };
        let header = Header {
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        match jsonwebtoken::encode(&header, &claims, &self.signer) {
            Ok(token) => Some((token, user)),
            Err(error) => {
                tracing::error!(%error, "a token could not be signed");
                None
            }
        }
    }

    /// Who this token proves.
    pub fn verify(&self, token: &str) -> Result<User, Refused> {
        if token.len() > TOKEN_MAX {
            return Err(Refused::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|e| reason(&e))?;
        if header.alg != Algorithm::EdDSA {
            return Err(Refused::Algorithm);
        }
        let kid = header.kid.ok_or(Refused::UnknownKey)?;
        let verifier = self
            .verifiers
            .iter()
            .find(|v| v.kid == kid)
            .ok_or(Refused::UnknownKey)?;
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[AUDIENCE]);
        rules.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        rules.leeway = 0;
        let claims = jsonwebtoken::decode::<Claims>(token, &verifier.key, &rules)
            .map_err(|e| reason(&e))?
            .claims;
        // The library lets the last second pass; we don't.
        if claims.exp.saturating_mul(1000) <= wall_ms() {
            return Err(Refused::Expired);
        }
        let id = Id::parse(&claims.sub).ok_or(Refused::Malformed)?;
        let rights = ROLES
            .iter()
            .filter(|(word, _)| claims.roles.iter().any(|r| r == word))
            .fold(Rights::default(), |all, (_, right)| all.and(*right));
        Ok(User {
            id,
            name: claims.name,
            rights,
            expires_at_ms: claims.exp.saturating_mul(1000),
        })
    }
}

fn reason(error: &jsonwebtoken::errors::Error) -> Refused {
    use jsonwebtoken::errors::ErrorKind as Kind;
    match error.kind() {
        Kind::ExpiredSignature => Refused::Expired,
        Kind::InvalidAudience | Kind::InvalidIssuer => Refused::Audience,
        Kind::InvalidSignature => Refused::Signature,
        Kind::InvalidAlgorithm | Kind::InvalidAlgorithmName => Refused::Algorithm,
        _ => Refused::Malformed,
    }
}

/// The public half of a secret and its short name.
fn verifier(secret: &Secret) -> Verifier {
    // Any 32 bytes are an Ed25519 seed; the fallback is a key that verifies nothing.
    let public = Ed25519KeyPair::from_seed_unchecked(&secret.0)
        .map_or_else(|_| vec![0; 32], |pair| pair.public_key().as_ref().to_vec());
    let digest = ring::digest::digest(&ring::digest::SHA256, &public);
    let kid = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..9]);
    Verifier {
        kid,
        key: DecodingKey::from_ed_der(&public),
    }
}

/// The secret as a PKCS#8 document (RFC 8410): a fixed head before the 32 bytes.
fn pkcs8(secret: &Secret) -> Vec<u8> {
    const HEAD: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    HEAD.iter().chain(secret.0.iter()).copied().collect()
}

/// Wall time, unix ms: for what people read and for token lives only.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn tokens(secret: &[u8]) -> Tokens {
        Tokens::new(&Options {
            token_secret: Secret::of(secret),
            ..Options::default()
        })
    }

    fn mint(t: &Tokens) -> String {
        t.mint(
            &Id::parse("guest-ann-1").unwrap(),
            "Ann",
            Rights::BIDDER.and(Rights::SELLER),
        )
        .unwrap()
        .0
    }

    /// A token with this header and these claims, signed by the key of `secret` whatever the header says.
    fn forged(secret: &[u8], header: serde_json::Value, claims: serde_json::Value) -> String {
        let body = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let pair = Ed25519KeyPair::from_seed_unchecked(&Secret::of(secret).0).unwrap();
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(pair.sign(body.as_bytes())))
    }

    fn claims() -> serde_json::Value {
        serde_json::json!({"iss": AUDIENCE, "aud": AUDIENCE, "sub": "ann", "name": "Ann", "roles": ["bidder"], "iat": 1, "exp": wall_ms() / 1000 + 60})
    }

    fn with(key: &str, value: serde_json::Value) -> serde_json::Value {
        let mut c = claims();
        c[key] = value;
        c
    }

    #[test]
    fn every_node_of_a_cluster_verifies_what_any_signed() {
        let user = tokens(b"one").verify(&mint(&tokens(b"one"))).unwrap();
        assert_eq!((user.id.as_str(), user.name.as_str()), ("guest-ann-1", "Ann"));
        assert_eq!(user.roles(), ["bidder", "seller"]);
    }

    #[test]
    fn an_old_secret_still_verifies_after_a_rotation() {
        let old = mint(&tokens(b"old"));
        let rotated = Tokens::new(&Options {
            token_secret: Secret::of(b"new"),
            token_secrets_old: vec![Secret::of(b"old")],
            ..Options::default()
        });
        assert!(rotated.verify(&old).is_ok());
        assert!(rotated.verify(&mint(&rotated)).is_ok());
    }

    /// what | token | why
    #[rustfmt::skip]
    fn not_ours(ours: &Tokens) -> Vec<(&'static str, String, Refused)> {
        let kid = ours.kid.clone();
        let head = |alg: &str| serde_json::json!({"alg": alg, "typ": "JWT", "kid": kid});
        let sealed = |key: &str, value: serde_json::Value| forged(b"ours", head("EdDSA"), with(key, value));
        let unsigned = |token: &str| format!("{}.", token.rsplit_once('.').unwrap().0);
        let none = forged(b"ours", head("none"), claims());
        let no_kid = forged(b"ours", serde_json::json!({"alg": "EdDSA"}), claims());
        vec![
            ("garbage", "garbage".to_owned(), Refused::Malformed),
            ("empty", String::new(), Refused::Malformed),
            ("three dots", "a.b.c".to_owned(), Refused::Malformed),
            ("huge", "x".repeat(1 << 20), Refused::Malformed),
            ("alg none, no signature", unsigned(&none), Refused::Malformed),
            ("alg none", none, Refused::Malformed),
            ("alg of a shared secret", forged(b"ours", head("HS256"), claims()), Refused::Algorithm),
            ("alg of another family", forged(b"ours", head("RS256"), claims()), Refused::Algorithm),
            ("another cluster's key", mint(&tokens(b"theirs")), Refused::UnknownKey),
            ("another key under our kid", forged(b"theirs", head("EdDSA"), claims()), Refused::Signature),
            ("no kid", no_kid, Refused::UnknownKey),
            ("signature cut off", unsigned(&mint(ours)), Refused::Signature),
            ("expired", sealed("exp", (wall_ms() / 1000 - 1).into()), Refused::Expired),
            ("other audience", sealed("aud", "shop".into()), Refused::Audience),
            ("other issuer", sealed("iss", "shop".into()), Refused::Audience),
            ("no expiry", sealed("exp", serde_json::Value::Null), Refused::Malformed),
            ("an id that is none", sealed("sub", "a b".into()), Refused::Malformed),
        ]
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let ours = tokens(b"ours");
        for (what, token, why) in not_ours(&ours) {
            assert_eq!(ours.verify(&token), Err(why), "{what}");
        }
        let head = serde_json::json!({"alg": "EdDSA", "typ": "JWT", "kid": ours.kid});
        assert!(
            ours.verify(&forged(b"ours", head, claims())).is_ok(),
            "the table's own forge is sound"
        );
    }

    #[test]
    fn no_token_speaks_for_the_cluster_itself() {
        let ours = tokens(b"ours");
        let head = serde_json::json!({"alg": "EdDSA", "kid": ours.kid});
        let roles = with("roles", serde_json::json!(["system", "SYSTEM", "operator"]));
        let user = ours.verify(&forged(b"ours", head, roles)).unwrap();
        assert!(!user.rights.has(Rights::SYSTEM));
        assert!(user.rights.has(Rights::OPERATOR));
    }
}
