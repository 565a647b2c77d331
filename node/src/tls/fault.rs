//! What can be wrong with a certificate or a handshake: one code each, with a line for the operator.
//!
//! | code | what it means | what to do |
//! |---|---|---|
//! | `tls_file` | a file can't be read, or holds something else | look at `tls.*` |
//! | `tls_key_mismatch` | the key isn't the certificate's | both files must be of one issue |
//! | `tls_expired` | over | issue a new one |
//! | `tls_not_yet_valid` | begins later | look at the clocks of both machines |
//! | `tls_unknown_ca` | not signed by the cluster's authority | was it issued by another cluster's? |
//! | `tls_wrong_name` | good, but another node's | the address leads to another node, or the files are mixed up |
//! | `tls_nobody` | good, but names no node or person | issue it by `rushroom node cert` |
//! | `tls_no_certificate` | the caller shows none | give it one |
//! | `tls_plain` | the other end doesn't speak TLS | set `tls.*` on both |
//! | `tls_bad_certificate` | unreadable, a bad signature, not meant for this use | issue a new one |
//! | `tls_handshake` | anything else | the text says |

use rustls::{AlertDescription, CertificateError, Error};

/// All of them.
pub(crate) const CODES: [&str; 11] = [
    "tls_file",
    "tls_key_mismatch",
    "tls_expired",
    "tls_not_yet_valid",
    "tls_unknown_ca",
    "tls_wrong_name",
    "tls_nobody",
    "tls_no_certificate",
    "tls_plain",
    "tls_bad_certificate",
    "tls_handshake",
];

/// Why a certificate isn't taken, or a connection didn't come about.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("[{code}] {what}")]
pub(crate) struct TlsFault {
    pub(crate) code: &'static str,
    pub(crate) what: String,
}

impl TlsFault {
    pub(crate) fn new(code: &'static str, what: impl Into<String>) -> TlsFault {
        TlsFault {
            code,
            what: what.into(),
        }
    }
}

fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "tls_expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "tls_not_yet_valid",
        CertificateError::UnknownIssuer => "tls_unknown_ca",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => "tls_wrong_name",
        _ => "tls_bad_certificate",
    }
}

/// What the other end says of us.
fn of_alert(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateExpired => "tls_expired",
        AlertDescription::UnknownCA => "tls_unknown_ca",
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => "tls_no_certificate",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::DecryptError => "tls_bad_certificate",
        _ => "tls_handshake",
    }
}

impl From<&Error> for TlsFault {
    fn from(error: &Error) -> TlsFault {
        let code = match error {
            Error::InvalidCertificate(error) => of_certificate(error),
            Error::NoCertificatesPresented => "tls_no_certificate",
            Error::AlertReceived(alert) => of_alert(*alert),
            Error::InvalidMessage(_) => "tls_plain",
            _ => "tls_handshake",
        };
        TlsFault::new(code, error.to_string())
    }
}

/// What an I/O error of a TLS stream is about; none: not about TLS.
pub(super) fn of_io(error: &std::io::Error) -> Option<TlsFault> {
    let inner = error.get_ref()?;
    if let Some(fault) = inner.downcast_ref::<TlsFault>() {
        return Some(fault.clone());
    }
    inner.downcast_ref::<Error>().map(TlsFault::from)
}

/// The same error with its code in front, if it is about TLS.
pub(super) fn coded(error: std::io::Error) -> std::io::Error {
    match of_io(&error) {
        Some(fault) => std::io::Error::new(error.kind(), fault),
        None => error,
    }
}
