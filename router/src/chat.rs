//! Chat of an auction, ordered by its shard's leader.
//!
//! A `Desk` is one auction's chat: it gives each line its place `(chat_epoch, cseq)`, remembers the newest lines, and
//! answers the same line again when it is sent again. It is pure: time is an argument. A `Hall` is all desks of a node
//! with followers attached; `node` opens it at leaders and serves it to edges. A leader change starts a new epoch with
//! an empty history: lines of the last second may be lost, and the change of `chat_epoch` says so.
//!
//! Deliberately absent: the Raft log (chat is not money), banned words and moderation (a later story).

use crate::ports::ChatLine;
use auction::{AuctionId, Id};
use futures_util::{StreamExt, stream, stream::BoxStream};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// Longest line, in characters.
pub const TEXT_MAX: usize = 300;
/// Longest shown name, in characters.
pub const NAME_MAX: usize = 40;

/// Bounds of a desk.
#[derive(Clone, Copy, Debug)]
pub struct DeskLimits {
    /// Lines that are remembered for joiners and for repeats.
    pub history: usize,
    /// Lines of one sender within `window_ms`.
    pub per_window: usize,
    /// The window, ms.
    pub window_ms: u64,
    /// Senders whose rate is remembered; the longest silent are forgotten first.
    pub senders: usize,
    /// Desks of one hall.
    pub desks: usize,
    /// Lines that a follower may be behind before its stream ends (it comes back and is given the history).
    pub follower_lag: usize,
}

impl Default for DeskLimits {
    fn default() -> DeskLimits {
        DeskLimits {
            history: 200,
            per_window: 10,
            window_ms: 10_000,
            senders: 10_000,
            desks: 10_000,
            follower_lag: 256,
        }
    }
}

/// Why a line was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatRefusal {
    /// Empty, too long, or with control characters.
    #[error("invalid")]
    Invalid,
    /// The sender speaks too fast.
    #[error("rate")]
    Rate,
    /// The same id came with another text.
    #[error("dup_body")]
    DupBody,
}

/// One auction's chat.
#[derive(Debug)]
pub struct Desk {
    limits: DeskLimits,
    epoch: u64,
    next: u64,
    lines: VecDeque<ChatLine>,
    /// When each sender last spoke, newest last.
    spoke: HashMap<Id, VecDeque<u64>>,
}

impl Desk {
    /// An empty desk of a new epoch (any number that was never used for this auction: a term, a start time).
    #[must_use]
    pub fn new(epoch: u64, limits: DeskLimits) -> Desk {
        Desk {
            limits,
            epoch,
            next: 1,
            lines: VecDeque::new(),
            spoke: HashMap::new(),
        }
    }

    /// Takes a line at `now_ms` (any monotonic clock) and gives it its place; a line that is remembered keeps the one
    /// that it has. The `bool`: it is new, tell the followers.
    pub fn say(&mut self, line: ChatLine, now_ms: u64) -> Result<(ChatLine, bool), ChatRefusal> {
        let text = clean(&line.text, TEXT_MAX).ok_or(ChatRefusal::Invalid)?;
        let name = clean(&line.name, NAME_MAX).ok_or(ChatRefusal::Invalid)?;
        if let Some(old) = self.lines.iter().rev().find(|l| l.from == line.from && l.id == line.id) {
            return if old.text == text {
                Ok((old.clone(), false))
            } else {
                Err(ChatRefusal::DupBody)
            };
        }
        self.admit(&line.from, now_ms)?;
        let placed = ChatLine {
            chat_epoch: self.epoch,
            cseq: self.next,
            text,
            name,
            ..line
        };
        self.next += 1;
        self.lines.push_back(placed.clone());
        if self.lines.len() > self.limits.history {
            self.lines.pop_front();
        }
        Ok((placed, true))
    }

    /// The lines after `after`, in order; all that is remembered if `after` is of another epoch.
    #[must_use]
    pub fn after(&self, after: Option<(u64, u64)>) -> Vec<ChatLine> {
        let seen = after
            .filter(|(epoch, _)| *epoch == self.epoch)
            .map_or(0, |(_, cseq)| cseq);
        self.lines.iter().filter(|l| l.cseq > seen).cloned().collect()
    }

    fn admit(&mut self, from: &Id, now_ms: u64) -> Result<(), ChatRefusal> {
        let window_ms = self.limits.window_ms;
        let over = |spoke: &u64| now_ms.saturating_sub(*spoke) >= window_ms;
        if !self.spoke.contains_key(from) && self.spoke.len() >= self.limits.senders {
            self.spoke.retain(|_, times| times.back().is_some_and(|t| !over(t)));
            if self.spoke.len() >= self.limits.senders {
                return Err(ChatRefusal::Rate);
            }
        }
        let times = self.spoke.entry(from.clone()).or_default();
        while times.front().is_some_and(over) {
            times.pop_front();
        }
        if times.len() >= self.limits.per_window {
            return Err(ChatRefusal::Rate);
        }
        times.push_back(now_ms);
        Ok(())
    }
}

/// The text trimmed, or `None` if nothing is left, it is too long, or it holds control or direction-changing characters.
fn clean(text: &str, max: usize) -> Option<String> {
    let text = text.trim();
    let bidi = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let fits = !text.is_empty() && text.chars().count() <= max;
    (fits && !text.chars().any(|c| c.is_control() || bidi(c))).then(|| text.to_owned())
}

struct Open {
    desk: Desk,
    lines: broadcast::Sender<ChatLine>,
}

/// All desks of the auctions that this node's replicas lead, with their followers. Cheap to clone.
#[derive(Clone)]
pub struct Hall {
    limits: DeskLimits,
    started: Instant,
    open: Arc<Mutex<HashMap<AuctionId, Open>>>,
}

impl Hall {
    /// A hall without desks.
    #[must_use]
    pub fn new(limits: DeskLimits) -> Hall {
        Hall {
            limits,
            started: Instant::now(),
            open: Arc::default(),
        }
    }

    /// Says a line in the chat of `auction`, whose epoch at this leader is `epoch` (a newer one empties the desk).
    pub fn say(&self, auction: &AuctionId, epoch: u64, line: ChatLine) -> Result<ChatLine, ChatRefusal> {
        let now_ms = self.started.elapsed().as_millis() as u64;
        let mut open = self.open.lock();
        let desk = self.desk(&mut open, auction, epoch).ok_or(ChatRefusal::Rate)?;
        let (placed, new) = desk.desk.say(line, now_ms)?;
        if new {
            // No follower is no error: history keeps the line.
            let _ = desk.lines.send(placed.clone());
        }
        Ok(placed)
    }

    /// History after `after`, then each new line. Ends when the desk is emptied by a new epoch, when `close` is called,
    /// or when the follower is too far behind; then it follows again from its last line.
    #[must_use]
    pub fn follow(&self, auction: &AuctionId, epoch: u64, after: Option<(u64, u64)>) -> BoxStream<'static, ChatLine> {
        let mut open = self.open.lock();
        let Some(desk) = self.desk(&mut open, auction, epoch) else {
            return stream::empty().boxed();
        };
        // Both under the lock: no line can fall between history and what follows.
        let history = desk.desk.after(after);
        let next = BroadcastStream::new(desk.lines.subscribe());
        stream::iter(history)
            .chain(
                next.take_while(|l| std::future::ready(l.is_ok()))
                    .filter_map(|l| std::future::ready(l.ok())),
            )
            .boxed()
    }

    /// The newest lines of an auction's chat.
    #[must_use]
    pub fn recent(&self, auction: &AuctionId, limit: usize) -> Vec<ChatLine> {
        let open = self.open.lock();
        let mut lines = open.get(auction).map(|o| o.desk.after(None)).unwrap_or_default();
        lines.split_off(lines.len().saturating_sub(limit))
    }

    /// Ends the desks that `keep` doesn't want (auctions of shards that this node leads no longer).
    pub fn retain(&self, mut keep: impl FnMut(&AuctionId) -> bool) {
        self.open.lock().retain(|auction, _| keep(auction));
    }

    fn desk<'a>(
        &self,
        open: &'a mut HashMap<AuctionId, Open>,
        auction: &AuctionId,
        epoch: u64,
    ) -> Option<&'a mut Open> {
        if open.get(auction).is_some_and(|o| o.desk.epoch != epoch) {
            open.remove(auction);
        }
        if open.len() >= self.limits.desks && !open.contains_key(auction) {
            open.retain(|_, o| o.lines.receiver_count() > 0);
            if open.len() >= self.limits.desks {
                return None;
            }
        }
        let limits = self.limits;
        Some(open.entry(auction.clone()).or_insert_with(|| Open {
            desk: Desk::new(epoch, limits),
            lines: broadcast::channel(limits.follower_lag).0,
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn line(from: &str, id: &str, text: &str) -> ChatLine {
        let id_of = |text: &str| Id::parse(text).unwrap();
        ChatLine {
            chat_epoch: 0,
            cseq: 0,
            from: id_of(from),
            name: from.to_owned(),
            id: id_of(id),
            text: text.to_owned(),
        }
    }

    #[test]
    fn lines_get_their_place_once() {
        let limits = DeskLimits {
            history: 3,
            per_window: 3,
            window_ms: 100,
            ..DeskLimits::default()
        };
        let mut desk = Desk::new(5, limits);
        // at_ms | from | id | text | expected: cseq and whether it is new
        let table = [
            (0, "ann", "1", "hi", Ok((1, true))),
            (0, "bob", "1", "hi", Ok((2, true))),
            (1, "ann", "1", "hi", Ok((1, false))),
            (1, "ann", "1", " hi ", Ok((1, false))),
            (1, "ann", "1", "ho", Err(ChatRefusal::DupBody)),
            (2, "ann", "2", "", Err(ChatRefusal::Invalid)),
            (2, "ann", "2", "a\u{7}b", Err(ChatRefusal::Invalid)),
            (3, "ann", "2", "two", Ok((3, true))),
            (4, "ann", "3", "three", Ok((4, true))),
            (5, "ann", "4", "four", Err(ChatRefusal::Rate)),
            (5, "bob", "2", "mine", Ok((5, true))),
            (100, "ann", "4", "four", Ok((6, true))),
        ];
        for (n, (at, from, id, text, expected)) in table.into_iter().enumerate() {
            let got = desk.say(line(from, id, text), at).map(|(l, new)| (l.cseq, new));
            assert_eq!(got, expected, "row {n}");
        }
        let after = |after| desk.after(after).iter().map(|l| l.cseq).collect::<Vec<_>>();
        assert_eq!(after(None), [4, 5, 6], "only so many are remembered");
        assert_eq!(after(Some((5, 5))), [6]);
        assert_eq!(after(Some((4, 5))), [4, 5, 6], "of another epoch: all");
        assert!(desk.after(None).iter().all(|l| l.chat_epoch == 5));
    }

    #[test]
    fn senders_beyond_the_bound_wait_until_others_fell_silent() {
        let limits = DeskLimits {
            senders: 2,
            window_ms: 100,
            ..DeskLimits::default()
        };
        let mut desk = Desk::new(1, limits);
        assert!(desk.say(line("a", "1", "x"), 0).is_ok());
        assert!(desk.say(line("b", "1", "x"), 50).is_ok());
        assert_eq!(desk.say(line("c", "1", "x"), 60), Err(ChatRefusal::Rate));
        assert!(desk.say(line("c", "1", "x"), 101).is_ok());
    }

    #[tokio::test]
    async fn a_follower_gets_history_then_what_follows_and_ends_with_the_epoch() {
        let hall = Hall::new(DeskLimits::default());
        let tea = Id::parse("tea").unwrap();
        hall.say(&tea, 1, line("ann", "1", "before")).unwrap();
        let mut follower = hall.follow(&tea, 1, None);
        hall.say(&tea, 1, line("ann", "2", "after")).unwrap();
        hall.say(&tea, 1, line("ann", "2", "after")).unwrap();
        hall.say(&tea, 2, line("ann", "3", "new leader")).unwrap();
        let mut texts = Vec::new();
        while let Some(line) = follower.next().await {
            texts.push(line.text);
        }
        assert_eq!(texts, ["before", "after"]);
        assert_eq!(
            hall.recent(&tea, 5)
                .iter()
                .map(|l| (l.chat_epoch, l.cseq))
                .collect::<Vec<_>>(),
            [(2, 1)]
        );
    }

    #[tokio::test]
    async fn a_follower_too_far_behind_ends_and_comes_back_for_the_rest() {
        let hall = Hall::new(DeskLimits {
            follower_lag: 4,
            per_window: 1_000,
            ..DeskLimits::default()
        });
        let tea = Id::parse("tea").unwrap();
        let mut follower = hall.follow(&tea, 1, None);
        for n in 1..=20 {
            hall.say(&tea, 1, line("ann", &format!("{n}"), "x")).unwrap();
        }
        assert!(follower.next().await.is_none(), "never a gap");
        let mut again = hall.follow(&tea, 1, Some((1, 0)));
        assert_eq!(again.next().await.unwrap().cseq, 1);
    }
}
