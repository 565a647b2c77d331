//! What a host stands on: its disk, and whatever waits for it. In production the kernel's files and threads, always.
//!
//! ```text
//!   Host::open(options)            --> World::real()       files, a thread for the log, threads for snapshots
//!   Host::open_in(options, world)  --> World::simulated()  `sim`: a disk in memory, a task for the log, no threads
//! ```
//!
//! One question decides what is here: would it bring in something that a seed can't repeat? Time isn't: everything takes
//! it from the runtime. Chance isn't: it comes from the process. Wires have a door of their own (`dial`).
//!
//! Deliberately absent: any other choice. What a host *does* is the same in every world.

use crate::wal::disk::AnyDisk;

/// What a host stands on.
#[derive(Clone)]
pub struct World {
    pub(crate) disk: AnyDisk,
}

impl World {
    /// The kernel's files and threads.
    #[must_use]
    pub fn real() -> World {
        World { disk: AnyDisk::Os }
    }

    /// A disk in memory.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn simulated(disk: &crate::sim::Disk) -> World {
        World {
            disk: AnyDisk::Sim(disk.inner()),
        }
    }
}
