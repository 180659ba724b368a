//! What a match says to its players, numbered: one `seq` per output, one numbering per match, so that a broadcast is encoded
//! once and shared. These types travel between nodes and stand in the owner's ring; they say nothing about sockets.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::client::{Departure, PlayerInfo, Role};
use crate::{NodeName, Seat, SessionId};

/// One numbered output, shared between the ring and every stream that carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Rises from output to output of one match; incarnation × 2^40 + count, so below 2^53.
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

impl Audience {
    /// Returns whether a seat of this role hears it. Bots have no connection, and count as players.
    pub fn includes(&self, seat: Seat, role: Role) -> bool {
        match self {
            Audience::Everyone => true,
            Audience::Players => role != Role::Spectator,
            Audience::Spectators => role == Role::Spectator,
            Audience::One(one) => *one == seat,
            Audience::Some(seats) => seats.contains(&seat),
            Audience::Except(one) => *one != seat,
        }
    }
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// `send`: reliable, in order.
    Data { data: Bytes },
    /// `publish`: the newest value of a key counts. No data: the key was removed.
    Published { key: Arc<str>, data: Option<Bytes> },
    /// Seats that came and went.
    Players {
        joined: Vec<PlayerInfo>,
        left: Vec<Departure>,
        away: Vec<Seat>,
        back: Vec<Seat>,
    },
    /// The audience's seat is no longer in the match.
    Kicked { reason: String },
    /// The audience's seat was given up for a transfer: its connection follows the player ([`JoinRequest`]).
    ///
    /// [`JoinRequest`]: crate::peer::JoinRequest
    Transferring,
    /// Where a connection sits: the answer to its join. The audience is that seat.
    Joined(Arc<Joined>),
}

/// All that `match.joined` says, and the published values that this seat may see, in key order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    pub seat: Seat,
    pub attachment: Attachment,
    pub role: Role,
    /// The last input of this seat that was applied; the next one is `n + 1`.
    pub n: u64,
    pub players: Vec<PlayerInfo>,
    pub values: Vec<PublishedValue>,
    /// What was said to the seat since it was given and before its connection came: of a player who was transferred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<Arc<Output>>,
}

/// The current value of a published key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedValue {
    pub key: Arc<str>,
    pub seq: u64,
    pub at_ms: u64,
    pub data: Bytes,
}

/// Which connection speaks for a seat. The highest `number` counts; the rest say where its answers go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// max(now in Unix milliseconds, the number in the resume token + 1), taken when the session was opened.
    pub number: u64,
    pub session: SessionId,
    pub node: NodeName,
    pub generation: u64,
}
