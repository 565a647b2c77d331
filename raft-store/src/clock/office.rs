//! Office: one replica's time as leader, whole, as a value.
//!
//! An office is (term, turn). It begins with a marker that came back through the log, and from then on numbers its
//! entries 1, 2, 3 …; a replica voids an entry that doesn't follow. So one rejected proposal voids all that was pipelined
//! behind it, and no stamp ever outlives the office that gave it: the office ends, and the same replica takes the next
//! turn like any other office, with a new base and a new grace.
//!
//! ```text
//!   sockets --submit--> door, stamp, lane ---.                        what the runtime does with it:
//!                                            |  next_entry --> Entry --> Log::propose
//!   runtime --look every few ms ------------>|
//!                                            |  settle     <-- applied | void | not logged | unknown
//!   waiters <--(W, Reply)--------------------'  lose       <-- another leads, or a proposal failed
//! ```
//!
//! This is the decision half of the proposer: every method takes the monotonic time and the applied shard, and returns
//! what is to be done. `proposer` is the other half: it owns the lock around this value, the task and the futures. The
//! simulation in `sim` drives this very code through crashes, freezes, cuts and lost quorums in virtual time.
//!
//! What a command meets, in this order, under one lock: the *applied table* (it was judged before: the same verdict), the
//! *pending map* (it is on its way: join), an *early refusal* (an absorbing fact: `low`, `closed`), the *door* (room
//! on the disk? in the lane?), the stamp, the lane. A disk that is short of room refuses only at the door: what was judged
//! keeps its verdict, and what is on its way goes on.
//!
//! In the grace, the clock stands at `base`; a command sent again is stamped with the larger of its auction's watermark
//! and its lane's newest stamp. For most auctions that is `base`; for one whose lane was behind when the old leader fell
//! it is less, and entries name it in `behind` until the grace ends: else its own close would overtake the bids that the
//! old leader had stamped in time and the edges are sending again.
//!
//! Deliberately absent: clocks, tasks, channels, the log.

use super::{
    Clock,
    lanes::{self, Lanes, Ticket, Waiting},
    pending::{Join, Pending, key_of},
};
use crate::{clock, fitness::Intake};
use auction::{
    Action, Actor, Applied, AuctionId, Command, Entry, Id, Known, Reply, Rights, Shard, Stamp, Verdict, Wall, body_hash,
};
use std::collections::{HashMap, VecDeque};

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

/// Bounds of clock and lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Of the clock.
    pub clock: clock::Options,
    /// Of the queues.
    pub lanes: lanes::Options,
}

/// An entry that was proposed and is not settled.
#[derive(Debug)]
struct Flight {
    n: u64,
    sent: u64,
    tickets: Vec<Option<Ticket>>,
    starts: Vec<AuctionId>,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug)]
pub enum Fate<'a> {
    /// It came back through the log.
    Applied(&'a Applied),
    /// It is certainly not in the log; what its senders are told.
    NotLogged(&'a Reply),
    /// It may be in the log, now or later, or never.
    Unknown,
}

/// Whether the office goes on after a fate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goes {
    /// It goes on.
    On,
    /// It is over: call `lose`, and take the next turn.
    Over,
}

/// An entry to be proposed, with the tickets of its commands.
#[derive(Debug)]
pub struct Packed {
    /// For the log.
    pub entry: Entry,
    /// By place in `entry.commands`; `None` for the leader's own.
    pub tickets: Vec<Option<Ticket>>,
    /// How much later than the pace of beats wants it, where a timer pended.
    pub late_ms: Option<u64>,
}

/// What an office wants to be known of it at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Commands in lanes.
    pub waiting: usize,
    /// Commands in flight.
    pub flying: usize,
    /// Round trip of a proposal, smoothed, ms.
    pub trip_ms: u64,
    /// Commands that the shard drains in `lane_ms`, at that.
    pub drains: usize,
}

/// One stretch of stamping by one leader. `W` is how a sender is answered.
#[derive(Debug)]
pub struct Office<W> {
    options: Options,
    id: auction::Office,
    n: u64,
    clock: Clock,
    lanes: Lanes,
    pending: Pending<W>,
    flights: VecDeque<Flight>,
    /// Commands in `flights`.
    flying: usize,
    /// Eight times the smoothed round trip, ms.
    trip_x8: u64,
    /// `at` of the newest entry proposed after the grace: timers due up to it will run when it is applied.
    covered: Option<Stamp>,
    /// Monotonic time of the newest proposal.
    last_entry: u64,
    /// A timer pended when the newest entry was packed: the next one is due by the pace of beats.
    paced: bool,
    /// Scheduled starts that are waiting or in flight, with the schedule's version.
    started: HashMap<AuctionId, u32>,
    /// Intake is paused until then (a planned hand-over).
    shut_until: u64,
    graced: bool,
    intake: Intake,
    #[cfg(test)]
    pub(crate) plant: Option<sim::Plant>,
    /// Stamped and not yet placed, under the plant `DecodeGap`.
    #[cfg(test)]
    decoding: Vec<(Stamp, Command, Ticket)>,
    /// The reading when the lanes were looked at, under the plant `LanesFirst`.
    #[cfg(test)]
    seen: Stamp,
}

impl<W> Office<W> {
    /// Takes office at monotonic `mono`, after the marker of `id` was applied to `shard`. `heard_ago_ms`: how long ago
    /// this replica received the entry that first held the shard's `top`.
    #[must_use]
    pub fn take(options: Options, id: auction::Office, mono: u64, shard: &Shard, heard_ago_ms: u64) -> Self {
        let at_stake = shard.has_timers();
        Self {
            options,
            id,
            n: 0,
            clock: Clock::take(options.clock, shard.top(), mono, at_stake.then_some(heard_ago_ms)),
            lanes: Lanes::new(options.lanes),
            pending: Pending::new(options.lanes.joiners_max),
            flights: VecDeque::new(),
            flying: 0,
            trip_x8: 8 * 25,
            covered: None,
            last_entry: mono,
            paced: false,
            started: HashMap::new(),
            shut_until: 0,
            graced: true,
            intake: Intake::All,
            #[cfg(test)]
            plant: None,
            #[cfg(test)]
            decoding: Vec::new(),
            #[cfg(test)]
            seen: shard.top(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> auction::Office {
        self.id
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Of what was lost when it was taken, so much was counted by the office before; see `Clock::counted_before`.
    pub fn counted_before(&mut self, ms: u64) {
        self.clock.counted_before(ms);
    }

    /// How much it has to do.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            waiting: self.lanes.waiting(),
            flying: self.flying,
            trip_ms: self.trip_ms(),
            drains: self.lanes.drains(self.trip_ms()),
        }
    }

    /// Nothing waits and nothing flies.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.lanes.waiting() == 0 && self.flights.is_empty()
    }

    /// Whether it still stands in its grace.
    #[must_use]
    pub fn in_grace(&self, mono: u64) -> bool {
        self.clock.in_grace(mono)
    }

    /// Reads the clock: one look.
    pub fn read(&mut self, mono: u64, shard: &Shard) -> Stamp {
        let counts = self.counts(shard);
        self.clock.read(mono, shard.top(), counts)
    }

    /// Lost time matters while a timer pends or a command is under way.
    fn counts(&self, shard: &Shard) -> bool {
        shard.has_timers() || self.flying > 0 || self.lanes.waiting() > 0
    }

    fn trip_ms(&self) -> u64 {
        self.trip_x8 / 8
    }

    /// No new command is let in until `mono + ms`: what is inside drains, so that this replica's followers can have the
    /// last index. Ends by itself: a hand-over that fails must not leave the shard silent.
    pub fn shut(&mut self, mono: u64, ms: u64) {
        self.shut_until = mono.saturating_add(ms);
    }

    /// Lets commands in again at once.
    pub fn reopen(&mut self) {
        self.shut_until = 0;
    }

    /// What the door takes in from now on.
    pub fn narrow(&mut self, intake: Intake) {
        self.intake = intake;
    }

    /// A command at the door. The sender comes back with the reply if there is one now; else it waits.
    pub fn submit(&mut self, mono: u64, shard: &Shard, command: Command, waiter: W) -> Option<(W, Reply)> {
        let body = body_hash(&command.action);
        let key = key_of(&command);
        let known = key
            .as_ref()
            .and_then(|key| shard.known(&key.auction, &key.actor, &key.id, body));
        let forgotten = known.is_some() && Self::forgets();
        if let Some(Known::Verdict(verdict) | Known::OtherBody(verdict)) = known.filter(|_| !forgotten) {
            return Some((waiter, Reply::Verdict(verdict)));
        }
        let waiter = match &key {
            None => waiter,
            Some(key) => match self.pending.join(key, body, waiter) {
                Join::New(waiter) => waiter,
                Join::Joined => return None,
                Join::Refused(waiter) => return Some((waiter, self.other_body(shard, &command))),
            },
        };
        if let Some(refused) = shard.early(&command).filter(|_| !forgotten) {
            return Some((waiter, Reply::Verdict(refused)));
        }
        if !self.intake.takes(&command.action) {
            let retry_after_ms = NO_ROOM_MS;
            return Some((waiter, Reply::NoRoom { retry_after_ms }));
        }
        let now = self.read_at_door(mono, shard);
        if mono < self.shut_until || !self.has_room(&command.auction, now) {
            let retry_after_ms = u32::try_from(self.options.lanes.lane_ms).unwrap_or(u32::MAX);
            return Some((waiter, Reply::Busy { retry_after_ms }));
        }
        let arrived = self.stamp(mono, shard, &command.auction, now);
        let ticket = self.pending.add(key, body, waiter);
        #[cfg(test)]
        if self.plant == Some(sim::Plant::DecodeGap) {
            self.decoding.push((arrived, command, ticket));
            return None;
        }
        self.lanes.push(arrived, command, Some(ticket));
        None
    }

    /// Whether this door is one that forgets what was judged (simulations only).
    fn forgets() -> bool {
        #[cfg(feature = "sim")]
        return crate::sim::planted(crate::sim::Plant::DoorForgets);
        #[cfg(not(feature = "sim"))]
        false
    }

    /// What another body is told while its key is pending.
    fn other_body(&self, shard: &Shard, command: &Command) -> Reply {
        #[cfg(test)]
        if self.plant == Some(sim::Plant::PendingDupBody) {
            return Reply::Verdict(sim::dup_body(shard, command));
        }
        let _ = (shard, command);
        Reply::NotJudged
    }

    fn read_at_door(&mut self, mono: u64, shard: &Shard) -> Stamp {
        let counts = self.counts(shard);
        self.clock.read_at_door(mono, shard.top(), counts)
    }

    fn has_room(&self, auction: &AuctionId, now: Stamp) -> bool {
        #[cfg(test)]
        if self.plant == Some(sim::Plant::OwnBound) {
            let old = self
                .lanes
                .behind()
                .find(|(id, _)| *id == auction)
                .is_some_and(|(_, at)| now.since(at) > 40);
            return !old && self.lanes.depth(auction) < 64;
        }
        let _ = now;
        self.lanes.room(auction, self.trip_ms())
    }

    /// The stamp of a command that arrives now.
    fn stamp(&self, mono: u64, shard: &Shard, auction: &AuctionId, now: Stamp) -> Stamp {
        #[cfg(test)]
        if self.plant == Some(sim::Plant::BaseForAll) {
            return now;
        }
        if self.clock.in_grace(mono) {
            shard.watermark(auction).max(self.lanes.newest(auction))
        } else {
            now
        }
    }

    /// The next entry to propose at monotonic `mono` and wall time `wall`, if there is one. To be asked again until
    /// there is none. The clock is read *before* the lanes are looked at: every stamp given later is at least `at`, so
    /// what `at` promises is true.
    pub fn next_entry(&mut self, mono: u64, wall: Wall, shard: &Shard) -> Option<Packed> {
        let at = self.read(mono, shard);
        self.end_grace(mono);
        self.place_starts(at, wall.ms, shard);
        let beat = self.wants_beat(mono, at, shard);
        let room = self.room_in_flight(beat);
        let due = if room > 0 {
            self.due_lanes(at, shard)
        } else {
            Vec::new()
        };
        let taken = self.lanes.take(room, due.iter(), self.graced);
        let packed = (beat || !taken.is_empty()).then(|| self.pack(mono, at, taken, wall, shard));
        #[cfg(test)]
        self.after_looking(at);
        packed
    }

    fn end_grace(&mut self, mono: u64) {
        if self.graced && !self.clock.in_grace(mono) {
            self.graced = false;
            self.lanes.forget_empty();
        }
    }

    /// A few entries in flight are enough to keep the log busy; beyond them it is better to let an entry fill than to send
    /// many small ones.
    fn is_thin(&self) -> bool {
        let Options { lanes, .. } = self.options;
        self.flights.len() >= lanes.pipeline && self.lanes.waiting() < lanes.entry_max
    }

    /// Whether a look now would find something to propose. If not, the next one is when an entry comes back.
    #[must_use]
    pub fn wants_look(&self) -> bool {
        !self.is_thin() && self.flying < self.options.lanes.window
    }

    /// Commands that may be proposed now.
    fn room_in_flight(&self, beat: bool) -> usize {
        let Options { lanes, .. } = self.options;
        if self.is_thin() && !beat {
            0
        } else {
            lanes.entry_max.min(lanes.window.saturating_sub(self.flying))
        }
    }

    /// A start is no timer of the stamp clock: it is proposed *as long as* wall time is past it and it isn't applied.
    fn place_starts(&mut self, at: Stamp, wall_ms: u64, shard: &Shard) {
        let mut room = self.options.lanes.entry_max;
        if self.intake == Intake::NoBids {
            // An auction that nobody may bid on would run for nothing: its start waits for room.
            return;
        }
        for (auction, start_wall_ms, version) in shard.scheduled() {
            if start_wall_ms > wall_ms || room == 0 {
                break;
            }
            if self.started.get(&auction) == Some(&version) {
                continue;
            }
            #[cfg(test)]
            if self.plant == Some(sim::Plant::StartOnce) && start_wall_ms + 5 < wall_ms {
                continue;
            }
            room -= 1;
            self.started.insert(auction.clone(), version);
            let action = Action::Start {
                schedule_version: Some(version),
            };
            let command = Command {
                auction,
                actor: system(),
                id: None,
                first_sent: None,
                action,
            };
            self.lanes.push(at, command, None);
        }
    }

    /// A beat is wanted when a timer came due that no entry covers yet, and otherwise at a steady pace while any timer
    /// pends, if there is anything new to promise: a clock that stands (no majority) makes no entries.
    fn wants_beat(&self, mono: u64, at: Stamp, shard: &Shard) -> bool {
        if self.graced || !shard.has_timers() || mono < self.shut_until {
            return false;
        }
        if shard.due_within(self.covered, at) {
            return true;
        }
        mono.saturating_sub(self.last_entry) >= self.pace() && self.covered.is_none_or(|covered| at > covered)
    }

    /// Lanes with a backlog whose auction's timer is due, earliest first.
    fn due_lanes(&self, at: Stamp, shard: &Shard) -> Vec<AuctionId> {
        #[cfg(test)]
        if self.plant == Some(sim::Plant::FairOnly) {
            return Vec::new();
        }
        if self.lanes.waiting() == 0 || shard.next_deadline().is_none_or(|due| due > at) {
            return Vec::new();
        }
        let late = |(id, _): (&AuctionId, Stamp)| Some((shard.due(id).filter(|due| *due <= at)?, id.clone()));
        let mut due: Vec<(Stamp, AuctionId)> = self.lanes.behind().filter_map(late).collect();
        due.sort();
        due.into_iter().map(|(_, id)| id).collect()
    }

    fn pack(&mut self, mono: u64, at: Stamp, taken: Vec<Waiting>, wall: Wall, shard: &Shard) -> Packed {
        self.n += 1;
        let late_ms = self.beat_late(mono, shard);
        self.last_entry = mono;
        if !self.graced {
            self.covered = Some(at);
        }
        let mut entry = Entry {
            office: self.id,
            n: self.n,
            at,
            behind: self.behind(at, shard),
            ..Entry::default()
        };
        entry.holds = self.clock.take_holds();
        let mut tickets = Vec::with_capacity(taken.len());
        let mut starts = Vec::new();
        for waiting in taken {
            if waiting.ticket.is_none() {
                starts.push(waiting.stamped.command.auction.clone());
            }
            tickets.push(waiting.ticket);
            entry.commands.push(waiting.stamped);
        }
        entry.wall = (!starts.is_empty()).then_some(wall);
        self.flying += tickets.len();
        self.flights.push_back(Flight {
            n: self.n,
            sent: mono,
            tickets: tickets.clone(),
            starts,
        });
        Packed {
            entry,
            tickets,
            late_ms,
        }
    }

    /// How much later than its pace wants it an entry goes, if the last one left a timer pending.
    fn beat_late(&mut self, mono: u64, shard: &Shard) -> Option<u64> {
        let paced = std::mem::replace(&mut self.paced, !self.graced && shard.has_timers());
        // Timers that went meanwhile take their pace with them: an idle hour is no late beat.
        (paced && shard.has_timers()).then(|| mono.saturating_sub(self.last_entry).saturating_sub(self.pace()))
    }

    fn pace(&self) -> u64 {
        let options = self.options.clock;
        if self.trip_ms() > options.slow_ms {
            options.slow_beat_ms
        } else {
            options.beat_ms
        }
    }

    /// Auctions that must not be promised `at`: those with a backlog, and in the grace those that were behind before.
    fn behind(&self, at: Stamp, shard: &Shard) -> Vec<(AuctionId, Stamp)> {
        let mut behind: Vec<(AuctionId, Stamp)> =
            self.lanes.behind().map(|(id, oldest)| (id.clone(), oldest)).collect();
        #[cfg(test)]
        if self.plant == Some(sim::Plant::LanesFirst) {
            behind.retain(|(_, oldest)| *oldest <= self.seen);
        }
        #[cfg(test)]
        if self.plant == Some(sim::Plant::BaseForAll) {
            behind.sort();
            return behind;
        }
        if self.graced {
            behind.extend(shard.below(at));
        }
        // Sorted by stamp within an auction, so that the lower of the two stays.
        behind.sort();
        behind.dedup_by(|later, first| later.0 == first.0);
        behind
    }

    /// What became of entry `n`: who waited for its commands, with their replies, goes to `out`. Fates come in the order
    /// of the entries.
    pub fn settle(&mut self, mono: u64, n: u64, fate: Fate<'_>, out: &mut Vec<(W, Reply)>) -> Goes {
        if self.flights.front().is_none_or(|flight| flight.n != n) {
            return Goes::Over;
        }
        let Some(flight) = self.flights.pop_front() else {
            return Goes::Over;
        };
        self.flying -= flight.tickets.len();
        for auction in &flight.starts {
            self.started.remove(auction);
        }
        let trip = mono.saturating_sub(flight.sent);
        self.trip_x8 = self.trip_x8 - self.trip_x8 / 8 + trip;
        let verdicts: &[Verdict] = match fate {
            Fate::Applied(Applied::Done(done)) => &done.verdicts,
            _ => &[],
        };
        let otherwise = match fate {
            Fate::Applied(_) => Reply::NotJudged,
            Fate::NotLogged(reply) => reply.clone(),
            Fate::Unknown => Reply::Unknown,
        };
        for (k, ticket) in flight.tickets.into_iter().enumerate() {
            let reply = verdicts
                .get(k)
                .map_or_else(|| otherwise.clone(), |v| Reply::Verdict(v.clone()));
            for waiter in ticket.into_iter().flat_map(|ticket| self.pending.settle(ticket)) {
                out.push((waiter, reply.clone()));
            }
        }
        if matches!(fate, Fate::Applied(Applied::Done(_))) {
            Goes::On
        } else {
            Goes::Over
        }
    }

    /// The office is over: lanes and window are emptied. What waited was certainly not proposed by this office
    /// (`unproposed`: *not judged*, or a hint where to go); what flew may yet be applied.
    pub fn lose(&mut self, unproposed: &Reply, out: &mut Vec<(W, Reply)>) {
        for waiting in self.lanes.drain() {
            for waiter in waiting
                .ticket
                .into_iter()
                .flat_map(|ticket| self.pending.settle(ticket))
            {
                out.push((waiter, unproposed.clone()));
            }
        }
        out.extend(self.pending.drain().map(|waiter| (waiter, Reply::Unknown)));
        self.flights.clear();
        self.flying = 0;
        self.started.clear();
    }

    /// Who sent a pending command first.
    #[must_use]
    pub fn waiter(&self, ticket: Ticket) -> Option<&W> {
        self.pending.first(ticket)
    }

    /// When to look next (monotonic), if nothing happens before. `None`: nothing will come of itself, so an idle shard
    /// costs nothing.
    #[must_use]
    pub fn next_look(&self, mono: u64, wall_ms: u64, shard: &Shard) -> Option<u64> {
        if self.counts(shard) || !self.flights.is_empty() {
            return Some(mono + self.options.clock.look_ms);
        }
        let (_, start_wall_ms, _) = shard.scheduled().next()?;
        if self.intake == Intake::NoBids {
            return Some(mono + WALL_LOOK_MS);
        }
        // Wall time may be stepped, so it is looked at again now and then.
        Some(mono + start_wall_ms.saturating_sub(wall_ms).clamp(1, WALL_LOOK_MS))
    }
}

/// When a sender may ask again for what the disk has no room for, ms: room doesn't come back in a moment.
const NO_ROOM_MS: u32 = 1_000;

/// How often wall time is looked at while a start is scheduled and nothing else is going on, ms.
const WALL_LOOK_MS: u64 = 1_000;

/// The cluster itself, as an actor.
fn system() -> Actor {
    let id = Id::parse("system").unwrap_or_else(|| unreachable!("`system` is an id"));
    Actor {
        id,
        rights: Rights::SYSTEM,
    }
}
