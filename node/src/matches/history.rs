//! What a match can be put back with: a base, which is a state that it had, and the journal since. Playing the journal on the base gives
//! the match as it is now; how an event is replayed is `machine`.
//!
//! Invariant: `again` comes to the match's own state, or says where it does not.

#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use super::event::Record;
use super::journal::{Journal, JournalError, Sum};
use super::machine::{Applied, Diverged, Divergence, Match};
use super::part::HostPart;
use crate::wasm::{Image, Module};

/// A journal that takes this much memory is given up for a new base.
const JOURNAL_BYTES_MAX: usize = 1 << 20;

/// So is one whose events took this long: playing them again holds up all matches of the thread.
const PLAYED_MAX: Duration = Duration::from_millis(8);

/// While nobody sits in the match, who would want to know what happened, less will do: of a thousand idle matches each keeps a record of
/// every tick. This is some 1,300 that say nothing, two minutes at 10 Hz, and a power of two for the buffer's sake.
const JOURNAL_BYTES_IDLE: usize = 4 << 10;

/// The longest record of an idle match's ordinary events, which are ticks.
const TICK_BYTES: usize = 16;

/// But not before they took this many times as long as a base does, which is then at most a tenth of what was played. For most guests a
/// base takes 0.3 ms; for one with many megabytes it takes longer than a long journal.
const BASES_IN_PLAY: u32 = 10;

/// A base and the records since.
#[derive(Debug, Clone)]
pub struct History {
    /// The guest of the base; none for a fresh instance.
    image: Option<Image>,
    /// The host's part of the base, its ring included: what a seat has missed decides whether the guest is asked.
    part: HostPart,
    journal: Journal,
    /// How long the events since took, about.
    played: Duration,
    /// How long the base took to make; nothing for a fresh instance.
    base_took: Duration,
}

impl History {
    /// Of a match to which nothing has happened yet.
    pub(super) fn beginning(part: HostPart) -> History {
        Self::since(None, part)
    }

    /// Of the same match, which is this now.
    pub(super) fn renewed(&self, image: Image, part: HostPart) -> History {
        History {
            base_took: self.base_took,
            ..Self::since(Some(image), part)
        }
    }

    fn since(image: Option<Image>, part: HostPart) -> History {
        let journal = Journal::after(part.event_no(), part.now_ms());
        History {
            image,
            part,
            journal,
            played: Duration::ZERO,
            base_took: Duration::ZERO,
        }
    }

    pub(super) fn note(&mut self, record: &Record, sum: Sum) {
        self.journal.push(record, sum.value());
    }

    /// Notes how long events took, and says whether it is time for a new base. Of an undo, which makes one itself, nothing counts.
    pub(super) fn is_long_after(&mut self, took: Duration, is_idle: bool) -> bool {
        if self.journal.is_empty() {
            return false;
        }
        self.played += took;
        let is_due = self.played > PLAYED_MAX || is_idle && self.journal.len() > JOURNAL_BYTES_IDLE - TICK_BYTES;
        is_due && self.played > self.base_took * BASES_IN_PLAY || self.journal.len() > JOURNAL_BYTES_MAX
    }

    pub(super) fn base_took(&mut self, took: Duration) {
        self.base_took = took;
    }

    /// The guest of the base; none for a fresh instance.
    pub fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    /// The host's part of the base.
    pub fn part(&self) -> &HostPart {
        &self.part
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// A copy of the match, made by playing it again.
    pub(super) fn again(&self, module: &Module) -> Result<Match, Diverged> {
        let mut records = self.journal.records();
        let instance = |failure| Diverged {
            event: self.part.event_no(),
            how: Divergence::Instance(failure),
        };
        let mut again = Match::at(module, self.part.clone(), self.image.as_ref()).map_err(instance)?;
        let mut applied = Applied::default();
        loop {
            let event = records.after().0 + 1;
            let Some(recorded) = records.next() else {
                return Ok(again);
            };
            let unreadable = |error: JournalError| Diverged {
                event,
                how: Divergence::Record(error),
            };
            again.replay(recorded.map_err(unreadable)?, &mut applied)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use rookery_protocol::{Digest, MatchId};

    use super::super::event::{Event, Outcome};
    use super::super::part::StartRecord;
    use super::*;
    use crate::wasm::Manifest;

    fn history() -> History {
        let start = StartRecord::of_manifest(MatchId::from_u128(1), &Manifest::unknown(), Digest([0; 32]), 0, 0);
        History::beginning(HostPart::new(start))
    }

    fn message(no: u64, bytes: usize) -> Record {
        Record {
            no,
            at_ms: 0,
            event: Event::Message {
                seat: 1,
                n: 0,
                data: vec![0; bytes].into(),
            },
            outcome: Outcome::Applied,
            answers: Vec::new(),
        }
    }

    #[test]
    fn a_base_is_made_anew_when_enough_was_played_for_what_it_costs() {
        for (base_took_ms, enough_ms) in [(0, 8), (1, 10), (3, 30)] {
            let mut history = history();
            history.base_took(Duration::from_millis(base_took_ms));
            assert!(
                !history.is_long_after(Duration::from_secs(1), false),
                "nothing was played since"
            );
            history.note(&message(1, 10), Sum::NOTHING);
            assert!(!history.is_long_after(Duration::from_millis(enough_ms), false));
            assert!(history.is_long_after(Duration::from_micros(1), false));
        }
    }

    #[test]
    fn a_journal_has_an_end() {
        let mut history = history();
        let events = (1..1_000).take_while(|no| {
            history.note(&message(*no, 10_000), Sum::NOTHING);
            !history.is_long_after(Duration::ZERO, false)
        });
        assert_eq!(events.count(), JOURNAL_BYTES_MAX / 10_000);
    }

    #[test]
    fn of_an_idle_match_little_is_kept_unless_bases_are_dear() {
        let ticks = |base_took: Duration| {
            let mut history = history();
            history.base_took(base_took);
            let ticks = (1..).take_while(|no| {
                let tick = Record {
                    event: Event::Tick { elapsed_ms: 100 },
                    ..message(*no, 0)
                };
                history.note(&tick, Sum::NOTHING);
                !history.is_long_after(Duration::from_micros(1), true)
            });
            (ticks.count(), history.journal.len())
        };
        let (cheap, bytes) = ticks(Duration::from_micros(10));
        assert!(
            cheap > 1_000 && bytes <= JOURNAL_BYTES_IDLE,
            "{cheap} ticks, {bytes} bytes"
        );
        assert_eq!(ticks(Duration::from_micros(300)).0, 3_000);
    }
}
