//! The model as a process beside this one: its clusters' logs, and logs that proptest makes, through both.
//!
//! ```text
//!   proptest: auctions, entries ---lines---> python3 model/oracle.py apply --- verdicts, events ---.
//!                  |                                                                               v
//!                  '------------------------> Shard::apply --- verdicts, events ----------------> the same
//! ```
//!
//! Generated logs hold what no cluster of the model's makes: stamps out of their bounds, ids of other bodies at any time,
//! entries out of number, watermarks that lag for long. A failure is shrunk, and printed as the story that shows it.
//!
//! That a difference would be seen is shown from the other side: the model is run with each of its own planted mistakes.
use super::tell;
use proptest::{prelude::*, sample::select, test_runner::TestRunner};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

fn python(args: &[&str]) -> Command {
    let mut python = Command::new("python3");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/oracle.py");
    python.arg("-B").arg(script).args(args);
    python
}

/// The model, asked again and again.
struct Model {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Model {
    fn start(plant: Option<&str>) -> Model {
        let args: Vec<&str> = ["apply"].into_iter().chain(plant).collect();
        let mut child = python(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the clock's model needs python3 on the path");
        let (asks, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Model {
            child,
            asks,
            answers: BufReader::new(answers),
        }
    }

    /// The story with the model's answers.
    fn whole(&mut self, story: &str) -> String {
        self.asks.write_all(story.as_bytes()).unwrap();
        self.asks.flush().unwrap();
        let mut whole = String::new();
        loop {
            let mut line = String::new();
            assert!(
                self.answers.read_line(&mut line).unwrap() > 0,
                "the model died on\n{story}"
            );
            whole += &line;
            if line.starts_with("end ") {
                return whole;
            }
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn auction() -> impl Strategy<Value = String> {
    let money = (1u64..40, select(vec![0u64, 60]));
    let mode = select(vec!["rush", "soft", "both", "fixed"]);
    let cut = (
        select(vec![300_000u64, 2_000_000, 8_000_000]),
        select(vec![100u64, 300]),
    );
    let soft = (select(vec![80u64, 200]), select(vec![0u64, 100]), 1u64..6);
    (400u64..2_600, money, mode, cut, soft).prop_map(|(duration, money, mode, cut, soft)| {
        let reset = soft.0 + soft.1;
        format!(
            "{duration} {} {} {mode} {} {} {} {reset} {}",
            money.0, money.1, cut.0, cut.1, soft.0, soft.2
        )
    })
}

/// A command: how long before `at` it arrived (negative: after), which auction, what, by whom, under which id.
#[derive(Clone, Debug)]
struct Said {
    ago: i64,
    auction: usize,
    what: String,
    bidder: u64,
    id: u64,
}

fn said() -> impl Strategy<Value = Said> {
    let what = prop_oneof![
        3 => Just("start:1".to_owned()),
        1 => Just("start:2".to_owned()),
        9 => (1u64..140).prop_map(|amount| format!("bid:{amount}")),
        4 => (1u64..160).prop_map(|maximum| format!("max:{maximum}")),
        1 => (1_000u64..1_500).prop_map(|ms| format!("pause:{ms}")),
        1 => Just("resume:0".to_owned()),
        1 => (1u64..300).prop_map(|ms| format!("extend:{ms}")),
        1 => Just("cancel:0".to_owned()),
    ];
    (-4i64..60, 0usize..4, what, 1u64..5, 1u64..40).prop_map(|(ago, auction, what, bidder, id)| {
        let own = what.starts_with("start");
        Said {
            ago,
            auction,
            what,
            bidder: if own { 0 } else { bidder },
            id: if own { 0 } else { id },
        }
    })
}

/// What becomes of an entry's name.
#[derive(Clone, Copy, Debug)]
enum Name {
    Follows,
    /// Numbered as if one were missing.
    Skips,
    /// Of the office before.
    Old,
    /// A marker of the next office goes before it.
    Next,
}

#[derive(Clone, Debug)]
struct Step {
    dt: u64,
    name: Name,
    said: Vec<Said>,
    behind: Vec<(usize, u64)>,
    hold: Option<(u64, u64)>,
}

fn step() -> impl Strategy<Value = Step> {
    let name =
        prop_oneof![20 => Just(Name::Follows), 1 => Just(Name::Skips), 1 => Just(Name::Old), 1 => Just(Name::Next)];
    (
        select(vec![0u64, 1, 3, 20, 150, 900]),
        name,
        proptest::collection::vec(said(), 0..5),
        proptest::collection::vec((0usize..4, 0u64..300), 0..3),
        proptest::option::weighted(0.2, (0u64..900, 1u64..300)),
    )
        .prop_map(|(dt, name, said, behind, hold)| Step {
            dt,
            name,
            said,
            behind,
            hold,
        })
}

fn story(auctions: &[String], steps: &[Step]) -> String {
    let mut out = String::new();
    for (k, auction) in auctions.iter().enumerate() {
        out += &format!("auction {k} {auction}\n");
    }
    out += "entry 1 0 0 0|||\n";
    let (mut turn, mut n, mut at) = (0, 0, 0);
    for step in steps {
        let last = at;
        at += step.dt;
        if matches!(step.name, Name::Next) {
            (turn, n) = (turn + 1, 0);
            out += &format!("entry 1 {turn} 0 {last}|||\n");
        }
        let named = match step.name {
            Name::Skips => format!("1 {turn} {}", n + 2),
            Name::Old => format!("0 {turn} {}", n + 1),
            Name::Follows | Name::Next => {
                n += 1;
                format!("1 {turn} {n}")
            }
        };
        let of = |k: usize| k % auctions.len();
        let mut behind: Vec<_> = step
            .behind
            .iter()
            .map(|(k, ago)| (of(*k), at.saturating_sub(*ago)))
            .collect();
        behind.sort_unstable();
        behind.dedup_by_key(|b| b.0);
        let behind: Vec<_> = behind.iter().map(|(k, stamp)| format!("{k}:{stamp}")).collect();
        let hold = step.hold.filter(|_| step.dt > 0);
        let hold = hold.map_or(String::new(), |(into, lost)| {
            format!("{}:{lost}", last + into % step.dt)
        });
        let said = step.said.iter().map(|s| {
            let arrived = at.saturating_add_signed(-s.ago);
            format!("{arrived}:{}:{}:{}:{}", of(s.auction), s.what, s.bidder, s.id)
        });
        let said = said.collect::<Vec<_>>();
        out += &format!("entry {named} {at}|{}|{hold}|{}\n", behind.join(","), said.join(","));
    }
    out + "end\n"
}

fn stories() -> impl Strategy<Value = String> {
    let auctions = proptest::collection::vec(auction(), 1..5);
    let steps = proptest::collection::vec(step(), 1..60);
    (auctions, steps).prop_map(|(auctions, steps)| story(&auctions, &steps))
}

/// Stories through the model (with a mistake planted in it, or none) and through our code; the first difference, shrunk.
fn first_difference(plant: Option<&str>, cases: u32) -> Option<String> {
    let model = std::cell::RefCell::new(Model::start(plant));
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    };
    let mut runner = match std::env::var("RUSHROOM_SEED") {
        // By default the same stories each time; a seed says which others.
        Ok(seed) => TestRunner::new_with_rng(config, rng(seed.parse().expect("RUSHROOM_SEED is a number"))),
        Err(_) => TestRunner::new_with_rng(config, rng(0)),
    };
    let result = runner.run(&stories(), |story| {
        let whole = model.borrow_mut().whole(&story);
        tell(&whole).map(drop).map_err(TestCaseError::fail)
    });
    result.err().map(|error| error.to_string())
}

fn rng(seed: u64) -> proptest::test_runner::TestRng {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes)
}

fn from_env(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// `RUSHROOM_SEEDS=n` makes more of them, `RUSHROOM_SEED=n` others.
#[test]
fn generated_logs_come_out_the_same() {
    let difference = first_difference(None, from_env("RUSHROOM_SEEDS", 400));
    assert_eq!(difference, None, "(RUSHROOM_SEED chooses the stories)");
}

/// Whole clusters of the model's, other ones than those that are kept.
#[test]
fn the_models_own_clusters_come_out_the_same() {
    let first = from_env("RUSHROOM_SEED", 20_000);
    let seeds = from_env("RUSHROOM_SEEDS", 24);
    let mut sum = [0; 4];
    for seed in first..first + seeds {
        let kind = ["faults", "faults", "calm", "hot"][seed as usize % 4];
        let run = python(&["run", &seed.to_string(), kind]).output().expect("python3");
        let story = String::from_utf8(run.stdout).unwrap();
        let complaint = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "RUSHROOM_SEED={seed}: {complaint}");
        let one = tell(&story).unwrap_or_else(|difference| panic!("RUSHROOM_SEED={seed}: {difference}"));
        sum = [0, 1, 2, 3].map(|i| sum[i] + one[i]);
    }
    // One cluster may lose its quorum at once and do little; all of them together may not.
    assert!(
        sum[0] > 20 * seeds as usize && sum[3] > 5 * seeds as usize,
        "seeds {first} and {seeds} on: clusters that did nothing: {sum:?}"
    );
}

/// The comparison can fail: each of the model's own mistakes in `apply`, in the model, is a difference.
#[test]
fn each_mistake_planted_in_the_model_is_a_difference() {
    for plant in [
        "no_void",
        "close_at_now",
        "now_for_all",
        "refusals_evict",
        "refusals_per_bidder",
    ] {
        let difference = first_difference(Some(plant), 400);
        assert!(difference.is_some(), "{plant} went unseen in 400 stories");
    }
}
