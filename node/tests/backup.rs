//! Backups of a living cluster into a real S3 server, by the command line: taken under bids, listed, verified, and found out
//! when somebody changed an object.
//!
//! `RUSHROOM_TEST_S3_*` name a running `.ci/services/s3`; without them the test starts one in a folder of its own (which
//! needs what `.ci/services/s3 install` builds).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Cluster, SHARDS, Stamped, auction, people, stamped, went_on};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An S3 server, and how it is spoken to.
struct S3 {
    exports: BTreeMap<String, String>,
    /// The folder of one that is ours.
    own: Option<PathBuf>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/services/s3")
}

impl S3 {
    fn get(dir: &Path) -> S3 {
        let names = ["ENDPOINT", "BUCKET", "REGION", "KEY", "SECRET"];
        let given: BTreeMap<String, String> = names
            .iter()
            .filter_map(|name| {
                Some((
                    (*name).to_owned(),
                    std::env::var(format!("RUSHROOM_TEST_S3_{name}")).ok()?,
                ))
            })
            .collect();
        if given.len() == names.len() {
            return S3 {
                exports: given,
                own: None,
            };
        }
        let started = Command::new(script()).arg("start").arg(dir).output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let text = String::from_utf8(started.stdout).unwrap();
        let line = |line: &str| {
            let (name, value) = line.strip_prefix("export RUSHROOM_TEST_S3_")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
        };
        S3 {
            exports: text.lines().filter_map(line).collect(),
            own: Some(dir.to_owned()),
        }
    }

    fn environment(&self) -> Vec<(&'static str, &str)> {
        vec![
            ("AWS_ENDPOINT", self.exports["ENDPOINT"].as_str()),
            ("AWS_REGION", &self.exports["REGION"]),
            ("AWS_ACCESS_KEY_ID", &self.exports["KEY"]),
            ("AWS_SECRET_ACCESS_KEY", &self.exports["SECRET"]),
            ("AWS_ALLOW_HTTP", "true"),
        ]
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(dir) = &self.own {
            let _ = Command::new(script()).arg("stop").arg(dir).output();
        }
    }
}

/// `rushroom admin backup …`: exit code, and all that it said.
fn backup(s3: &S3, node: &str, args: &[&str]) -> (i32, String) {
    admin(s3, node, &[&["backup"], args].concat())
}

/// `rushroom admin …`: likewise.
fn admin(s3: &S3, node: &str, args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args(["admin", "--node", node])
        .args(args)
        .envs(s3.environment())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Puts other bytes where an object is, as somebody with the keys could.
async fn forge(s3: &S3, object: &str, change: impl FnOnce(&mut Vec<u8>)) {
    use object_store::{ObjectStoreExt as _, aws::AmazonS3Builder, path::Path};
    let store = AmazonS3Builder::new()
        .with_endpoint(&s3.exports["ENDPOINT"])
        .with_region(&s3.exports["REGION"])
        .with_access_key_id(&s3.exports["KEY"])
        .with_secret_access_key(&s3.exports["SECRET"])
        .with_bucket_name(&s3.exports["BUCKET"])
        .with_allow_http(true)
        .build()
        .unwrap();
    let path = Path::from(object);
    let mut bytes = store.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    change(&mut bytes);
    store.put(&path, bytes.into()).await.unwrap();
}

/// An auction with one bid, acknowledged; its shard, and the bid.
async fn one_bid(cluster: &Cluster) -> (u32, Stamped) {
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, 1).await;
    let selling = api.with_token(&seller.token);
    selling.create(&auction("kept", 600_000)).await.unwrap();
    let shard = selling.start("kept").await.unwrap().shard;
    let bid = stamped(&api.with_token(&bidders[0].token), "kept", 1_000, "b1").await;
    (shard, bid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_cluster_is_kept_and_what_is_kept_is_proven() {
    let home = tempfile::tempdir().unwrap();
    let s3 = S3::get(home.path());
    let mut cluster = Cluster::start("").await;
    one_bid(&cluster).await;
    let place = format!("run-{:016x}", rand::random::<u64>());
    let url = format!("s3://{}/{place}", s3.exports["BUCKET"]);
    let node = cluster.nodes[0].grpc.clone();
    let (code, said) = backup(&s3, &node, &["--to", &url, "--all"]);
    assert_eq!(code, 0, "{said}");
    // What was taken holds maxima and reserves: that somebody did is in the audit, by each node once at most.
    let audit = status(&s3, &node)["audit"].clone();
    let copies = audit
        .as_array()
        .unwrap()
        .iter()
        .filter(|said| said["what"] == "shards are copied into a backup");
    assert!((1..=3).contains(&copies.count()), "{audit}");
    // Everything was acknowledged before the nodes went: it is in the backup.
    cluster.kill(&[0, 1, 2]);
    let (code, listed) = backup(&s3, &node, &["list", &url]);
    assert_eq!((code, listed.lines().count()), (0, SHARDS as usize + 2), "{listed}");
    let (code, said) = backup(&s3, &node, &["verify", &url]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("{0} of {0} sound; 0 were not finished", SHARDS + 1)),
        "{said}"
    );
    let kept = said
        .lines()
        .filter(|line| line.contains(" 1 auctions, 2 events recomputed"))
        .count();
    assert_eq!(kept, 1, "an open and a bid, in one shard: {said}");

    let name = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
    let of_shard = |shard: &str| name(listed.lines().find(|line| line.contains(shard)).unwrap());
    let (cut, flipped, sealed) = (
        of_shard("shard-0001/"),
        of_shard("shard-0002/"),
        of_shard("shard-0003/"),
    );
    forge(&s3, &format!("{place}/{cut}/part-00000"), |bytes| {
        bytes.truncate(bytes.len() - 1);
    })
    .await;
    forge(&s3, &format!("{place}/{flipped}/part-00000"), |bytes| bytes[0] ^= 1).await;
    let (code, said) = backup(&s3, &node, &["verify", &url]);
    assert_eq!(code, 1, "{said}");
    for (name, why) in [(&cut, "bytes"), (&flipped, "fails its checksum")] {
        let line = said.lines().find(|line| line.contains(name.as_str())).unwrap();
        assert!(line.starts_with("DAMAGED") && line.contains(why), "{line}");
    }
    assert!(
        said.contains(&format!("{} of {} sound", SHARDS - 1, SHARDS + 1)),
        "{said}"
    );
    forge(&s3, &format!("{place}/{sealed}/manifest.json"), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace("\"shards\": 8", "\"shards\": 9").into_bytes();
    })
    .await;
    let (code, said) = backup(&s3, &node, &["list", &url]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("[backup_damaged]") && said.contains("fails its seal"),
        "{said}"
    );
    cluster.assert_no_panic();
}

/// A bid of somebody who has never bid before.
async fn bid(cluster: &Cluster, amount: u64, id: &str) -> Stamped {
    let api = cluster.api(0);
    let (_, bidders) = people(&api, 1).await;
    stamped(&api.with_token(&bidders[0].token), "kept", amount, id).await
}

fn status(s3: &S3, node: &str) -> serde_json::Value {
    let (code, said) = admin(s3, node, &["--json", "status"]);
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(&said).unwrap()
}

/// Waits until the shard has all its replicas, and looks for the audit entry.
async fn three_again(s3: &S3, node: &str, shard: u32) {
    let until = std::time::Instant::now() + common::PATIENCE;
    loop {
        let now = status(s3, node);
        let shards = now["shards"].as_array().unwrap();
        let ours = shards.iter().find(|one| one["id"] == shard).unwrap();
        if ours["replicas"].as_array().unwrap().len() == 3 && ours["goal"].is_null() {
            let audit = now["audit"].to_string();
            assert!(audit.contains(&format!("shard {shard}: closed")), "{audit}");
            break;
        }
        assert!(std::time::Instant::now() < until, "no three replicas: {ours}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn the_cut_is_told(export: &str, home: &Path) {
    for (id, there) in [
        ("b1", true),
        ("late", false),
        ("later", false),
        ("after", true),
        ("again", true),
    ] {
        assert_eq!(export.contains(&format!("\"id\":\"{id}\"")), there, "{id}: {export}");
    }
    let file = home.join("kept.jsonl");
    std::fs::write(&file, export).unwrap();
    let verified = Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .arg("verify")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stdout);
    let cut = "before the history was cut there";
    assert!(verified.status.success() && said.contains(cut), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lost_everywhere_is_restored_and_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let s3 = S3::get(home.path());
    let mut cluster = Cluster::start("").await;
    let (shard, before) = one_bid(&cluster).await;
    let id = shard.to_string();
    let place = format!("run-{:016x}", rand::random::<u64>());
    let url = format!("s3://{}/{place}", s3.exports["BUCKET"]);
    let node = cluster.nodes[0].grpc.clone();
    let (code, said) = backup(&s3, &node, &["--to", &url, "--all"]);
    assert_eq!(code, 0, "{said}");
    bid(&cluster, 1_100, "late").await;
    // A restore of what is there takes a reason.
    let restore = |shard: &str, more: &[&str]| {
        let words = ["restore", "--from", url.as_str(), "--shard", shard];
        admin(&s3, &node, &[&words, more].concat())
    };
    let (code, said) = restore(&id, &[]);
    assert!(code == 1 && said.contains("[gives_up]"), "{said}");
    bid(&cluster, 1_200, "later").await;

    // Every disk is gone; a new cluster stands where the old one was.
    cluster.kill(&[0, 1, 2]);
    for node in &cluster.nodes {
        std::fs::remove_dir_all(node.home.join("data")).unwrap();
    }
    cluster.start_all().await;
    // What was changed in the store is refused before anything is closed.
    let (other, meta) = ((shard % SHARDS + 1).to_string(), "0");
    let (_, listed) = backup(&s3, &node, &["list", &url]);
    let line = listed
        .lines()
        .find(|line| line.contains(&format!("shard-{:0>4}/", other)))
        .unwrap();
    let name = line.rsplit(' ').next().unwrap();
    forge(&s3, &format!("{place}/{name}/part-00000"), |bytes| {
        bytes.truncate(bytes.len() / 2);
    })
    .await;
    let (code, said) = restore(&other, &[]);
    assert!(code == 1 && said.contains("[backup_damaged]"), "{said}");
    let (code, said) = restore(meta, &["--force", "x"]);
    assert!(code == 1 && said.contains("[unknown_shard]"), "{said}");
    assert_eq!(status(&s3, &node)["sealed"], serde_json::json!([]));
    let (code, said) = restore(&id, &["--dry-run"]);
    assert!(code == 0 && said.contains("nothing was done"), "{said}");

    let (code, said) = restore(&id, &[]);
    assert_eq!(code, 0, "{said}");
    // It is as it was at the backup, and goes on: what came after is lost, and known to be.
    let api = cluster.api(0);
    let kept = api.auction("kept").await.unwrap();
    assert_eq!((kept.phase.as_str(), kept.price), ("live", 1_000), "{kept:?}");
    assert_eq!(kept.ends_at, Some(before.ends_at), "the deadline is the backup's");
    let after = bid(&cluster, 1_500, "after").await;
    went_on("restore", &[before], &[after]);
    three_again(&s3, &node, shard).await;
    bid(&cluster, 1_600, "again").await;
    the_cut_is_told(&api.export("kept", false).await.unwrap(), home.path());
    cluster.assert_no_panic();
}
