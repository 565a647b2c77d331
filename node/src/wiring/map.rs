//! The cluster map, for the edge as it is, for the media plane as a list of living peers.

use crate::grpc::Peers;
use placement::{ClusterMap, NodeId};
use router::ports::ClusterMapSource;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often it is asked who is alive.
const LOOK: Duration = Duration::from_millis(100);

/// The map as this node knows it.
pub(crate) struct MapPort {
    /// This node.
    pub(crate) me: NodeId,
    /// The host's map.
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
}

impl ClusterMapSource for MapPort {
    fn map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.clone()
    }
    fn me(&self) -> NodeId {
        self.me
    }
}

/// Keeps the media plane's list of peers: those of the map that answer pings.
pub(crate) async fn follow_peers(
    map: watch::Receiver<Arc<ClusterMap>>,
    peers: Arc<Peers>,
    out: watch::Sender<Vec<sfu::Peer>>,
) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let newest = map.borrow().clone();
        let alive = newest.nodes.values().filter(|n| peers.alive(n.id)).filter_map(|n| {
            let trunk = n.trunk.parse().ok()?;
            Some(sfu::Peer {
                node: n.id.0,
                region: n.region.clone(),
                trunk,
                grpc: n.grpc.clone(),
            })
        });
        let alive: Vec<_> = alive.collect();
        let changed = out.send_if_modified(|old| {
            let changed = *old != alive;
            if changed {
                old.clone_from(&alive);
            }
            changed
        });
        if changed {
            tracing::info!(nodes = ?alive.iter().map(|p| p.node).collect::<Vec<_>>(), "nodes alive");
        }
        if out.is_closed() {
            return;
        }
    }
}
