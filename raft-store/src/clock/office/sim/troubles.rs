//! What goes wrong, and what that must not cost.

use super::{AuctionId, Kind, Landed, Node, Outage, Stamp, Trouble, What, World};

impl World {
    /// The same trouble, just before a deadline and amid a burst of bids.
    pub(super) fn aim(&mut self, trouble: Trouble, ms: u64, tries: u32) {
        let node = &self.nodes[self.leader];
        let reading = node
            .office
            .as_ref()
            .map_or(Stamp(u64::MAX), |office| office.clock.last_reading());
        let due = |id: &AuctionId| {
            node.shard
                .due(id)
                .is_some_and(|due| due.since(reading) < 40 && due > reading)
        };
        let near = self.auctions.iter().position(due);
        if near.is_none() && tries > 0 {
            return self.after(
                5,
                What::Aim {
                    trouble,
                    ms,
                    tries: tries - 1,
                },
            );
        }
        match near {
            Some(near) if self.kind == Kind::Faults => {
                let bids = self.dice.range(0, 40);
                self.burst(near, bids, 40);
            }
            // Where it isn't the log's fault: every auction is hot when this one is about to close.
            Some(_) => (0..self.auctions.len()).for_each(|auction| {
                let bids = self.dice.range(20, 120);
                self.burst(auction, bids, 80);
            }),
            None => {}
        }
        if self.kind == Kind::Faults {
            let wait = self.dice.range(0, 60);
            self.after(wait, What::Trouble { trouble, ms });
        }
    }

    pub(super) fn trouble(&mut self, trouble: Trouble, ms: u64) {
        self.faults_end = self.faults_end.max(self.t + ms);
        let i = self.leader;
        let whole = self.nodes.iter().all(|n| n.up && !n.cut && self.t >= n.frozen) && !self.no_quorum;
        if self.nodes[i].office.is_none() || !whole {
            return;
        }
        match trouble {
            Trouble::Slow => {
                self.slow = self.dice.pick(&[5, 12, 30]);
                return self.after(ms, What::Quicken);
            }
            Trouble::Reject => return self.reject_next = Some(Landed::NotLogged),
            Trouble::Forget => return self.reject_next = Some(Landed::Unknown),
            _ => {}
        }
        let reading = self.read(i);
        let office = self.nodes[i].office_no;
        self.outages.push(Outage {
            office,
            since: self.t,
            reading: reading.0,
        });
        match trouble {
            Trouble::Elect => {
                let next = (i + self.dice.range(1, 3) as usize) % 3;
                self.elect(next);
                let ms = self.dice.range(0, 100);
                return self.after(ms, What::Lose { node: i, office });
            }
            Trouble::Crash => {
                self.nodes[i].up = false;
                self.nodes[i].office = None;
                self.nodes[i].landed.clear();
            }
            Trouble::Freeze => self.nodes[i].frozen = self.t + ms,
            Trouble::Cut => self.nodes[i].cut = true,
            _ => self.no_quorum = true,
        }
        let term = self.term;
        if trouble != Trouble::NoQuorum {
            let wait = self.dice.range(150, 700);
            self.after(wait, What::MaybeElect { node: i, term });
        }
        self.after(
            ms,
            What::Heal {
                trouble,
                node: i,
                office,
                since: self.t,
                reading,
                term,
            },
        );
    }

    /// A socket's look at a node's clock.
    pub(super) fn read(&mut self, i: usize) -> Stamp {
        let mono = self.mono(i);
        let Node {
            office: Some(office),
            shard,
            ..
        } = &mut self.nodes[i]
        else {
            panic!("no office")
        };
        let now = office.read_at_door(mono, shard);
        self.sample(i);
        now
    }

    pub(super) fn maybe_elect(&mut self, node: usize, term: u64) {
        let n = &self.nodes[node];
        if self.term == term && (!n.up || n.cut || self.t < n.frozen) {
            let next = (node + self.dice.range(1, 3) as usize) % 3;
            self.elect(next);
        }
    }

    pub(super) fn heal(&mut self, trouble: Trouble, node: usize, office: usize, since: u64, reading: Stamp, term: u64) {
        (self.nodes[node].up, self.nodes[node].cut) = (true, false);
        if trouble == Trouble::NoQuorum {
            self.no_quorum = false;
        }
        let same = self.nodes[node].office.is_some() && self.nodes[node].office_no == office;
        if trouble == Trouble::Crash && self.term == term {
            let next = (node + self.dice.range(0, 3) as usize) % 3;
            self.elect(next);
        } else if self.term != term {
            let ms = if trouble == Trouble::Freeze {
                self.dice.range(0, 30)
            } else {
                0
            };
            self.after(ms, What::Lose { node, office });
        } else if same {
            let eaten = self.read(node).since(reading);
            let bound = if trouble == Trouble::Freeze {
                self.options.clock.step_ms
            } else {
                self.options.clock.hold_ms
            };
            if eaten > bound {
                self.bad("eaten", format!("{trouble:?} of {} ms ate {eaten}", self.t - since));
            }
            self.outages.pop();
        }
        self.pump();
    }
}
