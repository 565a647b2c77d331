//! The task behind a socket: everything that must survive a connection lives here.

use super::{
    Ask, BidError, Notice, Position, Shared, SocketOptions,
    link::{Arrival, Link},
    ms,
    open::{Room, Waiting},
};
use crate::{
    clock::Countdown,
    dice::Dice,
    wire::{ClientFrame, Event, Problem, ServerFrame, Verdict},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// Lines of chat that wait to come back; the oldest is forgotten beyond it (chat is not money).
const LINES_MAX: usize = 32;

/// Frames and asks that are taken before anything else is looked at.
const TURN: usize = 64;
/// A bid that is put off waits twice as long each time, up to so many times.
const PUT_OFF_MAX: u32 = 5;
/// The longest that a bid is put off, however often it was.
const PUT_OFF_MS_MAX: u64 = 4_000;

/// A connection that lived so many times as long as it was waited for was no failure …
const LIVED_WAITS: u32 = 4;
/// … if it lived for so long at least: who is thrown out at once is not wanted there.
const LIVED_MIN: Duration = Duration::from_millis(500);

/// Failures in a row, once a connection has ended that lived so long and was waited for so long. (Were it judged by its
/// life alone, nodes that die one after another would make people wait for seconds before they try the one that lives.)
fn failures_after(failures: u32, lived: Duration, waited: Duration) -> u32 {
    if lived >= (waited * LIVED_WAITS).max(LIVED_MIN) {
        0
    } else {
        failures + 1
    }
}

/// Bids that were given up without a verdict, and may be sent again: of so many it is remembered when they were first sent.
const GIVEN_UP_MAX: usize = 256;

/// Why a connection was left.
enum Left {
    /// All handles are gone.
    Done,
    /// The connection ended.
    Lost(Option<u16>),
    /// The caller wants another one.
    Asked,
}

pub(super) struct Task {
    options: SocketOptions,
    inbox: mpsc::Receiver<Ask>,
    notices: mpsc::Sender<Notice>,
    shared: Arc<Mutex<Shared>>,
    born: Instant,
    dice: Dice,
    rooms: BTreeMap<String, Room>,
    bids: BTreeMap<(String, String), Waiting>,
    /// Bids that ended without a verdict, and what was said of when they were first sent.
    given_up: VecDeque<((String, String), Option<u64>)>,
    /// No bid is due before this: only then are they looked through. (It may be early: then the look finds nothing.)
    due: Instant,
    /// (auction, id, text) of lines that didn't come back yet.
    lines: Vec<(String, String, String)>,
    pings: u64,
    /// (number, our time) of the newest ping.
    pinged: Option<(u64, Instant)>,
}

impl Task {
    pub(super) fn new(
        options: SocketOptions,
        inbox: mpsc::Receiver<Ask>,
        notices: mpsc::Sender<Notice>,
        shared: Arc<Mutex<Shared>>,
        born: Instant,
    ) -> Task {
        let dice = Dice::new(options.seed);
        let (rooms, bids) = (BTreeMap::new(), BTreeMap::new());
        Task {
            options,
            inbox,
            notices,
            shared,
            born,
            dice,
            rooms,
            bids,
            given_up: VecDeque::new(),
            due: born,
            lines: Vec::new(),
            pings: 0,
            pinged: None,
        }
    }

    /// Connects, serves, reconnects; ends with the last handle, or where coming back is useless.
    pub(super) async fn run(mut self) {
        let mut at = self.options.first;
        let (mut failures, mut waited) = (0u32, Duration::ZERO);
        while !self.options.nodes.is_empty() {
            let base = self.options.nodes[at % self.options.nodes.len()].clone();
            let left = match Link::open(&base, self.options.connect_max).await {
                Some(link) => {
                    let before = Instant::now();
                    let left = self.serve(link).await;
                    failures = failures_after(failures, before.elapsed(), waited);
                    self.shared.lock().node = None;
                    left
                }
                None => {
                    failures += 1;
                    Left::Lost(None)
                }
            };
            let wait = match left {
                Left::Done => return,
                Left::Asked => Duration::ZERO,
                Left::Lost(code) => {
                    let last = matches!(code, Some(4400 | 4401));
                    self.tell(Notice::Lost {
                        code,
                        last,
                        at: Instant::now(),
                    })
                    .await;
                    if last {
                        return;
                    }
                    self.backoff(code, failures)
                }
            };
            at += 1;
            waited = wait;
            if !self.wait(wait).await {
                return;
            }
        }
    }

    /// How long to wait before the next node: a draining edge sends us on at once, a crowded one asks for patience.
    fn backoff(&mut self, code: Option<u16>, failures: u32) -> Duration {
        let (min, max) = (
            self.options.backoff_min.as_millis() as u64,
            self.options.backoff_max.as_millis() as u64,
        );
        let top = match code {
            Some(4503) => min,
            Some(4408 | 4429) => max,
            _ => min.saturating_mul(1 << failures.min(10)).min(max),
        };
        Duration::from_millis(self.dice.between(top / 2, top))
    }

    /// Waits between connections, still taking asks; false: all handles are gone.
    async fn wait(&mut self, time: Duration) -> bool {
        let until = tokio::time::Instant::now() + time;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                ask = self.inbox.recv() => match ask {
                    Some(ask) => {
                        if let Some(Ask::Bid { a, id, amount, answer }) = self.note(ask) {
                            let key = (a, id);
                            let sent = self.sent_before(&key);
                            self.keep(key, amount, sent, answer, Instant::now());
                        }
                    }
                    None => return false,
                },
            }
            self.expire();
        }
    }

    /// One connection, from its greeting to its end.
    async fn serve(&mut self, mut link: Link) -> Left {
        self.shared.lock().edge.clear();
        self.pinged = None;
        if !self.greet(&mut link).await {
            return Left::Lost(None);
        }
        let mut ping_at = Instant::now();
        let mut heard = Instant::now();
        // Made once, and set anew only where it would be late: most wakes are for a frame or an ask.
        let mut alarm = std::pin::pin!(tokio::time::sleep_until(ping_at.into()));
        loop {
            let now = Instant::now();
            if now.saturating_duration_since(heard) > self.options.silence_max {
                return Left::Lost(None);
            }
            if now >= ping_at {
                ping_at = now + self.options.ping_every;
                self.pings += 1;
                self.pinged = Some((self.pings, Instant::now()));
                if !link.send(&ClientFrame::Ping { c: self.pings }).await {
                    return Left::Lost(None);
                }
            }
            if self.due <= now {
                self.expire();
                if !self.send_due(&mut link).await {
                    return Left::Lost(None);
                }
            }
            let wake = self.due.min(ping_at).into();
            if wake < alarm.deadline() || alarm.is_elapsed() {
                alarm.as_mut().reset(wake);
            }
            let left = tokio::select! {
                arrival = link.next() => {
                    heard = Instant::now();
                    self.arrived(arrival, heard, &mut link).await
                }
                ask = self.inbox.recv() => self.asked(ask, &mut link).await,
                () = &mut alarm => None,
            };
            if let Some(left) = left {
                return left;
            }
        }
    }

    /// Takes what arrived, and what came with it.
    async fn arrived(&mut self, first: Arrival, at: Instant, link: &mut Link) -> Option<Left> {
        let mut arrival = first;
        for turn in 1..=TURN {
            match arrival {
                Arrival::Frame(frame) => {
                    if !self.hear(*frame, at, link).await {
                        return Some(Left::Lost(None));
                    }
                }
                Arrival::Nothing => {}
                Arrival::End(code) => return Some(Left::Lost(code)),
            }
            if turn == TURN {
                break;
            }
            arrival = link.ready()?;
        }
        None
    }

    /// Takes an ask, and those that wait behind it: their bids leave together.
    async fn asked(&mut self, first: Option<Ask>, link: &mut Link) -> Option<Left> {
        let Some(mut ask) = first else { return Some(Left::Done) };
        for turn in 1..=TURN {
            if matches!(ask, Ask::Reconnect) {
                return Some(Left::Asked);
            }
            if !self.act(ask, link).await {
                return Some(Left::Lost(None));
            }
            if turn == TURN {
                break;
            }
            match self.inbox.try_recv() {
                Ok(next) => ask = next,
                Err(_) => break,
            }
        }
        (!link.flush().await).then_some(Left::Lost(None))
    }

    /// Signs in, joins every room from where we were, says what was not heard; bids follow as they are due: now.
    async fn greet(&mut self, link: &mut Link) -> bool {
        if let Some(token) = &self.options.token
            && !link.send(&ClientFrame::Hello { token }).await
        {
            return false;
        }
        for (a, room) in self.rooms.clone() {
            if !self.send_join(&a, room.position, link).await {
                return false;
            }
        }
        for (a, id, text) in &self.lines {
            if !link.send(&ClientFrame::Chat { a, id, text }).await {
                return false;
            }
        }
        let now = Instant::now();
        self.bids.values_mut().for_each(|waiting| waiting.send_at = now);
        self.due = now;
        true
    }

    async fn send_join(&mut self, a: &str, from: Option<Position>, link: &mut Link) -> bool {
        self.tell(Notice::Joining {
            a: a.into(),
            from,
            at: Instant::now(),
        })
        .await;
        link.send(&ClientFrame::Join {
            a,
            epoch: from.map(|p| p.epoch),
            offset: from.map(|p| p.offset),
        })
        .await
    }

    /// Sends the bids that are due, together, and finds when the next one will be.
    async fn send_due(&mut self, link: &mut Link) -> bool {
        let now = Instant::now();
        let mut due = now + self.options.resend_after;
        for ((a, id), waiting) in &mut self.bids {
            if waiting.send_at <= now {
                waiting.send_at = now + self.options.resend_after;
                let amount = waiting.amount;
                let sent = waiting.first_sent(self.rooms.get(a));
                if !link.feed(&ClientFrame::Bid { a, id, amount, sent }).await {
                    return false;
                }
            }
            due = due.min(waiting.send_at).min(waiting.until);
        }
        self.due = due;
        link.flush().await
    }

    /// Answers bids whose time is over, and forgets those that nobody waits for.
    fn expire(&mut self) {
        let now = Instant::now();
        let over: Vec<_> = self
            .bids
            .iter()
            .filter(|(_, w)| w.until <= now || w.answer.is_closed())
            .map(|(k, _)| k.clone())
            .collect();
        for key in over {
            self.answer(&key, Err(BidError::Unknown));
        }
    }

    fn answer(&mut self, key: &(String, String), verdict: Result<Verdict, BidError>) {
        if let Some(waiting) = self.bids.remove(key) {
            if let (Err(BidError::Unknown), Some(sent)) = (&verdict, waiting.sent) {
                if self.given_up.len() == GIVEN_UP_MAX {
                    self.given_up.pop_front();
                }
                self.given_up.push_back((key.clone(), sent));
            }
            let _ = waiting.answer.send(verdict);
        }
    }

    /// Takes an ask while connected: notes it, and feeds or sends what can't wait for the next round.
    async fn act(&mut self, ask: Ask, link: &mut Link) -> bool {
        match self.note(ask) {
            Some(Ask::Bid { a, id, amount, answer }) => {
                let key = (a, id);
                let before = self.sent_before(&key);
                let sent = before.unwrap_or_else(|| self.rooms.get(&key.0).and_then(Room::past));
                let (a, id) = (&key.0, &key.1);
                let fed = link.feed(&ClientFrame::Bid { a, id, amount, sent }).await;
                let again = Instant::now() + self.options.resend_after;
                self.keep(key, amount, Some(sent), answer, again);
                fed
            }
            Some(Ask::Join { a, from }) => self.send_join(&a, from, link).await,
            Some(Ask::Leave { a }) => link.send(&ClientFrame::Leave { a: &a }).await,
            Some(Ask::Chat { a, id, text }) => {
                link.send(&ClientFrame::Chat {
                    a: &a,
                    id: &id,
                    text: &text,
                })
                .await
            }
            _ => true,
        }
    }

    /// A bid that waits for its verdict, and is sent (again) at `send_at`.
    fn keep(
        &mut self,
        key: (String, String),
        amount: u64,
        sent: Option<Option<u64>>,
        answer: oneshot::Sender<Result<Verdict, BidError>>,
        send_at: Instant,
    ) {
        let until = Instant::now() + self.options.bid_patience;
        let put_off = 0;
        self.due = self.due.min(send_at).min(until);
        let waiting = Waiting {
            amount,
            sent,
            answer,
            send_at,
            until,
            put_off,
        };
        self.bids.insert(key, waiting);
    }

    /// What was said of when an id was first sent, if it was.
    fn sent_before(&mut self, key: &(String, String)) -> Option<Option<u64>> {
        let known = self.given_up.iter().position(|(bid, _)| bid == key);
        if let Some(known) = known.and_then(|at| self.given_up.remove(at)) {
            return Some(known.1);
        }
        // Only while two wait under one id.
        self.bids.get(key).and_then(|waiting| waiting.sent)
    }

    /// Takes an ask into memory; gives back what should be sent at once.
    fn note(&mut self, ask: Ask) -> Option<Ask> {
        match ask {
            Ask::Bid { a, id, amount, answer } => {
                if self.bids.len() >= self.options.bids_max {
                    // Some of them may have nobody who waits any more.
                    self.expire();
                }
                if self.bids.len() >= self.options.bids_max {
                    let _ = answer.send(Err(BidError::Full));
                    return None;
                }
                Some(Ask::Bid { a, id, amount, answer })
            }
            Ask::Join { a, from } => {
                let told = self.rooms.get(&a).and_then(|room| room.told);
                let room = Room {
                    position: from,
                    resuming: false,
                    told,
                };
                self.rooms.insert(a.clone(), room);
                Some(Ask::Join { a, from })
            }
            Ask::Leave { a } => {
                self.rooms.remove(&a);
                self.shared.lock().countdowns.remove(&a);
                Some(Ask::Leave { a })
            }
            Ask::Chat { a, id, text } => {
                if self.lines.len() == LINES_MAX {
                    self.lines.remove(0);
                }
                self.lines.push((a.clone(), id.clone(), text.clone()));
                Some(Ask::Chat { a, id, text })
            }
            Ask::Reconnect => None,
        }
    }

    /// Takes a message; false: the connection is dead.
    async fn hear(&mut self, frame: ServerFrame, at: Instant, link: &mut Link) -> bool {
        match frame {
            ServerFrame::Hello {
                node,
                region,
                user: _,
                s: _,
            } => {
                let first = self.shared.lock().node.replace(node) != Some(node);
                if first {
                    self.tell(Notice::Opened { node, region, at }).await;
                }
            }
            ServerFrame::Pong { c, s } => {
                if let Some((_, sent)) = self.pinged.filter(|(n, _)| *n == c) {
                    self.shared.lock().edge.pong(ms(self.born, sent), s, ms(self.born, at));
                }
            }
            ServerFrame::Verdict {
                a,
                id,
                verdict,
                problem,
            } => self.judge(a, id, verdict, problem),
            ServerFrame::Problem { problem, a, id } => self.problem(problem, a, id).await,
            ServerFrame::Event { a, event } => return self.event(a, event, at, link).await,
            ServerFrame::Snap {
                a,
                epoch,
                offset,
                auction,
                recent,
            } => {
                let position = Position { epoch, offset };
                self.seen(&a, position);
                self.tell(Notice::Snap {
                    a,
                    position,
                    auction,
                    recent,
                    at,
                })
                .await;
            }
            ServerFrame::Resumed { a, epoch, offset } => {
                let position = Position { epoch, offset };
                self.seen(&a, position);
                self.tell(Notice::Resumed { a, position, at }).await;
            }
            other => self.pass_on(other, at).await,
        }
        true
    }

    /// What moves no position: clocks, chat, counts, definitions.
    async fn pass_on(&mut self, frame: ServerFrame, at: Instant) {
        match frame {
            ServerFrame::Changed { a, auction } => self.tell(Notice::Changed { a, auction }).await,
            ServerFrame::State {
                a, price, least, seq, ..
            } => {
                self.tell(Notice::State { a, price, least, seq }).await;
            }
            ServerFrame::Chat { a, chat } => {
                self.lines.retain(|(auction, id, _)| (auction, id) != (&a, &chat.id));
                self.tell(Notice::Chat { a, line: chat, at }).await;
            }
            ServerFrame::Counts { a, viewers } => self.tell(Notice::Counts { a, viewers }).await,
            ServerFrame::Clock {
                a,
                now,
                ends_at,
                s,
                err_ms,
                held,
            } => {
                let countdown = Countdown {
                    ends_at,
                    now,
                    s,
                    err_ms,
                    held,
                };
                // A reading that is held may be as old as the edge's last word with a leader.
                if let Some(room) = self.rooms.get_mut(&a).filter(|_| !held) {
                    room.told = Some((now, at));
                }
                self.shared.lock().countdowns.insert(a.clone(), countdown);
                self.tell(Notice::Clock { a, countdown, at }).await;
            }
            _ => {}
        }
    }

    fn seen(&mut self, a: &str, position: Position) {
        if let Some(room) = self.rooms.get_mut(a) {
            (room.position, room.resuming) = (Some(position), false);
        }
    }

    /// A verdict ends a bid; an open problem means: again, under the same id, after a moment.
    fn judge(&mut self, a: String, id: String, verdict: Option<Verdict>, problem: Option<Problem>) {
        let key = (a, id);
        match (verdict, problem) {
            (Some(verdict), _) => self.answer(&key, Ok(verdict)),
            (None, Some(problem)) if problem.is_open() => self.put_off(&key, problem.retry_after_ms),
            (None, Some(mut problem)) => match problem.verdict.take() {
                Some(verdict) => self.answer(&key, Ok(verdict)),
                None => self.answer(&key, Err(BidError::Refused(Box::new(problem)))),
            },
            (None, None) => {}
        }
    }

    /// Sends a bid again later: when the edge said, or after a moment; each time twice as long as it had to wait before, and
    /// never all at once.
    fn put_off(&mut self, key: &(String, String), asked_ms: Option<u64>) {
        let Some(waiting) = self.bids.get_mut(key) else { return };
        let least = asked_ms.unwrap_or(40).clamp(1, PUT_OFF_MS_MAX);
        // What the edge says knows how large the crowd is; how often *this* bid came in vain, only we know.
        let top = (least << waiting.put_off.min(PUT_OFF_MAX)).clamp(least, PUT_OFF_MS_MAX);
        waiting.put_off += 1;
        let pause = self
            .dice
            .between(least, (least + top).min(PUT_OFF_MS_MAX).max(least + 1));
        waiting.send_at = Instant::now() + Duration::from_millis(pause);
        self.due = self.due.min(waiting.send_at);
    }

    async fn problem(&mut self, problem: Problem, a: Option<String>, id: Option<String>) {
        if let (Some(a), Some(id)) = (&a, &id) {
            if self.bids.contains_key(&(a.clone(), id.clone())) {
                return self.judge(a.clone(), id.clone(), None, Some(problem));
            }
            if !problem.is_open() {
                self.lines.retain(|(auction, line, _)| (auction, line) != (a, id));
            }
        }
        self.tell(Notice::Problem {
            problem: Box::new(problem),
            a,
            id,
        })
        .await;
    }

    /// An event: passed on as it came. In order, it moves the position; after a gap, the position stays and a resume is
    /// sent, so that nothing between is lost.
    async fn event(&mut self, a: String, event: Box<Event>, at: Instant, link: &mut Link) -> bool {
        let room = self.rooms.get(&a).copied().unwrap_or_default();
        let seq = event.seq;
        let gap = room.position.filter(|p| seq > p.offset + 1);
        if room.position.is_none_or(|p| seq == p.offset + 1) {
            let epoch = room.position.map_or(0, |p| p.epoch);
            self.seen(&a, Position { epoch, offset: seq });
            let counting = !matches!(event.ty.as_str(), "pause" | "close");
            if let Some(countdown) = self.shared.lock().countdowns.get_mut(&a) {
                countdown.ends_at = counting.then_some(event.ends_at);
            }
        }
        self.tell(Notice::Event {
            a: a.clone(),
            event,
            at,
        })
        .await;
        let Some(from) = gap.filter(|_| !room.resuming) else {
            return true;
        };
        if let Some(room) = self.rooms.get_mut(&a) {
            room.resuming = true;
        }
        self.tell(Notice::Gap {
            a: a.clone(),
            have: from.offset,
            got: seq,
        })
        .await;
        self.send_join(&a, Some(from), link).await
    }

    /// Tells the caller; waits if the caller is slow; says nothing if nobody listens.
    async fn tell(&self, notice: Notice) {
        let _ = self.notices.send(notice).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lived_is_no_failure_and_who_is_thrown_out_at_once_is() {
        for (name, failures, lived, waited, after) in [
            ("the first, thrown out at once", 0, 3, 0, 1),
            ("again", 3, 499, 100, 4),
            ("it lived", 3, 500, 100, 0),
            ("it lived, but not long beside its wait", 6, 3_900, 1_000, 7),
            ("long", 6, 4_000, 1_000, 0),
        ] {
            let ms = Duration::from_millis;
            assert_eq!(failures_after(failures, ms(lived), ms(waited)), after, "{name}");
        }
    }
}
