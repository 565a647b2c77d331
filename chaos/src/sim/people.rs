//! The people of a simulation: a seller who holds auctions, bidders, readers, viewers; each one sequential client.
//!
//! They bid as people do in `chaos run`: mostly a bit more than the price they know, now and then too low or to an auction
//! that is over. Whoever isn't told an outcome in time asks again under another number, with the same id, until told:
//! what stays unanswered when all faults are over is found by `judge`.

use super::{
    edge::Edge,
    mail::{Answer, Ask},
    past::Past,
    record::Pen,
    words,
};
use crate::history::{Evt, Inv, Record, Sub};
use auction::{
    Action, Actor, AuctionId, AuctionView, Command, Currency, Definition, FeedItem, Id, Phase, Position, Reason,
    Rights, Terms, TimeRule, Verdict, terms::Rush,
};
use client::Dice;
use parking_lot::Mutex;
use placement::ShardId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The rule of every auction of a simulation.
pub(super) const RULE: Rush = Rush {
    cut_ppm_max: 200_000,
    cut_per_raise_ppm: 400_000,
    floor_ms: 3_000,
};
pub(super) const START_PRICE: u64 = 10_000;
pub(super) const MIN_INC: u64 = 100;

#[derive(Clone, Default)]
struct Known {
    seq: u64,
    price: u64,
    leader: Option<String>,
    live: bool,
    closed: bool,
}

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    Acting,
    /// No new acts; what is unanswered goes on asking.
    Ending,
    /// Everything is answered and closed: viewers may go.
    Over,
}

/// What all people know together, and what is asked of them.
pub(super) struct Show {
    pub(super) pen: Pen,
    pub(super) shards: u32,
    pub(super) stage: Mutex<Stage>,
    known: Mutex<BTreeMap<AuctionId, Known>>,
    pub(super) past: Past,
    /// Acts that have no answer yet.
    pub(super) unanswered: AtomicU64,
    /// The nodes that take part: the first so many.
    pub(super) nodes: AtomicU64,
}

impl Show {
    pub(super) fn new(pen: Pen, shards: u32, nodes: u64) -> Arc<Show> {
        Arc::new(Show {
            pen,
            shards,
            stage: Mutex::new(Stage::Acting),
            known: Mutex::default(),
            past: Past::default(),
            unanswered: AtomicU64::new(0),
            nodes: AtomicU64::new(nodes),
        })
    }

    /// A node that takes part.
    pub(super) fn any_node(&self, dice: &mut Dice) -> u64 {
        dice.between(1, self.nodes.load(Ordering::Relaxed))
    }

    pub(super) fn acting(&self) -> bool {
        *self.stage.lock() == Stage::Acting
    }

    pub(super) fn shard(&self, auction: &AuctionId) -> ShardId {
        placement::shard_of(auction.as_str(), self.shards)
    }

    pub(super) fn auctions(&self) -> Vec<AuctionId> {
        self.known.lock().keys().cloned().collect()
    }

    /// Auctions that nobody has seen closed.
    pub(super) fn open(&self) -> Vec<AuctionId> {
        let known = self.known.lock();
        known
            .iter()
            .filter(|(_, k)| !k.closed)
            .map(|(a, _)| a.clone())
            .collect()
    }

    /// Auctions that somebody has seen closed.
    pub(super) fn over(&self) -> Vec<AuctionId> {
        let known = self.known.lock();
        let over = known.iter().filter(|(_, k)| k.closed);
        over.map(|(a, _)| a.clone()).collect()
    }

    pub(super) fn is_closed(&self, auction: &AuctionId) -> bool {
        self.known.lock().get(auction).is_some_and(|known| known.closed)
    }

    /// Shards with auctions that are going on, as far as anyone saw.
    pub(super) fn live(&self) -> BTreeSet<ShardId> {
        let known = self.known.lock();
        let live = known.iter().filter(|(_, k)| k.live && !k.closed);
        live.map(|(a, _)| self.shard(a)).collect()
    }

    fn learn(&self, auction: &AuctionId, seq: u64, phase: Option<Phase>, price: u64, leader: Option<&Id>) {
        let mut known = self.known.lock();
        let known = known.entry(auction.clone()).or_default();
        if known.seq > seq {
            return;
        }
        (known.seq, known.price) = (seq, price);
        known.leader = leader.map(ToString::to_string);
        if let Some(phase) = phase {
            known.live = matches!(phase, Phase::Live | Phase::Paused);
            known.closed = words::is_closed(phase);
        }
    }

    fn wish(&self, dice: &mut Dice) -> Option<(AuctionId, u64, Option<String>)> {
        let known = self.known.lock();
        let all: Vec<_> = known.iter().filter(|(_, k)| k.seq > 0).collect();
        let live: Vec<_> = all.iter().filter(|(_, k)| k.live && !k.closed).collect();
        let (auction, known) = match live.first() {
            _ if dice.chance(3) || live.is_empty() => dice.pick(&all)?,
            Some(hot) if dice.chance(35) => *hot,
            _ => *dice.pick(&live)?,
        };
        let least = known.price + if known.leader.is_some() { MIN_INC } else { 0 };
        Some(((*auction).clone(), least, known.leader.clone()))
    }
}

/// One sequential client.
pub(super) struct Person {
    pub(super) show: Arc<Show>,
    pub(super) edge: Edge,
    pub(super) dice: Dice,
    pub(super) id: Id,
    p: u64,
    /// Old commands, as they were sent.
    pub(super) sent: Vec<(Inv, Command)>,
}

impl Person {
    pub(super) fn new(show: Arc<Show>, edge: Edge, dice: Dice, id: &str) -> Option<Person> {
        let p = show.pen.person();
        let id = Id::parse(id)?;
        Some(Person {
            show,
            edge,
            dice,
            id,
            p,
            sent: Vec::new(),
        })
    }

    fn command(&self, auction: &AuctionId, id: Id, action: Action) -> Command {
        let rights = Rights::MEMBER.and(Rights::BIDDER).and(Rights::SELLER);
        Command {
            auction: auction.clone(),
            actor: Actor {
                id: self.id.clone(),
                rights,
            },
            id: Some(id),
            first_sent: self.show.past.newest(self.show.shard(auction)),
            action,
        }
    }

    pub(super) async fn think(&mut self, from: u64, to: u64) -> bool {
        let ms = self.dice.between(from, to);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.show.acting()
    }

    fn idem(&mut self) -> Option<Id> {
        Id::parse(&self.dice.id("i-"))
    }

    /// Goes on as another client, whom nobody knows.
    pub(super) fn turn_new(&mut self) {
        self.p = self.show.pen.person();
    }

    /// A command, to its verdict, however long that takes.
    pub(super) async fn until_told(&mut self, inv: Inv, command: Command) -> Verdict {
        self.show.unanswered.fetch_add(1, Ordering::Relaxed);
        let shard = self.show.shard(&command.auction);
        let inv = Inv {
            sent: command.first_sent.map(|sent| sent.0),
            ..inv
        };
        loop {
            let patience = Duration::from_millis(self.dice.between(400, 3_000));
            let made = self.show.past.is_made(&command.auction);
            let called = self.show.pen.call(self.p, inv.clone());
            let told = self.edge.command(shard, &command, patience, &mut self.dice).await;
            if let Some(verdict) = told {
                self.show.pen.answer(called, words::judged(&verdict));
                let Verdict { seq, phase, price, .. } = verdict;
                self.show.past.judged(shard, &command, made, &verdict);
                self.show
                    .learn(&command.auction, seq, Some(phase), price, verdict.leader.as_ref());
                self.show.unanswered.fetch_sub(1, Ordering::Relaxed);
                self.remember(inv, command);
                return verdict;
            }
            self.show.pen.answer(called, words::unknown());
            // The old number never speaks again: its call may still act.
            self.turn_new();
        }
    }

    pub(super) async fn bid(mut self) {
        while self.think(5, 90).await {
            if self.dice.chance(10) {
                self.again().await;
                continue;
            }
            let Some((auction, least, leader)) = self.show.wish(&mut self.dice) else {
                continue;
            };
            if leader.as_deref() == Some(self.id.as_str()) && !self.dice.chance(5) {
                continue;
            }
            let amount = match self.dice.below(100) {
                0..8 => least.saturating_sub(MIN_INC),
                8..12 => least + 20 * MIN_INC,
                _ => least + self.dice.below(4) * MIN_INC,
            };
            let Some(id) = self.idem() else { continue };
            let inv = Inv {
                f: "bid".into(),
                a: auction.to_string(),
                idem: Some(id.to_string()),
                bidder: Some(self.id.to_string()),
                amt: Some(amount),
                ..Inv::default()
            };
            let command = self.command(&auction, id, Action::Bid { amount });
            self.until_told(inv, command).await;
        }
    }

    /// Holds one auction after another, until the show ends.
    pub(super) async fn sell(mut self, stall: u64) {
        for n in 0.. {
            if !self.think(1, 400).await {
                return;
            }
            let Some(auction) = Id::parse(&format!("lot-{stall}-{n}")) else {
                return;
            };
            let duration_ms = self.dice.between(3_500, 9_000);
            self.act(
                &auction,
                "create",
                None,
                Action::Create(Box::new(definition(&self.id, duration_ms))),
            )
            .await;
            self.act(&auction, "open", None, Action::Start { schedule_version: None })
                .await;
            self.hold(&auction).await;
        }
    }

    /// Until the auction is closed: now and then a pause, an extension, or the end of it.
    async fn hold(&mut self, auction: &AuctionId) {
        while self.think(300, 2_500).await {
            let known = self.show.known.lock().get(auction).cloned().unwrap_or_default();
            if known.closed {
                return;
            }
            match self.dice.below(20) {
                0..3 => {
                    let for_ms = Some(self.dice.between(1_000, 1_800));
                    self.act(auction, "admin", Some("pause"), Action::Pause { for_ms })
                        .await;
                }
                3 => self.act(auction, "admin", Some("resume"), Action::Resume).await,
                4..7 => {
                    let ms = self.dice.between(200, 2_000);
                    self.act(auction, "admin", Some("extend"), Action::Extend { ms }).await;
                }
                7 => {
                    let reason = "it broke".into();
                    self.act(auction, "admin", Some("cancel"), Action::Cancel { reason })
                        .await;
                }
                8..12 => self.again().await,
                _ => {}
            }
        }
    }

    async fn act(&mut self, auction: &AuctionId, f: &str, arg: Option<&str>, action: Action) {
        // Who is told that this is too old, having heard nothing for long, has heard something now: then it is a new one.
        while let Some(id) = self.idem() {
            let inv = Inv {
                f: f.into(),
                a: auction.to_string(),
                idem: Some(id.to_string()),
                arg: arg.map(Into::into),
                ..Inv::default()
            };
            let command = self.command(auction, id, action.clone());
            if self.until_told(inv, command).await.outcome != Err(Reason::Expired) {
                return;
            }
        }
    }

    pub(super) async fn read(mut self) {
        while self.think(20, 250).await {
            let auctions = self.show.auctions();
            let Some(auction) = self.dice.pick(&auctions).cloned() else {
                continue;
            };
            self.read_one(&auction).await;
        }
    }

    pub(super) async fn read_one(&mut self, auction: &AuctionId) {
        let node = self.show.any_node(&mut self.dice);
        let inv = Inv {
            f: "read".into(),
            a: auction.to_string(),
            arg: Some("linear".into()),
            node: Some(node),
            ..Inv::default()
        };
        let made = self.show.past.is_made(auction);
        let called = self.show.pen.call(self.p, inv);
        let ask = Ask::Read(self.show.shard(auction), auction.clone());
        match self.edge.ask(node, ask, Duration::from_millis(1_500)).await {
            Some(Answer::View(Some(view))) => {
                self.saw(&view);
                self.show.pen.answer(called, words::version(&view));
            }
            told => {
                if made && matches!(told, Some(Answer::NoSuch)) {
                    let what = format!("{auction} was made, and node {node} says that there is none");
                    self.show.past.miss(what);
                }
                self.show.pen.answer(called, words::unknown());
                self.turn_new();
            }
        }
    }

    fn saw(&self, view: &AuctionView) {
        self.show.past.hear(self.show.shard(&view.id), view.ct);
        self.show
            .learn(&view.id, view.seq, Some(view.phase), view.price, view.leader.as_ref());
    }

    /// Watches one auction to its end and beyond, at one node after the other.
    pub(super) async fn watch(mut self, auction: AuctionId) {
        let mut seen: Option<Position> = None;
        while *self.show.stage.lock() != Stage::Over {
            let node = self.show.any_node(&mut self.dice);
            let shard = self.show.shard(&auction);
            let mut feed = self.edge.follow(node, shard, &auction, seen).await;
            let stay = tokio::time::Instant::now() + Duration::from_millis(self.dice.between(1_500, 6_000));
            let mut sub = None;
            loop {
                let quiet = *self.show.stage.lock() != Stage::Acting;
                let next = tokio::select! {
                    biased;
                    item = feed.next() => item,
                    () = tokio::time::sleep_until(stay), if !quiet => None,
                };
                let Some(item) = next else { break };
                if !self.take(&auction, item, &mut seen, &mut sub, node) {
                    break;
                }
                if *self.show.stage.lock() == Stage::Over {
                    return;
                }
            }
            feed.leave().await;
            self.line(&auction, sub, "close", 0, node);
            tokio::time::sleep(Duration::from_millis(self.dice.between(5, 120))).await;
        }
    }

    pub(super) fn line(&self, auction: &AuctionId, sub: Option<u64>, ev: &str, from: u64, node: u64) {
        let Some(sub) = sub else { return };
        let (p, a, ev) = (self.p, auction.to_string(), ev.into());
        self.show.pen.write(|t| {
            Record::Sub(Sub {
                t,
                p,
                sub,
                a,
                ev,
                from,
                node: Some(node),
            })
        });
    }

    /// False: this node is behind what was seen elsewhere, and no use.
    pub(super) fn take(
        &mut self,
        auction: &AuctionId,
        item: FeedItem,
        seen: &mut Option<Position>,
        sub: &mut Option<u64>,
        node: u64,
    ) -> bool {
        let (p, a) = (self.p, auction.to_string());
        let evt = match &item {
            FeedItem::Changed(_) => return true,
            FeedItem::Snapshot { position, view } => {
                self.saw(view);
                if position.offset == 0 {
                    *seen = seen.or(Some(*position));
                    return true;
                }
                if seen.is_some_and(|seen| seen.offset > position.offset) {
                    return false;
                }
                words::snap(position.offset, view)
            }
            FeedItem::Event(event) => {
                self.show.past.hear(self.show.shard(auction), event.ct);
                let phase = words::phase_after(event);
                self.show
                    .learn(auction, event.seq, phase, event.price, event.leader.as_ref());
                if let auction::EventKind::Held { dms } = event.kind {
                    self.show.pen.held(self.show.shard(auction).0, event.ct.0, dms);
                }
                words::event(event)
            }
        };
        if sub.is_none() {
            *sub = Some(self.show.pen.person());
            let from = seen.map_or(0, |seen| seen.offset);
            self.line(auction, *sub, "open", from, node);
        }
        let epoch = match &item {
            FeedItem::Snapshot { position, .. } => position.epoch,
            _ => seen.map_or(1, |seen| seen.epoch),
        };
        *seen = Some(Position { epoch, offset: evt.seq });
        let sub = sub.unwrap_or_default();
        self.show.pen.write(|t| Record::Evt(Evt { t, p, sub, a, ..evt }));
        true
    }
}

pub(super) fn definition(seller: &Id, duration_ms: u64) -> Definition {
    Definition {
        seller: seller.clone(),
        title: "a lot".into(),
        description: String::new(),
        terms: Terms {
            currency: Currency(*b"KRW"),
            start_price: START_PRICE,
            increments: vec![(0, MIN_INC)],
            reserve: None,
            duration_ms,
            time: TimeRule {
                rush: Some(RULE),
                soft_close: None,
            },
            guests: true,
            pause_without_stream: false,
        },
    }
}
