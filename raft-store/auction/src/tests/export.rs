//! Exports that someone tampered with: each alteration is refused under its own code.
//!
//! Three hands: one that changes a line and leaves the chain as it was, one that makes digests and hashes whole again (a
//! server that lies), one that changes only the head.

use super::{proof::Bowl, *};
use crate::verify::{Broken, Head, Line, Reserved, cells, digest_of, opening, verify};

/// The auction of `proof`, exported after its sale.
fn export() -> (Head, Vec<Line>) {
    let bowl = Bowl::sold();
    let lines = bowl.events().iter().map(|event| Line::from(&**event)).collect();
    (bowl.heads.last().unwrap().clone(), lines)
}

#[test]
fn an_export_is_verified() {
    let (head, lines) = export();
    let summary = verify(&head, lines).unwrap();
    assert_eq!((summary.events, summary.bids, summary.price), (14, 3, 151));
    assert_eq!(
        (summary.outcome.as_deref(), summary.winner.as_deref()),
        (Some("sold"), Some("bob"))
    );
    assert_eq!((summary.bound, summary.reserve), (true, Reserved::Opened(120)));
}

#[test]
fn an_export_of_any_moment_is_verified() {
    let (_, lines) = export();
    for head in Bowl::sold().heads {
        let upto = head.shown.seq as usize;
        let summary = verify(&head, lines[..upto].to_vec()).unwrap_or_else(|broken| panic!("{broken:?} at {upto}"));
        assert_eq!(
            (summary.events, summary.outcome.is_some(), summary.bound),
            (upto as u64, upto == 14, upto > 0)
        );
        let reserve = match upto {
            0 => Reserved::None,
            14 => Reserved::Opened(120),
            _ => Reserved::Sealed,
        };
        assert_eq!(summary.reserve, reserve, "{upto}");
    }
}

/// Makes digests and hashes of changed lines whole again, as a server would that lies.
fn forge(head: &Head, lines: &mut [Line]) {
    let mut previous = None;
    for line in lines {
        line.digest = match line.ty.as_str() {
            "open" => Some(opening(head, line)),
            _ => digest_of(line),
        };
        line.h = chain::link("bowl", previous.as_ref(), &cells(line).unwrap());
        previous = Some(line.h);
    }
}

/// The refusal of the export with one line changed (by index).
fn tampered(index: usize, forged: bool, change: fn(&mut Line)) -> Broken {
    let (head, mut lines) = export();
    change(&mut lines[index]);
    if forged {
        forge(&head, &mut lines);
    }
    verify(&head, lines).unwrap_err()
}

type Change = fn(&mut Line);

#[test]
#[rustfmt::skip]
fn a_tampered_line_is_found_by_what_binds_it() {
    let table: &[(usize, &str, Change)] = &[
        (0, "seq", |l| l.seq = 2),
        (0, "type", |l| l.ty = "begin".into()),
        (0, "hash", |l| l.ct += 1),
        (0, "hash", |l| l.ends_at += 1),
        (0, "hash", |l| l.h[0] ^= 1),
        (0, "terms", |l| l.actor = None),
        (0, "terms", |l| l.id = Some("other".into())),
        (0, "terms", |l| l.digest = Some([0; 32])),
        (0, "terms", |l| l.seal = Some([0; 32])),
        (0, "terms", |l| l.seal = None),
        (0, "seller", |l| l.seller = Some("eve".into())),
        (0, "price", |l| l.price = 50),
        (0, "leader", |l| l.leader = Some("eve".into())),
        (0, "fields", |l| l.dms = Some(1)),
        (0, "fields", |l| l.digest = None),
        (1, "hash", |l| l.actor = Some("eve".into())),
        (1, "hash", |l| l.id = Some("k9".into())),
        (1, "hash", |l| l.id = None),
        (1, "hash", |l| l.amount = Some(99)),
        (1, "hash", |l| l.price = 101),
        (1, "hash", |l| l.leader = Some("eve".into())),
        (1, "fields", |l| l.ty = "raise".into()),
        (1, "cut", |l| l.cut_ms = Some(1)),
        (1, "cut", |l| l.extended_ms = Some(1)),
        (1, "fields", |l| l.cut_ms = None),
        (1, "fields", |l| l.actor = None),
        (1, "fields", |l| l.outcome = Some("sold".into())),
        (1, "fields", |l| l.digest = Some([0; 32])),
        (1, "fields", |l| l.seller = Some("seller".into())),
        (1, "fields", |l| l.seal = Some([0; 32])),
        (1, "amount", |l| l.amount = Some(u64::MAX)),
        (1, "amount", |l| l.price = u64::MAX),
        (3, "hash", |l| l.price = 150),
        (3, "hash", |l| l.leader = Some("eve".into())),
        (4, "hash", |l| l.actor = Some("ann".into())),
        (4, "hash", |l| l.id = Some("k9".into())),
        (5, "digest", |l| l.actor = Some("eve".into())),
        (5, "digest", |l| l.node = Some(8)),
        (5, "digest", |l| l.node = None),
        (5, "digest", |l| l.stream = Some("other".into())),
        (6, "digest", |l| l.actor = Some("op".into())),
        (6, "digest", |l| l.id = Some("other".into())),
        (6, "digest", |l| l.until = Some(9_500)),
        (6, "left_ms", |l| l.left_ms = Some(1)),
        (7, "digest", |l| l.dms = Some(81)),
        (7, "fields", |l| l.actor = Some("op".into())),
        (8, "digest", |l| l.actor = None),
        (8, "digest", |l| l.dms = Some(1_999)),
        (9, "digest", |l| l.actor = Some("seller".into())),
        (9, "digest", |l| l.dms = Some(999)),
        (10, "digest", |l| l.until = Some(11_600)),
        (13, "hash", |l| l.leader = Some("eve".into())),
        (13, "hash", |l| l.price = 152),
        (13, "hash", |l| l.outcome = Some("unsold".into())),
        (13, "digest", |l| l.actor = Some("op".into())),
        (13, "fields", |l| l.node = Some(7)),
    ];
    for (row, (index, code, change)) in table.iter().enumerate() {
        let broken = tampered(*index, false, *change);
        let at = broken.seq == Some(*index as u64 + 1) || *code == "seq";
        assert!(at && broken.code == *code, "row {row}: {broken:?}, not {code}");
    }
}

#[test]
#[rustfmt::skip]
fn a_forged_chain_breaks_the_rules() {
    let table: &[(usize, &str, &str, Change)] = &[
        (0, "ends_at", "deadline", |l| l.ends_at = 99_000),
        (0, "price", "price", |l| l.price = 50),
        (0, "seller", "opened for", |l| l.seller = Some("eve".into())),
        (0, "reserve", "sealed", |l| l.seal = Some([0; 32])),
        (0, "reserve", "sealed", |l| l.seal = None),
        (1, "amount", "below the least", |l| (l.amount, l.price) = (Some(99), 99)),
        (1, "actor", "the seller bids", |l| (l.actor, l.leader) = (Some("seller".into()), Some("seller".into()))),
        (1, "leader", "someone leads", |l| l.leader = Some("eve".into())),
        (1, "leader", "someone leads", |l| l.leader = None),
        (1, "price", "makes", |l| l.price = 120),
        (1, "ends_at", "deadline", |l| l.ends_at -= 1),
        (2, "actor", "the leader bid on", |l| l.actor = Some("ann".into())),
        (2, "ends_at", "deadline", |l| (l.price, l.amount) = (200, Some(200))),
        (2, "cut", "(cut, extension)", |l| l.cut_ms = Some(0)),
        (2, "ct", "before", |l| l.ct = 1_999),
        (3, "price", "an answer", |l| l.price = 152),
        (3, "price", "an answer", |l| l.price = 149),
        (4, "actor", "only the leader", |l| l.actor = Some("ann".into())),
        (4, "price", "price", |l| l.price = 400),
        (5, "ends_at", "deadline", |l| l.ends_at += 1),
        (6, "left_ms", "left", |l| l.left_ms = Some(1)),
        (6, "until", "a pause of", |l| l.until = Some(7_999)),
        (8, "actor", "by nobody", |l| l.actor = None),
        (8, "dms", "paused instead", |l| l.dms = Some(1_999)),
        (9, "dms", "extension of", |l| l.dms = Some(0)),
        (9, "ends_at", "deadline", |l| l.dms = Some(2_000)),
        (13, "ct", "closed at", |l| l.ct = 35_919),
        (13, "time", "it ended at", |l| l.ct = 35_921),
        (13, "leader", "wrong winner", |l| l.leader = Some("ann".into())),
        (13, "outcome", "unknown outcome", |l| l.outcome = Some("given".into())),
        (13, "outcome", "the rules make it sold", |l| (l.outcome, l.leader) = (Some("unsold".into()), None)),
        (13, "actor", "cancelled by nobody", |l| (l.outcome, l.leader) = (Some("cancelled".into()), None)),
    ];
    for (row, (index, code, what, change)) in table.iter().enumerate() {
        let broken = tampered(*index, true, *change);
        let told = broken.seq == Some(*index as u64 + 1) && broken.what.contains(what);
        assert!(told && broken.code == *code, "row {row}: {broken:?}, not {code}");
    }
}

#[test]
#[rustfmt::skip]
fn each_field_of_the_head_is_held_against_the_events() {
    type Change = fn(&mut Head);
    let table: &[(Option<u64>, &str, Change)] = &[
        (Some(1), "hash", |h| h.auction = "cup".into()),
        (Some(1), "terms", |h| h.version = 2),
        (Some(1), "seller", |h| h.seller = "eve".into()),
        (Some(1), "terms", |h| h.title = "A vase".into()),
        (Some(1), "terms", |h| h.description = "Old.".into()),
        (Some(1), "terms", |h| h.terms.currency = Currency(*b"USD")),
        (Some(1), "terms", |h| h.terms.start_price = 101),
        (Some(1), "terms", |h| h.terms.increments = vec![(0, 1)]),
        (Some(1), "terms", |h| h.terms.duration_ms = 60_001),
        (Some(1), "terms", |h| h.terms.time.rush.as_mut().unwrap().cut_ppm_max = 400_000),
        (Some(1), "terms", |h| h.terms.time.rush.as_mut().unwrap().cut_per_raise_ppm = 1),
        (Some(1), "terms", |h| h.terms.time.rush.as_mut().unwrap().floor_ms = 3_000),
        (Some(1), "terms", |h| h.terms.time.rush = None),
        (Some(1), "terms", |h| h.terms.time.soft_close = Some(soft())),
        (Some(1), "terms", |h| h.terms.guests = true),
        (Some(1), "terms", |h| h.terms.pause_without_stream = true),
        (Some(1), "reserve", |h| h.terms.reserve = Some(sealed(121))),
        (Some(1), "reserve", |h| h.terms.reserve.as_mut().unwrap().salt = [8; 32]),
        (None, "reserve", |h| h.terms.reserve = None),
        (None, "terms", |h| h.terms.increments.clear()),
        (None, "phase", |h| h.shown.phase = "live".into()),
        (None, "phase", |h| h.shown.phase = "over".into()),
        (None, "outcome", |h| h.shown.outcome = Some("unsold".into())),
        (None, "outcome", |h| h.shown.outcome = None),
        (None, "seq", |h| h.shown.seq = 13),
        (None, "price", |h| h.shown.price = 152),
        (None, "least", |h| h.shown.least = 153),
        (None, "leader", |h| h.shown.leader = Some("ann".into())),
        (None, "leader", |h| h.shown.leader = None),
        (None, "bids", |h| h.shown.bids = 4),
        (None, "reserve_met", |h| h.shown.reserve_met = Some(false)),
        (None, "reserve_met", |h| h.shown.reserve_met = None),
        (None, "ends_at", |h| h.shown.ends_at = Some(35_921)),
        (None, "ends_at", |h| h.shown.ends_at = None),
        (None, "left_ms", |h| h.shown.left_ms = Some(0)),
        (None, "start_at_ms", |h| h.shown.start_at_ms = Some(5)),
        (None, "ct", |h| h.shown.ct = 35_919),
        (None, "h", |h| h.shown.h[31] ^= 1),
    ];
    for (row, (seq, code, change)) in table.iter().enumerate() {
        let (mut head, lines) = export();
        change(&mut head);
        let broken = verify(&head, lines).unwrap_err();
        assert!(broken.seq == *seq && broken.code == *code, "row {row}: {broken:?}, not {code}");
    }
}

/// While it is paused, and before it is open, the head says other things: they are held, too.
#[test]
#[rustfmt::skip]
fn a_head_of_another_moment_is_held_against_its_events() {
    type Change = fn(&mut Head);
    let table: &[(usize, &str, Change)] = &[
        (0, "phase", |h| h.shown.phase = "live".into()),
        (0, "start_at_ms", |h| h.shown.phase = "scheduled".into()),
        (0, "price", |h| h.shown.price = 101),
        (0, "bids", |h| h.shown.bids = 1),
        (0, "ends_at", |h| h.shown.ends_at = Some(1)),
        (1, "phase", |h| h.shown.phase = "paused".into()),
        (1, "reserve_met", |h| h.shown.reserve_met = None),
        (1, "reserve", |h| h.terms.reserve = Some(sealed(120))),
        (7, "left_ms", |h| h.shown.left_ms = Some(24_921)),
        (7, "left_ms", |h| h.shown.left_ms = None),
        (7, "phase", |h| h.shown.phase = "live".into()),
    ];
    let (_, lines) = export();
    for (row, (upto, code, change)) in table.iter().enumerate() {
        let mut head = Bowl::sold().heads.into_iter().find(|head| head.shown.seq as usize == *upto).unwrap();
        change(&mut head);
        let broken = verify(&head, lines[..*upto].to_vec()).unwrap_err();
        assert!(broken.code == *code, "row {row}: {broken:?}, not {code}");
    }
}

#[test]
fn lines_that_are_missing_or_moved() {
    let (head, lines) = export();
    let refused = |lines: Vec<Line>| {
        let broken = verify(&head, lines).unwrap_err();
        (broken.seq, broken.code)
    };
    for index in 0..13 {
        let next = Some(index as u64 + 2);
        let mut without = lines.clone();
        without.remove(index);
        assert_eq!(refused(without), (next, "seq"), "without line {index}");
        let mut swapped = lines.clone();
        swapped.swap(index, index + 1);
        assert_eq!(refused(swapped), (next, "seq"), "{index} swapped with the next");
        let mut twice = lines.clone();
        twice.insert(index, lines[index].clone());
        assert_eq!(refused(twice), (Some(index as u64 + 1), "seq"), "{index} twice");
        assert_eq!(refused(lines[..index].to_vec()), (None, "seq"), "cut off after {index}");
        // Cut off, and the head's numbers set back with it: its phase gives it away.
        let mut back = head.clone();
        let last = index.checked_sub(1).map(|last| &lines[last]);
        back.shown.seq = index as u64;
        (back.shown.h, back.shown.ct) = last.map_or(([0; 32], 0), |last| (last.h, last.ct));
        let broken = verify(&back, lines[..index].to_vec()).unwrap_err();
        let code = if index == 0 { "phase" } else { broken.code };
        assert_eq!(
            (broken.seq, broken.code),
            (None, code),
            "cut off after {index}, and set back"
        );
        assert!(["phase", "reserve"].contains(&broken.code), "{broken:?}");
    }
    let mut after = lines.clone();
    after.push(Line {
        seq: 15,
        ct: 40_000,
        amount: Some(900),
        price: 900,
        ..lines[1].clone()
    });
    forge(&head, &mut after);
    assert_eq!(refused(after), (Some(15), "time"), "after the close");
}

#[test]
fn a_sale_follows_from_the_reserve() {
    let table = [
        (None, 100, "sold"),
        (Some(150), 150, "sold"),
        (Some(150), 149, "unsold"),
    ];
    for (reserve, amount, outcome) in table {
        let mut world = World::live(Terms {
            reserve: reserve.map(sealed),
            ..rush_terms()
        });
        world.one(10, command("a", "ann", Some("k"), Action::Bid { amount }));
        world.beat(60_010);
        let head = Head::from(&world.view());
        let events = world.shard.events(&id("a"), 0, usize::MAX).unwrap();
        let lines: Vec<Line> = events.iter().map(|event| Line::from(&**event)).collect();
        let summary = verify(&head, lines).unwrap();
        assert_eq!(summary.outcome.as_deref(), Some(outcome), "{reserve:?} {amount}");
        assert_eq!(summary.reserve, reserve.map_or(Reserved::None, Reserved::Opened));
    }
}

/// What is called off keeps its reserve sealed, and tells who called it off.
#[test]
fn a_cancelled_one_is_verified() {
    for live in [true, false] {
        let terms = Terms {
            reserve: Some(sealed(150)),
            ..rush_terms()
        };
        let mut world = World::new();
        world.one(
            0,
            command("a", "seller", None, Action::Create(Box::new(definition(terms)))),
        );
        if live {
            world.one(
                1,
                command("a", "seller", None, Action::Start { schedule_version: None }),
            );
        }
        let reason = String::new();
        world.one(9, command("a", "op", Some("c"), Action::Cancel { reason }));
        let head = Head::from(&world.view());
        assert_eq!(head.terms.reserve, None);
        let events = world.shard.events(&id("a"), 0, usize::MAX).unwrap();
        let mut lines: Vec<Line> = events.iter().map(|event| Line::from(&**event)).collect();
        let summary = verify(&head, lines.clone()).unwrap();
        assert_eq!((summary.outcome.as_deref(), summary.bound), (Some("cancelled"), live));
        assert_eq!(summary.reserve == Reserved::Sealed, live);
        lines.last_mut().unwrap().actor = Some("seller".into());
        assert_eq!(verify(&head, lines).unwrap_err().code, "digest");
    }
}
