//! What a module says of itself (match.wit, `manifest`), and which of it is believable. Constant for a digest.

use rookery_protocol::client::PayloadCodec;
use serde::{Deserialize, Serialize};

use super::host::bindings;

/// The answer of `describe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub codec: PayloadCodec,
    pub durability: Durability,
    pub tick_hz: u32,
    pub min_players: u32,
    pub max_players: u32,
    pub max_spectators: u32,
    pub grace_ms: u32,
    pub quick_play: bool,
    pub listed: bool,
    #[serde(default)]
    pub extra: Vec<(String, String)>,
}

/// What a match survives; each includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    Memory,
    Replicated,
    Stored,
}

impl Durability {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Replicated => "replicated",
            Self::Stored => "stored",
        }
    }
}

/// The highest tick rate: at 128 Hz a tick has 7.8 ms, less than one call may take.
pub const TICK_HZ_MAX: u32 = 128;

/// Seats of one role in one match. A seat costs the host a few hundred bytes, so this bounds what a manifest can ask for.
pub const SEATS_MAX: u32 = 100_000;

/// The longest grace: a seat that nobody sits in is kept no longer than a day.
pub const GRACE_MS_MAX: u32 = 24 * 60 * 60 * 1_000;

const NAME_LEN_MAX: usize = 64;
const VERSION_LEN_MAX: usize = 64;

impl Manifest {
    /// What is assumed of a module until it has described itself.
    pub(crate) fn unknown() -> Manifest {
        Manifest {
            name: String::new(),
            version: String::new(),
            codec: PayloadCodec::Binary,
            durability: Durability::Memory,
            tick_hz: 0,
            min_players: 0,
            max_players: 0,
            max_spectators: 0,
            grace_ms: 0,
            quick_play: false,
            listed: false,
            extra: Vec::new(),
        }
    }

    /// Whether the author does without images: such a match is carried on by `save` and `load` alone.
    pub fn declines_images(&self) -> bool {
        self.extra.iter().any(|(key, value)| key == "image" && value == "none")
    }

    /// What it asks for, in one line for its author.
    pub fn summary(&self) -> String {
        let codec = match self.codec {
            PayloadCodec::Json => "json",
            PayloadCodec::Binary => "binary",
        };
        let players = match self.max_players {
            max if max == self.min_players => format!("{max} players"),
            max => format!("{} to {max} players", self.min_players),
        };
        let ticks = match self.tick_hz {
            0 => "no ticks".to_owned(),
            hz => format!("{hz} ticks a second"),
        };
        let mut parts = vec![codec.to_owned(), players, ticks];
        if self.max_spectators > 0 {
            parts.push(format!("{} spectators", self.max_spectators));
        }
        parts.push(format!("{} s of grace", f64::from(self.grace_ms) / 1_000.0));
        parts.push(format!("durability {}", self.durability.as_str()));
        parts.push(if self.quick_play { "quick play" } else { "no quick play" }.to_owned());
        parts.push(if self.listed { "listed" } else { "not listed" }.to_owned());
        parts.join(", ")
    }

    /// Everything that is wrong with it, each a sentence for the author.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut require = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
        require(
            (1..=NAME_LEN_MAX).contains(&self.name.len()) && self.name.bytes().all(allowed),
            format!("name {:?} must be 1 to 64 of a-z, 0-9, '-', '_'", self.name),
        );
        require(
            (1..=VERSION_LEN_MAX).contains(&self.version.len()) && self.version.bytes().all(|c| c.is_ascii_graphic()),
            format!("version {:?} must be 1 to 64 visible ASCII characters", self.version),
        );
        require(
            self.tick_hz <= TICK_HZ_MAX,
            format!("tick-hz {} must be 0 to {TICK_HZ_MAX}", self.tick_hz),
        );
        require(
            (1..=SEATS_MAX).contains(&self.max_players),
            format!("max-players {} must be 1 to {SEATS_MAX}", self.max_players),
        );
        require(
            self.min_players <= self.max_players,
            format!(
                "min-players {} must not exceed max-players {}",
                self.min_players, self.max_players
            ),
        );
        require(
            self.max_spectators <= SEATS_MAX,
            format!("max-spectators {} must be 0 to {SEATS_MAX}", self.max_spectators),
        );
        require(
            self.grace_ms <= GRACE_MS_MAX,
            format!("grace-ms {} must be 0 to {GRACE_MS_MAX} (a day)", self.grace_ms),
        );
        faults
    }
}

impl From<bindings::Manifest> for Manifest {
    fn from(from: bindings::Manifest) -> Self {
        Self {
            name: from.name,
            version: from.version,
            codec: match from.codec {
                bindings::Codec::Json => PayloadCodec::Json,
                bindings::Codec::Binary => PayloadCodec::Binary,
            },
            durability: match from.durability {
                bindings::Durability::Memory => Durability::Memory,
                bindings::Durability::Replicated => Durability::Replicated,
                bindings::Durability::Stored => Durability::Stored,
            },
            tick_hz: from.tick_hz,
            min_players: from.min_players,
            max_players: from.max_players,
            max_spectators: from.max_spectators,
            grace_ms: from.grace_ms,
            quick_play: from.quick_play,
            listed: from.listed,
            extra: from.extra,
        }
    }
}
