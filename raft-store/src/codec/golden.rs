//! Golden logs: one of every released form of entries, as its build wrote it, replayed by this one.
//!
//! Round trips can't show that yesterday's log is still read: they write and read by the same code. So each file here was
//! written once, by the build that had that form as its newest, and never again. A line is an entry's bytes and the state's
//! digest behind it; the last one is a snapshot's body of that state. Who fails here has changed what an old log means: the
//! code must be mended, never the file.
//!
//! A new form gets a file of its own, and so do new rules, with what they judge otherwise:
//! `GOLDEN=write cargo test -p raft-store golden` writes the one that isn't there yet.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::Wire;
use crate::{
    snapshot,
    state::State,
    types::{Logged, MetaCommand, Payload},
    versions,
};
use auction::{
    Action, Actor, Command, Currency, Definition, Entry, Hold, Id, Limits, Office, Reason, Reserve, Rights, Stamp,
    Stamped, Terms, TimeRule, Wall,
    terms::{Rush, SoftClose},
};
use bytes::Bytes;
use placement::{Change, ClusterMap, Node, NodeId, Rules, place, plan};
use std::{fmt::Write as _, path::PathBuf, sync::Arc};

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn definition(reserve: Option<u64>) -> Box<Definition> {
    let (rush, soft_close) = (
        Some(Rush {
            cut_ppm_max: 500_000,
            cut_per_raise_ppm: 2_000_000,
            floor_ms: 5_000,
        }),
        Some(SoftClose {
            window_ms: 10_000,
            reset_to_ms: 10_000,
            extensions_max: 3,
        }),
    );
    Box::new(Definition {
        seller: id("seller"),
        title: "a lamp, ein Stück, 등불".into(),
        description: "of brass".into(),
        terms: Terms {
            currency: Currency::parse("KRW").unwrap(),
            start_price: 1_000,
            increments: vec![(0, 100), (5_000, 500)],
            reserve: reserve.map(|amount| Reserve { amount, salt: [7; 32] }),
            duration_ms: 60_000,
            time: TimeRule { rush, soft_close },
            guests: true,
            pause_without_stream: true,
        },
    })
}

/// The story: every kind of command, verdict, timer, hold and void entry, in two offices.
struct Story {
    office: Office,
    n: u64,
    told: Vec<Payload>,
}

impl Story {
    fn entry(&mut self, at: u64, said: &[(u64, &str, &str, &str, Action)]) -> &mut Entry {
        let commands = said.iter().map(|(arrived, auction, who, key, action)| Stamped {
            arrived: Stamp(*arrived),
            command: Command {
                auction: id(auction),
                actor: Actor {
                    id: id(who),
                    rights: Rights::MEMBER.and(Rights::BIDDER).and(Rights::SELLER),
                },
                id: (!key.is_empty()).then(|| id(key)),
                first_sent: None,
                action: action.clone(),
            },
        });
        let entry = Entry {
            office: self.office,
            n: self.n,
            at: Stamp(at),
            commands: commands.collect(),
            ..Entry::default()
        };
        self.n += 1;
        let entry = Arc::new(entry);
        self.told.push(Payload::Entry {
            entry,
            traces: Vec::new(),
        });
        match self.told.last_mut() {
            Some(Payload::Entry { entry, .. }) => Arc::get_mut(entry).unwrap(),
            _ => unreachable!(),
        }
    }

    fn office(&mut self, term: u64, turn: u32) {
        (self.office, self.n) = (Office { term, turn }, 0);
    }
}

fn bid(amount: u64) -> Action {
    Action::Bid { amount }
}

/// Three auctions on one shard, and what becomes of them.
fn auctions() -> Vec<Payload> {
    let mut story = Story {
        office: Office { term: 1, turn: 0 },
        n: 0,
        told: vec![Payload::Rules(1)],
    };
    open(&mut story);
    bids(&mut story);
    pauses(&mut story);
    offices(&mut story);
    story.told
}

fn start() -> Action {
    Action::Start { schedule_version: None }
}

fn stream() -> Id {
    id("cam")
}

/// All three are made, two go live.
fn open(story: &mut Story) {
    use Action::{Create, Edit, Schedule};
    story.entry(0, &[]);
    let (version, reserve) = (1, Some(9_000));
    let edit = Edit {
        version,
        definition: definition(reserve),
    };
    story.entry(
        100,
        &[
            (10, "lamp", "seller", "c1", Create(definition(None))),
            (20, "vase", "seller", "c2", Create(definition(None))),
            (30, "vase", "seller", "e2", edit),
            (40, "rug", "seller", "c3", Create(definition(None))),
            (
                50,
                "rug",
                "seller",
                "s3",
                Schedule {
                    start_wall_ms: 1_800_000_000_000,
                },
            ),
            (60, "lamp", "seller", "s1", start()),
            (70, "vase", "seller", "s2", start()),
        ],
    );
}

/// Bids of every kind, and the third begins.
fn bids(story: &mut Story) {
    use Action::{Extend, MaxBid, Start, StreamUp};
    let (node, ms) = (2, 7_000);
    story.entry(
        2_000,
        &[
            (1_000, "lamp", "seller", "u1", StreamUp { node, stream: stream() }),
            (1_100, "lamp", "ann", "b1", bid(1_000)),
            (1_200, "lamp", "bob", "b1", bid(1_050)),
            (1_300, "lamp", "bob", "m1", MaxBid { maximum: 3_000 }),
            (1_400, "lamp", "ann", "b1", bid(1_000)),
            (1_500, "lamp", "ann", "b1", bid(1_700)),
            (1_600, "lamp", "seller", "b9", bid(9_000)),
            (1_700, "vase", "ann", "v1", bid(1_000)),
            (1_800, "lamp", "seller", "x1", Extend { ms }),
        ],
    );
    let start_version = Start {
        schedule_version: Some(1),
    };
    story.entry(3_000, &[(2_900, "rug", "system", "", start_version)]).wall = Some(Wall {
        ms: 1_800_000_000_200,
        error_ms: 12,
    });
}

/// Time stands: by a hold, by the seller, by a lost stream.
fn pauses(story: &mut Story) {
    use Action::{Pause, Resume, StreamDown};
    // A backlog, a hold, and a stamp out of its bounds.
    let entry = story.entry(
        5_000,
        &[
            (2_000, "lamp", "ann", "b2", bid(3_500)),
            (9_000, "vase", "bob", "v2", bid(9_500)),
        ],
    );
    entry.behind = vec![(id("lamp"), Stamp(3_500))];
    entry.holds = vec![Hold {
        stamp: Stamp(4_000),
        lost_ms: 321,
    }];
    story.entry(6_000, &[(5_500, "lamp", "seller", "p1", Pause { for_ms: Some(2_000) })]);
    story.entry(
        9_000,
        &[
            (8_500, "vase", "seller", "p2", Pause { for_ms: None }),
            (8_800, "vase", "bob", "v3", bid(11_000)),
        ],
    );
    story.entry(
        9_500,
        &[
            (9_200, "vase", "seller", "r2", Resume),
            (9_300, "lamp", "seller", "d1", StreamDown { stream: stream() }),
        ],
    );
}

/// One office after the other, and what isn't of the present one.
fn offices(story: &mut Story) {
    use Action::{Cancel, Resume};
    // Out of number, and of an older office: both void.
    story.n += 3;
    story.entry(9_600, &[(9_550, "vase", "ann", "v4", bid(20_000))]);
    story.office(2, 1);
    story.entry(9_700, &[]);
    story.entry(
        9_900,
        &[(
            9_800,
            "rug",
            "seller",
            "k3",
            Cancel {
                reason: "it burnt".into(),
            },
        )],
    );
    story.office(1, 0);
    story.entry(10_000, &[(9_950, "vase", "ann", "v5", bid(20_000))]);
    story.office(2, 1);
    story.n = 2;
    story.entry(
        12_000,
        &[
            (11_000, "vase", "ann", "v6", bid(12_000)),
            (11_500, "lamp", "seller", "r1", Resume),
        ],
    );
    // Everything that is due until then, and refusals that are forgotten by then.
    story.entry(900_000, &[]);
    story.entry(900_100, &[(900_050, "vase", "ann", "v7", bid(99_000))]);
}

/// By the second rules a command says when it was first sent: judged before them and by them, within ten minutes and after.
fn sent() -> Vec<Payload> {
    use Action::{Create, Pause, Resume};
    let mut story = Story {
        office: Office { term: 1, turn: 0 },
        n: 0,
        told: vec![Payload::Rules(1)],
    };
    story.entry(0, &[]);
    let forever = Pause { for_ms: None };
    let opened = story.entry(
        5_000,
        &[
            (100, "lamp", "seller", "c1", Create(definition(None))),
            (200, "lamp", "seller", "s1", start()),
            (1_000, "lamp", "ann", "b1", bid(1_000)),
            (1_100, "lamp", "bob", "b1", bid(1_050)),
            (2_000, "lamp", "seller", "p1", forever.clone()),
            (3_000, "lamp", "bob", "b2", bid(2_000)),
            (3_100, "lamp", "bob", "b2", bid(2_000)),
        ],
    );
    first_sent(opened, &[2, 3, 5, 6], 900);
    // By the first rules nobody asks: what was forgotten is judged anew.
    let anew = story.entry(
        610_000,
        &[
            (602_000, "lamp", "bob", "b2", bid(2_000)),
            (604_000, "lamp", "seller", "r1", Resume),
            (605_000, "lamp", "bob", "b2", bid(2_000)),
            (606_000, "lamp", "seller", "p2", forever),
            (607_000, "lamp", "ann", "b3", bid(3_000)),
        ],
    );
    first_sent(anew, &[0, 2], 900);
    first_sent(anew, &[4], 606_900);
    story.told.push(Payload::Rules(2));
    let late = story.entry(
        1_250_000,
        &[
            (1_206_000, "lamp", "ann", "b3", bid(3_000)),
            (1_208_000, "lamp", "ann", "b3", bid(3_000)),
            (1_209_000, "lamp", "seller", "r2", Resume),
            (1_210_000, "lamp", "ann", "b3", bid(3_000)),
            (1_211_000, "lamp", "ann", "b4", bid(3_000)),
            (1_212_000, "lamp", "bob", "b2", bid(2_000)),
            (1_213_000, "lamp", "cyd", "b1", bid(4_000)),
            (1_214_000, "rug", "seller", "c3", Create(definition(None))),
        ],
    );
    first_sent(late, &[0, 1, 3], 606_900);
    first_sent(late, &[5, 7], 900);
    first_sent(late, &[6], u64::MAX);
    story.entry(1_900_000, &[]);
    story.told
}

/// Has these commands of an entry say when they were first sent.
fn first_sent(entry: &mut Entry, which: &[usize], at: u64) {
    for which in which {
        entry.commands[*which].command.first_sent = Some(Stamp(at));
    }
}

/// A cluster that is born, and a change of its map.
fn maps() -> Vec<Payload> {
    let node = |id: u64| Node {
        id: NodeId(id),
        zone: format!("zone-{id}"),
        region: "here".into(),
        weight: 1,
        grpc: format!("10.0.0.{id}:8081"),
        http: format!("http://10.0.0.{id}:8080"),
        trunk: format!("10.0.0.{id}:8082"),
    };
    let bare = ClusterMap {
        shards: 4,
        nodes: (1..=4).map(|id| (NodeId(id), node(id))).collect(),
        ..ClusterMap::default()
    };
    let born = ClusterMap {
        epoch: 1,
        ..place(&bare, Rules::default())
    };
    let drained = plan(&born, &Change::Drain(NodeId(2)), Rules::default(), 1_000, None).unwrap();
    let (first, next) = (Box::new(born), Box::new(drained.map));
    vec![
        Payload::Meta(MetaCommand::StoreMap {
            expected: 0,
            map: first,
        }),
        Payload::Meta(MetaCommand::Steer { expected: 0, map: next }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Bytes {
    let byte = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/codec/golden/{name}.txt"))
}

/// Name, form and stories of every golden log.
fn all() -> Vec<(String, u32, Vec<Vec<Payload>>)> {
    let forms = (1..=versions::FORMAT).map(|form| (form.to_string(), form, vec![auctions(), maps()]));
    // Until the second rules are released, whatever changes them (or their digest) deletes this file and writes it anew.
    forms.chain([("rules-2".to_owned(), 1, vec![sent()])]).collect()
}

/// What this build would write.
fn written(form: u32, stories: &[Vec<Payload>]) -> String {
    let mut text = String::new();
    for story in stories.iter().cloned() {
        let mut state = State::new(Limits::default());
        for payload in story {
            let logged = Logged::in_format(payload, form);
            state.apply(logged.payload());
            state.applied += 1;
            let _ = writeln!(text, "{} {}", hex(logged.bytes()), hex(&state.digest()));
        }
        let _ = writeln!(text, "state {}", hex(&snapshot::Image::of(&state).encode()));
    }
    text
}

#[test]
fn golden_logs_of_every_form_are_replayed_to_the_same_state() {
    let write = std::env::var("GOLDEN").is_ok_and(|what| what == "write");
    for (name, form, stories) in all() {
        if write && !file(&name).exists() && versions::BUILD == env!("CARGO_PKG_VERSION") {
            std::fs::write(file(&name), written(form, &stories)).unwrap();
        }
        // A form that is only tried out has none.
        if form >= 2 && !file(&name).exists() {
            continue;
        }
        let text = std::fs::read_to_string(file(&name)).expect("a golden log for each released form");
        let (mut state, mut entries, mut snapshots) = (State::new(Limits::default()), 0, 0);
        for (n, line) in text.lines().enumerate() {
            let (what, expected) = line.split_once(' ').unwrap();
            if what == "state" {
                let kept = snapshot::decode(unhex(expected), Limits::default()).unwrap();
                assert_eq!(
                    hex(&kept.digest()),
                    hex(&state.digest()),
                    "{name}, line {n}: a snapshot of then"
                );
                state = State::new(Limits::default());
                snapshots += 1;
                continue;
            }
            let bytes = unhex(what);
            let logged = Logged::read(bytes.clone()).unwrap_or_else(|bad| panic!("{name}, line {n}: {bad}"));
            state.apply(logged.payload());
            state.applied += 1;
            entries += 1;
            assert_eq!(
                hex(&state.digest()),
                expected,
                "{name}, line {n}: the state behind {logged}"
            );
            // What is written again says the same.
            let again = Logged::in_format(logged.payload().clone(), form);
            assert_eq!(
                again.payload().to_proto(),
                logged.payload().to_proto(),
                "{name}, line {n}"
            );
        }
        let told: usize = stories.iter().map(Vec::len).sum();
        assert_eq!((entries, snapshots), (told, stories.len()), "{name}");
    }
}

/// The story shows what it is for: else it would prove little for ever.
#[test]
fn the_golden_story_has_something_of_everything() {
    let mut state = State::new(Limits::default());
    let (mut void, mut accepted, mut reasons) = (0, 0, std::collections::BTreeSet::new());
    for payload in auctions() {
        if let crate::types::Answer::Entry(applied) = state.apply(&payload) {
            match &*applied {
                auction::Applied::Done(done) => {
                    for verdict in &done.verdicts {
                        match &verdict.outcome {
                            Ok(()) => accepted += 1,
                            Err(reason) => drop(reasons.insert(format!("{reason:?}"))),
                        }
                    }
                }
                _ => void += 1,
            }
        }
    }
    let views: Vec<_> = state.shard.views().collect();
    let over = views
        .iter()
        .filter(|view| matches!(view.phase, auction::Phase::Closed(_)))
        .count();
    assert_eq!((views.len(), over, void), (3, 3, 2), "{views:#?}");
    assert!(
        accepted >= 15 && reasons.len() >= 4,
        "{accepted} accepted, refused by {reasons:?}"
    );
}

/// The same refusal, forgotten: judged anew by the first rules, refused again by the second.
#[test]
fn the_golden_story_of_the_second_rules_tells_them_from_the_first() {
    let mut state = State::new(Limits::default());
    let mut told = Vec::new();
    for payload in sent() {
        if let crate::types::Answer::Entry(applied) = state.apply(&payload)
            && let auction::Applied::Done(done) = &*applied
        {
            told.extend(done.verdicts.iter().map(|v| v.outcome.err().map_or("ok", Reason::code)));
        }
    }
    let before = ["ok", "ok", "ok", "low", "ok", "paused", "paused"];
    let first = ["paused", "ok", "ok", "ok", "paused"];
    let second = ["paused", "expired", "ok", "expired", "ok", "ok", "ok", "expired"];
    assert_eq!(told, [&before[..], &first, &second].concat());
}
