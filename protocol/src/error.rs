//! Error codes that clients see. Short, stable, documented; never renamed, never given a new meaning.

use std::fmt;

mod details;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a request was refused, as clients see it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the contract.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The code on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $text,)*
                }
            }

            /// The code with this text; none for a code that this version does not know.
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(ErrorCode::$name),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    BadMessage = "bad_message",
    UnknownType = "unknown_type",
    TooLarge = "too_large",
    Unauthenticated = "unauthenticated",
    Forbidden = "forbidden",
    /// `details.retry_ms` says when to try again.
    RateLimited = "rate_limited",
    NotReady = "not_ready",
    Draining = "draining",
    Unavailable = "unavailable",
    Internal = "internal",
    MatchNotFound = "match.not_found",
    MatchFull = "match.full",
    MatchClosed = "match.closed",
    /// `details.reason` is the module's.
    MatchRefused = "match.refused",
    MatchNotJoined = "match.not_joined",
    MatchTooMany = "match.too_many",
    MatchInputFailed = "match.input_failed",
    ModuleNotFound = "module.not_found",
    ModuleInvalid = "module.invalid",
    /// Where modules must be signed: not by a key that counts. `details.reason` is `unsigned`, `other_key` or `malformed`.
    ModuleUnsigned = "module.unsigned",
    /// `details.limit` says how many there may be.
    ModuleTooMany = "module.too_many",
    /// It cannot be removed: live matches use it, or its name means it.
    ModuleInUse = "module.in_use",
    NameTaken = "name.taken",
    QueueUnknown = "queue.unknown",
    QueueFull = "queue.full",
    QueueAlreadyWaiting = "queue.already_waiting",
    PartyNotFound = "party.not_found",
    PartyFull = "party.full",
    ChannelInvalid = "channel.invalid",
    ChannelForbidden = "channel.forbidden",
    ChannelTooMany = "channel.too_many",
    StorageConflict = "storage.conflict",
    StorageNotFound = "storage.not_found",
    StorageTooLarge = "storage.too_large",
    WorldNotOnline = "world.not_online",
    WorldNotFound = "world.not_found",
    NodeNotFound = "node.not_found",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl serde::Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for ErrorCode {
    /// A code of a newer version reads as `internal`.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Ok(Self::parse(&text).unwrap_or(Self::Internal))
    }
}

/// A refusal on its way to a client: the code, a sentence for people, and details for programs (a JSON object).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
    #[serde(default, deserialize_with = "details::read")]
    pub details: serde_json::Map<String, serde_json::Value>,
}

impl Refusal {
    /// A refusal without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: serde_json::Map::new(),
        }
    }

    /// The same refusal with one more detail.
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.details.insert(key.into(), value.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}
