//! What a ticket says of its player, and what it asks of the others: properties and queries, as JSON objects.
//!
//! Numbers are compared as numbers, whichever way they were written: 1 is 1.0.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use serde_json::Value;

/// Properties and queries longer than this are refused: they are kept in the ticket's row and handed to the match.
pub const BYTES_MAX: usize = 4_096;

/// Why a ticket's properties or query are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    #[error("longer than {BYTES_MAX} bytes")]
    TooLong,
    #[error("not a JSON object")]
    NotAnObject,
    #[error("`{0}` is none of a value, a list of values, or an object of `min` and `max`")]
    NotAQuestion(String),
}

/// What a ticket says of its player.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Properties(BTreeMap<String, Value>);

impl Properties {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// It is too long or none.
    pub fn read(text: &str) -> Result<Self, PropertyError> {
        object(text).map(Self)
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// A property as a number, if it is a finite one.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.0
            .get(name)
            .and_then(Value::as_f64)
            .filter(|number| number.is_finite())
    }

    /// A property as a text that is the same for equal values; empty when it is not there.
    pub fn text(&self, name: &str) -> String {
        match self.0.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(value) => match value.as_f64() {
                Some(number) => number.to_string(),
                None => value.to_string(),
            },
        }
    }
}

/// What a ticket asks of the others' properties.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query(BTreeMap<String, Wanted>);

#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    OneOf(Vec<Value>),
    Range { min: f64, max: f64 },
}

impl Query {
    /// Reads a JSON object: each property is to be equal to a value, to one of a list of values, or within `{min, max}`.
    ///
    /// # Errors
    /// It is too long, no object, or asks for something else.
    pub fn read(text: &str) -> Result<Self, PropertyError> {
        let mut query = BTreeMap::new();
        for (name, value) in object(text)? {
            let wanted = wanted(value).ok_or_else(|| PropertyError::NotAQuestion(name.clone()))?;
            query.insert(name, wanted);
        }
        Ok(Self(query))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody with these properties will do. A property that is not there will not.
    pub fn accepts(&self, properties: &Properties) -> bool {
        self.0.iter().all(|(name, wanted)| {
            let value = properties.0.get(name);
            match wanted {
                Wanted::OneOf(values) => value.is_some_and(|value| values.iter().any(|wanted| same(wanted, value))),
                Wanted::Range { min, max } => {
                    let number = value.and_then(Value::as_f64);
                    number.is_some_and(|number| (*min..=*max).contains(&number))
                }
            }
        })
    }
}

fn wanted(value: Value) -> Option<Wanted> {
    match value {
        Value::Array(values) => Some(Wanted::OneOf(values)),
        Value::Object(bounds) => {
            let bound = |name: &str, without: f64| bounds.get(name).map_or(Some(without), Value::as_f64);
            let (min, max) = (bound("min", f64::NEG_INFINITY)?, bound("max", f64::INFINITY)?);
            let known = bounds.keys().all(|name| name == "min" || name == "max");
            (known && !bounds.is_empty()).then_some(Wanted::Range { min, max })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(Wanted::OneOf(vec![value])),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a == b,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn object(text: &str) -> Result<BTreeMap<String, Value>, PropertyError> {
    if text.len() > BYTES_MAX {
        return Err(PropertyError::TooLong);
    }
    serde_json::from_str(text).map_err(|_| PropertyError::NotAnObject)
}
