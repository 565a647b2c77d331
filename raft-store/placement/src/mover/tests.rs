//! Moves in a world of values: random changes, and deaths between any two steps.
//!
//! The world is the least that matters: nodes that open and close what the map tells them, late; groups that change their
//! members, sometimes only half, sometimes until another leads; movers that decide on what they saw a while ago. After
//! every event the three rules are checked; at the end everybody is woken, nothing fails any more, and the map must come
//! true.
//!
//! `RUSHROOM_SEEDS=<n>` runs more. A seed that fails is run alone by `RUSHROOM_SEED=<n> cargo test -p placement mover`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod tables;

use super::*;
use crate::{Change, Node, Override, Placement, Step, Wish, place, place::wanted, plan};

const SEEDS: u64 = 250;

/// splitmix64: enough to mix events.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.roll(of.len() as u64) as usize])
    }
}

#[derive(Clone)]
struct Group {
    facts: GroupFacts,
    homes: BTreeMap<ReplicaId, NodeId>,
    /// Rises with each change of members: what work is bound to.
    changes: u64,
    /// Its members before a change that isn't committed.
    before: Option<GroupFacts>,
}

struct Host {
    up: bool,
    knows: u64,
    /// Replicas that it can't open any more.
    hurt: BTreeSet<ReplicaId>,
    seats: BTreeMap<ShardId, ReplicaId>,
}

impl Host {
    /// Up, with nothing on its disk.
    fn new() -> Host {
        Host {
            up: true,
            knows: 0,
            hurt: BTreeSet::new(),
            seats: BTreeMap::new(),
        }
    }
}

struct World {
    dice: Dice,
    map: ClusterMap,
    hosts: BTreeMap<NodeId, Host>,
    groups: BTreeMap<ShardId, Group>,
    limits: Limits,
    /// Where each replica id was ever opened, and those that were thrown away.
    opened: BTreeMap<ReplicaId, NodeId>,
    buried: BTreeSet<ReplicaId>,
    /// Of those, the ones that damage took.
    damaged: BTreeSet<ReplicaId>,
    /// What movers saw and when: decisions may come from old looks.
    looks: Vec<(ClusterMap, Facts, BTreeMap<ShardId, u64>)>,
    now_ms: u64,
}

fn node(id: u64) -> Node {
    let text = String::new;
    let zone = ["a", "b", "c"][id as usize % 3].to_owned();
    Node {
        id: NodeId(id),
        zone,
        region: text(),
        weight: 1,
        grpc: text(),
        http: text(),
        trunk: text(),
    }
}

impl World {
    fn new(seed: u64) -> World {
        let nodes: BTreeMap<NodeId, Node> = (1..=3).map(|id| (NodeId(id), node(id))).collect();
        let replicas = (1..=3).map(|id| (NodeId(id), ReplicaId(id))).collect();
        let bare = ClusterMap {
            shards: 6,
            nodes,
            placement: BTreeMap::from([(ShardId::META, Placement { replicas })]),
            replica_ids: 3,
            ..ClusterMap::default()
        };
        let map = place(&bare, Rules::default());
        let mut world = World {
            dice: Dice(seed),
            hosts: map.nodes.keys().map(|id| (*id, Host::new())).collect(),
            groups: map.placement.iter().map(|(shard, p)| (*shard, Group::of(p))).collect(),
            map,
            limits: Limits::default(),
            opened: BTreeMap::new(),
            buried: BTreeSet::new(),
            damaged: BTreeSet::new(),
            looks: Vec::new(),
            now_ms: 1_000_000,
        };
        world.adopt_all();
        world
    }

    /// Node 4 is let in, and comes up.
    fn join_4(&mut self, force: Option<&str>) {
        let join = Change::Join(node(4));
        self.map = plan(&self.map, &join, Rules::default(), 0, force).unwrap().map;
        self.hosts.insert(NodeId(4), Host::new());
    }

    /// Every host takes in the stored map.
    fn adopt_all(&mut self) {
        let hosts: Vec<NodeId> = self.hosts.keys().copied().collect();
        hosts.into_iter().for_each(|id| self.adopt(id));
    }

    /// Every replica has all that its leader has.
    fn catch_up(&mut self) {
        let lags = self.groups.values_mut().flat_map(|g| g.facts.lag.values_mut());
        lags.for_each(|lag| *lag = 0);
    }

    /// A host takes in the stored map: throws away what it no longer has, opens what it has.
    fn adopt(&mut self, id: NodeId) {
        let host = self.hosts.get_mut(&id).unwrap();
        if !host.up {
            return;
        }
        host.knows = self.map.steering.version;
        let wants: BTreeMap<ShardId, ReplicaId> = self.map.seats_on(id).collect();
        for (shard, replica) in std::mem::take(&mut host.seats) {
            if wants.get(&shard) == Some(&replica) {
                host.seats.insert(shard, replica);
            } else {
                self.buried.insert(replica);
            }
        }
        for (shard, replica) in wants {
            if host.hurt.contains(&replica) {
                continue;
            }
            if host.seats.insert(shard, replica).is_none() {
                assert!(
                    !self.buried.contains(&replica),
                    "{replica:?} was thrown away, and came back"
                );
                let first = *self.opened.entry(replica).or_insert(id);
                assert_eq!(first, id, "{replica:?} on two nodes");
            }
        }
    }

    fn has_majority(&self, shard: ShardId) -> bool {
        let group = &self.groups[&shard];
        let up = |r: &&ReplicaId| {
            group
                .homes
                .get(r)
                .and_then(|n| self.hosts.get(n))
                .is_some_and(|h| h.up && h.seats.get(&shard) == Some(*r))
        };
        group
            .facts
            .voters
            .iter()
            .all(|set| set.iter().filter(up).count() * 2 > set.len())
    }

    /// Every group with a majority has a leader among those who vote and are up.
    fn elect(&mut self) {
        for shard in self.groups.keys().copied().collect::<Vec<_>>() {
            let majority = self.has_majority(shard);
            let group = self.groups.get_mut(&shard).unwrap();
            let can: Vec<NodeId> = group
                .homes
                .iter()
                .filter(|(r, n)| {
                    group.facts.votes(**r) && self.hosts[n].up && self.hosts[n].seats.get(&shard) == Some(r)
                })
                .map(|(_, n)| *n)
                .collect();
            match majority {
                true if can.contains(&group.facts.leader) => {}
                true => {
                    // The next leader has heard of the last change, or hasn't.
                    if let Some(before) = group.before.take() {
                        if self.dice.roll(2) == 0 {
                            (group.facts, group.changes) = (before, group.changes + 1);
                        }
                        group.facts.pending = false;
                    }
                    let votes = |node: &NodeId| group.homes.iter().any(|(r, n)| n == node && group.facts.votes(*r));
                    let can: Vec<NodeId> = can.into_iter().filter(votes).collect();
                    group.facts.leader = self.dice.pick(&can).unwrap_or(NodeId(0));
                }
                false => group.facts.leader = NodeId(0),
            }
        }
    }

    fn look(&mut self) {
        self.elect();
        let led = self.groups.iter().filter(|(_, g)| g.facts.leader != NodeId(0));
        let groups = led.map(|(s, g)| (*s, g.facts.clone())).collect();
        let up = self.hosts.iter().filter(|(_, h)| h.up);
        let facts = Facts {
            now_ms: self.now_ms,
            silent_ms: self
                .hosts
                .iter()
                .map(|(n, h)| (*n, if h.up { 0 } else { 1_000 }))
                .collect(),
            knows: up.clone().map(|(n, h)| (*n, h.knows)).collect(),
            seats: up.map(|(n, h)| (*n, h.seats.clone())).collect(),
            groups,
        };
        let changes = self.groups.iter().map(|(s, g)| (*s, g.changes)).collect();
        self.looks.push((self.map.clone(), facts, changes));
        if self.looks.len() > 4 {
            self.looks.remove(0);
        }
    }

    /// A mover acts on one of the last looks, and may die after any of what it does.
    fn act(&mut self, newest: bool, dies: bool) {
        if self.looks.is_empty() {
            return;
        }
        let at = if newest {
            self.looks.len() - 1
        } else {
            self.dice.roll(self.looks.len() as u64) as usize
        };
        let (seen, facts, changes) = self.looks[at].clone();
        let decision = decide(&seen, &facts, &self.limits);
        if let Some(next) = decision.map {
            if self.map.steering.version != seen.steering.version {
                return;
            }
            self.check_load(&seen, &next, &facts);
            self.map = next;
        }
        for (shard, _, work) in decision.work {
            if dies && self.dice.roll(3) == 0 {
                return;
            }
            self.do_work(shard, work, changes[&shard], dies);
        }
        self.check();
    }

    fn do_work(&mut self, shard: ShardId, work: Work, bound_to: u64, dies: bool) {
        if !self.has_majority(shard) {
            return;
        }
        let half = dies && self.dice.roll(3) == 0;
        let group = self.groups.get_mut(&shard).unwrap();
        if let Work::HandOver(to) = work {
            let homes = group
                .homes
                .iter()
                .filter(|(r, n)| group.facts.votes(**r) && self.hosts[n].up && **n != group.facts.leader);
            let can: Vec<NodeId> = homes.map(|(_, n)| *n).collect();
            if let Some(to) = to.filter(|to| can.contains(to)).or_else(|| self.dice.pick(&can)) {
                group.facts.leader = to;
            }
            return;
        }
        if group.changes != bound_to || group.facts.pending {
            return;
        }
        group.changes += 1;
        let before = group.facts.clone();
        let facts = &mut group.facts;
        let mut then = facts.voters.last().unwrap().clone();
        match work {
            Work::AddLearner(replica, home) => {
                facts.learners.insert(replica);
                facts.lag.insert(replica, 500);
                group.homes.insert(replica, home);
            }
            Work::Promote(replica) => {
                assert!(facts.learners.remove(&replica), "{replica:?} is no learner");
                then.insert(replica);
            }
            Work::Remove { replica, keep } => {
                facts.learners.remove(&replica);
                then.remove(&replica);
                if keep {
                    facts.learners.insert(replica);
                    facts.lag.insert(replica, 0);
                }
            }
            Work::Settle | Work::HandOver(_) => facts.voters.drain(..facts.voters.len() - 1).for_each(drop),
        }
        if then != *facts.voters.last().unwrap() {
            facts.voters = if half {
                vec![facts.voters[0].clone(), then]
            } else {
                vec![then]
            };
        }
        if dies && self.dice.roll(3) == 0 {
            group.before = Some(before);
            group.facts.pending = true;
        }
    }

    /// What is on its way to a majority arrives there.
    fn commit(&mut self) {
        for group in self.groups.values_mut() {
            group.before = None;
            group.facts.pending = false;
        }
    }

    fn operator(&mut self) {
        let nodes: Vec<NodeId> = self.map.nodes.keys().copied().collect();
        let shards: Vec<ShardId> = (1..=self.map.shards).map(ShardId).collect();
        let (one, shard) = (self.dice.pick(&nodes).unwrap(), self.dice.pick(&shards).unwrap());
        let other = self.dice.pick(&nodes).unwrap();
        let owner = String::from("test");
        let until_ms = self.now_ms + self.dice.roll(100_000);
        let wish = [Wish::Pin(one), Wish::Exclude(one), Wish::PreferLeader(one)][self.dice.roll(3) as usize];
        let change = match self.dice.roll(12) {
            0 if nodes.len() < 9 => Change::Join(node(nodes.len() as u64 + 1)),
            1 => Change::Drain(one),
            2 => Change::Resume(one),
            3 => Change::Weight(one, 1 + self.dice.roll(3) as u32),
            4 => Change::Decommission(one),
            5 => Change::Lose(one),
            6 => Change::Override(Override {
                shard,
                wish,
                owner,
                until_ms,
            }),
            7 => Change::Move {
                shard,
                from: one,
                to: other,
                owner,
            },
            8 => Change::Cancel((self.dice.roll(2) == 0).then_some(shard)),
            9 => Change::Pause,
            10 => Change::Go,
            _ => Change::Rebalance,
        };
        if let Ok(plan) = plan(&self.map, &change, Rules::default(), self.now_ms, None) {
            self.map = plan.map;
            for id in self.map.nodes.keys() {
                self.hosts.entry(*id).or_insert_with(Host::new);
            }
        }
    }

    /// What must hold at every moment.
    fn check(&self) {
        let mut ids = BTreeSet::new();
        for (shard, placement) in &self.map.placement {
            for (node, replica) in &placement.replicas {
                assert!(
                    ids.insert(replica) && replica.0 <= self.map.replica_ids,
                    "{shard:?} {node:?} {replica:?}"
                );
            }
        }
        for (shard, group) in &self.groups {
            let before = group.before.iter().flat_map(|before| &before.voters);
            for voters in group.facts.voters.iter().chain(before) {
                let kept = voters.iter().filter(|r| !self.buried.contains(r)).count();
                assert!(
                    kept * 2 > voters.len(),
                    "{shard:?}: {voters:?} of which {kept} still have their disks"
                );
                let gone = |r: &&ReplicaId| self.buried.contains(r) && !self.damaged.contains(r);
                let gone = voters.iter().find(gone);
                assert_eq!(gone, None, "{shard:?}: thrown away, and it may still vote");
            }
        }
    }

    /// No decision loads a node with more moves than it may have. (A dead node's aren't bounded, and it may come back with
    /// them.)
    fn check_load(&self, seen: &ClusterMap, next: &ClusterMap, facts: &Facts) {
        for node in next.nodes.keys().filter(|node| facts.alive(**node)) {
            let (before, busy) = (seen.steering.moves_of(*node), next.steering.moves_of(*node));
            assert!(busy <= self.limits.per_node.max(before), "{busy} moves of {node:?}");
        }
    }

    /// Damage takes a replica, if the others are whole: it comes up without it.
    fn damage(&mut self, id: NodeId) {
        let seats = self.hosts[&id].seats.clone();
        let Some((shard, replica)) = seats.into_iter().find(|(shard, _)| *shard != ShardId::META) else {
            return;
        };
        let group = &self.groups[&shard];
        let whole = |r: &ReplicaId| {
            group
                .homes
                .get(r)
                .is_some_and(|n| self.hosts[n].seats.get(&shard) == Some(r))
        };
        let voters = group.facts.voters.iter().flatten().collect::<BTreeSet<_>>();
        let gains = |one: &crate::Move| one.to.is_some();
        // Of two voters none may be hurt.
        let bears = group.facts.voters.iter().all(|set| set.len() > 2);
        if bears && voters.into_iter().all(whole) && !self.map.steering.moves.get(&shard).is_some_and(gains) {
            let host = self.hosts.get_mut(&id).unwrap();
            host.seats.remove(&shard);
            host.hurt.insert(replica);
            self.buried.insert(replica);
            self.damaged.insert(replica);
        }
    }

    /// Replicas that no group names any more.
    fn replaced(&self) -> BTreeSet<ReplicaId> {
        let named = |r: &&ReplicaId| !self.groups.values().any(|group| group.facts.is_member(**r));
        self.opened.keys().filter(named).copied().collect()
    }

    fn event(&mut self) {
        self.now_ms += 100;
        let hosts: Vec<NodeId> = self.hosts.keys().copied().collect();
        let one = self.dice.pick(&hosts).unwrap();
        match self.dice.roll(40) {
            // Rare: two such in one group at once is more than a majority can bear.
            38 | 39 => {
                if self.hosts.values().all(|host| host.hurt.is_subset(&self.replaced())) {
                    self.damage(one);
                }
            }
            0 | 20 => self.operator(),
            1 | 21 => {
                let host = self.hosts.get_mut(&one).unwrap();
                host.up = !host.up;
            }
            2..=6 | 22..=26 => self.adopt(one),
            7..=9 | 27..=29 => {
                for group in self.groups.values_mut() {
                    group.facts.lag.values_mut().for_each(|lag| *lag /= 4);
                }
                if self.dice.roll(2) == 0 {
                    self.commit();
                }
            }
            10..=13 | 30..=33 => self.look(),
            _ => self.act(false, true),
        }
        self.check();
    }

    /// Everybody is up, nothing fails: the map comes true.
    fn settle(&mut self) {
        self.hosts.values_mut().for_each(|host| host.up = true);
        for change in [Change::Go, Change::Rebalance] {
            self.map = plan(&self.map, &change, Rules::default(), self.now_ms, None)
                .unwrap()
                .map;
        }
        for _ in 0..2_000 {
            self.adopt_all();
            self.catch_up();
            self.commit();
            self.look();
            let quiet = {
                let look = self.looks.last().unwrap();
                decide(&look.0, &look.1, &self.limits) == Decision::default()
            };
            if quiet {
                return;
            }
            self.act(true, false);
        }
        let look = self.looks.last().unwrap();
        let left = decide(&look.0, &look.1, &self.limits);
        panic!(
            "never settles: {:?} {:?}\n{:#?}",
            left.work, left.waits, self.map.steering
        );
    }
}

impl Group {
    fn of(placement: &Placement) -> Group {
        let facts = GroupFacts {
            leader: placement.replicas[0].0,
            voters: vec![placement.replicas.iter().map(|r| r.1).collect()],
            ..GroupFacts::default()
        };
        let homes = placement.replicas.iter().map(|r| (r.1, r.0)).collect();
        Group {
            facts,
            homes,
            changes: 0,
            before: None,
        }
    }
}

/// Runs one seed; tells how many moves of which kind ended: all, taken back, of hurt replicas.
fn run(seed: u64) -> [usize; 3] {
    let mut world = World::new(seed);
    for _ in 0..400 {
        world.event();
    }
    world.settle();
    let map = &world.map;
    assert!(
        map.steering.goal.is_empty() && map.steering.moves.is_empty(),
        "{:#?}",
        map.steering
    );
    let set = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<_>>();
    for (shard, nodes) in wanted(map, Rules::default(), world.now_ms).0 {
        let has: Vec<NodeId> = map.replicas_of(shard).iter().map(|r| r.0).collect();
        assert_eq!(set(&has), set(&nodes), "{shard:?}");
    }
    for (shard, group) in &world.groups {
        let ids: BTreeSet<ReplicaId> = map.replicas_of(*shard).iter().map(|r| r.1).collect();
        assert_eq!(group.facts.voters, [ids], "{shard:?}");
        let watchers: BTreeSet<ReplicaId> = map.steering.watchers.values().copied().collect();
        let follows = if *shard == ShardId::META {
            watchers
        } else {
            BTreeSet::new()
        };
        assert_eq!(group.facts.learners, follows, "{shard:?}");
    }
    for (id, host) in &world.hosts {
        assert_eq!(host.seats, map.seats_on(*id).collect(), "{id:?}");
        assert!(map.standing(*id) == Standing::Active || !world.groups.values().any(|g| g.facts.leader == *id));
    }
    let ended = |of: &dyn Fn(&crate::Move) -> bool| map.steering.ended.iter().filter(|e| of(&e.what)).count();
    [
        ended(&|_| true),
        ended(&|one| one.back),
        ended(&|one| one.reason == "its replica is hurt"),
    ]
}

#[test]
fn whoever_dies_moves_end_and_nothing_is_lost() {
    let replay = std::env::var("RUSHROOM_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = std::env::var("RUSHROOM_SEEDS")
        .ok()
        .map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let mut ended = [0; 3];
    for seed in replay.map_or(0..seeds, |seed| seed..seed + 1) {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(more) => ended = [ended[0] + more[0], ended[1] + more[1], ended[2] + more[2]],
            Err(why) => {
                eprintln!("replay: RUSHROOM_SEED={seed} cargo test -p placement mover");
                std::panic::resume_unwind(why);
            }
        }
    }
    assert!(
        replay.is_some() || ended.iter().all(|n| *n > 0),
        "a kind of move never came: {ended:?}"
    );
    eprintln!("moves that ended, were taken back, replaced hurt replicas: {ended:?}");
}
