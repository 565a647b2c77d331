//! The promises, checked after (and some during) a schedule. Names are those of the reference model.

use super::{
    Applied, AuctionId, Command, Dice, Entry, EventKind, Kind, Known, LATENCY, Shard, Stamp, World, body_hash, born,
    together,
};
use crate::clock::pending::key_of;
use auction::{Hold, Outcome, Phase, Stamped};
use std::collections::{BTreeMap, VecDeque};

impl World {
    /// Was a bid refused as late although its judge, or the office before within the grace, had it in time? Asked of
    /// node `i`, which just said `closed`.
    pub(super) fn check_told_late(&mut self, i: usize, command: &Command) {
        let bids = matches!(
            command.action,
            auction::Action::Bid { .. } | auction::Action::MaxBid { .. }
        );
        let (Some(key), true) = (key_of(command), bids) else {
            return;
        };
        let node = &self.nodes[i];
        let office = node.office.as_ref().unwrap();
        let Some(close) = node
            .shard
            .events(&command.auction, 0, usize::MAX)
            .and_then(|events| events.last())
        else {
            return;
        };
        if matches!(
            close.kind,
            EventKind::Close {
                outcome: Outcome::Cancelled
            }
        ) {
            return;
        }
        let body = body_hash(&command.action);
        let in_time = |given: &&super::Given| given.stamp < close.ct && given.body == body;
        let Some(given) = self.given.get(&key).and_then(|all| all.iter().find(in_time)) else {
            return;
        };
        let (mine, last) = (node.office_no, self.office_now.unwrap());
        let text = format!(
            "{command:?} stamped {:?} in {:?}, closed at {:?}",
            given.stamp, self.offices[given.office].id, close.ct
        );
        if given.office == mine {
            self.bad("in_time", text);
        } else if office.in_grace(self.mono(i)) && mine == last && given.office + 1 == last {
            self.bad("interregnum", text);
        }
    }

    /// What the outage before this office ate, and gave back.
    pub(super) fn check_outage(&mut self, before: Option<usize>, base: Stamp) {
        let Some(outage) = self.outages.iter().rev().find(|outage| Some(outage.office) == before) else {
            return;
        };
        let clock = self.options.clock;
        let (length, eaten) = (self.t - outage.since, base.0.saturating_sub(outage.reading));
        let given = (length + clock.grace_ms + outage.reading).saturating_sub(base.0);
        if eaten > clock.hold_ms {
            self.bad("eaten", format!("a new office: {eaten}"));
        }
        if given > length + clock.hold_ms + clock.grace_ms {
            self.bad("given", format!("an outage of {length} gave back {given}"));
        }
    }

    pub(super) fn check(mut self) -> Vec<(&'static str, String)> {
        for i in 0..3 {
            // What a replica that doesn't lead any more applies is told to nobody.
            self.nodes[i].office = None;
            self.advance(i);
        }
        let digests: Vec<_> = self.nodes.iter().map(|node| node.shard.digest()).collect();
        if digests.iter().any(|digest| *digest != digests[0]) {
            self.bad("agree", "digests differ".into());
        }
        let shard = self.nodes[0].shard.clone();
        if shard.clamped() > 0 {
            self.bad("monotone", format!("{} clamped", shard.clamped()));
        }
        let clock = self.effective();
        for pair in clock.windows(2) {
            if pair[1].1 < pair[0].1 || pair[1].1 - pair[0].1 > pair[1].0 - pair[0].0 {
                self.bad("fast", format!("effective {:?} -> {:?}", pair[0], pair[1]));
                break;
            }
        }
        self.check_repack(&shard);
        self.check_once(&shard);
        self.check_ends(&shard);
        self.check_late(&shard, &clock);
        self.check_declared(&shard, &clock);
        self.bad
    }

    fn check_once(&mut self, shard: &Shard) {
        for ((key, body), said) in std::mem::take(&mut self.told) {
            let known = shard.known(&key.auction, &key.actor, &key.id, body);
            let did = matches!(&known, Some(Known::Verdict(verdict)) if verdict.outcome.is_ok());
            if said.iter().any(|outcome| outcome.is_ok() != did) {
                self.bad("once", format!("{key:?} was told {said:?}, the log says {known:?}"));
            }
        }
        for auction in &self.auctions.clone() {
            let events = shard.events(auction, 0, usize::MAX).unwrap();
            let mut acted: Vec<_> = events
                .iter()
                .filter_map(|e| Some((e.actor.clone()?, e.id.clone()?)))
                .collect();
            let count = acted.len();
            acted.sort();
            acted.dedup();
            if acted.len() < count {
                self.bad("once", format!("{auction}: a command acted twice"));
            }
            if events.windows(2).any(|pair| pair[1].ct < pair[0].ct) {
                self.bad("monotone", format!("{auction}: an event before the one before"));
            }
        }
    }

    fn check_ends(&mut self, shard: &Shard) {
        for view in shard.views() {
            if !matches!(view.phase, Phase::Closed(_)) {
                self.bad(
                    "hang",
                    format!(
                        "{} is {}, ends at {:?}, top {:?}",
                        view.id,
                        view.phase.word(),
                        view.ends_at,
                        shard.top()
                    ),
                );
            }
        }
        if self.open > 0 {
            self.bad("hang", format!("{} requests unanswered", self.open));
        }
    }

    fn check_late(&mut self, shard: &Shard, clock: &[(u64, u64)]) {
        if self.kind == Kind::Faults {
            return;
        }
        for (auction, (t, due)) in std::mem::take(&mut self.closes) {
            let cancelled = matches!(shard.view(&auction).unwrap().phase, Phase::Closed(Outcome::Cancelled));
            let late = when(clock, due.0).map_or(0, |reached| t.saturating_sub(reached));
            if late > 100 && !cancelled {
                self.bad("late", format!("{auction}: {late} ms after {due:?}"));
            }
        }
    }

    /// Declared holds of an auction against real minus stamp time over its life.
    fn check_declared(&mut self, shard: &Shard, clock: &[(u64, u64)]) {
        let options = self.options.clock;
        for auction in &self.auctions.clone() {
            let events = shard.events(auction, 0, usize::MAX).unwrap();
            let (Some(first), Some(last)) = (events.first(), events.last()) else {
                continue;
            };
            let began = self.live_at.get(auction).copied().unwrap_or(0);
            let t0 = began.max(when(clock, first.ct.0 + 1).unwrap_or(0));
            let Some(t1) = when(clock, last.ct.0).filter(|t1| *t1 > t0) else {
                continue;
            };
            let stood = (t1 - t0).saturating_sub(last.ct.since(first.ct));
            let told = |kind: &EventKind| if let EventKind::Held { dms } = kind { *dms } else { 0 };
            let declared: u64 = events.iter().map(|event| told(&event.kind)).sum();
            let over = |o: &&super::Past| t0 <= o.took + options.grace_ms && o.took <= t1;
            let changes = self.offices.iter().skip(1).filter(over).count() as u64;
            let slack = options.declare_ms
                + options.look_ms
                + LATENCY.1
                + changes * (options.declare_ms + 2 * LATENCY.1 + options.look_ms);
            if declared.abs_diff(stood) > slack {
                self.bad(
                    "declared",
                    format!("{auction}: declared {declared}, held {stood}, slack {slack}"),
                );
            }
        }
    }

    /// The shard's clock after the fact: (real, stamp), each office cut where the next one's base lies.
    fn effective(&self) -> Vec<(u64, u64)> {
        let mut clock = Vec::new();
        for (k, office) in self.offices.iter().enumerate() {
            let next = self
                .offices
                .get(k + 1)
                .map_or((u64::MAX, u64::MAX), |next| (next.took, next.base.0));
            clock.extend(
                office
                    .samples
                    .iter()
                    .take_while(|(t, now)| *now <= next.1 && *t <= next.0),
            );
        }
        clock
    }

    /// The same committed commands in other entries: other cuts, other interleaving, other beats; the same history.
    fn check_repack(&mut self, shard: &Shard) {
        for round in 0..2 {
            let other = self.repacked(shard.top(), &mut Dice(self.seed * 7 + round));
            for auction in &self.auctions.clone() {
                let pair = [shard, &other].map(|s| (s.view(auction), s.events(auction, 0, usize::MAX)));
                if pair[0] != pair[1] {
                    self.bad("repack", format!("{auction}: {:?}", pair.map(|(view, _)| view)));
                }
            }
        }
    }

    fn repacked(&self, top: Stamp, dice: &mut Dice) -> Shard {
        let (mut probe, _) = born(self.auctions.len(), self.seed, together(self.kind, self.seed));
        let mut lanes: BTreeMap<AuctionId, VecDeque<Stamped>> = BTreeMap::new();
        let mut holds: Vec<Hold> = Vec::new();
        for entry in &self.log {
            if let (Applied::Done(_), true) = (probe.apply(entry), entry.n > 0) {
                holds.extend(&entry.holds);
                for stamped in &entry.commands {
                    lanes
                        .entry(stamped.command.auction.clone())
                        .or_default()
                        .push_back(stamped.clone());
                }
            }
        }
        let (mut out, _) = born(self.auctions.len(), self.seed, together(self.kind, self.seed));
        let office = auction::Office { term: 1, turn: 0 };
        out.apply(&Entry {
            office,
            ..Entry::default()
        });
        let (mut at, mut last, mut n) = (Stamp(0), Stamp(0), 0);
        while at < top || lanes.values().any(|lane| !lane.is_empty()) {
            at = at.plus(dice.pick(&[0, 1, 3, 20, 150, 900])).min(top);
            n += 1;
            let mut entry = Entry {
                office,
                n,
                at,
                ..Entry::default()
            };
            entry.commands = draw(&mut lanes, at, dice);
            let oldest = |lane: &VecDeque<Stamped>| lane.front().map(|s| s.arrived).filter(|arrived| *arrived <= at);
            entry.behind = lanes
                .iter()
                .filter_map(|(id, lane)| Some((id.clone(), oldest(lane)?)))
                .collect();
            entry.holds = holds
                .iter()
                .filter(|hold| last <= hold.stamp && hold.stamp < at)
                .copied()
                .collect();
            out.apply(&entry);
            last = at;
        }
        out
    }
}

/// Some of the commands that arrived by `at`, in lane order, lanes mixed.
fn draw(lanes: &mut BTreeMap<AuctionId, VecDeque<Stamped>>, at: Stamp, dice: &mut Dice) -> Vec<Stamped> {
    let due = |lane: &VecDeque<Stamped>| lane.front().is_some_and(|stamped| stamped.arrived <= at);
    let mut ready: Vec<AuctionId> = lanes
        .iter()
        .filter(|(_, lane)| due(lane))
        .map(|(id, _)| id.clone())
        .collect();
    ready.retain(|_| dice.chance(70));
    let mut taken = Vec::new();
    while !ready.is_empty() {
        let k = dice.range(0, ready.len() as u64) as usize;
        let lane = lanes.get_mut(&ready[k]).unwrap();
        taken.extend(lane.pop_front());
        if !due(lane) || dice.chance(20) {
            ready.swap_remove(k);
        }
    }
    taken
}

/// The real time at which the clock first reached the stamp.
fn when(clock: &[(u64, u64)], stamp: u64) -> Option<u64> {
    let i = clock.partition_point(|(_, now)| *now < stamp);
    let (t, now) = *clock.get(i)?;
    let (_, before) = clock[i.saturating_sub(1)];
    Some(if now > before { t - (now - stamp) } else { t })
}
