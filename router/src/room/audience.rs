//! Who watches a room, and how they are woken: some at a time, and the larger they are in number, the less often.
//!
//! A write to a viewer costs some 15 µs, so a hundred viewers woken at once are a millisecond or two in which nobody else on
//! this node gets a turn: not the next auction's bid, not its close. So the audience is told in portions, and whoever is
//! ready goes between. Then it is left alone for a moment that grows with its size: in a room where much happens,
//! a viewer gets several events in one write (it reads the board when it is woken, and finds all of them there). News that
//! comes to a room at rest, a close, and word of the clock go out at once.
//!
//! ```text
//!   event --> wake ------------.   rests 0.5 ms for each viewer, 50 ms at most
//!                               +--> run: 8 viewers | who is ready | 8 viewers | …
//!   close, clock --> wake_now -'   at once
//! ```

use futures_util::FutureExt as _;
use parking_lot::RwLock;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

/// Viewers that are woken at a time: a fraction of a millisecond of writes.
const PORTION: usize = 8;
/// While all that is ready on this node takes longer than this, each portion is twice as large as the one before.
const PATIENCE: Duration = Duration::from_millis(2);
/// An audience rests for this long for each of its viewers: telling it takes a few hundredths of a core.
const REST_EACH: Duration = Duration::from_micros(500);
/// But no longer than this: nobody sees the difference of a price that is shown 20 times a second.
const REST_MAX: Duration = Duration::from_millis(50);

/// The viewers of one room.
#[derive(Default)]
pub(super) struct Audience {
    /// Each seat's socket.
    viewers: RwLock<HashMap<u64, Arc<Notify>>>,
    seats: AtomicU64,
    news: Notify,
    urgent: Notify,
}

impl Audience {
    /// Sits a viewer down: its seat's number.
    pub(super) fn sit(&self, wake: Arc<Notify>) -> u64 {
        let number = self.seats.fetch_add(1, Ordering::Relaxed);
        self.viewers.write().insert(number, wake);
        number
    }

    pub(super) fn leave(&self, number: u64) {
        self.viewers.write().remove(&number);
    }

    pub(super) fn len(&self) -> usize {
        self.viewers.read().len()
    }

    /// There is news: everyone is woken, soon.
    pub(super) fn wake(&self) {
        self.news.notify_one();
    }

    /// There is news that can't wait.
    pub(super) fn wake_now(&self) {
        self.urgent.notify_one();
    }

    /// Wakes viewers whenever there is news. Never ends.
    pub(super) async fn run(&self) {
        let mut viewers: Vec<Arc<Notify>> = Vec::new();
        let mut rested = Instant::now();
        loop {
            tokio::select! {
                () = self.urgent.notified() => {}
                () = async { self.news.notified().await; time::sleep_until(rested).await } => {}
            }
            // What came until now is on the board that they are about to read.
            let _ = self.news.notified().now_or_never();
            viewers.extend(self.viewers.read().values().cloned());
            rested = Instant::now() + rest(viewers.len());
            tell(&viewers).await;
            viewers.clear();
        }
    }
}

/// Wakes them, a portion at a time.
async fn tell(viewers: &[Arc<Notify>]) {
    let (mut portion, mut later) = (PORTION, viewers);
    while !later.is_empty() {
        let (now, rest) = later.split_at(portion.min(later.len()));
        now.iter().for_each(|viewer| viewer.notify_one());
        later = rest;
        let began = Instant::now();
        tokio::task::yield_now().await;
        // On a node that is busy whatever we do, the last viewer must not wait for a hundred turns.
        portion = if began.elapsed() > PATIENCE {
            portion * 2
        } else {
            PORTION
        };
    }
}

/// How long an audience of this size is left alone.
fn rest(viewers: usize) -> Duration {
    let viewers = u32::try_from(viewers).unwrap_or(u32::MAX);
    REST_EACH.saturating_mul(viewers).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An audience that is told, and when (ms) each of its viewers was woken.
    struct Kit {
        audience: Arc<Audience>,
        woken: Vec<Arc<Notify>>,
        began: Instant,
    }

    fn kit(viewers: usize) -> Kit {
        let audience = Arc::new(Audience::default());
        let woken: Vec<_> = (0..viewers).map(|_| Arc::new(Notify::new())).collect();
        for wake in &woken {
            audience.sit(wake.clone());
        }
        let running = audience.clone();
        tokio::spawn(async move { running.run().await });
        Kit {
            audience,
            woken,
            began: Instant::now(),
        }
    }

    impl Kit {
        /// Everyone was woken, at this time.
        async fn all_at(&self, ms: u64) {
            for (n, wake) in self.woken.iter().enumerate() {
                wake.notified().await;
                assert_eq!(self.began.elapsed().as_millis() as u64, ms, "viewer {n}");
            }
        }
    }

    #[test]
    fn the_more_watch_the_longer_they_are_left_alone() {
        for (viewers, micros) in [
            (0, 0),
            (1, 500),
            (8, 4_000),
            (100, 50_000),
            (15_000, 50_000),
            (usize::MAX, 50_000),
        ] {
            assert_eq!(rest(viewers), Duration::from_micros(micros), "{viewers} viewers");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_news_goes_out_at_once_and_what_follows_together() {
        let kit = kit(60);
        kit.audience.wake();
        kit.all_at(0).await;
        for _ in 0..3 {
            time::sleep(Duration::from_millis(5)).await;
            kit.audience.wake();
        }
        kit.all_at(30).await;
        time::sleep(Duration::from_secs(1)).await;
        let again = kit.woken.iter().map(|wake| wake.notified());
        let again = futures_util::future::select_all(again.map(Box::pin));
        assert!(
            time::timeout(Duration::from_secs(1), again).await.is_err(),
            "woken for nothing"
        );
        kit.audience.wake();
        kit.all_at(2_030).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_cant_wait_goes_out_at_once_and_takes_the_rest_along() {
        let kit = kit(100);
        kit.audience.wake();
        kit.all_at(0).await;
        time::sleep(Duration::from_millis(7)).await;
        kit.audience.wake();
        time::sleep(Duration::from_millis(3)).await;
        kit.audience.wake_now();
        kit.all_at(10).await;
        // It rests again from then on.
        kit.audience.wake();
        kit.all_at(60).await;
    }

    #[tokio::test]
    async fn others_go_between_two_portions() {
        let audience = Arc::new(Audience::default());
        let woken = Arc::new(AtomicU64::new(0));
        for _ in 0..PORTION * 10 {
            let (wake, woken) = (Arc::new(Notify::new()), woken.clone());
            audience.sit(wake.clone());
            tokio::spawn(async move {
                wake.notified().await;
                woken.fetch_add(1, Ordering::Relaxed);
            });
        }
        tokio::task::yield_now().await;
        let running = audience.clone();
        tokio::spawn(async move { running.run().await });
        audience.wake();
        let mut seen = Vec::new();
        while seen.last() != Some(&(PORTION as u64 * 10)) {
            tokio::task::yield_now().await;
            seen.push(woken.load(Ordering::Relaxed));
        }
        seen.dedup();
        assert!(seen.len() >= 5, "a neighbour had a turn only at {seen:?} of 80 viewers");
    }
}
