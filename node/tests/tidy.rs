//! The rules of the house, as tests: who may depend on whom, how a file opens, what a core may not call.
//!
//! Each rule lists every offender at once, as `path:line: what`, so that one run shows all there is to mend.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest file: beyond it a reader has no overview.
const LINES_MAX: usize = 700;
/// Longest function, from its `fn` to its closing brace. (Clippy has such a lint, but not for tests.)
const FN_LINES_MAX: usize = 70;
/// What else people write by hand here and read: the same bound on files holds.
const OTHER_SOURCES: &[&str] = &["ts", "tsx", "js", "mjs", "py", "sh", "css", "proto"];
/// Scripts without an ending; `#!` in the first line makes them sources.
const SCRIPTS: &str = ".ci";

/// The pure cores: values in, values out.
const CORES: &[&str] = &["raft-store/auction/src", "raft-store/placement/src", "sfu/forward/src"];
/// Those of them that compute on every replica, or on every packet.
const NO_FLOATS: &[&str] = &["raft-store/auction/src", "sfu/forward/src"];

/// crate -> the crates of ours that it may use (docs/architecture.md draws it). Tests may use `client` and `emulator` too.
const ARROWS: &[(&str, &[&str])] = &[
    ("auction", &[]),
    ("placement", &[]),
    ("forward", &[]),
    ("proto", &[]),
    ("client", &[]),
    ("emulator", &[]),
    ("raft-store", &["auction", "placement", "proto"]),
    ("sfu", &["forward", "placement", "proto"]),
    ("router", &["auction", "placement", "proto"]),
    ("chaos", &["auction", "placement", "proto", "client"]),
    (
        "node",
        &["auction", "placement", "proto", "raft-store", "router", "sfu", "client"],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A source file: its path from the root, its text, and its code (neither comments nor unit tests, lines kept).
struct Source {
    path: String,
    text: String,
    code: Vec<String>,
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    walk(&root(), &["rs"], &mut files);
    files.sort();
    assert!(
        files.len() > 50,
        "the walk found only {} files: is the root right?",
        files.len()
    );
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap().display().to_string();
        let code = code(&path, &text);
        Source { path, text, code }
    };
    files.into_iter().map(read).collect()
}

fn walk(dir: &Path, endings: &[&str], out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !matches!(name.as_str(), "target" | "node_modules" | "out" | "dist") {
                walk(&path, endings, out);
            }
        } else if path
            .extension()
            .is_some_and(|e| endings.iter().any(|ending| e == *ending))
        {
            out.push(path);
        }
    }
}

fn code(path: &str, text: &str) -> Vec<String> {
    let whole_is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    let mut in_tests = whole_is_test;
    let lines = text.lines().map(|line| {
        in_tests |= line.trim_start().starts_with("#[cfg(test)]") && !text.contains("#[cfg(test)]\nuse ");
        if in_tests { String::new() } else { uncommented(line) }
    });
    lines.collect()
}

/// The line without a `//` comment and without what stands in string literals.
fn uncommented(line: &str) -> String {
    let (mut out, mut quoted, mut chars) = (String::new(), false, line.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => {
                chars.next();
            }
            // A quote char literal isn't the start of a string.
            '\'' if !quoted && chars.peek() == Some(&'"') => {
                chars.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            c if !quoted => out.push(c),
            _ => {}
        }
    }
    out
}

fn offenders(rule: &str, of: impl Fn(&Source) -> Vec<(usize, String)>) {
    let mut found = Vec::new();
    for source in sources() {
        found.extend(
            of(&source)
                .into_iter()
                .map(|(line, what)| format!("{}:{line}: {what}", source.path)),
        );
    }
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// Lines of code that hold one of `words`, each as a whole word.
fn lines_with(source: &Source, words: &[&str]) -> Vec<(usize, String)> {
    let hit = |line: &str| words.iter().find(|w| has_word(line, w)).copied();
    let lines = source.code.iter().enumerate();
    lines
        .filter_map(|(i, line)| hit(line).map(|w| (i + 1, format!("`{w}`"))))
        .collect()
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part);
        !(before || after && word.ends_with(part))
    })
}

fn inside(source: &Source, folders: &[&str]) -> bool {
    folders.iter().any(|f| source.path.starts_with(f))
}

#[test]
fn arrows_between_crates() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".into()])
        .exec()
        .unwrap();
    let ours: BTreeSet<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    assert_eq!(
        ours,
        allowed.keys().map(ToString::to_string).collect(),
        "a crate is not in the table of arrows"
    );
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        for dependency in package.dependencies.iter().filter(|d| ours.contains(&d.name)) {
            let test_only = dependency.kind == cargo_metadata::DependencyKind::Development
                && ["client", "emulator"].contains(&&*dependency.name);
            // The simulation runs the shards' code itself; no build but its own may.
            let sim_only = dependency.optional && (package.name.as_str(), &*dependency.name) == ("chaos", "raft-store");
            if !test_only && !sim_only && !allowed[package.name.as_str()].contains(&dependency.name.as_str()) {
                wrong.push(format!("{} -> {}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden arrows: {}", wrong.join(", "));
}

#[test]
fn a_file_opens_with_its_story() {
    offenders("a file opens with a `//!` that tells what it is and why", |s| {
        let opens = s.text.starts_with("//!") && s.text.lines().next().is_some_and(|l| l.len() > 12);
        if opens && !s.text.starts_with("//! placeholder") {
            vec![]
        } else {
            vec![(1, "no story".into())]
        }
    });
}

#[test]
fn a_file_fits_in_a_reader_s_head() {
    let mut files = scripts();
    walk(&root(), OTHER_SOURCES, &mut files);
    assert!(
        files.len() > 20,
        "the walk found only {} files beside Rust's",
        files.len()
    );
    walk(&root(), &["rs"], &mut files);
    let mut long = Vec::new();
    for path in files {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        if lines > LINES_MAX {
            long.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(
        long.is_empty(),
        "a file has at most {LINES_MAX} lines:\n{}",
        long.join("\n")
    );
}

/// The scripts of the CI, which have no ending.
fn scripts() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(SCRIPTS)];
    while let Some(dir) = folders.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).unwrap().starts_with(b"#!") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_function_fits_on_a_screen() {
    offenders("a function has at most 70 lines", |s| {
        functions(&s.text)
            .into_iter()
            .filter(|(_, _, lines)| *lines > FN_LINES_MAX)
            .map(|(at, name, lines)| (at, format!("`{name}` has {lines} lines")))
            .collect()
    });
}

/// Every function with a body: the line of its `fn`, its name, its lines. As rustfmt lays it out: the body ends with the
/// first brace that stands where the `fn` line begins.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let bare = line.trim_start();
        let indent = &line[..line.len() - bare.len()];
        let Some(name) = fn_name(bare) else { continue };
        for (n, end) in lines[at..].iter().enumerate() {
            let inner = end.strip_prefix(indent).unwrap_or_default();
            let no_body = inner.ends_with(';') && !inner.starts_with(' ');
            if no_body || n == 0 && inner.ends_with('}') {
                break;
            }
            if inner == "}" {
                found.push((at + 1, name.to_string(), n + 1));
                break;
            }
        }
    }
    found
}

/// The name, if the line opens a function.
fn fn_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let opening = |word: &str| {
        matches!(word, "const" | "async" | "unsafe" | "extern" | "\"C\"" | "default") || word.starts_with("pub")
    };
    let opens = before
        .split_whitespace()
        .all(|word| opening(word) || matches!(word, "super)" | "crate)"));
    let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next();
    name.filter(|name| opens && !name.is_empty())
}

#[test]
fn the_scanner_sees_functions_from_end_to_end() {
    let text = "fn one() {\n    1\n}\n\nimpl X {\n    pub(crate) async fn two(\n        a: u8,\n    ) -> u8 {\n        if a {\n        }\n    }\n    \
                fn none(&self);\n    fn short() {}\n    pub const fn three() {\n    }\n}\n// a fn in a comment\nlet f: fn() = one;\n";
    let seen = functions(text);
    let expect = [
        (1, "one".to_string(), 3),
        (6, "two".to_string(), 6),
        (14, "three".to_string(), 2),
    ];
    assert_eq!(seen, expect);
}

#[test]
fn cores_ask_nobody_for_the_time_or_for_luck() {
    offenders(
        "a core gets time and chance as arguments, and never walks a hash order",
        |s| {
            let banned = [
                "Instant::now",
                "SystemTime",
                "HashMap",
                "HashSet",
                "rand",
                "std::fs",
                "std::net",
                "std::thread",
                "tokio",
            ];
            if inside(s, CORES) {
                lines_with(s, &banned)
            } else {
                vec![]
            }
        },
    );
}

#[test]
fn cores_compute_in_integers() {
    offenders("auction and forward have no floats", |s| {
        if inside(s, NO_FLOATS) {
            lines_with(s, &["f32", "f64"])
        } else {
            vec![]
        }
    });
}

#[test]
fn proposals_carry_their_term() {
    offenders(
        "openraft's client_write is unguarded: propose with `write().with_leader`",
        |s| lines_with(s, &["client_write", "client_write_many", "client_write_ff"]),
    );
}

#[test]
fn metrics_are_declared_in_one_file_per_crate() {
    offenders("metrics live in metrics.rs", |s| {
        let words = [
            "counter!",
            "gauge!",
            "histogram!",
            "describe_counter!",
            "describe_gauge!",
            "describe_histogram!",
        ];
        if s.path.ends_with("/metrics.rs") {
            vec![]
        } else {
            lines_with(s, &words)
        }
    });
}

#[test]
fn nothing_is_left_for_later() {
    offenders("no stubs, no skipped tests", |s| {
        let mut found = lines_with(s, &["todo!", "unimplemented!"]);
        let skipped = s
            .text
            .lines()
            .enumerate()
            .filter(|(_, l)| l.trim_start().starts_with("#[ignore"));
        found.extend(skipped.map(|(i, _)| (i + 1, "a skipped test".to_string())));
        found
    });
}

#[test]
fn a_proto_s_package_is_its_folder() {
    let mut wrong = Vec::new();
    let mut folders = vec![root().join("proto/rushroom")];
    while let Some(dir) = folders.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let folder = dir
                .strip_prefix(root().join("proto"))
                .unwrap()
                .display()
                .to_string()
                .replace('/', ".");
            if !std::fs::read_to_string(&path)
                .unwrap()
                .contains(&format!("\npackage {folder};"))
            {
                wrong.push(path.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "package = folder: {}", wrong.join(", "));
}

#[test]
fn the_scanner_sees_code_and_nothing_else() {
    let table = [
        ("let x = 1; // HashMap", "let x = 1; "),
        (r#"say("HashMap // no");"#, "say();"),
        ("'\"'; HashMap", "'; HashMap"),
    ];
    for (line, expect) in table {
        assert_eq!(uncommented(line), expect, "{line}");
    }
    assert!(has_word("use rand::Rng", "rand") && !has_word("operand", "rand") && !has_word("randy", "rand"));
    assert!(has_word("metrics::counter!(X)", "counter!") && !has_word("encounter!(X)", "counter!"));
}

/// `raft-store/src/clock.rs` claims, sentence by sentence, that code and tests make it so: both must be there.
#[test]
fn each_claim_about_the_clock_has_code_and_a_test() {
    let root = root().join("raft-store");
    let story = std::fs::read_to_string(root.join("src/clock.rs")).unwrap();
    let mut tests = Vec::new();
    for folder in ["src", "tests", "auction/src", "auction/tests"] {
        walk(&root.join(folder), &["rs"], &mut tests);
    }
    let tests: Vec<String> = tests.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    // An attribute above it makes a function a test; a doc comment may stand between.
    let is_test = |name: &str| {
        tests.iter().any(|text| {
            text.find(&format!("fn {name}(")).is_some_and(|at| {
                let above = text[..at].rsplit("\n\n").next().unwrap_or_default();
                ["#[test]", "#[tokio::test"].iter().any(|mark| above.contains(mark))
            })
        })
    };
    let quoted = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let rows: Vec<Vec<&str>> = story
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .map(|line| line.trim_end_matches(" |").split(" | ").collect())
        .skip(1)
        .collect();
    assert!(rows.len() > 20, "{} rows: is the table gone?", rows.len());
    let mut missing = Vec::new();
    for row in rows {
        let [claim, code, named] = row[..] else {
            panic!("no row of three: {row:?}")
        };
        for path in quoted(code) {
            if !root.join(&path).exists() && !root.join("src").join(&path).exists() {
                missing.push(format!("{claim}: no file {path}"));
            }
        }
        let named = quoted(named);
        if named.is_empty() {
            missing.push(format!("{claim}: no test is named"));
        }
        missing.extend(
            named
                .iter()
                .filter(|name| !is_test(name))
                .map(|name| format!("{claim}: no test {name}")),
        );
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
