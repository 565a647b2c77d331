//! Backups in one place: put, listed, read, proven.

use super::manifest::{BYTES_MAX, FORMAT, sha256};
use super::{BackupError, Manifest, Part};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use raft_store::Proven;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Largest part.
const PART: usize = 8 << 20;
/// Largest image that is read back.
const IMAGE_MAX: u64 = 4 << 30;
const MANIFEST: &str = "manifest.json";

/// What lies in one folder of a backup.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Its shard's folder and its own.
    pub(crate) name: String,
    /// None: it was not finished.
    pub(crate) manifest: Option<Manifest>,
}

/// One place for backups.
pub(crate) struct Store {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Largest part that is put.
    pub(super) part: usize,
}

impl Store {
    /// By URL: `s3://BUCKET/PREFIX`, with keys, region and endpoint from `AWS_*` variables; or `file:///FOLDER`, which is made.
    pub(crate) fn open(url: &str) -> Result<Store, BackupError> {
        let bad = |what: String| BackupError::Url(format!("{url}: {what}"));
        if let Some(folder) = url.strip_prefix("file://") {
            if !folder.starts_with('/') {
                return Err(bad("a folder is named from the root: file:///…".into()));
            }
            std::fs::create_dir_all(folder).map_err(|error| bad(error.to_string()))?;
            let local = LocalFileSystem::new_with_prefix(folder)?.with_automatic_cleanup(false);
            return Ok(Store::of(Arc::new(local), Path::default()));
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            return Err(bad("is neither s3://BUCKET/PREFIX nor file:///FOLDER".into()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let s3 = AmazonS3Builder::from_env().with_bucket_name(bucket).build()?;
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| bad(error.to_string()))?;
        Ok(Store::of(Arc::new(s3), prefix))
    }

    /// Whether a URL names a place, as far as that can be known without making one.
    pub(crate) fn could_open(url: &str) -> Result<(), BackupError> {
        if url.starts_with("file:///") {
            return Ok(());
        }
        Store::open(url).map(|_| ())
    }

    pub(super) fn of(store: Arc<dyn ObjectStore>, prefix: Path) -> Store {
        Store {
            store,
            prefix,
            part: PART,
        }
    }

    fn folder(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Puts an image: parts first, the manifest last. Its name.
    pub(crate) async fn put(
        &self,
        shard: u32,
        shards: u32,
        proven: &Proven,
        body: &Bytes,
        taken_ms: u64,
    ) -> Result<(String, Manifest), BackupError> {
        let name = format!("shard-{shard:04}/{taken_ms:018}-{:020}", proven.index);
        let folder = self.folder(&name);
        let mut parts = Vec::new();
        for (n, from) in (0..body.len()).step_by(self.part).enumerate() {
            let piece = body.slice(from..(from + self.part).min(body.len()));
            let part = Part {
                name: format!("part-{n:05}"),
                bytes: piece.len() as u64,
                sha256: sha256(&piece),
            };
            let path = folder.clone().join(part.name.as_str());
            self.store.put(&path, PutPayload::from_bytes(piece)).await?;
            parts.push(part);
        }
        let manifest = Manifest {
            format: FORMAT.into(),
            shard,
            shards,
            index: proven.index,
            top: proven.top,
            auctions: proven.auctions,
            events: proven.events,
            digest: hex::encode(proven.digest),
            taken_ms,
            bytes: body.len() as u64,
            parts,
            seal: String::new(),
        };
        let (manifest, bytes) = manifest.sealed()?;
        let only_new = PutOptions::from(PutMode::Create);
        let path = folder.join(MANIFEST);
        self.store.put_opts(&path, PutPayload::from(bytes), only_new).await?;
        Ok((name, manifest))
    }

    /// What lies here, oldest first in each shard. A manifest that is there and can't be believed is an error: nobody knows
    /// what it stood for.
    pub(crate) async fn list(&self, shard: Option<u32>) -> Result<Vec<Listed>, BackupError> {
        let within = match shard {
            Some(shard) => self.folder(&format!("shard-{shard:04}")),
            None => self.prefix.clone(),
        };
        let mut found: BTreeMap<String, bool> = BTreeMap::new();
        let mut objects = self.store.list(Some(&within));
        while let Some(object) = objects.try_next().await? {
            let Some(parts) = object.location.prefix_match(&self.prefix) else {
                continue;
            };
            let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
            let [shard, own, file] = parts.as_slice() else { continue };
            if shard.starts_with("shard-") {
                let whole = found.entry(format!("{shard}/{own}")).or_default();
                *whole |= file == MANIFEST;
            }
        }
        let mut listed = Vec::new();
        for (name, whole) in found {
            let manifest = if whole { Some(self.manifest(&name).await?) } else { None };
            listed.push(Listed { name, manifest });
        }
        Ok(listed)
    }

    /// One backup's manifest, if it can be believed and is of the place where it lies.
    pub(crate) async fn manifest(&self, name: &str) -> Result<Manifest, BackupError> {
        let bytes = self.bytes(&self.folder(name).join(MANIFEST), BYTES_MAX as u64).await?;
        let in_name = |error| match error {
            BackupError::Damaged(what) => BackupError::Damaged(format!("{name}: {what}")),
            other => other,
        };
        let manifest = Manifest::read(&bytes).map_err(in_name)?;
        let own = format!(
            "shard-{:04}/{:018}-{:020}",
            manifest.shard, manifest.taken_ms, manifest.index
        );
        if own != name {
            return Err(BackupError::Damaged(format!("{name}: its manifest is of {own}")));
        }
        Ok(manifest)
    }

    async fn bytes(&self, path: &Path, max: u64) -> Result<Bytes, BackupError> {
        let got = self.store.get(path).await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => BackupError::Missing(path.to_string()),
            other => BackupError::Store(other),
        })?;
        if got.meta.size > max {
            let size = got.meta.size;
            return Err(BackupError::Damaged(format!(
                "{path}: {size} bytes, and {max} at most were put"
            )));
        }
        Ok(got.bytes().await?)
    }

    /// Reads a backup whole and recomputes it.
    pub(crate) async fn read(&self, name: &str) -> Result<(Manifest, Proven, Bytes), BackupError> {
        let manifest = self.manifest(name).await?;
        let damaged = |what: String| BackupError::Damaged(format!("{name}: {what}"));
        if manifest.bytes > IMAGE_MAX {
            return Err(damaged(format!("{} bytes are beyond every image", manifest.bytes)));
        }
        let folder = self.folder(name);
        let mut body = Vec::with_capacity(manifest.bytes as usize);
        for part in &manifest.parts {
            let bytes = match self.bytes(&folder.clone().join(part.name.as_str()), part.bytes).await {
                Err(BackupError::Missing(path)) => return Err(damaged(format!("{path} is gone"))),
                other => other?,
            };
            if bytes.len() as u64 != part.bytes {
                return Err(damaged(format!(
                    "{} has {} of {} bytes",
                    part.name,
                    bytes.len(),
                    part.bytes
                )));
            }
            if sha256(&bytes) != part.sha256 {
                return Err(damaged(format!("{} fails its checksum", part.name)));
            }
            body.extend_from_slice(&bytes);
        }
        let body = Bytes::from(body);
        let state = body.clone();
        let proven = tokio::task::spawn_blocking(move || raft_store::prove(state)).await;
        let proven = proven
            .map_err(|error| damaged(error.to_string()))?
            .map_err(|error| damaged(format!("what it holds is not sound: {error}")))?;
        let says = (
            manifest.index,
            manifest.top,
            manifest.auctions,
            manifest.events,
            manifest.digest.clone(),
        );
        let is = (
            proven.index,
            proven.top,
            proven.auctions,
            proven.events,
            hex::encode(proven.digest),
        );
        if says != is {
            return Err(damaged(format!("it says {says:?}, and holds {is:?}")));
        }
        Ok((manifest, proven, body))
    }
}
