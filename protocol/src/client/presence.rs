//! Presence's part of the client protocol.

use crate::{MatchId, PlayerId};

/// `presence.*`: what a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceRequest {
    /// No status clears it.
    Set {
        status: Option<String>,
    },
    Watch {
        players: Vec<String>,
    },
    /// Nobody named: all of them.
    Unwatch {
        players: Vec<String>,
    },
}

/// What presence says to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceMessage {
    State {
        players: Vec<PlayerPresence>,
    },
    /// Pushed.
    Changed {
        player: PlayerId,
        online: bool,
        status: Option<String>,
    },
}

/// How a player is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlayerPresence {
    pub player: PlayerId,
    pub online: bool,
    pub status: Option<String>,
    pub target: Option<MatchId>,
}
