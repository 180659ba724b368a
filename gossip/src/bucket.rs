//! A token bucket: how much may come in the long run, and how much at once. Pure; it is given the time. Kept as the moment at which the
//! bucket is full again (the generic cell rate algorithm of ATM Forum's traffic management specification 4.0), so that a bucket is one
//! number and nothing has to refill it.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use crate::suspicion::Time;

#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// How long one unit takes to come back.
    interval: Duration,
    burst: u32,
    full_at: Time,
}

impl Bucket {
    pub(crate) fn new(interval: Duration, burst: u32) -> Self {
        Self {
            interval,
            burst,
            full_at: Time::ZERO,
        }
    }

    /// Takes units out, if there are as many.
    pub(crate) fn take(&mut self, now: Time, units: u32) -> bool {
        let full_at = self.full_at.max(now) + self.interval * units;
        let there_are = full_at - now <= self.interval * self.burst;
        if there_are {
            self.full_at = full_at;
        }
        there_are
    }

    pub(crate) fn is_full(&self, now: Time) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_comes_at_once_and_the_rest_at_its_rate() {
        let mut bucket = Bucket::new(Duration::from_millis(10), 5);
        let at = |ms: u64| Duration::from_secs(7) + Duration::from_millis(ms);
        assert!((0..5).all(|_| bucket.take(at(0), 1)));
        assert!(!bucket.take(at(0), 1) && !bucket.take(at(9), 1));
        assert!(bucket.take(at(10), 1) && !bucket.take(at(10), 1));
        assert!(!bucket.is_full(at(59)) && bucket.is_full(at(60)));
        assert!(!bucket.take(at(60), 6) && bucket.take(at(60), 5));
        // A clock that stands still gives nothing back.
        assert!(!bucket.take(at(60), 1));
    }
}
