//! The fuzz target's check over a few thousand seeded inputs, so that every test run has a taste of it.
//!
//! `cargo +nightly fuzz run apply` (from raft-store/auction) goes on where this ends.

#[path = "../fuzz/drive.rs"]
mod drive;

/// Bytes that a seed makes (xorshift).
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    let length = 16 + usize::from(next()) * 8;
    (0..length).map(|_| next()).collect()
}

#[test]
fn arbitrary_entries_keep_every_promise() {
    let (mut events, mut closes) = (0, 0);
    for seed in 0..4_000 {
        let Ok(made) = std::panic::catch_unwind(|| drive::drive(&bytes(seed))) else {
            panic!("input {seed}: replay with drive(&bytes({seed}))")
        };
        events += made.0;
        closes += made.1;
    }
    // Else the inputs would only scratch the surface.
    assert!(events > 5_000 && closes > 1_000, "{events} events, {closes} closes");
}

#[test]
fn no_bytes_and_one_byte() {
    assert_eq!(drive::drive(&[]), (0, 0));
    for byte in 0..=255 {
        drive::drive(&[byte]);
        drive::drive(&[byte; 400]);
    }
}
