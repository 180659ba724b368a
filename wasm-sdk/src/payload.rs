//! Bytes that clients and other matches sent, and how they are read. Payloads are other people's input: reading may fail, and
//! never panics.

use std::fmt;
use std::ops::Deref;

use serde::de::DeserializeOwned;

/// A payload as it arrived: JSON text in a module whose codec is JSON, any bytes otherwise. Dereferences to its bytes.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload(Vec<u8>);

/// The payload is not what was asked for. Nothing was changed; the reason is fit to be told to who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad payload: {0}")]
pub struct BadPayload(String);

impl Payload {
    /// Reads JSON. Nothing at all (what `match.join` without `ctx` passes) reads as `null`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, BadPayload> {
        let text: &[u8] = if self.0.is_empty() { b"null" } else { &self.0 };
        serde_json::from_slice(text).map_err(|error| BadPayload(error.to_string()))
    }

    /// Reads MessagePack, with or without field names.
    pub fn msgpack<T: DeserializeOwned>(&self) -> Result<T, BadPayload> {
        rmp_serde::from_slice(&self.0).map_err(|error| BadPayload(error.to_string()))
    }

    /// Returns the bytes without copying them.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for Payload {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes.to_vec())
    }
}

/// A JSON value as a JSON module would receive it.
impl From<serde_json::Value> for Payload {
    fn from(value: serde_json::Value) -> Self {
        Self(value.to_string().into_bytes())
    }
}

/// JSON text as it is.
impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) => write!(f, "Payload({text})"),
            Err(_) => write!(f, "Payload({:?})", self.0),
        }
    }
}
