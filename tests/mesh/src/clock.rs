//! One clock for all processes of this machine: what two of them saw can be put in order.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of the machine's monotonic clock, the same in every process.
pub fn now_us() -> u64 {
    micros(ClockId::Monotonic)
}

/// Microseconds of processor time that this process has used.
pub fn used_us() -> u64 {
    micros(ClockId::ProcessCPUTime)
}

fn micros(clock: ClockId) -> u64 {
    let at = clock_gettime(clock);
    u64::try_from(at.tv_sec * 1_000_000 + at.tv_nsec / 1_000).expect("these clocks start at nought")
}
