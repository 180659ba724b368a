//! The trail of a player from a match where they were: which match is asked next, and where the player is as soon as that is certain.
//!
//! Pure, and it asks nobody itself. Invariant: a match is named as the place of a player only when its owner has just said that they
//! sit there. That another one said so of it is a word about the past: they may have been sent on.

#![deny(clippy::disallowed_methods)]

use rookery_protocol::MatchId;
use rookery_protocol::peer::Standing;

/// Transfers that are followed. Nobody makes so many in the two minutes for which they are remembered, except in a circle: two matches
/// of which one was restored from an earlier time may each say that the player is in the other.
const HOPS_MAX: usize = 32;

/// Where a player is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// In that match, or in none as far as is known.
    There,
    /// They are being transferred, or were, and it is not known how far.
    OnTheWay,
    /// They sit in this one.
    Elsewhere(MatchId),
}

/// What became of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The match's owner says what the player is to it.
    Standing(Standing),
    /// The match is over, and nobody has it any more.
    Over,
    /// Whoever should have the match does not answer, or does not have it now: it may be on its way to another node.
    Silence,
    /// It is not known whose the match is, or its owner is no member.
    Nobody,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask the match that the trail leads to now.
    Ask,
    /// Ask it again, after a moment.
    AskAgain,
    Found(Found),
}

#[derive(Debug)]
pub struct Trail {
    first: MatchId,
    at: MatchId,
    hops: usize,
    /// A match has said that it sent the player away.
    has_left: bool,
}

impl Trail {
    pub fn new(first: MatchId) -> Self {
        Self {
            first,
            at: first,
            hops: 0,
            has_left: false,
        }
    }

    /// The match that is to be asked.
    pub fn at(&self) -> MatchId {
        self.at
    }

    /// Takes the answer of the match that was asked.
    pub fn heard(&mut self, word: Word) -> Next {
        match word {
            Word::Standing(Standing::Seated) if self.at == self.first => Next::Found(Found::There),
            Word::Standing(Standing::Seated) => Next::Found(Found::Elsewhere(self.at)),
            Word::Standing(Standing::OnTheWay) => {
                self.has_left = true;
                Next::AskAgain
            }
            Word::Standing(Standing::Went(to)) if self.hops < HOPS_MAX => {
                self.at = to;
                self.hops += 1;
                self.has_left = true;
                Next::Ask
            }
            // Where they went last they have no seat any more, and asking again would not show where they have.
            Word::Standing(Standing::Went(_) | Standing::Unknown) | Word::Over => Next::Found(Found::There),
            // Nothing is known against joining again. When a node has died many ask at once, and none of them is kept waiting.
            Word::Nobody if !self.has_left => Next::Found(Found::There),
            Word::Silence | Word::Nobody => Next::AskAgain,
        }
    }

    /// There is no time to ask any more.
    pub fn out_of_time(&self) -> Found {
        if self.has_left { Found::OnTheWay } else { Found::There }
    }
}

#[cfg(test)]
mod tests;
