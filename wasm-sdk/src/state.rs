//! How a state that serde can write travels from one version of a module to the next. Not the snapshot of a running match:
//! that is the host's work.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::Refusal;

/// Returns the state as MessagePack with field names.
///
/// # Panics
/// When the type's own `Serialize` fails.
pub fn write<T: Serialize>(state: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(state).expect("the state's Serialize implementation failed")
}

/// Returns the state that [`write`] wrote, or refuses with what does not fit.
pub fn read<T: DeserializeOwned>(saved: &[u8]) -> Result<T, Refusal> {
    rmp_serde::from_slice(saved).map_err(|error| Refusal::new(format!("the saved state does not fit: {error}")))
}
