//! The matchmaker's part of the client protocol: queues and parties.

use crate::{MatchId, PartyId, PlayerId, TicketId};

/// `queue.*`: what a client asks of the matchmaker.
#[derive(Debug, Clone, PartialEq)]
pub enum QueueRequest {
    /// `properties` and `query` are JSON objects as text; `{}` when they were not there.
    Join {
        queue: String,
        properties: String,
        query: String,
        party: Option<String>,
    },
    Leave {
        ticket: String,
    },
    Status {
        ticket: String,
    },
}

/// `party.*`: players who want to stay together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartyRequest {
    Create,
    Join { code: String },
    Leave,
    Kick { player: String },
}

/// What the matchmaker says to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueMessage {
    Joined {
        ticket: TicketId,
    },
    Left {
        ticket: TicketId,
    },
    State {
        ticket: TicketId,
        queue: String,
        state: TicketState,
        waited_ms: u64,
        estimate_ms: Option<u64>,
    },
    /// Pushed: a seat is kept for the player.
    Matched {
        ticket: TicketId,
        target: MatchId,
        team: u32,
        players: Vec<MatchedPlayer>,
    },
    /// Pushed: nobody fitted in time.
    Expired {
        ticket: TicketId,
    },
}

/// Where a ticket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TicketState {
    Waiting,
    Matched,
    Expired,
}

impl TicketState {
    /// Returns the state as clients read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Matched => "matched",
            Self::Expired => "expired",
        }
    }
}

/// Somebody in the match that was formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedPlayer {
    pub player: PlayerId,
    pub name: String,
    pub team: u32,
}

/// `party.state`: the answer to every `party.*` request, and pushed on change. After `party.leave`, the party without the player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyState {
    pub party: PartyId,
    pub code: String,
    pub leader: PlayerId,
    /// In the order in which they joined.
    pub members: Vec<PlayerId>,
}
