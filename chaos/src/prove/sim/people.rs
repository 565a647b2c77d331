//! The simulated people: bidders, readers, viewers, an operator, chatters.

use super::{AUCTIONS, MS, QUIET, SHARDS, Sim, Step, house};
use crate::{
    history::{Evt, Inv, Nanos, Record, Ret, Sub},
    prove::Plant,
};

/// A sequential client: one person under one number, until an outcome is unknown.
pub(super) struct Client {
    name: String,
    /// A bid whose outcome is unknown: made again under this number.
    again: Option<Inv>,
}

/// A call under way.
pub(super) struct Asked {
    inv: Inv,
    a: usize,
}

/// A viewer of one auction.
pub(super) struct Viewer {
    p: u64,
    a: usize,
    sub: Option<u64>,
    seen: u64,
    /// Nothing arrives before what was sent before it.
    busy: Nanos,
}

impl Sim {
    pub(super) fn client(&mut self, again: Option<(String, Inv)>) -> u64 {
        self.people += 1;
        let (name, again) = again.map_or_else(
            || (format!("kim-{}", self.people), None),
            |(name, inv)| (name, Some(inv)),
        );
        self.clients.insert(self.people, Client { name, again });
        self.people
    }

    pub(super) fn viewer(&mut self, a: usize) {
        self.people += 1;
        let viewer = self.viewers.len();
        self.viewers.push(Viewer {
            p: self.people,
            a,
            sub: None,
            seen: 0,
            busy: 0,
        });
        let first = self.dice.below(2_000) as Nanos * MS;
        self.at(first, Step::Return(viewer));
        for n in 1..=3 {
            let t = first + n * 2_500 * MS + self.jitter(0, 500_000);
            self.at(t, Step::Break(viewer));
            self.at(t + 30 * MS, Step::Return(viewer));
        }
    }

    pub(super) fn think(&mut self, p: u64) {
        let Some(client) = self.clients.get_mut(&p) else { return };
        if self.now > QUIET {
            return;
        }
        let (name, again) = (client.name.clone(), client.again.take());
        // The hot lot takes almost half of all wishes; half of the hottest close early anyway.
        let a = if self.dice.chance(45) {
            0
        } else {
            self.dice.below(AUCTIONS as u64) as usize
        };
        self.ops += 1;
        let op = self.ops;
        let inv = match again {
            Some(inv) => Inv {
                t: self.now,
                p,
                op,
                ..inv
            },
            None if self.dice.chance(15) => Inv {
                t: self.now,
                p,
                op,
                f: "read".into(),
                a: house::name(a),
                arg: Some("linear".into()),
                ..Inv::default()
            },
            None => {
                let over = self.dice.below(4) * 10;
                let low = self.dice.chance(10);
                let amt = if low {
                    self.house.get(a).price
                } else {
                    self.house.least(a) + over
                };
                let idem = Some(self.dice.id("i-"));
                Inv {
                    t: self.now,
                    p,
                    op,
                    f: "bid".into(),
                    a: house::name(a),
                    idem,
                    bidder: Some(name),
                    amt: Some(amt),
                    ..Inv::default()
                }
            }
        };
        let a = inv.a.trim_start_matches("lot-").parse().unwrap_or(a);
        self.records.push(Record::Inv(inv.clone()));
        self.two_open(&inv);
        let asked = Box::new(Asked { inv, a });
        let t = self.now + self.jitter(200, 3_000);
        self.at(t, Step::Arrive(asked));
    }

    /// The bug of a process that doesn't wait for its answer.
    fn two_open(&mut self, inv: &Inv) {
        if !self.bug(Plant::TwoOpen, inv.op > 500) {
            return;
        }
        self.ops += 1;
        let (p, op) = (inv.p, self.ops);
        let (called, done) = (self.now + 1, self.now + 2);
        let (f, a) = ("read".into(), inv.a.clone());
        self.records.push(Record::Inv(Inv {
            t: called,
            p,
            op,
            f,
            a,
            ..Inv::default()
        }));
        self.records.push(Record::Ret(Ret {
            t: done,
            p,
            op,
            st: "ok".into(),
            ..Ret::default()
        }));
    }

    pub(super) fn arrive(&mut self, asked: Box<Asked>) {
        if self.fault.is_some() {
            let t = self.now + 400 * MS;
            return self.at(t, Step::GiveUp(asked));
        }
        self.timers(asked.a);
        let ct = self.house.clock(asked.a, self.now);
        let mut ret = if asked.inv.f == "bid" {
            self.judge(&asked, ct)
        } else {
            self.read(&asked)
        };
        (ret.p, ret.op) = (asked.inv.p, asked.inv.op);
        // Some answers get lost on the way.
        if self.dice.chance(1) {
            let t = self.now + 300 * MS;
            return self.at(t, Step::GiveUp(asked));
        }
        let mut t = self.now + self.jitter(1_000, 8_000);
        if self.plant == Plant::LongSilence && (14_100..17_500).contains(&(t / MS + 7_000)) {
            t = 10_500 * MS + self.jitter(0, 5_000);
        }
        // Of the hot lot's shard all but the hot lot itself; in a calm moment, or it would be the fault's doing.
        let beside = asked.a != 0 && house::shard(asked.a, SHARDS) == house::shard(0, SHARDS);
        if self.plant == Plant::HotFirst && beside && (11_000 * MS..11_400 * MS).contains(&self.now) {
            t += 300 * MS;
        }
        self.at(t, Step::Answer(asked, Box::new(ret)));
    }

    /// The version that an answer speaks of.
    fn version(&self, a: usize, seq: u64) -> Ret {
        let log = &self.house.log(a)[..seq as usize];
        let bid = log.iter().rev().find(|log| log.ty == "bid");
        let last = log.last();
        let closed = log.iter().any(|log| log.ty == "close");
        Ret {
            seq: Some(seq),
            hi: Some(bid.and_then(|log| log.amt).unwrap_or(1_000)),
            ldr: bid.map(|log| log.bidder.clone()),
            ph: Some(if closed { "closed".into() } else { "live".into() }),
            ct: last.map(|log| log.ct),
            dl: last.map(|log| log.dl),
            h: last.map(|log| log.h.clone()),
            ..Ret::default()
        }
    }

    fn read(&mut self, asked: &Asked) -> Ret {
        let a = asked.a;
        let mut seq = self.house.seq(a);
        if self.bug(Plant::StaleRead, seq > 60 && self.settled(a, seq - 40)) {
            seq -= 40;
        }
        let mut ret = self.version(a, seq);
        if self.bug(Plant::WrongContent, self.house.bidders(a) > 0) {
            ret.hi = ret.hi.map(|hi| hi + 1);
        }
        Ret { st: "ok".into(), ..ret }
    }

    /// Whether what came after a version is seen by all already.
    fn settled(&self, a: usize, seq: u64) -> bool {
        let next = self.house.log(a).get(seq as usize);
        next.is_some_and(|log| log.ct + 60 < self.house.clock(a, self.now))
    }

    fn judge(&mut self, asked: &Asked, ct: u64) -> Ret {
        let (a, seq) = (asked.a, self.house.seq(asked.a));
        let (bidder, idem) = (
            asked.inv.bidder.clone().unwrap_or_default(),
            asked.inv.idem.clone().unwrap_or_default(),
        );
        let amt = asked.inv.amt.unwrap_or(0);
        if let Some(known) = self.house.get(a).known.get(&(bidder.clone(), idem)).copied() {
            return self.repeat(asked, ct, known);
        }
        let leads = self.house.get(a).leader.as_ref() == Some(&bidder);
        let refused = match self.house.phase(a) {
            _ if seq == 0 => Some("not_open"),
            "closed" => Some("closed"),
            "paused" => Some("paused"),
            _ if leads => Some("leading"),
            _ if amt < self.house.least(a) => Some("low"),
            _ => None,
        };
        let price = self.house.get(a).price;
        let low = refused == Some("low") && amt == price;
        let late = self.plant == Plant::LateAccepted && ct > self.house.get(a).dl && self.house.get(a).open;
        match refused {
            Some("closed") if self.bug(Plant::BidAfterClose, a > 4 && amt >= self.house.least(a)) => {
                self.accept(asked, ct, 0)
            }
            Some(_) if low && self.bug(Plant::LowAccepted, true) => self.accept(asked, ct, 0),
            Some(code) => {
                let stale = code == "leading" && seq > 60 && self.settled(a, seq - 40);
                let seq = if self.bug(Plant::StaleRefusal, stale) {
                    seq - 40
                } else {
                    seq
                };
                let version = if seq == 0 {
                    Ret {
                        seq: Some(0),
                        ..Ret::default()
                    }
                } else {
                    self.version(a, seq)
                };
                Ret {
                    st: "fail".into(),
                    code: Some(code.into()),
                    ..version
                }
            }
            None if late => {
                self.planted = true;
                self.accept(asked, ct, 3_000)
            }
            None if self.bug(Plant::RefusedApplied, seq > 20) => {
                self.accept(asked, ct, 0);
                Ret {
                    st: "fail".into(),
                    code: Some("rate".into()),
                    ..Ret::default()
                }
            }
            None if self.bug(Plant::LostAck, seq > 20) => self.pretend(asked, ct),
            None => self.accept_maybe_wrongly(asked, ct),
        }
    }

    /// The same id again: its first verdict, or a refusal of the other body.
    fn repeat(&mut self, asked: &Asked, ct: u64, (before, made): (u64, u64)) -> Ret {
        let (a, seq) = (asked.a, self.house.seq(asked.a));
        let (bidder, amt) = (asked.inv.bidder.clone().unwrap_or_default(), asked.inv.amt.unwrap_or(0));
        let open = self.house.phase(a) == "live" && self.house.get(a).leader.as_ref() != Some(&bidder);
        if before == amt && self.bug(Plant::AppliedTwice, open) {
            return self.accept(asked, ct, 0);
        }
        if before != amt && self.bug(Plant::OtherBody, open && amt >= self.house.least(a)) {
            return self.accept(asked, ct, 0);
        }
        let code = (before != amt).then(|| "dup_body".to_owned());
        let st = if code.is_some() { "fail" } else { "ok" };
        let seq = if code.is_some() { seq } else { made };
        Ret {
            st: st.into(),
            code,
            dup: before == amt,
            ..self.version(a, seq)
        }
    }

    /// An acceptance of what is not kept.
    fn pretend(&self, asked: &Asked, ct: u64) -> Ret {
        Ret {
            st: "ok".into(),
            seq: Some(self.house.seq(asked.a) + 1),
            hi: asked.inv.amt,
            ldr: asked.inv.bidder.clone(),
            ph: Some("live".into()),
            ct: Some(ct),
            dl: Some(self.house.get(asked.a).dl),
            h: Some("ab".repeat(32)),
            ..Ret::default()
        }
    }

    fn accept_maybe_wrongly(&mut self, asked: &Asked, ct: u64) -> Ret {
        let (a, seq) = (asked.a, self.house.seq(asked.a));
        let here = seq > 20;
        self.house.mishash = self.bug(Plant::HashMismatch, here);
        if self.bug(Plant::Phantom, here) {
            let amt = self.house.least(a);
            let seq = self.house.bid(a, ct, ("ghost", "i-ghost", amt), 0);
            self.spread(a, seq);
            return self.refuse_low(asked, seq);
        }
        let last = self.house.log(a).last().map_or(0, |log| log.ct);
        let back = if self.bug(Plant::StampBack, here && last + 3 > ct) {
            ct - last + 7
        } else {
            0
        };
        let rise = self.bug(Plant::DeadlineRise, here);
        let short = self.bug(Plant::CutOff, here);
        let mut ret = self.accept(asked, ct - back, i64::from(rise) * 5_000 + i64::from(short));
        if self.bug(Plant::AckedOtherwise, here) {
            ret.ct = ret.ct.map(|ct| ct + 3);
        }
        ret
    }

    fn refuse_low(&self, asked: &Asked, seq: u64) -> Ret {
        Ret {
            st: "fail".into(),
            code: Some("low".into()),
            ..self.version(asked.a, seq)
        }
    }

    fn accept(&mut self, asked: &Asked, ct: u64, off: i64) -> Ret {
        let (a, inv) = (asked.a, &asked.inv);
        let (bidder, idem) = (
            inv.bidder.clone().unwrap_or_default(),
            inv.idem.clone().unwrap_or_default(),
        );
        let seq = self.house.bid(a, ct, (&bidder, &idem, inv.amt.unwrap_or(0)), off);
        self.spread(a, seq);
        Ret {
            st: "ok".into(),
            ..self.version(a, seq)
        }
    }

    pub(super) fn answered(&mut self, asked: Asked, ret: Ret) {
        let ret = Ret { t: self.now, ..ret };
        self.records.push(Record::Ret(ret.clone()));
        if self.bug(Plant::Orphan, asked.inv.op > 500) {
            self.records.push(Record::Ret(ret.clone()));
        }
        // The bug needs someone who bids again under an old id, with another amount.
        let reuse = self.plant == Plant::OtherBody
            && !self.planted
            && asked.inv.op > 500
            && asked.inv.f == "bid"
            && ret.st == "ok";
        if reuse && let Some(client) = self.clients.get_mut(&asked.inv.p) {
            client.again = Some(Inv {
                amt: Some(self.house.least(asked.a) + 500),
                ..asked.inv.clone()
            });
        }
        let t = self.now + self.jitter(1_000, 20_000);
        self.at(t, Step::Think(asked.inv.p));
    }

    pub(super) fn give_up(&mut self, asked: Asked) {
        let (p, op) = (asked.inv.p, asked.inv.op);
        self.records.push(Record::Ret(Ret {
            t: self.now,
            p,
            op,
            st: "unk".into(),
            ..Ret::default()
        }));
        let name = self
            .clients
            .get(&p)
            .map(|client| client.name.clone())
            .unwrap_or_default();
        let again = (asked.inv.f == "bid").then_some(asked.inv);
        let goes_on = self.bug(Plant::GoesOn, true);
        let next = match again {
            _ if goes_on => p,
            Some(inv) => self.client(Some((name, inv))),
            None => self.client(None),
        };
        let t = self.now + self.jitter(20_000, 40_000);
        self.at(t, Step::Think(next));
    }

    pub(super) fn operate(&mut self, a: usize, verb: &'static str) {
        self.ops += 1;
        let (p, op, a_name) = (1, self.ops, house::name(a));
        let ct = self.house.clock(a, self.now);
        let f = if verb == "open" { "open" } else { "admin" };
        let arg = (f == "admin").then(|| verb.to_owned());
        self.records.push(Record::Inv(Inv {
            t: self.now,
            p,
            op,
            f: f.into(),
            a: a_name,
            arg,
            ..Inv::default()
        }));
        let duration = if a == 0 { 18_000 } else { 5_000 + self.dice.below(8_000) };
        let seq = match verb {
            "open" => self.house.start(a, ct, duration),
            "pause" => self.house.pause(a, ct, 1_500),
            _ => self.house.extend(a, ct, 2_000),
        };
        self.spread(a, seq);
        self.records.push(Record::Ret(Ret {
            t: self.now + 3 * MS,
            p,
            op,
            st: "ok".into(),
            ..Ret::default()
        }));
    }

    /// A new version travels to everyone who watches.
    pub(super) fn spread(&mut self, a: usize, seq: u64) {
        for viewer in 0..self.viewers.len() {
            let Some(sub) = self.viewers[viewer].sub.filter(|_| self.viewers[viewer].a == a) else {
                continue;
            };
            self.send(viewer, sub, seq, false);
        }
    }

    fn send(&mut self, viewer: usize, sub: u64, seq: u64, snap: bool) {
        let a = self.viewers[viewer].a;
        let close = self
            .house
            .log(a)
            .get(seq as usize - 1)
            .is_some_and(|log| log.ty == "close");
        let last = close && viewer % 3 == 1 && self.now > 11_000 * MS;
        // Planted on the first viewer of a lot, so that the others keep their sight of it.
        let first = viewer.is_multiple_of(3) && seq > 5;
        if self.bug(Plant::StreamGap, first) || self.bug(Plant::EndsEarly, last) {
            return;
        }
        let late = if self.plant == Plant::LateNews && close && self.now > 10_200 * MS {
            3_000 * MS
        } else {
            0
        };
        let travel = self.jitter(9_000, 12_000) + late;
        let t = self.viewers[viewer].busy.max(self.now + travel) + 1;
        self.viewers[viewer].busy = t;
        self.at(t, Step::Deliver { viewer, sub, seq, snap });
        if self.bug(Plant::Repeat, first && !snap) {
            self.viewers[viewer].busy = t + 1;
            self.at(t + 1, Step::Deliver { viewer, sub, seq, snap });
        }
    }

    pub(super) fn deliver(&mut self, viewer: usize, sub: u64, seq: u64, snap: bool) {
        if self.viewers[viewer].sub != Some(sub) {
            return;
        }
        let (p, a) = (self.viewers[viewer].p, self.viewers[viewer].a);
        self.viewers[viewer].seen = seq;
        let Some(log) = self.house.log(a).get(seq as usize - 1).cloned() else {
            return;
        };
        let ty = if snap { "snap".into() } else { log.ty };
        let h = if self.bug(Plant::WrongEvent, seq > 5) {
            "cd".repeat(32)
        } else {
            log.h
        };
        let (ct, dl, bidder) = (Some(log.ct), Some(log.dl), Some(log.bidder));
        let (t, amt, dms) = (self.now, log.amt, log.dms);
        self.records.push(Record::Evt(Evt {
            t,
            p,
            sub,
            a: log.a,
            seq,
            ty,
            h,
            amt,
            bidder,
            ct,
            dl,
            dms,
            ..Evt::default()
        }));
    }

    pub(super) fn break_off(&mut self, viewer: usize) {
        let (p, a) = (self.viewers[viewer].p, house::name(self.viewers[viewer].a));
        if let Some(sub) = self.viewers[viewer].sub.take() {
            let sub = Sub {
                t: self.now,
                p,
                sub,
                a,
                ev: "close".into(),
                ..Sub::default()
            };
            self.records.push(Record::Sub(sub));
        }
    }

    pub(super) fn come_back(&mut self, viewer: usize) {
        self.subs += 1;
        let (sub, t) = (self.subs, self.now);
        let Viewer { p, a, seen, .. } = self.viewers[viewer];
        (self.viewers[viewer].sub, self.viewers[viewer].busy) = (Some(sub), t);
        let open = Sub {
            t,
            p,
            sub,
            a: house::name(a),
            ev: "open".into(),
            from: seen,
            node: Some(1 + p % 3),
        };
        self.records.push(Record::Sub(open));
        let newest = self.house.seq(a);
        if newest == 0 {
            return;
        }
        let missed = newest > seen + 2 && seen > 0;
        if seen == 0 || self.bug(Plant::SnapTooEasy, missed) {
            return self.send(viewer, sub, newest, true);
        }
        let skip = u64::from(self.bug(Plant::ResumeSkips, missed));
        (seen + 1 + skip..=newest).for_each(|seq| self.send(viewer, sub, seq, false));
    }

    /// A line of chat in lot 0, seen by two watchers at once.
    pub(super) fn say(&mut self, who: u64) {
        self.ops += 1;
        self.lines += 1;
        let (p, op, a, n) = (50 + who, self.ops, house::name(0), self.lines);
        let (from, idem) = (Some(format!("lee-{who}")), Some(format!("line-{n}")));
        let chat = |t| Inv {
            t,
            p,
            op,
            f: "chat".into(),
            a: a.clone(),
            idem: idem.clone(),
            bidder: from.clone(),
            ..Inv::default()
        };
        self.records.push(Record::Inv(chat(self.now)));
        self.records.push(Record::Ret(Ret {
            t: self.now + 2 * MS,
            p,
            op,
            st: "ok".into(),
            ..Ret::default()
        }));
        // Lines 10 and 13 are one sender's: they change places.
        let cseq = match (self.plant, n) {
            (Plant::ChatSwapped, 10) => 13,
            (Plant::ChatSwapped, 13) => 10,
            _ => n,
        };
        for (viewer, late) in [(61, 0), (62, 1)] {
            if self.plant == Plant::ChatGap && viewer == 62 && n == 25 {
                continue;
            }
            let other = self.plant == Plant::ChatTwoOrders && viewer == 62 && n == 20;
            let idem = if other { Some("line-x".into()) } else { idem.clone() };
            // Places arrive in order: whoever has the later place is heard later.
            let t = self.now + (3 + late) * MS + (cseq as Nanos - n as Nanos) * 30 * MS;
            let (ty, chat_epoch, cseq) = ("chat".into(), Some(1), Some(cseq));
            let evt = Evt {
                t,
                p: viewer,
                sub: 1,
                a: a.clone(),
                ty,
                bidder: from.clone(),
                idem,
                chat_epoch,
                cseq,
                ..Evt::default()
            };
            self.records.push(Record::Evt(evt));
        }
    }
}
