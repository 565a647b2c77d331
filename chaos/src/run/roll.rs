//! A roll: the nodes go from one build to the next under bids, then the cluster goes to the next version, then nobody goes back.
//!
//! ```text
//!   old old old --> next old old   `cluster upgrade` is refused: not all builds know it
//!                   next next next --> cluster upgrade: new rules, new form of entries, under bids
//!   then:  an auction from before keeps its rules, one from after has the new ones, on every replica alike
//!          the old build refuses its folder, and is refused as a newcomer, each with [version_newer]
//! ```
//!
//! The two builds are one tree, built with and without the feature `next` of `node`. Its rules differ in one thing: a bid of
//! more than a thousand times the least next one is refused from rules 3 on.
//!
//! Deliberately absent: what people saw meanwhile. That is in the history, and the checks judge it.

use crate::{
    cluster::{self, Cluster},
    history::{History, Record},
};
use anyhow::{Context as _, Result, bail, ensure};
use client::{Api, ApiError, Role, wire::NewAuction};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long a node may take to stop, or to be ready again.
const NODE_MAX: Duration = Duration::from_secs(30);
/// How long replicas may take to be equal, and rules to reach every shard.
const EQUAL_MAX: Duration = Duration::from_secs(15);
/// What every refusal of a version says.
const CODE: &str = "[version_newer]";

fn next_binary() -> Result<PathBuf> {
    let path = std::env::var_os("RUSHROOM_NEXT_BIN")
        .context("RUSHROOM_NEXT_BIN must name a node that was built with `--features next` (see `make roll`)")?;
    Ok(path.into())
}

fn admin(binary: &Path, grpc: &str, words: &str) -> Result<Output> {
    let out = Command::new(binary)
        .args(["admin", "--node", grpc, "--who", "chaos"])
        .args(words.split_whitespace())
        .output()?;
    Ok(out)
}

/// Restarts all nodes with the next build, one after the other.
pub(super) async fn all(cluster: &mut Cluster, api: &Api, settle: Duration) -> Result<()> {
    let next = next_binary()?;
    cluster.use_binary(&next);
    for id in 1..=3 {
        cluster.stop(id, NODE_MAX).await?;
        cluster.spawn(id)?;
        cluster.ready(id, api, NODE_MAX).await?;
        tracing::info!(node = id, "runs the next build");
        if id == 1 {
            let refused = admin(&next, &cluster.grpc(1)?, "cluster upgrade --to 3")?;
            let told = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(
                !refused.status.success() && told.contains(CODE),
                "half a roll was enough to upgrade: {told}"
            );
        }
        tokio::time::sleep(settle).await;
    }
    Ok(())
}

/// Raises the cluster's version.
pub(super) async fn upgrade(to: u32, cluster: &mut Cluster, settle: Duration) -> Result<()> {
    let (next, grpc) = (next_binary()?, cluster.grpc(2)?);
    let done = admin(&next, &grpc, &format!("cluster upgrade --to {to}"))?;
    ensure!(
        done.status.success(),
        "no upgrade: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    tokio::time::sleep(settle).await;
    for id in 1..=3 {
        let told = admin(&next, &cluster.grpc(id)?, "--json cluster version")?;
        let told: serde_json::Value = serde_json::from_slice(&told.stdout).context("cluster version")?;
        ensure!(
            told["cluster_version"] == to,
            "node {id} doesn't know of the upgrade: {told}"
        );
    }
    Ok(())
}

/// Two auctions that show by which rules they are judged.
pub(super) struct Trial {
    seller: Api,
    bidder: Api,
    before: String,
    after: String,
}

impl Trial {
    /// The first goes live before anything is rolled.
    pub(super) async fn open(api: &Api, seed: u64) -> Result<Trial> {
        let (seller, bidder) = (
            api.guest("trial seller", Role::Seller).await?,
            api.guest("trial", Role::Bidder).await?,
        );
        let trial = Trial {
            seller: api.with_token(&seller.token),
            bidder: api.with_token(&bidder.token),
            before: format!("trial-{seed}-before"),
            after: format!("trial-{seed}-after"),
        };
        trial.start(&trial.before).await?;
        Ok(trial)
    }

    async fn start(&self, id: &str) -> Result<()> {
        let new = NewAuction {
            id: Some(id.into()),
            title: "Which rules?".into(),
            currency: "KRW".into(),
            start_price: 100,
            increments: Some(vec![[0, 1]]),
            duration_ms: 1_800_000,
            guests: Some(true),
            ..NewAuction::default()
        };
        self.seller.create(&new).await?;
        self.seller.start(id).await?;
        Ok(())
    }

    /// A bid of more than a thousand times the least next one.
    async fn jump(&self, id: &str) -> Result<Option<String>> {
        match self.bidder.bid(id, 200_000, "jump").await {
            Ok(verdict) => Ok((!verdict.ok).then(|| verdict.code.unwrap_or_default())),
            Err(ApiError::Refused(problem)) => Ok(Some(problem.code)),
            Err(error) => Err(error.into()),
        }
    }

    /// After the upgrade: the old auction has the old rules, a new one the new, on all replicas alike.
    pub(super) async fn finish(self, api: &Api) -> Result<()> {
        let old = self.jump(&self.before).await?;
        ensure!(
            old.is_none(),
            "an auction that went live by the first rules refused a bid: {old:?}"
        );
        self.start(&self.after).await?;
        let new = self.jump(&self.after).await?;
        ensure!(
            new.as_deref() == Some("too_big"),
            "an auction by the second rules took a jump: {new:?}"
        );
        for id in [&self.before, &self.after] {
            equal(api, id).await?;
        }
        tracing::info!("old rules for old auctions, new ones for new: the same on all replicas");
        Ok(())
    }
}

/// Waits until all replicas export the same events, hashes included.
async fn equal(api: &Api, id: &str) -> Result<()> {
    let until = Instant::now() + EQUAL_MAX;
    loop {
        let mut logs = Vec::new();
        for node in 0..api.nodes().len() {
            let text = api.pinned(node).export(id, true).await?;
            let lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
            // The last line says whose export it is.
            logs.push(
                lines
                    .split_last()
                    .map(|(_, events)| events.to_vec())
                    .unwrap_or_default(),
            );
        }
        if logs.iter().all(|log| !log.is_empty() && *log == logs[0]) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("replicas of {id} differ: {logs:#?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The old build finds neither its folder nor a way in.
pub(super) async fn refuse_old(cluster: &mut Cluster, api: &Api) -> Result<()> {
    let (old, next) = (cluster::binary()?, next_binary()?);
    let (settings, log) = cluster.files(3)?;
    let said = std::fs::read_to_string(&log)?.len();
    cluster.stop(3, NODE_MAX).await?;
    cluster.use_binary(&old);
    cluster.spawn(3)?;
    let status = cluster
        .ended(3, NODE_MAX)
        .await
        .context("the old build went on with a newer folder")?;
    let told = std::fs::read_to_string(&log)?;
    ensure!(
        !status.success() && told[said..].contains(CODE),
        "the old build ended ({status}) without saying why"
    );
    cluster.use_binary(&next);
    cluster.spawn(3)?;
    cluster.ready(3, api, NODE_MAX).await?;
    newcomer(&old, &settings, &cluster.grpc(1)?)
}

/// A fourth node of the old build asks to join.
fn newcomer(old: &Path, like: &Path, by: &str) -> Result<()> {
    let home = like.parent().and_then(Path::parent).context("a folder")?.join("node4");
    std::fs::create_dir_all(&home)?;
    let text = format!(
        "[node]\nid = 4\nzone = \"d\"\nregion = \"tokyo\"\ndir = {}\n[http]\nlisten = \"127.0.0.1:0\"\n[grpc]\nlisten = \"127.0.0.1:0\"\n\
         [cluster]\nsecret = \"{}\"\njoin = \"{by}\"\n",
        toml::Value::String(home.join("data").display().to_string()),
        "5b".repeat(32),
    );
    let settings = home.join("node.toml");
    std::fs::write(&settings, text)?;
    let out = Command::new(old)
        .args(["node", "--config"])
        .arg(&settings)
        .args(["--die-with", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .output()?;
    let told = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    ensure!(
        !out.status.success() && told.contains(CODE),
        "a newcomer of the old build ({}) was told: {told}",
        out.status
    );
    tracing::info!("the old build is refused, by its folder and by the cluster");
    Ok(())
}

/// How bids fared that met a node on its way out.
pub(super) struct Bids {
    /// Distinct bids.
    pub(super) bids: usize,
    /// Of those, bids that had to be sent again by their bidder.
    pub(super) again: usize,
    /// Bids that never got a verdict.
    pub(super) never: usize,
}

impl fmt::Display for Bids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bids { bids, again, never } = self;
        write!(
            f,
            "bids: {bids}, of which {again} were sent again by their bidder, and {never} got no verdict"
        )
    }
}

/// Counts by (auction, bidder, id): all attempts at one bid are one bid.
pub(super) fn failed_bids(history: &History) -> Bids {
    let mut keys = BTreeMap::new();
    let mut bids: BTreeMap<_, (usize, bool)> = BTreeMap::new();
    for record in &history.records {
        match &record.is {
            Record::Inv(inv) if inv.f == "bid" => {
                let key = (inv.a.clone(), inv.bidder.clone(), inv.idem.clone());
                bids.entry(key.clone()).or_default().0 += 1;
                keys.insert(inv.op, key);
            }
            Record::Ret(ret) => {
                let no_verdict = matches!(ret.code.as_deref(), Some("timeout" | "unavailable" | "busy"));
                if let Some(bid) = keys.get(&ret.op).and_then(|key| bids.get_mut(key)) {
                    bid.1 |= ret.st != "unk" && !no_verdict;
                }
            }
            _ => {}
        }
    }
    Bids {
        bids: bids.len(),
        again: bids.values().filter(|bid| bid.0 > 1).count(),
        never: bids.values().filter(|bid| !bid.1).count(),
    }
}
