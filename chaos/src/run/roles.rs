//! Who leads what, as each replica itself has it: `role` lines, ten a second for every node and shard; and, once for each
//! replica that tells it, whose lanes its offices found behind (`behind`).
//!
//! A node's `GET /api/v1/cluster` speaks of its own replicas, so each node is asked by a task of its own: one that is
//! frozen or dead keeps only its own task waiting, and says nothing, which is what the history then shows. Asking must
//! never disturb the run: own connections, one question under way per node, a short wait, no second try, and a tick that
//! was missed is not made up for. Only shards that hold auctions of the run are written, which bounds the file: 3 nodes
//! and 8 shards are 240 lines of some 90 bytes a second.
//!
//! Deliberately absent: a change between two looks that was gone again at the second, for the API has no stream of roles;
//! and what a live node says while it waits for a frozen one. Its answer tells of the other nodes' streams too, so it comes
//! only when they have answered or are held for dead, and by then its roles are old: no line is better than a late one.

use super::Recorder;
use crate::{
    history::{Behind, Record, Role},
    mono,
};
use client::{Api, wire::Cluster};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::MissedTickBehavior};

/// The format's rate.
const EVERY: Duration = Duration::from_millis(100);
/// A node that takes longer to say what it is says nothing. Its answer would be as old as this.
pub(crate) const ATTEMPT: Duration = Duration::from_millis(250);

/// One task per node; they end when the set is dropped. `api` must not wait longer than `ATTEMPT`.
pub(crate) fn start(api: &Api, shards: &BTreeSet<u32>, recorder: &Arc<Recorder>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for node in 0..api.nodes().len() {
        tasks.spawn(look(api.pinned(node), shards.clone(), recorder.clone()));
    }
    tasks
}

async fn look(api: Api, shards: BTreeSet<u32>, recorder: Arc<Recorder>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        if let Ok(cluster) = api.cluster().await {
            let t = mono::now();
            roles(&cluster, &shards, t).for_each(|role| recorder.write(&Record::Role(role)));
            behinds(&cluster, &shards, t).for_each(|behind| recorder.behind(behind));
        }
    }
}

/// The answering node's replicas of `shards`; a shard that it holds no replica of has no role there.
fn roles(cluster: &Cluster, shards: &BTreeSet<u32>, t: i64) -> impl Iterator<Item = Role> {
    let node = cluster.me;
    let ours = cluster.shards.iter().filter(|shard| shards.contains(&shard.id));
    ours.filter_map(move |shard| {
        Some(Role {
            t,
            node,
            shard: shard.id,
            role: shard.role.clone()?,
            term: shard.term?,
            applied: shard.applied?,
        })
    })
}

/// What the answering node's replicas of `shards` say of lanes that were behind.
fn behinds(cluster: &Cluster, shards: &BTreeSet<u32>, t: i64) -> impl Iterator<Item = Behind> {
    let node = cluster.me;
    let ours = cluster.shards.iter().filter(|shard| shards.contains(&shard.id));
    ours.flat_map(move |shard| {
        shard.behind.iter().map(move |behind| Behind {
            t,
            node,
            shard: shard.id,
            term: behind.term,
            turn: behind.turn,
            base: behind.base,
            a: behind.auction.clone(),
            ct: behind.stamp,
            seq: behind.seq,
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_own_replicas_of_the_runs_shards_are_written() {
        let cluster = serde_json::json!({ "me": 2, "shards": [
            { "id": 1, "leader": 2, "role": "leader", "term": 7, "applied": 90, "behind": [
                { "term": 7, "turn": 1, "base": 900, "auction": "x", "stamp": 700, "seq": 3 },
            ] },
            { "id": 2, "leader": 1, "role": "follower", "term": 3, "applied": 4 },
            { "id": 3, "leader": 1 },
        ] });
        let cluster: Cluster = serde_json::from_value(cluster).unwrap();
        let lines: Vec<String> = roles(&cluster, &BTreeSet::from([1, 3, 9]), 5)
            .map(|role| serde_json::to_string(&Record::Role(role)).unwrap())
            .collect();
        let line = r#"{"k":"role","t":5,"node":2,"shard":1,"role":"leader","term":7,"applied":90}"#;
        assert_eq!(lines, [line]);
        let lines: Vec<String> = behinds(&cluster, &BTreeSet::from([1, 3, 9]), 5)
            .map(|behind| serde_json::to_string(&Record::Behind(behind)).unwrap())
            .collect();
        let line = r#"{"k":"behind","t":5,"node":2,"shard":1,"term":7,"turn":1,"base":900,"a":"x","ct":700,"seq":3}"#;
        assert_eq!(lines, [line]);
    }
}
