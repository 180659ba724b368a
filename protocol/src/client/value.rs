//! One value inside a frame, not read yet: where its bytes are, in either encoding. Reading it checks its type. It borrows from
//! the frame and allocates only for JSON strings with escapes in them.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::msgpack::{Cursor, Head};
use super::{Encoding, Payload};

/// What is wrong with a frame, for the person who wrote the client.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault(Cow<'static, str>);

impl Fault {
    pub(super) const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    pub(super) fn new(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    fn wrong(field: &str, wanted: &str) -> Self {
        Self::new(format!("`{field}` must be {wanted}"))
    }

    pub(super) fn into_message(self) -> String {
        self.0.into_owned()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The longest object that is read: half as much again as those who want one (`queue.join`) take of its text. In memory an object takes
/// up to two hundred bytes for each of its own, and a whole frame of one took 6 MB.
const OBJECT_LEN_MAX: usize = 6 << 10;

/// A value's text in a JSON frame, or its bytes in a MessagePack frame.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Json(&'a str),
    MsgPack(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The whole frame as one value.
    pub(super) fn of_frame(encoding: Encoding, frame: &'a [u8]) -> Result<Self, Fault> {
        match encoding {
            Encoding::Json => {
                let text = std::str::from_utf8(frame).map_err(|_| Fault::fixed("the frame is not UTF-8"))?;
                Ok(Self::Json(text))
            }
            Encoding::MsgPack => Ok(Self::MsgPack(frame)),
        }
    }

    pub(super) fn is_null(self) -> bool {
        match self {
            Self::Json(text) => text == "null",
            Self::MsgPack(bytes) => bytes == [0xc0],
        }
    }

    pub(super) fn text(self, field: &str) -> Result<Cow<'a, str>, Fault> {
        let wrong = || Fault::wrong(field, "a string");
        match self {
            Self::Json(text) => {
                let inner = text
                    .strip_prefix('"')
                    .and_then(|text| text.strip_suffix('"'))
                    .ok_or_else(wrong)?;
                if inner.contains('\\') {
                    return serde_json::from_str(text).map(Cow::Owned).map_err(|_| wrong());
                }
                Ok(Cow::Borrowed(inner))
            }
            Self::MsgPack(bytes) => {
                let mut cursor = Cursor::new(bytes);
                let Head::Str(len) = cursor.head()? else {
                    return Err(wrong());
                };
                std::str::from_utf8(cursor.take(len)?)
                    .map(Cow::Borrowed)
                    .map_err(|_| wrong())
            }
        }
    }

    pub(super) fn unsigned(self, field: &str) -> Result<u64, Fault> {
        let wrong = || Fault::wrong(field, "an integer from 0 up");
        match self {
            Self::Json(text) => match text.parse() {
                Ok(value) => Ok(value),
                Err(_) => whole(text.parse().ok())
                    .and_then(|value| value.try_into().ok())
                    .ok_or_else(wrong),
            },
            Self::MsgPack(bytes) => match Cursor::new(bytes).head()? {
                Head::Unsigned(value) => Ok(value),
                Head::Float(value) => whole(Some(value))
                    .and_then(|value| value.try_into().ok())
                    .ok_or_else(wrong),
                _ => Err(wrong()),
            },
        }
    }

    pub(super) fn signed(self, field: &str) -> Result<i64, Fault> {
        let wrong = || Fault::wrong(field, "an integer");
        match self {
            Self::Json(text) => match text.parse() {
                Ok(value) => Ok(value),
                Err(_) => whole(text.parse().ok()).ok_or_else(wrong),
            },
            Self::MsgPack(bytes) => match Cursor::new(bytes).head()? {
                Head::Unsigned(value) => value.try_into().map_err(|_| wrong()),
                Head::Negative(value) => Ok(value),
                Head::Float(value) => whole(Some(value)).ok_or_else(wrong),
                _ => Err(wrong()),
            },
        }
    }

    pub(super) fn number(self, field: &str) -> Result<f64, Fault> {
        let number = match self {
            Self::Json(text) if text.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) => {
                text.parse().ok()
            }
            Self::Json(_) => None,
            Self::MsgPack(bytes) => match Cursor::new(bytes).head()? {
                Head::Unsigned(value) => Some(value as f64),
                Head::Negative(value) => Some(value as f64),
                Head::Float(value) => Some(value),
                _ => None,
            },
        };
        // What is not finite could not be answered in JSON.
        number
            .filter(|number: &f64| number.is_finite())
            .ok_or_else(|| Fault::wrong(field, "a number"))
    }

    pub(super) fn boolean(self, field: &str) -> Result<bool, Fault> {
        let wrong = || Fault::wrong(field, "true or false");
        match self {
            Self::Json("true") => Ok(true),
            Self::Json("false") => Ok(false),
            Self::Json(_) => Err(wrong()),
            Self::MsgPack(bytes) => match Cursor::new(bytes).head()? {
                Head::Bool(value) => Ok(value),
                _ => Err(wrong()),
            },
        }
    }

    /// The value as a payload: a slice of the frame, not a copy.
    pub(super) fn payload(self, field: &str, frame: &Bytes) -> Result<Payload, Fault> {
        match self {
            Self::Json(text) => Ok(Payload::Json(frame.slice_ref(text.as_bytes()))),
            Self::MsgPack(bytes) => {
                let mut cursor = Cursor::new(bytes);
                match cursor.head()? {
                    Head::Nil => Ok(Payload::Absent),
                    Head::Bin(len) | Head::Str(len) => Ok(Payload::Raw(frame.slice_ref(cursor.take(len)?))),
                    _ => Err(Fault::wrong(field, "bin")),
                }
            }
        }
    }

    /// The map that this value must be, as the text of one JSON object.
    pub(super) fn object(self, field: &str) -> Result<String, Fault> {
        let wrong = || Fault::wrong(field, "an object");
        let len = match self {
            Self::Json(text) => text.len(),
            Self::MsgPack(bytes) => bytes.len(),
        };
        if len > OBJECT_LEN_MAX {
            return Err(Fault::new(format!("`{field}` is longer than {OBJECT_LEN_MAX} bytes")));
        }
        let object: serde_json::Map<String, serde_json::Value> = match self {
            Self::Json(text) => serde_json::from_str(text).map_err(|_| wrong())?,
            Self::MsgPack(bytes) => rmp_serde::from_slice(bytes).map_err(|_| wrong())?,
        };
        Ok(serde_json::to_string(&object).expect("a map with string keys"))
    }

    /// The list of strings that this value must be.
    pub(super) fn texts(self, field: &str) -> Result<Vec<String>, Fault> {
        let wrong = || Fault::wrong(field, "a list of strings");
        match self {
            Self::Json(text) => serde_json::from_str(text).map_err(|_| wrong()),
            Self::MsgPack(bytes) => rmp_serde::from_slice(bytes).map_err(|_| wrong()),
        }
    }

    /// Calls `each` for every entry of the map that this value must be, in the frame's order; stops at the first fault. What
    /// `each` was given before a fault stays given.
    pub(super) fn entries(
        self,
        field: &str,
        mut each: impl FnMut(Cow<'a, str>, Value<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match self {
            Self::Json(text) => {
                let mut json = serde_json::Deserializer::from_str(text);
                let entries = JsonEntries {
                    field,
                    each: |key, text| each(key, Value::Json(text)),
                };
                let faults = |error: serde_json::Error| Fault::new(error.to_string());
                entries.deserialize(&mut json).map_err(faults)?;
                json.end().map_err(faults)
            }
            Self::MsgPack(bytes) => {
                let mut cursor = Cursor::new(bytes);
                let Head::Map(pairs) = cursor.head()? else {
                    return Err(Fault::wrong(field, "a map"));
                };
                for _ in 0..pairs {
                    let key = Value::MsgPack(cursor.value()?).text("a key of a map")?;
                    each(key, Value::MsgPack(cursor.value()?))?;
                }
                match cursor.is_empty() {
                    true => Ok(()),
                    false => Err(Fault::fixed("something follows the message in its frame")),
                }
            }
        }
    }
}

/// The integer that a float stands for, up to where floats name each one: in some clients' languages every number is a float, and
/// theirs write `7.0`.
fn whole(number: Option<f64>) -> Option<i64> {
    const WHOLE_MAX: f64 = (1_u64 << 53) as f64;
    let number = number.filter(|number| number.fract() == 0.0 && number.abs() <= WHOLE_MAX)?;
    Some(number as i64)
}

/// The walk over a JSON object that keeps each value as text. `RawValue` scans without recursion, so nesting is harmless.
struct JsonEntries<'f, F> {
    field: &'f str,
    each: F,
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, F: FnMut(Cow<'de, str>, &'de str) -> Result<(), Fault>> DeserializeSeed<'de> for JsonEntries<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(Cow<'de, str>, &'de str) -> Result<(), Fault>> Visitor<'de> for JsonEntries<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object as `{}`", self.field)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let value: &'de RawValue = map.next_value()?;
            (self.each)(key, value.get()).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}
