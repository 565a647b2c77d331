//! A watcher: follows one auction and keeps the books: every event once, in order, with one hash per version.

use super::Seen;
use crate::{Notice, Notices, Socket, wire::Event};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a watcher saw.
#[derive(Clone, Debug, Default)]
pub struct WatcherReport {
    /// Events.
    pub events: u64,
    /// Versions that were skipped without being told.
    pub gaps: u64,
    /// Versions that came again.
    pub repeats: u64,
    /// Times it was told to start over.
    pub snaps: u64,
    /// Connections lost.
    pub losses: u64,
    /// Newest version.
    pub seq: u64,
    /// The close, and when it was here.
    pub close: Option<(Event, Instant)>,
    /// How long after the countdown's end the close was here; `None`: the countdown was not known.
    pub close_late: Option<Duration>,
}

/// A watching bot on its own socket.
pub struct Watcher {
    socket: Socket,
    notices: Notices,
    auction: String,
    progress: watch::Sender<u64>,
}

impl Watcher {
    /// A watcher of `auction`.
    #[must_use]
    pub fn new(socket: Socket, notices: Notices, auction: String) -> Watcher {
        Watcher {
            socket,
            notices,
            auction,
            progress: watch::Sender::new(0),
        }
    }

    /// The newest version seen, to wait on.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Watches until the close, or until `stop` says so.
    pub async fn run(mut self, stop: CancellationToken) -> WatcherReport {
        let (mut seen, mut report) = (Seen::default(), WatcherReport::default());
        self.socket.join(&self.auction).await;
        while !seen.closed() {
            let notice = tokio::select! {
                () = stop.cancelled() => break,
                notice = self.notices.recv() => notice,
            };
            let Some(notice) = notice else { break };
            self.book(&notice, &mut report);
            seen.take(&self.auction, &notice);
            self.progress.send_replace(report.seq);
        }
        report
    }

    fn book(&self, notice: &Notice, report: &mut WatcherReport) {
        match notice {
            Notice::Lost { .. } => report.losses += 1,
            Notice::Snap { a, position, .. } if *a == self.auction => {
                report.snaps += 1;
                report.seq = position.offset;
            }
            Notice::Event { a, event, at } if *a == self.auction => {
                report.events += 1;
                match event.seq {
                    seq if seq == report.seq + 1 => report.seq = seq,
                    seq if seq <= report.seq => report.repeats += 1,
                    seq => {
                        report.gaps += 1;
                        report.seq = seq;
                    }
                }
                if event.ty == "close" {
                    report.close_late = self.late(event, *at);
                    report.close = Some((event.as_ref().clone(), *at));
                }
            }
            _ => {}
        }
    }

    /// How long the number had been at 0 when the close came.
    fn late(&self, close: &Event, at: Instant) -> Option<Duration> {
        let (countdown, edge) = self.socket.countdown(&self.auction)?;
        let then = self.socket.time() - at.elapsed().as_secs_f64() * 1e3;
        let (edge_then, _) = edge.edge_time(then)?;
        let stamp = countdown.now as f64 + (edge_then - countdown.s);
        Some(Duration::from_secs_f64((stamp - close.ends_at as f64).max(0.0) / 1e3))
    }
}
