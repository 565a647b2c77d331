//! The people of a run: a seller who opens the auctions, bidders over WebSocket and HTTP, readers, chatters.
//!
//! Each is one sequential client. Every act is written just before it is sent and just after its answer is understood;
//! after an unknown outcome the person comes back under another number and asks again with the same id.

mod house;

pub(crate) use house::House;

use super::{Plan, Recorder};
use crate::history::{Inv, Ret};
use anyhow::Result;
use client::{
    Api, ApiError, BidError, Dice, Notice, Role, Session, Socket, SocketOptions,
    wire::{Auction, NewAuction, Rush, Verdict},
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often one bid is asked again before its bidder lets it go.
const REPEATS_MAX: u32 = 4;

/// Everyone who acts.
pub(crate) struct Crowd(JoinSet<()>);

impl Crowd {
    /// Until the last of them has its last answer.
    pub(crate) async fn wait(mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// Creates and starts the plan's auctions.
pub(crate) async fn open(plan: &Plan, api: &Api, recorder: &Arc<Recorder>, seed: u64) -> Result<Arc<House>> {
    let seller = api.guest("seller", Role::Seller).await?;
    let api = api.with_token(&seller.token);
    let rule = &plan.rule;
    let p = recorder.person();
    let mut auctions = Vec::new();
    for n in 0..plan.people.auctions {
        let new = NewAuction {
            id: Some(format!("{}-{seed}-{n}", plan.name)),
            title: format!("Lot {n}"),
            currency: "KRW".into(),
            start_price: rule.start_price,
            increments: Some(vec![[0, rule.min_inc]]),
            duration_ms: plan.people.duration_ms,
            rush: Some(Rush {
                cut_ppm_max: rule.cap_ppm,
                cut_per_raise_ppm: rule.k_ppm,
                floor_ms: rule.floor_ms,
            }),
            guests: Some(true),
            ..NewAuction::default()
        };
        let a = new.id.clone().unwrap_or_default();
        let called = recorder.call(
            p,
            Inv {
                f: "create".into(),
                a: a.clone(),
                ..Inv::default()
            },
        );
        api.create(&new).await?;
        recorder.answer(
            called,
            Ret {
                st: "ok".into(),
                ..Ret::default()
            },
        );
        let called = recorder.call(
            p,
            Inv {
                f: "open".into(),
                a,
                ..Inv::default()
            },
        );
        let auction = api.start(&new.id.unwrap_or_default()).await?;
        recorder.answer(
            called,
            Ret {
                st: "ok".into(),
                ..Ret::default()
            },
        );
        auctions.push(auction);
    }
    Ok(Arc::new(House::new(auctions, rule.min_inc)))
}

/// Starts everyone.
pub(crate) async fn start(
    plan: &Plan,
    house: &Arc<House>,
    api: &Api,
    recorder: &Arc<Recorder>,
    seed: u64,
    stop: &CancellationToken,
) -> Result<Crowd> {
    let mut tasks = JoinSet::new();
    let people = &plan.people;
    for n in 0..people.bidders + people.readers + people.chatters {
        let session = api.guest(&format!("p{n}"), Role::Bidder).await?;
        let person = Person {
            p: recorder.person(),
            n: n as usize,
            api: api.with_token(&session.token),
            dice: Dice::new(seed).fork(n),
            session,
            house: house.clone(),
            recorder: recorder.clone(),
            plan: plan.clone(),
            stop: stop.clone(),
        };
        if n >= people.bidders + people.readers {
            tasks.spawn(person.chat());
        } else if n >= people.bidders {
            tasks.spawn(person.read());
        } else {
            tasks.spawn(person.bid(n % 3 != 2));
        }
    }
    Ok(Crowd(tasks))
}

struct Person {
    p: u64,
    n: usize,
    api: Api,
    dice: Dice,
    session: Session,
    house: Arc<House>,
    recorder: Arc<Recorder>,
    plan: Plan,
    stop: CancellationToken,
}

impl Person {
    /// Thinks; false: time to go.
    async fn think(&mut self) -> bool {
        let [min, max] = self.plan.people.think_ms;
        let thought = Duration::from_millis(self.dice.between(min, max));
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(thought) => true,
        }
    }

    fn socket(&mut self) -> (Socket, client::Notices) {
        Socket::open(SocketOptions {
            nodes: self.api.nodes().to_vec(),
            first: self.n,
            token: Some(self.session.token.clone()),
            // Short enough that some outcomes stay unknown and are asked again: that is the path under test.
            bid_patience: Duration::from_secs(4),
            seed: self.dice.roll(),
            ..SocketOptions::default()
        })
    }

    async fn bid(mut self, socket: bool) {
        let socket = socket.then(|| self.socket().0);
        while self.think().await {
            let Some(a) = self.house.wish(&mut self.dice, self.plan.people.hot_percent) else {
                continue;
            };
            let least = self.house.least(&a);
            // Now and then too low, sometimes far above: refusals and real cuts are part of the picture.
            let raise = self.dice.below(4) * self.plan.rule.min_inc;
            let amt = if self.dice.chance(8) {
                least.saturating_sub(self.plan.rule.min_inc)
            } else {
                least + raise
            };
            let idem = self.dice.id("i-");
            for _ in 0..REPEATS_MAX {
                if self.attempt(&a, amt, &idem, socket.as_ref()).await {
                    break;
                }
                // The old number never speaks again: its call may still act.
                self.p = self.recorder.person();
                self.n += 1;
            }
        }
    }

    /// One attempt at one bid; true: its outcome is known.
    async fn attempt(&mut self, a: &str, amt: u64, idem: &str, socket: Option<&Socket>) -> bool {
        let at = self.n % self.api.nodes().len();
        let node = if socket.is_some() { None } else { Some(at as u64 + 1) };
        let inv = Inv {
            f: "bid".into(),
            a: a.into(),
            idem: Some(idem.into()),
            bidder: Some(self.session.user.id.clone()),
            amt: Some(amt),
            node,
            ..Inv::default()
        };
        let called = self.recorder.call(self.p, inv);
        let outcome = match socket {
            Some(socket) => match socket.bid(a, amt, idem).await {
                Ok(verdict) => Some(judged(&verdict)),
                Err(BidError::Refused(problem)) => Some(refused(problem.code)),
                Err(BidError::Unknown | BidError::Closed | BidError::Full) => None,
            },
            None => match self.api.pinned(at).bid(a, amt, idem).await {
                Ok(verdict) => Some(judged(&verdict)),
                Err(ApiError::Refused(problem)) => Some(refused(problem.code)),
                Err(_) => None,
            },
        };
        match outcome {
            Some(ret) => {
                self.house.told(a, &ret);
                self.recorder.answer(called, Ret { node, ..ret });
                true
            }
            None => {
                self.recorder.answer(
                    called,
                    Ret {
                        st: "unk".into(),
                        node,
                        ..Ret::default()
                    },
                );
                false
            }
        }
    }

    async fn read(mut self) {
        while self.think().await {
            let Some(a) = self.house.wish(&mut self.dice, 40) else {
                continue;
            };
            let at = self.dice.below(self.api.nodes().len() as u64) as usize;
            let node = Some(at as u64 + 1);
            let inv = Inv {
                f: "read".into(),
                a: a.clone(),
                arg: Some("linear".into()),
                node,
                ..Inv::default()
            };
            let called = self.recorder.call(self.p, inv);
            match self.api.pinned(at).auction(&a).await {
                Ok(auction) => {
                    self.house.saw(&auction);
                    self.recorder.answer(
                        called,
                        Ret {
                            node,
                            ..version(&auction)
                        },
                    );
                }
                Err(_) => {
                    self.recorder.answer(
                        called,
                        Ret {
                            st: "unk".into(),
                            node,
                            ..Ret::default()
                        },
                    );
                    self.p = self.recorder.person();
                }
            }
        }
    }

    /// Says lines in the hot auction, each after the one before came back.
    async fn chat(mut self) {
        let (socket, mut notices) = self.socket();
        let a = self.house.hot();
        socket.join(&a).await;
        while self.think().await {
            let idem = self.dice.id("c-");
            let bidder = Some(self.session.user.id.clone());
            let inv = Inv {
                f: "chat".into(),
                a: a.clone(),
                idem: Some(idem.clone()),
                bidder,
                ..Inv::default()
            };
            let called = self.recorder.call(self.p, inv);
            socket.chat(&a, &idem, &format!("line {idem}")).await;
            let placed = tokio::time::timeout(Duration::from_secs(4), async {
                while let Some(notice) = notices.recv().await {
                    match notice {
                        Notice::Chat { line, .. } if line.id == idem => return true,
                        Notice::Problem { id: Some(id), .. } if id == idem => return false,
                        _ => {}
                    }
                }
                false
            });
            let ret = match placed.await {
                Ok(true) => Ret {
                    st: "ok".into(),
                    ..Ret::default()
                },
                Ok(false) => Ret {
                    st: "fail".into(),
                    code: Some("rate".into()),
                    ..Ret::default()
                },
                Err(_) => Ret {
                    st: "unk".into(),
                    ..Ret::default()
                },
            };
            if ret.st == "unk" {
                self.p = self.recorder.person();
            }
            self.recorder.answer(called, ret);
            // People don't type that fast.
            tokio::time::sleep(Duration::from_millis(self.dice.between(400, 900))).await;
        }
    }
}

/// What a history says of a verdict.
fn judged(verdict: &Verdict) -> Ret {
    let st = if verdict.ok { "ok" } else { "fail" };
    Ret {
        st: st.into(),
        seq: Some(verdict.seq).filter(|seq| *seq > 0),
        hi: Some(verdict.price),
        ldr: verdict.leader.clone(),
        ph: Some(verdict.phase.clone()),
        ct: Some(verdict.ct),
        dl: verdict.ends_at,
        h: Some(verdict.h.clone()).filter(|h| !h.is_empty()),
        dup: verdict.dup,
        code: verdict.code.clone(),
        ..Ret::default()
    }
}

fn refused(code: String) -> Ret {
    Ret {
        st: "fail".into(),
        code: Some(code),
        ..Ret::default()
    }
}

fn version(auction: &Auction) -> Ret {
    Ret {
        st: "ok".into(),
        seq: Some(auction.seq).filter(|seq| *seq > 0),
        hi: Some(auction.price),
        ldr: auction.leader.clone(),
        ph: Some(auction.phase.clone()),
        ct: Some(auction.ct),
        dl: auction.ends_at,
        h: Some(auction.h.clone()),
        ..Ret::default()
    }
}
