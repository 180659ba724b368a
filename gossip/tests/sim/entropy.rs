//! The system's random numbers, replaced by seeded ones on the thread that runs a simulation. Hash maps, tokio's `select!`, gossip's
//! choice of peers, keys and certificates all draw from the system, through libc's `getrandom` or through the system call; with both
//! replaced, a seed is a trace. Other threads get true random numbers.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

#[cfg(target_arch = "x86_64")]
const SYS_GETRANDOM: c_long = 318;
#[cfg(target_arch = "aarch64")]
const SYS_GETRANDOM: c_long = 278;

/// "The next definition after this one", for `dlsym`.
const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;

thread_local! {
    static SEEDED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread draws everything from `seed`.
pub(crate) fn seed_this_thread(seed: u64) {
    SEEDED.set(Some(seed));
}

/// The next number of a seeded sequence (splitmix64).
pub(crate) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Fills the buffer if this thread is seeded.
///
/// # Safety
/// `buffer` must be writable for `len` bytes.
unsafe fn fill(buffer: *mut u8, len: usize) -> bool {
    // A thread that ends has no thread-local values any more, and no simulation.
    let Ok(Some(mut state)) = SEEDED.try_with(Cell::get) else {
        return false;
    };
    if len > 0 {
        // SAFETY: the caller says that it may be written.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&next(&mut state).to_le_bytes()[..chunk.len()]);
        }
    }
    SEEDED.set(Some(state));
    true
}

/// Takes the place of libc's.
///
/// # Safety
/// As for getrandom(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    // SAFETY: both are as the caller gave them.
    unsafe {
        if fill(buffer.cast(), len) {
            return len as isize;
        }
        real_syscall()(
            SYS_GETRANDOM,
            buffer as c_long,
            len as c_long,
            c_long::from(flags as c_int),
            0,
            0,
            0,
        ) as isize
    }
}

type Syscall = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// libc's own `syscall`.
fn real_syscall() -> Syscall {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    const NAME: &CStr = c"syscall";
    let mut real = REAL.load(Ordering::Relaxed);
    if real.is_null() {
        // SAFETY: the name ends with a zero, and a program that uses libc dynamically finds it there.
        real = unsafe { dlsym(RTLD_NEXT, NAME.as_ptr()) };
        assert!(!real.is_null(), "libc has a function `syscall`");
        REAL.store(real, Ordering::Relaxed);
    }
    // SAFETY: libc's `syscall` takes up to six arguments and ignores those that a call does not have.
    unsafe { std::mem::transmute::<*mut c_void, Syscall>(real) }
}

/// Takes the place of libc's, because some crates go around `getrandom`.
///
/// # Safety
/// As for syscall(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    // SAFETY: everything is as the caller gave it.
    unsafe {
        if number == SYS_GETRANDOM && fill(a as *mut u8, b as usize) {
            return b;
        }
        real_syscall()(number, a, b, c, d, e, f)
    }
}
