//! From a change that somebody wants to a goal that can be read before it is applied.
//!
//! ```text
//!   map + Change --plan--> Plan { map with the goal, moves and reasons, warnings } --apply: compare-and-set--> shard 0
//!                   '----> Refusal: what it would break, and whether a reason may override that
//! ```
//!
//! A plan is of one version of the map: applied to another it is refused, so what an operator read is what happens. Goals
//! are stored, not recomputed: a node that restarts with another build can't change its mind about where shards belong.
//!
//! Two replicas of a shard are never changed at once: a shard that must give up two goes one after the other.
//!
//! Deliberately absent: liveness and auctions. Whether a step may be taken *now* is `mover`'s question.

mod seal;

use crate::{
    Change, ClusterMap, Node, NodeId, Override, Refusal, Rules, ShardId, Standing, Step, TEXT_MAX, WEIGHT_MAX, Wish,
    overrides::OVERRIDES_MAX, place::wanted, rank::rank,
};
use std::collections::{BTreeMap, BTreeSet};

/// Most nodes that the map holds, the gone ones included.
pub const NODES_MAX: usize = 256;
/// Voters of shard 0 that the cluster grows to by itself.
pub const META_VOTERS: usize = 5;
/// Longest time for which an override may be wanted, ms: a year.
pub const OVERRIDE_MAX_MS: u64 = 365 * 24 * 3_600_000;
/// How long a shard stays where an operator moved it, ms: seven days.
pub const MOVED_FOR_MS: u64 = 7 * 24 * 3_600_000;

/// One replica that would move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedMove {
    /// Of which shard.
    pub shard: ShardId,
    /// Away from; none: the shard gains a replica.
    pub from: Option<NodeId>,
    /// To; none: the shard loses one.
    pub to: Option<NodeId>,
    /// Why.
    pub reason: String,
}

/// What would become of the map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The version that it is of.
    pub base: u64,
    /// The map with the change and its goal, one version on.
    pub map: ClusterMap,
    /// What would move, shard by shard.
    pub moves: Vec<PlannedMove>,
    /// Leaders that would change: shard, who is preferred now, who would be.
    pub leaders: Vec<(ShardId, Option<NodeId>, Option<NodeId>)>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// Plans a change. `force` is an operator's reason to override what may be overridden.
///
/// # Errors
/// When it can't be done, or would break what no reason overrides.
pub fn plan(
    map: &ClusterMap,
    change: &Change,
    rules: Rules,
    now_ms: u64,
    force: Option<&str>,
) -> Result<Plan, Refusal> {
    short_texts(change, force)?;
    let mut next = map.clone();
    let mut warnings = Vec::new();
    next.steering.version += 1;
    next.steering.overrides.retain(|o| o.until_ms > now_ms);
    let scope = edit(&mut next, change, rules, now_ms).or_else(|refusal| match force {
        Some(reason) if refusal.0.may_be_forced() => {
            warnings.push(format!("{}; forced: {reason}", refusal.0));
            Ok(refusal.1)
        }
        _ => Err(refusal.0),
    })?;
    if let (Change::Seal { shard, .. }, Some(reason)) = (change, force) {
        seal::explain(&mut next, *shard, reason);
    }
    if scope != Scope::Nothing {
        next.steering.reason = change.to_string();
        next.steering.forced = force.map(str::to_owned);
        warnings.extend(set_goals(&mut next, rules, now_ms, scope));
    }
    next.epoch += u64::from(next.placement != map.placement || next.nodes != map.nodes);
    let leaders = (1..=next.shards).map(ShardId).filter_map(|shard| {
        let goal = next.steering.goal.get(&shard).and_then(|nodes| nodes.first().copied());
        let would = goal.or_else(|| next.preferred_leader(shard));
        (would != map.preferred_leader(shard)).then(|| (shard, map.preferred_leader(shard), would))
    });
    Ok(Plan {
        base: map.steering.version,
        moves: open_moves(&next),
        leaders: leaders.collect(),
        warnings,
        map: next,
    })
}

/// Which goals a change renews.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    One(ShardId),
    /// The change has set the goal itself.
    Set,
    Nothing,
}

/// Makes the change itself. A refusal that a reason may override comes with the edit done and its scope.
fn edit(next: &mut ClusterMap, change: &Change, rules: Rules, now_ms: u64) -> Result<Scope, (Refusal, Scope)> {
    let hard = |refusal| (refusal, Scope::Nothing);
    let scope = match change {
        Change::Join(node) => join(next, node).map_err(hard)?,
        Change::Resume(node) => {
            let now = known(next, *node).map_err(hard)?;
            next.steering.standings.remove(node);
            if now == Standing::Active {
                Scope::Nothing
            } else {
                Scope::All
            }
        }
        Change::Weight(node, weight) => {
            known(next, *node).map_err(hard)?;
            light(*weight).map_err(hard)?;
            if let Some(known) = next.nodes.get_mut(node) {
                known.weight = *weight;
            }
            someone_left(next, *node).map_err(hard)?;
            enough_left(next, rules, Scope::All)?
        }
        Change::Drain(node) => stand(next, *node, Standing::Draining).map_err(hard)?,
        Change::Decommission(node) => {
            stand(next, *node, Standing::Decommissioned).map_err(hard)?;
            enough_left(next, rules, Scope::All)?
        }
        Change::Lose(node) => {
            stand(next, *node, Standing::Lost).map_err(hard)?;
            enough_left(next, rules, Scope::All)?
        }
        Change::Override(o) => {
            let until_ms = o.until_ms.min(now_ms.saturating_add(OVERRIDE_MAX_MS));
            add_override(next, Override { until_ms, ..o.clone() }).map_err(hard)?
        }
        Change::Lift(shard, node) => {
            let before = next.steering.overrides.len();
            let theirs = |o: &Override| o.shard == *shard && o.wish.node() == *node;
            next.steering.overrides.retain(|o| !theirs(o));
            if next.steering.overrides.len() == before {
                return Err(hard(Refusal::NothingToCancel));
            }
            Scope::One(*shard)
        }
        Change::Move { shard, from, to, owner } => return move_one(next, (*shard, *from, *to), owner, now_ms),
        Change::Rebalance => Scope::All,
        Change::Cancel(shard) => cancel(next, *shard).map_err(hard)?,
        Change::Pause | Change::Go => {
            next.steering.paused = *change == Change::Pause;
            Scope::Nothing
        }
        Change::HandedOver { .. } | Change::Copy => Scope::Nothing,
        Change::Restart(node) => {
            known(next, *node).map_err(hard)?;
            Scope::Nothing
        }
        Change::Upgrade(to) => {
            let now = next.cluster_version();
            if *to <= now {
                return Err(hard(Refusal::NotNewer { now }));
            }
            next.steering.cluster_version = *to;
            Scope::Nothing
        }
        Change::Seal { shard, node, from } => return seal::seal(next, *shard, *node, *from, now_ms),
        Change::Found(shard) => seal::found(next, *shard).map_err(hard)?,
    };
    Ok(scope)
}

fn known(map: &ClusterMap, node: NodeId) -> Result<Standing, Refusal> {
    if !map.nodes.contains_key(&node) {
        return Err(Refusal::UnknownNode(node));
    }
    match map.standing(node) {
        Standing::Decommissioned => Err(Refusal::Gone(node)),
        standing => Ok(standing),
    }
}

fn light(weight: u32) -> Result<(), Refusal> {
    match weight <= WEIGHT_MAX {
        true => Ok(()),
        false => Err(Refusal::TooHeavy(weight)),
    }
}

/// Texts go into the map as they are, and the map to every node with each change.
fn short(what: &'static str, text: &str) -> Result<(), Refusal> {
    match text.chars().nth(TEXT_MAX) {
        None => Ok(()),
        Some(_) => Err(Refusal::TooLong { what, most: TEXT_MAX }),
    }
}

/// Everything in a change that somebody wrote.
fn short_texts(change: &Change, force: Option<&str>) -> Result<(), Refusal> {
    if force.is_some_and(|reason| reason.trim().is_empty()) {
        return Err(Refusal::NoReason);
    }
    short("reason", force.unwrap_or_default())?;
    match change {
        Change::Join(node) => {
            short("zone", &node.zone)?;
            short("region", &node.region)?;
            [&node.grpc, &node.http, &node.trunk]
                .into_iter()
                .try_for_each(|address| short("address", address))
        }
        Change::Override(o) => short("owner", &o.owner),
        Change::Move { owner, .. } => short("owner", owner),
        _ => Ok(()),
    }
}

fn join(next: &mut ClusterMap, node: &Node) -> Result<Scope, Refusal> {
    light(node.weight)?;
    if next.nodes.contains_key(&node.id) {
        known(next, node.id)?;
        // Whoever holds nothing that counts may come again, under a fresh replica id: it may have lost its disk.
        let watcher = next.steering.watchers.get(&node.id).copied();
        if next.seats_on(node.id).any(|seat| Some(seat.1) != watcher) || next.steering.moves_of(node.id) > 0 {
            return Err(Refusal::Taken(node.id));
        }
    } else if next.nodes.len() >= NODES_MAX {
        return Err(Refusal::TooMany("nodes"));
    }
    next.nodes.insert(node.id, node.clone());
    next.steering.standings.remove(&node.id);
    let replica = next.next_replica();
    next.steering.watchers.insert(node.id, replica);
    Ok(Scope::All)
}

fn stand(next: &mut ClusterMap, node: NodeId, standing: Standing) -> Result<Scope, Refusal> {
    known(next, node)?;
    next.steering.standings.insert(node, standing);
    someone_left(next, node)?;
    Ok(Scope::All)
}

fn someone_left(next: &ClusterMap, node: NodeId) -> Result<(), Refusal> {
    match next.nodes.keys().any(|other| next.share(*other) > 0) {
        true => Ok(()),
        false => Err(Refusal::Last(node)),
    }
}

fn enough_left(next: &ClusterMap, rules: Rules, scope: Scope) -> Result<Scope, (Refusal, Scope)> {
    let left = next.nodes.keys().filter(|node| next.share(**node) > 0).count();
    let most = next.placement.values().map(|placement| placement.replicas.len()).max();
    let wanted = rules.replicas.min(most.unwrap_or(0));
    if left < wanted {
        return Err((Refusal::TooFew { left, wanted }, scope));
    }
    Ok(scope)
}

fn add_override(next: &mut ClusterMap, o: Override) -> Result<Scope, Refusal> {
    let shard = o.shard;
    if shard == ShardId::META || shard.0 > next.shards {
        return Err(Refusal::UnknownShard(shard));
    }
    let node = o.wish.node();
    known(next, node)?;
    if !matches!(o.wish, Wish::Exclude(_)) && next.share(node) == 0 {
        return Err(Refusal::TakesNone(node));
    }
    next.steering
        .overrides
        .retain(|other| other.shard != shard || other.wish.node() != node);
    if let Wish::PreferLeader(_) = o.wish {
        let leads = |other: &Override| matches!(other.wish, Wish::PreferLeader(_));
        next.steering
            .overrides
            .retain(|other| other.shard != shard || !leads(other));
    }
    if next.steering.overrides.len() >= OVERRIDES_MAX {
        return Err(Refusal::TooMany("overrides"));
    }
    next.steering.overrides.push(o);
    Ok(Scope::One(shard))
}

/// An operator's move: a pin and an exclusion, so that a later rebalance leaves it alone until they expire.
fn move_one(
    next: &mut ClusterMap,
    (shard, from, to): (ShardId, NodeId, NodeId),
    owner: &str,
    now_ms: u64,
) -> Result<Scope, (Refusal, Scope)> {
    let hard = |refusal| (refusal, Scope::Nothing);
    if next.replica_on(shard, from).is_none() {
        return Err(hard(Refusal::NotThere(shard, from)));
    }
    if next.replica_on(shard, to).is_some() {
        return Err(hard(Refusal::There(shard, to)));
    }
    if next.steering.moves.contains_key(&shard) {
        return Err(hard(Refusal::UnderWay(shard)));
    }
    if next.is_sealed(shard) {
        return Err(hard(Refusal::Sealed(shard)));
    }
    let zone = |node: NodeId| next.nodes.get(&node).map_or(String::new(), |known| known.zone.clone());
    let others: Vec<NodeId> = next
        .replicas_of(shard)
        .iter()
        .map(|r| r.0)
        .filter(|n| *n != from)
        .collect();
    let clash = others
        .iter()
        .find(|other| zone(**other) == zone(to))
        .map(|other| zone(*other));
    let same_before = others.iter().any(|other| zone(*other) == zone(from));
    for wish in [Wish::Exclude(from), Wish::Pin(to)] {
        let (owner, until_ms) = (owner.to_owned(), now_ms + MOVED_FOR_MS);
        add_override(
            next,
            Override {
                shard,
                wish,
                owner,
                until_ms,
            },
        )
        .map_err(hard)?;
    }
    let nodes = next
        .replicas_of(shard)
        .iter()
        .map(|r| if r.0 == from { to } else { r.0 });
    let nodes = nodes.collect();
    next.steering.goal.insert(shard, nodes);
    match clash {
        Some(zone) if !same_before => Err((Refusal::SameZone(shard, zone), Scope::Set)),
        _ => Ok(Scope::Set),
    }
}

fn cancel(next: &mut ClusterMap, shard: Option<ShardId>) -> Result<Scope, Refusal> {
    let meant = |other: &ShardId| shard.is_none_or(|shard| shard == *other);
    let mut any = false;
    next.steering.goal.retain(|other, _| {
        any |= meant(other);
        !meant(other)
    });
    for (_, one) in next.steering.moves.iter_mut().filter(|(other, _)| meant(other)) {
        any |= one.step < Step::Removed && !one.back;
        one.back |= one.step < Step::Removed;
    }
    if any {
        Ok(Scope::Nothing)
    } else {
        Err(Refusal::NothingToCancel)
    }
}

/// Renews goals; tells which overrides were left out.
fn set_goals(next: &mut ClusterMap, rules: Rules, now_ms: u64, scope: Scope) -> Vec<String> {
    let (mut goals, void) = wanted(next, rules, now_ms);
    match scope {
        Scope::All => drop(goals.insert(ShardId::META, meta_wanted(next))),
        Scope::One(shard) => goals.retain(|other, _| *other == shard),
        Scope::Set | Scope::Nothing => goals.clear(),
    }
    for (shard, nodes) in goals {
        if !next.is_sealed(shard) {
            set_goal(next, shard, nodes);
        }
    }
    void
}

/// Computes one shard's goal anew: what it was made for has changed meanwhile.
pub(crate) fn renew_goal(next: &mut ClusterMap, shard: ShardId, rules: Rules, now_ms: u64) {
    let nodes = match shard {
        ShardId::META => Some(meta_wanted(next)),
        _ => wanted(next, rules, now_ms).0.remove(&shard),
    };
    if let Some(nodes) = nodes {
        set_goal(next, shard, nodes);
    }
}

fn set_goal(next: &mut ClusterMap, shard: ShardId, nodes: Vec<NodeId>) {
    if let Some(one) = next.steering.moves.get_mut(&shard) {
        // What the new goal doesn't want turns back while that is free.
        let unwanted =
            one.to.is_some_and(|to| !nodes.contains(&to.0)) || one.from.is_some_and(|from| nodes.contains(&from.0));
        one.back |= unwanted && one.step < Step::Joint;
    }
    let Some(placement) = next.placement.get_mut(&shard) else {
        return;
    };
    let has: BTreeSet<NodeId> = placement.replicas.iter().map(|replica| replica.0).collect();
    if has == nodes.iter().copied().collect() && !next.steering.moves.contains_key(&shard) {
        // The order is a wish about leaders: it holds at once.
        placement
            .replicas
            .sort_by_key(|replica| nodes.iter().position(|node| *node == replica.0));
        next.steering.goal.remove(&shard);
    } else {
        next.steering.goal.insert(shard, nodes);
    }
}

/// Who should keep the map, best first, where there are more than are needed.
pub(crate) fn meta_order(map: &ClusterMap) -> Vec<NodeId> {
    let active = map.nodes.keys().filter(|node| map.standing(**node) == Standing::Active);
    rank("meta", active.map(|node| (*node, 1)))
}

/// The nodes that should keep the map: those that do and may stay, grown to an odd number in distinct zones.
pub(crate) fn meta_wanted(map: &ClusterMap) -> Vec<NodeId> {
    let voters: Vec<NodeId> = map.replicas_of(ShardId::META).iter().map(|replica| replica.0).collect();
    let is = |node: &NodeId, standing| map.standing(*node) == standing;
    let active: Vec<NodeId> = map
        .nodes
        .keys()
        .copied()
        .filter(|node| is(node, Standing::Active))
        .collect();
    let mut keep: Vec<NodeId> = voters
        .iter()
        .copied()
        .filter(|node| is(node, Standing::Active))
        .collect();
    let odd = (active.len().min(META_VOTERS).div_ceil(2) * 2).saturating_sub(1);
    let zone = |node: &NodeId| map.nodes.get(node).map(|known| known.zone.clone());
    let mut order = meta_order(map);
    order.retain(|node| map.steering.watchers.contains_key(node));
    for distinct in [true, false] {
        for node in &order {
            let near = distinct && keep.iter().any(|other| zone(other) == zone(node));
            if keep.len() < odd && !keep.contains(node) && !near {
                keep.push(*node);
            }
        }
    }
    let draining = voters.iter().filter(|node| is(node, Standing::Draining));
    let missing = voters.len().min(3).saturating_sub(keep.len());
    keep.extend(draining.take(missing));
    keep
}

/// What must still be begun so that the goals are reached, shard by shard.
#[must_use]
pub fn open_moves(map: &ClusterMap) -> Vec<PlannedMove> {
    let shards: Vec<ShardId> = map.steering.goal.keys().copied().collect();
    let of = |shard: ShardId| {
        pairs(map, shard).into_iter().map(move |(from, to)| PlannedMove {
            shard,
            from,
            to,
            reason: reason(map, shard, from, to),
        })
    };
    shards.into_iter().flat_map(of).collect()
}

/// Which replicas go and which nodes take them, most pressing first.
pub(crate) fn pairs(map: &ClusterMap, shard: ShardId) -> Vec<(Option<NodeId>, Option<NodeId>)> {
    let Some(goal) = map.steering.goal.get(&shard) else {
        return Vec::new();
    };
    let has: BTreeMap<NodeId, Standing> = map
        .replicas_of(shard)
        .iter()
        .map(|replica| (replica.0, map.standing(replica.0)))
        .collect();
    let adds = goal.iter().copied().filter(|node| !has.contains_key(node));
    let mut goes: Vec<NodeId> = has.keys().copied().filter(|node| !goal.contains(node)).collect();
    goes.sort_by_key(|node| std::cmp::Reverse(has.get(node).copied()));
    let adds: Vec<NodeId> = adds.collect();
    (0..adds.len().max(goes.len()))
        .map(|i| (goes.get(i).copied(), adds.get(i).copied()))
        .collect()
}

/// Why a replica moves.
pub(crate) fn reason(map: &ClusterMap, shard: ShardId, from: Option<NodeId>, to: Option<NodeId>) -> String {
    let pinned = map.steering.overrides.iter().find(|o| {
        let node = o.wish.node();
        o.shard == shard && (matches!(o.wish, Wish::Pin(_)) && Some(node) == to || Some(node) == from)
    });
    let standing = from
        .map(|node| (node, map.standing(node)))
        .filter(|(_, s)| *s != Standing::Active);
    match (standing, pinned) {
        (Some((node, standing)), _) => format!("node {} is {}", node.0, standing.word()),
        (None, Some(o)) => format!("{} by {}", o.wish.word(), o.owner),
        (None, None) => map.steering.reason.clone(),
    }
}
