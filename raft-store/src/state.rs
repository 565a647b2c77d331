//! What a group replicates: a shard of auctions and, in shard 0, the cluster map.
//!
//! `State::apply` is the only writer, and it is pure: the same log gives the same state on every replica, which
//! `State::digest` makes comparable.
//!
//! Deliberately absent: files and sockets (`state_machine`), followers of events (`feed`).

use crate::types::{Answer, MetaCommand, Payload};
use auction::Shard;
use placement::ClusterMap;
use std::sync::Arc;

/// The replicated state of one group.
#[derive(Debug)]
pub struct State {
    /// The auctions, their clock and their remembered verdicts. Empty in shard 0.
    pub shard: Shard,
    /// The cluster map, in shard 0 once it is born.
    pub map: Option<Arc<ClusterMap>>,
    /// Index of the newest log entry in this state.
    pub applied: u64,
}

impl State {
    /// A state before its first entry.
    #[must_use]
    pub fn new(limits: auction::Limits) -> State {
        State {
            shard: Shard::new(limits),
            map: None,
            applied: 0,
        }
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
        digest
    }
}
