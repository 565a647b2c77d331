//! What a room remembers of its auction, and how far each viewer has read.
//!
//! Events lie encoded in one ring; a viewer is only a `Cursor` into it. So an event costs one encoding however many
//! watch, a waiting viewer costs no queue at all, and a slow one can't make anything grow: it falls out of the ring's
//! reach and is told the newest state, then given a snapshot. What has only a newest value (clock, definition, viewer
//! count) is a `Cell` with a version. Pure: no locks, no tasks.
//!
//! ```text
//!   feed --push--> [ 41 | 42 | 43 | 44 ]      clock v7   changed v1   counts v3   chat [ 9 | 10 ]
//!                         ^          ^
//!                     slow viewer   viewer (cursors)
//! ```

use crate::wire::Say;
use auction::{AuctionId, AuctionView, Event, Id, Position};
use axum::extract::ws::Utf8Bytes;
use std::{cell::OnceCell, collections::VecDeque, sync::Arc};

/// An event and its one encoding.
struct Entry {
    event: Arc<Event>,
    frame: Utf8Bytes,
}

/// What became of a pushed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The next one.
    Next,
    /// Known already.
    Old,
    /// Events before it are missing: the feed broke its promise.
    Gap,
}

/// The newest events of an auction, encoded, without gaps.
pub(super) struct Journal {
    /// Rises when all viewers must start again from a snapshot.
    pub(super) generation: u64,
    pub(super) epoch: u64,
    /// The newest event's seq.
    pub(super) last: u64,
    entries: VecDeque<Entry>,
    cap: usize,
}

impl Journal {
    pub(super) fn new(cap: usize) -> Journal {
        Journal {
            generation: 0,
            epoch: 0,
            last: 0,
            entries: VecDeque::new(),
            cap: cap.max(1),
        }
    }

    pub(super) fn position(&self) -> Option<Position> {
        (self.generation > 0).then_some(Position {
            epoch: self.epoch,
            offset: self.last,
        })
    }

    /// The feed starts (again) at a snapshot. Viewers go on undisturbed if it is where the journal ends.
    pub(super) fn restart(&mut self, at: Position) {
        if self.generation > 0 && self.epoch == at.epoch && self.last == at.offset {
            return;
        }
        self.generation += 1;
        self.epoch = at.epoch;
        self.last = at.offset;
        self.entries.clear();
    }

    /// Whether `push` would take this event.
    pub(super) fn place(&self, seq: u64) -> Pushed {
        match seq.checked_sub(self.last) {
            Some(1) => Pushed::Next,
            Some(0) | None => Pushed::Old,
            Some(_) => Pushed::Gap,
        }
    }

    pub(super) fn push(&mut self, event: Arc<Event>, frame: Utf8Bytes) -> Pushed {
        let place = self.place(event.seq);
        if place == Pushed::Next {
            self.last = event.seq;
            self.entries.push_back(Entry { event, frame });
            if self.entries.len() > self.cap {
                self.entries.pop_front();
            }
        }
        place
    }

    /// Events from before the snapshot that the journal began with, for display and resumes; only if they join up.
    pub(super) fn prefill(&mut self, before: Vec<(Arc<Event>, Utf8Bytes)>) {
        let joins = before.last().is_some_and(|(e, _)| e.seq == self.base());
        let whole = before.windows(2).all(|w| w[0].0.seq + 1 == w[1].0.seq);
        if joins && whole {
            for (event, frame) in before.into_iter().rev() {
                if self.entries.len() == self.cap {
                    break;
                }
                self.entries.push_front(Entry { event, frame });
            }
        }
    }

    /// The oldest offset from which what follows is complete.
    pub(super) fn base(&self) -> u64 {
        self.last - self.entries.len() as u64
    }

    /// The frames after `seq`, or `None` if some are no longer here.
    pub(super) fn after(&self, seq: u64) -> Option<impl Iterator<Item = &Utf8Bytes>> {
        let skip = seq.max(self.base()) - self.base();
        (seq >= self.base()).then(|| self.entries.iter().skip(skip as usize).map(|e| &e.frame))
    }

    /// The newest `n` events up to `seq`.
    pub(super) fn recent(&self, seq: u64, n: usize) -> impl Iterator<Item = &Event> {
        let upto = self.entries.len() - (self.last.saturating_sub(seq) as usize).min(self.entries.len());
        self.entries.range(upto.saturating_sub(n)..upto).map(|e| &*e.event)
    }
}

/// The newest value of something, and how often it changed.
#[derive(Default)]
pub(super) struct Cell {
    version: u64,
    frame: Option<Utf8Bytes>,
}

impl Cell {
    pub(super) fn set(&mut self, frame: Utf8Bytes) {
        self.version += 1;
        self.frame = Some(frame);
    }

    fn read(&self, seen: &mut u64, out: &mut Vec<Utf8Bytes>) {
        if *seen != self.version {
            *seen = self.version;
            out.extend(self.frame.clone());
        }
    }
}

/// The newest chat lines, numbered by the room.
pub(super) struct ChatRing {
    next: u64,
    lines: VecDeque<Utf8Bytes>,
    cap: usize,
    /// The newest line's place at its desk.
    pub(super) last: Option<(u64, u64)>,
}

impl ChatRing {
    pub(super) fn new(cap: usize) -> ChatRing {
        ChatRing {
            next: 0,
            lines: VecDeque::new(),
            cap: cap.max(1),
            last: None,
        }
    }

    pub(super) fn push(&mut self, place: (u64, u64), line: Utf8Bytes) {
        self.last = Some(place);
        self.next += 1;
        self.lines.push_back(line);
        if self.lines.len() > self.cap {
            self.lines.pop_front();
        }
    }

    /// Where a joiner begins: the newest `n` are history.
    fn tail(&self, n: usize) -> u64 {
        self.next - (n.min(self.lines.len()) as u64)
    }

    fn read(&self, seen: &mut u64, max: usize, out: &mut Vec<Utf8Bytes>) -> u64 {
        let oldest = self.next - self.lines.len() as u64;
        let skipped = oldest.saturating_sub(*seen);
        *seen = (*seen).max(oldest);
        let from = (*seen - oldest) as usize;
        let upto = (from + max).min(self.lines.len());
        out.extend(self.lines.range(from..upto).cloned());
        *seen = oldest + upto as u64;
        skipped
    }
}

/// The newest state, for viewers that are behind: encoded when the first of them needs it.
pub(super) struct Newest {
    auction: AuctionId,
    price: u64,
    least: u64,
    leader: Option<Id>,
    ends_at: Option<u64>,
    seq: u64,
    frame: OnceCell<Utf8Bytes>,
}

impl Newest {
    pub(super) fn new(event: &Event, least: u64) -> Newest {
        Newest {
            auction: event.auction.clone(),
            price: event.price,
            least,
            leader: event.leader.clone(),
            ends_at: Some(event.ends_at.0),
            seq: event.seq,
            frame: OnceCell::new(),
        }
    }

    pub(super) fn of(view: &AuctionView) -> Newest {
        Newest {
            auction: view.id.clone(),
            price: view.price,
            least: view.least,
            leader: view.leader.clone(),
            ends_at: view.ends_at.map(|s| s.0),
            seq: view.seq,
            frame: OnceCell::new(),
        }
    }

    fn frame(&self) -> Utf8Bytes {
        let encode = || {
            super::encode(&Say::State {
                a: self.auction.as_str(),
                price: self.price,
                least: self.least,
                leader: self.leader.as_ref().map(Id::as_str),
                ends_at: self.ends_at,
                seq: self.seq,
            })
        };
        self.frame.get_or_init(encode).clone()
    }
}

/// How far one viewer has read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    generation: u64,
    pub(crate) seq: u64,
    changed: u64,
    clock: u64,
    chat: u64,
    counts: u64,
}

/// What a viewer must be told besides the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// More waits: come again.
    pub(crate) more: bool,
    /// It is behind what the ring holds (or the feed began anew): give it a snapshot.
    pub(crate) snapshot: bool,
    /// Chat lines that it will never see.
    pub(crate) skipped: u64,
}

/// All that a room shows.
pub(super) struct Board {
    pub(super) journal: Journal,
    pub(super) newest: Option<Newest>,
    pub(super) changed: Cell,
    pub(super) clock: Cell,
    pub(super) counts: Cell,
    pub(super) chat: ChatRing,
}

/// Frames of one kind in one turn: between two turns the viewer's verdicts go out.
const TURN_MAX: usize = 32;
/// Chat lines that a joiner is shown.
const CHAT_HISTORY: usize = 50;

impl Board {
    /// A cursor for a viewer that has everything up to `seq`.
    pub(super) fn cursor(&self, seq: u64) -> Cursor {
        Cursor {
            generation: self.journal.generation,
            seq,
            changed: self.changed.version,
            clock: 0,
            chat: self.chat.tail(CHAT_HISTORY),
            counts: 0,
        }
    }

    /// The cursor of a viewer that was given a snapshot at `seq` in mid-way: chat goes on where it was.
    pub(super) fn moved(&self, old: &Cursor, seq: u64) -> Cursor {
        Cursor {
            chat: old.chat,
            counts: old.counts,
            ..self.cursor(seq)
        }
    }

    /// What this viewer hasn't seen, a bounded part of it, in the order of the lanes.
    pub(super) fn read(&self, at: &mut Cursor, lag_max: u64, out: &mut Vec<Utf8Bytes>) -> Turn {
        let mut turn = Turn::default();
        let behind = self.journal.last.saturating_sub(at.seq);
        let frames = self
            .journal
            .after(at.seq)
            .filter(|_| behind <= lag_max && at.generation == self.journal.generation);
        match frames {
            Some(frames) => {
                let before = out.len();
                out.extend(frames.take(TURN_MAX).cloned());
                let sent = (out.len() - before) as u64;
                at.seq += sent;
                turn.more = at.seq < self.journal.last;
            }
            None => {
                out.extend(self.newest.as_ref().map(Newest::frame));
                turn.snapshot = true;
            }
        }
        self.changed.read(&mut at.changed, out);
        self.read_side(at, &mut turn, out);
        turn
    }

    /// The lanes that go on while a viewer waits for a snapshot.
    pub(super) fn read_side(&self, at: &mut Cursor, turn: &mut Turn, out: &mut Vec<Utf8Bytes>) {
        if !turn.more {
            // A deadline's clock goes after the event that moved it.
            self.clock.read(&mut at.clock, out);
        }
        turn.skipped = self.chat.read(&mut at.chat, TURN_MAX, out);
        turn.more |= at.chat < self.chat.next;
        self.counts.read(&mut at.counts, out);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use auction::{EventKind, Id, Stamp};

    fn event(seq: u64) -> (Arc<Event>, Utf8Bytes) {
        let event = Event {
            auction: Id::parse("a").unwrap(),
            seq,
            ct: Stamp(seq),
            ends_at: Stamp(100),
            actor: None,
            id: None,
            price: seq,
            leader: None,
            kind: EventKind::Raise,
            hash: [0; 32],
        };
        (Arc::new(event), format!("e{seq}").into())
    }

    fn board(cap: usize, from: u64, upto: u64) -> Board {
        let mut board = Board {
            journal: Journal::new(cap),
            newest: None,
            changed: Cell::default(),
            clock: Cell::default(),
            counts: Cell::default(),
            chat: ChatRing::new(4),
        };
        board.journal.restart(Position { epoch: 7, offset: from });
        push(&mut board, from + 1, upto);
        board
    }

    fn push(board: &mut Board, from: u64, upto: u64) {
        for seq in from..=upto {
            let (event, frame) = event(seq);
            assert_eq!(board.journal.push(event, frame), Pushed::Next);
        }
        board.newest = Some(Newest::new(&event(upto).0, upto + 1));
    }

    fn read(board: &Board, at: &mut Cursor) -> (Vec<String>, Turn) {
        let mut out = Vec::new();
        let turn = board.read(at, 64, &mut out);
        (out.iter().map(|f| short(f)).collect(), turn)
    }

    /// A frame as the tables spell it.
    fn short(frame: &str) -> String {
        let state = serde_json::from_str::<serde_json::Value>(frame)
            .ok()
            .filter(|v| v["t"] == "state");
        state.map_or_else(|| frame.to_owned(), |v| format!("state{}", v["seq"]))
    }

    #[test]
    fn a_viewer_reads_each_event_once_in_order() {
        let mut board = board(8, 0, 3);
        let mut at = board.cursor(1);
        assert_eq!(read(&board, &mut at).0, ["e2", "e3"]);
        assert!(read(&board, &mut at).0.is_empty());
        push(&mut board, 4, 5);
        assert_eq!(read(&board, &mut at).0, ["e4", "e5"]);
    }

    #[test]
    fn what_was_pushed_before_or_leaves_a_gap_is_not_taken() {
        let mut board = board(8, 0, 3);
        for (seq, expected) in [(3, Pushed::Old), (1, Pushed::Old), (5, Pushed::Gap), (4, Pushed::Next)] {
            let (event, frame) = event(seq);
            assert_eq!(board.journal.push(event, frame), expected, "seq {seq}");
        }
    }

    #[test]
    fn a_viewer_out_of_reach_gets_the_newest_state_and_needs_a_snapshot() {
        let mut board = board(4, 0, 2);
        let mut at = board.cursor(1);
        push(&mut board, 3, 10);
        let (frames, turn) = read(&board, &mut at);
        assert_eq!(frames, ["state10"]);
        assert!(turn.snapshot);
        let mut at = board.moved(&at, 10);
        push(&mut board, 11, 11);
        assert_eq!(read(&board, &mut at), (vec!["e11".to_owned()], Turn::default()));
    }

    #[test]
    fn too_far_behind_is_coalesced_even_if_the_ring_holds_it() {
        let mut board = board(1_000, 0, 1);
        let mut at = board.cursor(1);
        push(&mut board, 2, 66);
        assert_eq!(
            read(&board, &mut at),
            (
                vec!["state66".to_owned()],
                Turn {
                    snapshot: true,
                    ..Turn::default()
                }
            )
        );
        let mut at = board.cursor(2);
        let (frames, turn) = read(&board, &mut at);
        assert_eq!(
            (frames.len(), turn.more),
            (TURN_MAX, true),
            "within the lag: events, a turn's worth at a time"
        );
    }

    #[test]
    fn a_feed_that_starts_again_where_it_ended_disturbs_nobody() {
        let mut board = board(8, 0, 3);
        let mut at = board.cursor(3);
        board.journal.restart(Position { epoch: 7, offset: 3 });
        push(&mut board, 4, 4);
        assert_eq!(read(&board, &mut at).0, ["e4"]);
        // elsewhere: everyone starts again
        board.journal.restart(Position { epoch: 7, offset: 9 });
        assert!(read(&board, &mut at).1.snapshot);
        // another epoch, even at the same offset: likewise
        let mut at = board.cursor(9);
        board.journal.restart(Position { epoch: 8, offset: 9 });
        assert!(read(&board, &mut at).1.snapshot);
    }

    #[test]
    fn recent_events_end_at_the_snapshot() {
        let mut board = board(8, 10, 10);
        board.journal.prefill((6..=10).map(event).collect());
        push(&mut board, 11, 12);
        let recent = |seq, n| board.journal.recent(seq, n).map(|e| e.seq).collect::<Vec<_>>();
        assert_eq!(recent(12, 3), [10, 11, 12]);
        assert_eq!(recent(11, 2), [10, 11]);
        assert_eq!(recent(99, 2), [11, 12]);
        assert_eq!(recent(0, 5), [0; 0]);
        assert_eq!(board.journal.base(), 5);
    }

    #[test]
    fn history_that_doesnt_join_up_is_left_out() {
        for before in [vec![6, 7, 8], vec![7, 9, 10], vec![]] {
            let mut board = board(8, 10, 10);
            board.journal.prefill(before.into_iter().map(event).collect());
            assert_eq!(board.journal.base(), 10);
        }
    }

    #[test]
    fn cells_are_read_when_they_changed_and_chat_in_order_with_what_was_missed_counted() {
        let mut board = board(8, 0, 0);
        let mut at = board.cursor(0);
        board.clock.set("clock1".into());
        board.clock.set("clock2".into());
        for n in 1..=6 {
            board.chat.push((1, n), format!("c{n}").into());
        }
        let (frames, turn) = read(&board, &mut at);
        assert_eq!(frames, ["clock2", "c3", "c4", "c5", "c6"]);
        assert_eq!(turn.skipped, 2);
        assert!(read(&board, &mut at).0.is_empty());
    }

    /// What happens to a board with one viewer.
    #[derive(Clone, Debug)]
    enum Happens {
        Events(u64),
        /// The feed starts again this far beyond what is known (0: right there), in another epoch or not.
        Restart(u64, bool),
        Read,
    }

    fn happens() -> impl proptest::strategy::Strategy<Value = Happens> {
        use proptest::prelude::*;
        prop_oneof![
            5 => (1u64..20).prop_map(Happens::Events),
            1 => (0u64..5, any::<bool>()).prop_map(|(by, epoch)| Happens::Restart(by, epoch)),
            4 => Just(Happens::Read),
        ]
    }

    proptest::proptest! {
        /// Whatever happens, a viewer is given every event once and in order, or told to start again.
        #[test]
        fn no_gap_is_ever_unseen(story in proptest::collection::vec(happens(), 1..80), cap in 1usize..40) {
            let mut board = board(cap, 0, 0);
            let mut at = board.cursor(0);
            let mut seen = 0;
            for step in story.into_iter().chain(std::iter::repeat_n(Happens::Read, 4)) {
                match step {
                    Happens::Events(n) => {
                        let last = board.journal.last;
                        push(&mut board, last + 1, last + n);
                    }
                    Happens::Restart(by, other) => {
                        let epoch = board.journal.epoch + u64::from(other);
                        let offset = board.journal.last + by;
                        board.journal.restart(Position { epoch, offset });
                    }
                    Happens::Read => {
                        let (frames, turn) = read(&board, &mut at);
                        for frame in frames.iter().filter(|f| f.starts_with('e')) {
                            seen += 1;
                            proptest::prop_assert_eq!(frame, &format!("e{seen}"));
                        }
                        if turn.snapshot {
                            // Started again, from a snapshot of this moment.
                            seen = board.journal.last;
                            at = board.moved(&at, seen);
                        }
                    }
                }
            }
            while read(&board, &mut at).1.more {}
            proptest::prop_assert_eq!(at.seq, board.journal.last, "a viewer that reads gets to the end");
        }
    }
}
