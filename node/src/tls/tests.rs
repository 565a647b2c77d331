//! Real sockets: who gets in, who doesn't, by which code each end learns it, and what happens when files are replaced.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::fault::TlsFault;
use super::issue::{authority, certificate};
use super::load::{Files, Loaded};
use super::{GateLayer, Identity, Incoming, Tls};
use crate::grpc::{ClusterService, Operated};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use placement::NodeId;
use proto::cluster::v1::cluster_client::ClusterClient;
use proto::cluster::v1::cluster_server::ClusterServer;
use proto::cluster::v1::{StatusReply, StatusRequest, StopRequest};
use router::ports::PortError;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::Duration;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::transport::Endpoint;

const DAYS: Duration = Duration::days(30);

/// A folder with an authority (`ca`), another (`other`), and what both signed.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk {
            dir: tempfile::tempdir().unwrap(),
        };
        authority(&desk.at("ca"), DAYS).unwrap();
        authority(&desk.at("other"), DAYS).unwrap();
        desk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Issues into a folder of its own; its certificate and key.
    fn issue(&self, ca: &str, whom: &Identity, lasts: Duration, out: &str) -> (PathBuf, PathBuf) {
        certificate(&self.at(ca), whom, lasts, &self.at(out)).unwrap()
    }

    /// What `whom` shows, trusting `ca`.
    fn tls(&self, whom: &Identity) -> Tls {
        let (cert, key) = self.issue("ca", whom, DAYS, &whom.to_string());
        Tls::open(self.at("ca/ca.crt"), cert, key, None).unwrap()
    }

    /// Shows what no process of ours would: unchecked.
    fn forged(&self, ca: &str, whom: &Identity, lasts: Duration) -> Tls {
        let (cert, key) = self.issue(ca, whom, lasts, "forged");
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots(&self.at("ca/ca.crt")))
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&cert).unwrap()],
                PrivateKeyDer::from_pem_file(&key).unwrap(),
            )
            .unwrap();
        self.with(config)
    }

    /// Shows nothing.
    fn nobody(&self) -> Tls {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots(&self.at("ca/ca.crt")))
            .with_no_client_auth();
        self.with(config)
    }

    fn with(&self, mut config: ClientConfig) -> Tls {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = self.tls(&Identity::Auditor("template".into()));
        let mut loaded = Loaded::read(&tls.files).unwrap();
        loaded.client = Arc::new(config);
        Tls {
            files: tls.files,
            loaded: Arc::new(ArcSwap::from_pointee(loaded)),
        }
    }
}

fn roots(path: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
    roots
}

struct Still;

#[async_trait]
impl Operated for Still {
    async fn status(&self) -> StatusReply {
        StatusReply::default()
    }
    fn stop(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// Node 2 serves until the test's runtime ends.
async fn serve(tls: Option<Tls>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cluster = ClusterServer::new(ClusterService {
        me: NodeId(2),
        node: Arc::new(Still),
    });
    let server = tonic::transport::Server::builder()
        .layer(GateLayer)
        .add_service(cluster);
    tokio::spawn(server.serve_with_incoming(Incoming::of(listener, tls)));
    address
}

type Client = ClusterClient<tonic::transport::Channel>;

fn client(tls: Option<&Tls>, node: Option<u64>, to: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).unwrap();
    ClusterClient::new(super::channel(tls, node, &endpoint))
}

/// The code in an error, wherever it sits.
fn code(status: &Status) -> String {
    let mut error: Option<&dyn std::error::Error> = std::error::Error::source(status);
    while let Some(inner) = error {
        if let Some(fault) = inner.downcast_ref::<TlsFault>() {
            return fault.code.into();
        }
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && let Some(fault) = io.get_ref().and_then(|e| e.downcast_ref::<TlsFault>())
        {
            return fault.code.into();
        }
        error = inner.source();
    }
    match status.message().split_once(']') {
        Some((code, _)) if code.starts_with('[') => code[1..].into(),
        _ => format!("{:?}", status.code()),
    }
}

async fn look(client: &mut Client) -> String {
    let looked = client.status(StatusRequest {}).await;
    looked.map_or_else(|status| code(&status), |_| "ok".into())
}

async fn act(client: &mut Client) -> String {
    let done = client.stop(StopRequest { node: 2 }).await;
    done.map_or_else(|status| code(&status), |_| "ok".into())
}

#[tokio::test]
async fn only_who_the_authority_knows_gets_in_and_each_other_learns_why() {
    let desk = Desk::new();
    let to = serve(Some(desk.tls(&Identity::Node(2)))).await;
    let check = async |what: &str, tls: Option<Tls>, node: Option<u64>, expect: &str| {
        assert_eq!(look(&mut client(tls.as_ref(), node, to)).await, expect, "{what}");
    };
    let one = Identity::Node(1);
    check("a node that means node 2", Some(desk.tls(&one)), Some(2), "ok").await;
    check("a node that joins", Some(desk.tls(&one)), None, "ok").await;
    let operator = desk.tls(&Identity::Operator("alice".into()));
    check("an operator", Some(operator), None, "ok").await;
    check(
        "a node that means node 3",
        Some(desk.tls(&one)),
        Some(3),
        "tls_wrong_name",
    )
    .await;
    let clear = look(&mut client(None, Some(2), to)).await;
    assert!(
        ["Unavailable", "Unknown"].contains(&clear.as_str()),
        "in the clear: {clear}"
    );
    check("nobody", Some(desk.nobody()), Some(2), "tls_no_certificate").await;
    let forged = desk.forged("other", &one, DAYS);
    check("by another authority", Some(forged), Some(2), "tls_unknown_ca").await;
    let over = desk.forged("ca", &one, Duration::seconds(-5));
    check("an expired one", Some(over), Some(2), "tls_expired").await;
    // The other way round: what the server shows is looked at as closely.
    let (cert, key) = desk.issue("other", &one, DAYS, "stranger");
    let stranger = Tls::open(desk.at("other/ca.crt"), cert, key, None).unwrap();
    check(
        "one who knows another authority",
        Some(stranger),
        Some(2),
        "tls_unknown_ca",
    )
    .await;
    let plain = serve(None).await;
    let told = look(&mut client(Some(&desk.tls(&one)), Some(2), plain)).await;
    assert_eq!(told, "tls_plain", "a server in the clear");
}

#[tokio::test]
async fn roles_are_the_certificates_and_a_person_is_no_server() {
    let desk = Desk::new();
    let to = serve(Some(desk.tls(&Identity::Node(2)))).await;
    // who | looking | acting
    let table = [
        (Identity::Node(1), "ok", "ok"),
        (Identity::Operator("alice".into()), "ok", "ok"),
        (Identity::Auditor("bob".into()), "ok", "not_allowed"),
    ];
    for (who, looking, acting) in table {
        let mut client = client(Some(&desk.tls(&who)), Some(2), to);
        assert_eq!(look(&mut client).await, looking, "{who}");
        assert_eq!(act(&mut client).await, acting, "{who}");
    }
    // A person's certificate on a server is nobody's node.
    let to = serve(Some(desk.tls(&Identity::Operator("alice".into())))).await;
    let told = look(&mut client(Some(&desk.tls(&Identity::Node(1))), None, to)).await;
    assert!(
        ["tls_wrong_name", "tls_bad_certificate"].contains(&told.as_str()),
        "{told}"
    );
}

#[tokio::test]
async fn replaced_files_serve_the_next_handshake_and_disturb_no_connection() {
    let desk = Desk::new();
    let two = Identity::Node(2);
    let tls = desk.tls(&two);
    let to = serve(Some(tls.clone())).await;
    let caller = desk.tls(&Identity::Node(1));
    let mut stands = client(Some(&caller), Some(2), to);
    assert_eq!(look(&mut stands).await, "ok");
    let first = tls.now();

    desk.issue("ca", &two, DAYS, &two.to_string());
    assert_eq!(tls.look(), Ok(()));
    assert!(!Arc::ptr_eq(&first, &tls.now()), "the new files are in use");
    assert_eq!(look(&mut stands).await, "ok", "a connection that stood");
    assert_eq!(look(&mut client(Some(&caller), Some(2), to)).await, "ok", "a new one");
    let second = tls.now();
    assert_eq!(tls.look(), Ok(()));
    assert!(Arc::ptr_eq(&second, &tls.now()), "the same files are not new");
}

#[tokio::test]
async fn bad_files_are_told_and_the_old_ones_stay_in_use() {
    let desk = Desk::new();
    let two = Identity::Node(2);
    let (cert, key) = desk.issue("ca", &two, DAYS, "two");
    let tls = Tls::open(desk.at("ca/ca.crt"), cert.clone(), key.clone(), Some(2)).unwrap();
    let first = tls.now();
    let good = [std::fs::read(&cert).unwrap(), std::fs::read(&key).unwrap()];
    let put = |from: &(PathBuf, PathBuf)| {
        std::fs::copy(&from.0, &cert).unwrap();
        std::fs::copy(&from.1, &key).unwrap();
    };
    let code = || tls.look().unwrap_err().code;

    std::fs::copy(desk.issue("ca", &two, DAYS, "newer").1, &key).unwrap();
    assert_eq!(code(), "tls_key_mismatch", "only the key was replaced so far");
    put(&desk.issue("ca", &Identity::Node(3), DAYS, "three"));
    assert_eq!(code(), "tls_wrong_name", "another node's");
    put(&desk.issue("ca", &two, Duration::seconds(-5), "over"));
    assert_eq!(code(), "tls_expired");
    put(&desk.issue("other", &two, DAYS, "foreign"));
    assert_eq!(code(), "tls_unknown_ca");
    std::fs::write(&cert, "nothing").unwrap();
    assert_eq!(code(), "tls_file");
    std::fs::remove_file(&cert).unwrap();
    assert_eq!(code(), "tls_file");

    assert!(Arc::ptr_eq(&first, &tls.now()), "none of them came into use");
    std::fs::write(&cert, &good[0]).unwrap();
    std::fs::write(&key, &good[1]).unwrap();
    assert_eq!(tls.look(), Ok(()));
}

#[tokio::test]
async fn an_authority_is_replaced_by_a_file_with_both() {
    let desk = Desk::new();
    let (one, two) = (Identity::Node(1), Identity::Node(2));
    let both = desk.at("both.crt");
    let joined = [desk.at("ca/ca.crt"), desk.at("other/ca.crt")].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&both, joined.concat()).unwrap();
    let open = |ca: &str, whom: &Identity, out: &str| {
        let (cert, key) = desk.issue(ca, whom, DAYS, out);
        Tls::open(both.clone(), cert, key, None).unwrap()
    };
    let old = open("ca", &two, "old");
    let new = open("other", &one, "new");
    let to = serve(Some(old)).await;
    assert_eq!(look(&mut client(Some(&new), Some(2), to)).await, "ok");
}

#[test]
fn an_authority_is_never_overwritten_and_keys_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::new();
    let told = authority(&desk.at("ca"), DAYS).unwrap_err().to_string();
    assert!(told.contains("is there already"), "{told}");
    let (_, key) = desk.issue("ca", &Identity::Node(1), DAYS, "one");
    for key in [key, desk.at("ca/ca.key")] {
        assert_eq!(
            std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600,
            "{key:?}"
        );
    }
    let files = Files {
        ca: desk.at("ca/ca.crt"),
        cert: desk.at("ca/ca.crt"),
        key: desk.at("ca/ca.key"),
        node: None,
    };
    assert_eq!(
        Loaded::read(&files).err().map(|fault| fault.code),
        Some("tls_nobody"),
        "the authority is no node"
    );
    assert_eq!(desk.tls(&Identity::Node(7)).identity(), Identity::Node(7));
}
