//! Which edges of the program a run took. The compiler counts each edge in a byte of its own (LLVM's `inline-8bit-counters`) and
//! tells us at start where these bytes are; a target adds features of its own where the code it runs is not counted.
//!
//! Only the thread that runs targets may call these functions: the counters are plain memory that every counted function writes.
#![allow(unsafe_code)]

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering::Relaxed};

/// Features that targets report themselves, as if they were edges.
const FEATURES: usize = 4_096;

static START: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static STOP: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static REPORTED: [AtomicU8; FEATURES] = [const { AtomicU8::new(0) }; FEATURES];

/// Called by each counted module before `main`; all of them name the same section of the executable.
///
/// # Safety
/// `start` and `stop` are the bounds of that section, as the linker set them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    START.store(start, Relaxed);
    STOP.store(stop, Relaxed);
}

/// Reports that a run had this property, which then counts as an edge of its own. For what happens in code that is not counted.
pub fn feature(property: usize) {
    let counter = &REPORTED[property % FEATURES];
    counter.store(counter.load(Relaxed).saturating_add(1), Relaxed);
}

/// Returns how many edges are counted; 0 in a build without counters.
pub fn edges_counted() -> usize {
    counters().len()
}

/// Returns how many counters there are, those of features included.
pub fn len() -> usize {
    edges_counted() + FEATURES
}

/// Sets all counters to zero.
pub fn clear() {
    counters().fill(0);
    REPORTED.iter().for_each(|counter| counter.store(0, Relaxed));
}

/// Calls `with` for each edge that was taken, with its number and how often it was, rounded to one of eight bits.
pub fn for_each_taken(mut with: impl FnMut(usize, u8)) {
    let counters = counters();
    let mut words = counters.chunks_exact(8);
    let mut at = 0;
    let mut visit = |at: usize, bytes: &[u8]| {
        for (offset, count) in bytes.iter().enumerate().filter(|(_, count)| **count != 0) {
            with(at + offset, bucket(*count));
        }
    };
    for word in &mut words {
        // Most edges are not taken: eight of them at a time.
        if u64::from_ne_bytes(word.try_into().expect("chunks of eight")) != 0 {
            visit(at, word);
        }
        at += 8;
    }
    visit(at, words.remainder());
    for (number, counter) in REPORTED.iter().enumerate() {
        let count = counter.load(Relaxed);
        if count != 0 {
            with(counters.len() + number, bucket(count));
        }
    }
}

/// Counts that differ little say little: these classes are AFL's.
fn bucket(count: u8) -> u8 {
    1 << match count {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4..=7 => 3,
        8..=15 => 4,
        16..=31 => 5,
        32..=127 => 6,
        128.. => 7,
    }
}

fn counters() -> &'static mut [u8] {
    let (start, stop) = (START.load(Relaxed), STOP.load(Relaxed));
    if start.is_null() {
        return &mut [];
    }
    // SAFETY: the linker lays the counters out as one section between the two, which lives as long as the process. Counted
    // functions write to it too, but only on the thread that runs targets, and never while the slice is in use: nothing in this
    // crate's library is counted.
    unsafe { std::slice::from_raw_parts_mut(start, stop.offset_from_unsigned(start)) }
}
