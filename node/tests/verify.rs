//! `rushroom verify` on what a running cluster exports: it holds at every moment, and no field of it can be altered.
//!
//! ```text
//!   three nodes --GET export--> text --(as it is, or with one thing changed)--> rushroom verify --> exit code, code word
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use client::wire::{NewAuction, Rush};
use common::{Cluster, PATIENCE, auction, people};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// Exports of one auction, as it went.
struct Exports {
    draft: String,
    live: String,
    paused: String,
    sold: String,
    /// Another one, called off.
    cancelled: String,
}

fn lot(id: &str) -> NewAuction {
    NewAuction {
        description: Some("Clay, | and a line\nmore".into()),
        reserve: Some(1_500),
        rush: Some(Rush {
            cut_ppm_max: 500_000,
            cut_per_raise_ppm: 1_000_000,
            floor_ms: 3_000,
        }),
        ..auction(id, 6_000)
    }
}

async fn exports(cluster: &Cluster) -> Exports {
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, 2).await;
    let selling = api.with_token(&seller.token);
    let bid = async |n: usize, amount, key| {
        let verdict = api.with_token(&bidders[n].token).bid("lot", amount, key).await.unwrap();
        assert!(verdict.ok, "{verdict:?}");
    };
    let export = async |id| api.export(id, false).await.unwrap();
    selling.create(&lot("lot")).await.unwrap();
    let draft = export("lot").await;
    selling.start("lot").await.unwrap();
    bid(0, 1_000, "first").await;
    bid(1, 1_500, "second").await;
    let live = export("lot").await;
    selling.pause("lot", None).await.unwrap();
    let paused = export("lot").await;
    selling.resume("lot").await.unwrap();
    selling.extend("lot", 1_000).await.unwrap();
    selling.pause("lot", Some(1_000)).await.unwrap();
    selling.create(&lot("off")).await.unwrap();
    selling.start("off").await.unwrap();
    selling.cancel("off", "cracked").await.unwrap();
    let cancelled = export("off").await;
    let until = Instant::now() + PATIENCE;
    // The node's own replica may come to the close a moment after the leader.
    let sold = loop {
        let sold = api.export("lot", true).await.unwrap();
        if sold.contains("\"ty\":\"close\"") {
            break sold;
        }
        assert!(Instant::now() < until, "it never closes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    Exports {
        draft,
        live,
        paused,
        sold,
        cancelled,
    }
}

/// What `rushroom verify` says: its last line, or the line of its refusal.
fn verify(text: &str) -> Result<String, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .arg("verify")
        .arg(file.path())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8(ran.stdout).unwrap(),
        String::from_utf8(ran.stderr).unwrap(),
    );
    if ran.status.success() {
        Ok(out.lines().last().unwrap().into())
    } else {
        assert!(!err.contains("panicked"), "{err}");
        Err(err)
    }
}

fn refused(text: &str, code: &str, what: &str) {
    match verify(text) {
        Err(why) => assert!(why.contains(code), "{what}: refused, but not by {code}: {why}"),
        Ok(said) => panic!("{what} passed: {said}"),
    }
}

/// Another value of the same kind.
fn other(value: &Value) -> Value {
    match value {
        Value::Bool(is) => json!(!is),
        Value::Number(n) => json!(n.as_u64().unwrap() + 1),
        Value::String(text) if text.len() == 64 => {
            let first = if text.starts_with('0') { "1" } else { "0" };
            json!(format!("{first}{}", &text[1..]))
        }
        Value::String(text) => json!(format!("{text}x")),
        Value::Array(_) => json!([[0, 7]]),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), other(value)))
            .collect(),
        Value::Null => json!(1),
    }
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Which check finds each field of the head.
fn head_code(field: &str) -> String {
    let code = match field {
        "id" => "event.hash",
        "seller" => "event.seller",
        "version"
        | "title"
        | "description"
        | "start_price"
        | "increments"
        | "duration_ms"
        | "rush"
        | "guests"
        | "pause_without_stream" => "event.terms",
        "currency" => "file.value",
        "reserve" => "event.reserve",
        field => return format!("head.{field}"),
    };
    code.into()
}

fn no_field_can_be_altered(sold: &str) {
    let lines: Vec<Value> = sold.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (field, value) in lines[0]["auction"].as_object().unwrap() {
        let mut altered = lines.clone();
        altered[0]["auction"][field] = other(value);
        refused(
            &text(&altered),
            &head_code(field),
            &format!("the head with another {field}"),
        );
        altered[0]["auction"].as_object_mut().unwrap().remove(field);
        refused(&text(&altered), "", &format!("the head without {field}"));
        altered[0]["auction"] = lines[0]["auction"].clone();
        altered[0]["auction"][format!("{field}2")] = value.clone();
        refused(&text(&altered), "file.unknown", &format!("the head with a {field}2"));
    }
    // The last line is the replica's word about itself.
    let events = 1..lines.len() - 1;
    // One event of each type will do: under load holds come by the dozen.
    let mut types = std::collections::BTreeSet::new();
    for at in events.clone().filter(|at| types.insert(lines[*at]["ty"].to_string())) {
        for (field, value) in lines[at].as_object().unwrap() {
            let (ty, mut altered) = (&lines[at]["ty"], lines.clone());
            altered[at][field] = other(value);
            refused(&text(&altered), "event.", &format!("a {ty} with another {field}"));
            altered[at].as_object_mut().unwrap().remove(field);
            refused(&text(&altered), "", &format!("a {ty} without {field}"));
        }
        let mut altered = lines.clone();
        altered[at]["note"] = json!(1);
        refused(&text(&altered), "file.unknown", "an event with a note");
        altered = lines.clone();
        altered.remove(at);
        refused(&text(&altered), "seq", "an event left out");
        altered = lines.clone();
        altered.insert(at, lines[at].clone());
        refused(&text(&altered), "event.seq", "an event twice");
        refused(&text(&lines[..at]), "head.seq", "an export cut off");
        if at + 1 < events.end {
            altered = lines.clone();
            altered.swap(at, at + 1);
            refused(&text(&altered), "event.seq", "two events swapped");
        }
    }
    refused(&format!("{sold}{{}}\n"), "file.", "something after the end");
    refused(&format!("{sold}\n"), "file.", "an empty line after the end");
    refused(&sold[..sold.len() - 3], "file.", "an end that is torn");
    let twice = sold.replacen("\"seq\":", "\"seq\":1,\"seq\":", 1);
    refused(&twice, "file.twice", "a field twice");
}

/// At each moment the export holds, and the last line says how far.
fn what_an_export_proves_is_said(exports: &Exports) {
    let table = [
        (&exports.draft, "nothing but the form; it is draft"),
        (&exports.live, "live at version N: nothing after it is proved"),
        (&exports.paused, "paused at version N: nothing after it is proved"),
        (
            &exports.sold,
            "the outcome fits the opened reserve of 1500; closed at version N, which is the end",
        ),
        (&exports.cancelled, "closed at version N, which is the end"),
    ];
    for (export, says) in table {
        let said = verify(export).unwrap_or_else(|why| panic!("{why}\n{export}"));
        let events = export.lines().skip(1).filter(|line| line.contains("\"ty\"")).count();
        let says = says.replace('N', &events.to_string());
        assert!(
            said.starts_with("checked: ") && said.contains(&says),
            "{said}, not {says}"
        );
    }
    for (export, open) in [
        (&exports.live, false),
        (&exports.cancelled, false),
        (&exports.sold, true),
    ] {
        let head: Value = serde_json::from_str(export.lines().next().unwrap()).unwrap();
        assert_eq!(head["auction"].get("reserve").is_some(), open, "{head}");
        assert!(head["auction"]["reserve_met"].is_boolean(), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_holds_and_nothing_of_it_can_be_altered() {
    let cluster = Cluster::start("").await;
    let exports = exports(&cluster).await;
    what_an_export_proves_is_said(&exports);
    no_field_can_be_altered(&exports.sold);
    cluster.assert_no_panic();
}
