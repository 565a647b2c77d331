//! From a command to the node that judges it, and back with a verdict.
//!
//! `Route` is the decision alone: told what a node answered, it says whom to ask next and when. `Routes` carries it out
//! over the `Shards` port. In a steady cluster the first answer is the verdict; after a change of leader one redirect is
//! enough. An answer that is no verdict (`Busy`, *not judged*, *unknown*, a lost connection) is asked again with the same
//! id, so that it can never act twice and is never shown as a failure, until the deadline of the caller.
//!
//! ```text
//!   Ask{leader} --Verdict--------------------> Done
//!      | NotLeader{hint}: at once, then slower as hints disagree
//!      | Unknown: whoever is said to lead now, else the next replica
//!      | Busy, NotJudged, WrongEpoch: the same, later
//!      | NoRoom: whoever leads by then, a few times; then GiveUp: DiskFull
//!      '--(deadline)--> GiveUp: Timeout if it may have been judged, else Unavailable
//! ```

use crate::{
    metrics,
    ports::{ClusterMapSource, Freshness, PortError, Shards},
};
use auction::{AuctionId, AuctionView, Command, Reason, Reply, Verdict};
use parking_lot::RwLock;
use placement::{ClusterMap, NodeId, ShardId};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask this node after a pause.
    Ask { node: NodeId, after_ms: u64 },
    /// Judged.
    Done(Box<Verdict>),
    /// No time left, or nobody to ask.
    GiveUp(GiveUp),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveUp {
    /// It may have been judged: the same id asks for the verdict again.
    Timeout,
    /// Certainly not judged.
    Unavailable,
    /// Certainly not judged: the leader's disk has no room, and no other leader came.
    DiskFull,
    /// (Reads only.) No such auction.
    NotFound,
    /// (Reads only.) Its record was lost: every replica of its shard knows.
    Lost,
}

/// Pause after an answer that promises nothing, ms: long enough not to storm a node that takes office.
const PAUSE_MS: u64 = 20;
/// The first pause of a command that wasn't judged, ms; twice as long each time, up to `PAUSE_MS`: an office is taken within
/// a few ms of the election.
const FIRST_MS: u64 = 5;
/// Pause once every replica was asked in vain, ms.
const ROUND_MS: u64 = 50;
/// How long a node may be silent while another is said to lead.
const QUIET: Duration = Duration::from_millis(250);
/// Answers of a full disk after which we believe it: by then its leaderships have gone elsewhere, if they can.
const NO_ROOM_MAX: u32 = 4;
/// Longest pause that a busy node can ask of us, ms.
const BUSY_MS_MAX: u64 = 250;

/// One command's way.
#[derive(Debug)]
pub(crate) struct Route {
    replicas: Vec<NodeId>,
    asked: NodeId,
    /// Redirects in a row: two may be followed at once, more means that hints disagree.
    hops: u32,
    /// Answers in a row that were no help; counts rounds over the replicas.
    vain: usize,
    /// Answers that the leader's disk has no room.
    no_room: u32,
    /// Answers in a row that it wasn't judged.
    not_judged: u32,
    /// Whether any answer left it open that it was judged.
    unknown: bool,
    deadline_ms: u64,
}

impl Route {
    /// A way that begins at `first`.
    pub(crate) fn new(first: NodeId, replicas: Vec<NodeId>, deadline_ms: u64) -> Route {
        Route {
            replicas,
            asked: first,
            hops: 0,
            vain: 0,
            no_room: 0,
            not_judged: 0,
            unknown: false,
            deadline_ms,
        }
    }

    /// The map changed: other replicas.
    pub(crate) fn replicas(&mut self, replicas: Vec<NodeId>) {
        self.replicas = replicas;
    }

    /// What to do after `reply`, `elapsed_ms` into the way. `leader`: who leads, as this node knows by now.
    pub(crate) fn next(&mut self, reply: Reply, leader: Option<NodeId>, elapsed_ms: u64) -> Step {
        let elsewhere = leader.filter(|l| *l != self.asked);
        let not_judged = self.not_judged;
        self.not_judged = 0;
        let (node, after_ms) = match reply {
            Reply::Verdict(verdict) => return Step::Done(Box::new(verdict)),
            Reply::NotLeader { hint, .. } => {
                let hint = hint.map(NodeId).filter(|h| *h != self.asked);
                match hint.or(elsewhere) {
                    Some(node) => {
                        self.hops += 1;
                        (node, if self.hops <= 2 { 0 } else { PAUSE_MS })
                    }
                    None => self.another(),
                }
            }
            Reply::Unknown => {
                self.unknown = true;
                match elsewhere {
                    Some(node) if self.vain < self.replicas.len() => {
                        self.vain += 1;
                        (node, 0)
                    }
                    _ => self.another(),
                }
            }
            Reply::Busy { retry_after_ms } => {
                self.hops = 0;
                (self.asked, u64::from(retry_after_ms).clamp(1, BUSY_MS_MAX))
            }
            Reply::NoRoom { retry_after_ms } => {
                self.no_room += 1;
                // What may have been judged already is asked for until the deadline.
                if self.no_room >= NO_ROOM_MAX && !self.unknown {
                    return Step::GiveUp(GiveUp::DiskFull);
                }
                let pause = u64::from(retry_after_ms).clamp(1, BUSY_MS_MAX);
                elsewhere.map_or((self.asked, pause), |node| (node, PAUSE_MS))
            }
            Reply::NotJudged => {
                self.not_judged = not_judged + 1;
                let pause = (FIRST_MS << not_judged.min(8)).min(PAUSE_MS);
                (elsewhere.unwrap_or(self.asked), pause)
            }
            Reply::WrongEpoch { .. } => (self.asked, PAUSE_MS),
        };
        if elapsed_ms + after_ms >= self.deadline_ms {
            return Step::GiveUp(if self.unknown {
                GiveUp::Timeout
            } else {
                GiveUp::Unavailable
            });
        }
        self.asked = node;
        Step::Ask { node, after_ms }
    }

    /// A pause was cut short: another node leads now.
    fn turn_to(&mut self, leader: NodeId) {
        self.asked = leader;
        (self.hops, self.vain) = (0, 0);
    }

    /// The next replica in order; slower once all were asked.
    fn another(&mut self) -> (NodeId, u64) {
        self.hops = 0;
        self.vain += 1;
        let at = self.replicas.iter().position(|r| *r == self.asked);
        let next = at.map_or(0, |i| i + 1) % self.replicas.len().max(1);
        let node = self.replicas.get(next).copied().unwrap_or(self.asked);
        (
            node,
            if self.vain < self.replicas.len() {
                PAUSE_MS
            } else {
                ROUND_MS
            },
        )
    }
}

/// Carries routes out, and remembers who led.
pub(crate) struct Routes {
    shards: Arc<dyn Shards>,
    map: watch::Receiver<Arc<ClusterMap>>,
    me: NodeId,
    ask: Duration,
    deadline: Duration,
    led: RwLock<BTreeMap<ShardId, Led>>,
}

/// Who last gave a verdict of a shard, and who was said to lead it then: once that word changes, it is newer.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Led {
    node: NodeId,
    rumour: Option<NodeId>,
}

impl Routes {
    pub(crate) fn new(
        shards: Arc<dyn Shards>,
        map: &dyn ClusterMapSource,
        ask: Duration,
        deadline: Duration,
    ) -> Routes {
        Routes {
            shards,
            map: map.map(),
            me: map.me(),
            ask,
            deadline,
            led: RwLock::default(),
        }
    }

    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        self.map.borrow().clone()
    }

    pub(crate) fn shard_of(&self, auction: &AuctionId) -> ShardId {
        self.map.borrow().shard_of(auction.as_str())
    }

    /// Who leads a shard, as far as this edge knows; else who should.
    pub(crate) fn leader(&self, shard: ShardId) -> Option<NodeId> {
        let rumour = self.shards.leader(shard);
        match self.led.read().get(&shard) {
            Some(led) if led.rumour == rumour || rumour.is_none() => Some(led.node),
            _ => rumour.or_else(|| self.map.borrow().preferred_leader(shard)),
        }
    }

    /// Remembers who answered for a shard. Written only when it changes: verdicts come by the thousand.
    fn answered(&self, shard: ShardId, node: NodeId) {
        let led = Led {
            node,
            rumour: self.shards.leader(shard),
        };
        if self.led.read().get(&shard) != Some(&led) {
            self.led.write().insert(shard, led);
        }
    }

    /// The nodes that hold a replica, in the order in which to ask for what any of them can answer: this one, the
    /// leader, the rest.
    pub(crate) fn near(&self, shard: ShardId) -> Vec<NodeId> {
        let leader = self.leader(shard);
        let mut nodes = replicas(&self.map.borrow(), shard);
        nodes.sort_by_key(|n| (*n != self.me, Some(*n) != leader));
        nodes
    }

    /// Asks until there is a verdict.
    pub(crate) async fn submit(&self, command: Command) -> Result<Verdict, GiveUp> {
        let shard = self.shard_of(&command.auction);
        let verdict = self
            .drive(shard, |node, epoch| {
                let command = command.clone();
                async move {
                    Answer::<std::convert::Infallible>::Reply(self.shards.submit(node, shard, epoch, command).await)
                }
            })
            .await?;
        match verdict {
            Got::Verdict(verdict) => Ok(*verdict),
            Got::Other(never) => match never {},
        }
    }

    /// One auction. Linear reads go to the leader; others to whoever has it, then to the leader.
    pub(crate) async fn read(&self, auction: &AuctionId, fresh: Freshness) -> Result<AuctionView, GiveUp> {
        let shard = self.shard_of(auction);
        if let Freshness::AtLeast(_) = fresh {
            for node in self.near(shard) {
                if let Ok(Ok(view)) = time::timeout(self.ask, self.shards.read(node, shard, auction, fresh)).await {
                    return Ok(view);
                }
            }
        }
        self.at_leader(shard, |node| self.shards.read(node, shard, auction, Freshness::Linear))
            .await
    }

    /// Asks any replica that can answer: this node's first, then the leader, then the rest, once each.
    pub(crate) async fn nearest<T, F, Fut>(&self, shard: ShardId, ask: F) -> Result<T, GiveUp>
    where
        F: Fn(NodeId) -> Fut,
        Fut: Future<Output = Result<T, PortError>>,
    {
        let mut missing = false;
        for node in self.near(shard) {
            match time::timeout(self.ask, ask(node)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(PortError::NotFound)) => missing = true,
                Ok(Err(PortError::Refused(why))) if why == Reason::Lost.code() => return Err(GiveUp::Lost),
                Ok(Err(error)) => tracing::debug!(node = node.0, %error, "a replica gave no answer"),
                Err(_) => tracing::debug!(node = node.0, "a replica gave no answer in time"),
            }
        }
        Err(if missing { GiveUp::NotFound } else { GiveUp::Unavailable })
    }

    /// Asks the leader, whoever it is, until the deadline.
    pub(crate) async fn at_leader<T, F, Fut>(&self, shard: ShardId, ask: F) -> Result<T, GiveUp>
    where
        F: Fn(NodeId) -> Fut,
        Fut: Future<Output = Result<T, PortError>>,
    {
        let got = self
            .drive(shard, |node, _| {
                let answer = ask(node);
                async move {
                    match answer.await {
                        Ok(value) => Answer::Final(Ok(value)),
                        Err(PortError::NotLeader { hint }) => Answer::Reply(Reply::NotLeader {
                            hint: hint.map(|h| h.0),
                            term: 0,
                        }),
                        Err(PortError::Unreachable(_)) => Answer::Reply(Reply::Unknown),
                        Err(PortError::NotFound) => Answer::Final(Err(GiveUp::NotFound)),
                        Err(PortError::Refused(why)) if why == Reason::Lost.code() => Answer::Final(Err(GiveUp::Lost)),
                        // It can't right now (no majority heard of, an index not reached): later it may.
                        Err(PortError::Refused(why)) => {
                            tracing::debug!(node = node.0, why, "a leader refused a question");
                            Answer::Reply(Reply::NotJudged)
                        }
                    }
                }
            })
            .await;
        match got {
            Ok(Got::Other(answer)) => answer,
            // A question has no verdict, and an unknown outcome of a question is no outcome.
            Ok(Got::Verdict(_)) | Err(_) => Err(GiveUp::Unavailable),
        }
    }

    async fn drive<T, F, Fut>(&self, shard: ShardId, ask: F) -> Result<Got<T>, GiveUp>
    where
        F: Fn(NodeId, u64) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        let begun = Instant::now();
        let map = self.map();
        let Some(first) = self.leader(shard) else {
            return Err(GiveUp::Unavailable);
        };
        let mut epoch = map.epoch;
        let mut route = Route::new(first, replicas(&map, shard), self.deadline.as_millis() as u64);
        let mut node = first;
        loop {
            let reply = match self.once(shard, node, ask(node, epoch)).await {
                Answer::Final(answer) => {
                    self.answered(shard, node);
                    return Ok(Got::Other(answer));
                }
                Answer::Reply(reply) => reply,
            };
            metrics::asked(word(&reply));
            match &reply {
                Reply::Verdict(_) => self.answered(shard, node),
                Reply::NotLeader { .. } | Reply::Unknown => {
                    self.led.write().remove(&shard);
                }
                Reply::WrongEpoch { epoch: theirs } => self.await_map(*theirs).await,
                Reply::Busy { .. } | Reply::NoRoom { .. } | Reply::NotJudged => {}
            }
            let map = self.map();
            if map.epoch != epoch {
                epoch = map.epoch;
                route.replicas(replicas(&map, shard));
            }
            match route.next(reply, self.shards.leader(shard), begun.elapsed().as_millis() as u64) {
                Step::Done(verdict) => return Ok(Got::Verdict(verdict)),
                Step::GiveUp(why) => return Err(why),
                Step::Ask { node: next, after_ms } => {
                    node = next;
                    if after_ms > 0
                        && let Some(leader) = self.pause(shard, Duration::from_millis(after_ms)).await
                        && leader != node
                    {
                        route.turn_to(leader);
                        node = leader;
                    }
                }
            }
        }
    }

    /// One question. Given up when it takes too long, or as soon as another leader is known: a node that froze answers
    /// nothing, and the new leader has the clock by then.
    async fn once<T>(&self, shard: ShardId, node: NodeId, answer: impl Future<Output = Answer<T>>) -> Answer<T> {
        let before = self.shards.leader(shard);
        let began = Instant::now();
        tokio::pin!(answer);
        loop {
            match time::timeout(Duration::from_millis(50).min(self.ask), &mut answer).await {
                Ok(answer) => return answer,
                Err(_) => {
                    let now = self.shards.leader(shard);
                    // At once if the word changed meanwhile; if it was another's name all along, this node had its time.
                    let other = now.is_some_and(|l| l != node);
                    let moved = other && (now != before || began.elapsed() >= QUIET);
                    if moved || began.elapsed() >= self.ask {
                        return Answer::Reply(Reply::Unknown);
                    }
                }
            }
        }
    }

    /// Waits before the next question; cut short by word of another leader than the one that was known until now.
    async fn pause(&self, shard: ShardId, pause: Duration) -> Option<NodeId> {
        let before = self.shards.leader(shard);
        let mut news = self.shards.clock_news();
        let another = async {
            while news.changed().await.is_ok() {
                let now = self.shards.leader(shard);
                if now.is_some() && now != before {
                    return now;
                }
            }
            std::future::pending().await
        };
        time::timeout(pause, another).await.ok().flatten()
    }

    /// Waits a moment for a map at least as new as `epoch`.
    async fn await_map(&self, epoch: u64) {
        let mut map = self.map.clone();
        let newer = map.wait_for(|m| m.epoch >= epoch);
        let _ = time::timeout(Duration::from_millis(200), newer).await;
    }
}

enum Answer<T> {
    Reply(Reply),
    Final(T),
}

enum Got<T> {
    Verdict(Box<Verdict>),
    Other(T),
}

fn replicas(map: &ClusterMap, shard: ShardId) -> Vec<NodeId> {
    map.replicas_of(shard).iter().map(|(node, _)| *node).collect()
}

fn word(reply: &Reply) -> &'static str {
    match reply {
        Reply::Verdict(_) => "verdict",
        Reply::NotLeader { .. } => "not_leader",
        Reply::WrongEpoch { .. } => "wrong_epoch",
        Reply::Busy { .. } => "busy",
        Reply::NoRoom { .. } => "no_room",
        Reply::NotJudged => "not_judged",
        Reply::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use auction::{Phase, Stamp};

    fn verdict() -> Verdict {
        Verdict {
            outcome: Ok(()),
            seq: 1,
            price: 1,
            least: 2,
            leader: None,
            phase: Phase::Live,
            ct: Stamp(1),
            ends_at: None,
            hash: [0; 32],
            dup: false,
        }
    }

    const REPLICAS: [u64; 3] = [1, 2, 3];

    fn ask(node: u64, after_ms: u64) -> Step {
        Step::Ask {
            node: NodeId(node),
            after_ms,
        }
    }

    /// A way that begins at node 1, told these replies (each with who is said to lead), and what it does each time.
    fn check(rows: &[(Reply, Option<u64>, u64, Step)]) {
        let mut route = Route::new(NodeId(1), REPLICAS.map(NodeId).to_vec(), 5_000);
        for (i, (reply, leader, elapsed, expected)) in rows.iter().enumerate() {
            assert_eq!(
                &route.next(reply.clone(), leader.map(NodeId), *elapsed),
                expected,
                "row {i}"
            );
        }
    }

    fn hint(node: u64) -> Reply {
        Reply::NotLeader {
            hint: Some(node),
            term: 1,
        }
    }

    const LOST: Reply = Reply::NotLeader { hint: None, term: 1 };

    #[test]
    fn a_steady_cluster_needs_one_answer() {
        check(&[(Reply::Verdict(verdict()), Some(1), 1, Step::Done(Box::new(verdict())))]);
    }

    #[test]
    fn a_redirect_is_followed_at_once() {
        check(&[
            (hint(3), None, 1, ask(3, 0)),
            (Reply::Verdict(verdict()), None, 2, Step::Done(Box::new(verdict()))),
        ]);
    }

    #[test]
    fn hints_that_disagree_slow_down() {
        check(&[
            (hint(2), None, 1, ask(2, 0)),
            (hint(1), None, 2, ask(1, 0)),
            (hint(2), None, 3, ask(2, PAUSE_MS)),
        ]);
    }

    #[test]
    fn a_node_that_names_itself_is_not_believed() {
        check(&[(hint(1), None, 1, ask(2, PAUSE_MS))]);
    }

    #[test]
    fn without_a_hint_every_replica_is_asked_then_it_waits() {
        check(&[
            (LOST, None, 1, ask(2, PAUSE_MS)),
            (LOST, None, 2, ask(3, PAUSE_MS)),
            (LOST, None, 3, ask(1, ROUND_MS)),
        ]);
    }

    #[test]
    fn an_unknown_outcome_is_asked_again_of_whoever_leads_now() {
        check(&[
            (Reply::Unknown, Some(1), 1, ask(2, PAUSE_MS)),
            (Reply::Unknown, Some(3), 2, ask(3, 0)),
        ]);
    }

    #[test]
    fn a_dead_node_that_still_seems_to_lead_doesnt_catch_us() {
        check(&[
            (LOST, Some(2), 1, ask(2, 0)),
            (Reply::Unknown, Some(2), 2, ask(3, PAUSE_MS)),
            (Reply::Unknown, Some(2), 3, ask(2, 0)),
            (Reply::Unknown, Some(2), 4, ask(3, ROUND_MS)),
            (Reply::Unknown, Some(2), 5, ask(1, ROUND_MS)),
        ]);
    }

    #[test]
    fn busy_and_not_judged_ask_the_same_later() {
        check(&[
            (Reply::Busy { retry_after_ms: 40 }, Some(1), 1, ask(1, 40)),
            (Reply::Busy { retry_after_ms: 60_000 }, Some(1), 2, ask(1, BUSY_MS_MAX)),
            (Reply::NotJudged, Some(1), 3, ask(1, 5)),
            (Reply::NotJudged, Some(2), 4, ask(2, 10)),
            (Reply::NotJudged, Some(2), 5, ask(2, PAUSE_MS)),
            (Reply::NotJudged, Some(2), 5, ask(2, PAUSE_MS)),
            (Reply::WrongEpoch { epoch: 9 }, Some(2), 5, ask(2, PAUSE_MS)),
        ]);
    }

    #[test]
    fn a_full_disk_is_believed_after_a_while_and_another_leader_is_asked() {
        let full = || Reply::NoRoom { retry_after_ms: 1_000 };
        let full_disk = Step::GiveUp(GiveUp::DiskFull);
        check(&[
            (full(), Some(1), 1, ask(1, BUSY_MS_MAX)),
            (full(), Some(1), 251, ask(1, BUSY_MS_MAX)),
            (full(), Some(2), 501, ask(2, PAUSE_MS)),
            (full(), Some(2), 521, full_disk),
        ]);
        let mut asked = vec![(Reply::Unknown, None, 0, ask(2, PAUSE_MS))];
        asked.extend((0..4).map(|n| (full(), None, 100 + n, ask(2, BUSY_MS_MAX))));
        asked.push((full(), None, 4_990, Step::GiveUp(GiveUp::Timeout)));
        check(&asked);
    }

    #[test]
    fn at_the_deadline_only_what_may_have_been_judged_is_a_timeout() {
        check(&[(LOST, None, 4_990, Step::GiveUp(GiveUp::Unavailable))]);
        check(&[(
            Reply::Busy { retry_after_ms: 50 },
            None,
            4_990,
            Step::GiveUp(GiveUp::Unavailable),
        )]);
        check(&[(Reply::Unknown, None, 4_990, Step::GiveUp(GiveUp::Timeout))]);
        check(&[
            (Reply::Unknown, None, 1, ask(2, PAUSE_MS)),
            (LOST, None, 4_990, Step::GiveUp(GiveUp::Timeout)),
        ]);
        check(&[(Reply::Verdict(verdict()), None, 9_999, Step::Done(Box::new(verdict())))]);
    }
}
