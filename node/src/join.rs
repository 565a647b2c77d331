//! Coming into a cluster that lives: ask any of its nodes once, remember the answer, be its learner from then on.
//!
//! ```text
//!   cluster.join --Change{join}--> any node --> shard 0: this node is in the map, and follows it as replica R
//!   DIR/raft/joined: R     written before the log knows R, so that a crash between the two doesn't ask twice
//! ```
//!
//! Deliberately absent: what the node is given to hold. The mover sees to that once the node answers.

use crate::config::Config;
use crate::tls::{self, Tls};
use anyhow::{Context as _, Result, bail};
use placement::ReplicaId;
use proto::cluster::v1::{self as pb, admin_client::AdminClient};
use raft_store::codec::Wire as _;
use std::{io::Write as _, path::Path, time::Duration};

/// Longest wait for the answer; a change may take 10 s to be stored.
const PATIENCE: Duration = Duration::from_secs(20);

/// The replica of shard 0 by which this node joined; none if it is a founder.
pub(crate) async fn joined(config: &Config, tls: Option<&Tls>) -> Result<Option<ReplicaId>> {
    if config.cluster_join.is_empty() {
        return Ok(None);
    }
    let path = config.node_dir.join("raft").join("joined");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let id = text
                .trim()
                .parse()
                .with_context(|| format!("reading {}", path.display()))?;
            return Ok(Some(ReplicaId(id)));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    }
    let replica = ask(config, tls)
        .await
        .with_context(|| format!("joining by {}", config.cluster_join))?;
    remember(&path, replica).with_context(|| format!("writing {}", path.display()))?;
    tracing::info!(replica = replica.0, by = %config.cluster_join, "joined");
    Ok(Some(replica))
}

async fn ask(config: &Config, tls: Option<&Tls>) -> Result<ReplicaId> {
    let me = config
        .founders()
        .into_iter()
        .next()
        .context("this node has no address")?;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", config.cluster_join))?;
    let endpoint = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE);
    let channel = tls::connect(tls, &endpoint).await?;
    let request = pb::ChangeRequest {
        change: Some(pb::change_request::Change::Join(me.to_proto())),
        who: format!("node {}", me.id.0),
        newest: raft_store::versions::NEWEST,
        ..pb::ChangeRequest::default()
    };
    let reply = AdminClient::new(channel).change(request).await;
    let reply = reply
        .map_err(|status| anyhow::anyhow!("{}", status.message()))?
        .into_inner();
    if let Some(refused) = reply.refused {
        bail!("refused [{}]: {}", refused.code, refused.why);
    }
    let map = placement::ClusterMap::from_proto(reply.map.context("an answer without a map")?)?;
    let replica = map.steering.watchers.get(&me.id).copied();
    replica.context("the map doesn't know this node")
}

fn remember(path: &Path, replica: ReplicaId) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary)?;
    writeln!(file, "{}", replica.0)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(dir)?.sync_all()
}
