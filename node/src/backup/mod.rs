//! Backups of shards in an object store: written so that half of one is never taken for one, read with no trust in the store.
//!
//! ```text
//!   URL/shard-0003/000001763850123456-00000000000000004711/part-00000   8 MiB at most
//!                                                          part-00001
//!                                                          manifest.json    last: without it there is no backup
//! ```
//!
//! A backup is one shard's image (`raft_store::image`) at one applied index. Its name is the wall time and the index, so
//! names sort by age. The manifest names each part with length and SHA-256, carries the state's digest, and is sealed by a
//! checksum of itself. Whoever reads checks all of them, and then recomputes the state: every chain, every rule, the digest.
//!
//! Nothing is ever overwritten: a manifest is put only where none is. Who dies in the middle leaves parts without a manifest;
//! `list` names them, and deleting them harms nobody.
//!
//! Deliberately absent: deleting (the store's own rules for age know that better), encryption (the store's, or the disk's).
//! An image holds what is hidden from bidders, maxima and reserves: it is for operators only.

mod manifest;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use manifest::{Manifest, Part};
pub(crate) use store::{Listed, Store};

/// Why a backup isn't one, or can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// The URL can't be used.
    #[error("[backup_url] {0}")]
    Url(String),
    /// The store said no, or nothing.
    #[error("[backup_store] {0}")]
    Store(#[from] object_store::Error),
    /// There is no such backup.
    #[error("[backup_missing] {0}")]
    Missing(String),
    /// What lies there is not what was put there.
    #[error("[backup_damaged] {0}")]
    Damaged(String),
}
