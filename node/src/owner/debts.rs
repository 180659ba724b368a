//! What the matches of a module owe the thread that plays them, for calls that were cut off after they took too much of its time. One match
//! pays by resting ([`Room::rests`](super::room::Room::rests)); but somebody who finds a message on which the match logic loops can send it
//! to every match that there is, and create another when those rest. So all matches of a module pay into one account of each thread:
//! whoever fails rests until it is even, and a new match of the module is not begun before.
//!
//! Invariant: matches of other modules never wait for it, and nobody waits longer than [`DEBT_MAX`].

#![deny(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::time::Duration;

use rookery_protocol::Digest;

/// A module owes no more than this.
pub const DEBT_MAX: Duration = Duration::from_secs(5);

/// By module, when it is even, on the clock of whoever asks. Modules that owe nothing are not in it, except for a while.
#[derive(Debug, Default)]
pub struct Debts(HashMap<Digest, Duration>);

impl Debts {
    /// A match of the module has to rest for this long, for what it did just now; returns for how long it has to with what others of
    /// the module have run up.
    pub fn add(&mut self, module: Digest, rest: Duration, now: Duration) -> Duration {
        self.0.retain(|_, even_at| *even_at > now);
        let even_at = self.0.entry(module).or_insert(now);
        *even_at = (*even_at + rest).min(now + DEBT_MAX);
        *even_at - now
    }

    /// For how long no match of the module is begun.
    pub fn left(&self, module: Digest, now: Duration) -> Duration {
        self.0
            .get(&module)
            .map_or(Duration::ZERO, |even_at| even_at.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = Digest([1; 32]);
    const B: Digest = Digest([2; 32]);

    #[test]
    fn matches_of_one_module_pay_together_and_others_do_not() {
        let (mut debts, now) = (Debts::default(), Duration::from_secs(100));
        let after = |ms: u64| now + Duration::from_millis(ms);
        assert_eq!(
            debts.add(A, Duration::from_millis(600), now),
            Duration::from_millis(600)
        );
        assert_eq!(
            debts.add(A, Duration::from_millis(600), after(100)),
            Duration::from_millis(1_100)
        );
        assert_eq!(debts.left(A, after(1_000)), Duration::from_millis(200));
        assert_eq!(debts.left(A, after(1_200)), Duration::ZERO);
        assert_eq!(debts.left(B, now), Duration::ZERO);
        // It is even: this one counts alone. What is paid is forgotten with the next that is not.
        assert_eq!(
            debts.add(B, Duration::from_millis(10), after(2_000)),
            Duration::from_millis(10)
        );
        assert_eq!(debts.0.len(), 1);
    }

    #[test]
    fn there_is_an_end_to_what_a_module_owes() {
        let (mut debts, now) = (Debts::default(), Duration::from_secs(100));
        let owed = (0..100).map(|_| debts.add(A, Duration::from_millis(700), now)).last();
        assert_eq!(owed, Some(DEBT_MAX));
    }
}
