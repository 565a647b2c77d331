//! The gate: how much of a shard's work this edge lets out at a time, and who goes next.
//!
//! A crowd that outruns its shard must not queue in front of it: what waits there is already stamped late, and a queue in
//! the wire between edge and leader delays everyone's stamp, the neighbours' too. So bids queue *here*, where each auction
//! has a lane of its own, and only as many leave as the leader grants (`credit`); it grants what the shard drains in
//! `lane_ms`, divided among the edges.
//!
//! ```text
//!   auction a (hot)   [||||||||||   <- room? no: `busy`, come back in .. ms
//!   auction b         [|              turns      credit
//!   auction c         [||            -------> [ flying .. ] --> leader --> verdict: a place is free, the next one goes
//! ```
//!
//! **Room is shared as in the leader's lanes**: a lane may hold as much as is still free of what the gate holds, and at least
//! one. With k hot auctions each gets 1/(k+1), and a quiet auction's bid always finds room and goes after one of each.
//!
//! **Who is turned away is told when to come back**, and the more are turned away the later: so that all who come back are
//! about `RETURNS_PER_S` a second, however large the crowd is.
//!
//! Only bids pass here. A seller's pause must not wait behind the crowd that it is meant to stop.
//!
//! Deliberately absent: what the commands are, and retries: a bid that has passed keeps its place until it has an answer.

use crate::metrics;
use auction::AuctionId;
use parking_lot::Mutex;
use placement::ShardId;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// A gate lets at least so many out, whatever is granted: a shard that is slow must not stand still.
const CREDIT_MIN: usize = 8;
/// Bids that were turned away come back at about this pace, those of all auctions of a shard together.
const RETURNS_PER_S: f64 = 2_000.0;
/// The bounds of what they are told to wait, ms.
const RETRY_MS: (f64, f64) = (40.0, 2_000.0);

/// Turned away at the gate; certainly not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    /// When to come back.
    pub(crate) retry_after_ms: u32,
}

/// The gates of all shards.
#[derive(Default)]
pub(crate) struct Gates {
    gates: Mutex<HashMap<ShardId, Arc<Gate>>>,
}

impl Gates {
    /// A place for a bid on `auction`: at once, or when its turn has come. `credit`: what the shard's leader grants now.
    pub(crate) async fn enter(&self, shard: ShardId, auction: &AuctionId, credit: usize) -> Result<Place, Busy> {
        let gate = self.gates.lock().entry(shard).or_default().clone();
        let waits = {
            let mut state = gate.state.lock();
            state.credit = credit.max(CREDIT_MIN);
            if state.waiting == 0 && state.flying < state.credit {
                state.flying += 1;
                drop(state);
                metrics::waited_at_the_gate(Duration::ZERO);
                return Ok(Place(Some(gate)));
            }
            if !state.has_room(auction) {
                return Err(state.turn_away(Instant::now()));
            }
            state.push(auction)
        };
        // More may have been granted since the last bid left.
        gate.let_out();
        let since = Instant::now();
        match waits.await {
            Ok(place) => {
                metrics::waited_at_the_gate(since.elapsed());
                Ok(place)
            }
            // A gate never forgets who waits; if it did, that bid was not judged.
            Err(_) => Err(gate.state.lock().turn_away(Instant::now())),
        }
    }
}

/// One shard's.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    credit: usize,
    flying: usize,
    waiting: usize,
    lanes: HashMap<AuctionId, VecDeque<oneshot::Sender<Place>>>,
    turns: VecDeque<AuctionId>,
    /// Turned away lately: counts down by itself, to a third in a second.
    turned: f64,
    turned_at: Option<Instant>,
}

impl State {
    /// As much may wait as may fly: nobody waits longer than about two round trips.
    fn has_room(&self, auction: &AuctionId) -> bool {
        let free = self.credit.saturating_sub(self.waiting).max(1);
        let depth = self.lanes.get(auction).map_or(0, VecDeque::len);
        // The last of these bounds what a crowd of auctions can hold, each with its one.
        depth < free && self.waiting < self.credit * 2
    }

    fn push(&mut self, auction: &AuctionId) -> oneshot::Receiver<Place> {
        let (place, waits) = oneshot::channel();
        let lane = self.lanes.entry(auction.clone()).or_default();
        if lane.is_empty() {
            self.turns.push_back(auction.clone());
        }
        lane.push_back(place);
        self.waiting += 1;
        waits
    }

    /// The next one in fair turns, if one may go.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        if self.flying >= self.credit {
            return None;
        }
        let auction = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&auction)?;
        let next = lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&auction);
        } else {
            self.turns.push_back(auction);
        }
        self.waiting -= usize::from(next.is_some());
        self.flying += usize::from(next.is_some());
        next
    }

    fn turn_away(&mut self, now: Instant) -> Busy {
        let passed = self
            .turned_at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.turned = self.turned * (-passed.as_secs_f64()).exp() + 1.0;
        self.turned_at = Some(now);
        let wait = (self.turned / RETURNS_PER_S * 1e3).clamp(RETRY_MS.0, RETRY_MS.1);
        Busy {
            retry_after_ms: wait as u32,
        }
    }
}

impl Gate {
    /// Lets out who may go. Never under the lock: a place that nobody takes any more comes back at once.
    fn let_out(self: &Arc<Gate>) {
        loop {
            let Some(next) = self.state.lock().next() else { return };
            // Who left meanwhile doesn't take it. Given back here, or each would let out the next one from inside its drop.
            if let Err(mut place) = next.send(Place(Some(self.clone()))) {
                place.0 = None;
                self.state.lock().flying -= 1;
            }
        }
    }
}

/// A bid's place among those under way; free for the next one when dropped.
pub(crate) struct Place(Option<Arc<Gate>>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.state.lock().flying -= 1;
            gate.let_out();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use auction::Id;
    use futures_util::FutureExt as _;

    const SHARD: ShardId = ShardId(1);

    fn id(name: &str) -> AuctionId {
        Id::parse(name).unwrap()
    }

    type Entering<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Place, Busy>> + 'a>>;

    /// Comes to the gate; it may have to wait.
    fn come<'a>(
        gates: &'a Gates,
        auction: &'a AuctionId,
        credit: usize,
    ) -> (Option<Result<Place, Busy>>, Entering<'a>) {
        let mut entering: Entering<'a> = Box::pin(gates.enter(SHARD, auction, credit));
        (entering.as_mut().now_or_never(), entering)
    }

    #[test]
    fn no_more_fly_than_are_granted_and_the_next_goes_when_one_is_back() {
        let (gates, a) = (Gates::default(), id("a"));
        let mut flying: Vec<Place> = (0..10).map(|_| come(&gates, &a, 10).0.unwrap().ok().unwrap()).collect();
        let (none, mut waits) = come(&gates, &a, 10);
        assert!(none.is_none(), "the eleventh waits");
        assert!(waits.as_mut().now_or_never().is_none());
        flying.pop();
        assert!(waits.as_mut().now_or_never().unwrap().is_ok(), "a place was free");
    }

    #[test]
    fn a_hot_auction_is_turned_away_and_a_newcomer_finds_room_and_goes_next() {
        let (gates, hot, quiet) = (Gates::default(), id("hot"), id("quiet"));
        let mut flying: Vec<Place> = (0..10)
            .map(|_| come(&gates, &hot, 10).0.unwrap().ok().unwrap())
            .collect();
        let mut waiting = Vec::new();
        let mut turned = 0;
        for _ in 0..100 {
            match come(&gates, &hot, 10) {
                (None, waits) => waiting.push(waits),
                (Some(Err(_)), _) => turned += 1,
                (Some(Ok(_)), _) => panic!("more fly than were granted"),
            }
        }
        assert_eq!((waiting.len(), turned), (5, 95), "half of the room is the hot one's");
        let (none, mut newcomer) = come(&gates, &quiet, 10);
        assert!(none.is_none(), "the newcomer found room");
        flying.truncate(8);
        // Places are kept: each one that is dropped lets the next one out.
        let second = newcomer.as_mut().now_or_never().unwrap();
        assert!(second.is_ok(), "second, after one of the hot auction's five");
        let out: Vec<_> = waiting.iter_mut().filter_map(|w| w.as_mut().now_or_never()).collect();
        assert_eq!(out.len(), 1, "and no more than were given back");
    }

    #[test]
    fn who_leaves_while_waiting_gives_the_place_to_the_next() {
        let (gates, a) = (Gates::default(), id("a"));
        let mut flying: Vec<Place> = (0..8).map(|_| come(&gates, &a, 8).0.unwrap().ok().unwrap()).collect();
        let (_, first) = come(&gates, &a, 8);
        let (_, mut second) = come(&gates, &a, 8);
        drop(first);
        flying.pop();
        assert!(second.as_mut().now_or_never().unwrap().is_ok());
        drop(flying);
        drop(second);
        let gate = gates.gates.lock()[&SHARD].clone();
        let state = gate.state.lock();
        assert_eq!(
            (state.flying, state.waiting, state.lanes.len()),
            (0, 0, 0),
            "nothing leaks"
        );
    }

    #[test]
    fn the_more_are_turned_away_the_later_they_come_back() {
        let (mut state, now) = (State::default(), Instant::now());
        let first = state.turn_away(now).retry_after_ms;
        let crowd = (0..3_000).map(|_| state.turn_away(now).retry_after_ms).max().unwrap();
        let storm = (0..100_000).map(|_| state.turn_away(now).retry_after_ms).max().unwrap();
        assert_eq!((first, storm), (40, 2_000));
        assert!((1_400..=1_600).contains(&crowd), "{crowd} ms for 3,000 in a second");
        let later = state.turn_away(now + Duration::from_secs(20)).retry_after_ms;
        assert_eq!(later, 40, "a storm is forgotten");
    }
}
