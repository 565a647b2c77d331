//! Who a certificate speaks for, and how that is written in it.
//!
//! | holder | in the certificate |
//! |---|---|
//! | node 3 | DNS `node-3.rushroom.internal`, and `node.rushroom.internal` for those who don't know its number yet |
//! | the operator alice | URI `rushroom:operator:alice` |
//! | the auditor bob | URI `rushroom:auditor:bob` |
//!
//! One holder per certificate: one that speaks for two is refused, since nobody could say who called.

use super::fault::TlsFault;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const DOMAIN: &str = "rushroom.internal";
/// Longest name of a person.
const NAME_MAX: usize = 64;

/// Who.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Identity {
    /// A node, by its id.
    Node(u64),
    /// Someone who may change the cluster.
    Operator(String),
    /// Someone who may look.
    Auditor(String),
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Identity::Node(id) => write!(f, "node {id}"),
            Identity::Operator(name) => write!(f, "operator {name}"),
            Identity::Auditor(name) => write!(f, "auditor {name}"),
        }
    }
}

/// The DNS name of a node; of any node without a number.
pub(super) fn dns(node: Option<u64>) -> String {
    node.map_or_else(|| format!("node.{DOMAIN}"), |id| format!("node-{id}.{DOMAIN}"))
}

impl Identity {
    /// A person's name that may stand in a certificate and in the audit.
    pub(crate) fn name(text: &str) -> Result<String, String> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.@+".contains(c);
        if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(good) {
            return Err(format!(
                "a name has 1 to {NAME_MAX} of the characters a-z A-Z 0-9 - _ . @ +"
            ));
        }
        Ok(text.to_owned())
    }

    /// The names that go into its certificate: DNS names, URIs.
    pub(super) fn names(&self) -> (Vec<String>, Vec<String>) {
        match self {
            Identity::Node(id) => (vec![dns(Some(*id)), dns(None)], Vec::new()),
            Identity::Operator(name) => (Vec::new(), vec![format!("rushroom:operator:{name}")]),
            Identity::Auditor(name) => (Vec::new(), vec![format!("rushroom:auditor:{name}")]),
        }
    }

    fn of_dns(name: &str) -> Option<Identity> {
        let id = name.strip_suffix(DOMAIN)?.strip_suffix('.')?.strip_prefix("node-")?;
        // One spelling only: `node-03` is nobody.
        let parsed: u64 = id.parse().ok().filter(|id| *id > 0)?;
        (parsed.to_string() == id).then_some(Identity::Node(parsed))
    }

    fn of_uri(uri: &str) -> Option<Identity> {
        let (role, name) = uri.strip_prefix("rushroom:")?.split_once(':')?;
        let name = Identity::name(name).ok()?;
        match role {
            "operator" => Some(Identity::Operator(name)),
            "auditor" => Some(Identity::Auditor(name)),
            _ => None,
        }
    }

    /// Whom a certificate speaks for, and until when (seconds since 1970). Its signature is checked elsewhere.
    pub(super) fn of(der: &CertificateDer<'_>) -> Result<(Identity, i64), TlsFault> {
        let bad = |what: String| TlsFault::new("tls_bad_certificate", what);
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| bad(error.to_string()))?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| bad(error.to_string()))?;
        let names = names
            .map(|names| names.value.general_names.as_slice())
            .unwrap_or_default();
        let mut found = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Identity::of_dns(name),
            GeneralName::URI(uri) => Identity::of_uri(uri),
            _ => None,
        });
        match (found.next(), found.next()) {
            (Some(one), None) => Ok((one, parsed.validity().not_after.timestamp())),
            (None, _) => Err(TlsFault::new(
                "tls_nobody",
                "the certificate names no node and no person of ours",
            )),
            (Some(one), Some(other)) => Err(TlsFault::new(
                "tls_nobody",
                format!("the certificate speaks for two: {one} and {other}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn only_one_spelling_is_somebody() {
        let dns: &[(&str, Option<u64>)] = &[
            ("node-3.rushroom.internal", Some(3)),
            ("node-03.rushroom.internal", None),
            ("node-0.rushroom.internal", None),
            ("node-+3.rushroom.internal", None),
            ("node-3.rushroom.internal.example.com", None),
            ("xnode-3.rushroom.internal", None),
            ("node-3rushroom.internal", None),
            ("node.rushroom.internal", None),
        ];
        for (name, expect) in dns {
            assert_eq!(Identity::of_dns(name), expect.map(Identity::Node), "{name}");
        }
        let alice = || "alice".to_owned();
        let uris: &[(&str, Option<Identity>)] = &[
            ("rushroom:operator:alice", Some(Identity::Operator(alice()))),
            ("rushroom:auditor:alice", Some(Identity::Auditor(alice()))),
            ("rushroom:node:3", None),
            ("rushroom:operator:", None),
            ("rushroom:operator:a b", None),
            ("rushroom:operator:a\nb", None),
            ("https://operator:alice", None),
        ];
        for (uri, expect) in uris {
            assert_eq!(Identity::of_uri(uri), *expect, "{uri}");
        }
    }
}
