//! A node's clocks against its peers': who strays, and what time it is.
//!
//! Inside a shard nobody compares clocks: the log is the clock. What is left to trust is that the *rate* of the leader's
//! monotonic clock is right, and, for what people schedule, that somebody knows the wall's time. Neither can a node see
//! by itself. So every pulse carries the speaker's clocks and an echo of the hearer's, and two of them make a round trip:
//!
//! ```text
//!      A ----{mono 7}----------------------------------> B       by A's clock: sent 7, back at 29, B held it 10
//!      A <---{mono 1012, echo 7, held 10}--------------- B       round trip 12: B's 1012 was A's 23, give or take 6
//! ```
//!
//! **Offset.** Each word gives the peer's clock minus ours, with an error of half the round trip that is *sure*, however the
//! delay was shared out. Of each `slot_ms` the word with the least error is kept, and slots for `window_ms`: a busy moment
//! spoils no slot.
//!
//! **Drift.** Between two kept words the offset changed by *surely* more than `stray_ms`: errors of both are taken off
//! first, so a slow network can't accuse anybody. 50 ms in 10 s is the half per cent of the design; a rate of 1.1 shows in
//! one second, a step of 2 s at the next word.
//!
//! **Who.** A difference has two ends. A node strays if more than half of its peers (and at least two) say so in the same
//! direction; a peer strays if more than half of all, us included, agree with us. Two nodes that differ can't tell who is
//! right: both go on, and the metric shows it.
//!
//! **Wall time** is the median of what the living say; its error is the least within which more than half of them lie. One
//! whose wall clock steps moves the median no further than to its neighbour's.
//!
//! Every word is counted from the hearer's monotonic clock, never from its wall clock, so that a wall clock that is set
//! doesn't look like a rate. Peers that started again begin anew, and so do we: an echo of what our process said in an
//! earlier life counts from another origin, and what looks like a round trip of it bounds nothing.
//!
//! Deliberately absent: sockets, what a stray does about it (`pulse`), real time (an argument, in µs).

use placement::NodeId;
use std::collections::{BTreeMap, VecDeque};

/// The bounds of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Words are compared over so long, ms …
    pub window_ms: u64,
    /// … and the best of each such stretch is kept.
    pub slot_ms: u64,
    /// A clock that moved by surely more than this against another, within the window, differs from it, ms.
    pub stray_ms: u64,
    /// A step is what moved by so much from one slot to the next.
    pub step_ms: u64,
    /// A wall clock further than this from the median is wrong, ms.
    pub wall_ms: u64,
    /// A peer that said nothing for so long has no say, ms.
    pub silent_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            window_ms: 10_000,
            slot_ms: 500,
            stray_ms: 50,
            step_ms: 100,
            wall_ms: 1_000,
            silent_ms: 2_000,
        }
    }
}

/// A node's clocks at one moment, µs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clocks {
    /// Monotonic.
    pub mono: u64,
    /// Since the Unix epoch.
    pub wall: u64,
}

/// What a peer said of its clocks, and of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// Its clocks.
    pub clocks: Clocks,
    /// The newest word that it had of us; `None`: it had none.
    pub echo: Option<Echo>,
}

/// A word of the hearer's, given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Echo {
    /// In which life of its process the hearer said it.
    pub life: u64,
    /// The hearer's `mono` when it said it.
    pub mono: u64,
    /// For how long the speaker had had it, µs.
    pub held: u64,
}

/// A word, kept: what it says of the peer's clocks against our monotonic one.
#[derive(Clone, Copy, Debug)]
struct Kept {
    at: u64,
    mono: i64,
    wall: i64,
    error: u64,
}

/// Words in one slot before the next begins, though our own clock may stand.
const SLOT_WORDS: u32 = 40;
/// A round trip over this says nothing, µs.
const TRIP_MAX: u64 = 2_000_000;

#[derive(Debug)]
struct Peer {
    life: u64,
    /// The newest word: its `mono`, and when it came.
    heard: (u64, u64),
    slots: VecDeque<Kept>,
    /// When the newest slot began, and words in it.
    slot: (u64, u32),
}

/// How one clock moved against another within the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drift {
    /// Surely this much, signed, µs; 0 where the errors leave it open.
    pub sure: i64,
    /// Most of what happened between two slots, µs.
    pub jump: i64,
    /// Most likely, parts per million.
    pub rate_ppm: i64,
}

/// What is wrong with a monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It runs at another rate.
    Rate {
        /// By so many parts per million against most.
        ppm: i64,
    },
    /// It jumped.
    Step {
        /// By so much.
        ms: i64,
    },
}

/// Wall time as most see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wall {
    /// Add this to the monotonic clock for µs since the Unix epoch.
    pub base: i64,
    /// More than half lie within this, µs.
    pub error: u64,
    /// This node's own wall clock minus the median, µs.
    pub off: i64,
    /// How many were asked, this node included.
    pub voices: usize,
    /// Whether most others agree with each other, and not with this node.
    pub wrong: bool,
}

/// All that was heard of peers' clocks. See the module's narrative.
#[derive(Debug)]
pub struct Compare {
    options: Options,
    /// This life of our process.
    life: u64,
    peers: BTreeMap<NodeId, Peer>,
}

impl Compare {
    /// Nothing was heard yet, in this `life` of our process.
    #[must_use]
    pub fn new(options: Options, life: u64) -> Self {
        Self {
            options,
            life,
            peers: BTreeMap::new(),
        }
    }

    /// What to say to a peer about its own newest word.
    #[must_use]
    pub fn echo(&self, node: NodeId, now: Clocks) -> Option<Echo> {
        let peer = self.peers.get(&node)?;
        let (mono, at) = peer.heard;
        Some(Echo {
            life: peer.life,
            mono,
            held: now.mono.saturating_sub(at),
        })
    }

    /// A peer's word came, in the `life` of its process.
    pub fn hear(&mut self, node: NodeId, life: u64, now: Clocks, word: Word) {
        let heard = (word.clocks.mono, now.mono);
        let fresh = || Peer {
            life,
            heard,
            slots: VecDeque::new(),
            slot: (now.mono, 0),
        };
        let peer = self.peers.entry(node).or_insert_with(fresh);
        if peer.life != life {
            *peer = fresh();
        }
        peer.heard = heard;
        // Less went by here than the peer says that it held our word: a clock that stands, or is slow. Then all that went
        // by here is the error, which is sure whatever the peer's clock did.
        let ours = word.echo.filter(|echo| echo.life == self.life);
        let trip = ours.and_then(|echo| {
            let passed = now.mono.checked_sub(echo.mono)?;
            Some(passed.checked_sub(echo.held).unwrap_or(passed))
        });
        if let Some(trip) = trip.filter(|trip| *trip <= TRIP_MAX) {
            let since = |clock: u64| signed(clock) - signed(now.mono) + signed(trip / 2);
            let kept = Kept {
                at: now.mono,
                mono: since(word.clocks.mono),
                wall: since(word.clocks.wall),
                error: trip.div_ceil(2),
            };
            peer.keep(kept, &self.options);
        }
    }

    /// Forgets peers that aren't of the cluster any more.
    pub fn retain(&mut self, stays: impl Fn(NodeId) -> bool) {
        self.peers.retain(|node, _| stays(*node));
    }

    fn heard_lately(&self, now: Clocks) -> impl Iterator<Item = (NodeId, &Peer)> {
        // Our own clock may have jumped: then nobody was heard lately, in either direction, until they speak again.
        let silent = self.options.silent_ms * 1_000;
        let lately = move |peer: &&Peer| now.mono.abs_diff(peer.heard.1) <= silent;
        let peers = self.peers.iter().map(|(node, peer)| (*node, peer));
        peers.filter(move |(_, peer)| lately(peer))
    }

    /// How each peer that speaks moved against us: positive where it runs faster. Peers heard for less than two slots
    /// are left out.
    #[must_use]
    pub fn drifts(&self, now: Clocks) -> BTreeMap<NodeId, Drift> {
        let lately = self.heard_lately(now);
        lately.filter_map(|(node, peer)| Some((node, peer.drift()?))).collect()
    }

    /// Whether our own monotonic clock strays, by the word of most.
    #[must_use]
    pub fn own_fault(&self, drifts: &BTreeMap<NodeId, Drift>) -> Option<Fault> {
        let bound = signed(self.options.stray_ms * 1_000);
        let faster: Vec<Drift> = drifts.values().copied().filter(|d| d.sure > bound).collect();
        let slower: Vec<Drift> = drifts.values().copied().filter(|d| d.sure < -bound).collect();
        let against = if faster.len() > slower.len() { faster } else { slower };
        if against.len() < 2 || against.len() * 2 <= drifts.len() {
            return None;
        }
        let mut sorted = against;
        sorted.sort_by_key(|d| d.sure);
        let most = sorted.get(sorted.len() / 2)?;
        let (moved, jump, ppm) = (-most.sure, -most.jump, -most.rate_ppm);
        let step = signed(self.options.step_ms * 1_000);
        // A fast rate makes every slot move; a step makes one.
        if jump.abs() > step && jump.abs() * 2 >= moved.abs() {
            Some(Fault::Step { ms: jump / 1_000 })
        } else {
            Some(Fault::Rate { ppm })
        }
    }

    /// Peers whose monotonic clocks stray, as far as we can tell: none if too few agree with us.
    #[must_use]
    pub fn strays(&self, drifts: &BTreeMap<NodeId, Drift>) -> Vec<NodeId> {
        let bound = self.options.stray_ms * 1_000;
        let (out, agree): (Vec<_>, Vec<_>) = drifts.iter().partition(|(_, d)| d.sure.unsigned_abs() > bound);
        // Us included on both sides.
        if (agree.len() + 1) * 2 <= drifts.len() + 1 {
            return Vec::new();
        }
        out.into_iter().map(|(node, _)| *node).collect()
    }

    /// What time it is for people.
    #[must_use]
    pub fn wall(&self, now: Clocks) -> Wall {
        let own = signed(now.wall) - signed(now.mono);
        let heard = self.heard_lately(now).filter_map(|(_, peer)| peer.slots.back());
        let mut voices: Vec<(i64, u64)> = heard.map(|kept| (kept.wall, kept.error)).collect();
        voices.push((own, 0));
        voices.sort_unstable();
        let middle = voices.len() / 2;
        let at = |k: usize| voices.get(k).map_or(own, |voice| voice.0);
        let base = if voices.len() % 2 == 1 {
            at(middle)
        } else {
            at(middle - 1) + (at(middle) - at(middle - 1)) / 2
        };
        let mut apart: Vec<u64> = voices.iter().map(|(wall, e)| wall.abs_diff(base) + e).collect();
        apart.sort_unstable();
        let error = apart.get(middle).copied().unwrap_or(0);
        let off = own - base;
        Wall {
            base,
            error,
            off,
            voices: voices.len(),
            wrong: voices.len() > 2 && off.unsigned_abs() > error.saturating_add(self.options.wall_ms * 1_000),
        }
    }
}

impl Peer {
    fn keep(&mut self, kept: Kept, options: &Options) {
        let (began, words) = self.slot;
        let over = kept.at.abs_diff(began) >= options.slot_ms * 1_000 || words >= SLOT_WORDS;
        // What moved surely is told apart at once: the best word of a slot must not hide a step.
        let moved = self
            .slots
            .back()
            .is_some_and(|best| best.mono.abs_diff(kept.mono) > best.error + kept.error + options.stray_ms * 1_000);
        match self.slots.back_mut() {
            Some(best) if !over && !moved => {
                if kept.error < best.error {
                    *best = kept;
                }
                self.slot.1 += 1;
            }
            _ => {
                self.slots.push_back(kept);
                self.slot = (kept.at, 1);
                let most = usize::try_from(options.window_ms / options.slot_ms.max(1)).unwrap_or(usize::MAX);
                while self.slots.len() > most.max(2) {
                    self.slots.pop_front();
                }
            }
        }
    }

    fn drift(&self) -> Option<Drift> {
        let (first, last) = (self.slots.front()?, self.slots.back()?);
        if self.slots.len() < 2 {
            return None;
        }
        let sure = |a: &Kept, b: &Kept| {
            let moved = b.mono - a.mono;
            let sure = moved.unsigned_abs().saturating_sub(a.error + b.error);
            moved.signum() * signed(sure)
        };
        let since = self.slots.iter().map(|slot| sure(slot, last));
        let pairs = self.slots.iter().zip(self.slots.iter().skip(1));
        let jumps = pairs.map(|(a, b)| sure(a, b));
        // By whichever clock ran: one of them may stand.
        let ours = signed(last.at.abs_diff(first.at));
        let elapsed = ours.max(ours + last.mono - first.mono).max(1);
        Some(Drift {
            sure: since.max_by_key(|d| d.unsigned_abs()).unwrap_or(0),
            jump: jumps.max_by_key(|d| d.unsigned_abs()).unwrap_or(0),
            rate_ppm: (last.mono - first.mono).saturating_mul(1_000_000) / elapsed,
        })
    }
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
