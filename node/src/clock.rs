//! The clock of leases: it never runs back, and it goes on while the process or the whole machine is suspended, so that who
//! wakes up knows at once what is over. It is not the time of day, and not the same on two machines.

use std::time::Duration;

/// Milliseconds on that clock.
pub fn boot_ms() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    Duration::try_from(now).unwrap_or_default().as_millis() as u64
}
