//! Rendezvous order: for a key, every node in an order that all agree on, and that changes little when nodes come and go.
//!
//! Each node draws a number from (key, node); the highest goes first, weights stretch the draw. When a node leaves, only
//! what it held moves; when one joins, it takes its share evenly from all others. The drawing is the `rendezvous_hash`
//! crate's; the hash is ours (xxh3 with a fixed seed over little-endian bytes), because std's default hasher may change
//! with a compiler, and a cluster outlives compilers. Golden vectors below hold it still.

use crate::{NodeId, ShardId};
use rendezvous_hash::{Capacity, IdNode, NodeHasher, RendezvousNodes, WeightedNode};
use std::hash::{Hash, Hasher};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Of auction ids to shards. Fixed forever: it names where each auction lies.
const SHARD_SEED: u64 = 0x5253_4841_5244_0001;
/// Of keys to nodes.
const RANK_SEED: u64 = 0x5252_414e_4b00_0001;

/// The shard (1..=`shards`) of an auction: a stable hash of its id, spread by multiplication instead of a remainder.
#[must_use]
pub fn shard_of(auction: &str, shards: u32) -> ShardId {
    let hash = xxh3_64_with_seed(auction.as_bytes(), SHARD_SEED);
    let slot = (u128::from(hash) * u128::from(shards.max(1))) >> 64;
    ShardId(1 + slot as u32)
}

/// The nodes in the rendezvous order of `key`, best first. Weights are relative; a node of weight 0 takes no part.
#[must_use]
pub fn rank(key: &str, nodes: impl IntoIterator<Item = (NodeId, u32)>) -> Vec<NodeId> {
    let item = xxh3_64_with_seed(key.as_bytes(), RANK_SEED);
    let mut all = RendezvousNodes::new(Stable);
    for (node, weight) in nodes {
        if let Some(capacity) = Capacity::new(f64::from(weight)) {
            all.insert(WeightedNode::new(IdNode::new(node), capacity));
        }
    }
    all.calc_candidates(&item).map(|candidate| *candidate.node).collect()
}

/// What a node of weight 1 or more draws for a shard: the highest goes first. For people; the order is `rank`'s.
#[must_use]
pub fn score(shard: ShardId, node: NodeId, weight: u32) -> f64 {
    let item = xxh3_64_with_seed(format!("shard/{}", shard.0).as_bytes(), RANK_SEED);
    let drawn = Stable.hash(&node, &item) as f64 / u64::MAX as f64;
    -f64::from(weight) / drawn.ln()
}

/// The order of nodes for a shard.
#[must_use]
pub(crate) fn rank_shard(shard: ShardId, nodes: impl IntoIterator<Item = (NodeId, u32)>) -> Vec<NodeId> {
    rank(&format!("shard/{}", shard.0), nodes)
}

/// The fixed hasher of (key, node).
struct Stable;

impl NodeHasher<NodeId> for Stable {
    fn hash<T: Hash>(&self, node: &NodeId, item: &T) -> u64 {
        let mut hasher = LittleEndian(Xxh3::with_seed(RANK_SEED));
        item.hash(&mut hasher);
        node.hash(&mut hasher);
        hasher.finish()
    }
}

/// xxh3 that writes integers in one byte order on every machine (std's `Hasher` uses the machine's own).
struct LittleEndian(Xxh3);

impl Hasher for LittleEndian {
    fn finish(&self) -> u64 {
        self.0.digest()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn write_u32(&mut self, i: u32) {
        self.write(&i.to_le_bytes());
    }
    fn write_u64(&mut self, i: u64) {
        self.write(&i.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn scores_are_in_the_order_of_ranks() {
        for shard in (0..64).map(ShardId) {
            let nodes: Vec<_> = (1..=9).map(|id| (NodeId(id), 1 + (id % 3) as u32)).collect();
            let mut by_score = nodes.clone();
            by_score.sort_by(|a, b| score(shard, b.0, b.1).total_cmp(&score(shard, a.0, a.1)));
            let by_score: Vec<_> = by_score.into_iter().map(|n| n.0).collect();
            assert_eq!(by_score, rank_shard(shard, nodes));
        }
    }

    /// Written down once, true forever: a change here would orphan every auction of every cluster.
    #[test]
    fn shard_of_is_golden() {
        let got = [
            "a",
            "demo-1",
            "guest",
            "x_y-Z",
            "auction-000000000000000000000000000042",
        ]
        .map(|id| shard_of(id, 128).0);
        assert_eq!(got, [47, 63, 3, 43, 76]);
        assert_eq!(["a", "demo-1", "guest"].map(|id| shard_of(id, 16).0), [6, 8, 1]);
        assert_eq!(shard_of("anything", 0), ShardId(1));
        assert_eq!(shard_of("anything", 1), ShardId(1));
    }

    #[test]
    fn rank_is_golden() {
        let even = |key| {
            rank(key, (1..=5).map(|id| (NodeId(id), 1)))
                .iter()
                .map(|n| n.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(even("shard/1"), [3, 4, 5, 1, 2]);
        assert_eq!(even("shard/2"), [1, 5, 4, 3, 2]);
        assert_eq!(even("stream/demo"), [2, 4, 5, 1, 3]);
        let weighted = rank(
            "shard/1",
            [(NodeId(1), 1), (NodeId(2), 8), (NodeId(3), 0), (NodeId(4), 2)],
        );
        assert_eq!(weighted, [NodeId(4), NodeId(2), NodeId(1)]);
    }

    #[test]
    fn the_order_of_arguments_does_not_matter() {
        for key in 0..200 {
            let key = format!("k{key}");
            let there = rank(&key, (1..=7).map(|id| (NodeId(id), 1)));
            let back = rank(&key, (1..=7).rev().map(|id| (NodeId(id), 1)));
            assert_eq!(there, back, "{key}");
        }
    }

    /// Which share of 20,000 keys each node leads, against its share of the weight.
    #[test]
    fn shares_follow_weights() {
        let weights = [(NodeId(1), 4), (NodeId(2), 2), (NodeId(3), 1), (NodeId(4), 1)];
        let mut firsts = [0u32; 5];
        for key in 0..20_000 {
            firsts[rank(&format!("k{key}"), weights)[0].0 as usize] += 1;
        }
        for (node, weight) in weights {
            let want = 20_000 * weight / 8;
            let got = firsts[node.0 as usize];
            assert!(got.abs_diff(want) < want / 10, "node {node:?}: {got} of {want}");
        }
    }

    #[test]
    fn shards_are_even() {
        let mut count = [0u32; 17];
        for id in 0..16_000 {
            count[shard_of(&format!("auction-{id}"), 16).0 as usize] += 1;
        }
        assert_eq!(count[0], 0);
        assert!(count[1..].iter().all(|&n| (850..=1150).contains(&n)), "{count:?}");
    }

    /// Who leaves takes only its own keys along; who joins takes only for itself.
    #[test]
    fn only_what_must_moves() {
        let with = |ids: &[u64], key: &str| rank(key, ids.iter().map(|&id| (NodeId(id), 1)))[0];
        let mut joined = 0;
        for key in 0..5_000 {
            let key = format!("k{key}");
            let before = with(&[1, 2, 3, 4, 5], &key);
            let after = with(&[1, 2, 3, 4, 5, 6], &key);
            assert!(
                after == before || after == NodeId(6),
                "{key} went from {before:?} to {after:?}"
            );
            joined += u32::from(after == NodeId(6));
        }
        assert!((700..=970).contains(&joined), "{joined} of 5000 went to the sixth node");
    }
}
