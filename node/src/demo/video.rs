//! The demo's video: a seller that publishes the clip by real WHIP, and a viewer that counts pictures by WHEP.

use super::crowd::Door;
use anyhow::{Context as _, Result};
use client::media::{HttpSignal, Publisher, PublisherOptions, Seen, Viewer, ViewerOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A seller on air: at the first node of its list that answers, at the next one when that is gone.
pub(super) struct Seller(Publisher);

impl Seller {
    /// Publishes for `auction`, to the node at `place` first.
    pub(super) fn publish(door: &Door, place: usize, auction: &str, token: &str) -> Result<Seller> {
        let nodes = door.urls().len();
        let urls = (0..nodes).map(|i| format!("{}/whip/{auction}", door.urls()[(place + i) % nodes]));
        let signal = HttpSignal::new(urls.collect(), Some(token.to_string())).context("a WHIP client")?;
        let publisher = Publisher::start(PublisherOptions::default(), Arc::new(signal)).context("publishing")?;
        Ok(Seller(publisher))
    }

    /// Goes off air.
    pub(super) async fn stop(self) {
        self.0.stop().await;
    }
}

/// A viewer at one node.
pub(super) struct Frames {
    seen: watch::Receiver<Seen>,
    _viewer: Viewer,
}

impl Frames {
    /// Watches `auction` at the node at `place`.
    pub(super) fn watch(door: &Door, place: usize, auction: &str, token: &str) -> Result<Frames> {
        Frames::at(vec![format!("{}/whep/{auction}", door.urls()[place])], token)
    }

    /// Watches `auction` at the node at `place` first, and at the others when that is gone.
    pub(super) fn follow(door: &Door, place: usize, auction: &str, token: &str) -> Result<Frames> {
        let urls = door.urls();
        let from = (0..urls.len()).map(|i| format!("{}/whep/{auction}", urls[(place + i) % urls.len()]));
        Frames::at(from.collect(), token)
    }

    fn at(urls: Vec<String>, token: &str) -> Result<Frames> {
        let signal = HttpSignal::new(urls, Some(token.to_string())).context("a WHEP client")?;
        let viewer = Viewer::start(ViewerOptions::default(), Arc::new(signal));
        Ok(Frames {
            seen: viewer.seen(),
            _viewer: viewer,
        })
    }

    /// Pictures so far.
    pub(super) fn count(&self) -> u64 {
        self.seen.borrow().frames
    }

    /// Waits, from now on, for the first whole picture over a later connection than the one of now.
    pub(super) fn again(&self) -> JoinHandle<Option<Instant>> {
        let mut seen = self.seen.clone();
        let now = seen.borrow().connections;
        tokio::spawn(async move {
            let again = seen.wait_for(|s| s.connections > now && s.first_frame_after.is_some());
            again.await.is_ok().then(Instant::now)
        })
    }

    /// Waits for so many pictures.
    pub(super) async fn at_least(&self, frames: u64, patience: Duration) -> Result<()> {
        let mut seen = self.seen.clone();
        let waiting = tokio::time::timeout(patience, seen.wait_for(|s| s.frames >= frames));
        waiting
            .await
            .with_context(|| format!("only {} of {frames} pictures came", self.count()))?
            .context("the viewer ended")?;
        Ok(())
    }
}
