//! Who lives: one lease for each peer, which stands for all groups at once.
//!
//! A peer lives while its pulses come; `silence` without one, and it is lost. A pulse names the *life* of its process:
//! another number means that it started again, and that whatever it led before, it leads no more.
//!
//! ```text
//!   unknown --pulse--> alive --silence--> lost --pulse--> alive (since now)
//!                        '---- pulse of another life ---> alive (since now)
//! ```
//!
//! **Who rests speaks seldom**, if its peers rest too, and says so: they then wait for three such pauses. Nothing is bid on
//! there, and the end of a process is told at once in any case; only a machine that loses its power while everybody rests is
//! missed later. As soon as one is awake, its pulse says so, and all speak at the usual pace again: whoever is awake gives
//! nobody more than the usual silence, counted from the moment at which it woke.
//!
//! **A process that was killed** need not be waited for. Its machine says so: its pulse to us ends, and nobody listens at
//! its address any more. Either alone proves little (a way that broke, a listener that hangs); both at once, with not a
//! word since, are as good as its own goodbye, so the peer is lost at once, and *surely*. A machine that loses its power
//! says nothing; there silence must do.
//!
//! **We may be the one that was away.** A process that was frozen finds every peer silent and none at fault. So a look
//! that comes late gives all peers the time that nobody listened.
//!
//! Values in, values out; time is an argument. Deliberately absent: sockets, groups.

use crate::options::RaftOptions;
use placement::NodeId;
use std::{collections::BTreeMap, time::Duration};

/// A look this many paces after the last one means that this process stood still.
const LATE_PACES: u64 = 4;
/// A peer that rests is lost after so many of its pauses …
const PAUSES: u64 = 3;
/// … but no pause is believed that is longer than so many silences.
const PAUSE_SILENCES: u64 = 10;
/// A peer that never spoke counts as lost once we have listened for so many silences.
const UNKNOWN_SILENCES: u64 = 3;

/// How long a peer is waited for that rests as long as we do.
pub(crate) fn patience_at_rest(raft: &RaftOptions) -> Duration {
    let pause = super::calm_pause(raft).min(raft.election_max * PAUSE_SILENCES as u32);
    raft.election_max.max(pause * PAUSES as u32)
}

#[derive(Debug)]
struct Peer {
    life: u64,
    heard: u64,
    /// When it came, came back, or started again.
    since: u64,
    lost_at: Option<u64>,
    leaving: bool,
    unfit: bool,
    /// Longest pause until its next pulse, as it said; 0: the pace.
    next: u64,
    /// Ways by which its pulses come.
    ways: u32,
    /// Nobody listened at its address, and no pulse came since.
    refused: bool,
    /// Lost by its machine's word.
    surely: bool,
}

/// What a pulse says of its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Said {
    /// Which life of the process.
    pub(crate) life: u64,
    /// It is about to stop.
    pub(crate) leaving: bool,
    /// It had better not lead.
    pub(crate) unfit: bool,
    /// It rests: its next pulse comes after so long at most, ms. 0: at the usual pace.
    pub(crate) next: u64,
}

/// What is known of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    /// Never heard, and it may still be starting.
    Unknown,
    /// Its pulses come, since this moment.
    Alive {
        /// Without a gap, in one life.
        since: u64,
    },
    /// They don't, since this moment.
    Lost {
        /// When that was seen.
        at: u64,
        /// The process has ended: it doesn't lead anything any more.
        surely: bool,
    },
}

/// The leases of all peers.
#[derive(Debug)]
pub(crate) struct Lives {
    pace: u64,
    silence: u64,
    began: u64,
    looked: u64,
    peers: BTreeMap<NodeId, Peer>,
    changes: u64,
    /// Something on this node is awake, since then as looks saw it.
    awake: Option<u64>,
    /// Somebody is awake, this node or a peer that lives.
    brisk: Option<u64>,
}

/// What came with a pulse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heard {
    /// The peer is here as it wasn't before: new, back, or in another life.
    pub(crate) anew: bool,
    /// The first word of somebody's being awake: it expects to hear of us.
    pub(crate) stirs: bool,
}

impl Lives {
    /// Nobody is known. `pace`: how often a peer's pulse comes; `silence`: without it so long, it is lost. In ms.
    pub(crate) fn new(pace: u64, silence: u64, now: u64) -> Lives {
        Lives {
            pace,
            silence,
            began: now,
            looked: now,
            peers: BTreeMap::new(),
            changes: 0,
            awake: Some(now),
            brisk: Some(now),
        }
    }

    /// A pulse came.
    pub(crate) fn hear(&mut self, now: u64, node: NodeId, said: Said) -> Heard {
        let Said {
            life,
            leaving,
            unfit,
            next,
        } = said;
        let next = next.min(self.silence * PAUSE_SILENCES);
        let known = self.peers.entry(node).or_insert(Peer {
            life,
            heard: now,
            since: now,
            lost_at: Some(now),
            leaving,
            unfit,
            next,
            ways: 0,
            refused: false,
            surely: false,
        });
        (known.refused, known.surely) = (false, false);
        let anew = known.lost_at.is_some() || known.life != life;
        if anew {
            (known.life, known.since, known.lost_at) = (life, now, None);
        }
        self.changes += u64::from(anew || (known.leaving, known.unfit) != (leaving, unfit));
        (known.heard, known.leaving, known.unfit, known.next) = (now, leaving, unfit, next);
        let brisk = self.brisk;
        self.stir(now);
        let stirs = brisk.is_none() && self.brisk.is_some();
        Heard { anew, stirs }
    }

    /// Notes whether anybody is awake.
    fn stir(&mut self, now: u64) {
        let awake = |peer: &Peer| peer.lost_at.is_none() && peer.next == 0;
        let brisk = self.awake.is_some() || self.peers.values().any(awake);
        self.brisk = brisk.then(|| self.brisk.unwrap_or(now));
    }

    /// A way opened by which a known peer's pulses come.
    pub(crate) fn way(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.ways += 1;
        }
    }

    /// One of them ended. True: with that the peer is lost.
    pub(crate) fn way_ended(&mut self, now: u64, node: NodeId) -> bool {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.ways = peer.ways.saturating_sub(1);
        }
        self.judge(now, node)
    }

    /// Nobody listens at a peer's address. True: with that the peer is lost.
    pub(crate) fn refused(&mut self, now: u64, node: NodeId) -> bool {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.refused = true;
        }
        self.judge(now, node)
    }

    fn judge(&mut self, now: u64, node: NodeId) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else {
            return false;
        };
        let lost = peer.ways == 0 && peer.refused && !peer.surely;
        if lost {
            peer.surely = true;
            peer.lost_at = Some(now);
            self.changes += 1;
        }
        lost
    }

    /// Takes a look at `now`; tells who was lost. `paused`: how long this node itself rested since the last look, on purpose.
    /// `awake`: something on it is awake.
    pub(crate) fn look(&mut self, now: u64, paused: u64, awake: bool) -> Vec<NodeId> {
        let gap = now.saturating_sub(self.looked);
        self.looked = now;
        let away = if gap > self.pace * LATE_PACES + paused { gap } else { 0 };
        self.awake = awake.then(|| self.awake.map_or(now, |since| (since + away).min(now)));
        let mut lost = Vec::new();
        for (node, peer) in &mut self.peers {
            peer.heard = (peer.heard + away).min(now);
            let (since, patience) = match self.awake {
                // One that spoke seldom until now has heard of it meanwhile, or it isn't there.
                Some(awake) if peer.next > 0 => (peer.heard.max(awake), self.silence),
                Some(_) => (peer.heard, self.silence),
                None => (peer.heard, self.silence.max(peer.next * PAUSES)),
            };
            #[cfg(feature = "sim")]
            let patience = match crate::sim::planted(crate::sim::Plant::SilenceUnseen) {
                true => u64::MAX,
                false => patience,
            };
            if peer.lost_at.is_none() && now - since >= patience {
                peer.lost_at = Some(now);
                lost.push(*node);
            }
        }
        self.changes += lost.len() as u64;
        self.stir(now);
        lost
    }

    /// What is known of a peer.
    pub(crate) fn known(&self, now: u64, node: NodeId) -> Known {
        match self.peers.get(&node) {
            Some(Peer {
                lost_at: Some(at),
                surely,
                ..
            }) => Known::Lost {
                at: *at,
                surely: *surely,
            },
            Some(Peer { since, .. }) => Known::Alive { since: *since },
            None if now < self.began + self.silence * UNKNOWN_SILENCES => Known::Unknown,
            None => Known::Lost {
                at: self.began,
                surely: false,
            },
        }
    }

    /// Whether a peer spoke within the last `fresh` ms; or, while everybody rested until just now, as lately as it said.
    pub(crate) fn is_fresh(&self, now: u64, node: NodeId, fresh: u64) -> bool {
        let rested = self.brisk.is_none_or(|since| now.saturating_sub(since) < self.silence);
        let fresh = |peer: &Peer| {
            let pause = if rested { peer.next * 3 / 2 } else { 0 };
            now.saturating_sub(peer.heard) < fresh.max(pause)
        };
        self.peers.get(&node).is_some_and(fresh)
    }

    /// Whether nobody is awake, on this node or elsewhere: then all may speak seldom.
    pub(crate) fn all_rest(&self) -> bool {
        self.brisk.is_none()
    }

    /// Whether a peer said that it is about to stop.
    pub(crate) fn leaves(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.leaving)
    }

    /// Whether a peer said that it had better not lead.
    pub(crate) fn is_unfit(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.unfit)
    }

    /// Rises with every change of anyone's state.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// How many peers live.
    pub(crate) fn alive(&self) -> usize {
        self.peers.values().filter(|peer| peer.lost_at.is_none()).count()
    }
}

#[cfg(test)]
mod tests;
