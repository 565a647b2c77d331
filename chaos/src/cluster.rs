//! A real cluster on this machine: three `rushroom node` processes on loopback, started, killed, paused and restarted.
//!
//! Every process is known by its pid and ends with us: by `Drop` when we end in order, by the kernel (the node's
//! `--die-with`) when we don't. Ports are picked below the ephemeral range, so that a node that restarts finds its own
//! ports free and not in the hands of some outgoing connection. Each node's output goes to its own log, kept for good:
//! a panic in it fails a run.

use anyhow::{Context as _, Result, bail, ensure};
use client::{Api, ApiOptions, Dice};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fmt::Write as _,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Nodes of a cluster under test: (id, zone, region).
const NODES: [(u64, &str, &str); 3] = [(1, "a", "seoul"), (2, "b", "seoul"), (3, "c", "tokyo")];
/// Ports are looked for here: below what the kernel gives to outgoing connections.
const PORTS: (u64, u64) = (12_000, 30_000);

/// A node in another region than `id`'s.
pub(crate) fn far_from(id: u64) -> u64 {
    let region = |id| NODES.iter().find(|node| node.0 == id).map(|node| node.2);
    let far = NODES.iter().find(|node| Some(node.2) != region(id));
    far.map_or(id, |node| node.0)
}

/// What a cluster is made of.
pub(crate) struct Options {
    /// Data, settings and logs.
    pub(crate) dir: PathBuf,
    pub(crate) shards: u32,
    /// Nodes talk TLS, by an authority of this run.
    pub(crate) tls: bool,
    /// Of ports and secrets.
    pub(crate) seed: u64,
    /// A node that others reach by another port than the one that it listens on.
    pub(crate) front: Option<(u64, u16)>,
    /// More settings, for each node.
    pub(crate) more: String,
}

struct Node {
    id: u64,
    http: String,
    grpc: String,
    settings: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// Three nodes, alive or not.
pub(crate) struct Cluster {
    binary: PathBuf,
    nodes: Vec<Node>,
}

impl Cluster {
    /// Writes the settings and starts all nodes; they aren't ready yet.
    pub(crate) fn start(binary: &Path, options: &Options) -> Result<Cluster> {
        // Ports must differ between two harnesses on one machine; the seed alone would make them collide.
        let mut dice = Dice::new(options.seed ^ (u64::from(std::process::id()) << 32));
        let ports: Vec<[u16; 4]> = NODES
            .iter()
            .map(|_| Ok([tcp(&mut dice)?, tcp(&mut dice)?, udp(&mut dice)?, udp(&mut dice)?]))
            .collect::<Result<_>>()?;
        let secret: String = (0..4).fold(String::new(), |mut text, _| {
            let _ = write!(text, "{:016x}", dice.roll());
            text
        });
        let mut founders = String::new();
        for ((id, zone, region), [http, grpc, _, trunk]) in NODES.iter().zip(&ports) {
            let grpc = options
                .front
                .filter(|front| front.0 == *id)
                .map_or(*grpc, |front| front.1);
            let _ = writeln!(
                founders,
                "  \"id={id} zone={zone} region={region} grpc=127.0.0.1:{grpc} http=http://127.0.0.1:{http} trunk=127.0.0.1:{trunk}\","
            );
        }
        let papers = options.dir.join("tls");
        if options.tls {
            issue(binary, &papers)?;
        }
        let mut cluster = Cluster {
            binary: binary.into(),
            nodes: Vec::new(),
        };
        for ((id, zone, region), [http, grpc, media, trunk]) in NODES.iter().zip(&ports) {
            let home = options.dir.join(format!("node{id}"));
            // A run starts from nothing: what an earlier one left here has other addresses in its map.
            if home.join("node.toml").exists() {
                std::fs::remove_dir_all(&home)?;
            }
            std::fs::create_dir_all(&home)?;
            let data = toml::Value::String(home.join("data").display().to_string());
            let text = format!(
                "[node]\nid = {id}\nzone = \"{zone}\"\nregion = \"{region}\"\ndir = {data}\n\n\
                 [http]\nlisten = \"127.0.0.1:{http}\"\n\n[grpc]\nlisten = \"127.0.0.1:{grpc}\"\n\n\
                 [media]\nip = \"127.0.0.1\"\nudp_port = {media}\ntrunk_port = {trunk}\n\n\
                 [cluster]\nshards = {}\nsecret = \"{secret}\"\nfounders = [\n{founders}]\n\n[demo]\nenabled = true\n",
                options.shards
            );
            let text = text + &options.more;
            let text = if options.tls {
                text + &tls_settings(&papers, *id)
            } else {
                text
            };
            let settings = home.join("node.toml");
            std::fs::write(&settings, text)?;
            let (http, log) = (format!("http://127.0.0.1:{http}"), home.join("node.log"));
            let grpc = format!("127.0.0.1:{grpc}");
            cluster.nodes.push(Node {
                id: *id,
                http,
                grpc,
                settings,
                log,
                child: None,
            });
        }
        for id in 1..=3 {
            cluster.spawn(id)?;
        }
        Ok(cluster)
    }

    /// Starts one more node, in a zone of its own, which joins by the first.
    pub(crate) fn join(&mut self, id: u64) -> Result<()> {
        let mut dice = Dice::new(id ^ (u64::from(std::process::id()) << 32));
        let ports = [tcp(&mut dice)?, tcp(&mut dice)?, udp(&mut dice)?, udp(&mut dice)?];
        let first = self.nodes.first().context("there is no node to join by")?;
        let home = first.settings.parent().and_then(Path::parent).context("no folder")?;
        let home = home.join(format!("node{id}"));
        std::fs::create_dir_all(&home)?;
        let like = std::fs::read_to_string(&first.settings)?.parse()?;
        let text = joining(like, id, &home, ports, &first.grpc)?;
        let node = Node {
            id,
            http: format!("http://127.0.0.1:{}", ports[0]),
            grpc: format!("127.0.0.1:{}", ports[1]),
            settings: home.join("node.toml"),
            log: home.join("node.log"),
            child: None,
        };
        std::fs::write(&node.settings, text)?;
        self.nodes.push(node);
        self.spawn(id)
    }

    /// From now on nodes are started with this build.
    pub(crate) fn use_binary(&mut self, binary: &Path) {
        self.binary = binary.into();
    }

    /// What nodes are started with.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// A node's address for other nodes and operators.
    pub(crate) fn grpc(&mut self, id: u64) -> Result<String> {
        Ok(self.node(id)?.grpc.clone())
    }

    /// Where a node's settings and log are.
    pub(crate) fn files(&mut self, id: u64) -> Result<(PathBuf, PathBuf)> {
        let node = self.node(id)?;
        Ok((node.settings.clone(), node.log.clone()))
    }

    /// Base URLs, in order of id.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.http.clone()).collect()
    }

    /// Processes of the nodes that run, in order of id.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let children = self.nodes.iter().filter_map(|node| node.child.as_ref());
        children.map(Child::id).collect()
    }

    /// A client of all nodes.
    pub(crate) fn api(&self, attempt: Duration, seed: u64) -> Result<Api> {
        Ok(Api::new(ApiOptions {
            nodes: self.urls(),
            attempt,
            seed,
            ..ApiOptions::default()
        })?)
    }

    fn node(&mut self, id: u64) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.id == id).context("no such node")
    }

    /// Starts a node that isn't running. From the main thread only: the kernel ties the child to the thread that made it.
    pub(crate) fn spawn(&mut self, id: u64) -> Result<()> {
        let binary = self.binary.clone();
        let node = self.node(id)?;
        ensure!(node.child.is_none(), "node {id} runs already");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&node.log)?;
        let child = Command::new(&binary)
            .args(["node", "--config"])
            .arg(&node.settings)
            .args(["--die-with", &std::process::id().to_string()])
            .env_remove("RUSHROOM_BIN")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        node.child = Some(child);
        Ok(())
    }

    /// Ends a node as a power cut of its process would: no goodbye. Gives the moment just before.
    pub(crate) fn kill(&mut self, id: u64) -> Result<()> {
        let child = self.node(id)?.child.take();
        let Some(mut child) = child else {
            bail!("node {id} doesn't run")
        };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Ends a node as an operator would: SIGTERM, and it hands over what it leads. Waits for its end.
    pub(crate) async fn stop(&mut self, id: u64, within: Duration) -> Result<()> {
        let child = self.node(id)?.child.as_mut().context("the node doesn't run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a pid")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.ended(id, within).await?;
        ensure!(status.success(), "node {id} was told to stop, and said {status}");
        Ok(())
    }

    /// Waits for the end of a node that ends by itself.
    pub(crate) async fn ended(&mut self, id: u64, within: Duration) -> Result<std::process::ExitStatus> {
        let until = Instant::now() + within;
        let node = self.node(id)?;
        let child = node.child.as_mut().context("the node doesn't run")?;
        loop {
            if let Some(status) = child.try_wait()? {
                node.child = None;
                return Ok(status);
            }
            ensure!(Instant::now() < until, "node {id} hasn't ended after {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Notices that a node has ended by itself, so that it can be started again.
    pub(crate) fn forget_ended(&mut self, id: u64) -> Result<()> {
        let node = self.node(id)?;
        let ended = node.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        if ended.is_some() {
            node.child = None;
        }
        Ok(())
    }

    /// Freezes a node, or lets it go on.
    pub(crate) fn freeze(&mut self, id: u64, frozen: bool) -> Result<()> {
        let child = self.node(id)?.child.as_ref().context("the node doesn't run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a pid")?;
        kill_process(pid, if frozen { Signal::STOP } else { Signal::CONT })?;
        Ok(())
    }

    /// Waits until a node says that it is ready.
    pub(crate) async fn ready(&mut self, id: u64, api: &Api, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        let place = self
            .nodes
            .iter()
            .position(|node| node.id == id)
            .context("no such node")?;
        loop {
            if api.ready(place).await {
                return Ok(());
            }
            let node = self.node(id)?;
            if let Some(status) = node.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("node {id} ended by itself: {status}; see {}", node.log.display());
            }
            ensure!(
                Instant::now() < until,
                "node {id} isn't ready after {within:?}; see {}",
                node.log.display()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for all nodes.
    pub(crate) async fn all_ready(&mut self, api: &Api) -> Result<()> {
        for id in 1..=3 {
            self.ready(id, api, Duration::from_secs(30)).await?;
        }
        Ok(())
    }

    /// Lines of the nodes' logs that tell of a panic.
    pub(crate) fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for node in &self.nodes {
            let text = std::fs::read_to_string(&node.log).unwrap_or_default();
            let lines = text.lines().filter(|line| line.contains("panicked at"));
            found.extend(lines.map(|line| format!("node {}: {line}", node.id)));
        }
        found
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Settings like a founder's, of a node that joins `by` another.
fn joining(
    mut like: toml::Table,
    id: u64,
    home: &Path,
    [http, grpc, media, trunk]: [u16; 4],
    by: &str,
) -> Result<String> {
    let string = |text: String| toml::Value::String(text);
    let sections = [
        ("node", "id", toml::Value::Integer(id.cast_signed())),
        ("node", "zone", string(format!("z{id}"))),
        ("node", "dir", string(home.join("data").display().to_string())),
        ("http", "listen", string(format!("127.0.0.1:{http}"))),
        ("grpc", "listen", string(format!("127.0.0.1:{grpc}"))),
        ("media", "udp_port", toml::Value::Integer(media.into())),
        ("media", "trunk_port", toml::Value::Integer(trunk.into())),
        ("cluster", "join", string(by.to_owned())),
    ];
    for (section, key, value) in sections {
        let table = like.get_mut(section).and_then(toml::Value::as_table_mut);
        table.context("a section is missing")?.insert(key.into(), value);
    }
    if let Some(cluster) = like.get_mut("cluster").and_then(toml::Value::as_table_mut) {
        cluster.remove("founders");
        cluster.remove("shards");
    }
    Ok(like.to_string())
}

/// A TCP port that is free now, and that no outgoing connection will take.
pub(crate) fn tcp(dice: &mut Dice) -> Result<u16> {
    pick(dice, |port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

fn udp(dice: &mut Dice) -> Result<u16> {
    pick(dice, |port| UdpSocket::bind(("127.0.0.1", port)).is_ok())
}

fn pick(dice: &mut Dice, free: impl Fn(u16) -> bool) -> Result<u16> {
    for _ in 0..200 {
        let port = u16::try_from(dice.between(PORTS.0, PORTS.1))?;
        if free(port) {
            return Ok(port);
        }
    }
    bail!("no free port in {PORTS:?}")
}

/// The binary under test: `RUSHROOM_BIN`, or built now; cargo says where it put it.
pub(crate) fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RUSHROOM_BIN") {
        return Ok(path.into());
    }
    tracing::info!("building the node (set RUSHROOM_BIN to skip this)");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args([
            "build",
            "--release",
            "-p",
            "node",
            "--message-format",
            "json-render-diagnostics",
        ])
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    ensure!(out.status.success(), "the node doesn't build");
    let text = String::from_utf8_lossy(&out.stdout);
    let path = text.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let ours = message["target"]["name"] == "rushroom";
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    });
    path.context("cargo named no executable")
}

/// Makes an authority and the nodes' certificates, as an operator does.
fn issue(binary: &Path, papers: &Path) -> Result<()> {
    let make = |args: &[&str]| -> Result<()> {
        let made = Command::new(binary)
            .arg("node")
            .args(args)
            .arg("--out")
            .arg(papers)
            .output();
        let made = made.with_context(|| format!("starting {}", binary.display()))?;
        ensure!(
            made.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        Ok(())
    };
    if papers.exists() {
        std::fs::remove_dir_all(papers)?;
    }
    make(&["init-ca"])?;
    let ca = papers.display().to_string();
    for (id, ..) in NODES {
        make(&["cert", "--ca", &ca, "--node", &id.to_string()])?;
    }
    Ok(())
}

fn tls_settings(papers: &Path, id: u64) -> String {
    let file = |name: String| toml::Value::String(papers.join(name).display().to_string());
    let (ca, cert, key) = (
        file("ca.crt".into()),
        file(format!("node-{id}.crt")),
        file(format!("node-{id}.key")),
    );
    format!("\n[tls]\nca = {ca}\ncert = {cert}\nkey = {key}\n")
}
