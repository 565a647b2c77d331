//! Video at this node (`sfu::Media`), and what media and auction tell each other: events only.
//!
//! ```text
//!   seller's stream up/down --StreamEvent--> `tell`: a command to the auction's shard, as SYSTEM, until it is judged
//!   auction's `stream` event --feed-->       `follow_origin`: Media::set_origin, while anyone here watches
//! ```
//!
//! A stream event is a fact: it is told until the shard has judged it, whoever leads meanwhile, in the order in which
//! it happened. Its command id is the stream's, so that telling it twice is telling it once.

use super::ShardPort;
use crate::metrics;
use async_trait::async_trait;
use auction::{Action, Actor, AuctionId, Command, EventKind, FeedItem, Id, Reply, Rights};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use placement::{ClusterMap, NodeId};
use router::ports::{MediaAnswer, MediaCaptured, PortError, Shards as _, Streams};
use sfu::{Media, MediaError, StreamEvent};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Stream events that are being told at once; beyond it the media plane's own queue waits.
const TELLING_MAX: usize = 256;
/// Wait between two attempts to tell.
const AGAIN: Duration = Duration::from_millis(50);
/// An event that nobody would hear for this long is given up: the auction's shard has been gone for as long.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a followed auction is checked for still having video here.
const IDLE_CHECK: Duration = Duration::from_secs(10);

/// Video at this node.
#[derive(Clone)]
pub(crate) struct StreamPort {
    media: Media,
    shards: ShardPort,
    map: watch::Receiver<Arc<ClusterMap>>,
    following: Arc<Mutex<HashSet<AuctionId>>>,
}

fn port_error(error: MediaError) -> PortError {
    match error {
        MediaError::NotFound => PortError::NotFound,
        other => PortError::Refused(format!("{}: {other}", other.code())),
    }
}

impl StreamPort {
    /// Over this media plane.
    pub(crate) fn new(media: Media, shards: ShardPort, map: watch::Receiver<Arc<ClusterMap>>) -> StreamPort {
        StreamPort {
            media,
            shards,
            map,
            following: Arc::default(),
        }
    }

    /// Tells auctions of their streams until the media plane ends. Events of one auction stay in order.
    pub(crate) async fn tell_all(self, mut events: mpsc::Receiver<StreamEvent>) {
        let room = Arc::new(Semaphore::new(TELLING_MAX));
        let mut newest: HashMap<String, JoinHandle<()>> = HashMap::new();
        while let Some(event) = events.recv().await {
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            newest.retain(|_, telling| !telling.is_finished());
            let (StreamEvent::Up { auction, .. } | StreamEvent::Down { auction, .. }) = &event;
            let before = newest.remove(auction);
            let (auction, port) = (auction.clone(), self.clone());
            let telling = tokio::spawn(async move {
                if let Some(before) = before {
                    // However the earlier one ended, this one is next.
                    let _ = before.await;
                }
                port.tell(event).await;
                drop(permit);
            });
            newest.insert(auction, telling);
        }
    }

    async fn tell(&self, event: StreamEvent) {
        let me = self.shards.me.0;
        let (auction, stream, up) = match event {
            StreamEvent::Up { auction, stream } => (auction, stream, true),
            StreamEvent::Down { auction, stream } => (auction, stream, false),
        };
        let prefix = if up { "up" } else { "down" };
        let ids = (
            Id::parse(&auction),
            Id::parse(&stream),
            Id::parse("system"),
            Id::parse(&format!("{prefix}-{stream}")),
        );
        let (Some(auction), Some(stream), Some(system), id @ Some(_)) = ids else {
            tracing::error!("a stream event with an id that is none");
            return;
        };
        let action = if up {
            Action::StreamUp { node: me, stream }
        } else {
            Action::StreamDown { stream }
        };
        let actor = Actor {
            id: system,
            rights: Rights::SYSTEM,
        };
        let command = Command {
            auction,
            actor,
            id,
            first_sent: None,
            action,
        };
        let span = tracing::info_span!("node.stream_event", auction = %command.auction, up);
        let told = tokio::time::timeout(PATIENCE, self.until_judged(&command).instrument(span.clone())).await;
        let result = match told {
            Ok(Ok(())) => "accepted",
            Ok(Err(reason)) => reason.code(),
            Err(_) => "gave_up",
        };
        metrics::stream_command(result);
        span.in_scope(|| tracing::info!(result, "stream event told"));
    }

    /// Asks around until some leader has judged the command.
    async fn until_judged(&self, command: &Command) -> Result<(), auction::Reason> {
        let mut hint = None;
        for attempt in 0_usize.. {
            let map = self.map.borrow().clone();
            let shard = placement::shard_of(command.auction.as_str(), map.shards);
            let replicas = map
                .placement
                .get(&shard)
                .map(|p| p.replicas.as_slice())
                .unwrap_or_default();
            let next = replicas.get(attempt % replicas.len().max(1)).map(|(node, _)| *node);
            let Some(node) = hint.take().or_else(|| self.shards.leader(shard)).or(next) else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            match self.shards.submit(node, shard, map.epoch, command.clone()).await {
                Reply::Verdict(verdict) => return verdict.outcome,
                Reply::NotLeader { hint: Some(leader), .. } => hint = Some(NodeId(leader)),
                _ => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    /// Follows where an auction's stream comes in, once per auction, while it has video here.
    fn follow_origin(&self, auction: &AuctionId) {
        if !self.following.lock().insert(auction.clone()) {
            return;
        }
        let (port, auction) = (self.clone(), auction.clone());
        tokio::spawn(async move {
            loop {
                let over = port.origin_until_broken(&auction).await;
                let mut following = port.following.lock();
                let carried = port.media.stats().iter().any(|s| s.auction == auction.as_str());
                if over || !carried {
                    following.remove(&auction);
                    return;
                }
                drop(following);
                tokio::time::sleep(AGAIN).await;
            }
        });
    }

    /// One feed's worth; true if the auction is over.
    async fn origin_until_broken(&self, auction: &AuctionId) -> bool {
        let map = self.map.borrow().clone();
        let shard = placement::shard_of(auction.as_str(), map.shards);
        let replicas = map
            .placement
            .get(&shard)
            .map(|p| p.replicas.clone())
            .unwrap_or_default();
        let here = replicas
            .iter()
            .map(|(node, _)| *node)
            .find(|node| *node == self.shards.me);
        let Some(node) = here.or_else(|| self.shards.leader(shard)) else {
            return false;
        };
        let Ok(mut feed) = self.shards.follow(node, shard, auction, None).await else {
            return false;
        };
        let mut check = tokio::time::interval_at(tokio::time::Instant::now() + IDLE_CHECK, IDLE_CHECK);
        loop {
            tokio::select! {
                item = feed.next() => match item {
                    Some(FeedItem::Snapshot { view, .. } | FeedItem::Changed(view)) => {
                        self.media.set_origin(auction.as_str(), view.stream.as_ref().map(|(node, _)| *node));
                    }
                    Some(FeedItem::Event(event)) => match &event.kind {
                        EventKind::Stream { node, .. } => self.media.set_origin(auction.as_str(), *node),
                        EventKind::Close { .. } => return true,
                        _ => {}
                    },
                    None => return false,
                },
                _ = check.tick() => {
                    if !self.media.stats().iter().any(|s| s.auction == auction.as_str()) {
                        return false;
                    }
                }
            }
        }
    }
}

#[async_trait]
impl Streams for StreamPort {
    async fn publish(&self, auction: &AuctionId, offer: String) -> Result<MediaAnswer, PortError> {
        let answer = self.media.publish(auction.as_str(), &offer).await.map_err(port_error)?;
        Ok(MediaAnswer {
            session: answer.session,
            sdp: answer.sdp,
        })
    }

    async fn watch(
        &self,
        auction: &AuctionId,
        origin: Option<NodeId>,
        offer: String,
    ) -> Result<MediaAnswer, PortError> {
        let answer = self
            .media
            .watch(auction.as_str(), origin.map(|n| n.0), &offer)
            .await
            .map_err(port_error)?;
        self.follow_origin(auction);
        Ok(MediaAnswer {
            session: answer.session,
            sdp: answer.sdp,
        })
    }

    async fn patch(&self, session: &str, fragment: String) -> Result<Option<String>, PortError> {
        self.media.patch(session, &fragment).await.map_err(port_error)
    }

    async fn end(&self, session: &str) -> Result<(), PortError> {
        self.media.end(session).await.map_err(port_error)
    }

    fn captured(&self, session: &str) -> Option<MediaCaptured> {
        let captured = self.media.captured(session)?;
        Some(MediaCaptured {
            rtp: captured.rtp,
            rate: captured.rate,
            legs_us: captured.legs_us,
        })
    }
}
