//! The mover's task: at the node that leads shard 0 it looks, decides, stores, and only then has things done.
//!
//! ```text
//!   look at every node --> placement::mover::decide --> store the map (compare-and-set, this term) --> work, side by side
//!        ^------------------------------- a pause: short while something moves ----------------------------'
//! ```
//!
//! It keeps nothing but since when nodes are silent, which a new leader counts from anew: rather a grace too long than a
//! node replaced that was only unheard by somebody else.
//!
//! Whoever led shard 0 when it was cut off, and was frozen or heard nothing since, still believes to lead it when it is back:
//! its map is of then, and its look is of now. By that map every replica that came meanwhile is a stranger, to be sent away.
//! So nothing is done before a majority has said, *after* the look, that this leader leads and that its map is the newest:
//! the map's own write says so, and where none is to be written a read is asked for.
//!
//! Deliberately absent: decisions (`placement::mover`), openraft (`membership`).

use crate::{
    group::Group,
    metrics,
    moves::{Crew, Looked},
    port::Log,
    types::{Answer, LogId, MetaCommand, Payload},
};
use futures_util::future::join_all;
use placement::{ClusterMap, Facts, NodeId, ShardId, decide, mover::Limits};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// How often it looks.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// While something moves.
    pub busy: Duration,
    /// Otherwise.
    pub idle: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            busy: Duration::from_millis(50),
            idle: Duration::from_secs(1),
        }
    }
}

/// What moves wait for, by the mover's last look.
pub(crate) type Waits = BTreeMap<ShardId, String>;

/// How long a majority may take to say that this node leads shard 0.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub(crate) async fn run(meta: Arc<Group>, crew: Crew, limits: Limits, pace: Pace, waits: watch::Sender<Waits>) {
    let mut leadership = meta.leadership();
    let mut maps = meta.replica.map.subscribe();
    let mut heard: BTreeMap<NodeId, Instant> = BTreeMap::new();
    loop {
        let known = *leadership.borrow_and_update();
        let map = maps.borrow_and_update().clone();
        let (Some(map), true) = (map, known.leading) else {
            heard.clear();
            metrics::moving(0, 0);
            let _ = waits.send_if_modified(|waits| !std::mem::take(waits).is_empty());
            let changed = tokio::select! {
                changed = leadership.changed() => changed,
                changed = maps.changed() => changed,
            };
            match changed {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let acted = step(&meta, &crew, &limits, known.term, &map, &mut heard, &waits).await;
        let busy = acted || !map.steering.moves.is_empty() || !map.steering.goal.is_empty();
        tokio::select! {
            () = tokio::time::sleep(if busy { pace.busy } else { pace.idle }) => {}
            _ = maps.changed() => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

/// One look and what comes of it. True: something was done.
async fn step(
    meta: &Group,
    crew: &Crew,
    limits: &Limits,
    term: u64,
    map: &ClusterMap,
    heard: &mut BTreeMap<NodeId, Instant>,
    waits: &watch::Sender<Waits>,
) -> bool {
    let looks = crew.looks(map.nodes.keys().copied()).await;
    let (facts, members) = facts(looks, heard);
    let decision = decide(map, &facts, limits);
    metrics::moving(map.steering.moves.len(), map.steering.goal.len());
    waits.send_if_modified(|present| {
        let changed = *present != decision.waits;
        present.clone_from(&decision.waits);
        changed
    });
    let mut acted = false;
    if let Some(next) = decision.map {
        let command = MetaCommand::Steer {
            expected: map.steering.version,
            map: Box::new(next),
        };
        match meta.decree(term, Payload::Meta(command)).await {
            Ok(Answer::Meta { stored: true, .. }) => {}
            // Somebody else changed the map, or leads: what was decided is out of date.
            Ok(_) | Err(_) => return true,
        }
        decision
            .news
            .iter()
            .for_each(|line| tracing::info!(target: "rushroom::moves", "{line}"));
        acted = true;
    } else if !decision.work.is_empty() && !is_newest(meta, map).await {
        tracing::info!(
            version = map.steering.version,
            "what was to be done was decided by a map that may be out of date: nothing is done"
        );
        return false;
    }
    acted |= !decision.work.is_empty();
    let work = decision.work.into_iter().map(|(shard, node, work)| {
        let seen = members.get(&shard).copied().flatten();
        async move {
            let begun = Instant::now();
            let done = crew.work(node, shard, work, seen).await;
            metrics::move_work(work.word(), done.is_ok(), begun.elapsed());
            if let Err(why) = done {
                tracing::debug!(shard = shard.0, node = node.0, work = work.word(), why, "not done yet");
            }
        }
    });
    join_all(work).await;
    acted
}

/// Whether this node leads shard 0, and `map` is what a majority has now.
async fn is_newest(meta: &Group, map: &ClusterMap) -> bool {
    meta.up().await;
    if meta.read_index(CONFIRM_PATIENCE).await.is_err() {
        return false;
    }
    let now = meta.replica.map.borrow();
    now.as_ref()
        .is_some_and(|now| now.steering.version == map.steering.version)
}

fn facts(
    looks: BTreeMap<NodeId, Option<Looked>>,
    heard: &mut BTreeMap<NodeId, Instant>,
) -> (Facts, BTreeMap<ShardId, Option<LogId>>) {
    let now = Instant::now();
    let mut facts = Facts {
        now_ms: wall_ms(),
        ..Facts::default()
    };
    let mut members = BTreeMap::new();
    heard.retain(|node, _| looks.contains_key(node));
    for (node, looked) in looks {
        let last = heard.entry(node).or_insert(now);
        if let Some(looked) = looked {
            *last = now;
            facts.knows.insert(node, looked.version);
            facts.seats.insert(node, looked.seats);
            for (shard, led) in looked.led {
                // Two may believe to lead for a moment; the older one's work is refused by its group.
                members.insert(shard, led.members);
                facts.groups.insert(shard, led.facts);
            }
        }
        let silent = now.saturating_duration_since(*last).as_millis();
        facts.silent_ms.insert(node, u64::try_from(silent).unwrap_or(u64::MAX));
    }
    (facts, members)
}

/// Wall time: for people, for scheduled starts, and for the expiry of overrides.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
