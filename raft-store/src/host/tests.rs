//! One node alone, and its settled auctions: damage to one shard's is that shard's loss and no more, and what a crash left of replicas
//! that are no more is swept.
#![allow(clippy::unwrap_used)]

use super::{Host, ReadError, RefoundError, Seat, Source};
use crate::{
    clock::proposer::ProposerHandle,
    host::{Fresh, GroupStatus},
    options::{Options, RaftOptions},
    wal,
};
use auction::{Action, Actor, AuctionId, Command, Currency, Definition, Id, Reason, Reply, Rights, Terms, TimeRule};
use futures_util::FutureExt;
use placement::{Node, NodeId, ShardId, shard_of};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

const SHARDS: u32 = 2;
const ONE: ShardId = ShardId(1);
const TWO: ShardId = ShardId(2);

fn options(dir: &Path) -> Options {
    Options {
        node: NodeId(1),
        dir: dir.to_owned(),
        shards: SHARDS,
        founders: vec![Node {
            id: NodeId(1),
            zone: "z".into(),
            region: "r".into(),
            weight: 1,
            grpc: "127.0.0.1:9".into(),
            http: String::new(),
            trunk: String::new(),
        }],
        wal: wal::Options {
            segment_bytes: 1024 * 1024,
            preallocate: false,
            ..wal::Options::default()
        },
        raft: RaftOptions {
            cold_after: Duration::from_millis(50),
            ..RaftOptions::default()
        },
        ..Options::default()
    }
}

async fn open(dir: &Path) -> Host {
    Host::open(options(dir)).await.unwrap()
}

/// Stops it, and lets go of its folder.
async fn close(host: Host) {
    host.halt().await;
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let given_up = tokio::time::Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(tokio::time::Instant::now() < given_up, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn status(host: &Host, shard: ShardId) -> Option<GroupStatus> {
    host.status().into_iter().find(|group| group.shard == shard)
}

/// An auction of a shard.
fn lot(shard: ShardId, n: usize) -> AuctionId {
    let names = (0..).map(|k| Id::parse(&format!("lot-{n}-{k}")).unwrap());
    names
        .into_iter()
        .find(|name| shard_of(name.as_str(), SHARDS) == shard)
        .unwrap()
}

fn command(auction: &AuctionId, who: &str, key: &str, action: Action) -> Command {
    let rights = Rights::MEMBER.and(Rights::BIDDER).and(Rights::SELLER);
    let actor = Actor {
        id: Id::parse(who).unwrap(),
        rights,
    };
    Command {
        auction: auction.clone(),
        actor,
        id: Id::parse(key),
        first_sent: None,
        action,
    }
}

fn definition() -> Definition {
    Definition {
        seller: Id::parse("seller").unwrap(),
        title: "a lamp".into(),
        description: "of brass".repeat(40),
        terms: Terms {
            currency: Currency::parse("KRW").unwrap(),
            start_price: 100,
            increments: vec![(0, 1)],
            reserve: None,
            duration_ms: 3_600_000,
            time: TimeRule::default(),
            guests: false,
            pause_without_stream: false,
        },
    }
}

async fn say(host: &Host, shard: ShardId, command: Command) -> Result<(), Reason> {
    let given_up = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let epoch = host.map().borrow().epoch;
        match host.submit(shard, epoch, command.clone()).await {
            Reply::Verdict(verdict) => return verdict.outcome,
            other => assert!(tokio::time::Instant::now() < given_up, "no verdict: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn start(host: &Host, shard: ShardId, n: usize) -> AuctionId {
    let name = lot(shard, n);
    for (key, action) in [
        ("create", Action::Create(Box::new(definition()))),
        ("start", Action::Start { schedule_version: None }),
    ] {
        assert_eq!(say(host, shard, command(&name, "seller", key, action)).await, Ok(()));
    }
    name
}

/// An auction of `shard` that lies on disk.
async fn cold(host: &Host, shard: ShardId) -> AuctionId {
    until("it leads", || host.ready()).await;
    let name = start(host, shard, 0).await;
    let bid = command(&name, "ann", "bid", Action::Bid { amount: 500 });
    assert_eq!(say(host, shard, bid).await, Ok(()));
    let end = command(&name, "seller", "end", Action::Cancel { reason: "over".into() });
    assert_eq!(say(host, shard, end).await, Ok(()));
    until("it is on disk", || {
        status(host, shard).is_some_and(|group| group.cold == 1)
    })
    .await;
    name
}

fn seat(host: &Host, shard: ShardId) -> Arc<Seat> {
    host.inner.seat(shard).unwrap()
}

/// Past the door that knows of cold auctions: an entry names one, as when it left memory after its command was let in.
async fn logged(proposer: &ProposerHandle, auction: &AuctionId, key: &str) -> Reply {
    proposer
        .submit(command(auction, "bob", key, Action::Bid { amount: 900 }))
        .await
}

fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir.join("cold")).into_iter().flatten().flatten();
    let mut names: Vec<String> = names.map(|name| name.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn spoil(dir: &Path, shard: ShardId) {
    let of = format!("shard-{:04}-", shard.0);
    let name = files(dir)
        .into_iter()
        .find(|n| n.starts_with(&of) && n.ends_with(".cold"));
    let path: PathBuf = dir.join("cold").join(name.unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_an_entry_meets_ends_its_replica_and_not_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let host = open(dir.path()).await;
    let name = cold(&host, ONE).await;
    spoil(dir.path(), ONE);
    let reply = logged(seat(&host, ONE).proposer.as_ref().unwrap(), &name, "late").await;
    assert!(!matches!(reply, Reply::Verdict(_)), "{reply:?}");
    until("its replica is shut", || status(&host, ONE).is_none()).await;
    assert_eq!(host.read(ONE, &name, Fresh::AtLeast(0)).await, Err(ReadError::NotHere));
    assert!(!host.ready(), "as with damage that is met elsewhere");
    assert_eq!(host.failed().now_or_never(), None, "the node goes on");
    let other = start(&host, TWO, 1).await;
    let seen = host.read(TWO, &other, Fresh::Linear).await.unwrap();
    assert_eq!(seen.seq, 1, "with its other shards");
    close(host).await;

    // No snapshot has named the record yet: the log has it all, and it is written anew.
    let host = open(dir.path()).await;
    until("both lead again", || host.ready()).await;
    assert_eq!(host.read(TWO, &other, Fresh::AtLeast(1)).await, Ok(seen));
    assert_eq!(host.read(ONE, &name, Fresh::AtLeast(3)).await.unwrap().seq, 3);
    close(host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_a_start_meets_shuts_its_replica_and_not_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let [_, lot, _] = damaged(dir.path(), true).await;
    let host = open(dir.path()).await;
    until("the other shard leads", || {
        status(&host, TWO).is_some_and(|group| group.leader.is_some())
    })
    .await;
    let other = start(&host, TWO, 9).await;
    assert_eq!(host.read(TWO, &other, Fresh::Linear).await.unwrap().seq, 1);
    assert_eq!(host.read(ONE, &lot, Fresh::AtLeast(0)).await, Err(ReadError::NotHere));
    assert_eq!(host.failed().now_or_never(), None, "the node goes on");
    close(host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_more_of_a_cold_auction_is_told_once_that_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let host = open(dir.path()).await;
    let name = cold(&host, ONE).await;
    let live = start(&host, ONE, 1).await;
    let looked = || seat(&host, ONE).group.replica.cold.looked.load(Ordering::Relaxed);
    let before = looked();
    assert_eq!(host.read(ONE, &name, Fresh::AtLeast(3)).await.unwrap().seq, 3);
    assert_eq!(looked(), before + 1);
    let waits = host.read(ONE, &name, Fresh::AtLeast(999));
    let bids = async {
        for n in 0..5 {
            let bid = Action::Bid { amount: 200 + n };
            let who = if n % 2 == 0 { "ann" } else { "bob" };
            assert_eq!(
                say(&host, ONE, command(&live, who, &format!("b{n}"), bid)).await,
                Ok(())
            );
        }
    };
    let (told, ()) = tokio::join!(waits, bids);
    assert_eq!((told, looked()), (Err(ReadError::Behind), before + 2), "one look");
    close(host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_replicas_that_are_no_more_are_swept_at_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let host = open(dir.path()).await;
    cold(&host, ONE).await;
    close(host).await;
    let own = files(dir.path());
    assert_eq!(own.len(), 2, "{own:?}");
    // As a crash leaves them after a shard was disowned; what isn't ours to name is nobody's to delete.
    for name in [
        "shard-0077-1f.cold",
        "shard-0077-1f.cidx",
        "shard-0077-2a.damaged",
        "notes.txt",
    ] {
        std::fs::write(dir.path().join("cold").join(name), b"x").unwrap();
    }
    let host = open(dir.path()).await;
    let left: Vec<String> = files(dir.path())
        .into_iter()
        .filter(|name| !own.contains(name))
        .collect();
    assert_eq!(left, ["notes.txt"]);
    until("it leads", || host.ready()).await;
    close(host).await;
}

/// Three auctions on disk, named by a snapshot, and the record of the second damaged; `late`: an entry after the snapshot names it.
async fn damaged(dir: &Path, late: bool) -> [AuctionId; 3] {
    let host = open(dir).await;
    until("it leads", || host.ready()).await;
    let mut lots = Vec::new();
    for n in 0..3 {
        let name = start(&host, ONE, n).await;
        let bid = command(&name, "ann", "bid", Action::Bid { amount: 500 });
        assert_eq!(say(&host, ONE, bid).await, Ok(()));
        let end = command(&name, "seller", "end", Action::Cancel { reason: "over".into() });
        assert_eq!(say(&host, ONE, end).await, Ok(()));
        lots.push(name);
    }
    until("they are on disk", || {
        status(&host, ONE).is_some_and(|group| group.cold == 3)
    })
    .await;
    let applied = status(&host, ONE).unwrap().applied;
    seat(&host, ONE).group.raft.trigger().snapshot().await.unwrap();
    until("a snapshot names them", || {
        status(&host, ONE).is_some_and(|group| group.snapshot >= applied)
    })
    .await;
    if late {
        let reply = logged(seat(&host, ONE).proposer.as_ref().unwrap(), &lots[1], "late").await;
        assert!(matches!(reply, Reply::Verdict(_)), "{reply:?}");
    }
    close(host).await;
    let name = files(dir)
        .into_iter()
        .find(|name| name.starts_with("shard-0001-") && name.ends_with(".cold"));
    let path = dir.join("cold").join(name.unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    let id = lots[1].as_str().as_bytes();
    // In an event: the head holds it twice, and one of them is enough.
    let at = bytes.windows(id.len()).rposition(|some| some == id).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    lots.try_into().unwrap()
}

async fn lost(host: &Host, [before, lot, after]: &[AuctionId; 3]) {
    assert_eq!(host.read(ONE, lot, Fresh::Linear).await, Err(ReadError::Lost));
    assert_eq!(host.events(ONE, lot, 0, 9).await, Err(ReadError::Lost));
    assert_eq!(host.follow(ONE, lot, None).await.err(), Some(ReadError::Lost));
    let again = Action::Create(Box::new(definition()));
    assert_eq!(
        say(host, ONE, command(lot, "bob", "again", again)).await,
        Err(Reason::Lost)
    );
    let bid = Action::Bid { amount: 500 };
    assert_eq!(
        say(host, ONE, command(lot, "ann", "bid", bid.clone())).await,
        Err(Reason::Lost)
    );
    for kept in [before, after] {
        assert_eq!(host.read(ONE, kept, Fresh::Linear).await.unwrap().seq, 3);
        assert_eq!(
            say(host, ONE, command(kept, "ann", "bid", bid.clone())).await,
            Ok(()),
            "its first verdict"
        );
    }
}

/// The last replica of a shard, one record of it damaged: all the rest can be saved, if the loss of that one is said yes to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_founded_from_a_survivor_without_what_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let lots = damaged(dir.path(), false).await;
    let host = open(dir.path()).await;
    until("it leads", || host.ready()).await;
    assert_eq!(host.events(ONE, &lots[1], 0, 9).await, Err(ReadError::Damaged));
    close(host).await;
    // Condemned: it stays shut, and what it has stays where it is.
    let host = open(dir.path()).await;
    until("there is a map", || host.map().borrow().epoch > 0).await;
    assert!(status(&host, ONE).is_none());
    let kept = files(dir.path());

    let why = Some("the others burnt");
    let refused = host.refound(ONE, Source::Survivor, "test", why).await.unwrap_err();
    let RefoundError::Unreadable(named) = &refused else {
        panic!("{refused}")
    };
    let names: Vec<&AuctionId> = named.auctions.keys().collect();
    assert_eq!(
        (names, named.unnamed, refused.code()),
        (vec![&lots[1]], 0, "unreadable")
    );
    assert!(refused.to_string().contains(lots[1].as_str()), "{refused}");
    let weighed = host.weigh(ONE, &Source::Readable, why).await.unwrap();
    assert_eq!((&weighed.lost, weighed.image), (named, None));
    assert!(!host.map().borrow().is_sealed(ONE), "nothing was closed");
    assert_eq!(files(dir.path()), kept, "or touched");

    let founded = host.refound(ONE, Source::Readable, "test", why).await.unwrap();
    assert_eq!((founded.auctions, &founded.lost), (2, named));
    let map = host.map().borrow().clone();
    let said = map.steering.said.iter().any(|said| {
        said.what.contains("founded anew") && said.why.as_ref().is_some_and(|why| why.contains(lots[1].as_str()))
    });
    assert!(said, "the audit names it: {:?}", map.steering.said);
    lost(&host, &lots).await;
    until("they are on disk again", || {
        status(&host, ONE).is_some_and(|group| group.cold == 2)
    })
    .await;
    lost(&host, &lots).await;
    close(host).await;
    let host = open(dir.path()).await;
    until("it leads", || host.ready()).await;
    lost(&host, &lots).await;
    let aside: Vec<String> = kept.iter().map(|name| name.replace("shard-", "lost-")).collect();
    let here = files(dir.path());
    let stays = |name: &&String| here.contains(name);
    assert_eq!(
        aside.iter().filter(stays).count(),
        aside.len(),
        "{here:?}: the last bytes of it"
    );
    close(host).await;
}
