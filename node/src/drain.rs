//! How a node leaves its cluster without dropping anybody: when each session is told and closed, when what is left ends, and
//! when the node may go. Pure: it is told the time and what is still here, and says what ought to happen.
//!
//! In order: every session is told at once, with a time of its own, so that the players do not all come to the other nodes in
//! one moment; each is closed at its time. Zones and stored matches are moved to other nodes, a few at a time; the stop that
//! follows saves and hands back those that could not be. Matches that live nowhere else play on until the deadline; then they fail
//! as `draining`. The invariant: no session is closed that was not told, and nothing outlasts the deadline.
#![deny(clippy::disallowed_methods)]

// The driver has a clock.
#[allow(clippy::disallowed_methods)]
pub mod task;

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::{MatchId, SessionId};

/// What is kept of the deadline for matches to end and for the stop behind it.
const RESERVE_MS: u64 = 2_000;

/// Matches on their way at once: each is a snapshot in memory and on the wire, and a pause for its players.
const MOVING_MAX: usize = 4;

/// How long players have to hear of the end of a match.
const END_MS: u64 = 500;

/// How long a node that had others must be without them before it counts as alone: members flicker.
const ALONE_AFTER_MS: u64 = 2_000;

/// What is still on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub sessions: Vec<SessionId>,
    /// Matches that end with this node.
    pub matches: Vec<MatchId>,
    /// Matches that can go on elsewhere.
    pub movable: Vec<MatchId>,
    /// How many of them are on their way.
    pub moving: usize,
    /// Whether another node takes players.
    pub has_others: bool,
}

/// What ought to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// `session.going_away`.
    Tell {
        session: SessionId,
        within_ms: u64,
    },
    Close {
        session: SessionId,
    },
    /// Moves a match to another node. Tried once: what cannot be moved is handed back when the node stops.
    Move {
        target: MatchId,
    },
    /// Ends a match as failed: it would be lost with the node.
    End {
        target: MatchId,
    },
    /// Nothing is left to wait for: the node may stop.
    Stop,
}

/// One drain.
#[derive(Debug)]
pub struct Drain {
    deadline_ms: u64,
    /// When each session that was told is closed.
    told: BTreeMap<SessionId, u64>,
    /// Matches that were to be moved.
    moved: BTreeSet<MatchId>,
    /// When the matches were ended.
    ended_ms: Option<u64>,
    /// Since when nobody else takes players; the beginning of time if nobody ever did.
    alone_since_ms: Option<u64>,
    stopped: bool,
}

impl Drain {
    /// A drain that is over at `deadline_ms`, by the clock of [`Drain::step`].
    pub fn new(deadline_ms: u64) -> Self {
        Self {
            deadline_ms,
            told: BTreeMap::new(),
            moved: BTreeSet::new(),
            ended_ms: None,
            alone_since_ms: Some(0),
            stopped: false,
        }
    }

    /// Looks at what is still here.
    pub fn step(&mut self, now_ms: u64, facts: &Facts, out: &mut Vec<Effect>) {
        if self.stopped {
            return;
        }
        let left_ms = self.deadline_ms.saturating_sub(now_ms);
        if facts.has_others {
            self.alone_since_ms = None;
        }
        let is_alone = !facts.has_others
            && match *self.alone_since_ms.get_or_insert(now_ms) {
                0 => true,
                since_ms => now_ms >= since_ms + ALONE_AFTER_MS,
            };
        // Where nobody can go, waiting helps nobody.
        let spread_ms = if is_alone {
            0
        } else {
            left_ms.saturating_sub(RESERVE_MS).max(left_ms / 2)
        };
        self.told.retain(|session, _| facts.sessions.contains(session));
        let untold: Vec<SessionId> = facts
            .sessions
            .iter()
            .filter(|session| !self.told.contains_key(session))
            .copied()
            .collect();
        let count = untold.len() as u64;
        for (session, place) in untold.into_iter().zip(1..) {
            let within_ms = spread_ms * place / count;
            self.told.insert(session, now_ms + within_ms);
            out.push(Effect::Tell { session, within_ms });
        }
        let is_late = left_ms == 0;
        for (session, close_ms) in &self.told {
            if *close_ms <= now_ms || is_late || is_alone {
                out.push(Effect::Close { session: *session });
            }
        }
        if !is_alone {
            let room = MOVING_MAX.saturating_sub(facts.moving);
            let next: Vec<MatchId> = facts
                .movable
                .iter()
                .filter(|target| !self.moved.contains(target))
                .take(room)
                .copied()
                .collect();
            for target in next {
                self.moved.insert(target);
                out.push(Effect::Move { target });
            }
        }
        let is_moved = is_alone || facts.moving == 0 && facts.movable.iter().all(|target| self.moved.contains(target));
        let has_moved_now = out.iter().any(|effect| matches!(effect, Effect::Move { .. }));
        let is_time = left_ms <= 2 * END_MS || is_alone;
        if self.ended_ms.is_none() && is_time && !facts.matches.is_empty() {
            self.ended_ms = Some(now_ms);
            let ends = facts.matches.iter().map(|target| Effect::End { target: *target });
            out.extend(ends);
        }
        let is_done = facts.sessions.is_empty() && facts.matches.is_empty() && is_moved && !has_moved_now;
        let have_heard = self.ended_ms.is_some_and(|ended_ms| now_ms >= ended_ms + END_MS);
        let nobody_waits = facts.sessions.is_empty() && have_heard;
        if is_done || nobody_waits || is_late {
            self.stopped = true;
            out.push(Effect::Stop);
        }
    }
}

#[cfg(test)]
mod tests;
