//! The past of a simulation: commands that come again long after their verdict, and people who ask for auctions that are over.
//!
//! ```text
//!   a person's old command --as it was, `first_sent` and all--> verdict: what C5 holds against the first one
//!   who looks back --read, export in pages, follow--> an auction that is over, mostly cold: C7, C10, and S11 here
//! ```
//!
//! `first_sent` is the newest stamp of the shard that anybody here was told: past for certain, as the product's clients have it.
//! Who was never told one says nothing, and never sends that command again: it may be judged anew, and that is no promise.
//!
//! **S11.** What was made is there for ever: no linear read and no verdict says that there is no such auction once somebody was
//! told that it was made, and in the end every replica can show it, tell all its events, and lists it among what is over.
//!
//! Deliberately absent: what verdicts of old ids must be (C5); damage to what is cold (`nemesis`).

use super::{
    mail::{Answer, Ask},
    people::{Person, Show},
};
use crate::history::Inv;
use auction::{Action, AuctionId, Command, FeedItem, Position, Reason, Stamp, Verdict};
use futures_util::FutureExt;
use parking_lot::Mutex;
use placement::ShardId;
use raft_store::{Fresh, Host};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Commands that a person remembers, to send them again.
const REMEMBERED: usize = 40;
/// Events in a page of an export.
const PAGE: usize = 7;
/// Who was told nothing for so long asks elsewhere.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// What all people know together of what was.
#[derive(Default)]
pub(super) struct Past {
    /// The newest stamp that anybody was told, of each shard.
    stamps: Mutex<BTreeMap<ShardId, Stamp>>,
    made: Mutex<BTreeSet<AuctionId>>,
    missing: Mutex<Vec<String>>,
    /// How often old ids came again, by what they were told.
    again: Mutex<BTreeMap<&'static str, u64>>,
}

impl Past {
    pub(super) fn hear(&self, shard: ShardId, stamp: Stamp) {
        let mut stamps = self.stamps.lock();
        let newest = stamps.entry(shard).or_insert(stamp);
        *newest = stamp.max(*newest);
    }

    pub(super) fn newest(&self, shard: ShardId) -> Option<Stamp> {
        self.stamps.lock().get(&shard).copied()
    }

    /// Whether somebody was told that it was made.
    pub(super) fn is_made(&self, auction: &AuctionId) -> bool {
        self.made.lock().contains(auction)
    }

    pub(super) fn miss(&self, what: String) {
        self.missing.lock().push(what);
    }

    /// A command's verdict; `made`: its auction had been made before it was sent.
    pub(super) fn judged(&self, shard: ShardId, command: &Command, made: bool, verdict: &Verdict) {
        self.hear(shard, verdict.ct);
        let auction = &command.auction;
        match verdict.outcome {
            Ok(()) if matches!(command.action, Action::Create(_)) => drop(self.made.lock().insert(auction.clone())),
            Err(Reason::NotFound) if made => {
                self.miss(format!("{auction} was made, and a command was told that there is none"));
            }
            _ => {}
        }
    }

    /// What was missed (S11), and how old ids were answered.
    pub(super) fn take(&self) -> (Vec<String>, BTreeMap<&'static str, u64>) {
        (
            std::mem::take(&mut *self.missing.lock()),
            std::mem::take(&mut *self.again.lock()),
        )
    }

    /// What a node's replicas miss of all that was made, `shards` of it being here.
    pub(super) fn missing_at(&self, host: &Host, shards: &BTreeSet<ShardId>, show: &Show) -> Vec<String> {
        let node = host.node().0;
        let made = self.made.lock();
        let here = made.iter().map(|auction| (auction, show.shard(auction)));
        let mut missing = Vec::new();
        for (auction, shard) in here.filter(|(_, shard)| shards.contains(shard)) {
            // A simulated disk answers at once.
            let view = host.read(shard, auction, Fresh::AtLeast(0)).now_or_never();
            let events = host.events(shard, auction, 0, usize::MAX).now_or_never();
            match (view, events) {
                (Some(Ok(view)), Some(Ok(events))) if view.seq == events.len() as u64 => {
                    let listed = !show.is_closed(auction)
                        || host
                            .over(shard, None, usize::MAX)
                            .is_ok_and(|over| over.binary_search(auction).is_ok());
                    if !listed {
                        missing.push(format!("node {node} doesn't list {auction} among what is over"));
                    }
                }
                (view, events) => {
                    let view = view.map(|view| view.map(|view| view.seq));
                    let events = events.map(|events| events.map(|events| events.len()));
                    missing.push(format!("node {node} has {auction} as {view:?}, with events {events:?}"));
                }
            }
        }
        missing
    }
}

/// How an old id was answered, in a word.
fn word(verdict: &Verdict) -> &'static str {
    match verdict.outcome {
        Ok(()) => "accepted",
        Err(Reason::Expired) => "expired",
        Err(_) if verdict.dup => "refused_as_before",
        Err(_) => "refused_for_good",
    }
}

impl Person {
    /// Keeps a command, to send it again one day.
    pub(super) fn remember(&mut self, inv: Inv, command: Command) {
        if command.first_sent.is_none() {
            return;
        }
        if self.sent.len() >= REMEMBERED {
            let at = self.dice.below(REMEMBERED as u64) as usize;
            self.sent.swap_remove(at);
        }
        self.sent.push((inv, command));
    }

    /// Sends an old command again, just as it was: a page that was restored, a frame that was held up somewhere.
    pub(super) async fn again(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let at = self.dice.below(self.sent.len() as u64) as usize;
        let (inv, command) = self.sent.swap_remove(at);
        let verdict = self.until_told(inv, command).await;
        *self.show.past.again.lock().entry(word(&verdict)).or_default() += 1;
    }

    /// Asks for auctions that are over, in every way there is.
    pub(super) async fn look_back(mut self) {
        while self.think(30, 350).await {
            let over = self.show.over();
            let Some(auction) = self.dice.pick(&over).cloned() else {
                continue;
            };
            match self.dice.below(3) {
                0 => self.read_one(&auction).await,
                1 => self.export(&auction).await,
                _ => self.glance(&auction).await,
            }
        }
    }

    /// Fetches all of an auction's events, page by page, each from any node.
    async fn export(&mut self, auction: &AuctionId) {
        self.turn_new();
        let shard = self.show.shard(auction);
        let (mut seen, mut sub, mut node) = (None::<Position>, None, 0);
        // Whoever is asked may not have it, or not all of it yet.
        for _ in 0..20 {
            node = self.show.any_node(&mut self.dice);
            let after = seen.map_or(0, |seen| seen.offset);
            let ask = Ask::Export(shard, auction.clone(), after, PAGE);
            let Some(Answer::Events(Some(events))) = self.edge.ask(node, ask, PATIENCE).await else {
                continue;
            };
            let last = events.len() < PAGE;
            for event in events {
                self.take(auction, FeedItem::Event(event), &mut seen, &mut sub, node);
            }
            if last {
                break;
            }
        }
        self.line(auction, sub, "close", 0, node);
    }

    /// Follows an auction that is over, until its end was shown.
    async fn glance(&mut self, auction: &AuctionId) {
        self.turn_new();
        let (node, shard) = (self.show.any_node(&mut self.dice), self.show.shard(auction));
        let from = self.dice.chance(50).then_some(Position { epoch: 1, offset: 0 });
        let mut feed = self.edge.follow(node, shard, auction, from).await;
        let (mut seen, mut sub) = (from, None);
        while let Some(item) = feed.next().await {
            let end = match &item {
                FeedItem::Event(event) => event.kind.ty() == "close",
                _ => true,
            };
            if !self.take(auction, item, &mut seen, &mut sub, node) || end {
                break;
            }
        }
        feed.leave().await;
        self.line(auction, sub, "close", 0, node);
    }
}
