//! What can happen to a match, and the record of it. Events are applied one at a time; the record of an event (the event, its
//! outcome, the answers from outside that it used) is all that a replay needs besides a snapshot.

use bytes::Bytes;
use rookery_protocol::client::{LeaveReason, Role};
pub use rookery_protocol::output::Attachment;
pub use rookery_protocol::peer::Traveller;
use rookery_protocol::{Digest, MatchId, PlayerId, Seat};
use serde::{Deserialize, Serialize};

use super::effect::EffectId;

/// One input of the deterministic machine. What the host decided before (which seat, which team) is part of the event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The first event. The set-up (id, name, params, invited) is in the match's [`StartRecord`](super::part::StartRecord).
    #[default]
    Start,
    /// The first event of an instance that goes on from what another one saved, in place of `Start`.
    Load {
        /// The version of the module that saved it.
        saved_by: String,
        state: Bytes,
    },
    /// The first event of an instance of another version of the module, which goes on from what the one before saved. The match
    /// logic loads it and hears `match.resumed`.
    Upgrade {
        from: Digest,
        to: Digest,
        saved_by: String,
        state: Bytes,
    },
    Join {
        seat: Seat,
        occupant: Occupant,
        ctx: Bytes,
    },
    Leave {
        seat: Seat,
        reason: LeaveReason,
    },
    /// `n` is 0 for an input without a number.
    Message {
        seat: Seat,
        n: u64,
        data: Bytes,
    },
    Tick {
        elapsed_ms: u32,
    },
    Timer {
        id: u32,
    },
    Receive {
        sender: String,
        data: Bytes,
        #[serde(default)]
        stamp: Option<Stamp>,
    },
    /// A player arrives from another match; the seat is the next one. Refused when there is no room.
    Arrive {
        stamp: Stamp,
        traveller: Traveller,
    },
    /// A player whose transfer was refused is back; the seat is the next one. The match logic cannot refuse.
    Return {
        traveller: Traveller,
    },
    /// It is known which match a mail goes to; from now on it has a number. No guest call.
    Addressed {
        effect: EffectId,
        to: MatchId,
    },
    /// `effect` leaves the outbox; none when the request never got there (the outbox was full).
    Answer {
        request: u32,
        effect: Option<EffectId>,
        outcome: Result<Vec<Entry>, String>,
    },
    /// An effect that nobody waits for (`say`, `release`, mail that arrived) is done and leaves the outbox. No guest call.
    Settled {
        effect: EffectId,
    },
    Signal {
        topic: Topic,
    },
    /// The seat's player came back, or missed outputs that are gone. With `attach`, its new connection is told first where it
    /// sits (an output [`Body::Joined`](super::output::Body)).
    Resync {
        seat: Seat,
        attach: Option<Attachment>,
    },
    /// A reservation has run out. No guest call.
    Unreserve {
        player: PlayerId,
    },
    /// An operator throws a player out; `Leave` follows. No guest call.
    Kick {
        seat: Seat,
        reason: String,
    },
    /// The operator or the node ends the match; no guest call.
    End {
        reason: EndReason,
    },
    /// The match logic is asked for its logical state. It may change its memory meanwhile, so it is an event; what it asks for
    /// meanwhile goes nowhere.
    Save,
}

/// Topics of `signal`, with what their JSON says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topic {
    SeatAway { seat: Seat },
    SeatBack { seat: Seat },
    Operator { data: String },
    MatchResumed { reason: String },
    ContentChanged { collection: String, key: String },
}

/// Why a match was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    Operator,
    /// Nobody seated or away for `matches.empty_after`.
    Empty,
    Draining,
}

/// What a mail says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub from: MatchId,
    pub number: u64,
    /// The lowest number that the sender still holds for this match.
    pub held: u64,
}

/// Who takes a seat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupant {
    pub player: PlayerId,
    pub name: String,
    pub role: Role,
    pub team: Option<u32>,
    pub attachment: Attachment,
}

/// One durable value and its key (match.wit, `entry`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub key: String,
    pub data: Bytes,
    pub version: String,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    #[default]
    Applied,
    /// `start` or `join` returned an error: the guest ran and its state may have changed, the seat was not given.
    Refused,
    /// Undone: a trap, or a budget that ran out.
    Trapped(TrapKind),
    /// No guest call: the seat, timer or effect it speaks of is not there (any more), or the match is over.
    Stale,
}

/// Why a call was cut off. The metric label is [`TrapKind::as_str`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TrapKind {
    Trap,
    Time,
    Memory,
    HostCalls,
    Bytes,
    LogLines,
    BadOutput,
}

impl TrapKind {
    /// Every kind, for metrics that exist from the start.
    pub const ALL: [TrapKind; 7] = [
        Self::Trap,
        Self::Time,
        Self::Memory,
        Self::HostCalls,
        Self::Bytes,
        Self::LogLines,
        Self::BadOutput,
    ];

    /// The kind in journals. Never given to another.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Trap => 0,
            Self::Time => 1,
            Self::Memory => 2,
            Self::HostCalls => 3,
            Self::Bytes => 4,
            Self::LogLines => 5,
            Self::BadOutput => 6,
        }
    }

    pub(crate) fn of_code(code: u8) -> Option<TrapKind> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The kind as a metric label and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Time => "time",
            Self::Memory => "memory",
            Self::HostCalls => "host_calls",
            Self::Bytes => "bytes",
            Self::LogLines => "log_lines",
            Self::BadOutput => "bad_output",
        }
    }
}

/// The record of one event: replaying records on a snapshot gives the same effects, bit for bit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counted from 1 (`start`) in one match, over all incarnations.
    pub no: u64,
    /// The event's match time, milliseconds since the match started; never less than the one before.
    pub at_ms: u64,
    pub event: Event,
    pub outcome: Outcome,
    /// What the event asked of the world outside while it ran, in order. Empty for every event of today: requests are answered
    /// by later events. The field is here so that journals of today can be read when that changes.
    #[serde(default)]
    pub answers: Vec<Bytes>,
}
