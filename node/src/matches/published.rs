//! The published state of a match: the newest value of each key, for everyone or for one seat. Which clients have which value is
//! not known here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rookery_protocol::Seat;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::output::PublishedValue;

type Values = BTreeMap<Arc<str>, PublishedValue>;

/// Keys and their newest values. Seats appear only while they have values of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    everyone: Values,
    own: BTreeMap<Seat, Values>,
    keys: usize,
    bytes: usize,
}

impl Published {
    /// Gives a key a value, or takes it away; returns the key as it is kept and the value before.
    pub fn put(&mut self, to: Option<Seat>, key: &str, data: Option<Bytes>) -> (Arc<str>, Option<PublishedValue>) {
        let Some(data) = data else {
            return match self.take(to, key) {
                Some(was) => (was.key.clone(), Some(was)),
                None => (key.into(), None),
            };
        };
        let values = match to {
            None => &mut self.everyone,
            Some(seat) => self.own.entry(seat).or_default(),
        };
        self.bytes += data.len();
        if let Some(value) = values.get_mut(key) {
            // The new value is numbered when its event is committed; until then it keeps the number it replaces.
            let new = PublishedValue { data, ..value.clone() };
            let was = std::mem::replace(value, new);
            self.bytes -= was.data.len();
            return (was.key.clone(), Some(was));
        }
        let key: Arc<str> = key.into();
        self.keys += 1;
        self.bytes += key.len();
        values.insert(
            key.clone(),
            PublishedValue {
                key: key.clone(),
                seq: 0,
                at_ms: 0,
                data,
            },
        );
        (key, None)
    }

    /// Puts back what [`put`](Self::put) replaced.
    pub fn undo(&mut self, to: Option<Seat>, key: &Arc<str>, was: Option<PublishedValue>) {
        self.take(to, key);
        if let Some(was) = was {
            self.keys += 1;
            self.bytes += key.len() + was.data.len();
            self.values_mut(to).insert(key.clone(), was);
        }
    }

    /// The value's number, once it is known; returns the number that it replaces.
    pub fn number(&mut self, to: Option<Seat>, key: &str, seq: u64, at_ms: u64) -> Option<u64> {
        let values = match to {
            None => &mut self.everyone,
            Some(seat) => self.own.get_mut(&seat)?,
        };
        let value = values.get_mut(key)?;
        let was = std::mem::replace(&mut value.seq, seq);
        value.at_ms = at_ms;
        (was != 0).then_some(was)
    }

    /// What a seat may see, in key order; of a key for everyone and for the seat, the seat's own comes second.
    pub fn visible(&self, seat: Seat) -> impl Iterator<Item = &PublishedValue> {
        let mut everyone = self.everyone.values().peekable();
        let mut own = self.own.get(&seat).into_iter().flat_map(BTreeMap::values).peekable();
        std::iter::from_fn(move || match (everyone.peek(), own.peek()) {
            (Some(shared), Some(private)) if private.key < shared.key => own.next(),
            (Some(_), _) => everyone.next(),
            (None, _) => own.next(),
        })
    }

    /// Forgets what was for one seat only.
    pub fn forget(&mut self, seat: Seat) {
        for value in self.own.remove(&seat).into_iter().flat_map(BTreeMap::into_values) {
            self.keys -= 1;
            self.bytes -= value.key.len() + value.data.len();
        }
    }

    /// The value of one key.
    pub fn get(&self, to: Option<Seat>, key: &str) -> Option<&PublishedValue> {
        match to {
            None => self.everyone.get(key),
            Some(seat) => self.own.get(&seat)?.get(key),
        }
    }

    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Keys and values together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn values_mut(&mut self, to: Option<Seat>) -> &mut Values {
        match to {
            None => &mut self.everyone,
            Some(seat) => self.own.entry(seat).or_default(),
        }
    }

    fn take(&mut self, to: Option<Seat>, key: &str) -> Option<PublishedValue> {
        let was = match to {
            None => self.everyone.remove(key),
            Some(seat) => {
                let values = self.own.get_mut(&seat)?;
                let was = values.remove(key);
                if values.is_empty() {
                    self.own.remove(&seat);
                }
                was
            }
        }?;
        self.keys -= 1;
        self.bytes -= was.key.len() + was.data.len();
        Some(was)
    }
}

impl Serialize for Published {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let flat = |values: &Values| values.values().cloned().collect::<Vec<_>>();
        let everyone = flat(&self.everyone);
        let own: BTreeMap<Seat, Vec<PublishedValue>> = self.own.iter().map(|(seat, v)| (*seat, flat(v))).collect();
        (everyone, own).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Published {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (everyone, own): (Vec<PublishedValue>, BTreeMap<Seat, Vec<PublishedValue>>) =
            Deserialize::deserialize(deserializer)?;
        let mut published = Self::default();
        let flat = own
            .into_iter()
            .flat_map(|(seat, values)| values.into_iter().map(move |v| (Some(seat), v)));
        for (to, value) in everyone.into_iter().map(|value| (None, value)).chain(flat) {
            let key = value.key.clone();
            published.undo(to, &key, Some(value));
        }
        Ok(published)
    }
}
