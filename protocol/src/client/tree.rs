//! A frame of either encoding as a tree of values, for those who stand at the other end of the socket: tests and tools that read
//! what a node sends and write requests. The node itself never builds one.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde::{Deserialize, Deserializer};

use super::Encoding;

/// One value of a frame. Integers beyond `i64` read as floats.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Tree {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// MessagePack's `bin`. JSON has none and writes it as null.
    Bytes(Bytes),
    List(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
}

/// Bytes that are not a frame of the encoding that they are read as.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("not a JSON frame")]
    Json(#[from] serde_json::Error),
    #[error("not a MessagePack frame")]
    MsgPack(#[from] rmp_serde::decode::Error),
}

impl Tree {
    /// Reads a frame.
    pub fn read(encoding: Encoding, frame: &[u8]) -> Result<Self, TreeError> {
        Ok(match encoding {
            Encoding::Json => serde_json::from_slice(frame)?,
            Encoding::MsgPack => rmp_serde::from_slice(frame)?,
        })
    }

    /// Writes a frame.
    pub fn write(&self, encoding: Encoding) -> Bytes {
        Bytes::from(match encoding {
            Encoding::Json => serde_json::to_vec(self).expect("a tree is plain values"),
            Encoding::MsgPack => rmp_serde::to_vec(self).expect("a tree is plain values"),
        })
    }

    /// Returns the value under a key; none when there is none or this is not a map.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        match self {
            Self::Map(map) => map.get(key),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) => None,
            Self::Text(_) | Self::Bytes(_) | Self::List(_) => None,
        }
    }

    /// Returns the text, if this is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) => None,
            Self::Bytes(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// Returns the integer, if this is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            Self::Null | Self::Bool(_) | Self::Float(_) | Self::Text(_) => None,
            Self::Bytes(_) | Self::List(_) | Self::Map(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Int(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(i64::try_from(value).map_or(Tree::Float(value as f64), Tree::Int))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Float(value))
            }

            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.into()))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Tree, E> {
                Ok(Tree::Bytes(Bytes::copy_from_slice(bytes)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Tree::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    entries.insert(key, value);
                }
                Ok(Tree::Map(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(_) if serializer.is_human_readable() => serializer.serialize_unit(),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => serializer.collect_map(entries),
        }
    }
}
