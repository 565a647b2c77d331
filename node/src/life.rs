//! How a process's life ended, told by the next one: a crash leaves no last words, and what ended in order may have ended badly.
//!
//! ```text
//!   start: DIR/life says…  nothing -> first    "running" -> crashed    else what it says
//!          then "running"
//!   end:   "clean", or "failed" (the disk, a replica), or "diverged" (this node's state was not the others')
//! ```
//!
//! Why a file: the metrics of a node that stops are gone before anybody scrapes them. The word is for alerts and people;
//! nothing is decided by it, so a disk that refuses it stops nobody.
//!
//! Deliberately absent: the reason in full. That is in the log.

use std::path::{Path, PathBuf};

const RUNNING: &str = "running";

/// This process's line in the folder.
pub(crate) struct Life(PathBuf);

impl Life {
    /// Begins a life: gives how the last one in this folder ended.
    pub(crate) fn begin(dir: &Path) -> (Life, &'static str) {
        let path = dir.join("life");
        let before = match std::fs::read_to_string(&path).as_deref().map(str::trim) {
            Ok("clean") => "clean",
            Ok("failed") => "failed",
            Ok("diverged") => "diverged",
            Ok(_) => "crashed",
            Err(_) => "first",
        };
        let life = Life(path);
        life.say(RUNNING);
        (life, before)
    }

    /// Ends it: by whom or what stopped the node.
    pub(crate) fn end(&self, failed: Option<&str>) {
        self.say(match failed {
            None => "clean",
            Some(why) if why.contains(raft_store::DIVERGED) => "diverged",
            Some(_) => "failed",
        });
    }

    fn say(&self, word: &str) {
        if let Err(error) = std::fs::write(&self.0, format!("{word}\n")) {
            tracing::warn!(path = %self.0.display(), %error, "can't note how this process fares");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_next_life_tells_how_the_last_one_ended() {
        let dir = tempfile::tempdir().unwrap();
        let diverged = format!("shard 3: {}: at index 7", raft_store::DIVERGED);
        let table: [(Option<Option<&str>>, &str); 4] = [
            (None, "crashed"),
            (Some(None), "clean"),
            (Some(Some("no fsync")), "failed"),
            (Some(Some(&diverged)), "diverged"),
        ];
        assert_eq!(Life::begin(dir.path()).1, "first");
        for (end, told) in table {
            let (life, _) = Life::begin(dir.path());
            if let Some(failed) = end {
                life.end(failed);
            }
            assert_eq!(Life::begin(dir.path()).1, told, "{end:?}");
        }
    }
}
