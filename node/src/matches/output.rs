//! What a match says to its players, numbered: one `seq` per output, one numbering per match, so that a broadcast is encoded
//! once and shared.

use std::sync::Arc;

use bytes::Bytes;
use rookery_protocol::Seat;
use rookery_protocol::client::{Departure, PlayerInfo};
use serde::{Deserialize, Serialize};

use super::event::Attachment;

/// One numbered output, shared between the ring and every stream that carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    pub seq: u64,
    /// Match time in milliseconds.
    pub at_ms: u64,
    pub audience: Audience,
    pub body: Body,
}

/// Who hears an output. Seats are matched where the seats' roles are known: at the owner, and at each gateway for its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Audience {
    Everyone,
    Players,
    Spectators,
    One(Seat),
    Some(Arc<[Seat]>),
    Except(Seat),
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// `send`: reliable, in order.
    Data {
        data: Bytes,
    },
    /// `publish`: the newest value of a key counts. No data: the key was removed.
    Published {
        key: Arc<str>,
        data: Option<Bytes>,
    },
    Players {
        joined: Vec<PlayerInfo>,
        left: Vec<Departure>,
        away: Vec<Seat>,
        back: Vec<Seat>,
    },
    Kicked {
        reason: String,
    },
    /// Where a connection sits: the answer to its join. The audience is that seat.
    Joined(Arc<Joined>),
}

/// All that `match.joined` says, and the published values that this seat may see, in key order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    pub seat: Seat,
    pub attachment: Attachment,
    pub role: rookery_protocol::client::Role,
    /// The last input of this seat that was applied; the next one is `n + 1`.
    pub n: u64,
    pub players: Vec<PlayerInfo>,
    pub values: Vec<PublishedValue>,
}

/// The current value of a published key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedValue {
    pub key: Arc<str>,
    pub seq: u64,
    pub at_ms: u64,
    pub data: Bytes,
}
