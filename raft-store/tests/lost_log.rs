//! A node whose log was deleted under it: it must not start as if its replicas had never voted.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::Cluster;
use raft_store::{Host, OpenError, RaftOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_log_does_not_start() {
    let cluster = Cluster::new(1, RaftOptions::default());
    let host = Host::open(cluster.options(1)).await.unwrap();
    host.shutdown().await;
    drop(host);
    std::fs::remove_dir_all(cluster.folder(1).join("wal")).unwrap();
    let opened = Host::open(cluster.options(1)).await.map(drop);
    assert!(
        matches!(&opened, Err(OpenError::Damaged(why)) if why.contains("is gone")),
        "{opened:?}"
    );
}
