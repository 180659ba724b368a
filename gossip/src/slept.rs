//! Whether the whole machine was suspended. The clock that everything here runs by stands still meanwhile, so that a node which was
//! suspended for an hour would not find itself late; its peers have buried it by then.

use std::time::{Duration, Instant};

/// A difference between the clocks that is no matter of rounding.
const SLEPT_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Slept {
    running: Instant,
    booted: Duration,
}

impl Default for Slept {
    fn default() -> Self {
        Self {
            running: Instant::now(),
            booted: since_boot(),
        }
    }
}

impl Slept {
    /// Whether the machine has been suspended since the last look.
    pub(crate) fn look(&mut self) -> bool {
        let now = Self::default();
        let ran = now.running - self.running;
        let passed = now.booted.saturating_sub(self.booted);
        *self = now;
        passed > ran + SLEPT_FOR
    }
}

/// Time since the machine was booted, suspended or not.
fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_ran_on_alone_shows_a_suspended_machine() {
        let mut slept = Slept::default();
        assert!(!slept.look());
        // As if the machine had been off between the two readings of one clock and not of the other.
        slept.booted = slept.booted.saturating_sub(Duration::from_secs(60));
        assert!(slept.look());
        assert!(!slept.look());
    }
}
