//! `rushroom wal` on the folder of a node: alive, dead, damaged, and none at all.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use placement::{Node, NodeId};
use raft_store::{Host, Options, wal};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A node alone, with two shards, open in this process.
async fn node(dir: &Path) -> Host {
    let founder = Node {
        id: NodeId(1),
        zone: "z".into(),
        region: "here".into(),
        weight: 1,
        grpc: "127.0.0.1:1".into(),
        http: String::new(),
        trunk: String::new(),
    };
    let options = Options {
        node: NodeId(1),
        dir: dir.to_owned(),
        shards: 2,
        founders: vec![founder],
        wal: wal::Options {
            segment_bytes: 1024 * 1024,
            preallocate: false,
            ..wal::Options::default()
        },
        ..Options::default()
    };
    let host = Host::open(options).await.unwrap();
    let mut map = host.map();
    map.wait_for(|map| map.epoch > 0).await.unwrap();
    while !host.ready() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    host
}

fn rushroom(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args(["wal"])
        .args(args)
        .arg(dir)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn check(args: &[&str], dir: &Path, code: i32, said: &[&str]) -> String {
    let out = rushroom(args, dir);
    let told = text(&out.stdout) + &text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {told}");
    for said in said {
        assert!(told.contains(said), "{args:?} doesn't say {said:?}: {told}");
    }
    told
}

fn segment(dir: &Path) -> PathBuf {
    dir.join("wal").join("wal-0000000000000001.seg")
}

/// The end in pieces: for no shard is that 'sound'.
fn torn_is_told(dir: &Path, whole: &[u8]) {
    let mut torn = whole.to_vec();
    let end = torn.iter().rposition(|byte| *byte != 0).unwrap();
    torn[end] ^= 1;
    std::fs::write(segment(dir), &torn).unwrap();
    check(&["verify"], dir, 3, &["torn: the last batch is in pieces"]);
    for shard in ["0", "1", "2"] {
        let told = check(&["verify", "--group", shard], dir, 3, &["whose it is can't be told"]);
        assert!(!told.contains("sound"), "{told}");
    }
}

/// One flipped bit in an entry of shard 1: it is hurt, nobody else is. Then a header that can't be read.
fn damage_is_told(dir: &Path, mut damaged: Vec<u8>, lines: &[Value]) {
    let entry = lines.iter().find(|line| line["kind"] == "entry").unwrap();
    damaged[entry["at"].as_u64().unwrap() as usize + 40] ^= 1;
    std::fs::write(segment(dir), &damaged).unwrap();
    check(&["verify"], dir, 1, &["can't be read", "shard 1 is hurt"]);
    check(
        &["verify", "--group", "1"],
        dir,
        1,
        &["damaged: what is lost is of shard 1"],
    );
    let other = [
        "can't be read",
        "sound: shard 2 lost nothing, as a tally behind the damage proves",
    ];
    check(&["verify", "--group", "2"], dir, 0, &other);
    check(&["dump"], dir, 1, &["lost"]);
    check(&["dump", "--group", "1"], dir, 1, &["lost"]);
    // Nothing is left of a shard that may have been there: it isn't sound, it isn't 'no such shard'.
    check(&["verify", "--group", "77"], dir, 1, &["damaged"]);
    let json: Value = serde_json::from_str(&check(&["verify", "--json"], dir, 1, &[])).unwrap();
    let hurt = json["shards"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|shard| !shard["hurt"].is_null());
    assert_eq!(
        hurt.map(|shard| shard["shard"].as_u64().unwrap()).collect::<Vec<_>>(),
        vec![1]
    );

    // A header that can't be read: a node would not start.
    damaged[20] ^= 1;
    std::fs::write(segment(dir), &damaged).unwrap();
    check(&["verify"], dir, 1, &["a node would refuse to start", "damaged header"]);
    check(
        &["verify", "--group", "2"],
        dir,
        1,
        &["damaged: what is lost is of shard 2, or may be"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_shown_alive_dead_and_damaged() {
    let home = tempfile::tempdir().unwrap();
    let dir = &home.path().join("raft");
    let host = node(dir).await;
    let me = format!("process {} has it open", std::process::id());
    check(&["ls"], dir, 0, &[&me, "SEGMENT", "SHARD", "replica 1"]);
    check(&["verify"], dir, 0, &["sound: 3 shards"]);
    host.shutdown().await;
    drop(host);

    // Dead, by its own folder or the node's; nothing was changed by looking.
    let before = std::fs::read(segment(dir)).unwrap();
    check(&["ls"], dir, 0, &["no node has it open"]);
    check(&["verify"], home.path(), 0, &["sound"]);
    check(&["verify"], &dir.join("wal"), 0, &["sound"]);
    let json: Value = serde_json::from_str(&check(&["ls", "--json"], dir, 0, &[])).unwrap();
    assert_eq!(
        (&json["sound"], &json["node"]["live"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
    assert_eq!(json["shards"].as_array().unwrap().len(), 3);
    let dump = check(&["dump", "--group", "1"], dir, 0, &["entry", "vote", "born"]);
    assert!(!dump.contains("tally"), "only of shard 1: {dump}");
    let lines = check(&["dump", "--group", "1", "--json"], dir, 0, &[]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["shard"] == 1), "{lines:?}");
    assert_eq!(std::fs::read(segment(dir)).unwrap(), before, "looking changed the log");
    check(&["verify", "--group", "2"], dir, 0, &["sound: shard 2, nothing"]);
    for asked in ["ls", "dump", "verify"] {
        check(&[asked, "--group", "77"], dir, 2, &["wal_no_shard: ", "shard 77"]);
    }

    torn_is_told(dir, &before);
    damage_is_told(dir, before, &lines);
}

#[test]
fn what_is_no_log_is_said_by_a_code() {
    let empty = tempfile::tempdir().unwrap();
    for args in [["ls"], ["dump"], ["verify"]] {
        check(&args, empty.path(), 2, &["wal_missing: ", "holds no log"]);
        check(&args, &empty.path().join("nowhere"), 2, &["wal_missing: "]);
    }
    assert_eq!(rushroom(&["frob"], empty.path()).status.code(), Some(2));
}
