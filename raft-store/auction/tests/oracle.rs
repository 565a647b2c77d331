//! The clock's reference model as an oracle: its logs, applied here, give its verdicts and its events.
//!
//! `data/clock_model.txt` holds runs of the executable model (`model/`: another program, in another language, by simulation
//! of whole clusters: crashes, freezes, cut networks, lost quorums, rejected proposals, hot lanes): the terms of each
//! auction, every committed entry with the verdicts that the model gave (`void` where it applied nothing), and each
//! auction's events. `live` runs the model beside this test, over more clusters and over generated logs.
//!
//! ```text
//!   story SEED KIND
//!   auction I DURATION START_PRICE RESERVE MODE CUT_PER_RAISE FLOOR WINDOW RESET_TO EXTENSIONS
//!   entry TERM TURN N AT|behind i:stamp,…|holds stamp:lost,…|commands arrived:i:kind:arg:bidder:id,…|verdicts
//!   event I SEQ STAMP WHAT …
//!   end TOP CLAMPED
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "model/live.rs"]
mod live;

use auction::terms::{Rush, SoftClose};
use auction::{
    Action, Actor, Applied, AuctionParts, Cold, Command, Currency, Definition, Entry, Event, EventKind, Hold, Id,
    Limits, Office, Outcome, Parts, Phase, Reason, Reserve, Rights, Shard, Stamp, Stamped, Terms, TimeRule,
};

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn name(number: &str) -> Id {
    id(&format!("a{number}"))
}

fn numbers(text: &str) -> Vec<u64> {
    text.split([' ', ':'])
        .map(|number| number.parse().expect(text))
        .collect()
}

/// A scheduled auction under the model's terms (which lie below the bounds of ours: its time is compressed).
fn auction(words: &[&str]) -> AuctionParts {
    let number = |i: usize| words[i].parse::<u64>().unwrap();
    let mode = words[4];
    let rush = Rush {
        cut_ppm_max: 900_000,
        cut_per_raise_ppm: number(5),
        floor_ms: number(6),
    };
    let soft = SoftClose {
        window_ms: number(7),
        reset_to_ms: number(8),
        extensions_max: number(9) as u32,
    };
    let terms = Terms {
        currency: Currency(*b"KRW"),
        start_price: number(2),
        increments: vec![(0, 1), (50, 5), (500, 25)],
        reserve: (number(3) > 0).then(|| Reserve {
            amount: number(3),
            salt: [3; 32],
        }),
        duration_ms: number(1),
        time: TimeRule {
            rush: ["rush", "both"].contains(&mode).then_some(rush),
            soft_close: ["soft", "both"].contains(&mode).then_some(soft),
        },
        guests: false,
        pause_without_stream: false,
    };
    AuctionParts {
        id: name(words[0]),
        version: 1,
        price: terms.start_price,
        definition: Definition {
            seller: id("seller"),
            title: "t".into(),
            description: String::new(),
            terms,
        },
        phase: Phase::Scheduled,
        start_wall_ms: Some(1),
        leader: None,
        maximum: 0,
        bids: 0,
        extensions: 0,
        live_at: Stamp(0),
        ends_at: None,
        paused_at: None,
        until: None,
        paused_by_stream: false,
        stream: None,
        stream_gone: false,
        behind: None,
        hold_next: 0,
        events: Vec::new(),
        once: Vec::new(),
        rules: 1,
        settled: None,
    }
}

/// The model has no actors but bidders, who may do everything.
fn command(text: &str) -> Stamped {
    let cells: Vec<&str> = text.split(':').collect();
    let [arrived, auction, kind, arg, bidder, key] = cells[..] else {
        panic!("{text}")
    };
    let arg: u64 = arg.parse().unwrap();
    let action = match kind {
        "start" => Action::Start {
            schedule_version: Some(arg as u32),
        },
        "bid" => Action::Bid { amount: arg },
        "max" => Action::MaxBid { maximum: arg },
        "pause" => Action::Pause { for_ms: Some(arg) },
        "resume" => Action::Resume,
        "extend" => Action::Extend { ms: arg },
        "cancel" => Action::Cancel { reason: String::new() },
        other => panic!("{other}"),
    };
    let rights = Rights::MEMBER.and(Rights::BIDDER).and(Rights::OPERATOR);
    let actor = Actor {
        id: id(&format!("b{bidder}")),
        rights,
    };
    let key = (key != "0").then(|| id(key));
    Stamped {
        arrived: Stamp(arrived.parse().unwrap()),
        command: Command {
            auction: name(auction),
            actor,
            id: key,
            first_sent: None,
            action,
        },
    }
}

fn list<T>(text: &str, item: impl Fn(&str) -> T) -> Vec<T> {
    text.split(',').filter(|part| !part.is_empty()).map(item).collect()
}

fn entry(line: &str) -> (Entry, &str) {
    let cells: Vec<&str> = line.split('|').collect();
    let [head, behind, holds, commands, verdicts] = cells[..] else {
        panic!("{line}")
    };
    let head = numbers(head);
    let entry = Entry {
        office: Office {
            term: head[0],
            turn: head[1] as u32,
        },
        n: head[2],
        at: Stamp(head[3]),
        behind: list(behind, |part| {
            let (auction, stamp) = part.split_once(':').unwrap();
            (name(auction), Stamp(stamp.parse().unwrap()))
        }),
        holds: list(holds, |part| {
            let [stamp, lost_ms] = numbers(part)[..] else {
                panic!("{part}")
            };
            Hold {
                stamp: Stamp(stamp),
                lost_ms,
            }
        }),
        commands: list(commands, command),
        wall: None,
    };
    (entry, verdicts)
}

/// Whether a verdict is the model's. It knows one word for all that a start can be refused with.
fn same(want: &str, got: Result<(), Reason>, command: &Command) -> bool {
    let starts = matches!(command.action, Action::Start { .. });
    match got {
        Ok(()) => want == "accepted",
        Err(Reason::NotOpen) => want == "scheduled",
        Err(Reason::Closed | Reason::Stale) if starts => want == "wrong_phase",
        Err(reason) => want == reason.code(),
    }
}

/// An event in the model's words; of a bid without its kind, of a close without a winner unless it was sold.
fn event(event: &Event) -> String {
    let end = event.ends_at.0;
    let bidder = |id: &Option<Id>| id.as_ref().map_or("-".into(), |id| id.as_str()[1..].to_string());
    let what = match &event.kind {
        EventKind::Open(_) => format!("live {end}"),
        EventKind::Bid { .. } => {
            format!(
                "bid {} {} {} {end}",
                bidder(&event.actor),
                event.price,
                bidder(&event.leader)
            )
        }
        EventKind::Raise => format!("raise {}", bidder(&event.actor)),
        EventKind::Pause { left_ms, until } => format!("pause {left_ms} {}", until.unwrap().0),
        EventKind::Resume { .. } => format!("resume {end}"),
        EventKind::Extend { .. } => format!("extend {end}"),
        EventKind::Held { dms } => format!("held {dms}"),
        EventKind::Close { outcome } => {
            let winner = if *outcome == Outcome::Sold {
                bidder(&event.leader)
            } else {
                String::new()
            };
            format!("close {} {} {winner}", outcome.word(), event.price)
        }
        EventKind::Stream { .. } => panic!("the model has no streams"),
    };
    format!("{} {} {what}", event.seq, event.ct.0)
}

fn model_event(words: &[&str]) -> String {
    let mut words = words.to_vec();
    match words[2] {
        "bid" => drop(words.remove(4)),
        "close" if words[3] != "sold" => words[5] = "",
        _ => {}
    }
    words.join(" ")
}

/// One story: (entries, void ones, holds, events), or where it comes out another way.
fn tell(story: &str) -> Result<[usize; 4], String> {
    let title = story.lines().next().unwrap();
    let of = |word: &'static str| story.lines().filter_map(move |line| line.strip_prefix(word));
    let auctions = of("auction ")
        .map(|line| auction(&line.split(' ').collect::<Vec<_>>()))
        .collect::<Vec<_>>();
    let ids: Vec<Id> = auctions.iter().map(|a| a.id.clone()).collect();
    let mut shard = shard(auctions);
    let mut count = [0; 4];
    for line in of("entry ") {
        let (entry, verdicts) = entry(line);
        count[0] += 1;
        count[2] += entry.holds.len();
        count[1] +=
            usize::from(judge(&mut shard, &entry, verdicts).map_err(|what| format!("{title}: {what} in {line}"))?);
    }
    for auction in ids {
        let number = &auction.as_str()[1..];
        let lines = of("event ").map(|line| line.split(' ').collect::<Vec<_>>());
        let want: Vec<String> = lines
            .filter(|words| words[0] == number)
            .map(|words| model_event(&words[1..]))
            .collect();
        let got: Vec<String> = shard
            .events(&auction, 0, usize::MAX)
            .unwrap()
            .iter()
            .map(|e| event(e))
            .collect();
        if got != want {
            return Err(format!("{title}: auction {number}: {got:#?}, the model says {want:#?}"));
        }
        count[3] += got.len();
    }
    let end = numbers(of("end ").next().unwrap());
    let (top, clamped) = (shard.top().0, shard.clamped());
    if (top, clamped) != (end[0], end[1]) {
        return Err(format!("{title}: top {top}, {clamped} clamped, the model says {end:?}"));
    }
    Ok(count)
}

/// A shard with these auctions, in which nothing happened yet.
fn shard(auctions: Vec<AuctionParts>) -> Shard {
    let parts = Parts {
        office: Office::default(),
        n: 0,
        top: Stamp(0),
        clamped: 0,
        holds: Vec::new(),
        hold_first: 0,
        auctions,
        rules: 1,
        cold: Cold::default(),
    };
    let limits = Limits {
        refusals_max: 3,
        refusals_ms: u64::MAX,
    };
    Shard::from_parts(limits, parts).unwrap()
}

/// Applies an entry, and whether that was void as the model says; or what came out another way.
fn judge(shard: &mut Shard, entry: &Entry, verdicts: &str) -> Result<bool, String> {
    match shard.apply(entry) {
        Applied::Void if verdicts == "void" => Ok(true),
        Applied::Void => Err("void here".to_owned()),
        Applied::Done(done) => {
            let want = list(verdicts, str::to_owned);
            if want.len() != done.verdicts.len() {
                return Err(format!("{} verdicts", done.verdicts.len()));
            }
            for ((want, verdict), stamped) in want.iter().zip(&done.verdicts).zip(&entry.commands) {
                if !same(want, verdict.outcome, &stamped.command) {
                    return Err(format!("{verdict:?}"));
                }
            }
            Ok(false)
        }
    }
}

#[test]
fn every_story_of_the_model_comes_out_the_same() {
    let text = include_str!("data/clock_model.txt");
    let stories: Vec<String> = text
        .split("\nstory ")
        .map(|story| format!("story {}", story.trim_start_matches("story ")))
        .collect();
    let sum = stories
        .iter()
        .map(|story| tell(story).unwrap_or_else(|difference| panic!("{difference}")))
        .fold([0; 4], |sum, one| [0, 1, 2, 3].map(|i| sum[i] + one[i]));
    // Else the stories would not show what they are for: void entries, holds.
    assert!(
        stories.len() > 20 && sum[0] > 1_000 && sum[1] > 50 && sum[2] > 50 && sum[3] > 500,
        "{sum:?}"
    );
}
