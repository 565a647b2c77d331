//! The proposer's task over a log in memory, in paused time: what a sender is told, whatever becomes of the log.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clock_support;

use auction::{Action, Command, EventKind, FeedItem, Phase, Reason, Reply, Verdict, Wall};
use clock_support::{FakeLog, Fault, bid, definition, follows, id, leads, seller};
use futures_util::{StreamExt, future::join_all};
use raft_store::{Log, clock::proposer::ProposerHandle, fitness::Intake};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

const LATENCY: Duration = Duration::from_millis(3);

/// Sends until told a verdict, as an edge does.
async fn told(proposer: &ProposerHandle, command: Command) -> Verdict {
    for _ in 0..200 {
        match proposer.submit(command.clone()).await {
            Reply::Verdict(verdict) => return verdict,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("no verdict in 200 tries: {command:?}");
}

/// A live auction `lamp` of 10 s, over a log that commits in `LATENCY`.
async fn live() -> (Arc<FakeLog>, ProposerHandle) {
    live_over(LATENCY).await
}

async fn live_over(latency: Duration) -> (Arc<FakeLog>, ProposerHandle) {
    let log = FakeLog::new(latency);
    let proposer = log.proposer();
    // The grace is over: the clock runs.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let lamp = id("lamp");
    let create = Action::Create(Box::new(definition(10_000)));
    assert_eq!(told(&proposer, seller(&lamp, "1", create)).await.outcome, Ok(()));
    assert_eq!(
        told(&proposer, seller(&lamp, "2", Action::Start { schedule_version: None }))
            .await
            .outcome,
        Ok(())
    );
    (log, proposer)
}

fn phase(log: &FakeLog) -> Phase {
    log.state().read().shard.view(&id("lamp")).unwrap().phase
}

#[tokio::test(start_paused = true)]
async fn a_bid_is_judged_and_the_auction_closes_by_itself() {
    let (log, proposer) = live().await;
    let lamp = id("lamp");
    let begun = tokio::time::Instant::now();
    assert_eq!(told(&proposer, bid(&lamp, "ann", "b1", 150)).await.outcome, Ok(()));
    let mut feed = log.feed.follow(log.clone(), &lamp, None).await.unwrap();
    let close = loop {
        match feed.next().await.unwrap() {
            FeedItem::Event(event) if matches!(event.kind, EventKind::Close { .. }) => break event,
            _ => {}
        }
    };
    let took = begun.elapsed().as_millis();
    assert!(
        (9_990..10_050).contains(&took),
        "closed after {took} ms of a 10 s auction"
    );
    assert_eq!((close.price, close.leader.clone()), (150, Some(id("ann"))));
    let late = told(&proposer, bid(&lamp, "bob", "b2", 500)).await;
    assert_eq!(late.outcome, Err(Reason::Closed));
    assert_eq!(log.state().read().shard.clamped(), 0);
}

/// An entry costs three nodes far more than a bid in it does: what comes while one is under way is one entry, too.
#[tokio::test(start_paused = true)]
async fn what_comes_while_an_entry_is_under_way_goes_together_with_the_next() {
    let (log, proposer) = live().await;
    let lamp = id("lamp");
    let before = log.proposals.load(Ordering::Relaxed);
    let bids = (0..20_u64).map(|n| {
        let (who, key) = (if n % 2 == 0 { "ann" } else { "bob" }, format!("b{n}"));
        let command = bid(&lamp, who, &key, 150 + n);
        let proposer = &proposer;
        async move {
            tokio::time::sleep(Duration::from_millis(n.min(1))).await;
            proposer.submit(command).await
        }
    });
    for reply in join_all(bids).await {
        assert!(
            matches!(&reply, Reply::Verdict(verdict) if verdict.outcome.is_ok()),
            "{reply:?}"
        );
    }
    let entries = log.proposals.load(Ordering::Relaxed) - before;
    // A beat may be among them.
    assert!((2..=3).contains(&entries), "{entries} entries for 20 bids");
}

#[tokio::test(start_paused = true)]
async fn a_shard_without_timers_and_work_proposes_nothing() {
    let (log, proposer) = live().await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(matches!(phase(&log), Phase::Closed(_)));
    let before = log.proposed();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(log.proposed(), before);
    assert!(!proposer.reading().unwrap().timers);
}

#[tokio::test(start_paused = true)]
async fn a_live_auction_beats_ten_times_a_second() {
    let (log, _proposer) = live().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = log.proposed();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let beats = log.proposed() - before;
    assert!((45..=52).contains(&beats), "{beats} beats in 5 s");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_loses_much_time_says_so() {
    for (latency, strained) in [(LATENCY, false), (Duration::from_millis(700), true)] {
        let (log, proposer) = live_over(latency).await;
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(proposer.is_strained(), strained, "commits take {latency:?}");
        assert_eq!(
            matches!(phase(&log), Phase::Live),
            strained,
            "what no majority witnessed did not pass"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_lead_says_who_does() {
    let log = FakeLog::new(LATENCY);
    log.lead(follows(3));
    let proposer = log.proposer();
    let reply = proposer.submit(bid(&id("lamp"), "ann", "b1", 1)).await;
    assert_eq!(reply, Reply::NotLeader { hint: Some(2), term: 3 });
    assert_eq!(proposer.reading(), None);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_proposal_ends_the_office_and_the_next_turn_goes_on() {
    for fault in [Fault::Reject, Fault::Forget] {
        let (log, proposer) = live().await;
        let lamp = id("lamp");
        *log.fault.lock() = Some(fault);
        let first = proposer.submit(bid(&lamp, "ann", "b1", 150)).await;
        assert!(!matches!(first, Reply::Verdict(_)), "{fault:?}: {first:?}");
        let verdict = told(&proposer, bid(&lamp, "ann", "b1", 150)).await;
        assert_eq!((verdict.outcome, verdict.dup), (Ok(()), fault == Fault::Forget));
        assert_eq!(log.state().read().shard.view(&lamp).unwrap().bids, 1);
        let office = proposer.reading().unwrap().office;
        assert_eq!((office.term, office.turn), (1, 1));
        // The clock stood from the failure to the end of the grace.
        assert!(proposer.held_total_ms() >= 150);
    }
}

/// Each office that ends where it began has counted from the same moment as the one before: the moment at which `top` was
/// heard of. A storm that cost one office after the other was told as three times its own length.
#[tokio::test(start_paused = true)]
async fn time_is_held_once_however_many_offices_it_takes() {
    const OUTAGE: Duration = Duration::from_secs(10);
    let (log, proposer) = live().await;
    let lamp = id("lamp");
    *log.heard.lock() = std::time::Instant::now().checked_sub(OUTAGE);
    for (turn, amount) in (1..=4).zip(150..) {
        // In the grace nothing but a command makes an entry: this one ends the office before the clock has moved.
        *log.fault.lock() = Some(Fault::Reject);
        let reply = proposer.submit(bid(&lamp, "ann", "b", amount)).await;
        assert!(!matches!(reply, Reply::Verdict(_)), "{reply:?}");
        let in_office = async {
            while proposer.reading().is_none_or(|reading| reading.office.turn < turn) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), in_office).await.unwrap();
    }
    let held = proposer.held_total_ms();
    let outage = OUTAGE.as_millis() as u64;
    assert!((outage..outage + 2_000).contains(&held), "{held} ms of one outage");
}

#[tokio::test(start_paused = true)]
async fn loss_of_office_answers_everyone() {
    let (log, proposer) = live().await;
    let lamp = id("lamp");
    *log.fault.lock() = Some(Fault::Stall);
    let sends = (0..300).map(|k| proposer.submit(bid(&lamp, &format!("p{k}"), "b", 200 + k)));
    let deposed = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        log.lead(follows(2));
    };
    let (replies, ()) = tokio::join!(join_all(sends), deposed);
    let unknown = replies.iter().filter(|reply| **reply == Reply::Unknown).count();
    let elsewhere = replies
        .iter()
        .filter(|reply| **reply == Reply::NotLeader { hint: Some(2), term: 2 })
        .count();
    let busy = replies
        .iter()
        .filter(|reply| matches!(reply, Reply::Busy { .. }))
        .count();
    assert_eq!(unknown, 256, "a window full flew");
    assert!(
        elsewhere > 0 && elsewhere + busy == 44,
        "{elsewhere} waited, {busy} found no room"
    );
    // Back again, in another term: the first bid is not lost to its sender.
    *log.fault.lock() = None;
    log.lead(leads(3));
    assert_eq!(told(&proposer, bid(&lamp, "p0", "b", 200)).await.outcome, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn the_same_command_sent_many_times_acts_once() {
    let (log, proposer) = live().await;
    let lamp = id("lamp");
    let sends = (0..20).map(|_| proposer.submit(bid(&lamp, "ann", "b1", 150)));
    let other = proposer.submit(bid(&lamp, "ann", "b1", 151));
    let (replies, other) = tokio::join!(join_all(sends), other);
    for reply in &replies {
        assert!(
            matches!(reply, Reply::Verdict(v) if v.outcome == Ok(()) && v.seq == 2),
            "{reply:?}"
        );
    }
    assert_eq!(other, Reply::NotJudged);
    let again = told(&proposer, bid(&lamp, "ann", "b1", 150)).await;
    assert_eq!((again.outcome, again.dup), (Ok(()), true));
    assert_eq!(
        told(&proposer, bid(&lamp, "ann", "b1", 151)).await.outcome,
        Err(Reason::DupBody)
    );
    assert_eq!(log.state().read().shard.view(&lamp).unwrap().bids, 1);
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_auction_starts_at_its_wall_time() {
    let log = FakeLog::new(LATENCY);
    let proposer = log.proposer();
    let lamp = id("lamp");
    told(
        &proposer,
        seller(&lamp, "1", Action::Create(Box::new(definition(10_000)))),
    )
    .await;
    told(
        &proposer,
        seller(
            &lamp,
            "2",
            Action::Schedule {
                start_wall_ms: 1_005_000,
            },
        ),
    )
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(phase(&log), Phase::Scheduled, "its wall time has not come");
    log.wall.store(1_005_000, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1_020)).await;
    assert_eq!(phase(&log), Phase::Live);
    let (ms, error_ms) = (1_005_000, 3);
    assert_eq!(
        *log.walls.lock(),
        [Wall { ms, error_ms }],
        "declared by the entry that starts it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_pauses_intake_and_a_failed_one_leaves_no_silent_shard() {
    let (log, proposer) = live().await;
    let lamp = id("lamp");
    let (reply, still) = tokio::join!(proposer.submit(bid(&lamp, "ann", "b1", 150)), proposer.quiesce());
    assert!(still && matches!(reply, Reply::Verdict(_)));
    let at = log.proposed();
    assert!(matches!(
        proposer.submit(bid(&lamp, "bob", "b2", 160)).await,
        Reply::Busy { .. }
    ));
    assert_eq!(log.proposed(), at);
    assert_eq!(told(&proposer, bid(&lamp, "bob", "b2", 160)).await.outcome, Ok(()));
}

/// A disk short of room refuses at the door only: what was judged keeps its verdict, what calms an auction goes on, closes
/// come, and the same ids are taken when there is room again.
#[tokio::test(start_paused = true)]
async fn a_full_disk_narrows_the_door() {
    let (log, proposer) = live().await;
    let (lamp, vase) = (id("lamp"), id("vase"));
    assert_eq!(told(&proposer, bid(&lamp, "ann", "b1", 150)).await.outcome, Ok(()));
    let create = || seller(&vase, "1", Action::Create(Box::new(definition(10_000))));
    let no_room = |reply: Reply| matches!(reply, Reply::NoRoom { retry_after_ms } if retry_after_ms > 0);
    proposer.narrow(Intake::NoNew);
    assert!(no_room(proposer.submit(create()).await));
    assert_eq!(told(&proposer, bid(&lamp, "bob", "b2", 160)).await.outcome, Ok(()));
    proposer.narrow(Intake::NoBids);
    let at = log.proposed();
    assert!(no_room(proposer.submit(bid(&lamp, "ann", "b3", 170)).await));
    assert_eq!(log.proposed(), at, "nothing was logged for it");
    assert!(told(&proposer, bid(&lamp, "bob", "b2", 160)).await.dup);
    assert_eq!(
        told(&proposer, bid(&lamp, "cec", "b4", 1)).await.outcome,
        Err(Reason::Low)
    );
    proposer.narrow(Intake::All);
    assert_eq!(told(&proposer, bid(&lamp, "ann", "b3", 170)).await.outcome, Ok(()));
    assert_eq!(told(&proposer, create()).await.outcome, Ok(()));
    proposer.narrow(Intake::NoBids);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(
        matches!(phase(&log), Phase::Closed { .. }),
        "a close needs no room at the door: {:?}",
        phase(&log)
    );
}

/// Nobody could bid on it: a scheduled start waits for room.
#[tokio::test(start_paused = true)]
async fn a_start_that_came_due_waits_for_room() {
    let log = FakeLog::new(LATENCY);
    let proposer = log.proposer();
    tokio::time::sleep(Duration::from_millis(200)).await;
    log.wall.store(1_000_000, Ordering::Relaxed);
    let lamp = id("lamp");
    told(
        &proposer,
        seller(&lamp, "1", Action::Create(Box::new(definition(10_000)))),
    )
    .await;
    let schedule = Action::Schedule {
        start_wall_ms: 1_005_000,
    };
    told(&proposer, seller(&lamp, "2", schedule)).await;
    proposer.narrow(Intake::NoBids);
    log.wall.store(1_006_000, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(phase(&log), Phase::Scheduled);
    proposer.narrow(Intake::All);
    tokio::time::sleep(Duration::from_millis(1_020)).await;
    assert_eq!(phase(&log), Phase::Live);
}

#[tokio::test(start_paused = true)]
async fn a_hot_auction_is_told_busy_and_a_quiet_one_is_not() {
    let (log, proposer) = live().await;
    let (lamp, vase) = (id("lamp"), id("vase"));
    told(
        &proposer,
        seller(&vase, "1", Action::Create(Box::new(definition(10_000)))),
    )
    .await;
    told(&proposer, seller(&vase, "2", Action::Start { schedule_version: None })).await;
    let hot = (0..20_000).map(|k| proposer.submit(bid(&lamp, &format!("p{k}"), "b", 200 + k)));
    let quiet = async {
        tokio::task::yield_now().await;
        proposer.submit(bid(&vase, "ann", "b", 150)).await
    };
    let (hot, quiet) = tokio::join!(join_all(hot), quiet);
    let busy = hot.iter().filter(|reply| matches!(reply, Reply::Busy { .. })).count();
    assert!(busy > 0, "20,000 at once found room");
    assert!(matches!(quiet, Reply::Verdict(v) if v.outcome == Ok(())));
    assert_eq!(log.state().read().shard.clamped(), 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_who_waits() {
    let (log, proposer) = live().await;
    *log.fault.lock() = Some(Fault::Stall);
    let stop = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        proposer.shutdown().await;
    };
    let (reply, ()) = tokio::join!(proposer.submit(bid(&id("lamp"), "ann", "b1", 150)), stop);
    assert_eq!(reply, Reply::Unknown);
}
