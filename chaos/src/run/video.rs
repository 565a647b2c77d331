//! The video of a run: a seller who publishes a clip by WHIP, viewers by WHEP at every node, and a line for every picture.
//!
//! ```text
//!   Publisher --WHIP--> a node ~~> nodes --WHEP--> Viewers (at each node) --> med {n, src_t, node}
//!       '-- when picture n was sent (Reel) -------------------------------------------^
//! ```
//!
//! Seller and viewers go elsewhere by themselves when their node dies, as the page does. A picture is known by the number
//! that the publisher puts into it (15 bits; which of all pictures it is, the reel knows). Each try to publish is written as
//! an operation, because C12 must know where the seller is: `f` = admin, `arg` = publish, `node`; and `unpublish` at the end.
//!
//! Deliberately absent: decoding (a whole picture is one whose packets all came), and the show's own log: its `stream`
//! events have no form in the history, and nobody bids on it.

use super::{Plan, Recorder, plan};
use crate::{
    history::{Inv, Med, Nanos, Record, Ret},
    mono,
};
use anyhow::{Context as _, Result};
use async_trait::async_trait;
use client::{
    Api, Role,
    media::{
        HttpSignal, MediaClientError, OnPicture, Picture, Publisher, PublisherOptions, Signal, Viewer, ViewerOptions,
    },
    wire::NewAuction,
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A stream that takes longer than this to reach all viewers at the start has failed.
const FAILED: Duration = Duration::from_secs(20);
/// The show goes on this long after the people, so that its close disturbs nobody.
const ENCORE_MS: u64 = 10_000;

/// A seller on the air and who watches.
pub(crate) struct Show {
    a: String,
    publisher: Publisher,
    viewers: Vec<Viewer>,
    origin: Arc<AtomicU64>,
    recorder: Arc<Recorder>,
}

impl Show {
    /// The node that has the seller's stream.
    pub(crate) fn origin(&self) -> Option<u64> {
        Some(self.origin.load(Ordering::Relaxed)).filter(|node| *node > 0)
    }

    /// The seller stops, and everyone leaves.
    pub(crate) async fn finish(self) {
        let called = self
            .recorder
            .call(self.recorder.person(), verb(&self.a, "unpublish", None));
        self.publisher.stop().await;
        self.recorder.answer(called, answer("ok"));
        for viewer in self.viewers {
            viewer.stop().await;
        }
    }
}

/// A show on the air, with all its viewers watching.
pub(crate) async fn start(
    plan: &Plan,
    video: &plan::Video,
    seed: u64,
    nodes: Vec<String>,
    api: &Api,
    recorder: &Arc<Recorder>,
) -> Result<Show> {
    let seller = api.guest("presenter", Role::Seller).await?;
    let a = format!("{}-{seed}-video", plan.name);
    let new = NewAuction {
        id: Some(a.clone()),
        title: "The show".into(),
        currency: "KRW".into(),
        start_price: plan.rule.start_price,
        duration_ms: plan.seconds * 1000 + ENCORE_MS,
        guests: Some(true),
        ..NewAuction::default()
    };
    let presenter = api.with_token(&seller.token);
    presenter.create(&new).await?;
    presenter.start(&a).await?;
    let reel = Arc::new(Reel::default());
    let whip = Arc::new(Whip {
        places: Places::new(&nodes, "whip", &a, Some(&seller.token), 0)?,
        a: a.clone(),
        p: AtomicU64::new(recorder.person()),
        recorder: recorder.clone(),
    });
    let (sent, origin) = (reel.clone(), whip.places.at.clone());
    let options = PublisherOptions {
        on_picture: Some(OnPicture::new(move |picture: Picture| {
            sent.sent(picture.number.unwrap_or(0), mono::at(picture.at));
        })),
        ..PublisherOptions::default()
    };
    let publisher = Publisher::start(options, whip)?;
    let mut show = Show {
        a,
        publisher,
        viewers: Vec::new(),
        origin,
        recorder: recorder.clone(),
    };
    for n in 0..nodes.len() * video.viewers_per_node as usize {
        show.viewers.push(watch(&show.a, &nodes, n, &reel, recorder)?);
    }
    for viewer in &show.viewers {
        let mut seen = viewer.seen();
        let first = tokio::time::timeout(FAILED, seen.wait_for(|seen| seen.frames > 0)).await;
        first.context("a viewer saw no picture at the start")??;
    }
    Ok(show)
}

fn watch(a: &str, nodes: &[String], first: usize, reel: &Arc<Reel>, recorder: &Arc<Recorder>) -> Result<Viewer> {
    let whep = Arc::new(Places::new(nodes, "whep", a, None, first)?);
    let (p, a, at) = (recorder.person(), a.to_owned(), whep.at.clone());
    let (reel, recorder) = (reel.clone(), recorder.clone());
    let write = move |picture: Picture| {
        let Some((n, src_t)) = picture.number.and_then(|number| reel.find(number)) else {
            return;
        };
        let (t, a, node) = (mono::at(picture.at), a.clone(), at.load(Ordering::Relaxed));
        recorder.write(&Record::Med(Med {
            t,
            p,
            a,
            n,
            src_t,
            node,
        }));
    };
    let options = ViewerOptions {
        on_picture: Some(OnPicture::new(write)),
        ..ViewerOptions::default()
    };
    Ok(Viewer::start(options, whep))
}

fn verb(a: &str, arg: &str, node: Option<u64>) -> Inv {
    Inv {
        f: "admin".into(),
        a: a.into(),
        arg: Some(arg.into()),
        node,
        ..Inv::default()
    }
}

fn answer(st: &str) -> Ret {
    Ret {
        st: st.into(),
        ..Ret::default()
    }
}

/// The same endpoint at every node, tried in turn.
struct Places {
    signals: Vec<HttpSignal>,
    next: AtomicU64,
    /// The node that answered last; 0: none did.
    at: Arc<AtomicU64>,
}

impl Places {
    fn new(nodes: &[String], what: &str, a: &str, token: Option<&str>, first: usize) -> Result<Places> {
        let signal = |node: &String| HttpSignal::new(vec![format!("{node}/{what}/{a}")], token.map(Into::into));
        Ok(Places {
            signals: nodes.iter().map(signal).collect::<Result<_, _>>()?,
            next: AtomicU64::new(first as u64),
            at: Arc::default(),
        })
    }

    fn place(&self) -> usize {
        self.next.load(Ordering::Relaxed) as usize % self.signals.len()
    }
}

#[async_trait]
impl Signal for Places {
    async fn offer(&self, sdp: String) -> Result<(String, String), MediaClientError> {
        let place = self.place();
        let answered = self.signals[place].offer(sdp).await;
        match &answered {
            Ok(_) => self.at.store(place as u64 + 1, Ordering::Relaxed),
            Err(_) => self.left(),
        }
        answered
    }

    async fn end(&self, session: &str) {
        self.signals[self.place()].end(session).await;
    }

    fn left(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
    }
}

/// WHIP, with each try written down.
struct Whip {
    places: Places,
    a: String,
    /// The seller's number; another after a try whose outcome is unknown.
    p: AtomicU64,
    recorder: Arc<Recorder>,
}

#[async_trait]
impl Signal for Whip {
    async fn offer(&self, sdp: String) -> Result<(String, String), MediaClientError> {
        let node = self.places.place() as u64 + 1;
        let p = self.p.load(Ordering::Relaxed);
        let called = self.recorder.call(p, verb(&self.a, "publish", Some(node)));
        let answered = self.places.offer(sdp).await;
        let st = if answered.is_ok() { "ok" } else { "unk" };
        self.recorder.answer(called, answer(st));
        if answered.is_err() {
            self.p.store(self.recorder.person(), Ordering::Relaxed);
        }
        answered
    }

    async fn end(&self, session: &str) {
        self.places.end(session).await;
    }

    fn left(&self) {
        self.places.left();
    }
}

/// When each picture was sent: what a number of 15 bits stands for.
#[derive(Default)]
struct Reel(Mutex<Vec<Nanos>>);

impl Reel {
    /// The next picture was sent, or the newest again.
    fn sent(&self, number: u16, t: Nanos) {
        let mut times = self.0.lock();
        let newest = times.len().checked_sub(1).map(low);
        match times.last_mut() {
            Some(last) if newest == Some(number) => *last = t,
            _ => times.push(t),
        }
    }

    /// Which picture a number is, and when it was sent: the newest that has it.
    fn find(&self, number: u16) -> Option<(u64, Nanos)> {
        let times = self.0.lock();
        let newest = times.len().checked_sub(1)?;
        let back = usize::from(low(newest).wrapping_sub(number) & 0x7fff);
        let n = newest.checked_sub(back)?;
        Some((n as u64, times[n]))
    }
}

/// A picture's number on the wire.
fn low(n: usize) -> u16 {
    (n & 0x7fff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_15_bits_is_the_newest_picture_that_has_it() {
        let reel = Reel::default();
        assert_eq!(reel.find(0), None);
        for n in 0..40_000 {
            reel.sent(low(n), n as Nanos);
        }
        // The newest was sent again: it keeps its place.
        reel.sent(low(39_999), 50_000);
        for (number, found) in [
            (low(39_999), Some((39_999, 50_000))),
            (low(39_990), Some((39_990, 39_990))),
            // A number that isn't given yet this time round is of the round before.
            (low(40_000), Some((40_000 - 0x8000, 40_000 - 0x8000))),
        ] {
            assert_eq!(reel.find(number), found, "{number}");
        }
    }
}
