//! Lanes: where commands wait between their stamp and the log.
//!
//! A command's fate is its stamp, so the stamp is given at the door, before any queue; and within one auction the order
//! of the queue must be the order of stamps, or a close would overtake a bid. So door (is there room?), stamp and place
//! are *one step*, under one lock: `Office::submit` calls `room`, reads the clock, and calls `push` without letting go.
//!
//! ```text
//!   auction a (hot)   [||||||||||||||||  <- bids        turns:  due lanes first, earliest due before all,
//!   auction b         [|                 <- pause               then one command a lane, round and round
//!   auction c (due)   [||                <- bid                       |
//!                                                              Entry { commands, behind: (lane, oldest waiting) }
//! ```
//!
//! **Room is the shard's, not the lane's.** A lane may hold as much as is *still free* of what the whole shard drains in
//! `lane_ms`, and at least one. With k hot lanes each gets 1/(k+1) of the room and the last share stays free: a newcomer
//! always finds a place. Bounds per lane alone let several hot lanes together hold many times what drains in time, and
//! a close waits behind all of it (338 ms in the model, with a promise of 100).
//!
//! **A due lane goes first** because only its own backlog can hold its close back; every other lane's bids are already
//! stamped and lose nothing by waiting.
//!
//! Deliberately absent: time, verdicts, senders. A lane knows tickets; `pending` knows who waits for them.

use auction::{AuctionId, Command, Stamp, Stamped};
use std::collections::{HashMap, VecDeque};

/// The bounds of a shard's queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// All that waits in a shard's lanes drains within this, ms.
    pub lane_ms: u64,
    /// Commands in flight (proposed, not yet applied). Beats don't count: they have room of their own.
    pub window: usize,
    /// Commands in one entry.
    pub entry_max: usize,
    /// Entries in flight before smaller ones wait to be filled: packs better under load, costs an idle shard nothing. One is best
    /// where processors are the limit (an entry costs three nodes more than ten bids in it do); more, where the way is long.
    pub pipeline: usize,
    /// Commands that wait in a shard, whatever drains: bounds memory where every command names another auction.
    pub depth_max: usize,
    /// Senders that may wait for the same command's verdict.
    pub joiners_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lane_ms: 40,
            window: 256,
            entry_max: 128,
            pipeline: 1,
            depth_max: 16_384,
            joiners_max: 32,
        }
    }
}

/// Names a command that waits or is in flight; `pending` tells who wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket(pub u64);

/// A stamped command in its lane.
#[derive(Debug)]
pub struct Waiting {
    /// What goes into the log.
    pub stamped: Stamped,
    /// Who waits for it; `None` for the leader's own commands.
    pub ticket: Option<Ticket>,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Waiting>,
    /// Newest stamp given in this lane in this office.
    newest: Stamp,
    /// Has a place among the turns (perhaps with an empty queue: it is dropped when its turn comes).
    has_turn: bool,
}

/// All lanes of a shard. See the module's narrative.
#[derive(Debug)]
pub struct Lanes {
    options: Options,
    lanes: HashMap<AuctionId, Lane>,
    turns: VecDeque<AuctionId>,
    waiting: usize,
}

impl Lanes {
    /// Empty lanes.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
        }
    }

    /// Commands that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Commands that wait for one auction.
    #[must_use]
    pub fn depth(&self, auction: &AuctionId) -> usize {
        self.lanes.get(auction).map_or(0, |lane| lane.queue.len())
    }

    /// The newest stamp that this office gave in an auction's lane.
    #[must_use]
    pub fn newest(&self, auction: &AuctionId) -> Stamp {
        self.lanes.get(auction).map_or(Stamp(0), |lane| lane.newest)
    }

    /// What the shard drains in `lane_ms` while a round trip takes `trip_ms`: as much may wait in all its lanes together, and
    /// as much may be on its way here from all edges together.
    #[must_use]
    pub fn drains(&self, trip_ms: u64) -> usize {
        let drains = self.options.window as u64 * self.options.lane_ms / trip_ms.max(1);
        usize::try_from(drains)
            .unwrap_or(usize::MAX)
            .clamp(2, self.options.depth_max.max(2))
    }

    /// Whether a lane has room for one more while a round trip takes `trip_ms`.
    #[must_use]
    pub fn room(&self, auction: &AuctionId, trip_ms: u64) -> bool {
        let drains = self.drains(trip_ms);
        let free = drains.saturating_sub(self.waiting).max(1);
        self.waiting < self.options.depth_max && self.depth(auction) < free
    }

    /// Puts a command at the end of its auction's lane. Stamps of a lane never fall.
    pub fn push(&mut self, arrived: Stamp, command: Command, ticket: Option<Ticket>) {
        let auction = command.auction.clone();
        let lane = self.lanes.entry(auction.clone()).or_default();
        debug_assert!(arrived >= lane.newest, "{arrived:?} after {:?}", lane.newest);
        lane.newest = lane.newest.max(arrived);
        lane.queue.push_back(Waiting {
            stamped: Stamped { arrived, command },
            ticket,
        });
        self.waiting += 1;
        if !lane.has_turn {
            lane.has_turn = true;
            self.turns.push_back(auction);
        }
    }

    /// At most `limit` commands in fair turns: first lanes of `due` (in that order, emptied in turns among themselves),
    /// then all others. `keep` holds on to the newest stamps of lanes that became empty (while an office is in its grace).
    pub fn take<'a>(&mut self, limit: usize, due: impl Iterator<Item = &'a AuctionId>, keep: bool) -> Vec<Waiting> {
        let mut taken = Vec::with_capacity(limit.min(self.waiting));
        if limit == 0 || self.waiting == 0 {
            return taken;
        }
        let mut first: Vec<&AuctionId> = due.filter(|id| self.depth(id) > 0).collect();
        while taken.len() < limit && !first.is_empty() {
            first.retain(|id| taken.len() >= limit || self.pop(id, &mut taken));
        }
        while taken.len() < limit {
            let Some(id) = self.turns.pop_front() else { break };
            self.pop(&id, &mut taken);
            self.end_turn(id, keep);
        }
        taken
    }

    /// Moves the oldest command of a lane over; false if there was none.
    fn pop(&mut self, id: &AuctionId, taken: &mut Vec<Waiting>) -> bool {
        #[cfg(feature = "sim")]
        if crate::sim::planted(crate::sim::Plant::LaneBackwards)
            && let Some(lane) = self.lanes.get_mut(id)
        {
            lane.queue.make_contiguous().reverse();
        }
        let Some(waiting) = self.lanes.get_mut(id).and_then(|lane| lane.queue.pop_front()) else {
            return false;
        };
        self.waiting -= 1;
        taken.push(waiting);
        true
    }

    fn end_turn(&mut self, id: AuctionId, keep: bool) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if !lane.queue.is_empty() {
            self.turns.push_back(id);
        } else if keep {
            lane.has_turn = false;
        } else {
            self.lanes.remove(&id);
        }
    }

    /// Forgets the newest stamps of empty lanes: from the end of the grace on they are all at most the reading.
    pub fn forget_empty(&mut self) {
        self.lanes.retain(|_, lane| lane.has_turn || !lane.queue.is_empty());
    }

    /// Lanes with a backlog and the oldest stamp in each.
    pub fn behind(&self) -> impl Iterator<Item = (&AuctionId, Stamp)> {
        self.turns.iter().filter_map(|id| {
            let oldest = self.lanes.get(id)?.queue.front()?;
            Some((id, oldest.stamped.arrived))
        })
    }

    /// Empties all lanes; what waited was certainly never proposed.
    pub fn drain(&mut self) -> Vec<Waiting> {
        self.turns.clear();
        self.waiting = 0;
        self.lanes.drain().flat_map(|(_, lane)| lane.queue).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use auction::{Action, Actor, Id, Rights};

    fn command(auction: &str) -> Command {
        let actor = Actor {
            id: Id::parse("ann").unwrap(),
            rights: Rights::BIDDER,
        };
        Command {
            auction: Id::parse(auction).unwrap(),
            actor,
            id: None,
            first_sent: None,
            action: Action::Bid { amount: 1 },
        }
    }

    /// Lanes filled in order of the text: `"aab"` is two for `a`, then one for `b`, stamped 1, 2, 3.
    fn filled(text: &str) -> Lanes {
        let mut lanes = Lanes::new(Options::default());
        for (k, c) in text.chars().enumerate() {
            lanes.push(Stamp(k as u64 + 1), command(&c.to_string()), None);
        }
        lanes
    }

    fn take(lanes: &mut Lanes, limit: usize, due: &str) -> String {
        let due: Vec<_> = due.chars().map(|c| Id::parse(&c.to_string()).unwrap()).collect();
        lanes
            .take(limit, due.iter(), false)
            .iter()
            .map(|w| w.stamped.command.auction.to_string())
            .collect()
    }

    #[test]
    fn turns_are_fair_and_due_lanes_go_first() {
        for (waiting, limit, due, taken) in [
            ("aaaab", 3, "", "aba"),
            ("aaaabbc", 9, "", "abcabaa"),
            ("aaaabbc", 3, "c", "cab"),
            ("aaaabbc", 4, "cb", "cbba"),
            ("aab", 9, "x", "aba"),
            ("", 9, "", ""),
            ("aab", 0, "a", ""),
        ] {
            assert_eq!(take(&mut filled(waiting), limit, due), taken, "{waiting} {limit} {due}");
        }
    }

    #[test]
    fn a_lane_emptied_out_of_turn_keeps_one_turn_only() {
        let mut lanes = filled("ab");
        assert_eq!(take(&mut lanes, 1, "b"), "b");
        lanes.push(Stamp(9), command("b"), None);
        lanes.push(Stamp(9), command("b"), None);
        assert_eq!(take(&mut lanes, 9, ""), "abb");
        assert_eq!((lanes.waiting(), lanes.lanes.len(), lanes.turns.len()), (0, 0, 0));
    }

    #[test]
    fn behind_names_the_oldest_that_waits() {
        let mut lanes = filled("abab");
        assert_eq!(take(&mut lanes, 1, ""), "a");
        let mut behind: Vec<_> = lanes.behind().map(|(id, at)| (id.to_string(), at.0)).collect();
        behind.sort();
        assert_eq!(behind, [("a".to_string(), 3), ("b".to_string(), 2)]);
    }

    #[test]
    fn hot_lanes_share_and_a_newcomer_finds_room() {
        // 32 in flight a round trip of 25 ms: 51 drain in 40 ms.
        let options = Options {
            window: 32,
            ..Options::default()
        };
        for hot in 1..=4_usize {
            let mut lanes = Lanes::new(options);
            let names: Vec<_> = (0..hot).map(|k| format!("hot{k}")).collect();
            for _ in 0..100 {
                for name in &names {
                    if lanes.room(&Id::parse(name).unwrap(), 25) {
                        lanes.push(Stamp(0), command(name), None);
                    }
                }
            }
            let share = 51 / (hot + 1);
            for name in &names {
                let depth = lanes.depth(&Id::parse(name).unwrap());
                assert!(
                    depth.abs_diff(share) <= 2,
                    "{hot} hot lanes: {depth}, a fair share is {share}"
                );
            }
            assert!(lanes.room(&Id::parse("new").unwrap(), 25));
            assert!(lanes.waiting() <= 51);
        }
    }

    #[test]
    fn depth_is_bounded_whatever_drains() {
        let mut lanes = Lanes::new(Options {
            depth_max: 10,
            ..Options::default()
        });
        let admitted = (0..100).filter(|k| {
            let name = format!("a{k}");
            let room = lanes.room(&Id::parse(&name).unwrap(), 1);
            if room {
                lanes.push(Stamp(0), command(&name), None);
            }
            room
        });
        assert_eq!(admitted.count(), 10);
    }
}
