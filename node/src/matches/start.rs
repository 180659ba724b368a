//! From a match's row to the record it starts with. The row is written before anyone starts the match, so that whoever does
//! starts the same one.

use rookery_protocol::error::{ErrorCode, Refusal};

use super::part::{Invitee, StartRecord};
use crate::config::Config;
use crate::store::{self, Configuration, MatchRow, MatchStatus, NewMatch};
use crate::wasm::{Durability, Limits, Manifest};

/// The limits that a match created now has for its life, as they stand in its row.
pub fn limits_text(config: &Config) -> String {
    let limits = Limits {
        memory_bytes: config.limits.match_memory.bytes(),
        call_cpu_us: config.limits.match_cpu.as_micros() as u64,
        ..Limits::default()
    };
    serde_json::to_string(&limits).expect("limits are plain numbers")
}

/// The row that now stands in the store for a match that was just created.
pub fn row_of(new: NewMatch, epoch: u64, created_at_ms: u64) -> MatchRow {
    MatchRow {
        id: new.id,
        kind: new.kind,
        name: new.name,
        module: new.module,
        digest: new.digest,
        durability: new.durability,
        params: new.params,
        seed: new.seed,
        limits: new.limits,
        invited: new.invited,
        creator: new.creator,
        private: new.private,
        configuration: Configuration {
            epoch,
            owner: new.owner,
            backup: new.backup,
        },
        incarnation: 0,
        status: MatchStatus::Starting,
        outcome: None,
        reason: None,
        quick_key: new.quick_key,
        created_at_ms,
        started_at_ms: None,
        ended_at_ms: None,
    }
}

/// A manifest's durability in the words of the store.
pub fn stored_durability(durability: Durability) -> store::Durability {
    match durability {
        Durability::Memory => store::Durability::Memory,
        Durability::Replicated => store::Durability::Replicated,
        Durability::Stored => store::Durability::Stored,
    }
}

/// What the match of this row starts with.
///
/// # Errors
/// `internal` for a row that this version cannot read.
pub fn record(row: &MatchRow, manifest: &Manifest) -> Result<StartRecord, Refusal> {
    let unreadable = |what: &str, error: serde_json::Error| {
        tracing::error!(target = %row.id, what, %error, "a match's row cannot be read");
        Refusal::new(ErrorCode::Internal, "the match's row cannot be read by this version")
    };
    let limits: Limits = serde_json::from_str(&row.limits).map_err(|error| unreadable("limits", error))?;
    let invited: Vec<Invitee> = serde_json::from_str(&row.invited).map_err(|error| unreadable("invited", error))?;
    Ok(StartRecord {
        match_id: row.id,
        module: row.module.clone(),
        digest: row.digest,
        codec: manifest.codec,
        durability: manifest.durability,
        tick_hz: manifest.tick_hz,
        min_players: manifest.min_players,
        max_players: manifest.max_players,
        max_spectators: manifest.max_spectators,
        grace_ms: manifest.grace_ms,
        quick_play: manifest.quick_play,
        listed: manifest.listed,
        name: row.name.clone(),
        params: row.params.clone(),
        seed: row.seed,
        limits,
        invited,
        unix_start_ms: row.created_at_ms,
        incarnation: row.incarnation as u32,
    })
}
