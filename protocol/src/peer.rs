//! What nodes say to each other about matches, over the mesh's channels and requests.
//!
//! Two streams run between a gateway (the node of a socket) and an owner (the node of a match), for each match:
//! *up*, joins, leaves and inputs; *down*, [`DownFrame`]s, each of which names the `seq` before it in that stream, so that
//! the gateway sees a loss and asks for what is missing ([`UpBody::Resume`]).
//!
//! Written as MessagePack maps with short names: fields and variants may be added, and unknown fields are skipped; a message
//! that does not decode is dropped and counted.

mod chat;
mod mail;

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::chat::ChatWord;
pub use self::mail::{Letter, LetterBody, MailWord, Receipt, Traveller};
use crate::client::{ChatLine, JoinRole, ListedMatch, Payload, PayloadCodec, Role};
use crate::error::Refusal;
use crate::output::{Attachment, Output, PublishedValue};
use crate::{Digest, MatchId, NodeLife, NodeName, PlayerId, Seat, SessionId};

/// A message that is not one of ours.
#[derive(Debug, thiserror::Error)]
#[error("peer message does not decode")]
pub struct PeerDecodeError(#[from] rmp_serde::decode::Error);

/// Returns the bytes of a peer message.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    Bytes::from(rmp_serde::to_vec_named(message).expect("peer messages have string keys and known lengths"))
}

/// Values within values that are followed. What we say ourselves has a tenth of it; a field that is not known may hold anything,
/// and passing over one as deep as the library allows takes more stack than a thread of an unoptimised build has.
const DEPTH_MAX: usize = 128;

/// Reads a peer message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PeerDecodeError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    Ok(T::deserialize(&mut deserializer)?)
}

/// From a gateway to the owner of a match. Ordered per (gateway, owner); what is in flight when a connection breaks may be
/// lost, and the gateway says it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Up {
    #[serde(rename = "m")]
    pub target: MatchId,
    /// The gateway's number for its stream of this match; a higher one replaces the one before.
    #[serde(rename = "s")]
    pub stream: u64,
    #[serde(rename = "b")]
    pub body: UpBody,
}

/// What a gateway asks of an owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum UpBody {
    Join(Box<JoinRequest>),
    /// `req` comes back in [`Item::Left`].
    Leave {
        req: u64,
        seat: Seat,
        attachment: u64,
    },
    /// `n` is 0 for an input that the client did not number; `id` is the client's request number, if it wants an answer.
    Input {
        seat: Seat,
        #[serde(rename = "a")]
        attachment: u64,
        n: u64,
        id: Option<i64>,
        #[serde(rename = "d")]
        data: Bytes,
    },
    /// The seat's socket closed. Answered by [`Item::Left`] with `req`; the match keeps the seat for the grace.
    Detach {
        req: u64,
        seat: Seat,
        attachment: u64,
    },
    /// These seats sit at the gateway, with these attachment numbers. An owner that took the gateway for dead meanwhile seats
    /// them again, and tells each what it missed by an [`Output`] that says where it sits.
    Here {
        seats: Vec<(Seat, u64)>,
        /// Who sits in each of them, and in which session: an owner that goes on from an older state may not know.
        #[serde(default)]
        players: Vec<(PlayerId, SessionId)>,
    },
    /// The gateway missed something after `last`: serve it from the ring, or reset it.
    Resume {
        last: u64,
    },
    /// All outputs up to `last` are with the gateway.
    Confirm {
        last: u64,
    },
}

/// A player at a gateway wants a seat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Comes back in [`Item::Refused`].
    pub req: u64,
    pub player: PlayerId,
    pub name: String,
    pub role: JoinRole,
    pub ctx: WirePayload,
    pub attachment: Attachment,
    /// A player who was transferred follows their seat: they sit there already, or are on the way, and take no new seat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_following: bool,
}

/// A client's payload before the module's codec is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WirePayload {
    Absent,
    Json(Bytes),
    Raw(Bytes),
}

impl From<Payload> for WirePayload {
    fn from(payload: Payload) -> Self {
        match payload {
            Payload::Absent => WirePayload::Absent,
            Payload::Json(bytes) => WirePayload::Json(bytes),
            Payload::Raw(bytes) => WirePayload::Raw(bytes),
        }
    }
}

impl From<WirePayload> for Payload {
    fn from(payload: WirePayload) -> Self {
        match payload {
            WirePayload::Absent => Payload::Absent,
            WirePayload::Json(bytes) => Payload::Json(bytes),
            WirePayload::Raw(bytes) => Payload::Raw(bytes),
        }
    }
}

/// From the owner of a match to one gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Down {
    Frame(DownFrame),
    /// The match is not on this node (any more): look it up again and send again in order. `epoch` is the last that this node
    /// knew, 0 if it never had the match.
    NotHere {
        target: MatchId,
        stream: u64,
        epoch: u64,
    },
    /// The match is on this node now, under this epoch, whoever had it before. Said to every node.
    Here {
        target: MatchId,
        epoch: u64,
        incarnation: u64,
    },
    /// The player of this session has come to the match from another one, and nobody has followed them here: the other one may be
    /// unable to say where they went. Said again until somebody follows, or nobody is expected any more.
    Arrived {
        target: MatchId,
        epoch: u64,
        from: MatchId,
        session: SessionId,
    },
}

/// A piece of one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DownFrame {
    #[serde(rename = "m")]
    pub target: MatchId,
    #[serde(rename = "s")]
    pub stream: u64,
    #[serde(rename = "e")]
    pub epoch: u64,
    /// The highest `seq` sent in this stream before this frame.
    #[serde(rename = "p")]
    pub prev: u64,
    /// The highest `seq` of the stream after it.
    #[serde(rename = "l")]
    pub last: u64,
    /// With the first join of a stream.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Arc<MatchHead>>,
    #[serde(rename = "i")]
    pub items: Vec<Item>,
}

/// What a gateway must know of a match to speak to its clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchHead {
    pub module: String,
    pub codec: PayloadCodec,
    pub tick_hz: u32,
}

/// One thing in a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Item {
    #[serde(rename = "o")]
    Output(Arc<Output>),
    /// Inputs of the seat up to `n` had their effect in outputs up to `seq`.
    #[serde(rename = "a")]
    Ack {
        seat: Seat,
        n: u64,
        seq: u64,
    },
    /// An input without a number, whose client wanted an answer, was applied.
    Applied {
        seat: Seat,
        id: i64,
    },
    /// The match logic was cut off at an input, which is used up and has no effect. `n` is 0 for one without a number; `id` is the
    /// request of that one, whose client wanted an answer.
    Failed {
        seat: Seat,
        n: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<i64>,
        /// The trap's kind.
        reason: String,
    },
    /// Input `n` never came: send again from there.
    Resend {
        seat: Seat,
        n: u64,
    },
    /// The join `req` was refused.
    Refused {
        req: u64,
        refusal: Refusal,
    },
    Left {
        req: u64,
        seat: Seat,
    },
    /// Another connection of the same player took the seat; this one has it no more.
    Replaced {
        seat: Seat,
        attachment: u64,
    },
    /// The match knows nothing of this seat: it goes on from a state that is older than it.
    Gone {
        seat: Seat,
        attachment: u64,
    },
    /// The player of the join `req`, who follows a transfer, sits in that match now.
    Moved {
        req: u64,
        to: MatchId,
        owner: NodeLife,
        epoch: u64,
    },
    /// What the seat missed is gone: it goes on from `seq` and `n` with these values; the module sends the full view next.
    Reset {
        seat: Seat,
        seq: u64,
        n: u64,
        values: Vec<PublishedValue>,
    },
    Over(Over),
}

/// How a match ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Over {
    Ended { result: Bytes },
    Failed { reason: String },
    Lost,
}

/// A question from one node to another; answered within the asker's deadline or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PeerRequest {
    /// A hint that a row in status `starting` names you as its owner; answered when it runs or will not.
    Start {
        target: MatchId,
    },
    List(ListQuery),
    /// All that this node says of itself in `GET /v1/cluster`.
    Summary,
    View {
        target: MatchId,
    },
    Views {
        after: Option<MatchId>,
        limit: u32,
        /// Only matches of this module.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        module: Option<String>,
    },
    End {
        target: MatchId,
    },
    /// Hand this match of yours over to that node.
    Move {
        target: MatchId,
        to: NodeName,
        cause: MoveCause,
    },
    /// A match of this module is about to come: have it compiled.
    Prepare {
        digest: Digest,
    },
    /// Have this match of yours go on under that version of its module. Answered when it does, or will not.
    Upgrade {
        target: MatchId,
        digest: Digest,
    },
    /// One piece of an encoded [`Handover`], counted from 0. The last one is answered when the match is the receiver's, or will
    /// not be.
    Take {
        target: MatchId,
        epoch: u64,
        piece: u32,
        pieces: u32,
        bytes: Bytes,
    },
    Kick {
        target: MatchId,
        player: PlayerId,
        reason: String,
    },
    /// Leave the cluster within this time.
    Drain {
        deadline_ms: u64,
    },
    /// Lines of a `dm:` that players there may want to hear; answered when they are with them. May be said again.
    Lines {
        channel: String,
        lines: Vec<ChatLine>,
    },
    /// Which of these zones are on you, how many players are in each, and whether this player is.
    Zones {
        targets: Vec<MatchId>,
        #[serde(default)]
        player: Option<PlayerId>,
    },
    /// Whether this player sits in that match of yours, or where they went from there.
    Standing {
        target: MatchId,
        player: PlayerId,
    },
    /// Record this match of yours, or find the recording of it that you kept, and have it wait.
    Record {
        target: MatchId,
    },
    /// One piece of a recording that waits, counted from 0. It is forgotten with the last one.
    RecordPiece {
        ticket: u64,
        piece: u32,
    },
    /// Where a match is, asked of a home of its directory entry.
    WhereIs {
        target: MatchId,
    },
    /// Which match has this name, and where it is.
    WhoIs {
        name: String,
    },
    /// Which modules you have compiled.
    Compiled,
}

/// Why a match goes to another node while both live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveCause {
    Drain,
    Rebalance,
    /// Also what an owner of an earlier version means, which does not say.
    #[default]
    Operator,
}

/// A match on its way from its owner to the next one: all that it is at an event boundary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Handover {
    pub target: MatchId,
    /// The epoch under which the sender owns it; the receiver takes it under the next one.
    pub epoch: u64,
    /// The version of the module that saved it.
    pub saved_by: String,
    /// What the match logic saved.
    pub state: Bytes,
    /// What the host keeps for the match, encoded, its recent outputs included.
    pub part: Bytes,
    pub streams: Vec<HandedStream>,
    #[serde(default)]
    pub cause: MoveCause,
}

/// A stream that goes on from another owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedStream {
    pub gateway: NodeLife,
    pub number: u64,
    /// The highest `seq` that the gateway said it has.
    pub confirmed: u64,
    pub seats: Vec<HandedSeat>,
}

/// A seat in a stream that goes on from another owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedSeat {
    pub seat: Seat,
    pub role: Role,
    /// The join that brought it here.
    pub req: u64,
    /// The last `seq` before it came.
    pub since: u64,
    /// It was given up, and is owed what was said to it until then.
    pub left_at: Option<u64>,
    /// The last input of a seat that was given up.
    #[serde(default)]
    pub left_n: u64,
}

/// Which live matches are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListQuery {
    pub module: Option<String>,
    pub label: Vec<(String, String)>,
    pub after: Option<MatchId>,
    pub limit: u32,
    /// Only those that `match.quick` may use: joinable, with room, of this digest.
    pub quick: Option<Digest>,
}

/// The answer to a [`PeerRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PeerAnswer {
    Done,
    Refused(Refusal),
    /// The match is not here.
    NotHere,
    Listed(Vec<ListedMatch>),
    Summary(NodeSummary),
    View(Box<MatchView>),
    Views(Vec<MatchView>),
    Zones(Box<ZonesHere>),
    /// As far as this node has heard lately.
    Whereabouts(Whereabouts),
    Standing(Standing),
    Compiled(Vec<Digest>),
    /// A recording waits under this number.
    Recorded {
        ticket: u64,
        bytes: u64,
    },
    Piece(Bytes),
}

/// What a player is to a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    Seated,
    /// They are being transferred, and it is not decided yet.
    OnTheWay,
    /// They were transferred to that match.
    Went(MatchId),
    Unknown,
}

/// Where a match is, as the directory has it: soft state, proof of nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    pub target: MatchId,
    pub owner: NodeLife,
    pub epoch: u64,
    /// How often the match has gone on from less than it had released.
    #[serde(default)]
    pub incarnation: u64,
}

/// What the node of a player's sessions says of the player to all others, by the directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PresenceFact {
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// When the status was set or cleared, in Unix milliseconds; 0 for never.
    #[serde(rename = "t", default)]
    pub status_at: u64,
    /// The match that the player joined last and is still in.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub target: Option<MatchId>,
    #[serde(rename = "j", default)]
    pub target_at: u64,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSummary {
    pub sessions: u64,
    pub matches: u64,
    /// Players with a session here.
    #[serde(default)]
    pub players: u64,
    /// Of all players online in the cluster, those that this node counts: each is counted by one node.
    #[serde(default)]
    pub players_counted: u64,
    #[serde(default)]
    pub version: String,
    /// Why the node is not ready, if it is not.
    #[serde(default)]
    pub why: Option<String>,
}

/// What a node says of the zones that it was asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonesHere {
    /// Those that are on it.
    pub zones: Vec<ZoneHere>,
    /// From the leader: the names of zones that it is moving.
    #[serde(default)]
    pub moving: Vec<String>,
    /// From the leader: zones that do not start, and why.
    #[serde(default)]
    pub trouble: Vec<(String, String)>,
}

/// A zone that runs on the node that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneHere {
    pub target: MatchId,
    pub players: u32,
    /// Whether the player that was asked for has a seat in it.
    #[serde(default)]
    pub seated: bool,
}

/// A match as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchView {
    #[serde(rename = "match")]
    pub target: MatchId,
    pub module: String,
    pub digest: Digest,
    pub name: Option<String>,
    pub owner: Option<NodeName>,
    pub backup: Option<NodeName>,
    pub epoch: u64,
    /// `starting`, `running`, `ended`, `failed` or `lost`.
    pub status: String,
    pub players: u32,
    /// `memory`, `replicated` or `stored`.
    pub durability: String,
    pub state_hash: Option<String>,
    /// Why it failed, or its outcome as text, when it is over.
    #[serde(default)]
    pub outcome: Option<String>,
    /// The latest calls of the match logic that were cut off, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<MatchFailure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<MatchUsage>,
}

/// A call of the match logic that was cut off, for its author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchFailure {
    /// The number of the event, and its match time.
    pub event: u64,
    pub at_ms: u64,
    /// The export that was called, and the beginning of what it was given.
    pub call: String,
    pub input: String,
    /// The trap's kind, as in metrics.
    pub kind: String,
    pub message: String,
    /// Where the match logic was, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
    /// Which version of the module it was.
    pub digest: Digest,
    /// The match was put back to before the call and went on.
    pub undone: bool,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_over: Option<String>,
}

/// What a match uses of what it may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchUsage {
    /// Events so far, over all incarnations.
    pub events: u64,
    pub budgets: Vec<Budget>,
}

/// One budget. Those whose names begin with `call_` are of single calls: the most that one has used since the match is on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    pub name: String,
    pub used: u64,
    pub limit: u64,
}

impl Budget {
    /// One budget.
    pub fn new(name: &str, used: u64, limit: u64) -> Self {
        Self {
            name: name.to_owned(),
            used,
            limit,
        }
    }
}

/// Said to all nodes after a write of shared content: they read what they lack. Who misses it compares versions by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentNews {
    /// The version that content has now.
    pub version: u64,
}

/// Something of these players changed in the store: the node that they are connected to should look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayersNews {
    pub players: Vec<PlayerId>,
}
