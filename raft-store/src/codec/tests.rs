//! Round trips of everything that has a form on wire and disk, over random values; and what is no value is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{BadWire, Wire};
use crate::types::{Logged, MetaCommand, Payload, TraceContext};
use crate::versions;
use auction::{
    Action, Actor, AuctionView, Command, Currency, Definition, Entry, Event, EventKind, Hold, Id, Office, Opening,
    Outcome, Phase, Reason, Reserve, Rights, Stamp, Stamped, Terms, TimeRule, Verdict,
    terms::{Rush, SoftClose},
};
use bytes::Bytes;
use placement::{
    ClusterMap, Ended, Move, Node, NodeId, Override, Placement, ReplicaId, Said, ShardId, Standing, Steering, Step,
    Wish,
};
use proptest::{option, prelude::*, sample::select};
use prost::Message;
use proto::log::v1 as pb;
use std::{fmt::Debug, sync::Arc};

fn round_trip<T: Wire + PartialEq + Debug>(value: &T) {
    assert_eq!(&T::from_bytes(value.to_bytes()).unwrap(), value);
}

fn ids() -> impl Strategy<Value = Id> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|text| Id::parse(&text).unwrap())
}

fn stamps() -> impl Strategy<Value = Stamp> {
    any::<u64>().prop_map(Stamp)
}

fn time_rules() -> impl Strategy<Value = TimeRule> {
    let rush = any::<(u64, u64, u64)>().prop_map(|(cut_ppm_max, cut_per_raise_ppm, floor_ms)| Rush {
        cut_ppm_max,
        cut_per_raise_ppm,
        floor_ms,
    });
    let soft = any::<(u64, u64, u32)>().prop_map(|(window_ms, reset_to_ms, extensions_max)| SoftClose {
        window_ms,
        reset_to_ms,
        extensions_max,
    });
    (option::of(rush), option::of(soft)).prop_map(|(rush, soft_close)| TimeRule { rush, soft_close })
}

prop_compose! {
    fn definitions()(
        seller in ids(),
        title in ".{0,20}",
        description in ".{0,20}",
        currency in "[A-Z]{3}",
        start_price in any::<u64>(),
        increments in prop::collection::vec(any::<(u64, u64)>(), 0..4),
        reserve in any::<Option<(u64, [u8; 32])>>(),
        duration_ms in any::<u64>(),
        time in time_rules(),
        guests in any::<bool>(),
        pause_without_stream in any::<bool>(),
    ) -> Definition {
        let currency = Currency::parse(&currency).unwrap();
        let reserve = reserve.map(|(amount, salt)| Reserve { amount, salt });
        let terms =
            Terms { currency, start_price, increments, reserve, duration_ms, time, guests, pause_without_stream };
        Definition { seller, title, description, terms }
    }
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        definitions().prop_map(|d| Action::Create(Box::new(d))),
        (any::<u32>(), definitions()).prop_map(|(version, d)| Action::Edit {
            version,
            definition: Box::new(d)
        }),
        any::<u64>().prop_map(|start_wall_ms| Action::Schedule { start_wall_ms }),
        any::<Option<u32>>().prop_map(|schedule_version| Action::Start { schedule_version }),
        any::<u64>().prop_map(|amount| Action::Bid { amount }),
        any::<u64>().prop_map(|maximum| Action::MaxBid { maximum }),
        any::<Option<u64>>().prop_map(|for_ms| Action::Pause { for_ms }),
        Just(Action::Resume),
        any::<u64>().prop_map(|ms| Action::Extend { ms }),
        ".{0,40}".prop_map(|reason| Action::Cancel { reason }),
        (any::<u64>(), ids()).prop_map(|(node, stream)| Action::StreamUp { node, stream }),
        ids().prop_map(|stream| Action::StreamDown { stream }),
    ]
}

prop_compose! {
    fn commands()(auction in ids(), who in ids(), rights in any::<u16>(), id in option::of(ids()),
        first_sent in any::<Option<u64>>(), action in actions())
    -> Command {
        let first_sent = first_sent.map(Stamp);
        Command { auction, actor: Actor { id: who, rights: Rights(rights) }, id, first_sent, action }
    }
}

fn traces() -> impl Strategy<Value = TraceContext> {
    any::<(u128, u64, u8)>().prop_map(|(trace, span, flags)| TraceContext { trace, span, flags })
}

prop_compose! {
    fn payloads()(
        (term, turn, n, at, wall) in any::<(u64, u32, u64, u64, Option<(u64, u64)>)>(),
        behind in prop::collection::vec((ids(), stamps()), 0..3),
        holds in prop::collection::vec((stamps(), any::<u64>()), 0..3),
        commands in prop::collection::vec((stamps(), commands(), option::of(traces())), 0..5),
    ) -> Payload {
        let traced = commands.iter().enumerate().filter_map(|(i, (_, _, trace))| Some((i as u32, (*trace)?)));
        let traces = traced.collect();
        let commands = commands.into_iter().map(|(arrived, command, _)| Stamped { arrived, command }).collect();
        let holds = holds.into_iter().map(|(stamp, lost_ms)| Hold { stamp, lost_ms }).collect();
        let wall = wall.map(|(ms, error_ms)| auction::Wall { ms, error_ms });
        let entry = Entry { office: Office { term, turn }, n, at: Stamp(at), behind, holds, commands, wall };
        Payload::Entry { entry: Arc::new(entry), traces }
    }
}

fn phases() -> impl Strategy<Value = Phase> {
    let outcomes = [Outcome::Sold, Outcome::Unsold, Outcome::Cancelled];
    let mut all = vec![Phase::Draft, Phase::Scheduled, Phase::Live, Phase::Paused];
    all.extend(outcomes.map(Phase::Closed));
    select(all)
}

fn kinds() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        (ids(), any::<[u8; 32]>(), any::<Option<[u8; 32]>>())
            .prop_map(|(seller, terms, seal)| EventKind::Open(Box::new(Opening { seller, terms, seal }))),
        any::<(u64, u64, u64)>().prop_map(|(amount, cut_ms, extended_ms)| EventKind::Bid {
            amount,
            cut_ms,
            extended_ms
        }),
        Just(EventKind::Raise),
        (any::<u64>(), option::of(stamps())).prop_map(|(left_ms, until)| EventKind::Pause { left_ms, until }),
        any::<u64>().prop_map(|dms| EventKind::Resume { dms }),
        any::<u64>().prop_map(|dms| EventKind::Extend { dms }),
        any::<u64>().prop_map(|dms| EventKind::Held { dms }),
        select(vec![Outcome::Sold, Outcome::Unsold, Outcome::Cancelled])
            .prop_map(|outcome| EventKind::Close { outcome }),
        (any::<Option<u64>>(), ids()).prop_map(|(node, stream)| EventKind::Stream { node, stream }),
    ]
}

prop_compose! {
    fn events()(
        auction in ids(),
        (seq, price, hash) in any::<(u64, u64, [u8; 32])>(),
        (ct, ends_at) in (stamps(), stamps()),
        (actor, id, leader) in (option::of(ids()), option::of(ids()), option::of(ids())),
        kind in kinds(),
    ) -> Event {
        Event { auction, seq, ct, ends_at, actor, id, price, leader, kind, hash }
    }
}

prop_compose! {
    fn verdicts()(
        refused in option::of(select(Reason::ALL)),
        (seq, price, least, hash, dup) in any::<(u64, u64, u64, [u8; 32], bool)>(),
        (leader, phase) in (option::of(ids()), phases()),
        (ct, ends_at) in (stamps(), option::of(stamps())),
    ) -> Verdict {
        Verdict { outcome: refused.map_or(Ok(()), Err), seq, price, least, leader, phase, ct, ends_at, hash, dup }
    }
}

prop_compose! {
    fn views()(
        (id, definition, phase) in (ids(), definitions(), phases()),
        (version, seq, price, least, bids) in any::<(u32, u64, u64, u64, u64)>(),
        (leader, ends_at, ct) in (option::of(ids()), option::of(stamps()), stamps()),
        (reserve_met, left_ms, start_wall_ms, hash) in any::<(Option<bool>, Option<u64>, Option<u64>, [u8; 32])>(),
        stream in option::of((any::<u64>(), ids())),
        cuts in prop::collection::vec(any::<(u64, u64)>(), 0..3),
    ) -> AuctionView {
        AuctionView {
            id, version, definition, phase, seq, price, least, leader, bids, reserve_met, ends_at, left_ms,
            start_wall_ms, ct, hash, stream, cuts,
        }
    }
}

prop_compose! {
    fn maps()(
        (epoch, shards, replica_ids) in any::<(u64, u32, u64)>(),
        nodes in prop::collection::btree_map(any::<u64>(), (".{0,8}", ".{0,8}", any::<u32>()), 0..4),
        placement in prop::collection::btree_map(any::<u32>(), prop::collection::vec(any::<(u64, u64)>(), 0..4), 0..4),
    ) -> ClusterMap {
        let node = |(id, (zone, region, weight)): (u64, (String, String, u32))| {
            let (grpc, http, trunk) = (format!("g{id}"), format!("h{id}"), format!("t{id}"));
            (NodeId(id), Node { id: NodeId(id), zone, region, weight, grpc, http, trunk })
        };
        let place = |(shard, replicas): (u32, Vec<(u64, u64)>)| {
            let replicas = replicas.into_iter().map(|(n, r)| (NodeId(n), ReplicaId(r))).collect();
            (ShardId(shard), Placement { replicas })
        };
        let (nodes, placement) = (nodes.into_iter().map(node).collect(), placement.into_iter().map(place).collect());
        ClusterMap { epoch, shards, nodes, placement, replica_ids, ..ClusterMap::default() }
    }
}

prop_compose! {
    fn moves()(
        (id, began_ms, step, back) in any::<(u64, u64, u8, bool)>(),
        from in any::<Option<(u64, u64)>>(),
        to in any::<Option<(u64, u64)>>(),
        (forced, reason) in (prop::option::of(".{0,8}"), ".{0,8}"),
    ) -> Move {
        let end = |(node, replica)| (NodeId(node), ReplicaId(replica));
        let step = Step::ALL[step as usize % Step::ALL.len()];
        Move { id, from: from.map(end), to: to.map(end), step, back, forced, reason, began_ms }
    }
}

prop_compose! {
    fn steerings()(
        (version, move_ids, paused) in any::<(u64, u64, bool)>(),
        standings in prop::collection::btree_map(any::<u64>(), 0usize..4, 0..4),
        watchers in prop::collection::btree_map(any::<u64>(), any::<u64>(), 0..4),
        goal in prop::collection::btree_map(any::<u32>(), prop::collection::vec(any::<u64>(), 0..4), 0..4),
        moves in prop::collection::btree_map(any::<u32>(), moves(), 0..4),
        ended in prop::collection::vec((any::<u32>(), moves(), any::<u64>()), 0..4),
        overrides in prop::collection::vec((any::<u32>(), 0usize..3, any::<u64>(), ".{0,8}", any::<u64>()), 0..4),
        said in prop::collection::vec((any::<u64>(), ".{0,8}", ".{0,8}", prop::option::of(".{0,8}")), 0..4),
        (reason, forced) in (".{0,8}", prop::option::of(".{0,8}")),
    ) -> Steering {
        let all = [Standing::Active, Standing::Draining, Standing::Lost, Standing::Decommissioned];
        let wish = |kind: usize, node| [Wish::Pin(node), Wish::Exclude(node), Wish::PreferLeader(node)][kind];
        let over = |(shard, kind, node, owner, until_ms)| {
            Override { shard: ShardId(shard), wish: wish(kind, NodeId(node)), owner, until_ms }
        };
        let nodes = |(shard, nodes): (u32, Vec<u64>)| (ShardId(shard), nodes.into_iter().map(NodeId).collect());
        Steering {
            version, move_ids, paused, reason, forced,
            standings: standings.into_iter().map(|(node, i)| (NodeId(node), all[i])).collect(),
            watchers: watchers.into_iter().map(|(node, replica)| (NodeId(node), ReplicaId(replica))).collect(),
            goal: goal.into_iter().map(nodes).collect(),
            moves: moves.into_iter().map(|(shard, one)| (ShardId(shard), one)).collect(),
            ended: ended.into_iter().map(|(s, what, ended_ms)| Ended { shard: ShardId(s), what, ended_ms }).collect(),
            overrides: overrides.into_iter().map(over).collect(),
            cluster_version: u32::from(paused),
            sealed: std::collections::BTreeMap::new(),
            said: said.into_iter().map(|(at_ms, who, what, why)| Said { at_ms, who, what, why, version }).collect(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn payloads_round_trip(payload in payloads()) {
        round_trip(&payload);
        let logged = Logged::of(payload.clone());
        let read = Logged::read(logged.bytes().clone()).unwrap();
        prop_assert_eq!(read.payload(), &payload);
    }

    #[test]
    fn every_known_form_reads_back_and_a_newer_one_is_refused(payload in payloads()) {
        for format in 1..=versions::FORMAT {
            let logged = Logged::in_format(payload.clone(), format);
            let read = Logged::read(logged.bytes().clone()).unwrap();
            prop_assert_eq!(read.payload(), &payload, "form {}", format);
        }
        let newer = Logged::in_format(payload, versions::FORMAT + 1);
        let refused = Logged::read(newer.bytes().clone()).unwrap_err();
        let (found, known) = (versions::FORMAT + 1, versions::FORMAT);
        prop_assert_eq!(&refused, &BadWire::Newer { what: "the form of an entry", found, known });
        prop_assert!(refused.to_string().starts_with("[version_newer]"));
    }

    #[test]
    fn maps_on_their_way_round_trip(map in maps(), steering in steerings(), expected in any::<u64>()) {
        let map = Box::new(ClusterMap { steering, ..map });
        round_trip(&*map);
        let newer = Steering { cluster_version: versions::NEWEST + 1, ..map.steering.clone() };
        let refused = matches!(Steering::from_proto(newer.to_proto()), Err(BadWire::Newer { .. }));
        prop_assert!(refused);
        round_trip(&MetaCommand::Steer { expected, map });
    }

    #[test]
    fn commands_round_trip(command in commands()) {
        round_trip(&command);
    }

    #[test]
    fn events_round_trip(event in events()) {
        round_trip(&event);
    }

    #[test]
    fn verdicts_round_trip(verdict in verdicts()) {
        round_trip(&verdict);
    }

    #[test]
    fn views_round_trip(view in views()) {
        round_trip(&view);
    }

    #[test]
    fn maps_round_trip(map in maps(), expected in any::<u64>()) {
        round_trip(&map);
        round_trip(&MetaCommand::StoreMap { expected, map: Box::new(map) });
    }

    /// Whatever a peer sends: a value or an error, never a panic.
    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Payload::from_bytes(Bytes::from(bytes));
    }
}

#[test]
fn what_is_no_value_is_named() {
    let good = || {
        let bid = Action::Bid { amount: 5 };
        let id = |text| Id::parse(text).unwrap();
        Command {
            auction: id("a"),
            actor: Actor {
                id: id("b"),
                rights: Rights(2),
            },
            id: Some(id("c")),
            first_sent: None,
            action: bid,
        }
        .to_proto()
    };
    let check = |spoil: fn(&mut pb::Command), expected: BadWire| {
        let mut proto = good();
        spoil(&mut proto);
        let bytes = Bytes::from(proto.encode_to_vec());
        assert_eq!(Command::from_bytes(bytes), Err(expected));
    };
    check(|c| c.auction.clear(), BadWire::Invalid("command.auction"));
    check(|c| c.auction = "no spaces".into(), BadWire::Invalid("command.auction"));
    check(|c| c.actor = None, BadWire::Missing("command.actor"));
    check(
        |c| c.actor.as_mut().unwrap().rights = 1 << 16,
        BadWire::Invalid("actor.rights"),
    );
    check(|c| c.id = Some(String::new()), BadWire::Invalid("command.id"));
    check(|c| c.action = None, BadWire::Missing("command.action"));
    // A kind of a later version arrives as a field that this one doesn't know: no action at all.
    assert_eq!(Payload::from_bytes(Bytes::new()), Err(BadWire::Missing("payload.kind")));
}
