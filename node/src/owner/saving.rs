//! When a match is saved: at most every `matches.store_every`, one save at a time, and only if an event happened since the last.
//!
//! Pure. Nobody waits for a save; one that failed is followed by another with a newer state.

#![deny(clippy::disallowed_methods)]

/// After a call of `save` that was cut off the next try waits at least this long: each one is a failure of the match logic, and with too
/// many in a while the match would end of not having been saved.
const FAILED_FOR_MS: u64 = 10_000;

/// What one match is to be told of its saves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saving {
    every_ms: u64,
    /// The last event that is in the store.
    saved_event: u64,
    /// When the last save began; none before the first, which is due as soon as there is an event.
    began_ms: Option<u64>,
    /// The last event of the save that is under way.
    under_way: Option<u64>,
}

impl Saving {
    /// A match of which this event is in the store already; 0 for none.
    pub fn new(every_ms: u64, saved_event: u64) -> Self {
        Self {
            every_ms,
            saved_event,
            began_ms: None,
            under_way: None,
        }
    }

    /// Whether the match, whose last event this is, ought to be saved now.
    pub fn is_due(&self, now_ms: u64, event_no: u64) -> bool {
        self.due_ms(event_no).is_some_and(|due_ms| due_ms <= now_ms)
    }

    /// When it ought to be saved; none while there is nothing to save, and while a save is under way: its end is the wake-up.
    pub fn due_ms(&self, event_no: u64) -> Option<u64> {
        (self.under_way.is_none() && event_no > self.saved_event)
            .then(|| self.began_ms.map_or(0, |began_ms| began_ms + self.every_ms))
    }

    /// Whether the store does not have this event, or will not when all that is on its way has come.
    pub fn lacks(&self, event_no: u64) -> bool {
        event_no > self.under_way.unwrap_or(self.saved_event)
    }

    /// The match logic could not say its state now; it is asked again later.
    pub fn failed(&mut self, now_ms: u64) {
        let later_ms = FAILED_FOR_MS.saturating_sub(self.every_ms);
        self.began_ms = Some(now_ms + later_ms);
    }

    /// A save of the state after this event is on its way.
    pub fn began(&mut self, now_ms: u64, event_no: u64) {
        self.began_ms = Some(now_ms);
        self.under_way = Some(event_no);
    }

    /// The save came to its end; what was not written is due again.
    pub fn ended(&mut self, written: bool) {
        if let Some(event_no) = self.under_way.take()
            && written
        {
            self.saved_event = self.saved_event.max(event_no);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_save_is_due_only_after_an_event_and_not_while_one_is_under_way() {
        let mut saving = Saving::new(1_000, 0);
        assert!(!saving.is_due(5_000, 0));
        assert!(saving.is_due(0, 1));
        saving.began(100, 1);
        assert!(!saving.is_due(9_000, 7));
        assert_eq!(saving.due_ms(7), None);
        saving.ended(true);
        assert!(!saving.is_due(9_000, 1), "nothing happened since");
        assert_eq!(saving.due_ms(2), Some(1_100));
    }

    #[test]
    fn a_save_that_failed_is_due_again() {
        let mut saving = Saving::new(1_000, 0);
        saving.began(100, 3);
        saving.ended(false);
        assert!(saving.is_due(1_100, 3));
    }

    #[test]
    fn match_logic_that_cannot_say_its_state_is_not_asked_in_every_interval() {
        for (every_ms, due_ms) in [(100, 10_050), (1_000, 10_050), (60_000, 60_050)] {
            let mut saving = Saving::new(every_ms, 0);
            saving.failed(50);
            assert_eq!(saving.due_ms(1), Some(due_ms));
        }
    }

    proptest! {
        /// With a store that answers within a time, nothing older than `every` and twice that time is missing from it.
        #[test]
        fn what_is_not_in_the_store_is_younger_than_the_interval_and_two_writes(
            every_ms in 10u64..2_000,
            write_ms in 1u64..300,
            gaps in prop::collection::vec(1u64..80, 1..200),
        ) {
            let mut saving = Saving::new(every_ms, 0);
            let (mut event, mut stored, mut under_way) = (0u64, 0u64, None::<(u64, u64)>);
            let mut happened = vec![0u64];
            let mut gaps = gaps.into_iter();
            let mut next_ms = gaps.next();
            for now_ms in 0..20_000u64 {
                if next_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                    event += 1;
                    happened.push(now_ms);
                    next_ms = gaps.next().map(|gap| now_ms + gap);
                }
                if let Some((done_ms, saved)) = under_way
                    && done_ms <= now_ms
                {
                    stored = saved;
                    saving.ended(true);
                    under_way = None;
                }
                if saving.is_due(now_ms, event) {
                    prop_assert!(under_way.is_none());
                    saving.began(now_ms, event);
                    under_way = Some((now_ms + write_ms, event));
                }
                if let Some(first_missing) = happened.get(stored as usize + 1) {
                    prop_assert!(now_ms - first_missing <= every_ms + 2 * write_ms);
                }
            }
            prop_assert_eq!(stored, event);
        }
    }
}
