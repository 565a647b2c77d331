//! Three real `rushroom node` processes on loopback, in two regions: started, watched, killed, restarted.
//!
//! Each child gets a settings file in its folder and a log beside it. Children die with this process, however it ends:
//! they ask the kernel for it themselves (`--die-with`), since a parent that is killed can't tidy up.

use super::ports::{self, Ports};
use crate::tls::{Identity, issue};
use anyhow::{Context as _, Result, bail};
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// (id, zone, region) of the nodes of a demo.
pub(super) const NODES: [(u64, &str, &str); 3] = [(1, "a", "seoul"), (2, "b", "seoul"), (3, "c", "tokyo")];
/// How long a demo's certificates are good for.
const LASTS: time::Duration = time::Duration::days(365);
/// Shards of a demo.
pub(super) const SHARDS: u32 = 16;
/// Longest wait for a node to be ready.
const READY: Duration = Duration::from_secs(30);
/// Lines of a node's log that an error shows.
const LAST_WORDS: usize = 12;
/// Between two looks at a node that starts.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for a child that drains.
const DRAIN: Duration = Duration::from_secs(8);

/// One node of the demo.
pub(super) struct Node {
    /// Its id.
    pub(super) id: u64,
    /// Its region.
    pub(super) region: &'static str,
    /// Its ports.
    pub(super) ports: Ports,
    dir: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Base URL for clients.
    pub(super) fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// Where its log lies.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("node.log")
    }

    /// The end of its log: the folder may be gone when someone reads the error.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }
}

/// The processes of a demo.
pub(super) struct Cluster {
    /// The nodes, by place.
    pub(super) nodes: Vec<Node>,
    /// Certificates, if nodes talk TLS.
    papers: Option<PathBuf>,
    exe: PathBuf,
    http: reqwest::Client,
    ports_file: Option<PathBuf>,
}

impl Cluster {
    /// Writes the settings of all nodes; starts nothing.
    pub(super) fn prepare(dir: &Path, base: Option<u16>, ports_file: Option<PathBuf>, plain: bool) -> Result<Cluster> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let ports = ports::settle(dir, NODES.len() as u16, base)?;
        let secret = secret(dir)?;
        let papers = (!plain).then(|| papers(&dir.join("tls"))).transpose()?;
        let mut nodes = Vec::new();
        for ((id, zone, region), ports_of) in NODES.into_iter().zip(&ports) {
            let home = dir.join(format!("node{id}"));
            std::fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
            let settings = settings(id, zone, region, &home, &ports, *ports_of, &secret) + &tls(papers.as_deref(), id);
            private(&home.join("node.toml"), &settings)?;
            nodes.push(Node {
                id,
                region,
                ports: *ports_of,
                dir: home,
                child: None,
            });
        }
        let exe = std::env::current_exe().context("finding this program")?;
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(1))
            .build()
            .context("an HTTP client")?;
        Ok(Cluster {
            nodes,
            papers,
            exe,
            http,
            ports_file,
        })
    }

    /// The folder of the cluster's certificates.
    pub(super) fn papers(&self) -> Option<&Path> {
        self.papers.as_deref()
    }

    /// Starts all nodes and waits until they are ready.
    pub(super) async fn start(&mut self) -> Result<()> {
        for place in 0..self.nodes.len() {
            self.spawn(place)?;
        }
        self.ready().await
    }

    /// Starts one node again, and waits until it is ready.
    pub(super) async fn restart(&mut self, place: usize) -> Result<()> {
        self.spawn(place)?;
        self.ready().await
    }

    fn spawn(&mut self, place: usize) -> Result<()> {
        let node = &mut self.nodes[place];
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(node.dir.join("node.log"));
        let log = log.with_context(|| format!("the log of node {}", node.id))?;
        let child = Command::new(&self.exe)
            .arg("node")
            .arg("--config")
            .arg(node.dir.join("node.toml"))
            .arg("--die-with")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            // Ctrl-C in a terminal goes to the whole group; children are drained in order by us instead.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting node {}", node.id))?;
        node.child = Some(child);
        Ok(())
    }

    async fn ready(&mut self) -> Result<()> {
        let until = tokio::time::Instant::now() + READY;
        for place in 0..self.nodes.len() {
            loop {
                let node = &mut self.nodes[place];
                let Some(child) = &mut node.child else { break };
                if let Some(status) = child.try_wait()? {
                    bail!(
                        "node {} ended while starting ({status})\n{}",
                        node.id,
                        node.last_words()
                    );
                }
                let answer = self.http.get(format!("{}/readyz", node.http())).send().await;
                if answer.is_ok_and(|a| a.status().is_success()) {
                    break;
                }
                if tokio::time::Instant::now() >= until {
                    bail!("node {} is not ready after {READY:?}\n{}", node.id, node.last_words());
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        self.tell_ports()
    }

    /// Kills a node as `kill -9` does, and waits until it is gone.
    pub(super) async fn kill(&mut self, place: usize) -> Result<()> {
        if let Some(mut child) = self.nodes[place].child.take() {
            child
                .kill()
                .await
                .with_context(|| format!("killing node {}", self.nodes[place].id))?;
        }
        Ok(())
    }

    /// A node that ended by itself since the last look, if any.
    pub(super) fn ended(&mut self) -> Option<(usize, std::process::ExitStatus)> {
        for (place, node) in self.nodes.iter_mut().enumerate() {
            if let Some(Ok(Some(status))) = node.child.as_mut().map(Child::try_wait) {
                node.child = None;
                return Some((place, status));
            }
        }
        None
    }

    /// Lines of all nodes' logs that tell of a panic; each is shown.
    pub(super) fn panics(&self) -> Result<u64> {
        let mut panics = 0;
        for node in &self.nodes {
            let log = std::fs::read_to_string(node.log()).with_context(|| format!("the log of node {}", node.id))?;
            for line in log.lines().filter(|l| l.contains("panicked at")) {
                tracing::error!(node = node.id, line, "a node panicked");
                panics += 1;
            }
        }
        Ok(panics)
    }

    /// Asks all nodes to drain, waits, and kills who doesn't end in time.
    pub(super) async fn stop(&mut self) {
        for node in &self.nodes {
            let pid = node
                .pid()
                .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
            if let Some(pid) = pid {
                // A child that has just ended is what we want.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        for node in &mut self.nodes {
            let Some(mut child) = node.child.take() else { continue };
            if tokio::time::timeout(DRAIN, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }

    /// Base URLs, by place.
    pub(super) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::http).collect()
    }

    fn tell_ports(&self) -> Result<()> {
        let Some(path) = &self.ports_file else { return Ok(()) };
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|n| {
                let grpc = format!("127.0.0.1:{}", n.ports.grpc);
                json!({"id": n.id, "http": n.http(), "grpc": grpc, "pid": n.pid(), "region": n.region, "log": n.log()})
            })
            .collect();
        // Whoever waits for the file must never read half of it.
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, json!({"nodes": nodes}).to_string())?;
        std::fs::rename(&fresh, path).with_context(|| format!("writing {}", path.display()))
    }
}

/// Writes a file that only its owner may read.
fn private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut f| f.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

/// The cluster's token secret, kept in the folder so that tokens outlive a restart of the demo.
fn secret(dir: &Path) -> Result<String> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let path = dir.join("secret");
    if let Ok(text) = std::fs::read_to_string(&path) {
        return Ok(text);
    }
    let text = hex::encode(rand::random::<[u8; 32]>());
    private(&path, &text)?;
    Ok(text)
}

/// The demo's authority, made once, and fresh certificates of the nodes and of an operator.
fn papers(dir: &Path) -> Result<PathBuf> {
    if !dir.join("ca.crt").exists() {
        issue::authority(dir, LASTS)?;
    }
    let nodes = NODES.iter().map(|(id, ..)| Identity::Node(*id));
    for whom in nodes.chain([Identity::Operator("demo".into())]) {
        issue::certificate(dir, &whom, LASTS, dir)?;
    }
    Ok(dir.to_path_buf())
}

fn tls(papers: Option<&Path>, id: u64) -> String {
    let Some(papers) = papers else { return String::new() };
    let file = |name: String| toml::Value::String(papers.join(name).display().to_string());
    let (ca, cert, key) = (
        file("ca.crt".into()),
        file(format!("node-{id}.crt")),
        file(format!("node-{id}.key")),
    );
    format!("\n[tls]\nca = {ca}\ncert = {cert}\nkey = {key}\n")
}

fn settings(id: u64, zone: &str, region: &str, home: &Path, all: &[Ports], own: Ports, secret: &str) -> String {
    let mut founders = String::new();
    for ((id, zone, region), p) in NODES.iter().zip(all) {
        let _ = writeln!(
            founders,
            "  \"id={id} zone={zone} region={region} grpc=127.0.0.1:{} http=http://127.0.0.1:{} trunk=127.0.0.1:{}\",",
            p.grpc, p.http, p.trunk
        );
    }
    let data = toml::Value::String(home.join("data").display().to_string());
    format!(
        "[node]\nid = {id}\nzone = \"{zone}\"\nregion = \"{region}\"\ndir = {data}\n\n\
         [http]\nlisten = \"127.0.0.1:{}\"\n\n[grpc]\nlisten = \"127.0.0.1:{}\"\n\n\
         [media]\nip = \"127.0.0.1\"\nudp_port = {}\ntrunk_port = {}\n\n\
         [cluster]\nshards = {SHARDS}\nsecret = \"{secret}\"\nfounders = [\n{founders}]\n\n\
         [demo]\nenabled = true\n",
        own.http, own.grpc, own.media, own.trunk
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{self, TomlFile};

    #[test]
    fn the_settings_of_each_node_are_good() {
        let ports = ports::pick(3, Some(9000)).unwrap();
        for ((id, zone, region), own) in NODES.into_iter().zip(&ports) {
            let text = settings(
                id,
                zone,
                region,
                Path::new("/tmp/a \"quoted\" folder"),
                &ports,
                *own,
                &"ab".repeat(32),
            );
            let text = text + &tls(Some(Path::new("/tmp/a \"quoted\" folder/tls")), id);
            let file = TomlFile::parse("node.toml", &text);
            let config = config::read(&[&file]).map_err(|f| format!("{f:?}")).unwrap();
            assert_eq!(
                (config.node_id, config.founders().len(), config.demo_enabled),
                (id, 3, true)
            );
        }
    }
}
