//! Presence: who is online, with which status, in which match; and who wants to know.
//!
//! [`Roster`] is the rules, pure: what this node's sessions add up to for each of their players, and which sessions watch whom. What
//! other nodes say comes from the directory. A player is online while any node holds an entry of it; a node holds one from the
//! first session's opening until [`LINGER_MS`] after the last one's socket closed, or until the node is dead. The status belongs to
//! the player: the last one set counts, whichever session set it, and every node with a session of the player keeps it.
//!
//! The invariant of a watch: what is told when it begins and each push after it are one history, without a gap.

#![deny(clippy::disallowed_methods)]

// The driver has a clock.
#[allow(clippy::disallowed_methods)]
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::peer::PresenceFact;
use rookery_protocol::{MatchId, PlayerId, SessionId};

pub use self::task::Presence;
use crate::directory::Sighting;

/// A player stays online for this long after the last socket closed: who reconnects meanwhile was never away (CONTRACT, guarantees).
pub const LINGER_MS: u64 = 3_000;

/// The longest status, in characters.
pub const STATUS_LEN_MAX: usize = 128;

/// How a player is, all nodes taken together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    pub online: bool,
    pub status: Option<String>,
    pub target: Option<MatchId>,
}

impl Standing {
    /// What the nodes say of a player, added up: online if any node has it, the last status, the last match.
    pub fn of(sightings: &[Sighting]) -> Self {
        let facts = || sightings.iter().map(|sighting| &sighting.fact);
        // The status itself breaks a tie, so that every node finds the same.
        let status = facts().max_by_key(|fact| (fact.status_at, &fact.status));
        let target = facts()
            .filter(|fact| fact.target.is_some())
            .max_by_key(|fact| (fact.target_at, fact.target));
        Self {
            online: !sightings.is_empty(),
            status: status.and_then(|fact| fact.status.clone()),
            target: target.and_then(|fact| fact.target),
        }
    }

    /// Whether watchers would be told of this difference. The match is not part of what is pushed.
    fn sounds_like(&self, other: &Standing) -> bool {
        self.online == other.online && self.status == other.status
    }
}

/// What ought to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Say this of a player to the directory.
    Hold {
        player: PlayerId,
        attachment: u64,
        fact: PresenceFact,
    },
    /// This node has nothing to say of a player any more.
    Release { player: PlayerId },
    /// Hear from the directory about a player.
    Watch { player: PlayerId },
    /// No longer.
    Unwatch { player: PlayerId },
    /// Tell these sessions how a player is now.
    Push {
        player: PlayerId,
        sessions: Vec<SessionId>,
        standing: Standing,
    },
}

/// A session watches as many players as it may; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session watches at most {max} players")]
pub struct TooMany {
    pub max: usize,
}

/// The players with sessions on this node, and the watches of its sessions.
#[derive(Debug, Default)]
pub struct Roster {
    here: BTreeMap<PlayerId, Here>,
    /// Players whose last socket closed, by when they count as gone.
    leaving: BTreeSet<(u64, PlayerId)>,
    watched: BTreeMap<PlayerId, Watched>,
    watching: BTreeMap<SessionId, BTreeSet<PlayerId>>,
    watches: usize,
}

/// A player with a session here, or with one that closed a moment ago.
#[derive(Debug, Default)]
struct Here {
    sessions: BTreeMap<SessionId, u64>,
    /// In the order in which they were joined.
    seats: Vec<Sitting>,
    status: Option<String>,
    status_at_ms: u64,
    leaving_at_ms: Option<u64>,
}

#[derive(Debug)]
struct Sitting {
    session: SessionId,
    target: MatchId,
    since_ms: u64,
}

/// A player whom sessions here watch.
#[derive(Debug, Default)]
struct Watched {
    /// Those that were told how the player is: they hear of each change. The others wait for their answer.
    told: BTreeSet<SessionId>,
    waiting: BTreeSet<SessionId>,
    standing: Standing,
}

impl Here {
    fn effect(&self, player: PlayerId) -> Effect {
        let last = self.seats.last();
        Effect::Hold {
            player,
            attachment: self.sessions.values().copied().max().unwrap_or(0),
            fact: PresenceFact {
                status: self.status.clone(),
                status_at: self.status_at_ms,
                target: last.map(|sitting| sitting.target),
                target_at: last.map_or(0, |sitting| sitting.since_ms),
            },
        }
    }
}

impl Roster {
    /// A session of the player has a socket here.
    pub fn opened(&mut self, player: PlayerId, session: SessionId, attachment: u64, out: &mut Vec<Effect>) {
        let here = self.here.entry(player).or_default();
        if let Some(at_ms) = here.leaving_at_ms.take() {
            self.leaving.remove(&(at_ms, player));
        }
        here.sessions.insert(session, attachment);
        out.push(here.effect(player));
    }

    /// The session's socket is gone, and with it what it watched.
    pub fn closed(&mut self, now_ms: u64, player: PlayerId, session: SessionId, out: &mut Vec<Effect>) {
        self.unwatch(session, None, out);
        let Some(here) = self.here.get_mut(&player) else { return };
        here.sessions.remove(&session);
        let before = here.seats.len();
        here.seats.retain(|sitting| sitting.session != session);
        if here.sessions.is_empty() {
            let at_ms = now_ms + LINGER_MS;
            here.leaving_at_ms = Some(at_ms);
            self.leaving.insert((at_ms, player));
            // What the entry says stands until it is taken back: a quick reconnect changes nothing.
        } else if here.seats.len() < before {
            out.push(here.effect(player));
        }
    }

    /// The session got a seat.
    pub fn seated(
        &mut self,
        unix_ms: u64,
        player: PlayerId,
        session: SessionId,
        target: MatchId,
        out: &mut Vec<Effect>,
    ) {
        let Some(here) = self
            .here
            .get_mut(&player)
            .filter(|here| here.sessions.contains_key(&session))
        else {
            return;
        };
        let is_there = |sitting: &Sitting| sitting.session == session && sitting.target == target;
        if !here.seats.iter().any(is_there) {
            here.seats.push(Sitting {
                session,
                target,
                since_ms: unix_ms,
            });
            out.push(here.effect(player));
        }
    }

    /// The session is no longer in that match.
    pub fn left(&mut self, player: PlayerId, session: SessionId, target: MatchId, out: &mut Vec<Effect>) {
        let Some(here) = self.here.get_mut(&player) else { return };
        let last = here.seats.last().map(|sitting| sitting.target);
        here.seats
            .retain(|sitting| sitting.session != session || sitting.target != target);
        if here.seats.last().map(|sitting| sitting.target) != last {
            out.push(here.effect(player));
        }
    }

    /// A session of the player says how it is; nothing clears it.
    pub fn set_status(
        &mut self,
        unix_ms: u64,
        player: PlayerId,
        status: Option<String>,
        out: &mut Vec<Effect>,
    ) -> Standing {
        let Some(here) = self.here.get_mut(&player) else {
            return Standing::default();
        };
        // Later than the one before, whatever the clock says: the last one set counts.
        here.status_at_ms = unix_ms.max(here.status_at_ms + 1);
        here.status = status;
        out.push(here.effect(player));
        Standing {
            online: true,
            status: here.status.clone(),
            target: here.seats.last().map(|sitting| sitting.target),
        }
    }

    /// A session wants to hear about players. It is told how they are by `answer`, and hears of changes from then on.
    ///
    /// Returns those that it did not watch before.
    ///
    /// # Errors
    /// It would watch more than `max`.
    pub fn watch(
        &mut self,
        session: SessionId,
        players: &BTreeSet<PlayerId>,
        max: usize,
        out: &mut Vec<Effect>,
    ) -> Result<BTreeSet<PlayerId>, TooMany> {
        let nobody = BTreeSet::new();
        let watching = self.watching.get(&session).unwrap_or(&nobody);
        let added: BTreeSet<PlayerId> = players.difference(watching).copied().collect();
        if watching.len() + added.len() > max {
            return Err(TooMany { max });
        }
        if added.is_empty() {
            return Ok(added);
        }
        self.watching.entry(session).or_default().extend(&added);
        self.watches += added.len();
        for player in &added {
            let watched = self.watched.entry(*player).or_insert_with(|| {
                out.push(Effect::Watch { player: *player });
                Watched::default()
            });
            watched.waiting.insert(session);
        }
        Ok(added)
    }

    /// What the directory knows of the players, now that it has answered: from here on the session hears of changes. Players that it
    /// has given up meanwhile are told all the same, since it asked.
    pub fn answer(
        &mut self,
        session: SessionId,
        known: Vec<(PlayerId, Standing)>,
        out: &mut Vec<Effect>,
    ) -> Vec<(PlayerId, Standing)> {
        for (player, standing) in &known {
            // Those that were told before are not told less than this one.
            self.heard(*player, standing.clone(), out);
            if let Some(watched) = self.watched.get_mut(player)
                && watched.waiting.remove(&session)
            {
                watched.told.insert(session);
            }
        }
        known
    }

    /// A session watches these players no longer; all of them when none are named. Returns those that it still watches.
    pub fn unwatch(
        &mut self,
        session: SessionId,
        players: Option<&BTreeSet<PlayerId>>,
        out: &mut Vec<Effect>,
    ) -> BTreeSet<PlayerId> {
        let Some(watching) = self.watching.get_mut(&session) else {
            return BTreeSet::new();
        };
        let gone: Vec<PlayerId> = match players {
            None => watching.iter().copied().collect(),
            Some(players) => players.intersection(watching).copied().collect(),
        };
        for player in gone {
            watching.remove(&player);
            self.watches -= 1;
            if let Some(watched) = self.watched.get_mut(&player) {
                watched.told.remove(&session);
                watched.waiting.remove(&session);
                if watched.told.is_empty() && watched.waiting.is_empty() {
                    self.watched.remove(&player);
                    out.push(Effect::Unwatch { player });
                }
            }
        }
        let rest = watching.clone();
        if rest.is_empty() {
            self.watching.remove(&session);
        }
        rest
    }

    /// How a watched player is now. Who was told otherwise is told.
    pub fn heard(&mut self, player: PlayerId, standing: Standing, out: &mut Vec<Effect>) {
        let Some(watched) = self.watched.get_mut(&player) else {
            return;
        };
        let before = std::mem::replace(&mut watched.standing, standing.clone());
        if !watched.told.is_empty() && !standing.sounds_like(&before) {
            out.push(Effect::Push {
                player,
                sessions: watched.told.iter().copied().collect(),
                standing,
            });
        }
    }

    /// What all nodes say of a player with sessions here: a later status set elsewhere is kept here, too.
    pub fn adopt(&mut self, player: PlayerId, sightings: &[Sighting], out: &mut Vec<Effect>) {
        let Some(here) = self.here.get_mut(&player) else { return };
        let latest = sightings
            .iter()
            .map(|sighting| &sighting.fact)
            .max_by_key(|fact| (fact.status_at, &fact.status));
        if let Some(latest) = latest
            && (latest.status_at, &latest.status) > (here.status_at_ms, &here.status)
        {
            here.status = latest.status.clone();
            here.status_at_ms = latest.status_at;
            out.push(here.effect(player));
        }
    }

    /// Lets go of players whose last socket closed long enough ago.
    pub fn wake(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        while let Some((at_ms, player)) = self.leaving.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms) {
            self.leaving.remove(&(at_ms, player));
            self.here.remove(&player);
            out.push(Effect::Release { player });
        }
    }

    /// When `wake` is due.
    pub fn next_wake_ms(&self) -> Option<u64> {
        self.leaving.first().map(|(at_ms, _)| *at_ms)
    }

    /// Players with an open socket here.
    pub fn players(&self) -> usize {
        self.here.len() - self.leaving.len()
    }

    /// Pairs of a session and a player that it watches.
    pub fn watches(&self) -> usize {
        self.watches
    }
}
