//! How a state that serde can write travels from one version of a module to the next. Not the snapshot of a running match:
//! that is the host's work.
//!
//! It is JSON unless the author says otherwise: an author can read a saved match, a newer version may add fields, and in a module
//! that speaks JSON the code for it is there already (the duel is 117 KB with it and was 217 KB with MessagePack). A module that
//! speaks MessagePack says `serde_state!(msgpack)` for the same reason. Both write field names, so both may grow.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::Refusal;

/// Returns the state as JSON.
///
/// # Panics
/// When the type's own `Serialize` fails, or a map has keys that are neither strings nor integers.
pub fn write<T: Serialize>(state: &T) -> Vec<u8> {
    serde_json::to_vec(state).expect("the state cannot be written as JSON")
}

/// Returns the state that [`write()`] wrote, or refuses with what does not fit.
pub fn read<T: DeserializeOwned>(saved: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(saved).map_err(|error| Refusal::new(format!("the saved state does not fit: {error}")))
}

/// Returns the state as MessagePack, with field names.
///
/// # Panics
/// When the type's own `Serialize` fails.
pub fn write_msgpack<T: Serialize>(state: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(state).expect("the state cannot be written as MessagePack")
}

/// Returns the state that [`write_msgpack`] wrote, or refuses with what does not fit.
pub fn read_msgpack<T: DeserializeOwned>(saved: &[u8]) -> Result<T, Refusal> {
    rmp_serde::from_slice(saved).map_err(|error| Refusal::new(format!("the saved state does not fit: {error}")))
}
