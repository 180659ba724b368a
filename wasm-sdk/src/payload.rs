//! Bytes that clients and other matches sent, and how they are read. Payloads are other people's input: reading may fail, and
//! never panics.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A payload as it arrived: JSON text in a module whose codec is JSON, any bytes otherwise. Dereferences to its bytes.
///
/// Messages are best types of the author's own, which serde reads and writes. A module that begins its manifest with
/// [`Manifest::json`](crate::Manifest::json) uses the calls that end in `_json`, one that begins with
/// [`Manifest::binary`](crate::Manifest::binary) those that end in `_msgpack`, or bytes of its own:
///
/// ```
/// use rookery_sdk::Payload;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// enum Input {
///     Steer { x: f32, y: f32 },
///     Shout(String),
/// }
///
/// let steer = Input::Steer { x: 0.5, y: -1.0 };
/// let as_json = Payload::of_json(&steer);
/// assert_eq!(&*as_json, br#"{"Steer":{"x":0.5,"y":-1.0}}"#);
/// assert_eq!(as_json.json(), Ok(steer));
/// assert!(Payload::of_msgpack(&Input::Shout("hello".into())).msgpack::<Input>().is_ok());
/// assert!(Payload::from("no message").json::<Input>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload(Vec<u8>);

/// The payload is not what was asked for. Nothing was changed; the reason is fit to be told to who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad payload: {0}")]
pub struct BadPayload(String);

impl Payload {
    /// Returns a value as JSON, as a client of a JSON module would send it.
    ///
    /// # Panics
    /// When the type's own `Serialize` fails, or a map has keys that are not strings.
    pub fn of_json<T: Serialize + ?Sized>(value: &T) -> Self {
        Self(to_json(value))
    }

    /// Returns a value as MessagePack with field names, as a client of a binary module would send it.
    ///
    /// # Panics
    /// When the type's own `Serialize` fails.
    pub fn of_msgpack<T: Serialize + ?Sized>(value: &T) -> Self {
        Self(to_msgpack(value))
    }

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

pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("the value cannot be written as JSON")
}

pub(crate) fn to_msgpack<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("the value cannot be written as MessagePack")
}
