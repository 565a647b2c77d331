//! A history with its records related to each other: what every check starts from.
//!
//! Built once in O(n log n): operations pair `inv` with `ret`; attempts of one bid are grouped by its id; each auction
//! has one reference log (the longest that a replica gave: C2 holds all others against it) whose versions are looked up
//! by `seq`; faults are intervals.

use crate::history::{
    At, Behind, End, Evt, Held, History, Inv, Log, Med, Meta, Nanos, Nem, Place, Record, Ret, Role, Sub,
};
use std::collections::{BTreeMap, HashMap};

/// An operation, whole.
#[derive(Debug)]
pub(crate) struct Op<'h> {
    pub(crate) inv: &'h Inv,
    pub(crate) inv_at: Place,
    /// `None`: it never came back, which is the same as unknown.
    pub(crate) ret: Option<(&'h Ret, Place)>,
}

impl<'h> Op<'h> {
    /// The answer, if it is `ok`.
    pub(crate) fn ok(&self) -> Option<&'h Ret> {
        self.ret.map(|(ret, _)| ret).filter(|ret| ret.st == "ok")
    }

    /// The answer, if it is `fail`.
    pub(crate) fn fail(&self) -> Option<&'h Ret> {
        self.ret.map(|(ret, _)| ret).filter(|ret| ret.st == "fail")
    }

    /// Neither: it may or may not have happened.
    pub(crate) fn unknown(&self) -> bool {
        self.ok().is_none() && self.fail().is_none()
    }

    /// What names it, if it is a bid; what it doesn't say is empty.
    pub(crate) fn key(&self) -> BidKey<'h> {
        let said = |word: &'h Option<String>| word.as_deref().unwrap_or("");
        (&self.inv.a, said(&self.inv.bidder), said(&self.inv.idem))
    }

    /// The lines that show it.
    pub(crate) fn lines(&self) -> Vec<Place> {
        std::iter::once(self.inv_at)
            .chain(self.ret.map(|(_, place)| place))
            .collect()
    }
}

/// What names a bid: (auction, bidder, id).
pub(crate) type BidKey<'h> = (&'h str, &'h str, &'h str);

/// One auction: its logs and who spoke of it.
#[derive(Debug, Default)]
pub(crate) struct Auction<'h> {
    /// Each replica's log, in the order dumped.
    pub(crate) logs: BTreeMap<u64, Vec<&'h At<Record>>>,
    /// The longest of them, by `seq`.
    pub(crate) versions: Vec<(&'h Log, Place)>,
    /// Its shard.
    pub(crate) shard: u32,
    /// The version that its (first) close made.
    pub(crate) closed: Option<u64>,
}

impl<'h> Auction<'h> {
    /// The event that made version `seq`.
    pub(crate) fn version(&self, seq: u64) -> Option<&(&'h Log, Place)> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.versions.get(index).filter(|(log, _)| log.seq == seq)
    }
}

/// A fault, from its start to its stop.
#[derive(Clone, Debug)]
pub(crate) struct Fault<'h> {
    pub(crate) from: Nanos,
    /// The end of the run if it never stopped.
    pub(crate) to: Nanos,
    pub(crate) nem: &'h Nem,
}

/// The history, related.
#[derive(Debug, Default)]
pub(crate) struct Book<'h> {
    pub(crate) metas: Vec<(&'h Meta, Place)>,
    pub(crate) ends: Vec<(&'h End, Place)>,
    /// By `inv.t`.
    pub(crate) ops: Vec<Op<'h>>,
    /// Answers to nothing.
    pub(crate) orphans: Vec<(&'h Ret, Place)>,
    /// Operations with a number that was used before.
    pub(crate) reused: Vec<Place>,
    /// Bids by their key: indices into `ops`.
    pub(crate) bids: HashMap<BidKey<'h>, Vec<usize>>,
    pub(crate) auctions: BTreeMap<&'h str, Auction<'h>>,
    /// By time.
    pub(crate) evts: Vec<(&'h Evt, Place)>,
    pub(crate) subs: Vec<(&'h Sub, Place)>,
    pub(crate) faults: Vec<Fault<'h>>,
    pub(crate) nems: Vec<(&'h Nem, Place)>,
    pub(crate) helds: Vec<(&'h Held, Place)>,
    /// In order of office, then of node.
    pub(crate) behinds: Vec<(&'h Behind, Place)>,
    pub(crate) roles: Vec<&'h Role>,
    pub(crate) meds: Vec<(&'h Med, Place)>,
    /// The last moment that anyone wrote down.
    pub(crate) last: Nanos,
    /// The first.
    pub(crate) first: Nanos,
}

impl<'h> Book<'h> {
    /// Relates the records of a history.
    pub(crate) fn of(history: &'h History) -> Book<'h> {
        let mut book = Book {
            first: Nanos::MAX,
            last: Nanos::MIN,
            ..Book::default()
        };
        let mut by_op: HashMap<u64, usize> = HashMap::new();
        let mut rets = Vec::new();
        for at in &history.records {
            let place = at.place;
            let t = match &at.is {
                Record::Inv(inv) => {
                    if by_op.insert(inv.op, book.ops.len()).is_some() {
                        book.reused.push(place);
                    }
                    book.ops.push(Op {
                        inv,
                        inv_at: place,
                        ret: None,
                    });
                    Some(inv.t)
                }
                Record::Ret(ret) => {
                    rets.push((ret, place));
                    Some(ret.t)
                }
                Record::Evt(evt) => {
                    book.evts.push((evt, place));
                    Some(evt.t)
                }
                Record::Sub(sub) => {
                    book.subs.push((sub, place));
                    Some(sub.t)
                }
                Record::Nem(nem) => {
                    book.nems.push((nem, place));
                    Some(nem.t)
                }
                other => book.rest(other, at),
            };
            if let Some(t) = t {
                (book.first, book.last) = (book.first.min(t), book.last.max(t));
            }
        }
        book.pair(&by_op, rets);
        book.index();
        book
    }

    fn rest(&mut self, record: &'h Record, at: &'h At<Record>) -> Option<Nanos> {
        match record {
            Record::Meta(meta) => self.metas.push((meta, at.place)),
            Record::End(end) => self.ends.push((end, at.place)),
            Record::Held(held) => self.helds.push((held, at.place)),
            Record::Behind(behind) => self.behinds.push((behind, at.place)),
            Record::Role(role) => self.roles.push(role),
            Record::Med(med) => self.meds.push((med, at.place)),
            Record::Log(log) if log.ty != "chat" => {
                let auction = self.auctions.entry(&log.a).or_default();
                auction.shard = log.shard;
                auction.logs.entry(log.node).or_default().push(at);
            }
            _ => {}
        }
        None
    }

    fn pair(&mut self, by_op: &HashMap<u64, usize>, rets: Vec<(&'h Ret, Place)>) {
        for (ret, place) in rets {
            match by_op.get(&ret.op).and_then(|i| self.ops.get_mut(*i)) {
                Some(op) if op.inv.p == ret.p && op.ret.is_none() => op.ret = Some((ret, place)),
                _ => self.orphans.push((ret, place)),
            }
        }
        self.ops.sort_by_key(|op| (op.inv.t, op.inv_at));
    }

    fn index(&mut self) {
        for (i, op) in self.ops.iter().enumerate().filter(|(_, op)| op.inv.f == "bid") {
            self.bids.entry(op.key()).or_default().push(i);
        }
        for auction in self.auctions.values_mut() {
            let longest = auction.logs.values().rev().max_by_key(|log| log.len());
            let mut versions: Vec<_> = longest.into_iter().flatten().filter_map(|at| log_of(at)).collect();
            versions.sort_by_key(|(log, _)| log.seq);
            auction.closed = versions
                .iter()
                .find(|(log, _)| log.ty == "close")
                .map(|(log, _)| log.seq);
            auction.versions = versions;
        }
        self.behinds.sort_by_key(|(b, place)| (b.term, b.turn, b.node, *place));
        self.evts.sort_by_key(|(evt, place)| (evt.t, *place));
        self.subs.sort_by_key(|(sub, place)| (sub.t, *place));
        self.nems.sort_by_key(|(nem, place)| (nem.t, *place));
        let mut open: BTreeMap<u64, &'h Nem> = BTreeMap::new();
        for (nem, _) in &self.nems {
            match nem.ev.as_str() {
                "start" if nem.eff != "skipped" => {
                    open.insert(nem.id, nem);
                }
                _ => {
                    if let Some(start) = open.remove(&nem.id) {
                        self.faults.push(Fault {
                            from: start.t,
                            to: nem.t,
                            nem: start,
                        });
                    }
                }
            }
        }
        let last = self.last;
        self.faults.extend(open.into_values().map(|nem| Fault {
            from: nem.t,
            to: last,
            nem,
        }));
        self.faults.sort_by_key(|fault| (fault.from, fault.to));
    }

    /// The rule of the run.
    pub(crate) fn meta(&self) -> Meta {
        self.metas.first().map(|(meta, _)| (*meta).clone()).unwrap_or_default()
    }

    /// The first call and the first good answer of each bid that was accepted: (auction, seq) -> its attempts.
    pub(crate) fn attempts(&self, log: &'h Log) -> impl Iterator<Item = &Op<'h>> {
        self.named((&log.a, &log.bidder, &log.idem))
    }

    fn named(&self, key: BidKey<'h>) -> impl Iterator<Item = &Op<'h>> {
        self.bids.get(&key).into_iter().flatten().map(|i| &self.ops[*i])
    }

    /// When an operation was first called: a bid that names its bidder and its id, at the first of its attempts.
    pub(crate) fn first_call(&self, op: &Op<'h>) -> Nanos {
        let named = op.inv.f == "bid" && op.inv.bidder.is_some() && op.inv.idem.is_some();
        let again = named.then(|| self.named(op.key()).map(|op| op.inv.t).min());
        again.flatten().unwrap_or(op.inv.t)
    }

    /// When the version of `log` can first have come about: the first call of what made it. `None`: a timer made it.
    pub(crate) fn called(&self, log: &'h Log) -> Option<Nanos> {
        if log.ty != "bid" {
            return None;
        }
        self.attempts(log).map(|op| op.inv.t).min()
    }
}

/// A log line of a record.
pub(crate) fn log_of(at: &At<Record>) -> Option<(&Log, Place)> {
    match &at.is {
        Record::Log(log) => Some((log, at.place)),
        _ => None,
    }
}
