//! What the node tells match logic, as plain data: who plays, why, and what became of requests. The words are those of
//! `match.wit`; records that may grow there are non-exhaustive here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::payload::{BadPayload, Payload};

/// A player's place in one match; small, and never reused within the match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seat(pub u32);

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who hears an output. A [`Seat`] converts into the output for that seat alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Players and spectators.
    Everyone,
    /// Players only.
    Players,
    /// Spectators only.
    Spectators,
    /// One seat.
    Seat(Seat),
    /// These seats.
    Seats(Vec<Seat>),
    /// Everyone but this seat.
    Except(Seat),
}

impl From<Seat> for To {
    fn from(seat: Seat) -> Self {
        Self::Seat(seat)
    }
}

impl From<Vec<Seat>> for To {
    fn from(seats: Vec<Seat>) -> Self {
        Self::Seats(seats)
    }
}

/// What a seat is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Plays.
    Player,
    /// Watches.
    Spectator,
    /// Is played by the match itself.
    Bot,
}

/// Why a seat became free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// The player left.
    Left,
    /// The player's connection dropped, and the grace period is over.
    TimedOut,
    /// The match or an operator kicked the player.
    Kicked,
    /// The player went to another match.
    Transferred,
    /// The match is over.
    Ended,
}

/// Who sits on a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Player {
    /// The place in this match.
    pub seat: Seat,
    /// Who it is, the same in every match.
    pub id: String,
    /// The name to show.
    pub name: String,
    /// What the seat is for.
    pub role: Role,
    /// The team that the matchmaker chose.
    pub team: Option<u32>,
    /// What newer nodes say.
    pub extra: Vec<(String, String)>,
}

impl Player {
    /// Returns the id of the match that transferred the player here, or this match's own when they come back from a transfer that
    /// was refused; none when the player's client asked to join. What comes with the player is that match's word then, and the
    /// client's otherwise, who may pass anything.
    pub fn transferred_from(&self) -> Option<&str> {
        let mut extra = self.extra.iter();
        extra.find(|(name, _)| name == FROM).map(|(_, from)| from.as_str())
    }
}

/// The property of a player who was transferred.
pub(crate) const FROM: &str = "from";

/// A player for whom the matchmaker reserved a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invitee {
    /// Who it is.
    pub player_id: String,
    /// The team that the matchmaker chose.
    pub team: u32,
    /// The party that queued together.
    pub party: Option<String>,
    /// The ticket's properties, a JSON object as text.
    pub properties: String,
}

/// How a match was created.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Setup {
    /// The match's id.
    pub match_id: String,
    /// The registered name, for zones and other named matches.
    pub name: Option<String>,
    /// What the creator passed; empty when nothing was.
    pub params: Payload,
    /// Whom the matchmaker invited.
    pub invited: Vec<Invitee>,
    /// What newer nodes say.
    pub extra: Vec<(String, String)>,
}

/// A logical state on its way into [`Match::load`](crate::Match::load).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// The version of the module that saved it.
    pub by: String,
    /// What [`Match::save`](crate::Match::save) returned.
    pub state: Vec<u8>,
}

/// Why something is refused, in words for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(String);

impl Refusal {
    /// Returns a refusal with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Returns the reason.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self::new(reason)
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<BadPayload> for Refusal {
    fn from(error: BadPayload) -> Self {
        Self(error.to_string())
    }
}

/// One durable value and its key. `version` changes with every write of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key within its collection.
    pub key: String,
    /// The value; empty in the answer to a write.
    pub data: Payload,
    /// What [`If::Version`](crate::context::If::Version) compares.
    pub version: String,
}

/// Why a request came to nothing. New reasons may come: [`Other`](Failure::Other).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The value has another version.
    Conflict,
    /// There is no such value.
    NotFound,
    /// The value is larger than the store takes.
    TooLarge,
    /// The mail's or transfer's target does not exist or has ended.
    NoTarget,
    /// The target refused the player.
    Refused,
    /// The name belongs to another match.
    Taken,
    /// Too many requests of this match are under way.
    Busy,
    /// The store cannot be reached now.
    Unavailable,
    /// A reason that this version of the SDK does not know.
    Other(String),
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        match reason {
            "conflict" => Self::Conflict,
            "not_found" => Self::NotFound,
            "too_large" => Self::TooLarge,
            "no_target" => Self::NoTarget,
            "refused" => Self::Refused,
            "taken" => Self::Taken,
            "busy" => Self::Busy,
            "unavailable" => Self::Unavailable,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// A notice from the node, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// What it is about.
    pub topic: String,
    /// JSON text, whatever the module's codec.
    pub data: String,
}

/// What a [`Signal`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The connection of this seat's player dropped; the grace period runs.
    Away(Seat),
    /// The player came back in time.
    Back(Seat),
    /// An operator sent this JSON value.
    Operator(serde_json::Value),
    /// The match goes on after a [`load`](crate::Match::load).
    Resumed {
        /// Why it had to be loaded.
        reason: String,
    },
    /// Shared read-only data changed.
    ContentChanged {
        /// The collection of the changed value.
        collection: String,
        /// Its key.
        key: String,
    },
    /// A topic that this version of the SDK does not know, or whose data it cannot read: to be ignored.
    Unknown,
}

impl Signal {
    /// Reads the signal. It is not read before it is asked for: most match logic hears none.
    pub fn read(&self) -> Notice {
        #[derive(Deserialize)]
        struct Data {
            seat: Option<Seat>,
            data: Option<serde_json::Value>,
            reason: Option<String>,
            collection: Option<String>,
            key: Option<String>,
        }
        let Ok(data) = serde_json::from_str::<Data>(&self.data) else {
            return Notice::Unknown;
        };
        let notice = match self.topic.as_str() {
            "seat.away" => data.seat.map(Notice::Away),
            "seat.back" => data.seat.map(Notice::Back),
            "operator" => Some(Notice::Operator(data.data.unwrap_or_default())),
            "match.resumed" => Some(Notice::Resumed {
                reason: data.reason.unwrap_or_default(),
            }),
            "content.changed" => data
                .collection
                .zip(data.key)
                .map(|(collection, key)| Notice::ContentChanged { collection, key }),
            _ => None,
        };
        notice.unwrap_or(Notice::Unknown)
    }
}
