//! Edges and the clients behind them: they send, lose patience, and send again with the same id until told a verdict.

use super::{
    Action, Actor, Command, Given, Kind, Node, Plant, Reason, Reply, Rights, Waiter, What, World, body_hash, id,
};
use crate::clock::pending::key_of;

/// An edge's wait for an answer, ms.
const RESEND: u64 = 60;

/// Clients from this number on are a crowd: each bids once, high.
const HOT: u64 = 10_000;

/// One command on its way to a verdict.
pub(super) struct Request {
    command: Command,
    told: bool,
    attempt: u32,
}

impl World {
    pub(super) fn plan_clients(&mut self) {
        let count = self.auctions.len() as u64;
        for number in 1..=self.dice.range(20, 80) {
            let (t, auction) = (self.dice.range(0, 5_000), self.dice.range(0, count) as usize);
            self.at(t, What::Client { number, auction });
        }
        if self.kind != Kind::Hot {
            return;
        }
        for auction in 0..self.dice.range(1, count) as usize {
            let (t, bids) = (self.dice.range(0, 2_500), self.dice.range(150, 500));
            self.at(
                t,
                What::Burst {
                    auction,
                    bids,
                    ms: bids / 2,
                },
            );
        }
        for _ in 0..4 {
            // And again just before an end, whenever that is.
            let t = self.dice.range(1_000, 4_000);
            self.at(
                t,
                What::Aim {
                    trouble: super::Trouble::Slow,
                    ms: 0,
                    tries: 1_000,
                },
            );
        }
    }

    /// Ever higher bids of many people within `ms`.
    pub(super) fn burst(&mut self, auction: usize, bids: u64, ms: u64) {
        self.bursts += 1;
        for k in 0..bids {
            let (wait, number) = (self.dice.range(0, ms.max(1)), HOT + self.bursts * 1_000 + k);
            self.after(wait, What::Client { number, auction });
        }
    }

    pub(super) fn client(&mut self, number: u64, auction: usize) {
        let auction = self.auctions[auction].clone();
        let price = self.nodes[self.leader].shard.view(&auction).unwrap().price;
        let amount = (price + self.dice.range(0, 33)).saturating_sub(3).max(1);
        let hot = number >= HOT;
        let action = match if hot { 0 } else { self.dice.range(0, 100) } {
            0 if hot => Action::Bid {
                amount: price + 30 + 6 * (number % 1_000),
            },
            0..60 => Action::Bid { amount },
            60..85 => Action::MaxBid { maximum: amount },
            85..88 => Action::Pause {
                for_ms: Some(self.dice.range(1_000, 1_400)),
            },
            88..92 => Action::Resume,
            92..99 => Action::Extend {
                ms: self.dice.range(1, 300),
            },
            _ => Action::Cancel { reason: "no".into() },
        };
        let bids = matches!(action, Action::Bid { .. } | Action::MaxBid { .. });
        let who = if !bids {
            "op".into()
        } else {
            format!("p{}", if hot { number } else { number % 7 })
        };
        let rights = if bids {
            Rights::MEMBER.and(Rights::BIDDER)
        } else {
            Rights::OPERATOR
        };
        let actor = Actor { id: id(&who), rights };
        let command = Command {
            auction,
            actor,
            id: Some(id(&format!("c{number}"))),
            first_sent: None,
            action,
        };
        self.copies(command);
    }

    /// The command, perhaps again by another edge, perhaps with another body under the same id.
    fn copies(&mut self, command: Command) {
        let mut copies = vec![(0, command.clone())];
        if self.dice.chance(20) {
            copies.push((self.some_time(), command.clone()));
        }
        if self.dice.chance(6) {
            let mut other = command;
            match &mut other.action {
                Action::Bid { amount } | Action::MaxBid { maximum: amount } => *amount += 7,
                Action::Extend { ms } => *ms += 7,
                _ => {}
            }
            copies.push((self.dice.range(0, 40), other.clone()));
            copies.push((self.some_time(), other));
        }
        for (ms, command) in copies {
            self.open += 1;
            self.requests.push(Request {
                command,
                told: false,
                attempt: 0,
            });
            self.after(
                ms,
                What::Send {
                    request: self.requests.len() - 1,
                },
            );
        }
    }

    fn some_time(&mut self) -> u64 {
        if self.dice.chance(50) {
            self.dice.range(0, 60)
        } else {
            self.dice.range(0, 1_500)
        }
    }

    pub(super) fn send(&mut self, request: usize) {
        let r = &mut self.requests[request];
        if r.told {
            return;
        }
        r.attempt += 1;
        let attempt = r.attempt;
        let (trip, patience) = (self.dice.range(1, 12), RESEND + self.dice.range(0, 20));
        self.after(
            trip,
            What::Deliver {
                node: self.known,
                request,
                attempt,
            },
        );
        self.after(patience, What::Overdue { request, attempt });
    }

    pub(super) fn overdue(&mut self, request: usize, attempt: u32) {
        if self.requests[request].attempt == attempt {
            self.send(request);
        }
    }

    pub(super) fn retry(&mut self, request: usize, attempt: u32) {
        self.overdue(request, attempt);
    }

    pub(super) fn deliver(&mut self, i: usize, request: usize, attempt: u32) {
        let (t, mono) = (self.t, self.mono(i));
        let node = &mut self.nodes[i];
        if !node.up {
            return;
        }
        if t < node.frozen {
            let until = node.frozen;
            return self.at(
                until,
                What::Deliver {
                    node: i,
                    request,
                    attempt,
                },
            );
        }
        let command = self.requests[request].command.clone();
        let Node {
            office: Some(office),
            shard,
            office_no,
            ..
        } = node
        else {
            return self.reply((request, attempt, i), Reply::NotJudged);
        };
        let (office_no, waiting) = (*office_no, office.lanes.waiting());
        let now = office.submit(mono, shard, command.clone(), (request, attempt, i));
        if office.lanes.waiting() > waiting {
            let stamp = office.lanes.newest(&command.auction);
            let given = Given {
                office: office_no,
                stamp,
                body: body_hash(&command.action),
            };
            self.given.entry(key_of(&command).unwrap()).or_default().push(given);
        }
        self.sample(i);
        match now {
            Some((waiter, reply)) => {
                if matches!(&reply, Reply::Verdict(v) if v.outcome == Err(Reason::Closed) && !v.dup) {
                    self.check_told_late(i, &command);
                }
                self.reply(waiter, reply);
            }
            None => self.poke(i, 1),
        }
    }

    pub(super) fn reply_all(&mut self, out: Vec<(Waiter, Reply)>) {
        for (waiter, reply) in out {
            self.reply(waiter, reply);
        }
    }

    fn reply(&mut self, (request, attempt, node): Waiter, reply: Reply) {
        if self.nodes[node].up {
            let trip = self.dice.range(1, 12);
            self.after(
                trip,
                What::Answer {
                    request,
                    attempt,
                    reply: Box::new(reply),
                },
            );
        }
    }

    pub(super) fn answer(&mut self, request: usize, attempt: u32, reply: Reply) {
        if self.requests[request].told {
            return;
        }
        let outcome = match reply {
            Reply::Verdict(verdict) => verdict.outcome,
            Reply::Busy { .. } | Reply::NotJudged if self.plant == Some(Plant::BusyVerdict) => Err(Reason::Rate),
            _ => {
                if self.requests[request].attempt == attempt {
                    let pause = self.dice.range(5, 25);
                    self.after(pause, What::Retry { request, attempt });
                }
                return;
            }
        };
        let r = &mut self.requests[request];
        r.told = true;
        self.open -= 1;
        let key = (key_of(&r.command).unwrap(), body_hash(&r.command.action));
        self.told.entry(key).or_default().push(outcome);
    }
}
