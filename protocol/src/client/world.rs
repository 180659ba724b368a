//! The part of the client protocol that is about worlds.

use super::Payload;
use crate::MatchId;

/// `world.*`: what a client asks.
#[derive(Debug, Clone, PartialEq)]
pub enum WorldRequest {
    List,
    /// Answered like `match.join`: a zone is a match.
    Enter {
        world: String,
        zone: Option<String>,
        ctx: Payload,
    },
}

/// What a client hears of worlds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorldMessage {
    Listed { worlds: Vec<WorldState> },
}

/// A world, as players see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorldState {
    pub world: String,
    pub online: bool,
    /// Why it is not online.
    pub why: Option<String>,
    pub zones: Vec<ZoneState>,
}

/// A zone, as players see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneState {
    pub zone: String,
    pub target: Option<MatchId>,
    /// `running`, `moving` or `missing`.
    pub state: String,
    pub players: u32,
    /// The zones that one may walk to from here.
    pub neighbours: Vec<String>,
}
