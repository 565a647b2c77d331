//! The puller: one task per stage that fetches the stream from the right parent while somebody here wants it.
//!
//! ```text
//!   wanted, no publisher here, origin known --> parents by rank --> Subscribe, held open until there is news
//!        |                                          |  no answer: the next one
//!        '-- no longer --> Unsubscribe              '-- answer: key, stream, tracks --> stage.set_live
//! ```
//!
//! Each Subscribe renews the lease, so a relay that dies takes its lease with it. While no parent answers, the stage keeps
//! what it has: its viewers stay connected and go on when a parent is found.

use crate::carrier::{Carrier, TrunkSource};
use crate::control::RelayControl;
use crate::options::{Options, Peer};
use crate::stage::{Live, News, Stage, Track};
use arc_swap::ArcSwap;
use forward::Codec;
use forward::parent::{Member, parents, rank};
use parking_lot::Mutex;
use proto::relay::v1::{Stream, SubscribeReply, SubscribeRequest, UnsubscribeRequest};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Tracks that a stream may have.
const TRACKS_MAX: usize = 8;
/// Waits between rounds in which no parent answered.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What all pullers of a node share.
pub(crate) struct Pulling {
    pub(crate) options: Arc<Options>,
    pub(crate) carrier: Arc<Carrier>,
    pub(crate) control: Arc<dyn RelayControl>,
    pub(crate) peers: watch::Receiver<Vec<Peer>>,
    pub(crate) trunk: SocketAddr,
    /// Drawn when the process started.
    pub(crate) instance: u64,
    /// One first contact per parent at a time, so that two stages don't get two keys.
    pub(crate) contacts: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<()>>>>,
}

/// Where the stream is to be fetched; None: it isn't.
fn wanted_from(news: &News, me: u64) -> Option<u64> {
    news.origin.filter(|origin| news.wanted && !news.local && *origin != me)
}

fn candidates(auction: &str, me: u64, region: &str, origin: u64, peers: &[Peer]) -> Vec<Peer> {
    let mut members: Vec<Member<'_>> = peers
        .iter()
        .map(|p| Member {
            node: p.node,
            region: &p.region,
        })
        .collect();
    if members.iter().all(|m| m.node != me) {
        members.push(Member { node: me, region });
    }
    rank(auction, &mut members);
    parents(me, origin, &members)
        .into_iter()
        .filter_map(|n| peers.iter().find(|p| p.node == n).cloned())
        .collect()
}

/// Runs until the stage stops.
pub(crate) async fn run(pulling: Arc<Pulling>, stage: Arc<Stage>) {
    let mut puller = Puller {
        pulling,
        stage,
        parent: None,
        failures: 0,
    };
    let stop = puller.stage.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = puller.work() => {}
    }
    puller.give_back().await;
}

struct Puller {
    pulling: Arc<Pulling>,
    stage: Arc<Stage>,
    /// Who serves us.
    parent: Option<Peer>,
    failures: usize,
}

impl Puller {
    async fn work(&mut self) {
        let mut news = self.stage.news.subscribe();
        let mut peers = self.pulling.peers.clone();
        let me = self.pulling.options.node;
        loop {
            let origin = wanted_from(&news.borrow_and_update(), me);
            let Some(origin) = origin else {
                self.give_back().await;
                if news.wait_for(|news| wanted_from(news, me).is_some()).await.is_err() {
                    return;
                }
                continue;
            };
            let list = {
                let peers = peers.borrow_and_update();
                candidates(&self.stage.auction, me, &self.pulling.options.region, origin, &peers)
            };
            // Whatever becomes different about whom to ask ends the wait for an answer.
            let mut watched = news.clone();
            let elsewhere = async {
                let _ = watched.wait_for(|news| wanted_from(news, me) != Some(origin)).await;
            };
            let others = async {
                if peers.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let changed = async {
                tokio::select! {
                    () = elsewhere => {}
                    () = others => {}
                }
            };
            if list.is_empty() {
                changed.await;
                continue;
            }
            let peer = list[self.failures % list.len()].clone();
            if self.parent.as_ref().is_some_and(|p| p.node != peer.node) {
                self.leave_parent().await;
            }
            tokio::select! {
                () = changed => {}
                served = self.subscribe(&peer, origin) => match served {
                    true => self.failures = 0,
                    false => {
                        self.failures += 1;
                        let round = self.failures / list.len();
                        if self.failures.is_multiple_of(list.len()) {
                            let wait = BACKOFF_MIN.saturating_mul(1 << round.min(4)).min(BACKOFF_MAX);
                            // Spread, so that all stages of a node don't ask a parent that comes back at once.
                            tokio::time::sleep(wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                        }
                    }
                }
            }
        }
    }

    /// One lease's worth of asking. False: this parent doesn't serve us.
    async fn subscribe(&mut self, peer: &Peer, origin: u64) -> bool {
        let contact = {
            let mut contacts = self.pulling.contacts.lock();
            contacts.entry(peer.node).or_default().clone()
        };
        let known_key = self.pulling.carrier.known_key(peer.node);
        // The first contact must not wait for news while it holds the others back.
        let guard = if known_key == 0 {
            Some(contact.lock().await)
        } else {
            None
        };
        let known_key = self.pulling.carrier.known_key(peer.node);
        let live = self.stage.live.load_full().filter(|live| !live.origin);
        let lease = self.pulling.options.lease.as_millis() as u32;
        let first = known_key == 0 || self.parent.is_none();
        let request = SubscribeRequest {
            auction: self.stage.auction.clone(),
            node: self.pulling.options.node,
            trunk: self.pulling.trunk.to_string(),
            lease_ms: lease,
            wait_ms: if first { 0 } else { lease / 2 },
            known_stream: live.as_ref().map(|live| live.id.clone()).unwrap_or_default(),
            known_key,
            origin,
            depth: self.stage.depth.load(Ordering::Relaxed) as u32 + 1,
            known_tracks: live.as_ref().map_or(0, |live| live.tracks.load().len() as u32),
            instance: self.pulling.instance,
        };
        let reply = self.pulling.control.subscribe(peer, request).await;
        match reply {
            Ok(reply) => {
                let served = self.served(peer, &reply);
                drop(guard);
                self.adopt(peer, reply);
                served
            }
            Err(error) => {
                tracing::debug!(auction = %self.stage.auction, peer = peer.node, %error, "a parent doesn't serve us");
                false
            }
        }
    }

    /// Takes the key. False: we can't use what the parent said.
    fn served(&mut self, peer: &Peer, reply: &SubscribeReply) -> bool {
        let remote = reply.trunk.parse().unwrap_or(peer.trunk);
        let installed = match &reply.key {
            Some(key) => self.pulling.carrier.install(peer.node, key.id, &key.secret, remote),
            None => self.pulling.carrier.known_key(peer.node) != 0,
        };
        if installed && self.parent.as_ref().is_none_or(|p| p.node != peer.node) {
            tracing::info!(auction = %self.stage.auction, parent = peer.node, "a relay is served by its parent");
            self.parent = Some(peer.clone());
        }
        installed
    }

    /// Brings the stage in line with what the parent has.
    fn adopt(&self, peer: &Peer, reply: SubscribeReply) {
        let held = self.stage.live.load_full();
        if held.as_ref().is_some_and(|live| live.origin) {
            return;
        }
        let Some(stream) = reply.stream else {
            if held.is_some() {
                self.stage.set_live(None);
            }
            return;
        };
        let same = held.filter(|live| live.id == stream.id && live.number == stream.number);
        let fresh = same.is_none();
        let live = same.unwrap_or_else(|| {
            Arc::new(Live {
                id: stream.id.clone(),
                number: stream.number,
                epoch: stream.epoch,
                origin: false,
                tracks: ArcSwap::default(),
                source: Box::new(TrunkSource {
                    carrier: Arc::downgrade(&self.pulling.carrier),
                    stream: stream.number,
                }),
            })
        });
        let before = live.tracks.load().len();
        self.add_tracks(&live, &stream);
        self.pulling.carrier.expect(&self.stage, &live, peer.node);
        if fresh || live.tracks.load().len() > before {
            self.pulling.carrier.register(&self.stage, &live);
            self.stage.set_live(Some(live));
        }
    }

    fn add_tracks(&self, live: &Live, stream: &Stream) {
        for track in stream.tracks.iter().take(TRACKS_MAX) {
            let (Ok(number), Some(codec)) = (u8::try_from(track.track), Codec::by_name(&track.codec)) else {
                continue;
            };
            if live.track(number).is_none() {
                let options = &self.pulling.options;
                let gap = options.keyframe_gap.as_millis() as u64;
                live.add(Arc::new(Track::new(
                    number,
                    codec,
                    track.fmtp.clone(),
                    options.ring_packets,
                    gap,
                )));
            }
        }
    }

    /// Nobody wants the stream here any more, or it comes in here.
    async fn give_back(&mut self) {
        self.leave_parent().await;
        let relayed = self.stage.live.load().as_ref().is_some_and(|live| !live.origin);
        if relayed {
            self.stage.set_live(None);
        }
        self.failures = 0;
    }

    async fn leave_parent(&mut self) {
        let Some(peer) = self.parent.take() else { return };
        let request = UnsubscribeRequest {
            auction: self.stage.auction.clone(),
            node: self.pulling.options.node,
        };
        // If it doesn't hear us, the lease ends by itself.
        let _ = self.pulling.control.unsubscribe(&peer, request).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_stream_is_fetched_only_while_wanted_and_not_taken_in_here() {
        let news = |origin, local, wanted| News {
            live: None,
            origin,
            local,
            wanted,
        };
        let table = [
            (news(Some(1), false, true), Some(1)),
            (news(Some(2), false, true), None),
            (news(Some(1), true, true), None),
            (news(Some(1), false, false), None),
            (news(None, false, true), None),
        ];
        for (news, expect) in table {
            assert_eq!(wanted_from(&news, 2), expect, "{news:?}");
        }
    }

    #[test]
    fn only_peers_that_are_alive_are_asked() {
        let peer = |node, region: &str| Peer {
            node,
            region: region.into(),
            trunk: "127.0.0.1:1".parse().unwrap(),
            grpc: String::new(),
        };
        let list = candidates("a", 2, "west", 1, &[peer(1, "east")]);
        assert_eq!(list.iter().map(|p| p.node).collect::<Vec<_>>(), [1]);
        assert!(candidates("a", 2, "west", 9, &[peer(1, "east")]).is_empty());
    }
}
