//! Reads a refusal's details, of which another node may say anything: they become a tree of values, each of which takes more than a
//! hundred bytes for one on the wire. So only so many are read; the rest is left out, since the refusal itself still stands.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How many values details have at most. Ours have a handful; a module's `reason` is among them.
const VALUES_MAX: usize = 1_000;

/// The details of a refusal, for `deserialize_with`.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    let left = Cell::new(VALUES_MAX);
    deserializer.deserialize_map(Bounded { left: &left })
}

/// One value, and how many more may come.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    left: &'a Cell<usize>,
}

impl Bounded<'_> {
    /// Whether there is room for another value. Only values that are there count, so that what was kept is kept again.
    fn has_room(self) -> bool {
        self.left.get() > 0
    }

    fn map<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Map<String, Value>, A::Error> {
        let mut out = Map::new();
        while self.has_room() {
            let Some(key) = map.next_key::<String>()? else {
                return Ok(out);
            };
            out.insert(key, map.next_value_seed(self)?);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(out)
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.left.set(self.left.get().saturating_sub(1));
        deserializer.deserialize_any(AnyValue(self))
    }
}

/// The details themselves.
impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.map(map)
    }
}

struct AnyValue<'a>(Bounded<'a>);

impl<'de> Visitor<'de> for AnyValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while self.0.has_room() {
            match seq.next_element_seed(self.0)? {
                Some(value) => out.push(value),
                None => return Ok(out.into()),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(out.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        self.0.map(map).map(Value::Object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::VALUES_MAX;
    use crate::error::{ErrorCode, Refusal};
    use crate::peer::{decode, encode};

    #[test]
    fn details_come_as_they_were() {
        let mut refusal = Refusal::new(ErrorCode::MatchRefused, "no").with("retry_ms", 5);
        refusal = refusal.with(
            "reason",
            json!({"a": [1, -2, 2.5, null, true, "x", u64::MAX, {}], "b": {"c": []}}),
        );
        assert_eq!(decode::<Refusal>(&encode(&refusal)).unwrap(), refusal);
        let text = serde_json::to_string(&refusal).unwrap();
        assert_eq!(serde_json::from_str::<Refusal>(&text).unwrap(), refusal);
    }

    /// Found by fuzzing: lists in lists took 2.7 MB for 16 KiB.
    #[test]
    fn what_is_too_much_is_left_out() {
        let refusal = Refusal::new(ErrorCode::MatchFull, "no")
            .with("list", vec![0; 5_000])
            .with("more", 1);
        let read: Refusal = decode(&encode(&refusal)).unwrap();
        assert_eq!((read.code, &*read.message), (ErrorCode::MatchFull, "no"));
        let kept = read.details["list"].as_array().unwrap().len();
        assert_eq!(kept, VALUES_MAX - 1);
        assert_eq!(decode::<Refusal>(&encode(&read)).unwrap(), read);
        assert!(!read.details.contains_key("more"));
    }
}
