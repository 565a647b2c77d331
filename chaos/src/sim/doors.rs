//! The two doors by which the real world gets into a process that asks for nothing else: clocks and chance.
//!
//! ```text
//!   std::time, hash maps' keys, rand, … --> clock_gettime, getrandom --> here --> the simulated node's clock | the seed
//!                                                                          '--> the kernel, before `begin`
//! ```
//!
//! Why at libc's door and not by a parameter: time and chance are taken in a hundred places, most of them in other
//! people's crates, and the one that was forgotten is the one that makes a seed unrepeatable. Here none can be forgotten,
//! and the product's code needs no seam for it.
//!
//! A simulation is a process of its own and lives on one thread; once begun it never ends.
//!
//! Deliberately absent: processor clocks (they are measured, never acted on).
#![allow(unsafe_code)] // Two functions of C, told apart by the linker: there is no safe way to be them.

use libc::{c_int, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

static BEGUN: AtomicBool = AtomicBool::new(false);
static CHANCE: AtomicU64 = AtomicU64::new(0);
static MONO_NS: AtomicI64 = AtomicI64::new(0);
static WALL_NS: AtomicI64 = AtomicI64::new(0);

/// From now on this process has no clock but `set`'s and no chance but the seed's.
pub(super) fn begin(seed: u64) {
    CHANCE.store(seed, Ordering::Relaxed);
    BEGUN.store(true, Ordering::Relaxed);
}

/// What whoever asks now is told: ns of a monotonic clock, and of the wall's.
pub(super) fn set(mono_ns: i64, wall_ns: i64) {
    MONO_NS.store(mono_ns, Ordering::Relaxed);
    WALL_NS.store(wall_ns, Ordering::Relaxed);
}

/// splitmix64.
fn chance() -> u64 {
    let state = CHANCE.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    CHANCE.store(state, Ordering::Relaxed);
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// As libc's.
///
/// # Safety
/// `buffer` has room for `len` bytes.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getrandom(buffer: *mut c_void, len: size_t, flags: c_uint) -> ssize_t {
    if !BEGUN.load(Ordering::Relaxed) {
        // SAFETY: the caller's promise, passed on.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) as ssize_t };
    }
    // SAFETY: the caller's promise.
    let out = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
    for chunk in out.chunks_mut(8) {
        chunk.copy_from_slice(&chance().to_le_bytes()[..chunk.len()]);
    }
    len as ssize_t
}

/// As libc's.
///
/// # Safety
/// `out` is a `timespec`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn clock_gettime(clock: clockid_t, out: *mut timespec) -> c_int {
    let told = match clock {
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
            &MONO_NS
        }
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => &WALL_NS,
        _ => &CPU,
    };
    if !BEGUN.load(Ordering::Relaxed) || std::ptr::eq(told, &CPU) {
        // SAFETY: the caller's promise, passed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) as c_int };
    }
    let now = told.load(Ordering::Relaxed);
    // SAFETY: the caller's promise.
    let out = unsafe { &mut *out };
    out.tv_sec = now.div_euclid(1_000_000_000);
    out.tv_nsec = now.rem_euclid(1_000_000_000);
    0
}

/// Stands for every clock that isn't ours.
static CPU: AtomicI64 = AtomicI64::new(0);
