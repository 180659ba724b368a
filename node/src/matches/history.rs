//! What a match can be put back with: a base, which is a state that it had, and the journal since. Playing the journal on the base gives
//! the match as it is now; how an event is replayed is `machine`.
//!
//! Invariant: `again` comes to the match's own state, or says where it does not.

#![deny(clippy::disallowed_methods)]

use super::event::Record;
use super::journal::{Journal, JournalError, Sum};
use super::machine::{Applied, Diverged, Divergence, Match};
use super::part::HostPart;
use crate::wasm::Module;

/// A base and the records since.
#[derive(Debug, Clone)]
pub struct History {
    /// The host's part of the base; the guest's is a fresh instance.
    part: HostPart,
    journal: Journal,
}

impl History {
    /// Of a match to which nothing has happened yet.
    pub(super) fn beginning(part: HostPart) -> History {
        let journal = Journal::after(part.event_no(), part.now_ms());
        History { part, journal }
    }

    pub(super) fn note(&mut self, record: &Record, sum: Sum) {
        self.journal.push(record, sum.value());
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
        let mut again = Match::restore(module, self.part.clone()).map_err(instance)?;
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
