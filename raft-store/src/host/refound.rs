//! A shard founded anew on this node, because an operator says so: from a backup, or from what this node's replica has when
//! the majority is lost for good.
//!
//! ```text
//!   guards --> seal (the map: closed everywhere, fresh replica id, audited with the reason) --> every node that answers has closed it
//!     --> refound::plant (this node's disk) --> found (the map: that replica is all it has) --> it leads; the mover brings the others
//! ```
//!
//! Whoever dies in between leaves a sealed shard: nobody opens it, `[shard_sealed]` says so, and the same call goes on where it
//! stopped. The seal comes first and everything that is thrown away last: until `found` nothing is lost that was there.
//!
//! **Shard 0** can't be sealed by a map that nobody can change: its founding is this node's alone, and the map that comes of it
//! names the new replica, is one version on, and holds the audit entry. Other nodes that live would never hear of it, as they
//! follow shard 0 by replicas of the old group: they must be stopped first, and come back under new ids.
//!
//! **What can't be known here.** A node that doesn't answer may be cut off, not lost: then two histories go on until it hears of
//! the new map. That the others are gone for good is the operator's word, and the reason that is asked for.
//!
//! **A survivor that can't read everything.** Settled auctions whose records are damaged are named before anything is closed, and the
//! shard is founded without them only if that is asked for in so many words (`Source::Readable`). The new state remembers them
//! (`state::Lost`): they are lost, not unknown.
//!
//! Deliberately absent: backups (`node::backup`), more replicas (the mover).

use super::{Ask, Host, Inner, SteerError, open, seats};
use crate::{
    image::{self, Proven},
    log_store::Found,
    mover::wall_ms,
    moves::Looked,
    refound::{self, is_planted},
    state::{Lost, State},
    state_machine::blocking,
    types::Home,
    versions,
};
use bytes::Bytes;
use futures_util::future::join_all;
use placement::{Change, ClusterMap, NodeId, Origin, Placement, ReplicaId, Said, Seal, ShardId, TEXT_MAX};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long other nodes may take to close a sealed shard, and this one to lead it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(50);

/// What a shard is founded from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A backup's image.
    Image(Bytes),
    /// What this node's replica has, if all of that can be read.
    Survivor,
    /// What of it can be read: settled auctions whose records can't be are given up.
    Readable,
}

/// What a shard would be founded from.
#[derive(Debug)]
pub struct Weighed {
    /// The image; `None`: what is here.
    pub image: Option<Proven>,
    /// Settled auctions of what is here that can't be read, and would be lost.
    pub lost: Lost,
    state: Option<State>,
}

/// A shard that was founded anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founded {
    /// As this replica.
    pub replica: ReplicaId,
    /// It goes on after this log entry.
    pub index: u64,
    /// Its clock goes on from here.
    pub top: u64,
    /// Auctions in it.
    pub auctions: u64,
    /// The epoch of its feeds.
    pub epoch: u64,
    /// Settled auctions that it goes on without, of this founding or of one before.
    pub lost: Lost,
}

/// Why it wasn't.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RefoundError {
    /// A majority of its replicas answers.
    #[error("[quorum_there] {there} of {of} replicas of shard {} answer: nothing is lost that a majority has", shard.0)]
    QuorumThere {
        /// Of which shard.
        shard: ShardId,
        /// That answer.
        there: usize,
        /// All.
        of: usize,
    },
    /// Nodes that would go on by the old map.
    #[error(
        "[others_answer] nodes {0:?} answer too, and would never hear of a map that is founded here: stop them; they come back under new ids"
    )]
    OthersAnswer(Vec<u64>),
    /// Another survivor has more.
    #[error("[shorter_log] node {} has the shard's log up to {theirs}, this one up to {ours}: recover it there", node.0)]
    Shorter {
        /// Which node.
        node: NodeId,
        /// Its newest entry.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// The map's guard, or its leader.
    #[error("{}{what}", steer_code(what))]
    Steer {
        /// What was said.
        what: SteerError,
    },
    /// What it should be founded from doesn't hold.
    #[error("[image_unsound] {0}")]
    Unsound(String),
    /// It is the image of another shard, or of another cluster: nobody would look for its auctions here.
    #[error("[other_shard] auction {auction} of the image belongs to shard {}", belongs.0)]
    OtherShard {
        /// One that doesn't belong here.
        auction: String,
        /// Where it belongs.
        belongs: ShardId,
    },
    /// Settled auctions of the survivor can't be read.
    #[error("[unreadable] {0} can't be read here, and would be lost: they must be given up by a word of its own")]
    Unreadable(Lost),
    /// There is nothing to found it from.
    #[error("[nothing_here] {0}")]
    Nothing(String),
    /// It takes a reason.
    #[error("[gives_up] shard {} isn't known to be empty: say why it may be replaced", .0.0)]
    NotEmpty(ShardId),
    /// Another founding is under way on this node, or something doesn't happen in time.
    #[error("[unavailable] {0}; the same call goes on where this one stopped")]
    Unavailable(String),
    /// The disk said no.
    #[error("[disk] {0}")]
    Disk(String),
}

fn steer_code(error: &SteerError) -> String {
    match error {
        SteerError::Refused(refusal) => format!("[{}] ", refusal.code()),
        SteerError::Unavailable(_) => "[unavailable] ".into(),
        SteerError::Unknown(_) => "[unknown] ".into(),
    }
}

fn io(error: std::io::Error) -> RefoundError {
    RefoundError::Disk(error.to_string())
}

impl RefoundError {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            RefoundError::QuorumThere { .. } => "quorum_there",
            RefoundError::OthersAnswer(_) => "others_answer",
            RefoundError::Shorter { .. } => "shorter_log",
            RefoundError::Steer {
                what: SteerError::Refused(refusal),
            } => refusal.code(),
            RefoundError::Steer {
                what: SteerError::Unknown(_),
            } => "unknown",
            RefoundError::Steer { .. } | RefoundError::Unavailable(_) => "unavailable",
            RefoundError::Unsound(_) => "image_unsound",
            RefoundError::OtherShard { .. } => "other_shard",
            RefoundError::Unreadable(_) => "unreadable",
            RefoundError::Nothing(_) => "nothing_here",
            RefoundError::NotEmpty(_) => "gives_up",
            RefoundError::Disk(_) => "disk",
        }
    }
}

impl Host {
    /// Founds a shard anew here; see the module. `why`: the operator's reason; only a shard that is empty needs none.
    ///
    /// # Errors
    /// See `RefoundError`. After an error the shard may be sealed: the same call goes on.
    pub async fn refound(
        &self,
        shard: ShardId,
        source: Source,
        who: &str,
        why: Option<&str>,
    ) -> Result<Founded, RefoundError> {
        // Before anything is closed: a bad image must not cost a shard its replicas.
        let weighed = self.weigh(shard, &source, why).await?;
        self.found(shard, weighed, who, why).await
    }

    /// The same, from what was weighed: nothing of that is read or proven again.
    ///
    /// # Errors
    /// See `refound`.
    pub async fn found(
        &self,
        shard: ShardId,
        weighed: Weighed,
        who: &str,
        why: Option<&str>,
    ) -> Result<Founded, RefoundError> {
        let inner = &self.inner;
        let Ok(_alone) = inner.refounding.try_lock() else {
            return Err(RefoundError::Unavailable("another shard is being founded here".into()));
        };
        if shard == ShardId::META {
            return self.refound_meta(who, why.unwrap_or_default()).await;
        }
        let map = self.map().borrow().clone();
        let Weighed { state: image, lost, .. } = weighed;
        if !map.is_sealed(shard) {
            // Others may have come back meanwhile.
            self.guard(&map, shard, image.is_none(), why.is_some()).await?;
        }
        let origin = image.as_ref().map_or(Origin::Survivor, |_| Origin::Backup);
        let seal = self.seal(shard, origin, who, why.unwrap_or("it is empty")).await?;
        let before = inner.found.lock().remove(&shard.0);
        let planted = match image {
            Some(state) => plant(inner, shard, &seal, state, before.as_ref()).await,
            None if is_planted(before.as_ref(), seal.replica) => Ok(before.clone().unwrap_or_default()),
            None => survive(inner, shard, &seal, &map, before.clone(), &lost).await,
        };
        let after = match &planted {
            Ok(found) => Some(found.clone()),
            Err(_) => before,
        };
        if let Some(found) = after {
            inner.found.lock().insert(shard.0, found);
        }
        planted?;
        let without = (!lost.is_empty()).then(|| short(&format!("without {lost}")));
        self.ask(Change::Found(shard), who, without.as_deref()).await?;
        let founded = self.opened(shard, seal.replica).await?;
        self.told(shard, &founded, who).await;
        Ok(founded)
    }

    /// The whole of what is lost goes into the audit. Where nothing is, what the old replica kept isn't wanted any more; else it is
    /// the last there is.
    async fn told(&self, shard: ShardId, founded: &Founded, who: &str) {
        for (auction, what) in &founded.lost.auctions {
            tracing::warn!(target: "rushroom::audit", who, shard = shard.0, %auction, what, "founded without it");
        }
        let Some(seat) = self.inner.seat(shard) else { return };
        let (cold, whole) = (seat.group.replica.cold.clone(), founded.lost.is_empty());
        let kept = blocking(move || {
            if whole {
                cold.succeed();
                return Ok(());
            }
            cold.set_aside()
        });
        if let Err(error) = kept.await {
            tracing::error!(shard = shard.0, %error, "what is left of lost auctions couldn't be set aside: copy the folder `cold`");
        }
    }

    /// What a founding would be refused for at once, and what it would found the shard from. Changes nothing.
    ///
    /// # Errors
    /// As `refound`, as far as it can be known before.
    pub async fn weigh(&self, shard: ShardId, source: &Source, why: Option<&str>) -> Result<Weighed, RefoundError> {
        let image = match source {
            Source::Image(body) => Some(prove(body.clone()).await?),
            Source::Survivor | Source::Readable => None,
        };
        if shard == ShardId::META {
            return match (image, why) {
                (None, Some(_)) => self.guard_meta().await.map(|()| Weighed {
                    image: None,
                    lost: Lost::default(),
                    state: None,
                }),
                (None, None) => Err(RefoundError::NotEmpty(shard)),
                (Some(_), _) => Err(RefoundError::Nothing(
                    "shard 0 is the map of a cluster that was; a new cluster is born with its own".into(),
                )),
            };
        }
        let map = self.map().borrow().clone();
        if let Some((_, state)) = &image {
            let strays = |view: &auction::AuctionView| map.shard_of(view.id.as_str()) != shard;
            if let Some(stray) = state.shard.views().find(strays) {
                let belongs = map.shard_of(stray.id.as_str());
                let auction = stray.id.to_string();
                return Err(RefoundError::OtherShard { auction, belongs });
            }
        }
        if !map.is_sealed(shard) {
            self.guard(&map, shard, image.is_none(), why.is_some()).await?;
        }
        let lost = match source {
            Source::Image(_) => Lost::default(),
            Source::Survivor | Source::Readable => self.lacks(&map, shard).await?,
        };
        if !lost.is_empty() && !matches!(source, Source::Readable) {
            return Err(RefoundError::Unreadable(lost));
        }
        let (image, state) = image.unzip();
        Ok(Weighed { image, lost, state })
    }

    /// Which settled auctions this node's replica lacks, open or closed. What is planted already was weighed before.
    async fn lacks(&self, map: &ClusterMap, shard: ShardId) -> Result<Lost, RefoundError> {
        let inner = &self.inner;
        let open = inner.seat(shard).map(|seat| seat.group.id);
        let Some(replica) = open.or_else(|| Some(inner.born(shard)?.0)) else {
            return Ok(Lost::default());
        };
        let seal = map.steering.sealed.get(&shard);
        if seal.is_some_and(|seal| is_planted(inner.found.lock().get(&shard.0), seal.replica)) {
            return Ok(Lost::default());
        }
        refound::lacks(&inner.ground, shard, replica).await.map_err(io)
    }

    /// Nothing may be given up that a majority still has, or another survivor.
    async fn guard(&self, map: &ClusterMap, shard: ShardId, survivor: bool, reason: bool) -> Result<(), RefoundError> {
        let replicas = map.replicas_of(shard).to_vec();
        let looks = self.looks(replicas.iter().map(|replica| replica.0)).await;
        let open = |(node, replica): &&(NodeId, ReplicaId)| {
            looks
                .get(node)
                .is_some_and(|looked| looked.seats.get(&shard) == Some(replica))
        };
        let there = replicas.iter().filter(open).count();
        if !survivor {
            let led = looks.values().any(|looked| looked.led.contains_key(&shard));
            let empty = self
                .status()
                .iter()
                .any(|group| group.shard == shard && group.auctions == 0);
            return if reason || (led && empty) {
                Ok(())
            } else {
                Err(RefoundError::NotEmpty(shard))
            };
        }
        if !reason {
            return Err(RefoundError::NotEmpty(shard));
        }
        if there * 2 > replicas.len() {
            let of = replicas.len();
            return Err(RefoundError::QuorumThere { shard, there, of });
        }
        // A closed replica is no part of a majority, and its log may hold what was acknowledged all the same.
        let tail = |(node, looked): (&NodeId, &Looked)| {
            let closed = looked.closed.get(&shard);
            let closed = closed.filter(|(replica, _)| replicas.contains(&(*node, *replica)));
            let open = looked.tails.get(&shard).copied();
            open.max(closed.map(|(_, tail)| *tail)).unwrap_or_default()
        };
        let ours = looks.get_key_value(&self.node()).map(tail).unwrap_or_default();
        let longest = looks.iter().map(|look| (tail(look), *look.0)).max();
        match longest.filter(|(theirs, _)| *theirs > ours) {
            Some((theirs, node)) => Err(RefoundError::Shorter {
                node,
                theirs: theirs.1,
                ours: ours.1,
            }),
            None => Ok(()),
        }
    }

    async fn looks(&self, nodes: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, Looked> {
        let crew = self.crew();
        let looks = nodes.map(|node| {
            let crew = &crew;
            async move { Some((node, crew.look(node).await?)) }
        });
        join_all(looks).await.into_iter().flatten().collect()
    }

    async fn ask(&self, change: Change, who: &str, force: Option<&str>) -> Result<u64, RefoundError> {
        let ask = Ask {
            change,
            who: who.to_owned(),
            force: force.map(str::to_owned),
            version: None,
            dry_run: false,
            newest: versions::NEWEST,
        };
        let plan = self.steer(ask).await.map_err(|what| RefoundError::Steer { what })?;
        Ok(plan.base + 1)
    }

    /// Has the shard closed everywhere, as far as anybody answers.
    async fn seal(&self, shard: ShardId, from: Origin, who: &str, why: &str) -> Result<Seal, RefoundError> {
        let node = self.node();
        let version = self.ask(Change::Seal { shard, node, from }, who, Some(why)).await?;
        let until = Instant::now() + PATIENCE;
        let late = |who: String| RefoundError::Unavailable(format!("{who} hasn't closed shard {} yet", shard.0));
        loop {
            let map = self.map().borrow().clone();
            let looks = self.looks(map.nodes.keys().copied()).await;
            let open = looks
                .iter()
                .find(|(_, looked)| looked.version < version || looked.seats.contains_key(&shard));
            let seal = map.steering.sealed.get(&shard).filter(|seal| seal.node == node);
            match (open, seal) {
                (None, Some(seal)) => return Ok(seal.clone()),
                (Some((node, _)), _) if Instant::now() > until => return Err(late(format!("node {}", node.0))),
                (None, None) if Instant::now() > until => return Err(late("this node".into())),
                _ => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Waits until the new replica leads.
    async fn opened(&self, shard: ShardId, replica: ReplicaId) -> Result<Founded, RefoundError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let seat = self.inner.seat(shard).filter(|seat| seat.group.id == replica.0);
            if let Some(seat) = seat
                && seat.group.led().leading
            {
                let state = seat.group.replica.state.read();
                return Ok(Founded {
                    replica,
                    index: state.applied,
                    top: state.shard.top().0,
                    auctions: state.shard.count().0 as u64,
                    epoch: state.feed_epoch,
                    lost: state.lost.clone(),
                });
            }
            if Instant::now() > until {
                return Err(RefoundError::Unavailable(format!("shard {} isn't led yet", shard.0)));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Nobody else may go on by the old map.
    async fn guard_meta(&self) -> Result<(), RefoundError> {
        let map = self.map().borrow().clone();
        self.guard(&map, ShardId::META, true, true).await?;
        let others = self
            .looks(map.nodes.keys().copied().filter(|node| *node != self.node()))
            .await;
        if !others.is_empty() {
            return Err(RefoundError::OthersAnswer(others.keys().map(|node| node.0).collect()));
        }
        Ok(())
    }

    /// Founds the map itself from what this node has of it.
    async fn refound_meta(&self, who: &str, why: &str) -> Result<Founded, RefoundError> {
        let inner = &self.inner;
        self.guard_meta().await?;
        let seat = inner
            .seat(ShardId::META)
            .ok_or_else(|| RefoundError::Nothing("no replica of shard 0 is open here".into()))?;
        let mut tasks = std::mem::take(&mut *inner.meta_tasks.lock());
        tasks.shutdown().await;
        seats::shut_seat(inner, &seat).await;
        let before = inner.found.lock().get(&ShardId::META.0).cloned().unwrap_or_default();
        let done = plant_map(inner, before.clone(), who, why).await;
        let replica = match &done {
            Ok((_, replica)) => *replica,
            Err(_) => ReplicaId(seat.group.id),
        };
        let found = done.as_ref().map_or(before, |(found, _)| found.clone());
        inner.found.lock().insert(ShardId::META.0, found);
        // Opened again in either case: what was planted, or what was there.
        open::open_meta(inner, replica.0, BTreeMap::<u64, Home>::new())
            .await
            .map_err(RefoundError::Disk)?;
        done?;
        self.opened(ShardId::META, replica).await
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

async fn prove(body: Bytes) -> Result<(Proven, State), RefoundError> {
    let read = tokio::task::spawn_blocking(move || image::read(body));
    let read = read.await.map_err(|error| RefoundError::Unsound(error.to_string()))?;
    read.map_err(|error| RefoundError::Unsound(error.to_string()))
}

async fn plant(
    inner: &Arc<Inner>,
    shard: ShardId,
    seal: &Seal,
    mut state: State,
    before: Option<&Found>,
) -> Result<Found, RefoundError> {
    state.cut(seal.from, seal.since_ms);
    let home = (seal.node, seal.replica);
    refound::plant(&inner.ground, shard, home, state, before)
        .await
        .map_err(io)
}

/// From what this node's own replica, closed by now, has.
async fn survive(
    inner: &Arc<Inner>,
    shard: ShardId,
    seal: &Seal,
    map: &ClusterMap,
    before: Option<Found>,
    weighed: &Lost,
) -> Result<Found, RefoundError> {
    let nothing = || RefoundError::Nothing(format!("this node has no replica of shard {}", shard.0));
    let ours = map.replica_on(shard, seal.node).ok_or_else(nothing)?;
    let before = before
        .filter(|found| found.born() == Some(ours.0))
        .ok_or_else(nothing)?;
    let (state, before, lost) = refound::leftover(&inner.ground, shard, before).await.map_err(io)?;
    if !lost.is_within(weighed) {
        // Something can't be read now, and could before: that wasn't what was said yes to.
        return Err(RefoundError::Unreadable(lost));
    }
    plant(inner, shard, seal, state, Some(&before)).await
}

/// The map that names its own new replica, planted as that.
async fn plant_map(
    inner: &Arc<Inner>,
    before: Found,
    who: &str,
    why: &str,
) -> Result<(Found, ReplicaId), RefoundError> {
    let me = inner.options.node;
    let (mut state, before, _) = refound::leftover(&inner.ground, ShardId::META, before)
        .await
        .map_err(io)?;
    let known = state.map.take();
    let known = known.ok_or_else(|| RefoundError::Nothing("this node has no map".into()))?;
    let mut map = (*known).clone();
    let replica = map.next_replica();
    let replicas = vec![(me, replica)];
    map.placement.insert(ShardId::META, Placement { replicas });
    map.epoch += 1;
    map.steering.version += 1;
    map.steering.watchers.remove(&me);
    map.steering.goal.remove(&ShardId::META);
    map.steering.moves.remove(&ShardId::META);
    let said = Said {
        at_ms: wall_ms(),
        who: short(who),
        what: format!(
            "shard 0: founded anew from what node {} had, up to entry {}",
            me.0, state.applied
        ),
        why: Some(short(why)),
        version: map.steering.version,
    };
    map.steering.say(said);
    state.map = Some(Arc::new(map));
    state.cut(Origin::Survivor, wall_ms());
    let found = refound::plant(&inner.ground, ShardId::META, (me, replica), state, Some(&before)).await;
    Ok((found.map_err(io)?, replica))
}
