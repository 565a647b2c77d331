//! The chain and its proof: golden hashes, and exports that someone tampered with.

use super::*;
use crate::verify::{Broken, Head, Line, verify};

/// A small auction with an event of every type.
fn bowl() -> World {
    let mut world = World::new();
    let mut say = |at: u64, who: &str, key: &str, action: Action| {
        let key = (!key.is_empty()).then_some(key);
        assert_eq!(world.one(at, command("bowl", who, key, action)).outcome, Ok(()));
    };
    say(0, "seller", "new", Action::Create(Box::new(definition(rush_terms()))));
    say(1_000, "seller", "go", Action::Start { schedule_version: None });
    say(2_000, "ann", "k1", Action::Bid { amount: 100 });
    say(3_000, "bob", "k2", Action::MaxBid { maximum: 300 });
    say(4_000, "ann", "k3", Action::Bid { amount: 150 });
    say(5_000, "bob", "k4", Action::MaxBid { maximum: 400 });
    say(
        6_000,
        "system",
        "",
        Action::StreamUp {
            node: 7,
            stream: id("cam"),
        },
    );
    say(7_000, "seller", "p", Action::Pause { for_ms: None });
    let holds = vec![Hold {
        stamp: Stamp(8_000),
        lost_ms: 80,
    }];
    world.entry(Entry {
        at: Stamp(8_001),
        holds,
        ..Entry::default()
    });
    let mut say = |at: u64, who: &str, key: &str, action: Action| {
        let key = (!key.is_empty()).then_some(key);
        assert_eq!(world.one(at, command("bowl", who, key, action)).outcome, Ok(()));
    };
    say(9_000, "seller", "r", Action::Resume);
    say(10_000, "op", "e", Action::Extend { ms: 1_000 });
    say(11_000, "system", "", Action::StreamDown { stream: id("cam") });
    world.beat(40_000);
    world
}

/// Each line as it is hashed after the hash before it, and its hash, made by another program (Python's hashlib). The
/// lines are the public form: a change here breaks every proof ever exported.
#[rustfmt::skip]
const GOLDEN: [(&str, &str); 12] = [
    ("1|open|go|||1000|61000", "75cfc86cbf6ac7601b2a136416b78688b19b88586e30bda8cdac076fd8ce05a5"),
    ("2|bid|k1|ann|100|2000|61000", "5f97f90a0f46a3756a0177689118ddfed1fb0c488a46546a1c1b8cdfe8b0d888"),
    ("3|bid|k2|bob|101|3000|59840", "324750942e0aaaedc41eb963d5f7d2a9995991b232590664e640c58ffa10ad58"),
    ("4|bid|k3|ann|150/151/bob|4000|31920", "95ca889b35166274273a0f9c7ee77066801ce2210c893834510e9a47d53c54b1"),
    ("5|raise|k4|bob|151|5000|31920", "79e7e286a4465d75be72ab49f239bf2e4f3ded8da3fc219ac59dad39dcb300c5"),
    ("6|stream|||7/cam|6000|31920", "d0700a06e81f7956aecfe6e20706348c80512680a44c00ca52aa656f21f8d43d"),
    ("7|pause|p|||7000|31920", "301494850ff4f430e69e0ea1dcb3bd68ced5424597b62fe0def08925c887c68b"),
    ("8|held||||8000|31920", "0b4cbfa379babce00e78043b8754dbdd6c7d0fb799877e910682d08e9aaffc33"),
    ("9|resume|r|||9000|33920", "9f2bf017e32eba9379e316e8d54bb38b96f37de25864d066798a53574660f1fa"),
    ("10|extend|e|||10000|34920", "ea02ebf58071ea92c237da29b3067fad5067d1b09aba1cbfe9fcb2fbd6ea9f3f"),
    ("11|stream|||/cam|11000|34920", "c4fa31c9140a466e04b6ccb42e098e2757495da85c44d76f5d4a27517097fc2f"),
    ("12|close||bob|151|34920|34920", "0137982f4e2e463e22ccaa1e22cc899324499773d2ec388b73152559e743603b"),
];

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn events(world: &World) -> Vec<std::sync::Arc<Event>> {
    world.shard.events(&id("bowl"), 0, usize::MAX).unwrap().to_vec()
}

#[test]
fn the_chain_is_golden() {
    let world = bowl();
    for (event, (line, hash)) in events(&world).iter().zip(GOLDEN) {
        let cells = chain::line(event);
        let amt = match cells.amt {
            chain::Amt::Empty => String::new(),
            chain::Amt::Money(amount) => amount.to_string(),
            chain::Amt::Answered(amount, price, leader) => format!("{amount}/{price}/{leader}"),
            chain::Amt::Stream(node, stream) => format!("{}/{stream}", node.map_or(String::new(), |n| n.to_string())),
        };
        let chain::Line {
            seq,
            ty,
            idem,
            bidder,
            ct,
            dl,
            ..
        } = cells;
        assert_eq!(format!("{seq}|{ty}|{idem}|{bidder}|{amt}|{ct}|{dl}"), line);
        assert_eq!(hex(&event.hash), hash, "{line}");
    }
    let view = world.shard.view(&id("bowl")).unwrap();
    assert_eq!((view.seq, hex(&view.hash).as_str()), (12, GOLDEN[11].1));
    assert_eq!(view.phase, Phase::Closed(Outcome::Sold));
}

/// The longest line that valid ids and amounts can make, against the plain way to hash it.
#[test]
fn the_longest_line_is_hashed_whole() {
    use sha2::{Digest, Sha256};
    let long = "x".repeat(64);
    let amt = chain::Amt::Answered(u64::MAX, u64::MAX, &long);
    let line = chain::Line {
        seq: u64::MAX,
        ty: "stream",
        idem: &long,
        bidder: &long,
        amt,
        ct: u64::MAX,
        dl: u64::MAX,
    };
    let max = u64::MAX;
    let rest = format!("|{max}|stream|{long}|{long}|{max}/{max}/{long}|{max}|{max}");
    let first: [u8; 32] = Sha256::digest(format!("0000000000000000{long}{rest}")).into();
    assert_eq!(chain::link(&long, None, &line), first);
    let next: [u8; 32] = Sha256::digest(format!("{}{rest}", hex(&first))).into();
    assert_eq!(chain::link(&long, Some(&first), &line), next);
}

fn head() -> Head {
    Head {
        auction: "bowl".into(),
        terms: rush_terms(),
    }
}

fn export() -> Vec<Line> {
    events(&bowl()).iter().map(|event| Line::from(&**event)).collect()
}

#[test]
fn an_export_is_verified() {
    let lines = export();
    let summary = verify(&head(), lines.clone()).unwrap();
    assert_eq!((summary.events, summary.bids, summary.price), (12, 3, 151));
    assert_eq!(
        (summary.outcome.as_deref(), summary.winner.as_deref()),
        (Some("sold"), Some("bob"))
    );
    for upto in 0..lines.len() {
        assert_eq!(
            verify(&head(), lines[..upto].to_vec()).map(|s| s.events),
            Ok(upto as u64),
            "a part is a proof, too"
        );
    }
}

/// Makes the chain of changed lines whole again, as a server would that lies.
fn forge(lines: &mut [Line]) {
    let mut previous = None;
    for line in lines {
        line.h = chain::link("bowl", previous.as_ref(), &verify::cells(line).unwrap());
        previous = Some(line.h);
    }
}

/// Changes one line of the export (by index); the chain is left broken, or forged whole.
fn tampered(index: usize, forged: bool, change: fn(&mut Line)) -> Result<(), Broken> {
    let mut lines = export();
    change(&mut lines[index]);
    if forged {
        forge(&mut lines);
    }
    verify(&head(), lines).map(|_| ())
}

#[test]
fn a_tampered_line_breaks_the_chain() {
    type Change = fn(&mut Line);
    let table: [(usize, Change); 16] = [
        (0, |l| l.ct += 1),
        (0, |l| l.ends_at += 1),
        (0, |l| l.id = None),
        (1, |l| l.actor = Some("eve".into())),
        (1, |l| l.id = Some("k9".into())),
        (1, |l| l.amount = Some(99)),
        (1, |l| l.price = 101),
        (1, |l| l.ty = "raise".into()),
        (2, |l| l.h[31] ^= 1),
        (3, |l| l.price = 150),
        (3, |l| l.leader = Some("eve".into())),
        (3, |l| l.amount = Some(151)),
        (5, |l| l.node = Some(8)),
        (10, |l| l.stream = Some("other".into())),
        (11, |l| l.leader = Some("eve".into())),
        (11, |l| l.price = 152),
    ];
    for (row, (index, change)) in table.into_iter().enumerate() {
        let broken = tampered(index, false, change).unwrap_err();
        assert!(
            broken.seq == index as u64 + 1 && broken.what.contains("hash"),
            "row {row}: {broken:?}"
        );
    }
}

#[test]
fn a_forged_chain_breaks_the_rules() {
    type Change = fn(&mut Line);
    let table: [(usize, &str, Change); 25] = [
        (0, "deadline", |l| l.ends_at = 99_000),
        (0, "price", |l| l.price = 50),
        (1, "below the least", |l| (l.amount, l.price) = (Some(99), 99)),
        (1, "someone leads", |l| l.leader = Some("eve".into())),
        (1, "makes", |l| l.price = 120),
        (1, "deadline", |l| l.ends_at -= 1),
        (2, "the leader bid on", |l| l.actor = Some("ann".into())),
        (2, "deadline", |l| (l.price, l.amount) = (200, Some(200))),
        (2, "(cut, extension)", |l| l.cut_ms = Some(0)),
        (2, "before", |l| l.ct = 1_999),
        (3, "an answer", |l| l.price = 152),
        (3, "an answer", |l| l.price = 149),
        (4, "only the leader", |l| l.actor = Some("ann".into())),
        (4, "price", |l| l.price = 400),
        (5, "deadline", |l| l.ends_at += 1),
        (6, "left", |l| l.left_ms = Some(1)),
        (7, "length", |l| l.dms = None),
        (8, "by nobody", |l| l.actor = None),
        (8, "paused instead", |l| l.dms = Some(1_999)),
        (9, "extension of", |l| l.dms = Some(0)),
        (9, "deadline", |l| l.dms = Some(2_000)),
        (11, "closed at", |l| l.ct = 34_919),
        (11, "it ended at", |l| l.ct = 34_921),
        (11, "wrong winner", |l| l.leader = Some("ann".into())),
        (11, "outcome", |l| l.outcome = Some("given".into())),
    ];
    for (row, (index, what, change)) in table.into_iter().enumerate() {
        let broken = tampered(index, true, change).unwrap_err();
        assert!(
            broken.seq == index as u64 + 1 && broken.what.contains(what),
            "row {row}: {broken:?}"
        );
    }
}

#[test]
fn lines_that_are_missing_or_moved() {
    for index in 0..11 {
        let mut lines = export();
        lines.remove(index);
        assert_eq!(
            verify(&head(), lines).unwrap_err().seq,
            index as u64 + 2,
            "without line {index}"
        );
        let mut lines = export();
        lines.swap(index, index + 1);
        assert_eq!(
            verify(&head(), lines).unwrap_err().seq,
            index as u64 + 2,
            "{index} swapped with the next"
        );
        let mut lines = export();
        lines.insert(index, lines[index].clone());
        assert_eq!(
            verify(&head(), lines).unwrap_err().seq,
            index as u64 + 1,
            "{index} twice"
        );
    }
    let mut after = export();
    after.push(Line {
        seq: 13,
        ty: "bid".into(),
        actor: Some("eve".into()),
        amount: Some(900),
        ct: 40_000,
        ..after[1].clone()
    });
    forge(&mut after);
    assert_eq!(verify(&head(), after).unwrap_err().what, "it was closed before");
    assert!(
        verify(
            &Head {
                auction: "other".into(),
                ..head()
            },
            export()
        )
        .is_err(),
        "of another auction"
    );
    let mut dearer = head();
    dearer.terms.start_price = 101;
    assert!(verify(&dearer, export()).is_err(), "under other terms");
}
