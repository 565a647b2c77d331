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

use placement::NodeId;
use std::collections::BTreeMap;

/// A look this many paces after the last one means that this process stood still.
const LATE_PACES: u64 = 4;
/// A peer that rests is lost after so many of its pauses …
const PAUSES: u64 = 3;
/// … but no pause is believed that is longer than so many silences.
const PAUSE_SILENCES: u64 = 10;
/// A peer that never spoke counts as lost once we have listened for so many silences.
const UNKNOWN_SILENCES: u64 = 3;

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
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);

    fn said(life: u64) -> Said {
        Said {
            life,
            leaving: false,
            unfit: false,
            next: 0,
        }
    }

    fn lives() -> Lives {
        Lives::new(50, 300, 1_000)
    }

    /// What happens, when; and what is known of the peer then.
    enum Step {
        Pulse(u64),
        Look,
    }
    use Step::{Look, Pulse};

    #[test]
    fn a_peer_lives_by_its_pulses() {
        let alive = |since| Known::Alive { since };
        let lost = |at| Known::Lost { at, surely: false };
        for (name, steps, known) in [
            ("never heard", vec![(1_100, Look)], Known::Unknown),
            ("never heard, for long", vec![(1_900, Look)], lost(1_000)),
            ("heard", vec![(1_050, Pulse(7)), (1_100, Look)], alive(1_050)),
            (
                "silent, not yet lost",
                vec![(1_050, Pulse(7)), (1_150, Look), (1_250, Look), (1_349, Look)],
                alive(1_050),
            ),
            (
                "silent, lost",
                vec![(1_050, Pulse(7)), (1_150, Look), (1_250, Look), (1_350, Look)],
                lost(1_350),
            ),
            (
                "back",
                vec![
                    (1_050, Pulse(7)),
                    (1_200, Look),
                    (1_350, Look),
                    (1_500, Look),
                    (1_600, Pulse(7)),
                ],
                alive(1_600),
            ),
            (
                "another life, without a gap",
                vec![(1_050, Pulse(7)), (1_100, Pulse(8))],
                alive(1_100),
            ),
            (
                "we were frozen for two seconds",
                vec![(1_050, Pulse(7)), (1_100, Look), (3_100, Look)],
                alive(1_050),
            ),
            (
                "we were frozen, and the peer is silent since",
                vec![
                    (1_050, Pulse(7)),
                    (1_100, Look),
                    (3_100, Look),
                    (3_250, Look),
                    (3_349, Look),
                    (3_350, Look),
                ],
                lost(3_350),
            ),
        ] {
            let mut lives = lives();
            let mut now = 0;
            for (at, step) in steps {
                now = at;
                match step {
                    Pulse(life) => drop(lives.hear(at, A, said(life))),
                    Look => drop(lives.look(at, 0, true)),
                }
            }
            assert_eq!(lives.known(now, A), known, "{name}");
        }
    }

    #[test]
    fn a_killed_process_is_lost_at_once() {
        #[derive(Clone, Copy)]
        enum Word {
            Pulse(u64),
            WayEnds,
            Refused,
            Opens,
        }
        use Word::{Opens, Pulse, Refused, WayEnds};
        let sure = |at| Known::Lost { at, surely: true };
        let alive = |since| Known::Alive { since };
        for (name, words, known) in [
            ("its pulse ends", vec![WayEnds], alive(1_000)),
            ("nobody listens", vec![Refused], alive(1_000)),
            ("both", vec![WayEnds, Refused], sure(1_003)),
            ("both, the other way round", vec![Refused, WayEnds], sure(1_003)),
            ("it spoke in between", vec![Refused, Pulse(7), WayEnds], alive(1_000)),
            ("two ways, one ends", vec![Opens, Refused, WayEnds], alive(1_000)),
            (
                "it came back in another life",
                vec![WayEnds, Refused, Pulse(8), Opens],
                alive(1_004),
            ),
        ] {
            let mut lives = lives();
            lives.hear(1_000, A, said(7));
            lives.way(A);
            let mut now = 1_001;
            for word in words {
                now += 1;
                match word {
                    Pulse(life) => drop(lives.hear(now, A, said(life))),
                    WayEnds => drop(lives.way_ended(now, A)),
                    Refused => drop(lives.refused(now, A)),
                    Opens => lives.way(A),
                }
            }
            assert_eq!(lives.known(now, A), known, "{name}");
        }
        assert!(
            !lives().refused(1_000, A),
            "a peer that was never heard may still be starting"
        );
    }

    fn resting(next: u64) -> Said {
        Said { next, ..said(7) }
    }

    #[test]
    fn who_rests_is_waited_for_as_long_as_it_said() {
        // (peer's pause, ours, looks, found lost at)
        for (name, next, paused, looks, lost) in [
            ("at the usual pace", 0, 0, vec![1_100, 1_250, 1_299, 1_300], 1_300),
            ("one that rests", 500, 0, (1_100..=2_500).step_by(100).collect(), 2_500),
            (
                "a pause that nobody believes",
                1_000_000,
                0,
                (1_100..=10_000).step_by(100).collect(),
                10_000,
            ),
            ("we rest, too", 500, 500, vec![1_500, 2_000, 2_500], 2_500),
            (
                "we rest, and were away",
                500,
                500,
                vec![1_500, 2_300, 2_800, 3_299, 3_300],
                3_300,
            ),
        ] {
            let mut lives = lives();
            lives.hear(1_000, A, resting(next));
            let found = looks.into_iter().find(|at| !lives.look(*at, paused, false).is_empty());
            assert_eq!(found, Some(lost), "{name}");
        }
    }

    /// Somebody wakes: the usual silence holds for all from then on, whatever they said before.
    #[test]
    fn who_is_awake_waits_for_nobody_longer_than_usual() {
        const B: NodeId = NodeId(2);
        let rest = || {
            let mut lives = lives();
            lives.hear(1_000, A, resting(500));
            lives.hear(1_000, B, resting(500));
            assert_eq!(lives.look(1_000, 0, false), []);
            assert!(lives.all_rest());
            assert_eq!(lives.look(1_500, 500, false), []);
            lives
        };
        let mut we = rest();
        assert!(
            we.is_fresh(1_749, A, 150) && !we.is_fresh(1_750, A, 150),
            "as late as it said"
        );
        assert_eq!(we.look(1_700, 0, true), [], "its time counts from our waking");
        assert!(!we.all_rest());
        assert_eq!(
            we.hear(1_701, B, resting(500)),
            Heard {
                anew: false,
                stirs: false
            }
        );
        assert_eq!(we.look(1_850, 0, true), []);
        assert_eq!(we.look(1_999, 0, true), []);
        assert_eq!(we.look(2_000, 0, true), [A], "it heard that we woke, or isn't there");
        assert_eq!(we.look(2_001, 0, true), [B], "nor may the other pause any more");

        let mut frozen = rest();
        assert_eq!(frozen.look(1_700, 0, true), []);
        assert_eq!(frozen.look(9_000, 0, true), [], "we were away, they weren't");
        assert_eq!(frozen.look(9_150, 0, true), []);
        assert_eq!(frozen.look(9_299, 0, true), []);
        assert_eq!(frozen.look(9_300, 0, true), [A, B]);

        let mut peer = rest();
        assert_eq!(
            peer.hear(1_700, B, said(7)),
            Heard {
                anew: false,
                stirs: true
            },
            "it expects a word"
        );
        assert_eq!(
            peer.hear(1_750, B, said(7)),
            Heard {
                anew: false,
                stirs: false
            },
            "once"
        );
        assert!(!peer.all_rest() && peer.is_fresh(1_749, A, 150));
        assert!(!peer.is_fresh(2_000, A, 150), "A heard of it, too");
        assert_eq!(peer.look(1_800, 500, false), [], "we rest: A may be deaf to B only");
        assert_eq!(peer.look(2_100, 500, false), [B]);
        assert!(peer.all_rest(), "who is lost wakes nobody");
        peer.hear(2_200, B, resting(500));
        assert!(peer.all_rest());
    }

    #[test]
    fn changes_are_told_once() {
        let mut lives = lives();
        assert!(lives.hear(1_050, A, said(7)).anew, "new");
        assert!(!lives.hear(1_100, A, said(7)).anew, "the same");
        let before = lives.changes();
        assert_eq!(lives.look(1_200, 0, true), []);
        assert_eq!(lives.look(1_399, 0, true), []);
        assert_eq!(lives.look(1_400, 0, true), [A]);
        assert_eq!(lives.look(1_500, 0, true), [], "told already");
        assert_eq!((lives.changes(), lives.alive()), (before + 1, 0));
        let leaving = Said {
            leaving: true,
            ..said(7)
        };
        assert!(lives.hear(1_600, A, leaving).anew, "back");
        assert!(lives.leaves(A));
        assert!(lives.is_fresh(1_649, A, 50) && !lives.is_fresh(1_650, A, 50));
        let (before, unfit) = (lives.changes(), Said { unfit: true, ..said(7) });
        assert!(!lives.hear(1_660, A, unfit).anew && lives.is_unfit(A), "no other life");
        assert_eq!(lives.changes(), before + 1, "but another state");
        lives.hear(1_670, A, said(7));
        assert!(!lives.is_unfit(A));
    }
}
