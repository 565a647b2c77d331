//! What a group replicates: a shard of auctions and, in shard 0, the cluster map.
//!
//! `State::apply` is the only writer, and it is pure: the same log gives the same state on every replica, which
//! `State::digest` makes comparable.
//!
//! Deliberately absent: files and sockets (`state_machine`), followers of events (`feed`).

use crate::types::{Answer, MetaCommand, Payload};
use auction::{AuctionId, Phase, Shard};
use placement::{ClusterMap, Origin};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Most cuts that are remembered.
const CUTS_MAX: usize = 64;
/// Lost auctions that a line names.
const TOLD_MAX: usize = 20;

/// Where a shard's history was cut: what came after these versions, if anything, is in no history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Of all feeds from then on: wall time, ms.
    pub epoch: u64,
    /// What the shard was founded from.
    pub from: Origin,
    /// Auctions that weren't over, and their versions then.
    pub auctions: BTreeMap<AuctionId, u64>,
}

/// Settled auctions that no disk could give back when their shard was founded anew. They are nothing that could be created again:
/// whoever asks for one is told that it is lost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// Which, and what each record lacked.
    pub auctions: BTreeMap<AuctionId, String>,
    /// So many more, of which nobody can tell the ids.
    pub unnamed: u64,
}

impl Lost {
    /// None is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.auctions.is_empty() && self.unnamed == 0
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.auctions.len() as u64 + self.unnamed
    }

    /// Whether `other` lacks all that this does, whatever was wrong with it.
    #[must_use]
    pub(crate) fn is_within(&self, other: &Lost) -> bool {
        self.unnamed <= other.unnamed && self.auctions.keys().all(|auction| other.auctions.contains_key(auction))
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} auctions", self.count())?;
        for (n, (auction, what)) in self.auctions.iter().take(TOLD_MAX).enumerate() {
            write!(f, "{} {auction} ({what})", if n == 0 { ":" } else { "," })?;
        }
        match self.count() - self.auctions.len().min(TOLD_MAX) as u64 {
            0 => Ok(()),
            more => write!(f, ", {more} more"),
        }
    }
}

/// The replicated state of one group.
#[derive(Debug)]
pub struct State {
    /// The auctions, their clock and their remembered verdicts. Empty in shard 0.
    pub shard: Shard,
    /// The cluster map, in shard 0 once it is born.
    pub map: Option<Arc<ClusterMap>>,
    /// Index of the newest log entry in this state.
    pub applied: u64,
    /// The epoch of its feeds: changes only when it is founded anew.
    pub feed_epoch: u64,
    /// Where its history was cut, oldest first.
    pub cuts: Vec<Cut>,
    /// What a founding went on without.
    pub lost: Lost,
}

/// The epoch of a shard that was never founded anew.
pub const FIRST_EPOCH: u64 = 1;

impl State {
    /// A state before its first entry.
    #[must_use]
    pub fn new(limits: auction::Limits) -> State {
        State {
            shard: Shard::new(limits),
            map: None,
            applied: 0,
            feed_epoch: FIRST_EPOCH,
            cuts: Vec::new(),
            lost: Lost::default(),
        }
    }

    /// The shard goes on from here in another epoch: offsets of before mean nothing any more. `at_ms` is wall time, so that
    /// two foundings from one backup can't be taken for each other.
    pub fn cut(&mut self, from: Origin, at_ms: u64) {
        self.feed_epoch = at_ms.max(self.feed_epoch + 1);
        let going_on = self
            .shard
            .views()
            .filter(|view| !matches!(view.phase, Phase::Closed(_)));
        let cut = Cut {
            epoch: self.feed_epoch,
            from,
            auctions: going_on.map(|view| (view.id.clone(), view.seq)).collect(),
        };
        if self.cuts.len() >= CUTS_MAX {
            self.cuts.remove(0);
        }
        self.cuts.push(cut);
    }

    /// Where an auction's history was cut: epochs, and its version then.
    pub fn cuts_of<'a>(&'a self, auction: &'a AuctionId) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.cuts
            .iter()
            .filter_map(move |cut| Some((cut.epoch, *cut.auctions.get(auction)?)))
    }

    /// Applies one payload.
    pub fn apply(&mut self, payload: &Payload) -> Answer {
        match payload {
            Payload::Entry { entry, .. } => Answer::Entry(Arc::new(self.shard.apply(entry))),
            Payload::Meta(command) => self.apply_meta(command),
            Payload::Rules(version) => {
                self.shard.raise_rules(*version);
                Answer::Nothing
            }
        }
    }

    fn apply_meta(&mut self, command: &MetaCommand) -> Answer {
        let epoch = self.map.as_ref().map_or(0, |map| map.epoch);
        let (stored, map) = match command {
            MetaCommand::StoreMap { expected, map } => (*expected == epoch && map.epoch == epoch + 1, map),
            MetaCommand::Steer { expected, map } => {
                let present = self.map.as_ref().map(|map| map.steering.version);
                (
                    present == Some(*expected) && map.steering.version > *expected && map.epoch >= epoch,
                    map,
                )
            }
        };
        if stored {
            self.map = Some(Arc::new((**map).clone()));
        }
        Answer::Meta {
            epoch: if stored { map.epoch } else { epoch },
            stored,
        }
    }

    /// A fingerprint of all that is replicated: equal on replicas that applied the same log.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = self.shard.digest();
        if let Some(map) = &self.map {
            let bytes = crate::codec::map_bytes(map);
            for (i, byte) in xxhash_rust::xxh3::xxh3_128(&bytes).to_le_bytes().iter().enumerate() {
                digest[i] ^= byte;
            }
        }
        // Nothing for a shard that was never founded anew: digests of builds that knew of no epochs are the same.
        let epoch = self.feed_epoch ^ FIRST_EPOCH;
        for (i, byte) in epoch.to_le_bytes().iter().enumerate() {
            digest[16 + i] ^= byte;
        }
        digest
    }
}
