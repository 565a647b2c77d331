//! What operators want, carried to whoever leads shard 0.
//!
//! ```text
//!   any node: plan(its map, change) --> shown (dry run), or stored at meta's leader by compare-and-set
//!                  ^---------------- another change came first: again, unless the operator named a version
//! ```
//!
//! Planning needs no leader, since a plan made from an old map can't be stored. What is stored says who asked, and why a
//! guard rail was overridden, in the same write: there is no change without its audit entry.
//!
//! Deliberately absent: who may ask (the admin API's business).

use super::{Host, seats::Own};
use crate::{
    mover::wall_ms,
    moves::{Crew, Looked, MovesService, NotStored},
    port::Log,
};
use placement::{
    Change, ClusterMap, Facts, NodeId, Plan, Refusal, Said, ShardId, Standing, TEXT_MAX, Work, may_hand_over, may_stop,
    plan,
};
use proto::cluster::v1::moves_server::MovesServer;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a change may take to be stored.
const STEER_PATIENCE: Duration = Duration::from_secs(10);
/// Before another try.
const AGAIN: Duration = Duration::from_millis(50);

/// What an operator wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The change.
    pub change: Change,
    /// Who.
    pub who: String,
    /// A reason to override what may be overridden.
    pub force: Option<String>,
    /// Only of this version of the map.
    pub version: Option<u64>,
    /// Only shown.
    pub dry_run: bool,
    /// Of a node that joins: the newest cluster version that its build knows.
    pub newest: u32,
}

/// A node's build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeVersion {
    /// Which node.
    pub node: NodeId,
    /// What its build calls itself, and the newest cluster version that it knows; none: it doesn't answer.
    pub known: Option<(String, u32)>,
}

/// Why a change wasn't made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SteerError {
    /// It can't be planned.
    #[error("{0}")]
    Refused(Refusal),
    /// There is no map yet, or shard 0 has no leader that answers.
    #[error("{0}")]
    Unavailable(String),
    /// It may have been stored: look.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

impl Host {
    /// What the mover of another node asks this one: mount it beside `raft_service`.
    #[must_use]
    pub fn moves_service(&self) -> MovesServer<MovesService> {
        let here = Arc::new(Own(Arc::downgrade(&self.inner)));
        MovesServer::new(MovesService { here })
    }

    pub(super) fn crew(&self) -> Crew {
        Crew {
            me: self.node(),
            here: Arc::new(Own(Arc::downgrade(&self.inner))),
            peers: self.inner.ground.peers.clone(),
        }
    }

    /// What moves wait for, if this node leads shard 0.
    #[must_use]
    pub fn waits(&self) -> BTreeMap<ShardId, String> {
        self.inner.waits.borrow().clone()
    }

    /// Plans a change and, unless it is a dry run, stores it. Returns what was planned.
    ///
    /// # Errors
    /// See `SteerError`.
    pub async fn steer(&self, ask: Ask) -> Result<Plan, SteerError> {
        let deadline = Instant::now() + STEER_PATIENCE;
        let mut maps = self.map();
        let mut hint = None;
        loop {
            let map = maps.borrow_and_update().clone();
            if map.epoch == 0 {
                return Err(SteerError::Unavailable("this node has no map yet".into()));
            }
            if let Some(of) = ask.version
                && of != map.steering.version
            {
                let now = map.steering.version;
                return Err(SteerError::Refused(Refusal::Stale { of, now }));
            }
            let rules = self.inner.options.moves.rules;
            let now_ms = wall_ms();
            self.check_builds(&map, &ask).await.map_err(SteerError::Refused)?;
            let planned = plan(&map, &ask.change, rules, now_ms, ask.force.as_deref()).map_err(SteerError::Refused)?;
            self.check_stop(&map, &ask).await.map_err(SteerError::Refused)?;
            if ask.dry_run {
                return Ok(planned);
            }
            let mut next = planned.map.clone();
            let said = said(&ask, now_ms, next.steering.version);
            next.steering.say(said.clone());
            match self.store(hint.take(), planned.base, next).await {
                Ok(()) => {
                    told(&said);
                    let stored = maps.wait_for(|map| map.steering.version > planned.base);
                    let _ = tokio::time::timeout(deadline.saturating_duration_since(Instant::now()), stored).await;
                    return Ok(planned);
                }
                Err(NotStored::Unknown(why)) => return Err(SteerError::Unknown(why)),
                Err(NotStored::NotLeader(other)) => hint = other,
                Err(NotStored::Stale) => {}
            }
            if Instant::now() >= deadline {
                return Err(SteerError::Unavailable("shard 0 has no leader that answers".into()));
            }
            // A newer map, or a leader, is on its way.
            let _ = tokio::time::timeout(AGAIN, maps.changed()).await;
        }
    }

    /// The builds of all nodes that haven't left, by their own word.
    pub async fn versions(&self) -> Vec<NodeVersion> {
        let map = self.map().borrow().clone();
        let gone = |node: &NodeId| matches!(map.standing(*node), Standing::Lost | Standing::Decommissioned);
        let here = map.nodes.keys().copied().filter(|node| !gone(node));
        let looks = self.crew().looks(here).await.into_iter();
        let version = |(node, looked): (NodeId, Option<Looked>)| NodeVersion {
            node,
            known: looked.map(|looked| (looked.build, looked.newest)),
        };
        looks.map(version).collect()
    }

    /// Whether all builds know a version that is to be relied on. Between this look and the change a node may be restarted
    /// with an older build: that one stops itself when it hears of the new version.
    async fn check_builds(&self, map: &placement::ClusterMap, ask: &Ask) -> Result<(), Refusal> {
        let too_old = |node, newest, wanted| Refusal::TooOld { node, newest, wanted };
        match &ask.change {
            Change::Join(node) if ask.newest.max(1) < map.cluster_version() => {
                Err(too_old(node.id, ask.newest.max(1), map.cluster_version()))
            }
            Change::Upgrade(to) => {
                for NodeVersion { node, known } in self.versions().await {
                    let (_, newest) = known.ok_or(Refusal::Unheard(node))?;
                    if newest < *to {
                        return Err(too_old(node, newest, *to));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether a node may be stopped now; a reason overrides it.
    async fn check_stop(&self, map: &ClusterMap, ask: &Ask) -> Result<(), Refusal> {
        match (&ask.change, &ask.force) {
            (Change::Restart(node), None) => may_stop(map, &self.facts(map).await, &self.inner.options.moves, *node),
            _ => Ok(()),
        }
    }

    /// What every node says of itself now.
    async fn facts(&self, map: &ClusterMap) -> Facts {
        let looks = self.crew().looks(map.nodes.keys().copied()).await;
        let mut facts = Facts::default();
        for (node, looked) in looks.into_iter().filter_map(|(node, looked)| Some((node, looked?))) {
            facts.seats.insert(node, looked.seats);
            let led = looked.led.into_iter().map(|(shard, led)| (shard, led.facts));
            facts.groups.extend(led);
        }
        facts
    }

    async fn store(&self, hint: Option<NodeId>, expected: u64, map: placement::ClusterMap) -> Result<(), NotStored> {
        let seat = self.inner.seat(ShardId::META);
        let leader = seat.and_then(|seat| seat.group.leadership().borrow().leader);
        let Some(node) = hint.or(leader) else {
            return Err(NotStored::NotLeader(None));
        };
        self.crew().store(node, expected, map).await
    }

    /// Whether a hand-over would disturb nobody, by the leader's own word.
    ///
    /// # Errors
    /// Why it would, or that the leader doesn't answer.
    pub async fn may_hand_over(&self, shard: ShardId, leader: NodeId) -> Result<(), Refusal> {
        let looked = self.crew().look(leader).await.ok_or(Refusal::Unheard(leader))?;
        match looked.led.get(&shard) {
            Some(led) => may_hand_over(shard, &led.facts, &self.inner.options.moves),
            None => Err(Refusal::NotWhole(shard, "it has no leader that answers".into())),
        }
    }

    /// Hands a shard's leadership from `leader` to `to`, or to whoever can lead.
    ///
    /// # Errors
    /// Why it stays where it is.
    pub async fn hand_over(&self, shard: ShardId, leader: NodeId, to: Option<NodeId>) -> Result<(), String> {
        self.crew().work(leader, shard, Work::HandOver(to), None).await
    }
}

/// The map keeps the newest only: the whole audit is in the nodes' logs.
fn told(said: &Said) {
    let Said {
        who,
        what,
        why,
        version,
        ..
    } = said;
    let forced = why.as_deref().unwrap_or_default();
    tracing::info!(target: "rushroom::audit", who, what, forced, version, "done");
}

fn said(ask: &Ask, at_ms: u64, version: u64) -> Said {
    let short = |text: &str| text.chars().take(TEXT_MAX).collect::<String>();
    Said {
        at_ms,
        who: short(&ask.who),
        what: short(&ask.change.to_string()),
        why: ask.force.as_deref().map(short),
        version,
    }
}
