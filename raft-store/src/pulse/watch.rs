//! What a replica does next, by the clock and by who lives: speak up, ask to rest, rest, stand.
//!
//! openraft's own timers are off; these decisions stand for them, so that one look at all replicas of a node costs what
//! one group's timer would.
//!
//! **A leader** says a heartbeat when the slowest of its living followers last acknowledged something `fresh` ago. A
//! live shard's beats do that ten times a second, so it needs no heartbeat of its own. When it has had nothing to do for
//! `rest_after`, and every living follower has all that it has, it asks them to rest *in place of* a heartbeat; once
//! all have said yes, and nothing happened meanwhile, it rests too. Until then, and if anyone says no, the next
//! heartbeat wakes whoever rests already.
//!
//! **A follower** stands when its leader is gone, in order of succession: the first at once, the others a `step` later
//! each, so that candidates don't split the vote. Gone means, with `silence` the leader's lease:
//!
//! ```text
//!   leader's process has ended (`lives`)       at once, and by right of succession: nobody's lease stands against it
//!   leader's node lost, or in another life    silence since the leader's last word, not before it was seen to be lost
//!   no leader known (an election failed)      silence since anyone's last word; an heir: a step and a throw of dice later
//!   node lives, its replica says nothing      three silences: a busy node is no dead one
//! ```
//!
//! Whose log is longer than a candidate's stands at once, and whose log is shorter last: votes that were refused told them.
//!
//! Values in, values out; time is an argument. Deliberately absent: openraft, sockets, the state (what is *still* comes
//! as a question that is asked only when the answer matters).

use super::lives::Known;

/// The paces, in ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// Between heartbeats that are due.
    pub(crate) pace: u64,
    /// A follower that acknowledged something so recently needs no heartbeat.
    pub(crate) fresh: u64,
    /// The leader's lease.
    pub(crate) silence: u64,
    /// Between two in the order of succession; also the least time between two stands.
    pub(crate) step: u64,
    /// Nothing to do for so long, and the shard rests. 0: never.
    pub(crate) rest_after: u64,
}

/// What a replica is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Do {
    /// Say a heartbeat.
    Speak,
    /// Ask the living followers to rest.
    Ask,
    /// Rest, unless something happened since the question.
    Rest,
    /// Stand for election.
    Stand,
    /// Stand as the heir of a leader whose process has ended: voters needn't wait until its lease is over.
    Inherit,
}

/// A leader as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leader {
    /// Its last index: a change is work.
    pub(crate) last: u64,
    /// When the slowest living follower sent what it acknowledged last; `None`: nothing yet. No follower lives: now.
    pub(crate) acked: Option<u64>,
    /// All is applied, and every living follower has it.
    pub(crate) matched: bool,
}

/// A follower as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Follower {
    /// When a leader was heard last, or a vote given.
    pub(crate) heard: u64,
    /// The leader's node; `None`: no leader is known.
    pub(crate) leader: Option<Known>,
    /// Living replicas that come before this one in the order of succession.
    pub(crate) rank: u64,
    /// Somebody with less of the log stood, or refused its vote.
    pub(crate) longer: bool,
    /// Spreads what would coincide.
    pub(crate) dice: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Asking {
    at: u64,
    yes: u32,
    of: u32,
}

/// What must be remembered of a replica between two looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    last: u64,
    worked: u64,
    spoke: Option<u64>,
    asking: Option<Asking>,
    stood: Option<u64>,
    /// It stood as an heir, and nobody leads yet.
    heir: bool,
}

/// A question to which an answer hasn't come after so many paces is void.
const ASK_PACES: u64 = 3;

impl Watch {
    /// A replica that begins now.
    pub(crate) fn new(now: u64) -> Watch {
        Watch {
            worked: now,
            ..Watch::default()
        }
    }

    /// Something happened: whatever was asked is void, and idleness begins anew.
    pub(crate) fn stirred(&mut self, now: u64) {
        self.worked = now;
        self.asking = None;
    }

    /// The question went out to so many.
    pub(crate) fn asked(&mut self, now: u64, of: u32) {
        self.asking = Some(Asking { at: now, yes: 0, of });
    }

    /// An answer to the question of `at`.
    pub(crate) fn answered(&mut self, at: u64, yes: bool) {
        if let Some(asking) = &mut self.asking
            && asking.at == at
        {
            if yes {
                asking.yes += 1;
            } else {
                self.asking = None;
                // Idleness is not over, but it isn't asked about again at once.
                self.worked = self.worked.max(at);
            }
        }
    }

    /// A leader's next step. `still`: nothing waits, nothing flies, no timer pends, no start is near.
    pub(crate) fn lead(&mut self, now: u64, o: &Options, leader: Leader, still: impl FnOnce() -> bool) -> Option<Do> {
        self.stood = None;
        if leader.last != self.last {
            self.last = leader.last;
            self.stirred(now);
        }
        if let Some(asking) = self.asking {
            if asking.yes >= asking.of {
                self.asking = None;
                self.worked = now;
                return Some(Do::Rest);
            }
            if now < asking.at + o.pace * ASK_PACES {
                return None;
            }
            self.stirred(now);
        }
        let spoke_ago = self.spoke.map(|at| now.saturating_sub(at));
        let idle = o.rest_after > 0 && now >= self.worked + o.rest_after;
        // A heartbeat that is under way would wake whom we ask.
        let quiet = spoke_ago.is_none_or(|ago| ago >= o.pace);
        if idle && quiet && leader.matched && still() {
            return Some(Do::Ask);
        }
        let stale = leader.acked.is_none_or(|at| now >= at + o.fresh);
        if stale && quiet {
            self.spoke = Some(now);
            return Some(Do::Speak);
        }
        None
    }

    /// A follower's next step.
    pub(crate) fn follow(&mut self, now: u64, o: &Options, follower: Follower) -> Option<Do> {
        (self.asking, self.worked) = (None, now);
        let turn = follower.rank * o.step;
        let heard = follower.heard;
        let heir = matches!(follower.leader, Some(Known::Lost { surely: true, .. }));
        if follower.leader.is_some() {
            self.heir = false;
        }
        let mut due = match follower.leader {
            // Nobody needs to be waited for: what failed was only this election.
            None if self.heir || follower.longer => heard + turn,
            Some(Known::Lost { at, surely: true }) if follower.longer => at,
            Some(Known::Lost { at, surely: true }) => at + turn,
            Some(Known::Lost { at, surely: false }) => (heard + o.silence).max(at + turn),
            // It started again since: what it led, it leads no more.
            Some(Known::Alive { since }) if since > heard => (heard + o.silence).max(since + turn),
            Some(Known::Alive { .. } | Known::Unknown) => heard + o.silence * 3 + turn,
            None => heard + o.silence + turn,
        };
        // Who was refused by someone with less of the log has only learnt of another vote: the next one counts for more.
        if let Some(stood) = self.stood.filter(|_| !follower.longer) {
            due = due.max(stood + o.step + follower.dice % o.step.max(1));
        }
        if now < due {
            return None;
        }
        self.stood = Some(now);
        self.heir |= heir;
        Some(if heir { Do::Inherit } else { Do::Stand })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const O: Options = Options {
        pace: 50,
        fresh: 150,
        silence: 300,
        step: 75,
        rest_after: 2_000,
    };

    fn leader(acked: Option<u64>, matched: bool) -> Leader {
        Leader {
            last: 7,
            acked,
            matched,
        }
    }

    /// When a leader with a follower that acknowledged at `acked` speaks, looked at every 25 ms from 10,000 on.
    fn speaks(acked: impl Fn(u64) -> Option<u64>) -> Vec<u64> {
        let mut watch = Watch::new(0);
        let o = Options { rest_after: 0, ..O };
        let look = |now: &u64| watch.lead(*now, &o, leader(acked(*now), true), || true) == Some(Do::Speak);
        (10_000..10_401).step_by(25).filter(look).collect()
    }

    #[test]
    fn a_leader_speaks_when_it_must() {
        assert!(speaks(|now| Some(now - 100)).is_empty(), "beats do it");
        assert_eq!(
            speaks(|_| None).first(),
            Some(&10_000),
            "a follower that never answered"
        );
        assert_eq!(
            speaks(|_| Some(9_900)),
            (10_050..10_401).step_by(50).collect::<Vec<_>>(),
            "one that stopped"
        );
        // One that answers each heartbeat: one every `fresh`.
        let mut watch = Watch::new(0);
        let (mut acked, mut spoken) = (9_900, 0);
        for now in (10_000..13_000).step_by(25) {
            let o = Options { rest_after: 0, ..O };
            if watch.lead(now, &o, leader(Some(acked), true), || true) == Some(Do::Speak) {
                (acked, spoken) = (now, spoken + 1);
            }
        }
        assert_eq!(spoken, 20, "3,000 ms at one each 150");
    }

    #[test]
    fn a_leader_rests_when_all_have_said_yes_and_nothing_happened() {
        // (what happens after the question, what the next look says)
        type Then = fn(&mut Watch);
        let cases: [(&str, Then, Option<Do>); 6] = [
            ("nothing yet", |_| {}, None),
            ("one of two", |w| w.answered(20_000, true), None),
            (
                "both",
                |w| (0..2).for_each(|_| w.answered(20_000, true)),
                Some(Do::Rest),
            ),
            (
                "one no",
                |w| [true, false].into_iter().for_each(|yes| w.answered(20_000, yes)),
                Some(Do::Speak),
            ),
            (
                "answers to another question",
                |w| (0..2).for_each(|_| w.answered(19_000, true)),
                None,
            ),
            (
                "both, but it stirred",
                |w| {
                    (0..2).for_each(|_| w.answered(20_000, true));
                    w.stirred(20_010);
                },
                Some(Do::Speak),
            ),
        ];
        for (name, then, next) in cases {
            let mut watch = Watch::new(0);
            // The first look sees an index that it didn't know, which is work.
            assert_eq!(watch.lead(10_000, &O, leader(Some(9_990), true), || true), None);
            assert_eq!(
                watch.lead(20_000, &O, leader(Some(19_990), true), || true),
                Some(Do::Ask),
                "{name}"
            );
            watch.asked(20_000, 2);
            then(&mut watch);
            assert_eq!(
                watch.lead(20_025, &O, leader(Some(19_870), true), || true),
                next,
                "{name}"
            );
        }
    }

    #[test]
    fn a_leader_does_not_ask_while_anything_is_to_do() {
        for (name, idle, matched, still, asks) in [
            ("idle", 2_000, true, true, true),
            ("not for long enough", 1_999, true, true, false),
            ("a follower lags", 5_000, false, true, false),
            ("a timer pends", 5_000, true, false, false),
        ] {
            let mut watch = Watch::new(0);
            watch.lead(10_000, &O, leader(Some(10_000), true), || true);
            let now = 10_000 + idle;
            let next = watch.lead(now, &O, leader(Some(now), matched), || still);
            assert_eq!(next == Some(Do::Ask), asks, "{name}");
        }
    }

    #[test]
    fn a_question_without_answers_is_void_and_heartbeats_go_on() {
        let mut watch = Watch::new(0);
        watch.lead(10_000, &O, leader(Some(10_000), true), || true);
        assert_eq!(
            watch.lead(12_000, &O, leader(Some(12_000), true), || true),
            Some(Do::Ask)
        );
        watch.asked(12_000, 2);
        assert_eq!(watch.lead(12_149, &O, leader(Some(12_000), true), || true), None);
        assert_eq!(
            watch.lead(12_150, &O, leader(Some(12_000), true), || true),
            Some(Do::Speak)
        );
        assert_eq!(
            watch.lead(12_200, &O, leader(Some(12_150), true), || true),
            None,
            "it waits its time again"
        );
    }

    /// When a follower that last heard at 10,000 stands first, looked at every 5 ms.
    fn stands(leader: Option<Known>, rank: u64) -> Option<(Do, u64)> {
        let mut watch = Watch::new(0);
        let follower = Follower {
            heard: 10_000,
            leader,
            rank,
            longer: false,
            dice: 0,
        };
        (10_000..12_001)
            .step_by(5)
            .find_map(|now| Some((watch.follow(now, &O, follower)?, now)))
    }

    #[test]
    fn a_follower_stands_in_its_turn() {
        let alive = |since| Some(Known::Alive { since });
        let lost = |at| Some(Known::Lost { at, surely: false });
        for (name, leader, rank, at) in [
            ("no leader is known", None, 0, 10_300),
            ("no leader is known, second", None, 1, 10_375),
            ("its node is lost", lost(10_290), 0, 10_300),
            ("its node is lost, second", lost(10_290), 1, 10_365),
            (
                "lost late: a shard that rests hears nothing for hours",
                lost(11_000),
                0,
                11_000,
            ),
            ("lost late, third", lost(11_000), 2, 11_150),
            ("its node started again", alive(10_100), 0, 10_300),
            ("its node started again, later", alive(10_500), 1, 10_575),
            ("its node lives", alive(9_000), 0, 10_900),
            ("its node may be starting", Some(Known::Unknown), 1, 10_975),
        ] {
            assert_eq!(stands(leader, rank), Some((Do::Stand, at)), "{name}");
        }
    }

    #[test]
    fn an_heir_waits_for_no_lease() {
        for (name, rank, at) in [("first", 0, 10_005), ("second", 1, 10_080), ("third", 2, 10_155)] {
            let ended = Known::Lost {
                at: 10_005,
                surely: true,
            };
            assert_eq!(stands(Some(ended), rank), Some((Do::Inherit, at)), "{name}");
        }
    }

    #[test]
    fn who_stood_in_vain_waits_a_step_and_a_throw() {
        let mut watch = Watch::new(0);
        let follower = |dice| Follower {
            heard: 10_000,
            leader: None,
            rank: 0,
            longer: false,
            dice,
        };
        assert_eq!(watch.follow(10_300, &O, follower(80)), Some(Do::Stand));
        assert_eq!(watch.follow(10_379, &O, follower(80)), None);
        assert_eq!(
            watch.follow(10_380, &O, follower(80)),
            Some(Do::Stand),
            "75 and 80 % 75"
        );
    }

    /// An heir's first stand was in vain: when it stands again.
    fn stands_again(rank: u64, longer: bool, dice: u64) -> Option<u64> {
        let mut watch = Watch::new(0);
        let follower = |leader, rank, longer| Follower {
            heard: 10_000,
            leader,
            rank,
            longer,
            dice,
        };
        let ended = Known::Lost {
            at: 10_005,
            surely: true,
        };
        assert_eq!(
            watch.follow(10_155, &O, follower(Some(ended), 0, false)),
            Some(Do::Inherit)
        );
        let mut again =
            (10_156..12_001).filter_map(|now| Some((now, watch.follow(now, &O, follower(None, rank, longer))?)));
        again.next().map(|(now, _)| now)
    }

    #[test]
    fn an_heir_that_was_refused_stands_again_soon_and_with_the_longer_log_at_once() {
        for (name, rank, longer, dice, at) in [
            ("a step and a throw", 0, false, 30, 10_155 + 75 + 30),
            ("its log is the longer one", 0, true, 30, 10_156),
            ("its log is the shorter one", 3, false, 0, 10_155 + 75),
        ] {
            assert_eq!(stands_again(rank, longer, dice), Some(at), "{name}");
        }
    }

    #[test]
    fn the_longer_log_stands_only_if_nobody_leads() {
        for (name, leader, stands) in [
            ("a leader that lives", Some(Known::Alive { since: 9_000 }), None),
            (
                "one that is silent",
                Some(Known::Lost {
                    at: 10_000,
                    surely: false,
                }),
                None,
            ),
            (
                "one that has ended",
                Some(Known::Lost {
                    at: 10_000,
                    surely: true,
                }),
                Some(Do::Inherit),
            ),
            ("none", None, Some(Do::Stand)),
        ] {
            let follower = Follower {
                heard: 9_990,
                leader,
                rank: 0,
                longer: true,
                dice: 0,
            };
            assert_eq!(Watch::new(0).follow(10_001, &O, follower), stands, "{name}");
        }
    }
}
