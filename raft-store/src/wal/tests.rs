//! Recovery, tested on real files.
