//! Arbitrary bytes, read as entries, applied. What must hold is in `drive.rs`, which the crate's own tests run, too.
#![no_main]

#[path = "../drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drive::drive(bytes);
});
