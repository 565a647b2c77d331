//! The three files as they are now, checked as a whole before anyone uses them.

use super::fault::TlsFault;
use super::identity::Identity;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// No certificate of ours is longer.
const FILE_MAX: u64 = 1 << 20;

/// Where they lie, and whose the certificate must be.
pub(super) struct Files {
    pub(super) ca: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    pub(super) node: Option<u64>,
}

impl Files {
    fn bytes(&self) -> Result<[Vec<u8>; 3], TlsFault> {
        Ok([bytes(&self.ca)?, bytes(&self.cert)?, bytes(&self.key)?])
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsFault> {
    let bad = |what: String| TlsFault::new("tls_file", format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
    if size > FILE_MAX {
        return Err(bad(format!("{size} bytes are too many")));
    }
    std::fs::read(path).map_err(|error| bad(error.to_string()))
}

/// What the files say.
pub(super) struct Loaded {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) identity: Identity,
    /// Seconds since 1970.
    not_after: i64,
    ca_not_after: i64,
    of: [Vec<u8>; 3],
}

impl Loaded {
    /// Reads and checks.
    pub(super) fn read(files: &Files) -> Result<Loaded, TlsFault> {
        let of = files.bytes()?;
        let [ca, cert, key] = &of;
        let authorities = certificates(&files.ca, ca)?;
        let chain = certificates(&files.cert, cert)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TlsFault::new("tls_file", format!("{}: {error}", files.key.display())))?;
        let (identity, not_after) = Identity::of(&chain[0])?;
        if let Some(node) = files.node
            && identity != Identity::Node(node)
        {
            let what = format!("{} is {identity}'s, not node {node}'s", files.cert.display());
            return Err(TlsFault::new("tls_wrong_name", what));
        }
        let mut roots = RootCertStore::empty();
        let mut ca_not_after = i64::MIN;
        for authority in authorities {
            // Of several the one that lasts longest: the others are on their way out.
            ca_not_after = ca_not_after.max(ends(&authority)?);
            roots.add(authority).map_err(|error| TlsFault::from(&error))?;
        }
        let (server, client) = configs(Arc::new(roots), &chain, key)?;
        Ok(Loaded {
            server: Arc::new(server),
            client: Arc::new(client),
            identity,
            not_after,
            ca_not_after,
            of,
        })
    }

    /// Whether the files are still the same. Unreadable ones are not.
    pub(super) fn is_of(&self, files: &Files) -> bool {
        files.bytes().is_ok_and(|now| now == self.of)
    }

    /// Tells how long all this lasts.
    pub(super) fn measure(&self) {
        let now = wall().as_secs() as i64;
        crate::metrics::tls_left("certificate", self.not_after - now);
        crate::metrics::tls_left("authority", self.ca_not_after - now);
    }

    /// When the certificate ends, for people.
    pub(super) fn until(&self) -> String {
        time::OffsetDateTime::from_unix_timestamp(self.not_after)
            .map_or_else(|_| self.not_after.to_string(), |at| at.date().to_string())
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let bad = |what: String| TlsFault::new("tls_file", format!("{}: {what}", path.display()));
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| bad(error.to_string()))?;
    if read.is_empty() {
        return Err(bad("holds no certificate".into()));
    }
    Ok(read)
}

fn ends(der: &CertificateDer<'_>) -> Result<i64, TlsFault> {
    let (_, parsed) =
        X509Certificate::from_der(der).map_err(|error| TlsFault::new("tls_bad_certificate", error.to_string()))?;
    Ok(parsed.validity().not_after.timestamp())
}

fn configs(
    roots: Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
) -> Result<(ServerConfig, ClientConfig), TlsFault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let fault = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(_) => TlsFault::new(
            "tls_key_mismatch",
            "the key isn't the certificate's: both must be of one issue",
        ),
        error => TlsFault::from(&error),
    };
    let build = |error: rustls::server::VerifierBuilderError| TlsFault::new("tls_file", error.to_string());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(build)?;
    let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(build)?;
    // Our own must stand before the very check that it will meet: expired, or of another authority, it is of no use.
    let (own, between) = (&chain[0], &chain[1..]);
    clients
        .verify_client_cert(own, between, UnixTime::since_unix_epoch(wall()))
        .map_err(fault)?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(fault)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(fault)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(fault)?
        .with_webpki_verifier(servers)
        .with_client_auth_cert(chain.to_vec(), key)
        .map_err(fault)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    Ok((server, client))
}
