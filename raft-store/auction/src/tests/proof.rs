//! The chain: golden hashes of an auction with an event of every type, and of the texts that its digests are of.

use super::*;
use crate::{bound, verify::Head};
use sha2::{Digest, Sha256};

/// A small auction with an event of every type.
pub(super) struct Bowl {
    pub(super) world: World,
    /// The head that it showed at each version, from none on.
    pub(super) heads: Vec<Head>,
}

impl Bowl {
    /// Whole, from its draft to its sale.
    pub(super) fn sold() -> Bowl {
        let mut bowl = Bowl {
            world: World::new(),
            heads: Vec::new(),
        };
        let terms = Terms {
            reserve: Some(sealed(120)),
            ..rush_terms()
        };
        bowl.say(0, "seller", "new", Action::Create(Box::new(definition(terms))));
        bowl.say(1_000, "seller", "go", Action::Start { schedule_version: None });
        bowl.say(2_000, "ann", "k1", Action::Bid { amount: 100 });
        bowl.say(3_000, "bob", "k2", Action::MaxBid { maximum: 300 });
        bowl.say(4_000, "ann", "k3", Action::Bid { amount: 150 });
        bowl.say(5_000, "bob", "k4", Action::MaxBid { maximum: 400 });
        let stream = id("cam");
        bowl.say(6_000, "system", "", Action::StreamUp { node: 7, stream });
        bowl.say(7_000, "seller", "p", Action::Pause { for_ms: None });
        let hold = Hold {
            stamp: Stamp(8_000),
            lost_ms: 80,
        };
        bowl.pass(8_001, vec![hold]);
        bowl.say(9_000, "seller", "r", Action::Resume);
        bowl.say(10_000, "op", "e", Action::Extend { ms: 1_000 });
        bowl.say(10_500, "seller", "q", Action::Pause { for_ms: Some(1_000) });
        bowl.pass(11_600, Vec::new());
        let stream = id("cam");
        bowl.say(12_000, "system", "", Action::StreamDown { stream });
        bowl.pass(40_000, Vec::new());
        bowl
    }

    fn say(&mut self, at: u64, who: &str, key: &str, action: Action) {
        let key = (!key.is_empty()).then_some(key);
        assert_eq!(self.world.one(at, command("bowl", who, key, action)).outcome, Ok(()));
        self.see();
    }

    fn pass(&mut self, at: u64, holds: Vec<Hold>) {
        let at = Stamp(at);
        self.world.entry(Entry {
            at,
            holds,
            ..Entry::default()
        });
        self.see();
    }

    fn see(&mut self) {
        self.heads
            .push(Head::from(&self.world.shard.view(&id("bowl")).unwrap()));
    }

    pub(super) fn events(&self) -> Vec<std::sync::Arc<Event>> {
        self.world.shard.events(&id("bowl"), 0, usize::MAX).unwrap().to_vec()
    }
}

/// Each line as it is hashed after the hash before it, and its hash, made by another program (Python's hashlib). The
/// lines are the public form: a change here breaks every proof ever exported.
#[rustfmt::skip]
const GOLDEN: [(&str, &str); 14] = [
    ("1|open|e1ac323a52fd70f6c236a8ff7ca4f6471f8592f7a08ee4b4ebbe9a82c2af3310|seller||1000|61000", "511f4c30c098aea12a63e73561f093e21f9faea6e974977bb3a2eb638f8590ce"),
    ("2|bid|k1|ann|100|2000|61000", "f917376aba91e7ad9ac6ff01226edae52361e8b546e695996cba96d39d19f502"),
    ("3|bid|k2|bob|101|3000|59840", "21bcf878053fcdf53e6610c397be213f6bfbd9bedd142580db0752923d2878c3"),
    ("4|bid|k3|ann|150/151/bob|4000|31920", "13631b60b08e696466bcd587e747b4ec22c9004a99fc95cd9b68cc57d2dba716"),
    ("5|raise|k4|bob|151|5000|31920", "20d60e7fbdd9598b91509dcff734e35223ee05de4b17eea8b0ccbbf8da12004e"),
    ("6|stream|9df3228d5fefb41ec7fa1f1ae3c9338a531b236ed8d942fc55ba35f6e570439d|||6000|31920", "b4ebebc3379031abae87fa5662be6d555fffc8ccb08dd0ec72fea9655fac4dbe"),
    ("7|pause|357adff8980e92df32e57b3f9fc93882d9c28c02ec5fc61c374f9efb19d19941|||7000|31920", "030003cb71c2cf0b0ae0e3f6202be1f63bfb8e2c6dd9200eaaf8126c8a2ea213"),
    ("8|held|926fdcd9872e73b140a00e57a021cf7679abd2328d50f772eff098acadca5f4f|||8000|31920", "c56d622ac5b4a578177de4b5a55ff3b8f94bf693e575580177254052c96b7bd0"),
    ("9|resume|169391fac61e762c0716bfe07ff80d516bbb79052adf200d2b17ccdd756ccaa0|||9000|33920", "1d3d3c60a76017bc73e30eab82168a35a80cd57a629c744578e8442082ae02b8"),
    ("10|extend|bbf01fd483ebb392045dc6f54953f3d0aaf37868b98c3cee152ccfe9d78c5c02|||10000|34920", "f9c8cb8419d4bdd21c4867a1a7aeb8f743d843b4be2684cc50b9f6042bbbf1b7"),
    ("11|pause|9eafd8a7497bc82a974de0dfe58522adc5fd6e013657c4999fabdbfcc014536d|||10500|34920", "e3ff42381711454e3bb483156018b26ff5ad220720a02f8f3cbe800c96022b41"),
    ("12|resume|6b916c8ba47c1a5d7ad27f22d262abba7f07a90a90d267b717c94743da2eab27|||11500|35920", "10afff00fc688e477e28bccb237a8d38ae888b37d9394056193fd025df170a5d"),
    ("13|stream|c1d928d457b84ca35dd024f933f803046d03ab45c3df92c8f6645e788a586819|||12000|35920", "af0abc48f4e5aa530cecc5b60e774dfbf32d1254e27e7f6406ce14909ce6781f"),
    ("14|close||bob|151|35920|35920", "db2e152ff4e049159a23152128f4db6697bde9f00a71332112a058e4ded33862"),
];

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_chain_is_golden() {
    let bowl = Bowl::sold();
    let events = bowl.events();
    assert_eq!(events.len(), GOLDEN.len());
    for (event, (line, hash)) in events.iter().zip(GOLDEN) {
        let cells = chain::line(event);
        let amt = match cells.amt {
            chain::Amt::Empty => String::new(),
            chain::Amt::Money(amount) => amount.to_string(),
            chain::Amt::Answered(amount, price, leader) => format!("{amount}/{price}/{leader}"),
        };
        let idem = match cells.idem {
            chain::Idem::Empty => String::new(),
            chain::Idem::Id(id) => id.into(),
            chain::Idem::Digest(digest) => hex(&digest),
        };
        let chain::Line {
            seq,
            ty,
            bidder,
            ct,
            dl,
            ..
        } = cells;
        assert_eq!(format!("{seq}|{ty}|{idem}|{bidder}|{amt}|{ct}|{dl}"), line);
        assert_eq!(hex(&event.hash), hash, "{line}");
    }
    let last = &bowl.heads.last().unwrap().shown;
    assert_eq!((last.seq, hex(&last.h).as_str()), (14, GOLDEN[13].1));
    assert_eq!(last.outcome.as_deref(), Some("sold"));
}

/// A text that someone hashed elsewhere.
fn elsewhere(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[test]
fn what_is_fixed_is_one_text() {
    let mut terms = rush_terms();
    terms.time.soft_close = Some(soft());
    (terms.guests, terms.pause_without_stream) = (true, true);
    let full = bound::Fixed {
        version: 3,
        seller: "seller",
        actor: "op",
        id: "go",
        title: "A bowl | of clay",
        description: "two\nlines",
        terms: &terms,
        seal: Some(&[255; 32]),
    };
    let (title, text, seal) = (elsewhere("A bowl | of clay"), elsewhere("two\nlines"), "ff".repeat(32));
    let (title, text) = (hex(&title), hex(&text));
    let rules = "KRW|100|0:1,1000:5|60000|500000/2000000/10000|10000/15000/2|1|1";
    let whole = format!("rushroom-open/1|3|seller|op|go|{rules}|{title}|{text}|{seal}");
    assert_eq!(full.digest(), elsewhere(&whole));
    let mut plain = terms.clone();
    plain.time = TimeRule::default();
    let bare = bound::Fixed {
        actor: "",
        id: "",
        terms: &plain,
        seal: None,
        ..full
    };
    let whole = format!("rushroom-open/1|3|seller|||KRW|100|0:1,1000:5|60000|||1|1|{title}|{text}|");
    assert_eq!(bare.digest(), elsewhere(&whole));
}

#[test]
fn a_seal_hides_the_reserve_behind_its_salt() {
    let seal = sealed(150).seal("bowl");
    assert_eq!(
        seal,
        elsewhere(&format!("rushroom-reserve/1|bowl|150|{}", "07".repeat(32)))
    );
    let others = [
        sealed(151).seal("bowl"),
        sealed(150).seal("cup"),
        Reserve {
            amount: 150,
            salt: [8; 32],
        }
        .seal("bowl"),
    ];
    assert!(others.iter().all(|other| *other != seal));
    assert_eq!(format!("{:?}", sealed(150)), "Reserve(hidden)");
}

/// Each sending of a request throws another salt: still the same command, but not the same state.
#[test]
fn the_salt_is_of_the_state_but_not_of_the_command() {
    let create = |salt| {
        let amount = 150;
        let reserve = Some(Reserve { amount, salt });
        Action::Create(Box::new(definition(Terms {
            reserve,
            ..rush_terms()
        })))
    };
    assert_eq!(body_hash(&create([1; 32])), body_hash(&create([2; 32])));
    let digest = |salt| {
        let mut world = World::new();
        assert_eq!(
            world.one(0, command("a", "seller", Some("k"), create(salt))).outcome,
            Ok(())
        );
        let again = world.one(1, command("a", "seller", Some("k"), create([9; 32])));
        assert_eq!((again.outcome, again.dup), (Ok(()), true));
        world.shard.digest()
    };
    assert_ne!(digest([1; 32]), digest([2; 32]));
}

/// The longest line that valid ids and amounts can make, against the plain way to hash it.
#[test]
fn the_longest_line_is_hashed_whole() {
    let long = "x".repeat(64);
    let line = chain::Line {
        seq: u64::MAX,
        ty: "stream",
        idem: chain::Idem::Id(&long),
        bidder: &long,
        amt: chain::Amt::Answered(u64::MAX, u64::MAX, &long),
        ct: u64::MAX,
        dl: u64::MAX,
    };
    let max = u64::MAX;
    let rest = format!("|{max}|stream|{long}|{long}|{max}/{max}/{long}|{max}|{max}");
    let first = elsewhere(&format!("0000000000000000{long}{rest}"));
    assert_eq!(chain::link(&long, None, &line), first);
    let next = elsewhere(&format!("{}{rest}", hex(&first)));
    assert_eq!(chain::link(&long, Some(&first), &line), next);
}

/// More rows than the hashing buffer holds at once.
#[test]
fn the_longest_ladder_is_hashed_whole() {
    let mut terms = rush_terms();
    terms.increments = (0..32)
        .map(|row| (money::MONEY_MAX - 32 + row, money::MONEY_MAX))
        .collect();
    let rows: Vec<String> = terms
        .increments
        .iter()
        .map(|(from, step)| format!("{from}:{step}"))
        .collect();
    let fixed = bound::Fixed {
        version: 1,
        seller: "s",
        actor: "s",
        id: "i",
        title: "t",
        description: "",
        terms: &terms,
        seal: None,
    };
    let (rows, title, text) = (rows.join(","), hex(&elsewhere("t")), hex(&elsewhere("")));
    let whole = format!("rushroom-open/1|1|s|s|i|KRW|100|{rows}|60000|500000/2000000/10000||0|0|{title}|{text}|");
    assert!(whole.len() > 1_000);
    assert_eq!(fixed.digest(), elsewhere(&whole));
}
