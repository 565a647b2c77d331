//! Viewers of a run: each follows one auction on its own socket, reconnects now and then, and writes down what it gets.

use super::{Plan, Recorder, people::House};
use crate::{
    history::{Evt, Nanos, Record, Sub},
    mono,
};
use client::{Dice, Notice, Notices, Socket, SocketOptions, wire::Event};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long viewers stay after the dump: the last events are on their way.
const LINGER: Duration = Duration::from_secs(1);

/// All viewers.
pub(crate) struct Watchers {
    tasks: JoinSet<()>,
    done: CancellationToken,
}

impl Watchers {
    /// Everyone goes home.
    pub(crate) async fn finish(mut self) {
        tokio::time::sleep(LINGER).await;
        self.done.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

pub(crate) fn start(
    plan: &Plan,
    house: &Arc<House>,
    nodes: Vec<String>,
    recorder: &Arc<Recorder>,
    seed: u64,
    stop: &CancellationToken,
) -> Watchers {
    let (mut tasks, done) = (JoinSet::new(), CancellationToken::new());
    let dice = Dice::new(seed);
    for (n, a) in house.ids().into_iter().enumerate() {
        for v in 0..plan.people.viewers {
            let mut dice = dice.fork(1_000 + n as u64 * 100 + v);
            let options = SocketOptions {
                nodes: nodes.clone(),
                first: (n as u64 + v) as usize,
                seed: dice.roll(),
                ..SocketOptions::default()
            };
            let (socket, notices) = Socket::open(options);
            let book = Book {
                p: recorder.person(),
                a: a.clone(),
                sub: None,
                seen: 0,
                recorder: recorder.clone(),
                house: house.clone(),
            };
            let every = plan.people.reconnect_ms;
            tasks.spawn(follow(socket, notices, book, every, dice, stop.clone(), done.clone()));
        }
    }
    Watchers { tasks, done }
}

async fn follow(
    socket: Socket,
    mut notices: Notices,
    mut book: Book,
    every: [u64; 2],
    mut dice: Dice,
    stop: CancellationToken,
    done: CancellationToken,
) {
    socket.join(&book.a).await;
    let mut next = tokio::time::Instant::now() + Duration::from_millis(dice.between(every[0], every[1]));
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = tokio::time::sleep_until(next), if !stop.is_cancelled() => {
                next = tokio::time::Instant::now() + Duration::from_millis(dice.between(every[0], every[1]));
                socket.reconnect().await;
            }
            notice = notices.recv() => match notice {
                Some(notice) => book.take(&notice),
                None => return,
            },
        }
    }
}

/// One viewer's writing.
struct Book {
    p: u64,
    a: String,
    sub: Option<u64>,
    seen: u64,
    recorder: Arc<Recorder>,
    house: Arc<House>,
}

impl Book {
    /// The connection ended at `t`: when the socket left it, not when we come to read of it.
    fn close(&mut self, t: Nanos) {
        if let Some(sub) = self.sub.take() {
            let (p, a) = (self.p, self.a.clone());
            self.recorder.write(&Record::Sub(Sub {
                t,
                p,
                sub,
                a,
                ev: "close".into(),
                ..Sub::default()
            }));
        }
    }

    fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::Joining { from, at, .. } => {
                let t = mono::at(*at);
                self.close(t);
                let sub = self.recorder.sub();
                let (p, a) = (self.p, self.a.clone());
                let from = from.map_or(0, |position| position.offset);
                self.recorder.write(&Record::Sub(Sub {
                    t,
                    p,
                    sub,
                    a,
                    ev: "open".into(),
                    from,
                    node: None,
                }));
                self.sub = Some(sub);
            }
            Notice::Lost { at, .. } => self.close(mono::at(*at)),
            // Version 0 is an auction that isn't open yet: nothing was seen.
            Notice::Snap {
                position, auction, at, ..
            } if position.offset > 0 => {
                self.house.saw(auction);
                let (h, ct, dl) = (auction.h.clone(), Some(auction.ct), auction.ends_at);
                let evt = Evt {
                    seq: position.offset,
                    ty: "snap".into(),
                    h,
                    ct,
                    dl,
                    ..Evt::default()
                };
                self.write(mono::at(*at), evt);
            }
            Notice::Event { event, at, .. } => self.event(event, mono::at(*at)),
            Notice::Chat { line, at, .. } => {
                let (chat_epoch, cseq) = (Some(line.chat_epoch), Some(line.cseq));
                let (bidder, idem) = (Some(line.from.clone()), Some(line.id.clone()));
                let evt = Evt {
                    ty: "chat".into(),
                    chat_epoch,
                    cseq,
                    bidder,
                    idem,
                    ..Evt::default()
                };
                self.write(mono::at(*at), evt);
            }
            _ => {}
        }
    }

    fn event(&mut self, event: &Event, t: Nanos) {
        self.house.heard(&self.a, event);
        if event.ty == "held" {
            self.recorder
                .held(t, self.house.shard(&self.a), event.ct, event.dms.unwrap_or(0));
        }
        let log = super::dump::log(event);
        let (amt, bidder) = (log.amt, Some(log.bidder));
        let (ct, dl, dms) = (Some(log.ct), Some(log.dl), log.dms);
        self.write(
            t,
            Evt {
                seq: log.seq,
                ty: log.ty,
                h: log.h,
                amt,
                bidder,
                ct,
                dl,
                dms,
                ..Evt::default()
            },
        );
    }

    fn write(&mut self, t: i64, evt: Evt) {
        // What was on its way when we left was not got.
        let Some(sub) = self.sub else { return };
        self.seen = self.seen.max(evt.seq);
        self.recorder.write(&Record::Evt(Evt {
            t,
            p: self.p,
            sub,
            a: self.a.clone(),
            ..evt
        }));
    }
}
