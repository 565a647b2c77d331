//! The feed over a log in memory: no gap, no repeat, and no follower that holds the others up.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clock_support;

use auction::{Action, Applied, Command, Entry, FeedItem, Office, Position, Stamp, Stamped};
use auction::{AuctionId, Settled};
use clock_support::{FakeLog, bid, definition, id, seller};
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use parking_lot::RwLock;
use raft_store::{Leadership, Log, Payload, ProposeError, ReadError, State, feed};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A replica whose log is written by the test: no proposer, so every event comes when the test says so.
struct Replica {
    log: Arc<FakeLog>,
    n: u64,
    price: u64,
}

impl Replica {
    /// With `lamp` live: its event 1.
    fn live() -> Self {
        let log = FakeLog::new(Duration::ZERO);
        let mut replica = Replica { log, n: 0, price: 100 };
        let lamp = id("lamp");
        replica.apply(vec![]);
        replica.apply(vec![seller(&lamp, "1", Action::Create(Box::new(definition(10_000))))]);
        replica.apply(vec![seller(&lamp, "2", Action::Start { schedule_version: None })]);
        replica
    }

    fn apply(&mut self, commands: Vec<Command>) {
        let commands = commands
            .into_iter()
            .map(|command| Stamped {
                arrived: Stamp(0),
                command,
            })
            .collect();
        let entry = Entry {
            office: Office { term: 1, turn: 0 },
            n: self.n,
            commands,
            ..Entry::default()
        };
        self.n += 1;
        let mut state = self.log.state().write();
        let applied = state.shard.apply(&entry);
        let Applied::Done(done) = applied else {
            panic!("void: {entry:?}")
        };
        self.log.feed.publish(&done, &state.shard);
    }

    /// `count` accepted bids, one event each.
    fn bids(&mut self, count: u64) {
        for _ in 0..count {
            self.price += 1;
            let who = if self.price.is_multiple_of(2) { "ann" } else { "bob" };
            self.apply(vec![bid(&id("lamp"), who, &format!("b{}", self.price), self.price)]);
        }
    }

    async fn follow(&self, offset: Option<u64>) -> BoxStream<'static, FeedItem> {
        let from = offset.map(|offset| Position { epoch: 1, offset });
        self.log
            .feed
            .follow(self.log.clone(), &id("lamp"), from)
            .await
            .expect("lamp is there")
    }
}

/// What comes without waiting, in short: `s5` a snapshot at 5, `6` an event, `c` a change.
async fn ready(feed: &mut BoxStream<'static, FeedItem>) -> String {
    let mut words = Vec::new();
    while let Ok(Some(item)) = tokio::time::timeout(Duration::from_millis(1), feed.next()).await {
        words.push(match item {
            FeedItem::Snapshot { position, view } => {
                assert_eq!((position.epoch, position.offset), (1, view.seq));
                format!("s{}", view.seq)
            }
            FeedItem::Event(event) => event.seq.to_string(),
            FeedItem::Changed(_) => "c".into(),
        });
    }
    words.join(" ")
}

#[tokio::test(start_paused = true)]
async fn complete_after_the_offset_or_opened_by_a_snapshot() {
    for (from, first, then) in [
        (None, "s3", "4 5"),
        (Some(0), "1 2 3", "4 5"),
        (Some(2), "3", "4 5"),
        (Some(3), "", "4 5"),
        // Fed by a quicker replica before: exactly what comes after, as soon as it is here.
        (Some(4), "", "5"),
        (Some(9), "", ""),
    ] {
        let mut replica = Replica::live();
        replica.bids(2);
        let mut feed = replica.follow(from).await;
        assert_eq!(ready(&mut feed).await, first, "from {from:?}");
        replica.bids(2);
        assert_eq!(ready(&mut feed).await, then, "from {from:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_epoch_starts_again() {
    let replica = Replica::live();
    let from = Some(Position { epoch: 7, offset: 1 });
    let mut feed = replica
        .log
        .feed
        .follow(replica.log.clone(), &id("lamp"), from)
        .await
        .unwrap();
    assert_eq!(ready(&mut feed).await, "s1");
    let none = replica.log.feed.follow(replica.log.clone(), &id("none"), None).await;
    assert_eq!(none.err(), Some(ReadError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_slow_follower_reads_on_from_the_log_or_starts_again() {
    let mut replica = Replica::live();
    let mut slow = replica.follow(Some(0)).await;
    let mut quick = replica.follow(Some(0)).await;
    let over_the_ring = feed::RING as u64 + 50;
    replica.bids(over_the_ring);
    let all = (1..=over_the_ring + 1)
        .map(|seq| seq.to_string())
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(ready(&mut quick).await, all);
    replica.bids(feed::CATCH_UP as u64);
    let newest = over_the_ring + 1 + feed::CATCH_UP as u64;
    assert_eq!(
        ready(&mut slow).await,
        format!("1 s{newest}"),
        "one was read ahead; the rest is too much to catch up"
    );
    let next = ready(&mut quick).await;
    assert!(next.starts_with(&format!("{} ", over_the_ring + 2)) && next.ends_with(&newest.to_string()));
    replica.bids(1);
    assert_eq!(ready(&mut slow).await, (newest + 1).to_string());
}

#[tokio::test(start_paused = true)]
async fn an_installed_snapshot_leaves_no_gap() {
    let mut replica = Replica::live();
    let mut feed = replica.follow(None).await;
    assert_eq!(ready(&mut feed).await, "s1");
    {
        // The state jumps ahead, as by a snapshot: nobody published these events here.
        let mut state = replica.log.state().write();
        let mut entry = Entry {
            office: Office { term: 1, turn: 0 },
            n: replica.n,
            ..Entry::default()
        };
        entry.commands = vec![Stamped {
            arrived: Stamp(0),
            command: bid(&id("lamp"), "ann", "b", 500),
        }];
        state.shard.apply(&entry);
        replica.log.feed.reset(1);
    }
    replica.n += 1;
    assert_eq!(ready(&mut feed).await, "2");
}

#[tokio::test(start_paused = true)]
async fn changes_before_the_start_are_told() {
    let mut replica = Replica::live();
    let vase = id("vase");
    replica.apply(vec![seller(&vase, "1", Action::Create(Box::new(definition(10_000))))]);
    let mut feed = replica.log.feed.follow(replica.log.clone(), &vase, None).await.unwrap();
    replica.apply(vec![seller(&vase, "2", Action::Schedule { start_wall_ms: 5 })]);
    replica.apply(vec![seller(&vase, "3", Action::Start { schedule_version: None })]);
    replica.bids(3);
    assert_eq!(ready(&mut feed).await, "s0 c 1");
}

#[tokio::test(start_paused = true)]
async fn a_room_lives_as_long_as_it_is_followed() {
    let replica = Replica::live();
    assert_eq!(replica.log.feed.rooms(), 0);
    let (one, two) = (replica.follow(None).await, replica.follow(Some(1)).await);
    assert_eq!(replica.log.feed.rooms(), 1);
    drop(one);
    assert_eq!(replica.log.feed.rooms(), 1);
    drop(two);
    assert_eq!(replica.log.feed.rooms(), 0);
}

/// A log whose auctions have all left memory, and can't be read; it counts looks at its state.
struct Away {
    log: Arc<FakeLog>,
    looks: AtomicUsize,
}

impl Log for Away {
    fn propose(&self, term: u64, payload: Payload) -> BoxFuture<'static, Result<Arc<Applied>, ProposeError>> {
        self.log.propose(term, payload)
    }

    fn state(&self) -> &RwLock<State> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.log.state()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.log.leadership()
    }

    fn heard_top(&self) -> Instant {
        self.log.heard_top()
    }

    fn cold(&self, _auction: &AuctionId, _below: u64) -> Option<u64> {
        assert!(
            self.log.state().try_write().is_none(),
            "nothing moves between the two looks"
        );
        Some(0)
    }

    fn settled(&self, _number: u64) -> BoxFuture<'static, Result<Arc<Settled>, ReadError>> {
        Box::pin(std::future::ready(Err(ReadError::Damaged)))
    }
}

/// An entry that names a cold auction brings it into memory for a moment: who looks twice may miss it both times.
#[tokio::test(start_paused = true)]
async fn memory_and_disk_are_one_look_and_what_cannot_be_read_is_not_called_unknown() {
    let replica = Replica::live();
    let away = Arc::new(Away {
        log: replica.log.clone(),
        looks: AtomicUsize::new(0),
    });
    let told = replica.log.feed.follow(away.clone(), &id("vase"), None).await;
    assert_eq!(
        (told.err(), away.looks.load(Ordering::Relaxed)),
        (Some(ReadError::Damaged), 1)
    );
}
