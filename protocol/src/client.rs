//! Client protocol, version 1: what a WebSocket frame may say, and the frames that answer it. The shapes are CONTRACT's; this
//! file is their types, `client/decode.rs` reads them and `client/encode.rs` writes them, in JSON and in MessagePack.
//!
//! Payloads (`data`, `ctx`, `params`, `result`) are opaque here: a [`Payload`] keeps the bytes as they came, and becomes the
//! module's bytes only when the module's codec is known.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{MatchId, Seat};

mod channel;
mod decode;
mod encode;
mod msgpack;
mod presence;
mod queue;
mod storage;
mod tree;
mod value;
mod world;

pub use channel::{ChannelMessage, ChannelRequest, ChatLine};
pub use presence::{PlayerPresence, PresenceMessage, PresenceRequest};
pub use queue::{MatchedPlayer, PartyRequest, PartyState, QueueMessage, QueueRequest, TicketState};
pub use storage::{StorageMessage, StorageRequest, StoredValue};
pub use world::{WorldMessage, WorldRequest, WorldState, ZoneState};

pub use decode::{BadFrame, BadPayload, decode, is_json_text};
pub use encode::{encode_match_ack, encode_match_applied, encode_match_data};
pub use tree::{Tree, TreeError};

/// How one connection's frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `rookery.v1.json`: text frames.
    Json,
    /// `rookery.v1.msgpack`: binary frames.
    MsgPack,
}

/// How a module's payload bytes travel to clients (match.wit, `codec`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadCodec {
    Json,
    Binary,
}

/// A payload as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Payload {
    /// The field was not there.
    #[default]
    Absent,
    /// The text of one JSON value, from a JSON frame.
    Json(Bytes),
    /// `bin` (or `str`, taken as its UTF-8 bytes) from a MessagePack frame.
    Raw(Bytes),
}

/// A frame's request and the number its answer will carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    pub id: Option<i64>,
    pub request: Request,
}

/// What a client may ask.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    SessionOpen(SessionOpen),
    SessionPing {
        t: Option<f64>,
    },
    SessionClose,
    MatchCreate {
        module: String,
        params: Payload,
        private: bool,
        name: Option<String>,
    },
    MatchQuick {
        module: String,
        label: Vec<(String, String)>,
        params: Payload,
        ctx: Payload,
    },
    MatchList {
        module: Option<String>,
        label: Vec<(String, String)>,
        limit: Option<u32>,
        cursor: Option<String>,
    },
    MatchJoin {
        target: String,
        ctx: Payload,
        role: JoinRole,
        since: Option<u64>,
    },
    MatchLeave {
        target: String,
    },
    MatchSend {
        target: String,
        data: Payload,
        n: Option<u64>,
    },
    Queue(QueueRequest),
    Party(PartyRequest),
    Channel(ChannelRequest),
    Presence(PresenceRequest),
    Storage(StorageRequest),
    World(WorldRequest),
}

impl Request {
    /// Returns the `type` of the request's family: all of it, or what is before the dot for the cluster's services.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SessionOpen(_) => "session.open",
            Self::SessionPing { .. } => "session.ping",
            Self::SessionClose => "session.close",
            Self::MatchCreate { .. } => "match.create",
            Self::MatchQuick { .. } => "match.quick",
            Self::MatchList { .. } => "match.list",
            Self::MatchJoin { .. } => "match.join",
            Self::MatchLeave { .. } => "match.leave",
            Self::MatchSend { .. } => "match.send",
            Self::Queue(_) => "queue",
            Self::Party(_) => "party",
            Self::Channel(_) => "channel",
            Self::Presence(_) => "presence",
            Self::Storage(_) => "storage",
            Self::World(_) => "world",
        }
    }
}

/// What a client may join as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JoinRole {
    #[default]
    Player,
    Spectator,
}

/// The first message of every connection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionOpen {
    pub token: Option<String>,
    pub resume: Option<Resume>,
}

/// What a client that was here before says of what it has seen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resume {
    pub token: String,
    pub matches: Vec<(String, u64)>,
    pub channels: Vec<(String, u64)>,
}

/// Who sits where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayerInfo {
    pub seat: Seat,
    /// A player id, or the bot's own name space (`bot:<match>:<seat>`).
    pub player: String,
    pub name: String,
    /// `player`, `spectator` or `bot`.
    pub role: Role,
}

/// The role of a seat, as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Player,
    Spectator,
    Bot,
}

impl Role {
    /// Returns the role as clients read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Player => "player",
            Self::Spectator => "spectator",
            Self::Bot => "bot",
        }
    }
}

/// Why a seat was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    Left,
    TimedOut,
    Kicked,
    Transferred,
    Ended,
}

impl LeaveReason {
    /// Returns the reason as clients read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::TimedOut => "timed_out",
            Self::Kicked => "kicked",
            Self::Transferred => "transferred",
            Self::Ended => "ended",
        }
    }
}

/// A seat that was given up, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    pub seat: Seat,
    pub reason: LeaveReason,
}

/// Bytes of a module on their way to a client, and how they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadOut {
    pub codec: PayloadCodec,
    pub bytes: Bytes,
}

/// Everything a node may send: the answers and the pushes of CONTRACT section 3. `id` is given beside it when encoding.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    Error(crate::error::Refusal),
    SessionOpened {
        session: crate::SessionId,
        player: crate::PlayerId,
        node: String,
        nodes: Vec<String>,
        resume_token: String,
        resumed: bool,
        matches: Vec<ResumedMatch>,
        gone: Vec<GoneMatch>,
        grace_ms: u64,
        heartbeat_ms: u64,
    },
    SessionPong {
        t: Option<f64>,
        now: u64,
    },
    SessionClosed,
    SessionGoingAway {
        reason: String,
        within_ms: u64,
        nodes: Vec<String>,
    },
    SessionReplaced,
    MatchCreated {
        target: MatchId,
    },
    MatchListed {
        matches: Vec<ListedMatch>,
        cursor: Option<String>,
    },
    MatchJoined(MatchJoined),
    MatchLeft {
        target: MatchId,
    },
    MatchApplied {
        target: MatchId,
        n: Option<u64>,
        data: Option<PayloadOut>,
    },
    MatchData {
        target: MatchId,
        seq: u64,
        at: u64,
        data: Option<PayloadOut>,
        key: Option<String>,
        removed: bool,
    },
    MatchPlayers {
        target: MatchId,
        seq: u64,
        joined: Vec<PlayerInfo>,
        left: Vec<Departure>,
        away: Vec<Seat>,
        back: Vec<Seat>,
    },
    MatchKicked {
        target: MatchId,
        seq: u64,
        reason: String,
    },
    MatchResend {
        target: MatchId,
        n: u64,
    },
    MatchWaiting {
        target: MatchId,
        why: String,
    },
    MatchAck {
        target: MatchId,
        n: u64,
        seq: u64,
    },
    MatchReset {
        target: MatchId,
        seq: u64,
        n: u64,
    },
    /// Transferred from `from` to the match of `joined`.
    MatchMoved {
        from: MatchId,
        joined: MatchJoined,
    },
    MatchEnded {
        target: MatchId,
        result: PayloadOut,
    },
    MatchLost {
        target: MatchId,
    },
    MatchFailed {
        target: MatchId,
        reason: String,
    },
    Queue(QueueMessage),
    Party(PartyState),
    Channel(ChannelMessage),
    Presence(PresenceMessage),
    Storage(StorageMessage),
    World(WorldMessage),
}

/// The answer to `match.join` and `match.quick`.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchJoined {
    pub target: MatchId,
    pub module: String,
    pub seat: Seat,
    pub seq: u64,
    pub n: u64,
    pub at: u64,
    pub players: Vec<PlayerInfo>,
    pub codec: PayloadCodec,
    pub tick_hz: u32,
}

/// A match that a resumed session still sits in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumedMatch {
    pub target: MatchId,
    pub seat: Seat,
    pub seq: u64,
    pub n: u64,
    pub codec: PayloadCodec,
}

/// A match that a resumed session named and that is over for it.
#[derive(Debug, Clone, PartialEq)]
pub struct GoneMatch {
    pub target: String,
    pub why: String,
    pub result: Option<PayloadOut>,
    /// Where the player is instead.
    pub to: Option<MatchId>,
}

/// One line of `match.listed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedMatch {
    #[serde(rename = "match")]
    pub target: MatchId,
    pub module: String,
    pub players: u32,
    pub max_players: u32,
    #[serde(with = "label_map")]
    pub label: Vec<(String, String)>,
    pub joinable: bool,
    pub node: String,
}

/// A label travels as a map, in the order in which the module gave it.
mod label_map {
    use serde::de::{MapAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(label: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(label.iter().map(|(key, value)| (key, value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(String, String)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
