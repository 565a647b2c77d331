//! A real image in a real folder, and everything that can happen to it there: every object cut, changed, swapped, gone, or
//! never put. Whatever it is, it is told; nothing damaged is ever read as sound.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::semicolon_if_nothing_returned)]

use super::manifest::sha256;
use super::{BackupError, Manifest, Store};
use async_trait::async_trait;
use auction::{Action, Actor, Command, Currency, Definition, Id, Reply, Rights, Terms, TimeRule};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use placement::{Node, NodeId, ShardId};
use raft_store::{Host, Options, Proven};
use std::path::{Path as File, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SHARD: ShardId = ShardId(1);
/// Of a part: small, so that there are several.
const PART: usize = 512;

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

async fn say(host: &Host, who: &str, key: &str, action: Action) {
    let rights = Rights::MEMBER.and(Rights::BIDDER).and(Rights::SELLER);
    let command = Command {
        auction: id("bowl"),
        actor: Actor { id: id(who), rights },
        id: Some(id(key)),
        first_sent: None,
        action,
    };
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let epoch = host.map().borrow().epoch;
        match host.submit(SHARD, epoch, command.clone()).await {
            Reply::Verdict(verdict) => return assert_eq!(verdict.outcome, Ok(()), "{key}"),
            other => assert!(tokio::time::Instant::now() < end, "{key}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The image of a shard with one auction and some bids on it.
async fn image() -> (Proven, Bytes) {
    let dir = tempfile::tempdir().unwrap();
    let founder = Node {
        id: NodeId(1),
        zone: "a".into(),
        region: "here".into(),
        weight: 1,
        grpc: "127.0.0.1:1".into(),
        http: String::new(),
        trunk: String::new(),
    };
    let mut options = Options {
        dir: dir.path().join("raft"),
        shards: 1,
        founders: vec![founder],
        ..Options::default()
    };
    (options.wal.segment_bytes, options.wal.preallocate) = (1 << 20, false);
    let host = Host::open(options).await.unwrap();
    let terms = Terms {
        currency: Currency::parse("KRW").unwrap(),
        start_price: 1_000,
        increments: vec![(0, 100)],
        reserve: None,
        duration_ms: 3_600_000,
        time: TimeRule::default(),
        guests: true,
        pause_without_stream: false,
    };
    let definition = Definition {
        seller: id("seller"),
        title: "a bowl".into(),
        description: String::new(),
        terms,
    };
    say(&host, "seller", "create", Action::Create(Box::new(definition))).await;
    say(&host, "seller", "start", Action::Start { schedule_version: None }).await;
    for n in 0..12 {
        let who = if n % 2 == 0 { "ann" } else { "bob" };
        say(
            &host,
            who,
            &format!("bid-{n}"),
            Action::Bid {
                amount: 1_000 + 100 * n,
            },
        )
        .await;
    }
    let image = host.image(SHARD).await.unwrap();
    host.shutdown().await;
    image
}

/// A store in a folder, with one backup in it.
struct Shelf {
    dir: tempfile::TempDir,
    store: Store,
    name: String,
    manifest: Manifest,
}

impl Shelf {
    async fn with(image: &(Proven, Bytes)) -> Shelf {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&format!("file://{}", dir.path().display())).unwrap();
        store.part = PART;
        let (name, manifest) = store.put(1, 1, &image.0, &image.1, 1_700_000_000_000).await.unwrap();
        Shelf {
            dir,
            store,
            name,
            manifest,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(&self.name).join(name)
    }

    async fn code(&self) -> String {
        match self.store.read(&self.name).await {
            Ok(_) => "sound".into(),
            Err(error) => error.to_string().split(']').next().unwrap()[1..].to_owned(),
        }
    }
}

fn change(file: &File, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_comes_back_and_nothing_else_does() {
    let image = image().await;
    assert_eq!((image.0.auctions, image.0.events), (1, 13), "an open and twelve bids");
    let shelf = Shelf::with(&image).await;
    let (manifest, proven, body) = shelf.store.read(&shelf.name).await.unwrap();
    assert_eq!((&manifest, &proven, &body), (&shelf.manifest, &image.0, &image.1));
    let parts = manifest.parts.len();
    assert!(parts >= 3, "{parts} parts of {} bytes", manifest.bytes);
    assert_eq!(shelf.store.list(None).await.unwrap().len(), 1);
    assert_eq!(shelf.store.list(Some(2)).await.unwrap().len(), 0);

    let files: Vec<String> = manifest.parts.iter().map(|part| part.name.clone()).collect();
    for name in files.iter().map(String::as_str).chain(["manifest.json"]) {
        let check = async |what: &str, hurt: &dyn Fn(&File)| {
            let shelf = Shelf::with(&image).await;
            hurt(&shelf.file(name));
            assert_eq!(shelf.code().await, "backup_damaged", "{name}: {what}");
        };
        check("a byte less", &|file| {
            change(file, |bytes| bytes.truncate(bytes.len() - 1))
        })
        .await;
        check("half of it", &|file| {
            change(file, |bytes| bytes.truncate(bytes.len() / 2))
        })
        .await;
        check("nothing of it", &|file| change(file, Vec::clear)).await;
        check("a byte more", &|file| change(file, |bytes| bytes.push(b'x'))).await;
        for at in 0..8 {
            // The lowest bit: no space becomes another space.
            let flip = |bytes: &mut Vec<u8>| {
                let at = at * (bytes.len() - 1) / 7;
                bytes[at] ^= 1;
            };
            check(&format!("a bit at {at}/7"), &|file| change(file, flip)).await;
        }
    }
    let shelf = Shelf::with(&image).await;
    std::fs::remove_file(shelf.file("part-00001")).unwrap();
    assert_eq!(shelf.code().await, "backup_damaged", "a part that is gone");
    let shelf = Shelf::with(&image).await;
    let [a, b] = ["part-00000", "part-00001"].map(|name| shelf.file(name));
    std::fs::copy(&a, shelf.file("x")).unwrap();
    std::fs::rename(&b, &a).unwrap();
    std::fs::rename(shelf.file("x"), &b).unwrap();
    assert_eq!(shelf.code().await, "backup_damaged", "parts that changed places");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_was_changed_is_found_even_where_all_checksums_are_made_again() {
    let image = image().await;
    let whole = Store::open(&format!("file://{}", tempfile::tempdir().unwrap().path().display())).unwrap();
    // A bid of `bob` becomes one of `eve`: same length, and every checksum is of what lies there.
    let mut body = image.1.to_vec();
    let at = body.windows(5).rposition(|w| w == b"bid-9").unwrap();
    body[at + 4] = b'8';
    let (name, _) = whole.put(1, 1, &image.0, &body.into(), 1).await.unwrap();
    let told = whole.read(&name).await.unwrap_err().to_string();
    assert!(told.contains("is not sound") || told.contains("and holds"), "{told}");
    // And a manifest that speaks for another place isn't believed there.
    let shelf = Shelf::with(&image).await;
    let other = shelf.name.replace("shard-0001", "shard-0002");
    std::fs::create_dir_all(shelf.dir.path().join("shard-0002")).unwrap();
    std::fs::rename(shelf.dir.path().join(&shelf.name), shelf.dir.path().join(&other)).unwrap();
    let told = shelf.store.read(&other).await.unwrap_err().to_string();
    assert!(told.contains("its manifest is of shard-0001"), "{told}");
}

/// Dies with its n-th put.
#[derive(Debug)]
struct Dying {
    inner: LocalFileSystem,
    left: AtomicUsize,
}

impl std::fmt::Display for Dying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dying")
    }
}

#[async_trait]
impl ObjectStore for Dying {
    async fn put_opts(&self, to: &Path, what: PutPayload, how: PutOptions) -> object_store::Result<PutResult> {
        if self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_err()
        {
            return Err(object_store::Error::NotSupported {
                source: "the caller is dead".into(),
            });
        }
        self.inner.put_opts(to, what, how).await
    }
    async fn put_multipart_opts(
        &self,
        to: &Path,
        how: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, how).await
    }
    async fn get_opts(&self, from: &Path, how: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(from, how).await
    }
    fn delete_stream(
        &self,
        which: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(which)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dies_in_the_middle_leaves_no_backup() {
    let image = image().await;
    let parts = image.1.len().div_ceil(PART);
    for puts in 0..=parts + 1 {
        let dir = tempfile::tempdir().unwrap();
        let inner = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        let left = AtomicUsize::new(puts);
        let mut store = Store::of(Arc::new(Dying { inner, left }), Path::default());
        store.part = PART;
        let put = store.put(1, 1, &image.0, &image.1, 7).await;
        let listed = store.list(None).await.unwrap();
        let finished = listed.iter().filter(|l| l.manifest.is_some()).count();
        assert_eq!(
            (put.is_ok(), finished),
            if puts > parts { (true, 1) } else { (false, 0) },
            "after {puts} puts"
        );
        assert_eq!(listed.len(), usize::from(puts > 0), "what was begun is named");
        if let Some(listed) = listed.first().filter(|_| finished == 0) {
            let told = store.read(&listed.name).await.unwrap_err();
            assert!(matches!(told, BackupError::Missing(_)), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_never_overwritten() {
    let image = image().await;
    let shelf = Shelf::with(&image).await;
    let again = shelf.store.put(1, 1, &image.0, &image.1, 1_700_000_000_000).await;
    assert!(
        matches!(
            again,
            Err(BackupError::Store(object_store::Error::AlreadyExists { .. }))
        ),
        "{again:?}"
    );
    assert_eq!(shelf.code().await, "sound");
}

#[test]
fn a_place_is_a_bucket_or_a_folder() {
    for url in ["", "ftp://x", "file://here", "/tmp/x", "s3:/x"] {
        assert!(matches!(Store::open(url), Err(BackupError::Url(_))), "{url}");
    }
    assert_eq!(
        sha256(b""),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
}
