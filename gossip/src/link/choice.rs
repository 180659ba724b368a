//! Which data connection a link uses. Pure. Both ends take connections into use one after the other, and messages keep their order only
//! if both do so in the same order: what one end wrote to an earlier connection must not be read after what it wrote to a later one.
//!
//! So one end has the last word, the one with the lower name. While it dials, and while its own connection is so young that the other
//! end may still be answering it, it welcomes nothing else. The other end welcomes whatever the first one dials, and when it has done
//! so during a dial of its own, it throws the result of that dial away: the first end decided about it earlier.
#![deny(clippy::disallowed_methods)]

use crate::collision::{Begun, SETTLED_AFTER};
use crate::suspicion::Time;

#[derive(Debug)]
pub(crate) struct Choice {
    has_last_word: bool,
    /// Counts the connections that were taken into use.
    number: u64,
    current: Option<Current>,
    /// A dial is on its way; what the number was when it began.
    attempt: Option<u64>,
}

#[derive(Debug)]
struct Current {
    begun: Begun,
    since: Time,
}

impl Choice {
    pub(crate) fn new(has_last_word: bool) -> Self {
        Self {
            has_last_word,
            number: 0,
            current: None,
            attempt: None,
        }
    }

    /// The number of the connection that was taken into use last; it may be lost already.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.current.is_some()
    }

    /// A dial begins; false when there is no need of one.
    pub(crate) fn begin_attempt(&mut self) -> bool {
        if self.current.is_none() {
            self.attempt = Some(self.number);
        }
        self.current.is_none()
    }

    /// The dial came to nothing.
    pub(crate) fn attempt_failed(&mut self) {
        self.attempt = None;
    }

    /// Whether a connection is to be used; if not, it is a duplicate.
    pub(crate) fn admits(&self, now: Time, begun: Begun) -> bool {
        match begun {
            Begun::ByUs => self.attempt == Some(self.number),
            Begun::ByThem if !self.has_last_word => true,
            Begun::ByThem => {
                // The same end dials again only when it has lost the first connection, and so does the other one when it can no longer
                // be answering our dial.
                let lost_there =
                    |current: &Current| current.begun == Begun::ByThem || now >= current.since + SETTLED_AFTER;
                self.attempt.is_none() && self.current.as_ref().is_none_or(lost_there)
            }
        }
    }

    /// Takes a connection into use and returns its number. The one that was used before, if any, is over.
    pub(crate) fn take(&mut self, now: Time, begun: Begun) -> u64 {
        self.number += 1;
        self.current = Some(Current { begun, since: now });
        if begun == Begun::ByUs {
            self.attempt = None;
        }
        self.number
    }

    /// The connection with this number broke; false when it was not in use any more.
    pub(crate) fn lost(&mut self, number: u64) -> bool {
        number == self.number && self.current.take().is_some()
    }
}

#[cfg(test)]
mod tests;
