//! Backups of a living cluster into a real S3 server, by the command line: taken under bids, listed, verified, and found out
//! when somebody changed an object.
//!
//! `RUSHROOM_TEST_S3_*` name a running `.ci/services/s3`; without them the test starts one in a folder of its own (which
//! needs what `.ci/services/s3 install` builds).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Cluster, SHARDS, auction, people};
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
    let output = Command::new(env!("CARGO_BIN_EXE_rushroom"))
        .args(["admin", "--node", node, "backup"])
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

/// An auction with one bid, acknowledged.
async fn one_bid(cluster: &Cluster) {
    let api = cluster.api(0);
    let (seller, bidders) = people(&api, 1).await;
    let selling = api.with_token(&seller.token);
    selling.create(&auction("kept", 600_000)).await.unwrap();
    selling.start("kept").await.unwrap();
    let verdict = api
        .with_token(&bidders[0].token)
        .bid("kept", 1_000, "b1")
        .await
        .unwrap();
    assert!(verdict.ok, "{verdict:?}");
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
