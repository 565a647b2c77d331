//! Three real `rushroom node` processes for the tests that need them: started, killed and restarted by pid, in a folder
//! that goes with the test. They die with the test, however it ends.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use client::{Api, ApiOptions, Role, Session, wire::NewAuction};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// (id, zone, region).
const NODES: [(u64, &str, &str); 3] = [(1, "a", "seoul"), (2, "b", "seoul"), (3, "c", "tokyo")];

/// The shards of a test cluster.
pub(crate) const SHARDS: u32 = 8;

/// The clusters' common secret: tokens can be forged with another.
pub(crate) const SECRET: &str = "5bd1e995a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c";

pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) http: String,
    pub(crate) grpc: String,
    /// Its folder.
    pub(crate) home: PathBuf,
    settings: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// A library that is loaded before the C library, told its node's folder by `SHIM_DIR`.
    preload: Option<PathBuf>,
    dir: tempfile::TempDir,
}

fn free_ports(n: usize) -> Vec<u16> {
    let mut held = Vec::new();
    while held.len() < n {
        let port = rand::random_range(20_000..32_000);
        let taken = held.iter().any(|(p, _, _)| *p == port);
        if let (false, Ok(tcp), Ok(udp)) = (
            taken,
            TcpListener::bind(("127.0.0.1", port)),
            UdpSocket::bind(("127.0.0.1", port)),
        ) {
            held.push((port, tcp, udp));
        }
    }
    held.into_iter().map(|(port, _, _)| port).collect()
}

impl Cluster {
    /// Starts three nodes with `more` settings (TOML lines; `{id}` is the node's) each, and waits until they are ready.
    pub(crate) async fn start(more: &str) -> Cluster {
        Cluster::start_on(more, 4_194_304, None).await
    }

    /// The same with segments of so many bytes, and with `preload` between the nodes and the system.
    pub(crate) async fn start_on(more: &str, segment_bytes: u64, preload: Option<PathBuf>) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(12);
        let founders: Vec<String> = NODES
            .iter()
            .enumerate()
            .map(|(i, (id, zone, region))| {
                let (http, grpc, trunk) = (ports[i], ports[3 + i], ports[9 + i]);
                format!(
                    "\"id={id} zone={zone} region={region} grpc=127.0.0.1:{grpc} http=http://127.0.0.1:{http} trunk=127.0.0.1:{trunk}\""
                )
            })
            .collect();
        let nodes = NODES.iter().enumerate().map(|(i, (id, zone, region))| {
            let home = dir.path().join(format!("node{id}"));
            std::fs::create_dir_all(&home).unwrap();
            let settings = home.join("node.toml");
            let text = format!(
                "[node]\nid = {id}\nzone = '{zone}'\nregion = '{region}'\ndir = '{}'\n[http]\nlisten = '127.0.0.1:{}'\n\
                 [grpc]\nlisten = '127.0.0.1:{}'\n[media]\nudp_port = {}\ntrunk_port = {}\n\
                 [cluster]\nshards = {SHARDS}\nsecret = '{SECRET}'\nfounders = [{}]\n[log]\nsegment_bytes = {segment_bytes}\n{more}\n",
                home.join("data").display(),
                ports[i],
                ports[3 + i],
                ports[6 + i],
                ports[9 + i],
                founders.join(", "),
                more = more.replace("{id}", &id.to_string()),
            );
            std::fs::write(&settings, text).unwrap();
            let grpc = format!("127.0.0.1:{}", ports[3 + i]);
            let (http, log) = (format!("http://127.0.0.1:{}", ports[i]), home.join("log"));
            Node { id: *id, http, grpc, home, settings, log, child: None }
        });
        let mut cluster = Cluster {
            nodes: nodes.collect(),
            preload,
            dir,
        };
        cluster.start_all().await;
        cluster
    }

    /// Starts one more node, which joins by the first, and waits until it is ready.
    pub(crate) async fn admit(&mut self, id: u64, zone: &str) {
        self.admit_with(id, zone, "").await;
    }

    /// The same, with more settings.
    pub(crate) async fn admit_with(&mut self, id: u64, zone: &str, more: &str) {
        let ports = free_ports(4);
        let home = self.dir.path().join(format!("node{id}"));
        std::fs::create_dir_all(&home).unwrap();
        let settings = home.join("node.toml");
        let text = format!(
            "[node]\nid = {id}\nzone = '{zone}'\nregion = 'tokyo'\ndir = '{}'\n[http]\nlisten = '127.0.0.1:{}'\n\
             [grpc]\nlisten = '127.0.0.1:{}'\n[media]\nudp_port = {}\ntrunk_port = {}\n\
             [cluster]\nsecret = '{SECRET}'\njoin = '{}'\n[log]\nsegment_bytes = 4194304\n{more}\n",
            home.join("data").display(),
            ports[0],
            ports[1],
            ports[2],
            ports[3],
            self.nodes[0].grpc,
            more = more.replace("{id}", &id.to_string()),
        );
        std::fs::write(&settings, text).unwrap();
        let (http, grpc) = (
            format!("http://127.0.0.1:{}", ports[0]),
            format!("127.0.0.1:{}", ports[1]),
        );
        let log = home.join("log");
        self.nodes.push(Node {
            id,
            http,
            grpc,
            home,
            settings,
            log,
            child: None,
        });
        self.start_all().await;
    }

    /// Starts what is not running, and waits until all are ready.
    pub(crate) async fn start_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|n| n.child.is_none()) {
            let log = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&node.log)
                .unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_rushroom"));
            if let Some(library) = &self.preload {
                command.env("LD_PRELOAD", library).env("SHIM_DIR", &node.home);
            }
            let child = command
                .args(["node", "--die-with", &std::process::id().to_string(), "--config"])
                .arg(&node.settings)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap();
            node.child = Some(child);
        }
        let http = reqwest::Client::new();
        let until = Instant::now() + PATIENCE;
        for i in 0..self.nodes.len() {
            loop {
                let node = &mut self.nodes[i];
                let ended = node.child.as_mut().unwrap().try_wait().unwrap();
                assert!(
                    ended.is_none(),
                    "node {} ended: {ended:?}\n{}",
                    node.id,
                    tail(&node.log)
                );
                let answer = http
                    .get(format!("{}/readyz", node.http))
                    .timeout(Duration::from_secs(2))
                    .send()
                    .await;
                if answer.is_ok_and(|a| a.status().is_success()) {
                    break;
                }
                assert!(
                    Instant::now() < until,
                    "node {} is not ready\n{}",
                    node.id,
                    tail(&node.log)
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// `kill -9` of these nodes, all before any is waited for.
    pub(crate) fn kill(&mut self, places: &[usize]) {
        for place in places {
            self.nodes[*place].child.as_mut().unwrap().kill().unwrap();
        }
        for place in places {
            self.nodes[*place].child.take().unwrap().wait().unwrap();
        }
    }

    /// Waits until the node at `place` has ended by itself: how, and what it logged.
    pub(crate) async fn ended(&mut self, place: usize) -> (ExitStatus, String) {
        let until = Instant::now() + PATIENCE;
        let node = &mut self.nodes[place];
        loop {
            if let Some(status) = node.child.as_mut().unwrap().try_wait().unwrap() {
                node.child = None;
                return (status, std::fs::read_to_string(&node.log).unwrap());
            }
            assert!(Instant::now() < until, "node {} goes on\n{}", node.id, tail(&node.log));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A client that asks the node at `place` first.
    pub(crate) fn api(&self, place: usize) -> Api {
        let nodes = self.nodes.iter().map(|n| n.http.clone()).collect();
        Api::new(ApiOptions {
            nodes,
            first: place,
            ..ApiOptions::default()
        })
        .unwrap()
    }

    /// Everything that the nodes logged.
    pub(crate) fn logs(&self) -> String {
        self.nodes
            .iter()
            .map(|n| std::fs::read_to_string(&n.log).unwrap())
            .collect()
    }

    /// No node panicked so far.
    pub(crate) fn assert_no_panic(&self) {
        for node in &self.nodes {
            let log = std::fs::read_to_string(&node.log).unwrap();
            let line = log.lines().find(|l| l.contains("panicked at"));
            assert!(line.is_none(), "node {}: {line:?}\n{}", node.id, tail(&node.log));
        }
    }
}

fn tail(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The logs go with the folder: show their ends first.
            for node in &self.nodes {
                eprintln!("--- node {}\n{}", node.id, tail(&node.log));
            }
        }
        for child in self.nodes.iter_mut().filter_map(|n| n.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A seller and `n` bidders.
pub(crate) async fn people(api: &Api, n: usize) -> (Session, Vec<Session>) {
    let seller = api.guest("seller", Role::Seller).await.unwrap();
    let mut bidders = Vec::new();
    for i in 0..n {
        bidders.push(api.guest(&format!("bidder{i}"), Role::Bidder).await.unwrap());
    }
    (seller, bidders)
}

/// An auction that runs for `duration_ms` and is hardly cut by bids.
pub(crate) fn auction(id: &str, duration_ms: u64) -> NewAuction {
    NewAuction {
        id: Some(id.into()),
        title: "A test".into(),
        description: None,
        currency: "KRW".into(),
        start_price: 1_000,
        increments: Some(vec![[0, 100]]),
        reserve: None,
        duration_ms,
        rush: None,
        soft_close: None,
        guests: Some(true),
        pause_without_stream: None,
    }
}

/// An accepted bid: its shard's clock read `ct` at some moment between `sent` and `got`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamped {
    pub(crate) sent: Instant,
    pub(crate) got: Instant,
    pub(crate) ct: u64,
    /// The deadline after it.
    pub(crate) ends_at: u64,
}

/// Bids, and takes down what that says of the shard's clock.
pub(crate) async fn stamped(api: &Api, id: &str, amount: u64, key: &str) -> Stamped {
    let sent = Instant::now();
    let verdict = api.bid(id, amount, key).await.unwrap();
    assert!(verdict.ok, "{verdict:?}");
    Stamped {
        sent,
        got: Instant::now(),
        ct: verdict.ct,
        ends_at: verdict.ends_at.unwrap(),
    }
}

/// How far a clock may gain on real time before that is a jump, ms (as the checkers of `chaos` have it).
const GAIN_MAX_MS: f64 = 20.0;

/// A shard's clock went on from where it stood, over whatever came between: it never fell below a stamp of before (the first
/// may read the same, until then it stood), and never gained on real time, which would be bidding time taken away. Says what
/// it certainly did.
pub(crate) fn went_on(what: &str, before: &[Stamped], after: &[Stamped]) {
    let ms = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1e3;
    let (mut gained, mut stood) = (f64::MIN, f64::MAX);
    for (b, a) in before.iter().flat_map(|b| after.iter().map(move |a| (b, a))) {
        assert!(
            a.ct >= b.ct,
            "{what}: the clock fell by {} ms: {b:?}, {a:?}",
            b.ct - a.ct
        );
        let went = (a.ct - b.ct) as f64;
        gained = gained.max(went - ms(b.sent, a.got));
        stood = stood.min(ms(b.sent, a.got) - went);
    }
    assert!(
        gained <= GAIN_MAX_MS,
        "{what}: the clock gained {gained:.1} ms on real time"
    );
    eprintln!(
        "{what}: the clock fell by 0 ms, gained at most {:.1} ms, stood for at most {stood:.0} ms",
        gained.max(0.0)
    );
}
