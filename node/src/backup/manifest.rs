//! A manifest: what a backup consists of, and what must come out of it.

use super::BackupError;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The form that this build writes and reads.
pub(super) const FORMAT: &str = "rushroom-backup/1";
/// No manifest is longer.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// One object of the image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) format: String,
    pub(crate) shard: u32,
    /// Auction shards of the cluster: a backup of another cluster's cut doesn't fit.
    pub(crate) shards: u32,
    pub(crate) index: u64,
    pub(crate) top: u64,
    pub(crate) auctions: u64,
    pub(crate) events: u64,
    /// The state's digest.
    pub(crate) digest: String,
    /// When it was taken, unix ms: for people.
    pub(crate) taken_ms: u64,
    pub(crate) bytes: u64,
    pub(crate) parts: Vec<Part>,
    /// SHA-256 of this manifest with an empty seal.
    pub(crate) seal: String,
}

/// Lower-case hex of SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

impl Manifest {
    fn sealing(&self) -> Result<String, BackupError> {
        let open = Manifest {
            seal: String::new(),
            ..self.clone()
        };
        let bytes = serde_json::to_vec(&open).map_err(|error| BackupError::Damaged(error.to_string()))?;
        Ok(sha256(&bytes))
    }

    /// As it is put into the store.
    pub(super) fn sealed(mut self) -> Result<(Manifest, Vec<u8>), BackupError> {
        self.seal = self.sealing()?;
        let bytes = serde_json::to_vec_pretty(&self).map_err(|error| BackupError::Damaged(error.to_string()))?;
        Ok((self, bytes))
    }

    /// Read back, and believed only if its seal holds.
    pub(super) fn read(bytes: &[u8]) -> Result<Manifest, BackupError> {
        let damaged = |what: String| BackupError::Damaged(format!("the manifest: {what}"));
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(damaged(format!(
                "its form is {}, and this build reads {FORMAT}",
                manifest.format
            )));
        }
        if manifest.sealing()? != manifest.seal {
            return Err(damaged("fails its seal".into()));
        }
        let sum: u64 = manifest.parts.iter().map(|part| part.bytes).sum();
        if sum != manifest.bytes {
            return Err(damaged("its parts don't add up".into()));
        }
        Ok(manifest)
    }
}
