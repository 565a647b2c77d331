//! What a replica's proposer and its log do: look, propose, commit, apply, settle, take office and lose it.

use super::{
    Action, Applied, Entry, EventKind, Fate, Goes, LATENCY, LEARN, Landed, Node, Office, Outage, Packed, Past, Plant,
    Queued, Reason, Reply, What, World,
};
use auction::Wall;
use std::sync::Arc;

impl World {
    pub(super) fn poke(&mut self, node: usize, ms: u64) {
        let at = self.t + ms;
        let n = &mut self.nodes[node];
        if n.office.is_some() && n.wake.is_none_or(|wake| at < wake) {
            n.wake = Some(at);
            let office = n.office_no;
            self.at(at, What::Look { node, office });
        }
    }

    pub(super) fn look(&mut self, i: usize, office_no: usize) {
        let (t, mono) = (self.t, self.mono(i));
        let node = &mut self.nodes[i];
        if node.office_no != office_no || node.wake != Some(t) {
            return;
        }
        node.wake = None;
        if t < node.frozen {
            let ms = node.frozen - t;
            return self.poke(i, ms);
        }
        let Node {
            office: Some(office),
            shard,
            ..
        } = node
        else {
            return;
        };
        let mut packed = Vec::new();
        while let Some(next) = office.next_entry(mono, Wall { ms: t, error_ms: 0 }, shard) {
            packed.push(next);
        }
        for auction in office.started.keys() {
            self.began.entry((office_no, auction.clone())).or_insert(t);
        }
        let next = office.next_look(mono, t, shard);
        self.sample(i);
        for packed in packed {
            self.propose(i, office_no, packed);
        }
        if let Some(next) = next {
            self.poke(i, next - mono);
        }
    }

    /// Writes down the reading of a node's office, and checks its steps.
    pub(super) fn sample(&mut self, i: usize) {
        let Some(office) = &self.nodes[i].office else { return };
        let (t, now) = (self.t, office.clock.last_reading().0);
        if !office.clock.looked_at(self.mono(i)) {
            return;
        }
        let samples = &mut self.offices[self.nodes[i].office_no].samples;
        let (last_t, last) = *samples.last().unwrap();
        samples.push((t, now));
        if now < last {
            self.bad("monotone", format!("reading {last} -> {now}"));
        } else if now - last > t - last_t {
            self.bad("fast", format!("reading {:?} -> {:?}", (last_t, last), (t, now)));
        }
    }

    pub(super) fn landed(&mut self, i: usize, office_no: usize, n: u64, fate: Landed) {
        let mono = self.mono(i);
        if self.nodes[i].office_no != office_no || self.nodes[i].office.is_none() {
            return;
        }
        self.nodes[i].landed.insert(n, fate);
        let mut out = Vec::new();
        let mut goes = Goes::On;
        while goes == Goes::On {
            let Node {
                office: Some(office),
                landed,
                ..
            } = &mut self.nodes[i]
            else {
                break;
            };
            let Some(fate) = office
                .flights
                .front()
                .and_then(|flight| Some((flight.n, landed.remove(&flight.n)?)))
            else {
                break;
            };
            goes = match &fate.1 {
                Landed::Applied(applied) => office.settle(mono, fate.0, Fate::Applied(applied), &mut out),
                Landed::NotLogged => office.settle(mono, fate.0, Fate::NotLogged(&Reply::NotJudged), &mut out),
                Landed::Unknown => office.settle(mono, fate.0, Fate::Unknown, &mut out),
            };
            let same = self.plant == Some(Plant::SameOffice);
            if goes == Goes::Over && (same || self.plant == Some(Plant::NumberGoesOn)) {
                office.lose(&Reply::Unknown, &mut out);
                if same {
                    office.n = fate.0 - 1;
                }
                goes = Goes::On;
                break;
            }
        }
        self.reply_all(out);
        if goes == Goes::Over {
            self.lose(i);
            self.take_again(i, office_no);
        }
        self.poke(i, 0);
    }

    pub(super) fn lose(&mut self, i: usize) {
        self.nodes[i].landed.clear();
        if let Some(mut office) = self.nodes[i].office.take() {
            let mut out = Vec::new();
            office.lose(&Reply::NotJudged, &mut out);
            self.reply_all(out);
        }
    }

    /// The same replica opens the next office of its term.
    pub(super) fn take_again(&mut self, i: usize, office_no: usize) {
        let past = &self.offices[office_no];
        if past.id.term != self.term || self.leader != i {
            return;
        }
        let reading = past.samples.last().unwrap().1;
        self.outages.push(Outage {
            office: office_no,
            since: self.t,
            reading,
        });
        self.turn += 1;
        self.mark();
    }

    pub(super) fn mark(&mut self) {
        let office = auction::Office {
            term: self.term,
            turn: self.turn,
        };
        let sent = self.quorum();
        self.enqueue(
            Arc::new(Entry {
                office,
                ..Entry::default()
            }),
            sent,
        );
    }

    pub(super) fn take(&mut self, i: usize, id: auction::Office) {
        self.lose(i);
        let (t, mono) = (self.t, self.mono(i));
        let node = &mut self.nodes[i];
        let heard_ago = if self.offices.is_empty() {
            0
        } else {
            t - node.heard.min(t)
        };
        let mut office = Office::take(self.options, id, mono, &node.shard, heard_ago);
        office.plant = self.plant;
        if let Some(Plant::Clock(plant)) = self.plant {
            office.clock.plant = Some(plant);
        }
        let base = office.clock.base();
        node.office = Some(office);
        node.office_no = self.offices.len();
        node.wake = None;
        self.offices.push(Past {
            id,
            base,
            took: t,
            samples: vec![(t, base.0)],
        });
        let before = self.office_now.replace(self.offices.len() - 1);
        self.check_outage(before, base);
        self.poke(i, 0);
        let (ms, office) = (self.dice.range(LEARN.0, LEARN.1 + 1), self.offices.len() - 1);
        self.after(ms, What::Learn { node: i, office });
    }

    pub(super) fn quorum(&self) -> bool {
        let n = &self.nodes[self.leader];
        n.up && !n.cut && self.t >= n.frozen && !self.no_quorum
    }

    pub(super) fn enqueue(&mut self, entry: Arc<Entry>, sent: bool) {
        let ready = (self.t + self.latency()).max(self.queue.back().map_or(0, |last| last.ready));
        self.queue.push_back(Queued { ready, entry, sent });
        self.at(ready, What::Pump);
    }

    pub(super) fn propose(&mut self, node: usize, office: usize, packed: Packed) {
        let entry = Arc::new(packed.entry);
        if entry.office.term != self.term {
            return; // a leader of the past: never commits, and it learns so later
        }
        if let Some(fate) = self.reject_next.take() {
            let (ms, n) = (self.dice.range(1, 40), entry.n);
            let unknown = matches!(fate, Landed::Unknown);
            return self.after(
                ms,
                What::Landed {
                    node,
                    office,
                    n,
                    unknown,
                },
            );
        }
        let received = self.t + self.dice.range(LATENCY.0, LATENCY.1 + 1);
        self.received.insert((entry.office, entry.n), received);
        let sent = self.quorum();
        self.enqueue(entry, sent);
    }

    pub(super) fn pump(&mut self) {
        while self.queue.front().is_some_and(|next| next.ready <= self.t) && self.quorum() {
            let entry = self.queue.pop_front().unwrap().entry;
            self.log.push(entry.clone());
            self.logged_at.push(self.t);
            self.advance(self.leader);
            if entry.n == 0
                && entry.office
                    == (auction::Office {
                        term: self.term,
                        turn: self.turn,
                    })
            {
                self.take(self.leader, entry.office);
            }
        }
    }

    pub(super) fn advance(&mut self, i: usize) {
        while self.nodes[i].applied < self.log.len() {
            let node = &mut self.nodes[i];
            let entry = self.log[node.applied].clone();
            let top = node.shard.top();
            let applied = Arc::new(node.shard.apply(&entry));
            if node.shard.top() > top {
                let late = self.plant == Some(Plant::HeldFromApply);
                node.heard = if late {
                    self.t
                } else {
                    self.received[&(entry.office, entry.n)]
                };
            }
            node.applied += 1;
            if let Applied::Done(done) = applied.as_ref() {
                self.seen(i, &entry, done);
            }
            let office_no = self.nodes[i].office_no;
            if entry.n > 0
                && self.nodes[i]
                    .office
                    .as_ref()
                    .is_some_and(|office| office.id == entry.office)
            {
                self.landed(i, office_no, entry.n, Landed::Applied(applied));
            }
        }
    }

    pub(super) fn seen(&mut self, i: usize, entry: &Entry, done: &auction::Done) {
        for event in &done.events {
            if matches!(event.kind, EventKind::Close { .. }) {
                self.closes.entry(event.auction.clone()).or_insert((self.t, event.ct));
            }
        }
        for (stamped, verdict) in entry.commands.iter().zip(&done.verdicts) {
            let command = &stamped.command;
            if verdict.outcome == Err(Reason::Closed) && self.nodes[i].office.is_some() {
                self.check_told_late(i, command);
            }
            if matches!(command.action, Action::Start { .. }) && verdict.outcome.is_ok() {
                let office = self.offices.iter().position(|past| past.id == entry.office).unwrap();
                let began = self.began[&(office, command.auction.clone())];
                self.live_at.entry(command.auction.clone()).or_insert(began);
            }
        }
    }

    /// Node `i` leads the next term; of what was in flight and had been sent, a prefix survives.
    pub(super) fn elect(&mut self, i: usize) {
        let sent = self.queue.iter().take_while(|next| next.sent).count() as u64;
        let keep = self.dice.range(0, sent + 1) as usize;
        self.queue.truncate(keep);
        (self.term, self.turn, self.leader) = (self.term + 1, 0, i);
        let ready = self.t + self.latency();
        for queued in &mut self.queue {
            (queued.ready, queued.sent) = (ready, true);
        }
        let office = auction::Office {
            term: self.term,
            turn: 0,
        };
        self.queue.push_back(Queued {
            ready,
            entry: Arc::new(Entry {
                office,
                ..Entry::default()
            }),
            sent: true,
        });
        self.at(ready, What::Pump);
    }
}
