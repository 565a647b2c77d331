//! This node's shards (`raft_store::Host`) in the words that gRPC and the edge's ports use.

use crate::grpc::Local;
use crate::grpc::Reading;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use auction::{AuctionId, AuctionView, Command, Event, FeedItem, Position, Reason, Reply, Verdict};
use futures_util::stream::BoxStream;
use placement::{NodeId, ShardId};
use raft_store::{Fresh, Host, ReadError};
use router::ports::{Freshness, PortError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Roles are looked up when one changed, and not again within this time: an election of many shards is one look or two.
const LOOK: Duration = Duration::from_millis(10);

/// The `Host` as the servers see it.
pub(crate) struct HostShards(pub(crate) Host);

fn port_error(error: ReadError) -> PortError {
    match error {
        ReadError::NotFound => PortError::NotFound,
        ReadError::NotLeader { hint } => PortError::NotLeader { hint },
        // Whoever leads has it.
        ReadError::NotHere | ReadError::Behind => PortError::NotLeader { hint: None },
        // A code: callers are told.
        ReadError::Lost => PortError::Refused(Reason::Lost.code().to_owned()),
        ReadError::Damaged | ReadError::Unavailable => PortError::Refused(error.to_string()),
    }
}

#[async_trait]
impl Local for HostShards {
    async fn submit(&self, shard: ShardId, epoch: u64, command: Command) -> Reply {
        self.0.submit(shard, epoch, command).await
    }

    fn settled(&self, shard: ShardId, command: &Command) -> Option<Verdict> {
        self.0.settled(shard, command)
    }

    fn wanted(&self, shard: ShardId) {
        self.0.wanted(shard);
    }

    async fn read(&self, shard: ShardId, auction: &AuctionId, fresh: Freshness) -> Result<AuctionView, PortError> {
        let fresh = match fresh {
            Freshness::Linear => Fresh::Linear,
            Freshness::AtLeast(seq) => Fresh::AtLeast(seq),
        };
        self.0.read(shard, auction, fresh).await.map_err(port_error)
    }

    async fn list(&self, shard: ShardId) -> Result<Vec<AuctionView>, PortError> {
        self.0.list(shard).map_err(port_error)
    }

    fn over(&self, shard: ShardId, after: Option<&AuctionId>, limit: usize) -> Result<Vec<AuctionId>, PortError> {
        self.0.over(shard, after, limit).map_err(port_error)
    }

    async fn events(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, PortError> {
        self.0.events(shard, auction, after, limit).await.map_err(port_error)
    }

    async fn follow(
        &self,
        shard: ShardId,
        auction: &AuctionId,
        from: Option<Position>,
    ) -> Result<BoxStream<'static, FeedItem>, PortError> {
        self.0.follow(shard, auction, from).await.map_err(port_error)
    }

    fn readings(&self) -> Vec<Reading> {
        let readings = self.0.readings().into_iter();
        let ours = readings.map(|r| Reading {
            shard: r.shard,
            office: r.office,
            now: r.now,
            top: r.top,
            timers: r.timers,
            drains: r.drains,
        });
        ours.collect()
    }

    fn at_rest(&self) -> Option<watch::Receiver<u64>> {
        self.0.at_rest()
    }
}

/// What this node's replicas think of who leads: a copy taken when it changes, so that asking costs a bid nothing.
#[derive(Clone, Default)]
pub(crate) struct Roles(Arc<ArcSwap<BTreeMap<ShardId, Role>>>);

/// One replica's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Role {
    /// Its term.
    pub(crate) term: u64,
    /// Who leads, by its word.
    pub(crate) leader: Option<NodeId>,
}

impl Roles {
    /// The role of this node's replica of a shard.
    pub(crate) fn of(&self, shard: ShardId) -> Option<Role> {
        self.0.load().get(&shard).copied()
    }

    /// Follows the host until it is dropped; `changed` is called whenever a leader changed.
    pub(crate) async fn follow(self, host: Host, changed: impl Fn() + Send) {
        let mut changes = host.leadership_changes();
        loop {
            changes.borrow_and_update();
            let newest: BTreeMap<_, _> = host
                .leaders()
                .into_iter()
                .map(|(shard, term, leader)| (shard, Role { term, leader }))
                .collect();
            if **self.0.load() != newest {
                self.0.store(Arc::new(newest));
                changed();
            }
            tokio::time::sleep(LOOK).await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}
