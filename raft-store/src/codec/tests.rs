//! Round trips; filled below.
