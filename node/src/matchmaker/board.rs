//! What the players with a socket here have been told of their tickets, and what they are to be told next.
//!
//! Pure: it is given the rows as they were read, and says what to push. Invariants: that a ticket was matched with a match is said
//! once on each connection, whatever is read how often; nothing is said of a ticket after `queue.left`, nor before the answer
//! to `queue.join`; what expired is forgotten by the store only after it was said.

#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::client::{MatchedPlayer, QueueMessage, TicketState};
use rookery_protocol::{MatchId, PlayerId, SessionId, TicketId};

use crate::store::{MatchStatus, Standing, TicketRow};

/// Tickets that a connection remembers. Past this, those are forgotten that the store has no row of any more.
const HEARD_MAX: usize = 64;

/// What ought to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    Push {
        player: PlayerId,
        session: SessionId,
        message: QueueMessage,
    },
    /// Its player has heard that it expired.
    Forget { ticket: TicketId },
}

/// The players' side of the matchmaker on this node.
#[derive(Debug, Default)]
pub struct Board {
    players: BTreeMap<PlayerId, Player>,
}

#[derive(Debug, Default)]
struct Player {
    sessions: BTreeMap<SessionId, Connection>,
    /// As last read; and those that were made here since.
    tickets: BTreeMap<TicketId, Option<MatchId>>,
}

#[derive(Debug, Default)]
struct Connection {
    /// Requests to queue that were not answered yet.
    joining: usize,
    heard: BTreeMap<TicketId, Heard>,
}

/// What was last said of a ticket.
#[derive(Debug, Default)]
struct Heard {
    last: Option<Last>,
    /// The matches that it was told of.
    matches: BTreeSet<MatchId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Waiting,
    Matched,
    Expired,
    Left,
}

impl Board {
    pub fn opened(&mut self, player: PlayerId, session: SessionId) {
        self.players
            .entry(player)
            .or_default()
            .sessions
            .entry(session)
            .or_default();
    }

    pub fn closed(&mut self, player: PlayerId, session: SessionId) {
        if let Some(known) = self.players.get_mut(&player) {
            known.sessions.remove(&session);
            if known.sessions.is_empty() {
                self.players.remove(&player);
            }
        }
    }

    pub fn has(&self, player: PlayerId) -> bool {
        self.players.contains_key(&player)
    }

    /// A session asks to queue: it hears nothing before the answer.
    pub fn joining(&mut self, player: PlayerId, session: SessionId) {
        if let Some(connection) = self.connection(player, session) {
            connection.joining += 1;
        }
    }

    /// The answer was given: the ticket, or a refusal.
    pub fn answered(&mut self, player: PlayerId, session: SessionId, ticket: Option<TicketId>) {
        let Some(connection) = self.connection(player, session) else {
            return;
        };
        connection.joining = connection.joining.saturating_sub(1);
        if let Some(ticket) = ticket {
            connection
                .heard
                .entry(ticket)
                .or_default()
                .last
                .get_or_insert(Last::Waiting);
            if let Some(known) = self.players.get_mut(&player) {
                known.tickets.entry(ticket).or_default();
            }
        }
    }

    /// The player gave a ticket up, and is about to be told that it is gone.
    pub fn left(&mut self, player: PlayerId, ticket: TicketId) {
        if let Some(known) = self.players.get_mut(&player) {
            known.tickets.remove(&ticket);
            for connection in known.sessions.values_mut() {
                connection.heard.entry(ticket).or_default().last = Some(Last::Left);
            }
        }
    }

    /// Whether a player who sat down in this match has used a ticket by it.
    pub fn seated(&mut self, player: PlayerId, target: MatchId) -> bool {
        let Some(known) = self.players.get_mut(&player) else {
            return false;
        };
        let before = known.tickets.len();
        known.tickets.retain(|_, matched| *matched != Some(target));
        known.tickets.len() < before
    }

    /// Players of whom tickets are known: what becomes of those is asked again and again.
    pub fn with_tickets(&self) -> Vec<PlayerId> {
        let known = self.players.iter().filter(|(_, known)| !known.tickets.is_empty());
        known.map(|(player, _)| *player).collect()
    }

    /// Takes everything that these players have in queues, as it was just read.
    pub fn learn(&mut self, players: &[PlayerId], rows: &[TicketRow], out: &mut Vec<Say>) {
        let mut of: BTreeMap<PlayerId, Vec<&TicketRow>> = BTreeMap::new();
        for row in rows {
            of.entry(row.player).or_default().push(row);
        }
        for player in players {
            let rows = of.remove(player).unwrap_or_default();
            let Some(known) = self.players.get_mut(player) else {
                continue;
            };
            known.tickets = rows
                .iter()
                .filter_map(|row| match &row.standing {
                    Standing::Waiting => Some((row.id, None)),
                    Standing::Matched { target, .. } => Some((row.id, Some(*target))),
                    Standing::Expired => None,
                })
                .collect();
            for (session, connection) in &mut known.sessions {
                // What is said after the answer is read after it, too.
                if connection.joining > 0 {
                    continue;
                }
                connection.forget_gone(&rows);
                for row in &rows {
                    if let Some(message) = connection.hear(row) {
                        out.push(Say::Push {
                            player: *player,
                            session: *session,
                            message,
                        });
                    }
                }
            }
            let heard = |row: &&&TicketRow| {
                let mut sessions = known.sessions.values();
                row.standing == Standing::Expired
                    && sessions.any(|connection| {
                        let last = connection.heard.get(&row.id).and_then(|heard| heard.last);
                        matches!(last, Some(Last::Expired | Last::Left))
                    })
            };
            out.extend(rows.iter().filter(heard).map(|row| Say::Forget { ticket: row.id }));
        }
    }

    fn connection(&mut self, player: PlayerId, session: SessionId) -> Option<&mut Connection> {
        self.players.get_mut(&player)?.sessions.get_mut(&session)
    }
}

impl Connection {
    /// What the connection has not heard of this ticket.
    fn hear(&mut self, row: &TicketRow) -> Option<QueueMessage> {
        let heard = self.heard.entry(row.id).or_default();
        if heard.last == Some(Last::Left) {
            return None;
        }
        let ticket = row.id;
        match &row.standing {
            Standing::Waiting if heard.last != Some(Last::Waiting) => {
                heard.last = Some(Last::Waiting);
                Some(state_of(row))
            }
            Standing::Matched {
                target,
                team,
                players,
                status: Some(MatchStatus::Running),
            } if heard.matches.insert(*target) => {
                heard.last = Some(Last::Matched);
                let players = players.iter().map(|player| MatchedPlayer {
                    player: player.player,
                    name: player.name.clone(),
                    team: player.team,
                });
                Some(QueueMessage::Matched {
                    ticket,
                    target: *target,
                    team: *team,
                    players: players.collect(),
                })
            }
            Standing::Expired if heard.last != Some(Last::Expired) => {
                heard.last = Some(Last::Expired);
                Some(QueueMessage::Expired { ticket })
            }
            // Heard already, or a match that is not running: it will be, or its tickets are given back.
            Standing::Waiting | Standing::Matched { .. } | Standing::Expired => None,
        }
    }

    fn forget_gone(&mut self, rows: &[&TicketRow]) {
        if self.heard.len() > HEARD_MAX {
            self.heard.retain(|ticket, _| rows.iter().any(|row| row.id == *ticket));
        }
    }
}

/// A ticket as `queue.state` says it.
pub fn state_of(row: &TicketRow) -> QueueMessage {
    let state = match row.standing {
        Standing::Waiting => TicketState::Waiting,
        Standing::Matched { .. } => TicketState::Matched,
        Standing::Expired => TicketState::Expired,
    };
    QueueMessage::State {
        ticket: row.id,
        queue: row.queue.clone(),
        state,
        waited_ms: row.waited_ms,
        estimate_ms: row
            .estimate_ms
            .filter(|_| state == TicketState::Waiting)
            .map(|estimate_ms| estimate_ms.saturating_sub(row.waited_ms)),
    }
}

#[cfg(test)]
mod tests;
