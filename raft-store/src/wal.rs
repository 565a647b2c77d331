//! The write-ahead log of a node: one for all its groups.

/// The log on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Size of a segment file.
    pub segment_bytes: u64,
    /// Segments on disk above which the oldest is made free: its groups rewrite what they need of it, or make snapshots.
    pub segments_soft: usize,
    /// Writes that wait for the disk; beyond that, writers wait too.
    pub queue: usize,
    /// Zero-fill the next segment in the background, so that commits never grow a file.
    pub preallocate: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 * 1024 * 1024, segments_soft: 4, queue: 4096, preallocate: true }
    }
}
