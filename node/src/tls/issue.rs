//! `rushroom node init-ca` and `rushroom node cert`: the cluster's own authority, and what it signs.
//!
//! ```text
//!   init-ca --out DIR                  ca.crt  ca.key (0600; keep it off the nodes)
//!   cert --ca DIR --node 3 --out DIR   ca.crt  node-3.crt  node-3.key (0600)
//!   cert --ca DIR --operator alice …   ca.crt  operator-alice.crt  operator-alice.key
//! ```
//!
//! Files are written whole under another name and renamed, the key before the certificate: a node that looks in between
//! finds a key that doesn't fit, keeps what it has, and looks again. An authority is never overwritten.

use super::identity::Identity;
use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// Clocks of machines differ: what is issued is good from a little while ago.
const SKEW: Duration = Duration::minutes(10);

/// Certificates of the cluster.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Issue {
    /// Make the cluster's certificate authority.
    InitCa {
        /// Folder for ca.crt and ca.key.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long it is good for.
        #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
    /// Issue a certificate to a node, an operator or an auditor.
    Cert(Cert),
}

#[derive(Args, Debug, Clone)]
pub(crate) struct Cert {
    /// Folder of ca.crt and ca.key.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    #[command(flatten)]
    whom: Whom,
    /// Folder for the files.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long it is good for.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

#[derive(Args, Debug, Clone)]
#[group(required = true, multiple = false)]
struct Whom {
    /// To the node of this id.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    node: Option<u64>,
    /// To a person who may change the cluster.
    #[arg(long, value_name = "NAME", value_parser = Identity::name)]
    operator: Option<String>,
    /// To a person who may look.
    #[arg(long, value_name = "NAME", value_parser = Identity::name)]
    auditor: Option<String>,
}

/// Does what was asked; returns what to print.
pub(crate) fn issue(what: &Issue) -> Result<String> {
    match what {
        Issue::InitCa { out, days } => {
            authority(out, Duration::days(i64::from(*days)))?;
            Ok(format!(
                "{}: the authority, good for {days} days; goes to every node as tls.ca\n\
                 {}: its key; whoever has it can be any node: keep it off the nodes\n",
                out.join("ca.crt").display(),
                out.join("ca.key").display()
            ))
        }
        Issue::Cert(cert) => {
            let whom = match (cert.whom.node, &cert.whom.operator, &cert.whom.auditor) {
                (Some(id), _, _) => Identity::Node(id),
                (_, Some(name), _) => Identity::Operator(name.clone()),
                (_, _, Some(name)) => Identity::Auditor(name.clone()),
                _ => bail!("to whom?"),
            };
            let (crt, key) = certificate(&cert.ca, &whom, Duration::days(i64::from(cert.days)), &cert.out)?;
            let days = cert.days;
            Ok(format!(
                "{}: {whom}, good for {days} days\n{}: its key\n",
                crt.display(),
                key.display()
            ))
        }
    }
}

/// Makes an authority in `out`; refuses where one is.
pub(crate) fn authority(out: &Path, lasts: Duration) -> Result<()> {
    let (crt, key) = (out.join("ca.crt"), out.join("ca.key"));
    for path in [&crt, &key] {
        ensure!(
            !path.exists(),
            "{} is there already: a new authority shuts out all that the old one signed",
            path.display()
        );
    }
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let pair = KeyPair::generate().context("making a key")?;
    let mut params = lasting(lasts)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = named(&format!("Rushroom cluster {}", hex::encode(rand::random::<[u8; 4]>())));
    let made = params.self_signed(&pair).context("signing")?;
    write(&key, pair.serialize_pem().as_bytes(), 0o600)?;
    write(&crt, made.pem().as_bytes(), 0o644)
}

/// Issues to `whom`, by the authority in `ca`; where its certificate and key lie.
pub(crate) fn certificate(ca: &Path, whom: &Identity, lasts: Duration, out: &Path) -> Result<(PathBuf, PathBuf)> {
    let (dns, uris) = whom.names();
    let read = |name: &str| {
        let path = ca.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (ca_crt, ca_key) = (read("ca.crt")?, read("ca.key")?);
    let signer = KeyPair::from_pem(&ca_key).context("reading ca.key")?;
    let issuer = Issuer::from_ca_cert_pem(&ca_crt, signer).context("reading ca.crt")?;
    let pair = KeyPair::generate().context("making a key")?;
    let mut params = lasting(lasts)?;
    params.distinguished_name = named(&whom.to_string());
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match whom {
        Identity::Node(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        _ => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    for name in dns {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.as_str().try_into()?));
    }
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    let made = params.signed_by(&pair, &issuer).context("signing")?;
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let stem = whom.to_string().replace(' ', "-");
    let (crt, key) = (out.join(format!("{stem}.crt")), out.join(format!("{stem}.key")));
    write(&out.join("ca.crt"), ca_crt.as_bytes(), 0o644)?;
    write(&key, pair.serialize_pem().as_bytes(), 0o600)?;
    write(&crt, made.pem().as_bytes(), 0o644)?;
    Ok((crt, key))
}

fn lasting(lasts: Duration) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - SKEW, now + lasts);
    // What is to be over already began before that.
    params.not_before = params.not_before.min(params.not_after - SKEW);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// Writes a file whole or not at all.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let put = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    put().with_context(|| format!("writing {}", path.display()))
}
