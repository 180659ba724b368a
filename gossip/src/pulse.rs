//! Whether the gossip library's loop keeps time. Its ticks are its own; what we see is each turn of its loop, because it asks our
//! socket for the next message after every one. Pure. A loop that is not held up turns when a tick is due, if only for the tick.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use crate::suspicion::Time;

/// When the next tick is due.
#[derive(Debug)]
pub(crate) struct Pulse {
    interval: Duration,
    due: Option<Time>,
}

impl Pulse {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, due: None }
    }

    /// The loop begins a turn; says by how much the tick was late that was done before it, if there was one. Ticks that were missed
    /// altogether count as one, as late as the first of them.
    pub(crate) fn turn(&mut self, now: Time) -> Option<Duration> {
        // The first tick is at once.
        let due = *self.due.get_or_insert(now + self.interval);
        let late = now.checked_sub(due)?;
        let missed = late.as_nanos() / self.interval.as_nanos();
        let missed = u32::try_from(missed).unwrap_or(u32::MAX - 1);
        self.due = Some(due + self.interval * (missed + 1));
        Some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_as_late_as_the_loop_was_held_up() {
        let ms = Duration::from_millis;
        let mut pulse = Pulse::new(ms(200));
        let turns = [
            // Messages between two ticks say nothing.
            (1_000, None),
            (1_001, None),
            (1_150, None),
            (1_200, Some(0)),
            (1_201, None),
            (1_412, Some(12)),
            // Two were missed; the grid of the ticks stays what it was.
            (2_050, Some(450)),
            (2_199, None),
            (2_203, Some(3)),
        ];
        for (now, late) in turns {
            assert_eq!(pulse.turn(ms(now)), late.map(ms), "at {now} ms");
        }
    }
}
